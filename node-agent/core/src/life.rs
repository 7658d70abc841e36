//! One allocation's life, from its order to its removal.
//!
//! Every event is taken in first; then [`Life::settle`] emits each effect whose conditions hold by
//! now. So order and repetition of events do not matter, and one path serves the happy case, the
//! cancelled one and the one that is taken up again after the agent was killed.
//!
//! Not here: many allocations ([`crate::Node`]), log offsets ([`crate::LogShip`]).

use crate::entry::{End, Entry, Progress};
use crate::order::{Order, Work};
use model::{AllocId, Fence, Left, Observed, ObservedState, Outcome, Phase, StartFailure, Stop, Usage};

/// How long a report waits for its acknowledgement before it is sent again, milliseconds.
pub const REPORT_RESEND_MS: u64 = 10_000;

/// How long a failed write of the journal rests before it is tried again, milliseconds.
pub const WRITE_RETRY_MS: u64 = 1_000;

/// How long the log of an ended attempt that the server no longer lists is still offered,
/// milliseconds. Its result may have been accepted by a server that died before it said so, and the
/// log belongs to it; after an hour nobody has asked for it.
pub const UNWANTED_LOG_MS: u64 = 3_600_000;

/// What a restarted agent finds of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No trace in this boot: it was never launched, or the traces were removed.
    Nothing,
    /// Its shim is alive. [`Event::Launched`] and [`Event::Ended`] follow as for a fresh launch.
    Alive,
    /// It is gone and left its exit record. [`Event::Ended`] follows.
    Gone,
    /// There are traces, but neither a shim nor an exit record; nothing of it runs any more.
    Broken {
        /// What was found.
        message: String,
    },
}

/// What happened to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The order came (again), with this wish.
    Ordered {
        /// End early.
        stop: Option<Stop>,
    },
    /// It is not among the orders that stand.
    Unlisted,
    /// The server wants nothing more of it.
    Forget,
    /// The entry that was being written is durable.
    Written,
    /// It could not be written; it is tried again.
    WriteFailed,
    /// Image and checkout are ready.
    Prepared {
        /// What it took.
        phases: Vec<Phase>,
    },
    /// They are not and will not be, or preparing was aborted.
    PrepareFailed {
        /// What failed.
        cause: StartFailure,
        /// What went wrong and how to mend it.
        message: String,
        /// What was done.
        phases: Vec<Phase>,
        /// The next try would fail the same way.
        lasting: bool,
    },
    /// The first instruction has run.
    Launched {
        /// When.
        started_ms: u64,
        /// The time of the launch itself.
        phase: Option<Phase>,
    },
    /// Nothing was started and nothing will be: a fault of the node or of the step's wishes.
    LaunchFailed {
        /// What it means for the step.
        outcome: Outcome,
    },
    /// The container is gone; the exit record says how.
    Ended {
        /// The first instruction, if there was one.
        started_ms: Option<u64>,
        /// Container gone.
        ended_ms: u64,
        /// What became of it.
        outcome: Outcome,
        /// Length of its log.
        log_bytes: u64,
        /// What it used.
        usage: Usage,
        /// What it left for others.
        left: Left,
    },
    /// The shim is gone and left no exit record; nothing of the sandbox runs any more.
    Vanished {
        /// What was found.
        message: String,
    },
    /// Nothing more will be written to the log.
    LogClosed {
        /// Its length.
        bytes: u64,
    },
    /// The server has the whole log.
    LogComplete,
    /// A report was taken in, or refused because the allocation does not stand any more.
    Acked {
        /// Which.
        state: ObservedState,
        /// False: refused.
        accepted: bool,
    },
    /// A stream to a server is there.
    Connected,
    /// It broke.
    Disconnected,
    /// The node's lease stands, or has ended: whether anything may be launched.
    Lease {
        /// True: it stands.
        valid: bool,
    },
    /// Sandbox and folders are removed.
    Cleaned,
    /// The entry is removed from the journal.
    EntryRemoved,
    /// Time went by.
    Tick,
}

/// Why a sandbox is ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    /// Its run was cancelled.
    Cancelled,
    /// Its node is drained and the drain's deadline has passed.
    Drained,
    /// The allocation does not stand any more.
    Disowned,
}

/// What the shell is to do. Each is emitted once; those that answer name their event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the journal's entry: [`Event::Written`] or [`Event::WriteFailed`].
    Write(Box<Entry>),
    /// Make image and checkout ready: [`Event::Prepared`] or [`Event::PrepareFailed`].
    Prepare,
    /// Stop preparing soon; one of its events still comes.
    AbortPrepare,
    /// Launch: [`Event::Launched`] or [`Event::LaunchFailed`], and after the former
    /// [`Event::Ended`] or [`Event::Vanished`].
    Launch,
    /// End the sandbox early. Its end is told as usual.
    Kill(Kill),
    /// Append the line, if any, to the log, making it if there is none, and tell its length:
    /// [`Event::LogClosed`].
    CloseLog {
        /// Without a line end.
        line: Option<String>,
    },
    /// Ship the log from now on: [`Event::LogComplete`] once the server has all of it.
    ShipLog,
    /// The log has its final length.
    SealLog {
        /// Bytes.
        bytes: u64,
    },
    /// Send this report.
    Report(Box<Observed>),
    /// Remove the sandbox, the log and all folders: [`Event::Cleaned`]. Tried again until it works.
    Clean,
    /// Remove the journal's entry, durably: [`Event::EntryRemoved`].
    RemoveEntry,
    /// Nothing is left: drop the life.
    Gone,
}

/// Whether anybody still wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Wanted,
    /// Not listed any more, or its report was refused: what runs is killed, a log that is whole on
    /// this node is still offered until this time.
    Unwanted {
        until_ms: u64,
    },
    Forgotten,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Doing {
    /// Nothing was begun in this life of the agent.
    Idle,
    Preparing {
        aborting: bool,
    },
    Ready,
    Launching,
    Running {
        started_ms: u64,
    },
    /// The end is known but for the log's length.
    Closing {
        end: Box<End>,
        asked: bool,
    },
    Ended(Box<End>),
    Cleaning,
    /// Cleaned; the entry stays until the server has forgotten the allocation.
    Tombstone,
    Removing,
    Removed,
}

impl Doing {
    fn started_ms(&self) -> Option<u64> {
        match self {
            Self::Running { started_ms } => Some(*started_ms),
            Self::Closing { end, .. } | Self::Ended(end) => end.started_ms,
            Self::Idle
            | Self::Preparing { .. }
            | Self::Ready
            | Self::Launching
            | Self::Cleaning
            | Self::Tombstone
            | Self::Removing
            | Self::Removed => None,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Journal {
    durable: Option<Progress>,
    writing: Option<Progress>,
    /// A failed write is not repeated before this time.
    retry_ms: u64,
}

/// One allocation.
#[derive(Debug, Clone)]
pub struct Life {
    order: Order,
    boot_id: String,
    claim: Claim,
    /// A server said on this stream that the order stands: nothing is begun or launched on the word
    /// of an old journal or of an earlier stream alone. A lease that was lost comes back with a new
    /// stream, before the orders that stand do.
    confirmed: bool,
    /// The node's lease stands.
    may_launch: bool,
    doing: Doing,
    phases: Vec<Phase>,
    killed: bool,
    journal: Journal,
    connected: bool,
    /// The newest report on this stream and when it was sent.
    sent: Option<(ObservedState, u64)>,
    acked: Option<ObservedState>,
    shipping: bool,
    sealed: bool,
    log_complete: bool,
    /// [`Effect::Gone`] was emitted.
    gone: bool,
}

impl Life {
    /// A new order.
    #[must_use]
    pub fn ordered(order: Order, boot_id: impl Into<String>) -> Self {
        Self {
            order,
            boot_id: boot_id.into(),
            claim: Claim::Wanted,
            confirmed: true,
            may_launch: true,
            doing: Doing::Idle,
            phases: Vec::new(),
            killed: false,
            journal: Journal::default(),
            connected: false,
            sent: None,
            acked: None,
            shipping: false,
            sealed: false,
            log_complete: false,
            gone: false,
        }
    }

    /// An order that must not be begun (again): it ends as lost, with this reason. A server that
    /// still lists it learns so; to all others it is nothing.
    #[must_use]
    pub(crate) fn refused(order: Order, boot_id: impl Into<String>, message: &str, now_ms: u64) -> Self {
        let mut life = Self::ordered(order, boot_id);
        let message = message.to_owned();
        life.doing = life.closing(None, now_ms, Outcome::Lost { message });
        life
    }

    /// An allocation of the journal after the agent was started anew, with what was found of its
    /// sandbox. `boot_id` is today's.
    #[must_use]
    pub fn readopt(entry: Entry, boot_id: &str, found: Found, now_ms: u64) -> Self {
        let rebooted = entry.boot_id != boot_id;
        let mut life = Self::ordered(entry.order, entry.boot_id);
        life.confirmed = false;
        life.journal.durable = Some(entry.progress.clone());
        let mut running_since = None;
        match entry.progress {
            // What stood in a damaged entry is not known: more may have been reported than this.
            Progress::Accepted if matches!(*life.order.work, Work::Unreadable { .. }) => life.journal.durable = None,
            Progress::Accepted => {}
            Progress::Running { started_ms, phases } => {
                running_since = Some(started_ms);
                life.phases = phases;
            }
            Progress::Ended(end) => {
                life.doing = Doing::Ended(end);
                return life;
            }
            Progress::Done(end) => {
                life.acked = Some(ObservedState::Ended);
                life.log_complete = true;
                life.doing = Doing::Ended(end);
                return life;
            }
        }
        life.doing = match (found, rebooted) {
            (Found::Gone, _) | (Found::Alive, false) => match running_since {
                Some(started_ms) => Doing::Running { started_ms },
                None => Doing::Launching,
            },
            (Found::Nothing, false) if running_since.is_none() => Doing::Idle,
            (found, _) => {
                let message = lost_message(&found, rebooted);
                let outcome = Outcome::Lost { message };
                life.closing(running_since, now_ms, outcome)
            }
        };
        life
    }

    /// What was ordered.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Which allocation.
    #[must_use]
    pub fn alloc(&self) -> &AllocId {
        &self.order.alloc
    }

    /// Its fence.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.order.fence
    }

    /// True while something of it may run on the node.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.doing, Doing::Launching | Doing::Running { .. })
    }

    /// True when its first instruction has run and its container is not gone.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.doing, Doing::Running { .. })
    }

    /// True when only its entry is kept.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.doing == Doing::Tombstone
    }

    /// True when nothing of it is left.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.doing == Doing::Removed
    }

    /// True while the next attempt of the same step must not begin on this node.
    #[must_use]
    pub fn blocks_next(&self) -> bool {
        match self.doing {
            Doing::Idle
            | Doing::Preparing { .. }
            | Doing::Ready
            | Doing::Launching
            | Doing::Running { .. }
            | Doing::Closing { .. } => true,
            Doing::Ended(_) | Doing::Cleaning | Doing::Tombstone | Doing::Removing | Doing::Removed => false,
        }
    }

    /// A word for what is being done, for the log.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self.doing {
            Doing::Idle => "ordered",
            Doing::Preparing { .. } => "preparing",
            Doing::Ready | Doing::Launching => "launching",
            Doing::Running { .. } => "running",
            Doing::Closing { .. } | Doing::Ended(_) => "ended",
            Doing::Cleaning => "cleaning",
            Doing::Tombstone => "done",
            Doing::Removing | Doing::Removed => "removed",
        }
    }

    /// When [`Event::Tick`] is to come at the latest although nothing happens.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let write = (self.journal.retry_ms > 0 && self.journal.writing.is_none()).then_some(self.journal.retry_ms);
        let report = self.unacked().map(|sent| sent.saturating_add(REPORT_RESEND_MS));
        let give_up = match self.claim {
            Claim::Unwanted { until_ms } => Some(until_ms),
            Claim::Wanted | Claim::Forgotten => None,
        };
        [write, report, give_up].into_iter().flatten().min()
    }

    /// Takes an event in and emits what is to be done.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Effect> {
        self.take(event, now_ms);
        self.settle(now_ms)
    }

    fn take(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Ordered { stop } => {
                self.confirmed = true;
                self.order.stop = self.order.stop.or(stop);
            }
            Event::Unlisted => self.disown(now_ms),
            Event::Forget => self.claim = Claim::Forgotten,
            Event::Written => self.written(),
            Event::WriteFailed => {
                self.journal.writing = None;
                self.journal.retry_ms = now_ms.saturating_add(WRITE_RETRY_MS);
            }
            Event::Acked { state, accepted } => self.acked(state, accepted, now_ms),
            Event::LogComplete => self.log_complete = true,
            Event::Connected => {
                self.connected = true;
                self.sent = None;
            }
            Event::Disconnected => {
                self.connected = false;
                self.sent = None;
                // By the time there is another stream the order may have been given to another node.
                self.confirmed = false;
            }
            Event::Lease { valid } => self.may_launch = valid,
            Event::Tick => self.expire(now_ms),
            Event::Cleaned | Event::EntryRemoved => self.removed(&event),
            Event::Prepared { .. }
            | Event::PrepareFailed { .. }
            | Event::Launched { .. }
            | Event::LaunchFailed { .. }
            | Event::Ended { .. }
            | Event::Vanished { .. }
            | Event::LogClosed { .. } => self.work(event, now_ms),
        }
    }

    /// What the sandbox and its preparation tell. An event that does not fit the state is late or
    /// repeated and changes nothing.
    fn work(&mut self, event: Event, now_ms: u64) {
        let doing = std::mem::replace(&mut self.doing, Doing::Idle);
        self.doing = match (doing, event) {
            (Doing::Preparing { .. }, Event::Prepared { phases }) => {
                self.phases = phases;
                Doing::Ready
            }
            (
                Doing::Preparing { .. },
                Event::PrepareFailed {
                    cause,
                    message,
                    phases,
                    lasting,
                },
            ) => {
                self.phases = phases;
                let outcome = Outcome::StartFailed {
                    cause,
                    message,
                    lasting,
                };
                self.closing(None, now_ms, outcome)
            }
            (Doing::Launching, Event::Launched { started_ms, phase }) => {
                self.phases.extend(phase);
                Doing::Running { started_ms }
            }
            (Doing::Launching, Event::LaunchFailed { outcome }) => self.closing(None, now_ms, outcome),
            (
                doing @ (Doing::Launching | Doing::Running { .. }),
                Event::Ended {
                    started_ms,
                    ended_ms,
                    outcome,
                    log_bytes,
                    usage,
                    left,
                },
            ) => {
                let started_ms = doing.started_ms().or(started_ms);
                self.ended(End {
                    started_ms,
                    ended_ms,
                    phases: self.phases.clone(),
                    outcome,
                    log_bytes,
                    usage,
                    left,
                })
            }
            (doing @ (Doing::Launching | Doing::Running { .. }), Event::Vanished { message }) => {
                self.closing(doing.started_ms(), now_ms, Outcome::Lost { message })
            }
            (Doing::Closing { mut end, asked: true }, Event::LogClosed { bytes }) => {
                end.log_bytes = bytes;
                Doing::Ended(end)
            }
            (doing, _) => doing,
        };
    }

    /// The end of an attempt whose log is ours to finish. A step that was to be cancelled anyway
    /// and never ran is cancelled, whatever stood in the way of its start.
    fn closing(&self, started_ms: Option<u64>, ended_ms: u64, outcome: Outcome) -> Doing {
        let never_ran = started_ms.is_none() && !matches!(outcome, Outcome::Lost { .. });
        let outcome = match self.order.stop {
            Some(Stop::Cancelled | Stop::Drained) if never_ran => Outcome::Cancelled,
            _ => outcome,
        };
        let end = Box::new(End {
            started_ms,
            ended_ms,
            phases: self.phases.clone(),
            outcome,
            log_bytes: 0,
            usage: Usage::default(),
            left: Left::default(),
        });
        Doing::Closing { end, asked: false }
    }

    /// A sandbox's own end. One in which nothing of the user's ran has nothing in its log that says
    /// so: a line is added.
    fn ended(&self, end: End) -> Doing {
        match end.outcome {
            Outcome::CommandMissing { .. } | Outcome::StartFailed { .. } => Doing::Closing {
                end: Box::new(end),
                asked: false,
            },
            _ => Doing::Ended(Box::new(end)),
        }
    }

    fn written(&mut self) {
        if let Some(progress) = self.journal.writing.take() {
            self.journal.durable = Some(progress);
            self.journal.retry_ms = 0;
        }
    }

    fn acked(&mut self, state: ObservedState, accepted: bool, now_ms: u64) {
        if accepted {
            self.acked = self.acked.max(Some(state));
        } else {
            self.disown(now_ms);
        }
    }

    /// The allocation does not stand. An attempt that ended may have been accepted all the same, by
    /// a server that could not say so: its log is offered until the server has it or forgets it.
    fn disown(&mut self, now_ms: u64) {
        if self.claim == Claim::Wanted {
            let until_ms = now_ms.saturating_add(UNWANTED_LOG_MS);
            self.claim = match self.doing {
                Doing::Ended(_) if !self.log_complete => Claim::Unwanted { until_ms },
                _ => Claim::Forgotten,
            };
        }
    }

    fn expire(&mut self, now_ms: u64) {
        if let Claim::Unwanted { until_ms } = self.claim
            && now_ms >= until_ms
        {
            self.claim = Claim::Forgotten;
        }
    }

    fn removed(&mut self, event: &Event) {
        self.doing = match (&self.doing, event) {
            (Doing::Cleaning, Event::Cleaned) => Doing::Tombstone,
            (Doing::Removing, Event::EntryRemoved) => Doing::Removed,
            _ => return,
        };
    }

    /// Emits every effect whose conditions hold.
    fn settle(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut out = Vec::new();
        while self.settle_doing(now_ms, &mut out) {}
        self.settle_journal(now_ms, &mut out);
        self.settle_log(&mut out);
        self.settle_report(now_ms, &mut out);
        out
    }

    /// One step of the work itself; false when nothing can be done now.
    fn settle_doing(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let forgotten = self.claim == Claim::Forgotten;
        let stopped = self.order.stop.is_some();
        let over = (forgotten || self.is_settled()) && self.end_is_durable();
        match &mut self.doing {
            Doing::Idle if forgotten => self.clean(out),
            Doing::Idle if self.confirmed || stopped => self.begin(now_ms, out),
            Doing::Preparing { aborting } if (forgotten || stopped) && !*aborting => {
                *aborting = true;
                out.push(Effect::AbortPrepare);
                true
            }
            Doing::Ready if forgotten => self.clean(out),
            Doing::Ready => self.launch(now_ms, out),
            Doing::Running { .. } if (forgotten || stopped) && !self.killed => {
                self.killed = true;
                out.push(Effect::Kill(match self.order.stop {
                    Some(Stop::Cancelled) if !forgotten => Kill::Cancelled,
                    Some(Stop::Drained) if !forgotten => Kill::Drained,
                    Some(_) | None => Kill::Disowned,
                }));
                true
            }
            Doing::Closing { end, asked } if !*asked => {
                *asked = true;
                let line = Some(last_line(&end.outcome, self.order.stop));
                out.push(Effect::CloseLog { line });
                true
            }
            Doing::Ended(_) if over => self.clean(out),
            Doing::Tombstone if forgotten && self.journal.writing.is_none() => {
                self.doing = Doing::Removing;
                out.push(Effect::RemoveEntry);
                true
            }
            Doing::Removed if !self.gone => {
                self.gone = true;
                out.push(Effect::Gone);
                true
            }
            Doing::Idle
            | Doing::Preparing { .. }
            | Doing::Launching
            | Doing::Running { .. }
            | Doing::Closing { .. }
            | Doing::Ended(_)
            | Doing::Cleaning
            | Doing::Tombstone
            | Doing::Removing
            | Doing::Removed => false,
        }
    }

    fn clean(&mut self, out: &mut Vec<Effect>) -> bool {
        // An allocation that nobody lists leaves no tombstone.
        if matches!(self.claim, Claim::Unwanted { .. }) {
            self.claim = Claim::Forgotten;
        }
        self.doing = Doing::Cleaning;
        out.push(Effect::Clean);
        true
    }

    fn begin(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        let refused = match (&self.order.stop, &*self.order.work) {
            (Some(Stop::Cancelled | Stop::Drained), _) => Some(Outcome::Cancelled),
            (None, Work::Unreadable { message }) => Some(Outcome::StartFailed {
                cause: StartFailure::Spec,
                message: message.clone(),
                lasting: true,
            }),
            (None, Work::Step { .. }) => None,
        };
        self.doing = match refused {
            Some(outcome) => self.closing(None, now_ms, outcome),
            None => {
                out.push(Effect::Prepare);
                Doing::Preparing { aborting: false }
            }
        };
        true
    }

    fn launch(&mut self, now_ms: u64, out: &mut Vec<Effect>) -> bool {
        if self.order.stop.is_some() {
            self.doing = self.closing(None, now_ms, Outcome::Cancelled);
            return true;
        }
        if self.journal.durable.is_none() || !self.may_launch || !self.confirmed {
            return false;
        }
        self.doing = Doing::Launching;
        out.push(Effect::Launch);
        true
    }

    /// The journal cannot be read as if the attempt had never begun. Once its traces are removed only
    /// the entry says that it ran: a restarted agent that finds neither would launch it again for a
    /// server whose list is behind.
    fn end_is_durable(&self) -> bool {
        match self.journal.durable {
            // Nothing is launched before its entry is durable.
            None | Some(Progress::Ended(_) | Progress::Done(_)) => true,
            Some(Progress::Accepted | Progress::Running { .. }) => false,
        }
    }

    /// Everything is told and stored, and the journal says so.
    fn is_settled(&self) -> bool {
        let told =
            matches!(self.claim, Claim::Unwanted { .. }) || matches!(self.journal.durable, Some(Progress::Done(_)));
        told && self.log_complete
    }

    fn settle_journal(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let Some(target) = self.target() else { return };
        let behind = self.journal.durable.as_ref().is_none_or(|p| p.rank() < target.rank());
        if behind && self.journal.writing.is_none() && now_ms >= self.journal.retry_ms {
            self.journal.writing = Some(target.clone());
            out.push(Effect::Write(Box::new(Entry {
                order: self.order.clone(),
                boot_id: self.boot_id.clone(),
                progress: target,
            })));
        }
    }

    /// What the journal should say by now.
    fn target(&self) -> Option<Progress> {
        if self.claim == Claim::Forgotten {
            return match &self.doing {
                Doing::Ended(end) if self.journal.durable.is_some() => Some(Progress::Ended(end.clone())),
                _ => None,
            };
        }
        match &self.doing {
            Doing::Idle | Doing::Preparing { .. } | Doing::Ready | Doing::Launching => Some(Progress::Accepted),
            Doing::Running { started_ms } => Some(Progress::Running {
                started_ms: *started_ms,
                phases: self.phases.clone(),
            }),
            Doing::Ended(end) if self.log_complete && self.acked == Some(ObservedState::Ended) => {
                Some(Progress::Done(end.clone()))
            }
            Doing::Ended(end) => Some(Progress::Ended(end.clone())),
            Doing::Closing { .. } | Doing::Cleaning | Doing::Tombstone | Doing::Removing | Doing::Removed => None,
        }
    }

    /// A running step's log is shipped as it grows. One that we closed ourselves is shipped once
    /// its end is durable: before that, a restarted agent would begin anew and write another one. For
    /// the same reason nobody is told before that where a log ends: what a restarted agent appended
    /// would lie behind the end.
    fn settle_log(&mut self, out: &mut Vec<Effect>) {
        let durable_end = matches!(self.journal.durable, Some(Progress::Ended(_) | Progress::Done(_)));
        let stable =
            matches!(self.doing, Doing::Running { .. }) || (durable_end && matches!(self.doing, Doing::Ended(_)));
        if stable && !self.shipping && !self.log_complete {
            self.shipping = true;
            out.push(Effect::ShipLog);
        }
        if let Doing::Ended(end) = &self.doing
            && durable_end
            && self.shipping
            && !self.sealed
        {
            self.sealed = true;
            out.push(Effect::SealLog { bytes: end.log_bytes });
        }
    }

    fn settle_report(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if !self.connected || self.claim != Claim::Wanted {
            return;
        }
        let Some(observed) = self.observed() else { return };
        let state = observed.state;
        let news = self.acked.is_none_or(|acked| acked < state);
        let due = match self.sent {
            Some((sent, at_ms)) => sent < state || now_ms >= at_ms.saturating_add(REPORT_RESEND_MS),
            None => true,
        };
        if news && due {
            self.sent = Some((state, now_ms));
            out.push(Effect::Report(Box::new(observed)));
        }
    }

    /// The report of what is durable.
    fn observed(&self) -> Option<Observed> {
        let base = |state| Observed {
            alloc: self.order.alloc.clone(),
            fence: self.order.fence,
            state,
            started_ms: None,
            ended_ms: None,
            phases: Vec::new(),
            outcome: None,
            log_bytes: None,
            usage: Usage::default(),
            left: model::Left::default(),
            unknown: model::record::Unknown::new(),
        };
        Some(match self.journal.durable.as_ref()? {
            Progress::Accepted => base(ObservedState::Preparing),
            Progress::Running { started_ms, phases } => Observed {
                started_ms: Some(*started_ms),
                phases: phases.clone(),
                ..base(ObservedState::Running)
            },
            Progress::Ended(end) | Progress::Done(end) => Observed {
                started_ms: end.started_ms,
                ended_ms: Some(end.ended_ms),
                phases: end.phases.clone(),
                outcome: Some(end.outcome.clone()),
                log_bytes: Some(end.log_bytes),
                usage: end.usage,
                left: end.left.clone(),
                ..base(ObservedState::Ended)
            },
        })
    }

    /// When the newest report was sent, if it is not acknowledged.
    fn unacked(&self) -> Option<u64> {
        let (state, at_ms) = self.sent?;
        let waiting = self.claim == Claim::Wanted && self.acked.is_none_or(|acked| acked < state);
        waiting.then_some(at_ms)
    }
}

/// What is written to the log of an attempt that was ended before it began.
fn last_line(outcome: &Outcome, stop: Option<Stop>) -> String {
    match (outcome, stop) {
        (Outcome::Cancelled, Some(Stop::Drained)) => {
            "buildflow: the step was taken from its node, which is drained".to_owned()
        }
        _ => format!("buildflow: the step {}", outcome.sentence()),
    }
}

fn lost_message(found: &Found, rebooted: bool) -> String {
    match found {
        Found::Broken { message } => message.clone(),
        _ if rebooted => "the node was started anew while the step ran".to_owned(),
        Found::Nothing | Found::Alive | Found::Gone => "nothing of its container is left on the node".to_owned(),
    }
}
