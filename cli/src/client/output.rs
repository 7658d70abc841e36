//! Standard output and the people or programs behind it.

use super::arguments::OutputForm;
use super::failure::Failure;
use super::table::Paint;
use serde::Serialize;
use std::io::{IsTerminal as _, StdoutLock, Write};

/// Where results go. Writing fails with [`Failure::OutputClosed`] once nobody reads.
pub(super) struct Output {
    form: OutputForm,
    to: Box<dyn Write + Send>,
    /// A person reads it on a terminal that can draw.
    terminal: bool,
    pub(super) paint: Paint,
    pub(super) talk: Talk,
}

/// Words about what is going on: on standard error, so that results stay clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    Aloud,
    Silent,
}

impl Talk {
    /// Says some lines.
    pub(super) fn say(self, text: &str) {
        if self == Self::Aloud {
            let text = super::table::printable_lines(text);
            // Without anybody to hear it there is nothing to do.
            drop(writeln!(std::io::stderr(), "{text}"));
        }
    }
}

impl Output {
    pub(super) fn of_process(form: OutputForm) -> Self {
        let stdout = std::io::stdout();
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let terminal = stdout.is_terminal() && !dumb;
        let colour = terminal && !set("NO_COLOR");
        Self {
            form,
            terminal: terminal && std::io::stderr().is_terminal(),
            to: Box::new(Locked),
            paint: if colour { Paint::Colours } else { Paint::Plain },
            talk: Talk::Aloud,
        }
    }

    /// For tests: whatever is written ends up in `to`.
    #[cfg(test)]
    pub(super) fn to(form: OutputForm, to: Box<dyn Write + Send>) -> Self {
        Self {
            form,
            to,
            terminal: false,
            paint: Paint::Plain,
            talk: Talk::Silent,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.form == OutputForm::Json
    }

    /// Whether lines can be drawn over, and nothing else is written between them.
    pub(super) fn on_terminal(&self) -> bool {
        self.terminal
    }

    /// Text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// One line.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.text(text)?;
        self.text("\n")
    }

    /// Bytes as they are, at once: logs are read while they come.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes)?;
        self.to.flush()?;
        Ok(())
    }

    /// A value in JSON, for programs.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).expect("what came as JSON goes as JSON");
        self.line(&text)
    }

    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush()?;
        Ok(())
    }
}

/// Standard output, locked for each write only.
struct Locked;

impl Locked {
    fn lock() -> StdoutLock<'static> {
        std::io::stdout().lock()
    }
}

impl Write for Locked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Self::lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Self::lock().flush()
    }
}
