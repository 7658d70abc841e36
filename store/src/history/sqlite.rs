//! History in one file beside the live store: SQLite with a write-ahead log.
//!
//! A connection of its own writes; a few others read and never wait for it. Everything runs on
//! threads that may block. Not here: the live store's file, which is another one, so that a large
//! history never slows a build down.

use super::row::{self, Row, Statement, Value};
use super::{History, HistoryError, Oldest, RunFilter, RunPage, RunQuery, check_page, check_put, check_removal};
use crate::durable::make_folder;
use async_trait::async_trait;
use model::{ArchivedRun, PipelineName, RunId, TeamName};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql, Transaction, params};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The file in the data folder.
const DATABASE_FILE: &str = "history.db";

/// Marks the file as ours ("BFhi"), so that no other program's database is ever written to.
const APPLICATION_ID: i32 = 0x4246_6869;

/// The write-ahead log is cut back to this many bytes once it is no longer needed.
const WAL_KEPT_BYTES: i64 = 16 << 20;

/// How long a write waits for another process, e.g. a person's shell, that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many reads run at once. More would only contend for the disk.
const READERS: usize = 4;

/// How long a call waits for its turn before it says that history has no time.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that a call works; a filter that matches next to nothing walks over many rows, and
/// must not hold a reader for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What each release has added; the ordinal from 1 is the schema's version.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE run (
        id         TEXT PRIMARY KEY,
        attempt    INTEGER NOT NULL,
        team       TEXT NOT NULL,
        pipeline   TEXT NOT NULL,
        number     INTEGER NOT NULL,
        status     TEXT NOT NULL,
        branch     TEXT,
        commit_id  TEXT,
        created_ms INTEGER NOT NULL,
        record     BLOB NOT NULL
    );
    CREATE INDEX run_by_number ON run (team, pipeline, number, id);
    CREATE INDEX run_by_pipeline_status ON run (team, pipeline, status, number, id);
    CREATE INDEX run_by_pipeline_branch ON run (team, pipeline, branch, number, id);
    CREATE INDEX run_by_team ON run (team, id);
    CREATE INDEX run_by_status ON run (status, id);
    CREATE INDEX run_by_branch ON run (branch, id);
    CREATE INDEX run_by_commit ON run (commit_id, id);
    CREATE INDEX run_by_time ON run (created_ms, id);
"];

const PUT: &str = "
    INSERT INTO run (id, attempt, team, pipeline, number, status, branch, commit_id, created_ms, record)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
    ON CONFLICT (id) DO UPDATE SET
        attempt = excluded.attempt, team = excluded.team, pipeline = excluded.pipeline, number = excluded.number,
        status = excluded.status, branch = excluded.branch, commit_id = excluded.commit_id,
        created_ms = excluded.created_ms, record = excluded.record
    WHERE excluded.attempt > run.attempt
";

/// The embedded engine. See the module's text.
#[derive(Debug, Clone)]
pub struct SqliteHistory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    writer: Lane,
    readers: Lane,
}

/// Connections of one kind, and the right to use them.
#[derive(Debug)]
struct Lane {
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    flags: OpenFlags,
}

impl Lane {
    fn new(places: usize, flags: OpenFlags) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            idle: Mutex::default(),
            flags,
        }
    }

    fn take(&self, file: &Path) -> Result<Connection, rusqlite::Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| connect(file, self.flags), Ok)
    }

    fn give_back(&self, connection: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

impl SqliteHistory {
    /// Opens the history in `folder` (the file `history.db`), making both if they are not there and
    /// bringing an older file up to date. Blocks for some fsyncs.
    ///
    /// # Errors
    /// [`HistoryError::Failed`] that says what to do: the file is damaged, of a newer release or not
    /// ours, the folder cannot be written.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, HistoryError> {
        let folder = folder.as_ref();
        make_folder(folder)
            .map_err(|e| HistoryError::Failed(format!("cannot make the folder {}: {e}", folder.display())))?;
        let file = folder.join(DATABASE_FILE);
        let common = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let writing = common | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut writer = connect(&file, writing).map_err(|e| failed(&file, &e))?;
        prepare(&mut writer, &file)?;
        let inner = Inner {
            writer: Lane::new(1, writing),
            readers: Lane::new(READERS, common | OpenFlags::SQLITE_OPEN_READ_ONLY),
            file,
        };
        inner.writer.give_back(writer);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs `what` on a connection of a lane, on a thread where it may block.
    async fn on<T: Send + 'static>(
        &self,
        lane: fn(&Inner) -> &Lane,
        what: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let busy = || HistoryError::Unavailable("too many searches at once; try again".to_owned());
        let turn = Arc::clone(&lane(&self.inner).places).acquire_owned();
        let turn = tokio::time::timeout(TURN_TIMEOUT, turn).await.map_err(|_| busy())?;
        let inner = Arc::clone(&self.inner);
        let (handle_in, handle) = tokio::sync::oneshot::channel();
        let mut done = tokio::task::spawn_blocking(move || {
            let lane = lane(&inner);
            let said = |e: rusqlite::Error| failed(&inner.file, &e);
            let mut connection = lane.take(&inner.file).map_err(said)?;
            // Nobody listens any more when the caller has gone away.
            let _ = handle_in.send(connection.get_interrupt_handle());
            let answer = what(&mut connection).map_err(said)?;
            // A connection that failed is not trusted again; the next call opens a new one.
            lane.give_back(connection);
            drop(turn);
            Ok(answer)
        });
        let stopped = |_| HistoryError::Unavailable("it is shutting down".to_owned());
        if let Ok(done) = tokio::time::timeout(CALL_TIMEOUT, &mut done).await {
            return done.map_err(stopped)?;
        }
        if let Ok(handle) = handle.await {
            handle.interrupt();
        }
        done.await.map_err(stopped)?
    }

    async fn select(&self, statement: Statement) -> Result<Vec<Vec<u8>>, HistoryError> {
        self.on(|i| &i.readers, move |c| select(c, &statement)).await
    }

    async fn select_one(&self, statement: Statement) -> Result<Option<ArchivedRun>, HistoryError> {
        let found = self.select(statement).await?;
        let read = |bytes: &Vec<u8>| row::record(bytes).map_err(|e| HistoryError::Failed(e.to_string()));
        found.first().map(read).transpose()
    }
}

#[async_trait]
impl History for SqliteHistory {
    async fn put_runs(&self, runs: &[ArchivedRun]) -> Result<(), HistoryError> {
        check_put(runs)?;
        let rows = row::rows(runs);
        self.on(|i| &i.writer, move |c| put(c, &rows)).await
    }

    async fn get_run(&self, run: &RunId) -> Result<Option<ArchivedRun>, HistoryError> {
        self.select_one(Statement {
            text: "SELECT record FROM run WHERE id = $1".to_owned(),
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
        self.select_one(Statement {
            text: "SELECT record FROM run WHERE team = $1 AND pipeline = $2 AND number = $3 ORDER BY id DESC LIMIT 1"
                .to_owned(),
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
        let Some(statement) = row::list("run", query) else {
            return Ok(RunPage::default());
        };
        let mut rows = self.select(statement).await?;
        let more = rows.len() > query.limit;
        rows.truncate(query.limit);
        Ok(RunPage {
            runs: row::records(&rows),
            more,
        })
    }

    async fn count_runs(&self, filter: &RunFilter) -> Result<u64, HistoryError> {
        let Some(statement) = row::count("run", filter) else {
            return Ok(0);
        };
        let count = self.on(|i| &i.readers, move |c| count(c, &statement)).await?;
        Ok(count.unsigned_abs())
    }

    async fn oldest_runs(
        &self,
        created_before_ms: u64,
        after: Option<(u64, &RunId)>,
        limit: usize,
    ) -> Result<Vec<Oldest>, HistoryError> {
        check_page(limit)?;
        let statement = row::oldest("run", created_before_ms, after, limit);
        let rows = self.on(|i| &i.readers, move |c| oldest(c, &statement)).await?;
        let runs = rows
            .into_iter()
            .map(|(at, id, branch)| row::oldest_run(at, &id, branch));
        Ok(runs.flatten().collect())
    }

    async fn remove_runs(&self, runs: &[RunId]) -> Result<(), HistoryError> {
        check_removal(runs)?;
        let ids: Vec<String> = runs.iter().map(ToString::to_string).collect();
        self.on(|i| &i.writer, move |c| remove(c, &ids)).await
    }

    async fn check(&self) -> Result<String, HistoryError> {
        let version = self
            .on(
                |i| &i.writer,
                |c| {
                    // Takes the right to write and gives it back.
                    let transaction = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
                    version(&transaction)
                },
            )
            .await?;
        Ok(format!(
            "SQLite {}, schema {version}, {}",
            rusqlite::version(),
            self.inner.file.display()
        ))
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Number(number) => number.to_sql(),
        }
    }
}

fn put(connection: &mut Connection, rows: &[Row]) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    put_rows(&transaction, rows)?;
    transaction.commit()
}

fn put_rows(transaction: &Transaction<'_>, rows: &[Row]) -> Result<(), rusqlite::Error> {
    let mut statement = transaction.prepare_cached(PUT)?;
    for r in rows {
        statement.execute(params![
            r.id,
            r.attempt,
            r.team,
            r.pipeline,
            r.number,
            r.status,
            r.branch,
            r.commit,
            r.created_ms,
            r.record
        ])?;
    }
    Ok(())
}

fn select(connection: &mut Connection, statement: &Statement) -> Result<Vec<Vec<u8>>, rusqlite::Error> {
    let mut prepared = connection.prepare_cached(&statement.text)?;
    let rows = prepared.query_map(rusqlite::params_from_iter(&statement.values), |r| r.get(0))?;
    rows.collect()
}

/// The columns of [`row::oldest`].
type OldestRow = (i64, String, Option<String>);

fn oldest(connection: &mut Connection, statement: &Statement) -> Result<Vec<OldestRow>, rusqlite::Error> {
    let mut prepared = connection.prepare_cached(&statement.text)?;
    let rows = prepared.query_map(rusqlite::params_from_iter(&statement.values), |r| {
        Ok((r.get(0)?, r.get(1)?, r.get(2)?))
    })?;
    rows.collect()
}

fn remove(connection: &mut Connection, ids: &[String]) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for id in ids {
        transaction
            .prepare_cached("DELETE FROM run WHERE id = ?1")?
            .execute([id])?;
    }
    transaction.commit()
}

fn count(connection: &mut Connection, statement: &Statement) -> Result<i64, rusqlite::Error> {
    let mut prepared = connection.prepare_cached(&statement.text)?;
    prepared.query_row(rusqlite::params_from_iter(&statement.values), |r| r.get(0))
}

fn connect(file: &Path, flags: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    Ok(connection)
}

/// Makes the tables, or those that are missing.
fn prepare(connection: &mut Connection, file: &Path) -> Result<(), HistoryError> {
    let said = |e: rusqlite::Error| failed(file, &e);
    let one = |sql: &str| connection.query_row(sql, [], |r| r.get::<_, i64>(0));
    let id = one("PRAGMA application_id").map_err(said)?;
    let tables = one("SELECT count(*) FROM sqlite_schema").map_err(said)?;
    if id != i64::from(APPLICATION_ID) && (id, tables) != (0, 0) {
        return Err(HistoryError::Failed(format!(
            "{} is another program's database; choose another data folder",
            file.display()
        )));
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0))
        .map_err(said)?;
    if mode != "wal" {
        return Err(HistoryError::Failed(format!(
            "the file system of {} has no shared memory for a write-ahead log; choose a local disk",
            file.display()
        )));
    }
    let found = migrate(connection).map_err(said)?;
    if found > MIGRATIONS.len() {
        return Err(HistoryError::Failed(format!(
            "{} has schema {found}; this release knows up to {}: upgrade this server",
            file.display(),
            MIGRATIONS.len()
        )));
    }
    Ok(())
}

/// Applies what is missing, in one transaction, so that a crash leaves the old schema or the new
/// one. Answers the version that was found, which may be newer than any that is known here.
fn migrate(connection: &mut Connection) -> Result<usize, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.execute(
        "CREATE TABLE IF NOT EXISTS migration (version INTEGER PRIMARY KEY) WITHOUT ROWID",
        [],
    )?;
    let found = version(&transaction)?;
    for (n, sql) in MIGRATIONS.iter().enumerate().skip(found) {
        transaction.execute_batch(sql)?;
        let version = i64::try_from(n + 1).unwrap_or(i64::MAX);
        transaction.execute("INSERT INTO migration VALUES (?1)", [version])?;
    }
    transaction.commit()?;
    Ok(found)
}

fn version(connection: &Connection) -> Result<usize, rusqlite::Error> {
    let newest: Option<i64> = connection.query_row("SELECT max(version) FROM migration", [], |r| r.get(0))?;
    Ok(newest.and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// SQLite's word as a sentence that says what to do.
fn failed(file: &Path, error: &rusqlite::Error) -> HistoryError {
    let file = file.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            HistoryError::Unavailable(format!("{file} is held by another program; close it"))
        }
        Some(ErrorCode::OperationInterrupted) => {
            HistoryError::Unavailable("the search took too long; narrow it".to_owned())
        }
        Some(ErrorCode::DiskFull) => HistoryError::Unavailable(format!("no room left for {file}; free some")),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => HistoryError::Failed(format!(
            "the file {file} is damaged ({error}); move it away and restore a backup"
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => HistoryError::Failed(
            format!("{file} cannot be written: {error}; check the folder and its owner"),
        ),
        _ => HistoryError::Failed(format!("{file}: {error}")),
    }
}
