//! The embedded history: through the suite of every engine, and what only it promises.

use std::sync::Arc;
use store::history::conformance::archived;
use store::{History, HistoryError, SqliteHistory};
use tempfile::TempDir;

async fn fresh() -> Option<(Arc<dyn History>, TempDir)> {
    let folder = tempfile::tempdir().expect("a folder");
    let history = SqliteHistory::open(folder.path()).expect("it opens");
    Some((Arc::new(history), folder))
}

store::history_conformance_tests!(fresh);

#[tokio::test]
async fn what_was_taken_is_there_after_a_new_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = archived("01jda", 1);
    for round in 0..3 {
        let history = SqliteHistory::open(folder.path().join("deep/er")).expect("it opens");
        let found = history.get_run(&run.summary.id).await.expect("it answers");
        assert_eq!(found.is_some(), round > 0);
        history.put_runs(std::slice::from_ref(&run)).await.expect("it is taken");
    }
    assert!(folder.path().join("deep/er/history.db").is_file());
}

#[tokio::test]
async fn a_file_that_is_not_ours_or_newer_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("history.db");
    std::fs::write(
        &file,
        "not a database at all, but long enough to be read as one ".repeat(40),
    )
    .expect("written");
    let refused = SqliteHistory::open(folder.path()).expect_err("damaged");
    assert!(
        matches!(&refused, HistoryError::Failed(why) if why.contains("is damaged")),
        "{refused}"
    );

    std::fs::remove_file(&file).expect("removed");
    let other = rusqlite::Connection::open(&file).expect("it opens");
    other.execute_batch("CREATE TABLE theirs (x)").expect("made");
    drop(other);
    let refused = SqliteHistory::open(folder.path()).expect_err("theirs");
    assert!(refused.to_string().contains("another program's database"), "{refused}");

    std::fs::remove_file(&file).expect("removed");
    drop(SqliteHistory::open(folder.path()).expect("ours"));
    let ours = rusqlite::Connection::open(&file).expect("it opens");
    ours.execute_batch("INSERT INTO migration VALUES (99)")
        .expect("written");
    drop(ours);
    let refused = SqliteHistory::open(folder.path()).expect_err("newer");
    assert!(refused.to_string().contains("upgrade this server"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_searches_than_connections_are_all_answered() {
    let (history, _keep) = fresh().await.expect("it opens");
    let runs: Vec<_> = (0..400).map(|n| archived(&format!("01jd{n:04}"), n)).collect();
    history.put_runs(&runs).await.expect("taken");
    let asked: Vec<_> = (0..40)
        .map(|_| {
            let history = history.clone();
            tokio::spawn(async move { history.count_runs(&store::history::RunFilter::default()).await })
        })
        .collect();
    for answer in asked {
        assert_eq!(answer.await.expect("no panic"), Ok(400));
    }
}
