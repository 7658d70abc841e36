//! A run is read whole from the live store, and its blob is put.
//!
//! Nothing is left out: a run of which a part cannot be read, e.g. because a newer release wrote
//! it, stays where it is. Not here: when this is done, and what follows.

use super::blob;
use crate::clock::now_ms;
use crate::logs;
use crate::state::Server;
use api_core::archive::{Form, Move, StoreResult, blob_name, summary};
use model::key::{self, RunKey};
use model::record::Unknown;
use model::run::DEF_CHUNK_MAX;
use model::{ArchivedRun, DefChunk, RecordError, RunDef, RunHeader, RunId, StepRecord};
use pipeline::progress::Records;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::live::read_all;
use store::{BlobError, BlobName, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest that storing a run may take; an object store that answers nothing is asked again later.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the runs that are being stored may hold in memory together, KiB; a larger one has it for itself.
const BUDGET_KIB: u32 = 256 * 1024;

/// How many times a definition's text is in memory while it is stored: as records, read, and packed.
const COPIES: usize = 4;

/// The memory of runs that are being stored. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_KIB as usize)))
    }
}

impl Budget {
    /// Waits for room for the run. Dropping the answer gives it back.
    pub(super) async fn hold(&self, server: &Server, run: &RunId) -> Option<OwnedSemaphorePermit> {
        let header = server.view.read(|picture| picture.run(run)?.header().cloned());
        let chunks = header.map_or(0, |header| header.def_chunks);
        let kib = COPIES * chunks.max(1) * DEF_CHUNK_MAX / 1024;
        let kib = u32::try_from(kib).unwrap_or(BUDGET_KIB).min(BUDGET_KIB);
        // It is never closed.
        Arc::clone(&self.0).acquire_many_owned(kib).await.ok()
    }
}

/// Why a run was not stored.
#[derive(Debug, thiserror::Error)]
enum StoringError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("a part of the run cannot be read: {0}")]
    Record(#[from] RecordError),
    #[error("the run's definition cannot be read: {0}")]
    Definition(#[from] serde_json::Error),
    #[error("{found} of the definition's {expected} chunks are there")]
    Chunks { expected: usize, found: usize },
    #[error("it cannot be packed: {0}")]
    Pack(#[from] std::io::Error),
    #[error("it took too long")]
    Late,
}

/// A run as it lies in the live store.
struct Read {
    header: RunHeader,
    revision: u64,
    definition: Option<RunDef>,
    records: Records,
}

/// Puts the run's blob, if the run has ended and nothing is left to do.
pub(super) async fn store(server: &Server, run: &RunId, with_short_logs: bool) -> StoreResult {
    let stored = tokio::time::timeout(TIMEOUT, try_store(server, run, with_short_logs)).await;
    match stored.unwrap_or(Err(StoringError::Late)) {
        Ok(result) => result,
        Err(error) => {
            tracing::warn!(run_id = %run, %error, "run not archived, will be tried again");
            StoreResult::Failed
        }
    }
}

async fn try_store(server: &Server, run: &RunId, with_short_logs: bool) -> Result<StoreResult, StoringError> {
    let (read, reported) = tokio::join!(read(server.store(), run), is_reported(server, run));
    let Some(read) = read? else {
        return Ok(StoreResult::NotDue);
    };
    let Some(summary) = summary(&read.header, read.definition.as_ref(), &read.records) else {
        return Ok(StoreResult::NotDue);
    };
    if reported? || is_owed(server, run, &read.records) {
        return Ok(StoreResult::NotYet);
    }
    let blobs = server.deps.blobs.as_ref();
    if !with_short_logs && !logs::are_whole(blobs, run, &read.records).await? {
        return Ok(StoreResult::NotYet);
    }
    let name = BlobName::new(blob_name(&read.header))?;
    let form = Form::of(read.header, read.definition, read.records);
    let packed = tokio::task::spawn_blocking(move || blob::pack(&form));
    let packed = packed.await.map_err(std::io::Error::other)??;
    blobs.put(&name, packed).await?;
    Ok(StoreResult::Done(Box::new(Move {
        header_revision: read.revision,
        record: ArchivedRun {
            summary,
            blob: name.as_str().to_owned(),
            archived_ms: now_ms(),
            unknown: Unknown::new(),
        },
    })))
}

/// True while the leader still has something to do for the run: an order or a wish of somebody.
fn is_owed(server: &Server, run: &RunId, records: &Records) -> bool {
    server.view.read(|picture| {
        let orders = records
            .values()
            .filter_map(|r| Some((r.node.as_ref()?, r.alloc.as_ref()?)));
        let mut standing = orders.filter(|(node, alloc)| picture.allocs(node).any(|a| a.id == **alloc));
        standing.next().is_some() || picture.cancel_requested(run)
    })
}

/// True while the leader has not taken a report. Reports are under the ids of allocations, which begin
/// with the run's.
async fn is_reported(server: &Server, run: &RunId) -> Result<bool, StoreError> {
    let reports = format!("{}{run}-", key::OBSERVED);
    Ok(!server.store().range(&reports, None, 1).await?.entries.is_empty())
}

/// The run in one look, its header no newer than its parts.
async fn read(store: &dyn Store, run: &RunId) -> Result<Option<Read>, StoringError> {
    // The header is the first of them.
    let (entries, _) = read_all(store, &key::run(run)).await?;
    let mut header: Option<(RunHeader, u64)> = None;
    let (mut chunks, mut records): (BTreeMap<usize, DefChunk>, Records) = (BTreeMap::new(), Records::new());
    for part in &entries {
        match key::parse_run(&part.key) {
            Some(RunKey::Header(of)) if of == *run => header = Some((part.decode()?, part.mod_revision.0)),
            Some(RunKey::Def(of, n)) if of == *run => drop(chunks.insert(n, part.decode()?)),
            Some(RunKey::Step(of, n)) if of == *run => drop(records.insert(n, part.decode::<StepRecord>()?)),
            // Of a run whose id begins with this one's.
            Some(RunKey::Header(_) | RunKey::Def(..) | RunKey::Step(..)) | None => {}
        }
    }
    let Some((header, revision)) = header else {
        return Ok(None);
    };
    let (expected, found) = (header.def_chunks, chunks.len());
    if found != expected {
        return Err(StoringError::Chunks { expected, found });
    }
    let chunks: Vec<DefChunk> = chunks.into_values().collect();
    let definition = if chunks.is_empty() {
        None
    } else {
        Some(RunDef::from_chunks(&chunks)?)
    };
    Ok(Some(Read {
        header,
        revision,
        definition,
        records,
    }))
}
