//! The agent's data folder: what lies where in it, the lock on it, and the node's id.
//!
//! | path | what |
//! |---|---|
//! | `lock` | held by the agent that runs |
//! | `node-id` | made once, or given when the machine joined |
//! | `ended` | the newest allocations that ended here and are held no more |
//! | `journal/` | one file for each allocation |
//! | `alloc/<alloc>/` | `upper`, `work`, `log`, `exit.json`, `layers.json` |
//! | `trash/` | what is being removed |
//! | `reserve` | given up when the disk is full, so that the journal can still be written |
//!
//! Not here: the stores of images, checkouts and mirrors, which have folders of their own beside.

use crate::config::AgentError;
use model::{AllocId, NodeId};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the lock is waited for: an agent that was killed holds it until its last thread and the
/// last program that it was just starting have let go.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The data folder of the agent that holds its lock.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, and takes it for this agent alone. Blocking.
    pub(crate) fn open(root: &Path) -> Result<Self, AgentError> {
        for part in ["", "journal", "alloc", "trash"] {
            make_private(&root.join(part))?;
        }
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(AgentError::io(&path))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(AgentError::InUse { path: root.to_owned() }),
                Err(TryLockError::Error(cause)) => return Err(AgentError::Io { path, cause }),
            }
        }
        let root = root.canonicalize().map_err(AgentError::io(root))?;
        Ok(Self { root, _lock: lock })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(crate) fn allocs(&self) -> PathBuf {
        self.root.join("alloc")
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn alloc(&self, alloc: &AllocId) -> AllocFolder {
        AllocFolder(self.allocs().join(alloc.as_str()))
    }

    pub(crate) fn ended(&self) -> PathBuf {
        self.root.join("ended")
    }

    /// The node's id: as it was given, as it was read, or made now. One that is damaged or another
    /// than given is an error: a node that changes its id would lose its allocations.
    pub(crate) fn node_id(&self, given: Option<&NodeId>) -> Result<NodeId, AgentError> {
        let path = self.root.join("node-id");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let made = || format!("n{}", ulid::Ulid::generate().to_string().to_lowercase());
                let id = given.map_or_else(made, ToString::to_string);
                write_durably(&path, id.as_bytes()).map_err(AgentError::io(&path))?;
                id
            }
            Err(cause) => return Err(AgentError::Io { path, cause }),
        };
        let place = path.display();
        let known = NodeId::new(text.trim()).map_err(|e| AgentError::Setting {
            setting: "data_dir",
            message: format!("{place}: {e}; restore the file, or remove the whole data folder"),
        })?;
        match given {
            Some(given) if *given != known => Err(AgentError::Setting {
                setting: "node_id",
                message: format!(
                    "the data folder belongs to node {known} ({place}), and not to {given}; \
                     give each node a data folder of its own"
                ),
            }),
            _ => Ok(known),
        }
    }
}

/// The folder of one allocation.
#[derive(Debug, Clone)]
pub(crate) struct AllocFolder(pub(crate) PathBuf);

impl AllocFolder {
    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    pub(crate) fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.0.join("layers.json")
    }
}

fn make_private(path: &Path) -> Result<(), AgentError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(AgentError::io(path))
}

/// Replaces a file so that after a crash the old or the new bytes stand, never a part.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let written = write_synced(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(e) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(e);
    }
    sync_parent(path)
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename or removal in the folder of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_id() {
        let given: NodeId = "n7".parse().unwrap();
        let other: NodeId = "n8".parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("joined")).unwrap();
        assert_eq!(data.node_id(Some(&given)).unwrap(), given);
        assert_eq!(data.node_id(None).unwrap(), given, "it is in the folder from then on");
        let refused = data.node_id(Some(&other)).unwrap_err().to_string();
        assert!(
            refused.contains("node_id") && refused.contains("n7") && refused.contains("n8"),
            "{refused}"
        );
        let data = DataFolder::open(&folder.path().join("alone")).unwrap();
        let made = data.node_id(None).unwrap();
        assert_eq!(data.node_id(None).unwrap(), made);
        std::fs::write(folder.path().join("alone/node-id"), "a b").unwrap();
        assert!(data.node_id(None).is_err());
    }
}
