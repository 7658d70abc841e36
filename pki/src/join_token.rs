//! The text with which a machine joins: `bfj_<secret>.<fingerprint of the authority>`.
//!
//! The secret lets the machine in; the fingerprint lets the machine know whom it asks, before it
//! says anything. Not here: how long one goes and how often (the server's records).

use crate::error::PkiError;
use crate::names::random;
use crate::trust::Pin;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// What every join token begins with, so that a leaked one is recognised.
const PREFIX: &str = "bfj_";

/// Random bytes of the secret: 256 bits cannot be guessed, so a plain hash suffices.
const SECRET_BYTES: usize = 32;

/// A join token's text, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokenText {
    secret: String,
    pin: Pin,
}

impl fmt::Debug for JoinTokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokenText")
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

impl JoinTokenText {
    /// A new one for the cluster of this authority.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random(pin: Pin) -> Result<Self, PkiError> {
        let secret = hex::encode(random::<SECRET_BYTES>()?);
        Ok(Self { secret, pin })
    }

    /// The fingerprint of the authority.
    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// The lower-case hex SHA-256 under which the token's record is kept: of the secret alone.
    #[must_use]
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.secret.as_bytes()))
    }

    /// The whole text. It is shown once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}.{}", self.secret, self.pin.as_str())
    }
}

impl FromStr for JoinTokenText {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let refused = || {
            PkiError::malformed(
                "join token",
                "it must look like bfj_<secret>.<fingerprint>; copy all of it",
            )
        };
        let (secret, pin) = text
            .trim()
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(refused)?;
        if secret.len() != SECRET_BYTES * 2 || !secret.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refused());
        }
        Ok(Self {
            secret: secret.to_owned(),
            pin: pin.parse().map_err(|_| refused())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_round_trips_and_its_hash_is_of_the_secret_alone() {
        let pin: Pin = "ab".repeat(32).parse().expect("legal");
        let token = JoinTokenText::random(pin).expect("random");
        let text = token.reveal();
        let read: JoinTokenText = format!(" {text}\n").parse().expect("its own text");
        assert_eq!(read, token);
        let other: JoinTokenText = text.replace("ab", "cd").parse().unwrap_or_else(|_| token.clone());
        assert!(!format!("{token:?}").contains(&token.secret));
        assert!(other.hash().len() == 64);
        let (_, elsewhere) = text.split_once('.').expect("two parts");
        let pinned_elsewhere = text.replace(elsewhere, &"cd".repeat(32));
        let pinned_elsewhere: JoinTokenText = pinned_elsewhere.parse().expect("legal");
        assert_eq!(pinned_elsewhere.hash(), token.hash());
    }

    #[test]
    fn half_a_token_is_none() {
        let pin: Pin = "ab".repeat(32).parse().expect("legal");
        let text = JoinTokenText::random(pin).expect("random").reveal();
        for broken in [
            "",
            "bfj_",
            "bf_x.y",
            &text[1..],
            &text[..text.len() - 1],
            &text.replace('.', ""),
        ] {
            let error = broken.parse::<JoinTokenText>().expect_err(broken).to_string();
            assert!(error.starts_with("join token: it must look like"), "{error}");
        }
    }
}
