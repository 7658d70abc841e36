//! Removal of folders that strangers filled: out of the way at once, by a rename, and emptied in
//! the background.
//!
//! A tree may be as deep as its maker liked, so it is not walked by recursion: every folder inside
//! a folder is first moved up into the trash itself, and then comes its turn. Links are removed,
//! never followed.

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

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
            }
            self.wake.notified().await;
        }
    }

    /// Removes everything in it. Blocking.
    pub(crate) fn empty(&self) -> io::Result<()> {
        let mut root = Dir::open(&**self.root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        loop {
            let names = names_in(&mut root)?;
            if names.is_empty() {
                return Ok(());
            }
            for (name, kind) in &names {
                remove(&root, name, *kind)?;
            }
        }
    }
}

fn unique() -> String {
    let ordinal = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{ordinal}-{}", std::process::id(), crate::blocking::now_ms())
}

/// Removes one entry of the trash: a folder's own folders are moved into the trash first.
fn remove(root: &Dir, name: &CStr, kind: Option<Type>) -> io::Result<()> {
    if is_folder(root, name, kind) {
        match unlink(root, name, UnlinkatFlags::RemoveDir) {
            Err(e) if e.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => {}
            done => return done,
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut folder = Dir::openat(root, name, flags, Mode::empty())?;
        for (inner, kind) in names_in(&mut folder)? {
            if is_folder(&folder, &inner, kind) {
                lift(root, &folder, &inner)?;
            } else {
                unlink(&folder, &inner, UnlinkatFlags::NoRemoveDir)?;
            }
        }
        return unlink(root, name, UnlinkatFlags::RemoveDir);
    }
    unlink(root, name, UnlinkatFlags::NoRemoveDir)
}

/// Removes an empty folder, or moves one that is not into the trash itself.
fn lift(root: &Dir, folder: &Dir, name: &CStr) -> io::Result<()> {
    match unlink(folder, name, UnlinkatFlags::RemoveDir) {
        Err(e) if e.raw_os_error() == Some(Errno::ENOTEMPTY as i32) => {}
        done => return done,
    }
    renameat(folder, name, root, unique().as_str())?;
    Ok(())
}

fn unlink(folder: &Dir, name: &CStr, flags: UnlinkatFlags) -> io::Result<()> {
    match unlinkat(folder, name, flags) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// All entries but `.` and `..`. One folder's names are held at a time.
fn names_in(folder: &mut Dir) -> io::Result<Vec<(CString, Option<Type>)>> {
    let mut names = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

fn is_folder(folder: &Dir, name: &CStr, kind: Option<Type>) -> bool {
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
        let folder = tempfile::tempdir().unwrap();
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
}
