//! What every engine of history must do, as cases that each engine is put through.
//!
//! [`history_conformance_tests!`](crate::history_conformance_tests) makes one test of each case. A
//! case panics with what it expected. Not here: what only some engines promise, e.g. coming back
//! after the database was away.

use super::{
    COUNT_MAX, History, HistoryError, Oldest, PAGE_MAX, PUT_MAX, RunFilter, RunOrder, RunPage, RunQuery, SEARCHED_MAX,
};
use model::record::Unknown;
use model::run::{Event, RunError, RunStatus, Source};
use model::{ArchivedRun, PipelineName, RunId, RunSummary, TeamName};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Makes one test of each case for an engine. Takes the path of an async function that gives an
/// empty [`History`](crate::history::History) behind an `Arc` and what must live as long, or `None`
/// when the engine is not there, which it has said loudly.
#[macro_export]
macro_rules! history_conformance_tests {
    ($fresh:path) => {
        $crate::history_conformance_tests! { @each $fresh:
            what_is_put_is_read, the_greater_attempt_wins, a_put_is_whole_and_idempotent,
            filters_mean_what_they_say, pages_join_without_gap_or_repeat, pages_join_while_runs_arrive,
            numbers_order_a_pipeline, odd_texts_are_kept_and_harmless, limits_are_reached_and_not_passed,
            ids_are_ordered_bytewise, puts_at_once_do_not_disturb_each_other, a_check_says_what_is_there,
            the_oldest_come_first_and_can_be_forgotten
        }
    };
    (@each $fresh:path: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some((history, _keep)) = $fresh().await {
                    $crate::history::conformance::$case(history).await;
                }
            }
        )+
    };
}

/// A run's record, e.g. for tests of what uses history: of pipeline `default/web`, failed on `main`.
#[must_use]
pub fn archived(id: &str, number: u64) -> ArchivedRun {
    ArchivedRun {
        summary: RunSummary {
            id: RunId::new(id).expect("a legal id"),
            team: TeamName::new("default").expect("a legal name"),
            pipeline: PipelineName::new("web").expect("a legal name"),
            number,
            attempt: 1,
            status: RunStatus::Failed,
            source: Source {
                repository: "https://example.org/web.git".to_owned(),
                git_ref: "refs/heads/main".to_owned(),
                commit: "8f14e45fceea167a5a36dedd4bea2543f6d7c8e9".to_owned(),
                message: "fix".to_owned(),
                author: "Ann".to_owned(),
                event: Event::Push,
            },
            created_ms: 1_000 + number,
            started_ms: Some(2_000 + number),
            ended_ms: 3_000 + number,
            steps: 2,
            requested_by: "ann".to_owned(),
            error: None,
        },
        blob: format!("archive/{id}/1.json.zst"),
        archived_ms: 4_000 + number,
        unknown: Unknown::new(),
    }
}

fn by_id(filter: RunFilter, before: Option<RunId>, limit: usize) -> RunQuery {
    RunQuery {
        filter,
        order: RunOrder::Id { before },
        limit,
    }
}

async fn put(history: &dyn History, runs: &[ArchivedRun]) {
    for part in runs.chunks(PUT_MAX) {
        history.put_runs(part).await.expect("they are taken");
    }
}

async fn page(history: &dyn History, query: &RunQuery) -> RunPage {
    history.list_runs(query).await.expect("it is listed")
}

fn ids(page: &RunPage) -> Vec<&str> {
    page.runs.iter().map(|r| r.summary.id.as_str()).collect()
}

async fn listed(history: &dyn History, filter: RunFilter) -> Vec<String> {
    let page = page(history, &by_id(filter, None, PAGE_MAX)).await;
    ids(&page).into_iter().map(str::to_owned).collect()
}

/// Every field comes back, also those of a newer release.
pub async fn what_is_put_is_read(history: Arc<dyn History>) {
    let mut run = archived("01jda", 7);
    run.summary.error = Some(RunError {
        message: "no file".to_owned(),
        findings: vec!["1:2: x".to_owned()],
    });
    run.unknown.insert("newer".to_owned(), "kept".into());
    put(&*history, &[run.clone(), archived("01jdb", 8)]).await;
    let id = run.summary.id.clone();
    assert_eq!(history.get_run(&id).await, Ok(Some(run.clone())));
    let (team, pipeline) = (&run.summary.team, &run.summary.pipeline);
    assert_eq!(history.find_run(team, pipeline, 7).await, Ok(Some(run.clone())));
    assert_eq!(history.find_run(team, pipeline, 9).await, Ok(None));
    let other = PipelineName::new("other").expect("a legal name");
    assert_eq!(history.find_run(team, &other, 7).await, Ok(None));
    assert_eq!(history.get_run(&RunId::new("01jdc").expect("legal")).await, Ok(None));
    assert_eq!(history.put_runs(&[]).await, Ok(()));
}

/// By the time of the trigger, then by id; page by page, also while runs are forgotten.
pub async fn the_oldest_come_first_and_can_be_forgotten(history: Arc<dyn History>) {
    let mut runs: Vec<ArchivedRun> = (0..30).map(|n| archived(&format!("01jd{n:02}"), n / 3)).collect();
    runs[4].summary.source.git_ref = "refs/tags/v1".to_owned();
    runs[7].summary.source.git_ref = "refs/heads/topic".to_owned();
    // The order of their arrival says nothing.
    runs.reverse();
    put(&*history, &runs).await;
    runs.reverse();
    let before_ms = runs[24].summary.created_ms;
    let mut found = Vec::new();
    loop {
        let after = found.last().map(|o: &Oldest| (o.created_ms, o.run.clone()));
        let after = after.as_ref().map(|(at, run)| (*at, run));
        let page = history.oldest_runs(before_ms, after, 7).await.expect("it is listed");
        if page.is_empty() {
            break;
        }
        // What was seen may go meanwhile.
        if found.len() == 7 {
            let ids: Vec<RunId> = found.iter().take(3).map(|o| o.run.clone()).collect();
            history.remove_runs(&ids).await.expect("forgotten");
        }
        found.extend(page);
    }
    let expected: Vec<Oldest> = runs[..24]
        .iter()
        .map(|r| Oldest {
            created_ms: r.summary.created_ms,
            run: r.summary.id.clone(),
            branch: r.summary.source.branch().map(str::to_owned),
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(found[4].branch, None, "a tag is no branch");
    let ids: Vec<RunId> = expected.iter().map(|o| o.run.clone()).collect();
    for _ in 0..2 {
        assert_eq!(history.remove_runs(&ids).await, Ok(()), "also when they are gone");
    }
    assert_eq!(history.remove_runs(&[]).await, Ok(()));
    assert_eq!(history.oldest_runs(before_ms, None, 7).await, Ok(Vec::new()));
    assert_eq!(history.get_run(&ids[5]).await, Ok(None));
    assert_eq!(
        listed(&*history, RunFilter::default()).await.len(),
        6,
        "the others stay"
    );
    for limit in [0, PAGE_MAX + 1] {
        let refused = history.oldest_runs(before_ms, None, limit).await;
        assert!(matches!(refused, Err(HistoryError::Illegal(_))), "{refused:?}");
    }
    let many = vec![ids[0].clone(); PUT_MAX + 1];
    assert!(matches!(
        history.remove_runs(&many).await,
        Err(HistoryError::Illegal(_))
    ));
}

/// In whatever order they come, also within one put.
pub async fn the_greater_attempt_wins(history: Arc<dyn History>) {
    let of = |attempt: u32, status| {
        let mut run = archived("01jda", 7);
        run.summary.attempt = attempt;
        run.summary.status = status;
        run.blob = format!("archive/01jda/{attempt}.json.zst");
        run
    };
    let id = RunId::new("01jda").expect("legal");
    let (first, second) = (of(1, RunStatus::Failed), of(2, RunStatus::Success));
    put(&*history, std::slice::from_ref(&first)).await;
    put(&*history, &[second.clone(), first.clone()]).await;
    assert_eq!(history.get_run(&id).await, Ok(Some(second.clone())));
    put(&*history, &[first]).await;
    assert_eq!(history.get_run(&id).await, Ok(Some(second.clone())));
    // The columns move with the record.
    let with = |status| RunFilter {
        status: Some(status),
        ..RunFilter::default()
    };
    assert_eq!(listed(&*history, with(RunStatus::Success)).await, ["01jda"]);
    assert_eq!(listed(&*history, with(RunStatus::Failed)).await, Vec::<String>::new());
    // The same attempt again, told otherwise: what is there stays.
    put(&*history, &[of(2, RunStatus::Cancelled)]).await;
    assert_eq!(history.get_run(&id).await, Ok(Some(second)));
}

/// As many times as it likes.
pub async fn a_put_is_whole_and_idempotent(history: Arc<dyn History>) {
    let runs: Vec<ArchivedRun> = (0..PUT_MAX as u64)
        .map(|n| archived(&format!("01jd{n:04}"), n))
        .collect();
    for _ in 0..2 {
        put(&*history, &runs).await;
        assert_eq!(history.count_runs(&RunFilter::default()).await, Ok(PUT_MAX as u64));
    }
    let too_many: Vec<ArchivedRun> = (0..=PUT_MAX as u64)
        .map(|n| archived(&format!("02jd{n:04}"), n))
        .collect();
    let refused = history.put_runs(&too_many).await;
    assert!(matches!(refused, Err(HistoryError::Illegal(_))), "{refused:?}");
    assert_eq!(history.count_runs(&RunFilter::default()).await, Ok(PUT_MAX as u64));
}

/// Each alone, and together.
pub async fn filters_mean_what_they_say(history: Arc<dyn History>) {
    let mut runs: Vec<ArchivedRun> = (0..8).map(|n| archived(&format!("01jd{n}"), n)).collect();
    runs[1].summary.team = TeamName::new("other").expect("legal");
    runs[2].summary.pipeline = PipelineName::new("api").expect("legal");
    runs[3].summary.status = RunStatus::Success;
    runs[4].summary.source.git_ref = "refs/heads/main2".to_owned();
    runs[5].summary.source.git_ref = "refs/tags/main".to_owned();
    runs[6].summary.source.commit = "0000".to_owned();
    put(&*history, &runs).await;
    let name = |t: &str| TeamName::new(t).ok();
    let pipeline = |t: &str| PipelineName::new(t).ok();
    let text = |t: &str| Some(t.to_owned());
    type Change = Box<dyn Fn(&mut RunFilter)>;
    let cases: Vec<(Change, &[usize])> = vec![
        (Box::new(|_| {}), &[0, 1, 2, 3, 4, 5, 6, 7]),
        (Box::new(move |f| f.team = name("default")), &[0, 2, 3, 4, 5, 6, 7]),
        (Box::new(move |f| f.pipeline = pipeline("api")), &[2]),
        (Box::new(|f| f.status = Some(RunStatus::Success)), &[3]),
        (Box::new(|f| f.status = Some(RunStatus::Cancelled)), &[]),
        (Box::new(move |f| f.branch = text("main")), &[0, 1, 2, 3, 6, 7]),
        (Box::new(move |f| f.branch = text("main2")), &[4]),
        (Box::new(move |f| f.branch = text("mai_")), &[]),
        (Box::new(move |f| f.branch = text("' OR 1=1 --")), &[]),
        (Box::new(move |f| f.commit = text("0000")), &[6]),
        (Box::new(|f| f.created_from_ms = Some(1_006)), &[6, 7]),
        (Box::new(|f| f.created_before_ms = Some(1_001)), &[0]),
        (
            Box::new(|f| (f.created_from_ms, f.created_before_ms) = (Some(1_002), Some(1_004))),
            &[2, 3],
        ),
        (
            Box::new(move |f| {
                f.team = name("default");
                f.pipeline = pipeline("web");
                f.status = Some(RunStatus::Failed);
                f.branch = text("main");
                f.created_from_ms = Some(1_001);
            }),
            &[6, 7],
        ),
    ];
    for (change, expected) in cases {
        let mut filter = RunFilter::default();
        change(&mut filter);
        let expected: Vec<String> = expected.iter().rev().map(|n| format!("01jd{n}")).collect();
        assert_eq!(listed(&*history, filter.clone()).await, expected, "{filter:?}");
        assert_eq!(
            history.count_runs(&filter).await,
            Ok(expected.len() as u64),
            "{filter:?}"
        );
        let taken: Vec<&str> = runs
            .iter()
            .rev()
            .filter(|r| filter.takes(&r.summary))
            .map(|r| r.summary.id.as_str())
            .collect();
        assert_eq!(taken, expected, "the filter itself: {filter:?}");
    }
}

/// Whatever the length of a page.
pub async fn pages_join_without_gap_or_repeat(history: Arc<dyn History>) {
    let runs: Vec<ArchivedRun> = (0..57).map(|n| archived(&format!("01jd{n:04}"), n)).collect();
    put(&*history, &runs).await;
    for limit in [1, 7, 56, 57, 58] {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = page(&*history, &by_id(RunFilter::default(), before, limit)).await;
            assert!(page.runs.len() <= limit);
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            before = page.runs.last().map(|r| r.summary.id.clone());
            if !page.more {
                break;
            }
        }
        let expected: Vec<String> = (0..57).rev().map(|n| format!("01jd{n:04}")).collect();
        assert_eq!(seen, expected, "pages of {limit}");
    }
}

/// A reader that pages while others put sees each run that was there at its beginning once.
pub async fn pages_join_while_runs_arrive(history: Arc<dyn History>) {
    let id = |n: u64| format!("01jd{n:06}");
    let first: Vec<ArchivedRun> = (0..600).step_by(2).map(|n| archived(&id(n), n)).collect();
    put(&*history, &first).await;
    let writer = tokio::spawn({
        let history = history.clone();
        async move {
            // Between those that are there, and before them.
            for n in (1..900).step_by(2) {
                put(&*history, &[archived(&id(n), n)]).await;
            }
        }
    });
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = page(&*history, &by_id(RunFilter::default(), before, 10)).await;
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        before = page.runs.last().map(|r| r.summary.id.clone());
        if !page.more {
            break;
        }
    }
    writer.await.expect("the writer does not panic");
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
    let seen: BTreeSet<String> = seen.into_iter().collect();
    let missed: Vec<String> = (0..600).step_by(2).map(id).filter(|i| !seen.contains(i)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// Not by their digits, and only within the pipeline.
pub async fn numbers_order_a_pipeline(history: Arc<dyn History>) {
    let mut runs: Vec<ArchivedRun> = [9, 10, 100].map(|n| archived(&format!("01jd{n:04}"), n)).to_vec();
    runs.push(archived("01jdz", 11));
    runs[3].summary.team = TeamName::new("other").expect("legal");
    put(&*history, &runs).await;
    let of_pipeline = RunFilter {
        team: TeamName::new("default").ok(),
        pipeline: PipelineName::new("web").ok(),
        ..RunFilter::default()
    };
    for (before, limit, expected, more) in [
        (None, 10, vec![100, 10, 9], false),
        (None, 2, vec![100, 10], true),
        (Some(100), 2, vec![10, 9], false),
        (Some(10), 2, vec![9], false),
        (Some(9), 2, vec![], false),
    ] {
        let query = RunQuery {
            filter: of_pipeline.clone(),
            order: RunOrder::Number { before },
            limit,
        };
        let page = page(&*history, &query).await;
        let numbers: Vec<u64> = page.runs.iter().map(|r| r.summary.number).collect();
        assert_eq!((numbers, page.more), (expected, more), "{before:?}");
    }
}

/// Zero bytes, quotes, other scripts, long texts, the greatest numbers.
pub async fn odd_texts_are_kept_and_harmless(history: Arc<dyn History>) {
    let long = "x".repeat(SEARCHED_MAX + 1);
    let longest = "y".repeat(SEARCHED_MAX);
    let odd = [
        "a\0b",
        "\0",
        "'; DROP TABLE run; --",
        "\u{1F600} ü \u{202e}",
        "\\x00 %_",
        &long,
        &longest,
    ];
    for (n, text) in odd.iter().enumerate() {
        let mut run = archived(&format!("01jd{n}"), 1);
        run.summary.number = u64::MAX - n as u64;
        run.summary.created_ms = u64::MAX;
        run.summary.source.git_ref = format!("refs/heads/{text}");
        run.summary.source.message = (*text).to_owned();
        run.summary.source.commit = (*text).to_owned();
        run.summary.requested_by = (*text).to_owned();
        run.unknown.insert((*text).to_owned(), (*text).into());
        put(&*history, std::slice::from_ref(&run)).await;
        assert_eq!(
            history.get_run(&run.summary.id).await,
            Ok(Some(run.clone())),
            "{text:?}"
        );
        let searched = !text.contains('\0') && text.len() <= SEARCHED_MAX;
        let expected: &[String] = if searched { &[run.summary.id.to_string()] } else { &[] };
        for by_branch in [true, false] {
            let wanted = Some((*text).to_owned());
            let filter = if by_branch {
                RunFilter {
                    branch: wanted,
                    ..RunFilter::default()
                }
            } else {
                RunFilter {
                    commit: wanted,
                    ..RunFilter::default()
                }
            };
            assert_eq!(listed(&*history, filter.clone()).await, expected, "{text:?}");
            assert_eq!(filter.takes(&run.summary), searched, "{text:?}");
        }
    }
    assert_eq!(history.count_runs(&RunFilter::default()).await, Ok(odd.len() as u64));
}

/// Pages of no run and of too many are refused, the greatest one is given; a count ends.
pub async fn limits_are_reached_and_not_passed(history: Arc<dyn History>) {
    let runs: Vec<ArchivedRun> = (0..COUNT_MAX + 5)
        .map(|n| archived(&format!("01jd{n:06}"), n))
        .collect();
    put(&*history, &runs).await;
    assert_eq!(history.count_runs(&RunFilter::default()).await, Ok(COUNT_MAX));
    let whole = page(&*history, &by_id(RunFilter::default(), None, PAGE_MAX)).await;
    assert_eq!((whole.runs.len(), whole.more), (PAGE_MAX, true));
    for limit in [0, PAGE_MAX + 1] {
        let refused = history.list_runs(&by_id(RunFilter::default(), None, limit)).await;
        assert!(matches!(refused, Err(HistoryError::Illegal(_))), "{limit}: {refused:?}");
    }
    let query = RunQuery {
        filter: RunFilter::default(),
        order: RunOrder::Number { before: None },
        limit: 1,
    };
    let refused = history.list_runs(&query).await;
    assert!(matches!(refused, Err(HistoryError::Illegal(_))), "{refused:?}");
}

/// As every other list of runs, whatever a database's language says of letters and digits.
pub async fn ids_are_ordered_bytewise(history: Arc<dyn History>) {
    let mut texts = ["B-1", "a-1", "a1", "A1", "b", "Z", "0", "a-10", "-a"];
    let runs: Vec<ArchivedRun> = texts.iter().map(|t| archived(t, 1)).collect();
    put(&*history, &runs).await;
    texts.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(listed(&*history, RunFilter::default()).await, texts);
    let before = RunId::new("a-1").ok();
    let after = page(&*history, &by_id(RunFilter::default(), before, 100)).await;
    assert_eq!(ids(&after), ["Z", "B-1", "A1", "0", "-a"]);
}

/// Several servers that tell of the same runs.
pub async fn puts_at_once_do_not_disturb_each_other(history: Arc<dyn History>) {
    let servers: Vec<_> = (1..=4_u32)
        .map(|server| {
            let history = history.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let mut runs: Vec<ArchivedRun> = (0..50).map(|n| archived(&format!("01jd{n:04}"), n)).collect();
                    runs.iter_mut().for_each(|r| r.summary.attempt = server);
                    if (server + round) % 2 == 0 {
                        runs.reverse();
                    }
                    put(&*history, &runs).await;
                }
            })
        })
        .collect();
    for server in servers {
        server.await.expect("no server panics");
    }
    let all = page(&*history, &by_id(RunFilter::default(), None, PAGE_MAX)).await;
    assert_eq!(all.runs.len(), 50);
    assert!(all.runs.iter().all(|r| r.summary.attempt == 4));
}

/// In words, changing nothing.
pub async fn a_check_says_what_is_there(history: Arc<dyn History>) {
    let said = history.check().await.expect("it is well");
    assert!(said.contains("SQL") && said.contains("schema 1"), "{said}");
    assert_eq!(history.count_runs(&RunFilter::default()).await, Ok(0));
}
