//! The key that signs URLs, kept with the blobs: every server that shares the folder has the same.
//!
//! Not here: what is signed ([`crate::signed`]).

use crate::durable::sync;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The key's file: no blob's name holds `@`.
const FILE: &str = "@key";

/// The key's length, bytes: that of the digest.
const LENGTH: usize = 32;

/// Reads the key of the blobs in `root`; makes one if there is none. `new` is a path of our own in
/// the same file system.
pub(super) fn key(root: &Path, new: &Path) -> io::Result<[u8; LENGTH]> {
    let file = root.join(FILE);
    match read(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        key => return key,
    }
    let made = make(new).and_then(|()| match fs::hard_link(new, &file) {
        // Another server of this folder was faster; its key counts.
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => sync(root),
    });
    let removed = fs::remove_file(new);
    made.and(removed)?;
    read(&file)
}

fn make(new: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(&rand::random::<[u8; LENGTH]>())?;
    file.sync_all()
}

fn read(file: &Path) -> io::Result<[u8; LENGTH]> {
    let mut bytes = Vec::new();
    File::open(file)?.take(LENGTH as u64 + 1).read_to_end(&mut bytes)?;
    bytes.try_into().map_err(|_| {
        let text = format!(
            "{} is not a key of {LENGTH} bytes; remove it and a new one is made (signed URLs become invalid)",
            file.display()
        );
        io::Error::new(ErrorKind::InvalidData, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_key_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder;
        let new = |n: u8| folder.path().join(format!("new{n}"));
        let keys: Vec<_> = std::thread::scope(|scope| {
            let made: Vec<_> = (0..4)
                .map(new)
                .map(|new| scope.spawn(move || key(folder.path(), &new).unwrap()))
                .collect();
            made.into_iter().map(|m| m.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|k| *k == keys[0] && *k != [0; LENGTH]));
        let meta = fs::metadata(folder.path().join(FILE)).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (32, 0o600));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing else is left behind"
        );
    }

    #[test]
    fn a_broken_key_says_how_to_mend_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"short").unwrap();
        let refused = key(folder.path(), &folder.path().join("new")).unwrap_err();
        assert!(refused.to_string().contains("remove it"), "{refused}");
    }
}
