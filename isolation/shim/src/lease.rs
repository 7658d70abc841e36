//! The deadline that the whole node has: read from its file, kept in mind, read again.
//!
//! Not here: the killing, and the file's form ([`isolation::lease`]).

use std::path::PathBuf;
use std::time::Duration;

use isolation::lease::Deadline;

/// The longest sleep between two looks at the file: as long as the usual grace of the servers, so
/// that a deadline which was brought forward is seen before anybody relies on it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One sandbox's view of the node's lease. All times are since boot.
pub(crate) struct Lease {
    path: Option<PathBuf>,
    /// As it was read last. A file that is away or damaged later changes nothing; one that was
    /// never read is a deadline that has passed.
    deadline: Duration,
    look_at: Duration,
}

impl Lease {
    /// Reads the file for the first time. Without a path there is no deadline.
    pub(crate) fn new(path: Option<PathBuf>, now: Duration) -> Lease {
        let deadline = if path.is_some() { Duration::ZERO } else { Duration::MAX };
        let mut lease = Lease {
            path,
            deadline,
            look_at: Duration::MAX,
        };
        lease.look(now);
        lease
    }

    /// When [`Lease::has_passed`] is to be asked again at the latest.
    pub(crate) fn wake_at(&self) -> Duration {
        self.look_at
    }

    /// Whether nothing may live any more. Reads the file if it is time to.
    pub(crate) fn has_passed(&mut self, now: Duration) -> bool {
        if now >= self.look_at {
            self.look(now);
        }
        now >= self.deadline
    }

    fn look(&mut self, now: Duration) {
        let Some(path) = &self.path else { return };
        match Deadline::read(path) {
            Ok(Some(read)) => self.deadline = Duration::from_millis(read.at_ms),
            Ok(None) => eprintln!("the lease {} is away: no extension", path.display()),
            Err(error) => eprintln!("{}: {error}: no extension", path.display()),
        }
        let soon = now.saturating_add(LOOK_EVERY);
        // Once it has passed there is no need to hurry: the killing is repeated by itself.
        self.look_at = if now < self.deadline {
            soon.min(self.deadline)
        } else {
            soon
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_the_file_says_and_what_follows_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lease");
        let say = |at_ms| Deadline { at_ms, lease_ms: 1 }.write(&path).unwrap();
        say(20_000);
        let mut lease = Lease::new(Some(path.clone()), at(1_000));
        // Looks: when, what is done to the file before, whether it has passed, the next look.
        let cases: [(u64, &dyn Fn(), bool, u64); 9] = [
            (2_000, &|| (), false, 6_000),
            (6_000, &|| (), false, 11_000),
            (7_000, &|| say(7_500), false, 11_000),
            (11_000, &|| say(12_000), false, 12_000),
            (12_000, &|| say(30_000), false, 17_000),
            (17_000, &|| std::fs::write(&path, "soon\n").unwrap(), false, 22_000),
            (22_000, &|| std::fs::remove_file(&path).unwrap(), false, 27_000),
            (27_000, &|| (), false, 30_000),
            (30_000, &|| (), true, 35_000),
        ];
        for (now, change, passed, next) in cases {
            change();
            assert_eq!(lease.has_passed(at(now)), passed, "at {now}");
            assert_eq!(lease.wake_at(), at(next), "at {now}");
        }
        say(40_000);
        assert!(
            !lease.has_passed(at(35_000)),
            "a deadline that was moved on late counts"
        );
    }

    #[test]
    fn a_lease_that_was_never_read_has_passed_and_none_at_all_never_does() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Lease::new(Some(folder.path().join("away")), at(5)).has_passed(at(5)));
        let mut none = Lease::new(None, at(5));
        assert!(!none.has_passed(at(u64::MAX)));
        assert_eq!(none.wake_at(), Duration::MAX);
    }
}
