//! The tree of an expression, and how it is written down again.
//!
//! Not here: what it means.

use super::value::Value;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// A part of an expression and the byte offset in its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    /// Parts inside each other, itself included.
    pub(crate) depth: usize,
    pub(crate) node: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Literal(Value),
    Name(String),
    Select(Box<Expr>, String),
    /// `has(of.field)`
    Has(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    /// A function, or a method of the first.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// Two or more.
    And(Vec<Expr>),
    /// Two or more.
    Or(Vec<Expr>),
    Choice(Box<Expr>, Box<Expr>, Box<Expr>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Macro(Box<Macro>),
    /// It is known already that this cannot be evaluated: why. Written as a call of `error`.
    Broken(String),
}

/// `range.kind(name, parts…)`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Macro {
    pub(crate) kind: MacroKind,
    pub(crate) range: Expr,
    pub(crate) name: String,
    /// One, or for `map` with a condition two.
    pub(crate) parts: Vec<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

impl MacroKind {
    pub(crate) const ALL: [Self; 5] = [Self::All, Self::Exists, Self::ExistsOne, Self::Map, Self::Filter];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exists => "exists",
            Self::ExistsOne => "exists_one",
            Self::Map => "map",
            Self::Filter => "filter",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

impl Expr {
    pub(crate) fn new(at: usize, node: Node) -> Self {
        let below = |exprs: &[Self]| exprs.iter().map(|e| e.depth).max().unwrap_or(0);
        let depth = match &node {
            Node::Literal(_) | Node::Name(_) | Node::Broken(_) => 0,
            Node::Select(of, _) | Node::Has(of, _) | Node::Not(of) | Node::Negative(of) => of.depth,
            Node::Index(a, b) | Node::Binary(_, a, b) => a.depth.max(b.depth),
            Node::Call(of, _, args) => of.as_ref().map_or(0, |of| of.depth).max(below(args)),
            Node::And(parts) | Node::Or(parts) | Node::List(parts) => below(parts),
            Node::Choice(a, b, c) => a.depth.max(b.depth).max(c.depth),
            Node::Map(pairs) => pairs.iter().map(|(k, v)| k.depth.max(v.depth)).max().unwrap_or(0),
            Node::Macro(of) => of.range.depth.max(below(&of.parts)),
        };
        Self {
            at,
            depth: depth + 1,
            node,
        }
    }

    /// The parts directly below.
    pub(crate) fn parts(&self) -> Vec<&Self> {
        match &self.node {
            Node::Literal(_) | Node::Name(_) | Node::Broken(_) => Vec::new(),
            Node::Select(of, _) | Node::Has(of, _) | Node::Not(of) | Node::Negative(of) => vec![of],
            Node::Index(a, b) | Node::Binary(_, a, b) => vec![a, b],
            Node::Call(of, _, args) => of.iter().map(|of| &**of).chain(args).collect(),
            Node::And(parts) | Node::Or(parts) | Node::List(parts) => parts.iter().collect(),
            Node::Choice(a, b, c) => vec![a, b, c],
            Node::Map(pairs) => pairs.iter().flat_map(|(k, v)| [k, v]).collect(),
            Node::Macro(of) => std::iter::once(&of.range).chain(&of.parts).collect(),
        }
    }
}

/// Reads as the same tree again.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Literal(value) => write!(f, "{}", Written(value)),
            Node::Name(name) => f.write_str(name),
            Node::Select(of, field) => write!(f, "{}.{field}", Held(of)),
            Node::Has(of, field) => write!(f, "has({}.{field})", Held(of)),
            Node::Index(of, key) => write!(f, "{}[{key}]", Held(of)),
            Node::Call(None, name, args) => write!(f, "{name}({})", Listed(args)),
            Node::Call(Some(of), name, args) => write!(f, "{}.{name}({})", Held(of), Listed(args)),
            Node::Not(of) => write!(f, "!{of}"),
            Node::Negative(of) => write!(f, "-{of}"),
            Node::Binary(operator, a, b) => write!(f, "({a} {} {b})", operator.sign()),
            Node::And(parts) => joined(f, parts, " && "),
            Node::Or(parts) => joined(f, parts, " || "),
            Node::Choice(test, yes, no) => write!(f, "({test} ? {yes} : {no})"),
            Node::List(parts) => write!(f, "[{}]", Listed(parts)),
            Node::Map(pairs) => {
                f.write_char('{')?;
                for (n, (key, value)) in pairs.iter().enumerate() {
                    let comma = if n > 0 { ", " } else { "" };
                    write!(f, "{comma}{key}: {value}")?;
                }
                f.write_char('}')
            }
            Node::Macro(of) => {
                let (range, kind) = (Held(&of.range), of.kind.name());
                write!(f, "{range}.{kind}({}, {})", of.name, Listed(&of.parts))
            }
            Node::Broken(why) => write!(f, "error({})", Quoted(why)),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Expr], sign: &str) -> fmt::Result {
    for (n, part) in parts.iter().enumerate() {
        write!(f, "{}{part}", if n > 0 { sign } else { "(" })?;
    }
    f.write_char(')')
}

/// What a field, an index or a method is taken of: it binds tighter than a sign before it, and a number
/// takes a dot for its own.
struct Held<'e>(&'e Expr);

impl fmt::Display for Held<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.node {
            Node::Literal(Value::Int(_) | Value::Double(_)) | Node::Not(_) | Node::Negative(_) => {
                write!(f, "({})", self.0)
            }
            _ => write!(f, "{}", self.0),
        }
    }
}

struct Listed<'e>(&'e [Expr]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, expr) in self.0.iter().enumerate() {
            write!(f, "{}{expr}", if n > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// A text in quotes, on one line.
pub(crate) struct Quoted<'t>(pub(crate) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('\'')?;
        for c in self.0.chars() {
            match c {
                '\'' => f.write_str("\\'")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('\'')
    }
}

/// A value as it is written in an expression.
pub(crate) struct Written<'v>(pub(crate) &'v Value);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Int(number) if *number < 0 => write!(f, "({number})"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Double(number) if *number < 0.0 => write!(f, "({number:?})"),
            Value::Double(number) => write!(f, "{number:?}"),
            Value::Text(text) => write!(f, "{}", Quoted(text)),
            Value::List(items) => {
                f.write_char('[')?;
                for (n, item) in items.iter().enumerate() {
                    write!(f, "{}{}", if n > 0 { ", " } else { "" }, Written(item))?;
                }
                f.write_char(']')
            }
            Value::Map(map) => entries(f, map),
            Value::Loose(loose) => entries(f, &loose.map),
            Value::Unknown => f.write_str("unknown"),
        }
    }
}

fn entries(f: &mut fmt::Formatter<'_>, map: &BTreeMap<String, Value>) -> fmt::Result {
    f.write_char('{')?;
    for (n, (key, value)) in map.iter().enumerate() {
        write!(
            f,
            "{}{}: {}",
            if n > 0 { ", " } else { "" },
            Quoted(key),
            Written(value)
        )?;
    }
    f.write_char('}')
}
