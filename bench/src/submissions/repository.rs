//! The git repository whose pipelines are submitted, and their registration.
//!
//! Not here: submitting.

use crate::BenchError;
use std::path::Path;
use std::process::Command;

/// A repository with one commit.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    pub(super) url: String,
    pub(super) commit: String,
}

fn stopped(what: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("{what}: {cause}"))
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String, BenchError> {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(arguments);
    for (name, value) in [("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_SYSTEM", "/dev/null")] {
        command.env(name, value);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "bench");
        command.env(format!("GIT_{who}_EMAIL"), "bench@localhost");
    }
    let output = command.output().map_err(|e| stopped("git", &e))?;
    if !output.status.success() {
        return Err(stopped("git", &String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Repository {
    /// Makes it in an empty folder, with this pipeline file.
    pub(super) fn make(folder: &Path, file: &str) -> Result<Self, BenchError> {
        git(folder, &["init", "-q", "-b", "main"])?;
        std::fs::write(folder.join(".buildflow.yml"), file).map_err(|e| stopped("the repository", &e))?;
        git(folder, &["add", "-A"])?;
        git(folder, &["commit", "-q", "-m", "what is measured"])?;
        Ok(Self {
            url: format!("file://{}", folder.display()),
            commit: git(folder, &["rev-parse", "HEAD"])?,
        })
    }

    /// Registers `count` pipelines of it, named by [`pipeline`].
    pub(super) async fn register(&self, server: &Server, count: usize) -> Result<(), BenchError> {
        for number in 0..count {
            let path = format!("/api/v1/pipelines/{}/{}", server.team, pipeline(number));
            let body = serde_json::json!({ "repository": self.url });
            let request = server.http.put(format!("{}{path}", server.urls[0])).json(&body);
            let answer = request.bearer_auth(&server.token).send().await;
            let answer = answer.map_err(|e| stopped("a pipeline is not registered", &e))?;
            if !answer.status().is_success() {
                let text = answer.text().await.unwrap_or_default();
                return Err(stopped("a pipeline is not registered", &text));
            }
        }
        Ok(())
    }
}

/// The name of a pipeline.
pub(super) fn pipeline(number: usize) -> String {
    format!("measured-{number}")
}

/// Where submissions go.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) http: reqwest::Client,
    /// They are asked in turns.
    pub(super) urls: Vec<String>,
    pub(super) token: String,
    pub(super) team: String,
}
