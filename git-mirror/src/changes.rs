//! Which files differ between two commits.
//!
//! Not here: which commits are compared.

use crate::error::GitError;
use crate::mirror::Mirror;

/// The most names that are kept: who changes more has changed everything.
pub const CHANGED_FILES_MAX: usize = 10_000;

/// The paths that differ, those of a renamed file both; `None`: more than [`CHANGED_FILES_MAX`], or a
/// name that is not UTF-8.
pub(crate) async fn changed(mirror: &Mirror, before: &str, after: &str) -> Result<Option<Vec<String>>, GitError> {
    let args = [
        "diff-tree",
        "-r",
        "-z",
        "--name-only",
        "--no-renames",
        "--no-ext-diff",
        before,
        after,
    ];
    let ended = match mirror.run("comparing", &args, Vec::new()).await {
        Err(GitError::TooLarge { .. }) => return Ok(None),
        other => other?,
    };
    if !ended.success {
        return Ok(None);
    }
    let names = ended.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names: Option<Vec<String>> = names
        .take(CHANGED_FILES_MAX + 1)
        .map(|name| String::from_utf8(name.to_vec()).ok())
        .collect();
    Ok(names.filter(|names| names.len() <= CHANGED_FILES_MAX))
}
