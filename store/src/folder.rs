//! Blobs as files in a folder: written beside, made durable, then renamed into place.
//!
//! A blob `log/a/0` is the file `log/a/0@`: `@` is in no blob's name, so a blob and a blob below
//! its name (`log`, `log/a`) never want the same path. Half-written files lie in `@new`, the key of
//! signed URLs in `@key`.
//! Not here: bounds on how much is stored, which blobs are still needed, the route of signed URLs.

mod key;
mod listing;

use crate::blob::{
    BlobError, BlobName, BlobPage, BlobReader, BlobStore, Broken, Bytes, Digest, LIST_PAGE_MAX, PutTerms, SignedUrl,
    prefix_parts,
};
use crate::durable::{make_folder, sync};
use crate::signed::{OwnUrls, Right};
use crate::whole::Whole;
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

/// How many calls touch the disk at once: enough to keep it busy, and few threads.
const BUSY_MAX: usize = 16;

/// The most folders that are remembered as durable; beyond it they are made durable once more.
const SETTLED_MAX: usize = 10_000;

/// A half-written file that is older than this belongs to a process that is gone.
const ABANDONED: Duration = Duration::from_secs(3_600);

/// How much of a stream is held in memory, bytes.
const PIECE: usize = 256 * 1024;

/// Ends the name of a blob's file.
const MARK: char = '@';

/// Where files are written before they get their name.
const NEW: &str = "@new";

/// Blobs in a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FolderBlobs {
    folder: Arc<Folder>,
    busy: Arc<Semaphore>,
    urls: OwnUrls,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    /// Tells our half-written files from those of other servers that share the folder.
    mark: u64,
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
        let folder = Folder {
            root,
            mark: rand::random(),
            written: AtomicU64::new(0),
            tree: RwLock::new(()),
            settled: Mutex::new(HashSet::new()),
        };
        let opened = folder.open();
        let key = opened.map_err(|cause| failed(&folder.root.display().to_string(), cause))?;
        Ok(Self {
            folder: Arc::new(folder),
            busy: Arc::new(Semaphore::new(BUSY_MAX)),
            urls: OwnUrls::new(key),
        })
    }

    /// Signs URLs that begin with `url`: where clients reach the servers that share this folder.
    ///
    /// # Errors
    /// [`BlobError::Setting`] for what is no such address.
    pub fn with_public_url(mut self, url: &str) -> Result<Self, BlobError> {
        self.urls = self.urls.with_base(url)?;
        Ok(self)
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

    async fn put_stream(
        &self,
        name: &BlobName,
        length: u64,
        sha256: Option<Digest>,
        bytes: Bytes,
    ) -> Result<Digest, BlobError> {
        let new = Unfinished::new(self.folder.new_path());
        let digest = write_stream(&new.path, name, length, bytes).await?;
        if let Some(announced) = sha256
            && announced != digest
        {
            let broken = Broken::OtherBytes {
                announced,
                came: digest,
            };
            return Err(not_as_announced(name, broken));
        }
        let own = name.clone();
        self.blocking(name.as_str(), move |f| {
            f.place(&new.path, &f.file(&own))?;
            new.keep();
            Ok(digest)
        })
        .await
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
            go_to(&mut file, offset)?;
            let mut bytes = Vec::new();
            file.take(len).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        self.blocking(name.as_str(), read).await.map_err(missing)
    }

    async fn get_stream(&self, name: &BlobName, offset: u64) -> Result<BlobReader, BlobError> {
        let own = name.clone();
        let open = move |f: &Folder| {
            let mut file = File::open(f.file(&own))?;
            let size = go_to(&mut file, offset)?;
            Ok((file, size))
        };
        let (file, size) = self.blocking(name.as_str(), open).await.map_err(missing)?;
        let file = tokio::fs::File::from_std(file);
        Ok(BlobReader {
            size,
            bytes: Box::pin(Whole::new(file, size.saturating_sub(offset), None)),
        })
    }

    async fn list_page(&self, prefix: &str, after: Option<&BlobName>, limit: usize) -> Result<BlobPage, BlobError> {
        let below = prefix_parts(prefix)?;
        let after = after.map(|name| name.as_str().to_owned());
        let limit = limit.clamp(1, LIST_PAGE_MAX);
        self.blocking(prefix, move |f| f.page(&below, after.as_deref(), limit))
            .await
    }

    async fn delete(&self, name: &BlobName) -> Result<(), BlobError> {
        let own = name.clone();
        self.blocking(name.as_str(), move |f| f.delete(&own)).await
    }

    async fn sign_get(&self, name: &BlobName, valid_for: Duration) -> Result<SignedUrl, BlobError> {
        self.urls.sign(name, Right::Get, valid_for, now())
    }

    async fn sign_put(&self, name: &BlobName, terms: PutTerms, valid_for: Duration) -> Result<SignedUrl, BlobError> {
        self.urls.sign(name, Right::Put(terms), valid_for, now())
    }

    fn own_urls(&self) -> Option<&OwnUrls> {
        Some(&self.urls)
    }
}

/// Goes to `offset`, or to the end if that comes before: a file system refuses offsets that no file
/// can have. Answers the file's length.
fn go_to(file: &mut File, offset: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(offset.min(size)))?;
    Ok(size)
}

/// Since 1970, by the wall clock: that is what strangers' URLs expire by.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn not_as_announced(name: &BlobName, broken: Broken) -> BlobError {
    BlobError::NotAsAnnounced {
        name: name.as_str().to_owned(),
        broken,
    }
}

/// A file that goes again unless it is given its name.
struct Unfinished {
    path: PathBuf,
    placed: bool,
}

impl Unfinished {
    fn new(path: PathBuf) -> Self {
        Self { path, placed: false }
    }

    fn keep(mut self) {
        self.placed = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            // It may never have been made; what is left is swept at a later start.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Writes just `length` bytes durably and answers their digest.
async fn write_stream(new: &Path, name: &BlobName, length: u64, mut bytes: Bytes) -> Result<Digest, BlobError> {
    let io = |cause| failed(name.as_str(), cause);
    let mut file = tokio::fs::File::create(new).await.map_err(io)?;
    let (mut digest, mut came) = (Sha256::new(), 0_u64);
    let mut piece = vec![0; PIECE];
    loop {
        let read = bytes.read(&mut piece).await.map_err(|cause| BlobError::Source {
            name: name.as_str().to_owned(),
            cause,
        })?;
        if read == 0 {
            break;
        }
        came += read as u64;
        if came > length {
            return Err(not_as_announced(name, Broken::TooLong(length)));
        }
        digest.update(&piece[..read]);
        file.write_all(&piece[..read]).await.map_err(io)?;
    }
    if came < length {
        return Err(not_as_announced(name, Broken::TooShort { length, came }));
    }
    file.sync_all().await.map_err(io)?;
    Ok(Digest(digest.finalize().into()))
}

impl Folder {
    /// Makes what is missing, sweeps what was left; answers the key of signed URLs.
    fn open(&self) -> io::Result<[u8; 32]> {
        let new = self.root.join(NEW);
        make_folder(&new)?;
        sweep(&new)?;
        sync(&self.root)?;
        key::key(&self.root, &self.new_path())
    }

    /// A path for a file that has no name yet; nobody else's.
    fn new_path(&self) -> PathBuf {
        let ordinal = self.written.fetch_add(1, Ordering::Relaxed);
        let new = format!("{}-{:x}-{ordinal}", std::process::id(), self.mark);
        self.root.join(NEW).join(new)
    }

    fn file(&self, name: &BlobName) -> PathBuf {
        self.root.join(format!("{}{MARK}", name.as_str()))
    }

    fn put(&self, name: &BlobName, bytes: &[u8]) -> io::Result<()> {
        let new = Unfinished::new(self.new_path());
        write_durably(&new.path, bytes)?;
        self.place(&new.path, &self.file(name))?;
        new.keep();
        Ok(())
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
