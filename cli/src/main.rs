//! The program `buildflow`: arguments, configuration, and the roles that are assembled here from
//! the crates that implement them. Not here: any decision about runs, steps or nodes.

mod admin;
mod agent;
mod client;
mod config;
mod dev;
mod error;
mod explaining;
mod folder;
mod limits;
mod local;
mod logging;
mod ports;
mod server;
mod signals;

use clap::{Parser, Subcommand};
use error::Failure;
use std::process::ExitCode;

/// A leader spends a fifth less of its processor with it than with that of the C library, which
/// `bench throughput` shows.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// BuildFlow: CI pipelines on a fleet of nodes, every step in a container of its own.
#[derive(Debug, Parser)]
#[command(name = "buildflow", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    global: client::GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 success; 1 the run failed; 2 wrong usage or invalid pipeline; 3 cancelled; \
4 timed out; 5 the control plane could not be reached or failed; 6 not allowed.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything in one: embedded store, one agent; prints its URL and a token (needs root)
    Dev(dev::DevArguments),
    /// The control plane: REST, gRPC, logs, node sessions, scheduler
    Server(config::RoleArguments),
    /// One node: takes orders from a server and runs steps in containers (needs root)
    Agent(agent::AgentArguments),
    /// Make a cluster, check a machine, look after certificates; needs no server
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Capacity benchmarks; need no server
    #[command(subcommand)]
    Bench(bench::BenchArguments),
    #[command(flatten)]
    Client(client::ClientCommand),
}

fn main() -> ExitCode {
    pki::install_provider();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => {
            // Help and version are successes that clap reports as errors.
            let code = if refusal.use_stderr() { 2 } else { 0 };
            let _ = refusal.print();
            return ExitCode::from(code);
        }
    };
    match run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("buildflow: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: Arguments) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Failure::Internal(format!("cannot start the runtime: {cause}")))?;
    let code = runtime.block_on(async {
        match arguments.command {
            Command::Dev(dev) => dev::run(dev).await.map(|()| 0),
            Command::Server(role) => server::run_role(role).await.map(|()| 0),
            Command::Agent(role) => agent::run_role(role).await.map(|()| 0),
            Command::Admin(command) => admin::execute(command, &arguments.global).await,
            Command::Bench(arguments) => match bench::run(arguments).await {
                Ok(()) => Ok(0),
                Err(cause) => Err(Failure::Internal(cause.to_string())),
            },
            Command::Client(command) => Ok(client::execute(command, arguments.global).await),
        }
    });
    // A blocked read of standard input or a slow unpack must not hold the process back.
    runtime.shutdown_background();
    code
}
