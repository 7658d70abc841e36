//! What a mirror answers, over real repositories on this disk.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod harness;

use git_mirror::{Export, GitError, GitSettings, Mirrors, RefSpec};
use harness::{CountedGit, Origin, git_in, script};
use std::path::Path;
use std::time::Duration;

fn settings() -> GitSettings {
    GitSettings {
        allow_file: true,
        ..GitSettings::default()
    }
}

fn mirrors(origin: &Origin) -> Mirrors {
    Mirrors::new(origin.home.path().join("mirrors"), settings()).unwrap()
}

fn order<'a>(address: &'a str, git_ref: &'a str, commit: &'a str, depth: Option<u32>, into: &'a Path) -> Export<'a> {
    Export {
        repository: address,
        git_ref,
        commit,
        depth,
        into,
        owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
    }
}

#[tokio::test]
async fn every_kind_of_ref_leads_to_its_commit() {
    let origin = Origin::new();
    let first = origin.commit_file("a", "1");
    origin.git(&["tag", "light"]);
    origin.git(&["tag", "-a", "v1", "-m", "one"]);
    let second = origin.commit_file("a", "2");
    origin.git(&["branch", "feature/x"]);
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let cases = [
        (RefSpec::Branch("main".into()), "refs/heads/main", &second),
        (RefSpec::Branch("feature/x".into()), "refs/heads/feature/x", &second),
        (RefSpec::Tag("light".into()), "refs/tags/light", &first),
        (RefSpec::Tag("v1".into()), "refs/tags/v1", &first),
        (RefSpec::FullRef("refs/heads/main".into()), "refs/heads/main", &second),
        (RefSpec::DefaultBranch, "refs/heads/main", &second),
        (RefSpec::Commit(first.clone()), "", &first),
    ];
    for (wanted, git_ref, commit) in cases {
        let found = mirrors.resolve(&address, &wanted).await.unwrap();
        assert_eq!((found.git_ref.as_str(), &found.commit), (git_ref, commit), "{wanted:?}");
        assert_eq!(found.message, "write a");
        assert_eq!(found.author, "Ada <ada@example.org>");
    }
}

#[tokio::test]
async fn a_branch_is_looked_up_again_every_time() {
    let origin = Origin::new();
    origin.commit_file("a", "1");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let main = RefSpec::Branch("main".into());
    mirrors.resolve(&address, &main).await.unwrap();
    let second = origin.commit_file("a", "2");
    assert_eq!(mirrors.resolve(&address, &main).await.unwrap().commit, second);
    // A forced push, and a branch whose name was a folder of branches before.
    origin.git(&["checkout", "-q", "-b", "topic/one", "HEAD~1"]);
    mirrors
        .resolve(&address, &RefSpec::Branch("topic/one".into()))
        .await
        .unwrap();
    origin.git(&["branch", "-m", "topic/one", "topic"]);
    let third = origin.commit_file("b", "3");
    assert_eq!(
        mirrors
            .resolve(&address, &RefSpec::Branch("topic".into()))
            .await
            .unwrap()
            .commit,
        third
    );
    origin.git(&["branch", "-f", "main", &third]);
    assert_eq!(mirrors.resolve(&address, &main).await.unwrap().commit, third);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let origin = Origin::new();
    let commit = origin.commit_file("a", "1");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let absent = "0123456789012345678901234567890123456789";
    let missing = |repository: &str, wanted: RefSpec| {
        let (mirrors, repository) = (mirrors.clone(), repository.to_owned());
        async move { mirrors.resolve(&repository, &wanted).await.unwrap_err() }
    };
    let error = missing(&address, RefSpec::Branch("nope".into())).await;
    assert!(
        matches!(&error, GitError::NoSuchRef { git_ref, .. } if git_ref == "refs/heads/nope"),
        "{error:?}"
    );
    let error = missing(&address, RefSpec::Commit(absent.into())).await;
    assert!(
        matches!(&error, GitError::NoSuchCommit { commit, .. } if commit == absent),
        "{error:?}"
    );
    let error = missing(&address, RefSpec::Branch("a..b".into())).await;
    assert!(matches!(error, GitError::IllegalRef { .. }), "{error:?}");
    let error = missing(&address, RefSpec::Commit("HEAD".into())).await;
    assert!(matches!(error, GitError::IllegalCommit { .. }), "{error:?}");
    let error = missing("file:///nowhere/at/all", RefSpec::DefaultBranch).await;
    assert!(
        error.to_string().contains("does not appear to be a git repository"),
        "{error}"
    );
    let error = missing("http://127.0.0.1:9/x", RefSpec::DefaultBranch).await;
    assert!(
        matches!(&error, GitError::Unreachable { said, .. } if said.contains("connect")),
        "{error:?}"
    );
    let error = missing("ext::sh", RefSpec::DefaultBranch).await;
    assert!(matches!(error, GitError::IllegalAddress(_)), "{error:?}");

    // A branch that points at something that is no commit.
    let blob = origin.git(&["rev-parse", &format!("{commit}:a")]);
    origin.git(&["update-ref", "refs/tags/blob", &blob]);
    let error = missing(&address, RefSpec::Tag("blob".into())).await;
    assert!(matches!(error, GitError::NoSuchCommit { .. }), "{error:?}");

    let empty = Origin::new();
    let error = missing(&empty.address(), RefSpec::DefaultBranch).await;
    assert!(matches!(error, GitError::NoSuchRef { .. }), "{error:?}");
}

#[tokio::test]
async fn files_are_read_within_bounds() {
    let origin = Origin::new();
    origin.write("big", vec![b'x'; 1001]);
    origin.write("dir/file", "deep");
    std::os::unix::fs::symlink("dir/file", origin.dir.join("inside")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", origin.dir.join("outside")).unwrap();
    std::os::unix::fs::symlink("nowhere", origin.dir.join("dangling")).unwrap();
    let commit = origin.commit_file("a b", "text\n");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let before = mirrors.read_file(&address, &commit, "big", 9).await.unwrap_err();
    assert!(
        matches!(before, GitError::NoSuchCommit { .. }),
        "not fetched yet: {before:?}"
    );
    mirrors
        .ensure_commit(&address, "refs/heads/main", &commit)
        .await
        .unwrap();
    let read = async |path: &str| mirrors.read_file(&address, &commit, path, 1000).await;
    assert_eq!(read("a b").await.unwrap(), b"text\n");
    assert_eq!(read("dir/file").await.unwrap(), b"deep");
    assert_eq!(read("inside").await.unwrap(), b"deep");
    assert!(matches!(
        read("big").await.unwrap_err(),
        GitError::TooLarge {
            found: 1001,
            limit: 1000,
            ..
        }
    ));
    for (path, hint) in [
        ("none", ""),
        ("a b/c", ""),
        ("dir", "folder"),
        ("outside", "link"),
        ("dangling", "link"),
    ] {
        let error = read(path).await.unwrap_err();
        assert!(
            matches!(&error, GitError::NoSuchFile { hint: found, .. } if found.contains(hint)),
            "{path}: {error:?}"
        );
    }
    assert!(matches!(read("../x").await.unwrap_err(), GitError::IllegalPath { .. }));
    assert_eq!(
        read("a b").await.unwrap(),
        b"text\n",
        "the conversation is still in step"
    );
}

#[tokio::test]
async fn a_commit_that_is_here_costs_no_process() {
    let origin = Origin::new();
    let counted = CountedGit::new(origin.home.path());
    let commit = origin.commit_file("a", "1");
    let mirrors = Mirrors::new(
        origin.home.path().join("mirrors"),
        GitSettings {
            git: counted.program.clone(),
            ..settings()
        },
    )
    .unwrap();
    let address = origin.address();
    let first = mirrors
        .ensure_commit(&address, "refs/heads/main", &commit)
        .await
        .unwrap();
    assert!(first.fetched && first.bytes_fetched > 0);
    assert_eq!(
        counted.starts(),
        ["fetch", "cat-file"],
        "the way from a push to its file"
    );
    for _ in 0..10 {
        let again = mirrors
            .ensure_commit(&address, "refs/heads/main", &commit)
            .await
            .unwrap();
        assert!(!again.fetched && again.bytes_fetched == 0);
        mirrors.read_file(&address, &commit, "a", 10).await.unwrap();
        mirrors.describe(&address, "", &commit).await.unwrap();
    }
    assert_eq!(counted.starts().len(), 2);
    let next = origin.commit_file("a", "2");
    mirrors.ensure_commit(&address, "refs/heads/main", &next).await.unwrap();
    mirrors.read_file(&address, &next, "a", 10).await.unwrap();
    assert_eq!(
        counted.starts(),
        ["fetch", "cat-file", "fetch"],
        "a later push costs one"
    );
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_fetch() {
    let origin = Origin::new();
    let counted = CountedGit::new(origin.home.path());
    let commit = origin.commit_file("a", "1");
    let mirrors = Mirrors::new(
        origin.home.path().join("mirrors"),
        GitSettings {
            git: counted.program.clone(),
            ..settings()
        },
    )
    .unwrap();
    let address = origin.address();
    let fetches = || counted.starts().iter().filter(|start| *start == "fetch").count();
    let calls: Vec<_> = (0..16)
        .map(|_| {
            let (mirrors, address, commit) = (mirrors.clone(), address.clone(), commit.clone());
            tokio::spawn(async move { mirrors.ensure_commit(&address, "refs/heads/main", &commit).await })
        })
        .collect();
    let mut fetched = 0;
    for call in calls {
        fetched += usize::from(call.await.unwrap().unwrap().fetched);
    }
    assert_eq!((fetched, fetches()), (1, 1));

    let main = RefSpec::Branch("main".into());
    let (a, b, c, d) = tokio::join!(
        mirrors.resolve(&address, &main),
        mirrors.resolve(&address, &main),
        mirrors.resolve(&address, &main),
        mirrors.resolve(&address, &main),
    );
    assert!([a, b, c, d].into_iter().all(|found| found.unwrap().commit == commit));
    assert!(
        fetches() <= 3,
        "one that ran, and one for those who came meanwhile: {}",
        fetches() - 1
    );
}

#[tokio::test]
async fn a_tree_is_laid_out_with_the_history_that_was_asked_for() {
    let origin = Origin::new();
    origin.commit_file("a", "1");
    origin.git(&["tag", "-a", "v1", "-m", "one"]);
    origin.commit_file("dir/b", "2");
    std::os::unix::fs::symlink("dir/b", origin.dir.join("link")).unwrap();
    origin.write("tool", "#!/bin/sh\n");
    std::process::Command::new("chmod")
        .arg("+x")
        .arg(origin.dir.join("tool"))
        .status()
        .unwrap();
    let tip = origin.commit("three");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let cases = [
        ("one", Some(1), "1", false),
        ("two", Some(2), "2", false),
        ("three", Some(3), "3", false),
        ("all", None, "3", true),
    ];
    for (folder, depth, commits, tagged) in cases {
        let into = origin.home.path().join(folder);
        std::fs::create_dir(&into).unwrap();
        let made = mirrors
            .export(&order(&address, "refs/heads/main", &tip, depth, &into))
            .await
            .unwrap();
        assert_eq!((made.entries, made.bytes), (5, 1 + 1 + 5 + 10), "{folder}");
        assert_eq!(git_in(&into, &["rev-list", "--count", "HEAD"]), commits, "{folder}");
        assert_eq!(git_in(&into, &["rev-parse", "HEAD"]), tip);
        assert_eq!(git_in(&into, &["rev-parse", "--abbrev-ref", "HEAD"]), "main");
        assert_eq!(git_in(&into, &["rev-parse", "origin/main"]), tip);
        assert_eq!(git_in(&into, &["status", "--porcelain"]), "", "{folder}");
        git_in(&into, &["fsck", "--full", "--strict"]);
        assert_eq!(git_in(&into, &["log", "-1", "--format=%s"]), "three");
        if tagged {
            assert!(git_in(&into, &["describe"]).starts_with("v1-2-g"));
        }
        assert_eq!(std::fs::read_to_string(into.join("link")).unwrap(), "2");
        let tool = std::fs::metadata(into.join("tool")).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&tool.permissions()) & 0o111,
            0o111
        );
        // The container can go on with it: change, commit, look back.
        std::fs::write(into.join("a"), "changed").unwrap();
        assert_eq!(git_in(&into, &["status", "--porcelain"]), " M a");
        git_in(&into, &["commit", "-q", "-am", "inside"]);
    }
}

#[tokio::test]
async fn a_tag_is_named_and_its_head_detached() {
    let origin = Origin::new();
    let tagged = origin.commit_file("a", "1");
    origin.git(&["tag", "-a", "v1", "-m", "one"]);
    origin.commit_file("a", "2");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let into = origin.home.path().join("tree");
    mirrors
        .export(&order(&address, "refs/tags/v1", &tagged, Some(1), &into))
        .await
        .unwrap();
    assert_eq!(git_in(&into, &["describe", "--exact-match"]), "v1");
    assert_eq!(git_in(&into, &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
    assert_eq!(git_in(&into, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn nothing_of_the_node_is_in_the_tree() {
    let origin = Origin::new();
    let commit = origin.commit_file("a", "1");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let into = origin.home.path().join("tree");
    mirrors
        .export(&order(&address, "refs/heads/main", &commit, Some(1), &into))
        .await
        .unwrap();
    assert!(!into.join(".git/objects/info/alternates").exists());
    let node = origin.home.path().join("mirrors");
    let mut folders = vec![into.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let needle = node.to_string_lossy();
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{} names the node's folder", path.display());
        }
    }
}

#[tokio::test]
async fn the_tree_belongs_to_whom_it_should() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED the_tree_belongs_to_whom_it_should: only root may give files away");
        return;
    }
    let origin = Origin::new();
    std::os::unix::fs::symlink("/etc/passwd", origin.dir.join("link")).unwrap();
    let commit = origin.commit_file("dir/a", "1");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let into = origin.home.path().join("tree");
    let passwd = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/etc/passwd").unwrap());
    let mine = Export {
        owner: (1234, 1235),
        ..order(&address, "refs/heads/main", &commit, Some(1), &into)
    };
    mirrors.export(&mine).await.unwrap();
    for path in [".", "dir", "dir/a", "link", ".git", ".git/index", ".git/HEAD"] {
        let meta = std::fs::symlink_metadata(into.join(path)).unwrap();
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!((meta.uid(), meta.gid()), (1234, 1235), "{path}");
    }
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/etc/passwd").unwrap()),
        passwd
    );
}

#[tokio::test]
async fn a_time_out_ends_the_whole_process_group() {
    let origin = Origin::new();
    let notes = origin.home.path().join("pid");
    let slow = origin.home.path().join("slow-git");
    // A child that would outlive its parent if only the parent were killed.
    script(&slow, &format!("sleep 1000 & echo $! > {}\nwait", notes.display()));
    let mirrors = Mirrors::new(
        origin.home.path().join("mirrors"),
        GitSettings {
            git: slow,
            fetch_timeout: Duration::from_millis(500),
            ..settings()
        },
    )
    .unwrap();
    let error = mirrors
        .resolve(&origin.address(), &RefSpec::Branch("main".into()))
        .await
        .unwrap_err();
    assert!(matches!(error, GitError::TimedOut { .. }), "{error:?}");
    let pid: i32 = std::fs::read_to_string(&notes).unwrap().trim().parse().unwrap();
    let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    for _ in 0..200 {
        if gone() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the grandchild {pid} lives on");
}

#[tokio::test]
async fn one_folder_belongs_to_one_process() {
    let origin = Origin::new();
    let held = mirrors(&origin);
    let error = Mirrors::new(origin.home.path().join("mirrors"), settings()).unwrap_err();
    assert!(matches!(error, GitError::RootInUse { .. }), "{error:?}");
    drop(held);
    mirrors(&origin);
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let origin = Origin::new();
    let mirrors = Mirrors::new(
        origin.home.path().join("mirrors"),
        GitSettings {
            git: "/nowhere/git".into(),
            ..settings()
        },
    )
    .unwrap();
    let error = mirrors
        .resolve(&origin.address(), &RefSpec::DefaultBranch)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("install git"), "{error}");
}

#[tokio::test]
async fn many_pushes_do_not_pile_up_packs() {
    let origin = Origin::new();
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let mut last = String::new();
    for n in 0..45 {
        last = origin.commit_file("a", &n.to_string());
        mirrors.ensure_commit(&address, "refs/heads/main", &last).await.unwrap();
    }
    let mirror = std::fs::read_dir(origin.home.path().join("mirrors/mirrors"))
        .unwrap()
        .next()
        .unwrap();
    let packs = std::fs::read_dir(mirror.unwrap().path().join("objects/pack")).unwrap();
    let count = packs
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack"))
        .count();
    assert!((1..=10).contains(&count), "{count} packs");
    assert_eq!(mirrors.read_file(&address, &last, "a", 9).await.unwrap(), b"44");
}

#[tokio::test]
async fn repositories_with_sha256_names_work() {
    let origin = Origin::new();
    std::fs::remove_dir_all(origin.dir.join(".git")).unwrap();
    origin.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    let commit = origin.commit_file("a", "1");
    assert_eq!(commit.len(), 64);
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let found = mirrors
        .resolve(&address, &RefSpec::Branch("main".into()))
        .await
        .unwrap();
    assert_eq!(found.commit, commit);
    let into = origin.home.path().join("tree");
    mirrors
        .export(&order(&address, "refs/heads/main", &commit, Some(1), &into))
        .await
        .unwrap();
    assert_eq!(git_in(&into, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_repository_that_is_shallow_itself_works() {
    let origin = Origin::new();
    for n in 0..4 {
        origin.commit_file("a", &n.to_string());
    }
    git_in(
        origin.home.path(),
        &["clone", "-q", "--depth=2", &origin.address(), "shallow"],
    );
    let shallow = origin.home.path().join("shallow");
    let (mirrors, tip) = (mirrors(&origin), git_in(&shallow, &["rev-parse", "HEAD"]));
    let address = format!("file://{}", shallow.display());
    for (folder, depth, commits) in [("one", Some(1), "1"), ("deep", Some(50), "2"), ("all", None, "2")] {
        let into = origin.home.path().join(folder);
        mirrors
            .export(&order(&address, "refs/heads/main", &tip, depth, &into))
            .await
            .unwrap();
        assert_eq!(git_in(&into, &["rev-list", "--count", "HEAD"]), commits, "{folder}");
        assert_eq!(git_in(&into, &["status", "--porcelain"]), "");
    }
}

#[tokio::test]
async fn the_default_branch_is_what_the_repository_says_now() {
    let origin = Origin::new();
    origin.commit_file("a", "1");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    assert_eq!(mirrors.default_branch(&address).await.unwrap(), "main");
    origin.git(&["branch", "-m", "main", "trunk/one"]);
    assert_eq!(mirrors.default_branch(&address).await.unwrap(), "trunk/one");
}

#[tokio::test]
async fn what_changed_between_two_commits_is_told_with_every_name() {
    let origin = Origin::new();
    origin.write("gone", "1");
    origin.write("moved", "a text that is long enough to be known again\n");
    let first = origin.commit_file("kept", "1");
    origin.git(&["rm", "-q", "gone"]);
    origin.git(&["mv", "moved", "moved-there"]);
    origin.write("src/a name\nwith \"all\" kinds.rs", "x");
    let second = origin.commit_file("src/new.rs", "1");
    let (mirrors, address) = (mirrors(&origin), origin.address());
    let mut changed = mirrors.changed_files(&address, &first, &second).await.unwrap().unwrap();
    changed.sort();
    assert_eq!(
        changed,
        [
            "gone",
            "moved",
            "moved-there",
            "src/a name\nwith \"all\" kinds.rs",
            "src/new.rs"
        ]
    );
    assert_eq!(
        mirrors.changed_files(&address, &second, &second).await.unwrap(),
        Some(vec![])
    );
    let missing = mirrors.changed_files(&address, &"12345678".repeat(5), &second).await;
    assert!(matches!(missing, Err(GitError::NoSuchCommit { .. })), "{missing:?}");
    let option = mirrors.changed_files(&address, "--output=/tmp/x", &second).await;
    assert!(matches!(option, Err(GitError::IllegalCommit { .. })), "{option:?}");
}
