//! How much room an engine has left, and what is to be done when there is little.
//!
//! Not here: finding it out (each engine), telling it (the API's metrics and `/readyz`, `admin check`).

/// From this share of its quota on an engine's file is warned of, percent: with a quarter left there
/// is time to act before writes are refused.
pub const ROOM_WARNING_PERCENT: u64 = 75;

/// What an engine says of its room. The default: one that has no limit of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// The size of its file, bytes; of several copies the largest. This is what counts against the quota.
    pub file_bytes: u64,
    /// How much of that holds something, bytes; the rest is used again, or given back on request.
    pub used_bytes: u64,
    /// Where it stops to take writes, bytes; `None`: it has no such limit.
    pub quota_bytes: Option<u64>,
    /// Why it takes no writes now, in its own words; empty while it does.
    pub refuses: Vec<String>,
}

impl Room {
    /// How much of the quota the file takes, percent, rounded down.
    #[must_use]
    pub fn percent(&self) -> Option<u64> {
        let quota = self.quota_bytes.filter(|q| *q > 0)?;
        let percent = u128::from(self.file_bytes) * 100 / u128::from(quota);
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }

    /// True when there is little room left, or none.
    #[must_use]
    pub fn is_tight(&self) -> bool {
        !self.refuses.is_empty() || self.percent().is_some_and(|p| p >= ROOM_WARNING_PERCENT)
    }

    /// One sentence of what is so; `None` while there is room.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        if !self.is_tight() {
            return None;
        }
        let quota = self.quota_bytes.unwrap_or_default() >> 20;
        let sizes = format!(
            "its file has {} MiB of a quota of {quota} MiB, {} MiB are in use",
            self.file_bytes >> 20,
            self.used_bytes >> 20
        );
        Some(if self.refuses.is_empty() {
            sizes
        } else {
            format!("it takes no writes ({}): {sizes}", self.refuses.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_told_in_time() {
        let room = |file_mib: u64, quota_mib: Option<u64>, refuses: &[&str]| Room {
            file_bytes: file_mib << 20,
            used_bytes: 5 << 20,
            quota_bytes: quota_mib.map(|m| m << 20),
            refuses: refuses.iter().map(|&r| r.to_owned()).collect(),
        };
        for (of, said) in [
            (Room::default(), None),
            (room(1_000, None, &[]), None),
            (room(74, Some(100), &[]), None),
            (
                room(75, Some(100), &[]),
                Some("its file has 75 MiB of a quota of 100 MiB, 5 MiB are in use"),
            ),
            (
                room(10, Some(100), &["NOSPACE on member 1"]),
                Some(
                    "it takes no writes (NOSPACE on member 1): its file has 10 MiB of a quota of 100 MiB, 5 MiB are in use",
                ),
            ),
            (room(1, Some(0), &[]), None),
        ] {
            assert_eq!(of.complaint().as_deref(), said);
        }
    }
}
