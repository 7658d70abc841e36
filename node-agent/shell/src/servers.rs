//! Where servers are, how the agent shows who it is, and one connection to one of them.
//!
//! Not here: what is said over a connection.

use crate::blocking::blocking;
use crate::certificate;
use crate::config::{AgentConfig, AgentError, TlsFiles};
use hyper_util::rt::TokioIo;
use pki::{Address, Client};
use std::time::Duration;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use wire::v1::fleet_service_client::FleetServiceClient;

/// The longest wait for a connection, TLS included: milliseconds where somebody listens. With the
/// wait for the first message and the silence that is noticed, two servers that hang still leave
/// time for a third one within a lease of 20 s.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(3);

/// How often an idle connection is tried, and how long its answer may take: a peer that is gone
/// without a word is noticed after both.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(4);

/// All servers of the cluster that are configured.
#[derive(Clone)]
pub(crate) struct Servers {
    all: Vec<Server>,
    authorization: Option<MetadataValue<Ascii>>,
    tls: Option<TlsFiles>,
}

#[derive(Clone)]
struct Server {
    /// As it is configured.
    name: String,
    endpoint: Endpoint,
    /// For TLS, which is done below the endpoint.
    address: Option<Address>,
}

fn setting(setting: &'static str, message: impl Into<String>) -> AgentError {
    let message = message.into();
    AgentError::Setting { setting, message }
}

impl Servers {
    pub(crate) fn new(config: &AgentConfig) -> Result<Self, AgentError> {
        if config.servers.is_empty() {
            let message = "name at least one, e.g. http://127.0.0.1:7890";
            return Err(setting("servers", message));
        }
        let mut all: Vec<Server> = Vec::new();
        for name in &config.servers {
            let server = Server::new(name, config.tls.is_some()).map_err(|message| setting("servers", message))?;
            // One that is named twice has one voice.
            if all.iter().all(|other| other.endpoint.uri() != server.endpoint.uri()) {
                all.push(server);
            }
        }
        let authorization = match config.token.as_str() {
            "" => None,
            token => Some(format!("Bearer {token}").parse().map_err(|_| {
                let message = "it holds characters that no token has; copy it again";
                setting("token", message)
            })?),
        };
        Ok(Self {
            all,
            authorization,
            tls: config.tls.clone(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The address of one of them, as it is configured.
    pub(crate) fn name(&self, server: usize) -> &str {
        self.all.get(server).map_or("", |server| &server.name)
    }

    /// Shows who the agent is, where its certificate does not.
    pub(crate) fn authorized<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// A fresh connection to one of them, with the certificate that is on the disk now.
    ///
    /// # Errors
    /// `Unavailable` with what happened; `FailedPrecondition` when the agent's own files are wrong.
    pub(crate) async fn connect(&self, server: usize) -> Result<FleetServiceClient<Channel>, Status> {
        let Some(server) = self.all.get(server) else {
            return Err(Status::internal("there is no such server"));
        };
        let late = |_| Status::deadline_exceeded("no connection came about in time");
        let channel = timeout(CONNECT_MAX, self.channel(server)).await.map_err(late)??;
        Ok(FleetServiceClient::new(channel)
            .max_decoding_message_size(wire::MESSAGE_MAX)
            .max_encoding_message_size(wire::MESSAGE_MAX))
    }

    async fn channel(&self, server: &Server) -> Result<Channel, Status> {
        let connected = match (&self.tls, &server.address) {
            (Some(files), Some(address)) => {
                let files = files.clone();
                let client = blocking(move || certificate::client(&files)).await;
                let client: Client = client.map_err(|e| Status::failed_precondition(e.to_string()))?;
                let address = address.clone();
                let connector = tower::service_fn(move |_| {
                    let (client, address) = (client.clone(), address.clone());
                    async move { client.connect(&address).await.map(TokioIo::new) }
                });
                server.endpoint.connect_with_connector(connector).await
            }
            _ => server.endpoint.connect().await,
        };
        connected.map_err(|e| unavailable(&e))
    }
}

impl Server {
    /// # Errors
    /// What is wrong with the address and how to write it.
    fn new(name: &str, certified: bool) -> Result<Self, String> {
        let tls = name.starts_with("https://");
        match (tls, certified) {
            (true, false) => {
                return Err(format!(
                    "`{name}` needs certificates: set `tls`, or use http://HOST:PORT"
                ));
            }
            (false, true) => {
                return Err(format!(
                    "`{name}` would be spoken to without TLS: use https://HOST:PORT"
                ));
            }
            (true, true) | (false, false) => {}
        }
        let address: Option<Address> = match tls {
            true => Some(name.parse().map_err(|e| format!("`{name}`: {e}"))?),
            false => None,
        };
        let plain = match (&address, name.contains("://")) {
            (Some(address), _) => address.to_string().replacen("https://", "http://", 1),
            (None, true) => name.to_owned(),
            (None, false) => format!("http://{name}"),
        };
        let endpoint = Endpoint::from_shared(plain).map_err(|e| format!("`{name}`: {e}; use http://HOST:PORT"))?;
        Ok(Self {
            name: name.to_owned(),
            endpoint: endpoint
                .connect_timeout(CONNECT_MAX)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
                .keep_alive_timeout(KEEP_ALIVE_MAX)
                .keep_alive_while_idle(true),
            address,
        })
    }
}

/// What lies behind a failed connection: a refused certificate in its own words.
fn unavailable(e: &tonic::transport::Error) -> Status {
    if let Some(refusal) = pki::reason(e) {
        return Status::unavailable(refusal.to_string());
    }
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Status::unavailable(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(servers: &[&str], tls: bool) -> AgentConfig {
        let servers = servers.iter().map(|s| (*s).to_owned()).collect();
        let mut config = AgentConfig::new(servers, "t", "/data", "/run");
        config.tls = tls.then(|| TlsFiles {
            ca: "/c".into(),
            certificate: "/n".into(),
            key: "/n".into(),
        });
        config
    }

    #[test]
    fn addresses_are_checked_before_anything_starts() {
        let good = [
            (config(&["127.0.0.1:1", "http://a.example:2"], false), 2),
            (config(&["http://a:1", "a:1", "http://a:1/"], false), 1),
            (config(&["https://a:1", "https://[::1]:2"], true), 2),
        ];
        for (config, expected) in good {
            assert_eq!(Servers::new(&config).unwrap().len(), expected, "{:?}", config.servers);
        }
        let bad = [
            (config(&[], false), "at least one"),
            (config(&["https://a:1"], false), "set `tls`"),
            (config(&["https://a:1", "http://b:1"], true), "use https://"),
            (config(&["https://a b"], true), "a b"),
            (config(&["http://"], false), "use http://HOST:PORT"),
        ];
        for (config, part) in bad {
            let refused = Servers::new(&config).err().unwrap().to_string();
            assert!(refused.contains("`servers`") && refused.contains(part), "{refused}");
        }
        let mut config = config(&["a:1"], false);
        config.token = "a\nb".to_owned();
        assert!(Servers::new(&config).err().unwrap().to_string().contains("`token`"));
    }
}
