//! What an operator says of the database, checked: address, user, and how connections are protected.
//!
//! | `sslmode` in the address | what happens |
//! |---|---|
//! | `disable` | plain text |
//! | none, or `prefer` | TLS if the server offers it, plain text if it does not; with `ca_pem`: as `require` |
//! | `require`, `verify-ca`, `verify-full` | TLS or nothing |
//!
//! Wherever TLS is spoken, the server's certificate and name are checked, against `ca_pem` or the
//! system's authorities. Not here: connecting.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use store::HistoryError;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a connection to one host of the address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that says nothing is asked whether it is still there after this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// The database.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=…`, or `key=value` pairs.
    pub url: String,
    /// The authorities that are believed instead of the system's, PEM.
    pub ca_pem: Option<String>,
}

impl std::fmt::Debug for PostgresConfig {
    /// The address holds a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("ca_pem", &self.ca_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// The same, ready to connect.
pub(crate) struct Settings {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    pub(crate) fn of(given: &PostgresConfig) -> Result<Self, HistoryError> {
        // What libpq calls so is what is always done here.
        let url = given.url.replace("sslmode=verify-full", "sslmode=require");
        let url = url.replace("sslmode=verify-ca", "sslmode=require");
        let mut config: tokio_postgres::Config = url.parse().map_err(|e: tokio_postgres::Error| {
            // The cause names the part that is wrong, never its value.
            let cause = std::error::Error::source(&e).map_or_else(String::new, |c| format!(": {c}"));
            HistoryError::Failed(format!(
                "`url` is not an address of a database{cause}; write \
                 postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=require, with %-escapes in USER and PASSWORD"
            ))
        })?;
        if config.get_hosts().is_empty() {
            return Err(HistoryError::Failed("`url` names no host".to_owned()));
        }
        if given.ca_pem.is_some() && config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Require);
        }
        config.connect_timeout(*config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT));
        config.keepalives_idle(KEEPALIVE_IDLE);
        if config.get_application_name().is_none() {
            config.application_name("buildflow");
        }
        let wants_tls = config.get_ssl_mode() != SslMode::Disable;
        Ok(Self {
            tls: MakeRustlsConnect::new(client_config(given.ca_pem.as_deref(), wants_tls)?),
            config,
        })
    }
}

fn client_config(ca_pem: Option<&str>, wants_tls: bool) -> Result<ClientConfig, HistoryError> {
    let roots = match ca_pem {
        Some(pem) => roots_of(pem)?,
        None if wants_tls => system_roots(),
        None => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| HistoryError::Failed(format!("TLS cannot be set up: {e}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn roots_of(pem: &str) -> Result<RootCertStore, HistoryError> {
    let unreadable = |e: &dyn std::fmt::Display| {
        HistoryError::Failed(format!(
            "the database's authority (`ca`) is no PEM of certificates: {e}"
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| unreadable(&e))?;
        roots.add(certificate).map_err(|e| unreadable(&e))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"there is none in it"));
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "an authority of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str, ca_pem: Option<&str>) -> String {
        let config = PostgresConfig {
            url: url.to_owned(),
            ca_pem: ca_pem.map(str::to_owned),
        };
        let refused = Settings::of(&config).expect_err("it is refused");
        assert!(!refused.retry());
        refused.to_string()
    }

    #[test]
    fn a_wrong_setting_is_refused_in_words_without_its_secrets() {
        for url in [
            "postgres://u:hush-hush@h:x/d",
            "postgres://u:hush-hush@h/d?sslmode=perhaps",
            "host=h password=hush-hush port=abc",
            "mysql://hush-hush",
        ] {
            let said = refused(url, None);
            assert!(said.contains("`url`") && !said.contains("hush"), "{said}");
        }
        assert!(refused("user=u", None).contains("no host"));
        assert!(refused("postgres://u@h/d", Some("none")).contains("`ca`"));
        let config = PostgresConfig {
            url: "postgres://u:hush-hush@h/d".to_owned(),
            ca_pem: None,
        };
        assert!(!format!("{config:?} {:?}", Settings::of(&config)).contains("hush"));
    }

    #[test]
    fn the_table_of_ssl_modes() {
        let mode = |url: &str| {
            let config = PostgresConfig {
                url: url.to_owned(),
                ca_pem: None,
            };
            Settings::of(&config).expect("legal").config.get_ssl_mode()
        };
        assert_eq!(mode("postgres://u@h/d"), SslMode::Prefer);
        assert_eq!(mode("postgres://u@h/d?sslmode=disable"), SslMode::Disable);
        for required in ["require", "verify-ca", "verify-full"] {
            assert_eq!(mode(&format!("postgres://u@h/d?sslmode={required}")), SslMode::Require);
        }
    }
}
