//! The language: what expressions, matrices, conditions, inputs, templates and included files make
//! of a file, for a given occasion.

use model::{Event, RunDef, RunHeader, Source, StepDef, StepRecord, StepStatus};
use pipeline::progress::Progress;
use pipeline::{
    Answer, Compiled, Explain, FileRef, Files, Git, Limits, Occasion, Pinned, PullRequest, Refused, Request,
};
use serde_json::json;
use std::collections::BTreeMap;

fn push(branch: &str) -> Occasion {
    Occasion {
        event: "push".to_owned(),
        git: Git {
            git_ref: format!("refs/heads/{branch}"),
            sha: "c0ffee".repeat(7)[..40].to_owned(),
            author: "Ada <ada@example.org>".to_owned(),
            message: "fix: it's done".to_owned(),
            default_branch: "main".to_owned(),
            pull_request: None,
        },
        team: "default".to_owned(),
        pipeline: "app".to_owned(),
        run_id: "01jd".to_owned(),
        ..Occasion::default()
    }
}

fn tag(tag: &str) -> Occasion {
    let mut occasion = push("");
    occasion.event = "tag".to_owned();
    occasion.git.git_ref = format!("refs/tags/{tag}");
    occasion
}

fn manual(inputs: &[(&str, serde_json::Value)]) -> Occasion {
    Occasion {
        event: "manual".to_owned(),
        inputs: inputs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        ..push("main")
    }
}

fn changed(files: &[&str]) -> Occasion {
    Occasion {
        changed: Some(files.iter().map(|f| (*f).to_owned()).collect()),
        ..push("main")
    }
}

fn ask(text: &str, occasion: Option<&Occasion>, files: &Files) -> Result<Answer, Refused> {
    pipeline::answer(&Request {
        bytes: text.as_bytes(),
        limits: Limits::default(),
        files,
        occasion,
        explain: Explain::Yes,
    })
}

#[track_caller]
fn whole(text: &str, occasion: &Occasion) -> Compiled {
    match ask(text, Some(occasion), &Files::new()) {
        Ok(Answer::Run(compiled)) => *compiled,
        other => panic!("{other:?}\nof\n{text}"),
    }
}

#[track_caller]
fn run(text: &str, occasion: &Occasion) -> RunDef {
    whole(text, occasion).def
}

#[track_caller]
fn refused(text: &str, occasion: &Occasion) -> Vec<String> {
    match ask(text, Some(occasion), &Files::new()) {
        Err(Refused::File(findings)) => findings.lines(),
        other => panic!("{other:?}\nof\n{text}"),
    }
}

/// What findings say, without where.
fn words(lines: &[String]) -> Vec<&str> {
    let said = lines.iter().filter_map(|line| line.splitn(3, ':').nth(2));
    said.map(str::trim).collect()
}

#[track_caller]
fn nothing(text: &str, occasion: &Occasion) -> String {
    match ask(text, Some(occasion), &Files::new()) {
        Ok(Answer::Nothing(why)) => why,
        other => panic!("{other:?}\nof\n{text}"),
    }
}

fn step<'d>(def: &'d RunDef, name: &str) -> &'d StepDef {
    &def.steps[def.step_index(name).unwrap_or_else(|| panic!("no step {name}"))]
}

/// A file with one step that says this besides.
fn one(keys: &str) -> String {
    format!("stages: [{{name: s, steps: [{{name: a, image: i, run: r, {keys}}}]}}]")
}

fn names(def: &RunDef) -> Vec<&str> {
    def.steps.iter().map(|step| step.name.as_str()).collect()
}

#[test]
fn expressions_are_worked_into_the_keys_that_take_them() {
    let text = r#"
title: "Build of ${{ git.branch }}"
env: { WHO: "${{ git.author }}" }
concurrency: { group: "ci-${{ git.ref }}", cancel_in_progress: "${{ event == 'push' }}", queue: all }
stages:
  - name: s
    steps:
      - name: a
        title: "for ${{ team }}/${{ pipeline }}"
        image: "docker.io/library/rust:${{ git.branch == 'main' ? '1.95' : 'beta' }}"
        working_directory: "sub-${{ git.branch }}"
        user: "${{ 1000 + 1 }}"
        timeout: "${{ git.branch == 'main' ? '20m' : '5m' }}"
        allow_failure: "${{ git.branch != 'main' }}"
        checkout: { depth: "${{ git.branch == 'main' ? 0 : 2 }}" }
        resources: { cpu: "${{ 2 }}", memory: "${{ '2Gi' }}", pids: "${{ 64 }}" }
        labels: { arch: "${{ 'amd' + '64' }}" }
        env: { SHA: "${{ git.sha.split('f')[0] }}-x", BY: "${{ env.WHO }}!", RUN: "${{ run.id }}", N: "${{ 3 }}" }
        concurrency: "deploy-${{ git.branch }}"
        run: make
"#;
    let def = run(text, &push("main"));
    let a = &def.steps[0];
    assert_eq!(def.title.as_deref(), Some("Build of main"));
    let group = def.rules.concurrency.as_ref().expect("it is there");
    assert_eq!(
        (group.group.as_str(), group.cancel_in_progress, group.queue),
        ("ci-refs/heads/main", true, model::Queue::All)
    );
    assert_eq!(a.title.as_deref(), Some("for default/app"));
    assert_eq!(a.image, "docker.io/library/rust:1.95");
    assert_eq!(
        (a.working_directory.as_str(), a.user.as_deref()),
        ("sub-main", Some("1001"))
    );
    assert_eq!((a.timeout_ms, a.allow_failure), (1_200_000, false));
    assert_eq!(a.checkout.as_ref().expect("one").depth, None);
    assert_eq!(
        (a.resources.cpu_millis, a.resources.memory_bytes, a.pids),
        (2_000, 2 << 30, 64)
    );
    assert_eq!(a.labels["arch"], "amd64");
    let env: Vec<(&str, &str)> = a.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        env,
        [
            ("BY", "Ada <ada@example.org>!"),
            ("N", "3"),
            ("RUN", "01jd"),
            ("SHA", "c0-x"),
            ("WHO", "Ada <ada@example.org>")
        ]
    );
    let group = a.rules.concurrency.as_ref().expect("it is there");
    assert_eq!((group.group.as_str(), group.cancel_in_progress), ("deploy-main", false));
    let other = run(text, &push("x"));
    assert_eq!(
        (
            other.steps[0].image.as_str(),
            other.steps[0].timeout_ms,
            other.steps[0].allow_failure
        ),
        ("docker.io/library/rust:beta", 300_000, true)
    );
}

#[test]
fn what_is_wrong_with_a_value_is_told_where_its_expression_stands() {
    let cases = [
        (
            "timeout: \"${{ git.branch }}\"",
            "`main` is not a duration (write it like `30m`, `1h30m` or `90s`)",
        ),
        (
            "allow_failure: \"${{ git.branch }}\"",
            "`allow_failure` must be `true` or `false`; the expression says `main`",
        ),
        (
            "resources: {pids: \"${{ 1 }}\"}",
            "`resources.pids` must be from 8 to 4194304, not 1",
        ),
        (
            "env: {A: \"${{ git.branch + 1 }}\"}",
            "the expression has no value: `+` does not work on a text and a number",
        ),
        (
            "env: {A: \"x${{ git.pr.labels }}\"}",
            "the expression is a list, which cannot stand in a text (choose one of its elements, or write `list.join(',')`)",
        ),
        (
            "if: git.branch",
            "`if` must be true or false, not a text (compare it: `env.DEPLOY == 'yes'`)",
        ),
    ];
    for (keys, expect) in cases {
        assert_eq!(words(&refused(&one(keys), &push("main"))), [expect], "{keys}");
    }
}

#[test]
fn places_are_those_of_the_expression() {
    let text = "stages:\n- name: s\n  steps:\n  - name: a\n    image: i\n    run: r\n    title: 'ü ${{ nope }} and ${{ nor }}'\n    env:\n      A: |\n        one ${{ no }}\n";
    let found = pipeline::compile(text).expect_err("names").lines();
    let places: Vec<&str> = found.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["7:19", "7:35", "10:17"]);
}

#[test]
fn variables_are_made_of_those_of_lower_layers() {
    let text = r#"
env: { A: file, V: "${{ env.FROM_RUN }}" }
templates:
  base: { env: { A: "${{ env.A }}>base" } }
  near: { extends: base, env: { A: "${{ env.A }}>near", B: "${{ env.A }}" } }
defaults: { env: { A: "${{ env.A }}>defaults" } }
stages: [{name: s, steps: [{ name: a, extends: near, image: "i:${{ env.TAG }}", run: r, env: { A: "${{ env.A }}>step", TAG: "${{ env.A.size() }}", NONE: "${{ env.NOBODY }}" } }]}]
"#;
    let mut occasion = push("main");
    occasion.variables = BTreeMap::from([("FROM_RUN".to_owned(), "run".to_owned())]);
    let def = run(text, &occasion);
    let a = &def.steps[0];
    assert_eq!(a.env["A"], "file>defaults>base>near>step");
    assert_eq!(a.env["B"], "file>defaults>base");
    assert_eq!((a.env["V"].as_str(), a.env["NONE"].as_str()), ("run", ""));
    // Variables of one layer see those below it, whatever the order in which they stand.
    assert_eq!(a.image, format!("i:{}", "file>defaults>base>near".len()));
}

#[test]
fn conditions_are_decided_when_they_can_be() {
    let cases = [
        ("if: git.branch == 'main'", None),
        ("if: \"${{ git.branch == 'main' }}\"", None),
        ("if: true", None),
        ("if: git.branch == 'x' && needs_nobody", Some("error")),
        ("if: git.branch == 'x'", Some("false")),
        ("if: \"git.branch == 'x' || event in ['push', 'tag']\"", None),
        ("if: git.branch == 'x' && run.number > 3", Some("false")),
        (
            "if: git.branch == 'main' && run.number > 3",
            Some("(true && (run.number > 3))"),
        ),
        ("if: always()", Some("always()")),
        ("if: \"!success() && git.tag == ''\"", Some("(!success() && true)")),
        (
            "if: \"[1, 2].exists(x, x == run.number + size(git.branch))\"",
            Some("[1, 2].exists(x, (x == (run.number + 4)))"),
        ),
        ("if: \"git.message.contains(\\\"it's\\\")\"", None),
        ("if: changed('src/**')", None),
        ("changes: [src/]", None),
    ];
    for (keys, expect) in cases {
        match ask(&one(keys), Some(&push("main")), &Files::new()) {
            Ok(Answer::Run(compiled)) => {
                let condition = compiled.def.steps[0].rules.condition.as_ref();
                assert_eq!(condition.map(|c| c.expression.as_str()), expect, "{keys}");
            }
            Err(_) => assert_eq!(expect, Some("error"), "{keys}"),
            other => panic!("{keys}: {other:?}"),
        }
    }
    let never = run(&one("if: git.branch == 'x'"), &push("main"));
    let condition = never.steps[0].rules.condition.as_ref().expect("one");
    assert_eq!(condition.skipped, "its `if` is false: git.branch == 'x'");
    assert!(!condition.whatever_ends);
    let always = run(&one("if: always() && git.branch == 'main'"), &push("main"));
    assert!(always.steps[0].rules.condition.as_ref().expect("one").whatever_ends);
}

#[test]
fn what_changed_decides_where_it_is_known() {
    let text = one("changes: [src/, '!src/docs/**']");
    for (files, skipped) in [
        (&["src/a.rs"][..], false),
        (&["src/docs/a.md"], true),
        (&["README.md"], true),
        (&[], true),
        (&["README.md", "src/b"], false),
    ] {
        let def = run(&text, &changed(files));
        let condition = def.steps[0].rules.condition.as_ref().map(|c| c.skipped.as_str());
        let expect = skipped.then_some("nothing changed that its `changes` means");
        assert_eq!(condition, expect, "{files:?}");
    }
    let both = run(&one("if: \"changed('a/*', 'b')\""), &changed(&["b"]));
    assert_eq!(both.steps[0].rules.condition, None);
    let none = run(&one("if: \"changed('a/*', 'b')\""), &changed(&["a/b/c"]));
    assert!(none.steps[0].rules.condition.is_some());
}

#[test]
fn a_matrix_makes_a_step_of_each_combination() {
    let text = r#"
stages:
  - name: build
    steps: [{ name: one, image: i, run: r }]
  - name: test
    steps:
      - name: unit
        needs: [one]
        matrix:
          rust: ["1.94", "1.95"]
          os: [linux, mac]
          exclude: [{ rust: "1.94", os: mac }]
          include:
            - { os: linux, extra: yes-please }
            - { rust: nightly, os: linux, may_fail: true }
          fail_fast: true
          max_parallel: 2
        image: "rust:${{ matrix.rust }}"
        allow_failure: "${{ has(matrix.may_fail) && matrix.may_fail }}"
        env: { OS: "${{ matrix.os }}", EXTRA: "${{ has(matrix.extra) ? matrix.extra : '' }}" }
        run: cargo test
  - name: end
    steps:
      - { name: all, needs: [unit], image: i, run: r }
      - { name: two, needs: ["unit(1.95,mac)"], image: i, run: r }
      - { name: implicit, image: i, run: r, needs: [one] }
"#;
    let def = run(text, &push("main"));
    assert_eq!(
        names(&def),
        [
            "one",
            "unit(1.94,linux)",
            "unit(1.95,linux)",
            "unit(1.95,mac)",
            "unit(nightly,linux)",
            "all",
            "two",
            "implicit"
        ]
    );
    assert_eq!(step(&def, "all").needs, [1, 2, 3, 4]);
    assert_eq!(step(&def, "two").needs, [3]);
    let cell = step(&def, "unit(1.94,linux)");
    assert_eq!(
        (cell.image.as_str(), cell.env["EXTRA"].as_str()),
        ("rust:1.94", "yes-please")
    );
    assert_eq!(step(&def, "unit(1.95,mac)").env["EXTRA"], "");
    let odd = step(&def, "unit(nightly,linux)");
    assert!(odd.allow_failure && !cell.allow_failure && odd.env["OS"] == "linux");
    let rules = &def.rules.matrices;
    assert_eq!(rules.len(), 1);
    assert_eq!(
        (rules[0].step.as_str(), rules[0].fail_fast, rules[0].max_parallel),
        ("unit", true, Some(2))
    );
    assert_eq!((cell.rules.matrix, step(&def, "one").rules.matrix), (Some(0), None));
}

#[test]
fn cells_have_names_of_their_own() {
    let cases: [(&str, &[&str]); 6] = [
        (
            "{v: [1, true, 'x y/z', 007]}",
            &["a(1)", "a(true)", "a(x_y_z)", "a(007)"],
        ),
        ("{v: ['a/b', 'a b', a_b]}", &["a(a_b)", "a(a_b.2)", "a(a_b.3)"]),
        ("{v: ['']}", &["a(_)"]),
        ("{include: [{v: 1, w: 2}, {w: 3}]}", &["a(1,2)", "a(3)"]),
        ("{a: [1, 2], b: [3], exclude: [{a: 1}]}", &["a(2,3)"]),
        ("{a: [1], include: [{b: 2}, {b: 3}]}", &["a(1)"]),
    ];
    for (matrix, expect) in cases {
        let def = run(&one(&format!("matrix: {matrix}")), &push("main"));
        assert_eq!(names(&def), expect, "{matrix}");
    }
    let long = format!("matrix: {{v: ['{}1', '{}2']}}", "x".repeat(100), "x".repeat(100));
    let def = run(&one(&long), &push("main"));
    assert!(
        names(&def)
            .iter()
            .all(|name| name.len() <= 63 + 2 + model::id::CELL_MAX)
    );
    assert_ne!(def.steps[0].name, def.steps[1].name);
}

#[test]
fn what_a_matrix_cannot_be() {
    let cases = [
        ("{}", "`matrix` makes 0 cells; it must be 1 to 256"),
        ("{v: []}", "`matrix.v` holds 0 values; it must be 1 to 256"),
        (
            "{v: [1], exclude: [{v: 1}]}",
            "`matrix` makes 0 cells; it must be 1 to 256",
        ),
        (
            "{v: [1.9]}",
            "a value of `matrix.v` is the fraction 1.9, which may be read as another number (put it into quotes: \"1.9\")",
        ),
        ("{v: x}", "`matrix.v` must be a list, not the text `x`"),
        ("{v: [[1]]}", "a value of `matrix.v` must be a text, not a list"),
        (
            "{fail-fast: true, v: [1]}",
            "`matrix.fail-fast` is not a key of `matrix` (did you mean `fail_fast`?)",
        ),
        (
            "{max_parallel: 0, v: [1]}",
            "`matrix.max_parallel` must be from 1 to 256, not 0",
        ),
        (
            "{'1v': [1]}",
            "`1v` cannot be a name in `matrix` (1 to 63 letters, digits, `_` and `-`, the first a letter or `_`)",
        ),
        (
            "{exclude: [{}]}",
            "an entry of `matrix.exclude` holds 0 values; it must be 1 to 20",
        ),
    ];
    for (matrix, expect) in cases {
        let found = refused(&one(&format!("matrix: {matrix}")), &push("main"));
        assert_eq!(words(&found), [expect], "{matrix}");
    }
}

#[test]
fn outputs_of_needs_are_known_when_the_step_is_ready() {
    let text = r#"
templates: { t: { env: { LOW: "${{ needs.version.status }}" } } }
stages:
  - name: build
    steps: [{ name: version, image: i, run: r }, { name: fan, image: i, run: r, matrix: { v: [1, 2] } }]
  - name: use
    steps:
      - name: a
        extends: t
        image: i
        env: { TAG: "app:${{ needs.version.outputs.tag }}-${{ git.branch }}", BOTH: "${{ needs['fan(1)'].status + env.LOW }}" }
        if: needs['version'].outputs.go == 'yes' && git.branch == 'main'
        run: [x, { name: n, run: y, if: "needs.version.outputs.more == ''" }, { run: z, if: "git.branch == 'x'" }]
"#;
    let def = run(text, &push("main"));
    let a = step(&def, "a");
    assert!(a.env.is_empty());
    let piece = |e: &str| model::Piece::Expression(e.to_owned());
    let text_piece = |t: &str| model::Piece::Text(t.to_owned());
    assert_eq!(
        a.rules.late_env["TAG"],
        [
            text_piece("app:"),
            piece("needs.version.outputs.tag"),
            text_piece("-main")
        ]
    );
    assert_eq!(
        a.rules.late_env["BOTH"],
        [piece("(needs['fan(1)'].status + string(needs.version.status))")]
    );
    let condition = a.rules.condition.as_ref().expect("one");
    assert_eq!(condition.expression, "((needs['version'].outputs.go == 'yes') && true)");
    let runs: Vec<&str> = a.run.iter().map(|entry| entry.run.as_str()).collect();
    assert_eq!(runs, ["x", "y"]);
    assert_eq!(
        a.rules.entry_conditions,
        BTreeMap::from([(1, "(needs.version.outputs.more == '')".to_owned())])
    );
}

fn header() -> RunHeader {
    RunHeader {
        id: "01jd".parse().expect("legal"),
        team: "default".parse().expect("legal"),
        pipeline: "app".parse().expect("legal"),
        number: 12,
        attempt: 1,
        source: Source {
            repository: String::new(),
            git_ref: "refs/heads/main".to_owned(),
            commit: String::new(),
            message: String::new(),
            author: String::new(),
            event: Event::Push,
        },
        variables: BTreeMap::new(),
        inputs: BTreeMap::new(),
        created_ms: 0,
        def_chunks: 1,
        steps: 0,
        error: None,
        request_id: String::new(),
        requested_by: String::new(),
        traceparent: None,
        unknown: model::record::Unknown::new(),
    }
}

/// The variables and the entries of `a` when the step `version`, which it needs, has ended with these outputs.
fn when_ready(def: &RunDef, outputs: &[(&str, &str)]) -> (BTreeMap<String, String>, Vec<String>) {
    let mut record = StepRecord::first(StepStatus::Success);
    record.left.outputs = outputs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let records = BTreeMap::from([(0, record)]);
    let ordinal = def.step_index("a").expect("it is there");
    let progress = Progress::of(&header(), def, &records);
    assert_eq!((progress.ready(), progress.skips()), (&[ordinal][..], &[][..]));
    let ready = pipeline::ready_step(&header(), def, ordinal, &records).expect("ready");
    (ready.env, ready.run.into_iter().map(|entry| entry.run).collect())
}

#[test]
fn variables_of_needs_are_seen_by_what_stands_above_them() {
    let text = r#"
env: { FILE: f }
templates: { t: { env: { V: "${{ needs.version.outputs.v }}", W: "low" } } }
stages:
  - name: build
    steps: [{ name: version, image: i, run: r }]
  - name: use
    steps:
      - name: a
        extends: t
        image: i
        env: { V: "${{ env.FILE }}-${{ env['V'] }}", N: "${{ run.number }}", L: "${{ env.W + env.V }}" }
        if: env.V.endsWith('2') && has(env.V) && !('x' in env)
        run:
          - always
          - { run: two, if: "env.V == 'f-1.2' && env.N == '12'" }
          - { run: other, if: env.V == 'f-1.3' }
"#;
    let def = run(text, &push("main"));
    let (env, entries) = when_ready(&def, &[("v", "1.2")]);
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        env,
        [
            ("FILE", "f"),
            ("L", "low1.2"),
            ("N", "12"),
            ("V", "f-1.2"),
            ("W", "low")
        ]
    );
    assert_eq!(entries, ["always", "two"]);
    // A variable of the run wins, and is known when the run is made.
    let mut occasion = push("main");
    occasion.variables = BTreeMap::from([("V".to_owned(), "f-1.2".to_owned())]);
    let def = run(text, &occasion);
    assert_eq!(step(&def, "a").rules.condition, None);
    assert_eq!(step(&def, "a").rules.entry_conditions.len(), 1);
    let open = text.replace("env.V.endsWith('2')", "env[needs.version.outputs.k] == 'x'");
    assert_eq!(
        words(&refused(&open, &push("main"))),
        ["which variable is meant is known only when the step is ready (name it: `env.NAME`)"]
    );
    let many = format!("\"[{}].join('') == ''\"", vec!["env.V"; 200].join(", "));
    let many = text.replace("env.V.endsWith('2') && has(env.V) && !('x' in env)", &many);
    let said = words(&refused(&many, &push("main"))).join("\n");
    assert!(
        said.contains("with the variables that it names the expression has more than 4096 bytes"),
        "{said}"
    );
}

/// Keys of a step, and what is said of them.
const WRONG_NAMES: &[(&str, &str)] = &[
    (
        "if: git.brnch == 'x'",
        "`git` has no field `brnch` (did you mean `branch`?)",
    ),
    (
        "if: gti.branch == 'x'",
        "`gti` is no name that an expression knows (did you mean `git`?)",
    ),
    (
        "if: branch == 'x'",
        "`branch` is no name that an expression knows (write `git.branch`)",
    ),
    (
        "if: github.ref == 'x'",
        "`github` is no name that an expression knows (write `event`, `git.branch`, `git.sha`, `run.number`, …)",
    ),
    (
        "if: inputs.targt == 'x'",
        "no input is named `targt` (did you mean `target`?)",
    ),
    (
        "if: needs.c.status == 'x'",
        "the step does not need `c` (name it under `needs`)",
    ),
    (
        "if: needs['b'].state == 'x'",
        "`needs['…']` has no field `state` (it has `status`, `outputs`)",
    ),
    (
        "if: contain(git.branch, 'x')",
        "there is no function `contain` (did you mean `contains`?)",
    ),
    (
        "if: fromJSON('x')",
        "there is no function `fromJSON` (it is a function of GitHub; the reference of the language lists ours)",
    ),
    (
        "if: git.branch = 'x'",
        "`=` has no meaning in an expression (write `==`)",
    ),
    (
        "if: \"git.branch == 'x\"",
        "a text is not closed (add the closing quote)",
    ),
    (
        "if: (git.branch == 'x'",
        "`)` is expected here, not the end of the expression",
    ),
    (
        "if: git.pr.nmber == 1",
        "`git.pr` has no field `nmber` (did you mean `number`?)",
    ),
    ("if: changed()", "`changed` is written `changed(glob…)`"),
    (
        "if: hashFiles('x') == 'y'",
        "`hashFiles` is known on the node, before the step begins (it is for keys of caches, which are not supported yet)",
    ),
    (
        "env: {A: \"${{ always() }}\"}",
        "`always()` stands only in the `if` of a step (commands that run whatever happened go into `after`)",
    ),
    (
        "working_directory: \"${{ needs.b.outputs.x }}\"",
        "`needs` is known when the step is ready; this is fixed when the run is made (it can stand in `if` and in the values of a step's `env`)",
    ),
    (
        "working_directory: \"${{ run.number }}\"",
        "`run.number` is known when the step is ready; this is fixed when the run is made (it can stand in `if` and in the values of a step's `env`)",
    ),
];

#[test]
fn names_are_checked_without_an_occasion() {
    let two = |keys: &str| {
        format!(
            "on: {{manual: {{inputs: {{target: {{}}}}}}}}\nstages:\n- name: s\n  steps: [{{name: b, image: i, run: r}}]\n- name: t\n  steps:\n  - name: a\n    image: i\n    run: r\n    {keys}"
        )
    };
    for (keys, expect) in WRONG_NAMES {
        let text = two(keys);
        let found = pipeline::compile(&text).expect_err(keys).lines();
        // `image` stands above; positions are of the expression inside of the text.
        assert_eq!(words(&found), [*expect], "{text}");
    }
    for fine in [
        "if: env.ANY == 'x' && inputs.target != '' && needs.b.outputs.any == ''",
        "env: {A: \"${{ run.number }}-${{ needs.b.status }}\"}",
        "if: \"git.pr.labels.exists(l, l == 'x') && changed('a') || failure()\"",
    ] {
        pipeline::compile(&two(fine)).unwrap_or_else(|findings| panic!("{findings}\n{fine}"));
    }
    let of_file = "env: {A: \"${{ matrix.x }}\"}\nstages: [{name: s, steps: [{name: a, image: i, run: r}]}]";
    assert_eq!(
        pipeline::compile(of_file).expect_err("no matrix").lines(),
        ["1:15: `matrix` belongs to a step and is not known in a key of the file (write the expression in the step)"]
    );
}

#[test]
fn events_make_runs_or_not() {
    let with = |on: &str| format!("on: {on}\nstages: [{{name: s, steps: [{{name: a, image: i, run: r}}]}}]");
    let mut pr = push("feature");
    pr.event = "pull_request".to_owned();
    pr.git.pull_request = Some(PullRequest {
        number: 7,
        base: "main".to_owned(),
        ..PullRequest::default()
    });
    let cases: Vec<(&str, Occasion, Option<&str>)> = vec![
        ("{push: {branches: [main, 'release/*']}}", push("main"), None),
        ("{push: {branches: [main, 'release/*']}}", push("release/1"), None),
        (
            "{push: {branches: [main]}}",
            push("x"),
            Some("`on.push.branches` does not mean the branch `x`"),
        ),
        ("{push: }", push("x"), None),
        ("push", push("x"), None),
        ("[push]", tag("v1"), Some("`on` does not name the event `tag`")),
        ("{tag: ['v*']}", tag("v1"), None),
        ("{tag: ['v*']}", tag("x"), Some("`on.tag` does not mean the tag `x`")),
        ("{tag: }", tag("x"), None),
        (
            "{tag: ['v*']}",
            push("main"),
            Some("`on` does not name the event `push`"),
        ),
        ("{tag: ['v*']}", manual(&[]), None),
        ("{push: {paths: ['src/**']}}", changed(&["src/a"]), None),
        (
            "{push: {paths: ['src/**']}}",
            changed(&["b"]),
            Some("nothing changed that `on.push.paths` means"),
        ),
        ("{push: {paths: ['src/**']}}", push("main"), None),
        (
            "{push: {paths_ignore: ['docs/**']}}",
            changed(&["docs/a"]),
            Some("only files changed that `on.push.paths_ignore` means"),
        ),
        ("{push: {paths_ignore: ['docs/**']}}", changed(&["docs/a", "b"]), None),
        ("{pull_request: {branches: [main]}}", pr.clone(), None),
        (
            "{pull_request: {branches: [dev]}}",
            pr.clone(),
            Some("`on.pull_request.branches` does not mean the branch `main`"),
        ),
    ];
    for (on, occasion, expect) in cases {
        match expect {
            None => drop(run(&with(on), &occasion)),
            Some(why) => assert_eq!(nothing(&with(on), &occasion), why, "{on}"),
        }
    }
    let silent = "stages: [{name: s, steps: [{name: a, image: i, run: r}]}]";
    drop((
        run(silent, &push("x")),
        run(silent, &tag("x")),
        run(silent, &manual(&[])),
    ));
    assert_eq!(
        nothing(silent, &pr),
        "without `on` the file makes no run of the event `pull_request`"
    );
    let broken = "on: {push: {branches: [main]}}\nstages: [{name: s, steps: [{}]}]";
    assert!(nothing(broken, &push("x")).contains("does not mean"));
    assert_eq!(refused(broken, &push("main")).len(), 3);
}

#[test]
fn events_that_are_not_fired_yet_are_checked_and_told_of() {
    let text = "on: {push: , pull_request: {types: [opened]}, merge_group: {}, schedule: [{cron: '0 3 * * mon', timezone: Europe/Berlin}], pipeline: {name: a/b, status: failed}}\nstages: [{name: s, steps: [{name: a, image: i, run: r}]}]";
    assert_eq!(whole(text, &push("main")).notes.len(), 4);
    for (on, expect) in [
        (
            "{schedule: [{cron: '0 3 * *'}]}",
            "`0 3 * *` is no time of the clock: it has 4 fields instead of 5 (write minute, hour, day of the month, month and day of the week: `0 3 * * *` is every night at three)",
        ),
        (
            "{schedule: [{cron: '0 3 * * *', timezone: berlin}]}",
            "`berlin` is no time zone (write a name of the IANA database, such as `Europe/Berlin` or `UTC`)",
        ),
        (
            "{schedule: [{}]}",
            "an entry of `on.schedule` has no `cron` (write `cron: \"0 3 * * *\"`)",
        ),
        (
            "{pull_request: {types: [open]}}",
            "`on.pull_request.types` must be one of `opened`, `synchronize`, `reopened`, `closed`, `labeled`, `unlabeled`, `ready_for_review`, `edited`, not `open`",
        ),
        (
            "{pipeline: {name: base}}",
            "`on.pipeline.name` `base` is no pipeline of this server (write its team and its name: `team/pipeline`)",
        ),
        ("{pushed: {}}", "`pushed` is not a key of `on` (did you mean `push`?)"),
        ("workflow_dispatch", "`workflow_dispatch` is no event (write `manual`)"),
        (
            "[schedule]",
            "the event `schedule` has to say more than its name (write `on` as a mapping, e.g. `on: {schedule: [{cron: \"0 3 * * *\"}]}`)",
        ),
        (
            "{}",
            "`on` names no event (write `on: {push: {}}`, or remove `on` for every push)",
        ),
        (
            "{merge_group: {x: y}}",
            "`x` is not a key of this mapping (known keys: )",
        ),
    ] {
        let text = format!("on: {on}\nstages: [{{name: s, steps: [{{name: a, image: i, run: r}}]}}]");
        assert_eq!(words(&pipeline::compile(&text).expect_err(on).lines()), [expect]);
    }
}

const INPUTS: &str = r#"
on:
  push:
  manual:
    inputs:
      target: { type: choice, options: [staging, production], default: staging, description: Where to }
      note: { required: true }
      count: { type: number, default: 2 }
      dry: { type: boolean }
stages: [{name: s, steps: [{name: a, image: "i:${{ inputs.target }}", run: r, env: { N: "${{ inputs.count * 2 }}", NOTE: "${{ inputs.note }}" }, if: "!inputs.dry" }]}]
"#;

#[test]
fn inputs_are_typed_and_have_defaults() {
    let def = run(
        INPUTS,
        &manual(&[
            ("note", json!("hi")),
            ("count", json!(4)),
            ("target", json!("production")),
        ]),
    );
    let a = &def.steps[0];
    assert_eq!(
        (a.image.as_str(), a.env["N"].as_str(), a.env["NOTE"].as_str()),
        ("i:production", "8", "hi")
    );
    assert_eq!(a.rules.condition, None);
    // Other events have the defaults, also of what a person has to give.
    let pushed = run(INPUTS, &push("main"));
    assert_eq!(
        (pushed.steps[0].image.as_str(), pushed.steps[0].env["N"].as_str()),
        ("i:staging", "4")
    );
    let dry = run(INPUTS, &manual(&[("note", json!("")), ("dry", json!("true"))]));
    assert!(dry.steps[0].rules.condition.is_some());
    let wrong = |inputs: &[(&str, serde_json::Value)]| match ask(INPUTS, Some(&manual(inputs)), &Files::new()) {
        Err(Refused::Inputs(wrong)) => wrong
            .into_iter()
            .map(|w| format!("{} {}", w.name, w.message))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wrong(&[]), ["note has to be given"]);
    assert_eq!(
        wrong(&[
            ("note", json!("x")),
            ("targt", json!("x")),
            ("target", json!("x")),
            ("count", json!("many")),
            ("dry", json!(1))
        ]),
        [
            "targt is no input of the pipeline; did you mean `target`?",
            "target must be one of `staging`, `production`, not `x`",
            "count must be a number, not `many`",
            "dry must be `true` or `false`, not `1`",
        ]
    );
    assert_eq!(
        wrong(&[("note", json!(["x"]))]),
        ["note must be a text, a number or true or false"]
    );
    for (input, expect) in [
        (
            "{type: choice}",
            "the input `x` is a choice without `options` (write `type: choice` and `options: [staging, production]`)",
        ),
        (
            "{type: number, default: many}",
            "`inputs.x.default` must be a number, not `many`",
        ),
        ("{typ: number}", "`typ` is not a key of an input (did you mean `type`?)"),
        (
            "{type: environment}",
            "`inputs.x.type` must be one of `string`, `choice`, `boolean`, `number`, not `environment`",
        ),
    ] {
        let text = format!(
            "on: {{manual: {{inputs:\n {{\n x: {input}}}}}}}\nstages: [{{name: s, steps: [{{name: a, image: i, run: r}}]}}]"
        );
        assert_eq!(words(&pipeline::compile(&text).expect_err(input).lines()), [expect]);
    }
}

fn here(path: &str) -> FileRef {
    FileRef {
        repository: None,
        path: path.to_owned(),
    }
}

#[test]
fn included_files_lie_under_the_one_that_includes_them() {
    let commit = "4f1c".repeat(10);
    let main = format!(
        "include: [ci/shared.yml, {{repo: team/templates, ref: {commit}, file: rust.yml}}]\nenv: {{A: own}}\ntemplates: {{t: {{image: own}}}}\nstages: [{{name: s, steps: [{{name: a, extends: t, run: r}}, {{name: b, extends: rust, run: r}}]}}]"
    );
    let there = FileRef {
        repository: Some(Pinned {
            pipeline: "team/templates".to_owned(),
            commit: commit.clone(),
        }),
        path: "rust.yml".to_owned(),
    };
    let mut files = Files::new();
    let missing = |files: &Files| match ask(&main, Some(&push("main")), files) {
        Ok(Answer::Missing(missing)) => missing,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(&files), [here("ci/shared.yml"), there.clone()]);
    let shared = "include: ci/base.yml\nenv: {A: shared, B: \"${{ env.C }}!\"}\ndefaults: {timeout: 5m, retry: {max: 0}}\ntemplates: {t: {image: shared}}\nstages: [{name: first, steps: [{name: lint, image: i, run: r}]}, {name: s, steps: [{name: more, image: i, run: r}]}]";
    files.insert(here("ci/shared.yml"), Ok(shared.as_bytes().to_vec()));
    files.insert(there.clone(), Ok(b"templates: {rust: {image: rust}}".to_vec()));
    assert_eq!(missing(&files), [here("ci/base.yml")]);
    files.insert(
        here("ci/base.yml"),
        Ok(b"env: {C: base}\ndefaults: {timeout: 1m}\ninclude: ci/shared.yml".to_vec()),
    );
    let def = match ask(&main, Some(&push("main")), &files) {
        Ok(Answer::Run(compiled)) => compiled.def,
        other => panic!("{other:?}"),
    };
    assert_eq!(names(&def), ["lint", "more", "a", "b"]);
    let stages: Vec<&str> = def.stages.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(stages, ["first", "s"]);
    let a = step(&def, "a");
    assert_eq!((a.image.as_str(), a.timeout_ms, a.retry.max), ("own", 300_000, 0));
    assert_eq!((a.env["A"].as_str(), a.env["B"].as_str()), ("own", "base!"));
    assert_eq!(step(&def, "b").image, "rust");

    // Findings name the file.
    files.insert(here("ci/base.yml"), Ok(b"name: x\nenv: [1]".to_vec()));
    files.insert(there, Err("no such commit".to_owned()));
    let lines = match ask(&main, Some(&push("main")), &files) {
        Err(Refused::File(findings)) => findings.lines(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        lines,
        [
            "1:26: the file `team/templates@4f1c4f1c:rust.yml` cannot be included: no such commit".to_owned(),
            "4:78: no template is named `rust` (define it under `templates`)".to_owned(),
            "ci/base.yml:1:7: `name` cannot stand in an included file (it belongs into the file that includes this one; remove it)".to_owned(),
            "ci/base.yml:2:6: `env` must be a mapping, not a list".to_owned(),
        ]
    );
}

#[test]
fn what_cannot_be_included() {
    let full = "a".repeat(40);
    for (include, expect) in [
        (
            "../x.yml".to_owned(),
            "1:10: an entry of `include` `../x.yml` is no path inside of a repository (write it from the top of the repository, without `..`: `ci/shared.yml`)",
        ),
        (
            "/etc/passwd".to_owned(),
            "1:10: an entry of `include` `/etc/passwd` is no path inside of a repository (write it from the top of the repository, without `..`: `ci/shared.yml`)",
        ),
        (
            "{repo: a/b, ref: main, file: x}".to_owned(),
            "1:27: `include.ref` `main` is no full commit id (a branch or a tag may change: write the 40 (or 64) hexadecimal digits of the commit)",
        ),
        (
            "{repo: a/b, file: x}".to_owned(),
            "1:10: an entry of `include` has no `ref` (write the full id of the commit, so that the file cannot change)",
        ),
        (
            format!("{{ref: {full}, file: x}}"),
            "1:10: an entry of `include` has no `repo` (files of the same repository are taken at the same commit: remove `ref`)",
        ),
        (
            "{repo: 'https://example.org/x', file: x}".to_owned(),
            "1:17: `include.repo` `https://example.org/x` is no pipeline of this server (write its team and its name: `team/pipeline`)",
        ),
        (
            format!("{{repo: a/b, ref: {full}}}"),
            "1:10: an entry of `include` has no `file` (write `file: ci/shared.yml`)",
        ),
    ] {
        let text = format!("include: {include}\nstages: [{{name: s, steps: [{{name: a, image: i, run: r}}]}}]");
        let found = pipeline::compile(&text).expect_err("refused").lines();
        assert_eq!(found, [expect], "{include}");
    }
    // As many as there may be, and one more; and files behind each other.
    let list = |count: usize| (0..count).map(|n| format!("f{n}.yml")).collect::<Vec<_>>().join(", ");
    let text = |count: usize| {
        format!(
            "include: [{}]\nstages: [{{name: s, steps: [{{name: a, image: i, run: r}}]}}]",
            list(count)
        )
    };
    let files: Files = (0..30)
        .map(|n| (here(&format!("f{n}.yml")), Ok(b"env: {}".to_vec())))
        .collect();
    assert!(matches!(
        ask(&text(20), Some(&push("main")), &files),
        Ok(Answer::Run(_))
    ));
    assert!(matches!(
        ask(&text(21), Some(&push("main")), &files),
        Err(Refused::File(_))
    ));
    let behind: Files = (0..9)
        .map(|n| {
            (
                here(&format!("f{n}.yml")),
                Ok(format!("include: f{}.yml", n + 1).into_bytes()),
            )
        })
        .collect();
    match ask(&text(1), Some(&push("main")), &behind) {
        Err(Refused::File(findings)) => assert!(
            findings.to_string().contains("more than 5 behind each other"),
            "{findings}"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_expression_is_explained() {
    let text = one("env: {A: \"x-${{ git.branch }}\", B: \"${{ run.number + 1 }}\"}, if: \"event == 'push'\"");
    let explained = whole(&text, &push("main")).explained;
    let lines: Vec<String> = explained
        .iter()
        .map(|e| {
            format!(
                "{}:{} {:?} {} `{}` = {} {}",
                e.line, e.column, e.step, e.key, e.expression, e.value, e.known
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "1:71 Some(\"a\") env.A `git.branch` = 'main' true",
            "1:95 Some(\"a\") env.B `run.number + 1` = (run.number + 1) false",
            "1:122 Some(\"a\") if `event == 'push'` = true true",
        ]
    );
}

#[test]
fn values_of_an_event_are_never_expressions_themselves() {
    let mut occasion = push("main");
    occasion.git.message = "${{ needs.x.outputs.y }} ' \\ ${{ git.sha }}\n".to_owned();
    let def = run(
        &one("env: {A: \"${{ git.message }}\", B: \"${{ git.message + string(run.number) }}\"}"),
        &occasion,
    );
    let a = &def.steps[0];
    assert_eq!(a.env["A"], occasion.git.message);
    assert_eq!(
        a.rules.late_env["B"],
        [model::Piece::Expression(
            "('${{ needs.x.outputs.y }} \\' \\\\ ${{ git.sha }}\\n' + string(run.number))".to_owned()
        )]
    );
}

#[test]
fn rules_of_steps() {
    let def = run(
        &one("manual: true, priority: low, concurrency: {group: g, cancel_in_progress: true}"),
        &push("main"),
    );
    let rules = &def.steps[0].rules;
    let group = rules.concurrency.as_ref().expect("one");
    assert!(rules.manual && rules.priority == Some(model::Priority::Low) && group.cancel_in_progress);
    for (keys, expect) in [
        (
            "priority: critical",
            "`priority: critical` has to be granted to the team, which is not supported yet (write `high`, `normal` or `low`)",
        ),
        (
            "priority: hihg",
            "`priority` must be one of `high`, `normal`, `low`, not `hihg` (did you mean `high`?)",
        ),
        (
            "concurrency: {queue: first, group: g}",
            "`concurrency.queue` must be one of `latest`, `all`, not `first`",
        ),
        (
            "concurrency: {}",
            "`concurrency` has no `group` (write `group: production`)",
        ),
        (
            "changes: ['[']",
            "`[` is not a glob: unclosed character class; missing ']' (write it like `main`, `release/*`, `src/**` or `!docs/**`)",
        ),
        ("changes: []", "`changes` holds 0 globs; it must be 1 to 100"),
        (
            "after: [{run: x, if: 'true'}]",
            "an entry of `after` has no `if` (only entries of `run` have one)",
        ),
    ] {
        assert_eq!(words(&refused(&one(keys), &push("main"))), [expect], "{keys}");
    }
}

#[test]
fn what_is_left_of_an_expression_for_later_stays_readable() {
    let step = |value: &str| {
        format!(
            "env: {{BIG: {value}}}\nstages: [{{name: s, steps: [{{name: a, image: i, run: r}}, \
             {{name: b, needs: [a], image: i, run: r, env: {{ALL: \"${{{{ env.BIG + needs.a.outputs.n }}}}\"}}}}]}}]"
        )
    };
    let def = run(&step(&"x".repeat(1_000)), &push("main"));
    assert_eq!(def.steps[1].rules.late_env.len(), 1);
    let found = refused(&step(&"x".repeat(10_000)), &push("main"));
    assert!(found[0].contains("for later is too large"), "{found:?}");
}
