//! The scheduler of a server: the real core over watches that are late, out of step with each other and
//! repeat themselves.
//!
//! Not here: its campaign for the leader's key ([`crate::election`]), its batches on their way to the
//! store ([`crate::committing`]), the server's streams to nodes ([`crate::server`]).

use crate::lie::Lie;
use crate::message::{Event, SchedulerEvent};
use crate::world::World;
use model::key;
use rand::Rng;
use scheduler::Cluster;
use scheduler::term::{May, Term};
use std::collections::BTreeSet;
use store::{LeaseId, Revision, WatchEvent};

/// What a scheduler watches.
pub(crate) const PREFIXES: [&str; 8] = [
    key::CLUSTER_VERSION,
    key::NODES,
    key::SESSIONS,
    key::ELIGIBILITIES,
    key::RUNS,
    key::ALLOCS,
    key::OBSERVED,
    key::REQUESTS,
];

const PERIOD_MS: u64 = 1_000;
/// When a server that cannot reach the store tries again.
const RETRY_MS: u64 = 300;

/// The scheduler of one server.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    /// Grows when the view is built anew.
    pub(crate) view: u64,
    /// The view could not be read yet.
    blind: bool,
    pub(crate) cluster: Cluster,
    cursors: [Revision; PREFIXES.len()],
    awaited: [bool; PREFIXES.len()],
    pub(crate) lease: Option<LeaseId>,
    /// By the server's steady clock, when the lease was last renewed.
    pub(crate) renewed_ms: u64,
    /// The revision of its own key while it believes that it holds it.
    pub(crate) leads: Option<Revision>,
    pub(crate) term: Term,
    /// Batches that have been sent, in all.
    pub(crate) sent: u64,
    /// Those of them whose answers this view waits for.
    pub(crate) awaits: BTreeSet<u64>,
    /// The store had no room for one of them: what is left is waited for, then the view is built anew.
    pub(crate) found_full: bool,
}

impl Scheduler {
    /// The process is gone; whatever is on its way to it falls on deaf ears.
    pub(crate) fn crash(&mut self) {
        *self = Self {
            view: self.view + 1,
            sent: self.sent,
            ..Self::default()
        };
    }
}

impl World {
    pub(crate) fn tell_scheduler(&mut self, which: usize, delay_ms: u64, what: SchedulerEvent) {
        let view = self.servers[which].scheduler.view;
        self.agenda.after(delay_ms, Event::Scheduler { which, view, what });
    }

    /// What this server's steady clock shows.
    pub(crate) fn steady_of(&self, which: usize) -> u64 {
        self.servers[which].clock.shows(self.agenda.now_ms())
    }

    /// Forgets the view, and with it what is on its way, and begins to read the store anew.
    pub(crate) fn build_view(&mut self, which: usize) {
        let spent = self.servers[which].scheduler.term.drop_view();
        self.give_up_key(which, spent);
        let reachable = self.network.store(which);
        let mut lease = self.lease_times();
        match self.lie {
            Some(Lie::ForgetsLeases) => lease.lease_ms = 0,
            Some(Lie::WaitsForNoGrace) => (lease.lease_ms, lease.grace_ms) = (0, 0),
            _ => {}
        }
        let scheduler = &mut self.servers[which].scheduler;
        scheduler.view += 1;
        scheduler.cluster = Cluster::with_lease(lease);
        scheduler.awaited = [false; PREFIXES.len()];
        scheduler.awaits.clear();
        scheduler.found_full = false;
        scheduler.blind = !reachable;
        if reachable {
            self.read_everything(which);
            self.tell_scheduler(which, 0, SchedulerEvent::Act);
        } else {
            self.tell_scheduler(which, RETRY_MS, SchedulerEvent::Rebuild);
        }
    }

    fn read_everything(&mut self, which: usize) {
        let scheduler = &mut self.servers[which].scheduler;
        for (n, prefix) in PREFIXES.iter().enumerate() {
            let page = self.store.range(prefix, None, 1_000).expect("legal");
            assert!(!page.more, "the simulated store fits one page");
            for entry in &page.entries {
                let taken = scheduler
                    .cluster
                    .on_change(&entry.key, Some(&entry.value), entry.mod_revision.0);
                taken.expect("a record of ours");
            }
            scheduler.cursors[n] = page.revision;
        }
    }

    /// The store has changed: every watch of these keys will hear of it, some time.
    pub(crate) fn announce(&mut self, changed: &[bool; PREFIXES.len()]) {
        for which in 0..self.servers.len() {
            for (prefix, _) in changed.iter().enumerate().filter(|(_, changed)| **changed) {
                let up = self.servers[which].up;
                let scheduler = &mut self.servers[which].scheduler;
                if up && !std::mem::replace(&mut scheduler.awaited[prefix], true) {
                    let lag = self.servers[which].lags_until_ms.saturating_sub(self.agenda.now_ms());
                    let delay = lag + self.delay();
                    self.tell_scheduler(which, delay, SchedulerEvent::Deliver { prefix });
                }
            }
        }
    }

    pub(crate) fn on_scheduler(&mut self, which: usize, view: u64, what: SchedulerEvent) {
        let server = &self.servers[which];
        if !server.up || server.scheduler.view != view {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if server.paused_until_ms > now_ms {
            // Everything that is meant for it waits until it wakes up.
            let delay = server.paused_until_ms - now_ms;
            self.agenda.after(delay, Event::Scheduler { which, view, what });
            return;
        }
        match what {
            SchedulerEvent::Deliver { prefix } => self.deliver(which, prefix),
            SchedulerEvent::Act => self.act(which),
            SchedulerEvent::Answer { batch, answers } => self.answered(which, batch, answers),
            SchedulerEvent::Full { batch } => self.found_full(which, batch),
            SchedulerEvent::Unheard { batch } => self.unheard(which, batch),
            SchedulerEvent::Rebuild => self.build_view(which),
        }
        let checked = self.servers[which].scheduler.cluster.sanity_check();
        checked.unwrap_or_else(|breach| panic!("server {which}: {breach}"));
    }

    fn act(&mut self, which: usize) {
        let scheduler = &self.servers[which].scheduler;
        if scheduler.blind || scheduler.found_full {
            return;
        }
        match scheduler.term.may(scheduler.leads.map(|key| key.0)) {
            May::Nothing => {}
            May::Begin(key) => self.begin_term(which, key),
            May::Commit(key) => self.send_batch(which, Revision(key)),
        }
    }

    /// Reads all orders once the key is held: those of the leader before may not have come by the
    /// watch yet, and what is free on a node follows from all of them.
    fn begin_term(&mut self, which: usize, key: u64) {
        if !self.network.store(which) {
            return self.build_view(which);
        }
        self.note(&format!("s{which}"), || "begins a term".to_owned());
        let steady_ms = self.steady_of(which);
        let page = self.store.range(key::ALLOCS, None, 1_000).expect("legal");
        let scheduler = &mut self.servers[which].scheduler;
        let orders = page.entries.iter();
        let orders = orders.map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
        let malformed = scheduler.cluster.on_all_orders(orders, page.revision.0);
        assert!(malformed.is_empty(), "records of ours: {malformed:?}");
        let wanted = self.store.range(key::ELIGIBILITIES, None, 1_000).expect("legal");
        for entry in wanted.entries {
            let taken = scheduler
                .cluster
                .on_change(&entry.key, Some(&entry.value), entry.mod_revision.0);
            taken.expect("a record of ours");
        }
        let began_ms = scheduler.term.begin(key, steady_ms);
        scheduler.cluster.begin_term(began_ms);
        self.tell_scheduler(which, 0, SchedulerEvent::Act);
    }

    fn deliver(&mut self, which: usize, prefix: usize) {
        if !self.network.store(which) {
            return self.tell_scheduler(which, RETRY_MS, SchedulerEvent::Deliver { prefix });
        }
        let scheduler = &mut self.servers[which].scheduler;
        scheduler.awaited[prefix] = false;
        if scheduler.blind {
            return;
        }
        let events = self.store.changes_since(scheduler.cursors[prefix], PREFIXES[prefix]);
        if events.is_empty() {
            return;
        }
        let count = self.rng.random_range(1..=events.len());
        let last = events.len() - count;
        let before = scheduler.cursors[prefix];
        for event in events.into_iter().take(count) {
            let WatchEvent::Changes(changes) = event else {
                self.report.resyncs += 1;
                return self.build_view(which);
            };
            for change in changes {
                scheduler.cursors[prefix] = change.revision;
                let taken = scheduler
                    .cluster
                    .on_change(&change.key, change.value.as_deref(), change.revision.0);
                taken.expect("a record of ours");
            }
        }
        if self.faulty && self.rng.random_bool(0.1) {
            // All of it comes once more.
            scheduler.cursors[prefix] = before;
        }
        if last > 0 || scheduler.cursors[prefix] == before {
            scheduler.awaited[prefix] = true;
            let delay = self.delay();
            self.tell_scheduler(which, delay, SchedulerEvent::Deliver { prefix });
        }
        self.act(which);
    }

    /// The loop's period: every scheduler looks at everything now and then.
    pub(crate) fn look_at_everything(&mut self) {
        for which in 0..self.servers.len() {
            self.tell_scheduler(which, 0, SchedulerEvent::Act);
        }
    }

    pub(crate) fn period_ms() -> u64 {
        PERIOD_MS
    }
}
