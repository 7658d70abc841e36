//! Who may open a node's stream: whoever has a node's token, or, where there are certificates, the
//! one node that its certificate names.
//!
//! Not here: the certificates of members (`join`).

use super::end::End;
use super::join::Membership;
use crate::auth::{AuthError, Caller, authenticate, require};
use crate::view::View;
use model::{NodeId, Role};
use pki::Peer;
use std::sync::Arc;
use tonic::Status;

/// Who was let in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// For logs.
    pub caller: Caller,
    /// The only node that it may speak for; `None`: any.
    pub node: Option<NodeId>,
    /// When its right ends, seconds of the Unix epoch; `None`: when the stream does.
    pub until_s: Option<u64>,
}

impl Admitted {
    /// Whether it may speak for this node.
    pub(super) fn check(&self, node: &NodeId) -> Result<(), End> {
        match &self.node {
            Some(own) if own != node => Err(End::OtherNode {
                own: own.clone(),
                said: node.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// Says who may open a node's stream.
#[tonic::async_trait]
pub trait Gate: Send + Sync + 'static {
    /// The caller behind an `Authorization` value, if it may.
    ///
    /// # Errors
    /// [`AuthError`].
    fn admit(&self, authorization: Option<&str>) -> Result<Caller, AuthError>;

    /// Who is at the other end of a connection, if it may.
    ///
    /// # Errors
    /// What the agent is told.
    async fn admit_peer(&self, _peer: &Peer, authorization: Option<&str>) -> Result<Admitted, Status> {
        let caller = self.admit(authorization).map_err(|error| refusal(&error))?;
        Ok(Admitted {
            caller,
            node: None,
            until_s: None,
        })
    }

    /// Whether a node is at the other end, without asking the store: for what is asked while the
    /// store does not answer.
    ///
    /// # Errors
    /// What the agent is told.
    fn recognise(&self, _peer: &Peer, authorization: Option<&str>) -> Result<(), Status> {
        self.admit(authorization).map(drop).map_err(|error| refusal(&error))
    }

    /// How machines join; `None` where there are no certificates.
    fn membership(&self) -> Option<&Arc<Membership>> {
        None
    }
}

impl Gate for View {
    fn admit(&self, authorization: Option<&str>) -> Result<Caller, AuthError> {
        require(authenticate(self, authorization)?, Role::Node)
    }
}

fn refusal(error: &AuthError) -> Status {
    match error {
        AuthError::Missing | AuthError::Unknown => Status::unauthenticated(error.to_string()),
        AuthError::Role { .. } => Status::permission_denied(error.to_string()),
    }
}

/// The end of a right, on the clock of timers; never for `None`.
pub(super) async fn ended(until_s: Option<u64>) {
    match until_s {
        Some(until_s) => {
            // Looked at again, because the wall clock may be set while a timer runs.
            while let Some(left) = until_s.checked_sub(pki::now_s()) {
                let nap = std::time::Duration::from_secs(left + 1).min(LOOK_EVERY);
                tokio::time::sleep(nap).await;
            }
        }
        None => std::future::pending().await,
    }
}

/// How often the wall clock is compared with the end of a certificate.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
