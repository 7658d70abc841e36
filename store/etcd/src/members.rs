//! The way to etcd: one client for each endpoint, one of them in use, the next one as soon as it fails.
//!
//! A client that balances by itself keeps sending calls to a member that is down or paused; here
//! every call has a time-out of its own, and a failure moves all later calls on. What may be
//! repeated is repeated until its time is used up; what may have been applied never is.
//!
//! Not here: what the calls say.

use crate::config::{EtcdConfig, RequireLeader, causes};
use crate::fault::{Fault, Kind};
use etcd_client::{Channel, Client, ConnectOptions, ResponseHeader};
use futures::future::join_all;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::StoreError;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

/// How long one member may take to answer a call that can be asked of another one: far more than a
/// slow disk needs, and a paused member costs no more than this.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call is repeated in all: an election of etcd takes two or three seconds, and who asks
/// should learn of a lost quorum before a person wonders.
const ASK_BUDGET: Duration = Duration::from_secs(5);

/// How long a write may take before its outcome counts as unknown. The same for the reason above.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after all endpoints have failed one after another.
const PAUSE: Duration = Duration::from_millis(100);

/// The oldest etcd that is known to keep what this crate relies on.
const OLDEST: (u64, u64) = (3, 4);

/// All endpoints.
pub(crate) struct Members {
    members: Vec<Member>,
    /// Which one is in use.
    current: AtomicUsize,
    /// The id of the cluster that answered first: no other one may answer later.
    cluster: OnceLock<u64>,
    options: ConnectOptions,
    /// For questions to one member about itself.
    lone_options: ConnectOptions,
}

/// One endpoint.
struct Member {
    url: String,
    endpoint: Endpoint,
    /// Made, authenticated and checked when it is first needed, so that a member may be down meanwhile.
    client: OnceCell<Client>,
}

/// Whether a call may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing, or the second time changes nothing more.
    Always,
    /// Only if the first one was certainly not applied.
    IfNotTaken,
}

/// The client of one endpoint, for one call.
#[derive(Clone)]
pub(crate) struct Via {
    pub(crate) client: Client,
    /// Which endpoint.
    pub(crate) member: usize,
}

impl Members {
    /// Finds a member that answers.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] for a wrong configuration, [`StoreError::Unavailable`] when none
    /// answers, [`StoreError::Failed`] when what answers cannot be used. Each names the endpoints.
    pub(crate) async fn connect(config: &EtcdConfig) -> Result<Self, StoreError> {
        let members = config.checked()?.into_iter().map(|(url, endpoint)| Member {
            url,
            endpoint,
            client: OnceCell::new(),
        });
        let members = Self {
            members: members.collect(),
            current: AtomicUsize::new(0),
            cluster: OnceLock::new(),
            options: config.options(RequireLeader::Yes),
            lone_options: config.options(RequireLeader::No),
        };
        let first = join_all((0..members.members.len()).map(|m| members.try_client(m))).await;
        let faults: Vec<String> = first
            .iter()
            .enumerate()
            .filter_map(|(m, answer)| members.complaint(m, answer))
            .collect();
        let standing = first.iter().position(Result::is_ok);
        let Some(standing) = standing else {
            let told = format!("no etcd answers: {}", faults.join("; "));
            let hopeless = first
                .iter()
                .all(|a| matches!(a, Err(fault) if fault.kind == Kind::Refused));
            return Err(if hopeless {
                StoreError::Failed(told)
            } else {
                StoreError::Unavailable(told)
            });
        };
        for fault in faults {
            tracing::warn!(%fault, "etcd endpoint cannot be used now");
        }
        members.current.store(standing, Ordering::Relaxed);
        Ok(members)
    }

    fn complaint(&self, member: usize, answer: &Result<Client, Fault>) -> Option<String> {
        let fault = answer.as_ref().err()?;
        Some(format!("{}: {}", self.members[member].url, fault.text))
    }

    async fn try_client(&self, member: usize) -> Result<Client, Fault> {
        match timeout(TRY_TIMEOUT, self.client(member)).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::silence(false)),
        }
    }

    /// Asks until someone answers: for what may be sent twice.
    pub(crate) async fn ask<T, F, Fut>(&self, call: F) -> Result<T, StoreError>
    where
        F: Fn(Via) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Fault>> + Send,
    {
        let answer = self.call(Repeat::Always, TRY_TIMEOUT, ASK_BUDGET, call).await;
        answer.map_err(|(fault, member)| fault.told(&self.members[member].url))
    }

    /// As [`Members::ask`], with times of its own and the last fault as it is.
    pub(crate) async fn ask_within<T, F, Fut>(
        &self,
        each: Duration,
        all: Duration,
        call: F,
    ) -> Result<T, (Fault, usize)>
    where
        F: Fn(Via) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Fault>> + Send,
    {
        self.call(Repeat::Always, each, all, call).await
    }

    /// As [`Members::ask`], with the last fault as it is.
    pub(crate) async fn ask_for<T, F, Fut>(&self, call: F) -> Result<T, (Fault, usize)>
    where
        F: Fn(Via) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Fault>> + Send,
    {
        self.call(Repeat::Always, TRY_TIMEOUT, ASK_BUDGET, call).await
    }

    /// Sends a write: again only if it was certainly not applied.
    pub(crate) async fn send<T, F, Fut>(&self, call: F) -> Result<T, (Fault, usize)>
    where
        F: Fn(Via) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Fault>> + Send,
    {
        self.call(Repeat::IfNotTaken, WRITE_TIMEOUT, WRITE_TIMEOUT, call).await
    }

    /// The error of a fault on an endpoint.
    pub(crate) fn told(&self, (fault, member): (Fault, usize)) -> StoreError {
        fault.told(self.url(member))
    }

    pub(crate) fn url(&self, member: usize) -> &str {
        self.members.get(member).map_or("", |m| m.url.as_str())
    }

    pub(crate) fn count(&self) -> usize {
        self.members.len()
    }

    /// Which endpoint is in use.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Moves on, unless somebody else has already.
    pub(crate) fn move_on(&self, from: usize) {
        let next = (from + 1) % self.members.len();
        if next != from
            && self
                .current
                .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            tracing::debug!(
                from = self.url(from),
                to = self.url(next),
                "another etcd endpoint is used"
            );
        }
    }

    async fn call<T, F, Fut>(&self, repeat: Repeat, each: Duration, all: Duration, call: F) -> Result<T, (Fault, usize)>
    where
        F: Fn(Via) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Fault>> + Send,
    {
        let deadline = Instant::now() + all;
        let mut tried = 0;
        loop {
            let member = self.current();
            let left = deadline.saturating_duration_since(Instant::now());
            let fault = match self.call_once(member, each.min(left), &call).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            if matches!(fault.kind, Kind::NotTaken | Kind::Unknown) {
                self.move_on(member);
            }
            let again = match fault.kind {
                Kind::NotTaken => true,
                Kind::Unknown => repeat == Repeat::Always,
                Kind::NoLease
                | Kind::Compacted
                | Kind::Future
                | Kind::TooLarge
                | Kind::Denied
                | Kind::Full
                | Kind::Refused => false,
            };
            tried += 1;
            let round_over = tried % self.members.len() == 0;
            if !again || Instant::now() + PAUSE >= deadline {
                return Err((fault, member));
            }
            if round_over {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn call_once<T, F, Fut>(&self, member: usize, limit: Duration, call: &F) -> Result<T, Fault>
    where
        F: Fn(Via) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, Fault>> + Send,
    {
        let begun = Instant::now();
        let client = match timeout(limit, self.client(member)).await {
            Err(_) => return Err(Fault::silence(false)),
            // Whatever stopped the client from being made, the call itself was not sent, and
            // another member may be better.
            Ok(Err(Fault { text, .. })) => {
                let kind = Kind::NotTaken;
                return Err(Fault { kind, text });
            }
            Ok(Ok(client)) => client,
        };
        let left = limit.saturating_sub(begun.elapsed());
        match timeout(left, call(Via { client, member })).await {
            Err(_) => Err(Fault::silence(true)),
            Ok(answer) => answer,
        }
    }

    /// The client of an endpoint, made if it is not there yet.
    pub(crate) async fn client(&self, member: usize) -> Result<Client, Fault> {
        let Member { endpoint, client, .. } = &self.members[member];
        let made = client.get_or_try_init(|| async {
            let channel = Channel::Tonic(endpoint.connect_lazy());
            let mut client = Client::from_channel(channel, Some(self.options.clone())).await?;
            match client.status().await.map_err(Fault::from) {
                Ok(status) => {
                    check_version(status.version())?;
                    self.check_cluster(status.header())?;
                }
                // Since 3.6 only root is told, and that is new enough. Which cluster it is every
                // answer says again.
                Err(fault) if fault.kind == Kind::Denied => {}
                Err(fault) => return Err(fault),
            }
            Ok::<Client, Fault>(client)
        });
        made.await.cloned()
    }

    /// A client over a connection that it shares with nobody: what goes wrong on one connection ends
    /// all streams on it, so a watch must not share it with calls that are given up.
    pub(crate) async fn own_client(&self, member: usize) -> Result<Client, Fault> {
        let channel = Channel::Tonic(self.members[member].endpoint.connect_lazy());
        Ok(Client::from_channel(channel, Some(self.options.clone())).await?)
    }

    /// A client that asks a member about itself, even if it is cut off from the others.
    pub(crate) async fn lone_client(&self, member: usize) -> Result<Client, Fault> {
        let channel = Channel::Tonic(self.members[member].endpoint.connect_lazy());
        Ok(Client::from_channel(channel, Some(self.lone_options.clone())).await?)
    }

    /// Refuses what a member of another cluster says.
    pub(crate) fn check_cluster(&self, header: Option<&ResponseHeader>) -> Result<(), Fault> {
        self.check_cluster_id(header.ok_or_else(|| Fault::nonsense("a header"))?.cluster_id())
    }

    /// As [`Members::check_cluster`].
    pub(crate) fn check_cluster_id(&self, id: u64) -> Result<(), Fault> {
        let known = *self.cluster.get_or_init(|| id);
        if id == known {
            return Ok(());
        }
        Err(Fault {
            kind: Kind::Refused,
            text: format!(
                "it belongs to cluster {id:x}, the others to {known:x}; name members of one cluster, and after \
                 etcd was restored from a backup start this server anew"
            ),
        })
    }
}

/// Refuses what is older than [`OLDEST`].
fn check_version(version: &str) -> Result<(), Fault> {
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    let found = (parts.next().flatten(), parts.next().flatten());
    match found {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(Fault {
            kind: Kind::Refused,
            text: format!(
                "version `{version}` of etcd; {}.{} or newer is needed",
                OLDEST.0, OLDEST.1
            ),
        }),
    }
}

impl From<tonic::transport::Error> for Fault {
    fn from(error: tonic::transport::Error) -> Self {
        Self {
            kind: Kind::NotTaken,
            text: causes(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_odd_versions_are_refused() {
        for good in ["3.4.23", "3.5.0", "3.6.15", "4.0.0", "3.10.1-rc.0"] {
            assert_eq!(check_version(good), Ok(()), "{good}");
        }
        for bad in ["3.3.25", "2.3", "", "x", "3", "3.x.1"] {
            let fault = check_version(bad).expect_err(bad);
            assert_eq!(fault.kind, Kind::Refused, "{bad}");
        }
    }
}
