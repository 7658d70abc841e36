//! Every refusal of the compiler, as data: a file, and the whole text of what is said about it.

/// Compiles `input` and compares all findings, line by line.
#[track_caller]
fn check(input: &str, expect: &[&str]) {
    let found = match pipeline::compile(input) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.lines(),
    };
    assert_eq!(found, expect, "of\n{input}");
}

/// [`check`] of one step that is right but for `key`, which stands in line 6 from column 5.
#[track_caller]
fn check_step(key: &str, expect: &[&str]) {
    let key = key.replace('\n', "\n    ");
    let mut step = "stages:\n- name: s\n  steps:\n  -\n".to_owned();
    step.push_str("    name: a\n");
    step.push_str(&format!("    {key}\n"));
    for given in ["image: x", "run: y"] {
        let (name, _) = given.split_once(':').expect("a key");
        if !key.starts_with(&format!("{name}:")) {
            step.push_str(&format!("    {given}\n"));
        }
    }
    check(&step, expect);
}

/// A file around the text of a list of stages.
fn minimal(rest: &str) -> String {
    format!("{rest}\nstages: [{{name: s, steps: [{{name: a, image: x, run: y}}]}}]\n")
}

#[test]
fn the_whole_file() {
    let empty = "1:1: the file is empty (`buildflow init` writes a first one)";
    for input in [
        "",
        "\n\n",
        "# only a comment\n",
        "\u{feff}",
        "---\n",
        "---\n...\n",
        "~",
        "null\n",
        "   ",
    ] {
        check(input, &[empty]);
    }
    check("- a\n", &["1:1: the file must be a mapping, not a list"]);
    check(
        "make test\n",
        &["1:1: the file must be a mapping, not the text `make test`"],
    );
    check("12\n", &["1:1: the file must be a mapping, not `12`"]);
    let no_stages =
        "1:1: the file has no `stages` (write `stages: [{name: build, steps: [{name: compile, image: …, run: …}]}]`)";
    check("{}", &[no_stages]);
    check("name: x\n", &[no_stages]);
    check("x-y: 1\n", &[no_stages]);
    check(
        &(minimal("") + "---\na: b\n"),
        &[
            "3:1: a second YAML document begins here (one file holds one pipeline: put the other into a file of its own under `.buildflow/`)",
        ],
    );
    check(
        "%YAML 1.2\n---\n",
        &["1:1: directives (`%…`) are not used in pipeline files (remove the line)"],
    );
}

#[test]
fn bytes_that_are_no_text() {
    let cases: [(&[u8], &str); 6] = [
        (
            b"name: a\xff",
            "1:8: the byte 0xff is not UTF-8 (save the file as UTF-8)",
        ),
        (
            "name: a\n# ü".as_bytes().split_last().map_or(b"", |(_, head)| head),
            "2:3: the byte 0xc3 is not UTF-8 (save the file as UTF-8)",
        ),
        (b"\xff\xfen\0", "1:1: the file is written in UTF-16 (save it as UTF-8)"),
        (b"\xfe\xff\0n", "1:1: the file is written in UTF-16 (save it as UTF-8)"),
        (
            b"name: \xfc\n",
            "1:7: the byte 0xfc is not UTF-8 (save the file as UTF-8)",
        ),
        (
            b"a: \xed\xa0\x80",
            "1:4: the byte 0xed is not UTF-8 (save the file as UTF-8)",
        ),
    ];
    for (bytes, expect) in cases {
        let findings = pipeline::compile_bytes(bytes, pipeline::Limits::default()).expect_err("no text");
        assert_eq!(findings.to_string(), expect);
    }
}

#[test]
fn characters_that_nobody_sees() {
    check(
        "name: a\0b\n\u{1}",
        &[
            "1:8: the control character NUL stands here (remove it; inside of double quotes an escape such as `\\e` can be written)",
            "2:1: the control character U+0001 stands here (remove it; inside of double quotes an escape such as `\\e` can be written)",
        ],
    );
    check(
        "ü: \u{1b}[31m",
        &[
            "1:4: the control character U+001B stands here (remove it; inside of double quotes an escape such as `\\e` can be written)",
        ],
    );
    check(
        &minimal("title: \u{feff}x"),
        &["1:8: a byte-order mark stands inside of the file (remove this invisible character)"],
    );
    check(
        "stages:\n\t- name: a\n",
        &["2:1: a tab stands in the indentation (indent with spaces)"],
    );
    check(
        "title: a\n\tb\nname: c",
        &["2:1: a tab stands where only spaces can (indent with spaces; a text that holds tabs has to be quoted)"],
    );
    check_step(
        "run: \"a\\0b\"",
        &["6:10: `run` holds a NUL character (remove `\\0` from the text)"],
    );
}

#[test]
fn a_byte_order_mark_at_the_beginning_and_any_line_ends_are_fine() {
    for end in ["\n", "\r\n", "\r"] {
        let text = format!("\u{feff}{}", minimal("name: p")).replace('\n', end);
        check(&text, &[]);
        let text = format!("\u{feff}{}", minimal("name: p\nfoo: 1")).replace('\n', end);
        check(
            &text,
            &[
                "2:1: `foo` is not a key of a pipeline file (known keys: name, title, include, on, concurrency, env, templates, defaults, stages)",
            ],
        );
    }
}

#[test]
fn broken_yaml() {
    let column = "keys of a mapping begin in the same column; a text that begins with `[`, `{` or a quote has to be quoted as a whole";
    let colon = "a `:` stands where no key can be (check the indentation; put a text that holds `: ` into quotes)";
    let entry = "a list goes on with something that is no entry of it (entries begin with `- ` in the same column; quote a text that begins with `,`, `]` or `}`)";
    let header = "behind `|` or `>` stands more text (the text begins on the next line, indented deeper; quote a text that begins with `|` or `>`)";
    let open =
        "a quoted text is not closed (add the closing quote; lines of a quoted text are indented deeper than its key)";
    let after = "a quoted text is followed by more text (quote the whole value; inside of single quotes, write `''` for one quote)";
    let flow = "a mapping in `{ }` or a list in `[ ]` lacks `,` or its end (check that every `{` has its `}` and every `[` its `]`)";
    let block = "a `-` stands where no list entry can begin (begin the list on a line of its own; put a text that begins with `- ` into quotes)";
    let line = format!("this line does not fit the lines above it ({column})");
    let cases = [
        ("a: b: c\n", 1, 5, colon),
        ("a: 1\n b: 2\n", 2, 3, colon),
        ("a:\n  b: 1\n c: 2\n", 3, 2, &line),
        ("a: [ -f x ] && make\n", 1, 13, &line),
        ("a: 1\nb\n", 2, 1, "a key is not followed by `:` (write `key: value`)"),
        ("a: [b, c\n", 1, 4, "`[` is not closed (add the closing bracket)"),
        ("a: {b, c\n", 1, 4, "`{` is not closed (add the closing bracket)"),
        (
            "a: [b}\n",
            1,
            4,
            "`[` is closed by `}` (brackets come in pairs: `[ ]`, `{ }`)",
        ),
        ("a: [b]]\n", 1, 7, "a closing bracket has no opening one (remove it)"),
        ("a: [b: c: d]\n", 1, 9, flow),
        ("a: - b\n", 1, 4, block),
        ("- , a\n", 1, 3, entry),
        (
            "a: @b\n",
            1,
            4,
            "an unquoted text cannot begin with `@` (put the text into quotes)",
        ),
        (
            "a: `b`\n",
            1,
            4,
            "an unquoted text cannot begin with ``` (put the text into quotes)",
        ),
        ("a: 'b\nc: d\n", 1, 4, open),
        ("a: \"b\n", 1, 4, open),
        ("a: 'it's'\n", 1, 8, after),
        ("a: \"b\" c\n", 1, 8, after),
        ("a: > b\n", 1, 4, header),
        ("a: | b\n", 1, 4, header),
        (
            "a: \"\\q\"\n",
            1,
            4,
            "this escape does not exist in a double-quoted text (write `\\\\` for a backslash, or use single quotes)",
        ),
        (
            "a: \"\\ud800\"\n",
            1,
            4,
            "not valid YAML: while parsing a quoted scalar, found high surrogate without following low surrogate",
        ),
    ];
    for (input, line, column, expect) in cases {
        check(input, &[&format!("{line}:{column}: {expect}")]);
    }
}

#[test]
fn nesting() {
    let deep = "lists and mappings are nested more than 32 deep (no key of a pipeline needs more than ten levels)";
    for (text, at) in [
        ("[".repeat(100), "1:33"),
        ("{".repeat(100), "1:33"),
        ("{a: ".repeat(100), "1:129"),
        ("- ".repeat(100), "1:65"),
        ("? ".repeat(100), "1:65"),
    ] {
        check(&text, &[&format!("{at}: {deep}")]);
    }
}

#[test]
fn keys_of_mappings() {
    check(
        &minimal("[a]: b\n{c: d}: e\n~: f\n? g"),
        &[
            "1:1: a key is a list or a mapping (keys are plain words; quote a text that begins with `[` or `{`)",
            "2:1: a key is a list or a mapping (keys are plain words; quote a text that begins with `[` or `{`)",
            "3:1: a key is empty (write a word before the `:`)",
            "4:3: `g` is not a key of a pipeline file (known keys: name, title, include, on, concurrency, env, templates, defaults, stages)",
        ],
    );
    check(
        &minimal("name: a\ntitle: b\nname: c\n\"title\": d"),
        &[
            "3:1: duplicate key `name` (it stands at 1:1 already; keep one of them)",
            "4:1: duplicate key `title` (it stands at 2:1 already; keep one of them)",
        ],
    );
    check(
        &minimal("env: {A: 1, B: 2, A: 3}\nx-any: {b: 1, b: 2}"),
        &[
            "1:19: duplicate key `A` (it stands at 1:7 already; keep one of them)",
            "2:15: duplicate key `b` (it stands at 2:9 already; keep one of them)",
        ],
    );
}

#[test]
fn anchors_and_merges() {
    check(
        &minimal("x-a: &a {A: 1}\nenv: {<<: [*a, b], B: *c}"),
        &[
            "2:16: `<<` takes a mapping (write `<<: *anchor`, or `<<: [*first, *second]`)",
            "2:23: no anchor `&c` stands above this alias (define the anchor before it is used; quote a text that begins with `*`)",
        ],
    );
    check(
        &minimal("x-a: &a [*a]\nx-b: &b {c: {<<: *b}}"),
        &[
            "1:10: an alias stands inside of what it is an alias of",
            "2:18: `<<` takes a mapping (write `<<: *anchor`, or `<<: [*first, *second]`)",
            "2:18: an alias stands inside of what it is an alias of",
        ],
    );
    let tag = "share keys with `extends` or with an anchor (`&name`, `*name`); quote a text that begins with `!`";
    check(
        &minimal("env: !reference [x]\ntitle: !!int 5\nx-a: !include y"),
        &[
            &format!("1:6: the tag `!reference` has no meaning here ({tag})"),
            "1:17: `env` must be a mapping, not a list",
            &format!("2:8: the tag `!!int` has no meaning here ({tag})"),
            &format!("3:6: the tag `!include` has no meaning here ({tag})"),
        ],
    );
}

#[test]
fn keys_that_do_not_work_yet() {
    let later = "is not supported yet (remove it; `buildflow schema` prints the keys that work)";
    for key in [
        "notify",
        "cache",
        "artifacts",
        "uses_artifacts",
        "workspace",
        "services",
        "secrets",
        "reports",
        "environment",
        "deploy",
        "network",
        "profile",
        "reuse",
        "queue_timeout",
        "on_disconnect",
    ] {
        check(&minimal(&format!("{key}: x")), &[&format!("1:1: `{key}` {later}")]);
        check(
            &minimal(&format!("defaults: {{{key}: x}}")),
            &[&format!("1:12: `{key}` {later}")],
        );
        check(
            &minimal(&format!("templates: {{t: {{{key}: x}}}}")),
            &[&format!("1:17: `{key}` {later}")],
        );
        check_step(&format!("{key}: x"), &[&format!("6:5: `{key}` {later}")]);
        check(
            &format!("stages: [{{name: s, {key}: x, steps: [{{name: a, image: x, run: y}}]}}]"),
            &[&format!("1:20: `{key}` {later}")],
        );
    }
    for key in ["submodules", "lfs", "tags", "mtime", "repo", "ref", "path"] {
        check_step(&format!("checkout: {{{key}: x}}"), &[&format!("6:16: `{key}` {later}")]);
    }
    check_step("resources: {gpu: 1}", &[&format!("6:17: `gpu` {later}")]);
    check_step(
        "checkout: [{repo: x}]",
        &["6:15: a list of checkouts is not supported yet (write `true`, `false` or `{depth: 1}`)"],
    );
    check_step(
        "privileged: true",
        &["6:5: `privileged` does not exist (a step never gets more rights than its sandbox gives; remove it)"],
    );
}

/// A word, where it comes from, and what is said of it.
const FOREIGN: &[(&str, &str, &str)] = &[
    (
        "resource_group",
        "GitLab",
        "write `concurrency: {group: …, queue: all}`",
    ),
    (
        "interruptible",
        "GitLab",
        "write `concurrency: {group: …, cancel_in_progress: true}` for the file",
    ),
    (
        "outputs",
        "GitHub",
        "write `key=value` lines into `$BUILDFLOW_OUTPUT`; others read `needs['step'].outputs.key`",
    ),
    ("run-name", "GitHub", "write `title`"),
    (
        "jobs",
        "GitHub",
        "a job is a step here: write `stages`, each with `steps`",
    ),
    (
        "uses",
        "GitHub",
        "there are no actions: write the commands into `run` and share them with `templates` and `extends`",
    ),
    ("with", "GitHub", "hand values to commands with `env`"),
    ("runs-on", "GitHub", "write `image`, and choose nodes with `labels`"),
    ("container", "GitHub", "write `image`"),
    ("continue-on-error", "GitHub", "write `allow_failure: true`"),
    ("timeout-minutes", "GitHub", "write `timeout: 30m`"),
    (
        "strategy",
        "GitHub",
        "write `matrix: {version: [\"1\", \"2\"], fail_fast: false, max_parallel: 4}` in the step",
    ),
    (
        "permissions",
        "GitHub",
        "a step gets no rights from the forge; remove it",
    ),
    ("id", "GitHub", "write `name`"),
    ("script", "GitLab", "write `run`"),
    ("before_script", "GitLab", "write `before`"),
    ("after_script", "GitLab", "write `after`"),
    ("rules", "GitLab", "write `if` and `changes` in the step"),
    ("only", "GitLab", "write `on` for the file, or `if` in the step"),
    ("except", "GitLab", "write `on` for the file, or `if` in the step"),
    ("stage", "GitLab", "put the step below the `steps` of its stage"),
    ("variables", "GitLab", "write `env`"),
    ("default", "GitLab", "write `defaults`"),
    ("tags", "GitLab", "write `labels`"),
    ("dependencies", "GitLab", "write `needs`"),
    (
        "parallel",
        "GitLab",
        "write `matrix: {version: [\"1\", \"2\"], fail_fast: false, max_parallel: 4}` in the step",
    ),
    ("workflow", "GitLab", "write `on` for the file"),
    (
        "trigger",
        "GitLab",
        "let the other pipeline say `on: {pipeline: {name: …, status: success}}`",
    ),
    (
        "entrypoint",
        "GitLab",
        "write `shell` and `run`; an image's entry point is not used",
    ),
    ("commands", "Woodpecker", "write `run`"),
    ("depends_on", "Woodpecker", "write `needs`"),
    (
        "when",
        "Woodpecker",
        "write `on` for the file, or `if`, `changes` and `manual` in the step",
    ),
    (
        "settings",
        "Woodpecker",
        "there are no plugins: write the commands into `run`",
    ),
    ("clone", "Woodpecker", "write `checkout`"),
    ("pipeline", "Woodpecker", "write `stages`, each with `steps`"),
    ("volumes", "Woodpecker", "a step sees no files of its node; remove it"),
    ("command", "Buildkite", "write `run`"),
    (
        "plugins",
        "Buildkite",
        "there are no plugins: write the commands into `run`",
    ),
    ("agents", "Buildkite", "write `labels`"),
    ("label", "Buildkite", "write `name`, and `title` for free text"),
];

#[test]
fn words_of_other_systems() {
    for (word, origin, help) in FOREIGN {
        check_step(
            &format!("{word}: x"),
            &[&format!("6:5: `{word}` is a word of {origin} ({help})")],
        );
        check(
            &minimal(&format!("{word}: x")),
            &[&format!("1:1: `{word}` is a word of {origin} ({help})")],
        );
    }
}

#[test]
fn keys_that_nobody_knows() {
    let cases = [
        ("runn", "did you mean `run`?"),
        ("need", "did you mean `needs`?"),
        ("Timeout", "did you mean `timeout`?"),
        ("working-directory", "did you mean `working_directory`?"),
        ("allow-failure", "did you mean `allow_failure`?"),
        ("enviroment", "did you mean `environment`? it is not supported yet"),
        ("memory", "it is a key of `resources`"),
        ("depth", "it is a key of `checkout`"),
        ("backoff", "it is a key of `retry`"),
        ("stages", "it is a key of the file itself, without indentation"),
        (
            "stagse",
            "did you mean `stages`? it is a key of the file itself, without indentation",
        ),
        ("steps", "it is a key of a stage"),
    ];
    for (key, help) in cases {
        check_step(
            &format!("{key}: x"),
            &[&format!("6:5: `{key}` is not a key of a step ({help})")],
        );
    }
    check(
        &minimal("image: x\nstpes: y\nstage_s: z\nnme: a"),
        &[
            "1:1: `image` is not a key of a pipeline file (it is a key of a step, of `defaults` or of a template)",
            "2:1: `stpes` is not a key of a pipeline file (did you mean `steps`? it is a key of a stage)",
            "3:1: `stage_s` is not a key of a pipeline file (did you mean `stages`?)",
            "4:1: `nme` is not a key of a pipeline file (did you mean `name`?)",
        ],
    );
    check(
        "stages: [{name: s, timeout: 5m, zzz: 1, steps: [{name: a, image: x, run: y}]}]",
        &[
            "1:20: `timeout` is not a key of a stage (it is a key of a step, of `defaults` or of a template)",
            "1:33: `zzz` is not a key of a stage (known keys: name, steps)",
        ],
    );
    check_step(
        "resources: {mem: 1Gi, cpus: 2}",
        &[
            "6:17: `mem` is not a key of `resources` (known keys: cpu, memory, disk, pids, shm)",
            "6:27: `cpus` is not a key of `resources` (did you mean `cpu`?)",
        ],
    );
    check_step(
        "checkout: {dept: 1}",
        &["6:16: `dept` is not a key of `checkout` (did you mean `depth`?)"],
    );
    check_step(
        "run: [{cmd: x}]",
        &[
            "6:11: an entry of `run` has no `run` (write `{name: …, run: …}`)",
            "6:12: `cmd` is not a key of an entry of commands (known keys: name, run, if)",
        ],
    );
    let long = "z".repeat(100);
    check(
        &minimal(&format!("? {long}\n: 1\n\"a\\nb\": 2\n\"a\\u202eb\": 3")),
        &[
            &format!(
                "1:3: `{}…` is not a key of a pipeline file (known keys: name, title, include, on, concurrency, env, templates, defaults, stages)",
                &long[..60]
            ),
            "3:1: `a\\nb` is not a key of a pipeline file (known keys: name, title, include, on, concurrency, env, templates, defaults, stages)",
            "4:1: `a\\u{202e}b` is not a key of a pipeline file (known keys: name, title, include, on, concurrency, env, templates, defaults, stages)",
        ],
    );
}

/// A key of a step with a wrong value, and what is said of it.
const VALUES: &[(&str, &str)] = &[
    ("title: [a]", "6:12: `title` must be a text, not a list"),
    ("title: {a: b}", "6:12: `title` must be a text, not a mapping"),
    (
        "title:",
        "6:10: `title` has no value (write one, or remove it; an empty text is `\"\"`)",
    ),
    ("title: \"\"", "6:12: `title` must have 1 to 200 characters"),
    (
        "title: \"a\\nb\"",
        "6:12: `title` must be one line without control characters",
    ),
    (
        "title: \"\\e[31m\"",
        "6:12: `title` must be one line without control characters",
    ),
    (
        "title: \"a\\u202eb\"",
        "6:12: `title` must be one line without control characters",
    ),
    (
        "title: 1.90",
        "6:12: `title` is the fraction 1.90, which may be read as another number (put it into quotes: \"1.90\")",
    ),
    ("extends: [a]", "6:14: `extends` must be a text, not a list"),
    (
        "needs: {a: b}",
        "6:12: `needs` must be a text or a list of texts, not a mapping",
    ),
    ("needs: [[a]]", "6:13: `needs` must be a text, not a list"),
    (
        "needs: [~]",
        "6:13: `needs` has no value (write one, or remove it; an empty text is `\"\"`)",
    ),
    ("run: {a: b}", "6:10: `run` must be a text or a list, not a mapping"),
    ("run: []", "6:10: `run` is empty (write at least one command)"),
    ("run: ''", "6:10: `run` is empty (write a command, or remove it)"),
    ("run: ['  ']", "6:11: `run` is empty (write a command, or remove it)"),
    (
        "run: [[a]]",
        "6:11: an entry of `run` must be a text or `{name, run}`, not a list",
    ),
    (
        "run: [{name: a}]",
        "6:11: an entry of `run` has no `run` (write `{name: …, run: …}`)",
    ),
    (
        "run: [{}]",
        "6:11: an entry of `run` has no `run` (write `{name: …, run: …}`)",
    ),
    (
        "run: [{run: [a]}]",
        "6:17: the `run` of an entry must be a text, not a list",
    ),
    (
        "run: [{run: a, name: ~}]",
        "6:26: the `name` of an entry has no value (write one, or remove it; an empty text is `\"\"`)",
    ),
    (
        "run: ['echo a': b]",
        "6:11: the command `echo a: …` is read as a mapping (a text that holds `: ` has to be quoted)",
    ),
    (
        "before: 1.5",
        "6:13: `before` is the fraction 1.5, which may be read as another number (put it into quotes: \"1.5\")",
    ),
    (
        "after: [~]",
        "6:13: `after` has no value (write one, or remove it; an empty text is `\"\"`)",
    ),
    (
        "shell: zsh",
        "6:12: `shell` must be `sh` or `bash`, not `zsh` (did you mean `sh`?)",
    ),
    (
        "shell: bsah",
        "6:12: `shell` must be `sh` or `bash`, not `bsah` (did you mean `bash`?)",
    ),
    (
        "shell: python",
        "6:12: `shell` must be `sh` or `bash`, not `python` (call another interpreter from a command)",
    ),
    (
        "working_directory: ''",
        "6:24: `working_directory` must have 1 to 4095 characters",
    ),
    (
        "working_directory: \"a\\tb\"",
        "6:24: `working_directory` must be one line without control characters",
    ),
    (
        "checkout: yes",
        "6:15: `checkout` must be `true` or `false`, not the text `yes`",
    ),
    ("checkout: 1", "6:15: `checkout` must be `true` or `false`, not `1`"),
    (
        "checkout:",
        "6:13: `checkout` has no value (write `true` or `false`, or remove it)",
    ),
    (
        "checkout: {depth: a}",
        "6:23: `checkout.depth` must be a whole number, not the text `a`",
    ),
    (
        "checkout: {depth: 1.5}",
        "6:23: `checkout.depth` must be a whole number, not `1.5`",
    ),
    (
        "checkout: {depth: -1}",
        "6:23: `checkout.depth` must be from 0 to 1000000, not -1",
    ),
    (
        "checkout: {depth: 1000001}",
        "6:23: `checkout.depth` must be from 0 to 1000000, not 1000001",
    ),
    (
        "image: Debian",
        "6:12: `Debian` is not an image (the name of an image has no capital letters)",
    ),
    (
        "image: 1.90",
        "6:12: `image` is the fraction 1.90, which may be read as another number (put it into quotes: \"1.90\")",
    ),
    (
        "image: ''",
        "6:12: `` is not an image (write it like `docker.io/library/debian:13`, at most 512 characters)",
    ),
    (
        "user: a b",
        "6:11: `a b` is not a user (write a name or number of the image, like `builder`, `1000` or `1000:1000`)",
    ),
    (
        "timeout: 30",
        "6:14: `30` is not a duration (it has no unit: write `30s` or `30m`)",
    ),
    (
        "timeout: 1h",
        "6:14: `timeout` 1h is above the team's limit of 30m (an operator raises it with `buildflow team set --step-timeout`)",
    ),
    (
        "timeout: 30m1s",
        "6:14: `timeout` 30m1s is above the team's limit of 30m (an operator raises it with `buildflow team set --step-timeout`)",
    ),
    (
        "timeout: 0s",
        "6:14: `timeout` must be at least 1s (without the key it is 30m)",
    ),
    (
        "timeout: [1]",
        "6:14: `timeout` must be a duration such as `30m`, not a list",
    ),
    (
        "timeout: true",
        "6:14: `timeout` must be a duration such as `30m`, not `true`",
    ),
    (
        "allow_failure: yes",
        "6:20: `allow_failure` must be `true` or `false`, not the text `yes`",
    ),
    (
        "allow_failure: 'true'",
        "6:20: `allow_failure` must be `true` or `false`, not the text `true`",
    ),
    ("resources: 2", "6:16: `resources` must be a mapping, not `2`"),
    (
        "resources: {cpu: 0}",
        "6:22: `resources.cpu` must be from 0.01 to 1024 cores, not 0",
    ),
    (
        "resources: {cpu: 1025}",
        "6:22: `resources.cpu` must be from 0.01 to 1024 cores, not 1025",
    ),
    (
        "resources: {cpu: two}",
        "6:22: `two` is not a number of cores (write it like `2`, `0.5` or `500m`)",
    ),
    (
        "resources: {cpu: true}",
        "6:22: `resources.cpu` must be a number of cores such as `2` or `500m`, not `true`",
    ),
    ("resources: {memory: 2GB}", "6:25: `2GB` is not a size (write `2G`)"),
    (
        "resources: {memory: 512}",
        "6:25: `512` is not a size (it has no unit: write `512Mi` or `512Gi`)",
    ),
    (
        "resources: {memory: 1Mi}",
        "6:25: `resources.memory` must be from 8Mi to 1024Ti, not 1Mi",
    ),
    (
        "resources: {disk: 2000Ti}",
        "6:23: `resources.disk` must be from 1Mi to 1024Ti, not 2000Ti",
    ),
    (
        "resources: {disk: 1Ki}",
        "6:23: `resources.disk` must be from 1Mi to 1024Ti, not 1Ki",
    ),
    (
        "resources: {shm: 1Ki}",
        "6:22: `resources.shm` must be from 64Ki to 1024Ti, not 1Ki",
    ),
    (
        "resources: {pids: 7}",
        "6:23: `resources.pids` must be from 8 to 4194304, not 7",
    ),
    (
        "resources: {pids: 4194305}",
        "6:23: `resources.pids` must be from 8 to 4194304, not 4194305",
    ),
    (
        "resources: {pids: 99999999999999999999999}",
        "6:23: `resources.pids` must be from 8 to 4194304, not 99999999999999999999999",
    ),
    (
        "resources: {pids: 1k}",
        "6:23: `resources.pids` must be a whole number, not the text `1k`",
    ),
    ("labels: [a]", "6:13: `labels` must be a mapping, not a list"),
    (
        "labels: {a b: c}",
        "6:14: the label `a b` is not legal (1 to 128 letters, digits and the characters `.`, `_`, `-`, `/`, `:`, `+`)",
    ),
    (
        "labels: {a: b c}",
        "6:17: `labels.a` is not legal (1 to 128 letters, digits and the characters `.`, `_`, `-`, `/`, `:`, `+`)",
    ),
    (
        "labels: {a: 1.5}",
        "6:17: `labels.a` is the fraction 1.5, which may be read as another number (put it into quotes: \"1.5\")",
    ),
    (
        "labels: {a: ~}",
        "6:17: `labels.a` has no value (write one, or remove it; an empty text is `\"\"`)",
    ),
    ("env: [A=1]", "6:10: `env` must be a mapping, not a list"),
    ("env: {A: [b]}", "6:14: `env.A` must be a text, not a list"),
];

#[test]
fn values_of_another_kind() {
    for (key, expect) in VALUES {
        check_step(key, &[expect]);
    }
    check_step(
        "resources: {memory: 32Mi, shm: 64Mi}",
        &[
            "5:5: `resources.shm` 64Mi of step `a` is above its `resources.memory` 32Mi (what lies in `/dev/shm` counts as memory: raise `memory`)",
        ],
    );
}

#[test]
fn variables() {
    let reserved = "`CI`, `TRACEPARENT`, `BUILDFLOW` and `BUILDFLOW_…` are set by BuildFlow; choose another name";
    for name in ["CI", "BUILDFLOW", "BUILDFLOW_RUN_ID", "BUILDFLOW_", "TRACEPARENT"] {
        let expect = format!("the variable `{name}` is reserved ({reserved})");
        check_step(&format!("env: {{{name}: x}}"), &[&format!("6:11: {expect}")]);
        check(&minimal(&format!("env: {{{name}: x}}")), &[&format!("1:7: {expect}")]);
    }
    let legal = "1 to 255 letters, digits and `_`, the first no digit";
    for name in ["1A", "A-B", "\"A B\"", "\"A=B\"", "\"\"", "ü", "a.b"] {
        let expect = format!(
            "6:11: `{}` cannot be the name of a variable ({legal})",
            name.trim_matches('"')
        );
        check_step(&format!("env: {{{name}: x}}"), &[&expect]);
    }
    check_step(
        "env:\n  RUST: 1.90\n  EMPTY:\n  EXP: 1e3\n  INF: .inf\n  BIG: -1.5",
        &[
            "7:13: `env.RUST` is the fraction 1.90, which may be read as another number (put it into quotes: \"1.90\")",
            "8:12: `env.EMPTY` has no value (write one, or remove it; an empty text is `\"\"`)",
            "9:12: `env.EXP` is the fraction 1e3, which may be read as another number (put it into quotes: \"1e3\")",
            "10:12: `env.INF` is the fraction .inf, which may be read as another number (put it into quotes: \".inf\")",
            "11:12: `env.BIG` is the fraction -1.5, which may be read as another number (put it into quotes: \"-1.5\")",
        ],
    );
    check_step(
        "env: {A: 1, B: true, C: 007, D: 1_000, E: 1.2.3, F: '1.90', G: !!str 1.90, ci: x, BUILDFLOWER: y}",
        &[],
    );
}

#[test]
fn expressions() {
    let command = "an expression is never written into a command (hand its value over by the environment: `env: {TAG: \"${{ git.tag }}\"}`, and `\"$TAG\"` in the command)";
    let secret = "`${{ secrets.… }}` does not exist here (secrets reach a step by its key `secrets`, which is not supported yet, never by a text)";
    let secret_name = "`secrets` is no name that an expression knows (secrets reach a step by its key `secrets`, which is not supported yet, never by a text)";
    let none = |what: &str| {
        format!(
            "{what} takes no expression `${{{{ … }}}}` (write it as it is; values of expressions can stand in `env`, `if`, `image` and others: see `buildflow schema`)"
        )
    };
    let unknown = "`x` is no name that an expression knows (texts are quoted: `'main'`; names are `event`, `git`, `env`, `inputs`, `matrix`, `needs`, `run`, `team`, `pipeline`)";
    let quotes = "an expression stands inside of `[ ]` or `{ }` without quotes (put it into quotes: `\"${{ … }}\"`)";
    for (key, line, column, expect) in [
        ("run: echo ${{ git.ref }}", 6, 15, command),
        ("run: |\n  a\n  echo \"${{ env.X }}\"", 8, 13, command),
        (
            "run: [a, {name: '${{ x }}', run: b}]",
            6,
            22,
            &*none("the `name` of an entry"),
        ),
        ("run: \"${{ secrets.TOKEN }}\"", 6, 11, secret),
        ("env: {A: 'x${{secrets.TOKEN}}'}", 6, 19, secret_name),
        ("env: {A: \"${{ secrets['x'] }}\"}", 6, 19, secret_name),
        (
            "image: rust:${{ matrix.rust }}",
            6,
            28,
            "the step has no `matrix` (write `matrix: {rust: […]}`)",
        ),
        ("title: ${{ x }}", 6, 16, unknown),
        ("user: ${{ x }}", 6, 15, unknown),
        ("shell: ${{ x }}", 6, 12, &none("`shell`")),
        ("working_directory: ${{ x }}", 6, 28, unknown),
        ("timeout: ${{ x }}", 6, 18, unknown),
        ("allow_failure: ${{ x }}", 6, 24, unknown),
        ("checkout: ${{ x }}", 6, 19, unknown),
        ("checkout: {depth: '${{ x }}'}", 6, 28, unknown),
        ("retry: ${{ x }}", 6, 12, &none("`retry`")),
        ("retry: {max: '${{ x }}'}", 6, 19, &none("`retry.max`")),
        ("retry: {on: ['${{ x }}']}", 6, 19, &none("`retry.on`")),
        ("retry: {backoff: '${{ x }}'}", 6, 23, &none("`retry.backoff`")),
        ("idempotent: ${{ x }}", 6, 17, &none("`idempotent`")),
        ("needs: ['${{ x }}']", 6, 14, &none("`needs`")),
        ("extends: ${{ x }}", 6, 14, &none("`extends`")),
        ("resources: {cpu: '${{ x }}'}", 6, 27, unknown),
        ("resources: {memory: '${{ x }}'}", 6, 30, unknown),
        ("resources: {pids: '${{ x }}'}", 6, 28, unknown),
        ("labels: {a: '${{ x }}'}", 6, 22, unknown),
        ("matrix: {a: ['${{ x }}']}", 6, 19, &none("a value of `matrix.a`")),
        // YAML itself ends an unquoted text at a brace inside of brackets.
        ("labels: {a: ${{ x }}}", 6, 17, quotes),
        ("env: {A: ${{ secrets.X }}}", 6, 14, quotes),
        ("run: [a, ${{ x }}]", 6, 14, quotes),
    ] {
        check_step(key, &[&format!("{line}:{column}: {expect}")]);
    }
    check_step("run: echo $((1 + 2)) ${HOME} {{ x }} $ {{ y }}", &[]);
}

#[test]
fn names() {
    let legal = "1 to 63 of the characters `a-z`, `0-9`, `.`, `_` and `-`, the first a letter or digit; free text goes into `title`";
    let long = "a".repeat(64);
    for name in ["Build", "a b", "-a", "ü", "a/b", "\"\"", &long] {
        let shown: String = match name.trim_matches('"') {
            long if long.len() > 60 => format!("{}…", &long[..60]),
            short => short.to_owned(),
        };
        check(
            &minimal(&format!("name: {name}")),
            &[&format!("1:7: `name` `{shown}` is not a legal name ({legal})")],
        );
        check(
            &format!("stages: [{{name: {name}, steps: [{{name: {name}, image: x, run: y}}]}}]"),
            &[
                &format!("1:17: the stage's `name` `{shown}` is not a legal name ({legal})"),
                &format!(
                    "1:{}: `name` `{shown}` is not a legal name ({legal})",
                    34 + name.chars().count()
                ),
            ],
        );
        check_step(
            &format!("extends: {name}"),
            &[&format!("6:14: `extends` `{shown}` is not a legal name ({legal})")],
        );
        check(
            &minimal(&format!("templates: {{{name}: {{}}}}")),
            &[&format!(
                "1:13: the template's name `{shown}` is not a legal name ({legal})"
            )],
        );
    }
}

#[test]
fn stages_and_steps() {
    check("stages: {}", &["1:9: `stages` must be a list, not a mapping"]);
    check(
        "stages:\n",
        &["1:7: `stages` has no value (write a list, or remove it)"],
    );
    check(
        "stages: []",
        &["1:9: `stages` is empty (write at least one stage with one step)"],
    );
    check(
        "stages:\n- ~\n- x\n- {}\n- {name: a, steps: []}\n- {name: b, steps: {}}\n- {name: c, steps: [~, x, {}]}\n",
        &[
            "2:3: a stage has no value (write a mapping, or remove it)",
            "3:3: a stage must be a mapping, not the text `x`",
            "4:3: the stage has no `name` (write `name: build`)",
            "4:3: the stage has no `steps` (write at least one step, or remove the stage)",
            "5:20: `steps` is empty (write at least one step, or remove the stage)",
            "6:20: `steps` must be a list, not a mapping",
            "7:21: a step has no value (write a mapping, or remove it)",
            "7:24: a step must be a mapping, not the text `x`",
            "7:27: the step has no `image` (write it here, in a template that it extends, or in `defaults`)",
            "7:27: the step has no `name` (write `name: compile`)",
            "7:27: the step has no `run` (write its commands, e.g. `run: make test`)",
        ],
    );
    check(
        "stages:\n- {name: a, steps: [{name: x, image: i, run: r}, {name: x, image: i, run: r}]}\n- {name: a, steps: [{name: x}]}\n",
        &[
            "2:57: another step is named `x` (it stands at 2:28; every step of a file has a name of its own)",
            "3:10: another stage is named `a` (it stands at 2:10; every stage of a file has a name of its own)",
            "3:21: step `x` has no `image` (write it here, in a template that it extends, or in `defaults`)",
            "3:21: step `x` has no `run` (write its commands, e.g. `run: make test`)",
            "3:28: another step is named `x` (it stands at 2:28; every step of a file has a name of its own)",
        ],
    );
}

#[test]
fn needs() {
    let file = |first: &str, second: &str, third: &str| {
        format!(
            "stages:\n- name: one\n  steps:\n  - {{name: a, image: i, run: r{first}}}\n  - {{name: b, image: i, run: r{second}}}\n- name: two\n  steps:\n  - {{name: c, image: i, run: r{third}}}\n"
        )
    };
    check(&file("", "", ""), &[]);
    check(&file(", needs: [b]", "", ", needs: []"), &[]);
    check(&file("", ", needs: a", ", needs: [b, a]"), &[]);
    check(
        &file(", needs: [a]", ", needs: [c]", ", needs: [aa, one, zzz, a, a]"),
        &[
            "4:41: step `a` needs itself (remove it from `needs`)",
            "5:41: step `b` needs `c`, a step of the later stage `two` (stages run in order: move one of the two steps)",
            "8:41: step `c` needs `aa`, which is no step (`needs` takes names of steps)",
            "8:45: step `c` needs `one`, which is no step (it is a stage: name its steps, or leave `needs` out to wait for the stage before)",
            "8:50: step `c` needs `zzz`, which is no step (`needs` takes names of steps)",
            "8:58: step `c` needs `a` twice (name it once)",
        ],
    );
    check(
        &file(", needs: [b]", ", needs: [a]", ""),
        &["4:41: steps need each other in a circle: a -> b -> a (remove one of these needs)"],
    );
    check(
        "defaults: {needs: [a], image: i, run: r}\nstages:\n- name: s\n  steps: [{name: a}, {name: b}]\n",
        &["1:20: step `a` needs itself (remove it from `needs`)"],
    );
    let step = |name: &str, needs: &str| format!("  - {{name: {name}, image: i, run: r, needs: [{needs}]}}\n");
    let circles = format!(
        "stages:\n- name: s\n  steps:\n{}{}{}{}{}",
        step("a", "b"),
        step("b", "c"),
        step("c", "a, d"),
        step("d", "e"),
        step("e", "d")
    );
    check(
        &circles,
        &[
            "4:41: steps need each other in a circle: a -> b -> c -> a (remove one of these needs)",
            "7:41: steps need each other in a circle: d -> e -> d (remove one of these needs)",
        ],
    );
}

#[test]
fn templates_and_defaults() {
    check(
        &minimal("templates: []"),
        &["1:12: `templates` must be a mapping, not a list"],
    );
    check(
        &minimal("templates: {a: b}"),
        &["1:16: the template `a` must be a mapping, not the text `b`"],
    );
    check(
        &minimal("templates: {a: {name: b}}"),
        &["1:23: `name` cannot stand in a template (each step has its own; remove it)"],
    );
    check(
        &minimal("defaults: {name: b}"),
        &["1:18: `name` cannot stand in `defaults` (each step has its own; remove it)"],
    );
    check(
        &minimal("defaults: x"),
        &["1:11: `defaults` must be a mapping, not the text `x`"],
    );
    check(
        &minimal("defaults: {extends: tt}\ntemplates: {t: {}}"),
        &["1:21: no template is named `tt` (define it under `templates`)"],
    );
    check(
        &minimal("templates: {a: {extends: b}, b: {extends: c}, c: {extends: b}, d: {extends: d}, e: {extends: zzz}}"),
        &[
            "1:43: templates extend each other in a circle: b -> c -> b (remove one of these `extends`)",
            "1:77: templates extend each other in a circle: d -> d (remove one of these `extends`)",
            "1:94: no template is named `zzz` (define it under `templates`)",
        ],
    );
    // Names that are refused are shown without what would steer a terminal.
    let legal = "1 to 63 of the characters `a-z`, `0-9`, `.`, `_` and `-`, the first a letter or digit; free text goes into `title`";
    check(
        &minimal("templates: {\"r\\tust\": {}, a: {extends: rust}}"),
        &[
            &format!("1:13: the template's name `r\\tust` is not a legal name ({legal})"),
            "1:40: no template is named `rust` (did you mean `r\\tust`?)",
        ],
    );
    // A template that is in error says nothing about the steps that take it over.
    check(
        "templates: {a: {extends: a}, b: {image: B}}\nstages: [{name: s, steps: [{name: x, extends: a}, {name: y, extends: b}, {name: z, extends: c}]}]",
        &[
            "1:26: templates extend each other in a circle: a -> a (remove one of these `extends`)",
            "1:41: `B` is not an image (the name of an image has no capital letters)",
            "2:93: no template is named `c` (define it under `templates`)",
        ],
    );
}

#[test]
fn all_findings_come_at_once_in_the_order_of_the_file_and_a_hundred_are_shown() {
    let many: String = (0..250).map(|n| format!("k{n:03}: 1\n")).collect();
    let findings = pipeline::compile(&minimal(&many)).expect_err("unknown keys");
    assert_eq!((findings.list.len(), findings.more), (pipeline::FINDINGS_MAX, 150));
    let lines = findings.lines();
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[100], "and 150 more");
    let places: Vec<(usize, usize)> = findings.list.iter().map(|f| (f.line, f.column)).collect();
    assert_eq!(places, (1..=100).map(|line| (line, 1)).collect::<Vec<_>>());
    let exactly: String = (0..100).map(|n| format!("k{n:03}: 1\n")).collect();
    let findings = pipeline::compile(&minimal(&exactly)).expect_err("unknown keys");
    assert_eq!((findings.list.len(), findings.more), (100, 0));
}

#[test]
fn a_key_that_was_meant_by_a_refused_one_is_not_called_missing() {
    check(
        "stages: [{nme: s, steps: [{nmae: a, container: b, script: c}, {name: d}]}]",
        &[
            "1:11: `nme` is not a key of a stage (did you mean `name`?)",
            "1:28: `nmae` is not a key of a step (did you mean `name`?)",
            "1:37: `container` is a word of GitHub (write `image`)",
            "1:51: `script` is a word of GitLab (write `run`)",
            "1:63: step `d` has no `image` (write it here, in a template that it extends, or in `defaults`)",
            "1:63: step `d` has no `run` (write its commands, e.g. `run: make test`)",
        ],
    );
    check(
        "jobs: {build: {}}",
        &["1:1: `jobs` is a word of GitHub (a job is a step here: write `stages`, each with `steps`)"],
    );
    check(
        "stage: []",
        &[
            "1:1: `stage` is a word of GitLab (put the step below the `steps` of its stage)",
            "1:1: the file has no `stages` (write `stages: [{name: build, steps: [{name: compile, image: …, run: …}]}]`)",
        ],
    );
}

#[test]
fn what_is_taken_over_twice_is_reported_once() {
    check(
        "x-s: &s {image: I, run: r}\nstages:\n- name: s\n  steps:\n  - {<<: *s, name: a}\n  - {<<: *s, name: b}\n",
        &["1:17: `I` is not an image (the name of an image has no capital letters)"],
    );
}

/// One line for each part of the file format that is still to come, with what works beside it.
const WHOLE_FORMAT: &str = r#"name: backend
on:
  push: { branches: [main, "release/*"], paths: ["src/**"] }
env: { CARGO_TERM_COLOR: always }
defaults: { timeout: 30m, retry: { max: 2, on: [infra], backoff: 5s } }
concurrency: { group: "ci-${{ git.ref }}", queue: latest }
notify: [{ slack: SLACK_URL, on: [failed, fixed] }]
stages:
  - name: build
    steps:
      - name: compile
        checkout: { depth: 1, submodules: false }
        image: rust
        run:
          - cargo build --release
          - { name: strip, run: strip app, if: "git.branch == 'main'" }
        cache:
          - { key: "cargo-${{ hashFiles('Cargo.lock') }}", paths: [target], policy: pull-push }
  - name: test
    steps:
      - name: unit
        needs: [compile]
        matrix: { rust: ["1.94", "1.95"] }
        image: "docker.io/library/rust:${{ matrix.rust }}"
        run: cargo test
        secrets: { DB_PASSWORD: db_password }
"#;

#[test]
fn the_whole_format_is_refused_part_by_part() {
    let later = "is not supported yet (remove it; `buildflow schema` prints the keys that work)";
    check(
        WHOLE_FORMAT,
        &[
            &format!("7:1: `notify` {later}"),
            &format!("12:31: `submodules` {later}"),
            &format!("17:9: `cache` {later}"),
            &format!("26:9: `secrets` {later}"),
        ],
    );
}

#[test]
fn retries() {
    let cases: &[(&str, &str)] = &[
        (
            "retry: 2",
            "6:12: `retry` must be a mapping, not `2` (write `retry: {max: 2, on: [infra]}`)",
        ),
        (
            "retry: false",
            "6:12: `retry` must be a mapping, not `false` (write `retry: {max: 0}` for a step that is never tried again)",
        ),
        (
            "retry: true",
            "6:12: `retry` must be a mapping, not `true` (write `retry: {max: 2, on: [infra]}`)",
        ),
        (
            "retry: always",
            "6:12: `retry` must be a mapping, not the text `always`",
        ),
        ("retry: [infra]", "6:12: `retry` must be a mapping, not a list"),
        (
            "retry: {mx: 2}",
            "6:13: `mx` is not a key of `retry` (did you mean `max`?)",
        ),
        (
            "retry: {attempts: 2}",
            "6:13: `attempts` is not a key of `retry` (known keys: max, on, backoff)",
        ),
        (
            "retry: {max: many}",
            "6:18: `retry.max` must be a whole number, not the text `many`",
        ),
        ("retry: {max: -1}", "6:18: `retry.max` must be from 0 to 10, not -1"),
        (
            "retry: {on: []}",
            "6:17: `retry.on` is empty (write `max: 0` for a step that is never tried again)",
        ),
        (
            "retry: {on: [infar]}",
            "6:18: `infar` is no end that `retry.on` knows (did you mean `infra`?)",
        ),
        (
            "retry: {on: [oom, oom]}",
            "6:23: `retry.on` names `oom` twice (remove one of them)",
        ),
        (
            "retry: {backoff: 5}",
            "6:22: `5` is not a duration (it has no unit: write `5s` or `5m`)",
        ),
        (
            "idempotent: no",
            "6:17: `idempotent` must be `true` or `false`, not the text `no`",
        ),
    ];
    for (key, expect) in cases {
        check_step(key, &[expect]);
    }
}

#[test]
fn ends_that_are_tried_again() {
    let words = "write `infra`, `oom`, `timeout`, `failure` or `exit:N`";
    let exit = "write `exit:N` with the exit code, 1 to 255";
    for end in ["always", "''", "75"] {
        let shown = end.trim_matches('\'');
        let expect = format!("6:17: `{shown}` is no end that `retry.on` knows ({words})");
        check_step(&format!("retry: {{on: {end}}}"), &[&expect]);
    }
    for end in [
        "exit", "exit:", "exit:0", "exit:256", "exit:075", "exit:+7", "exit:-1", "exit75",
    ] {
        let expect = format!("6:18: `{end}` is no end that `retry.on` knows ({exit})");
        check_step(&format!("retry: {{on: [\"{end}\"]}}"), &[&expect]);
    }
    check_step(
        "retry: {max: 11, on: [x, infra, y], backoff: 11m}",
        &[
            "6:18: `retry.max` must be from 0 to 10, not 11",
            &format!("6:27: `x` is no end that `retry.on` knows ({words})"),
            &format!("6:37: `y` is no end that `retry.on` knows ({words})"),
            "6:50: `retry.backoff` must be at most 10m, not 11m (it is the first pause; each further one is twice as long)",
        ],
    );
}
