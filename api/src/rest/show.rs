//! How runs are shown: records, definition and what follows from both, put into the forms of `dto`.
//!
//! Not here: who asked, and any decision.

use super::query::no_run;
use crate::archive::Archive;
use crate::dto::{
    AttemptDetail, Phase, RunCreated, RunDetail, RunStatus, RunSummary, StageDetail, StepDetail, StepStatus, Times,
    Usage,
};
use crate::fleet::definitions::DefinitionError;
use crate::intake::Accepted;
use crate::problem::{Answer, Problem};
use crate::repository::shown;
use crate::state::Server;
use crate::view::{EventId, Picture, RunEntry};
use model::{ArchivedRun, InboxEntry, Outcome, RunDef, RunHeader, RunId, StepDef, StepRecord, key};
use pipeline::progress::{self, Records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The picture's part of one run, taken at one moment.
pub(super) struct RunLook {
    /// What a list shows.
    pub(super) summary: RunSummary,
    /// Everything before this was seen.
    pub(super) seen: EventId,
    /// `None` while only its trigger is there.
    pub(super) header: Option<Arc<RunHeader>>,
    records: Records,
    held: Option<Arc<RunDef>>,
    cancel_requested: bool,
    node_names: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    repository: String,
    request_id: String,
}

impl RunLook {
    /// What happened to its steps.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    /// What it was made of; `None` while only its trigger is known.
    pub(super) fn header(&self) -> Option<&RunHeader> {
        self.header.as_deref()
    }

    /// Where each of its steps stands.
    pub(super) fn statuses(&self, def: &RunDef) -> Vec<model::StepStatus> {
        match self.header() {
            Some(header) => progress::step_statuses(header, def, &self.records),
            None => vec![model::StepStatus::Pending; def.steps.len()],
        }
    }
}

/// A run in a list.
pub(super) fn summary(server: &Server, header: &RunHeader, entry: &RunEntry) -> RunSummary {
    let source = &header.source;
    RunSummary {
        run_id: header.id.to_string(),
        number: Some(header.number),
        team: header.team.to_string(),
        pipeline: header.pipeline.to_string(),
        status: entry.status().into(),
        event: source.event.into(),
        git_ref: source.git_ref.clone(),
        branch: source.branch().map(str::to_owned),
        tag: source.tag().map(str::to_owned),
        commit: source.commit.clone(),
        message: source.message.clone(),
        author: source.author.clone(),
        requested_by: header.requested_by.clone(),
        steps: header.steps,
        error: header.error.as_ref().map(|e| e.message.clone()),
        created_ms: header.created_ms,
        started_ms: entry.started_ms(),
        ended_ms: entry.ended_ms(),
        web_url: server.web_url(&header.id),
    }
}

/// A trigger that is about to become a run, as that run.
pub(super) fn pending(server: &Server, entry: &InboxEntry) -> RunSummary {
    RunSummary {
        run_id: entry.run.to_string(),
        number: None,
        team: entry.team.to_string(),
        pipeline: entry.pipeline.to_string(),
        status: RunStatus::Queued,
        event: entry.event.into(),
        git_ref: entry.git_ref.clone(),
        branch: entry.git_ref.strip_prefix("refs/heads/").map(str::to_owned),
        tag: entry.git_ref.strip_prefix("refs/tags/").map(str::to_owned),
        commit: entry.commit.clone(),
        message: String::new(),
        author: String::new(),
        requested_by: entry.requested_by.clone(),
        steps: 0,
        error: None,
        created_ms: entry.accepted_ms,
        started_ms: None,
        ended_ms: None,
        web_url: server.web_url(&entry.run),
    }
}

/// What the picture has of a run, or of the trigger that becomes it.
pub(super) fn look(server: &Server, picture: &Picture, run: &RunId) -> Option<RunLook> {
    let seen = EventId::all_of(picture.revision());
    if let Some(entry) = picture.run(run) {
        let header = entry.header()?.clone();
        return Some(RunLook {
            summary: summary(server, &header, entry),
            seen,
            records: entry.records().clone(),
            held: entry.held_def().cloned(),
            cancel_requested: picture.cancel_requested(run),
            node_names: node_names(picture, entry.records()),
            variables: header.variables.clone(),
            repository: shown(&header.source.repository),
            request_id: header.request_id.clone(),
            header: Some(header),
        });
    }
    let entry = picture.inbox_of(run)?;
    Some(RunLook {
        summary: pending(server, entry),
        seen,
        header: None,
        records: Records::new(),
        held: None,
        cancel_requested: false,
        node_names: BTreeMap::new(),
        variables: entry.variables.clone(),
        repository: String::new(),
        request_id: entry.request_id.clone(),
    })
}

/// A run as it is now, wherever it is: the picture is asked before the archive, so that a run which
/// moves meanwhile is found.
pub(super) async fn find(server: &Server, run: &RunId) -> Answer<RunLook> {
    if let Some(found) = server.view.read(|picture| look(server, picture, run)) {
        return Ok(found);
    }
    let archive = server.archives.open(run).await?.ok_or_else(|| no_run(run.as_str()))?;
    Ok(server.view.read(|picture| look_archived(server, picture, &archive)))
}

fn look_archived(server: &Server, picture: &Picture, archive: &Archive) -> RunLook {
    let header = &archive.header;
    RunLook {
        summary: archived_summary(server, &archive.record),
        seen: EventId::all_of(picture.revision()),
        records: archive.steps.clone(),
        held: archive.definition.clone(),
        cancel_requested: false,
        node_names: node_names(picture, &archive.steps),
        variables: header.variables.clone(),
        repository: shown(&header.source.repository),
        request_id: header.request_id.clone(),
        header: Some(header.clone()),
    }
}

/// The names of the nodes that the steps were on, as far as the nodes are known.
fn node_names(picture: &Picture, records: &Records) -> BTreeMap<String, String> {
    let of_record = |r: &'_ StepRecord| {
        let earlier = r.earlier.iter().map(|e| e.node.clone());
        earlier.chain(r.node.clone()).collect::<Vec<_>>()
    };
    let nodes: BTreeSet<model::NodeId> = records.values().flat_map(of_record).collect();
    let named = nodes
        .iter()
        .filter_map(|n| Some((n.to_string(), picture.nodes().get(n)?.name.clone())));
    named.collect()
}

/// An archived run in a list.
pub(super) fn archived_summary(server: &Server, run: &ArchivedRun) -> RunSummary {
    let (run, source) = (&run.summary, &run.summary.source);
    RunSummary {
        run_id: run.id.to_string(),
        number: Some(run.number),
        team: run.team.to_string(),
        pipeline: run.pipeline.to_string(),
        status: run.status.into(),
        event: source.event.into(),
        git_ref: source.git_ref.clone(),
        branch: source.branch().map(str::to_owned),
        tag: source.tag().map(str::to_owned),
        commit: source.commit.clone(),
        message: source.message.clone(),
        author: source.author.clone(),
        requested_by: run.requested_by.clone(),
        steps: run.steps,
        error: run.error.as_ref().map(|e| e.message.clone()),
        created_ms: run.created_ms,
        started_ms: run.started_ms,
        ended_ms: Some(run.ended_ms),
        web_url: server.web_url(&run.id),
    }
}

/// A run's definition: of one that goes on from the picture, of one that has ended from the store.
pub(super) async fn definition(server: &Server, look: &RunLook) -> Answer<Option<Arc<RunDef>>> {
    let Some(header) = look.header.as_ref().filter(|h| h.def_chunks > 0) else {
        return Ok(None);
    };
    if let Some(held) = &look.held {
        return Ok(Some(held.clone()));
    }
    match server.definitions.get(server.store(), &header.id).await {
        Ok(found) => Ok(Some(found.def.clone())),
        Err(DefinitionError::Store(error)) => Err(error.into()),
        // It was archived since it was looked at.
        Err(DefinitionError::NoRun(run)) => match server.archives.open(&run).await? {
            Some(archive) => Ok(archive.definition.clone()),
            None => Err(no_run(run.as_str())),
        },
        Err(error) => {
            tracing::error!(run_id = %header.id, %error, "run definition cannot be used");
            Err(Problem::internal())
        }
    }
}

/// A run with all its steps.
pub(super) async fn detail(server: &Server, look: RunLook) -> Answer<RunDetail> {
    let def = definition(server, &look).await?;
    let stages = def.as_ref().map(|def| stages(def, &look)).unwrap_or_default();
    let error = look.header.as_ref().and_then(|h| h.error.as_ref());
    Ok(RunDetail {
        title: def.as_ref().and_then(|d| d.title.clone()),
        attempt: look.header.as_ref().map_or(1, |h| h.attempt),
        repository: look.repository,
        variables: look.variables,
        findings: error.map(|e| e.findings.clone()).unwrap_or_default(),
        cancel_requested: look.cancel_requested,
        request_id: look.request_id,
        stages,
        summary: look.summary,
    })
}

fn stages(def: &RunDef, look: &RunLook) -> Vec<StageDetail> {
    let statuses = look.statuses(def);
    let mut stages: Vec<StageDetail> = def
        .stages
        .iter()
        .map(|s| StageDetail {
            name: s.name.to_string(),
            steps: Vec::new(),
        })
        .collect();
    for (ordinal, (step, status)) in def.steps.iter().zip(statuses).enumerate() {
        if let Some(stage) = stages.get_mut(step.stage) {
            let shown = step_detail(def, ordinal, step, status.into(), look);
            stage.steps.push(shown);
        }
    }
    stages
}

fn step_detail(def: &RunDef, ordinal: usize, step: &StepDef, status: StepStatus, look: &RunLook) -> StepDetail {
    let record = look.records.get(&ordinal);
    let node = record.and_then(|r| r.node.as_ref()).map(ToString::to_string);
    StepDetail {
        name: step.name.to_string(),
        title: step.title.clone(),
        ordinal,
        status,
        attempt: record.map_or(0, |r| r.attempt),
        node_name: node.as_ref().and_then(|n| look.node_names.get(n).cloned()),
        node,
        reason: record.and_then(|r| r.reason.clone()),
        exit_code: record.and_then(|r| exit_code(r.outcome.as_ref()?)),
        outcome: record
            .and_then(|r| r.outcome.as_ref())
            .map(|o| outcome_word(o).to_owned()),
        needs: needs(def, step),
        allow_failure: step.allow_failure,
        image: step.image.clone(),
        timeout_ms: step.timeout_ms,
        resources: step.resources.into(),
        phases: record.map(phases).unwrap_or_default(),
        usage: record
            .filter(|r| r.status.is_terminal() && r.attempt > 0)
            .map(|r| usage(&r.usage)),
        times: record.map(|r| times(&r.times)).unwrap_or_default(),
        log_bytes: record.and_then(|r| r.log_bytes),
        retry_at_ms: record.and_then(|r| r.retry_at_ms),
        manual: step.rules.manual,
        outputs: record.map(|r| r.left.outputs.clone()).unwrap_or_default(),
        summary: record.map(|r| r.left.summary.clone()).filter(|text| !text.is_empty()),
        attempts: record.map(|r| attempts(r, look)).unwrap_or_default(),
    }
}

/// The earlier attempts and the newest one, if the step has one that is not among them.
fn attempts(record: &StepRecord, look: &RunLook) -> Vec<AttemptDetail> {
    let name = |node: &model::NodeId| look.node_names.get(node.as_str()).cloned();
    let earlier = record.earlier.iter().map(|e| AttemptDetail {
        attempt: e.attempt,
        node: Some(e.node.to_string()),
        node_name: name(&e.node),
        outcome: e.outcome.as_ref().map(|o| outcome_word(o).to_owned()),
        exit_code: e.outcome.as_ref().and_then(exit_code),
        reason: Some(e.reason.clone()),
        ended: true,
        counts: e.counts,
        times: times(&e.times),
        usage: Some(usage(&e.usage)),
        log_bytes: e.log_bytes,
        log_lost: e.log_bytes.is_none(),
    });
    let is_new = record.earlier.last().is_none_or(|e| e.attempt < record.attempt);
    let newest = (record.attempt > 0 && is_new).then(|| AttemptDetail {
        attempt: record.attempt,
        node: record.node.as_ref().map(ToString::to_string),
        node_name: record.node.as_ref().and_then(name),
        outcome: record.outcome.as_ref().map(|o| outcome_word(o).to_owned()),
        exit_code: record.outcome.as_ref().and_then(exit_code),
        reason: record.reason.clone(),
        ended: record.status.is_terminal(),
        counts: true,
        times: times(&record.times),
        usage: record.status.is_terminal().then(|| usage(&record.usage)),
        log_bytes: record.log_bytes,
        log_lost: record.status.is_terminal() && record.log_bytes.is_none(),
    });
    earlier.chain(newest).collect()
}

/// The names of the steps that a step waits for.
pub(super) fn needs(def: &RunDef, step: &StepDef) -> Vec<String> {
    let names = step.needs.iter().filter_map(|n| def.steps.get(*n));
    names.map(|s| s.name.to_string()).collect()
}

fn phases(record: &StepRecord) -> Vec<Phase> {
    let shown = record.phases.iter().map(|p| Phase {
        name: p.name.clone(),
        ms: p.ms,
        bytes: p.bytes,
    });
    shown.collect()
}

fn usage(usage: &model::Usage) -> Usage {
    Usage {
        memory_peak_bytes: usage.memory_peak_bytes,
        cpu_ms: usage.cpu_ms,
        throttled_ms: usage.throttled_ms,
    }
}

fn times(times: &model::Times) -> Times {
    Times {
        queued_ms: times.queued_ms,
        assigned_ms: times.assigned_ms,
        started_ms: times.started_ms,
        ended_ms: times.ended_ms,
    }
}

fn exit_code(outcome: &Outcome) -> Option<i32> {
    match outcome {
        Outcome::Exited { code } => Some(*code),
        _ => None,
    }
}

fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Exited { .. } => "exited",
        Outcome::Signaled { .. } => "signaled",
        Outcome::OutOfMemory { .. } => "out_of_memory",
        Outcome::TimedOut { .. } => "timed_out",
        Outcome::Cancelled => "cancelled",
        Outcome::CommandMissing { .. } => "command_missing",
        Outcome::StartFailed { .. } => "start_failed",
        Outcome::Lost { .. } => "lost",
        Outcome::OutputRefused { .. } => "output_refused",
    }
}

/// What an accepted trigger has come to.
pub(super) enum Awaited {
    /// Its run is whole, or has ended and left the live store.
    Whole(RunCreated),
    /// Its pipeline file is still being fetched.
    Pending(RunCreated),
    /// The pipeline file makes no run of the event.
    Nothing,
}

/// The run of an accepted trigger; waits for it unless it has ended and left the live store since the
/// trigger came for the first time.
pub(super) async fn awaited(server: &Server, accepted: &Accepted, at_most: Duration) -> Awaited {
    let run = &accepted.run;
    let waits = |p: &Picture| p.run(run).is_none() && p.inbox_of(run).is_some();
    let here = || server.view.read(|p| p.run(run).is_some() || waits(p));
    if !accepted.created
        && !here()
        && let Ok(Some(record)) = server.archives.record(run).await
    {
        return Awaited::Whole(RunCreated {
            run_id: run.to_string(),
            number: Some(record.summary.number),
            status: record.summary.status.into(),
            web_url: server.web_url(run),
            created: false,
        });
    }
    let decided = server.view.wait_until(|p| !waits(p), at_most).await;
    let there = server.view.read(|p| p.run(run).is_some());
    if decided && !there && is_nowhere(server, run).await {
        return Awaited::Nothing;
    }
    let answer = created(server, run, accepted.created);
    if there {
        Awaited::Whole(answer)
    } else {
        Awaited::Pending(answer)
    }
}

/// Whether neither the trigger nor its run is in the store. The picture may be a moment behind.
async fn is_nowhere(server: &Server, run: &RunId) -> bool {
    let store = server.store();
    let absent = |read: Result<Option<store::Entry>, store::StoreError>| matches!(read, Ok(None));
    absent(store.get(&key::inbox(run.as_str())).await) && absent(store.get(&key::run(run)).await)
}

/// A run as the answer of the request that led to it.
fn created(server: &Server, run: &RunId, created: bool) -> RunCreated {
    let (number, status) = server.view.read(|picture| {
        let entry = picture.run(run);
        let number = entry.and_then(|e| Some(e.header()?.number));
        (number, entry.map_or(model::RunStatus::Queued, RunEntry::status))
    });
    RunCreated {
        run_id: run.to_string(),
        number,
        status: status.into(),
        web_url: server.web_url(run),
        created,
    }
}
