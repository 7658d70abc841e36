//! Blobs as files in a folder: written beside, made durable, then renamed into place.
//!
//! A blob `log/a/0` is the file `log/a/0@`: `@` is in no blob's name, so a blob and a blob below
//! its name (`log`, `log/a`) never want the same path. Half-written files lie in `@new`.
//! Not here: bounds on how much is stored, and which blobs are still needed.

use crate::blob::{BlobEntry, BlobError, BlobName, BlobStore};
use crate::durable::{make_folder, sync};
use async_trait::async_trait;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// How many calls touch the disk at once: enough to keep it busy, and few threads.
const BUSY_MAX: usize = 16;

/// The most folders that are remembered as durable; beyond it they are made durable once more.
const SETTLED_MAX: usize = 10_000;

/// A half-written file that is older than this belongs to a process that is gone.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// Ends the name of a blob's file.
const MARK: char = '@';

/// Where files are written before they get their name.
const NEW: &str = "@new";

/// Blobs in a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FolderBlobs {
    folder: Arc<Folder>,
    busy: Arc<Semaphore>,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    written: AtomicU64,
    /// Read: folders are being relied on. Write: empty folders are being removed.
    tree: RwLock<()>,
    /// Folders of which we know that they survive a crash.
    settled: Mutex<HashSet<PathBuf>>,
}

impl FolderBlobs {
    /// Opens the blobs in `root`, making the folder if it is not there. Blocks for some fsyncs.
    ///
    /// # Errors
    /// [`BlobError::Io`] when the folder cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlobError> {
        let root = root.into();
        let opened = make_folder(&root.join(NEW)).and_then(|()| {
            sweep(&root.join(NEW))?;
            sync(&root)
        });
        opened.map_err(|cause| failed(&root.display().to_string(), cause))?;
        Ok(Self {
            folder: Arc::new(Folder {
                root,
                written: AtomicU64::new(0),
                tree: RwLock::new(()),
                settled: Mutex::new(HashSet::new()),
            }),
            busy: Arc::new(Semaphore::new(BUSY_MAX)),
        })
    }

    /// Runs `work` on a thread where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Folder) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BlobError> {
        let stopped = || failed(name, io::Error::other("the store is shutting down"));
        let place = Arc::clone(&self.busy).acquire_owned().await.map_err(|_| stopped())?;
        let folder = Arc::clone(&self.folder);
        let done = tokio::task::spawn_blocking(move || {
            let answer = work(&folder);
            drop(place);
            answer
        });
        done.await.map_err(|_| stopped())?.map_err(|cause| failed(name, cause))
    }
}

fn failed(name: &str, cause: io::Error) -> BlobError {
    BlobError::Io {
        name: name.to_owned(),
        cause,
    }
}

/// For reads, where a missing file is a missing blob.
fn missing(error: BlobError) -> BlobError {
    match error {
        BlobError::Io { name, cause } if cause.kind() == ErrorKind::NotFound => BlobError::NotFound(name),
        other => other,
    }
}

#[async_trait]
impl BlobStore for FolderBlobs {
    async fn put(&self, name: &BlobName, bytes: Vec<u8>) -> Result<(), BlobError> {
        let own = name.clone();
        self.blocking(name.as_str(), move |f| f.put(&own, &bytes)).await
    }

    async fn get(&self, name: &BlobName) -> Result<Vec<u8>, BlobError> {
        let own = name.clone();
        let read = move |f: &Folder| fs::read(f.file(&own));
        self.blocking(name.as_str(), read).await.map_err(missing)
    }

    async fn get_range(&self, name: &BlobName, offset: u64, len: u64) -> Result<Vec<u8>, BlobError> {
        let own = name.clone();
        let read = move |f: &Folder| {
            let mut file = File::open(f.file(&own))?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(len).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        self.blocking(name.as_str(), read).await.map_err(missing)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<BlobEntry>, BlobError> {
        let below = match prefix.strip_suffix('/') {
            Some(parts) => BlobName::new(parts)?.as_str().to_owned(),
            None if prefix.is_empty() => String::new(),
            None => return Err(BlobError::IllegalName(prefix.to_owned())),
        };
        self.blocking(prefix, move |f| f.list(&below)).await
    }

    async fn delete(&self, name: &BlobName) -> Result<(), BlobError> {
        let own = name.clone();
        self.blocking(name.as_str(), move |f| f.delete(&own)).await
    }
}

impl Folder {
    fn file(&self, name: &BlobName) -> PathBuf {
        self.root.join(format!("{}{MARK}", name.as_str()))
    }

    fn put(&self, name: &BlobName, bytes: &[u8]) -> io::Result<()> {
        let ordinal = self.written.fetch_add(1, Ordering::Relaxed);
        let new = self.root.join(NEW).join(format!("{}-{ordinal}", std::process::id()));
        let placed = write_durably(&new, bytes).and_then(|()| self.place(&new, &self.file(name)));
        if placed.is_err() {
            // It may never have been made; what is left is swept at a later start.
            drop(fs::remove_file(&new));
        }
        placed
    }

    /// Gives a durable file its name, durably.
    fn place(&self, new: &Path, file: &Path) -> io::Result<()> {
        let parent = file.parent().expect("a blob's file lies below the root");
        let _kept = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        self.settle(parent)?;
        fs::rename(new, file)?;
        sync(parent)
    }

    /// Makes a folder that survives a crash.
    fn settle(&self, folder: &Path) -> io::Result<()> {
        let settled = || self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled().contains(folder) {
            return Ok(());
        }
        make_folder(folder)?;
        for above in folder.ancestors().skip(1).take_while(|a| a.starts_with(&self.root)) {
            sync(above)?;
        }
        let mut settled = settled();
        if settled.len() >= SETTLED_MAX {
            settled.clear();
        }
        settled.insert(folder.to_owned());
        Ok(())
    }

    fn list(&self, below: &str) -> io::Result<Vec<BlobEntry>> {
        let mut found = Vec::new();
        let mut folders = vec![below.to_owned()];
        while let Some(parts) = folders.pop() {
            match fs::read_dir(self.root.join(&parts)) {
                Ok(entries) => {
                    for entry in entries {
                        sort_in(&entry?, &parts, &mut found, &mut folders)?;
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(e) => return Err(e),
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn delete(&self, name: &BlobName) -> io::Result<()> {
        let file = self.file(name);
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            Err(e) => return Err(e),
        }
        for folder in file.ancestors().skip(1).take_while(|f| *f != self.root) {
            if !is_empty(folder) || !self.remove_empty(folder) {
                break;
            }
        }
        Ok(())
    }

    /// Whether the folder is gone; a blob may have come into it meanwhile.
    fn remove_empty(&self, folder: &Path) -> bool {
        let _alone = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        self.settled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(folder);
        fs::remove_dir(folder).is_ok()
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Puts what a listing met where it belongs; what is not ours is passed over.
fn sort_in(entry: &fs::DirEntry, parts: &str, found: &mut Vec<BlobEntry>, folders: &mut Vec<String>) -> io::Result<()> {
    let file_name = entry.file_name();
    let Some(part) = file_name.to_str() else { return Ok(()) };
    let named = |part: &str| {
        let full = if parts.is_empty() {
            part.to_owned()
        } else {
            format!("{parts}/{part}")
        };
        BlobName::new(full).ok()
    };
    if let Some(name) = part.strip_suffix(MARK).and_then(named) {
        match entry.metadata() {
            Ok(meta) => found.push(BlobEntry { name, size: meta.len() }),
            // Deleted meanwhile.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    } else if let Some(folder) = named(part)
        && entry.file_type()?.is_dir()
    {
        folders.push(folder.as_str().to_owned());
    }
    Ok(())
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Removes what processes that are gone have left half-written.
fn sweep(new: &Path) -> io::Result<()> {
    for entry in fs::read_dir(new)? {
        let entry = entry?;
        let written = entry.metadata()?.modified()?;
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        if age > ABANDONED {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
