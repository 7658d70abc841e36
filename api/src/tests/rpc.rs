//! The gRPC service as its callers see it, over the real port.

use super::served::{Served, ask, serve};
use super::stage::{ADMIN, FILE, NODE, PATIENCE, Stage};
use crate::fleet::fixture::{alloc_id, allocation, fold, make_run, place};
use axum::body::Bytes;
use futures::StreamExt;
use model::{RunId, StepStatus};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use wire::v1::run_service_client::RunServiceClient;
use wire::v1::{
    CancelRunRequest, GetRunRequest, ListRunsRequest, LogEvent, RetryRunRequest, RunEvent, RunStatus, SubmitRunRequest,
    TailLogsRequest, WatchRunRequest, log_event, run_event,
};

async fn channel(served: &Served) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
    endpoint.connect().await.unwrap()
}

async fn client(served: &Served) -> RunServiceClient<Channel> {
    RunServiceClient::new(channel(served).await)
}

/// A call of an administrator.
fn call<T>(message: T) -> Request<T> {
    with(message, &[("authorization", &format!("Bearer {ADMIN}"))])
}

fn with<T>(message: T, metadata: &[(&'static str, &str)]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn wish(pipeline: &str) -> SubmitRunRequest {
    SubmitRunRequest {
        team: "default".to_owned(),
        pipeline: pipeline.to_owned(),
        branch: Some("main".to_owned()),
        ..SubmitRunRequest::default()
    }
}

fn get(run: &str) -> GetRunRequest {
    GetRunRequest { run_id: run.to_owned() }
}

fn watch(run: &str, after: &str) -> WatchRunRequest {
    WatchRunRequest {
        run_id: run.to_owned(),
        after: after.to_owned(),
    }
}

/// All of a stream, in time.
async fn all<T>(stream: tonic::Streaming<T>) -> (Vec<T>, Option<Status>) {
    let read = async {
        let mut stream = stream;
        let mut messages = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, None),
                Err(status) => return (messages, Some(status)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the stream ends in time")
}

#[tokio::test]
async fn a_run_goes_from_its_submission_to_its_end() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let mut client = client(&served).await;
    let made = client.submit_run(call(wish("app"))).await.unwrap().into_inner();
    assert!(made.created && made.number == Some(1), "{made:?}");
    let again = client.submit_run(call(wish("app"))).await.unwrap().into_inner();
    assert_eq!((again.run_id.as_str(), again.created), (made.run_id.as_str(), false));
    let watching = client
        .watch_run(call(watch(&made.run_id, "")))
        .await
        .unwrap()
        .into_inner();
    let run = RunId::new(made.run_id.as_str()).unwrap();
    for step in 0..3 {
        served.stage.lead(&run, step, StepStatus::Success).await;
    }
    let (events, end) = all(watching).await;
    assert!(end.is_none(), "{end:?}");
    let kinds: Vec<&str> = events.iter().map(kind).collect();
    assert_eq!(kinds.first(), Some(&"snapshot"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"end success"), "{kinds:?}");
    let got = client.get_run(call(get(&made.run_id))).await.unwrap().into_inner();
    let shown = served.stage.get(&format!("/api/v1/runs/{run}")).await;
    let summary = got.summary.clone().unwrap();
    assert_eq!(summary.status(), RunStatus::Success);
    assert_eq!(summary.commit, shown.json["commit"]);
    assert_eq!(got.repository, shown.json["repository"]);
    let steps: Vec<&str> = got
        .stages
        .iter()
        .flat_map(|s| &s.steps)
        .map(|s| s.name.as_str())
        .collect();
    assert_eq!(steps, ["compile", "unit", "lint"]);
    // Who has heard the end hears nothing more.
    let last = events.last().unwrap().id.clone();
    let (events, end) = all(client
        .watch_run(call(watch(&made.run_id, &last)))
        .await
        .unwrap()
        .into_inner())
    .await;
    assert!(events.is_empty() && end.is_none(), "{events:?} {end:?}");
    served.end().await;
}

fn kind(event: &RunEvent) -> &'static str {
    match event.what.as_ref().unwrap() {
        run_event::What::Snapshot(_) => "snapshot",
        run_event::What::Step(_) => "step",
        run_event::What::Run(_) => "run",
        run_event::What::End(status) if *status == i32::from(RunStatus::Success) => "end success",
        run_event::What::End(_) => "end",
    }
}

#[tokio::test]
async fn a_call_is_refused_with_the_words_of_rest_and_a_code_of_its_own() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let run = served.stage.run("app").await;
    for step in 0..3 {
        served.stage.lead(&run, step, StepStatus::Success).await;
    }
    let mut client = client(&served).await;
    let ended = served
        .stage
        .post(&format!("/api/v1/runs/{run}/cancel"), &json!({}))
        .await;
    let cancel = CancelRunRequest {
        run_id: run.to_string(),
    };
    let refused = client.cancel_run(call(cancel)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.message(), ended.problem(409, "conflict"));
    let refused = client.submit_run(call(wish("none"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("default/none"), "{refused:?}");
    let mut both = wish("app");
    both.tag = Some("v1".to_owned());
    let refused = client.submit_run(call(both)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let violations = tonic_types::StatusExt::get_error_details(&refused);
    assert_eq!(violations.bad_request().unwrap().field_violations[0].field, "tag");
    for id in ["nothing", "", "../x", &"x".repeat(10_000)] {
        assert_eq!(
            client.get_run(call(get(id))).await.unwrap_err().code(),
            Code::NotFound,
            "{id}"
        );
        let watched = client.watch_run(call(watch(id, ""))).await.unwrap_err();
        assert_eq!(watched.code(), Code::NotFound, "{id}");
    }
    let odd = client.watch_run(call(watch(run.as_str(), "x"))).await.unwrap_err();
    assert_eq!(odd.code(), Code::InvalidArgument);
    let later = client.retry_run(call(RetryRunRequest::default())).await.unwrap_err();
    assert_eq!(later.code(), Code::Unimplemented);
    assert!(later.message().contains("retrying a run"), "{later:?}");
    let mut large = wish("app");
    large.variables = [("X".to_owned(), "x".repeat(2 * crate::limit::BODY_MAX))].into();
    assert_eq!(
        client.submit_run(call(large)).await.unwrap_err().code(),
        Code::OutOfRange
    );
    served.end().await;
}

#[tokio::test]
async fn only_an_administrators_token_opens_the_service() {
    let served = serve().await;
    let mut client = client(&served).await;
    for (token, code) in [
        (None, Code::Unauthenticated),
        (Some("bf_unknown"), Code::Unauthenticated),
        (Some(NODE), Code::PermissionDenied),
    ] {
        let value = token.map(|t| format!("Bearer {t}"));
        let metadata: Vec<(&'static str, &str)> = value.iter().map(|v| ("authorization", v.as_str())).collect();
        let refused = client.list_runs(with(ListRunsRequest::default(), &metadata)).await;
        assert_eq!(refused.unwrap_err().code(), code, "{token:?}");
        let refused = client.submit_run(with(wish("app"), &metadata)).await;
        assert_eq!(refused.unwrap_err().code(), code, "{token:?}");
        let refused = client.tail_logs(with(TailLogsRequest::default(), &metadata)).await;
        assert_eq!(refused.unwrap_err().code(), code, "{token:?}");
    }
    served.end().await;
}

#[tokio::test]
async fn keys_and_ids_of_requests_are_those_of_rest() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let mut client = client(&served).await;
    let bearer = format!("Bearer {ADMIN}");
    let keyed = |wish| {
        with(
            wish,
            &[
                ("authorization", bearer.as_str()),
                ("idempotency-key", "k1"),
                ("x-request-id", "of-the-caller"),
            ],
        )
    };
    let first = client.submit_run(keyed(wish("app"))).await.unwrap();
    assert_eq!(first.metadata().get("x-request-id").unwrap(), "of-the-caller");
    let first = first.into_inner();
    let again = client.submit_run(keyed(wish("app"))).await.unwrap().into_inner();
    assert_eq!((&again.run_id, again.created), (&first.run_id, false));
    let mut other = wish("app");
    other.variables = [("X".to_owned(), "1".to_owned())].into();
    let refused = client.submit_run(keyed(other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.metadata().get("x-request-id").unwrap(), "of-the-caller");
    // The same key with REST is the same request.
    let mut request = Stage::json("POST", "/api/v1/pipelines/default/app/runs", &json!({"branch": "main"}));
    request.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
    let by_rest = served.stage.ask(request).await;
    assert_eq!(
        (by_rest.code.as_u16(), by_rest.run_id().as_str()),
        (200, first.run_id.as_str())
    );
    let run = client.get_run(call(get(&first.run_id))).await.unwrap().into_inner();
    assert_eq!(run.request_id, "of-the-caller");
    served.end().await;
}

#[tokio::test]
async fn lists_have_filters_and_pages() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(served.stage.run("app").await);
    }
    for step in 0..3 {
        served.stage.lead(&ids[1], step, StepStatus::Success).await;
    }
    let mut client = client(&served).await;
    let of_app = ListRunsRequest {
        team: "default".to_owned(),
        pipeline: "app".to_owned(),
        ..ListRunsRequest::default()
    };
    for base in [ListRunsRequest::default(), of_app] {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = ListRunsRequest {
                limit: 2,
                cursor,
                ..base.clone()
            };
            let page = client.list_runs(call(page)).await.unwrap().into_inner();
            found.extend(page.runs.into_iter().map(|r| r.run_id));
            cursor = page.next_cursor;
            if cursor.is_empty() {
                break;
            }
        }
        let newest_first: Vec<String> = ids.iter().rev().map(ToString::to_string).collect();
        assert_eq!(found, newest_first);
        let ended = ListRunsRequest {
            status: RunStatus::Success.into(),
            ..base.clone()
        };
        let ended = client.list_runs(call(ended)).await.unwrap().into_inner();
        assert_eq!(ended.runs.len(), 1);
        assert_eq!(ended.runs[0].run_id, ids[1].as_str());
    }
    let wrong = [
        ListRunsRequest {
            team: "default".to_owned(),
            ..ListRunsRequest::default()
        },
        ListRunsRequest {
            limit: 501,
            ..ListRunsRequest::default()
        },
        ListRunsRequest {
            cursor: "x".to_owned(),
            ..ListRunsRequest::default()
        },
        ListRunsRequest {
            status: 77,
            ..ListRunsRequest::default()
        },
    ];
    for wrong in wrong {
        let refused = client.list_runs(call(wrong.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}");
    }
    served.end().await;
}

fn tail(step: &str) -> TailLogsRequest {
    TailLogsRequest {
        run_id: "01jd".to_owned(),
        step: step.to_owned(),
        follow: true,
        ..TailLogsRequest::default()
    }
}

/// Writes a step's whole log in pieces and folds its end.
async fn write_log(served: &Served, step: usize, pieces: &[Bytes]) {
    let store = served.server.deps.store.as_ref();
    let board = Arc::new(crate::logs::Board::default());
    let writer = served
        .server
        .logs
        .open(&alloc_id(step, 1), board.clone())
        .await
        .unwrap();
    let mut at = 0;
    for (i, piece) in pieces.iter().enumerate() {
        writer.data(at, piece.clone(), i + 1 == pieces.len());
        at += piece.len() as u64;
        let stored =
            |reply: &crate::logs::Reply| matches!(reply, crate::logs::Reply::Ack { offset, .. } if *offset >= at);
        let wait = async { while !board.next().await.iter().any(stored) {} };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the log is stored in time");
    }
    fold(store, step, 1, at).await;
}

fn bytes(events: &[LogEvent]) -> Vec<u8> {
    let data = events.iter().filter_map(|e| match e.what.as_ref().unwrap() {
        log_event::What::Data(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    data.collect::<Vec<_>>().concat()
}

/// How each attempt of a stream ended: of which step, with how many bytes, whether they are all, whether
/// the rest is lost.
fn ends(events: &[LogEvent]) -> Vec<(String, u64, bool, bool)> {
    let ends = events.iter().filter_map(|e| match e.what.as_ref().unwrap() {
        log_event::What::End(end) => Some((end.step.clone(), end.total_bytes, end.complete, end.lost)),
        _ => None,
    });
    ends.collect()
}

#[tokio::test]
async fn a_log_is_told_byte_for_byte_and_goes_on_after_an_id() {
    let served = serve().await;
    let store = served.server.deps.store.clone();
    make_run(store.as_ref(), &["unit", "lint"]).await;
    place(store.as_ref(), &allocation(0, 1)).await;
    place(store.as_ref(), &allocation(1, 1)).await;
    let mut client = client(&served).await;
    let one = client.tail_logs(call(tail("unit"))).await.unwrap().into_inner();
    let whole_run = client.tail_logs(call(tail(""))).await.unwrap().into_inner();
    let log = [
        Bytes::from_static(b"one\r\n\xff\xfe\xc3"),
        Bytes::from_static(b"\xa4 two\n"),
    ];
    write_log(&served, 0, &log).await;
    write_log(&served, 1, &[Bytes::from_static(b"lint\n")]).await;
    let (events, end) = all(one).await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(bytes(&events), log.concat());
    assert!(matches!(events.last().unwrap().what, Some(log_event::What::Done(_))));
    assert_eq!(
        ends(&events),
        [("unit".to_owned(), log.concat().len() as u64, true, false)]
    );
    let (both, end) = all(whole_run).await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(ends(&both).len(), 2, "{both:?}");
    assert_eq!(bytes(&both).len(), log.concat().len() + 5);
    // A stream that broke goes on where it was; one byte of offset later begins there.
    for step in ["unit", ""] {
        let heard = if step.is_empty() { &both } else { &events };
        let first = heard
            .iter()
            .position(|e| matches!(e.what, Some(log_event::What::Data(_))))
            .unwrap();
        let again = TailLogsRequest {
            after: heard[first].id.clone(),
            ..tail(step)
        };
        let (rest, _) = all(client.tail_logs(call(again)).await.unwrap().into_inner()).await;
        assert_eq!(bytes(&heard[first + 1..]), bytes(&rest), "{step}");
    }
    let from = TailLogsRequest {
        offset: 5,
        follow: false,
        ..tail("unit")
    };
    let (rest, _) = all(client.tail_logs(call(from)).await.unwrap().into_inner()).await;
    assert_eq!(bytes(&rest), &log.concat()[5..]);
    served.end().await;
}

#[tokio::test]
async fn what_is_asked_wrongly_of_a_log_is_refused() {
    let served = serve().await;
    let store = served.server.deps.store.clone();
    make_run(store.as_ref(), &["unit"]).await;
    place(store.as_ref(), &allocation(0, 1)).await;
    write_log(&served, 0, &[Bytes::from_static(b"one\n")]).await;
    let mut client = client(&served).await;
    for (wrong, code) in [
        (
            TailLogsRequest {
                offset: 99,
                ..tail("unit")
            },
            Code::OutOfRange,
        ),
        (TailLogsRequest { offset: 1, ..tail("") }, Code::InvalidArgument),
        (TailLogsRequest { attempt: 1, ..tail("") }, Code::InvalidArgument),
        (
            TailLogsRequest {
                attempt: 9,
                ..tail("unit")
            },
            Code::NotFound,
        ),
        (
            TailLogsRequest {
                after: "x".to_owned(),
                ..tail("unit")
            },
            Code::InvalidArgument,
        ),
        (tail("none"), Code::NotFound),
    ] {
        assert_eq!(
            client.tail_logs(call(wrong.clone())).await.unwrap_err().code(),
            code,
            "{wrong:?}"
        );
    }
    served.end().await;
}

#[tokio::test]
async fn one_who_does_not_read_holds_up_nobody_and_misses_nothing() {
    let served = serve().await;
    let store = served.server.deps.store.clone();
    make_run(store.as_ref(), &["unit"]).await;
    place(store.as_ref(), &allocation(0, 1)).await;
    // Connections of their own: what one does not read must not count against the other.
    let slow = client(&served)
        .await
        .tail_logs(call(tail("unit")))
        .await
        .unwrap()
        .into_inner();
    let quick = client(&served)
        .await
        .tail_logs(call(tail("unit")))
        .await
        .unwrap()
        .into_inner();
    let quick = tokio::spawn(all(quick));
    let pieces: Vec<Bytes> = (0..32u8).map(|i| Bytes::from(vec![i; 512 * 1024])).collect();
    write_log(&served, 0, &pieces).await;
    let (heard, end) = quick.await.unwrap();
    assert!(end.is_none(), "{end:?}");
    assert!(
        bytes(&heard) == pieces.concat(),
        "the quick reader has the log, byte for byte"
    );
    let largest = heard.iter().filter_map(|e| match e.what.as_ref().unwrap() {
        log_event::What::Data(bytes) => Some(bytes.len()),
        _ => None,
    });
    assert!(largest.max().unwrap() <= 64 * 1024);
    let (heard, end) = all(slow).await;
    assert!(end.is_none(), "{end:?}");
    assert!(bytes(&heard) == pieces.concat(), "and so has the slow one, afterwards");
    served.end().await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let run = served.stage.run("app").await;
    let mut client = client(&served).await;
    let mut request = call(watch(run.as_str(), ""));
    // Written by hand: the client must not end the stream itself.
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let begun = std::time::Instant::now();
    let (events, end) = all(client.watch_run(request).await.unwrap().into_inner()).await;
    assert_eq!(end.unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let metrics = served.server.metrics.clone();
    let gone = async {
        while metrics.streams.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .expect("what was behind it has ended");
    let mut odd = call(get(run.as_str()));
    odd.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    assert_eq!(client.get_run(odd).await.unwrap_err().code(), Code::InvalidArgument);
    // Written by hand too: this client would give the call up itself.
    let text = format!(
        "POST /buildflow.v1.RunService/GetRun HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         content-type: application/grpc\r\ngrpc-timeout: 0n\r\ncontent-length: 5\r\nconnection: close\r\n\r\n\0\0\0\0\0"
    );
    let late = ask(served.address, &text).await;
    assert!(late.contains("grpc-status: 4"), "{late}");
    served.end().await;
}

#[tokio::test]
async fn the_end_of_the_server_breaks_a_stream_off_and_says_so() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let run = served.stage.run("app").await;
    let mut stream = client(&served)
        .await
        .watch_run(call(watch(run.as_str(), "")))
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().is_some());
    served.stop.cancel();
    let (_, end) = all(stream).await;
    assert_eq!(end.unwrap().code(), Code::Unavailable);
    served.end().await;
}

#[tokio::test]
async fn anybody_may_ask_what_is_served_and_whether_it_is_well() {
    let served = serve().await;
    let channel = channel(&served).await;
    let ask = |what| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(what),
    };
    let asked = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "buildflow.v1.RunService".to_owned(),
        )),
    ]);
    let answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(asked)
        .await;
    let answers: Vec<_> = answers.unwrap().into_inner().collect().await;
    let first = answers[0].as_ref().unwrap().message_response.clone().unwrap();
    let MessageResponse::ListServicesResponse(list) = first else {
        panic!("{first:?}")
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    for name in [
        "buildflow.v1.RunService",
        "buildflow.v1.FleetService",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let second = answers[1].as_ref().unwrap().message_response.clone().unwrap();
    assert!(
        matches!(second, MessageResponse::FileDescriptorResponse(_)),
        "{second:?}"
    );
    let mut health = HealthClient::new(channel);
    let of = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    for service in ["", "buildflow.v1.RunService"] {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(health.check(of("x")).await.unwrap_err().code(), Code::NotFound);
    let mut watching = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(
        watching.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    drop(watching);
    served.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_unimplemented_and_compressed_messages_too() {
    let served = serve().await;
    for (path, encoding) in [
        ("/buildflow.v1.RunService/Frobnicate", None),
        ("/buildflow.v1.NoService/GetRun", None),
        ("/buildflow.v1.RunService/GetRun", Some("gzip")),
        ("/buildflow.v1.RunService/GetRun", Some("deflate")),
    ] {
        let coded = encoding.map(|e| format!("grpc-encoding: {e}\r\n")).unwrap_or_default();
        let flag = if encoding.is_some() { '\u{1}' } else { '\0' };
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\ncontent-type: application/grpc\r\n\
             te: trailers\r\n{coded}content-length: 5\r\nconnection: close\r\n\r\n{flag}\0\0\0\0"
        );
        let answer = ask(served.address, &text).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains("grpc-status: 12"), "{path} {encoding:?}: {answer}");
    }
    served.end().await;
}
