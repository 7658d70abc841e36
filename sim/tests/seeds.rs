//! Lives through many seeds. `SIM_SEED=n` replays one; `SIM_SEEDS=n` tries that many.

use sim::Report;

/// How many seeds an ordinary test run tries.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number, not `{text}`")),
    )
}

#[test]
fn every_invariant_holds_under_every_seed() {
    if let Some(seed) = number("SIM_SEED") {
        println!("{:#?}", sim::run(seed));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let mut sum = Report::default();
    for seed in 0..seeds {
        let report = sim::run(seed);
        sum.events += report.events;
        sum.runs += report.runs;
        sum.launched += report.launched;
        sum.deposed += report.deposed;
        sum.refused += report.refused;
        sum.lost_answers += report.lost_answers;
        sum.commits_of_the_dead += report.commits_of_the_dead;
        sum.resyncs += report.resyncs;
        sum.readopted += report.readopted;
        sum.late_reports += report.late_reports;
        sum.leaders += report.leaders;
        for (sum, ended) in sum.ended.iter_mut().zip(report.ended) {
            *sum += ended;
        }
    }
    println!("{seeds} seeds: {sum:#?}");
    // Every kind of trouble did happen; otherwise the invariants were not put to the test.
    let happened = [
        sum.launched,
        sum.deposed,
        sum.refused,
        sum.lost_answers,
        sum.commits_of_the_dead,
        sum.resyncs,
        sum.readopted,
        sum.late_reports,
    ];
    if seeds >= SEEDS {
        assert!(
            happened.iter().chain(&sum.ended).all(|n| *n > 0),
            "something never happened: {sum:#?}"
        );
        assert!(sum.leaders as u64 > seeds, "no leader was ever replaced");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..5 {
        assert_eq!(sim::run(seed), sim::run(seed), "seed {seed}");
    }
}
