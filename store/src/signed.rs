//! Signed URLs of blobs that a server of ours serves: what is signed, and how it is checked.
//!
//! A URL is `<base>/blobs/<name>?expires=<Unix seconds>[&length=…&sha256=…]&signature=…`; the
//! signature is HMAC-SHA256 over the method and all of that, under a key that lies with the blobs,
//! so every server that shares the folder takes the URLs of the others. Pure: the time is given.
//! Not here: where the key comes from ([`crate::folder`]), the route (`api`), S3's own URLs.

use crate::blob::{BlobError, BlobName, Digest, PutTerms, SIGNED_MAX, SignedUrl};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::fmt;
use std::time::Duration;

/// What the path of every signed URL begins with; the blob's name follows.
pub const PATH: &str = "/blobs/";

/// Begins every signed text, so that no other use of the key can make one.
const PURPOSE: &str = "buildflow blob url 1";

/// The longest query that is looked at, bytes; ours have less than half.
const QUERY_MAX: usize = 512;

/// What a signed URL allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To read the blob.
    Get,
    /// To store just these bytes.
    Put(PutTerms),
}

impl Right {
    /// The method of the request.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put(_) => "PUT",
        }
    }
}

/// Why a URL gives no right. Tells a forger nothing that is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not of the form of a signed URL.
    #[error("this is not a signed URL: {0}")]
    Malformed(&'static str),
    /// It was not signed with this key, or something in it was changed.
    #[error("the signature does not fit this method, name and query; ask for a new URL")]
    WrongSignature,
    /// It was right once.
    #[error("the URL has expired; ask for a new one")]
    Expired,
}

/// Signs and checks URLs. Cheap to clone.
#[derive(Clone)]
pub struct OwnUrls {
    key: [u8; 32],
    base: Option<String>,
}

impl fmt::Debug for OwnUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnUrls")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl OwnUrls {
    /// With a key of random bytes; URLs can be checked, and signed once a base is known.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key, base: None }
    }

    /// Where clients reach the servers that serve the blobs, e.g. `https://ci.example:8080`.
    ///
    /// # Errors
    /// [`BlobError::Setting`] for what is no such address.
    pub fn with_base(mut self, base: &str) -> Result<Self, BlobError> {
        let address = base
            .strip_prefix("https://")
            .or_else(|| base.strip_prefix("http://"))
            .map(|rest| rest.trim_end_matches('/'))
            .filter(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !"?#\"<>\\".contains(c)));
        if address.is_none() {
            let shown: String = base.chars().take(80).collect();
            return Err(BlobError::Setting(format!(
                "blobs are served under a URL that begins with http:// or https:// and has no query, not `{shown}`; \
                 mend the server's `url`"
            )));
        }
        self.base = Some(base.trim_end_matches('/').to_owned());
        Ok(self)
    }

    /// A request with this right on `name`, from `now` (since 1970) on.
    ///
    /// # Errors
    /// [`BlobError::NotSigned`] without a base, and for a validity below one second or above [`SIGNED_MAX`].
    pub fn sign(
        &self,
        name: &BlobName,
        right: Right,
        valid_for: Duration,
        now: Duration,
    ) -> Result<SignedUrl, BlobError> {
        check_validity(name, valid_for)?;
        let Some(base) = &self.base else {
            return Err(BlobError::NotSigned {
                name: name.as_str().to_owned(),
                reason: "the address at which clients reach this server is not known; set the server's `url`".into(),
            });
        };
        // Whole seconds, in favour of the client.
        let expires = now.saturating_add(valid_for).as_millis().div_ceil(1_000);
        let expires = u64::try_from(expires).unwrap_or(u64::MAX);
        let signature = hex(&self.mac(name, right, expires).finalize().into_bytes());
        let (terms, headers) = match right {
            Right::Get => (String::new(), Vec::new()),
            Right::Put(PutTerms { length, sha256 }) => (
                format!("&length={length}&sha256={sha256}"),
                vec![("content-length".to_owned(), length.to_string())],
            ),
        };
        Ok(SignedUrl {
            method: right.method(),
            url: format!(
                "{base}{PATH}{}?expires={expires}{terms}&signature={signature}",
                name.as_str()
            ),
            headers,
        })
    }

    /// The right that a request to `name` with this query has at `now` (since 1970). A `HEAD` is a `GET`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, method: &str, name: &BlobName, query: &str, now: Duration) -> Result<Right, Refused> {
        let asked = Asked::parse(query)?;
        let right = match (method, asked.length, asked.sha256) {
            ("GET" | "HEAD", None, None) => Right::Get,
            ("PUT", Some(length), Some(sha256)) => Right::Put(PutTerms { length, sha256 }),
            ("GET" | "HEAD" | "PUT", _, _) => return Err(Refused::WrongSignature),
            _ => return Err(Refused::Malformed("blobs are read by GET and stored by PUT")),
        };
        self.mac(name, right, asked.expires)
            .verify_slice(&asked.signature.0)
            .map_err(|_| Refused::WrongSignature)?;
        if now.as_secs() >= asked.expires {
            return Err(Refused::Expired);
        }
        Ok(right)
    }

    fn mac(&self, name: &BlobName, right: Right, expires: u64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        // No field can hold a line's end, so no two requests have the same text.
        let (method, name) = (right.method(), name.as_str());
        mac.update(format!("{PURPOSE}\n{method}\n{name}\n{expires}\n").as_bytes());
        if let Right::Put(PutTerms { length, sha256 }) = right {
            mac.update(format!("{length}\n{sha256}\n").as_bytes());
        }
        mac
    }
}

/// Refuses what no store signs.
///
/// # Errors
/// [`BlobError::NotSigned`].
pub fn check_validity(name: &BlobName, valid_for: Duration) -> Result<(), BlobError> {
    if (Duration::from_secs(1)..=SIGNED_MAX).contains(&valid_for) {
        return Ok(());
    }
    Err(BlobError::NotSigned {
        name: name.as_str().to_owned(),
        reason: format!(
            "it would be valid for {} ms; allowed are 1 s to {} s",
            valid_for.as_millis(),
            SIGNED_MAX.as_secs()
        ),
    })
}

/// A query, taken apart.
struct Asked {
    expires: u64,
    length: Option<u64>,
    sha256: Option<Digest>,
    signature: Digest,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Refused> {
        if query.len() > QUERY_MAX {
            return Err(Refused::Malformed("its query is too long"));
        }
        let (mut expires, mut length, mut sha256, mut signature) = (None, None, None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "expires" => once(&mut expires, value.parse().ok())?,
                "length" => once(&mut length, value.parse().ok())?,
                "sha256" => once(&mut sha256, value.parse().ok())?,
                "signature" => once(&mut signature, value.parse().ok())?,
                _ => return Err(Refused::Malformed("its query has a strange parameter")),
            }
        }
        Ok(Self {
            expires: expires.ok_or(Refused::Malformed("`expires` is missing"))?,
            length,
            sha256,
            signature: signature.ok_or(Refused::Malformed("`signature` is missing"))?,
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Refused> {
    if slot.is_some() {
        return Err(Refused::Malformed("a parameter is there twice"));
    }
    *slot = Some(value.ok_or(Refused::Malformed("a parameter cannot be read"))?);
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn urls() -> OwnUrls {
        OwnUrls::new([7; 32]).with_base("https://ci.example:8080/").unwrap()
    }

    fn name(text: &str) -> BlobName {
        BlobName::new(text).unwrap()
    }

    fn put() -> Right {
        Right::Put(PutTerms {
            length: 5,
            sha256: Digest::of(b"hello"),
        })
    }

    fn query(signed: &SignedUrl) -> &str {
        signed.url.split_once('?').unwrap().1
    }

    #[test]
    fn a_url_says_where_and_carries_its_terms() {
        let get = urls().sign(&name("a/b"), Right::Get, HOUR, NOW).unwrap();
        assert!(
            get.url
                .starts_with("https://ci.example:8080/blobs/a/b?expires=1003600&signature="),
            "{}",
            get.url
        );
        let put = urls().sign(&name("a/b"), put(), HOUR, NOW).unwrap();
        assert_eq!(put.headers, [("content-length".to_owned(), "5".to_owned())]);
        assert!(!format!("{put:?} {:?}", urls()).contains("signature"));
        assert!(!format!("{:?}", urls()).contains('7'), "the key is not shown");
    }

    #[test]
    fn only_the_signed_request_has_the_right() {
        let get = urls().sign(&name("a"), Right::Get, HOUR, NOW).unwrap();
        let put_url = urls().sign(&name("a"), put(), HOUR, NOW).unwrap();
        let (get, put_query) = (query(&get).to_owned(), query(&put_url).to_owned());
        let later = NOW + HOUR;
        let other_key = OwnUrls::new([8; 32]);
        let twice = format!("{get}&expires=9");
        let cases = [
            ("GET", "a", get.as_str(), NOW, Ok(Right::Get)),
            ("HEAD", "a", &get, NOW, Ok(Right::Get)),
            ("PUT", "a", &put_query, NOW, Ok(put())),
            ("GET", "a", &get, later - Duration::from_millis(1), Ok(Right::Get)),
            ("GET", "a", &get, later, Err(Refused::Expired)),
            ("PUT", "a", &put_query, later, Err(Refused::Expired)),
            ("GET", "b", &get, NOW, Err(Refused::WrongSignature)),
            ("PUT", "a", &get, NOW, Err(Refused::WrongSignature)),
            ("GET", "a", &put_query, NOW, Err(Refused::WrongSignature)),
            (
                "DELETE",
                "a",
                &get,
                NOW,
                Err(Refused::Malformed("blobs are read by GET and stored by PUT")),
            ),
            (
                "GET",
                "a",
                &twice,
                NOW,
                Err(Refused::Malformed("a parameter is there twice")),
            ),
            ("GET", "a", "", NOW, Err(Refused::Malformed("`expires` is missing"))),
        ];
        for (method, blob, query, now, expected) in cases {
            assert_eq!(
                urls().check(method, &name(blob), query, now),
                expected,
                "{method} {blob} {query}"
            );
        }
        assert_eq!(
            other_key.check("GET", &name("a"), &get, NOW),
            Err(Refused::WrongSignature)
        );
    }

    /// Every single character of the query counts.
    #[test]
    fn a_changed_query_has_no_right() {
        let signed = urls().sign(&name("a"), put(), HOUR, NOW).unwrap();
        let query = query(&signed);
        for at in 0..query.len() {
            let mut changed = query.as_bytes().to_vec();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(urls().check("PUT", &name("a"), &changed, NOW).is_err(), "{changed}");
        }
        assert!(urls().check("PUT", &name("a"), &"x".repeat(100_000), NOW).is_err());
    }

    #[test]
    fn what_cannot_be_signed_says_why() {
        let cases = [
            (OwnUrls::new([0; 32]), HOUR, "set the server's `url`"),
            (urls(), Duration::ZERO, "allowed are 1 s"),
            (urls(), SIGNED_MAX + HOUR, "allowed are 1 s"),
        ];
        for (urls, valid_for, expected) in cases {
            let refused = urls
                .sign(&name("a"), Right::Get, valid_for, NOW)
                .unwrap_err()
                .to_string();
            assert!(refused.contains(expected), "{refused}");
        }
        for base in [
            "",
            "ci.example",
            "ftp://x",
            "https://",
            "http:///",
            "http://x/?a=b",
            "http://x y",
        ] {
            assert!(OwnUrls::new([0; 32]).with_base(base).is_err(), "{base}");
        }
    }
}
