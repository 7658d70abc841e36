//! A tree and what is known become a value; what is not known yet makes the value unknown, unless
//! it does not matter (`false && x`).
//!
//! As in CEL, `&&` and `||` look at both sides: one that decides wins over an error of the other.
//!
//! Not here: functions ([`super::functions`]).

use super::ast::{Expr, Macro, MacroKind, Node, Operator};
use super::functions;
use super::value::Value;
use super::{MADE_MAX, STEPS_MAX};
use crate::syntax::shown;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an expression can see.
pub(crate) trait Scope {
    /// The value of a name; `None`: there is no such name.
    fn name(&self, name: &str) -> Option<Value>;

    /// The value of a function that is no plain function of its arguments; `None`: there is no such
    /// function.
    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, String>>;

    /// One more step is taken; false: all expressions together may not take more.
    fn spend(&self) -> bool {
        true
    }
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Byte offset in the text of the expression.
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Fault {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// The value of an expression; [`Value::Unknown`] when that depends on what is not known yet.
pub(crate) fn evaluate(expr: &Expr, scope: &dyn Scope) -> Result<Value, Fault> {
    Evaluation::new(scope).value(expr)
}

pub(super) struct Evaluation<'s> {
    scope: &'s dyn Scope,
    /// Elements that macros have named, the innermost last.
    locals: Vec<(String, Value)>,
    steps: usize,
    made: usize,
}

impl<'s> Evaluation<'s> {
    pub(super) fn new(scope: &'s dyn Scope) -> Self {
        Self {
            scope,
            locals: Vec::new(),
            steps: 0,
            made: 0,
        }
    }

    /// Names the element of a macro, not known yet, for [`super::fold`].
    pub(super) fn push_unknown(&mut self, name: &str) {
        self.locals.push((name.to_owned(), Value::Unknown));
    }

    pub(super) fn pop(&mut self) {
        self.locals.pop();
    }

    /// The value of a part by itself, with a budget of its own.
    pub(super) fn anew(&mut self, expr: &Expr) -> Result<Value, Fault> {
        (self.steps, self.made) = (0, 0);
        self.value(expr)
    }

    pub(super) fn value(&mut self, expr: &Expr) -> Result<Value, Fault> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Fault::new(expr.at, format!("it takes more than {STEPS_MAX} steps")));
        }
        if !self.scope.spend() {
            return Err(Fault::new(
                expr.at,
                "the expressions take too many steps together".to_owned(),
            ));
        }
        self.value_of(expr)
    }

    fn value_of(&mut self, expr: &Expr) -> Result<Value, Fault> {
        let at = expr.at;
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Broken(why) => Err(Fault::new(at, why.clone())),
            Node::Name(name) => self.named(at, name),
            Node::Select(of, field) => {
                let of = self.value(of)?;
                selected(at, &of, field)
            }
            Node::Has(of, field) => match self.value(of)? {
                Value::Map(map) => Ok(Value::Bool(map.contains_key(field))),
                Value::Loose(loose) => Ok(loose.has(field)),
                Value::Unknown => Ok(Value::Unknown),
                other => Err(no_fields(at, &other, field)),
            },
            Node::Index(of, key) => {
                let (of, key) = (self.value(of)?, self.value(key)?);
                indexed(at, &of, &key)
            }
            Node::Call(of, name, args) => self.called(at, of.as_deref(), name, args),
            Node::Not(of) => match self.value(of)? {
                Value::Bool(flag) => Ok(Value::Bool(!flag)),
                Value::Unknown => Ok(Value::Unknown),
                other => Err(Fault::new(at, format!("`!` needs true or false, not {}", other.kind()))),
            },
            Node::Negative(of) => match self.value(of)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or_else(|| too_large(at)),
                Value::Double(number) => Ok(Value::Double(-number)),
                Value::Unknown => Ok(Value::Unknown),
                other => Err(Fault::new(at, format!("`-` needs a number, not {}", other.kind()))),
            },
            Node::Binary(operator, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                let value = binary(at, *operator, &a, &b)?;
                self.charge(at, value)
            }
            Node::And(parts) => self.decided(parts, false),
            Node::Or(parts) => self.decided(parts, true),
            Node::Choice(test, yes, no) => match self.value(test)? {
                Value::Bool(true) => self.value(yes),
                Value::Bool(false) => self.value(no),
                Value::Unknown => Ok(Value::Unknown),
                other => Err(not_a_condition(test.at, &other)),
            },
            Node::List(parts) => {
                let items = parts
                    .iter()
                    .map(|part| self.value(part))
                    .collect::<Result<Vec<_>, _>>()?;
                self.charge(at, Value::List(Arc::new(items)))
            }
            Node::Map(pairs) => self.map(at, pairs),
            Node::Macro(of) => self.walked(at, of),
        }
    }

    /// Counts what an evaluation makes.
    fn charge(&mut self, at: usize, value: Value) -> Result<Value, Fault> {
        self.made = self.made.saturating_add(value.weight());
        if self.made > MADE_MAX {
            return Err(Fault::new(at, format!("its values take more than {MADE_MAX} bytes")));
        }
        Ok(value)
    }

    fn named(&self, at: usize, name: &str) -> Result<Value, Fault> {
        let local = self.locals.iter().rev().find(|(local, _)| local == name);
        local
            .map(|(_, value)| value.clone())
            .or_else(|| self.scope.name(name))
            .ok_or_else(|| Fault::new(at, format!("`{}` is not known here", shown(name))))
    }

    fn called(&mut self, at: usize, of: Option<&Expr>, name: &str, args: &[Expr]) -> Result<Value, Fault> {
        let of = of.map(|of| self.value(of)).transpose()?;
        let args = args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>, _>>()?;
        if of.is_none()
            && let Some(answer) = self.scope.call(name, &args)
        {
            return answer.map_err(|message| Fault::new(at, message));
        }
        let open = of.iter().chain(&args).any(Value::is_open);
        if open {
            return Ok(Value::Unknown);
        }
        let left = MADE_MAX.saturating_sub(self.made);
        let value = functions::call(name, of.as_ref(), &args, left).map_err(|message| Fault::new(at, message))?;
        self.charge(at, value)
    }

    /// `&&` and `||`: the value that `decides` wins over everything else, then what is unknown.
    fn decided(&mut self, parts: &[Expr], decides: bool) -> Result<Value, Fault> {
        let (mut unknown, mut fault) = (false, None);
        for part in parts {
            match self.value(part) {
                Ok(Value::Bool(flag)) if flag == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(Value::Unknown) => unknown = true,
                Ok(other) => {
                    fault.get_or_insert_with(|| not_a_condition(part.at, &other));
                }
                Err(error) => {
                    fault.get_or_insert(error);
                }
            }
        }
        match fault {
            _ if unknown => Ok(Value::Unknown),
            Some(fault) => Err(fault),
            None => Ok(Value::Bool(!decides)),
        }
    }

    fn map(&mut self, at: usize, pairs: &[(Expr, Expr)]) -> Result<Value, Fault> {
        let mut map = BTreeMap::new();
        for (key, value) in pairs {
            let name = match self.value(key)? {
                Value::Text(name) => name.to_string(),
                Value::Unknown => return Ok(Value::Unknown),
                other => return Err(Fault::new(key.at, format!("a key is a text, not {}", other.kind()))),
            };
            if map.insert(name, self.value(value)?).is_some() {
                return Err(Fault::new(key.at, "the same key stands twice in a map"));
            }
        }
        self.charge(at, Value::Map(Arc::new(map)))
    }

    fn walked(&mut self, at: usize, of: &Macro) -> Result<Value, Fault> {
        let items: Vec<Value> = match self.value(&of.range)? {
            Value::List(items) => items.to_vec(),
            Value::Map(map) => map.keys().map(|key| Value::text(key)).collect(),
            Value::Loose(loose) if !loose.open => loose.map.keys().map(|key| Value::text(key)).collect(),
            Value::Loose(_) => return Ok(Value::Unknown),
            Value::Unknown => return Ok(Value::Unknown),
            other => {
                let kind = other.kind();
                return Err(Fault::new(
                    at,
                    format!("`{}` walks a list or a map, not {kind}", of.kind.name()),
                ));
            }
        };
        match of.kind {
            MacroKind::All => self.any_of(of, items, false),
            MacroKind::Exists => self.any_of(of, items, true),
            MacroKind::ExistsOne => match self.picked(of, &items)? {
                Some(picked) => Ok(Value::Bool(picked.len() == 1)),
                None => Ok(Value::Unknown),
            },
            MacroKind::Filter => match self.picked(of, &items)? {
                Some(picked) => self.charge(at, Value::List(Arc::new(picked))),
                None => Ok(Value::Unknown),
            },
            MacroKind::Map => self.mapped(at, of, items),
        }
    }

    fn with(&mut self, of: &Macro, item: Value, part: &Expr) -> Result<Value, Fault> {
        self.locals.push((of.name.clone(), item));
        let value = self.value(part);
        self.locals.pop();
        value
    }

    fn any_of(&mut self, of: &Macro, items: Vec<Value>, decides: bool) -> Result<Value, Fault> {
        let (mut unknown, mut fault) = (false, None);
        for item in items {
            match self.with(of, item, &of.parts[0]) {
                Ok(Value::Bool(flag)) if flag == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(Value::Unknown) => unknown = true,
                Ok(other) => {
                    fault.get_or_insert_with(|| not_a_condition(of.parts[0].at, &other));
                }
                Err(error) => {
                    fault.get_or_insert(error);
                }
            }
        }
        match fault {
            _ if unknown => Ok(Value::Unknown),
            Some(fault) => Err(fault),
            None => Ok(Value::Bool(!decides)),
        }
    }

    /// The elements for which the first part holds; `None`: that is not known yet.
    fn picked(&mut self, of: &Macro, items: &[Value]) -> Result<Option<Vec<Value>>, Fault> {
        let mut picked = Vec::new();
        for item in items {
            match self.with(of, item.clone(), &of.parts[0])? {
                Value::Bool(true) => picked.push(item.clone()),
                Value::Bool(false) => {}
                Value::Unknown => return Ok(None),
                other => return Err(not_a_condition(of.parts[0].at, &other)),
            }
        }
        Ok(Some(picked))
    }

    fn mapped(&mut self, at: usize, of: &Macro, items: Vec<Value>) -> Result<Value, Fault> {
        let items = match &of.parts[..] {
            [_] => items,
            _ => match self.picked(of, &items)? {
                Some(picked) => picked,
                None => return Ok(Value::Unknown),
            },
        };
        let last = &of.parts[of.parts.len() - 1];
        let values = items
            .into_iter()
            .map(|item| self.with(of, item, last))
            .collect::<Result<Vec<_>, _>>()?;
        self.charge(at, Value::List(Arc::new(values)))
    }
}

fn selected(at: usize, of: &Value, field: &str) -> Result<Value, Fault> {
    match of {
        Value::Map(map) => match map.get(field) {
            Some(value) => Ok(value.clone()),
            None => Err(no_such(at, field, map)),
        },
        Value::Loose(loose) => Ok(loose.get(field)),
        Value::Unknown => Ok(Value::Unknown),
        other => Err(no_fields(at, other, field)),
    }
}

fn no_such(at: usize, field: &str, map: &BTreeMap<String, Value>) -> Fault {
    let near = crate::suggest::nearest(field, map.keys().map(String::as_str));
    let meant = near.map(|near| format!("; did you mean `{}`?", shown(near)));
    Fault::new(
        at,
        format!("there is no `{}`{}", shown(field), meant.unwrap_or_default()),
    )
}

fn no_fields(at: usize, of: &Value, field: &str) -> Fault {
    Fault::new(at, format!("{} has no field `{}`", of.kind(), shown(field)))
}

fn indexed(at: usize, of: &Value, key: &Value) -> Result<Value, Fault> {
    match (of, key) {
        (Value::Unknown, _) | (_, Value::Unknown) => Ok(Value::Unknown),
        (Value::Map(_) | Value::Loose(_), Value::Text(field)) => selected(at, of, field),
        (Value::List(items), Value::Int(index)) => {
            let item = usize::try_from(*index).ok().and_then(|index| items.get(index));
            item.cloned()
                .ok_or_else(|| Fault::new(at, format!("the list has {} elements, none at {index}", items.len())))
        }
        (of, key) => Err(Fault::new(
            at,
            format!("{} has no element at {}", of.kind(), key.kind()),
        )),
    }
}

fn not_a_condition(at: usize, value: &Value) -> Fault {
    Fault::new(at, format!("true or false is needed here, not {}", value.kind()))
}

fn too_large(at: usize) -> Fault {
    Fault::new(at, "the number is too large")
}

fn binary(at: usize, operator: Operator, a: &Value, b: &Value) -> Result<Value, Fault> {
    use std::cmp::Ordering::{Greater, Less};
    // Which names there are is known even where their values are not.
    match (operator, a, b) {
        (Operator::In, Value::Text(key), Value::Map(map)) => return Ok(Value::Bool(map.contains_key(&**key))),
        (Operator::In, Value::Text(key), Value::Loose(loose)) => return Ok(loose.has(key)),
        _ => {}
    }
    if a.is_open() || b.is_open() {
        return Ok(Value::Unknown);
    }
    let wrong = || {
        let (sign, a, b) = (operator.sign(), a.kind(), b.kind());
        Fault::new(at, format!("`{sign}` does not work on {a} and {b}"))
    };
    let order = || a.compared(b).ok_or_else(wrong);
    Ok(match operator {
        Operator::Equal => Value::Bool(a.equals(b)),
        Operator::Unequal => Value::Bool(!a.equals(b)),
        Operator::Less => Value::Bool(order()? == Less),
        Operator::LessOrEqual => Value::Bool(order()? != Greater),
        Operator::Greater => Value::Bool(order()? == Greater),
        Operator::GreaterOrEqual => Value::Bool(order()? != Less),
        Operator::In => match (a, b) {
            (item, Value::List(items)) => Value::Bool(items.iter().any(|i| i.equals(item))),
            _ => return Err(wrong()),
        },
        Operator::Add => match (a, b) {
            (Value::Text(a), Value::Text(b)) if a.len() + b.len() <= MADE_MAX => {
                Value::Text(Arc::from([&**a, &**b].concat()))
            }
            (Value::Text(_), Value::Text(_)) => {
                return Err(Fault::new(at, format!("its values take more than {MADE_MAX} bytes")));
            }
            (Value::List(a), Value::List(b)) => Value::List(Arc::new([a.as_slice(), b.as_slice()].concat())),
            _ => return reckoned(at, operator, a, b).ok_or_else(wrong)?,
        },
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
            return reckoned(at, operator, a, b).ok_or_else(wrong)?;
        }
    })
}

/// Arithmetic; `None` for what is no pair of numbers of one kind.
fn reckoned(at: usize, operator: Operator, a: &Value, b: &Value) -> Option<Result<Value, Fault>> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) if matches!(operator, Operator::Divide | Operator::Remainder) => {
            Some(Err(Fault::new(at, "it divides by 0")))
        }
        (Value::Int(a), Value::Int(b)) => {
            let number = match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                Operator::Remainder => a.checked_rem(*b),
                _ => return None,
            };
            Some(number.map(Value::Int).ok_or_else(|| too_large(at)))
        }
        (Value::Double(a), Value::Double(b)) => {
            let number = match operator {
                Operator::Add => a + b,
                Operator::Subtract => a - b,
                Operator::Multiply => a * b,
                Operator::Divide => a / b,
                _ => return None,
            };
            let finite = number.is_finite().then_some(Value::Double(number));
            Some(finite.ok_or_else(|| too_large(at)))
        }
        _ => None,
    }
}
