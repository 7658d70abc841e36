//! Steps and orders for this crate's unit tests.

use model::{Entry, Event, Resources, Shell, Source, StepDef};
use node_agent::Work;
use std::collections::BTreeMap;

pub(crate) fn entries(run: &[&str]) -> Vec<Entry> {
    let entry = |run: &&str| Entry {
        name: None,
        run: (*run).to_owned(),
    };
    run.iter().map(entry).collect()
}

pub(crate) fn step_def() -> StepDef {
    StepDef {
        name: "unit_test".parse().unwrap(),
        title: None,
        stage: 0,
        needs: Vec::new(),
        image: "oci:base".to_owned(),
        before: Vec::new(),
        run: entries(&["true"]),
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: None,
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 90_000,
        allow_failure: false,
        resources: Resources {
            cpu_millis: 1_500,
            memory_bytes: 64 << 20,
            disk_bytes: 0,
        },
        pids: 64,
        shm_bytes: 1 << 20,
        labels: BTreeMap::new(),
        retry: model::Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    }
}

pub(crate) fn source(git_ref: &str) -> Source {
    Source {
        repository: "file:///r".to_owned(),
        git_ref: git_ref.to_owned(),
        commit: "c0ffee".to_owned(),
        message: String::new(),
        author: String::new(),
        event: Event::Push,
    }
}

pub(crate) fn work(def: StepDef, git_ref: &str, variables: &[(&str, &str)]) -> Work {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Work::Step {
        run: "01jd".parse().unwrap(),
        run_number: 12,
        team: "default".parse().unwrap(),
        pipeline: "app".parse().unwrap(),
        stage: "test".to_owned(),
        step: 3,
        attempt: 2,
        def: Box::new(def),
        source: Box::new(source(git_ref)),
        variables: variables.iter().map(owned).collect(),
        traceparent: None,
        request_id: "r1".to_owned(),
    }
}

/// An order for some work.
pub(crate) fn order_of(work: Work) -> node_agent::Order {
    node_agent::Order {
        alloc: model::AllocId::new("01jd-3-1-2").unwrap(),
        fence: model::Fence { epoch: 1, counter: 2 },
        stop: None,
        work: Box::new(work),
    }
}
