//! The real port: both protocols side by side, and an orderly end.

use super::stage::{ADMIN, FILE, NODE, PATIENCE, Stage};
use crate::server::Api;
use crate::state::{ApiConfig, Shared};
use model::record::Unknown;
use model::{TeamName, TeamRecord, key};
use std::net::SocketAddr;
use store::{Store, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::v1::fleet_service_client::FleetServiceClient;

pub(super) struct Served {
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    task: JoinHandle<Result<(), crate::ServeError>>,
    pub(super) stage: Stage,
    /// The server behind the port; the stage has one of its own over the same store.
    pub(super) server: Shared,
}

impl Served {
    /// Stops the server and waits for its end.
    pub(super) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

pub(super) async fn serve() -> Served {
    serve_with(crate::Allowance::default()).await
}

pub(super) async fn serve_with(allowance: crate::Allowance) -> Served {
    let stage = Stage::new().await;
    let mut deps = stage.server.deps.clone();
    deps.shutdown = CancellationToken::new();
    let config = ApiConfig {
        allowance,
        ..stage.server.config.clone()
    };
    let api = Api::new(config, deps);
    let server = api.shared().clone();
    let name = TeamName::new("default").unwrap();
    let team = TeamRecord {
        name: name.clone(),
        created_ms: 1,
        unknown: Unknown::new(),
    };
    stage
        .store
        .commit(Txn::new().put(key::team(&name), &team))
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(api.serve(listener, stop.clone()));
    Served {
        address,
        stop,
        task,
        stage,
        server,
    }
}

pub(super) async fn ask(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn one_port_speaks_rest_and_grpc() {
    let served = serve().await;
    assert!(
        ask(served.address, &get("/api/v1/nodes"))
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(ask(served.address, &get("/nothing")).await.starts_with("HTTP/1.1 404"));
    assert!(
        ask(served.address, "NONSENSE\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", served.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    for (token, code) in [
        (None, tonic::Code::Unauthenticated),
        (Some(ADMIN), tonic::Code::PermissionDenied),
    ] {
        let mut request = tonic::Request::new(tokio_stream::pending());
        if let Some(token) = token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let answer = FleetServiceClient::new(channel.clone()).session(request).await;
        assert_eq!(answer.unwrap_err().code(), code);
    }
    let mut request = tonic::Request::new(tokio_stream::pending());
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {NODE}").parse().unwrap());
    let stream = FleetServiceClient::new(channel).session(request).await;
    assert!(stream.is_ok(), "{stream:?}");
    served.stop.cancel();
    tokio::time::timeout(PATIENCE, served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_end_of_the_server_ends_its_streams() {
    let served = serve().await;
    served.stage.pipeline("app", FILE).await;
    let run = served.stage.run("app").await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let text = get(&format!("/api/v1/runs/{run}/events"));
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut heard = String::new();
    let mut part = [0_u8; 4096];
    while !heard.contains("event: snapshot") {
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut part))
            .await
            .unwrap()
            .unwrap();
        assert!(n > 0, "{heard}");
        heard.push_str(&String::from_utf8_lossy(&part[..n]));
    }
    served.stop.cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the stream ends")
        .unwrap();
    tokio::time::timeout(PATIENCE, served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_request_under_way_is_answered_though_the_server_stops() {
    let served = serve().await;
    let body = "{\"text\": \"x\"}";
    let head = format!(
        "POST /api/v1/pipelines/validate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !ask(served.address, &get("/metrics"))
        .await
        .contains("requests_in_flight 2")
    {
        assert!(tokio::time::Instant::now() < deadline, "the request has begun");
    }
    served.stop.cancel();
    while TcpStream::connect(served.address).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the port is closed");
    }
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"valid\":false"),
        "{answer}"
    );
    tokio::time::timeout(PATIENCE, served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
