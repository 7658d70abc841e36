//! Until when sandboxes may live: one small file that an agent replaces and every shim reads.
//!
//! It holds one line: the deadline, in milliseconds of the clock that counts from boot and does not
//! stop while the machine sleeps, and the length of the lease from which it follows, for the next
//! agent. A shim sleeps until the deadline that it read last, reads again, and kills its sandbox
//! unless the file names a later one. A file that is away or damaged is no extension.
//!
//! Not here: who may move the deadline (the agent), and the killing (the shim).

use std::io;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};

use crate::handover;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// The moment past which no sandbox may live, milliseconds since boot.
    pub at_ms: u64,
    /// The lease from which it follows, milliseconds.
    pub lease_ms: u64,
}

/// A file that is there and says nothing.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It cannot be read.
    #[error("cannot read the lease: {0}")]
    Io(#[from] io::Error),
    /// It holds something else than a deadline.
    #[error("the lease is damaged: it should be one line of two numbers of milliseconds")]
    Damaged,
}

/// Milliseconds since boot, suspended time included.
#[must_use]
pub fn now_ms() -> u64 {
    // The clock exists on every kernel that can run a sandbox.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
        seconds * 1_000 + nanos / 1_000_000
    })
}

impl Deadline {
    /// Replaces the file; a reader sees the old deadline or the new one. Not durable: the clock
    /// starts anew with the machine.
    ///
    /// # Errors
    /// When the folder cannot be written; then the old deadline stands.
    pub fn write(self, path: &Path) -> io::Result<()> {
        handover::write_whole(path, format!("{} {}\n", self.at_ms, self.lease_ms).as_bytes())
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read or is no deadline.
    pub fn read(path: &Path) -> Result<Option<Deadline>, LeaseError> {
        match handover::read_text(path)? {
            Some(text) => Deadline::parse(&text).map(Some).ok_or(LeaseError::Damaged),
            None => Ok(None),
        }
    }

    fn parse(text: &str) -> Option<Deadline> {
        let (at, lease) = text.strip_suffix('\n')?.split_once(' ')?;
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
        Some(Deadline {
            at_ms: number(at)?,
            lease_ms: number(lease)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_as_it_was_written_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        assert!(matches!(Deadline::read(&path), Ok(None)));
        let written = Deadline {
            at_ms: 123_456,
            lease_ms: 20_000,
        };
        written.write(&path).unwrap();
        assert_eq!(Deadline::read(&path).unwrap(), Some(written));
        let garbage: [&[u8]; 10] = [
            b"",
            b"\n",
            b"12",
            b"12\n",
            b"12 13",
            b"12 +13\n",
            b"-12 13\n",
            b"99999999999999999999 1\n",
            b"1 2 3\n",
            b"\xff\xfe 1\n",
        ];
        for bytes in garbage {
            std::fs::write(&path, bytes).unwrap();
            assert!(Deadline::read(&path).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn the_clock_goes_on() {
        let before = now_ms();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while now_ms() == before {
            assert!(std::time::Instant::now() < until, "it stands still");
        }
        assert!(before > 0 && now_ms() > before);
    }
}
