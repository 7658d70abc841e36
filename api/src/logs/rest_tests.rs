//! The routes of logs as a client sees them.

use super::frame::reading::{Event, events};
use super::rest::routes;
use crate::explain::NoExplain;
use crate::fleet::fixture::*;
use crate::state::{ApiConfig, Deps, Server, Shared};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use model::record::Unknown;
use model::{StepRecord, StepStatus, key};
use std::sync::Arc;
use store::memory::MemoryStore;
use store::{FolderBlobs, Store, Txn};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const UNIT: &str = "/api/v1/runs/01jd/steps/unit/logs";
const ALL: &str = "/api/v1/runs/01jd/logs";

struct World {
    server: Shared,
    router: Router,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Arc::new(MemoryStore::new());
        make_run(store.as_ref(), &["unit", "lint"]).await;
        let mirrors = git_mirror::Mirrors::new(folder.path().join("git"), git_mirror::GitSettings::default());
        let deps = Deps {
            store,
            blobs: Arc::new(FolderBlobs::open(folder.path().join("blobs")).unwrap()),
            sources: Arc::new(mirrors.unwrap()),
            history: Arc::new(store::SqliteHistory::open(folder.path().join("history")).unwrap()),
            explain: Arc::new(NoExplain),
            leading: tokio::sync::watch::channel(None).1,
            peers: reqwest::Client::new(),
            membership: None,
            shutdown: CancellationToken::new(),
        };
        let config = ApiConfig {
            server_name: "s1".to_owned(),
            web_url: "http://x".to_owned(),
            advertise: String::new(),
            node_lease_ms: 20_000,
            archive: crate::ArchiveTimes::default(),
            keep: crate::Keep::default(),
            allowance: crate::Allowance::default(),
        };
        let server = Server::new(config, deps);
        let router = routes().split_for_parts().0.with_state(server.clone());
        Self {
            server,
            router,
            _folder: folder,
        }
    }

    fn store(&self) -> &dyn Store {
        self.server.store()
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        soon("an answer", self.router.clone().oneshot(request)).await.unwrap()
    }

    async fn refusal(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let response = self.get(path, headers).await;
        let status = response.status();
        let body = String::from_utf8(body(response).await.to_vec()).unwrap();
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        (status, problem["detail"].as_str().unwrap().to_owned())
    }

    /// Ships a step's whole log and folds its end.
    async fn finish(&self, step: usize, counter: u32, log: &'static [u8]) {
        place(self.store(), &allocation(step, counter)).await;
        let board = Arc::new(super::Board::default());
        let writer = self
            .server
            .logs
            .open(&alloc_id(step, counter), board.clone())
            .await
            .unwrap();
        writer.data(0, Bytes::from_static(log), true);
        soon("the whole log is stored", async {
            let whole = |reply: &super::Reply| matches!(reply, super::Reply::Ack { complete: true, .. });
            while !board.next().await.iter().any(whole) {}
        })
        .await;
        fold(self.store(), step, counter, log.len() as u64).await;
    }
}

async fn body(response: Response<Body>) -> Bytes {
    soon("the whole body", response.into_body().collect())
        .await
        .unwrap()
        .to_bytes()
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |v| v.to_str().unwrap())
}

#[tokio::test]
async fn a_download_says_what_it_is() {
    let world = World::new().await;
    let before = world.get(UNIT, &[]).await;
    assert_eq!(
        (header(&before, "content-length"), header(&before, "x-log-complete")),
        ("0", "false")
    );
    world.finish(0, 1, b"one\ntwo\n").await;
    for (path, text, length, offset) in [
        (UNIT.to_owned(), "one\ntwo\n", "8", "0"),
        (format!("{UNIT}?offset=4"), "two\n", "4", "4"),
        (format!("{UNIT}?offset=8&follow=false&attempt=1"), "", "0", "8"),
    ] {
        let response = world.get(&path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(header(&response, "content-type"), "text/plain; charset=utf-8");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "content-length"), length, "{path}");
        assert_eq!(header(&response, "x-log-offset"), offset, "{path}");
        assert_eq!(header(&response, "x-log-complete"), "true");
        assert_eq!(header(&response, "x-log-attempt"), "1");
        assert_eq!(body(response).await, text);
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_is_refused_by_name() {
    let world = World::new().await;
    world.finish(0, 1, b"abc").await;
    let bad = StatusCode::BAD_REQUEST;
    let absent = StatusCode::NOT_FOUND;
    let beyond = StatusCode::RANGE_NOT_SATISFIABLE;
    let cases = [
        (format!("{UNIT}?tail=3"), bad, "`tail`: is not a parameter"),
        (
            format!("{UNIT}?offset=-1"),
            bad,
            "`offset`: must be a whole number from 0 on",
        ),
        (
            format!("{UNIT}?attempt=0"),
            bad,
            "`attempt`: must be a whole number from 1 on",
        ),
        (
            format!("{UNIT}?follow=maybe"),
            bad,
            "`follow`: must be `true` or `false`",
        ),
        (
            format!("{UNIT}?offset=4"),
            beyond,
            "`offset` is 4, but the log has 3 bytes",
        ),
        (
            format!("{UNIT}?offset=4&follow=true"),
            beyond,
            "`offset` is 4, but the log has 3 bytes",
        ),
        (format!("{UNIT}?attempt=2"), absent, "no attempt 2; the newest is 1"),
        (
            "/api/v1/runs/01jd/steps/deploy/logs".to_owned(),
            absent,
            "no step `deploy`",
        ),
        ("/api/v1/runs/02/steps/unit/logs".to_owned(), absent, "no run `02`"),
        ("/api/v1/runs/a%2Fb/logs".to_owned(), absent, "no run `a/b`"),
        (format!("{ALL}?offset=4"), bad, "`offset`: is for the log of one step"),
        (format!("{ALL}?attempt=1"), bad, "`attempt`: is for the log of one step"),
    ];
    for (path, status, text) in cases {
        let (found, detail) = world.refusal(&path, &[]).await;
        assert_eq!(found, status, "{path}: {detail}");
        assert!(detail.contains(text), "{path}: {detail}");
    }
    for path in [UNIT, ALL] {
        let headers = [("accept", "text/event-stream"), ("last-event-id", "nonsense")];
        let (status, detail) = world.refusal(path, &headers).await;
        assert_eq!(status, bad);
        assert!(detail.contains("Last-Event-ID"), "{detail}");
    }
}

#[tokio::test]
async fn a_stream_of_events_resumes_after_its_last_id() {
    let world = World::new().await;
    world.finish(0, 1, b"one\ntwo\n").await;
    for (path, headers, expect) in [
        (format!("{UNIT}?follow=true"), vec![], "one\ntwo\n"),
        (UNIT.to_owned(), vec![("accept", "text/event-stream")], "one\ntwo\n"),
        (format!("{UNIT}?follow=true&offset=4"), vec![], "two\n"),
        (
            format!("{UNIT}?follow=true&offset=1"),
            vec![("last-event-id", "4")],
            "two\n",
        ),
        (format!("{UNIT}?follow=true"), vec![("last-event-id", "8")], ""),
        (
            format!("{UNIT}?follow=false"),
            vec![("accept", "text/event-stream")],
            "one\ntwo\n",
        ),
    ] {
        let response = world.get(&path, &headers).await;
        assert_eq!(header(&response, "content-type"), "text/event-stream", "{path}");
        assert_eq!(header(&response, "cache-control"), "no-cache");
        assert_eq!(header(&response, "x-log-attempt"), "1");
        let all = events(&body(response).await);
        let log: Vec<u8> = all.iter().flat_map(Event::bytes).collect();
        assert_eq!(log, expect.as_bytes(), "{path}");
        let last: Vec<&str> = all.iter().rev().take(2).map(|e| e.event.as_str()).collect();
        assert_eq!(last, ["done", "end"], "{path}");
    }
}

#[tokio::test]
async fn an_earlier_attempt_is_still_there() {
    let world = World::new().await;
    world.finish(0, 1, b"first").await;
    world.finish(0, 2, b"second").await;
    for (attempt, text) in [("", "second"), ("?attempt=2", "second"), ("?attempt=1", "first")] {
        let response = world.get(&format!("{UNIT}{attempt}"), &[]).await;
        assert_eq!(
            header(&response, "x-log-attempt"),
            if text == "first" { "1" } else { "2" }
        );
        assert_eq!(body(response).await, text);
    }
    let response = world.get(&format!("{UNIT}?attempt=1&follow=true"), &[]).await;
    let all = events(&body(response).await);
    assert_eq!(all[1].data, "first", "{all:?}");
    for (query, last_id, text) in [
        ("follow=true", "2.3", "ond"),
        ("follow=true&attempt=2", "2.3", "ond"),
        ("follow=true&attempt=1", "2", "rst"),
    ] {
        let response = world
            .get(&format!("{UNIT}?{query}"), &[("last-event-id", last_id)])
            .await;
        let all = events(&body(response).await);
        let log: Vec<u8> = all.iter().flat_map(Event::bytes).collect();
        assert_eq!(log, text.as_bytes(), "{query} from {last_id}: {all:?}");
    }
}

#[tokio::test]
async fn the_whole_run_is_downloaded_or_followed() {
    let world = World::new().await;
    world.finish(0, 1, b"compiled\n").await;
    let skipped = StepRecord {
        unknown: Unknown::new(),
        ..StepRecord::first(StepStatus::Skipped)
    };
    let txn = Txn::new().put(key::step(&run_id(), 1), &skipped);
    world.store().commit(txn).await.unwrap();
    let response = world.get(ALL, &[]).await;
    assert_eq!(header(&response, "x-log-complete"), "true");
    let text = "==> unit, attempt 1 <==\ncompiled\n==> lint: did not run <==\n";
    assert_eq!(body(response).await, text);
    let response = world.get(&format!("{ALL}?follow=true"), &[]).await;
    let kinds: Vec<String> = events(&body(response).await).into_iter().map(|e| e.event).collect();
    assert_eq!(kinds, ["step", "log", "end", "done"]);

    // The run is of 1970: its logs may go at any time.
    let blobs = world.server.deps.blobs.clone();
    for entry in blobs.list("log/").await.unwrap() {
        blobs.delete(&entry.name).await.unwrap();
    }
    for path in [UNIT.to_owned(), ALL.to_owned(), format!("{UNIT}?follow=true")] {
        let (status, detail) = world.refusal(&path, &[]).await;
        assert_eq!(status, StatusCode::GONE, "{path}");
        assert!(detail.contains("kept for 90 days"), "{detail}");
    }
}

#[tokio::test]
async fn a_server_bears_so_many_streams_and_says_so() {
    let world = World::new().await;
    let all = u32::try_from(world.server.streams.available_permits()).unwrap();
    let held = world.server.streams.clone().acquire_many_owned(all - 1).await.unwrap();
    let open = world.get(&format!("{UNIT}?follow=true"), &[]).await;
    assert_eq!(open.status(), StatusCode::OK);
    let response = world.get(&format!("{ALL}?follow=true"), &[]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&response, "retry-after"), "2");
    drop(open);
    let response = world.get(&format!("{ALL}?follow=true"), &[]).await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "a stream that was closed gives its place back"
    );
    drop(held);
}

const JSON: [(&str, &str); 1] = [("accept", "application/json")];

async fn json(world: &World, path: &str) -> serde_json::Value {
    let response = world.get(path, &JSON).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(header(&response, "content-type"), "application/json");
    serde_json::from_slice(&body(response).await).unwrap()
}

#[tokio::test]
async fn what_is_asked_wrongly_of_lines_is_refused_by_name() {
    let world = World::new().await;
    world.finish(0, 1, b"abc").await;
    let bad = StatusCode::BAD_REQUEST;
    let beyond = StatusCode::RANGE_NOT_SATISFIABLE;
    let cases = [
        (
            format!("{UNIT}?line=0"),
            bad,
            "`line`: must be a whole number from 1 on",
        ),
        (
            format!("{UNIT}?count=x"),
            bad,
            "`count`: must be a whole number from 0 on",
        ),
        (format!("{UNIT}?q="), bad, "`q`: must have 1 to 512 bytes"),
        (
            format!("{UNIT}?q={}", "x".repeat(513)),
            bad,
            "`q`: must have 1 to 512 bytes",
        ),
        (format!("{UNIT}?q=a%0Ab"), bad, "`q`: must be within one line"),
        (
            format!("{UNIT}?line=1&follow=true"),
            bad,
            "`line`: is not for a stream of events",
        ),
        (format!("{UNIT}?q=a&offset=1"), bad, "`q`: counts lines"),
        (format!("{UNIT}?line=3"), beyond, "`line` is 3, but the log has 1 lines"),
        (format!("{ALL}?q=x"), bad, "`q`: is for the log of one step"),
    ];
    for (path, status, text) in cases {
        let (found, detail) = world.refusal(&path, &[]).await;
        assert_eq!(found, status, "{path}: {detail}");
        assert!(detail.contains(text), "{path}: {detail}");
    }
}

#[tokio::test]
async fn lines_are_given_by_number_as_text_and_as_json() {
    let world = World::new().await;
    let before = json(&world, &format!("{UNIT}?line=1")).await;
    assert_eq!((&before["total_lines"], &before["attempt"]), (&0.into(), &0.into()));
    assert_eq!(before["complete"], false);
    world.finish(0, 1, b"one\ntw\xffo\n\nfour").await;
    for (query, text, first, offset) in [
        ("line=2&count=2", &b"tw\xffo\n\n"[..], "2", "4"),
        ("line=4", b"four", "4", "10"),
        ("line=5", b"", "5", "14"),
        ("count=1", b"one\n", "1", "0"),
        ("line=3&count=0", b"", "3", "9"),
        ("line=1&count=18446744073709551615", b"one\ntw\xffo\n\nfour", "1", "0"),
    ] {
        let response = world.get(&format!("{UNIT}?{query}"), &[]).await;
        assert_eq!(header(&response, "x-log-line"), first, "{query}");
        assert_eq!(header(&response, "x-log-lines"), "4");
        assert_eq!(header(&response, "x-log-offset"), offset, "{query}");
        assert_eq!(header(&response, "x-log-complete"), "true");
        assert_eq!(body(response).await, text, "{query}");
    }
    let lines = json(&world, &format!("{UNIT}?line=2&count=9")).await;
    assert_eq!(lines["lines"], serde_json::json!(["tw\u{FFFD}o", "", "four"]));
    assert_eq!((&lines["line"], &lines["offset"]), (&2.into(), &4.into()));
    assert_eq!((&lines["end_offset"], &lines["total_bytes"]), (&14.into(), &14.into()));
    assert_eq!((&lines["total_lines"], &lines["ended"]), (&4.into(), &false.into()));
    assert_eq!(
        (&lines["complete"], &lines["attempt"], &lines["cut"]),
        (&true.into(), &1.into(), &serde_json::json!([]))
    );
}

#[tokio::test]
async fn however_long_a_line_or_a_log_is_an_answer_is_bounded() {
    let world = World::new().await;
    let long: &'static [u8] = Box::leak(
        [vec![b'x'; 3_000_000], b"\nnext\n".to_vec()]
            .concat()
            .into_boxed_slice(),
    );
    world.finish(0, 1, long).await;
    let lines = json(&world, &format!("{UNIT}?line=1&count=5")).await;
    assert_eq!(lines["lines"][0].as_str().unwrap().len(), 16 * 1024);
    assert_eq!(lines["lines"][1], "next");
    assert_eq!(lines["cut"], serde_json::json!([{"line": 1, "bytes": 3_000_000}]));
    assert_eq!(lines["end_offset"], 3_000_006);
    let many: &'static [u8] = Box::leak("y".repeat(999).into_bytes().into_boxed_slice());
    let many: &'static [u8] = Box::leak([many, b"\n"].concat().repeat(6_000).into_boxed_slice());
    world.finish(1, 1, many).await;
    let lint = "/api/v1/runs/01jd/steps/lint/logs";
    let lines = json(&world, &format!("{lint}?line=1&count=100000")).await;
    let shown = lines["lines"].as_array().unwrap().len();
    assert!((1_000..=1_100).contains(&shown), "a mebibyte of them: {shown}");
    let rest = json(&world, &format!("{lint}?line={}&count=100000", shown + 1)).await;
    assert_eq!(rest["offset"], lines["end_offset"]);
    let found = json(&world, &format!("{lint}?q=y&count=100000")).await;
    assert_eq!(found["matches"].as_array().unwrap().len(), 1_000);
    assert_eq!(found["next_line"], 1_001);
}

#[tokio::test]
async fn text_is_found_by_pages_from_a_line_on() {
    let world = World::new().await;
    world
        .finish(0, 1, b"one error\nfine\n\x1b[31mError\x1b[0m: two\nerror three")
        .await;
    let found = json(&world, &format!("{UNIT}?q=error&count=2")).await;
    let expect = serde_json::json!([
        {"line": 1, "offset": 0, "text": "one error"},
        {"line": 3, "offset": 15, "text": "Error: two"},
    ]);
    assert_eq!(found["matches"], expect);
    assert_eq!((&found["next_line"], &found["total_lines"]), (&4.into(), &4.into()));
    let rest = json(&world, &format!("{UNIT}?q=error&count=2&line=4")).await;
    assert_eq!(rest["matches"][0]["text"], "error three");
    assert_eq!(rest["next_line"], serde_json::Value::Null);
    assert_eq!(rest["lines_searched"], 1);
    let response = world.get(&format!("{UNIT}?q=%65rror%20t"), &[]).await;
    assert_eq!(body(response).await, "4:error three\n");
    let response = world.get(&format!("{UNIT}?q=Error&count=1"), &[]).await;
    assert_eq!(header(&response, "x-log-next-line"), "4");
    assert_eq!(header(&response, "x-content-type-options"), "nosniff");
    assert_eq!(body(response).await, "3:Error: two\n");
}

#[tokio::test]
async fn what_comes_later_is_counted_on_and_sections_are_named() {
    let world = World::new().await;
    place(world.store(), &allocation(0, 1)).await;
    let board = Arc::new(super::Board::default());
    let opened = world.server.logs.open(&alloc_id(0, 1), board.clone()).await;
    let writer = opened.unwrap();
    let heading = step_def("unit").run[0].heading();
    let text = format!("before\n{heading}\nhal");
    let len = text.len() as u64;
    writer.data(0, Bytes::from(text), false);
    let lines = json(&world, &format!("{UNIT}?line=2")).await;
    assert_eq!((&lines["total_lines"], &lines["ended"]), (&3.into(), &false.into()));
    assert_eq!(lines["lines"][1], "hal");
    assert_eq!(lines["sections"][0]["line"], 2);
    assert_eq!(lines["complete"], false);
    writer.data(len, Bytes::from_static(b"f\nend\n"), true);
    let lines = json(&world, &format!("{UNIT}?line=3")).await;
    assert_eq!(lines["lines"], serde_json::json!(["half", "end"]));
    assert_eq!((&lines["total_lines"], &lines["ended"]), (&4.into(), &true.into()));
}
