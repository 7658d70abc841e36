//! The layers of each step are put together, once for each cell of its matrix: the step itself over
//! the templates that it extends over `defaults` over the `env` of the file.
//!
//! Not here: how one layer is read ([`crate::part`]), and what is made of the whole
//! ([`crate::finish`]).
//!
//! The first layer that says something wins; `env`, `labels` and `resources` are merged name by
//! name. When a step extends nothing, the `extends` of `defaults` counts. A layer in which
//! expressions stand is read again for each step that takes it over, with what that step can see.
//! Variables come first, the lowest layer before the next, so that a variable can be made of those
//! below it; then everything else sees all of them.

use crate::cel::Value;
use crate::draft::{Draft, Step, too_many_steps};
use crate::keys::Level;
use crate::matrix::{Cell, Matrix};
use crate::occasion::Occasion;
use crate::part::{Env, Part, Variable, merged};
use crate::read::{EnvIs, Reader};
use crate::report::Problem;
use crate::scope::Place;
use crate::templates::{Templates, limit_env};
use crate::tree::{NodeId, Value as Written};
use model::MatrixRules;
use model::run::STEPS_MAX;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A step of the run with all its layers.
pub(crate) struct Whole<'t> {
    /// As it stands in the file.
    pub(crate) base: &'t str,
    /// With the cell of its matrix.
    pub(crate) name: &'t str,
    pub(crate) stage: usize,
    pub(crate) part: Part<'t>,
    /// An ordinal of [`Assembly::matrices`].
    pub(crate) matrix: Option<usize>,
}

/// Puts the layers together.
pub(crate) struct Assembly<'d, 't, 'a> {
    pub(crate) reader: Reader<'t, 'a>,
    pub(crate) draft: &'d Draft<'t>,
    pub(crate) occasion: Option<&'t Occasion>,
    pub(crate) matrices: Vec<MatrixRules>,
    templates: Templates<'d, 't>,
    /// The `env` of the files, while no expression stands in it.
    plain_env: Option<Env<'t>>,
}

/// A step before its cells are told apart.
struct Outline<'d, 't> {
    step: &'d Step<'t>,
    base: &'t str,
    /// Without looking at expressions.
    part: Part<'t>,
    /// The templates that it takes over, the nearest first.
    chain: Vec<usize>,
    /// Each with its name; one without a cell for a step without a matrix.
    cells: Vec<(&'t str, Option<Cell<'t>>)>,
}

impl<'d, 't, 'a> Assembly<'d, 't, 'a> {
    pub(crate) fn new(reader: Reader<'t, 'a>, draft: &'d Draft<'t>, occasion: Option<&'t Occasion>) -> Self {
        Self {
            reader,
            draft,
            occasion,
            matrices: Vec::new(),
            templates: Templates::new(&draft.templates),
            plain_env: None,
        }
    }

    /// Every step with all its layers.
    pub(crate) fn whole_steps(&mut self) -> Vec<Whole<'t>> {
        let draft = self.draft;
        self.templates.check(&mut self.reader.report);
        for defaults in &draft.defaults {
            if let Some(extends) = defaults.part.extends {
                self.templates.find(extends, &mut self.reader.report);
            }
        }
        let outlines: Vec<Outline<'d, 't>> = draft.steps.iter().map(|step| self.outline(step)).collect();
        let count: usize = outlines.iter().map(|outline| outline.cells.len()).sum();
        if count > STEPS_MAX {
            let at = outlines.first().map_or(0, |outline| outline.step.part.at);
            self.reader.report.add(at, || {
                Problem::new(format!(
                    "with the cells of its matrices the file has {count} steps; the most is {STEPS_MAX}"
                ))
                .help(too_many_steps().help.unwrap_or_default())
            });
            return Vec::new();
        }
        let by_stage = self.names_by_stage(&outlines);
        let mut whole = Vec::with_capacity(count);
        for outline in outlines {
            self.cells_of(outline, &by_stage, &mut whole);
        }
        whole
    }

    /// What expressions of steps that need a whole stage may name.
    fn names_by_stage(&self, outlines: &[Outline<'_, 't>]) -> Vec<Rc<[&'t str]>> {
        let mut names: Vec<Vec<&'t str>> = vec![Vec::new(); self.draft.stages.len()];
        for outline in outlines {
            let stage = &mut names[outline.step.stage];
            stage.push(outline.base);
            stage.extend(
                outline
                    .cells
                    .iter()
                    .filter(|(_, cell)| cell.is_some())
                    .map(|(name, _)| *name),
            );
        }
        names.into_iter().map(Into::into).collect()
    }

    fn outline(&mut self, step: &'d Step<'t>) -> Outline<'d, 't> {
        let draft = self.draft;
        let mut part = step.part.clone();
        let mut chain = Vec::new();
        let of_defaults = draft.defaults.iter().rev().find_map(|defaults| defaults.part.extends);
        if let Some(extends) = part.extends.or(of_defaults) {
            match self.templates.whole(extends, &mut self.reader.report) {
                Some((template, numbers)) => {
                    part = part.over(&template);
                    chain = numbers;
                }
                None => part.broken = true,
            }
        }
        for defaults in draft.defaults.iter().rev() {
            part = part.over(&defaults.part);
        }
        limit_env(&mut part, step.part.at, &mut self.reader.report);
        let base = part.name.map_or("", |name| name.value);
        let cells = match part.matrix.clone() {
            Some(matrix) => self.cells(base, &matrix),
            None => vec![(base, None)],
        };
        Outline {
            step,
            base,
            part,
            chain,
            cells,
        }
    }

    fn cells(&self, base: &'t str, matrix: &Matrix<'t>) -> Vec<(&'t str, Option<Cell<'t>>)> {
        let named = |cell: &Cell<'t>| {
            let name: &'t str = self.reader.texts.alloc(format!("{base}({})", cell.label));
            (name, Some(cell.clone()))
        };
        matrix.cells.iter().map(named).collect()
    }

    fn cells_of(&mut self, outline: Outline<'_, 't>, by_stage: &[Rc<[&'t str]>], out: &mut Vec<Whole<'t>>) {
        let matrix = outline.part.matrix.clone();
        let ordinal = matrix.as_ref().map(|matrix| {
            self.matrices.push(MatrixRules {
                step: outline.base.to_owned(),
                fail_fast: matrix.fail_fast,
                max_parallel: matrix.max_parallel,
            });
            self.matrices.len() - 1
        });
        self.reader.names.matrix = Some(matrix.as_ref().map_or_else(|| [].into(), |m| m.names.clone().into()));
        self.reader.names.needs = Some(self.needs_of(&outline, by_stage));
        let varies = outline.part.varies || self.env_varies();
        for (name, cell) in &outline.cells {
            let mut part = outline.part.clone();
            if varies && !part.broken && self.reader.known.may_go_on() {
                let value = cell.as_ref().map_or_else(|| Value::map::<String>([]), Cell::value);
                self.reader.known.set("matrix", value);
                self.reader.step = Some((*name).to_owned());
                part = self.read_again(&outline);
            } else {
                part.env = merged(part.env, &self.plain_env());
                limit_env(&mut part, outline.step.part.at, &mut self.reader.report);
            }
            out.push(Whole {
                base: outline.base,
                name,
                stage: outline.step.stage,
                part,
                matrix: ordinal,
            });
        }
    }

    /// What expressions of the step may name as `needs['…']`.
    fn needs_of(&self, outline: &Outline<'_, 't>, by_stage: &[Rc<[&'t str]>]) -> Rc<[&'t str]> {
        match &outline.part.needs {
            None => match outline.step.stage.checked_sub(1) {
                Some(before) => Rc::clone(&by_stage[before]),
                None => [].into(),
            },
            Some(named) => {
                let mut names: Vec<&'t str> = named.iter().map(|need| need.value).collect();
                let all = by_stage.iter().flat_map(|stage| stage.iter());
                let cells = all.filter(|name| {
                    let base = name.split_once('(').map(|(base, _)| base);
                    base.is_some_and(|base| named.iter().any(|need| need.value == base))
                });
                if named.len() <= NEEDS_WITH_CELLS_MAX {
                    names.extend(cells);
                }
                names.into()
            }
        }
    }

    fn env_varies(&self) -> bool {
        let written = |node: &NodeId| match self.reader.value(*node) {
            Written::Map(pairs) => pairs.iter().any(|pair| self.reader.has_expression(pair.value)),
            Written::List(_) | Written::Scalar(_) => false,
        };
        self.draft.env.iter().any(written)
    }

    fn plain_env(&mut self) -> Env<'t> {
        if self.plain_env.is_none() {
            self.plain_env = Some(self.file_env());
        }
        self.plain_env.clone().unwrap_or_default()
    }

    /// The layers of a step, the highest first: the nodes and what they are.
    fn layers(&self, outline: &Outline<'_, 't>) -> Vec<(NodeId, Level)> {
        let templates = outline
            .chain
            .iter()
            .map(|n| (self.draft.templates[*n].node, Level::Template));
        let defaults = self
            .draft
            .defaults
            .iter()
            .rev()
            .map(|layer| (layer.node, Level::Defaults));
        let mut layers = vec![(outline.step.node, Level::Step)];
        layers.extend(templates);
        layers.extend(defaults);
        layers
    }

    /// All layers of a step anew, with what the step can see.
    fn read_again(&mut self, outline: &Outline<'_, 't>) -> Part<'t> {
        let layers = self.layers(outline);
        let size: usize = layers.iter().map(|(node, _)| self.reader.tree.size(*node)).sum();
        self.reader.known.spend_many(size);
        let mut env = self.file_env();
        for (node, _) in layers.iter().rev() {
            self.see_env(&env);
            if let Some(own) = self.env_of(*node) {
                env = merged(own, &env);
            }
        }
        self.see_env(&env);
        self.reader.env_is = EnvIs::Made;
        let mut part = Part::default();
        for (n, (node, level)) in layers.iter().enumerate() {
            let layer = self.reader.part("a step", *node, *level);
            part = if n == 0 { layer } else { part.over(&layer) };
        }
        self.reader.env_is = EnvIs::Read;
        part.env = env;
        limit_env(&mut part, outline.step.part.at, &mut self.reader.report);
        part
    }

    /// The `env` of the files; each may use those of the files that it includes.
    pub(crate) fn file_env(&mut self) -> Env<'t> {
        let mut env = Env::default();
        for node in &self.draft.env {
            self.see_env(&env);
            if let Some(own) = self.reader.env("`env`", *node, Place::File) {
                env = merged(own, &env);
            }
        }
        env
    }

    fn env_of(&mut self, layer: NodeId) -> Option<Env<'t>> {
        let Written::Map(pairs) = self.reader.value(layer) else {
            return None;
        };
        let pair = pairs.iter().find(|pair| pair.key == "env")?;
        self.reader.env("`env`", pair.value, Place::Late)
    }

    /// Lets expressions see these variables, and those of the run over them.
    pub(crate) fn see_env(&mut self, env: &Env<'t>) {
        let (mut all, mut late) = (BTreeMap::new(), BTreeMap::new());
        for (name, variable) in &**env {
            match variable {
                Variable::Text(text) => drop(all.insert((*name).to_owned(), Value::text(text))),
                Variable::Late(pieces) => drop(late.insert((*name).to_owned(), Rc::clone(pieces))),
            }
        }
        for (name, text) in self.occasion.iter().flat_map(|occasion| &occasion.variables) {
            late.remove(name);
            all.insert(name.clone(), Value::text(text));
        }
        self.reader.known.set_env(all, late);
    }
}

/// Beyond this many needs, cells of needed matrices cannot be named one by one in expressions.
const NEEDS_WITH_CELLS_MAX: usize = 50;
