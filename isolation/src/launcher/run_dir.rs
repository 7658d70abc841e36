//! The folder in memory that holds every bundle: made on demand, removed when it is empty.
//!
//! Not here: what lies in a bundle (`handover`).

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::handover::{Bundle, Paths, write_whole};

/// Source of our mounts, by which they are known again.
const MOUNT_SOURCE: &str = "buildflow";
/// Room for the bundles: some 40 KiB each, so several thousand of them.
const MOUNT_OPTIONS: &str = "mode=0700,size=256m,nr_inodes=262144";
/// Begins the names of bundles that are being made; no id begins with it.
const UNFINISHED: &str = ".new-";

/// The folders below `run_dir`.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    root: PathBuf,
}

/// A bundle that has just been made, locked for the shim.
pub(crate) struct NewBundle {
    pub(crate) bundle: Bundle,
    /// The shim's stderr. Whoever holds it open holds the lock.
    pub(crate) errors: File,
}

fn on_tmpfs(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == TMPFS_MAGIC)
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl RunDir {
    /// Makes `root` a root-only folder on a tmpfs, mounting one if needed, and removes what
    /// broken-off launches left.
    pub(crate) fn open(root: &Path) -> io::Result<RunDir> {
        private_folder(root)?;
        let root = root.canonicalize()?;
        if !on_tmpfs(&root)? {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some(MOUNT_SOURCE), &root, Some("tmpfs"), flags, Some(MOUNT_OPTIONS))?;
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
        let run_dir = RunDir { root };
        private_folder(&run_dir.bundles())?;
        private_folder(&run_dir.state())?;
        for name in folder_names(&run_dir.bundles())? {
            if name.starts_with(UNFINISHED) {
                remove_flat(&run_dir.bundles().join(name))?;
            }
        }
        Ok(run_dir)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn bundles(&self) -> PathBuf {
        self.root.join("bundles")
    }

    /// Where libcontainer keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn bundle(&self, id: &str) -> Bundle {
        Bundle {
            dir: self.bundles().join(id),
        }
    }

    pub(crate) fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = folder_names(&self.bundles())?;
        ids.retain(|name| !name.starts_with('.'));
        Ok(ids)
    }

    /// Removes the runtime's state of `id`.
    pub(crate) fn remove_state(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.state().join(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the bundle of `id`; it appears whole and locked. `AlreadyExists` if there is one.
    pub(crate) fn make_bundle(&self, id: &str, paths: &Paths) -> io::Result<NewBundle> {
        let bundle = self.bundle(id);
        let unfinished = Bundle {
            dir: self.bundles().join(format!("{UNFINISHED}{id}")),
        };
        // Two launches of one id at the same time: the first to make this folder goes on.
        fs::create_dir(&unfinished.dir)?;
        let made = (|| {
            fs::create_dir(unfinished.rootfs())?;
            write_whole(&unfinished.paths(), &serde_json::to_vec(paths)?)?;
            let errors = File::options().append(true).create(true).open(unfinished.errors())?;
            // The lock belongs to the open file, which the shim inherits: it lasts as long as
            // anybody holds that open.
            errors.try_lock()?;
            match fs::rename(&unfinished.dir, &bundle.dir) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Err(ErrorKind::AlreadyExists.into()),
                Err(error) => Err(error),
                Ok(()) => Ok(errors),
            }
        })();
        match made {
            Ok(errors) => Ok(NewBundle { bundle, errors }),
            Err(error) => {
                let _ = remove_flat(&unfinished.dir);
                Err(error)
            }
        }
    }

    /// Removes the bundle and the runtime's state of `id`, whatever of them is there.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        unmount_below(&self.bundle(id).dir)?;
        self.remove_state(id)?;
        remove_flat(&self.bundle(id).dir)
    }

    /// Removes the folders, unmounts the tmpfs if it is ours, and removes the mount point if nothing
    /// else lies in it.
    pub(crate) fn dissolve(&self) -> io::Result<()> {
        for folder in [self.bundles(), self.state()] {
            match fs::remove_dir(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let ours = mount_points()?.contains(&(MOUNT_SOURCE.to_owned(), self.root.clone()));
        if ours {
            // It is empty. Detaching does not mind a process that was just executed by another
            // thread and holds a file of ours open for one more moment.
            umount2(&self.root, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
        match fs::remove_dir(&self.root) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// Whether some process still holds the bundle of a shim open.
pub(crate) fn is_locked(bundle: &Bundle) -> io::Result<bool> {
    let file = match File::open(bundle.errors()) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn folder_names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a folder of files and empty folders. It never descends, so that it cannot empty what
/// may still be mounted in it.
fn remove_flat(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Source and mount point of every mount that we see.
fn mount_points() -> io::Result<Vec<(String, PathBuf)>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let parsed = text.lines().filter_map(|line| {
        let (mount, device) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?.replace("\\040", " ");
        Some((device.split(' ').nth(1)?.to_owned(), PathBuf::from(point)))
    });
    Ok(parsed.collect())
}

/// Detaches whatever is mounted below a bundle in our own namespace. Normally nothing is: the
/// shim mounts in a namespace of its own, which vanishes with its processes.
fn unmount_below(dir: &Path) -> io::Result<()> {
    for (_, point) in mount_points()?.into_iter().rev() {
        if point.starts_with(dir) {
            umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
    }
    Ok(())
}
