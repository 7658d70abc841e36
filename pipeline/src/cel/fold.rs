//! What is known of an expression is worked in: the rest names only what will be known later.
//!
//! Not here: when that is.

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
    let mut one = |of: &Expr| Box::new(rest(of, evaluation));
    match &expr.node {
        Node::Literal(_) | Node::Name(_) | Node::Broken(_) => expr.node.clone(),
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
        Node::Macro(of) => walked(of, evaluation),
    }
}

fn walked(of: &Macro, evaluation: &mut Evaluation<'_>) -> Node {
    let range = rest(&of.range, evaluation);
    evaluation.push_unknown(&of.name);
    let parts = of.parts.iter().map(|part| rest(part, evaluation)).collect();
    evaluation.pop();
    Node::Macro(Box::new(Macro {
        kind: of.kind,
        range,
        name: of.name.clone(),
        parts,
    }))
}
