//! I7: what every container has printed, held against what is stored of it.
//!
//! Not here: the way of the bytes ([`crate::shipping`], [`crate::hub`]).

use crate::world::World;
use api_core::logs::{Cover, LogId, offset_of};
use model::{AllocId, StepRecord};
use std::collections::{BTreeMap, BTreeSet};

/// The contents of every log's file.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    /// What each file has held: more than one if a machine lost its power and the file its tail.
    files: BTreeMap<AllocId, Vec<Vec<u8>>>,
    /// Logs that a node removed before they were stored, while their run was in the live store.
    dropped: BTreeSet<AllocId>,
}

impl Printed {
    pub(crate) fn append(&mut self, alloc: &AllocId, bytes: &[u8]) {
        let contents = self.files.entry(alloc.clone()).or_default();
        if contents.is_empty() {
            contents.push(Vec::new());
        }
        if let Some(newest) = contents.last_mut() {
            newest.extend_from_slice(bytes);
        }
    }

    /// The file lost what follows its first `len` bytes.
    pub(crate) fn cut(&mut self, alloc: &AllocId, len: usize) {
        if let Some(contents) = self.files.get_mut(alloc)
            && let Some(newest) = contents.last()
        {
            let left = newest[..len].to_vec();
            contents.push(left);
        }
    }

    fn contents(&self, alloc: &AllocId) -> &[Vec<u8>] {
        self.files.get(alloc).map_or(&[], Vec::as_slice)
    }

    fn lost_tail(&self, alloc: &AllocId) -> bool {
        self.contents(alloc).len() > 1
    }

    /// Whether the file has held these bytes there.
    fn held(&self, alloc: &AllocId, offset: usize, bytes: &[u8]) -> bool {
        let contents = self.contents(alloc);
        bytes
            .iter()
            .enumerate()
            .all(|(n, byte)| contents.iter().any(|c| c.get(offset + n) == Some(byte)))
    }
}

impl World {
    /// What lies under a log's offset is what was printed there.
    pub(crate) fn check_chunk(&mut self, alloc: &AllocId, name: &str, bytes: &[u8]) {
        let offset = offset_of(name).expect("a name of ours");
        let at = usize::try_from(offset).expect("small");
        assert!(
            self.printed.held(alloc, at, bytes),
            "I7: {name} holds bytes that {alloc} did not print there"
        );
        let before = self.stored_of(alloc);
        let within = before.segments.iter().any(|s| s.at <= offset && offset < s.end());
        self.report.overlaps += usize::from(within);
    }

    /// What is stored of a log.
    pub(crate) fn stored_of(&self, alloc: &AllocId) -> Cover<String> {
        let log = LogId::of(alloc).expect("an allocation of ours");
        Cover::of(self.blobs.list(&log.prefix()))
    }

    /// A node removes the file.
    pub(crate) fn log_is_dropped(&mut self, which: usize, alloc: &AllocId) {
        let file = self.machines[which].files.get(alloc);
        let len = file.map_or(0, Vec::len) as u64;
        let is_live = alloc.parts().is_some_and(|(run, ..)| self.picture.is_live(&run));
        if is_live && self.stored_of(alloc).len() < len {
            self.printed.dropped.insert(alloc.clone());
        }
    }

    /// Nothing is acknowledged before it is stored: the node may forget it.
    pub(crate) fn check_log_ack(&self, alloc: &AllocId, offset: u64, complete: bool) {
        let stored = self.stored_of(alloc).len();
        let file = self.printed.contents(alloc).last().map_or(0, Vec::len) as u64;
        assert!(
            !complete || stored >= file,
            "I7: the log of {alloc} is said to be whole, {stored} of its {file} bytes are stored"
        );
        assert!(
            offset <= stored,
            "I7: {offset} bytes of {alloc} are acknowledged, {stored} are stored"
        );
    }

    /// Every log of a step's attempts that told its length is stored, each byte once. Of a run that was
    /// archived without waiting any longer an end may be missing that its node still had then.
    pub(crate) fn check_logs(&mut self, record: &StepRecord, archived_short: bool) {
        let newest = record.alloc.iter().map(|alloc| (alloc, record.log_bytes));
        let earlier = record.earlier.iter().map(|e| (&e.alloc, e.log_bytes));
        for (alloc, len) in newest.chain(earlier) {
            let Some(len) = len else { continue };
            let cover = self.stored_of(alloc);
            let mut stored = Vec::new();
            for segment in &cover.segments {
                let blob = self.blobs.get(&segment.blob).expect("listed");
                let from = usize::try_from(segment.skip).expect("small");
                let to = usize::try_from(segment.skip + segment.len).expect("small");
                stored.extend_from_slice(&blob[from..to]);
            }
            assert!(self.printed.held(alloc, 0, &stored), "I7: the stored log of {alloc}");
            let found = stored.len() as u64;
            let whole = found == len || (found > len && self.printed.lost_tail(alloc));
            let dropped = self.printed.dropped.contains(alloc);
            assert!(
                whole || (archived_short && found < len && !dropped),
                "I7: {found} of the {len} bytes of {alloc} are stored; removed too early: {dropped}"
            );
            self.report.short_logs += usize::from(!whole);
            self.report.whole_logs += usize::from(whole && len > 0);
        }
    }
}
