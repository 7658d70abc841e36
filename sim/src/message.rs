//! Everything that can happen in the simulated cluster.
//!
//! An event that is meant for a process names the life of that process: a crash in between makes
//! it fall on deaf ears. What is on its way to the store arrives whatever became of its sender.

use crate::committing::Batch;
use api_core::archive::{self, Move, Told};
use bytes::Bytes;
use model::{AllocId, Observed, ObservedState};
use node_agent::{Entry, Order};
use scheduler::Ticket;
use store::{Commit, Expect, LeaseId, Revision};

/// An event.
#[derive(Debug)]
pub(crate) enum Event {
    /// A trigger becomes a run.
    Trigger { run: usize },
    /// Somebody cancels a run, which may not be there yet.
    Cancel { run: usize },
    /// Something breaks.
    Fault,
    /// A fault that lasts ends.
    Mend(Mend),
    /// Nothing breaks any more, and everything is started again.
    Heal,
    /// For the scheduler of a server, if its view is still the same.
    Scheduler {
        which: usize,
        view: u64,
        what: SchedulerEvent,
    },
    /// For the campaign of a server.
    Election {
        which: usize,
        life: u64,
        what: ElectionEvent,
    },
    /// The store gets a batch of a scheduler.
    Commit(Batch),
    /// The store gets the transaction of a report.
    FileReport {
        which: usize,
        life: u64,
        filing: Box<Filing>,
    },
    /// The blob store gets bytes.
    Put { which: usize, life: u64, put: Box<Put> },
    /// For the archive of a server, if its term is still the same.
    Archive {
        which: usize,
        term: u64,
        what: ArchiveEvent,
    },
    /// The store gets a batch of the archive.
    ArchiveCommit {
        which: usize,
        term: u64,
        leader: Revision,
        what: ArchiveBatch,
    },
    /// History is told of outbox entries.
    TellHistory {
        which: usize,
        term: u64,
        ticket: u64,
        runs: Vec<Told>,
    },
    /// A server's process is started.
    StartServer { which: usize },
    /// For the part of a server that speaks with nodes.
    Server { which: usize, life: u64, what: ServerEvent },
    /// For a machine, whatever runs on it.
    Machine { which: usize, what: MachineEvent },
    /// For an agent's process.
    Agent { which: usize, life: u64, what: AgentEvent },
}

impl Event {
    /// Its name, as the code has it.
    pub(crate) fn kind(&self) -> String {
        let name = |debug: String| {
            let end = debug.find([' ', '(', '{']).unwrap_or(debug.len());
            debug[..end].to_owned()
        };
        match self {
            Self::Scheduler { what, .. } => name(format!("{what:?}")),
            Self::Election { what, .. } => name(format!("{what:?}")),
            Self::Server { what, .. } => name(format!("{what:?}")),
            Self::Machine { what, .. } => name(format!("{what:?}")),
            Self::Agent { what, .. } => name(format!("{what:?}")),
            Self::Archive { what, .. } => name(format!("{what:?}")),
            other => name(format!("{other:?}")),
        }
    }
}

/// The end of a fault that lasts.
#[derive(Debug)]
pub(crate) enum Mend {
    /// The store has its quorum again.
    Store,
    /// A server reaches the store again.
    ServerToStore(usize),
    /// A machine reaches a server again.
    Link { machine: usize, server: usize },
    /// The blob store takes and lists blobs again.
    Blobs,
    /// History answers again.
    History,
}

/// A report on its way into the store.
#[derive(Debug)]
pub(crate) struct Filing {
    pub(crate) stream: Stream,
    pub(crate) report: Observed,
    /// What was filed before.
    pub(crate) before: Expect,
    /// How often it has been judged.
    pub(crate) tries: usize,
}

/// Bytes on their way into the blob store.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) of: PutOf,
}

/// What a blob is.
#[derive(Debug, Clone)]
pub(crate) enum PutOf {
    /// A part of a log.
    Log(AllocId),
    /// A run that has ended.
    Run { term: u64, ticket: u64, moved: Box<Move> },
}

/// Something happens to an archive.
#[derive(Debug)]
pub(crate) enum ArchiveEvent {
    /// Look what has ended.
    Look,
    /// The state machine is told of something.
    Told(Box<archive::Event>),
}

/// What an archive writes to the store.
#[derive(Debug)]
pub(crate) enum ArchiveBatch {
    /// Runs go, their outbox entries come.
    Move { ticket: u64, moves: Vec<Move> },
    /// Outbox entries go.
    Clear { ticket: u64, runs: Vec<Told> },
}

/// Something happens to a scheduler.
#[derive(Debug)]
pub(crate) enum SchedulerEvent {
    /// Changes of one prefix arrive.
    Deliver { prefix: usize },
    /// Look at everything.
    Act,
    /// The store answered.
    Answer { batch: u64, answers: Vec<(Ticket, Commit)> },
    /// The store has no room for a batch.
    Full { batch: u64 },
    /// A batch has been waited for long enough.
    Unheard { batch: u64 },
    /// Try again to read everything.
    Rebuild,
}

/// Something happens to a server's campaign for the leader's key.
#[derive(Debug)]
pub(crate) enum ElectionEvent {
    /// Try to lead.
    Campaign,
    /// Renew the leader's lease.
    KeepAlive(LeaseId),
    /// The key of this revision is of no use any more.
    GiveUp(u64),
}

/// A node's stream: which machine, and which of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) machine: usize,
    pub(crate) number: u64,
}

/// Something reaches a server from a node, or is due there.
#[derive(Debug)]
pub(crate) enum ServerEvent {
    /// Does the store answer?
    Probe,
    /// The first message of a stream, with what the agent holds.
    Hello { stream: Stream, held: Vec<AllocId> },
    /// A renewal of a node's lease.
    Renew { stream: Stream, sequence: u64 },
    /// A report.
    Report { stream: Stream, report: Box<Observed> },
    /// A report is judged, for the last time of so many.
    Judge {
        stream: Stream,
        report: Box<Observed>,
        tries: usize,
    },
    /// A report was answered by the store.
    Filed { stream: Stream, report: Box<Observed> },
    /// It has been prepared for long.
    FilePreparing { stream: Stream, alloc: AllocId },
    /// Read all orders of a node that has just been taken in.
    FirstOrders { stream: Stream },
    /// Changes of the node's orders arrive.
    OrdersChanged { stream: Stream },
    /// The node has registered anew with another server.
    Superseded { stream: Stream },
    /// A node asks from where to send a log.
    LogOpen { stream: Stream, alloc: AllocId },
    /// Bytes of a log.
    LogData {
        stream: Stream,
        alloc: AllocId,
        offset: u64,
        bytes: Bytes,
        end: bool,
    },
    /// Find out whether the node may write the log, and what is stored of it.
    FindLog { stream: Stream, alloc: AllocId },
    /// So many bytes of the log were stored when its blobs were listed.
    LogListed {
        stream: Stream,
        alloc: AllocId,
        stored: u64,
    },
    /// Look whether something of the log is to be stored.
    StoreLog { alloc: AllocId },
    /// The blob store answered, or did not.
    BlobAnswer { put: Box<Put>, stored: bool },
    /// Try again what the blob store did not take.
    PutAgain { put: Box<Put> },
    /// The stream is found broken.
    Gone { stream: Stream },
    /// The session of a stream that lives is gone from the store.
    Vanished { stream: Stream },
    /// A node asks whether the store has lost its quorum.
    Ask { machine: usize, agent: u64, round: u64 },
}

/// Something happens to a machine.
#[derive(Debug)]
pub(crate) enum MachineEvent {
    /// The agent's process is started.
    StartAgent,
    /// A container prints something.
    Prints { alloc: AllocId, boot: u64 },
    /// A container's process ends, if it is still the same boot and not ended otherwise.
    SandboxEnds { alloc: AllocId, boot: u64 },
    /// The shims look whether the deadline has passed.
    Deadline { boot: u64 },
}

/// Something happens to an agent.
#[derive(Debug)]
pub(crate) enum AgentEvent {
    /// Open a stream.
    Connect,
    /// A server took the node in.
    Welcome { stream: u64, lease_ms: u64 },
    /// A renewal was confirmed.
    RenewAck { stream: u64, sequence: u64 },
    /// The stream is found broken.
    Broken { stream: u64 },
    /// A server answered whether the store has lost its quorum.
    Quorum { round: u64, server: usize, lost: bool },
    /// The orders that stand.
    Orders { stream: u64, orders: Vec<Order> },
    /// One order, new or changed.
    Order { stream: u64, order: Box<Order> },
    /// The server wants nothing more of an allocation.
    Forget { stream: u64, alloc: AllocId },
    /// The server wants a log from this offset on.
    LogFrom { stream: u64, alloc: AllocId, offset: u64 },
    /// So much of a log is stored.
    LogAck {
        stream: u64,
        alloc: AllocId,
        offset: u64,
        complete: bool,
    },
    /// There is more in a log's file.
    LogGrew { alloc: AllocId },
    /// A report was answered.
    Ack {
        stream: u64,
        alloc: AllocId,
        state: ObservedState,
        accepted: bool,
    },
    /// An entry of the journal is durable.
    Written { alloc: AllocId, entry: Box<Entry> },
    /// An entry of the journal is gone.
    EntryRemoved { alloc: AllocId },
    /// The launcher starts the container, unless the deadline that stood when it was told so has passed.
    Launch { alloc: AllocId, until_ms: u64 },
    /// Something was learned of an allocation.
    Told {
        alloc: AllocId,
        event: Box<node_agent::Event>,
    },
    /// Time goes by.
    Tick,
}
