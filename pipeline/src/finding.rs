//! What is wrong with a pipeline file, and where: sorted, without repeats, bounded.
//!
//! Not here: what is looked for. Messages are one lowercase line; the way to mend it is apart, in
//! `help`.

use serde::Serialize;
use std::fmt;

/// The most findings that are listed; the rest is counted. More than a screenful helps nobody,
/// and the list travels in a run's header.
pub const FINDINGS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The included file that it is about; `None`: the file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// All that is wrong with a file: never empty, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// At most [`FINDINGS_MAX`], sorted by file, line and column.
    pub list: Vec<Finding>,
    /// How many more there are.
    pub more: usize,
}

impl Findings {
    pub(crate) fn none() -> Self {
        Self {
            list: Vec::new(),
            more: 0,
        }
    }

    /// One line for each finding and, when some are left out, one that says how many: what a
    /// run's header keeps.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        self.list.iter().map(Finding::to_string).chain(more).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Findings {}
