//! JSON bodies: read within a limit, with every error at its line, column and field.
//!
//! Not here: whether what a body says makes sense.

use crate::dto::ProblemPlace;
use crate::limit::BODY_MAX;
use crate::problem::Problem;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

/// A JSON body of at most [`BODY_MAX`] bytes.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = media_type(&request);
        if !is_json(&kind) {
            return Err(Problem::unsupported_media_type(&kind, "application/json"));
        }
        let bytes = bytes(request, BODY_MAX).await?;
        parse(&bytes).map(Self)
    }
}

/// The body's media type in small letters, without parameters; empty if there is none.
pub(super) fn media_type(request: &Request) -> String {
    let value = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let kind = value.unwrap_or_default().split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

pub(super) fn is_json(media_type: &str) -> bool {
    media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// The whole body, if it has at most `limit` bytes.
pub(super) async fn bytes(request: Request, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large(limit)),
        Err(_broken) => Err(Problem::bad_request(
            "the body ended before it was complete; send it again",
        )),
    }
}

/// Reads JSON strictly.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Problem::bad_request(
            "the body is empty; send a JSON object, `{}` at least",
        ));
    }
    // Serde takes a list for the fields in their order; nobody means that.
    if bytes.trim_ascii_start().starts_with(b"[") {
        let detail = "the JSON body, line 1: a list, expected an object; write `{…}`";
        return Err(Problem::bad_request(detail));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = match serde_path_to_error::deserialize(&mut reader) {
        Ok(value) => value,
        Err(error) => {
            let path = error.path().to_string();
            return Err(refused(error.inner(), (path != ".").then_some(path)));
        }
    };
    reader.end().map_err(|error| refused(&error, None))?;
    Ok(value)
}

fn refused(error: &serde_json::Error, field: Option<String>) -> Problem {
    let text = error.to_string();
    // serde_json ends its messages with the place, which stands beside them here.
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    // The names of our types mean nothing to the caller.
    let text = match text.split_once("expected struct ") {
        Some((found, _)) => format!("{found}expected an object"),
        None => text.to_owned(),
    };
    let message: String = text.chars().take(400).collect();
    let field = field.map(|f| f.chars().take(200).collect::<String>());
    let at = field.as_ref().map(|f| format!(", field `{f}`")).unwrap_or_default();
    let detail = format!(
        "the JSON body, line {} column {}{at}: {message}",
        error.line(),
        error.column()
    );
    Problem::bad_request(detail).at(ProblemPlace {
        field,
        line: Some(error.line()),
        column: Some(error.column()),
        message,
    })
}
