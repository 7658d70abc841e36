//! Batches of a leader on their way to the store: up to two at a time, which arrive in any order, late
//! or never, and whose answers may be lost.
//!
//! What may be on its way, and what ends a term, are the rules of [`scheduler::term`], as the shell has
//! them. Not here: what is planned, and the campaign for the key ([`crate::election`]).

use crate::lie::Lie;
use crate::message::{Event, SchedulerEvent};
use crate::world::World;
use model::key;
use rand::Rng;
use scheduler::term::Heard;
use scheduler::{Ticket, Verified};
use store::{Commit, Expect, Guard, Revision, Txn, Write};

/// How long a scheduler waits for an answer before it takes the outcome for unknown.
const ANSWER_MS: u64 = 400;
/// How long a batch may be on its way: two election leases.
const LATE_MS: u64 = 4_000;

/// A batch of one scheduler.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) which: usize,
    /// The view that it was planned on.
    view: u64,
    number: u64,
    leader: Revision,
    verified: Vec<Verified>,
}

impl Batch {
    /// That it arrives, for people.
    pub(crate) fn words(&self) -> String {
        let count = self.verified.len();
        format!("its batch {} of {count} transactions reaches the store", self.number)
    }
}

impl World {
    /// Plans, and sends what stands up to the newest view; then perhaps another one.
    pub(crate) fn send_batch(&mut self, which: usize, leader: Revision) {
        let now_ms = self.agenda.now_ms();
        let steady_ms = self.steady_of(which);
        let scheduler = &mut self.servers[which].scheduler;
        scheduler.cluster.tick(steady_ms);
        let plan = scheduler.cluster.plan(now_ms);
        let (verified, _) = scheduler.cluster.verify(&plan);
        if verified.is_empty() {
            return;
        }
        scheduler.term.sent();
        scheduler.sent += 1;
        scheduler.awaits.insert(scheduler.sent);
        let (view, number) = (scheduler.view, scheduler.sent);
        self.report.batches_at_once += usize::from(scheduler.awaits.len() > 1);
        self.tell_scheduler(which, ANSWER_MS, SchedulerEvent::Unheard { batch: number });
        if self.network.store(which) {
            let late = self.faulty && self.rng.random_bool(0.05);
            let delay = self.rng.random_range(1..if late { LATE_MS } else { 20 });
            let batch = Batch {
                which,
                view,
                number,
                leader,
                verified,
            };
            self.agenda.after(delay, Event::Commit(batch));
        }
        self.tell_scheduler(which, 0, SchedulerEvent::Act);
    }

    /// The store gets a batch, whatever became of its sender.
    pub(crate) fn commit(&mut self, batch: Batch) {
        if self.network.store_down {
            return;
        }
        let Batch {
            which, view, number, ..
        } = batch;
        let scheduler = &self.servers[which].scheduler;
        if scheduler.view == view {
            let before = scheduler.awaits.range(..number).next().is_some();
            self.report.batches_overtaken += usize::from(before);
        } else {
            self.report.late_batches += 1;
        }
        let full = self.faulty && self.rng.random_bool(0.01);
        let lost = self.faulty && self.rng.random_bool(0.03);
        let what = if full {
            self.report.full_stores += 1;
            // The one that reaches the limit may be applied all the same.
            if self.rng.random_bool(0.5) {
                self.apply(batch);
            }
            SchedulerEvent::Full { batch: number }
        } else {
            let answers = self.apply(batch);
            SchedulerEvent::Answer { batch: number, answers }
        };
        if lost || !self.network.store(which) {
            self.report.lost_answers += 1;
            return;
        }
        let delay = self.rng.random_range(1..20);
        self.agenda.after(delay, Event::Scheduler { which, view, what });
    }

    fn apply(&mut self, batch: Batch) -> Vec<(Ticket, Commit)> {
        let Batch {
            which,
            view,
            leader,
            verified,
            ..
        } = batch;
        let tickets: Vec<Ticket> = verified.iter().map(|v| v.ticket).collect();
        let own_key = Guard {
            key: key::LEADER.to_owned(),
            expect: Expect::Revision(leader),
        };
        let mut own_key = vec![own_key];
        let mut txns: Vec<Txn> = verified.into_iter().map(|v| txn(v.change)).collect();
        if self.lie == Some(Lie::CommitsUnguarded) {
            own_key.clear();
            txns.iter_mut().for_each(|txn| txn.guards.clear());
        }
        let now_ms = self.agenda.now_ms();
        let commits = self.store.commit_batch(&own_key, txns, now_ms).expect("a legal batch");
        let sender_lives = self.servers[which].scheduler.view == view;
        if !sender_lives && commits.iter().any(Commit::is_applied) {
            self.report.commits_of_the_dead += 1;
        }
        tickets.into_iter().zip(commits).collect()
    }

    pub(crate) fn answered(&mut self, which: usize, batch: u64, answers: Vec<(Ticket, Commit)>) {
        if !self.servers[which].scheduler.awaits.remove(&batch) {
            return;
        }
        let own = |commit: &Commit| matches!(commit, Commit::Refused { guard, .. } if guard.key == key::LEADER);
        let deposed = answers.iter().any(|(_, commit)| own(commit));
        let scheduler = &mut self.servers[which].scheduler;
        let spent = scheduler
            .term
            .heard(if deposed { Heard::Deposed } else { Heard::Answer });
        if deposed {
            for (ticket, _) in answers {
                scheduler.cluster.refuse(ticket);
            }
            self.report.deposed += 1;
            self.give_up_key(which, spent);
        } else if self.learn(which, answers).is_none() {
            // Keys have to be read again, and the store does not answer.
            return self.build_view(which);
        }
        self.settled(which);
    }

    /// Takes the answers into the view, and what was found under the keys of guards that did not hold;
    /// `None` if what was not told cannot be read.
    fn learn(&mut self, which: usize, answers: Vec<(Ticket, Commit)>) -> Option<()> {
        let cluster = &mut self.servers[which].scheduler.cluster;
        let mut doubtful = Vec::new();
        for (ticket, commit) in answers {
            match commit {
                Commit::Applied(revision) => drop(cluster.confirm(ticket, revision.0)),
                Commit::Refused { guard, found } => {
                    self.report.refused += 1;
                    cluster.refuse(ticket);
                    match found {
                        Some(found) => {
                            let taken = cluster.on_change(&found.key, Some(&found.value), found.mod_revision.0);
                            taken.expect("a record of ours");
                        }
                        None => doubtful.push(guard.key),
                    }
                }
            }
        }
        if !doubtful.is_empty() && !self.network.store(which) {
            return None;
        }
        for key in doubtful {
            let page = self.store.range(&key, None, 1).expect("legal");
            let entry = page.entries.first().filter(|e| e.key == key);
            let (value, revision) = entry.map_or((None, page.revision), |e| (Some(&*e.value), e.mod_revision));
            let taken = cluster.on_change(&key, value, revision.0);
            taken.expect("a record of ours");
        }
        Some(())
    }

    /// Nothing was heard of a batch for so long that it never will be.
    pub(crate) fn unheard(&mut self, which: usize, batch: u64) {
        let scheduler = &mut self.servers[which].scheduler;
        if scheduler.awaits.remove(&batch) {
            let spent = scheduler.term.heard(Heard::Unknown);
            self.note(&format!("s{which}"), || {
                format!("gives up waiting for its batch {batch}")
            });
            self.give_up_key(which, spent);
            self.build_view(which);
        }
    }

    /// The store has no room. What else is on its way is answered soon.
    pub(crate) fn found_full(&mut self, which: usize, batch: u64) {
        let scheduler = &mut self.servers[which].scheduler;
        if scheduler.awaits.remove(&batch) {
            scheduler.found_full = true;
            let spent = scheduler.term.heard(Heard::Full);
            assert_eq!(spent, None, "a full store ends no term");
            self.settled(which);
        }
    }

    fn settled(&mut self, which: usize) {
        let scheduler = &self.servers[which].scheduler;
        if scheduler.found_full && scheduler.awaits.is_empty() {
            self.build_view(which);
        } else {
            self.tell_scheduler(which, 0, SchedulerEvent::Act);
        }
    }
}

fn txn(change: scheduler::Change) -> Txn {
    let guards = change.guards.into_iter().map(|(key, expect)| Guard {
        key,
        expect: match expect {
            scheduler::Expect::Absent => Expect::Absent,
            scheduler::Expect::Present => Expect::Present,
            scheduler::Expect::Revision(revision) => Expect::Revision(Revision(revision)),
        },
    });
    let writes = change.writes.into_iter().map(|write| match write {
        scheduler::Write::Put { key, value } => Write::Put {
            key,
            value,
            lease: None,
        },
        scheduler::Write::Delete { key } => Write::Delete { key },
    });
    Txn {
        guards: guards.collect(),
        writes: writes.collect(),
    }
}
