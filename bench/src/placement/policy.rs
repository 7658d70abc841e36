//! The rules of other schedulers, each in a few lines, beside our own.
//!
//! Theirs see what they see there: free CPU and memory. Not here: when steps come and go
//! ([`super::packing`]).

use super::fleet::{Fleet, NODE};
use crate::workload::Size;
use model::{PipelineName, StepName, TeamName};
use rand::Rng;
use rand::rngs::StdRng;
use scheduler::estimate::{Durations, StepKey, UNKNOWN_MS};
use scheduler::fit::{Ask, Position, Room};
use scheduler::lasting::class_of;

/// Which rule places the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Nomad, batch: the better of two random feasible nodes.
    NomadBatch,
    /// Nomad, service: the best of log2(nodes) random feasible nodes.
    NomadService,
    /// Kubernetes with MostAllocated: the highest mean of the shares of CPU and memory in use.
    MostAllocated,
    /// Exact best fit: the least sum of the shares of CPU and memory left.
    BestFit,
    /// The least added fragmentation: room that is left and too small for steps of the workload.
    LeastFragmentation,
    /// The scheduler's index, when nothing is known of durations.
    WithoutDurations,
    /// The scheduler's index with durations estimated from earlier runs: what BuildFlow does.
    BuildFlow,
    /// The same with durations known beforehand: what better estimates could reach at most.
    Oracle,
}

impl Policy {
    pub(crate) const ALL: [Self; 8] = [
        Self::NomadBatch,
        Self::NomadService,
        Self::MostAllocated,
        Self::BestFit,
        Self::LeastFragmentation,
        Self::WithoutDurations,
        Self::BuildFlow,
        Self::Oracle,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NomadBatch => "Nomad batch",
            Self::NomadService => "Nomad service",
            Self::MostAllocated => "Kubernetes MostAllocated",
            Self::BestFit => "exact best fit",
            Self::LeastFragmentation => "least added fragmentation",
            Self::WithoutDurations => "BuildFlow, no durations",
            Self::BuildFlow => "BuildFlow",
            Self::Oracle => "BuildFlow, oracle",
        }
    }
}

/// A step that wants a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) step: usize,
    pub(crate) room: Room,
    pub(crate) lasts_ms: u64,
}

/// What the policies know beside the fleet.
#[derive(Debug)]
pub(crate) struct Knowledge {
    policy: Policy,
    random: StdRng,
    durations: Durations,
    keys: Vec<StepKey>,
    /// For each amount of free CPU in tenths of a core: how much of it is of no use to a step.
    fragments: Vec<f64>,
}

/// Free CPU in the unit of [`Knowledge::fragments`].
fn tenths(cpu_millis: u64) -> usize {
    (cpu_millis / 100) as usize
}

impl Knowledge {
    pub(crate) fn new(policy: Policy, sizes: &[Size], random: StdRng) -> Self {
        let fragment = |free: usize| {
            let larger = sizes.iter().filter(|s| tenths(s.cpu_millis) > free).count();
            free as f64 * larger as f64 / sizes.len().max(1) as f64
        };
        Self {
            policy,
            random,
            durations: Durations::default(),
            keys: (0..sizes.len()).filter_map(key).collect(),
            fragments: (0..=tenths(NODE[0])).map(fragment).collect(),
        }
    }

    /// How long the policy expects the step to last.
    pub(crate) fn expected_ms(&self, arrival: &Arrival) -> u64 {
        match self.policy {
            Policy::Oracle => arrival.lasts_ms,
            Policy::BuildFlow => self.durations.expected(self.keys[arrival.step]).unwrap_or(UNKNOWN_MS),
            _ => UNKNOWN_MS,
        }
    }

    /// A step has ended.
    pub(crate) fn learn(&mut self, arrival: &Arrival) {
        if self.policy == Policy::BuildFlow {
            self.durations.learn(self.keys[arrival.step], arrival.lasts_ms);
        }
    }

    /// The node for a step.
    pub(crate) fn choose(&mut self, fleet: &Fleet, arrival: &Arrival) -> Option<Position> {
        let asked = &arrival.room;
        match self.policy {
            Policy::NomadBatch => self.of_random(fleet, asked, 2),
            Policy::NomadService => self.of_random(fleet, asked, fleet.len().ilog2().max(1) as usize + 1),
            Policy::MostAllocated => {
                let first = self.random.random_range(0..fleet.len().max(1));
                least(fleet, asked, first, |room| left(room, asked))
            }
            Policy::BestFit => least(fleet, asked, 0, |room| left(room, asked)),
            Policy::LeastFragmentation => {
                let of = |cpu: u64| self.fragments[tenths(cpu)];
                // Ties go to the fuller node, an empty one comes last.
                least(fleet, asked, 0, |room| {
                    let empty = if *room == NODE { 1e6 } else { 0.0 };
                    of(room[0] - asked[0]) - of(room[0]) + left(room, asked) + empty
                })
            }
            Policy::WithoutDurations | Policy::BuildFlow | Policy::Oracle => {
                let ask = Ask::any(*asked, class_of(self.expected_ms(arrival)));
                fleet.best(&ask).map(|best| best.best.node)
            }
        }
    }

    /// The best of so many random feasible nodes by Nomad's score, 10 to the power of what is left.
    fn of_random(&mut self, fleet: &Fleet, asked: &Room, candidates: usize) -> Option<Position> {
        let count = fleet.len();
        // Walking on from a random node in steps that are coprime to the count meets each once.
        let mut stride = self.random.random_range(1..=count);
        while greatest_common_divisor(stride, count) != 1 {
            stride = stride % count + 1;
        }
        let first = self.random.random_range(0..count);
        let walk = (0..count).map(|n| ((first + n * stride) % count) as Position);
        let feasible = walk.filter(|n| fits(&fleet.room(*n), asked)).take(candidates);
        let scored = feasible.map(|n| {
            let room = fleet.room(n);
            (
                10_f64.powf(share(&room, asked, 0)) + 10_f64.powf(share(&room, asked, 1)),
                n,
            )
        });
        scored.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, node)| node)
    }
}

/// The node with the least cost; of several the first, counted from `first`.
fn least(fleet: &Fleet, asked: &Room, first: usize, cost: impl Fn(&Room) -> f64) -> Option<Position> {
    let positions = (first..fleet.len()).chain(0..first).map(|n| n as Position);
    let fitting = positions
        .map(|n| (n, fleet.room(n)))
        .filter(|(_, room)| fits(room, asked));
    let costs = fitting.map(|(n, room)| (cost(&room), n));
    let least = costs.reduce(|least, next| if next.0 < least.0 { next } else { least });
    least.map(|(_, node)| node)
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn key(step: usize) -> Option<StepKey> {
    let (team, pipeline) = (TeamName::new("bench").ok()?, PipelineName::new("bench").ok()?);
    Some(StepKey::of(&team, &pipeline, &StepName::new(format!("s{step}")).ok()?))
}

fn fits(room: &Room, asked: &Room) -> bool {
    room.iter().zip(asked).all(|(room, asked)| room >= asked)
}

/// The share of a resource that is left after the placement.
fn share(room: &Room, asked: &Room, resource: usize) -> f64 {
    (room[resource] - asked[resource]) as f64 / NODE[resource] as f64
}

fn left(room: &Room, asked: &Room) -> f64 {
    share(room, asked, 0) + share(room, asked, 1)
}
