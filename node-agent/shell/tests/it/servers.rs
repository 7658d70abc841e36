//! Several servers: one dies, one hangs, one is another cluster's; and the node's certificate.

use crate::agents::{TestNode, alloc, order};
use crate::fake_sandboxes::FakeSandboxes;
use crate::front::Front;
use isolation::End;
use model::{ObservedState, Outcome};
use node_agent_shell::TlsFiles;
use pki::{Authority, Certificate, ClusterId, Identity, Peer, ServerTls};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A node with two ways to the same books, connected through one of them, with a step that runs.
async fn between_two() -> (TestNode, Front, Front) {
    let mut node = TestNode::stopped(FakeSandboxes::new()).await;
    let [one, other] = [
        Front::start(&node.server.address, None).await,
        Front::start(&node.server.address, None).await,
    ];
    node.addresses = vec![one.address.clone(), other.address.clone()];
    node.start_agent();
    node.server.connected(1).await;
    node.server.order(&order(0));
    node.sandboxes.wait(alloc(0, 1).as_str());
    node.sandboxes.start(alloc(0, 1).as_str());
    node.server.reported(&alloc(0, 1), ObservedState::Running).await;
    let (used, spare) = if one.is_used() { (one, other) } else { (other, one) };
    assert!(used.is_used() && !spare.is_used());
    (node, used, spare)
}

/// The step that ran meanwhile ends once, with its own result.
async fn went_on(node: &TestNode) {
    let id = alloc(0, 1);
    node.sandboxes.print(id.as_str(), b"still here\n");
    node.sandboxes.end(id.as_str(), End::Exited { code: 5 });
    let ended = node.server.reported(&id, ObservedState::Ended).await;
    assert_eq!(ended.outcome, Some(Outcome::Exited { code: 5 }));
    assert_eq!(node.server.whole_log(&id).await, b"still here\n");
    assert_eq!(node.sandboxes.launches.lock().unwrap().len(), 1);
    assert!(node.metric("buildflow_agent_reconnects_total") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_server_dies_the_agent_moves_at_once() {
    let (node, used, spare) = between_two().await;
    let began = Instant::now();
    used.die();
    node.server.connected(2).await;
    println!("moved {} ms after the death of its server", began.elapsed().as_millis());
    assert!(spare.is_used());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    went_on(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_left_although_nothing_is_closed() {
    let (node, used, spare) = between_two().await;
    let began = Instant::now();
    used.freeze();
    node.server.connected(2).await;
    println!(
        "moved {} ms after its server began to hang",
        began.elapsed().as_millis()
    );
    assert!(used.kept() > 0, "it never hung");
    assert!(spare.is_used() && used.is_used(), "nobody closed the connection");
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    went_on(&node).await;
}

/// A cluster with an authority, and a server of it.
struct Cluster {
    authority: Authority,
    tls: Arc<ServerTls>,
}

const DAY: Duration = Duration::from_secs(86_400);

impl Cluster {
    fn new() -> Self {
        let (authority, _) = Authority::create(&ClusterId::random().unwrap(), pki::now_s(), DAY).unwrap();
        let hosts = ["127.0.0.1".parse().unwrap()];
        let identity = authority.certify_server("s1", &hosts, pki::now_s(), DAY).unwrap();
        let trust = authority.trust().unwrap();
        Self {
            tls: Arc::new(ServerTls::new(identity, trust).unwrap()),
            authority,
        }
    }

    /// What a machine that has joined has: a certificate that went on from `now_s` for `life`.
    fn join(&self, folder: &Path, now_s: u64, life: Duration) -> TlsFiles {
        let request = pki::new_request("n1").unwrap();
        let pem = self
            .authority
            .certify_node(&request.csr_pem, "n1", now_s, life)
            .unwrap();
        let files = TlsFiles {
            ca: folder.join("ca.pem"),
            certificate: folder.join("node.pem"),
            key: folder.join("node.key"),
        };
        std::fs::write(&files.ca, self.authority.certificate_pem()).unwrap();
        std::fs::write(&files.certificate, pem).unwrap();
        std::fs::write(&files.key, request.key_pem).unwrap();
        files
    }
}

fn known(peer: &Peer) -> &Certificate {
    match peer {
        Peer::Known(certificate) => certificate,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_and_used_from_the_next_connection_on() {
    let cluster = Cluster::new();
    let mut node = TestNode::stopped(FakeSandboxes::new()).await;
    let front = Front::start(&node.server.address, Some(cluster.tls.clone())).await;
    // Nine tenths of its life are over.
    let begun = pki::now_s() - 900;
    let files = cluster.join(node.folder.path(), begun, Duration::from_secs(1_000));
    let first = Certificate::from_pem(&std::fs::read_to_string(&files.certificate).unwrap()).unwrap();
    assert!(pki::now_s() >= first.renew_at_s() && first.check_time(pki::now_s()).is_ok());
    node.tls = Some(files.clone());
    node.addresses = vec![front.address.clone()];
    // At first nobody certifies: the agent works with what it has and asks again.
    node.start_agent();
    node.server.connected(1).await;
    assert_eq!(known(&front.peers()[0]).fingerprint, first.fingerprint);
    node.server.books().authority = Some((cluster.authority, DAY));
    node.server
        .until("a new certificate", |books| (books.certified > 0).then_some(()))
        .await;
    let until = Instant::now() + Duration::from_secs(30);
    let fresh = loop {
        // Whenever it is looked at, the file holds a certificate that can be shown.
        let fresh = Identity::read(&files.certificate).or_else(|_| Identity::read_two(&files.certificate, &files.key));
        let fresh = fresh.unwrap().certificate().clone();
        if fresh.fingerprint != first.fingerprint {
            break fresh;
        }
        assert!(Instant::now() < until, "the certificate never reached the disk");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(Identity::read(&files.certificate).is_ok(), "one file holds the pair");
    assert_eq!(fresh.name, "n1");
    node.server.cut();
    node.server.connected(2).await;
    assert_eq!(known(front.peers().last().unwrap()).fingerprint, fresh.fingerprint);
    let until = Instant::now() + Duration::from_secs(30);
    while node.metric("buildflow_agent_certificate_expiry_timestamp_seconds") < fresh.not_after_s as f64 {
        assert!(Instant::now() < until, "the metric still tells of the old one");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.server.books().certified, 1, "a fresh one is not renewed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_cluster_gets_nothing() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let mut node = TestNode::stopped(FakeSandboxes::new()).await;
    let stranger = Front::start(&node.server.address, Some(theirs.tls)).await;
    node.tls = Some(ours.join(node.folder.path(), pki::now_s(), DAY));
    node.addresses = vec![stranger.address.clone()];
    node.start_agent();
    let until = Instant::now() + Duration::from_secs(30);
    while stranger.refused() < 2 {
        assert!(Instant::now() < until, "nobody came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.server.books().hellos.len(), 0);
}
