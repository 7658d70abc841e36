//! `server.yml`: what a server keeps its state in, where it is reached, and who it is.

use super::{Checked, DEFAULT_PORT, Span, check_file, check_url, check_word};
use crate::logging::LogFormat;
use serde::{Deserialize, Deserializer, Serialize};
use serde_yaml::with::singleton_map;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `buildflow server --config FILE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerFile {
    /// Folder of the embedded store, the blobs and the git mirrors.
    pub(crate) data: PathBuf,
    /// Where REST and gRPC are served.
    #[serde(default = "default_listen")]
    pub(crate) listen: SocketAddr,
    /// This server's name in logs and sessions.
    #[serde(default = "default_server_name")]
    pub(crate) name: String,
    /// The address that people are shown; default: `advertise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// The address under which agents and other servers reach this one; default: `listen`, unless that
    /// is every address of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advertise: Option<String>,
    /// The addresses of all servers of the cluster: what nodes that join are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<String>,
    /// Live state.
    #[serde(default, with = "singleton_map")]
    pub(crate) store: StoreFile,
    /// Logs and archived runs.
    #[serde(default, with = "blobs_form")]
    pub(crate) blobs: BlobsFile,
    /// Finished runs.
    #[serde(default, with = "singleton_map")]
    pub(crate) history: HistoryFile,
    /// Certificates; without them the port speaks plain text and nodes show the node token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsFile>,
    /// A file with the administrators' token; default: `admin-token` in `data`, made at the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// How long a node is believed in without a renewal.
    #[serde(default = "default_lease")]
    pub(crate) node_lease: Span,
    /// How long after it a node's steps are placed elsewhere.
    #[serde(default = "default_grace")]
    pub(crate) node_grace: Span,
    /// How long a leader that is not heard of leads.
    #[serde(default = "default_election")]
    pub(crate) election_lease: Span,
    /// How long the certificate of a node goes.
    #[serde(default = "default_certificate")]
    pub(crate) node_certificate: Span,
    /// How long finished runs and their logs are kept.
    #[serde(default)]
    pub(crate) keep: KeepFile,
    /// What each token may ask of this server.
    #[serde(default)]
    pub(crate) per_token: PerTokenFile,
    /// Whether repositories may be folders of this machine.
    #[serde(default)]
    pub(crate) file_repositories: bool,
    #[serde(default)]
    pub(crate) log: LogFormat,
}

/// Where live state is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoreFile {
    /// In the data folder; for one server.
    #[default]
    Embedded,
    Etcd(EtcdFile),
}

/// An etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EtcdFile {
    /// `http://HOST:2379`, all members.
    pub(crate) endpoints: Vec<String>,
    /// What every key begins with.
    #[serde(default = "default_prefix")]
    pub(crate) prefix: String,
    /// The authority of the members' certificates (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// What is shown to etcd (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) password_file: Option<PathBuf>,
    /// What etcd was given as `--quota-backend-bytes`: from three quarters of it on a server warns.
    #[serde(default = "default_quota")]
    pub(crate) quota_backend_bytes: u64,
}

/// Where blobs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BlobsFile {
    Folder(FolderFile),
    S3(S3File),
}

impl Default for BlobsFile {
    fn default() -> Self {
        Self::Folder(FolderFile::default())
    }
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FolderFile {
    /// Default: `blobs` in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// Whether every server of the cluster has this very folder, e.g. by NFS.
    #[serde(default)]
    pub(crate) shared: bool,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct S3File {
    /// Default: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    #[serde(default = "default_region")]
    pub(crate) region: String,
    pub(crate) bucket: String,
    #[serde(default)]
    pub(crate) prefix: String,
    /// `endpoint/bucket/key`; most stores that are not AWS want it.
    #[serde(default)]
    pub(crate) path_style: bool,
    /// The authority of the endpoint's certificate (PEM), instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Default: `AWS_ACCESS_KEY_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) access_key_file: Option<PathBuf>,
    /// Default: `AWS_SECRET_ACCESS_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret_key_file: Option<PathBuf>,
}

/// `blobs: folder` is `blobs: { folder: {} }`.
mod blobs_form {
    use super::{BlobsFile, Deserialize, Deserializer, singleton_map};
    use serde::de::Error;

    pub(super) use super::singleton_map::serialize;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BlobsFile, D::Error> {
        let value = serde_yaml::Value::deserialize(from)?;
        if value.as_str() == Some("folder") {
            return Ok(BlobsFile::default());
        }
        singleton_map::deserialize(value)
            .map_err(|cause: serde_yaml::Error| D::Error::custom(format!("blobs: {cause}")))
    }
}

/// Where finished runs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HistoryFile {
    /// In the data folder; for one server.
    #[default]
    Embedded,
    Postgres(PostgresFile),
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresFile {
    /// `postgres://USER@HOST:5432/DATABASE`, without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// A file that holds it, with its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url_file: Option<PathBuf>,
    /// The authority of the server's certificate (PEM); then TLS is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
}

/// How long what is kept, counted from a run's trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeepFile {
    /// A finished run and everything of it.
    pub(crate) runs: Span,
    /// Logs of runs of `branches`, and of what is no branch, e.g. tags.
    pub(crate) logs: Span,
    /// Logs of all other runs.
    pub(crate) branch_logs: Span,
    /// Branches whose logs are kept for long.
    pub(crate) branches: BTreeSet<String>,
}

impl Default for KeepFile {
    fn default() -> Self {
        let keep = api::Keep::default();
        let span = |ms: u64| Span(std::time::Duration::from_millis(ms));
        Self {
            runs: span(keep.runs_ms),
            logs: span(keep.logs_ms),
            branch_logs: span(keep.branch_logs_ms),
            branches: keep.branches,
        }
    }
}

impl From<KeepFile> for api::Keep {
    fn from(file: KeepFile) -> Self {
        Self {
            runs_ms: file.runs.ms(),
            logs_ms: file.logs.ms(),
            branch_logs_ms: file.branch_logs.ms(),
            branches: file.branches,
        }
    }
}

impl KeepFile {
    fn check(&self) -> Result<(), String> {
        let (least, most) = (Span::seconds(3_600), Span::seconds(36_500 * 86_400));
        let spans = [
            ("keep.runs", self.runs),
            ("keep.logs", self.logs),
            ("keep.branch_logs", self.branch_logs),
        ];
        for (key, value) in spans {
            if !(least..=most).contains(&value) {
                return Err(format!("{key}: {value} must be {least} to {most}"));
            }
        }
        if self.logs > self.runs || self.branch_logs > self.runs {
            return Err("keep: logs go with their run at the latest; make `runs` the longest".to_owned());
        }
        Ok(())
    }
}

/// What each token may ask of one server; whatever passes it is refused with 429.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PerTokenFile {
    /// On average.
    pub(crate) requests_per_second: u32,
    /// At the same moment, after a pause.
    pub(crate) burst: u32,
    /// Requests without an answer yet.
    pub(crate) at_once: usize,
    /// Open streams of events and logs.
    pub(crate) streams: usize,
}

impl Default for PerTokenFile {
    fn default() -> Self {
        let allowance = api::Allowance::default();
        Self {
            requests_per_second: allowance.per_second,
            burst: allowance.burst,
            at_once: allowance.at_once,
            streams: allowance.streams,
        }
    }
}

impl From<PerTokenFile> for api::Allowance {
    fn from(file: PerTokenFile) -> Self {
        Self {
            per_second: file.requests_per_second,
            burst: file.burst,
            at_once: file.at_once,
            streams: file.streams,
        }
    }
}

impl PerTokenFile {
    /// More than a million of anything is a slip of the pen.
    fn check(&self) -> Result<(), String> {
        let numbers = [
            ("requests_per_second", self.requests_per_second as usize),
            ("burst", self.burst as usize),
            ("at_once", self.at_once),
            ("streams", self.streams),
        ];
        match numbers.into_iter().find(|(_, n)| !(1..=1_000_000).contains(n)) {
            None => Ok(()),
            Some((key, n)) => Err(format!("per_token.{key}: {n} must be 1 to 1000000")),
        }
    }
}

/// Who this server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFile {
    /// This server's certificate (PEM).
    pub(crate) certificate: PathBuf,
    /// Its key; default: in the same file, and then this server renews it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// The cluster's authority, both while it is rotated (PEM).
    pub(crate) authority: PathBuf,
    /// The authority's key; without it machines cannot join or renew through this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority_key: Option<PathBuf>,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT))
}

fn default_server_name() -> String {
    "server-1".to_owned()
}

fn default_prefix() -> String {
    "buildflow/".to_owned()
}

const fn default_quota() -> u64 {
    store_etcd::DEFAULT_QUOTA_BYTES
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

const fn default_lease() -> Span {
    Span::seconds(20)
}

const fn default_grace() -> Span {
    Span::seconds(5)
}

const fn default_election() -> Span {
    Span::seconds(2)
}

fn default_certificate() -> Span {
    Span(pki::NODE_LIFE)
}

impl ServerFile {
    /// The settings of a server that stands alone, as `dev` and a file with `data` alone mean them.
    pub(crate) fn alone(data: PathBuf, listen: SocketAddr, name: &str) -> Self {
        Self {
            data,
            listen,
            name: name.to_owned(),
            url: None,
            advertise: None,
            servers: Vec::new(),
            store: StoreFile::default(),
            blobs: BlobsFile::default(),
            history: HistoryFile::default(),
            tls: None,
            admin_token_file: None,
            node_lease: default_lease(),
            node_grace: default_grace(),
            election_lease: default_election(),
            node_certificate: default_certificate(),
            keep: KeepFile::default(),
            per_token: PerTokenFile::default(),
            file_repositories: false,
            log: LogFormat::default(),
        }
    }

    /// Where others reach this server when it listens at `address`.
    pub(crate) fn advertised(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let own = self
            .advertise
            .clone()
            .unwrap_or_else(|| format!("{scheme}://{address}"));
        own.trim_end_matches('/').to_owned()
    }

    /// Every server that nodes may connect to.
    pub(crate) fn all_servers(&self, address: SocketAddr) -> Vec<String> {
        if self.servers.is_empty() {
            return vec![self.advertised(address)];
        }
        self.servers.clone()
    }

    fn check_times(&self) -> Result<(), String> {
        let bounds = [
            ("node_lease", self.node_lease, Span::seconds(2), Span::seconds(86_400)),
            ("node_grace", self.node_grace, Span::seconds(1), Span::seconds(3_600)),
            (
                "election_lease",
                self.election_lease,
                Span::seconds(1),
                Span::seconds(600),
            ),
            (
                "node_certificate",
                self.node_certificate,
                Span::seconds(30),
                Span::seconds(365 * 86_400),
            ),
        ];
        for (key, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(format!("{key}: {value} must be {least} to {most}"));
            }
        }
        Ok(())
    }

    /// What several servers cannot share.
    fn check_sharing(&self) -> Result<(), String> {
        let several = self.servers.len() > 1;
        if several && self.store == StoreFile::Embedded {
            return Err(
                "store: embedded is for one server, but `servers` names several; use `store: { etcd: … }`".to_owned(),
            );
        }
        if self.store == StoreFile::Embedded {
            return Ok(());
        }
        if matches!(&self.blobs, BlobsFile::Folder(folder) if !folder.shared) {
            return Err(
                "blobs: with `store: { etcd: … }` every server must see the same blobs: use `blobs: { s3: … }`, \
                 or say `blobs: { folder: { path: …, shared: true } }` if the folder is one that all servers mount"
                    .to_owned(),
            );
        }
        if several && self.history == HistoryFile::Embedded {
            return Err(
                "history: embedded is for one server, but `servers` names several; use `history: { postgres: … }`"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// An address that stands for all of a machine's is one to listen at, and none to connect to.
    fn check_reach(&self) -> Result<(), String> {
        if self.listen.ip().is_unspecified() && self.advertise.is_none() {
            let scheme = if self.tls.is_some() { "https" } else { "http" };
            return Err(format!(
                "advertise: `listen` is {}, which nobody can connect to; say where agents and other servers reach this \
                 server, e.g. advertise: {scheme}://10.0.0.1:{}",
                self.listen,
                self.listen.port()
            ));
        }
        let all = self.servers.iter().map(|url| ("servers", url));
        for (key, url) in all.chain(self.advertise.iter().map(|url| ("advertise", url))) {
            let host = url.split("//").nth(1).unwrap_or_default();
            if host.starts_with("0.0.0.0") || host.starts_with("[::]") {
                return Err(format!("{key}: {url:?} is no address that anybody can connect to"));
            }
        }
        Ok(())
    }

    fn check_tls(&self) -> Result<(), String> {
        let all = self.servers.iter().map(|url| ("servers", url));
        for (key, url) in all.chain(self.advertise.iter().map(|url| ("advertise", url))) {
            check_url(key, url)?;
            url.parse::<pki::Address>().map_err(|cause| format!("{key}: {cause}"))?;
            if self.tls.is_some() && !url.starts_with("https://") {
                return Err(format!("{key}: {url:?} must begin with https://, because `tls` is set"));
            }
            if self.tls.is_none() && url.starts_with("https://") {
                return Err(format!(
                    "{key}: {url:?} needs `tls`: certificates, as `buildflow admin init` makes them"
                ));
            }
        }
        Ok(())
    }
}

impl Checked for ServerFile {
    fn check(&self) -> Result<(), String> {
        check_word("name", &self.name)?;
        self.url.as_ref().map_or(Ok(()), |url| check_url("url", url))?;
        self.check_times()?;
        self.keep.check()?;
        self.per_token.check()?;
        self.check_tls()?;
        self.check_reach()?;
        if let StoreFile::Etcd(etcd) = &self.store {
            etcd.check()?;
        }
        if let BlobsFile::S3(s3) = &self.blobs {
            s3.check()?;
        }
        if let HistoryFile::Postgres(postgres) = &self.history {
            postgres.check()?;
        }
        self.check_sharing()
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut all = vec![&mut self.data];
        all.extend(&mut self.admin_token_file);
        if let StoreFile::Etcd(etcd) = &mut self.store {
            let own = [
                &mut etcd.ca,
                &mut etcd.certificate,
                &mut etcd.key,
                &mut etcd.password_file,
            ];
            all.extend(own.into_iter().flatten());
        }
        match &mut self.blobs {
            BlobsFile::Folder(folder) => all.extend(&mut folder.path),
            BlobsFile::S3(s3) => {
                let own = [&mut s3.access_key_file, &mut s3.secret_key_file, &mut s3.ca];
                all.extend(own.into_iter().flatten());
            }
        }
        if let HistoryFile::Postgres(postgres) = &mut self.history {
            all.extend([&mut postgres.url_file, &mut postgres.ca].into_iter().flatten());
        }
        if let Some(tls) = &mut self.tls {
            all.extend([&mut tls.certificate, &mut tls.authority]);
            all.extend([&mut tls.key, &mut tls.authority_key].into_iter().flatten());
        }
        all
    }

    fn check_files(&self) -> Result<(), String> {
        let mut named: Vec<(&str, &PathBuf)> = Vec::new();
        named.extend(self.admin_token_file.iter().map(|p| ("admin_token_file", p)));
        if let StoreFile::Etcd(etcd) = &self.store {
            named.extend(etcd.ca.iter().map(|p| ("store.etcd.ca", p)));
            named.extend(etcd.certificate.iter().map(|p| ("store.etcd.certificate", p)));
            named.extend(etcd.key.iter().map(|p| ("store.etcd.key", p)));
            named.extend(etcd.password_file.iter().map(|p| ("store.etcd.password_file", p)));
        }
        if let BlobsFile::S3(s3) = &self.blobs {
            named.extend(s3.access_key_file.iter().map(|p| ("blobs.s3.access_key_file", p)));
            named.extend(s3.secret_key_file.iter().map(|p| ("blobs.s3.secret_key_file", p)));
            named.extend(s3.ca.iter().map(|p| ("blobs.s3.ca", p)));
        }
        if let HistoryFile::Postgres(postgres) = &self.history {
            named.extend(postgres.url_file.iter().map(|p| ("history.postgres.url_file", p)));
            named.extend(postgres.ca.iter().map(|p| ("history.postgres.ca", p)));
        }
        named.into_iter().try_for_each(|(key, path)| check_file(key, path))?;
        let Some(tls) = &self.tls else { return Ok(()) };
        tls.load().map(drop).map_err(|cause| format!("tls: {cause}"))
    }
}

impl TlsFile {
    /// Where the key is.
    pub(crate) fn key_file(&self) -> &PathBuf {
        self.key.as_ref().unwrap_or(&self.certificate)
    }

    /// Reads everything that the section names, and refuses what a server could not show.
    pub(crate) fn load(&self) -> Result<Certificates, pki::PkiError> {
        let read = self.read()?;
        pki::ServerTls::new(read.identity.clone(), read.trust.clone())?;
        Ok(read)
    }

    /// Reads everything that the section names.
    pub(crate) fn read(&self) -> Result<Certificates, pki::PkiError> {
        let identity = pki::Identity::read_two(&self.certificate, self.key_file())?;
        let trust = pki::Trust::read(&self.authority)?;
        let authority = self.authority_key.as_ref();
        let authority = authority
            .map(|key| pki::Authority::read(&self.authority, key))
            .transpose()?;
        Ok(Certificates {
            identity,
            trust,
            authority,
        })
    }
}

/// What the section `tls` names.
pub(crate) struct Certificates {
    pub(crate) identity: pki::Identity,
    pub(crate) trust: pki::Trust,
    pub(crate) authority: Option<pki::Authority>,
}

impl EtcdFile {
    fn check(&self) -> Result<(), String> {
        if self.quota_backend_bytes == 0 {
            return Err("store.etcd.quota_backend_bytes: is 0; etcd's own default is 2147483648".to_owned());
        }
        if self.endpoints.is_empty() {
            return Err("store.etcd.endpoints: name at least one, e.g. http://10.0.0.11:2379".to_owned());
        }
        self.endpoints
            .iter()
            .try_for_each(|url| check_url("store.etcd.endpoints", url))?;
        if self.certificate.is_some() != self.key.is_some() {
            return Err("store.etcd: `certificate` and `key` go together".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            return Err("store.etcd: `user` and `password_file` go together".to_owned());
        }
        let secure = self.endpoints.iter().any(|url| url.starts_with("https://"));
        if secure != self.ca.is_some() {
            return Err("store.etcd: `ca` goes with endpoints that begin with https://".to_owned());
        }
        Ok(())
    }
}

impl S3File {
    fn check(&self) -> Result<(), String> {
        self.endpoint
            .as_ref()
            .map_or(Ok(()), |url| check_url("blobs.s3.endpoint", url))?;
        if self.bucket.is_empty() {
            return Err("blobs.s3.bucket: is empty".to_owned());
        }
        if self.access_key_file.is_some() != self.secret_key_file.is_some() {
            return Err("blobs.s3: `access_key_file` and `secret_key_file` go together".to_owned());
        }
        let plain = self.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
        if plain && self.ca.is_some() {
            return Err("blobs.s3: `ca` goes with an endpoint that begins with https://".to_owned());
        }
        Ok(())
    }
}

impl PostgresFile {
    fn check(&self) -> Result<(), String> {
        match (&self.url, &self.url_file) {
            (Some(url), None) if has_password(url) => {
                Err("history.postgres.url: holds a password; put the whole address into a file and name that with `url_file`"
                    .to_owned())
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("history.postgres: say either `url` or `url_file`".to_owned()),
        }
    }
}

/// Whether an address has a password before its host, or anywhere as a parameter.
pub(crate) fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let before_host = rest.split('/').next().unwrap_or_default().rsplit_once('@');
    before_host.is_some_and(|(user, _)| user.contains(':')) || url.contains("password=")
}
