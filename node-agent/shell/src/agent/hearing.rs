//! What the agent hears: from its tasks and from its server. Each word becomes an event of the state
//! machines.
//!
//! Not here: what is then done ([`super::doing`]).

use super::{Agent, Told};
use crate::blocking::now_ms;
use crate::logs::Shipment;
use crate::session::FromSession;
use crate::wire_form;
use model::{AllocId, Outcome};
use node_agent::{Event, LeaseEvent, Order};
use std::time::Instant;
use wire::v1::server_message::Message;

impl Agent {
    pub(super) fn hear(&mut self, alloc: AllocId, told: Told) {
        let span = self.span(&alloc);
        let _in = span.enter();
        let event = match told {
            Told::Event(event) => event,
            Told::Handed => {
                self.follow(&alloc);
                return;
            }
            Told::Prepared(phases, prepared) => {
                if let Some(room) = self.rooms.get_mut(&alloc) {
                    room.prepared = Some(*prepared);
                }
                Event::Prepared { phases }
            }
        };
        self.measure(&alloc, &event);
        self.event(&alloc, event);
    }

    fn measure(&mut self, alloc: &AllocId, event: &Event) {
        let Some(room) = self.rooms.get_mut(alloc) else { return };
        match event {
            Event::Ended {
                outcome: Outcome::Lost { .. },
                ..
            }
            | Event::Vanished { .. } => self.metrics.lost.inc(),
            Event::Prepared { .. } => {
                room.ready_at = Some(Instant::now());
                if let Some(at) = room.ordered_at.take() {
                    self.metrics.prepare_seconds.observe(at.elapsed().as_secs_f64());
                }
            }
            Event::Launched { .. } => {
                if let Some(at) = room.ready_at.take() {
                    self.metrics.launch_seconds.observe(at.elapsed().as_secs_f64());
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, alloc: &AllocId, event: Event) {
        self.mind_lease();
        let acts = self.node.on(alloc, event, now_ms());
        self.log_transition(alloc);
        self.perform(acts);
    }

    /// The one place where an allocation's way is logged.
    pub(super) fn log_transition(&mut self, alloc: &AllocId) {
        let Some(state) = self.node.life(alloc).map(|life| life.state_name()) else {
            return;
        };
        let span = self.span(alloc);
        let _in = span.enter();
        let room = self.room(alloc);
        let before = std::mem::replace(&mut room.logged, state);
        if before != state {
            tracing::info!(alloc_id = %alloc, from = before, to = state, "allocation changed");
        }
    }

    pub(super) fn listen(&mut self, message: FromSession) {
        match message {
            FromSession::Hello(answer) => {
                // The lease counts from before the first byte.
                self.on_lease(LeaseEvent::Hello);
                let held = self.node.lives().map(|life| life.alloc().to_string()).collect();
                // The stream that asked may be gone already.
                let _ = answer.send(wire_form::hello(&self.id, &self.machine, held));
            }
            FromSession::Up {
                out,
                server,
                node_epoch,
                lease_ms,
            } => {
                tracing::info!(server, node_epoch, lease_ms, "connected");
                self.on_lease(LeaseEvent::Welcome { lease_ms });
                if std::mem::replace(&mut self.ever_connected, true) {
                    self.metrics.reconnects.inc();
                }
                self.metrics.connected.set(1);
                for room in self.rooms.values() {
                    if let Some(shipment) = &room.shipment {
                        shipment.connected(out.clone());
                    }
                }
                self.out = Some(out);
                let acts = self.node.on_connected(now_ms());
                self.perform(acts);
            }
            FromSession::Down => {
                self.metrics.connected.set(0);
                self.out = None;
                self.on_lease(LeaseEvent::Disconnected);
                for shipment in self.rooms.values().filter_map(|room| room.shipment.as_ref()) {
                    shipment.disconnected();
                }
                let acts = self.node.on_disconnected(now_ms());
                self.perform(acts);
            }
            FromSession::Message(message) => self.obey(*message),
        }
    }

    /// A message of the server. What cannot be read is logged and left: the server repeats it or
    /// learns from the next report.
    fn obey(&mut self, message: Message) {
        self.mind_lease();
        let now = now_ms();
        let acts = match message {
            Message::Welcome(_) => Vec::new(),
            Message::RenewAck(ack) => {
                let sequence = ack.sequence;
                self.on_lease(LeaseEvent::RenewAck { sequence });
                Vec::new()
            }
            Message::Orders(orders) => {
                let orders = orders.orders.into_iter().filter_map(readable).collect();
                self.node.on_orders(orders, now)
            }
            Message::Order(order) => readable(order).map_or_else(Vec::new, |order| self.node.on_order(order, now)),
            Message::ReportAck(ack) => match (AllocId::new(ack.alloc_id), wire_form::observed_state(&ack.state)) {
                (Ok(alloc), Ok(state)) => self.node.on_ack(&alloc, state, ack.accepted, now),
                // A refusal is clear enough without the state that it refuses.
                (Ok(alloc), Err(_)) if !ack.accepted => {
                    self.node.on_ack(&alloc, model::ObservedState::Ended, false, now)
                }
                (alloc, state) => {
                    tracing::warn!(alloc = ?alloc, state = ?state, "acknowledgement cannot be read");
                    Vec::new()
                }
            },
            Message::Forget(forget) => {
                AllocId::new(forget.alloc_id).map_or_else(|_| Vec::new(), |alloc| self.node.on_forget(&alloc, now))
            }
            Message::LogFrom(from) => {
                self.with_shipment(&from.alloc_id, |shipment| shipment.from(from.offset));
                Vec::new()
            }
            Message::LogAck(ack) => {
                self.with_shipment(&ack.alloc_id, |shipment| shipment.acked(ack.offset, ack.complete));
                Vec::new()
            }
        };
        self.perform(acts);
    }

    fn with_shipment(&self, alloc: &str, tell: impl FnOnce(&Shipment)) {
        let shipment = AllocId::new(alloc)
            .ok()
            .and_then(|alloc| self.rooms.get(&alloc)?.shipment.as_ref());
        if let Some(shipment) = shipment {
            tell(shipment);
        }
    }
}

fn readable(order: wire::v1::Order) -> Option<Order> {
    wire_form::order(order)
        .map_err(|error| tracing::error!(error, "order cannot be read"))
        .ok()
}
