//!
//! Every engine passes the same conformance suite ([`conformance`]). Not here: what the records
//! mean (`model`), who may write which (ARCHITECTURE.md), retries of refused transactions (callers
//! decide on a fresh read).

pub mod blob;
pub mod changes;
pub mod conformance;
mod durable;
pub mod folder;
pub mod history;
pub mod legal;
pub mod live;
pub mod memory;
pub mod room;
pub mod signed;
pub mod sqlite;
pub mod whole;

pub use blob::{BlobEntry, BlobError, BlobName, BlobPage, BlobReader, BlobStore, Digest, PutTerms, SignedUrl};
pub use folder::FolderBlobs;
pub use history::{History, HistoryError, SqliteHistory};
pub use live::{
    Change, Commit, Entry, Expect, Guard, LeaseId, Page, Revision, Store, StoreError, Txn, Watch, WatchEvent, Write,
};
pub use room::Room;
