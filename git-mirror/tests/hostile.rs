//! Repositories that would like to run something, reach something or fill something.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod harness;

use git_mirror::{Export, GitError, GitSettings, Mirrors};
use harness::{Origin, git_in, script, try_git_in};
use std::path::Path;

fn settings() -> GitSettings {
    GitSettings {
        allow_file: true,
        ..GitSettings::default()
    }
}

async fn export(origin: &Origin, settings: GitSettings, commit: &str) -> Result<std::path::PathBuf, GitError> {
    let mirrors = Mirrors::new(origin.home.path().join("mirrors"), settings).unwrap();
    let (address, into) = (origin.address(), origin.home.path().join("tree"));
    let order = Export {
        repository: &address,
        git_ref: "refs/heads/main",
        commit,
        depth: Some(1),
        into: &into,
        owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
    };
    mirrors.export(&order).await?;
    Ok(into)
}

#[tokio::test]
async fn nothing_of_a_repository_is_run() {
    let origin = Origin::new();
    let proof = origin.home.path().join("ran");
    let touch = format!("touch {}", proof.display());
    let tool = origin.home.path().join("tool");
    script(&tool, &format!("{touch}\ncat"));
    // The attacks work where git trusts the repository.
    origin.write(".gitattributes", "*.txt filter=evil diff=evil\n");
    origin.write("a.txt", "text");
    origin.git(&["config", "filter.evil.smudge", tool.to_str().unwrap()]);
    origin.git(&["config", "filter.evil.clean", "cat"]);
    origin.git(&["config", "core.fsmonitor", tool.to_str().unwrap()]);
    origin.git(&["config", "uploadpack.packObjectsHook", tool.to_str().unwrap()]);
    for hook in [
        "post-checkout",
        "pre-commit",
        "post-upload",
        "reference-transaction",
        "post-index-change",
    ] {
        script(&origin.dir.join(".git/hooks").join(hook), &touch);
    }
    let commit = origin.commit("attack");
    assert!(proof.exists(), "the trap is armed");
    std::fs::remove_file(&proof).unwrap();

    let tree = export(&origin, settings(), &commit).await.unwrap();
    assert!(!proof.exists());
    assert_eq!(std::fs::read_to_string(tree.join("a.txt")).unwrap(), "text");
    assert!(!tree.join(".git/hooks").exists());
    let config = std::fs::read_to_string(tree.join(".git/config")).unwrap();
    assert!(!config.contains("evil"), "{config}");
}

#[tokio::test]
async fn submodules_are_left_alone() {
    let origin = Origin::new();
    let proof = origin.home.path().join("ran");
    origin.write(
        ".gitmodules",
        format!(
            "[submodule \"x\"]\n\tpath = x\n\turl = ext::touch {}\n\tupdate = !touch {0}\n",
            proof.display()
        ),
    );
    let inner = origin.commit_file("a", "1");
    origin.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{inner},x")]);
    origin.git(&["commit", "-q", "-m", "with a submodule"]);
    let commit = origin.git(&["rev-parse", "HEAD"]);
    match export(&origin, settings(), &commit).await {
        Ok(tree) => assert_eq!(std::fs::read_dir(tree.join("x")).unwrap().count(), 0),
        // Newer gits refuse the dangerous .gitmodules already while it is fetched.
        Err(error) => assert!(
            matches!(error, GitError::Unreachable { .. } | GitError::Failed { .. }),
            "{error}"
        ),
    }
    assert!(!proof.exists());
}

/// Makes an object that git's own commands would refuse to make.
fn hash_object(origin: &Origin, kind: &str, bytes: &[u8]) -> String {
    let file = origin.home.path().join("object");
    std::fs::write(&file, bytes).unwrap();
    origin.git(&["hash-object", "-w", "--literally", "-t", kind, file.to_str().unwrap()])
}

fn tree_entry(mode: &str, name: &str, id: &str) -> Vec<u8> {
    let id: Vec<u8> = (0..id.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap())
        .collect();
    [format!("{mode} {name}\0").as_bytes(), &id].concat()
}

fn commit_tree(origin: &Origin, tree: &str) -> String {
    let commit = origin.git(&["commit-tree", "-m", "made by hand", tree]);
    origin.git(&["update-ref", "refs/heads/main", &commit]);
    commit
}

#[tokio::test]
async fn trees_that_reach_outside_are_refused() {
    for name in [".git", "..", ".", ".GIT", "a/b"] {
        let origin = Origin::new();
        let blob = hash_object(&origin, "blob", b"x");
        let tree = hash_object(&origin, "tree", &tree_entry("100644", name, &blob));
        let commit = commit_tree(&origin, &tree);
        let error = export(&origin, settings(), &commit).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("fsck") || text.contains("invalid path") || text.contains("fetch"),
            "{name}: {text}"
        );
    }
}

#[tokio::test]
async fn a_file_is_not_written_through_a_link_of_the_same_tree() {
    let origin = Origin::new();
    let outside = origin.home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let (blob, link) = (
        hash_object(&origin, "blob", b"evil"),
        hash_object(&origin, "blob", outside.to_str().unwrap().as_bytes()),
    );
    let inner = hash_object(&origin, "tree", &tree_entry("100644", "file", &blob));
    let both = [tree_entry("120000", "a", &link), tree_entry("40000", "a", &inner)].concat();
    let commit = commit_tree(&origin, &hash_object(&origin, "tree", &both));
    let _ = export(&origin, settings(), &commit).await;
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_tree_that_multiplies_itself_ends_at_the_limit() {
    let origin = Origin::new();
    let mut id = hash_object(&origin, "blob", b"bomb");
    let mut mode = "100644";
    for _ in 0..10 {
        let tree: Vec<u8> = (0..10).flat_map(|n| tree_entry(mode, &format!("d{n}"), &id)).collect();
        id = hash_object(&origin, "tree", &tree);
        mode = "40000";
    }
    let commit = commit_tree(&origin, &id);
    let small = GitSettings {
        tree_entries_max: 100_000,
        ..settings()
    };
    let error = export(&origin, small, &commit).await.unwrap_err();
    assert!(matches!(error, GitError::TooLarge { unit: "entries", .. }), "{error}");
}

#[tokio::test]
async fn a_tree_with_too_many_bytes_is_not_begun() {
    let origin = Origin::new();
    origin.write("big", vec![0; 200_000]);
    let commit = origin.commit("big");
    let small = GitSettings {
        tree_bytes_max: 100_000,
        ..settings()
    };
    let error = export(&origin, small, &commit).await.unwrap_err();
    assert!(matches!(error, GitError::TooLarge { unit: "bytes", .. }), "{error}");
    assert!(!origin.home.path().join("tree/big").exists());
}

#[tokio::test]
async fn a_repository_of_another_user_is_read() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED a_repository_of_another_user_is_read: only root may give files away");
        return;
    }
    let origin = Origin::new();
    let commit = origin.commit_file("a", "1");
    fn give(path: &Path) {
        std::os::unix::fs::lchown(path, Some(4321), Some(4321)).unwrap();
        if path.is_dir() && !path.is_symlink() {
            std::fs::read_dir(path)
                .unwrap()
                .for_each(|entry| give(&entry.unwrap().path()));
        }
    }
    give(&origin.dir);
    let (ok, said) = try_git_in(&origin.dir, &["log"]);
    assert!(
        !ok && said.contains("dubious ownership"),
        "git itself would refuse: {said}"
    );
    export(&origin, settings(), &commit).await.unwrap();
}

#[tokio::test]
async fn the_environment_of_this_process_does_not_reach_git() {
    let origin = Origin::new();
    let commit = origin.commit_file("a", "1");
    let seen = origin.home.path().join("seen");
    let git = origin.home.path().join("telling-git");
    script(&git, &format!("env >> {}\nexec /usr/bin/git \"$@\"", seen.display()));
    let told = GitSettings { git, ..settings() };
    export(&origin, told, &commit).await.unwrap();
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(
        seen.contains("GIT_TERMINAL_PROMPT=0") && seen.contains("GIT_ALLOW_PROTOCOL=file\n"),
        "{seen}"
    );
    // Cargo sets these for every test.
    assert!(
        std::env::var("CARGO_MANIFEST_DIR").is_ok() && !seen.contains("CARGO_"),
        "{seen}"
    );
}

#[tokio::test]
async fn what_git_laid_out_is_whole() {
    let origin = Origin::new();
    for n in 0..200 {
        origin.write(&format!("d{}/f{n}", n % 7), format!("{n}\n").repeat(n));
    }
    let commit = origin.commit("many");
    let tree = export(&origin, settings(), &commit).await.unwrap();
    assert_eq!(git_in(&tree, &["status", "--porcelain", "--ignored"]), "");
    assert_eq!(
        git_in(&tree, &["rev-parse", "HEAD^{tree}"]),
        origin.git(&["rev-parse", "HEAD^{tree}"])
    );
    assert_eq!(
        git_in(&tree, &["write-tree"]),
        origin.git(&["rev-parse", "HEAD^{tree}"])
    );
}
