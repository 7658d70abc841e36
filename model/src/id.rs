//! Typed identifiers. Each is checked once, where it enters, and then trusted.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name of a team, pipeline, stage or step: it fits a DNS label, so a step's name can
/// be a host name and a part of a file name without escaping.
pub const NAME_MAX: usize = 63;

/// The longest generated id that is accepted from outside (ours are 26 characters).
pub const ID_MAX: usize = 40;

/// Why a text is not a legal id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name does not match `[a-z0-9][a-z0-9._-]{0,62}`.
    #[error("`{0}` is not a legal name: it must match [a-z0-9][a-z0-9._-]{{0,62}}")]
    Name(String),
    /// A generated id holds other characters than letters and digits, or is too long.
    #[error("`{0}` is not a legal id: 1 to {ID_MAX} letters, digits and hyphens")]
    Generated(String),
}

/// Checks a user-given name against `[a-z0-9][a-z0-9._-]{0,62}`.
///
/// # Errors
/// [`IdError::Name`] with the first 80 characters of what was given.
pub fn check_name(text: &str) -> Result<(), IdError> {
    let mut chars = text.chars();
    let head_ok = chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let tail_ok = chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c));
    if head_ok && tail_ok && text.len() <= NAME_MAX {
        Ok(())
    } else {
        Err(IdError::Name(text.chars().take(80).collect()))
    }
}

/// The longest part of a step's name in parentheses: which cell of its matrix it is.
pub const CELL_MAX: usize = 64;

/// Checks the name of a step: a user-given name, or that of a cell of a matrix, `unit(1.95,linux)`.
///
/// # Errors
/// [`IdError::Name`] as for [`check_name`].
pub fn check_step_name(text: &str) -> Result<(), IdError> {
    let Some((base, cell)) = text.strip_suffix(')').and_then(|rest| rest.split_once('(')) else {
        return check_name(text);
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+,-".contains(c);
    if cell.is_empty() || cell.len() > CELL_MAX || !cell.chars().all(plain) {
        return Err(IdError::Name(text.chars().take(80).collect()));
    }
    check_name(base)
}

fn check_generated(text: &str) -> Result<(), IdError> {
    let legal = !text.is_empty() && text.len() <= ID_MAX && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if legal {
        Ok(())
    } else {
        Err(IdError::Generated(text.chars().take(80).collect()))
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and wraps it.
            ///
            /// # Errors
            /// [`IdError`] when the text is not legal for this kind of id.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                $check(&text)?;
                Ok(Self(text))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }
    };
}

text_id!(
    /// One execution of a pipeline: a ULID in lower case, so that ids sort by time of creation.
    RunId, check_generated
);
text_id!(
    /// An attempt bound to a node. Made by the leader: `<run>-<step ordinal>-<fence counter>`.
    AllocId, check_generated
);
text_id!(
    /// A node agent, stable across its restarts: made when the agent first starts and kept in its data folder.
    NodeId, check_generated
);
text_id!(
    /// A tenant.
    TeamName, check_name
);
text_id!(
    /// A pipeline within its team.
    PipelineName, check_name
);
text_id!(
    /// A step within its run; with other letters than those of host names replaced also the host
    /// name inside the step's container.
    StepName, check_step_name
);

impl StepName {
    /// The name as it stands in the file: without the cell of a matrix.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0.split_once('(').map_or(&*self.0, |(base, _)| base)
    }
}

impl AllocId {
    /// The allocation of the step with ordinal `step` of `run` under `fence`. Unique because a
    /// fence never repeats for a step.
    ///
    /// # Panics
    /// Never for a legal `RunId`: 26 + 2 × 6 characters at most under [`ID_MAX`] for steps up to 1,000.
    #[must_use]
    pub fn for_step(run: &RunId, step: usize, fence: Fence) -> Self {
        Self(format!("{run}-{step}-{}-{}", fence.epoch, fence.counter))
    }

    /// The run, the step's ordinal and the fence that [`AllocId::for_step`] was given; `None` for
    /// an id that it did not make.
    #[must_use]
    pub fn parts(&self) -> Option<(RunId, usize, Fence)> {
        let mut from_end = self.0.rsplitn(4, '-');
        let counter = from_end.next()?.parse().ok()?;
        let epoch = from_end.next()?.parse().ok()?;
        let step = from_end.next()?.parse().ok()?;
        let run = RunId::new(from_end.next()?).ok()?;
        Some((run, step, Fence { epoch, counter }))
    }
}

/// The number every write of an attempt carries, so that writes of an earlier one are refused.
/// Ordered: a later attempt's fence is greater. The epoch grows when the cluster is restored from
/// a backup, so that a pair never repeats although counters may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Fence {
    /// The cluster's epoch when the attempt was placed.
    pub epoch: u32,
    /// The ordinal of this allocation of the step, from 1.
    pub counter: u32,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_contract() {
        let longest = "a".repeat(NAME_MAX);
        for legal in ["a", "0", "unit", "unit-1.94_x", longest.as_str()] {
            assert_eq!(check_name(legal), Ok(()), "{legal}");
        }
        let too_long = "a".repeat(NAME_MAX + 1);
        for illegal in ["", "-a", ".a", "A", "a b", "ü", "a/b", "a\0", too_long.as_str()] {
            assert!(check_name(illegal).is_err(), "{illegal}");
        }
    }

    #[test]
    fn the_cell_of_a_matrix_is_part_of_a_step_s_name() {
        for (legal, base) in [("unit", "unit"), ("unit(1.94)", "unit"), ("a(x,Y_2+z)", "a")] {
            assert_eq!(
                StepName::new(legal).map(|name| name.base().to_owned()),
                Ok(base.to_owned())
            );
        }
        let long = format!("a({})", "x".repeat(CELL_MAX + 1));
        for illegal in [
            "a()",
            "a(b",
            "a)",
            "(b)",
            "a(b)(c)",
            "a(b/c)",
            "a(b c)",
            "A(b)",
            long.as_str(),
        ] {
            assert!(StepName::new(illegal).is_err(), "{illegal}");
        }
    }

    #[test]
    fn an_illegal_id_is_refused_when_a_record_is_read() {
        assert!(serde_json::from_str::<RunId>("\"../x\"").is_err());
        assert!(serde_json::from_str::<RunId>("\"01jd\"").is_ok());
    }

    #[test]
    fn a_later_epoch_beats_any_counter() {
        assert!(Fence { epoch: 2, counter: 1 } > Fence { epoch: 1, counter: 900 });
    }

    #[test]
    fn the_longest_allocation_id_is_legal() {
        let run = RunId::new("01jdzzzzzzzzzzzzzzzzzzzzzz").expect("a ULID");
        let fence = Fence {
            epoch: 99,
            counter: 999,
        };
        let id = AllocId::for_step(&run, 999, fence);
        assert_eq!(AllocId::new(id.as_str()), Ok(id.clone()));
        assert_eq!(id.parts(), Some((run, 999, fence)));
    }
}
