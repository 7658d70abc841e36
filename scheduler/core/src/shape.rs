//! What a step asks of a node: steps of the same shape fit the same nodes, so one search serves all.

use model::{Resources, StepDef};
use std::collections::BTreeMap;

/// The resources and labels of a step, ordered so that it can be a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    cpu_millis: u64,
    memory_bytes: u64,
    disk_bytes: u64,
    labels: BTreeMap<String, String>,
}

impl Shape {
    pub(crate) fn of(def: &StepDef) -> Self {
        Self {
            cpu_millis: def.resources.cpu_millis,
            memory_bytes: def.resources.memory_bytes,
            disk_bytes: def.resources.disk_bytes,
            labels: def.labels.clone(),
        }
    }

    pub(crate) fn resources(&self) -> Resources {
        Resources {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            disk_bytes: self.disk_bytes,
        }
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// True when every node that takes `self` would take `other` too.
    pub(crate) fn asks_at_least(&self, other: &Self) -> bool {
        self.resources().fits(&other.resources()) && carries(&self.labels, &other.labels)
    }
}

/// True when `labels` holds all of `wanted` with the same values.
pub(crate) fn carries(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
