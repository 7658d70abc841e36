//! The keys of a pipeline file, each with its documentation: the compiler and the JSON Schema are
//! both made from these tables, so neither can know a key that the other does not.
//!
//! Not here: how a value is read ([`crate::read`], [`crate::part`]).

mod on;
mod step;
mod words;

use crate::limits::{STAGES_MAX, TITLE_MAX};

pub(crate) use on::{
    INCLUDE_KEYS, INPUT_KEYS, IncludeKey, InputKey, MANUAL_KEYS, ManualKey, ON_KEYS, OnKey, PULL_REQUEST_KEYS,
    PUSH_KEYS, PullRequestKey, PushKey, SCHEDULE_KEYS, ScheduleKey, UPSTREAM_KEYS, UpstreamKey,
};
pub(crate) use step::{
    CHECKOUT_KEYS, CONCURRENCY_KEYS, CheckoutKey, ConcurrencyKey, ENTRY_KEYS, EntryKey, MATRIX_KEYS, MatrixKey,
    RESOURCE_KEYS, RETRY_KEYS, ResourceKey, RetryKey, STEP_KEYS, StepKey,
};
pub(crate) use words::{FOREIGN, LATER};

/// A key and what is written about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<I: 'static> {
    pub(crate) id: I,
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) doc: &'static str,
    pub(crate) takes: Takes,
}

const fn key<I>(id: I, name: &'static str, shape: Shape, doc: &'static str) -> Key<I> {
    Key {
        id,
        name,
        shape,
        doc,
        takes: Takes::Nothing,
    }
}

/// Whether expressions may stand in the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// None.
    Nothing,
    /// Those that are known when the run is made.
    Made,
    /// Also those that are known when the step is ready.
    Late,
    /// Also those that ask how the needs have ended.
    Condition,
}

impl<I: Copy> Key<I> {
    const fn made(self) -> Self {
        Self {
            takes: Takes::Made,
            ..self
        }
    }

    const fn late(self) -> Self {
        Self {
            takes: Takes::Late,
            ..self
        }
    }

    const fn condition(self) -> Self {
        Self {
            takes: Takes::Condition,
            ..self
        }
    }
}

/// What may stand behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A name by the contract.
    Name,
    /// One line.
    Line { max: usize },
    /// Any text.
    Text,
    /// Names of steps: one, or a list.
    Names,
    /// Commands: a text, or a list of texts and named entries.
    Commands,
    /// Variables.
    Env,
    /// Labels of nodes.
    Labels,
    /// `sh` or `bash`.
    Shell,
    /// An image.
    Image,
    /// A user of the image.
    User,
    /// `30m`.
    Duration,
    /// `true` or `false`.
    Flag,
    /// `2Gi`.
    Size,
    /// `2`, `0.5`, `500m`.
    Cpu,
    /// A whole number.
    Count { min: u64, max: u64 },
    /// `true`, `false` or a mapping of [`CHECKOUT_KEYS`].
    Checkout,
    /// A mapping of [`RESOURCE_KEYS`].
    Resources,
    /// A mapping of [`RETRY_KEYS`].
    Retry,
    /// Ends of an attempt: one, or a list.
    Ends,
    /// A mapping from names to templates.
    Templates,
    /// The keys of a step, as defaults.
    Defaults,
    /// A list of mappings of [`STAGE_KEYS`].
    Stages { max: usize },
    /// A list of mappings of [`STEP_KEYS`].
    Steps,
    /// An expression.
    Condition,
    /// Globs: one, or a list.
    Globs,
    /// Values by name, and [`MATRIX_KEYS`].
    Matrix,
    /// A list of mappings from names to values.
    Cells,
    /// A text, or a mapping of [`CONCURRENCY_KEYS`].
    Concurrency,
    /// `latest` or `all`.
    Queue,
    /// `high`, …
    Priority,
    /// Files: a list of paths and of mappings of [`INCLUDE_KEYS`].
    Includes,
    /// A mapping of [`ON_KEYS`], or one or several of the words.
    On,
    /// A mapping of [`PUSH_KEYS`].
    Push,
    /// A mapping of [`PULL_REQUEST_KEYS`].
    PullRequest,
    /// Words for what happens to pull requests.
    PullRequestTypes,
    /// Globs, or nothing.
    TagGlobs,
    /// An empty mapping.
    Nothing,
    /// A list of mappings of [`SCHEDULE_KEYS`].
    Schedules,
    /// `0 3 * * *`
    Cron,
    /// `Europe/Berlin`
    Timezone,
    /// A mapping of [`UPSTREAM_KEYS`].
    Upstream,
    /// `team/pipeline`
    PipelinePath,
    /// A word for how a run ends.
    RunStatus,
    /// A mapping of [`MANUAL_KEYS`].
    Manual,
    /// A mapping from names to mappings of [`INPUT_KEYS`].
    Inputs,
    /// `string`, …
    InputType,
    /// A list of texts.
    Options,
    /// A text, a number or a boolean.
    Scalar,
    /// A full commit id.
    Commit,
    /// The path of a file.
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKey {
    Name,
    Title,
    Include,
    On,
    Concurrency,
    Env,
    Templates,
    Defaults,
    Stages,
}

pub(crate) const FILE_KEYS: &[Key<FileKey>] = &[
    key(
        FileKey::Name,
        "name",
        Shape::Name,
        "Name of the pipeline, for people; the server knows it by the name it was created under.",
    ),
    key(
        FileKey::Title,
        "title",
        Shape::Line { max: TITLE_MAX },
        "Free text for people.",
    )
    .made(),
    key(
        FileKey::Include,
        "include",
        Shape::Includes,
        "Files whose `templates`, `env`, `defaults` and `stages` are laid under those of this one: paths in the repository, or a mapping for another repository at a fixed commit.",
    ),
    key(
        FileKey::On,
        "on",
        Shape::On,
        "Which events make a run. Without the key: every push of a branch or tag.",
    ),
    key(
        FileKey::Concurrency,
        "concurrency",
        Shape::Concurrency,
        "Runs of this pipeline in the same group do not go on at the same time. A mapping, or just the name of the group.",
    ),
    key(
        FileKey::Env,
        "env",
        Shape::Env,
        "Variables of every step. Those of `defaults`, of templates and of the step itself win over them, in this order.",
    ).made(),
    key(
        FileKey::Templates,
        "templates",
        Shape::Templates,
        "Named sets of step keys that a step, the defaults or another template takes over with `extends`.",
    ),
    key(
        FileKey::Defaults,
        "defaults",
        Shape::Defaults,
        "Step keys for every step that does not say otherwise, itself or by a template.",
    ),
    key(
        FileKey::Stages,
        "stages",
        Shape::Stages { max: STAGES_MAX },
        "The stages, in order. The steps of one stage run in parallel.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageKey {
    Name,
    Steps,
}

pub(crate) const STAGE_KEYS: &[Key<StageKey>] = &[
    key(
        StageKey::Name,
        "name",
        Shape::Name,
        "Name of the stage, unique in the file.",
    ),
    key(
        StageKey::Steps,
        "steps",
        Shape::Steps,
        "The steps of the stage. Without `needs`, each starts when every step of the stage before has ended well.",
    ),
];

/// Which mapping a key stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    File,
    Stage,
    Step,
    Template,
    Defaults,
    Checkout,
    Resources,
    Retry,
    Entry,
    /// A file that another one includes.
    Included,
    Concurrency,
    On,
    Push,
    PullRequest,
    Schedule,
    Upstream,
    Manual,
    Input,
    Include,
    /// A mapping without keys.
    Nothing,
}

impl Level {
    /// "is not a key of …"
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::File => "a pipeline file",
            Self::Stage => "a stage",
            Self::Step => "a step",
            Self::Template => "a template",
            Self::Defaults => "`defaults`",
            Self::Checkout => "`checkout`",
            Self::Resources => "`resources`",
            Self::Retry => "`retry`",
            Self::Entry => "an entry of commands",
            Self::Included => "an included file",
            Self::Concurrency => "`concurrency`",
            Self::On => "`on`",
            Self::Push => "`on.push`",
            Self::PullRequest => "`on.pull_request`",
            Self::Schedule => "an entry of `on.schedule`",
            Self::Upstream => "`on.pipeline`",
            Self::Manual => "`on.manual`",
            Self::Input => "an input",
            Self::Include => "an entry of `include`",
            Self::Nothing => "this mapping",
        }
    }

    /// Keys that belong to this level and do not work yet.
    pub(crate) fn later(self) -> &'static [&'static str] {
        match self {
            Self::File | Self::Stage | Self::Step | Self::Template | Self::Defaults | Self::Included => LATER,
            Self::Checkout => &["submodules", "lfs", "tags", "mtime", "repo", "ref", "path"],
            Self::Resources => &["gpu"],
            Self::Retry
            | Self::Entry
            | Self::Concurrency
            | Self::On
            | Self::Push
            | Self::PullRequest
            | Self::Schedule
            | Self::Upstream
            | Self::Manual
            | Self::Input
            | Self::Include
            | Self::Nothing => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn names<I>(table: &[Key<I>]) -> Vec<&'static str> {
        table.iter().map(|key| key.name).collect()
    }

    #[test]
    fn every_word_has_one_meaning_at_a_level() {
        let foreign: Vec<&str> = FOREIGN.iter().map(|(word, ..)| *word).collect();
        let levels = [
            (Level::File, names(FILE_KEYS)),
            (Level::Stage, names(STAGE_KEYS)),
            (Level::Step, names(STEP_KEYS)),
        ];
        for (level, known) in levels {
            let all: Vec<&str> = known.iter().chain(level.later()).chain(&foreign).copied().collect();
            let distinct: BTreeSet<&str> = all.iter().copied().collect();
            assert_eq!(distinct.len(), all.len(), "{level:?}");
        }
    }
}
