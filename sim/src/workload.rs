//! What people and machines bring: runs with random graphs, nodes of random size.

use model::record::Unknown;
use model::{
    Event, NodeFacts, NodeId, NodeRecord, PipelineName, Resources, Retry, RetryOn, RunDef, RunHeader, RunId, Shell,
    Source, StageDef, StepDef, StepName, TeamName,
};
use rand::Rng;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;

/// A run before it is triggered.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) header: RunHeader,
    pub(crate) def: RunDef,
}

/// The smallest node takes the largest step, so that every run can end; labels are held to too.
const LARGEST_STEP_CPU: u64 = 4;

pub(crate) fn node(n: usize, rng: &mut impl Rng) -> NodeRecord {
    let arch = if n == 0 || rng.random_bool(0.5) {
        "amd64"
    } else {
        "arm64"
    };
    let name = format!("n{n}");
    NodeRecord {
        id: NodeId::new(name.clone()).expect("legal"),
        name,
        epoch: 0,
        capacity: Resources {
            cpu_millis: rng.random_range(LARGEST_STEP_CPU..=8) * 1_000,
            memory_bytes: rng.random_range(4..=16) * 1_024 * MIB,
            disk_bytes: rng.random_range(4..=16) * 1_024 * MIB,
        },
        slots: rng.random_range(1..=6),
        labels: BTreeMap::from([("arch".to_owned(), arch.to_owned())]),
        facts: NodeFacts::default(),
        registered_ms: 0,
        unknown: Unknown::new(),
    }
}

pub(crate) fn run(n: usize, created_ms: u64, rng: &mut impl Rng) -> Planned {
    let steps: Vec<StepDef> = (0..rng.random_range(1..=10)).map(|s| step(s, rng)).collect();
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
        id: RunId::new(format!("run{n}")).expect("legal"),
        team: TeamName::new(format!("team{}", rng.random_range(0..2))).expect("legal"),
        pipeline: PipelineName::new("p").expect("legal"),
        number: n as u64 + 1,
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
        request_id: String::new(),
        requested_by: "sim".to_owned(),
        traceparent: None,
        unknown: Unknown::new(),
    };
    Planned { header, def }
}

fn step(ordinal: usize, rng: &mut impl Rng) -> StepDef {
    let needs = (0..ordinal).filter(|_| rng.random_bool(0.3)).collect();
    let labels = if rng.random_bool(0.1) {
        BTreeMap::from([("arch".to_owned(), "amd64".to_owned())])
    } else {
        BTreeMap::new()
    };
    StepDef {
        name: StepName::new(format!("s{ordinal}")).expect("legal"),
        title: None,
        stage: 0,
        needs,
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
        allow_failure: rng.random_bool(0.2),
        resources: Resources {
            cpu_millis: rng.random_range(1..=LARGEST_STEP_CPU * 2) * 500,
            memory_bytes: rng.random_range(0..=4) * 1_024 * MIB,
            disk_bytes: rng.random_range(0..=2) * 1_024 * MIB,
        },
        pids: 10,
        shm_bytes: 0,
        labels,
        retry: retry(rng),
        idempotent: rng.random_bool(0.9),
        rules: model::StepRules::default(),
    }
}

fn retry(rng: &mut impl Rng) -> Retry {
    let on = [RetryOn::Infra, RetryOn::Timeout, RetryOn::Exit(3)];
    Retry {
        max: rng.random_range(0..=4),
        on: on.into_iter().filter(|_| rng.random_bool(0.8)).collect(),
        backoff_ms: rng.random_range(0..10_000),
    }
}
