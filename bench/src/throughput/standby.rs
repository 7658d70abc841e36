//! What standing by costs: a server without nodes and with all of them, and one agent.
//!
//! Not here: load.

use super::ThroughputArguments;
use super::stage::Stage;
use super::usage::Usage;
use crate::BenchError;
use crate::table::Table;
use std::io::Write;
use std::time::{Duration, Instant};

/// What follows a registration is over by then.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) async fn run(arguments: &ThroughputArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    let members = arguments.etcd.first().copied().unwrap_or(1);
    let mut table = Table::with_heads(&["standing by", "memory, MiB", "CPU, % of a core"]);
    let mut row = |what: String, (usage, cores): (Usage, f64)| {
        let memory = format!("{:.1}", usage.resident as f64 / f64::from(1 << 20));
        table.row(vec![what, memory, format!("{:.2}", 100.0 * cores)]);
    };
    for nodes in [0, arguments.nodes] {
        let arguments = ThroughputArguments {
            servers: 1,
            nodes,
            ..arguments.clone()
        };
        let stage = Stage::set(&arguments, members).await?;
        tokio::time::sleep(SETTLE).await;
        let pids: Vec<u32> = stage
            .servers
            .iter()
            .filter_map(super::servers::ServerProcess::pid)
            .collect();
        let etcd: Vec<u32> = (0..members).filter_map(|member| stage.etcd.pid(member)).collect();
        let (server, etcd) = tokio::join!(
            watched(&pids, arguments.measured()),
            watched(&etcd, arguments.measured())
        );
        row(format!("server, {nodes} nodes"), server);
        row(format!("etcd, {members} member(s), {nodes} nodes"), etcd);
    }
    for pid in &arguments.agent {
        row(
            format!("agent (process {pid})"),
            watched(&[*pid], arguments.measured()).await,
        );
    }
    writeln!(out)?;
    table.print(out)?;
    Ok(())
}

/// Memory at the end, and cores in use meanwhile.
async fn watched(pids: &[u32], time: Duration) -> (Usage, f64) {
    let (before, began) = (Usage::of(pids), Instant::now());
    tokio::time::sleep(time).await;
    let after = Usage::of(pids);
    (after, after.cores_since(&before, began.elapsed()))
}
