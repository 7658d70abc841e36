//! Between the wire's messages and the state machines' nouns.
//!
//! What the server sends is checked here, once. An order that cannot be read but names its
//! allocation becomes an order that ends with the reason, so that nobody waits for it for ever.
//!
//! Not here: the stream.

use crate::facts::Machine;
use model::{AllocId, Fence, NodeId, Observed, Stop};
use node_agent::{Order, Work};
use wire::v1;

/// An order, or why it cannot even be answered.
pub(crate) fn order(message: v1::Order) -> Result<Order, String> {
    let alloc = AllocId::new(message.alloc_id.clone()).map_err(|e| e.to_string())?;
    let fence = Fence::from(message.fence.unwrap_or_default());
    let stop = match message.stop.as_str() {
        "" => None,
        word => Some(stop(word)),
    };
    let work = work(message).unwrap_or_else(|why| Work::Unreadable {
        message: format!("the agent cannot read the order: {why}; upgrade the agent to the server's release"),
    });
    Ok(Order {
        alloc,
        fence,
        stop,
        work: Box::new(work),
    })
}

/// The word of `model::Stop`, bare or as JSON text. One of a newer release means to stop all the same.
fn stop(word: &str) -> Stop {
    let bare = word.trim_matches('"').to_owned();
    serde_json::from_value(serde_json::Value::String(bare)).unwrap_or(Stop::Cancelled)
}

fn work(message: v1::Order) -> Result<Work, String> {
    let text = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    Ok(Work::Step {
        run: message.run_id.parse().map_err(|e| text("run_id", &e))?,
        run_number: message.run_number,
        team: message.team.parse().map_err(|e| text("team", &e))?,
        pipeline: message.pipeline.parse().map_err(|e| text("pipeline", &e))?,
        stage: message.stage,
        step: message.step as usize,
        attempt: message.attempt,
        def: serde_json::from_str(&message.step_def_json).map_err(|e| text("step_def_json", &e))?,
        source: serde_json::from_str(&message.source_json).map_err(|e| text("source_json", &e))?,
        variables: message.variables.into_iter().collect(),
    })
}

pub(crate) fn hello(node: &NodeId, machine: &Machine, alloc_ids: Vec<String>) -> v1::AgentMessage {
    agent_message(v1::agent_message::Message::Hello(v1::Hello {
        node_id: node.to_string(),
        name: machine.name.clone(),
        capacity: Some(machine.capacity.into()),
        slots: machine.slots,
        labels: machine.labels.clone().into_iter().collect(),
        kernel: machine.facts.kernel.clone(),
        cgroups: machine.facts.cgroups.clone(),
        agent_version: machine.facts.agent_version.clone(),
        boot_id: machine.facts.boot_id.clone(),
        alloc_ids,
    }))
}

pub(crate) fn report(observed: &Observed) -> v1::AgentMessage {
    let json = serde_json::to_string(observed).expect("a report has string keys and integers only");
    agent_message(v1::agent_message::Message::Report(v1::Report {
        alloc_id: observed.alloc.to_string(),
        fence: Some(observed.fence.into()),
        observed_json: json,
    }))
}

pub(crate) fn renew(sequence: u64) -> v1::AgentMessage {
    agent_message(v1::agent_message::Message::Renew(v1::Renew { sequence }))
}

pub(crate) fn log_open(alloc: &AllocId, fence: Fence) -> v1::AgentMessage {
    agent_message(v1::agent_message::Message::LogOpen(v1::LogOpen {
        alloc_id: alloc.to_string(),
        fence: Some(fence.into()),
    }))
}

pub(crate) fn log_data(alloc: &AllocId, offset: u64, bytes: Vec<u8>, end: bool) -> v1::AgentMessage {
    agent_message(v1::agent_message::Message::Log(v1::LogData {
        alloc_id: alloc.to_string(),
        offset,
        bytes,
        end,
    }))
}

/// The state that an acknowledgement names, bare or as JSON text.
pub(crate) fn observed_state(word: &str) -> Result<model::ObservedState, String> {
    let bare = word.trim_matches('"').to_owned();
    serde_json::from_value(serde_json::Value::String(bare)).map_err(|e| format!("state: {e}"))
}

fn agent_message(message: v1::agent_message::Message) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(message) }
}
