//! Repositories over http, with and without a password, and over ssh.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod harness;

use git_mirror::{GitError, GitSettings, HostKeys, Mirrors, RefSpec, SshSettings};
use harness::{Origin, script};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MAIN: &str = "main";

/// Serves the folder `root` by `git http-backend`; with a login only to those who know it.
fn serve(root: PathBuf, login: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let root = root.clone();
            std::thread::spawn(move || answer(&mut stream.unwrap(), &root, login));
        }
    });
    address
}

fn answer(stream: &mut TcpStream, root: &Path, login: Option<&str>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = reader.by_ref().lines().map(Result::unwrap);
    let Some(first) = lines.next() else { return };
    let headers: Vec<(String, String)> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(k, v)| (k.to_lowercase(), v.to_owned())))
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    if login.is_some_and(|login| header("authorization").as_deref() != Some(login)) {
        let refusal =
            "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes());
        return;
    }
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length: usize = header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut backend = Command::new("/usr/lib/git-core/git-http-backend")
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("GIT_CONFIG_COUNT", "1"),
        ])
        .envs([("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
        .env("GIT_PROJECT_ROOT", root)
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
        .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    backend.stdin.take().unwrap().write_all(&body).unwrap();
    let out = backend.wait_with_output().unwrap().stdout;
    let split = out.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&out[..split]).into_owned();
    let status = head
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .unwrap_or("200 OK");
    let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(&out[split + 4..]);
}

fn backend_or_skip(test: &str) -> bool {
    let there = Path::new("/usr/lib/git-core/git-http-backend").exists();
    if !there {
        eprintln!("SKIPPED {test}: git's http-backend is not installed");
    }
    there
}

#[tokio::test]
async fn http() {
    if !backend_or_skip("http") {
        return;
    }
    let origin = Origin::new();
    let commit = origin.commit_file("a", "over http");
    let address = format!("http://{}/origin/.git", serve(origin.home.path().to_owned(), None));
    let mirrors = Mirrors::new(origin.home.path().join("mirrors"), GitSettings::default()).unwrap();
    let found = mirrors.resolve(&address, &RefSpec::Branch(MAIN.into())).await.unwrap();
    assert_eq!(found.commit, commit);
    assert_eq!(
        mirrors
            .resolve(&address, &RefSpec::DefaultBranch)
            .await
            .unwrap()
            .git_ref,
        "refs/heads/main"
    );
    assert_eq!(
        mirrors.read_file(&address, &commit, "a", 99).await.unwrap(),
        b"over http"
    );
    let error = mirrors
        .resolve(&address, &RefSpec::Branch("none".into()))
        .await
        .unwrap_err();
    assert!(matches!(error, GitError::NoSuchRef { .. }), "{error}");
    let absent = RefSpec::Commit("1".repeat(40));
    let error = mirrors.resolve(&address, &absent).await.unwrap_err();
    assert!(matches!(error, GitError::NoSuchCommit { .. }), "{error}");
    // A commit that no ref leads to any more is still given out.
    origin.git(&["commit", "-q", "--amend", "-m", "amended"]);
    let amended = origin.git(&["rev-parse", "HEAD"]);
    origin.git(&["reset", "-q", "--hard", &commit]);
    mirrors
        .ensure_commit(&address, "refs/heads/main", &amended)
        .await
        .unwrap();
}

#[tokio::test]
async fn http_with_a_password() {
    if !backend_or_skip("http_with_a_password") {
        return;
    }
    let origin = Origin::new();
    let commit = origin.commit_file("a", "secret");
    // ada:s3cret
    let host = serve(origin.home.path().to_owned(), Some("Basic YWRhOnMzY3JldA=="));
    let mirrors = Mirrors::new(origin.home.path().join("mirrors"), GitSettings::default()).unwrap();
    let right = format!("http://ada:s3cret@{host}/origin/.git");
    assert_eq!(
        mirrors
            .resolve(&right, &RefSpec::Branch(MAIN.into()))
            .await
            .unwrap()
            .commit,
        commit
    );
    let into = origin.home.path().join("tree");
    let order = git_mirror::Export {
        repository: &right,
        git_ref: "refs/heads/main",
        commit: &commit,
        depth: Some(1),
        into: &into,
        owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
    };
    mirrors.export(&order).await.unwrap();
    let config = std::fs::read_to_string(into.join(".git/config")).unwrap();
    assert!(
        config.contains(&host) && !config.contains("s3cret") && !config.contains("ada"),
        "{config}"
    );
    for wrong in [
        format!("http://ada:guess9@{host}/origin/.git"),
        format!("http://{host}/origin/.git"),
    ] {
        let error = mirrors.resolve(&wrong, &RefSpec::DefaultBranch).await.unwrap_err();
        assert!(matches!(error, GitError::Unreachable { .. }), "{error:?}");
        assert!(!error.to_string().contains("guess9"), "{error}");
    }
}

#[tokio::test]
async fn ssh_is_started_without_a_way_to_ask() {
    let origin = Origin::new();
    let commit = origin.commit_file("a", "over ssh");
    let (ssh, notes) = (origin.home.path().join("s s h"), origin.home.path().join("arguments"));
    // Does what a server's login shell would do with the last argument.
    script(
        &ssh,
        &format!(
            "printf '%s\\n' \"$@\" >> {}\nfor last; do :; done\nexec sh -c \"$last\"",
            notes.display()
        ),
    );
    let settings = GitSettings {
        ssh: SshSettings {
            program: ssh,
            identity: Some("/keys/it's mine".into()),
            known_hosts: Some("/keys/known".into()),
            host_keys: HostKeys::AcceptNew,
        },
        ..GitSettings::default()
    };
    let mirrors = Mirrors::new(origin.home.path().join("mirrors"), settings).unwrap();
    for address in [
        format!("git@example.org:{}", origin.dir.display()),
        format!("ssh://git@example.org:22{}", origin.dir.display()),
    ] {
        assert_eq!(
            mirrors
                .resolve(&address, &RefSpec::Branch(MAIN.into()))
                .await
                .unwrap()
                .commit,
            commit
        );
    }
    let arguments = std::fs::read_to_string(notes).unwrap();
    for expected in [
        "BatchMode=yes",
        "StrictHostKeyChecking=accept-new",
        "/keys/it's mine",
        "UserKnownHostsFile=/keys/known",
        "git@example.org",
    ] {
        assert!(
            arguments.lines().any(|line| line == expected),
            "{expected}: {arguments}"
        );
    }
}

/// `sshd`, if there is one.
fn sshd() -> Option<PathBuf> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
}

/// Ends with this value.
struct Server {
    child: std::process::Child,
    folder_made: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.folder_made {
            let _ = std::fs::remove_dir("/run/sshd");
        }
    }
}

#[tokio::test]
async fn ssh_to_a_real_server() {
    let test = "ssh_to_a_real_server";
    let (Some(sshd), true) = (sshd(), nix::unistd::geteuid().is_root()) else {
        eprintln!("SKIPPED {test}: it needs root and the package openssh-server");
        return;
    };
    let origin = Origin::new();
    let commit = origin.commit_file("a", "over a real ssh");
    let home = origin.home.path();
    for key in ["host", "user", "other"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(home.join(key))
            .status();
        assert!(made.unwrap().success());
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nStrictModes no\n\
         PermitRootLogin yes\nPidFile none\nUsePAM no\nSetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n",
        home.display()
    );
    std::fs::write(home.join("sshd_config"), config).unwrap();
    // The server insists on this folder; it is only removed again if it was not there.
    let folder_made = std::fs::create_dir("/run/sshd").is_ok();
    let server = Server {
        child: Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(home.join("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
        folder_made,
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "sshd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let address = format!("ssh://root@127.0.0.1:{port}{}", origin.dir.display());
    let ask = async |key: &str, host_keys, folder: &str| {
        let ssh = SshSettings {
            identity: Some(home.join(key)),
            known_hosts: Some(home.join("known")),
            host_keys,
            ..SshSettings::default()
        };
        let settings = GitSettings {
            ssh,
            ..GitSettings::default()
        };
        let mirrors = Mirrors::new(home.join(folder), settings).unwrap();
        mirrors.resolve(&address, &RefSpec::Branch(MAIN.into())).await
    };
    let unknown = ask("user", HostKeys::Known, "m1").await;
    let right = ask("user", HostKeys::AcceptNew, "m2").await;
    let known = ask("user", HostKeys::Known, "m3").await;
    let wrong = ask("other", HostKeys::Known, "m4").await;
    drop(server);
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("Host key verification failed")
    );
    assert_eq!(right.unwrap().commit, commit);
    assert_eq!(known.unwrap().commit, commit);
    assert!(wrong.unwrap_err().to_string().contains("Permission denied"));
}
