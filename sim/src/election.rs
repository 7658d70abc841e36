//! The campaign of a server for the leader's key: it goes on whatever becomes of the scheduler's view.
//!
//! Not here: what a leader does ([`crate::leading`]).

use crate::lie::Lie;
use crate::message::{ElectionEvent, Event, SchedulerEvent};
use crate::world::World;
use model::record::Unknown;
use model::{ClusterVersion, Leader, key};
use rand::Rng;
use scheduler::term::Term;
use store::{Commit, Expect, LeaseId, Txn};

pub(crate) const ELECTION_TTL_MS: u64 = 2_000;
const RENEW_MS: u64 = 500;
const CAMPAIGN_MS: u64 = 300;
/// How long it takes until a key is given back, longer than a view takes to be built anew.
const GIVE_UP_MS: u64 = 200;

impl World {
    pub(crate) fn tell_election(&mut self, which: usize, delay_ms: u64, what: ElectionEvent) {
        let life = self.servers[which].life;
        self.agenda.after(delay_ms, Event::Election { which, life, what });
    }

    pub(crate) fn on_election(&mut self, which: usize, life: u64, what: ElectionEvent) {
        let server = &self.servers[which];
        if !server.up || server.life != life {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if server.paused_until_ms > now_ms {
            let delay = server.paused_until_ms - now_ms;
            return self.agenda.after(delay, Event::Election { which, life, what });
        }
        match what {
            ElectionEvent::Campaign => self.campaign(which),
            ElectionEvent::KeepAlive(lease) => self.keep_alive(which, lease),
            ElectionEvent::GiveUp(key) => self.give_back(which, key),
        }
    }

    fn campaign(&mut self, which: usize) {
        if self.servers[which].scheduler.leads.is_some() {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if !self.network.store(which) {
            return self.tell_election(which, CAMPAIGN_MS, ElectionEvent::Campaign);
        }
        self.store.expire(now_ms);
        if self.store.get(key::LEADER).expect("legal").is_some() {
            return self.tell_election(which, CAMPAIGN_MS, ElectionEvent::Campaign);
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
        self.tell_election(which, RENEW_MS, ElectionEvent::KeepAlive(lease));
        let delay = self.delay();
        self.tell_scheduler(which, delay, SchedulerEvent::Act);
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

    fn keep_alive(&mut self, which: usize, lease: LeaseId) {
        let now_ms = self.agenda.now_ms();
        let steady_ms = self.steady_of(which);
        let reachable = self.network.store(which);
        let scheduler = &mut self.servers[which].scheduler;
        if scheduler.lease != Some(lease) {
            return;
        }
        if reachable {
            if self.store.lease_keep_alive(lease, now_ms).is_err() {
                return self.step_down(which);
            }
            self.servers[which].scheduler.renewed_ms = steady_ms;
        } else if steady_ms >= scheduler.renewed_ms + ELECTION_TTL_MS {
            return self.step_down(which);
        }
        self.tell_election(which, RENEW_MS, ElectionEvent::KeepAlive(lease));
    }

    fn step_down(&mut self, which: usize) {
        let scheduler = &mut self.servers[which].scheduler;
        (scheduler.leads, scheduler.lease) = (None, None);
        self.tell_election(which, CAMPAIGN_MS, ElectionEvent::Campaign);
    }

    /// The key of this revision is of no use any more, as the rules of the term have it; the election
    /// hears of it a moment later.
    pub(crate) fn give_up_key(&mut self, which: usize, key: Option<u64>) {
        let Some(key) = key else { return };
        if self.lie == Some(Lie::GoesOnAfterDrop) {
            self.servers[which].scheduler.term = Term::default();
            return;
        }
        let delay = self.rng.random_range(0..GIVE_UP_MS);
        self.tell_election(which, delay, ElectionEvent::GiveUp(key));
    }

    /// A batch may still be on its way: without the key that it is guarded by it will be refused. A key
    /// that cannot be given back goes with its lease.
    fn give_back(&mut self, which: usize, key: u64) {
        let scheduler = &self.servers[which].scheduler;
        if scheduler.leads.is_none_or(|leads| leads.0 != key) {
            return;
        }
        self.report.spent_terms += 1;
        if let Some(lease) = scheduler.lease.filter(|_| self.network.store(which)) {
            self.store.lease_revoke(lease, self.agenda.now_ms());
        }
        self.step_down(which);
    }
}
