//! Who calls: a bearer token, looked up by its hash in the view, and what its role allows.
//!
//! The view follows the store's tokens, so that a removed one is refused at once. Not here: making
//! tokens ([`crate::tokens`]), what a role may see.

use crate::problem::Problem;
use crate::tokens::{TOKEN_MAX, hash};
use crate::view::View;
use axum::http::{HeaderMap, header};
use model::Role;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name: the author of what is done with it.
    pub name: String,
    /// What the token allows.
    pub role: Role,
}

/// Why a caller was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No `Authorization: Bearer …`.
    #[error("send the header `Authorization: Bearer <token>`")]
    Missing,
    /// The token is not known, or not any more.
    #[error("the token is not known; check it, or have a new one made")]
    Unknown,
    /// The token's role does not allow this.
    #[error("this needs a token with the role `{}`, the one given has the role `{}`", role_word(*.needed), role_word(*.found))]
    Role {
        /// What is needed.
        needed: Role,
        /// What was given.
        found: Role,
    },
}

/// The word for a role.
#[must_use]
pub fn role_word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Node => "node",
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing | AuthError::Unknown => Self::unauthorized(error.to_string()),
            AuthError::Role { .. } => Self::forbidden(error.to_string()),
        }
    }
}

/// The token's text in an `Authorization` value, e.g. of a header or of gRPC metadata.
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= TOKEN_MAX).then_some(token)
}

/// Who sends this `Authorization` value.
///
/// # Errors
/// [`AuthError::Missing`], [`AuthError::Unknown`].
pub fn authenticate(view: &View, authorization: Option<&str>) -> Result<Caller, AuthError> {
    let token = authorization.and_then(bearer).ok_or(AuthError::Missing)?;
    let record = view.token(&hash(token)).ok_or(AuthError::Unknown)?;
    Ok(Caller {
        name: record.name,
        role: record.role,
    })
}

/// Who sends these headers, if the role is exactly `needed`.
///
/// # Errors
/// [`AuthError`].
pub fn authorise(view: &View, headers: &HeaderMap, needed: Role) -> Result<Caller, AuthError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    require(authenticate(view, value)?, needed)
}

/// The caller, if its role is exactly `needed`: an administrator's token does not open a node's stream.
///
/// # Errors
/// [`AuthError::Role`].
pub fn require(caller: Caller, needed: Role) -> Result<Caller, AuthError> {
    if caller.role == needed {
        Ok(caller)
    } else {
        Err(AuthError::Role {
            needed,
            found: caller.role,
        })
    }
}
