//! A stream of events that goes on after a lost connection where it was.
//!
//! Not here: what the events mean; who follows one decides at which event it ends.

use super::failure::Failure;
use super::http::{Api, Parameter};
use super::output::Talk;
use super::sse::{Event, Reader};
use reqwest::{Response, StatusCode};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How long a server may be away before it is given up: longer than its restart or upgrade.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(300);

/// How often a server is tried that has not answered once.
const FIRST_TRIES: usize = 2;

/// The server's word, instead of a stream, that a reader has seen everything.
const NOTHING_FOLLOWS: StatusCode = StatusCode::NO_CONTENT;

/// The waits between attempts to connect; the last one repeats.
const WAITS_MS: [u64; 5] = [200, 500, 1_000, 2_000, 5_000];

/// A followed stream.
pub(super) struct Follow<'a> {
    api: &'a Api,
    path: Vec<String>,
    query: Vec<Parameter>,
    talk: Talk,
    last_id: Option<String>,
    connection: Option<(Response, Reader)>,
    ready: VecDeque<Event>,
    /// The server has answered once: whoever is away now was there.
    was_there: bool,
    /// Since the last event.
    failures: usize,
    away_since: Option<Instant>,
}

impl<'a> Follow<'a> {
    pub(super) fn new(api: &'a Api, path: &[&str], query: Vec<Parameter>, talk: Talk) -> Self {
        Self {
            api,
            path: path.iter().map(|&p| p.to_owned()).collect(),
            query,
            talk,
            last_id: None,
            connection: None,
            ready: VecDeque::new(),
            was_there: false,
            failures: 0,
            away_since: None,
        }
    }

    /// The next event, however often the connection is lost meanwhile.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Some(id) = &event.id {
                    self.last_id = Some(id.clone());
                }
                return Ok(event);
            }
            if let Err(failure) = self.receive().await {
                self.connection = None;
                self.wait(failure).await?;
            }
        }
    }

    /// Connects if need be, and takes what comes.
    async fn receive(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            let response = self.connect().await?;
            self.was_there = true;
            if response.status() == NOTHING_FOLLOWS {
                self.ready.push_back(Event {
                    event: "end".to_owned(),
                    ..Event::default()
                });
                return Ok(());
            }
            self.connection = Some((response, Reader::default()));
        }
        let (response, reader) = self.connection.as_mut().expect("connected just now");
        let ended = || Failure::Unreachable("the server ended the stream".to_owned());
        let chunk = response
            .chunk()
            .await
            .map_err(|e| self.api.lost(&e))?
            .ok_or_else(ended)?;
        let events = reader.push(&chunk).map_err(|e| Failure::Unreachable(e.to_string()))?;
        if !events.is_empty() {
            if self
                .away_since
                .is_some_and(|since| since.elapsed() > Duration::from_secs(1))
            {
                self.talk.say("connected again");
            }
            self.failures = 0;
            self.away_since = None;
        }
        self.ready.extend(events);
        Ok(())
    }

    async fn connect(&self) -> Result<Response, Failure> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let mut headers = vec![("accept", "text/event-stream")];
        if let Some(id) = &self.last_id {
            headers.push(("last-event-id", id));
        }
        self.api.stream(&path, &self.query, &headers).await
    }

    /// Waits before the next attempt, or gives up; only what may mend itself is tried again.
    async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        if !matches!(failure, Failure::Unreachable(_)) {
            return Err(failure);
        }
        let since = *self.away_since.get_or_insert_with(Instant::now);
        let never_there = !self.was_there && self.failures >= FIRST_TRIES;
        if never_there || since.elapsed() > GIVE_UP_AFTER {
            return Err(failure);
        }
        if self.failures == 1 {
            self.talk.say("the connection is lost; trying again");
        }
        let wait = WAITS_MS[self.failures.min(WAITS_MS.len() - 1)];
        self.failures += 1;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        Ok(())
    }
}
