//! A folder as it is now, as a commit of a bare repository beside it.
//!
//! What the folder's own repository ignores stays out; everything else is in, whether it was added or
//! not. The folder and its repository are only read: index, objects and refs are the new repository's,
//! which borrows the old one's objects. Not here: what becomes of the commit.

use crate::error::Failure;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The branch of a folder that has none.
const DEFAULT_BRANCH: &str = "main";

/// As what a snapshot counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Branch(String),
    Tag(String),
}

impl Name {
    /// The full ref.
    pub(crate) fn full(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
        }
    }
}

/// A commit in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The repository's address.
    pub(crate) url: String,
    /// Its only branch or tag.
    pub(crate) name: Name,
    /// The commit: the folder's own when nothing has changed since.
    pub(crate) commit: String,
    /// Files that differ from the folder's own commit.
    pub(crate) changed: usize,
    /// The folder's own commit, when files differ from it.
    pub(crate) before: Option<String>,
}

fn git(arguments: &[&str], environment: &[(&str, &Path)]) -> Result<String, Failure> {
    let mut command = Command::new("git");
    // Whoever runs this as root reads the folder of another user, and runs nothing of it.
    command.args([
        "-c",
        "safe.directory=*",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.fsmonitor=false",
    ]);
    command.args(arguments).env("LC_ALL", "C");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    let output = command
        .output()
        .map_err(|e| Failure::Internal(format!("git cannot be started: {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Usage(format!("git {}: {}", arguments.join(" "), said.trim())))
}

/// The top of the checkout that the folder is in; the folder itself, when it is in none.
pub(super) fn top(folder: &Path) -> Result<PathBuf, Failure> {
    let canonical = folder
        .canonicalize()
        .map_err(|e| Failure::Usage(format!("{}: {e}", folder.display())))?;
    if !canonical.is_dir() {
        return Err(Failure::Usage(format!("{} is no folder", folder.display())));
    }
    let text = canonical.to_string_lossy().into_owned();
    let top = git(&["-C", &text, "rev-parse", "--show-toplevel"], &[]);
    Ok(top.ok().filter(|top| !top.is_empty()).map_or(canonical, PathBuf::from))
}

impl Snapshot {
    /// Makes the repository `into`, which is not there yet, with the content of `top`.
    pub(super) fn take(top: &Path, into: &Path, name: Option<Name>) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::Internal(format!("{}: {e}", into.display()));
        let (here, there) = (top.to_string_lossy(), into.to_string_lossy());
        let own = |arguments: &[&str]| git(&[&["-C", &*here], arguments].concat(), &[]).ok();
        git(&["init", "-q", "--bare", &*there], &[])?;
        let objects = own(&["rev-parse", "--path-format=absolute", "--git-path", "objects"]);
        if let Some(objects) = objects {
            std::fs::write(into.join("objects/info/alternates"), format!("{objects}\n")).map_err(failed)?;
        }
        let head = own(&["rev-parse", "-q", "--verify", "HEAD^{commit}"]);
        let index = into.join("index");
        let places = [("GIT_DIR", into), ("GIT_WORK_TREE", top), ("GIT_INDEX_FILE", &*index)];
        let new = |arguments: &[&str]| git(&[&["-C", &*here, "-c", "core.bare=false"], arguments].concat(), &places);
        if let Some(head) = &head {
            new(&["read-tree", head])?;
        }
        new(&["add", "-A", "--", "."])?;
        let tree = new(&["write-tree"])?;
        let (commit, changed) = match &head {
            Some(head) if new(&["rev-parse", &format!("{head}^{{tree}}")])? == tree => (head.clone(), 0),
            Some(head) => {
                let differing = new(&["diff-tree", "-r", "--name-only", head, &tree])?.lines().count();
                (commit(&new, &tree, Some(head))?, differing)
            }
            None => (commit(&new, &tree, None)?, new(&["ls-files"])?.lines().count()),
        };
        let name = name.unwrap_or_else(|| {
            let branch = own(&["symbolic-ref", "-q", "--short", "HEAD"]).filter(|b| !b.is_empty());
            Name::Branch(branch.unwrap_or_else(|| DEFAULT_BRANCH.to_owned()))
        });
        new(&["update-ref", &name.full(), &commit])?;
        if let Name::Branch(_) = &name {
            new(&["symbolic-ref", "HEAD", &name.full()])?;
        }
        Ok(Self {
            url: format!("file://{there}"),
            name,
            before: head.filter(|head| *head != commit),
            commit,
            changed,
        })
    }
}

/// A commit of what is not committed; its author is whoever the new repository's git takes for it.
fn commit(
    new: &impl Fn(&[&str]) -> Result<String, Failure>,
    tree: &str,
    parent: Option<&str>,
) -> Result<String, Failure> {
    let message = "uncommitted changes of this folder";
    let mut arguments = vec!["commit-tree", tree, "-m", message];
    if let Some(parent) = parent {
        arguments.extend(["-p", parent]);
    }
    // Machines without a name in git's configuration may run pipelines, too.
    let nameless = ["-c", "user.name=local", "-c", "user.email=local@localhost"];
    new(&arguments).or_else(|_| new(&[&nameless[..], &arguments].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }

    fn in_folder(folder: &Path, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"];
        let text = folder.to_string_lossy();
        git(&[&["-C", &*text], &identity[..], arguments].concat(), &[]).expect("git")
    }

    fn files(snapshot: &Snapshot) -> Vec<String> {
        let folder = snapshot.url.trim_start_matches("file://");
        let listed = git(&["-C", folder, "ls-tree", "-r", "--name-only", &snapshot.commit], &[]);
        listed.expect("git").lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_is_not_committed_is_in_what_is_ignored_is_not_and_the_folder_stays_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkout = folder.path().join("checkout");
        std::fs::create_dir(&checkout).expect("a folder");
        in_folder(&checkout, &["init", "-q", "-b", "topic"]);
        write(&checkout, "kept", "1");
        write(&checkout, "gone", "1");
        write(&checkout, ".gitignore", "out/\n");
        in_folder(&checkout, &["add", "-A"]);
        in_folder(&checkout, &["commit", "-q", "-m", "first"]);
        let head = in_folder(&checkout, &["rev-parse", "HEAD"]);
        let clean = Snapshot::take(&checkout, &folder.path().join("a"), None).expect("taken");
        assert_eq!((clean.commit.as_str(), clean.changed), (head.as_str(), 0));
        assert_eq!(clean.name, Name::Branch("topic".to_owned()));

        write(&checkout, "kept", "2");
        write(&checkout, "new/file", "1");
        write(&checkout, "out/ignored", "1");
        std::fs::remove_file(checkout.join("gone")).expect("removed");
        let before = in_folder(&checkout, &["status", "--porcelain"]);
        let dirty = Snapshot::take(&checkout, &folder.path().join("b"), Some(Name::Tag("v1".to_owned())));
        let dirty = dirty.expect("taken");
        assert_ne!(dirty.commit, head);
        assert_eq!((dirty.changed, dirty.name.full()), (3, "refs/tags/v1".to_owned()));
        assert_eq!(files(&dirty), [".gitignore", "kept", "new/file"]);
        assert_eq!(in_folder(&checkout, &["status", "--porcelain"]), before);
        assert_eq!(in_folder(&checkout, &["rev-parse", "HEAD"]), head);
        let parent = git(
            &[
                "-C",
                dirty.url.trim_start_matches("file://"),
                "rev-parse",
                &format!("{}^", dirty.commit),
            ],
            &[],
        );
        assert_eq!(parent.expect("the folder's own commit"), head);
        assert_eq!((clean.before, dirty.before), (None, Some(head)));
    }

    #[test]
    fn a_folder_without_a_repository_and_one_without_a_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = folder.path().join("plain");
        write(&plain, "file", "1");
        let taken = Snapshot::take(&plain, &folder.path().join("a"), None).expect("taken");
        assert_eq!((files(&taken), taken.changed), (vec!["file".to_owned()], 1));
        assert_eq!(taken.name, Name::Branch("main".to_owned()));
        assert!(!plain.join(".git").exists());
        in_folder(&plain, &["init", "-q", "-b", "trunk"]);
        let taken = Snapshot::take(&plain, &folder.path().join("b"), None).expect("taken");
        assert_eq!(taken.name, Name::Branch("trunk".to_owned()));
        assert_eq!(files(&taken), ["file"]);
    }
}
