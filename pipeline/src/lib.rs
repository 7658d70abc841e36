//! A pipeline file becomes a checked DAG of steps, and a DAG with what happened becomes the
//! answer to "what may run next".
//!
//! [`compile`] reads the text into a tree that knows its positions (`text`, `tree`, `syntax`),
//! reads the tree by the tables of keys (`keys`, `read`, `part`, `value`), lays templates and
//! defaults under each step (`compile`) and turns names of needs into ordinals (`needs`). The same
//! tables of keys make the JSON Schema ([`schema`]). [`progress`] looks at a compiled run and the
//! records of what happened.
//!
//! Not here: reading files, clocks, placement, the store. Everything is a function of its
//! arguments, and any bytes get an answer: no input may crash it, hang it or make it grow.
//! Everything that is wrong with a file is said at once, with line and column; only an error of
//! YAML itself hides what comes after it.

mod compile;
mod finding;
mod keys;
pub mod limits;
mod needs;
mod part;
mod plan;
pub mod progress;
mod read;
mod report;
mod schema;
mod starter;
mod suggest;
mod syntax;
mod text;
mod tree;
mod value;

pub use finding::{FINDINGS_MAX, Finding, Findings};
pub use limits::Limits;
pub use plan::plan_tree;
pub use schema::schema;
pub use starter::{StarterKind, starter};

use report::Report;

/// Compiles the text of a pipeline file under the limits that hold unless an operator set others.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn compile(text: &str) -> Result<model::RunDef, Findings> {
    compile_bytes(text.as_bytes(), Limits::default())
}

/// [`compile`] for the bytes of a file, which may not be UTF-8, under a team's limits.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn compile_bytes(bytes: &[u8], limits: Limits) -> Result<model::RunDef, Findings> {
    let text = match text::decode(bytes) {
        Ok(text) => text,
        Err((text, at, problem)) => {
            let mut report = Report::new(text);
            report.add(at, || problem);
            return Err(report.into_findings());
        }
    };
    let mut report = Report::new(text);
    for (at, character) in text::unprintable(text) {
        report.add(at, || text::unprintable_problem(character));
    }
    if !report.is_empty() {
        return Err(report.into_findings());
    }
    let Some(tree) = tree::parse(text, &mut report) else {
        return Err(report.into_findings());
    };
    compile::compile(&tree, report, limits).map_err(Report::into_findings)
}
