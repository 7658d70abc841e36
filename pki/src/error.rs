//! Why a certificate, a key or a connection is refused: in words that say what to mend.

use crate::moment::rfc3339;
use crate::names::Role;

/// One refusal. Times are the wall clock of this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Which one.
        path: String,
        /// What the system, or the content, says.
        cause: String,
    },
    /// Text or bytes are not what they should be.
    #[error("{what}: {cause}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate of {subject}; both must come from the same renewal")]
    KeyMismatch {
        /// Whose certificate.
        subject: String,
    },
    /// Nothing was shown.
    #[error("no certificate was shown; a {needed} shows the one that it was given when it joined")]
    Missing {
        /// What is needed.
        needed: Role,
    },
    /// A certificate of something else.
    #[error("the certificate of {subject} was not made by a BuildFlow authority")]
    NotOurs {
        /// As the certificate calls itself.
        subject: String,
    },
    /// A member of another cluster.
    #[error(
        "{subject} belongs to the cluster {theirs}, this is the cluster {ours}; check the address and the authority file"
    )]
    WrongCluster {
        /// Who.
        subject: String,
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// The right cluster by name, but an authority that is not believed.
    #[error(
        "the certificate of {subject} is signed by an authority that is not trusted here; \
         if the authority was rotated, hand on the new authority file"
    )]
    WrongAuthority {
        /// Who.
        subject: String,
    },
    /// Another kind of member than is needed.
    #[error("{subject} shows the certificate of a {found}, a {needed} is needed here")]
    WrongRole {
        /// Who.
        subject: String,
        /// What it is.
        found: Role,
        /// What it should be.
        needed: Role,
    },
    /// It has ended.
    #[error(
        "the certificate of {subject} ended at {}, the clock of this machine says {}; renew it, or mend the clock",
        rfc3339(*not_after_s), rfc3339(*now_s)
    )]
    Expired {
        /// Who.
        subject: String,
        /// Its end, seconds of the Unix epoch.
        not_after_s: u64,
        /// What the clock says, seconds of the Unix epoch.
        now_s: u64,
    },
    /// It has not begun.
    #[error(
        "the certificate of {subject} begins at {}, the clock of this machine says {}; one of the two clocks is wrong",
        rfc3339(*not_before_s), rfc3339(*now_s)
    )]
    NotYetValid {
        /// Who.
        subject: String,
        /// Its begin, seconds of the Unix epoch.
        not_before_s: u64,
        /// What the clock says, seconds of the Unix epoch.
        now_s: u64,
    },
    /// A server that is reached under a name that is not in its certificate.
    #[error(
        "{subject} was reached as {reached}, its certificate is for {names}; use one of these, or have it made anew"
    )]
    WrongName {
        /// Who.
        subject: String,
        /// The name in the address.
        reached: String,
        /// Those of the certificate.
        names: String,
    },
    /// The authority of a join token is not the one that the server shows.
    #[error(
        "the server shows no authority with the fingerprint {pin} of the join token: \
         it belongs to another cluster, or somebody stands in between"
    )]
    WrongPin {
        /// What the token says.
        pin: String,
    },
    /// The library that makes certificates refused.
    #[error("cannot make {what}: {cause}")]
    Making {
        /// What.
        what: &'static str,
        /// Why.
        cause: String,
    },
}

impl PkiError {
    pub(crate) fn malformed(what: &'static str, cause: impl std::fmt::Display) -> Self {
        Self::Malformed {
            what,
            cause: cause.to_string(),
        }
    }

    pub(crate) fn making(what: &'static str) -> impl FnOnce(rcgen::Error) -> Self {
        move |cause| Self::Making {
            what,
            cause: cause.to_string(),
        }
    }
}
