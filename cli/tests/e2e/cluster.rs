//! One server and one agent as processes of their own, on a free port and folders of their own.

use crate::{image, leftovers};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a test waits for what should take seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port below the range that the kernel gives to outgoing connections, not used by another test.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 90) as u16 * 100;
    for _ in 0..100 {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {start} on");
}

/// A server, an agent, their folders, and a client.
pub(crate) struct Cluster {
    /// Everything that the test makes lies below.
    pub(crate) folder: tempfile::TempDir,
    address: String,
    server: Option<Child>,
    agent: Option<Child>,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

impl Cluster {
    /// Starts both, with a busybox image as `oci:busybox`. `agent_extra` is added to the agent's configuration.
    pub(crate) fn start(agent_extra: &str) -> Self {
        Self::start_in(None, "", agent_extra)
    }

    /// The same with these lines in the server's configuration.
    pub(crate) fn start_with_server(server_extra: &str) -> Self {
        Self::start_in(None, server_extra, "")
    }

    /// The same with the agent's data in a folder of the test's choice.
    pub(crate) fn start_with_agent_data(data: &Path, agent_extra: &str) -> Self {
        Self::start_in(Some(data), "", agent_extra)
    }

    fn start_in(agent_data: Option<&Path>, server_extra: &str, agent_extra: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("buildflow-e2e-")
            .tempdir()
            .expect("folder");
        let port = free_port();
        let path = folder.path();
        image::write_layout(&path.join("images/busybox"), &image::busybox_layer());
        let server = format!(
            "data: {}/server\nlisten: 127.0.0.1:{port}\nfile_repositories: true\n{server_extra}",
            path.display()
        );
        fs::write(path.join("server.yml"), server).expect("written");
        let agent_data = agent_data
            .map_or_else(|| path.join("agent"), Path::to_owned)
            .display()
            .to_string();
        let agent = format!(
            "data: {agent_data}\nservers: ['http://127.0.0.1:{port}']\ntoken_file: {0}/server/node-token\nfile_repositories: true\n\
             capacity: {{cpu_millis: 64000, memory_bytes: 17179869184, disk_bytes: 68719476736, slots: 64}}\n\
             images: {{folders: ['{0}/images']}}\n{agent_extra}",
            path.display()
        );
        fs::write(path.join("agent.yml"), agent).expect("written");
        let mut cluster = Self {
            folder,
            address: format!("http://127.0.0.1:{port}"),
            server: None,
            agent: None,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime"),
            http: reqwest::Client::new(),
        };
        cluster.start_server();
        cluster.start_agent();
        cluster
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn role(&self, role: &str) -> Child {
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.path().join(format!("{role}.txt")))
            .expect("output");
        Command::new(env!("CARGO_BIN_EXE_buildflow"))
            .args([role, "--config"])
            .arg(self.path().join(format!("{role}.yml")))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("output"))
            .stderr(output)
            .spawn()
            .expect("started")
    }

    pub(crate) fn start_server(&mut self) {
        self.server = Some(self.role("server"));
        self.until("the server is ready", |c| c.get("/readyz").is_some().then_some(()));
    }

    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(self.role("agent"));
        self.until("the node is connected", |c| {
            let nodes = c.get("/api/v1/nodes")?;
            nodes["nodes"]
                .as_array()?
                .iter()
                .any(|n| n["connected"] == json!(true))
                .then_some(())
        });
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill_server(&mut self) {
        kill(&mut self.server);
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill_agent(&mut self) {
        kill(&mut self.agent);
    }

    fn token(&self) -> String {
        fs::read_to_string(self.path().join("server/admin-token"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// A GET that answers 200 with JSON (or any text, as a JSON string).
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.answer(path)?;
        (200..400).contains(&status).then_some(body)
    }

    /// A GET with its status, if it is answered; the body is JSON (or any text, as a JSON string).
    pub(crate) fn answer(&self, path: &str) -> Option<(u16, Value)> {
        let request = self
            .http
            .get(format!("{}{path}", self.address))
            .bearer_auth(self.token())
            .send();
        let (status, text) = self.runtime.block_on(async {
            let answer = request.await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// A POST; answers status and JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self
            .http
            .post(format!("{}{path}", self.address))
            .bearer_auth(self.token())
            .json(body)
            .send();
        self.runtime.block_on(async {
            let answer = request.await.expect("answered");
            let status = answer.status().as_u16();
            (
                status,
                serde_json::from_str(&answer.text().await.expect("text")).unwrap_or(Value::Null),
            )
        })
    }

    /// The log of a step of an ended run once all of it is stored: as long as the step's record says.
    pub(crate) fn whole_log(&self, run: &Value, name: &str) -> Vec<u8> {
        let id = run["run_id"].as_str().expect("an id");
        let length = step(run, name)["log_bytes"]
            .as_u64()
            .unwrap_or_else(|| panic!("no length: {run:#}"));
        self.until(&format!("the {length} bytes of {name}'s log are stored"), |c| {
            let log = c.log(id, name);
            (log.len() as u64 >= length).then_some(log)
        })
    }

    /// What is stored of a step's log, byte for byte.
    fn log(&self, run: &str, step: &str) -> Vec<u8> {
        let request = self
            .http
            .get(format!("{}/api/v1/runs/{run}/steps/{step}/logs", self.address))
            .bearer_auth(self.token())
            .send();
        self.runtime
            .block_on(async {
                request
                    .await
                    .expect("answered")
                    .error_for_status()
                    .expect("200")
                    .bytes()
                    .await
                    .expect("bytes")
            })
            .to_vec()
    }

    /// Runs a client verb against this cluster.
    pub(crate) fn client(&self, arguments: &[&str]) -> Output {
        self.client_command(arguments).output().expect("started")
    }

    /// The command of a client verb, for tests that want to hold it.
    pub(crate) fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_buildflow"));
        command
            .args(arguments)
            .env("BUILDFLOW_ADDR", &self.address)
            .env("BUILDFLOW_TOKEN", self.token())
            .stdin(Stdio::null());
        command
    }

    /// Registers `default/<name>` for a repository.
    pub(crate) fn create_pipeline(&self, name: &str, url: &str) {
        let output = self.client(&["pipeline", "create", &format!("default/{name}"), "--repo", url]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Tells the server of a push; answers the run's id.
    pub(crate) fn push(&self, url: &str, commit: &str) -> String {
        let body = json!({ "repository": url, "ref": "refs/heads/main", "commit": commit });
        let (status, answer) = self.post("/api/v1/events/push", &body);
        assert!((200..300).contains(&status), "{status}: {answer}");
        answer["runs"][0]["run_id"]
            .as_str()
            .unwrap_or_else(|| panic!("no run in {answer}"))
            .to_owned()
    }

    /// Makes a repository with this pipeline file, registers it, pushes, answers the run's id.
    pub(crate) fn submit(&self, name: &str, pipeline: &str) -> String {
        let repository = crate::repository::Repository::new(&self.path().join(format!("repositories/{name}")));
        let commit = repository.commit(&[(".buildflow.yml", pipeline)]);
        self.create_pipeline(name, &repository.url());
        self.push(&repository.url(), &commit)
    }

    /// The run as the API shows it.
    pub(crate) fn run(&self, run: &str) -> Option<Value> {
        self.get(&format!("/api/v1/runs/{run}"))
    }

    /// Waits for the run's end.
    pub(crate) fn ended(&self, run: &str) -> Value {
        self.until(&format!("run {run} ends"), |c| {
            let shown = c.run(run)?;
            let status = shown["status"].as_str()?;
            (!["queued", "running"].contains(&status)).then_some(shown)
        })
    }

    /// Waits for `check`, looking again as often as is polite.
    pub(crate) fn until<T>(&self, what: &str, check: impl Fn(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check(self) {
                return found;
            }
            if Instant::now() > end {
                panic!("waited in vain until {what}\n{}", self.outputs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn outputs(&self) -> String {
        ["server", "agent"]
            .map(|r| tail(&self.path().join(format!("{r}.txt"))))
            .join("\n")
    }

    /// Waits until the agent keeps nothing of what has ended, stops both as an operator would, and
    /// proves that nothing is left on the machine.
    pub(crate) fn stop_clean(mut self) {
        for folder in ["agent/journal", "agent/alloc", "agent/trash"] {
            self.until(&format!("{folder} is empty"), |c| {
                let mut left = std::fs::read_dir(c.path().join(folder)).into_iter().flatten();
                left.next().is_none().then_some(())
            });
        }
        stop(&mut self.agent);
        stop(&mut self.server);
        let mark = self.path().file_name().expect("named").to_string_lossy().into_owned();
        leftovers::expect_none("mounts and processes", || leftovers::find(&mark));
        leftovers::expect_no_run_folder(&self.path().join("agent"));
    }
}

impl Drop for Cluster {
    /// A failed test must not leave its processes: steps first, by the agent's own stop.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.outputs());
        }
        stop(&mut self.agent);
        stop(&mut self.server);
    }
}

/// The step with this name in a run as the API shows it.
pub(crate) fn step<'a>(run: &'a Value, name: &str) -> &'a Value {
    let stages = run["stages"].as_array().unwrap_or_else(|| panic!("no stages in {run}"));
    let mut steps = stages.iter().flat_map(|s| s["steps"].as_array().expect("steps"));
    steps
        .find(|s| s["name"] == name)
        .unwrap_or_else(|| panic!("no step {name} in {run}"))
}

fn kill(child: &mut Option<Child>) {
    let mut child = child.take().expect("it runs");
    child.kill().expect("killed");
    let status = child.wait().expect("reaped");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "it was killed, it did not end by itself"
    );
}

fn stop(child: &mut Option<Child>) {
    let Some(mut child) = child.take() else { return };
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if child.try_wait().expect("reaped").is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(std::thread::panicking(), "it did not end within 20 s of SIGTERM");
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!(
        "--- {}\n{}",
        path.display(),
        lines[lines.len().saturating_sub(40)..].join("\n")
    )
}
