//! `matrix`: one step becomes a step for each combination of values.
//!
//! Not here: how the values reach the step ([`crate::scope`]), and how many of the cells may run at
//! the same time.
//!
//! Values are written as they are, without expressions, so that the steps of a run can be told from
//! its file alone.

use crate::cel;
use crate::keys::{MATRIX_KEYS, MatrixKey};
use crate::limits::{AXES_MAX, CELLS_MAX, COMBINATIONS_MAX, MATRIX_VALUE_MAX};
use crate::read::Reader;
use crate::report::Problem;
use crate::syntax::shown;
use crate::tree::{Kind, NodeId, Pair, Value};
use model::id::CELL_MAX;
use std::collections::{BTreeMap, BTreeSet};

/// Values by name, in the order of the file.
type Values<'t> = Vec<(&'t str, cel::Value)>;

/// A matrix, laid out.
#[derive(Debug, Clone)]
pub(crate) struct Matrix<'t> {
    pub(crate) cells: Vec<Cell<'t>>,
    /// The names that a cell may have.
    pub(crate) names: Vec<&'t str>,
    pub(crate) fail_fast: bool,
    pub(crate) max_parallel: Option<u32>,
}

/// One combination of values.
#[derive(Debug, Clone)]
pub(crate) struct Cell<'t> {
    /// What stands in parentheses behind the step's name.
    pub(crate) label: String,
    pub(crate) values: BTreeMap<&'t str, cel::Value>,
}

impl Cell<'_> {
    /// What expressions see as `matrix`.
    pub(crate) fn value(&self) -> cel::Value {
        cel::Value::map(self.values.iter().map(|(name, value)| (*name, value.clone())))
    }
}

/// A matrix as it is written.
#[derive(Default)]
struct Written<'t> {
    axes: Vec<(&'t str, Vec<cel::Value>)>,
    include: Vec<Values<'t>>,
    exclude: Vec<Values<'t>>,
    fail_fast: bool,
    max_parallel: Option<u32>,
}

impl<'t> Reader<'t, '_> {
    pub(crate) fn matrix(&mut self, node: NodeId) -> Option<Matrix<'t>> {
        let pairs = self.pairs("`matrix`", node)?;
        let at = self.at(node);
        if pairs.len() > AXES_MAX + MATRIX_KEYS.len() {
            self.report.add(at, || {
                Problem::new(format!(
                    "`matrix` has {} keys; the most is {AXES_MAX} names",
                    pairs.len()
                ))
            });
            return None;
        }
        let mut written = Written::default();
        let mut whole = true;
        for pair in pairs.iter().filter(|pair| !pair.key.starts_with("x-")) {
            whole &= self.matrix_key(&mut written, pair).is_some();
        }
        if !whole {
            return None;
        }
        match laid_out(written) {
            Ok(matrix) => Some(matrix),
            Err(problem) => {
                self.report.add(at, || problem);
                None
            }
        }
    }

    fn matrix_key(&mut self, written: &mut Written<'t>, pair: &'t Pair<'_>) -> Option<()> {
        let what = format!("`matrix.{}`", shown(&pair.key));
        match MATRIX_KEYS.iter().find(|key| key.name == pair.key).map(|key| key.id) {
            Some(MatrixKey::Include) => written.include = self.entries(&what, pair.value)?,
            Some(MatrixKey::Exclude) => {
                written.exclude = self.entries(&what, pair.value)?;
            }
            Some(MatrixKey::FailFast) => written.fail_fast = self.flag(&what, pair.value)?,
            Some(MatrixKey::MaxParallel) => {
                let most = self.count(&what, pair.value, 1, CELLS_MAX as u64)?;
                written.max_parallel = u32::try_from(most).ok();
            }
            None => {
                self.check_axis(pair)?;
                let values = self.axis(&what, pair.value)?;
                written.axes.push((&*pair.key, values));
            }
        }
        Some(())
    }

    fn check_axis(&mut self, pair: &Pair<'_>) -> Option<()> {
        let key = &*pair.key;
        let head = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let legal = head && key.len() <= 63 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let meant = crate::suggest::nearest(key, MATRIX_KEYS.iter().map(|key| key.name));
        if let Some(meant) = meant.filter(|_| key.contains(['-', '_'])) {
            self.report.add(pair.at, || {
                Problem::new(format!("`matrix.{}` is not a key of `matrix`", shown(key)))
                    .help(format!("did you mean `{meant}`?"))
            });
            return None;
        }
        if !legal {
            self.report.add(pair.at, || {
                Problem::new(format!("`{}` cannot be a name in `matrix`", shown(key)))
                    .help("1 to 63 letters, digits, `_` and `-`, the first a letter or `_`")
            });
        }
        legal.then_some(())
    }

    fn axis(&mut self, what: &str, node: NodeId) -> Option<Vec<cel::Value>> {
        let items = self.items(what, node)?;
        if items.is_empty() || items.len() > CELLS_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "{what} holds {} values; it must be 1 to {CELLS_MAX}",
                    items.len()
                ))
            });
            return None;
        }
        let values: Vec<Option<cel::Value>> = items.iter().map(|item| self.matrix_value(what, *item)).collect();
        values.into_iter().collect()
    }

    /// A number, a flag or a text; without expressions.
    fn matrix_value(&mut self, what: &str, node: NodeId) -> Option<cel::Value> {
        let text = self.text(&format!("a value of {what}"), node)?;
        let Value::Scalar(scalar) = self.value(node) else {
            return None;
        };
        if text.value.len() > MATRIX_VALUE_MAX {
            self.report.add(text.at, || {
                Problem::new(format!("a value of {what} has more than {MATRIX_VALUE_MAX} bytes"))
            });
            return None;
        }
        Some(match scalar.kind {
            Kind::Bool(flag) => cel::Value::Bool(flag),
            Kind::Integer => match text.value.parse() {
                // As it is written: `007` is no number that anybody wants back as `7`.
                Ok(number) if format!("{number}") == text.value => cel::Value::Int(number),
                _ => cel::Value::text(text.value),
            },
            _ => cel::Value::text(text.value),
        })
    }

    /// `include` and `exclude`: a list of mappings.
    fn entries(&mut self, what: &str, node: NodeId) -> Option<Vec<Values<'t>>> {
        let items = self.items(what, node)?;
        if items.len() > CELLS_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("{what} holds {} entries; the most is {CELLS_MAX}", items.len()))
            });
            return None;
        }
        let entries: Vec<Option<Values<'t>>> = items.iter().map(|item| self.entry(what, *item)).collect();
        entries.into_iter().collect()
    }

    fn entry(&mut self, what: &str, node: NodeId) -> Option<Values<'t>> {
        let pairs = self.pairs(&format!("an entry of {what}"), node)?;
        if pairs.is_empty() || pairs.len() > AXES_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "an entry of {what} holds {} values; it must be 1 to {AXES_MAX}",
                    pairs.len()
                ))
            });
            return None;
        }
        let values: Vec<Option<(&'t str, cel::Value)>> = pairs
            .iter()
            .map(|pair| {
                self.check_axis(pair)?;
                Some((&*pair.key, self.matrix_value(what, pair.value)?))
            })
            .collect();
        values.into_iter().collect()
    }
}

/// The cells: all combinations but those of `exclude`, and what `include` adds.
fn laid_out(written: Written<'_>) -> Result<Matrix<'_>, Problem> {
    let product = written
        .axes
        .iter()
        .try_fold(1_usize, |product, (_, values)| product.checked_mul(values.len()));
    if product.is_none_or(|product| product > COMBINATIONS_MAX) {
        return Err(Problem::new(format!(
            "`matrix` has more than {COMBINATIONS_MAX} combinations"
        )));
    }
    let axes: BTreeSet<&str> = written.axes.iter().map(|(name, _)| *name).collect();
    let mut own: Vec<Values<'_>> = if axes.is_empty() { Vec::new() } else { vec![Vec::new()] };
    for (name, values) in &written.axes {
        own = own
            .iter()
            .flat_map(|cell| {
                values.iter().map(move |value| {
                    let mut cell = cell.clone();
                    cell.push((*name, value.clone()));
                    cell
                })
            })
            .collect();
    }
    own.retain(|cell| {
        !written
            .exclude
            .iter()
            .any(|entry| entry.iter().all(|v| cell.contains(v)))
    });
    let kept = own.len();
    let mut cells = own.clone();
    for entry in &written.include {
        let mut added = false;
        for number in 0..kept {
            let contradicts = |(name, value): &(&str, cel::Value)| {
                axes.contains(name) && !own[number].iter().any(|(n, v)| n == name && v == value)
            };
            if !entry.iter().any(contradicts) {
                add(&mut cells[number], entry);
                added = true;
            }
        }
        if !added {
            cells.push(entry.clone());
        }
    }
    if cells.is_empty() || cells.len() > CELLS_MAX {
        return Err(Problem::new(format!(
            "`matrix` makes {} cells; it must be 1 to {CELLS_MAX}",
            cells.len()
        )));
    }
    Ok(Matrix {
        names: cells
            .iter()
            .flatten()
            .map(|(name, _)| *name)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        cells: labelled(cells, &axes),
        fail_fast: written.fail_fast,
        max_parallel: written.max_parallel,
    })
}

fn add<'t>(cell: &mut Values<'t>, entry: &Values<'t>) {
    for (name, value) in entry {
        match cell.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value.clone(),
            None => cell.push((name, value.clone())),
        }
    }
}

/// Names the cells by their values, each differently.
fn labelled<'t>(cells: Vec<Values<'t>>, axes: &BTreeSet<&str>) -> Vec<Cell<'t>> {
    let mut taken = BTreeSet::new();
    let mut labelled = Vec::with_capacity(cells.len());
    for cell in cells {
        let all = !cell.iter().any(|(name, _)| axes.contains(name));
        let named = cell.iter().filter(|(name, _)| all || axes.contains(name));
        let parts: Vec<String> = named.map(|(_, value)| label_part(value)).collect();
        let mut label: String = parts.join(",").chars().take(CELL_MAX - 4).collect();
        if label.is_empty() {
            label.push('_');
        }
        if !taken.insert(label.clone()) {
            label = (2..)
                .map(|n| format!("{label}.{n}"))
                .find(|label| !taken.contains(label))
                .unwrap_or_default();
            taken.insert(label.clone());
        }
        labelled.push(Cell {
            label,
            values: cell.into_iter().collect(),
        });
    }
    labelled
}

fn label_part(value: &cel::Value) -> String {
    let text = value.spliced().unwrap_or_default();
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "._+-".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.chars().map(plain).collect()
}
