//! What a stream or a download of logs begins with, whatever protocol asks: the run, the step, the attempt
//! and the place are found, or refused.
//!
//! Not here: parameters and answers of HTTP (`rest`) and gRPC (`crate::rpc`).

use super::cursor::Cursor;
use super::feed::{Picture, StepLog, picture};
use super::hub::LogError;
use super::tail::{Abroad, Position, Scope, Tail};
use crate::clock;
use crate::fleet::definitions::DefinitionError;
use crate::problem::{Answer, Problem};
use crate::state::Shared;
use api_core::logs::{fence_of, run_prefix, step_prefix};
use axum::http::{HeaderMap, StatusCode, header};
use model::{Fence, RunId};

/// The event after which a stream goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct After<'a> {
    /// What the protocol calls the field.
    pub(crate) named: &'static str,
    /// The event's id.
    pub(crate) id: &'a str,
}

/// The log of one step that somebody asks for.
pub(crate) struct StepLogs {
    /// The run.
    pub(super) picture: Picture,
    /// The step's ordinal.
    pub(super) step: usize,
    /// The log that is asked for, or the newest.
    pub(super) log: StepLog,
    attempt: Option<u32>,
    fixed: Option<StepLog>,
}

impl StepLogs {
    /// Finds the log of an attempt, or of the newest.
    ///
    /// # Errors
    /// 404, or 410 when it was kept for long enough.
    pub(crate) async fn find(server: &Shared, run: &str, step: &str, attempt: Option<u32>) -> Answer<Self> {
        let run = run_id(run)?;
        let picture = look(server, &run).await?;
        let step = step_ordinal(&picture, step)?;
        let fixed = match attempt {
            Some(attempt) => earlier_attempt(server, &picture, step, attempt).await?,
            None => None,
        };
        let log = fixed.clone().unwrap_or_else(|| picture.steps[step].clone());
        refuse_removed(server, &picture, &step_prefix(&run, step), std::slice::from_ref(&log)).await?;
        Ok(Self {
            picture,
            step,
            log,
            attempt,
            fixed,
        })
    }

    /// The run.
    pub(crate) fn run(&self) -> &RunId {
        &self.picture.definition.header.id
    }

    /// What a stream is about that begins at a byte, or goes on after an id.
    ///
    /// # Errors
    /// 400 for an id that is none; 416 when the log ends before.
    pub(crate) fn scope(&self, offset: Option<u64>, after: Option<After<'_>>) -> Answer<Scope> {
        let asked = self.log.attempt().map_or(0, |(attempt, _)| attempt);
        let mut from = match after {
            Some(after) => Position::parse(after.id).ok_or_else(|| {
                let rule = "must be an offset, or attempt.offset, as the stream's ids are";
                Problem::bad_field(after.named, rule)
            })?,
            None => Position {
                attempt: 0,
                offset: offset.unwrap_or(0),
            },
        };
        if self.attempt.is_some() || from.attempt == asked {
            from.attempt = 0;
        }
        match &self.log {
            StepLog::Ended { total: Some(total), .. } if from.attempt == 0 && from.offset > *total => {
                Err(beyond(from.offset, *total))
            }
            _ => Ok(Scope::Step {
                step: self.step,
                only: self.attempt,
                fixed: self.fixed.clone(),
                from,
            }),
        }
    }
}

/// A run all of whose logs somebody asks for.
///
/// # Errors
/// 404, or 410 when they were kept for long enough.
pub(crate) async fn logs_of_run(server: &Shared, run: &str) -> Answer<Picture> {
    let run = run_id(run)?;
    let picture = look(server, &run).await?;
    refuse_removed(server, &picture, &run_prefix(&run), &picture.steps).await?;
    Ok(picture)
}

/// What a stream of all logs of a run is about, which may go on after an id.
///
/// # Errors
/// 400 for an id that is none.
pub(crate) fn scope_of_run(picture: &Picture, after: Option<After<'_>>) -> Answer<Scope> {
    let cursor = match after {
        None => Cursor::default(),
        Some(after) => Cursor::parse(after.id, picture.steps.len())
            .ok_or_else(|| Problem::bad_field(after.named, "is not an id of this stream"))?,
    };
    Ok(Scope::Run(cursor))
}

/// The stream; with the reader's authorization in `headers` it also has what nodes of other servers write.
///
/// # Errors
/// 404, 503.
pub(crate) async fn open_tail(
    server: &Shared,
    run: &RunId,
    scope: Scope,
    live: bool,
    headers: &HeaderMap,
) -> Answer<Tail> {
    let follow = server
        .feeds
        .follow(&server.deps.store, &server.definitions, &server.archives, run);
    let follow = follow.await.map_err(definition_problem)?;
    let abroad = headers.get(header::AUTHORIZATION).map(|authorization| Abroad {
        server: server.clone(),
        authorization: authorization.clone(),
    });
    let tail = Tail::new(server.logs.clone(), follow, scope, live, server.deps.shutdown.clone());
    Ok(tail.abroad(abroad))
}

fn run_id(text: &str) -> Answer<RunId> {
    // What cannot be an id is the id of no run.
    RunId::new(text).map_err(|_| no_run(text))
}

fn no_run(run: &str) -> Problem {
    let shown: String = run.chars().take(80).collect();
    Problem::not_found(format!("there is no run `{shown}`"))
}

async fn look(server: &Shared, run: &RunId) -> Answer<Picture> {
    picture(server.store(), &server.definitions, &server.archives, run)
        .await
        .map_err(definition_problem)
}

/// Refuses logs that had bytes, were kept for as long as logs are, and have been removed.
async fn refuse_removed(server: &Shared, picture: &Picture, prefix: &str, logs: &[StepLog]) -> Answer<()> {
    let had_bytes = |log: &StepLog| matches!(log, StepLog::Ended { total, .. } if *total != Some(0));
    if !logs.iter().any(had_bytes) {
        return Ok(());
    }
    let header = &picture.definition.header;
    let (keep, branch) = (&server.config.keep, header.source.branch());
    if !picture.is_over() || !keep.logs_are_over(branch, header.created_ms, clock::now_ms()) {
        return Ok(());
    }
    let there = server.deps.blobs.list_page(prefix, None, 1).await;
    if !there.map_err(|e| log_problem(&e.into()))?.entries.is_empty() {
        return Ok(());
    }
    let days = keep.logs_of_ms(branch) / 86_400_000;
    Err(Problem::from_status(
        StatusCode::GONE,
        format!("the log was removed: logs of such runs are kept for {days} days"),
    ))
}

fn definition_problem(error: DefinitionError) -> Problem {
    match error {
        DefinitionError::NoRun(run) => no_run(run.as_str()),
        DefinitionError::Store(error) => Problem::from(error),
        DefinitionError::Archive(error) => Problem::from(error),
        DefinitionError::NoChunk { .. } | DefinitionError::Record { .. } | DefinitionError::Definition { .. } => {
            tracing::error!(%error, "run definition cannot be read");
            Problem::internal()
        }
    }
}

pub(super) fn log_problem(error: &LogError) -> Problem {
    tracing::warn!(%error, "log cannot be read");
    Problem::unavailable("the log cannot be read at the moment; nothing is lost, try again")
}

fn step_ordinal(picture: &Picture, name: &str) -> Answer<usize> {
    picture.definition.def.step_index(name).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        Problem::not_found(format!("the run has no step `{shown}`"))
    })
}

/// Where the log of an attempt stands that is not the newest; `None`: it is the newest.
async fn earlier_attempt(server: &Shared, picture: &Picture, step: usize, attempt: u32) -> Answer<Option<StepLog>> {
    let newest = picture.steps[step].attempt().map_or(0, |(a, _)| a);
    if let Some(earlier) = picture.earlier(step, attempt) {
        return Ok(Some(earlier.clone()));
    }
    if attempt == newest || (newest == 0 && attempt == 1) {
        return Ok(None);
    }
    let absent = || Problem::not_found(format!("the step has no attempt {attempt}; the newest is {newest}"));
    if attempt > newest {
        return Err(absent());
    }
    let prefix = step_prefix(&picture.definition.header.id, step);
    let blobs = server
        .deps
        .blobs
        .list(&prefix)
        .await
        .map_err(|e| log_problem(&e.into()))?;
    let fence: Option<Fence> = blobs
        .iter()
        .filter_map(|b| fence_of(b.name.as_str()))
        .find(|f| f.counter == attempt);
    let total = None;
    fence
        .map(|fence| Some(StepLog::Ended { attempt, fence, total }))
        .ok_or_else(absent)
}

pub(super) fn beyond(offset: u64, len: u64) -> Problem {
    Problem::from_status(
        StatusCode::RANGE_NOT_SATISFIABLE,
        format!("`offset` is {offset}, but the log has {len} bytes"),
    )
}
