//! What stands in a request's address and head: ids, filters, pages, keys.
//!
//! Not here: bodies.

use crate::auth::Caller;
use crate::limit::{KEY_MAX, PAGE_DEFAULT, PAGE_MAX, TEXT_MAX};
use crate::problem::{Answer, Problem};
use crate::rest::{RequestId, Trace};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap};
use model::{PipelineName, RunId, TeamName};
use std::collections::BTreeMap;

/// The parts of the path by name, decoded.
pub(super) struct PathParts(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for PathParts {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let unreadable = |_| Problem::bad_request("the path is not UTF-8 when its %-escapes are decoded");
        let raw = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(unreadable)?;
        Ok(Self(raw.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()))
    }
}

impl PathParts {
    /// A part of the path as text; empty if the route has none of this name.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// The run's id.
    pub(super) fn run_id(&self) -> Answer<RunId> {
        RunId::new(self.text("run_id")).map_err(|_| no_run(self.text("run_id")))
    }

    /// The pipeline's full name; one that cannot exist is not found.
    pub(super) fn pipeline(&self) -> Answer<(TeamName, PipelineName)> {
        let (team, name) = (self.text("team"), self.text("pipeline"));
        match (TeamName::new(team), PipelineName::new(name)) {
            (Ok(team), Ok(name)) => Ok((team, name)),
            _ => Err(no_pipeline(team, name)),
        }
    }

    /// The pipeline's full name where it is about to be made.
    pub(super) fn new_pipeline(&self) -> Answer<(TeamName, PipelineName)> {
        let team = TeamName::new(self.text("team")).map_err(|e| Problem::bad_field("team", e.to_string()))?;
        let name =
            PipelineName::new(self.text("pipeline")).map_err(|e| Problem::bad_field("pipeline", e.to_string()))?;
        Ok((team, name))
    }
}

/// 404 for a run.
pub(crate) fn no_run(id: &str) -> Problem {
    Problem::not_found(format!("there is no run `{}`", short(id)))
}

/// 404 for a pipeline.
pub(crate) fn no_pipeline(team: &str, name: &str) -> Problem {
    Problem::not_found(format!(
        "there is no pipeline `{}/{}`; `buildflow pipeline list` shows those that there are",
        short(team),
        short(name)
    ))
}

/// The first characters of what a caller sent, for a message.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The parameters after `?`, decoded; the last of several with the same name counts.
pub(crate) struct Parameters(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let unreadable = |_| Problem::bad_request("the parameters after `?` cannot be decoded");
        let query = axum::extract::Query::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        Self(query.map_err(unreadable)?.0).bounded()
    }
}

impl Parameters {
    /// Parameters that came otherwise than after `?`; empty ones are left out.
    pub(crate) fn of(given: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let given = given.into_iter().filter(|(_, value)| !value.is_empty());
        Self(given.map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// Refuses values that are longer than any.
    ///
    /// # Errors
    /// 400.
    pub(crate) fn bounded(self) -> Answer<Self> {
        match self.0.iter().find(|(_, value)| value.len() > TEXT_MAX) {
            None => Ok(self),
            Some((name, _)) => {
                let rule = format!("must have {TEXT_MAX} bytes at most");
                Err(Problem::bad_field(&short(name), rule))
            }
        }
    }

    /// Refuses parameters that are not among `known`.
    pub(super) fn only(self, known: &[&str]) -> Answer<Self> {
        match self.0.keys().find(|k| !known.contains(&k.as_str())) {
            None => Ok(self),
            Some(other) => Err(Problem::bad_field(
                &short(other),
                format!("is not a parameter of this route; these are: {}", known.join(", ")),
            )),
        }
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// How long the page may be.
    pub(super) fn limit(&self) -> Answer<usize> {
        let Some(text) = self.get("limit") else {
            return Ok(PAGE_DEFAULT);
        };
        match text.parse() {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
            _ => Err(Problem::bad_field(
                "limit",
                format!("must be a number from 1 to {PAGE_MAX}"),
            )),
        }
    }
}

/// Who asks, under which id, and whether under a key of the caller's own.
pub(crate) struct Asking {
    /// The token's name.
    pub(super) by: String,
    /// The request's id.
    pub(super) request_id: String,
    /// W3C trace context, the caller's or a new one.
    pub(super) traceparent: String,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.extensions, &parts.headers)
    }
}

impl Asking {
    /// Reads what the layers around every route have found out, and the caller's own key.
    ///
    /// # Errors
    /// 400 for a key that cannot be one.
    pub(crate) fn of(extensions: &Extensions, headers: &HeaderMap) -> Answer<Self> {
        let caller = extensions.get::<Caller>().ok_or_else(Problem::internal)?;
        let id = extensions.get::<RequestId>().ok_or_else(Problem::internal)?;
        let trace = extensions.get::<Trace>().ok_or_else(Problem::internal)?;
        Ok(Self {
            by: caller.name.clone(),
            request_id: id.0.clone(),
            traceparent: trace.0.clone(),
            key: idempotency_key(headers)?,
        })
    }
}

/// The caller's own name for a request.
///
/// # Errors
/// 400 for a key that cannot be one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let legal = !text.is_empty() && text.len() <= KEY_MAX && text.chars().all(|c| c.is_ascii_graphic());
    if legal {
        Ok(Some(text.to_owned()))
    } else {
        Err(Problem::bad_field(
            "Idempotency-Key",
            format!("must be 1 to {KEY_MAX} printable ASCII characters without spaces"),
        ))
    }
}
