//! `run --local`: the run of a folder, started and followed as any other, on a server and an agent that
//! live as long as it does.
//!
//! Not here: what these two are made of (`crate::local`).

use super::arguments::{DEFAULT_TEAM, Pair, RunArguments};
use super::failure::{Exit, Failure};
use super::http::Api;
use super::logs;
use super::output::Output;
use super::settings::Settings;
use super::table::counted;
use crate::local::{Local, Name, Wanted, variables_of};
use api::dto::{CancelAccepted, CreateRun, Pipeline, PushAccepted, PushEvent, PutPipeline, RunCreated};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How long server and agent may take to be there.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long an interrupted run may take to end.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(20);

/// The name of a folder's pipeline when the folder's own name is none.
const PIPELINE: &str = "local";

impl From<crate::error::Failure> for Failure {
    fn from(failure: crate::error::Failure) -> Self {
        use crate::error::Failure as Role;
        match failure {
            Role::Usage(text) => Self::Usage(text),
            Role::Internal(text) => Self::Unreachable(text),
            Role::NotAllowed(text) => Self::NotAllowed(text),
        }
    }
}

/// Runs the folder's pipeline and answers its exit code. Ctrl-C cancels the run first.
pub(super) async fn run(arguments: &RunArguments, output: &mut Output) -> Result<Exit, Failure> {
    let wanted = Wanted {
        path: &arguments.path,
        name: arguments.git_ref.as_deref().map(name).transpose()?,
        pipeline: arguments.pipeline.as_ref().map(|p| p.name.as_str()),
        images: &arguments.images,
    };
    let event = event(arguments, wanted.name.as_ref())?;
    let talk = output.talk;
    let local = Local::start(&wanted, |text| talk.say(text)).await?;
    let mut started = None;
    let interrupted = local.interrupted.clone();
    let done = tokio::select! {
        done = drive(&local, arguments, event, &mut started, output) => done,
        () = interrupted.cancelled() => {
            talk.say("stopping the run; once more leaves at once");
            Err(Failure::Interrupted)
        }
    };
    if let (Err(_), Some((api, run))) = (&done, &started) {
        cancel(api, run).await;
    }
    local.end().await?;
    done
}

/// As what the folder counts.
fn name(text: &str) -> Result<Name, Failure> {
    match text.strip_prefix("refs/") {
        None => Ok(Name::Branch(text.to_owned())),
        Some(rest) => match rest.split_once('/') {
            Some(("heads", branch)) => Ok(Name::Branch(branch.to_owned())),
            Some(("tags", tag)) => Ok(Name::Tag(tag.to_owned())),
            _ => Err(Failure::Usage(format!(
                "`{text}` is neither a branch nor a tag; say refs/heads/NAME or refs/tags/NAME"
            ))),
        },
    }
}

/// What the run is started by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Manual,
    Push,
}

fn event(arguments: &RunArguments, name: Option<&Name>) -> Result<Event, Failure> {
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    let tag = matches!(name, Some(Name::Tag(_)));
    let event = match arguments.event.as_deref() {
        None | Some("manual") => return Ok(Event::Manual),
        Some("push") if tag => return usage("a push has a branch; `--event tag` goes with a tag"),
        Some("tag") if !tag => return usage("`--event tag` needs the tag: --ref refs/tags/NAME"),
        Some("push" | "tag") => Event::Push,
        Some(other) => return Err(Failure::not_supported_yet(&format!("`--event {other}`"))),
    };
    if arguments.inputs.is_empty() && arguments.variables.is_empty() && arguments.env_file.is_none() {
        return Ok(event);
    }
    usage("inputs and variables are a manual run's; leave --event out")
}

/// Starts the run and follows it. `started` is told how it is reached.
async fn drive(
    local: &Local,
    arguments: &RunArguments,
    event: Event,
    started: &mut Option<(Api, String)>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let connect = || {
        Api::connect(&Settings {
            addrs: vec![format!("http://{}", local.address)],
            addr_from: "run --local".to_owned(),
            token: Some(local.token.clone()),
            ca: None,
        })
    };
    let api = connect()?;
    there(&api).await?;
    let pipeline = pipeline_name(&arguments.path);
    let record = PutPipeline {
        repository: local.snapshot.url.clone(),
        file: Some(local.file.clone()),
    };
    api.put::<Pipeline>(&["pipelines", DEFAULT_TEAM, &pipeline], &record)
        .await?;
    output.talk.say(&what(local));
    let run = match event {
        Event::Manual => manual(&api, local, arguments, &pipeline).await?,
        Event::Push => push(&api, local).await?,
    };
    *started = Some((connect()?, run.clone()));
    logs::watch_run(&api, &run, output).await
}

/// What is run, in a line.
fn what(local: &Local) -> String {
    let snapshot = &local.snapshot;
    let name = match &snapshot.name {
        Name::Branch(branch) => format!("branch {branch}"),
        Name::Tag(tag) => format!("tag {tag}"),
    };
    let short = snapshot.commit.get(..10).unwrap_or(&snapshot.commit);
    match snapshot.changed {
        0 => format!("running {} of {name} at {short}", local.file),
        changed => format!(
            "running {} of {name}, {} included",
            local.file,
            counted(changed, "uncommitted file")
        ),
    }
}

/// Waits for the server, and for its only node.
async fn there(api: &Api) -> Result<(), Failure> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let answer = api.get::<Value>(&["nodes"], &[]).await;
        match answer {
            Ok(nodes) if nodes.raw["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()) => return Ok(()),
            Ok(_) if Instant::now() > deadline => {
                let text = "the agent of this machine does not come up; `buildflow admin check` may say why";
                return Err(Failure::Unreachable(text.to_owned()));
            }
            Err(failure) if Instant::now() > deadline => return Err(failure),
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn manual(api: &Api, local: &Local, arguments: &RunArguments, pipeline: &str) -> Result<String, Failure> {
    let inputs = arguments.inputs.iter().cloned();
    let inputs: std::collections::BTreeMap<String, Value> =
        inputs.map(|Pair(name, value)| (name, value.into())).collect();
    let of_file = arguments.env_file.as_deref().map(variables_of).transpose()?;
    let variables = of_file.into_iter().flatten().chain(arguments.variables.iter().cloned());
    let (branch, tag) = match &local.snapshot.name {
        Name::Branch(branch) => (Some(branch.clone()), None),
        Name::Tag(tag) => (None, Some(tag.clone())),
    };
    let wish = CreateRun {
        branch,
        tag,
        inputs: (!inputs.is_empty()).then_some(inputs),
        variables: variables.collect(),
        ..CreateRun::default()
    };
    let path = ["pipelines", DEFAULT_TEAM, pipeline, "runs"];
    let created = api.post::<RunCreated>(&path, Some(&wish)).await?;
    Ok(created.body.run_id)
}

async fn push(api: &Api, local: &Local) -> Result<String, Failure> {
    let event = PushEvent {
        repository: local.snapshot.url.clone(),
        git_ref: local.snapshot.name.full(),
        commit: local.snapshot.commit.clone(),
        before: local.snapshot.before.clone(),
    };
    let accepted = api.post::<PushAccepted>(&["events", "push"], Some(&event)).await?.body;
    match accepted.runs.into_iter().next() {
        Some(pushed) => Ok(pushed.run.run_id),
        None => Err(Failure::Usage(accepted.message)),
    }
}

/// Asks for the run's end and waits for it a while; whatever is left of it the agent ends.
async fn cancel(api: &Api, run: &str) {
    let asked = api.post::<CancelAccepted>(&["runs", run, "cancel"], None::<&()>).await;
    if asked.is_ok() {
        // What does not end in time is ended with the agent's next start.
        drop(tokio::time::timeout(CANCEL_TIMEOUT, logs::ended(api, run)).await);
    }
}

/// The folder's name, when it is one for pipelines.
fn pipeline_name(path: &Path) -> String {
    let canonical = path.canonicalize().ok();
    let name = canonical.as_deref().and_then(Path::file_name).and_then(|n| n.to_str());
    let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
    match model::id::check_name(&name) {
        Ok(()) => name,
        Err(_) => PIPELINE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: RunArguments,
    }

    fn asked(words: &[&str]) -> Result<Event, String> {
        let words = ["run", "--local"].iter().chain(words);
        let arguments = Line::try_parse_from(words).expect("legal").arguments;
        let name = arguments.git_ref.as_deref().map(name).transpose();
        let name = name.map_err(|e| e.to_string())?;
        event(&arguments, name.as_ref()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_event_and_what_it_goes_with() {
        assert_eq!(asked(&[]), Ok(Event::Manual));
        assert_eq!(asked(&["--event", "manual", "--input", "a=b"]), Ok(Event::Manual));
        assert_eq!(asked(&["--event", "push", "--ref", "topic/x"]), Ok(Event::Push));
        assert_eq!(asked(&["--event", "tag", "--ref", "refs/tags/v1"]), Ok(Event::Push));
        for (words, told) in [
            (&["--event", "tag"][..], "refs/tags"),
            (&["--event", "push", "--ref", "refs/tags/v1"], "--event tag"),
            (&["--event", "push", "--variable", "A=1"], "manual"),
            (&["--event", "schedule"], "not supported yet"),
            (&["--ref", "refs/notes/x"], "neither a branch nor a tag"),
        ] {
            let error = asked(words).expect_err("refused");
            assert!(error.contains(told), "{words:?}: {error}");
        }
    }
}
