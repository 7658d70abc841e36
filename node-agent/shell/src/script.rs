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
        let _ = writeln!(script, "printf '%s\\n' {}", quoted(&entry.heading()));
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

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn with_line_end(text: &str) -> String {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_orders::{entries, step_def};
    use std::path::Path;
    use std::process::{Command, Output};

    /// Runs a step's scripts with this machine's shells, in a folder of their own.
    fn run(def: &StepDef) -> Output {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let scripts = scripts(def);
        for (name, text) in &scripts.files {
            let text = match name.as_str() {
                "main" | "after" | "step" => text.replace(FOLDER, place),
                _ => text.clone(),
            };
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let argv: Vec<String> = scripts.argv.iter().map(|word| word.replace(FOLDER, place)).collect();
        let output = Command::new(&argv[0])
            .args(&argv[1..])
            .current_dir(folder.path())
            .output();
        assert!(Path::new(place).exists());
        output.expect("this machine has sh and bash")
    }

    fn check(def: &StepDef, code: i32, log: &str) {
        let output = run(def);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, log, "stderr: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code));
    }

    fn def(run: &[&str]) -> StepDef {
        StepDef {
            run: entries(run),
            ..step_def()
        }
    }

    #[test]
    fn all_entries_share_one_shell() {
        let def = StepDef {
            before: entries(&["greet() { echo \"hello $1\"; }"]),
            ..def(&["cd /tmp\nexport WHO=you", "greet $WHO; pwd"])
        };
        let log = "$ greet() { echo \"hello $1\"; }\n$ cd /tmp …\n$ greet $WHO; pwd\nhello you\n/tmp\n";
        check(&def, 0, log);
    }

    #[test]
    fn the_first_command_that_fails_ends_the_step_with_its_code() {
        check(&def(&["(exit 7)", "echo never"]), 7, "$ (exit 7)\n");
        check(&def(&["exit 3", "echo never"]), 3, "$ exit 3\n");
        check(&def(&["no-such-program-here"]), 127, "$ no-such-program-here\n");
    }

    #[test]
    fn a_failure_inside_a_pipe_counts_in_bash_and_not_in_sh() {
        let piped = def(&["false | true"]);
        check(&piped, 0, "$ false | true\n");
        let bash = StepDef {
            shell: Shell::Bash,
            ..piped
        };
        check(&bash, 1, "$ false | true\n");
    }

    #[test]
    fn after_always_runs_in_a_shell_of_its_own_and_the_first_code_stays() {
        for (shell, code) in [(Shell::Sh, 0), (Shell::Sh, 4), (Shell::Bash, 4)] {
            let def = StepDef {
                shell,
                after: entries(&["echo \"X=${X-unset}\""]),
                ..def(&[&format!("X=1; exit {code}")])
            };
            let log = format!("$ X=1; exit {code}\n$ echo \"X=${{X-unset}}\"\nX=unset\n");
            check(&def, code, &log);
        }
        let def = StepDef {
            after: entries(&["exit 9"]),
            ..def(&["true"])
        };
        check(
            &def,
            0,
            "$ true\n$ exit 9\nbuildflow: `after` ended with exit code 9; the step keeps 0\n",
        );
    }

    #[test]
    fn no_command_can_reach_into_the_next_entry() {
        let unfinished = run(&def(&["cat <<EOF\ninside", "echo second"]));
        let text = String::from_utf8_lossy(&unfinished.stdout);
        assert!(text.ends_with("inside\n$ echo second\nsecond\n"), "{text}");
        let broken = run(&def(&["echo 'open", "echo never"]));
        assert_ne!(broken.status.code(), Some(0));
        assert!(!String::from_utf8_lossy(&broken.stdout).contains("never\n"));
    }

    #[test]
    fn a_command_of_a_mebibyte_runs() {
        let long = format!("X='{}'\necho ${{#X}}", "x".repeat(1 << 20));
        let output = run(&def(&[&long]));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.ends_with("\n1048576\n"),
            "{}",
            &text[text.len().saturating_sub(80)..]
        );
        assert_eq!(
            text.lines().next().unwrap().chars().count(),
            2 + model::HEADING_CHARS_MAX + 2
        );
    }

    #[test]
    fn the_line_above_an_entry_is_shown_as_it_is_and_executes_nothing() {
        let named = |name: &str| Entry {
            name: Some(name.to_owned()),
            run: "true".to_owned(),
        };
        let hostile = "it's $(touch /tmp/x) `id` %s \\n \u{1b}[2J";
        let def = StepDef {
            run: vec![named("strip"), named(hostile)],
            ..step_def()
        };
        check(&def, 0, "==> strip\n==> it's $(touch /tmp/x) `id` %s \\n  [2J\n");
    }
}
