//! The archive of a server that leads: the real state machine over a picture that is late, a store
//! whose answers may be lost, a blob store that fails, and a history that is away.
//!
//! Whatever it sends arrives, whatever became of it. Not here: what must hold of archived runs
//! ([`crate::archived`]).

use crate::lie::Lie;
use crate::message::{ArchiveBatch, ArchiveEvent, Event, Put, PutOf};
use crate::world::World;
use api_core::archive::{
    self, Archiver, Change, Effect, Form, Move, MoveResult, PutResult, StoreResult, Times, Told, blob_name,
    cancel_request, summary,
};
use api_core::logs::{OwedLogs, run_prefix};
use model::key::{self, RunKey};
use model::record::Unknown;
use model::{ArchivedRun, DefChunk, RunDef, RunHeader, RunId, StepRecord};
use pipeline::progress::Records;
use rand::Rng;
use std::collections::BTreeMap;
use store::{Commit, Expect, Guard, Revision, Txn, Write};

/// How often the picture is looked at.
const LOOK_MS: u64 = 1_000;
/// How long something may be on its way: several elections.
const SLOW_MS: u64 = 10_000;
/// How long an archive waits for an answer before it takes the outcome for unknown.
const ANSWER_MS: u64 = 1_000;

/// The archive of one server.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    /// Grows with every term and crash.
    term: u64,
    /// While its server leads, with the revision of the leader's key.
    leads: Option<(Revision, Box<Archiver>)>,
}

impl Archive {
    pub(crate) fn crash(&mut self) {
        self.term += 1;
        self.leads = None;
    }

    /// What it is about, for people.
    pub(crate) fn words(&self) -> Option<String> {
        let (_, machine) = self.leads.as_ref()?;
        let wake = machine
            .wake_at_ms()
            .map_or("nothing is due".to_owned(), |at| format!("next due at {at} ms"));
        Some(format!(
            "its archive leads, {} outbox entries are not told, {wake}",
            machine.outbox_len()
        ))
    }
}

/// A run as it lies in the live store.
struct Read {
    header: RunHeader,
    revision: u64,
    definition: RunDef,
    records: Records,
}

impl World {
    fn tell_archive(&mut self, which: usize, delay_ms: u64, what: ArchiveEvent) {
        let term = self.servers[which].archive.term;
        self.agenda.after(delay_ms, Event::Archive { which, term, what });
    }

    /// The server has become the leader.
    pub(crate) fn begin_archive(&mut self, which: usize, leader: Revision) {
        let times = Times {
            after_ms: self.mood.archive_after_ms,
            log_wait_ms: self.mood.log_wait_ms,
        };
        let archive = &mut self.servers[which].archive;
        archive.term += 1;
        archive.leads = Some((leader, Box::new(Archiver::new(times))));
        self.told(which, archive::Event::Leads);
        self.tell_archive(which, 1, ArchiveEvent::Look);
    }

    pub(crate) fn on_archive(&mut self, which: usize, term: u64, what: ArchiveEvent) {
        let server = &mut self.servers[which];
        if !server.up || server.archive.term != term {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if server.paused_until_ms > now_ms {
            let delay = server.paused_until_ms - now_ms;
            return self.agenda.after(delay, Event::Archive { which, term, what });
        }
        let leader = server.archive.leads.as_ref().map(|(leader, _)| *leader);
        if leader != server.scheduler.leads {
            // It leads no longer, or in another term, which begins with an archive of its own.
            return server.archive.crash();
        }
        match what {
            ArchiveEvent::Look => self.look_for_ended(which),
            ArchiveEvent::Told(event) => self.told(which, *event),
        }
    }

    /// The picture reaches the archive some time later.
    fn look_for_ended(&mut self, which: usize) {
        let seen = self.picture.seen();
        let delay = self.delay();
        self.tell_archive(which, delay, ArchiveEvent::Told(Box::new(seen)));
        self.tell_archive(which, delay + LOOK_MS, ArchiveEvent::Look);
    }

    fn told(&mut self, which: usize, event: archive::Event) {
        let steady_ms = self.steady_of(which);
        let Some((_, machine)) = &mut self.servers[which].archive.leads else {
            return;
        };
        let effects = machine.on(event, steady_ms);
        for effect in effects {
            self.carry_out(which, effect);
        }
    }

    fn answer_archive(&mut self, which: usize, term: u64, delay_ms: u64, event: archive::Event) {
        let what = ArchiveEvent::Told(Box::new(event));
        self.agenda.after(delay_ms, Event::Archive { which, term, what });
    }

    fn carry_out(&mut self, which: usize, effect: Effect) {
        let term = self.servers[which].archive.term;
        let Some((leader, _)) = self.servers[which].archive.leads else {
            return;
        };
        let slow = self.faulty && self.rng.random_bool(0.2);
        let delay = self.rng.random_range(1..if slow { SLOW_MS } else { 30 });
        match effect {
            Effect::Store {
                ticket,
                run,
                with_short_logs,
            } => self.store_run(which, ticket, &run, with_short_logs),
            Effect::Move { ticket, moves } => {
                let what = ArchiveBatch::Move { ticket, moves };
                let event = Event::ArchiveCommit {
                    which,
                    term,
                    leader,
                    what,
                };
                self.agenda.after(delay, event);
            }
            Effect::Put { ticket, runs } => {
                let event = Event::TellHistory {
                    which,
                    term,
                    ticket,
                    runs,
                };
                self.agenda.after(delay, event);
            }
            Effect::Clear { ticket, runs } => {
                let what = ArchiveBatch::Clear { ticket, runs };
                let event = Event::ArchiveCommit {
                    which,
                    term,
                    leader,
                    what,
                };
                self.agenda.after(delay, event);
            }
        }
    }

    /// Reads a run and sends its blob on its way, if nothing is owed to it.
    fn store_run(&mut self, which: usize, ticket: u64, run: &RunId, with_short_logs: bool) {
        let term = self.servers[which].archive.term;
        let result = if self.network.store(which) {
            self.read_whole(run, with_short_logs)
        } else {
            Err(StoreResult::Failed)
        };
        let read = match result {
            Ok(read) => read,
            Err(result) => {
                let stored = archive::Event::Stored(ticket, result);
                return self.answer_archive(which, term, 1, stored);
            }
        };
        let summary = summary(&read.header, Some(&read.definition), &read.records).expect("it has ended");
        let name = blob_name(&read.header);
        let record = ArchivedRun {
            summary,
            blob: name.clone(),
            archived_ms: self.agenda.now_ms(),
            unknown: Unknown::new(),
        };
        let moved = Box::new(Move {
            header_revision: read.revision,
            record,
        });
        let form = Form::of(read.header, Some(read.definition), read.records);
        let put = Put {
            name,
            bytes: model::encode(&form),
            of: PutOf::Run { term, ticket, moved },
        };
        self.put_blob(which, put);
    }

    fn read_whole(&mut self, run: &RunId, with_short_logs: bool) -> Result<Read, StoreResult> {
        let Some(read) = self.read_run(run) else {
            return Err(StoreResult::NotDue);
        };
        if summary(&read.header, Some(&read.definition), &read.records).is_none() {
            return Err(StoreResult::NotDue);
        }
        if self.is_owed(run, &read.records) {
            return Err(StoreResult::NotYet);
        }
        let owed = OwedLogs::of(&read.records);
        if with_short_logs {
            self.check_short_logs(run);
        } else if !owed.is_empty() {
            if !self.blobs_answer() {
                return Err(StoreResult::Failed);
            }
            if !owed.are_among(self.blobs.list(&run_prefix(run))) {
                self.report.archive_waits += 1;
                return Err(StoreResult::NotYet);
            }
        }
        Ok(read)
    }

    fn read_run(&self, run: &RunId) -> Option<Read> {
        let entry = self.store.get(&key::run(run)).expect("legal")?;
        let header: RunHeader = entry.decode().expect("a header");
        let page = self.store.range(&key::run_parts(run), None, 1_000).expect("legal");
        let (mut chunks, mut records): (BTreeMap<usize, DefChunk>, Records) = (BTreeMap::new(), Records::new());
        for part in &page.entries {
            match key::parse_run(&part.key) {
                Some(RunKey::Def(_, n)) => drop(chunks.insert(n, part.decode().expect("a chunk"))),
                Some(RunKey::Step(_, n)) => {
                    records.insert(n, part.decode::<StepRecord>().expect("a step's record"));
                }
                Some(RunKey::Header(_)) | None => {}
            }
        }
        let chunks: Vec<DefChunk> = chunks.into_values().collect();
        Some(Read {
            definition: RunDef::from_chunks(&chunks).expect("a definition of ours"),
            revision: entry.mod_revision.0,
            header,
            records,
        })
    }

    /// An order, a report or a wish of somebody is left of it.
    fn is_owed(&self, run: &RunId, records: &Records) -> bool {
        let there = |key: &str| self.store.get(key).expect("legal").is_some();
        let orders = records
            .values()
            .filter_map(|r| Some((r.node.as_ref()?, r.alloc.as_ref()?)));
        let mut orders = orders.map(|(node, alloc)| key::alloc(node, alloc));
        let reports = format!("{}{run}-", key::OBSERVED);
        orders.any(|key| there(&key))
            || there(&key::request(&cancel_request(run)))
            || !self.store.range(&reports, None, 1).expect("legal").entries.is_empty()
    }

    /// The blob store answered about a run, or did not.
    pub(crate) fn run_stored(&mut self, which: usize, term: u64, ticket: u64, moved: Box<Move>, stored: bool) {
        let result = if stored {
            StoreResult::Done(moved)
        } else {
            StoreResult::Failed
        };
        self.answer_archive(which, term, 0, archive::Event::Stored(ticket, result));
    }

    /// The store gets a batch of an archive, whatever became of it.
    pub(crate) fn archive_commit(&mut self, which: usize, term: u64, leader: Revision, what: ArchiveBatch) {
        let changes: Vec<Change> = match &what {
            ArchiveBatch::Move { moves, .. } => moves.iter().map(Move::change).collect(),
            ArchiveBatch::Clear { runs, .. } => runs.iter().map(Told::change).collect(),
        };
        let arrives = self.network.store(which) && !(self.faulty && self.rng.random_bool(0.05));
        let commits = arrives.then(|| {
            let mut own_key = vec![Guard {
                key: key::LEADER.to_owned(),
                expect: Expect::Revision(leader),
            }];
            let mut txns: Vec<Txn> = changes.into_iter().map(txn).collect();
            if self.lie == Some(Lie::MovesUnguarded) {
                own_key.clear();
                txns.iter_mut().for_each(|txn| txn.guards.clear());
            }
            let now_ms = self.agenda.now_ms();
            self.store.commit_batch(&own_key, txns, now_ms).expect("legal")
        });
        let applied = commits.iter().flatten().any(Commit::is_applied);
        let server = &self.servers[which];
        let heard = server.up && server.archive.term == term;
        self.report.moves_of_the_dead += usize::from(applied && !heard);
        let lost = self.faulty && self.rng.random_bool(0.05);
        self.report.moves_unanswered += usize::from(applied && lost);
        let answer = commits.filter(|_| !lost);
        let delay = match &answer {
            Some(_) => self.rng.random_range(1..20),
            None => ANSWER_MS,
        };
        let event = match what {
            ArchiveBatch::Move { ticket, moves } => {
                let results = match answer {
                    Some(commits) => commits.into_iter().map(move_result).collect(),
                    None => vec![MoveResult::Unknown; moves.len()],
                };
                self.report.moves_refused += results.iter().filter(|r| **r == MoveResult::Refused).count();
                archive::Event::Moved(ticket, results)
            }
            ArchiveBatch::Clear { ticket, .. } => archive::Event::Cleared(ticket, answer.and_then(cleared)),
        };
        self.answer_archive(which, term, delay, event);
    }

    /// History is told, whatever became of the teller.
    pub(crate) fn tell_history(&mut self, which: usize, term: u64, ticket: u64, runs: &[Told]) {
        // Entries as they are now: one that has changed since it was chosen is told anew.
        let told = runs.iter().filter_map(|t| self.picture.outbox.get(&t.run));
        let records: Vec<ArchivedRun> = told.map(|(_, record)| record.clone()).collect();
        let (delay, result) = if self.history.down {
            self.report.history_away += 1;
            match self.lie {
                Some(Lie::TellsNobody) => (ANSWER_MS, PutResult::Done),
                _ => (ANSWER_MS, PutResult::Away),
            }
        } else if self.faulty && self.rng.random_bool(0.03) {
            self.report.history_refusals += 1;
            (self.rng.random_range(1..20), PutResult::Refused)
        } else {
            for record in records {
                self.report.history_repeats += usize::from(self.history.take(record));
            }
            if self.faulty && self.rng.random_bool(0.1) {
                (ANSWER_MS, PutResult::Away)
            } else {
                (self.rng.random_range(1..20), PutResult::Done)
            }
        };
        self.answer_archive(which, term, delay, archive::Event::Put(ticket, result));
    }
}

fn move_result(commit: Commit) -> MoveResult {
    match commit {
        Commit::Applied(revision) => MoveResult::Done(revision.0),
        Commit::Refused { .. } => MoveResult::Refused,
    }
}

/// The revision as of which none of the entries is as it was told; `None` when that is not known.
fn cleared(commits: Vec<Commit>) -> Option<u64> {
    let (mut newest, mut changed) = (0, false);
    for commit in commits {
        match commit {
            Commit::Applied(revision) => newest = newest.max(revision.0),
            Commit::Refused { guard, .. } if guard.key == key::LEADER => return None,
            Commit::Refused { found, .. } => changed |= found.is_some(),
        }
    }
    Some(newest).filter(|_| !changed)
}

fn txn(change: Change) -> Txn {
    let guards = change.guards.into_iter().map(|(key, expect)| Guard {
        key,
        expect: match expect {
            archive::Expect::Absent => Expect::Absent,
            archive::Expect::Revision(revision) => Expect::Revision(Revision(revision)),
        },
    });
    let writes = change.writes.into_iter().map(|write| match write {
        archive::Write::Put { key, value } => Write::Put {
            key,
            value,
            lease: None,
        },
        archive::Write::Delete { key } => Write::Delete { key },
        archive::Write::DeletePrefix { prefix } => Write::DeletePrefix { prefix },
    });
    Txn {
        guards: guards.collect(),
        writes: writes.collect(),
    }
}
