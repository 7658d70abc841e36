//! A warm picture of the store: what every read of the interface is answered from.
//!
//! Filled by one watch over all keys, in the store's own order, so that it is always some past
//! state of the store as a whole. Not here: any write.

use crate::metrics::Metrics;
use model::{Allocation, NodeId, NodeRecord, RunHeader, RunId, StepRecord, TokenRecord};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use store::Revision;

/// The state of the store at one revision. In the making.
#[derive(Debug, Default)]
pub struct Picture {
    /// The revision that the picture shows.
    pub revision: Revision,
    tokens: HashMap<String, TokenRecord>,
    headers: BTreeMap<RunId, Arc<RunHeader>>,
    steps: BTreeMap<(RunId, usize), Arc<StepRecord>>,
    nodes: BTreeMap<NodeId, Arc<NodeRecord>>,
    allocs: BTreeMap<String, Arc<Allocation>>,
}

/// The picture, shared. Clones show the same.
#[derive(Clone)]
pub struct View {
    picture: Arc<RwLock<Picture>>,
    #[allow(dead_code, reason = "counts resyncs once the watch is followed")]
    metrics: Metrics,
}

impl View {
    /// An empty picture.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            picture: Arc::default(),
            metrics,
        }
    }

    /// Looks at the picture; `look` must be short, for writers wait meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Picture) -> T) -> T {
        look(&self.picture.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The record of the token with this hash.
    #[must_use]
    pub fn token(&self, hash: &str) -> Option<TokenRecord> {
        self.read(|p| p.tokens.get(hash).cloned())
    }

    /// A run's header.
    #[must_use]
    pub fn header(&self, run: &RunId) -> Option<Arc<RunHeader>> {
        self.read(|p| p.headers.get(run).cloned())
    }

    /// What happened to a step of a run; `None` while nothing has.
    #[must_use]
    pub fn step(&self, run: &RunId, step: usize) -> Option<Arc<StepRecord>> {
        self.read(|p| p.steps.get(&(run.clone(), step)).cloned())
    }

    /// A node's record.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> Option<Arc<NodeRecord>> {
        self.read(|p| p.nodes.get(node).cloned())
    }

    /// A standing allocation.
    #[must_use]
    pub fn alloc(&self, alloc: &str) -> Option<Arc<Allocation>> {
        self.read(|p| p.allocs.get(alloc).cloned())
    }
}
