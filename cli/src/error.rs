//! Why a role could not start or go on, and the exit code that says so.

/// One plain sentence for the person at the terminal; the documented exit code with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Wrong arguments or configuration: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The machine or the data folder does not allow it, or a role failed: exit code 5.
    #[error("{0}")]
    Internal(String),
    /// Root is missing: exit code 6.
    #[error("{0}")]
    NotAllowed(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Internal(_) => 5,
            Self::NotAllowed(_) => 6,
        }
    }
}
