//! The cost of the scheduler's whole view as nodes and live steps grow.
//!
//! Runs of 1,000 steps are told to a view, planned, verified and confirmed until every step has its
//! allocation. Not here: the store; what a commit costs is another experiment.

use crate::BenchError;
use crate::table::{Table, thousands};
use model::record::Unknown;
use model::{
    ClusterVersion, Event, NodeFacts, NodeId, NodeRecord, PipelineName, Record, Resources, Retry, RunDef, RunHeader,
    RunId, SessionRecord, Shell, Source, StageDef, StepDef, StepName, TeamName, key,
};
use scheduler::{Cluster, Malformed};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// Nodes and live steps.
pub(crate) const SIZES: [(usize, usize); 8] = [
    (1_200, 1),
    (1_200, 1_000),
    (1_200, 10_000),
    (1_200, 100_000),
    (100, 10_000),
    (5_000, 10_000),
    (20_000, 10_000),
    (20_000, 100_000),
];

/// The most steps of one run.
const RUN_STEPS: usize = 1_000;

/// One step's CPU in millis and memory; a node has room for twice its share of them.
const STEP_CPU: u64 = 500;
const STEP_MEMORY: u64 = 1 << 30;

/// The time of the view, milliseconds of the Unix epoch.
const NOW_MS: u64 = 1_700_000_000_000;

/// What one size cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    nodes: usize,
    steps: usize,
    placed: usize,
    read: Duration,
    plan: Duration,
    verify: Duration,
    confirm: Duration,
    /// What the process grew by while steps were read and placed, bytes; `None` where the system
    /// does not tell.
    memory: Option<u64>,
}

/// A text that is legal by how it is made here.
fn legal<T, E: std::fmt::Display>(id: Result<T, E>) -> Result<T, BenchError> {
    id.map_err(|cause| BenchError::Stopped(cause.to_string()))
}

/// A view and the revision of its store.
struct View {
    cluster: Cluster,
    revision: u64,
}

impl View {
    fn tell<R: Record>(&mut self, key: &str, record: &R) -> Result<(), BenchError> {
        self.revision += 1;
        let told = self.cluster.on_change(key, Some(&model::encode(record)), self.revision);
        told.map(|_| ())
            .map_err(|Malformed { key, reason }| BenchError::Stopped(format!("{key}: {reason}")))
    }

    fn with_nodes(nodes: usize, steps: usize) -> Result<Self, BenchError> {
        let (cluster, revision) = (Cluster::new(), 0);
        let mut view = Self { cluster, revision };
        let version = ClusterVersion {
            format: 1,
            epoch: 1,
            unknown: Unknown::new(),
        };
        view.tell(key::CLUSTER_VERSION, &version)?;
        let share = 2 * steps.div_ceil(nodes) as u64;
        for n in 0..nodes {
            let id = legal(NodeId::new(format!("n{n:06}")))?;
            view.tell(&key::node(&id), &node(&id, share))?;
            let session = SessionRecord {
                lease: 0,
                node: id.clone(),
                server: "s".to_owned(),
                node_epoch: 1,
                address: String::new(),
                connected: true,
                unknown: Unknown::new(),
            };
            view.tell(&key::session(&id), &session)?;
        }
        Ok(view)
    }

    fn tell_runs(&mut self, steps: usize) -> Result<(), BenchError> {
        let (mut left, mut n) = (steps, 0);
        while left > 0 {
            let count = left.min(RUN_STEPS);
            let (header, def) = run(n, count)?;
            for (chunk, text) in def.to_chunks().iter().enumerate() {
                self.tell(&key::run_def(&header.id, chunk), text)?;
            }
            self.tell(&key::run(&header.id), &header)?;
            (left, n) = (left - count, n + 1);
        }
        Ok(())
    }
}

fn node(id: &NodeId, share: u64) -> NodeRecord {
    NodeRecord {
        id: id.clone(),
        name: id.to_string(),
        epoch: 1,
        capacity: Resources {
            cpu_millis: share.max(2) * STEP_CPU,
            memory_bytes: share.max(2) * STEP_MEMORY,
            disk_bytes: 500 << 30,
        },
        slots: 10_000,
        labels: BTreeMap::from([("arch".to_owned(), "amd64".to_owned())]),
        facts: NodeFacts::default(),
        registered_ms: NOW_MS,
        unknown: Unknown::new(),
    }
}

fn step(n: usize) -> Result<StepDef, BenchError> {
    Ok(StepDef {
        name: legal(StepName::new(format!("step-{n}")))?,
        title: None,
        stage: 0,
        needs: Vec::new(),
        image: "alpine:3".to_owned(),
        before: Vec::new(),
        run: Vec::new(),
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: None,
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 1_800_000,
        allow_failure: false,
        resources: Resources {
            cpu_millis: STEP_CPU,
            memory_bytes: STEP_MEMORY,
            disk_bytes: 1 << 20,
        },
        pids: 100,
        shm_bytes: 0,
        labels: BTreeMap::new(),
        retry: Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    })
}

fn run(n: usize, steps: usize) -> Result<(RunHeader, RunDef), BenchError> {
    let stage = legal(StepName::new("main"))?;
    let def = RunDef {
        name: None,
        title: None,
        stages: vec![StageDef { name: stage }],
        steps: (0..steps).map(step).collect::<Result<_, _>>()?,
        rules: model::RunRules::default(),
    };
    let header = RunHeader {
        id: legal(RunId::new(format!("run{n:08}")))?,
        team: legal(TeamName::new(format!("team-{}", n % 50)))?,
        pipeline: legal(PipelineName::new("pipeline"))?,
        number: n as u64 + 1,
        attempt: 1,
        source: Source {
            repository: "https://git.example/r".to_owned(),
            git_ref: "refs/heads/main".to_owned(),
            commit: "0".repeat(40),
            message: String::new(),
            author: String::new(),
            event: Event::Push,
        },
        variables: BTreeMap::new(),
        inputs: std::collections::BTreeMap::new(),
        created_ms: NOW_MS + n as u64,
        def_chunks: def.to_chunks().len(),
        steps,
        error: None,
        request_id: "bench".to_owned(),
        requested_by: "bench".to_owned(),
        traceparent: None,
        unknown: Unknown::new(),
    };
    Ok((header, def))
}

/// The memory of this process in bytes, where the system tells it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

fn measure(nodes: usize, steps: usize) -> Result<Cost, BenchError> {
    let mut view = View::with_nodes(nodes, steps)?;
    view.cluster.plan(NOW_MS);
    let before = resident();
    let begin = Instant::now();
    view.tell_runs(steps)?;
    let read = begin.elapsed();
    let (mut plan, mut verify, mut confirm) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut placed = 0;
    loop {
        let begin = Instant::now();
        let proposed = view.cluster.plan(NOW_MS + 1_000_000);
        plan += begin.elapsed();
        if proposed.proposals.is_empty() {
            break;
        }
        let begin = Instant::now();
        let (verified, _) = view.cluster.verify(&proposed);
        verify += begin.elapsed();
        view.revision += 1;
        let begin = Instant::now();
        for verified in &verified {
            view.cluster.confirm(verified.ticket, view.revision);
        }
        confirm += begin.elapsed();
        placed += verified.len();
    }
    let memory = before
        .zip(resident())
        .map(|(before, after)| after.saturating_sub(before));
    Ok(Cost {
        nodes,
        steps,
        placed,
        read,
        plan,
        verify,
        confirm,
        memory,
    })
}

/// Measures each size and prints a line for it.
///
/// # Errors
/// [`BenchError`] when the table cannot be written or a step found no node.
pub(crate) fn report(sizes: &[(usize, usize)], out: &mut dyn Write) -> Result<(), BenchError> {
    let heads = [
        "a whole cluster",
        "nodes",
        "live steps",
        "read µs/step",
        "plan µs/step",
        "verify µs/step",
        "confirm µs/step",
        "bytes/step",
    ];
    let mut table = Table::with_heads(&heads);
    for (nodes, steps) in sizes {
        let cost = measure(*nodes, *steps)?;
        if cost.placed != cost.steps {
            let what = format!("{} of {} steps found a node of {nodes}", cost.placed, cost.steps);
            return Err(BenchError::Stopped(what));
        }
        table.row(row(&cost));
    }
    table.print(out)?;
    Ok(())
}

fn row(cost: &Cost) -> Vec<String> {
    let per_step = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / cost.steps.max(1) as f64);
    // Below this many steps the pages of the process say nothing about one of them.
    let told = cost.memory.filter(|_| cost.steps >= RUN_STEPS);
    let memory = told.map_or("-".to_owned(), |m| thousands(m as f64 / cost.steps as f64));
    let mut row = vec![
        String::new(),
        thousands(cost.nodes as f64),
        thousands(cost.steps as f64),
    ];
    row.extend([cost.read, cost.plan, cost.verify, cost.confirm].map(per_step));
    row.push(memory);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_a_small_cluster_finds_a_node() {
        let mut out = Vec::new();
        report(&[(3, 1), (20, 1_200)], &mut out).expect("measured");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.lines().count(), 3, "{text}");
        let cost = measure(7, 50).expect("measured");
        assert_eq!((cost.placed, cost.steps), (50, 50));
    }
}
