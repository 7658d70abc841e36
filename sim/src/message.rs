//! Everything that can happen in the simulated cluster.
//!
//! An event that is meant for a process names the life of that process: a crash in between makes
//! it fall on deaf ears. What is on its way to the store arrives whatever became of its sender.

use model::{AllocId, Observed, ObservedState};
use node_agent::{Entry, Order};
use scheduler::{Ticket, Verified};
use store::{Commit, Revision};

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
    /// The store gets a batch of a scheduler.
    Commit {
        which: usize,
        view: u64,
        leader: Revision,
        verified: Vec<Verified>,
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

/// The end of a fault that lasts.
#[derive(Debug)]
pub(crate) enum Mend {
    /// The store has its quorum again.
    Store,
    /// A server reaches the store again.
    ServerToStore(usize),
    /// A machine reaches a server again.
    Link { machine: usize, server: usize },
}

/// Something happens to a scheduler.
#[derive(Debug)]
pub(crate) enum SchedulerEvent {
    /// Try to lead.
    Campaign,
    /// Read what a new leader has to know.
    BeginTerm,
    /// Renew the leader's lease.
    KeepAlive,
    /// Changes of one prefix arrive.
    Deliver { prefix: usize },
    /// Look at everything.
    Act,
    /// The store answered.
    Answer(Vec<(Ticket, Commit)>),
    /// The store's answer was lost.
    AnswerLost,
    /// Try again to read everything.
    Rebuild,
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
    /// The first message of a stream.
    Hello { stream: Stream },
    /// A renewal of a node's lease.
    Renew { stream: Stream, sequence: u64 },
    /// A report.
    Report { stream: Stream, report: Box<Observed> },
    /// Look which orders stand.
    ReadOrders { stream: Stream },
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
