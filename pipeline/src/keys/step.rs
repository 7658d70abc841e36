//! The keys of a step and of the mappings inside of it.
//!
//! Not here: keys of the file ([`super`]), and triggers ([`super::on`]).

use super::{Key, Shape, key};
use crate::limits::{CELLS_MAX, CHECKOUT_DEPTH_MAX, GROUP_MAX, PIDS_MAX, PIDS_MIN, TITLE_MAX};
use model::step::RETRY_MAX;

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
    Matrix,
    If,
    Changes,
    Manual,
    Concurrency,
    Priority,
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
    ).made(),
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
    ).made(),
    key(
        StepKey::Checkout,
        "checkout",
        Shape::Checkout,
        "Whether the repository is checked out into `/workspace`, and with how much history. Default: true.",
    ).made(),
    key(
        StepKey::Image,
        "image",
        Shape::Image,
        "The image that the step runs in: a registry reference by tag or digest, or `oci:PATH`, an OCI image layout known to the node.",
    ).made(),
    key(
        StepKey::User,
        "user",
        Shape::User,
        "`user`, `uid`, `user:group` or `uid:gid` of the image. Default: as the image says.",
    ).made(),
    key(StepKey::Env, "env", Shape::Env, "Variables of the step.").late(),
    key(
        StepKey::Timeout,
        "timeout",
        Shape::Duration,
        "From the first instruction to the kill, e.g. `30m`, `1h30m`, `90s`. Default: 30m.",
    ).made(),
    key(
        StepKey::AllowFailure,
        "allow_failure",
        Shape::Flag,
        "When true, a failure or time-out of the step does not fail the run, and what needs the step goes on. Default: false.",
    ).made(),
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
    ).made(),
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
    key(
        StepKey::Matrix,
        "matrix",
        Shape::Matrix,
        "Makes a step of each combination of the values, a cell: `unit(1.94)`, `unit(1.95)`. Keys of the step read them as `matrix.NAME`.",
    ),
    key(
        StepKey::If,
        "if",
        Shape::Condition,
        "The step is skipped unless this is true. Without `success()`, `failure()` or `always()` in it, its needs have to have ended well besides.",
    )
    .condition(),
    key(
        StepKey::Changes,
        "changes",
        Shape::Globs,
        "The step is skipped when the event changed no file that these globs mean. When it is not known what changed, as for a run that a person starts, the step runs.",
    ),
    key(
        StepKey::Manual,
        "manual",
        Shape::Flag,
        "When true, the step waits for a person to start it. The run ends without it, and what needs it is skipped. Default: false.",
    )
    .made(),
    key(
        StepKey::Concurrency,
        "concurrency",
        Shape::Concurrency,
        "Steps of runs of this pipeline in the same group do not run at the same time. A mapping, or just the name of the group.",
    ),
    key(
        StepKey::Priority,
        "priority",
        Shape::Priority,
        "How urgent the step is among those of its team: `high`, `normal` or `low`. Default: high for the default branch, low for schedules, else normal. `critical` has to be granted by an operator, which is not supported yet.",
    ),
];

/// The keys of `matrix` that are no names of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatrixKey {
    Include,
    Exclude,
    FailFast,
    MaxParallel,
}

pub(crate) const MATRIX_KEYS: &[Key<MatrixKey>] = &[
    key(
        MatrixKey::Include,
        "include",
        Shape::Cells,
        "Values that are added to each combination that they do not contradict, or that make a cell of their own where they contradict all.",
    ),
    key(
        MatrixKey::Exclude,
        "exclude",
        Shape::Cells,
        "Combinations that are left out: those that hold all of the values of an entry.",
    ),
    key(
        MatrixKey::FailFast,
        "fail_fast",
        Shape::Flag,
        "When true, the first cell that fails ends those that have not ended. Default: false.",
    ),
    key(
        MatrixKey::MaxParallel,
        "max_parallel",
        Shape::Count {
            min: 1,
            max: CELLS_MAX as u64,
        },
        "How many cells may run at the same time. Default: all.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConcurrencyKey {
    Group,
    CancelInProgress,
    Queue,
}

pub(crate) const CONCURRENCY_KEYS: &[Key<ConcurrencyKey>] = &[
    key(
        ConcurrencyKey::Group,
        "group",
        Shape::Line { max: GROUP_MAX },
        "The name of the group, within this pipeline.",
    )
    .made(),
    key(
        ConcurrencyKey::CancelInProgress,
        "cancel_in_progress",
        Shape::Flag,
        "When true, who comes later ends what goes on in the group. Default: false.",
    )
    .made(),
    key(
        ConcurrencyKey::Queue,
        "queue",
        Shape::Queue,
        "`latest`: of those that wait, an older one is cancelled when a newer one comes. `all`: all wait, the oldest first. Default: latest.",
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
)
.made()];

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
    )
    .made(),
    key(
        ResourceKey::Memory,
        "memory",
        Shape::Size,
        "Memory, page cache and `/dev/shm` included. Default: 1Gi.",
    )
    .made(),
    key(
        ResourceKey::Disk,
        "disk",
        Shape::Size,
        "Reserved for what the step writes; not enforced yet. Default: 10Gi.",
    )
    .made(),
    key(
        ResourceKey::Pids,
        "pids",
        Shape::Count {
            min: PIDS_MIN,
            max: PIDS_MAX,
        },
        "Processes and threads at once. Default: 4096.",
    )
    .made(),
    key(
        ResourceKey::Shm,
        "shm",
        Shape::Size,
        "Size of `/dev/shm`, at most `memory`. Default: 64Mi.",
    )
    .made(),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKey {
    Name,
    Run,
    If,
}

pub(crate) const ENTRY_KEYS: &[Key<EntryKey>] = &[
    key(
        EntryKey::Name,
        "name",
        Shape::Line { max: TITLE_MAX },
        "Heads a section of the log.",
    ),
    key(EntryKey::Run, "run", Shape::Text, "Shell text."),
    key(
        EntryKey::If,
        "if",
        Shape::Condition,
        "The entry is left out unless this is true; only in `run`.",
    )
    .late(),
];
