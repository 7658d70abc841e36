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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::arguments::Share;
    use crate::client::settings::Settings;
    use axum::extract::{Path, State};
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn node(id: &str, eligibility: &str, allocations: usize) -> Value {
        let resources = json!({ "cpu_millis": 1, "memory_bytes": 1, "disk_bytes": 1 });
        json!({
            "node_id": id, "name": format!("{id}.test"), "connected": true, "server": null, "lease": "renewed",
            "eligibility": eligibility, "cordoned_by": null, "cordoned_ms": null, "drain": null, "asked": [], "epoch": 1,
            "capacity": resources, "free": resources, "slots": 1, "allocations": allocations,
            "labels": { "pool": if id == "n4" { "small" } else { "large" } },
            "facts": { "kernel": "", "cgroups": "", "agent_version": "", "boot_id": "" }, "registered_ms": 1
        })
    }

    /// Nodes with one step each, which is over when it is looked at for the second time; notes how
    /// many were drained at once.
    #[derive(Default)]
    struct Fleet {
        draining: BTreeMap<String, usize>,
        most: usize,
        asked: Vec<String>,
        /// Somebody uncordons them at once.
        meddled_with: bool,
    }

    type Shared = Arc<Mutex<Fleet>>;

    async fn list() -> Json<Value> {
        let nodes = ["n1", "n2", "n3", "n4"].map(|id| node(id, "eligible", 1));
        Json(json!({ "nodes": nodes }))
    }

    async fn begin(State(fleet): State<Shared>, Path(id): Path<String>, Json(wish): Json<Value>) -> Json<Value> {
        let mut fleet = fleet.lock().expect("no panic");
        fleet.asked.push(format!("{id} {wish}"));
        fleet.draining.insert(id.clone(), 2);
        let busy = fleet.draining.values().filter(|left| **left > 0).count();
        fleet.most = fleet.most.max(busy);
        Json(json!({ "message": "is drained", "node": node(&id, "draining", 1) }))
    }

    async fn look_at(State(fleet): State<Shared>, Path(id): Path<String>) -> Json<Value> {
        let mut fleet = fleet.lock().expect("no panic");
        let meddled_with = fleet.meddled_with;
        let left = fleet.draining.entry(id.clone()).or_default();
        *left = left.saturating_sub(1);
        let eligibility = if meddled_with { "eligible" } else { "draining" };
        let mut shown = node(&id, eligibility, *left);
        shown["running"] = json!([]);
        Json(shown)
    }

    async fn serve(fleet: Shared) -> Api {
        let router = Router::new()
            .route("/api/v1/nodes", get(list))
            .route("/api/v1/nodes/{id}", get(look_at))
            .route("/api/v1/nodes/{id}/drain", post(begin))
            .with_state(fleet);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let settings = Settings::from(Some(format!("http://{addr}")), |_| None).expect("legal");
        Api::connect(&settings).expect("a client")
    }

    fn wish(max_unavailable: Option<Share>, no_wait: bool) -> DrainArguments {
        DrainArguments {
            nodes: NodeChoice {
                nodes: Vec::new(),
                selector: vec![("pool".to_owned(), "large".to_owned())],
            },
            deadline: Some("45m".parse().expect("legal")),
            max_unavailable,
            no_wait,
        }
    }

    fn silent() -> Output {
        Output::to(crate::client::OutputForm::Table, Box::new(std::io::sink()))
    }

    #[tokio::test]
    async fn no_more_nodes_are_drained_at_once_than_was_said() {
        for (share, most) in [(Some(Share::Percent(40)), 1), (Some(Share::Count(2)), 2), (None, 3)] {
            let fleet = Shared::default();
            let api = serve(fleet.clone()).await;
            let exit = drain(&api, &wish(share, false), &mut silent()).await.expect("drained");
            assert_eq!(exit, Exit::Success);
            let fleet = fleet.lock().expect("no panic");
            assert_eq!(fleet.most, most, "{share:?}");
            let asked: Vec<String> = ["n1", "n2", "n3"]
                .map(|id| format!("{id} {{\"deadline\":\"45m\"}}"))
                .to_vec();
            assert_eq!(fleet.asked, asked, "each once, and only those with the label");
            assert!(
                fleet.draining.values().all(|left| *left == 0),
                "it waited until they were empty"
            );
        }
    }

    #[tokio::test]
    async fn a_drain_that_somebody_ends_is_told() {
        let fleet = Shared::default();
        fleet.lock().expect("no panic").meddled_with = true;
        let api = serve(fleet).await;
        let ended = drain(&api, &wish(None, false), &mut silent())
            .await
            .expect_err("it was ended");
        assert!(ended.to_string().contains("was ended by somebody else"), "{ended}");
        let exit = drain(&api, &wish(None, true), &mut silent())
            .await
            .expect("it does not wait");
        assert_eq!(exit, Exit::Success);
    }

    #[test]
    fn a_share_of_nodes_is_one_at_least() {
        for (share, all, expected) in [
            (Share::Percent(5), 3, 1),
            (Share::Percent(5), 100, 5),
            (Share::Percent(100), 7, 7),
            (Share::Count(4), 2, 4),
        ] {
            assert_eq!(share.of(all), expected);
        }
    }
}
