//! What the agent does: each effect of the state machines, in a task of its own where it takes time.
//!
//! Not here: which effect comes when, and what the tasks then tell ([`super::hearing`]).

use super::{Agent, Room, Told};
use crate::blocking::{blocking, now_ms};
use crate::follow::{self, Follow};
use crate::logs::{self, Shipment};
use crate::outcome::{CANCELLED, DISOWNED, DRAINED};
use crate::trace;
use crate::wire_form;
use isolation::LauncherError;
use model::{AllocId, StartFailure};
use node_agent::{Act, Effect, Event, Kill, Work};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tracing::{Instrument, Span};

/// How long a removal or a stop that failed rests.
const AGAIN: Duration = Duration::from_secs(1);

impl Agent {
    pub(super) fn perform(&mut self, acts: Vec<Act>) {
        for Act { alloc, effect } in acts {
            self.log_transition(&alloc);
            let span = self.span(&alloc);
            let _in = span.enter();
            self.effect(alloc, effect);
        }
    }

    fn effect(&mut self, alloc: AllocId, effect: Effect) {
        match effect {
            Effect::Write(entry) => self.write(alloc, entry),
            Effect::Prepare => self.prepare(alloc),
            Effect::AbortPrepare => self.room(&alloc).abort.cancel(),
            Effect::Launch => self.launch(alloc),
            Effect::Kill(kill) => self.kill(alloc, kill),
            Effect::CloseLog { line } => {
                let path = self.data.alloc(&alloc).log();
                self.deed(alloc, async move {
                    let bytes = blocking(move || logs::close(&path, line.as_deref())).await;
                    Event::LogClosed { bytes }
                });
            }
            Effect::ShipLog => self.ship(alloc),
            Effect::SealLog { bytes } => {
                if let Some(shipment) = &self.room(&alloc).shipment {
                    shipment.sealed(bytes);
                }
            }
            Effect::Report(observed) => {
                tracing::debug!(alloc_id = %alloc, state = ?observed.state, "report");
                if let Some(out) = &self.out {
                    out.control_now(wire_form::report(&observed));
                }
            }
            Effect::Clean => self.clean(alloc),
            Effect::RemoveEntry => {
                let (journal, ended) = (self.journal.clone(), self.ended.clone());
                let name = alloc.clone();
                self.deed(alloc, async move {
                    let id = name.clone();
                    if let Err(error) = blocking(move || ended.add(&id)).await {
                        tracing::warn!(%error, "list of ended allocations cannot be written");
                    }
                    until_done("journal entry cannot be removed", name, move |alloc| {
                        journal.remove(alloc)
                    })
                    .await;
                    Event::EntryRemoved
                });
            }
            Effect::Gone => {
                self.rooms.remove(&alloc);
            }
        }
    }

    pub(super) fn room(&mut self, alloc: &AllocId) -> &mut Room {
        self.rooms.entry(alloc.clone()).or_default()
    }

    /// The span of an allocation's log lines; it lasts until its room is given up.
    pub(super) fn span(&mut self, alloc: &AllocId) -> Span {
        if let Some(span) = self.rooms.get(alloc).and_then(|room| room.span.clone()) {
            return span;
        }
        let Some(order) = self.node.life(alloc).map(|life| life.order().clone()) else {
            return Span::none();
        };
        let span = trace::span(&order);
        self.room(alloc).span = Some(span.clone());
        span
    }

    /// Work that is not cut off and ends in an event.
    fn deed(&mut self, alloc: AllocId, work: impl Future<Output = Event> + Send + 'static) {
        let tell = self.tell.clone();
        let told = async move {
            let event = work.await;
            // The loop is gone only when the whole agent is.
            let _ = tell.send((alloc, Told::Event(event))).await;
        };
        self.deeds.spawn(told.in_current_span());
    }

    fn write(&mut self, alloc: AllocId, entry: Box<node_agent::Entry>) {
        let (journal, metrics) = (self.journal.clone(), self.metrics.clone());
        self.deed(alloc, async move {
            match blocking(move || (journal.write(&entry), entry)).await {
                (Ok(()), _) => Event::Written,
                (Err(e), entry) => {
                    metrics.journal_failures.inc();
                    tracing::error!(alloc_id = %entry.order.alloc, error = %e, "journal cannot be written");
                    Event::WriteFailed
                }
            }
        });
    }

    fn prepare(&mut self, alloc: AllocId) {
        if self.ending {
            return;
        }
        let Some(order) = self.node.life(&alloc).map(|life| life.order().clone()) else {
            return;
        };
        let room = self.room(&alloc);
        room.ordered_at = Some(Instant::now());
        let abort = room.abort.clone();
        let (preparer, tell) = (self.preparer.clone(), self.tell.clone());
        self.watches.spawn(
            async move {
                let told = tokio::select! {
                    prepared = preparer.prepare(&order) => match prepared {
                        (phases, Ok(prepared)) => Told::Prepared(phases, Box::new(prepared)),
                        (phases, Err(failure)) => Told::Event(Event::PrepareFailed {
                            cause: failure.cause,
                            message: failure.message,
                            phases,
                            lasting: failure.lasting,
                        }),
                    },
                    () = abort.cancelled() => Told::Event(Event::PrepareFailed {
                        cause: StartFailure::Sandbox,
                        message: "it was stopped before it began".to_owned(),
                        phases: Vec::new(),
                        lasting: false,
                    }),
                };
                let _ = tell.send((alloc, told)).await;
            }
            .in_current_span(),
        );
    }

    fn launch(&mut self, alloc: AllocId) {
        if self.ending {
            return;
        }
        // The lease under which this was decided; the next one is told what stands first.
        let begin_before_ms = self.lease.deadline_ms();
        let room = self.room(&alloc);
        let Some(mut prepared) = room.prepared.take() else {
            return;
        };
        prepared.spec.begin_before_ms = begin_before_ms;
        room.keeps = prepared.keeps;
        room.launch_began_ms = Some(now_ms());
        let (sandboxes, tell) = (self.sandboxes.clone(), self.tell.clone());
        self.deeds.spawn(
            async move {
                let told = match follow::launch(sandboxes, prepared.spec).await {
                    Ok(()) => Told::Handed,
                    Err(event) => Told::Event(event),
                };
                let _ = tell.send((alloc, told)).await;
            }
            .in_current_span(),
        );
    }

    pub(super) fn follow(&mut self, alloc: &AllocId) {
        let Some(life) = self.node.life(alloc) else { return };
        let Work::Step { def, .. } = &*life.order().work else {
            return;
        };
        let job = Follow {
            sandboxes: self.sandboxes.clone(),
            id: alloc.to_string(),
            exit_path: self.data.alloc(alloc).exit(),
            upper: self.data.alloc(alloc).upper(),
            def: def.clone(),
            began_ms: self.rooms.get(alloc).and_then(|room| room.launch_began_ms),
        };
        let (alloc, tell) = (alloc.clone(), self.tell.clone());
        self.watches.spawn(
            async move {
                let (events, mut heard) = mpsc::channel(1);
                let following = follow::follow(job, events);
                let passing = async {
                    while let Some(event) = heard.recv().await {
                        let _ = tell.send((alloc.clone(), Told::Event(event))).await;
                    }
                };
                tokio::join!(following, passing);
            }
            .in_current_span(),
        );
    }

    fn kill(&mut self, alloc: AllocId, kill: Kill) {
        let reason = match kill {
            Kill::Cancelled => CANCELLED,
            Kill::Drained => DRAINED,
            Kill::Disowned => DISOWNED,
        };
        let sandboxes = self.sandboxes.clone();
        self.deeds.spawn(
            async move {
                until_done("sandbox cannot be stopped", alloc, move |alloc| {
                    match sandboxes.stop(alloc.as_str(), reason) {
                        Err(LauncherError::Unknown { .. }) => Ok(()),
                        stopped => stopped,
                    }
                })
                .await;
            }
            .in_current_span(),
        );
    }

    fn ship(&mut self, alloc: AllocId) {
        let Some(fence) = self.node.life(&alloc).map(|life| life.fence()) else {
            return;
        };
        let path = self.data.alloc(&alloc).log();
        let shipment = Arc::new(Shipment::new(alloc.clone(), fence, path));
        if let Some(out) = &self.out {
            shipment.connected(out.clone());
        }
        let room = self.room(&alloc);
        room.shipment = Some(shipment.clone());
        let unwanted = room.unwanted.clone();
        let (tails, metrics, tell) = (self.tails.clone(), self.metrics.clone(), self.tell.clone());
        self.watches.spawn(
            async move {
                tokio::select! {
                    () = shipment.ship(tails, metrics) => {
                        let _ = tell.send((alloc, Told::Event(Event::LogComplete))).await;
                    }
                    () = unwanted.cancelled() => {}
                }
            }
            .in_current_span(),
        );
    }

    fn clean(&mut self, alloc: AllocId) {
        let folder = self.data.alloc(&alloc).0;
        let (sandboxes, trash) = (self.sandboxes.clone(), self.trash.clone());
        let room = self.room(&alloc);
        room.unwanted.cancel();
        room.shipment = None;
        room.prepared = None;
        let keeps = std::mem::take(&mut room.keeps);
        let name = alloc.clone();
        self.deed(alloc, async move {
            until_done("sandbox cannot be removed", name.clone(), move |alloc| {
                sandboxes.remove(alloc.as_str())
            })
            .await;
            // Its mounts are gone: the layers may go too.
            drop(keeps);
            until_done("folder cannot be removed", name, move |_| trash.discard(&folder)).await;
            Event::Cleaned
        });
    }
}

/// Tries blocking work until it succeeds.
async fn until_done<E: std::fmt::Display + Send + 'static>(
    failing: &'static str,
    alloc: AllocId,
    work: impl Fn(&AllocId) -> Result<(), E> + Send + Sync + 'static,
) {
    let work = Arc::new(work);
    loop {
        let (again, name) = (work.clone(), alloc.clone());
        match blocking(move || again(&name)).await {
            Ok(()) => return,
            Err(e) => tracing::error!(alloc_id = %alloc, error = %e, "{failing}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
