//! The invariants bite: in a world that breaks one rule, one of them soon does not hold, and says so.

use sim::Lie;

/// More seeds than any lie has needed.
const SEEDS: u64 = 4_000;

/// What an invariant says when it does not hold in such a world, one of these.
fn exposed(lie: Lie, words: &[&str]) {
    let found = (0..SEEDS).find_map(|seed| Some((seed, sim::run_with(seed, lie).err()?)));
    let (seed, said) = found.unwrap_or_else(|| panic!("{lie:?} goes unnoticed"));
    println!("{lie:?} is noticed under seed {seed}");
    assert!(
        words.iter().any(|word| said.contains(word)),
        "{lie:?}, seed {seed}: {said}"
    );
}

macro_rules! exposed {
    ($($name:ident: $lie:ident, $words:expr;)*) => {
        $(#[test]
        fn $name() {
            exposed(Lie::$lie, &$words);
        })*
    };
}

exposed! {
    bytes_that_are_acknowledged_are_stored: AcknowledgesEarly, ["I7: "];
    bytes_that_are_stored_are_found_again: LosesBlobs, ["I7: ", "archived without its blob"];
    a_log_that_is_owed_is_not_forgotten: ForgetsEarly, ["I7: "];
    only_what_stands_is_filed: FilesAnything, ["no end in sight", "I6: ", "I2: "];
    only_the_leader_commits_what_it_saw: CommitsUnguarded, ["I2: ", "I3: ", "I4: ", "I5: "];
    a_batch_that_nobody_waits_for_ends_the_term: GoesOnAfterDrop, ["I5: "];
    a_run_leaves_the_live_store_once: MovesUnguarded, ["history is told two ends", "the outbox forgets"];
    the_outbox_waits_for_history: TellsNobody, ["the outbox forgets"];
    a_new_leader_waits_for_a_whole_lease: ForgetsLeases, ["I3: "];
    a_silent_node_is_waited_for: WaitsForNoGrace, ["I3: "];
    nothing_outlives_its_lease: OutlivesLeases, ["I3: "];
}
