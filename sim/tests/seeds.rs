//! Lives through many seeds. `SIM_SEED=n` replays one; `SIM_SEEDS=n` tries that many.

use sim::Report;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many seeds an ordinary test run tries.
const SEEDS: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")),
    )
}

/// Lets the other cores stop when a seed has failed on one.
struct StopOnPanic<'a>(&'a AtomicU64);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}

/// Every seed below `seeds`, on all cores.
fn live_through(seeds: u64) -> Report {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(0);
    let some_seeds = || {
        let _stop = StopOnPanic(&next);
        let mut sum = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return sum;
            }
            sum += sim::run(seed);
        }
    };
    std::thread::scope(|scope| {
        let cores: Vec<_> = (0..cores).map(|_| scope.spawn(some_seeds)).collect();
        let mut sum = Report::default();
        for core in cores {
            sum += core.join().unwrap_or_else(|breach| std::panic::resume_unwind(breach));
        }
        sum
    })
}

#[test]
fn every_invariant_holds_under_every_seed() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:#?}", sim::run(seed));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let sum = live_through(seeds);
    println!("{seeds} seeds: {sum:#?}");
    if seeds >= SEEDS {
        for (trouble, count) in sum.troubles() {
            assert!(count > 0, "`{trouble}` never happened: {sum:#?}");
        }
        assert!(sum.leaders as u64 > seeds, "no leader was ever replaced");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..5 {
        assert_eq!(sim::run(seed), sim::run(seed), "seed {seed}");
    }
}
