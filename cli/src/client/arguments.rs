//! The verbs and their arguments, as clap reads them.
//!
//! Verbs of later releases are known and hidden, so that they are refused by name.

use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// The team of a pipeline that is named without one.
pub(super) const DEFAULT_TEAM: &str = "default";

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum OutputForm {
    /// Tables and sentences for people
    #[default]
    Table,
    /// The JSON of the REST interface
    Json,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalOptions {
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: OutputForm,
    /// Where the server is, e.g. http://127.0.0.1:7420; of several, with commas between them, the
    /// next is tried when one cannot be reached [env: BUILDFLOW_ADDR]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) addr: Option<String>,
}

/// A pipeline's name with its team: `TEAM/PIPELINE`; without a team it is the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipelineName {
    pub(super) team: String,
    pub(super) name: String,
}

impl FromStr for PipelineName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (team, name) = text.split_once('/').unwrap_or((DEFAULT_TEAM, text));
        for part in [team, name] {
            model::id::check_name(part).map_err(|e| e.to_string())?;
        }
        Ok(Self {
            team: team.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for PipelineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.team, self.name)
    }
}

/// How a person names a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunName {
    /// Its id, or the beginning of it.
    Id(String),
    /// `TEAM/PIPELINE#NUMBER`.
    Numbered(PipelineName, u64),
}

impl FromStr for RunName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((pipeline, number)) = text.split_once('#') {
            let number = number.parse().ok().filter(|n| *n > 0);
            let number = number.ok_or("a run's number is a whole number from 1, as in default/backend#12")?;
            return Ok(Self::Numbered(pipeline.parse()?, number));
        }
        if text.contains('/') {
            return Err(format!("which run of {text}? Say its number, as in {text}#12"));
        }
        model::RunId::new(text.to_ascii_lowercase())
            .map(|id| Self::Id(id.to_string()))
            .map_err(|_| format!("`{text}` is no run: say its id, or TEAM/PIPELINE#NUMBER"))
    }
}

/// The verbs that call the server, and those that need none.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Start a run of a pipeline
    Run(RunArguments),
    /// List runs, newest first
    Runs(RunsArguments),
    /// Show a run with its steps
    Show {
        /// The run's id, or TEAM/PIPELINE#NUMBER
        run: RunName,
    },
    /// Print the log of a step, or of all steps of a run
    Logs(LogsArguments),
    /// End everything of a run
    Cancel {
        /// The run's id, or TEAM/PIPELINE#NUMBER
        run: RunName,
    },
    /// Start a step that waits for a person, one that is `manual` in the pipeline file
    Start {
        /// The run's id, or TEAM/PIPELINE#NUMBER
        run: RunName,
        /// The step
        step: String,
    },
    /// Say why a step runs where it runs, or why not yet
    Explain {
        /// The run's id, or TEAM/PIPELINE#NUMBER
        run: RunName,
        /// The step; without it, all steps that have not ended
        step: Option<String>,
    },
    /// Pipelines and their files
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Nodes
    #[command(subcommand)]
    Node(NodeCommand),
    /// Write a first .buildflow.yml for a folder
    Init {
        /// The folder
        #[arg(default_value = ".")]
        path: PathBuf,
        /// Replace a file that is there
        #[arg(long)]
        force: bool,
    },
    /// Print the JSON Schema of the pipeline file, for editors
    Schema {
        /// Print the reference of the language in Markdown instead
        #[arg(long)]
        reference: bool,
    },
    /// Print the completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    #[command(hide = true, disable_help_flag = true)]
    Retry(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Approve(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Reject(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Shell(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Connect(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Import(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Registry(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Secret(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Artifact(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Cache(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Team(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Token(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Top(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Usage(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    DeadLetter(NotYet),
    #[command(hide = true, disable_help_flag = true)]
    Deploy(NotYet),
}

/// Whatever follows a verb of a later release.
#[derive(Debug, Args)]
pub(crate) struct NotYet {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

impl ClientCommand {
    /// An interrupt is its own matter: it has something to bring to an end.
    pub(super) fn ends_by_itself(&self) -> bool {
        matches!(self, Self::Run(arguments) if arguments.local)
    }

    /// The verb, if it belongs to a later release.
    pub(super) fn not_yet(&self) -> Option<&'static str> {
        match self {
            Self::Retry(_) => Some("retry"),
            Self::Approve(_) => Some("approve"),
            Self::Reject(_) => Some("reject"),
            Self::Shell(_) => Some("shell"),
            Self::Connect(_) => Some("connect"),
            Self::Import(_) => Some("import"),
            Self::Registry(_) => Some("registry"),
            Self::Secret(_) => Some("secret"),
            Self::Artifact(_) => Some("artifact"),
            Self::Cache(_) => Some("cache"),
            Self::Team(_) => Some("team"),
            Self::Token(_) => Some("token"),
            Self::Top(_) => Some("top"),
            Self::Usage(_) => Some("usage"),
            Self::DeadLetter(_) => Some("dead-letter"),
            Self::Deploy(_) => Some("deploy"),
            Self::Pipeline(PipelineCommand::Doctor(_)) => Some("pipeline doctor"),
            Self::Run(_)
            | Self::Runs(_)
            | Self::Show { .. }
            | Self::Logs(_)
            | Self::Cancel { .. }
            | Self::Start { .. }
            | Self::Explain { .. }
            | Self::Pipeline(_)
            | Self::Node(_)
            | Self::Init { .. }
            | Self::Schema { .. }
            | Self::Completion { .. } => None,
        }
    }
}

/// `buildflow run`.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// A folder with a checkout of the repository: finds the pipeline by its address, and builds
    /// the branch that is checked out, as it was pushed
    #[arg(default_value = ".")]
    pub(super) path: PathBuf,
    /// The pipeline, as TEAM/PIPELINE; builds its default branch unless --ref or --commit says another
    #[arg(long, value_name = "TEAM/PIPELINE")]
    pub(super) pipeline: Option<PipelineName>,
    /// A branch, or a full ref such as refs/tags/v1.0
    #[arg(long = "ref", value_name = "REF", conflicts_with = "commit")]
    pub(super) git_ref: Option<String>,
    /// A commit's id
    #[arg(long, value_name = "SHA")]
    pub(super) commit: Option<String>,
    /// A variable of the run's environment, as NAME=VALUE; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) variables: Vec<(String, String)>,
    /// An input of the pipeline's `on.manual.inputs`, as NAME=VALUE; may be repeated
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub(super) inputs: Vec<Pair>,
    /// Make a new run even if the same was started within the last minute
    #[arg(long)]
    pub(super) force: bool,
    /// Show the run's log until it has ended; the exit code is the run's
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Run the folder's pipeline on this machine, uncommitted files included: no server, the same sandbox (needs
    /// root); --ref says as which branch or tag it counts
    #[arg(long, conflicts_with_all = ["commit", "force"])]
    pub(super) local: bool,
    /// With --local: the event, manual (the default), push or tag
    #[arg(long, requires = "local", value_name = "EVENT")]
    pub(super) event: Option<String>,
    /// With --local: a file of variables, a NAME=VALUE on each line
    #[arg(long, requires = "local", value_name = "FILE")]
    pub(super) env_file: Option<PathBuf>,
    /// With --local: a folder of OCI image layouts, `image: "oci:NAME"` is FOLDER/NAME; may be repeated
    #[arg(long, requires = "local", value_name = "FOLDER")]
    pub(super) images: Vec<PathBuf>,
    #[arg(long, hide = true)]
    pub(super) step: Option<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is given as NAME=VALUE".to_owned()),
    }
}

/// `buildflow runs`.
#[derive(Debug, Args)]
pub(crate) struct RunsArguments {
    /// Only of this pipeline, as TEAM/PIPELINE
    pub(super) pipeline: Option<PipelineName>,
    /// Only those that stand so: queued, running, success, failed, cancelled or timed_out
    #[arg(long, value_parser = status)]
    pub(super) status: Option<api::dto::RunStatus>,
    /// Only of this branch
    #[arg(long)]
    pub(super) branch: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(super) limit: u32,
}

fn status(word: &str) -> Result<api::dto::RunStatus, String> {
    api::dto::RunStatus::parse(word).ok_or_else(|| {
        let words: Vec<&str> = api::dto::RunStatus::ALL.iter().map(|s| s.as_str()).collect();
        format!("one of {}", words.join(", "))
    })
}

/// `buildflow logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// The run's id, or TEAM/PIPELINE#NUMBER
    pub(super) run: RunName,
    /// The step; without it, all steps
    pub(super) step: Option<String>,
    /// Go on until the end
    #[arg(long, short)]
    pub(super) follow: bool,
    /// Which attempt of the step, from 1; the newest if absent
    #[arg(long, requires = "step", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) attempt: Option<u32>,
}

/// `buildflow pipeline`.
/// The event for which a pipeline file is looked at.
#[derive(Debug, Default, Args)]
pub(crate) struct EventOptions {
    /// Show what the file makes of this event; without any of these options only the file is looked at
    #[arg(long, value_parser = ["push", "tag", "manual", "pull_request", "merge_group", "schedule", "pipeline"])]
    pub(crate) event: Option<String>,
    /// The branch, or with `--event tag` the tag
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// The branch that a pull request wants to go into
    #[arg(long)]
    pub(crate) base: Option<String>,
    /// First line of the commit's message
    #[arg(long)]
    pub(crate) message: Option<String>,
    /// A file that changed; may be repeated. Without it, it is not known what changed
    #[arg(long, value_name = "PATH")]
    pub(crate) changed: Vec<String>,
    /// An input of `on.manual`; may be repeated
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<Pair>,
    /// A variable of the run; may be repeated
    #[arg(long = "variable", value_name = "NAME=VALUE")]
    pub(crate) variables: Vec<Pair>,
}

/// `NAME=VALUE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair(pub(crate) String, pub(crate) String);

impl std::str::FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self(name.to_owned(), value.to_owned())),
            _ => Err("write NAME=VALUE".to_owned()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Check a pipeline file and print its plan; needs no server
    Validate {
        /// The file; `-` is standard input
        #[arg(default_value = model::pipeline::DEFAULT_FILE)]
        file: PathBuf,
        #[command(flatten)]
        event: EventOptions,
        /// Say what each expression is, and when it is known
        #[arg(long)]
        explain: bool,
    },
    /// Register a pipeline
    Create {
        /// TEAM/PIPELINE
        pipeline: PipelineName,
        /// Where the sources are: a folder, or a file, http, https or ssh address
        #[arg(long)]
        repo: String,
        /// Path of the pipeline file inside the repository
        #[arg(long)]
        file: Option<String>,
        /// Change it if it is there already
        #[arg(long)]
        replace: bool,
        #[arg(long, hide = true)]
        credential: Option<String>,
    },
    /// List pipelines
    List,
    /// Show a pipeline
    Show {
        /// TEAM/PIPELINE
        pipeline: PipelineName,
    },
    /// Remove a pipeline; its runs stay
    Delete {
        /// TEAM/PIPELINE
        pipeline: PipelineName,
    },
    #[command(hide = true, disable_help_flag = true)]
    Doctor(NotYet),
}

/// `buildflow node`.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes with their room
    List,
    /// Show a node and what runs on it
    Show {
        /// The node's id or host name
        node: String,
    },
    /// Place nothing more on nodes; what runs there goes on
    Cordon {
        #[command(flatten)]
        nodes: NodeChoice,
    },
    /// Place steps on nodes again; ends a drain
    Uncordon {
        #[command(flatten)]
        nodes: NodeChoice,
    },
    /// Empty nodes: place nothing more on them, wait for what runs, and after the deadline place it elsewhere
    Drain(DrainArguments),
    /// Forget a node whose agent has ended; its certificate opens nothing any more
    Remove {
        /// The node's id or host name
        node: String,
        /// The machine is known to be off: its steps are placed elsewhere at once
        #[arg(long)]
        confirm_gone: bool,
    },
    /// Make this machine a node: fetch its certificate and write its configuration
    Join(JoinArguments),
    /// Tokens with which machines join
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
}

/// Which nodes.
#[derive(Debug, Args)]
pub(crate) struct NodeChoice {
    /// Ids or host names
    #[arg(
        value_name = "NODE",
        required_unless_present = "selector",
        conflicts_with = "selector"
    )]
    pub(super) nodes: Vec<String>,
    /// All nodes with this label, as KEY=VALUE; several must all be there
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(super) selector: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is given as KEY=VALUE".to_owned()),
    }
}

/// `buildflow node drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArguments {
    #[command(flatten)]
    pub(super) nodes: NodeChoice,
    /// How long what runs may go on, e.g. 45m; without it, every step ends by itself
    #[arg(long, value_name = "TIME", value_parser = clap::value_parser!(crate::config::Span))]
    pub(super) deadline: Option<crate::config::Span>,
    /// How many nodes are drained at the same time, e.g. 5 or 5%; the next ones follow when they are empty
    #[arg(long, value_name = "COUNT|SHARE%", value_parser = Share::parse, conflicts_with = "no_wait")]
    pub(super) max_unavailable: Option<Share>,
    /// Do not wait until the nodes are empty
    #[arg(long)]
    pub(super) no_wait: bool,
}

/// A number, or a part of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    Count(usize),
    Percent(usize),
}

impl Share {
    fn parse(text: &str) -> Result<Self, String> {
        let refused = || "a number from 1, or a share from 1% to 100%".to_owned();
        let (digits, percent) = text.strip_suffix('%').map_or((text, false), |d| (d, true));
        let number: usize = digits.parse().map_err(|_| refused())?;
        match (number, percent) {
            (1..=100, true) => Ok(Self::Percent(number)),
            (1.., false) => Ok(Self::Count(number)),
            _ => Err(refused()),
        }
    }

    /// Of so many; at least one, or nothing would ever begin.
    pub(super) fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (all * percent / 100).max(1),
        }
    }
}

/// `buildflow node join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArguments {
    /// The join token; `-` reads it from standard input [env: BUILDFLOW_JOIN_TOKEN]
    #[arg(
        long,
        value_name = "TOKEN",
        env = "BUILDFLOW_JOIN_TOKEN",
        hide_env = true,
        hide_env_values = true
    )]
    pub(crate) token: String,
    /// Any server of the cluster, e.g. https://10.0.0.1:7420; of several the next is asked when one cannot be reached
    #[arg(long, value_name = "URL", required = true)]
    pub(crate) server: Vec<String>,
    /// Where configuration and certificate are written
    #[arg(long, value_name = "FOLDER", default_value = "/etc/buildflow")]
    pub(crate) dir: PathBuf,
    /// Where the agent keeps its images, checkouts and journal
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/buildflow/agent")]
    pub(crate) data: PathBuf,
    /// The node's name [default: the host's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Replace the configuration and certificate that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// `buildflow node join-token`.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinTokenCommand {
    /// Make one; its text is shown once
    Create {
        /// Shown in lists
        #[arg(long)]
        name: Option<String>,
        /// How long it goes
        #[arg(long, value_name = "TIME", default_value = "1h")]
        expires_in: crate::config::Span,
        /// How many machines may join with it; any number unless given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
    },
    /// List those that are there, without their texts
    List,
    /// Make one invalid; nodes that have joined with it stay
    Revoke {
        /// Its id, as the list shows it
        id: String,
    },
}
