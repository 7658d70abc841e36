//! Reads: a few connections of their own, each used by one read at a time, off the async threads.

use super::schema;
use crate::live::{Entry, PAGE_BYTES_MAX, Page, Revision, StoreError};
use rusqlite::{Connection, OptionalExtension, Row};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// How many reads run at once. Reads are short and mostly from memory; more would only contend.
const READERS: usize = 4;

/// The pool.
#[derive(Debug)]
pub(super) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(file: &Path) -> Result<Self, StoreError> {
        let idle: Result<Vec<Connection>, StoreError> = (0..READERS).map(|_| schema::open_for_reading(file)).collect();
        Ok(Self {
            file: file.to_owned(),
            idle: Mutex::new(idle?),
            places: Arc::new(Semaphore::new(READERS)),
        })
    }

    /// Runs a read on a connection of the pool, on a thread where it may block.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        what: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("it is shutting down".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let pool = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let answer = pool.with_connection(what);
            drop(place);
            answer
        });
        read.await.map_err(|_| closed())?
    }

    fn with_connection<T>(
        &self,
        what: impl FnOnce(&mut Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let taken = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match taken {
            Some(connection) => connection,
            None => schema::open_for_reading(&self.file)?,
        };
        let answer = what(&mut connection).map_err(|e| schema::failed(&self.file, &e));
        // A connection that failed is not trusted again; the next read opens a new one.
        if answer.is_ok() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(connection);
        }
        answer
    }
}

/// One key.
pub(super) fn get(connection: &mut Connection, key: &str) -> Result<Option<Entry>, rusqlite::Error> {
    entry(connection, key)
}

/// One key, within whatever transaction is open.
pub(super) fn entry(connection: &Connection, key: &str) -> Result<Option<Entry>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT key, value, mod_revision FROM kv WHERE key = ?1")?
        .query_row([key.as_bytes()], entry_of)
        .optional()
}

fn entry_of(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    Ok(Entry {
        key: key_of(row.get(0)?)?,
        value: row.get(1)?,
        mod_revision: revision_at(row, 2)?,
    })
}

/// A revision in a column; a negative one is damage.
pub(super) fn revision_at(row: &Row<'_>, column: usize) -> Result<Revision, rusqlite::Error> {
    let stored: i64 = row.get(column)?;
    let legal = u64::try_from(stored).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, stored))?;
    Ok(Revision(legal))
}

/// Keys are written from text only, so anything else is damage.
pub(super) fn key_of(bytes: Vec<u8>) -> Result<String, rusqlite::Error> {
    String::from_utf8(bytes)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(e)))
}

/// The keys that begin with a prefix, in order.
pub(super) fn keys_below(connection: &Connection, prefix: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut select = connection.prepare_cached("SELECT key FROM kv WHERE key >= ?1 ORDER BY key")?;
    let mut rows = select.query([prefix.as_bytes()])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let key = key_of(row.get(0)?)?;
        if !key.starts_with(prefix) {
            break;
        }
        keys.push(key);
    }
    Ok(keys)
}

/// One page, with the revision at which it was read.
pub(super) fn range(
    connection: &mut Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, rusqlite::Error> {
    let snapshot = connection.transaction()?;
    let mut page = Page {
        revision: revision(&snapshot)?,
        ..Page::default()
    };
    // The least key after `after` is `after` and a zero byte.
    let from = match after {
        Some(after) if after >= prefix => [after.as_bytes(), &[0]].concat(),
        _ => prefix.as_bytes().to_owned(),
    };
    let mut select = snapshot.prepare_cached("SELECT key, value, mod_revision FROM kv WHERE key >= ?1 ORDER BY key")?;
    let mut rows = select.query([from])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let key = row.get_ref(0)?.as_blob()?;
        if !key.starts_with(prefix.as_bytes()) {
            break;
        }
        if page.entries.len() == limit || bytes > PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        let entry = entry_of(row)?;
        bytes += entry.key.len() + entry.value.len();
        page.entries.push(entry);
    }
    Ok(page)
}

/// The revision of the newest change that this connection sees.
fn revision(connection: &Connection) -> Result<Revision, rusqlite::Error> {
    let found = schema::meta(connection, "revision")?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(Revision(u64::try_from(found).unwrap_or_default()))
}
