//! `run`: starts a run, and follows it if asked to.

use super::arguments::{Pair, PipelineName, RunArguments};
use super::failure::{Exit, Failure};
use super::here;
use super::http::Api;
use super::logs;
use super::output::Output;
use super::resolve;
use api::dto::{CreateRun, RunCreated};
use std::collections::BTreeMap;
use std::path::Path;

/// What is to be built.
#[derive(Debug, Default, PartialEq, Eq)]
struct Target {
    branch: Option<String>,
    tag: Option<String>,
}

impl Target {
    /// A branch by its name, or a full ref.
    fn of_ref(text: &str) -> Result<Self, Failure> {
        let mut target = Self::default();
        if let Some(branch) = text.strip_prefix("refs/heads/") {
            target.branch = Some(branch.to_owned());
        } else if let Some(tag) = text.strip_prefix("refs/tags/") {
            target.tag = Some(tag.to_owned());
        } else if text.starts_with("refs/") {
            return Err(Failure::Usage(format!(
                "`{text}` is neither a branch nor a tag; say refs/heads/NAME or refs/tags/NAME"
            )));
        } else {
            target.branch = Some(text.to_owned());
        }
        Ok(target)
    }
}

pub(super) async fn run(
    api: &impl Fn() -> Result<Api, Failure>,
    arguments: RunArguments,
    output: &mut Output,
) -> Result<Exit, Failure> {
    refuse_what_comes_later(&arguments)?;
    if arguments.local {
        return here::run(&arguments, output).await;
    }
    let api = api()?;
    let (pipeline, target) = target(&api, &arguments).await?;
    let inputs: BTreeMap<String, serde_json::Value> = arguments
        .inputs
        .into_iter()
        .map(|Pair(name, value)| (name, value.into()))
        .collect();
    let wish = CreateRun {
        branch: target.branch,
        tag: target.tag,
        commit_sha: arguments.commit,
        inputs: (!inputs.is_empty()).then_some(inputs),
        variables: arguments.variables.into_iter().collect(),
        force: arguments.force,
    };
    let path = ["pipelines", &pipeline.team, &pipeline.name, "runs"];
    let created = api.post::<RunCreated>(&path, Some(&wish)).await?;
    if !created.body.created {
        output
            .talk
            .say("the same run was started within the last minute; --force makes a new one");
    }
    if output.is_json() && !arguments.follow {
        output.json(&created.raw)?;
        return Ok(Exit::Success);
    }
    let text = started(&pipeline, &created.body);
    if !arguments.follow {
        output.text(&text)?;
        return Ok(Exit::Success);
    }
    output.talk.say(text.trim_end());
    logs::watch_run(&api, &created.body.run_id, output).await
}

fn started(pipeline: &PipelineName, run: &RunCreated) -> String {
    let number = run.number.map(|n| format!("#{n}")).unwrap_or_default();
    let verb = if run.created { "started" } else { "was started before" };
    let id = &run.run_id;
    format!("{pipeline}{number} {verb}: run {id}\nfollow it with: buildflow logs {id} --follow\n")
}

fn refuse_what_comes_later(arguments: &RunArguments) -> Result<(), Failure> {
    match arguments.step {
        Some(_) => Err(Failure::not_supported_yet("`buildflow run --step`")),
        None => Ok(()),
    }
}

async fn target(api: &Api, arguments: &RunArguments) -> Result<(PipelineName, Target), Failure> {
    let named = arguments.git_ref.as_deref().map(Target::of_ref).transpose()?;
    if let Some(pipeline) = &arguments.pipeline {
        return Ok((pipeline.clone(), named.unwrap_or_default()));
    }
    let (pipeline, branch) = resolve::of_folder(api, Path::new(&arguments.path)).await?;
    let checked_out = Target {
        // A commit says for itself what is built.
        branch: branch.filter(|_| arguments.commit.is_none()),
        tag: None,
    };
    Ok((pipeline, named.unwrap_or(checked_out)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_branches_or_tags() {
        let branch = |name: &str| Target {
            branch: Some(name.to_owned()),
            tag: None,
        };
        assert_eq!(Target::of_ref("main").expect("legal"), branch("main"));
        assert_eq!(Target::of_ref("release/1").expect("legal"), branch("release/1"));
        assert_eq!(
            Target::of_ref("refs/heads/release/1").expect("legal"),
            branch("release/1")
        );
        assert_eq!(
            Target::of_ref("refs/tags/v1").expect("legal").tag.as_deref(),
            Some("v1")
        );
        assert!(Target::of_ref("refs/notes/x").is_err());
    }
}
