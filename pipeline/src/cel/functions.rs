//! The functions that every expression has: each is a function of its arguments alone.
//!
//! Not here: those that look at the run ([`crate::scope`]), and the macros.

use super::value::Value;
use regex::RegexBuilder;
use std::sync::Arc;

/// Bytes of a compiled pattern of `matches`. The engine needs time in proportion to pattern and
/// text, whatever both are; this bounds the pattern's part.
const PATTERN_MAX: usize = 64 * 1024;

/// A function of every expression.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// How it is written.
    pub(crate) usage: &'static str,
    pub(crate) doc: &'static str,
}

const fn function(name: &'static str, usage: &'static str, doc: &'static str) -> Function {
    Function { name, usage, doc }
}

/// All of them, in the order of the documentation.
pub(crate) const FUNCTIONS: &[Function] = &[
    function(
        "size",
        "size(x)",
        "Characters of a text, elements of a list, entries of a map. Also `x.size()`.",
    ),
    function("contains", "text.contains(part)", "Whether the text holds the part."),
    function("startsWith", "text.startsWith(part)", "Whether the text begins so."),
    function("endsWith", "text.endsWith(part)", "Whether the text ends so."),
    function(
        "matches",
        "text.matches(pattern)",
        "Whether the regular expression (RE2's syntax) is found in the text. Also `matches(text, pattern)`.",
    ),
    function("lowerAscii", "text.lowerAscii()", "With small letters for `A` to `Z`."),
    function(
        "upperAscii",
        "text.upperAscii()",
        "With capital letters for `a` to `z`.",
    ),
    function("trim", "text.trim()", "Without white space at both ends."),
    function(
        "replace",
        "text.replace(old, new)",
        "With every `old` replaced by `new`.",
    ),
    function(
        "split",
        "text.split(separator)",
        "The parts between the separators, as a list.",
    ),
    function(
        "join",
        "list.join(separator)",
        "The texts of the list in one, with the separator between them.",
    ),
    function("string", "string(x)", "A number, a boolean or a text as a text."),
    function("int", "int(x)", "A text or a fraction as a whole number."),
    function("double", "double(x)", "A text or a whole number as a fraction."),
    function("bool", "bool(x)", "The texts `true` and `false` as a boolean."),
];

/// Calls a function, or a method of `of`. What it makes has at most `room` bytes.
pub(super) fn call(name: &str, of: Option<&Value>, args: &[Value], room: usize) -> Result<Value, String> {
    let all: Vec<&Value> = of.into_iter().chain(args).collect();
    match (name, &*all) {
        ("size", [of]) => size(of),
        ("contains", [Value::Text(of), Value::Text(part)]) => Ok(Value::Bool(of.contains(&**part))),
        ("startsWith", [Value::Text(of), Value::Text(part)]) => Ok(Value::Bool(of.starts_with(&**part))),
        ("endsWith", [Value::Text(of), Value::Text(part)]) => Ok(Value::Bool(of.ends_with(&**part))),
        ("matches", [Value::Text(of), Value::Text(pattern)]) => matches(of, pattern),
        ("lowerAscii", [Value::Text(of)]) => Ok(Value::text(&of.to_ascii_lowercase())),
        ("upperAscii", [Value::Text(of)]) => Ok(Value::text(&of.to_ascii_uppercase())),
        ("trim", [Value::Text(of)]) => Ok(Value::text(of.trim())),
        ("replace", [Value::Text(of), Value::Text(old), Value::Text(new)]) => {
            let found = if old.is_empty() {
                of.chars().count() + 1
            } else {
                of.matches(&**old).count()
            };
            fits(of.len().saturating_add(found.saturating_mul(new.len())), room)?;
            Ok(Value::text(&of.replace(&**old, new)))
        }
        ("split", [Value::Text(of), Value::Text(separator)]) if !separator.is_empty() => {
            fits(of.matches(&**separator).count().saturating_mul(48), room)?;
            Ok(Value::texts(of.split(&**separator)))
        }
        ("split", [Value::Text(_), Value::Text(_)]) => Err("`split` needs a separator that is not empty".to_owned()),
        ("join", [Value::List(items)]) => join(items, "", room),
        ("join", [Value::List(items), Value::Text(separator)]) => join(items, separator, room),
        ("string", [of]) => of
            .spliced()
            .filter(|_| **of != Value::Null)
            .map(Value::Text)
            .ok_or_else(|| format!("`string` does not work on {}", of.kind())),
        ("int", [of]) => int(of),
        ("double", [of]) => double(of),
        ("bool", [Value::Bool(flag)]) => Ok(Value::Bool(*flag)),
        ("bool", [Value::Text(text)]) => match &**text {
            "true" | "True" | "TRUE" | "1" | "t" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" | "0" | "f" => Ok(Value::Bool(false)),
            _ => Err("`bool` needs the text `true` or `false`".to_owned()),
        },
        _ => Err(refused(name, &all)),
    }
}

fn refused(name: &str, all: &[&Value]) -> String {
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        return format!("there is no function `{}`", crate::syntax::shown(name));
    };
    let kinds: Vec<&str> = all.iter().map(|value| value.kind()).collect();
    match kinds.as_slice() {
        [] => format!("`{name}` is written `{}`", function.usage),
        kinds => format!("`{}` does not work on {}", function.usage, kinds.join(", ")),
    }
}

fn fits(bytes: usize, room: usize) -> Result<(), String> {
    if bytes > room {
        return Err(format!("its values take more than {} bytes", super::MADE_MAX));
    }
    Ok(())
}

fn size(of: &Value) -> Result<Value, String> {
    let size = match of {
        Value::Text(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        Value::Loose(loose) => loose.map.len(),
        other => return Err(format!("`size` does not work on {}", other.kind())),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn matches(of: &str, pattern: &str) -> Result<Value, String> {
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_MAX)
        .dfa_size_limit(PATTERN_MAX)
        .nest_limit(32)
        .build();
    match built {
        Ok(regex) => Ok(Value::Bool(regex.is_match(of))),
        Err(regex::Error::CompiledTooBig(_)) => Err("the pattern of `matches` is too large".to_owned()),
        Err(_) => Err(format!(
            "`{}` is not a regular expression",
            crate::syntax::shown(pattern)
        )),
    }
}

fn join(items: &[Value], separator: &str, room: usize) -> Result<Value, String> {
    let mut texts = Vec::with_capacity(items.len());
    let mut bytes = 0_usize;
    for item in items {
        let Value::Text(text) = item else {
            return Err(format!("`join` needs a list of texts; one element is {}", item.kind()));
        };
        bytes = bytes.saturating_add(text.len() + separator.len());
        fits(bytes, room)?;
        texts.push(&**text);
    }
    Ok(Value::Text(Arc::from(texts.join(separator))))
}

/// One more than the greatest whole number.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

fn int(of: &Value) -> Result<Value, String> {
    let number = match of {
        Value::Int(number) => Some(*number),
        Value::Double(number) => {
            let whole = number.trunc();
            let fits = (-TWO_TO_63..TWO_TO_63).contains(&whole);
            fits.then_some(whole as i64)
        }
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    number
        .map(Value::Int)
        .ok_or_else(|| format!("`int` cannot make a number of {}", told(of)))
}

fn double(of: &Value) -> Result<Value, String> {
    let number = match of {
        Value::Int(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        Value::Text(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    };
    number
        .map(Value::Double)
        .ok_or_else(|| format!("`double` cannot make a fraction of {}", told(of)))
}

fn told(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{}'", crate::syntax::shown(text)),
        other => other.kind().to_owned(),
    }
}
