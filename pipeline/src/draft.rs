//! What a pipeline file and those that it includes say, before anything is taken over: stages and
//! steps, templates, defaults, variables, triggers.
//!
//! Not here: how one value is read ([`crate::read`], [`crate::part`]), and what becomes of the layers
//! ([`crate::assembly`]).

use crate::keys::{FILE_KEYS, FileKey, Level, STAGE_KEYS, StageKey};
use crate::limits::{STAGES_MAX, TEMPLATES_MAX, TITLE_MAX};
use crate::on::On;
use crate::part::Part;
use crate::read::{At, Known, Reader};
use crate::report::Problem;
use crate::scope::Place;
use crate::syntax::shown;
use crate::tree::{Kind, NodeId, Value, empty_file};
use model::run::STEPS_MAX;
use std::collections::BTreeMap;

/// What the files say.
#[derive(Default)]
pub(crate) struct Draft<'t> {
    pub(crate) name: Option<&'t str>,
    pub(crate) title: Option<NodeId>,
    pub(crate) on: Option<On<'t>>,
    pub(crate) concurrency: Option<NodeId>,
    /// `env` of each file, those of the included ones first.
    pub(crate) env: Vec<NodeId>,
    pub(crate) templates: Vec<Layer<'t>>,
    /// `defaults` of each file, those of the included ones first.
    pub(crate) defaults: Vec<Layer<'t>>,
    pub(crate) stages: Vec<&'t str>,
    pub(crate) steps: Vec<Step<'t>>,
    /// By name: the stage, its file, and where the name stands.
    stage_names: BTreeMap<&'t str, (usize, usize, usize)>,
    step_names: BTreeMap<&'t str, usize>,
    /// How many files were read before.
    files: usize,
}

/// A set of step keys that steps take over.
pub(crate) struct Layer<'t> {
    /// Of a template; empty for defaults.
    pub(crate) name: At<&'t str>,
    pub(crate) node: NodeId,
    /// As far as it can be read without knowing which step it is for.
    pub(crate) part: Part<'t>,
}

pub(crate) struct Step<'t> {
    pub(crate) stage: usize,
    pub(crate) node: NodeId,
    /// As far as it can be read without knowing for what the run is made.
    pub(crate) part: Part<'t>,
}

impl<'t> Reader<'t, '_> {
    /// Adds what a file says. Included files come before the one that includes them.
    pub(crate) fn file(&mut self, draft: &mut Draft<'t>, root: NodeId, level: Level) {
        let at = self.at(root);
        if let Value::Scalar(scalar) = self.value(root)
            && scalar.kind == Kind::Null
        {
            let start = self.report.start_of(at);
            self.report.add(start, empty_file);
            return;
        }
        let Some(keys) = self.keys("the file", root, level, FILE_KEYS) else {
            return;
        };
        if level == Level::File
            && !keys.has(FileKey::Stages)
            && !keys.meant.contains(&"stages")
            && draft.stages.is_empty()
        {
            self.report.add(at, || {
                Problem::new("the file has no `stages`")
                    .help("write `stages: [{name: build, steps: [{name: compile, image: …, run: …}]}]`")
            });
        }
        // Expressions everywhere may name what `on` asks for.
        let (first, rest): (Vec<_>, Vec<_>) = keys.known.iter().partition(|key| key.id == FileKey::On);
        for key in first.into_iter().chain(rest) {
            self.file_key(draft, key, level);
        }
        draft.files += 1;
    }

    fn file_key(&mut self, draft: &mut Draft<'t>, key: &Known<FileKey>, level: Level) {
        let (what, node) = (&*format!("`{}`", key.name), key.value);
        let own = matches!(
            key.id,
            FileKey::Name | FileKey::Title | FileKey::On | FileKey::Concurrency
        );
        if own && level == Level::Included {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("{what} cannot stand in an included file"))
                    .help("it belongs into the file that includes this one; remove it")
            });
            return;
        }
        match key.id {
            FileKey::Name => draft.name = self.name(what, node).map(|name| name.value),
            FileKey::Title => {
                draft.title = self.line_made(what, node, TITLE_MAX, Place::File).map(|_| node);
            }
            FileKey::Include => {}
            FileKey::On => {
                let on = self.on(node);
                self.names.inputs = on.inputs.iter().map(|input| input.name).collect();
                draft.on = Some(on);
            }
            FileKey::Concurrency => {
                draft.concurrency = self.concurrency(what, node, Place::File).map(|_| node);
            }
            FileKey::Env => draft.env.extend(self.env(what, node, Place::File).map(|_| node)),
            FileKey::Templates => self.templates(draft, node),
            FileKey::Defaults => {
                let part = self.part(what, node, Level::Defaults);
                let name = At {
                    at: self.at(node),
                    value: "",
                };
                draft.defaults.push(Layer { name, node, part });
            }
            FileKey::Stages => self.stages(draft, node),
        }
    }

    fn templates(&mut self, draft: &mut Draft<'t>, node: NodeId) {
        let Some(pairs) = self.pairs("`templates`", node) else {
            return;
        };
        let room = TEMPLATES_MAX.saturating_sub(draft.templates.len());
        if pairs.len() > room {
            let at = pairs[room].at;
            self.report.add(at, || {
                Problem::new(format!(
                    "the file has {} templates; the most is {TEMPLATES_MAX}",
                    draft.templates.len() + pairs.len()
                ))
            });
        }
        for pair in pairs.iter().take(room).filter(|pair| !pair.key.starts_with("x-")) {
            let name = At {
                at: pair.at,
                value: &*pair.key,
            };
            self.check_name("the template's name", name);
            let what = format!("the template `{}`", shown(&pair.key));
            let part = self.part(&what, pair.value, Level::Template);
            draft.templates.push(Layer {
                name,
                node: pair.value,
                part,
            });
        }
    }

    fn stages(&mut self, draft: &mut Draft<'t>, node: NodeId) {
        let Some(items) = self.items("`stages`", node) else {
            return;
        };
        let at = self.at(node);
        if items.is_empty() {
            self.report.add(at, || {
                Problem::new("`stages` is empty").help("write at least one stage with one step")
            });
        }
        for item in items {
            if draft.stages.len() >= STAGES_MAX {
                let at = self.at(*item);
                self.report.add(at, || {
                    Problem::new(format!(
                        "the file has {} stages; the most is {STAGES_MAX}",
                        items.len().max(STAGES_MAX + 1)
                    ))
                });
                break;
            }
            self.stage(draft, *item);
        }
    }

    fn stage(&mut self, draft: &mut Draft<'t>, node: NodeId) {
        let at = self.at(node);
        let mut stage = draft.stages.len();
        let Some(keys) = self.keys("a stage", node, Level::Stage, STAGE_KEYS) else {
            draft.stages.push("");
            return;
        };
        let lacks = |id, name| !keys.has(id) && !keys.meant.contains(&name);
        if lacks(StageKey::Name, "name") {
            self.report.add(at, || {
                Problem::new("the stage has no `name`").help("write `name: build`")
            });
        }
        if lacks(StageKey::Steps, "steps") {
            self.report.add(at, || {
                Problem::new("the stage has no `steps`").help("write at least one step, or remove the stage")
            });
        }
        let name = keys.known.iter().find(|key| key.id == StageKey::Name);
        let name = name.and_then(|key| self.name("the stage's `name`", key.value));
        let known = name.and_then(|name| Some((name, *draft.stage_names.get(name.value)?)));
        match known {
            // The steps of a stage may stand in several files.
            Some((_, (there, file, _))) if file < draft.files => stage = there,
            Some((name, (.., first))) => self.repeated("stage", name, first),
            None => {}
        }
        if stage == draft.stages.len() {
            draft.stages.push(name.map_or("", |name| name.value));
        }
        if let Some(name) = name {
            let place = (stage, draft.files, name.at);
            let there = draft.stage_names.entry(name.value).or_insert(place);
            if there.1 < draft.files {
                *there = place;
            }
        }
        for key in keys.known.iter().filter(|key| key.id == StageKey::Steps) {
            self.steps(draft, stage, key.value);
        }
    }

    fn steps(&mut self, draft: &mut Draft<'t>, stage: usize, node: NodeId) {
        let Some(items) = self.items("`steps`", node) else {
            return;
        };
        if items.is_empty() {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new("`steps` is empty").help("write at least one step, or remove the stage")
            });
        }
        for item in items {
            let at = self.at(*item);
            if draft.steps.len() >= STEPS_MAX {
                self.report.add(at, too_many_steps);
                return;
            }
            let part = self.part("a step", *item, Level::Step);
            match part.name {
                Some(name) => match draft.step_names.get(name.value) {
                    Some(first) => self.repeated("step", name, *first),
                    None => {
                        draft.step_names.insert(name.value, name.at);
                    }
                },
                None if part.broken || part.meant.contains(&"name") => {}
                None => self.report.add(at, || {
                    Problem::new("the step has no `name`").help("write `name: compile`")
                }),
            }
            draft.steps.push(Step {
                stage,
                node: *item,
                part,
            });
        }
    }

    /// Reports a name that another has already.
    fn repeated(&mut self, what: &str, name: At<&'t str>, first: usize) {
        let first = self.report.place(first);
        self.report.add(name.at, || {
            Problem::new(format!("another {what} is named `{}`", name.value)).help(format!(
                "it stands at {first}; every {what} of a file has a name of its own"
            ))
        });
    }
}

/// What is said of a run with too many steps.
pub(crate) fn too_many_steps() -> Problem {
    Problem::new(format!("the file has more than {STEPS_MAX} steps"))
        .help("let one step do several things, or split the pipeline")
}
