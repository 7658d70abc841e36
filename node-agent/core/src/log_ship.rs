//! The offsets of one log on its way to the server: what the file holds, what was sent, what is
//! stored for good, and what may be sent next.
//!
//! Not here: the file and the stream. The file is the buffer: bytes stay in it until the server has
//! them, so a broken stream costs nothing but sending again from where the server says.

/// The most bytes that are sent and not yet stored. Two seconds of a fast log at the server's
/// storing period of a second, and little enough that a server with thousands of streams stands it.
pub const WINDOW_MAX: u64 = 4 * 1024 * 1024;

/// How long an opened log waits for the server's offset before it asks again, milliseconds.
pub const OPEN_RESEND_MS: u64 = 10_000;

/// What to do next for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStep {
    /// Ask the server from which offset to send.
    Open,
    /// Send these bytes of the file; `end` says that the log ends with them.
    Send {
        /// Of the first byte.
        offset: u64,
        /// How many; 0 only with `end`.
        len: u64,
        /// Nothing follows.
        end: bool,
    },
    /// Wait: for bytes, for the server, for a stream.
    Wait,
    /// The server has the whole log.
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Closed,
    /// A stream is there and nothing was asked yet.
    Fresh,
    /// Asked at this time.
    Opening(u64),
    Open,
}

/// One log.
#[derive(Debug, Clone)]
pub struct LogShip {
    link: Link,
    /// Bytes in the file.
    size: u64,
    /// Its final length, once nothing more is written.
    end: Option<u64>,
    /// Everything before was sent on this stream or is stored.
    sent: u64,
    end_sent: bool,
    /// Everything before is stored.
    acked: u64,
    /// The server said that it has the end.
    complete: bool,
}

impl Default for LogShip {
    fn default() -> Self {
        Self::new()
    }
}

impl LogShip {
    /// A log of which nothing is known yet, without a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            link: Link::Closed,
            size: 0,
            end: None,
            sent: 0,
            end_sent: false,
            acked: 0,
            complete: false,
        }
    }

    /// A stream was opened.
    pub fn connected(&mut self) {
        self.link = Link::Fresh;
        self.end_sent = false;
    }

    /// The stream broke.
    pub fn disconnected(&mut self) {
        self.link = Link::Closed;
    }

    /// The file holds this many bytes. Smaller numbers than before are ignored: a log only grows.
    pub fn grown(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// Nothing more is written: the log has this many bytes.
    pub fn sealed(&mut self, size: u64) {
        self.grown(size);
        self.end = Some(self.size);
    }

    /// The server wants the bytes from `offset` on. A server that has more than the file holds
    /// (the tail was lost with the node's power) is believed: the end is then sent at its offset.
    pub fn from(&mut self, offset: u64) {
        if self.link == Link::Closed {
            return;
        }
        self.link = Link::Open;
        self.sent = offset;
        self.acked = offset;
        self.end_sent = false;
        if let Some(end) = self.end {
            self.end = Some(end.max(offset));
        }
        self.size = self.size.max(offset);
    }

    /// The server has stored everything before `offset`, with `complete` the end too.
    pub fn acked(&mut self, offset: u64, complete: bool) {
        // More than was sent can only be a late word about an earlier stream's bytes: those are
        // stored all the same.
        self.acked = self.acked.max(offset.min(self.size));
        self.sent = self.sent.max(self.acked);
        self.complete |= complete;
    }

    /// What to do next. Asking twice without an event between gives the same answer, except that
    /// [`LogStep::Open`] and [`LogStep::Send`] count as done.
    pub fn next(&mut self, now_ms: u64, chunk_max: u64) -> LogStep {
        if self.is_complete() {
            return LogStep::Complete;
        }
        match self.link {
            Link::Closed => LogStep::Wait,
            Link::Opening(asked) if now_ms < asked.saturating_add(OPEN_RESEND_MS) => LogStep::Wait,
            Link::Fresh | Link::Opening(_) => {
                self.link = Link::Opening(now_ms);
                LogStep::Open
            }
            Link::Open => self.next_bytes(chunk_max),
        }
    }

    fn next_bytes(&mut self, chunk_max: u64) -> LogStep {
        let window = WINDOW_MAX.saturating_sub(self.sent - self.acked);
        let len = (self.size - self.sent).min(window).min(chunk_max);
        let end = self.end == Some(self.sent + len);
        if len == 0 && (!end || self.end_sent) {
            return LogStep::Wait;
        }
        let offset = self.sent;
        self.sent += len;
        self.end_sent = end;
        LogStep::Send { offset, len, end }
    }

    /// True when the server has the whole log.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete && self.end.is_some()
    }

    /// When [`LogShip::next`] is to be asked again although nothing happened.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match self.link {
            Link::Opening(asked) => Some(asked.saturating_add(OPEN_RESEND_MS)),
            Link::Closed | Link::Fresh | Link::Open => None,
        }
    }
}
