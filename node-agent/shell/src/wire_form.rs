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
        traceparent: Some(message.traceparent).filter(|t| !t.is_empty()),
        request_id: message.request_id,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_orders::{source, step_def};

    fn message() -> v1::Order {
        v1::Order {
            alloc_id: "01jd-3-1-2".to_owned(),
            fence: Some(v1::Fence { epoch: 1, counter: 2 }),
            run_id: "01jd".to_owned(),
            run_number: 12,
            team: "default".to_owned(),
            pipeline: "app".to_owned(),
            step: 3,
            attempt: 2,
            stop: String::new(),
            step_def_json: serde_json::to_string(&step_def()).unwrap(),
            source_json: serde_json::to_string(&source("refs/heads/main")).unwrap(),
            variables: std::iter::once(("A".to_owned(), "1".to_owned())).collect(),
            stage: "test".to_owned(),
            traceparent: String::new(),
            request_id: "r1".to_owned(),
        }
    }

    #[test]
    fn an_order_is_read_whole() {
        let order = order(message()).unwrap();
        let expected = crate::test_orders::work(step_def(), "refs/heads/main", &[("A", "1")]);
        assert_eq!(*order.work, expected);
        assert_eq!((order.stop, order.fence), (None, Fence { epoch: 1, counter: 2 }));
    }

    #[test]
    fn any_word_for_a_stop_stops() {
        for word in ["cancelled", "\"cancelled\"", "a-newer-reason"] {
            let stop = word.to_owned();
            assert_eq!(
                order(v1::Order { stop, ..message() }).unwrap().stop,
                Some(Stop::Cancelled)
            );
        }
    }

    #[test]
    fn an_order_that_cannot_be_read_says_what_is_wrong() {
        let text = "{\"name\": 5}".to_owned();
        let cases = [
            (
                "run_id",
                v1::Order {
                    run_id: "../x".to_owned(),
                    ..message()
                },
            ),
            (
                "team",
                v1::Order {
                    team: String::new(),
                    ..message()
                },
            ),
            (
                "step_def_json",
                v1::Order {
                    step_def_json: text.clone(),
                    ..message()
                },
            ),
            (
                "source_json",
                v1::Order {
                    source_json: text,
                    ..message()
                },
            ),
        ];
        for (part, message) in cases {
            match *order(message).unwrap().work {
                Work::Unreadable { message } => assert!(message.contains(part), "{message}"),
                Work::Step { .. } => panic!("{part} was read"),
            }
        }
        let nameless = v1::Order {
            alloc_id: "../../etc".to_owned(),
            ..message()
        };
        assert!(order(nameless).is_err());
    }
}
