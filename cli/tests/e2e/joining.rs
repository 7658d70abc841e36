//! A cluster with certificates on this machine: its server, machines that join, and all that is
//! refused. Certificates of nodes go for half a minute here.

use crate::cluster::free_port;
use pki::{Authority, Certificate, ClusterId};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// How long a node's certificate goes in these tests.
const NODE_CERTIFICATE: &str = "30s";

pub(crate) fn buildflow() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildflow"));
    command.stdin(Stdio::null());
    for name in [
        "BUILDFLOW_ADDR",
        "BUILDFLOW_TOKEN",
        "BUILDFLOW_CA",
        "BUILDFLOW_JOIN_TOKEN",
    ] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A process that a failed test does not leave behind.
struct Process(Child);

impl Process {
    fn start(role: &str, config: &Path, output: &Path) -> Self {
        let file = File::options().create(true).append(true).open(output).expect("output");
        let child = buildflow()
            .args([role, "--config"])
            .arg(config)
            .stdout(file.try_clone().expect("output"))
            .stderr(file)
            .spawn()
            .expect("started");
        Self(child)
    }

    fn stop(mut self) {
        self.terminate();
        let end = Instant::now() + PATIENCE;
        while self.0.try_wait().expect("waited").is_none() {
            assert!(Instant::now() < end, "it does not end after SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.terminate();
            let end = Instant::now() + Duration::from_secs(20);
            while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// A cluster of one server, as `admin init` makes it.
pub(crate) struct Secure {
    folder: tempfile::TempDir,
    pub(crate) port: u16,
    server: Process,
}

impl Secure {
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("buildflow-join-")
            .tempdir()
            .expect("folder");
        let port = free_port();
        init(&folder.path().join("made"), port);
        let config = folder.path().join("made/s1/server.yml");
        let text = fs::read_to_string(&config).expect("written by init");
        let data = format!("data: {}/server-data", folder.path().display());
        let text = text
            .replace("data: /var/lib/buildflow/server", &data)
            .replace("0.0.0.0", "127.0.0.1");
        let more = format!("node_certificate: {NODE_CERTIFICATE}\nnode_lease: 5s\nnode_grace: 1s\n");
        fs::write(&config, text + &more).expect("written");
        let server = Process::start("server", &config, &folder.path().join("server.txt"));
        let secure = Self { folder, port, server };
        until("the server is ready", || {
            let listed = secure.client(&["node", "list"]);
            if !listed.status.success() {
                eprint!("{}", said(&listed));
            }
            listed.status.success().then_some(())
        });
        secure
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the server has in memory.
    pub(crate) fn server_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.0.id())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("told");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kib << 10
    }

    /// Ends the server; its data stay.
    pub(crate) fn stop_server(&mut self) {
        self.server.terminate();
        until("the server has ended", || {
            self.server.0.try_wait().expect("waited").map(drop)
        });
    }

    fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn client_believing(&self, ca: &Path, arguments: &[&str]) -> Output {
        let token = fs::read_to_string(self.path("made/s1/admin-token")).expect("made");
        let mut command = buildflow();
        command
            .args(arguments)
            .env("BUILDFLOW_ADDR", self.address())
            .env("BUILDFLOW_TOKEN", token.trim())
            .env("BUILDFLOW_CA", ca);
        command.output().expect("ran")
    }

    pub(crate) fn client(&self, arguments: &[&str]) -> Output {
        self.client_believing(&self.path("made/authority.pem"), arguments)
    }

    fn token(&self, arguments: &[&str]) -> String {
        let line = [&["node", "join-token", "create", "--output", "json"], arguments].concat();
        let output = self.client(&line);
        assert!(output.status.success(), "{}", said(&output));
        let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        made["token"].as_str().expect("a token").to_owned()
    }

    fn join(&self, token: &str, name: &str) -> Output {
        buildflow()
            .args([
                "node",
                "join",
                "--token",
                token,
                "--server",
                &self.address(),
                "--name",
                name,
            ])
            .arg("--dir")
            .arg(self.path(name))
            .arg("--data")
            .arg(self.path(&format!("{name}-data")))
            .output()
            .expect("ran")
    }

    fn agent(&self, name: &str) -> Process {
        let config = self.path(name).join("agent.yml");
        Process::start("agent", &config, &self.path(&format!("{name}.txt")))
    }

    fn agent_said(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.txt"))).unwrap_or_default()
    }

    fn certificate(&self, name: &str) -> Certificate {
        let text = fs::read_to_string(self.path(name).join("node.pem")).expect("joined");
        Certificate::from_pem(&text).expect("a certificate")
    }

    /// The server says of a certificate that it ends then, or later when it was renewed meanwhile.
    fn expect_expiry(&self, metric: &str, not_after_s: u64) {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let text = runtime.block_on(async {
            let pem = fs::read(self.path("made/authority.pem")).expect("made");
            let ca = reqwest::Certificate::from_pem_bundle(&pem).expect("a certificate");
            let http = reqwest::Client::builder().tls_certs_only(ca).build().expect("a client");
            let answer = http.get(format!("{}/metrics", self.address())).send().await;
            answer.expect("answered").text().await.expect("text")
        });
        let line = text.lines().find_map(|l| l.strip_prefix(metric)).unwrap_or_default();
        let told: u64 = line.trim().parse().unwrap_or_default();
        assert!(
            (not_after_s..not_after_s + 3_600).contains(&told),
            "{metric}: {line:?}, not {not_after_s}"
        );
    }

    /// `admin certs show --nodes` tells of the node that has renewed, and of the one that has to join again.
    fn expect_nodes_told(&self, before_renewal: &Certificate) {
        let ended = self.certificate("stale");
        let json = self.client(&[
            "admin",
            "certs",
            "show",
            "--nodes",
            "--output",
            "json",
            "--dir",
            &self.made(),
        ]);
        let told: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&json)));
        assert!(
            told["certificates"].as_array().is_some_and(|all| all.len() >= 2),
            "{told}"
        );
        let nodes = &told["nodes"];
        assert_eq!(
            (&nodes["members"], &nodes["unknown"], &nodes["ended"]),
            (&2.into(), &0.into(), &1.into())
        );
        let nearest = [&nodes["nearest"][0], &nodes["nearest"][1]];
        assert_eq!(
            (&nearest[0]["name"], &nearest[1]["name"]),
            (&"stale".into(), &"fresh".into())
        );
        assert_eq!(nearest[0]["ends_ms"], ended.not_after_s * 1_000);
        let renewed = nearest[1]["ends_ms"].as_u64().expect("a time");
        assert!(renewed > before_renewal.not_after_s * 1_000, "{renewed}");
        let text = self.client(&["admin", "certs", "show", "--nodes", "--dir", &self.made()]);
        let words = format!("ENDED are 1 certificates: stale ({}); join", ended.name);
        assert!(said(&text).contains(&words), "{words}: {}", said(&text));
        assert!(said(&text).contains("DAYS LEFT") && said(&text).contains("nodes: 2 joined; the first"));
        let silent = buildflow()
            .args([
                "admin",
                "certs",
                "show",
                "--nodes",
                "--addr",
                "http://127.0.0.1:1",
                "--dir",
                &self.made(),
            ])
            .output()
            .expect("ran");
        expect_refused(&silent, 5, "127.0.0.1:1");
        assert!(said(&silent).contains("DAYS LEFT"), "the files are shown all the same");
    }

    fn made(&self) -> String {
        self.path("made").display().to_string()
    }

    fn node(&self, name: &str) -> Option<Value> {
        let shown = self.client(&["node", "list", "--output", "json"]);
        let list: Value = serde_json::from_slice(&shown.stdout).ok()?;
        list["nodes"].as_array()?.iter().find(|n| n["name"] == name).cloned()
    }

    fn is_connected(&self, name: &str) -> bool {
        self.node(name).is_some_and(|n| n["connected"] == true)
    }

    fn wait_connected(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.is_connected(name) {
            assert!(
                Instant::now() < end,
                "{name} does not connect:\n{}",
                self.agent_said(name)
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

pub(crate) fn init(dir: &Path, port: u16) {
    let output = buildflow()
        .args(["admin", "init", "--server", &format!("s1=127.0.0.1:{port}"), "--dir"])
        .arg(dir)
        .output()
        .expect("ran");
    assert!(output.status.success(), "{}", said(&output));
}

fn expect_refused(output: &Output, code: i32, words: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
    assert!(said(output).contains(words), "{words}: {}", said(output));
}

#[test]
fn a_machine_joins_only_with_a_good_token_of_this_cluster() {
    let secure = Secure::start();
    let other = secure.path("other");
    init(&other, 1);

    let stranger = secure.client_believing(&other.join("authority.pem"), &["node", "list"]);
    expect_refused(&stranger, 5, "belongs to the cluster");
    let nobody = buildflow()
        .args(["node", "list", "--addr", &secure.address()])
        .output()
        .expect("ran");
    expect_refused(&nobody, 5, "set BUILDFLOW_CA");

    let once = secure.token(&["--uses", "1"]);
    let (secret, pin) = once.split_once('.').expect("two parts");
    let others_pin = Certificate::from_pem(&fs::read_to_string(other.join("authority.pem")).expect("made"));
    let astray = format!("{secret}.{}", others_pin.expect("an authority").fingerprint);
    expect_refused(
        &secure.join(&astray, "astray"),
        2,
        "the server shows no authority with the fingerprint",
    );
    let unknown = format!("bfj_{}.{pin}", "0".repeat(64));
    expect_refused(&secure.join(&unknown, "unknown"), 6, "the join token is not known");
    expect_refused(&secure.join("bfj_x", "broken"), 2, "join token: it must look like");

    let joined = secure.join(&once, "first");
    assert!(joined.status.success(), "{}", said(&joined));
    expect_refused(&secure.join(&once, "second"), 6, "the join token is used up");
    expect_refused(&secure.join(&once, "first"), 2, "--force joins anew");

    let short = secure.token(&["--expires-in", "1s"]);
    let late = until("the token has ended", || {
        let output = secure.join(&short, "late");
        let _ = fs::remove_dir_all(secure.path("late"));
        (!output.status.success()).then_some(output)
    });
    expect_refused(&late, 6, "the join token has ended at");

    let revoked = secure.token(&["--name", "lost"]);
    let list: Value = serde_json::from_slice(
        &secure
            .client(&["node", "join-token", "list", "--output", "json"])
            .stdout,
    )
    .expect("JSON");
    let tokens = list["join_tokens"].as_array().expect("a list");
    let lost = tokens.iter().find(|t| t["name"] == "lost").expect("listed");
    assert!(!list.to_string().contains(secret), "the list shows no secrets");
    let done = secure.client(&["node", "join-token", "revoke", lost["id"].as_str().expect("an id")]);
    assert!(done.status.success(), "{}", said(&done));
    expect_refused(&secure.join(&revoked, "lost"), 6, "the join token is not known");
}

#[test]
fn plain_http_hears_that_the_port_speaks_tls() {
    let secure = Secure::start();
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", secure.port)).expect("connected");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("sent");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"),
        "{answer}"
    );
}

#[test]
fn a_node_renews_its_certificate_and_a_removed_one_stays_out() {
    if !crate::can_run("a_node_renews_its_certificate_and_a_removed_one_stays_out") {
        return;
    }
    let secure = Secure::start();
    let token = secure.token(&[]);
    for name in ["fresh", "stale"] {
        let joined = secure.join(&token, name);
        assert!(joined.status.success(), "{}", said(&joined));
    }
    let first = secure.certificate("fresh");
    let agent = secure.agent("fresh");
    secure.wait_connected("fresh");
    secure.expect_expiry(
        "buildflow_fleet_certificate_expiry_timestamp_seconds",
        first.not_after_s,
    );
    let authority = Certificate::from_pem(&fs::read_to_string(secure.path("made/authority.pem")).expect("made"));
    let server = Certificate::from_pem(&fs::read_to_string(secure.path("made/s1/server.pem")).expect("made"));
    for (of, certificate) in [("authority", authority), ("server", server)] {
        let metric = format!("buildflow_certificate_expiry_timestamp_seconds{{of=\"{of}\"}}");
        secure.expect_expiry(&metric, certificate.expect("a certificate").not_after_s);
    }
    until("the certificate is renewed", || {
        (secure.certificate("fresh").fingerprint != first.fingerprint).then_some(())
    });
    assert_eq!(secure.certificate("fresh").name, first.name, "it stays the same node");
    until("the first certificate has ended", || {
        (pki::now_s() > first.not_after_s).then_some(())
    });
    secure.wait_connected("fresh");

    until("the certificate that nobody renews has ended", || {
        (pki::now_s() > secure.certificate("stale").not_after_s).then_some(())
    });
    let stale = secure.agent("stale");
    until("the agent is told why it is refused", || {
        secure.agent_said("stale").contains("ended at").then_some(())
    });
    assert!(!secure.is_connected("stale"));
    stale.stop();
    secure.expect_nodes_told(&first);

    agent.stop();
    let removed = secure.client(&["node", "remove", "fresh", "--confirm-gone"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let back = secure.agent("fresh");
    until("the removed node is told so", || {
        secure
            .agent_said("fresh")
            .contains("was removed from this cluster")
            .then_some(())
    });
    assert!(!secure.is_connected("fresh"));
    back.stop();
}

#[test]
fn a_server_takes_over_a_rotated_certificate_without_a_restart() {
    let secure = Secure::start();
    let rotated = buildflow()
        .args(["admin", "certs", "rotate", "--dir"])
        .arg(secure.path("made"))
        .output()
        .expect("ran");
    assert!(rotated.status.success(), "{}", said(&rotated));
    let text = fs::read_to_string(secure.path("made/s1/server.pem")).expect("made");
    let wanted = Certificate::from_pem(&text).expect("a certificate").fingerprint;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let trust = pki::Trust::read(&secure.path("made/authority.pem")).expect("made");
    let address = secure.address().parse().expect("an address");
    until("the new certificate is shown", || {
        let client = pki::Client::new(trust.clone(), None).expect("a client");
        let stream = runtime.block_on(client.connect(&address)).ok()?;
        let shown = stream.get_ref().1.peer_certificates()?.first()?.clone();
        let shown = Certificate::from_der(&shown).ok()?;
        (shown.fingerprint == wanted).then_some(())
    });
    let shown = buildflow()
        .args(["admin", "certs", "show", "--dir"])
        .arg(secure.path("made"))
        .output()
        .expect("ran");
    let text = said(&shown);
    assert!(
        text.contains("authority") && text.contains("server") && text.contains("DAYS LEFT"),
        "{text}"
    );
}

const SEVERAL: [&str; 6] = [
    "--server",
    "s1=10.0.0.1",
    "--server",
    "s2=s2.test:7000,ci.test",
    "--server",
    "s3=::1",
];

fn try_init(dir: &Path, arguments: &[&str]) -> Output {
    let output = buildflow()
        .args(["admin", "init", "--dir"])
        .arg(dir)
        .args(arguments)
        .output();
    output.expect("ran")
}

#[test]
fn a_cluster_that_could_not_work_is_not_made() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("made");
    let cases = [
        (&SEVERAL[..], "several servers need etcd"),
        (
            &["--server", "s1=a", "--etcd", "http://e:2379"],
            "name a bucket with --s3-bucket",
        ),
        (&["--server", "s1=a", "--server", "s1=b"], "given twice"),
        (&["--server", "s1"], "must look like server-1=10.0.0.1:7420"),
        (&["--server", "s1=a/b"], "must look like server-1=10.0.0.1:7420"),
    ];
    for (arguments, words) in cases {
        expect_refused(&try_init(&dir, arguments), 2, words);
        assert!(
            !dir.exists(),
            "nothing is written before everything is known to be right"
        );
    }
}

/// What `admin init` writes for several servers is what a server takes, and shows no secret.
#[test]
fn a_cluster_of_several_servers_is_made_in_one_go() {
    let folder = tempfile::tempdir().expect("folder");
    let (dir, key) = (folder.path().join("made"), folder.path().join("key"));
    fs::write(&key, "hunter2\n").expect("written");
    let key = key.display().to_string();
    let engines = [
        "--etcd",
        "http://10.0.0.11:2379",
        "--postgres",
        "postgres://u:hunter2@h/d",
    ];
    let other = folder.path().join("other");
    init(&other, 1);
    let ca = other.join("authority.pem").display().to_string();
    let bucket = [
        "--s3-bucket",
        "b",
        "--s3-endpoint",
        "https://s3.test:9000",
        "--s3-ca",
        &ca,
        "--s3-access-key-file",
        &key,
        "--s3-secret-key-file",
        &key,
    ];
    let made = try_init(&dir, &[&SEVERAL[..], &engines, &bucket].concat());
    assert!(
        made.status.success() && !said(&made).contains("hunter2"),
        "{}",
        said(&made)
    );
    let mut tokens = Vec::new();
    for name in ["s1", "s2", "s3"] {
        let config = dir.join(name).join("server.yml");
        let written = fs::read_to_string(&config).expect("made");
        assert!(written.contains("ca: s3-ca.pem"), "{written}");
        let copied = fs::read_to_string(dir.join(name).join("s3-ca.pem")).expect("copied");
        assert_eq!(copied, fs::read_to_string(&ca).expect("there"));
        for flag in ["--check-config", "--print-config"] {
            let output = buildflow().args(["server", flag, "--config"]).arg(&config).output();
            let output = output.expect("ran");
            assert!(
                output.status.success() && !said(&output).contains("hunter2"),
                "{}",
                said(&output)
            );
        }
        for entry in fs::read_dir(dir.join(name)).expect("made") {
            expect_closed(&entry.expect("listed").path());
        }
        tokens.push(fs::read_to_string(dir.join(name).join("admin-token")).expect("made"));
    }
    assert!(tokens.windows(2).all(|pair| pair[0] == pair[1]), "one token for all");
    let names = |name: &str| {
        let text = fs::read_to_string(dir.join(name).join("server.pem")).expect("made");
        Certificate::from_pem(&text).expect("a certificate").names
    };
    assert_eq!(names("s2"), ["s2.test", "ci.test"]);
    assert_eq!(names("s3"), ["::1"]);
}

/// All but the authority's certificate is its owner's alone.
fn expect_closed(path: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("there").permissions());
    let shown = path.ends_with("authority.pem");
    assert!(
        shown || mode & 0o077 == 0,
        "{} is open to others: {mode:o}",
        path.display()
    );
}

/// The rotation of an authority, step by step, on the folder alone.
#[test]
fn an_authority_is_rotated_in_three_steps() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("made");
    init(&dir, 1);
    let again = buildflow()
        .args(["admin", "init", "--server", "s1=127.0.0.1", "--dir"])
        .arg(&dir)
        .output()
        .expect("ran");
    expect_refused(&again, 2, "nothing is overwritten");
    let step = |step: &str| {
        let output = buildflow()
            .args(["admin", "certs", "rotate", "--authority", step, "--dir"])
            .arg(&dir)
            .output();
        output.expect("ran")
    };
    let authorities = || {
        let trust = pki::Trust::read(&dir.join("s1/authority.pem")).expect("made");
        let all: Vec<String> = trust.authorities().map(|a| a.fingerprint.clone()).collect();
        all
    };
    let checked = || {
        let output = buildflow()
            .args(["server", "--check-config", "--config"])
            .arg(dir.join("s1/server.yml"))
            .output()
            .expect("ran");
        assert!(output.status.success(), "{}", said(&output));
    };
    let old = authorities();
    expect_refused(&step("switch"), 2, "no rotation has begun");
    expect_refused(&step("finish"), 2, "nothing to finish");
    for (name, count) in [("begin", 2), ("switch", 2), ("finish", 1)] {
        let output = step(name);
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert_eq!(authorities().len(), count, "{name}");
        checked();
    }
    assert_ne!(authorities(), old);
    expect_refused(&step("finish"), 2, "nothing to finish");
}

/// A clock that is wrong is seen as certificates that begin in the future.
#[test]
fn certificates_that_do_not_fit_the_clock_are_named_before_a_role_starts() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path().join("made");
    init(&dir, 1);
    let authority = Authority::read(&dir.join("authority.pem"), &dir.join("authority.key")).expect("made");
    let other = Authority::create(&ClusterId::random().expect("random"), pki::now_s(), pki::SERVER_LIFE);
    let (other, _) = other.expect("made");
    let now = pki::now_s();
    let cases = [
        (&authority, now + 86_400, "one of the two clocks is wrong"),
        (&authority, now - 2 * pki::SERVER_LIFE.as_secs(), "ended at"),
        (&other, now, "belongs to the cluster"),
    ];
    for (issuer, at_s, words) in cases {
        let identity = issuer.certify_server("s1", &["127.0.0.1".parse().expect("host")], at_s, pki::SERVER_LIFE);
        identity
            .expect("certified")
            .write(&dir.join("s1/server.pem"))
            .expect("written");
        for arguments in [
            &["server", "--check-config", "--config"][..],
            &["admin", "check", "--config"],
        ] {
            let output = buildflow()
                .args(arguments)
                .arg(dir.join("s1/server.yml"))
                .output()
                .expect("ran");
            assert!(
                !output.status.success() && said(&output).contains(words),
                "{words}: {}",
                said(&output)
            );
        }
    }
}
