//! The engines that keep a server's state, opened as its file says. One that cannot be reached is
//! tried again until it can: a cluster that starts together has no order of starting.
//!
//! Not here: what is kept in them; what happens when one goes away later (each engine's own crate).

use crate::config::{BlobsFile, EtcdFile, HistoryFile, PostgresFile, S3File, ServerFile, StoreFile, read_secret};
use crate::error::Failure;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::sqlite::SqliteStore;
use store::{BlobError, BlobStore, FolderBlobs, History, HistoryError, SqliteHistory, Store, StoreError};
use store_etcd::{EtcdConfig, EtcdStore, EtcdTls};
use store_postgres::{PostgresConfig, PostgresHistory};
use store_s3::{S3Blobs, S3Config};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The pause before an engine is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How long one attempt may take; engines have shorter time-outs of their own.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);

/// Everything that a server keeps.
pub(crate) struct Engines {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) history: Arc<dyn History>,
}

/// What a server waits for, shown by `/readyz`.
pub(crate) type Reasons = watch::Sender<Vec<String>>;

/// Why an engine is not there.
pub(crate) enum NotYet {
    /// Trying again may help.
    Unreachable(String),
    /// It does not: the configuration is wrong.
    Wrong(Failure),
}

/// Tries until it is there, or until `shutdown` (then `None`). Says why it waits, once for each reason.
pub(crate) async fn until_there<T, F>(
    what: &'static str,
    reasons: &Reasons,
    shutdown: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Result<Option<T>, Failure>
where
    F: Future<Output = Result<T, NotYet>>,
{
    let mut told: Option<String> = None;
    let forget = |told: &Option<String>| {
        if let Some(reason) = told {
            reasons.send_modify(|all| all.retain(|r| r != reason));
        }
    };
    loop {
        let tried = tokio::select! {
            tried = tokio::time::timeout(ATTEMPT_MAX, attempt()) => tried,
            () = shutdown.cancelled() => return Ok(None),
        };
        let reason = match tried {
            Ok(Ok(there)) => {
                forget(&told);
                if told.is_some() {
                    tracing::info!(engine = what, "there");
                }
                return Ok(Some(there));
            }
            Ok(Err(NotYet::Wrong(failure))) => return Err(failure),
            Ok(Err(NotYet::Unreachable(reason))) => format!("{what}: {reason}"),
            Err(_) => format!("{what}: no answer within {} s", ATTEMPT_MAX.as_secs()),
        };
        if told.as_ref() != Some(&reason) {
            tracing::warn!(engine = what, reason, "not there yet, will be tried again until it is");
            forget(&told);
            reasons.send_modify(|all| all.push(reason.clone()));
            told = Some(reason);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN_AFTER) => {}
            () = shutdown.cancelled() => return Ok(None),
        }
    }
}

impl Engines {
    /// Opens all of them at the same time.
    pub(crate) async fn open(
        file: &ServerFile,
        data: &Path,
        public_url: &str,
        reasons: &Reasons,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>, Failure> {
        let (store, blobs, history) = tokio::try_join!(
            until_there("the live store", reasons, shutdown, || open_store(&file.store, data)),
            until_there("the blob store", reasons, shutdown, || open_blobs(
                &file.blobs,
                data,
                public_url
            )),
            until_there("the history", reasons, shutdown, || open_history(&file.history, data)),
        )?;
        Ok(match (store, blobs, history) {
            (Some(store), Some(blobs), Some(history)) => Some(Self { store, blobs, history }),
            _ => None,
        })
    }
}

/// A failure of this machine's own disk is no matter of waiting.
fn broken(error: &dyn std::fmt::Display) -> NotYet {
    NotYet::Wrong(Failure::Internal(error.to_string()))
}

async fn open_store(file: &StoreFile, data: &Path) -> Result<Arc<dyn Store>, NotYet> {
    match file {
        StoreFile::Embedded => {
            let store = SqliteStore::open(data.join("store")).map_err(|e| broken(&e))?;
            Ok(Arc::new(store))
        }
        StoreFile::Etcd(etcd) => {
            let config = etcd_config(etcd).map_err(NotYet::Wrong)?;
            match EtcdStore::connect(config).await {
                Ok(store) => Ok(Arc::new(store)),
                Err(StoreError::Illegal(cause)) => Err(NotYet::Wrong(Failure::Usage(format!("store.etcd: {cause}")))),
                Err(error) => Err(NotYet::Unreachable(error.to_string())),
            }
        }
    }
}

/// What the section says, with the files that it names read.
pub(crate) fn etcd_config(file: &EtcdFile) -> Result<EtcdConfig, Failure> {
    let pem = |path: &std::path::PathBuf| pki::read_text(path).map_err(|e| Failure::Usage(e.to_string()));
    let tls = match &file.ca {
        None => None,
        Some(ca) => Some(EtcdTls {
            ca_pem: pem(ca)?,
            cert_pem: file.certificate.as_ref().map(pem).transpose()?,
            key_pem: file.key.as_ref().map(pem).transpose()?,
        }),
    };
    let password = file.password_file.as_deref().map(read_secret).transpose()?;
    Ok(EtcdConfig {
        endpoints: file.endpoints.clone(),
        prefix: file.prefix.clone(),
        tls,
        user: file.user.clone().zip(password),
        quota_bytes: file.quota_backend_bytes,
    })
}

async fn open_blobs(file: &BlobsFile, data: &Path, public_url: &str) -> Result<Arc<dyn BlobStore>, NotYet> {
    match file {
        BlobsFile::Folder(folder) => {
            let path = folder.path.clone().unwrap_or_else(|| data.join("blobs"));
            let blobs = FolderBlobs::open(path).and_then(|blobs| blobs.with_public_url(public_url));
            Ok(Arc::new(blobs.map_err(|e| broken(&e))?))
        }
        BlobsFile::S3(s3) => {
            let config = s3_config(s3).map_err(NotYet::Wrong)?;
            match S3Blobs::connect(config).await {
                Ok(blobs) => Ok(Arc::new(blobs)),
                Err(BlobError::Setting(cause)) => Err(NotYet::Wrong(Failure::Usage(format!("blobs.s3: {cause}")))),
                Err(error) => Err(NotYet::Unreachable(error.to_string())),
            }
        }
    }
}

/// What the section says, with the files that it names read.
pub(crate) fn s3_config(file: &S3File) -> Result<S3Config, Failure> {
    let secret = |path: &Option<std::path::PathBuf>| path.as_deref().map(read_secret).transpose();
    let ca = file.ca.as_ref().map(|path| pki::read_text(path));
    Ok(S3Config {
        endpoint: file.endpoint.clone(),
        region: file.region.clone(),
        bucket: file.bucket.clone(),
        prefix: file.prefix.clone(),
        access_key: secret(&file.access_key_file)?.unwrap_or_default(),
        secret_key: secret(&file.secret_key_file)?.unwrap_or_default(),
        path_style: file.path_style,
        ca_pem: ca.transpose().map_err(|e| Failure::Usage(e.to_string()))?,
    })
}

async fn open_history(file: &HistoryFile, data: &Path) -> Result<Arc<dyn History>, NotYet> {
    match file {
        HistoryFile::Embedded => {
            let history = SqliteHistory::open(data.join("history")).map_err(|e| broken(&e))?;
            Ok(Arc::new(history))
        }
        HistoryFile::Postgres(postgres) => {
            let config = postgres_config(postgres).map_err(NotYet::Wrong)?;
            match PostgresHistory::connect(config).await {
                Ok(history) => Ok(Arc::new(history)),
                Err(error) => Err(history_not_yet(&error)),
            }
        }
    }
}

/// A database that is away is waited for; one that has to be mended first, e.g. its name, is not.
fn history_not_yet(error: &HistoryError) -> NotYet {
    if error.retry() {
        NotYet::Unreachable(error.to_string())
    } else {
        NotYet::Wrong(Failure::Usage(format!("history.postgres: {error}")))
    }
}

/// What the section says, with the files that it names read.
pub(crate) fn postgres_config(file: &PostgresFile) -> Result<PostgresConfig, Failure> {
    let url = match (&file.url, &file.url_file) {
        (Some(url), _) => url.clone(),
        (None, Some(path)) => read_secret(path)?,
        (None, None) => {
            return Err(Failure::Usage(
                "history.postgres: say either `url` or `url_file`".to_owned(),
            ));
        }
    };
    let ca = file.ca.as_ref().map(|path| pki::read_text(path));
    Ok(PostgresConfig {
        url,
        ca_pem: ca.transpose().map_err(|e| Failure::Usage(e.to_string()))?,
    })
}
