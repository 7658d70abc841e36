//! Words that are refused: keys that do not work yet, and those of other systems with what is
//! written here instead.
//!
//! Not here: keys that work.

/// Keys of files, stages and steps that are part of the design and do not work yet.
pub(crate) const LATER: &[&str] = &[
    "notify",
    "cache",
    "artifacts",
    "uses_artifacts",
    "workspace",
    "services",
    "secrets",
    "reports",
    "environment",
    "deploy",
    "network",
    "profile",
    "reuse",
    "queue_timeout",
    "on_disconnect",
];

/// Words of other systems: the word, where it comes from, and what is written here instead.
pub(crate) const FOREIGN: &[(&str, &str, &str)] = &[
    (
        "resource_group",
        "GitLab",
        "write `concurrency: {group: …, queue: all}`",
    ),
    (
        "interruptible",
        "GitLab",
        "write `concurrency: {group: …, cancel_in_progress: true}` for the file",
    ),
    (
        "outputs",
        "GitHub",
        "write `key=value` lines into `$BUILDFLOW_OUTPUT`; others read `needs['step'].outputs.key`",
    ),
    ("run-name", "GitHub", "write `title`"),
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
        "write `matrix: {version: [\"1\", \"2\"], fail_fast: false, max_parallel: 4}` in the step",
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
    ("rules", "GitLab", "write `if` and `changes` in the step"),
    ("only", "GitLab", "write `on` for the file, or `if` in the step"),
    ("except", "GitLab", "write `on` for the file, or `if` in the step"),
    ("stage", "GitLab", "put the step below the `steps` of its stage"),
    ("variables", "GitLab", "write `env`"),
    ("default", "GitLab", "write `defaults`"),
    ("tags", "GitLab", "write `labels`"),
    ("dependencies", "GitLab", "write `needs`"),
    (
        "parallel",
        "GitLab",
        "write `matrix: {version: [\"1\", \"2\"], fail_fast: false, max_parallel: 4}` in the step",
    ),
    ("workflow", "GitLab", "write `on` for the file"),
    (
        "trigger",
        "GitLab",
        "let the other pipeline say `on: {pipeline: {name: …, status: success}}`",
    ),
    (
        "entrypoint",
        "GitLab",
        "write `shell` and `run`; an image's entry point is not used",
    ),
    ("commands", "Woodpecker", "write `run`"),
    ("depends_on", "Woodpecker", "write `needs`"),
    (
        "when",
        "Woodpecker",
        "write `on` for the file, or `if`, `changes` and `manual` in the step",
    ),
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
