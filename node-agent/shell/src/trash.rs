//! Removal of folders that strangers filled: out of the way at once, by a rename, and emptied in
//! the background.
//!
//! A tree may be as deep and as wide as its maker liked, so it is neither walked by recursion nor
//! held in memory: a folder's entries are removed some at a time, and every folder inside a folder
//! is first moved up to the top, where comes its turn. Links are removed, never followed. What
//! cannot be removed is not in the way of the rest.

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Names that are held at a time: some 3 MiB at their longest. A step may make millions.
const NAMES_MAX: usize = 10_000;

/// How long what could not be removed rests, if nothing else comes.
const AGAIN: Duration = Duration::from_secs(60);

/// The folder whose content is being removed. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Trash {
    root: Arc<PathBuf>,
    wake: Arc<Notify>,
}

/// Makes the names in the trash unique within this process; the process's id does so among those
/// before it.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Trash {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root: Arc::new(root),
            wake: Arc::new(Notify::new()),
        }
    }

    /// Moves a file or folder of the same file system away. No error if it is not there. Blocking.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<()> {
        match std::fs::rename(path, self.root.join(unique())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(()) => {
                self.wake.notify_one();
                Ok(())
            }
        }
    }

    /// Removes what is in the trash and whatever comes, until it is dropped.
    pub(crate) async fn keep_empty(self) {
        loop {
            let trash = self.clone();
            if let Err(e) = crate::blocking::blocking(move || trash.empty()).await {
                tracing::error!(error = %e, path = %self.root.display(), "trash cannot be emptied");
                // Time is no error here: trying again is what it is for.
                let _ = tokio::time::timeout(AGAIN, self.wake.notified()).await;
            } else {
                self.wake.notified().await;
            }
        }
    }

    /// Removes everything in it. Blocking.
    pub(crate) fn empty(&self) -> io::Result<()> {
        empty_folder(&self.root)
    }
}

fn unique() -> String {
    let ordinal = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{ordinal}-{}", std::process::id(), crate::blocking::now_ms())
}

/// Removes a folder and everything in it. Blocking.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    empty_folder(path)?;
    std::fs::remove_dir(path)
}

/// Removes everything in a folder. What cannot be removed is left, and the error tells why. Blocking.
pub(crate) fn empty_folder(path: &Path) -> io::Result<()> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut folder = Dir::open(path, flags, Mode::empty())?;
    let mut emptying = Emptying {
        top: folder.as_fd().try_clone_to_owned()?,
        steps: 0,
    };
    emptying.work_off(&mut folder, Emptying::remove)
}

/// Empties one folder, the top.
struct Emptying {
    top: OwnedFd,
    /// Entries removed or moved up: proof that it is worth to look again.
    steps: u64,
}

impl Emptying {
    /// Does `work` with each entry of a folder until there are none, or it gets nowhere.
    fn work_off(
        &mut self,
        folder: &mut Dir,
        work: fn(&mut Self, &OwnedFd, &CStr, Option<Type>) -> io::Result<()>,
    ) -> io::Result<()> {
        let at = folder.as_fd().try_clone_to_owned()?;
        loop {
            let (before, mut failed) = (self.steps, None);
            let names = names_in(folder)?;
            for (name, kind) in &names {
                // A full disk may take no new name, and do so once something is removed.
                failed = work(self, &at, name, *kind).err().or(failed);
            }
            match failed {
                None if names.is_empty() => return Ok(()),
                Some(e) if self.steps == before => return Err(e),
                _ => {}
            }
        }
    }

    /// Removes one entry of the top: a folder's own folders are moved up to it first.
    fn remove(&mut self, top: &OwnedFd, name: &CStr, kind: Option<Type>) -> io::Result<()> {
        if !is_folder(top, name, kind) {
            return self.unlink(top, name, UnlinkatFlags::NoRemoveDir);
        }
        match self.unlink(top, name, UnlinkatFlags::RemoveDir) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => {}
            done => return done,
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut folder = Dir::openat(top, name, flags, Mode::empty())?;
        self.work_off(&mut folder, Self::lift)?;
        self.unlink(top, name, UnlinkatFlags::RemoveDir)
    }

    /// Removes one entry further down, or moves it to the top if it is a folder that is not empty.
    fn lift(&mut self, folder: &OwnedFd, name: &CStr, kind: Option<Type>) -> io::Result<()> {
        if !is_folder(folder, name, kind) {
            return self.unlink(folder, name, UnlinkatFlags::NoRemoveDir);
        }
        match self.unlink(folder, name, UnlinkatFlags::RemoveDir) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => {}
            done => return done,
        }
        renameat(folder, name, &self.top, unique().as_str())?;
        self.steps += 1;
        Ok(())
    }

    fn unlink(&mut self, folder: &OwnedFd, name: &CStr, flags: UnlinkatFlags) -> io::Result<()> {
        match unlinkat(folder, name, flags) {
            Ok(()) | Err(Errno::ENOENT) => {
                self.steps += 1;
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }
}

/// The first [`NAMES_MAX`] entries but `.` and `..`.
fn names_in(folder: &mut Dir) -> io::Result<Vec<(CString, Option<Type>)>> {
    let mut names = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
        if names.len() == NAMES_MAX {
            break;
        }
    }
    Ok(names)
}

fn is_folder(folder: &OwnedFd, name: &CStr, kind: Option<Type>) -> bool {
    match kind {
        Some(kind) => kind == Type::Directory,
        None => fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("trash"), folder.path().join("outside"));
        for path in [&root, &outside, &folder.path().join("tree/a/b")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, folder.path().join("tree/a/link")).unwrap();
        symlink(outside.join("kept"), folder.path().join("tree/file-link")).unwrap();
        std::fs::write(folder.path().join("tree/a/b/file"), "x").unwrap();
        let trash = Trash::new(root.clone());
        trash.discard(&folder.path().join("tree")).unwrap();
        trash.discard(&folder.path().join("absent")).unwrap();
        assert!(!folder.path().join("tree").exists());
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1);
        trash.empty().unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_any_stack_is_removed() {
        const DEPTH: usize = 3_000;
        // In memory: so many folders take ten seconds on a disk.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let root = folder.path().join("trash");
        std::fs::create_dir_all(root.join("deep")).unwrap();
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut at = Dir::open(&root.join("deep"), flags, Mode::empty()).unwrap();
        for _ in 0..DEPTH {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = Dir::openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        Trash::new(root.clone()).empty().unwrap();
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_of_more_names_than_are_held_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let wide = folder.path().join("wide");
        std::fs::create_dir(&wide).unwrap();
        for name in 0..NAMES_MAX + 10 {
            std::fs::write(wide.join(name.to_string()), "").unwrap();
        }
        let mut opened = Dir::open(&wide, OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(names_in(&mut opened).unwrap().len(), NAMES_MAX);
        remove_folder(&wide).unwrap();
        assert!(!wide.exists());
    }

    #[test]
    fn what_cannot_be_removed_is_not_in_the_way_of_the_rest() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to mount; run `sudo -E cargo test -p node-agent-shell`");
            return;
        }
        struct Mounted(PathBuf);
        impl Drop for Mounted {
            fn drop(&mut self) {
                nix::mount::umount(&self.0).unwrap();
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        // Busy ones on the top and below, and in whatever order the file system lists them.
        let stuck = ["1", "5/inner", "9"].map(|name| folder.path().join(name));
        for number in 0..10 {
            std::fs::create_dir_all(folder.path().join(format!("{number}/inner/more"))).unwrap();
            std::fs::write(folder.path().join(format!("{number}/inner/file")), "x").unwrap();
        }
        let mounts = stuck.map(|point| {
            let none: Option<&str> = None;
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("trash"), &point, Some("tmpfs"), flags, none).unwrap();
            std::fs::write(point.join("kept"), "x").unwrap();
            Mounted(point)
        });
        let error = empty_folder(folder.path()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EBUSY as i32), "{error}");
        assert_eq!(names(), 3, "only what holds a mount is left");
        assert!(
            mounts.iter().all(|mount| mount.0.join("kept").exists()),
            "no mount is emptied"
        );
        drop(mounts);
        empty_folder(folder.path()).unwrap();
        assert_eq!(names(), 0);
    }
}
