//! What must hold of runs that leave the live store: a run goes when it has ended and nothing is owed
//! to it, its blob is there before, its outbox entry comes with it and goes when history has it, and
//! history has each run once, as it ended.
//!
//! Not here: who does it ([`crate::archiving`]).

use crate::world::World;
use api_core::archive::{self, Form, Told, cancel_request, summary};
use model::key::{self, RunKey};
use model::{ArchivedRun, RunId};
use std::collections::{BTreeMap, BTreeSet};
use store::Change;

/// The live runs that have ended and the outbox, as the store's changes tell; what archives see of
/// it is older.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    revision: u64,
    live: BTreeSet<RunId>,
    /// And since when.
    ended: BTreeMap<RunId, u64>,
    pub(crate) outbox: BTreeMap<RunId, (u64, ArchivedRun)>,
    /// Runs that have left the live store.
    left: BTreeSet<RunId>,
}

impl Picture {
    pub(crate) fn seen(&self) -> archive::Event {
        let told = |(run, (revision, _)): (&RunId, &(u64, ArchivedRun))| Told {
            run: run.clone(),
            revision: *revision,
        };
        archive::Event::Seen {
            revision: self.revision,
            ended: self.ended.keys().cloned().collect(),
            outbox: self.outbox.iter().map(told).collect(),
        }
    }

    /// Whether the run is in the live store.
    pub(crate) fn is_live(&self, run: &RunId) -> bool {
        self.live.contains(run)
    }

    /// Whether the live store holds no run and no outbox entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.outbox.is_empty()
    }

    /// What is left of a run there, for people.
    pub(crate) fn words(&self, run: &RunId) -> &'static str {
        if self.outbox.contains_key(run) {
            "it is in the outbox, history has not taken it"
        } else if self.ended.contains_key(run) {
            "it has ended and is not archived"
        } else if self.live.contains(run) {
            "it goes on"
        } else if self.left.contains(run) {
            "it is archived"
        } else {
            "it is not there yet"
        }
    }
}

/// What is searched and listed.
#[derive(Debug, Default)]
pub(crate) struct History {
    runs: BTreeMap<RunId, ArchivedRun>,
    /// It answers nobody.
    pub(crate) down: bool,
}

impl History {
    /// Takes a run; true if it has it already.
    pub(crate) fn take(&mut self, record: ArchivedRun) -> bool {
        let before = self.runs.insert(record.summary.id.clone(), record.clone());
        assert!(
            before.as_ref().is_none_or(|b| *b == record),
            "history is told two ends of {}",
            record.summary.id
        );
        before.is_some()
    }
}

impl World {
    /// Takes the changes of one revision.
    pub(crate) fn picture_changes(&mut self, changes: &[Change]) {
        for change in changes {
            self.picture.revision = change.revision.0;
            match key::parse_run(&change.key) {
                Some(RunKey::Header(run)) if change.value.is_some() => {
                    assert!(
                        !self.picture.left.contains(&run),
                        "{run} comes back after it was archived"
                    );
                    self.picture.live.insert(run);
                }
                Some(RunKey::Header(run)) => {
                    self.check_leaving(&run, changes);
                    self.picture.live.remove(&run);
                    self.picture.ended.remove(&run);
                    self.picture.left.insert(run);
                }
                Some(RunKey::Step(run, _)) if change.value.is_some() => {
                    assert!(
                        !self.picture.left.contains(&run),
                        "a step of {run} changes after it was archived"
                    );
                    if self.watcher.is_over(&run) {
                        let now_ms = self.agenda.now_ms();
                        self.picture.ended.insert(run, now_ms);
                    }
                }
                Some(RunKey::Def(..) | RunKey::Step(..)) => {}
                None => self.outbox_changes(change),
            }
        }
    }

    fn outbox_changes(&mut self, change: &Change) {
        let run = change.key.strip_prefix(key::ARCHIVE_OUTBOX).map(RunId::new);
        let Some(Ok(run)) = run else { return };
        if let Some(value) = change.value.as_deref() {
            let record: ArchivedRun = model::decode(value).expect("an archived run");
            self.picture.outbox.insert(run, (change.revision.0, record));
        } else {
            let told = self.picture.outbox.remove(&run).map(|(_, record)| record);
            assert_eq!(
                told.as_ref(),
                self.history.runs.get(&run),
                "the outbox forgets {run} and history does not have it"
            );
        }
    }

    /// A run is archived although a log may be short: only after it was waited for, by a clock that may
    /// be a little fast.
    pub(crate) fn check_short_logs(&mut self, run: &RunId) {
        let Some(since_ms) = self.picture.ended.get(run) else {
            return;
        };
        let waited_ms = self.agenda.now_ms() - since_ms;
        assert!(
            waited_ms * 11 >= self.mood.log_wait_ms * 10,
            "I7: the logs of {run} were waited for only {waited_ms} ms"
        );
        self.waited_for.insert(run.clone());
    }

    /// A run leaves the live store with these changes.
    fn check_leaving(&mut self, run: &RunId, changes: &[Change]) {
        self.report.archived += 1;
        assert!(self.watcher.is_over(run), "{run} leaves the live store before its end");
        let outbox = key::archive_outbox(run);
        let entry = changes
            .iter()
            .find(|c| c.key == outbox)
            .and_then(|c| c.value.as_deref());
        let entry = entry.unwrap_or_else(|| panic!("{run} leaves the live store and not for the outbox"));
        let record: ArchivedRun = model::decode(entry).expect("an archived run");
        self.check_archived(run, &record);
        let orders = self.watcher.orders().filter(|o| o.run == *run);
        assert_eq!(orders.count(), 0, "{run} leaves the live store with an order");
        let reports = format!("{}{run}-", key::OBSERVED);
        let wish = key::request(&cancel_request(run));
        for prefix in [reports, wish] {
            let left = self.store.range(&prefix, None, 1).expect("legal").entries;
            assert!(
                left.is_empty(),
                "{run} leaves the live store and leaves {}",
                left[0].key
            );
        }
    }

    /// The record and the blob of an archived run say what every step came to.
    fn check_archived(&self, run: &RunId, record: &ArchivedRun) {
        let planned = self.runs.iter().find(|r| r.header.id == *run).expect("a run of ours");
        let records = self.watcher.records(run).expect("it has ended");
        let expected = summary(&planned.header, Some(&planned.def), records);
        assert_eq!(Some(&record.summary), expected.as_ref(), "the summary of {run}");
        let blob = self.blobs.get(&record.blob);
        let blob = blob.unwrap_or_else(|| panic!("{run} is archived without its blob"));
        let form: Form = model::decode(blob).expect("the form of a run");
        assert_eq!(form.records(), *records, "the blob of {run}");
        assert_eq!(form.definition.as_ref(), Some(&planned.def), "the blob of {run}");
    }

    /// In the end history has every run, as it ended.
    pub(crate) fn check_history(&self) {
        for planned in &self.runs {
            let run = &planned.header.id;
            let record = self.history.runs.get(run);
            let record = record.unwrap_or_else(|| panic!("history does not have {run}"));
            self.check_archived(run, record);
        }
        assert_eq!(self.history.runs.len(), self.runs.len(), "history has other runs");
    }
}
