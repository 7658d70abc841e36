//! `buildflow admin`: what an operator does on the machines themselves, without any server; one is asked
//! only for what the machines cannot know.
//!
//! | module | what |
//! |---|---|
//! | `init` | a cluster's authority and the folders of its servers |
//! | `certs` | certificates shown and rotated |
//! | `check` | whether everything that a role needs is there, and what to mend |
//!
//! Not here: what the interface offers (`client`).

mod certs;
mod check;
mod init;

use crate::client::GlobalOptions;
use crate::error::Failure;
use clap::{Args, Subcommand};
use std::ffi::OsString;

/// `buildflow admin`.
#[derive(Debug, Subcommand)]
pub(crate) enum AdminCommand {
    /// Make a cluster: its authority, and for each server a folder with its configuration
    Init(Box<init::InitArguments>),
    /// Test everything that a role's configuration needs, and say what to mend
    Check(check::CheckArguments),
    /// Certificates
    #[command(subcommand)]
    Certs(certs::CertsCommand),
    #[command(hide = true, disable_help_flag = true)]
    Backup(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Restore(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Key(NotYet),
}

/// Whatever follows a verb of a later release.
#[derive(Debug, Args)]
pub(crate) struct NotYet {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

/// Runs one verb; answers the exit code.
pub(crate) async fn execute(command: AdminCommand, global: &GlobalOptions) -> Result<u8, Failure> {
    let later = |verb: &str| {
        Err(Failure::Usage(format!(
            "`buildflow admin {verb}` is not supported yet by this release"
        )))
    };
    match command {
        AdminCommand::Init(arguments) => init::init(&arguments).map(|()| 0),
        AdminCommand::Check(arguments) => check::check(&arguments, global.output).await,
        AdminCommand::Certs(command) => certs::certs(&command, global).await.map(|()| 0),
        AdminCommand::Backup(_) => later("backup"),
        AdminCommand::Restore(_) => later("restore"),
        AdminCommand::Key(_) => later("key"),
    }
}
