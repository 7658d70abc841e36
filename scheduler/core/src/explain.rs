//! Why a step is where it is, or why it is not yet anywhere: one sentence for people, fields for
//! programs.
//!
//! Not here: any decision. The answer is read off the view, with the same feasibility as the plan.

use crate::cluster::Cluster;
use crate::fit::{Best, SCORE_MAX};
use crate::group::{Word, superseded_sentence};
use crate::node::{Grant, Node, Wish};
use crate::queue::Age;
use crate::run::{Definition, LiveRun, Run};
use crate::sentence;
use crate::shape::{Shape, carries};
use model::{NodeId, NodeRecord, ObservedState, Resources, RunId, StepRecord, StepStatus, Stop};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The answer to "why here" and "why not yet".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Of which run.
    pub run: RunId,
    /// The step's ordinal.
    pub step: usize,
    /// The step's name; empty when the definition cannot be read.
    pub name: String,
    /// Where the step stands.
    pub status: StepStatus,
    /// The kind of reason.
    pub verdict: Verdict,
    /// One plain sentence.
    pub sentence: String,
    /// The node that it is or was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Why it was placed there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// The needs that have not ended yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Its place among the ready steps of its team, from 1, by age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<usize>,
    /// How many steps of all teams are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<usize>,
    /// For how long it has been ready, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_for_ms: Option<u64>,
    /// How many nodes pass each test; only for a step that waits for a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// What is held against or for each node, those with room first, the best of them at the head;
    /// at most [`CANDIDATES_MAX`]; only for a step that waits for a node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

/// The most nodes of one explanation.
pub const CANDIDATES_MAX: usize = 100;

/// One node as a place for one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its host's name.
    pub name: String,
    /// The step could start there now.
    pub feasible: bool,
    /// One plain sentence: what is missing, or what it would keep free.
    pub reason: String,
    /// The more, the better, up to [`crate::fit::SCORE_MAX`] for a node that would be full and is busy as long as the step lasts; `None` when it is not feasible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<u64>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// The kind of reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has ended.
    Ended,
    /// It has a node.
    Placed,
    /// It has a node that is not connected at the moment.
    NodeAway,
    /// Steps that it needs have not ended.
    WaitsForSteps,
    /// Its run is being cancelled.
    BeingCancelled,
    /// Another run or step of its concurrency group goes on.
    WaitsForGroup,
    /// As many cells of its matrix run as may.
    WaitsForCells,
    /// It waits for a person to start it.
    WaitsForPerson,
    /// No node is connected.
    NoNode,
    /// No connected node carries its labels.
    NoLabel,
    /// No node that carries its labels is large enough, even when empty.
    TooLarge,
    /// Every node that is large enough is cordoned or drained.
    Cordoned,
    /// Every node that is large enough is full.
    NodesFull,
    /// It waits before its next attempt.
    Pauses,
    /// There is room: it is placed with the next plan, or others go first.
    NextInLine,
    /// Its run cannot be read.
    Damaged,
    /// The scheduler does not know enough yet.
    NotReadYet,
}

/// How many nodes pass each test; each counts among those that passed the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeCounts {
    /// Have registered.
    pub registered: usize,
    /// Hold a session.
    pub connected: usize,
    /// Carry the step's labels.
    pub labels_match: usize,
    /// Are large enough when empty.
    pub large_enough: usize,
    /// Take steps: they are neither cordoned nor drained.
    #[serde(default)]
    pub eligible: usize,
    /// Have the room now.
    pub with_room: usize,
}

impl Explanation {
    fn new(run: &RunId, step: usize, name: &str, status: StepStatus, verdict: Verdict, sentence: String) -> Self {
        Self {
            run: run.clone(),
            step,
            name: name.to_owned(),
            status,
            verdict,
            sentence,
            node: None,
            placement: None,
            waits_for: Vec::new(),
            queue_position: None,
            queue_length: None,
            ready_for_ms: None,
            nodes: None,
            candidates: Vec::new(),
        }
    }

    /// The explanation of a step that has ended, from its record alone: the view keeps only the
    /// bare minimum of finished runs.
    #[must_use]
    pub fn of_ended(run: &RunId, step: usize, record: &StepRecord) -> Self {
        let mut sentence = format!("it has ended: {}", record.status.as_str());
        if let Some(reason) = &record.reason {
            sentence = format!("{sentence}; it {reason}");
        }
        let mut explanation = Self::new(run, step, "", record.status, Verdict::Ended, sentence);
        explanation.node.clone_from(&record.node);
        explanation.placement.clone_from(&record.placement);
        explanation
    }
}

/// Why a step was placed where it was; kept with the step.
pub(crate) fn placement_sentence(node: &NodeRecord, best: &Best, next: Option<&str>, shape: &Shape) -> String {
    let [cpu, memory, disk, slots] = best.best.room;
    let asked = shape.resources();
    let left = Resources {
        cpu_millis: cpu.saturating_sub(asked.cpu_millis),
        memory_bytes: memory.saturating_sub(asked.memory_bytes),
        disk_bytes: disk.saturating_sub(asked.disk_bytes),
    };
    let others = match (next, best.next) {
        (Some(name), Some(next)) => format!("the next best, {name}, would cost more (score {})", next.score),
        _ => "no other node has the room".to_owned(),
    };
    let score = best.best.score;
    let slots = slots.saturating_sub(1);
    format!(
        "best fit: {} costs the least room and time of all nodes: it keeps {} and {slots} slots free (score {score} of {SCORE_MAX}); {others}",
        node.name,
        amounts(&left)
    )
}

impl Cluster {
    /// Why the step is where it is, or why not yet; `None` for a run or step that is not known.
    /// For a step of a finished run the shell reads the record: see [`Explanation::of_ended`].
    pub fn explain(&mut self, run: &RunId, step: usize, now_ms: u64) -> Option<Explanation> {
        self.refresh_at(now_ms);
        let live = match self.runs.get(run)? {
            Run::Live(live) => live,
            Run::Finished(finished) => {
                let status = finished.steps.get(step)?.status;
                let sentence = format!("it has ended: {}", status.as_str());
                return Some(Explanation::new(run, step, "", status, Verdict::Ended, sentence));
            }
            Run::Gone(_) => return None,
        };
        let header = live.header.get()?;
        if step >= header.steps {
            return None;
        }
        let name = live
            .def()
            .and_then(|(def, _)| def.steps.get(step))
            .map_or("", |s| s.name.as_str());
        let status = live.status(step).unwrap_or(StepStatus::Pending);
        let say = |verdict, sentence| Explanation::new(run, step, name, status, verdict, sentence);
        if let Some(record) = live.records.get(&step) {
            if record.status.is_terminal() {
                let mut explanation = Explanation::of_ended(run, step, record);
                name.clone_into(&mut explanation.name);
                return Some(explanation);
            }
            if record.alloc.is_some() && matches!(record.status, StepStatus::Assigned | StepStatus::Running) {
                return Some(self.explain_placed(record, say));
            }
        }
        if let Some(damage) = live.damage() {
            return Some(say(Verdict::Damaged, format!("its run stands still: {damage}")));
        }
        if live.definition == Definition::Incomplete {
            return Some(say(Verdict::NotReadYet, "its definition is being read".to_owned()));
        }
        if self.cancels.contains_key(run) {
            return Some(say(Verdict::BeingCancelled, "its run is being cancelled".to_owned()));
        }
        let waiting = waiting_needs(live, step);
        if !waiting.is_empty() {
            let mut explanation = say(Verdict::WaitsForSteps, waits_sentence(&waiting));
            explanation.waits_for = waiting.into_iter().map(|(name, _)| name).collect();
            return Some(explanation);
        }
        if let Some((verdict, sentence)) = self.rule_in_the_way(live, run, step) {
            return Some(say(verdict, sentence));
        }
        self.explain_queued(run, live, step, now_ms, say)
    }

    /// What keeps a step from being placed although its needs have ended.
    fn rule_in_the_way(&self, live: &LiveRun, run: &RunId, step: usize) -> Option<(Verdict, String)> {
        let (id, _) = self.runs.get_key_value(run)?;
        let of_step = self.groups.of_steps(id).find(|(of, ..)| *of == step);
        let word = self.groups.of_run(id).filter(|(word, _)| *word != Word::Go);
        match word.or(of_step.map(|(_, word, group)| (word, group))) {
            Some((Word::Wait(holder), group)) => {
                let sentence = format!("it waits for run {holder}, which goes on in the concurrency group `{group}`");
                return Some((Verdict::WaitsForGroup, sentence));
            }
            Some((Word::End(by), group)) => {
                let sentence = format!("it is being cancelled: {}", superseded_sentence(by, group));
                return Some((Verdict::BeingCancelled, sentence));
            }
            Some((Word::Go, _)) | None => {}
        }
        let (progress, (def, _)) = (live.progress.as_ref()?, live.def()?);
        if progress.held().contains(&step) {
            let matrix = def.rules.matrices.get(def.steps.get(step)?.rules.matrix?)?;
            let most = matrix.max_parallel.unwrap_or(1);
            let sentence = format!(
                "it waits for other cells of `{}`: {most} may run at the same time",
                matrix.step
            );
            return Some((Verdict::WaitsForCells, sentence));
        }
        if progress.offered().contains(&step) {
            let sentence = "it waits for a person to start it; the run ends without it".to_owned();
            return Some((Verdict::WaitsForPerson, sentence));
        }
        None
    }

    fn explain_placed(&self, record: &StepRecord, say: impl Fn(Verdict, String) -> Explanation) -> Explanation {
        let node = record.node.as_ref().and_then(|id| self.nodes.get(id));
        let node_name = node
            .and_then(|n| n.record.get())
            .map_or("its node", |r| r.name.as_str());
        let report = record.alloc.as_ref().and_then(|id| self.reports.get(id)?.get());
        let order = record.alloc.as_ref().and_then(|id| self.allocs.get(id)?.slot.get());
        let doing = match (record.status, report.map(|r| r.state)) {
            (_, Some(ObservedState::Ended)) => "has ended and its result is being taken over",
            (_, _) if order.is_some_and(|o| o.stop == Some(Stop::Cancelled)) => "has been told to stop",
            (_, _) if order.is_some_and(|o| o.stop == Some(Stop::Drained)) => "has been told to leave its node",
            (StepStatus::Running, _) | (_, Some(ObservedState::Running)) => "runs",
            (_, Some(ObservedState::Preparing)) => "is being prepared",
            (_, None) => "has been handed over and is not yet confirmed",
        };
        let connected = node.is_some_and(|n| n.usable().is_some());
        let mut explanation = if connected {
            say(Verdict::Placed, format!("it {doing} on {node_name}"))
        } else {
            let until = self.until_lost(record.node.as_ref());
            let sentence = format!("it {doing} on {node_name}, which is not connected; {until}");
            say(Verdict::NodeAway, sentence)
        };
        explanation.node.clone_from(&record.node);
        explanation.placement.clone_from(&record.placement);
        explanation
    }

    /// What a step whose node is away waits for.
    fn until_lost(&self, node: Option<&NodeId>) -> String {
        let watch = &self.watchfulness;
        let left = node
            .and_then(|id| watch.lost_at(id))
            .map(|at| at.saturating_sub(watch.steady_ms));
        match left {
            Some(left) => format!("unless the node returns it is given up in {}", sentence::length(left)),
            None => "it waits for the node to return or its lease to run out".to_owned(),
        }
    }

    fn explain_queued(
        &self,
        run: &RunId,
        live: &LiveRun,
        step: usize,
        now_ms: u64,
        say: impl Fn(Verdict, String) -> Explanation,
    ) -> Option<Explanation> {
        let header = live.header.get()?;
        let (_, shapes) = live.def()?;
        let (id, _) = self.runs.get_key_value(run)?;
        let position = self.queue.older(&header.team, &live.age(id, step)) + 1;
        let survey = Survey::of(self, shapes.get(step)?);
        let (verdict, sentence) = match live.retry_at_ms(step).filter(|at| *at > now_ms) {
            Some(at) => (Verdict::Pauses, pauses_sentence(live, step, at - now_ms)),
            None => self.waits_for_node(&survey, &live.age(id, step), position, now_ms),
        };
        let mut explanation = say(verdict, sentence);
        explanation.queue_position = Some(position);
        explanation.queue_length = Some(self.queue.len());
        explanation.ready_for_ms = Some(now_ms.saturating_sub(live.ready_since_ms(step)));
        explanation.nodes = Some(survey.counts);
        let wish = Wish::of(shapes.get(step)?).lasting(self.expected_ms(run, step));
        explanation.candidates = candidates(self, &wish, now_ms);
        Some(explanation)
    }

    fn waits_for_node(&self, survey: &Survey<'_>, age: &Age, position: usize, now_ms: u64) -> (Verdict, String) {
        let (verdict, sentence) = survey.verdict(self, position, now_ms);
        let kept = self.keeps.get(age).and_then(|k| self.nodes.get(&k.node));
        match kept.and_then(|n| n.record.get()) {
            Some(node) => {
                let sentence = format!("{sentence}; what it needs is kept free for it on {}", node.name);
                (verdict, sentence)
            }
            None => (verdict, sentence),
        }
    }
}

fn pauses_sentence(live: &LiveRun, step: usize, left_ms: u64) -> String {
    let record = live.records.get(&step);
    let next = record.map_or(1, |r| r.attempt.saturating_add(1));
    let left = sentence::length(left_ms);
    match record.and_then(|r| r.reason.as_deref()) {
        Some(reason) => format!("{reason}; attempt {next} follows in {left}"),
        None => format!("attempt {next} follows in {left}"),
    }
}

/// The needs of a step that have not ended, with where they stand.
fn waiting_needs(live: &LiveRun, step: usize) -> Vec<(String, StepStatus)> {
    let Some((def, _)) = live.def() else {
        return Vec::new();
    };
    let needs = def.steps.get(step).map(|s| s.needs.as_slice()).unwrap_or_default();
    let standing = needs
        .iter()
        .map(|need| (*need, live.status(*need).unwrap_or(StepStatus::Pending)));
    let waiting = standing.filter(|(_, status)| !status.is_terminal());
    waiting
        .filter_map(|(need, status)| Some((def.steps.get(need)?.name.to_string(), status)))
        .collect()
}

/// The most steps that are named in one sentence.
const NAMED_MAX: usize = 5;

fn waits_sentence(waiting: &[(String, StepStatus)]) -> String {
    let named = waiting
        .iter()
        .take(NAMED_MAX)
        .map(|(name, status)| format!("`{name}` ({})", status.as_str()));
    let named = named.collect::<Vec<_>>().join(", ");
    match waiting.len().saturating_sub(NAMED_MAX) {
        0 => format!("waits for {named}"),
        more => format!("waits for {named} and {more} more"),
    }
}

/// Every node as a place for this shape.
fn candidates(cluster: &Cluster, wish: &Wish<'_>, now_ms: u64) -> Vec<Candidate> {
    let nodes = cluster.nodes.table().iter();
    let known = nodes.filter_map(|(id, node)| Some((id, node, node.record.get()?)));
    let mut all: Vec<Candidate> = known
        .map(|(id, node, record)| candidate(cluster, id, node, record, wish, now_ms))
        .collect();
    all.sort_by(|a, b| (b.feasible, b.score, &a.node).cmp(&(a.feasible, a.score, &b.node)));
    all.truncate(CANDIDATES_MAX);
    all
}

fn candidate(
    cluster: &Cluster,
    id: &NodeId,
    node: &Node,
    record: &NodeRecord,
    wish: &Wish<'_>,
    now_ms: u64,
) -> Candidate {
    let shape = wish.shape;
    let ask = Grant::one(&shape.resources());
    let free = node.free();
    let missing = shape
        .labels()
        .iter()
        .find(|(key, value)| record.labels.get(*key) != Some(value));
    let objection = if node.usable().is_none() {
        Some("it is not connected".to_owned())
    } else if node.eligible().is_none() {
        Some(sentence::cordon(node.eligibility.get(), now_ms))
    } else if let Some((key, value)) = missing {
        Some(match record.labels.get(key) {
            Some(other) => format!("its label {key} is {other}, not {value}"),
            None => format!("it has no label {key}"),
        })
    } else if !ask.within(&node.capacity()) {
        Some(format!("it is too small: {} in all", amounts(&record.capacity)))
    } else if !ask.within(&free) {
        let besides = if node.kept == Grant::default() {
            ""
        } else {
            ", besides what is kept for a step that has waited longer"
        };
        let (amounts, slots) = (amounts(&free.resources), free.slots);
        Some(format!("it is full: {amounts} and {slots} slots free{besides}"))
    } else {
        None
    };
    Candidate {
        node: id.clone(),
        name: record.name.clone(),
        feasible: objection.is_none(),
        score: cluster.nodes.score(id, wish).filter(|_| objection.is_none()),
        reason: objection.unwrap_or_else(|| format!("it would keep {} free", amounts(&free.minus(&ask).resources))),
    }
}

/// All nodes put to every test for one shape.
struct Survey<'a> {
    shape: &'a Shape,
    counts: NodeCounts,
    connected: Vec<&'a Node>,
    labelled: Vec<&'a Node>,
    large: Vec<&'a Node>,
}

impl<'a> Survey<'a> {
    fn of(cluster: &'a Cluster, shape: &'a Shape) -> Self {
        let ask = Grant::one(&shape.resources());
        let nodes = cluster.nodes.table().values();
        let registered = nodes.clone().filter(|n| n.record.get().is_some()).count();
        let connected: Vec<&Node> = nodes.filter(|n| n.usable().is_some()).collect();
        let has_labels = |n: &&&Node| n.record.get().is_some_and(|r| carries(&r.labels, shape.labels()));
        let labelled: Vec<&Node> = connected.iter().filter(has_labels).copied().collect();
        let large: Vec<&Node> = labelled.iter().filter(|n| ask.within(&n.capacity())).copied().collect();
        let open = |n: &&&Node| n.eligible().is_some() && ask.within(&n.free());
        let with_room = large.iter().filter(open).count();
        Self {
            shape,
            counts: NodeCounts {
                registered,
                connected: connected.len(),
                labels_match: labelled.len(),
                large_enough: large.len(),
                eligible: large.iter().filter(|n| n.eligible().is_some()).count(),
                with_room,
            },
            connected,
            labelled,
            large,
        }
    }

    fn verdict(&self, cluster: &Cluster, position: usize, now_ms: u64) -> (Verdict, String) {
        let counts = &self.counts;
        if counts.registered == 0 {
            return (
                Verdict::NoNode,
                "no node is connected: none has ever registered".to_owned(),
            );
        }
        if counts.connected == 0 {
            let known = counts.registered;
            return (
                Verdict::NoNode,
                format!("no node is connected; {known} registered earlier and are away"),
            );
        }
        if counts.labels_match == 0 {
            return (Verdict::NoLabel, self.missing_labels());
        }
        if counts.large_enough == 0 {
            return (Verdict::TooLarge, self.too_large());
        }
        if counts.eligible == 0 {
            return (Verdict::Cordoned, self.cordoned(now_ms));
        }
        if counts.with_room == 0 {
            return (Verdict::NodesFull, self.full(cluster));
        }
        let sentence = match position - 1 {
            0 => "there is room: it is placed with the next plan".to_owned(),
            older => format!("there is room: {older} older steps of its team go first"),
        };
        (Verdict::NextInLine, sentence)
    }

    fn cordoned(&self, now_ms: u64) -> String {
        let named = self
            .large
            .iter()
            .filter_map(|n| Some((n.record.get()?.name.as_str(), n)));
        let named = named.map(|(name, n)| format!("{name}: {}", sentence::cordon(n.eligibility.get(), now_ms)));
        let more = self.large.len().saturating_sub(NAMED_MAX);
        let named = named.take(NAMED_MAX).collect::<Vec<_>>().join("; ");
        let sentence = format!("no node that fits takes steps: {named}");
        if more == 0 {
            sentence
        } else {
            format!("{sentence}; and {more} more")
        }
    }

    fn missing_labels(&self) -> String {
        let carried = |key: &String, value: &String| {
            let has = |n: &&Node| n.record.get().is_some_and(|r| r.labels.get(key) == Some(value));
            self.connected.iter().any(has)
        };
        let wanted = self.shape.labels();
        match wanted.iter().find(|(key, value)| !carried(key, value)) {
            Some((key, value)) => format!("no connected node has the label {key}={value}"),
            None => {
                let all: Vec<String> = wanted.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("no connected node has all of the labels {}", all.join(", "))
            }
        }
    }

    fn too_large(&self) -> String {
        let ask = self.shape.resources();
        let most = |part: fn(&Resources) -> u64| {
            self.labelled
                .iter()
                .map(|n| part(&n.capacity().resources))
                .max()
                .unwrap_or(0)
        };
        let (cpu, memory, disk) = (most(|r| r.cpu_millis), most(|r| r.memory_bytes), most(|r| r.disk_bytes));
        let mut lacks = Vec::new();
        if ask.cpu_millis > cpu {
            lacks.push(format!(
                "{}, the largest node has {}",
                cpu_text(ask.cpu_millis),
                cpu_text(cpu)
            ));
        }
        if ask.memory_bytes > memory {
            let (ask, most) = (bytes_text(ask.memory_bytes), bytes_text(memory));
            lacks.push(format!("{ask} memory, the largest node has {most}"));
        }
        if ask.disk_bytes > disk {
            let (ask, most) = (bytes_text(ask.disk_bytes), bytes_text(disk));
            lacks.push(format!("{ask} disk, the largest node has {most}"));
        }
        if lacks.is_empty() {
            return format!("no single node has {} and a slot, even when empty", amounts(&ask));
        }
        format!("needs {}", lacks.join("; needs "))
    }

    fn full(&self, cluster: &Cluster) -> String {
        let open = self.large.iter().filter(|n| n.eligible().is_some());
        let freest = open.max_by_key(|n| cluster.nodes.weight_of_free(n));
        let free = freest.map(|n| n.free()).unwrap_or_default();
        let name = freest.and_then(|n| n.record.get()).map_or("", |r| r.name.as_str());
        let count = self.counts.eligible;
        let fit = if count == 1 {
            "1 node fits in size but is full".to_owned()
        } else {
            format!("{count} nodes fit in size but are full")
        };
        format!(
            "{fit}: it needs {}; the freest, {name}, has {} and {} slots",
            amounts(&self.shape.resources()),
            amounts(&free.resources),
            free.slots
        )
    }
}

fn amounts(r: &Resources) -> String {
    let (memory, disk) = (bytes_text(r.memory_bytes), bytes_text(r.disk_bytes));
    format!("{}, {memory} memory, {disk} disk", cpu_text(r.cpu_millis))
}

fn cpu_text(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    format!("{} cpu", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Bytes in the largest unit that keeps the number exact to a tenth.
fn bytes_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                tenth => format!("{}.{tenth} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_like_the_pipeline_file() {
        let cases = [
            (0, "0 cpu"),
            (500, "0.5 cpu"),
            (2_000, "2 cpu"),
            (1_250, "1.25 cpu"),
            (10_000, "10 cpu"),
        ];
        for (millis, text) in cases {
            assert_eq!(cpu_text(millis), text);
        }
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
