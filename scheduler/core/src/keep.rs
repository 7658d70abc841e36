//! Keeps a large step from starving behind small ones: once it has waited long and is overtaken,
//! the room that it asks for is kept free on one node until it fits there.
//!
//! A step *is overtaken* when its turn came and no node had the room, and a step whose turn comes
//! later would be placed. A step behind which nobody is placed loses nothing by waiting, so a
//! queue of equal steps keeps no room at all, and a team's flood of steps gets nothing by its age.
//! What is kept is what the step asks for, on the node that lacks the least of it; the rest of the
//! node serves others. Nothing new goes into what is kept, and every attempt has a time-out: so the
//! node comes to have the room.
//!
//! Not here: whose turn it is ([`crate::queue`]). Nothing of this is stored: a new leader finds out
//! anew who is overtaken.

use crate::cluster::Cluster;
use crate::node::{Grant, Node};
use crate::queue::{Age, Turn};
use crate::run::Run;
use crate::shape::{Shape, carries};
use model::{NodeId, TeamName};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a step lets itself be overtaken, milliseconds: most room comes back within a minute,
/// and until then it costs nothing to let small steps pass.
pub const OVERTAKEN_MAX_MS: u64 = 60_000;

/// The most steps for which room is kept at a time. Each costs a look per plan, and room that is
/// kept stands empty.
pub const KEPT_MAX: usize = 16;

/// Room that is kept for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) node: NodeId,
    pub(crate) grant: Grant,
    team: TeamName,
    shape: Arc<Shape>,
}

/// All room that is kept, by the step that it is kept for, the oldest first.
pub(crate) type Keeps = BTreeMap<Age, Kept>;

impl Cluster {
    /// The steps for which room is kept and which still wait; what was kept for others is given
    /// free, as is what was kept on a node that takes no steps any more.
    pub(crate) fn kept_turns(&mut self) -> Vec<Turn> {
        let keeps: Vec<(Age, Kept)> = self
            .keeps
            .iter()
            .map(|(age, kept)| (age.clone(), kept.clone()))
            .collect();
        let mut turns = Vec::new();
        for (age, kept) in keeps {
            let waits = matches!(self.runs.get(&age.run), Some(Run::Live(run)) if run.queued.contains(&age.step));
            let node = self.nodes.get(&kept.node);
            let possible = node.is_some_and(|n| could_hold(n, &kept.shape));
            if waits && possible {
                turns.push(Turn {
                    team: kept.team,
                    shape: kept.shape,
                    age,
                });
            } else {
                self.stop_keeping(&age);
            }
        }
        turns
    }

    /// Gives free what is kept for a step; answers it, so that it can be kept again.
    pub(crate) fn stop_keeping(&mut self, age: &Age) -> Option<Kept> {
        let kept = self.keeps.remove(age)?;
        self.nodes.stop_keeping(&kept.node, &kept.grant);
        Some(kept)
    }

    pub(crate) fn keep(&mut self, age: Age, kept: Kept) {
        self.nodes.keep(&kept.node, &kept.grant);
        self.keeps.insert(age, kept);
    }

    /// Whether a step that found no room has waited so long that it is not to be overtaken any more.
    pub(crate) fn has_waited_long(&self, turn: &Turn, now_ms: u64) -> bool {
        let Some(Run::Live(run)) = self.runs.get(&turn.age.run) else {
            return false;
        };
        let waited = now_ms.saturating_sub(run.ready_since_ms(turn.age.step));
        waited >= OVERTAKEN_MAX_MS && !self.keeps.contains_key(&turn.age)
    }

    /// Keeps the room that the step asks for on the node that lacks the least of it.
    pub(crate) fn keep_room_for(&mut self, turn: Turn) {
        if self.keeps.len() >= KEPT_MAX {
            return;
        }
        let grant = Grant::one(&turn.shape.resources());
        let nothing = Grant::default();
        let nodes = self.nodes.table().iter();
        let possible = nodes.filter(|(_, node)| node.kept == nothing && could_hold(node, &turn.shape));
        let nearest = possible.min_by_key(|(id, node)| (lack(node, &grant), Reverse(node.capacity().slots), *id));
        if let Some((node, _)) = nearest {
            let kept = Kept {
                node: node.clone(),
                grant,
                team: turn.team,
                shape: turn.shape,
            };
            self.keep(turn.age, kept);
        }
    }
}

/// The step could start there if the node were empty.
fn could_hold(node: &Node, shape: &Shape) -> bool {
    let carries = |labels| carries(labels, shape.labels());
    let fits = Grant::one(&shape.resources()).within(&node.capacity());
    fits && node.eligible().is_some_and(|record| carries(&record.labels))
}

/// How much of what is asked for the node lacks at the moment, in millionths, of that of which it
/// lacks the most.
fn lack(node: &Node, ask: &Grant) -> u128 {
    let free = node.capacity().minus(&node.used).minus(&node.reserved).room();
    let parts = ask.room().into_iter().zip(free);
    let lacks = parts.map(|(ask, free)| u128::from(ask.saturating_sub(free)) * 1_000_000 / u128::from(ask.max(1)));
    lacks.max().unwrap_or(0)
}
