//! Launches a sandbox and follows it to its end, woken by its watch.
//!
//! Not here: what is launched, and what follows from its end.

use crate::blocking::blocking;
use crate::outcome::{ended, not_launched};
use crate::readable::Readable;
use crate::sandboxes::{Sandboxes, Watched};
use isolation::{ExitRecord, LaunchError, LauncherError, SandboxSpec, SandboxState};
use model::{Phase, StepDef};
use node_agent::{Event, Found};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a sandbox is believed without being asked, in case a signal was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long a question that failed rests.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// One sandbox to follow.
pub(crate) struct Follow {
    pub(crate) sandboxes: Arc<dyn Sandboxes>,
    pub(crate) id: String,
    pub(crate) exit_path: PathBuf,
    /// What the step wrote.
    pub(crate) upper: PathBuf,
    pub(crate) def: Box<StepDef>,
    /// When its launch began, if this process launched it.
    pub(crate) began_ms: Option<u64>,
}

/// Launches; the outcome if nothing was started.
pub(crate) async fn launch(sandboxes: Arc<dyn Sandboxes>, spec: Box<SandboxSpec>) -> Result<(), Event> {
    let id = spec.id.clone();
    let launched: Result<(), LaunchError> = blocking(move || sandboxes.launch(&spec)).await;
    launched.map_err(|e| {
        tracing::warn!(alloc_id = id, error = %e, "launch failed");
        Event::LaunchFailed {
            outcome: not_launched(&e),
        }
    })
}

/// Tells of the first instruction and of the end; returns after the end.
pub(crate) async fn follow(follow: Follow, events: mpsc::Sender<Event>) {
    let mut told_start = false;
    let watch = watch(&follow).await;
    loop {
        let event = match state(&follow).await {
            Ok(SandboxState::Starting) => None,
            Ok(SandboxState::Running { started_ms }) if !told_start => {
                told_start = true;
                let phase = follow.began_ms.map(|began| Phase {
                    name: "launch".to_owned(),
                    ms: started_ms.saturating_sub(began),
                    bytes: 0,
                });
                Some(Event::Launched { started_ms, phase })
            }
            Ok(SandboxState::Running { .. }) => None,
            Ok(SandboxState::Ended(record)) => Some(end_of(&follow, record).await),
            Ok(SandboxState::Gone) => Some(gone(&follow).await),
            Err(e) => {
                tracing::error!(alloc_id = follow.id, error = %e, "state of the sandbox cannot be read");
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
        };
        let over = matches!(event, Some(Event::Ended { .. } | Event::Vanished { .. }));
        let told = event.is_some();
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
        if over {
            return;
        }
        if !told {
            wait(watch.as_ref()).await;
        }
    }
}

async fn watch(follow: &Follow) -> Option<Readable<Watched>> {
    let (sandboxes, id) = (follow.sandboxes.clone(), follow.id.clone());
    match blocking(move || sandboxes.watch(&id)).await {
        Ok(watch) => Readable::new(Watched(watch)).ok(),
        Err(LauncherError::Unknown { .. }) => None,
        Err(e) => {
            tracing::warn!(alloc_id = follow.id, error = %e, "sandbox cannot be watched, it is asked instead");
            None
        }
    }
}

/// Until something happened, or it is time to look again anyway.
async fn wait(watch: Option<&Readable<Watched>>) {
    let Some(watch) = watch else {
        tokio::time::sleep(ASK_AGAIN).await;
        return;
    };
    if let Ok(Ok(mut ready)) = tokio::time::timeout(LOOK_AGAIN, watch.readable()).await {
        watch.get().0.acknowledge();
        ready.clear_ready();
    }
}

async fn state(follow: &Follow) -> Result<SandboxState, LauncherError> {
    let (sandboxes, id) = (follow.sandboxes.clone(), follow.id.clone());
    blocking(move || sandboxes.state(&id)).await
}

async fn end_of(follow: &Follow, record: ExitRecord) -> Event {
    let (def, upper) = (follow.def.clone(), follow.upper.clone());
    blocking(move || ended(&record, &def, &upper)).await
}

/// The launcher knows nothing (any more): the exit record may be there all the same.
async fn gone(follow: &Follow) -> Event {
    let path = follow.exit_path.clone();
    match blocking(move || ExitRecord::read(&path)).await {
        Ok(Some(record)) => end_of(follow, record).await,
        Ok(None) => Event::Vanished {
            message: "nothing of its container is left on the node".to_owned(),
        },
        Err(e) => Event::Vanished { message: e.to_string() },
    }
}

/// What an earlier process left of a sandbox. Blocking.
///
/// # Errors
/// When neither its state can be read nor what is left of it removed.
pub(crate) fn find(sandboxes: &dyn Sandboxes, id: &str, exit_path: &Path) -> Result<Found, LauncherError> {
    let message = match sandboxes.state(id) {
        Ok(SandboxState::Starting | SandboxState::Running { .. }) => return Ok(Found::Alive),
        Ok(SandboxState::Ended(_)) => return Ok(Found::Gone),
        Ok(SandboxState::Gone) => match ExitRecord::read(exit_path) {
            Ok(Some(_)) => return Ok(Found::Gone),
            Ok(None) => return Ok(Found::Nothing),
            Err(e) => e.to_string(),
        },
        Err(e) => e.to_string(),
    };
    sandboxes.remove(id)?;
    Ok(Found::Broken { message })
}
