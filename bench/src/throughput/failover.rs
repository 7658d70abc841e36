//! A leader that is killed, paused or stopped under load: how long until the next step is placed.
//!
//! Seen from the store: the moment of the fault, the next leader's key, the first order after it. Then
//! the same with many live steps, for what taking over costs. Not here: lost nodes (`make test`).

use super::ThroughputArguments;
use super::etcd::{self, PREFIX};
use super::load::Pace;
use super::servers::ServerProcess;
use super::stage::Stage;
use crate::BenchError;
use crate::stats::Spread;
use crate::table::Table;
use model::{Leader, key};
use nix::sys::signal::Signal;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use store::{Store, Watch, WatchEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the next placement may take before that counts as a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two faults: nodes find their servers again, and followers catch up.
const CALM: Duration = Duration::from_secs(4);

/// Runs a second meanwhile, of which each has some steps to place at any moment.
const RATE: f64 = 20.0;

/// How long a step runs that is to be live during a takeover: so few end meanwhile.
const LONG_MS: u64 = 7_200_000;

/// What happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Pause,
    Stop,
}

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Pause => "paused past its lease",
            Self::Stop => "stopped cleanly",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::SIGKILL,
            Self::Pause => Signal::SIGSTOP,
            Self::Stop => Signal::SIGTERM,
        }
    }

    fn target_ms(self) -> f64 {
        match self {
            Self::Kill | Self::Pause => 3_000.0,
            Self::Stop => 200.0,
        }
    }
}

fn stopped(what: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("{what}: {cause}"))
}

/// From the fault on, milliseconds.
#[derive(Debug, Clone, Copy)]
struct Gap {
    leader: f64,
    placement: f64,
}

pub(super) async fn run(arguments: &ThroughputArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    let members = arguments.etcd.first().copied().unwrap_or(1);
    let arguments = ThroughputArguments {
        servers: arguments.servers.max(3),
        ..arguments.clone()
    };
    let mut stage = Stage::set(&arguments, members).await?;
    writeln!(
        out,
        "\nfailover: {} servers, {} nodes, etcd with {members} member(s), {RATE} runs/s",
        arguments.servers, arguments.nodes
    )?;
    let mut table = Table::with_heads(&[
        "leader, ms until",
        "next leader",
        "next placement",
        "least",
        "most",
        "target",
        "n",
    ]);
    for fault in [Fault::Kill, Fault::Pause, Fault::Stop] {
        let gaps = faults(&mut stage, fault, arguments.repetitions).await?;
        let placement = Spread::of(&gaps.iter().map(|g| g.placement).collect::<Vec<_>>());
        let leader = Spread::of(&gaps.iter().map(|g| g.leader).collect::<Vec<_>>());
        let whole = |ms: f64| format!("{ms:.0}");
        table.row(vec![
            fault.words().to_owned(),
            whole(leader.median),
            whole(placement.median),
            whole(placement.least),
            whole(placement.most),
            whole(fault.target_ms()),
            gaps.len().to_string(),
        ]);
    }
    table.print(out)?;
    takeover(&mut stage, &arguments, out).await
}

/// One fault after another, while runs come.
async fn faults(stage: &mut Stage, fault: Fault, count: usize) -> Result<Vec<Gap>, BenchError> {
    let mut gaps = Vec::new();
    for _ in 0..count {
        gaps.push(fault_under_load(stage, fault).await?);
    }
    Ok(gaps)
}

async fn fault_under_load(stage: &mut Stage, fault: Fault) -> Result<Gap, BenchError> {
    let store = etcd::connect(&stage.etcd, PREFIX).await?;
    let Stage {
        driver,
        servers,
        settings,
        ..
    } = stage;
    let far = Instant::now() + 2 * PATIENCE;
    let happens = async {
        tokio::time::sleep(CALM).await;
        let at = leader(&store, servers).await?;
        let revision = store
            .range("", None, 1)
            .await
            .map_err(|e| stopped("etcd", &e))?
            .revision;
        let keys = store
            .watch(key::LEADER, revision)
            .await
            .map_err(|e| stopped("etcd", &e))?;
        let orders = store
            .watch(key::ALLOCS, revision)
            .await
            .map_err(|e| stopped("etcd", &e))?;
        let began = Instant::now();
        let name = servers[at].name.clone();
        servers[at].signal(fault.signal())?;
        let gap = timeout(PATIENCE, gap(began, &name, keys, orders)).await;
        let gap = gap.map_err(|_| stopped(fault.words(), &"nobody places any more"))??;
        if fault == Fault::Pause {
            servers[at].signal(Signal::SIGCONT)?;
        } else {
            servers[at].ended().await?;
            servers[at] = ServerProcess::start(settings, &name).await?;
        }
        Ok::<Gap, BenchError>(gap)
    };
    let gap = tokio::select! {
        gap = happens => gap?,
        driven = driver.drive(Pace::Rate(RATE), far, u64::MAX) => {
            driven?;
            return Err(stopped(fault.words(), &"took too long"));
        }
    };
    stage.announce();
    Ok(gap)
}

/// Which of the servers leads.
async fn leader(store: &dyn Store, servers: &[ServerProcess]) -> Result<usize, BenchError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entry = store.get(key::LEADER).await.map_err(|e| stopped("etcd", &e))?;
        let name = entry.and_then(|e| e.decode::<Leader>().ok()).map(|l| l.server);
        if let Some(at) = servers.iter().position(|s| Some(&s.name) == name.as_ref()) {
            return Ok(at);
        }
        if Instant::now() > deadline {
            return Err(stopped("the servers", &"nobody leads"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for another leader's key, and for the first order that is newer.
async fn gap(began: Instant, before: &str, mut keys: Watch, mut orders: Watch) -> Result<Gap, BenchError> {
    let since = |at: Instant| (at - began).as_secs_f64() * 1_000.0;
    let (leader, led_from) = loop {
        let Some(WatchEvent::Changes(changes)) = keys.recv().await else {
            return Err(stopped("the watch of the leader", &"has ended"));
        };
        let next = changes.iter().find(|change| {
            let leader = change.value.as_ref().and_then(|v| model::decode::<Leader>(v).ok());
            leader.is_some_and(|l| l.server != before)
        });
        if let Some(next) = next {
            break (since(Instant::now()), next.revision);
        }
    };
    loop {
        let Some(WatchEvent::Changes(changes)) = orders.recv().await else {
            return Err(stopped("the watch of orders", &"has ended"));
        };
        if changes.iter().any(|c| c.value.is_some() && c.revision > led_from) {
            let placement = since(Instant::now());
            return Ok(Gap { leader, placement });
        }
    }
}

/// What taking over costs with many live steps, by the new leader's own metric.
async fn takeover(stage: &mut Stage, arguments: &ThroughputArguments, out: &mut dyn Write) -> Result<(), BenchError> {
    let wanted = arguments.live_steps;
    stage.nodes.run_ms.store(LONG_MS, Ordering::Relaxed);
    let steps = stage.driver.shape.steps();
    while stage.ledger.runs_left() * steps < wanted {
        stage.driver.write(50.min(wanted.div_ceil(steps))).await?;
    }
    tokio::time::sleep(4 * CALM).await;
    let live = stage.ledger.runs_left() * steps;
    let mut taken = Vec::new();
    let mut gaps = Vec::new();
    for _ in 0..arguments.repetitions {
        stage.nodes.run_ms.store(arguments.run_ms, Ordering::Relaxed);
        let before = takeovers(&stage.servers).await?;
        gaps.push(fault_under_load(stage, Fault::Stop).await?.placement);
        let after = takeovers(&stage.servers).await?;
        let longest = after.iter().zip(&before).map(|(after, before)| after - before);
        taken.push(1_000.0 * longest.fold(0.0, f64::max));
    }
    let (taken, gaps) = (Spread::of(&taken), Spread::of(&gaps));
    writeln!(
        out,
        "takeover with {live} live steps, leader stopped cleanly: reading {:.0} ms ({:.0}-{:.0}), next placement {:.0} ms ({:.0}-{:.0}); target 500 ms",
        taken.median, taken.least, taken.most, gaps.median, gaps.least, gaps.most
    )?;
    Ok(())
}

/// How long each server has spent on takeovers, seconds.
async fn takeovers(servers: &[ServerProcess]) -> Result<Vec<f64>, BenchError> {
    let mut all = Vec::new();
    for server in servers {
        let address = server.url.trim_start_matches("http://");
        let text = metrics(address).await.map_err(|e| stopped("a server's metrics", &e))?;
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("buildflow_scheduler_takeover_seconds_sum "));
        all.push(line.and_then(|v| v.trim().parse().ok()).unwrap_or(0.0));
    }
    Ok(all)
}

async fn metrics(address: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(address).await?;
    let token = super::serving::ADMIN_TOKEN;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    connection.read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
