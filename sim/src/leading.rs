//! The scheduler of a server: the real core, a campaign for the leader's key, watches that are late,
//! out of step with each other and repeat themselves, commits whose answers may be lost.
//!
//! Not here: the server's streams to nodes ([`crate::server`]).

use crate::lie::Lie;
use crate::message::{Event, SchedulerEvent};
use crate::world::World;
use model::record::Unknown;
use model::{ClusterVersion, Leader, key};
use rand::Rng;
use scheduler::{Cluster, Ticket, Verified};
use store::{Commit, Expect, Guard, LeaseId, Revision, Txn, WatchEvent, Write};

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

pub(crate) const ELECTION_TTL_MS: u64 = 2_000;
const RENEW_MS: u64 = 500;
const CAMPAIGN_MS: u64 = 300;
const PERIOD_MS: u64 = 1_000;
/// How long a scheduler waits for an answer before it takes the outcome for unknown.
const ANSWER_MS: u64 = 400;
/// When a server that cannot reach the store tries again.
const RETRY_MS: u64 = 300;
/// The most commits of one scheduler that are on their way at once. The shell has one; the core
/// must bear more.
const COMMITS_MAX: usize = 2;

/// The scheduler of one server.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    /// Grows when the view is built anew.
    view: u64,
    /// The view could not be read yet.
    blind: bool,
    pub(crate) cluster: Cluster,
    cursors: [Revision; PREFIXES.len()],
    awaited: [bool; PREFIXES.len()],
    pub(crate) lease: Option<LeaseId>,
    /// By the server's steady clock, when the lease was last renewed.
    renewed_ms: u64,
    pub(crate) leads: Option<Revision>,
    /// The revision of its own key under which it has read all orders.
    term: Option<Revision>,
    commits: usize,
}

impl Scheduler {
    /// The process is gone; whatever is on its way to it falls on deaf ears.
    pub(crate) fn crash(&mut self) {
        self.view += 1;
        self.leads = None;
        self.lease = None;
    }
}

impl World {
    fn tell_scheduler(&mut self, which: usize, delay_ms: u64, what: SchedulerEvent) {
        let view = self.servers[which].scheduler.view;
        self.agenda.after(delay_ms, Event::Scheduler { which, view, what });
    }

    /// What this server's steady clock shows.
    pub(crate) fn steady_of(&self, which: usize) -> u64 {
        self.servers[which].clock.shows(self.agenda.now_ms())
    }

    /// Forgets the view and begins to read the store anew.
    pub(crate) fn build_view(&mut self, which: usize) {
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
        scheduler.commits = 0;
        scheduler.term = None;
        scheduler.blind = !reachable;
        if reachable {
            self.read_everything(which);
            self.tell_scheduler(which, 0, SchedulerEvent::Act);
        } else {
            self.tell_scheduler(which, RETRY_MS, SchedulerEvent::Rebuild);
        }
        if self.servers[which].scheduler.leads.is_some() {
            self.tell_scheduler(which, RENEW_MS, SchedulerEvent::KeepAlive);
            self.tell_scheduler(which, 0, SchedulerEvent::BeginTerm);
        } else {
            self.tell_scheduler(which, CAMPAIGN_MS, SchedulerEvent::Campaign);
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
        // The other events leave what the scheduler holds in its head as it is.
        let thinks = !matches!(what, SchedulerEvent::Campaign | SchedulerEvent::KeepAlive);
        match what {
            SchedulerEvent::Campaign => self.campaign(which),
            SchedulerEvent::KeepAlive => self.keep_alive(which),
            SchedulerEvent::Deliver { prefix } => self.deliver(which, prefix),
            SchedulerEvent::Act => self.act(which),
            SchedulerEvent::Answer(answers) => self.answered(which, answers),
            SchedulerEvent::AnswerLost => self.give_up_key(which),
            SchedulerEvent::BeginTerm => self.begin_term(which),
            SchedulerEvent::Rebuild => self.build_view(which),
        }
        if thinks {
            let checked = self.servers[which].scheduler.cluster.sanity_check();
            checked.unwrap_or_else(|breach| panic!("server {which}: {breach}"));
        }
    }

    fn campaign(&mut self, which: usize) {
        if self.servers[which].scheduler.leads.is_some() {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if !self.network.store(which) {
            return self.tell_scheduler(which, CAMPAIGN_MS, SchedulerEvent::Campaign);
        }
        self.store.expire(now_ms);
        if self.store.get(key::LEADER).expect("legal").is_some() {
            return self.tell_scheduler(which, CAMPAIGN_MS, SchedulerEvent::Campaign);
        }
        let asked_ms = self.steady_of(which);
        let lease = self.store.lease_grant(ELECTION_TTL_MS, now_ms).expect("legal");
        let leader = Leader {
            server: format!("s{which}"),
            unknown: Unknown::new(),
        };
        let claim = Txn::new()
            .expect(key::LEADER, Expect::Absent)
            .put_leased(key::LEADER, &leader, lease);
        let Commit::Applied(revision) = self.store.commit(claim, now_ms).expect("legal") else {
            panic!("the key was absent");
        };
        self.found_cluster();
        self.report.leaders += 1;
        let scheduler = &mut self.servers[which].scheduler;
        scheduler.leads = Some(revision);
        scheduler.lease = Some(lease);
        scheduler.renewed_ms = asked_ms;
        self.tell_scheduler(which, RENEW_MS, SchedulerEvent::KeepAlive);
        let delay = self.delay();
        self.tell_scheduler(which, delay, SchedulerEvent::BeginTerm);
        self.begin_archive(which, revision);
    }

    fn found_cluster(&mut self) {
        let version = ClusterVersion {
            format: 1,
            epoch: 1,
            unknown: Unknown::new(),
        };
        let found = Txn::new()
            .expect(key::CLUSTER_VERSION, Expect::Absent)
            .put(key::CLUSTER_VERSION, &version);
        self.store.commit(found, self.agenda.now_ms()).expect("legal");
    }

    /// Reads all orders once the key is held: those of the leader before may not have come by the
    /// watch yet, and what is free on a node follows from all of them.
    fn begin_term(&mut self, which: usize) {
        if self.servers[which].scheduler.leads.is_none() {
            return;
        }
        if !self.network.store(which) || self.servers[which].scheduler.blind {
            return self.tell_scheduler(which, RETRY_MS, SchedulerEvent::BeginTerm);
        }
        let steady_ms = self.steady_of(which);
        let page = self.store.range(key::ALLOCS, None, 1_000).expect("legal");
        let scheduler = &mut self.servers[which].scheduler;
        let orders = page.entries.iter();
        let orders = orders.map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
        let malformed = scheduler.cluster.on_all_orders(orders, page.revision.0);
        assert!(malformed.is_empty(), "records of ours: {malformed:?}");
        scheduler.cluster.begin_term(steady_ms);
        scheduler.term = scheduler.leads;
        self.tell_scheduler(which, 0, SchedulerEvent::Act);
    }

    /// A commit may still be on its way: without the key that it is guarded by it will be refused.
    fn give_up_key(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let reachable = self.network.store(which);
        let scheduler = &mut self.servers[which].scheduler;
        scheduler.leads = None;
        if let Some(lease) = scheduler.lease.take().filter(|_| reachable) {
            self.store.lease_revoke(lease, now_ms);
        }
        self.build_view(which);
    }

    fn keep_alive(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let steady_ms = self.steady_of(which);
        let reachable = self.network.store(which);
        let scheduler = &mut self.servers[which].scheduler;
        let Some(lease) = scheduler.lease.filter(|_| scheduler.leads.is_some()) else {
            return;
        };
        if reachable {
            if self.store.lease_keep_alive(lease, now_ms).is_err() {
                return self.step_down(which);
            }
            self.servers[which].scheduler.renewed_ms = steady_ms;
        } else if steady_ms >= scheduler.renewed_ms + ELECTION_TTL_MS {
            return self.step_down(which);
        }
        self.tell_scheduler(which, RENEW_MS, SchedulerEvent::KeepAlive);
    }

    fn step_down(&mut self, which: usize) {
        self.servers[which].scheduler.leads = None;
        self.tell_scheduler(which, CAMPAIGN_MS, SchedulerEvent::Campaign);
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
                return if scheduler.commits > 0 {
                    self.give_up_key(which)
                } else {
                    self.build_view(which)
                };
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

    fn act(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let steady_ms = self.steady_of(which);
        let scheduler = &mut self.servers[which].scheduler;
        let Some(leader) = scheduler
            .leads
            .filter(|l| scheduler.term == Some(*l) && scheduler.commits < COMMITS_MAX)
        else {
            return;
        };
        scheduler.cluster.tick(steady_ms);
        let plan = scheduler.cluster.plan(now_ms);
        let (verified, _) = scheduler.cluster.verify(&plan);
        if verified.is_empty() {
            return;
        }
        scheduler.commits += 1;
        let view = scheduler.view;
        let delay = self.rng.random_range(1..20);
        let commit = Event::Commit {
            which,
            view,
            leader,
            verified,
        };
        self.agenda.after(delay, commit);
    }

    /// The store gets a batch, whatever became of its sender.
    pub(crate) fn commit(&mut self, which: usize, view: u64, leader: Revision, verified: Vec<Verified>) {
        let now_ms = self.agenda.now_ms();
        let lost = self.faulty && self.rng.random_bool(0.03);
        let what = if !self.network.store(which) {
            // It never arrives; its sender cannot know that.
            SchedulerEvent::AnswerLost
        } else {
            let answers = self.apply(which, view, leader, verified, now_ms);
            if lost {
                self.report.lost_answers += 1;
                SchedulerEvent::AnswerLost
            } else {
                SchedulerEvent::Answer(answers)
            }
        };
        let delay = match what {
            SchedulerEvent::AnswerLost => ANSWER_MS,
            _ => self.rng.random_range(1..20),
        };
        self.agenda.after(delay, Event::Scheduler { which, view, what });
    }

    fn apply(
        &mut self,
        which: usize,
        view: u64,
        leader: Revision,
        verified: Vec<Verified>,
        now_ms: u64,
    ) -> Vec<(Ticket, Commit)> {
        let tickets: Vec<Ticket> = verified.iter().map(|v| v.ticket).collect();
        let own_key = Guard {
            key: key::LEADER.to_owned(),
            expect: Expect::Revision(leader),
        };
        let mut own_key = vec![own_key];
        let mut txns: Vec<Txn> = verified.into_iter().map(|v| txn(v.change)).collect();
        if self.lie == Some(Lie::CommitsUnguarded) {
            own_key.clear();
            txns.iter_mut().for_each(|txn| txn.guards.clear());
        }
        let commits = self.store.commit_batch(&own_key, txns, now_ms).expect("a legal batch");
        let sender_lives = self.servers[which].scheduler.view == view;
        if !sender_lives && commits.iter().any(Commit::is_applied) {
            self.report.commits_of_the_dead += 1;
        }
        tickets.into_iter().zip(commits).collect()
    }

    fn answered(&mut self, which: usize, answers: Vec<(Ticket, Commit)>) {
        self.servers[which].scheduler.commits -= 1;
        let mut deposed = false;
        let mut refused = Vec::new();
        for (ticket, commit) in answers {
            let cluster = &mut self.servers[which].scheduler.cluster;
            match commit {
                Commit::Applied(revision) => drop(cluster.confirm(ticket, revision.0)),
                Commit::Refused { guard, .. } => {
                    cluster.refuse(ticket);
                    deposed |= guard.key == key::LEADER;
                    refused.push(guard.key);
                }
            }
        }
        if deposed {
            self.report.deposed += 1;
            return self.step_down(which);
        }
        self.report.refused += refused.len();
        if !refused.is_empty() && !self.network.store(which) {
            return self.give_up_key(which);
        }
        for key in refused {
            let page = self.store.range(&key, None, 1).expect("legal");
            let entry = page.entries.first().filter(|e| e.key == key);
            let (value, revision) = entry.map_or((None, page.revision), |e| (Some(&*e.value), e.mod_revision));
            let taken = self.servers[which].scheduler.cluster.on_change(&key, value, revision.0);
            taken.expect("a record of ours");
        }
        self.tell_scheduler(which, 0, SchedulerEvent::Act);
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

fn txn(change: scheduler::Change) -> Txn {
    let guards = change.guards.into_iter().map(|(key, expect)| Guard {
        key,
        expect: match expect {
            scheduler::Expect::Absent => Expect::Absent,
            scheduler::Expect::Present => Expect::Present,
            scheduler::Expect::Revision(revision) => Expect::Revision(Revision(revision)),
        },
    });
    let writes = change.writes.into_iter().map(|write| match write {
        scheduler::Write::Put { key, value } => Write::Put {
            key,
            value,
            lease: None,
        },
        scheduler::Write::Delete { key } => Write::Delete { key },
    });
    Txn {
        guards: guards.collect(),
        writes: writes.collect(),
    }
}
