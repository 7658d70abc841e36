//! The names that expressions can use: what each means, when it is known, and where it may stand.
//!
//! Not here: how an expression is read and evaluated ([`crate::cel`]).

use crate::cel::{self, EXPRESSION_MAX, Expr, FUNCTIONS, Loose, Node, Operator, Scope, Value, Wrong};
use crate::occasion::Occasion;
use crate::suggest::nearest;
use crate::syntax::shown;
use model::Piece;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Steps that all expressions of one file may take together, in all their evaluations: a second of
/// a slow build.
pub(crate) const WORK_MAX: usize = 4_000_000;

/// When something is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// When the run is made.
    Made,
    /// When the needs of the step have ended.
    Ready,
    /// On the node, before the step begins.
    Node,
}

impl Moment {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Made => "when the run is made",
            Self::Ready => "when the step is ready",
            Self::Node => "on the node",
        }
    }
}

/// A name and what is written about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) moment: Moment,
    pub(crate) doc: &'static str,
}

const fn named(name: &'static str, moment: Moment, doc: &'static str) -> Named {
    Named { name, moment, doc }
}

use Moment::{Made, Node as OnNode, Ready};

/// The names with their fields, in the order of the documentation.
pub(crate) const NAMES: &[Named] = &[
    named(
        "event",
        Made,
        "What caused the run: `push`, `tag`, `manual`, `pull_request`, `merge_group`, `schedule` or `pipeline`.",
    ),
    named("git.ref", Made, "The full ref, e.g. `refs/heads/main`."),
    named("git.branch", Made, "The branch; empty for a tag."),
    named("git.tag", Made, "The tag; empty for a branch."),
    named("git.sha", Made, "The full commit id."),
    named("git.author", Made, "The commit's author."),
    named("git.message", Made, "First line of the commit's message."),
    named("git.default_branch", Made, "The default branch of the repository."),
    named(
        "git.pr.number",
        Made,
        "The number of the pull request; 0 for other events.",
    ),
    named(
        "git.pr.base",
        Made,
        "The branch that the pull request wants to go into; else empty.",
    ),
    named("git.pr.labels", Made, "The labels of the pull request, as a list."),
    named(
        "git.pr.fork",
        Made,
        "Whether the pull request comes from another repository.",
    ),
    named(
        "env",
        Made,
        "The variables of the step, those of the run merged in; one that is not there is empty. One whose value needs `needs` or `run.number` is known when the step is ready.",
    ),
    named(
        "inputs",
        Made,
        "What a person entered, by the names under `on.manual.inputs`; for other events their defaults.",
    ),
    named("matrix", Made, "The values of the step's cell."),
    named(
        "needs",
        Ready,
        "The steps that this one needs: `needs['step'].status` is `success`, `failed`, `timed_out`, `cancelled` or `skipped`; `needs['step'].outputs.key` is what it wrote into `$BUILDFLOW_OUTPUT`, empty when it wrote no such key.",
    ),
    named("run.id", Made, "The run's id."),
    named("run.number", Ready, "The run's number, counted for each pipeline."),
    named(
        "run.attempt",
        Ready,
        "1, and one more for each time a person has the run tried again.",
    ),
    named("team", Made, "The team."),
    named("pipeline", Made, "The pipeline's name."),
];

/// The functions that look at the run, in the order of the documentation.
pub(crate) const RUN_FUNCTIONS: &[Named] = &[
    named(
        "changed(glob…)",
        Made,
        "Whether the event changed a file that one of the globs means. True when it is not known what changed, as for a run that a person starts.",
    ),
    named(
        "success()",
        Ready,
        "Whether every need has ended well; what `if` asks for unless it names one of these three.",
    ),
    named(
        "failure()",
        Ready,
        "Whether a need has ended badly, itself or because of one before it.",
    ),
    named(
        "always()",
        Ready,
        "True. With it the step runs whatever its needs came to; not once its run is cancelled.",
    ),
    named(
        "hashFiles(glob…)",
        OnNode,
        "A digest of the files that the globs mean; only for keys of caches, which are not supported yet.",
    ),
];

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a key of the file.
    File,
    /// In a key of a step that is fixed when the run is made.
    Step,
    /// In a variable of a step, or in the `if` of one of its entries.
    Late,
    /// In the `if` of a step.
    Condition,
}

impl Place {
    fn latest(self) -> Moment {
        match self {
            Self::File | Self::Step => Made,
            Self::Late | Self::Condition => Ready,
        }
    }
}

/// What an expression can name besides what all can.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sight<'s> {
    pub(crate) place: Place,
    /// `None`: that depends on the step that takes the key over.
    pub(crate) matrix: Option<&'s [&'s str]>,
    /// `None`: likewise.
    pub(crate) needs: Option<&'s [&'s str]>,
    pub(crate) inputs: &'s [&'s str],
}

/// Everything that is wrong with the names and functions of an expression.
pub(crate) fn check(expr: &Expr, sight: Sight<'_>) -> Vec<Wrong> {
    let mut walk = Walk {
        sight,
        locals: Vec::new(),
        wrong: Vec::new(),
    };
    walk.look(expr);
    walk.wrong
}

/// Whether the expression asks how the needs have ended.
pub(crate) fn asks_for_ends(expr: &Expr) -> bool {
    let own =
        matches!(&expr.node, Node::Call(None, name, _) if matches!(name.as_str(), "success" | "failure" | "always"));
    own || expr.parts().into_iter().any(asks_for_ends)
}

struct Walk<'s> {
    sight: Sight<'s>,
    locals: Vec<String>,
    wrong: Vec<Wrong>,
}

impl Walk<'_> {
    fn look(&mut self, expr: &Expr) {
        match &expr.node {
            Node::Name(name) => self.name(expr.at, name),
            Node::Select(..) | Node::Has(..) | Node::Index(..) => {
                let mut fields = Vec::new();
                match self.path(expr, &mut fields) {
                    Some((at, root)) => self.path_named(at, root, &fields),
                    None => self.parts(expr),
                }
            }
            Node::Call(of, name, args) => {
                self.called(expr.at, of.is_some(), name, args.len());
                self.parts(expr);
            }
            Node::Macro(of) => {
                self.look(&of.range);
                self.locals.push(of.name.clone());
                of.parts.iter().for_each(|part| self.look(part));
                self.locals.pop();
            }
            Node::Broken(_) => self.unknown_function(expr.at, "error"),
            _ => self.parts(expr),
        }
    }

    fn parts(&mut self, expr: &Expr) {
        for part in expr.parts() {
            self.look(part);
        }
    }

    /// The root and the fields of `root.a['b']`, if every key is a fixed text.
    fn path<'e>(&self, expr: &'e Expr, fields: &mut Vec<(usize, &'e str)>) -> Option<(usize, &'e str)> {
        let (of, at, field) = match &expr.node {
            Node::Name(name) if self.locals.iter().all(|local| local != name) => return Some((expr.at, name)),
            Node::Select(of, field) | Node::Has(of, field) => (of, expr.at, field.as_str()),
            Node::Index(of, key) => match &key.node {
                Node::Literal(Value::Text(field)) => (of, key.at, &**field),
                _ => return None,
            },
            _ => return None,
        };
        let root = self.path(of, fields)?;
        fields.push((at, field));
        Some(root)
    }

    fn name(&mut self, at: usize, name: &str) {
        if self.locals.iter().any(|local| local == name) {
            return;
        }
        let Some(moment) = moment_of_root(name) else {
            self.wrong.push(unknown_name(at, name));
            return;
        };
        self.allowed(at, name, moment);
    }

    fn path_named(&mut self, at: usize, root: &str, fields: &[(usize, &str)]) {
        let Some(earliest) = moment_of_root(root) else {
            self.wrong.push(unknown_name(at, root));
            return;
        };
        let known: Option<Vec<&str>> = match root {
            "git" | "run" => Some(fields_below(root)),
            "matrix" => self.sight.matrix.map(<[&str]>::to_vec),
            "inputs" => Some(self.sight.inputs.to_vec()),
            "needs" => self.sight.needs.map(<[&str]>::to_vec),
            _ => None,
        };
        if let (Some(known), Some((field_at, field))) = (known, fields.first())
            && !known.contains(field)
        {
            self.wrong.push(unknown_field(*field_at, root, field, &known));
            return;
        }
        if let ("git", Some((_, "pr")), Some((field_at, field))) = (root, fields.first(), fields.get(1)) {
            let known = fields_below("git.pr");
            if !known.contains(field) {
                self.wrong.push(unknown_field(*field_at, "git.pr", field, &known));
                return;
            }
        }
        if let ("needs", Some((field_at, field))) = (root, fields.get(1))
            && !matches!(*field, "status" | "outputs")
        {
            self.wrong
                .push(unknown_field(*field_at, "needs['…']", field, &["status", "outputs"]));
            return;
        }
        let path = fields.first().map(|(_, field)| format!("{root}.{field}"));
        let exact = path.and_then(|path| NAMES.iter().find(|named| named.name == path));
        self.allowed(at, exact.map_or(root, |e| e.name), exact.map_or(earliest, |e| e.moment));
    }

    /// Whether a name of this moment may stand here.
    fn allowed(&mut self, at: usize, name: &str, moment: Moment) {
        let place = self.sight.place;
        if place == Place::File && matches!(name, "matrix" | "needs") {
            self.wrong.push(
                Wrong::new(
                    at,
                    format!("`{name}` belongs to a step and is not known in a key of the file"),
                )
                .help("write the expression in the step"),
            );
        } else if moment > place.latest() {
            self.wrong.push(
                Wrong::new(
                    at,
                    format!(
                        "`{name}` is known {}; this is fixed when the run is made",
                        moment.words()
                    ),
                )
                .help("it can stand in `if` and in the values of a step's `env`"),
            );
        }
    }

    fn called(&mut self, at: usize, method: bool, name: &str, args: usize) {
        let of_run = RUN_FUNCTIONS.iter().find(|f| f.name.split('(').next() == Some(name));
        let Some(of_run) = of_run.filter(|_| !method) else {
            if !FUNCTIONS.iter().any(|function| function.name == name) {
                self.unknown_function(at, name);
            }
            return;
        };
        let globs = of_run.name.contains('…');
        if globs == (args == 0) {
            self.wrong
                .push(Wrong::new(at, format!("`{name}` is written `{}`", of_run.name)));
            return;
        }
        match (of_run.moment, self.sight.place) {
            (Moment::Node, _) => self.wrong.push(
                Wrong::new(at, format!("`{name}` is known on the node, before the step begins"))
                    .help("it is for keys of caches, which are not supported yet"),
            ),
            (Ready, Place::File | Place::Step | Place::Late) => self.wrong.push(
                Wrong::new(at, format!("`{name}()` stands only in the `if` of a step"))
                    .help("commands that run whatever happened go into `after`"),
            ),
            (Made, _) | (Ready, Place::Condition) => {}
        }
    }

    fn unknown_function(&mut self, at: usize, name: &str) {
        let of_run = RUN_FUNCTIONS.iter().filter_map(|f| f.name.split('(').next());
        let known = FUNCTIONS.iter().map(|f| f.name).chain(of_run);
        let wrong = Wrong::new(at, format!("there is no function `{}`", shown(name)));
        let wrong = match (name, nearest(name, known)) {
            ("fromJSON" | "toJSON" | "format" | "cancelled", _) => {
                wrong.help("it is a function of GitHub; the reference of the language lists ours")
            }
            (_, Some(meant)) => wrong.help(format!("did you mean `{meant}`?")),
            _ => wrong.help("the reference of the language lists them"),
        };
        self.wrong.push(wrong);
    }
}

/// When the first field of a root is known.
fn moment_of_root(root: &str) -> Option<Moment> {
    let of_root = |named: &&Named| named.name.split('.').next() == Some(root);
    NAMES.iter().filter(of_root).map(|named| named.moment).min()
}

fn fields_below(prefix: &str) -> Vec<&'static str> {
    let below = NAMES
        .iter()
        .filter_map(|named| named.name.strip_prefix(prefix)?.strip_prefix('.'));
    let mut fields: Vec<&str> = below.filter_map(|rest| rest.split('.').next()).collect();
    fields.dedup();
    fields
}

fn unknown_name(at: usize, name: &str) -> Wrong {
    let wrong = Wrong::new(at, format!("`{}` is no name that an expression knows", shown(name)));
    let help = match name {
        "secrets" => {
            "secrets reach a step by its key `secrets`, which is not supported yet, never by a text".to_owned()
        }
        "github" => "write `event`, `git.branch`, `git.sha`, `run.number`, …".to_owned(),
        "vars" => "write `env`".to_owned(),
        "steps" | "jobs" => "write `needs['step'].outputs.key`".to_owned(),
        "runner" => "a step learns of its node by its environment".to_owned(),
        "branch" | "tag" | "ref" | "sha" | "author" | "message" => format!("write `git.{name}`"),
        _ => {
            let roots = NAMES.iter().filter_map(|named| named.name.split('.').next());
            match nearest(name, roots) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "texts are quoted: `'main'`; names are `event`, `git`, `env`, `inputs`, `matrix`, `needs`, `run`, `team`, `pipeline`".to_owned(),
            }
        }
    };
    wrong.help(help)
}

fn unknown_field(at: usize, root: &str, field: &str, known: &[&str]) -> Wrong {
    let field = shown(field);
    let (message, help) = match root {
        "needs" => (
            format!("the step does not need `{field}`"),
            "name it under `needs`".to_owned(),
        ),
        "matrix" if known.is_empty() => (
            "the step has no `matrix`".to_owned(),
            format!("write `matrix: {{{field}: […]}}`"),
        ),
        "matrix" => (
            format!("the matrix of the step has no `{field}`"),
            format!("it has {}", listed(known)),
        ),
        "inputs" => (
            format!("no input is named `{field}`"),
            "define it under `on.manual.inputs`".to_owned(),
        ),
        _ => (
            format!("`{root}` has no field `{field}`"),
            format!("it has {}", listed(known)),
        ),
    };
    let help = match nearest(&field, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => help,
    };
    Wrong::new(at, message).help(help)
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().take(12).map(|name| format!("`{}`", shown(name))).collect();
    names.join(", ")
}

/// What is known when a run is made, or, without an occasion, when only its file is looked at.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'k> {
    names: BTreeMap<&'static str, Value>,
    /// The variables that are known when the step is ready.
    late_env: BTreeMap<String, Rc<[Piece]>>,
    changed: Option<&'k Occasion>,
    work: &'k Cell<usize>,
}

impl<'k> Facts<'k> {
    pub(crate) fn new(occasion: Option<&'k Occasion>, work: &'k Cell<usize>) -> Self {
        let names = BTreeMap::from([
            ("event", of(occasion, |o| Value::text(&o.event))),
            ("git", git(occasion)),
            ("team", of(occasion, |o| Value::text(&o.team))),
            ("pipeline", of(occasion, |o| Value::text(&o.pipeline))),
            ("run", run(occasion)),
            ("inputs", Value::Unknown),
            ("env", Value::Unknown),
            ("matrix", Value::Unknown),
            ("needs", Value::Unknown),
        ]);
        Self {
            names,
            late_env: BTreeMap::new(),
            changed: occasion,
            work,
        }
    }

    pub(crate) fn set(&mut self, name: &'static str, value: Value) {
        self.names.insert(name, value);
    }

    /// False when all expressions of the file have taken more steps than they may.
    pub(crate) fn may_go_on(&self) -> bool {
        self.work.get() <= WORK_MAX
    }

    /// Counts what is read again because of expressions.
    pub(crate) fn spend_many(&self, steps: usize) {
        self.work.set(self.work.get().saturating_add(steps));
    }

    /// The variables, of which the run may add more when nobody says which it has.
    pub(crate) fn set_env(&mut self, mut map: BTreeMap<String, Value>, late: BTreeMap<String, Rc<[Piece]>>) {
        let open = self.changed.is_none();
        map.extend(late.keys().map(|name| (name.clone(), Value::Unknown)));
        self.set("env", Value::Loose(Arc::new(Loose { map, open })));
        self.late_env = late;
    }

    /// What is left of an expression, with what variables stand for that are known only when the step is
    /// ready put in their place: by then nobody knows which layer wrote which.
    pub(crate) fn put_late_env(&self, rest: &Expr) -> Result<Expr, Wrong> {
        let mut bytes = 0;
        let put = cel::put(rest, "env", &mut |name| {
            let pieces = self.late_env.get(name)?;
            bytes += pieces.iter().map(len).sum::<usize>();
            self.spend_many(pieces.len());
            // No more than what is refused below is made.
            (bytes <= EXPRESSION_MAX).then(|| joined(pieces)).flatten()
        });
        if bytes > EXPRESSION_MAX {
            let message =
                format!("with the variables that it names the expression has more than {EXPRESSION_MAX} bytes");
            return Err(
                Wrong::new(0, message).help("let it name fewer of those that are known only when the step is ready")
            );
        }
        match by_name(&put) {
            // Without an occasion nobody can say which variables there are.
            Some(env) if self.changed.is_some() => Err(Wrong::new(
                env.at,
                "which variable is meant is known only when the step is ready",
            )
            .help("name it: `env.NAME`")),
            _ => Ok(put),
        }
    }
}

fn len(piece: &Piece) -> usize {
    match piece {
        Piece::Text(text) | Piece::Expression(text) => text.len(),
    }
}

/// The text that pieces make, as an expression.
fn joined(pieces: &[Piece]) -> Option<Expr> {
    let part = |piece: &Piece| {
        Some(match piece {
            Piece::Text(text) => Expr::new(0, Node::Literal(Value::text(text))),
            Piece::Expression(expression) => {
                let of = cel::parse(expression).ok()?;
                Expr::new(0, Node::Call(None, "string".to_owned(), vec![of]))
            }
        })
    };
    let mut parts = pieces.iter().map(part);
    let first = parts.next()??;
    parts.try_fold(first, |before, next| {
        let sum = Node::Binary(Operator::Add, Box::new(before), Box::new(next?));
        Some(Expr::new(0, sum))
    })
}

/// Where `env` stands for all variables.
fn by_name(expr: &Expr) -> Option<&Expr> {
    match &expr.node {
        Node::Name(name) if name == "env" => Some(expr),
        Node::Macro(of) if of.name == "env" => by_name(&of.range),
        _ => expr.parts().into_iter().find_map(by_name),
    }
}

fn of(occasion: Option<&Occasion>, value: impl FnOnce(&Occasion) -> Value) -> Value {
    occasion.map_or(Value::Unknown, value)
}

fn git(occasion: Option<&Occasion>) -> Value {
    let text = |get: fn(&Occasion) -> &str| of(occasion, |o| Value::text(get(o)));
    Value::map([
        ("ref", text(|o| &o.git.git_ref)),
        ("branch", text(|o| o.git.branch().unwrap_or_default())),
        ("tag", text(|o| o.git.tag().unwrap_or_default())),
        ("sha", text(|o| &o.git.sha)),
        ("author", text(|o| &o.git.author)),
        ("message", text(|o| &o.git.message)),
        ("default_branch", text(|o| &o.git.default_branch)),
        ("pr", pull_request(occasion)),
    ])
}

fn pull_request(occasion: Option<&Occasion>) -> Value {
    let fields = |occasion: &Occasion| {
        let of = occasion.git.pull_request.clone().unwrap_or_default();
        [
            Value::Int(i64::try_from(of.number).unwrap_or(i64::MAX)),
            Value::text(&of.base),
            Value::texts(&of.labels),
            Value::Bool(of.fork),
        ]
    };
    let values = occasion.map_or([const { Value::Unknown }; 4], fields);
    Value::map(["number", "base", "labels", "fork"].into_iter().zip(values))
}

fn run(occasion: Option<&Occasion>) -> Value {
    Value::map([
        ("id", of(occasion, |o| Value::text(&o.run_id))),
        ("number", Value::Unknown),
        ("attempt", Value::Unknown),
    ])
}

impl Scope for Facts<'_> {
    fn name(&self, name: &str) -> Option<Value> {
        self.names.get(name).cloned()
    }

    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
        match name {
            "success" | "failure" | "always" | "hashFiles" => Some(Ok(Value::Unknown)),
            "changed" => Some(self.has_changed(args)),
            _ => None,
        }
    }

    fn spend(&self) -> bool {
        self.work.set(self.work.get() + 1);
        self.work.get() <= WORK_MAX
    }
}

impl Facts<'_> {
    fn has_changed(&self, args: &[Value]) -> Result<Value, String> {
        let mut globs = Vec::new();
        for arg in args {
            match arg {
                Value::Text(glob) => globs.push(&**glob),
                Value::Unknown => return Ok(Value::Unknown),
                other => return Err(format!("`changed` needs globs, not {}", other.kind())),
            }
        }
        let globs = crate::glob::Globs::new(&globs)?;
        let Some(occasion) = self.changed else {
            return Ok(Value::Unknown);
        };
        let changed = occasion.changed.as_ref();
        Ok(Value::Bool(changed.is_none_or(|files| globs.any(files))))
    }
}
