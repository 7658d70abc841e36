//! Nodes: what they have, what is free, what runs on them.
//!
//! Not here: draining and cordoning.

use super::query::{PathParts, short};
use crate::dto::{Node, NodeAllocation, NodeDetail, NodeFacts, NodeList};
use crate::problem::{Answer, Problem};
use crate::state::Shared;
use crate::view::Picture;
use axum::Json;
use axum::extract::State;
use model::{Allocation, NodeId, NodeRecord};

/// All nodes.
#[utoipa::path(
    get, path = "/api/v1/nodes", operation_id = "list_nodes", tag = "nodes",
    responses((status = 200, body = NodeList))
)]
pub(super) async fn list(State(server): State<Shared>) -> Json<NodeList> {
    let mut nodes: Vec<Node> = server
        .view
        .read(|picture| picture.nodes().values().map(|n| show(picture, n)).collect());
    nodes.sort_by(|a, b| (&a.name, &a.node_id).cmp(&(&b.name, &b.node_id)));
    Json(NodeList { nodes })
}

/// A node and what runs on it.
#[utoipa::path(
    get, path = "/api/v1/nodes/{node}", operation_id = "get_node", tag = "nodes",
    params(("node" = String, Path, description = "The node's id, or its host name if only one node has it")),
    responses((status = 200, body = NodeDetail), (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn get(State(server): State<Shared>, parts: PathParts) -> Answer<Json<NodeDetail>> {
    let wanted = parts.text("node");
    let found = server.view.read(|picture| {
        let node = find(picture, wanted)?;
        let mut running: Vec<NodeAllocation> = picture.allocs(&node.id).map(|a| show_alloc(picture, a)).collect();
        running.sort_by(|a, b| (a.created_ms, &a.alloc_id).cmp(&(b.created_ms, &b.alloc_id)));
        Some(NodeDetail {
            node: show(picture, node),
            running,
        })
    });
    found
        .map(Json)
        .ok_or_else(|| Problem::not_found(format!("there is no node `{}`", short(wanted))))
}

fn find<'a>(picture: &'a Picture, wanted: &str) -> Option<&'a NodeRecord> {
    let by_id = NodeId::new(wanted).ok().and_then(|id| picture.nodes().get(&id));
    let mut by_name = picture.nodes().values().filter(|n| n.name == wanted);
    match (by_id, by_name.next(), by_name.next()) {
        (Some(node), _, _) | (None, Some(node), None) => Some(node),
        _ => None,
    }
}

fn show(picture: &Picture, node: &NodeRecord) -> Node {
    let session = picture.session(&node.id);
    Node {
        node_id: node.id.to_string(),
        name: node.name.clone(),
        connected: session.is_some(),
        server: session.map(|s| s.server.clone()),
        epoch: node.epoch,
        capacity: node.capacity.into(),
        free: picture.free(node).into(),
        slots: node.slots,
        allocations: picture.allocs(&node.id).count(),
        labels: node.labels.clone(),
        facts: NodeFacts {
            kernel: node.facts.kernel.clone(),
            cgroups: node.facts.cgroups.clone(),
            agent_version: node.facts.agent_version.clone(),
            boot_id: node.facts.boot_id.clone(),
        },
        registered_ms: node.registered_ms,
    }
}

fn show_alloc(picture: &Picture, alloc: &Allocation) -> NodeAllocation {
    let run = picture.run(&alloc.run);
    let header = run.and_then(|r| r.header());
    NodeAllocation {
        alloc_id: alloc.id.to_string(),
        run_id: alloc.run.to_string(),
        team: header.map(|h| h.team.to_string()),
        pipeline: header.map(|h| h.pipeline.to_string()),
        number: header.map(|h| h.number),
        ordinal: alloc.step,
        step: run
            .and_then(|r| r.held_def()?.steps.get(alloc.step))
            .map(|s| s.name.to_string()),
        status: run.and_then(|r| r.records().get(&alloc.step)).map(|r| r.status.into()),
        attempt: alloc.attempt,
        resources: alloc.resources.into(),
        created_ms: alloc.created_ms,
        stopping: alloc.stop.is_some(),
    }
}
