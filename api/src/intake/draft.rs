//! A trigger with what its repository holds at the commit becomes a draft of a run: its definition,
//! or the reason why it has none.
//!
//! Not here: writing anything.

use super::compile::{Made, compile};
use crate::state::Server;
use git_mirror::{GitError, Resolved};
use model::record::Unknown;
use model::{InboxEntry, PipelineRecord, RunDef, RunError, RunHeader, Source};

/// A run that is not written yet; its number is not chosen.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) source: Source,
    pub(super) made: Result<RunDef, RunError>,
}

/// What a trigger leads to.
#[derive(Debug)]
pub(super) enum Drafted {
    /// A run.
    Run(Box<Draft>),
    /// None: the file does not mean this event. Why.
    Nothing(String),
}

/// The repository could not be read at the moment; `error` stands if that does not change.
#[derive(Debug)]
pub(super) struct TryAgain {
    pub(super) error: GitError,
}

/// Makes the draft for a trigger.
pub(super) async fn draft(
    server: &Server,
    entry: &InboxEntry,
    pipeline: Option<&PipelineRecord>,
) -> Result<Drafted, TryAgain> {
    let sources = server.deps.sources.as_ref();
    let Some(pipeline) = pipeline else {
        let message = format!(
            "the pipeline {}/{} was deleted before its file could be read",
            entry.team, entry.pipeline
        );
        return Ok(Drafted::Run(Box::new(failed(entry, "", message))));
    };
    let repository = &pipeline.repository;
    let found = match sources.commit(repository, &entry.git_ref, &entry.commit).await {
        Ok(found) => found,
        Err(error) if error.retry() => return Err(TryAgain { error }),
        Err(error) => return Ok(Drafted::Run(Box::new(failed(entry, repository, error.to_string())))),
    };
    let source = source(entry, repository, Some(found));
    let made = match compile(server, entry, pipeline, &source).await? {
        Made::Run(def) => Ok(def),
        Made::Nothing(why) => return Ok(Drafted::Nothing(why)),
        Made::Wrong(error) => Err(error),
        Made::Inputs(findings) => Err(RunError {
            message: "the inputs do not fit the pipeline".to_owned(),
            findings,
        }),
    };
    Ok(Drafted::Run(Box::new(Draft { source, made })))
}

/// The draft of a run that failed before it had steps.
pub(super) fn failed(entry: &InboxEntry, repository: &str, message: String) -> Draft {
    Draft {
        source: source(entry, repository, None),
        made: Err(plain(message)),
    }
}

pub(super) fn plain(message: String) -> RunError {
    RunError {
        message,
        findings: Vec::new(),
    }
}

fn source(entry: &InboxEntry, repository: &str, found: Option<Resolved>) -> Source {
    let (message, author) = found.map(|f| (f.message, f.author)).unwrap_or_default();
    Source {
        repository: repository.to_owned(),
        git_ref: entry.git_ref.clone(),
        commit: entry.commit.clone(),
        message,
        author,
        event: entry.event,
    }
}

/// The header of a draft, but for its number.
pub(super) fn header(entry: &InboxEntry, draft: &Draft, number: u64, def_chunks: usize) -> RunHeader {
    RunHeader {
        id: entry.run.clone(),
        team: entry.team.clone(),
        pipeline: entry.pipeline.clone(),
        number,
        attempt: 1,
        source: draft.source.clone(),
        variables: entry.variables.clone(),
        inputs: entry.inputs.clone(),
        created_ms: entry.accepted_ms,
        def_chunks,
        steps: draft.made.as_ref().map_or(0, |def| def.steps.len()),
        error: draft.made.as_ref().err().cloned(),
        request_id: entry.request_id.clone(),
        requested_by: entry.requested_by.clone(),
        traceparent: entry.traceparent.clone(),
        unknown: Unknown::new(),
    }
}
