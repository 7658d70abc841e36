//! Tables, times and sizes as text for people; pure.
//!
//! Names come from strangers' repositories and must not steer a terminal: what cannot be printed is
//! shown as a replacement character. Not here: logs, which go out as they are.

use api::dto::{RunStatus, StepStatus};
use std::fmt::Write as _;

/// The longest cell of a table; longer ones end in an ellipsis.
const CELL_MAX: usize = 60;

/// Whether a terminal reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Colours,
    Plain,
}

/// The colour of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    None,
    Bold,
    Green,
    Red,
    Yellow,
    Cyan,
    Grey,
}

impl Colour {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Bold => Some("1"),
            Self::Green => Some("32"),
            Self::Red => Some("31"),
            Self::Yellow => Some("33"),
            Self::Cyan => Some("36"),
            Self::Grey => Some("90"),
        }
    }

    pub(super) fn of_run(status: RunStatus) -> Self {
        match status {
            RunStatus::Queued => Self::Grey,
            RunStatus::Running => Self::Cyan,
            RunStatus::Success => Self::Green,
            RunStatus::Failed | RunStatus::TimedOut => Self::Red,
            RunStatus::Cancelled => Self::Yellow,
        }
    }

    pub(super) fn of_step(status: StepStatus) -> Self {
        match status {
            StepStatus::Pending | StepStatus::Queued | StepStatus::Skipped => Self::Grey,
            StepStatus::Assigned | StepStatus::Running => Self::Cyan,
            StepStatus::Success => Self::Green,
            StepStatus::Failed | StepStatus::TimedOut => Self::Red,
            StepStatus::Cancelled => Self::Yellow,
        }
    }
}

impl Paint {
    /// The text in a colour, if a terminal reads.
    pub(super) fn text(self, colour: Colour, text: &str) -> String {
        match (self, colour.code()) {
            (Self::Colours, Some(code)) => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// One cell: text that may be anything, and its colour.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    colour: Colour,
}

impl Cell {
    pub(super) fn coloured(colour: Colour, text: &str) -> Self {
        Self {
            text: shortened(&printable(text)),
            colour,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::coloured(Colour::None, text.as_ref())
    }
}

/// Rows under a heading, in columns as wide as their widest cell.
pub(super) fn table(paint: Paint, heading: &[&str], rows: &[Vec<Cell>]) -> String {
    let head: Vec<Cell> = heading.iter().map(|h| Cell::coloured(Colour::Bold, h)).collect();
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            all()
                .filter_map(|r| r.get(column))
                .map(|c| c.text.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width - cell.text.chars().count();
            let _ = write!(line, "{}{:pad$}  ", paint.text(cell.colour, &cell.text), "");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `name: value` lines, the values under each other; empty values are left out.
pub(super) fn fields(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 1;
    shown().fold(String::new(), |mut out, (name, value)| {
        let _ = writeln!(out, "{:width$} {}", format!("{name}:"), printable(value));
        out
    })
}

/// One line in which nothing steers a terminal.
pub(crate) fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], lines kept.
pub(super) fn printable_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(printable).collect();
    lines.join("\n")
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= CELL_MAX {
        return text.to_owned();
    }
    let head: String = text.chars().take(CELL_MAX - 1).collect();
    format!("{head}…")
}

/// `850ms`, `12.3s`, `4m05s`, `2h07m`, `3d4h`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=59 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..=3_599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago, by two clocks that may differ a little.
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.saturating_sub(then_ms) / 1_000 {
        0..=1 => "now".to_owned(),
        seconds @ 2..=59 => format!("{seconds}s ago"),
        seconds => format!("{} ago", duration(seconds * 1_000)),
    }
}

/// `512 B`, `1.5 KiB`, `20 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if value >= 10.0 || value.fract() < 0.05 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Cores: `2`, `0.5`.
pub(super) fn cores(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1 step`, `3 steps`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// The moment, milliseconds of the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
