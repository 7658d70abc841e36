//! The reference of the language, written from the same tables of keys as the compiler and the schema.
//!
//! Not here: how to get started, and examples of whole files.

use crate::cel::{DEPTH_MAX, EXPRESSION_MAX, FUNCTIONS, MADE_MAX, STEPS_MAX};
use crate::glob::{GLOB_MAX, GLOBS_MAX};
use crate::keys::{
    CHECKOUT_KEYS, CONCURRENCY_KEYS, ENTRY_KEYS, FILE_KEYS, INCLUDE_KEYS, INPUT_KEYS, Key, LATER, MANUAL_KEYS,
    MATRIX_KEYS, ON_KEYS, PULL_REQUEST_KEYS, PUSH_KEYS, RESOURCE_KEYS, RETRY_KEYS, SCHEDULE_KEYS, STAGE_KEYS,
    STEP_KEYS, Takes, UPSTREAM_KEYS,
};
use crate::limits;
use crate::scope::{NAMES, Named, RUN_FUNCTIONS, WORK_MAX};
use std::fmt::Write as _;

const HEAD: &str = "\
# The pipeline file

<!-- Written by `buildflow schema --reference`; do not edit. -->

`.buildflow.yml` at the top of the repository, or the file that the pipeline was registered with. YAML 1.2, UTF-8.
`buildflow pipeline validate` checks a file and prints its plan; `buildflow schema` prints a JSON Schema for editors.

Keys that begin with `x-` are ignored. Anchors, aliases and `<<` work. A key that is not listed here is an error.
";

const EXPRESSIONS: &str = "\
## Expressions

`${{ … }}` in a value, and the whole of `if`, hold an expression in [CEL](https://cel.dev). A value that is one expression
alone keeps its kind (`allow_failure: \"${{ matrix.may_fail }}\"`); otherwise the values of the expressions stand in the text.
Quote values with expressions inside of `[ ]` and `{ }`. Expressions are never written into commands: hand values over by
`env`.

Each name and function is known at one of three moments. What is known **when the run is made** can stand in every key
that takes expressions; what is known **when the step is ready**, which is when all its needs have ended, only in `if`,
in `env` of steps, templates and `defaults`, and in the `if` of an entry of `run`; what is known **on the node** only
there. An expression is worked out as far as it can be when the run is made; a step whose `if` is false by then is still
only skipped when its needs have ended, so that what needs it does not overtake them.
";

const AFTER_NAMES: &str = "\
Missing entries of `env` and of `outputs` are empty texts. Everything else that is missing is an error: ask with `has(…)`.

Operators are those of CEL: `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `&&`, `||`, `!`, `? :`, `+`, `-`, `*`, `/`, `%`, indexing and
selection. Lists and maps have `all(x, …)`, `exists(x, …)`, `exists_one(x, …)`, `filter(x, …)` and `map(x, …)`. Numbers are
64 bits or fractions; unsigned numbers, bytes, time stamps and durations of CEL do not exist here.
";

const SKIPPED: &str = "\
## When a step is skipped

- A step starts when all steps that it needs have ended well. One that was skipped by its own rule (`if`, `changes`)
  counts as ended well, one that failed or was cancelled does not. `allow_failure` makes a failure count as well.
- When a need has ended badly, the step is skipped, and so is what needs it in turn: a failure is handed down.
- With `success()`, `failure()` or `always()` in its `if`, the step waits until all its needs have ended, whatever they came
  to, and then only its `if` decides.
- Needing a step with a `matrix` needs all its cells: `needs['unit'].status` is the worst of them, and its outputs are those
  of all cells, a later cell winning. One cell is needed, and named in expressions, as `unit(1.94)`.
- A step that is `manual` and that nobody has started is skipped when everything else has ended; what needs it is
  skipped, too. The run does not fail by that.
- A condition that has no value when the step is ready, such as `int(needs.a.outputs.n)` of a text, fails the step.
";

/// The reference in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    section(&mut out, "The file", FILE_KEYS);
    section(&mut out, "A stage", STAGE_KEYS);
    section(&mut out, "A step", STEP_KEYS);
    line(&mut out, "Templates and `defaults` take the same keys but `name`.");
    section(&mut out, "An entry of `run`", ENTRY_KEYS);
    section(&mut out, "`checkout`", CHECKOUT_KEYS);
    section(&mut out, "`resources`", RESOURCE_KEYS);
    section(&mut out, "`retry`", RETRY_KEYS);
    section(&mut out, "`matrix`", MATRIX_KEYS);
    line(
        &mut out,
        "Every other key of `matrix` is a name with a list of values, without expressions.",
    );
    section(&mut out, "`concurrency`", CONCURRENCY_KEYS);
    section(&mut out, "`on`", ON_KEYS);
    section(&mut out, "`on.push`", PUSH_KEYS);
    section(&mut out, "`on.pull_request`", PULL_REQUEST_KEYS);
    section(&mut out, "An entry of `on.schedule`", SCHEDULE_KEYS);
    section(&mut out, "`on.pipeline`", UPSTREAM_KEYS);
    section(&mut out, "`on.manual`", MANUAL_KEYS);
    section(&mut out, "An input", INPUT_KEYS);
    section(&mut out, "An entry of `include`", INCLUDE_KEYS);
    expressions(&mut out);
    line(&mut out, SKIPPED);
    limits_section(&mut out);
    later(&mut out);
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String takes every write");
    if !text.ends_with('\n') {
        out.push('\n');
    }
}

fn section<I>(out: &mut String, title: &str, keys: &[Key<I>]) {
    writeln!(out, "\n## {title}\n").expect("a String takes every write");
    line(out, "| key | expressions | meaning |\n|---|---|---|");
    out.pop();
    for key in keys {
        let takes = match key.takes {
            Takes::Nothing => "",
            Takes::Made => "when the run is made",
            Takes::Late => "when the step is ready",
            Takes::Condition => "when the step is ready, with `success()` and the like",
        };
        writeln!(out, "| `{}` | {takes} | {} |", key.name, cell(key.doc)).expect("a String takes every write");
    }
    out.push('\n');
}

/// A text that may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn expressions(out: &mut String) {
    line(out, EXPRESSIONS);
    let known = |out: &mut String, title: &str, all: &[Named]| {
        writeln!(out, "| {title} | known | meaning |\n|---|---|---|").expect("a String takes every write");
        for named in all {
            writeln!(
                out,
                "| `{}` | {} | {} |",
                named.name,
                named.moment.words(),
                cell(named.doc)
            )
            .expect("a String takes every write");
        }
        out.push('\n');
    };
    known(out, "name", NAMES);
    line(out, AFTER_NAMES);
    known(out, "function", RUN_FUNCTIONS);
    line(out, "| function of its arguments | meaning |\n|---|---|");
    out.pop();
    for function in FUNCTIONS {
        writeln!(out, "| `{}` | {} |", function.usage, cell(function.doc)).expect("a String takes every write");
    }
    out.push('\n');
}

fn limits_section(out: &mut String) {
    line(out, "## Limits\n\n| what | most |\n|---|---|");
    out.pop();
    let all: &[(&str, usize)] = &[
        ("bytes of a file", limits::FILE_MAX),
        (
            "keys and values of a file and those that it includes",
            limits::NODES_MAX,
        ),
        ("included files", limits::INCLUDES_MAX),
        ("files behind each other by `include`", limits::INCLUDE_DEPTH_MAX),
        ("stages", limits::STAGES_MAX),
        ("steps of a run, cells of matrices counted", model::run::STEPS_MAX),
        ("cells of one matrix", limits::CELLS_MAX),
        ("combinations of a matrix before `exclude`", limits::COMBINATIONS_MAX),
        ("templates", limits::TEMPLATES_MAX),
        ("templates behind each other by `extends`", limits::EXTENDS_DEPTH_MAX),
        ("aliases", limits::ALIASES_MAX),
        ("bytes of all commands of a step", limits::SCRIPT_MAX),
        ("variables of a step", limits::ENV_ENTRIES_MAX),
        ("bytes of all variables of a step", limits::ENV_TOTAL_MAX),
        ("bytes of the compiled run", limits::DEFINITION_MAX),
        ("inputs", limits::INPUTS_MAX),
        ("bytes of one input", limits::INPUT_VALUE_MAX),
        ("globs in one list", GLOBS_MAX),
        ("bytes of a glob", GLOB_MAX),
        ("bytes of an expression", EXPRESSION_MAX),
        ("expressions inside each other", DEPTH_MAX),
        ("steps of one evaluation", STEPS_MAX),
        ("bytes that one evaluation makes", MADE_MAX),
        ("steps of all evaluations of a file", WORK_MAX),
    ];
    for (what, most) in all {
        writeln!(out, "| {what} | {most} |").expect("a String takes every write");
    }
    out.push('\n');
}

fn later(out: &mut String) {
    let names: Vec<String> = LATER.iter().map(|name| format!("`{name}`")).collect();
    line(
        out,
        &format!(
            "## Not yet\n\nThese keys are part of the design and refused by name until they work: {}.",
            names.join(", ")
        ),
    );
}
