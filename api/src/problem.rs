//! Every refusal as RFC 9457 `application/problem+json`: a stable word, a status, what to do.
//!
//! Not here: which request ids they carry; the outermost layer adds that (`rest::layers`).

use crate::dto::{Problem as ProblemBody, ProblemPlace};
use crate::intake::AcceptError;
use crate::limit::RETRY_AFTER_SECONDS;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use store::StoreError;

/// The media type of every error.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What every problem's `type` begins with.
pub const TYPE_PREFIX: &str = "urn:buildflow:problem:";

/// A refusal on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    word: &'static str,
    title: &'static str,
    detail: String,
    places: Vec<ProblemPlace>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

/// What a handler answers.
pub type Answer<T> = Result<T, Problem>;

impl Problem {
    fn new(status: StatusCode, word: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            word,
            title,
            detail: detail.into(),
            places: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// 400: something in the request is wrong; `detail` says what and how to mend it.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request is not valid",
            detail,
        )
    }

    /// 400 that names a field of the body or a parameter.
    #[must_use]
    pub fn bad_field(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::bad_request(format!("`{field}`: {message}")).at(ProblemPlace {
            field: Some(field.to_owned()),
            message,
            ..ProblemPlace::default()
        })
    }

    /// 401: no token, or one that is not known.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "A valid token is needed",
            detail,
        );
        problem.headers.push((
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"buildflow\""),
        ));
        problem
    }

    /// 403: the token is known and does not allow this.
    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "The token does not allow this",
            detail,
        );
        problem.headers.push((
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"buildflow\", error=\"insufficient_scope\""),
        ));
        problem
    }

    /// 403: a signed URL that gives no right, or none any more.
    #[must_use]
    pub fn bad_signature(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "bad-signature",
            "The signed URL does not allow this",
            detail,
        )
    }

    /// 404: there is no such thing, or the caller may not see it.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }

    /// 409: it contradicts what is there.
    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "It contradicts what is there", detail)
    }

    /// 413: the body passes its limit.
    #[must_use]
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The body is too large",
            format!("the body of this request may have {limit_bytes} bytes at most"),
        )
    }

    /// 415: the body is of a kind that is not read here.
    #[must_use]
    pub fn unsupported_media_type(found: &str, wanted: &str) -> Self {
        let shown: String = found.chars().take(80).collect();
        let found = if shown.is_empty() {
            "there is no content-type".to_owned()
        } else {
            format!("content-type is `{shown}`")
        };
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is of another kind than is read here",
            format!("{found}; send `content-type: {wanted}`"),
        )
    }

    /// 412: a condition of the request's head does not hold.
    #[must_use]
    pub fn precondition_failed(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "It is not as the request expects",
            detail,
        )
    }

    /// 415: the body is compressed, or encoded otherwise.
    #[must_use]
    pub fn encoded_body(found: &str) -> Self {
        let shown: String = found.chars().take(80).collect();
        let mut problem = Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "The body is of another kind than is read here",
            format!("content-encoding is `{shown}`; send the body as it is, without `content-encoding`"),
        );
        problem
            .headers
            .push((header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        problem
    }

    /// 429 with `Retry-After`: the caller asks for more than its share.
    #[must_use]
    pub fn too_many_requests(rule: impl std::fmt::Display, wait: std::time::Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let seconds = seconds.max(1);
        let mut problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-requests",
            "The token asks for more than its share",
            format!("{rule}; ask again in {seconds} s"),
        );
        problem.headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        problem
    }

    /// 500: a fault of ours. The cause is for our log, not for the client.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The server failed",
            "this is a fault of the server; its log has the cause under this request id",
        )
    }

    /// 501: part of the contract, not built yet.
    #[must_use]
    pub fn not_supported_yet(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "not-supported-yet",
            "This is not supported yet",
            format!("{what} is not supported yet by this release"),
        )
    }

    /// 503 with `Retry-After`: the same request may succeed later.
    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "The server cannot do this at the moment",
            detail,
        );
        problem
            .headers
            .push((header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS)));
        problem
    }

    /// 503: the live store has had no answer for so long; nothing can be written.
    #[must_use]
    pub fn no_quorum(silent: std::time::Duration) -> Self {
        Self::unavailable(format!(
            "the live store has not answered for {} s (it may have lost its quorum), so nothing can be changed; reads, \
             streams and running steps go on. Whether this request was taken over is not known: send it again \
             with the same Idempotency-Key",
            silent.as_secs()
        ))
    }

    /// The problem for a bare status of the web framework, e.g. 405.
    #[must_use]
    pub fn from_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let (word, title) = match status {
            StatusCode::METHOD_NOT_ALLOWED => ("method-not-allowed", "This method is not allowed here"),
            StatusCode::NOT_FOUND => ("not-found", "There is no such thing"),
            StatusCode::GONE => ("gone", "It is not there any more"),
            StatusCode::RANGE_NOT_SATISFIABLE => ("range-not-satisfiable", "There is nothing in this range"),
            s if s.is_server_error() => ("internal", "The server failed"),
            _ => ("bad-request", "The request is not valid"),
        };
        Self::new(status, word, title, detail)
    }

    /// Adds a faulty part of the request.
    #[must_use]
    pub fn at(mut self, place: ProblemPlace) -> Self {
        self.places.push(place);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What was wrong, for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The stable word at the end of its `type`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.word
    }

    /// The faulty parts of the request.
    #[must_use]
    pub fn places(&self) -> &[ProblemPlace] {
        &self.places
    }

    /// After how long the same request may succeed, seconds.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let (_, value) = self.headers.iter().find(|(name, _)| name == header::RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok()
    }

    /// The JSON form for a request with this path and id.
    #[must_use]
    pub fn body(&self, instance: Option<&str>, request_id: Option<&str>) -> ProblemBody {
        ProblemBody {
            kind: format!("{TYPE_PREFIX}{}", self.word),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: Some(self.detail.clone()),
            instance: instance.map(str::to_owned),
            request_id: request_id.map(str::to_owned),
            errors: self.places.clone(),
        }
    }

    /// The answer for a request with this path and id.
    #[must_use]
    pub fn response(self, instance: Option<&str>, request_id: Option<&str>) -> Response {
        let body = serde_json::to_vec(&self.body(instance, request_id)).expect("strings and numbers always encode");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl IntoResponse for Problem {
    /// Leaves itself in the response's extensions, so that the outermost layer can add the path
    /// and the request id.
    fn into_response(self) -> Response {
        let mut response = self.clone().response(None, None);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<StoreError> for Problem {
    /// The store's own words stay in our log: they may name paths and hosts.
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(_) => {
                tracing::warn!(%error, "store not available for a request");
                Self::unavailable("the store is not available at the moment; nothing is lost, try again")
            }
            StoreError::Full(_) => {
                tracing::error!(%error, "store has no room for a request");
                Self::unavailable(
                    "the store has no room left and takes no writes; what runs goes on and nothing is lost; \
                     tell the operator, `/readyz` says more, and try again",
                )
            }
            StoreError::Illegal(_) | StoreError::NoLease(_) | StoreError::Failed(_) => {
                tracing::error!(%error, "store failed a request");
                Self::internal()
            }
        }
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::KeyReused => Self::conflict(error.to_string()),
            AcceptError::Full => Self::unavailable(error.to_string()),
            AcceptError::Store(error) => error.into(),
        }
    }
}
