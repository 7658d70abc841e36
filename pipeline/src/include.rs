//! `include`: files whose templates, variables, defaults and stages are laid under those of another.
//!
//! A file may include others of its own repository by their path, and those of another repository
//! by a pipeline that builds it and a full commit id, so that nothing changes by itself. Each file
//! is taken once, however often it is named.
//!
//! Not here: reading repositories. Who compiles is told which files are missing and comes again.

use crate::keys::{INCLUDE_KEYS, IncludeKey, Level};
use crate::limits::PATH_MAX;
use crate::read::{At, Reader};
use crate::report::Problem;
use crate::syntax::shown;
use crate::tree::{NodeId, Value};
use std::collections::BTreeMap;
use std::fmt;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileRef {
    /// Another repository; `None`: the one whose pipeline file is compiled, at the same commit.
    pub repository: Option<Pinned>,
    /// Its path, from the repository's top.
    pub path: String,
}

/// A repository at a commit that never changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pinned {
    /// A pipeline of this server that builds it: `team/pipeline`.
    pub pipeline: String,
    /// The full commit id.
    pub commit: String,
}

/// Files that were read, or why they could not be.
pub type Files = BTreeMap<FileRef, Result<Vec<u8>, String>>;

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repository {
            None => f.write_str(&self.path),
            Some(of) => write!(
                f,
                "{}@{}:{}",
                of.pipeline,
                &of.commit[..of.commit.len().min(8)],
                self.path
            ),
        }
    }
}

impl<'t> Reader<'t, '_> {
    /// The files that the file at `root` includes, which itself stands in `repository`.
    pub(crate) fn includes(&mut self, root: NodeId, repository: Option<&Pinned>) -> Vec<At<FileRef>> {
        let Value::Map(pairs) = self.value(root) else {
            return Vec::new();
        };
        let Some(pair) = pairs.iter().find(|pair| pair.key == "include") else {
            return Vec::new();
        };
        let items = match self.value(pair.value) {
            Value::List(items) => items.as_slice(),
            Value::Scalar(_) | Value::Map(_) => std::slice::from_ref(&pair.value),
        };
        items
            .iter()
            .filter_map(|item| self.include(*item, repository))
            .collect()
    }

    fn include(&mut self, node: NodeId, repository: Option<&Pinned>) -> Option<At<FileRef>> {
        let at = self.at(node);
        if !matches!(self.value(node), Value::Map(_)) {
            let path = self.path("an entry of `include`", node)?;
            let value = FileRef {
                repository: repository.cloned(),
                path,
            };
            return Some(At { at, value });
        }
        let keys = self.keys("an entry of `include`", node, Level::Include, INCLUDE_KEYS)?;
        let (mut repo, mut commit, mut path) = (None, None, None);
        for key in &keys.known {
            let what = format!("`include.{}`", key.name);
            match key.id {
                IncludeKey::Repo => {
                    let text = self.text(&what, key.value)?;
                    repo = Some(self.pipeline_path(&what, text)?);
                }
                IncludeKey::Ref => commit = Some(self.commit(&what, key.value)?),
                IncludeKey::File => path = Some(self.path(&what, key.value)?),
            }
        }
        let lacks = |name: &str, why: &str| Problem::new(format!("an entry of `include` has no `{name}`")).help(why);
        let repository = match (repo, commit) {
            (None, None) => repository.cloned(),
            (Some(pipeline), Some(commit)) => Some(Pinned {
                pipeline: pipeline.to_owned(),
                commit,
            }),
            (Some(_), None) => {
                self.report.add(at, || {
                    lacks("ref", "write the full id of the commit, so that the file cannot change")
                });
                return None;
            }
            (None, Some(_)) => {
                self.report.add(at, || {
                    lacks(
                        "repo",
                        "files of the same repository are taken at the same commit: remove `ref`",
                    )
                });
                return None;
            }
        };
        let Some(path) = path else {
            self.report.add(at, || lacks("file", "write `file: ci/shared.yml`"));
            return None;
        };
        Some(At {
            at,
            value: FileRef { repository, path },
        })
    }

    fn commit(&mut self, what: &str, node: NodeId) -> Option<String> {
        let text = self.text(what, node)?;
        let full = matches!(text.value.len(), 40 | 64) && text.value.bytes().all(|b| b.is_ascii_hexdigit());
        if !full {
            self.report.add(text.at, || {
                Problem::new(format!("{what} `{}` is no full commit id", shown(text.value)))
                    .help("a branch or a tag may change: write the 40 (or 64) hexadecimal digits of the commit")
            });
        }
        full.then(|| text.value.to_ascii_lowercase())
    }

    /// A path that stays within its repository.
    fn path(&mut self, what: &str, node: NodeId) -> Option<String> {
        let text = self.line(what, node, PATH_MAX)?;
        let path = text.value.strip_prefix("./").unwrap_or(text.value);
        let inside = !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !inside {
            self.report.add(text.at, || {
                Problem::new(format!(
                    "{what} `{}` is no path inside of a repository",
                    shown(text.value)
                ))
                .help("write it from the top of the repository, without `..`: `ci/shared.yml`")
            });
        }
        inside.then(|| path.to_owned())
    }
}
