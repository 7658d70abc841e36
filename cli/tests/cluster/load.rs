//! Two hundred runs on their way through the cluster, each submitted until some server has taken it.
//!
//! Not here: what breaks meanwhile.

use crate::fabric::Fabric;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that submits.
pub(crate) struct Load {
    runs: Arc<Mutex<Vec<String>>>,
    refused: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Submits `count` runs of `default/<pipeline>`, one each `pause`.
    pub(crate) fn start(fabric: &Fabric, pipeline: &str, count: usize, pause: Duration) -> Self {
        let runs = Arc::<Mutex<Vec<String>>>::default();
        let refused = Arc::<AtomicUsize>::default();
        let (into, counted) = (Arc::clone(&runs), Arc::clone(&refused));
        let (http, token, servers) = (fabric.http.clone(), fabric.token.clone(), fabric.servers.clone());
        let path = format!("/api/v1/pipelines/default/{pipeline}/runs");
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            for number in 0..count {
                let mut tries = number;
                let run = loop {
                    let server = &servers[tries % servers.len()];
                    let request = http
                        .post(format!("{server}{path}"))
                        .bearer_auth(&token)
                        .header("Idempotency-Key", format!("load-{number}"))
                        .json(&json!({ "branch": "main", "force": true }));
                    let answer: Option<Value> = runtime
                        .block_on(async { request.send().await.ok()?.error_for_status().ok()?.json().await.ok() });
                    if let Some(run) = answer.as_ref().and_then(|a| a["run_id"].as_str()) {
                        break run.to_owned();
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                    tries += 1;
                    std::thread::sleep(Duration::from_millis(100));
                };
                into.lock().expect("no panic inside").push(run);
                std::thread::sleep(pause);
            }
        });
        Self { runs, refused, thread }
    }

    /// How many runs have been taken.
    pub(crate) fn taken(&self) -> usize {
        self.runs.lock().expect("no panic inside").len()
    }

    /// Waits until all are submitted; answers their ids and how many tries failed.
    pub(crate) fn join(self) -> (Vec<String>, usize) {
        self.thread.join().expect("the load does not panic");
        let runs = self.runs.lock().expect("no panic inside").clone();
        (runs, self.refused.load(Ordering::Relaxed))
    }
}
