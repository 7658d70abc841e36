//! `run --local`: a folder's pipeline without a server of anybody.

use crate::image;
use crate::repository::Repository;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SMALL: &str = "resources: { memory: 64Mi, disk: 16Mi }";

struct Scene {
    folder: TempDir,
    repository: Repository,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("buildflow-e2e-local-")
            .tempdir()
            .expect("folder");
        image::write_layout(&folder.path().join("images/busybox"), &image::busybox_layer());
        let repository = Repository::new(&folder.path().join("project"));
        Self { folder, repository }
    }

    fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn local(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildflow"));
        command
            .args(["run", "--local", "--images"])
            .arg(self.folder.path().join("images"));
        command.args(arguments).arg(self.project());
        command.env("HOME", self.folder.path()).stdin(Stdio::null());
        // No server of anybody.
        command.env_remove("BUILDFLOW_ADDR").env_remove("BUILDFLOW_TOKEN");
        command
    }

    /// Only what is kept for the next time is left.
    fn expect_nothing_left(&self) {
        let data = self.folder.path().join(".local/share/buildflow/local");
        crate::leftovers::expect_no_run_folder(&data.join("agent"));
        let mark = self
            .folder
            .path()
            .file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned();
        crate::leftovers::expect_none("mounts and processes", || crate::leftovers::find(&mark));
        let kept: Vec<String> = fs::read_dir(&data)
            .expect("its folder")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("run-"))
            .collect();
        assert_eq!(kept, Vec::<String>::new(), "folders of the run");
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("written");
}

#[test]
fn a_folder_runs_with_what_is_not_committed_and_leaves_nothing() {
    if !crate::can_run("a_folder_runs_with_what_is_not_committed_and_leaves_nothing") {
        return;
    }
    let scene = Scene::new();
    scene.repository.commit(&[(
        ".buildflow.yml",
        &format!(
            "on: {{ manual: {{ inputs: {{ who: {{ type: string, default: nobody }} }} }} }}\nstages:\n  - name: one\n    steps:\n      - {{ name: say, image: \"oci:busybox\", {SMALL}, env: {{ WHO: \"${{{{ inputs.who }}}}\" }}, run: 'cat new.txt; echo $WHO $COLOUR $BUILDFLOW_BRANCH; exit $(cat code)' }}\n"
        ),
    ), ("code", "0")]);
    write(&scene.project(), "new.txt", "not committed\n");
    write(scene.folder.path(), "variables", "# of this machine\nCOLOUR=blue\n");
    let before = scene.repository.git(&["status", "--porcelain"]);
    let variables = scene.folder.path().join("variables").display().to_string();

    let ran = scene
        .local(&["--input", "who=Ada", "--env-file", &variables])
        .output()
        .expect("started");
    let (out, said) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert_eq!(ran.status.code(), Some(0), "{out}{said}");
    assert!(
        out.contains("say | not committed\n") && out.contains("say | Ada blue main\n"),
        "{out}"
    );
    assert!(said.contains("1 uncommitted file included"), "{said}");
    assert_eq!(scene.repository.git(&["status", "--porcelain"]), before);
    scene.expect_nothing_left();

    write(&scene.project(), "code", "7");
    let failed = scene.local(&["--output", "json"]).output().expect("started");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let run: serde_json::Value = serde_json::from_slice(&failed.stdout).expect("the run as JSON");
    assert_eq!(run["stages"][0]["steps"][0]["exit_code"], 7, "{run}");
    scene.expect_nothing_left();
}

#[test]
fn an_interrupt_ends_the_run_and_leaves_nothing() {
    if !crate::can_run("an_interrupt_ends_the_run_and_leaves_nothing") {
        return;
    }
    let scene = Scene::new();
    scene.repository.commit(&[(
        ".buildflow.yml",
        &format!("stages:\n  - name: one\n    steps:\n      - {{ name: wait, image: \"oci:busybox\", {SMALL}, run: 'echo it runs; sleep 600' }}\n"),
    )]);
    let mut child = scene
        .local(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut out = child.stdout.take().expect("piped");
    let mut seen = Vec::new();
    let end = Instant::now() + Duration::from_secs(60);
    while !String::from_utf8_lossy(&seen).contains("wait | it runs") {
        assert!(
            Instant::now() < end,
            "it does not run: {}",
            String::from_utf8_lossy(&seen)
        );
        let mut bytes = [0; 1024];
        let count = out.read(&mut bytes).expect("readable");
        assert!(count > 0, "it ended: {:?}", child.wait());
        seen.extend_from_slice(&bytes[..count]);
    }
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("told");
    let ended = child.wait_with_output().expect("reaped");
    assert_eq!(
        ended.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    scene.expect_nothing_left();
}

#[test]
fn a_folder_without_a_pipeline_and_an_invalid_one_are_told() {
    if !crate::can_run("a_folder_without_a_pipeline_and_an_invalid_one_are_told") {
        return;
    }
    let scene = Scene::new();
    let nothing = scene.local(&[]).output().expect("started");
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert_eq!(nothing.status.code(), Some(2), "{said}");
    assert!(said.contains("buildflow init"), "{said}");

    write(&scene.project(), ".buildflow.yml", "jobs: {}\n");
    let invalid = scene.local(&[]).output().expect("started");
    let said = String::from_utf8_lossy(&invalid.stderr);
    assert_ne!(invalid.status.code(), Some(0), "{said}");
    assert!(said.contains("jobs"), "{said}");
    scene.expect_nothing_left();
}
