//! One trigger, one transaction: the inbox entry and the keys by which the same trigger is known again.
//!
//! Two callers with the same trigger meet at the guard of its key: one makes the run, the other is
//! answered the same run. Not here: whether the trigger makes sense.

use crate::clock::now_ms;
use crate::limit::{IDEMPOTENCY_KEPT, INBOX_MAX, SAME_TRIGGER};
use crate::state::Server;
use crate::trace::trace_id;
use model::record::Unknown;
use model::{DedupeRecord, Event, InboxEntry, PipelineName, RunId, TeamName, key};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use store::{Commit, Expect, LeaseId, Store, StoreError, Txn};
use tokio::time::Instant;

/// How often a trigger is tried again when its key expires, or its lease is lost, between two looks.
const TRIES: usize = 4;

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// Of which pipeline.
    pub team: TeamName,
    /// Of which pipeline.
    pub pipeline: PipelineName,
    /// The full ref; empty when a commit was asked for by its id.
    pub git_ref: String,
    /// The full commit id.
    pub commit: String,
    /// What caused it.
    pub event: Event,
    /// Extra environment.
    pub variables: BTreeMap<String, String>,
    /// What a person entered.
    pub inputs: BTreeMap<String, serde_json::Value>,
    /// The commit that the ref was at before, for events that say it.
    pub before: Option<String>,
}

impl Trigger {
    /// The entry of the inbox for it, accepted now, without who asked.
    pub(super) fn entry(&self, run: &RunId) -> InboxEntry {
        InboxEntry {
            run: run.clone(),
            team: self.team.clone(),
            pipeline: self.pipeline.clone(),
            git_ref: self.git_ref.clone(),
            commit: self.commit.clone(),
            event: self.event,
            variables: self.variables.clone(),
            inputs: self.inputs.clone(),
            before: self.before.clone(),
            accepted_ms: now_ms(),
            request_id: String::new(),
            requested_by: String::new(),
            traceparent: None,
            unknown: Unknown::new(),
        }
    }
}

/// What is remembered of a request under its caller's `Idempotency-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeptRequest {
    /// Nothing, or the caller named no key.
    New,
    /// It was asked before and got this id.
    Known(RunId),
}

/// Who asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The token's name.
    pub by: String,
    /// The request's id.
    pub request_id: String,
    /// Its W3C trace context.
    pub traceparent: String,
    /// The caller's `Idempotency-Key`.
    pub key: Option<String>,
    /// Hash of the request as it was asked: the same key must not be used for another one.
    pub fingerprint: String,
    /// Make a new run even if there is one of the same trigger.
    pub force: bool,
}

/// The run that a trigger leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The run.
    pub run: RunId,
    /// True when this trigger makes it.
    pub created: bool,
}

/// Why a trigger was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The key was used for another request.
    #[error("this Idempotency-Key was used for another request; use a new key for each request")]
    KeyReused,
    /// Too many triggers wait already.
    #[error("{INBOX_MAX} triggers wait to become runs already; try again in a moment")]
    Full,
    /// The store failed, or keys came and went too fast.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A new run id; later ids of one server are greater.
#[must_use]
pub fn new_run_id() -> RunId {
    static IDS: Mutex<ulid::Generator> = Mutex::new(ulid::Generator::new());
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    let id = ids.generate().unwrap_or_else(|_overflow| ulid::Ulid::generate());
    RunId::new(id.to_string().to_ascii_lowercase()).expect("a ULID has 26 letters and digits")
}

/// The key under which the same trigger is known for a minute.
fn trigger_key(trigger: &Trigger) -> String {
    let parts = (
        "trigger",
        &trigger.team,
        &trigger.pipeline,
        &trigger.git_ref,
        &trigger.commit,
        trigger.event,
        &trigger.variables,
        &trigger.inputs,
    );
    hashed(&parts)
}

/// The key under which a caller's `Idempotency-Key` is remembered, apart for each caller and pipeline.
fn caller_key(asked_by: &str, key: &str, team: &TeamName, pipeline: &PipelineName) -> String {
    hashed(&("key", asked_by, key, team, pipeline))
}

fn hashed(parts: &impl serde::Serialize) -> String {
    let text = serde_json::to_vec(parts).expect("strings always encode");
    key::dedupe(&hex::encode(Sha256::digest(text)))
}

/// Hash of a request, for [`Asked::fingerprint`].
#[must_use]
pub(crate) fn fingerprint(request: &impl serde::Serialize) -> String {
    let text = serde_json::to_vec(request).expect("requests have string keys");
    hex::encode(Sha256::digest(text))
}

/// The run that the caller's `Idempotency-Key` has led to before, if any.
///
/// # Errors
/// [`AcceptError`].
pub async fn known_by_key(
    store: &dyn Store,
    asked: &Asked,
    team: &TeamName,
    pipeline: &PipelineName,
) -> Result<Option<RunId>, AcceptError> {
    let Some(key) = &asked.key else { return Ok(None) };
    let Some(found) = store.get(&caller_key(&asked.by, key, team, pipeline)).await? else {
        return Ok(None);
    };
    known(&found, Some(&asked.fingerprint)).map(Some)
}

/// The dedupe key of a request that makes no run, apart for each caller.
fn request_key((by, key): (&str, Option<&str>)) -> Option<String> {
    key.map(|key| hashed(&("request", by, key)))
}

/// What is remembered of a request that makes no run, by caller and `Idempotency-Key`.
///
/// # Errors
/// [`AcceptError::KeyReused`] when the key was used for another request.
pub(crate) async fn kept_request(
    store: &dyn Store,
    asked: (&str, Option<&str>),
    fingerprint: &str,
) -> Result<KeptRequest, AcceptError> {
    let Some(key) = request_key(asked) else {
        return Ok(KeptRequest::New);
    };
    match store.get(&key).await? {
        None => Ok(KeptRequest::New),
        Some(found) => known(&found, Some(fingerprint)).map(KeptRequest::Known),
    }
}

/// Adds to a transaction that the request got this id, under its caller's `Idempotency-Key`.
///
/// # Errors
/// [`AcceptError::Store`].
pub(crate) async fn keep_request(
    server: &Server,
    txn: Txn,
    asked: (&str, Option<&str>),
    fingerprint: &str,
    id: &RunId,
) -> Result<Txn, AcceptError> {
    let Some(key) = request_key(asked) else { return Ok(txn) };
    let day = server.leases.idempotency.lease(server.store()).await?;
    let record = DedupeRecord {
        run: id.clone(),
        fingerprint: fingerprint.to_owned(),
        unknown: Unknown::new(),
    };
    Ok(txn.expect(&key, Expect::Absent).put_leased(&key, &record, day))
}

/// Commits what [`keep_request`] was part of.
///
/// # Errors
/// [`StoreError`]; when the lease of the keys was lost, the next request gets a new one.
pub(crate) async fn commit_kept(server: &Server, txn: Txn) -> Result<Commit, StoreError> {
    match server.store().commit(txn).await {
        Err(StoreError::NoLease(_)) => {
            server.leases.forget().await;
            Err(StoreError::Unavailable(
                "the lease of idempotency keys was lost".to_owned(),
            ))
        }
        committed => committed,
    }
}

/// The run of a dedupe record; `fingerprint` is given for a caller's own key.
fn known(entry: &store::Entry, fingerprint: Option<&str>) -> Result<RunId, AcceptError> {
    let record: DedupeRecord = entry.decode().map_err(|e| StoreError::Failed(e.to_string()))?;
    match fingerprint {
        Some(asked) if asked != record.fingerprint => Err(AcceptError::KeyReused),
        _ => Ok(record.run),
    }
}

/// Takes a trigger durably and answers its run. After this answer the run comes to be, whatever
/// crashes; the view shows the trigger.
///
/// # Errors
/// [`AcceptError`].
pub async fn accept(server: &Server, trigger: &Trigger, asked: &Asked) -> Result<Accepted, AcceptError> {
    if server.view.read(|p| p.inbox().len()) >= INBOX_MAX {
        return Err(AcceptError::Full);
    }
    let store = server.store();
    let by_trigger = trigger_key(trigger);
    let by_caller = asked
        .key
        .as_ref()
        .map(|k| caller_key(&asked.by, k, &trigger.team, &trigger.pipeline));
    for _ in 0..TRIES {
        let run = new_run_id();
        let minute = server.leases.same_trigger.lease(store).await?;
        let day = match &by_caller {
            Some(key) => Some((key.as_str(), server.leases.idempotency.lease(store).await?)),
            None => None,
        };
        let txn = accept_txn(trigger, asked, &run, (by_trigger.as_str(), minute), day);
        match store.commit(txn).await {
            Ok(Commit::Applied(revision)) => {
                tracing::info!(run_id = %run, team = %trigger.team, pipeline = %trigger.pipeline,
                    commit = trigger.commit, event = trigger.event.as_str(),
                    request_id = asked.request_id, trace_id = trace_id(&asked.traceparent), "trigger accepted");
                server.view.wait_for(revision, crate::limit::READ_BACK_TIMEOUT).await;
                return Ok(Accepted { run, created: true });
            }
            Ok(Commit::Refused {
                guard,
                found: Some(found),
            }) => {
                let own_key = by_caller.as_deref() == Some(guard.key.as_str());
                let run = known(&found, own_key.then_some(asked.fingerprint.as_str()))?;
                server.metrics.deduplicated.inc();
                tracing::info!(run_id = %run, "trigger is known already");
                return Ok(Accepted { run, created: false });
            }
            // The key has just expired.
            Ok(Commit::Refused { found: None, .. }) => {}
            Err(StoreError::NoLease(_)) => server.leases.forget().await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Unavailable("leases of triggers are lost again and again".to_owned()).into())
}

/// The caller's key rules if there is one; without it, the trigger's own does unless forced.
fn accept_txn(
    trigger: &Trigger,
    asked: &Asked,
    run: &RunId,
    (by_trigger, minute): (&str, LeaseId),
    by_caller: Option<(&str, LeaseId)>,
) -> Txn {
    let dedupe = |fingerprint: &str| DedupeRecord {
        run: run.clone(),
        fingerprint: fingerprint.to_owned(),
        unknown: Unknown::new(),
    };
    let entry = InboxEntry {
        request_id: asked.request_id.clone(),
        requested_by: asked.by.clone(),
        traceparent: Some(asked.traceparent.clone()),
        ..trigger.entry(run)
    };
    let txn = Txn::new().put(key::inbox(run.as_str()), &entry);
    match by_caller {
        Some((key, day)) => txn
            .expect(key, Expect::Absent)
            .put_leased(key, &dedupe(&asked.fingerprint), day)
            .put_leased(by_trigger, &dedupe(""), minute),
        None if asked.force => txn.put_leased(by_trigger, &dedupe(""), minute),
        None => txn
            .expect(by_trigger, Expect::Absent)
            .put_leased(by_trigger, &dedupe(""), minute),
    }
}

/// The leases under which dedupe records stand.
#[derive(Debug)]
pub struct Leases {
    same_trigger: SharedLease,
    idempotency: SharedLease,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            same_trigger: SharedLease::new(SAME_TRIGGER, Duration::from_secs(10)),
            idempotency: SharedLease::new(IDEMPOTENCY_KEPT, Duration::from_secs(600)),
        }
    }
}

impl Leases {
    async fn forget(&self) {
        *self.same_trigger.current.lock().await = None;
        *self.idempotency.current.lock().await = None;
    }
}

/// One lease for all records of a short while, so that a burst of triggers needs few leases. A
/// record stands for at least `kept`, and `window` longer at most.
#[derive(Debug)]
struct SharedLease {
    kept: Duration,
    window: Duration,
    current: tokio::sync::Mutex<Option<(LeaseId, Instant)>>,
}

impl SharedLease {
    fn new(kept: Duration, window: Duration) -> Self {
        Self {
            kept,
            window,
            current: tokio::sync::Mutex::default(),
        }
    }

    async fn lease(&self, store: &dyn Store) -> Result<LeaseId, StoreError> {
        let mut current = self.current.lock().await;
        if let Some((lease, granted)) = *current
            && granted.elapsed() < self.window
        {
            return Ok(lease);
        }
        let granted = Instant::now();
        let ttl = self.kept + self.window;
        let lease = store
            .lease_grant(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
            .await?;
        *current = Some((lease, granted));
        Ok(lease)
    }
}
