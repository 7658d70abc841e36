//! `node list` and `node show`.

use super::failure::{Exit, Failure};
use super::http::Api;
use super::output::Output;
use super::table::{Cell, Colour, ago, cores, fields, now_ms, size, table};
use api::dto::{Node, NodeAllocation, NodeDetail, NodeEligibility, NodeLease, NodeList};

pub(super) async fn list(api: &Api, output: &mut Output) -> Result<Exit, Failure> {
    let nodes = api.get::<NodeList>(&["nodes"], &[]).await?;
    if output.is_json() {
        output.json(&nodes.raw)?;
        return Ok(Exit::Success);
    }
    if nodes.body.nodes.is_empty() {
        output.talk.say("no node has registered yet");
        return Ok(Exit::Success);
    }
    let rows: Vec<Vec<Cell>> = nodes.body.nodes.iter().map(row).collect();
    let heading = ["NODE", "STATUS", "STEPS", "FREE CPU", "FREE MEMORY", "FREE DISK", "ID"];
    output.text(&table(output.paint, &heading, &rows))?;
    Ok(Exit::Success)
}

fn row(node: &Node) -> Vec<Cell> {
    let (free, all) = (&node.free, &node.capacity);
    vec![
        node.name.as_str().into(),
        status(node),
        format!("{}/{}", node.allocations, node.slots).into(),
        format!("{} of {}", cores(free.cpu_millis), cores(all.cpu_millis)).into(),
        format!("{} of {}", size(free.memory_bytes), size(all.memory_bytes)).into(),
        format!("{} of {}", size(free.disk_bytes), size(all.disk_bytes)).into(),
        node.node_id.as_str().into(),
    ]
}

fn status(node: &Node) -> Cell {
    let colour = match (node.connected, node.eligibility) {
        (false, _) => Colour::Red,
        (true, NodeEligibility::Eligible) => Colour::Green,
        (true, _) => Colour::Yellow,
    };
    Cell::coloured(colour, &status_words(node))
}

/// Whether its agent is there, and whether it takes steps.
fn status_words(node: &Node) -> String {
    let there = match (node.connected, node.lease) {
        (true, _) => "connected",
        (false, NodeLease::RunningOut) => "away, its lease runs out",
        (false, _) => "away",
    };
    let taking = match node.eligibility {
        NodeEligibility::Eligible => "",
        NodeEligibility::Cordoned => ", cordoned",
        NodeEligibility::Draining => ", draining",
        NodeEligibility::Gone => ", confirmed gone",
    };
    format!("{there}{taking}")
}

pub(super) async fn show(api: &Api, name: &str, output: &mut Output) -> Result<Exit, Failure> {
    let id = id_of(api, name).await?;
    let node = api.get::<NodeDetail>(&["nodes", &id], &[]).await?;
    if output.is_json() {
        output.json(&node.raw)?;
        return Ok(Exit::Success);
    }
    let paint = output.paint;
    let NodeDetail { node, running } = node.body;
    let now = now_ms();
    output.text(&about(&node, now))?;
    if !running.is_empty() {
        let rows: Vec<Vec<Cell>> = running.iter().map(|a| allocation(a, now)).collect();
        let heading = ["RUN", "STEP", "STATUS", "CPU", "MEMORY", "PLACED", "RUN ID"];
        output.text(&format!("\n{}", table(paint, &heading, &rows)))?;
    }
    Ok(Exit::Success)
}

fn about(node: &Node, now: u64) -> String {
    let labels: Vec<String> = node.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let room = |free: String, all: String| format!("{free} of {all} free");
    let (free, all) = (&node.free, &node.capacity);
    fields(&[
        ("node", format!("{}  {}", node.name, node.node_id)),
        ("status", status_words(node)),
        ("server", node.server.clone().unwrap_or_default()),
        ("cordoned", cordoned(node, now)),
        ("asked for", node.asked.join(", ")),
        (
            "registered",
            format!("{} (for the {}. time)", ago(node.registered_ms, now), node.epoch),
        ),
        ("cpu", room(cores(free.cpu_millis), cores(all.cpu_millis))),
        ("memory", room(size(free.memory_bytes), size(all.memory_bytes))),
        ("disk", room(size(free.disk_bytes), size(all.disk_bytes))),
        ("steps", format!("{} of at most {}", node.allocations, node.slots)),
        ("labels", labels.join(", ")),
        ("kernel", node.facts.kernel.clone()),
        ("cgroups", node.facts.cgroups.clone()),
        ("agent", node.facts.agent_version.clone()),
    ])
}

/// By whom and since when, and how far its drain is.
fn cordoned(node: &Node, now: u64) -> String {
    let Some(by) = &node.cordoned_by else {
        return String::new();
    };
    let since = node
        .cordoned_ms
        .map(|ms| format!(", {}", ago(ms, now)))
        .unwrap_or_default();
    let drain = match &node.drain {
        None => String::new(),
        Some(drain) => {
            let until = drain
                .deadline_ms
                .map(|ms| format!(" until {}", pki::rfc3339(ms / 1_000)));
            format!(
                "; drained{}, {} steps are left",
                until.unwrap_or_default(),
                drain.orders_left
            )
        }
    };
    format!("by {by}{since}{drain}")
}

fn allocation(a: &NodeAllocation, now: u64) -> Vec<Cell> {
    let pipeline = match (&a.team, &a.pipeline) {
        (Some(team), Some(pipeline)) => format!("{team}/{pipeline}"),
        _ => String::new(),
    };
    let number = a.number.map(|n| format!("#{n}")).unwrap_or_default();
    let status = a.status.map_or("", |s| s.as_str());
    let status = if a.stopping {
        format!("{status}, ending")
    } else {
        status.to_owned()
    };
    vec![
        format!("{pipeline}{number}").into(),
        a.step.clone().unwrap_or_else(|| format!("step {}", a.ordinal)).into(),
        a.status
            .map_or_else(|| Cell::from(&status), |s| Cell::coloured(Colour::of_step(s), &status)),
        cores(a.resources.cpu_millis).into(),
        size(a.resources.memory_bytes).into(),
        ago(a.created_ms, now).into(),
        a.run_id.as_str().into(),
    ]
}

/// A node by its id, or by its host name if only one has it.
async fn id_of(api: &Api, name: &str) -> Result<String, Failure> {
    let nodes = api.get::<NodeList>(&["nodes"], &[]).await?.body.nodes;
    id_among(&nodes, name)
}

/// The same among nodes that were listed already.
pub(super) fn id_among(nodes: &[Node], name: &str) -> Result<String, Failure> {
    if nodes.iter().any(|n| n.node_id == name) {
        return Ok(name.to_owned());
    }
    let named: Vec<&Node> = nodes.iter().filter(|n| n.name == name).collect();
    match named.as_slice() {
        [one] => Ok(one.node_id.clone()),
        [] => Err(Failure::Usage(format!(
            "there is no node `{name}`; `buildflow node list` lists those that are there"
        ))),
        several => {
            let ids: Vec<&str> = several.iter().map(|n| n.node_id.as_str()).collect();
            Err(Failure::Usage(format!(
                "several nodes have the name `{name}`; say the id: {}",
                ids.join(", ")
            )))
        }
    }
}
