//! Texts with expressions in them: `app-${{ git.sha }}` as pieces.
//!
//! Not here: what an expression means ([`crate::cel`]).

use crate::cel::Wrong;

/// What an expression begins with.
pub(crate) const OPEN: &str = "${{";

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    Text(&'t str),
    /// What stands between `${{` and `}}`, and the byte offset where that begins.
    Expression(usize, &'t str),
}

/// The pieces of a text, in order; one `Text` when it holds no expression.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut pieces = Vec::new();
    let mut next = 0;
    while let Some(found) = text[next..].find(OPEN) {
        let open = next + found;
        if open > next {
            pieces.push(Piece::Text(&text[next..open]));
        }
        let start = open + OPEN.len();
        let Some(length) = inner_length(&text[start..]) else {
            return Err(Wrong::new(open, "`${{` is not closed").help("add `}}`"));
        };
        pieces.push(Piece::Expression(start, &text[start..start + length]));
        next = start + length + 2;
    }
    if next < text.len() || pieces.is_empty() {
        pieces.push(Piece::Text(&text[next..]));
    }
    Ok(pieces)
}

/// The one expression that a text consists of, if it does, without white space around it.
pub(crate) fn only(text: &str) -> Option<(usize, &str)> {
    let trimmed = text.trim();
    let before = text.len() - text.trim_start().len();
    match pieces(trimmed).ok()?.as_slice() {
        [Piece::Expression(at, inner)] => Some((before + at, inner)),
        _ => None,
    }
}

/// Bytes up to the `}}` that closes the expression: not one in a text or a map.
fn inner_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' => open += 1,
            b'}' if open > 0 => open -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            b'\'' | b'"' => at = text_end(bytes, at)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the quoted text that begins at `at` has its closing quote.
fn text_end(bytes: &[u8], at: usize) -> Option<usize> {
    let quote = bytes[at];
    let raw = at > 0 && matches!(bytes[at - 1], b'r' | b'R');
    let mut next = at + 1;
    while let Some(byte) = bytes.get(next) {
        if *byte == quote {
            return Some(next);
        }
        next += if *byte == b'\\' && !raw { 2 } else { 1 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_its_expressions() {
        use Piece::{Expression, Text};
        let cases: [(&str, &[Piece<'_>]); 9] = [
            ("", &[Text("")]),
            ("plain $x {{ y }}", &[Text("plain $x {{ y }}")]),
            ("${{ a }}", &[Expression(3, " a ")]),
            (
                "x-${{a}}-${{ b }}",
                &[Text("x-"), Expression(5, "a"), Text("-"), Expression(12, " b ")],
            ),
            ("${{ '}}' }}!", &[Expression(3, " '}}' "), Text("!")]),
            ("${{ {'a': {'b': 1}}}}", &[Expression(3, " {'a': {'b': 1}}")]),
            (r"${{ 'a\'}}' }}", &[Expression(3, r" 'a\'}}' ")]),
            (r"${{ r'\' }}", &[Expression(3, r" r'\' ")]),
            ("${{ \"it's\" }}", &[Expression(3, " \"it's\" ")]),
        ];
        for (text, expect) in cases {
            assert_eq!(pieces(text).expect("closed"), expect, "{text}");
        }
        for text in ["${{", "${{ a }", "x ${{ 'a }}", "${{ {} }"] {
            assert!(pieces(text).is_err(), "{text}");
        }
        assert_eq!(only("  ${{ a }} "), Some((5, " a ")));
        assert_eq!(only("${{ a }}b"), None);
        assert_eq!(only("a"), None);
    }
}
