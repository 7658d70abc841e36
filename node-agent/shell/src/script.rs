//! The shell scripts of a step: every entry is a file of its own that one shell reads in order.
//!
//! No command is ever part of another script's text, so nothing has to be quoted, an unfinished
//! quote or here-document ends with its entry, and a command may be as long as a file.
//! `/.buildflow/step` is what the container executes:
//!
//! | file | holds |
//! |---|---|
//! | `main` | heads and sources `before` and `run`: one shell, so `cd` and `export` persist |
//! | `after` | the same for `after`, in a shell of its own |
//! | `step` | only with `after`: runs `main`, then `after`, and ends with the code of `main` |
//! | `NNNN` | one entry |
//!
//! Not here: the environment, and where the files are written.

use model::{Entry, Shell, StepDef};
use std::fmt::Write as _;

/// Where the scripts lie inside the container.
pub(crate) const FOLDER: &str = "/.buildflow";

/// The most characters of a command that are shown above its output.
const HEAD_CHARS_MAX: usize = 200;

/// The files of a step and how they are started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scripts {
    /// Name in [`FOLDER`] and content.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) argv: Vec<String>,
}

/// The scripts of a step.
pub(crate) fn scripts(def: &StepDef) -> Scripts {
    let mut files = Vec::new();
    let main = sourcing(def.before.iter().chain(&def.run), &mut files);
    files.push(("main".to_owned(), main));
    let mut argv: Vec<String> = shell(def.shell).iter().map(|word| (*word).to_owned()).collect();
    if def.after.is_empty() {
        argv.push(format!("{FOLDER}/main"));
        return Scripts { files, argv };
    }
    let after = sourcing(def.after.iter(), &mut files);
    files.push(("after".to_owned(), after));
    files.push(("step".to_owned(), both(def.shell)));
    Scripts {
        files,
        argv: vec![argv[0].clone(), format!("{FOLDER}/step")],
    }
}

fn shell(shell: Shell) -> &'static [&'static str] {
    match shell {
        Shell::Sh => &["sh", "-e"],
        Shell::Bash => &["bash", "-eo", "pipefail"],
    }
}

/// Sources each entry under a line that says what it is, and adds the entries' files.
fn sourcing<'a>(entries: impl Iterator<Item = &'a Entry>, files: &mut Vec<(String, String)>) -> String {
    let mut script = String::new();
    for entry in entries {
        let name = format!("{:04}", files.len());
        let _ = writeln!(script, "printf '%s\\n' {}", quoted(&head(entry)));
        let _ = writeln!(script, ". {FOLDER}/{name}");
        files.push((name, with_line_end(&entry.run)));
    }
    script
}

/// A shell may leave the first script by any exit; the second one runs all the same.
fn both(kind: Shell) -> String {
    let shell = shell(kind).join(" ");
    format!(
        "{shell} {FOLDER}/main\n\
         code=$?\n\
         {shell} {FOLDER}/after || printf 'buildflow: `after` ended with exit code %s; the step keeps %s\\n' \"$?\" \"$code\"\n\
         exit \"$code\"\n"
    )
}

/// What stands above an entry's output: `==> name`, or `$ command`.
fn head(entry: &Entry) -> String {
    if let Some(name) = &entry.name {
        return format!("==> {}", shown(name));
    }
    let text = entry.run.trim();
    let first = text.lines().next().unwrap_or_default();
    let shown = shown(first);
    let more = shown.chars().count() < first.chars().count() || text.lines().nth(1).is_some();
    format!("$ {shown}{}", if more { " …" } else { "" })
}

/// Without what would move a terminal's cursor.
fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(HEAD_CHARS_MAX).collect()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn with_line_end(text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}
