//! A trigger with what its repository holds at the commit becomes a draft of a run: its definition,
//! or the reason why it has none.
//!
//! Not here: writing anything.

use super::sources::Sources;
use git_mirror::{GitError, Resolved};
use model::record::Unknown;
use model::{InboxEntry, PipelineRecord, RunDef, RunError, RunHeader, Source};
use pipeline::{FINDINGS_MAX, Findings};

/// The largest pipeline file, bytes. One byte more is read, so that the compiler names its limit itself.
const FILE_MAX: usize = 1024 * 1024;

/// The most bytes of a run's whole definition: a file of 1 MiB whose environment is repeated in
/// hundreds of steps. Agents accept 8 MiB for a single step.
pub(super) const DEFINITION_MAX: usize = 32 * 1024 * 1024;

/// A run that is not written yet; its number is not chosen.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) source: Source,
    pub(super) made: Result<RunDef, RunError>,
}

/// The repository could not be read at the moment; `error` stands if that does not change.
#[derive(Debug)]
pub(super) struct TryAgain {
    pub(super) error: GitError,
}

/// Makes the draft for a trigger.
pub(super) async fn draft(
    sources: &dyn Sources,
    entry: &InboxEntry,
    pipeline: Option<&PipelineRecord>,
) -> Result<Draft, TryAgain> {
    let Some(pipeline) = pipeline else {
        let message = format!(
            "the pipeline {}/{} was deleted before its file could be read",
            entry.team, entry.pipeline
        );
        return Ok(failed(entry, "", message));
    };
    let repository = &pipeline.repository;
    let found = match sources.commit(repository, &entry.git_ref, &entry.commit).await {
        Ok(found) => found,
        Err(error) if error.retry() => return Err(TryAgain { error }),
        Err(error) => return Ok(failed(entry, repository, error.to_string())),
    };
    let source = source(entry, repository, Some(found));
    let read = sources
        .read_file(repository, &source.commit, &pipeline.file, FILE_MAX + 1)
        .await;
    let made = match read {
        Ok(bytes) => compile(bytes, &pipeline.file, &source.commit).await,
        Err(error) if error.retry() => return Err(TryAgain { error }),
        Err(error) => Err(plain(format!(
            "the pipeline file `{}` cannot be read at commit {}: {error}",
            pipeline.file, source.commit
        ))),
    };
    Ok(Draft { source, made })
}

/// The draft of a run that failed before it had steps.
pub(super) fn failed(entry: &InboxEntry, repository: &str, message: String) -> Draft {
    Draft {
        source: source(entry, repository, None),
        made: Err(plain(message)),
    }
}

fn plain(message: String) -> RunError {
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

/// Compiles away from the threads that serve requests: a hostile file may take a while.
async fn compile(bytes: Vec<u8>, file: &str, commit: &str) -> Result<RunDef, RunError> {
    let compiled = tokio::task::spawn_blocking(move || {
        let def = pipeline::compile_bytes(&bytes, pipeline::Limits::default());
        def.map(|def| (fits(&def), def))
    });
    match compiled.await {
        Ok(Ok((true, def))) => Ok(def),
        Ok(Ok((false, _))) => Err(plain(format!(
            "the pipeline file `{file}` at commit {commit} makes a definition of more than {} MiB; \
             repeat less environment in its steps",
            DEFINITION_MAX >> 20
        ))),
        Ok(Err(findings)) => Err(refused(file, commit, &findings)),
        Err(crash) => {
            tracing::error!(error = %crash, file, commit, "compiler crashed on a pipeline file");
            Err(plain(format!(
                "the pipeline file `{file}` at commit {commit} made the compiler fail: this is a fault of the server"
            )))
        }
    }
}

fn refused(file: &str, commit: &str, findings: &Findings) -> RunError {
    let count = findings.list.len() + findings.more;
    let many = if count == 1 { "" } else { "s" };
    RunError {
        message: format!("the pipeline file `{file}` at commit {commit} is not valid: {count} finding{many}"),
        findings: findings.lines().into_iter().take(FINDINGS_MAX + 1).collect(),
    }
}

/// Whether the definition's JSON stays below its limit, without holding it.
fn fits(def: &RunDef) -> bool {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            if self.0 > DEFINITION_MAX {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Counter(0), def).is_ok()
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
