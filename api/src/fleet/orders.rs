//! What an order says: the allocation with its step's definition and its run's source.
//!
//! Not here: which orders are due (`desired`), sending them.

use super::definitions::{Definition, DefinitionError, Definitions};
use model::{AllocId, Allocation, StepDef, key};
use pipeline::progress::Records;
use std::collections::BTreeSet;
use store::{Store, StoreError};
use wire::{Message, v1};

/// The largest order, bytes: a message with some room for what is around it.
const ORDER_MAX: usize = wire::MESSAGE_MAX - 64 * 1024;

/// The most bytes of the orders in the first message. What does not fit follows one by one.
const ORDERS_MAX: usize = wire::MESSAGE_MAX / 2;

/// Why an order cannot be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// It never can: the step is to fail with this message.
    #[error("{0}")]
    Undeliverable(String),
    /// The store does not answer; it can later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The order for an allocation.
pub(super) async fn compose(
    store: &dyn Store,
    definitions: &Definitions,
    allocation: &Allocation,
) -> Result<v1::Order, OrderError> {
    let definition = definitions
        .get(store, &allocation.run)
        .await
        .map_err(|error| match error {
            DefinitionError::Store(error) => OrderError::Store(error),
            other => OrderError::Undeliverable(format!("the run's definition cannot be read: {other}")),
        })?;
    let order = full(store, allocation, &definition).await?;
    if order.encoded_len() > ORDER_MAX {
        let message = format!(
            "the step's definition has more than {} MiB; make its scripts and variables smaller, or move them into the repository",
            ORDER_MAX >> 20
        );
        return Err(OrderError::Undeliverable(message));
    }
    Ok(order)
}

/// The step as the node is to run it: what was open when the run was made is filled in.
async fn ready(
    store: &dyn Store,
    allocation: &Allocation,
    definition: &Definition,
    step: &StepDef,
) -> Result<Option<StepDef>, OrderError> {
    if step.rules.late_env.is_empty() && step.rules.entry_conditions.is_empty() {
        return Ok(None);
    }
    let mut records = Records::new();
    for need in &step.needs {
        let found = store.get(&key::step(&allocation.run, *need)).await?;
        let record = found.map(|entry| entry.decode()).transpose();
        let unreadable =
            |e| OrderError::Undeliverable(format!("the record of a step that it needs cannot be read: {e}"));
        records.extend(record.map_err(unreadable)?.map(|record| (*need, record)));
    }
    let ready = pipeline::ready_step(&definition.header, &definition.def, allocation.step, &records);
    ready.map(Some).map_err(OrderError::Undeliverable)
}

async fn full(store: &dyn Store, allocation: &Allocation, definition: &Definition) -> Result<v1::Order, OrderError> {
    let (step, stage) = definition.step(allocation.step).ok_or_else(|| {
        let message = format!("the run has no step with ordinal {}", allocation.step);
        OrderError::Undeliverable(message)
    })?;
    let ready = ready(store, allocation, definition, step).await?;
    let step = ready.as_ref().unwrap_or(step);
    let header = &definition.header;
    let json = |what: &str, made: Result<String, serde_json::Error>| {
        made.map_err(|e| OrderError::Undeliverable(format!("the {what} does not encode: {e}")))
    };
    Ok(v1::Order {
        run_number: header.number,
        team: header.team.to_string(),
        pipeline: header.pipeline.to_string(),
        step_def_json: json("step", serde_json::to_string(step))?,
        source_json: json("source", serde_json::to_string(&header.source))?,
        variables: header.variables.clone().into_iter().collect(),
        stage: stage.to_owned(),
        traceparent: header.traceparent.clone().unwrap_or_default(),
        request_id: header.request_id.clone(),
        ..brief(allocation)
    })
}

/// The order for an allocation that the agent holds already: it stands, and may be stopped.
pub(super) fn brief(allocation: &Allocation) -> v1::Order {
    v1::Order {
        alloc_id: allocation.id.to_string(),
        fence: Some(allocation.fence.into()),
        run_id: allocation.run.to_string(),
        step: u32::try_from(allocation.step).unwrap_or(u32::MAX),
        attempt: allocation.attempt,
        stop: allocation.stop.map_or("", stop_word).to_owned(),
        ..v1::Order::default()
    }
}

fn stop_word(stop: model::Stop) -> &'static str {
    match stop {
        model::Stop::Cancelled => "cancelled",
        model::Stop::Drained => "drained",
    }
}

/// The first message's orders, and those that follow it.
///
/// An allocation that the agent holds must be in the first message, or the agent would end it; if
/// there is no room it is named there without its definition, which the agent has. One that the
/// agent does not hold may as well follow.
pub(super) fn split(orders: Vec<v1::Order>, held: &BTreeSet<AllocId>) -> (Vec<v1::Order>, Vec<v1::Order>) {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for order in orders {
        let len = order.encoded_len() + 8;
        let is_held = AllocId::new(order.alloc_id.as_str()).is_ok_and(|id| held.contains(&id));
        if bytes + len <= ORDERS_MAX {
            bytes += len;
            first.push(order);
        } else if is_held {
            first.push(v1::Order {
                step_def_json: String::new(),
                source_json: String::new(),
                variables: std::collections::HashMap::new(),
                ..order
            });
        } else {
            later.push(order);
        }
    }
    (first, later)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: &str, bytes: usize) -> v1::Order {
        v1::Order {
            alloc_id: id.to_owned(),
            step_def_json: "x".repeat(bytes),
            ..v1::Order::default()
        }
    }

    #[test]
    fn what_does_not_fit_is_named_if_held_and_follows_if_not() {
        let orders = vec![
            order("a", 3 << 20),
            order("b", 2 << 20),
            order("c", 2 << 20),
            order("d", 10),
        ];
        let held = [AllocId::new("b").unwrap(), AllocId::new("d").unwrap()].into();
        let (first, later) = split(orders, &held);
        let sizes: Vec<_> = first
            .iter()
            .map(|o| (o.alloc_id.as_str(), o.step_def_json.len()))
            .collect();
        assert_eq!(sizes, [("a", 3 << 20), ("b", 0), ("d", 10)]);
        assert_eq!(later.len(), 1);
        let whole = v1::Orders { orders: first };
        assert!(whole.encoded_len() < wire::MESSAGE_MAX);
    }
}
