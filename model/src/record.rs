//! How a value is written: JSON that begins with its kind and version and keeps what it does not know.
//!
//! While a cluster is upgraded, servers of two releases write the same records. A reader therefore
//! keeps fields that it does not know ([`Unknown`]) and writes them back; it refuses a record of
//! another kind, or of a version newer than it can understand.

use crate::envelope::{Body, Head, Seen};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Fields of a newer release, kept as they were read.
pub type Unknown = Map<String, Value>;

/// A value of the live store.
pub trait Record: Serialize + DeserializeOwned {
    /// The word that stands in `kind`.
    const KIND: &'static str;
    /// The newest version this release writes and reads. It grows only when an older reader would
    /// misunderstand a value; an added optional field does not grow it.
    const VERSION: u16;
}

/// Why a stored value could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("a `{kind}` record does not decode: {cause}")]
    Malformed {
        /// The kind that was expected.
        kind: &'static str,
        /// What the JSON reader said.
        cause: serde_json::Error,
    },
    /// The value under this key is of another kind.
    #[error("expected a `{expected}` record, found `{found}`")]
    WrongKind {
        /// The kind that was expected.
        expected: &'static str,
        /// The kind that stands in the value.
        found: String,
    },
    /// Written by a newer release in a form this one does not know.
    #[error("a `{kind}` record has version {found}; this release reads up to {newest}: upgrade this server")]
    TooNew {
        /// The kind of the record.
        kind: &'static str,
        /// The version that stands in the value.
        found: u16,
        /// The newest version this release reads.
        newest: u16,
    },
}

#[derive(Serialize)]
struct EnvelopeOut<'a, R> {
    kind: &'static str,
    v: u16,
    #[serde(flatten)]
    body: &'a R,
}

/// The bytes that are stored for `record`.
///
/// # Panics
/// Never: the records of this crate have string keys and finite numbers only, which always encode.
#[must_use]
pub fn encode<R: Record>(record: &R) -> Vec<u8> {
    let envelope = EnvelopeOut {
        kind: R::KIND,
        v: R::VERSION,
        body: record,
    };
    serde_json::to_vec(&envelope).expect("a record has string keys and finite numbers only")
}

/// Reads what [`encode`] wrote, in this release or another one.
///
/// # Errors
/// [`RecordError`] when the bytes are not a record of this kind that this release understands.
pub fn decode<R: Record>(bytes: &[u8]) -> Result<R, RecordError> {
    let mut seen = Seen::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body = R::deserialize(Body {
        inner: &mut json,
        kind: R::KIND,
        seen: &mut seen,
    });
    match body.and_then(|record| json.end().map(|()| record)) {
        Ok(record) if seen.expected_kind && seen.version.is_some_and(|v| v <= R::VERSION) => Ok(record),
        Ok(_) => Err(refusal::<R>(bytes, None)),
        Err(cause) => Err(refusal::<R>(bytes, Some(cause))),
    }
}

/// What is wrong with bytes that are not a record of this kind: its head says more than its body.
fn refusal<R: Record>(bytes: &[u8], cause: Option<serde_json::Error>) -> RecordError {
    let malformed = |cause| RecordError::Malformed { kind: R::KIND, cause };
    let head: Head = match serde_json::from_slice(bytes) {
        Ok(head) => head,
        Err(cause) => return malformed(cause),
    };
    if head.kind != R::KIND {
        return RecordError::WrongKind {
            expected: R::KIND,
            found: head.kind,
        };
    }
    if head.v > R::VERSION {
        return RecordError::TooNew {
            kind: R::KIND,
            found: head.v,
            newest: R::VERSION,
        };
    }
    malformed(cause.unwrap_or_else(|| serde::de::Error::custom("its head is not whole")))
}
