//! Expressions in CEL, the Common Expression Language: text becomes a tree, a tree and what is known
//! become a value, or a smaller tree of what is still unknown.
//!
//! What is supported of CEL: `null`, booleans, whole numbers of 64 bits, fractions, texts, lists and
//! maps with texts as keys; all operators, `in`, `? :`, indexing, selection, `has()`, the macros
//! `all`, `exists`, `exists_one`, `map`, `filter`, and the functions of [`functions`]. Left out, because
//! nothing in a pipeline has these types: unsigned numbers, bytes, time stamps, durations, messages.
//!
//! Nothing here recurses deeper than [`DEPTH_MAX`], runs longer than [`STEPS_MAX`] or makes more than
//! [`MADE_MAX`] bytes, whatever is written.
//!
//! Not here: what the names of an expression mean ([`crate::scope`]), and where it stands in a file.

mod ast;
mod eval;
mod fold;
mod functions;
mod parse;
#[cfg(test)]
mod tests;
mod token;
mod value;

pub(crate) use ast::{Expr, Node, Operator};
pub(crate) use eval::{Scope, evaluate};
pub(crate) use fold::{Folded, fold, put};
pub(crate) use functions::FUNCTIONS;
pub(crate) use parse::parse;
pub use value::{Loose, Value};

/// Bytes of one expression: a screenful. What needs more belongs into a script.
pub const EXPRESSION_MAX: usize = 4 * 1024;

/// Expressions inside each other. People read five; a thread's stack holds a thousand of ours.
pub const DEPTH_MAX: usize = 48;

/// Nodes that one evaluation looks at, those of macros once for each element: a millisecond.
pub const STEPS_MAX: usize = 20_000;

/// Bytes that one evaluation makes anew.
pub const MADE_MAX: usize = 1024 * 1024;

/// An error of an expression: what is wrong, how to mend it, and the byte offset in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Wrong {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            help: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
