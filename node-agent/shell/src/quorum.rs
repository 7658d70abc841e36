//! The question to every server whether the store has lost its quorum.
//!
//! Not here: when it is asked and what follows (`node_agent::Lease`).

use crate::servers::Servers;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Status;
use wire::v1::QuorumRequest;

/// How long one server may take to answer, its connection included: it answers from memory.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// One server's answer.
pub(crate) struct Answer {
    pub(crate) round: u64,
    pub(crate) server: usize,
    pub(crate) lost: bool,
}

/// Asks all of them at the same time, each over a connection of its own, and tells each answer as it
/// comes. Who does not answer in time has not answered.
pub(crate) async fn ask_all(servers: Servers, round: u64, tell: mpsc::Sender<Answer>) {
    let mut questions = JoinSet::new();
    for server in 0..servers.len() {
        let servers = servers.clone();
        questions.spawn(async move {
            let asked = timeout(ANSWER_MAX, ask(&servers, server)).await;
            let answer = asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            match &answer {
                Ok(lost) => tracing::info!(server = servers.name(server), round, lost, "asked for the quorum"),
                Err(e) => {
                    let error = e.message();
                    tracing::info!(
                        server = servers.name(server),
                        round,
                        error,
                        "no answer about the quorum"
                    );
                }
            }
            answer.ok().map(|lost| Answer { round, server, lost })
        });
    }
    while let Some(asked) = questions.join_next().await {
        if let Ok(Some(answer)) = asked
            && tell.send(answer).await.is_err()
        {
            return;
        }
    }
}

async fn ask(servers: &Servers, server: usize) -> Result<bool, Status> {
    let mut client = servers.connect(server).await?;
    let reply = client.quorum(servers.authorized(QuorumRequest {})).await?;
    Ok(reply.into_inner().lost)
}
