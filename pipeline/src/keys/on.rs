//! The keys of triggers and of what they ask a person for.
//!
//! Not here: which of them a release fires ([`crate::on`]).

use super::{Key, Shape, key};
use crate::limits::TITLE_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnKey {
    Push,
    PullRequest,
    Tag,
    MergeGroup,
    Schedule,
    Pipeline,
    Manual,
}

pub(crate) const ON_KEYS: &[Key<OnKey>] = &[
    key(
        OnKey::Push,
        "push",
        Shape::Push,
        "Commits arrive on a branch. Without keys: on any.",
    ),
    key(
        OnKey::PullRequest,
        "pull_request",
        Shape::PullRequest,
        "A pull request is opened or changes. Read and checked; this release makes no run of it yet.",
    ),
    key(
        OnKey::Tag,
        "tag",
        Shape::TagGlobs,
        "A tag arrives that these globs mean. Without globs: any.",
    ),
    key(
        OnKey::MergeGroup,
        "merge_group",
        Shape::Nothing,
        "A merge queue asks. Read and checked; this release makes no run of it yet.",
    ),
    key(
        OnKey::Schedule,
        "schedule",
        Shape::Schedules,
        "The clock says so. Read and checked; this release makes no run of it yet.",
    ),
    key(
        OnKey::Pipeline,
        "pipeline",
        Shape::Upstream,
        "A run of another pipeline ends. Read and checked; this release makes no run of it yet.",
    ),
    key(
        OnKey::Manual,
        "manual",
        Shape::Manual,
        "What a person or a program is asked for. They can always start a run, also when this key is not there.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushKey {
    Branches,
    Paths,
    PathsIgnore,
}

pub(crate) const PUSH_KEYS: &[Key<PushKey>] = &[
    key(
        PushKey::Branches,
        "branches",
        Shape::Globs,
        "Only branches that these globs mean.",
    ),
    key(
        PushKey::Paths,
        "paths",
        Shape::Globs,
        "Only when a file changed that these globs mean. When it is not known what changed, there is a run.",
    ),
    key(
        PushKey::PathsIgnore,
        "paths_ignore",
        Shape::Globs,
        "Not when all files that changed are meant by these globs.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullRequestKey {
    Branches,
    Paths,
    PathsIgnore,
    Types,
}

pub(crate) const PULL_REQUEST_KEYS: &[Key<PullRequestKey>] = &[
    key(
        PullRequestKey::Branches,
        "branches",
        Shape::Globs,
        "Only pull requests into branches that these globs mean.",
    ),
    key(PullRequestKey::Paths, "paths", Shape::Globs, "As for `push`."),
    key(
        PullRequestKey::PathsIgnore,
        "paths_ignore",
        Shape::Globs,
        "As for `push`.",
    ),
    key(
        PullRequestKey::Types,
        "types",
        Shape::PullRequestTypes,
        "What happened to it: `opened`, `synchronize`, `reopened`, `closed`, `labeled`, `unlabeled`, `ready_for_review`, `edited`. Default: the first three.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScheduleKey {
    Cron,
    Timezone,
}

pub(crate) const SCHEDULE_KEYS: &[Key<ScheduleKey>] = &[
    key(
        ScheduleKey::Cron,
        "cron",
        Shape::Cron,
        "Minute, hour, day of the month, month, day of the week: `0 3 * * *`.",
    ),
    key(
        ScheduleKey::Timezone,
        "timezone",
        Shape::Timezone,
        "A name of the IANA database, e.g. `Europe/Berlin`. Default: `UTC`.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamKey {
    Name,
    Status,
}

pub(crate) const UPSTREAM_KEYS: &[Key<UpstreamKey>] = &[
    key(
        UpstreamKey::Name,
        "name",
        Shape::PipelinePath,
        "The other pipeline, with its team: `platform/base`.",
    ),
    key(
        UpstreamKey::Status,
        "status",
        Shape::RunStatus,
        "How its run has to end: `success`, `failed`, `cancelled`, `timed_out` or `any`. Default: success.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManualKey {
    Inputs,
}

pub(crate) const MANUAL_KEYS: &[Key<ManualKey>] = &[key(
    ManualKey::Inputs,
    "inputs",
    Shape::Inputs,
    "Values that a person enters, by name; expressions read them as `inputs.NAME`.",
)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKey {
    Type,
    Description,
    Options,
    Default,
    Required,
}

pub(crate) const INPUT_KEYS: &[Key<InputKey>] = &[
    key(
        InputKey::Type,
        "type",
        Shape::InputType,
        "`string`, `choice`, `boolean` or `number`. Default: `choice` with `options`, else `string`.",
    ),
    key(
        InputKey::Description,
        "description",
        Shape::Line { max: TITLE_MAX },
        "Free text for the person.",
    ),
    key(InputKey::Options, "options", Shape::Options, "What can be chosen."),
    key(
        InputKey::Default,
        "default",
        Shape::Scalar,
        "The value when none is entered. Without it: empty, `false`, 0 or the first option.",
    ),
    key(
        InputKey::Required,
        "required",
        Shape::Flag,
        "When true, a run that a person starts without it is refused. Default: false.",
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeKey {
    Repo,
    Ref,
    File,
}

pub(crate) const INCLUDE_KEYS: &[Key<IncludeKey>] = &[
    key(
        IncludeKey::Repo,
        "repo",
        Shape::PipelinePath,
        "Another repository, by a pipeline of this server that builds it: `team/pipeline`. Default: the same repository.",
    ),
    key(
        IncludeKey::Ref,
        "ref",
        Shape::Commit,
        "The full id of the commit in the other repository, so that the file cannot change under those that include it.",
    ),
    key(
        IncludeKey::File,
        "file",
        Shape::Path,
        "The path of the file in its repository.",
    ),
];
