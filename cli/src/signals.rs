//! A clean stop: the first SIGTERM or SIGINT asks, the second one does not wait.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by SIGTERM or SIGINT; a second signal ends the process at once.
pub(crate) fn shutdown_on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let asked = token.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked.is_cancelled() {
                tracing::warn!("second signal, ending at once");
                std::process::exit(130);
            }
            tracing::info!("stopping; running steps go on and are found again at the next start");
            asked.cancel();
        }
    });
    Ok(token)
}
