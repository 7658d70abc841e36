//! Texts with expressions are filled in: what is known is worked in, the rest is kept for later.
//!
//! Not here: which key takes which expressions ([`crate::keys::Takes`]).

use crate::cel::{self, Expr, Folded, Value as Known, Wrong};
use crate::read::{At, Reader};
use crate::report::Problem;
use crate::scope::{self, Place, Sight};
use crate::syntax::shown;
use crate::template::{self, Piece};
use crate::tree::{Kind, NodeId, Value};
use serde::Serialize;
use std::rc::Rc;

/// A text of which everything that can be known now is filled in.
#[derive(Debug, Clone)]
pub(crate) enum Filled<'t> {
    /// All of it.
    Made { at: usize, text: &'t str, kind: Kind },
    /// Not all. `text` is as it was written.
    Late {
        at: usize,
        text: &'t str,
        pieces: Rc<[model::Piece]>,
    },
}

/// A condition of which everything that can be known now is worked in.
#[derive(Debug, Clone)]
pub(crate) enum Decided {
    Now(bool),
    /// What is left of the expression.
    Later(String),
}

/// A condition as it is written, and what it came to.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'t> {
    pub(crate) text: &'t str,
    pub(crate) decided: Decided,
    /// It asks how the needs have ended.
    pub(crate) whatever_ends: bool,
}

/// What an expression of a file came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The included file in which it stands; `None`: the file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The step for which it was evaluated; `None`: it stands in a key of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The key that it stands in, e.g. `env.TAG`.
    pub key: String,
    /// As it is written.
    pub expression: String,
    /// Its value as an expression; when it is known only later, what is left of it.
    pub value: String,
    /// It is known when the run is made.
    pub known: bool,
}

impl<'t> Reader<'t, '_> {
    /// A text whose expressions are filled in.
    pub(crate) fn filled(&mut self, what: &str, node: NodeId, place: Place) -> Option<Filled<'t>> {
        let Value::Scalar(scalar) = self.value(node) else {
            self.wrong_kind(what, node, "a text");
            return None;
        };
        let at = self.at(node);
        let text = self.plain(what, at, scalar)?;
        if scalar.expression.is_none() {
            return Some(Filled::Made {
                at,
                text,
                kind: scalar.kind,
            });
        }
        let pieces = match template::pieces(text) {
            Ok(pieces) => pieces,
            Err(wrong) => {
                self.wrong(node, 0, wrong);
                return None;
            }
        };
        if let [Piece::Expression(offset, inner)] = pieces.as_slice() {
            return self.filled_by_one(what, node, (*offset, inner), place);
        }
        let mut made = Vec::with_capacity(pieces.len());
        let mut whole = true;
        for piece in pieces {
            match piece {
                Piece::Text(text) => made.push(model::Piece::Text(text.to_owned())),
                Piece::Expression(offset, inner) => match self.piece(what, node, (offset, inner), place) {
                    Some(piece) => made.push(piece),
                    None => whole = false,
                },
            }
        }
        whole.then(|| self.put_together(at, text, made))
    }

    fn filled_by_one(&mut self, what: &str, node: NodeId, one: (usize, &'t str), place: Place) -> Option<Filled<'t>> {
        let at = self.at(node);
        let Value::Scalar(scalar) = self.value(node) else {
            return None;
        };
        match self.folded(what, node, one, place)? {
            Folded::Rest(rest) => Some(Filled::Late {
                at,
                text: &scalar.text,
                pieces: [model::Piece::Expression(rest.to_string())].into(),
            }),
            Folded::Value(value) => {
                let text = self.spliced(node, one.0, &value)?;
                let kind = match value {
                    Known::Bool(flag) => Kind::Bool(flag),
                    Known::Int(_) => Kind::Integer,
                    _ => Kind::Text,
                };
                Some(Filled::Made {
                    at,
                    text: self.texts.alloc(text),
                    kind,
                })
            }
        }
    }

    fn piece(&mut self, what: &str, node: NodeId, one: (usize, &'t str), place: Place) -> Option<model::Piece> {
        match self.folded(what, node, one, place)? {
            Folded::Rest(rest) => Some(model::Piece::Expression(rest.to_string())),
            Folded::Value(value) => self.spliced(node, one.0, &value).map(model::Piece::Text),
        }
    }

    fn put_together(&mut self, at: usize, text: &'t str, pieces: Vec<model::Piece>) -> Filled<'t> {
        let mut joined: Vec<model::Piece> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match (joined.last_mut(), piece) {
                (Some(model::Piece::Text(before)), model::Piece::Text(more)) => before.push_str(&more),
                (_, piece) => joined.push(piece),
            }
        }
        match &mut joined[..] {
            [model::Piece::Text(whole)] => Filled::Made {
                at,
                text: self.texts.alloc(std::mem::take(whole)),
                kind: Kind::Text,
            },
            _ => Filled::Late {
                at,
                text,
                pieces: joined.into(),
            },
        }
    }

    fn spliced(&mut self, node: NodeId, offset: usize, value: &Known) -> Option<String> {
        let text = value.spliced().map(|text| text.to_string());
        if text.is_none() {
            let kind = value.kind();
            let wrong = Wrong::new(0, format!("the expression is {kind}, which cannot stand in a text"))
                .help("choose one of its elements, or write `list.join(',')`");
            self.wrong(node, offset, wrong);
        }
        text.map(|text| text.replace('\0', ""))
    }

    /// A condition: one expression, with or without `${{ }}` around it, or `true` or `false`.
    pub(crate) fn condition(&mut self, what: &str, node: NodeId, place: Place) -> Option<Asked<'t>> {
        let Value::Scalar(scalar) = self.value(node) else {
            self.wrong_kind(what, node, "a condition such as `git.branch == 'main'`");
            return None;
        };
        if let Kind::Bool(flag) = scalar.kind {
            return Some(Asked {
                text: &scalar.text,
                decided: Decided::Now(flag),
                whatever_ends: false,
            });
        }
        let text = self.plain(what, self.at(node), scalar)?;
        let (offset, inner) = match template::only(text) {
            Some(one) => one,
            None if scalar.expression.is_some() => {
                let wrong = Wrong::new(0, format!("{what} is one expression, without text around it"))
                    .help("write the whole condition without `${{ }}`");
                self.wrong(node, text.find(template::OPEN).unwrap_or(0), wrong);
                return None;
            }
            None => (0, text),
        };
        let folded = self.folded(what, node, (offset, inner), place)?;
        let whatever_ends = cel::parse(inner).is_ok_and(|expr| scope::asks_for_ends(&expr));
        let decided = match folded {
            Folded::Rest(rest) => Decided::Later(rest.to_string()),
            Folded::Value(Known::Bool(flag)) => Decided::Now(flag),
            Folded::Value(other) => {
                let wrong = Wrong::new(0, format!("{what} must be true or false, not {}", other.kind()))
                    .help("compare it: `env.DEPLOY == 'yes'`");
                self.wrong(node, offset, wrong);
                return None;
            }
        };
        Some(Asked {
            text: inner.trim(),
            decided,
            whatever_ends,
        })
    }

    /// The expression with what is known worked in; `None` when something is wrong with it.
    fn folded(&mut self, what: &str, node: NodeId, (offset, inner): (usize, &str), place: Place) -> Option<Folded> {
        self.expressions += 1;
        let expr = match cel::parse(inner) {
            Ok(expr) => expr,
            Err(wrong) => {
                self.wrong(node, offset, wrong);
                return None;
            }
        };
        let sight = Sight {
            place,
            matrix: self.names.matrix.as_deref(),
            needs: self.names.needs.as_deref(),
            inputs: &self.names.inputs,
        };
        let wrong = scope::check(&expr, sight);
        if !wrong.is_empty() {
            wrong.into_iter().for_each(|wrong| self.wrong(node, offset, wrong));
            return None;
        }
        match cel::fold(&expr, &self.known) {
            Ok(Folded::Value(value)) => {
                let folded = Folded::Value(value);
                self.explain(what, node, offset, inner, &folded);
                Some(folded)
            }
            Ok(Folded::Rest(rest)) => match self.for_later(&rest) {
                Ok(rest) => {
                    let folded = Folded::Rest(rest);
                    self.explain(what, node, offset, inner, &folded);
                    Some(folded)
                }
                Err(wrong) => {
                    self.wrong(node, offset, wrong);
                    None
                }
            },
            Err(fault) => {
                let wrong = Wrong::new(fault.at, format!("the expression has no value: {}", fault.message));
                self.wrong(node, offset, wrong);
                None
            }
        }
    }

    /// What is left of an expression, as it is kept until the step is ready.
    fn for_later(&self, rest: &Expr) -> Result<Expr, Wrong> {
        let rest = self.known.put_late_env(rest)?;
        match cel::parse(&rest.to_string()) {
            Ok(_) => Ok(rest),
            Err(wrong) => {
                let message = format!(
                    "what is left of the expression for later is too large: {}",
                    wrong.message
                );
                Err(Wrong::new(0, message).help("let it name shorter values, or fewer of them"))
            }
        }
    }

    fn explain(&mut self, what: &str, node: NodeId, offset: usize, inner: &str, folded: &Folded) {
        if self.explained.is_none() {
            return;
        }
        let at = self.offset_in(node, offset);
        let (file, line, column) = self.report.position(at);
        let (value, known) = match folded {
            Folded::Value(value) => (cel::Expr::new(0, cel::Node::Literal(value.clone())).to_string(), true),
            Folded::Rest(rest) => (rest.to_string(), false),
        };
        let explained = Explained {
            file: file.map(str::to_owned),
            line,
            column,
            step: self.step.clone(),
            key: what.trim_matches('`').to_owned(),
            expression: inner.trim().to_owned(),
            value,
            known,
        };
        if let Some(all) = &mut self.explained
            && all.len() < EXPLAINED_MAX
            && !all.contains(&explained)
        {
            all.push(explained);
        }
    }

    /// The byte offset in the file of an offset in a text.
    fn offset_in(&self, node: NodeId, offset: usize) -> usize {
        let at = self.at(node);
        match self.value(node) {
            Value::Scalar(scalar) => scalar
                .verbatim
                .map(|start| start + offset)
                .or(scalar.expression)
                .unwrap_or(at),
            Value::List(_) | Value::Map(_) => at,
        }
    }

    /// Reports what is wrong with an expression that begins at `offset` in a text.
    pub(crate) fn wrong(&mut self, node: NodeId, offset: usize, wrong: Wrong) {
        let at = self.offset_in(node, offset + wrong.at);
        self.report.add(at, || Problem {
            message: wrong.message,
            help: wrong.help,
        });
    }

    /// A text whose expressions are all known now; as it is written while they are not.
    pub(crate) fn text_made(&mut self, what: &str, node: NodeId, place: Place) -> Option<Made<'t>> {
        Some(match self.filled(what, node, place)? {
            Filled::Made { at, text, .. } => Made {
                text: At { at, value: text },
                open: false,
            },
            Filled::Late { at, text, .. } => {
                self.left_open = Some(text);
                Made {
                    text: At { at, value: text },
                    open: true,
                }
            }
        })
    }

    /// One line whose expressions are all known now.
    pub(crate) fn line_made(&mut self, what: &str, node: NodeId, max: usize, place: Place) -> Option<At<&'t str>> {
        let made = self.text_made(what, node, place)?;
        if made.open {
            return Some(made.text);
        }
        self.check_line(what, made.text, max)
    }
}

/// A text that was filled in, if it could be.
pub(crate) struct Made<'t> {
    pub(crate) text: At<&'t str>,
    /// It stands as it was written, because it is not known yet.
    pub(crate) open: bool,
}

/// The most expressions that are explained.
pub const EXPLAINED_MAX: usize = 2_000;

/// A condition in the sentence of a step that was skipped because of it.
pub(crate) fn told(text: &str) -> String {
    shown(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}
