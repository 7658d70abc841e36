//! Where the server is and who we are: from the arguments, the environment, or the user's file.

use super::arguments::GlobalOptions;
use super::failure::Failure;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where `buildflow dev` listens unless it is told otherwise.
const DEFAULT_ADDR: &str = "http://127.0.0.1:7420";

/// A settings file is a few lines; more is a mistake.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// What a call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// At least one; each without a `/` at its end.
    pub(super) addrs: Vec<String>,
    /// Where they come from, for messages.
    pub(super) addr_from: String,
    pub(super) token: Option<String>,
    /// Whom to believe behind `https://`, PEM; `None`: the authorities of this machine.
    pub(super) ca: Option<String>,
}

/// `~/.config/buildflow/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsFile {
    addr: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// Most addresses at once: a cluster has three or five servers.
const ADDRS_MAX: usize = 32;

impl Settings {
    /// The argument before the environment before the file before the default, each by itself.
    pub(super) fn read(global: &GlobalOptions) -> Result<Self, Failure> {
        Self::from(global.addr.clone(), |name| {
            std::env::var(name).ok().filter(|v| !v.is_empty())
        })
    }

    pub(super) fn from(addr: Option<String>, env: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let path = file_path(&env);
        let file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let shown = path.map(|p| p.display().to_string()).unwrap_or_default();
        let sources = [
            (addr, "--addr".to_owned()),
            (env("BUILDFLOW_ADDR"), "BUILDFLOW_ADDR".to_owned()),
            (file.addr, shown),
            (Some(DEFAULT_ADDR.to_owned()), "the default".to_owned()),
        ];
        let found = sources.into_iter().find_map(|(addr, from)| Some((addr?, from)));
        let (addr, addr_from) = found.expect("the default is always there");
        let from_file = file.token_file.as_deref().map(read_token).transpose()?;
        let token = env("BUILDFLOW_TOKEN").or(file.token).or(from_file);
        let ca = env("BUILDFLOW_CA").map(PathBuf::from).or(file.ca);
        let ca = ca.as_deref().map(pki::read_text).transpose();
        Ok(Self {
            addrs: check_addrs(&addr, &addr_from)?,
            addr_from,
            token,
            ca: ca.map_err(|cause| {
                Failure::Usage(format!("the authority (BUILDFLOW_CA, or ca in config.toml): {cause}"))
            })?,
        })
    }
}

fn check_addrs(all: &str, from: &str) -> Result<Vec<String>, Failure> {
    let parts = all.split(',').map(str::trim).filter(|part| !part.is_empty());
    let addrs: Vec<String> = parts.map(|addr| check_addr(addr, from)).collect::<Result<_, _>>()?;
    match addrs.len() {
        0 => check_addr(all, from).map(|addr| vec![addr]),
        1..=ADDRS_MAX => Ok(addrs),
        _ => Err(Failure::Usage(format!("{from} names more than {ADDRS_MAX} addresses"))),
    }
}

fn check_addr(addr: &str, from: &str) -> Result<String, Failure> {
    let refused = |why: &str| Failure::Usage(format!("`{addr}` (from {from}) is no address of a server: {why}"));
    let url = reqwest::Url::parse(addr).map_err(|_| refused("it must look like http://127.0.0.1:7420"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused("it must begin with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("leave out what begins with ? or #"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn file_path(env: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let config = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(config.join("buildflow/config.toml"))
}

/// A file that is not there says nothing.
fn read_file(path: &Path) -> Result<SettingsFile, Failure> {
    let refused = |why: String| Failure::Usage(format!("{}: {why}", path.display()));
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_MAX_BYTES => return Err(refused("it is too large to be settings".to_owned())),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(SettingsFile::default()),
        Err(e) => return Err(refused(e.to_string())),
    }
    let text = std::fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
    toml::from_str(&text).map_err(|e| {
        refused(format!(
            "{}\n  keys are: addr, token, token_file, ca",
            e.to_string().trim_end()
        ))
    })
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure::Usage(format!("the token file {}: {e}", path.display())))?;
    Ok(text.trim().to_owned())
}
