//! Where etcd is and how to speak to it, checked before anything is sent.
//!
//! Not here: whether it answers (`members`).

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use std::time::Duration;
use store::StoreError;
use tonic::transport::Endpoint;

/// What a cluster's keys begin with unless it is told otherwise.
pub const DEFAULT_PREFIX: &str = "buildflow/";

/// The longest prefix, bytes: with it the largest transaction still fits into etcd's largest request.
const PREFIX_MAX: usize = 128;

/// The most endpoints: etcd itself advises against more than seven members.
const ENDPOINTS_MAX: usize = 32;

/// How long a connection may take to be made. A member that is down refuses at once; only one that
/// is cut off needs this long, and then another one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a connection in use is probed. etcd closes one that is probed more often than every 5 s.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a probe may stay unanswered before the connection counts as broken.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// How a server reaches etcd.
#[derive(Clone)]
pub struct EtcdConfig {
    /// Addresses of the members: `http://host:2379`, or `https://…` with [`EtcdConfig::tls`].
    pub endpoints: Vec<String>,
    /// What every key begins with, so that clusters may share an etcd; ends with `/`, or is empty
    /// if all of etcd is ours. At most 128 bytes.
    pub prefix: String,
    /// Certificates, for `https` endpoints.
    pub tls: Option<EtcdTls>,
    /// Name and password, if etcd's authentication is enabled. The user needs to read and write
    /// the prefix.
    pub user: Option<(String, String)>,
    /// What etcd was given as `--quota-backend-bytes`. Only etcd 3.6 and later says it by itself.
    pub quota_bytes: u64,
}

/// etcd's quota unless it was given another one, bytes.
pub const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;

/// Certificates for etcd, in PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// Of the authority that signed the members' certificates.
    pub ca_pem: String,
    /// Our own certificate, if etcd demands one; goes with `key_pem`.
    pub cert_pem: Option<String>,
    /// The key of `cert_pem`.
    pub key_pem: Option<String>,
}

/// Shows no secret.
impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("quota_bytes", &self.quota_bytes)
            .field("prefix", &self.prefix)
            .field("tls", &self.tls)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .finish()
    }
}

/// Shows no secret.
impl std::fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let client_certificate = self.cert_pem.is_some();
        f.debug_struct("EtcdTls")
            .field("client_certificate", &client_certificate)
            .finish_non_exhaustive()
    }
}

/// Whether a member without a leader may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequireLeader {
    Yes,
    No,
}

fn illegal<T>(why: String) -> Result<T, StoreError> {
    Err(StoreError::Illegal(why))
}

impl EtcdConfig {
    /// Members at these addresses, the default prefix, no TLS, no user.
    #[must_use]
    pub fn plain(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: DEFAULT_PREFIX.to_owned(),
            tls: None,
            user: None,
            quota_bytes: DEFAULT_QUOTA_BYTES,
        }
    }

    /// The endpoints, each with its address as it was written.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] that says what is wrong with the configuration.
    pub(crate) fn checked(&self) -> Result<Vec<(String, Endpoint)>, StoreError> {
        check_prefix(&self.prefix)?;
        if !(1..=ENDPOINTS_MAX).contains(&self.endpoints.len()) {
            return illegal(format!(
                "{} etcd endpoints; name 1 to {ENDPOINTS_MAX}",
                self.endpoints.len()
            ));
        }
        self.endpoints
            .iter()
            .map(|url| Ok((url.clone(), self.endpoint(url)?)))
            .collect()
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, StoreError> {
        let said = |e: tonic::transport::Error| StoreError::Illegal(format!("etcd endpoint `{url}`: {}", causes(&e)));
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(said)?;
        let endpoint = match (endpoint.uri().scheme_str(), &self.tls) {
            (Some("http"), None) => endpoint,
            (Some("https"), Some(tls)) => endpoint.tls_config(tls.options()?).map_err(said)?,
            (Some("https"), None) => {
                return illegal(format!("etcd endpoint `{url}` needs the certificate of its authority"));
            }
            (Some("http"), Some(_)) => {
                return illegal(format!(
                    "etcd endpoint `{url}` must begin with https:// to use certificates"
                ));
            }
            _ => return illegal(format!("etcd endpoint `{url}` must begin with http:// or https://")),
        };
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PROBE_INTERVAL)
            .keep_alive_timeout(PROBE_TIMEOUT)
            // etcd counts probes of an idle connection as abuse.
            .keep_alive_while_idle(false)
            .tcp_nodelay(true))
    }

    /// What the client adds to each call. With `require_leader` a member that sees no leader says so
    /// at once instead of letting the call run out of time.
    pub(crate) fn options(&self, leader: RequireLeader) -> ConnectOptions {
        let options = ConnectOptions::new()
            .with_require_leader(leader == RequireLeader::Yes)
            .with_auto_token_refresh(true);
        match &self.user {
            Some((name, password)) => options.with_user(name, password),
            None => options,
        }
    }
}

impl EtcdTls {
    fn options(&self) -> Result<TlsOptions, StoreError> {
        let options = TlsOptions::new().ca_certificate(Certificate::from_pem(&self.ca_pem));
        match (&self.cert_pem, &self.key_pem) {
            (None, None) => Ok(options),
            (Some(cert), Some(key)) => Ok(options.identity(Identity::from_pem(cert, key))),
            _ => illegal("a client certificate for etcd goes with its key".to_owned()),
        }
    }
}

fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.len() > PREFIX_MAX {
        return illegal(format!("etcd prefix of {} bytes; at most {PREFIX_MAX}", prefix.len()));
    }
    if !prefix.is_empty() && !prefix.ends_with('/') {
        return illegal(format!(
            "etcd prefix `{prefix}` must end with `/`, so that no other one begins with it by chance"
        ));
    }
    Ok(())
}

/// An error and what caused it, in one line, each cause once.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line = joined(line, &cause.to_string());
        next = cause.source();
    }
    line
}

/// A line and its next cause, unless that says nothing new.
pub(crate) fn joined(line: String, cause: &str) -> String {
    if line.contains(cause) || cause == "transport error" {
        line
    } else {
        format!("{line}: {cause}")
    }
}
