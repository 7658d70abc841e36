//! What an operator may set about an agent, and why one does not start.
//!
//! Not here: files and flags that the settings come from.

use crate::checkout::CheckoutSettings;
use crate::images::ImageSettings;
use crate::metrics::AgentMetrics;
use git_mirror::{GitSettings, Mirrors};
use model::NodeId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What laid-out work trees may take unless the operator says otherwise, bytes.
const CHECKOUT_BYTES_MAX: u64 = 20 << 30;

/// Files, links and folders of laid-out work trees unless the operator says otherwise: a tenth of
/// the inodes of a common 1 TB file system.
const CHECKOUT_ENTRIES_MAX: u64 = 6_000_000;

/// The settings of one agent.
#[derive(Clone)]
pub struct AgentConfig {
    /// Addresses of all servers, `http://HOST:PORT` or `https://HOST:PORT`. Any of them will do for
    /// the work; whether the store has lost its quorum is asked of each.
    pub servers: Vec<String>,
    /// A token with the role of a node; empty when certificates say who the node is.
    pub token: String,
    /// For `https://` servers: whom to believe and what to show.
    pub tls: Option<TlsFiles>,
    /// The id with which the node has joined, which its certificate names; `None`: the one in the
    /// data folder, made at the first start.
    pub node_id: Option<NodeId>,
    /// The node's name for people; `None`: the host's name.
    pub name: Option<String>,
    /// Everything that outlives a reboot; this agent's alone.
    pub data_dir: PathBuf,
    /// Bundles and shims' sockets; made a root-only tmpfs if it does not lie on one.
    pub run_dir: PathBuf,
    /// The shim; `None`: `BUILDFLOW_SHIM`, else `buildflow-shim` beside this program.
    pub shim_path: Option<PathBuf>,
    /// What steps may take; what is `None` is found on the machine.
    pub capacity: CapacityOverride,
    /// Most allocations at once; `None`: [`SLOTS_DEFAULT`].
    pub slots: Option<u32>,
    /// Added to `arch`, `os` and `hostname`.
    pub labels: BTreeMap<String, String>,
    /// Where images come from. Their root lies in the data folder unless it is changed.
    pub images: ImageSettings,
    /// Where laid-out trees are kept. Their root lies in the data folder unless it is changed.
    pub checkouts: CheckoutSettings,
    /// How git is run; `allow_file` allows repositories on this machine's own disk.
    pub git: GitSettings,
    /// The mirrors of another role in this process, so that what that one has fetched is here as
    /// well; `None`: its own, in the data folder, run as `git` says.
    pub mirrors: Option<Mirrors>,
    /// Most bytes that a step's log may have; what it prints beyond is thrown away.
    pub log_bytes_max: u64,
    /// Where the agent counts; keep a clone to serve it.
    pub metrics: AgentMetrics,
}

/// Where the agent's certificate lies. The files are read for each new connection, so they may be
/// replaced at any time; the agent itself replaces them when less than a third of the certificate's
/// life is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The cluster's authorities, PEM.
    pub ca: PathBuf,
    /// The node's certificate, PEM. When this file holds a key too, that key is used: so the agent
    /// writes a renewed pair, because one file is replaced as a whole.
    pub certificate: PathBuf,
    /// Its key, PEM; may be the same file.
    pub key: PathBuf,
}

/// The allocations of a node at once unless the operator says otherwise. CPU and memory run out
/// first on any machine of today; this bounds what tiny steps cost in processes and mounts.
pub const SLOTS_DEFAULT: u32 = 256;

/// A step's log unless the operator says otherwise: a hundred times the largest that people read,
/// and little enough that a loop of `yes` does not fill the node's disk.
pub const LOG_BYTES_MAX: u64 = 1 << 30;

/// What steps may take in all, where it is not to be what the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapacityOverride {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes.
    pub disk_bytes: Option<u64>,
}

impl AgentConfig {
    /// Settings for an agent that keeps everything in these folders and finds the rest itself.
    #[must_use]
    pub fn new(
        servers: Vec<String>,
        token: impl Into<String>,
        data_dir: impl AsRef<Path>,
        run_dir: impl AsRef<Path>,
    ) -> Self {
        let data_dir = data_dir.as_ref();
        Self {
            servers,
            token: token.into(),
            tls: None,
            node_id: None,
            name: None,
            data_dir: data_dir.to_owned(),
            run_dir: run_dir.as_ref().to_owned(),
            shim_path: None,
            capacity: CapacityOverride::default(),
            slots: None,
            labels: BTreeMap::new(),
            images: ImageSettings::new(data_dir.join("images")),
            checkouts: CheckoutSettings {
                root: data_dir.join("checkouts"),
                bytes_max: CHECKOUT_BYTES_MAX,
                entries_max: CHECKOUT_ENTRIES_MAX,
            },
            git: GitSettings::default(),
            mirrors: None,
            log_bytes_max: LOG_BYTES_MAX,
            metrics: AgentMetrics::new(),
        }
    }
}

impl std::fmt::Debug for AgentConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentConfig")
            .field("servers", &self.servers)
            .field("tls", &self.tls)
            .field("node_id", &self.node_id)
            .field("name", &self.name)
            .field("data_dir", &self.data_dir)
            .field("run_dir", &self.run_dir)
            .field("capacity", &self.capacity)
            .field("slots", &self.slots)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

/// Why an agent does not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting cannot be used.
    #[error("the setting `{setting}` cannot be used: {message}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong and what to write instead.
        message: String,
    },
    /// Another agent has the data folder.
    #[error("another agent uses the data folder {}: stop it, or give this one a folder of its own", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder of ours could not be made, read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// This machine cannot run sandboxes, or its sandboxes could not be listed.
    #[error(transparent)]
    Launcher(#[from] isolation::LauncherError),
    /// The image store could not be opened.
    #[error("the image store cannot be opened: {0}")]
    Images(#[from] crate::images::ImageError),
    /// The store of laid-out trees could not be opened.
    #[error("the store of checkouts cannot be opened: {0}")]
    Checkouts(#[from] crate::checkout::CheckoutError),
    /// The git mirrors could not be opened.
    #[error("the git mirrors cannot be opened: {0}")]
    Git(#[from] git_mirror::GitError),
    /// A part of the agent panicked: a fault of ours. Started anew, it takes everything up again.
    #[error("a part of the agent ended unexpectedly: {0}")]
    Broken(String),
}

impl AgentError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { path, cause }
    }
}
