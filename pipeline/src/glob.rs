//! Globs over branches, tags and paths: `*` within a part, `**` over parts, `?`, `[a-z]`, `{a,b}`;
//! a later `!glob` takes back.
//!
//! Not here: where they stand in the file.

use crate::syntax::shown;
use globset::{Glob, GlobBuilder, GlobMatcher};

/// Bytes of a glob.
pub(crate) const GLOB_MAX: usize = 256;

/// Globs in one list.
pub(crate) const GLOBS_MAX: usize = 100;

/// A list of globs. The last one that means a name decides; one that begins with `!` takes back.
#[derive(Debug, Clone)]
pub(crate) struct Globs {
    /// Whether it takes back, and what it means.
    list: Vec<(bool, GlobMatcher)>,
}

impl Globs {
    /// Reads the globs.
    ///
    /// # Errors
    /// What is wrong with the first one that is none.
    pub(crate) fn new<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        let list = texts
            .iter()
            .map(|text| {
                let text = text.as_ref();
                let (back, glob) = match text.strip_prefix('!') {
                    Some(glob) => (true, glob),
                    None => (false, text),
                };
                Ok((back, read(glob)?.compile_matcher()))
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { list })
    }

    /// Whether the list means this name. A list that only takes back means everything else.
    pub(crate) fn means(&self, name: &str) -> bool {
        let last = self.list.iter().rev().find(|(_, glob)| glob.is_match(name));
        match last {
            Some((back, _)) => !back,
            None => !self.list.is_empty() && self.list.iter().all(|(back, _)| *back),
        }
    }

    /// Whether the list means one of these names.
    pub(crate) fn any(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.means(name))
    }
}

fn read(text: &str) -> Result<Glob, String> {
    if text.is_empty() {
        return Err("a glob is empty".to_owned());
    }
    if text.len() > GLOB_MAX {
        return Err(format!("a glob has {} bytes; the most is {GLOB_MAX}", text.len()));
    }
    // `src/` means what is below it.
    let below = text.strip_suffix('/').map(|folder| format!("{folder}/**"));
    GlobBuilder::new(below.as_deref().unwrap_or(text))
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| format!("`{}` is not a glob: {}", shown(text), error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_glob_that_means_a_name_decides() {
        let cases: [(&[&str], &str, bool); 17] = [
            (&["main"], "main", true),
            (&["main"], "mainline", false),
            (&["release/*"], "release/1", true),
            (&["release/*"], "release/1/2", false),
            (&["release/**"], "release/1/2", true),
            (&["**"], "a/b", true),
            (&["*"], "a/b", false),
            (&["src/"], "src/a/b.rs", true),
            (&["**/*.md"], "README.md", true),
            (&["**/*.md"], "docs/a.md", true),
            (&["v[0-9].*", "!*-rc*"], "v1.0", true),
            (&["v[0-9].*", "!*-rc*"], "v1.0-rc1", false),
            (&["!wip/**"], "main", true),
            (&["!wip/**"], "wip/x", false),
            (&["{main,dev}"], "dev", true),
            (&["a?c"], "abc", true),
            (&["!docs/**", "docs/keep.md"], "docs/keep.md", true),
        ];
        for (globs, name, expect) in cases {
            assert_eq!(
                Globs::new(globs).expect("legal").means(name),
                expect,
                "{globs:?} {name}"
            );
        }
        for wrong in ["", "!", "[", "{a", &"a".repeat(GLOB_MAX + 1)] {
            assert!(Globs::new(&[wrong]).is_err(), "{wrong}");
        }
    }
}
