//! Logs as a stream of server-sent events (one step, or all steps of a run interleaved), and as a
//! plain download.
//!
//! Both hold one piece of a log at a time, whatever its length. Not here: HTTP, parameters.

use super::cursor::Cursor;
use super::feed::{Follow, Picture, StepLog};
use super::frame::{Form, Framer, LogBegin, LogEnd, Piece};
use super::hub::{LogError, LogHub};
use super::reader::LogReader;
use super::relay::{self, Relay};
use crate::state::Shared;
use api_core::logs::LogId;
use axum::body::Bytes;
use axum::http::HeaderValue;
use futures::future::{FutureExt, select_all};
use futures::stream::{Stream, StreamExt, unfold};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often an idle stream says that it is still there: below the 30 to 60 s after which proxies
/// close an idle connection.
const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(15);

/// How long a stream waits for the rest of an ended step's log before it says that the log ends
/// without it: longer than a node's lease and grace and a new stream.
const REST_WAIT: Duration = Duration::from_secs(60);

/// What a stream of events is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One step: ids are positions.
    Step {
        /// Its ordinal.
        step: usize,
        /// This attempt alone; `None`: the newest one, and all that follow it.
        only: Option<u32>,
        /// Where the log of an attempt stands of which the step's record does not know any more.
        fixed: Option<StepLog>,
        /// The first byte.
        from: Position,
    },
    /// All steps: ids are cursors.
    Run(Cursor),
}

/// Where a reader of one step is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// In which attempt; 0: in the newest.
    pub(super) attempt: u32,
    /// The offset of the next byte.
    pub(super) offset: u64,
}

impl Position {
    /// As an id: the offset, and before it the attempt if that is not the first.
    pub(super) fn id(self) -> String {
        match self.attempt {
            0 | 1 => self.offset.to_string(),
            attempt => format!("{attempt}.{}", self.offset),
        }
    }

    /// Reads what [`Position::id`] wrote; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (attempt, offset) = text.split_once('.').unwrap_or(("1", text));
        let attempt = attempt.parse().ok().filter(|attempt| *attempt > 0)?;
        let offset = offset.parse().ok()?;
        Some(Self { attempt, offset })
    }
}

/// One step's log within the stream.
struct Strand {
    attempt: u32,
    reader: LogReader,
    framer: Framer,
    /// When it last gave bytes.
    moved: Instant,
    /// It had no more when it was asked last.
    dry: bool,
    /// Brings the bytes of a node that is with another server; opened once the blobs are read.
    relay: Option<Arc<Relay>>,
}

/// How logs are read whose nodes are with other servers: with the reader's authorization.
pub(super) struct Abroad {
    pub(super) server: Shared,
    pub(super) authorization: HeaderValue,
}

/// The one step of a stream.
struct Single {
    step: usize,
    only: Option<u32>,
    fixed: Option<StepLog>,
}

/// A stream of events in the making.
pub(crate) struct Tail {
    hub: LogHub,
    follow: Follow,
    /// False: what is there now, and then the end of the stream.
    live: bool,
    abroad: Option<Abroad>,
    single: Option<Single>,
    cursor: Cursor,
    strands: BTreeMap<usize, Strand>,
    /// The order in which strands are asked next.
    turn: VecDeque<usize>,
    /// The step that the newest `step` event named.
    named: Option<(usize, u32)>,
    /// Ends the stream; the client comes back, to this server or another one.
    stop: CancellationToken,
    over: bool,
}

impl Tail {
    /// With `abroad`, logs whose nodes are with other servers are live too.
    pub(super) fn abroad(mut self, abroad: Option<Abroad>) -> Self {
        self.abroad = abroad.filter(|_| self.live);
        self
    }

    pub(super) fn new(hub: LogHub, follow: Follow, scope: Scope, live: bool, stop: CancellationToken) -> Self {
        let (single, cursor) = match scope {
            Scope::Run(cursor) => (None, cursor),
            Scope::Step {
                step,
                only,
                fixed,
                from,
            } => {
                let mut cursor = Cursor::default();
                cursor.at.insert(step, (from.attempt, from.offset));
                (Some(Single { step, only, fixed }), cursor)
            }
        };
        Self {
            hub,
            follow,
            live,
            abroad: None,
            single,
            cursor,
            strands: BTreeMap::new(),
            turn: VecDeque::new(),
            named: None,
            stop,
            over: false,
        }
    }

    /// As server-sent events.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Bytes, LogError>> + Send {
        self.written()
            .map(|out: Result<Vec<u8>, LogError>| out.map(Bytes::from))
    }

    /// As pieces.
    pub(crate) fn into_pieces(self) -> impl Stream<Item = Result<Vec<Piece>, LogError>> + Send {
        self.written()
    }

    /// The stream in some form. An error ends it; the client comes back with its last id.
    fn written<F: Form>(self) -> impl Stream<Item = Result<F, LogError>> + Send {
        unfold(self, |mut tail| async move {
            if tail.over {
                return None;
            }
            match tail.next::<F>().await {
                Ok(out) if out.is_empty() => None,
                Ok(out) => Some((Ok(out), tail)),
                Err(error) => {
                    tail.over = true;
                    Some((Err(error), tail))
                }
            }
        })
    }

    async fn next<F: Form>(&mut self) -> Result<F, LogError> {
        let mut idle_until = Instant::now() + KEEP_ALIVE_PERIOD;
        loop {
            let picture = self.follow.now();
            let mut out = F::default();
            self.open_strands(&picture, &mut out);
            let moved = self.read_one(&picture, &mut out).await?;
            if moved && out.is_empty() {
                // Only the beginning of a character came.
                continue;
            }
            if out.is_empty() && (!self.live || self.all_done(&picture)) {
                out.done();
                self.over = true;
            }
            if !out.is_empty() {
                return Ok(out);
            }
            tokio::select! {
                () = any_change(&mut self.strands) => {}
                there_is_more = self.follow.changed() => self.over |= !there_is_more,
                () = tokio::time::sleep_until(idle_until) => {
                    out.still_here();
                    idle_until = Instant::now() + KEEP_ALIVE_PERIOD;
                }
                () = self.stop.cancelled() => self.over = true,
            }
            if self.over || !out.is_empty() {
                return Ok(out);
            }
        }
    }

    fn steps(&self, picture: &Picture) -> Vec<usize> {
        match &self.single {
            Some(single) => vec![single.step],
            None => (0..picture.steps.len()).collect(),
        }
    }

    /// Where a step's log stands as far as this stream is concerned.
    fn log_of(&self, picture: &Picture, step: usize) -> StepLog {
        match &self.single {
            Some(Single { fixed: Some(fixed), .. }) => fixed.clone(),
            _ => picture.steps.get(step).cloned().unwrap_or(StepLog::Never),
        }
    }

    fn all_done(&self, picture: &Picture) -> bool {
        self.steps(picture).iter().all(|s| self.cursor.done.contains(s))
    }

    /// True when a stream is about this attempt alone.
    fn is_last(&self, attempt: u32) -> bool {
        self.single.as_ref().is_some_and(|single| single.only == Some(attempt))
    }

    /// Begins with the logs of steps that were placed, ends those of attempts that are over and goes on
    /// with the next one, and passes over steps that never ran.
    fn open_strands<F: Form>(&mut self, picture: &Picture, out: &mut F) {
        for step in self.steps(picture) {
            if self.cursor.done.contains(&step) {
                continue;
            }
            let log = self.log_of(picture, step);
            if let Some(open) = self.strands.get(&step).map(|s| s.attempt) {
                if !is_over(picture, step, open, &log) || self.owes(picture, step, open) {
                    continue;
                }
                let whole = self.is_whole(picture, step, open);
                let next = (log != StepLog::Never && !self.is_last(open)).then_some(open + 1);
                self.end(picture, step, open, next, whole, out);
            } else if log == StepLog::Never {
                self.end(picture, step, 0, None, true, out);
            }
            if !self.cursor.done.contains(&step) {
                self.open(picture, step, &log, out);
            }
        }
    }

    /// Opens the log with which a step goes on, if it is there.
    fn open<F: Form>(&mut self, picture: &Picture, step: usize, log: &StepLog, out: &mut F) {
        let (at, offset) = self.cursor.at.get(&step).copied().unwrap_or_default();
        let fixed = self.single.as_ref().is_some_and(|single| single.fixed.is_some());
        let found = if at == 0 || fixed {
            log.attempt()
        } else {
            let earlier = picture.earlier.get(step).into_iter().flatten();
            let known = earlier.chain(std::iter::once(log)).filter_map(StepLog::attempt);
            known
                .filter(|(attempt, _)| *attempt >= at)
                .min_by_key(|(attempt, _)| *attempt)
        };
        let Some((attempt, fence)) = found else { return };
        let from = if at == 0 || at == attempt { offset } else { 0 };
        let id = LogId {
            run: picture.definition.header.id.clone(),
            step,
            fence,
        };
        if matches!(self.named, Some((of, before)) if of == step && before != attempt) {
            // Said at once: its first line may be long in coming.
            name_step(&mut self.named, picture, step, attempt, from, out);
        }
        self.cursor.at.insert(step, (attempt, from));
        self.turn.push_back(step);
        self.strands.insert(
            step,
            Strand {
                attempt,
                reader: self.hub.reader(&id, from),
                framer: Framer::default(),
                moved: Instant::now(),
                dry: false,
                relay: None,
            },
        );
    }

    /// True when all of an earlier attempt was read.
    fn is_whole(&self, picture: &Picture, step: usize, attempt: u32) -> bool {
        let total = match picture.earlier(step, attempt) {
            Some(StepLog::Ended { total, .. }) => *total,
            _ => None,
        };
        let at = self.strands.get(&step).map(|s| s.reader.offset());
        total.is_some() && total == at
    }

    /// True when an attempt has ended and nobody can know how long its log was.
    fn is_lost(&self, picture: &Picture, step: usize, attempt: u32) -> bool {
        let newest = self.log_of(picture, step);
        let of_newest = newest.attempt().is_some_and(|(a, _)| a == attempt);
        let log = if of_newest {
            Some(&newest)
        } else {
            picture.earlier(step, attempt)
        };
        matches!(log, Some(StepLog::Ended { total: None, .. }))
    }

    /// True while the rest of an earlier attempt's log is waited for before the next one begins.
    fn owes(&self, picture: &Picture, step: usize, attempt: u32) -> bool {
        let Some(StepLog::Ended { total: Some(total), .. }) = picture.earlier(step, attempt) else {
            return false;
        };
        let Some(strand) = self.strands.get(&step) else {
            return false;
        };
        let hope = if self.live {
            strand.moved.elapsed() < REST_WAIT
        } else {
            !strand.dry
        };
        hope && strand.reader.offset() < *total
    }

    /// Takes a piece from the next strand that has one; ends strands that are whole. Answers
    /// whether there was a piece.
    async fn read_one<F: Form>(&mut self, picture: &Picture, out: &mut F) -> Result<bool, LogError> {
        for _ in 0..self.turn.len() {
            let Some(step) = self.turn.pop_front() else { break };
            let Some(strand) = self.strands.get_mut(&step) else {
                continue;
            };
            let piece = strand.reader.next().await?;
            let attempt = strand.attempt;
            strand.dry = piece.is_none();
            if let Some(bytes) = piece {
                strand.moved = Instant::now();
                self.turn.push_back(step);
                self.frame(picture, step, &bytes, out);
                return Ok(true);
            }
            let (at, moved) = (strand.reader.offset(), strand.moved);
            match self.ending(picture, step, attempt, at, moved) {
                Some(complete) => self.end(picture, step, attempt, None, complete, out),
                None => {
                    self.turn.push_back(step);
                    self.look_abroad(step);
                }
            }
        }
        Ok(false)
    }

    /// The blobs are read and the log goes on: it may be with another server.
    fn look_abroad(&mut self, step: usize) {
        if let (Some(abroad), Some(strand)) = (&self.abroad, self.strands.get_mut(&step))
            && strand.relay.is_none()
        {
            strand.relay = relay::hold(&abroad.server, strand.reader.id(), &abroad.authorization);
        }
    }

    /// Whether the newest log, of which nothing more is there, has ended, and if so, whether it is whole.
    fn ending(&self, picture: &Picture, step: usize, attempt: u32, at: u64, moved: Instant) -> Option<bool> {
        match self.log_of(picture, step) {
            newest if newest.attempt().is_some_and(|(a, _)| a != attempt) => None,
            StepLog::Ended { total: Some(total), .. } if at >= total => Some(true),
            StepLog::Ended { total: Some(_), .. } if self.live && moved.elapsed() < REST_WAIT => None,
            StepLog::Ended { .. } => Some(false),
            StepLog::NotYet | StepLog::Never | StepLog::Growing { .. } => None,
        }
    }

    fn frame<F: Form>(&mut self, picture: &Picture, step: usize, bytes: &Bytes, out: &mut F) {
        let Some(strand) = self.strands.get_mut(&step) else {
            return;
        };
        let before = strand.reader.offset() - bytes.len() as u64;
        name_step(&mut self.named, picture, step, strand.attempt, before, out);
        let (attempt, single, cursor) = (strand.attempt, self.single.is_some(), &mut self.cursor);
        let ids = std::cell::RefCell::new(cursor);
        out.bytes(&mut strand.framer, before, bytes, |offset| {
            if single {
                return Position { attempt, offset }.id();
            }
            let mut cursor = ids.borrow_mut();
            cursor.at.insert(step, (attempt, offset));
            cursor.id()
        });
    }

    /// No more of this attempt in this stream; with `next` the step goes on with that one.
    fn end<F: Form>(
        &mut self,
        picture: &Picture,
        step: usize,
        mut attempt: u32,
        next: Option<u32>,
        complete: bool,
        out: &mut F,
    ) {
        let mut total = 0;
        if let Some(mut strand) = self.strands.remove(&step) {
            attempt = strand.attempt;
            total = strand.reader.offset();
            let mut kept = F::default();
            let (single, cursor) = (self.single.is_some(), &self.cursor);
            kept.rest(&mut strand.framer, total, |offset| {
                if single {
                    Position { attempt, offset }.id()
                } else {
                    cursor.id()
                }
            });
            if !kept.is_empty() {
                name_step(&mut self.named, picture, step, attempt, total, out);
                out.append(kept);
            }
        } else if self.single.is_none() && complete {
            // A step that never ran: nothing to say in a stream of all steps.
            self.cursor.done.insert(step);
            return;
        }
        self.turn.retain(|s| *s != step);
        let mut position = Position { attempt, offset: total };
        match next {
            Some(next) => {
                self.cursor.at.insert(step, (next, 0));
                position = Position {
                    attempt: next,
                    offset: 0,
                };
            }
            None => {
                self.cursor.at.remove(&step);
                self.cursor.done.insert(step);
            }
        }
        let id = if self.single.is_some() {
            position.id()
        } else {
            self.cursor.id()
        };
        let end = LogEnd {
            step: picture.name(step),
            attempt,
            total,
            complete,
            lost: !complete && self.is_lost(picture, step, attempt),
        };
        out.end(&id, &end);
    }
}

/// True when an attempt is not the newest any more, or has ended and the next one is not placed yet.
fn is_over(picture: &Picture, step: usize, attempt: u32, newest: &StepLog) -> bool {
    match newest.attempt() {
        Some((newest, _)) => newest != attempt,
        None => *newest == StepLog::Never || picture.earlier(step, attempt).is_some(),
    }
}

fn name_step<F: Form>(
    named: &mut Option<(usize, u32)>,
    picture: &Picture,
    step: usize,
    attempt: u32,
    offset: u64,
    out: &mut F,
) {
    if named.replace((step, attempt)) != Some((step, attempt)) {
        out.begin(&LogBegin {
            step: picture.name(step),
            attempt,
            offset,
        });
    }
}

/// Waits until one of the strands may have more.
async fn any_change(strands: &mut BTreeMap<usize, Strand>) {
    if strands.is_empty() {
        return std::future::pending().await;
    }
    select_all(strands.values_mut().map(|s| s.reader.changed().boxed())).await;
}

/// A part of a download: what is written before it, the log, and where it ends.
pub(super) struct Part {
    /// e.g. the step's name.
    pub(super) heading: String,
    /// Which log, if the step has one.
    pub(super) log: Option<LogId>,
    /// The first byte.
    pub(super) from: u64,
    /// The offset after the last byte; `None`: what is there when the part's turn comes.
    pub(super) to: Option<u64>,
}

struct Download {
    hub: LogHub,
    parts: VecDeque<Part>,
    reader: Option<(LogReader, u64)>,
}

/// The parts one after another as plain bytes.
pub(super) fn download(
    hub: LogHub,
    parts: impl IntoIterator<Item = Part>,
) -> impl Stream<Item = Result<Bytes, LogError>> + Send {
    let download = Download {
        hub,
        parts: parts.into_iter().collect(),
        reader: None,
    };
    unfold(Some(download), |download| async move {
        let mut download = download?;
        match download.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(download))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        loop {
            if let Some((reader, to)) = self.reader.as_mut() {
                let left = to.saturating_sub(reader.offset());
                let piece = if left == 0 { None } else { reader.next().await? };
                if let Some(bytes) = piece {
                    let len = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    return Ok(Some(bytes.slice(..len)));
                }
                if left > 0 {
                    return Err(LogError::Short {
                        log: reader.id().clone(),
                        offset: reader.offset(),
                    });
                }
                self.reader = None;
            }
            let Some(part) = self.parts.pop_front() else {
                return Ok(None);
            };
            if let Some(log) = part.log {
                let reader = self.hub.reader(&log, part.from);
                let to = match part.to {
                    Some(to) => to,
                    None => reader.length().await?,
                };
                self.reader = Some((reader, to));
            }
            if !part.heading.is_empty() {
                return Ok(Some(Bytes::from(part.heading)));
            }
        }
    }
}

/// Where the newest attempts' logs of a run stand, as parts of a download.
pub(super) fn parts_of(picture: &Arc<Picture>) -> Vec<Part> {
    (0..picture.steps.len())
        .map(|step| {
            let name = picture.name(step);
            let heading = match &picture.steps[step] {
                StepLog::NotYet => format!("==> {name}: not started yet <==\n"),
                StepLog::Never => format!("==> {name}: did not run <==\n"),
                StepLog::Growing { attempt, .. } => format!("==> {name}, attempt {attempt}, still running <==\n"),
                StepLog::Ended { attempt, .. } => format!("==> {name}, attempt {attempt} <==\n"),
            };
            Part {
                heading,
                log: picture.log(step),
                from: 0,
                to: None,
            }
        })
        .collect()
}
