//! An S3 server for one test: s3s-fs on a free port, with a key and a folder of its own.
//!
//! It ends with the test, whatever becomes of the test. Not here: what is done with it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use store_s3::{Patience, S3Blobs, S3Config};
use tempfile::TempDir;

/// The bucket of every test.
const BUCKET: &str = "blobs";

/// An object store to try.
pub(crate) struct S3Server {
    config: S3Config,
    process: Option<Process>,
}

struct Process {
    child: Child,
    folder: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Says it past the test harness, which shows nothing of tests that pass.
fn loudly(text: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED: {text}"));
}

impl S3Server {
    /// `None`, and a loud word, if the program is missing.
    pub(crate) fn start() -> Option<Self> {
        if let Some(outside) = Self::outside() {
            return Some(outside);
        }
        let Some(program) = program() else {
            loudly("s3s-fs is missing, so blobs in S3 were not tested; run `scripts/setup test`");
            return None;
        };
        Some(Self::of(&program))
    }

    /// The object store that the environment names.
    fn outside() -> Option<Self> {
        let named = std::env::var("BUILDFLOW_TEST_S3").ok()?;
        let parts: Vec<&str> = named.split(',').collect();
        let [endpoint, region, bucket, access_key, secret_key] = parts[..] else {
            panic!("BUILDFLOW_TEST_S3 is <endpoint>,<region>,<bucket>,<access key>,<secret key>");
        };
        let config = S3Config {
            endpoint: Some(endpoint.to_owned()),
            region: region.to_owned(),
            bucket: bucket.to_owned(),
            prefix: format!("test/{:032x}", rand::random::<u128>()),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            path_style: true,
            ca_pem: None,
        };
        Some(Self { config, process: None })
    }

    /// One that can do what a server that keeps objects as files cannot; s3s-fs is none.
    pub(crate) fn demanding() -> Option<Self> {
        let outside = Self::outside();
        if outside.is_none() {
            loudly(
                "s3s-fs replaces bytes and metadata one after the other and has no room for long names; \
                 BUILDFLOW_TEST_S3 may name an object store to try them on",
            );
        }
        outside
    }

    fn of(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("the bucket's folder");
        let random = || format!("{:032x}", rand::random::<u128>());
        let (access_key, secret_key) = (random(), random());
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .args(["--access-key", &access_key, "--secret-key", &secret_key])
            .arg(folder.path())
            .env("RUST_LOG", "s3s_fs=info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv (util-linux) starts the server");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let process = Process { child, folder };
        let address = address(out);
        let config = S3Config {
            endpoint: Some(format!("http://{address}")),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            prefix: "some/prefix".to_owned(),
            access_key,
            secret_key,
            path_style: true,
            ca_pem: None,
        };
        Self {
            config,
            process: Some(process),
        }
    }

    pub(crate) fn config(&self) -> S3Config {
        self.config.clone()
    }

    /// Its address, for a proxy.
    pub(crate) fn address(&self) -> String {
        let endpoint = self.config.endpoint.as_ref().expect("an endpoint");
        endpoint.rsplit('/').next().expect("an address").to_owned()
    }

    pub(crate) async fn blobs(&self) -> S3Blobs {
        S3Blobs::connect(self.config()).await.expect("the server is there")
    }

    /// Over a proxy, with other time-outs.
    pub(crate) async fn blobs_over(&self, endpoint: String, patience: Patience) -> S3Blobs {
        let config = S3Config {
            endpoint: Some(endpoint),
            ..self.config()
        };
        S3Blobs::connect_with(config, patience)
            .await
            .expect("the server is there")
    }

    /// Whether it is s3s-fs, whose folder can be looked into.
    pub(crate) fn is_own(&self) -> bool {
        self.process.is_some()
    }

    /// Files of s3s-fs that belong to uploads which are not complete.
    pub(crate) fn left_of_uploads(&self) -> Vec<String> {
        let Some(process) = &self.process else {
            return Vec::new();
        };
        let entries = std::fs::read_dir(process.folder.path()).expect("the folder");
        let names = entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("upload")).collect()
    }
}

fn program() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/s3s-fs");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path).map(|folder| folder.join("s3s-fs"));
    std::iter::once(own).chain(installed).find(|file| file.is_file())
}

/// Where it listens, as it says when it does.
fn address(mut out: BufReader<std::process::ChildStdout>) -> String {
    let mut said = String::new();
    let address = loop {
        let mut line = String::new();
        let read = out.read_line(&mut line).expect("its output");
        assert!(read > 0, "s3s-fs ended: {said}");
        if let Some((_, address)) = line.split_once("running at http://") {
            let end = address.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
            break address[..end.unwrap_or(address.len())].to_owned();
        }
        said.push_str(&line);
    };
    // A full pipe would stop it.
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    address
}
