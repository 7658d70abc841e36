//! A mirror that was left half made is repaired or made anew, and nobody notices.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod harness;

use git_mirror::{Export, GitError, GitSettings, Mirrors, RefSpec};
use harness::{Origin, git_in, script};
use std::path::{Path, PathBuf};

fn settings() -> GitSettings {
    GitSettings {
        allow_file: true,
        ..GitSettings::default()
    }
}

fn open(origin: &Origin) -> Mirrors {
    Mirrors::new(origin.home.path().join("mirrors"), settings()).unwrap()
}

/// The one mirror's folder.
fn mirror_of(origin: &Origin) -> PathBuf {
    let mut mirrors = std::fs::read_dir(origin.home.path().join("mirrors/mirrors")).unwrap();
    mirrors.next().unwrap().unwrap().path()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files
}

fn with_ending(dir: &Path, ending: &str) -> Vec<PathBuf> {
    files_below(dir)
        .into_iter()
        .filter(|file| file.to_string_lossy().ends_with(ending))
        .collect()
}

type Damage = fn(&Path);

const DAMAGE: [(&str, Damage); 12] = [
    ("locks of a killed process", |dir| {
        for lock in ["packed-refs.lock", "config.lock", "shallow.lock", "HEAD.lock"] {
            std::fs::write(dir.join(lock), "").unwrap();
        }
        for kept in files_below(&dir.join("refs/mirror")) {
            std::fs::write(format!("{}.lock", kept.display()), "").unwrap();
        }
    }),
    ("a half-written pack", |dir| {
        std::fs::write(dir.join("objects/pack/tmp_pack_abc"), vec![0; 5000]).unwrap();
    }),
    ("a truncated pack", |dir| {
        for pack in with_ending(dir, ".pack") {
            let bytes = std::fs::read(&pack).unwrap();
            std::fs::remove_file(&pack).unwrap();
            std::fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
        }
    }),
    ("a pack without its index", |dir| {
        with_ending(dir, ".idx")
            .iter()
            .for_each(|idx| std::fs::remove_file(idx).unwrap())
    }),
    ("an index without its pack", |dir| {
        with_ending(dir, ".pack")
            .iter()
            .for_each(|pack| std::fs::remove_file(pack).unwrap())
    }),
    ("an empty index", |dir| {
        for idx in with_ending(dir, ".idx") {
            std::fs::remove_file(&idx).unwrap();
            std::fs::write(idx, "").unwrap();
        }
    }),
    ("no HEAD", |dir| std::fs::remove_file(dir.join("HEAD")).unwrap()),
    ("an empty HEAD", |dir| std::fs::write(dir.join("HEAD"), "").unwrap()),
    ("a config of zeroes", |dir| {
        std::fs::write(dir.join("config"), vec![0; 60]).unwrap()
    }),
    ("no objects", |dir| {
        std::fs::remove_dir_all(dir.join("objects")).unwrap()
    }),
    ("refs of zeroes", |dir| {
        files_below(&dir.join("refs/mirror"))
            .iter()
            .for_each(|kept| std::fs::write(kept, vec![0; 41]).unwrap());
    }),
    ("an empty folder", |dir| {
        std::fs::remove_dir_all(dir).unwrap();
        std::fs::create_dir(dir).unwrap();
    }),
];

#[tokio::test]
async fn every_damage_is_mended_after_a_restart() {
    for (case, damage) in DAMAGE {
        let origin = Origin::new();
        let first = origin.commit_file("a", "1");
        let address = origin.address();
        let before = open(&origin);
        before.ensure_commit(&address, "refs/heads/main", &first).await.unwrap();
        drop(before);
        damage(&mirror_of(&origin));
        let second = origin.commit_file("a", "2");
        let after = open(&origin);
        let found = after.resolve(&address, &RefSpec::Branch("main".into())).await;
        assert_eq!(found.unwrap_or_else(|e| panic!("{case}: {e}")).commit, second, "{case}");
        for commit in [&first, &second] {
            after
                .ensure_commit(&address, "refs/heads/main", commit)
                .await
                .unwrap_or_else(|e| panic!("{case}: {e}"));
            let into = origin.home.path().join(commit);
            let order = Export {
                repository: &address,
                git_ref: "refs/heads/main",
                commit,
                depth: None,
                into: &into,
                owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            };
            after.export(&order).await.unwrap_or_else(|e| panic!("{case}: {e}"));
            assert_eq!(git_in(&into, &["status", "--porcelain"]), "", "{case}");
        }
        let left = files_below(&mirror_of(&origin));
        assert!(
            !left
                .iter()
                .any(|file| file.to_string_lossy().contains("tmp_pack") || file.ends_with(".lock")),
            "{case}: {left:?}"
        );
    }
}

#[tokio::test]
async fn objects_that_vanish_are_fetched_again() {
    let origin = Origin::new();
    origin.write("big", "x".repeat(100_000));
    let commit = origin.commit("big");
    let (mirrors, address) = (open(&origin), origin.address());
    mirrors
        .ensure_commit(&address, "refs/heads/main", &commit)
        .await
        .unwrap();
    // The commit stays readable, the file does not: as after a disk error.
    let mirror = mirror_of(&origin);
    let pack = with_ending(&mirror, ".pack").remove(0);
    let loose = origin.home.path().join("pack");
    std::fs::rename(&pack, &loose).unwrap();
    std::fs::remove_file(pack.with_extension("idx")).unwrap();
    let unpack = std::process::Command::new("git")
        .arg("--git-dir")
        .arg(&mirror)
        .args(["unpack-objects", "-q"])
        .stdin(std::fs::File::open(&loose).unwrap())
        .status()
        .unwrap();
    assert!(unpack.success());
    let blob = origin.git(&["rev-parse", &format!("{commit}:big")]);
    std::fs::remove_file(mirror.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let into = origin.home.path().join("tree");
    let order = Export {
        repository: &address,
        git_ref: "refs/heads/main",
        commit: &commit,
        depth: Some(1),
        into: &into,
        owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
    };
    mirrors.export(&order).await.unwrap();
    assert_eq!(std::fs::read(into.join("big")).unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_caller_who_goes_away_harms_nobody() {
    let origin = Origin::new();
    let commit = origin.commit_file("a", "1");
    // Stops in the middle of the first fetch, and only of that.
    let (git, stopped) = (
        origin.home.path().join("stopping-git"),
        origin.home.path().join("stopped"),
    );
    script(
        &git,
        &format!(
            "if [ \"$1\" = fetch ] && [ ! -e {0} ]; then touch {0}; sleep 1000; fi\nexec /usr/bin/git \"$@\"",
            stopped.display()
        ),
    );
    let mirrors = Mirrors::new(origin.home.path().join("mirrors"), GitSettings { git, ..settings() }).unwrap();
    let address = origin.address();
    let first = {
        let (mirrors, address, commit) = (mirrors.clone(), address.clone(), commit.clone());
        tokio::spawn(async move { mirrors.ensure_commit(&address, "refs/heads/main", &commit).await })
    };
    while !stopped.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    mirrors
        .ensure_commit(&address, "refs/heads/main", &commit)
        .await
        .unwrap();
    assert_eq!(mirrors.read_file(&address, &commit, "a", 9).await.unwrap(), b"1");
}

#[tokio::test]
async fn a_full_disk_is_named() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_full_disk_is_named: only root may mount a small file system");
        return;
    }
    let origin = Origin::new();
    let mut noise = vec![0; 4_000_000];
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut random, &mut noise).unwrap();
    origin.write("noise", noise);
    let big = origin.commit("noise");
    let small = origin.home.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let flags = nix::mount::MsFlags::empty();
    if let Err(error) = nix::mount::mount(Some("tmpfs"), &small, Some("tmpfs"), flags, Some("size=2m")) {
        eprintln!("SKIPPED a_full_disk_is_named: a tmpfs cannot be mounted: {error}");
        return;
    }
    let mirrors = Mirrors::new(small.join("mirrors"), settings());
    let outcome = match &mirrors {
        Ok(mirrors) => mirrors
            .ensure_commit(&origin.address(), "refs/heads/main", &big)
            .await
            .map(|_| ()),
        Err(_) => Ok(()),
    };
    drop(mirrors);
    // The process that reads objects may need a moment to be gone.
    for _ in 0..100 {
        if nix::mount::umount(&small).is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let error = outcome.unwrap_err();
    assert!(matches!(error, GitError::DiskFull { .. }), "{error:?}");
}
