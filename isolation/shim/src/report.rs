//! What the sandbox's first process tells the shim in its last moment before it becomes the
//! user's program, and what a failure to become it means.
//!
//! Two lines at most: the time in Unix ms, then a failure as JSON. End of file without a failure
//! is success, because the descriptor closes on exec. Not here: executing.

use isolation::End;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// How much of a file that cannot be executed is looked at.
pub(crate) const HEAD_BYTES: usize = 1_024;
/// Most bytes of a report; beyond it something else than ours is talking.
pub(crate) const REPORT_BYTES_MAX: usize = 64 << 10;

/// Why the user's program was not executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ExecFailure {
    /// A protection could not be set up.
    Protect { what: String, errno: i32 },
    /// The working directory cannot be entered.
    Cwd { errno: i32 },
    /// The kernel would not execute the program.
    Exec(Refusal),
}

/// What the kernel refused to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The file, `None` if no folder of `PATH` has one of that name.
    pub(crate) path: Option<String>,
    /// The kernel's error.
    pub(crate) errno: i32,
    /// Beginning of the file; `None` if it cannot be read.
    pub(crate) head: Option<Vec<u8>>,
}

/// All that came through the pipe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// When the program was, or was about to be, executed.
    pub(crate) executed_ms: Option<u64>,
    /// Why it was not.
    pub(crate) failure: Option<ExecFailure>,
}

impl Report {
    /// Reads what came; what is cut short or foreign counts as not said.
    pub(crate) fn parse(text: &str) -> Report {
        let mut report = Report::default();
        for line in text.lines() {
            if let Ok(ms) = line.parse() {
                report.executed_ms = Some(ms);
            } else if let Ok(failure) = serde_json::from_str(line) {
                report.failure = Some(failure);
            }
        }
        report
    }
}

fn words(errno: i32) -> String {
    Errno::from_raw(errno).desc().to_lowercase()
}

/// What a failure means to whoever wrote the step.
pub(crate) fn explain(failure: &ExecFailure, program: &str, cwd: &str, path: &str) -> End {
    match failure {
        ExecFailure::Protect { what, errno } => End::SandboxFailed {
            message: format!("{what} failed: {}", words(*errno)),
        },
        ExecFailure::Cwd { errno } => End::SpecRefused {
            message: format!("the working directory `{cwd}` cannot be entered: {}", words(*errno)),
        },
        ExecFailure::Exec(refusal) => match Errno::from_raw(refusal.errno) {
            Errno::E2BIG => End::SpecRefused {
                message: "arguments and environment are too long for the kernel".into(),
            },
            errno @ (Errno::ENOMEM | Errno::EAGAIN | Errno::EIO | Errno::EMFILE | Errno::ENFILE) => {
                End::SandboxFailed {
                    message: format!("executing `{program}` failed: {}", errno.desc().to_lowercase()),
                }
            }
            _ => End::CommandMissing {
                command: program.to_owned(),
                message: describe(refusal, path),
            },
        },
    }
}

/// Why a file is not a program here.
fn describe(refusal: &Refusal, search_path: &str) -> String {
    let Some(path) = &refusal.path else {
        return format!("not found in PATH ({search_path})");
    };
    let head = refusal.head.as_deref();
    let interpreter = head.and_then(interpreter);
    match (Errno::from_raw(refusal.errno), head, interpreter) {
        (Errno::ENOENT, _, Some(interpreter)) => {
            format!("{path} needs the interpreter {interpreter:?}, which does not exist in the image")
        }
        (Errno::ENOENT | Errno::ENOTDIR, _, _) => format!("{path} does not exist in the image"),
        (Errno::EACCES, _, _) => {
            format!("{path} may not be executed: it lacks the permission, or is no ordinary file")
        }
        (Errno::ENOEXEC, Some(head), interpreter) => {
            let what = no_program(head, interpreter.as_deref());
            format!("{path} {what}")
        }
        (errno, _, _) => format!("{path}: {}", errno.desc().to_lowercase()),
    }
}

fn no_program(head: &[u8], interpreter: Option<&str>) -> String {
    if head.is_empty() {
        return "is an empty file".into();
    }
    if let Some(machine) = elf_machine(head) {
        let here = std::env::consts::ARCH;
        return format!("is a program for {machine}, and this node is {here}");
    }
    if let Some(interpreter) = interpreter {
        return format!("needs the interpreter {interpreter:?}, which is no program for this node");
    }
    "is neither a program nor a script that begins with `#!`".into()
}

fn elf_machine(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let (low, high) = (*head.get(18)?, *head.get(19)?);
    let big_endian = head.get(5) == Some(&2);
    let machine = if big_endian { [high, low] } else { [low, high] };
    Some(match u16::from_le_bytes(machine) {
        3 => "x86 (32 bit)".into(),
        8 => "mips".into(),
        20 | 21 => "powerpc".into(),
        22 => "s390x".into(),
        40 => "arm (32 bit)".into(),
        62 => "x86_64".into(),
        183 => "aarch64".into(),
        243 => "riscv".into(),
        258 => "loongarch".into(),
        other => format!("machine type {other}"),
    })
}

/// The interpreter that a script's first line or a program's header names.
fn interpreter(head: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let mut words = line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|w| !w.is_empty());
        return words.next().map(text);
    }
    let segment = elf_interpreter(head)?;
    segment.split(|byte| *byte == 0).next().map(text)
}

/// The `PT_INTERP` segment of a 64-bit little-endian program, as far as it lies in `head`.
fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    const PT_INTERP: u64 = 3;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let slice = head.get(at..at.checked_add(bytes)?)?;
        Some(slice.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    let table = usize::try_from(number(32, 8)?).ok()?;
    let size = usize::try_from(number(54, 2)?).ok()?;
    let count = usize::try_from(number(56, 2)?).ok()?;
    for index in 0..count.min(64) {
        let entry = table.checked_add(index.checked_mul(size)?)?;
        if number(entry, 4)? == PT_INTERP {
            let from = usize::try_from(number(entry.checked_add(8)?, 8)?).ok()?;
            let length = usize::try_from(number(entry.checked_add(32)?, 8)?).ok()?;
            return head.get(from..from.checked_add(length)?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16, interpreter: Option<&[u8]>) -> Vec<u8> {
        let mut head = vec![0u8; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18..20].copy_from_slice(&machine.to_le_bytes());
        if let Some(interpreter) = interpreter {
            head[32] = 64;
            head[54] = 56;
            head[56] = 1;
            let mut entry = [0u8; 56];
            entry[0] = 3;
            entry[8] = 120;
            entry[32] = u8::try_from(interpreter.len()).unwrap();
            head.extend_from_slice(&entry);
            head.extend_from_slice(interpreter);
        }
        head
    }

    fn missing(path: Option<&str>, errno: Errno, head: Option<&[u8]>) -> String {
        let failure = ExecFailure::Exec(Refusal {
            path: path.map(str::to_owned),
            errno: errno as i32,
            head: head.map(<[u8]>::to_vec),
        });
        match explain(&failure, "tool", "/", "/bin:/usr/bin") {
            End::CommandMissing { command, message } => {
                assert_eq!(command, "tool");
                message
            }
            other => format!("{other:?}"),
        }
    }

    /// A path, the kernel's error, the file's beginning, and the message.
    type Case<'a> = (Option<&'a str>, Errno, Option<&'a [u8]>, &'a str);

    #[test]
    fn each_refusal_says_what_to_look_at() {
        let aarch64 = elf(183, None);
        let musl = elf(62, Some(b"/lib/ld-musl-x86_64.so.1\0"));
        let cut = &musl[..100];
        let cases: [Case<'_>; 12] = [
            (None, Errno::ENOENT, None, "not found in PATH (/bin:/usr/bin)"),
            (Some("/x"), Errno::ENOENT, None, "/x does not exist in the image"),
            (Some("/x/y"), Errno::ENOTDIR, None, "/x/y does not exist in the image"),
            (
                Some("/x"),
                Errno::ENOENT,
                Some(b"#! /bin/bash -e\n"),
                "/x needs the interpreter \"/bin/bash\", which does not exist in the image",
            ),
            (
                Some("/x"),
                Errno::ENOENT,
                Some(b"#!/bin/sh\r\n"),
                "/x needs the interpreter \"/bin/sh\\r\", which does not exist in the image",
            ),
            (
                Some("/x"),
                Errno::ENOENT,
                Some(&musl),
                "/x needs the interpreter \"/lib/ld-musl-x86_64.so.1\", which does not exist in the image",
            ),
            (Some("/x"), Errno::ENOENT, Some(cut), "/x does not exist in the image"),
            (
                Some("/x"),
                Errno::EACCES,
                None,
                "/x may not be executed: it lacks the permission, or is no ordinary file",
            ),
            (Some("/x"), Errno::ENOEXEC, Some(b""), "/x is an empty file"),
            (
                Some("/x"),
                Errno::ENOEXEC,
                Some(b"echo hello\n"),
                "/x is neither a program nor a script that begins with `#!`",
            ),
            (
                Some("/x"),
                Errno::ENOEXEC,
                Some(b"#!/data\n"),
                "/x needs the interpreter \"/data\", which is no program for this node",
            ),
            (
                Some("/x"),
                Errno::ELOOP,
                None,
                "/x: too many symbolic links encountered",
            ),
        ];
        for (path, errno, head, expected) in cases {
            assert_eq!(missing(path, errno, head), expected, "{path:?} {errno}");
        }
        let foreign = missing(Some("/x"), Errno::ENOEXEC, Some(&aarch64));
        assert!(
            foreign.starts_with("/x is a program for aarch64, and this node is "),
            "{foreign}"
        );
    }

    #[test]
    fn hostile_headers_are_read_within_their_bounds() {
        let mut wild = elf(62, Some(b"/lib/ld.so\0"));
        for at in [32, 54, 56, 72, 96] {
            let kept = wild.clone();
            wild[at..at + 2].copy_from_slice(&[0xff, 0xff]);
            let _ = missing(Some("/x"), Errno::ENOENT, Some(&wild));
            wild = kept;
        }
        for length in 0..wild.len() {
            let _ = missing(Some("/x"), Errno::ENOEXEC, Some(&wild[..length]));
        }
    }

    #[test]
    fn a_report_is_read_as_far_as_it_came() {
        let failure = ExecFailure::Cwd { errno: 2 };
        let line = serde_json::to_string(&failure).unwrap();
        let cases = [
            (String::new(), None, None),
            ("123\n".into(), Some(123), None),
            (format!("123\n{line}\n"), Some(123), Some(failure.clone())),
            (format!("{line}\n"), None, Some(failure)),
            ("123\n{\"kind\":\"cw".into(), Some(123), None),
        ];
        for (text, executed_ms, failure) in cases {
            let expected = Report { executed_ms, failure };
            assert_eq!(Report::parse(&text), expected, "{text}");
        }
    }
}
