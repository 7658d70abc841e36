//! The database file: how it is opened, its tables, its format version, and what is wrong with it in plain words.

use crate::live::{Revision, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use std::path::Path;
use std::time::Duration;

/// The format that this release writes and reads. An older one is brought up when it is opened; a
/// newer one is refused.
const FORMAT: i64 = 1;

/// Marks the file as ours ("BFlw"), so that no other program's database is ever written to.
const APPLICATION_ID: i32 = 0x4246_6c77;

/// The write-ahead log is cut back to this many bytes once it is no longer needed.
const WAL_KEPT_BYTES: i64 = 16 << 20;

/// Nobody else writes, so nothing waits this long unless a person has opened the file by hand.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE kv (
        key          BLOB PRIMARY KEY,
        value        BLOB NOT NULL,
        mod_revision INTEGER NOT NULL,
        lease        INTEGER
    );
    CREATE INDEX kv_by_lease ON kv (lease) WHERE lease IS NOT NULL;
    CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL);
    INSERT INTO meta VALUES ('format', 1), ('revision', 0), ('granted', 0);
";

/// What a store knows when it is opened.
#[derive(Debug)]
pub(super) struct State {
    /// Of the newest change.
    pub(super) revision: Revision,
    /// The highest lease id ever granted.
    pub(super) granted: i64,
    /// Ids and times to live, milliseconds, of the leases that were alive.
    pub(super) leases: Vec<(i64, u64)>,
}

/// The one connection that writes.
pub(super) fn open_for_writing(file: &Path) -> Result<Connection, StoreError> {
    let said = |e: rusqlite::Error| failed(file, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(said)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(said)?;
    let id: i32 = connection
        .query_row("PRAGMA application_id", [], |r| r.get(0))
        .map_err(said)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))
        .map_err(said)?;
    match (id, tables) {
        (APPLICATION_ID, _) => {}
        (0, 0) => create(&connection).map_err(said)?,
        _ => {
            return Err(StoreError::Failed(format!(
                "{} is another program's database; choose another data folder",
                file.display()
            )));
        }
    }
    let mode = configure(&connection).map_err(said)?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!(
            "the file system of {} has no shared memory for a write-ahead log; choose a local disk",
            file.display()
        )));
    }
    Ok(connection)
}

/// Answers the journal mode that SQLite then has.
fn configure(connection: &Connection) -> Result<String, rusqlite::Error> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |r| r.get(0))
}

/// All at once, so that a crash leaves an empty file or a whole one.
fn create(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; COMMIT"
    ))
}

/// A connection that only reads.
pub(super) fn open_for_reading(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags).map_err(|e| failed(file, &e))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|e| failed(file, &e))?;
    Ok(connection)
}

/// Reads what stands, refusing a format that this release does not know.
pub(super) fn load(connection: &Connection, file: &Path) -> Result<State, StoreError> {
    let said = |e: rusqlite::Error| failed(file, &e);
    let format = meta(connection, "format").map_err(said)?;
    if format != Some(FORMAT) {
        return Err(StoreError::Failed(match format {
            Some(newer) => format!(
                "{} has format {newer}; this release reads up to {FORMAT}: upgrade this server",
                file.display()
            ),
            None => damaged(file, "it has no format version"),
        }));
    }
    let number = |name: &str| {
        let found = meta(connection, name).map_err(said)?;
        found.ok_or_else(|| StoreError::Failed(damaged(file, &format!("its {name} is missing"))))
    };
    let revision = number("revision")?;
    Ok(State {
        revision: Revision(
            u64::try_from(revision).map_err(|_| StoreError::Failed(damaged(file, "a negative revision")))?,
        ),
        granted: number("granted")?,
        leases: leases(connection).map_err(said)?,
    })
}

/// One number of the store itself.
pub(super) fn meta(connection: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |r| r.get(0))
        .optional()
}

fn leases(connection: &Connection) -> Result<Vec<(i64, u64)>, rusqlite::Error> {
    let mut all = connection.prepare("SELECT id, ttl_ms FROM lease")?;
    let rows = all.query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)?.unsigned_abs())))?;
    rows.collect()
}

fn damaged(file: &Path, how: &str) -> String {
    format!(
        "the file {} is damaged ({how}); move it away and restore a backup",
        file.display()
    )
}

/// SQLite's word as a sentence that says what to do.
pub(super) fn failed(file: &Path, error: &rusqlite::Error) -> StoreError {
    let code = error.sqlite_error_code();
    StoreError::Failed(match code {
        Some(ErrorCode::DiskFull) => format!("no room left for {}; free some and try again", file.display()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(file, &error.to_string()),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            format!(
                "{} cannot be written: {error}; check the folder and its owner",
                file.display()
            )
        }
        _ => format!("{}: {error}", file.display()),
    })
}
