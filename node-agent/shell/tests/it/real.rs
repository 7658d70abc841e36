//! The agent with the real launcher, the real shim and containers of busybox. Needs root.

use crate::agents::{alloc, def, order_of};
use crate::fake_material::FakeMaterial;
use crate::fake_server::{Server, TOKEN};
use isolation::{Launcher, LauncherConfig};
use model::{Entry, ObservedState, Outcome, Shell, StartFailure, StepDef};
use node_agent_shell::{AgentConfig, AgentError, run_with};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A node with real containers.
struct RealNode {
    server: Server,
    folder: TempDir,
    material: Arc<FakeMaterial>,
    agent: Option<(JoinHandle<Result<(), AgentError>>, CancellationToken)>,
}

/// Whether containers can be made here. Says so where they cannot.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: containers need root; run `sudo -E cargo test -p node-agent-shell`");
    }
    root
}

/// The shim of this tree, built if it is not there.
fn shim() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "buildflow-shim", "--target-dir"])
        .arg(profile.parent().unwrap())
        .status();
    assert!(built.unwrap().success(), "the shim does not build");
    profile.join("buildflow-shim")
}

fn make_image(root: &Path) {
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    let busybox = Path::new("/bin/busybox");
    std::fs::copy(busybox, root.join("bin/busybox")).expect("these tests need busybox-static");
    let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nbuild:x:1000:1000:b:/tmp:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), passwd).unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nbuild:x:1000:\n").unwrap();
}

impl RealNode {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        make_image(&image);
        let mut node = Self {
            server: Server::start().await,
            material: FakeMaterial::new(image),
            folder,
            agent: None,
        };
        node.start_agent();
        node
    }

    fn start_agent(&mut self) {
        let run_dir = self.folder.path().join("run");
        let launcher = LauncherConfig {
            run_dir: run_dir.clone(),
            shim_path: Some(shim()),
        };
        let servers = vec![self.server.address.clone()];
        let config = AgentConfig::new(servers, TOKEN, self.folder.path().join("data"), run_dir);
        let shutdown = CancellationToken::new();
        let launcher = Arc::new(Launcher::new(launcher).unwrap());
        let run = run_with(config, launcher, self.material.clone(), shutdown.clone());
        self.agent = Some((tokio::spawn(run), shutdown));
    }

    async fn kill_agent(&mut self) {
        let (agent, _) = self.agent.take().unwrap();
        agent.abort();
        assert!(agent.await.unwrap_err().is_cancelled(), "the agent had ended by itself");
    }

    /// Ends the agent; then neither folders nor mounts nor cgroups of it are left.
    async fn end(mut self) {
        let held: Vec<String> = self.server.books().reports.keys().cloned().collect();
        for id in held {
            self.server.forget(&id.parse().unwrap());
        }
        let parts = ["journal", "alloc"].map(|part| self.folder.path().join("data").join(part));
        let until = Instant::now() + Duration::from_secs(30);
        while parts.iter().any(|part| std::fs::read_dir(part).unwrap().count() > 0) {
            assert!(Instant::now() < until, "allocations are left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (agent, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        agent.await.unwrap().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = self.folder.path().to_str().unwrap();
        assert!(!mounts.contains(own), "mounts are left: {mounts}");
        assert_eq!(
            std::fs::read_dir(self.folder.path().join("data/trash"))
                .unwrap()
                .count(),
            0
        );
    }

    fn exit_record(&self, step: usize) -> PathBuf {
        let folder = self.folder.path().join("data/alloc").join(alloc(step, 1).as_str());
        folder.join("exit.json")
    }
}

fn running(script: &str) -> StepDef {
    let entry = |run: &str| Entry {
        name: Some("go".to_owned()),
        run: run.to_owned(),
    };
    StepDef {
        run: vec![entry(script)],
        ..def()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_a_real_step_ends_with_the_node_s_lease_and_is_lost() {
    if !is_root() {
        return;
    }
    const LEASE_MS: u64 = 6_000;
    let mut node = RealNode::start().await;
    node.server.books().lease_ms = LEASE_MS;
    node.server.connected(1).await;
    // The first stream may have been promised more.
    node.server.cut();
    node.server.connected(2).await;
    // Two stubborn ones, of which one is longer than the lease and one is over before.
    let stubborn = running("trap '' TERM; echo up; while true; do sleep 0.1; done");
    node.server.order(&order_of(0, 1, &stubborn));
    node.server.order(&order_of(1, 1, &running("echo up; sleep 1; exit 4")));
    for step in 0..2 {
        node.server.log_holds(&alloc(step, 1), "up").await;
        node.server.reported(&alloc(step, 1), ObservedState::Running).await;
    }
    // Longer than the lease: an agent that lives keeps it.
    tokio::time::sleep(Duration::from_millis(LEASE_MS)).await;
    assert!(!node.exit_record(0).exists(), "it was killed although its agent lived");
    node.kill_agent().await;
    let deadline = isolation::lease::Deadline::read(&node.folder.path().join("run/lease"));
    let at_ms = deadline.unwrap().expect("the agent has written it").at_ms;
    let until = Instant::now() + Duration::from_secs(30);
    while !node.exit_record(0).exists() {
        assert!(Instant::now() < until, "it outlives its lease");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let late = isolation::lease::now_ms().cast_signed() - at_ms.cast_signed();
    println!("the exit record was there {late} ms after the lease's end");
    assert!((-20..10_000).contains(&late), "{late} ms");
    node.start_agent();
    let lost = node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    match lost.outcome {
        Some(Outcome::Lost { message }) => assert!(message.contains("lease"), "{message}"),
        other => panic!("{other:?}"),
    }
    let ended = node.server.reported(&alloc(1, 1), ObservedState::Ended).await;
    assert_eq!(ended.outcome, Some(Outcome::Exited { code: 4 }), "it was over before");
    for step in 0..2 {
        assert!(node.server.whole_log(&alloc(step, 1)).await.ends_with(b"up\n"));
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_steps_outlive_a_killed_agent_with_their_codes_and_logs() {
    if !is_root() {
        return;
    }
    const LONG: usize = 10;
    const SHORT: usize = 10;
    let mut node = RealNode::start().await;
    let lines = "i=0; while [ $i -lt 60 ]; do echo line $i; sleep 0.1; i=$((i+1)); done; exit";
    for step in 0..LONG {
        let script = format!("{lines} {step}");
        node.server.order(&order_of(step, 1, &running(&script)));
    }
    for step in LONG..LONG + SHORT {
        let script = format!("echo begin; sleep 2; echo end; exit {step}");
        node.server.order(&order_of(step, 1, &running(&script)));
    }
    for step in 0..LONG + SHORT {
        let begun = if step < LONG { "line 3\n" } else { "begin\n" };
        node.server.log_holds(&alloc(step, 1), begun).await;
    }
    let ended = |step: usize| {
        node.server.books().reports[alloc(step, 1).as_str()]
            .iter()
            .any(|o| o.state == ObservedState::Ended)
    };
    assert!(
        (0..LONG).all(|step| !ended(step)),
        "they still run when the agent is killed"
    );
    node.kill_agent().await;
    let until = Instant::now() + Duration::from_secs(30);
    while !(LONG..LONG + SHORT).all(|step| node.exit_record(step).exists()) {
        assert!(Instant::now() < until, "the short ones end without an agent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    node.start_agent();
    let whole: String = (0..60).map(|i| format!("line {i}\n")).collect();
    for step in 0..LONG + SHORT {
        let reported = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        assert_eq!(reported.outcome, Some(Outcome::Exited { code: step as i32 }));
        let log = String::from_utf8(node.server.whole_log(&alloc(step, 1)).await).unwrap();
        let expected = if step < LONG { whole.as_str() } else { "begin\nend\n" };
        assert_eq!(log, format!("==> go\n{expected}"));
        assert_eq!(reported.log_bytes, Some(log.len() as u64));
    }
    node.end().await;
}

/// What an outcome must be.
type Judge = Box<dyn Fn(&Outcome) -> bool>;

/// Steps, what becomes of them, and a part of their logs.
fn ends() -> Vec<(StepDef, Judge, &'static str)> {
    let bash = StepDef {
        shell: Shell::Bash,
        ..running("true")
    };
    let late = StepDef {
        timeout_ms: 300,
        ..running("sleep 30")
    };
    let nobody = StepDef {
        user: Some("nobody-here".to_owned()),
        ..running("true")
    };
    let nowhere = StepDef {
        working_directory: "not/there".to_owned(),
        ..running("true")
    };
    let user = StepDef {
        user: Some("build".to_owned()),
        ..running("id -u; pwd; touch here; echo $BUILDFLOW_STEP $CI; test \"$(cat /.buildflow/0000 | wc -l)\" = 1")
    };
    let after = StepDef {
        after: running("echo tidy").run,
        ..running("exit 5")
    };
    let hungry = running("x=12345678; while :; do x=$x$x; done");
    let spec = |outcome: &Outcome| {
        matches!(
            outcome,
            Outcome::StartFailed {
                cause: StartFailure::Spec,
                ..
            }
        )
    };
    vec![
        (
            user,
            Box::new(Outcome::is_success),
            "==> go\n1000\n/workspace\ncompile true\n",
        ),
        (
            after,
            Box::new(|o| *o == Outcome::Exited { code: 5 }),
            "==> go\n==> go\ntidy\n",
        ),
        (
            bash,
            Box::new(|o| matches!(o, Outcome::CommandMissing { .. })),
            "could not start: `bash`",
        ),
        (
            late,
            Box::new(|o| *o == Outcome::TimedOut { timeout_ms: 300 }),
            "==> go\n",
        ),
        (nobody, Box::new(spec), "nobody-here"),
        (nowhere, Box::new(spec), "/workspace/not/there"),
        (
            hungry,
            Box::new(|o| matches!(o, Outcome::OutOfMemory { .. })),
            "==> go\n",
        ),
        (
            running("kill -SEGV $$; sleep 1; kill -KILL -1"),
            Box::new(|o| !o.is_success()),
            "==> go\n",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn real_ends_are_told_apart() {
    if !is_root() {
        return;
    }
    let node = RealNode::start().await;
    let cases = ends();
    for (step, (def, _, _)) in cases.iter().enumerate() {
        node.server.order(&order_of(step, 1, def));
    }
    for (step, (_, judge, part)) in cases.iter().enumerate() {
        let reported = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        let outcome = reported.outcome.unwrap();
        assert!(judge(&outcome), "step {step}: {outcome:?}");
        let log = String::from_utf8(node.server.whole_log(&alloc(step, 1)).await).unwrap();
        assert!(log.contains(part), "step {step}: {log}");
    }
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_step_that_ignores_its_cancellation_is_killed_and_after_still_ran() {
    if !is_root() {
        return;
    }
    let node = RealNode::start().await;
    let id = alloc(0, 1);
    let polite = StepDef {
        after: running("echo tidied").run,
        ..running("echo up; sleep 60")
    };
    node.server.order(&order_of(0, 1, &polite));
    node.server.log_holds(&id, "up\n").await;
    let began = Instant::now();
    node.server.cancel(&id);
    let reported = node.server.reported(&id, ObservedState::Ended).await;
    assert_eq!(reported.outcome, Some(Outcome::Cancelled));
    assert!(began.elapsed() < Duration::from_secs(20));
    node.server.log_holds(&id, "tidied\n").await;
    node.end().await;
}

/// An image may hold whatever it likes where the agent puts a step's scripts and workspace.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_image_has_in_place_of_scripts_and_workspace_is_covered() {
    if !is_root() {
        return;
    }
    type Plant = fn(&Path);
    let plants: [Plant; 4] = [
        |image| symlink("/etc", image.join(".buildflow")).unwrap(),
        |image| symlink("tmp", image.join("workspace")).unwrap(),
        |image| {
            std::fs::create_dir(image.join(".buildflow")).unwrap();
            for name in ["main", "0000", "step"] {
                std::fs::write(image.join(".buildflow").join(name), "echo planted; exit 9\n").unwrap();
            }
        },
        |image| {
            std::fs::write(image.join(".buildflow"), "echo planted").unwrap();
            std::fs::write(image.join("workspace"), "").unwrap();
        },
    ];
    for (case, plant) in plants.into_iter().enumerate() {
        let node = RealNode::start().await;
        let image = node.folder.path().join("image");
        plant(&image);
        let names = |folder: &str| std::fs::read_dir(image.join(folder)).unwrap().count();
        let before = (names("etc"), names("tmp"));
        node.server
            .order(&order_of(0, 1, &running("pwd -P; touch /.buildflow/x x; exit 3")));
        let reported = node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
        assert_eq!(reported.outcome, Some(Outcome::Exited { code: 3 }), "case {case}");
        let log = String::from_utf8(node.server.whole_log(&alloc(0, 1)).await).unwrap();
        assert_eq!(log, "==> go\n/workspace\n", "case {case}");
        assert_eq!((names("etc"), names("tmp")), before, "case {case}");
        node.end().await;
    }
}
