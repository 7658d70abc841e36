//! Where the compiler puts what it finds: keeps the first findings of the file, counts the rest.
//!
//! Not here: lines and columns before the end. Positions are byte offsets until
//! [`Report::into_findings`].

use crate::finding::{FINDINGS_MAX, Finding, Findings};
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A text that findings are about.
struct Source<'a> {
    /// Offsets of this text begin here.
    base: usize,
    /// `None`: the file itself; else one that it includes.
    name: Option<String>,
    text: &'a str,
    lines: Vec<usize>,
}

/// The findings of one file, and of those that it includes, so far.
pub(crate) struct Report<'a> {
    /// By their bases.
    sources: Vec<Source<'a>>,
    /// The first [`FINDINGS_MAX`] by position; the same words at the same place count once.
    kept: BTreeMap<(usize, String), Option<String>>,
    /// Places of the findings that are not kept.
    rest: BTreeSet<usize>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let mut report = Self {
            sources: Vec::new(),
            kept: BTreeMap::new(),
            rest: BTreeSet::new(),
        };
        report.add_source(None, text);
        report
    }

    /// Takes in another text; answers the offset where it begins.
    pub(crate) fn add_source(&mut self, name: Option<String>, text: &'a str) -> usize {
        let base = self.sources.last().map_or(0, |last| last.base + last.text.len() + 1);
        self.sources.push(Source {
            base,
            name,
            text,
            lines: line_starts(text),
        });
        base
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Adds a finding at the byte offset `at`. `problem` is put into words only when there is room
    /// for it, so that a file of a hundred thousand errors costs little more than one of a hundred.
    pub(crate) fn add(&mut self, at: usize, problem: impl FnOnce() -> Problem) {
        let full = self.kept.len() >= FINDINGS_MAX;
        if full && self.kept.last_key_value().is_some_and(|((last, _), _)| at > *last) {
            self.rest.insert(at);
            return;
        }
        let Problem { message, help } = problem();
        self.kept.insert((at, message), help);
        if self.kept.len() > FINDINGS_MAX
            && let Some(((at, _), _)) = self.kept.pop_last()
        {
            self.rest.insert(at);
        }
    }

    fn source(&self, at: usize) -> &Source<'a> {
        let number = self.sources.partition_point(|source| source.base <= at).max(1);
        &self.sources[number - 1]
    }

    /// Where the text begins that holds this offset.
    pub(crate) fn start_of(&self, at: usize) -> usize {
        self.source(at).base
    }

    /// The file, and line and column of a byte offset, both from 1, the column in characters.
    pub(crate) fn position(&self, at: usize) -> (Option<&str>, usize, usize) {
        let source = self.source(at);
        let at = at - source.base;
        let line = source.lines.partition_point(|start| *start <= at).max(1);
        let start = source.lines[line - 1];
        let before = source.text.get(start..at).unwrap_or_default();
        (source.name.as_deref(), line, before.chars().count() + 1)
    }

    /// `line:column` of a byte offset, behind the file's name if it is an included one.
    pub(crate) fn place(&self, at: usize) -> String {
        match self.position(at) {
            (None, line, column) => format!("{line}:{column}"),
            (Some(file), line, column) => format!("{file}:{line}:{column}"),
        }
    }

    pub(crate) fn into_findings(self) -> Findings {
        let list = self
            .kept
            .iter()
            .map(|((at, message), help)| {
                let (file, line, column) = self.position(*at);
                Finding {
                    file: file.map(str::to_owned),
                    line,
                    column,
                    message: message.clone(),
                    help: help.clone(),
                }
            })
            .collect();
        Findings {
            list,
            more: self.rest.len(),
        }
    }
}

/// The byte offset of each line's first character; LF, CR LF and CR end a line, as in YAML.
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut starts = vec![0];
    for (at, byte) in bytes.iter().enumerate() {
        let ends = match byte {
            b'\n' => true,
            b'\r' => bytes.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        if ends {
            starts.push(at + 1);
        }
    }
    starts
}
