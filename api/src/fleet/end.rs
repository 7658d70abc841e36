//! Why a session ended, and what the agent is told.
//!
//! Not here: ending it.

use super::hello::HelloError;
use super::report::ReportError;
use model::NodeId;
use store::StoreError;
use tonic::Status;

/// The end of a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the agent closed the stream")]
    Left,
    #[error("the stream broke: {}", .0.message())]
    Broken(Status),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("no Hello came in time")]
    NoHello,
    #[error(
        "Hello names the node {said}, the certificate is for {own}; give each node a certificate and a data folder of its own"
    )]
    OtherNode { own: NodeId, said: NodeId },
    #[error("the node {0} was removed from this cluster; join again with a new token")]
    Removed(NodeId),
    #[error("the certificate of this connection has ended; connect again with the renewed one")]
    CertificateEnded,
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("{0}")]
    Message(String),
    #[error("a newer stream of this node took over")]
    Replaced,
    #[error("the node was not heard of for the time of its lease")]
    Silent,
    #[error("the node's lease has expired; register again")]
    LeaseLost,
    #[error("the agent does not take messages fast enough")]
    Stuck,
    #[error("the server is stopping; register with another one, or again")]
    Stopping,
    #[error("this server has as many nodes as it can bear")]
    Crowded,
    #[error("the registration was changed by others again and again")]
    Contended,
    #[error("the store does not answer: {0}")]
    Store(#[from] StoreError),
}

impl End {
    /// One word for the metrics and the log.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Broken(_) => "broken",
            Self::Hello(_) | Self::Report(_) | Self::Message(_) => "bad_message",
            Self::NoHello => "no_hello",
            Self::OtherNode { .. } => "other_node",
            Self::Removed(_) => "removed",
            Self::CertificateEnded => "certificate_ended",
            Self::Replaced => "replaced",
            Self::Silent => "silent",
            Self::LeaseLost => "lease_lost",
            Self::Stuck => "stuck",
            Self::Stopping => "stopping",
            Self::Crowded => "crowded",
            Self::Contended => "contended",
            Self::Store(_) => "store",
        }
    }

    /// What the agent is told; `None` when nobody listens any more. The store's own words stay here.
    pub(super) fn status(&self) -> Option<Status> {
        let text = self.to_string();
        Some(match self {
            Self::Left | Self::Broken(_) => return None,
            Self::Hello(_) | Self::Report(_) | Self::Message(_) => Status::invalid_argument(text),
            Self::OtherNode { .. } | Self::Removed(_) => Status::permission_denied(text),
            Self::CertificateEnded => Status::unavailable(text),
            Self::NoHello | Self::Silent => Status::deadline_exceeded(text),
            Self::Replaced | Self::Contended => Status::aborted(text),
            Self::Stuck | Self::Crowded => Status::resource_exhausted(text),
            Self::LeaseLost | Self::Stopping => Status::unavailable(text),
            Self::Store(_) => Status::unavailable("the store does not answer; try again"),
        })
    }
}
