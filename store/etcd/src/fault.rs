//! What an error of etcd or of the way to it means: may the call have been applied, and what mends it.
//!
//! etcd's own errors are told apart by their text, as its Go client does: several share one code.
//! Not here: what is done about it (`members`).

use crate::config::joined;
use etcd_client::Error;
use store::StoreError;
use tonic::Code;

/// One failed call on one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// etcd's words.
    pub(crate) text: String,
}

/// What can be done about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It did not reach a member, or none that could do anything with it: nothing was applied.
    NotTaken,
    /// It may have been applied, or will be.
    Unknown,
    /// It names a lease that is not there; nothing was applied.
    NoLease,
    /// It names a revision that is forgotten.
    Compacted,
    /// It names a revision that is not there yet.
    Future,
    /// The answer is larger than what is taken; of a read, so that nothing was applied.
    TooLarge,
    /// The user may not ask for this. Nothing was applied.
    Denied,
    /// Its quota is used up. The write that reached it may have been applied, but nothing will be.
    Full,
    /// No repetition helps; the text says what does. Nothing was applied.
    Refused,
}

/// etcd's words, what they mean, and what to do about it.
const WORDS: &[(&str, Kind, &str)] = &[
    ("etcdserver: no leader", Kind::NotTaken, ""),
    ("etcdserver: too many requests", Kind::NotTaken, ""),
    ("etcdserver: not capable", Kind::NotTaken, ""),
    ("etcdserver: invalid auth token", Kind::NotTaken, ""),
    ("etcdserver: revision of auth store is old", Kind::NotTaken, ""),
    ("auth: revision in header is old", Kind::NotTaken, ""),
    ("requested lease not found", Kind::NoLease, ""),
    ("required revision has been compacted", Kind::Compacted, ""),
    ("required revision is a future revision", Kind::Future, ""),
    ("decoded message length too large", Kind::TooLarge, ""),
    (
        "database space exceeded",
        Kind::Full,
        "; compact and defragment it, raise its --quota-backend-bytes, then `etcdctl alarm disarm`",
    ),
    (
        "etcdserver: corrupt cluster",
        Kind::Refused,
        "; its members disagree: follow etcd's recovery guide",
    ),
    (
        "too many operations in txn request",
        Kind::Refused,
        "; its --max-txn-ops must be 128 (the default) or more",
    ),
    (
        "request is too large",
        Kind::Refused,
        "; its --max-request-bytes must be 1572864 (the default) or more",
    ),
    (
        "permission denied",
        Kind::Denied,
        "; grant its user a role that reads and writes the prefix",
    ),
    (
        "authentication failed",
        Kind::Refused,
        "; check the user and the password",
    ),
    (
        "user name is empty",
        Kind::Refused,
        "; it demands a user and a password",
    ),
    (
        "authentication is not enabled",
        Kind::Refused,
        "; take the user out of the configuration, or enable it in etcd",
    ),
    ("duplicate key given", Kind::Refused, ""),
];

impl Fault {
    /// Nothing came back in time.
    pub(crate) fn silence(sent: bool) -> Self {
        let kind = if sent { Kind::Unknown } else { Kind::NotTaken };
        Self {
            kind,
            text: "no answer in time".to_owned(),
        }
    }

    /// An answer that etcd does not give: what it did is not known.
    pub(crate) fn nonsense(what: &str) -> Self {
        Self {
            kind: Kind::Unknown,
            text: format!("an answer without {what}"),
        }
    }

    /// What the caller is told when no repetition is left.
    pub(crate) fn told(self, endpoint: &str) -> StoreError {
        let text = format!("etcd at {endpoint}: {}", self.text);
        match self.kind {
            Kind::NotTaken | Kind::Unknown => StoreError::Unavailable(text),
            Kind::Full => StoreError::Full(text),
            Kind::NoLease | Kind::Compacted | Kind::Future | Kind::TooLarge | Kind::Denied | Kind::Refused => {
                StoreError::Failed(text)
            }
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match &error {
            Error::GRpcStatus(status) => of_status(status),
            // Said by the client when a renewed lease has no time left; it has no other word for it.
            Error::LeaseKeepAliveError(text) if text == "lease not found" => Self {
                kind: Kind::NoLease,
                text: text.clone(),
            },
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => Self {
                kind: Kind::Refused,
                text: error.to_string(),
            },
            _ => Self {
                kind: Kind::Unknown,
                text: error.to_string(),
            },
        }
    }
}

fn of_status(status: &tonic::Status) -> Fault {
    let message = status.message();
    if let Some((_, kind, mend)) = WORDS.iter().find(|(words, _, _)| message.contains(words)) {
        let text = format!("{message}{mend}");
        return Fault { kind: *kind, text };
    }
    let text = if message.is_empty() {
        format!("{:?}", status.code())
    } else {
        message.to_owned()
    };
    let mut text = text;
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        text = joined(text, &cause.to_string());
        next = cause.source();
    }
    let kind = match status.code() {
        _ if was_not_sent(status) => Kind::NotTaken,
        Code::PermissionDenied | Code::Unimplemented => Kind::Refused,
        _ => Kind::Unknown,
    };
    Fault { kind, text }
}

/// True when no connection was there to send the call over.
fn was_not_sent(status: &tonic::Status) -> bool {
    let mut next = std::error::Error::source(status);
    while let Some(cause) = next {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(code: Code, message: &str) -> Kind {
        Fault::from(Error::GRpcStatus(tonic::Status::new(code, message))).kind
    }

    #[test]
    fn what_may_have_been_applied_is_never_repeated() {
        let unknown = [
            (Code::Unavailable, "etcdserver: request timed out"),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "error reading a body from connection"),
            (Code::Unknown, "transport error"),
            (Code::Internal, "anything"),
            (Code::Cancelled, "operation was canceled"),
            (Code::DeadlineExceeded, ""),
        ];
        for (code, message) in unknown {
            assert_eq!(kind_of(code, message), Kind::Unknown, "{code:?} {message}");
        }
    }

    #[test]
    fn etcds_own_words_are_known() {
        let cases = [
            (Code::Unavailable, "etcdserver: no leader", Kind::NotTaken),
            (Code::ResourceExhausted, "etcdserver: too many requests", Kind::NotTaken),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Kind::Full,
            ),
            (Code::NotFound, "etcdserver: requested lease not found", Kind::NoLease),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                Kind::Compacted,
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes",
                Kind::TooLarge,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", Kind::Refused),
            (Code::PermissionDenied, "etcdserver: permission denied", Kind::Denied),
            (Code::Unimplemented, "unknown service etcdserverpb.KV", Kind::Refused),
        ];
        for (code, message, kind) in cases {
            assert_eq!(kind_of(code, message), kind, "{message}");
        }
    }
}
