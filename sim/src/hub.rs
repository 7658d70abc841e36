//! The logs that nodes send to a server, on their way into blobs: the real state machine of a log's
//! offsets, a blob store that fails, and sessions that come and go.
//!
//! Storing goes on after a session has ended; a crash takes what was not stored. Not here: the
//! node's side ([`crate::shipping`]), readers.

use crate::lie::Lie;
use crate::message::{AgentEvent, Put, PutOf, ServerEvent, Stream};
use crate::session::Slot;
use crate::world::World;
use api_core::logs::{LogId, Tape, Verdict};
use bytes::Bytes;
use model::{AllocId, StepRecord, key};
use rand::Rng;
use std::collections::BTreeMap;

/// A chunk is stored when it is so old …
const CHUNK_AGE_MS: u64 = 1_000;
/// … or has so many bytes; few, so that there are many chunks.
const CHUNK_BYTES: u64 = 60;
/// The most bytes of one blob.
const CHUNK_MAX: u64 = 100;
/// When a log that had no room looks for some.
const ROOM_POLL_MS: u64 = 200;
/// The longest pause before the blob store is asked again.
const AGAIN_MAX_MS: u64 = 3_000;

/// A log that somebody writes, or of which something is to be stored.
#[derive(Debug)]
pub(crate) struct OpenLog {
    tape: Tape,
    writer: Option<Stream>,
    /// When the oldest byte came that is not stored.
    oldest_ms: Option<u64>,
}

/// The open logs of a server.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    logs: BTreeMap<AllocId, OpenLog>,
}

impl Hub {
    /// The logs that this stream writes have no writer any more.
    pub(crate) fn let_go(&mut self, stream: Stream) -> Vec<AllocId> {
        let written = self.logs.iter_mut().filter(|(_, log)| log.writer == Some(stream));
        written
            .map(|(alloc, log)| {
                log.writer = None;
                alloc.clone()
            })
            .collect()
    }

    /// What is not stored yet, for people.
    pub(crate) fn words(&self) -> impl Iterator<Item = String> {
        self.logs.iter().map(|(alloc, log)| {
            let (received, stored) = (log.tape.received_to(), log.tape.stored_to());
            let writer = log.writer.map(|w| format!("stream {}", w.number));
            format!(
                "log of {alloc}: {stored} of {received} bytes received are stored, written by {}",
                writer.as_deref().unwrap_or("nobody")
            )
        })
    }
}

impl World {
    pub(crate) fn on_log_open(&mut self, which: usize, stream: Stream, alloc: AllocId) {
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        match session.logs.get(&alloc) {
            Some(Slot::Opening) => {}
            Some(Slot::Open) => {
                if let Some(log) = self.servers[which].hub.logs.get_mut(&alloc)
                    && log.writer == Some(stream)
                {
                    let offset = log.tape.reopened();
                    self.say_from(which, stream, &alloc, offset);
                }
            }
            None => {
                session.logs.insert(alloc.clone(), Slot::Opening);
                self.tell_server(which, 0, ServerEvent::FindLog { stream, alloc });
            }
        }
    }

    /// Lists what is stored, if the node may write the log; otherwise it may forget it.
    pub(crate) fn find_log(&mut self, which: usize, stream: Stream, alloc: AllocId) {
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        if !session.standing.contains_key(&alloc) && !self.may_write_log(stream, &alloc) {
            if let Some(session) = self.session_mut(which, stream) {
                session.logs.remove(&alloc);
            }
            self.report.unwanted_logs += 1;
            return self.forget(which, stream, alloc);
        }
        if !self.blobs_answer() {
            let pause = self.rng.random_range(100..AGAIN_MAX_MS);
            return self.tell_server(which, pause, ServerEvent::FindLog { stream, alloc });
        }
        let stored = self.stored_of(&alloc).len();
        let delay = self.rng.random_range(1..20);
        self.tell_server(which, delay, ServerEvent::LogListed { stream, alloc, stored });
    }

    fn may_write_log(&self, stream: Stream, alloc: &AllocId) -> bool {
        let node = &self.machines[stream.machine].record.id;
        if self.store.get(&key::alloc(node, alloc)).expect("legal").is_some() {
            return true;
        }
        self.step_of(alloc).is_some_and(|step: StepRecord| {
            let newest = step.alloc.as_ref() == Some(alloc) && step.node.as_ref() == Some(node);
            newest || step.earlier.iter().any(|e| e.alloc == *alloc && e.node == *node)
        })
    }

    pub(crate) fn log_listed(&mut self, which: usize, stream: Stream, alloc: AllocId, stored: u64) {
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        session.logs.insert(alloc.clone(), Slot::Open);
        let log = self.servers[which]
            .hub
            .logs
            .entry(alloc.clone())
            .or_insert_with(|| OpenLog {
                tape: Tape::new(stored),
                writer: None,
                oldest_ms: None,
            });
        log.writer = Some(stream);
        let offset = log.tape.reopened();
        self.report.logs_resumed += usize::from(offset > 0);
        self.say_from(which, stream, &alloc, offset);
        self.tell_server(which, 0, ServerEvent::StoreLog { alloc });
    }

    fn say_from(&mut self, which: usize, to: Stream, alloc: &AllocId, offset: u64) {
        let (stream, alloc) = (to.number, alloc.clone());
        self.answer_in_order(which, to, AgentEvent::LogFrom { stream, alloc, offset });
    }

    pub(crate) fn on_log_data(
        &mut self,
        which: usize,
        stream: Stream,
        alloc: AllocId,
        (offset, bytes, end): (u64, Bytes, bool),
    ) {
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        if session.logs.get(&alloc) != Some(&Slot::Open) {
            // What comes before the log is open comes again.
            return self.on_log_open(which, stream, alloc);
        }
        let now_ms = self.agenda.now_ms();
        let room = !(self.faulty && self.rng.random_bool(0.05));
        let log = self.servers[which].hub.logs.get_mut(&alloc);
        let Some(log) = log.filter(|log| log.writer == Some(stream)) else {
            return;
        };
        match log.tape.accept(offset, bytes, end, room) {
            Verdict::Fresh(_) => {
                log.oldest_ms.get_or_insert(now_ms);
            }
            Verdict::Known => self.acknowledge(which, &alloc),
            Verdict::Gap => {
                let offset = log.tape.stored_to();
                self.say_from(which, stream, &alloc, offset);
            }
            Verdict::Waiting => return,
            Verdict::Full => self.report.turned_away += 1,
        }
        self.tell_server(which, 0, ServerEvent::StoreLog { alloc });
    }

    /// Tells the node what is stored; a log that is whole is closed, and forgotten if its order is gone.
    fn acknowledge(&mut self, which: usize, alloc: &AllocId) {
        let Some(log) = self.servers[which].hub.logs.get(alloc) else {
            return;
        };
        let (mut offset, complete) = (log.tape.stored_to(), log.tape.is_complete());
        if self.lie == Some(Lie::AcknowledgesEarly) {
            offset = log.tape.received_to();
        }
        let Some(to) = log.writer else { return };
        self.check_log_ack(alloc, offset, complete);
        let Some(session) = self.session_mut(which, to) else {
            return;
        };
        let mut finished = false;
        if complete {
            session.logs.remove(alloc);
            finished = session.leaving.whole(alloc);
        }
        let ack = AgentEvent::LogAck {
            stream: to.number,
            alloc: alloc.clone(),
            offset,
            complete,
        };
        self.answer_in_order(which, to, ack);
        if finished {
            self.forget(which, to, alloc.clone());
        }
    }

    /// Stores the next chunk if it is due.
    pub(crate) fn store_log(&mut self, which: usize, alloc: AllocId) {
        let now_ms = self.agenda.now_ms();
        let room = !(self.faulty && self.rng.random_bool(0.2));
        let Some(log) = self.servers[which].hub.logs.get_mut(&alloc) else {
            return;
        };
        let again = log.writer.filter(|_| log.tape.quench(room));
        let from = log.tape.stored_to();
        if log.tape.unstored() == 0 {
            let over = log.tape.is_complete() || log.writer.is_none();
            if over {
                self.servers[which].hub.logs.remove(&alloc);
            } else if log.tape.is_thirsty() {
                let alloc = alloc.clone();
                self.tell_server(which, ROOM_POLL_MS, ServerEvent::StoreLog { alloc });
            }
        } else {
            let due_ms = log.oldest_ms.unwrap_or(now_ms) + CHUNK_AGE_MS;
            let now = log.tape.unstored() >= CHUNK_BYTES || log.tape.is_ended() || log.writer.is_none();
            if !now && due_ms > now_ms {
                let alloc = alloc.clone();
                self.tell_server(which, due_ms - now_ms, ServerEvent::StoreLog { alloc });
            } else if let Some(batch) = log.tape.take(CHUNK_MAX) {
                log.oldest_ms = None;
                let name = LogId::of(&alloc).expect("an allocation of ours");
                let put = Put {
                    name: name.blob(batch.offset, batch.bytes.len() as u64),
                    bytes: batch.bytes,
                    of: PutOf::Log(alloc.clone()),
                };
                self.put_blob(which, put);
            }
        }
        if let Some(stream) = again {
            self.say_from(which, stream, &alloc, from);
        }
    }

    /// The blob store answered about a chunk.
    pub(crate) fn chunk_answered(&mut self, which: usize, alloc: AllocId, put: Box<Put>, stored: bool) {
        if !stored {
            let pause = self.rng.random_range(100..AGAIN_MAX_MS);
            return self.tell_server(which, pause, ServerEvent::PutAgain { put });
        }
        let now_ms = self.agenda.now_ms();
        let Some(log) = self.servers[which].hub.logs.get_mut(&alloc) else {
            return;
        };
        log.tape.stored();
        log.tape.trim(0);
        if log.tape.unstored() > 0 {
            log.oldest_ms.get_or_insert(now_ms);
        }
        self.acknowledge(which, &alloc);
        self.tell_server(which, 0, ServerEvent::StoreLog { alloc });
    }
}
