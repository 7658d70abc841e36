//! The agent's lease at its rim: renewals are sent, servers are asked, the deadline is written.
//!
//! Not here: until when the lease goes (`node_agent::Lease`), and who kills at its end: the shims.

use super::Agent;
use crate::blocking::now_ms;
use crate::quorum::{Answer, ask_all};
use isolation::lease::{self, Deadline};
use node_agent::{Lease, LeaseEffect, LeaseEvent};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file in the run folder that every shim reads.
const FILE: &str = "lease";

pub(super) fn path_in(run_dir: &Path) -> PathBuf {
    run_dir.join(FILE)
}

/// What an earlier agent of this boot has left of its lease. Blocking.
pub(super) fn take_up(path: &Path, servers: usize) -> Lease {
    match Deadline::read(path) {
        Ok(Some(Deadline { at_ms, lease_ms })) => {
            let now = lease::now_ms();
            tracing::info!(left_ms = at_ms.saturating_sub(now), lease_ms, "lease taken up");
            Lease::resume(servers, node_agent::Deadline { at_ms, lease_ms }, now)
        }
        Ok(None) => Lease::new(servers),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "lease of the earlier agent is not taken up");
            Lease::new(servers)
        }
    }
}

/// Removes the file of an agent under which nothing runs, and its folder if that is empty. Blocking.
pub(super) fn give_up(path: &Path) {
    // Where the folder was a mount of ours, both are gone already.
    let _ = std::fs::remove_file(path);
    let _ = path.parent().map(std::fs::remove_dir);
}

impl Agent {
    /// Something happened to the lease.
    pub(super) fn on_lease(&mut self, event: LeaseEvent) {
        for effect in self.lease.on(event, lease::now_ms()) {
            match effect {
                LeaseEffect::Renew { sequence } => {
                    if let Some(out) = &self.out {
                        out.renew(sequence);
                    }
                }
                LeaseEffect::AskAll { round } => {
                    self.metrics.quorum_rounds.inc();
                    self.watches
                        .spawn(ask_all(self.servers.clone(), round, self.ask.clone()));
                }
                LeaseEffect::WriteDeadline(deadline) => self.write_deadline(deadline),
            }
        }
        self.mind_lease();
    }

    pub(super) fn on_answer(&mut self, answer: Answer) {
        let Answer { round, server, lost } = answer;
        self.on_lease(LeaseEvent::Quorum { round, server, lost });
    }

    /// Tells the node whether its lease stands at this moment. To be called before everything that
    /// may lead to a launch.
    pub(super) fn mind_lease(&mut self) {
        let valid = self.lease.is_valid(lease::now_ms());
        if std::mem::replace(&mut self.lease_valid, valid) != valid {
            if valid {
                tracing::info!("lease is confirmed, steps may start");
            } else {
                tracing::warn!("lease has ended: no step starts before a server confirms it, running ones were killed");
            }
        }
        let acts = self.node.on_lease(valid, now_ms());
        self.perform(acts);
    }

    /// Until the lease wants something.
    pub(super) fn next_lease_tick(&self) -> Option<Duration> {
        let now = lease::now_ms();
        let due = self.lease.due_ms(now)?;
        Some(Duration::from_millis(due.saturating_sub(now)))
    }

    /// Writes at once, not in a task: a launch that follows must find the new deadline. The file
    /// lies in memory, so this takes no longer than a message.
    fn write_deadline(&self, deadline: node_agent::Deadline) {
        let node_agent::Deadline { at_ms, lease_ms } = deadline;
        self.metrics.lease.set(at_ms);
        if let Err(error) = (Deadline { at_ms, lease_ms }).write(&self.lease_path) {
            let path = self.lease_path.display();
            tracing::error!(%path, %error, "deadline cannot be written: steps end at the one that stands there");
        }
    }
}
