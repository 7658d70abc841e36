//! `/blobs/…`: blobs that lie in this server's folder, read and stored by signed URL.
//!
//! The signature is the authority; no token is looked at. It fixes the name, and for storing the
//! length and the SHA-256 of the bytes, so that a step's machine gets no more than what it was
//! given. Where blobs lie in an object store, its own signed URLs lead there and this route answers 404.
//! Not here: what is signed (`store::signed`), who is handed a URL.

mod range;
#[cfg(test)]
mod tests;
mod transfer;

use crate::problem::{Answer, Problem};
use axum::Router;
use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use range::Part;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::blob::Broken;
use store::signed::{PATH, Right};
use store::{BlobError, BlobName, BlobStore, PutTerms};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most blobs on their way at once: each holds a file, a buffer and a connection.
const TRANSFERS_MAX: usize = 512;

/// How long nothing may move before a transfer is given up.
const STALL: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Blobs {
    blobs: Arc<dyn BlobStore>,
    room: Arc<Semaphore>,
}

/// The route, without any layer.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(blobs: Arc<dyn BlobStore>) -> Router<S> {
    let state = Blobs {
        blobs,
        room: Arc::new(Semaphore::new(TRANSFERS_MAX)),
    };
    Router::new()
        .route(&format!("{PATH}{{*name}}"), get(read).put(store_bytes))
        .with_state(state)
}

impl Blobs {
    /// The right that the request has, on which blob.
    fn authorise(&self, method: &Method, uri: &axum::http::Uri) -> Answer<(BlobName, Right)> {
        let Some(urls) = self.blobs.own_urls() else {
            let detail = "blobs lie in an object store; ask for a URL and use it as it is";
            return Err(Problem::not_found(detail));
        };
        // As it stands: no name of ours needs to be encoded.
        let name = uri.path().strip_prefix(PATH).unwrap_or_default();
        let name = BlobName::new(name).map_err(|e| Problem::bad_signature(e.to_string()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let right = urls
            .check(method.as_str(), &name, uri.query().unwrap_or_default(), now)
            .map_err(|refused| Problem::bad_signature(refused.to_string()))?;
        Ok((name, right))
    }

    fn admit(&self) -> Answer<OwnedSemaphorePermit> {
        let full = "this server has as many blobs on their way as it can bear; try again";
        let room = self.room.clone().try_acquire_owned();
        room.map_err(|_| Problem::unavailable(full))
    }
}

async fn read(
    State(state): State<Blobs>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Answer<Response> {
    let (name, _right) = state.authorise(&method, &uri)?;
    let permit = state.admit()?;
    let whole = state.blobs.get_stream(&name, 0).await.map_err(|e| problem(&e))?;
    let size = whole.size;
    // Blobs have no validator, so an answer to `If-Range` is always the whole.
    let conditional = headers.contains_key(header::IF_RANGE);
    let asked = headers.get(header::RANGE).filter(|_| !conditional);
    let part = range::part(asked.and_then(|v| v.to_str().ok()), size);
    let (status, bytes, reader) = match part {
        Part::Whole => (StatusCode::OK, 0..size, whole),
        Part::Bytes(bytes) => {
            let reader = state.blobs.get_stream(&name, bytes.start).await;
            (StatusCode::PARTIAL_CONTENT, bytes, reader.map_err(|e| problem(&e))?)
        }
        Part::Beyond => return Ok(beyond(size)),
    };
    if reader.size != size {
        return Err(Problem::unavailable("the blob was replaced this moment; try again"));
    }
    let length = bytes.end - bytes.start;
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        transfer::body(name.clone(), reader.bytes, length, permit)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    describe(headers, &name);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
        headers.extend(HeaderValue::from_str(&range).map(|range| (header::CONTENT_RANGE, range)));
    }
    Ok(response)
}

/// What a browser must know of bytes that a step has made: they are a file, and nothing to be shown.
fn describe(headers: &mut HeaderMap, name: &BlobName) {
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, octets);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let sandbox = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let file = name.as_str().rsplit('/').next().unwrap_or_default();
    // A part of a name has no quotes in it.
    let file = HeaderValue::from_str(&format!("attachment; filename=\"{file}\""));
    headers.extend(file.map(|file| (header::CONTENT_DISPOSITION, file)));
}

fn beyond(size: u64) -> Response {
    let detail = format!("the blob has {size} bytes, and none in this range");
    let mut response = Problem::from_status(StatusCode::RANGE_NOT_SATISFIABLE, detail).into_response();
    let range = HeaderValue::from_str(&format!("bytes */{size}"));
    let headers = response.headers_mut();
    headers.extend(range.map(|range| (header::CONTENT_RANGE, range)));
    response
}

async fn store_bytes(
    State(state): State<Blobs>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Answer<StatusCode> {
    let (parts, body) = request.into_parts();
    let admitted = state.authorise(&parts.method, &uri).and_then(|(name, right)| {
        let terms = announced(right, &parts.headers)?;
        Ok((name, terms, state.admit()?))
    });
    let (name, terms, _permit) = match admitted {
        Ok(admitted) => admitted,
        Err(problem) => {
            transfer::drain(body).await;
            return Err(problem);
        }
    };
    let bytes = transfer::reader(body);
    let stored = state.blobs.put_stream(&name, terms.length, Some(terms.sha256), bytes);
    match tokio::time::timeout(transfer::longest(terms.length), stored).await {
        Ok(Ok(_digest)) => {
            tracing::debug!(blob = name.as_str(), bytes = terms.length, "blob stored by signed url");
            Ok(StatusCode::OK)
        }
        Ok(Err(error)) => Err(problem(&error)),
        Err(_elapsed) => Err(too_slow()),
    }
}

/// The signed terms, if the head of the request keeps to them.
fn announced(right: Right, headers: &HeaderMap) -> Answer<PutTerms> {
    let Right::Put(terms) = right else {
        return Err(Problem::bad_signature("the URL was signed for reading"));
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    match length.and_then(|l| l.parse::<u64>().ok()) {
        Some(length) if length > terms.length => Err(too_large(terms.length)),
        Some(length) if length < terms.length => Err(Problem::bad_request(format!(
            "{length} bytes are announced, the URL was signed for {}",
            terms.length
        ))),
        // Without a length they are counted as they come.
        _ => Ok(terms),
    }
}

fn too_large(length: u64) -> Problem {
    Problem::too_large(usize::try_from(length).unwrap_or(usize::MAX))
}

fn too_slow() -> Problem {
    let detail = "the bytes did not come in time; nothing is stored, send them again";
    Problem::from_status(StatusCode::REQUEST_TIMEOUT, detail)
}

/// What the client hears; the store's own words may name paths.
fn problem(error: &BlobError) -> Problem {
    match error {
        BlobError::NotFound(_) => Problem::not_found("there is no such blob, or it is no longer kept"),
        BlobError::NotAsAnnounced {
            broken: Broken::TooLong(length),
            ..
        } => too_large(*length),
        BlobError::NotAsAnnounced { broken, .. } => Problem::bad_request(broken.to_string()),
        BlobError::Source { cause, .. } if cause.kind() == std::io::ErrorKind::TimedOut => too_slow(),
        BlobError::Source { .. } => Problem::bad_request("the body broke off; nothing is stored, send it again"),
        BlobError::IllegalName(_)
        | BlobError::Io { .. }
        | BlobError::TooMany(_)
        | BlobError::NotSigned { .. }
        | BlobError::Setting(_)
        | BlobError::Unusable(_) => {
            tracing::error!(%error, "blob store failed a request");
            Problem::unavailable("the blob store is not available at the moment; try again")
        }
    }
}
