//! `pipeline create`, `list`, `show`, `delete`.

use super::arguments::{DEFAULT_TEAM, PipelineCommand, PipelineName};
use super::failure::{Exit, Failure};
use super::http::Api;
use super::output::Output;
use super::resolve;
use super::table::{Cell, Colour, ago, fields, now_ms, table};
use api::dto::{CreatePipeline, Pipeline, PutPipeline};
use serde_json::json;
use std::path::Path;

pub(super) async fn pipeline(api: &Api, command: PipelineCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        PipelineCommand::Create {
            pipeline,
            repo,
            file,
            replace,
            credential,
        } => {
            if credential.is_some() {
                return Err(Failure::not_supported_yet("`--credential`"));
            }
            let wish = CreatePipeline {
                team: Some(pipeline.team),
                name: pipeline.name,
                repository: resolve::absolute(&here()?, &repo),
                file,
            };
            create(api, wish, replace, output).await?;
        }
        PipelineCommand::List => list(api, output).await?,
        PipelineCommand::Show { pipeline } => show(api, &pipeline, output).await?,
        PipelineCommand::Delete { pipeline } => {
            api.delete(&["pipelines", &pipeline.team, &pipeline.name]).await?;
            if !output.is_json() {
                output.line(&format!("{pipeline} is removed"))?;
            }
        }
        // Answered before the server is called.
        PipelineCommand::Validate { .. } | PipelineCommand::Doctor(_) => {}
    }
    Ok(Exit::Success)
}

async fn create(api: &Api, wish: CreatePipeline, replace: bool, output: &mut Output) -> Result<(), Failure> {
    let made = if replace {
        let team = wish.team.as_deref().unwrap_or(DEFAULT_TEAM);
        let path = ["pipelines", team, &wish.name];
        let change = PutPipeline {
            repository: wish.repository,
            file: wish.file,
        };
        api.put::<Pipeline>(&path, &change).await?
    } else {
        let made = api.post::<Pipeline>(&["pipelines"], Some(&wish)).await;
        made.map_err(|failure| match failure {
            Failure::Conflict(_) => Failure::Conflict(format!(
                "there is another pipeline `{}` already; --replace changes it",
                wish.name
            )),
            other => other,
        })?
    };
    if output.is_json() {
        return output.json(&made.raw);
    }
    let Pipeline {
        team,
        name,
        repository,
        file,
        ..
    } = made.body;
    output.text(&fields(&[
        ("pipeline", format!("{team}/{name}")),
        ("repository", repository),
        ("file", file),
        ("next", format!("buildflow run --pipeline {team}/{name} --follow")),
    ]))
}

fn here() -> Result<std::path::PathBuf, Failure> {
    std::env::current_dir().map_err(|e| Failure::Usage(format!("the current folder: {e}")))
}

async fn list(api: &Api, output: &mut Output) -> Result<(), Failure> {
    let all = resolve::pipelines(api).await?;
    if output.is_json() {
        let raw: Vec<_> = all.into_iter().map(|(raw, _)| raw).collect();
        return output.json(&json!({ "pipelines": raw, "next_cursor": null }));
    }
    if all.is_empty() {
        let folder = Path::new(".").display();
        output.talk.say(&format!(
            "no pipelines; `buildflow pipeline create NAME --repo {folder}` makes one"
        ));
        return Ok(());
    }
    let now = now_ms();
    let rows: Vec<Vec<Cell>> = all.iter().map(|(_, p)| row(p, now)).collect();
    output.text(&table(
        output.paint,
        &["PIPELINE", "REPOSITORY", "FILE", "LAST RUN", "STATUS", "STARTED"],
        &rows,
    ))
}

fn row(pipeline: &Pipeline, now: u64) -> Vec<Cell> {
    let last = pipeline.last_run.as_ref();
    let number = last.and_then(|r| r.number).map(|n| format!("#{n}")).unwrap_or_default();
    let status = last.map_or_else(
        || Cell::from(""),
        |r| Cell::coloured(Colour::of_run(r.status), r.status.as_str()),
    );
    vec![
        format!("{}/{}", pipeline.team, pipeline.name).into(),
        pipeline.repository.as_str().into(),
        pipeline.file.as_str().into(),
        number.into(),
        status,
        last.map_or_else(String::new, |r| ago(r.created_ms, now)).into(),
    ]
}

async fn show(api: &Api, name: &PipelineName, output: &mut Output) -> Result<(), Failure> {
    let found = api.get::<Pipeline>(&["pipelines", &name.team, &name.name], &[]).await?;
    if output.is_json() {
        return output.json(&found.raw);
    }
    let now = now_ms();
    let pipeline = found.body;
    let last = pipeline.last_run.as_ref().map_or_else(String::new, |r| {
        let number = r.number.map(|n| format!("#{n} ")).unwrap_or_default();
        format!("{number}{} {}  {}", r.status.as_str(), ago(r.created_ms, now), r.run_id)
    });
    output.text(&fields(&[
        ("pipeline", name.to_string()),
        ("repository", pipeline.repository),
        ("file", pipeline.file),
        ("created", ago(pipeline.created_ms, now)),
        ("last run", last),
    ]))
}
