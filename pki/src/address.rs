//! Where a server is: the host and port of an `https://` or `http://` address. Not here: paths.

use crate::error::PkiError;
use crate::names::Host;
use std::fmt;
use std::str::FromStr;

/// An address without a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let refused = || PkiError::malformed("address", format!("{text:?} must look like https://10.0.0.1:7420"));
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(refused()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of an address in brackets are its own.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refused())?),
            _ => (rest, if tls { 443 } else { 80 }),
        };
        if host.contains(':') && !host.starts_with('[') {
            return Err(refused());
        }
        Ok(Self {
            tls,
            host: host.parse().map_err(|_| refused())?,
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.host {
            Host::Ip(std::net::IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]:{}", self.port),
            host => write!(f, "{scheme}://{host}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
            ("https://10.0.0.1:7420", "https://10.0.0.1:7420"),
            ("http://ci.example.org/", "http://ci.example.org:80"),
            ("https://[::1]:7420", "https://[::1]:7420"),
            ("https://[::1]", "https://[::1]:443"),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), shown);
        }
        for text in [
            "",
            "10.0.0.1:7420",
            "https://",
            "https://a:b",
            "https://::1:7420",
            "ftp://a",
            "https://a/b",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
