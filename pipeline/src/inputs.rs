//! `on.manual.inputs`: what a person is asked for when they start a run, and whether what they
//! entered fits.
//!
//! Not here: who asks them.

use crate::cel;
use crate::keys::{INPUT_KEYS, InputKey, Level};
use crate::limits::{INPUT_VALUE_MAX, INPUTS_MAX, TITLE_MAX};
use crate::occasion::Occasion;
use crate::read::{At, Reader};
use crate::report::Problem;
use crate::suggest::nearest;
use crate::syntax::shown;
use crate::tree::{NodeId, Value};
use serde_json::Value as Json;

/// Options of one choice.
const OPTIONS_MAX: usize = 100;

/// One input.
#[derive(Debug, Clone)]
pub(crate) struct Input<'t> {
    pub(crate) name: &'t str,
    kind: InputKind,
    options: Vec<&'t str>,
    default: Option<cel::Value>,
    required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputKind {
    Text,
    Choice,
    Bool,
    Number,
}

/// The words of `type`, with those of other systems.
const KINDS: [(&str, InputKind); 4] = [
    ("string", InputKind::Text),
    ("choice", InputKind::Choice),
    ("boolean", InputKind::Bool),
    ("number", InputKind::Number),
];

/// An input that a run cannot be made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongInput {
    /// Its name.
    pub name: String,
    /// What is wrong with it, and how to mend it.
    pub message: String,
}

impl<'t> Reader<'t, '_> {
    pub(crate) fn inputs(&mut self, node: NodeId) -> Option<Vec<Input<'t>>> {
        let pairs = self.pairs("`on.manual.inputs`", node)?;
        if pairs.len() > INPUTS_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "`on.manual.inputs` holds {} inputs; the most is {INPUTS_MAX}",
                    pairs.len()
                ))
            });
            return None;
        }
        let mut inputs = Vec::with_capacity(pairs.len());
        let mut whole = true;
        for pair in pairs.iter().filter(|pair| !pair.key.starts_with("x-")) {
            let key = &*pair.key;
            let head = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            let legal = head && key.len() <= 63 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if !legal {
                self.report.add(pair.at, || {
                    Problem::new(format!("`{}` cannot be the name of an input", shown(key)))
                        .help("1 to 63 letters, digits, `_` and `-`, the first a letter or `_`")
                });
            }
            match self.input(key, pair.value) {
                Some(input) if legal => inputs.push(input),
                _ => whole = false,
            }
        }
        whole.then_some(inputs)
    }

    fn input(&mut self, name: &'t str, node: NodeId) -> Option<Input<'t>> {
        let keys = self.keys(&format!("the input `{}`", shown(name)), node, Level::Input, INPUT_KEYS)?;
        let mut input = Input {
            name,
            kind: InputKind::Text,
            options: Vec::new(),
            default: None,
            required: false,
        };
        let (mut kind, mut default) = (None, None);
        for key in &keys.known {
            let what = format!("`inputs.{}.{}`", shown(name), key.name);
            match key.id {
                InputKey::Type => {
                    let text = self.text(&what, key.value)?;
                    kind = Some(self.word(&what, text, &KINDS)?);
                }
                InputKey::Description => {
                    self.line(&what, key.value, TITLE_MAX)?;
                }
                InputKey::Options => input.options = self.options(&what, key.value)?,
                InputKey::Default => default = Some((what, self.text_or_fraction(key.value)?)),
                InputKey::Required => input.required = self.flag(&what, key.value)?,
            }
        }
        let chosen = if input.options.is_empty() {
            InputKind::Text
        } else {
            InputKind::Choice
        };
        input.kind = kind.unwrap_or(chosen);
        let at = self.at(node);
        if (input.kind == InputKind::Choice) == input.options.is_empty() {
            let what = match input.kind {
                InputKind::Choice => "is a choice without `options`",
                _ => "has `options` but is no choice",
            };
            self.report.add(at, || {
                Problem::new(format!("the input `{}` {what}", shown(name)))
                    .help("write `type: choice` and `options: [staging, production]`")
            });
            return None;
        }
        if let Some((what, text)) = default {
            match input.read(text.value) {
                Ok(value) => input.default = Some(value),
                Err(message) => {
                    self.report.add(text.at, || Problem::new(format!("{what} {message}")));
                    return None;
                }
            }
        }
        Some(input)
    }

    fn options(&mut self, what: &str, node: NodeId) -> Option<Vec<&'t str>> {
        let texts = self.texts(what, node)?;
        if texts.is_empty() || texts.len() > OPTIONS_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "{what} holds {} options; it must be 1 to {OPTIONS_MAX}",
                    texts.len()
                ))
            });
            return None;
        }
        Some(texts.into_iter().map(|text| text.value).collect())
    }

    /// A text, a flag, or a number of any kind, as it is written.
    fn text_or_fraction(&mut self, node: NodeId) -> Option<At<&'t str>> {
        let at = self.at(node);
        match self.value(node) {
            Value::Scalar(scalar) if scalar.kind == crate::tree::Kind::Float => Some(At {
                at,
                value: &scalar.text,
            }),
            _ => self.text("`default`", node),
        }
    }
}

impl Input<'_> {
    /// The value of what was entered as characters.
    fn read(&self, text: &str) -> Result<cel::Value, String> {
        if text.len() > INPUT_VALUE_MAX {
            return Err(format!("has {} bytes; the most is {INPUT_VALUE_MAX}", text.len()));
        }
        match self.kind {
            InputKind::Text if text.contains('\0') => Err("holds a NUL character".to_owned()),
            InputKind::Text => Ok(cel::Value::text(text)),
            InputKind::Choice if self.options.contains(&text) => Ok(cel::Value::text(text)),
            InputKind::Choice => {
                let options: Vec<String> = self.options.iter().map(|o| format!("`{}`", shown(o))).collect();
                Err(format!("must be one of {}, not `{}`", options.join(", "), shown(text)))
            }
            InputKind::Bool => match text {
                "true" => Ok(cel::Value::Bool(true)),
                "false" => Ok(cel::Value::Bool(false)),
                _ => Err(format!("must be `true` or `false`, not `{}`", shown(text))),
            },
            InputKind::Number => {
                let whole = text.parse().ok().map(cel::Value::Int);
                let fraction = || {
                    text.parse()
                        .ok()
                        .filter(|n: &f64| n.is_finite())
                        .map(cel::Value::Double)
                };
                whole
                    .or_else(fraction)
                    .ok_or_else(|| format!("must be a number, not `{}`", shown(text)))
            }
        }
    }

    fn entered(&self, value: &Json) -> Result<cel::Value, String> {
        match value {
            Json::String(text) => self.read(text),
            Json::Bool(_) | Json::Number(_) => self.read(&value.to_string()),
            Json::Null | Json::Array(_) | Json::Object(_) => {
                Err("must be a text, a number or true or false".to_owned())
            }
        }
    }

    fn absent(&self) -> cel::Value {
        let first = self.options.first().copied().unwrap_or_default();
        self.default.clone().unwrap_or_else(|| match self.kind {
            InputKind::Text => cel::Value::text(""),
            InputKind::Choice => cel::Value::text(first),
            InputKind::Bool => cel::Value::Bool(false),
            InputKind::Number => cel::Value::Int(0),
        })
    }
}

/// What expressions see as `inputs`: what was entered, and defaults for the rest.
///
/// # Errors
/// Every input that does not fit.
pub(crate) fn values(inputs: &[Input<'_>], occasion: Option<&Occasion>) -> Result<cel::Value, Vec<WrongInput>> {
    let Some(occasion) = occasion else {
        return Ok(cel::Value::map(
            inputs.iter().map(|input| (input.name, cel::Value::Unknown)),
        ));
    };
    let mut wrong = Vec::new();
    let mut say = |name: &str, message: String| {
        wrong.push(WrongInput {
            name: name.chars().take(80).collect(),
            message,
        });
    };
    for name in occasion.inputs.keys() {
        if inputs.iter().all(|input| input.name != name) {
            let meant = nearest(name, inputs.iter().map(|input| input.name));
            let help = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            say(name, format!("is no input of the pipeline{help}"));
        }
    }
    let asked = occasion.event == "manual";
    let mut values = Vec::with_capacity(inputs.len());
    for input in inputs {
        let value = match occasion.inputs.get(input.name) {
            Some(entered) => input.entered(entered),
            None if asked && input.required && input.default.is_none() => Err("has to be given".to_owned()),
            None => Ok(input.absent()),
        };
        match value {
            Ok(value) => values.push((input.name, value)),
            Err(message) => say(input.name, message),
        }
    }
    if wrong.is_empty() {
        Ok(cel::Value::map(values))
    } else {
        Err(wrong)
    }
}
