//! Logs through a hub over real blobs: in, out, live, broken off and gone on with.

use super::cursor::Cursor;
use super::feed::Feeds;
use super::frame::reading::{Event, events};
use super::hub::{Limits, LogHub};
use super::tail::{Position, Scope, Tail, download, parts_of};
use super::{Board, LogMetrics, Reply, feed};
use crate::fleet::definitions::Definitions;
use crate::fleet::fixture::*;
use api_core::logs::LogId;
use axum::body::Bytes;
use futures::stream::{BoxStream, StreamExt};
use model::{AllocId, StepStatus, key};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::memory::MemoryStore;
use store::{BlobName, BlobStore, Store, Txn};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A node that ships a log as the protocol has it: from where it is asked to, until it is whole.
struct Node {
    alloc: AllocId,
    log: Vec<u8>,
    board: Arc<Board>,
}

impl Node {
    fn new(alloc: AllocId, log: Vec<u8>) -> Self {
        Self {
            alloc,
            log,
            board: Arc::default(),
        }
    }

    /// Ships everything in messages of `len` bytes; answers the acknowledged offsets.
    async fn ship(&self, hub: &LogHub, len: usize) -> Vec<u64> {
        let mut acked = vec![0];
        let writer = hub.open(&self.alloc, self.board.clone()).await.unwrap();
        let mut at: Option<usize> = None;
        loop {
            while let Some(from) = at.filter(|from| *from <= self.log.len()) {
                let to = (from + len).min(self.log.len());
                let end = to == self.log.len();
                writer.data(from as u64, Bytes::copy_from_slice(&self.log[from..to]), end);
                at = if end { None } else { Some(to) };
            }
            for reply in soon("a word about the log", self.board.next()).await {
                match reply {
                    Reply::From { offset, .. } => at = Some(usize::try_from(offset).unwrap()),
                    Reply::Ack { offset, complete, .. } => {
                        assert!(offset >= *acked.last().unwrap(), "acknowledgements grow");
                        acked.push(offset);
                        if complete {
                            assert_eq!(offset, self.log.len() as u64);
                            return acked;
                        }
                    }
                }
            }
        }
    }

    async fn acked(&self) -> u64 {
        soon("an acknowledgement", async {
            loop {
                for reply in self.board.next().await {
                    if let Reply::Ack { offset, .. } = reply {
                        return offset;
                    }
                }
            }
        })
        .await
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn log_id(step: usize) -> LogId {
    LogId::of(&alloc_id(step, 1)).unwrap()
}

async fn read_all(hub: &LogHub, step: usize) -> Vec<u8> {
    let mut reader = hub.reader(&log_id(step), 0);
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn tight_hub(blobs: Arc<dyn BlobStore>, held_bytes: u64) -> LogHub {
    let limits = Limits {
        chunk_age: Duration::from_millis(20),
        held_bytes,
        ..Limits::default()
    };
    LogHub::new(blobs, limits, LogMetrics::new(&prometheus::Registry::new()).unwrap())
}

/// Runs `work` as a server of its own, which is killed afterwards with whatever it was doing.
fn as_server<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

#[test]
fn a_server_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let folder = TempDir::new().unwrap();
    // A put that was on its way when its server was killed may still be done: the blobs stay open.
    let blobs = FlakyBlobs::open(folder.path());
    let node = Node::new(alloc_id(0, 1), bytes(900_000));
    let mut acked = 0;
    let mut unstored = 0;
    for to in [100_000, 333_333, 640_000] {
        acked = as_server(async {
            let hub = hub(blobs.clone());
            let from = hub.reader(&log_id(0), 0).length().await.unwrap();
            assert!(from >= acked, "what was acknowledged is stored");
            let writer = hub.open(&node.alloc, node.board.clone()).await.unwrap();
            for at in (usize::try_from(from).unwrap()..to).step_by(7_001) {
                let piece = Bytes::copy_from_slice(&node.log[at..(at + 9_000).min(to)]);
                writer.data(at as u64, piece, false);
            }
            let acked = node.acked().await;
            writer.data(to as u64, Bytes::copy_from_slice(&node.log[to..to + 50_000]), false);
            unstored += usize::from(hub.reader(&log_id(0), 0).length().await.unwrap() > acked);
            acked
        });
    }
    assert_eq!(
        unstored, 3,
        "each server was killed with bytes that it had not acknowledged"
    );
    as_server(async {
        let hub = hub(blobs.clone());
        node.ship(&hub, 64 * 1024).await;
        assert_eq!(read_all(&hub, 0).await, node.log);
    });
}

#[tokio::test]
async fn a_hub_that_is_stopped_stores_what_it_received() {
    let folder = TempDir::new().unwrap();
    let node = Node::new(alloc_id(0, 1), bytes(70_000));
    let slow = Limits {
        chunk_age: Duration::from_secs(3_600),
        ..Limits::default()
    };
    let metrics = LogMetrics::new(&prometheus::Registry::new()).unwrap();
    let first = LogHub::new(FlakyBlobs::open(folder.path()), slow, metrics);
    let writer = first.open(&node.alloc, node.board.clone()).await.unwrap();
    writer.data(0, Bytes::copy_from_slice(&node.log[..50_000]), false);
    soon("the end of the hub", first.stop()).await;
    assert_eq!(node.acked().await, 50_000);
    assert_eq!(
        read_all(&hub(FlakyBlobs::open(folder.path())), 0).await,
        node.log[..50_000]
    );
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_stored_and_readers_see_it_all_the_same() {
    let folder = TempDir::new().unwrap();
    let blobs = FlakyBlobs::open(folder.path());
    let hub = hub(blobs.clone());
    let node = Node::new(alloc_id(0, 1), bytes(1_000));
    blobs.set_failing(true);
    let mut reader = hub.reader(&log_id(0), 0);
    let writer = hub.open(&node.alloc, node.board.clone()).await.unwrap();
    writer.data(0, Bytes::from(node.log.clone()), true);
    assert_eq!(reader.next().await.unwrap().unwrap(), node.log);
    soon("a refused put", async {
        while blobs.refused.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let words = node.board.next().await;
    assert!(matches!(words.as_slice(), [Reply::From { offset: 0, .. }]), "{words:?}");
    blobs.set_failing(false);
    assert_eq!(node.acked().await, 1_000);
}

#[tokio::test]
async fn memory_is_bounded_and_what_found_no_room_comes_again() {
    let folder = TempDir::new().unwrap();
    let blobs = FlakyBlobs::open(folder.path());
    let hub = tight_hub(blobs.clone(), 2 << 20);
    let node = Node::new(alloc_id(0, 1), bytes(12 << 20));
    blobs.set_failing(true);
    let filler = hub.open(&node.alloc, node.board.clone()).await.unwrap();
    for at in (0..node.log.len()).step_by(1 << 18) {
        filler.data(at as u64, Bytes::copy_from_slice(&node.log[at..at + (1 << 18)]), false);
    }
    let len = hub.reader(&log_id(0), 0).length().await.unwrap();
    assert!(
        (2 << 20..=(2 << 20) + (1 << 18)).contains(&len),
        "{len} bytes were taken"
    );
    blobs.set_failing(false);
    node.ship(&hub, 1 << 18).await;
    assert_eq!(read_all(&hub, 0).await, node.log);
}

#[tokio::test]
async fn a_reader_that_falls_behind_reads_blobs_and_misses_nothing() {
    let folder = TempDir::new().unwrap();
    let blobs = FlakyBlobs::open(folder.path());
    let hub = hub(blobs.clone());
    let node = Node::new(alloc_id(0, 1), bytes(5 << 20));
    let mut slow = hub.reader(&log_id(0), 0);
    node.ship(&hub, 1 << 18).await;
    assert_eq!(blobs.reads.load(Ordering::SeqCst), 0, "nobody has read a blob so far");
    let mut read = Vec::new();
    while let Some(piece) = slow.next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert!(blobs.reads.load(Ordering::SeqCst) > 0);
    assert_eq!(read, node.log);
}

#[tokio::test]
async fn two_thousand_readers_share_the_bytes() {
    let folder = TempDir::new().unwrap();
    let blobs = FlakyBlobs::open(folder.path());
    let hub = hub(blobs.clone());
    let mut readers: Vec<_> = (0..2_000).map(|_| hub.reader(&log_id(0), 0)).collect();
    let board = Arc::new(Board::default());
    let writer = hub.open(&alloc_id(0, 1), board).await.unwrap();
    for round in 0..3_u64 {
        let line = Bytes::from(vec![b'x'; 32 * 1024]);
        writer.data(round * 32 * 1024, line.clone(), false);
        for reader in &mut readers {
            let piece = reader.next().await.unwrap().expect("live bytes");
            assert_eq!(piece.as_ptr(), line.as_ptr(), "shared, not copied");
        }
    }
    assert_eq!(blobs.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_ended_logs_many_blobs_become_few_and_readers_go_on() {
    let folder = TempDir::new().unwrap();
    let blobs = FlakyBlobs::open(folder.path());
    let hub = hub(blobs.clone());
    let node = Node::new(alloc_id(0, 1), bytes(100_000));
    let writer = hub.open(&node.alloc, node.board.clone()).await.unwrap();
    for part in 1..=40 {
        writer.data(
            (part - 1) * 2_500,
            Bytes::copy_from_slice(&node.log[(part as usize - 1) * 2_500..part as usize * 2_500]),
            false,
        );
        while node.acked().await < part * 2_500 {}
    }
    let prefix = log_id(0).prefix();
    assert_eq!(blobs.list(&prefix).await.unwrap().len(), 40);
    drop(writer);
    let mut reader = hub.reader(&log_id(0), 0);
    let mut read = reader.next().await.unwrap().unwrap().to_vec();
    let writer = hub.open(&node.alloc, node.board.clone()).await.unwrap();
    writer.data(100_000, Bytes::new(), true);
    soon("the merge", async {
        while blobs.list(&prefix).await.unwrap().len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    while let Some(piece) = reader.next().await.unwrap() {
        read.extend_from_slice(&piece);
    }
    assert_eq!(read, node.log, "a reader with an old listing finds the merged blob");
}

#[tokio::test]
async fn a_merge_that_was_cut_off_leaves_the_log_whole() {
    let folder = TempDir::new().unwrap();
    let blobs = FlakyBlobs::open(folder.path());
    let log = bytes(5_000);
    let put = async |from: usize, to: usize| {
        let name = BlobName::new(log_id(0).blob(from as u64, (to - from) as u64)).unwrap();
        blobs.put(&name, log[from..to].to_vec()).await.unwrap();
    };
    for at in (0..5_000).step_by(1_000) {
        put(at, at + 1_000).await;
    }
    put(0, 3_000).await;
    let name = BlobName::new(log_id(0).blob(1_000, 1_000)).unwrap();
    blobs.delete(&name).await.unwrap();
    assert_eq!(read_all(&hub(blobs.clone()), 0).await, log);
}

/// A run with steps `unit` and `lint`, its logs, and streams of them.
struct World {
    store: Arc<dyn Store>,
    hub: LogHub,
    feeds: Feeds,
    definitions: Definitions,
    archives: crate::archive::Archives,
    stop: CancellationToken,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        make_run(store.as_ref(), &["unit", "lint"]).await;
        let blobs = FlakyBlobs::open(&folder.path().join("blobs"));
        let history = Arc::new(store::SqliteHistory::open(folder.path().join("history")).unwrap());
        let view = crate::view::View::new(crate::metrics::Metrics::new());
        Self {
            archives: crate::archive::Archives::new(view, history, blobs.clone()),
            hub: hub(blobs),
            store,
            feeds: Feeds::default(),
            definitions: Definitions::default(),
            stop: CancellationToken::new(),
            _folder: folder,
        }
    }

    async fn tail(&self, scope: Scope, live: bool) -> Stream {
        let follow = self
            .feeds
            .follow(&self.store, &self.definitions, &self.archives, &run_id())
            .await
            .unwrap();
        let tail = Tail::new(self.hub.clone(), follow, scope, live, self.stop.clone());
        Stream {
            bytes: tail.into_stream().map(Result::unwrap).boxed(),
            waiting: Vec::new(),
        }
    }

    async fn follow(&self, step: usize, offset: u64) -> Stream {
        self.follow_from(step, None, Position { attempt: 0, offset }).await
    }

    async fn follow_from(&self, step: usize, only: Option<u32>, from: Position) -> Stream {
        let scope = Scope::Step {
            step,
            only,
            fixed: None,
            from,
        };
        self.tail(scope, true).await
    }

    /// Writes the step's record as a leader does.
    async fn record(&self, record: &model::StepRecord) {
        let txn = Txn::new().put(key::step(&run_id(), 0), record);
        self.store.commit(txn).await.unwrap();
    }

    async fn place(&self, step: usize) -> super::LogWriter {
        place(self.store.as_ref(), &allocation(step, 1)).await;
        self.hub.open(&alloc_id(step, 1), Arc::default()).await.unwrap()
    }
}

struct Stream {
    bytes: BoxStream<'static, Bytes>,
    waiting: Vec<Event>,
}

impl Stream {
    async fn next(&mut self) -> Option<Event> {
        while self.waiting.is_empty() {
            let chunk = soon("an event", self.bytes.next()).await?;
            self.waiting = events(&chunk);
            self.waiting.reverse();
        }
        self.waiting.pop()
    }

    /// The next event, which is of this kind; its data.
    async fn expect(&mut self, kind: &str) -> Event {
        let event = self.next().await.expect("another event");
        assert_eq!(event.event, kind, "{event:?}");
        event
    }

    async fn rest(mut self) -> Vec<Event> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event);
        }
        rest
    }
}

#[tokio::test]
async fn a_follower_waits_for_the_step_and_stays_to_its_end() {
    let world = World::new().await;
    let mut stream = world.follow(0, 0).await;
    let writer = world.place(0).await;
    writer.data(0, Bytes::from_static(b"one\ntwo"), false);
    let step = stream.expect("step").await;
    assert_eq!(step.data, r#"{"step":"unit","attempt":1,"offset":0}"#);
    let first = stream.expect("log").await;
    assert_eq!((first.data.as_str(), first.id.as_deref()), ("one\ntwo", Some("7")));
    writer.data(7, Bytes::from_static(b"\r10%\r\n\xff"), true);
    fold(world.store.as_ref(), 0, 1, 14).await;
    let raw = stream.expect("bytes").await;
    assert_eq!(
        (raw.bytes().as_slice(), raw.id.as_deref()),
        (b"\r10%\r\n\xff".as_slice(), Some("14"))
    );
    let end = stream.expect("end").await;
    assert_eq!(end.data, r#"{"step":"unit","attempt":1,"total":14,"complete":true}"#);
    assert_eq!(end.id.as_deref(), Some("14"));
    assert_eq!(stream.expect("done").await.data, "{}");
    assert_eq!(stream.next().await, None);

    let again = world.follow(0, 7).await.rest().await;
    let got: Vec<u8> = again.iter().flat_map(Event::bytes).collect();
    assert_eq!(got, b"\r10%\r\n\xff", "from the last id on");
}

#[tokio::test]
async fn the_end_is_said_only_when_every_byte_was_there() {
    let world = World::new().await;
    let writer = world.place(0).await;
    writer.data(0, Bytes::from_static(b"abc"), false);
    let mut stream = world.follow(0, 0).await;
    stream.expect("step").await;
    stream.expect("log").await;
    // The report comes before the log's tail.
    fold(world.store.as_ref(), 0, 1, 6).await;
    writer.data(3, Bytes::from_static(b"def"), true);
    assert_eq!(stream.expect("log").await.data, "def");
    assert!(stream.expect("end").await.data.contains(r#""total":6,"complete":true"#));
}

#[tokio::test(start_paused = true)]
async fn a_tail_that_is_lost_is_said_to_be_lost() {
    let world = World::new().await;
    fold(world.store.as_ref(), 0, 1, 6).await;
    let events = world.follow(0, 0).await.rest().await;
    let kinds: Vec<&str> = events.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(kinds, ["end", "done"]);
    assert!(events[0].data.contains(r#""total":0,"complete":false"#), "{events:?}");
}

#[tokio::test]
async fn a_step_that_never_ran_has_an_empty_log() {
    let world = World::new().await;
    let mut stream = world.follow(1, 0).await;
    let skipped = model::StepRecord::first(StepStatus::Skipped);
    let txn = Txn::new().put(key::step(&run_id(), 1), &skipped);
    world.store.commit(txn).await.unwrap();
    let end = stream.expect("end").await;
    assert!(end.data.contains(r#""total":0,"complete":true"#), "{end:?}");
}

#[tokio::test]
async fn without_following_the_stream_ends_with_what_is_there() {
    let world = World::new().await;
    let writer = world.place(0).await;
    writer.data(0, Bytes::from_static(b"abc\xc3"), false);
    let scope = Scope::Step {
        step: 0,
        fixed: None,
        only: None,
        from: Position { attempt: 0, offset: 1 },
    };
    let events = world.tail(scope, false).await.rest().await;
    let kinds: Vec<&str> = events.iter().map(|e| e.event.as_str()).collect();
    assert_eq!(kinds, ["step", "log", "done"], "it has not ended, so no end is said");
    assert_eq!(events[1].data, "bc");
}

#[tokio::test]
async fn all_steps_of_a_run_come_interleaved_and_resume_at_an_id() {
    let world = World::new().await;
    let mut stream = world.tail(Scope::Run(Cursor::default()), true).await;
    let unit = world.place(0).await;
    unit.data(0, Bytes::from_static(b"unit 1\n"), false);
    assert!(stream.expect("step").await.data.contains("unit"));
    assert_eq!(stream.expect("log").await.data, "unit 1\n");
    let lint = world.place(1).await;
    lint.data(0, Bytes::from_static(b"lint 1\n"), true);
    assert!(stream.expect("step").await.data.contains("lint"));
    let seen = stream.expect("log").await;
    assert_eq!(seen.id.as_deref(), Some(";0:1:7,1:1:7"));
    unit.data(7, Bytes::from_static(b"unit 2\n"), true);
    assert!(
        stream
            .expect("step")
            .await
            .data
            .contains(r#""unit","attempt":1,"offset":7"#)
    );
    stream.expect("log").await;
    fold(world.store.as_ref(), 1, 1, 7).await;
    let end = stream.expect("end").await;
    assert!(end.data.contains("lint"), "{end:?}");
    assert_eq!(end.id.as_deref(), Some("1;0:1:14"));
    fold(world.store.as_ref(), 0, 1, 14).await;
    assert!(stream.expect("end").await.data.contains("unit"));
    stream.expect("done").await;

    let cursor = Cursor::parse(&seen.id.unwrap(), 2).unwrap();
    let rest = world.tail(Scope::Run(cursor), true).await.rest().await;
    let got: Vec<&str> = rest
        .iter()
        .filter(|e| e.event == "log")
        .map(|e| e.data.as_str())
        .collect();
    assert_eq!(got, ["unit 2\n"], "only what was not seen");
    let end = Cursor::parse(&end.id.unwrap(), 2).unwrap();
    let rest = world.tail(Scope::Run(end), true).await.rest().await;
    assert_eq!(
        rest.iter().filter(|e| e.event == "end").count(),
        1,
        "an end is said once"
    );
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let world = World::new().await;
    let stream = world.follow(0, 0).await;
    world.stop.cancel();
    assert_eq!(stream.rest().await, []);
}

#[tokio::test]
async fn a_new_attempt_ends_the_old_ones_log() {
    let world = World::new().await;
    let writer = world.place(0).await;
    writer.data(0, Bytes::from_static(b"first"), false);
    let mut single = world.follow(0, 0).await;
    let mut all = world.tail(Scope::Run(Cursor::default()), true).await;
    for stream in [&mut single, &mut all] {
        stream.expect("step").await;
        stream.expect("log").await;
    }
    place(world.store.as_ref(), &allocation(0, 2)).await;
    let second = world.hub.open(&alloc_id(0, 2), Arc::default()).await.unwrap();
    second.data(0, Bytes::from_static(b"second"), false);
    for stream in [&mut single, &mut all] {
        let end = stream.expect("end").await;
        assert!(
            end.data.contains(r#""attempt":1,"total":5,"complete":false"#),
            "{end:?}"
        );
    }
    for (stream, id) in [(&mut single, "2.6"), (&mut all, ";0:2:6")] {
        let step = stream.expect("step").await;
        assert!(step.data.contains(r#""attempt":2,"offset":0"#), "{step:?}");
        let log = stream.expect("log").await;
        assert_eq!((log.data.as_str(), log.id.as_deref()), ("second", Some(id)));
    }
}

/// An attempt that was followed by another one, with a log of so many bytes.
fn earlier(counter: u32, log_bytes: u64) -> model::Attempt {
    let order = allocation(0, counter);
    model::Attempt {
        attempt: counter,
        fence: order.fence,
        alloc: order.id,
        node: order.node,
        outcome: None,
        reason: "ended with exit code 1".to_owned(),
        counts: true,
        log_bytes: Some(log_bytes),
        times: model::Times::default(),
        usage: model::Usage::default(),
    }
}

#[tokio::test]
async fn a_follower_of_a_step_goes_on_with_its_next_attempts_and_says_so() {
    let world = World::new().await;
    let writer = world.place(0).await;
    writer.data(0, Bytes::from_static(b"first"), false);
    let mut stream = world.follow(0, 0).await;
    let mut only = world.follow_from(0, Some(1), Position::default()).await;
    for stream in [&mut stream, &mut only] {
        stream.expect("step").await;
        stream.expect("log").await;
    }
    // The first attempt has failed, and the next one waits for its time.
    let mut record = step_record(0, 1, model::StepStatus::Queued);
    record.alloc = None;
    record.earlier = vec![earlier(1, 5)];
    world.record(&record).await;
    let end = stream.expect("end").await;
    assert!(end.data.contains(r#""attempt":1,"total":5,"complete":true"#), "{end:?}");
    assert_eq!(end.id.as_deref(), Some("2.0"), "a reader that comes back goes on there");
    only.expect("end").await;
    only.expect("done").await;

    // The second one fails before anybody has seen it, and the third one ends well.
    let second = Node::new(alloc_id(0, 2), b"second".to_vec());
    second.ship(&world.hub, 6).await;
    let mut record = step_record(0, 3, model::StepStatus::Success);
    record.earlier = vec![earlier(1, 5), earlier(2, 6)];
    record.log_bytes = Some(5);
    let third = Node::new(alloc_id(0, 3), b"third".to_vec());
    third.ship(&world.hub, 5).await;
    world.record(&record).await;
    let said = |all: &[Event]| -> Vec<String> {
        let words = all.iter().filter(|e| e.event != "log" || !e.data.is_empty());
        words.map(|e| format!("{} {}", e.event, e.data)).collect()
    };
    let of = |attempt: u32, log: &str| {
        let len = log.len();
        [
            format!(r#"step {{"step":"unit","attempt":{attempt},"offset":0}}"#),
            format!("log {log}"),
            format!(r#"end {{"step":"unit","attempt":{attempt},"total":{len},"complete":true}}"#),
        ]
    };
    let rest = stream.rest().await;
    let later: Vec<String> = [&of(2, "second")[..], &of(3, "third"), &["done {}".to_owned()]].concat();
    assert_eq!(said(&rest), later);

    // Whoever lost its connection in the first attempt misses nothing of any.
    let from = Position::parse("2").unwrap();
    let again = world.follow_from(0, None, from).await.rest().await;
    let first = of(1, "first").map(|w| {
        w.replace(r#""offset":0"#, r#""offset":2"#)
            .replace("log first", "log rst")
    });
    assert_eq!(said(&again), [&first[..], &later].concat());
}

#[test]
fn ids_of_one_step_are_offsets_and_say_the_attempt_when_it_is_not_the_first() {
    for (attempt, offset, id) in [(1, 0, "0"), (1, 77, "77"), (2, 0, "2.0"), (9, 77, "9.77")] {
        let position = Position { attempt, offset };
        assert_eq!((position.id(), Position::parse(id)), (id.to_owned(), Some(position)));
    }
    for strange in ["", ".", "1.", ".1", "0.1", "-1", "1.2.3", "x", "99999999999999999999"] {
        assert_eq!(Position::parse(strange), None, "{strange}");
    }
}

#[tokio::test]
async fn a_download_of_a_run_has_every_step_under_its_name() {
    let world = World::new().await;
    let node = Node::new(alloc_id(0, 1), b"hello\n".to_vec());
    place(world.store.as_ref(), &allocation(0, 1)).await;
    node.ship(&world.hub, 4).await;
    fold(world.store.as_ref(), 0, 1, 6).await;
    let picture = feed::picture(world.store.as_ref(), &world.definitions, &world.archives, &run_id())
        .await
        .unwrap();
    let parts = parts_of(&Arc::new(picture));
    let all: Vec<Bytes> = download(world.hub.clone(), parts).map(Result::unwrap).collect().await;
    let text = String::from_utf8(all.concat()).unwrap();
    assert_eq!(text, "==> unit, attempt 1 <==\nhello\n==> lint: not started yet <==\n");
}
