//! Keys and ranges under the cluster's prefix.
//!
//! Not here: which keys are legal (`store::legal`).

use store::Revision;

/// What every key of ours begins with in etcd.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

/// `[begin, end)` in etcd's words: an end of one zero byte means no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) begin: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    /// The key as etcd has it.
    pub(crate) fn full(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// How many bytes a key has in etcd.
    pub(crate) fn full_len(&self, key: &str) -> usize {
        self.prefix.len() + key.len()
    }

    /// Our key, unless it is not ours: outside of the prefix, or not text.
    pub(crate) fn own(&self, full: &[u8]) -> Option<String> {
        let own = full.strip_prefix(self.prefix.as_bytes())?;
        String::from_utf8(own.to_vec()).ok()
    }

    /// Every key that begins with `prefix`, after the key `after` if one is given.
    pub(crate) fn span(&self, prefix: &str, after: Option<&str>) -> Span {
        let whole = self.full(prefix);
        let end = first_beyond(&whole);
        let begin = match after {
            // The least key after `after` is `after` and a zero byte.
            Some(after) if after >= prefix => [self.full(after), vec![0]].concat(),
            _ if whole.is_empty() => vec![0],
            _ => whole,
        };
        Span { begin, end }
    }
}

/// The least key that is greater than every key with this prefix.
fn first_beyond(prefix: &[u8]) -> Vec<u8> {
    let Some(last) = prefix.iter().rposition(|byte| *byte < 0xff) else {
        return vec![0];
    };
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end
}

/// A revision in etcd's numbers; one that etcd cannot have is greater than all that it has.
pub(crate) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A revision from etcd; a negative one is nonsense and counts as none.
pub(crate) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_exactly_the_prefix() {
        let cases = [
            ("bf/", "run/", None, "bf/run/", "bf/run0"),
            ("bf/", "", None, "bf/", "bf0"),
            ("", "", None, "\0", "\0"),
            ("", "", Some("a"), "a\0", "\0"),
            ("bf/", "run/", Some("run/x"), "bf/run/x\0", "bf/run0"),
            ("bf/", "run/", Some("a"), "bf/run/", "bf/run0"),
            ("", "run/", None, "run/", "run0"),
        ];
        for (own, prefix, after, begin, end) in cases {
            let span = Keys::new(own).span(prefix, after);
            let expected = Span {
                begin: begin.into(),
                end: end.into(),
            };
            assert_eq!(span, expected, "{own:?} {prefix:?} {after:?}");
        }
        assert_eq!(first_beyond(b"a\xff\xff"), b"b");
        assert_eq!(first_beyond(b"\xff"), b"\0");
    }

    #[test]
    fn foreign_keys_are_not_ours() {
        let keys = Keys::new("bf/");
        assert_eq!(keys.own(b"bf/run/1").as_deref(), Some("run/1"));
        assert_eq!(keys.own(b"other/run/1"), None);
        assert_eq!(keys.own(b"bf/\xff"), None);
    }

    #[test]
    fn impossible_revisions_do_no_harm() {
        assert_eq!(number(Revision(u64::MAX)), i64::MAX);
        assert_eq!(revision(-1), Revision(0));
    }
}
