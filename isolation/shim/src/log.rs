//! The step's output on its way to the disk: kept up to a limit, then counted out and thrown away.
//!
//! Not here: reading the pipe. Memory does not depend on what passes: there are no lines here.

use std::fs::File;
use std::io::{self, Write as _};

/// The log file and how much it takes.
pub(crate) struct LogSink {
    file: File,
    bytes: u64,
    max: u64,
    ends_line: bool,
    truncated: bool,
}

impl LogSink {
    /// Appends to `file` until it holds `max` bytes; the line that says so comes on top.
    pub(crate) fn new(file: File, max: u64) -> io::Result<LogSink> {
        let bytes = file.metadata()?.len();
        Ok(LogSink {
            file,
            bytes,
            max,
            ends_line: true,
            truncated: false,
        })
    }

    /// Takes a piece of output. After the limit, and when the disk fails, it is thrown away.
    pub(crate) fn accept(&mut self, piece: &[u8]) {
        if self.truncated || piece.is_empty() {
            return;
        }
        let room = usize::try_from(self.max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let kept = &piece[..piece.len().min(room)];
        if let Err(error) = self.append(kept) {
            self.cut(&format!("the node could not write more of it ({error})"));
        } else if kept.len() < piece.len() {
            self.cut(&format!("it reached its limit of {} bytes", self.max));
        }
    }

    fn append(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            let written = match self.file.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.bytes += written as u64;
            self.ends_line = piece[written - 1] == b'\n';
            piece = &piece[written..];
        }
        Ok(())
    }

    fn cut(&mut self, why: &str) {
        self.truncated = true;
        let begin = if self.ends_line { "" } else { "\n" };
        let line = format!("{begin}[buildflow] the log ends here: {why}; the rest is discarded\n");
        // A full disk takes no such line either; the exit record says it anyway.
        let _ = self.append(line.as_bytes());
    }

    /// Puts what was appended on the disk; nothing is waited for if that is nothing.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.file.sync_data()
    }

    /// Length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether output was thrown away.
    pub(crate) fn truncated(&self) -> bool {
        self.truncated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(max: u64, pieces: &[&[u8]]) -> (String, u64, bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = LogSink::new(file.reopen().unwrap(), max).unwrap();
        pieces.iter().for_each(|piece| log.accept(piece));
        log.sync().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.len() as u64, log.bytes(), "count and file differ");
        (text, log.bytes(), log.truncated())
    }

    #[test]
    fn output_is_kept_to_the_byte_and_the_cut_is_told_once() {
        let line = "[buildflow] the log ends here: it reached its limit of 6 bytes; the rest is discarded\n";
        let cases: [(&[&[u8]], String, bool); 6] = [
            (&[], String::new(), false),
            (&[b"abc"], "abc".into(), false),
            (&[b"abc", b"def"], "abcdef".into(), false),
            (&[b"abc", b"defg", b"more"], format!("abcdef\n{line}"), true),
            (&[b"abcde\n", b"x"], format!("abcde\n{line}"), true),
            (&[b"abcde\nfg"], format!("abcde\n{line}"), true),
        ];
        for (pieces, text, truncated) in cases {
            let found = kept(6, pieces);
            assert_eq!((found.0, found.2), (text, truncated), "{pieces:?}");
        }
    }

    #[test]
    fn a_limit_of_nothing_keeps_only_the_line() {
        let (text, _, truncated) = kept(0, &[b"a"]);
        assert!(truncated && text.starts_with("[buildflow]"), "{text}");
    }

    #[test]
    fn a_full_disk_ends_the_log_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut log = LogSink::new(full, 100).unwrap();
        log.accept(b"abc");
        assert!(log.truncated());
        assert_eq!(log.bytes(), 0);
    }
}
