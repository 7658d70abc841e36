//! A server whose engines are not there: it waits, says for what, and begins when they are; and
//! `admin check`, which says the same beforehand.

use crate::cluster::free_port;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use store::{Store, StoreError, Txn};
use store_etcd::process::{Etcd, EtcdOptions, installed};
use store_etcd::{EtcdConfig, EtcdStore};
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

    fn create_pipeline(&self, name: &str) -> (u16, Value) {
        let token = self.token();
        let body = json!({ "name": name, "repository": "https://example.org/app.git" });
        self.runtime.block_on(async {
            let asked = reqwest::Client::new()
                .post(format!("http://127.0.0.1:{}/api/v1/pipelines", self.port))
                .bearer_auth(token)
                .header("content-type", "application/json")
                .body(body.to_string());
            let answer = asked.send().await.expect("it answers");
            let status = answer.status().as_u16();
            let text = answer.text().await.expect("it answers");
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    fn token(&self) -> String {
        let token = fs::read_to_string(self.folder.path().join("data/admin-token")).expect("a token");
        token.trim().to_owned()
    }

    /// The names of all pipelines, in order.
    fn pipelines(&self) -> Vec<String> {
        let url = format!("http://127.0.0.1:{}/api/v1/pipelines", self.port);
        let list: Value = self.runtime.block_on(async {
            let asked = reqwest::Client::new().get(url).bearer_auth(self.token());
            let answer = asked.send().await.expect("it answers").text().await.expect("text");
            serde_json::from_str(&answer).expect("JSON")
        });
        let all = list["pipelines"].as_array().expect("a list").iter();
        let mut names: Vec<String> = all.filter_map(|p| Some(p["name"].as_str()?.to_owned())).collect();
        names.sort();
        names
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

    /// What it waits for; nothing at the very first.
    fn problems(&self) -> Option<String> {
        let (status, body) = self.get("/readyz")?;
        let waits = status == 503 && body["ready"] == json!(false) && body["problems"] != json!([]);
        waits.then(|| body["problems"].to_string())
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

/// Puts into an etcd what is not ours until it takes no more.
fn fill(endpoint: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let config = EtcdConfig {
            prefix: "filler/".to_owned(),
            ..EtcdConfig::plain(vec![endpoint.to_owned()])
        };
        let store = EtcdStore::connect(config).await.expect("it connects");
        for n in 0..1_000 {
            let piece = Txn::new().put_bytes(format!("k/{n}"), vec![0; 1 << 20], None);
            if let Err(error) = store.commit(piece).await {
                assert!(matches!(error, StoreError::Full(_)), "{error}");
                return;
            }
        }
        panic!("etcd has no quota");
    });
}

fn etcdctl(endpoint: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .args(arguments);
    let output = command.output().expect("etcdctl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What an operator does when etcd is full.
fn make_room(endpoint: &str) {
    let removed = etcdctl(endpoint, &["del", "--prefix", "filler/"]);
    assert!(removed.trim().parse::<u64>().is_ok_and(|n| n > 0), "{removed}");
    let status: Value = serde_json::from_str(&etcdctl(endpoint, &["endpoint", "status", "-w", "json"])).expect("JSON");
    let revision = status[0]["Status"]["header"]["revision"].to_string();
    etcdctl(endpoint, &["compact", &revision]);
    etcdctl(endpoint, &["defrag"]);
    etcdctl(endpoint, &["alarm", "disarm"]);
}

fn expect_told(server: &Server) {
    let metrics = server.get("/metrics").expect("it answers").1.to_string();
    assert!(metrics.contains("buildflow_store_full 1"), "{metrics}");
    let checked = server.check();
    assert_eq!(checked.status.code(), Some(5), "{}", said(&checked));
    for words in [
        "FAILED   etcd alarm: NOSPACE",
        "FAILED   etcd, room: ",
        "etcdctl alarm disarm",
    ] {
        assert!(said(&checked).contains(words), "{words}: {}", said(&checked));
    }
}

#[test]
fn a_full_etcd_is_told_and_the_service_comes_back_when_there_is_room() {
    if !installed() || !Path::new("/usr/bin/etcdctl").exists() {
        eprintln!(
            "SKIPPED a_full_etcd_is_told_and_the_service_comes_back_when_there_is_room: \
             etcd and etcdctl are not installed (etcd-server, etcd-client)"
        );
        return;
    }
    let quota = 16 << 20;
    let options = EtcdOptions {
        arguments: vec![format!("--quota-backend-bytes={quota}")],
        ..EtcdOptions::default()
    };
    let etcd = Etcd::start(options).expect("etcd");
    let endpoint = etcd.endpoint(0);
    let server = Server::start(&format!(
        "store: {{ etcd: {{ endpoints: ['{endpoint}'], quota_backend_bytes: {quota} }} }}\n\
         blobs: {{ folder: {{ shared: true }} }}\n"
    ));
    let leads = |s: &Server| s.get("/readyz").filter(|(_, body)| body["leads"] == json!(true));
    server.until("it leads", leads);
    assert_eq!(server.create_pipeline("before").0, 201);
    let checked = said(&server.check());
    assert!(checked.contains("ok       etcd, room: "), "{checked}");
    // The advice is for versions with a known fault; others need none.
    assert!(
        checked.contains("upgrade etcd to 3.4.31") || !checked.contains("version 3.4.2"),
        "{checked}"
    );

    fill(&endpoint);
    let (status, refused) = server.create_pipeline("during");
    assert_eq!(status, 503, "{refused}");
    assert!(
        refused["detail"].as_str().is_some_and(|d| d.contains("no room left")),
        "{refused}"
    );
    assert_eq!(
        server.get("/readyz").expect("it answers").0,
        200,
        "it still serves what it knows"
    );
    server.until("it tells why", |s| {
        let (_, body) = s.get("/readyz")?;
        body["problems"].to_string().contains("NOSPACE").then_some(())
    });
    expect_told(&server);
    // One that starts now waits, and says for what.
    let late = Server::start(&format!(
        "name: late\nstore: {{ etcd: {{ endpoints: ['{endpoint}'] }} }}\nblobs: {{ folder: {{ shared: true }} }}\n"
    ));
    late.until("it says what it waits for", |s| {
        s.problems().filter(|p| p.contains("database space exceeded"))
    });

    make_room(&endpoint);
    server.until("it takes writes again", |s| {
        (s.create_pipeline("after").0 == 201).then_some(())
    });
    server.until("somebody leads", |s| {
        s.get("/readyz").filter(|(_, body)| body["leader"] != Value::Null)
    });
    server.until("nothing is told any more", |s| {
        let (_, body) = s.get("/readyz")?;
        (!body["problems"].to_string().contains("room")).then_some(())
    });
    late.until("it is ready", |s| s.get("/readyz").filter(|(status, _)| *status == 200));
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

#[test]
fn engines_that_go_away_in_flight_are_told_and_come_back_by_themselves() {
    if !installed() {
        eprintln!("SKIPPED engines_that_go_away_in_flight_…: etcd is not installed (etcd-server)");
        return;
    }
    let Some(mut postgres) = PostgresServer::start() else {
        eprintln!("SKIPPED engines_that_go_away_in_flight_…: PostgreSQL cannot be started here");
        return;
    };
    let mut etcd = Etcd::start(EtcdOptions::default()).expect("etcd");
    let folder = tempfile::tempdir().expect("folder");
    let url = folder.path().join("url");
    fs::write(&url, postgres.url("postgres")).expect("written");
    let server = Server::start(&format!(
        "store: {{ etcd: {{ endpoints: ['{}'] }} }}\nblobs: {{ folder: {{ shared: true }} }}\n\
         history: {{ postgres: {{ url_file: {} }} }}\n",
        etcd.endpoint(0),
        url.display()
    ));
    let leads = |s: &Server| s.get("/readyz").filter(|(_, body)| body["leads"] == json!(true));
    server.until("it leads", leads);
    assert_eq!(server.create_pipeline("before").0, 201);

    postgres.down();
    let (_, body) = server.until("it tells that history is away", |s| {
        s.get("/readyz").filter(|(_, body)| body["history"] == json!(false))
    });
    assert!(
        body["ready"] == json!(true) && body["problems"].to_string().contains("builds go on"),
        "{body}"
    );
    assert_eq!(server.create_pipeline("without-history").0, 201, "builds go on");
    postgres.up();
    server.until("history is back", |s| {
        s.get("/readyz").filter(|(_, body)| body["history"] == json!(true))
    });

    etcd.kill(0).expect("killed");
    server.until("it tells that nothing can be written", |s| {
        s.get("/readyz")
            .filter(|(status, body)| *status == 503 && body["quorum_lost"] == json!(true))
    });
    let (status, refused) = server.create_pipeline("without-etcd");
    assert_eq!(status, 503, "{refused}");
    assert!(
        refused["detail"].as_str().is_some_and(|d| d.contains("store")),
        "{refused}"
    );
    assert_eq!(server.get("/healthz").expect("it answers").0, 200);
    etcd.restart(0).expect("restarted");
    server.until("it leads again", leads);
    server.until("it takes writes again", |s| {
        (s.create_pipeline("after").0 == 201).then_some(())
    });
    let names = server.pipelines();
    assert_eq!(
        names,
        ["after", "before", "without-history"],
        "nothing is lost, nothing half done"
    );
}
