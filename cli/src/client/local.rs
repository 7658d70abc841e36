//! What needs no server: `pipeline validate`, `init`, `schema`, `completion`.

use super::failure::{Exit, Failure};
use super::output::Output;
use api::dto::{Finding, PipelineValidated, Plan, PlanStage, PlanStep, Resources};
use clap::CommandFactory as _;
use model::RunDef;
use model::pipeline::DEFAULT_FILE;
use pipeline::{Findings, Limits, StarterKind};
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::path::Path;

/// More than the compiler takes, so that its own limit is what is named for all but absurd files.
const READ_MAX_BYTES: u64 = 64 << 20;

pub(super) fn validate(file: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let bytes = read(file).map_err(|e| Failure::Usage(format!("{}: {e}", file.display())))?;
    let compiled = pipeline::compile_bytes(&bytes, Limits::default());
    if output.is_json() {
        output.json(&as_json(&compiled))?;
    }
    match compiled {
        Ok(def) => {
            if !output.is_json() {
                output.text(&pipeline::plan_tree(&def))?;
            }
            Ok(Exit::Success)
        }
        Err(findings) => {
            let name = if file == Path::new("-") {
                "standard input".to_owned()
            } else {
                file.display().to_string()
            };
            let lines: Vec<String> = findings.lines().iter().map(|line| format!("{name}:{line}")).collect();
            output.talk.say(&lines.join("\n"));
            Err(Failure::UsageToldAlready)
        }
    }
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

/// The form of `POST /pipelines/validate`.
fn as_json(compiled: &Result<RunDef, Findings>) -> PipelineValidated {
    let found = compiled.as_ref().err();
    PipelineValidated {
        valid: found.is_none(),
        findings: found
            .iter()
            .flat_map(|f| &f.list)
            .map(|f| Finding {
                line: f.line,
                column: f.column,
                message: f.message.clone(),
                help: f.help.clone(),
            })
            .collect(),
        plan: compiled.as_ref().ok().map(plan),
    }
}

fn plan(def: &RunDef) -> Plan {
    let step = |s: &model::StepDef| PlanStep {
        name: s.name.to_string(),
        image: s.image.clone(),
        needs: s.needs.iter().map(|n| def.steps[*n].name.to_string()).collect(),
        timeout_ms: s.timeout_ms,
        resources: Resources::from(s.resources),
    };
    let stages = def.stages.iter().enumerate().map(|(index, stage)| PlanStage {
        name: stage.name.to_string(),
        steps: def.steps.iter().filter(|s| s.stage == index).map(step).collect(),
    });
    Plan {
        name: def.name.clone(),
        stages: stages.collect(),
    }
}

pub(super) fn init(folder: &Path, force: bool, output: &mut Output) -> Result<Exit, Failure> {
    let refused = |path: &Path, e: std::io::Error| Failure::Usage(format!("{}: {e}", path.display()));
    let entries = std::fs::read_dir(folder).map_err(|e| refused(folder, e))?;
    let names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    let path = folder.join(DEFAULT_FILE);
    let mut options = File::options();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = match options.open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::Usage(format!(
                "{} is there already; --force replaces it",
                path.display()
            )));
        }
        other => other.map_err(|e| refused(&path, e))?,
    };
    let text = pipeline::starter(StarterKind::detect(&names));
    file.write_all(text.as_bytes()).map_err(|e| refused(&path, e))?;
    if output.is_json() {
        output.json(&serde_json::json!({ "file": path.display().to_string() }))?;
    } else {
        let path = path.display();
        output.line(&format!(
            "{path} is written; change it, then: buildflow pipeline validate {path}"
        ))?;
    }
    Ok(Exit::Success)
}

pub(super) fn schema(output: &mut Output) -> Result<Exit, Failure> {
    output.json(&pipeline::schema())?;
    Ok(Exit::Success)
}

pub(super) fn completion(shell: clap_complete::Shell, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::Arguments::command(), "buildflow", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Success)
}
