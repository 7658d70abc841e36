//! What a server keeps its state in: reached, asked, and written to; what was written is removed.
//!
//! Not here: servers of the cluster itself.

use super::Report;
use crate::config::{BlobsFile, HistoryFile, StoreFile};
use crate::server::engines::{etcd_config, postgres_config, s3_config};
use std::path::Path;
use std::time::{Duration, Instant};
use store::room::ROOM_WARNING_PERCENT;
use store::{BlobName, BlobStore, History, Room, Store, Txn};
use store_etcd::{EtcdStatus, EtcdStore};
use store_postgres::PostgresHistory;
use store_s3::S3Blobs;

/// How long one engine may take in all.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A write that takes longer than this makes every placement slow.
const SLOW_WRITE: Duration = Duration::from_millis(50);

/// How long the signed address of the check is good.
const SIGNED_FOR: Duration = Duration::from_secs(60);

async fn in_time<T>(what: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {} s", TIMEOUT.as_secs()));
    tokio::time::timeout(TIMEOUT, what).await.unwrap_or_else(late)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(super) async fn store(report: &mut Report, file: &StoreFile) {
    let StoreFile::Etcd(etcd) = file else {
        return report.ok("store", "embedded, in the data folder; for one server");
    };
    let connected = in_time(async { EtcdStore::connect(etcd_config(etcd).map_err(text)?).await.map_err(text) }).await;
    let store = match connected {
        Ok(store) => store,
        Err(error) => return report.failed("etcd", error),
    };
    let status = store.status().await;
    members(report, &status);
    room(report, &status, etcd.quota_backend_bytes);
    match in_time(write(&store)).await {
        Err(error) => report.failed("etcd, writing", error),
        Ok(took) if took > SLOW_WRITE => report.warning(
            "etcd, writing",
            format!(
                "{} ms for one transaction; give etcd a fast disk of its own",
                took.as_millis()
            ),
        ),
        Ok(took) => report.ok("etcd, writing", format!("{} ms for one transaction", took.as_millis())),
    }
}

fn members(report: &mut Report, status: &EtcdStatus) {
    for endpoint in &status.endpoints {
        let what = format!("etcd {}", endpoint.endpoint);
        match &endpoint.answer {
            Err(error) => report.failed(&what, error.clone()),
            Ok(member) if !member.sees_leader => report.failed(&what, "sees no leader: there is no quorum"),
            Ok(member) if !member.errors.is_empty() => report.failed(&what, member.errors.join("; ")),
            Ok(member) => {
                let text = format!(
                    "version {}{}, {} MiB, answers in {} ms",
                    member.version,
                    if member.leader { ", leads" } else { "" },
                    member.database_bytes >> 20,
                    member.round_trip.as_millis()
                );
                match member.advice {
                    Some(advice) => report.warning(&what, format!("{text}; {advice}")),
                    None => report.ok(&what, text),
                }
            }
        }
    }
    let unknown = status.members.len().saturating_sub(status.endpoints.len());
    if unknown > 0 {
        let text = format!(
            "the cluster has {} members, {unknown} are not configured: {}",
            status.members.len(),
            status.members.join(", ")
        );
        report.warning("etcd members", text);
    }
    for alarm in &status.alarms {
        report.failed("etcd alarm", format!("{alarm}; see etcdctl alarm list"));
    }
}

/// How full etcd is, and what gives room back.
fn room(report: &mut Report, status: &EtcdStatus, quota_bytes: u64) {
    let what = "etcd, room";
    let room = match status.room(quota_bytes) {
        Ok(room) => room,
        Err(error) => return report.failed(what, error),
    };
    let percent = room.percent().unwrap_or_default();
    match room.complaint() {
        Some(complaint) if room.refuses.is_empty() => {
            report.warning(what, format!("{complaint}; {}", making_room(&room)))
        }
        Some(complaint) => report.failed(
            what,
            format!("{complaint}; {}, then `etcdctl alarm disarm`", making_room(&room)),
        ),
        None => report.ok(what, format!("{percent} % of its quota")),
    }
}

/// What helps depends on whether the file holds something or is mostly free inside.
fn making_room(room: &Room) -> &'static str {
    let quota = room.quota_bytes.unwrap_or_default();
    if room.used_bytes.saturating_mul(100) < quota.saturating_mul(ROOM_WARNING_PERCENT) {
        "run `etcdctl defrag` on one member after the other, the leading one last"
    } else {
        "raise --quota-backend-bytes (8 GiB at most) and `quota_backend_bytes`; `buildflow_archive_outbox_entries` tells \
         whether ended runs pile up because the database is away"
    }
}

/// Writes a key of our own and removes it; answers how long the write took.
async fn write(store: &EtcdStore) -> Result<Duration, String> {
    let key = format!("check/{}", std::process::id());
    let begun = Instant::now();
    let put = Txn::new().put_bytes(&key, b"check".to_vec(), None);
    store.commit(put).await.map_err(text)?;
    let took = begun.elapsed();
    store.commit(Txn::new().delete(&key)).await.map_err(text)?;
    Ok(took)
}

pub(super) async fn blobs(report: &mut Report, file: &BlobsFile, data: &Path) {
    match file {
        BlobsFile::Folder(folder) => {
            let path = folder.path.clone().unwrap_or_else(|| data.join("blobs"));
            super::machine::folder(report, "blobs", &path);
        }
        BlobsFile::S3(s3) => {
            let connected = in_time(async {
                let config = s3_config(s3).map_err(text)?;
                let ca_pem = config.ca_pem.clone();
                let blobs = S3Blobs::connect(config).await.map_err(text)?;
                Ok((blobs, ca_pem))
            });
            match connected.await {
                Err(error) => report.failed("object store", error),
                Ok((blobs, ca_pem)) => {
                    let tried = store_and_fetch(&blobs, ca_pem.as_deref());
                    report.result("object store", in_time(tried).await);
                }
            }
        }
    }
}

/// Stores a blob, fetches it by a signed address as an agent does, and removes it.
async fn store_and_fetch(blobs: &S3Blobs, ca_pem: Option<&str>) -> Result<String, String> {
    let name = BlobName::new(format!("check/{}", std::process::id())).map_err(text)?;
    let begun = Instant::now();
    blobs.put(&name, b"check".to_vec()).await.map_err(text)?;
    let took = begun.elapsed();
    let fetched = fetch(blobs, &name, ca_pem).await;
    let deleted = blobs.delete(&name).await.map_err(|e| format!("delete: {e}"));
    fetched.and(deleted)?;
    Ok(format!(
        "stores, hands out by signed address, deletes; {} ms for a put",
        took.as_millis()
    ))
}

async fn fetch(blobs: &S3Blobs, name: &BlobName, ca_pem: Option<&str>) -> Result<(), String> {
    let stored = blobs.get(name).await.map_err(text)?;
    if stored != b"check" {
        return Err("it answers other bytes than were stored".to_owned());
    }
    let signed = blobs.sign_get(name, SIGNED_FOR).await.map_err(text)?;
    let mut http = reqwest::Client::builder().timeout(TIMEOUT);
    if let Some(pem) = ca_pem {
        let believed = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(text)?;
        http = http.tls_certs_only(believed);
    }
    let http = http.build().map_err(text)?;
    let request = signed
        .headers
        .iter()
        .fold(http.get(&signed.url), |r, (k, v)| r.header(k, v));
    let answer = request.send().await.map_err(|e| e.without_url().to_string())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let status = answer.status();
    Err(format!(
        "a signed address is answered with {status}; if the clocks of this machine and the object store differ, mend them"
    ))
}

pub(super) async fn history(report: &mut Report, file: &HistoryFile) {
    let HistoryFile::Postgres(postgres) = file else {
        return report.ok("history", "embedded, in the data folder; for one server");
    };
    let checked = in_time(async {
        let history = PostgresHistory::connect(postgres_config(postgres).map_err(text)?)
            .await
            .map_err(text)?;
        history.check().await.map_err(text)
    });
    report.result("database", checked.await);
}
