//! The guide for newcomers, as it stands: its files are written, its commands are run.

use crate::dev::{client, start};
use crate::image;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const GUIDE: &str = include_str!("../../../docs/first-pipeline.md");

/// A fenced block: what follows the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = GUIDE;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (info, after) = after.split_once('\n').expect("a fence has a line");
        let (text, after) = after.split_once("\n```").expect("a fence is closed");
        blocks.push((info, text));
        rest = after;
    }
    blocks
}

/// Runs a block in the folder that the ones before have left the shell in.
fn shell(folder: &Path, here: &str, text: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_buildflow"));
    let path = format!(
        "{}:{}",
        program.parent().expect("in a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let data = folder.join("data/env");
    let line = format!("set -e; . {}; cd {here}; {text}", data.display());
    Command::new("sh")
        .args(["-c", &line])
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .expect("started")
}

#[test]
fn the_guide_works_as_it_is_written() {
    if !crate::can_run("the_guide_works_as_it_is_written") {
        return;
    }
    let folder = tempfile::Builder::new()
        .prefix("buildflow-e2e-guide-")
        .tempdir()
        .expect("folder");
    image::write_layout(&folder.path().join("images/base"), &image::busybox_layer());
    let _dev = start(folder.path());
    let mut here = ".";
    let mut ran = 0;
    for (info, text) in blocks() {
        match info.split_once(' ').unwrap_or((info, "")) {
            ("sh", "skip") => continue,
            ("sh", expected) => {
                let output = shell(folder.path(), here, text);
                assert_eq!(output.status.success(), expected != "fails", "{text}\n{output:?}");
                here = if folder.path().join("greeter").exists() {
                    "greeter"
                } else {
                    here
                };
                ran += 1;
            }
            ("yaml", name) => fs::write(folder.path().join(here).join(name), text).expect("written"),
            (other, _) => panic!("a block of {other}"),
        }
    }
    assert!(ran >= 6, "{ran} blocks ran");
    let shown = client(folder.path(), "runs --output json");
    let runs: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let ended: Vec<&str> = runs["runs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| run["status"].as_str().expect("a status"))
        .collect();
    assert_eq!(ended.first(), Some(&"failed"), "the newest run: {runs}");
    assert_eq!(ended.last(), Some(&"success"), "the oldest run: {runs}");
}
