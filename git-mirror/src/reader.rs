//! A `git cat-file` that stays: once it runs, an object is read without starting a process.

use crate::error::GitError;
use crate::process::Running;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};

/// One answer takes longer only if the disk is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest first line of an answer: it repeats the name that was asked for.
const LINE_MAX: u64 = 16 * 1024;
/// Above this an object that is only read in part is not read to its end: the process is ended.
const SKIP_MAX: u64 = 64 << 20;

/// The arguments that make git talk as this module expects.
pub(crate) const ARGS: [&str; 3] = ["cat-file", "--batch-command", "--follow-symlinks"];

/// The conversation with one process.
#[derive(Debug)]
pub(crate) struct Reader {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _process: Running,
}

/// What git knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// An object.
    Object { id: String, kind: String, size: u64 },
    /// A link that leads outside, nowhere or in a circle.
    StrayLink,
    /// Nothing.
    Missing,
}

impl Reader {
    pub(crate) fn new(mut process: Running) -> Result<Self, GitError> {
        let pipes = process.child.stdin.take().zip(process.child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| GitError::io("git", io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self {
            stdin,
            stdout: BufReader::new(stdout),
            _process: process,
        })
    }

    /// Asks what `name` is. After an error the conversation is out of step: drop the reader.
    pub(crate) async fn info(&mut self, name: &str) -> io::Result<Found> {
        within(async {
            self.ask("info", name).await?;
            self.head().await
        })
        .await
    }

    /// The object and its first `keep` bytes; `None` in place of them when it is not an object.
    pub(crate) async fn contents(&mut self, name: &str, keep: u64) -> io::Result<(Found, Vec<u8>)> {
        within(async {
            self.ask("contents", name).await?;
            let found = self.head().await?;
            let Found::Object { size, .. } = &found else {
                return Ok((found, Vec::new()));
            };
            let size = *size;
            let wanted = size.min(keep);
            if size - wanted > SKIP_MAX {
                return Err(io::Error::other("the object is too large to be skipped"));
            }
            let mut bytes = Vec::new();
            (&mut self.stdout).take(wanted).read_to_end(&mut bytes).await?;
            let rest = size - wanted + 1; // a newline ends the answer
            let skipped = tokio::io::copy(&mut (&mut self.stdout).take(rest), &mut tokio::io::sink()).await?;
            if bytes.len() as u64 != wanted || skipped != rest {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok((found, bytes))
        })
        .await
    }

    async fn ask(&mut self, verb: &str, name: &str) -> io::Result<()> {
        self.stdin.write_all(format!("{verb} {name}\n").as_bytes()).await?;
        self.stdin.flush().await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.stdout).take(LINE_MAX).read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    async fn head(&mut self) -> io::Result<Found> {
        let line = self.line().await?;
        if line.ends_with(" missing") || line.ends_with(" ambiguous") {
            return Ok(Found::Missing);
        }
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [word @ ("symlink" | "dangling" | "loop" | "notdir"), size] => {
                let size: u64 = size.parse().map_err(io::Error::other)?;
                tokio::io::copy(&mut (&mut self.stdout).take(size + 1), &mut tokio::io::sink()).await?;
                Ok(if *word == "notdir" {
                    Found::Missing
                } else {
                    Found::StrayLink
                })
            }
            [id, kind, size] => Ok(Found::Object {
                id: (*id).to_owned(),
                kind: (*kind).to_owned(),
                size: size.parse().map_err(io::Error::other)?,
            }),
            _ => Err(io::Error::other(format!("unexpected answer `{line}`"))),
        }
    }
}

async fn within<T>(answer: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
