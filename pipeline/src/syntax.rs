//! What the YAML parser refuses, in words for people who write pipelines.
//!
//! Not here: what is legal YAML and no legal pipeline.

use crate::limits::DEPTH_MAX;
use crate::report::Problem;
use granit_parser::{ErrorKind, ScanError};

/// Characters of a user's text that are shown in a message.
const SHOWN_MAX: usize = 60;

/// True for characters that end a line, or move a cursor, or turn the direction of writing.
pub(crate) fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A user's text as it may stand in a message: short, on one line, nothing that moves a cursor.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN_MAX)
        .flat_map(|c| {
            let escaped = steers(c);
            let plain = (!escaped).then_some(c);
            let code = escaped.then(|| c.escape_default()).into_iter().flatten();
            plain.into_iter().chain(code)
        })
        .collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    out
}

/// The byte offset and the words for an error of the parser, whose last event ended at `end`.
pub(crate) fn explain(error: &ScanError, text: &str, end: usize) -> (usize, Problem) {
    let at = error.marker().byte_offset().unwrap_or_default().min(text.len());
    if let Some(expression) = expression_near(error.kind(), text, at) {
        let problem = Problem::new("an expression stands inside of `[ ]` or `{ }` without quotes")
            .help("put it into quotes: `\"${{ … }}\"`");
        return (expression, problem);
    }
    (cause_of(error.kind(), text, end, at).unwrap_or(at), words(error.kind()))
}

/// Where an expression begins that brackets around it have torn: `[${{ x }}]`.
fn expression_near(kind: &ErrorKind, text: &str, at: usize) -> Option<usize> {
    use ErrorKind as E;
    let torn = matches!(
        kind,
        E::ExpectedFlowSequenceSeparator | E::ExpectedFlowMappingSeparator | E::InvalidColonPlacement
    );
    let start = text.get(..at)?.rfind('$').filter(|_| torn)?;
    text.get(start..)?.starts_with("${{").then_some(start)
}

/// Why the expression in `text` is refused where none can stand; `what` names the place.
pub(crate) fn expression_refused(what: &str, text: &str) -> Problem {
    let inner = text.split_once("${{").map_or("", |(_, rest)| rest).trim_start();
    if inner.starts_with("secrets.") || inner.starts_with("secrets[") {
        Problem::new("`${{ secrets.… }}` does not exist here")
            .help("secrets reach a step by its key `secrets`, which is not supported yet, never by a text")
    } else {
        Problem::new(format!("{what} takes no expression `${{{{ … }}}}`"))
            .help("write it as it is; values of expressions can stand in `env`, `if`, `image` and others: see `buildflow schema`")
    }
}

/// Where the cause stands, for errors that the parser notices further on.
fn cause_of(kind: &ErrorKind, text: &str, end: usize, at: usize) -> Option<usize> {
    use ErrorKind as E;
    match kind {
        E::UnclosedQuotedScalar | E::InvalidQuotedScalarIndent => {
            text.get(end..at)?.find(['"', '\'']).map(|offset| end + offset)
        }
        E::TabInPlainScalar | E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation => {
            let line = text.get(..at)?.rfind(['\n', '\r']).map_or(0, |end| end + 1);
            text.get(line..)?.find('\t').map(|offset| line + offset)
        }
        _ => None,
    }
}

const TABS: &str = "indent with spaces";
const QUOTE: &str = "put the text into quotes";

fn words(kind: &ErrorKind) -> Problem {
    use ErrorKind as E;
    match kind {
        E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation => {
            Problem::new("a tab stands in the indentation").help(TABS)
        }
        E::TabAtBlockScalarStart => Problem::new("a block of text begins with a tab").help(TABS),
        E::TabInPlainScalar => Problem::new("a tab stands where only spaces can")
            .help("indent with spaces; a text that holds tabs has to be quoted"),
        E::InvalidBlockScalarHeader => Problem::new("behind `|` or `>` stands more text")
            .help("the text begins on the next line, indented deeper; quote a text that begins with `|` or `>`"),
        E::RecursionLimitExceeded => Problem::new(format!("lists and mappings are nested more than {DEPTH_MAX} deep"))
            .help("no key of a pipeline needs more than ten levels"),
        E::UnexpectedCharacter { character } => Problem::new(format!(
            "an unquoted text cannot begin with `{}`",
            character.escape_default()
        ))
        .help(QUOTE),
        E::MappingValueNotAllowed => Problem::new("a `:` stands where no key can be")
            .help("check the indentation; put a text that holds `: ` into quotes"),
        E::ExpectedBlockMappingKey | E::InvalidIndentation => Problem::new("this line does not fit the lines above it")
            .help("keys of a mapping begin in the same column; a text that begins with `[`, `{` or a quote has to be quoted as a whole"),
        E::SimpleKeyExpected => Problem::new("a key is not followed by `:`").help("write `key: value`"),
        E::BlockSequenceEntryNotAllowed | E::BlockEntryInFlowCollection => {
            Problem::new("a `-` stands where no list entry can begin")
                .help("begin the list on a line of its own; put a text that begins with `- ` into quotes")
        }
        E::ExpectedBlockSequenceEntry | E::UnexpectedEofBlockSequence => {
            Problem::new("a list goes on with something that is no entry of it")
                .help("entries begin with `- ` in the same column; quote a text that begins with `,`, `]` or `}`")
        }
        E::UnclosedFlowCollection { open } => {
            Problem::new(format!("`{open}` is not closed")).help("add the closing bracket")
        }
        E::MisplacedFlowCollectionEnd => Problem::new("a closing bracket has no opening one").help("remove it"),
        E::MismatchedFlowCollectionEnd { open, close } => {
            Problem::new(format!("`{open}` is closed by `{close}`")).help("brackets come in pairs: `[ ]`, `{ }`")
        }
        E::UnexpectedEofFlowSequence | E::ExpectedFlowSequenceSeparator => {
            Problem::new("a list in `[ ]` lacks `,` or `]`").help("check that every `[` has its `]`")
        }
        E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping
        | E::ExpectedFlowMappingSeparator
        | E::InvalidColonPlacement => Problem::new("a mapping in `{ }` or a list in `[ ]` lacks `,` or its end")
            .help("check that every `{` has its `}` and every `[` its `]`"),
        E::UnclosedQuotedScalar | E::InvalidQuotedScalarIndent => Problem::new("a quoted text is not closed")
            .help("add the closing quote; lines of a quoted text are indented deeper than its key"),
        E::InvalidTrailingSingleQuotedScalar | E::InvalidTrailingDoubleQuotedScalar => {
            Problem::new("a quoted text is followed by more text")
                .help("quote the whole value; inside of single quotes, write `''` for one quote")
        }
        E::UnknownQuotedScalarEscape => Problem::new("this escape does not exist in a double-quoted text")
            .help("write `\\\\` for a backslash, or use single quotes"),
        E::DirectiveDisallowed => {
            Problem::new("directives (`%…`) are not used in pipeline files").help("remove the line")
        }
        E::BomInsideDocument => {
            Problem::new("a byte-order mark stands inside of the file").help("remove this invisible character")
        }
        other => Problem::new(format!("not valid YAML: {other}")),
    }
}

/// A tag such as `!reference`.
pub(crate) fn tag_refused(tag: &str) -> Problem {
    Problem::new(format!("the tag `{}` has no meaning here", shown(tag)))
        .help("share keys with `extends` or with an anchor (`&name`, `*name`); quote a text that begins with `!`")
}

/// `*name` without `&name` before it.
pub(crate) fn unknown_anchor(name: &str) -> Problem {
    Problem::new(format!("no anchor `&{}` stands above this alias", shown(name)))
        .help("define the anchor before it is used; quote a text that begins with `*`")
}
