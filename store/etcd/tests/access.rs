//! Who may speak to etcd, and what is said when it does not work: certificates, users, wrong
//! addresses, other clusters, a full database.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use store::live::read_all;
use store::live::{KEY_MAX, TXN_BYTES_MAX, TXN_OPS_MAX};
use store::{Commit, Expect, Guard, Store, StoreError, Txn};
use store_etcd::process::{Etcd, EtcdOptions, EtcdServerTls, installed};
use store_etcd::{EtcdConfig, EtcdStore, EtcdTls};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::block_in_place;

fn start(options: EtcdOptions) -> Option<Etcd> {
    installed().then(|| block_in_place(|| Etcd::start(options)).expect("etcd starts"))
}

fn put(key: &str, value: &str) -> Txn {
    Txn::new().put_bytes(key, value.as_bytes().to_vec(), None)
}

/// The words of a refusal to connect.
async fn refusal(config: EtcdConfig) -> String {
    EtcdStore::connect(config)
        .await
        .expect_err("it must not connect")
        .to_string()
}

fn plain(endpoint: &str) -> EtcdConfig {
    EtcdConfig::plain(vec![endpoint.to_owned()])
}

#[tokio::test]
async fn a_configuration_that_cannot_be_right_is_refused_before_anything_is_sent() {
    let tls = |cert: Option<&str>, key: Option<&str>| EtcdTls {
        ca_pem: "no certificate".to_owned(),
        cert_pem: cert.map(str::to_owned),
        key_pem: key.map(str::to_owned),
    };
    let with_tls = |endpoint: &str, tls| EtcdConfig {
        tls: Some(tls),
        ..plain(endpoint)
    };
    let with_prefix = |prefix: String| EtcdConfig {
        prefix,
        ..plain("http://127.0.0.1:1")
    };
    let cases = [
        (EtcdConfig::plain(Vec::new()), "endpoints"),
        (plain("127.0.0.1:2379"), "must begin with http"),
        (plain("ftp://127.0.0.1:2379"), "must begin with http"),
        (plain("not an address"), "`not an address`"),
        (plain("https://127.0.0.1:2379"), "certificate of its authority"),
        (
            with_tls("http://127.0.0.1:2379", tls(None, None)),
            "must begin with https",
        ),
        (
            with_tls("https://127.0.0.1:2379", tls(Some("c"), None)),
            "goes with its key",
        ),
        (with_prefix("buildflow".to_owned()), "must end with `/`"),
        (with_prefix(format!("{}/", "x".repeat(128))), "at most 128"),
    ];
    for (config, words) in cases {
        let shown = format!("{config:?}");
        let answer = EtcdStore::connect(config).await.expect_err(&shown);
        assert!(
            matches!(&answer, StoreError::Illegal(why) if why.contains(words)),
            "{shown}: {answer}"
        );
    }
}

#[tokio::test]
async fn nobody_there_names_every_endpoint_and_may_be_tried_again() {
    // The discard port: nothing listens there.
    let config = EtcdConfig::plain(vec!["http://127.0.0.1:9".to_owned(), "http://localhost:9".to_owned()]);
    let error = EtcdStore::connect(config).await.expect_err("nobody is there");
    let text = error.to_string();
    assert!(
        error.retry() && text.contains("http://127.0.0.1:9") && text.contains("http://localhost:9"),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
}

/// Something that is not etcd: it answers with the same bytes to everyone, or with none at all.
async fn stranger(says: &'static [u8]) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = connection.write_all(says).await;
                // Takes what it is sent and never hangs up.
                let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
            });
        }
    });
    endpoint
}

#[tokio::test]
async fn what_is_not_etcd_is_told_in_time() {
    // HTTP/2: settings, then an answer without headers to the first call.
    const NO_HEADERS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88";
    for says in [
        b"".as_slice(),
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        &[0xff; 4096],
        NO_HEADERS,
    ] {
        let endpoint = stranger(says).await;
        let begun = Instant::now();
        let text = refusal(plain(&endpoint)).await;
        assert!(text.contains(&endpoint), "{text}");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{says:?}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn no_secret_is_shown() {
    let config = EtcdConfig {
        user: Some(("buildflow".to_owned(), "hunter2".to_owned())),
        tls: Some(EtcdTls {
            ca_pem: "ca".to_owned(),
            cert_pem: Some("cert".to_owned()),
            key_pem: Some("topsecret".to_owned()),
        }),
        ..plain("https://127.0.0.1:2379")
    };
    let shown = format!("{config:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("topsecret") && shown.contains("buildflow"),
        "{shown}"
    );
}

/// An authority, and certificates that it signs.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for 127.0.0.1 and its key.
    fn signed(&self) -> (String, String) {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        let loopback = rcgen::SanType::IpAddress(IpAddr::from([127, 0, 0, 1]));
        params.subject_alt_names = vec![loopback];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    fn files(&self, folder: &Path) -> EtcdServerTls {
        let (cert, key) = self.signed();
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("it is written");
            path
        };
        EtcdServerTls {
            ca: write("ca.pem", &self.pem),
            cert: write("cert.pem", &cert),
            key: write("key.pem", &key),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_proved_on_both_sides() {
    let folder = TempDir::new().expect("a folder");
    let (ours, theirs) = (Authority::new(), Authority::new());
    let options = EtcdOptions {
        tls: Some(ours.files(folder.path())),
        ..EtcdOptions::default()
    };
    let Some(etcd) = start(options) else { return };
    let with = |ca: &Authority, own: Option<(String, String)>| {
        let (cert_pem, key_pem) = own.unzip();
        EtcdConfig {
            tls: Some(EtcdTls {
                ca_pem: ca.pem.clone(),
                cert_pem,
                key_pem,
            }),
            ..EtcdConfig::plain(etcd.endpoints())
        }
    };
    let store = EtcdStore::connect(with(&ours, Some(ours.signed())))
        .await
        .expect("it connects");
    store.commit(put("a", "1")).await.expect("it stands");
    for (what, config) in [
        ("another authority", with(&theirs, Some(ours.signed()))),
        ("no certificate of ours", with(&ours, None)),
        ("a certificate of another authority", with(&ours, Some(theirs.signed()))),
    ] {
        let text = refusal(config).await;
        assert!(text.contains(&etcd.endpoint(0)), "{what}: {text}");
    }
}

fn etcdctl(etcd: &Etcd, arguments: &[&str]) {
    let mut command = Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={}", etcd.endpoint(0)));
    let output = block_in_place(|| command.args(arguments).output()).expect("etcdctl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_reads_and_writes_its_prefix_only() {
    let Some(etcd) = start(EtcdOptions::default()) else {
        return;
    };
    if !Path::new("/usr/bin/etcdctl").exists() {
        eprintln!("SKIPPED: /usr/bin/etcdctl is needed; apt install etcd-client");
        return;
    }
    etcdctl(&etcd, &["user", "add", "root:r"]);
    etcdctl(&etcd, &["user", "grant-role", "root", "root"]);
    etcdctl(&etcd, &["user", "add", "builder:b"]);
    etcdctl(&etcd, &["role", "add", "builder"]);
    etcdctl(
        &etcd,
        &[
            "role",
            "grant-permission",
            "builder",
            "readwrite",
            "buildflow/",
            "--prefix",
        ],
    );
    etcdctl(&etcd, &["user", "grant-role", "builder", "builder"]);
    etcdctl(&etcd, &["auth", "enable"]);
    let with = |user: Option<(&str, &str)>, prefix: &str| EtcdConfig {
        user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
        prefix: prefix.to_owned(),
        ..EtcdConfig::plain(etcd.endpoints())
    };
    let builder = Some(("builder", "b"));
    let store = EtcdStore::connect(with(builder, "buildflow/"))
        .await
        .expect("it connects");
    let lease = store.lease_grant(10_000).await.expect("it stands");
    let mut watch = store
        .watch("", store.range("", None, 1).await.expect("it stands").revision)
        .await
        .expect("it stands");
    let leased = put("a", "1")
        .put_bytes("b", Vec::new(), Some(lease))
        .expect("a", Expect::Absent);
    let commits = store.commit_batch(Vec::new(), vec![leased]).await.expect("it stands");
    assert!(matches!(commits[0], Commit::Applied(_)), "{commits:?}");
    assert!(store.lease_keep_alive(lease).await.is_ok_and(|left| left > 0));
    assert!(watch.recv().await.is_some());
    let status = store.status().await;
    assert!(status.healthy(), "{status:?}");
    for (what, config, words) in [
        ("no user", with(None, "buildflow/"), "user name is empty"),
        (
            "a wrong password",
            with(Some(("builder", "x")), "buildflow/"),
            "authentication failed",
        ),
        ("another prefix", with(builder, "other/"), "permission denied"),
    ] {
        let text = refusal(config).await;
        assert!(
            text.contains(words) && text.contains(&etcd.endpoint(0)),
            "{what}: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_never_written_to() {
    let (Some(mut ours), Some(theirs)) = (start(EtcdOptions::default()), start(EtcdOptions::default())) else {
        return;
    };
    let ours_only = EtcdStore::connect(EtcdConfig::plain(ours.endpoints()))
        .await
        .expect("it connects");
    let mixed = EtcdConfig::plain(vec![ours.endpoint(0), theirs.endpoint(0)]);
    // Whoever answers first is ours; the other one is refused.
    let store = EtcdStore::connect(mixed).await.expect("it connects");
    store.commit(put("a", "1")).await.expect("it stands");
    let ours_was_first = ours_only.get("a").await.expect("it stands").is_some();
    let other = EtcdStore::connect(EtcdConfig::plain(theirs.endpoints()))
        .await
        .expect("it connects");
    if ours_was_first {
        block_in_place(|| ours.kill(0)).expect("it is killed");
        let answer = store.commit(put("b", "1")).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert_eq!(other.get("b").await.expect("it stands"), None);
        assert_eq!(other.get("a").await.expect("it stands"), None);
    } else {
        assert!(other.get("a").await.expect("it stands").is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_what_to_do() {
    let options = EtcdOptions {
        arguments: vec![format!("--quota-backend-bytes={}", 4 << 20)],
        ..EtcdOptions::default()
    };
    let Some(etcd) = start(options) else { return };
    let config = EtcdConfig {
        quota_bytes: 4 << 20,
        ..EtcdConfig::plain(etcd.endpoints())
    };
    let store = EtcdStore::connect(config).await.expect("it connects");
    assert!(store.status().await.healthy());
    let room = store.room().await.expect("it says");
    assert!(
        !room.is_tight() && room.quota_bytes == Some(4 << 20) && room.file_bytes > 0,
        "{room:?}"
    );
    let lease = store.lease_grant(60_000).await.expect("there is room");
    let mut answer = Ok(Commit::Applied(store::Revision(0)));
    for n in 0..20 {
        answer = store
            .commit(Txn::new().put_bytes(format!("k/{n}"), vec![0; 1 << 20], None))
            .await;
        if answer.is_err() {
            break;
        }
    }
    assert!(
        matches!(&answer, Err(StoreError::Full(text)) if text.contains("--quota-backend-bytes")),
        "{answer:?}"
    );
    let status = store.status().await;
    assert!(
        !status.healthy() && status.alarms[0].starts_with("NOSPACE"),
        "{status:?}"
    );
    assert_eq!(status.members.len(), 1, "{status:?}");
    let room = store.room().await.expect("it says");
    assert!(
        room.is_tight() && room.refuses.len() == 1 && room.percent() >= Some(75),
        "{room:?}"
    );
    assert!(matches!(store.lease_grant(60_000).await, Err(StoreError::Full(_))));
    assert!(
        store.lease_keep_alive(lease).await.is_ok(),
        "what leads and lives goes on"
    );
    let removed = store.commit(Txn::new().delete_prefix("k/")).await;
    assert!(
        matches!(removed, Ok(Commit::Applied(_))),
        "room can still be made: {removed:?}"
    );
}

/// With the longest prefix and the longest keys, what the trait allows is what etcd takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_transactions_fit_into_etcd() {
    let Some(etcd) = start(EtcdOptions::default()) else {
        return;
    };
    let config = EtcdConfig {
        prefix: format!("{}/", "p".repeat(127)),
        ..EtcdConfig::plain(etcd.endpoints())
    };
    let store = EtcdStore::connect(config).await.expect("it connects");
    let key = |n: usize| format!("{n:0>width$}", width = KEY_MAX);
    let value = |ops: usize| vec![0; (TXN_BYTES_MAX / ops) - KEY_MAX];
    let puts = (0..TXN_OPS_MAX).fold(Txn::new(), |t, n| t.put_bytes(key(n), value(TXN_OPS_MAX), None));
    let one = Txn::new().put_bytes(key(0), value(1), None);
    let half = TXN_OPS_MAX / 2;
    let guarded = (0..half).fold(Txn::new(), |t, n| t.expect(key(n), Expect::Present));
    let guarded = (0..half).fold(guarded, |t, n| t.put_bytes(key(n), value(TXN_OPS_MAX), None));
    let guards = (0..TXN_OPS_MAX).fold(Txn::new(), |t, n| t.expect(key(n), Expect::Present));
    for (what, txn) in [
        ("puts", puts),
        ("one put", one),
        ("guarded puts", guarded),
        ("guards", guards),
    ] {
        let answer = store.commit(txn.clone()).await;
        assert!(matches!(answer, Ok(Commit::Applied(_))), "{what}: {answer:?}");
        let batch = store.commit_batch(Vec::new(), vec![txn]).await;
        assert!(batch.as_ref().is_ok_and(|c| c[0].is_applied()), "{what}: {batch:?}");
    }
    let refused = (0..TXN_OPS_MAX).fold(Txn::new(), |t, n| t.expect(key(n), Expect::Absent));
    let answer = store.commit(refused).await;
    let found = matches!(&answer, Ok(Commit::Refused { found: Some(e), .. }) if e.key == key(0));
    assert!(found, "a refusal of large values fits into an answer: {answer:?}");
}

/// Another one takes the lead while a batch of many proposals is on its way: what was answered is what
/// stands, and nothing stands that was proposed after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_the_lead_in_the_middle_of_a_batch_knows_what_stands() {
    const TXNS: usize = 1_000;
    let Some(etcd) = start(EtcdOptions::default()) else {
        return;
    };
    let store = EtcdStore::connect(EtcdConfig::plain(etcd.endpoints()))
        .await
        .expect("it connects");
    let (mut whole, mut partly) = (0, 0);
    for round in 0..40u64 {
        let Ok(Commit::Applied(led)) = store.commit(put("leader", "me")).await else {
            panic!("it stands")
        };
        let outer = vec![Guard {
            key: "leader".to_owned(),
            expect: Expect::Revision(led),
        }];
        let key = |n: usize| format!("k/{round}/{n:04}");
        let batch = store.commit_batch(outer, (0..TXNS).map(|n| put(&key(n), "1")).collect());
        let taken = async {
            // At another moment of the batch in each round.
            tokio::time::sleep(Duration::from_millis(round)).await;
            store.commit(put("leader", "another")).await
        };
        let (commits, taken) = tokio::join!(batch, taken);
        let (commits, Ok(Commit::Applied(taken))) = (commits.expect("it stands"), taken) else {
            panic!("it stands")
        };
        let (standing, _) = read_all(&store, &format!("k/{round}/")).await.expect("it stands");
        let standing: BTreeSet<String> = standing.into_iter().map(|e| e.key).collect();
        for (n, commit) in commits.iter().enumerate() {
            match commit {
                Commit::Applied(at) => assert!(*at < taken && standing.contains(&key(n)), "{n}: {commit:?}"),
                Commit::Refused { guard, .. } => assert!(guard.key == "leader" && !standing.contains(&key(n))),
            }
        }
        match standing.len() {
            TXNS => whole += 1,
            1.. => partly += 1,
            0 => {}
        }
    }
    assert!(whole + partly > 0 && whole < 40, "{whole} whole, {partly} in part");
}
