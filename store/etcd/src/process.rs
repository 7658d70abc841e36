//! etcd as processes of one's own, for tests and benchmarks: one member or several, killed, paused and
//! started again.
//!
//! They live on free ports of the loopback and in a temporary folder, and die with their starter,
//! however that ends. Not here: what is tested.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The program, unless [`PROGRAM_VARIABLE`] names another one; Debian's `etcd-server` installs it.
const PROGRAM: &str = "/usr/bin/etcd";

/// The environment variable that names another etcd, to try other versions.
pub const PROGRAM_VARIABLE: &str = "BUILDFLOW_TEST_ETCD";

/// Ties a process to its starter; Debian's `util-linux` has it.
const TIE: &str = "/usr/bin/setpriv";

/// How long a cluster may take to stand on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a start is tried: a port that was free may be taken by a neighbour before etcd has it.
const START_TRIES: usize = 5;

/// For clients, for the other members, for the question whether it is well.
const PORTS: usize = 3;

/// How long a member may take to say whether it is well.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of what a member says of itself that are read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// How often it is looked whether a port answers.
const POLL: Duration = Duration::from_millis(20);

/// How etcd is run.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// How many members.
    pub members: usize,
    /// Whether every write waits for the disk. Without, tests are quicker, and a member that is
    /// killed still loses nothing (only the machine's own crash would).
    pub fsync: bool,
    /// Between signs of life of the leader, milliseconds. An election begins after ten of them.
    pub heartbeat_ms: u64,
    /// More arguments, e.g. `--quota-backend-bytes=…`.
    pub arguments: Vec<String>,
    /// Certificates for clients: the members then speak TLS and demand a certificate of their authority.
    pub tls: Option<EtcdServerTls>,
}

/// Certificates of the members, as files.
#[derive(Debug, Clone)]
pub struct EtcdServerTls {
    /// The authority of both sides.
    pub ca: PathBuf,
    /// Of the members; valid for 127.0.0.1.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Default for EtcdOptions {
    /// One member that does not wait for its disk.
    fn default() -> Self {
        Self {
            members: 1,
            fsync: false,
            heartbeat_ms: 50,
            arguments: Vec::new(),
            tls: None,
        }
    }
}

/// Running members. Dropping it kills them and removes their folder.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Process>,
    options: EtcdOptions,
    folder: TempDir,
}

#[derive(Debug)]
struct Process {
    name: String,
    client_port: u16,
    peer_port: u16,
    /// Where it says, without TLS, whether it is well.
    health_port: u16,
    child: Option<Child>,
}

/// True if etcd is installed; says loudly if not, so that a test that is skipped is seen.
#[must_use]
pub fn installed() -> bool {
    let program = program();
    let there = program.exists() && Path::new(TIE).exists();
    if !there {
        eprintln!(
            "SKIPPED: {} and {TIE} are needed; apt install etcd-server util-linux",
            program.display()
        );
    }
    there
}

fn program() -> PathBuf {
    std::env::var_os(PROGRAM_VARIABLE).map_or_else(|| PROGRAM.into(), PathBuf::from)
}

impl Etcd {
    /// Starts the members and waits until each answers. Blocks.
    ///
    /// # Errors
    /// When etcd is not installed, or does not stand after a minute; with the end of its log.
    pub fn start(options: EtcdOptions) -> Result<Self> {
        let mut last = Error::other("etcd was not started");
        for _ in 0..START_TRIES {
            match Self::start_once(options.clone()) {
                Ok(etcd) => return Ok(etcd),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn start_once(options: EtcdOptions) -> Result<Self> {
        let ports = free_ports(PORTS * options.members)?;
        let members = ports.chunks(PORTS).enumerate().map(|(n, ports)| Process {
            name: format!("m{n}"),
            client_port: ports[0],
            peer_port: ports[1],
            health_port: ports[2],
            child: None,
        });
        let mut etcd = Self {
            members: members.collect(),
            options,
            folder: TempDir::with_prefix("etcd-")?,
        };
        for member in 0..etcd.members.len() {
            etcd.spawn(member)?;
        }
        for member in 0..etcd.members.len() {
            etcd.wait_for(member)?;
        }
        Ok(etcd)
    }

    /// The addresses for clients, in the order of the members.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    /// The address of one member.
    #[must_use]
    pub fn endpoint(&self, member: usize) -> String {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.members[member].client_port)
    }

    /// The port of one member's clients.
    #[must_use]
    pub fn port(&self, member: usize) -> u16 {
        self.members[member].client_port
    }

    /// What a member counts, in the text form of Prometheus. Blocks.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self, member: usize) -> Result<String> {
        ask(self.members[member].health_port, "/metrics")
    }

    /// The process id of a member that runs.
    #[must_use]
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.members[member].child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits for the end.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Stops a member where it stands, as a virtual machine that is paused.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::STOP)
    }

    /// Lets a paused member go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::CONT)
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let pid = self.members[member].child.as_ref().map(Pid::from_child);
        let pid = pid.ok_or_else(|| Error::other(format!("member {member} does not run")))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Starts a killed member again on its ports and its data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not stand after a minute; with the end of its log.
    pub fn restart(&mut self, member: usize) -> Result<()> {
        self.spawn(member)?;
        self.wait_for(member)
    }

    /// As [`Etcd::restart`], without waiting: without a quorum a member does not answer.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(&mut self, member: usize) -> Result<()> {
        self.kill(member)?;
        let child = spawn_tied(self.command(member)?)?;
        self.members[member].child = Some(child);
        Ok(())
    }

    fn command(&self, member: usize) -> Result<Command> {
        let own = &self.members[member];
        let log = File::options().create(true).append(true).open(self.log(member))?;
        let peer = |m: &Process| format!("{}=http://127.0.0.1:{}", m.name, m.peer_port);
        let cluster: Vec<String> = self.members.iter().map(peer).collect();
        let client_url = self.endpoint(member);
        let peer_url = format!("http://127.0.0.1:{}", own.peer_port);
        let mut command = Command::new(TIE);
        command.args(["--pdeathsig", "KILL", "--"]).arg(program());
        command.args(["--name", &own.name, "--logger", "zap", "--log-level", "warn"]);
        command.arg("--data-dir").arg(self.folder.path().join(&own.name));
        command.args([
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
        ]);
        command.args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ]);
        command.args([
            "--listen-metrics-urls",
            &format!("http://127.0.0.1:{}", own.health_port),
        ]);
        command.args(["--initial-cluster", &cluster.join(",")]);
        command.args(["--heartbeat-interval", &self.options.heartbeat_ms.to_string()]);
        command.args(["--election-timeout", &(10 * self.options.heartbeat_ms).to_string()]);
        if !self.options.fsync {
            command.arg("--unsafe-no-fsync");
        }
        if let Some(tls) = &self.options.tls {
            command
                .arg("--cert-file")
                .arg(&tls.cert)
                .arg("--key-file")
                .arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca).arg("--client-cert-auth");
        }
        command.args(&self.options.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    fn log(&self, member: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.members[member].name))
    }

    /// Waits until a member has joined a quorum: it takes connections long before.
    fn wait_for(&mut self, member: usize) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let ended = match self.members[member].child.as_mut() {
                Some(child) => child.try_wait()?,
                None => return Err(Error::other(format!("member {member} does not run"))),
            };
            if ended.is_none() && is_well(self.members[member].health_port).unwrap_or(false) {
                return Ok(());
            }
            if ended.is_some() || Instant::now() >= deadline {
                let log = std::fs::read_to_string(self.log(member)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                let what = ended.map_or("does not answer".to_owned(), |status| format!("ended with {status}"));
                return Err(Error::other(format!(
                    "member {member} of etcd {what}: {}",
                    lines.join(" | ")
                )));
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            // A paused process dies of SIGKILL, too.
            if let Err(error) = self.kill(member) {
                eprintln!("member {member} of etcd was not killed: {error}");
            }
        }
    }
}

/// Asks a member whether it can read through its quorum.
fn is_well(port: u16) -> Result<bool> {
    Ok(ask(port, "/health")?.contains("\"health\":\"true\""))
}

fn ask(port: u16, path: &str) -> Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(HEALTH_TIMEOUT))?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_>>()?;
    listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect()
}

/// What the starter's thread is asked for, and where the answer goes.
type Asked = (Command, mpsc::Sender<Result<Child>>);

/// Starts a process that is killed with this one. Linux ties it to the **thread** that starts it, and
/// a test's thread ends with the test; so one thread that never ends starts them all.
fn spawn_tied(command: Command) -> Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Asked>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (asks, asked) = mpsc::channel::<Asked>();
        std::thread::spawn(move || {
            for (mut command, answer) in asked {
                // Nobody listens any more only if the test was aborted.
                let _ = answer.send(command.spawn());
            }
        });
        asks
    });
    let gone = || Error::other("the thread that starts processes is gone");
    let (answer, answered) = mpsc::channel();
    starter.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}
