//! Where a role's own log goes: standard error, as lines for people or as JSON for collectors.

use clap::ValueEnum;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// The form of a role's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// One line of text for each event
    #[default]
    Text,
    /// One JSON object for each event
    Json,
}

/// Starts logging. `BUILDFLOW_LOG` filters as `tracing` does, e.g. `info,scheduler_shell=debug`.
pub(crate) fn start(format: LogFormat, quiet_default: &str) {
    let filter = EnvFilter::try_from_env("BUILDFLOW_LOG").unwrap_or_else(|_| EnvFilter::new(quiet_default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
