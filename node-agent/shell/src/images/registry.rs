//! What is asked of a registry, over HTTP: a tag's digest, a document, a blob. Every body has a
//! bound and every silence a time-out, whatever the other side sends.
//!
//! Not here: the client of the crate `oci-client`, whose reference and its rules are used. It reads
//! manifests, tokens and complaints of any length into memory, which a registry that a pipeline
//! names must not be able to make the agent do.

use crate::images::document::{ACCEPTED, DOCUMENT_MAX};
use crate::images::error::ImageError;
use crate::images::reference::is_loopback;
use crate::images::settings::{Credentials, ImageSettings};
use oci_client::Reference;
use reqwest::header::{ACCEPT, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// How often a request is sent before its failure counts.
const TRIES: u32 = 4;
/// The pause before the second try; doubles with each one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest that a registry may ask us to wait.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence in the middle of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The most of a complaint that is read.
const COMPLAINT_MAX: u64 = 8 * 1024;
/// The largest token.
const TOKEN_MAX: u64 = 64 * 1024;
/// How many repositories' authorisations are remembered.
const TOKENS_MAX: usize = 1_024;
const REDIRECTS_MAX: usize = 5;

/// All registries of a node.
#[derive(Debug)]
pub(crate) struct Registries {
    http: reqwest::Client,
    /// By registry and repository: what was accepted last.
    authorisations: Mutex<HashMap<String, Authorisation>>,
}

/// What a request carries to be let in.
#[derive(Clone)]
enum Authorisation {
    Basic(Credentials),
    Bearer(String),
}

impl std::fmt::Debug for Authorisation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorisation")
    }
}

/// What went wrong with one try.
enum Refusal {
    /// Another try may go better.
    Passing { why: String, pause: Option<Duration> },
    /// It will not.
    Final(ImageError),
}

impl Registries {
    pub(crate) fn new() -> Result<Self, ImageError> {
        let redirects = reqwest::redirect::Policy::custom(|attempt| {
            let downgrade =
                attempt.previous().iter().any(|url| url.scheme() == "https") && attempt.url().scheme() != "https";
            if downgrade || attempt.previous().len() > REDIRECTS_MAX {
                attempt.stop()
            } else {
                attempt.follow()
            }
        });
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirects)
            .user_agent(concat!("buildflow/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| ImageError::Unreachable {
                image: String::new(),
                why: format!("no HTTP client can be made: {e}"),
            })?;
        Ok(Self {
            http,
            authorisations: Mutex::default(),
        })
    }

    /// The digest behind a tag; `None` when the registry does not tell.
    pub(crate) async fn digest(&self, at: &At<'_>) -> Result<Option<String>, ImageError> {
        let path = format!("manifests/{}", at.reference.tag().unwrap_or("latest"));
        let answer = self.ask(at, Method::HEAD, &path).await?;
        let header = answer.headers().get("docker-content-digest");
        Ok(header.and_then(|value| value.to_str().ok()).map(str::to_owned))
    }

    /// A manifest or index by digest or tag, not verified.
    pub(crate) async fn manifest(&self, at: &At<'_>, name: &str) -> Result<Vec<u8>, ImageError> {
        self.document(at, &format!("manifests/{name}")).await
    }

    /// A small blob, not verified.
    pub(crate) async fn small_blob(&self, at: &At<'_>, digest: &str) -> Result<Vec<u8>, ImageError> {
        self.document(at, &format!("blobs/{digest}")).await
    }

    /// A blob to be streamed, not verified.
    pub(crate) async fn blob(&self, at: &At<'_>, digest: &str) -> Result<Response, ImageError> {
        self.ask(at, Method::GET, &format!("blobs/{digest}")).await
    }

    async fn document(&self, at: &At<'_>, path: &str) -> Result<Vec<u8>, ImageError> {
        let mut last = String::new();
        for attempt in 0..TRIES {
            pause(attempt, None).await;
            let answer = self.ask(at, Method::GET, path).await?;
            match bounded(answer, DOCUMENT_MAX).await {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {
                    return Err(ImageError::TooLarge {
                        image: at.image(),
                        what: format!("its document {path}"),
                        limit: format!("{DOCUMENT_MAX} bytes"),
                    });
                }
                Err(e) => last = chain(&e),
            }
        }
        Err(at.unreachable(last))
    }

    async fn ask(&self, at: &At<'_>, method: Method, path: &str) -> Result<Response, ImageError> {
        let url = format!("{}/v2/{}/{path}", at.base(), at.reference.repository());
        let (mut last, mut asked_pause) = (String::new(), None);
        for attempt in 0..TRIES {
            pause(attempt, asked_pause.take()).await;
            match self.try_once(at, method.clone(), &url).await {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Passing { why, pause }) => {
                    tracing::debug!(url, attempt, error = why, "registry failed");
                    (last, asked_pause) = (why, pause);
                }
            }
        }
        Err(at.unreachable(last))
    }

    async fn try_once(&self, at: &At<'_>, method: Method, url: &str) -> Result<Response, Refusal> {
        let known = self
            .authorisations
            .lock()
            .expect("no panic while it is held")
            .get(&at.scope())
            .cloned();
        let answer = self.send(at, method.clone(), url, known.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return judge(at, answer).await;
        }
        let header = self.authorise(at, answer.headers()).await?;
        let answer = self.send(at, method, url, Some(&header)).await?;
        if answer.status().is_success() {
            let mut known = self.authorisations.lock().expect("no panic while it is held");
            if known.len() >= TOKENS_MAX {
                known.clear();
            }
            known.insert(at.scope(), header);
        }
        judge(at, answer).await
    }

    async fn send(
        &self,
        at: &At<'_>,
        method: Method,
        url: &str,
        authorisation: Option<&Authorisation>,
    ) -> Result<Response, Refusal> {
        let mut request = self.http.request(method, url).header(ACCEPT, ACCEPTED);
        request = match authorisation {
            Some(Authorisation::Basic(login)) => request.basic_auth(&login.user, Some(&login.password)),
            Some(Authorisation::Bearer(token)) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.map_err(|e| {
            if e.is_builder() {
                return Refusal::Final(at.unreachable(chain(&e)));
            }
            Refusal::Passing {
                why: chain(&e),
                pause: None,
            }
        })
    }

    /// Answers a challenge: with the name and password themselves, or with a token for them.
    async fn authorise(&self, at: &At<'_>, headers: &HeaderMap) -> Result<Authorisation, Refusal> {
        let basic = at
            .settings
            .registries
            .get(at.reference.registry())
            .cloned()
            .map(Authorisation::Basic);
        let challenges = || {
            headers
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok())
        };
        if let Some(bearer) = challenges().find_map(|text| strip_word(text, "bearer")) {
            return self.token(at, bearer, basic).await;
        }
        match basic {
            Some(login) => Ok(login),
            None => Err(Refusal::Final(
                at.unauthorised("it asks for a user and a password and none are set"),
            )),
        }
    }

    async fn token(
        &self,
        at: &At<'_>,
        challenge: &str,
        basic: Option<Authorisation>,
    ) -> Result<Authorisation, Refusal> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let fields = parameters(challenge);
        let realm = fields.get("realm").and_then(|realm| Url::parse(realm).ok());
        let plain_allowed = at.base().starts_with("http:");
        let Some(mut realm) = realm.filter(|url| url.scheme() == "https" || (plain_allowed && url.scheme() == "http"))
        else {
            return Err(Refusal::Final(
                at.unauthorised("it names no usable place to get a token from"),
            ));
        };
        let scope = format!("repository:{}:pull", at.reference.repository());
        realm.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = fields.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let answer = self.send(at, Method::GET, realm.as_str(), basic.as_ref()).await?;
        let answer = judge(at, answer).await?;
        let bytes = bounded(answer, TOKEN_MAX).await.ok().flatten().unwrap_or_default();
        let token = serde_json::from_slice::<Token>(&bytes)
            .ok()
            .and_then(|t| t.token.or(t.access_token));
        match token {
            Some(token) => Ok(Authorisation::Bearer(token)),
            None => Err(Refusal::Final(at.unauthorised("its token service gave no token"))),
        }
    }
}

/// What is asked for, and under which settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) settings: &'a ImageSettings,
    /// As the user wrote it.
    pub(crate) written: &'a str,
}

impl At<'_> {
    fn base(&self) -> String {
        let host = self.reference.registry();
        let plain = is_loopback(host) || self.settings.insecure_registries.contains(host);
        format!(
            "{}://{}",
            if plain { "http" } else { "https" },
            self.reference.resolve_registry()
        )
    }

    fn scope(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    pub(crate) fn image(&self) -> String {
        self.written.to_owned()
    }

    pub(crate) fn unreachable(&self, why: String) -> ImageError {
        ImageError::Unreachable {
            image: self.image(),
            why,
        }
    }

    fn unauthorised(&self, why: &str) -> ImageError {
        ImageError::Unauthorised {
            host: self.reference.registry().to_owned(),
            image: self.image(),
            why: why.to_owned(),
        }
    }
}

/// Waits before every try but the first.
pub(crate) async fn pause(attempt: u32, asked: Option<Duration>) {
    if attempt > 0 {
        let own = FIRST_PAUSE * 2u32.saturating_pow(attempt - 1);
        tokio::time::sleep(asked.unwrap_or(own).min(PAUSE_MAX)).await;
    }
}

/// How often a blob is begun before its failure counts.
pub(crate) const BLOB_TRIES: u32 = TRIES;

async fn judge(at: &At<'_>, answer: Response) -> Result<Response, Refusal> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let pause = pause.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let body = bounded_prefix(answer, COMPLAINT_MAX).await;
    let why = format!("the registry answers {status}{}", complaint(&body));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Refusal::Final(at.unauthorised(&why))),
        StatusCode::NOT_FOUND => Err(Refusal::Final(ImageError::NotFound { image: at.image(), why })),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(Refusal::Passing { why, pause }),
        status if status.is_server_error() => Err(Refusal::Passing { why, pause }),
        _ => Err(Refusal::Final(at.unreachable(why))),
    }
}

/// The registry's own words, if it has any: `{"errors":[{"code","message"}]}`.
fn complaint(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let parsed = serde_json::from_slice::<Body>(body).ok();
    let first = parsed.and_then(|body| body.errors.into_iter().next());
    first.map_or_else(String::new, |item| {
        let text = format!(" ({}: {})", item.code, item.message);
        text.chars().filter(|c| !c.is_control()).take(200).collect()
    })
}

/// The whole body, or `None` when it is longer than `max`.
async fn bounded(mut answer: Response, max: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

async fn bounded_prefix(mut answer: Response, max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > max {
            break;
        }
    }
    bytes
}

/// What follows a word that stands first, whatever its letters' case.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = text.trim_start().split_once(' ')?;
    first.eq_ignore_ascii_case(word).then_some(rest)
}

/// `name="value", …` of a challenge.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(name, value.to_owned());
        rest = next;
    }
    found
}

/// An error with its causes, which is where reqwest hides the one that helps.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let fields = parameters(r#"realm="https://auth.example/token?a=b",service="r, s", scope=pull"#);
        assert_eq!(fields["realm"], "https://auth.example/token?a=b");
        assert_eq!(fields["service"], "r, s");
        assert_eq!(fields["scope"], "pull");
        for odd in ["", "=", "a", "a=\"", ",,,=,=\"\"\"", "realm"] {
            parameters(odd);
        }
        assert_eq!(strip_word("Bearer x=1", "bearer"), Some("x=1"));
        assert_eq!(strip_word("Basic x", "bearer"), None);
    }

    #[test]
    fn complaints_are_quoted_short_and_plain() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown\u001b[31m"}]}"#;
        assert_eq!(complaint(body), " (MANIFEST_UNKNOWN: manifest unknown[31m)");
        assert_eq!(complaint(b"<html>"), "");
    }
}
