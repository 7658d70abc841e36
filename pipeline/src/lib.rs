//! A pipeline file becomes a checked DAG of steps, and a DAG with what happened becomes the
//! answer to "what may run next".
//!
//! [`compile`] reads the text into a tree that knows its positions (`text`, `tree`, `syntax`),
//! reads the tree by the tables of keys (`keys`, `read`, `part`, `value`), lays templates and
//! defaults under each step (`compile`) and turns names of needs into ordinals (`needs`). The same
//! tables of keys make the JSON Schema ([`schema`]). [`progress`] looks at a compiled run and the
//! records of what happened.
//!
//! ```
//! let def = pipeline::compile("
//! defaults: { image: 'docker.io/library/rust:1.95' }
//! stages:
//!   - name: build
//!     steps: [{ name: compile, run: cargo build }]
//!   - name: test
//!     steps: [{ name: unit, run: cargo test }, { name: lint, run: cargo clippy, allow_failure: true }]
//! ")?;
//! assert_eq!(def.steps[1].needs, [0]);
//!
//! let findings = pipeline::compile("stages: [{name: s, steps: [{nmae: a, image: b, run: c}]}]").unwrap_err();
//! assert_eq!(findings.list[0].to_string(), "1:29: `nmae` is not a key of a step (did you mean `name`?)");
//! # Ok::<(), pipeline::Findings>(())
//! ```
//!
//! # What was decided where the contract leaves room
//! - **Texts.** Where a text is wanted, an integer or a boolean without quotes means its own
//!   characters (`007` stays `007`); a fraction (`1.90`, `1e3`) and an empty value have to be
//!   quoted, because another reader would change them. A number or flag never comes from quotes.
//! - **Layers.** The step over its templates over `defaults` over the `env` of the file; `env`,
//!   `labels` and `resources` are merged by name, everything else is taken whole. `defaults` may
//!   hold any key of a step but `name`, also `extends` and `needs`; a template any but `name`.
//! - **Needs** name steps of the same or an earlier stage. Without the key a step waits for the
//!   stage just before; `needs: []` waits for nobody; a template's or the defaults' `needs` counts.
//! - **Checkout** has depth 1 unless it says otherwise; `depth: 0` is the whole history.
//! - **Retry** is taken whole, like `checkout`: what a step's own `retry` leaves out has its built-in
//!   default, not what the layer below says. It is a mapping; a bare number is refused.
//! - **Expressions** (`${{ … }}`) are refused in every text, also in commands.
//! - **Keys that begin with `x-`** are passed over in every mapping of ours, but not in `env` and
//!   `labels`, whose names are the user's.
//! - **YAML** is version 1.2 in one document: `yes` and `on` are texts, tags and directives are
//!   refused, `<<` takes a mapping or a list of them.
//!
//! Not here: reading files, clocks, placement, the store. Everything is a function of its
//! arguments, and any bytes get an answer: no input may crash it, hang it or make it grow.
//! Everything that is wrong with a file is said at once, with line and column; only an error of
//! YAML itself hides what comes after it.

mod assembly;
pub mod cel;
mod compile;
mod cron;
mod draft;
mod fill;
mod finding;
mod finish;
mod glob;
mod include;
mod inputs;
mod keys;
mod late;
pub mod limits;
mod matrix;
mod needs;
mod occasion;
mod on;
mod part;
mod plan;
pub mod progress;
mod read;
mod reference;
mod report;
mod retry;
mod rules;
mod schema;
mod scope;
mod starter;
mod suggest;
mod syntax;
mod template;
mod templates;
mod text;
mod tree;
mod value;

pub use compile::{Answer, Compiled, Explain, Refused, Request, answer};
pub use fill::{EXPLAINED_MAX, Explained};
pub use finding::{FINDINGS_MAX, Finding, Findings};
pub use include::{FileRef, Files, Pinned};
pub use inputs::WrongInput;
pub use late::ready_step;
pub use limits::Limits;
pub use occasion::{Git, Occasion, PullRequest};
pub use plan::plan_tree;
pub use reference::reference;
pub use schema::schema;
pub use starter::{StarterKind, starter};

/// Compiles the text of a pipeline file under the limits that hold unless an operator set others,
/// without knowing for what a run is made.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn compile(text: &str) -> Result<model::RunDef, Findings> {
    compile_bytes(text.as_bytes(), Limits::default())
}

/// [`compile`] for the bytes of a file, which may not be UTF-8, under a team's limits. Files that it
/// includes cannot be read here.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn compile_bytes(bytes: &[u8], limits: Limits) -> Result<model::RunDef, Findings> {
    let mut files = Files::new();
    loop {
        let request = Request {
            bytes,
            limits,
            files: &files,
            occasion: None,
            explain: Explain::No,
        };
        match answer(&request) {
            Ok(Answer::Run(compiled)) => return Ok(compiled.def),
            Ok(Answer::Missing(missing)) => {
                let why = || Err("other files cannot be read here".to_owned());
                files.extend(missing.into_iter().map(|file| (file, why())));
            }
            Err(Refused::File(findings)) => return Err(findings),
            // Both need an occasion.
            Ok(Answer::Nothing(_)) | Err(Refused::Inputs(_)) => return Err(Findings::none()),
        }
    }
}
