//! One run of the `git` program: an environment of our own, a time-out that ends the whole process
//! group, bounds on what it may write and hold in memory.

use crate::address::{Address, Scheme};
use crate::error::GitError;
use crate::settings::{GitSettings, HostKeys};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// The most of git's complaints that is read; the rest is thrown away. The last line tells the cause.
const STDERR_MAX: usize = 64 * 1024;
/// The most that a command may answer when its answer is kept in memory.
const STDOUT_MAX: usize = 4 * 1024 * 1024;
/// The most memory that a git process may have of its own (mapped packs do not count), so that a
/// tree that names itself a billion times ends git and not the machine.
const MEMORY_MAX: u64 = 4 << 30;
/// What an operator has set in the environment and git needs: proxies, certificates, the ssh agent.
const KEPT: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "SSH_AUTH_SOCK",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that is configured, in one file that also reaches the programs git starts itself.
const CONFIG: &str = "\
[core]
\thooksPath = /dev/null
\tattributesFile = /dev/null
\texcludesFile = /dev/null
\tfsmonitor = false
\tuntrackedCache = false
\tbigFileThreshold = 64m
[protocol]
\tversion = 2
[transfer]
\tfsckObjects = true
[fetch]
\trecurseSubmodules = false
\tunpackLimit = 1
\twriteCommitGraph = false
[fetch \"fsck\"]
\t# Harmless slips of old programs; old histories are full of them and every forge accepts them.
\tbadTimezone = ignore
\tmissingSpaceBeforeDate = ignore
\tzeroPaddedFilemode = ignore
\tmissingSpaceBeforeEmail = ignore
\tbadDate = ignore
[submodule]
\trecurse = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[safe]
\tdirectory = *
[credential]
\thelper =
[http]
\t# Slower than 1,000 bytes/s for 30 s counts as gone.
\tlowSpeedLimit = 1000
\tlowSpeedTime = 30
[pack]
\twindowMemory = 256m
[advice]
\tdetachedHead = false
";

/// How git is started: the program, and the two folders that stand for a user's.
#[derive(Debug)]
pub(crate) struct Git {
    pub(crate) settings: GitSettings,
    config: PathBuf,
    home: PathBuf,
}

/// One command.
pub(crate) struct Job<'a> {
    pub(crate) doing: &'static str,
    pub(crate) address: &'a Address,
    pub(crate) git_dir: &'a Path,
    pub(crate) work_tree: Option<&'a Path>,
    /// Where objects are read from in place of the repository's own folder.
    pub(crate) objects: Option<PathBuf>,
    pub(crate) args: Vec<OsString>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) timeout: Duration,
}

/// What a command that ended by itself left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Git {
    /// Writes the configuration into `root`. Blocking.
    pub(crate) fn new(root: &Path, mut settings: GitSettings) -> Result<Self, GitError> {
        settings.git = whole_path(&settings.git);
        let (config, home) = (root.join("gitconfig"), root.join("home"));
        std::fs::create_dir_all(&home).map_err(|e| GitError::io(&home, e))?;
        let fresh = root.join("gitconfig.new");
        std::fs::write(&fresh, CONFIG)
            .and_then(|()| std::fs::rename(&fresh, &config))
            .map_err(|e| GitError::io(&config, e))?;
        Ok(Self { settings, config, home })
    }

    /// Runs a command and keeps what it writes.
    pub(crate) async fn run(&self, job: Job<'_>) -> Result<Ended, GitError> {
        let mut stdout = Vec::new();
        let doing = job.doing;
        let mut ended = self
            .stream(job, &mut |chunk| {
                if stdout.len() + chunk.len() > STDOUT_MAX {
                    return Err(GitError::TooLarge {
                        what: format!("the answer to {doing} a repository"),
                        found: (stdout.len() + chunk.len()) as u64,
                        unit: "bytes",
                        limit: STDOUT_MAX as u64,
                        mend: "remove refs that are no longer needed",
                    });
                }
                stdout.extend_from_slice(chunk);
                Ok(())
            })
            .await?;
        ended.stdout = stdout;
        Ok(ended)
    }

    /// Runs a command and hands on what it writes; an error of `sink` ends it.
    pub(crate) async fn stream(
        &self,
        job: Job<'_>,
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), GitError> + Send),
    ) -> Result<Ended, GitError> {
        let timeout = job.timeout;
        let late = GitError::TimedOut {
            doing: job.doing,
            repository: job.address.shown().to_owned(),
            seconds: timeout.as_secs(),
        };
        let mut running = Running::spawn(self.command(&job), &self.settings.git)?;
        match tokio::time::timeout(timeout, running.talk(&job.stdin, sink)).await {
            Ok(ended) => ended,
            Err(_) => Err(late),
        }
    }

    /// Starts a command that is talked to through its pipes for as long as it lives.
    pub(crate) fn converse(&self, address: &Address, git_dir: &Path, args: &[&str]) -> Result<Running, GitError> {
        let job = Job {
            doing: "reading",
            address,
            git_dir,
            work_tree: None,
            objects: None,
            args: args.iter().map(OsString::from).collect(),
            stdin: Vec::new(),
            timeout: Duration::MAX,
        };
        let mut command = self.command(&job);
        command.stderr(Stdio::null());
        Running::spawn(command, &self.settings.git)
    }

    fn command(&self, job: &Job<'_>) -> Command {
        let mut command = Command::new(&self.settings.git);
        command
            .env_clear()
            .envs(KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))))
            .env("PATH", PATH)
            .env("HOME", &self.home)
            .env("LC_ALL", "C")
            .env("GIT_DIR", job.git_dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_ALLOW_PROTOCOL", protocols(job.address.scheme()))
            // The address may hold credentials, so it travels in the environment, not as an argument.
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "remote.origin.url")
            .env("GIT_CONFIG_VALUE_0", job.address.url())
            .current_dir(&self.home)
            .args(&job.args)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(work_tree) = job.work_tree {
            command.env("GIT_WORK_TREE", work_tree).current_dir(work_tree);
        }
        if let Some(objects) = &job.objects {
            command.env("GIT_OBJECT_DIRECTORY", objects);
        }
        if job.address.scheme() == Scheme::Ssh {
            command
                .env("GIT_SSH_COMMAND", self.ssh_command())
                .env("GIT_SSH_VARIANT", "ssh");
        }
        command
    }

    fn ssh_command(&self) -> OsString {
        let ssh = &self.settings.ssh;
        let mut line = quoted(ssh.program.as_os_str());
        line.push(" -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 -o ServerAliveCountMax=3");
        line.push(match ssh.host_keys {
            HostKeys::Known => " -o StrictHostKeyChecking=yes",
            HostKeys::AcceptNew => " -o StrictHostKeyChecking=accept-new",
        });
        if let Some(identity) = &ssh.identity {
            line.push(" -o IdentitiesOnly=yes -i ");
            line.push(quoted(identity.as_os_str()));
        }
        if let Some(known) = &ssh.known_hosts {
            line.push(" -o UserKnownHostsFile=");
            line.push(quoted(known.as_os_str()));
        }
        line
    }
}

/// Where a program lies. With a whole path the kernel need not search for it, and this process is
/// not copied to start it, which would take longer the more memory it has.
fn whole_path(program: &Path) -> PathBuf {
    let plain_name = program.components().count() == 1 && program.is_relative();
    let mut places = PATH.split(':').map(|folder| Path::new(folder).join(program));
    match places.find(|place| plain_name && place.is_file()) {
        Some(place) => place,
        None => program.to_owned(),
    }
}

/// For the shell that git hands `GIT_SSH_COMMAND` to.
fn quoted(word: &OsStr) -> OsString {
    OsString::from(format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
}

fn protocols(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::File => "file",
        Scheme::Http => "http:https",
        Scheme::Https => "https",
        Scheme::Ssh => "ssh",
    }
}

/// A process group of git's; ended with all its members when this value is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    group: Option<Pid>,
}

impl Running {
    fn spawn(mut command: Command, program: &Path) -> Result<Self, GitError> {
        let child = command.spawn().map_err(|e| GitError::NoGit {
            program: program.to_owned(),
            why: e.to_string(),
        })?;
        let raw = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = raw.and_then(rustix::process::Pid::from_raw) {
            let limit = rustix::process::Rlimit {
                current: Some(MEMORY_MAX),
                maximum: Some(MEMORY_MAX),
            };
            // Fails only if the process is gone already.
            let _ = rustix::process::prlimit(Some(pid), rustix::process::Resource::Data, limit);
        }
        Ok(Self {
            child,
            group: raw.map(Pid::from_raw),
        })
    }

    async fn talk(
        &mut self,
        input: &[u8],
        sink: &mut (dyn FnMut(&[u8]) -> Result<(), GitError> + Send),
    ) -> Result<Ended, GitError> {
        let stdin = self.child.stdin.take();
        let stdout = self.child.stdout.take();
        let stderr = self.child.stderr.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A process that does not want its input says why on its standard error.
                let _ = stdin.write_all(input).await;
            }
            Ok(())
        };
        let (stderr, (), ()) = tokio::try_join!(tail(stderr), feed, pour(stdout, sink))?;
        let status = self.child.wait().await.map_err(|e| GitError::io("git", e))?;
        self.group = None;
        Ok(Ended {
            success: status.success(),
            stdout: Vec::new(),
            stderr,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Not after the leader was waited for: its number may belong to somebody else by then.
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn pour(
    from: Option<impl AsyncRead + Unpin>,
    sink: &mut (dyn FnMut(&[u8]) -> Result<(), GitError> + Send),
) -> Result<(), GitError> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(n) => sink(&buffer[..n])?,
            Err(e) => return Err(GitError::io("git", e)),
        }
    }
}

/// Reads to the end and keeps the last part.
async fn tail(from: Option<impl AsyncRead + Unpin>) -> Result<String, GitError> {
    let Some(mut from) = from else { return Ok(String::new()) };
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => return Ok(String::from_utf8_lossy(&kept).into_owned()),
            Ok(n) => kept.extend_from_slice(&buffer[..n]),
            Err(e) => return Err(GitError::io("git", e)),
        }
        if kept.len() > 2 * STDERR_MAX {
            kept.drain(..kept.len() - STDERR_MAX);
        }
    }
}
