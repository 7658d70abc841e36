//! What an operator sets, and the SDK's client made of it.
//!
//! Not here: where the settings are written down.

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::time::Duration;
use store::{BlobError, BlobName};

/// How often a request is sent in all.
const ATTEMPTS: u32 = 4;

/// The pause before the second attempt; it doubles, with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Where keys may come from.
const KEYS: &str = "set it and `secret_key`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; \
                    keys of roles, of profiles and from an instance's metadata are not supported";

/// What names keys that lie elsewhere.
const ELSEWHERE: [&str; 4] = [
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Which bucket, and how it is reached.
#[derive(Clone)]
pub struct S3Config {
    /// Where the object store is, e.g. `http://127.0.0.1:9000`; `None`: AWS.
    pub endpoint: Option<String>,
    /// The region, e.g. `eu-central-1`; other object stores mostly take any.
    pub region: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// What every key begins with; may be empty.
    pub prefix: String,
    /// The key's public part; empty: from `AWS_ACCESS_KEY_ID`.
    pub access_key: String,
    /// The key's secret part; empty: from `AWS_SECRET_ACCESS_KEY`.
    pub secret_key: String,
    /// `endpoint/bucket/key` rather than `bucket.endpoint/key`; most stores that are not AWS want it.
    pub path_style: bool,
    /// The authorities of the endpoint's certificate that are believed instead of the system's, PEM.
    pub ca_pem: Option<String>,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("access_key", &self.access_key)
            .field("path_style", &self.path_style)
            .field("ca_pem", &self.ca_pem.is_some())
            .finish_non_exhaustive()
    }
}

/// How long each thing may take.
#[derive(Debug, Clone)]
pub struct Patience {
    /// To open a connection.
    pub connect: Duration,
    /// From a request's first byte to the answer's first; a part of a blob is on its way meanwhile.
    pub read: Duration,
    /// From the answer's first byte to the last one of a piece.
    pub body: Duration,
    /// One operation with all its attempts and pauses, without the answer's body.
    pub operation: Duration,
}

impl Default for Patience {
    /// A part of 16 MiB passes at 5 Mbit/s; an endpoint that is away is noticed in seconds.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            read: Duration::from_secs(30),
            body: Duration::from_secs(30),
            operation: Duration::from_secs(90),
        }
    }
}

impl S3Config {
    /// The prefix of every key: empty, or ending in `/`.
    pub(crate) fn prefix(&self) -> Result<String, BlobError> {
        match self.prefix.trim_matches('/') {
            "" => Ok(String::new()),
            parts => match BlobName::new(parts) {
                Ok(name) => Ok(format!("{}/", name.as_str())),
                Err(_) => Err(self.wrong("prefix", "is to be of parts of A-Z a-z 0-9 . _ - with / between them")),
            },
        }
    }

    pub(crate) fn client(&self, patience: &Patience) -> Result<Client, BlobError> {
        if self.bucket.is_empty() {
            return Err(self.wrong("bucket", "is not set"));
        }
        if self.region.is_empty() {
            return Err(self.wrong("region", "is not set; stores other than AWS mostly take `us-east-1`"));
        }
        let mut builder = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .credentials_provider(self.credentials(|name| std::env::var(name).ok())?)
            .force_path_style(self.path_style)
            // Trailing checksums over plain http are refused by some stores; the signature covers the body.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(retries())
            .timeout_config(timeouts(patience))
            // Every piece has its own time-out.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = &self.endpoint {
            if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                return Err(self.wrong("endpoint", "is to begin with http:// or https://"));
            }
            builder = builder.endpoint_url(endpoint);
        }
        if let Some(pem) = &self.ca_pem {
            builder = builder.http_client(self.http_client(pem)?);
        }
        Ok(Client::from_conf(builder.build()))
    }

    /// One that believes these authorities only.
    fn http_client(&self, pem: &str) -> Result<SharedHttpClient, BlobError> {
        if self.endpoint.as_ref().is_some_and(|e| !e.starts_with("https://")) {
            return Err(self.wrong("ca", "goes with an `endpoint` that begins with https://"));
        }
        // Looked into before, because the SDK does not survive a file that is none.
        let unreadable = |why: &dyn fmt::Display| self.wrong("ca", &format!("is no PEM of certificates: {why}"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|e| unreadable(&e))?;
            roots.add(certificate).map_err(|e| unreadable(&e))?;
        }
        if roots.is_empty() {
            return Err(unreadable(&"there is none in it"));
        }
        let trust = TrustStore::empty().with_pem_certificate(pem);
        let context = TlsContext::builder().with_trust_store(trust).build();
        Ok(aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.map_err(|e| unreadable(&e))?)
            .build_https())
    }

    /// From the configuration, else from the environment.
    fn credentials(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Credentials, BlobError> {
        let (access, secret, session) = match (self.access_key.is_empty(), self.secret_key.is_empty()) {
            (false, false) => (Some(self.access_key.clone()), Some(self.secret_key.clone()), None),
            (true, true) => (
                environment("AWS_ACCESS_KEY_ID"),
                environment("AWS_SECRET_ACCESS_KEY"),
                environment("AWS_SESSION_TOKEN").filter(|token| !token.is_empty()),
            ),
            _ => return Err(self.wrong("access_key", "and `secret_key` are to be set both or not at all")),
        };
        let full = |part: Option<String>| part.filter(|part| !part.is_empty());
        match (full(access), full(secret)) {
            (Some(access), Some(secret)) => Ok(Credentials::new(access, secret, session, None, "buildflow")),
            _ => match ELSEWHERE.iter().find(|name| environment(name).is_some()) {
                Some(name) => Err(self.wrong(
                    "access_key",
                    &format!("is not set, and {name}, which is, is not followed: {KEYS}"),
                )),
                None => Err(self.wrong("access_key", &format!("is not set: {KEYS}"))),
            },
        }
    }

    fn wrong(&self, setting: &str, what: &str) -> BlobError {
        let endpoint = self.endpoint.as_deref().unwrap_or("AWS");
        BlobError::Setting(format!("bucket `{}` at {endpoint}: `{setting}` {what}", self.bucket))
    }
}

fn retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(FIRST_PAUSE)
        .with_max_backoff(LONGEST_PAUSE)
}

fn timeouts(patience: &Patience) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(patience.connect)
        .read_timeout(patience.read)
        .operation_attempt_timeout(patience.connect + patience.read)
        .operation_timeout(patience.operation)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config {
            endpoint: Some("http://127.0.0.1:9000".to_owned()),
            region: "us-east-1".to_owned(),
            bucket: "ci".to_owned(),
            prefix: String::new(),
            access_key: "public".to_owned(),
            secret_key: "hidden".to_owned(),
            path_style: true,
            ca_pem: None,
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let change = |change: fn(&mut S3Config)| {
            let mut config = config();
            change(&mut config);
            config
        };
        let cases = [
            (change(|c| c.bucket.clear()), "`bucket` is not set"),
            (change(|c| c.region.clear()), "`region` is not set"),
            (change(|c| c.secret_key.clear()), "`secret_key`"),
            (
                change(|c| c.endpoint = Some("minio:9000".to_owned())),
                "`endpoint` is to begin with",
            ),
            (change(|c| c.prefix = "a b".to_owned()), "`prefix` is to be"),
            (change(|c| c.prefix = "..".to_owned()), "`prefix` is to be"),
            (change(|c| c.ca_pem = Some("x".to_owned())), "`ca` goes with"),
            (
                change(|c| {
                    c.endpoint = None;
                    c.ca_pem = Some("x".to_owned());
                }),
                "`ca` is no PEM of certificates: there is none in it",
            ),
            (
                change(|c| {
                    c.endpoint = None;
                    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
                    c.ca_pem = Some(text.to_owned());
                }),
                "`ca` is no PEM of certificates",
            ),
        ];
        for (config, expected) in cases {
            let made = crate::S3Blobs::unproved(config, Patience::default());
            let refused = made.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        assert!(!format!("{:?}", config()).contains("hidden"));
    }

    #[test]
    fn prefixes_end_in_a_slash() {
        for (given, expected) in [("", ""), ("/", ""), ("ci", "ci/"), ("/a/b/", "a/b/")] {
            let config = S3Config {
                prefix: given.to_owned(),
                ..config()
            };
            assert_eq!(config.prefix().unwrap(), expected);
        }
    }

    #[test]
    fn the_key_comes_from_the_configuration_or_the_environment() {
        let environment = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("from outside".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            "AWS_SESSION_TOKEN" => Some("session".to_owned()),
            _ => None,
        };
        let set = config().credentials(environment).unwrap();
        assert_eq!((set.access_key_id(), set.session_token()), ("public", None));
        let unset = S3Config {
            access_key: String::new(),
            secret_key: String::new(),
            ..config()
        };
        let found = unset.credentials(environment).unwrap();
        assert_eq!(
            (found.access_key_id(), found.session_token()),
            ("from outside", Some("session"))
        );
        let missing = unset.credentials(|_| None).unwrap_err().to_string();
        assert!(
            missing.contains("AWS_ACCESS_KEY_ID") && missing.contains("http://127.0.0.1:9000"),
            "{missing}"
        );
        let role = |name: &str| (name == "AWS_WEB_IDENTITY_TOKEN_FILE").then(|| "/token".to_owned());
        let refused = unset.credentials(role).unwrap_err().to_string();
        assert!(
            refused.contains("AWS_WEB_IDENTITY_TOKEN_FILE") && refused.contains("not supported"),
            "{refused}"
        );
    }
}
