//! `buildflow dev`: one process, one folder.

use crate::image;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

fn dev(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildflow"));
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.join("data"));
    command.arg("--images").arg(folder.join("images")).stdin(Stdio::null());
    command
}

/// A started one; a failed test must not leave it.
pub(crate) struct Dev(Child);

impl Dev {
    fn terminate(&mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        self.0.wait().expect("reaped")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.terminate();
        }
    }
}

/// Starts it and waits until it answers; its address and token are in `<data>/env`.
pub(crate) fn start(folder: &Path) -> Dev {
    let _ = fs::remove_file(folder.join("data/env"));
    let output = fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("dev.txt"))
        .expect("output");
    let mut child = Dev(dev(folder)
        .stdout(output.try_clone().expect("output"))
        .stderr(output)
        .spawn()
        .expect("started"));
    let end = Instant::now() + Duration::from_secs(60);
    while !client(folder, "node list --output json").status.success() {
        assert!(
            child.0.try_wait().expect("waited").is_none(),
            "it ended: {}",
            fs::read_to_string(folder.join("dev.txt")).expect("output")
        );
        assert!(
            Instant::now() < end,
            "not ready: {}",
            fs::read_to_string(folder.join("dev.txt")).expect("output")
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

pub(crate) fn client(folder: &Path, arguments: &str) -> Output {
    let line = format!(
        ". {}/data/env && exec {} {arguments}",
        folder.display(),
        env!("CARGO_BIN_EXE_buildflow")
    );
    Command::new("sh").args(["-c", &line]).output().expect("started")
}

#[test]
fn it_survives_kill_and_a_second_one_on_the_folder_is_refused() {
    if !crate::can_run("it_survives_kill_and_a_second_one_on_the_folder_is_refused") {
        return;
    }
    let folder = tempfile::Builder::new()
        .prefix("buildflow-e2e-dev-")
        .tempdir()
        .expect("folder");
    image::write_layout(&folder.path().join("images/busybox"), &image::busybox_layer());
    let repository = crate::repository::Repository::new(&folder.path().join("repository"));
    repository.commit(&[(
        ".buildflow.yml",
        "stages:\n  - name: one\n    steps:\n      - { name: count, image: \"oci:busybox\", resources: { memory: 64Mi, disk: 16Mi }, run: 'for i in $(seq 1 60); do echo line $i; sleep 0.1; done' }\n",
    )]);

    let mut first = start(folder.path());
    let refused = dev(folder.path()).output().expect("started");
    assert_eq!(refused.status.code(), Some(5), "a second one on the same folder");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("data") && said.contains("use"),
        "it names the folder and why: {said}"
    );

    let created = client(
        folder.path(),
        &format!("pipeline create default/count --repo {}", repository.url()),
    );
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    let submitted = client(folder.path(), "run --pipeline default/count --ref main --output json");
    let run: serde_json::Value = serde_json::from_slice(&submitted.stdout).unwrap_or_else(|_| panic!("{submitted:?}"));
    let id = run["run_id"].as_str().expect("an id").to_owned();
    let end = Instant::now() + Duration::from_secs(60);
    while !String::from_utf8_lossy(&client(folder.path(), &format!("logs {id} count")).stdout).contains("line 5") {
        assert!(Instant::now() < end, "the step does not run");
        std::thread::sleep(Duration::from_millis(50));
    }

    first.0.kill().expect("killed");
    first.0.wait().expect("reaped");
    let mut second = start(folder.path());
    let followed = client(folder.path(), &format!("logs {id} --follow"));
    let text = String::from_utf8_lossy(&followed.stdout).into_owned();
    let lines = text.lines().filter(|l| l.starts_with("count | line ")).count();
    assert_eq!(
        (followed.status.code(), lines),
        (Some(0), 60),
        "{text}{}",
        String::from_utf8_lossy(&followed.stderr)
    );

    assert!(second.terminate().success(), "a clean stop is a success");
    crate::leftovers::expect_no_run_folder(&folder.path().join("data/agent"));
    let mark = folder.path().file_name().expect("named").to_string_lossy().into_owned();
    crate::leftovers::expect_none("mounts and processes", || crate::leftovers::find(&mark));
}
