//! The words of an expression.
//!
//! Not here: how they fit together ([`super::parse`]).

use super::{EXPRESSION_MAX, Wrong};
use crate::syntax::shown;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Int(i64),
    /// The magnitude of the least number, which is legal only behind `-`.
    IntMin,
    Double(f64),
    Text(String),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// Longer ones first.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// All tokens with their byte offsets; the last one is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Wrong> {
    if text.len() > EXPRESSION_MAX {
        return Err(Wrong::new(
            0,
            format!("the expression has {} bytes; the most is {EXPRESSION_MAX}", text.len()),
        )
        .help("let a script decide"));
    }
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) = one(text, at, first)?;
        out.push((at, token));
        at += length;
    }
    out.push((text.len(), Token::End));
    Ok(out)
}

fn one(text: &str, at: usize, first: char) -> Result<(Token, usize), Wrong> {
    let rest = &text[at..];
    if first.is_ascii_alphabetic() || first == '_' {
        let raw = matches!(first, 'r' | 'R') && matches!(rest.as_bytes().get(1), Some(b'"' | b'\''));
        if raw {
            let (value, length) = quoted(rest, 1, at, Escapes::Kept)?;
            return Ok((Token::Text(value), length));
        }
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        return Ok((Token::Name(rest[..length].to_owned()), length));
    }
    if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        return number(rest, at);
    }
    if matches!(first, '"' | '\'') {
        let (value, length) = quoted(rest, 0, at, Escapes::Read)?;
        return Ok((Token::Text(value), length));
    }
    if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        return Ok((Token::Sign(sign), sign.len()));
    }
    let wrong = Wrong::new(
        at,
        format!("`{}` has no meaning in an expression", shown(&first.to_string())),
    );
    Err(match first {
        '&' => wrong.help("write `&&`"),
        '|' => wrong.help("write `||`"),
        '=' => wrong.help("write `==`"),
        '$' => wrong.help("inside of an expression a name stands alone: `git.branch`"),
        '`' | '“' | '”' | '‘' | '’' => wrong.help("texts are quoted with `'` or `\"`"),
        _ => wrong,
    })
}

fn number(rest: &str, at: usize) -> Result<(Token, usize), Wrong> {
    let wrong = |length: usize| Wrong::new(at, format!("`{}` is not a number", shown(&rest[..length])));
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let length = hex.find(|c: char| !word(c)).unwrap_or(hex.len());
        let number = i64::from_str_radix(&hex[..length], 16).map_err(|_| wrong(length + 2))?;
        return Ok((Token::Int(number), length + 2));
    }
    let mut length = 0;
    let mut fraction = false;
    let bytes = rest.as_bytes();
    while let Some(byte) = bytes.get(length) {
        match byte {
            b'.' if bytes.get(length + 1).is_some_and(u8::is_ascii_digit) && !fraction => fraction = true,
            b'e' | b'E' => {
                fraction = true;
                if matches!(bytes.get(length + 1), Some(b'+' | b'-')) {
                    length += 1;
                }
            }
            b if b.is_ascii_alphanumeric() || *b == b'_' => {}
            _ => break,
        }
        length += 1;
    }
    let text = &rest[..length];
    if fraction {
        let number: f64 = text.parse().map_err(|_| wrong(length))?;
        return if number.is_finite() {
            Ok((Token::Double(number), length))
        } else {
            Err(wrong(length))
        };
    }
    if text == "9223372036854775808" {
        return Ok((Token::IntMin, length));
    }
    text.parse()
        .map(|number| (Token::Int(number), length))
        .map_err(|_| wrong(length).help("numbers are whole, or fractions such as `0.5`; versions are texts: `'1.90'`"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escapes {
    Read,
    Kept,
}

/// A text in quotes that begin at `skip`; its value and its length with the quotes.
fn quoted(rest: &str, skip: usize, at: usize, escapes: Escapes) -> Result<(String, usize), Wrong> {
    let quote = &rest[skip..=skip];
    let triple = quote.repeat(3);
    let quote = if rest[skip..].starts_with(&triple) {
        &*triple
    } else {
        quote
    };
    let start = skip + quote.len();
    let mut value = String::new();
    let mut next = start;
    loop {
        let left = &rest[next..];
        if left.starts_with(quote) {
            return Ok((value, next + quote.len()));
        }
        let Some(c) = left.chars().next() else {
            return Err(Wrong::new(at, "a text is not closed").help("add the closing quote"));
        };
        if c == '\\' && escapes == Escapes::Read {
            let (c, length) = escape(&left[1..], at + next)?;
            value.push(c);
            next += 1 + length;
        } else {
            value.push(c);
            next += c.len_utf8();
        }
    }
}

/// What stands behind a backslash, and its length.
fn escape(rest: &str, at: usize) -> Result<(char, usize), Wrong> {
    let wrong = || {
        Wrong::new(at, "this escape does not exist")
            .help("write `\\\\` for a backslash, or `r'…'` for a text without escapes")
    };
    let code = |digits: usize| {
        let text = rest.get(1..=digits).ok_or_else(wrong)?;
        let code = u32::from_str_radix(text, 16).map_err(|_| wrong())?;
        let c = char::from_u32(code).filter(|c| *c != '\0').ok_or_else(wrong)?;
        Ok((c, digits + 1))
    };
    let plain = match rest.chars().next() {
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some(c @ ('\\' | '\'' | '"' | '`' | '?')) => c,
        Some('x' | 'X') => return code(2),
        Some('u') => return code(4),
        Some('U') => return code(8),
        _ => return Err(wrong()),
    };
    Ok((plain, 1))
}
