//! A folder of finished layers: built aside and renamed into place, leased while in use, the least
//! recently used removed when they take more than their budget.
//!
//! Not here: what a layer holds. Image layers and checkouts each have a shelf of their own.

use crate::trash::{empty_folder, remove_folder};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::SystemTime;

/// Half-built layers and those on their way out; emptied at every start.
const TEMPORARY: &str = "temporary";
/// Finished layers, `layers/<key>/`.
const LAYERS: &str = "layers";
/// What each of them takes, so that a start need not walk them.
const SIZES: &str = "sizes";

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Where a shelf is and how much it may hold.
#[derive(Debug, Clone)]
pub(crate) struct ShelfSettings {
    pub(crate) root: PathBuf,
    pub(crate) bytes_max: u64,
    pub(crate) entries_max: u64,
    pub(crate) lasting: Lasting,
}

/// Whether layers outlive the machine's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// They were seen safe on the disk before they were put here.
    AcrossBoots,
    /// They were not: after a loss of power they may be damaged.
    ThisBoot,
}

/// What a layer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

/// The layers of one folder.
#[derive(Debug)]
pub(crate) struct Shelf {
    settings: ShelfSettings,
    held: Mutex<Held>,
    building: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Debug, Default)]
struct Held {
    layers: HashMap<String, Layer>,
    /// Grows with every use; orders the layers by their last one.
    clock: u64,
}

#[derive(Debug)]
struct Layer {
    size: Size,
    used: u64,
    /// Alive as long as a lease is.
    lease: Weak<()>,
}

/// Keeps a layer from being removed for as long as it or a clone lives.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    _alive: Arc<()>,
}

/// A layer that is being built; removed unless it is put on the shelf.
#[derive(Debug)]
pub(crate) struct Draft {
    path: Option<PathBuf>,
}

impl Draft {
    pub(crate) fn path(&self) -> &Path {
        self.path
            .as_deref()
            .expect("taken only by put, which consumes the draft")
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            discard(&path);
        }
    }
}

impl Shelf {
    /// Removes what was half built and learns what is there. Blocking.
    pub(crate) fn open(settings: ShelfSettings) -> io::Result<Self> {
        let temporary = settings.root.join(TEMPORARY);
        if temporary.exists() {
            empty_folder(&temporary)?;
        }
        if settings.lasting == Lasting::ThisBoot {
            forget_other_boots(&settings.root, &boot_id())?;
        }
        for folder in [TEMPORARY, LAYERS, SIZES] {
            std::fs::create_dir_all(settings.root.join(folder))?;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(settings.root.join(LAYERS))? {
            let entry = entry?;
            let key = entry.file_name().to_string_lossy().into_owned();
            let size = read_size(&settings.root.join(SIZES).join(&key)).unwrap_or_else(|| measure(&entry.path()));
            let used = entry.metadata()?.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((used, key, size));
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut held = Held::default();
        for (_, key, size) in found {
            held.add(key, size);
        }
        Ok(Self {
            settings,
            held: Mutex::new(held),
            building: Mutex::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.settings.root
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.settings.root.join(LAYERS).join(key)
    }

    /// The key of a path that [`Shelf::path`] made.
    pub(crate) fn key_of(&self, path: &Path) -> Option<String> {
        let key = path.file_name()?.to_str()?;
        (self.path(key) == path).then(|| key.to_owned())
    }

    /// Takes a layer into use; `None` when it is not here.
    pub(crate) fn lease(&self, key: &str) -> Option<Lease> {
        self.held().lease(key)
    }

    /// Waits until nobody else builds this layer.
    pub(crate) async fn build_lock(self: &Arc<Self>, key: &str) -> BuildLock {
        let lock = {
            let mut building = self.building.lock().expect("no panic while it is held");
            building.entry(key.to_owned()).or_default().clone()
        };
        BuildLock {
            guard: Some(lock.lock_owned().await),
            key: key.to_owned(),
            shelf: self.clone(),
        }
    }

    /// A new empty folder to build a layer in.
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        let path = self.temporary("draft");
        std::fs::create_dir(&path)?;
        Ok(Draft { path: Some(path) })
    }

    /// Makes a finished draft visible under its key, in use from the start.
    pub(crate) fn put(&self, key: &str, mut draft: Draft, size: Size) -> io::Result<Lease> {
        let target = self.path(key);
        std::fs::write(
            self.settings.root.join(SIZES).join(key),
            format!("{} {}", size.bytes, size.entries),
        )?;
        let mut held = self.held();
        if let Some(lease) = held.lease(key) {
            // Built twice, because the first builder's caller had gone away.
            drop(held);
            return Ok(lease);
        }
        std::fs::rename(draft.path(), &target)?;
        draft.path = None;
        held.add(key.to_owned(), size);
        held.lease(key).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Removes the least recently used layers until the budget is kept; never one in use.
    pub(crate) async fn trim(&self) {
        let surplus = self.take_surplus();
        if surplus.is_empty() {
            return;
        }
        // Failures are logged where they happen; the next start removes what is left.
        let _ = tokio::task::spawn_blocking(move || surplus.iter().for_each(|path| discard(path))).await;
    }

    /// Renames the surplus away while nobody can lease it, so that removing it takes no lock.
    fn take_surplus(&self) -> Vec<PathBuf> {
        let mut held = self.held();
        let mut surplus = Vec::new();
        while let Some(key) = held.surplus(&self.settings) {
            held.layers.remove(&key);
            let away = self.temporary("old");
            if std::fs::rename(self.path(&key), &away).is_ok() {
                tracing::info!(layer = key, "layer removed to keep the budget");
                surplus.push(away);
            }
            let _ = std::fs::remove_file(self.settings.root.join(SIZES).join(&key));
        }
        surplus
    }

    fn temporary(&self, word: &str) -> PathBuf {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{word}-{}-{serial}", std::process::id());
        self.settings.root.join(TEMPORARY).join(name)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no panic while it is held")
    }
}

impl Held {
    fn add(&mut self, key: String, size: Size) {
        self.clock += 1;
        let layer = Layer {
            size,
            used: self.clock,
            lease: Weak::new(),
        };
        self.layers.insert(key, layer);
    }

    fn lease(&mut self, key: &str) -> Option<Lease> {
        self.clock += 1;
        let layer = self.layers.get_mut(key)?;
        layer.used = self.clock;
        let alive = layer.lease.upgrade().unwrap_or_else(|| {
            let alive = Arc::new(());
            layer.lease = Arc::downgrade(&alive);
            alive
        });
        Some(Lease { _alive: alive })
    }

    /// The layer to remove next, if the budget is passed and one is free.
    fn surplus(&self, settings: &ShelfSettings) -> Option<String> {
        let bytes: u64 = self.layers.values().map(|layer| layer.size.bytes).sum();
        let entries: u64 = self.layers.values().map(|layer| layer.size.entries).sum();
        if bytes <= settings.bytes_max && entries <= settings.entries_max {
            return None;
        }
        let free = self.layers.iter().filter(|(_, layer)| layer.lease.strong_count() == 0);
        free.min_by_key(|(_, layer)| layer.used).map(|(key, _)| key.clone())
    }
}

/// Held while a layer is built.
pub(crate) struct BuildLock {
    guard: Option<tokio::sync::OwnedMutexGuard<()>>,
    key: String,
    shelf: Arc<Shelf>,
}

impl Drop for BuildLock {
    fn drop(&mut self) {
        self.guard.take();
        let mut building = self.shelf.building.lock().expect("no panic while it is held");
        // Nobody waits for it: the map's own is the last.
        if building.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            building.remove(&self.key);
        }
    }
}

/// Identifies the machine's boot; the same text every time where the kernel does not tell.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Removes all layers unless they were made in the boot that is named.
fn forget_other_boots(root: &Path, boot: &str) -> io::Result<()> {
    let note = root.join("boot");
    if std::fs::read_to_string(&note).is_ok_and(|noted| noted == boot) {
        return Ok(());
    }
    for folder in [LAYERS, SIZES].map(|folder| root.join(folder)) {
        if folder.exists() {
            empty_folder(&folder)?;
        }
    }
    std::fs::create_dir_all(root)?;
    std::fs::write(note, boot)
}

fn discard(path: &Path) {
    if let Err(error) = remove_folder(path) {
        tracing::warn!(path = %path.display(), %error, "layer could not be removed");
    }
}

fn read_size(file: &Path) -> Option<Size> {
    let text = std::fs::read_to_string(file).ok()?;
    let (bytes, entries) = text.split_once(' ')?;
    Some(Size {
        bytes: bytes.parse().ok()?,
        entries: entries.parse().ok()?,
    })
}

/// Bytes on disk and number of entries below a folder. What cannot be read counts as nothing.
pub(crate) fn measure(folder: &Path) -> Size {
    use std::os::unix::fs::MetadataExt as _;
    let (mut size, mut folders) = (Size::default(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            size.bytes += meta.blocks() * 512;
            size.entries += 1;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(root: &Path, bytes_max: u64) -> Arc<Shelf> {
        let settings = ShelfSettings {
            root: root.to_owned(),
            bytes_max,
            entries_max: 1_000,
            lasting: Lasting::ThisBoot,
        };
        Arc::new(Shelf::open(settings).unwrap())
    }

    fn put(shelf: &Shelf, key: &str, bytes: u64) -> Lease {
        let draft = shelf.draft().unwrap();
        std::fs::write(draft.path().join("file"), key).unwrap();
        shelf.put(key, draft, Size { bytes, entries: 1 }).unwrap()
    }

    fn keys(root: &Path) -> Vec<String> {
        let mut keys: Vec<_> = std::fs::read_dir(root.join(LAYERS))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        keys.sort();
        keys
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first_and_never_one_in_use() {
        let root = tempfile::tempdir().unwrap();
        let shelf = shelf(root.path(), 30);
        for key in ["a", "b", "c"] {
            drop(put(&shelf, key, 10));
        }
        drop(shelf.lease("a").unwrap());
        drop(put(&shelf, "d", 10));
        shelf.trim().await;
        assert_eq!(keys(root.path()), ["a", "c", "d"], "b was used longest ago");
        let held = shelf.lease("c").unwrap();
        let copy = held.clone();
        drop(held);
        drop(put(&shelf, "e", 25));
        shelf.trim().await;
        assert_eq!(keys(root.path()), ["c"], "in use through the copy");
        drop(copy);
        drop(put(&shelf, "f", 10));
        shelf.trim().await;
        assert_eq!(keys(root.path()), ["c", "f"]);
        assert!(shelf.lease("a").is_none());
    }

    #[tokio::test]
    async fn a_start_removes_drafts_and_knows_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let first = shelf(root.path(), 100);
        drop(put(&first, "a", 60));
        drop(put(&first, "b", 60));
        let draft = first.draft().unwrap();
        std::fs::write(draft.path().join("half"), "x").unwrap();
        std::mem::forget(draft); // as if the process had been killed
        let second = shelf(root.path(), 100);
        assert_eq!(std::fs::read_dir(root.path().join(TEMPORARY)).unwrap().count(), 0);
        let adopted = second.lease(&second.key_of(&second.path("a")).unwrap()).unwrap();
        second.trim().await;
        assert_eq!(keys(root.path()), ["a"], "sizes are remembered, the adopted one stays");
        drop(adopted);
        assert_eq!(second.key_of(Path::new("/elsewhere/a")), None);
    }

    #[test]
    fn layers_of_another_boot_are_removed() {
        let root = tempfile::tempdir().unwrap();
        drop(put(&shelf(root.path(), 100), "a", 1));
        forget_other_boots(root.path(), &boot_id()).unwrap();
        assert_eq!(keys(root.path()), ["a"], "the same boot");
        std::fs::write(root.path().join("boot"), "another").unwrap();
        assert!(shelf(root.path(), 100).lease("a").is_none());
        assert!(keys(root.path()).is_empty());
    }

    #[tokio::test]
    async fn one_builds_while_the_others_wait() {
        let root = tempfile::tempdir().unwrap();
        let shelf = shelf(root.path(), 100);
        let first = shelf.build_lock("a").await;
        let other = shelf.build_lock("b").await;
        let waiting = {
            let shelf = shelf.clone();
            tokio::spawn(async move {
                drop(shelf.build_lock("a").await);
            })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop((first, other));
        waiting.await.unwrap();
        assert!(shelf.building.lock().unwrap().is_empty(), "no lock is kept");
    }

    /// Names of an image or a repository may be two thousand folders deep.
    #[test]
    fn a_layer_deeper_than_a_process_may_have_files_open_is_removed() {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        use rustix::fs::{Mode, OFlags};
        const OPEN_FILES: u64 = 1_024;
        // What most systems give a process; the tests beside this one need no more either.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard).unwrap();
        // In memory: so many folders take half a minute on a disk.
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let first = shelf(root.path(), 100);
        let deep = || {
            let draft = first.draft().unwrap();
            let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
            let mut at = rustix::fs::open(draft.path(), flags, Mode::empty()).unwrap();
            for _ in 0..2 * OPEN_FILES {
                rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
                at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
            }
            draft
        };
        let drafts = || std::fs::read_dir(root.path().join(TEMPORARY)).unwrap().count();
        drop(deep());
        assert_eq!(drafts(), 0);
        std::mem::forget(deep()); // as if the process had been killed
        drop(first.put("a", deep(), Size::default()).unwrap());
        std::fs::write(root.path().join("boot"), "another").unwrap();
        assert_eq!(drafts(), 1);
        shelf(root.path(), 100);
        assert_eq!(drafts(), 0);
        assert!(keys(root.path()).is_empty());
    }
}
