//! Conditions of a request's head: what the caller has already (`If-None-Match`), and what it believes
//! to be there when it writes (`If-Match`).
//!
//! An answer of JSON is tagged with a hash of its bytes, so that any of them can be asked for again for
//! nothing. What can be written under a condition has a tag in two parts, `"<state>.<hash>"`: the
//! answer may change without the state, e.g. by a new run, and a condition of a write is about the
//! state alone. Not here: comparing with what is stored at the very moment; the store's guards do.

use crate::problem::{Answer, Problem};
use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use sha2::{Digest, Sha256};
use std::convert::Infallible;

/// The largest answer that is tagged, bytes; longer ones are no lists and no runs.
const TAGGED_MAX: u64 = 32 * 1024 * 1024;

/// Bytes of a hash in a tag: nobody finds two answers with the same by chance.
const HASH_BYTES: usize = 12;

/// Which writes know conditions.
pub(super) const CONDITIONAL: [(Method, &str); 2] = [
    (Method::PUT, "/api/v1/pipelines/{team}/{pipeline}"),
    (Method::DELETE, "/api/v1/pipelines/{team}/{pipeline}"),
];

/// Headers that make a write depend on something.
const OF_WRITES: [HeaderName; 3] = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];

/// A short hash, in hexadecimal digits.
pub(super) fn hash(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..HASH_BYTES])
}

/// Tags answers of JSON, and says 304 to whoever has the same already.
pub(super) async fn tagged(request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let has = tags(request.headers(), &header::IF_NONE_MATCH);
    let response = next.run(request).await;
    if !is_taggable(&response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return Problem::internal().into_response();
    };
    let bytes = collected.to_bytes();
    let state = parts.headers.get(header::ETAG).and_then(|v| v.to_str().ok());
    let state = state.map(|s| format!("{}.", s.trim_matches('"'))).unwrap_or_default();
    let tag = format!("\"{state}{}\"", hash(&bytes));
    let Ok(value) = HeaderValue::from_str(&tag) else {
        return Response::from_parts(parts, Body::from(bytes));
    };
    parts.headers.insert(header::ETAG, value);
    let asked_again = HeaderValue::from_static("private, no-cache");
    parts.headers.entry(header::CACHE_CONTROL).or_insert(asked_again);
    if has.iter().any(|known| known == "*" || weak(known) == tag) {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn is_taggable(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    let kept = response.headers().get(header::CACHE_CONTROL);
    let may_be_kept = kept.is_none_or(|v| !v.as_bytes().windows(8).any(|w| w == b"no-store"));
    let is_bounded = response.body().size_hint().exact().is_some_and(|n| n <= TAGGED_MAX);
    response.status() == StatusCode::OK && is_json && may_be_kept && is_bounded
}

/// The tags of a header, as they are written there.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
    let tags = values.flat_map(|v| v.split(',')).map(|tag| tag.trim().to_owned());
    tags.filter(|tag| !tag.is_empty()).collect()
}

/// A tag whether weak or not.
fn weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// The state in a tag of two parts; weak tags stand for none.
fn state_of(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.split_once('.').map_or(inner, |(state, _)| state))
}

/// Refuses what no route reads: encoded bodies, and conditions where there are none.
pub(super) async fn understood(request: Request, next: Next) -> Response {
    match check_head(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn check_head(request: &Request) -> Answer<()> {
    for value in request.headers().get_all(header::CONTENT_ENCODING) {
        let found = value.to_str().unwrap_or("?");
        if !found.eq_ignore_ascii_case("identity") {
            return Err(Problem::encoded_body(found));
        }
    }
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    if *request.method() == Method::POST {
        super::query::idempotency_key(request.headers())?;
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let knows = |(method, path): &(Method, &str)| method == request.method() && Some(*path) == route;
    let given = OF_WRITES.iter().find(|name| request.headers().contains_key(*name));
    let unknown = |name: &&HeaderName| **name == header::IF_UNMODIFIED_SINCE || !CONDITIONAL.iter().any(knows);
    match given.filter(unknown) {
        None => Ok(()),
        Some(name) => Err(Problem::precondition_failed(format!(
            "this route has no state that `{name}` could be compared with; leave it out"
        ))),
    }
}

/// Under which conditions a request writes.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    must_be: Vec<String>,
    must_not_be: Vec<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            must_be: tags(&parts.headers, &header::IF_MATCH),
            must_not_be: tags(&parts.headers, &header::IF_NONE_MATCH),
        })
    }
}

impl Conditions {
    /// Whether they hold for what is there: the state of it, or nothing.
    ///
    /// # Errors
    /// 412.
    pub(super) fn check(&self, there: Option<&str>) -> Answer<()> {
        let is = |tag: &String| there.is_some_and(|state| tag == "*" || state_of(tag) == Some(state));
        if !self.must_be.is_empty() && !self.must_be.iter().any(is) {
            return Err(Problem::precondition_failed(match there {
                None => "`If-Match`: it is not there (any more)",
                Some(_) => "`If-Match`: somebody else has changed it; read it again",
            }));
        }
        if self.must_not_be.iter().any(is) {
            return Err(Problem::precondition_failed("`If-None-Match`: it is there already"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_depends_on_the_state_alone() {
        let of = |must_be: &str, must_not_be: &str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::IF_MATCH, must_be), (header::IF_NONE_MATCH, must_not_be)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            Conditions {
                must_be: tags(&headers, &header::IF_MATCH),
                must_not_be: tags(&headers, &header::IF_NONE_MATCH),
            }
        };
        for (must_be, must_not_be, there, holds) in [
            ("", "", None, true),
            ("", "", Some("a"), true),
            ("\"a.1\"", "", Some("a"), true),
            ("\"a.2\"", "", Some("a"), true),
            ("\"a\"", "", Some("a"), true),
            ("\"b.1\"", "", Some("a"), false),
            ("\"b.1\", \"a.1\"", "", Some("a"), true),
            ("W/\"a.1\"", "", Some("a"), false),
            ("\"a.1\"", "", None, false),
            ("*", "", Some("a"), true),
            ("*", "", None, false),
            ("nonsense", "", Some("a"), false),
            ("", "*", None, true),
            ("", "*", Some("a"), false),
            ("", "\"a.1\"", Some("a"), false),
            ("", "\"b.1\"", Some("a"), true),
        ] {
            let checked = of(must_be, must_not_be).check(there);
            assert_eq!(checked.is_ok(), holds, "{must_be} {must_not_be} {there:?}");
        }
    }
}
