//! The keys of a pipeline file, each with its documentation: the compiler and the JSON Schema are
//! both made from these tables, so neither can know a key that the other does not.
//!
//! Not here: how a value is read ([`crate::read`], [`crate::part`]).

use crate::limits::{CHECKOUT_DEPTH_MAX, PIDS_MAX, PIDS_MIN, STAGES_MAX, TITLE_MAX};
use model::step::RETRY_MAX;

/// A key and what is written about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<I: 'static> {
    pub(crate) id: I,
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) doc: &'static str,
}

const fn key<I>(id: I, name: &'static str, shape: Shape, doc: &'static str) -> Key<I> {
    Key { id, name, shape, doc }
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKey {
    Name,
    Title,
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
    ),
    key(
        FileKey::Env,
        "env",
        Shape::Env,
        "Variables of every step. Those of `defaults`, of templates and of the step itself win over them, in this order.",
    ),
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKey {
    Name,
    Title,
    Extends,
    Needs,
    Run,
    Shell,
    Before,
    After,
    WorkingDirectory,
    Checkout,
    Image,
    User,
    Env,
    Timeout,
    AllowFailure,
    Resources,
    Labels,
    Retry,
    Idempotent,
}

pub(crate) const STEP_KEYS: &[Key<StepKey>] = &[
    key(
        StepKey::Name,
        "name",
        Shape::Name,
        "Name of the step, unique in the file; also its host name.",
    ),
    key(
        StepKey::Title,
        "title",
        Shape::Line { max: TITLE_MAX },
        "Free text for people.",
    ),
    key(
        StepKey::Extends,
        "extends",
        Shape::Name,
        "A template whose keys are taken over. What is written here wins; `env`, `labels` and `resources` are merged key by key.",
    ),
    key(
        StepKey::Needs,
        "needs",
        Shape::Names,
        "Exactly the steps that have to end well before this one starts, of this stage or an earlier one. `[]`: none. Without the key: every step of the stage before.",
    ),
    key(
        StepKey::Run,
        "run",
        Shape::Commands,
        "The commands. All entries run in one shell, so `cd` and `export` last; the first that fails ends the step.",
    ),
    key(
        StepKey::Shell,
        "shell",
        Shape::Shell,
        "`sh` (the default) means `sh -e`; `bash` means `bash -eo pipefail`. It has to be in the image.",
    ),
    key(
        StepKey::Before,
        "before",
        Shape::Commands,
        "Commands that run before `run`, in the same shell.",
    ),
    key(
        StepKey::After,
        "after",
        Shape::Commands,
        "Commands that always run after `run`, whatever came out of it.",
    ),
    key(
        StepKey::WorkingDirectory,
        "working_directory",
        Shape::Text,
        "Where the commands start: below `/workspace`, or absolute. Default: `.`.",
    ),
    key(
        StepKey::Checkout,
        "checkout",
        Shape::Checkout,
        "Whether the repository is checked out into `/workspace`, and with how much history. Default: true.",
    ),
    key(
        StepKey::Image,
        "image",
        Shape::Image,
        "The image that the step runs in: a registry reference by tag or digest, or `oci:PATH`, an OCI image layout known to the node.",
    ),
    key(
        StepKey::User,
        "user",
        Shape::User,
        "`user`, `uid`, `user:group` or `uid:gid` of the image. Default: as the image says.",
    ),
    key(StepKey::Env, "env", Shape::Env, "Variables of the step."),
    key(
        StepKey::Timeout,
        "timeout",
        Shape::Duration,
        "From the first instruction to the kill, e.g. `30m`, `1h30m`, `90s`. Default: 30m.",
    ),
    key(
        StepKey::AllowFailure,
        "allow_failure",
        Shape::Flag,
        "When true, a failure or time-out of the step does not fail the run, and what needs the step goes on. Default: false.",
    ),
    key(
        StepKey::Resources,
        "resources",
        Shape::Resources,
        "What is reserved for the step on its node, and its limits.",
    ),
    key(
        StepKey::Labels,
        "labels",
        Shape::Labels,
        "Labels that a node must carry, e.g. `{arch: amd64}`.",
    ),
    key(
        StepKey::Retry,
        "retry",
        Shape::Retry,
        "When the step is tried again by itself. Default: `{max: 2, on: [infra], backoff: 5s}`. A cancelled step is never tried again.",
    ),
    key(
        StepKey::Idempotent,
        "idempotent",
        Shape::Flag,
        "When false, the step is never started a second time by itself once its first instruction may have run, whatever `retry` says. Default: true.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryKey {
    Max,
    On,
    Backoff,
}

pub(crate) const RETRY_KEYS: &[Key<RetryKey>] = &[
    key(
        RetryKey::Max,
        "max",
        Shape::Count {
            min: 0,
            max: RETRY_MAX as u64,
        },
        "How many more tries there may be after the first: 2 means three attempts. Default: 2.",
    ),
    key(
        RetryKey::On,
        "on",
        Shape::Ends,
        "Which ends are tried again: `infra` (the node was lost, or the step could not be started for a reason that may pass), `oom`, `timeout`, `failure` (any exit code but 0, or a signal), `exit:N`. Default: `[infra]`.",
    ),
    key(
        RetryKey::Backoff,
        "backoff",
        Shape::Duration,
        "The pause before the second try, at most 10m; each further one is twice as long, with a random part. After a lost node there is none. Default: 5s.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckoutKey {
    Depth,
}

pub(crate) const CHECKOUT_KEYS: &[Key<CheckoutKey>] = &[key(
    CheckoutKey::Depth,
    "depth",
    Shape::Count {
        min: 0,
        max: CHECKOUT_DEPTH_MAX,
    },
    "Commits of history in the workspace's `.git`; 0: all of it. Default: 1.",
)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceKey {
    Cpu,
    Memory,
    Disk,
    Pids,
    Shm,
}

pub(crate) const RESOURCE_KEYS: &[Key<ResourceKey>] = &[
    key(
        ResourceKey::Cpu,
        "cpu",
        Shape::Cpu,
        "Cores: `2`, `0.5` or `500m`. Default: 1.",
    ),
    key(
        ResourceKey::Memory,
        "memory",
        Shape::Size,
        "Memory, page cache and `/dev/shm` included. Default: 1Gi.",
    ),
    key(
        ResourceKey::Disk,
        "disk",
        Shape::Size,
        "Reserved for what the step writes; not enforced yet. Default: 10Gi.",
    ),
    key(
        ResourceKey::Pids,
        "pids",
        Shape::Count {
            min: PIDS_MIN,
            max: PIDS_MAX,
        },
        "Processes and threads at once. Default: 4096.",
    ),
    key(
        ResourceKey::Shm,
        "shm",
        Shape::Size,
        "Size of `/dev/shm`, at most `memory`. Default: 64Mi.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKey {
    Name,
    Run,
}

pub(crate) const ENTRY_KEYS: &[Key<EntryKey>] = &[
    key(
        EntryKey::Name,
        "name",
        Shape::Line { max: TITLE_MAX },
        "Heads a section of the log.",
    ),
    key(EntryKey::Run, "run", Shape::Text, "Shell text."),
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
        }
    }

    /// Keys that belong to this level and do not work yet.
    pub(crate) fn later(self) -> &'static [&'static str] {
        match self {
            Self::File | Self::Stage | Self::Step | Self::Template | Self::Defaults => LATER,
            Self::Checkout => &["submodules", "lfs", "tags", "mtime", "repo", "ref", "path"],
            Self::Resources => &["gpu"],
            Self::Retry => &[],
            Self::Entry => &["if"],
        }
    }
}

/// Keys of files, stages and steps that are part of the design and do not work yet.
pub(crate) const LATER: &[&str] = &[
    "include",
    "on",
    "inputs",
    "concurrency",
    "notify",
    "matrix",
    "if",
    "changes",
    "manual",
    "cache",
    "artifacts",
    "uses_artifacts",
    "workspace",
    "services",
    "secrets",
    "reports",
    "environment",
    "deploy",
    "priority",
    "network",
    "profile",
    "reuse",
    "queue_timeout",
    "on_disconnect",
];

/// Words of other systems: the word, where it comes from, and what is written here instead.
pub(crate) const FOREIGN: &[(&str, &str, &str)] = &[
    (
        "jobs",
        "GitHub",
        "a job is a step here: write `stages`, each with `steps`",
    ),
    (
        "uses",
        "GitHub",
        "there are no actions: write the commands into `run` and share them with `templates` and `extends`",
    ),
    ("with", "GitHub", "hand values to commands with `env`"),
    ("runs-on", "GitHub", "write `image`, and choose nodes with `labels`"),
    ("container", "GitHub", "write `image`"),
    ("continue-on-error", "GitHub", "write `allow_failure: true`"),
    ("timeout-minutes", "GitHub", "write `timeout: 30m`"),
    (
        "strategy",
        "GitHub",
        "that is `matrix` here, which is not supported yet",
    ),
    (
        "permissions",
        "GitHub",
        "a step gets no rights from the forge; remove it",
    ),
    ("id", "GitHub", "write `name`"),
    ("script", "GitLab", "write `run`"),
    ("before_script", "GitLab", "write `before`"),
    ("after_script", "GitLab", "write `after`"),
    ("rules", "GitLab", "that is `if` here, which is not supported yet"),
    ("only", "GitLab", "that is `on` here, which is not supported yet"),
    ("except", "GitLab", "that is `on` here, which is not supported yet"),
    ("stage", "GitLab", "put the step below the `steps` of its stage"),
    ("variables", "GitLab", "write `env`"),
    ("default", "GitLab", "write `defaults`"),
    ("tags", "GitLab", "write `labels`"),
    ("dependencies", "GitLab", "write `needs`"),
    (
        "parallel",
        "GitLab",
        "that is `matrix` here, which is not supported yet",
    ),
    ("workflow", "GitLab", "that is `on` here, which is not supported yet"),
    ("trigger", "GitLab", "that is `on` here, which is not supported yet"),
    (
        "entrypoint",
        "GitLab",
        "write `shell` and `run`; an image's entry point is not used",
    ),
    ("commands", "Woodpecker", "write `run`"),
    ("depends_on", "Woodpecker", "write `needs`"),
    ("when", "Woodpecker", "that is `if` here, which is not supported yet"),
    (
        "settings",
        "Woodpecker",
        "there are no plugins: write the commands into `run`",
    ),
    ("clone", "Woodpecker", "write `checkout`"),
    ("pipeline", "Woodpecker", "write `stages`, each with `steps`"),
    ("volumes", "Woodpecker", "a step sees no files of its node; remove it"),
    ("command", "Buildkite", "write `run`"),
    (
        "plugins",
        "Buildkite",
        "there are no plugins: write the commands into `run`",
    ),
    ("agents", "Buildkite", "write `labels`"),
    ("label", "Buildkite", "write `name`, and `title` for free text"),
];

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
