//! Real connections between members, strangers and members of another cluster.

use pki::{Authority, Client, ClusterId, Host, Identity, Peer, PkiError, Role, ServerTls, Trust};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    authority: Authority,
}

impl Cluster {
    fn new() -> Self {
        Self::called(&ClusterId::random().expect("random"))
    }

    fn called(id: &ClusterId) -> Self {
        let (authority, _key) = Authority::create(id, pki::now_s(), DAY * 365).expect("made");
        Self { authority }
    }

    fn trust(&self) -> Trust {
        self.authority.trust().expect("an authority")
    }

    fn server_at(&self, now_s: u64, life: Duration) -> Identity {
        let hosts: Vec<Host> = vec!["127.0.0.1".parse().expect("host"), "s1.test".parse().expect("host")];
        self.authority
            .certify_server("s1", &hosts, now_s, life)
            .expect("certified")
    }

    fn node_at(&self, now_s: u64, life: Duration) -> Identity {
        let request = pki::new_request("n1").expect("made");
        let pem = self.authority.certify_node(&request.csr_pem, "n1", now_s, life);
        Identity::from_pems(&pem.expect("certified"), &request.key_pem).expect("fits")
    }

    fn tls(&self) -> Arc<ServerTls> {
        let identity = self.server_at(pki::now_s(), DAY);
        Arc::new(ServerTls::new(identity, self.trust()).expect("a server"))
    }
}

/// Connects once; answers what each side says.
async fn meet(server: Arc<ServerTls>, client: Client, host: &str) -> (std::io::Result<Peer>, Option<PkiError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let (mut stream, peer) = server.accept(stream).await?;
        stream.write_all(b"hi").await?;
        stream.flush().await?;
        Ok(peer)
    });
    let address = format!("https://{host}:{port}").parse().expect("an address");
    let refused = match client.connect(&address).await {
        Ok(mut stream) => {
            let mut word = [0; 2];
            let _ = tokio::time::timeout(PATIENCE, stream.read_exact(&mut word)).await;
            assert_eq!(&word, b"hi", "what the server says comes through");
            None
        }
        Err(error) => Some(pki::reason(&error).unwrap_or_else(|| panic!("{error}")).clone()),
    };
    let peer = tokio::time::timeout(PATIENCE, serving).await.expect("in time");
    (peer.expect("no panic"), refused)
}

#[tokio::test]
async fn members_of_a_cluster_know_each_other() {
    let cluster = Cluster::new();
    let node = cluster.node_at(pki::now_s(), DAY);
    let client = Client::new(cluster.trust(), Some(&node)).expect("a client");
    let (peer, refused) = meet(cluster.tls(), client, "127.0.0.1").await;
    assert_eq!(refused, None);
    let peer = peer.expect("accepted");
    let certificate = peer.require(Role::Node, pki::now_s()).expect("a node");
    assert_eq!((certificate.name.as_str(), certificate.role), ("n1", Role::Node));
    assert_eq!(certificate.cluster, *cluster.trust().cluster());

    let ended = peer.require(Role::Node, certificate.not_after_s + 1);
    assert!(
        matches!(ended, Err(PkiError::Expired { .. })),
        "an open connection ends with its certificate"
    );
    let other = peer.require(Role::Server, pki::now_s()).expect_err("it is a node");
    assert_eq!(
        other.to_string(),
        "n1 shows the certificate of a node, a server is needed here"
    );

    let (peer, refused) = meet(cluster.tls(), cluster.tls().client().expect("a client"), "127.0.0.1").await;
    assert_eq!(refused, None);
    assert_eq!(
        peer.expect("accepted")
            .require(Role::Server, pki::now_s())
            .expect("a server")
            .name,
        "s1"
    );
}

#[tokio::test]
async fn whoever_shows_nothing_is_anonymous() {
    let cluster = Cluster::new();
    let client = Client::new(cluster.trust(), None).expect("a client");
    let (peer, refused) = meet(cluster.tls(), client, "127.0.0.1").await;
    assert_eq!((peer.expect("accepted"), refused), (Peer::Anonymous, None));
    let missing = Peer::Anonymous.require(Role::Node, 0).expect_err("nothing shown");
    assert!(missing.to_string().starts_with("no certificate was shown"), "{missing}");
}

#[tokio::test]
async fn what_a_server_does_not_believe_is_told_with_its_reason() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let namesake = Cluster::called(cluster.trust().cluster());
    let now = pki::now_s();
    let cases = [
        (other.node_at(now, DAY), "node n1 belongs to the cluster "),
        (
            namesake.node_at(now, DAY),
            "the certificate of node n1 is signed by an authority that is not trusted",
        ),
        (
            cluster.node_at(now - 7_200, Duration::from_secs(60)),
            "the certificate of node n1 ended at ",
        ),
        (
            cluster.node_at(now + 7_200, DAY),
            "the certificate of node n1 begins at ",
        ),
    ];
    for (node, expected) in cases {
        let client = Client::new(cluster.trust(), Some(&node)).expect("a client");
        let (peer, refused) = meet(cluster.tls(), client, "127.0.0.1").await;
        assert_eq!(refused, None);
        let refusal = peer.expect("accepted").require(Role::Node, now).expect_err(expected);
        assert!(refusal.to_string().starts_with(expected), "{refusal}");
    }
}

#[tokio::test]
async fn a_client_says_why_it_does_not_believe_a_server() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let namesake = Cluster::called(cluster.trust().cluster());
    let believer = |c: &Cluster| Client::new(c.trust(), None).expect("a client");
    let cases = [
        (
            other.tls(),
            believer(&cluster),
            "127.0.0.1",
            "server s1 belongs to the cluster ",
        ),
        (
            namesake.tls(),
            believer(&cluster),
            "127.0.0.1",
            "the certificate of server s1 is signed by an authority",
        ),
        (
            cluster.tls(),
            believer(&cluster),
            "localhost",
            "server s1 was reached as localhost, its certificate is for 127.0.0.1, s1.test;",
        ),
        (
            other.tls(),
            Client::pinned(cluster.authority.pin().expect("a pin")).expect("a client"),
            "127.0.0.1",
            "the server shows no authority with the fingerprint",
        ),
    ];
    for (server, client, host, expected) in cases {
        let (_, refused) = meet(server, client, host).await;
        let refused = refused.unwrap_or_else(|| panic!("{expected}: it was believed"));
        assert!(refused.to_string().starts_with(expected), "{refused}");
    }
}

#[tokio::test]
async fn a_machine_that_joins_believes_the_fingerprint_alone() {
    let cluster = Cluster::new();
    let client = Client::pinned(cluster.authority.pin().expect("a pin")).expect("a client");
    let (peer, refused) = meet(cluster.tls(), client, "127.0.0.1").await;
    assert_eq!((peer.expect("accepted"), refused), (Peer::Anonymous, None));
}

/// A node's certificate must not serve: a stolen one would be a server for all others.
#[test]
fn a_node_is_no_server() {
    let cluster = Cluster::new();
    let node = cluster.node_at(pki::now_s(), DAY);
    let refused = ServerTls::new(node, cluster.trust()).expect_err("a node");
    assert_eq!(
        refused.to_string(),
        "n1 shows the certificate of a node, a server is needed here"
    );
}

#[tokio::test]
async fn what_a_server_shows_is_replaced_while_it_serves() {
    let cluster = Cluster::new();
    let tls = cluster.tls();
    let before = tls.certificate().fingerprint;
    tls.replace(cluster.server_at(pki::now_s(), DAY), cluster.trust())
        .expect("a good one");
    assert_ne!(tls.certificate().fingerprint, before);
    let before_replacing = tls.client().expect("a client");
    let next = Cluster::called(cluster.trust().cluster());
    tls.replace(next.server_at(pki::now_s(), DAY), next.trust())
        .expect("a good one");
    let (peer, refused) = meet(next.tls(), before_replacing, "127.0.0.1").await;
    assert_eq!(refused, None, "a client that was made before follows");
    peer.expect("accepted")
        .require(Role::Server, pki::now_s())
        .expect("the new one is shown");
    let kept = tls.certificate().fingerprint;
    let ended = next.server_at(pki::now_s() - 7_200, Duration::from_secs(60));
    let refused = tls.replace(ended, next.trust()).expect_err("it has ended");
    assert!(matches!(refused, PkiError::Expired { .. }), "{refused}");
    assert_eq!(tls.certificate().fingerprint, kept, "what was there stays");
}

#[tokio::test]
async fn an_authority_is_rotated_without_a_moment_of_disbelief() {
    let old = Cluster::new();
    let new = Cluster::called(old.trust().cluster());
    let both = new.trust().and(&old.trust()).expect("one cluster");
    assert_eq!(both.authorities().count(), 2);
    assert_eq!(both.and(&old.trust()).expect("one cluster").authorities().count(), 2);
    let servers = [
        ServerTls::new(old.server_at(pki::now_s(), DAY), both.clone()).expect("a server"),
        ServerTls::new(new.server_at(pki::now_s(), DAY), both.clone()).expect("a server"),
    ];
    assert_eq!(servers[0].pin(), old.authority.pin().expect("a pin"));
    assert_eq!(servers[1].pin(), new.authority.pin().expect("a pin"));
    for server in servers.map(Arc::new) {
        for issuer in [&old, &new] {
            let node = issuer.node_at(pki::now_s(), DAY);
            let client = Client::new(both.clone(), Some(&node)).expect("a client");
            let (peer, refused) = meet(server.clone(), client, "127.0.0.1").await;
            assert_eq!(refused, None);
            peer.expect("accepted")
                .require(Role::Node, pki::now_s())
                .expect("believed");
        }
    }
    let mixed = old.trust().and(&Cluster::new().trust()).expect_err("two clusters");
    assert!(matches!(mixed, PkiError::WrongCluster { .. }), "{mixed}");
}

#[tokio::test]
async fn plain_text_is_no_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let tls = Cluster::new().tls();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        tls.accept(stream).await.map(drop)
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let ended = tokio::time::timeout(PATIENCE, serving)
        .await
        .expect("in time")
        .expect("no panic");
    ended.expect_err("no TLS");
}
