//! The picture follows the store through restarts of its watch, and forgets nothing.

use super::stage::{FILE, PATIENCE, Stage, record};
use crate::view::{EVENTS_KEPT, EventId, RunEventKind};
use model::{StepStatus, key};
use store::{Revision, Store, Txn};

#[test]
fn places_in_a_history_are_read_back_and_ordered() {
    let at = |revision, ordinal| EventId {
        revision: Revision(revision),
        ordinal,
    };
    for id in [
        at(0, 0),
        at(7, 3),
        EventId::all_of(Revision(7)),
        EventId::end_at(Revision(7)),
    ] {
        assert_eq!(EventId::parse(&id.to_string()), Some(id));
    }
    assert!(at(7, 3) < EventId::all_of(Revision(7)) && EventId::all_of(Revision(7)) < at(8, 0));
    for bad in ["", "7", "-", "7-", "-7", "a-b", "7-4294967295", "all-1"] {
        assert_eq!(EventId::parse(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn a_fresh_picture_is_the_same_as_one_that_followed() {
    let mut stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    stage.pipeline("broken", "nonsense").await;
    let (done, going) = (stage.run("app").await, stage.run("app").await);
    stage.run("broken").await;
    for step in 0..3 {
        stage.lead(&done, step, StepStatus::Success).await;
    }
    stage.lead(&going, 0, StepStatus::Running).await;
    let mut fresh = Stage::over(stage.store.clone(), tempfile::tempdir().unwrap()).await;
    fresh.start_view().await;
    for path in [
        "/api/v1/runs",
        "/api/v1/pipelines",
        &format!("/api/v1/runs/{done}"),
        &format!("/api/v1/runs/{going}"),
    ] {
        let (old, new) = (stage.get(path).await.json, fresh.get(path).await.json);
        assert_eq!(old, new, "{path}");
    }
    assert!(fresh.server.view.held_def(&done).is_none() && fresh.server.view.held_def(&going).is_some());
    stage.loops.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_picture_of_a_quiet_store_is_complete_at_once() {
    let mut stage = Stage::over(std::sync::Arc::default(), tempfile::tempdir().unwrap()).await;
    let begun = tokio::time::Instant::now();
    stage.start_view().await;
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
}

#[tokio::test]
async fn a_run_that_moves_after_its_end_is_settled_again() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    for step in 0..3 {
        stage.lead(&run, step, StepStatus::Failed).await;
    }
    assert!(stage.server.view.held_def(&run).is_none());
    stage.lead(&run, 0, StepStatus::Success).await;
    stage.lead(&run, 1, StepStatus::Running).await;
    assert!(stage.server.view.held_def(&run).is_some(), "it was read from the store");
    assert_eq!(
        stage.get(&format!("/api/v1/runs/{run}")).await.json["status"],
        "running"
    );
}

#[tokio::test]
async fn only_the_newest_changes_of_a_run_are_kept() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let begun = stage.server.view.read(|p| EventId::all_of(p.revision()));
    for attempt in 1..=u32::try_from(EVENTS_KEPT).unwrap() {
        let mut next = record(StepStatus::Assigned);
        next.attempt = attempt;
        stage.lead_record(&run, 0, next).await;
    }
    stage.server.view.read(|p| {
        let entry = p.run(&run).unwrap();
        assert_eq!(entry.events_after(begun, p.revision()), None, "the oldest are gone");
        let last = entry.events_after(EventId::all_of(p.revision()), p.revision()).unwrap();
        assert!(last.is_empty());
    });
}

#[tokio::test]
async fn a_subscriber_hears_what_happens_after_it_subscribed() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let mut reader = stage.server.view.subscribe(&run);
    stage.lead(&run, 0, StepStatus::Running).await;
    let event = tokio::time::timeout(PATIENCE, reader.recv()).await.unwrap().unwrap();
    assert!(
        matches!(&event.what, RunEventKind::Step(s) if s.step == "compile"),
        "{event:?}"
    );
    assert!(
        !stage
            .server
            .view
            .wait_for(Revision(u64::MAX), std::time::Duration::from_millis(1))
            .await
    );
}

#[tokio::test]
async fn a_picture_whose_watch_was_compacted_is_read_anew() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let mut reader = stage.server.view.subscribe(&run);
    // More changes at once than a watch holds: while this thread writes, the follower cannot read.
    let steps = (0..5_000).map(|n| Txn::new().put(format!("noise/{n}"), &record(StepStatus::Queued)));
    for txn in steps {
        stage.store.commit(txn).await.unwrap();
    }
    stage.lead(&run, 0, StepStatus::Running).await;
    assert!(stage.server.metrics.view_resyncs.get() >= 1, "the fault was injected");
    assert!(
        tokio::time::timeout(PATIENCE, reader.recv()).await.unwrap().is_err(),
        "readers look again"
    );
    assert_eq!(
        stage.get(&format!("/api/v1/runs/{run}")).await.json["status"],
        "running"
    );
    let txn = Txn::new().delete(key::step(&run, 0));
    stage.write(txn).await;
    assert_eq!(stage.get(&format!("/api/v1/runs/{run}")).await.json["status"], "queued");
}
