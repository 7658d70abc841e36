//! A first pipeline file for a folder: what `init` writes.
//!
//! Not here: looking at the folder and writing the file. The texts are examples that compile and
//! that a person is meant to change.

/// What kind of project a folder holds, as far as its file names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StarterKind {
    /// `Cargo.toml`.
    Rust,
    /// `go.mod`.
    Go,
    /// `package.json`.
    Node,
    /// `pyproject.toml`, `setup.py` or `requirements.txt`.
    Python,
    /// `Makefile`.
    Make,
    /// None of them.
    Generic,
}

/// Which file makes which kind; the first that is there wins. A `Makefile` comes last: it often
/// stands beside the build of a language.
const SIGNS: [(&str, StarterKind); 8] = [
    ("Cargo.toml", StarterKind::Rust),
    ("go.mod", StarterKind::Go),
    ("package.json", StarterKind::Node),
    ("pyproject.toml", StarterKind::Python),
    ("setup.py", StarterKind::Python),
    ("requirements.txt", StarterKind::Python),
    ("Makefile", StarterKind::Make),
    ("makefile", StarterKind::Make),
];

impl StarterKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Rust,
        Self::Go,
        Self::Node,
        Self::Python,
        Self::Make,
        Self::Generic,
    ];

    /// The kind of a folder that holds files of these names (without their folder).
    #[must_use]
    pub fn detect<S: AsRef<str>>(files: &[S]) -> Self {
        SIGNS
            .iter()
            .find(|(sign, _)| files.iter().any(|file| file.as_ref() == *sign))
            .map_or(Self::Generic, |(_, kind)| *kind)
    }
}

/// The text of a first `.buildflow.yml`.
#[must_use]
pub fn starter(kind: StarterKind) -> &'static str {
    match kind {
        StarterKind::Rust => include_str!("starter/rust.yml"),
        StarterKind::Go => include_str!("starter/go.yml"),
        StarterKind::Node => include_str!("starter/node.yml"),
        StarterKind::Python => include_str!("starter/python.yml"),
        StarterKind::Make => include_str!("starter/make.yml"),
        StarterKind::Generic => include_str!("starter/generic.yml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_starter_compiles_into_at_least_two_steps() {
        for kind in StarterKind::ALL {
            let def = crate::compile(starter(kind)).unwrap_or_else(|findings| panic!("{kind:?}: {findings}"));
            assert!(def.steps.len() >= 2, "{kind:?}");
            assert!(starter(kind).ends_with('\n'), "{kind:?}");
        }
    }

    #[test]
    fn a_folder_is_known_by_its_files() {
        let cases: [(&[&str], StarterKind); 9] = [
            (&["Makefile", "Cargo.toml"], StarterKind::Rust),
            (&["go.mod", "main.go"], StarterKind::Go),
            (&["package.json"], StarterKind::Node),
            (&["pyproject.toml"], StarterKind::Python),
            (&["setup.py"], StarterKind::Python),
            (&["README.md", "Makefile"], StarterKind::Make),
            (&["README.md"], StarterKind::Generic),
            (&["cargo.toml"], StarterKind::Generic),
            (&[], StarterKind::Generic),
        ];
        for (files, expect) in cases {
            assert_eq!(StarterKind::detect(files), expect, "{files:?}");
        }
    }
}
