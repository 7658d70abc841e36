//! Real git repositories for the tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A repository with a working tree.
pub(crate) struct Repository {
    folder: PathBuf,
}

impl Repository {
    /// An empty repository with branch `main`.
    pub(crate) fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).expect("folder");
        let repository = Self {
            folder: folder.to_owned(),
        };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    /// The address that pipelines are registered with.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.folder.display())
    }

    /// Commits these files and answers the commit's id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.folder.join(name);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("folder");
            fs::write(path, text).expect("file");
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", "a commit"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git here and answers its output.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .expect("git is installed");
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }
}
