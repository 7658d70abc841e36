//! Tokens: found by their hash, gone at once when removed.

use super::stage::{ADMIN, PATIENCE, Stage};
use crate::auth::{AuthError, authenticate, bearer};
use crate::tokens;
use axum::body::Body;
use axum::http::{Request, header};
use model::{Role, key};
use store::Store;

#[test]
fn a_bearer_token_is_read_leniently_and_within_a_limit() {
    let long = format!("Bearer {}", "x".repeat(300));
    let cases = [
        ("Bearer abc", Some("abc")),
        ("bearer abc", Some("abc")),
        ("BEARER  abc ", Some("abc")),
        ("Bearer ", None),
        ("Bearer", None),
        ("Basic abc", None),
        ("", None),
        (long.as_str(), None),
    ];
    for (value, expected) in cases {
        assert_eq!(bearer(value), expected, "{value}");
    }
}

#[tokio::test]
async fn a_removed_token_is_refused_at_once() {
    let stage = Stage::new().await;
    let text = tokens::create(stage.store.as_ref(), "ci", Role::Admin).await.unwrap();
    let ask = || {
        let request = Request::builder()
            .uri("/api/v1/nodes")
            .header(header::AUTHORIZATION, format!("Bearer {text}"));
        stage.ask(request.body(Body::empty()).unwrap())
    };
    // `create` does not wait for the view: the first answer may come before it.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while stage.server.view.token(&tokens::hash(&text)).is_none() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(ask().await.code.as_u16(), 200);
    stage
        .write(store::Txn::new().delete(key::token(&tokens::hash(&text))))
        .await;
    ask().await.problem(401, "unauthorized");
}

#[tokio::test]
async fn the_store_holds_no_tokens_text() {
    let stage = Stage::new().await;
    let text = tokens::create(stage.store.as_ref(), "ci", Role::Node).await.unwrap();
    let (entries, _) = store::live::read_all(stage.store.as_ref(), "").await.unwrap();
    assert!(entries.iter().any(|e| e.key == key::token(&tokens::hash(&text))));
    for entry in entries {
        let value = String::from_utf8(entry.value).unwrap();
        assert!(!entry.key.contains(&text) && !value.contains(&text));
        assert!(!value.contains(ADMIN), "{value}");
    }
}

#[tokio::test]
async fn ensuring_a_token_twice_keeps_the_first() {
    let stage = Stage::new().await;
    let before = stage.store.get(&key::token(&tokens::hash(ADMIN))).await.unwrap();
    tokens::ensure(stage.store.as_ref(), "other", Role::Node, ADMIN)
        .await
        .unwrap();
    assert_eq!(
        stage.store.get(&key::token(&tokens::hash(ADMIN))).await.unwrap(),
        before
    );
    tokens::revoke(stage.store.as_ref(), ADMIN).await.unwrap();
    assert_eq!(stage.store.get(&key::token(&tokens::hash(ADMIN))).await.unwrap(), None);
    let empty = crate::view::View::new(crate::metrics::Metrics::new());
    assert_eq!(authenticate(&empty, Some("Bearer bf_admin")), Err(AuthError::Unknown));
    assert_eq!(authenticate(&empty, None), Err(AuthError::Missing));
}
