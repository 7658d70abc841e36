//! What an operator may set about how git is run.

use std::path::PathBuf;
use std::time::Duration;

/// How git is run. The default refuses addresses on this machine's own disk.
#[derive(Debug, Clone)]
pub struct GitSettings {
    /// The program.
    pub git: PathBuf,
    /// Whether `file://` addresses and plain absolute paths may be used: they can name any folder
    /// that this process may read.
    pub allow_file: bool,
    /// The longest that one fetch may take.
    pub fetch_timeout: Duration,
    /// The longest that laying out a tree may take.
    pub export_timeout: Duration,
    /// How ssh addresses are reached.
    pub ssh: SshSettings,
    /// The most files, links and folders in a tree that is laid out.
    pub tree_entries_max: u64,
    /// The most bytes of files in a tree that is laid out.
    pub tree_bytes_max: u64,
}

/// How ssh addresses are reached.
#[derive(Debug, Clone)]
pub struct SshSettings {
    /// The program.
    pub program: PathBuf,
    /// The private key; `None`: ssh's own choice for this process's user.
    pub identity: Option<PathBuf>,
    /// The hosts that are known; `None`: ssh's own file.
    pub known_hosts: Option<PathBuf>,
    /// What to do about a host that is not among them.
    pub host_keys: HostKeys,
}

/// What to do about a host whose key is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeys {
    /// Refuse it.
    #[default]
    Known,
    /// Trust its key from then on.
    AcceptNew,
}

impl Default for GitSettings {
    fn default() -> Self {
        Self {
            git: PathBuf::from("git"),
            allow_file: false,
            fetch_timeout: Duration::from_mins(5),
            export_timeout: Duration::from_mins(5),
            ssh: SshSettings::default(),
            tree_entries_max: 2_000_000,
            tree_bytes_max: 64 << 30,
        }
    }
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            program: PathBuf::from("ssh"),
            identity: None,
            known_hosts: None,
            host_keys: HostKeys::default(),
        }
    }
}
