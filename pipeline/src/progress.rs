//! Where a run stands: the status of every step, which may start, which must be skipped, and the
//! run's own status, all derived from the definition and the records of what happened.
//!
//! Not here: who writes a record, where a step is placed, and every clock. The functions may be
//! called again and again: they change nothing, and the same records give the same answer.
//!
//! # What a need asks for
//! A step starts when each step that it needs has **ended well**:
//!
//! | the needed step | counts as |
//! |---|---|
//! | success | ended well |
//! | failed or timed out, with `allow_failure` | ended well |
//! | failed or timed out otherwise | ended badly |
//! | cancelled | ended badly, whatever `allow_failure` says: it was not the step that failed |
//! | skipped, and one of its own needs ended badly | ended badly: a failure is handed down |
//! | skipped otherwise (a rule said so) | ended well |
//!
//! So why a step was skipped need not be stored: its needs say it. `allow_failure` of a skipped
//! step does not stop the failure that is handed down, because the step itself never failed.
//! A step is skipped as soon as one of its needs has ended badly; it does not wait for the others.

use model::{RunDef, RunHeader, RunStatus, StepDef, StepRecord, StepStatus};
use std::collections::BTreeMap;

/// The records of a run by the step's ordinal. A step without a record has seen nothing yet.
pub type Records = BTreeMap<usize, StepRecord>;

/// A step that can never start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Its ordinal.
    pub step: usize,
    /// One plain sentence for [`StepRecord::reason`], e.g. ``needs `compile`, which failed``.
    pub reason: String,
}

/// Everything that can be said of a run's steps, computed in one pass over the definition
/// (linear in steps and needs).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    statuses: Vec<StepStatus>,
    ready: Vec<usize>,
    skips: Vec<Skip>,
}

impl Progress {
    /// Looks at all steps of `def`. Records of ordinals that the definition does not have are
    /// passed over; a definition with a cycle (the compiler makes none) leaves its steps pending.
    #[must_use]
    pub fn of(def: &RunDef, records: &Records) -> Self {
        let judged = judge(&def.steps, records);
        let mut progress = Self {
            statuses: Vec::with_capacity(judged.len()),
            ready: Vec::new(),
            skips: Vec::new(),
        };
        for (step, standing) in judged.iter().enumerate() {
            let recorded = records.get(&step).map(|r| r.status);
            progress.statuses.push(match *standing {
                Standing::Waiting | Standing::Doomed { .. } => StepStatus::Pending,
                Standing::Ready => StepStatus::Queued,
                Standing::Active | Standing::Well | Standing::Badly { .. } => recorded.unwrap_or(StepStatus::Pending),
            });
            match *standing {
                Standing::Ready => progress.ready.push(step),
                Standing::Doomed { need, root } => progress.skips.push(Skip {
                    step,
                    reason: why_skipped(&def.steps, records, need, root),
                }),
                Standing::Waiting | Standing::Active | Standing::Well | Standing::Badly { .. } => {}
            }
        }
        progress
    }

    /// The status of each step, by ordinal. `Pending` and `Queued` are derived from the needs,
    /// also for a step whose record says one of them.
    #[must_use]
    pub fn statuses(&self) -> &[StepStatus] {
        &self.statuses
    }

    /// The steps that could start now, ascending: exactly those whose status is `Queued`.
    #[must_use]
    pub fn ready(&self) -> &[usize] {
        &self.ready
    }

    /// The steps that can never start and are not recorded as skipped yet, ascending. All of a
    /// chain at once: a step behind a skipped step is in the same list.
    #[must_use]
    pub fn skips(&self) -> &[Skip] {
        &self.skips
    }
}

/// [`Progress::statuses`] of a run.
#[must_use]
pub fn step_statuses(def: &RunDef, records: &Records) -> Vec<StepStatus> {
    Progress::of(def, records).statuses
}

/// [`Progress::ready`] of a run.
#[must_use]
pub fn ready_steps(def: &RunDef, records: &Records) -> Vec<usize> {
    Progress::of(def, records).ready
}

/// [`Progress::skips`] of a run.
#[must_use]
pub fn to_skip(def: &RunDef, records: &Records) -> Vec<Skip> {
    Progress::of(def, records).skips
}

/// The run's status.
///
/// - a header with an error: `Failed`; `def` may then be empty;
/// - a step that has not ended: `Queued` while no step has been placed or has ended, else `Running`;
/// - all ended: `Cancelled` if any step was cancelled, else `Failed` if any failed, else `TimedOut`
///   if any did, else `Success`. A step with `allow_failure` counts in neither of the last two.
///
/// A definition without steps and without an error is damaged and says `Failed`.
#[must_use]
pub fn run_status(header: &RunHeader, def: &RunDef, records: &Records) -> RunStatus {
    if header.error.is_some() || def.steps.is_empty() {
        return RunStatus::Failed;
    }
    let ended = |step| records.get(&step).is_some_and(|r: &StepRecord| r.status.is_terminal());
    if !(0..def.steps.len()).all(ended) {
        let begun = records.range(..def.steps.len()).any(|(_, r)| has_begun(r));
        return if begun { RunStatus::Running } else { RunStatus::Queued };
    }
    let any = |status| {
        def.steps.iter().enumerate().any(|(step, def)| {
            records.get(&step).is_some_and(|r| r.status == status)
                && (status == StepStatus::Cancelled || !def.allow_failure)
        })
    };
    if any(StepStatus::Cancelled) {
        RunStatus::Cancelled
    } else if any(StepStatus::Failed) {
        RunStatus::Failed
    } else if any(StepStatus::TimedOut) {
        RunStatus::TimedOut
    } else {
        RunStatus::Success
    }
}

/// True when the step was placed at least once or has ended.
fn has_begun(record: &StepRecord) -> bool {
    record.attempt > 0 || !matches!(record.status, StepStatus::Pending | StepStatus::Queued)
}

/// How a step stands in the eyes of those that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Not started; a need has not ended.
    Waiting,
    /// Not started; every need ended well.
    Ready,
    /// Not started; `need` ended badly, because `root` did.
    Doomed { need: usize, root: usize },
    /// Placed and not ended.
    Active,
    /// Ended well.
    Well,
    /// Ended badly, because `root` did (itself, unless it was skipped).
    Badly { root: usize },
}

impl Standing {
    /// The step whose failure this one hands down, if it does.
    fn root(self) -> Option<usize> {
        match self {
            Self::Doomed { root, .. } | Self::Badly { root } => Some(root),
            Self::Waiting | Self::Ready | Self::Active | Self::Well => None,
        }
    }
}

/// The standing of every step; each is judged after all that it needs, without recursion.
fn judge(steps: &[StepDef], records: &Records) -> Vec<Standing> {
    let mut judged = vec![Standing::Waiting; steps.len()];
    let mut seen = vec![false; steps.len()];
    let mut path: Vec<(usize, usize)> = Vec::new();
    for start in 0..steps.len() {
        if !seen[start] {
            seen[start] = true;
            path.push((start, 0));
        }
        while let Some((step, next)) = path.last_mut() {
            let step = *step;
            if let Some(&need) = steps[step].needs.get(*next) {
                *next += 1;
                if need < steps.len() && !seen[need] {
                    seen[need] = true;
                    path.push((need, 0));
                }
            } else {
                judged[step] = judge_one(step, &steps[step], records.get(&step), &judged);
                path.pop();
            }
        }
    }
    judged
}

/// One step, when all that it needs is judged.
fn judge_one(step: usize, def: &StepDef, record: Option<&StepRecord>, judged: &[Standing]) -> Standing {
    let bad_need = || {
        def.needs
            .iter()
            .find_map(|&need| Some((need, judged.get(need)?.root()?)))
    };
    match record.map_or(StepStatus::Pending, |r| r.status) {
        StepStatus::Success => Standing::Well,
        StepStatus::Failed | StepStatus::TimedOut if def.allow_failure => Standing::Well,
        StepStatus::Failed | StepStatus::TimedOut | StepStatus::Cancelled => Standing::Badly { root: step },
        StepStatus::Skipped => bad_need().map_or(Standing::Well, |(_, root)| Standing::Badly { root }),
        StepStatus::Assigned | StepStatus::Running => Standing::Active,
        StepStatus::Pending | StepStatus::Queued => {
            if let Some((need, root)) = bad_need() {
                Standing::Doomed { need, root }
            } else if def.needs.iter().all(|&need| judged.get(need) == Some(&Standing::Well)) {
                Standing::Ready
            } else {
                Standing::Waiting
            }
        }
    }
}

/// The sentence of a [`Skip`].
fn why_skipped(steps: &[StepDef], records: &Records, need: usize, root: usize) -> String {
    let ending = match records.get(&root).map(|r| r.status) {
        Some(StepStatus::TimedOut) => "timed out",
        Some(StepStatus::Cancelled) => "was cancelled",
        _ => "failed",
    };
    let (need_name, root_name) = (&steps[need].name, &steps[root].name);
    if need == root {
        format!("needs `{need_name}`, which {ending}")
    } else {
        format!("needs `{need_name}`, which was skipped because `{root_name}` {ending}")
    }
}
