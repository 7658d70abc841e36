//! `admin check`: everything that a role's configuration needs, tried; one line for each.
//!
//! | module | what |
//! |---|---|
//! | `machine` | kernel, cgroups, overlay, limits, folders |
//! | `engines` | etcd, the object store, the database |
//! | `network` | other servers, their certificates, their clocks |
//!
//! What is tried is undone. Not here: repairing anything.

mod engines;
mod machine;
mod network;

use crate::client::OutputForm;
use crate::config::{AgentFile, Checked, ServerFile, read};
use crate::error::Failure;
use clap::Args;
use pki::Certificate;
use std::path::{Path, PathBuf};

/// `buildflow admin check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// A server's or an agent's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The exit code when something has failed: the role could not do its work.
const FAILED_CODE: u8 = 5;

/// From then on an ending certificate is warned of, days.
const WARN_DAYS: u64 = 14;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Ok,
    Warning,
    Failed,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
        }
    }
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    level: Level,
    what: String,
    /// What is so, or what is wrong and how to mend it.
    text: String,
}

/// All of it, printed as it comes.
pub(super) struct Report {
    form: OutputForm,
    findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, level: Level, what: &str, text: String) {
        if self.form == OutputForm::Table {
            println!("{:<8} {what}: {text}", level.word());
        }
        self.findings.push(Finding {
            level,
            what: what.to_owned(),
            text,
        });
    }

    pub(super) fn ok(&mut self, what: &str, text: impl Into<String>) {
        self.add(Level::Ok, what, text.into());
    }

    pub(super) fn warning(&mut self, what: &str, text: impl Into<String>) {
        self.add(Level::Warning, what, text.into());
    }

    pub(super) fn failed(&mut self, what: &str, text: impl Into<String>) {
        self.add(Level::Failed, what, text.into());
    }

    /// Ok with a text, or failed with the error's.
    pub(super) fn result<E: std::fmt::Display>(&mut self, what: &str, result: Result<String, E>) {
        match result {
            Ok(text) => self.ok(what, text),
            Err(error) => self.failed(what, error.to_string()),
        }
    }

    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|f| f.level == level).count()
    }

    fn end(self) -> Result<u8, Failure> {
        let (failed, warnings) = (self.count(Level::Failed), self.count(Level::Warning));
        match self.form {
            OutputForm::Table if failed + warnings == 0 => println!("all is well"),
            OutputForm::Table => println!("{failed} failed, {warnings} warnings"),
            OutputForm::Json => {
                let all: Vec<serde_json::Value> = self.findings.iter().map(as_json).collect();
                let text = serde_json::to_string_pretty(&all).map_err(|e| Failure::Internal(e.to_string()))?;
                println!("{text}");
            }
        }
        Ok(if failed == 0 { 0 } else { FAILED_CODE })
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let level = finding.level.word().to_lowercase();
    serde_json::json!({ "check": finding.what, "result": level, "text": finding.text })
}

/// Which role a file is for.
enum RoleFile {
    Server(Box<ServerFile>),
    Agent(Box<AgentFile>),
}

/// A server's file is told by what only it has: an agent names servers and who it is.
fn read_role(path: &Path) -> Result<RoleFile, Failure> {
    let as_agent = match read::<AgentFile>(path) {
        Ok(agent) => return Ok(RoleFile::Agent(Box::new(agent))),
        Err(failure) => failure,
    };
    match read::<ServerFile>(path) {
        Ok(server) => Ok(RoleFile::Server(Box::new(server))),
        Err(as_server) => {
            let agents = path.file_name().is_some_and(|n| n.to_string_lossy().contains("agent"));
            Err(if agents { as_agent } else { as_server })
        }
    }
}

pub(super) async fn check(arguments: &CheckArguments, form: OutputForm) -> Result<u8, Failure> {
    let mut report = Report {
        form,
        findings: Vec::new(),
    };
    match read_role(&arguments.config)? {
        RoleFile::Server(file) => server(&file, &mut report).await,
        RoleFile::Agent(file) => agent(&file, &mut report).await,
    }
    report.end()
}

async fn server(file: &ServerFile, report: &mut Report) {
    report.result("configuration", files(file));
    machine::open_files(report);
    machine::folder(report, "data folder", &file.data);
    let loaded = file.tls.as_ref().map(crate::config::TlsFile::load);
    match &loaded {
        None if file.listen.ip().is_loopback() => {
            report.ok("certificates", "none; the port is reached from this machine only")
        }
        None => report.warning(
            "certificates",
            "none: tokens cross the network as plain text; `buildflow admin init` makes a cluster with certificates",
        ),
        Some(Err(error)) => report.failed("certificates", error.to_string()),
        Some(Ok(loaded)) => {
            certificate(report, loaded.identity.certificate());
            loaded
                .trust
                .authorities()
                .for_each(|authority| certificate(report, authority));
            if loaded.authority.is_none() {
                report.warning(
                    "certificates",
                    "no `authority_key`: machines cannot join through this server",
                );
            }
        }
    }
    engines::store(report, &file.store).await;
    engines::blobs(report, &file.blobs, &file.data).await;
    engines::history(report, &file.history).await;
    let own = file.advertised(file.listen);
    let client = loaded
        .and_then(Result::ok)
        .map(|l| pki::Client::new(l.trust, Some(&l.identity)));
    for url in file.servers.iter().filter(|url| **url != own) {
        network::server(report, url, client.as_ref()).await;
    }
}

async fn agent(file: &AgentFile, report: &mut Report) {
    report.result("configuration", files(file));
    machine::root(report);
    machine::kernel(report);
    machine::cgroups(report);
    machine::overlay(report, &file.data);
    machine::shim(report);
    machine::open_files(report);
    machine::folder(report, "data folder", &file.data);
    let loaded = file
        .tls
        .as_ref()
        .map(|tls| (pki::Identity::read(&tls.identity), pki::Trust::read(&tls.authority)));
    let client = match loaded {
        Some((Ok(identity), Ok(trust))) => {
            certificate(report, identity.certificate());
            Some(pki::Client::new(trust, Some(&identity)))
        }
        Some((Err(error), _) | (_, Err(error))) => {
            report.failed("certificates", error.to_string());
            None
        }
        None => None,
    };
    for url in &file.servers {
        network::server(report, url, client.as_ref()).await;
    }
}

fn files(file: &impl Checked) -> Result<String, String> {
    file.check_files()
        .map(|()| "every file that it names is there".to_owned())
}

fn certificate(report: &mut Report, certificate: &Certificate) {
    let what = format!("certificate of {}", certificate.subject());
    let now_s = pki::now_s();
    let left_days = certificate.left_s(now_s) / 86_400;
    let until = pki::rfc3339(certificate.not_after_s);
    match certificate.check_time(now_s) {
        Err(error) => report.failed(&what, error.to_string()),
        Ok(()) if certificate.role == pki::Role::Node => {
            report.ok(&what, format!("until {until}; the agent renews it"));
        }
        Ok(()) if left_days < WARN_DAYS => report.warning(
            &what,
            format!("ends at {until}, in {left_days} days: buildflow admin certs rotate"),
        ),
        Ok(()) => report.ok(&what, format!("until {until}, {left_days} days")),
    }
}
