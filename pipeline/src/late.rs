//! What of a step is known only when its needs have ended: its condition, some of its variables, which
//! of its entries run.
//!
//! Everything else was worked in when the run was made, so an expression here names only `needs`,
//! `run.number`, `run.attempt` and how the needs have ended. The answers follow from the definition and
//! the records alone: whoever asks gets the same one.
//!
//! Not here: when a step is asked ([`crate::progress`]).

use crate::cel::{self, Loose, Scope, Value};
use crate::limits::ENV_TOTAL_MAX;
use crate::progress::Records;
use model::{Piece, RunDef, RunHeader, StepDef, StepRecord, StepStatus};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the needs of a step have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    /// All well.
    pub(crate) well: bool,
    /// One badly, itself or because of one before it.
    pub(crate) failed: bool,
}

/// What expressions can see when a step is ready.
struct Ready {
    names: BTreeMap<&'static str, Value>,
    ends: Ends,
    /// Steps of evaluations so far.
    work: Cell<usize>,
}

/// Steps that all expressions of one step may take together: it is the leader who evaluates them.
const WORK_MAX: usize = 50_000;

impl Scope for Ready {
    fn name(&self, name: &str) -> Option<Value> {
        self.names.get(name).cloned()
    }

    fn call(&self, name: &str, _: &[Value]) -> Option<Result<Value, String>> {
        match name {
            "success" => Some(Ok(Value::Bool(self.ends.well))),
            "failure" => Some(Ok(Value::Bool(self.ends.failed))),
            "always" => Some(Ok(Value::Bool(true))),
            _ => None,
        }
    }

    fn spend(&self) -> bool {
        self.work.set(self.work.get() + 1);
        self.work.get() <= WORK_MAX
    }
}

impl Ready {
    fn of(header: &RunHeader, def: &RunDef, step: &StepDef, records: &Records, ends: Ends) -> Self {
        let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let run = Value::map([
            ("number", number(header.number)),
            ("attempt", number(u64::from(header.attempt))),
        ]);
        Self {
            names: BTreeMap::from([("run", run), ("needs", needs(def, step, records))]),
            ends,
            work: Cell::new(0),
        }
    }

    fn value(&self, expression: &str) -> Result<Value, String> {
        let expr = cel::parse(expression).map_err(|wrong| wrong.message)?;
        cel::evaluate(&expr, self).map_err(|fault| fault.message)
    }

    fn holds(&self, expression: &str) -> Result<bool, String> {
        match self.value(expression)? {
            Value::Bool(flag) => Ok(flag),
            other => Err(format!("it is {}, and must be true or false", other.kind())),
        }
    }

    fn text(&self, pieces: &[Piece]) -> Result<String, String> {
        let mut whole = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => whole.push_str(text),
                Piece::Expression(expression) => {
                    let value = self.value(expression)?;
                    let text = value.spliced();
                    whole.push_str(&text.ok_or_else(|| format!("it is {}", value.kind()))?);
                }
            }
        }
        Ok(whole)
    }
}

/// What expressions see as `needs`: each step by its name, and a matrix by the name that it has in
/// the file.
fn needs(def: &RunDef, step: &StepDef, records: &Records) -> Value {
    let mut all: BTreeMap<&str, Vec<Option<&StepRecord>>> = BTreeMap::new();
    for ordinal in &step.needs {
        let Some(need) = def.steps.get(*ordinal) else { continue };
        let record = records.get(ordinal);
        all.entry(need.name.as_str()).or_default().push(record);
        if need.name.base() != need.name.as_str() {
            all.entry(need.name.base()).or_default().push(record);
        }
    }
    Value::map(all.into_iter().map(|(name, records)| (name, need_value(&records))))
}

/// A step that was needed, or all cells of a matrix: the worst status, and the outputs of all, a later
/// cell winning.
fn need_value(records: &[Option<&StepRecord>]) -> Value {
    let worst = records
        .iter()
        .map(|record| record.map_or(StepStatus::Pending, |record| record.status))
        .max_by_key(|status| badness(*status));
    let outputs = records.iter().flatten().flat_map(|record| &record.left.outputs);
    let outputs = Loose {
        map: outputs.map(|(key, text)| (key.clone(), Value::text(text))).collect(),
        open: false,
    };
    Value::map([
        ("status", Value::text(worst.unwrap_or(StepStatus::Skipped).as_str())),
        ("outputs", Value::Loose(Arc::new(outputs))),
    ])
}

fn badness(status: StepStatus) -> u8 {
    match status {
        StepStatus::Skipped => 0,
        StepStatus::Success => 1,
        StepStatus::Pending | StepStatus::Queued | StepStatus::Assigned | StepStatus::Running => 2,
        StepStatus::Cancelled => 3,
        StepStatus::TimedOut => 4,
        StepStatus::Failed => 5,
    }
}

/// Whether the step may start, as far as its own rules say.
///
/// # Errors
/// One plain sentence when a rule has no value.
pub(crate) fn may_start(
    header: &RunHeader,
    def: &RunDef,
    step: &StepDef,
    records: &Records,
    ends: Ends,
) -> Result<bool, String> {
    let rules = &step.rules;
    let fixed = rules
        .condition
        .as_ref()
        .map_or("true", |condition| &condition.expression);
    let asks = !rules.late_env.is_empty() || !rules.entry_conditions.is_empty();
    match fixed {
        "false" => return Ok(false),
        "true" if !asks => return Ok(true),
        _ => {}
    }
    let ready = Ready::of(header, def, step, records, ends);
    let holds = ready
        .holds(fixed)
        .map_err(|why| format!("its `if` has no value: {why}"))?;
    if holds {
        filled(&ready, step)?;
    }
    Ok(holds)
}

/// The step as a node is to run it, once its needs have ended: variables and entries that were open are
/// decided.
///
/// # Errors
/// One plain sentence when an expression has no value. [`crate::progress::Progress`] makes no such step
/// ready.
pub fn ready_step(header: &RunHeader, def: &RunDef, ordinal: usize, records: &Records) -> Result<StepDef, String> {
    let Some(step) = def.steps.get(ordinal) else {
        return Err(format!("the run has no step {ordinal}"));
    };
    let ends = Ends {
        well: true,
        failed: false,
    };
    let ready = Ready::of(header, def, step, records, ends);
    let (late, left_out) = filled(&ready, step)?;
    let mut whole = step.clone();
    whole.env.extend(late);
    let run = std::mem::take(&mut whole.run).into_iter().enumerate();
    whole.run = run
        .filter(|(n, _)| !left_out.contains(n))
        .map(|(_, entry)| entry)
        .collect();
    whole.rules.late_env.clear();
    whole.rules.entry_conditions.clear();
    Ok(whole)
}

/// The variables that were open, and the entries that are left out.
fn filled(ready: &Ready, step: &StepDef) -> Result<(BTreeMap<String, String>, Vec<usize>), String> {
    let mut late = BTreeMap::new();
    let mut bytes: usize = step.env.iter().map(|(name, text)| name.len() + text.len() + 2).sum();
    for (name, pieces) in &step.rules.late_env {
        let text = ready
            .text(pieces)
            .map_err(|why| format!("its variable `{name}` has no value: {why}"))?;
        bytes = bytes.saturating_add(name.len() + text.len() + 2);
        if bytes > ENV_TOTAL_MAX {
            return Err(format!("its variables have more than {ENV_TOTAL_MAX} bytes"));
        }
        late.insert(name.clone(), text);
    }
    let mut left_out = Vec::new();
    for (entry, expression) in &step.rules.entry_conditions {
        let holds = ready
            .holds(expression)
            .map_err(|why| format!("the `if` of an entry has no value: {why}"))?;
        if !holds {
            left_out.push(*entry);
        }
    }
    Ok((late, left_out))
}
