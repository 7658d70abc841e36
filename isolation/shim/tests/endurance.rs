//! Much output, many at once, and shims or agents that die: the sandbox's end is told all the same.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod node;

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use isolation::{End, KilledBy, SandboxState};
use node::{Node, is_root};

/// How much the memory of a shim may grow while output passes, in KiB: its buffer and the pages of
/// its program which it had not needed before.
const SHIM_GROWTH_KIB_MAX: u64 = 1_500;

fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_line_of_100_mb_is_kept_whole_in_flat_memory() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let script = "echo up; sleep 0.5; head -c 100000000 /dev/zero | tr '\\0' x; echo; sleep 3600";
    let mut spec = node.shell("line", script);
    spec.limits.log_bytes_max = 200_000_000;
    let launched = node.launcher.launch(&spec).unwrap();
    node.wait_log(&spec, "up");
    let before = peak_kib(launched.shim_pid);
    let until = Instant::now() + node::PATIENCE;
    while fs::metadata(&spec.log_path).unwrap().len() < 100_000_004 {
        assert!(Instant::now() < until, "{:?}", fs::metadata(&spec.log_path));
        std::thread::sleep(Duration::from_millis(10));
    }
    let peak = peak_kib(launched.shim_pid);
    eprintln!("resident memory of the shim: {before} KiB, after 100 MB {peak} KiB");
    assert!(peak - before < SHIM_GROWTH_KIB_MAX, "from {before} to {peak} KiB");
    node.launcher.stop("line", "seen enough").unwrap();
    let record = node.wait("line");
    assert_eq!((record.log_bytes, record.log_truncated), (100_000_004, false));
    let log = fs::read(&spec.log_path).unwrap();
    assert!(log.ends_with(b"x\n") && log[3..100_000_003].iter().all(|byte| *byte == b'x'));
    node.launcher.remove("line").unwrap();
}

#[test]
fn a_flood_is_cut_at_the_limit_and_does_not_block_the_step() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let mut spec = node.shell("flood", "yes | head -c 300000000; echo >&2 last; exit 5");
    spec.limits.log_bytes_max = 100_000;
    let (record, log) = node.run(&spec);
    assert_eq!(record.end, End::Exited { code: 5 });
    assert!(record.log_truncated);
    assert_eq!(record.log_bytes, log.len() as u64);
    let marker = "[buildflow] the log ends here: it reached its limit of 100000 bytes; the rest is discarded\n";
    assert_eq!(&log[100_000..], marker);
    assert_eq!(log.matches("buildflow").count(), 1);
}

#[test]
fn output_of_the_last_moment_is_not_lost() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let spec = node.shell("burst", "head -c 900000 /dev/zero | tr '\\0' y");
    let (record, log) = node.run(&spec);
    assert_eq!((record.log_bytes, log.len()), (900_000, 900_000));
}

#[test]
fn a_shim_that_is_killed_takes_its_sandbox_along_and_is_reported() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    for restarted in [false, true] {
        let id = if restarted { "orphan" } else { "known" };
        let spec = node.shell(id, "echo up; trap '' TERM; while true; do sleep 1; done");
        let launched = node.launcher.launch(&spec).unwrap();
        node.wait_log(&spec, "up");
        node.wait_running(id);
        if restarted {
            node.restart();
        }
        let pid = nix::unistd::Pid::from_raw(launched.shim_pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        // The kernel ends the sandbox by itself, even if no agent is there to do it.
        node.wait_quiet();
        let record = node.wait(id);
        assert_eq!((&record.end, record.log_bytes), (&End::ShimDied, 3));
        assert!(record.started_ms.is_some());
        assert_eq!(isolation::ExitRecord::read(&spec.exit_path).unwrap(), Some(record));
        node.launcher.remove(id).unwrap();
        assert_eq!(node.traces().processes, Vec::<String>::new());
    }
}

/// Not a test of its own: the program that `an_agent_may_be_killed` executes as the agent.
#[test]
fn as_the_agent() {
    let Ok(folder) = std::env::var(AGENT_FOLDER) else {
        return;
    };
    let node = std::mem::ManuallyDrop::new(Node::at(folder.into()));
    let script = "trap 'exit 6' TERM; echo up; while true; do echo alive; sleep 0.05; done";
    node.launcher.launch(&node.shell("survivor", script)).unwrap();
    std::thread::sleep(node::PATIENCE);
}

/// Names the folder on which the agent shall work.
const AGENT_FOLDER: &str = "BUILDFLOW_TEST_AGENT_FOLDER";

#[test]
fn an_agent_may_be_killed_with_its_whole_terminal() {
    if !is_root() {
        return;
    }
    use std::os::unix::process::CommandExt as _;
    let mut node = Node::new();
    let mut agent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_the_agent"])
        .env(AGENT_FOLDER, node.folder())
        .process_group(0)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let spec = node.shell("survivor", "");
    node.wait_log(&spec, "alive");
    let group = nix::unistd::Pid::from_raw(agent.id().cast_signed());
    for signal in [nix::sys::signal::Signal::SIGHUP, nix::sys::signal::Signal::SIGKILL] {
        let _ = nix::sys::signal::killpg(group, signal);
    }
    agent.wait().unwrap();
    node.restart();
    let lines = || node.log(&spec).lines().count();
    let (seen, until) = (lines(), Instant::now() + node::PATIENCE);
    while lines() < seen + 3 {
        assert!(Instant::now() < until, "the sandbox stands still");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(
        node.launcher.state("survivor").unwrap(),
        SandboxState::Running { .. }
    ));
    node.launcher.stop("survivor", "found again").unwrap();
    assert_eq!(node.wait("survivor").end, End::Exited { code: 6 });
}

#[test]
fn what_a_lost_bundle_left_is_found_and_not_in_the_way() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let spec = node.shell("lost", "sleep 3600");
    node.launcher.launch(&spec).unwrap();
    node.wait_running("lost");
    let bundle = node.folder().join("run/bundles/lost");
    for entry in fs::read_dir(&bundle).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }
    fs::remove_dir(&bundle).unwrap();
    node.restart();
    assert_eq!(node.launcher.state("lost").unwrap(), SandboxState::Gone);
    let listed = node.launcher.list().unwrap();
    assert_eq!((listed.len(), listed[0].id.as_str()), (1, "lost"));
    assert_eq!((&listed[0].log_path, &listed[0].exit_path), (&None, &None));
    let mut again = node.shell("lost", "exit 2");
    again.rootfs.work = node.folder().join("lost/work-again");
    fs::create_dir(&again.rootfs.work).unwrap();
    again.exit_path = node.folder().join("lost/exit-again.json");
    assert_eq!(node.run(&again).0.end, End::Exited { code: 2 });
}

#[test]
fn a_restarted_agent_finds_what_runs_and_what_ended() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    let long = node.shell("long", "echo up; trap 'exit 9' TERM; while true; do sleep 0.1; done");
    let short = node.shell("short", "exit 4");
    node.launcher.launch(&long).unwrap();
    node.launcher.launch(&short).unwrap();
    node.wait_log(&long, "up");
    node.wait("short");
    node.restart();
    let listed = node.launcher.list().unwrap();
    let ids: Vec<_> = listed.iter().map(|listed| listed.id.as_str()).collect();
    assert_eq!(ids, ["long", "short"]);
    assert_eq!(listed[0].log_path.as_ref(), Some(&long.log_path));
    assert_eq!(listed[0].exit_path.as_ref(), Some(&long.exit_path));
    assert!(matches!(
        node.launcher.state("long").unwrap(),
        SandboxState::Running { .. }
    ));
    assert!(!node.launcher.shutdown_if_idle().unwrap());
    let SandboxState::Ended(record) = node.launcher.state("short").unwrap() else {
        panic!("short has not ended");
    };
    assert_eq!(record.end, End::Exited { code: 4 });
    assert!(node.launcher.shim_pidfd("long").unwrap().unwrap().as_raw_fd() > 0);
    node.launcher.stop("long", "after the restart").unwrap();
    let record = node.wait("long");
    assert_eq!(record.end, End::Exited { code: 9 });
    let reason = "after the restart".to_owned();
    assert_eq!(record.killed_by_us, Some(KilledBy::Stopped { reason }));
}

#[test]
fn eight_at_once_know_nothing_of_each_other() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let node = &node;
            scope.spawn(move || {
                for round in 0..10 {
                    let id = format!("lane-{lane}-{round}");
                    let code = lane * 10 + round;
                    let script = format!("echo {id}; exit {code}");
                    let (record, log) = node.run(&node.shell(&id, &script));
                    assert_eq!(record.end, End::Exited { code }, "{id}");
                    assert_eq!(log, format!("{id}\n"));
                }
            });
        }
    });
}

#[test]
fn nothing_is_left_after_all_kinds_of_ends() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let before = node.traces();
    let specs = [
        node.shell("good", "true"),
        node.shell("bad", "exit 1"),
        node.spec("missing", &["/nope"]),
        node.shell("daemon", "sleep 3600 & sleep 3600 & exit 0"),
        node.shell("running", "sleep 3600"),
    ];
    for spec in &specs {
        node.launcher.launch(spec).unwrap();
    }
    for id in ["good", "bad", "missing", "daemon"] {
        node.wait(id);
    }
    node.wait_running("running");
    assert_ne!(node.traces(), before, "a running sandbox leaves traces");
    for spec in &specs {
        node.launcher.remove(&spec.id).unwrap();
        node.launcher.remove(&spec.id).unwrap();
    }
    assert_eq!(node.traces(), before);
    assert_eq!(node.launcher.list().unwrap(), []);
}

/// Stops every process of a sandbox that is being made, so that the runtime waits for ever.
fn freeze_setup(node: &Node, id: &str, shim: u32) {
    let stop = |pid: i32| {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP);
    };
    let until = Instant::now() + node::PATIENCE;
    while matches!(node.launcher.state(id).unwrap(), SandboxState::Starting) {
        assert!(Instant::now() < until, "{id} hangs");
        for pids in node.cgroups().iter().filter(|path| path.ends_with(id)) {
            let pids = fs::read_to_string(pids.join("cgroup.procs")).unwrap_or_default();
            let pids = pids.lines().filter_map(|line| line.parse::<i32>().ok());
            pids.filter(|pid| *pid != shim.cast_signed()).for_each(stop);
        }
    }
}

#[test]
fn a_runtime_that_hangs_is_given_up() {
    if !is_root() {
        return;
    }
    let mut node = Node::new();
    node.restart_with(|launcher| launcher.with_setup_patience(Duration::from_millis(700)));
    // The moment may be missed; then the sandbox just ran, and it is tried again.
    for round in 0..50 {
        let id = format!("frozen-{round}");
        let spec = node.shell(&id, "true");
        let launched = node.launcher.launch(&spec).unwrap();
        freeze_setup(&node, &id, launched.shim_pid);
        let record = node.wait(&id);
        node.launcher.remove(&id).unwrap();
        if let End::SandboxFailed { message } = &record.end {
            assert_eq!(message, "making the sandbox took longer than 700ms");
            assert_eq!(record.started_ms, None);
            return;
        }
        assert_eq!(record.end, End::Exited { code: 0 });
    }
    panic!("the fault was never injected");
}

#[test]
fn a_full_disk_does_not_lose_the_end() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let full = node.folder().join("full");
    fs::create_dir(&full).unwrap();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(none, &full, Some("tmpfs"), flags, Some("size=4k")).unwrap();
    fs::write(full.join("ballast"), [0; 4096]).unwrap();
    let mut spec = node.shell("full", "echo lost; exit 3");
    (spec.log_path, spec.exit_path) = (full.join("log"), full.join("exit.json"));
    node.launcher.launch(&spec).unwrap();
    let record = node.wait("full");
    assert_eq!(record.end, End::Exited { code: 3 });
    assert_eq!((record.log_bytes, record.log_truncated), (0, true));
    assert!(!spec.exit_path.exists(), "the disk was not full");
    node.launcher.remove("full").unwrap();
    nix::mount::umount(&full).unwrap();
}

/// Prints how long a launch takes; fails only if it is absurd. Compare optimised builds.
#[test]
fn a_launch_takes_milliseconds() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let (mut returned, mut executed, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..30 {
        let spec = node.shell(&format!("launch-{round}"), "true");
        let (before, before_ms) = (Instant::now(), isolation::handover::now_ms());
        node.launcher.launch(&spec).unwrap();
        returned.push(before.elapsed());
        let record = node.wait(&spec.id);
        ended.push(before.elapsed());
        let first = record.started_ms.unwrap().saturating_sub(before_ms);
        executed.push(Duration::from_millis(first));
        node.launcher.remove(&spec.id).unwrap();
    }
    for (what, times) in [
        ("launch returned", &mut returned),
        ("program executed", &mut executed),
        ("end seen", &mut ended),
    ] {
        times.sort();
        eprintln!("{what}: median {:?}, worst {:?}", times[15], times[29]);
    }
    assert!(executed[15] < Duration::from_secs(1), "{executed:?}");
}
