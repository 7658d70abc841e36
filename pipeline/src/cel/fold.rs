//! What is known of an expression is worked in: the rest names only what will be known later. And
//! what a name stands for is put in its place.
//!
//! Not here: when that is, and which names those are.

use super::ast::{Expr, Macro, Node};
use super::eval::{Evaluation, Fault, Scope};
use super::value::Value;

/// The value of an expression, or what is left of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Folded {
    Value(Value),
    Rest(Expr),
}

/// Evaluates as far as the scope knows. A part that has no value for certain becomes one that says so
/// when it is looked at: it may never be.
pub(crate) fn fold(expr: &Expr, scope: &dyn Scope) -> Result<Folded, Fault> {
    let mut evaluation = Evaluation::new(scope);
    match evaluation.value(expr)? {
        value if value.is_open() => Ok(Folded::Rest(rest(expr, &mut evaluation))),
        value => Ok(Folded::Value(value)),
    }
}

/// The expression with everything that is known put in its place.
fn rest(expr: &Expr, evaluation: &mut Evaluation<'_>) -> Expr {
    let node = match evaluation.anew(expr) {
        Ok(value) if !value.is_open() => Node::Literal(value),
        Err(fault) => Node::Broken(fault.message),
        Ok(_) => return Expr::new(expr.at, below(expr, evaluation)),
    };
    Expr::new(expr.at, node)
}

fn below(expr: &Expr, evaluation: &mut Evaluation<'_>) -> Node {
    match &expr.node {
        Node::Macro(of) => walked(of, evaluation),
        node => each(node, &mut |of| rest(of, evaluation)),
    }
}

/// The same node with each part made anew.
fn each(node: &Node, make: &mut dyn FnMut(&Expr) -> Expr) -> Node {
    let mut one = |of: &Expr| Box::new(make(of));
    match node {
        Node::Literal(_) | Node::Name(_) | Node::Broken(_) => node.clone(),
        Node::Select(of, field) => Node::Select(one(of), field.clone()),
        Node::Has(of, field) => Node::Has(one(of), field.clone()),
        Node::Not(of) => Node::Not(one(of)),
        Node::Negative(of) => Node::Negative(one(of)),
        Node::Index(of, key) => Node::Index(one(of), one(key)),
        Node::Binary(operator, a, b) => Node::Binary(*operator, one(a), one(b)),
        Node::Choice(test, yes, no) => Node::Choice(one(test), one(yes), one(no)),
        Node::Call(of, name, args) => Node::Call(
            of.as_ref().map(|of| one(of)),
            name.clone(),
            args.iter().map(|arg| *one(arg)).collect(),
        ),
        Node::And(parts) => Node::And(parts.iter().map(|part| *one(part)).collect()),
        Node::Or(parts) => Node::Or(parts.iter().map(|part| *one(part)).collect()),
        Node::List(parts) => Node::List(parts.iter().map(|part| *one(part)).collect()),
        Node::Map(pairs) => Node::Map(pairs.iter().map(|(k, v)| (*one(k), *one(v))).collect()),
        Node::Macro(of) => {
            let range = make(&of.range);
            let parts = of.parts.iter().map(make).collect();
            Node::Macro(macro_with(of, range, parts))
        }
    }
}

fn macro_with(of: &Macro, range: Expr, parts: Vec<Expr>) -> Box<Macro> {
    Box::new(Macro {
        kind: of.kind,
        range,
        name: of.name.clone(),
        parts,
    })
}

/// The expression with `of.field` and `of['field']` replaced by what stands for the field, where
/// something does.
pub(crate) fn put(expr: &Expr, of: &str, stands_for: &mut dyn FnMut(&str) -> Option<Expr>) -> Expr {
    let is_of = |expr: &Expr| matches!(&expr.node, Node::Name(name) if name == of);
    let field = match &expr.node {
        Node::Select(from, field) if is_of(from) => Some(field.as_str()),
        Node::Index(from, key) if is_of(from) => match &key.node {
            Node::Literal(Value::Text(field)) => Some(&**field),
            _ => None,
        },
        _ => None,
    };
    if let Some(found) = field.and_then(&mut *stands_for) {
        return found;
    }
    let node = match &expr.node {
        // The element goes by the same name, and hides it.
        Node::Macro(macros) if macros.name == of => {
            let range = put(&macros.range, of, stands_for);
            Node::Macro(macro_with(macros, range, macros.parts.clone()))
        }
        node => each(node, &mut |part| put(part, of, stands_for)),
    };
    Expr::new(expr.at, node)
}

fn walked(of: &Macro, evaluation: &mut Evaluation<'_>) -> Node {
    let range = rest(&of.range, evaluation);
    evaluation.push_unknown(&of.name);
    let parts = of.parts.iter().map(|part| rest(part, evaluation)).collect();
    evaluation.pop();
    Node::Macro(macro_with(of, range, parts))
}
