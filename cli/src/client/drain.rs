//! `node cordon`, `uncordon`, `drain` and `remove`: wishes, and waiting until they are fulfilled.
//!
//! Not here: carrying them out (the leader).

use super::arguments::{DrainArguments, NodeChoice};
use super::failure::{Exit, Failure};
use super::http::Api;
use super::nodes::id_among;
use super::output::{Output, Talk};
use api::dto::{DrainNode, Node, NodeChange, NodeDetail, NodeEligibility, NodeList};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How often a node is looked at while it is waited for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a removal waits for the node's lease and for its steps to be taken for lost: several
/// times the usual lease.
const REMOVE_MAX: Duration = Duration::from_secs(180);

pub(super) async fn cordon(api: &Api, choice: &NodeChoice, output: &mut Output) -> Result<Exit, Failure> {
    change_all(api, choice, "cordon", output).await
}

pub(super) async fn uncordon(api: &Api, choice: &NodeChoice, output: &mut Output) -> Result<Exit, Failure> {
    change_all(api, choice, "uncordon", output).await
}

async fn change_all(api: &Api, choice: &NodeChoice, verb: &str, output: &mut Output) -> Result<Exit, Failure> {
    let mut changes = Vec::new();
    for node in chosen(api, choice).await? {
        let change = api
            .post::<NodeChange>(&["nodes", &node.node_id, verb], None::<&()>)
            .await?;
        if !output.is_json() {
            output.line(&format!("{}: {}", node.name, change.body.message))?;
        }
        changes.push(change.raw);
    }
    if output.is_json() {
        output.json(&changes)?;
    }
    Ok(Exit::Success)
}

/// The nodes that are meant, at least one.
async fn chosen(api: &Api, choice: &NodeChoice) -> Result<Vec<Node>, Failure> {
    let all = api.get::<NodeList>(&["nodes"], &[]).await?.body.nodes;
    if choice.selector.is_empty() {
        let mut found = Vec::new();
        for name in &choice.nodes {
            let id = id_among(&all, name)?;
            found.extend(all.iter().find(|n| n.node_id == id).cloned());
        }
        return Ok(found);
    }
    let matches = |node: &&Node| {
        choice
            .selector
            .iter()
            .all(|(key, value)| node.labels.get(key) == Some(value))
    };
    let found: Vec<Node> = all.iter().filter(matches).cloned().collect();
    if found.is_empty() {
        let wanted: Vec<String> = choice.selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return Err(Failure::Usage(format!(
            "no node has the labels {}; `buildflow node show NODE` says which it has",
            wanted.join(", ")
        )));
    }
    Ok(found)
}

pub(super) async fn drain(api: &Api, arguments: &DrainArguments, output: &mut Output) -> Result<Exit, Failure> {
    let nodes = chosen(api, &arguments.nodes).await?;
    let at_once = arguments
        .max_unavailable
        .map_or(nodes.len(), |share| share.of(nodes.len()));
    let wish = DrainNode {
        deadline: arguments.deadline.map(|d| d.to_string()),
    };
    let mut waves = Waves {
        waiting: nodes.into(),
        under_way: BTreeMap::new(),
        at_once,
    };
    loop {
        while let Some(node) = waves.next() {
            let change = api
                .post::<NodeChange>(&["nodes", &node.node_id, "drain"], Some(&wish))
                .await?;
            output.talk.say(&format!("{}: {}", node.name, change.body.message));
            if !arguments.no_wait {
                waves.under_way.insert(node.node_id, node.name);
            }
        }
        if waves.under_way.is_empty() {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        look(api, &mut waves, output.talk).await?;
    }
    if !arguments.no_wait && !output.is_json() {
        output.line("all of them are empty; uncordon them when they are to take steps again")?;
    }
    if output.is_json() {
        let nodes = api.get::<NodeList>(&["nodes"], &[]).await?;
        output.json(&nodes.raw)?;
    }
    Ok(Exit::Success)
}

/// Which nodes are drained now and which later.
struct Waves {
    waiting: VecDeque<Node>,
    /// Id and name of those that are not empty yet.
    under_way: BTreeMap<String, String>,
    at_once: usize,
}

impl Waves {
    /// The next one, if there is room for it.
    fn next(&mut self) -> Option<Node> {
        if self.under_way.len() < self.at_once {
            self.waiting.pop_front()
        } else {
            None
        }
    }
}

/// What is seen of a node that is being drained.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// So many steps are on it.
    Busy(usize),
    Empty,
    /// Somebody has ended the drain.
    Ended,
}

fn seen(node: &Node) -> Seen {
    let still_asked = node.asked.iter().any(|wish| wish == "drain");
    match node.eligibility {
        NodeEligibility::Draining | NodeEligibility::Gone if node.allocations == 0 => Seen::Empty,
        NodeEligibility::Draining | NodeEligibility::Gone => Seen::Busy(node.allocations),
        NodeEligibility::Eligible | NodeEligibility::Cordoned if still_asked => Seen::Busy(node.allocations),
        NodeEligibility::Eligible | NodeEligibility::Cordoned => Seen::Ended,
    }
}

async fn look(api: &Api, waves: &mut Waves, talk: Talk) -> Result<(), Failure> {
    let ids: Vec<String> = waves.under_way.keys().cloned().collect();
    for id in ids {
        let node = api.get::<NodeDetail>(&["nodes", &id], &[]).await?.body.node;
        let line = match seen(&node) {
            Seen::Busy(steps) => format!("{}: {steps} steps are left", node.name),
            Seen::Empty => {
                waves.under_way.remove(&id);
                format!("{}: empty", node.name)
            }
            Seen::Ended => {
                return Err(Failure::Conflict(format!(
                    "the drain of {} was ended by somebody else; nothing was started twice",
                    node.name
                )));
            }
        };
        // Said when it changes only.
        if let Some(told) = waves.under_way.get_mut(&id) {
            if *told == line {
                continue;
            }
            told.clone_from(&line);
        }
        talk.say(&line);
    }
    Ok(())
}

/// Forgets a node. When its machine is said to be gone, waits until its lease and its steps have
/// ended.
pub(super) async fn remove(api: &Api, name: &str, confirm_gone: bool, output: &mut Output) -> Result<Exit, Failure> {
    let all = api.get::<NodeList>(&["nodes"], &[]).await?.body.nodes;
    let id = id_among(&all, name)?;
    if confirm_gone {
        let change = api
            .post::<NodeChange>(&["nodes", &id, "confirm-gone"], None::<&()>)
            .await?;
        output.talk.say(&change.body.message);
    }
    let end = Instant::now() + REMOVE_MAX;
    let mut told = String::new();
    loop {
        match api.delete(&["nodes", &id]).await {
            Err(Failure::Conflict(why)) if confirm_gone && Instant::now() < end => {
                if told != why {
                    output.talk.say(&format!("waiting: {why}"));
                    told = why;
                }
            }
            Err(failure) => return Err(failure),
            Ok(()) => break,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if output.is_json() {
        output.json(&serde_json::json!({ "removed": id }))?;
    } else {
        output.line(&format!(
            "{name} is removed; its machine needs a new join token to come back"
        ))?;
    }
    Ok(Exit::Success)
}
