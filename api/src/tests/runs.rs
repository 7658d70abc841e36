//! Runs: made, listed, shown, explained, cancelled; and the nodes they run on.

use super::stage::{FILE, Reply, Stage, record};
use crate::dto::NodeVerdict;
use crate::explain::Waiting;
use axum::http::Request;
use futures::future::join_all;
use model::record::Unknown;
use model::{
    AllocId, Allocation, Fence, NodeFacts, NodeId, NodeRecord, Outcome, Phase, Resources, RunId, SessionRecord,
    StepStatus, Usage, key,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use store::{Store, Txn};

const AT: &str = "/api/v1/pipelines/default/app/runs";

fn with_key(body: &Value, key: &str) -> Request<axum::body::Body> {
    let mut request = Stage::json("POST", AT, body);
    request.headers_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

fn numbers(list: &Reply) -> Vec<u64> {
    let runs = list.json["runs"].as_array().unwrap_or_else(|| panic!("{list:?}"));
    runs.iter().map(|r| r["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_run_is_made_of_a_branch_a_tag_a_commit_or_nothing() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let first = repository.head();
    repository.git(&["tag", "v1"]);
    repository.git(&["checkout", "-q", "-b", "release/1"]);
    let second = repository.commit(FILE, "on release");
    repository.git(&["checkout", "-q", "main"]);
    let cases = [
        (json!({}), "refs/heads/main", &first),
        (json!({"branch": "release/1"}), "refs/heads/release/1", &second),
        (json!({"tag": "v1"}), "refs/tags/v1", &first),
        (json!({"commit_sha": second.to_uppercase()}), "", &second),
        (
            json!({"branch": "main", "commit_sha": first, "variables": {"A": "b"}}),
            "refs/heads/main",
            &first,
        ),
    ];
    for (n, (body, git_ref, commit)) in cases.iter().enumerate() {
        let made = stage.post(AT, body).await;
        assert_eq!(made.code.as_u16(), 201, "{body}: {made:?}");
        assert_eq!(made.json["number"], n + 1);
        let shown = stage.get(&format!("/api/v1/runs/{}", made.run_id())).await.json;
        assert_eq!(
            (&shown["ref"], &shown["commit"]),
            (&json!(git_ref), &json!(commit)),
            "{body}"
        );
        assert_eq!(shown["event"], "manual");
        assert_eq!(&shown["variables"], body.get("variables").unwrap_or(&json!({})));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_wish_is_told_before_anything_is_made() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let many: BTreeMap<String, String> = (0..300).map(|n| (format!("V{n}"), String::new())).collect();
    let fat: BTreeMap<String, String> = (0..20).map(|n| (format!("V{n}"), "x".repeat(20_000))).collect();
    let cases = [
        (json!({"branch": "no-such"}), "no-such"),
        (json!({"branch": "a..b"}), "`branch`: "),
        (json!({"branch": "--upload-pack=x"}), "`branch`: "),
        (json!({"tag": "v9"}), "`tag`: "),
        (
            json!({"commit_sha": "1234567890123456789012345678901234567890"}),
            "has no commit",
        ),
        (json!({"commit_sha": "abc"}), "commit id"),
        (json!({"branch": "main", "tag": "v1"}), "not both"),
        (json!({"branch": ""}), "`branch`"),
        (json!({"inputs": {"a": 1}}), "the input `a`"),
        (json!({"variables": {"A B": "x"}}), "variables.A B"),
        (json!({"variables": {"CI": "x"}}), "is set by BuildFlow"),
        (json!({"variables": {"BUILDFLOW_STEP": "x"}}), "is set by BuildFlow"),
        (json!({"variables": {"A": "x\u{0}y"}}), "no NUL"),
        (json!({"variables": {"A": 5}}), "field `variables.A`"),
        (json!({"variables": many}), "at most 256"),
        (json!({"variables": fat}), "together"),
        (json!({"brunch": "main"}), "unknown field `brunch`"),
    ];
    for (body, expected) in cases {
        let reply = stage.post(AT, &body).await;
        let detail = reply.problem(400, "bad-request");
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    let list = stage.post(AT, &json!(["main"])).await;
    assert!(list.problem(400, "bad-request").contains("expected an object"));
    stage.ask(with_key(&json!({}), "a b")).await.problem(400, "bad-request");
    let reply = stage.post("/api/v1/pipelines/default/other/runs", &json!({})).await;
    assert!(reply.problem(404, "not-found").contains("default/other"));
    std::fs::remove_dir_all(&repository.path).unwrap();
    let gone = stage.post(AT, &json!({"branch": "main"})).await;
    assert!(gone.problem(400, "bad-request").contains("cannot be read"), "{gone:?}");
    assert_eq!(numbers(&stage.get(AT).await), [0_u64; 0]);
}

#[tokio::test]
async fn the_same_trigger_within_a_minute_is_the_same_run_unless_forced() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let body = json!({"branch": "main", "variables": {"A": "1"}});
    let made = stage.post(AT, &body).await;
    let again = stage.post(AT, &body).await;
    assert_eq!((made.code.as_u16(), again.code.as_u16()), (201, 200));
    assert_eq!((made.run_id(), &again.json["created"]), (again.run_id(), &json!(false)));
    let other = stage
        .post(AT, &json!({"branch": "main", "variables": {"A": "2"}}))
        .await;
    assert_eq!(other.code.as_u16(), 201);
    let forced = stage
        .post(AT, &json!({"branch": "main", "variables": {"A": "1"}, "force": true}))
        .await;
    assert_eq!((forced.code.as_u16(), &forced.json["number"]), (201, &json!(3)));
    let newest = stage.post(AT, &body).await;
    assert_eq!((newest.code.as_u16(), newest.run_id()), (200, forced.run_id()));
}

#[tokio::test]
async fn an_idempotency_key_leads_to_one_run_and_to_no_other_request() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let body = json!({"branch": "main"});
    let made = stage.ask(with_key(&body, "k1")).await;
    assert_eq!(made.code.as_u16(), 201);
    repository.commit(FILE, "the branch has moved");
    let again = stage.ask(with_key(&body, "k1")).await;
    assert_eq!((again.code.as_u16(), again.run_id()), (200, made.run_id()));
    let misused = stage
        .ask(with_key(&json!({"branch": "main", "variables": {"A": "1"}}), "k1"))
        .await;
    assert!(misused.problem(409, "conflict").contains("Idempotency-Key"));
    let other = stage.ask(with_key(&body, "k2")).await;
    assert_eq!((other.code.as_u16(), &other.json["number"]), (201, &json!(2)));
}

#[tokio::test]
async fn a_crowd_with_the_same_trigger_makes_one_run() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let body = json!({"branch": "main"});
    let replies = join_all((0..40).map(|_| stage.post(AT, &body))).await;
    let ids: BTreeSet<String> = replies.iter().map(|r| r.run_id().to_string()).collect();
    assert_eq!(ids.len(), 1);
    let made = replies.iter().filter(|r| r.code.as_u16() == 201).count();
    let found = replies.iter().filter(|r| r.code.as_u16() == 200).count();
    assert_eq!((made, found), (1, 39));
    assert_eq!(numbers(&stage.get(AT).await), [1]);
}

#[tokio::test]
async fn a_crowd_of_different_triggers_gets_numbers_without_gaps() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    stage.pipeline("other", FILE).await;
    let wish = |n: usize| {
        let pipeline = if n.is_multiple_of(2) { "app" } else { "other" };
        let path = format!("/api/v1/pipelines/default/{pipeline}/runs");
        let stage = &stage;
        async move {
            stage
                .post(&path, &json!({"branch": "main", "variables": {"N": n.to_string()}}))
                .await
        }
    };
    let replies = join_all((0..30).map(wish)).await;
    assert!(replies.iter().all(|r| r.code.as_u16() == 201), "{replies:?}");
    for pipeline in ["app", "other"] {
        let list = stage
            .get(&format!("/api/v1/pipelines/default/{pipeline}/runs?limit=100"))
            .await;
        assert_eq!(numbers(&list), (1..=15).rev().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged_newest_first() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    repository.git(&["branch", "dev"]);
    let mut ids = Vec::new();
    for n in 0..7 {
        let branch = if n % 3 == 0 { "dev" } else { "main" };
        let made = stage.post(AT, &json!({"branch": branch, "force": true})).await;
        ids.push(made.run_id());
    }
    for step in 0..3 {
        stage.lead(&ids[4], step, StepStatus::Success).await;
    }
    stage.lead(&ids[5], 0, StepStatus::Running).await;
    for base in [AT, "/api/v1/runs"] {
        let mut seen = Vec::new();
        let mut path = format!("{base}?limit=3");
        loop {
            let page = stage.get(&path).await;
            seen.extend(numbers(&page));
            let Some(cursor) = page.json["next_cursor"].as_str() else {
                break;
            };
            path = format!("{base}?limit=3&cursor={cursor}");
        }
        assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1], "{base}");
        let of = async |filter: &str| numbers(&stage.get(&format!("{base}?{filter}")).await);
        assert_eq!(of("branch=dev").await, [7, 4, 1]);
        assert_eq!(of("status=success").await, [5]);
        assert_eq!(of("status=running").await, [6]);
        assert_eq!(of("status=queued&branch=main").await, [3, 2]);
        for bad in ["status=done", "limit=x", "cursor=zzz", "colour=red"] {
            stage.get(&format!("{base}?{bad}")).await.problem(400, "bad-request");
        }
    }
    stage
        .get("/api/v1/pipelines/default/none/runs")
        .await
        .problem(404, "not-found");
    let last = &stage.get("/api/v1/pipelines/default/app").await.json["last_run"];
    assert_eq!(last["number"], 7);
}

#[tokio::test]
async fn a_run_is_found_by_its_id_and_by_its_number() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    stage.pipeline("other", FILE).await;
    let run = stage.run("app").await;
    let by_id = stage.get(&format!("/api/v1/runs/{run}")).await;
    assert_eq!(stage.get(&format!("{AT}/{run}")).await.json, by_id.json);
    assert_eq!(stage.get(&format!("{AT}/1")).await.json, by_id.json);
    for absent in [
        format!("{AT}/2"),
        format!("/api/v1/pipelines/default/other/runs/{run}"),
        format!("{AT}/x%2Fy"),
    ] {
        stage.get(&absent).await.problem(404, "not-found");
    }
    stage.get("/api/v1/runs/no_such!").await.problem(404, "not-found");
    let second = stage.get(&format!("{AT}/2")).await;
    assert!(
        second.problem(404, "not-found").contains("`default/app#2`"),
        "{second:?}"
    );
}

#[tokio::test]
async fn a_run_shows_all_that_happened_to_its_steps() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let mut failed = record(StepStatus::Failed);
    failed.node = Some(NodeId::new("n1").unwrap());
    failed.outcome = Some(Outcome::Exited { code: 3 });
    failed.reason = Some("ended with exit code 3".to_owned());
    failed.log_bytes = Some(77);
    failed.phases = vec![Phase {
        name: "image".to_owned(),
        ms: 12,
        bytes: 34,
    }];
    failed.usage = Usage {
        memory_peak_bytes: 9,
        cpu_ms: 8,
        throttled_ms: 7,
    };
    stage.lead_record(&run, 0, failed).await;
    let at = format!("/api/v1/runs/{run}");
    let shown = stage.get(&at).await.json;
    assert_eq!(shown["status"], "running");
    let step = &shown["stages"][0]["steps"][0];
    assert_eq!(
        (&step["status"], &step["exit_code"], &step["outcome"]),
        (&json!("failed"), &json!(3), &json!("exited"))
    );
    assert_eq!(
        (&step["node"], &step["attempt"], &step["log_bytes"]),
        (&json!("n1"), &json!(1), &json!(77))
    );
    assert_eq!(step["phases"], json!([{"name": "image", "ms": 12, "bytes": 34}]));
    assert_eq!(
        step["use"],
        json!({"memory_peak_bytes": 9, "cpu_ms": 8, "throttled_ms": 7})
    );
    assert_eq!(step["reason"], "ended with exit code 3");
    for step in [1, 2] {
        stage.lead(&run, step, StepStatus::Skipped).await;
    }
    let shown = stage.get(&at).await.json;
    assert_eq!((&shown["status"], &shown["steps"]), (&json!("failed"), &json!(3)));
    assert!(shown["ended_ms"].as_u64().unwrap() >= shown["started_ms"].as_u64().unwrap());
    assert_eq!(
        shown["stages"][1]["steps"][1]["name"], "lint",
        "its definition comes from the store now"
    );
    assert!(stage.server.view.held_def(&run).is_none());
    let forms: crate::dto::RunDetail = serde_json::from_value(shown.clone()).unwrap();
    assert_eq!(serde_json::to_value(forms).unwrap(), shown);
}

#[tokio::test]
async fn cancelling_is_asked_once_and_only_of_what_goes_on() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let at = format!("/api/v1/runs/{run}/cancel");
    let asked = stage.post(&at, &json!({})).await;
    assert_eq!((asked.code.as_u16(), &asked.json["status"]), (202, &json!("queued")));
    assert_eq!(stage.post(&at, &json!({})).await.code.as_u16(), 202);
    let (requests, _) = store::live::read_all(stage.store.as_ref(), key::REQUESTS)
        .await
        .unwrap();
    assert_eq!(requests.len(), 1);
    let request: model::Request = requests[0].decode().unwrap();
    assert_eq!(
        (request.what, request.requested_by.as_str()),
        (model::RequestKind::Cancel { run: run.clone() }, "root")
    );
    assert_eq!(
        stage.get(&format!("/api/v1/runs/{run}")).await.json["cancel_requested"],
        true
    );
    let acted = (0..3).fold(Txn::new().delete(&requests[0].key), |txn, step| {
        txn.put(key::step(&run, step), &record(StepStatus::Cancelled))
    });
    stage.write(acted).await;
    let again = stage.post(&at, &json!({})).await;
    assert_eq!((again.code.as_u16(), &again.json["status"]), (200, &json!("cancelled")));
    let done = stage.run("app").await;
    for step in 0..3 {
        stage.lead(&done, step, StepStatus::Success).await;
    }
    let late = stage.post(&format!("/api/v1/runs/{done}/cancel"), &json!({})).await;
    assert!(late.problem(409, "conflict").contains("success"));
    stage
        .post("/api/v1/runs/01jd/cancel", &json!({}))
        .await
        .problem(404, "not-found");
    assert!(
        stage
            .store
            .get(&key::request(&format!("cancel-{done}")))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn explain_says_why_here_or_why_not_yet() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let ask = async |step: &str| stage.get(&format!("/api/v1/runs/{run}/steps/{step}/explain")).await;
    let unplaced = ask("compile").await;
    assert_eq!(unplaced.json["status"], "queued");
    assert!(unplaced.json["summary"].as_str().unwrap().contains("waits for a node"));
    let verdict = NodeVerdict {
        node: "n1".to_owned(),
        name: "host".to_owned(),
        feasible: false,
        reason: "too little memory".to_owned(),
        score: None,
    };
    let told = Waiting {
        summary: "no node has room".to_owned(),
        nodes: vec![verdict],
    };
    *stage.oracle.0.lock().unwrap() = Some(told);
    let told = ask("compile").await.json;
    assert_eq!(
        (&told["summary"], &told["nodes"][0]["reason"]),
        (&json!("no node has room"), &json!("too little memory"))
    );
    let pending = ask("unit").await.json;
    assert_eq!(
        (&pending["summary"], &pending["waits_for"]),
        (&json!("waits for compile"), &json!(["compile"]))
    );
    let mut running = record(StepStatus::Running);
    running.node = Some(NodeId::new("n1").unwrap());
    running.placement = Some("best fit".to_owned());
    stage.lead_record(&run, 0, running).await;
    let placed = ask("compile").await.json;
    assert_eq!(
        (&placed["summary"], &placed["placement"]),
        (
            &json!("is running on node n1, whose lease has run out: the step is about to be placed elsewhere"),
            &json!("best fit")
        )
    );
    assert_eq!(placed["nodes"], json!([]));
    assert!(ask("none").await.problem(404, "not-found").contains("no step `none`"));
}

fn node(id: &str, name: &str) -> NodeRecord {
    NodeRecord {
        id: NodeId::new(id).unwrap(),
        name: name.to_owned(),
        epoch: 3,
        capacity: Resources {
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
            disk_bytes: 1 << 40,
        },
        slots: 20,
        labels: BTreeMap::from([("arch".to_owned(), "amd64".to_owned())]),
        facts: NodeFacts {
            kernel: "6.1".to_owned(),
            ..NodeFacts::default()
        },
        registered_ms: 5,
        unknown: Unknown::new(),
    }
}

fn allocation(run: &RunId, node: &NodeRecord) -> Allocation {
    let fence = Fence { epoch: 1, counter: 1 };
    Allocation {
        id: AllocId::for_step(run, 0, fence),
        run: run.clone(),
        step: 0,
        attempt: 1,
        fence,
        node: node.id.clone(),
        node_epoch: 3,
        resources: Resources {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
        },
        created_ms: 9,
        stop: None,
        stop_reason: None,
        unknown: Unknown::new(),
    }
}

#[tokio::test]
async fn nodes_show_what_is_free_and_what_runs_on_them() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    assert_eq!(stage.get("/api/v1/nodes").await.json, json!({"nodes": []}));
    let (one, two) = (node("n1", "beta"), node("n2", "alpha"));
    let alloc = allocation(&run, &one);
    let session = SessionRecord {
        lease: 0,
        node: one.id.clone(),
        server: "one".to_owned(),
        node_epoch: 3,
        address: String::new(),
        connected: true,
        unknown: Unknown::new(),
    };
    let txn = Txn::new()
        .put(key::node(&one.id), &one)
        .put(key::node(&two.id), &two)
        .put(key::session(&one.id), &session)
        .put(key::alloc(&one.id, &alloc.id), &alloc);
    stage.write(txn).await;
    stage.lead(&run, 0, StepStatus::Running).await;
    let list = stage.get("/api/v1/nodes").await.json;
    assert_eq!(
        (&list["nodes"][0]["name"], &list["nodes"][1]["name"]),
        (&json!("alpha"), &json!("beta"))
    );
    assert_eq!(
        (&list["nodes"][0]["connected"], &list["nodes"][1]["connected"]),
        (&json!(false), &json!(true))
    );
    for address in ["n1", "beta"] {
        let shown = stage.get(&format!("/api/v1/nodes/{address}")).await.json;
        assert_eq!(
            shown["free"],
            json!({"cpu_millis": 3000, "memory_bytes": 7_u64 << 30, "disk_bytes": (1_u64 << 40) - (1 << 30)})
        );
        assert_eq!(
            (&shown["allocations"], &shown["server"], &shown["epoch"]),
            (&json!(1), &json!("one"), &json!(3))
        );
        let running = &shown["running"][0];
        assert_eq!(
            (&running["step"], &running["pipeline"], &running["number"]),
            (&json!("compile"), &json!("app"), &json!(1))
        );
        assert_eq!(
            (&running["status"], &running["stopping"]),
            (&json!("running"), &json!(false))
        );
    }
    stage.get("/api/v1/nodes/none").await.problem(404, "not-found");
    assert!(stage.get("/metrics").await.text.contains("buildflow_nodes_connected 1"));
    stage
        .write(
            Txn::new()
                .delete(key::alloc(&one.id, &alloc.id))
                .delete(key::session(&one.id)),
        )
        .await;
    let shown = stage.get("/api/v1/nodes/n1").await.json;
    assert_eq!(
        (&shown["free"], &shown["connected"]),
        (&shown["capacity"], &json!(false))
    );
}

#[tokio::test]
async fn the_first_instruction_is_counted_once_for_each_run() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    for step in 0..3 {
        stage.lead(&run, step, StepStatus::Running).await;
        stage.lead(&run, step, StepStatus::Success).await;
    }
    let text = stage.get("/metrics").await.text;
    assert!(
        text.contains("buildflow_trigger_to_first_instruction_seconds_count 1"),
        "{text}"
    );
    assert!(
        text.contains("buildflow_runs_created_total{event=\"manual\",result=\"ok\"} 1"),
        "{text}"
    );
}
