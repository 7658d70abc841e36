//! The blob store: late, at times away, and not always heard when it has stored something.
//!
//! A put arrives whatever became of its sender. Not here: what is stored, and what a sender does
//! when it hears nothing.

use crate::lie::Lie;
use crate::message::{Event, Put, PutOf, ServerEvent};
use crate::world::World;
use rand::Rng;
use std::collections::BTreeMap;

/// How long a server waits for an answer of a blob store that is away.
const NO_ANSWER_MS: u64 = 2_000;

/// The blobs.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    all: BTreeMap<String, Vec<u8>>,
    /// It answers nobody.
    pub(crate) down: bool,
}

impl Blobs {
    /// Names and sizes, in order of names.
    pub(crate) fn list(&self, prefix: &str) -> Vec<(String, u64)> {
        let from = self.all.range(prefix.to_owned()..);
        let below = from.take_while(|(name, _)| name.starts_with(prefix));
        below.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.all.get(name).map(Vec::as_slice)
    }
}

impl World {
    /// Sends a put on its way.
    pub(crate) fn put_blob(&mut self, which: usize, put: Put) {
        let slow = self.faulty && self.rng.random_bool(0.1);
        let delay = self.rng.random_range(1..if slow { 5_000 } else { 50 });
        let life = self.servers[which].life;
        let put = Box::new(put);
        self.agenda.after(delay, Event::Put { which, life, put });
    }

    /// Whether the blob store answers this time.
    pub(crate) fn blobs_answer(&mut self) -> bool {
        let fails = self.blobs.down || (self.faulty && self.rng.random_bool(0.03));
        self.report.blob_failures += usize::from(fails);
        !fails
    }

    /// A put arrives.
    pub(crate) fn blob_arrives(&mut self, which: usize, life: u64, put: Box<Put>) {
        let stored = self.blobs_answer();
        if stored {
            self.keep_blob(&put);
            let server = &self.servers[which];
            let heard = server.up && server.life == life;
            self.report.blobs_of_the_dead += usize::from(!heard);
        }
        let lies = stored && self.faulty && self.rng.random_bool(0.03);
        self.report.blob_lies += usize::from(lies);
        let delay = if stored && !lies {
            self.rng.random_range(1..20)
        } else {
            NO_ANSWER_MS
        };
        let stored = stored && !lies;
        let what = ServerEvent::BlobAnswer { put, stored };
        self.agenda.after(delay, Event::Server { which, life, what });
    }

    fn keep_blob(&mut self, put: &Put) {
        if self.lie == Some(Lie::LosesBlobs) && self.rng.random_bool(0.1) {
            return;
        }
        if let PutOf::Log(alloc) = &put.of {
            self.report.chunks += 1;
            self.check_chunk(alloc, &put.name, &put.bytes);
        }
        if let Some(before) = self.blobs.all.insert(put.name.clone(), put.bytes.clone()) {
            assert!(before == put.bytes, "blob {} is stored with other bytes", put.name);
            self.report.blobs_again += 1;
        }
    }
}
