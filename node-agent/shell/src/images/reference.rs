//! What a pipeline file may write for an image. Pure.

use crate::images::error::ImageError;
use std::net::IpAddr;

/// The longest reference.
const REFERENCE_MAX: usize = 1_024;

/// Where an image is.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    /// In a registry.
    Registry(oci_client::Reference),
    /// In an OCI image layout: a folder or tar, perhaps followed by `:tag`.
    Layout(String),
}

/// Reads a reference.
pub(crate) fn parse(text: &str) -> Result<Reference, ImageError> {
    let refuse = |why: String| ImageError::IllegalReference {
        reference: text.chars().filter(|c| !c.is_control()).take(200).collect(),
        why,
    };
    if text.is_empty() {
        return Err(refuse(
            "it is empty; write `name:tag`, `host/name@sha256:…` or `oci:PATH`".to_owned(),
        ));
    }
    if text.len() > REFERENCE_MAX {
        return Err(refuse("it is longer than 1024 bytes".to_owned()));
    }
    if text.chars().any(|c| c.is_control()) {
        return Err(refuse("it contains control characters".to_owned()));
    }
    if let Some(path) = text.strip_prefix("oci:") {
        if path.is_empty() {
            return Err(refuse(
                "`oci:` is followed by the path of an OCI image layout".to_owned(),
            ));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(refuse("the path must not contain `..`".to_owned()));
        }
        return Ok(Reference::Layout(path.to_owned()));
    }
    let parsed = oci_client::Reference::try_from(text)
        .map_err(|e| refuse(format!("{e}; write `name:tag`, `host/name@sha256:…` or `oci:PATH`")))?;
    if parsed.digest().is_some_and(|digest| !digest.starts_with("sha256:")) {
        return Err(refuse("only sha256 digests are supported".to_owned()));
    }
    Ok(Reference::Registry(parsed))
}

/// True for a host, perhaps with a port, that is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_docker_hubs() {
        let cases = [
            ("busybox", "docker.io", "library/busybox", Some("latest"), None),
            ("busybox:1.36", "docker.io", "library/busybox", Some("1.36"), None),
            (
                "docker.io/library/rust:1.95",
                "docker.io",
                "library/rust",
                Some("1.95"),
                None,
            ),
            ("team/app:x", "docker.io", "team/app", Some("x"), None),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000", "a/b", Some("t"), None),
            ("localhost/a", "localhost", "a", Some("latest"), None),
            ("ghcr.io/a/b@sha256:", "", "", None, None),
        ];
        for (text, host, repository, tag, digest) in cases {
            let Ok(Reference::Registry(found)) = parse(text) else {
                assert!(host.is_empty(), "{text}");
                continue;
            };
            assert_eq!(
                (found.registry(), found.repository(), found.tag(), found.digest()),
                (host, repository, tag, digest),
                "{text}"
            );
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        let Ok(Reference::Registry(found)) = parse(&format!("host:5000/x@{digest}")) else {
            panic!()
        };
        assert_eq!(found.digest(), Some(digest.as_str()));
    }

    #[test]
    fn bad_references_say_what_to_write() {
        let long = "a".repeat(2_000);
        for text in [
            "",
            "UPPER:x",
            "a b",
            "oci:",
            "oci:../x",
            "oci:/a/../b",
            "x\n",
            "/etc",
            "http://x/y",
            "a@sha512:00",
            &long,
        ] {
            let error = parse(text).map(|found| panic!("{text}: {found:?}")).unwrap_err();
            assert!(matches!(error, ImageError::IllegalReference { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.org",
            "10.0.0.1:5000",
            "localhost.example.org",
            "127.0.0.1.example.org",
            "[::2]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
