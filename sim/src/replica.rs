//! A scheduler's process: the real core, a campaign for the leader's key, watches that are late,
//! out of step with each other and repeat themselves, commits whose answers may be lost.

use crate::message::{Event, ReplicaEvent};
use crate::world::World;
use model::record::Unknown;
use model::{ClusterVersion, Leader, key};
use rand::Rng;
use scheduler::{Cluster, Ticket, Verified};
use store::{Commit, Expect, Guard, LeaseId, Revision, Txn, WatchEvent, Write};

/// What a scheduler watches.
pub(crate) const PREFIXES: [&str; 7] = [
    key::CLUSTER_VERSION,
    key::NODES,
    key::SESSIONS,
    key::RUNS,
    key::ALLOCS,
    key::OBSERVED,
    key::REQUESTS,
];

const ELECTION_TTL_MS: u64 = 2_000;
const RENEW_MS: u64 = 500;
const CAMPAIGN_MS: u64 = 300;
const PERIOD_MS: u64 = 1_000;
/// How long a scheduler waits for an answer before it takes the outcome for unknown.
const ANSWER_MS: u64 = 400;
/// The most commits of one scheduler that are on their way at once. The shell has one; the core
/// must bear more.
const COMMITS_MAX: usize = 2;

/// One scheduler.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    /// Grows when the process is started or its view is built anew.
    pub(crate) life: u64,
    pub(crate) up: bool,
    pub(crate) paused_until_ms: u64,
    pub(crate) cluster: Cluster,
    cursors: [Revision; PREFIXES.len()],
    awaited: [bool; PREFIXES.len()],
    lease: Option<LeaseId>,
    pub(crate) leads: Option<Revision>,
    /// The revision of its own key under which it has read all orders.
    term: Option<Revision>,
    commits: usize,
}

impl World {
    fn tell(&mut self, which: usize, delay_ms: u64, what: ReplicaEvent) {
        let life = self.replicas[which].life;
        self.agenda.after(delay_ms, Event::Replica { which, life, what });
    }

    pub(crate) fn start_replica(&mut self, which: usize) {
        let replica = &mut self.replicas[which];
        replica.up = true;
        replica.lease = None;
        replica.leads = None;
        self.build_view(which);
        let delay = self.rng.random_range(0..CAMPAIGN_MS);
        self.tell(which, delay, ReplicaEvent::Campaign);
    }

    pub(crate) fn crash_replica(&mut self, which: usize) {
        let replica = &mut self.replicas[which];
        replica.up = false;
        replica.life += 1;
        replica.leads = None;
        let delay = self.rng.random_range(0..5_000);
        self.agenda.after(delay, Event::StartReplica { which });
    }

    /// Forgets the view and begins to read the store anew.
    fn build_view(&mut self, which: usize) {
        let (leads, lease) = (self.replicas[which].leads, self.replicas[which].lease);
        let replica = &mut self.replicas[which];
        replica.life += 1;
        replica.cluster = Cluster::new();
        replica.awaited = [false; PREFIXES.len()];
        replica.commits = 0;
        replica.term = None;
        for (n, prefix) in PREFIXES.iter().enumerate() {
            let page = self.store.range(prefix, None, 1_000).expect("legal");
            assert!(!page.more, "the simulated store fits one page");
            for entry in &page.entries {
                let taken = replica
                    .cluster
                    .on_change(&entry.key, Some(&entry.value), entry.mod_revision.0);
                taken.expect("a record of ours");
            }
            replica.cursors[n] = page.revision;
        }
        (replica.leads, replica.lease) = (leads, lease);
        if leads.is_some() {
            self.tell(which, RENEW_MS, ReplicaEvent::KeepAlive);
            self.tell(which, 0, ReplicaEvent::BeginTerm);
        } else {
            self.tell(which, CAMPAIGN_MS, ReplicaEvent::Campaign);
        }
        self.tell(which, 0, ReplicaEvent::Act);
    }

    /// The store has changed: every watch of these keys will hear of it, some time.
    pub(crate) fn announce(&mut self, changed: &[bool; PREFIXES.len()]) {
        for which in 0..self.replicas.len() {
            for (prefix, _) in changed.iter().enumerate().filter(|(_, changed)| **changed) {
                let replica = &mut self.replicas[which];
                if replica.up && !std::mem::replace(&mut replica.awaited[prefix], true) {
                    let delay = self.delay();
                    self.tell(which, delay, ReplicaEvent::Deliver { prefix });
                }
            }
        }
    }

    pub(crate) fn on_replica(&mut self, which: usize, life: u64, what: ReplicaEvent) {
        let replica = &self.replicas[which];
        if !replica.up || replica.life != life {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if replica.paused_until_ms > now_ms {
            // Everything that is meant for it waits until it wakes up.
            let delay = replica.paused_until_ms - now_ms;
            self.agenda.after(delay, Event::Replica { which, life, what });
            return;
        }
        match what {
            ReplicaEvent::Campaign => self.campaign(which),
            ReplicaEvent::KeepAlive => self.keep_alive(which),
            ReplicaEvent::Deliver { prefix } => self.deliver(which, prefix),
            ReplicaEvent::Act => self.act(which),
            ReplicaEvent::Answer(answers) => self.answered(which, answers),
            ReplicaEvent::AnswerLost => self.give_up_key(which),
            ReplicaEvent::BeginTerm => self.begin_term(which),
        }
        let checked = self.replicas[which].cluster.sanity_check();
        checked.unwrap_or_else(|breach| panic!("replica {which}: {breach}"));
    }

    fn campaign(&mut self, which: usize) {
        if self.replicas[which].leads.is_some() {
            return;
        }
        let now_ms = self.agenda.now_ms();
        self.store.expire(now_ms);
        if self.store.get(key::LEADER).expect("legal").is_some() {
            return self.tell(which, CAMPAIGN_MS, ReplicaEvent::Campaign);
        }
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
        let version = ClusterVersion {
            format: 1,
            epoch: 1,
            unknown: Unknown::new(),
        };
        let found = Txn::new()
            .expect(key::CLUSTER_VERSION, Expect::Absent)
            .put(key::CLUSTER_VERSION, &version);
        self.store.commit(found, now_ms).expect("legal");
        self.report.leaders += 1;
        let replica = &mut self.replicas[which];
        replica.leads = Some(revision);
        replica.lease = Some(lease);
        self.tell(which, RENEW_MS, ReplicaEvent::KeepAlive);
        let delay = self.delay();
        self.tell(which, delay, ReplicaEvent::BeginTerm);
    }

    /// Reads all orders once the key is held: those of the leader before may not have come by the
    /// watch yet, and what is free on a node follows from all of them.
    fn begin_term(&mut self, which: usize) {
        let page = self.store.range(key::ALLOCS, None, 1_000).expect("legal");
        let replica = &mut self.replicas[which];
        let orders = page.entries.iter();
        let orders = orders.map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
        let malformed = replica.cluster.on_all_orders(orders, page.revision.0);
        assert!(malformed.is_empty(), "records of ours: {malformed:?}");
        replica.term = replica.leads;
        self.tell(which, 0, ReplicaEvent::Act);
    }

    /// A commit may still be on its way: without the key that it is guarded by it will be refused.
    fn give_up_key(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let replica = &mut self.replicas[which];
        replica.leads = None;
        if let Some(lease) = replica.lease.take() {
            self.store.lease_revoke(lease, now_ms);
        }
        self.build_view(which);
    }

    fn keep_alive(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let Some(lease) = self.replicas[which]
            .lease
            .filter(|_| self.replicas[which].leads.is_some())
        else {
            return;
        };
        if self.store.lease_keep_alive(lease, now_ms).is_err() {
            return self.step_down(which);
        }
        self.tell(which, RENEW_MS, ReplicaEvent::KeepAlive);
    }

    fn step_down(&mut self, which: usize) {
        self.replicas[which].leads = None;
        self.tell(which, CAMPAIGN_MS, ReplicaEvent::Campaign);
    }

    fn deliver(&mut self, which: usize, prefix: usize) {
        let replica = &mut self.replicas[which];
        replica.awaited[prefix] = false;
        let events = self.store.changes_since(replica.cursors[prefix], PREFIXES[prefix]);
        if events.is_empty() {
            return;
        }
        let count = self.rng.random_range(1..=events.len());
        let last = events.len() - count;
        let before = replica.cursors[prefix];
        for event in events.into_iter().take(count) {
            let WatchEvent::Changes(changes) = event else {
                self.report.resyncs += 1;
                return if replica.commits > 0 {
                    self.give_up_key(which)
                } else {
                    self.build_view(which)
                };
            };
            for change in changes {
                replica.cursors[prefix] = change.revision;
                let taken = replica
                    .cluster
                    .on_change(&change.key, change.value.as_deref(), change.revision.0);
                taken.expect("a record of ours");
            }
        }
        if self.faulty && self.rng.random_bool(0.1) {
            // All of it comes once more.
            replica.cursors[prefix] = before;
        }
        if last > 0 || replica.cursors[prefix] == before {
            replica.awaited[prefix] = true;
            let delay = self.delay();
            self.tell(which, delay, ReplicaEvent::Deliver { prefix });
        }
        self.act(which);
    }

    fn act(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let replica = &mut self.replicas[which];
        let Some(leader) = replica
            .leads
            .filter(|l| replica.term == Some(*l) && replica.commits < COMMITS_MAX)
        else {
            return;
        };
        let plan = replica.cluster.plan(now_ms);
        let (verified, _) = replica.cluster.verify(&plan);
        if verified.is_empty() {
            return;
        }
        replica.commits += 1;
        let life = replica.life;
        let delay = self.rng.random_range(1..20);
        let commit = Event::Commit {
            which,
            life,
            leader,
            verified,
        };
        self.agenda.after(delay, commit);
    }

    /// The store gets a batch, whatever became of its sender.
    pub(crate) fn commit(&mut self, which: usize, life: u64, leader: Revision, verified: Vec<Verified>) {
        let now_ms = self.agenda.now_ms();
        let tickets: Vec<Ticket> = verified.iter().map(|v| v.ticket).collect();
        let own_key = Guard {
            key: key::LEADER.to_owned(),
            expect: Expect::Revision(leader),
        };
        let txns = verified.into_iter().map(|v| txn(v.change)).collect();
        let commits = self
            .store
            .commit_batch(&[own_key], txns, now_ms)
            .expect("a legal batch");
        let sender_lives = self.replicas[which].life == life;
        if !sender_lives && commits.iter().any(Commit::is_applied) {
            self.report.commits_of_the_dead += 1;
        }
        let lost = self.faulty && self.rng.random_bool(0.03);
        let what = if lost {
            self.report.lost_answers += 1;
            ReplicaEvent::AnswerLost
        } else {
            ReplicaEvent::Answer(tickets.into_iter().zip(commits).collect())
        };
        let delay = if lost { ANSWER_MS } else { self.rng.random_range(1..20) };
        self.agenda.after(delay, Event::Replica { which, life, what });
    }

    fn answered(&mut self, which: usize, answers: Vec<(Ticket, Commit)>) {
        self.replicas[which].commits -= 1;
        let mut deposed = false;
        let mut refused = Vec::new();
        for (ticket, commit) in answers {
            let cluster = &mut self.replicas[which].cluster;
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
        for key in refused {
            self.report.refused += 1;
            let page = self.store.range(&key, None, 1).expect("legal");
            let entry = page.entries.first().filter(|e| e.key == key);
            let (value, revision) = entry.map_or((None, page.revision), |e| (Some(&*e.value), e.mod_revision));
            let taken = self.replicas[which].cluster.on_change(&key, value, revision.0);
            taken.expect("a record of ours");
        }
        self.tell(which, 0, ReplicaEvent::Act);
    }

    /// The loop's period: every scheduler looks at everything now and then.
    pub(crate) fn look_at_everything(&mut self) {
        for which in 0..self.replicas.len() {
            self.tell(which, 0, ReplicaEvent::Act);
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
