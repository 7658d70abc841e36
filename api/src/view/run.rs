//! One run in the picture: what the store says of it, what follows from that, and what has changed.
//!
//! Not here: other runs, sending of events, the store. A definition is held while the run goes on;
//! afterwards only what a list shows is kept, and readers of the run fetch its definition again.

use crate::dto::{RunChanged, StepChanged};
use model::{DefChunk, NodeId, RunDef, RunHeader, RunId, RunStatus, StepRecord, StepStatus};
use pipeline::progress::{self, Answers, Progress, Records};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::Revision;

/// The most changes of a run that are kept for readers that come back after a broken connection;
/// one that missed more gets a fresh snapshot.
pub const EVENTS_KEPT: usize = 512;

/// The ordinal of a snapshot: after every change of its revision.
const ALL: u32 = u32::MAX - 1;

/// The ordinal of the last word after a snapshot.
const END: u32 = u32::MAX;

/// A place in a run's history: the store's revision, and the change's ordinal in it. The same on
/// every server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EventId {
    /// Of the change.
    pub revision: Revision,
    /// Of the change among those of the same revision and run.
    pub ordinal: u32,
}

impl EventId {
    /// After everything of this revision: the id of a snapshot.
    #[must_use]
    pub fn all_of(revision: Revision) -> Self {
        Self { revision, ordinal: ALL }
    }

    /// After a snapshot at this revision that shows an ended run: the id of the word that it has ended.
    #[must_use]
    pub fn end_at(revision: Revision) -> Self {
        Self { revision, ordinal: END }
    }

    /// True for the id of the word that a run has ended, told after a snapshot.
    #[must_use]
    pub fn is_end(self) -> bool {
        self.ordinal == END
    }

    /// True for the id of a snapshot.
    #[must_use]
    pub fn is_snapshot(self) -> bool {
        self.ordinal == ALL
    }

    /// Reads what [`EventId`]'s `Display` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (revision, ordinal) = text.trim().split_once('-')?;
        let ordinal = match ordinal {
            "all" => ALL,
            "end" => END,
            ordinal => ordinal.parse().ok().filter(|n| *n < ALL)?,
        };
        let revision = Revision(revision.parse().ok()?);
        Some(Self { revision, ordinal })
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ordinal {
            ALL => write!(f, "{}-all", self.revision.0),
            END => write!(f, "{}-end", self.revision.0),
            ordinal => write!(f, "{}-{ordinal}", self.revision.0),
        }
    }
}

/// A change of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEvent {
    /// Its place in the run's history.
    pub id: EventId,
    /// What changed.
    pub what: RunEventKind,
}

/// What changed of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEventKind {
    /// Its steps became known: look at the whole run.
    Began,
    /// A step changed.
    Step(StepChanged),
    /// The run's status changed.
    Run(RunChanged),
    /// The run has ended; nothing follows.
    End(RunChanged),
}

/// Whether the run's definition is at hand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Definition {
    /// Its chunks, or some of them, have not been seen.
    #[default]
    Unknown,
    /// The run goes on.
    Held(Arc<RunDef>),
    /// The run has ended; this many stages and steps stand in the store.
    LetGo,
}

/// A run.
#[derive(Debug, Clone, Default)]
pub struct RunEntry {
    header: Option<Arc<RunHeader>>,
    chunks: BTreeMap<usize, DefChunk>,
    definition: Definition,
    records: Records,
    /// What the rules of its steps have answered.
    answers: Answers,
    /// Status and attempt of each step as they were last told.
    told: Vec<(StepStatus, u32)>,
    status: Option<RunStatus>,
    damaged: bool,
    /// A record changed after the definition was let go.
    moved: bool,
    events: VecDeque<Arc<RunEvent>>,
    floor: EventId,
    start_told: bool,
}

impl RunEntry {
    /// An entry of which all changes after `floor` will be seen.
    #[must_use]
    pub(super) fn new(floor: Revision) -> Self {
        Self {
            floor: EventId::all_of(floor),
            ..Self::default()
        }
    }

    /// The header; `None` while only parts of the run have been written.
    #[must_use]
    pub fn header(&self) -> Option<&Arc<RunHeader>> {
        self.header.as_ref()
    }

    /// The definition, while the run goes on.
    #[must_use]
    pub fn held_def(&self) -> Option<&Arc<RunDef>> {
        match &self.definition {
            Definition::Held(def) => Some(def),
            Definition::Unknown | Definition::LetGo => None,
        }
    }

    /// What happened to its steps, by ordinal.
    #[must_use]
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Where the run stands; `Queued` while that cannot be said yet.
    #[must_use]
    pub fn status(&self) -> RunStatus {
        self.status.unwrap_or(RunStatus::Queued)
    }

    /// True when everything that the header promises has been seen, so that readers may be shown the run.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.status.is_some()
    }

    /// First instruction of its first step, by the nodes' clocks.
    #[must_use]
    pub fn started_ms(&self) -> Option<u64> {
        self.records.values().filter_map(|r| r.times.started_ms).min()
    }

    /// The seconds from the trigger to the first instruction, once for each run.
    /// With the node that it was on.
    pub(super) fn first_instruction_seconds(&mut self) -> Option<(f64, Option<NodeId>)> {
        if self.start_told {
            return None;
        }
        let begun = self.records.values().filter(|r| r.times.started_ms.is_some());
        let first = begun.min_by_key(|r| r.times.started_ms)?;
        let (started, created) = (first.times.started_ms?, self.header.as_ref()?.created_ms);
        self.start_told = true;
        let seconds = started.saturating_sub(created) as f64 / 1000.0;
        Some((seconds, first.node.clone()))
    }

    /// When the run ended, if it has: the end of its last step; its creation if none ever started.
    #[must_use]
    pub fn ended_ms(&self) -> Option<u64> {
        if !self.status().is_terminal() {
            return None;
        }
        let last_step = self.records.values().filter_map(|r| r.times.ended_ms).max();
        last_step.or_else(|| self.header.as_ref().map(|h| h.created_ms))
    }

    /// The changes after `last`, oldest first; `None` when they are not all known any more.
    #[must_use]
    pub fn events_after(&self, last: EventId, now: Revision) -> Option<Vec<Arc<RunEvent>>> {
        if last < self.floor || last.revision > now {
            return None;
        }
        Some(self.events.iter().filter(|e| e.id > last).cloned().collect())
    }

    /// True when the definition has to be read from the store before the entry can be settled.
    #[must_use]
    pub(super) fn wants_def(&self) -> bool {
        let Some(header) = &self.header else { return false };
        let unsettled = self.status.is_none() || self.moved;
        header.def_chunks > 0 && self.held_def().is_none() && !self.damaged && unsettled
    }

    /// True when nothing of the run is in the store any more.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.header.is_none() && self.chunks.is_empty() && self.records.is_empty()
    }

    pub(super) fn set_header(&mut self, header: Option<RunHeader>) {
        self.header = header.map(Arc::new);
        if self.header.is_none() {
            self.status = None;
        }
    }

    pub(super) fn set_chunk(&mut self, n: usize, chunk: Option<DefChunk>) {
        match chunk {
            Some(chunk) if self.header.is_none() => drop(self.chunks.insert(n, chunk)),
            Some(chunk) if self.wants_def() => drop(self.chunks.insert(n, chunk)),
            // A definition never changes once its header is there.
            Some(_) => {}
            None => drop(self.chunks.remove(&n)),
        }
    }

    pub(super) fn set_record(&mut self, n: usize, record: Option<StepRecord>) {
        match record {
            Some(record) => drop(self.records.insert(n, record)),
            None => {
                // The run is being taken away or put back: its needs may end anew.
                self.records.remove(&n);
                self.answers = Answers::default();
            }
        }
        self.moved |= self.definition == Definition::LetGo;
    }

    /// Takes a definition that was read from the store.
    pub(super) fn set_def(&mut self, def: Option<Arc<RunDef>>) {
        self.damaged = def.is_none();
        self.definition = def.map_or(Definition::Unknown, Definition::Held);
    }

    /// Draws the conclusions from what was set, and answers what has changed. Nothing happens
    /// while the header or the definition is missing.
    pub(super) fn settle(&mut self, run: &RunId, revision: Revision) -> Vec<Arc<RunEvent>> {
        let Some(header) = self.header.clone() else {
            self.status = None;
            return Vec::new();
        };
        self.assemble(&header);
        if self.wants_def() {
            return Vec::new();
        }
        let kinds = match self.held_def().cloned() {
            Some(def) => self.settle_steps(run, &header, &def),
            None => self.settle_without_steps(run),
        };
        if self.status.is_some_and(RunStatus::is_terminal) && self.held_def().is_some() {
            self.definition = Definition::LetGo;
            self.told = Vec::new();
            self.moved = false;
        }
        self.keep(revision, kinds)
    }

    fn assemble(&mut self, header: &RunHeader) {
        if self.held_def().is_some() || self.chunks.len() < header.def_chunks || header.def_chunks == 0 {
            return;
        }
        let chunks: Vec<DefChunk> = std::mem::take(&mut self.chunks).into_values().collect();
        match RunDef::from_chunks(&chunks) {
            Ok(def) => self.definition = Definition::Held(Arc::new(def)),
            Err(error) => {
                tracing::error!(run_id = %header.id, %error, "run definition is damaged");
                self.damaged = true;
            }
        }
    }

    /// A run that failed before it had steps, or whose definition cannot be read.
    fn settle_without_steps(&mut self, run: &RunId) -> Vec<RunEventKind> {
        if self.status.is_some() {
            return Vec::new();
        }
        self.status = Some(RunStatus::Failed);
        let change = run_changed(run, RunStatus::Failed);
        vec![RunEventKind::Began, RunEventKind::End(change)]
    }

    fn settle_steps(&mut self, run: &RunId, header: &RunHeader, def: &RunDef) -> Vec<RunEventKind> {
        let progress = Progress::remembering(header, def, &self.records, &mut self.answers);
        let statuses = progress.statuses().iter().copied();
        let status = progress::run_status(header, def, &self.records);
        let attempt = |n: usize| self.records.get(&n).map_or(0, |r| r.attempt);
        let now: Vec<(StepStatus, u32)> = (0..).zip(statuses).map(|(n, s)| (s, attempt(n))).collect();
        let mut kinds = Vec::new();
        if self.told.len() == now.len() {
            let changed = (0..now.len()).filter(|n| self.told[*n] != now[*n]);
            kinds.extend(changed.map(|n| {
                let record = self.records.get(&n);
                RunEventKind::Step(step_changed(run, &def.steps[n].name, n, now[n].0, record))
            }));
        } else {
            kinds.push(RunEventKind::Began);
        }
        let before = self.status.replace(status);
        self.told = now;
        if status.is_terminal() && before != Some(status) {
            kinds.push(RunEventKind::End(run_changed(run, status)));
        } else if before.is_some_and(|b| b != status) {
            kinds.push(RunEventKind::Run(run_changed(run, status)));
        }
        kinds
    }

    fn keep(&mut self, revision: Revision, kinds: Vec<RunEventKind>) -> Vec<Arc<RunEvent>> {
        let made: Vec<Arc<RunEvent>> = (0_u32..)
            .zip(kinds)
            .map(|(ordinal, what)| {
                let id = EventId { revision, ordinal };
                Arc::new(RunEvent { id, what })
            })
            .collect();
        self.events.extend(made.iter().cloned());
        while self.events.len() > EVENTS_KEPT {
            if let Some(oldest) = self.events.pop_front() {
                self.floor = oldest.id;
            }
        }
        made
    }

    /// The statuses of all steps, given the definition; for readers of a run that has ended too.
    #[must_use]
    pub fn step_statuses(&self, def: &RunDef) -> Vec<StepStatus> {
        let header = self.header();
        header.map_or_else(Vec::new, |header| progress::step_statuses(header, def, &self.records))
    }

    /// Forgets past changes, e.g. after everything was read anew up to `revision`.
    pub(super) fn forget_events(&mut self, revision: Revision) {
        self.events = VecDeque::new();
        self.floor = EventId::all_of(revision);
    }
}

fn run_changed(run: &RunId, status: RunStatus) -> RunChanged {
    RunChanged {
        run_id: run.to_string(),
        status: status.into(),
    }
}

fn step_changed(
    run: &RunId,
    name: &model::StepName,
    ordinal: usize,
    status: StepStatus,
    record: Option<&StepRecord>,
) -> StepChanged {
    StepChanged {
        run_id: run.to_string(),
        step: name.to_string(),
        ordinal,
        status: status.into(),
        attempt: record.map_or(0, |r| r.attempt),
        node: record.and_then(|r| r.node.as_ref()).map(ToString::to_string),
        reason: record.and_then(|r| r.reason.clone()),
        log_bytes: record.and_then(|r| r.log_bytes),
    }
}
