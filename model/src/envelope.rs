//! A record's JSON in one pass: the body reads its own fields, the head's two are taken out on the way.
//!
//! Every server reads every record that changes, so this is the busiest code of a cluster. Not here:
//! which kinds and versions are taken.

use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use std::borrow::Cow;
use std::fmt;

/// What stands in the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// `kind` is the one that was expected.
    pub(crate) expected_kind: bool,
    /// `v`.
    pub(crate) version: Option<u16>,
}

/// An object without its head, which goes to `seen`.
pub(crate) struct Body<'s, D> {
    pub(crate) inner: D,
    pub(crate) kind: &'static str,
    pub(crate) seen: &'s mut Seen,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Body<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let fields = Fields {
            inner: visitor,
            kind: self.kind,
            seen: self.seen,
        };
        self.inner.deserialize_map(fields)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Around the reader of the body, and around what it reads from.
struct Fields<'s, T> {
    inner: T,
    kind: &'static str,
    seen: &'s mut Seen,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Fields<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Fields {
            inner: map,
            kind: self.kind,
            seen: self.seen,
        })
    }
}

/// A text that is not copied unless it holds escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Text(key)) = self.inner.next_key()? {
            match key.as_ref() {
                "kind" => {
                    let Text(kind) = self.inner.next_value()?;
                    self.seen.expected_kind = kind == self.kind;
                    if !self.seen.expected_kind {
                        return Err(A::Error::custom("another kind"));
                    }
                }
                "v" => self.seen.version = Some(self.inner.next_value()?),
                _ => return seed.deserialize(key.into_deserializer()).map(Some),
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

/// The head alone, for saying what is wrong with a record.
#[derive(Deserialize)]
pub(crate) struct Head {
    pub(crate) kind: String,
    pub(crate) v: u16,
}

#[cfg(test)]
mod tests {
    use crate::record::{Record, RecordError, Unknown, decode};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Lamp {
        lit: bool,
        #[serde(default)]
        hours: f64,
        #[serde(flatten)]
        unknown: Unknown,
    }

    impl Record for Lamp {
        const KIND: &'static str = "lamp";
        const VERSION: u16 = 2;
    }

    fn said(text: &str) -> String {
        match decode::<Lamp>(text.as_bytes()) {
            Ok(Lamp { lit, hours, unknown }) => format!("{lit} {hours} {}", serde_json::Value::Object(unknown)),
            Err(RecordError::WrongKind { found, .. }) => format!("kind {found}"),
            Err(RecordError::TooNew { found, .. }) => format!("version {found}"),
            Err(RecordError::Malformed { cause, .. }) => cause.to_string(),
        }
    }

    #[test]
    fn the_head_may_stand_anywhere_and_is_never_among_the_unknown() {
        let cases = [
            (r#"{"kind":"lamp","v":1,"lit":true}"#, "true 0 {}"),
            (r#"{"lit":true,"hours":7,"v":2,"kind":"lamp"}"#, "true 7 {}"),
            (r#"{"\u006bind":"l\u0061mp","v":2,"lit":false}"#, "false 0 {}"),
            (
                r#"{"kind":"lamp","v":1,"new":{"kind":"x","v":9},"lit":true}"#,
                r#"true 0 {"new":{"kind":"x","v":9}}"#,
            ),
            (
                r#"{"kind":"lamp","v":1,"lit":true,"big":18446744073709551615}"#,
                r#"true 0 {"big":18446744073709551615}"#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(said(text), expected, "{text}");
        }
    }

    #[test]
    fn the_head_is_what_is_complained_of_first() {
        let cases = [
            (r#"{"lit":1,"v":1,"kind":"torch"}"#, "kind torch"),
            (r#"{"kind":"torch","v":9}"#, "kind torch"),
            (r#"{"kind":"lamp","v":3,"lit":"quite"}"#, "version 3"),
            (r#"{"lit":true,"kind":"lamp"}"#, "missing field `v`"),
            (r#"{"lit":true,"v":1}"#, "missing field `kind`"),
            (r#"{"kind":"lamp","v":1}"#, "missing field `lit`"),
            (
                r#"{"kind":7,"v":1,"lit":true}"#,
                "invalid type: integer `7`, expected a string",
            ),
            (r#"{"kind":"lamp","v":1,"lit":true} x"#, "trailing characters"),
            ("[]", "invalid length"),
            ("", "EOF"),
        ];
        for (text, expected) in cases {
            assert!(said(text).starts_with(expected), "{text}: {}", said(text));
        }
    }
}
