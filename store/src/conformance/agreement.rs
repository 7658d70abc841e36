//! Every engine gives the answers of the one in memory to the same calls in the same order.
//!
//! The calls are drawn from few keys, so that they meet. Not here: expiry, and what is written at once.

use super::{Fixture, begin, next_changes};
use crate::live::{
    Commit, Entry, Expect, Guard, LEASE_TTL_MAX_MS, LeaseId, Revision, Store, StoreError, Txn, WatchEvent, Write,
};
use crate::memory::MemoryCore;

/// How many calls are made.
const CALLS: usize = 600;

/// Keys that begin with each other and with the prefixes that are asked for.
const KEYS: [&str; 6] = ["a", "a/", "a/1", "a/2", "a0", "b"];

/// A lease that nobody was granted.
const NEVER: LeaseId = LeaseId(424_242);

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    /// 0 to `sides` − 1.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }

    fn many<T>(&mut self, most: u64, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.roll(most + 1)).map(|_| one(self)).collect()
    }

    fn key(&mut self) -> String {
        KEYS[usize::try_from(self.roll(KEYS.len() as u64)).unwrap_or(0)].to_owned()
    }
}

/// One call, in terms of both stores: leases by the order in which they were granted, revisions as
/// counted from the first.
#[derive(Debug, Clone)]
enum Call {
    Batch(Vec<Guard>, Vec<Txn>),
    Get(String),
    Range(String, Option<String>, usize),
    Grant,
    Renew(usize),
    Revoke(usize),
}

fn call(dice: &mut Dice, granted: usize, revision: u64) -> Call {
    let lease = |dice: &mut Dice| usize::try_from(dice.roll(granted as u64 + 1)).unwrap_or(0);
    match dice.roll(12) {
        0..=4 => Call::Batch(Vec::new(), vec![txn(dice, granted, revision)]),
        5..=6 => Call::Batch(
            dice.many(1, |d| guard(d, revision)),
            dice.many(3, |d| txn(d, granted, revision)),
        ),
        7 => Call::Get(dice.key()),
        8 => {
            let prefix = ["", "a", "a/", "c"][usize::try_from(dice.roll(4)).unwrap_or(0)];
            let after = dice.many(1, Dice::key).pop();
            Call::Range(prefix.to_owned(), after, usize::try_from(dice.roll(4)).unwrap_or(0) + 1)
        }
        9 if granted < 8 => Call::Grant,
        10 if dice.roll(3) == 0 => Call::Revoke(lease(dice)),
        _ => Call::Renew(lease(dice)),
    }
}

fn guard(dice: &mut Dice, revision: u64) -> Guard {
    let expect = match dice.roll(3) {
        0 => Expect::Absent,
        1 => Expect::Present,
        // Among the newest, so that some hold.
        _ => Expect::Revision(Revision((revision + 2).saturating_sub(dice.roll(8)).max(1))),
    };
    Guard {
        key: dice.key(),
        expect,
    }
}

fn txn(dice: &mut Dice, granted: usize, revision: u64) -> Txn {
    Txn {
        guards: dice.many(1, |d| guard(d, revision)),
        writes: (0..=dice.roll(2)).map(|_| write(dice, granted)).collect(),
    }
}

/// A lease in a write stands for its place in the order of grants, from 0; the last one for none that was granted.
fn write(dice: &mut Dice, granted: usize) -> Write {
    let key = dice.key();
    match dice.roll(8) {
        0..=1 => Write::Delete { key },
        2 => Write::DeletePrefix { prefix: key },
        _ => Write::Put {
            key,
            value: vec![0; usize::try_from(dice.roll(4)).unwrap_or(0)],
            lease: (dice.roll(3) == 0).then(|| LeaseId(i64::try_from(dice.roll(granted as u64 + 1)).unwrap_or(0))),
        },
    }
}

/// One of the two stores: what it calls the first revision and each lease.
struct Names {
    begin: u64,
    leases: Vec<LeaseId>,
}

impl Names {
    fn lease(&self, place: usize) -> LeaseId {
        self.leases.get(place).copied().unwrap_or(NEVER)
    }

    fn guard(&self, guard: &Guard) -> Guard {
        let expect = match guard.expect {
            Expect::Revision(revision) => Expect::Revision(Revision(revision.0 + self.begin)),
            other => other,
        };
        Guard {
            key: guard.key.clone(),
            expect,
        }
    }

    fn txn(&self, txn: &Txn) -> Txn {
        let write = |write: &Write| match write.clone() {
            Write::Put { key, value, lease } => Write::Put {
                key,
                value,
                lease: lease.map(|place| self.lease(usize::try_from(place.0).unwrap_or(usize::MAX))),
            },
            other => other,
        };
        Txn {
            guards: txn.guards.iter().map(|g| self.guard(g)).collect(),
            writes: txn.writes.iter().map(write).collect(),
        }
    }

    fn revision(&self, revision: Revision) -> u64 {
        revision.0.saturating_sub(self.begin)
    }

    fn shown_entry(&self, entry: Option<&Entry>) -> String {
        entry.map_or("nothing".to_owned(), |e| {
            format!("{}={:?}@{}", e.key, e.value, self.revision(e.mod_revision))
        })
    }

    fn shown_commit(&self, commit: &Commit) -> String {
        match commit {
            Commit::Applied(revision) => format!("applied @{}", self.revision(*revision)),
            Commit::Refused { guard, found } => {
                format!("refused by {}: {}", guard.key, self.shown_entry(found.as_ref()))
            }
        }
    }

    /// An answer in the terms of both.
    fn shown<T>(&self, answer: Result<T, StoreError>, show: impl FnOnce(T) -> String) -> String {
        match answer {
            Ok(answer) => show(answer),
            Err(StoreError::NoLease(lease)) => {
                format!("no lease {:?}", self.leases.iter().position(|l| *l == lease))
            }
            Err(error) => error.to_string(),
        }
    }

    fn shown_commits(&self, commits: &[Commit]) -> String {
        commits
            .iter()
            .map(|c| self.shown_commit(c))
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn shown_page(&self, page: &crate::live::Page) -> String {
        let entries: Vec<String> = page.entries.iter().map(|e| self.shown_entry(Some(e))).collect();
        format!(
            "{} more {} @{}",
            entries.join(", "),
            page.more,
            self.revision(page.revision)
        )
    }
}

async fn ask(store: &dyn Store, names: &mut Names, call: &Call) -> String {
    match call {
        Call::Batch(outer, txns) => {
            let outer = outer.iter().map(|g| names.guard(g)).collect();
            let answer = store
                .commit_batch(outer, txns.iter().map(|t| names.txn(t)).collect())
                .await;
            names.shown(answer, |c| names.shown_commits(&c))
        }
        Call::Get(key) => names.shown(store.get(key).await, |e| names.shown_entry(e.as_ref())),
        Call::Range(prefix, after, limit) => {
            let answer = store.range(prefix, after.as_deref(), *limit).await;
            names.shown(answer, |p| names.shown_page(&p))
        }
        Call::Grant => {
            names
                .leases
                .push(store.lease_grant(LEASE_TTL_MAX_MS).await.expect("it grants"));
            String::new()
        }
        Call::Renew(place) => names.shown(store.lease_keep_alive(names.lease(*place)).await, |left| {
            left.to_string()
        }),
        Call::Revoke(place) => names.shown(store.lease_revoke(names.lease(*place)).await, |()| String::new()),
    }
}

fn ask_memory(core: &mut MemoryCore, names: &mut Names, call: &Call) -> String {
    match call {
        Call::Batch(outer, txns) => {
            let outer: Vec<Guard> = outer.iter().map(|g| names.guard(g)).collect();
            let answer = core.commit_batch(&outer, txns.iter().map(|t| names.txn(t)).collect(), 0);
            names.shown(answer, |c| names.shown_commits(&c))
        }
        Call::Get(key) => names.shown(core.get(key), |e| names.shown_entry(e.as_ref())),
        Call::Range(prefix, after, limit) => {
            let answer = core.range(prefix, after.as_deref(), *limit);
            names.shown(answer, |p| names.shown_page(&p))
        }
        Call::Grant => {
            names
                .leases
                .push(core.lease_grant(LEASE_TTL_MAX_MS, 0).expect("it grants"));
            String::new()
        }
        Call::Renew(place) => names.shown(core.lease_keep_alive(names.lease(*place), 0), |left| left.to_string()),
        Call::Revoke(place) => {
            core.lease_revoke(names.lease(*place), 0);
            String::new()
        }
    }
}

/// Values, revisions, refusals, errors, and what the watches saw.
pub async fn it_answers_as_memory_does(fixture: Fixture) {
    assert!(fixture.alone, "revisions are compared");
    let store = &*fixture.store;
    let from = begin(store).await;
    let mut watch = store.watch("a", from).await.expect("the store answers");
    let mut core = MemoryCore::new();
    let mut ours = Names {
        begin: from.0,
        leases: Vec::new(),
    };
    let mut theirs = Names {
        begin: 0,
        leases: Vec::new(),
    };
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut past: Vec<Call> = Vec::new();
    for _ in 0..CALLS {
        let call = call(&mut dice, theirs.leases.len(), core.revision().0);
        let expected = ask_memory(&mut core, &mut theirs, &call);
        let answer = ask(store, &mut ours, &call).await;
        let before = &past[past.len().saturating_sub(5)..];
        assert_eq!(answer, expected, "{call:?} after {before:?}");
        past.push(call);
    }
    let seen_by_memory = core.changes_since(Revision(0), "a");
    assert!(
        core.revision().0 > CALLS as u64 / 6,
        "{:?}: too little was written",
        core.revision()
    );
    for event in seen_by_memory {
        let WatchEvent::Changes(expected) = event else {
            panic!("memory forgot: {event:?}")
        };
        let mut seen = next_changes(&mut watch).await;
        for change in &mut seen {
            change.revision.0 -= from.0;
        }
        assert_eq!(seen, expected);
    }
}
