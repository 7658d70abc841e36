//! From what a person says to what the server knows: run ids, and the pipeline of a folder.

use super::arguments::{PipelineName, RunName};
use super::failure::Failure;
use super::http::{Api, Parameter};
use api::dto::{Pipeline, PipelineList, RunDetail, RunList, RunSummary};
use std::path::Path;
use std::process::Command;

/// The length of a whole run id.
const RUN_ID_LEN: usize = 26;

/// The shortest beginning of an id that is searched for.
const ID_PREFIX_MIN: usize = 4;

/// How many of the newest runs are searched for a beginning of an id.
const SEARCHED_MAX: usize = 2_000;

/// The page that searches ask for.
const PAGE: &str = "500";

/// The id of a run.
pub(super) async fn run_id(api: &Api, name: &RunName) -> Result<String, Failure> {
    match name {
        RunName::Id(id) if id.len() >= RUN_ID_LEN => Ok(id.clone()),
        RunName::Id(prefix) => by_prefix(api, prefix).await,
        RunName::Numbered(pipeline, number) => by_number(api, pipeline, *number).await,
    }
}

async fn by_number(api: &Api, pipeline: &PipelineName, number: u64) -> Result<String, Failure> {
    let path = ["pipelines", &pipeline.team, &pipeline.name, "runs", &number.to_string()];
    let run = api.get::<RunDetail>(&path, &[]).await?.body;
    Ok(run.summary.run_id)
}

async fn by_prefix(api: &Api, prefix: &str) -> Result<String, Failure> {
    if prefix.len() < ID_PREFIX_MIN {
        return Err(Failure::Usage(format!(
            "`{prefix}` is too short; say at least {ID_PREFIX_MIN} characters of the run's id"
        )));
    }
    let mut found: Vec<RunSummary> = Vec::new();
    let mut searched = 0;
    let mut cursor: Option<String> = None;
    while searched < SEARCHED_MAX {
        let mut query: Vec<Parameter> = vec![("limit", PAGE.to_owned())];
        query.extend(cursor.take().map(|c| ("cursor", c)));
        let page: RunList = api.get(&["runs"], &query).await?.body;
        searched += page.runs.len();
        found.extend(page.runs.into_iter().filter(|r| r.run_id.starts_with(prefix)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match found.as_slice() {
        [] => Err(no_run(prefix)),
        [one] => Ok(one.run_id.clone()),
        several => {
            let ids: Vec<&str> = several.iter().take(3).map(|r| r.run_id.as_str()).collect();
            Err(Failure::Usage(format!(
                "`{prefix}` may be any of {} runs, e.g. {}; say more of the id",
                several.len(),
                ids.join(", ")
            )))
        }
    }
}

fn no_run(name: &str) -> Failure {
    Failure::Usage(format!(
        "there is no run `{name}`; `buildflow runs` lists those that are there"
    ))
}

/// All pipelines, as they came and as what they mean.
pub(super) async fn pipelines(api: &Api) -> Result<Vec<(serde_json::Value, Pipeline)>, Failure> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", PAGE.to_owned())];
        query.extend(cursor.take().map(|c| ("cursor", c)));
        let page = api.get::<PipelineList>(&["pipelines"], &query).await?;
        let raw = page.raw["pipelines"].as_array().cloned().unwrap_or_default();
        all.extend(raw.into_iter().zip(page.body.pipelines));
        cursor = page.body.next_cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// The pipeline whose repository is checked out in a folder, and the branch that is checked out.
pub(super) async fn of_folder(api: &Api, folder: &Path) -> Result<(PipelineName, Option<String>), Failure> {
    let checkout = Checkout::look(folder)?;
    let known = pipelines(api).await?;
    let mut found = known
        .iter()
        .map(|(_, p)| p)
        .filter(|p| checkout.addresses.iter().any(|a| address(a) == address(&p.repository)));
    let one = found.next().ok_or_else(|| {
        Failure::Usage(format!(
            "no pipeline has the repository of {}; make one with `buildflow pipeline create TEAM/PIPELINE --repo {}`, \
             or say which with --pipeline",
            folder.display(),
            checkout.addresses.last().map_or("URL", String::as_str)
        ))
    })?;
    if found.next().is_some() {
        return Err(Failure::Usage(format!(
            "several pipelines have the repository of {}; say which with --pipeline",
            folder.display()
        )));
    }
    let name = PipelineName {
        team: one.team.clone(),
        name: one.name.clone(),
    };
    Ok((name, checkout.branch))
}

/// What git says of a folder.
struct Checkout {
    /// The folder itself, and where it was cloned from.
    addresses: Vec<String>,
    branch: Option<String>,
}

impl Checkout {
    fn look(folder: &Path) -> Result<Self, Failure> {
        let top = git(folder, &["rev-parse", "--show-toplevel"])?;
        let Some(top) = top else {
            return Err(Failure::Usage(format!(
                "{} is no checkout of a git repository; say which pipeline with --pipeline TEAM/PIPELINE",
                folder.display()
            )));
        };
        let origin = git(folder, &["remote", "get-url", "origin"])?;
        // A path may be relative to the checkout.
        let origin = origin.map(|o| absolute(Path::new(&top), &o));
        let branch = git(folder, &["symbolic-ref", "--quiet", "--short", "HEAD"])?;
        Ok(Self {
            addresses: std::iter::once(top).chain(origin).collect(),
            branch,
        })
    }
}

/// What git prints, or `None` when it says no.
fn git(folder: &Path, arguments: &[&str]) -> Result<Option<String>, Failure> {
    let ran = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .map_err(|e| {
            Failure::Usage(format!(
                "cannot run git ({e}); say which pipeline with --pipeline TEAM/PIPELINE"
            ))
        })?;
    let text = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    Ok((ran.status.success() && !text.is_empty()).then_some(text))
}

/// An address with a local path made absolute; every other address as it is.
pub(super) fn absolute(base: &Path, repository: &str) -> String {
    let remote = repository.contains("://") || (repository.contains(':') && !repository.starts_with(['.', '/']));
    if remote {
        return repository.to_owned();
    }
    let path = base.join(repository);
    path.canonicalize().unwrap_or(path).display().to_string()
}

/// The form in which addresses are compared.
fn address(text: &str) -> &str {
    let text = text.strip_prefix("file://").unwrap_or(text).trim_end_matches('/');
    text.strip_suffix(".git").unwrap_or(text).trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_repository_are_alike() {
        for same in ["/srv/a", "/srv/a/", "/srv/a.git", "file:///srv/a.git", "file:///srv/a/"] {
            assert_eq!(address(same), "/srv/a");
        }
        assert_ne!(address("/srv/a"), address("/srv/ab"));
        assert_eq!(address("https://h/a.git"), address("https://h/a"));
    }

    #[test]
    fn only_paths_are_made_absolute() {
        for remote in ["https://h/a", "ssh://g@h/a", "git@h:a/b.git", "file:///a"] {
            assert_eq!(absolute(Path::new("/base"), remote), remote);
        }
        assert_eq!(absolute(Path::new("/no/such"), "x"), "/no/such/x");
        assert_eq!(absolute(Path::new("/no/such"), "/y:z"), "/y:z");
    }
}
