//! `GET …/events`: every change of a run as server-sent events.
//!
//! A reader gets the whole run first (`snapshot`), then each change (`step`, `run`), and `end`. Ids
//! are places in the run's history that every server agrees on; one who comes back with
//! `Last-Event-ID` gets what he missed, or a fresh snapshot when that is not known any more.
//! Not here: log bytes.

use super::query::PathParts;
use super::show::{detail, find};
use crate::dto::{RunChanged, RunDetail};
use crate::problem::{Answer, Problem};
use crate::state::Shared;
use crate::view::{EventId, RunEvent, RunEventKind, RunReader};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use model::RunId;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A word in between, so that proxies and readers know that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser comes back after a broken stream.
const COME_BACK: Duration = Duration::from_secs(1);

/// Follows a run.
#[utoipa::path(
    get, path = "/api/v1/runs/{run_id}/events", operation_id = "run_events", tag = "runs",
    params(("run_id" = String, Path),
        ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event")),
    responses(
        (status = 200, content_type = "text/event-stream", body = String,
            description = "`snapshot` (RunDetail), `step` (StepChanged), `run` and `end` (RunChanged)"),
        (status = 204, description = "The run has ended and the reader has seen it: do not come back"),
        (status = 404, body = crate::dto::Problem), (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn events(State(server): State<Shared>, parts: PathParts, headers: HeaderMap) -> Answer<Response> {
    let run = parts.run_id()?;
    let found = find(&server, &run).await?;
    let permit = server.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many streams are open on this server; try again"))?;
    let last = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(EventId::parse);
    let mut follow = Follow::new(server.clone(), run, permit);
    if let Some(last) = last {
        follow.resume(last);
        // Of an archived run the changes are not known any more; its end is all that there was.
        let nothing_new = found.summary.status.is_terminal() && (follow.seen_all || last.is_end());
        if nothing_new && !last.is_snapshot() {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        // Who has only a snapshot of an ended run has not heard its end.
        follow.needs_snapshot |= nothing_new;
    }
    let ended = server.deps.shutdown.clone().cancelled_owned();
    let stream = stream(follow).take_until(ended);
    let mut response = Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    let no = HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), no);
    Ok(response)
}

fn stream(follow: Follow) -> impl Stream<Item = Result<Event, Infallible>> {
    futures::stream::unfold(follow, |mut follow| async move {
        let event = follow.next().await?;
        Some((Ok(event), follow))
    })
}

/// One reader's way through a run's history.
struct Follow {
    server: Shared,
    run: RunId,
    reader: RunReader,
    queue: VecDeque<Event>,
    seen: EventId,
    needs_snapshot: bool,
    over: bool,
    /// Nothing was missed since the place that the reader named.
    seen_all: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.server.metrics.streams.dec();
    }
}

impl Follow {
    fn new(server: Shared, run: RunId, permit: OwnedSemaphorePermit) -> Self {
        server.metrics.streams.inc();
        Self {
            reader: server.view.subscribe(&run),
            server,
            run,
            queue: VecDeque::new(),
            seen: EventId::default(),
            needs_snapshot: true,
            over: false,
            seen_all: false,
            _permit: permit,
        }
    }

    /// Goes on after `last`, if everything since is known.
    fn resume(&mut self, last: EventId) {
        let missed = self.server.view.read(|picture| {
            let entry = picture.run(&self.run)?;
            entry.events_after(last, picture.revision())
        });
        let Some(missed) = missed else { return };
        if missed.iter().any(|e| e.what == RunEventKind::Began) {
            return;
        }
        self.needs_snapshot = false;
        self.seen = last;
        self.seen_all = missed.is_empty();
        for event in missed {
            self.take(&event);
        }
    }

    /// The next event; `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if self.needs_snapshot {
                self.snapshot().await.ok()?;
                continue;
            }
            match self.reader.recv().await {
                Ok(event) => self.take(&event),
                Err(_missed) => {
                    self.reader = self.server.view.subscribe(&self.run);
                    self.needs_snapshot = true;
                }
            }
        }
    }

    fn take(&mut self, event: &Arc<RunEvent>) {
        if event.id <= self.seen {
            return;
        }
        self.seen = event.id;
        match &event.what {
            RunEventKind::Began => self.needs_snapshot = true,
            RunEventKind::Step(change) => self.push(event.id, "step", change),
            RunEventKind::Run(change) => self.push(event.id, "run", change),
            RunEventKind::End(change) => {
                self.push(event.id, "end", change);
                self.over = true;
            }
        }
    }

    async fn snapshot(&mut self) -> Answer<()> {
        let found = find(&self.server, &self.run).await?;
        let seen = found.seen;
        let whole: RunDetail = detail(&self.server, found).await?;
        self.needs_snapshot = false;
        self.seen = seen;
        self.push(seen, "snapshot", &whole);
        let status = whole.summary.status;
        if status.is_terminal() {
            let change = RunChanged {
                run_id: self.run.to_string(),
                status,
            };
            self.push(EventId::end_at(seen.revision), "end", &change);
            self.over = true;
        }
        Ok(())
    }

    fn push(&mut self, id: EventId, name: &str, data: &impl serde::Serialize) {
        let text = serde_json::to_string(data).expect("forms have string keys only");
        let event = Event::default()
            .id(id.to_string())
            .event(name)
            .retry(COME_BACK)
            .data(text);
        self.queue.push_back(event);
    }
}
