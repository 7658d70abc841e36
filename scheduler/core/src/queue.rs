//! Who is next: ready steps of all teams, the team with the smallest dominant share first, within
//! a team by age.
//!
//! Steps of one shape stand in one line, so a shape for which there is no room costs one look,
//! however many steps wait with it. Not here: what a share is made of ([`Shares`] is told) and
//! where a step fits.

use crate::shape::Shape;
use model::{Resources, RunId, TeamName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A share of the whole cluster is counted in billionths.
const SHARE_SCALE: u128 = 1_000_000_000;

/// The weight of a team that has no other.
const WEIGHT_DEFAULT: u128 = 1;

/// A ready step in the order of age: run created, run, ordinal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    pub(crate) created_ms: u64,
    pub(crate) run: Arc<RunId>,
    pub(crate) step: usize,
}

/// The ready steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Queue {
    teams: BTreeMap<TeamName, BTreeMap<Arc<Shape>, BTreeSet<Age>>>,
    len: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, team: &TeamName, shape: &Arc<Shape>, age: Age) {
        if !self.teams.contains_key(team) {
            self.teams.insert(team.clone(), BTreeMap::new());
        }
        let line = self
            .teams
            .get_mut(team)
            .map(|t| t.entry(Arc::clone(shape)).or_default());
        if line.is_some_and(|l| l.insert(age)) {
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, team: &TeamName, shape: &Arc<Shape>, age: &Age) {
        let Some(shapes) = self.teams.get_mut(team) else { return };
        let Some(line) = shapes.get_mut(shape) else { return };
        if line.remove(age) {
            self.len -= 1;
        }
        if line.is_empty() {
            shapes.remove(shape);
        }
        if shapes.is_empty() {
            self.teams.remove(team);
        }
    }

    /// How many steps of the same team are older.
    pub(crate) fn older(&self, team: &TeamName, age: &Age) -> usize {
        let lines = self.teams.get(team).into_iter().flat_map(BTreeMap::values);
        lines.map(|line| line.range(..age).count()).sum()
    }

    fn head(&self, team: &TeamName, shape: &Arc<Shape>) -> Option<&Age> {
        self.teams.get(team)?.get(shape)?.first()
    }
}

/// What each team holds of the cluster, and so who is served next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shares {
    held: BTreeMap<TeamName, Resources>,
}

impl Shares {
    pub(crate) fn add(&mut self, team: &TeamName, resources: &Resources) {
        let held = self.held.get(team).copied().unwrap_or_default();
        let sum = Resources {
            cpu_millis: held.cpu_millis.saturating_add(resources.cpu_millis),
            memory_bytes: held.memory_bytes.saturating_add(resources.memory_bytes),
            disk_bytes: held.disk_bytes.saturating_add(resources.disk_bytes),
        };
        self.held.insert(team.clone(), sum);
    }

    pub(crate) fn subtract(&mut self, team: &TeamName, resources: &Resources) {
        let held = self.held.get(team).copied().unwrap_or_default();
        let rest = Resources {
            cpu_millis: held.cpu_millis.saturating_sub(resources.cpu_millis),
            memory_bytes: held.memory_bytes.saturating_sub(resources.memory_bytes),
            disk_bytes: held.disk_bytes.saturating_sub(resources.disk_bytes),
        };
        if rest == Resources::default() {
            self.held.remove(team);
        } else {
            self.held.insert(team.clone(), rest);
        }
    }

    pub(crate) fn held(&self) -> &BTreeMap<TeamName, Resources> {
        &self.held
    }

    /// The team's largest share of any resource, divided by its weight, in billionths.
    pub(crate) fn dominant(&self, team: &TeamName, total: &Resources) -> u64 {
        let held = self.held.get(team).copied().unwrap_or_default();
        let parts = [
            (held.cpu_millis, total.cpu_millis),
            (held.memory_bytes, total.memory_bytes),
            (held.disk_bytes, total.disk_bytes),
        ];
        let share = |(held, total): (u64, u64)| u128::from(held) * SHARE_SCALE / u128::from(total.max(1));
        let largest = parts.into_iter().map(share).max().unwrap_or(0);
        u64::try_from(largest / WEIGHT_DEFAULT).unwrap_or(u64::MAX)
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) team: TeamName,
    pub(crate) shape: Arc<Shape>,
    pub(crate) age: Age,
}

/// One walk through the queue while placements change the shares.
#[derive(Debug)]
pub(crate) struct Line {
    /// Share, oldest step, team: the first is served next.
    teams: BTreeSet<(u64, Age, TeamName)>,
    /// The oldest step of each shape.
    heads: BTreeMap<TeamName, BTreeMap<Age, Arc<Shape>>>,
    /// Shapes for which there is no room; none asks at least what another one asks.
    blocked: Vec<Arc<Shape>>,
}

impl Line {
    pub(crate) fn new(queue: &Queue, share: impl Fn(&TeamName) -> u64) -> Self {
        let mut line = Self {
            teams: BTreeSet::new(),
            heads: BTreeMap::new(),
            blocked: Vec::new(),
        };
        for (team, shapes) in &queue.teams {
            let heads = shapes
                .iter()
                .filter_map(|(s, l)| Some((l.first()?.clone(), Arc::clone(s))));
            line.heads.insert(team.clone(), heads.collect());
            line.line_up(team.clone(), share(team));
        }
        line
    }

    fn line_up(&mut self, team: TeamName, share: u64) {
        let oldest = self.heads.get(&team).and_then(|h| h.first_key_value());
        if let Some((age, _)) = oldest {
            self.teams.insert((share, age.clone(), team));
        }
    }

    /// The next step to be placed; tell what became of it before asking again.
    pub(crate) fn next(&mut self) -> Option<Turn> {
        loop {
            let (share, age, team) = self.teams.pop_first()?;
            let shape = self.heads.get_mut(&team)?.remove(&age)?;
            if self.blocked.iter().any(|b| shape.asks_at_least(b)) {
                self.line_up(team, share);
            } else {
                return Some(Turn { team, shape, age });
            }
        }
    }

    /// The step has left `queue`; its team now holds `share`.
    pub(crate) fn placed(&mut self, queue: &Queue, turn: &Turn, share: u64) {
        if let (Some(heads), Some(age)) = (self.heads.get_mut(&turn.team), queue.head(&turn.team, &turn.shape)) {
            heads.insert(age.clone(), Arc::clone(&turn.shape));
        }
        self.line_up(turn.team.clone(), share);
    }

    /// There is no room for the step, and so for none of its shape or of a larger one.
    pub(crate) fn blocked(&mut self, turn: Turn, share: u64) {
        self.blocked.retain(|b| !b.asks_at_least(&turn.shape));
        self.blocked.push(turn.shape);
        self.line_up(turn.team, share);
    }
}
