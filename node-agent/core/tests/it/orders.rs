//! Orders for tests.

use model::{AllocId, Checkout, Entry, Event, Fence, RunId, Shell, Source, StepDef, Stop};
use node_agent::{Order, Work};
use std::collections::BTreeMap;

pub(crate) fn fence(counter: u32) -> Fence {
    Fence { epoch: 1, counter }
}

pub(crate) fn alloc(step: usize, counter: u32) -> AllocId {
    AllocId::for_step(&run(), step, fence(counter))
}

fn run() -> RunId {
    RunId::new("01jdzzzzzzzzzzzzzzzzzzzzzz").unwrap()
}

/// The attempt `counter` of step `step`.
pub(crate) fn order(step: usize, counter: u32) -> Order {
    Order {
        alloc: alloc(step, counter),
        fence: fence(counter),
        stop: None,
        work: Box::new(Work::Step {
            run: run(),
            run_number: 1,
            team: "default".parse().unwrap(),
            pipeline: "app".parse().unwrap(),
            stage: "build".to_owned(),
            step,
            attempt: counter,
            def: Box::new(def()),
            source: Box::new(source()),
            variables: BTreeMap::new(),
            traceparent: None,
            request_id: String::new(),
        }),
    }
}

pub(crate) fn stopped(order: Order) -> Order {
    Order {
        stop: Some(Stop::Cancelled),
        ..order
    }
}

pub(crate) fn unreadable(order: Order) -> Order {
    let message = "newer".to_owned();
    Order {
        work: Box::new(Work::Unreadable { message }),
        ..order
    }
}

fn source() -> Source {
    Source {
        repository: "file:///r".to_owned(),
        git_ref: "refs/heads/main".to_owned(),
        commit: "0".repeat(40),
        message: String::new(),
        author: String::new(),
        event: Event::Push,
    }
}

fn def() -> StepDef {
    StepDef {
        name: "compile".parse().unwrap(),
        title: None,
        stage: 0,
        needs: Vec::new(),
        image: "oci:base".to_owned(),
        before: Vec::new(),
        run: vec![Entry {
            name: None,
            run: "make".to_owned(),
        }],
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: Some(Checkout::default()),
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 1_000,
        allow_failure: false,
        resources: model::Resources::default(),
        pids: 64,
        shm_bytes: 1 << 20,
        labels: BTreeMap::new(),
        retry: model::Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    }
}
