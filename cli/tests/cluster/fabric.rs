//! The cluster of `scripts/cluster`, driven as an operator would: processes are killed, paused and
//! started, cables are pulled.
//!
//! Not here: what the cluster is asked to do ([`crate::load`]).

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "../e2e/image.rs"]
mod image;

/// How long a test waits for what should take seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// A running cluster; dropping it takes it down.
pub(crate) struct Fabric {
    folder: tempfile::TempDir,
    net: String,
    pub(crate) servers: Vec<String>,
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

/// Where `scripts/cluster` looks for the folder and the S3 server.
fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Fabric {
    /// Why there can be no cluster on this machine.
    pub(crate) fn missing() -> Option<&'static str> {
        if !nix::unistd::geteuid().is_root() {
            return Some("it needs root: network namespaces and containers");
        }
        if !top().join("target/tools/bin/s3s-fs").exists() {
            return Some("the S3 server is not installed: scripts/setup cluster");
        }
        None
    }

    /// Starts everything, with a busybox image as `oci:busybox` on every node.
    pub(crate) fn up() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("buildflow-cluster-")
            .tempdir()
            .expect("folder");
        // PostgreSQL serves as a user of its own below it.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("readable");
        image::write_layout(&folder.path().join("images/busybox"), &image::busybox_layer());
        let number = std::process::id();
        let net = format!("10.{}.{}", 100 + number % 100, number / 100 % 250);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let mut fabric = Self {
            folder,
            net,
            servers: Vec::new(),
            token: String::new(),
            http: reqwest::Client::new(),
            runtime,
        };
        fabric.script(&["up"]);
        fabric.read_env();
        fabric
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read_env(&mut self) {
        let text = std::fs::read_to_string(self.path().join("env")).expect("env");
        let value = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("export {name}=")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
        };
        self.servers = value("BUILDFLOW_ADDR").split(',').map(str::to_owned).collect();
        self.token = value("BUILDFLOW_TOKEN");
        let authority = std::fs::read(value("BUILDFLOW_CA")).expect("the authority");
        self.http = reqwest::Client::builder()
            .add_root_certificate(reqwest::Certificate::from_pem(&authority).expect("PEM"))
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(10))
            .build()
            .expect("client");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(top().join("scripts/cluster"));
        command
            .args(arguments)
            .env("CLUSTER_DIR", self.path())
            .env("CLUSTER_NET", &self.net)
            .env("CLUSTER_CPU_MILLIS", "64000")
            .env("BUILDFLOW_PROGRAM", env!("CARGO_BIN_EXE_buildflow"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `scripts/cluster` with these arguments.
    pub(crate) fn script(&self, arguments: &[&str]) {
        let output = self.command(arguments).output().expect("started");
        assert!(
            output.status.success(),
            "cluster {arguments:?}: {}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.outputs()
        );
    }

    /// The process that `scripts/cluster` started under this name.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        let text = std::fs::read_to_string(self.path().join(name).join("pid")).expect("pid");
        text.trim().parse().expect("a number")
    }

    /// Kills it and proves that it is gone.
    pub(crate) fn kill(&self, name: &str) {
        let pid = self.pid(name);
        self.script(&["kill", name]);
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        };
        self.until(&format!("{name} is gone"), |_| gone());
    }

    /// A GET to the given server.
    pub(crate) fn get_from(&self, server: &str, path: &str) -> Option<Value> {
        let request = self.http.get(format!("{server}{path}")).bearer_auth(&self.token);
        // A request with a time-out wants a runtime from its beginning.
        let text = self
            .runtime
            .block_on(async { request.send().await.ok()?.text().await.ok() })?;
        Some(serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A GET to whichever server answers.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.servers.iter().find_map(|server| self.get_from(server, path))
    }

    /// The server that leads, as any server says, e.g. `server2`.
    pub(crate) fn leader(&self) -> String {
        self.until("a server leads", |f| {
            let leader = f.get("/readyz")?["leader"].as_str()?.to_owned();
            SERVERS.contains(&leader.as_str()).then_some(leader)
        })
    }

    /// The time from the moment when a leader heard that it is to stop until the next one led, by the
    /// time stamps of what they said.
    pub(crate) fn handover(&self, stopped: &str, next: &str) -> Duration {
        let said = |server: &str, what: &str| {
            let text = std::fs::read_to_string(self.path().join(server).join("output.txt")).expect("output");
            let line = text.lines().rfind(|line| line.contains(what));
            let line = line.unwrap_or_else(|| panic!("{server} never said `{what}`"));
            micros_of_day(&line[..line.find(' ').unwrap_or(0)])
        };
        let left = said(stopped, "stopping; running steps go on");
        let came = said(next, " leads server=");
        Duration::from_micros(came.saturating_sub(left))
    }

    /// Runs a client verb against this cluster; answers what it printed.
    pub(crate) fn client(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_buildflow"))
            .args(arguments)
            .env("BUILDFLOW_ADDR", self.servers.join(","))
            .env("BUILDFLOW_TOKEN", &self.token)
            .env("BUILDFLOW_CA", self.path().join("config/authority.pem"))
            .stdin(Stdio::null())
            .output()
            .expect("started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Waits for `check`, looking again as often as is polite.
    pub(crate) fn until<T>(&self, what: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            assert!(Instant::now() < end, "waited in vain until {what}\n{}", self.outputs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of every process.
    pub(crate) fn outputs(&self) -> String {
        let mut text = String::new();
        for host in std::fs::read_dir(self.path()).into_iter().flatten().flatten() {
            let output = std::fs::read_to_string(host.path().join("output.txt")).unwrap_or_default();
            let lines: Vec<&str> = output.lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n");
            if !last.is_empty() {
                text.push_str(&format!("--- {}\n{last}\n", host.path().display()));
            }
        }
        text
    }

    /// Takes it down and proves that nothing is left of it.
    pub(crate) fn down(self) {
        self.script(&["down"]);
        let mark = self.path().file_name().expect("named").to_string_lossy().into_owned();
        let left = self.until("nothing is left", |_| {
            let found = crate::leftovers::find(&mark);
            found.is_empty().then_some(found)
        });
        assert!(left.is_empty());
        let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let net: Vec<u32> = self.net.split('.').map(|n| n.parse().expect("a number")).collect();
        let prefix = format!("bf{:x}{:x}", net[1], net[2]);
        let left: Vec<_> = names
            .map(|n| n.file_name().to_string_lossy().into_owned())
            .filter(|n| n.starts_with(&format!("{prefix}-")))
            .collect();
        assert!(left.is_empty(), "namespaces are left: {left:?}");
    }
}

/// Of a time stamp like `2026-01-31T18:30:16.125652Z`.
fn micros_of_day(stamp: &str) -> u64 {
    let clock = stamp.split(['T', 'Z']).nth(1).expect("a time of day");
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().expect("a number")).collect();
    ((parts[0] * 3_600.0 + parts[1] * 60.0 + parts[2]) * 1e6) as u64
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.outputs());
        }
        let _ = self.command(&["down", "--keep"]).output();
    }
}
