//! Every number that a pipeline file is held to, with its reason.
//!
//! Not here: the limits that belong to nouns, such as [`model::run::STEPS_MAX`] and
//! [`model::id::NAME_MAX`].

/// Bytes of a pipeline file. A thousand steps of a thousand bytes; more is generated, and belongs
/// into scripts that the steps call.
pub const FILE_MAX: usize = 1024 * 1024;

/// Values and keys of a pipeline file: a hundred for each of a thousand steps. Reading this many
/// takes well below a second, also in a debug build.
pub const NODES_MAX: usize = 100_000;

/// Bytes of a key. YAML allows no longer ones without a `?` before them.
pub const KEY_MAX: usize = 1024;

/// Lists and mappings inside each other, counted for block and flow notation apart. Ours need ten.
pub const DEPTH_MAX: usize = 32;

/// Aliases (`*name`, also behind `<<`) in a file: several for each of a thousand steps.
pub const ALIASES_MAX: usize = 10_000;

/// Values and keys after every alias is replaced by what it stands for: stops the "billion laughs".
pub const EXPANDED_MAX: usize = 500_000;

/// Stages of a run.
pub const STAGES_MAX: usize = 100;

/// Entries of `templates`.
pub const TEMPLATES_MAX: usize = 1_000;

/// Templates behind each other by `extends`. Deeper ones cannot be understood by their readers.
pub const EXTENDS_DEPTH_MAX: usize = 16;

/// Files that one includes, those that they include among them.
pub const INCLUDES_MAX: usize = 20;

/// Files behind each other by `include`.
pub const INCLUDE_DEPTH_MAX: usize = 5;

/// Cells of one `matrix`.
pub const CELLS_MAX: usize = 256;

/// Combinations of a `matrix` before `exclude`.
pub const COMBINATIONS_MAX: usize = 4_096;

/// Names of values in one `matrix`, those of `include` among them.
pub const AXES_MAX: usize = 20;

/// Bytes of a value of a `matrix`.
pub const MATRIX_VALUE_MAX: usize = 1_024;

/// Characters of the name of a group of `concurrency`: a branch's name and then some.
pub const GROUP_MAX: usize = 512;

/// Entries of `on.manual.inputs`.
pub const INPUTS_MAX: usize = 50;

/// Bytes of one input.
pub const INPUT_VALUE_MAX: usize = 16 * 1024;

/// Entries of `on.schedule`.
pub const SCHEDULES_MAX: usize = 50;

/// Entries of one `run`, `before` or `after`: each is a section of the log.
pub const ENTRIES_MAX: usize = 1_000;

/// Bytes of all commands of one step: with its environment it stays below half of the 4 MiB that
/// a gRPC message may have, so that an order to a node always fits.
pub const SCRIPT_MAX: usize = 512 * 1024;

/// Variables of one step, those of templates, defaults and file included.
pub const ENV_ENTRIES_MAX: usize = 1_000;

/// Bytes of a variable's name.
pub const ENV_NAME_MAX: usize = 255;

/// Bytes of `NAME=value`: the kernel refuses a longer string at `execve` (32 pages, with its end).
pub const ENV_VALUE_MAX: usize = 128 * 1024 - 1;

/// Bytes of all variables of one step. The kernel allows a process 2 MiB for variables and
/// arguments; half of it stays free for those of the run and of the system.
pub const ENV_TOTAL_MAX: usize = 1024 * 1024;

/// Bytes of a compiled run: names, texts, commands and variables of all steps. It is stored in
/// chunks of [`model::run::DEF_CHUNK_MAX`] and held in memory by servers while the run lasts.
pub const DEFINITION_MAX: usize = 8 * 1024 * 1024;

/// Characters of `title` and of an entry's `name`: one line on a page.
pub const TITLE_MAX: usize = 200;

/// Bytes of `image`: what the distribution specification allows, with room for a tag and a digest.
pub const IMAGE_MAX: usize = 512;

/// Bytes of `working_directory`: PATH_MAX of Linux, with its end.
pub const PATH_MAX: usize = 4095;

/// Entries of `labels` of one step.
pub const LABELS_MAX: usize = 64;

/// Characters of a label's name or value.
pub const LABEL_MAX: usize = 128;

/// The longest `timeout` unless the team's limit was raised, milliseconds; also the default.
pub const STEP_TIMEOUT_MS: u64 = 30 * 60 * 1_000;

/// The shortest `timeout`, milliseconds.
pub const TIMEOUT_MIN_MS: u64 = 1_000;

/// `resources.cpu` unless the file says it, thousandths of a core.
pub const CPU_DEFAULT_MILLIS: u64 = 1_000;
/// The least `resources.cpu`: below it the kernel's quota is smaller than it can enforce.
pub const CPU_MIN_MILLIS: u64 = 10;
/// The most `resources.cpu`: more cores than a machine has.
pub const CPU_MAX_MILLIS: u64 = 1_024_000;

/// `resources.memory` unless the file says it, bytes.
pub const MEMORY_DEFAULT: u64 = 1024 * 1024 * 1024;
/// The least `resources.memory`: a shell does not start in less.
pub const MEMORY_MIN: u64 = 8 * 1024 * 1024;
/// `resources.disk` unless the file says it, bytes.
pub const DISK_DEFAULT: u64 = 10 * 1024 * 1024 * 1024;
/// The least `resources.disk`.
pub const DISK_MIN: u64 = 1024 * 1024;
/// `resources.shm` unless the file says it, bytes.
pub const SHM_DEFAULT: u64 = 64 * 1024 * 1024;
/// The least `resources.shm`.
pub const SHM_MIN: u64 = 64 * 1024;
/// The most of any size (1 PiB): sums over all nodes stay far from overflow.
pub const SIZE_MAX: u64 = 1 << 50;

/// `resources.pids` unless the file says it.
pub const PIDS_DEFAULT: u64 = 4_096;
/// The least `resources.pids`: a shell with one pipeline in it.
pub const PIDS_MIN: u64 = 8;
/// The most `resources.pids`: the kernel's own highest `pid_max`.
pub const PIDS_MAX: u64 = 4_194_304;

/// `checkout.depth` unless the file says it, commits.
pub const DEPTH_DEFAULT: u32 = 1;
/// The most `checkout.depth`; 0 means all of the history.
pub const CHECKOUT_DEPTH_MAX: u64 = 1_000_000;

/// What an operator may set for a team.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest `timeout` of a step, milliseconds.
    pub step_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            step_timeout_ms: STEP_TIMEOUT_MS,
        }
    }
}
