//! The capacity benchmarks: each measures beside what it is compared with, in one run, and prints
//! medians with their spread.
//!
//! One module an experiment. Not here: assertions about speed; machines differ, and a figure is only
//! worth something next to another one of the same run.

mod error;
pub mod placement;
mod plot;
mod stats;
pub mod submissions;
mod table;
pub mod throughput;
mod workload;

pub use error::BenchError;

use clap::Subcommand;

/// What is measured.
#[derive(Debug, Clone, Subcommand)]
pub enum BenchArguments {
    /// Placement: decisions a second, how tightly steps are packed, and the cost as a cluster grows
    Placement(placement::PlacementArguments),
    /// Steps a second from end to end, over real servers and etcd, beside what etcd carries alone
    Throughput(throughput::ThroughputArguments),
    /// Submissions over REST in an open loop: how soon they are answered, and the rate where it breaks
    Api(submissions::ApiArguments),
    /// From the submission to the first instruction of a real container, and to a simulated node's hand
    Trigger(submissions::TriggerArguments),
    /// A server for `throughput`, `api` and `trigger`, which start it by themselves
    #[command(hide = true)]
    ThroughputServer(throughput::ServerArguments),
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
        BenchArguments::Throughput(throughput) => throughput::run(&throughput, &mut std::io::stdout()).await,
        BenchArguments::Api(api) => submissions::api(&api, &mut std::io::stdout()).await,
        BenchArguments::Trigger(trigger) => submissions::trigger(&trigger, &mut std::io::stdout()).await,
        BenchArguments::ThroughputServer(server) => throughput::serve(server).await,
    }
}
