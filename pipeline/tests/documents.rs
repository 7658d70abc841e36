//! What the pages for those who come from elsewhere show is true: our blocks compile for every event that
//! they name, and the files of others are refused with our words for theirs.

use pipeline::{Answer, Explain, Files, Git, Limits, Occasion, Refused, Request};
use std::path::Path;

const OURS: &str = "yaml buildflow";
const THEIRS: &str = "yaml";

/// The page, the steps of our pipeline, and words of theirs that our compiler has to explain.
const PAGES: [(&str, &[&str], &[&str]); 3] = [
    (
        "coming-from-github-actions.md",
        &["unit(3.12)", "unit(3.13)", "version", "ship", "tell"],
        &["`jobs` is a word of GitHub"],
    ),
    (
        "coming-from-gitlab-ci.md",
        &[
            "compile",
            "unit(1.89.0)",
            "unit(1.90.0)",
            "lint",
            "version",
            "production",
        ],
        &[
            "`workflow` is a word of GitLab",
            "`variables` is a word of GitLab",
            "`default` is a word of GitLab",
        ],
    ),
    (
        "coming-from-woodpecker.md",
        &["test(1.24)", "test(1.25)", "docs", "release", "tell"],
        &["`when` is a word of Woodpecker"],
    ),
];

/// The fenced blocks of a page with exactly this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if info == language {
            found.push(block.join("\n"));
        }
    }
    found
}

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn occasion(event: &str) -> Occasion {
    Occasion {
        event: event.to_owned(),
        git: Git {
            git_ref: match event {
                "tag" => "refs/tags/v1.0".to_owned(),
                _ => "refs/heads/main".to_owned(),
            },
            sha: "c0ffee00".repeat(5),
            default_branch: "main".to_owned(),
            ..Git::default()
        },
        team: "default".to_owned(),
        pipeline: "app".to_owned(),
        run_id: "01jd".to_owned(),
        ..Occasion::default()
    }
}

fn ask(text: &str, occasion: Option<&Occasion>) -> Result<Answer, Refused> {
    pipeline::answer(&Request {
        bytes: text.as_bytes(),
        limits: Limits::default(),
        files: &Files::new(),
        occasion,
        explain: Explain::Yes,
    })
}

#[test]
fn our_blocks_compile_and_are_explained() {
    for (name, steps, _) in PAGES {
        let blocks = blocks(&page(name), OURS);
        assert_eq!(blocks.len(), 1, "{name}: blocks marked `{OURS}`");
        for event in [None, Some("push"), Some("manual")] {
            let occasion = event.map(occasion);
            let compiled = match ask(&blocks[0], occasion.as_ref()) {
                Ok(Answer::Run(compiled)) => compiled,
                Ok(other) => panic!("{name}: {event:?}: {other:?}"),
                Err(refused) => panic!("{name}: {event:?}:\n{refused}"),
            };
            let names: Vec<&str> = compiled.def.steps.iter().map(|step| step.name.as_str()).collect();
            assert_eq!(names, steps, "{name}: {event:?}");
            let explained = &compiled.explained;
            assert!(
                event.is_none() || (!explained.is_empty() && explained.iter().all(|e| !e.value.is_empty())),
                "{name}: {event:?}: {explained:?}"
            );
        }
    }
}

#[test]
fn the_files_of_others_are_refused_with_our_words() {
    for (name, _, words) in PAGES {
        let blocks = blocks(&page(name), THEIRS);
        assert_eq!(blocks.len(), 1, "{name}: blocks marked `{THEIRS}`");
        let Err(Refused::File(findings)) = ask(&blocks[0], None) else {
            panic!("{name}: a file of another system was taken");
        };
        for word in words {
            let finding = findings.list.iter().find(|finding| finding.message.contains(word));
            assert!(
                finding.is_some_and(|f| f.help.is_some()),
                "{name}: {word}:\n{findings:?}"
            );
        }
    }
}
