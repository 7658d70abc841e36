//! The page's files and the addresses of its views.
//!
//! Every view has an address of its own, and all of them are answered with the same document: the
//! page looks at the address. Not here: how the files are made (`page/`), how they get in here
//! (`build.rs`).

use crate::state::Shared;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use sha2::{Digest, Sha256};

/// A file of the page, as it is and compressed.
struct File {
    /// With a leading `/`.
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    gzip: &'static [u8],
}

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The document of every view.
const DOCUMENT: &str = "/index.html";

/// The addresses of the views. `web_url` of a run is one of them.
pub(crate) const VIEWS: [&str; 10] = [
    "/",
    "/login",
    "/runs",
    "/runs/{run_id}",
    "/runs/{run_id}/steps/{step}",
    "/pipelines",
    "/pipelines/{team}/{pipeline}",
    "/nodes",
    "/nodes/{node}",
    "/about",
];

/// Where files lie whose names change with their content.
const ASSETS: &str = "/assets/{*name}";

/// What the document may do in a browser: nothing but its own files and this server; no inline
/// script or style, no frame around it, and no string ever becomes code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// For a program that was built without the page.
const NOT_BUILT: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>BuildFlow</title>\n\
     <h1>BuildFlow is running, without its page</h1>\n\
     <p>This program was built without the page in the browser. <code>make build</code> builds both.</p>\n\
     <p>The commands of <code>buildflow --help</code> and the interface described at \
     <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a> work as ever.</p>\n";

/// The views and files. They need no token: there is nothing in them but the page itself.
pub(crate) fn routes() -> Router<Shared> {
    let mut router = Router::new().route(ASSETS, get(asset));
    for view in VIEWS {
        router = router.route(view, get(document));
    }
    let of_its_own = |f: &&File| f.path != DOCUMENT && !f.path.starts_with("/assets/");
    for file in FILES.iter().filter(of_its_own) {
        router = router.route(file.path, get(asset));
    }
    router
}

/// True for a browser that opens an address where there is nothing.
pub(crate) fn is_for_people(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.uri().path().starts_with("/api/")
        && accepts.is_some_and(|a| a.contains("text/html"))
}

/// The document under an address that no view has: the page says so.
pub(crate) fn lost(headers: &HeaderMap) -> Response {
    let mut response = show_document(headers);
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

async fn document(headers: HeaderMap) -> Response {
    show_document(&headers)
}

fn show_document(headers: &HeaderMap) -> Response {
    let mut response = match FILES.iter().find(|f| f.path == DOCUMENT) {
        // It names the other files, so it is asked for anew each time.
        Some(file) => answer(file, headers, "no-cache"),
        None => plain(StatusCode::OK, "text/html; charset=utf-8", NOT_BUILT),
    };
    let set = response.headers_mut();
    set.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    set.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    set.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    set.insert(opener, HeaderValue::from_static("same-origin"));
    response
}

async fn asset(request: Request) -> Response {
    let path = request.uri().path();
    let Some(file) = FILES.iter().find(|f| f.path == path) else {
        return plain(
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "this file belongs to another release of the page; load the page anew\n",
        );
    };
    let is_named_by_content = path.starts_with("/assets/");
    let kept = if is_named_by_content {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    answer(file, request.headers(), kept)
}

fn answer(file: &'static File, headers: &HeaderMap, kept: &'static str) -> Response {
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(file.bytes)[..12]));
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let is_known = known.is_some_and(|k| k.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let packed = takes_gzip(headers) && file.gzip.len() < file.bytes.len();
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let bytes = if packed { file.gzip } else { file.bytes };
        Response::new(Body::from(Bytes::from_static(bytes)))
    };
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    set.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static(kept));
    set.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        set.insert(header::ETAG, tag);
    }
    if packed && !is_known {
        set.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok());
    accepted.is_some_and(|a| {
        a.split(',').any(|part| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some("gzip") && !words.any(|w| matches!(w, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        })
    })
}

fn plain(status: StatusCode, kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let set = response.headers_mut();
    set.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    set.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    set.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
