//! Checkouts over real repositories on this disk.

use super::*;
use git_mirror::GitSettings;
use std::process::Command;

struct Node {
    home: tempfile::TempDir,
    checkouts: Checkouts,
}

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args([
            "-c",
            "user.name=Ada",
            "-c",
            "user.email=ada@example.org",
            "-c",
            "safe.directory=*",
        ])
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn open(home: &Path, bytes_max: u64) -> Checkouts {
    let settings = GitSettings {
        allow_file: true,
        ..GitSettings::default()
    };
    let mirrors = Mirrors::new(home.join("mirrors"), settings).unwrap();
    let settings = CheckoutSettings {
        bytes_max,
        ..CheckoutSettings::new(home.join("checkouts"))
    };
    Checkouts::open(settings, mirrors).unwrap()
}

impl Node {
    fn new(bytes_max: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("repo")).unwrap();
        let checkouts = open(home.path(), bytes_max);
        let node = Self { home, checkouts };
        git(&node.repo(), &["init", "-q", "-b", "main"]);
        node
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn commit(&self, text: &str) -> CheckoutRequest {
        std::fs::write(self.repo().join("file"), text).unwrap();
        git(&self.repo(), &["add", "-A"]);
        git(&self.repo(), &["commit", "-q", "-m", text]);
        CheckoutRequest {
            repository: format!("file://{}", self.repo().display()),
            git_ref: "refs/heads/main".into(),
            commit: git(&self.repo(), &["rev-parse", "HEAD"]),
            depth: Some(1),
            folder: FOLDER_DEFAULT.into(),
        }
    }

    fn left_over(&self) -> usize {
        std::fs::read_dir(self.home.path().join("checkouts/temporary"))
            .unwrap()
            .count()
    }
}

fn me() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

#[tokio::test]
async fn a_layer_holds_the_tree_and_nothing_else() {
    let node = Node::new(1 << 30);
    let request = node.commit("one");
    let layer = node.checkouts.prepare(&request, me()).await.unwrap();
    assert!(!layer.reused && layer.bytes_fetched > 0);
    let names: Vec<_> = std::fs::read_dir(&layer.path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["workspace"]);
    assert_eq!(
        std::fs::read_to_string(layer.path.join("workspace/file")).unwrap(),
        "one"
    );
    assert_eq!(git(&layer.path.join("workspace"), &["status", "--porcelain"]), "");
    let again = node.checkouts.prepare(&request, me()).await.unwrap();
    assert_eq!((again.reused, again.bytes_fetched, &again.path), (true, 0, &layer.path));
    let deeper = CheckoutRequest { depth: None, ..request };
    let deeper = node.checkouts.prepare(&deeper, me()).await.unwrap();
    assert!(
        !deeper.reused && deeper.path != layer.path && deeper.bytes_fetched == 0,
        "the mirror has it all"
    );
}

#[tokio::test]
async fn steps_at_the_same_time_share_one_build() {
    let node = Node::new(1 << 30);
    let request = node.commit("one");
    let asks: Vec<_> = (0..10)
        .map(|_| {
            let (checkouts, request) = (node.checkouts.clone(), request.clone());
            tokio::spawn(async move { checkouts.prepare(&request, me()).await.unwrap() })
        })
        .collect();
    let mut built = 0;
    for ask in asks {
        built += usize::from(!ask.await.unwrap().reused);
    }
    assert_eq!(built, 1);
    assert_eq!(node.left_over(), 0);
}

#[tokio::test]
async fn the_budget_spares_what_is_in_use() {
    let node = Node::new(1);
    let (first, second, third) = (node.commit("one"), node.commit("two"), node.commit("three"));
    let held = node.checkouts.prepare(&first, me()).await.unwrap();
    let path = node.checkouts.prepare(&second, me()).await.unwrap().path;
    let copy = held.clone();
    drop(held);
    drop(node.checkouts.prepare(&third, me()).await.unwrap());
    assert!(!path.exists() && copy.path.exists());
    assert_eq!(node.left_over(), 0);
}

#[tokio::test]
async fn a_restart_adopts_what_is_in_use_and_removes_what_was_half_built() {
    let node = Node::new(1 << 30);
    let (first, second, third) = (node.commit("one"), node.commit("two"), node.commit("three"));
    let one = node.checkouts.prepare(&first, me()).await.unwrap().path;
    let two = node.checkouts.prepare(&second, me()).await.unwrap().path;
    std::fs::create_dir(node.home.path().join("checkouts/temporary/draft-1-1")).unwrap();
    let Node { home, checkouts } = node;
    drop(checkouts);
    let later = open(home.path(), 1);
    assert_eq!(
        std::fs::read_dir(home.path().join("checkouts/temporary"))
            .unwrap()
            .count(),
        0
    );
    let adopted = later.adopt(&one).unwrap();
    assert!(later.adopt(Path::new("/elsewhere")).is_none() && later.adopt(&one.with_file_name("none")).is_none());
    drop(later.prepare(&third, me()).await.unwrap());
    assert!(adopted.path.exists() && !two.exists());
}

#[tokio::test]
async fn failures_leave_nothing_and_say_why() {
    let node = Node::new(1 << 30);
    let good = node.commit("one");
    let bad = |change: fn(&mut CheckoutRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let cases = [
        ("commit", bad(|r| r.commit = "1".repeat(40)), "has no commit"),
        (
            "repository",
            bad(|r| r.repository = "file:///nowhere".into()),
            "cannot be read",
        ),
        (
            "address",
            bad(|r| r.repository = "ext::sh".into()),
            "not a repository address",
        ),
        ("folder", bad(|r| r.folder = "../x".into()), "plain name"),
        ("hidden folder", bad(|r| r.folder = ".".into()), "plain name"),
    ];
    for (case, request, why) in cases {
        let error = node.checkouts.prepare(&request, me()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{case}: {error}");
        assert_eq!(node.left_over(), 0, "{case}");
    }
    node.checkouts.prepare(&good, me()).await.unwrap();
}

#[tokio::test]
async fn each_owner_has_a_layer_of_its_own() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED each_owner_has_a_layer_of_its_own: only root may give files away");
        return;
    }
    use std::os::unix::fs::MetadataExt as _;
    let node = Node::new(1 << 30);
    let request = node.commit("one");
    let mine = node.checkouts.prepare(&request, (0, 0)).await.unwrap();
    let theirs = node.checkouts.prepare(&request, (1000, 1001)).await.unwrap();
    let owner = |layer: &CheckoutLayer| {
        let meta = std::fs::metadata(layer.path.join("workspace/file")).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!((owner(&mine), owner(&theirs)), ((0, 0), (1000, 1001)));
}
