//! Calls of the REST interface: addresses, the token, and refusals in plain words.
//!
//! Not here: what is asked for, and streams that go on after a lost connection (`follow`).

use super::failure::Failure;
use super::settings::Settings;
use api::dto::Problem;
use reqwest::{Client, ClientBuilder, Method, Request, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take: somewhat longer than the server gives itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a stream may be silent: several times the period of the server's signs of life.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest answer that is read, bytes: the longest page of the largest records is far below.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A query parameter.
pub(super) type Parameter = (&'static str, String);

/// A server and who we are to it.
#[derive(Debug)]
pub(super) struct Api {
    calls: Client,
    streams: Client,
    settings: Settings,
    /// Which of the addresses answered last.
    current: AtomicUsize,
}

/// An answer, as it came and as what it means.
#[derive(Debug)]
pub(super) struct Answer<T> {
    pub(super) raw: Value,
    pub(super) body: T,
}

impl Api {
    pub(super) fn connect(settings: &Settings) -> Result<Self, Failure> {
        let base = || -> Result<ClientBuilder, Failure> {
            let builder = Client::builder()
                .user_agent(concat!("buildflow/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none());
            let builder = believing(builder, settings.ca.as_deref())?;
            // A proxy of the environment cannot reach our own machine.
            if settings.addrs.iter().all(|addr| is_loopback(addr)) {
                Ok(builder.no_proxy())
            } else {
                Ok(builder)
            }
        };
        let failed = |e: reqwest::Error| Failure::Unreachable(format!("cannot make an HTTP client: {}", root(&e)));
        Ok(Self {
            calls: base()?.timeout(ANSWER_TIMEOUT).build().map_err(failed)?,
            streams: base()?.read_timeout(SILENCE_TIMEOUT).build().map_err(failed)?,
            settings: settings.clone(),
            current: AtomicUsize::new(0),
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[Parameter],
    ) -> Result<Answer<T>, Failure> {
        self.call(self.request(&self.calls, Method::GET, path, query)).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: Option<&impl Serialize>,
    ) -> Result<Answer<T>, Failure> {
        let request = self.request(&self.calls, Method::POST, path, &[]);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.call(request).await
    }

    pub(super) async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Answer<T>, Failure> {
        self.call(self.request(&self.calls, Method::PUT, path, &[]).json(body))
            .await
    }

    pub(super) async fn delete(&self, path: &[&str]) -> Result<(), Failure> {
        let request = self.request(&self.calls, Method::DELETE, path, &[]);
        let response = self.send(request).await?;
        self.accepted(response).await.map(drop)
    }

    /// An answer that is read while it comes.
    pub(super) async fn stream(
        &self,
        path: &[&str],
        query: &[Parameter],
        headers: &[(&'static str, &str)],
    ) -> Result<Response, Failure> {
        let mut request = self.request(&self.streams, Method::GET, path, query);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request).await?;
        self.accepted(response).await
    }

    fn request(&self, client: &Client, method: Method, path: &[&str], query: &[Parameter]) -> RequestBuilder {
        let mut url = Url::parse(&self.settings.addrs[0]).expect("the settings were checked");
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(["api", "v1"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = client.request(method, url);
        match &self.settings.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Answer<T>, Failure> {
        let response = self.send(request).await?;
        let response = self.accepted(response).await?;
        let bytes = self.bounded(response).await?;
        let foreign = |e: serde_json::Error| {
            Failure::Unreachable(format!(
                "the answer of {} is not understood ({e}); is it a BuildFlow server of this release?",
                self.shown_addr()
            ))
        };
        let raw: Value = serde_json::from_slice(&bytes).map_err(foreign)?;
        let body = T::deserialize(&raw).map_err(foreign)?;
        Ok(Answer { raw, body })
    }

    /// Sends to the server that answered last; when it cannot be reached, so that it has got nothing
    /// of the request, to the next one, each once.
    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let (client, request) = request.build_split();
        let request = request.map_err(|e| self.lost(&e))?;
        let all = self.settings.addrs.len();
        let first = self.current.load(Ordering::Relaxed);
        let mut index = first % all;
        loop {
            let to_this = self.addressed(&request, index);
            let error = match client.execute(to_this).await {
                Ok(response) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(error) => error,
            };
            index = (index + 1) % all;
            if !error.is_connect() || index == first % all {
                return Err(self.lost(&error));
            }
        }
    }

    /// The same request for the address with this index.
    fn addressed(&self, request: &Request, index: usize) -> Request {
        let mut copy = request.try_clone().expect("a body that is in memory can be sent again");
        let rest = &request.url().as_str()[self.settings.addrs[0].len()..];
        *copy.url_mut() =
            Url::parse(&format!("{}{rest}", self.settings.addrs[index])).expect("the settings were checked");
        copy
    }

    /// The addresses, for messages.
    fn shown_addr(&self) -> String {
        self.settings.addrs.join(", ")
    }

    /// What a connection that failed means.
    pub(super) fn lost(&self, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            return Failure::Usage(format!(
                "the request cannot be made: {}; check BUILDFLOW_TOKEN for characters that do not belong there",
                root(error)
            ));
        }
        let addr = self.shown_addr();
        if let Some(refusal) = pki::reason(error) {
            return Failure::Unreachable(format!("the server at {addr} is not believed: {refusal}"));
        }
        let what = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            root(error)
        };
        let authority_needed = self.settings.ca.is_none() && what.contains("certificate");
        let mend = if authority_needed {
            "set BUILDFLOW_CA to the cluster's authority.pem"
        } else {
            "start it, or set BUILDFLOW_ADDR"
        };
        Failure::Unreachable(format!(
            "cannot reach the server at {addr}: {what}; {mend} (the address is from {})",
            self.settings.addr_from
        ))
    }

    /// The response, or its refusal in plain words.
    async fn accepted(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let path = response.url().path().to_owned();
        let bytes = self.bounded(response).await.unwrap_or_default();
        let problem: Option<Problem> = serde_json::from_slice(&bytes).ok();
        Err(Failure::refused(status.as_u16(), problem.as_ref(), &path))
    }

    async fn bounded(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.lost(&e))? {
            if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(Failure::Unreachable(format!(
                    "the answer of {} is longer than {ANSWER_MAX_BYTES} bytes",
                    self.shown_addr()
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// With the authority of a cluster alone, or with whatever else a company signs with.
fn believing(builder: ClientBuilder, ca: Option<&str>) -> Result<ClientBuilder, Failure> {
    let Some(ca) = ca else { return Ok(builder) };
    if let Ok(trust) = pki::Trust::from_pem(ca) {
        let client = pki::Client::new(trust, None).map_err(|e| Failure::Usage(e.to_string()))?;
        return Ok(builder.tls_backend_preconfigured(client.config()));
    }
    let refused = |e: reqwest::Error| Failure::Usage(format!("the authority (BUILDFLOW_CA): {}", root(&e)));
    let all = reqwest::Certificate::from_pem_bundle(ca.as_bytes()).map_err(refused)?;
    if all.is_empty() {
        return Err(Failure::Usage(
            "the authority (BUILDFLOW_CA): there is no certificate in the file (PEM)".to_owned(),
        ));
    }
    Ok(all.into_iter().fold(builder, ClientBuilder::add_root_certificate))
}

/// The innermost cause: the others repeat the address.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn is_loopback(addr: &str) -> bool {
    let url = Url::parse(addr).ok();
    url.and_then(|u| u.host_str().map(|host| host.trim_matches(['[', ']']).to_owned()))
        .is_some_and(|host| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}
