//! Configuration files of the roles `server` and `agent`: YAML, every key checked, nothing ignored.
//!
//! A relative path in a file is relative to the file's own folder, so that a folder with a
//! configuration and its certificates can lie anywhere. Secrets stand in files of their own, which
//! are named; so nothing that is printed holds one. Not here: what the keys of each role are
//! (`server`, `agent`), checks of what lies behind them (`crate::admin::check`).

mod agent;
mod duration;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use agent::{AgentFile, AgentTlsFile};
pub(crate) use duration::Span;
pub(crate) use server::{
    BlobsFile, Certificates, EtcdFile, HistoryFile, PostgresFile, S3File, ServerFile, StoreFile, TlsFile, has_password,
};

use crate::error::Failure;
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};

/// What every role that is started from a file takes.
#[derive(Debug, Args)]
pub(crate) struct RoleArguments {
    /// The role's configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Check the configuration, and the files that it names, and end
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Print the whole configuration, defaults included, and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// The port of REST and gRPC unless a configuration says another.
pub(crate) const DEFAULT_PORT: u16 = 7420;

/// A configuration file is small; more than this is a mistake.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// What a file's form cannot say: values that no role could work with.
pub(crate) trait Checked {
    /// # Errors
    ///
    /// The key, what is wrong with its value, and what would be right.
    fn check(&self) -> Result<(), String>;

    /// Every path of the file, to be made absolute.
    fn paths(&mut self) -> Vec<&mut PathBuf>;

    /// Opens every file that is named and looks into it; nothing is changed.
    ///
    /// # Errors
    ///
    /// The key, the file, and what is wrong with it.
    fn check_files(&self) -> Result<(), String>;
}

/// The longest name of a node or server and the longest label, bytes; servers refuse longer ones.
const WORD_MAX_BYTES: usize = 128;

fn check_word(key: &str, word: &str) -> Result<(), String> {
    let legal = |c: char| !c.is_control() && !c.is_whitespace();
    if word.is_empty() || word.len() > WORD_MAX_BYTES || !word.chars().all(legal) {
        let rule = format!("must have 1 to {WORD_MAX_BYTES} bytes and no blanks");
        return Err(format!("{key}: {word:?} {rule}"));
    }
    Ok(())
}

fn check_url(key: &str, url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if rest.is_none_or(|r| r.is_empty() || r.starts_with('/') || r.contains(char::is_whitespace)) {
        return Err(format!("{key}: {url:?} must look like http://10.0.0.1:7420"));
    }
    Ok(())
}

/// A file that is named by a key must be readable and not empty.
fn check_file(key: &str, path: &Path) -> Result<(), String> {
    match pki::read_text(path) {
        Ok(text) if text.trim().is_empty() => Err(format!("{key}: {} is empty", path.display())),
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("{key}: {cause}")),
    }
}

/// The secret in a file that is named by a key.
pub(crate) fn read_secret(path: &Path) -> Result<String, Failure> {
    let text = pki::read_text(path).map_err(|cause| Failure::Usage(cause.to_string()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::Usage(format!("{} is empty", path.display())));
    }
    Ok(text.to_owned())
}

/// Reads and checks a configuration file; an error names the file, the line or the key.
pub(crate) fn read<T: DeserializeOwned + Checked>(path: &Path) -> Result<T, Failure> {
    let refused = |cause: String| Failure::Usage(format!("{}: {cause}", path.display()));
    let length = std::fs::metadata(path)
        .map_err(|cause| refused(cause.to_string()))?
        .len();
    if length > CONFIG_MAX_BYTES {
        return Err(refused(format!(
            "a configuration file may have {CONFIG_MAX_BYTES} bytes, this one has {length}"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(|cause| refused(cause.to_string()))?;
    let mut file: T = serde_yaml::from_str(&text).map_err(|cause| refused(cause.to_string()))?;
    let folder = std::path::absolute(path).map_err(|cause| refused(cause.to_string()))?;
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
    for named in file.paths() {
        // An absolute one replaces the folder.
        *named = folder.join(&*named);
    }
    file.check().map_err(refused)?;
    Ok(file)
}

/// Serves `--check-config` and `--print-config`; true when the role is not to be started.
pub(crate) fn only_checked<T: Serialize + Checked>(arguments: &RoleArguments, file: &T) -> Result<bool, Failure> {
    if arguments.print_config {
        let text = serde_yaml::to_string(file).map_err(|cause| Failure::Internal(cause.to_string()))?;
        print!("{text}");
    }
    if arguments.check_config {
        let path = arguments.config.display();
        file.check_files()
            .map_err(|cause| Failure::Usage(format!("{path}: {cause}")))?;
        if !arguments.print_config {
            println!("{path}: ok");
        }
    }
    Ok(arguments.print_config || arguments.check_config)
}
