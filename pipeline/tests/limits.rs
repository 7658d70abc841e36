//! Each limit of a pipeline file is reached: one below it compiles, one above it is a finding.

use pipeline::limits::*;

const STEP: &str = "image: x, run: y";

#[track_caller]
fn fits(text: &str) -> model::RunDef {
    pipeline::compile(text).unwrap_or_else(|findings| panic!("{findings}"))
}

/// The findings, which must begin with `expect`.
#[track_caller]
fn refused(text: &str, expect: &str) {
    let findings = pipeline::compile(text).expect_err("above a limit");
    let first = findings.list[0].to_string();
    assert!(first.starts_with(expect), "{first}\nis not\n{expect}");
}

/// A file with one step that has `keys` besides image and run.
fn one_step(keys: &str) -> String {
    format!("stages: [{{name: s, steps: [{{name: a, {STEP}, {keys}}}]}}]\n")
}

fn listed(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

#[test]
fn bytes_of_a_file() {
    let text = one_step("");
    let padded = |size: usize| format!("{text}#{}", "x".repeat(size - text.len() - 1));
    assert_eq!(padded(FILE_MAX).len(), FILE_MAX);
    fits(&padded(FILE_MAX));
    refused(
        &padded(FILE_MAX + 1),
        "1:1: the file has 1048577 bytes; the most is 1048576",
    );
}

#[test]
fn keys_and_values() {
    let text = |values: usize| one_step("") + &format!("x-a: [{}]", listed(values, |_| "a".to_owned()));
    // The rest of the file holds 19: its own mapping, two keys, and what stands behind them.
    let rest = 19 - 2;
    fits(&text(NODES_MAX - rest));
    refused(
        &text(NODES_MAX - rest + 1),
        "2:299956: the file holds more than 100000 keys and values",
    );
    refused(&text(NODES_MAX), "2:");
}

#[test]
fn bytes_of_a_key() {
    let text = |length: usize| one_step("") + &format!("? x-{}\n: a\n", "a".repeat(length - 2));
    fits(&text(KEY_MAX));
    refused(&text(KEY_MAX + 1), "2:3: a key has 1025 bytes; the most is 1024");
}

#[test]
fn nesting() {
    let flow = |depth: usize| one_step("") + &format!("x-a: {}{}", "[".repeat(depth), "]".repeat(depth));
    fits(&flow(DEPTH_MAX));
    refused(
        &flow(DEPTH_MAX + 1),
        "2:38: lists and mappings are nested more than 32 deep",
    );
    let block = |depth: usize| {
        let lines: String = (1..depth).map(|n| format!("{}x-a:\n", " ".repeat(n - 1))).collect();
        format!("{lines}{}b: c\n{}", " ".repeat(depth - 1), one_step(""))
    };
    fits(&block(DEPTH_MAX));
    refused(
        &block(DEPTH_MAX + 1),
        "33:33: lists and mappings are nested more than 32 deep",
    );
}

#[test]
fn aliases() {
    let text = |count: usize| one_step("") + &format!("x-a: &a b\nx-b: [{}]", listed(count, |_| "*a".to_owned()));
    fits(&text(ALIASES_MAX));
    refused(
        &text(ALIASES_MAX + 1),
        "3:40007: the file holds more than 10000 aliases",
    );
}

#[test]
fn what_aliases_stand_for() {
    // 10 * 999 + … values: each level holds the one before ten times.
    let levels = |count: usize| -> String {
        (0..count)
            .map(|n| {
                let items = if n == 0 {
                    listed(10, |_| "a".to_owned())
                } else {
                    listed(10, |_| format!("*a{}", n - 1))
                };
                format!("x-{n}: &a{n} [{items}]\n")
            })
            .collect()
    };
    fits(&(levels(5) + &one_step("")));
    refused(&(levels(6) + &one_step("")), "6:");
    refused(
        &(levels(6) + &one_step("")),
        "6:31: aliases make the file larger than 500000 keys and values",
    );
    // The same by merge keys, which copy.
    let wide = format!("x-a: &a {{{}}}\n", listed(1_000, |n| format!("k{n}: v")));
    let merges = |count: usize| {
        format!(
            "{wide}x-b: [{}]\n{}",
            listed(count, |_| "{<<: *a}".to_owned()),
            one_step("")
        )
    };
    fits(&merges(200));
    refused(&merges(300), "2:");
}

#[test]
fn stages() {
    let text = |count: usize| {
        let stages = listed(count, |n| format!("{{name: s{n}, steps: [{{name: a{n}, {STEP}}}]}}"));
        format!("stages: [{stages}]")
    };
    assert_eq!(fits(&text(STAGES_MAX)).stages.len(), STAGES_MAX);
    refused(
        &text(STAGES_MAX + 1),
        "1:5290: the file has 101 stages; the most is 100",
    );
}

#[test]
fn steps() {
    let text = |count: usize| {
        let steps: String = (0..count).map(|n| format!("  - {{name: a{n}, {STEP}}}\n")).collect();
        format!("stages:\n- name: s\n  steps:\n{steps}")
    };
    assert_eq!(fits(&text(model::run::STEPS_MAX)).steps.len(), model::run::STEPS_MAX);
    refused(
        &text(model::run::STEPS_MAX + 1),
        "1004:5: the file has more than 1000 steps",
    );
    // Over several stages as well.
    let two = text(600)
        + &text(600)
            .replace("stages:\n- name: s", "- name: t")
            .replace("name: a", "name: b");
    refused(&two, "1006:5: the file has more than 1000 steps");
}

#[test]
fn templates() {
    let text = |count: usize| {
        format!(
            "templates: {{{}}}\n{}",
            listed(count, |n| format!("t{n}: {{}}")),
            one_step("")
        )
    };
    fits(&text(TEMPLATES_MAX));
    refused(
        &text(TEMPLATES_MAX + 1),
        "1:9903: the file has 1001 templates; the most is 1000",
    );
}

#[test]
fn templates_behind_each_other() {
    let text = |count: usize| {
        let chain = listed(count, |n| {
            if n == 0 {
                "t0: {}".to_owned()
            } else {
                format!("t{n}: {{extends: t{}}}", n - 1)
            }
        });
        format!(
            "templates: {{{chain}}}\n{}",
            one_step(&format!("extends: t{}", count - 1))
        )
    };
    fits(&text(EXTENDS_DEPTH_MAX));
    refused(
        &text(EXTENDS_DEPTH_MAX + 1),
        "2:65: `t16` extends 17 templates behind each other; the most is 16",
    );
}

#[test]
fn entries_of_commands() {
    let text = |count: usize| one_step(&format!("after: [{}]", listed(count, |_| "a".to_owned())));
    assert_eq!(fits(&text(ENTRIES_MAX)).steps[0].after.len(), ENTRIES_MAX);
    refused(
        &text(ENTRIES_MAX + 1),
        "1:63: `after` holds 1001 entries; the most is 1000",
    );
}

#[test]
fn bytes_of_commands() {
    let text = |size: usize| {
        one_step(&format!(
            "after: '{}', before: '{}'",
            "x".repeat(size / 2),
            "x".repeat(size - size / 2 - 1)
        ))
    };
    fits(&text(SCRIPT_MAX));
    refused(
        &text(SCRIPT_MAX + 1),
        "1:28: the commands of step `a` have 524289 bytes; the most is 524288",
    );
}

#[test]
fn variables_of_a_step() {
    let env = |from: usize, count: usize| listed(count, |n| format!("A{}: b", from + n));
    let own = |count: usize| one_step(&format!("env: {{{}}}", env(0, count)));
    assert_eq!(fits(&own(ENV_ENTRIES_MAX)).steps[0].env.len(), ENV_ENTRIES_MAX);
    refused(
        &own(ENV_ENTRIES_MAX + 1),
        "1:61: `env` holds 1001 variables; the most is 1000",
    );
    let layered = |count: usize| {
        let own = one_step(&format!("env: {{{}}}, extends: t", env(2_000, 500)));
        format!(
            "env: {{{}}}\ntemplates: {{t: {{env: {{{}}}}}}}\n{own}",
            env(0, 100),
            env(1_000, count)
        )
    };
    assert_eq!(fits(&layered(400)).steps[0].env.len(), ENV_ENTRIES_MAX);
    refused(
        &layered(401),
        "3:28: with those that it takes over, this has 1001 variables; the most is 1000",
    );
}

#[test]
fn bytes_of_variables() {
    let name = |length: usize| one_step(&format!("env: {{{}: b}}", "A".repeat(length)));
    fits(&name(ENV_NAME_MAX));
    refused(&name(ENV_NAME_MAX + 1), "1:62: `AAAA");
    let value = |length: usize| one_step(&format!("env: {{A: '{}'}}", "x".repeat(length)));
    fits(&value(ENV_VALUE_MAX - 2));
    refused(
        &value(ENV_VALUE_MAX - 1),
        "1:65: `env.A` is longer than 131071 bytes, which no process can be given",
    );
    // Sixteen variables of one anchor.
    let total = |count: usize| {
        let env = listed(count, |n| format!("A{n:02}: *b"));
        format!(
            "x-b: &b '{}'\n{}",
            "x".repeat(ENV_TOTAL_MAX / 16 - 5),
            one_step(&format!("env: {{{env}}}"))
        )
    };
    fits(&total(16));
    refused(
        &total(17),
        "2:28: the variables of step `a` have 1114112 bytes; the most is 1048576",
    );
}

#[test]
fn bytes_of_a_definition() {
    let text = |steps: usize| {
        let steps = listed(steps, |n| format!("{{name: a{n}, image: x, run: *r}}"));
        format!(
            "x-r: &r '{}'\nstages: [{{name: s, steps: [{steps}]}}]",
            "y".repeat(SCRIPT_MAX - 64)
        )
    };
    let def = fits(&text(16));
    assert!(serde_json::to_string(&def).expect("it encodes").len() > DEFINITION_MAX * 99 / 100);
    refused(&text(17), "2:530: with this step the pipeline is larger than 8Mi");
}

#[test]
fn texts() {
    let title = |length: usize| format!("title: {}\n{}", "ü".repeat(length), one_step(""));
    fits(&title(TITLE_MAX));
    refused(&title(TITLE_MAX + 1), "1:8: `title` must have 1 to 200 characters");
    let name = |length: usize| format!("name: {}\n{}", "a".repeat(length), one_step(""));
    fits(&name(model::id::NAME_MAX));
    refused(&name(model::id::NAME_MAX + 1), "1:7: `name` `aaa");
    let path = |length: usize| one_step(&format!("working_directory: {}", "a".repeat(length)));
    fits(&path(PATH_MAX));
    refused(
        &path(PATH_MAX + 1),
        "1:75: `working_directory` must have 1 to 4095 characters",
    );
    refused(
        &one_step(&format!("working_directory: {}", "ü".repeat(PATH_MAX / 2 + 1))),
        "1:75: `working_directory` must have at most 4095 bytes",
    );
    let labels = |count: usize| one_step(&format!("labels: {{{}}}", listed(count, |n| format!("l{n}: v"))));
    fits(&labels(LABELS_MAX));
    refused(
        &labels(LABELS_MAX + 1),
        "1:64: `labels` holds 65 labels; the most is 64",
    );
    let label = |length: usize| one_step(&format!("labels: {{{0}: {0}}}", "a".repeat(length)));
    fits(&label(LABEL_MAX));
    refused(&label(LABEL_MAX + 1), "1:65: the label `aaaa");
}

#[test]
fn needs() {
    let names = |count: usize| listed(count, |n| format!("a{n}"));
    let steps: String = (0..998).map(|n| format!("  - {{name: a{n}, {STEP}}}\n")).collect();
    let text =
        |needs: &str| format!("stages:\n- name: s\n  steps:\n{steps}  - {{name: z, {STEP}, needs: [{needs}]}}\n");
    assert_eq!(fits(&text(&names(998))).steps[998].needs.len(), 998);
    refused(
        &text(&names(1_001)),
        "1002:40: `needs` holds 1001 steps; a run has at most 1000",
    );
}

#[test]
fn a_thousand_steps_that_all_need_each_other_compile() {
    let step = |n: usize| format!("  - {{name: a{n}, {STEP}}}\n");
    let first: String = (0..500).map(step).collect();
    let second: String = (500..1_000).map(step).collect();
    let def = fits(&format!(
        "stages:\n- name: s\n  steps:\n{first}- name: t\n  steps:\n{second}"
    ));
    assert_eq!(def.steps[999].needs.len(), 500);
    let chunks = def.to_chunks();
    assert_eq!(model::RunDef::from_chunks(&chunks).expect("whole"), def);
}

#[test]
fn retries() {
    use model::step::{RETRY_BACKOFF_MAX_MS, RETRY_MAX};
    let text = |max: u32, backoff_s: u64| one_step(&format!("retry: {{max: {max}, backoff: {backoff_s}s}}"));
    let longest = RETRY_BACKOFF_MAX_MS / 1_000;
    let retry = &fits(&text(RETRY_MAX, longest)).steps[0].retry;
    assert_eq!((retry.max, retry.backoff_ms), (RETRY_MAX, RETRY_BACKOFF_MAX_MS));
    refused(
        &text(RETRY_MAX + 1, longest),
        "1:69: `retry.max` must be from 0 to 10, not 11",
    );
    refused(
        &text(RETRY_MAX, longest + 1),
        "1:82: `retry.backoff` must be at most 10m, not 601s",
    );
    let codes = listed(255, |n| format!("'exit:{}'", n + 1));
    let every = one_step(&format!("retry: {{on: [infra, oom, timeout, failure, {codes}]}}"));
    assert_eq!(fits(&every).steps[0].retry.on.len(), 259, "every end that there is");
}

/// The first finding must hold `expect`.
#[track_caller]
fn refused_with(text: &str, expect: &str) {
    let findings = pipeline::compile(text).expect_err("above a limit");
    let first = &findings.list[0].message;
    assert!(first.contains(expect), "{first}\nhas no\n{expect}");
}

/// A file with one step that has this matrix.
fn celled(matrix: &str) -> String {
    one_step(&format!("matrix: {{{matrix}}}"))
}

#[test]
fn cells_of_a_matrix() {
    let axis = |name: &str, count: usize| format!("{name}: [{}]", listed(count, |n| format!("'{n}'")));
    assert_eq!(fits(&celled(&axis("a", CELLS_MAX))).steps.len(), CELLS_MAX);
    assert_eq!(
        fits(&celled(&format!("{}, {}", axis("a", 16), axis("b", 16))))
            .steps
            .len(),
        CELLS_MAX
    );
    refused_with(
        &celled(&axis("a", CELLS_MAX + 1)),
        "`matrix.a` holds 257 values; it must be 1 to 256",
    );
    refused_with(
        &celled(&format!("{}, {}", axis("a", 16), axis("b", 17))),
        "`matrix` makes 272 cells; it must be 1 to 256",
    );
    let included = |count: usize| format!("include: [{}]", listed(count, |n| format!("{{v: '{n}'}}")));
    assert_eq!(fits(&celled(&included(CELLS_MAX))).steps.len(), CELLS_MAX);
    refused_with(&celled(&included(CELLS_MAX + 1)), "`matrix.include` holds 257 entries");
}

#[test]
fn combinations_before_exclusion() {
    let axis = |name: &str, count: usize| format!("{name}: [{}]", listed(count, |n| format!("'{n}'")));
    let without = |count: usize| {
        let excluded = listed(count - 4, |n| format!("{{b: '{}'}}", n + 4));
        format!("{}, {}, exclude: [{excluded}]", axis("a", 64), axis("b", count))
    };
    assert_eq!(fits(&celled(&without(COMBINATIONS_MAX / 64))).steps.len(), 256);
    refused_with(
        &celled(&without(COMBINATIONS_MAX / 64 + 1)),
        "`matrix` has more than 4096 combinations",
    );
}

#[test]
fn names_and_values_of_a_matrix() {
    let axes = |count: usize| listed(count, |n| format!("a{n}: [x]"));
    fits(&celled(&axes(AXES_MAX)));
    let long = |bytes: usize| format!("a: ['{}']", "x".repeat(bytes));
    fits(&celled(&long(MATRIX_VALUE_MAX)));
    refused_with(
        &celled(&long(MATRIX_VALUE_MAX + 1)),
        "a value of `matrix.a` has more than 1024 bytes",
    );
    let wide = |count: usize| format!("include: [{{{}}}]", listed(count, |n| format!("a{n}: x")));
    fits(&celled(&wide(AXES_MAX)));
    refused_with(
        &celled(&wide(AXES_MAX + 1)),
        "an entry of `matrix.include` holds 21 values",
    );
}

#[test]
fn steps_with_the_cells_of_their_matrices() {
    let text = |cells: usize| {
        let full = listed(3, |n| {
            let values = listed(CELLS_MAX, |v| v.to_string());
            format!("{{name: m{n}, {STEP}, matrix: {{v: [{values}]}}}}")
        });
        let rest = listed(cells - 3 * CELLS_MAX, |n| format!("{{name: s{n}, {STEP}}}"));
        format!("stages: [{{name: s, steps: [{full}, {rest}]}}]")
    };
    assert_eq!(fits(&text(1_000)).steps.len(), 1_000);
    let findings = pipeline::compile(&text(1_001)).expect_err("too many");
    assert!(
        findings.list[0]
            .message
            .contains("the file has 1001 steps; the most is 1000"),
        "{findings}"
    );
}

#[test]
fn groups_and_globs() {
    let group = |chars: usize| format!("concurrency: {}", "x".repeat(chars));
    fits(&one_step(&group(GROUP_MAX)));
    refused_with(
        &one_step(&group(GROUP_MAX + 1)),
        "`concurrency` must have 1 to 512 characters",
    );
    let globs = |count: usize| format!("changes: [{}]", listed(count, |n| format!("a{n}")));
    fits(&one_step(&globs(100)));
    refused_with(&one_step(&globs(101)), "`changes` holds 101 globs; it must be 1 to 100");
    let glob = |bytes: usize| format!("changes: ['{}']", "x".repeat(bytes));
    fits(&one_step(&glob(256)));
    refused_with(&one_step(&glob(257)), "a glob has 257 bytes; the most is 256");
}

#[test]
fn inputs_of_a_person() {
    let inputs = |count: usize| {
        let all = listed(count, |n| format!("i{n}: {{type: string}}"));
        format!("on: {{manual: {{inputs: {{{all}}}}}}}\n") + &one_step("")
    };
    fits(&inputs(INPUTS_MAX));
    refused_with(
        &inputs(INPUTS_MAX + 1),
        "`on.manual.inputs` holds 51 inputs; the most is 50",
    );
    let crons = |count: usize| {
        let all = listed(count, |_| "{cron: '0 3 * * *'}".to_owned());
        format!("on: {{schedule: [{all}]}}\n") + &one_step("")
    };
    fits(&crons(SCHEDULES_MAX));
    refused_with(&crons(SCHEDULES_MAX + 1), "`on.schedule` holds 51 entries");
}

#[test]
fn bytes_of_an_input() {
    let text = "on: {manual: {inputs: {i: {type: string}}}}\n".to_owned() + &one_step("");
    let ask = |bytes: usize| {
        let occasion = pipeline::Occasion {
            event: "manual".to_owned(),
            inputs: [("i".to_owned(), serde_json::json!("x".repeat(bytes)))].into(),
            ..pipeline::Occasion::default()
        };
        answered(&text, &pipeline::Files::new(), Some(&occasion))
    };
    assert!(matches!(ask(INPUT_VALUE_MAX), Ok(pipeline::Answer::Run(_))));
    let wrong = ask(INPUT_VALUE_MAX + 1).expect_err("too long").to_string();
    assert_eq!(wrong, "the input `i` has 16385 bytes; the most is 16384");
}

fn answered(
    text: &str,
    files: &pipeline::Files,
    occasion: Option<&pipeline::Occasion>,
) -> Result<pipeline::Answer, pipeline::Refused> {
    pipeline::answer(&pipeline::Request {
        bytes: text.as_bytes(),
        limits: pipeline::Limits::default(),
        files,
        occasion,
        explain: pipeline::Explain::No,
    })
}

#[test]
fn included_files() {
    let own = |path: String| pipeline::FileRef { repository: None, path };
    let ask = |text: &str, files: &pipeline::Files| answered(text, files, None);
    let wide = |count: usize| {
        let files = (0..count)
            .map(|n| (own(format!("f{n}")), Ok(b"env: {A: b}".to_vec())))
            .collect();
        let text = format!("include: [{}]\n{}", listed(count, |n| format!("f{n}")), one_step(""));
        ask(&text, &files)
    };
    assert!(matches!(wide(INCLUDES_MAX), Ok(pipeline::Answer::Run(_))));
    let found = wide(INCLUDES_MAX + 1).expect_err("too many").to_string();
    assert!(found.contains("more than 20 files are included"), "{found}");
    let deep = |count: usize| {
        let next = |n: usize| {
            if n + 1 < count {
                format!("include: [f{}]\n", n + 1)
            } else {
                String::new()
            }
        };
        let files = (0..count)
            .map(|n| {
                (
                    own(format!("f{n}")),
                    Ok(format!("{}env: {{A: b}}", next(n)).into_bytes()),
                )
            })
            .collect();
        ask(&format!("include: [f0]\n{}", one_step("")), &files)
    };
    assert!(matches!(deep(INCLUDE_DEPTH_MAX), Ok(pipeline::Answer::Run(_))));
    let found = deep(INCLUDE_DEPTH_MAX + 1).expect_err("too deep").to_string();
    assert!(found.contains("more than 5 behind each other"), "{found}");
}

#[test]
fn expressions() {
    let condition = |text: &str| one_step(&format!("if: \"{text}\""));
    fits(&condition(&format!("true || '{}' == ''", "x".repeat(4_096 - 16))));
    refused_with(
        &condition(&format!("true || '{}' == ''", "x".repeat(4_096 - 15))),
        "the expression has 4097 bytes; the most is 4096",
    );
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    fits(&condition(&nested(40)));
    let found = pipeline::compile(&condition(&nested(60)))
        .expect_err("too deep")
        .to_string();
    assert!(found.contains("nested more than 48"), "{found}");
    let chain = ".map(x, x + x + x + x)".repeat(20);
    let found = pipeline::compile(&condition(&format!("['aaaa']{chain}.size() > 0")));
    let found = found.expect_err("too large").to_string();
    assert!(found.contains("has no value") && found.contains("more than"), "{found}");
}

#[test]
fn all_expressions_of_a_file_together() {
    // Each takes its own limit almost whole; together they would take minutes.
    let ones = |count: usize| format!("[{}]", "1,".repeat(count));
    let slow = format!("{}.all(a, {}.all(b, a + b > 0))", ones(30), ones(100));
    let steps = listed(900, |n| format!("{{name: s{n}, {STEP}, if: '{slow}'}}"));
    let findings = pipeline::compile(&format!("stages: [{{name: s, steps: [{steps}]}}]"));
    let found = findings.expect_err("too much work").to_string();
    assert!(
        found.contains("too many steps together"),
        "{}",
        &found[..found.len().min(300)]
    );
}
