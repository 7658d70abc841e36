//! The capacity benchmarks: each measures beside what it is compared with, in one run, and prints
//! medians with their spread.
//!
//! One module an experiment. Not here: assertions about speed; machines differ, and a figure is only
//! worth something next to another one of the same run.

mod error;
pub mod placement;
mod plot;
mod stats;
mod table;
mod workload;

pub use error::BenchError;

use clap::Subcommand;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchArguments {
    /// Placement: decisions a second, how tightly steps are packed, and the cost as a cluster grows
    Placement(placement::PlacementArguments),
}

/// Measures, and prints tables on standard output.
///
/// # Errors
/// [`BenchError`] when a trace cannot be read or a plot not be written.
pub async fn run(arguments: BenchArguments) -> Result<(), BenchError> {
    match arguments {
        BenchArguments::Placement(placement) => {
            let done = tokio::task::spawn_blocking(move || placement::run(&placement, &mut std::io::stdout()));
            done.await.map_err(|cause| BenchError::Stopped(cause.to_string()))?
        }
    }
}
