//! The values of expressions.
//!
//! Not here: operators and functions.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value of an expression. Copies are cheap.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A fraction; always finite.
    Double(f64),
    /// Characters.
    Text(Arc<str>),
    /// Values in order.
    List(Arc<Vec<Value>>),
    /// Values by name.
    Map(Arc<BTreeMap<String, Value>>),
    /// Texts by name, in which what is not there is empty.
    Loose(Arc<Loose>),
    /// It will be known later.
    Unknown,
}

/// What [`Value::Loose`] holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Loose {
    /// What is there.
    pub map: BTreeMap<String, Value>,
    /// Others may be there too, which is not known yet.
    pub open: bool,
}

impl Loose {
    /// What stands under this name.
    pub(crate) fn get(&self, name: &str) -> Value {
        match self.map.get(name) {
            Some(value) => value.clone(),
            None if self.open => Value::Unknown,
            None => Value::text(""),
        }
    }

    /// Whether something stands under this name.
    pub(crate) fn has(&self, name: &str) -> Value {
        match self.map.contains_key(name) {
            false if self.open => Value::Unknown,
            there => Value::Bool(there),
        }
    }
}

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(Arc::from(text))
    }

    /// A map of these entries.
    #[must_use]
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(Arc::new(entries.into_iter().map(|(k, v)| (k.into(), v)).collect()))
    }

    /// A list of these texts.
    #[must_use]
    pub fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(Arc::new(texts.into_iter().map(|t| Self::text(t.as_ref())).collect()))
    }

    /// What kind of value it is, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a number",
            Self::Double(_) => "a fraction",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) | Self::Loose(_) => "a map",
            Self::Unknown => "not known yet",
        }
    }

    /// True when it, or something in it, is not known yet.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::List(items) => items.iter().any(Self::is_open),
            Self::Map(map) => map.values().any(Self::is_open),
            Self::Loose(loose) => loose.open || loose.map.values().any(Self::is_open),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Text(_) => false,
        }
    }

    /// Roughly the bytes that it takes by itself.
    pub(crate) fn weight(&self) -> usize {
        const ITEM: usize = 24;
        match self {
            Self::Text(text) => ITEM + text.len(),
            Self::List(items) => ITEM * (1 + items.len()),
            Self::Map(map) => ITEM + map.keys().map(|k| 2 * ITEM + k.len()).sum::<usize>(),
            Self::Loose(loose) => ITEM * (1 + loose.map.len()),
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Unknown => ITEM,
        }
    }

    /// The characters that stand in a text in its place; `None` for lists and maps.
    pub(crate) fn spliced(&self) -> Option<Arc<str>> {
        match self {
            Self::Null => Some(Arc::from("")),
            Self::Text(text) => Some(Arc::clone(text)),
            Self::Bool(flag) => Some(Arc::from(flag.to_string())),
            Self::Int(number) => Some(Arc::from(number.to_string())),
            Self::Double(number) => Some(Arc::from(number.to_string())),
            Self::List(_) | Self::Map(_) | Self::Loose(_) | Self::Unknown => None,
        }
    }

    /// Equality as CEL has it: numbers by their amount, other kinds are unequal.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(_) | Self::Double(_), Self::Int(_) | Self::Double(_)) => {
                self.compared(other) == Some(Ordering::Equal)
            }
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b)),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|other| v.equals(other)))
            }
            (a, b) => a == b,
        }
    }

    /// Which is greater; `None` for kinds that have no order.
    pub(crate) fn compared(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&(*b as f64)),
            _ => None,
        }
    }
}
