//! Runs of all three places as one list, newest first: those in the live store, those in the outbox,
//! and those that history has.
//!
//! The picture is looked at before history is asked. A run goes from the live store to the outbox
//! in one step, and from the outbox only after history has it; so a run that moves meanwhile is
//! seen in one place or in two, never in none, and one that is seen twice is shown once. Not here:
//! one run (`show`).

use super::query::Parameters;
use super::show::{archived_summary, summary};
use crate::dto::{RunList, RunStatus, RunSummary};
use crate::limit::{PAGE_MAX, SCAN_MAX};
use crate::problem::{Answer, Problem};
use crate::state::Server;
use crate::view::RunEntry;
use model::ArchivedRun;
use std::collections::BTreeMap;
use store::history::{RunFilter, RunOrder, RunQuery};

/// What is said when history does not answer.
const OLDER_MISSING: &str = "older runs are missing: their database does not answer at the moment; \
     runs that go on are not affected, ask again later";

/// The parameters of a list.
pub(super) const PARAMETERS: [&str; 8] = [
    "status", "branch", "commit", "person", "since", "until", "cursor", "limit",
];

/// What a list shows.
pub(super) struct Filter {
    status: Option<RunStatus>,
    wanted: RunFilter,
    /// In small letters: part of the author's name, or of the name of the token that asked for it.
    person: Option<String>,
    limit: usize,
}

impl Filter {
    pub(super) fn of(parameters: &Parameters) -> Answer<Self> {
        let status = match parameters.get("status") {
            None => None,
            Some(word) => Some(RunStatus::parse(word).ok_or_else(|| {
                let words: Vec<&str> = RunStatus::ALL.iter().map(|s| s.as_str()).collect();
                Problem::bad_field("status", format!("must be one of: {}", words.join(", ")))
            })?),
        };
        let wanted = RunFilter {
            branch: parameters.get("branch").map(str::to_owned),
            commit: parameters.get("commit").map(str::to_ascii_lowercase),
            created_from_ms: time(parameters, "since")?,
            created_before_ms: time(parameters, "until")?,
            ..RunFilter::default()
        };
        Ok(Self {
            status,
            wanted,
            person: parameters.get("person").map(str::to_lowercase),
            limit: parameters.limit()?,
        })
    }

    fn takes(&self, found: &Found<'_>) -> bool {
        match found {
            Found::Waiting(run) => self.takes_archived(run),
            Found::Live(entry) => {
                let Some(header) = entry.header().filter(|_| entry.is_whole()) else {
                    return false;
                };
                let wanted = &self.wanted;
                self.status.is_none_or(|s| s == entry.status().into())
                    && self.is_by(&header.source.author, &header.requested_by)
                    && wanted
                        .branch
                        .as_deref()
                        .is_none_or(|b| header.source.branch() == Some(b))
                    && wanted.commit.as_ref().is_none_or(|c| *c == header.source.commit)
                    && wanted.created_from_ms.is_none_or(|from| header.created_ms >= from)
                    && wanted.created_before_ms.is_none_or(|before| header.created_ms < before)
            }
        }
    }

    fn takes_archived(&self, run: &ArchivedRun) -> bool {
        self.status.is_none_or(|s| s == run.summary.status.into())
            && self.wanted.takes(&run.summary)
            && self.is_by(&run.summary.source.author, &run.summary.requested_by)
    }

    fn is_by(&self, author: &str, requested_by: &str) -> bool {
        let of = |person: &String| [author, requested_by].iter().any(|n| n.to_lowercase().contains(person));
        self.person.as_ref().is_none_or(of)
    }

    /// The question for history; `None` when only runs that go on are wanted.
    fn query(&self, scope: &RunFilter, order: RunOrder) -> Option<RunQuery> {
        let status = match self.status {
            None => None,
            Some(RunStatus::Queued | RunStatus::Running) => return None,
            Some(RunStatus::Success) => Some(model::RunStatus::Success),
            Some(RunStatus::Failed) => Some(model::RunStatus::Failed),
            Some(RunStatus::Cancelled) => Some(model::RunStatus::Cancelled),
            Some(RunStatus::TimedOut) => Some(model::RunStatus::TimedOut),
        };
        let mut filter = self.wanted.clone();
        filter.team.clone_from(&scope.team);
        filter.pipeline.clone_from(&scope.pipeline);
        filter.status = status;
        Some(RunQuery {
            filter,
            order,
            // History does not know persons: a longer page is asked for, and looked through.
            limit: if self.person.is_some() { PAGE_MAX } else { self.limit },
        })
    }
}

fn time(parameters: &Parameters, name: &str) -> Answer<Option<u64>> {
    let Some(text) = parameters.get(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(ms) => Ok(Some(ms)),
        Err(_) => Err(Problem::bad_field(
            name,
            "must be a time in milliseconds of the Unix epoch",
        )),
    }
}

/// A run in the picture.
pub(super) enum Found<'a> {
    /// In the live store.
    Live(&'a RunEntry),
    /// In the outbox.
    Waiting(&'a ArchivedRun),
}

/// Some of a list's runs by their place in it. Below `floor` there may be others.
pub(super) struct Part<K> {
    runs: BTreeMap<K, RunSummary>,
    floor: Option<K>,
}

impl<K: Ord + Clone> Part<K> {
    fn empty() -> Self {
        Self {
            runs: BTreeMap::new(),
            floor: None,
        }
    }

    /// What the picture has: `live` and `waiting` come newest first. Looks at [`SCAN_MAX`] runs at most.
    pub(super) fn of_picture<'a>(
        server: &Server,
        filter: &Filter,
        live: impl Iterator<Item = (K, &'a RunEntry)>,
        waiting: impl Iterator<Item = (K, &'a ArchivedRun)>,
    ) -> Self {
        let live = live.map(|(key, entry)| (key, Found::Live(entry)));
        let waiting = waiting.map(|(key, run)| (key, Found::Waiting(run)));
        let mut part = Self::empty();
        for (seen, (key, found)) in descending(live, waiting).enumerate() {
            if seen + 1 == SCAN_MAX || part.runs.len() == filter.limit {
                part.floor = Some(key.clone());
            }
            if filter.takes(&found) {
                let shown = match found {
                    Found::Live(entry) => entry.header().map(|header| summary(server, header, entry)),
                    Found::Waiting(run) => Some(archived_summary(server, run)),
                };
                part.runs.extend(shown.map(|s| (key, s)));
            }
            if part.floor.is_some() {
                break;
            }
        }
        part
    }

    /// The page of this part and what history adds to it, and whether history answered.
    pub(super) async fn with_history(
        mut self,
        server: &Server,
        filter: &Filter,
        scope: &RunFilter,
        order: RunOrder,
        place: fn(&ArchivedRun) -> K,
        cursor: fn(&K) -> String,
    ) -> RunList {
        let mut warning = None;
        let mut floors = Vec::from_iter(self.floor.take());
        if let Some(query) = filter.query(scope, order) {
            match server.archives.history().list_runs(&query).await {
                Ok(page) => {
                    if page.more {
                        floors.extend(page.runs.last().map(place));
                    }
                    let by = |r: &&ArchivedRun| filter.is_by(&r.summary.source.author, &r.summary.requested_by);
                    for run in page.runs.iter().filter(by) {
                        // What the picture shows may be newer.
                        self.runs
                            .entry(place(run))
                            .or_insert_with(|| archived_summary(server, run));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "list without history");
                    warning = Some(OLDER_MISSING.to_owned());
                }
            }
        }
        page(self.runs, floors.into_iter().max(), filter.limit, warning, cursor)
    }
}

/// The first `limit` runs that are not below the floor.
fn page<K: Ord + Clone>(
    runs: BTreeMap<K, RunSummary>,
    floor: Option<K>,
    limit: usize,
    warning: Option<String>,
    cursor: fn(&K) -> String,
) -> RunList {
    let mut sure = runs
        .into_iter()
        .rev()
        .filter(|(key, _)| floor.as_ref().is_none_or(|f| key >= f));
    let mut shown = Vec::with_capacity(limit.min(64));
    let mut last = None;
    for (key, run) in sure.by_ref().take(limit) {
        last = Some(key);
        shown.push(run);
    }
    let next = if sure.next().is_some() { last } else { floor };
    RunList {
        runs: shown,
        next_cursor: next.as_ref().map(cursor),
        warning,
    }
}

/// Two lists that both come newest first, as one.
fn descending<'a, K: Ord>(
    a: impl Iterator<Item = (K, Found<'a>)>,
    b: impl Iterator<Item = (K, Found<'a>)>,
) -> impl Iterator<Item = (K, Found<'a>)> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some((ka, _)), Some((kb, _))) if ka < kb => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}
