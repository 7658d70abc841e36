//! The forms of the interface as messages.
//!
//! Not here: what is in them.

use crate::dto;
use crate::logs::Piece;
use crate::rest::events::{Moment, Told};
use wire::v1;

pub(super) fn run_status(status: dto::RunStatus) -> i32 {
    let status = match status {
        dto::RunStatus::Queued => v1::RunStatus::Queued,
        dto::RunStatus::Running => v1::RunStatus::Running,
        dto::RunStatus::Success => v1::RunStatus::Success,
        dto::RunStatus::Failed => v1::RunStatus::Failed,
        dto::RunStatus::Cancelled => v1::RunStatus::Cancelled,
        dto::RunStatus::TimedOut => v1::RunStatus::TimedOut,
    };
    status.into()
}

fn step_status(status: dto::StepStatus) -> i32 {
    let status = match status {
        dto::StepStatus::Pending => v1::StepStatus::Pending,
        dto::StepStatus::Queued => v1::StepStatus::Queued,
        dto::StepStatus::Assigned => v1::StepStatus::Assigned,
        dto::StepStatus::Running => v1::StepStatus::Running,
        dto::StepStatus::Success => v1::StepStatus::Success,
        dto::StepStatus::Failed => v1::StepStatus::Failed,
        dto::StepStatus::Cancelled => v1::StepStatus::Cancelled,
        dto::StepStatus::TimedOut => v1::StepStatus::TimedOut,
        dto::StepStatus::Skipped => v1::StepStatus::Skipped,
    };
    status.into()
}

/// Protobuf counts with 32 bits where memory does with more; no list here is so long.
fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(super) fn submitted(run: dto::RunCreated) -> v1::SubmitRunReply {
    v1::SubmitRunReply {
        run_id: run.run_id,
        number: run.number,
        status: run_status(run.status),
        web_url: run.web_url,
        created: run.created,
    }
}

pub(super) fn list(list: dto::RunList) -> v1::ListRunsReply {
    v1::ListRunsReply {
        runs: list.runs.into_iter().map(summary).collect(),
        next_cursor: list.next_cursor.unwrap_or_default(),
        warning: list.warning.unwrap_or_default(),
    }
}

fn summary(run: dto::RunSummary) -> v1::RunSummary {
    v1::RunSummary {
        run_id: run.run_id,
        number: run.number,
        team: run.team,
        pipeline: run.pipeline,
        status: run_status(run.status),
        event: run.event.as_str().to_owned(),
        r#ref: run.git_ref,
        branch: run.branch,
        tag: run.tag,
        commit: run.commit,
        message: run.message,
        author: run.author,
        requested_by: run.requested_by,
        step_count: count(run.steps),
        error: run.error,
        created_ms: run.created_ms,
        started_ms: run.started_ms,
        ended_ms: run.ended_ms,
        web_url: run.web_url,
    }
}

pub(super) fn run(run: dto::RunDetail) -> v1::Run {
    v1::Run {
        summary: Some(summary(run.summary)),
        title: run.title,
        attempt: run.attempt,
        repository: run.repository,
        variables: run.variables.into_iter().collect(),
        findings: run.findings,
        cancel_requested: run.cancel_requested,
        request_id: run.request_id,
        stages: run.stages.into_iter().map(stage).collect(),
    }
}

fn stage(stage: dto::StageDetail) -> v1::RunStage {
    v1::RunStage {
        name: stage.name,
        steps: stage.steps.into_iter().map(step).collect(),
    }
}

fn step(step: dto::StepDetail) -> v1::RunStep {
    v1::RunStep {
        name: step.name,
        title: step.title,
        ordinal: count(step.ordinal),
        status: step_status(step.status),
        attempt: step.attempt,
        node: step.node,
        node_name: step.node_name,
        reason: step.reason,
        exit_code: step.exit_code,
        outcome: step.outcome,
        needs: step.needs,
        allow_failure: step.allow_failure,
        image: step.image,
        timeout_ms: step.timeout_ms,
        resources: Some(v1::Resources {
            cpu_millis: step.resources.cpu_millis,
            memory_bytes: step.resources.memory_bytes,
            disk_bytes: step.resources.disk_bytes,
        }),
        phases: step.phases.into_iter().map(phase).collect(),
        r#use: step.usage.map(usage),
        times: Some(times(step.times)),
        log_bytes: step.log_bytes,
        retry_at_ms: step.retry_at_ms,
        manual: step.manual,
        outputs: step.outputs.into_iter().collect(),
        summary: step.summary,
        attempts: step.attempts.into_iter().map(attempt).collect(),
    }
}

fn phase(phase: dto::Phase) -> v1::StepPhase {
    v1::StepPhase {
        name: phase.name,
        ms: phase.ms,
        bytes: phase.bytes,
    }
}

fn usage(usage: dto::Usage) -> v1::StepUse {
    v1::StepUse {
        memory_peak_bytes: usage.memory_peak_bytes,
        cpu_ms: usage.cpu_ms,
        throttled_ms: usage.throttled_ms,
    }
}

fn times(times: dto::Times) -> v1::StepTimes {
    v1::StepTimes {
        queued_ms: times.queued_ms,
        assigned_ms: times.assigned_ms,
        started_ms: times.started_ms,
        ended_ms: times.ended_ms,
    }
}

fn attempt(attempt: dto::AttemptDetail) -> v1::StepAttempt {
    v1::StepAttempt {
        attempt: attempt.attempt,
        node: attempt.node,
        node_name: attempt.node_name,
        outcome: attempt.outcome,
        exit_code: attempt.exit_code,
        reason: attempt.reason,
        ended: attempt.ended,
        counts: attempt.counts,
        times: Some(times(attempt.times)),
        r#use: attempt.usage.map(usage),
        log_bytes: attempt.log_bytes,
        log_lost: attempt.log_lost,
    }
}

pub(super) fn cancelled(accepted: dto::CancelAccepted) -> v1::CancelRunReply {
    v1::CancelRunReply {
        run_id: accepted.run_id,
        status: run_status(accepted.status),
        message: accepted.message,
    }
}

pub(super) fn moment(moment: Moment) -> v1::RunEvent {
    use v1::run_event::What;
    let what = match moment.what {
        Told::Snapshot(whole) => What::Snapshot(run(*whole)),
        Told::Step(change) => What::Step(v1::StepChange {
            step: change.step,
            ordinal: count(change.ordinal),
            status: step_status(change.status),
            attempt: change.attempt,
            node: change.node,
            reason: change.reason,
            log_bytes: change.log_bytes,
        }),
        Told::Run(change) => What::Run(run_status(change.status)),
        Told::End(change) => What::End(run_status(change.status)),
    };
    v1::RunEvent {
        id: moment.id.to_string(),
        what: Some(what),
    }
}

pub(super) fn piece(piece: Piece) -> v1::LogEvent {
    use v1::log_event::What;
    let (id, what) = match piece {
        Piece::Begin { step, attempt, offset } => (String::new(), What::Step(v1::LogBegin { step, attempt, offset })),
        Piece::Data(id, bytes) => (id, What::Data(bytes.into())),
        Piece::End {
            id,
            step,
            attempt,
            total,
            complete,
            lost,
        } => {
            let end = v1::LogEnd {
                step,
                attempt,
                total_bytes: total,
                complete,
                lost,
            };
            (id, What::End(end))
        }
        Piece::Done => (String::new(), What::Done(v1::LogDone {})),
    };
    v1::LogEvent { id, what: Some(what) }
}
