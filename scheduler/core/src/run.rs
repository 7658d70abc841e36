//! One run as the view knows it: its definition put together from chunks, its steps' records, and
//! what follows from them. A run whose steps have all ended shrinks to a few bytes a step.

use crate::group::{GroupKey, Member, Of};
use crate::queue::Age;
use crate::shape::Shape;
use crate::slot::{Held, Slot};
use model::{DefChunk, Fence, RunDef, RunHeader, RunId, StepRecord, StepStatus};
use pipeline::progress::{Answers, Progress, Records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A run in one of its forms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Run {
    Live(Box<LiveRun>),
    Finished(FinishedRun),
    /// Its header was removed at this revision.
    Gone(u64),
}

/// What is left in memory of a run that has finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinishedRun {
    pub(crate) header_revision: u64,
    pub(crate) steps: Box<[EndedStep]>,
}

/// What is left in memory of a step of a finished run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedStep {
    pub(crate) revision: u64,
    pub(crate) fence: Fence,
    pub(crate) status: StepStatus,
}

/// A run whose steps have not all ended, or of which only parts are known yet.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct LiveRun {
    pub(crate) header: Slot<RunHeader>,
    chunks: BTreeMap<usize, Slot<DefChunk>>,
    pub(crate) definition: Definition,
    /// The revisions of the step records.
    pub(crate) steps: BTreeMap<usize, Slot<()>>,
    /// The step records that can be read.
    pub(crate) records: Records,
    /// What the rules of its steps have answered.
    pub(crate) answers: Answers,
    /// What follows from the definition and the records, as of the last refresh.
    pub(crate) progress: Option<Progress>,
    /// The steps that stand in the queue.
    pub(crate) queued: BTreeSet<usize>,
    /// The steps for which something is proposed and not yet committed.
    pub(crate) busy: BTreeSet<usize>,
    /// Those among them that are about to be placed.
    pub(crate) placing: BTreeSet<usize>,
}

/// A run's definition.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Definition {
    /// The header or a chunk has not arrived.
    #[default]
    Incomplete,
    /// Without what only a node needs.
    Ready { def: RunDef, shapes: Vec<Arc<Shape>> },
    /// It cannot be read: why.
    Damaged(String),
}

impl LiveRun {
    /// A run that is put back after its header was removed at this revision.
    pub(crate) fn after_removal(revision: u64) -> Self {
        let mut run = Self::default();
        run.header.take(Held::Absent, revision);
        run
    }

    pub(crate) fn def(&self) -> Option<(&RunDef, &[Arc<Shape>])> {
        match &self.definition {
            Definition::Ready { def, shapes } => Some((def, shapes)),
            Definition::Incomplete | Definition::Damaged(_) => None,
        }
    }

    /// Takes a chunk of the definition, which is immutable: once it is read, chunks are not kept.
    pub(crate) fn take_chunk(&mut self, chunk: usize, held: Held<DefChunk>, revision: u64) -> bool {
        if self.definition != Definition::Incomplete {
            return false;
        }
        let taken = self.chunks.entry(chunk).or_default().take(held, revision).is_some();
        self.read_definition();
        taken
    }

    /// Takes the header.
    pub(crate) fn take_header(&mut self, held: Held<RunHeader>, revision: u64) -> bool {
        let taken = self.header.take(held, revision).is_some();
        if taken {
            self.read_definition();
        }
        taken
    }

    /// Takes a step's record.
    pub(crate) fn take_step(&mut self, step: usize, held: Held<StepRecord>, revision: u64) -> bool {
        let (mark, record) = match held {
            Held::Present(record) => (Held::Present(()), Some(record)),
            Held::Absent => (Held::Absent, None),
            Held::Malformed => (Held::Malformed, None),
        };
        let taken = self.steps.entry(step).or_default().take(mark, revision).is_some();
        if taken {
            match record {
                Some(record) => self.records.insert(step, record),
                None => {
                    // The run is being taken away or put back: its needs may end anew.
                    self.answers = Answers::default();
                    self.records.remove(&step)
                }
            };
        }
        taken
    }

    /// Forgets that a chunk was removed at this revision; true when nothing at all is known any more.
    pub(crate) fn forget_chunk(&mut self, chunk: usize, revision: u64) -> bool {
        forget(&mut self.chunks, chunk, revision);
        self.knows_nothing()
    }

    /// Forgets that a step's record was removed at this revision; true as above.
    pub(crate) fn forget_step(&mut self, step: usize, revision: u64) -> bool {
        forget(&mut self.steps, step, revision);
        self.knows_nothing()
    }

    fn knows_nothing(&self) -> bool {
        self.header.revision() == 0 && self.steps.is_empty() && self.chunks.is_empty() && self.busy.is_empty()
    }

    /// Until when the step is not to be placed, milliseconds of the Unix epoch.
    pub(crate) fn retry_at_ms(&self, step: usize) -> Option<u64> {
        let record = self.records.get(&step)?;
        record.retry_at_ms.filter(|_| record.status == StepStatus::Queued)
    }

    /// Whether the step still waits for its next attempt at this time.
    pub(crate) fn pauses(&self, step: usize, now_ms: u64) -> bool {
        self.retry_at_ms(step).is_some_and(|at| at > now_ms)
    }

    /// Works out anew what follows from the definition and the records.
    pub(crate) fn judge(&mut self) {
        self.progress = match (&self.definition, self.header.get()) {
            (Definition::Ready { def, .. }, Some(header)) => {
                Some(Progress::remembering(header, def, &self.records, &mut self.answers))
            }
            _ => None,
        };
    }

    /// What the run and its steps are to their groups of concurrency.
    pub(crate) fn memberships(&self) -> BTreeMap<(GroupKey, usize), Member> {
        let mut members = BTreeMap::new();
        let (Some(header), Some((def, _)), Some(progress)) = (self.header.get(), self.def(), &self.progress) else {
            return members;
        };
        let key = |of: Of, name: &str| GroupKey {
            team: header.team.clone(),
            pipeline: header.pipeline.clone(),
            of,
            name: name.to_owned(),
        };
        if let Some(rules) = &def.rules.concurrency {
            let begun = !self.placing.is_empty() || self.records.values().any(|record| record.attempt > 0);
            let member = Member::new(rules, header.number, begun);
            members.insert((key(Of::Runs, &rules.group), 0), member);
        }
        for (step, def) in def.steps.iter().enumerate() {
            let Some(rules) = &def.rules.concurrency else { continue };
            let goes_on = match progress.statuses()[step] {
                StepStatus::Assigned | StepStatus::Running => true,
                StepStatus::Queued => self.placing.contains(&step),
                _ => continue,
            };
            let member = Member::new(rules, header.number, goes_on);
            members.insert((key(Of::Steps, &rules.group), step), member);
        }
        members
    }

    fn read_definition(&mut self) {
        let Some(header) = self.header.get() else { return };
        if self.definition != Definition::Incomplete || header.error.is_some() {
            return;
        }
        let slots: Vec<&Slot<DefChunk>> = (0..header.def_chunks).map_while(|n| self.chunks.get(&n)).collect();
        if slots.len() < header.def_chunks || slots.iter().any(|s| s.is_absent()) {
            return;
        }
        self.definition = match slots
            .iter()
            .map(|s| s.get().cloned())
            .collect::<Option<Vec<DefChunk>>>()
        {
            Some(chunks) => read_chunks(&chunks, header.steps),
            None => Definition::Damaged("a part of its definition cannot be read".to_owned()),
        };
        self.chunks.clear();
    }

    /// A step whose record cannot be read stops the whole run: placing around it could run it twice.
    pub(crate) fn damage(&self) -> Option<String> {
        if let Definition::Damaged(why) = &self.definition {
            return Some(why.clone());
        }
        let damaged = self.steps.iter().find(|(_, slot)| slot.is_malformed());
        damaged.map(|(step, _)| format!("the record of step {step} cannot be read"))
    }

    /// The step's status; `None` when it cannot be told yet.
    pub(crate) fn status(&self, step: usize) -> Option<StepStatus> {
        let recorded = self.records.get(&step).map(|r| r.status);
        let derived = || self.progress.as_ref()?.statuses().get(step).copied();
        recorded
            .filter(|s| !matches!(s, StepStatus::Pending | StepStatus::Queued))
            .or_else(derived)
    }

    /// How many steps the header promises; 0 while it has not arrived.
    pub(crate) fn step_count(&self) -> usize {
        self.header.get().map_or(0, |h| h.steps)
    }

    /// The small form, when every step has ended.
    pub(crate) fn finished(&self) -> Option<FinishedRun> {
        let header = self.header.get()?;
        let count = if header.error.is_some() { 0 } else { header.steps };
        if !self.busy.is_empty() || self.records.len() < count {
            return None;
        }
        let ended = |step| {
            let record = self.records.get(&step).filter(|r| r.status.is_terminal())?;
            Some(EndedStep {
                revision: self.steps.get(&step)?.revision(),
                fence: record.fence,
                status: record.status,
            })
        };
        Some(FinishedRun {
            header_revision: self.header.revision(),
            steps: (0..count).map(ended).collect::<Option<Box<[EndedStep]>>>()?,
        })
    }

    /// Where a step stands in the queue.
    pub(crate) fn age(&self, run: &Arc<RunId>, step: usize) -> Age {
        Age {
            created_ms: self.header.get().map_or(0, |h| h.created_ms),
            run: Arc::clone(run),
            step,
        }
    }

    /// Since when the step has waited for a node: since it came back to the queue or, before its first
    /// attempt, since its needs were satisfied: the newest end among them, or the run's own creation.
    pub(crate) fn ready_since_ms(&self, step: usize) -> u64 {
        let came_back = self
            .records
            .get(&step)
            .filter(|r| r.status == StepStatus::Queued && r.attempt > 0);
        if let Some(since) = came_back.and_then(|r| r.times.queued_ms) {
            return since;
        }
        let created = self.header.get().map_or(0, |h| h.created_ms);
        let needs = self
            .def()
            .and_then(|(def, _)| def.steps.get(step))
            .map(|s| s.needs.as_slice());
        let ends = needs
            .unwrap_or_default()
            .iter()
            .filter_map(|n| self.records.get(n)?.times.ended_ms);
        ends.fold(created, u64::max)
    }
}

fn forget<T>(slots: &mut BTreeMap<usize, Slot<T>>, which: usize, revision: u64) {
    if slots
        .get(&which)
        .is_some_and(|s| s.is_absent() && s.revision() == revision)
    {
        slots.remove(&which);
    }
}

/// Reads and checks a definition, and drops what only a node needs.
fn read_chunks(chunks: &[DefChunk], steps: usize) -> Definition {
    let mut def = match RunDef::from_chunks(chunks) {
        Ok(def) => def,
        Err(cause) => return Definition::Damaged(format!("its definition cannot be read: {cause}")),
    };
    if def.steps.len() != steps {
        let found = def.steps.len();
        return Definition::Damaged(format!("its definition has {found} steps, its header says {steps}"));
    }
    let count = def.steps.len();
    if let Some((step, need)) = bad_need(&def) {
        return Definition::Damaged(format!("step {step} needs step {need} of {count}"));
    }
    let mut known: BTreeSet<Arc<Shape>> = BTreeSet::new();
    let mut shapes = Vec::with_capacity(count);
    for step in &mut def.steps {
        let shape = Shape::of(step);
        let shape = known.get(&shape).cloned().unwrap_or_else(|| Arc::new(shape));
        known.insert(Arc::clone(&shape));
        shapes.push(shape);
        step.before = Vec::new();
        step.run = Vec::new();
        step.after = Vec::new();
        step.env = BTreeMap::new();
        step.image = String::new();
        step.labels = BTreeMap::new();
    }
    Definition::Ready { def, shapes }
}

fn bad_need(def: &RunDef) -> Option<(usize, usize)> {
    let steps = def.steps.iter().enumerate();
    let mut needs = steps.flat_map(|(step, s)| s.needs.iter().map(move |need| (step, *need)));
    needs.find(|(step, need)| need == step || *need >= def.steps.len())
}
