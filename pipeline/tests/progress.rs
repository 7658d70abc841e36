//! Where a run stands, as data; and what must hold for every run and every history of it.

use model::{
    Checkout, Entry, Event, Fence, Resources, RunDef, RunError, RunHeader, RunStatus, Shell, Source, StageDef,
};
use model::{StepDef, StepRecord, StepStatus};
use pipeline::progress::{Progress, Records, ready_steps, run_status, step_statuses, to_skip};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn step(ordinal: usize, needs: &[usize], allow_failure: bool) -> StepDef {
    StepDef {
        name: format!("s{ordinal}").parse().expect("legal"),
        title: None,
        stage: 0,
        needs: needs.to_vec(),
        image: "x".to_owned(),
        before: vec![],
        run: vec![Entry {
            name: None,
            run: "y".to_owned(),
        }],
        after: vec![],
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: Some(Checkout::default()),
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 1_000,
        allow_failure,
        resources: Resources::default(),
        pids: 1,
        shm_bytes: 0,
        labels: BTreeMap::new(),
        retry: model::Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    }
}

fn run_of(steps: Vec<StepDef>) -> RunDef {
    RunDef {
        name: None,
        title: None,
        stages: vec![StageDef {
            name: "s".parse().expect("legal"),
        }],
        steps,
        rules: model::RunRules::default(),
    }
}

fn header(error: Option<RunError>) -> RunHeader {
    RunHeader {
        id: "01jd".parse().expect("legal"),
        team: "default".parse().expect("legal"),
        pipeline: "p".parse().expect("legal"),
        number: 1,
        attempt: 1,
        source: Source {
            repository: String::new(),
            git_ref: "refs/heads/main".to_owned(),
            commit: String::new(),
            message: String::new(),
            author: String::new(),
            event: Event::Push,
        },
        variables: BTreeMap::new(),
        inputs: std::collections::BTreeMap::new(),
        created_ms: 0,
        def_chunks: 1,
        steps: 0,
        error,
        request_id: String::new(),
        requested_by: String::new(),
        traceparent: None,
        unknown: model::record::Unknown::new(),
    }
}

fn record(status: StepStatus) -> StepRecord {
    let mut record = StepRecord::first(status);
    if !matches!(status, StepStatus::Skipped | StepStatus::Pending) {
        record.attempt = 1;
        record.fence = Fence { epoch: 1, counter: 1 };
    }
    record
}

/// The status of a letter: `-` none, `p`ending, `q`ueued, `a`ssigned, `r`unning, `s`uccess,
/// `f`ailed, `c`ancelled, `t`imed out, s`k`ipped.
fn status(letter: char) -> Option<StepStatus> {
    Some(match letter {
        'p' => StepStatus::Pending,
        'q' => StepStatus::Queued,
        'a' => StepStatus::Assigned,
        'r' => StepStatus::Running,
        's' => StepStatus::Success,
        'f' => StepStatus::Failed,
        'c' => StepStatus::Cancelled,
        't' => StepStatus::TimedOut,
        'k' => StepStatus::Skipped,
        '-' => return None,
        other => panic!("{other}"),
    })
}

fn letter(of: StepStatus) -> char {
    "pqarsfctk"
        .chars()
        .find(|c| status(*c) == Some(of))
        .expect("every status has a letter")
}

fn records(letters: &str) -> Records {
    let each = letters.chars().enumerate();
    each.filter_map(|(n, c)| Some((n, record(status(c)?)))).collect()
}

/// Steps `needs` (`!` before the list: `allow_failure`), their records as letters; the statuses as
/// letters, the skips as `step: reason`, and the run's status.
#[track_caller]
fn check(needs: &[&str], letters: &str, statuses: &str, skips: &[&str], run: RunStatus) {
    let steps = needs.iter().enumerate().map(|(n, text)| {
        let list = text.trim_start_matches('!');
        let needs: Vec<usize> = list
            .split_whitespace()
            .map(|n| n.parse().expect("an ordinal"))
            .collect();
        step(n, &needs, text.starts_with('!'))
    });
    let def = run_of(steps.collect());
    let records = records(letters);
    let found: String = step_statuses(&header(None), &def, &records)
        .into_iter()
        .map(letter)
        .collect();
    assert_eq!(found, statuses, "statuses of {needs:?} with {letters}");
    let ready: Vec<usize> = statuses
        .chars()
        .enumerate()
        .filter(|(_, c)| *c == 'q')
        .map(|(n, _)| n)
        .collect();
    assert_eq!(
        ready_steps(&header(None), &def, &records),
        ready,
        "ready of {needs:?} with {letters}"
    );
    let skipped: Vec<String> = to_skip(&header(None), &def, &records)
        .iter()
        .map(|s| format!("{}: {}", s.step, s.reason))
        .collect();
    assert_eq!(skipped, skips, "skips of {needs:?} with {letters}");
    assert_eq!(
        run_status(&header(None), &def, &records),
        run,
        "run of {needs:?} with {letters}"
    );
}

#[test]
fn a_step_is_ready_when_all_its_needs_ended_well() {
    use RunStatus::{Queued, Running, Success};
    let line = ["", "0", "1"];
    check(&line, "---", "qpp", &[], Queued);
    check(&line, "a--", "app", &[], Running);
    check(&line, "r--", "rpp", &[], Running);
    check(&line, "s--", "sqp", &[], Running);
    check(&line, "ss-", "ssq", &[], Running);
    check(&line, "sss", "sss", &[], Success);
    let diamond = ["", "0", "0", "1 2"];
    check(&diamond, "----", "qppp", &[], Queued);
    check(&diamond, "s---", "sqqp", &[], Running);
    check(&diamond, "ss--", "ssqp", &[], Running);
    check(&diamond, "sssr", "sssr", &[], Running);
    // A need may stand further down in the file.
    check(&["1", ""], "--", "pq", &[], Queued);
    check(&["1", ""], "-s", "qs", &[], Running);
}

#[test]
fn a_stored_queued_or_pending_is_derived_anew() {
    use RunStatus::{Queued, Running};
    // A node died: the step waits for a place again, and its run has begun.
    check(&["", "0"], "q-", "qp", &[], Running);
    check(&["", "0"], "p-", "qp", &[], Queued);
    check(&["", "0"], "-q", "qp", &[], Running);
    check(&["", "0"], "fq", "fp", &["1: needs `s0`, which failed"], Running);
}

#[test]
fn a_failure_is_handed_down_to_the_end_of_the_chain_at_once() {
    use RunStatus::{Cancelled, Failed, Running, TimedOut};
    let line = ["", "0", "1", "2"];
    check(
        &line,
        "f---",
        "fppp",
        &[
            "1: needs `s0`, which failed",
            "2: needs `s1`, which was skipped because `s0` failed",
            "3: needs `s2`, which was skipped because `s0` failed",
        ],
        Running,
    );
    check(
        &line,
        "tk--",
        "tkpp",
        &[
            "2: needs `s1`, which was skipped because `s0` timed out",
            "3: needs `s2`, which was skipped because `s0` timed out",
        ],
        Running,
    );
    check(&["", "0"], "c-", "cp", &["1: needs `s0`, which was cancelled"], Running);
    check(&line, "fkkk", "fkkk", &[], Failed);
    check(&line, "tkkk", "tkkk", &[], TimedOut);
    check(&line, "cccc", "cccc", &[], Cancelled);
    // One need failed: nothing waits for the other.
    check(
        &["", "", "0 1"],
        "-f-",
        "qfp",
        &["2: needs `s1`, which failed"],
        Running,
    );
    check(
        &["", "", "0 1"],
        "rf-",
        "rfp",
        &["2: needs `s1`, which failed"],
        Running,
    );
    // The first of several is named.
    check(
        &["", "", "0 1"],
        "tf-",
        "tfp",
        &["2: needs `s0`, which timed out"],
        Running,
    );
    // The other branch goes on.
    check(
        &["", "0", "", "2"],
        "f-s-",
        "fpsq",
        &["1: needs `s0`, which failed"],
        Running,
    );
}

#[test]
fn allow_failure_holds_for_failures_of_the_step_itself() {
    use RunStatus::{Cancelled, Failed, Running, Success};
    check(&["!", "0"], "f-", "fq", &[], Running);
    check(&["!", "0"], "t-", "tq", &[], Running);
    check(&["!", "0"], "fs", "fs", &[], Success);
    check(&["!"], "f", "f", &[], Success);
    check(&["!"], "t", "t", &[], Success);
    check(&["!", ""], "ff", "ff", &[], Failed);
    // Not for a cancelled one, and not for the failure of another that it hands down.
    check(
        &["!", "0"],
        "c-",
        "cp",
        &["1: needs `s0`, which was cancelled"],
        Running,
    );
    check(&["!"], "c", "c", &[], Cancelled);
    check(
        &["", "!0", "1"],
        "fk-",
        "fkp",
        &["2: needs `s1`, which was skipped because `s0` failed"],
        Running,
    );
}

#[test]
fn a_step_that_a_rule_skipped_counts_as_satisfied() {
    check(&["", "0"], "k-", "kq", &[], RunStatus::Running);
    check(&["", "0", "1"], "sk-", "skq", &[], RunStatus::Running);
    check(&["", "0"], "kk", "kk", &[], RunStatus::Success);
}

#[test]
fn the_gravest_end_names_the_run() {
    use RunStatus::{Cancelled, Failed, Queued, Running, Success, TimedOut};
    let three = ["", "", ""];
    check(&three, "ccc", "ccc", &[], Cancelled);
    check(&three, "fct", "fct", &[], Cancelled);
    check(&three, "sft", "sft", &[], Failed);
    check(&three, "sts", "sts", &[], TimedOut);
    check(&three, "sks", "sks", &[], Success);
    check(&three, "---", "qqq", &[], Queued);
    check(&three, "--s", "qqs", &[], Running);
    check(&three, "--k", "qqk", &[], Running);
    check(&three, "ffr", "ffr", &[], Running);
}

#[test]
fn a_run_that_never_got_steps_has_failed() {
    let error = RunError {
        message: "no such file".to_owned(),
        findings: vec![],
    };
    let empty = run_of(vec![]);
    assert_eq!(
        run_status(&header(Some(error.clone())), &empty, &Records::new()),
        RunStatus::Failed
    );
    let def = run_of(vec![step(0, &[], false)]);
    assert_eq!(run_status(&header(Some(error)), &def, &records("s")), RunStatus::Failed);
    assert_eq!(run_status(&header(None), &empty, &Records::new()), RunStatus::Failed);
}

#[test]
fn a_damaged_definition_is_answered() {
    // A need that does not exist, a need of itself, a circle: nothing starts, nothing hangs.
    check(&["7"], "-", "p", &[], RunStatus::Queued);
    check(&["0"], "-", "p", &[], RunStatus::Queued);
    check(&["1", "0", "1"], "---", "ppp", &[], RunStatus::Queued);
    // Records of steps that are not in the definition change nothing.
    check(&[""], "-r", "q", &[], RunStatus::Queued);
    check(&[""], "sr", "s", &[], RunStatus::Success);
}

#[test]
fn a_thousand_steps_in_one_line_and_in_one_fan() {
    let line = run_of(
        (0..1_000)
            .map(|n| step(n, &Vec::from_iter(n.checked_sub(1)), false))
            .collect(),
    );
    let progress = Progress::of(&header(None), &line, &records("f"));
    assert_eq!(progress.skips().len(), 999);
    assert_eq!(
        progress.skips()[998].reason,
        "needs `s998`, which was skipped because `s0` failed"
    );
    // Needs that stand further down: the longest way through the definition.
    let back = run_of(
        (0..1_000)
            .map(|n| step(n, &Vec::from_iter((n < 999).then_some(n + 1)), false))
            .collect(),
    );
    assert_eq!(Progress::of(&header(None), &back, &Records::new()).ready(), [999]);
    let all: Vec<usize> = (0..500).collect();
    let fan = run_of(
        (0..1_000)
            .map(|n| step(n, if n < 500 { &[] } else { &all }, false))
            .collect(),
    );
    let progress = Progress::of(&header(None), &fan, &records(&"s".repeat(500)));
    assert_eq!(progress.ready(), (500..1_000).collect::<Vec<_>>());
}

/// A run of up to 30 steps whose needs have lower ordinals, shuffled by a permutation so that they
/// may stand anywhere in the file.
fn any_run() -> impl Strategy<Value = RunDef> {
    (1_usize..30)
        .prop_flat_map(|count| {
            let edges = proptest::collection::vec((0..count, 0..count), 0..3 * count);
            let allow = proptest::collection::vec(proptest::bool::weighted(0.2), count);
            let order = Just((0..count).collect::<Vec<_>>()).prop_shuffle();
            (edges, allow, order)
        })
        .prop_map(|(edges, allow, order)| {
            let mut needs = vec![Vec::new(); allow.len()];
            for (a, b) in edges {
                if a != b {
                    needs[order[a.max(b)]].push(order[a.min(b)]);
                }
            }
            let steps = needs.into_iter().zip(allow).enumerate().map(|(n, (mut needs, allow))| {
                needs.sort_unstable();
                needs.dedup();
                step(n, &needs, allow)
            });
            run_of(steps.collect())
        })
}

/// The plain meaning of the table in `pipeline::progress`, by recursion and without care for time.
fn ended_well(def: &RunDef, records: &Records, step: usize) -> Option<bool> {
    let all_well = || {
        let needs: Vec<Option<bool>> = def.steps[step]
            .needs
            .iter()
            .map(|n| ended_well(def, records, *n))
            .collect();
        !needs.contains(&Some(false))
    };
    match records.get(&step).map(|r| r.status)? {
        StepStatus::Success => Some(true),
        StepStatus::Failed | StepStatus::TimedOut => Some(def.steps[step].allow_failure),
        StepStatus::Cancelled => Some(false),
        StepStatus::Skipped => Some(all_well()),
        StepStatus::Pending | StepStatus::Queued | StepStatus::Assigned | StepStatus::Running => None,
    }
}

proptest! {
    /// Plays a run to its end with endings by chance: nothing starts before its needs ended well,
    /// what is to be skipped has a bad need, and the run comes to an end.
    #[test]
    fn a_run_always_ends_and_no_step_starts_too_early(
        def in any_run(),
        endings in proptest::collection::vec(0_usize..5, 1..60),
        picks in proptest::collection::vec(any::<proptest::sample::Index>(), 60),
    ) {
        let mut records = Records::new();
        let mut endings = endings.iter().cycle();
        let mut picks = picks.iter().cycle();
        for _ in 0..2 * def.steps.len() + 1 {
            let progress = Progress::of(&header(None), &def, &records);
            prop_assert_eq!(progress.statuses().len(), def.steps.len());
            for &ready in progress.ready() {
                for need in &def.steps[ready].needs {
                    prop_assert_eq!(ended_well(&def, &records, *need), Some(true), "{} needs {}", ready, need);
                }
            }
            for skip in progress.skips() {
                let bad = def.steps[skip.step].needs.iter().any(|need| {
                    ended_well(&def, &records, *need) == Some(false)
                        || progress.skips().iter().any(|other| other.step == *need)
                });
                prop_assert!(bad, "{:?} has no bad need", skip);
                prop_assert_eq!(progress.statuses()[skip.step], StepStatus::Pending);
            }
            let live = !progress.ready().is_empty() || !progress.skips().is_empty();
            let status = run_status(&header(None), &def, &records);
            prop_assert_eq!(live, !status.is_terminal(), "{:?}", status);
            if !live {
                break;
            }
            for skip in progress.skips() {
                records.insert(skip.step, record(StepStatus::Skipped));
            }
            if !progress.ready().is_empty() {
                let step = *picks.next().expect("a cycle").get(progress.ready());
                let ends = [StepStatus::Success, StepStatus::Success, StepStatus::Failed, StepStatus::TimedOut, StepStatus::Cancelled];
                records.insert(step, record(ends[*endings.next().expect("a cycle")]));
            }
        }
        prop_assert!(run_status(&header(None), &def, &records).is_terminal());
        // Success means that nothing failed, and the other way round.
        let harmed = def.steps.iter().enumerate().any(|(n, step)| match records[&n].status {
            StepStatus::Cancelled => true,
            StepStatus::Failed | StepStatus::TimedOut => !step.allow_failure,
            _ => false,
        });
        prop_assert_eq!(run_status(&header(None), &def, &records) == RunStatus::Success, !harmed);
    }

    /// Any records, also such as no run could have: an answer, the same again, and a fixed point
    /// once the skips are recorded.
    #[test]
    fn any_records_are_answered(def in any_run(), letters in "[-pqarsfctk]{0,30}") {
        let mut records = records(&letters);
        let progress = Progress::of(&header(None), &def, &records);
        prop_assert_eq!(&progress, &Progress::of(&header(None), &def, &records));
        for (n, status) in progress.statuses().iter().enumerate() {
            if let Some(record) = records.get(&n).filter(|r| !matches!(r.status, StepStatus::Pending | StepStatus::Queued)) {
                prop_assert_eq!(record.status, *status);
            }
        }
        for skip in progress.skips() {
            records.insert(skip.step, record(StepStatus::Skipped));
        }
        let after = Progress::of(&header(None), &def, &records);
        prop_assert_eq!(after.skips(), &[]);
        prop_assert_eq!(after.ready(), progress.ready());
    }
}
