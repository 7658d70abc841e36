//! What one sandbox shall be, as plain data, and which of it is refused before anything is made.
//!
//! Not here: how it becomes an OCI spec (`oci`), and how it is started (`launcher`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest sandbox id: it becomes a folder, a cgroup and a part of a socket path (108 bytes).
pub(crate) const ID_BYTES_MAX: usize = 64;
/// Longest host name that the kernel takes.
pub(crate) const HOSTNAME_BYTES_MAX: usize = 64;
/// Most lower layers an overlay takes.
pub(crate) const LOWERS_MAX: usize = 500;
/// Least memory: below this the set-up of the sandbox itself would be killed.
pub(crate) const MEMORY_BYTES_MIN: u64 = 8 << 20;
/// Fewest processes and threads: the set-up itself needs a few for a moment.
pub(crate) const PIDS_MIN: u32 = 8;
/// Least CPU: the kernel takes no quota below 1 ms of each 100 ms.
pub(crate) const CPU_MILLIS_MIN: u32 = 10;
/// Most bytes of arguments and environment together; the kernel's own limit with 8 MiB of stack
/// is 2 MiB, and a single string may hold 128 KiB.
pub(crate) const ARGV_ENV_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one argument or one `NAME=value`, from the kernel.
pub(crate) const ARG_BYTES_MAX: usize = (128 << 10) - 1;

/// One sandbox: what runs, on which files, within which limits.
///
/// `Debug` shows the names of the environment's variables and never their values.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Name of the sandbox on this node: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter
    /// or digit.
    pub id: String,
    /// The host name inside, 1 to 64 of `A-Z a-z 0-9 . -`.
    pub hostname: String,
    /// The layers that make the root file system.
    pub rootfs: RootFs,
    /// Program and arguments. A program without `/` is looked up in the `PATH` of `env`.
    pub argv: Vec<String>,
    /// Environment of the program. Handed over in memory, never written to a file. `PATH`,
    /// `HOME` and `HOSTNAME` are filled in where they are missing.
    pub env: Vec<(String, String)>,
    /// Working directory inside, absolute. It must exist.
    pub cwd: String,
    /// `user`, `uid`, `user:group` or `uid:gid`, resolved against the image's own
    /// `/etc/passwd` and `/etc/group`. Root where absent.
    pub user: Option<String>,
    /// What the sandbox may use.
    pub limits: Limits,
    /// Longest time from the first instruction until the sandbox is stopped.
    #[serde(rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// Time between SIGTERM and SIGKILL.
    #[serde(rename = "kill_grace_ms", with = "millis")]
    pub kill_grace: Duration,
    /// What the sandbox can reach.
    pub network: Network,
    /// Where stdout and stderr are appended, on a disk. Its folder must exist.
    pub log_path: PathBuf,
    /// Where the [`ExitRecord`](crate::ExitRecord) is written, on a disk. Its folder must exist.
    pub exit_path: PathBuf,
    /// A file that says until when the sandbox may live, whatever becomes of the agent: see
    /// [`lease`](crate::lease). Where absent it lives as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_path: Option<PathBuf>,
    /// Not to be begun at or after this moment, milliseconds since boot with suspended time, whatever
    /// the lease file says by then: an agent that slept between its decision and the launch may have
    /// lost its lease meanwhile and got another one. Where absent it may be begun at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin_before_ms: Option<u64>,
}

/// The layers of the one overlay that is the sandbox's whole file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Read-only layers, the topmost first; at least 1, at most 500.
    pub lowers: Vec<PathBuf>,
    /// The private layer which receives every change.
    pub upper: PathBuf,
    /// The overlay's own scratch folder: fresh for each sandbox, on the same file system as
    /// `upper`. That file system must not be an overlay itself.
    pub work: PathBuf,
}

/// What one sandbox may use. Nothing bounds what it writes to `upper`, to the disk's end: give
/// uppers a file system or a quota of their own where that matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU, at least 10.
    pub cpu_millis: u32,
    /// Memory in bytes, at least 8 MiB. There is no swap.
    pub memory_bytes: u64,
    /// Processes and threads, at least 8.
    pub pids: u32,
    /// Size of `/dev/shm` in bytes; what lies there counts as memory too.
    pub shm_bytes: u64,
    /// Open files of each process. Capped by the node's own hard limit.
    pub nofile: u64,
    /// Bytes of log that are kept; the rest is read and thrown away.
    pub log_bytes_max: u64,
}

/// What the sandbox can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own loopback, and nothing else.
    LoopbackOnly,
}

/// A spec that can never start, with the field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidSpec {
    /// The field, as it is named in [`SandboxSpec`].
    pub field: &'static str,
    /// What is wrong, and what is allowed.
    pub message: String,
}

impl fmt::Debug for SandboxSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("SandboxSpec")
            .field("id", &self.id)
            .field("hostname", &self.hostname)
            .field("rootfs", &self.rootfs)
            .field("argv", &self.argv)
            .field("env_names", &names)
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("limits", &self.limits)
            .field("timeout", &self.timeout)
            .field("kill_grace", &self.kill_grace)
            .field("network", &self.network)
            .field("log_path", &self.log_path)
            .field("exit_path", &self.exit_path)
            .field("lease_path", &self.lease_path)
            .field("begin_before_ms", &self.begin_before_ms)
            .finish()
    }
}

fn invalid(field: &'static str, message: impl Into<String>) -> InvalidSpec {
    InvalidSpec {
        field,
        message: message.into(),
    }
}

impl SandboxSpec {
    /// Checks everything that can be known without looking at the file system.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        validate_id(&self.id)?;
        self.validate_hostname()?;
        self.rootfs.validate()?;
        self.validate_command()?;
        self.limits.validate()?;
        if self.timeout.is_zero() {
            return Err(invalid("timeout", "must be longer than zero"));
        }
        absolute("log_path", &self.log_path)?;
        absolute("exit_path", &self.exit_path)?;
        self.lease_path
            .as_deref()
            .map_or(Ok(()), |path| absolute("lease_path", path))
    }

    fn validate_hostname(&self) -> Result<(), InvalidSpec> {
        let fits = (1..=HOSTNAME_BYTES_MAX).contains(&self.hostname.len());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        if fits && self.hostname.bytes().all(plain) {
            return Ok(());
        }
        Err(invalid(
            "hostname",
            format!("needs 1 to {HOSTNAME_BYTES_MAX} letters, digits, `-` or `.`"),
        ))
    }

    fn validate_command(&self) -> Result<(), InvalidSpec> {
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(invalid("argv", "names no program"));
        }
        for (name, _) in &self.env {
            if name.is_empty() || name.contains('=') {
                return Err(invalid("env", format!("`{name}` is no variable name")));
            }
        }
        let words = self.argv.iter().map(|word| ("argv", word.len(), word));
        let values = self.env.iter().map(|(n, v)| ("env", n.len() + 1 + v.len(), v));
        let mut total = 0;
        for (field, bytes, text) in words.chain(values) {
            if bytes > ARG_BYTES_MAX {
                let message = format!("{bytes} bytes in one piece; at most {ARG_BYTES_MAX}");
                return Err(invalid(field, message));
            }
            if text.contains('\0') {
                return Err(invalid(field, "contains a NUL byte"));
            }
            total += bytes + 1;
        }
        if self.env.iter().any(|(name, _)| name.contains('\0')) {
            return Err(invalid("env", "contains a NUL byte"));
        }
        if total > ARGV_ENV_BYTES_MAX {
            let message = format!("{total} bytes with argv; at most {ARGV_ENV_BYTES_MAX}");
            return Err(invalid("env", message));
        }
        if !self.cwd.starts_with('/') || self.cwd.contains('\0') {
            return Err(invalid("cwd", "must be an absolute path"));
        }
        Ok(())
    }
}

/// Checks an id alone; every call that takes an id applies it, because ids become paths.
pub(crate) fn validate_id(id: &str) -> Result<(), InvalidSpec> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && id.len() <= ID_BYTES_MAX && id.bytes().all(plain) {
        return Ok(());
    }
    Err(invalid(
        "id",
        format!("needs 1 to {ID_BYTES_MAX} letters, digits, `.`, `_` or `-`, a letter or digit first"),
    ))
}

fn absolute(field: &'static str, path: &Path) -> Result<(), InvalidSpec> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(invalid(field, format!("`{}` is not absolute", path.display())))
}

impl RootFs {
    fn validate(&self) -> Result<(), InvalidSpec> {
        if !(1..=LOWERS_MAX).contains(&self.lowers.len()) {
            let message = format!("{} layers; 1 to {LOWERS_MAX} are possible", self.lowers.len());
            return Err(invalid("rootfs.lowers", message));
        }
        for lower in &self.lowers {
            absolute("rootfs.lowers", lower)?;
        }
        absolute("rootfs.upper", &self.upper)?;
        absolute("rootfs.work", &self.work)
    }
}

impl Limits {
    fn validate(&self) -> Result<(), InvalidSpec> {
        let least = [
            (
                "limits.cpu_millis",
                u64::from(self.cpu_millis),
                u64::from(CPU_MILLIS_MIN),
            ),
            ("limits.memory_bytes", self.memory_bytes, MEMORY_BYTES_MIN),
            ("limits.pids", u64::from(self.pids), u64::from(PIDS_MIN)),
            ("limits.nofile", self.nofile, 16),
        ];
        for (field, value, min) in least {
            if value < min {
                return Err(invalid(field, format!("{value} is too little; at least {min}")));
            }
        }
        Ok(())
    }
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A spec that is valid in every respect.
    pub(crate) fn example() -> SandboxSpec {
        SandboxSpec {
            id: "one".into(),
            hostname: "build".into(),
            rootfs: RootFs {
                lowers: vec!["/layers/top".into(), "/layers/base".into()],
                upper: "/layers/upper".into(),
                work: "/layers/work".into(),
            },
            argv: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: vec![("TOKEN".into(), "hunter2".into())],
            cwd: "/workspace".into(),
            user: None,
            limits: Limits {
                cpu_millis: 500,
                memory_bytes: 64 << 20,
                pids: 100,
                shm_bytes: 1 << 20,
                nofile: 1_024,
                log_bytes_max: 1 << 20,
            },
            timeout: Duration::from_secs(60),
            kill_grace: Duration::from_secs(5),
            network: Network::LoopbackOnly,
            log_path: PathBuf::from("/data/log"),
            exit_path: PathBuf::from("/data/exit.json"),
            lease_path: Some(PathBuf::from("/run/lease")),
            begin_before_ms: Some(60_000),
        }
    }

    /// A field, and how it is made wrong.
    type Spoiled = (&'static str, fn(&mut SandboxSpec));

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(example().validate(), Ok(()));
        let cases: [Spoiled; 21] = [
            ("id", |spec| spec.id = String::new()),
            ("id", |spec| spec.id = "a/b".into()),
            ("id", |spec| spec.id = "_shims".into()),
            ("id", |spec| spec.id = "x".repeat(65)),
            ("hostname", |spec| spec.hostname = "a b".into()),
            ("rootfs.lowers", |spec| spec.rootfs.lowers.clear()),
            ("rootfs.lowers", |spec| spec.rootfs.lowers = vec!["/l".into(); 501]),
            ("rootfs.upper", |spec| spec.rootfs.upper = "upper".into()),
            ("argv", |spec| spec.argv.clear()),
            ("argv", |spec| spec.argv[0] = String::new()),
            ("argv", |spec| spec.argv[1] = "a\0b".into()),
            ("argv", |spec| spec.argv[2] = "x".repeat(128 << 10)),
            ("env", |spec| spec.env[0].0 = "A=B".into()),
            ("env", |spec| spec.env[0].1 = "a\0".into()),
            ("env", |spec| spec.env = vec![("A".into(), "x".repeat(100_000)); 11]),
            ("cwd", |spec| spec.cwd = "workspace".into()),
            ("limits.cpu_millis", |spec| spec.limits.cpu_millis = 9),
            ("limits.memory_bytes", |spec| spec.limits.memory_bytes = 1 << 20),
            ("timeout", |spec| spec.timeout = Duration::ZERO),
            ("exit_path", |spec| spec.exit_path = "exit".into()),
            ("lease_path", |spec| spec.lease_path = Some("lease".into())),
        ];
        for (index, (field, spoil)) in cases.into_iter().enumerate() {
            let mut spec = example();
            spoil(&mut spec);
            let found = spec.validate().map_err(|error| error.field);
            assert_eq!(found, Err(field), "case {index}");
        }
    }

    #[test]
    fn a_spec_is_printed_without_the_values_of_its_environment() {
        let text = format!("{:?}", example());
        assert!(text.contains("TOKEN") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_spec_survives_the_way_to_the_shim() {
        let json = serde_json::to_string(&example()).unwrap();
        assert!(json.contains("\"timeout_ms\":60000"), "{json}");
        assert_eq!(serde_json::from_str::<SandboxSpec>(&json).unwrap(), example());
    }
}
