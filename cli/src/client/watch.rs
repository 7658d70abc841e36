//! A run that is watched on a terminal: its tree, drawn anew in place whenever something changes, then
//! what became of it, with the end of the log of each step that failed.
//!
//! Not here: what the tree looks like (`tree`), the plain lines for pipes (`logs`).

use super::failure::{Exit, Failure};
use super::follow::Follow;
use super::http::Api;
use super::logs::{LogEvent, ended, log_path, look, steps_known};
use super::output::{Output, Talk};
use super::runs;
use super::table::{Colour, now_ms};
use super::tree::{self, Newest};
use api::dto::{RunDetail, StepStatus};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Notify;

/// How often it is drawn at most, and how often times go on.
const FRAME: Duration = Duration::from_millis(120);

/// How often the run is looked up while its log says something, at least.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Lines of the end of a failed step's log that are shown.
const TAIL_LINES: usize = 20;

/// The bytes in which they are looked for.
const TAIL_BYTES: u64 = 16 * 1_024;

/// Failed steps whose log is shown.
const TAILS_MAX: usize = 3;

/// The bytes of a line of which the newest part is shown.
const LINE_MAX: usize = 4_096;

/// A terminal of unknown size.
const SIZE: (u16, u16) = (80, 24);

/// What is drawn.
#[derive(Debug)]
struct Scene {
    run: RunDetail,
    newest: Newest,
    /// The line that has begun, of the step whose bytes come.
    begun: String,
}

/// Whether a run is watched rather than listed: both outputs are the same terminal, as far as one can tell.
pub(super) fn is_possible(output: &Output) -> bool {
    !output.is_json() && output.on_terminal()
}

/// Watches the run to its end. The exit code is the run's.
pub(super) async fn watch(api: &Api, id: &str, output: &mut Output) -> Result<Exit, Failure> {
    let run = steps_known(api, id).await?;
    let scene = Mutex::new(Scene {
        run,
        newest: Newest::new(),
        begun: String::new(),
    });
    let changed = Notify::new();
    let mut drawn = 0;
    let following = follow(api, id, &scene, &changed);
    tokio::pin!(following);
    loop {
        drawn = draw(&scene, drawn, output)?;
        tokio::select! {
            done = &mut following => {
                done?;
                break;
            }
            () = tokio::time::sleep(FRAME) => {}
        }
    }
    let run = ended(api, id).await?;
    locked(&scene).run = run.body.clone();
    draw(&scene, drawn, output)?;
    tails(api, id, &run.body, output).await?;
    output.text(&format!("{}\n", runs::summary(&run.body)))?;
    Ok(Exit::of_run(run.body.summary.status))
}

fn locked(scene: &Mutex<Scene>) -> std::sync::MutexGuard<'_, Scene> {
    scene.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Follows the changes until the run's end, and the logs beside them.
async fn follow(api: &Api, id: &str, scene: &Mutex<Scene>, changed: &Notify) -> Result<(), Failure> {
    tokio::select! {
        done = changes(api, id, scene, changed) => done,
        failed = newest_lines(api, id, scene) => {
            // Without the logs there is still the tree.
            drop(failed);
            changes(api, id, scene, changed).await
        }
    }
}

/// Looks the run up whenever it has changed, until its end.
async fn changes(api: &Api, id: &str, scene: &Mutex<Scene>, changed: &Notify) -> Result<(), Failure> {
    let told = async {
        let mut events = Follow::new(api, &["runs", id, "events"], Vec::new(), Talk::Silent);
        loop {
            let event = events.next().await?;
            changed.notify_one();
            if event.event == "end" {
                return Ok::<(), Failure>(());
            }
        }
    };
    let looks = async {
        loop {
            // Either way it is looked up.
            let _ = tokio::time::timeout(LOOK_EVERY, changed.notified()).await;
            let run = look(api, id).await?.body;
            let done = run.summary.status.is_terminal();
            locked(scene).run = run;
            if done {
                return Ok::<(), Failure>(());
            }
            tokio::time::sleep(FRAME).await;
        }
    };
    tokio::pin!(told, looks);
    tokio::select! {
        done = &mut looks => done,
        // A broken stream of changes is no reason to stop: the run is looked up in any case.
        _ = &mut told => looks.await,
    }
}

/// Keeps the newest line of each step.
async fn newest_lines(api: &Api, id: &str, scene: &Mutex<Scene>) -> Result<(), Failure> {
    let query = vec![("follow", "true".to_owned())];
    let mut events = Follow::new(api, &log_path(id, None), query, Talk::Silent);
    let mut step = String::new();
    loop {
        match LogEvent::read(&events.next().await?)? {
            LogEvent::Begins(begins) => {
                step = begins.step;
                locked(scene).begun.clear();
            }
            LogEvent::Bytes(bytes) => locked(scene).heard(&step, &String::from_utf8_lossy(&bytes)),
            LogEvent::Ends(_) | LogEvent::Other => {}
            // The changes say when it is over.
            LogEvent::Done => std::future::pending().await,
        }
    }
}

impl Scene {
    fn heard(&mut self, step: &str, text: &str) {
        for piece in text.split_inclusive('\n') {
            self.begun.push_str(piece);
            let line = tree::calm(&self.begun);
            if !line.is_empty() {
                self.newest.insert(step.to_owned(), line);
            }
            if piece.ends_with('\n') || self.begun.len() > LINE_MAX {
                self.begun.clear();
            }
        }
    }
}

/// Draws over what was drawn; answers how many lines that is now.
fn draw(scene: &Mutex<Scene>, before: usize, output: &mut Output) -> Result<usize, Failure> {
    let (_, rows) = terminal_size::terminal_size().map_or(SIZE, |(w, h)| (w.0, h.0));
    let lines = {
        let scene = locked(scene);
        let most = usize::from(rows).saturating_sub(2);
        tree::lines(output.paint, &scene.run, &scene.newest, now_ms(), most)
    };
    output.text(&frame(&lines, before))?;
    Ok(lines.len())
}

/// The bytes that replace so many lines above the cursor by these.
fn frame(lines: &[String], before: usize) -> String {
    // Without wrapping a line is a line, however wide it is.
    let mut text = String::from("\x1b[?7l");
    if before > 0 {
        let _ = write!(text, "\x1b[{before}A\r");
    }
    for line in lines {
        let _ = writeln!(text, "{line}\x1b[K");
    }
    text.push_str("\x1b[J\x1b[?7h");
    text
}

/// The end of the log of steps that failed.
async fn tails(api: &Api, id: &str, run: &RunDetail, output: &mut Output) -> Result<(), Failure> {
    let steps = run.stages.iter().flat_map(|s| &s.steps);
    let failed = steps.filter(|s| matches!(s.status, StepStatus::Failed | StepStatus::TimedOut));
    for step in failed.take(TAILS_MAX) {
        let from = step.log_bytes.unwrap_or(0).saturating_sub(TAIL_BYTES);
        let query = [("offset", from.to_string())];
        let path = log_path(id, Some(&step.name));
        // The summary says how it failed; the log is more of it.
        let Ok(response) = api.stream(&path, &query, &[("accept", "text/plain")]).await else {
            continue;
        };
        let Ok(text) = response.text().await else { continue };
        let lines: Vec<&str> = text.lines().collect();
        if lines.is_empty() {
            continue;
        }
        let head = format!("-- the end of the log of {}", step.name);
        output.line(&output.paint.text(Colour::Bold, &head))?;
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            output.line(line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before() {
        let lines = vec!["one".to_owned(), "two".to_owned()];
        assert_eq!(frame(&lines, 0), "\x1b[?7lone\x1b[K\ntwo\x1b[K\n\x1b[J\x1b[?7h");
        assert_eq!(frame(&lines[..1], 2), "\x1b[?7l\x1b[2A\rone\x1b[K\n\x1b[J\x1b[?7h");
    }
}
