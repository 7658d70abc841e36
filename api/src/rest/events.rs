//! Every change of a run: as server-sent events (`GET …/events`), and for whoever else follows one.
//!
//! A reader gets the whole run first (`snapshot`), then each change (`step`, `run`), and `end`. Ids
//! are places in the run's history that every server agrees on; one who comes back with
//! `Last-Event-ID` gets what he missed, or a fresh snapshot when that is not known any more.
//! Not here: log bytes.

use super::query::PathParts;
use super::show::{detail, find};
use crate::auth::Caller;
use crate::dto::{RunChanged, RunDetail, StepChanged};
use crate::problem::Answer;
use crate::state::{Shared, StreamPlace};
use crate::view::{EventId, RunEvent, RunEventKind, RunReader};
use axum::Extension;
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
pub(super) async fn events(
    State(server): State<Shared>,
    parts: PathParts,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Answer<Response> {
    let last = headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .and_then(EventId::parse);
    let Some(moments) = follow(&server, &parts.run_id()?, last, &caller).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let stream = moments.map(|moment| Ok::<_, Infallible>(event(&moment)));
    let mut response = Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    let no = HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), no);
    Ok(response)
}

/// One moment as a server-sent event.
fn event(moment: &Moment) -> Event {
    let (name, data) = match &moment.what {
        Told::Snapshot(run) => ("snapshot", json(run)),
        Told::Step(change) => ("step", json(change)),
        Told::Run(change) => ("run", json(change)),
        Told::End(change) => ("end", json(change)),
    };
    Event::default()
        .id(moment.id.to_string())
        .event(name)
        .retry(COME_BACK)
        .data(data)
}

fn json(form: &impl serde::Serialize) -> String {
    serde_json::to_string(form).expect("forms have string keys only")
}

/// What is told of a run, and where in its history.
#[derive(Debug)]
pub(crate) struct Moment {
    /// Who comes back names it.
    pub(crate) id: EventId,
    /// What is told.
    pub(crate) what: Told,
}

/// What is told of a run.
#[derive(Debug)]
pub(crate) enum Told {
    /// The whole run.
    Snapshot(Box<RunDetail>),
    /// A step changed.
    Step(StepChanged),
    /// The run's status changed.
    Run(RunChanged),
    /// Nothing follows.
    End(RunChanged),
}

/// Follows a run until its end or the server's, from the beginning or after what was heard before;
/// `None`: it has ended and the reader has heard so.
///
/// # Errors
/// 404; 429 or 503 when no more streams may be open.
pub(crate) async fn follow(
    server: &Shared,
    run: &RunId,
    last: Option<EventId>,
    caller: &Caller,
) -> Answer<Option<impl Stream<Item = Moment> + Send + use<>>> {
    let found = find(server, run).await?;
    let place = server.place_for_stream(Some(caller))?;
    let mut follow = Follow::new(server.clone(), run.clone(), place);
    if let Some(last) = last {
        follow.resume(last);
        // Of an archived run the changes are not known any more; its end is all that there was.
        let nothing_new = found.summary.status.is_terminal() && (follow.seen_all || last.is_end());
        if nothing_new && !last.is_snapshot() {
            return Ok(None);
        }
        // Who has only a snapshot of an ended run has not heard its end.
        follow.needs_snapshot |= nothing_new;
    }
    let ended = server.deps.shutdown.clone().cancelled_owned();
    Ok(Some(stream(follow).take_until(ended)))
}

fn stream(follow: Follow) -> impl Stream<Item = Moment> {
    futures::stream::unfold(follow, |mut follow| async move {
        let moment = follow.next().await?;
        Some((moment, follow))
    })
}

/// One reader's way through a run's history.
struct Follow {
    server: Shared,
    run: RunId,
    reader: RunReader,
    queue: VecDeque<Moment>,
    seen: EventId,
    needs_snapshot: bool,
    over: bool,
    /// Nothing was missed since the place that the reader named.
    seen_all: bool,
    _place: StreamPlace,
}

impl Follow {
    fn new(server: Shared, run: RunId, place: StreamPlace) -> Self {
        Self {
            reader: server.view.subscribe(&run),
            server,
            run,
            queue: VecDeque::new(),
            seen: EventId::default(),
            needs_snapshot: true,
            over: false,
            seen_all: false,
            _place: place,
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

    /// The next moment; `None` when the stream is over.
    async fn next(&mut self) -> Option<Moment> {
        loop {
            if let Some(moment) = self.queue.pop_front() {
                return Some(moment);
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
            RunEventKind::Step(change) => self.push(event.id, Told::Step(change.clone())),
            RunEventKind::Run(change) => self.push(event.id, Told::Run(change.clone())),
            RunEventKind::End(change) => {
                self.push(event.id, Told::End(change.clone()));
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
        let status = whole.summary.status;
        self.push(seen, Told::Snapshot(Box::new(whole)));
        if status.is_terminal() {
            let change = RunChanged {
                run_id: self.run.to_string(),
                status,
            };
            self.push(EventId::end_at(seen.revision), Told::End(change));
            self.over = true;
        }
        Ok(())
    }

    fn push(&mut self, id: EventId, what: Told) {
        self.queue.push_back(Moment { id, what });
    }
}
