//! The journal: one JSON file for each allocation, replaced as a whole and durably.
//!
//! Not here: what stands in an entry and when it is written (`node_agent::Entry`).

use crate::config::AgentError;
use crate::data_folder::{sync_parent, write_durably};
use model::AllocId;
use node_agent::{Entry, Order, Progress, Work};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes that are kept free for the journal: what a hundred entries of large steps take.
const RESERVE_BYTES: usize = 16 << 20;

/// The largest entry that is read: a step's definition of 2 MiB, escaped at its worst.
const ENTRY_BYTES_MAX: u64 = 32 << 20;

/// The folder of entries.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    folder: PathBuf,
    reserve: PathBuf,
}

/// What one file of the journal holds.
#[derive(Debug)]
pub(crate) enum Read {
    Entry(Box<Entry>),
    /// Damaged. The entry names the allocation, and nothing of its order.
    Damaged {
        entry: Box<Entry>,
        message: String,
    },
}

impl Journal {
    pub(crate) fn new(folder: PathBuf, reserve: PathBuf) -> Self {
        Self { folder, reserve }
    }

    /// Every entry. Files that do not name an allocation are removed. Blocking.
    pub(crate) fn read_all(&self) -> Result<Vec<Read>, AgentError> {
        let mut entries = Vec::new();
        for file in std::fs::read_dir(&self.folder).map_err(AgentError::io(&self.folder))? {
            let path = file.map_err(AgentError::io(&self.folder))?.path();
            match alloc_of(&path) {
                Some(alloc) => entries.push(read_entry(&path, &alloc)),
                None => {
                    tracing::warn!(path = %path.display(), "journal holds a file that is not ours");
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        Ok(entries)
    }

    /// Replaces an allocation's entry; it survives a crash once this returns. On a full disk the
    /// reserve is given up for it. Blocking.
    pub(crate) fn write(&self, entry: &Entry) -> io::Result<()> {
        let bytes = serde_json::to_vec(entry).map_err(io::Error::other)?;
        let path = self.path(&entry.order.alloc);
        match write_durably(&path, &bytes) {
            Err(e) if is_full(&e) && std::fs::remove_file(&self.reserve).is_ok() => {
                tracing::warn!("disk is full; the reserve is given up for the journal");
                write_durably(&path, &bytes)
            }
            written => written,
        }
    }

    /// Removes an entry, durably. No error if it is not there. Blocking.
    pub(crate) fn remove(&self, alloc: &AllocId) -> io::Result<()> {
        let path = self.path(alloc);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => sync_parent(&path),
        }
    }

    /// Sets the reserve aside (again) if there is room for more than it. Blocking.
    pub(crate) fn reserve(&self) {
        let there = std::fs::metadata(&self.reserve).is_ok_and(|m| m.len() == RESERVE_BYTES as u64);
        let free = nix::sys::statvfs::statvfs(&self.folder).map_or(0, |fs| fs.blocks_available() * fs.fragment_size());
        if !there && free > 2 * RESERVE_BYTES as u64 && std::fs::write(&self.reserve, vec![0; RESERVE_BYTES]).is_err() {
            let _ = std::fs::remove_file(&self.reserve);
        }
    }

    fn path(&self, alloc: &AllocId) -> PathBuf {
        self.folder.join(format!("{alloc}.json"))
    }
}

/// True when the error says that a disk or a quota is full.
pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn alloc_of(path: &Path) -> Option<AllocId> {
    AllocId::new(path.file_name()?.to_str()?.strip_suffix(".json")?).ok()
}

fn read_entry(path: &Path, alloc: &AllocId) -> Read {
    let decoded =
        read_bounded(path).and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).map_err(io::Error::other));
    let message = match decoded {
        Ok(entry) if entry.order.alloc == *alloc => return Read::Entry(Box::new(entry)),
        Ok(entry) => format!("it is about {}", entry.order.alloc),
        Err(e) => e.to_string(),
    };
    let message = format!("the agent's journal entry {} is damaged: {message}", path.display());
    let order = Order {
        alloc: alloc.clone(),
        fence: alloc.parts().map(|(_, _, fence)| fence).unwrap_or_default(),
        stop: None,
        work: Box::new(Work::Unreadable {
            message: message.clone(),
        }),
    };
    let entry = Box::new(Entry {
        order,
        boot_id: String::new(),
        progress: Progress::Accepted,
    });
    Read::Damaged { entry, message }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(ENTRY_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_orders::{step_def, work};
    use model::Fence;
    use std::io::Write as _;

    fn entry(alloc: &str) -> Entry {
        Entry {
            order: Order {
                alloc: AllocId::new(alloc).unwrap(),
                fence: Fence { epoch: 1, counter: 2 },
                stop: None,
                work: Box::new(work(step_def(), "refs/heads/main", &[])),
            },
            boot_id: "b".to_owned(),
            progress: Progress::Accepted,
        }
    }

    fn journal(folder: &Path) -> Journal {
        std::fs::create_dir_all(folder.join("journal")).unwrap();
        Journal::new(folder.join("journal"), folder.join("reserve"))
    }

    #[test]
    fn what_was_written_is_read_and_what_was_removed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        let mut first = entry("01jd-0-1-1");
        journal.write(&first).unwrap();
        journal.write(&entry("01jd-1-1-1")).unwrap();
        first.progress = Progress::Running {
            started_ms: 5,
            phases: Vec::new(),
        };
        journal.write(&first).unwrap();
        journal.remove(&AllocId::new("01jd-1-1-1").unwrap()).unwrap();
        journal.remove(&AllocId::new("01jd-1-1-1").unwrap()).unwrap();
        match journal.read_all().unwrap().as_slice() {
            [Read::Entry(read)] => assert_eq!(**read, first),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_damaged_entry_still_names_its_allocation_and_fence() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        let whole = serde_json::to_vec(&entry("01jd-1-1-1")).unwrap();
        let cases: [&[u8]; 4] = [b"", b"{", &whole[..whole.len() / 2], &whole];
        for damaged in cases {
            std::fs::write(folder.path().join("journal/01jd-7-3-9.json"), damaged).unwrap();
            match journal.read_all().unwrap().as_slice() {
                [Read::Damaged { entry, message }] => {
                    assert_eq!(entry.order.alloc.as_str(), "01jd-7-3-9");
                    assert_eq!(entry.order.fence, Fence { epoch: 3, counter: 9 });
                    assert!(message.contains("01jd-7-3-9.json is damaged"), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn on_a_full_disk_the_journal_can_still_be_written() {
        use nix::mount::{MsFlags, mount, umount};
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: a small file system needs root; run `sudo -E cargo test -p node-agent-shell`");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={}", 3 * RESERVE_BYTES);
        let kind = Some("tmpfs");
        mount(kind, folder.path(), kind, MsFlags::empty(), Some(size.as_str())).unwrap();
        let journal = journal(folder.path());
        journal.reserve();
        let fill = std::fs::write(folder.path().join("fill"), vec![1; 3 * RESERVE_BYTES]);
        let full = fill.is_err_and(|e| is_full(&e));
        let written = journal.write(&entry("01jd-0-1-1"));
        let read = journal.read_all().unwrap();
        let given_up = !folder.path().join("reserve").exists();
        let refill = std::fs::File::options().append(true).open(folder.path().join("fill"));
        let _ = refill.unwrap().write_all(&vec![1; 3 * RESERVE_BYTES]);
        let refused = journal.write(&entry("01jd-1-1-1"));
        let left = journal.read_all().unwrap().len();
        umount(folder.path()).unwrap();
        assert!(full, "the disk was full");
        written.unwrap();
        assert!(given_up, "for this the reserve is given up");
        assert_eq!(read.len(), 1);
        assert!(refused.is_err_and(|e| is_full(&e)), "without a reserve it is an error");
        assert_eq!(left, 1, "and nothing half written is left");
    }

    #[test]
    fn files_that_are_not_ours_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        for name in ["01jd-0-1-1.tmp", "x y.json", "README"] {
            std::fs::write(folder.path().join("journal").join(name), "x").unwrap();
        }
        assert!(journal.read_all().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path().join("journal")).unwrap().count(), 0);
    }
}
