//! Nodes: what they have, what is free, what runs on them; and what operators want of them.
//!
//! A wish becomes a request that the leader acts on; the answer waits a moment for it. Not here:
//! acting on it.

use super::body::Json as Body;
use super::query::{Asking, PathParts, short};
use crate::clock::now_ms;
use crate::dto::{
    DrainNode, DrainProgress, Node, NodeAllocation, NodeChange, NodeDetail, NodeEligibility, NodeFacts, NodeLease,
    NodeList,
};
use crate::intake::{KeptRequest, commit_kept, fingerprint, keep_request, kept_request, new_run_id};
use crate::limit::{NODE_REQUESTS_MAX, NODE_WAIT, READ_BACK_TIMEOUT};
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use crate::view::Picture;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Allocation, NodeId, NodeRecord, Request, RequestKind, key};
use store::{Commit, Expect, Txn};

/// The longest deadline of a drain: no step may run for longer.
const DEADLINE_MAX_MS: u64 = 30 * 24 * 3_600_000;

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
    found.map(Json).ok_or_else(|| no_node(wanted))
}

/// Places nothing more on a node; what runs there goes on.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/cordon", operation_id = "cordon_node", tag = "nodes",
    params(("node" = String, Path, description = "The node's id, or its host name if only one node has it"),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = NodeChange, description = "It is in force"),
        (status = 202, body = NodeChange, description = "The leader has yet to act"),
        (status = 404, body = crate::dto::Problem), (status = 409, body = crate::dto::Problem),
        (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn cordon(server: State<Shared>, parts: PathParts, asking: Asking) -> Answer<Changed> {
    change(&server, &parts, asking, Wish::Cordon).await
}

/// Places steps on a node again; ends a drain, of which nothing is started twice.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/uncordon", operation_id = "uncordon_node", tag = "nodes",
    params(("node" = String, Path, description = "The node's id, or its host name if only one node has it"),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = NodeChange, description = "It is in force"),
        (status = 202, body = NodeChange, description = "The leader has yet to act"),
        (status = 404, body = crate::dto::Problem), (status = 409, body = crate::dto::Problem),
        (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn uncordon(server: State<Shared>, parts: PathParts, asking: Asking) -> Answer<Changed> {
    change(&server, &parts, asking, Wish::Uncordon).await
}

/// Empties a node: cordons it at once, and after the deadline places elsewhere what still runs.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/drain", operation_id = "drain_node", tag = "nodes",
    params(("node" = String, Path, description = "The node's id, or its host name if only one node has it"),
        ("Idempotency-Key" = Option<String>, Header)),
    request_body = DrainNode,
    responses((status = 200, body = NodeChange, description = "It is in force"),
        (status = 202, body = NodeChange, description = "The leader has yet to act"),
        (status = 400, body = crate::dto::Problem),
        (status = 404, body = crate::dto::Problem), (status = 409, body = crate::dto::Problem),
        (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn drain(
    server: State<Shared>,
    parts: PathParts,
    asking: Asking,
    Body(drain): Body<DrainNode>,
) -> Answer<Changed> {
    let deadline = drain.deadline.as_deref().map(duration_ms).transpose()?;
    change(&server, &parts, asking, Wish::Drain(deadline)).await
}

/// Says that a machine is gone for good: its steps need not wait for its lease.
///
/// To be used only of a machine that is known to be off: a step that still runs there would run
/// beside its next attempt.
#[utoipa::path(
    post, path = "/api/v1/nodes/{node}/confirm-gone", operation_id = "confirm_node_gone", tag = "nodes",
    params(("node" = String, Path, description = "The node's id, or its host name if only one node has it"),
        ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = NodeChange, description = "It is in force"),
        (status = 202, body = NodeChange, description = "The leader has yet to act"),
        (status = 404, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem, description = "Its agent is connected"),
        (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn confirm_gone(server: State<Shared>, parts: PathParts, asking: Asking) -> Answer<Changed> {
    change(&server, &parts, asking, Wish::ConfirmGone).await
}

/// Forgets a node whose agent is gone and which is cordoned or confirmed gone.
#[utoipa::path(
    delete, path = "/api/v1/nodes/{node}", operation_id = "delete_node", tag = "nodes",
    params(("node" = String, Path, description = "The node's id, or its host name if only one node has it")),
    responses((status = 204), (status = 404, body = crate::dto::Problem), (status = 409, body = crate::dto::Problem),
        (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn delete(State(server): State<Shared>, parts: PathParts, asking: Asking) -> Answer<StatusCode> {
    let wanted = parts.text("node");
    let node = server.view.read(|picture| {
        let node = find(picture, wanted).ok_or_else(|| no_node(wanted))?;
        removable(picture, node)?;
        Ok::<_, Problem>(node.id.clone())
    })?;
    let store = server.store();
    let (node_key, wish_key) = (key::node(&node), key::eligibility(&node));
    let Some(record) = store.get(&node_key).await? else {
        return Err(no_node(wanted));
    };
    let wish = store.get(&wish_key).await?.ok_or_else(not_cordoned)?;
    let txn = Txn::new()
        .expect(key::session(&node), Expect::Absent)
        .expect(&node_key, Expect::Revision(record.mod_revision))
        .expect(&wish_key, Expect::Revision(wish.mod_revision))
        .delete(&node_key)
        .delete(&wish_key)
        .delete(key::member(&node));
    match store.commit(txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(node_id = %node, by = asking.by, "node removed");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            Ok(StatusCode::NO_CONTENT)
        }
        Commit::Refused { .. } => Err(Problem::conflict(
            "the node has changed meanwhile, e.g. its agent is back; look at it and ask again",
        )),
    }
}

fn not_cordoned() -> Problem {
    Problem::conflict("the node takes steps; cordon it first, or confirm that it is gone")
}

/// Refuses the removal of a node that is, or may be, in use.
fn removable(picture: &Picture, node: &NodeRecord) -> Answer<()> {
    match picture.session(&node.id) {
        Some(session) if session.connected => {
            return Err(Problem::conflict(
                "the node's agent is connected; stop the agent first, then wait until its lease has run out",
            ));
        }
        Some(_) => {
            return Err(Problem::conflict(
                "the node's lease has not run out yet; try again when `lease` is `expired`",
            ));
        }
        None => {}
    }
    if picture.eligibility(&node.id).is_none() {
        return Err(not_cordoned());
    }
    let left = picture.allocs(&node.id).count();
    if left > 0 {
        return Err(Problem::conflict(format!(
            "{left} steps are still accounted to the node; they end when it is taken for lost, or at once with confirm-gone"
        )));
    }
    Ok(())
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Cordon,
    Uncordon,
    /// With the time until its deadline, milliseconds.
    Drain(Option<u64>),
    ConfirmGone,
}

/// The answer to a wish.
pub(super) type Changed = (StatusCode, Json<NodeChange>);

impl Wish {
    fn request(self, node: &NodeRecord, now_ms: u64) -> RequestKind {
        let id = node.id.clone();
        match self {
            Self::Cordon => RequestKind::Cordon { node: id },
            Self::Uncordon => RequestKind::Uncordon { node: id },
            Self::Drain(deadline) => RequestKind::Drain {
                node: id,
                deadline_ms: deadline.map(|ms| now_ms.saturating_add(ms)),
            },
            Self::ConfirmGone => RequestKind::ConfirmGone {
                node: id,
                node_epoch: node.epoch,
            },
        }
    }

    /// What is said when it is so already; `None`: it is not. A drain with a deadline sets a new one.
    fn in_force(self, picture: &Picture, node: &NodeRecord) -> Option<&'static str> {
        let eligibility = picture.eligibility(&node.id);
        match self {
            Self::Cordon => eligibility.map(|_| "the node takes no further steps already"),
            Self::Uncordon if eligibility.is_none() => Some("the node takes steps already"),
            Self::Drain(None) => {
                let drain = eligibility?.drain.as_ref()?;
                drain
                    .deadline_ms
                    .is_none()
                    .then_some("the node is being drained already")
            }
            Self::ConfirmGone => {
                let gone = eligibility?.gone_epoch? == node.epoch;
                gone.then_some("the node is known to be gone already")
            }
            Self::Uncordon | Self::Drain(Some(_)) => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Cordon => "cordon",
            Self::Uncordon => "uncordon",
            Self::Drain(_) => "drain",
            Self::ConfirmGone => "confirm-gone",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Cordon => "nothing more is placed on the node; what runs there goes on",
            Self::Uncordon => "the node takes steps again",
            Self::Drain(None) => "nothing more is placed on the node; every step that runs there ends by itself",
            Self::Drain(Some(_)) => {
                "nothing more is placed on the node; what still runs there at the deadline is placed elsewhere"
            }
            Self::ConfirmGone => "the node's steps are placed elsewhere without waiting for its lease",
        }
    }
}

/// How a wish goes on.
enum Next {
    /// Nothing is to be written.
    Known(String),
    /// This is to be asked of the leader.
    Ask(RequestKind),
}

async fn change(server: &Server, parts: &PathParts, asking: Asking, wish: Wish) -> Answer<Changed> {
    let wanted = parts.text("node");
    let (node, next) = server.view.read(|picture| {
        let node = find(picture, wanted).ok_or_else(|| no_node(wanted))?;
        Ok::<_, Problem>((node.id.clone(), next(picture, node, wish)?))
    })?;
    let what = match next {
        Next::Known(message) => return answer(server, &node, StatusCode::OK, message),
        Next::Ask(what) => what,
    };
    let id = ask(server, &node, wish, what, asking).await?;
    let acted = |picture: &Picture| picture.asked_of(&node).all(|(there, _)| there != id);
    if server.view.wait_until(acted, NODE_WAIT).await {
        return answer(server, &node, StatusCode::OK, wish.done().to_owned());
    }
    let message = format!("asked for; the leader has yet to act on it: {}", wish.word());
    answer(server, &node, StatusCode::ACCEPTED, message)
}

fn next(picture: &Picture, node: &NodeRecord, wish: Wish) -> Answer<Next> {
    let connected = picture.session(&node.id).is_some_and(|s| s.connected);
    if wish == Wish::ConfirmGone && connected {
        return Err(Problem::conflict(
            "the node's agent is connected, so it is not gone; stop the machine first, or drain the node",
        ));
    }
    let asked = picture.asked_of(&node.id).count();
    if asked >= NODE_REQUESTS_MAX {
        return Err(Problem::unavailable(
            "many wishes for this node wait for a leader already; try again when there is one",
        ));
    }
    if let Some(message) = wish.in_force(picture, node).filter(|_| asked == 0) {
        return Ok(Next::Known(message.to_owned()));
    }
    Ok(Next::Ask(wish.request(node, now_ms())))
}

/// Writes the request and answers its id; once under the caller's own key.
async fn ask(server: &Server, node: &NodeId, wish: Wish, what: RequestKind, asking: Asking) -> Answer<String> {
    let store = server.store();
    let fingerprint = fingerprint(&(node, wish.word(), format!("{wish:?}")));
    let asked_by = (asking.by.as_str(), asking.key.as_deref());
    if let KeptRequest::Known(id) = kept_request(store, asked_by, &fingerprint).await? {
        return Ok(format!("node-{id}"));
    }
    // Ids sort by time, so that the leader acts on wishes in the order in which they came.
    let run = new_run_id();
    let id = format!("node-{run}");
    let request = Request {
        what,
        requested_by: asking.by.clone(),
        created_ms: now_ms(),
        request_id: asking.request_id,
    };
    let txn = Txn::new()
        .expect(key::node(node), Expect::Present)
        .expect(key::request(&id), Expect::Absent)
        .put(key::request(&id), &request);
    let txn = keep_request(server, txn, asked_by, &fingerprint, &run).await?;
    match commit_kept(server, txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(node_id = %node, wish = wish.word(), by = asking.by, "wish for a node accepted");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            Ok(id)
        }
        Commit::Refused { guard, .. } if guard.key == key::node(node) => Err(no_node(node.as_str())),
        // Another request under the same key was faster.
        Commit::Refused { .. } => match kept_request(store, asked_by, &fingerprint).await? {
            KeptRequest::Known(id) => Ok(format!("node-{id}")),
            KeptRequest::New => Err(Problem::unavailable("the wish met another one; try again")),
        },
    }
}

fn answer(server: &Server, node: &NodeId, code: StatusCode, message: String) -> Answer<Changed> {
    let shown = server
        .view
        .read(|picture| Some(show(picture, picture.nodes().get(node)?)));
    let node = shown.ok_or_else(|| no_node(node.as_str()))?;
    Ok((code, Json(NodeChange { message, node })))
}

/// A time like `45m`, `90s` or `2h`, milliseconds.
fn duration_ms(text: &str) -> Answer<u64> {
    let wrong = || {
        Problem::bad_field(
            "deadline",
            "must be a whole number with a unit, e.g. 90s, 45m or 2h, and 30 days at most",
        )
    };
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let factor = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(factor).ok_or_else(wrong)?;
    if ms > DEADLINE_MAX_MS {
        return Err(wrong());
    }
    Ok(ms)
}

fn no_node(wanted: &str) -> Problem {
    Problem::not_found(format!(
        "there is no node `{}`; `buildflow node list` shows those that there are",
        short(wanted)
    ))
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
    let wish = picture.eligibility(&node.id);
    let allocations = picture.allocs(&node.id).count();
    let drain = wish.and_then(|w| w.drain.as_ref()).map(|drain| DrainProgress {
        deadline_ms: drain.deadline_ms,
        orders_left: allocations,
    });
    Node {
        node_id: node.id.to_string(),
        name: node.name.clone(),
        connected: session.is_some_and(|s| s.connected),
        server: session.map(|s| s.server.clone()),
        lease: match session {
            Some(session) if session.connected => NodeLease::Renewed,
            Some(_) => NodeLease::RunningOut,
            None => NodeLease::Expired,
        },
        eligibility: match wish {
            None => NodeEligibility::Eligible,
            Some(wish) if wish.gone_epoch == Some(node.epoch) => NodeEligibility::Gone,
            Some(wish) if wish.drain.is_some() => NodeEligibility::Draining,
            Some(_) => NodeEligibility::Cordoned,
        },
        cordoned_by: wish.map(|w| w.cordoned_by.clone()),
        cordoned_ms: wish.map(|w| w.since_ms),
        drain,
        asked: picture
            .asked_of(&node.id)
            .map(|(_, what)| asked_word(what).to_owned())
            .collect(),
        epoch: node.epoch,
        capacity: node.capacity.into(),
        free: picture.free(node).into(),
        slots: node.slots,
        allocations,
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

fn asked_word(what: &RequestKind) -> &'static str {
    match what {
        RequestKind::Cancel { .. } => "cancel",
        RequestKind::Start { .. } => "start",
        RequestKind::Cordon { .. } => "cordon",
        RequestKind::Uncordon { .. } => "uncordon",
        RequestKind::Drain { .. } => "drain",
        RequestKind::ConfirmGone { .. } => "confirm-gone",
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

#[cfg(test)]
mod tests {
    use super::duration_ms;

    #[test]
    fn a_deadline_has_a_number_and_a_unit() {
        for (text, ms) in [
            ("90s", Some(90_000)),
            ("45m", Some(2_700_000)),
            ("2h", Some(7_200_000)),
            ("0s", Some(0)),
            ("", None),
            ("m", None),
            ("45", None),
            ("-1s", None),
            ("1.5h", None),
            ("4ü", None),
            ("721h", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration_ms(text).ok(), ms, "{text}");
        }
    }
}
