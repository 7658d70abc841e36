//! History in PostgreSQL: through the suite of every engine against a real server, and what only
//! it promises: it comes back, it gives up in time, it starts on several servers at once.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use store::history::conformance::archived;
use store::history::{RunFilter, RunOrder, RunQuery};
use store::{History, HistoryError};
use store_postgres::process::PostgresServer;
use store_postgres::{PostgresConfig, PostgresHistory};

const PATIENCE: Duration = Duration::from_secs(60);

static DATABASES: AtomicUsize = AtomicUsize::new(0);

fn plain(url: String) -> PostgresConfig {
    PostgresConfig { url, ca_pem: None }
}

/// One server for all cases; its keeper ends it with this process.
fn shared() -> Option<&'static PostgresServer> {
    static SERVER: OnceLock<Option<PostgresServer>> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start).as_ref()
}

/// An empty database of the shared server.
async fn database(language: &str) -> Option<String> {
    let server = shared()?;
    let name = format!("case_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let url = server.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("it connects");
    tokio::spawn(connection);
    let made = client
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0 {language}"))
        .await;
    made.expect("a new database");
    Some(server.url(&name))
}

async fn fresh() -> Option<(Arc<dyn History>, ())> {
    let url = database("").await?;
    let history = PostgresHistory::connect(plain(url)).await.expect("it connects");
    Some((Arc::new(history), ()))
}

store::history_conformance_tests!(fresh);

mod in_another_language {
    use super::*;

    /// Sorts letters and digits otherwise than bytes.
    async fn fresh() -> Option<(Arc<dyn History>, ())> {
        let url = database("LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'").await?;
        let history = PostgresHistory::connect(plain(url)).await.expect("it connects");
        Some((Arc::new(history), ()))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn ids_are_ordered_bytewise() {
        if let Some((history, ())) = fresh().await {
            store::history::conformance::ids_are_ordered_bytewise(history).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_make_one_schema() {
    let Some(url) = database("").await else { return };
    let servers: Vec<_> = (0..6)
        .map(|n| {
            let url = url.clone();
            tokio::spawn(async move {
                let history = PostgresHistory::connect(plain(url)).await.expect("it connects");
                history.put_runs(&[archived(&format!("01jd{n}"), n)]).await
            })
        })
        .collect();
    for server in servers {
        assert_eq!(server.await.expect("no panic"), Ok(()));
    }
    let history = PostgresHistory::connect(plain(url)).await.expect("it connects");
    assert_eq!(history.count_runs(&RunFilter::default()).await, Ok(6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_back_by_itself() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    let history = PostgresHistory::connect(plain(server.url("postgres")))
        .await
        .expect("it connects");
    let run = archived("01jda", 1);
    history.put_runs(std::slice::from_ref(&run)).await.expect("taken");
    for round in 0..2 {
        server.down();
        let begun = Instant::now();
        let away = history.get_run(&run.summary.id).await;
        assert!(matches!(&away, Err(e) if e.retry()), "round {round}: {away:?}");
        // Refused at once, not after a time-out each.
        for _ in 0..100 {
            assert!(history.get_run(&run.summary.id).await.is_err());
        }
        assert!(begun.elapsed() < PATIENCE / 4, "{:?}", begun.elapsed());
        server.up();
        let deadline = Instant::now() + PATIENCE;
        while history.get_run(&run.summary.id).await != Ok(Some(run.clone())) {
            assert!(Instant::now() < deadline, "it does not come back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // A restart between two calls is not even noticed.
    server.down();
    server.up();
    assert_eq!(history.get_run(&run.summary.id).await, Ok(Some(run)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_while_the_database_is_away() {
    let Some(mut server) = PostgresServer::start() else {
        return;
    };
    server.down();
    let history = PostgresHistory::connect(plain(server.url("postgres")))
        .await
        .expect("no error");
    let run = archived("01jda", 1);
    assert!(matches!(history.put_runs(std::slice::from_ref(&run)).await, Err(e) if e.retry()));
    server.up();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = history.put_runs(std::slice::from_ref(&run)).await {
        assert!(error.retry() && Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(history.get_run(&run.summary.id).await, Ok(Some(run)));
}

/// A database that takes connections and says nothing, as behind a firewall that drops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_database_is_given_up_in_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let begun = Instant::now();
    let url = format!("postgres://u:p@127.0.0.1:{port}/d?sslmode=disable");
    let history = PostgresHistory::connect(plain(url)).await.expect("no error");
    let answer = history.check().await;
    assert!(matches!(&answer, Err(e) if e.retry()), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    drop(listener);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_waiting_mends_is_said() {
    let Some(server) = shared() else { return };
    let wrong_password = server.url("postgres").replace("a%20b", "wrong");
    let cases = [
        (wrong_password, "check user and password"),
        (server.url("nowhere"), "create the database"),
    ];
    for (url, mend) in cases {
        let refused = PostgresHistory::connect(plain(url)).await.expect_err("it is refused");
        let said = refused.to_string();
        assert!(
            !refused.retry() && said.contains(mend) && !said.contains("a b/"),
            "{said}"
        );
    }
    let Some(url) = database("").await else { return };
    drop(PostgresHistory::connect(plain(url.clone())).await.expect("it connects"));
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("it connects");
    tokio::spawn(connection);
    client
        .batch_execute("CREATE USER weak PASSWORD 'w'")
        .await
        .expect("made");
    let weak = url.replace("buildflow:a%20b%2F%C3%BC%3A%40", "weak:w");
    let history = PostgresHistory::connect(plain(weak.clone())).await.err();
    assert!(
        matches!(&history, Some(HistoryError::Failed(why)) if why.contains("grant")),
        "{history:?}"
    );
    client
        .batch_execute("GRANT SELECT ON buildflow_migration TO weak")
        .await
        .expect("granted");
    let history = PostgresHistory::connect(plain(weak)).await.expect("it connects");
    let checked = history.check().await.expect_err("it may not write").to_string();
    assert!(checked.contains("GRANT SELECT, INSERT, UPDATE, DELETE"), "{checked}");
    client
        .batch_execute("INSERT INTO buildflow_migration VALUES (99)")
        .await
        .expect("written");
    let newer = PostgresHistory::connect(plain(url))
        .await
        .expect_err("newer")
        .to_string();
    assert!(newer.contains("upgrade this server"), "{newer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_that_takes_too_long_is_ended_and_the_connection_serves_on() {
    let Some(url) = database("").await else { return };
    let history = PostgresHistory::connect(plain(url.clone())).await.expect("it connects");
    history.put_runs(&[archived("01jda", 1)]).await.expect("taken");
    let (mut client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("it connects");
    tokio::spawn(connection);
    let transaction = client.transaction().await.expect("begun");
    transaction
        .batch_execute("LOCK TABLE buildflow_run IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("locked");
    let begun = Instant::now();
    let late = history.get_run(&archived("01jda", 1).summary.id).await;
    assert!(matches!(&late, Err(HistoryError::Unavailable(_))), "{late:?}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    transaction.rollback().await.expect("unlocked");
    assert_eq!(
        history.get_run(&archived("01jda", 1).summary.id).await,
        Ok(Some(archived("01jda", 1)))
    );
}

/// The filters find their index: a search does not walk over every run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searches_use_an_index() {
    let Some(url) = database("").await else { return };
    let history = PostgresHistory::connect(plain(url.clone())).await.expect("it connects");
    let runs: Vec<_> = (0..500).map(|n| archived(&format!("01jd{n:04}"), n)).collect();
    history.put_runs(&runs).await.expect("taken");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("it connects");
    tokio::spawn(connection);
    client
        .batch_execute("ANALYZE; SET enable_seqscan = off; SET enable_sort = off")
        .await
        .expect("set");
    let query = |order: RunOrder, change: fn(&mut RunFilter)| {
        let mut filter = RunFilter::default();
        change(&mut filter);
        RunQuery {
            filter,
            order,
            limit: 10,
        }
    };
    let by_id = || RunOrder::Id {
        before: archived("01jd0400", 1).summary.id.into(),
    };
    let of_pipeline = |f: &mut RunFilter| (f.team, f.pipeline) = ("default".parse().ok(), "web".parse().ok());
    let cases = [
        query(by_id(), |_| {}),
        query(by_id(), |f| f.status = Some(model::RunStatus::Failed)),
        query(by_id(), |f| f.branch = Some("main".to_owned())),
        query(by_id(), |f| f.commit = Some("x".to_owned())),
        query(RunOrder::Number { before: Some(400) }, of_pipeline),
    ];
    for query in cases {
        let statement = store::history::row::list("buildflow_run", &query).expect("it can match");
        let mut text = statement.text.clone();
        for (n, value) in statement.values.iter().enumerate().rev() {
            let literal = match value {
                store::history::row::Value::Text(text) => format!("'{text}'"),
                store::history::row::Value::Number(number) => number.to_string(),
            };
            text = text.replace(&format!("${}", n + 1), &literal);
        }
        let rows = client.query(&format!("EXPLAIN {text}"), &[]).await.expect("explained");
        let plan: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        assert!(
            plan.iter().any(|l| l.contains("Index Scan")) && !plan.iter().any(|l| l.contains("Sort")),
            "{text}: {plan:?}"
        );
    }
}

/// A server with a certificate of an authority of its own.
fn with_tls() -> Option<(PostgresServer, String)> {
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).expect("legal");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let authority_pem = authority.self_signed(&authority_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .expect("legal")
        .signed_by(&key, &issuer)
        .expect("signed");
    let put = move |data: &Path| {
        std::fs::write(data.join("server.crt"), certificate.pem()).expect("written");
        std::fs::write(data.join("server.key"), key.serialize_pem()).expect("written");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(data.join("server.key"), private).expect("private");
    };
    Some((PostgresServer::start_with(&["-c", "ssl=on"], put)?, authority_pem))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_and_strangers_are_not_believed() {
    let Some((server, authority)) = with_tls() else { return };
    let url = |mode: &str| format!("{}?sslmode={mode}", server.url("postgres"));
    for mode in ["prefer", "require", "verify-full"] {
        let config = PostgresConfig {
            url: url(mode),
            ca_pem: Some(authority.clone()),
        };
        let history = PostgresHistory::connect(config).await.expect("it connects");
        history.check().await.expect("it is well");
        // Without its authority the server is a stranger.
        let history = PostgresHistory::connect(plain(url(mode))).await.expect("no error yet");
        let refused = history.check().await.expect_err("a stranger").to_string();
        assert!(refused.contains("certificate") && refused.contains("`ca`"), "{refused}");
    }
    let history = PostgresHistory::connect(plain(url("disable")))
        .await
        .expect("it connects");
    history.check().await.expect("it is well");
    let Some(without) = shared() else { return };
    let history = PostgresHistory::connect(plain(format!("{}?sslmode=require", without.url("postgres")))).await;
    let refused = history
        .expect("no error yet")
        .check()
        .await
        .expect_err("no TLS there")
        .to_string();
    assert!(refused.contains("TLS"), "{refused}");
}
