//! The keys of a step as they are written in one place (a step, a template or the defaults), and
//! how one such part lies over another.
//!
//! Not here: which parts make a step ([`crate::compile`]), and what is missing in it.

use crate::fill::{Asked, Decided, Filled};
use crate::keys::{
    CHECKOUT_KEYS, CheckoutKey, ENTRY_KEYS, EntryKey, Level, RESOURCE_KEYS, ResourceKey, STEP_KEYS, Shape, StepKey,
};
use crate::limits::{
    CPU_MAX_MILLIS, CPU_MIN_MILLIS, DEPTH_DEFAULT, DISK_MIN, ENTRIES_MAX, ENV_ENTRIES_MAX, ENV_NAME_MAX, ENV_VALUE_MAX,
    LABEL_MAX, LABELS_MAX, MEMORY_MIN, PATH_MAX, SHM_MIN, SIZE_MAX, TIMEOUT_MIN_MS, TITLE_MAX,
};
use crate::matrix::Matrix;
use crate::read::{At, EnvIs, Known, Reader};
use crate::report::Problem;
use crate::rules::Group;
use crate::scope::Place;
use crate::suggest::nearest;
use crate::syntax::shown;
use crate::tree::{NodeId, Value};
use crate::value;
use model::run::STEPS_MAX;
use model::{Checkout, Piece, Priority, Retry, Shell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Names and values, shared between the steps that take them over.
pub(crate) type Texts<'t> = Rc<BTreeMap<&'t str, &'t str>>;

/// Variables, shared likewise.
pub(crate) type Env<'t> = Rc<BTreeMap<&'t str, Variable<'t>>>;

/// The value of a variable.
#[derive(Debug, Clone)]
pub(crate) enum Variable<'t> {
    Text(&'t str),
    /// Known when the step is ready.
    Late(Rc<[Piece]>),
}

impl Variable<'_> {
    /// Bytes of what is written.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Late(pieces) => pieces
                .iter()
                .map(|(Piece::Text(text) | Piece::Expression(text))| text.len())
                .sum(),
        }
    }
}

/// Commands, shared likewise.
pub(crate) type Commands<'t> = Rc<[Command<'t>]>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command<'t> {
    pub(crate) name: Option<&'t str>,
    pub(crate) run: &'t str,
    /// What has to be true when the step is ready.
    pub(crate) condition: Option<Rc<str>>,
}

/// What one place says; `None` where it says nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part<'t> {
    /// Byte offset of the mapping.
    pub(crate) at: usize,
    /// A key of it was refused, so that nothing can be said about what is missing.
    pub(crate) broken: bool,
    /// Keys that refused ones were probably meant to be.
    pub(crate) meant: Vec<&'static str>,
    /// An expression stands in it, so that it may be another for each step that takes it over.
    pub(crate) varies: bool,
    /// The keys that it says.
    pub(crate) said: Vec<&'static str>,
    /// Keys whose value is not known yet, with what is written there.
    pub(crate) open: BTreeMap<&'static str, &'t str>,
    pub(crate) name: Option<At<&'t str>>,
    pub(crate) title: Option<&'t str>,
    pub(crate) extends: Option<At<&'t str>>,
    pub(crate) needs: Option<Rc<[At<&'t str>]>>,
    pub(crate) run: Option<Commands<'t>>,
    pub(crate) shell: Option<Shell>,
    pub(crate) before: Option<Commands<'t>>,
    pub(crate) after: Option<Commands<'t>>,
    pub(crate) working_directory: Option<&'t str>,
    /// `Some(None)`: `false`.
    pub(crate) checkout: Option<Option<Checkout>>,
    pub(crate) image: Option<&'t str>,
    pub(crate) user: Option<&'t str>,
    pub(crate) env: Env<'t>,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) allow_failure: Option<bool>,
    pub(crate) cpu_millis: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) disk: Option<u64>,
    pub(crate) pids: Option<u64>,
    pub(crate) shm: Option<u64>,
    pub(crate) labels: Texts<'t>,
    pub(crate) retry: Option<Rc<Retry>>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) matrix: Option<Rc<Matrix<'t>>>,
    pub(crate) condition: Option<Rc<Asked<'t>>>,
    pub(crate) changes: Option<Rc<[&'t str]>>,
    pub(crate) manual: Option<bool>,
    pub(crate) concurrency: Option<Rc<Group<'t>>>,
    pub(crate) priority: Option<Priority>,
}

impl<'t> Part<'t> {
    /// `self` over `base`: what `self` says wins; variables, labels and resources are merged by
    /// their names. Name and place stay those of `self`, and so does what it extends.
    pub(crate) fn over(self, base: &Self) -> Self {
        let mut open = self.open;
        let below = base.open.iter().filter(|(key, _)| !self.said.contains(key));
        open.extend(below.map(|(key, text)| (*key, *text)));
        Self {
            at: self.at,
            broken: self.broken || base.broken,
            meant: [self.meant, base.meant.clone()].concat(),
            varies: self.varies || base.varies,
            said: [self.said, base.said.clone()].concat(),
            open,
            name: self.name,
            title: self.title.or(base.title),
            extends: self.extends,
            needs: self.needs.or_else(|| base.needs.clone()),
            run: self.run.or_else(|| base.run.clone()),
            shell: self.shell.or(base.shell),
            before: self.before.or_else(|| base.before.clone()),
            after: self.after.or_else(|| base.after.clone()),
            working_directory: self.working_directory.or(base.working_directory),
            checkout: self.checkout.or_else(|| base.checkout.clone()),
            image: self.image.or(base.image),
            user: self.user.or(base.user),
            env: merged(self.env, &base.env),
            timeout_ms: self.timeout_ms.or(base.timeout_ms),
            allow_failure: self.allow_failure.or(base.allow_failure),
            cpu_millis: self.cpu_millis.or(base.cpu_millis),
            memory: self.memory.or(base.memory),
            disk: self.disk.or(base.disk),
            pids: self.pids.or(base.pids),
            shm: self.shm.or(base.shm),
            labels: merged(self.labels, &base.labels),
            retry: self.retry.or_else(|| base.retry.clone()),
            idempotent: self.idempotent.or(base.idempotent),
            matrix: self.matrix.or_else(|| base.matrix.clone()),
            condition: self.condition.or_else(|| base.condition.clone()),
            changes: self.changes.or_else(|| base.changes.clone()),
            manual: self.manual.or(base.manual),
            concurrency: self.concurrency.or_else(|| base.concurrency.clone()),
            priority: self.priority.or(base.priority),
        }
    }
}

/// `over` and what it lacks of `base`; neither is copied when the other is empty.
pub(crate) fn merged<'t, V: Clone>(
    over: Rc<BTreeMap<&'t str, V>>,
    base: &Rc<BTreeMap<&'t str, V>>,
) -> Rc<BTreeMap<&'t str, V>> {
    if base.is_empty() {
        return over;
    }
    if over.is_empty() {
        return Rc::clone(base);
    }
    let mut all = BTreeMap::clone(base);
    all.extend(over.iter().map(|(name, value)| (*name, value.clone())));
    Rc::new(all)
}

impl<'t> Reader<'t, '_> {
    /// Reads the mapping of a step, a template or the defaults. `what` names it in findings.
    pub(crate) fn part(&mut self, what: &str, node: NodeId, level: Level) -> Part<'t> {
        let mut part = Part {
            at: self.at(node),
            ..Part::default()
        };
        let Some(keys) = self.keys(what, node, level, STEP_KEYS) else {
            part.broken = true;
            return part;
        };
        part.meant = keys.meant;
        let before = self.expressions;
        for key in keys.known {
            self.left_open = None;
            part.said.push(key.name);
            if self.step_key(&mut part, &key, level).is_none() {
                part.broken = true;
            }
            if let Some(text) = self.left_open.take() {
                part.open.insert(key.name, text);
            }
        }
        part.varies = self.expressions > before || part.changes.is_some();
        part
    }

    /// One key; `None` when it was refused.
    fn step_key(&mut self, part: &mut Part<'t>, key: &Known<StepKey>, level: Level) -> Option<()> {
        let (what, node) = (&*format!("`{}`", key.name), key.value);
        match key.id {
            StepKey::Name => part.name = Some(self.step_name(node, level)?),
            StepKey::Title => part.title = Some(self.line_made(what, node, TITLE_MAX, Place::Step)?.value),
            StepKey::Extends => part.extends = Some(self.name(what, node)?),
            StepKey::Needs => part.needs = Some(self.needs(node)?),
            StepKey::Run => part.run = Some(self.commands(what, node, Empty::Refused)?),
            StepKey::Shell => part.shell = Some(self.shell(node)?),
            StepKey::Before => part.before = Some(self.commands(what, node, Empty::Allowed)?),
            StepKey::After => part.after = Some(self.commands(what, node, Empty::Allowed)?),
            StepKey::WorkingDirectory => part.working_directory = Some(self.directory(node)?),
            StepKey::Checkout => part.checkout = Some(self.checkout(node)?),
            StepKey::Image => part.image = Some(self.checked(what, node, value::check_image)?),
            StepKey::User => part.user = Some(self.checked(what, node, value::check_user)?),
            StepKey::Env if self.env_is == EnvIs::Made => {}
            StepKey::Env => part.env = self.env(what, node, Place::Late)?,
            StepKey::Timeout => part.timeout_ms = Some(self.timeout(node)?),
            StepKey::AllowFailure => part.allow_failure = Some(self.flag_made(what, node, Place::Step)?),
            StepKey::Resources => self.resources(part, node)?,
            StepKey::Labels => part.labels = self.labels(node)?,
            StepKey::Retry => part.retry = Some(Rc::new(self.retry(node)?)),
            StepKey::Idempotent => part.idempotent = Some(self.flag(what, node)?),
            StepKey::Matrix => part.matrix = Some(Rc::new(self.matrix(node)?)),
            StepKey::If => part.condition = Some(Rc::new(self.condition(what, node, Place::Condition)?)),
            StepKey::Changes => part.changes = Some(self.globs(what, node)?.into()),
            StepKey::Manual => part.manual = Some(self.flag_made(what, node, Place::Step)?),
            StepKey::Concurrency => part.concurrency = Some(Rc::new(self.concurrency(what, node, Place::Step)?)),
            StepKey::Priority => part.priority = Some(self.priority(node)?),
        }
        Some(())
    }

    fn step_name(&mut self, node: NodeId, level: Level) -> Option<At<&'t str>> {
        if level == Level::Step {
            return self.name("`name`", node);
        }
        let at = self.at(node);
        self.report.add(at, || {
            Problem::new(format!("`name` cannot stand in {}", level.noun())).help("each step has its own; remove it")
        });
        None
    }

    fn needs(&mut self, node: NodeId) -> Option<Rc<[At<&'t str>]>> {
        let needs = self.texts("`needs`", node)?;
        if needs.len() > STEPS_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "`needs` holds {} steps; a run has at most {STEPS_MAX}",
                    needs.len()
                ))
            });
            return None;
        }
        Some(needs.into())
    }

    fn shell(&mut self, node: NodeId) -> Option<Shell> {
        let text = self.text("`shell`", node)?;
        match text.value {
            "sh" => Some(Shell::Sh),
            "bash" => Some(Shell::Bash),
            other => {
                self.report.add(text.at, || {
                    let problem = Problem::new(format!("`shell` must be `sh` or `bash`, not `{}`", shown(other)));
                    match nearest(other, ["sh", "bash"]) {
                        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
                        None => problem.help("call another interpreter from a command"),
                    }
                });
                None
            }
        }
    }

    fn directory(&mut self, node: NodeId) -> Option<&'t str> {
        let text = self.line_made("`working_directory`", node, PATH_MAX, Place::Step)?;
        if text.value.len() > PATH_MAX {
            self.report.add(text.at, || {
                Problem::new(format!("`working_directory` must have at most {PATH_MAX} bytes"))
            });
            return None;
        }
        Some(text.value)
    }

    fn checkout(&mut self, node: NodeId) -> Option<Option<Checkout>> {
        let all_keys = match self.value(node) {
            Value::Scalar(_) => {
                let on = self.flag_made("`checkout`", node, Place::Step)?;
                return Some(on.then_some(Checkout {
                    depth: Some(DEPTH_DEFAULT),
                }));
            }
            Value::List(_) => {
                let at = self.at(node);
                self.report.add(at, || {
                    Problem::new("a list of checkouts is not supported yet")
                        .help("write `true`, `false` or `{depth: 1}`")
                });
                return None;
            }
            Value::Map(_) => self.keys("`checkout`", node, Level::Checkout, CHECKOUT_KEYS)?.known,
        };
        let mut depth = Some(DEPTH_DEFAULT);
        for key in all_keys {
            match key.id {
                CheckoutKey::Depth => {
                    let Shape::Count { min, max } = CHECKOUT_KEYS[0].shape else {
                        return None;
                    };
                    let commits = self.count_made("`checkout.depth`", key.value, min, max)?;
                    depth = u32::try_from(commits).ok().filter(|commits| *commits > 0);
                }
            }
        }
        Some(Some(Checkout { depth }))
    }

    /// A text that `check` has to find right.
    fn checked(&mut self, what: &str, node: NodeId, check: fn(&str) -> Result<(), Problem>) -> Option<&'t str> {
        let made = self.text_made(what, node, Place::Step)?;
        let text = made.text;
        if made.open {
            return Some(text.value);
        }
        match check(text.value) {
            Ok(()) => Some(text.value),
            Err(problem) => {
                self.report.add(text.at, || problem);
                None
            }
        }
    }

    fn timeout(&mut self, node: NodeId) -> Option<u64> {
        let text = self.raw_made("`timeout`", node, "a duration such as `30m`", "1s")?;
        let limit = self.limits.step_timeout_ms;
        match value::duration_ms(text.value) {
            Ok(ms) if ms > limit => self.report.add(text.at, || {
                Problem::new(format!(
                    "`timeout` {} is above the team's limit of {}",
                    value::duration_text(ms),
                    value::duration_text(limit)
                ))
                .help("an operator raises it with `buildflow team set --step-timeout`")
            }),
            Ok(ms) if ms < TIMEOUT_MIN_MS => self.report.add(text.at, || {
                Problem::new("`timeout` must be at least 1s").help("without the key it is 30m")
            }),
            Ok(ms) => return Some(ms),
            Err(problem) => self.report.add(text.at, || problem),
        }
        None
    }

    fn resources(&mut self, part: &mut Part<'t>, node: NodeId) -> Option<()> {
        let keys = self.keys("`resources`", node, Level::Resources, RESOURCE_KEYS)?.known;
        let mut whole = Some(());
        for key in keys {
            let what = &*format!("`resources.{}`", key.name);
            let amount = match key.id {
                ResourceKey::Cpu => self.cpu(what, key.value),
                ResourceKey::Memory => self.size(what, key.value, MEMORY_MIN),
                ResourceKey::Disk => self.size(what, key.value, DISK_MIN),
                ResourceKey::Shm => self.size(what, key.value, SHM_MIN),
                ResourceKey::Pids => self.count_made(what, key.value, crate::limits::PIDS_MIN, crate::limits::PIDS_MAX),
            };
            let place = match key.id {
                ResourceKey::Cpu => &mut part.cpu_millis,
                ResourceKey::Memory => &mut part.memory,
                ResourceKey::Disk => &mut part.disk,
                ResourceKey::Pids => &mut part.pids,
                ResourceKey::Shm => &mut part.shm,
            };
            *place = amount;
            whole = whole.and(amount.map(|_| ()));
            let name = resource_name(key.id);
            part.said.push(name);
            if let Some(text) = self.left_open.take() {
                part.open.insert(name, text);
            }
        }
        whole
    }

    fn cpu(&mut self, what: &str, node: NodeId) -> Option<u64> {
        let text = self.raw_made(what, node, "a number of cores such as `2` or `500m`", "1")?;
        let range = CPU_MIN_MILLIS..=CPU_MAX_MILLIS;
        match value::cpu_millis(text.value) {
            Ok(millis) if range.contains(&millis) => return Some(millis),
            Ok(_) => self.report.add(text.at, || {
                let (min, max) = (value::cpu_text(CPU_MIN_MILLIS), value::cpu_text(CPU_MAX_MILLIS));
                Problem::new(format!(
                    "{what} must be from {min} to {max} cores, not {}",
                    shown(text.value)
                ))
            }),
            Err(problem) => self.report.add(text.at, || problem),
        }
        None
    }

    fn size(&mut self, what: &str, node: NodeId, min: u64) -> Option<u64> {
        let text = self.raw_made(what, node, "a size such as `512Mi` or `2Gi`", "1Gi")?;
        match value::size_bytes(text.value) {
            Ok(bytes) if (min..=SIZE_MAX).contains(&bytes) => return Some(bytes),
            Ok(_) => self.report.add(text.at, || {
                let (min, max) = (value::size_text(min), value::size_text(SIZE_MAX));
                Problem::new(format!("{what} must be from {min} to {max}, not {}", shown(text.value)))
            }),
            Err(problem) => self.report.add(text.at, || problem),
        }
        None
    }

    /// Variables; the same for the file, the defaults, templates and steps.
    pub(crate) fn env(&mut self, what: &str, node: NodeId, place: Place) -> Option<Env<'t>> {
        let pairs = self.pairs(what, node)?;
        if pairs.len() > ENV_ENTRIES_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "{what} holds {} variables; the most is {ENV_ENTRIES_MAX}",
                    pairs.len()
                ))
            });
            return None;
        }
        let mut env = BTreeMap::new();
        let mut whole = true;
        for pair in pairs {
            let name_ok = match env_name_problem(&pair.key) {
                Some(problem) => {
                    self.report.add(pair.at, || problem);
                    false
                }
                None => true,
            };
            match self.variable(&pair.key, pair.value, place) {
                Some(value) if name_ok => {
                    env.insert(&*pair.key, value);
                }
                _ => whole = false,
            }
        }
        whole.then(|| Rc::new(env))
    }

    fn variable(&mut self, name: &str, node: NodeId, place: Place) -> Option<Variable<'t>> {
        let what = format!("`env.{}`", shown(name));
        match self.filled(&what, node, place)? {
            Filled::Late { pieces, .. } => Some(Variable::Late(pieces)),
            Filled::Made { text, .. } if name.len() + 1 + text.len() <= ENV_VALUE_MAX => Some(Variable::Text(text)),
            Filled::Made { at, .. } => {
                self.report.add(at, || {
                    Problem::new(format!(
                        "`env.{}` is longer than {ENV_VALUE_MAX} bytes, which no process can be given",
                        shown(name)
                    ))
                    .help("keep it in a file of the repository")
                });
                None
            }
        }
    }

    fn labels(&mut self, node: NodeId) -> Option<Texts<'t>> {
        let pairs = self.pairs("`labels`", node)?;
        let mut labels = BTreeMap::new();
        let mut whole = pairs.len() <= LABELS_MAX;
        if !whole {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "`labels` holds {} labels; the most is {LABELS_MAX}",
                    pairs.len()
                ))
            });
        }
        for pair in pairs {
            let what = format!("`labels.{}`", shown(&pair.key));
            if !is_label(&pair.key) {
                whole = false;
                self.report
                    .add(pair.at, || refused_label(&format!("the label `{}`", shown(&pair.key))));
            }
            match self.text_made(&what, pair.value, Place::Step) {
                Some(made) if made.open || is_label(made.text.value) => {
                    labels.insert(&*pair.key, made.text.value);
                }
                Some(made) => {
                    whole = false;
                    self.report.add(made.text.at, || refused_label(&what));
                }
                None => whole = false,
            }
        }
        whole.then(|| Rc::new(labels))
    }

    /// `run`, `before`, `after`.
    fn commands(&mut self, what: &str, node: NodeId, empty: Empty) -> Option<Commands<'t>> {
        let items = match self.value(node) {
            Value::List(items) => items.as_slice(),
            Value::Scalar(_) => &[node],
            Value::Map(_) => {
                self.wrong_kind(what, node, "a text or a list");
                return None;
            }
        };
        let at = self.at(node);
        if items.is_empty() && empty == Empty::Refused {
            self.report.add(at, || {
                Problem::new(format!("{what} is empty")).help("write at least one command")
            });
            return None;
        }
        if items.len() > ENTRIES_MAX {
            self.report.add(at, || {
                Problem::new(format!(
                    "{what} holds {} entries; the most is {ENTRIES_MAX}",
                    items.len()
                ))
                .help("put them into a script")
            });
            return None;
        }
        // All are read before the first failure counts, so that each is reported.
        let read: Vec<Option<Option<Command<'t>>>> = items.iter().map(|item| self.command(what, *item)).collect();
        let all = read.into_iter().collect::<Option<Vec<_>>>()?;
        Some(all.into_iter().flatten().collect())
    }

    /// A command; `Some(None)` for one that is left out.
    fn command(&mut self, what: &str, node: NodeId) -> Option<Option<Command<'t>>> {
        match self.value(node) {
            Value::Scalar(_) => Some(Some(Command {
                name: None,
                run: self.script(what, node)?,
                condition: None,
            })),
            Value::Map(_) => self.named_command(what, node),
            Value::List(_) => {
                self.wrong_kind(&format!("an entry of {what}"), node, "a text or `{name, run}`");
                None
            }
        }
    }

    fn named_command(&mut self, what: &str, node: NodeId) -> Option<Option<Command<'t>>> {
        if let Value::Map(pairs) = self.value(node)
            && let [pair] = pairs.as_slice()
            && pair.key.contains(' ')
        {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("the command `{}: …` is read as a mapping", shown(&pair.key)))
                    .help("a text that holds `: ` has to be quoted")
            });
            return None;
        }
        let keys = self.keys(&format!("an entry of {what}"), node, Level::Entry, ENTRY_KEYS)?;
        let (mut name, mut run, mut asked, mut whole) = (None, None, None, true);
        for key in &keys.known {
            whole &= match key.id {
                EntryKey::Name => {
                    name = self.line("the `name` of an entry", key.value, TITLE_MAX);
                    name.is_some()
                }
                EntryKey::Run => {
                    run = self.script("the `run` of an entry", key.value);
                    run.is_some()
                }
                EntryKey::If => {
                    asked = self.entry_condition(what, key.value);
                    asked.is_some()
                }
            };
        }
        if !keys.has(EntryKey::Run) && !keys.meant.contains(&"run") {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("an entry of {what} has no `run`")).help("write `{name: …, run: …}`")
            });
        }
        let condition = match asked.filter(|_| whole) {
            Some(Decided::Now(false)) => return run.map(|_| None),
            Some(Decided::Later(rest)) => Some(Rc::from(rest)),
            Some(Decided::Now(true)) | None => None,
        };
        let command = Command {
            name: name.map(|name| name.value),
            run: run?,
            condition,
        };
        whole.then_some(Some(command))
    }

    fn entry_condition(&mut self, what: &str, node: NodeId) -> Option<Decided> {
        if what != "`run`" {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("an entry of {what} has no `if`")).help("only entries of `run` have one")
            });
            return None;
        }
        self.condition("`if`", node, Place::Late).map(|asked| asked.decided)
    }

    /// Shell text that holds more than white space.
    fn script(&mut self, what: &str, node: NodeId) -> Option<&'t str> {
        if let Value::Scalar(scalar) = self.value(node)
            && let Some(at) = scalar.expression
            && !scalar.text.contains("${{ secrets")
        {
            self.report.add(at, || {
                Problem::new("an expression is never written into a command").help(
                    "hand its value over by the environment: `env: {TAG: \"${{ git.tag }}\"}`, and `\"$TAG\"` in the command",
                )
            });
            return None;
        }
        let text = self.text(what, node)?;
        if text.value.trim().is_empty() {
            self.report.add(text.at, || {
                Problem::new(format!("{what} is empty")).help("write a command, or remove it")
            });
            return None;
        }
        Some(text.value)
    }
}

/// Whether a list of commands may hold none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    Allowed,
    Refused,
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LABEL_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:+".contains(&b))
}

fn refused_label(what: &str) -> Problem {
    Problem::new(format!("{what} is not legal")).help(format!(
        "1 to {LABEL_MAX} letters, digits and the characters `.`, `_`, `-`, `/`, `:`, `+`"
    ))
}

/// Why `name` cannot be a variable.
fn env_name_problem(name: &str) -> Option<Problem> {
    let head_ok = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let tail_ok = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !head_ok || !tail_ok || name.len() > ENV_NAME_MAX {
        return Some(
            Problem::new(format!("`{}` cannot be the name of a variable", shown(name))).help(format!(
                "1 to {ENV_NAME_MAX} letters, digits and `_`, the first no digit"
            )),
        );
    }
    let reserved = name.starts_with("BUILDFLOW_") || matches!(name, "BUILDFLOW" | "CI" | "TRACEPARENT");
    reserved.then(|| {
        Problem::new(format!("the variable `{name}` is reserved"))
            .help("`CI`, `TRACEPARENT`, `BUILDFLOW` and `BUILDFLOW_…` are set by BuildFlow; choose another name")
    })
}

fn resource_name(key: ResourceKey) -> &'static str {
    match key {
        ResourceKey::Cpu => "resources.cpu",
        ResourceKey::Memory => "resources.memory",
        ResourceKey::Disk => "resources.disk",
        ResourceKey::Pids => "resources.pids",
        ResourceKey::Shm => "resources.shm",
    }
}
