//! Configuration files of the roles `server` and `agent`: YAML, every key checked, nothing ignored.

use crate::error::Failure;
use crate::logging::LogFormat;
use clap::Args;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What every role that is started from a file takes.
#[derive(Debug, Args)]
pub(crate) struct RoleArguments {
    /// The role's configuration file (YAML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Print the whole configuration, defaults included, and end
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// `buildflow server --config FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerFile {
    /// Folder of the embedded store, the blobs and the git mirrors.
    pub(crate) data: PathBuf,
    /// Where REST and gRPC are served.
    #[serde(default = "default_listen")]
    pub(crate) listen: SocketAddr,
    /// This server's name in logs and sessions.
    #[serde(default = "default_server_name")]
    pub(crate) name: String,
    /// The address that people and agents reach it under; default: `http://` and `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Whether repositories may be folders of this machine.
    #[serde(default)]
    pub(crate) file_repositories: bool,
    #[serde(default)]
    pub(crate) log: LogFormat,
}

/// `buildflow agent --config FILE`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentFile {
    /// Folder of the node's images, checkouts, journal and writable layers.
    pub(crate) data: PathBuf,
    /// Server addresses, e.g. `http://10.0.0.1:7420`.
    pub(crate) servers: Vec<String>,
    /// A file that holds the node token, as the server wrote it.
    pub(crate) token_file: PathBuf,
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

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))
}

fn default_server_name() -> String {
    "server-1".to_owned()
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
}

impl Checked for ServerFile {
    fn check(&self) -> Result<(), String> {
        check_word("name", &self.name)?;
        self.url.as_ref().map_or(Ok(()), |url| check_url("url", url))
    }
}

impl Checked for AgentFile {
    fn check(&self) -> Result<(), String> {
        if self.servers.is_empty() {
            return Err("servers: name at least one, e.g. http://10.0.0.1:7420".to_owned());
        }
        self.servers.iter().try_for_each(|url| check_url("servers", url))?;
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
    let file: T = serde_yaml::from_str(&text).map_err(|cause| refused(cause.to_string()))?;
    file.check().map_err(refused)?;
    Ok(file)
}

/// Serves `--check-config` and `--print-config`; true when the role is not to be started.
pub(crate) fn only_checked<T: Serialize>(arguments: &RoleArguments, file: &T) -> Result<bool, Failure> {
    if arguments.print_config {
        let text = serde_yaml::to_string(file).map_err(|cause| Failure::Internal(cause.to_string()))?;
        print!("{text}");
    } else if arguments.check_config {
        println!("{}: ok", arguments.config.display());
    }
    Ok(arguments.print_config || arguments.check_config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text<T: DeserializeOwned + Checked>(text: &str) -> Result<T, Failure> {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("written");
        read(file.path())
    }

    #[test]
    fn a_server_needs_only_its_folder() {
        let file: ServerFile = read_text("data: /var/lib/buildflow\n").expect("valid");
        assert_eq!(file.listen.to_string(), "127.0.0.1:7420");
        assert!(!file.file_repositories);
    }

    #[test]
    fn a_refusal_names_key_and_line() {
        let cases = [
            ("data: /x\nlisten: here\n", "listen"),
            ("data: /x\nport: 1\n", "unknown field `port`"),
            ("listen: 127.0.0.1:1\n", "missing field `data`"),
            ("data: [\n", "line 1"),
            ("data: /x\nname: a b\n", "name: \"a b\""),
            (
                "data: /x\nurl: ci.example.org\n",
                "url: \"ci.example.org\" must look like",
            ),
        ];
        for (text, expected) in cases {
            let failure = read_text::<ServerFile>(text).expect_err(text);
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(expected), "{text:?}: {failure}");
        }
    }

    #[test]
    fn an_agent_that_no_server_would_take_is_refused_before_it_starts() {
        let cases = [
            ("servers: []", "servers: name at least one"),
            ("servers: ['10.0.0.1:7420']", "must look like http://"),
            ("servers: ['http:///x']", "must look like http://"),
            ("name: ''", "name: \"\""),
            ("labels: { 'a b': x }", "labels: \"a b\""),
            ("labels: { a: \"x\\ty\" }", "labels: \"x\\ty\""),
            ("capacity: { slots: 0 }", "capacity: no value may be 0"),
        ];
        for (line, expected) in cases {
            let servers = if line.starts_with("servers") {
                ""
            } else {
                "servers: ['http://127.0.0.1:7420']\n"
            };
            let text = format!("data: /d\ntoken_file: /t\n{servers}{line}\n");
            let failure = read_text::<AgentFile>(&text).expect_err(line);
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(expected), "{line}: {failure}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let file: AgentFile =
            read_text("data: /d\nservers: ['http://127.0.0.1:7420']\ntoken_file: /t\ncapacity: {cpu_millis: 4000}\n")
                .expect("valid");
        let printed = serde_yaml::to_string(&file).expect("prints");
        assert_eq!(read_text::<AgentFile>(&printed).expect("valid"), file);
    }
}
