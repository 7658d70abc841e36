//! History in PostgreSQL: one table that several servers write and search at the same time.
//!
//! Every call has a time-out; a connection that broke is replaced, and while the database is away
//! calls are refused at once until the next try is due. Every write may be repeated. The client is
//! `tokio-postgres`: see `docs/decisions/0013-postgresql-client.md`. Not here: what a filter means
//! (`store::history::row`), and who calls.

mod connections;
mod fault;
#[cfg(feature = "process")]
pub mod process;
mod schema;
mod settings;

pub use settings::PostgresConfig;

use async_trait::async_trait;
use connections::Connections;
use model::{ArchivedRun, PipelineName, RunId, TeamName};
use store::history::row::{self, Statement, Value};
use store::history::{
    History, HistoryError, Oldest, RunFilter, RunPage, RunQuery, check_page, check_put, check_removal,
};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// The table.
const TABLE: &str = "buildflow_run";

/// One statement for a whole batch: the columns come as arrays.
const PUT: &str = "
    INSERT INTO buildflow_run AS kept
        (id, attempt, team, pipeline, number, status, branch, commit_id, created_ms, record)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (id) DO UPDATE SET
        attempt = excluded.attempt, team = excluded.team, pipeline = excluded.pipeline, number = excluded.number,
        status = excluded.status, branch = excluded.branch, commit_id = excluded.commit_id,
        created_ms = excluded.created_ms, record = excluded.record
    WHERE excluded.attempt > kept.attempt
";

/// As [`PUT`].
const REMOVE: &str = "DELETE FROM buildflow_run WHERE id = ANY($1)";

/// What a check looks at.
const CHECK: &str = "
    SELECT current_setting('server_version'), current_database()::text, pg_is_in_recovery(),
        has_table_privilege('buildflow_run', 'SELECT') AND has_table_privilege('buildflow_run', 'INSERT')
            AND has_table_privilege('buildflow_run', 'UPDATE') AND has_table_privilege('buildflow_run', 'DELETE'),
        (SELECT max(version) FROM buildflow_migration)
";

/// The engine. Clones share the connections.
#[derive(Debug, Clone)]
pub struct PostgresHistory {
    connections: std::sync::Arc<Connections>,
}

impl PostgresHistory {
    /// Connects once and brings the schema up to date. A database that cannot be reached is no
    /// error: it is tried again with every call, and builds go on without it.
    ///
    /// # Errors
    /// [`HistoryError::Failed`] for what no waiting mends, e.g. a wrong password or address, an
    /// unreadable certificate, a schema of a newer release; the text says what to do.
    pub async fn connect(config: PostgresConfig) -> Result<Self, HistoryError> {
        let connections = Connections::new(settings::Settings::of(&config)?);
        match connections.call("SELECT 1", &[]).await {
            Ok(_) => {}
            Err(error) if error.retry() => {
                tracing::warn!(%error, "history database not reachable, will be tried again with every call");
            }
            Err(error) => return Err(error),
        }
        Ok(Self {
            connections: std::sync::Arc::new(connections),
        })
    }

    async fn select(&self, statement: &Statement) -> Result<Vec<Row>, HistoryError> {
        let values: Vec<_> = statement.values.iter().map(typed).collect();
        self.connections.call(&statement.text, &values).await
    }

    async fn select_one(&self, statement: &Statement) -> Result<Option<ArchivedRun>, HistoryError> {
        let rows = records(&self.select(statement).await?)?;
        let read = |bytes: &Vec<u8>| row::record(bytes).map_err(|e| HistoryError::Failed(e.to_string()));
        rows.first().map(read).transpose()
    }
}

#[async_trait]
impl History for PostgresHistory {
    async fn put_runs(&self, runs: &[ArchivedRun]) -> Result<(), HistoryError> {
        check_put(runs)?;
        if runs.is_empty() {
            return Ok(());
        }
        let rows = row::rows(runs);
        let texts = |of: fn(&row::Row) -> &str| rows.iter().map(of).collect::<Vec<&str>>();
        let options = |of: fn(&row::Row) -> Option<&str>| rows.iter().map(of).collect::<Vec<Option<&str>>>();
        let numbers = |of: fn(&row::Row) -> i64| rows.iter().map(of).collect::<Vec<i64>>();
        let bytes: Vec<&[u8]> = rows.iter().map(|r| r.record.as_slice()).collect();
        let (ids, teams, pipelines) = (texts(|r| &r.id), texts(|r| &r.team), texts(|r| &r.pipeline));
        let statuses = texts(|r| &r.status);
        let (branches, commits) = (options(|r| r.branch.as_deref()), options(|r| r.commit.as_deref()));
        let (attempts, run_numbers) = (numbers(|r| r.attempt), numbers(|r| r.number));
        let created = numbers(|r| r.created_ms);
        self.connections
            .call(
                PUT,
                &[
                    (&ids, Type::TEXT_ARRAY),
                    (&attempts, Type::INT8_ARRAY),
                    (&teams, Type::TEXT_ARRAY),
                    (&pipelines, Type::TEXT_ARRAY),
                    (&run_numbers, Type::INT8_ARRAY),
                    (&statuses, Type::TEXT_ARRAY),
                    (&branches, Type::TEXT_ARRAY),
                    (&commits, Type::TEXT_ARRAY),
                    (&created, Type::INT8_ARRAY),
                    (&bytes, Type::BYTEA_ARRAY),
                ],
            )
            .await
            .map(drop)
    }

    async fn get_run(&self, run: &RunId) -> Result<Option<ArchivedRun>, HistoryError> {
        self.select_one(&Statement {
            text: format!("SELECT record FROM {TABLE} WHERE id = $1"),
            values: vec![Value::Text(run.to_string())],
        })
        .await
    }

    async fn find_run(
        &self,
        team: &TeamName,
        pipeline: &PipelineName,
        number: u64,
    ) -> Result<Option<ArchivedRun>, HistoryError> {
        self.select_one(&Statement {
            text: format!(
                "SELECT record FROM {TABLE} WHERE team = $1 AND pipeline = $2 AND number = $3 ORDER BY id DESC LIMIT 1"
            ),
            values: vec![
                Value::Text(team.to_string()),
                Value::Text(pipeline.to_string()),
                Value::Number(row::number(number)),
            ],
        })
        .await
    }

    async fn list_runs(&self, query: &RunQuery) -> Result<RunPage, HistoryError> {
        query.check()?;
        let Some(statement) = row::list(TABLE, query) else {
            return Ok(RunPage::default());
        };
        let mut rows = records(&self.select(&statement).await?)?;
        let more = rows.len() > query.limit;
        rows.truncate(query.limit);
        Ok(RunPage {
            runs: row::records(&rows),
            more,
        })
    }

    async fn count_runs(&self, filter: &RunFilter) -> Result<u64, HistoryError> {
        let Some(statement) = row::count(TABLE, filter) else {
            return Ok(0);
        };
        let rows = self.select(&statement).await?;
        let count: i64 = rows.first().map_or(Ok(0), |r| column(r, 0))?;
        Ok(count.unsigned_abs())
    }

    async fn oldest_runs(
        &self,
        created_before_ms: u64,
        after: Option<(u64, &RunId)>,
        limit: usize,
    ) -> Result<Vec<Oldest>, HistoryError> {
        check_page(limit)?;
        let rows = self
            .select(&row::oldest(TABLE, created_before_ms, after, limit))
            .await?;
        let mut runs = Vec::with_capacity(rows.len());
        for row in &rows {
            let (id, branch): (String, Option<String>) = (column(row, 1)?, column(row, 2)?);
            runs.extend(row::oldest_run(column(row, 0)?, &id, branch));
        }
        Ok(runs)
    }

    async fn remove_runs(&self, runs: &[RunId]) -> Result<(), HistoryError> {
        check_removal(runs)?;
        if runs.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = runs.iter().map(RunId::as_str).collect();
        self.connections
            .call(REMOVE, &[(&ids, Type::TEXT_ARRAY)])
            .await
            .map(drop)
    }

    async fn check(&self) -> Result<String, HistoryError> {
        let rows = self.connections.call(CHECK, &[]).await?;
        let Some(found) = rows.first() else {
            return Err(HistoryError::Failed("the database answers nothing".to_owned()));
        };
        let (version, database): (String, String) = (column(found, 0)?, column(found, 1)?);
        if column(found, 2)? {
            return Err(HistoryError::Failed(format!(
                "`{database}` is a standby, which takes nothing: name the primary, e.g. with \
                 `target_session_attrs=read-write` in `url`"
            )));
        }
        if !column::<bool>(found, 3)? {
            return Err(HistoryError::Failed(format!(
                "the user may not read and write the table {TABLE} of `{database}`: \
                 GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO it"
            )));
        }
        let schema: i32 = column(found, 4)?;
        Ok(format!("PostgreSQL {version}, schema {schema}, database `{database}`"))
    }
}

/// A placeholder's value with its type, so that the server need not be asked for it.
fn typed(value: &Value) -> (&(dyn ToSql + Sync), Type) {
    match value {
        Value::Text(text) => (text, Type::TEXT),
        Value::Number(number) => (number, Type::INT8),
    }
}

fn records(rows: &[Row]) -> Result<Vec<Vec<u8>>, HistoryError> {
    rows.iter().map(|r| column(r, 0)).collect()
}

fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, n: usize) -> Result<T, HistoryError> {
    row.try_get(n).map_err(|e| fault::of(&e))
}
