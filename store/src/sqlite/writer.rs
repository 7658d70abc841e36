//! The one thread that writes: takes what waits, applies it in one SQLite transaction, answers all.

use super::Shared;
use super::reader::{self, entry, key_of, revision_at};
use super::schema::{self, State};
use crate::legal::write_bytes;
use crate::live::{Change, Commit, Guard, LeaseId, Revision, StoreError, Txn, Write};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The most calls that share one fsync: bounds how long the first of them waits for the last.
const GROUP_MAX: usize = 256;

/// The most bytes of writes that share one fsync.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// How soon a lease whose keys could not be removed, e.g. on a full disk, is tried again.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

/// How long the thread sleeps when no lease is alive.
const IDLE: Duration = Duration::from_secs(60);

/// Where an answer goes. Nobody may be listening any more; that is no reason to undo anything.
type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A call that waits, and its place among those that may.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ask: Ask,
    pub(super) _place: OwnedSemaphorePermit,
}

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    Commit {
        outer: Vec<Guard>,
        txns: Vec<Txn>,
        answer: Answer<Vec<Commit>>,
    },
    Grant {
        ttl_ms: u64,
        answer: Answer<LeaseId>,
    },
    Revoke {
        lease: LeaseId,
        answer: Answer<()>,
    },
}

impl Ask {
    fn bytes(&self) -> usize {
        match self {
            Self::Commit { txns, .. } => txns.iter().flat_map(|t| &t.writes).map(write_bytes).sum(),
            Self::Grant { .. } | Self::Revoke { .. } => 0,
        }
    }
}

/// What an ask has led to inside the open transaction; told to its caller once that is durable.
#[derive(Debug)]
enum Outcome {
    Commits(Result<Vec<Commit>, StoreError>),
    Granted(LeaseId, u64),
    Revoked(LeaseId),
}

pub(super) struct Writer {
    connection: Connection,
    file: PathBuf,
    shared: Arc<Shared>,
    /// As of the last transaction that is durable.
    revision: Revision,
    granted: i64,
    /// Leases that are over and whose keys are still there.
    dead: Vec<LeaseId>,
}

/// The writer's numbers and the changes inside an open transaction.
struct Open<'a> {
    connection: &'a Connection,
    shared: &'a Shared,
    revision: Revision,
    granted: i64,
    /// Leases that were revoked in this transaction and still stand in the table.
    revoked: Vec<LeaseId>,
    /// One group for each revision.
    changes: Vec<Vec<Change>>,
}

impl Writer {
    pub(super) fn new(connection: Connection, file: PathBuf, shared: Arc<Shared>, state: State) -> Self {
        Self {
            connection,
            file,
            shared,
            revision: state.revision,
            granted: state.granted,
            dead: Vec::new(),
        }
    }

    /// Serves until every sender is gone and all they sent is answered.
    pub(super) fn run(mut self, waiting: &Receiver<Job>) {
        loop {
            match waiting.recv_timeout(self.sleep()) {
                Ok(first) => {
                    let group = collect(first, waiting);
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.expire_leases();
        }
    }

    fn sleep(&self) -> Duration {
        let next = self.shared.leases().next_expiry().unwrap_or(IDLE).min(IDLE);
        if self.dead.is_empty() {
            next
        } else {
            next.min(EXPIRY_RETRY)
        }
    }

    /// Applies a group in one transaction. If that fails, each alone: one that is too large for
    /// what is left of a disk must not fail the others.
    fn serve(&mut self, group: Vec<Job>) {
        match self.transact(|open| group.iter().map(|job| open.apply(&job.ask)).collect()) {
            Ok(outcomes) => {
                let outcomes: Vec<Outcome> = outcomes;
                for (job, outcome) in group.into_iter().zip(outcomes) {
                    self.tell(job.ask, outcome);
                }
            }
            Err(_) if group.len() > 1 => {
                for job in group {
                    self.serve(vec![job]);
                }
            }
            Err(error) => {
                for job in group {
                    tell_failure(job.ask, schema::failed(&self.file, &error));
                }
            }
        }
    }

    /// Runs `work` in one durable transaction and publishes what it changed.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Open<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, rusqlite::Error> {
        let (revision, granted) = (self.revision, self.granted);
        // Rolled back when dropped without a commit.
        let sql = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut open = Open {
            connection: &sql,
            shared: &self.shared,
            revision,
            granted,
            revoked: Vec::new(),
            changes: Vec::new(),
        };
        let answer = work(&mut open)?;
        let Open {
            revision,
            granted,
            changes,
            ..
        } = open;
        if revision != self.revision {
            set_meta(&sql, "revision", sql_number(revision.0))?;
        }
        if granted != self.granted {
            set_meta(&sql, "granted", granted)?;
        }
        sql.commit()?;
        self.shared.durable_writes.fetch_add(1, Ordering::Relaxed);
        self.revision = revision;
        self.granted = granted;
        let mut hub = self.shared.hub();
        for group in changes {
            hub.publish(group);
        }
        Ok(answer)
    }

    /// Answers after the fact is durable.
    fn tell(&mut self, ask: Ask, outcome: Outcome) {
        match (ask, outcome) {
            (Ask::Commit { answer, .. }, Outcome::Commits(commits)) => drop(answer.send(commits)),
            (Ask::Grant { answer, .. }, Outcome::Granted(lease, ttl_ms)) => {
                self.shared.leases().insert(lease, ttl_ms);
                drop(answer.send(Ok(lease)));
            }
            (Ask::Revoke { answer, .. }, Outcome::Revoked(lease)) => {
                self.shared.leases().remove(lease);
                drop(answer.send(Ok(())));
            }
            (ask, outcome) => unreachable!("{ask:?} led to {outcome:?}: `Open::apply` pairs them"),
        }
    }

    fn expire_leases(&mut self) {
        let expired = self.shared.leases().take_expired();
        self.dead.extend(expired);
        if self.dead.is_empty() {
            return;
        }
        let dead = std::mem::take(&mut self.dead);
        let ended = self.transact(|open| dead.iter().try_for_each(|lease| open.end_lease(*lease)));
        if let Err(error) = ended {
            tracing::warn!(%error, leases = dead.len(), "expired leases are not yet removed");
            self.dead = dead;
        }
    }
}

/// What waits behind `first`, up to the bounds of a group.
fn collect(first: Job, waiting: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.ask.bytes();
    let mut group = vec![first];
    while group.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(job) = waiting.try_recv() else { break };
        bytes += job.ask.bytes();
        group.push(job);
    }
    group
}

fn tell_failure(ask: Ask, error: StoreError) {
    match ask {
        Ask::Commit { answer, .. } => drop(answer.send(Err(error))),
        Ask::Grant { answer, .. } => drop(answer.send(Err(error))),
        Ask::Revoke { answer, .. } => drop(answer.send(Err(error))),
    }
}

/// SQLite has signed numbers only; ours are far below the bound.
fn sql_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn set_meta(connection: &Connection, name: &str, value: i64) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?
        .execute(params![name, value])?;
    Ok(())
}

impl Open<'_> {
    fn apply(&mut self, ask: &Ask) -> Result<Outcome, rusqlite::Error> {
        match ask {
            Ask::Commit { outer, txns, .. } => Ok(Outcome::Commits(self.batch(outer, txns)?)),
            Ask::Grant { ttl_ms, .. } => {
                self.granted += 1;
                self.connection
                    .prepare_cached("INSERT INTO lease (id, ttl_ms) VALUES (?1, ?2)")?
                    .execute(params![self.granted, sql_number(*ttl_ms)])?;
                Ok(Outcome::Granted(LeaseId(self.granted), *ttl_ms))
            }
            Ask::Revoke { lease, .. } => {
                self.end_lease(*lease)?;
                self.revoked.push(*lease);
                Ok(Outcome::Revoked(*lease))
            }
        }
    }

    /// The outer error is the disk's; the inner one is the caller's and leaves nothing written.
    fn batch(&mut self, outer: &[Guard], txns: &[Txn]) -> Result<Result<Vec<Commit>, StoreError>, rusqlite::Error> {
        if let Some(refusal) = self.refusal(outer)? {
            return Ok(Ok(vec![refusal; txns.len()]));
        }
        let mut refusals = Vec::with_capacity(txns.len());
        for txn in txns {
            refusals.push(self.refusal(&txn.guards)?);
        }
        let standing = || {
            txns.iter()
                .zip(&refusals)
                .filter(|(_, r)| r.is_none())
                .flat_map(|(t, _)| &t.writes)
        };
        if let Some(lease) = self.missing_lease(standing()) {
            return Ok(Err(StoreError::NoLease(lease)));
        }
        let applied = Commit::Applied(self.write_all(standing())?);
        let commits = refusals.into_iter().map(|r| r.unwrap_or_else(|| applied.clone()));
        Ok(Ok(commits.collect()))
    }

    fn missing_lease<'w>(&self, writes: impl Iterator<Item = &'w Write>) -> Option<LeaseId> {
        let mut named = writes.filter_map(|w| match w {
            Write::Put { lease, .. } => *lease,
            Write::Delete { .. } | Write::DeletePrefix { .. } => None,
        });
        let leases = self.shared.leases();
        named.find(|lease| self.revoked.contains(lease) || !leases.is_alive(*lease))
    }

    /// The first guard that does not hold, as the answer to its transaction.
    fn refusal(&self, guards: &[Guard]) -> Result<Option<Commit>, rusqlite::Error> {
        for guard in guards {
            let found = self.mod_revision(&guard.key)?;
            if !guard.expect.holds(found) {
                return Ok(Some(Commit::Refused {
                    guard: guard.clone(),
                    found: entry(self.connection, &guard.key)?,
                }));
            }
        }
        Ok(None)
    }

    fn mod_revision(&self, key: &str) -> Result<Option<Revision>, rusqlite::Error> {
        self.connection
            .prepare_cached("SELECT mod_revision FROM kv WHERE key = ?1")?
            .query_row([key.as_bytes()], |r| revision_at(r, 0))
            .optional()
    }

    /// Writes under the next revision, if anything changes; answers the revision that then stands.
    fn write_all<'w>(&mut self, writes: impl Iterator<Item = &'w Write>) -> Result<Revision, rusqlite::Error> {
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::new();
        for write in writes {
            changes.extend(self.write(write, revision)?);
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.changes.push(changes);
        }
        Ok(self.revision)
    }

    fn write(&self, write: &Write, revision: Revision) -> Result<Vec<Change>, rusqlite::Error> {
        let (changed, value) = match write {
            Write::DeletePrefix { prefix } => return self.delete_prefix(prefix, revision),
            Write::Put { key, value, lease } => {
                let put = "INSERT INTO kv (key, value, mod_revision, lease) VALUES (?1, ?2, ?3, ?4)
                           ON CONFLICT (key) DO UPDATE SET value = ?2, mod_revision = ?3, lease = ?4";
                let lease = lease.map(|l| l.0);
                let mut put = self.connection.prepare_cached(put)?;
                (
                    put.execute(params![key.as_bytes(), value, sql_number(revision.0), lease])?,
                    Some(value.clone()),
                )
            }
            Write::Delete { key } => {
                let mut delete = self.connection.prepare_cached("DELETE FROM kv WHERE key = ?1")?;
                (delete.execute([key.as_bytes()])?, None)
            }
        };
        let change = Change {
            key: write.key().to_owned(),
            value,
            revision,
        };
        Ok(if changed > 0 { vec![change] } else { Vec::new() })
    }

    fn delete_prefix(&self, prefix: &str, revision: Revision) -> Result<Vec<Change>, rusqlite::Error> {
        let mut delete = self.connection.prepare_cached("DELETE FROM kv WHERE key = ?1")?;
        let mut changes = Vec::new();
        for key in reader::keys_below(self.connection, prefix)? {
            delete.execute([key.as_bytes()])?;
            changes.push(Change {
                key,
                value: None,
                revision,
            });
        }
        Ok(changes)
    }

    /// Removes a lease and its keys in one revision; nothing if it is not there.
    fn end_lease(&mut self, lease: LeaseId) -> Result<(), rusqlite::Error> {
        let keys = self.keys_of(lease)?;
        let deletes: Vec<Write> = keys.into_iter().map(|key| Write::Delete { key }).collect();
        self.write_all(deletes.iter())?;
        self.connection
            .prepare_cached("DELETE FROM lease WHERE id = ?1")?
            .execute([lease.0])?;
        Ok(())
    }

    fn keys_of(&self, lease: LeaseId) -> Result<Vec<String>, rusqlite::Error> {
        let mut select = self
            .connection
            .prepare_cached("SELECT key FROM kv WHERE lease = ?1 ORDER BY key")?;
        let mut rows = select.query([lease.0])?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            keys.push(key_of(row.get(0)?)?);
        }
        Ok(keys)
    }
}
