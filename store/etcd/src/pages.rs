//! Reads, in pages that are bounded in bytes.
//!
//! etcd counts a page in keys, not in bytes, and an answer above the limit is refused whole. So a
//! page is read in pieces at one revision: each as many keys as should fit by the size of those
//! before, fewer after one that did not fit.

use crate::fault::{Fault, Kind};
use crate::keys::{Keys, Span, number, revision};
use crate::members::{Members, Via};
use etcd_client::proto::{PbKeyValue, PbRangeResponse};
use etcd_client::{GetOptions, KvClient};
use std::sync::atomic::{AtomicUsize, Ordering};
use store::live::PAGE_BYTES_MAX;
use store::{Entry, Page, Revision, StoreError};

/// The largest answer that is taken. One value (at most 1.5 MiB) always fits.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// How many bytes a piece should have.
const PIECE_BYTES: usize = 2 << 20;

/// How large a key and its value are taken for before any was read.
const FIRST_GUESS_BYTES: usize = 16 << 10;

/// How large keys and values are, by what was read last.
#[derive(Debug)]
pub(crate) struct Sizes {
    each: AtomicUsize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            each: AtomicUsize::new(FIRST_GUESS_BYTES),
        }
    }
}

impl Sizes {
    /// How many keys the next piece may have.
    fn piece(&self) -> usize {
        (PIECE_BYTES / self.each.load(Ordering::Relaxed).max(1)).max(1)
    }

    fn seen(&self, keys: usize, bytes: usize) {
        if let Some(each) = bytes.checked_div(keys) {
            self.each.store(each.max(1), Ordering::Relaxed);
        }
    }
}

/// The client for keys and values, which takes answers of any size that we ask for.
pub(crate) fn kv(via: &Via) -> KvClient {
    via.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// One key, linearizable; or as it was at a revision.
pub(crate) async fn entry(
    members: &Members,
    keys: &Keys,
    key: &str,
    at: Option<i64>,
) -> Result<Option<Entry>, (Fault, usize)> {
    let full = keys.full(key);
    let answer = members
        .ask_for(|via| {
            let full = full.clone();
            async move {
                let options = at.map(|at| GetOptions::new().with_revision(at));
                let answer = kv(&via).get(full, options).await?;
                members.check_cluster(answer.header())?;
                Ok(answer.0)
            }
        })
        .await?;
    Ok(answer.kvs.into_iter().next().map(|kv| Entry {
        key: key.to_owned(),
        mod_revision: revision(kv.mod_revision),
        value: kv.value,
    }))
}

/// As [`store::Store::range`], for a legal call.
pub(crate) async fn range(
    members: &Members,
    keys: &Keys,
    sizes: &Sizes,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let mut span = keys.span(prefix, after);
    let mut page = Page::default();
    let mut bytes = 0;
    let mut piece = sizes.piece();
    loop {
        let at = (!page.entries.is_empty()).then_some(page.revision);
        let count = piece.min(limit - page.entries.len());
        let answer = match read_piece(members, &span, at, count).await {
            Ok(answer) => answer,
            Err((fault, _)) if fault.kind == Kind::TooLarge && count > 1 => {
                piece = (count / 4).max(1);
                continue;
            }
            // The page's revision is already forgotten: what was read of it is a page, too.
            Err((fault, _)) if fault.kind == Kind::Compacted && at.is_some() => {
                page.more = true;
                return Ok(page);
            }
            Err(fault) => return Err(members.told(fault)),
        };
        if at.is_none() {
            page.revision = answer.0;
        }
        let PbRangeResponse { mut kvs, more, .. } = answer.1;
        sizes.seen(kvs.len(), kvs.iter().map(size).sum());
        let kept = kept(&kvs, &mut bytes);
        page.more = more || kept < kvs.len();
        kvs.truncate(kept);
        match kvs.last() {
            Some(last) => span.begin = [last.key.as_slice(), &[0]].concat(),
            None => return Ok(page),
        }
        page.entries
            .extend(kvs.into_iter().filter_map(|kv| own_entry(keys, kv)));
        if !page.more || page.entries.len() >= limit || bytes > PAGE_BYTES_MAX {
            return Ok(page);
        }
        piece = sizes.piece();
    }
}

async fn read_piece(
    members: &Members,
    span: &Span,
    at: Option<Revision>,
    count: usize,
) -> Result<(Revision, PbRangeResponse), (Fault, usize)> {
    members
        .ask_for(|via| {
            let span = span.clone();
            async move {
                let limit = i64::try_from(count).unwrap_or(i64::MAX);
                let options = GetOptions::new().with_range(span.end).with_limit(limit);
                let options = at.map_or(options.clone(), |at| options.with_revision(number(at)));
                let answer = kv(&via).get(span.begin, Some(options)).await?;
                members.check_cluster(answer.header())?;
                let header = answer.header().ok_or_else(|| Fault::nonsense("a header"))?;
                Ok((revision(header.revision()), answer.0))
            }
        })
        .await
}

/// How many of a piece the page takes before it passes its bytes; counts them.
fn kept(kvs: &[PbKeyValue], bytes: &mut usize) -> usize {
    let mut kept = 0;
    for kv in kvs {
        if *bytes > PAGE_BYTES_MAX {
            break;
        }
        *bytes += size(kv);
        kept += 1;
    }
    kept
}

fn size(kv: &PbKeyValue) -> usize {
    kv.key.len() + kv.value.len()
}

/// What somebody else wrote below our prefix and is no text is left out.
fn own_entry(keys: &Keys, kv: PbKeyValue) -> Option<Entry> {
    let Some(key) = keys.own(&kv.key) else {
        tracing::warn!(key = ?kv.key, "key below the prefix is not ours");
        return None;
    };
    Some(Entry {
        key,
        mod_revision: revision(kv.mod_revision),
        value: kv.value,
    })
}
