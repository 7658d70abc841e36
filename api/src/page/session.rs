//! Who is logged in in a browser: a token in a cookie that no script can read.
//!
//! The cookie holds the token itself, so that any server of a cluster knows it and removing the
//! token ends the session. It is sent to the interface only, from the page only (`SameSite=Strict`),
//! and a request that changes something also needs a header that no other site can send. A request
//! with an `Authorization` header is judged by that alone. Not here: what a token allows (`auth`).

use crate::auth::{Caller, bearer, role_word};
use crate::dto::Session;
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

/// How long a browser keeps it after the page was last opened: a week's absence asks for the token again.
const KEPT_SECONDS: u64 = 7 * 24 * 3_600;

/// What the cookie's name begins with.
const NAME: &str = "buildflow";

/// Sent by the page with every request that changes something.
pub(crate) const PAGE_HEADER: HeaderName = HeaderName::from_static("x-buildflow-page");

/// Logs in: keeps the token of this request in a cookie.
///
/// For browsers; everyone else sends the token with each request. While the cookie is there,
/// requests without `Authorization` are judged by it; those that change something need the header
/// `X-BuildFlow-Page` too.
#[utoipa::path(
    post, path = "/api/v1/session", operation_id = "create_session", tag = "session",
    responses((status = 200, body = Session))
)]
pub(crate) async fn create(
    State(server): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Response> {
    let (uri, headers) = (request.uri(), request.headers());
    let token = authorization(headers).ok_or_else(Problem::internal)?;
    let set = cookie(&server, uri, headers, token, KEPT_SECONDS);
    Ok(with_cookie(Json(about(&server, &caller)).into_response(), &set))
}

/// Who is logged in, and what this server can do.
#[utoipa::path(
    get, path = "/api/v1/session", operation_id = "get_session", tag = "session",
    responses((status = 200, body = Session))
)]
pub(crate) async fn get(
    State(server): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Answer<Response> {
    let (uri, headers) = (request.uri(), request.headers());
    let answer = Json(about(&server, &caller)).into_response();
    // A week from now on.
    match of_cookie(uri, headers) {
        Some(token) if authorization(headers) == Some(token) => {
            let set = cookie(&server, uri, headers, token, KEPT_SECONDS);
            Ok(with_cookie(answer, &set))
        }
        _ => Ok(answer),
    }
}

/// Logs out: the browser forgets the cookie. The token stays valid.
#[utoipa::path(
    delete, path = "/api/v1/session", operation_id = "delete_session", tag = "session",
    responses((status = 204))
)]
pub(crate) async fn delete(State(server): State<Shared>, request: Request) -> Response {
    let set = cookie(&server, request.uri(), request.headers(), "", 0);
    with_cookie(axum::http::StatusCode::NO_CONTENT.into_response(), &set)
}

/// Puts the cookie's token where every handler looks for one, unless the request brings its own.
///
/// # Errors
/// 403 when another site may have made the request.
pub(crate) fn admit(request: &mut Request) -> Answer<()> {
    if request.headers().contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let Some(token) = of_cookie(request.uri(), request.headers()) else {
        return Ok(());
    };
    let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
        return Ok(());
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !reads && !request.headers().contains_key(PAGE_HEADER) {
        return Err(Problem::forbidden(
            "a request with the page's cookie that changes something needs the header `X-BuildFlow-Page`; \
             programs send `Authorization: Bearer <token>` instead",
        ));
    }
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Ok(())
}

fn about(server: &Server, caller: &Caller) -> Session {
    Session {
        name: caller.name.clone(),
        role: role_word(caller.role).to_owned(),
        server: server.config.server_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        not_yet: crate::rest::not_yet(),
    }
}

/// The token that a request is judged by.
fn authorization(headers: &HeaderMap) -> Option<&str> {
    bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// The token in the request's cookie.
fn of_cookie<'a>(uri: &Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let name = cookie_name(uri, headers);
    let pairs = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|v| v.to_str().ok());
    let mut pairs = pairs.flat_map(|v| v.split(';'));
    pairs.find_map(|pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name && !value.is_empty()).then_some(value)
    })
}

/// Cookies do not know ports; two servers on one machine must not log each other out.
fn cookie_name(uri: &Uri, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    let authority = uri.authority().map(axum::http::uri::Authority::as_str).or(host);
    let port = authority.and_then(|a| a.rsplit_once(':')).map(|(_, port)| port);
    match port.filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())) {
        Some(port) => format!("{NAME}-{port}"),
        None => NAME.to_owned(),
    }
}

fn cookie(server: &Server, uri: &Uri, headers: &HeaderMap, token: &str, seconds: u64) -> String {
    let forwarded = headers.get("x-forwarded-proto").and_then(|v| v.to_str().ok());
    let is_secret = server.deps.membership.is_some() || forwarded == Some("https");
    let secure = if is_secret { "; Secure" } else { "" };
    let name = cookie_name(uri, headers);
    format!("{name}={token}; Path=/api/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// A token has no character that a cookie must not have; one that had is not set.
fn with_cookie(mut response: Response, cookie: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}
