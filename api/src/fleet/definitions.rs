//! A run's header and definition: taken from the warm picture while the run goes on, otherwise read
//! once and kept for the next of its steps.
//!
//! Both are immutable, so nothing here is ever stale. Not here: what happens to a run.

use crate::view::View;
use model::{DefChunk, RecordError, RunDef, RunHeader, RunId, StepDef, key};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use store::{Store, StoreError};

/// Most definitions that are kept: those of the runs that go on at the same time, should the picture
/// not show them.
const KEPT_MAX: usize = 2_048;

/// Most bytes of definition text that are kept together.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A run as it was made.
#[derive(Debug)]
pub struct Definition {
    /// What was built and why.
    pub header: Arc<RunHeader>,
    /// Its stages and steps; empty when the header has an error.
    pub def: Arc<RunDef>,
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

/// The definitions of runs. Clones share them.
#[derive(Default, Clone)]
pub struct Definitions {
    view: Option<View>,
    kept: Arc<Mutex<Kept>>,
}

impl std::fmt::Debug for Definitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Definitions").finish_non_exhaustive()
    }
}

/// Those that were used last.
#[derive(Debug, Default)]
struct Kept {
    /// Each with the length of its text and when it was used.
    runs: HashMap<RunId, (Arc<Definition>, usize, u64)>,
    /// Which was used when, the oldest first.
    used: BTreeMap<u64, RunId>,
    bytes: usize,
    clock: u64,
}

impl Kept {
    fn find(&mut self, run: &RunId) -> Option<Arc<Definition>> {
        let (definition, _, used) = self.runs.get_mut(run)?;
        self.clock += 1;
        self.used.remove(used);
        *used = self.clock;
        self.used.insert(self.clock, run.clone());
        Some(definition.clone())
    }

    fn keep(&mut self, definition: Arc<Definition>, bytes: usize) {
        let run = definition.header.id.clone();
        self.clock += 1;
        self.bytes += bytes;
        self.used.insert(self.clock, run.clone());
        if let Some((_, bytes, used)) = self.runs.insert(run, (definition, bytes, self.clock)) {
            self.bytes -= bytes;
            self.used.remove(&used);
        }
        while self.runs.len() > KEPT_MAX || (self.bytes > KEPT_BYTES_MAX && self.runs.len() > 1) {
            let Some((_, oldest)) = self.used.pop_first() else {
                return;
            };
            if let Some((_, bytes, _)) = self.runs.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
    }
}

impl Definitions {
    /// Those that this picture shows need no reading.
    #[must_use]
    pub fn shown_by(view: View) -> Self {
        Self {
            view: Some(view),
            ..Self::default()
        }
    }

    /// The definition of a run, from memory or the store.
    ///
    /// # Errors
    /// [`DefinitionError`].
    pub async fn get(&self, store: &dyn Store, run: &RunId) -> Result<Arc<Definition>, DefinitionError> {
        if let Some(found) = self.shown(run).or_else(|| self.lock().find(run)) {
            return Ok(found);
        }
        let (definition, bytes) = read(store, run).await?;
        let definition = Arc::new(definition);
        self.lock().keep(definition.clone(), bytes);
        Ok(definition)
    }

    /// The definition of a run, if it was read before. Does not look at the picture.
    #[must_use]
    pub fn kept(&self, run: &RunId) -> Option<Arc<Definition>> {
        self.lock().find(run)
    }

    fn shown(&self, run: &RunId) -> Option<Arc<Definition>> {
        let (header, def) = self.view.as_ref()?.shown(run)?;
        Some(Arc::new(Definition { header, def }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
            rules: model::RunRules::default(),
        }
    } else {
        RunDef::from_chunks(&chunks).map_err(|cause| DefinitionError::Definition {
            run: run.clone(),
            cause,
        })?
    };
    let definition = Definition {
        header: Arc::new(header),
        def: Arc::new(def),
    };
    Ok((definition, bytes))
}
