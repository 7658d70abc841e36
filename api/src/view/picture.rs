//! The picture itself: every key's value in the form that readers ask for, with the indexes they need.
//!
//! Not here: where changes come from, and who is told of them.

use super::run::{RunEntry, RunEvent};
use crate::repository;
use model::key::{self, RunKey};
use model::{
    Allocation, ArchivedRun, Eligibility, InboxEntry, Leader, NodeId, NodeRecord, PipelineName, PipelineRecord, Record,
    Request, RequestKind, Resources, RunId, SessionRecord, TeamName, TeamRecord, TokenRecord,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use store::{Entry, Revision};

/// A pipeline's full name.
pub type PipelineKey = (TeamName, PipelineName);

/// The state of the store at one revision.
#[derive(Debug, Default)]
pub struct Picture {
    revision: Revision,
    /// Changes up to this revision were not seen one by one.
    floor: Revision,
    tokens: BTreeMap<String, TokenRecord>,
    teams: BTreeMap<String, TeamRecord>,
    pipelines: BTreeMap<PipelineKey, Arc<PipelineRecord>>,
    /// In order of team and name. Nearly always one: a vector of one is a tenth of a set of one.
    by_repository: HashMap<String, Vec<Arc<PipelineRecord>>>,
    runs: BTreeMap<RunId, RunEntry>,
    by_number: BTreeMap<PipelineKey, BTreeMap<u64, RunId>>,
    /// Runs of which every step has ended.
    ended: BTreeSet<RunId>,
    /// Archived runs that history has not taken yet, with the revision of their entry.
    outbox: BTreeMap<RunId, (Revision, Arc<ArchivedRun>)>,
    outbox_by_number: BTreeMap<PipelineKey, BTreeMap<u64, RunId>>,
    inbox: BTreeMap<String, Arc<InboxEntry>>,
    inbox_runs: HashMap<RunId, String>,
    cancels: BTreeMap<String, RunId>,
    asked: BTreeMap<String, (NodeId, RequestKind)>,
    eligibilities: BTreeMap<NodeId, Eligibility>,
    nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    sessions: BTreeMap<NodeId, SessionRecord>,
    /// Sessions with a stream: counted, for it is told after every change.
    connected: usize,
    allocs: BTreeMap<NodeId, BTreeMap<String, Arc<Allocation>>>,
    leader: Option<Leader>,
    touched: BTreeSet<RunId>,
    first_instructions: Vec<(f64, Option<NodeId>)>,
    inbox_grew: bool,
}

impl Picture {
    /// An empty picture.
    #[must_use]
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The revision that the picture shows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The record of the token with this hash.
    #[must_use]
    pub fn token(&self, hash: &str) -> Option<&TokenRecord> {
        self.tokens.get(hash)
    }

    /// A team.
    #[must_use]
    pub fn team(&self, name: &TeamName) -> Option<&TeamRecord> {
        self.teams.get(name.as_str())
    }

    /// A pipeline.
    #[must_use]
    pub fn pipeline(&self, team: &TeamName, name: &PipelineName) -> Option<&Arc<PipelineRecord>> {
        self.pipelines.get(&(team.clone(), name.clone()))
    }

    /// All pipelines in order of team and name.
    #[must_use]
    pub fn pipelines(&self) -> &BTreeMap<PipelineKey, Arc<PipelineRecord>> {
        &self.pipelines
    }

    /// The pipelines of a repository, however its address is written.
    #[must_use]
    pub fn pipelines_of(&self, repository: &str) -> Vec<Arc<PipelineRecord>> {
        let found = self.by_repository.get(&repository::normal(repository));
        found.cloned().unwrap_or_default()
    }

    /// A run that readers may be shown.
    #[must_use]
    pub fn run(&self, run: &RunId) -> Option<&RunEntry> {
        self.runs.get(run).filter(|r| r.is_whole())
    }

    /// All runs by id, which is by time of creation; some may not be whole yet.
    #[must_use]
    pub fn runs(&self) -> &BTreeMap<RunId, RunEntry> {
        &self.runs
    }

    /// The runs of a pipeline by number.
    #[must_use]
    pub fn numbers(&self, team: &TeamName, pipeline: &PipelineName) -> Option<&BTreeMap<u64, RunId>> {
        self.by_number.get(&(team.clone(), pipeline.clone()))
    }

    /// The runs that have ended and are still here, oldest first.
    #[must_use]
    pub fn ended(&self) -> &BTreeSet<RunId> {
        &self.ended
    }

    /// Archived runs that history has not taken yet, oldest first, with the revision of their entry.
    #[must_use]
    pub fn outbox(&self) -> &BTreeMap<RunId, (Revision, Arc<ArchivedRun>)> {
        &self.outbox
    }

    /// The runs of a pipeline that history has not taken yet, by number.
    #[must_use]
    pub fn outbox_numbers(&self, team: &TeamName, pipeline: &PipelineName) -> Option<&BTreeMap<u64, RunId>> {
        self.outbox_by_number.get(&(team.clone(), pipeline.clone()))
    }

    /// Triggers that are not yet a run, by delivery.
    #[must_use]
    pub fn inbox(&self) -> &BTreeMap<String, Arc<InboxEntry>> {
        &self.inbox
    }

    /// The trigger that becomes this run.
    #[must_use]
    pub fn inbox_of(&self, run: &RunId) -> Option<&Arc<InboxEntry>> {
        self.inbox.get(self.inbox_runs.get(run)?)
    }

    /// True when somebody asked to cancel the run and the leader has not yet acted.
    #[must_use]
    pub fn cancel_requested(&self, run: &RunId) -> bool {
        self.cancels.values().any(|r| r == run)
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<NodeId, Arc<NodeRecord>> {
        &self.nodes
    }

    /// What operators want of a node, as far as the leader has acted on it; `None`: it takes steps.
    #[must_use]
    pub fn eligibility(&self, node: &NodeId) -> Option<&Eligibility> {
        self.eligibilities.get(node)
    }

    /// What was asked of a node and the leader has not acted on yet, oldest first, with the
    /// requests' ids.
    pub fn asked_of(&self, node: &NodeId) -> impl Iterator<Item = (&str, &RequestKind)> {
        let of_node = self.asked.iter().filter(move |(_, (of, _))| of == node);
        of_node.map(|(id, (_, what))| (id.as_str(), what))
    }

    /// Who holds a node's stream, or held it last: its lease has not run out.
    #[must_use]
    pub fn session(&self, node: &NodeId) -> Option<&SessionRecord> {
        self.sessions.get(node)
    }

    /// What stands on a node, by allocation id.
    pub fn allocs(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Allocation>> {
        self.allocs.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// What is left of a node's capacity, by what stands on it.
    #[must_use]
    pub fn free(&self, node: &NodeRecord) -> Resources {
        let taken = |r: Resources, a: &Arc<Allocation>| Resources {
            cpu_millis: r.cpu_millis.saturating_sub(a.resources.cpu_millis),
            memory_bytes: r.memory_bytes.saturating_sub(a.resources.memory_bytes),
            disk_bytes: r.disk_bytes.saturating_sub(a.resources.disk_bytes),
        };
        self.allocs(&node.id).fold(node.capacity, taken)
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_ref().map(|l| l.server.as_str())
    }

    /// How many nodes have a stream.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.connected
    }

    /// Takes one key's new value at `revision`. What follows for runs is drawn by [`Picture::settle`].
    pub(super) fn apply(&mut self, key: &str, value: Option<&[u8]>, revision: Revision) {
        self.revision = self.revision.max(revision);
        if let Some(run_key) = key::parse_run(key) {
            return self.apply_run(key, run_key, value);
        }
        if key == key::LEADER {
            self.leader = read(key, value);
        } else if let Some(hash) = key.strip_prefix(key::TOKENS) {
            put(&mut self.tokens, hash.to_owned(), read(key, value));
        } else if let Some(name) = key.strip_prefix(key::TEAMS) {
            put(&mut self.teams, name.to_owned(), read(key, value));
        } else if let Some(rest) = key.strip_prefix(key::PIPELINES) {
            self.apply_pipeline(rest, read(key, value));
        } else if let Some(delivery) = key.strip_prefix(key::INBOX) {
            self.apply_inbox(delivery, read(key, value));
        } else if let Some(id) = key.strip_prefix(key::REQUESTS) {
            self.apply_request(id, read(key, value));
        } else if let Some(Ok(node)) = key.strip_prefix(key::NODES).map(NodeId::new) {
            put(&mut self.nodes, node, read(key, value).map(Arc::new));
        } else if let Some(Ok(node)) = key.strip_prefix(key::SESSIONS).map(NodeId::new) {
            let connected = |sessions: &BTreeMap<NodeId, SessionRecord>| {
                usize::from(sessions.get(&node).is_some_and(|s| s.connected))
            };
            let before = connected(&self.sessions);
            put(&mut self.sessions, node.clone(), read(key, value));
            self.connected = self.connected + connected(&self.sessions) - before;
        } else if let Some(Ok(node)) = key.strip_prefix(key::ELIGIBILITIES).map(NodeId::new) {
            put(&mut self.eligibilities, node, read(key, value));
        } else if let Some(Ok(run)) = key.strip_prefix(key::ARCHIVE_OUTBOX).map(RunId::new) {
            self.apply_outbox(run, read(key, value), revision);
        } else if let Some((node, alloc)) = key.strip_prefix(key::ALLOCS).and_then(|r| r.split_once('/')) {
            self.apply_alloc(node, alloc, read(key, value));
        }
    }

    /// Takes an entry of a read that began at `from`: changes since are told later. Only the outbox
    /// needs the entry's own revision.
    pub(super) fn apply_read(&mut self, entry: &Entry, from: Revision) {
        self.apply(&entry.key, Some(&entry.value), from);
        let run = entry.key.strip_prefix(key::ARCHIVE_OUTBOX).map(RunId::new);
        if let Some(waiting) = run.and_then(|run| self.outbox.get_mut(&run.ok()?)) {
            waiting.0 = entry.mod_revision;
        }
    }

    fn apply_run(&mut self, key: &str, run_key: RunKey, value: Option<&[u8]>) {
        let (RunKey::Header(run) | RunKey::Def(run, _) | RunKey::Step(run, _)) = &run_key;
        let run = run.clone();
        let floor = self.floor;
        let entry = self.runs.entry(run.clone()).or_insert_with(|| RunEntry::new(floor));
        match run_key {
            RunKey::Header(_) => {
                if let Some(old) = entry.header() {
                    let of = (old.team.clone(), old.pipeline.clone());
                    if let Some(numbers) = self.by_number.get_mut(&of) {
                        numbers.remove(&old.number);
                        if numbers.is_empty() {
                            self.by_number.remove(&of);
                        }
                    }
                }
                entry.set_header(read(key, value));
                if let Some(new) = entry.header() {
                    let of = (new.team.clone(), new.pipeline.clone());
                    self.by_number.entry(of).or_default().insert(new.number, run.clone());
                }
            }
            RunKey::Def(_, n) => entry.set_chunk(n, read(key, value)),
            RunKey::Step(_, n) => entry.set_record(n, read(key, value)),
        }
        if entry.is_empty() {
            self.runs.remove(&run);
            self.ended.remove(&run);
        } else {
            self.touched.insert(run);
        }
    }

    fn apply_outbox(&mut self, run: RunId, record: Option<ArchivedRun>, revision: Revision) {
        if let Some((_, old)) = self.outbox.remove(&run) {
            let of = (old.summary.team.clone(), old.summary.pipeline.clone());
            if let Some(numbers) = self.outbox_by_number.get_mut(&of) {
                numbers.remove(&old.summary.number);
                if numbers.is_empty() {
                    self.outbox_by_number.remove(&of);
                }
            }
        }
        if let Some(record) = record {
            let of = (record.summary.team.clone(), record.summary.pipeline.clone());
            let numbers = self.outbox_by_number.entry(of).or_default();
            numbers.insert(record.summary.number, run.clone());
            self.outbox.insert(run, (revision, Arc::new(record)));
        }
    }

    fn apply_pipeline(&mut self, rest: &str, record: Option<PipelineRecord>) {
        let parsed = rest
            .split_once('/')
            .map(|(t, p)| (TeamName::new(t), PipelineName::new(p)));
        let Some((Ok(team), Ok(name))) = parsed else { return };
        let key = (team, name);
        if let Some(old) = self.pipelines.remove(&key) {
            let repository = repository::normal(&old.repository);
            if let Some(of) = self.by_repository.get_mut(&repository) {
                of.retain(|other| !Arc::ptr_eq(other, &old));
                if of.is_empty() {
                    self.by_repository.remove(&repository);
                }
            }
        }
        if let Some(record) = record {
            let record = Arc::new(record);
            let of = self.by_repository.entry(repository::normal(&record.repository));
            let of = of.or_insert_with(|| Vec::with_capacity(1));
            let at = of.partition_point(|other| (&other.team, &other.name) < (&record.team, &record.name));
            of.insert(at, Arc::clone(&record));
            self.pipelines.insert(key, record);
        }
    }

    fn apply_inbox(&mut self, delivery: &str, entry: Option<InboxEntry>) {
        if let Some(old) = self.inbox.remove(delivery) {
            self.inbox_runs.remove(&old.run);
        }
        if let Some(entry) = entry {
            self.inbox_runs.insert(entry.run.clone(), delivery.to_owned());
            self.inbox.insert(delivery.to_owned(), Arc::new(entry));
            self.inbox_grew = true;
        }
    }

    /// Whether triggers have arrived since the last time this was asked.
    pub(super) fn take_inbox_grew(&mut self) -> bool {
        std::mem::take(&mut self.inbox_grew)
    }

    /// For each run whose first instruction was seen since the last time: the seconds from its
    /// trigger to it. Of several servers only the one that holds the node's stream is told, or, if
    /// none does any more, the one that leads.
    pub(super) fn take_first_instructions(&mut self, server: Option<&String>) -> Vec<f64> {
        let seen = std::mem::take(&mut self.first_instructions);
        let Some(server) = server else {
            return seen.into_iter().map(|(seconds, _)| seconds).collect();
        };
        let holder = |node: Option<&NodeId>| {
            let session = node.and_then(|node| self.session(node));
            session.map(|s| s.server.as_str()).or(self.leader())
        };
        let mine = seen.iter().filter(|(_, node)| holder(node.as_ref()) == Some(server));
        mine.map(|(seconds, _)| *seconds).collect()
    }

    fn apply_request(&mut self, id: &str, request: Option<Request>) {
        let (cancel, asked) = match request.map(|r| r.what) {
            Some(RequestKind::Cancel { run }) => (Some(run), None),
            Some(
                what @ (RequestKind::Cordon { .. }
                | RequestKind::Uncordon { .. }
                | RequestKind::Drain { .. }
                | RequestKind::ConfirmGone { .. }),
            ) => (None, node_of(&what).cloned().map(|node| (node, what))),
            Some(RequestKind::Start { .. }) | None => (None, None),
        };
        put(&mut self.cancels, id.to_owned(), cancel);
        put(&mut self.asked, id.to_owned(), asked);
    }

    fn apply_alloc(&mut self, node: &str, alloc: &str, record: Option<Allocation>) {
        let Ok(node) = NodeId::new(node) else { return };
        let of_node = self.allocs.entry(node.clone()).or_default();
        put(of_node, alloc.to_owned(), record.map(Arc::new));
        if of_node.is_empty() {
            self.allocs.remove(&node);
        }
    }

    /// Draws the conclusions for every run that was touched since the last time, and answers what
    /// changed, run by run.
    pub(super) fn settle(&mut self) -> Vec<(RunId, Vec<Arc<RunEvent>>)> {
        let revision = self.revision;
        let mut all = Vec::new();
        for run in std::mem::take(&mut self.touched) {
            if let Some(entry) = self.runs.get_mut(&run) {
                let events = entry.settle(&run, revision);
                if entry.status().is_terminal() {
                    self.ended.insert(run.clone());
                } else {
                    self.ended.remove(&run);
                }
                self.first_instructions.extend(entry.first_instruction_seconds());
                if entry.wants_def() {
                    self.touched.insert(run.clone());
                }
                if !events.is_empty() {
                    all.push((run, events));
                }
            }
        }
        all
    }

    /// The touched runs whose definition has to be read from the store before they can be settled.
    #[must_use]
    pub(super) fn wanted_defs(&self) -> Vec<RunId> {
        let wants = |run: &&RunId| self.runs.get(*run).is_some_and(RunEntry::wants_def);
        self.touched.iter().filter(wants).cloned().collect()
    }

    /// Takes a definition that was read from the store; `None`: it is not there or damaged.
    pub(super) fn put_def(&mut self, run: &RunId, def: Option<Arc<model::RunDef>>) {
        if let Some(entry) = self.runs.get_mut(run) {
            entry.set_def(def);
            self.touched.insert(run.clone());
        }
    }

    /// Settles everything that was read in one go: nobody was told of any of it, and who comes
    /// back with an older place in a run's history gets a fresh snapshot.
    pub(super) fn begin_here(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.floor = self.revision;
        self.settle();
        self.first_instructions.clear();
        let floor = self.floor;
        self.runs.values_mut().for_each(|r| r.forget_events(floor));
    }
}

fn node_of(what: &RequestKind) -> Option<&NodeId> {
    match what {
        RequestKind::Cancel { .. } | RequestKind::Start { .. } => None,
        RequestKind::Cordon { node }
        | RequestKind::Uncordon { node }
        | RequestKind::Drain { node, .. }
        | RequestKind::ConfirmGone { node, .. } => Some(node),
    }
}

/// The record under a key; one that does not decode is logged and passed over.
fn read<R: Record>(key: &str, value: Option<&[u8]>) -> Option<R> {
    match model::decode(value?) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::error!(key, %error, "record passed over");
            None
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
