//! A store of a few lines and builders of records, so that a test reads as what it is about.
//!
//! Not here: leases, watches and limits; the real engines have a suite of their own.

#![allow(dead_code, reason = "each test file uses its own part")]

use model::record::Unknown;
use model::{
    AllocId, Allocation, ClusterVersion, Event, Fence, NodeFacts, NodeId, NodeRecord, Observed, ObservedState, Outcome,
    Record, Request, RequestKind, Resources, Retry, RetryOn, RunDef, RunHeader, RunId, SessionRecord, Shell, Source,
    StageDef, StepDef, StepName, StepRecord, StepStatus, TeamName, Usage, key,
};
use scheduler::{Action, Change, Cluster, Expect, Plan, Refused, Transition, Write};
use std::collections::BTreeMap;

pub(crate) const GIB: u64 = 1 << 30;

/// One change as a watch would tell it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) revision: u64,
}

/// The store, all its changes so far, and a scheduler that has been told of them.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) keys: BTreeMap<String, (Vec<u8>, u64)>,
    pub(crate) revision: u64,
    pub(crate) history: Vec<Told>,
    pub(crate) cluster: Cluster,
    pub(crate) now_ms: u64,
    /// The clock that never jumps.
    pub(crate) steady_ms: u64,
}

impl World {
    /// A cluster that has a format and an epoch, and nothing else.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            now_ms: 1_000_000,
            ..Self::default()
        };
        let version = ClusterVersion {
            format: 1,
            epoch: 1,
            unknown: Unknown::new(),
        };
        world.put(key::CLUSTER_VERSION, &version);
        world
    }

    pub(crate) fn put<R: Record>(&mut self, key: impl Into<String>, record: &R) {
        self.put_bytes(key, Some(model::encode(record)));
    }

    /// Writes or removes a key and tells the scheduler.
    pub(crate) fn put_bytes(&mut self, key: impl Into<String>, value: Option<Vec<u8>>) {
        let key = key.into();
        self.revision += 1;
        self.write(&key, value.clone());
        let _ = self.cluster.on_change(&key, value.as_deref(), self.revision);
    }

    fn write(&mut self, key: &str, value: Option<Vec<u8>>) {
        match &value {
            Some(bytes) => self.keys.insert(key.to_owned(), (bytes.clone(), self.revision)),
            None => self.keys.remove(key),
        };
        self.history.push(Told {
            key: key.to_owned(),
            value,
            revision: self.revision,
        });
    }

    pub(crate) fn get<R: Record>(&self, key: &str) -> Option<R> {
        self.keys
            .get(key)
            .map(|(bytes, _)| model::decode(bytes).expect("a record of ours"))
    }

    pub(crate) fn step(&self, run: &RunId, step: usize) -> Option<StepRecord> {
        self.get(&key::step(run, step))
    }

    /// The step's order, which must be there.
    pub(crate) fn order(&self, run: &RunId, step: usize) -> Allocation {
        let record = self.step(run, step).expect("the step was placed");
        let (node, alloc) = (record.node.expect("has a node"), record.alloc.expect("has an order"));
        self.get(&key::alloc(&node, &alloc)).expect("the order stands")
    }

    pub(crate) fn order_count(&self) -> usize {
        self.keys
            .iter()
            .filter(|(k, (v, _))| k.starts_with(key::ALLOCS) && model::decode::<Allocation>(v).is_ok())
            .count()
    }

    /// Applies a change if all its guards hold.
    pub(crate) fn commit(&mut self, change: &Change) -> bool {
        let holds = change.guards.iter().all(|(key, expect)| {
            let found = self.keys.get(key).map(|(_, revision)| *revision);
            match expect {
                Expect::Absent => found.is_none(),
                Expect::Present => found.is_some(),
                Expect::Revision(revision) => found == Some(*revision),
            }
        });
        if holds {
            self.revision += 1;
            for write in &change.writes {
                match write {
                    Write::Put { key, value } => self.write(key, Some(value.clone())),
                    Write::Delete { key } => self.write(key, None),
                }
            }
        }
        holds
    }

    /// Plans, verifies, commits and confirms once.
    pub(crate) fn round(&mut self) -> (Plan, Vec<Refused>, Vec<Transition>) {
        self.now_ms += 1;
        self.cluster.tick(self.steady_ms);
        let plan = self.cluster.plan(self.now_ms);
        let (verified, refused) = self.cluster.verify(&plan);
        let mut transitions = Vec::new();
        for verified in verified {
            if self.commit(&verified.change) {
                transitions.extend(self.cluster.confirm(verified.ticket, self.revision));
            } else {
                self.cluster.refuse(verified.ticket);
            }
        }
        self.cluster.sanity_check().expect("the view agrees with itself");
        (plan, refused, transitions)
    }

    /// Time passes on both clocks, and nothing else happens.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.steady_ms += ms;
    }

    /// This server begins to lead now.
    pub(crate) fn lead(&mut self) {
        self.cluster.begin_term(self.steady_ms);
    }

    /// Another server leads from now on, which learns everything from the store alone.
    pub(crate) fn take_over(&mut self) {
        self.cluster = Cluster::new();
        for (key, (value, revision)) in &self.keys {
            let _ = self.cluster.on_change(key, Some(value), *revision);
        }
        self.lead();
    }

    /// Rounds until there is nothing left to do.
    pub(crate) fn settle(&mut self) -> Vec<Transition> {
        let mut all = Vec::new();
        for _ in 0..10_000 {
            let (plan, _, transitions) = self.round();
            all.extend(transitions);
            if plan.proposals.is_empty() {
                self.cluster.check_complete().expect("orders and attempts agree");
                return all;
            }
        }
        panic!("the scheduler never comes to rest");
    }

    pub(crate) fn add_node(&mut self, name: &str, capacity: Resources, slots: u32, labels: &[(&str, &str)]) -> NodeId {
        let record = node(name, 1, capacity, slots, labels);
        self.put(key::node(&record.id), &record);
        self.connect(&record.id, 1);
        record.id
    }

    pub(crate) fn connect(&mut self, id: &NodeId, epoch: u64) {
        let session = SessionRecord {
            lease: 0,
            node: id.clone(),
            server: "s1".to_owned(),
            node_epoch: epoch,
            address: String::new(),
            connected: true,
            unknown: Unknown::new(),
        };
        self.put(key::session(id), &session);
    }

    /// The node's stream has ended, its lease has not.
    pub(crate) fn cut_off(&mut self, id: &NodeId) {
        let mut session: SessionRecord = self.get(&key::session(id)).expect("it was connected");
        session.connected = false;
        self.put(key::session(id), &session);
    }

    /// The node registers anew.
    pub(crate) fn register_again(&mut self, id: &NodeId) {
        let mut record: NodeRecord = self.get(&key::node(id)).expect("it registered before");
        record.epoch += 1;
        self.put(key::node(id), &record);
        self.connect(id, record.epoch);
    }

    /// The node's lease has run out.
    pub(crate) fn disconnect(&mut self, id: &NodeId) {
        self.put_bytes(key::session(id), None);
    }

    pub(crate) fn add_run(&mut self, id: &str, created_ms: u64, steps: Vec<StepDef>) -> RunId {
        self.add_run_of("default", id, created_ms, steps)
    }

    pub(crate) fn add_run_of(&mut self, team: &str, id: &str, created_ms: u64, steps: Vec<StepDef>) -> RunId {
        self.add_ruled_of(team, id, created_ms, model::RunRules::default(), steps)
    }

    pub(crate) fn add_ruled(&mut self, id: &str, number: u64, rules: model::RunRules, steps: Vec<StepDef>) -> RunId {
        self.add_ruled_of("default", id, number, rules, steps)
    }

    /// A run with rules of its own; its number is also when it was made, milliseconds.
    pub(crate) fn add_ruled_of(
        &mut self,
        team: &str,
        id: &str,
        number: u64,
        rules: model::RunRules,
        steps: Vec<StepDef>,
    ) -> RunId {
        let (mut header, mut def) = run(team, id, number, steps);
        header.number = number;
        def.rules = rules;
        let chunks = def.to_chunks();
        header.def_chunks = chunks.len();
        for (n, chunk) in chunks.iter().enumerate() {
            self.put(key::run_def(&header.id, n), chunk);
        }
        self.put(key::run(&header.id), &header);
        header.id
    }

    /// The node reports on the step's current order.
    pub(crate) fn report(&mut self, run: &RunId, step: usize, state: ObservedState, outcome: Option<Outcome>) {
        let report = self.report_of(run, step, state, outcome);
        self.put(key::observed(&report.alloc), &report);
    }

    pub(crate) fn report_of(
        &self,
        run: &RunId,
        step: usize,
        state: ObservedState,
        outcome: Option<Outcome>,
    ) -> Observed {
        let order = self.order(run, step);
        observed(&order.id, order.fence, state, outcome)
    }

    pub(crate) fn exit(&mut self, run: &RunId, step: usize, code: i32) {
        self.report(run, step, ObservedState::Ended, Some(Outcome::Exited { code }));
    }

    pub(crate) fn cancel(&mut self, request: &str, run: &RunId) {
        self.ask_for(request, RequestKind::Cancel { run: run.clone() });
    }

    /// Somebody asks the leader for something.
    pub(crate) fn ask_for(&mut self, request: &str, what: RequestKind) {
        let record = Request {
            what,
            requested_by: "alice".to_owned(),
            created_ms: self.now_ms,
            request_id: "r".to_owned(),
        };
        self.put(key::request(request), &record);
    }

    pub(crate) fn status(&mut self, run: &RunId, step: usize) -> Option<StepStatus> {
        self.cluster.refresh();
        self.cluster.status(run, step)
    }

    pub(crate) fn explain(&mut self, run: &RunId, step: usize) -> scheduler::Explanation {
        self.cluster.explain(run, step, self.now_ms).expect("a known step")
    }
}

pub(crate) fn placements(plan: &Plan) -> Vec<&Allocation> {
    let orders = plan.proposals.iter().filter_map(|p| match &*p.action {
        Action::Place { alloc, .. } => Some(&**alloc),
        _ => None,
    });
    orders.collect()
}

pub(crate) fn room(cpu_millis: u64, memory_gib: u64) -> Resources {
    Resources {
        cpu_millis,
        memory_bytes: memory_gib * GIB,
        disk_bytes: 100 * GIB,
    }
}

pub(crate) fn ask(cpu_millis: u64, memory_gib: u64) -> Resources {
    Resources {
        cpu_millis,
        memory_bytes: memory_gib * GIB,
        disk_bytes: GIB,
    }
}

pub(crate) fn node(name: &str, epoch: u64, capacity: Resources, slots: u32, labels: &[(&str, &str)]) -> NodeRecord {
    NodeRecord {
        id: NodeId::new(name).expect("legal"),
        name: name.to_owned(),
        epoch,
        capacity,
        slots,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        facts: NodeFacts::default(),
        registered_ms: 0,
        unknown: Unknown::new(),
    }
}

pub(crate) fn step(name: &str, needs: &[usize], resources: Resources) -> StepDef {
    StepDef {
        name: StepName::new(name).expect("legal"),
        title: None,
        stage: 0,
        needs: needs.to_vec(),
        image: "oci:base".to_owned(),
        before: Vec::new(),
        run: Vec::new(),
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: None,
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 60_000,
        allow_failure: false,
        resources,
        pids: 100,
        shm_bytes: 0,
        labels: BTreeMap::new(),
        retry: Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    }
}

/// The step with these retries, without a pause between them.
pub(crate) fn retried(mut step: StepDef, max: u32, on: &[RetryOn]) -> StepDef {
    step.retry = Retry {
        max,
        on: on.to_vec(),
        backoff_ms: 0,
    };
    step
}

pub(crate) fn labelled(mut step: StepDef, labels: &[(&str, &str)]) -> StepDef {
    step.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    step
}

pub(crate) fn run(team: &str, id: &str, created_ms: u64, steps: Vec<StepDef>) -> (RunHeader, RunDef) {
    let def = RunDef {
        name: None,
        title: None,
        stages: vec![StageDef {
            name: StepName::new("main").expect("legal"),
        }],
        steps,
        rules: model::RunRules::default(),
    };
    let header = RunHeader {
        id: RunId::new(id).expect("legal"),
        team: TeamName::new(team).expect("legal"),
        pipeline: model::PipelineName::new("p").expect("legal"),
        number: 1,
        attempt: 1,
        source: Source {
            repository: "file:///r".to_owned(),
            git_ref: "refs/heads/main".to_owned(),
            commit: "c".to_owned(),
            message: String::new(),
            author: String::new(),
            event: Event::Push,
        },
        variables: BTreeMap::new(),
        inputs: std::collections::BTreeMap::new(),
        created_ms,
        def_chunks: def.to_chunks().len(),
        steps: def.steps.len(),
        error: None,
        request_id: "r".to_owned(),
        requested_by: "t".to_owned(),
        traceparent: None,
        unknown: Unknown::new(),
    };
    (header, def)
}

pub(crate) fn observed(alloc: &AllocId, fence: Fence, state: ObservedState, outcome: Option<Outcome>) -> Observed {
    let ended = state == ObservedState::Ended;
    Observed {
        alloc: alloc.clone(),
        fence,
        state,
        started_ms: Some(1_500_000),
        ended_ms: ended.then_some(1_600_000),
        phases: vec![model::Phase {
            name: "image".to_owned(),
            ms: 12,
            bytes: 34,
        }],
        outcome,
        log_bytes: ended.then_some(77),
        usage: Usage {
            memory_peak_bytes: 5,
            cpu_ms: 6,
            throttled_ms: 7,
        },
        left: model::Left::default(),
        unknown: Unknown::new(),
    }
}
