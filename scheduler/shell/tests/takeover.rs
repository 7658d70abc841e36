//! How long it takes to lead with many live steps: the clock is real, the store is in memory.

mod stage;

use model::record::Unknown;
use model::{AllocId, Allocation, ClusterVersion, DefChunk, Fence, Leader, RunDef, RunId, StepRecord, StepStatus, key};
use stage::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::live::TXN_OPS_MAX;
use store::memory::MemoryStore;
use store::{LeaseId, Store, Txn};

const RUNS: usize = 20;
const STEPS: usize = 1_000;

/// A generous bound, since other tests share the machine; what it really takes is printed.
const BOUND: Duration = Duration::from_secs(180);

/// Runs whose steps are all placed, and their orders.
async fn build_live_steps(store: &MemoryStore) {
    add_large_node(store).await;
    for number in 0..RUNS {
        let mut def = RunDef {
            name: None,
            title: None,
            stages: Vec::new(),
            steps: steps(STEPS),
            rules: model::RunRules::default(),
        };
        def.steps.iter_mut().for_each(|step| step.needs = Vec::new());
        let (id, chunks) = (format!("run{number:04}"), def.to_chunks());
        put_header(store, &id, &chunks, STEPS).await;
        let run = RunId::new(id).expect("legal");
        for some in (0..STEPS).collect::<Vec<_>>().chunks(TXN_OPS_MAX / 2) {
            let txn = some.iter().fold(Txn::new(), |txn, step| {
                let (record, order) = placed_by_hand(&run, *step);
                txn.put(key::step(&run, *step), &record)
                    .put(key::alloc(&order.node, &order.id), &order)
            });
            store.commit(txn).await.expect("in memory");
        }
    }
}

fn placed_by_hand(run: &RunId, step: usize) -> (StepRecord, Allocation) {
    let fence = Fence { epoch: 1, counter: 1 };
    let id = AllocId::for_step(run, step, fence);
    let mut record = StepRecord::first(StepStatus::Running);
    record.attempt = 1;
    record.fence = fence;
    record.alloc = Some(id.clone());
    record.node = Some(node_id());
    let order = Allocation {
        id,
        run: run.clone(),
        step,
        attempt: 1,
        fence,
        node: node_id(),
        node_epoch: 1,
        resources: steps(1)[0].resources,
        created_ms: 1,
        stop: None,
        stop_reason: None,
        unknown: Unknown::new(),
    };
    (record, order)
}

async fn put_header(store: &MemoryStore, id: &str, chunks: &[DefChunk], count: usize) {
    let mut header = header(id, count);
    header.def_chunks = chunks.len();
    for (n, chunk) in chunks.iter().enumerate() {
        put(store, key::run_def(&header.id, n), chunk).await;
    }
    put(store, key::run(&header.id), &header).await;
}

/// From the leader's key to the first plan.
fn takeover_seconds(handle: &scheduler_shell::SchedulerHandle) -> f64 {
    let families = handle.registry().gather();
    let family = families
        .iter()
        .find(|f| f.name() == "buildflow_scheduler_takeover_seconds");
    family.expect("it is measured").get_metric()[0]
        .get_histogram()
        .get_sample_sum()
}

/// A server that does nothing but lead, until this lease ends.
async fn lead_elsewhere(store: &MemoryStore) -> LeaseId {
    let version = ClusterVersion {
        format: 1,
        epoch: 1,
        unknown: Unknown::new(),
    };
    put(store, key::CLUSTER_VERSION.to_owned(), &version).await;
    let lease = store.lease_grant(3_600_000).await.expect("in memory");
    let leader = Leader {
        server: "a".to_owned(),
        unknown: Unknown::new(),
    };
    let claim = Txn::new().put_leased(key::LEADER, &leader, lease);
    store.commit(claim).await.expect("in memory");
    lease
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_leads_quickly_with_twenty_thousand_live_steps() {
    let store = Arc::new(MemoryStore::new());
    build_live_steps(&store).await;
    let before = lead_elsewhere(&store).await;
    let second = undisturbed(&store, "b");
    let probe = RunId::new(format!("run{:04}", RUNS - 1)).expect("legal");
    let warm = until_real("the follower is warm", BOUND, async || {
        second.handle.explain(&probe, 0).await
    })
    .await;
    assert_eq!((warm.status, second.handle.is_leader()), (StepStatus::Running, false));

    let stopped = Instant::now();
    store.lease_revoke(before).await.expect("in memory");
    second.handle.wait_for_leadership().await;
    let elected = stopped.elapsed();
    let run = add_run(&store, "next", 1).await;
    until_real("the next step is placed", BOUND, async || {
        step_record(&store, &run, 0).await
    })
    .await;
    let placed = stopped.elapsed();
    assert!(placed < BOUND);
    println!(
        "{} live steps: the follower leads {elected:?} after a clean stop, takes over in {:.3} s, and its first placement stands after {placed:?}",
        RUNS * STEPS,
        takeover_seconds(&second.handle)
    );
    assert_eq!(orders(&store).await.len(), RUNS * STEPS + 1, "nothing else has changed");
    second.stop.cancel();
    second.handle.wait().await;
}
