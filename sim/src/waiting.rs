//! What everything waits for, in words, when the end of a history does not come.
//!
//! One line for each run, step, server, node and allocation that is not done, and for each kind of
//! event to come. Not here: what has happened ([`crate::trace`]).

use crate::world::World;
use model::{StepStatus, key};
use std::collections::BTreeMap;

/// The most lines about the keys of one prefix.
const KEYS_MAX: usize = 10;

impl World {
    pub(crate) fn what_waits(&mut self) -> String {
        let mut lines = vec![String::new()];
        self.runs_that_wait(&mut lines);
        self.servers_that_wait(&mut lines);
        self.machines_that_wait(&mut lines);
        self.keys_that_are_left(&mut lines);
        let mut to_come: BTreeMap<String, usize> = BTreeMap::new();
        for event in self.agenda.to_come() {
            *to_come.entry(event.kind()).or_default() += 1;
        }
        let to_come = to_come.iter().map(|(kind, count)| format!("{count} × {kind}"));
        lines.push(format!("to come: {}", to_come.collect::<Vec<_>>().join(", ")));
        lines.join("\n")
    }

    fn runs_that_wait(&mut self, lines: &mut Vec<String>) {
        let leader = self.servers.iter().position(|s| s.up && s.scheduler.leads.is_some());
        for planned in &self.runs {
            let run = &planned.header.id;
            lines.push(format!("{run}: {}", self.picture.words(run)));
            for step in 0..planned.def.steps.len() {
                let record = self.watcher.record(run, step);
                let status = record.map_or(StepStatus::Pending, |r| r.status);
                if status.is_terminal() {
                    continue;
                }
                let why = leader.and_then(|which| {
                    let cluster = &mut self.servers[which].scheduler.cluster;
                    cluster.explain(run, step, self.agenda.now_ms()).map(|w| w.sentence)
                });
                let why = why.unwrap_or_else(|| "nobody leads who could explain it".to_owned());
                let alloc = record.and_then(|r| r.alloc.as_ref()).map(|a| format!(" as {a}"));
                let alloc = alloc.unwrap_or_default();
                lines.push(format!("  step {step} is {}{alloc}: {why}", status.as_str()));
            }
        }
    }

    fn servers_that_wait(&self, lines: &mut Vec<String>) {
        let now_ms = self.agenda.now_ms();
        for (which, server) in self.servers.iter().enumerate() {
            let state = match (server.up, server.paused_until_ms.checked_sub(now_ms)) {
                (false, _) => "is down".to_owned(),
                (true, Some(ms)) if ms > 0 => format!("is paused for {ms} ms more"),
                (true, _) if !self.network.store(which) => "does not reach the store".to_owned(),
                (true, _) => "is up".to_owned(),
            };
            let leads = if server.scheduler.leads.is_some() {
                ", leads"
            } else {
                ""
            };
            let streams = server.sessions.iter();
            let streams: Vec<String> = streams.map(|(m, s)| format!("n{m} (stream {})", s.number)).collect();
            lines.push(format!("s{which}: {state}{leads}, holds {streams:?}"));
            let more = server.hub.words().chain(server.archive.words());
            lines.extend(more.map(|words| format!("  {words}")));
        }
    }

    fn machines_that_wait(&self, lines: &mut Vec<String>) {
        for (which, machine) in self.machines.iter().enumerate() {
            let Some(agent) = &machine.agent else {
                lines.push(format!("n{which}: no agent runs"));
                continue;
            };
            let stream = match agent.link {
                None => "no stream".to_owned(),
                Some(link) if link.welcome => format!("stream {} to s{}", link.number, link.server),
                Some(link) => format!("stream {} to s{}, which has not answered", link.number, link.server),
            };
            let alive: Vec<&str> = machine.alive().map(model::AllocId::as_str).collect();
            lines.push(format!("n{which}: {stream}, alive are {alive:?}"));
            for life in agent.node.lives().filter(|l| !l.is_tombstone()) {
                let log = agent.ships.get(life.alloc());
                let log = log.map_or_else(|| "its log is not on its way".to_owned(), |log| format!("{log:?}"));
                lines.push(format!("  {} is {}; {log}", life.alloc(), life.state_name()));
            }
        }
    }

    fn keys_that_are_left(&self, lines: &mut Vec<String>) {
        for prefix in [
            key::ALLOCS,
            key::OBSERVED,
            key::REQUESTS,
            key::SESSIONS,
            key::ELIGIBILITIES,
            key::ARCHIVE_OUTBOX,
        ] {
            let page = self.store.range(prefix, None, KEYS_MAX).expect("legal");
            let entries = page.entries.iter();
            lines.extend(entries.map(|e| format!("{} {}", e.key, String::from_utf8_lossy(&e.value))));
        }
    }
}
