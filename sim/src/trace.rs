//! The last part of a history in words, one line an event, for whoever has to find out why a seed
//! fails.
//!
//! What happens at any rate and says nothing (ticks, probes, campaigns, a look at everything) is
//! left out. Not here: when a history is told ([`crate::run`]).

use crate::message::{
    AgentEvent, ArchiveBatch, ArchiveEvent, ElectionEvent, Event, MachineEvent, Mend, SchedulerEvent, ServerEvent,
};
use api_core::archive::StoreResult;
use model::key::{self, RunKey};
use model::{Allocation, Observed, SessionRecord, StepRecord};
use std::collections::VecDeque;
use store::Change;

/// The most lines that a failure prints: half a minute of a busy cluster.
const LINES_MAX: usize = 120;

/// The most of these that only say that a node is still alive: they are there when a lease is at
/// fault, and do not push out the others when a history has no end.
const ROUTINE_MAX: usize = 30;

/// The last lines. Nothing is written down unless it is wanted: that costs more than the events.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    written: usize,
    /// Each with its place among all.
    telling: VecDeque<(usize, String)>,
    routine: VecDeque<(usize, String)>,
}

impl Trace {
    pub(crate) fn wanted() -> Self {
        Self {
            lines: Some(Lines::default()),
        }
    }

    /// In order.
    pub(crate) fn lines(&self) -> Vec<&str> {
        let both = self.lines.iter().flat_map(|l| l.telling.iter().chain(&l.routine));
        let mut both: Vec<&(usize, String)> = both.collect();
        both.sort_unstable();
        both.into_iter().map(|(_, line)| line.as_str()).collect()
    }

    /// `at_ms` is counted from the beginning.
    pub(crate) fn event(&mut self, at_ms: u64, event: &Event) {
        if self.lines.is_some()
            && let Some((who, what)) = words(event)
        {
            let routine = is_routine(event);
            self.line(at_ms, &who, &what, routine);
        }
    }

    pub(crate) fn change(&mut self, at_ms: u64, change: &Change) {
        if self.lines.is_some() {
            let what = change_words(change);
            let what = format!("{what} (revision {})", change.revision.0);
            self.line(at_ms, "store", &what, false);
        }
    }

    /// A line that a closure writes, if it is wanted.
    pub(crate) fn note(&mut self, at_ms: u64, who: &str, what: impl FnOnce() -> String) {
        if self.lines.is_some() {
            self.line(at_ms, who, &what(), false);
        }
    }

    /// As [`Trace::note`], of something that happens all the time.
    pub(crate) fn routine(&mut self, at_ms: u64, who: &str, what: impl FnOnce() -> String) {
        if self.lines.is_some() {
            self.line(at_ms, who, &what(), true);
        }
    }

    fn line(&mut self, at_ms: u64, who: &str, what: &str, routine: bool) {
        let Some(lines) = &mut self.lines else { return };
        lines.written += 1;
        let (kept, most) = if routine {
            (&mut lines.routine, ROUTINE_MAX)
        } else {
            (&mut lines.telling, LINES_MAX)
        };
        if kept.len() == most {
            kept.pop_front();
        }
        let line = format!("{:>5}.{:03} s  {who:<6} {what}", at_ms / 1_000, at_ms % 1_000);
        kept.push_back((lines.written, line));
    }
}

/// Leases are kept alive.
fn is_routine(event: &Event) -> bool {
    match event {
        Event::Server { what, .. } => matches!(what, ServerEvent::Renew { .. } | ServerEvent::Ask { .. }),
        Event::Agent { what, .. } => matches!(what, AgentEvent::RenewAck { .. } | AgentEvent::Quorum { .. }),
        Event::Machine { what, .. } => matches!(what, MachineEvent::Deadline { .. }),
        _ => false,
    }
}

fn words(event: &Event) -> Option<(String, String)> {
    let cluster = |what: String| Some(("sim".to_owned(), what));
    match event {
        Event::Trigger { run } => cluster(format!("run{run} is triggered")),
        Event::Cancel { run } => cluster(format!("run{run} is to be cancelled")),
        Event::Fault => None,
        Event::Mend(Mend::Store) => cluster("the store has its quorum again".to_owned()),
        Event::Mend(Mend::Blobs) => cluster("the blob store answers again".to_owned()),
        Event::Mend(Mend::History) => cluster("history answers again".to_owned()),
        Event::Mend(Mend::ServerToStore(server)) => cluster(format!("s{server} reaches the store again")),
        Event::Mend(Mend::Link { machine, server }) => cluster(format!("n{machine} and s{server} hear each other")),
        Event::Heal => cluster("everything is healed".to_owned()),
        Event::Scheduler { which, what, .. } => Some((format!("s{which}"), scheduler_words(what)?)),
        Event::Election { which, what, .. } => Some((format!("s{which}"), election_words(what)?)),
        Event::Commit(batch) => Some((format!("s{}", batch.which), batch.words())),
        Event::FileReport { which, filing, .. } => {
            let what = report_words(&filing.report);
            Some((format!("s{which}"), format!("its report reaches the store: {what}")))
        }
        Event::Put { which, put, .. } => Some((format!("s{which}"), format!("its blob arrives: {}", put.name))),
        Event::Archive { which, what, .. } => Some((format!("s{which}"), archive_words(what)?)),
        Event::ArchiveCommit { which, what, .. } => Some((format!("s{which}"), batch_words(what))),
        Event::TellHistory { which, runs, .. } => {
            let runs: Vec<&str> = runs.iter().map(|t| t.run.as_str()).collect();
            Some((format!("s{which}"), format!("tells history of {runs:?}")))
        }
        Event::StartServer { which } => Some((format!("s{which}"), "is started".to_owned())),
        Event::Server { which, what, .. } => Some((format!("s{which}"), server_words(what)?)),
        Event::Machine { which, what } => Some((format!("n{which}"), machine_words(what))),
        Event::Agent { which, what, .. } => Some((format!("n{which}"), agent_words(what)?)),
    }
}

fn scheduler_words(what: &SchedulerEvent) -> Option<String> {
    Some(match what {
        SchedulerEvent::Answer { batch, answers } => {
            let applied = answers.iter().filter(|(_, commit)| commit.is_applied()).count();
            format!(
                "hears of batch {batch} that {applied} of {} transactions were applied",
                answers.len()
            )
        }
        SchedulerEvent::Full { batch } => format!("hears that there was no room for batch {batch}"),
        SchedulerEvent::Rebuild => "reads everything anew".to_owned(),
        SchedulerEvent::Unheard { .. } | SchedulerEvent::Deliver { .. } | SchedulerEvent::Act => return None,
    })
}

fn election_words(what: &ElectionEvent) -> Option<String> {
    match what {
        ElectionEvent::GiveUp(key) => Some(format!("is to give up its key of revision {key}")),
        ElectionEvent::Campaign | ElectionEvent::KeepAlive(_) => None,
    }
}

fn server_words(what: &ServerEvent) -> Option<String> {
    Some(match what {
        ServerEvent::Hello { stream, .. } => format!("gets Hello of n{}, stream {}", stream.machine, stream.number),
        ServerEvent::Renew { stream, sequence } => format!("is asked by n{} for renewal {sequence}", stream.machine),
        ServerEvent::Report { stream, report } => format!("hears from n{}: {}", stream.machine, report_words(report)),
        ServerEvent::Gone { stream } => format!("finds stream {} of n{} broken", stream.number, stream.machine),
        ServerEvent::Vanished { stream } => format!("sees the session of n{} vanish", stream.machine),
        ServerEvent::Ask { machine, round, .. } => format!("is asked by n{machine} about the quorum, round {round}"),
        ServerEvent::Superseded { stream } => {
            format!("hears that n{} has registered elsewhere since", stream.machine)
        }
        ServerEvent::LogOpen { stream, alloc } => {
            format!("is asked by n{} from where to send the log of {alloc}", stream.machine)
        }
        ServerEvent::LogData {
            alloc,
            offset,
            bytes,
            end,
            ..
        } => {
            let to = offset + bytes.len() as u64;
            format!("gets the log of {alloc} from {offset} to {to}{}", end_words(*end))
        }
        ServerEvent::LogListed { alloc, stored, .. } => format!("finds {stored} bytes of the log of {alloc} stored"),
        ServerEvent::BlobAnswer { put, stored: true } => format!("hears that {} is stored", put.name),
        ServerEvent::BlobAnswer { put, .. } => format!("does not hear whether {} is stored", put.name),
        ServerEvent::Judge { .. }
        | ServerEvent::Filed { .. }
        | ServerEvent::FilePreparing { .. }
        | ServerEvent::FirstOrders { .. }
        | ServerEvent::OrdersChanged { .. }
        | ServerEvent::FindLog { .. }
        | ServerEvent::StoreLog { .. }
        | ServerEvent::PutAgain { .. }
        | ServerEvent::Probe => return None,
    })
}

fn end_words(end: bool) -> &'static str {
    if end { ", which is its end" } else { "" }
}

fn archive_words(what: &ArchiveEvent) -> Option<String> {
    use api_core::archive::Event as Told;
    let ArchiveEvent::Told(event) = what else { return None };
    Some(match &**event {
        Told::Stored(_, result) => format!("its archive hears of a run's blob: {}", stored_words(result)),
        Told::Moved(_, results) => format!("its archive hears what became of its move: {results:?}"),
        Told::Put(_, result) => format!("its archive hears from history: {result:?}"),
        Told::Cleared(_, at) => format!("its archive hears that outbox entries are gone: {at:?}"),
        Told::Leads | Told::Deposed | Told::Seen { .. } | Told::Tick => return None,
    })
}

fn stored_words(result: &StoreResult) -> String {
    match result {
        StoreResult::Done(moved) => format!("{} is stored", moved.record.summary.id),
        other => format!("{other:?}"),
    }
}

fn batch_words(what: &ArchiveBatch) -> String {
    match what {
        ArchiveBatch::Move { moves, .. } => {
            let runs: Vec<&str> = moves.iter().map(|m| m.record.summary.id.as_str()).collect();
            format!("its move of {runs:?} reaches the store")
        }
        ArchiveBatch::Clear { runs, .. } => {
            let runs: Vec<&str> = runs.iter().map(|t| t.run.as_str()).collect();
            format!("its clearing of {runs:?} from the outbox reaches the store")
        }
    }
}

fn machine_words(what: &MachineEvent) -> String {
    match what {
        MachineEvent::StartAgent => "its agent is started".to_owned(),
        MachineEvent::Prints { alloc, .. } => format!("the container of {alloc} prints"),
        MachineEvent::SandboxEnds { alloc, .. } => format!("the container of {alloc} ends"),
        MachineEvent::Deadline { .. } => "its shims look at the deadline".to_owned(),
    }
}

fn agent_words(what: &AgentEvent) -> Option<String> {
    Some(match what {
        AgentEvent::Connect => "opens a stream".to_owned(),
        AgentEvent::Welcome { stream, .. } => format!("is taken in on stream {stream}"),
        AgentEvent::RenewAck { sequence, .. } => format!("gets renewal {sequence} confirmed"),
        AgentEvent::Broken { stream } => {
            let number = stream & (u64::MAX >> 1);
            format!("is told that stream {number} is broken")
        }
        AgentEvent::Quorum { round, server, lost } => {
            let has = if *lost { "has no" } else { "has its" };
            format!("hears from s{server} in round {round} that the store {has} quorum")
        }
        AgentEvent::Orders { orders, .. } => {
            let orders: Vec<&str> = orders.iter().map(|o| o.alloc.as_str()).collect();
            format!("gets its orders: {orders:?}")
        }
        AgentEvent::Order { order, .. } => {
            let stop = order.stop.map(|s| format!(", stop: {s:?}")).unwrap_or_default();
            format!("gets an order: {}{stop}", order.alloc)
        }
        AgentEvent::Forget { alloc, .. } => format!("is told to forget {alloc}"),
        AgentEvent::LogFrom { alloc, offset, .. } => format!("is told to send the log of {alloc} from {offset}"),
        AgentEvent::LogAck {
            alloc,
            offset,
            complete,
            ..
        } => format!(
            "hears that {offset} bytes of the log of {alloc} are stored{}",
            end_words(*complete)
        ),
        AgentEvent::LogGrew { .. } => return None,
        AgentEvent::Ack {
            alloc, state, accepted, ..
        } => {
            let word = if *accepted { "accepted" } else { "refused" };
            format!("hears that its report of {alloc} as {state:?} is {word}")
        }
        AgentEvent::Written { alloc, .. } => format!("has written {alloc} to its journal"),
        AgentEvent::EntryRemoved { alloc } => format!("has struck {alloc} from its journal"),
        AgentEvent::Launch { alloc, .. } => format!("launches {alloc}"),
        AgentEvent::Told { alloc, event } => format!("learns of {alloc}: {}", told_words(event)),
        AgentEvent::Tick => return None,
    })
}

fn told_words(event: &node_agent::Event) -> &'static str {
    use node_agent::Event as Told;
    match event {
        Told::Prepared { .. } => "it is prepared",
        Told::PrepareFailed { .. } => "it cannot be prepared",
        Told::Launched { .. } => "it runs",
        Told::LaunchFailed { .. } => "it cannot be launched",
        Told::Ended { .. } => "it has ended",
        Told::Vanished { .. } => "nobody knows how it ended",
        Told::LogClosed { .. } => "its log is closed",
        Told::LogComplete => "its log is stored",
        Told::Cleaned => "it is cleaned up",
        Told::WriteFailed => "its entry cannot be written",
        _ => "something else",
    }
}

fn report_words(report: &Observed) -> String {
    match &report.outcome {
        Some(outcome) => format!("{} is {:?}, {outcome:?}", report.alloc, report.state),
        None => format!("{} is {:?}", report.alloc, report.state),
    }
}

fn change_words(change: &Change) -> String {
    let gone = || format!("{} is gone", change.key);
    let Some(value) = change.value.as_deref() else {
        return gone();
    };
    if let Some(RunKey::Step(run, step)) = key::parse_run(&change.key)
        && let Ok(record) = model::decode::<StepRecord>(value)
    {
        let status = record.status.as_str();
        return format!("step {step} of {run} is {status}, attempt {}", record.attempt);
    }
    if change.key.starts_with(key::ALLOCS)
        && let Ok(order) = model::decode::<Allocation>(value)
    {
        let stop = order.stop.map(|s| format!(", stop: {s:?}")).unwrap_or_default();
        return format!("order {} for {}{stop}", order.id, order.node);
    }
    if change.key.starts_with(key::SESSIONS)
        && let Ok(session) = model::decode::<SessionRecord>(value)
    {
        let word = if session.connected {
            "is connected to"
        } else {
            "has left"
        };
        return format!(
            "{} {word} {}, epoch {}",
            session.node, session.server, session.node_epoch
        );
    }
    format!("{} is written", change.key)
}
