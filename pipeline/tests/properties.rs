//! What must hold for every text: an answer, and a definition that can be trusted.

use model::RunDef;
use proptest::prelude::*;

/// A file that uses every key, to be broken in a thousand ways.
const RICH: &str = r#"
name: backend
title: "The service"
env: { CARGO_TERM_COLOR: always, N: 1 }
x-anchor: &anchor { A: b }
templates:
  rust: { image: "docker.io/library/rust:1.95", resources: { cpu: 2, memory: 2Gi } }
  more: { extends: rust, env: { <<: *anchor, C: 'd' } }
defaults: { timeout: 30m, shell: sh }
stages:
  - name: build
    steps:
      - name: compile
        title: Compile the service
        extends: rust
        checkout: { depth: 1 }
        run:
          - cargo build --release
          - { name: strip, run: strip target/release/app }
          - |
            two
            lines
        after: [sccache --show-stats]
        before: x
        working_directory: .
        resources: { disk: 10Gi, pids: 4096, shm: 64Mi }
  - name: test
    steps:
      - name: unit
        needs: [compile]
        extends: more
        run: cargo test
        labels: { arch: amd64 }
        user: 1000:1000
      - { name: lint, extends: rust, allow_failure: true, needs: [unit], run: cargo clippy, checkout: false }
"#;

/// What the compiler promises of a definition.
fn is_sound(def: &RunDef) -> Result<(), TestCaseError> {
    prop_assert!(!def.stages.is_empty() && !def.steps.is_empty());
    prop_assert!(def.steps.len() <= model::run::STEPS_MAX);
    for (ordinal, step) in def.steps.iter().enumerate() {
        prop_assert!(step.stage < def.stages.len());
        prop_assert!(!step.run.is_empty() && step.run.iter().all(|entry| !entry.run.trim().is_empty()));
        prop_assert!(!step.image.is_empty());
        prop_assert!(step.needs.is_sorted_by(|a, b| a < b), "{:?}", step.needs);
        prop_assert!(
            step.needs
                .iter()
                .all(|need| *need != ordinal && *need < def.steps.len())
        );
        prop_assert!(step.needs.iter().all(|need| def.steps[*need].stage <= step.stage));
        prop_assert!(step.timeout_ms > 0 && step.shm_bytes <= step.resources.memory_bytes);
    }
    // Acyclic: taking away what needs nothing that is left takes away everything.
    let mut left: Vec<usize> = (0..def.steps.len()).collect();
    loop {
        let before = left.len();
        let still = left.clone();
        left.retain(|step| def.steps[*step].needs.iter().any(|need| still.contains(need)));
        if left.len() == before {
            break;
        }
    }
    prop_assert!(left.is_empty(), "{left:?} need each other");
    let names: std::collections::BTreeSet<&str> = def.steps.iter().map(|s| s.name.as_str()).collect();
    prop_assert_eq!(names.len(), def.steps.len());
    Ok(())
}

/// Compiles and checks what must hold of either answer.
fn answer(bytes: &[u8]) -> Result<Option<RunDef>, TestCaseError> {
    let result = pipeline::compile_bytes(bytes, pipeline::Limits::default());
    prop_assert_eq!(&result, &pipeline::compile_bytes(bytes, pipeline::Limits::default()));
    match result {
        Ok(def) => {
            is_sound(&def)?;
            let tree = pipeline::plan_tree(&def, &[]);
            prop_assert_eq!(tree.lines().count(), 1 + def.stages.len() + def.steps.len());
            let again = RunDef::from_chunks(&def.to_chunks()).expect("it decodes");
            prop_assert_eq!(&again, &def);
            Ok(Some(def))
        }
        Err(findings) => {
            prop_assert!(!findings.list.is_empty() && findings.list.len() <= pipeline::FINDINGS_MAX);
            let lines = String::from_utf8_lossy(bytes).split(['\n', '\r']).count();
            for finding in &findings.list {
                prop_assert!((1..=lines.max(1)).contains(&finding.line), "{finding} of {lines} lines");
                prop_assert!(finding.column >= 1);
            }
            prop_assert!(findings.list.is_sorted_by_key(|f| (f.line, f.column)));
            // Nothing of the input steers the terminal on which findings are read.
            let text = findings.to_string();
            prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
            Ok(None)
        }
    }
}

/// Pieces that pipeline files are made of.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "name",
        "title",
        "env",
        "templates",
        "defaults",
        "stages",
        "steps",
        "extends",
        "needs",
        "run",
        "shell",
        "before",
        "after",
        "working_directory",
        "checkout",
        "image",
        "user",
        "timeout",
        "allow_failure",
        "resources",
        "labels",
        "retry",
        "max",
        "on",
        "depth",
        "cpu",
        "memory",
        "a",
        "b",
        "true",
        "~",
        "1.90",
        "30m",
        "2Gi",
        "sh",
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        ", ",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "\"",
        "'",
        "|\n",
        ">\n",
        "#",
        "${{ x }}",
        "x-y",
        "\t",
        "\r\n",
        "\u{feff}",
        "ü",
        "\\",
        "? ",
        "---\n",
        "%",
        "@",
        "`",
    ];
    proptest::sample::select(words.to_vec()).prop_map(str::to_owned)
}

/// How to damage a file.
#[derive(Debug, Clone)]
enum Damage {
    Remove(usize, usize),
    Insert(usize, String),
    Double(usize, usize),
    Flip(usize, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = 0_usize..RICH.len();
    prop_oneof![
        (place.clone(), 1_usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
        (place.clone(), piece()).prop_map(|(at, text)| Damage::Insert(at, text)),
        (place.clone(), 1_usize..200).prop_map(|(at, length)| Damage::Double(at, length)),
        (place, any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
    ]
}

fn damaged(damages: &[Damage]) -> Vec<u8> {
    let mut bytes = RICH.as_bytes().to_vec();
    for damage in damages {
        let clamp = |at: usize| at.min(bytes.len());
        match damage {
            Damage::Remove(at, length) => {
                bytes.drain(clamp(*at)..clamp(at + length));
            }
            Damage::Insert(at, text) => {
                let at = clamp(*at);
                bytes.splice(at..at, text.bytes());
            }
            Damage::Double(at, length) => {
                let piece = bytes[clamp(*at)..clamp(at + length)].to_vec();
                let at = clamp(*at);
                bytes.splice(at..at, piece);
            }
            Damage::Flip(at, byte) => {
                if let Some(place) = bytes.get_mut(*at) {
                    *place = *byte;
                }
            }
        }
    }
    bytes
}

#[test]
fn the_rich_file_compiles() {
    let def = answer(RICH.as_bytes()).expect("sound").expect("it compiles");
    assert_eq!(def.steps.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        answer(&bytes)?;
    }

    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,200}") {
        answer(text.as_bytes())?;
    }

    #[test]
    fn any_pieces_get_an_answer(pieces in proptest::collection::vec(piece(), 0..60)) {
        answer(pieces.concat().as_bytes())?;
    }

    #[test]
    fn a_damaged_file_gets_an_answer(damages in proptest::collection::vec(damage(), 1..6)) {
        answer(&damaged(&damages))?;
    }

    /// Stages and needs by chance: it compiles exactly when each need is sound and none closes a circle.
    #[test]
    fn a_file_compiles_when_its_needs_are_sound(
        stages in proptest::collection::vec(1_usize..5, 1..5),
        edges in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>()), 0..12),
    ) {
        let count: usize = stages.iter().sum();
        let stage_of: Vec<usize> = stages.iter().enumerate().flat_map(|(n, size)| vec![n; *size]).collect();
        let mut needs: Vec<Option<std::collections::BTreeSet<usize>>> = vec![None; count];
        for (a, b) in &edges {
            needs[a.index(count)].get_or_insert_default().insert(b.index(count));
        }
        let mut text = "defaults: {image: i, run: r}\nstages:\n".to_owned();
        for (stage, _) in stages.iter().enumerate() {
            text.push_str(&format!("- name: t{stage}\n  steps:\n"));
            for step in (0..count).filter(|step| stage_of[*step] == stage) {
                let needs = needs[step].as_ref().map_or(String::new(), |needs| {
                    let names: Vec<String> = needs.iter().map(|n| format!("s{n}")).collect();
                    format!(", needs: [{}]", names.join(", "))
                });
                text.push_str(&format!("  - {{name: s{step}{needs}}}\n"));
            }
        }
        let explicit = |step: usize| needs[step].iter().flatten().copied();
        let backward = (0..count).any(|step| explicit(step).any(|need| need == step || stage_of[need] > stage_of[step]));
        // Reachability by the explicit needs; the others lead to earlier stages and close no circle.
        let mut reach: Vec<std::collections::BTreeSet<usize>> = (0..count).map(|step| explicit(step).collect()).collect();
        for _ in 0..count {
            for step in 0..count {
                let further: Vec<usize> = reach[step].iter().flat_map(|next| reach[*next].iter().copied()).collect();
                reach[step].extend(further);
            }
        }
        let circle = (0..count).any(|step| reach[step].contains(&step));
        let compiled = answer(text.as_bytes())?;
        prop_assert_eq!(compiled.is_some(), !backward && !circle, "{}", text);
    }
}
