//! Who somebody is: a cluster, a role and a name, and the URI that carries them in a certificate.
//!
//! Not here: whether that is true (`trust`).

use crate::error::PkiError;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The longest name of a server or node, bytes: what a common name may hold.
const NAME_MAX: usize = 64;

/// Hexadecimal digits of a cluster id: enough that no two of the world's clusters share one.
const CLUSTER_ID_LEN: usize = 16;

/// A cluster's id: 16 hexadecimal digits, chosen at random when its authority is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(String);

impl ClusterId {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> Result<Self, PkiError> {
        Ok(Self(hex::encode(random::<{ CLUSTER_ID_LEN / 2 }>()?)))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterId {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && text.len() == CLUSTER_ID_LEN {
            Ok(Self(text.to_owned()))
        } else {
            Err(PkiError::malformed(
                "cluster id",
                format!("{text:?} is not {CLUSTER_ID_LEN} lower-case hexadecimal digits"),
            ))
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Random bytes of the provider.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0_u8; N];
    crate::provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| PkiError::Making {
            what: "random numbers",
            cause: "the system has none".to_owned(),
        })?;
    Ok(bytes)
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Signs all others.
    Authority,
    /// Serves, and speaks to other servers.
    Server,
    /// Speaks to servers.
    Node,
}

impl Role {
    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Server => "server",
            Self::Node => "node",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Authority, Self::Server, Self::Node]
            .into_iter()
            .find(|r| r.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scheme of the URI in our certificates.
const SCHEME: &str = "buildflow://";

/// `buildflow://<cluster id>/<role>/<name>`.
pub(crate) fn uri(cluster: &ClusterId, role: Role, name: &str) -> String {
    format!("{SCHEME}{cluster}/{role}/{name}")
}

/// Takes such a URI apart; `None` for every other text.
pub(crate) fn parse_uri(text: &str) -> Option<(ClusterId, Role, String)> {
    let mut parts = text.strip_prefix(SCHEME)?.splitn(3, '/');
    let cluster = parts.next()?.parse().ok()?;
    let role = Role::parse(parts.next()?)?;
    let name = parts.next()?;
    check_name(name).ok()?;
    Some((cluster, role, name.to_owned()))
}

/// Names of members: letters, digits, `.`, `_` and `-`.
pub(crate) fn check_name(name: &str) -> Result<(), PkiError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(legal) {
        return Ok(());
    }
    Err(PkiError::malformed(
        "name",
        format!("{name:?} must have 1 to {NAME_MAX} letters, digits, `.`, `_` or `-`"),
    ))
}

/// A name under which a server is reached: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name, in lower case.
    Dns(String),
}

impl FromStr for Host {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse() {
            return Ok(Self::Ip(ip));
        }
        let label = |l: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=63).contains(&l.len()) && l.bytes().all(legal) && !l.starts_with('-') && !l.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            return Ok(Self::Dns(text.to_ascii_lowercase()));
        }
        Err(PkiError::malformed(
            "host",
            format!("{text:?} is neither a DNS name nor an IP address"),
        ))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Dns(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_round_trips_and_nothing_else_is_taken_for_one() {
        let cluster: ClusterId = "0123456789abcdef".parse().expect("legal");
        let text = uri(&cluster, Role::Node, "n1");
        assert_eq!(text, "buildflow://0123456789abcdef/node/n1");
        assert_eq!(parse_uri(&text), Some((cluster, Role::Node, "n1".to_owned())));
        for other in [
            "",
            "https://0123456789abcdef/node/n1",
            "buildflow://x/node/n1",
            "buildflow://0123456789abcdef/king/n1",
            "buildflow://0123456789abcdef/node",
            "buildflow://0123456789abcdef/node/",
            "buildflow://0123456789abcdef/node/a/b",
            "buildflow://0123456789ABCDEF/node/n1",
        ] {
            assert_eq!(parse_uri(other), None, "{other}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "::1"),
            ("CI.example.org", "ci.example.org"),
            ("s1", "s1"),
        ] {
            assert_eq!(text.parse::<Host>().expect(text).to_string(), shown);
        }
        for text in ["", "a b", "-a", "a..b", "http://a", "a/b", "*.a"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
