//! Every way in which a sandbox can end, on the real kernel, and that nothing is left of it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod node;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use isolation::{End, KilledBy, LaunchError, Launcher, LauncherError, SandboxSpec, SandboxState};
use node::{Node, is_root};

/// A program for x86-64 of two instructions, put into an upper layer.
fn put_program(spec: &SandboxSpec, name: &str, content: &[u8]) {
    let path = spec.rootfs.upper.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&2u16.to_le_bytes());
    file.extend_from_slice(&machine.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    for number in [0x40_0078_u64, 64, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for number in [64u16, 56, 1, 0, 0, 0] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&5u32.to_le_bytes());
    let size = 120 + code.len() as u64;
    for number in [0, 0x40_0000, 0x40_0000, size, size, 4096] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}

#[test]
fn exit_codes_come_back_as_they_are() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    for code in [0, 1, 2, 77, 126, 127, 128, 137, 143, 254, 255] {
        let spec = node.shell(&format!("code-{code}"), &format!("echo $GREETING; exit {code}"));
        let (record, log) = node.run(&spec);
        assert_eq!(record.end, End::Exited { code });
        assert_eq!(log, "hello\n");
        assert_eq!((record.log_bytes, record.log_truncated), (6, false));
        assert_eq!((record.oom_kills, record.killed_by_us), (0, None));
        let started = record.started_ms.expect("it was executed");
        assert!(started <= record.ended_ms && record.ended_ms - started < 60_000);
    }
}

#[test]
fn a_fatal_signal_is_told_apart_from_an_exit_code() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let spec = node.spec("ud2", &["/crash"]);
    put_program(&spec, "crash", &elf(62, &[0x0f, 0x0b]));
    let (record, _) = node.run(&spec);
    assert_eq!(record.end, End::Signaled { signal: 4 });
    // A child's signal is the shell's exit code.
    let (record, _) = node.run(&node.shell("child", "sh -c 'kill -9 $$'; exit $?"));
    assert_eq!(record.end, End::Exited { code: 137 });
    assert_eq!(record.oom_kills, 0);
}

#[test]
fn out_of_memory_is_counted_whoever_dies_of_it() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let hog = "tail /dev/zero";
    let cases = [
        ("child", format!("{hog}; exit $?"), Some(137)),
        ("main", format!("exec {hog}"), None),
    ];
    for (name, script, code) in cases {
        let mut spec = node.shell(name, &script);
        spec.limits.memory_bytes = 16 << 20;
        let (record, _) = node.run(&spec);
        let expected = code.map_or(End::Signaled { signal: 9 }, |code| End::Exited { code });
        assert_eq!(record.end, expected, "{name}");
        assert!(record.oom_kills > 0, "{name}: {record:?}");
        assert_eq!(record.killed_by_us, None);
        let peak = record.usage.memory_peak_bytes;
        assert!(peak > 8 << 20 && peak <= 16 << 20, "{name}: {peak}");
    }
}

#[test]
fn a_process_that_ignores_sigterm_ends_at_its_time_out() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let script = "trap 'echo asked' TERM; echo up; while true; do sleep 0.05; done";
    let mut spec = node.shell("stubborn", script);
    spec.timeout = Duration::from_millis(400);
    spec.kill_grace = Duration::from_millis(400);
    let (record, log) = node.run(&spec);
    assert_eq!(record.end, End::Signaled { signal: 9 });
    assert_eq!(record.killed_by_us, Some(KilledBy::Timeout));
    assert!(log.starts_with("up\n") && log.contains("asked"), "{log}");
    let took = record.ended_ms - record.started_ms.unwrap();
    assert!((750..5_000).contains(&took), "{took} ms");
}

#[test]
fn a_process_that_heeds_sigterm_ends_with_its_own_code() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let mut spec = node.shell(
        "obedient",
        "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.05; done",
    );
    spec.kill_grace = Duration::from_secs(30);
    node.launcher.launch(&spec).unwrap();
    node.wait_log(&spec, "up");
    node.launcher.stop("obedient", "user cancelled").unwrap();
    node.launcher.stop("obedient", "a second time").unwrap();
    let record = node.wait("obedient");
    assert_eq!(record.end, End::Exited { code: 3 });
    let reason = "user cancelled".to_owned();
    assert_eq!(record.killed_by_us, Some(KilledBy::Stopped { reason }));
    let log = node.log(&spec);
    assert!(log.ends_with("bye\n"), "{log}");
    node.launcher.stop("obedient", "after its end").unwrap();
    node.launcher.stop("never-there", "at all").unwrap();
}

#[test]
fn what_cannot_be_executed_is_told_precisely() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let run = |id: &str, program: &str, file: Option<(&str, &[u8])>| {
        let spec = node.spec(id, &[program, "arg"]);
        if let Some((name, content)) = file {
            put_program(&spec, name, content);
        }
        let (record, log) = node.run(&spec);
        assert_eq!((record.started_ms, log.as_str()), (None, ""), "{id}");
        match record.end {
            End::CommandMissing { command, message } => {
                assert_eq!(command, program);
                message
            }
            other => panic!("{id}: {other:?}"),
        }
    };
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        run("nowhere", "no-such-tool", None),
        format!("not found in PATH ({path})")
    );
    assert_eq!(
        run("absent", "/bin/bash", None),
        "/bin/bash does not exist in the image"
    );
    assert_eq!(
        run("shebang", "/script", Some(("script", b"#!/bin/bash\n"))),
        "/script needs the interpreter \"/bin/bash\", which does not exist in the image"
    );
    let foreign = run("foreign", "/tool", Some(("tool", &elf(183, &[0; 8]))));
    assert!(
        foreign.starts_with("/tool is a program for aarch64, and this node is "),
        "{foreign}"
    );
    assert_eq!(
        run("text", "/tool", Some(("tool", b"echo hello\n"))),
        "/tool is neither a program nor a script that begins with `#!`"
    );
    let folder = run("folder", "/etc", None);
    assert!(folder.starts_with("/etc may not be executed"), "{folder}");
    let own = run("own", "/proc/self/fd/3", None);
    assert!(own.starts_with("/proc/self/fd/3"), "{own}");
}

/// An id, what is changed in a good spec, and how the message begins.
type Misfit<'a> = (&'a str, &'a dyn Fn(&mut SandboxSpec), &'a str);

#[test]
fn a_spec_that_does_not_fit_the_image_is_refused() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let run = |id: &str, change: &dyn Fn(&mut SandboxSpec)| {
        let mut spec = node.shell(id, "true");
        change(&mut spec);
        match node.run(&spec).0.end {
            End::SpecRefused { message } => message,
            other => format!("{other:?}"),
        }
    };
    let cases: [Misfit<'_>; 6] = [
        (
            "user",
            &|spec| spec.user = Some("nobody".into()),
            "the image has no user `nobody`",
        ),
        (
            "group",
            &|spec| spec.user = Some("build:wheel".into()),
            "the image has no group `wheel`",
        ),
        (
            "cwd",
            &|spec| spec.cwd = "/nowhere".into(),
            "the working directory `/nowhere` cannot be entered: no such file",
        ),
        (
            "cwd-file",
            &|spec| spec.cwd = "/etc/passwd".into(),
            "the working directory `/etc/passwd` cannot be entered: not a directory",
        ),
        (
            "cwd-fd",
            &|spec| spec.cwd = "/proc/self/fd/0".into(),
            "the working directory `/proc/self/fd/0` cannot be entered",
        ),
        (
            "passwd-link",
            &|spec| {
                let etc = spec.rootfs.upper.join("etc");
                fs::create_dir(&etc).unwrap();
                std::os::unix::fs::symlink("/proc/self/environ", etc.join("passwd")).unwrap();
                spec.user = Some("root".into());
            },
            "the image has no user `root`",
        ),
    ];
    for (id, change, expected) in cases {
        let message = run(id, change);
        assert!(message.starts_with(expected), "{id}: {message}");
    }
}

#[test]
fn a_node_that_cannot_make_the_sandbox_says_why() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let mut spec = node.shell("no-layer", "true");
    spec.rootfs.lowers.push("/no/such/layer".into());
    match node.run(&spec).0.end {
        End::SandboxFailed { message } => {
            assert!(
                message.starts_with("layer /no/such/layer cannot be opened"),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
    let spec = node.shell("proc-file", "true");
    fs::write(spec.rootfs.upper.join("proc"), "not a folder").unwrap();
    match node.run(&spec).0.end {
        End::SandboxFailed { message } => assert!(message.contains("runtime failed"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_launch_that_is_refused_leaves_nothing() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let mut spec = node.shell("twice", "sleep 30");
    spec.exit_path = "/no/such/folder/exit.json".into();
    assert!(matches!(node.launcher.launch(&spec), Err(LaunchError::Invalid(_))));
    let spec = node.shell("twice", "sleep 30");
    fs::write(&spec.exit_path, "{}").unwrap();
    assert!(matches!(node.launcher.launch(&spec), Err(LaunchError::Invalid(_))));
    fs::remove_file(&spec.exit_path).unwrap();
    fs::create_dir(&spec.log_path).unwrap();
    let error = node.launcher.launch(&spec).unwrap_err();
    assert!(
        error.to_string().contains("opening the log") && error.retry(),
        "{error}"
    );
    assert_eq!(node.launcher.list().unwrap(), []);
    fs::remove_dir(&spec.log_path).unwrap();
    node.launcher.launch(&spec).unwrap();
    assert!(matches!(node.launcher.launch(&spec), Err(LaunchError::Exists { .. })));
    for id in ["", "../up", ".hidden", "a/b", &"x".repeat(65)] {
        let mut spec = spec.clone();
        spec.id = id.to_owned();
        assert!(
            matches!(node.launcher.launch(&spec), Err(LaunchError::Invalid(_))),
            "{id}"
        );
        assert!(node.launcher.remove(id).is_err(), "{id}");
    }
    node.launcher.remove("twice").unwrap();
}

#[test]
fn a_fork_bomb_is_contained_and_removed() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let mut spec = node.shell("bomb", "echo up; bomb() { bomb | bomb & }; bomb; sleep 60");
    spec.limits.pids = 40;
    node.launcher.launch(&spec).unwrap();
    node.wait_log(&spec, "up");
    let cgroup = pids_cgroup(&node, "bomb");
    let number = |file: &str| -> u32 {
        let text = fs::read_to_string(cgroup.join(file)).unwrap();
        text.trim().trim_start_matches("max ").parse().unwrap()
    };
    let until = Instant::now() + node::PATIENCE;
    while number("pids.events") == 0 {
        assert!(Instant::now() < until, "the limit was never reached");
        assert!(number("pids.current") <= 40);
        std::thread::sleep(Duration::from_millis(1));
    }
    node.launcher.stop("bomb", "enough").unwrap();
    let record = node.wait("bomb");
    let reason = "enough".to_owned();
    assert_eq!(record.killed_by_us, Some(KilledBy::Stopped { reason }));
    node.launcher.remove("bomb").unwrap();
}

fn pids_cgroup(node: &Node, id: &str) -> std::path::PathBuf {
    let cgroups = node.cgroups();
    let is_pids = |path: &&std::path::PathBuf| path.ends_with(id) && path.join("pids.current").exists();
    cgroups
        .iter()
        .find(is_pids)
        .unwrap_or_else(|| panic!("{cgroups:?}"))
        .clone()
}

#[test]
fn a_grandchild_that_holds_stdout_does_not_delay_the_end() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let (record, log) = node.run(&node.shell("daemon", "(sleep 3600; echo never) & echo done"));
    assert_eq!(record.end, End::Exited { code: 0 });
    assert_eq!(log, "done\n");
    assert!(record.ended_ms - record.started_ms.unwrap() < 30_000);
}

#[test]
fn removing_a_running_sandbox_kills_it() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let spec = node.shell("busy", "trap '' TERM; sleep 3600 & echo up; sleep 3600");
    node.launcher.launch(&spec).unwrap();
    node.wait_log(&spec, "up");
    assert!(node.traces().processes.len() >= 3, "{:?}", node.traces());
    node.launcher.remove("busy").unwrap();
    node.launcher.remove("busy").unwrap();
    assert_eq!(node.launcher.state("busy").unwrap(), SandboxState::Gone);
    assert_eq!(node.traces().processes, Vec::<String>::new());
}

#[test]
fn a_machine_without_the_shim_is_unfit() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut config = node::config(folder.path());
    config.shim_path = Some("/no/such/shim".into());
    let error = Launcher::new(config).unwrap_err();
    assert!(matches!(error, LauncherError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/shim"), "{error}");
    assert!(
        !folder.path().join("run").exists(),
        "nothing is made before that is known"
    );
    let mut config = node::config(folder.path());
    config.run_dir = "relative".into();
    assert!(matches!(Launcher::new(config), Err(LauncherError::Unfit { .. })));
}

#[test]
fn a_scratch_folder_that_was_used_before_is_refused_with_the_kernels_words() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let spec = node.shell("first", "true");
    node.run(&spec);
    let mut again = node.shell("second", "true");
    again.rootfs = spec.rootfs;
    match node.run(&again).0.end {
        End::SandboxFailed { message } => {
            assert!(
                message.starts_with("overlay cannot be mounted (creating it): "),
                "{message}"
            );
        }
        other => panic!("{other:?}"),
    }
}
