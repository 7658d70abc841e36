//! A PostgreSQL server of a test's own: a process on a free port, with a folder of its own.
//!
//! A small shell stands between the test and the server and reads words from the test. When the
//! test ends, however it ends, the shell's input closes; it then kills the server and removes the
//! folder. The server refuses to run as root, so root hands it to another user. Not here: anything
//! for production; nothing is synced to the disk.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a server takes to start on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often a port is tried that a neighbour may have taken meanwhile.
const PORTS_MAX: usize = 8;

/// Where Debian puts the programs of each release.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Nobody, where there is no user `postgres`.
const NOBODY: u32 = 65_534;

const PASSWORD: &str = "a b/ü:@";

/// `$1` the programs, `$2` the folder, `$3` the port, then further arguments of the server.
const KEEPER: &str = r#"
programs=$1 folder=$2 port=$3
shift 3
up() {
    "$programs/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c full_page_writes=off -c max_connections=60 "$@" \
        >>"$folder/log" 2>&1 &
    server=$!
}
down() { kill -QUIT "$server" 2>/dev/null; wait "$server" 2>/dev/null; }
trap '' INT TERM
up "$@"
while read -r word; do
    case $word in
        down) down; echo done ;;
        up) up "$@"; echo done ;;
    esac
done
down
rm -rf "$folder"
"#;

/// A running server; dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct PostgresServer {
    keeper: Child,
    words: Option<ChildStdin>,
    folder: PathBuf,
    port: u16,
}

impl PostgresServer {
    /// Starts a server. `None`, said loudly on standard error, when the programs are not installed.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_with(&[], |_| {})
    }

    /// As [`PostgresServer::start`], with further arguments for the server, after `prepare` has put
    /// files into its data folder.
    ///
    /// # Panics
    /// When it is installed and does not start.
    #[must_use]
    pub fn start_with(arguments: &[&str], prepare: impl Fn(&Path)) -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!(
                "SKIPPED: no PostgreSQL below {DEBIAN}: install the package `postgresql` (scripts/setup test) to run \
                 this test"
            );
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let user = user();
        let give = |path: &Path| {
            if let Some(user) = user {
                chown(path, Some(user), Some(user)).expect("root may give a folder away");
            }
        };
        give(&folder);
        std::fs::write(folder.join("password"), PASSWORD).expect("a file in the folder");
        give(&folder.join("password"));
        initialise(&programs, &folder, user);
        prepare(&folder.join("data"));
        for name in std::fs::read_dir(folder.join("data")).expect("made").flatten() {
            give(&name.path());
        }
        for _ in 0..PORTS_MAX {
            if let Some(server) = Self::try_start(&programs, &folder, user, arguments) {
                return Some(server);
            }
        }
        panic!("no port was free for {PORTS_MAX} times");
    }

    fn try_start(programs: &Path, folder: &Path, user: Option<u32>, arguments: &[&str]) -> Option<Self> {
        let port = free_port();
        let _ = std::fs::remove_file(folder.join("log"));
        let mut command = command(Path::new("/bin/sh"), user);
        command.arg("-c").arg(KEEPER).arg("sh");
        command.arg(programs).arg(folder).arg(port.to_string()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut keeper = command.spawn().expect("a shell");
        let mut server = Self {
            words: keeper.stdin.take(),
            keeper,
            folder: folder.to_owned(),
            port,
        };
        if server.wait_until_ready() {
            return Some(server);
        }
        // The folder is needed for the next try: the keeper must not remove it.
        let _ = server.keeper.kill();
        let _ = server.keeper.wait();
        server.words = None;
        std::mem::forget(server);
        None
    }

    /// The address of one of its databases, with user and password.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let password = "a%20b%2F%C3%BC%3A%40";
        format!("postgres://buildflow:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server; its data stay.
    ///
    /// # Panics
    /// When its keeper is gone.
    pub fn down(&mut self) {
        self.say("down");
    }

    /// Starts it again on the same port and waits until it is ready.
    ///
    /// # Panics
    /// When it does not start, e.g. because somebody else has the port now.
    pub fn up(&mut self) {
        self.say("up");
        assert!(self.wait_until_ready(), "a neighbour took the port: {}", self.log());
    }

    fn say(&mut self, word: &str) {
        let words = self.words.as_mut().expect("taken only when dropped");
        writeln!(words, "{word}").expect("the keeper listens");
        let mut answer = [0; 5];
        let answers = self.keeper.stdout.as_mut().expect("piped");
        answers.read_exact(&mut answer).expect("the keeper answers");
        assert_eq!(&answer, b"done\n");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// False when a neighbour has the port.
    fn wait_until_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
            // Its eighth line is the server's own word.
            if state.lines().nth(7).is_some_and(|l| l.trim() == "ready") {
                return true;
            }
            let log = self.log();
            if log.contains("could not create any TCP/IP sockets") {
                return false;
            }
            assert!(!log.contains("FATAL:  "), "it does not start: {log}");
            assert!(Instant::now() < deadline, "it is not ready in time: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.words = None;
        let _ = self.keeper.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// The newest release's programs.
fn programs() -> Option<PathBuf> {
    let releases = std::fs::read_dir(DEBIAN).ok()?.flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut releases: Vec<PathBuf> = releases
        .map(|e| e.path())
        .filter(|p| p.join("bin/postgres").is_file())
        .collect();
    releases.sort_by_key(|p| number(p));
    releases.pop().map(|p| p.join("bin"))
}

/// To whom root hands the server; `None` when we are not root.
fn user() -> Option<u32> {
    let number = |arguments: &[&str]| -> Option<u32> {
        let output = Command::new("id").args(arguments).output().ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    };
    match number(&["-u"]) {
        Some(0) => Some(number(&["-u", "postgres"]).unwrap_or(NOBODY)),
        _ => None,
    }
}

fn command(program: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8");
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command
}

fn initialise(programs: &Path, folder: &Path, user: Option<u32>) {
    let made = command(&programs.join("initdb"), user)
        .arg("-D")
        .arg(folder.join("data"))
        .args([
            "-U",
            "buildflow",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
            "--no-instructions",
        ])
        .arg(format!("--pwfile={}", folder.join("password").display()))
        .output()
        .expect("initdb runs");
    assert!(
        made.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&made.stderr)
    );
}
