//! Images from a registry: Debian's `docker-registry` on a loopback port, filled by `skopeo`, and a
//! small server of our own that fails on purpose.

use super::made::{Layer, MadeLayout, Packing, on_platform};
use super::{Node, find, program, read, root_or_skip};
use crate::images::document::digest_of;
use crate::images::{Credentials, ImageError, ImageSettings};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// bcrypt of `s3cret` for the user `ada`, as `htpasswd -nbB ada s3cret` prints it.
const HTPASSWD: &str = "ada:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";

/// A registry that ends with this value.
struct Registry {
    child: Child,
    port: u16,
    _home: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Registry {
    /// `None`, said loudly, when the programs are not there.
    fn start(test: &str, private: bool) -> Option<Self> {
        if !root_or_skip(test) {
            return None;
        }
        for name in ["docker-registry", "skopeo"] {
            if !program(name) {
                eprintln!("SKIPPED {test}: the program {name} is not installed");
                return None;
            }
        }
        let home = tempfile::tempdir().unwrap();
        let port = free_port();
        let auth = if private {
            let file = home.path().join("htpasswd");
            std::fs::write(&file, HTPASSWD).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:{port}\n{auth}",
            home.path().join("data").display()
        );
        std::fs::write(home.path().join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(home.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            child,
            port,
            _home: home,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Pushes a layout; more arguments for skopeo may be given.
    fn push(&self, layout: &Path, name: &str, more: &[&str]) {
        let out = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--dest-tls-verify=false"])
            .args(more)
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}/{name}", self.host()))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

fn amd64(settings: &mut ImageSettings) {
    settings.platform.architecture = "amd64".into();
}

#[tokio::test]
async fn tags_and_digests_of_a_registry() {
    let Some(registry) = Registry::start("tags_and_digests_of_a_registry", false) else {
        return;
    };
    let node = Node::with(amd64);
    let base = (Layer::new().file("base", "1").done(), Packing::Gzip);
    let one = MadeLayout::single(
        &node.layouts(),
        "one",
        &[base.clone(), (Layer::new().file("v", "1").done(), Packing::Zstd)],
    );
    let two = MadeLayout::single(
        &node.layouts(),
        "two",
        &[base, (Layer::new().file("v", "2").done(), Packing::Gzip)],
    );
    registry.push(&one.dir, "team/app:x", &[]);
    let name = format!("{}/team/app", registry.host());
    let first = node.images.ensure(&format!("{name}:x")).await.unwrap();
    assert_eq!((read(&first, "v").as_str(), read(&first, "base").as_str()), ("1", "1"));
    assert!(first.bytes_fetched > 0);
    assert_eq!(node.images.ensure(&format!("{name}:x")).await.unwrap().bytes_fetched, 0);

    registry.push(&two.dir, "team/app:x", &[]);
    let second = node.images.ensure(&format!("{name}:x")).await.unwrap();
    assert_eq!(read(&second, "v"), "2", "a tag is looked up again");
    assert_eq!(node.layers(), 3, "the layer that is shared was not fetched again");
    let by_digest = node.images.ensure(&format!("{name}@{}", first.digest)).await.unwrap();
    assert_eq!(read(&by_digest, "v"), "1");

    for (reference, what) in [
        (format!("{name}:none"), "tag"),
        (format!("{}/nobody/none:x", registry.host()), "name"),
    ] {
        let error = node.images.ensure(&reference).await.unwrap_err();
        assert!(matches!(error, ImageError::NotFound { .. }), "{what}: {error}");
    }
    let absent = format!("{name}@sha256:{}", "0".repeat(64));
    let error = node.images.ensure(&absent).await.unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    node.assert_nothing_half();
}

#[tokio::test]
async fn docker_manifests_and_indexes_of_a_registry() {
    let Some(registry) = Registry::start("docker_manifests_and_indexes_of_a_registry", false) else {
        return;
    };
    let node = Node::with(amd64);
    let single = MadeLayout::single(
        &node.layouts(),
        "s",
        &[(Layer::new().file("v", "docker").done(), Packing::Gzip)],
    );
    registry.push(&single.dir, "docker:x", &["--format", "v2s2"]);
    let image = node
        .images
        .ensure(&format!("{}/docker:x", registry.host()))
        .await
        .unwrap();
    assert_eq!(read(&image, "v"), "docker");

    let layout = MadeLayout::new(&node.layouts(), "many");
    let of = |arch: &str| {
        let layer = (Layer::new().file("v", arch).done(), Packing::Gzip);
        on_platform(layout.image_for(arch, &[layer]), arch)
    };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [of("arm64"), of("amd64")],
    });
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.to_string().as_bytes());
    layout.index(&[index]);
    registry.push(&layout.dir, "many:x", &["--all"]);
    let image = node
        .images
        .ensure(&format!("{}/many:x", registry.host()))
        .await
        .unwrap();
    assert_eq!(read(&image, "v"), "amd64");
    let elsewhere = Node::with(|settings| settings.platform.architecture = "riscv64".into());
    let error = elsewhere
        .images
        .ensure(&format!("{}/many:x", registry.host()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ImageError::NoPlatform { found, .. } if found == "linux/amd64, linux/arm64"),
        "{error}"
    );
}

#[tokio::test]
async fn a_private_registry_wants_the_right_password() {
    let Some(registry) = Registry::start("a_private_registry_wants_the_right_password", true) else {
        return;
    };
    let login = |password: &str| {
        let (host, password) = (registry.host(), password.to_owned());
        Node::with(move |settings| {
            amd64(settings);
            settings.registries.insert(
                host,
                Credentials {
                    user: "ada".into(),
                    password,
                },
            );
        })
    };
    let right = login("s3cret");
    let layout = MadeLayout::single(
        &right.layouts(),
        "p",
        &[(Layer::new().file("v", "p").done(), Packing::Gzip)],
    );
    registry.push(&layout.dir, "private:x", &["--dest-creds", "ada:s3cret"]);
    let name = format!("{}/private:x", registry.host());
    assert_eq!(read(&right.images.ensure(&name).await.unwrap(), "v"), "p");
    for (case, node) in [("wrong", login("guess")), ("none", Node::with(amd64))] {
        let error = node.images.ensure(&name).await.unwrap_err();
        assert!(matches!(error, ImageError::Unauthorised { .. }), "{case}: {error}");
        assert!(!error.to_string().contains("guess"), "{error}");
    }
}

#[tokio::test]
async fn a_real_image_from_a_real_program_runs() {
    let test = "a_real_image_from_a_real_program_runs";
    let busybox = Path::new("/bin/busybox");
    let Some(registry) = Registry::start(test, false) else {
        return;
    };
    let fixed = std::fs::read(busybox).is_ok_and(|bytes| bytes.len() > 1_000_000);
    if !fixed {
        eprintln!("SKIPPED {test}: the package busybox-static is not installed");
        return;
    }
    let node = Node::with(amd64);
    let tree = node.home.path().join("tree/bin");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::copy(busybox, tree.join("busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", tree.join("sh")).unwrap();
    let out = Command::new("tar")
        .args(["-c", "-C"])
        .arg(tree.parent().unwrap())
        .arg(".")
        .output()
        .unwrap();
    let layout = MadeLayout::single(&node.layouts(), "busybox", &[(out.stdout, Packing::Gzip)]);
    registry.push(&layout.dir, "busybox:1", &[]);
    let image = node
        .images
        .ensure(&format!("{}/busybox:1", registry.host()))
        .await
        .unwrap();
    let said = Command::new("chroot")
        .arg(&image.lowers[0])
        .args(["/bin/sh", "-c", "echo alive"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "alive");
    assert!(find(&image, "bin/busybox").is_some());
}

/// A registry of a few lines, which does what `answer` says for the nth request for a path.
struct Scripted {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

type Reply = Vec<u8>;

fn scripted(answer: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (notes, answer) = (asked.clone(), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, notes, answer) = (stream.unwrap(), notes.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(first)) = lines.next() else { return };
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let request = first.rsplit_once(' ').unwrap().0.to_owned();
                let n = {
                    let mut notes = notes.lock().unwrap();
                    notes.push(request.clone());
                    notes.iter().filter(|other| **other == request).count()
                };
                let _ = stream.write_all(&answer(&request, n));
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 64]);
            });
        }
    });
    Scripted { host, asked }
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An image as a registry would hand it out: blobs by digest, and the manifest's digest.
fn served(home: &Path) -> (Vec<(String, Vec<u8>)>, String, String) {
    let noise: String = (0..200_000u64)
        .map(|n| char::from(b'a' + (n.wrapping_mul(n) / 7 % 26) as u8))
        .collect();
    let layer = (
        Layer::new().file("v", "served").file("noise", &noise).done(),
        Packing::Gzip,
    );
    let packed = digest_of(&super::made::pack(&layer.0, layer.1));
    let layout = MadeLayout::single(home, "served", &[layer]);
    let blobs = std::fs::read_dir(layout.dir.join("blobs/sha256")).unwrap();
    let blobs = blobs.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let blobs: Vec<_> = blobs.map(|bytes| (digest_of(&bytes), bytes)).collect();
    let is_manifest = |(_, bytes): &&(String, Vec<u8>)| {
        bytes.starts_with(b"{") && String::from_utf8_lossy(bytes).contains("schemaVersion")
    };
    let manifest = blobs.iter().find(is_manifest).unwrap().0.clone();
    (blobs, manifest, packed)
}

fn serve(blobs: &[(String, Vec<u8>)], manifest: &str, request: &str) -> Reply {
    if request.starts_with("HEAD") {
        return reply("200 OK", &format!("docker-content-digest: {manifest}\r\n"), b"");
    }
    match blobs.iter().find(|(digest, _)| request.ends_with(digest.as_str())) {
        Some((_, bytes)) => reply("200 OK", "", bytes),
        None => reply("404 Not Found", "", b"{}"),
    }
}

#[tokio::test]
async fn a_registry_that_fails_for_a_while_is_asked_again() {
    if !root_or_skip("a_registry_that_fails_for_a_while_is_asked_again") {
        return;
    }
    let node = Node::with(amd64);
    let (blobs, manifest, layer) = served(&node.layouts());
    let registry = scripted(move |request, n| {
        let whole = serve(&blobs, &manifest, request);
        match (request.ends_with(&layer), n) {
            // Breaks off in the middle of a layer, twice.
            (true, 1 | 2) => whole[..whole.len() / 2].to_vec(),
            (false, 1) => reply("503 Service Unavailable", "retry-after: 0\r\n", b"busy"),
            _ => whole,
        }
    });
    let image = node.images.ensure(&format!("{}/app:x", registry.host)).await.unwrap();
    assert_eq!(read(&image, "v"), "served");
    let asked = registry.asked.lock().unwrap().clone();
    assert!(asked.len() >= 9, "{asked:?}");
    node.assert_nothing_half();
}

#[tokio::test]
async fn a_registry_that_never_answers_well_is_named() {
    let node = Node::with(amd64);
    let registry = scripted(|_, _| {
        reply(
            "500 Oh",
            "",
            br#"{"errors":[{"code":"UNKNOWN","message":"disk on fire"}]}"#,
        )
    });
    let error = node
        .images
        .ensure(&format!("{}/app@sha256:{}", registry.host, "0".repeat(64)))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ImageError::Unreachable { why, .. } if why.contains("disk on fire")),
        "{error}"
    );
    assert_eq!(registry.asked.lock().unwrap().len(), 4);
    let nobody = format!("127.0.0.1:{}/app:x", free_port());
    let error = node.images.ensure(&nobody).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Unreachable { why, .. } if why.contains("refused")),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_lies_is_caught() {
    if !root_or_skip("a_registry_that_lies_is_caught") {
        return;
    }
    let node = Node::with(amd64);
    let (blobs, manifest, layer) = served(&node.layouts());
    let other = super::made::pack(&Layer::new().file("v", "evil").done(), Packing::Gzip);
    let lying = {
        let (blobs, manifest, layer) = (blobs.clone(), manifest.clone(), layer.clone());
        scripted(move |request, _| match request.ends_with(&layer) {
            true => reply("200 OK", "", &other),
            false => serve(&blobs, &manifest, request),
        })
    };
    let error = node.images.ensure(&format!("{}/app:x", lying.host)).await.unwrap_err();
    assert!(
        matches!(&error, ImageError::DigestMismatch { expected, .. } if *expected == layer),
        "{error}"
    );
    let wrong_manifest = scripted(move |request, _| match request.starts_with("HEAD") {
        true => reply(
            "200 OK",
            &format!("docker-content-digest: sha256:{}\r\n", "1".repeat(64)),
            b"",
        ),
        false => reply("200 OK", "", b"{}"),
    });
    let error = node
        .images
        .ensure(&format!("{}/app:x", wrong_manifest.host))
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
    let odd_digest = scripted(|_, _| reply("200 OK", "docker-content-digest: ../../x\r\n", b""));
    let error = node
        .images
        .ensure(&format!("{}/app:x", odd_digest.host))
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Malformed { .. }), "{error}");
    assert_eq!(node.layers(), 0);
    node.assert_nothing_half();
}

#[tokio::test]
async fn endless_answers_are_cut_off() {
    let node = Node::with(amd64);
    let sent = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let counter = sent.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, counter) = (stream.unwrap(), counter.clone());
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
                while stream.write_all(&[b' '; 65_536]).is_ok() {
                    counter.fetch_add(65_536, Ordering::Relaxed);
                }
            });
        }
    });
    let error = node
        .images
        .ensure(&format!("{host}/app@sha256:{}", "0".repeat(64)))
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 64 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_token_is_fetched_where_the_registry_says() {
    if !root_or_skip("a_token_is_fetched_where_the_registry_says") {
        return;
    }
    let node = Node::with(|_| {});
    let (blobs, manifest, _) = served(&node.layouts());
    let tokens = Arc::new(AtomicUsize::new(0));
    let given = tokens.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let realm = format!("http://{host}/token");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let Some(first) = lines.next() else { continue };
            let headers: Vec<String> = lines
                .take_while(|line| !line.is_empty())
                .map(|l| l.to_lowercase())
                .collect();
            let request = first.rsplit_once(' ').unwrap().0;
            let answer = if request.contains("/token?") {
                given.fetch_add(1, Ordering::Relaxed);
                assert!(
                    request.contains("scope=repository%3Ateam%2Fapp%3Apull") && request.contains("service=here"),
                    "{request}"
                );
                assert!(
                    headers.iter().any(|line| line.starts_with("authorization: basic ")),
                    "{headers:?}"
                );
                reply("200 OK", "", br#"{"token":"good"}"#)
            } else if headers.iter().any(|line| line == "authorization: bearer good") {
                serve(&blobs, &manifest, request)
            } else {
                let challenge = format!("www-authenticate: Bearer realm=\"{realm}\",service=\"here\"\r\n");
                reply("401 Unauthorized", &challenge, b"{}")
            };
            let _ = stream.write_all(&answer);
        }
    });
    let name = host.clone();
    let node = Node::with(move |settings| {
        amd64(settings);
        let login = Credentials {
            user: "ada".into(),
            password: "p".into(),
        };
        settings.registries.insert(name, login);
    });
    let image = node.images.ensure(&format!("{host}/team/app:x")).await.unwrap();
    assert_eq!(read(&image, "v"), "served");
    assert_eq!(tokens.load(Ordering::Relaxed), 1, "one token serves all requests");
}
