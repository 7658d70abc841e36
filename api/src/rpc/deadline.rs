//! Until when a call may go on: as long as its caller waits for it, and strangers for some minutes.
//!
//! Not here: the layers that REST has too.

use crate::limit::{REQUEST_TIMEOUT, STRANGER_STREAMS_MAX, STRANGER_TIME};
use crate::problem::Problem;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;

/// Ends a call whose deadline has come: before its answer, or in the middle of its stream. Without
/// one its answer has as long to begin as one of REST.
pub(super) async fn keep(request: Request, next: Next) -> Response {
    let given = match given(request.headers()) {
        Ok(given) => given,
        Err(refused) => return refused.into_response(),
    };
    let now = Instant::now();
    let end = given.and_then(|wait| now.checked_add(wait));
    let latest = now + REQUEST_TIMEOUT;
    if given.is_some_and(|wait| wait.is_zero()) {
        return expired().into_http();
    }
    match timeout_at(end.unwrap_or(latest).min(latest), next.run(request)).await {
        Ok(answer) => match end {
            Some(end) => answer.map(|body| Body::new(Until::new(body, end, expired(), None))),
            None => answer,
        },
        Err(_) if end.is_some_and(|end| end <= latest) => expired().into_http(),
        Err(_) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            Problem::unavailable(format!("the call took longer than {seconds} s; try again")).into_response()
        }
    }
}

fn expired() -> Status {
    Status::deadline_exceeded("the deadline of the call has come; what it has begun may be done all the same")
}

/// The time of `grpc-timeout`, e.g. `1500m`.
fn given(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let wrong = || Problem::bad_field("grpc-timeout", "must be 1 to 8 digits and one of H, M, S, m, u, n");
    let text = value.to_str().map_err(|_| wrong())?;
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let time = match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(wrong()),
    };
    Ok(Some(time))
}

/// How many calls of strangers go on.
#[derive(Debug, Clone)]
pub(super) struct Strangers(Arc<Semaphore>);

impl Default for Strangers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STRANGER_STREAMS_MAX)))
    }
}

/// Bounds the calls of those who showed no token, in number and in time.
pub(super) async fn of_strangers(State(strangers): State<Strangers>, request: Request, next: Next) -> Response {
    let Ok(place) = strangers.0.try_acquire_owned() else {
        return Problem::unavailable("too many ask for the server's health or description; try again").into_response();
    };
    let end = Instant::now() + STRANGER_TIME;
    let over = || Status::unavailable("such a stream goes for some minutes only; open another one");
    let request = request.map(|body| Body::new(Until::new(body, end, over(), None)));
    match timeout_at(end, next.run(request)).await {
        Ok(answer) => answer.map(|body| Body::new(Until::new(body, end, over(), Some(place)))),
        Err(_) => over().into_http(),
    }
}

/// A body that ends at a time, with a status.
struct Until {
    body: Option<Body>,
    end: Pin<Box<Sleep>>,
    status: Status,
    _place: Option<OwnedSemaphorePermit>,
}

impl Until {
    fn new(body: Body, end: Instant, status: Status, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            body: Some(body),
            end: Box::pin(sleep_until(end)),
            status,
            _place: place,
        }
    }
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(body) = this.body.as_mut() else {
            return Poll::Ready(None);
        };
        if this.end.as_mut().poll(cx).is_pending() {
            return Pin::new(body).poll_frame(cx);
        }
        // What is behind it ends now, not when the peer has read all.
        this.body = None;
        let mut trailers = HeaderMap::new();
        match this.status.add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(axum::Error::new(status)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // It may end earlier than the body that it holds.
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn a_time_has_digits_and_a_unit() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            given(&headers).ok().flatten()
        };
        for (text, expect) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("15S", Some(Duration::from_secs(15))),
            ("1500m", Some(Duration::from_millis(1_500))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("", None),
            ("S", None),
            ("15", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("123456789S", None),
            ("1s", None),
        ] {
            assert_eq!(read(text), expect, "{text}");
        }
        assert_eq!(given(&HeaderMap::new()).unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_goes_on_ends_in_time_with_its_status() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        sender.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let begun = Instant::now();
        let until = Until::new(body, begun + Duration::from_secs(5), expired(), None);
        let collected = until.collect().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "4");
        assert_eq!(collected.to_bytes(), "x");
        assert!(sender.is_closed(), "what was behind it has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_over_is_over_at_once() {
        let begun = Instant::now();
        let until = Until::new(Body::from("x"), begun + Duration::from_secs(5), expired(), None);
        let collected = until.collect().await.unwrap();
        assert!(collected.trailers().is_none() && begun.elapsed().is_zero());
    }
}
