//! The clocks of one server: a steady one that never jumps, for waiting, and that of the wall, for
//! records. Not here: what is waited for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Which clock is that of the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WallClock {
    /// The machine's.
    #[default]
    System,
    /// The machine's at the start, from there on tokio's: for tests that let hours pass at once.
    Tokio,
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    kind: WallClock,
    started: Instant,
    started_wall_ms: u64,
}

impl Clocks {
    pub(crate) fn start(kind: WallClock) -> Self {
        Self {
            kind,
            started: Instant::now(),
            started_wall_ms: system_ms(),
        }
    }

    /// Milliseconds since the start, on a clock that never jumps.
    pub(crate) fn steady_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// Milliseconds of the Unix epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        match self.kind {
            WallClock::System => system_ms(),
            WallClock::Tokio => self.started_wall_ms.saturating_add(self.steady_ms()),
        }
    }
}

fn system_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
