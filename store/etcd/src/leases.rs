//! Leases: granted, renewed over streams that are used again, revoked.
//!
//! A renewal has no call of its own in etcd, only a stream. One stream for all would let a lease
//! that has just expired (etcd answers only once its keys are gone) hold up all others; one for
//! each lease would be 1,200 of them. So a renewal borrows an idle stream, asks, takes the answer
//! and gives it back: there are as many streams as renewals at the same moment, within a bound.
//!
//! Many renewals at once go over one stream, one after the other without waiting, so that they cost a
//! message to etcd and back. What has no answer soon (a lease before it may just have expired) is renewed
//! by itself.
//!
//! A renewal that takes too long is not waited for, but its stream is: a stream that is given up
//! while its answer is on the way is a fault to HTTP/2, and after some of them the connection is
//! closed with all that is on it. For the same reason renewals have a connection of their own.
//!
//! Not here: which times to live are legal (`store::legal`).

use crate::fault::{Fault, Kind};
use crate::members::{Members, Via};
use etcd_client::{Client, LeaseKeepAliveResponse, LeaseKeepAliveStream, LeaseKeeper};
use futures::stream::{self, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{LeaseId, StoreError};
use tokio::sync::{OnceCell, Semaphore, mpsc};

/// How long one member may take to renew a lease: an election lease of two seconds must survive
/// a member that is silent.
const RENEW_TRY: Duration = Duration::from_millis(800);

/// How long a renewal is repeated in all.
const RENEW_BUDGET: Duration = Duration::from_secs(3);

/// The most renewals of one member at the same moment; further ones wait for their turn. Each takes a
/// millisecond or two, so these are far more than 1,200 nodes need.
const STREAMS_MAX: usize = 32;

/// How long the answers to many renewals are waited for before those that are left are asked for one by
/// one. An answer takes a millisecond or two.
const TOGETHER_WAIT: Duration = Duration::from_millis(500);

/// Renewals that are asked for one by one at the same time, after that.
const SINGLY_AT_ONCE: usize = 16;

/// The streams to each member.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    pools: Mutex<HashMap<usize, Arc<Pool>>>,
}

/// The streams to one member.
struct Pool {
    turns: Arc<Semaphore>,
    client: OnceCell<Client>,
    /// Those that are not in use.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

/// etcd counts in seconds; a part of one is a whole one, as no lease may be shorter than asked for.
fn seconds(ttl_ms: u64) -> i64 {
    i64::try_from(ttl_ms.div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn milliseconds(ttl: i64) -> u64 {
    u64::try_from(ttl).unwrap_or_default().saturating_mul(1_000)
}

/// As [`store::Store::lease_grant`]. One that is granted twice because an answer was lost expires unused.
pub(crate) async fn grant(members: &Members, ttl_ms: u64) -> Result<LeaseId, StoreError> {
    members
        .ask(|mut via| async move {
            let answer = via.client.lease_grant(seconds(ttl_ms), None).await?;
            members.check_cluster(answer.header())?;
            if answer.id() == 0 || !answer.error().is_empty() {
                return Err(Fault::nonsense("a lease"));
            }
            Ok(LeaseId(answer.id()))
        })
        .await
}

/// As [`store::Store::lease_revoke`].
pub(crate) async fn revoke(members: &Members, lease: LeaseId) -> Result<(), StoreError> {
    let answer = members
        .ask_for(|mut via| async move {
            let answer = via.client.lease_revoke(lease.0).await?;
            members.check_cluster(answer.header())
        })
        .await;
    match answer {
        Err((fault, _)) if fault.kind == Kind::NoLease => Ok(()),
        answer => answer.map_err(|fault| members.told(fault)),
    }
}

impl Renewals {
    /// As [`store::Store::lease_keep_alive`].
    pub(crate) async fn renew(&self, members: &Members, lease: LeaseId) -> Result<u64, StoreError> {
        let answer = members
            .ask_within(RENEW_TRY, RENEW_BUDGET, |via| self.renew_via(members, via, lease))
            .await;
        match answer {
            Ok(ttl) => Ok(milliseconds(ttl)),
            Err((fault, _)) if fault.kind == Kind::NoLease => Err(StoreError::NoLease(lease)),
            Err(fault) => Err(members.told(fault)),
        }
    }

    /// As [`store::Store::lease_keep_alive_all`].
    pub(crate) async fn renew_all(&self, members: &Members, leases: &[LeaseId]) -> Vec<Result<u64, StoreError>> {
        let left = match self.renew_together(members, leases).await {
            Ok(left) => left,
            // What the way to the member is like is found out by each for itself, and told.
            Err(fault) => {
                tracing::debug!(error = fault.text, "leases not renewed together");
                HashMap::new()
            }
        };
        let known: Vec<(LeaseId, Option<i64>)> = leases.iter().map(|l| (*l, left.get(&l.0).copied())).collect();
        let each = known
            .into_iter()
            .map(|(lease, known)| self.finish(members, lease, known));
        stream::iter(each).buffered(SINGLY_AT_ONCE).collect().await
    }

    /// The result of a renewal; of one without an answer, by asking for it alone.
    async fn finish(&self, members: &Members, lease: LeaseId, left: Option<i64>) -> Result<u64, StoreError> {
        match left {
            Some(ttl) if ttl > 0 => Ok(milliseconds(ttl)),
            Some(_) => Err(StoreError::NoLease(lease)),
            None => self.renew(members, lease).await,
        }
    }

    /// Renews over one stream; answers the times that are left, of those that were answered in time.
    async fn renew_together(&self, members: &Members, leases: &[LeaseId]) -> Result<HashMap<i64, i64>, Fault> {
        let pool = self.pool(members.current());
        let client = pool.client.get_or_try_init(|| members.own_client(members.current()));
        let client = client.await?.clone();
        let asking = Arc::clone(&pool);
        let leases: Vec<i64> = leases.iter().map(|lease| lease.0).collect();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let turn = Arc::clone(&pool.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Fault::nonsense("a turn"))?;
        // In a task, so that it goes on when nobody waits for it any more.
        tokio::spawn(async move {
            let _turn = turn;
            asking.ask_all(client, leases, &answers).await;
        });
        let mut left = HashMap::new();
        let gathered = async {
            while let Some(answer) = answered.recv().await {
                let answer: LeaseKeepAliveResponse = answer;
                members.check_cluster(answer.header())?;
                left.insert(answer.id(), answer.ttl());
            }
            Ok::<(), Fault>(())
        };
        // Those that come later are as good as lost.
        if let Ok(gathered) = tokio::time::timeout(TOGETHER_WAIT, gathered).await {
            gathered?;
        }
        Ok(left)
    }

    async fn renew_via(&self, members: &Members, via: Via, lease: LeaseId) -> Result<i64, Fault> {
        let pool = self.pool(via.member);
        let turn = Arc::clone(&pool.turns).acquire_owned().await;
        let turn = turn.map_err(|_| Fault::nonsense("a turn"))?;
        let client = pool.client.get_or_try_init(|| members.own_client(via.member));
        let client = client.await?.clone();
        let asking = Arc::clone(&pool);
        // In a task, so that it goes on when nobody waits for it any more.
        let asked = tokio::spawn(async move {
            let _turn = turn;
            asking.ask(client, lease).await
        });
        let answer = asked.await.map_err(|_| Fault::nonsense("a renewal"))??;
        members.check_cluster(answer.header())?;
        if answer.id() != lease.0 {
            return Err(Fault::nonsense("the lease that was asked for"));
        }
        if answer.ttl() > 0 {
            return Ok(answer.ttl());
        }
        // An expired lease answers without an error and with no time left.
        Err(Fault {
            kind: Kind::NoLease,
            text: "lease not found".to_owned(),
        })
    }

    fn pool(&self, member: usize) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pools.entry(member).or_default())
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("turns", &self.turns)
            .finish_non_exhaustive()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(STREAMS_MAX)),
            client: OnceCell::new(),
            idle: Mutex::default(),
        }
    }
}

impl Pool {
    /// Asks over an idle stream, or a new one, and puts it back. What breaks one stream breaks all.
    async fn ask(&self, client: Client, lease: LeaseId) -> Result<LeaseKeepAliveResponse, Fault> {
        let answer = self.ask_one(client, lease).await;
        if answer.is_err() {
            self.idle().clear();
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for many over one stream and passes the answers on as they come. A stream that breaks is told
    /// by the answers that are missing.
    async fn ask_all(&self, client: Client, leases: Vec<i64>, answers: &mpsc::UnboundedSender<LeaseKeepAliveResponse>) {
        if let Err(fault) = self.try_ask_all(client, leases, answers).await {
            tracing::debug!(error = fault.text, "stream of renewals broke");
            self.idle().clear();
        }
    }

    async fn try_ask_all(
        &self,
        client: Client,
        leases: Vec<i64>,
        answers: &mpsc::UnboundedSender<LeaseKeepAliveResponse>,
    ) -> Result<(), Fault> {
        let Some(first) = leases.first() else { return Ok(()) };
        let mut stream = self.stream(client, *first).await?;
        let Idle {
            keeper,
            answers: coming,
        } = &mut stream;
        let count = leases.len();
        let asked = async {
            for lease in leases {
                keeper.id = lease;
                keeper.keep_alive().await?;
            }
            Ok::<(), Fault>(())
        };
        let heard = async {
            for _ in 0..count {
                let answer = coming.message().await?.ok_or_else(|| Fault::nonsense("a lease"))?;
                // Nobody listens any more when the time is over.
                let _ = answers.send(answer);
            }
            Ok::<(), Fault>(())
        };
        futures::future::try_join(asked, heard).await?;
        self.idle().push(stream);
        Ok(())
    }

    /// An idle stream, or a new one.
    async fn stream(&self, client: Client, lease: i64) -> Result<Idle, Fault> {
        let idle = self.idle().pop();
        if let Some(idle) = idle {
            return Ok(idle);
        }
        // Opening a stream renews the lease, too, but its answer is not handed out.
        let (keeper, answers) = client.lease_client().keep_alive(lease).await?;
        Ok(Idle { keeper, answers })
    }

    async fn ask_one(&self, client: Client, lease: LeaseId) -> Result<LeaseKeepAliveResponse, Fault> {
        let mut stream = self.stream(client, lease.0).await?;
        stream.keeper.id = lease.0;
        stream.keeper.keep_alive().await?;
        let answer = stream.answers.message().await?;
        let answer = answer.ok_or_else(|| Fault::nonsense("a lease"))?;
        if answer.id() == lease.0 {
            self.idle().push(stream);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_never_shorter_than_asked_for() {
        for (ms, s) in [
            (1_000, 1),
            (1_001, 2),
            (1_999, 2),
            (20_000, 20),
            (2_592_000_000, 2_592_000),
        ] {
            assert_eq!(seconds(ms), s, "{ms}");
            assert!(milliseconds(seconds(ms)) >= ms);
        }
        assert_eq!(milliseconds(-1), 0);
    }
}
