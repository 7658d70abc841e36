//! When which run is stored, moved and told to history: (state, event, now) → effects.
//!
//! Only a leader archives. Effects carry a ticket; an answer to a ticket that is not waited for any
//! more (the term has ended, the run has gone another way) changes nothing. What became of an
//! effect whose answer was lost is seen in the store: every part may be done again. Not here: the
//! store, blobs, history, clocks.

use model::{ArchivedRun, RunId};
use std::collections::{BTreeMap, BTreeSet};

/// The most runs that are being stored at once. Storing one is a few questions to a store that is busy
/// with other work: one after the other a run would take a tenth of a second. What they may hold in
/// memory together is bounded by whoever carries it out.
pub const IN_FLIGHT_MAX: usize = 64;

/// The most runs of one move: a fraction of a second's work.
pub const BATCH_MAX: usize = 100;

/// The most runs that are told to history at once; each waits for the batch before it.
pub const TELL_MAX: usize = 400;

/// The first pause after something failed.
const PAUSE_MIN_MS: u64 = 500;

/// The longest pause after something failed: what comes back is noticed within half a minute.
const PAUSE_MAX_MS: u64 = 30_000;

/// How long a run rests that history refuses for a reason that no waiting mends, so that it
/// neither holds up the others nor fills the log.
const ASIDE_MS: u64 = 600_000;

/// How often a run whose log is not whole is looked at.
const LOG_PAUSE_MS: u64 = 2_000;

/// When runs are archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// How long an ended run stays in the live store, so that those who follow it see its end, ms.
    pub after_ms: u64,
    /// How long an ended run waits for logs that are not whole, ms; counted anew when it could not be stored.
    pub log_wait_ms: u64,
}

impl Default for Times {
    /// Followers are told within a second; a node's logs come back within its lease and grace and
    /// a new stream.
    fn default() -> Self {
        Self {
            after_ms: 5_000,
            log_wait_ms: 60_000,
        }
    }
}

/// A run whose blob is stored: what the move writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Move {
    /// The header's revision as it was read for the blob.
    pub header_revision: u64,
    /// What the outbox gets.
    pub record: ArchivedRun,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Read the run and put its blob; answered by [`Event::Stored`].
    Store {
        /// Of this effect.
        ticket: u64,
        /// Which run.
        run: RunId,
        /// Also if a log is not whole: it has been waited for.
        with_short_logs: bool,
    },
    /// Take the runs from the live store into the outbox; answered by [`Event::Moved`].
    Move {
        /// Of this effect.
        ticket: u64,
        /// Which runs; a transaction of its own for each.
        moves: Vec<Move>,
    },
    /// Tell history; answered by [`Event::Put`].
    Put {
        /// Of this effect.
        ticket: u64,
        /// Which outbox entries.
        runs: Vec<Told>,
    },
    /// Remove outbox entries that are still as they were told; answered by [`Event::Cleared`].
    Clear {
        /// Of this effect.
        ticket: u64,
        /// Which outbox entries.
        runs: Vec<Told>,
    },
}

/// An outbox entry as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The run.
    pub run: RunId,
    /// The entry's revision.
    pub revision: u64,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// This server leads, in a term of its own: all that earlier terms began is void.
    Leads,
    /// This server leads no longer.
    Deposed,
    /// All runs of the live store that have ended and of which nothing is left to do, and all
    /// outbox entries: the whole picture, seen at `revision`.
    Seen {
        /// The store's revision that the picture shows.
        revision: u64,
        /// Ended runs.
        ended: Vec<RunId>,
        /// Outbox entries with their revisions.
        outbox: Vec<Told>,
    },
    /// Time has passed.
    Tick,
    /// What became of [`Effect::Store`].
    Stored(u64, StoreResult),
    /// What became of [`Effect::Move`], in its order.
    Moved(u64, Vec<MoveResult>),
    /// What became of [`Effect::Put`].
    Put(u64, PutResult),
    /// [`Effect::Clear`] was carried out: these entries are gone, or changed, as of `revision`.
    /// `None`: it failed or nobody knows; the picture will tell.
    Cleared(u64, Option<u64>),
}

/// What became of a run that was to be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreResult {
    /// Its blob lies in the blob store.
    Done(Box<Move>),
    /// It is not there any more, or goes on.
    NotDue,
    /// Something is left of it in the live store, or its log is not whole.
    NotYet,
    /// The store or the blob store failed.
    Failed,
}

/// What became of a run that was to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveResult {
    /// It has left the live store at this revision.
    Done(u64),
    /// It is not as it was read, or somebody else leads.
    Refused,
    /// The store failed; it may have been moved.
    Unknown,
}

/// What history said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutResult {
    /// It has taken all.
    Done,
    /// It is away: later.
    Away,
    /// It refuses what it was told, and will again.
    Refused,
}

/// Where an ended run stands.
#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Until then nothing is done.
    Rests(u64),
    /// Its blob is being stored.
    Storing(u64),
    /// Its blob is stored; it waits for a move.
    Stored(Box<Move>),
    /// It is being moved.
    Moving(u64),
    /// It was moved at this revision; the picture does not show it yet.
    Gone(u64),
}

#[derive(Debug, Clone, PartialEq)]
struct Ended {
    /// Since when its logs are waited for.
    since_ms: u64,
    failures: u32,
    stage: Stage,
}

/// A word to history under way.
#[derive(Debug, Clone, PartialEq)]
struct Telling {
    ticket: u64,
    runs: Vec<Told>,
    /// History has taken them; the entries are being removed.
    taken: bool,
}

/// The machine. See the module's text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Archiver {
    times: Times,
    leads: bool,
    tickets: u64,
    ended: BTreeMap<RunId, Ended>,
    moving: Option<(u64, Vec<RunId>)>,
    outbox: BTreeMap<RunId, u64>,
    /// Entries that were removed at a revision that the picture does not show yet.
    cleared: BTreeMap<RunId, (u64, u64)>,
    /// Entries that history refuses, until when they rest.
    aside: BTreeMap<RunId, u64>,
    telling: Option<Telling>,
    tell_failures: u32,
    tell_from_ms: u64,
    /// How many are told at once: halved when history refuses, to find the one.
    tell_max: usize,
    seen: u64,
}

impl Archiver {
    /// A machine that does not lead.
    #[must_use]
    pub fn new(times: Times) -> Self {
        Self {
            times,
            tell_max: TELL_MAX,
            ..Self::default()
        }
    }

    /// Takes what has happened and answers what is to be done.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        match event {
            Event::Leads => self.begin(true),
            Event::Deposed => self.begin(false),
            Event::Seen {
                revision,
                ended,
                outbox,
            } => self.on_seen(revision, ended, outbox, now_ms),
            Event::Tick => {}
            Event::Stored(ticket, result) => self.on_stored(ticket, result, now_ms),
            Event::Moved(ticket, results) => self.on_moved(ticket, &results, now_ms),
            Event::Put(ticket, result) => return self.on_put(ticket, result, now_ms),
            Event::Cleared(ticket, gone) => self.on_cleared(ticket, gone, now_ms),
        }
        self.next(now_ms)
    }

    /// When something is due by itself; `None`: only after another event.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<u64> {
        if !self.leads {
            return None;
        }
        let rest = |e: &Ended| match e.stage {
            Stage::Rests(until) => Some(until),
            Stage::Storing(_) | Stage::Stored(_) | Stage::Moving(_) | Stage::Gone(_) => None,
        };
        let stored = self.ended.values().filter_map(rest).min().filter(|_| self.room() > 0);
        let ready = |run: &RunId| self.aside.get(run).copied().unwrap_or(0).max(self.tell_from_ms);
        let told = self.outbox.keys().map(ready).min().filter(|_| self.telling.is_none());
        stored.into_iter().chain(told).min()
    }

    /// How many more runs may be stored at once. What is stored and cannot be moved holds them up.
    fn room(&self) -> usize {
        let (mut storing, mut stored) = (0, 0);
        for ended in self.ended.values() {
            match ended.stage {
                Stage::Storing(_) => storing += 1,
                Stage::Stored(_) => stored += 1,
                Stage::Rests(_) | Stage::Moving(_) | Stage::Gone(_) => {}
            }
        }
        let ahead = (IN_FLIGHT_MAX + BATCH_MAX).saturating_sub(storing + stored);
        IN_FLIGHT_MAX.saturating_sub(storing).min(ahead)
    }

    /// How many outbox entries are not told yet.
    #[must_use]
    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    fn begin(&mut self, leads: bool) {
        *self = Self {
            leads,
            tickets: self.tickets,
            ..Self::new(self.times)
        };
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn on_seen(&mut self, revision: u64, ended: Vec<RunId>, outbox: Vec<Told>, now_ms: u64) {
        if !self.leads || revision < self.seen {
            return;
        }
        self.seen = revision;
        let due = now_ms.saturating_add(self.times.after_ms);
        let shown: BTreeSet<RunId> = ended.into_iter().collect();
        // A run that is under way is kept: its answer comes. One that has gone is gone for good
        // once the picture is as new as its move.
        self.ended.retain(|run, e| match e.stage {
            Stage::Storing(_) | Stage::Moving(_) => true,
            Stage::Gone(at) => at > revision,
            Stage::Rests(_) | Stage::Stored(_) => shown.contains(run),
        });
        for run in shown {
            self.ended.entry(run).or_insert(Ended {
                since_ms: now_ms,
                failures: 0,
                stage: Stage::Rests(due),
            });
        }
        self.cleared.retain(|_, (_, at)| *at > revision);
        let cleared = &self.cleared;
        let standing = outbox
            .into_iter()
            .filter(|t| cleared.get(&t.run).is_none_or(|(r, _)| *r != t.revision));
        self.outbox = standing.map(|t| (t.run, t.revision)).collect();
        let outbox = &self.outbox;
        self.aside.retain(|run, _| outbox.contains_key(run));
    }

    fn on_stored(&mut self, ticket: u64, result: StoreResult, now_ms: u64) {
        let Some((run, ended)) = self.ended.iter_mut().find(|(_, e)| e.stage == Stage::Storing(ticket)) else {
            return;
        };
        match result {
            StoreResult::Done(stored) => ended.stage = Stage::Stored(stored),
            StoreResult::NotDue => {
                let run = run.clone();
                self.ended.remove(&run);
            }
            StoreResult::NotYet => ended.stage = Stage::Rests(now_ms.saturating_add(LOG_PAUSE_MS)),
            StoreResult::Failed => {
                // Where no run can be stored no log can either: they are waited for anew when it is back.
                ended.since_ms = now_ms;
                ended.fail(now_ms);
            }
        }
    }

    fn on_moved(&mut self, ticket: u64, results: &[MoveResult], now_ms: u64) {
        let Some((_, runs)) = self.moving.take_if(|(t, _)| *t == ticket) else {
            return;
        };
        let unknown = std::iter::repeat(&MoveResult::Unknown);
        for (run, result) in runs.iter().zip(results.iter().chain(unknown)) {
            let Some(ended) = self.ended.get_mut(run) else { continue };
            match *result {
                MoveResult::Done(at) => ended.stage = Stage::Gone(at),
                // Read anew: what was refused has changed, what is unknown may have gone.
                MoveResult::Refused | MoveResult::Unknown => ended.fail(now_ms),
            }
        }
        let seen = self.seen;
        self.ended
            .retain(|_, e| !matches!(e.stage, Stage::Gone(at) if at <= seen));
    }

    fn on_put(&mut self, ticket: u64, result: PutResult, now_ms: u64) -> Vec<Effect> {
        let Some(mut telling) = self.telling.take_if(|t| t.ticket == ticket && !t.taken) else {
            return self.next(now_ms);
        };
        match result {
            PutResult::Done => {
                self.tell_max = (self.tell_max * 2).min(TELL_MAX);
                telling.ticket = self.ticket();
                telling.taken = true;
                let clear = Effect::Clear {
                    ticket: telling.ticket,
                    runs: telling.runs.clone(),
                };
                self.telling = Some(telling);
                let mut effects = vec![clear];
                effects.extend(self.next(now_ms));
                return effects;
            }
            PutResult::Away => self.rest_from_telling(now_ms),
            PutResult::Refused if telling.runs.len() > 1 => self.tell_max = telling.runs.len().div_ceil(2),
            PutResult::Refused => {
                let until = now_ms.saturating_add(ASIDE_MS);
                self.aside.extend(telling.runs.into_iter().map(|t| (t.run, until)));
                self.tell_from_ms = now_ms.saturating_add(PAUSE_MIN_MS);
            }
        }
        self.next(now_ms)
    }

    fn rest_from_telling(&mut self, now_ms: u64) {
        self.tell_from_ms = now_ms.saturating_add(pause_ms(self.tell_failures));
        self.tell_failures = self.tell_failures.saturating_add(1);
    }

    fn on_cleared(&mut self, ticket: u64, gone: Option<u64>, now_ms: u64) {
        let Some(telling) = self.telling.take_if(|t| t.ticket == ticket && t.taken) else {
            return;
        };
        let Some(at) = gone else {
            self.rest_from_telling(now_ms);
            return;
        };
        self.tell_failures = 0;
        for told in telling.runs {
            if self.outbox.get(&told.run) == Some(&told.revision) {
                self.outbox.remove(&told.run);
            }
            if at > self.seen {
                self.cleared.insert(told.run, (told.revision, at));
            }
        }
    }

    /// What can be done now.
    fn next(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.leads {
            // A move makes room for what is stored next.
            self.move_some(&mut effects);
            self.store_some(now_ms, &mut effects);
            self.tell_some(now_ms, &mut effects);
        }
        effects
    }

    fn store_some(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let room = self.room();
        let due = self
            .ended
            .iter_mut()
            .filter(|(_, e)| matches!(e.stage, Stage::Rests(until) if until <= now_ms));
        for (run, ended) in due.take(room) {
            self.tickets += 1;
            ended.stage = Stage::Storing(self.tickets);
            effects.push(Effect::Store {
                ticket: self.tickets,
                run: run.clone(),
                with_short_logs: now_ms >= ended.since_ms.saturating_add(self.times.log_wait_ms),
            });
        }
    }

    fn move_some(&mut self, effects: &mut Vec<Effect>) {
        if self.moving.is_some() {
            return;
        }
        let ticket = self.tickets + 1;
        let (mut runs, mut moves) = (Vec::new(), Vec::new());
        for (run, ended) in &mut self.ended {
            if moves.len() < BATCH_MAX && matches!(ended.stage, Stage::Stored(_)) {
                let stage = std::mem::replace(&mut ended.stage, Stage::Moving(ticket));
                if let Stage::Stored(stored) = stage {
                    moves.push(*stored);
                    runs.push(run.clone());
                }
            }
        }
        if !moves.is_empty() {
            self.tickets = ticket;
            self.moving = Some((ticket, runs));
            effects.push(Effect::Move { ticket, moves });
        }
    }

    fn tell_some(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.telling.is_some() || now_ms < self.tell_from_ms {
            return;
        }
        let aside = &self.aside;
        let ready = self
            .outbox
            .iter()
            .filter(|(run, _)| aside.get(run).is_none_or(|until| *until <= now_ms));
        let runs: Vec<Told> = ready
            .take(self.tell_max)
            .map(|(run, revision)| Told {
                run: run.clone(),
                revision: *revision,
            })
            .collect();
        if !runs.is_empty() {
            let ticket = self.ticket();
            self.telling = Some(Telling {
                ticket,
                runs: runs.clone(),
                taken: false,
            });
            effects.push(Effect::Put { ticket, runs });
        }
    }
}

impl Ended {
    fn fail(&mut self, now_ms: u64) {
        self.stage = Stage::Rests(now_ms.saturating_add(pause_ms(self.failures)));
        self.failures = self.failures.saturating_add(1);
    }
}

/// The pause after so many failures before this one.
fn pause_ms(failures: u32) -> u64 {
    PAUSE_MIN_MS.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX_MS)
}
