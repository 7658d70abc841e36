//! The SDK's errors in our words: where, what, how to mend it.
//!
//! Not here: retries; the SDK has made its own by then.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use std::io::{self, ErrorKind};
use store::BlobError;

/// The SDK's form of an HTTP answer.
type Response = aws_sdk_s3::config::http::HttpResponse;

/// The most of an error's text that is passed on, bytes: object stores answer with pages.
const TEXT_MAX: usize = 600;

/// Where the blobs are, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
}

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    kind: ErrorKind,
    missing: bool,
    /// It showed in an answer's body, which the SDK does not look at.
    in_body: bool,
    pub(crate) text: String,
}

impl Fault {
    /// Whether the object is not there.
    pub(crate) fn is_missing(&self) -> bool {
        self.missing
    }

    /// Whether nothing lies in the range that was asked for.
    pub(crate) fn is_beyond(&self) -> bool {
        self.kind == ErrorKind::InvalidInput
    }

    /// Whether the object is another one than before.
    pub(crate) fn is_replaced(&self) -> bool {
        self.kind == ErrorKind::StaleNetworkFileHandle
    }

    /// Whether a body ended early or did not come in time; asking again may help.
    pub(crate) fn is_cut(&self) -> bool {
        self.in_body && matches!(self.kind, ErrorKind::UnexpectedEof | ErrorKind::TimedOut)
    }

    /// Whether other bytes came than were stored.
    pub(crate) fn is_damaged(&self) -> bool {
        self.in_body && self.kind == ErrorKind::InvalidData
    }

    /// As the error of one blob.
    pub(crate) fn of(self, name: &str) -> BlobError {
        if self.missing {
            return BlobError::NotFound(name.to_owned());
        }
        BlobError::Io {
            name: name.to_owned(),
            cause: io::Error::new(self.kind, self.text),
        }
    }
}

impl Place {
    pub(crate) fn fault<E>(&self, what: &str, error: &SdkError<E, Response>) -> Fault
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or_default();
        let (kind, mend) = meaning(error, status, code);
        let said = match (error, status) {
            (SdkError::ServiceError(_), Some(status)) => {
                let message = error.message().unwrap_or("no message");
                format!("status {status} {code} ({message})").replace("  ", " ")
            }
            _ => chain(error),
        };
        let said: String = said.chars().take(TEXT_MAX).collect();
        let Self { endpoint, bucket } = self;
        Fault {
            kind,
            in_body: false,
            missing: status == Some(404) && code != "NoSuchBucket" && code != "NoSuchUpload",
            text: format!("{what}: bucket `{bucket}` at {endpoint}: {said}; {mend}"),
        }
    }

    /// An answer that came and must not be believed.
    pub(crate) fn broken(&self, kind: ErrorKind, what: &str) -> Fault {
        let Self { endpoint, bucket } = self;
        Fault {
            kind,
            missing: false,
            in_body: true,
            text: format!("bucket `{bucket}` at {endpoint}: {what}"),
        }
    }
}

/// The kind, and what to do.
fn meaning<E: Error + 'static>(
    error: &SdkError<E, Response>,
    status: Option<u16>,
    code: &str,
) -> (ErrorKind, &'static str) {
    match error {
        SdkError::TimeoutError(_) => return (ErrorKind::TimedOut, SLOW),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => return (ErrorKind::TimedOut, SLOW),
        SdkError::DispatchFailure(_) if chain(error).contains("certificate") => {
            let advice = "name the authority of the object store's certificate (`ca`)";
            return (ErrorKind::NotConnected, advice);
        }
        SdkError::DispatchFailure(_) => {
            let advice = "check that the object store runs and that `endpoint` is its address";
            return (ErrorKind::NotConnected, advice);
        }
        SdkError::ConstructionFailure(_) => return (ErrorKind::Other, "check the settings of the object store"),
        _ => {}
    }
    match (status, code) {
        (_, "RequestTimeTooSkewed") => (ErrorKind::PermissionDenied, "set this machine's clock"),
        (_, "NoSuchBucket") => (ErrorKind::Other, "make the bucket, or mend `bucket`"),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect") | (Some(301 | 307), _) => {
            (ErrorKind::Other, "mend `region` or `endpoint`: the bucket is elsewhere")
        }
        (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "AccessDenied" | "NotSignedUp") | (Some(401 | 403), _) => {
            (
                ErrorKind::PermissionDenied,
                "check the access key, its secret and its rights on the bucket",
            )
        }
        // Of an object it says so differently; see `missing`.
        (Some(404), _) => (ErrorKind::NotFound, "check `bucket` and `prefix`"),
        (Some(412), _) => (ErrorKind::StaleNetworkFileHandle, "read it again"),
        (Some(416), _) => (ErrorKind::InvalidInput, "nothing is there"),
        (Some(429 | 503), _) | (_, "SlowDown") => (
            ErrorKind::ResourceBusy,
            "the object store is overloaded; it is tried again later",
        ),
        (Some(507), _) => (ErrorKind::StorageFull, "make room in the object store"),
        (Some(500..), _) => (ErrorKind::Other, "the object store failed; see its log"),
        _ => (ErrorKind::Other, "see the object store's log"),
    }
}

const SLOW: &str = "no answer in time; check that the object store is reached at `endpoint` and is not overloaded";

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
