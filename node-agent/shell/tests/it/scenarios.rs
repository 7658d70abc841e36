//! What an agent does, told as stories.

use crate::agents::{TestNode, alloc, def, names, order, order_of, with_checkout};
use crate::fake_sandboxes::FakeSandboxes;
use isolation::{End, LaunchError};
use model::{ObservedState, Outcome, StartFailure, StepDef};
use node_agent_shell::{AgentError, run_with};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn exited(code: i32) -> End {
    End::Exited { code }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_runs_is_reported_and_leaves_nothing() {
    let mut node = TestNode::start(FakeSandboxes::new()).await;
    let id = alloc(0, 1);
    node.server.order(&order_of(0, 1, &with_checkout(def())));
    node.sandboxes.wait(id.as_str());
    node.server.reported(&id, ObservedState::Preparing).await;
    node.sandboxes.start(id.as_str());
    let running = node.server.reported(&id, ObservedState::Running).await;
    assert_eq!(running.started_ms, Some(1_000));
    node.sandboxes.print(id.as_str(), b"hello\n");
    node.server.log_holds(&id, "hello\n").await;
    node.sandboxes.print(id.as_str(), b"last\n");
    node.sandboxes.end(id.as_str(), exited(3));
    let ended = node.server.reported(&id, ObservedState::Ended).await;
    assert_eq!(ended.outcome, Some(Outcome::Exited { code: 3 }));
    assert_eq!((ended.log_bytes, ended.ended_ms), (Some(11), Some(2_000)));
    assert_eq!(
        (
            ended.usage.memory_peak_bytes,
            ended.usage.cpu_ms,
            ended.usage.throttled_ms
        ),
        (7, 8, 9)
    );
    let phases: Vec<(&str, u64)> = ended.phases.iter().map(|p| (p.name.as_str(), p.bytes)).collect();
    assert_eq!(phases, [("image", 11), ("checkout", 22), ("launch", 0)]);
    assert_eq!(node.server.whole_log(&id).await, b"hello\nlast\n");
    node.server.forget(&id);
    node.nothing_left().await;
    assert_eq!(node.material.held(), 0, "its layers are free");
    node.end_agent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_is_what_the_step_asked_for() {
    let node = TestNode::start(FakeSandboxes::quick("", 0)).await;
    let mut def = with_checkout(def());
    def.env.insert("MINE".to_owned(), "1".to_owned());
    def.working_directory = "sub".to_owned();
    node.server.order(&order_of(0, 1, &def));
    node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    let spec = node.sandboxes.launches.lock().unwrap()[0].clone();
    assert_eq!(spec.argv, ["sh", "-e", "/.buildflow/main"]);
    assert_eq!(spec.cwd, "/workspace/sub");
    assert_eq!(
        spec.rootfs.lowers[0].to_str(),
        Some("/tree"),
        "the checkout lies above the image"
    );
    assert_eq!(spec.rootfs.lowers[1..], node.material.lowers[..]);
    assert_eq!((spec.limits.cpu_millis, spec.limits.pids), (500, 64));
    assert_eq!(spec.timeout, Duration::from_secs(60));
    for pair in [
        ("MINE", "1"),
        ("VARIABLE", "v"),
        ("FROM_IMAGE", "1"),
        ("BUILDFLOW_ATTEMPT", "1"),
    ] {
        let (name, value) = (pair.0.to_owned(), pair.1.to_owned());
        assert!(spec.env.contains(&(name, value)), "{pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_checkout_the_workspace_is_empty_and_belongs_to_the_user() {
    use std::os::unix::fs::MetadataExt;
    let node = TestNode::start(FakeSandboxes::new()).await;
    let def = StepDef {
        user: Some("1234:2345".to_owned()),
        ..def()
    };
    node.server.order(&order_of(0, 1, &def));
    node.sandboxes.wait(alloc(0, 1).as_str());
    let upper = node.data().join("alloc").join(alloc(0, 1).as_str()).join("upper");
    let workspace = std::fs::metadata(upper.join("workspace")).unwrap();
    assert_eq!(
        (workspace.mode() & 0o777, workspace.uid(), workspace.gid()),
        (0o755, 1234, 2345)
    );
    let scripts = std::fs::metadata(upper.join(".buildflow")).unwrap();
    assert_eq!((scripts.mode() & 0o777, scripts.uid()), (0o755, 0));
    assert_eq!(names(&upper.join("workspace")).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_belongs_to_the_image_s_user() {
    let mut node = TestNode::stopped(FakeSandboxes::quick("", 0)).await;
    let etc = node.folder.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(etc.join("passwd"), "build:x:77:88::/:/bin/sh\n").unwrap();
    let mut material = crate::fake_material::FakeMaterial::new(node.folder.path());
    std::sync::Arc::get_mut(&mut material).unwrap().user = "build".to_owned();
    node.material = material;
    node.start_agent();
    node.server.order(&order_of(0, 1, &with_checkout(def())));
    node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    let trees = node.material.trees.lock().unwrap();
    assert_eq!(trees.last().unwrap().1, (77, 88));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_prepared_is_a_line_in_the_log_and_a_cause() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    let cases = [
        ("absent", StartFailure::Image, "check its name"),
        ("full", StartFailure::Disk, "free some space"),
    ];
    for (step, (image, expected, part)) in cases.into_iter().enumerate() {
        let image = image.to_owned();
        node.server.order(&order_of(step, 1, &StepDef { image, ..def() }));
        let ended = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        let Some(Outcome::StartFailed {
            cause,
            message,
            lasting,
        }) = ended.outcome
        else {
            panic!("{:?}", ended.outcome);
        };
        assert_eq!((cause, lasting), (expected, expected == StartFailure::Image));
        let log = String::from_utf8(node.server.whole_log(&alloc(step, 1)).await).unwrap();
        assert_eq!(log, format!("buildflow: the step could not start: {message}\n"));
        assert!(message.contains(part), "{message}");
        assert_eq!(ended.log_bytes, Some(log.len() as u64));
        node.server.forget(&alloc(step, 1));
    }
    node.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_that_fails_and_an_order_that_cannot_be_read_end_with_the_reason() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    *node.sandboxes.refuse.lock().unwrap() = Some(LaunchError::Io {
        what: "write bundle".to_owned(),
        source: std::io::ErrorKind::StorageFull.into(),
    });
    node.server.order(&order(0));
    let mut unreadable = order(1);
    unreadable.step_def_json = "{}".to_owned();
    node.server.order(&unreadable);
    for (step, expected) in [(0, StartFailure::Disk), (1, StartFailure::Spec)] {
        let ended = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        match ended.outcome {
            Some(Outcome::StartFailed { cause, .. }) => assert_eq!(cause, expected),
            other => panic!("{other:?}"),
        }
        node.server.whole_log(&alloc(step, 1)).await;
        node.server.forget(&alloc(step, 1));
    }
    node.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_cancelled_while_it_is_prepared_and_while_it_runs() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    let slow = StepDef {
        image: "slow".to_owned(),
        ..def()
    };
    node.server.order(&order_of(0, 1, &slow));
    node.material.asked.notified().await;
    node.server.cancel(&alloc(0, 1));
    node.server.order(&order(1));
    node.sandboxes.wait(alloc(1, 1).as_str());
    node.sandboxes.start(alloc(1, 1).as_str());
    node.server.reported(&alloc(1, 1), ObservedState::Running).await;
    node.server.cancel(&alloc(1, 1));
    for step in 0..2 {
        let ended = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        assert_eq!(ended.outcome, Some(Outcome::Cancelled));
        node.server.whole_log(&alloc(step, 1)).await;
        node.server.forget(&alloc(step, 1));
    }
    assert_eq!(node.sandboxes.launches.lock().unwrap().len(), 1);
    node.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_s_steps_go_on_and_are_taken_up_again() {
    const STEPS: usize = 20;
    let mut node = TestNode::start(FakeSandboxes::new()).await;
    for step in 0..STEPS {
        node.server.order(&order(step));
    }
    for step in 0..STEPS {
        let id = alloc(step, 1);
        node.sandboxes.wait(id.as_str());
        node.sandboxes.start(id.as_str());
        node.sandboxes.print(id.as_str(), b"before\n");
        node.server.log_holds(&id, "before\n").await;
        node.server.reported(&id, ObservedState::Running).await;
    }
    node.kill_agent().await;
    // Nobody watches: some end meanwhile, all print.
    for step in 0..STEPS {
        let id = alloc(step, 1);
        node.sandboxes.print(id.as_str(), b"alone\n");
        if step % 2 == 0 {
            node.sandboxes.end(id.as_str(), exited(step as i32));
        }
    }
    node.start_agent();
    node.server.connected(2).await;
    let hellos = node.server.books().hellos.clone();
    assert_eq!(hellos[1].alloc_ids.len(), STEPS);
    assert_eq!(hellos[0].node_id, hellos[1].node_id);
    assert_eq!(
        node.material.adopted.lock().unwrap().len(),
        STEPS,
        "their layers are held"
    );
    for step in (0..STEPS).filter(|step| step % 2 == 1) {
        let id = alloc(step, 1);
        node.server.log_holds(&id, "alone\n").await;
        node.sandboxes.print(id.as_str(), b"after\n");
        node.sandboxes.end(id.as_str(), exited(step as i32));
    }
    for step in 0..STEPS {
        let id = alloc(step, 1);
        let ended = node.server.reported(&id, ObservedState::Ended).await;
        assert_eq!(ended.outcome, Some(Outcome::Exited { code: step as i32 }));
        let log = String::from_utf8(node.server.whole_log(&id).await).unwrap();
        let expected = if step % 2 == 0 {
            "before\nalone\n"
        } else {
            "before\nalone\nafter\n"
        };
        assert_eq!(log, expected);
        node.server.forget(&id);
    }
    assert_eq!(
        node.sandboxes.launches.lock().unwrap().len(),
        STEPS,
        "none was launched twice"
    );
    node.nothing_left().await;
    assert_eq!(node.material.held(), 0);
    node.end_agent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_prepares_begins_again_once_the_order_is_confirmed() {
    let mut node = TestNode::start(FakeSandboxes::quick("x", 0)).await;
    let slow = StepDef {
        image: "slow".to_owned(),
        ..def()
    };
    for step in 0..2 {
        node.server.order(&order_of(step, 1, &slow));
        node.server.reported(&alloc(step, 1), ObservedState::Preparing).await;
    }
    node.kill_agent().await;
    assert_eq!(names(&node.data().join("journal")).len(), 2);
    node.server.books().standing.remove(alloc(1, 1).as_str());
    node.start_agent();
    node.server.connected(2).await;
    node.material.arrive.send_replace(true);
    let ended = node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    assert_eq!(ended.outcome, Some(Outcome::Exited { code: 0 }));
    let launched: Vec<String> = node
        .sandboxes
        .launches
        .lock()
        .unwrap()
        .iter()
        .map(|s| s.id.clone())
        .collect();
    assert_eq!(
        launched,
        [alloc(0, 1).to_string()],
        "the one that stands no more was not begun"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_and_after_the_loss_of_a_shim_a_step_is_lost() {
    let mut node = TestNode::start(FakeSandboxes::new()).await;
    for step in 0..3 {
        let id = alloc(step, 1);
        node.server.order(&order(step));
        node.sandboxes.wait(id.as_str());
        node.sandboxes.start(id.as_str());
        node.sandboxes.print(id.as_str(), b"unfinished");
        node.server.reported(&id, ObservedState::Running).await;
    }
    node.sandboxes.lose(alloc(0, 1).as_str());
    let lost = node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    assert!(matches!(lost.outcome, Some(Outcome::Lost { .. })), "{:?}", lost.outcome);
    node.kill_agent().await;
    node.sandboxes.reboot();
    // Of the third, only a damaged entry is left.
    let entry = node.data().join("journal").join(format!("{}.json", alloc(2, 1)));
    std::fs::write(&entry, &std::fs::read(&entry).unwrap()[..50]).unwrap();
    node.start_agent();
    for (step, why) in [(1, "nothing of its container is left"), (2, "is damaged")] {
        let lost = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        match lost.outcome {
            Some(Outcome::Lost { message }) => assert!(message.contains(why), "{message}"),
            other => panic!("{other:?}"),
        }
        let log = String::from_utf8(node.server.whole_log(&alloc(step, 1)).await).unwrap();
        assert!(log.starts_with("unfinished\nbuildflow: the step was lost: "), "{log}");
    }
    for step in 0..3 {
        node.server.forget(&alloc(step, 1));
    }
    node.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_costs_nothing() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    let id = alloc(0, 1);
    node.server.order(&order(0));
    node.sandboxes.wait(id.as_str());
    node.sandboxes.start(id.as_str());
    let mut expected = Vec::new();
    for round in 0..5 {
        let piece = format!("{round}").repeat(100_000).into_bytes();
        node.sandboxes.print(id.as_str(), &piece);
        expected.extend(piece);
        node.server.cut();
        node.server.connected(round + 2).await;
    }
    node.server.books().deaf = true;
    node.sandboxes.end(id.as_str(), exited(0));
    assert_eq!(node.server.whole_log(&id).await, expected);
    // The end was told to a server that lost it.
    node.server.books().deaf = false;
    node.server.cut();
    node.server.connected(7).await;
    node.server.reported(&id, ObservedState::Ended).await;
    // The agent counts a stream when it is welcomed, a moment after the server heard its Hello.
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    while reconnects(&node) < 6 {
        assert!(
            tokio::time::Instant::now() < until,
            "six streams were cut, {} were opened again",
            reconnects(&node)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn reconnects(node: &TestNode) -> u64 {
    let text = node.metrics.metrics_text();
    let counted = text
        .lines()
        .find_map(|l| l.strip_prefix("buildflow_agent_reconnects_total "));
    counted.expect("it is counted").parse().expect("a whole number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_left_for_a_new_stream() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    node.server.connected(1).await;
    node.server.books().mute = true;
    node.server.connected(2).await;
    node.server.books().mute = false;
    node.server.order(&order(0));
    node.sandboxes.wait(alloc(0, 1).as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loud_step_does_not_fill_the_agent() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 24;
    let node = TestNode::start(FakeSandboxes::new()).await;
    let id = alloc(0, 1);
    node.server.books().hoards = true;
    node.server.order(&order(0));
    node.sandboxes.wait(id.as_str());
    node.sandboxes.start(id.as_str());
    for piece in 0..PIECES {
        node.sandboxes.print(id.as_str(), &vec![b'a' + piece as u8; PIECE]);
    }
    node.sandboxes.end(id.as_str(), exited(0));
    node.server.reported(&id, ObservedState::Ended).await;
    let window = node_agent::WINDOW_MAX;
    let full = move |books: &crate::fake_server::Books| (books.unstored_max == window).then_some(());
    node.server.until("a full window", full).await;
    // A server that stores after all, on a new stream, gets the rest.
    node.server.books().hoards = false;
    node.server.cut();
    let log = node.server.whole_log(&id).await;
    assert_eq!(log.len(), PIECE * PIECES);
    for (piece, bytes) in log.chunks(PIECE).enumerate() {
        assert!(bytes.iter().all(|byte| *byte == b'a' + piece as u8));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_with_the_server_a_moment_after_it_is_printed() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    let id = alloc(0, 1);
    node.server.order(&order(0));
    node.sandboxes.wait(id.as_str());
    node.sandboxes.start(id.as_str());
    node.sandboxes.print(id.as_str(), b"first\n");
    node.server.log_holds(&id, "first\n").await;
    let mut delays = Vec::new();
    for line in 0..50 {
        let printed = Instant::now();
        node.sandboxes.print(id.as_str(), format!("line {line}\n").as_bytes());
        node.server.log_holds(&id, &format!("line {line}\n")).await;
        delays.push(printed.elapsed());
    }
    delays.sort();
    println!("log delay: median {:?}, worst {:?}", delays[25], delays[49]);
    // The file is looked at again after five seconds without a signal: this is far from it.
    assert!(delays[25] < Duration::from_secs(1), "no signal woke the shipper");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_stand_is_ended_and_forgotten() {
    let mut node = TestNode::start(FakeSandboxes::new()).await;
    for step in 0..3 {
        node.server.order(&order(step));
        node.sandboxes.wait(alloc(step, 1).as_str());
        node.sandboxes.start(alloc(step, 1).as_str());
        node.server.reported(&alloc(step, 1), ObservedState::Running).await;
    }
    // Told at once; found missing after a new stream; found missing after a restart.
    node.server.forget(&alloc(0, 1));
    node.server.books().standing.remove(alloc(1, 1).as_str());
    node.server.cut();
    node.server.connected(2).await;
    node.kill_agent().await;
    node.server.books().standing.remove(alloc(2, 1).as_str());
    node.start_agent();
    node.nothing_left().await;
    let books = node.server.books();
    assert!(
        books
            .reports
            .values()
            .flatten()
            .all(|o| o.state != ObservedState::Ended)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_step_that_still_stands_is_not_run_again() {
    let mut node = TestNode::start(FakeSandboxes::quick("x\n", 0)).await;
    node.server.order(&order(0));
    node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    node.server.whole_log(&alloc(0, 1)).await;
    node.server.order(&order(0));
    node.server.cut();
    node.server.connected(2).await;
    node.end_agent().await;
    node.start_agent();
    node.server.connected(3).await;
    node.server.order(&order(1));
    node.server.whole_log(&alloc(1, 1)).await;
    let launched = node.sandboxes.launches.lock().unwrap().len();
    assert_eq!(launched, 2, "step 0 once, step 1 once");
    for step in 0..2 {
        node.server.forget(&alloc(step, 1));
    }
    node.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_told_to_end_leaves_what_runs_to_the_next() {
    let mut node = TestNode::start(FakeSandboxes::new()).await;
    let id = alloc(0, 1);
    node.server.order(&order(0));
    node.sandboxes.wait(id.as_str());
    node.sandboxes.start(id.as_str());
    node.server.reported(&id, ObservedState::Running).await;
    node.end_agent().await;
    assert_eq!(node.sandboxes.ids(), [id.to_string()]);
    node.sandboxes.print(id.as_str(), b"alone\n");
    node.start_agent();
    node.server.log_holds(&id, "alone\n").await;
    node.sandboxes.end(id.as_str(), exited(0));
    node.server.whole_log(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_entry_names_is_removed_at_the_start() {
    let mut node = TestNode::start(FakeSandboxes::new()).await;
    node.server.order(&order(0));
    node.sandboxes.wait(alloc(0, 1).as_str());
    node.kill_agent().await;
    std::fs::remove_file(node.data().join("journal").join(format!("{}.json", alloc(0, 1)))).unwrap();
    std::fs::create_dir_all(node.data().join("trash/old/tree")).unwrap();
    node.server.books().standing.clear();
    node.start_agent();
    node.nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_folder_is_refused() {
    let node = TestNode::start(FakeSandboxes::new()).await;
    node.server.connected(1).await;
    let second = run_with(
        node.config(),
        node.sandboxes.clone(),
        node.material.clone(),
        CancellationToken::new(),
    );
    match second.await {
        Err(AgentError::InUse { path }) => assert_eq!(path, node.data()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_refused_with_what_to_write() {
    let node = TestNode::stopped(FakeSandboxes::new()).await;
    let cases: [(&[&str], &str); 3] = [
        (&[], "name at least one"),
        (&["https://host:1"], "needs certificates: set `tls`"),
        (&["http://bad host"], "use http://HOST:PORT"),
    ];
    for (servers, part) in cases {
        let mut config = node.config();
        config.servers = servers.iter().map(|s| (*s).to_owned()).collect();
        let refused = run_with(
            config,
            node.sandboxes.clone(),
            node.material.clone(),
            CancellationToken::new(),
        );
        let message = refused.await.unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_until_it_is_let_in() {
    let node = TestNode::stopped(FakeSandboxes::new()).await;
    let mut config = node.config();
    config.token = "wrong".to_owned();
    // The first address is dead: the agent turns to the next.
    config.servers.insert(0, "http://127.0.0.1:1".to_owned());
    let agent = tokio::spawn(run_with(
        config,
        node.sandboxes.clone(),
        node.material.clone(),
        CancellationToken::new(),
    ));
    node.server
        .until("two refusals", |books| (books.refused_tokens >= 2).then_some(()))
        .await;
    assert!(!agent.is_finished());
    agent.abort();
}
