//! What right files become, down to each field.

use model::{Checkout, Entry, Resources, Retry, RetryOn, RunDef, Shell, StepDef};
use std::collections::BTreeMap;

#[track_caller]
fn compiled(text: &str) -> RunDef {
    pipeline::compile(text).unwrap_or_else(|findings| panic!("{findings}\nof\n{text}"))
}

fn step<'d>(def: &'d RunDef, name: &str) -> &'d StepDef {
    &def.steps[def.step_index(name).unwrap_or_else(|| panic!("no step {name}"))]
}

fn entry(run: &str) -> Entry {
    Entry {
        name: None,
        run: run.to_owned(),
    }
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_step_that_says_nothing_else_has_the_defaults_of_the_contract() {
    let def = compiled("stages: [{name: s, steps: [{name: a, image: x, run: make}]}]");
    let expect = StepDef {
        name: "a".parse().expect("legal"),
        title: None,
        stage: 0,
        needs: vec![],
        image: "x".to_owned(),
        before: vec![],
        run: vec![entry("make")],
        after: vec![],
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: Some(Checkout { depth: Some(1) }),
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 1_800_000,
        allow_failure: false,
        resources: Resources {
            cpu_millis: 1_000,
            memory_bytes: 1 << 30,
            disk_bytes: 10 << 30,
        },
        pids: 4_096,
        shm_bytes: 64 << 20,
        labels: BTreeMap::new(),
        retry: Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    };
    assert_eq!(def.steps, [expect]);
    assert_eq!((def.name, def.title), (None, None));
}

/// Each key once, with another value than its default.
const EVERY_KEY: &str = r#"
name: backend
title: The service
x-ignored: ["${{ anything }}", 1.90, ~]
stages:
  - name: build
    x-ignored: 1
    steps:
      - name: compile
        title: Compile the service
        x-ignored: 1
        run:
          - cargo build
          - { name: strip, run: "strip app", x-ignored: 1 }
          - |
            a
              b
          - >-
            c
            d
        shell: bash
        before: [b1, b2]
        after: a1
        working_directory: sub/dir
        checkout: { depth: 0, x-ignored: 1 }
        image: "rust:1.95"
        user: 1000:1000
        env: { A: x, B: 1, C: true, D: "1.90", E: "" }
        timeout: 1m30s
        allow_failure: true
        resources: { cpu: 1.5, memory: 2Gi, disk: 5G, pids: 100, shm: 128Mi, x-ignored: 1 }
        labels: { arch: amd64, cores: 8 }
        retry: { max: 3, on: [infra, oom, timeout, failure, "exit:75"], backoff: 1m }
        idempotent: false
"#;

#[test]
fn every_key_reaches_its_field() {
    let def = compiled(EVERY_KEY);
    assert_eq!(
        (def.name.as_deref(), def.title.as_deref()),
        (Some("backend"), Some("The service"))
    );
    let expect = StepDef {
        name: "compile".parse().expect("legal"),
        title: Some("Compile the service".to_owned()),
        stage: 0,
        needs: vec![],
        image: "rust:1.95".to_owned(),
        before: vec![entry("b1"), entry("b2")],
        run: vec![
            entry("cargo build"),
            Entry {
                name: Some("strip".to_owned()),
                run: "strip app".to_owned(),
            },
            entry("a\n  b\n"),
            entry("c d"),
        ],
        after: vec![entry("a1")],
        shell: Shell::Bash,
        working_directory: "sub/dir".to_owned(),
        checkout: Some(Checkout { depth: None }),
        user: Some("1000:1000".to_owned()),
        env: texts(&[("A", "x"), ("B", "1"), ("C", "true"), ("D", "1.90"), ("E", "")]),
        timeout_ms: 90_000,
        allow_failure: true,
        resources: Resources {
            cpu_millis: 1_500,
            memory_bytes: 2 << 30,
            disk_bytes: 5_000_000_000,
        },
        pids: 100,
        shm_bytes: 128 << 20,
        labels: texts(&[("arch", "amd64"), ("cores", "8")]),
        retry: Retry {
            max: 3,
            on: vec![
                RetryOn::Infra,
                RetryOn::Oom,
                RetryOn::Timeout,
                RetryOn::Failure,
                RetryOn::Exit(75),
            ],
            backoff_ms: 60_000,
        },
        idempotent: false,
        rules: model::StepRules::default(),
    };
    assert_eq!(def.steps, [expect]);
}

#[test]
fn checkout_has_four_forms() {
    for (text, expect) in [
        ("true", Some(Checkout { depth: Some(1) })),
        ("false", None),
        ("{}", Some(Checkout { depth: Some(1) })),
        ("{depth: 50}", Some(Checkout { depth: Some(50) })),
        ("{depth: 0}", Some(Checkout { depth: None })),
    ] {
        let def = compiled(&format!(
            "stages: [{{name: s, steps: [{{name: a, image: x, run: y, checkout: {text}}}]}}]"
        ));
        assert_eq!(def.steps[0].checkout, expect, "{text}");
    }
}

#[test]
fn without_needs_a_step_waits_for_the_whole_stage_before() {
    let def = compiled(
        "defaults: {image: i, run: r}\nstages:\n- {name: one, steps: [{name: a}, {name: b}]}\n- {name: two, steps: [{name: c}, {name: d, needs: []}, {name: e, needs: [b]}, {name: f, needs: [c, a]}]}\n- {name: three, steps: [{name: g}, {name: h, needs: a}]}\n",
    );
    let needs: Vec<(&str, Vec<usize>)> = def.steps.iter().map(|s| (s.name.as_str(), s.needs.clone())).collect();
    assert_eq!(
        needs,
        [
            ("a", vec![]),
            ("b", vec![]),
            ("c", vec![0, 1]),
            ("d", vec![]),
            ("e", vec![1]),
            ("f", vec![0, 2]),
            ("g", vec![2, 3, 4, 5]),
            ("h", vec![0]),
        ]
    );
    let stages: Vec<usize> = def.steps.iter().map(|s| s.stage).collect();
    assert_eq!(stages, [0, 0, 1, 1, 1, 1, 2, 2]);
}

#[test]
fn layers_win_over_each_other_and_maps_are_merged() {
    let def = compiled(
        r"
env: { FILE: file, DEFAULTS: file, BASE: file, RUST: file, STEP: file }
templates:
  base:
    image: base
    run: from-base
    env: { BASE: base, RUST: base, STEP: base }
    resources: { cpu: 4, memory: 4Gi }
    labels: { a: base, b: base }
    title: base
  rust:
    extends: base
    image: rust
    env: { RUST: rust, STEP: rust }
    resources: { memory: 2Gi }
    labels: { b: rust }
  other: { image: other }
defaults:
  extends: other
  run: from-defaults
  timeout: 5m
  env: { DEFAULTS: defaults, BASE: defaults, RUST: defaults, STEP: defaults }
  resources: { pids: 50, cpu: 1 }
stages:
  - name: s
    steps:
      - { name: mine, extends: rust, env: { STEP: step }, labels: { c: step }, resources: { shm: 1Mi } }
      - { name: theirs }
      - { name: image, image: own, needs: [mine] }
",
    );
    let mine = step(&def, "mine");
    assert_eq!(
        mine.env,
        texts(&[
            ("FILE", "file"),
            ("DEFAULTS", "defaults"),
            ("BASE", "base"),
            ("RUST", "rust"),
            ("STEP", "step")
        ])
    );
    assert_eq!(mine.labels, texts(&[("a", "base"), ("b", "rust"), ("c", "step")]));
    assert_eq!((mine.image.as_str(), mine.run[0].run.as_str()), ("rust", "from-base"));
    assert_eq!(
        (mine.resources.cpu_millis, mine.resources.memory_bytes),
        (4_000, 2 << 30)
    );
    assert_eq!((mine.pids, mine.shm_bytes, mine.timeout_ms), (50, 1 << 20, 300_000));
    assert_eq!(mine.title.as_deref(), Some("base"));
    let theirs = step(&def, "theirs");
    assert_eq!(
        (theirs.image.as_str(), theirs.run[0].run.as_str()),
        ("other", "from-defaults")
    );
    assert_eq!(theirs.env["STEP"], "defaults");
    assert_eq!(step(&def, "image").image, "own");
    assert_eq!(step(&def, "image").needs, [0]);
}

#[test]
fn anchors_aliases_and_merge_keys() {
    let def = compiled(
        r"
x-one: &one { A: one, B: one }
x-two: &two { B: two, C: two }
x-run: &run
  - echo hello
  - { name: section, run: &text make }
stages:
  - name: s
    steps:
      - &first
        name: a
        image: i
        env: { <<: *one, A: own }
        run: *run
      - <<: *first
        name: b
        env: { D: own, <<: [*one, *two] }
        run: *text
",
    );
    assert_eq!(step(&def, "a").env, texts(&[("A", "own"), ("B", "one")]));
    assert_eq!(step(&def, "a").run.len(), 2);
    assert_eq!(
        step(&def, "b").env,
        texts(&[("A", "one"), ("B", "one"), ("C", "two"), ("D", "own")])
    );
    assert_eq!(step(&def, "b").run, [entry("make")]);
    assert_eq!(step(&def, "b").image, "i");
}

#[test]
fn a_text_may_be_an_integer_or_a_boolean_and_means_its_characters() {
    let def = compiled(
        "name: 7\nstages: [{name: 1, steps: [{name: true, title: 2026, image: x, run: [false, 0x10], user: 0, env: {A: 007, B: +1, C: TRUE}}]}]",
    );
    assert_eq!(def.name.as_deref(), Some("7"));
    assert_eq!(def.stages[0].name.as_str(), "1");
    let step = &def.steps[0];
    assert_eq!(step.name.as_str(), "true");
    assert_eq!(step.title.as_deref(), Some("2026"));
    assert_eq!(step.run, [entry("false"), entry("0x10")]);
    assert_eq!(step.user.as_deref(), Some("0"));
    assert_eq!(step.env, texts(&[("A", "007"), ("B", "+1"), ("C", "TRUE")]));
}

#[test]
fn a_team_has_its_own_limit_of_time() {
    let text = "stages: [{name: s, steps: [{name: a, image: x, run: y}, {name: b, image: x, run: y, timeout: 2h}]}]";
    let limits = |minutes: u64| pipeline::Limits {
        step_timeout_ms: minutes * 60_000,
    };
    let def = pipeline::compile_bytes(text.as_bytes(), limits(120)).expect("a raised limit");
    let timeouts: Vec<u64> = def.steps.iter().map(|s| s.timeout_ms).collect();
    assert_eq!(timeouts, [30 * 60_000, 120 * 60_000]);
    let findings = pipeline::compile_bytes(text.as_bytes(), limits(10)).expect_err("a lowered limit");
    assert_eq!(
        findings.to_string(),
        "1:94: `timeout` 2h is above the team's limit of 10m (an operator raises it with `buildflow team set --step-timeout`)"
    );
    let short = text.replace(", timeout: 2h", "");
    let def = pipeline::compile_bytes(short.as_bytes(), limits(10)).expect("the default shrinks with the limit");
    assert_eq!(def.steps[0].timeout_ms, 10 * 60_000);
}

#[test]
fn the_default_of_shm_shrinks_with_memory() {
    let def = compiled("stages: [{name: s, steps: [{name: a, image: x, run: y, resources: {memory: 16Mi}}]}]");
    assert_eq!(def.steps[0].shm_bytes, 16 << 20);
}

#[test]
fn the_plan_is_a_tree() {
    let def = compiled(
        r"
name: backend
title: The service
defaults: { image: rust:1, run: x }
stages:
  - name: build
    steps: [{ name: compile, resources: { cpu: 1.5, memory: 2Gi } }, { name: docs, timeout: 90s }]
  - name: test
    steps:
      - { name: unit }
      - { name: lint, needs: [compile], allow_failure: true, labels: { arch: amd64, gpu: none } }
  - name: ship
    steps: [{ name: push, needs: [] }]
",
    );
    let expect = "\
backend: The service (5 steps in 3 stages)
├─ build
│  ├─ compile  rust:1  cpu 1.5, memory 2Gi, timeout 30m
│  └─ docs  rust:1  cpu 1, memory 1Gi, timeout 1m30s
├─ test
│  ├─ unit  rust:1  cpu 1, memory 1Gi, timeout 30m  needs all of build
│  └─ lint  rust:1  cpu 1, memory 1Gi, timeout 30m  on arch=amd64,gpu=none  needs compile  may fail
└─ ship
   └─ push  rust:1  cpu 1, memory 1Gi, timeout 30m
";
    assert_eq!(pipeline::plan_tree(&def, &[]), expect);
    let many: String = (0..20).map(|n| format!("{{name: s{n}}}, ")).collect();
    let names: String = (0..19).map(|n| format!("s{n}, ")).collect();
    let def = compiled(&format!(
        "defaults: {{image: i, run: r, timeout: 1m}}\nstages: [{{name: a, steps: [{many}]}}, {{name: b, steps: [{{name: z, needs: [{names}]}}]}}]"
    ));
    let tree = pipeline::plan_tree(&def, &[]);
    assert!(tree.starts_with("pipeline (21 steps in 2 stages)\n"), "{tree}");
    assert!(
        tree.ends_with("needs s0, s1, s2, s3, s4, s5, s6, s7 and 11 more\n"),
        "{tree}"
    );
}

/// The pipeline files that come with the project.
#[test]
fn the_examples_compile() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut folders = vec![std::path::PathBuf::from(root)];
    let mut compiled_files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yml") {
                let bytes = std::fs::read(&path).expect("a file");
                let result = pipeline::compile_bytes(&bytes, pipeline::Limits::default());
                assert!(result.is_ok(), "{}: {}", path.display(), result.expect_err("findings"));
                compiled_files += 1;
            }
        }
    }
    assert!(compiled_files >= 1, "no example was found");
}

#[test]
fn a_retry_is_taken_whole_from_the_nearest_layer_and_completed_by_the_defaults() {
    let def = compiled(
        r"
templates:
  often: { retry: { max: 5, on: [failure] }, idempotent: false }
defaults: { image: i, run: r, retry: { max: 1, on: [oom], backoff: 30s } }
stages:
  - name: s
    steps:
      - { name: own, extends: often, retry: { max: 4 }, idempotent: true }
      - { name: template, extends: often }
      - { name: defaults }
",
    );
    let said = |name: &str| {
        let step = step(&def, name);
        let on: Vec<String> = step.retry.on.iter().map(|on| String::from(*on)).collect();
        (step.retry.max, on.join(" "), step.retry.backoff_ms, step.idempotent)
    };
    assert_eq!(said("own"), (4, "infra".to_owned(), 5_000, true));
    assert_eq!(said("template"), (5, "failure".to_owned(), 5_000, false));
    assert_eq!(said("defaults"), (1, "oom".to_owned(), 30_000, true));
    let silent = compiled("stages: [{name: s, steps: [{name: a, image: x, run: y}]}]");
    assert_eq!(silent.steps[0].retry, Retry::default());
    assert!(silent.steps[0].idempotent);
    let tree = pipeline::plan_tree(&def, &[]);
    for shown in [
        "4 retries on infra",
        "5 retries on failure  never started twice",
        "1 retry on oom",
    ] {
        assert!(tree.contains(shown), "{shown} in\n{tree}");
    }
}
