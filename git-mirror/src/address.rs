//! Which repository addresses are legal, and how they are shown without their credentials.

/// The longest address: far beyond any real one, short enough to quote in an error.
const ADDRESS_MAX: usize = 2_048;

/// A repository address that git may be given.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    url: String,
    shown: String,
    scheme: Scheme,
}

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    File,
    Http,
    Https,
    Ssh,
}

/// Why an address was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is not a repository address that can be used: {why}")]
pub struct AddressError {
    /// As it was given, shortened, without credentials.
    pub address: String,
    /// The rule that it breaks and what to write instead.
    pub why: &'static str,
}

const KINDS: &str = "write file:///path, http://…, https://…, ssh://… or user@host:path";

impl Address {
    /// Reads an address; `allow_file` says whether this machine's own disk may be named.
    ///
    /// # Errors
    /// [`AddressError`] with the rule that it breaks.
    pub fn parse(text: &str, allow_file: bool) -> Result<Self, AddressError> {
        let refuse = |why| {
            Err(AddressError {
                address: shorten(&without_credentials(text)),
                why,
            })
        };
        if text.is_empty() {
            return refuse("it is empty; write file:///path, http://…, https://…, ssh://… or user@host:path");
        }
        if text.len() > ADDRESS_MAX {
            return refuse("it is longer than 2048 bytes");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return refuse("it contains spaces or control characters; percent-encode them in a URL");
        }
        if text.starts_with('-') {
            return refuse("it begins with `-`, as an option does");
        }
        let made = |scheme, url: String| {
            let shown = without_credentials(&url);
            Ok(Self { url, shown, scheme })
        };
        if text.starts_with('/') || text.starts_with("file://") {
            let path = text.strip_prefix("file://").unwrap_or(text);
            return match (allow_file, path.starts_with('/')) {
                (false, _) => refuse("addresses on this machine's own disk are not allowed here; use http(s) or ssh"),
                (true, false) => refuse("a file address has three slashes: file:///absolute/path"),
                (true, true) => made(Scheme::File, format!("file://{path}")),
            };
        }
        match text.split_once("://") {
            Some(("http", rest)) if host_is_legal(rest) => made(Scheme::Http, text.to_owned()),
            Some(("https", rest)) if host_is_legal(rest) => made(Scheme::Https, text.to_owned()),
            Some(("ssh", rest)) if host_is_legal(rest) => made(Scheme::Ssh, text.to_owned()),
            Some(("http" | "https" | "ssh", _)) => refuse("its host or user is missing or begins with `-`"),
            Some(_) => refuse(KINDS),
            None => match scp_like(text) {
                true => made(Scheme::Ssh, text.to_owned()),
                false => refuse(KINDS),
            },
        }
    }

    /// What git is given. May hold credentials: never shown, never an argument.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// For people, logs and configuration that leaves our hands: without user and password.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Takes the address's credentials out of a text that git wrote.
    pub(crate) fn redact(&self, text: &str) -> String {
        let text = text.replace(&self.url, &self.shown);
        let Some((login, _)) = self.url.split_once("://").and_then(|(_, rest)| {
            let authority = rest.split('/').next()?;
            authority.rsplit_once('@')
        }) else {
            return text;
        };
        match (self.scheme, login.split_once(':')) {
            (_, Some((_, password))) if !password.is_empty() => text.replace(password, "***"),
            (Scheme::Http | Scheme::Https, None) => text.replace(login, "***"),
            _ => text,
        }
    }
}

/// `[user[:password]@]host[:port]/…` with nothing that ssh or curl would read as an option.
fn host_is_legal(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    !host.is_empty() && !host.starts_with(['-', ':']) && !user.starts_with('-')
}

/// `user@host:path`; not `host:path` and not `ext::command`, which git reads as a program to run.
fn scp_like(text: &str) -> bool {
    let Some((login, path)) = text.split_once(':') else {
        return false;
    };
    let Some((user, host)) = login.split_once('@') else {
        return false;
    };
    let plain = |s: &str| {
        !s.is_empty() && !s.starts_with('-') && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    plain(user) && plain(host) && !path.is_empty() && !path.starts_with([':', '-'])
}

/// Removes `user:password@` (and a lone `user@` of http) from a URL.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((login, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    match (scheme, login.split_once(':')) {
        ("ssh", None) => url.to_owned(),
        ("ssh", Some((user, _))) => format!("ssh://{user}@{host}{path}"),
        _ => format!("{scheme}://{host}{path}"),
    }
}

fn shorten(text: &str) -> String {
    const SHOWN_MAX: usize = 200;
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legal_addresses_reach_git_and_are_shown_without_credentials() {
        let cases = [
            ("/srv/git/a.git", "file:///srv/git/a.git", "file:///srv/git/a.git"),
            (
                "file:///srv/a b".trim_end_matches(" b"),
                "file:///srv/a",
                "file:///srv/a",
            ),
            ("https://host/x", "https://host/x", "https://host/x"),
            ("http://host:8080/x", "http://host:8080/x", "http://host:8080/x"),
            ("https://u:p@host/x", "https://u:p@host/x", "https://host/x"),
            ("https://token@host/x@y", "https://token@host/x@y", "https://host/x@y"),
            ("ssh://git@host:22/x", "ssh://git@host:22/x", "ssh://git@host:22/x"),
            ("ssh://git:pw@host/x", "ssh://git:pw@host/x", "ssh://git@host/x"),
            (
                "git@host.example:team/x.git",
                "git@host.example:team/x.git",
                "git@host.example:team/x.git",
            ),
        ];
        for (text, url, shown) in cases {
            let address = Address::parse(text, true).unwrap();
            assert_eq!((address.url(), address.shown()), (url, shown), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        let long = format!("https://host/{}", "x".repeat(ADDRESS_MAX));
        let cases = [
            ("", "it is empty"),
            ("ext::sh -c id", "spaces"),
            ("ext::sh", "write file:///path"),
            ("fd::7", "write file:///path"),
            ("--upload-pack=id", "begins with `-`"),
            ("-oProxyCommand=id", "begins with `-`"),
            ("repo.git", "write file:///path"),
            ("../repo", "write file:///path"),
            ("host:path", "write file:///path"),
            ("-x@host:path", "begins with `-`"),
            ("git@-host:path", "write file:///path"),
            ("git@host:-path", "write file:///path"),
            ("git@host::path", "write file:///path"),
            ("ssh://-oProxyCommand=id/x", "host or user"),
            ("ssh://-o@host/x", "host or user"),
            ("https:///x", "host or user"),
            ("git://host/x", "write file:///path"),
            ("ftp://host/x", "write file:///path"),
            ("file://relative", "three slashes"),
            ("https://host/a\nb", "control characters"),
            (long.as_str(), "longer than"),
        ];
        for (text, why) in cases {
            let error = Address::parse(text, true).unwrap_err();
            assert!(error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn this_machines_disk_is_refused_unless_allowed() {
        for text in ["/srv/git", "file:///srv/git"] {
            assert!(
                Address::parse(text, false)
                    .unwrap_err()
                    .why
                    .contains("not allowed here")
            );
        }
    }

    #[test]
    fn a_refused_address_does_not_show_its_password() {
        let error = Address::parse("ftp://me:s3cret@host/x", true).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
