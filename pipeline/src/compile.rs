//! A pipeline file, those that it includes and what the run is made for become a checked definition,
//! or the reason why there is none.
//!
//! Not here: how one value is read ([`crate::read`], [`crate::part`]).

use crate::assembly::{Assembly, Whole};
use crate::draft::Draft;
use crate::fill::Explained;
use crate::finding::Findings;
use crate::finish::Finish;
use crate::include::{FileRef, Files, Pinned};
use crate::inputs::{self, WrongInput};
use crate::keys::Level;
use crate::limits::{GROUP_MAX, INCLUDE_DEPTH_MAX, INCLUDES_MAX, Limits, TITLE_MAX};
use crate::needs::{self, Waiting};
use crate::occasion::Occasion;
use crate::on::On;
use crate::read::Reader;
use crate::report::{Problem, Report};
use crate::scope::{Facts, Place};
use crate::text;
use crate::tree::{NodeId, Tree};
use model::{Concurrency, RunDef, RunRules, StageDef, StepName};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use typed_arena::Arena;

/// What is to be compiled.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The pipeline file; it may not be UTF-8.
    pub bytes: &'r [u8],
    /// The team's limits.
    pub limits: Limits,
    /// Files that it includes, as far as they were read.
    pub files: &'r Files,
    /// What the run is made for; `None`: only the file is looked at.
    pub occasion: Option<&'r Occasion>,
    /// Whether each expression is to be explained.
    pub explain: Explain,
}

/// Whether each expression is to be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Explain {
    /// No.
    #[default]
    No,
    /// Yes: [`Compiled::explained`].
    Yes,
}

/// What a pipeline file came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A run.
    Run(Box<Compiled>),
    /// The event makes no run of it: why.
    Nothing(String),
    /// These files are needed first.
    Missing(Vec<FileRef>),
}

/// A definition and what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The definition. Without an occasion, what depends on one stands in it as it is written or has
    /// its default, and it is not to be run.
    pub def: RunDef,
    /// For each step, the keys whose value depends on the occasion, with what is written there.
    pub open: Vec<BTreeMap<&'static str, String>>,
    /// What somebody who reads the file should know, one sentence each.
    pub notes: Vec<String>,
    /// What each expression came to.
    pub explained: Vec<Explained>,
}

/// Why a pipeline file gives no definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What is wrong with the file.
    #[error("{0}")]
    File(Findings),
    /// What was entered does not fit the inputs of the pipeline.
    #[error("{}", inputs_text(.0))]
    Inputs(Vec<WrongInput>),
}

fn inputs_text(wrong: &[WrongInput]) -> String {
    let lines: Vec<String> = wrong
        .iter()
        .map(|wrong| format!("the input `{}` {}", crate::syntax::shown(&wrong.name), wrong.message))
        .collect();
    lines.join("\n")
}

impl From<Findings> for Refused {
    fn from(findings: Findings) -> Self {
        Self::File(findings)
    }
}

/// Compiles a pipeline file.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn answer(request: &Request<'_>) -> Result<Answer, Refused> {
    let main = match text::decode(request.bytes) {
        Ok(text) => text,
        Err((text, at, problem)) => {
            let mut report = Report::new(text);
            report.add(at, || problem);
            return Err(report.into_findings().into());
        }
    };
    let report = Report::new(main);
    let mut loading = Loading {
        request,
        tree: Tree::default(),
        report: Some(report),
        seen: BTreeSet::new(),
        roots: Vec::new(),
        missing: Vec::new(),
        readable: true,
    };
    loading.text(main, 0, None, 0);
    let Loading {
        tree,
        report,
        roots,
        missing,
        readable,
        ..
    } = loading;
    let report = report.unwrap_or_else(|| Report::new(main));
    if !readable {
        return Err(report.into_findings().into());
    }
    if !missing.is_empty() {
        return Ok(Answer::Missing(missing));
    }
    let (texts, work) = (Arena::new(), Cell::new(0));
    let reader = Reader::new(&tree, report, request.limits, &texts, Facts::new(None, &work));
    compiled(request, reader, &roots, &work)
}

/// Reads a file and those that it includes into one tree.
struct Loading<'r> {
    request: &'r Request<'r>,
    tree: Tree<'r>,
    /// Lent to readers for a while.
    report: Option<Report<'r>>,
    seen: BTreeSet<FileRef>,
    /// The values of the files, those that are included before those that include them.
    roots: Vec<NodeId>,
    missing: Vec<FileRef>,
    /// Every text was YAML: what the files say can be looked at.
    readable: bool,
}

impl<'r> Loading<'r> {
    fn report(&mut self) -> &mut Report<'r> {
        self.report.get_or_insert_with(|| Report::new(""))
    }

    /// Takes in a text whose offsets begin at `base`.
    fn text(&mut self, text: &'r str, base: usize, repository: Option<&Pinned>, depth: usize) {
        let mut strange = text::unprintable(text).peekable();
        if strange.peek().is_some() {
            for (at, character) in strange {
                self.report().add(base + at, || text::unprintable_problem(character));
            }
            self.readable = false;
            return;
        }
        let mut report = self.report.take().unwrap_or_else(|| Report::new(""));
        let root = self.tree.parse(text, base, &mut report);
        let Some(root) = root else {
            self.report = Some(report);
            self.readable = false;
            return;
        };
        let (texts, work) = (Arena::new(), Cell::new(0));
        let mut reader = Reader::new(&self.tree, report, self.request.limits, &texts, Facts::new(None, &work));
        let includes = reader.includes(root, repository);
        self.report = Some(reader.report);
        for include in includes {
            self.include(include.at, &include.value, depth + 1);
        }
        self.roots.push(root);
    }

    fn include(&mut self, at: usize, file: &FileRef, depth: usize) {
        if !self.seen.insert(file.clone()) {
            return;
        }
        if self.seen.len() > INCLUDES_MAX || depth > INCLUDE_DEPTH_MAX {
            self.report().add(at, || {
                Problem::new(format!(
                    "more than {INCLUDES_MAX} files are included, or more than {INCLUDE_DEPTH_MAX} behind each other"
                ))
                .help("put templates that belong together into one file")
            });
            return;
        }
        let read = match self.request.files.get(file) {
            None => {
                self.missing.push(file.clone());
                return;
            }
            Some(Err(why)) => {
                self.report().add(at, || {
                    Problem::new(format!("the file `{file}` cannot be included: {why}"))
                });
                return;
            }
            Some(Ok(bytes)) => text::decode(bytes),
        };
        match read {
            Ok(text) => {
                let base = self.report().add_source(Some(file.to_string()), text);
                self.text(text, base, file.repository.as_ref(), depth);
            }
            Err((text, wrong_at, problem)) => {
                let base = self.report().add_source(Some(file.to_string()), text);
                self.report().add(base + wrong_at, || problem);
                self.readable = false;
            }
        }
    }
}

fn compiled<'t>(
    request: &Request<'t>,
    mut reader: Reader<'t, '_>,
    roots: &[NodeId],
    work: &'t Cell<usize>,
) -> Result<Answer, Refused> {
    let mut draft = Draft::default();
    for (n, root) in roots.iter().enumerate() {
        let level = if n + 1 == roots.len() {
            Level::File
        } else {
            Level::Included
        };
        reader.file(&mut draft, *root, level);
    }
    let readable = draft.on.as_ref().filter(|on| !on.broken);
    if let Some(occasion) = request.occasion
        && (draft.on.is_none() || readable.is_some())
        && let Some(why) = On::refusal(readable, occasion)
    {
        return Ok(Answer::Nothing(why));
    }
    if !reader.report.is_empty() {
        // What the layers come to is not known, but the rest can be told.
        return Err(findings_with_layers(reader, &draft));
    }
    let inputs = draft.on.as_ref().map(|on| on.inputs.as_slice()).unwrap_or_default();
    let inputs = inputs::values(inputs, request.occasion).map_err(Refused::Inputs)?;
    reader.known = Facts::new(request.occasion, work);
    reader.known.set("inputs", inputs);
    if request.explain == Explain::Yes {
        reader.explained = Some(Vec::new());
    }
    let mut assembly = Assembly::new(reader, &draft, request.occasion);
    let wholes = assembly.whole_steps();
    finished(request, assembly, &wholes)
}

/// The findings of a file that has some already, with those about needs and templates.
fn findings_with_layers(reader: Reader<'_, '_>, draft: &Draft<'_>) -> Refused {
    let limits = reader.limits;
    let mut assembly = Assembly::new(reader, draft, None);
    let wholes = assembly.whole_steps();
    let needs = resolved(&wholes, draft, &mut assembly.reader.report);
    let mut finish = Finish {
        limits,
        occasion: None,
        spent: 0,
    };
    finish.steps(&wholes, needs, &mut assembly.reader.report);
    assembly.reader.report.into_findings().into()
}

fn resolved(wholes: &[Whole<'_>], draft: &Draft<'_>, report: &mut Report<'_>) -> Vec<Vec<usize>> {
    let waiting: Vec<Waiting<'_>> = wholes
        .iter()
        .map(|whole| Waiting {
            base: whole.base,
            name: whole.name,
            stage: whole.stage,
            needs: whole.part.needs.clone(),
        })
        .collect();
    needs::resolve(&waiting, &draft.stages, report)
}

fn finished<'t>(
    request: &Request<'t>,
    mut assembly: Assembly<'_, 't, '_>,
    wholes: &[Whole<'t>],
) -> Result<Answer, Refused> {
    let draft = assembly.draft;
    let needs = resolved(wholes, draft, &mut assembly.reader.report);
    let mut finish = Finish {
        limits: request.limits,
        occasion: request.occasion,
        spent: 0,
    };
    let steps = finish.steps(wholes, needs, &mut assembly.reader.report);
    let (title, concurrency) = of_file(&mut assembly);
    let mut reader = assembly.reader;
    if !reader.known.may_go_on() {
        reader.report.add(0, || {
            Problem::new("the expressions of the file take too long together")
                .help("write fewer of them into `templates` and `defaults`, where each step evaluates them again")
        });
    }
    if !reader.report.is_empty() {
        return Err(reader.report.into_findings().into());
    }
    let stages = draft.stages.iter().filter_map(|name| StepName::new(*name).ok());
    let open = wholes.iter().map(|whole| {
        let open = whole.part.open.iter();
        open.map(|(key, text)| (*key, (*text).to_owned())).collect()
    });
    Ok(Answer::Run(Box::new(Compiled {
        open: open.collect(),
        notes: notes(draft),
        explained: reader.explained.unwrap_or_default(),
        def: RunDef {
            name: draft.name.map(str::to_owned),
            title,
            stages: stages.map(|name| StageDef { name }).collect(),
            steps,
            rules: RunRules {
                concurrency,
                matrices: assembly.matrices,
            },
        },
    })))
}

/// The keys of the file in which expressions may stand.
fn of_file(assembly: &mut Assembly<'_, '_, '_>) -> (Option<String>, Option<Concurrency>) {
    let env = assembly.file_env();
    assembly.see_env(&env);
    let (draft, reader) = (assembly.draft, &mut assembly.reader);
    reader.step = None;
    (reader.names.matrix, reader.names.needs) = (None, None);
    let title = draft
        .title
        .and_then(|node| reader.line_made("`title`", node, TITLE_MAX, Place::File));
    let concurrency = draft
        .concurrency
        .and_then(|node| reader.concurrency("`concurrency`", node, Place::File));
    debug_assert!(
        concurrency
            .as_ref()
            .is_none_or(|group| group.group.len() <= 4 * GROUP_MAX)
    );
    (
        title.map(|title| title.value.to_owned()),
        concurrency.map(|group| group.owned()),
    )
}

fn notes(draft: &Draft<'_>) -> Vec<String> {
    let not_fired = draft.on.as_ref().map(On::not_fired).unwrap_or_default();
    not_fired
        .into_iter()
        .map(|event| format!("`on.{event}` is read and checked; this release makes no run of it yet"))
        .collect()
}
