//! The node's lease: until when what runs here may go on running.
//!
//! The deadline is the moment at which the newest word that was confirmed had been sent, plus the
//! lease; so it lies before the moment at which the store can let the lease run out. While nothing
//! is confirmed any more, the agent asks every server whether the store has lost its quorum, for
//! then nobody can place anything, and only if all of them say so the deadline moves on.
//!
//! All times are milliseconds of a clock that counts suspended time and starts anew with the
//! machine: never the wall clock. Not here: who kills at the deadline (the shims, which read it in
//! a file), and what may start before it ([`crate::Node::on_lease`]).

use std::collections::{BTreeSet, VecDeque};

/// The longest pause between two renewals, milliseconds; a quarter of a short lease is taken
/// instead. A lease of 20 s thus survives three lost ones.
pub const RENEW_EVERY_MAX_MS: u64 = 5_000;

/// The longest pause between two rounds of questions, milliseconds; a quarter of a short lease is
/// taken instead. Longer than a server may take to answer (2 s).
pub const ASK_EVERY_MAX_MS: u64 = 2_500;

/// Renewals that are not confirmed and remembered: more than are ever on the way in one lease.
pub const UNCONFIRMED_MAX: usize = 64;

/// The longest lease that is believed, milliseconds (a day): a file or a server that says more is
/// damaged or misled.
pub const LEASE_MAX_MS: u64 = 86_400_000;

/// What happened to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Hello is about to be sent on a fresh stream.
    Hello,
    /// It was answered: the server has registered the node and granted this lease.
    Welcome {
        /// How long the server believes in the node after its last word, milliseconds.
        lease_ms: u64,
    },
    /// A renewal was confirmed through the store.
    RenewAck {
        /// Which.
        sequence: u64,
    },
    /// The stream broke.
    Disconnected,
    /// A server answered whether the store has lost its quorum. One that does not answer, or not in
    /// time, is not told.
    Quorum {
        /// Of which round.
        round: u64,
        /// Which of the servers, from 0.
        server: usize,
        /// Its answer.
        lost: bool,
    },
    /// Time went by.
    Tick,
}

/// What the shell is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEffect {
    /// Send this renewal.
    Renew {
        /// Comes back in its confirmation.
        sequence: u64,
    },
    /// Ask every server: [`LeaseEvent::Quorum`] for each that answers.
    AskAll {
        /// Comes back with each answer.
        round: u64,
    },
    /// Write the deadline to the file that the shims read, before anything else is done.
    WriteDeadline(Deadline),
}

/// What stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// Nothing may run past this moment.
    pub at_ms: u64,
    /// The lease from which it follows, for an agent that takes it up.
    pub lease_ms: u64,
}

/// One round of questions.
#[derive(Debug, Clone)]
struct Round {
    number: u64,
    /// Before the first question was sent.
    asked_ms: u64,
    /// Who said that the quorum is lost.
    lost: BTreeSet<usize>,
    /// Somebody said that it is not.
    refuted: bool,
}

/// The lease of one node.
#[derive(Debug, Clone)]
pub struct Lease {
    /// How many servers there are to ask.
    servers: usize,
    lease_ms: u64,
    deadline_ms: Option<u64>,
    /// When the newest word that was confirmed had been sent.
    confirmed_ms: Option<u64>,
    /// When Hello was sent that is not answered.
    hello_ms: Option<u64>,
    connected: bool,
    /// Numbers of renewals are never used again, so that a late confirmation cannot be taken for
    /// another one's.
    sequence: u64,
    /// Renewals of this stream that are not confirmed, oldest first, and when they were sent.
    unconfirmed: VecDeque<(u64, u64)>,
    renew_ms: u64,
    round: Option<Round>,
    rounds: u64,
}

impl Lease {
    /// No lease yet: nothing may start. `servers` is how many there are to ask.
    #[must_use]
    pub fn new(servers: usize) -> Self {
        Self {
            servers,
            lease_ms: 0,
            deadline_ms: None,
            confirmed_ms: None,
            hello_ms: None,
            connected: false,
            sequence: 0,
            unconfirmed: VecDeque::new(),
            renew_ms: 0,
            round: None,
            rounds: 0,
        }
    }

    /// Takes up what an earlier agent of the same boot has left. A deadline farther away than its
    /// own lease cannot be of this boot and is not believed.
    #[must_use]
    pub fn resume(servers: usize, left: Deadline, now_ms: u64) -> Self {
        let mut lease = Self::new(servers);
        if left.lease_ms <= LEASE_MAX_MS && left.at_ms <= now_ms.saturating_add(left.lease_ms) {
            lease.lease_ms = left.lease_ms;
            lease.deadline_ms = Some(left.at_ms);
            lease.confirmed_ms = Some(left.at_ms.saturating_sub(left.lease_ms));
        }
        lease
    }

    /// Nothing may run past this moment; `None`: there was never a lease.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// True while something may be started.
    #[must_use]
    pub fn is_valid(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|at_ms| now_ms < at_ms)
    }

    /// When [`LeaseEvent::Tick`] is to come at the latest: something is to be sent, or the deadline
    /// passes.
    #[must_use]
    pub fn due_ms(&self, now_ms: u64) -> Option<u64> {
        let renew = self.connected.then_some(self.renew_ms);
        let passes = self.deadline_ms.filter(|_| self.is_valid(now_ms));
        [renew, self.ask_ms(now_ms), passes].into_iter().flatten().min()
    }

    /// Takes an event in and emits what is to be done.
    pub fn on(&mut self, event: LeaseEvent, now_ms: u64) -> Vec<LeaseEffect> {
        let before = self.deadline_ms;
        self.take(event, now_ms);
        let mut out = Vec::new();
        if let Some(at_ms) = self.deadline_ms.filter(|_| self.deadline_ms != before) {
            let lease_ms = self.lease_ms;
            out.push(LeaseEffect::WriteDeadline(Deadline { at_ms, lease_ms }));
        }
        if self.connected && now_ms >= self.renew_ms {
            out.push(self.renew(now_ms));
        }
        if self.ask_ms(now_ms).is_some_and(|at_ms| now_ms >= at_ms) {
            out.push(self.ask(now_ms));
        }
        out
    }

    fn take(&mut self, event: LeaseEvent, now_ms: u64) {
        match event {
            LeaseEvent::Hello => {
                self.leave_stream();
                self.hello_ms = Some(now_ms);
            }
            LeaseEvent::Welcome { lease_ms } => self.welcome(lease_ms.min(LEASE_MAX_MS), now_ms),
            LeaseEvent::RenewAck { sequence } => {
                let sent = self.unconfirmed.iter().position(|(of, _)| *of == sequence);
                if let Some((_, sent_ms)) = sent.and_then(|index| self.unconfirmed.drain(..=index).next_back()) {
                    self.confirm(sent_ms);
                }
            }
            LeaseEvent::Disconnected => self.leave_stream(),
            LeaseEvent::Quorum { round, server, lost } => self.answered(round, server, lost, now_ms),
            LeaseEvent::Tick => {}
        }
    }

    fn leave_stream(&mut self) {
        self.connected = false;
        self.hello_ms = None;
        self.unconfirmed.clear();
    }

    fn welcome(&mut self, lease_ms: u64, now_ms: u64) {
        let Some(hello_ms) = self.hello_ms.take() else { return };
        if lease_ms < self.lease_ms {
            // The servers believe in the node for less time than before: an earlier, longer promise
            // must not be used up.
            self.deadline_ms = None;
        }
        self.lease_ms = lease_ms;
        self.connected = true;
        self.renew_ms = now_ms.saturating_add(self.renew_every());
        self.confirm(hello_ms);
    }

    /// What was sent at this moment has been confirmed.
    fn confirm(&mut self, sent_ms: u64) {
        self.confirmed_ms = self.confirmed_ms.max(Some(sent_ms));
        self.extend(sent_ms);
        self.round = None;
    }

    fn extend(&mut self, from_ms: u64) {
        self.deadline_ms = self.deadline_ms.max(Some(from_ms.saturating_add(self.lease_ms)));
    }

    fn renew(&mut self, now_ms: u64) -> LeaseEffect {
        self.sequence += 1;
        if self.unconfirmed.len() == UNCONFIRMED_MAX {
            self.unconfirmed.pop_front();
        }
        self.unconfirmed.push_back((self.sequence, now_ms));
        self.renew_ms = now_ms.saturating_add(self.renew_every());
        LeaseEffect::Renew {
            sequence: self.sequence,
        }
    }

    fn renew_every(&self) -> u64 {
        (self.lease_ms / 4).clamp(1, RENEW_EVERY_MAX_MS)
    }

    /// When the servers are to be asked (again). Not once the deadline has passed: what ran is dead
    /// then, and only a confirmation brings the lease back, because the leader may have given the
    /// steps away before the quorum was lost.
    fn ask_ms(&self, now_ms: u64) -> Option<u64> {
        let silent = self.confirmed_ms?.saturating_add(self.lease_ms / 2);
        if self.servers == 0 || !self.is_valid(now_ms.max(silent)) {
            return None;
        }
        let pause = (self.lease_ms / 4).clamp(1, ASK_EVERY_MAX_MS);
        let again = self
            .round
            .as_ref()
            .map_or(0, |round| round.asked_ms.saturating_add(pause));
        Some(silent.max(again))
    }

    fn ask(&mut self, now_ms: u64) -> LeaseEffect {
        self.rounds += 1;
        self.round = Some(Round {
            number: self.rounds,
            asked_ms: now_ms,
            lost: BTreeSet::new(),
            refuted: false,
        });
        LeaseEffect::AskAll { round: self.rounds }
    }

    fn answered(&mut self, number: u64, server: usize, lost: bool, now_ms: u64) {
        let valid = self.is_valid(now_ms);
        let Some(round) = self.round.as_mut().filter(|round| round.number == number) else {
            return;
        };
        round.refuted |= !lost;
        if lost && server < self.servers {
            round.lost.insert(server);
        }
        if valid && !round.refuted && round.lost.len() == self.servers {
            let asked_ms = round.asked_ms;
            self.extend(asked_ms);
        }
    }
}
