//! The pipeline file at a commit, with those that it includes, becomes the definition of a run.
//!
//! The compiler says which files it needs, and is asked again when they are there. What may cost a
//! look at the repository is looked at only when the file can need it: what an event changed, and
//! the name of the default branch. Not here: what is in a file (`pipeline`), writing anything.

use super::accept::Trigger;
use super::draft::{TryAgain, plain};
use super::sources::Sources;
use crate::state::Server;
use git_mirror::GitError;
use model::{Event, InboxEntry, PipelineName, PipelineRecord, RunDef, RunError, Source, TeamName};
use pipeline::{
    Answer, Explain, FINDINGS_MAX, FileRef, Files, Findings, Git, Limits, Occasion, Refused, Request, WrongInput,
};
use std::sync::Arc;

/// The largest pipeline file, bytes. One byte more is read, so that the compiler names its limit itself.
const FILE_MAX: usize = 1024 * 1024;

/// The most bytes of a run's whole definition: a file of 1 MiB whose environment is repeated in
/// hundreds of steps. Agents accept 8 MiB for a single step.
const DEFINITION_MAX: usize = 32 * 1024 * 1024;

/// How often the compiler may ask for more files: as often as files may include each other, and once more.
const ROUNDS_MAX: usize = pipeline::limits::INCLUDE_DEPTH_MAX + 2;

/// What the pipeline file makes of a trigger.
#[derive(Debug)]
pub(super) enum Made {
    Run(RunDef),
    /// No run. Why.
    Nothing(String),
    /// A run that failed before it had steps.
    Wrong(RunError),
    /// Likewise: what was entered does not fit. One sentence for each input.
    Inputs(Vec<String>),
}

/// What is wrong with what a person entered, one sentence for each input. What cannot be told at once,
/// because the repository does not answer or the file is not valid, the run itself tells later.
pub(crate) async fn wrong_inputs(server: &Server, pipeline: &PipelineRecord, trigger: &Trigger) -> Vec<String> {
    let source = Source {
        repository: pipeline.repository.clone(),
        git_ref: trigger.git_ref.clone(),
        commit: trigger.commit.clone(),
        message: String::new(),
        author: String::new(),
        event: trigger.event,
    };
    match compile(server, &trigger.entry(&super::new_run_id()), pipeline, &source).await {
        Ok(Made::Inputs(wrong)) => wrong,
        Ok(Made::Run(_) | Made::Nothing(_) | Made::Wrong(_)) | Err(TryAgain { .. }) => Vec::new(),
    }
}

/// Makes the definition of the run of a trigger.
pub(super) async fn compile(
    server: &Server,
    entry: &InboxEntry,
    pipeline: &PipelineRecord,
    source: &Source,
) -> Result<Made, TryAgain> {
    let reading = Reading {
        server,
        sources: server.deps.sources.as_ref(),
        pipeline,
        source,
    };
    let bytes = match reading.own(&pipeline.file).await {
        Ok(bytes) => Arc::new(bytes),
        Err(error) if error.retry() => return Err(TryAgain { error }),
        Err(error) => {
            let (file, commit) = (&pipeline.file, &source.commit);
            return Ok(Made::Wrong(plain(format!(
                "the pipeline file `{file}` cannot be read at commit {commit}: {error}"
            ))));
        }
    };
    let mut files = Files::new();
    let mut occasion = occasion(entry, source);
    for _ in 0..ROUNDS_MAX {
        reading.look(&bytes, &files, entry, &mut occasion).await?;
        let once = once(Arc::clone(&bytes), files.clone(), occasion.clone());
        match once.await {
            Some(Ok(Answer::Run(compiled))) => {
                let def = compiled.def;
                return Ok(if fits(&def) {
                    Made::Run(def)
                } else {
                    Made::Wrong(too_large(pipeline, source))
                });
            }
            Some(Ok(Answer::Nothing(why))) => return Ok(Made::Nothing(why)),
            Some(Ok(Answer::Missing(missing))) => {
                for file in missing {
                    let read = reading.included(&file).await?;
                    files.insert(file, read);
                }
            }
            Some(Err(Refused::File(findings))) => {
                return Ok(Made::Wrong(invalid(&pipeline.file, &source.commit, &findings)));
            }
            Some(Err(Refused::Inputs(wrong))) => return Ok(Made::Inputs(wrong.iter().map(told).collect())),
            None => return Ok(Made::Wrong(crashed(pipeline, source))),
        }
    }
    Ok(Made::Wrong(plain(
        "the pipeline file includes files without end".to_owned(),
    )))
}

/// Reads what a pipeline file needs.
struct Reading<'r> {
    server: &'r Server,
    sources: &'r dyn Sources,
    pipeline: &'r PipelineRecord,
    source: &'r Source,
}

impl Reading<'_> {
    async fn own(&self, path: &str) -> Result<Vec<u8>, GitError> {
        let (repository, commit) = (&self.pipeline.repository, &self.source.commit);
        self.sources.read_file(repository, commit, path, FILE_MAX + 1).await
    }

    /// An included file, or why it cannot be read.
    async fn included(&self, file: &FileRef) -> Result<Result<Vec<u8>, String>, TryAgain> {
        let read = match &file.repository {
            None => self.own(&file.path).await,
            Some(pinned) => {
                let names = pinned.pipeline.split_once('/');
                let names = names.and_then(|(t, p)| Some((TeamName::new(t).ok()?, PipelineName::new(p).ok()?)));
                let record = names.and_then(|(t, p)| self.server.view.read(|view| view.pipeline(&t, &p).cloned()));
                let Some(record) = record.filter(|record| record.team == self.pipeline.team) else {
                    return Ok(Err(format!("the team has no pipeline `{}`", pinned.pipeline)));
                };
                match self.sources.commit(&record.repository, "", &pinned.commit).await {
                    Ok(found) => {
                        let (repository, path) = (&record.repository, &file.path);
                        self.sources
                            .read_file(repository, &found.commit, path, FILE_MAX + 1)
                            .await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match read {
            Err(error) if error.retry() => Err(TryAgain { error }),
            other => Ok(other.map_err(|error| error.to_string())),
        }
    }

    /// Fills in what the files may ask for and what costs a look at the repository.
    async fn look(
        &self,
        bytes: &[u8],
        files: &Files,
        entry: &InboxEntry,
        occasion: &mut Occasion,
    ) -> Result<(), TryAgain> {
        let repository = &self.pipeline.repository;
        let included = files.values().filter_map(|read| read.as_deref().ok());
        let all: Vec<&[u8]> = std::iter::once(bytes).chain(included).collect();
        let holds = |word: &str| {
            all.iter()
                .any(|text| text.windows(word.len()).any(|w| w == word.as_bytes()))
        };
        if occasion.git.default_branch.is_empty() && holds("default_branch") {
            match self.sources.default_branch(repository).await {
                Ok(branch) => occasion.git.default_branch = branch,
                Err(error) if error.retry() => return Err(TryAgain { error }),
                // A repository without one: the name stays empty.
                Err(error) => tracing::info!(%error, "repository names no default branch"),
            }
        }
        if let (None, Some(before)) = (&occasion.changed, &entry.before)
            && (holds("paths") || holds("change"))
        {
            match self
                .sources
                .changed_files(repository, before, &self.source.commit)
                .await
            {
                Ok(changed) => occasion.changed = changed,
                Err(error) if error.retry() => return Err(TryAgain { error }),
                // After a forced push the old commit may be gone: it is not known what changed.
                Err(error) => tracing::info!(%error, before, "what changed cannot be told"),
            }
        }
        Ok(())
    }
}

fn occasion(entry: &InboxEntry, source: &Source) -> Occasion {
    Occasion {
        event: match source.event {
            Event::Push => "push",
            Event::Tag => "tag",
            Event::Manual => "manual",
        }
        .to_owned(),
        git: Git {
            git_ref: source.git_ref.clone(),
            sha: source.commit.clone(),
            author: source.author.clone(),
            message: source.message.clone(),
            default_branch: String::new(),
            pull_request: None,
        },
        team: entry.team.to_string(),
        pipeline: entry.pipeline.to_string(),
        run_id: entry.run.to_string(),
        inputs: entry.inputs.clone(),
        variables: entry.variables.clone(),
        changed: None,
    }
}

/// Compiles away from the threads that serve requests: a hostile file may take a while. `None`: the
/// compiler crashed.
async fn once(bytes: Arc<Vec<u8>>, files: Files, occasion: Occasion) -> Option<Result<Answer, Refused>> {
    let compiled = tokio::task::spawn_blocking(move || {
        pipeline::answer(&Request {
            bytes: &bytes,
            limits: Limits::default(),
            files: &files,
            occasion: Some(&occasion),
            explain: Explain::No,
        })
    });
    compiled
        .await
        .inspect_err(|crash| tracing::error!(error = %crash, "compiler crashed on a pipeline file"))
        .ok()
}

fn crashed(pipeline: &PipelineRecord, source: &Source) -> RunError {
    let (file, commit) = (&pipeline.file, &source.commit);
    plain(format!(
        "the pipeline file `{file}` at commit {commit} made the compiler fail: this is a fault of the server"
    ))
}

fn too_large(pipeline: &PipelineRecord, source: &Source) -> RunError {
    let (file, commit) = (&pipeline.file, &source.commit);
    plain(format!(
        "the pipeline file `{file}` at commit {commit} makes a definition of more than {} MiB; \
         repeat less environment in its steps",
        DEFINITION_MAX >> 20
    ))
}

fn told(wrong: &WrongInput) -> String {
    format!("the input `{}` {}", wrong.name, wrong.message)
}

fn invalid(file: &str, commit: &str, findings: &Findings) -> RunError {
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
