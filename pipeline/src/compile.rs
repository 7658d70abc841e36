//! The file as a whole: stages and their steps, what each step takes over from templates, defaults
//! and the file, what is missing, and the finished definition.
//!
//! Not here: how one value is read ([`crate::read`], [`crate::part`]).
//!
//! A step is made of four layers; the first that says something wins, and `env`, `labels` and
//! `resources` are merged name by name: the step itself, the templates that it extends (the nearest
//! first), `defaults`, and for variables the `env` of the file. When a step extends nothing, the
//! `extends` of `defaults` counts.

use crate::keys::{FILE_KEYS, FileKey, Level, STAGE_KEYS, StageKey};
use crate::limits::{
    CPU_DEFAULT_MILLIS, DEFINITION_MAX, DEPTH_DEFAULT, DISK_DEFAULT, ENV_ENTRIES_MAX, ENV_TOTAL_MAX, EXTENDS_DEPTH_MAX,
    Limits, MEMORY_DEFAULT, PIDS_DEFAULT, SCRIPT_MAX, SHM_DEFAULT, STAGES_MAX, STEP_TIMEOUT_MS, TEMPLATES_MAX,
    TITLE_MAX,
};
use crate::needs::{self, Waiting, circle_text};
use crate::part::{Command, Part, Texts, merged};
use crate::read::{At, Known, Reader};
use crate::report::{Problem, Report};
use crate::suggest::nearest;
use crate::syntax::shown;
use crate::tree::{Kind, NodeId, Tree, Value, empty_file};
use crate::value;
use model::run::STEPS_MAX;
use model::{Checkout, Entry, Resources, RunDef, Shell, StageDef, StepDef, StepName};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What a small thing costs besides its bytes when the size of a definition is reckoned.
const ITEM_COST: usize = 16;

/// What one need costs: an ordinal and a comma.
const NEED_COST: usize = 4;

/// What the file says, before anything is taken over.
#[derive(Default)]
struct Draft<'t> {
    name: Option<&'t str>,
    title: Option<&'t str>,
    env: Texts<'t>,
    templates: Vec<Template<'t>>,
    defaults: Part<'t>,
    stages: Vec<&'t str>,
    steps: Vec<Step<'t>>,
}

struct Template<'t> {
    name: At<&'t str>,
    part: Part<'t>,
}

struct Step<'t> {
    stage: usize,
    part: Part<'t>,
}

/// Compiles a tree; `Err` when the report is not empty.
pub(crate) fn compile<'a>(tree: &Tree<'a>, report: Report<'a>, limits: Limits) -> Result<RunDef, Report<'a>> {
    let mut reader = Reader { tree, report, limits };
    let draft = reader.file(tree.root());
    let mut assembly = Assembly {
        index: draft
            .templates
            .iter()
            .enumerate()
            .map(|(n, t)| (t.name.value, n))
            .collect(),
        resolved: vec![None; draft.templates.len()],
        draft: &draft,
        limits,
        spent: 0,
    };
    let report = &mut reader.report;
    assembly.check_templates(report);
    let parts = assembly.whole_steps(report);
    let waiting: Vec<Waiting<'_>> = parts
        .iter()
        .zip(&draft.steps)
        .map(|(part, step)| Waiting {
            name: part.name.map_or("", |name| name.value),
            stage: step.stage,
            needs: part.needs.clone(),
        })
        .collect();
    let needs = needs::resolve(&waiting, &draft.stages, report);
    let steps = assembly.finish(&parts, needs, report);
    if !reader.report.is_empty() {
        return Err(reader.report);
    }
    Ok(RunDef {
        name: draft.name.map(str::to_owned),
        title: draft.title.map(str::to_owned),
        stages: draft
            .stages
            .iter()
            .filter_map(|name| step_name(name))
            .map(|name| StageDef { name })
            .collect(),
        steps,
    })
}

fn step_name(text: &str) -> Option<StepName> {
    StepName::new(text).ok()
}

impl<'t> Reader<'t, '_> {
    fn file(&mut self, root: NodeId) -> Draft<'t> {
        let mut draft = Draft::default();
        if let Value::Scalar(scalar) = self.value(root)
            && scalar.kind == Kind::Null
        {
            self.report.add(0, empty_file);
            return draft;
        }
        let Some(keys) = self.keys("the file", root, Level::File, FILE_KEYS) else {
            return draft;
        };
        if !keys.has(FileKey::Stages) && !keys.meant.contains(&"stages") {
            let at = self.at(root);
            self.report.add(at, || {
                Problem::new("the file has no `stages`")
                    .help("write `stages: [{name: build, steps: [{name: compile, image: …, run: …}]}]`")
            });
        }
        for key in keys.known {
            self.file_key(&mut draft, &key);
        }
        draft
    }

    fn file_key(&mut self, draft: &mut Draft<'t>, key: &Known<FileKey>) {
        let (what, node) = (&*format!("`{}`", key.name), key.value);
        match key.id {
            FileKey::Name => draft.name = self.name(what, node).map(|name| name.value),
            FileKey::Title => draft.title = self.line(what, node, TITLE_MAX).map(|title| title.value),
            FileKey::Env => draft.env = self.env(what, node).unwrap_or_default(),
            FileKey::Templates => draft.templates = self.templates(node),
            FileKey::Defaults => draft.defaults = self.part(what, node, Level::Defaults),
            FileKey::Stages => self.stages(draft, node),
        }
    }

    fn templates(&mut self, node: NodeId) -> Vec<Template<'t>> {
        let Some(pairs) = self.pairs("`templates`", node) else {
            return Vec::new();
        };
        if pairs.len() > TEMPLATES_MAX {
            let at = pairs[TEMPLATES_MAX].at;
            self.report.add(at, || {
                Problem::new(format!(
                    "the file has {} templates; the most is {TEMPLATES_MAX}",
                    pairs.len()
                ))
            });
        }
        let mut templates = Vec::new();
        for pair in pairs
            .iter()
            .take(TEMPLATES_MAX)
            .filter(|pair| !pair.key.starts_with("x-"))
        {
            let name = At {
                at: pair.at,
                value: &*pair.key,
            };
            self.check_name("the template's name", name);
            let what = format!("the template `{}`", shown(&pair.key));
            let part = self.part(&what, pair.value, Level::Template);
            templates.push(Template { name, part });
        }
        templates
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
        let mut names = BTreeMap::new();
        let mut step_names = BTreeMap::new();
        for (ordinal, item) in items.iter().enumerate() {
            if ordinal >= STAGES_MAX {
                let at = self.at(*item);
                self.report.add(at, || {
                    Problem::new(format!("the file has {} stages; the most is {STAGES_MAX}", items.len()))
                });
                break;
            }
            self.stage(draft, *item, &mut names, &mut step_names);
        }
    }

    fn stage(
        &mut self,
        draft: &mut Draft<'t>,
        node: NodeId,
        names: &mut BTreeMap<&'t str, usize>,
        step_names: &mut BTreeMap<&'t str, usize>,
    ) {
        let at = self.at(node);
        let stage = draft.stages.len();
        draft.stages.push("");
        let Some(keys) = self.keys("a stage", node, Level::Stage, STAGE_KEYS) else {
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
        for key in &keys.known {
            match key.id {
                StageKey::Name => {
                    if let Some(name) = self.name("the stage's `name`", key.value) {
                        draft.stages[stage] = name.value;
                        self.unique("stage", name, names);
                    }
                }
                StageKey::Steps => self.steps(draft, stage, key.value, step_names),
            }
        }
    }

    fn steps(&mut self, draft: &mut Draft<'t>, stage: usize, node: NodeId, names: &mut BTreeMap<&'t str, usize>) {
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
                self.report.add(at, || {
                    Problem::new(format!("the file has more than {STEPS_MAX} steps"))
                        .help("let one step do several things, or split the pipeline")
                });
                return;
            }
            let part = self.part("a step", *item, Level::Step);
            match part.name {
                Some(name) => self.unique("step", name, names),
                None if part.broken || part.meant.contains(&"name") => {}
                None => self.report.add(at, || {
                    Problem::new("the step has no `name`").help("write `name: compile`")
                }),
            }
            draft.steps.push(Step { stage, part });
        }
    }

    /// Reports a name that another has already.
    fn unique(&mut self, what: &str, name: At<&'t str>, names: &mut BTreeMap<&'t str, usize>) {
        let Some(first) = names.get(name.value).copied() else {
            names.insert(name.value, name.at);
            return;
        };
        let first = self.report.place(first);
        self.report.add(name.at, || {
            Problem::new(format!("another {what} is named `{}`", name.value)).help(format!(
                "it stands at {first}; every {what} of a file has a name of its own"
            ))
        });
    }
}

/// Puts the layers together.
struct Assembly<'d, 't> {
    draft: &'d Draft<'t>,
    /// Templates by name.
    index: BTreeMap<&'t str, usize>,
    /// Templates with all that they extend, made when they are first asked for.
    resolved: Vec<Option<Rc<Part<'t>>>>,
    limits: Limits,
    /// Bytes of the definition so far.
    spent: usize,
}

impl<'t> Assembly<'_, 't> {
    /// Every `extends` of a template, also of one that nobody uses.
    fn check_templates(&self, report: &mut Report<'_>) {
        for (number, template) in self.draft.templates.iter().enumerate() {
            if let Some(extends) = template.part.extends
                && self.find(extends, report).is_some()
                && let Err(Broken::Circle(circle)) = self.chain(number)
                && circle.iter().min() == Some(&number)
            {
                report.add(extends.at, || {
                    let names: Vec<String> = circle
                        .iter()
                        .map(|n| shown(self.draft.templates[*n].name.value))
                        .collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    Problem::new(format!(
                        "templates extend each other in a circle: {}",
                        circle_text(&names)
                    ))
                    .help("remove one of these `extends`")
                });
            }
        }
    }

    fn find(&self, extends: At<&str>, report: &mut Report<'_>) -> Option<usize> {
        let found = self.index.get(extends.value).copied();
        if found.is_none() {
            report.add(extends.at, || {
                let problem = Problem::new(format!("no template is named `{}`", shown(extends.value)));
                match nearest(extends.value, self.index.keys().copied()) {
                    Some(meant) => problem.help(format!("did you mean `{}`?", shown(meant))),
                    None => problem.help("define it under `templates`"),
                }
            });
        }
        found
    }

    /// The template and all that it extends, the nearest first.
    fn chain(&self, number: usize) -> Result<Vec<usize>, Broken> {
        let mut chain = vec![number];
        let mut seen = vec![false; self.draft.templates.len()];
        seen[number] = true;
        let mut last = number;
        while let Some(extends) = self.draft.templates[last].part.extends {
            let next = *self.index.get(extends.value).ok_or(Broken::Elsewhere)?;
            if next == number {
                return Err(Broken::Circle(chain));
            }
            if std::mem::replace(&mut seen[next], true) {
                return Err(Broken::Elsewhere);
            }
            chain.push(next);
            last = next;
        }
        Ok(chain)
    }

    /// The template that `extends` names, with all that it extends. `None` when that is reported.
    fn template(&mut self, extends: At<&str>, report: &mut Report<'_>) -> Option<Rc<Part<'t>>> {
        let number = self.find(extends, report)?;
        let chain = self.chain(number).ok()?;
        if chain.len() > EXTENDS_DEPTH_MAX {
            report.add(extends.at, || {
                Problem::new(format!(
                    "`{}` extends {} templates behind each other; the most is {EXTENDS_DEPTH_MAX}",
                    extends.value,
                    chain.len()
                ))
            });
            return None;
        }
        let mut base: Option<Rc<Part<'t>>> = None;
        for number in chain.into_iter().rev() {
            let whole = match &self.resolved[number] {
                Some(done) => Rc::clone(done),
                None => {
                    let own = &self.draft.templates[number];
                    let mut part = own.part.clone();
                    if let Some(base) = &base {
                        part = part.over(base);
                    }
                    limit_env(&mut part, own.name.at, report);
                    Rc::new(part)
                }
            };
            self.resolved[number] = Some(Rc::clone(&whole));
            base = Some(whole);
        }
        base
    }

    /// Every step with all its layers.
    fn whole_steps(&mut self, report: &mut Report<'_>) -> Vec<Part<'t>> {
        let draft = self.draft;
        if let Some(extends) = draft.defaults.extends {
            self.find(extends, report);
        }
        draft.steps.iter().map(|step| self.whole_step(step, report)).collect()
    }

    fn whole_step(&mut self, step: &Step<'t>, report: &mut Report<'_>) -> Part<'t> {
        let mut part = step.part.clone();
        if let Some(extends) = part.extends.or(self.draft.defaults.extends) {
            match self.template(extends, report) {
                Some(template) => part = part.over(&template),
                None => part.broken = true,
            }
        }
        part = part.over(&self.draft.defaults);
        part.env = merged(part.env, &self.draft.env);
        limit_env(&mut part, step.part.at, report);
        part
    }

    /// The definitions of the steps; incomplete when something is reported.
    fn finish(&mut self, parts: &[Part<'t>], needs: Vec<Vec<usize>>, report: &mut Report<'_>) -> Vec<StepDef> {
        let mut steps = Vec::with_capacity(parts.len());
        for ((part, needs), step) in parts.iter().zip(needs).zip(&self.draft.steps) {
            if !part.broken {
                check_whole(part, report);
            } else if report.is_empty() {
                // Whoever breaks a part says why; a step is never left out in silence.
                report.add(part.at, || Problem::new("the step could not be read"));
            }
            let before = self.spent;
            self.spent = before.saturating_add(cost(part) + needs.len() * NEED_COST);
            if before <= DEFINITION_MAX && self.spent > DEFINITION_MAX {
                report.add(part.at, || {
                    Problem::new(format!(
                        "with this step the pipeline is larger than {}",
                        value::size_text(DEFINITION_MAX as u64)
                    ))
                    .help(
                        "commands and variables of templates and defaults count for each step; put them into a script",
                    )
                });
            }
            if report.is_empty()
                && let Some(def) = self.step_def(part, step.stage, needs)
            {
                steps.push(def);
            }
        }
        steps
    }

    /// `None` for a step without name, which is reported elsewhere.
    fn step_def(&self, part: &Part<'t>, stage: usize, needs: Vec<usize>) -> Option<StepDef> {
        let checkout = part.checkout.clone().unwrap_or(Some(Checkout {
            depth: Some(DEPTH_DEFAULT),
        }));
        Some(StepDef {
            name: step_name(part.name?.value)?,
            title: part.title.map(str::to_owned),
            stage,
            needs,
            image: part.image?.to_owned(),
            before: entries(part.before.as_deref()),
            run: entries(part.run.as_deref()),
            after: entries(part.after.as_deref()),
            shell: part.shell.unwrap_or(Shell::Sh),
            working_directory: part.working_directory.unwrap_or(".").to_owned(),
            checkout,
            user: part.user.map(str::to_owned),
            env: owned(&part.env),
            timeout_ms: part
                .timeout_ms
                .unwrap_or(STEP_TIMEOUT_MS.min(self.limits.step_timeout_ms)),
            allow_failure: part.allow_failure.unwrap_or(false),
            resources: Resources {
                cpu_millis: part.cpu_millis.unwrap_or(CPU_DEFAULT_MILLIS),
                memory_bytes: part.memory.unwrap_or(MEMORY_DEFAULT),
                disk_bytes: part.disk.unwrap_or(DISK_DEFAULT),
            },
            pids: part.pids.unwrap_or(PIDS_DEFAULT),
            shm_bytes: shm(part),
            labels: owned(&part.labels),
            retry: part.retry.as_deref().cloned().unwrap_or_default(),
            idempotent: part.idempotent.unwrap_or(true),
        })
    }
}

/// Why a chain of templates has no end that counts.
enum Broken {
    /// It comes back to its first template: the circle, without the return.
    Circle(Vec<usize>),
    /// A template further on is unknown or in a circle, which is reported there.
    Elsewhere,
}

/// A part with too many variables is reported and loses them, so that nothing grows with it.
fn limit_env(part: &mut Part<'_>, at: usize, report: &mut Report<'_>) {
    let count = part.env.len();
    if count > ENV_ENTRIES_MAX {
        report.add(at, || {
            Problem::new(format!(
                "with those that it takes over, this has {count} variables; the most is {ENV_ENTRIES_MAX}"
            ))
            .help("keep settings in a file of the repository")
        });
        part.env = Texts::default();
        part.broken = true;
    }
}

/// What a step lacks, and what is too large in it.
fn check_whole(part: &Part<'_>, report: &mut Report<'_>) {
    let step = match part.name {
        Some(name) => format!("step `{}`", name.value),
        None => "the step".to_owned(),
    };
    if part.image.is_none() && !part.meant.contains(&"image") {
        report.add(part.at, || {
            Problem::new(format!("{step} has no `image`"))
                .help("write it here, in a template that it extends, or in `defaults`")
        });
    }
    if part.run.is_none() && !part.meant.contains(&"run") {
        report.add(part.at, || {
            Problem::new(format!("{step} has no `run`")).help("write its commands, e.g. `run: make test`")
        });
    }
    let script: usize = commands(part).map(|c| c.run.len()).sum();
    if script > SCRIPT_MAX {
        report.add(part.at, || {
            Problem::new(format!(
                "the commands of {step} have {script} bytes; the most is {SCRIPT_MAX}"
            ))
            .help("put them into a script in the repository")
        });
    }
    let env: usize = part.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if env > ENV_TOTAL_MAX {
        report.add(part.at, || {
            Problem::new(format!(
                "the variables of {step} have {env} bytes; the most is {ENV_TOTAL_MAX}"
            ))
            .help("keep them in a file of the repository")
        });
    }
    let memory = part.memory.unwrap_or(MEMORY_DEFAULT);
    if shm(part) > memory {
        report.add(part.at, || {
            let (shm, memory) = (value::size_text(shm(part)), value::size_text(memory));
            Problem::new(format!(
                "`resources.shm` {shm} of {step} is above its `resources.memory` {memory}"
            ))
            .help("what lies in `/dev/shm` counts as memory: raise `memory`")
        });
    }
}

/// `/dev/shm` of a step; the default shrinks with a small memory.
fn shm(part: &Part<'_>) -> u64 {
    let memory = part.memory.unwrap_or(MEMORY_DEFAULT);
    part.shm.unwrap_or(SHM_DEFAULT.min(memory))
}

fn commands<'p>(part: &'p Part<'p>) -> impl Iterator<Item = &'p Command<'p>> {
    [&part.before, &part.run, &part.after]
        .into_iter()
        .flatten()
        .flat_map(|list| list.iter())
}

/// Roughly the bytes that a step adds to the stored definition.
fn cost(part: &Part<'_>) -> usize {
    let commands: usize = commands(part)
        .map(|c| ITEM_COST + c.run.len() + c.name.map_or(0, str::len))
        .sum();
    let texts = |texts: &Texts<'_>| -> usize { texts.iter().map(|(k, v)| ITEM_COST + k.len() + v.len()).sum() };
    let single = [part.title, part.image, part.user, part.working_directory];
    let single: usize = single.into_iter().flatten().map(str::len).sum();
    let retry = part.retry.as_ref().map_or(0, |retry| ITEM_COST * (1 + retry.on.len()));
    ITEM_COST + commands + texts(&part.env) + texts(&part.labels) + single + retry
}

fn entries(commands: Option<&[Command<'_>]>) -> Vec<Entry> {
    let commands = commands.unwrap_or_default();
    commands
        .iter()
        .map(|command| Entry {
            name: command.name.map(str::to_owned),
            run: command.run.to_owned(),
        })
        .collect()
}

fn owned(texts: &Texts<'_>) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
