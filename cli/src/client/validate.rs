//! `pipeline validate`: a pipeline file of this folder as a plan, and what its expressions are for an
//! event; needs no server.
//!
//! Not here: what is legal in a file (`pipeline`).

use super::arguments::{EventOptions, Pair};
use super::failure::{Exit, Failure};
use super::output::Output;
use api::dto::ValidateEvent;
use api::validating;
use pipeline::{Answer, Compiled, Explain, Explained, FileRef, Files, Refused};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// More than the compiler takes, so that its own limit is what is named for all but absurd files.
const READ_MAX_BYTES: u64 = 64 << 20;

pub(super) fn validate(file: &Path, event: &EventOptions, explain: bool, output: &mut Output) -> Result<Exit, Failure> {
    let bytes = read(file).map_err(|e| Failure::Usage(format!("{}: {e}", file.display())))?;
    let asked = asked(event);
    let occasion = asked.as_ref().map(validating::occasion);
    let explain = if explain { Explain::Yes } else { Explain::No };
    let top = top_of(file);
    let include = |file: &FileRef| read_included(&top, file);
    let compiled = validating::compiled(&bytes, Files::new(), occasion.as_ref(), explain, include);
    if output.is_json() {
        output.json(&validating::shown(&compiled))?;
        return compiled.map(|_| Exit::Success).map_err(|_| Failure::UsageToldAlready);
    }
    match compiled {
        Ok(Answer::Run(compiled)) => {
            output.text(&told(&compiled))?;
            Ok(Exit::Success)
        }
        Ok(Answer::Nothing(why)) => {
            output.line(&format!("the file is valid, and makes no run of this event: {why}"))?;
            Ok(Exit::Success)
        }
        // Every file that is asked for is answered.
        Ok(Answer::Missing(_)) => Err(Failure::Usage("an included file is missing".to_owned())),
        Err(refused) => {
            output.talk.say(&complaint(file, &refused));
            Err(Failure::UsageToldAlready)
        }
    }
}

fn asked(options: &EventOptions) -> Option<ValidateEvent> {
    let EventOptions {
        event,
        branch,
        base,
        message,
        changed,
        inputs,
        variables,
    } = options;
    let named = event.is_some() || branch.is_some() || base.is_some() || message.is_some();
    if !named && changed.is_empty() && inputs.is_empty() && variables.is_empty() {
        return None;
    }
    let pair = |Pair(name, value): &Pair| (name.clone(), value.clone());
    let usual = if inputs.is_empty() { "push" } else { "manual" };
    let event = event.clone().unwrap_or_else(|| usual.to_owned());
    let on = if event == "tag" { "v1.0.0" } else { "main" };
    Some(ValidateEvent {
        branch: branch.clone().unwrap_or_else(|| on.to_owned()),
        commit: "0".repeat(40),
        author: "Somebody <somebody@example.org>".to_owned(),
        message: message.clone().unwrap_or_default(),
        default_branch: String::new(),
        base: base.clone().unwrap_or_default(),
        inputs: inputs
            .iter()
            .map(|Pair(name, value)| (name.clone(), serde_json::Value::String(value.clone())))
            .collect(),
        variables: variables.iter().map(pair).collect(),
        changed: (!changed.is_empty()).then(|| changed.clone()),
        event,
    })
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(READ_MAX_BYTES).read_to_end(&mut bytes)?;
    } else {
        File::open(file)?.take(READ_MAX_BYTES).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// The top of the repository that the file lies in: the nearest folder with a `.git`, else the
/// file's own folder.
fn top_of(file: &Path) -> PathBuf {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let own = whole.parent().unwrap_or(Path::new("/"));
    let top = own.ancestors().find(|folder| folder.join(".git").exists());
    top.unwrap_or(own).to_owned()
}

fn read_included(top: &Path, file: &FileRef) -> Result<Vec<u8>, String> {
    if file.repository.is_some() {
        return Err("files of other repositories are read when a run is made; they cannot be checked here".to_owned());
    }
    read(&top.join(&file.path)).map_err(|error| error.to_string())
}

/// The plan, what should be known, and the expressions.
fn told(compiled: &Compiled) -> String {
    let mut text = pipeline::plan_tree(&compiled.def, &compiled.open);
    for note in &compiled.notes {
        writeln!(text, "note: {note}").expect("a String takes every write");
    }
    if !compiled.explained.is_empty() {
        text.push_str("\nexpressions\n");
    }
    for explained in &compiled.explained {
        text.push_str(&explained_line(explained));
    }
    text
}

fn explained_line(explained: &Explained) -> String {
    let file = explained
        .file
        .as_ref()
        .map(|file| format!("{file}:"))
        .unwrap_or_default();
    let step = explained
        .step
        .as_ref()
        .map(|step| format!("{step}  "))
        .unwrap_or_default();
    let (sign, when) = if explained.known {
        ("=", "")
    } else {
        ("is later", ": known for an event, or when the step is ready")
    };
    let Explained {
        line,
        column,
        key,
        expression,
        value,
        ..
    } = explained;
    format!("  {file}{line}:{column}  {step}{key}  {expression}  {sign}  {value}{when}\n")
}

fn complaint(file: &Path, refused: &Refused) -> String {
    let name = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    match refused {
        Refused::File(findings) => {
            let of = |finding: &pipeline::Finding| match finding.file {
                None => format!("{name}:{finding}"),
                Some(_) => finding.to_string(),
            };
            let mut lines: Vec<String> = findings.list.iter().map(of).collect();
            if findings.more > 0 {
                lines.push(format!("{name}: and {} more", findings.more));
            }
            lines.join("\n")
        }
        Refused::Inputs(_) => refused.to_string(),
    }
}
