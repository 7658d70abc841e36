//! Whether a line holds what is looked for: plain text, escape sequences passed over (pure).
//!
//! What holds no capital letter is found in capitals too. Not here: reading lines (`excerpt`).

use memchr::memmem::Finder;
use std::borrow::Cow;

/// The longest text that is looked for, bytes.
pub(super) const NEEDLE_MAX: usize = 512;

/// How much of a line is shown, bytes, from somewhat before the match on.
const SHOWN_MAX: usize = 400;

/// How much of that stands before the match.
const BEFORE: usize = 120;

/// What is looked for.
pub(super) struct Needle {
    finder: Finder<'static>,
    is_lower: bool,
}

impl Needle {
    /// `text` is not empty.
    pub(super) fn new(text: &str) -> Self {
        Self {
            finder: Finder::new(text.as_bytes()).into_owned(),
            is_lower: !text.chars().any(char::is_uppercase),
        }
    }

    /// What to show of a line that holds it; `None`: it does not.
    pub(super) fn find(&self, line: &[u8]) -> Option<String> {
        let plain = without_escapes(line);
        let at = if self.is_lower {
            self.finder.find(&plain.to_ascii_lowercase())
        } else {
            self.finder.find(&plain)
        }?;
        Some(around(&plain, at))
    }
}

fn around(line: &[u8], at: usize) -> String {
    let mut from = if line.len() <= SHOWN_MAX {
        0
    } else {
        at.saturating_sub(BEFORE)
    };
    let mut to = line.len().min(from + SHOWN_MAX);
    let continues = |b: &u8| b & 0xC0 == 0x80;
    while line.get(from).is_some_and(continues) {
        from += 1;
    }
    while line.get(to).is_some_and(continues) {
        to -= 1;
    }
    String::from_utf8_lossy(&line[from..to.max(from)]).into_owned()
}

/// A line without ANSI escape sequences and other control characters but tabs.
pub(super) fn without_escapes(line: &[u8]) -> Cow<'_, [u8]> {
    if !line.iter().any(|b| *b < b' ' && *b != b'\t') {
        return Cow::Borrowed(line);
    }
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match *first {
            0x1B => rest = &after[escape_len(after)..],
            b'\t' => plain.push(b'\t'),
            0..b' ' => {}
            other => plain.push(other),
        }
    }
    Cow::Owned(plain)
}

/// How many bytes after ESC belong to its sequence.
fn escape_len(after: &[u8]) -> usize {
    match after.first() {
        // CSI: parameters, then one final byte.
        Some(b'[') => {
            let body = &after[1..];
            let end = body.iter().position(|b| !matches!(b, 0x20..=0x3F));
            1 + end.map_or(body.len(), |e| e + usize::from(matches!(body[e], 0x40..=0x7E)))
        }
        // OSC and its like: text up to BEL or ESC \.
        Some(b']' | b'P' | b'^' | b'_' | b'X') => {
            let body = &after[1..];
            let end = body.iter().position(|b| matches!(b, 0x07 | 0x1B));
            1 + end.map_or(body.len(), |e| {
                let is_terminator = body[e] == 0x1B && body.get(e + 1) == Some(&b'\\');
                e + if body[e] == 0x07 {
                    1
                } else {
                    2 * usize::from(is_terminator)
                }
            })
        }
        Some(b'(' | b')') => after.len().min(2),
        Some(0x20..=0x7E) => 1,
        Some(_) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(needle: &str, line: &str, found: Option<&str>) {
        let got = Needle::new(needle).find(line.as_bytes());
        assert_eq!(got.as_deref(), found, "{needle:?} in {line:?}");
    }

    #[test]
    fn text_is_found_through_colours_and_small_letters_find_capitals() {
        check("error", "an Error here", Some("an Error here"));
        check("Error", "an error here", None);
        check("Error", "an Error here", Some("an Error here"));
        check(
            "error: no",
            "\x1b[1;31merror\x1b[0m: no such file",
            Some("error: no such file"),
        );
        check("here", "\x1b]8;;http://x/here\x1b\\text\x1b]8;;\x07", None);
        check("text", "\x1b]8;;http://x/\x1b\\text\x1b]8;;\x07!", Some("text!"));
        check(".*", "a.*b", Some("a.*b"));
        check("ab", "a\rb\u{1b}", Some("ab"));
        check("größe", "Die größe", Some("Die größe"));
    }

    #[test]
    fn of_a_long_line_the_part_around_the_match_is_shown() {
        let line = format!("{}needle{}", "ü".repeat(1_000), "ü".repeat(1_000));
        let shown = Needle::new("needle").find(line.as_bytes()).unwrap();
        assert!(
            shown.len() <= SHOWN_MAX && shown.contains("needle") && !shown.contains('\u{FFFD}'),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn no_line_breaks_it_and_nothing_but_text_stays(line in proptest::collection::vec(prop_oneof![
            Just(0x1B), Just(b'['), Just(b']'), Just(b'm'), Just(0x07), Just(b'\\'), Just(b'('), any::<u8>()
        ], 0..80)) {
            let plain = without_escapes(&line);
            prop_assert!(plain.iter().all(|b| *b >= b' ' || *b == b'\t'));
            let _ = Needle::new("m").find(&line);
        }
    }
}
