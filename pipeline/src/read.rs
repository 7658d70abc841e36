//! Reads the tree by kind: mappings with known keys, lists, texts, numbers; everything that is of
//! another kind, unknown, foreign or not supported yet becomes a finding.
//!
//! Not here: what a step or a file consists of ([`crate::part`], [`crate::compile`]).
//!
//! A text may be written as an integer or a boolean without quotes and means these characters;
//! fractions (`1.90`) and empty values have to be quoted.

use crate::fill::{Explained, Filled};
use crate::keys::{
    CHECKOUT_KEYS, CONCURRENCY_KEYS, ENTRY_KEYS, FILE_KEYS, FOREIGN, Key, LATER, Level, MANUAL_KEYS, MATRIX_KEYS,
    RESOURCE_KEYS, RETRY_KEYS, STAGE_KEYS, STEP_KEYS,
};
use crate::limits::Limits;
use crate::report::{Problem, Report};
use crate::scope::{Facts, Place};
use crate::suggest::nearest;
use crate::syntax::{expression_refused, shown, steers};
use crate::tree::{Kind, NodeId, Pair, Scalar, Tree, Value};
use std::rc::Rc;
use typed_arena::Arena;

/// A value and the byte offset where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) at: usize,
    pub(crate) value: T,
}

/// A known key of a mapping.
pub(crate) struct Known<I> {
    pub(crate) id: I,
    pub(crate) name: &'static str,
    pub(crate) value: NodeId,
}

/// What a mapping says.
pub(crate) struct Keys<I> {
    /// In the order of the file.
    pub(crate) known: Vec<Known<I>>,
    /// Known keys that refused ones were probably meant to be: nothing is said about their absence.
    pub(crate) meant: Vec<&'static str>,
}

impl<I: Copy + PartialEq> Keys<I> {
    pub(crate) fn has(&self, id: I) -> bool {
        self.known.iter().any(|key| key.id == id)
    }
}

/// Larger mappings are not searched for what was meant: they are no step that somebody wrote.
const MEANT_MAX: usize = 64;

pub(crate) struct Reader<'t, 'a> {
    pub(crate) tree: &'t Tree<'a>,
    pub(crate) report: Report<'a>,
    pub(crate) limits: Limits,
    /// Where texts are kept that expressions made.
    pub(crate) texts: &'t Arena<String>,
    /// What expressions can see.
    pub(crate) known: Facts<'t>,
    pub(crate) names: Names<'t>,
    /// What each expression came to, when somebody asks.
    pub(crate) explained: Option<Vec<Explained>>,
    /// The step that is read, for [`Reader::explained`].
    pub(crate) step: Option<String>,
    /// Expressions that were met so far.
    pub(crate) expressions: usize,
    /// The text of a value that was read last and is left open.
    pub(crate) left_open: Option<&'t str>,
    /// What `env` of a step is: read as it stands, or made already from all layers.
    pub(crate) env_is: EnvIs,
}

/// See [`Reader::env_is`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnvIs {
    Read,
    Made,
}

/// Names that only some expressions can use; `None`: that is not known yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names<'t> {
    pub(crate) matrix: Option<Rc<[&'t str]>>,
    pub(crate) needs: Option<Rc<[&'t str]>>,
    pub(crate) inputs: Vec<&'t str>,
}

impl<'t, 'a> Reader<'t, 'a> {
    pub(crate) fn new(
        tree: &'t Tree<'a>,
        report: Report<'a>,
        limits: Limits,
        texts: &'t Arena<String>,
        known: Facts<'t>,
    ) -> Self {
        Self {
            tree,
            report,
            limits,
            texts,
            known,
            names: Names::default(),
            explained: None,
            step: None,
            expressions: 0,
            left_open: None,
            env_is: EnvIs::Read,
        }
    }

    pub(crate) fn at(&self, node: NodeId) -> usize {
        self.tree.node(node).at
    }

    pub(crate) fn value(&self, node: NodeId) -> &'t Value<'a> {
        &self.tree.node(node).value
    }

    /// The known keys of a mapping, in the order of the file; the others are reported. `None`
    /// when it is not a mapping.
    pub(crate) fn keys<I: Copy>(
        &mut self,
        what: &str,
        node: NodeId,
        level: Level,
        table: &'static [Key<I>],
    ) -> Option<Keys<I>> {
        let pairs = self.pairs(what, node)?;
        let mut keys = Keys {
            known: Vec::with_capacity(pairs.len().min(table.len())),
            meant: Vec::new(),
        };
        for pair in pairs {
            match table.iter().find(|key| key.name == pair.key) {
                Some(key) => keys.known.push(Known {
                    id: key.id,
                    name: key.name,
                    value: pair.value,
                }),
                None if pair.key.starts_with("x-") => {}
                None => {
                    if pairs.len() <= MEANT_MAX {
                        keys.meant.extend(meant_by(&pair.key, table));
                    }
                    self.report.add(pair.at, || refused_key(&pair.key, level, table));
                }
            }
        }
        Some(keys)
    }

    /// The entries of a mapping.
    pub(crate) fn pairs(&mut self, what: &str, node: NodeId) -> Option<&'t [Pair<'a>]> {
        match self.value(node) {
            Value::Map(pairs) => Some(pairs),
            Value::List(_) | Value::Scalar(_) => {
                self.wrong_kind(what, node, "a mapping");
                None
            }
        }
    }

    /// The items of a list.
    pub(crate) fn items(&mut self, what: &str, node: NodeId) -> Option<&'t [NodeId]> {
        match self.value(node) {
            Value::List(items) => Some(items),
            Value::Map(_) | Value::Scalar(_) => {
                self.wrong_kind(what, node, "a list");
                None
            }
        }
    }

    /// A text: see the rules at the top of this module.
    pub(crate) fn text(&mut self, what: &str, node: NodeId) -> Option<At<&'t str>> {
        let at = self.at(node);
        let Value::Scalar(scalar) = self.value(node) else {
            self.wrong_kind(what, node, "a text");
            return None;
        };
        if self.expression(what, scalar) {
            return None;
        }
        self.plain(what, at, scalar).map(|value| At { at, value })
    }

    /// The characters of a text, with or without expressions.
    pub(crate) fn plain(&mut self, what: &str, at: usize, scalar: &'t Scalar<'a>) -> Option<&'t str> {
        if scalar.nul {
            self.report.add(at, || {
                Problem::new(format!("{what} holds a NUL character")).help("remove `\\0` from the text")
            });
            return None;
        }
        match scalar.kind {
            Kind::Null => {
                self.report.add(at, || {
                    Problem::new(format!("{what} has no value"))
                        .help("write one, or remove it; an empty text is `\"\"`")
                });
                None
            }
            Kind::Float => {
                self.report.add(at, || quote_the_number(what, &scalar.text));
                None
            }
            Kind::Refused => None,
            Kind::Bool(_) | Kind::Integer | Kind::Text => Some(&scalar.text),
        }
    }

    /// A text of one line with 1 to `max` characters, none of which steers a terminal.
    pub(crate) fn line(&mut self, what: &str, node: NodeId, max: usize) -> Option<At<&'t str>> {
        let text = self.text(what, node)?;
        self.check_line(what, text, max)
    }

    pub(crate) fn check_line(&mut self, what: &str, text: At<&'t str>, max: usize) -> Option<At<&'t str>> {
        let length = text.value.chars().take(max + 1).count();
        if length == 0 || length > max {
            self.report.add(text.at, || {
                Problem::new(format!("{what} must have 1 to {max} characters"))
            });
            None
        } else if text.value.chars().any(steers) {
            self.report.add(text.at, || {
                Problem::new(format!("{what} must be one line without control characters"))
            });
            None
        } else {
            Some(text)
        }
    }

    /// A name by the contract.
    pub(crate) fn name(&mut self, what: &str, node: NodeId) -> Option<At<&'t str>> {
        let text = self.text(what, node)?;
        self.check_name(what, text).then_some(text)
    }

    /// Reports a name that is not legal.
    pub(crate) fn check_name(&mut self, what: &str, name: At<&str>) -> bool {
        let legal = model::id::check_name(name.value).is_ok();
        if !legal {
            self.report.add(name.at, || refused_name(what, name.value));
        }
        legal
    }

    /// One text or a list of texts.
    pub(crate) fn texts(&mut self, what: &str, node: NodeId) -> Option<Vec<At<&'t str>>> {
        match self.value(node) {
            Value::List(items) => Some(items.iter().filter_map(|item| self.text(what, *item)).collect()),
            Value::Scalar(_) => self.text(what, node).map(|text| vec![text]),
            Value::Map(_) => {
                self.wrong_kind(what, node, "a text or a list of texts");
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, what: &str, node: NodeId) -> Option<bool> {
        if let Value::Scalar(scalar) = self.value(node) {
            if let Kind::Bool(flag) = scalar.kind {
                return Some(flag);
            }
            if self.expression(what, scalar) {
                return None;
            }
        }
        self.wrong_kind(what, node, "`true` or `false`");
        None
    }

    /// `true` or `false`, or an expression for one; false while it is not known.
    pub(crate) fn flag_made(&mut self, what: &str, node: NodeId, place: Place) -> Option<bool> {
        if !self.has_expression(node) {
            return self.flag(what, node);
        }
        match self.filled(what, node, place)? {
            Filled::Late { text, .. } => {
                self.left_open = Some(text);
                Some(false)
            }
            Filled::Made { at, text, kind } => match (kind, text) {
                (Kind::Bool(flag), _) => Some(flag),
                (_, "true") => Some(true),
                (_, "false") => Some(false),
                (_, other) => {
                    self.report.add(at, || {
                        Problem::new(format!(
                            "{what} must be `true` or `false`; the expression says `{}`",
                            shown(other)
                        ))
                    });
                    None
                }
            },
        }
    }

    /// A whole number from `min` to `max`.
    pub(crate) fn count(&mut self, what: &str, node: NodeId, min: u64, max: u64) -> Option<u64> {
        if let Value::Scalar(scalar) = self.value(node) {
            if scalar.kind == Kind::Integer {
                return self.number(what, self.at(node), &scalar.text, min, max);
            }
            if self.expression(what, scalar) {
                return None;
            }
        }
        self.wrong_kind(what, node, "a whole number");
        None
    }

    /// A whole number, or an expression for one; `min` while it is not known.
    pub(crate) fn count_made(&mut self, what: &str, node: NodeId, min: u64, max: u64) -> Option<u64> {
        if !self.has_expression(node) {
            return self.count(what, node, min, max);
        }
        match self.filled(what, node, Place::Step)? {
            Filled::Late { text, .. } => {
                self.left_open = Some(text);
                Some(min)
            }
            Filled::Made { at, text, .. } => self.number(what, at, text, min, max),
        }
    }

    fn number(&mut self, what: &str, at: usize, text: &str, min: u64, max: u64) -> Option<u64> {
        let number = text.parse().ok().filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.report.add(at, || {
                Problem::new(format!("{what} must be from {min} to {max}, not {}", shown(text)))
            });
        }
        number
    }

    /// The characters of a value that is not read as a text, such as a size: quoted or not.
    pub(crate) fn raw(&mut self, what: &str, node: NodeId, expected: &'static str) -> Option<At<&'t str>> {
        if let Value::Scalar(scalar) = self.value(node) {
            if self.expression(what, scalar) {
                return None;
            }
            if matches!(scalar.kind, Kind::Text | Kind::Integer | Kind::Float) {
                return Some(At {
                    at: self.at(node),
                    value: &scalar.text,
                });
            }
        }
        self.wrong_kind(what, node, expected);
        None
    }

    /// The same, or an expression for it; `stand_in` while it is not known.
    pub(crate) fn raw_made(
        &mut self,
        what: &str,
        node: NodeId,
        expected: &'static str,
        stand_in: &'t str,
    ) -> Option<At<&'t str>> {
        if !self.has_expression(node) {
            return self.raw(what, node, expected);
        }
        match self.filled(what, node, Place::Step)? {
            Filled::Made { at, text, .. } => Some(At { at, value: text }),
            Filled::Late { at, text, .. } => {
                self.left_open = Some(text);
                Some(At { at, value: stand_in })
            }
        }
    }

    pub(crate) fn has_expression(&self, node: NodeId) -> bool {
        matches!(self.value(node), Value::Scalar(scalar) if scalar.expression.is_some())
    }

    /// Reports the expression in `scalar`, if there is one.
    pub(crate) fn expression(&mut self, what: &str, scalar: &Scalar<'_>) -> bool {
        if let Some(at) = scalar.expression {
            self.report.add(at, || expression_refused(what, &scalar.text));
        }
        scalar.expression.is_some()
    }

    /// Reports that `what` is of another kind than `expected`.
    pub(crate) fn wrong_kind(&mut self, what: &str, node: NodeId, expected: &str) {
        let at = self.at(node);
        let found = match self.value(node) {
            Value::Map(_) => "a mapping".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Refused => return,
                Kind::Null => {
                    self.report.add(at, || {
                        Problem::new(format!("{what} has no value")).help(format!("write {expected}, or remove it"))
                    });
                    return;
                }
                Kind::Bool(_) | Kind::Integer | Kind::Float => format!("`{}`", shown(&scalar.text)),
                Kind::Text => format!("the text `{}`", shown(&scalar.text)),
            },
        };
        self.report
            .add(at, || Problem::new(format!("{what} must be {expected}, not {found}")));
    }
}

fn quote_the_number(what: &str, text: &str) -> Problem {
    let text = shown(text);
    Problem::new(format!(
        "{what} is the fraction {text}, which may be read as another number"
    ))
    .help(format!("put it into quotes: \"{text}\""))
}

pub(crate) fn refused_name(what: &str, text: &str) -> Problem {
    Problem::new(format!("{what} `{}` is not a legal name", shown(text))).help(
        "1 to 63 of the characters `a-z`, `0-9`, `.`, `_` and `-`, the first a letter or digit; free text goes into `title`",
    )
}

/// Why `word` is not a key of `level`.
fn refused_key<I: Copy>(word: &str, level: Level, table: &'static [Key<I>]) -> Problem {
    let noun = level.noun();
    if level.later().contains(&word) {
        return Problem::new(format!("`{word}` is not supported yet"))
            .help("remove it; `buildflow schema` prints the keys that work");
    }
    if word == "privileged" {
        return Problem::new("`privileged` does not exist")
            .help("a step never gets more rights than its sandbox gives; remove it");
    }
    if let Some((_, origin, help)) = FOREIGN.iter().find(|(foreign, ..)| *foreign == word) {
        return Problem::new(format!("`{word}` is a word of {origin}")).help(*help);
    }
    let unknown = Problem::new(format!("`{}` is not a key of {noun}", shown(word)));
    if let Some(home) = home_of(word) {
        return unknown.help(format!("it is a key of {home}"));
    }
    if let Some(meant) = nearest(word, table.iter().map(|key| key.name)) {
        return unknown.help(format!("did you mean `{meant}`?"));
    }
    if let Some(meant) = nearest(word, level.later().iter().copied()) {
        return unknown.help(format!("did you mean `{meant}`? it is not supported yet"));
    }
    let elsewhere = FILE_KEYS
        .iter()
        .map(|key| key.name)
        .chain(STAGE_KEYS.iter().map(|key| key.name));
    let elsewhere = elsewhere.chain(STEP_KEYS.iter().map(|key| key.name));
    if let Some(meant) = nearest(word, elsewhere)
        && let Some(home) = home_of(meant)
    {
        return unknown.help(format!("did you mean `{meant}`? it is a key of {home}"));
    }
    unknown.help(format!("known keys: {}", listed(table)))
}

/// The key that a refused one was probably meant to be.
fn meant_by<I: Copy>(word: &str, table: &'static [Key<I>]) -> Option<&'static str> {
    if let Some((_, _, help)) = FOREIGN.iter().find(|(foreign, ..)| *foreign == word) {
        let named = |key: &&Key<I>| help.contains(&format!("`{}`", key.name));
        return table.iter().find(named).map(|key| key.name);
    }
    nearest(word, table.iter().map(|key| key.name))
}

fn listed<I: Copy>(table: &'static [Key<I>]) -> String {
    let names: Vec<&str> = table.iter().map(|key| key.name).collect();
    names.join(", ")
}

/// Where a key belongs that stands in the wrong mapping.
fn home_of(word: &str) -> Option<&'static str> {
    fn has<I>(table: &[Key<I>], word: &str) -> bool {
        table.iter().any(|key| key.name == word)
    }
    if has(STEP_KEYS, word) && word != "name" {
        Some("a step, of `defaults` or of a template")
    } else if has(STAGE_KEYS, word) && word != "name" {
        Some("a stage")
    } else if has(FILE_KEYS, word) {
        Some("the file itself, without indentation")
    } else if has(RESOURCE_KEYS, word) {
        Some("`resources`")
    } else if has(CHECKOUT_KEYS, word) {
        Some("`checkout`")
    } else if has(RETRY_KEYS, word) && !LATER.contains(&word) {
        Some("`retry`")
    } else if has(CONCURRENCY_KEYS, word) {
        Some("`concurrency`")
    } else if has(MATRIX_KEYS, word) {
        Some("`matrix`")
    } else if has(MANUAL_KEYS, word) {
        Some("`on.manual`")
    } else if has(ENTRY_KEYS, word) {
        Some("an entry of `run`, or of a stage or step")
    } else if LATER.contains(&word) {
        Some("the file or of a step, and is not supported yet")
    } else {
        None
    }
}
