//! What standing by costs: a server without nodes, with all of them, with all teams and pipelines as
//! well, and one agent.
//!
//! Not here: load.

use super::ThroughputArguments;
use super::stage::Stage;
use super::usage::Usage;
use crate::BenchError;
use crate::table::{Table, thousands};
use model::record::Unknown;
use model::{PipelineName, PipelineRecord, TeamName, TeamRecord, key};
use std::io::Write;
use std::time::{Duration, Instant};
use store::{Store, Txn};

/// What follows a registration is over by then.
const SETTLE: Duration = Duration::from_secs(5);

/// Records of one batch while teams and pipelines are written.
const REGISTERED_AT_ONCE: usize = 100;

pub(super) async fn run(arguments: &ThroughputArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    let members = arguments.etcd.first().copied().unwrap_or(1);
    let mut table = Table::with_heads(&["standing by", "memory, MiB", "CPU, % of a core"]);
    let mut row = |what: String, (usage, cores): (Usage, f64)| {
        let memory = format!("{:.1}", usage.resident as f64 / f64::from(1 << 20));
        table.row(vec![what, memory, format!("{:.2}", 100.0 * cores)]);
    };
    for (nodes, registered) in [(0, false), (arguments.nodes, false), (arguments.nodes, true)] {
        let arguments = ThroughputArguments {
            servers: 1,
            nodes,
            ..arguments.clone()
        };
        let stage = Stage::set(&arguments, members).await?;
        let mut with = format!("{nodes} nodes");
        if registered {
            let (teams, pipelines) = (arguments.teams, arguments.pipelines);
            register(stage.driver.store.as_ref(), teams, pipelines).await?;
            let (teams, pipelines) = (thousands(teams as f64), thousands(pipelines as f64));
            with = format!("{with}, {teams} teams, {pipelines} pipelines");
        }
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
        row(format!("server, {with}"), server);
        row(format!("etcd, {members} member(s), {with}"), etcd);
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

/// Writes the records of so many teams and pipelines, each team having its share.
async fn register(store: &dyn Store, teams: usize, pipelines: usize) -> Result<(), BenchError> {
    let stopped = |cause: &dyn std::fmt::Display| BenchError::Stopped(format!("teams and pipelines: {cause}"));
    let mut txns = Vec::new();
    for number in 0..teams.max(1) {
        let name = TeamName::new(format!("team-{number}")).map_err(|e| stopped(&e))?;
        let record = TeamRecord {
            name: name.clone(),
            created_ms: 0,
            unknown: Unknown::new(),
        };
        txns.push(Txn::new().put(key::team(&name), &record));
        for own in (number..pipelines).step_by(teams.max(1)) {
            let record = PipelineRecord {
                team: name.clone(),
                name: PipelineName::new(format!("pipeline-{own}")).map_err(|e| stopped(&e))?,
                repository: format!("https://git.example.org/team-{number}/project-{own}.git"),
                file: ".buildflow.yml".to_owned(),
                created_ms: 0,
                unknown: Unknown::new(),
            };
            txns.push(Txn::new().put(key::pipeline(&name, &record.name), &record));
        }
    }
    for batch in txns.chunks(REGISTERED_AT_ONCE) {
        let written = store.commit_batch(Vec::new(), batch.to_vec()).await;
        written.map_err(|e| stopped(&e))?;
    }
    Ok(())
}

/// Memory at the end, and cores in use meanwhile.
async fn watched(pids: &[u32], time: Duration) -> (Usage, f64) {
    let (before, began) = (Usage::of(pids), Instant::now());
    tokio::time::sleep(time).await;
    let after = Usage::of(pids);
    (after, after.cores_since(&before, began.elapsed()))
}
