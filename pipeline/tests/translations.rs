//! Pipelines of well-known projects, written anew in our language, keep compiling; and whatever is
//! cut out of them or put into them is answered without a crash, in bounded time.

use pipeline::{Answer, Explain, Files, Git, Limits, Occasion, PullRequest, Refused, Request};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

const FILES: [(&str, &str); 14] = [
    ("buildkite-agent", include_str!("translations/buildkite-agent.yml")),
    ("express", include_str!("translations/express.yml")),
    ("fastapi", include_str!("translations/fastapi.yml")),
    ("flask", include_str!("translations/flask.yml")),
    ("gitea", include_str!("translations/gitea.yml")),
    ("github-cli", include_str!("translations/github-cli.yml")),
    ("glib", include_str!("translations/glib.yml")),
    ("lemmy", include_str!("translations/lemmy.yml")),
    ("node-exporter", include_str!("translations/node-exporter.yml")),
    ("redis", include_str!("translations/redis.yml")),
    ("ripgrep", include_str!("translations/ripgrep.yml")),
    ("serde", include_str!("translations/serde.yml")),
    ("wireshark", include_str!("translations/wireshark.yml")),
    ("woodpecker", include_str!("translations/woodpecker.yml")),
];

fn occasion(event: &str, git_ref: &str) -> Occasion {
    Occasion {
        event: event.to_owned(),
        git: Git {
            git_ref: git_ref.to_owned(),
            sha: "c0ffee00".repeat(5),
            author: "Ada <ada@example.org>".to_owned(),
            message: "mend it".to_owned(),
            default_branch: "main".to_owned(),
            pull_request: (event == "pull_request").then(|| PullRequest {
                number: 7,
                base: "main".to_owned(),
                labels: Vec::new(),
                fork: false,
            }),
        },
        team: "default".to_owned(),
        pipeline: "app".to_owned(),
        run_id: "01jd".to_owned(),
        ..Occasion::default()
    }
}

fn occasions() -> Vec<Occasion> {
    vec![
        occasion("push", "refs/heads/main"),
        occasion("push", "refs/heads/master"),
        occasion("tag", "refs/tags/1.0"),
        occasion("manual", "refs/heads/topic"),
        occasion("schedule", "refs/heads/main"),
        occasion("pull_request", "refs/pull/7/head"),
        Occasion {
            changed: Some(vec!["docs/index.md".to_owned(), "README.md".to_owned()]),
            ..occasion("push", "refs/heads/main")
        },
    ]
}

fn ask(bytes: &[u8], occasion: Option<&Occasion>) -> Result<Answer, Refused> {
    pipeline::answer(&Request {
        bytes,
        limits: Limits::default(),
        files: &Files::new(),
        occasion,
        explain: Explain::Yes,
    })
}

/// Processor time of this thread: neighbours do not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
}

#[test]
fn each_compiles_for_every_event() {
    let mut wrong = Vec::new();
    for (name, text) in FILES {
        let mut steps = BTreeSet::new();
        for occasion in std::iter::once(None).chain(occasions().iter().map(Some)) {
            let event = occasion.map_or("none", |o| o.event.as_str());
            match ask(text.as_bytes(), occasion) {
                Ok(Answer::Run(compiled)) => {
                    steps.insert(compiled.def.steps.len());
                    if occasion.is_none() {
                        let tree = pipeline::plan_tree(&compiled.def, &compiled.open);
                        assert!(tree.lines().count() > compiled.def.steps.len(), "{name}\n{tree}");
                    }
                }
                Ok(Answer::Nothing(_)) => assert!(!matches!(event, "none" | "manual"), "{name}: {event}"),
                Ok(other) => panic!("{name}: {event}: {other:?}"),
                Err(refused) => {
                    wrong.push(format!("{name}: {event}:\n{refused}"));
                    break;
                }
            }
        }
        assert!(
            steps.len() <= 1,
            "{name}: an event changes conditions, not the steps of a run"
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Debug, Clone)]
enum Change {
    Cut(usize, usize),
    Twice(usize, usize),
    Put(usize, String),
    Bytes(usize, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let words = prop_oneof![
        Just("${{ ".to_owned()),
        Just(" }}".to_owned()),
        Just("needs['x'].outputs.y".to_owned()),
        Just("[[[{{{".to_owned()),
        Just("'".to_owned()),
        Just("\"".to_owned()),
        Just("matrix: {a: [1, 2], exclude: [{a: 1}]}\n".to_owned()),
        Just("if: \"(((!!-1\"\n".to_owned()),
        Just("&a *a".to_owned()),
        Just("<<: ".to_owned()),
        "\\PC{0,20}",
    ];
    let at = 0..4_000usize;
    prop_oneof![
        (at.clone(), 0..200usize).prop_map(|(at, n)| Change::Cut(at, n)),
        (at.clone(), 0..400usize).prop_map(|(at, n)| Change::Twice(at, n)),
        (at.clone(), words).prop_map(|(at, word)| Change::Put(at, word)),
        (at, proptest::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Bytes(at, bytes)),
    ]
}

fn changed(text: &str, changes: Vec<Change>) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for change in changes {
        let bound = |at: usize| at % (bytes.len() + 1);
        match change {
            Change::Cut(at, n) => {
                let at = bound(at);
                bytes.drain(at..(at + n).min(bytes.len()));
            }
            Change::Twice(at, n) => {
                let at = bound(at);
                let part = bytes[at..(at + n).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            Change::Put(at, word) => {
                let at = bound(at);
                bytes.splice(at..at, word.into_bytes());
            }
            Change::Bytes(at, put) => {
                let at = bound(at);
                bytes.splice(at..at, put);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_changed_in_them_is_answered(
        file in 0..FILES.len(),
        when in 0..8usize,
        changes in proptest::collection::vec(change(), 1..5),
    ) {
        let bytes = changed(FILES[file].1, changes);
        let occasions = occasions();
        let before = processor_time();
        let answer = ask(&bytes, occasions.get(when));
        prop_assert!(processor_time() - before < Duration::from_secs(1));
        if let Err(Refused::File(findings)) = answer {
            prop_assert!(!findings.list.is_empty() && findings.list.len() <= pipeline::FINDINGS_MAX);
            prop_assert!(findings.list.iter().all(|f| f.line > 0 && f.column > 0));
        }
    }
}
