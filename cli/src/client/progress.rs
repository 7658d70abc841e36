//! Log bytes of several steps on one output: whole lines, each under its step's name; pure.
//!
//! Not here: the log of a single step, which goes out byte by byte.

use super::table::{Colour, Paint};
use std::collections::BTreeMap;

/// The most bytes of a line that wait for its end; a longer line goes out in pieces.
const LINE_MAX_BYTES: usize = 64 * 1024;

/// The widest column of names.
const NAME_MAX: usize = 24;

/// Lines that have begun, by step.
#[derive(Debug)]
pub(super) struct Interleaved {
    paint: Paint,
    width: usize,
    begun: BTreeMap<String, Vec<u8>>,
}

impl Interleaved {
    /// For these steps.
    pub(super) fn new<'a>(paint: Paint, steps: impl Iterator<Item = &'a str>) -> Self {
        let width = steps.map(|s| s.chars().count()).max().unwrap_or(0).min(NAME_MAX);
        Self {
            paint,
            width,
            begun: BTreeMap::new(),
        }
    }

    /// Takes bytes of a step's log; answers what may be printed.
    pub(super) fn push(&mut self, step: &str, bytes: &[u8]) -> Vec<u8> {
        let head = self.head(step);
        let begun = self.begun.entry(step.to_owned()).or_default();
        let mut out = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            begun.extend_from_slice(piece);
            if begun.ends_with(b"\n") {
                out.extend_from_slice(head.as_bytes());
                out.append(begun);
            } else if begun.len() >= LINE_MAX_BYTES {
                out.extend_from_slice(head.as_bytes());
                out.append(begun);
                out.push(b'\n');
            }
        }
        out
    }

    /// The step's log has ended; answers the line that had no end.
    pub(super) fn end(&mut self, step: &str) -> Vec<u8> {
        match self.begun.remove(step) {
            Some(rest) if !rest.is_empty() => [self.head(step).as_bytes(), &rest, b"\n"].concat(),
            _ => Vec::new(),
        }
    }

    fn head(&self, step: &str) -> String {
        let name = super::table::printable(step);
        let width = self.width;
        format!("{} ", self.paint.text(Colour::Cyan, &format!("{name:width$} |")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_named() {
        let mut lines = Interleaved::new(Paint::Plain, ["unit", "compile"].into_iter());
        let mut out = Vec::new();
        for (step, bytes) in [
            ("unit", "a"),
            ("compile", "x\ny"),
            ("unit", "b\nc\n\n"),
            ("compile", "z"),
        ] {
            out.extend(lines.push(step, bytes.as_bytes()));
        }
        out.extend(lines.end("compile"));
        out.extend(lines.end("unit"));
        let expected = "compile | x\nunit    | ab\nunit    | c\nunit    | \ncompile | yz\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let mut lines = Interleaved::new(Paint::Plain, ["s"].into_iter());
        let mut out = 0;
        for _ in 0..1_000 {
            out += lines.push("s", &[b'x'; 10_000]).len();
        }
        assert!(out > 9_900_000, "{out}");
        assert!(lines.begun["s"].len() < LINE_MAX_BYTES + 10_000);
    }
}
