//! Transactions in etcd's words, how many of them one proposal takes, and what its answers say.
//!
//! One proposal carries many transactions: an outer one that compares the common guards, and one
//! nested in it for each of ours, which stands or falls alone. etcd compares all of them with the
//! state before the proposal. A transaction that is refused reads the revisions of its guarded keys
//! in the same instant, without their values, so that an answer never outgrows what is taken.
//!
//! Pure: nothing is sent here.

use crate::fault::Fault;
use crate::keys::{Keys, number, revision};
use etcd_client::proto::{PbTxnOpResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, TxnOp};
use std::ops::Range;
use store::{Expect, Guard, Revision, Txn, Write};

/// The most transactions of one proposal: more would leave each of them too few operations.
pub(crate) const NESTED_MAX: usize = 100;

/// etcd's limit of operations (its `--max-txn-ops`): of a transaction, its compares, its writes and
/// its reads after a refusal count each by itself; what is nested has what the outer one leaves.
const OPS_MAX: usize = 128;

/// The most bytes of one proposal. etcd refuses more than 1.5 MiB.
const PROPOSAL_BYTES_MAX: usize = 1_500_000;

/// What an operation costs besides its key and value.
const OP_BYTES: usize = 32;

/// Splits a batch into proposals: each is a range of the transactions.
pub(crate) fn proposals(keys: &Keys, outer: &[Guard], txns: &[Txn]) -> Vec<Range<usize>> {
    let outer_bytes: usize = outer.iter().map(|g| guard_bytes(keys, g)).sum();
    let mut split = Vec::new();
    let mut begin = 0;
    let (mut bytes, mut deepest) = (outer_bytes, 0);
    for (at, txn) in txns.iter().enumerate() {
        let (own_bytes, own_ops) = (txn_bytes(keys, txn), txn.guards.len().max(txn.writes.len()));
        let count = at - begin + 1;
        let ops = count.max(outer.len()) + deepest.max(own_ops);
        let full = count > NESTED_MAX || ops > OPS_MAX || bytes + own_bytes > PROPOSAL_BYTES_MAX;
        if full && at > begin {
            split.push(begin..at);
            begin = at;
            (bytes, deepest) = (outer_bytes, 0);
        }
        bytes += own_bytes;
        deepest = deepest.max(own_ops);
    }
    if begin < txns.len() {
        split.push(begin..txns.len());
    }
    split
}

/// A guard is sent as a compare and as a read.
fn guard_bytes(keys: &Keys, guard: &Guard) -> usize {
    2 * (keys.full_len(&guard.key) + OP_BYTES)
}

fn txn_bytes(keys: &Keys, txn: &Txn) -> usize {
    let guards: usize = txn.guards.iter().map(|g| guard_bytes(keys, g)).sum();
    let writes = txn.writes.iter().map(|write| match write {
        Write::Put { key, value, .. } => keys.full_len(key) + value.len() + OP_BYTES,
        Write::Delete { key } => keys.full_len(key) + OP_BYTES,
        Write::DeletePrefix { prefix } => 2 * keys.full_len(prefix) + OP_BYTES,
    });
    guards + writes.sum::<usize>() + OP_BYTES
}

/// A proposal of these transactions under the outer guards.
pub(crate) fn proposal(keys: &Keys, outer: &[Guard], txns: &[Txn]) -> etcd_client::Txn {
    let nested: Vec<TxnOp> = txns.iter().map(|t| TxnOp::txn(single(keys, t))).collect();
    guarded(keys, outer, nested)
}

/// One transaction by itself.
pub(crate) fn single(keys: &Keys, txn: &Txn) -> etcd_client::Txn {
    guarded(keys, &txn.guards, txn.writes.iter().map(|w| write(keys, w)).collect())
}

fn guarded(keys: &Keys, guards: &[Guard], then: Vec<TxnOp>) -> etcd_client::Txn {
    let compares: Vec<Compare> = guards.iter().map(|g| compare(keys, g)).collect();
    let found: Vec<TxnOp> = guards
        .iter()
        .map(|g| TxnOp::get(keys.full(&g.key), Some(GetOptions::new().with_keys_only())))
        .collect();
    etcd_client::Txn::new().when(compares).and_then(then).or_else(found)
}

fn compare(keys: &Keys, guard: &Guard) -> Compare {
    let key = keys.full(&guard.key);
    match guard.expect {
        Expect::Absent => Compare::create_revision(key, CompareOp::Equal, 0),
        Expect::Present => Compare::create_revision(key, CompareOp::Greater, 0),
        // To etcd an absent key has the revision 0; to us nothing has.
        Expect::Revision(Revision(0)) => Compare::mod_revision(key, CompareOp::Less, 0),
        Expect::Revision(revision) => Compare::mod_revision(key, CompareOp::Equal, number(revision)),
    }
}

fn write(keys: &Keys, write: &Write) -> TxnOp {
    match write {
        Write::Put { key, value, lease } => {
            // To etcd lease 0 means none; to us it is one that was never granted.
            let id = lease.map(|l| if l.0 == 0 { -1 } else { l.0 });
            let options = id.map(|id| PutOptions::new().with_lease(id));
            TxnOp::put(keys.full(key), value.clone(), options)
        }
        Write::Delete { key } => TxnOp::delete(keys.full(key), None),
        Write::DeletePrefix { prefix } => {
            let span = keys.span(prefix, None);
            TxnOp::delete(span.begin, Some(DeleteOptions::new().with_range(span.end)))
        }
    }
}

/// What became of one transaction, before the value of what was found is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Applied,
    Refused {
        guard: Guard,
        /// There is something under its key, last written at this revision.
        found: Option<Revision>,
    },
}

/// What became of each transaction of a proposal.
pub(crate) fn verdicts(outer: &[Guard], txns: &[Txn], answer: &PbTxnResponse) -> Result<Vec<Verdict>, Fault> {
    if !answer.succeeded {
        return Ok(vec![refusal(outer, answer)?; txns.len()]);
    }
    if answer.responses.len() != txns.len() {
        return Err(Fault::nonsense("one result for each transaction"));
    }
    let each = txns.iter().zip(&answer.responses);
    each.map(|(txn, response)| match &response.response {
        Some(PbTxnOpResponse::ResponseTxn(nested)) => verdict(txn, nested),
        _ => Err(Fault::nonsense("the result of a transaction")),
    })
    .collect()
}

/// What became of one transaction.
pub(crate) fn verdict(txn: &Txn, answer: &PbTxnResponse) -> Result<Verdict, Fault> {
    if answer.succeeded {
        return Ok(Verdict::Applied);
    }
    refusal(&txn.guards, answer)
}

/// The first guard that does not hold in what was found under each.
fn refusal(guards: &[Guard], answer: &PbTxnResponse) -> Result<Verdict, Fault> {
    for (guard, response) in guards.iter().zip(&answer.responses) {
        let Some(PbTxnOpResponse::ResponseRange(range)) = &response.response else {
            return Err(Fault::nonsense("what was found"));
        };
        let found = range.kvs.first().map(|kv| revision(kv.mod_revision));
        if !guard.expect.holds(found) {
            return Ok(Verdict::Refused {
                guard: guard.clone(),
                found,
            });
        }
    }
    Err(Fault::nonsense("a guard that does not hold"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbResponseOp};
    use proptest::prelude::*;

    fn guard(key: &str, expect: Expect) -> Guard {
        Guard {
            key: key.to_owned(),
            expect,
        }
    }

    fn puts(first: usize, count: usize, bytes: usize) -> Txn {
        (first..first + count).fold(Txn::new(), |t, n| t.put_bytes(format!("k/{n}"), vec![0; bytes], None))
    }

    fn split(outer: usize, txns: &[Txn]) -> Vec<Range<usize>> {
        let outer: Vec<Guard> = (0..outer).map(|n| guard(&format!("o/{n}"), Expect::Present)).collect();
        proposals(&Keys::new("bf/"), &outer, txns)
    }

    #[test]
    fn a_batch_takes_as_few_proposals_as_the_rules_allow() {
        let of = |count: usize, ops: usize| -> Vec<Txn> { (0..count).map(|n| puts(n * ops, ops, 1)).collect() };
        let cases: [(&str, usize, Vec<Txn>, &[usize]); 7] = [
            ("nothing", 1, of(0, 1), &[]),
            ("one", 1, of(1, 120), &[1]),
            ("a hundred small ones", 1, of(100, 28), &[100]),
            ("one more", 1, of(101, 28), &[100, 101]),
            ("larger ones", 1, of(100, 64), &[64, 100]),
            ("the largest", 0, of(20, 120), &[8, 16, 20]),
            ("many outer guards", 60, of(100, 60), &[68, 100]),
        ];
        for (what, outer, txns, ends) in cases {
            let found: Vec<usize> = split(outer, &txns).iter().map(|part| part.end).collect();
            assert_eq!(found, ends, "{what}");
        }
        let heavy: Vec<Txn> = (0..4).map(|n| puts(n, 1, 700_000)).collect();
        assert_eq!(split(1, &heavy), vec![0..2, 2..4]);
    }

    proptest! {
        #[test]
        fn proposals_join_to_the_batch_and_keep_the_rules(
            outer in 0..20usize,
            sizes in prop::collection::vec((1..100usize, 0..10_000usize), 0..300),
        ) {
            let txns: Vec<Txn> = sizes.iter().enumerate().map(|(n, (ops, bytes))| puts(n * 100, *ops, *bytes)).collect();
            let split = split(outer, &txns);
            let joined: Vec<usize> = split.iter().cloned().flatten().collect();
            prop_assert_eq!(joined, (0..txns.len()).collect::<Vec<_>>());
            let keys = Keys::new("bf/");
            for part in split {
                let part = &txns[part];
                let deepest = part.iter().map(|t| t.writes.len()).max().unwrap_or(0);
                prop_assert!(part.len() <= NESTED_MAX);
                prop_assert!(part.len().max(outer) + deepest <= OPS_MAX);
                let bytes: usize = part.iter().map(|t| txn_bytes(&keys, t)).sum();
                prop_assert!(bytes <= PROPOSAL_BYTES_MAX);
            }
        }
    }

    fn range(found: Option<i64>) -> PbResponseOp {
        let kvs = found.map(|mod_revision| PbKeyValue {
            mod_revision,
            ..PbKeyValue::default()
        });
        let range = PbRangeResponse {
            kvs: kvs.into_iter().collect(),
            ..PbRangeResponse::default()
        };
        PbResponseOp {
            response: Some(PbTxnOpResponse::ResponseRange(range)),
        }
    }

    fn answer(succeeded: bool, responses: Vec<PbResponseOp>) -> PbTxnResponse {
        PbTxnResponse {
            header: None,
            succeeded,
            responses,
        }
    }

    fn nested(of: PbTxnResponse) -> PbResponseOp {
        PbResponseOp {
            response: Some(PbTxnOpResponse::ResponseTxn(of)),
        }
    }

    #[test]
    fn the_first_broken_guard_is_told() {
        let txn = Txn::new()
            .expect("a", Expect::Present)
            .expect("b", Expect::Revision(Revision(7)))
            .expect("c", Expect::Absent);
        let refused = answer(false, vec![range(Some(3)), range(Some(8)), range(Some(1))]);
        let expected = Verdict::Refused {
            guard: txn.guards[1].clone(),
            found: Some(Revision(8)),
        };
        assert_eq!(verdict(&txn, &refused), Ok(expected));
        assert_eq!(verdict(&txn, &answer(true, vec![])), Ok(Verdict::Applied));
    }

    #[test]
    fn each_of_a_batch_has_its_own_verdict() {
        let txns = vec![Txn::new().expect("a", Expect::Absent), Txn::new()];
        let outer = vec![guard("leader", Expect::Present)];
        let mixed = answer(
            true,
            vec![
                nested(answer(false, vec![range(Some(2))])),
                nested(answer(true, vec![])),
            ],
        );
        let first = Verdict::Refused {
            guard: txns[0].guards[0].clone(),
            found: Some(Revision(2)),
        };
        assert_eq!(verdicts(&outer, &txns, &mixed), Ok(vec![first, Verdict::Applied]));
        let lost = Verdict::Refused {
            guard: outer[0].clone(),
            found: None,
        };
        let deposed = answer(false, vec![range(None)]);
        assert_eq!(verdicts(&outer, &txns, &deposed), Ok(vec![lost.clone(), lost]));
    }

    #[test]
    fn nonsense_is_a_fault_and_no_panic() {
        let txns = vec![Txn::new().expect("a", Expect::Absent)];
        let outer = vec![guard("leader", Expect::Present)];
        let nothing = PbResponseOp { response: None };
        for odd in [
            answer(true, vec![]),
            answer(true, vec![nothing.clone()]),
            answer(true, vec![range(None)]),
            answer(true, vec![nested(answer(false, vec![]))]),
            answer(true, vec![nested(answer(false, vec![nothing.clone()]))]),
            answer(true, vec![nested(answer(false, vec![range(None)]))]),
            answer(false, vec![]),
            answer(false, vec![nothing]),
            answer(false, vec![range(Some(1))]),
        ] {
            let fault = verdicts(&outer, &txns, &odd).expect_err("nonsense");
            assert_eq!(fault.kind, crate::fault::Kind::Unknown, "{odd:?}");
        }
    }
}
