//! What happens to a sandbox when its node's lease ends, is extended, or cannot be read.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod node;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use isolation::lease::{Deadline, now_ms};
use isolation::{End, ExitRecord, KilledBy, SandboxSpec, SandboxState};
use node::{Node, is_root};

/// How far from its deadline a sandbox may end on a machine that has time for it.
const PROMISE_MS: u64 = 100;
/// How far on one that is busy with other tests.
const PATIENT_MS: u64 = 5_000;

/// A node whose sandboxes have a lease.
struct Leased {
    node: Node,
    path: PathBuf,
}

impl Leased {
    fn new() -> Leased {
        let node = Node::new();
        let path = node.folder().join("run/lease");
        Leased { node, path }
    }

    /// The lease ends so much later than now; returns when.
    fn extend(&self, ms: u64) -> u64 {
        let at_ms = now_ms() + ms;
        Deadline { at_ms, lease_ms: ms }.write(&self.path).unwrap();
        at_ms
    }

    fn shell(&self, id: &str, script: &str) -> SandboxSpec {
        let mut spec = self.node.shell(id, script);
        spec.lease_path = Some(self.path.clone());
        spec.kill_grace = Duration::from_secs(60);
        spec
    }

    /// Waits for the end and returns the record and how long after `at_ms` it came. The record's
    /// own time is the wall clock's: both clocks are read at the same moment to compare them.
    fn end(&self, id: &str, at_ms: u64) -> (ExitRecord, i64) {
        let record = self.node.wait(id);
        let since_boot = now_ms() - isolation::handover::now_ms().saturating_sub(record.ended_ms);
        let late = since_boot.cast_signed() - at_ms.cast_signed();
        println!("{id}: ended {late} ms after its lease");
        self.node.launcher.remove(id).unwrap();
        (record, late)
    }
}

fn killed_at_its_lease(record: &ExitRecord, late: i64) {
    assert_eq!(record.killed_by_us, Some(KilledBy::Lease), "{record:?}");
    assert!((-20..PATIENT_MS.cast_signed()).contains(&late), "{late} ms late");
}

#[test]
fn without_an_agent_a_sandbox_dies_at_the_lease_s_end() {
    if !is_root() {
        return;
    }
    let mut leased = Leased::new();
    let mut best = i64::MAX;
    // The machine may be busy once; five times it is not.
    for attempt in 0..5 {
        let id = format!("alone{attempt}");
        leased.extend(30_000);
        // It heeds no SIGTERM, and has no need to: none comes.
        let script = "trap 'echo asked' TERM; echo up; sleep 600 & while true; do sleep 0.05; done";
        let spec = leased.shell(&id, script);
        leased.node.launcher.launch(&spec).unwrap();
        leased.node.wait_log(&spec, "up");
        // Longer than a shim sleeps between two looks: it knows it before it passes.
        let at_ms = leased.extend(6_000);
        // Nobody follows it: the launcher that knew it is gone.
        leased.node.restart();
        let (record, late) = leased.end(&id, at_ms);
        killed_at_its_lease(&record, late);
        assert_eq!(record.end, End::Signaled { signal: 9 });
        assert_eq!(leased.node.log(&spec), "up\n", "there is no grace");
        best = best.min(late.abs());
        if best <= PROMISE_MS.cast_signed() {
            break;
        }
    }
    assert!(best <= PROMISE_MS.cast_signed(), "never better than {best} ms");
    leased.node.wait_quiet();
}

#[test]
fn a_sandbox_whose_lease_is_extended_lives_on() {
    if !is_root() {
        return;
    }
    let leased = Leased::new();
    let first = leased.extend(3_000);
    let spec = leased.shell("longer", "echo up; sleep 6; exit 7");
    leased.node.launcher.launch(&spec).unwrap();
    // Extended again and again by an agent that lives, each time before it ends.
    while !matches!(leased.node.launcher.state("longer").unwrap(), SandboxState::Ended(_)) {
        leased.extend(PATIENT_MS);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(now_ms() > first, "it has outlived the first lease");
    let record = leased.node.wait("longer");
    assert_eq!((record.end, record.killed_by_us), (End::Exited { code: 7 }, None));
    leased.node.launcher.remove("longer").unwrap();
}

#[test]
fn a_file_that_is_away_or_damaged_is_no_extension() {
    if !is_root() {
        return;
    }
    let leased = Leased::new();
    let spoil: [(&str, &dyn Fn()); 4] = [
        ("away", &|| fs::remove_file(&leased.path).unwrap()),
        ("empty", &|| fs::write(&leased.path, "").unwrap()),
        ("garbage", &|| {
            fs::write(&leased.path, "99999999999999 for ever\n").unwrap()
        }),
        ("unreadable", &|| {
            fs::remove_file(&leased.path).unwrap();
            fs::create_dir(&leased.path).unwrap();
        }),
    ];
    for (id, spoil) in spoil {
        leased.extend(30_000);
        let spec = leased.shell(id, "echo up; sleep 600");
        leased.node.launcher.launch(&spec).unwrap();
        leased.node.wait_log(&spec, "up");
        // Every shim has read a deadline that is near; then the file is spoilt.
        let at_ms = leased.extend(7_000);
        std::thread::sleep(Duration::from_millis(6_000));
        assert!(now_ms() < at_ms, "the machine is too busy to tell");
        spoil();
        let (record, late) = leased.end(id, at_ms);
        killed_at_its_lease(&record, late);
        let _ = fs::remove_dir(&leased.path);
    }
}

#[test]
fn nothing_is_executed_once_the_lease_has_ended() {
    if !is_root() {
        return;
    }
    let leased = Leased::new();
    let ended = || {
        Deadline {
            at_ms: now_ms(),
            lease_ms: 1,
        }
        .write(&leased.path)
        .unwrap()
    };
    let cases: [(&str, &dyn Fn()); 3] = [
        ("ended", &ended),
        ("never-written", &|| fs::remove_file(&leased.path).unwrap()),
        ("damaged", &|| fs::write(&leased.path, "\n").unwrap()),
    ];
    for (id, make) in cases {
        make();
        let spec = leased.shell(id, "echo ran");
        leased.node.launcher.launch(&spec).unwrap();
        let record = leased.node.wait(id);
        assert_eq!((record.started_ms, record.killed_by_us), (None, Some(KilledBy::Lease)));
        assert!(matches!(record.end, End::SandboxFailed { .. }), "{:?}", record.end);
        assert_eq!(leased.node.log(&spec), "");
        leased.node.launcher.remove(id).unwrap();
    }
}

/// The agent slept between its decision and the launch: what the file says by then is another lease.
#[test]
fn nothing_is_begun_after_the_lease_under_which_it_was_decided() {
    if !is_root() {
        return;
    }
    let leased = Leased::new();
    leased.extend(60_000);
    let mut late = leased.shell("late", "echo began");
    late.begin_before_ms = Some(now_ms().saturating_sub(1));
    leased.node.launcher.launch(&late).unwrap();
    let record = leased.node.wait("late");
    assert_eq!(record.started_ms, None, "{record:?}");
    assert_eq!(record.killed_by_us, Some(KilledBy::Lease), "{record:?}");
    leased.node.launcher.remove("late").unwrap();
    let mut timely = leased.shell("timely", "echo began");
    timely.begin_before_ms = Some(now_ms() + 60_000);
    leased.node.launcher.launch(&timely).unwrap();
    assert_eq!(leased.node.wait("timely").end, End::Exited { code: 0 });
    leased.node.launcher.remove("timely").unwrap();
}

#[test]
fn the_grace_after_sigterm_ends_with_the_lease() {
    if !is_root() {
        return;
    }
    let leased = Leased::new();
    leased.extend(60_000);
    let script = "trap 'echo asked' TERM; echo up; while true; do sleep 0.05; done";
    let spec = leased.shell("grace", script);
    leased.node.launcher.launch(&spec).unwrap();
    leased.node.wait_log(&spec, "up");
    let at_ms = leased.extend(6_500);
    leased.node.launcher.stop("grace", "drained").unwrap();
    leased.node.wait_log(&spec, "asked");
    let (record, late) = leased.end("grace", at_ms);
    assert!(late.abs() < PATIENT_MS.cast_signed(), "{late} ms late");
    assert_eq!(record.end, End::Signaled { signal: 9 });
    let reason = "drained".to_owned();
    assert_eq!(
        record.killed_by_us,
        Some(KilledBy::Stopped { reason }),
        "who was first is named"
    );
}
