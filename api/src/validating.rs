//! A pipeline file that is checked without being registered: what it would run, and for which event.
//!
//! The same for the route and for the program's own `pipeline validate`. Not here: where the text
//! comes from.

use crate::dto::{
    ExplainedExpression, Finding, PipelineValidated, Plan, PlanStage, PlanStep, ValidateEvent, ValidatePipeline,
};
use model::{RunDef, StepDef};
use pipeline::{
    Answer, Compiled, Explain, FileRef, Files, Findings, Git, Limits, Occasion, PullRequest, Refused, Request,
};
use std::collections::BTreeMap;

/// What is said of another file that cannot be read.
const OTHER_REPOSITORY: &str = "files of other repositories are read when a run is made; they cannot be checked here";
const NOT_HANDED_OVER: &str = "it was not handed over with the pipeline file";

/// Checks a file as it was asked for.
#[must_use]
pub fn validated(asked: &ValidatePipeline) -> PipelineValidated {
    let mut files = Files::new();
    for (path, text) in &asked.files {
        let file = FileRef {
            repository: None,
            path: path.clone(),
        };
        files.insert(file, Ok(text.clone().into_bytes()));
    }
    let missing = |file: &FileRef| {
        Err(match file.repository {
            None => NOT_HANDED_OVER,
            Some(_) => OTHER_REPOSITORY,
        }
        .to_owned())
    };
    let occasion = asked.event.as_ref().map(occasion);
    let explain = if asked.explain { Explain::Yes } else { Explain::No };
    shown(&compiled(
        asked.text.as_bytes(),
        files,
        occasion.as_ref(),
        explain,
        missing,
    ))
}

/// Compiles a file; `read` is asked for the files that it includes.
///
/// # Errors
/// As [`pipeline::answer`].
pub fn compiled(
    bytes: &[u8],
    mut files: Files,
    occasion: Option<&Occasion>,
    explain: Explain,
    mut read: impl FnMut(&FileRef) -> Result<Vec<u8>, String>,
) -> Result<Answer, Refused> {
    loop {
        let answer = pipeline::answer(&Request {
            bytes,
            limits: Limits::default(),
            files: &files,
            occasion,
            explain,
        })?;
        let Answer::Missing(missing) = answer else {
            return Ok(answer);
        };
        files.extend(missing.into_iter().map(|file| {
            let bytes = read(&file);
            (file, bytes)
        }));
    }
}

/// What the event is to a pipeline file.
#[must_use]
pub fn occasion(event: &ValidateEvent) -> Occasion {
    let kind = if event.event.is_empty() { "push" } else { &event.event };
    let git_ref = match kind {
        "tag" => format!("refs/tags/{}", event.branch),
        _ => format!("refs/heads/{}", event.branch),
    };
    let default_branch = match event.default_branch.as_str() {
        "" => "main",
        branch => branch,
    };
    Occasion {
        event: kind.to_owned(),
        git: Git {
            git_ref,
            sha: event.commit.clone(),
            author: event.author.clone(),
            message: event.message.clone(),
            default_branch: default_branch.to_owned(),
            pull_request: (kind == "pull_request").then(|| PullRequest {
                number: 1,
                base: if event.base.is_empty() {
                    default_branch
                } else {
                    &event.base
                }
                .to_owned(),
                ..PullRequest::default()
            }),
        },
        team: "default".to_owned(),
        pipeline: "pipeline".to_owned(),
        run_id: "00000000000000000000000000".to_owned(),
        inputs: event.inputs.clone(),
        variables: event.variables.clone(),
        changed: event.changed.clone(),
    }
}

/// The answer of `POST /pipelines/validate`.
#[must_use]
pub fn shown(compiled: &Result<Answer, Refused>) -> PipelineValidated {
    let mut shown = PipelineValidated {
        valid: compiled.is_ok(),
        findings: Vec::new(),
        plan: None,
        without_run: None,
        notes: Vec::new(),
        explained: Vec::new(),
    };
    match compiled {
        Ok(Answer::Run(compiled)) => {
            shown.plan = Some(plan(&compiled.def, &compiled.open));
            shown.notes.clone_from(&compiled.notes);
            shown.explained = explained(compiled);
        }
        Ok(Answer::Nothing(why)) => shown.without_run = Some(why.clone()),
        // Whoever compiles reads them, or says why not.
        Ok(Answer::Missing(_)) => shown.valid = false,
        Err(Refused::File(findings)) => shown.findings = findings_of(findings),
        Err(Refused::Inputs(wrong)) => {
            let findings = wrong.iter().map(|wrong| Finding {
                file: None,
                line: 1,
                column: 1,
                message: format!("the input `{}` {}", wrong.name, wrong.message),
                help: None,
            });
            shown.findings = findings.collect();
        }
    }
    shown
}

fn findings_of(findings: &Findings) -> Vec<Finding> {
    let finding = |finding: &pipeline::Finding| Finding {
        file: finding.file.clone(),
        line: finding.line,
        column: finding.column,
        message: finding.message.clone(),
        help: finding.help.clone(),
    };
    findings.list.iter().map(finding).collect()
}

fn explained(compiled: &Compiled) -> Vec<ExplainedExpression> {
    let all = compiled.explained.iter().map(|e| ExplainedExpression {
        file: e.file.clone(),
        line: e.line,
        column: e.column,
        step: e.step.clone(),
        key: e.key.clone(),
        expression: e.expression.clone(),
        value: e.value.clone(),
        known: e.known,
    });
    all.collect()
}

fn plan(def: &RunDef, open: &[BTreeMap<&'static str, String>]) -> Plan {
    let steps_of = |stage: usize| def.steps.iter().enumerate().filter(move |(_, s)| s.stage == stage);
    let none = BTreeMap::new();
    let stages = def.stages.iter().enumerate().map(|(at, stage)| PlanStage {
        name: stage.name.to_string(),
        steps: steps_of(at)
            .map(|(n, step)| plan_step(def, step, open.get(n).unwrap_or(&none)))
            .collect(),
    });
    Plan {
        name: def.name.clone(),
        stages: stages.collect(),
    }
}

fn plan_step(def: &RunDef, step: &StepDef, open: &BTreeMap<&'static str, String>) -> PlanStep {
    let needs = step.needs.iter().filter_map(|need| def.steps.get(*need));
    let condition = step.rules.condition.as_ref();
    let never = condition.filter(|condition| condition.expression == "false");
    PlanStep {
        name: step.name.to_string(),
        image: step.image.clone(),
        needs: needs.map(|need| need.name.to_string()).collect(),
        timeout_ms: step.timeout_ms,
        resources: step.resources.into(),
        condition: condition.map(|condition| condition.expression.clone()),
        skipped: never.map(|condition| condition.skipped.clone()),
        manual: step.rules.manual,
        open: open
            .iter()
            .map(|(key, text)| ((*key).to_owned(), text.clone()))
            .collect(),
    }
}
