//! What a node says of itself, checked once: every later part trusts it.
//!
//! Not here: whether the caller may speak for a node, what is done with it.

use model::{AllocId, NodeFacts, NodeId, NodeRecord, Resources};
use std::collections::{BTreeMap, BTreeSet};
use wire::v1;

/// The longest host name (DNS) and the longest of the other texts.
const TEXT_MAX: usize = 253;
/// Most labels: a node record is read by every server and at every placement.
const LABELS_MAX: usize = 64;
/// The longest key and value of a label, as in the pipeline file.
const LABEL_MAX: usize = 128;
/// More cores than any machine has, thousandths.
const CPU_MAX: u64 = 100_000 * 1_000;
/// More bytes than any machine has; sums of some thousand nodes stay far below 64 bits.
const BYTES_MAX: u64 = 1 << 50;
/// Most allocations at once on one node.
const SLOTS_MAX: u32 = 10_000;
/// Most allocations that an agent may hold: what it keeps of ended ones included.
const HELD_MAX: usize = 20_000;

/// Why a Hello was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HelloError {
    /// The first message is another one.
    #[error("the first message must be Hello")]
    NotHello,
    /// A field is wrong.
    #[error("hello.{field}: {message}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

fn wrong(field: &'static str, message: impl Into<String>) -> HelloError {
    HelloError::Field {
        field,
        message: message.into(),
    }
}

/// A checked Hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) capacity: Resources,
    pub(super) slots: u32,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) facts: NodeFacts,
    /// What the agent has in its journal.
    pub(super) held: BTreeSet<AllocId>,
}

impl Registration {
    /// Checks the first message of a stream.
    pub(super) fn read(message: v1::AgentMessage) -> Result<Self, HelloError> {
        let Some(v1::agent_message::Message::Hello(hello)) = message.message else {
            return Err(HelloError::NotHello);
        };
        let node = NodeId::new(hello.node_id).map_err(|e| wrong("node_id", e.to_string()))?;
        let facts = NodeFacts {
            kernel: text("kernel", hello.kernel)?,
            cgroups: text("cgroups", hello.cgroups)?,
            agent_version: text("agent_version", hello.agent_version)?,
            boot_id: text("boot_id", hello.boot_id)?,
        };
        let name = text("name", hello.name)?;
        if name.is_empty() {
            return Err(wrong("name", "is empty; send the host's name"));
        }
        if !(1..=SLOTS_MAX).contains(&hello.slots) {
            return Err(wrong("slots", format!("is {}; must be 1 to {SLOTS_MAX}", hello.slots)));
        }
        Ok(Self {
            node,
            name,
            capacity: capacity(hello.capacity)?,
            slots: hello.slots,
            labels: labels(hello.labels)?,
            facts,
            held: held(hello.alloc_ids)?,
        })
    }

    /// The node's record under its `epoch`-th registration.
    pub(super) fn record(&self, before: Option<NodeRecord>, now_ms: u64) -> NodeRecord {
        let (epoch, unknown) = before.map_or_else(Default::default, |b| (b.epoch, b.unknown));
        NodeRecord {
            id: self.node.clone(),
            name: self.name.clone(),
            epoch: epoch + 1,
            capacity: self.capacity,
            slots: self.slots,
            labels: self.labels.clone(),
            facts: self.facts.clone(),
            registered_ms: now_ms,
            unknown,
        }
    }
}

fn text(field: &'static str, text: String) -> Result<String, HelloError> {
    if text.len() > TEXT_MAX {
        let message = format!("has {} bytes; {TEXT_MAX} at most", text.len());
        return Err(wrong(field, message));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong(field, "holds control characters"));
    }
    Ok(text)
}

fn capacity(capacity: Option<v1::Resources>) -> Result<Resources, HelloError> {
    let capacity = Resources::from(capacity.ok_or_else(|| wrong("capacity", "is missing"))?);
    let within = |what: &str, found: u64, most: u64| {
        if (1..=most).contains(&found) {
            Ok(())
        } else {
            Err(wrong("capacity", format!("{what} is {found}; must be 1 to {most}")))
        }
    };
    within("cpu_millis", capacity.cpu_millis, CPU_MAX)?;
    within("memory_bytes", capacity.memory_bytes, BYTES_MAX)?;
    within("disk_bytes", capacity.disk_bytes, BYTES_MAX)?;
    Ok(capacity)
}

fn labels(labels: std::collections::HashMap<String, String>) -> Result<BTreeMap<String, String>, HelloError> {
    if labels.len() > LABELS_MAX {
        let message = format!("there are {}; {LABELS_MAX} at most", labels.len());
        return Err(wrong("labels", message));
    }
    let legal = |text: &str| text.len() <= LABEL_MAX && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    for (key, value) in &labels {
        if key.is_empty() || !legal(key) || !legal(value) {
            let shown: String = key.chars().take(40).collect();
            let message = format!("`{shown:?}`: a key and its value have {LABEL_MAX} bytes at most and no blanks");
            return Err(wrong("labels", message));
        }
    }
    Ok(labels.into_iter().collect())
}

fn held(ids: Vec<String>) -> Result<BTreeSet<AllocId>, HelloError> {
    if ids.len() > HELD_MAX {
        let message = format!("there are {}; {HELD_MAX} at most", ids.len());
        return Err(wrong("alloc_ids", message));
    }
    let id = |text| AllocId::new(text).map_err(|e| wrong("alloc_ids", e.to_string()));
    ids.into_iter().map(id).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A Hello that is right.
    pub(crate) fn hello(node: &str) -> v1::Hello {
        v1::Hello {
            node_id: node.to_owned(),
            name: "host-1".to_owned(),
            capacity: Some(v1::Resources {
                cpu_millis: 8_000,
                memory_bytes: 16 << 30,
                disk_bytes: 100 << 30,
            }),
            slots: 16,
            labels: [("arch".to_owned(), "amd64".to_owned())].into(),
            kernel: "6.1.0".to_owned(),
            cgroups: "v2".to_owned(),
            agent_version: "0.1.0".to_owned(),
            boot_id: "b1".to_owned(),
            alloc_ids: vec!["01jd-0-1-1".to_owned()],
        }
    }

    fn read(hello: v1::Hello) -> Result<Registration, HelloError> {
        Registration::read(v1::AgentMessage {
            message: Some(v1::agent_message::Message::Hello(hello)),
        })
    }

    #[test]
    fn a_right_hello_becomes_the_next_epoch() {
        let registration = read(hello("n1")).unwrap();
        let first = registration.record(None, 5);
        assert_eq!((first.epoch, first.registered_ms, first.slots), (1, 5, 16));
        assert_eq!(registration.record(Some(first), 6).epoch, 2);
    }

    #[test]
    fn every_wrong_field_is_named() {
        type Spoil = fn(&mut v1::Hello);
        let cases: [(&str, Spoil); 14] = [
            ("hello.node_id: ", |h| h.node_id = "../x".to_owned()),
            ("hello.node_id: ", |h| h.node_id = String::new()),
            ("hello.name: is empty", |h| h.name = String::new()),
            ("hello.name: has 254 bytes", |h| h.name = "x".repeat(254)),
            ("hello.kernel: holds control", |h| h.kernel = "6\n1".to_owned()),
            ("hello.slots: is 0", |h| h.slots = 0),
            ("hello.slots: is 4294967295", |h| h.slots = u32::MAX),
            ("hello.capacity: is missing", |h| h.capacity = None),
            ("hello.capacity: cpu_millis is 0", |h| {
                h.capacity.as_mut().unwrap().cpu_millis = 0;
            }),
            ("hello.capacity: memory_bytes is 18446744073709551615", |h| {
                h.capacity.as_mut().unwrap().memory_bytes = u64::MAX;
            }),
            ("hello.labels: there are 65", |h| {
                h.labels = (0..65).map(|i| (i.to_string(), String::new())).collect();
            }),
            ("hello.labels: `\"a b\"`", |h| {
                h.labels.insert("a b".to_owned(), String::new());
            }),
            ("hello.alloc_ids: there are 20001", |h| {
                h.alloc_ids = vec!["a".to_owned(); 20_001]
            }),
            ("hello.alloc_ids: `a/b`", |h| h.alloc_ids = vec!["a/b".to_owned()]),
        ];
        for (expect, spoil) in cases {
            let mut hello = hello("n1");
            spoil(&mut hello);
            let error = read(hello).expect_err(expect).to_string();
            assert!(error.starts_with(expect), "{error} / {expect}");
        }
        let none = v1::AgentMessage { message: None };
        assert_eq!(Registration::read(none), Err(HelloError::NotHello));
    }
}
