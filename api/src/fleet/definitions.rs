//! A run's header and definition, read once and kept for the next of its steps.
//!
//! Both are immutable, so nothing here is ever stale. Not here: what happens to a run.

use model::{DefChunk, RecordError, RunDef, RunHeader, RunId, StepDef, key};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Store, StoreError};

/// Most definitions that are kept: the runs of which steps start at the same time.
const KEPT_MAX: usize = 512;

/// Most bytes of definition text that are kept together.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A run as it was made.
#[derive(Debug)]
pub struct Definition {
    /// What was built and why.
    pub header: RunHeader,
    /// Its stages and steps; empty when the header has an error.
    pub def: RunDef,
}

impl Definition {
    /// A step and the name of its stage.
    #[must_use]
    pub fn step(&self, step: usize) -> Option<(&StepDef, &str)> {
        let def = self.def.steps.get(step)?;
        let stage = self.def.stages.get(def.stage).map_or("", |s| s.name.as_str());
        Some((def, stage))
    }
}

/// Why a definition could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// There is no such run.
    #[error("run {0} is not there")]
    NoRun(RunId),
    /// A chunk of its definition is missing.
    #[error("run {run}: chunk {chunk} of the definition is missing")]
    NoChunk {
        /// The run.
        run: RunId,
        /// The chunk's ordinal.
        chunk: usize,
    },
    /// The header or a chunk does not decode.
    #[error("run {run}: {cause}")]
    Record {
        /// The run.
        run: RunId,
        /// What the reader of records said.
        cause: RecordError,
    },
    /// The chunks together are not a definition.
    #[error("run {run}: the definition does not decode: {cause}")]
    Definition {
        /// The run.
        run: RunId,
        /// What the JSON reader said.
        cause: serde_json::Error,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It may have been archived, but that could not be looked up.
    #[error(transparent)]
    Archive(#[from] crate::archive::ArchiveError),
}

/// The definitions that were used last. Clones share them.
#[derive(Debug, Default, Clone)]
pub struct Definitions {
    kept: Arc<Mutex<Kept>>,
}

/// The newest at the back, each with the length of its text.
type Kept = VecDeque<(Arc<Definition>, usize)>;

impl Definitions {
    /// The definition of a run, from memory or the store.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub async fn get(&self, store: &dyn Store, run: &RunId) -> Result<Arc<Definition>, DefinitionError> {
        if let Some(found) = self.kept(run) {
            return Ok(found);
        }
        let (definition, bytes) = read(store, run).await?;
        let definition = Arc::new(definition);
        self.keep(definition.clone(), bytes);
        Ok(definition)
    }

    /// The definition of a run, if it is in memory.
    #[must_use]
    pub fn kept(&self, run: &RunId) -> Option<Arc<Definition>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().rposition(|(d, _)| d.header.id == *run)?;
        let entry = kept.remove(index)?;
        let found = entry.0.clone();
        kept.push_back(entry);
        Some(found)
    }

    fn keep(&self, definition: Arc<Definition>, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(d, _)| d.header.id != definition.header.id);
        kept.push_back((definition, bytes));
        let mut total: usize = kept.iter().map(|(_, bytes)| bytes).sum();
        while kept.len() > KEPT_MAX || (total > KEPT_BYTES_MAX && kept.len() > 1) {
            total -= kept.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

async fn read(store: &dyn Store, run: &RunId) -> Result<(Definition, usize), DefinitionError> {
    let record = |cause| DefinitionError::Record {
        run: run.clone(),
        cause,
    };
    let entry = store.get(&key::run(run)).await?;
    let entry = entry.ok_or_else(|| DefinitionError::NoRun(run.clone()))?;
    let header: RunHeader = entry.decode().map_err(record)?;
    let mut chunks: Vec<DefChunk> = Vec::with_capacity(header.def_chunks.min(64));
    for chunk in 0..header.def_chunks {
        let entry = store.get(&key::run_def(run, chunk)).await?;
        let entry = entry.ok_or_else(|| DefinitionError::NoChunk {
            run: run.clone(),
            chunk,
        })?;
        chunks.push(entry.decode().map_err(record)?);
    }
    let bytes = chunks.iter().map(|c| c.text.len()).sum();
    let def = if chunks.is_empty() {
        RunDef {
            name: None,
            title: None,
            stages: Vec::new(),
            steps: Vec::new(),
        }
    } else {
        RunDef::from_chunks(&chunks).map_err(|cause| DefinitionError::Definition {
            run: run.clone(),
            cause,
        })?
    };
    Ok((Definition { header, def }, bytes))
}
