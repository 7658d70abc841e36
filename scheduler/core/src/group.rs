//! Groups of concurrency: of the runs, or the steps, of a pipeline that are in the same group, one goes
//! on at a time.
//!
//! Who is in a group, and what each member asks for, follows from definitions and records; so does
//! the answer, and nothing of it is stored. A member that has begun, or for which a placement is
//! proposed, keeps its place until it has ended: whoever else comes, never are there two of them by a
//! decision made here. (A group whose members have begun side by side under other rules drains itself.)
//!
//! Not here: how a member is ended or started ([`crate::plan`]).

use model::{Concurrency, PipelineName, Queue, RunId, TeamName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Which group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupKey {
    pub(crate) team: TeamName,
    pub(crate) pipeline: PipelineName,
    pub(crate) of: Of,
    pub(crate) name: String,
}

/// What its members are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    Runs,
    Steps,
}

/// A run, or a step of one (0 for a run), in the order of age: ids of runs sort by time.
pub(crate) type Seat = (Arc<RunId>, usize);

/// What a member asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// It has begun and has not ended, or its placement is proposed.
    pub(crate) goes_on: bool,
    pub(crate) cancel_in_progress: bool,
    pub(crate) queue: Queue,
    /// The number of its run.
    pub(crate) number: u64,
}

impl Member {
    pub(crate) fn new(rules: &Concurrency, number: u64, goes_on: bool) -> Self {
        Self {
            goes_on,
            cancel_in_progress: rules.cancel_in_progress,
            queue: rules.queue,
            number,
        }
    }
}

/// What a group answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decided {
    /// Who may go on.
    admitted: BTreeSet<Seat>,
    /// Who has to end, and the number of the run that takes its place.
    superseded: BTreeMap<Seat, u64>,
    /// The number of the run that goes on.
    holder: Option<u64>,
}

/// What a group says of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It may go on.
    Go,
    /// It waits for this run.
    Wait(u64),
    /// It has to end: this run takes its place.
    End(u64),
}

impl Decided {
    pub(crate) fn of(members: &BTreeMap<Seat, Member>) -> Self {
        let mut decided = Self::default();
        for (seat, member) in members {
            let newer = members.iter().rev().filter(|((run, _), _)| *run > seat.0);
            let mut newer = newer.filter(|(_, other)| !other.goes_on);
            let by = if member.goes_on {
                newer.find(|(_, other)| other.cancel_in_progress)
            } else {
                newer.find(|(_, other)| other.queue == Queue::Latest)
            };
            if let Some((_, other)) = by {
                decided.superseded.insert(seat.clone(), other.number);
            }
        }
        let going = members.iter().filter(|(_, member)| member.goes_on);
        decided.admitted = going.clone().map(|(seat, _)| seat.clone()).collect();
        decided.holder = going.map(|(_, member)| member.number).next();
        if decided.holder.is_none() {
            let first = members.iter().find(|(seat, _)| !decided.superseded.contains_key(*seat));
            decided.admitted.extend(first.map(|(seat, _)| seat.clone()));
            decided.holder = first.map(|(_, member)| member.number);
        }
        decided
    }

    pub(crate) fn word(&self, seat: &Seat) -> Word {
        match self.superseded.get(seat) {
            Some(by) => Word::End(*by),
            None if self.admitted.contains(seat) => Word::Go,
            None => Word::Wait(self.holder.unwrap_or(0)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Group {
    members: BTreeMap<Seat, Member>,
    decided: Decided,
}

/// All groups that have members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Groups {
    groups: BTreeMap<GroupKey, Group>,
    of: BTreeMap<Arc<RunId>, BTreeMap<(GroupKey, usize), Member>>,
}

impl Groups {
    /// Takes what a run is to its groups now. Answers the other runs for which something has changed
    /// by that.
    pub(crate) fn set(
        &mut self,
        run: &Arc<RunId>,
        members: BTreeMap<(GroupKey, usize), Member>,
    ) -> BTreeSet<Arc<RunId>> {
        let before = self.of.get(run);
        if before.map_or(members.is_empty(), |before| *before == members) {
            return BTreeSet::new();
        }
        let mut touched: BTreeSet<GroupKey> = members.keys().map(|(key, _)| key.clone()).collect();
        for (key, step) in before.into_iter().flat_map(BTreeMap::keys) {
            if let Some(group) = self.groups.get_mut(key) {
                group.members.remove(&(Arc::clone(run), *step));
            }
            touched.insert(key.clone());
        }
        for ((key, step), member) in &members {
            let group = self.groups.entry(key.clone()).or_default();
            group.members.insert((Arc::clone(run), *step), *member);
        }
        if members.is_empty() {
            self.of.remove(run);
        } else {
            self.of.insert(Arc::clone(run), members);
        }
        let mut moved = BTreeSet::new();
        for key in touched {
            moved.extend(self.decide(&key));
        }
        moved.remove(run);
        moved
    }

    /// Decides a group anew; answers the runs for which the word is another.
    fn decide(&mut self, key: &GroupKey) -> BTreeSet<Arc<RunId>> {
        let Some(group) = self.groups.get_mut(key) else {
            return BTreeSet::new();
        };
        let decided = Decided::of(&group.members);
        let before = std::mem::replace(&mut group.decided, decided);
        let changed = group.members.keys();
        let changed = changed.filter(|seat| group.decided.word(seat) != before.word(seat));
        let changed = changed.map(|(run, _)| Arc::clone(run)).collect();
        if group.members.is_empty() {
            self.groups.remove(key);
        }
        changed
    }

    /// Whether the run or one of its steps is in a group.
    pub(crate) fn has(&self, run: &RunId) -> bool {
        self.of.contains_key(run)
    }

    /// What the groups say of a run as a whole, with the name of the group.
    pub(crate) fn of_run(&self, run: &Arc<RunId>) -> Option<(Word, &str)> {
        self.words(run, Of::Runs).map(|(_, word, name)| (word, name)).next()
    }

    /// What the groups say of the steps of a run, with the name of the group.
    pub(crate) fn of_steps(&self, run: &Arc<RunId>) -> impl Iterator<Item = (usize, Word, &str)> {
        self.words(run, Of::Steps)
    }

    fn words(&self, run: &Arc<RunId>, of: Of) -> impl Iterator<Item = (usize, Word, &str)> {
        let memberships = self.of.get(run).into_iter().flat_map(BTreeMap::keys);
        memberships
            .filter(move |(key, _)| key.of == of)
            .filter_map(|(key, step)| {
                let group = self.groups.get(key)?;
                Some((*step, group.decided.word(&(Arc::clone(run), *step)), key.name.as_str()))
            })
    }
}

/// Why a member was ended.
pub(crate) fn superseded_sentence(by: u64, group: &str) -> String {
    format!("run {by} took its place in the concurrency group `{group}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(text: &str) -> Seat {
        let (run, step) = text.split_once('.').unwrap_or((text, "0"));
        (
            Arc::new(RunId::new(run).expect("legal")),
            step.parse().expect("a number"),
        )
    }

    /// `1` a member that waits, `1*` one that goes on; `c` cancels what goes on, `a` lets all wait.
    fn members(texts: &[&str]) -> BTreeMap<Seat, Member> {
        let member = |text: &&str| {
            let name: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            let number = name.split('.').next().and_then(|n| n.parse().ok()).expect("a number");
            let member = Member {
                goes_on: text.contains('*'),
                cancel_in_progress: text.contains('c'),
                queue: if text.contains('a') { Queue::All } else { Queue::Latest },
                number,
            };
            (seat(&name), member)
        };
        texts.iter().map(member).collect()
    }

    #[test]
    fn one_goes_on_and_the_rest_waits_or_ends() {
        use Word::{End, Go, Wait};
        type Case = (&'static [&'static str], &'static [(&'static str, Word)]);
        let cases: [Case; 12] = [
            (&["1"], &[("1", Go)]),
            (&["1*"], &[("1", Go)]),
            (&["1*", "2"], &[("1", Go), ("2", Wait(1))]),
            (&["1*", "2", "3"], &[("1", Go), ("2", End(3)), ("3", Wait(1))]),
            (&["1*", "2a", "3a"], &[("1", Go), ("2", Wait(1)), ("3", Wait(1))]),
            (&["1", "2"], &[("1", End(2)), ("2", Go)]),
            (&["1a", "2a"], &[("1", Go), ("2", Wait(1))]),
            (&["1*", "2c"], &[("1", End(2)), ("2", Wait(1))]),
            (&["1*", "2c", "3"], &[("1", End(2)), ("2", End(3)), ("3", Wait(1))]),
            (
                &["1.3*", "1.4", "1.5"],
                &[("1.3", Go), ("1.4", Wait(1)), ("1.5", Wait(1))],
            ),
            (&["1.4", "1.5", "2.1"], &[("1.4", End(2)), ("1.5", End(2)), ("2.1", Go)]),
            // An older one that comes late waits for who goes on.
            (&["1a", "2*"], &[("1", Wait(2)), ("2", Go)]),
        ];
        for (texts, expect) in cases {
            let decided = Decided::of(&members(texts));
            for (name, word) in expect {
                assert_eq!(decided.word(&seat(name)), *word, "{name} of {texts:?}");
            }
        }
    }

    #[test]
    fn those_for_whom_something_changes_are_told() {
        let key = GroupKey {
            team: "t".parse().expect("legal"),
            pipeline: "p".parse().expect("legal"),
            of: Of::Runs,
            name: "g".to_owned(),
        };
        let mut groups = Groups::default();
        let mut set = |text: &str| {
            let (seat, member) = members(&[text]).pop_first().expect("one");
            let told = groups.set(&seat.0, BTreeMap::from([((key.clone(), 0), member)]));
            told.iter().map(|run| run.to_string()).collect::<Vec<_>>()
        };
        assert!(set("1").is_empty());
        assert!(set("1*").is_empty());
        assert!(set("2").is_empty());
        assert!(set("2").is_empty());
        assert_eq!(set("3"), ["2"]);
        let one = seat("1").0;
        assert_eq!(groups.set(&one, BTreeMap::new()).len(), 1, "the third goes on");
        assert_eq!(groups.of_run(&seat("3").0), Some((Word::Go, "g")));
        assert_eq!(groups.of_run(&one), None);
    }
}
