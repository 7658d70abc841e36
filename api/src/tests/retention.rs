//! What is old goes: logs first, then the run, whatever fails in between; what is not old stays.

use super::archive::Yard;
use crate::clock::now_ms;
use axum::http::StatusCode;
use model::{ArchivedRun, RunId, key};
use std::sync::atomic::Ordering;
use store::history::conformance::archived;
use store::{BlobName, BlobStore, History, Store};

const DAY_MS: u64 = 86_400_000;

/// A finished run of some days ago, of this ref, with two blobs of logs and its archive.
async fn kept(yard: &Yard, id: &str, days: u64, git_ref: &str) -> RunId {
    let mut run: ArchivedRun = archived(id, days);
    run.summary.created_ms = now_ms() - days * DAY_MS;
    run.summary.source.git_ref = git_ref.to_owned();
    yard.history.inner.put_runs(std::slice::from_ref(&run)).await.unwrap();
    for name in [
        format!("log/{id}/0/1.1/0-3"),
        format!("log/{id}/1/1.1/0-3"),
        run.blob.clone(),
    ] {
        yard.blobs
            .put(&BlobName::new(name).unwrap(), b"abc".to_vec())
            .await
            .unwrap();
    }
    run.summary.id
}

/// What is left of a run: blobs of logs, other blobs, its row.
async fn left(yard: &Yard, run: &RunId) -> (usize, usize, bool) {
    let count = async |prefix: String| yard.blobs.list(&prefix).await.unwrap().len();
    (
        count(format!("log/{run}/")).await,
        count(format!("archive/{run}/")).await,
        yard.history.inner.get_run(run).await.unwrap().is_some(),
    )
}

const ALL: (usize, usize, bool) = (2, 1, true);
const NO_LOGS: (usize, usize, bool) = (0, 1, true);
const NOTHING: (usize, usize, bool) = (0, 0, false);

/// The cases of the defaults: 400 days, 90 for the main branch and tags, 30 for others.
async fn cases(yard: &Yard) -> Vec<(RunId, (usize, usize, bool))> {
    let mut cases = Vec::new();
    for (id, days, git_ref, expected) in [
        ("01a-topic-new", 29, "refs/heads/topic", ALL),
        ("01b-topic-old", 31, "refs/heads/topic", NO_LOGS),
        ("01c-main-new", 89, "refs/heads/main", ALL),
        ("01d-main-old", 91, "refs/heads/main", NO_LOGS),
        ("01e-tag-new", 89, "refs/tags/v1", ALL),
        ("01f-main-gone", 401, "refs/heads/main", NOTHING),
        ("01g-topic-gone", 500, "refs/heads/topic", NOTHING),
    ] {
        cases.push((kept(yard, id, days, git_ref).await, expected));
    }
    cases
}

async fn until_as_expected(yard: &Yard, cases: &[(RunId, (usize, usize, bool))]) {
    yard.until("all is as it is to be", async |yard| {
        for (run, expected) in cases {
            if left(yard, run).await != *expected {
                return false;
            }
        }
        // The last thing of a sweep.
        yard.store.get(key::CLUSTER_RETENTION).await.unwrap().is_some()
    })
    .await;
}

#[tokio::test]
async fn what_is_old_goes_and_what_is_not_stays() {
    let mut yard = Yard::new().await;
    let cases = cases(&yard).await;
    yard.retain();
    yard.lead().await;
    until_as_expected(&yard, &cases).await;
    let metrics = yard.stage.server.metrics.text();
    for line in [
        "buildflow_retention_runs_removed_total 2",
        "buildflow_retention_logs_removed_total 2",
        "buildflow_retention_blobs_removed_total 10",
        "buildflow_retention_bytes_removed_total 30",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let reply = yard.stage.get("/api/v1/runs/01f-main-gone").await;
    assert_eq!(reply.code, StatusCode::NOT_FOUND, "{reply:?}");
}

#[tokio::test]
async fn a_sweep_that_was_cut_off_is_made_up_for_and_goes_on_where_it_was() {
    let mut yard = Yard::new().await;
    let cases = cases(&yard).await;
    // Blobs go first, so that what is cut off then is found again by its rows.
    yard.history.clings.store(true, Ordering::SeqCst);
    yard.retain();
    yard.lead().await;
    yard.until("a sweep has failed", async |yard| {
        yard.stage
            .server
            .metrics
            .text()
            .contains("buildflow_retention_failures_total 1")
    })
    .await;
    for (run, expected) in &cases {
        let found = left(&yard, run).await;
        let so_far = if *expected == NOTHING { (0, 0, true) } else { ALL };
        assert_eq!(found, so_far, "{run}");
    }
    yard.history.clings.store(false, Ordering::SeqCst);
    // The next leader does not wait.
    yard.lead().await;
    until_as_expected(&yard, &cases).await;
    // What comes later and is before the mark is not looked at again; what is after it is.
    let before = kept(&yard, "01h-late", 60, "refs/heads/topic").await;
    let after = kept(&yard, "01i-later", 30, "refs/heads/topic").await;
    yard.lead().await;
    until_as_expected(&yard, &[(before, ALL), (after, NO_LOGS)]).await;
}

#[tokio::test]
async fn a_run_of_the_live_store_is_left_alone() {
    let mut yard = Yard::new().await;
    let old = kept(&yard, "01j-old", 450, "refs/heads/main").await;
    let live = kept(&yard, "01k-live", 450, "refs/heads/main").await;
    yard.running(live.as_str()).await;
    yard.until("the picture shows it", async |yard| {
        yard.stage.server.view.read(|p| p.run(&live).is_some())
    })
    .await;
    yard.retain();
    yard.lead().await;
    until_as_expected(&yard, &[(old, NOTHING), (live, ALL)]).await;
}
