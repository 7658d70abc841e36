//! Server-sent events of a run: snapshot, changes, end; and coming back.

use super::stage::{FILE, PATIENCE, Stage, record};
use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use futures::StreamExt;
use model::{RunId, StepStatus, key};
use serde_json::{Value, json};
use store::Txn;
use tower::ServiceExt;

/// One event as it came over the wire.
#[derive(Debug, Clone, PartialEq)]
struct Heard {
    id: String,
    name: String,
    data: Value,
}

/// A reader of a stream.
struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(stage: &Stage, run: &RunId, last: Option<&str>) -> Result<Self, StatusCode> {
        let mut request = Stage::request("GET", &format!("/api/v1/runs/{run}/events"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = stage
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        if response.status() != StatusCode::OK {
            return Err(response.status());
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Ok(Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        })
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let heard = parse(block);
                self.text = rest.to_owned();
                if heard.is_some() {
                    return heard;
                }
                continue;
            }
            let part = tokio::time::timeout(PATIENCE, self.body.next())
                .await
                .expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
        }
    }

    async fn expect(&mut self, name: &str) -> Heard {
        let heard = self
            .next()
            .await
            .unwrap_or_else(|| panic!("the stream ended before `{name}`"));
        assert_eq!(heard.name, name, "{heard:?}");
        heard
    }
}

fn parse(block: &str) -> Option<Heard> {
    let field = |name: &str| {
        let line = block.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        line.map(str::to_owned)
    };
    let data = field("data")?;
    Some(Heard {
        id: field("id")?,
        name: field("event")?,
        data: serde_json::from_str(&data).unwrap(),
    })
}

#[tokio::test]
async fn a_reader_hears_every_change_until_the_end() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let mut reader = Reader::open(&stage, &run, None).await.unwrap();
    let first = reader.expect("snapshot").await;
    assert_eq!(first.data["stages"][0]["steps"][0]["status"], "queued");
    stage.lead(&run, 0, StepStatus::Assigned).await;
    let step = reader.expect("step").await;
    assert_eq!(
        (&step.data["step"], &step.data["status"]),
        (&json!("compile"), &json!("assigned"))
    );
    assert_eq!(
        reader.expect("run").await.data,
        json!({"run_id": run.as_str(), "status": "running"})
    );
    stage.lead(&run, 0, StepStatus::Running).await;
    assert_eq!(reader.expect("step").await.data["status"], "running");
    stage.lead(&run, 0, StepStatus::Success).await;
    assert_eq!(reader.expect("step").await.data["status"], "success");
    for name in ["unit", "lint"] {
        let queued = reader.expect("step").await.data;
        assert_eq!((&queued["step"], &queued["status"]), (&json!(name), &json!("queued")));
    }
    let both = Txn::new()
        .put(key::step(&run, 1), &record(StepStatus::Success))
        .put(key::step(&run, 2), &record(StepStatus::Failed));
    stage.write(both).await;
    assert_eq!(reader.expect("step").await.data["status"], "success");
    assert_eq!(reader.expect("step").await.data["status"], "failed");
    assert_eq!(reader.expect("end").await.data["status"], "success", "lint may fail");
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn a_reader_that_comes_back_misses_nothing_and_hears_nothing_twice() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let mut whole = Reader::open(&stage, &run, None).await.unwrap();
    let mut all = vec![whole.expect("snapshot").await];
    for (step, status) in [
        (0, StepStatus::Running),
        (0, StepStatus::Success),
        (1, StepStatus::Success),
    ] {
        stage.lead(&run, step, status).await;
    }
    stage.lead(&run, 2, StepStatus::Success).await;
    while let Some(heard) = whole.next().await {
        all.push(heard);
    }
    assert_eq!(all.last().unwrap().name, "end");
    let ids: std::collections::BTreeSet<&str> = all.iter().map(|h| h.id.as_str()).collect();
    assert_eq!(ids.len(), all.len(), "ids are unique");
    for (at, last) in all.iter().enumerate().take(all.len() - 1) {
        let mut back = Reader::open(&stage, &run, Some(&last.id)).await.unwrap();
        let mut rest = Vec::new();
        while let Some(heard) = back.next().await {
            rest.push(heard);
        }
        assert_eq!(rest, all[at + 1..], "after {}", last.id);
    }
    let end = &all.last().unwrap().id;
    assert_eq!(
        Reader::open(&stage, &run, Some(end)).await.err(),
        Some(StatusCode::NO_CONTENT)
    );
}

#[tokio::test]
async fn a_place_that_is_not_known_gives_a_fresh_snapshot() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    for last in ["1-0", "999999999-0", "nonsense", "-", "1-all"] {
        let mut reader = Reader::open(&stage, &run, Some(last)).await.unwrap();
        reader.expect("snapshot").await;
    }
    for step in 0..3 {
        stage.lead(&run, step, StepStatus::Success).await;
    }
    let mut late = Reader::open(&stage, &run, None).await.unwrap();
    let snapshot = late.expect("snapshot").await;
    assert_eq!(snapshot.data["status"], "success");
    let end = late.expect("end").await;
    assert_eq!(late.next().await, None);
    let mut cut = Reader::open(&stage, &run, Some(&snapshot.id)).await.unwrap();
    cut.expect("snapshot").await;
    assert_eq!(
        cut.expect("end").await,
        end,
        "whose stream was cut before the end hears it"
    );
    assert_eq!(
        Reader::open(&stage, &run, Some(&end.id)).await.err(),
        Some(StatusCode::NO_CONTENT)
    );
    let no_such = RunId::new("01jd").unwrap();
    assert_eq!(
        Reader::open(&stage, &no_such, None).await.err(),
        Some(StatusCode::NOT_FOUND)
    );
}

#[tokio::test]
async fn a_reader_that_is_too_slow_gets_a_fresh_snapshot_and_the_end() {
    let stage = Stage::new().await;
    let steps: String = (0..300)
        .map(|n| format!("      - {{ name: s{n}, image: 'oci:base', run: make }}\n"))
        .collect();
    stage
        .pipeline("app", &format!("stages:\n  - name: all\n    steps:\n{steps}"))
        .await;
    let run = stage.run("app").await;
    let mut reader = Reader::open(&stage, &run, None).await.unwrap();
    reader.expect("snapshot").await;
    for at in (0..300).step_by(100) {
        let some = |status| (at..at + 100).fold(Txn::new(), |txn, n| txn.put(key::step(&run, n), &record(status)));
        stage.write(some(StepStatus::Running)).await;
        stage.write(some(StepStatus::Success)).await;
    }
    let mut names = Vec::new();
    while let Some(heard) = reader.next().await {
        names.push(heard.name.clone());
        if heard.name == "snapshot" {
            assert_eq!(heard.data["status"], "success");
        }
    }
    assert!(names.contains(&"snapshot".to_owned()), "{names:?}");
    assert_eq!(names.last().unwrap(), "end");
}

#[tokio::test]
async fn a_reader_of_a_trigger_hears_of_the_run_it_becomes() {
    let mut stage = Stage::over(std::sync::Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", FILE).await;
    let body = json!({"repository": repository.url(), "ref": "refs/heads/main", "commit": repository.head()});
    let accepted = stage.post("/api/v1/events/push", &body).await;
    assert_eq!(accepted.code.as_u16(), 202, "{accepted:?}");
    let run = RunId::new(accepted.json["runs"][0]["run_id"].as_str().unwrap()).unwrap();
    let mut reader = Reader::open(&stage, &run, None).await.unwrap();
    assert_eq!(reader.expect("snapshot").await.data["number"], Value::Null);
    stage.start_intake();
    let whole = reader.expect("snapshot").await;
    assert_eq!((&whole.data["number"], &whole.data["steps"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn a_failed_run_without_steps_ends_its_stream() {
    let stage = Stage::new().await;
    stage.pipeline("app", "stages: 5").await;
    let run = stage.run("app").await;
    let mut reader = Reader::open(&stage, &run, None).await.unwrap();
    assert_eq!(reader.expect("snapshot").await.data["status"], "failed");
    assert_eq!(reader.expect("end").await.data["status"], "failed");
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn streams_end_with_the_server_and_are_bounded() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let mut reader = Reader::open(&stage, &run, None).await.unwrap();
    reader.expect("snapshot").await;
    assert!(stage.get("/metrics").await.text.contains("buildflow_http_streams 1"));
    let all = u32::try_from(stage.server.streams.available_permits()).unwrap();
    let taken = stage.server.streams.clone().try_acquire_many_owned(all).unwrap();
    assert_eq!(
        Reader::open(&stage, &run, None).await.err(),
        Some(StatusCode::SERVICE_UNAVAILABLE)
    );
    drop(taken);
    stage.server.deps.shutdown.cancel();
    assert_eq!(reader.next().await, None);
    drop(reader);
    assert_eq!(stage.server.metrics.streams.get(), 0);
}
