//! Real repositories for the tests, made by the real `git` in an environment of its own, and a
//! `git` that notes each time it is started.

#![allow(dead_code, reason = "each test program uses its own part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with a few commits in a folder that goes away with it.
pub(crate) struct Origin {
    pub(crate) home: tempfile::TempDir,
    pub(crate) dir: PathBuf,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("origin");
        std::fs::create_dir(&dir).unwrap();
        let origin = Self { home, dir };
        origin.git(&["init", "-q", "-b", "main"]);
        origin
    }

    pub(crate) fn address(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    pub(crate) fn git(&self, args: &[&str]) -> String {
        git_in(&self.dir, args)
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Writes a file and commits it.
    pub(crate) fn commit_file(&self, path: &str, text: &str) -> String {
        self.write(path, text);
        self.commit(&format!("write {path}"))
    }
}

/// Runs git as a user without any settings would; the answer without its last newline.
pub(crate) fn git_in(dir: &Path, args: &[&str]) -> String {
    let (ok, out) = try_git_in(dir, args);
    assert!(ok, "git {args:?}: {out}");
    out
}

pub(crate) fn try_git_in(dir: &Path, args: &[&str]) -> (bool, String) {
    let out = Command::new("git")
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ALLOW_PROTOCOL", "file")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(args)
        .output()
        .unwrap();
    let text = if out.status.success() {
        out.stdout
    } else {
        [out.stdout, out.stderr].concat()
    };
    (
        out.status.success(),
        String::from_utf8_lossy(&text).trim_end().to_owned(),
    )
}

/// A `git` that writes a line with its arguments into a file before it does its work.
pub(crate) struct CountedGit {
    pub(crate) program: PathBuf,
    notes: PathBuf,
}

impl CountedGit {
    pub(crate) fn new(dir: &Path) -> Self {
        let (program, notes) = (dir.join("counted-git"), dir.join("starts"));
        script(
            &program,
            &format!("echo \"$@\" >> {}\nexec /usr/bin/git \"$@\"", notes.display()),
        );
        Self { program, notes }
    }

    /// The first argument of each start so far.
    pub(crate) fn starts(&self) -> Vec<String> {
        let notes = std::fs::read_to_string(&self.notes).unwrap_or_default();
        notes
            .lines()
            .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
            .collect()
    }
}

pub(crate) fn script(path: &Path, body: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
