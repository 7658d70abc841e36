//! `logs`, and the following of a run to its end.
//!
//! The log of one step goes out as it is, byte by byte. Lines of several steps go out under their
//! steps' names. As JSON, each event of the stream is one line.

use super::arguments::LogsArguments;
use super::failure::{Exit, Failure};
use super::follow::{Follow, GIVE_UP_AFTER};
use super::http::{Answer, Api, Parameter};
use super::output::{Output, Talk};
use super::progress::Interleaved;
use super::resolve;
use super::runs;
use super::sse::Event;
use super::watch;
use api::dto::{RunDetail, StepChanged, StepStatus};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How soon a run is looked at again that has no steps yet, or whose log has ended before it.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How long the changes of a run may take after its log has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Data of the event `step`.
#[derive(Debug, Deserialize)]
pub(super) struct StepBegins {
    pub(super) step: String,
    pub(super) attempt: u32,
}

/// Data of the event `end`.
#[derive(Debug, Deserialize)]
pub(super) struct StepEnds {
    step: String,
    attempt: u32,
    complete: bool,
}

/// An event of a log, understood.
#[derive(Debug)]
pub(super) enum LogEvent {
    Begins(StepBegins),
    Bytes(Vec<u8>),
    Ends(StepEnds),
    Done,
    /// Of a newer release.
    Other,
}

impl LogEvent {
    pub(super) fn read(event: &Event) -> Result<Self, Failure> {
        let strange = |what: String| Failure::Unreachable(format!("the server's stream is not understood: {what}"));
        let json = |e: serde_json::Error| strange(e.to_string());
        match event.event.as_str() {
            "step" => serde_json::from_str(&event.data).map(Self::Begins).map_err(json),
            "log" => Ok(Self::Bytes(event.data.clone().into_bytes())),
            "bytes" => BASE64_STANDARD
                .decode(&event.data)
                .map(Self::Bytes)
                .map_err(|e| strange(e.to_string())),
            "end" => serde_json::from_str(&event.data).map(Self::Ends).map_err(json),
            "done" => Ok(Self::Done),
            _ => Ok(Self::Other),
        }
    }
}

pub(super) async fn logs(api: &Api, arguments: LogsArguments, output: &mut Output) -> Result<Exit, Failure> {
    let id = resolve::run_id(api, &arguments.run).await?;
    let step = arguments.step.as_deref();
    if arguments.follow {
        steps_known(api, &id).await?;
    }
    let mut query: Vec<Parameter> = Vec::new();
    query.extend(arguments.attempt.map(|a| ("attempt", a.to_string())));
    if output.is_json() {
        query.push(("follow", arguments.follow.to_string()));
        print_events(api, &log_path(&id, step), query, output).await?;
    } else if !arguments.follow {
        return download(api, &log_path(&id, step), &query, output).await;
    } else if let Some(step) = step {
        follow_one(api, &log_path(&id, Some(step)), query, output).await?;
    } else {
        return follow_run(api, &id, output).await;
    }
    if arguments.follow {
        end_of(api, &id, step).await
    } else {
        Ok(Exit::Success)
    }
}

pub(super) fn log_path<'a>(id: &'a str, step: Option<&'a str>) -> Vec<&'a str> {
    match step {
        Some(step) => vec!["runs", id, "steps", step, "logs"],
        None => vec!["runs", id, "logs"],
    }
}

/// What is there now, as it is.
async fn download(api: &Api, path: &[&str], query: &[Parameter], output: &mut Output) -> Result<Exit, Failure> {
    let mut response = api.stream(path, query, &[("accept", "text/plain")]).await?;
    let complete = response.headers().get("x-log-complete").is_none_or(|v| v == "true");
    while let Some(chunk) = response.chunk().await.map_err(|e| api.lost(&e))? {
        output.bytes(&chunk)?;
    }
    if !complete {
        output.talk.say("(there is more to come; --follow goes on to the end)");
    }
    Ok(Exit::Success)
}

/// Each event as a line of JSON.
async fn print_events(api: &Api, path: &[&str], query: Vec<Parameter>, output: &mut Output) -> Result<(), Failure> {
    let mut events = Follow::new(api, path, query, output.talk);
    loop {
        let event = events.next().await?;
        let understood = LogEvent::read(&event)?;
        let data = match &understood {
            LogEvent::Bytes(_) => Value::String(event.data.clone()),
            _ => serde_json::from_str(&event.data).unwrap_or_else(|_| Value::String(event.data.clone())),
        };
        let line = json!({ "event": event.event, "id": event.id, "data": data });
        output.line(&line.to_string())?;
        if matches!(understood, LogEvent::Done) {
            return Ok(());
        }
    }
}

/// One step's log, byte by byte, attempt after attempt, until its end.
async fn follow_one(api: &Api, path: &[&str], mut query: Vec<Parameter>, output: &mut Output) -> Result<(), Failure> {
    query.push(("follow", "true".to_owned()));
    let mut events = Follow::new(api, path, query, output.talk);
    let mut attempt = None;
    loop {
        match LogEvent::read(&events.next().await?)? {
            LogEvent::Begins(begins) => {
                if attempt
                    .replace(begins.attempt)
                    .is_some_and(|before| before != begins.attempt)
                {
                    let StepBegins { step, attempt } = begins;
                    output.talk.say(&format!("-- {step} is tried again: attempt {attempt}"));
                }
            }
            LogEvent::Bytes(bytes) => output.bytes(&bytes)?,
            LogEvent::Ends(ends) => say_if_lost(&ends, output.talk),
            LogEvent::Done => return Ok(()),
            LogEvent::Other => {}
        }
    }
}

fn say_if_lost(ends: &StepEnds, talk: Talk) {
    if !ends.complete {
        talk.say(&format!(
            "the rest of the log of {}, attempt {}, is lost",
            ends.step, ends.attempt
        ));
    }
}

/// A run to its end: on a terminal its tree, elsewhere the lines of its steps. The exit code is the run's.
pub(super) async fn watch_run(api: &Api, id: &str, output: &mut Output) -> Result<Exit, Failure> {
    if watch::is_possible(output) {
        return watch::watch(api, id, output).await;
    }
    follow_run(api, id, output).await
}

/// A run to its end: what its steps print, and what becomes of them. The exit code is the run's.
pub(super) async fn follow_run(api: &Api, id: &str, output: &mut Output) -> Result<Exit, Failure> {
    let run = steps_known(api, id).await?;
    let talk = output.talk;
    // A broken stream of changes is no reason to stop: the log still says what happens, and the
    // run's end is looked up below.
    let changes = say_changes(api, id, talk);
    if output.is_json() {
        // Programs get the run's end only; `logs --output json` has the lines.
        drop(changes.await);
    } else {
        let names: Vec<String> = steps_of(&run).map(str::to_owned).collect();
        let lines = Interleaved::new(output.paint, names.iter().map(String::as_str));
        both(follow_all(api, id, lines, output), changes).await?;
    }
    let run = ended(api, id).await?;
    if output.is_json() {
        output.json(&run.raw)?;
    } else {
        talk.say(&runs::summary(&run.body));
    }
    Ok(Exit::of_run(run.body.summary.status))
}

/// Runs both; the first one's end is waited for, the second one then has a moment for its last words.
async fn both(
    logs: impl Future<Output = Result<(), Failure>>,
    changes: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    tokio::pin!(logs, changes);
    let mut told = false;
    loop {
        tokio::select! {
            done = &mut logs => {
                done?;
                break;
            }
            _ = &mut changes, if !told => told = true,
        }
    }
    if !told {
        drop(tokio::time::timeout(LAST_WORDS, changes).await);
    }
    Ok(())
}

fn steps_of(run: &RunDetail) -> impl Iterator<Item = &str> {
    run.stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .map(|step| step.name.as_str())
}

/// The run as it stands; waits for a server that is away for a while.
pub(super) async fn look(api: &Api, id: &str) -> Result<Answer<RunDetail>, Failure> {
    let begun = Instant::now();
    loop {
        match api.get::<RunDetail>(&["runs", id], &[]).await {
            Err(Failure::Unreachable(_)) if begun.elapsed() < GIVE_UP_AFTER => tokio::time::sleep(LOOK_AGAIN).await,
            answer => return answer,
        }
    }
}

/// Waits until the pipeline file has been read.
pub(super) async fn steps_known(api: &Api, id: &str) -> Result<RunDetail, Failure> {
    loop {
        let run = look(api, id).await?.body;
        if run.summary.number.is_some() || run.summary.status.is_terminal() {
            return Ok(run);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until nothing more happens to the run.
pub(super) async fn ended(api: &Api, id: &str) -> Result<Answer<RunDetail>, Failure> {
    loop {
        let run = look(api, id).await?;
        if run.body.summary.status.is_terminal() {
            return Ok(run);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The lines of all steps.
async fn follow_all(api: &Api, id: &str, mut lines: Interleaved, output: &mut Output) -> Result<(), Failure> {
    let query = vec![("follow", "true".to_owned())];
    let mut events = Follow::new(api, &log_path(id, None), query, output.talk);
    let mut step = String::new();
    loop {
        match LogEvent::read(&events.next().await?)? {
            LogEvent::Begins(begins) => step = begins.step,
            LogEvent::Bytes(bytes) => output.bytes(&lines.push(&step, &bytes))?,
            LogEvent::Ends(ends) => {
                output.bytes(&lines.end(&ends.step))?;
                say_if_lost(&ends, output.talk);
            }
            LogEvent::Done => return Ok(()),
            LogEvent::Other => {}
        }
    }
}

/// Says what becomes of the steps, until the run's end.
async fn say_changes(api: &Api, id: &str, talk: Talk) -> Result<(), Failure> {
    // That the connection is lost is said by the log beside it.
    let mut events = Follow::new(api, &["runs", id, "events"], Vec::new(), Talk::Silent);
    let mut known = Known::default();
    loop {
        let event = events.next().await?;
        // What a newer release says differently is passed over.
        match event.event.as_str() {
            "snapshot" => {
                if let Ok(run) = serde_json::from_str::<RunDetail>(&event.data) {
                    known.snapshot(&run).iter().for_each(|line| talk.say(line));
                }
            }
            "step" => {
                if let Ok(change) = serde_json::from_str::<StepChanged>(&event.data) {
                    known.change(&change).iter().for_each(|line| talk.say(line));
                }
            }
            "end" => return Ok(()),
            _ => {}
        }
    }
}

/// What was said of each step, so that nothing is said twice after a lost connection.
#[derive(Debug, Default)]
struct Known(BTreeMap<String, (StepStatus, u32)>);

impl Known {
    fn snapshot(&mut self, run: &RunDetail) -> Vec<String> {
        let steps = run.stages.iter().flat_map(|stage| &stage.steps);
        let lines = steps.filter_map(|s| self.line(&s.name, s.status, s.attempt, s.reason.as_deref()));
        lines.collect()
    }

    fn change(&mut self, change: &StepChanged) -> Option<String> {
        self.line(&change.step, change.status, change.attempt, change.reason.as_deref())
    }

    fn line(&mut self, step: &str, status: StepStatus, attempt: u32, reason: Option<&str>) -> Option<String> {
        let before = self.0.insert(step.to_owned(), (status, attempt));
        let quiet = matches!(status, StepStatus::Pending | StepStatus::Queued) && attempt <= 1;
        if before == Some((status, attempt)) || quiet {
            return None;
        }
        let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
        let attempt = if attempt > 1 {
            format!(" (attempt {attempt})")
        } else {
            String::new()
        };
        Some(format!("-- {step}{attempt} {}{reason}", status.as_str()))
    }
}

/// The exit code that a followed log ends with.
async fn end_of(api: &Api, id: &str, step: Option<&str>) -> Result<Exit, Failure> {
    let Some(step) = step else {
        return Ok(Exit::of_run(ended(api, id).await?.body.summary.status));
    };
    loop {
        let run = look(api, id).await?.body;
        let found = run.stages.iter().flat_map(|s| &s.steps).find(|s| s.name == step);
        match found.map(|s| s.status) {
            Some(StepStatus::Success | StepStatus::Skipped) => return Ok(Exit::Success),
            Some(StepStatus::Failed) => return Ok(Exit::RunFailed),
            Some(StepStatus::Cancelled) => return Ok(Exit::Cancelled),
            Some(StepStatus::TimedOut) => return Ok(Exit::TimedOut),
            None if run.summary.status.is_terminal() => return Ok(Exit::of_run(run.summary.status)),
            Some(StepStatus::Pending | StepStatus::Queued | StepStatus::Assigned | StepStatus::Running) | None => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }
}
