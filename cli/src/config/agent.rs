//! `agent.yml`: which servers, who this node is, and what it offers to steps.

use super::{Checked, check_file, check_url, check_word};
use crate::logging::LogFormat;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `buildflow agent --config FILE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentFile {
    /// Folder of the node's images, checkouts, journal and writable layers.
    pub(crate) data: PathBuf,
    /// Server addresses, e.g. `https://10.0.0.1:7420`.
    pub(crate) servers: Vec<String>,
    /// The node's certificate, as `buildflow node join` wrote it; for `https://` servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<AgentTlsFile>,
    /// A file that holds the node token, as the server wrote it; for `http://` servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The node's name; default: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) capacity: CapacityFile,
    /// Matched by a step's `labels`.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) images: ImagesFile,
    /// Whether repositories may be folders of this machine.
    #[serde(default)]
    pub(crate) file_repositories: bool,
    /// Where Prometheus text is served, if anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    #[serde(default)]
    pub(crate) log: LogFormat,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentTlsFile {
    /// Certificate and key in one file (PEM), which the agent replaces when it renews them.
    pub(crate) identity: PathBuf,
    /// The cluster's authority (PEM); replaced too.
    pub(crate) authority: PathBuf,
}

/// What the node offers to steps; what is absent is found on the machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CapacityFile {
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_millis: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes: Option<u64>,
    /// Most steps at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slots: Option<u32>,
}

/// Where images may come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImagesFile {
    /// Folders below which `oci:PATH` may lie; a relative PATH is looked up in the first.
    #[serde(default)]
    pub(crate) folders: Vec<PathBuf>,
    /// Registries that are spoken to without TLS, as `host:port`; loopback addresses always are.
    #[serde(default)]
    pub(crate) insecure: Vec<String>,
    /// Registry host → who to sign in as.
    #[serde(default)]
    pub(crate) credentials: BTreeMap<String, CredentialFile>,
}

/// How to sign in at a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CredentialFile {
    pub(crate) user: String,
    /// A file that holds the password.
    pub(crate) password_file: PathBuf,
}

impl AgentFile {
    /// What a machine that has joined is given.
    pub(crate) fn joined(data: PathBuf, servers: Vec<String>, tls: AgentTlsFile, name: Option<String>) -> Self {
        Self {
            data,
            servers,
            tls: Some(tls),
            token_file: None,
            name,
            capacity: CapacityFile::default(),
            labels: BTreeMap::new(),
            images: ImagesFile::default(),
            file_repositories: false,
            metrics_listen: None,
            log: LogFormat::default(),
        }
    }

    /// As it is written for a machine that has joined: only what an operator does not leave to the
    /// defaults, so that each key can be added below.
    pub(crate) fn to_text(&self) -> Result<String, String> {
        #[derive(Serialize)]
        struct Written<'a> {
            data: &'a PathBuf,
            servers: &'a [String],
            tls: &'a Option<AgentTlsFile>,
            #[serde(skip_serializing_if = "Option::is_none")]
            name: &'a Option<String>,
        }
        let written = Written {
            data: &self.data,
            servers: &self.servers,
            tls: &self.tls,
            name: &self.name,
        };
        let text = serde_yaml::to_string(&written).map_err(|cause| cause.to_string())?;
        Ok(format!(
            "# Written by `buildflow node join`. Relative paths are relative to this file.\n{text}"
        ))
    }

    /// Servers and proof must fit: a certificate for TLS, the node token without.
    fn check_servers(&self) -> Result<(), String> {
        if self.servers.is_empty() {
            return Err("servers: name at least one, e.g. https://10.0.0.1:7420".to_owned());
        }
        self.servers.iter().try_for_each(|url| check_url("servers", url))?;
        let scheme = match (&self.tls, &self.token_file) {
            (Some(_), None) => "https://",
            (None, Some(_)) => "http://",
            (Some(_), Some(_)) => return Err("tls: and `token_file` exclude each other; leave one out".to_owned()),
            (None, None) => {
                return Err("tls: is missing; `buildflow node join` writes it \
                     (or name the node token of a server without certificates with `token_file`)"
                    .to_owned());
            }
        };
        let other = self.servers.iter().find(|url| !url.starts_with(scheme));
        other.map_or(Ok(()), |url| {
            Err(format!(
                "servers: {url:?} must begin with {scheme}: `tls` goes with https://, `token_file` with http://"
            ))
        })
    }
}

impl Checked for AgentFile {
    fn check(&self) -> Result<(), String> {
        self.check_servers()?;
        self.name.as_ref().map_or(Ok(()), |name| check_word("name", name))?;
        for (key, value) in &self.labels {
            check_word("labels", key)?;
            if !value.is_empty() {
                check_word("labels", value)?;
            }
        }
        let CapacityFile {
            cpu_millis,
            memory_bytes,
            disk_bytes,
            slots,
        } = self.capacity;
        let sizes = [cpu_millis, memory_bytes, disk_bytes, slots.map(u64::from)];
        if sizes.contains(&Some(0)) {
            return Err("capacity: no value may be 0; leave a key out to have it found".to_owned());
        }
        Ok(())
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut all = vec![&mut self.data];
        all.extend(&mut self.token_file);
        if let Some(tls) = &mut self.tls {
            all.extend([&mut tls.identity, &mut tls.authority]);
        }
        all.extend(&mut self.images.folders);
        all.extend(self.images.credentials.values_mut().map(|c| &mut c.password_file));
        all
    }

    fn check_files(&self) -> Result<(), String> {
        if let Some(path) = &self.token_file {
            check_file("token_file", path)?;
        }
        for (host, credential) in &self.images.credentials {
            check_file(&format!("images.credentials.{host}"), &credential.password_file)?;
        }
        for folder in &self.images.folders {
            std::fs::read_dir(folder).map_err(|cause| format!("images.folders: {}: {cause}", folder.display()))?;
        }
        let Some(tls) = &self.tls else { return Ok(()) };
        tls.load().map(drop).map_err(|cause| format!("tls: {cause}"))
    }
}

impl AgentTlsFile {
    /// Reads both; a certificate that has ended is refused.
    pub(crate) fn load(&self) -> Result<(pki::Identity, pki::Trust), pki::PkiError> {
        let identity = pki::Identity::read(&self.identity)?;
        let trust = pki::Trust::read(&self.authority)?;
        trust.verify_own(&identity, pki::Role::Node, pki::now_s())?;
        Ok((identity, trust))
    }
}
