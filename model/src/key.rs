//! Where each record lives. Every key of the live store is made here and nowhere else.

use crate::id::{AllocId, NodeId, PipelineName, RunId, TeamName};

/// All teams.
pub const TEAMS: &str = "team/";
/// All pipelines of all teams.
pub const PIPELINES: &str = "pipeline/";
/// All API and node tokens, by the hash of their text.
pub const TOKENS: &str = "token/";
/// Triggers that were accepted and are not yet a run.
pub const INBOX: &str = "inbox/";
/// What people asked the leader to do.
pub const REQUESTS: &str = "request/";
/// Recent triggers, so that the same one within a minute gives the run that is there.
pub const DEDUPE: &str = "dedupe/";
/// Runs with their definitions and steps.
pub const RUNS: &str = "run/";
/// Registered nodes.
pub const NODES: &str = "node/";
/// Which server holds the stream of which node (leased).
pub const SESSIONS: &str = "session/";
/// What operators want of nodes.
pub const ELIGIBILITIES: &str = "eligibility/";
/// Tokens with which machines become nodes, by the hash of their text.
pub const JOIN_TOKENS: &str = "join/";
/// Machines that have joined with a certificate.
pub const MEMBERS: &str = "member/";
/// Whose certificates the servers of this store show.
pub const CLUSTER_AUTHORITY: &str = "cluster/authority";
/// How far what is old has been removed.
pub const CLUSTER_RETENTION: &str = "cluster/retention";
/// Finished runs that history has not taken yet.
pub const ARCHIVE_OUTBOX: &str = "outbox/archive/";
/// Desired allocations.
pub const ALLOCS: &str = "alloc/";
/// Reported allocations.
pub const OBSERVED: &str = "observed/";
/// The format of the store and the cluster's epoch.
pub const CLUSTER_VERSION: &str = "cluster/version";
/// The leader's election key.
pub const LEADER: &str = "leader";

/// A team's record.
#[must_use]
pub fn team(team: &TeamName) -> String {
    format!("{TEAMS}{team}")
}

/// A pipeline's record.
#[must_use]
pub fn pipeline(team: &TeamName, name: &PipelineName) -> String {
    format!("{PIPELINES}{team}/{name}")
}

/// The number of a pipeline's newest run.
#[must_use]
pub fn number(team: &TeamName, name: &PipelineName) -> String {
    format!("number/{team}/{name}")
}

/// A token's record, under the lower-case hex SHA-256 of its text.
#[must_use]
pub fn token(hash: &str) -> String {
    format!("{TOKENS}{hash}")
}

/// A trigger that waits to become a run.
#[must_use]
pub fn inbox(delivery: &str) -> String {
    format!("{INBOX}{delivery}")
}

/// A request to the leader.
#[must_use]
pub fn request(id: &str) -> String {
    format!("{REQUESTS}{id}")
}

/// The run that a trigger's hash has led to.
#[must_use]
pub fn dedupe(hash: &str) -> String {
    format!("{DEDUPE}{hash}")
}

/// A run's header. It makes the run exist, so it is written last.
#[must_use]
pub fn run(run: &RunId) -> String {
    format!("{RUNS}{run}")
}

/// One chunk of a run's immutable definition.
#[must_use]
pub fn run_def(run: &RunId, chunk: usize) -> String {
    format!("{RUNS}{run}/def/{chunk:04}")
}

/// What happened to the step with this ordinal; absent while nothing has.
#[must_use]
pub fn step(run: &RunId, step: usize) -> String {
    format!("{RUNS}{run}/step/{step:04}")
}

/// A node's record.
#[must_use]
pub fn node(node: &NodeId) -> String {
    format!("{NODES}{node}")
}

/// Which server holds a node's stream.
#[must_use]
pub fn session(node: &NodeId) -> String {
    format!("{SESSIONS}{node}")
}

/// What operators want of a node.
#[must_use]
pub fn eligibility(node: &NodeId) -> String {
    format!("{ELIGIBILITIES}{node}")
}

/// A join token's record, under the lower-case hex SHA-256 of its text.
#[must_use]
pub fn join_token(hash: &str) -> String {
    format!("{JOIN_TOKENS}{hash}")
}

/// A machine that has joined with a certificate.
#[must_use]
pub fn member(node: &NodeId) -> String {
    format!("{MEMBERS}{node}")
}

/// A finished run on its way to history.
#[must_use]
pub fn archive_outbox(run: &RunId) -> String {
    format!("{ARCHIVE_OUTBOX}{run}")
}

/// Everything of a run but its header.
#[must_use]
pub fn run_parts(run: &RunId) -> String {
    format!("{RUNS}{run}/")
}

/// A desired allocation.
#[must_use]
pub fn alloc(node: &NodeId, alloc: &AllocId) -> String {
    format!("{ALLOCS}{node}/{alloc}")
}

/// All desired allocations of a node.
#[must_use]
pub fn allocs_of(node: &NodeId) -> String {
    format!("{ALLOCS}{node}/")
}

/// What a node reported of an allocation.
#[must_use]
pub fn observed(alloc: &AllocId) -> String {
    format!("{OBSERVED}{alloc}")
}

/// What a key below [`RUNS`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunKey {
    /// `run/<id>`
    Header(RunId),
    /// `run/<id>/def/<n>`
    Def(RunId, usize),
    /// `run/<id>/step/<n>`
    Step(RunId, usize),
}

/// Takes a key below [`RUNS`] apart; `None` for any other key.
#[must_use]
pub fn parse_run(key: &str) -> Option<RunKey> {
    let mut parts = key.strip_prefix(RUNS)?.split('/');
    let run = RunId::new(parts.next()?).ok()?;
    match (parts.next(), parts.next(), parts.next()) {
        (None, None, None) => Some(RunKey::Header(run)),
        (Some("def"), Some(n), None) => Some(RunKey::Def(run, n.parse().ok()?)),
        (Some("step"), Some(n), None) => Some(RunKey::Step(run, n.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_keys_round_trip() {
        let id = RunId::new("01jd").expect("legal");
        assert_eq!(parse_run(&run(&id)), Some(RunKey::Header(id.clone())));
        assert_eq!(parse_run(&run_def(&id, 3)), Some(RunKey::Def(id.clone(), 3)));
        assert_eq!(parse_run(&step(&id, 999)), Some(RunKey::Step(id, 999)));
        for other in [
            "run/",
            "runs/x",
            "run/01jd/step",
            "run/01jd/step/x",
            "run/01jd/step/1/2",
            "node/a",
        ] {
            assert_eq!(parse_run(other), None, "{other}");
        }
    }

    #[test]
    fn steps_of_a_run_sort_by_ordinal() {
        let id = RunId::new("01jd").expect("legal");
        assert!(step(&id, 9) < step(&id, 10) && step(&id, 99) < step(&id, 999));
    }
}
