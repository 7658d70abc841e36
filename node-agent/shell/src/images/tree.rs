//! Lays out a layer's entries below one folder, never outside it: every path is opened component
//! by component without following a link, whatever entries came before.
//!
//! Rules: absolute names, `..` and names below a link are refused; devices are refused, because a
//! step must not find any that it did not get from the sandbox; pipes are left out; links may point
//! anywhere, since they are only followed inside a container; owner, mode (with setuid, the mounts
//! are nosuid), time and the attribute `security.capability` are kept, other attributes are not.

use crate::images::shelf::Size;
use crate::images::tarball::{Entry, Kind, TarError, Tarball};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The most entries that one layer may have.
pub(crate) const ENTRIES_MAX: u64 = 2_000_000;
/// The most bytes of folders' names that are held until their times are set: a million folders of
/// ordinary names. As many of the longest as there may be entries would take 8 GiB.
pub(crate) const FOLDER_NAMES_BYTES_MAX: usize = 128 << 20;
/// The longest name: what Linux allows.
const NAME_MAX: usize = 4_095;
/// The longest part of a name: what file systems allow.
const PART_MAX: usize = 255;
/// Overlay's own mark of a folder that hides what lies below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_ALL: &[u8] = b".wh..wh..opq";
/// Notes of older tools that are no part of the image.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const COPY_BUFFER: usize = 128 * 1024;

/// Why a layer cannot be laid out.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Reading or writing failed.
    Io(io::Error),
    /// An entry that no layer may have.
    Hostile { entry: String, why: String },
    /// Not a layer, or a damaged one.
    Broken(String),
    /// A limit is passed.
    TooLarge { what: String, limit: String },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<TarError> for Fault {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Io(error) => Self::Io(error),
            TarError::Broken(why) => Self::Broken(why),
        }
    }
}

/// Lays out a whole layer in `root`, an empty folder, and sees it safe on the disk.
pub(crate) fn lay_out(from: impl Read, root: &Path) -> Result<Size, Fault> {
    let mut tree = Tree::open(root)?;
    let mut tarball = Tarball::new(from);
    while let Some(entry) = tarball.next()? {
        tree.place(&entry, &mut tarball)?;
    }
    tree.finish()
}

type Parts<'a> = Vec<&'a [u8]>;

struct Tree {
    root: OwnedFd,
    /// The folder that was opened last; entries of one folder follow one another.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Folders and their times, set at the end because every new entry changes them.
    folders: Vec<(Vec<u8>, (i64, i64))>,
    folder_names_bytes: usize,
    size: Size,
    buffer: Vec<u8>,
}

impl Tree {
    fn open(root: &Path) -> Result<Self, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        Ok(Self {
            root,
            last: None,
            folders: Vec::new(),
            folder_names_bytes: 0,
            size: Size::default(),
            buffer: vec![0; COPY_BUFFER],
        })
    }

    fn place(&mut self, entry: &Entry, tarball: &mut Tarball<impl Read>) -> Result<(), Fault> {
        self.count()?;
        let parts = parts(&entry.name, &entry.name)?;
        match entry.kind {
            Kind::CharDevice | Kind::BlockDevice => {
                return Err(hostile(
                    &entry.name,
                    "it is a device; build the image without devices, every step gets its own /dev",
                ));
            }
            Kind::Fifo => return Ok(()),
            Kind::Other(kind) => {
                return Err(hostile(
                    &entry.name,
                    &format!("its kind `{}` is unknown", kind.escape_ascii()),
                ));
            }
            Kind::File | Kind::Folder | Kind::Symlink | Kind::HardLink => {}
        }
        let Some((name, above)) = parts.split_last() else {
            return self.root_entry(entry);
        };
        let parent = self.folder(above, entry)?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(name, hidden, &parent, entry);
        }
        match entry.kind {
            Kind::Folder => self.make_folder(&parts, &parent, name, entry),
            Kind::File => self.make_file(&parent, name, entry, tarball),
            Kind::Symlink => make_symlink(&parent, name, entry),
            _ => self.make_hard_link(&parent, name, entry),
        }?;
        self.last = Some((above.join(&b'/'), parent));
        Ok(())
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.size.entries += 1;
        if self.size.entries > ENTRIES_MAX {
            return Err(Fault::TooLarge {
                what: "the number of entries of a layer".to_owned(),
                limit: ENTRIES_MAX.to_string(),
            });
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), Fault> {
        if entry.kind != Kind::Folder {
            return Err(hostile(&entry.name, "it would replace the root folder"));
        }
        set_owner_and_mode(&self.root, entry)?;
        self.set_time_at_the_end(Vec::new(), entry)
    }

    fn set_time_at_the_end(&mut self, path: Vec<u8>, entry: &Entry) -> Result<(), Fault> {
        self.folder_names_bytes += path.len();
        if self.folder_names_bytes > FOLDER_NAMES_BYTES_MAX {
            return Err(Fault::TooLarge {
                what: "the length of all names of folders of a layer".to_owned(),
                limit: format!("{FOLDER_NAMES_BYTES_MAX} bytes"),
            });
        }
        self.folders.push((path, entry.mtime));
        Ok(())
    }

    /// Opens the folder that an entry lies in, making what is missing of it.
    fn folder(&mut self, above: &[&[u8]], entry: &Entry) -> Result<OwnedFd, Fault> {
        let path = above.join(&b'/');
        if let Some((last, fd)) = self.last.take()
            && last == path
        {
            return Ok(fd);
        }
        match self.open_below(&path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|e| astray(e, entry)),
        }
        let mut parent = self.open_below(b"").map_err(|e| astray(e, entry))?;
        for end in 1..=above.len() {
            let path = above[..end].join(&b'/');
            parent = match self.open_below(&path) {
                Err(Errno::NOENT) => {
                    self.count()?;
                    rustix::fs::mkdirat(&parent, name_of(above[end - 1]), Mode::from_raw_mode(0o755))?;
                    let made = self.open_below(&path).map_err(|e| astray(e, entry))?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    made
                }
                other => other.map_err(|e| astray(e, entry))?,
            };
        }
        Ok(parent)
    }

    fn open_below(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(
            &self.root,
            OsStr::from_bytes(path),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn whiteout(&mut self, name: &[u8], hidden: &[u8], parent: &OwnedFd, entry: &Entry) -> Result<(), Fault> {
        if name == WHITEOUT_ALL {
            return set_opaque(parent);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(hostile(&entry.name, "it hides nothing that has a name"));
        }
        // Only what lies in layers below is hidden: an entry of this layer with that name stays.
        match kind_of(parent, hidden)? {
            None => {
                let device = rustix::fs::makedev(0, 0);
                rustix::fs::mknodat(
                    parent,
                    name_of(hidden),
                    FileType::CharacterDevice,
                    Mode::empty(),
                    device,
                )?;
            }
            Some(FileType::Directory) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                set_opaque(&rustix::fs::openat(parent, name_of(hidden), flags, Mode::empty())?)?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn make_folder(&mut self, parts: &Parts<'_>, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Fault> {
        let before = kind_of(parent, name)?;
        if before != Some(FileType::Directory) {
            let was_whiteout = before == Some(FileType::CharacterDevice);
            make_way(parent, name, before, entry)?;
            rustix::fs::mkdirat(parent, name_of(name), Mode::from_raw_mode(0o700))?;
            if was_whiteout {
                let made = self.open_below(&parts.join(&b'/')).map_err(|e| astray(e, entry))?;
                set_opaque(&made)?;
            }
        }
        let path = parts.join(&b'/');
        let made = self.open_below(&path).map_err(|e| astray(e, entry))?;
        set_owner_and_mode(&made, entry)?;
        self.set_time_at_the_end(path, entry)
    }

    fn make_file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        tarball: &mut Tarball<impl Read>,
    ) -> Result<(), Fault> {
        make_way(parent, name, kind_of(parent, name)?, entry)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name_of(name), flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(fd);
        let mut data = tarball.data();
        let mut written = 0;
        loop {
            match data.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => {
                    file.write_all(&self.buffer[..n])?;
                    written += n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        if written != entry.size {
            return Err(Fault::Broken(format!(
                "its entry `{}` says {} bytes and has {written}",
                shown(&entry.name),
                entry.size
            )));
        }
        self.size.bytes += written.next_multiple_of(4096);
        set_owner_and_mode(file.as_fd(), entry)?;
        if let Some(capability) = &entry.capability {
            rustix::fs::fsetxattr(&file, "security.capability", capability, XattrFlags::empty())?;
        }
        rustix::fs::futimens(&file, &times(entry.mtime))?;
        Ok(())
    }

    fn make_hard_link(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Fault> {
        let target = parts(&entry.link, &entry.name)?;
        let Some((target_name, above)) = target.split_last() else {
            return Err(hostile(&entry.name, "it is a hard link to the root folder"));
        };
        let path = above.join(&b'/');
        let folder = match self.open_below(&path) {
            Err(Errno::NOENT) => return Err(stray_link(entry)),
            other => other.map_err(|e| astray(e, entry))?,
        };
        match kind_of(&folder, target_name)? {
            Some(FileType::RegularFile | FileType::Symlink) => {}
            None => return Err(stray_link(entry)),
            Some(_) => return Err(hostile(&entry.name, "it is a hard link to something that is no file")),
        }
        if entry.name == entry.link {
            return Ok(());
        }
        make_way(parent, name, kind_of(parent, name)?, entry)?;
        match rustix::fs::linkat(&folder, name_of(target_name), parent, name_of(name), AtFlags::empty()) {
            Err(Errno::NOENT) => Err(stray_link(entry)),
            other => Ok(other?),
        }
    }

    fn finish(mut self) -> Result<Size, Fault> {
        self.last = None;
        // The deepest last: setting the time of a folder does not change that of the one above.
        for (path, mtime) in &self.folders {
            match self.open_below(path) {
                Ok(folder) => rustix::fs::futimens(&folder, &times(*mtime))?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        rustix::fs::syncfs(&self.root)?;
        Ok(self.size)
    }
}

/// The parts of a name; `shown` is named in the refusal.
fn parts<'a>(name: &'a [u8], entry: &[u8]) -> Result<Parts<'a>, Fault> {
    if name.starts_with(b"/") {
        return Err(hostile(entry, "its name is absolute"));
    }
    if name.len() > NAME_MAX {
        return Err(hostile(entry, "its name is longer than 4095 bytes"));
    }
    if name.contains(&0) {
        return Err(hostile(entry, "its name contains a zero byte"));
    }
    let parts: Parts<'a> = name
        .split(|byte| *byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .collect();
    if parts.contains(&&b".."[..]) {
        return Err(hostile(entry, "its name contains `..`"));
    }
    if parts.iter().any(|part| part.len() > PART_MAX) {
        return Err(hostile(entry, "a part of its name is longer than 255 bytes"));
    }
    Ok(parts)
}

fn make_symlink(parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Fault> {
    if entry.link.is_empty() || entry.link.len() > NAME_MAX || entry.link.contains(&0) {
        return Err(hostile(
            &entry.name,
            "the target of the link is empty, too long or contains a zero byte",
        ));
    }
    make_way(parent, name, kind_of(parent, name)?, entry)?;
    rustix::fs::symlinkat(name_of(&entry.link), parent, name_of(name))?;
    let (uid, gid) = owner(entry)?;
    rustix::fs::chownat(parent, name_of(name), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::utimensat(parent, name_of(name), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Removes what an earlier entry of the same name has left.
fn make_way(parent: &OwnedFd, name: &[u8], before: Option<FileType>, entry: &Entry) -> Result<(), Fault> {
    match before {
        None => Ok(()),
        Some(FileType::Directory) => match rustix::fs::unlinkat(parent, name_of(name), AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => Err(hostile(
                &entry.name,
                "it would replace a folder of the same layer that is not empty",
            )),
            other => Ok(other?),
        },
        Some(_) => Ok(rustix::fs::unlinkat(parent, name_of(name), AtFlags::empty())?),
    }
}

fn kind_of(parent: &OwnedFd, name: &[u8]) -> Result<Option<FileType>, Fault> {
    match rustix::fs::statat(parent, name_of(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The mode after the owner: giving a file away clears its setuid bit.
fn set_owner_and_mode(fd: impl AsFd, entry: &Entry) -> Result<(), Fault> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode & 0o7777))?;
    Ok(())
}

fn owner(entry: &Entry) -> Result<(rustix::fs::Uid, rustix::fs::Gid), Fault> {
    // The highest number means "leave it" to the kernel.
    let id = |number: u64| u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    match (id(entry.uid), id(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid))),
        _ => Err(hostile(
            &entry.name,
            "its owner or group is not a number that Linux knows",
        )),
    }
}

fn set_opaque(folder: &OwnedFd) -> Result<(), Fault> {
    Ok(rustix::fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())?)
}

fn times((seconds, nanos): (i64, i64)) -> Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn name_of(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn astray(error: Errno, entry: &Entry) -> Fault {
    match error {
        Errno::LOOP => hostile(&entry.name, "a folder in its path is a symbolic link"),
        Errno::NOTDIR => hostile(&entry.name, "a folder in its path is not a folder"),
        Errno::XDEV => hostile(&entry.name, "its path leads outside of the layer"),
        other => other.into(),
    }
}

fn stray_link(entry: &Entry) -> Fault {
    hostile(
        &entry.name,
        &format!(
            "it is a hard link to `{}`, which is not in the same layer",
            shown(&entry.link)
        ),
    )
}

fn hostile(name: &[u8], why: &str) -> Fault {
    Fault::Hostile {
        entry: shown(name),
        why: why.to_owned(),
    }
}

/// A name for people: printable and of bounded length.
fn shown(name: &[u8]) -> String {
    const SHOWN_MAX: usize = 200;
    let text: String = String::from_utf8_lossy(name)
        .chars()
        .flat_map(char::escape_debug)
        .take(SHOWN_MAX)
        .collect();
    if name.len() > SHOWN_MAX {
        format!("{text}…")
    } else {
        text
    }
}
