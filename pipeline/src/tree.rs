//! The YAML text as a tree that knows the byte offset of every key and value.
//!
//! An alias is a second reference to the same node, so that a file cannot grow in memory; how
//! large it would be if every alias were replaced is counted and bounded. `<<` is resolved here.
//!
//! Not here: what the keys mean. The parser underneath does not recurse, and neither does this.

use crate::limits::{ALIASES_MAX, DEPTH_MAX, EXPANDED_MAX, KEY_MAX, NODES_MAX};
use crate::report::{Problem, Report};
use crate::syntax;
use crate::template::OPEN;
use granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, options};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A reference to a node of its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    /// Byte offset of its first character.
    pub(crate) at: usize,
    pub(crate) value: Value<'a>,
    /// Values and keys below and including it, aliases replaced.
    size: usize,
}

#[derive(Debug)]
pub(crate) enum Value<'a> {
    Scalar(Scalar<'a>),
    List(Vec<NodeId>),
    /// In the order of the file; keys are unique. Merged keys (`<<`) come last.
    Map(Vec<Pair<'a>>),
}

#[derive(Debug, Clone)]
pub(crate) struct Pair<'a> {
    /// Byte offset of the key.
    pub(crate) at: usize,
    pub(crate) key: Cow<'a, str>,
    pub(crate) value: NodeId,
}

#[derive(Debug)]
pub(crate) struct Scalar<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) kind: Kind,
    /// Byte offset of the first `${{`, if there is one.
    pub(crate) expression: Option<usize>,
    /// Byte offset of the text, if it stands in the file just as it is.
    pub(crate) verbatim: Option<usize>,
    /// It holds a NUL, by an escape.
    pub(crate) nul: bool,
}

/// What an unquoted text means in YAML 1.2; a quoted one is always [`Kind::Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Integer,
    Float,
    Text,
    /// It was refused already: whoever reads it says nothing.
    Refused,
}

/// The values of a file and of those that it includes.
#[derive(Default)]
pub(crate) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
}

impl<'a> Tree<'a> {
    pub(crate) fn node(&self, id: NodeId) -> &Node<'a> {
        &self.nodes[id.0]
    }

    /// Values and keys below and including a node, aliases replaced.
    pub(crate) fn size(&self, id: NodeId) -> usize {
        self.nodes[id.0].size
    }

    /// Reads `text`, whose offsets begin at `base`. `None` when the report says why there is nothing
    /// that can be looked at.
    pub(crate) fn parse(&mut self, text: &'a str, base: usize, report: &mut Report<'_>) -> Option<NodeId> {
        let mut options = options! {
            flow_nesting_limit: DEPTH_MAX,
            block_nesting_limit: DEPTH_MAX,
            disallow_directives: true,
            emit_unresolved_aliases: true,
        };
        options.set_emit_comments(false);
        let mut builder = Builder::new(text, base, std::mem::take(&mut self.nodes));
        let mut parser = Parser::new_from_str_with_options(text, options);
        let outcome = builder.read(&mut parser, report);
        self.nodes = builder.nodes;
        match outcome {
            Ok(()) if builder.root.is_none() => report.add(base, empty_file),
            Ok(()) => {}
            Err((at, problem)) => {
                report.add(at, || problem);
                return None;
            }
        }
        builder.root
    }
}

/// What is said of a file without any value.
pub(crate) fn empty_file() -> Problem {
    Problem::new("the file is empty").help("`buildflow init` writes a first one")
}

/// A list or mapping whose end has not come.
enum Open<'a> {
    List {
        node: NodeId,
        items: Vec<NodeId>,
    },
    Map {
        node: NodeId,
        pairs: Vec<Pair<'a>>,
        /// Where each key was first seen.
        seen: BTreeMap<Cow<'a, str>, usize>,
        /// What `<<` names, in order.
        merges: Vec<NodeId>,
        key: Pending<'a>,
    },
}

/// What a mapping waits for.
enum Pending<'a> {
    Key,
    Value {
        at: usize,
        key: Cow<'a, str>,
    },
    /// The value of `<<`.
    Merge,
    /// The value of a key that was refused.
    Dropped,
}

/// An error after which the rest of the file is not looked at.
type Fatal = (usize, Problem);

struct Builder<'a> {
    text: &'a str,
    /// Offsets of this text begin here.
    base: usize,
    nodes: Vec<Node<'a>>,
    open: Vec<Open<'a>>,
    anchors: BTreeMap<usize, NodeId>,
    aliases: usize,
    documents: usize,
    /// Where the last event ended.
    end: usize,
    root: Option<NodeId>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, base: usize, nodes: Vec<Node<'a>>) -> Self {
        Self {
            text,
            base,
            nodes,
            open: Vec::new(),
            anchors: BTreeMap::new(),
            aliases: 0,
            documents: 0,
            end: 0,
            root: None,
        }
    }

    fn read(&mut self, parser: &mut Parser<'a, StrInput<'a>>, report: &mut Report<'_>) -> Result<(), Fatal> {
        for next in parser {
            let (event, span) = next.map_err(|error| {
                let (at, problem) = syntax::explain(&error, self.text, self.end);
                (self.base + at, problem)
            })?;
            let at = self.base + span.start.byte_offset().unwrap_or_default();
            self.end = self.end.max(span.end.byte_offset().unwrap_or_default());
            let mut refused = false;
            if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema_tag("str")) {
                let tag_at = span.tag_start().and_then(|mark| mark.byte_offset());
                let at = tag_at.map_or(at, |tag_at| self.base + tag_at);
                report.add(at, || syntax::tag_refused(&tag.original()));
                refused = true;
            }
            match event {
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain && tag.is_none();
                    let scalar = if refused {
                        Scalar::refused()
                    } else {
                        self.scalar(text, plain, span)
                    };
                    let node = self.push(at, Value::Scalar(scalar), anchor)?;
                    self.arrived(node, at, report)?;
                }
                Event::SequenceStart(_, anchor, _) => {
                    let node = self.push(at, Value::List(Vec::new()), anchor)?;
                    self.open.push(Open::List {
                        node,
                        items: Vec::new(),
                    });
                }
                Event::MappingStart(_, anchor, _) => {
                    let node = self.push(at, Value::Map(Vec::new()), anchor)?;
                    self.open.push(Open::map(node));
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(open) = self.open.pop() {
                        let node = self.close(open, report)?;
                        self.arrived(node, self.nodes[node.0].at, report)?;
                    }
                }
                Event::Alias(anchor) => {
                    let node = self.alias(anchor, at, report)?;
                    self.arrived(node, at, report)?;
                }
                Event::UnresolvedAlias(name) => {
                    report.add(at, || syntax::unknown_anchor(&name));
                    let node = self.placeholder(at)?;
                    self.arrived(node, at, report)?;
                }
                Event::DocumentStart(..) => self.document(at)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn document(&mut self, at: usize) -> Result<(), Fatal> {
        self.documents += 1;
        if self.documents == 1 {
            return Ok(());
        }
        let problem = Problem::new("a second YAML document begins here")
            .help("one file holds one pipeline: put the other into a file of its own under `.buildflow/`");
        Err((at, problem))
    }

    fn push(&mut self, at: usize, value: Value<'a>, anchor: usize) -> Result<NodeId, Fatal> {
        if self.nodes.len() >= NODES_MAX {
            let problem = Problem::new(format!("the file holds more than {NODES_MAX} keys and values"))
                .help("put generated lists into scripts that the steps call");
            return Err((at, problem));
        }
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node { at, value, size: 1 });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        Ok(id)
    }

    /// Stands where an alias was that has no meaning.
    fn placeholder(&mut self, at: usize) -> Result<NodeId, Fatal> {
        self.push(at, Value::Scalar(Scalar::refused()), 0)
    }

    fn alias(&mut self, anchor: usize, at: usize, report: &mut Report<'_>) -> Result<NodeId, Fatal> {
        self.aliases += 1;
        if self.aliases > ALIASES_MAX {
            let problem = Problem::new(format!("the file holds more than {ALIASES_MAX} aliases"))
                .help("share keys with `templates` and `extends`");
            return Err((at, problem));
        }
        match self.anchors.get(&anchor) {
            Some(node) if self.open.iter().any(|open| open.node() == *node) => {
                report.add(at, || Problem::new("an alias stands inside of what it is an alias of"));
                self.placeholder(at)
            }
            Some(node) => Ok(*node),
            None => self.placeholder(at),
        }
    }

    /// Puts a complete value where it belongs.
    fn arrived(&mut self, node: NodeId, at: usize, report: &mut Report<'_>) -> Result<(), Fatal> {
        let size = self.nodes[node.0].size;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let parent = open.node();
        match open {
            Open::List { items, .. } => items.push(node),
            Open::Map {
                pairs,
                seen,
                merges,
                key,
                ..
            } => match std::mem::replace(key, Pending::Key) {
                Pending::Key => *key = take_key(&self.nodes[node.0], at, seen, report),
                Pending::Value { at, key } => pairs.push(Pair { at, key, value: node }),
                Pending::Merge => merges.push(node),
                Pending::Dropped => {}
            },
        }
        let total = &mut self.nodes[parent.0].size;
        *total = total.saturating_add(size);
        if *total > EXPANDED_MAX {
            let problem = Problem::new(format!(
                "aliases make the file larger than {EXPANDED_MAX} keys and values"
            ))
            .help("an alias is as large as what it stands for; use fewer of them");
            return Err((at, problem));
        }
        Ok(())
    }

    fn close(&mut self, open: Open<'a>, report: &mut Report<'_>) -> Result<NodeId, Fatal> {
        match open {
            Open::List { node, items } => {
                self.nodes[node.0].value = Value::List(items);
                Ok(node)
            }
            Open::Map {
                node,
                mut pairs,
                mut seen,
                merges,
                ..
            } => {
                for source in merges {
                    self.merge(source, &mut pairs, &mut seen, report);
                }
                self.nodes[node.0].value = Value::Map(pairs);
                Ok(node)
            }
        }
    }

    /// `<<`: adds the keys of `source` (a mapping, or a list of them, the first wins) that are not there.
    fn merge(
        &self,
        source: NodeId,
        pairs: &mut Vec<Pair<'a>>,
        seen: &mut BTreeMap<Cow<'a, str>, usize>,
        report: &mut Report<'_>,
    ) {
        let node = &self.nodes[source.0];
        let sources = match &node.value {
            Value::List(items) => items.clone(),
            Value::Map(_) | Value::Scalar(_) => vec![source],
        };
        for id in sources {
            let node = &self.nodes[id.0];
            let Value::Map(merged) = &node.value else {
                report.add(node.at, || {
                    Problem::new("`<<` takes a mapping").help("write `<<: *anchor`, or `<<: [*first, *second]`")
                });
                continue;
            };
            for pair in merged {
                if !seen.contains_key(&pair.key) {
                    seen.insert(pair.key.clone(), pair.at);
                    pairs.push(pair.clone());
                }
            }
        }
    }

    fn scalar(&self, text: Cow<'a, str>, plain: bool, span: Span) -> Scalar<'a> {
        let source = span.slice(self.text).unwrap_or_default();
        let start = self.base + span.start.byte_offset().unwrap_or_default();
        let expression = text
            .contains(OPEN)
            .then(|| start + source.find(OPEN).unwrap_or_default());
        // Looked for only where offsets inside of the text can be asked for.
        let verbatim = (text.len() <= VERBATIM_MAX).then(|| source.find(&*text)).flatten();
        // The parser says `~` where nothing is written.
        let kind = match plain {
            true if source.is_empty() => Kind::Null,
            true => Kind::of(&text),
            false => Kind::Text,
        };
        Scalar {
            nul: text.contains('\0'),
            text,
            kind,
            expression,
            verbatim: verbatim.map(|found| start + found),
        }
    }
}

/// Longer texts hold no expression of which more than its beginning is told.
const VERBATIM_MAX: usize = 16 * 1024;

impl<'a> Open<'a> {
    fn map(node: NodeId) -> Self {
        Self::Map {
            node,
            pairs: Vec::new(),
            seen: BTreeMap::new(),
            merges: Vec::new(),
            key: Pending::Key,
        }
    }

    fn node(&self) -> NodeId {
        match self {
            Self::List { node, .. } | Self::Map { node, .. } => *node,
        }
    }
}

/// The key that stands at `at`, unless it is refused.
fn take_key<'a>(
    node: &Node<'a>,
    at: usize,
    seen: &mut BTreeMap<Cow<'a, str>, usize>,
    report: &mut Report<'_>,
) -> Pending<'a> {
    let Value::Scalar(scalar) = &node.value else {
        report.add(at, || {
            Problem::new("a key is a list or a mapping")
                .help("keys are plain words; quote a text that begins with `[` or `{`")
        });
        return Pending::Dropped;
    };
    if scalar.kind == Kind::Null {
        report.add(at, || {
            Problem::new("a key is empty").help("write a word before the `:`")
        });
        return Pending::Dropped;
    }
    if scalar.text.len() > KEY_MAX {
        report.add(at, || {
            Problem::new(format!("a key has {} bytes; the most is {KEY_MAX}", scalar.text.len()))
        });
        return Pending::Dropped;
    }
    if let Some(first) = seen.get(&scalar.text) {
        let first = report.place(*first);
        report.add(at, || {
            Problem::new(format!("duplicate key `{}`", syntax::shown(&scalar.text)))
                .help(format!("it stands at {first} already; keep one of them"))
        });
        return Pending::Dropped;
    }
    seen.insert(scalar.text.clone(), at);
    if scalar.text == "<<" {
        return Pending::Merge;
    }
    Pending::Value {
        at,
        key: scalar.text.clone(),
    }
}

impl Scalar<'_> {
    fn refused() -> Self {
        Self {
            text: Cow::Borrowed(""),
            kind: Kind::Refused,
            expression: None,
            verbatim: None,
            nul: false,
        }
    }
}

impl Kind {
    /// The meaning of an unquoted text by the core schema of YAML 1.2.
    fn of(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" => Self::Bool(true),
            "false" | "False" | "FALSE" => Self::Bool(false),
            _ if is_integer(text) => Self::Integer,
            _ if is_float(text) => Self::Float,
            _ => Self::Text,
        }
    }
}

fn is_integer(text: &str) -> bool {
    let digits = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal, 8);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return digits(hex, 16);
    }
    digits(text.strip_prefix(['-', '+']).unwrap_or(text), 10)
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = unsigned
        .split_once(['e', 'E'])
        .map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit())
    });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    exponent_ok && digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoted_texts_mean_what_yaml_says() {
        let cases = [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("null", Kind::Null),
            ("true", Kind::Bool(true)),
            ("FALSE", Kind::Bool(false)),
            ("yes", Kind::Text),
            ("on", Kind::Text),
            ("0", Kind::Integer),
            ("-12", Kind::Integer),
            ("+3", Kind::Integer),
            ("0x1F", Kind::Integer),
            ("0o17", Kind::Integer),
            ("0b1", Kind::Text),
            ("1_000", Kind::Text),
            ("1.90", Kind::Float),
            ("1.", Kind::Float),
            (".5", Kind::Float),
            ("-1.5e-3", Kind::Float),
            ("1e3", Kind::Float),
            ("12e", Kind::Text),
            (".", Kind::Text),
            ("-", Kind::Text),
            (".inf", Kind::Float),
            ("-.inf", Kind::Float),
            (".nan", Kind::Float),
            ("1.2.3", Kind::Text),
            ("30m", Kind::Text),
            ("e3", Kind::Text),
        ];
        for (text, expect) in cases {
            assert_eq!(Kind::of(text), expect, "{text}");
        }
    }
}
