//! What expressions mean, case by case; that folding changes no meaning; and that no text crashes,
//! hangs or grows.

use super::{DEPTH_MAX, EXPRESSION_MAX, Folded, Loose, MADE_MAX, STEPS_MAX, Scope, Value, evaluate, fold, parse};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names and their values; a name that is not there is unknown when `open`.
struct World {
    names: BTreeMap<&'static str, Value>,
}

impl Scope for World {
    fn name(&self, name: &str) -> Option<Value> {
        self.names.get(name).cloned()
    }

    fn call(&self, name: &str, _: &[Value]) -> Option<Result<Value, String>> {
        (name == "later").then_some(Ok(Value::Unknown))
    }
}

fn world() -> World {
    let loose = Loose {
        map: BTreeMap::from([("A".to_owned(), Value::text("x"))]),
        open: false,
    };
    World {
        names: BTreeMap::from([
            ("n", Value::Int(3)),
            ("t", Value::text("abc")),
            ("b", Value::Bool(true)),
            ("l", Value::texts(["x", "y", "z"])),
            ("m", Value::map([("k", Value::Int(1)), ("odd-key", Value::Null)])),
            ("env", Value::Loose(Arc::new(loose))),
            ("u", Value::Unknown),
        ]),
    }
}

/// The value as it is written, or what is wrong.
fn said(text: &str) -> String {
    match parse(text) {
        Err(wrong) => format!("{}: {}", wrong.at, wrong.message),
        Ok(expr) => match evaluate(&expr, &world()) {
            Ok(value) => super::Expr::new(0, super::Node::Literal(value)).to_string(),
            Err(fault) => format!("{}! {}", fault.at, fault.message),
        },
    }
}

/// What is written, and what it is: a value, or where it is wrong (`!`: when it is evaluated) and why.
const VALUES: &[(&str, &str)] = &[
    ("1 + 2 * 3 - 4 / 2 % 2", "7"),
    ("-7 / 2", "(-3)"),
    ("-7 % 2", "(-1)"),
    ("0x1F", "31"),
    ("1.5 + 0.25", "1.75"),
    ("-9223372036854775808", "(-9223372036854775808)"),
    ("9223372036854775807 + 1", "20! the number is too large"),
    ("-(-9223372036854775808)", "0! the number is too large"),
    (
        "9223372036854775808",
        "0: a value is expected here, not `9223372036854775808`",
    ),
    ("1 / 0", "2! it divides by 0"),
    ("1 % 0", "2! it divides by 0"),
    ("1.0 / 0.0", "4! the number is too large"),
    ("1 + 1.0", "2! `+` does not work on a number and a fraction"),
    ("1 == 1.0", "true"),
    ("1 < 1.5 && 2.5 >= 2", "true"),
    ("'a' < 'b' && 'B' < 'a'", "true"),
    ("'a' == 1", "false"),
    ("'a' < 1", "4! `<` does not work on a text and a number"),
    ("[1, 'a'] == [1.0, 'a']", "true"),
    ("{'a': 1} == {'a': 1}", "true"),
    ("{'a': 1, 'a': 2}", "9! the same key stands twice in a map"),
    ("{1: 2}", "1! a key is a text, not a number"),
    ("'a' + \"b\" + r'\\n' + '''c'd'''", "'ab\\\\nc\\'d'"),
    ("'\\u00fc\\x41\\t\\'\\U0001F600'", "'üA\\u0009\\'😀'"),
    ("'\\0'", "1: this escape does not exist"),
    ("[1] + [2]", "[1, 2]"),
    ("n in [1, 3] && 'x' in l && 'k' in m && !('z' in m)", "true"),
    ("'a' in 'abc'", "4! `in` does not work on a text and a text"),
    ("l[0] + l[2]", "'xz'"),
    ("l[3]", "1! the list has 3 elements, none at 3"),
    ("l[-1]", "1! the list has 3 elements, none at -1"),
    ("m.k + m['k']", "2"),
    ("m['odd-key']", "null"),
    ("m.kk", "2! there is no `kk`"),
    ("m.odd_kay", "2! there is no `odd_kay`; did you mean `odd-key`?"),
    ("t.k", "2! a text has no field `k`"),
    ("has(m.k) && !has(m.z)", "true"),
    ("env.A + env.B", "'x'"),
    ("has(env.A) && !has(env.B) && 'A' in env", "true"),
    ("b ? 1 : 2", "1"),
    ("false ? 1 : true ? 2 : 3", "2"),
    ("n ? 1 : 2", "0! true or false is needed here, not a number"),
    ("true || 1 / 0 == 1", "true"),
    ("1 / 0 == 1 || true", "true"),
    ("false && nobody", "false"),
    ("nobody && true", "0! `nobody` is not known here"),
    ("true && 1", "8! true or false is needed here, not a number"),
    ("!n", "0! `!` needs true or false, not a number"),
    ("-t", "0! `-` needs a number, not a text"),
    ("!!b", "true"),
    ("size('üb') + size(l) + m.size()", "7"),
    ("t.contains('b') && t.startsWith('a') && t.endsWith('c')", "true"),
    ("t.matches('^a.c$') && matches(t, 'b')", "true"),
    ("t.matches('(')", "2! `(` is not a regular expression"),
    ("'AbÜ'.lowerAscii() + 'aBü'.upperAscii()", "'abÜABü'"),
    ("' a '.trim() + 'a-b-a'.replace('a', 'c')", "'ac-b-c'"),
    ("'a,b,,c'.split(',').join('+')", "'a+b++c'"),
    ("'a'.split('')", "4! `split` needs a separator that is not empty"),
    (
        "[1].join('')",
        "4! `join` needs a list of texts; one element is a number",
    ),
    ("string(1) + string(1.5) + string(true) + string('x')", "'11.5truex'"),
    ("int('12') + int(3.9) + int(-3.9)", "12"),
    ("int('x')", "0! `int` cannot make a number of 'x'"),
    ("int(1e300)", "0! `int` cannot make a number of a fraction"),
    ("double('1.5') + double(1)", "2.5"),
    ("bool('true') && !bool('false')", "true"),
    ("bool('yes')", "0! `bool` needs the text `true` or `false`"),
    ("nope(1)", "0! there is no function `nope`"),
    ("t.size(1)", "2! `size(x)` does not work on a text, a number"),
    (
        "l.all(x, x != '') && l.exists(x, x == 'y') && l.exists_one(x, x == 'z')",
        "true",
    ),
    ("l.filter(x, x > 'x').map(x, x + x)", "['yy', 'zz']"),
    ("[1, 2, 3].map(x, x > 1, x * 10)", "[20, 30]"),
    ("m.exists(k, k == 'odd-key')", "true"),
    ("[[1, 2], [3]].map(x, x.map(y, y + x.size()))", "[[3, 4], [4]]"),
    ("[1].map(n, n + 1)", "[2]"),
    ("l.map(x, nobody)", "9! `nobody` is not known here"),
    ("n.map(x, x)", "2! `map` walks a list or a map, not a number"),
    (
        "l.all(1, true)",
        "2: the first argument of `all` is the name of an element",
    ),
    ("l.all(x)", "2: `all` takes a name and an expression"),
    ("u && false", "false"),
    ("u || true", "true"),
    ("u && b", "unknown"),
    ("u == u", "unknown"),
    ("u.any['thing'] + 'x'", "unknown"),
    ("l.exists(x, x == u)", "unknown"),
    ("later() ? 1 : 2", "unknown"),
    ("u && 1 / 0 == 1", "unknown"),
    ("size(u)", "unknown"),
    ("", "0: the expression is empty"),
    ("  ", "0: the expression is empty"),
    ("1 +", "3: a value is expected here, not the end of the expression"),
    ("1 2", "2: an operator or the end is expected here, not `2`"),
    ("a & b", "2: `&` has no meaning in an expression"),
    ("(1", "2: `)` is expected here, not the end of the expression"),
    ("[1, 2", "5: `,` or `]` is expected here, not the end of the expression"),
    ("m.", "2: a name is expected behind `.`"),
    ("m.1", "1: an operator or the end is expected here, not `0.1`"),
    ("'a", "0: a text is not closed"),
    ("1.2.3", "3: an operator or the end is expected here, not `0.3`"),
    ("12ab", "0: `12ab` is not a number"),
    ("in", "0: a value is expected here, not `in`"),
    ("b ? 1", "5: `:` is expected here, not the end of the expression"),
    ("[1, 2,]", "[1, 2]"),
    ("has(m)", "0: `has` takes one field"),
    ("error('x')", "0! x"),
];

#[test]
fn values() {
    let wrong: Vec<_> = VALUES
        .iter()
        .map(|(text, expect)| (*text, said(text), *expect))
        .filter(|(_, found, expect)| found != expect)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_is_too_deep_too_long_or_too_large() {
    // On a stack much smaller than that of any thread that compiles.
    let inside = || {
        for (open, close) in [
            ("(", ")"),
            ("[", "]"),
            ("{'a':", "}"),
            ("!", ""),
            ("-", ""),
            ("f(", ")"),
            ("b?1:", ""),
        ] {
            let deep = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
            assert!(parse(&deep(DEPTH_MAX / 3)).is_ok(), "{open}");
            let found = parse(&deep(400)).expect_err("too deep").message;
            assert!(found.contains("nested more than"), "{found}");
        }
        let chain = |part: &str, n: usize| format!("1{}", part.repeat(n));
        for part in ["+1", ".a", "[0]", "==1"] {
            assert!(
                parse(&chain(part, 400))
                    .expect_err("too deep")
                    .message
                    .contains("nested")
            );
        }
        // `&&` and `||` are no deeper for being many.
        assert_eq!(said(&format!("true{}", " && true".repeat(400))), "true");
        assert!(said(&"1".repeat(EXPRESSION_MAX + 1)).contains("bytes; the most is"));
        assert!(!said(&" ".repeat(EXPRESSION_MAX)).contains("the most is"));
        let doubled = format!("['aaaaaaaa']{}", ".map(x, x + x + x + x)".repeat(40));
        assert!(
            said(&doubled).contains(&format!("more than {MADE_MAX} bytes")),
            "{}",
            said(&doubled)
        );
        let hundred = format!("[{}]", "1,".repeat(100));
        let walked = format!("{hundred}.map(a, {hundred}.map(b, {hundred}.map(c, a + b + c)))");
        assert!(
            said(&walked).contains(&format!("more than {STEPS_MAX} steps")),
            "{}",
            said(&walked)
        );
        let replaced = format!("'{}'.replace('', '{}').size()", "a".repeat(1_900), "b".repeat(1_900));
        assert!(said(&replaced).contains("more than"), "{}", said(&replaced));
        for pattern in ["(a*)*(a*)*(a*)*b", "(a|aa)+$", "a{1,9}{1,9}{1,9}"] {
            said(&format!("'{}'.matches('{pattern}')", "a".repeat(2_000)));
        }
        assert!(said("'a'.matches('a{1000}{1000}')").contains("too large"));
    };
    let thread = std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(inside)
        .expect("a thread");
    thread.join().expect("no panic");
}

/// Expressions that mean something most of the time.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "1",
            "0",
            "-2",
            "2.5",
            "'a'",
            "'it\\'s'",
            "true",
            "false",
            "null",
            "n",
            "t",
            "b",
            "l",
            "m.k",
            "m['odd-key']",
            "env.A",
            "env.Z",
            "u",
            "u.x",
            "later()",
            "[]",
            "{}",
            "x",
        ])
        .prop_map(str::to_owned)
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            (
                two.clone(),
                prop::sample::select(vec!["+", "-", "*", "/", "%", "==", "!=", "<", ">=", "in", "&&", "||"])
            )
                .prop_map(|((a, b), sign)| format!("({a} {sign} {b})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.clone().prop_map(|a| format!("-({a})")),
            (inner.clone(), two.clone()).prop_map(|(a, (b, c))| format!("({a} ? {b} : {c})")),
            two.clone().prop_map(|(a, b)| format!("[{a}, {b}]")),
            two.clone().prop_map(|(a, b)| format!("{{'k': {a}, 'j': {b}}}")),
            two.clone().prop_map(|(a, b)| format!("({a})[{b}]")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.clone().prop_map(|a| format!("string({a})")),
            (
                two,
                prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"])
            )
                .prop_map(|((a, b), kind)| format!("({a}).{kind}(x, {b})")),
        ]
    })
}

/// What is unknown becomes known.
fn later(world: World, value: &Value) -> World {
    let mut names = world.names;
    names.insert("u", value.clone());
    names.insert("x", Value::Int(9));
    World { names }
}

struct Later(World);

impl Scope for Later {
    fn name(&self, name: &str) -> Option<Value> {
        self.0.name(name)
    }

    fn call(&self, name: &str, _: &[Value]) -> Option<Result<Value, String>> {
        (name == "later").then_some(Ok(Value::Bool(true)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// What is left of an expression, written down and read again, has the value of the whole.
    #[test]
    fn folding_changes_no_value(text in expression(), kind in 0..4_usize) {
        let Ok(expr) = parse(&text) else { return Ok(()) };
        let values = [Value::Bool(true), Value::Int(2), Value::text("u"), Value::map([("x", Value::Bool(false))])];
        let mut now = world();
        now.names.insert("x", Value::Int(9));
        let then = Later(later(world(), &values[kind]));
        let whole = evaluate(&expr, &then);
        match fold(&expr, &now) {
            Ok(Folded::Value(value)) => prop_assert_eq!(Ok(value), whole),
            Ok(Folded::Rest(rest)) => {
                let written = rest.to_string();
                let again = match parse(&written) {
                    Ok(again) => again,
                    // Written with all its brackets it may be deeper than it was.
                    Err(wrong) if wrong.message.contains("nested") || wrong.message.contains("bytes") => return Ok(()),
                    Err(wrong) => return Err(TestCaseError::fail(format!("{written}: {}", wrong.message))),
                };
                prop_assert_eq!(again.to_string(), written.clone());
                match (whole, evaluate(&again, &then)) {
                    (Ok(a), Ok(b)) => prop_assert_eq!(a, b, "{} {}", text, written),
                    (Err(_), Err(_)) => {}
                    other => return Err(TestCaseError::fail(format!("{text} {written} {other:?}"))),
                }
            }
            // An error that nothing unknown can avert.
            Err(_) => prop_assert!(whole.is_err(), "{} {:?}", text, whole),
        }
    }

    #[test]
    fn no_text_does_harm(text in "\\PC{0,200}") {
        said(&text);
    }

    #[test]
    fn no_text_of_our_words_does_harm(words in prop::collection::vec(prop::sample::select(vec![
        "1", "'a'", "x", "(", ")", "[", "]", "{", "}", "?", ":", ",", ".", "!", "-", "+", "&&", "||", "in", "has", ".map(x,", "\"", "'", "\\",
    ]), 0..120)) {
        said(&words.concat());
        said(&words.join(" "));
    }
}
