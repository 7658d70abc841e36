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
//! | skipped because nobody started it (`manual`) | ended badly, but not as a failure |
//! | skipped otherwise (a rule said so) | ended well |
//!
//! So why a step was skipped need not be stored: its needs and its rules say it. `allow_failure` of a
//! skipped step does not stop the failure that is handed down, because the step itself never failed.
//! A step is skipped as soon as one of its needs has ended badly; it does not wait for the others.
//!
//! # What a step asks for besides
//! - Its **condition** is asked when its needs have ended well; one that asks how they have ended, when
//!   they have ended at all. False: it is skipped. No value: it fails.
//! - A **manual** step is offered then, and starts when a person says so: its record then says `queued`
//!   without an attempt. When nothing else can happen in the run, it is skipped.
//! - Of the **cells** of a matrix only so many start as may run at the same time; and once one has failed,
//!   those of a `fail_fast` matrix that have not started are skipped.

use crate::late::{Ends, may_start};
use model::{RunDef, RunHeader, RunStatus, StepDef, StepRecord, StepStatus};
use std::collections::BTreeMap;

/// The records of a run by the step's ordinal. A step without a record has seen nothing yet.
pub type Records = BTreeMap<usize, StepRecord>;

/// What the rules of steps have answered before. An answer never changes, because needs that have
/// ended do not; so it may be kept as long as the run's attempt lasts.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Answers(BTreeMap<usize, Result<bool, String>>);

/// Without what is remembered: two that look at the same run are the same, whoever looked before.
impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

/// A step that can never start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Its ordinal.
    pub step: usize,
    /// What it ends as: skipped, or failed when its own rules have no value.
    pub status: StepStatus,
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
    offered: Vec<usize>,
    held: Vec<usize>,
    stops: Vec<usize>,
}

impl Progress {
    /// Looks at all steps of `def`. Records of ordinals that the definition does not have are
    /// passed over; a definition with a cycle (the compiler makes none) leaves its steps pending.
    #[must_use]
    pub fn of(header: &RunHeader, def: &RunDef, records: &Records) -> Self {
        Self::remembering(header, def, records, &mut Answers::default())
    }

    /// The same; what the rules of a step have answered once is not asked again.
    #[must_use]
    pub fn remembering(header: &RunHeader, def: &RunDef, records: &Records, answers: &mut Answers) -> Self {
        let mut judgement = Judgement {
            header,
            def,
            records,
            answers,
            standings: vec![Standing::Waiting; def.steps.len()],
        };
        judgement.judge();
        let stops = judgement.judge_cells();
        judgement.end_offers();
        let standings = judgement.standings;
        let all = |wanted: Standing| -> Vec<usize> {
            let found = standings
                .iter()
                .enumerate()
                .filter(|(_, standing)| **standing == wanted);
            found.map(|(step, _)| step).collect()
        };
        let status = |(step, standing): (usize, &Standing)| match standing {
            Standing::Ready => StepStatus::Queued,
            Standing::Active | Standing::Well | Standing::Badly { .. } => {
                records.get(&step).map_or(StepStatus::Pending, |record| record.status)
            }
            _ => StepStatus::Pending,
        };
        let skips = standings.iter().enumerate();
        let skips = skips.filter_map(|(step, standing)| skip(def, records, answers, step, *standing));
        Self {
            statuses: standings.iter().enumerate().map(status).collect(),
            ready: all(Standing::Ready),
            skips: skips.collect(),
            offered: all(Standing::Offered),
            held: all(Standing::Held),
            stops,
        }
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

    /// The steps that can never start and whose end is not recorded yet, ascending. All of a
    /// chain at once: a step behind a skipped step is in the same list.
    #[must_use]
    pub fn skips(&self) -> &[Skip] {
        &self.skips
    }

    /// The steps that a person may start, ascending.
    #[must_use]
    pub fn offered(&self) -> &[usize] {
        &self.offered
    }

    /// The cells that could start, were it not for those of their matrix that run, ascending.
    #[must_use]
    pub fn held(&self) -> &[usize] {
        &self.held
    }

    /// The cells that are placed and have to end because another one has failed, ascending.
    #[must_use]
    pub fn stops(&self) -> &[usize] {
        &self.stops
    }
}

/// [`Progress::statuses`] of a run.
#[must_use]
pub fn step_statuses(header: &RunHeader, def: &RunDef, records: &Records) -> Vec<StepStatus> {
    Progress::of(header, def, records).statuses
}

/// [`Progress::ready`] of a run.
#[must_use]
pub fn ready_steps(header: &RunHeader, def: &RunDef, records: &Records) -> Vec<usize> {
    Progress::of(header, def, records).ready
}

/// [`Progress::skips`] of a run.
#[must_use]
pub fn to_skip(header: &RunHeader, def: &RunDef, records: &Records) -> Vec<Skip> {
    Progress::of(header, def, records).skips
}

/// The run's status.
///
/// - a header with an error: `Failed`; `def` may then be empty;
/// - a step that has not ended: `Queued` while no step has been placed or has ended, else `Running`;
/// - all ended: `Cancelled` if any step was cancelled, else `Failed` if any failed, else `TimedOut`
///   if any did, else `Success`. A step with `allow_failure` counts in neither of the last two. A cell
///   that was ended because another one had failed is no cancellation.
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
    let failed_first = failed_matrices(def, records);
    let any = |status| {
        def.steps.iter().enumerate().any(|(step, def)| {
            records.get(&step).is_some_and(|r| r.status == status)
                && (status == StepStatus::Cancelled || !def.allow_failure)
        })
    };
    let cancelled = |(step, def): (usize, &StepDef)| {
        let ended_by_another = def
            .rules
            .matrix
            .is_some_and(|matrix| failed_first.contains_key(&matrix));
        records.get(&step).is_some_and(|r| r.status == StepStatus::Cancelled) && !ended_by_another
    };
    if def.steps.iter().enumerate().any(cancelled) {
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
    /// Not started; nothing is in its way.
    Ready,
    /// Not started; too many cells of its matrix run.
    Held,
    /// Not started; a person has to say so.
    Offered,
    /// Not started; `need` ended badly, because `root` did.
    Doomed { need: usize, root: usize },
    /// Not started; its own rules say no.
    Ruled,
    /// Not started; its own rules have no value.
    Broken,
    /// Not started; another cell of its matrix has failed.
    FailedFast { other: usize },
    /// Not started; nobody has, and nothing else can happen.
    Unstarted,
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
            _ => None,
        }
    }

    fn has_ended(self) -> bool {
        matches!(self, Self::Well | Self::Badly { .. })
    }
}

/// The failed cell of each `fail_fast` matrix in which one has failed, by the matrix.
fn failed_matrices(def: &RunDef, records: &Records) -> BTreeMap<usize, usize> {
    let mut failed = BTreeMap::new();
    if def.rules.matrices.iter().any(|matrix| matrix.fail_fast) {
        for (step, cell) in def.steps.iter().enumerate() {
            let matrix = cell
                .rules
                .matrix
                .filter(|m| def.rules.matrices.get(*m).is_some_and(|m| m.fail_fast));
            let status = records.get(&step).map(|record| record.status);
            if let Some(matrix) = matrix
                && matches!(status, Some(StepStatus::Failed | StepStatus::TimedOut))
                && !cell.allow_failure
            {
                failed.entry(matrix).or_insert(step);
            }
        }
    }
    failed
}

/// Judges every step.
struct Judgement<'j> {
    header: &'j RunHeader,
    def: &'j RunDef,
    records: &'j Records,
    answers: &'j mut Answers,
    standings: Vec<Standing>,
}

impl Judgement<'_> {
    /// Each step after all that it needs, without recursion.
    fn judge(&mut self) {
        let steps = &self.def.steps;
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
                    self.standings[step] = self.judge_one(step, &steps[step]);
                    path.pop();
                }
            }
        }
    }

    fn status(&self, step: usize) -> StepStatus {
        self.records
            .get(&step)
            .map_or(StepStatus::Pending, |record| record.status)
    }

    fn bad_need(&self, def: &StepDef) -> Option<(usize, usize)> {
        let mut needs = def.needs.iter();
        needs.find_map(|&need| Some((need, self.standings.get(need)?.root()?)))
    }

    /// One step, when all that it needs is judged.
    fn judge_one(&mut self, step: usize, def: &StepDef) -> Standing {
        match self.status(step) {
            StepStatus::Success => Standing::Well,
            StepStatus::Failed | StepStatus::TimedOut if def.allow_failure => Standing::Well,
            StepStatus::Failed | StepStatus::TimedOut | StepStatus::Cancelled => Standing::Badly { root: step },
            StepStatus::Skipped => self.judge_skipped(step, def),
            StepStatus::Assigned | StepStatus::Running => Standing::Active,
            StepStatus::Pending | StepStatus::Queued => self.judge_unstarted(step, def),
        }
    }

    fn judge_skipped(&mut self, step: usize, def: &StepDef) -> Standing {
        if let Some((_, root)) = self.bad_need(def) {
            return Standing::Badly { root };
        }
        // Nobody has started it, unless its own rules had said no before.
        let unstarted = def.rules.manual && self.answer(step, def) == Ok(true);
        if unstarted || self.failed_cell(step, def).is_some() {
            Standing::Badly { root: step }
        } else {
            Standing::Well
        }
    }

    fn judge_unstarted(&mut self, step: usize, def: &StepDef) -> Standing {
        let condition = def.rules.condition.as_ref();
        let whatever = condition.is_some_and(|condition| condition.whatever_ends);
        if let (false, Some((need, root))) = (whatever, self.bad_need(def)) {
            return Standing::Doomed { need, root };
        }
        let of_need = |need: &usize| self.standings.get(*need).copied().unwrap_or(Standing::Waiting);
        let ended = if whatever {
            def.needs.iter().all(|need| of_need(need).has_ended())
        } else {
            def.needs.iter().all(|need| of_need(need) == Standing::Well)
        };
        if !ended {
            return Standing::Waiting;
        }
        if self.records.get(&step).is_some_and(|record| record.attempt > 0) {
            // It has been asked before its first attempt.
            return Standing::Ready;
        }
        match self.answer(step, def) {
            Ok(true) if def.rules.manual && !self.is_started(step) => Standing::Offered,
            Ok(true) => Standing::Ready,
            Ok(false) => Standing::Ruled,
            Err(_) => Standing::Broken,
        }
    }

    /// A person has started the step.
    fn is_started(&self, step: usize) -> bool {
        self.status(step) == StepStatus::Queued
    }

    fn answer(&mut self, step: usize, def: &StepDef) -> Result<bool, String> {
        let rules = &def.rules;
        if rules.condition.is_none() && rules.late_env.is_empty() && rules.entry_conditions.is_empty() {
            return Ok(true);
        }
        if let Some(answer) = self.answers.0.get(&step) {
            return answer.clone();
        }
        let of_need = |need: &usize| self.standings.get(*need).copied().unwrap_or(Standing::Waiting);
        let failed = |need: &usize| {
            let root = of_need(need).root();
            root.is_some_and(|root| self.status(root) != StepStatus::Skipped)
        };
        let ends = Ends {
            well: def.needs.iter().all(|need| of_need(need) == Standing::Well),
            failed: def.needs.iter().any(failed),
        };
        let answer = may_start(self.header, self.def, def, self.records, ends);
        self.answers.0.insert(step, answer.clone());
        answer
    }

    /// The cell whose failure ends this one.
    fn failed_cell(&self, step: usize, def: &StepDef) -> Option<usize> {
        let matrix = def.rules.matrix?;
        let fail_fast = self.def.rules.matrices.get(matrix)?.fail_fast;
        let cells = self.def.steps.iter().enumerate();
        let mut others = cells.filter(|(other, cell)| *other != step && cell.rules.matrix == Some(matrix));
        let failed = |(other, cell): &(usize, &StepDef)| {
            matches!(self.status(*other), StepStatus::Failed | StepStatus::TimedOut) && !cell.allow_failure
        };
        fail_fast.then(|| others.find(failed).map(|(other, _)| other)).flatten()
    }

    /// Cells that wait for others of their matrix, or never start because one has failed. Answers
    /// those that have to be stopped.
    fn judge_cells(&mut self) -> Vec<usize> {
        if self.def.rules.matrices.is_empty() {
            return Vec::new();
        }
        let failed = failed_matrices(self.def, self.records);
        let mut cells_of = vec![Vec::new(); self.def.rules.matrices.len()];
        for (step, cell) in self.def.steps.iter().enumerate() {
            if let Some(cells) = cell.rules.matrix.and_then(|matrix| cells_of.get_mut(matrix)) {
                cells.push(step);
            }
        }
        let mut stops = Vec::new();
        for (matrix, (rules, cells)) in self.def.rules.matrices.iter().zip(cells_of).enumerate() {
            if let Some(other) = failed.get(&matrix) {
                for cell in cells {
                    match self.standings[cell] {
                        Standing::Waiting | Standing::Ready | Standing::Offered => {
                            self.standings[cell] = Standing::FailedFast { other: *other };
                        }
                        Standing::Active => stops.push(cell),
                        _ => {}
                    }
                }
            } else if let Some(most) = rules.max_parallel {
                self.hold_cells(&cells, most as usize);
            }
        }
        stops
    }

    /// Lets only so many cells run; one that has begun before goes before one that has not.
    fn hold_cells(&mut self, cells: &[usize], most: usize) {
        let active = cells
            .iter()
            .filter(|cell| self.standings[**cell] == Standing::Active)
            .count();
        let mut ready: Vec<usize> = cells
            .iter()
            .copied()
            .filter(|cell| self.standings[*cell] == Standing::Ready)
            .collect();
        let attempts = |cell: &usize| self.records.get(cell).map_or(0, |record| record.attempt);
        ready.sort_by_key(|cell| attempts(cell) == 0);
        for cell in ready.into_iter().skip(most.saturating_sub(active)) {
            self.standings[cell] = Standing::Held;
        }
    }

    /// When all that has not ended waits for somebody to start a step, nobody is waited for.
    fn end_offers(&mut self) {
        let idle =
            |standing: &Standing| matches!(standing, Standing::Waiting | Standing::Offered) || standing.has_ended();
        if self.standings.contains(&Standing::Offered) && self.standings.iter().all(idle) {
            for standing in &mut self.standings {
                if *standing == Standing::Offered {
                    *standing = Standing::Unstarted;
                }
            }
        }
    }
}

/// The end of a step that can never start.
fn skip(def: &RunDef, records: &Records, answers: &Answers, step: usize, standing: Standing) -> Option<Skip> {
    let skipped = |reason: String| {
        Some(Skip {
            step,
            status: StepStatus::Skipped,
            reason,
        })
    };
    match standing {
        Standing::Doomed { need, root } => skipped(why_skipped(&def.steps, records, need, root)),
        Standing::Ruled => {
            let condition = def.steps.get(step)?.rules.condition.as_ref();
            skipped(condition.map_or_else(|| "its `if` is false".to_owned(), |condition| condition.skipped.clone()))
        }
        Standing::FailedFast { other } => skipped(format!(
            "another cell of its matrix, `{}`, failed, and `fail_fast` is set",
            def.steps.get(other)?.name
        )),
        Standing::Unstarted => skipped("is started by hand, and nobody did before the run ended".to_owned()),
        Standing::Broken => Some(Skip {
            step,
            status: StepStatus::Failed,
            reason: match answers.0.get(&step) {
                Some(Err(why)) => why.clone(),
                _ => "its rules have no value".to_owned(),
            },
        }),
        Standing::Waiting
        | Standing::Ready
        | Standing::Held
        | Standing::Offered
        | Standing::Active
        | Standing::Well
        | Standing::Badly { .. } => None,
    }
}

/// The sentence of a [`Skip`].
fn why_skipped(steps: &[StepDef], records: &Records, need: usize, root: usize) -> String {
    let ending = match records.get(&root).map(|r| r.status) {
        Some(StepStatus::TimedOut) => "timed out",
        Some(StepStatus::Cancelled) => "was cancelled",
        Some(StepStatus::Skipped) => "was not run",
        _ => "failed",
    };
    let (need_name, root_name) = (&steps[need].name, &steps[root].name);
    if need == root {
        format!("needs `{need_name}`, which {ending}")
    } else {
        format!("needs `{need_name}`, which was skipped because `{root_name}` {ending}")
    }
}
