//! The words of an expression become a tree, by the precedence of CEL's grammar.
//!
//! Not here: whether names and functions exist.

use super::ast::{Expr, Macro, MacroKind, Node, Operator};
use super::token::{Token, tokens};
use super::value::Value;
use super::{DEPTH_MAX, Wrong};
use crate::syntax::shown;

/// Reads a whole expression.
pub(crate) fn parse(text: &str) -> Result<Expr, Wrong> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    if parser.peek() == &Token::End {
        return Err(Wrong::new(0, "the expression is empty").help("write a condition such as `git.branch == 'main'`"));
    }
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    /// How deep the parser stands.
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> usize {
        self.tokens[self.next].0
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn takes(&mut self, sign: &str) -> bool {
        let there = matches!(self.peek(), Token::Sign(found) if *found == sign);
        self.next += usize::from(there);
        there
    }

    fn expect(&mut self, sign: &str) -> Result<(), Wrong> {
        if self.takes(sign) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{sign}`")))
        }
    }

    fn unexpected(&self, wanted: &str) -> Wrong {
        let found = match self.peek() {
            Token::End => "the end of the expression".to_owned(),
            Token::Name(name) => format!("`{}`", shown(name)),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::Text(text) => format!("the text '{}'", shown(text)),
            Token::Int(number) => format!("`{number}`"),
            Token::IntMin => "`9223372036854775808`".to_owned(),
            Token::Double(number) => format!("`{number}`"),
        };
        Wrong::new(self.at(), format!("{wanted} is expected here, not {found}"))
    }

    fn made(&self, at: usize, node: Node) -> Result<Expr, Wrong> {
        let expr = Expr::new(at, node);
        if expr.depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        Ok(expr)
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Wrong>) -> Result<T, Wrong> {
        if self.depth >= DEPTH_MAX {
            return Err(too_deep(self.at()));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn expression(&mut self) -> Result<Expr, Wrong> {
        self.deeper(|parser| {
            let at = parser.at();
            let test = parser.or()?;
            if !parser.takes("?") {
                return Ok(test);
            }
            let yes = parser.or()?;
            parser.expect(":")?;
            let no = parser.expression()?;
            parser.made(at, Node::Choice(Box::new(test), Box::new(yes), Box::new(no)))
        })
    }

    fn or(&mut self) -> Result<Expr, Wrong> {
        self.several("||", Self::and, Node::Or)
    }

    fn and(&mut self) -> Result<Expr, Wrong> {
        self.several("&&", Self::relation, Node::And)
    }

    fn several(
        &mut self,
        sign: &str,
        part: fn(&mut Self) -> Result<Expr, Wrong>,
        node: fn(Vec<Expr>) -> Node,
    ) -> Result<Expr, Wrong> {
        let at = self.at();
        let mut parts = vec![part(self)?];
        while self.takes(sign) {
            parts.push(part(self)?);
        }
        match parts.pop() {
            Some(only) if parts.is_empty() => Ok(only),
            Some(last) => {
                parts.push(last);
                self.made(at, node(parts))
            }
            None => Err(self.unexpected("a value")),
        }
    }

    fn relation(&mut self) -> Result<Expr, Wrong> {
        use Operator::{Equal, Greater, GreaterOrEqual, In, Less, LessOrEqual, Unequal};
        let signs = [Equal, Unequal, LessOrEqual, GreaterOrEqual, Less, Greater, In];
        self.chain(&signs, Self::sum)
    }

    fn sum(&mut self) -> Result<Expr, Wrong> {
        self.chain(&[Operator::Add, Operator::Subtract], Self::product)
    }

    fn product(&mut self) -> Result<Expr, Wrong> {
        let signs = [Operator::Multiply, Operator::Divide, Operator::Remainder];
        self.chain(&signs, Self::unary)
    }

    fn chain(&mut self, signs: &[Operator], part: fn(&mut Self) -> Result<Expr, Wrong>) -> Result<Expr, Wrong> {
        let mut left = part(self)?;
        while let Some(operator) = self.operator(signs) {
            let at = self.at();
            self.next += 1;
            let right = part(self)?;
            left = self.made(at, Node::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn operator(&self, signs: &[Operator]) -> Option<Operator> {
        let word = match self.peek() {
            Token::Sign(sign) => *sign,
            Token::Name(name) if name == "in" => "in",
            _ => return None,
        };
        signs.iter().copied().find(|operator| operator.sign() == word)
    }

    fn unary(&mut self) -> Result<Expr, Wrong> {
        let at = self.at();
        if self.takes("!") {
            let of = self.deeper(Self::unary)?;
            return self.made(at, Node::Not(Box::new(of)));
        }
        if self.takes("-") {
            let literal = match self.peek() {
                Token::Int(number) => Some(Value::Int(-*number)),
                Token::IntMin => Some(Value::Int(i64::MIN)),
                Token::Double(number) => Some(Value::Double(-*number)),
                _ => None,
            };
            if let Some(value) = literal {
                self.next += 1;
                return self.made(at, Node::Literal(value));
            }
            let of = self.deeper(Self::unary)?;
            return self.made(at, Node::Negative(Box::new(of)));
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Wrong> {
        let mut of = self.primary()?;
        loop {
            let at = self.at();
            if self.takes("[") {
                let key = self.expression()?;
                self.expect("]")?;
                of = self.made(at, Node::Index(Box::new(of), Box::new(key)))?;
            } else if self.takes(".") {
                let field_at = self.at();
                let Token::Name(field) = self.take() else {
                    self.next = self.next.saturating_sub(1);
                    return Err(Wrong::new(field_at, "a name is expected behind `.`")
                        .help("write `of['name']` for a name with other characters than letters, digits and `_`"));
                };
                of = if self.takes("(") {
                    self.method(field_at, of, field)?
                } else {
                    self.made(field_at, Node::Select(Box::new(of), field))?
                };
            } else {
                return Ok(of);
            }
        }
    }

    fn method(&mut self, at: usize, of: Expr, name: String) -> Result<Expr, Wrong> {
        let mut args = self.arguments(")")?;
        let Some(kind) = MacroKind::ALL.into_iter().find(|kind| kind.name() == name) else {
            return self.made(at, Node::Call(Some(Box::new(of)), name, args));
        };
        let most = if kind == MacroKind::Map { 3 } else { 2 };
        if args.len() < 2 || args.len() > most {
            return Err(Wrong::new(at, format!("`{name}` takes a name and an expression"))
                .help(format!("write `list.{name}(x, x != '')`")));
        }
        let Node::Name(variable) = args.remove(0).node else {
            return Err(
                Wrong::new(at, format!("the first argument of `{name}` is the name of an element"))
                    .help(format!("write `list.{name}(x, x != '')`")),
            );
        };
        let of = Macro {
            kind,
            range: of,
            name: variable,
            parts: args,
        };
        self.made(at, Node::Macro(Box::new(of)))
    }

    /// Expressions up to the closing sign, which is taken.
    fn arguments(&mut self, close: &str) -> Result<Vec<Expr>, Wrong> {
        let mut args = Vec::new();
        while !self.takes(close) {
            args.push(self.expression()?);
            if !self.takes(",") && !matches!(self.peek(), Token::Sign(sign) if *sign == close) {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, Wrong> {
        let at = self.at();
        match self.take() {
            Token::Int(number) => self.made(at, Node::Literal(Value::Int(number))),
            Token::Double(number) => self.made(at, Node::Literal(Value::Double(number))),
            Token::Text(text) => self.made(at, Node::Literal(Value::text(&text))),
            Token::Name(name) => self.named(at, name),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let items = self.arguments("]")?;
                self.made(at, Node::List(items))
            }
            Token::Sign("{") => self.map(at),
            Token::End => Err(self.unexpected("a value")),
            Token::Sign(_) | Token::IntMin => {
                self.next -= 1;
                Err(self.unexpected("a value"))
            }
        }
    }

    fn named(&mut self, at: usize, name: String) -> Result<Expr, Wrong> {
        match name.as_str() {
            "true" => return self.made(at, Node::Literal(Value::Bool(true))),
            "false" => return self.made(at, Node::Literal(Value::Bool(false))),
            "null" => return self.made(at, Node::Literal(Value::Null)),
            "in" => {
                self.next -= 1;
                return Err(self.unexpected("a value"));
            }
            _ => {}
        }
        if !self.takes("(") {
            return self.made(at, Node::Name(name));
        }
        let mut args = self.arguments(")")?;
        if name == "has" {
            let one = (args.len() == 1).then(|| args.remove(0));
            return match one.map(|arg| arg.node) {
                Some(Node::Select(of, field)) => self.made(at, Node::Has(of, field)),
                _ => Err(Wrong::new(at, "`has` takes one field").help("write `has(needs.build.outputs.version)`")),
            };
        }
        if name == "error" {
            return match args.first().map(|arg| &arg.node) {
                Some(Node::Literal(Value::Text(why))) => self.made(at, Node::Broken(why.to_string())),
                _ => self.made(at, Node::Call(None, name, args)),
            };
        }
        self.made(at, Node::Call(None, name, args))
    }

    fn map(&mut self, at: usize) -> Result<Expr, Wrong> {
        let mut pairs = Vec::new();
        while !self.takes("}") {
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            pairs.push((key, value));
            if !self.takes(",") && !matches!(self.peek(), Token::Sign("}")) {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
        self.made(at, Node::Map(pairs))
    }
}

fn too_deep(at: usize) -> Wrong {
    Wrong::new(at, format!("the expression is nested more than {DEPTH_MAX} deep")).help("let a script decide")
}
