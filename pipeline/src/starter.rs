//! A first pipeline file for a folder.

/// What kind of project a folder holds, as far as its file names tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StarterKind {
    /// `Cargo.toml`.
    Rust,
    /// `package.json`.
    Node,
    /// `go.mod`.
    Go,
    /// `pyproject.toml`.
    Python,
    /// `Makefile`.
    Make,
    /// None of them.
    Generic,
}

impl StarterKind {
    /// The kind of a folder that holds these files.
    #[must_use]
    pub fn detect<S: AsRef<str>>(files: &[S]) -> Self {
        let _ = files;
        Self::Generic
    }
}

/// The text of a first `.buildflow.yml`.
#[must_use]
pub fn starter(kind: StarterKind) -> &'static str {
    let _ = kind;
    ""
}
