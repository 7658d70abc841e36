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
    /// Nothing breaks any more, and everything is started again.
    Heal,
    /// For a scheduler.
    Replica {
        which: usize,
        life: u64,
        what: ReplicaEvent,
    },
    /// The store gets a batch of a scheduler.
    Commit {
        which: usize,
        life: u64,
        leader: Revision,
        verified: Vec<Verified>,
    },
    /// A scheduler's process is started.
    StartReplica { which: usize },
    /// For a machine or the server that holds its stream.
    Machine { which: usize, what: MachineEvent },
    /// For an agent's process.
    Agent { which: usize, life: u64, what: AgentEvent },
}

/// Something happens to a scheduler.
#[derive(Debug)]
pub(crate) enum ReplicaEvent {
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
}

/// Something happens to a machine.
#[derive(Debug)]
pub(crate) enum MachineEvent {
    /// The agent's process is started.
    StartAgent,
    /// A container's process ends, if it is still the same boot and not ended otherwise.
    SandboxEnds { alloc: AllocId, boot: u64 },
    /// A report reaches a server.
    ReportArrives { connection: u64, report: Box<Observed> },
    /// The server that holds the stream looks which orders stand.
    ReadOrders { connection: u64 },
    /// The server that holds the stream renews the session.
    KeepSession { connection: u64 },
    /// The server noticed that the stream is gone.
    EndSession { lease: i64 },
}

/// Something happens to an agent.
#[derive(Debug)]
pub(crate) enum AgentEvent {
    /// Open a stream.
    Connect,
    /// The orders that stand.
    Orders { connection: u64, orders: Vec<Order> },
    /// A report was answered.
    Ack {
        connection: u64,
        alloc: AllocId,
        state: ObservedState,
        accepted: bool,
    },
    /// An entry of the journal is durable.
    Written { alloc: AllocId, entry: Box<Entry> },
    /// An entry of the journal is gone.
    EntryRemoved { alloc: AllocId },
    /// The launcher starts the container.
    Launch { alloc: AllocId },
    /// Something was learned of an allocation.
    Told {
        alloc: AllocId,
        event: Box<node_agent::Event>,
    },
    /// Time goes by.
    Tick,
}
