//! Decisions a second: a fleet at half load, each decision places one step and releases another.
//!
//! What is released is the step whose time is over, so nodes are as full and as long busy as in
//! life. Beside it a look at every node, in turns; time is what the core has worked, not what the
//! clock says, so that neighbours on the machine count little.

use super::fleet::{Fleet, NODE};
use crate::plot::Curve;
use crate::stats::Spread;
use crate::table::{Table, thousands};
use crate::workload::Workload;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use scheduler::fit::{Ask, Position, Room};
use scheduler::lasting::{Expected, class_of};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// How many kinds of nodes there are where labels are asked for.
const KINDS: u8 = 4;

/// How many nodes hold what a step needs, where locality counts.
const NEAR: usize = 3;

/// What a node near the step's files is spared, in the unit of the score: a tenth of a node.
const NEAR_SPARED: u64 = 10_000_000;

/// How long is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    rounds: usize,
    round: Duration,
}

impl Effort {
    pub(crate) const FULL: Self = Self {
        rounds: 9,
        round: Duration::from_millis(250),
    };
    #[cfg(test)]
    pub(crate) const SMALL: Self = Self {
        rounds: 2,
        round: Duration::from_millis(5),
    };
}

/// How a node is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By the scheduler's index, any node.
    Index,
    /// By the index, each step wants one of [`KINDS`] kinds and is near [`NEAR`] nodes.
    Labels,
    /// By a look at every node's room.
    EveryNode,
}

impl Way {
    const ALL: [Self; 3] = [Self::Index, Self::Labels, Self::EveryNode];

    fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Labels => "index, labels and locality",
            Self::EveryNode => "every node is looked at",
        }
    }
}

/// Decisions a second with one fleet.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    nodes: u32,
    way: Way,
    rate: Spread,
}

#[derive(Debug, Clone)]
struct Step {
    room: Room,
    lasts_ms: u64,
    kind: u8,
    near: Vec<(Position, u64)>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    ends_ms: u64,
    node: Position,
    room: Room,
    expected: Expected,
}

/// A fleet under load and what is asked of it next.
struct Bench {
    fleet: Fleet,
    steps: Vec<Step>,
    /// The one that ends next is on top.
    placed: BinaryHeap<Reverse<Placed>>,
    at: usize,
    way: Way,
    now_ms: u64,
}

impl Bench {
    fn new(work: &Workload, nodes: u32, way: Way) -> Self {
        let mut random = StdRng::seed_from_u64(11);
        let sizes = work.sizes_of_steps(11);
        let kinds = if way == Way::Labels { KINDS } else { 1 };
        let step = |random: &mut StdRng| {
            let run = work.runs[random.random_range(0..work.runs.len())];
            let size = sizes[run.step];
            let near =
                (0..if way == Way::Labels { NEAR } else { 0 }).map(|_| (random.random_range(0..nodes), NEAR_SPARED));
            Step {
                room: [size.cpu_millis, size.memory_bytes, 1 << 30, 1],
                near: near.collect(),
                lasts_ms: run.lasts_ms,
                kind: random.random_range(0..kinds),
            }
        };
        let steps: Vec<Step> = (0..1 << 15).map(|_| step(&mut random)).collect();
        let mut bench = Self {
            fleet: Fleet::new(nodes as usize, kinds),
            steps,
            placed: BinaryHeap::new(),
            at: 0,
            way,
            now_ms: 0,
        };
        bench.fill();
        bench
    }

    /// Places steps until half of the CPU is taken, then lets as many go and come as there are.
    fn fill(&mut self) {
        let mut left = self.fleet.len() as u64 * NODE[0] / 2;
        while left > 0 {
            let cpu = self.steps[self.at].room[0];
            if !self.place() {
                break;
            }
            left = left.saturating_sub(cpu);
        }
        for _ in 0..self.placed.len() {
            self.decide();
        }
    }

    fn place(&mut self) -> bool {
        let step = &self.steps[self.at];
        self.at = (self.at + 1) % self.steps.len();
        let now_ms = self.now_ms;
        let found = match self.way {
            Way::EveryNode => look_at_every_node(&self.fleet, &step.room),
            Way::Index | Way::Labels => {
                self.fleet.advance(now_ms);
                let ask = Ask {
                    kinds: 1 << step.kind,
                    near: &step.near,
                    ..Ask::any(step.room, class_of(step.lasts_ms))
                };
                self.fleet.best(&ask).map(|best| best.best.node)
            }
        };
        let Some(node) = found else { return false };
        let expected = Expected {
            began_ms: now_ms,
            lasts_ms: step.lasts_ms,
        };
        let room = step.room;
        self.fleet.place(node, &room, expected);
        let ends_ms = now_ms + step.lasts_ms;
        self.placed.push(Reverse(Placed {
            ends_ms,
            node,
            room,
            expected,
        }));
        true
    }

    /// One step goes, another comes.
    fn decide(&mut self) {
        self.release();
        self.place();
    }

    /// The step goes whose time is over next.
    fn release(&mut self) {
        let Some(Reverse(gone)) = self.placed.pop() else { return };
        self.now_ms = gone.ends_ms;
        self.fleet.release(gone.node, &gone.room, gone.expected);
    }

    /// Decisions a second over a while.
    fn rate(&mut self, during: Duration) -> f64 {
        let (begin, began) = (Instant::now(), worked());
        let mut decisions = 0_u32;
        loop {
            for _ in 0..64 {
                self.decide();
            }
            decisions += 64;
            if begin.elapsed() >= during {
                break;
            }
        }
        let worked = worked().zip(began).map(|(now, then)| now.saturating_sub(then));
        let time = worked.filter(|time| !time.is_zero()).unwrap_or(begin.elapsed());
        f64::from(decisions) / time.as_secs_f64()
    }
}

/// How long a core has worked for this thread; `None` where the system does not tell.
fn worked() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The busy node with the least CPU and memory left, an empty one if no busy one fits.
fn look_at_every_node(fleet: &Fleet, asked: &Room) -> Option<Position> {
    let positions = 0..fleet.len() as Position;
    let fitting = positions.filter(|n| fleet.room(*n).iter().zip(asked).all(|(room, asked)| room >= asked));
    fitting.min_by_key(|n| {
        let [cpu, memory, _, _] = fleet.room(*n);
        (
            fleet.room(*n) == NODE,
            cpu * (NODE[1] >> 20) + (memory >> 20) * NODE[0],
            *n,
        )
    })
}

pub(crate) fn measure(work: &Workload, nodes: &[u32], effort: &Effort) -> Vec<Measured> {
    let mut all = Vec::new();
    for count in nodes {
        let mut benches = Way::ALL.map(|way| (Bench::new(work, *count, way), Vec::new()));
        for _ in 0..effort.rounds {
            for (bench, rates) in &mut benches {
                rates.push(bench.rate(effort.round));
            }
        }
        all.extend(benches.map(|(bench, rates)| Measured {
            nodes: *count,
            way: bench.way,
            rate: Spread::of(&rates),
        }));
    }
    all
}

pub(crate) fn table(measured: &[Measured]) -> Table {
    let mut table = Table::with_heads(&[
        "decisions a second, one core, half load",
        "nodes",
        "median",
        "least",
        "most",
    ]);
    for way in Way::ALL {
        for m in measured.iter().filter(|m| m.way == way) {
            let rates = [m.rate.median, m.rate.least, m.rate.most].map(thousands);
            let mut row = vec![way.name().to_owned(), thousands(f64::from(m.nodes))];
            row.extend(rates);
            table.row(row);
        }
    }
    table
}

pub(crate) fn curves(measured: &[Measured]) -> Vec<Curve> {
    let curve = |way: Way| Curve {
        name: way.name().to_owned(),
        points: measured
            .iter()
            .filter(|m| m.way == way)
            .map(|m| (f64::from(m.nodes), m.rate.median))
            .collect(),
    };
    Way::ALL.map(curve).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_decides_and_the_load_stays() {
        let work = Workload::generated(2);
        for way in Way::ALL {
            let mut bench = Bench::new(&work, 50, way);
            for _ in 0..2_000 {
                bench.decide();
            }
            let free: u64 = (0..50).map(|n| bench.fleet.room(n)[0]).sum();
            let taken: u64 = bench.placed.iter().map(|Reverse(p)| p.room[0]).sum();
            assert_eq!(free + taken, 50 * NODE[0], "{way:?}");
            let share = taken as f64 / (50 * NODE[0]) as f64;
            assert!((0.3..0.75).contains(&share), "{way:?}: {share}");
        }
    }

    #[test]
    fn where_labels_are_asked_for_they_are_kept() {
        let work = Workload::generated(2);
        let mut bench = Bench::new(&work, 50, Way::Labels);
        for _ in 0..500 {
            let wanted = bench.steps[bench.at].kind;
            let room = |bench: &Bench| (0..50).map(|n| bench.fleet.room(n)[0]).collect::<Vec<_>>();
            let before = room(&bench);
            assert!(bench.place(), "there is room");
            let after = room(&bench);
            let node = (0..50).find(|n| before[*n] != after[*n]).expect("one has less");
            assert_eq!(bench.fleet.kind(node as Position), wanted);
            bench.release();
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_way_and_size() {
        let measured = measure(&Workload::generated(2), &[10, 30], &Effort::SMALL);
        assert_eq!(measured.len(), 6);
        assert!(
            measured
                .iter()
                .all(|m| m.rate.least > 0.0 && m.rate.least <= m.rate.most)
        );
        let mut text = Vec::new();
        table(&measured).print(&mut text).expect("written");
        assert_eq!(String::from_utf8(text).expect("text").lines().count(), 7);
    }
}
