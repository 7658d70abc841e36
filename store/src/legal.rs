//! Which calls break the rules of the [`Store`](crate::Store) trait, so that every engine refuses the same
//! ones. An engine asks here before it does anything.
//!
//! Not here: what a legal call does, and whether its guards hold.

use crate::live::{
    BATCH_MAX, Guard, KEY_MAX, LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, PAGE_MAX, StoreError, TXN_BYTES_MAX, TXN_OPS_MAX,
    Txn, Write,
};
use std::collections::BTreeMap;

fn illegal<T>(why: String) -> Result<T, StoreError> {
    Err(StoreError::Illegal(why))
}

/// The first characters of a key, for a message.
fn shown(key: &str) -> String {
    key.chars().take(80).collect()
}

/// A key that may be read or written.
///
/// # Errors
/// [`StoreError::Illegal`].
pub fn key(key: &str) -> Result<(), StoreError> {
    match key.len() {
        0 => illegal("an empty key".to_owned()),
        1..=KEY_MAX => Ok(()),
        n => illegal(format!("key `{}…` has {n} bytes; at most {KEY_MAX}", shown(key))),
    }
}

/// A prefix may be empty: then it means every key.
///
/// # Errors
/// [`StoreError::Illegal`].
pub fn prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() { Ok(()) } else { key(prefix) }
}

/// The arguments of a range read.
///
/// # Errors
/// [`StoreError::Illegal`].
pub fn range(of: &str, after: Option<&str>, limit: usize) -> Result<(), StoreError> {
    prefix(of)?;
    after.map_or(Ok(()), prefix)?;
    if (1..=PAGE_MAX).contains(&limit) {
        Ok(())
    } else {
        illegal(format!("a page of {limit} entries; 1 to {PAGE_MAX}"))
    }
}

/// A lease's time to live.
///
/// # Errors
/// [`StoreError::Illegal`].
pub fn ttl(ttl_ms: u64) -> Result<(), StoreError> {
    if (LEASE_TTL_MIN_MS..=LEASE_TTL_MAX_MS).contains(&ttl_ms) {
        Ok(())
    } else {
        illegal(format!(
            "a lease of {ttl_ms} ms; {LEASE_TTL_MIN_MS} to {LEASE_TTL_MAX_MS}"
        ))
    }
}

/// One transaction, or a whole batch under its outer guards.
///
/// # Errors
/// [`StoreError::Illegal`].
pub fn batch(outer: &[Guard], txns: &[Txn]) -> Result<(), StoreError> {
    if txns.len() > BATCH_MAX {
        return illegal(format!("a batch of {} transactions; at most {BATCH_MAX}", txns.len()));
    }
    for txn in txns {
        size(outer, txn)?;
    }
    outer.iter().try_for_each(|g| key(&g.key))?;
    let writers = writers(txns)?;
    for (index, txn) in txns.iter().enumerate() {
        for guard in &txn.guards {
            if writer_of(&writers, &guard.key).is_some_and(|by| by != index) {
                return illegal(format!(
                    "key `{}` is guarded by one transaction and written by another of the same batch",
                    shown(&guard.key)
                ));
            }
        }
    }
    Ok(())
}

/// The limits of one transaction by itself.
fn size(outer: &[Guard], txn: &Txn) -> Result<(), StoreError> {
    let ops = outer.len() + txn.guards.len() + txn.writes.len();
    if ops > TXN_OPS_MAX {
        return illegal(format!(
            "a transaction of {ops} guards and writes; at most {TXN_OPS_MAX}"
        ));
    }
    let bytes = outer.iter().chain(&txn.guards).map(|g| g.key.len()).sum::<usize>()
        + txn.writes.iter().map(write_bytes).sum::<usize>();
    if bytes > TXN_BYTES_MAX {
        return illegal(format!("a transaction of {bytes} bytes; at most {TXN_BYTES_MAX}"));
    }
    txn.guards.iter().try_for_each(|g| key(&g.key))?;
    txn.writes.iter().try_for_each(|w| key(w.key()))
}

/// The bytes of a write's key and value.
#[must_use]
pub fn write_bytes(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Delete { key } | Write::DeletePrefix { prefix: key } => key.len(),
    }
}

/// Who writes a key, or every key that begins with it.
#[derive(Debug, Clone, Copy)]
struct Writer {
    txn: usize,
    whole_prefix: bool,
}

/// Which transaction writes which key or prefix; no key twice, and none below a removed prefix.
fn writers(txns: &[Txn]) -> Result<BTreeMap<&str, Writer>, StoreError> {
    let mut writers: BTreeMap<&str, Writer> = BTreeMap::new();
    for (txn, write) in txns
        .iter()
        .enumerate()
        .flat_map(|(i, t)| t.writes.iter().map(move |w| (i, w)))
    {
        let whole_prefix = matches!(write, Write::DeletePrefix { .. });
        if let Some(other) = writers.insert(write.key(), Writer { txn, whole_prefix }) {
            return twice(write.key(), other.txn == txn);
        }
    }
    for (prefix, writer) in writers.iter().filter(|(_, w)| w.whole_prefix) {
        // What begins with the prefix follows it in order.
        if let Some((key, other)) = writers.range(*prefix..).nth(1)
            && key.starts_with(prefix)
        {
            return twice(key, other.txn == writer.txn);
        }
    }
    Ok(writers)
}

fn twice<T>(key: &str, by_one: bool) -> Result<T, StoreError> {
    let by = if by_one {
        "twice in one transaction"
    } else {
        "by two transactions of one batch"
    };
    illegal(format!("key `{}` is written {by}", shown(key)))
}

/// The transaction that writes a key, directly or with a prefix.
fn writer_of(writers: &BTreeMap<&str, Writer>, key: &str) -> Option<usize> {
    // No written key lies below a removed prefix, so only the nearest one can cover this key.
    let (nearest, writer) = writers.range(..=key).next_back()?;
    (*nearest == key || (writer.whole_prefix && key.starts_with(nearest))).then_some(writer.txn)
}
