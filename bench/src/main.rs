//! `bench EXPERIMENT`: the same as `buildflow bench EXPERIMENT`, without the rest of the program.

use clap::Parser;
use std::process::ExitCode;

/// The same as in `buildflow`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Capacity benchmarks of BuildFlow.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Arguments {
    #[command(subcommand)]
    experiment: bench::BenchArguments,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(Arguments::parse().experiment).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
