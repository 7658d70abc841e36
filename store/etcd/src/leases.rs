//! Leases: granted, renewed over streams that are used again, revoked.
//!
//! A renewal has no call of its own in etcd, only a stream. One stream for all would let a lease
//! that has just expired (etcd answers only once its keys are gone) hold up all others; one for
//! each lease would be 1,200 of them. So a renewal borrows an idle stream, asks, takes the answer
//! and gives it back: there are as many streams as renewals at the same moment.
//!
//! Not here: which times to live are legal (`store::legal`).

use crate::fault::{Fault, Kind};
use crate::members::{Members, Via};
use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use store::{LeaseId, StoreError};

/// How long one member may take to renew a lease: an election lease of two seconds must survive
/// a member that is silent.
const RENEW_TRY: Duration = Duration::from_millis(800);

/// How long a renewal is repeated in all.
const RENEW_BUDGET: Duration = Duration::from_secs(3);

/// The most streams that are kept for later.
const IDLE_MAX: usize = 32;

/// The streams that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    member: usize,
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

    async fn renew_via(&self, members: &Members, via: Via, lease: LeaseId) -> Result<i64, Fault> {
        let member = via.member;
        let mut stream = match self.take(member) {
            Some(idle) => idle,
            None => {
                // Opening a stream renews the lease, too, but its answer is not handed out.
                let (keeper, answers) = via.client.lease_client().keep_alive(lease.0).await?;
                Idle {
                    member,
                    keeper,
                    answers,
                }
            }
        };
        stream.keeper.id = lease.0;
        stream.keeper.keep_alive().await?;
        let answer = stream
            .answers
            .message()
            .await?
            .ok_or_else(|| Fault::nonsense("a lease"))?;
        members.check_cluster(answer.header())?;
        if answer.id() != lease.0 {
            return Err(Fault::nonsense("the lease that was asked for"));
        }
        self.put_back(stream);
        if answer.ttl() > 0 {
            return Ok(answer.ttl());
        }
        // An expired lease answers without an error and with no time left.
        Err(Fault {
            kind: Kind::NoLease,
            text: "lease not found".to_owned(),
        })
    }

    fn take(&self, member: usize) -> Option<Idle> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of members that are not in use any more are given up.
        idle.retain(|stream| stream.member == member);
        idle.pop()
    }

    fn put_back(&self, stream: Idle) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(stream);
        }
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
