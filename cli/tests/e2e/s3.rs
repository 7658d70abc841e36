//! An S3 server of one test, on a free port and in a folder of its own, that can be killed and started
//! again with what it has stored.
//!
//! Not here: what is stored (`engines`).

use crate::cluster::free_port;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BUCKET: &str = "blobs";

/// The key's public and secret part: the server listens on the loopback and lives for one test.
const KEY: &str = "buildflow-test-key";

/// How long it may take to listen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// s3s-fs. Dropping it kills it and removes what it has stored.
pub(crate) struct S3 {
    program: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl S3 {
    /// A server that listens; `None` if the program is not installed.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::Builder::new()
            .prefix("buildflow-s3-")
            .tempdir()
            .expect("folder");
        std::fs::create_dir_all(folder.path().join("data").join(BUCKET)).expect("the bucket's folder");
        std::fs::write(folder.path().join("key"), KEY).expect("written");
        let mut server = Self {
            program: program()?,
            folder,
            port: free_port(),
            process: None,
        };
        server.up();
        Some(server)
    }

    /// What a server's configuration says of it.
    pub(crate) fn lines(&self) -> String {
        let key = self.folder.path().join("key").display().to_string();
        format!(
            "blobs: {{ s3: {{ endpoint: 'http://127.0.0.1:{}', bucket: {BUCKET}, path_style: true, \
             access_key_file: '{key}', secret_key_file: '{key}' }} }}\n",
            self.port
        )
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn down(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("killed");
        let status = process.wait().expect("reaped");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "{status}"
        );
        assert!(!self.listens(), "nobody else answers on its port");
    }

    /// Starts it on the same port with what it has stored.
    pub(crate) fn up(&mut self) {
        // It ends with this test, however the test ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--access-key", KEY, "--secret-key", KEY])
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) starts the server");
        let child = self.process.insert(child);
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert_eq!(child.try_wait().expect("waited"), None, "it ended");
            assert!(Instant::now() < end, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn listens(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended already.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn program() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/bin/s3s-fs");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("s3s-fs"));
    std::iter::once(own).chain(installed).find(|file| file.is_file())
}
