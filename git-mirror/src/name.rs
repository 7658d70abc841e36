//! Which refs, commits and paths may be handed to git. Pure.

use crate::error::GitError;
use sha2::{Digest, Sha256};

/// The longest ref name: the file system's bound for one name.
const REF_MAX: usize = 255;
/// The longest path: what Linux allows.
const PATH_MAX: usize = 4096;

/// Checks a full ref by the rules of `git check-ref-format`.
pub(crate) fn check_ref(name: &str) -> Result<(), GitError> {
    match ref_fault(name) {
        Some(why) => Err(GitError::IllegalRef {
            name: name.chars().take(REF_MAX).collect(),
            why,
        }),
        None => Ok(()),
    }
}

fn ref_fault(name: &str) -> Option<&'static str> {
    let part_fault = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if !name.starts_with("refs/") {
        return Some("a full ref begins with `refs/`");
    }
    if name.len() > REF_MAX {
        return Some("it is longer than 255 bytes");
    }
    if name.split('/').any(part_fault) || name.split('/').count() < 3 {
        return Some("a part of it is empty, begins with `.` or ends with `.lock`");
    }
    if name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c)) {
        return Some("it contains a character that git does not allow");
    }
    (name.contains("..") || name.contains("@{") || name.ends_with('.'))
        .then_some("it contains `..`, `@{` or ends with `.`")
}

/// A full commit id in small letters.
pub(crate) fn check_commit(id: &str) -> Result<String, GitError> {
    let legal = matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
    if legal {
        return Ok(id.to_ascii_lowercase());
    }
    Err(GitError::IllegalCommit {
        commit: id.chars().take(80).collect(),
    })
}

/// A path of a file inside a repository.
pub(crate) fn check_path(path: &str) -> Result<(), GitError> {
    let why = if path.is_empty() {
        "it is empty"
    } else if path.len() > PATH_MAX {
        "it is longer than 4096 bytes"
    } else if path.starts_with('/') {
        "it begins with `/`; write it relative to the repository's root"
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "a part of it is empty, `.` or `..`"
    } else if path.chars().any(char::is_control) {
        "it contains control characters"
    } else {
        return Ok(());
    };
    Err(GitError::IllegalPath {
        path: path.chars().take(200).collect(),
        why,
    })
}

/// Where a mirror keeps what it fetched of `git_ref`. Named by hash, so that a branch `a` that
/// was replaced by a branch `a/b` is never in its way.
pub(crate) fn kept_ref(git_ref: &str) -> String {
    format!("refs/mirror/{}", &hex::encode(Sha256::digest(git_ref))[..40])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs() {
        for legal in [
            "refs/heads/main",
            "refs/tags/v1.0",
            "refs/heads/a/b-c",
            "refs/pull/1/head",
            "refs/heads/ü",
        ] {
            assert_eq!(ref_fault(legal), None, "{legal}");
        }
        let illegal = [
            "main",
            "refs/heads",
            "refs/heads/",
            "refs/heads/../../x",
            "refs/heads/.x",
            "refs/heads/x.lock",
            "refs/heads/a b",
            "refs/heads/a:b",
            "refs/heads/a*",
            "refs/heads/a\nb",
            "refs/heads/a@{1}",
            "refs/heads/x.",
            "refs//x",
            "-refs/heads/x",
        ];
        for name in illegal {
            assert!(ref_fault(name).is_some(), "{name}");
        }
        assert!(ref_fault(&format!("refs/heads/{}", "x".repeat(250))).is_some());
    }

    #[test]
    fn commits_and_paths() {
        assert_eq!(check_commit(&"A".repeat(40)).unwrap(), "a".repeat(40));
        for bad in ["", "HEAD", "abc123", &"g".repeat(40), &"a".repeat(41)] {
            assert!(check_commit(bad).is_err(), "{bad}");
        }
        for good in [".buildflow.yml", "a/b.yml", "-x", "ü"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["", "/etc/passwd", "../x", "a/../b", "./a", "a//b", "a\nb", "a\0b"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
    }
}
