//! A server whose engines are not there: it waits, says for what, and begins when they are; and
//! `admin check`, which says the same beforehand.

use crate::cluster::free_port;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use store_etcd::process::{Etcd, EtcdOptions, installed};
use store_postgres::process::PostgresServer;

const PATIENCE: Duration = Duration::from_secs(120);

fn buildflow(arguments: &[&str], config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildflow"));
    command.args(arguments).arg("--config").arg(config).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// A server that a failed test does not leave behind.
struct Server {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    /// With these lines in its configuration.
    fn start(lines: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("buildflow-wait-")
            .tempdir()
            .expect("folder");
        let port = free_port();
        let config = folder.path().join("server.yml");
        fs::write(&config, format!("data: data\nlisten: 127.0.0.1:{port}\n{lines}")).expect("written");
        let output = File::create(folder.path().join("output.txt")).expect("output");
        let child = buildflow(&["server"], &config)
            .stdout(output.try_clone().expect("output"))
            .stderr(output)
            .spawn()
            .expect("started");
        Self {
            child,
            folder,
            port,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime"),
        }
    }

    fn get(&self, path: &str) -> Option<(u16, Value)> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        self.runtime.block_on(async {
            let answer = reqwest::get(url).await.ok()?;
            let status = answer.status().as_u16();
            let text = answer.text().await.ok()?;
            Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
        })
    }

    fn until<T>(&self, what: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            assert!(Instant::now() < end, "waited in vain until {what}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What it waits for.
    fn problems(&self) -> Option<String> {
        let (status, body) = self.get("/readyz")?;
        (status == 503 && body["ready"] == json!(false)).then(|| body["problems"].to_string())
    }

    fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output.txt")).unwrap_or_default()
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status;
            }
            assert!(Instant::now() < end, "it does not end:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    }

    fn check(&self) -> Output {
        let config = self.folder.path().join("server.yml");
        buildflow(&["admin", "check"], &config).output().expect("ran")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.terminate();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_waits_for_etcd_and_begins_when_it_is_there() {
    if !installed() {
        eprintln!("SKIPPED a_server_waits_for_etcd_and_begins_when_it_is_there: etcd is not installed (etcd-server)");
        return;
    }
    let mut etcd = Etcd::start(EtcdOptions::default()).expect("etcd");
    etcd.kill(0).expect("killed");
    let server = Server::start(&format!(
        "store: {{ etcd: {{ endpoints: ['{}'] }} }}\nblobs: {{ folder: {{ shared: true }} }}\n",
        etcd.endpoint(0)
    ));
    let problems = server.until("it says what it waits for", Server::problems);
    let address = etcd.endpoint(0);
    let address = address.trim_start_matches("http://");
    let problems = if problems.contains("the live store") {
        problems
    } else {
        server.until("it names the live store", |s| {
            s.problems().filter(|p| p.contains("the live store"))
        })
    };
    assert!(problems.contains(address), "{problems}");
    assert_eq!(server.get("/healthz").expect("it answers").0, 200);
    let (status, refused) = server.get("/api/v1/runs").expect("it answers");
    assert_eq!(status, 503, "{refused}");
    assert!(
        refused["detail"].as_str().is_some_and(|d| d.contains("the live store")),
        "{refused}"
    );

    let checked = server.check();
    assert_eq!(checked.status.code(), Some(5), "{}", said(&checked));
    assert!(said(&checked).contains("FAILED   etcd"), "{}", said(&checked));

    etcd.restart(0).expect("restarted");
    server.until("it is ready", |s| s.get("/readyz").filter(|(status, _)| *status == 200));
    let told = server.output().matches("not there yet").count();
    assert!(
        (1..=3).contains(&told),
        "one line for each change, not for each try:\n{}",
        server.output()
    );

    let checked = server.check();
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    for words in ["ok       etcd, writing: ", "leads", "ok       blobs"] {
        assert!(said(&checked).contains(words), "{words}: {}", said(&checked));
    }
}

#[test]
fn a_server_that_waits_ends_when_it_is_asked_to() {
    let closed = free_port();
    let mut server = Server::start(&format!(
        "blobs: {{ s3: {{ endpoint: 'http://127.0.0.1:{closed}', bucket: b, path_style: true, access_key_file: key, secret_key_file: key }} }}\n"
    ));
    // The files are read at each try: until then they are what it waits for, or it has ended.
    let ended = server.until("it says what is missing, or ends", |s| {
        s.problems()
            .or_else(|| s.output().contains("No such file").then(String::new))
    });
    assert!(
        ended.is_empty(),
        "a file that is named and missing is no matter of waiting: {ended}"
    );
    let status = server.ended();
    assert_eq!(status.code(), Some(2), "{}", server.output());

    let folder = tempfile::tempdir().expect("folder");
    let key = folder.path().join("key");
    fs::write(&key, "key\n").expect("written");
    let key = key.display();
    let mut server = Server::start(&format!(
        "blobs: {{ s3: {{ endpoint: 'http://127.0.0.1:{closed}', bucket: b, path_style: true, access_key_file: {key}, secret_key_file: {key} }} }}\n"
    ));
    server.until("it waits for the object store", |s| {
        s.problems().filter(|p| p.contains("the blob store"))
    });
    let checked = server.check();
    assert_eq!(checked.status.code(), Some(5), "{}", said(&checked));
    assert!(said(&checked).contains("FAILED   object store"), "{}", said(&checked));
    server.terminate();
    let status = server.ended();
    assert_eq!(status.code(), Some(0), "{}", server.output());
}

#[test]
fn the_database_is_checked_and_not_waited_for() {
    let Some(mut postgres) = PostgresServer::start() else {
        eprintln!("SKIPPED the_database_is_checked_and_not_waited_for: PostgreSQL cannot be started here");
        return;
    };
    // It holds a password, so it stands in a file.
    let folder = tempfile::tempdir().expect("folder");
    let url = folder.path().join("url");
    fs::write(&url, postgres.url("postgres")).expect("written");
    let lines = format!("history: {{ postgres: {{ url_file: {} }} }}\n", url.display());
    let server = Server::start(&lines);
    server.until("it is ready", |s| s.get("/readyz").filter(|(status, _)| *status == 200));
    let checked = server.check();
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert!(
        said(&checked).contains("ok       database: PostgreSQL "),
        "{}",
        said(&checked)
    );

    postgres.down();
    let checked = server.check();
    assert_eq!(checked.status.code(), Some(5), "{}", said(&checked));
    assert!(said(&checked).contains("FAILED   database"), "{}", said(&checked));
    let second = Server::start(&lines);
    second.until("builds do not wait for the database", |s| {
        s.get("/api/v1/nodes").filter(|(status, _)| *status == 401)
    });

    postgres.up();
    for (url, mend) in [
        (postgres.url("nowhere"), "create the database"),
        (
            postgres.url("postgres").replace("a%20b", "wrong"),
            "check user and password",
        ),
    ] {
        let file = folder.path().join("wrong");
        fs::write(&file, url).expect("written");
        let mut wrong = Server::start(&format!(
            "history: {{ postgres: {{ url_file: {} }} }}\n",
            file.display()
        ));
        assert_eq!(wrong.ended().code(), Some(2), "no waiting mends it: {}", wrong.output());
        assert!(
            wrong.output().contains("history.postgres") && wrong.output().contains(mend),
            "{mend}: {}",
            wrong.output()
        );
    }
}
