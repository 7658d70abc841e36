//! What each step came to becomes its definition: what is missing or too large in it is said, and
//! what it does not say gets its default.
//!
//! Not here: where its values come from ([`crate::assembly`]).

use crate::assembly::Whole;
use crate::fill::{Asked, Decided, told};
use crate::glob::Globs;
use crate::limits::{
    CPU_DEFAULT_MILLIS, DEFINITION_MAX, DEPTH_DEFAULT, DISK_DEFAULT, ENV_TOTAL_MAX, Limits, MEMORY_DEFAULT,
    PIDS_DEFAULT, SCRIPT_MAX, SHM_DEFAULT, STEP_TIMEOUT_MS,
};
use crate::occasion::Occasion;
use crate::part::{Command, Part, Texts, Variable};
use crate::report::{Problem, Report};
use crate::value;
use model::{Checkout, Condition, Entry, Resources, Shell, StepDef, StepName, StepRules};
use std::collections::BTreeMap;

/// What a small thing costs besides its bytes when the size of a definition is reckoned.
const ITEM_COST: usize = 16;

/// What one need costs: an ordinal and a comma.
const NEED_COST: usize = 4;

/// Makes definitions of steps.
pub(crate) struct Finish<'f> {
    pub(crate) limits: Limits,
    pub(crate) occasion: Option<&'f Occasion>,
    /// Bytes of the definition so far.
    pub(crate) spent: usize,
}

impl Finish<'_> {
    /// The definitions of the steps; incomplete when something is reported.
    pub(crate) fn steps(
        &mut self,
        wholes: &[Whole<'_>],
        needs: Vec<Vec<usize>>,
        report: &mut Report<'_>,
    ) -> Vec<StepDef> {
        let mut steps = Vec::with_capacity(wholes.len());
        for (whole, needs) in wholes.iter().zip(needs) {
            let part = &whole.part;
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
                && let Some(def) = self.step_def(whole, needs)
            {
                steps.push(def);
            }
        }
        steps
    }

    /// `None` for a step without name, which is reported elsewhere.
    fn step_def(&self, whole: &Whole<'_>, needs: Vec<usize>) -> Option<StepDef> {
        let part = &whole.part;
        let checkout = part.checkout.clone().unwrap_or(Some(Checkout {
            depth: Some(DEPTH_DEFAULT),
        }));
        Some(StepDef {
            name: StepName::new(whole.name).ok()?,
            title: part.title.map(str::to_owned),
            stage: whole.stage,
            needs,
            image: part.image?.to_owned(),
            before: entries(part.before.as_deref()),
            run: entries(part.run.as_deref()),
            after: entries(part.after.as_deref()),
            shell: part.shell.unwrap_or(Shell::Sh),
            working_directory: part.working_directory.unwrap_or(".").to_owned(),
            checkout,
            user: part.user.map(str::to_owned),
            env: part
                .env
                .iter()
                .filter_map(|(name, variable)| match variable {
                    Variable::Text(text) => Some(((*name).to_owned(), (*text).to_owned())),
                    Variable::Late(_) => None,
                })
                .collect(),
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
            rules: self.rules(whole),
        })
    }

    fn rules(&self, whole: &Whole<'_>) -> StepRules {
        let part = &whole.part;
        let late = |(name, variable): (&&str, &Variable<'_>)| match variable {
            Variable::Late(pieces) => Some(((*name).to_owned(), pieces.to_vec())),
            Variable::Text(_) => None,
        };
        let run = part.run.as_deref().unwrap_or_default();
        let conditions = run.iter().enumerate();
        StepRules {
            condition: self.condition(part),
            manual: part.manual.unwrap_or(false),
            matrix: whole.matrix,
            concurrency: part.concurrency.as_ref().map(|group| group.owned()),
            priority: part.priority,
            late_env: part.env.iter().filter_map(late).collect(),
            entry_conditions: conditions
                .filter_map(|(n, command)| Some((n, command.condition.as_ref()?.to_string())))
                .collect(),
        }
    }

    fn condition(&self, part: &Part<'_>) -> Option<Condition> {
        let never = |skipped: String| {
            Some(Condition {
                expression: "false".to_owned(),
                whatever_ends: false,
                skipped,
            })
        };
        if let Some(globs) = &part.changes
            && let Some(changed) = self.occasion.and_then(|occasion| occasion.changed.as_ref())
            && Globs::new(globs).is_ok_and(|globs| !globs.any(changed))
        {
            return never("nothing changed that its `changes` means".to_owned());
        }
        let asked: &Asked<'_> = part.condition.as_ref()?;
        let skipped = format!("its `if` is false: {}", told(asked.text));
        match &asked.decided {
            Decided::Now(false) => never(skipped),
            Decided::Now(true) if !asked.whatever_ends => None,
            Decided::Now(true) => Some(Condition {
                expression: "true".to_owned(),
                whatever_ends: true,
                skipped,
            }),
            Decided::Later(rest) => Some(Condition {
                expression: rest.clone(),
                whatever_ends: asked.whatever_ends,
                skipped,
            }),
        }
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
    let open = ["resources.memory", "resources.shm"]
        .iter()
        .any(|key| part.open.contains_key(key));
    if shm(part) > memory && !open {
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
    let env: usize = part.env.iter().map(|(k, v)| ITEM_COST + k.len() + v.len()).sum();
    let labels: usize = part.labels.iter().map(|(k, v)| ITEM_COST + k.len() + v.len()).sum();
    let condition = part
        .condition
        .as_ref()
        .map_or(0, |asked| ITEM_COST + 4 * asked.text.len());
    let single = [part.title, part.image, part.user, part.working_directory];
    let single: usize = single.into_iter().flatten().map(str::len).sum();
    let retry = part.retry.as_ref().map_or(0, |retry| ITEM_COST * (1 + retry.on.len()));
    ITEM_COST + commands + env + labels + condition + single + retry
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
