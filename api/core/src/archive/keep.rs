//! How long finished runs and their logs are kept.
//!
//! Everything is counted from a run's trigger. Not here: removing anything.

use std::collections::BTreeSet;

/// A day, milliseconds.
const DAY_MS: u64 = 86_400_000;

/// How long what is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// A run and everything of it, ms.
    pub runs_ms: u64,
    /// Logs of runs of `branches`, and of whatever is no branch, e.g. tags; ms.
    pub logs_ms: u64,
    /// Logs of all other runs, ms.
    pub branch_logs_ms: u64,
    /// Branches whose logs are kept for long.
    pub branches: BTreeSet<String>,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            runs_ms: 400 * DAY_MS,
            logs_ms: 90 * DAY_MS,
            branch_logs_ms: 30 * DAY_MS,
            branches: ["main", "master"].map(str::to_owned).into(),
        }
    }
}

impl Keep {
    /// True if the logs of this branch's runs are kept for long; `None`: no branch.
    #[must_use]
    pub fn is_main(&self, branch: Option<&str>) -> bool {
        branch.is_none_or(|branch| self.branches.contains(branch))
    }

    /// How long logs of this branch's runs are kept, ms; never longer than the run itself.
    #[must_use]
    pub fn logs_of_ms(&self, branch: Option<&str>) -> u64 {
        let logs_ms = if self.is_main(branch) {
            self.logs_ms
        } else {
            self.branch_logs_ms
        };
        logs_ms.min(self.runs_ms)
    }

    /// True once the logs of a run may have been removed.
    #[must_use]
    pub fn logs_are_over(&self, branch: Option<&str>, created_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(created_ms) >= self.logs_of_ms(branch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_merged_is_kept_for_longer() {
        let keep = Keep::default();
        for (branch, days) in [
            (Some("main"), 90),
            (Some("master"), 90),
            (None, 90),
            (Some("topic"), 30),
        ] {
            assert_eq!(keep.logs_of_ms(branch), days * DAY_MS, "{branch:?}");
            let created_ms = 1_000;
            let end = created_ms + days * DAY_MS;
            assert!(!keep.logs_are_over(branch, created_ms, end - 1) && keep.logs_are_over(branch, created_ms, end));
        }
        let short = Keep {
            runs_ms: DAY_MS,
            ..Keep::default()
        };
        assert_eq!(short.logs_of_ms(Some("main")), DAY_MS);
    }
}
