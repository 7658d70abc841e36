//! Verbs against a server that is none: arguments, calls, output, exit codes.

use super::arguments::{OutputForm, RunName};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::settings::Settings;
use super::table::{Cell, Colour, Paint, ago, cores, duration, fields, printable, size, table};
use super::{GlobalOptions, dispatch};
use api::dto::{Problem, RunStatus};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use clap::Parser as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex};

const RUN: &str = "01jdc8m4v5w6x7y8z9a0b1c2d3";

/// What was written.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a command has done.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: Vec<u8>,
    failure: String,
}

impl Ran {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.out).expect("JSON")
    }
}

async fn buildflow_at(addr: &str, line: &[&str]) -> Ran {
    let arguments = crate::Arguments::try_parse_from([&["buildflow", "--addr", addr], line].concat());
    let arguments = arguments.unwrap_or_else(|e| panic!("{line:?}: {e}"));
    #[allow(
        irrefutable_let_patterns,
        reason = "the program has roles besides the client's verbs"
    )]
    let crate::Command::Client(command) = arguments.command else {
        panic!("{line:?} is no verb of the client");
    };
    let sink = Sink::default();
    let mut output = Output::to(arguments.global.output, Box::new(sink.clone()));
    let done = dispatch(command, &arguments.global, &mut output).await;
    let (code, failure) = match done {
        Ok(exit) => (exit.code(), String::new()),
        Err(failure) => (failure.exit().code(), failure.to_string()),
    };
    let out = sink.0.lock().expect("no panic").clone();
    Ran { code, out, failure }
}

/// A server that answers from a script and remembers what it was asked.
#[derive(Clone, Default)]
struct Fake {
    asked: Arc<Mutex<Vec<String>>>,
    /// The `Last-Event-ID` of each connection to the run's changes.
    changes_asked: Arc<Mutex<Vec<Option<String>>>>,
    /// The status of the run, each time it is looked at; the last one repeats.
    statuses: Arc<Mutex<VecDeque<&'static str>>>,
    /// The bodies of log streams, one for each connection.
    streams: Arc<Mutex<VecDeque<String>>>,
}

impl Fake {
    fn with(statuses: &[&'static str], streams: &[&str]) -> Self {
        let fake = Self::default();
        fake.statuses.lock().expect("no panic").extend(statuses);
        fake.streams
            .lock()
            .expect("no panic")
            .extend(streams.iter().map(|&s| s.to_owned()));
        fake
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    async fn serve(&self) -> String {
        let routes = Router::new()
            .route("/api/v1/runs", get(list_runs))
            .route(
                "/api/v1/pipelines/{team}/{pipeline}/runs",
                post(create_run).get(list_runs),
            )
            .route("/api/v1/pipelines/{team}/{pipeline}/runs/{number}", get(show_numbered))
            .route("/api/v1/runs/{run}", get(show_run))
            .route("/api/v1/runs/{run}/events", get(changes))
            .route("/api/v1/runs/{run}/logs", get(log))
            .route("/api/v1/runs/{run}/steps/{step}/logs", get(log))
            .route(
                "/api/v1/nodes",
                get(|| async { Json(json!({ "nodes": [], "news": 1 })) }),
            )
            .route("/api/v1/pipelines/default/refused-{status}", any(refuse))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        addr
    }

    async fn run(&self, line: &[&str]) -> Ran {
        buildflow_at(&self.serve().await, line).await
    }

    fn note(&self, what: String) {
        self.asked.lock().expect("no panic").push(what);
    }
}

fn run_summary(number: u64, id: &str, status: &str) -> Value {
    json!({
        "run_id": id, "number": number, "team": "default", "pipeline": "backend", "status": status, "event": "push",
        "ref": "refs/heads/main", "branch": "main", "tag": null, "commit": "4f1c2d3e4f5a6b7c8d9e", "message": "faster\u{1b}[2J",
        "author": "Ann", "requested_by": "hook", "steps": 1, "error": null, "created_ms": 1, "started_ms": 1000,
        "ended_ms": 4500, "web_url": "http://x/", "news": { "of": "a newer release" }
    })
}

fn run_detail(status: &str) -> Value {
    let mut run = run_summary(12, RUN, status);
    let step = json!({
        "name": "unit", "title": null, "ordinal": 0, "status": if status == "running" { "running" } else { status },
        "attempt": 1, "node": "n1", "node_name": "node-1", "reason": "ended with exit code 3", "exit_code": 3,
        "outcome": "exited", "needs": [], "allow_failure": false, "image": "i", "timeout_ms": 1,
        "resources": { "cpu_millis": 1, "memory_bytes": 1, "disk_bytes": 1 }, "phases": [], "use": null,
        "times": { "queued_ms": 1, "assigned_ms": 1, "started_ms": 1000, "ended_ms": 2000 }, "log_bytes": null,
        "retry_at_ms": null, "attempts": []
    });
    let more = json!({
        "title": null, "attempt": 1, "repository": "/srv/a", "variables": {}, "findings": [], "cancel_requested": false,
        "request_id": "r", "stages": [{ "name": "test", "steps": [step] }]
    });
    let fields = more.as_object().expect("an object").clone();
    run.as_object_mut().expect("an object").extend(fields);
    run
}

async fn list_runs(State(fake): State<Fake>, Query(query): Query<BTreeMap<String, String>>) -> Json<Value> {
    fake.note(format!("list {query:?}"));
    // Two pages of three runs.
    let (runs, next) = match query.get("cursor").map(String::as_str) {
        None => (
            vec![
                run_summary(13, "01jdd00000000000000000000z", "failed"),
                run_summary(12, RUN, "success"),
            ],
            Some("2"),
        ),
        Some(_) => (vec![run_summary(11, "01jda00000000000000000000a", "success")], None),
    };
    Json(json!({ "runs": runs, "next_cursor": next }))
}

async fn create_run(State(fake): State<Fake>, Json(body): Json<Value>) -> Response {
    fake.note(format!("create {body}"));
    let answer =
        json!({ "run_id": RUN, "number": 12, "status": "queued", "web_url": "http://x/runs/1", "created": true });
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn show_run(State(fake): State<Fake>, Path(run): Path<String>) -> Response {
    if run != RUN {
        let problem = json!({ "type": "x", "title": "t", "status": 404, "detail": format!("there is no run `{run}`") });
        return (StatusCode::NOT_FOUND, Json(problem)).into_response();
    }
    let mut statuses = fake.statuses.lock().expect("no panic");
    let status = if statuses.len() > 1 {
        statuses.pop_front()
    } else {
        statuses.front().copied()
    };
    if status == Some("away") {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(run_detail(status.unwrap_or("success"))).into_response()
}

async fn show_numbered(state: State<Fake>, Path((_, _, number)): Path<(String, String, u64)>) -> Response {
    let run = if number == 12 {
        RUN.to_owned()
    } else {
        format!("default/backend#{number}")
    };
    show_run(state, Path(run)).await
}

/// Once as a snapshot that breaks off; who comes back is told that nothing follows.
async fn changes(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    let last = headers
        .get("last-event-id")
        .map(|v| v.to_str().expect("text").to_owned());
    fake.changes_asked.lock().expect("no panic").push(last.clone());
    match last {
        None => sse(&format!(
            "id: 7\nevent: snapshot\ndata: {}\n\nevent: st",
            run_detail("running")
        )),
        Some(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

fn sse(body: &str) -> Response {
    ([("content-type", "text/event-stream")], body.to_owned()).into_response()
}

async fn log(State(fake): State<Fake>, headers: HeaderMap, request: Request) -> Response {
    let last = headers
        .get("last-event-id")
        .map(|v| v.to_str().expect("text").to_owned());
    fake.note(format!("{} from {last:?}", request.uri()));
    let body = fake.streams.lock().expect("no panic").pop_front().unwrap_or_default();
    if request.uri().query().is_some_and(|q| q.contains("follow")) {
        return sse(&body);
    }
    ([("x-log-complete", "true")], body).into_response()
}

async fn refuse(Path(path): Path<HashMap<String, String>>) -> Response {
    let status = path["status"].parse().expect("a status");
    let problem = Problem {
        kind: "urn:buildflow:problem:x".to_owned(),
        title: "title".to_owned(),
        status,
        detail: Some("what was wrong and how to mend it".to_owned()),
        instance: None,
        request_id: Some("req-7".to_owned()),
        errors: Vec::new(),
    };
    (StatusCode::from_u16(status).expect("a status"), Json(problem)).into_response()
}

#[tokio::test]
async fn refusals_have_the_documented_exit_codes() {
    let addr = Fake::default().serve().await;
    let cases = [
        (400, 2, "what was wrong and how to mend it"),
        (401, 6, "set BUILDFLOW_TOKEN"),
        (403, 6, "what was wrong"),
        (404, 2, "what was wrong"),
        (409, 2, "what was wrong"),
        (418, 2, "what was wrong"),
        (429, 5, "try again in a moment"),
        (500, 5, "(request req-7)"),
        (501, 2, "what was wrong"),
        (503, 5, "what was wrong"),
    ];
    for (status, code, words) in cases {
        let pipeline = format!("refused-{status}");
        let ran = buildflow_at(&addr, &["pipeline", "show", &pipeline]).await;
        assert_eq!(ran.code, code, "{status}: {ran:?}");
        assert!(ran.failure.contains(words), "{status}: {ran:?}");
        assert_eq!(ran.text(), "", "{status}: errors are not results");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let ran = buildflow_at(&addr, &["runs"]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    for words in [addr.as_str(), "BUILDFLOW_ADDR", "refused", "--addr"] {
        assert!(ran.failure.contains(words), "{words}: {ran:?}");
    }
}

#[tokio::test]
async fn json_is_the_servers_own() {
    let fake = Fake::with(&["failed"], &[]);
    let ran = fake.run(&["show", RUN, "--output", "json"]).await;
    assert_eq!((ran.code, ran.json()), (0, run_detail("failed")));
    let ran = fake.run(&["--output=json", "node", "list"]).await;
    assert_eq!((ran.code, ran.json()), (0, json!({ "nodes": [], "news": 1 })));
    let ran = fake.run(&["runs", "--output", "json"]).await;
    let runs = ran.json();
    assert_eq!(
        runs["runs"].as_array().map(Vec::len),
        Some(3),
        "all pages up to the limit"
    );
    assert_eq!(runs["runs"][2]["news"]["of"], "a newer release");
}

#[tokio::test]
async fn tables_cannot_steer_a_terminal() {
    let ran = Fake::default().run(&["runs", "default/backend", "--limit", "3"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran.text().lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("RUN                 STATUS   REF"), "{}", lines[0]);
    assert!(
        lines[1].starts_with("default/backend#13  failed   main  4f1c2d3e4f"),
        "{}",
        lines[1]
    );
    assert!(lines[1].ends_with("faster\u{fffd}[2J"), "{}", lines[1]);
}

#[tokio::test]
async fn runs_are_found_by_number_and_by_the_beginning_of_their_id() {
    for (name, expected) in [
        (RUN, Ok(())),
        ("01JDC8", Ok(())),
        ("default/backend#12", Ok(())),
        ("backend#12", Ok(())),
        ("01jd", Err("any of 3 runs")),
        ("01j", Err("at least 4 characters")),
        ("01zz", Err("there is no run `01zz`")),
        ("backend#14", Err("there is no run `default/backend#14`")),
        ("backend#2", Err("there is no run `default/backend#2`")),
        (
            "01jdd00000000000000000000z",
            Err("there is no run `01jdd00000000000000000000z`"),
        ),
    ] {
        let ran = Fake::default().run(&["show", name]).await;
        match expected {
            Ok(()) => assert!(ran.code == 0 && ran.text().contains(RUN), "{name}: {ran:?}"),
            Err(words) => assert!(ran.code == 2 && ran.failure.contains(words), "{name}: {ran:?}"),
        }
    }
}

#[tokio::test]
async fn a_run_is_started_as_it_was_asked_for() {
    let cases: [(&[&str], Value); 5] = [
        (&[], json!({})),
        (
            &["--input", "target=staging", "--input", "n=3"],
            json!({ "inputs": { "target": "staging", "n": "3" } }),
        ),
        (&["--ref", "refs/tags/v1"], json!({ "tag": "v1" })),
        (
            &["--commit", "4f1c", "--force"],
            json!({ "commit_sha": "4f1c", "force": true }),
        ),
        (
            &["--ref", "topic", "--variable", "A=b=c", "--variable", "E="],
            json!({ "branch": "topic", "variables": { "A": "b=c", "E": "" } }),
        ),
    ];
    for (arguments, body) in cases {
        let fake = Fake::default();
        let ran = fake.run(&[&["run", "--pipeline", "backend"], arguments].concat()).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        assert_eq!(fake.asked(), [format!("create {body}")]);
        assert_eq!(
            ran.text(),
            format!("default/backend#12 started: run {RUN}\nfollow it with: buildflow logs {RUN} --follow\n")
        );
    }
}

const BROKEN: &str = "event: step\ndata: {\"step\":\"unit\",\"attempt\":2,\"offset\":0}\n\n\
    event: log\nid: A\ndata: one\ndata: tw";
const FIRST: &str = "event: step\ndata: {\"step\":\"unit\",\"attempt\":2,\"offset\":0}\n\n\
    event: log\nid: A\ndata: one\ndata: \n\n: still here\n\nevent: log\nid: B\ndata: tw";
const REST: &str = "event: step\ndata: {\"step\":\"unit\",\"attempt\":2,\"offset\":4}\n\n\
    event: bytes\nid: C\ndata: /w1vCg==\n\nevent: news\ndata: 1\n\n\
    event: end\ndata: {\"step\":\"unit\",\"attempt\":2,\"total\":8,\"complete\":true}\n\nevent: done\ndata: {}\n\n";

#[tokio::test]
async fn a_followed_run_survives_lost_connections_and_gives_its_exit_code() {
    for (status, code) in [("success", 0), ("failed", 1), ("cancelled", 3), ("timed_out", 4)] {
        let fake = Fake::with(&["running", "away", "running", status], &[FIRST, "", REST]);
        let ran = fake.run(&["run", "--pipeline", "backend", "--follow"]).await;
        assert_eq!(ran.code, code, "{status}: {ran:?}");
        assert_eq!(ran.out, b"unit | one\nunit | \xff\x0d\x6f\n", "{status}");
        let path = format!("/api/v1/runs/{RUN}/logs?follow=true");
        let expected = [
            format!("{path} from None"),
            format!("{path} from Some(\"A\")"),
            format!("{path} from Some(\"A\")"),
        ];
        assert_eq!(fake.asked()[1..], expected, "what was read is not asked for again");
        let changes = fake.changes_asked.lock().expect("no panic").clone();
        assert_eq!(
            changes,
            [None, Some("7".to_owned())],
            "and it stops when nothing follows"
        );
    }
}

#[tokio::test]
async fn a_followed_run_as_json_is_its_end() {
    let fake = Fake::with(&["running", "running", "failed"], &[]);
    let ran = fake
        .run(&["run", "--pipeline", "backend", "--follow", "--output", "json"])
        .await;
    assert_eq!((ran.code, ran.json()), (1, run_detail("failed")));
}

#[tokio::test]
async fn the_log_of_a_step_goes_out_byte_by_byte() {
    let fake = Fake::with(&["failed"], &[FIRST, REST]);
    let ran = fake.run(&["logs", RUN, "unit", "--follow"]).await;
    assert_eq!(
        (ran.code, ran.out.as_slice()),
        (1, b"one\n\xff\x0d\x6f\n".as_slice()),
        "{ran:?}"
    );
    let path = format!("/api/v1/runs/{RUN}/steps/unit/logs?follow=true");
    assert_eq!(
        fake.asked(),
        [format!("{path} from None"), format!("{path} from Some(\"A\")")]
    );
    let fake = Fake::with(&["failed"], &["raw \x1b[31mred\x1b[0m\r\n"]);
    let ran = fake.run(&["logs", RUN, "unit", "--attempt", "1"]).await;
    assert_eq!((ran.code, ran.text()), (0, "raw \x1b[31mred\x1b[0m\r\n"));
}

const RETRIED: &str = "event: step\ndata: {\"step\":\"unit\",\"attempt\":1,\"offset\":0}\n\n\
    event: log\nid: 4\ndata: one\ndata: \n\n\
    event: end\nid: 2.0\ndata: {\"step\":\"unit\",\"attempt\":1,\"total\":4,\"complete\":true}\n\n\
    event: step\ndata: {\"step\":\"unit\",\"attempt\":2,\"offset\":0}\n\n\
    event: log\nid: 2.4\ndata: two\ndata: \n\n\
    event: end\ndata: {\"step\":\"unit\",\"attempt\":2,\"total\":4,\"complete\":true}\n\nevent: done\ndata: {}\n\n";

#[tokio::test]
async fn the_log_of_a_step_goes_on_with_its_next_attempt_and_says_so() {
    let fake = Fake::with(&["success"], &[RETRIED]);
    let ran = fake.run(&["logs", RUN, "unit", "--follow"]).await;
    assert_eq!((ran.code, ran.out.as_slice()), (0, b"one\ntwo\n".as_slice()), "{ran:?}");
}

/// A step that prints nothing for long while the server is restarted again and again.
#[tokio::test]
async fn a_silent_log_survives_lost_connections() {
    let fake = Fake::with(&["success"], &["", "", "", ": still here\n\n", REST]);
    let ran = fake.run(&["logs", RUN, "unit", "--follow"]).await;
    assert_eq!(
        (ran.code, ran.out.as_slice()),
        (0, b"\xff\x0d\x6f\n".as_slice()),
        "{ran:?}"
    );
    assert_eq!(fake.asked().len(), 5);
}

#[tokio::test]
async fn logs_as_json_are_one_event_a_line() {
    let fake = Fake::with(&["success"], &[REST]);
    let ran = fake.run(&["logs", RUN, "--output", "json"]).await;
    let lines: Vec<Value> = ran
        .text()
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let events: Vec<&str> = lines.iter().filter_map(|l| l["event"].as_str()).collect();
    assert_eq!(events, ["step", "bytes", "news", "end", "done"]);
    assert_eq!(lines[0]["data"]["attempt"], 2);
    assert_eq!((&lines[1]["data"], &lines[1]["id"]), (&json!("/w1vCg=="), &json!("C")));
}

/// As `| head` closes its end.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_the_program_quietly() {
    let fake = Fake::with(&["running"], &[BROKEN, FIRST]);
    let addr = fake.serve().await;
    let line = ["buildflow", "--addr", &addr, "logs", RUN, "unit", "--follow"];
    #[allow(
        irrefutable_let_patterns,
        reason = "the program has roles besides the client's verbs"
    )]
    let crate::Command::Client(command) = crate::Arguments::try_parse_from(line).expect("legal").command else {
        panic!("a verb of the client");
    };
    let global = GlobalOptions {
        output: OutputForm::Table,
        addr: Some(addr),
    };
    let mut output = Output::to(OutputForm::Table, Box::new(Closed));
    let failure = dispatch(command, &global, &mut output).await.expect_err("nobody reads");
    assert!(matches!(failure, Failure::OutputClosed), "{failure:?}");
    assert_eq!((failure.exit(), failure.to_string().as_str()), (Exit::OutputClosed, ""));
}

#[tokio::test]
async fn verbs_of_later_releases_are_refused_by_name() {
    for (line, name) in [
        (&["retry", "x", "--all"][..], "`buildflow retry`"),
        (&["secret", "set", "a"], "`buildflow secret`"),
        (&["dead-letter", "list"], "`buildflow dead-letter`"),
        (&["pipeline", "doctor", "a/b"], "`buildflow pipeline doctor`"),
        (&["run", "--step", "unit"], "`buildflow run --step`"),
    ] {
        let ran = buildflow_at("http://127.0.0.1:9", line).await;
        assert_eq!((ran.code, ran.text()), (2, ""), "{ran:?}");
        assert_eq!(ran.failure, format!("{name} is not supported yet by this release"));
    }
}

/// Nobody listens on the discard port of the loopback.
#[tokio::test]
async fn the_next_address_is_tried_when_one_cannot_be_reached() {
    let fake = Fake::with(&["failed"], &[]);
    let addr = fake.serve().await;
    let ran = buildflow_at(
        &format!("http://127.0.0.1:9,{addr}"),
        &["show", RUN, "--output", "json"],
    )
    .await;
    assert_eq!((ran.code, ran.json()), (0, run_detail("failed")));
    let nobody = buildflow_at("http://127.0.0.1:9,http://127.0.0.2:9", &["show", RUN]).await;
    assert_eq!(nobody.code, 5, "{nobody:?}");
    assert!(
        nobody.failure.contains("http://127.0.0.1:9, http://127.0.0.2:9"),
        "{nobody:?}"
    );
}

#[tokio::test]
async fn every_try_of_a_step_is_shown() {
    let times = json!({ "queued_ms": 1, "assigned_ms": 1, "started_ms": 1000, "ended_ms": 2000 });
    let attempt = |n: u32, node: &str, reason: &str, counts: bool| {
        json!({
            "attempt": n, "node": node, "node_name": null, "outcome": "lost", "exit_code": null, "reason": reason,
            "ended": true, "counts": counts, "times": times, "use": null, "log_bytes": null, "log_lost": false
        })
    };
    let mut run = run_detail("failed");
    run["stages"][0]["steps"][0]["attempts"] = json!([
        attempt(1, "n7", "its node was lost", true),
        attempt(2, "n8", "its node is drained", false)
    ]);
    let run: api::dto::RunDetail = serde_json::from_value(run).expect("its form");
    let text = super::runs::detail(Paint::Plain, &run, 3_000);
    for words in [
        "ATTEMPT",
        "n7",
        "its node was lost",
        "2 (not counted)",
        "its node is drained",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn wrong_arguments_are_refused() {
    for line in [
        &["show"][..],
        &["show", "a/b"],
        &["show", "a#0"],
        &["show", "../x"],
        &["show", "A B/x#1"],
        &["run", "--ref", "a", "--commit", "b"],
        &["run", "--variable", "novalue"],
        &["run", "--pipeline", "Upper/x"],
        &["runs", "--limit", "0"],
        &["runs", "--status", "done"],
        &["logs", "01jd", "--attempt", "1"],
        &["--output", "yaml", "runs"],
        &["rums"],
    ] {
        let refused = crate::Arguments::try_parse_from([&["buildflow"], line].concat());
        assert!(refused.is_err_and(|e| e.use_stderr()), "{line:?}");
    }
    let numbered: RunName = "team/x#7".parse().expect("legal");
    assert!(matches!(numbered, RunName::Numbered(p, 7) if p.to_string() == "team/x"));
}

#[tokio::test]
async fn files_are_checked_and_written_without_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().display().to_string();
    let file = format!("{at}/.buildflow.yml");
    std::fs::write(folder.path().join("Cargo.toml"), "").expect("written");
    let ran = buildflow_at("http://127.0.0.1:9", &["init", &at]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let written = std::fs::read_to_string(&file).expect("written");
    assert!(written.contains("cargo"), "it suits the folder");
    let again = buildflow_at("http://127.0.0.1:9", &["init", &at]).await;
    assert!(again.code == 2 && again.failure.contains("--force"), "{again:?}");
    let valid = buildflow_at("http://127.0.0.1:9", &["pipeline", "validate", &file]).await;
    assert!(valid.code == 0 && valid.text().contains("└─"), "{valid:?}");

    std::fs::write(&file, "stages: []\nstepz: 1\n").expect("written");
    let invalid = buildflow_at(
        "http://127.0.0.1:9",
        &["pipeline", "validate", &file, "--output", "json"],
    )
    .await;
    assert_eq!(
        (invalid.code, &invalid.json()["valid"]),
        (2, &json!(false)),
        "{invalid:?}"
    );
    assert_eq!(
        invalid.json()["findings"][0]["line"].as_u64().map(|n| n > 0),
        Some(true)
    );
    let forced = buildflow_at("http://127.0.0.1:9", &["init", &at, "--force"]).await;
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(std::fs::read_to_string(&file).expect("written"), written);
    let missing = buildflow_at("http://127.0.0.1:9", &["pipeline", "validate", "/no/such"]).await;
    assert!(missing.code == 2 && missing.failure.contains("/no/such"), "{missing:?}");
}

#[tokio::test]
async fn a_file_is_checked_for_an_event_with_what_it_includes() {
    let folder = tempfile::tempdir().expect("a folder");
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    std::fs::create_dir_all(folder.path().join("ci")).expect("made");
    put(
        "ci/shared.yml",
        "templates: {base: {image: 'oci:base', env: {BY: \"${{ git.branch }}\"}}}\n",
    );
    let text = |include: &str| {
        format!(
            "include: [{include}]\non: {{push: {{branches: [main]}}}}\nstages: [{{name: s, steps: \
             [{{name: a, extends: base, run: r, if: git.branch == 'main' && changed('src/**')}}]}}]\n"
        )
    };
    put("pipeline.yml", &text("ci/shared.yml"));
    let file = folder.path().join("pipeline.yml").display().to_string();
    let check = async |options: &[&str]| {
        let line = [&["pipeline", "validate", file.as_str()], options].concat();
        buildflow_at("http://127.0.0.1:9", &line).await
    };
    let plain = check(&[]).await;
    assert!(plain.code == 0 && plain.text().contains("a"), "{plain:?}");
    let explained = check(&["--explain", "--branch", "main", "--changed", "docs/x"]).await;
    assert_eq!(explained.code, 0, "{explained:?}");
    for part in ["expressions", "ci/shared.yml:1:", "git.branch  =  'main'", "=  false"] {
        assert!(explained.text().contains(part), "{part}: {explained:?}");
    }
    let other = check(&["--branch", "topic"]).await;
    assert!(other.text().contains("makes no run of this event"), "{other:?}");
    put("pipeline.yml", &text("ci/gone.yml"));
    let missing = check(&["--output", "json"]).await;
    let findings = missing.json()["findings"].to_string();
    assert!(missing.code == 2 && findings.contains("ci/gone.yml"), "{missing:?}");
}

#[tokio::test]
async fn schema_and_completion_are_printed() {
    let reference = buildflow_at("http://127.0.0.1:9", &["schema", "--reference"]).await;
    assert!(reference.text().starts_with("# The pipeline file"), "{reference:?}");
    let schema = buildflow_at("http://127.0.0.1:9", &["schema"]).await;
    assert_eq!(schema.json()["title"], "BuildFlow pipeline file");
    for shell in ["bash", "zsh", "fish"] {
        let script = buildflow_at("http://127.0.0.1:9", &["completion", shell]).await;
        assert!(script.code == 0 && script.text().contains("validate"), "{shell}");
    }
}

#[test]
fn settings_come_from_argument_environment_file_and_default_in_this_order() {
    let home = tempfile::tempdir().expect("a folder");
    let file = home.path().join(".config/buildflow/config.toml");
    let home = home.path().display().to_string();
    let read = |addr: Option<&str>, env: &[(&str, &str)]| {
        let env: HashMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::from(addr.map(str::to_owned), |name| match name {
            "HOME" => Some(home.clone()),
            _ => env.get(name).cloned(),
        })
    };
    let plain = read(None, &[]).expect("legal");
    assert_eq!((plain.addrs[0].as_str(), plain.token), ("http://127.0.0.1:7420", None));
    std::fs::create_dir_all(file.parent().expect("below")).expect("made");
    std::fs::write(&file, "addr = \"https://file:1/\"\ntoken = \"of the file\"\n").expect("written");
    let from_file = read(None, &[]).expect("legal");
    assert_eq!(
        (from_file.addrs[0].as_str(), from_file.token.as_deref()),
        ("https://file:1", Some("of the file"))
    );
    assert_eq!(from_file.addr_from, file.display().to_string());
    let env = [
        ("BUILDFLOW_ADDR", "http://env:1"),
        ("BUILDFLOW_TOKEN", "of the environment"),
    ];
    let from_env = read(None, &env).expect("legal");
    assert_eq!(
        (from_env.addrs[0].as_str(), from_env.token.as_deref()),
        ("http://env:1", Some("of the environment"))
    );
    assert_eq!(
        read(Some("http://argument:1"), &env).expect("legal").addrs[0],
        "http://argument:1"
    );

    let several = read(Some("http://a:1, https://b:2/,"), &[]).expect("legal");
    assert_eq!(several.addrs, ["http://a:1", "https://b:2"]);
    let no_ca = read(None, &[("BUILDFLOW_CA", "/no/such.pem")]).expect_err("no such file");
    assert!(
        no_ca.to_string().contains("BUILDFLOW_CA") && no_ca.to_string().contains("/no/such.pem"),
        "{no_ca}"
    );

    for (text, words) in [
        ("adr = 1", "keys are: addr, token, token_file, ca"),
        ("addr = ", "line 1"),
        ("token_file = \"/no/such\"", "/no/such"),
    ] {
        std::fs::write(&file, text).expect("written");
        let refused = read(None, &[]).expect_err(text);
        assert!(
            matches!(refused, Failure::Usage(_)) && refused.to_string().contains(words),
            "{text}: {refused}"
        );
    }
    for addr in ["127.0.0.1:7420", "ftp://x", "http://x/?a", "", "http://"] {
        std::fs::write(&file, "").expect("written");
        let refused = read(Some(addr), &[]).expect_err(addr);
        assert!(
            refused.to_string().contains("no address of a server"),
            "{addr}: {refused}"
        );
    }
}

#[test]
fn tables_line_up_and_hide_what_steers() {
    let rows = vec![
        vec![Cell::from("ü\u{1b}[31m"), Cell::coloured(Colour::Green, "ok")],
        vec![Cell::from("b"), Cell::from("x".repeat(70))],
    ];
    let plain = table(Paint::Plain, &["NAME", "S"], &rows);
    let long = format!("{}…", "x".repeat(59));
    assert_eq!(plain, format!("NAME    S\nü\u{fffd}[31m  ok\nb       {long}\n"));
    let coloured = table(Paint::Colours, &["NAME", "S"], &rows);
    assert!(
        coloured.contains("\x1b[32mok\x1b[0m") && coloured.contains("\x1b[1mNAME\x1b[0m"),
        "{coloured}"
    );
    assert_eq!(printable("a\u{202e}b\u{7}\n"), "a\u{fffd}b\u{fffd}\u{fffd}");
    assert_eq!(
        fields(&[
            ("a", "1".to_owned()),
            ("empty", String::new()),
            ("long", "2".to_owned())
        ]),
        "a:    1\nlong: 2\n"
    );
}

#[test]
fn numbers_are_shown_for_people() {
    let durations = [
        (0, "0ms"),
        (999, "999ms"),
        (12_345, "12.3s"),
        (245_000, "4m05s"),
        (7_620_000, "2h07m"),
        (273_600_000, "3d4h"),
    ];
    for (ms, text) in durations {
        assert_eq!(duration(ms), text);
    }
    for (bytes, text) in [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1 KiB"),
        (1_536, "1.5 KiB"),
        (20 << 30, "20 GiB"),
        (u64::MAX, "16384 PiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
    for (millis, text) in [(0, "0"), (500, "0.5"), (2_000, "2"), (1_250, "1.25")] {
        assert_eq!(cores(millis), text);
    }
    for (then, text) in [
        (100_000, "now"),
        (110_000, "now"),
        (97_000, "3s ago"),
        (10_000, "1m30s ago"),
    ] {
        assert_eq!(ago(then, 100_000), text);
    }
}

#[test]
fn every_end_of_a_run_has_its_code() {
    let codes: Vec<u8> = RunStatus::ALL.iter().map(|s| Exit::of_run(*s).code()).collect();
    assert_eq!(codes, [5, 5, 0, 1, 3, 4]);
}

#[test]
fn an_end_that_was_allowed_is_told_as_such() {
    for (status, allow_failure, expected) in [
        ("failed", true, "unit failed, allowed: ended"),
        ("timed_out", true, "unit timed_out, allowed: ended"),
        ("failed", false, "unit failed: ended"),
        ("cancelled", true, "unit cancelled: ended"),
    ] {
        let mut run = run_detail(status);
        run["stages"][0]["steps"][0]["allow_failure"] = json!(allow_failure);
        let run: api::dto::RunDetail = serde_json::from_value(run).expect("a run");
        let told = super::runs::summary(&run);
        assert!(told.contains(expected), "{told}");
    }
}
