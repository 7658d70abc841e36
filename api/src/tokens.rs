//! Tokens: random texts that are shown once; the store keeps only their SHA-256.

use crate::clock::now_ms;
use model::record::Unknown;
use model::{Role, TokenRecord, key};
use rand::Rng;
use sha2::{Digest, Sha256};
use store::{Expect, Store, StoreError, Txn};

/// What every token begins with, so that a leaked one is recognised.
pub const PREFIX: &str = "bf_";

/// Random bytes of a token: 256 bits cannot be guessed, so a plain hash suffices.
const RANDOM_BYTES: usize = 32;

/// The longest text that is looked up; longer ones are refused unread.
pub const TOKEN_MAX: usize = 256;

/// The lower-case hex SHA-256 under which a token's record is kept.
#[must_use]
pub fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// A new random token text.
#[must_use]
pub fn random() -> String {
    let mut bytes = [0_u8; RANDOM_BYTES];
    rand::rng().fill(&mut bytes);
    format!("{PREFIX}{}", hex::encode(bytes))
}

fn record(name: &str, role: Role) -> TokenRecord {
    TokenRecord {
        name: name.to_owned(),
        role,
        created_ms: now_ms(),
        unknown: Unknown::new(),
    }
}

/// Makes a token and answers its text, which is stored nowhere.
///
/// # Errors
/// As [`Store::commit`].
pub async fn create(store: &dyn Store, name: &str, role: Role) -> Result<String, StoreError> {
    let text = random();
    ensure(store, name, role, &text).await?;
    Ok(text)
}

/// Makes the token with this text valid; nothing changes when it is already.
///
/// # Errors
/// As [`Store::commit`].
pub async fn ensure(store: &dyn Store, name: &str, role: Role, text: &str) -> Result<(), StoreError> {
    let key = key::token(&hash(text));
    let txn = Txn::new().expect(&key, Expect::Absent).put(&key, &record(name, role));
    store.commit(txn).await.map(|_| ())
}

/// Makes the token with this text invalid.
///
/// # Errors
/// As [`Store::commit`].
pub async fn revoke(store: &dyn Store, text: &str) -> Result<(), StoreError> {
    let txn = Txn::new().delete(key::token(&hash(text)));
    store.commit(txn).await.map(|_| ())
}
