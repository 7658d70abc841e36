//! Repository addresses: when two of them mean the same repository, and how one is shown.
//!
//! Not here: which addresses are legal (`git_mirror`).

/// The form in which addresses are compared: without credentials, a trailing `/` or `.git`, the
/// `file://` of a path, and the difference between capital and small letters in scheme and host.
#[must_use]
pub(crate) fn normal(address: &str) -> String {
    let address = address.trim();
    let address = address.strip_prefix("file://").unwrap_or(address);
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => (String::new(), address),
    };
    let rest = rest.trim_end_matches('/');
    let rest = rest.strip_suffix(".git").unwrap_or(rest).trim_end_matches('/');
    if scheme.is_empty() {
        return rest.to_owned();
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match authority.rsplit_once('@') {
        // Who logs in by ssh chooses the repository; a password of http does not.
        Some((user, host)) if scheme == "ssh" => format!("{user}@{}", host.to_ascii_lowercase()),
        Some((_, host)) => host.to_ascii_lowercase(),
        None => authority.to_ascii_lowercase(),
    };
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        "ssh" => ":22",
        _ => "",
    };
    let host = host.strip_suffix(default_port).unwrap_or(&host);
    format!("{scheme}://{host}/{path}")
}

/// The address for people: without the user and password that it may hold.
#[must_use]
pub(crate) fn shown(address: &str) -> String {
    git_mirror::Address::parse(address, true).map_or_else(|_| address.to_owned(), |a| a.shown().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let cases = [
            ("https://me:secret@example.org/a/b", "https://example.org/a/b"),
            ("ssh://git@example.org/a/b", "ssh://git@example.org/a/b"),
            ("file:///srv/git/app", "file:///srv/git/app"),
            ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ];
        for (address, expected) in cases {
            assert_eq!(shown(address), expected);
        }
    }

    #[test]
    fn addresses_of_the_same_repository_are_one() {
        let same = [
            &[
                "/srv/git/app.git",
                "/srv/git/app",
                "file:///srv/git/app.git/",
                "file:///srv/git/app",
            ][..],
            &[
                "https://Example.org/a/b.git",
                "https://example.org/a/b",
                "HTTPS://me:pw@example.org:443/a/b/",
            ],
            &["git@example.org:a/b.git", "git@example.org:a/b"],
            &["ssh://git@Example.org/a/b", "ssh://git@example.org:22/a/b.git"],
        ];
        for group in same {
            for address in group {
                assert_eq!(normal(address), normal(group[0]), "{address}");
            }
        }
        let firsts: std::collections::BTreeSet<String> = same.iter().map(|g| normal(g[0])).collect();
        assert_eq!(firsts.len(), same.len(), "different repositories stay apart");
    }

    #[test]
    fn different_repositories_stay_apart() {
        let cases = [
            ("/srv/a", "/srv/A"),
            ("http://h/a", "https://h/a"),
            ("ssh://x@h/a", "ssh://y@h/a"),
            ("https://h/a", "https://h/a/b"),
            ("/srv/a.git.git", "/srv/a"),
        ];
        for (one, other) in cases {
            assert_ne!(normal(one), normal(other), "{one} {other}");
        }
    }
}
