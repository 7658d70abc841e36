//! What operators want of nodes, with a stand-in for the leader that acts on requests.

use super::stage::{NODE, PATIENCE, Reply, Stage, record};
use crate::fleet::fixture::{alloc_id, allocation, make_run, run_id, step_record};
use model::record::Unknown;
use model::{
    Attempt, Drain, Eligibility, NodeFacts, NodeId, NodeRecord, Outcome, Request, RequestKind, Resources,
    SessionRecord, StepStatus, Times, Usage, key,
};
use serde_json::json;
use std::time::Duration;
use store::live::read_all;
use store::{Store, Txn};

fn node() -> NodeId {
    NodeId::new("n1").unwrap()
}

fn node_record() -> NodeRecord {
    NodeRecord {
        id: node(),
        name: "host-1".to_owned(),
        epoch: 3,
        capacity: Resources::default(),
        slots: 4,
        labels: [].into(),
        facts: NodeFacts {
            kernel: String::new(),
            cgroups: String::new(),
            agent_version: String::new(),
            boot_id: String::new(),
        },
        registered_ms: 1,
        unknown: Unknown::new(),
    }
}

fn session(connected: bool) -> SessionRecord {
    SessionRecord {
        lease: 0,
        node: node(),
        server: "two".to_owned(),
        address: String::new(),
        node_epoch: 3,
        connected,
        unknown: Unknown::new(),
    }
}

async fn stage() -> Stage {
    let stage = Stage::new().await;
    stage.write(Txn::new().put(key::node(&node()), &node_record())).await;
    stage
}

async fn requests(stage: &Stage) -> Vec<(String, Request)> {
    let (entries, _) = read_all(stage.store.as_ref(), key::REQUESTS).await.unwrap();
    entries
        .into_iter()
        .map(|e| (e.key.clone(), e.decode().unwrap()))
        .collect()
}

/// Acts on everything that was asked, as a leader would.
async fn act(stage: &Stage) {
    for (request_key, request) in requests(stage).await {
        let mut wish = Eligibility {
            node: node(),
            cordoned_by: request.requested_by.clone(),
            since_ms: request.created_ms,
            drain: None,
            gone_epoch: None,
            unknown: Unknown::new(),
        };
        let wish_key = key::eligibility(&node());
        let txn = Txn::new().delete(request_key);
        let txn = match request.what {
            RequestKind::Uncordon { .. } => txn.delete(wish_key),
            RequestKind::Cordon { .. } => txn.put(wish_key, &wish),
            RequestKind::Drain { deadline_ms, .. } => {
                wish.drain = Some(Drain { deadline_ms });
                txn.put(wish_key, &wish)
            }
            RequestKind::ConfirmGone { node_epoch, .. } => {
                wish.gone_epoch = Some(node_epoch);
                txn.put(wish_key, &wish)
            }
            RequestKind::Cancel { .. } | RequestKind::Start { .. } => txn,
        };
        stage.write(txn).await;
    }
}

async fn wish(stage: &Stage, verb: &str) -> Reply {
    let request = Stage::request("POST", &format!("/api/v1/nodes/n1/{verb}"));
    stage.ask(request.body(axum::body::Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_wish_is_asked_once_and_shown_until_and_after_the_leader_acts() {
    let stage = stage().await;
    let asked = wish(&stage, "cordon").await;
    assert_eq!(asked.code, 202, "nobody leads: {asked:?}");
    assert_eq!(asked.json["node"]["asked"], json!(["cordon"]));
    assert_eq!(asked.json["node"]["eligibility"], "eligible");
    let [(_, request)] = requests(&stage).await.try_into().unwrap();
    assert_eq!(request.what, RequestKind::Cordon { node: node() });
    assert_eq!(request.requested_by, "root");
    assert_eq!(request.request_id, asked.headers["x-request-id"].to_str().unwrap());
    act(&stage).await;
    let again = wish(&stage, "cordon").await;
    assert_eq!((again.code.as_u16(), requests(&stage).await.len()), (200, 0));
    let shown = stage.get("/api/v1/nodes/host-1").await.json;
    assert_eq!(
        (&shown["eligibility"], &shown["cordoned_by"], &shown["asked"]),
        (&json!("cordoned"), &json!("root"), &json!([]))
    );
    // A leader that acts meanwhile is waited for.
    let (freed, ()) = tokio::join!(wish(&stage, "uncordon"), async {
        while requests(&stage).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        act(&stage).await;
    });
    assert_eq!(freed.code, 200, "{freed:?}");
    assert_eq!(freed.json["node"]["eligibility"], "eligible");
    assert_eq!(wish(&stage, "uncordon").await.code, 200, "it was so already");
}

#[tokio::test]
async fn a_drain_has_a_deadline_and_shows_what_is_left() {
    let stage = stage().await;
    make_run(stage.store.as_ref(), &["unit", "lint"]).await;
    let order = allocation(0, 1);
    stage
        .write(Txn::new().put(key::alloc(&order.node, &order.id), &order))
        .await;
    let path = "/api/v1/nodes/n1/drain";
    let wrong = stage.post(path, &json!({"deadline": "soon"})).await;
    assert!(wrong.problem(400, "bad-request").contains("90s, 45m or 2h"));
    let before = crate::clock::now_ms();
    let asked = stage.post(path, &json!({"deadline": "45m"})).await;
    assert_eq!(asked.code, 202, "{asked:?}");
    let [(_, request)] = requests(&stage).await.try_into().unwrap();
    let RequestKind::Drain {
        deadline_ms: Some(deadline),
        ..
    } = request.what
    else {
        panic!("{request:?}")
    };
    assert!((before + 2_700_000..before + 2_700_000 + 60_000).contains(&deadline));
    act(&stage).await;
    let shown = stage.get("/api/v1/nodes/n1").await.json;
    assert_eq!(shown["eligibility"], "draining");
    assert_eq!(shown["drain"], json!({"deadline_ms": deadline, "orders_left": 1}));
}

#[tokio::test]
async fn the_same_key_asks_once_and_another_wish_under_it_is_refused() {
    let stage = stage().await;
    let keyed = |verb: &str| {
        let request = Stage::request("POST", &format!("/api/v1/nodes/n1/{verb}")).header("idempotency-key", "k1");
        request.body(axum::body::Body::empty()).unwrap()
    };
    for _ in 0..2 {
        assert_eq!(stage.ask(keyed("cordon")).await.code, 202);
        assert_eq!(requests(&stage).await.len(), 1);
    }
    let other = stage.ask(keyed("confirm-gone")).await;
    assert!(other.problem(409, "conflict").contains("another request"));
}

#[tokio::test]
async fn a_node_is_confirmed_gone_and_removed_only_when_it_is() {
    let stage = stage().await;
    let remove = || async {
        let request = Stage::request("DELETE", "/api/v1/nodes/n1");
        stage.ask(request.body(axum::body::Body::empty()).unwrap()).await
    };
    stage.write(Txn::new().put(key::session(&node()), &session(true))).await;
    assert_eq!(stage.get("/api/v1/nodes/n1").await.json["lease"], "renewed");
    assert!(
        wish(&stage, "confirm-gone")
            .await
            .problem(409, "conflict")
            .contains("is connected")
    );
    assert!(remove().await.problem(409, "conflict").contains("stop the agent"));
    stage
        .write(Txn::new().put(key::session(&node()), &session(false)))
        .await;
    let shown = stage.get("/api/v1/nodes/n1").await.json;
    assert_eq!(
        (&shown["lease"], &shown["connected"], &shown["server"]),
        (&json!("running_out"), &json!(false), &json!("two"))
    );
    assert!(remove().await.problem(409, "conflict").contains("lease"));
    assert_eq!(wish(&stage, "confirm-gone").await.code, 202);
    let [(_, request)] = requests(&stage).await.try_into().unwrap();
    assert_eq!(
        request.what,
        RequestKind::ConfirmGone {
            node: node(),
            node_epoch: 3
        }
    );
    stage.write(Txn::new().delete(key::session(&node()))).await;
    assert!(remove().await.problem(409, "conflict").contains("cordon it first"));
    act(&stage).await;
    assert_eq!(stage.get("/api/v1/nodes/n1").await.json["eligibility"], "gone");
    let order = allocation(0, 1);
    let order_key = key::alloc(&order.node, &order.id);
    stage.write(Txn::new().put(&order_key, &order)).await;
    assert!(remove().await.problem(409, "conflict").contains("1 steps"));
    stage.write(Txn::new().delete(&order_key)).await;
    assert_eq!(remove().await.code, 204);
    for left in [key::node(&node()), key::eligibility(&node())] {
        assert_eq!(stage.store.get(&left).await.unwrap(), None, "{left}");
    }
    remove().await.problem(404, "not-found");
    wish(&stage, "cordon").await.problem(404, "not-found");
}

#[tokio::test]
async fn wishes_that_nobody_acts_on_do_not_fill_the_store() {
    let stage = stage().await;
    for n in 0..crate::limit::NODE_REQUESTS_MAX {
        let request = Request {
            what: RequestKind::Cordon { node: node() },
            requested_by: "root".to_owned(),
            created_ms: 1,
            request_id: String::new(),
        };
        stage
            .write(Txn::new().put(key::request(&format!("node-{n}")), &request))
            .await;
    }
    let refused = wish(&stage, "cordon").await;
    assert!(refused.problem(503, "unavailable").contains("wait for a leader"));
}

#[tokio::test]
async fn only_an_administrator_may_wish() {
    let stage = stage().await;
    let request = Stage::request("POST", "/api/v1/nodes/n1/cordon");
    let mut request = request.body(axum::body::Body::empty()).unwrap();
    let token = format!("Bearer {NODE}").parse().unwrap();
    request.headers_mut().insert("authorization", token);
    stage.ask(request).await.problem(403, "forbidden");
    assert!(requests(&stage).await.is_empty());
}

#[tokio::test]
async fn every_attempt_of_a_step_is_shown_and_its_log_is_found() {
    let stage = stage().await;
    make_run(stage.store.as_ref(), &["unit", "lint"]).await;
    let earlier = |counter: u32, log_bytes| Attempt {
        attempt: counter,
        fence: allocation(0, counter).fence,
        alloc: alloc_id(0, counter),
        node: node(),
        outcome: Some(match log_bytes {
            Some(_) => Outcome::Exited { code: 75 },
            None => Outcome::Lost {
                message: "its node is gone".to_owned(),
            },
        }),
        reason: "is tried again".to_owned(),
        counts: true,
        log_bytes,
        times: Times::default(),
        usage: Usage::default(),
    };
    let mut newest = record(StepStatus::Queued);
    newest = model::StepRecord {
        earlier: vec![earlier(1, Some(0)), earlier(2, None)],
        retry_at_ms: Some(99),
        ..step_record(0, 2, newest.status)
    };
    stage.write(Txn::new().put(key::step(&run_id(), 0), &newest)).await;
    assert!(stage.server.view.wait_for_run(&run_id(), PATIENCE).await);
    let shown = stage.get("/api/v1/runs/01jd").await.json;
    let step = &shown["stages"][0]["steps"][0];
    assert_eq!(step["retry_at_ms"], 99);
    let attempts = step["attempts"].as_array().unwrap();
    let told: Vec<_> = attempts
        .iter()
        .map(|a| {
            (
                a["attempt"].as_u64().unwrap(),
                a["outcome"].as_str(),
                a["log_lost"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(1, Some("exited"), false), (2, Some("lost"), true)]);
    assert_eq!(
        (&attempts[0]["exit_code"], &attempts[0]["node_name"]),
        (&json!(75), &json!("host-1"))
    );
    for (attempt, complete, lost) in [(1, "true", false), (2, "false", true)] {
        let log = stage
            .get(&format!("/api/v1/runs/01jd/steps/unit/logs?attempt={attempt}"))
            .await;
        assert_eq!(log.code, 200, "{log:?}");
        assert_eq!(log.headers["x-log-complete"], complete, "{attempt}");
        assert_eq!(log.headers.contains_key("x-log-lost"), lost, "{attempt}");
    }
    stage
        .get("/api/v1/runs/01jd/steps/unit/logs?attempt=3")
        .await
        .problem(404, "not-found");
    // The next attempt is one more.
    newest = model::StepRecord {
        earlier: newest.earlier,
        ..step_record(0, 3, StepStatus::Assigned)
    };
    stage.write(Txn::new().put(key::step(&run_id(), 0), &newest)).await;
    let shown = stage.get("/api/v1/runs/01jd").await.json;
    let attempts = shown["stages"][0]["steps"][0]["attempts"].as_array().unwrap().clone();
    assert_eq!((attempts.len(), &attempts[2]["ended"]), (3, &json!(false)));
}
