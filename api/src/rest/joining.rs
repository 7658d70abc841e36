//! Join tokens: made, listed and revoked by an administrator.
//!
//! Not here: what a machine does with one (`crate::fleet::join`).

use super::body::Json as Body;
use super::query::{Asking, PathParts, short};
use crate::clock::now_ms;
use crate::dto::{CreateJoinToken, JoinToken, JoinTokenCreated, JoinTokenList};
use crate::fleet::join::Membership;
use crate::intake::{KeptRequest, commit_kept, fingerprint, keep_request, kept_request, new_run_id};
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::key;
use model::record::Unknown;
use pki::JoinTokenText;
use store::live::read_all;
use store::{Expect, Txn};

/// How long a token goes unless the request says otherwise, seconds.
const LIFE_DEFAULT_S: u64 = 3_600;

/// The longest life of a token: a rack is set up within a month; what lies around longer leaks.
const LIFE_MAX_S: u64 = 30 * 86_400;

/// Most machines that one token may let in.
const USES_MAX: u32 = 100_000;

/// The longest name of a token, bytes.
const NAME_MAX: usize = 128;

/// Most join tokens at once; ended ones make room after a day.
const TOKENS_MAX: usize = 1_000;

/// How long an ended token is kept, so that whoever shows it hears that it has ended, milliseconds.
const KEPT_MS: u64 = 86_400_000;

/// Digits of a token's hash that name it in lists: nobody makes a million of them.
const ID_LEN: usize = 12;

/// Makes a join token. Its text is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/join-tokens", operation_id = "create_join_token", tag = "nodes",
    request_body = CreateJoinToken,
    responses(
        (status = 201, body = JoinTokenCreated), (status = 400, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem)
    )
)]
pub(super) async fn create(
    State(server): State<Shared>,
    asking: Asking,
    Body(wish): Body<CreateJoinToken>,
) -> Answer<(StatusCode, Json<JoinTokenCreated>)> {
    let membership = membership(&server)?;
    let record = record_of(&wish, now_ms())?;
    let print = fingerprint(&wish);
    let asked_by = (asking.by.as_str(), asking.key.as_deref());
    if let KeptRequest::Known(_) = kept_request(server.store(), asked_by, &print).await? {
        return Err(made_before());
    }
    let kept = tidy(&server).await?;
    if kept >= TOKENS_MAX {
        return Err(Problem::conflict(format!(
            "there are {TOKENS_MAX} join tokens already; revoke some, or wait until they have ended"
        )));
    }
    let text = JoinTokenText::random(membership.tls().pin()).map_err(|error| {
        tracing::error!(%error, "no join token could be made");
        Problem::internal()
    })?;
    let hash = text.hash();
    let token_key = key::join_token(&hash);
    let txn = Txn::new().expect(&token_key, Expect::Absent).put(&token_key, &record);
    let txn = keep_request(&server, txn, asked_by, &print, &new_run_id()).await?;
    if !commit_kept(&server, txn).await?.is_applied() {
        return Err(made_before());
    }
    let created = JoinTokenCreated {
        token: text.reveal(),
        about: show(&hash, &record),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// A token's text is not kept, so the same request cannot be answered twice.
fn made_before() -> Problem {
    Problem::conflict(
        "a token was made under this Idempotency-Key already, and its text was in that answer alone; if the answer \
         was lost, revoke that token and ask for another one under a new key",
    )
}

fn membership(server: &Server) -> Answer<&Membership> {
    server.deps.membership.as_deref().ok_or_else(|| {
        Problem::conflict(
            "this server has no certificates, so machines do not join: agents show the node token of its data folder; \
             `buildflow admin init` makes a cluster with certificates",
        )
    })
}

fn record_of(wish: &CreateJoinToken, now_ms: u64) -> Answer<model::JoinToken> {
    let name = wish.name.clone().unwrap_or_else(|| "join".to_owned());
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let rule = format!("must have 1 to {NAME_MAX} bytes and no control characters");
        return Err(Problem::bad_field("name", rule));
    }
    let life_s = wish.expires_in_s.unwrap_or(LIFE_DEFAULT_S);
    if !(1..=LIFE_MAX_S).contains(&life_s) {
        return Err(Problem::bad_field("expires_in_s", format!("must be 1 to {LIFE_MAX_S}")));
    }
    if wish.uses.is_some_and(|uses| !(1..=USES_MAX).contains(&uses)) {
        return Err(Problem::bad_field(
            "uses",
            format!("must be 1 to {USES_MAX}, or left out"),
        ));
    }
    Ok(model::JoinToken {
        name,
        created_ms: now_ms,
        expires_ms: now_ms + life_s * 1_000,
        uses_left: wish.uses,
        unknown: Unknown::new(),
    })
}

/// Removes what ended long ago; answers how many are left.
async fn tidy(server: &Server) -> Answer<usize> {
    let now_ms = now_ms();
    let (entries, _) = read_all(server.store(), key::JOIN_TOKENS).await?;
    let mut kept = 0;
    for entry in entries {
        let old = entry
            .decode::<model::JoinToken>()
            .is_ok_and(|token| token.expires_ms.saturating_add(KEPT_MS) < now_ms);
        if old {
            let guarded = Txn::new().expect(&entry.key, Expect::Revision(entry.mod_revision));
            server.store().commit(guarded.delete(&entry.key)).await?;
        } else {
            kept += 1;
        }
    }
    Ok(kept)
}

/// Join tokens, without their texts.
#[utoipa::path(
    get, path = "/api/v1/join-tokens", operation_id = "list_join_tokens", tag = "nodes",
    responses((status = 200, body = JoinTokenList))
)]
pub(super) async fn list(State(server): State<Shared>) -> Answer<Json<JoinTokenList>> {
    let mut join_tokens: Vec<JoinToken> = all(&server).await?.iter().map(|(hash, r)| show(hash, r)).collect();
    join_tokens.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
    Ok(Json(JoinTokenList { join_tokens }))
}

async fn all(server: &Server) -> Answer<Vec<(String, model::JoinToken)>> {
    let (entries, _) = read_all(server.store(), key::JOIN_TOKENS).await?;
    let read = entries.iter().filter_map(|entry| {
        let hash = entry.key.strip_prefix(key::JOIN_TOKENS)?;
        match entry.decode() {
            Ok(record) => Some((hash.to_owned(), record)),
            Err(error) => {
                tracing::warn!(key = entry.key, %error, "join token does not decode");
                None
            }
        }
    });
    Ok(read.collect())
}

/// Revokes a join token; nodes that have joined with it stay.
#[utoipa::path(
    delete, path = "/api/v1/join-tokens/{id}", operation_id = "delete_join_token", tag = "nodes",
    params(("id" = String, Path, description = "The token's id, as the list shows it")),
    responses((status = 204), (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn delete(State(server): State<Shared>, parts: PathParts) -> Answer<StatusCode> {
    let id = parts.text("id");
    let found = all(&server).await?.into_iter().find(|(hash, _)| id_of(hash) == id);
    let (hash, _) =
        found.ok_or_else(|| Problem::not_found(format!("there is no join token with the id `{}`", short(id))))?;
    server.store().commit(Txn::new().delete(key::join_token(&hash))).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn id_of(hash: &str) -> &str {
    hash.get(..ID_LEN).unwrap_or(hash)
}

fn show(hash: &str, record: &model::JoinToken) -> JoinToken {
    JoinToken {
        id: id_of(hash).to_owned(),
        name: record.name.clone(),
        created_ms: record.created_ms,
        expires_ms: record.expires_ms,
        uses_left: record.uses_left,
    }
}
