//! The tables, and how an older schema is brought up to date.
//!
//! All in one transaction under a lock of the whole database, so that servers which start at the
//! same time wait for the first of them, and a crash leaves the old schema or the new one. Not
//! here: searches.

use crate::fault;
use store::HistoryError;
use tokio_postgres::Client;

/// Of the lock ("BFhi"): no other program's.
const LOCK: i64 = 0x4246_6869;

/// What each release has added; the ordinal from 1 is the schema's version. Ids are ordered
/// bytewise whatever the database's language, as in every list of runs.
const MIGRATIONS: &[&str] = &[r#"
    CREATE TABLE buildflow_run (
        id         text COLLATE "C" PRIMARY KEY,
        attempt    bigint NOT NULL,
        team       text COLLATE "C" NOT NULL,
        pipeline   text COLLATE "C" NOT NULL,
        number     bigint NOT NULL,
        status     text COLLATE "C" NOT NULL,
        branch     text COLLATE "C",
        commit_id  text COLLATE "C",
        created_ms bigint NOT NULL,
        record     bytea NOT NULL
    );
    CREATE INDEX buildflow_run_by_number ON buildflow_run (team, pipeline, number, id);
    CREATE INDEX buildflow_run_by_pipeline_status ON buildflow_run (team, pipeline, status, number, id);
    CREATE INDEX buildflow_run_by_pipeline_branch ON buildflow_run (team, pipeline, branch, number, id);
    CREATE INDEX buildflow_run_by_team ON buildflow_run (team, id);
    CREATE INDEX buildflow_run_by_status ON buildflow_run (status, id);
    CREATE INDEX buildflow_run_by_branch ON buildflow_run (branch, id);
    CREATE INDEX buildflow_run_by_commit ON buildflow_run (commit_id, id);
    CREATE INDEX buildflow_run_by_time ON buildflow_run (created_ms, id);
"#];

/// Brings the schema up to date.
pub(crate) async fn migrate(client: &mut Client) -> Result<(), HistoryError> {
    let found = try_migrate(client).await.map_err(|e| fault::of(&e))?;
    let known = MIGRATIONS.len();
    if usize::try_from(found).unwrap_or(usize::MAX) > known {
        return Err(HistoryError::Failed(format!(
            "the database has schema {found}; this release knows up to {known}: upgrade this server"
        )));
    }
    Ok(())
}

/// Answers the version that was found.
async fn try_migrate(client: &mut Client) -> Result<i32, tokio_postgres::Error> {
    // Usually there is nothing to do, and a user without the right to make tables may do it.
    if let Some(found) = version(client).await?
        && usize::try_from(found).is_ok_and(|n| n >= MIGRATIONS.len())
    {
        return Ok(found);
    }
    let transaction = client.transaction().await?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    transaction
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS buildflow_migration
                (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let row = transaction
        .query_one("SELECT coalesce(max(version), 0) FROM buildflow_migration", &[])
        .await?;
    let found: i32 = row.try_get(0)?;
    for (version, sql) in (1_i32..).zip(MIGRATIONS) {
        if version > found {
            transaction.batch_execute(sql).await?;
            transaction
                .execute("INSERT INTO buildflow_migration (version) VALUES ($1)", &[&version])
                .await?;
            tracing::info!(version, "history schema brought up to date");
        }
    }
    transaction.commit().await?;
    Ok(found)
}

/// The version that is there; `None` when there is none.
async fn version(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    let there = client
        .query_one("SELECT to_regclass('buildflow_migration') IS NOT NULL", &[])
        .await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let row = client
        .query_one("SELECT max(version) FROM buildflow_migration", &[])
        .await?;
    row.try_get(0)
}
