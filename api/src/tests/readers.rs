//! Two thousand who follow runs and logs at the same time, over real sockets: each gets all, and those
//! who do not read cost next to nothing.

use super::served::{Served, serve};
use super::stage::{ADMIN, FILE, PATIENCE};
use crate::fleet::fixture::{alloc_id, allocation, fold, make_run, place};
use crate::logs::{Board, LogWriter, Reply};
use axum::body::Bytes;
use model::{RunId, StepStatus};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Of each of the four kinds.
const EACH: usize = 500;

/// Two for each reader, and some for the rest.
const OPEN_FILES: u64 = 4_400;

/// What one reader may cost, both ends of its connection and its task in the test included: far
/// above what it does, and far below what it would with a copy of the log.
const READER_BYTES_MAX: usize = 160 * 1024;

/// False, and loudly so, where so many files may not be open at once.
fn may_open_so_many(test: &str) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < OPEN_FILES) {
        eprintln!("SKIPPED {test}: {OPEN_FILES} files must be open at once; raise `ulimit -Hn`");
        return false;
    }
    let raised = limit.current.map(|now| now.max(OPEN_FILES));
    let wanted = Rlimit {
        current: raised,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, wanted).unwrap();
    true
}

/// The memory of this process.
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

struct Reader {
    stream: BufReader<TcpStream>,
}

impl Reader {
    /// Opens a stream of events and reads the head of its answer.
    async fn open(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\naccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reader = Self {
            stream: BufReader::with_capacity(2_048, stream),
        };
        let status = reader.line().await;
        assert!(status.starts_with("HTTP/1.1 200"), "{path}: {status}");
        while !reader.line().await.is_empty() {}
        reader
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// The next part of a body that comes in parts; `None` at its end.
    async fn part(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line().await, 16).ok().filter(|n| *n > 0)?;
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes.truncate(length);
        Some(String::from_utf8(bytes).unwrap())
    }

    /// Everything until the server ends the stream.
    async fn rest(mut self) -> String {
        let mut text = String::new();
        while let Some(part) = self.part().await {
            text.push_str(&part);
        }
        text
    }
}

/// The names of a stream's events, in order.
fn names(stream: &str) -> Vec<&str> {
    stream.lines().filter_map(|l| l.strip_prefix("event: ")).collect()
}

/// The log in a stream of one step.
fn log_of(stream: &str) -> Vec<u8> {
    let events = crate::logs::events_of(stream.as_bytes());
    events.iter().flat_map(crate::logs::LogEvent::bytes).collect()
}

struct Writer {
    writer: LogWriter,
    board: Arc<Board>,
    at: u64,
}

impl Writer {
    async fn open(served: &Served, step: usize) -> Self {
        let board = Arc::new(Board::default());
        let writer = served
            .server
            .logs
            .open(&alloc_id(step, 1), board.clone())
            .await
            .unwrap();
        Self { writer, board, at: 0 }
    }

    async fn write(&mut self, bytes: Bytes, end: bool) {
        let to = self.at + bytes.len() as u64;
        self.writer.data(self.at, bytes, end);
        self.at = to;
        let stored = |reply: &Reply| matches!(reply, Reply::Ack { offset, .. } if *offset >= to);
        let wait = async { while !self.board.next().await.iter().any(stored) {} };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the log is stored in time");
    }
}

async fn open_all(served: &Served, run: &RunId) -> Vec<(usize, Reader)> {
    let paths = [
        format!("/api/v1/runs/{run}/events"),
        "/api/v1/runs/01jd/events".to_owned(),
        "/api/v1/runs/01jd/logs?follow=true".to_owned(),
        "/api/v1/runs/01jd/steps/unit/logs?follow=true".to_owned(),
    ];
    let (mut opening, mut open) = (JoinSet::new(), Vec::new());
    for i in 0..4 * EACH {
        let (kind, address) = (i % 4, served.address);
        let path = paths[kind].clone();
        opening.spawn(async move { (kind, Reader::open(address, &path).await) });
        // As many at a time as a listener lets wait.
        if opening.len() >= 64 {
            open.extend(opening.join_next().await.map(Result::unwrap));
        }
    }
    open.extend(opening.join_all().await);
    open
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_readers_each_get_all() {
    if !may_open_so_many("two_thousand_readers_each_get_all") {
        return;
    }
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let run = served.stage.run("app").await;
    let store = served.server.deps.store.clone();
    make_run(store.as_ref(), &["unit"]).await;
    place(store.as_ref(), &allocation(0, 1)).await;
    let before = resident_bytes();
    let readers = open_all(&served, &run).await;
    assert_eq!(served.server.metrics.streams.get(), 4 * i64::try_from(EACH).unwrap());
    let mut reading = JoinSet::new();
    for (kind, reader) in readers {
        reading.spawn(async move { (kind, reader.rest().await) });
    }
    let pieces: Vec<Bytes> = (0..32)
        .map(|i| Bytes::from(format!("{}\n", format!("line {i} ").repeat(200))))
        .collect();
    let mut writer = Writer::open(&served, 0).await;
    for (i, piece) in pieces.iter().enumerate() {
        writer.write(piece.clone(), i + 1 == pieces.len()).await;
    }
    fold(store.as_ref(), 0, 1, writer.at).await;
    for step in 0..3 {
        served.stage.lead(&run, step, StepStatus::Running).await;
        served.stage.lead(&run, step, StepStatus::Success).await;
    }
    let during = resident_bytes().saturating_sub(before);
    let (mut done, mut told) = ([0; 4], None);
    let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
    while let Some(read) = tokio::time::timeout_at(deadline, reading.join_next())
        .await
        .expect("all end in time")
    {
        let (kind, text) = read.unwrap();
        match kind {
            0 => {
                let first = told.get_or_insert_with(|| text.clone());
                assert_eq!(*first, text, "all are told the same, in the same order");
            }
            1 => assert_eq!(names(&text).last(), Some(&"end"), "{text}"),
            _ => assert!(log_of(&text) == pieces.concat(), "{kind}: {} bytes", text.len()),
        }
        done[kind] += 1;
    }
    assert_eq!(done, [EACH; 4]);
    let told = told.unwrap();
    let successes = told
        .lines()
        .filter(|l| l.contains("\"status\":\"success\"") && l.contains("\"step\""));
    assert_eq!(successes.count(), 3, "{told}");
    assert_eq!(
        (names(&told).first(), names(&told).last()),
        (Some(&"snapshot"), Some(&"end"))
    );
    assert!(
        during < 4 * EACH * READER_BYTES_MAX,
        "{during} bytes for {} readers",
        4 * EACH
    );
    assert_eq!(served.server.metrics.streams.get(), 0, "every place is free again");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_who_do_not_read_cost_a_bounded_amount_and_miss_nothing() {
    const SLOW: usize = 64;
    let served = serve().await;
    let store = served.server.deps.store.clone();
    make_run(store.as_ref(), &["unit"]).await;
    place(store.as_ref(), &allocation(0, 1)).await;
    let path = "/api/v1/runs/01jd/steps/unit/logs?follow=true";
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        slow.push(Reader::open(served.address, path).await);
    }
    let quick = tokio::spawn(Reader::open(served.address, path).await.rest());
    let line = "0123456789abcdef".repeat(64);
    let piece = Bytes::from(format!("{line}\n").repeat(512));
    let before = resident_bytes();
    let mut writer = Writer::open(&served, 0).await;
    for i in 0..32 {
        writer.write(piece.clone(), i == 31).await;
    }
    fold(store.as_ref(), 0, 1, writer.at).await;
    let quick = tokio::time::timeout(PATIENCE, quick)
        .await
        .expect("one reads on")
        .unwrap();
    let all = usize::try_from(writer.at).unwrap();
    let quick = log_of(&quick);
    assert_eq!(quick.len(), all);
    let cost = resident_bytes().saturating_sub(before);
    // With a copy of the log for each it would be more than a gibibyte.
    assert!(cost < 16 * all, "{cost} bytes while {SLOW} did not read {all}");
    let late = slow.pop().unwrap();
    drop(slow);
    let late = tokio::time::timeout(PATIENCE, late.rest()).await.expect("it ends");
    assert!(log_of(&late) == quick, "who begins to read afterwards gets the same");
    served.end().await;
}
