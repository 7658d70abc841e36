//! A role's data folder and the secrets in it: made for this user alone, written whole or not at all.

use crate::error::Failure;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    move |cause| Failure::Internal(format!("{}: {cause}", path.display()))
}

/// Makes the folder (mode 0700) if it is not there and answers its canonical path.
pub(crate) fn prepare(path: &Path) -> Result<PathBuf, Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path))?;
    path.canonicalize().map_err(failed(path))
}

/// Holds the folder for this process; a second process on it is refused. Released when dropped.
pub(crate) fn lock(folder: &Path) -> Result<File, Failure> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(failed(&path))?;
    file.try_lock().map_err(|_| {
        Failure::Internal(format!(
            "the data folder {} is in use by another process; stop that one, or choose another folder",
            folder.display()
        ))
    })?;
    Ok(file)
}

/// Writes a file that only this user may read, durably, replacing what was there as a whole.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed(&temporary))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed(&temporary))?;
    fs::rename(&temporary, path).map_err(failed(path))
}

/// The secret in this file; `make` is asked for a new one if there is none.
pub(crate) fn secret(path: &Path, make: impl FnOnce() -> String) -> Result<String, Failure> {
    if !path.exists() {
        write_private(path, &format!("{}\n", make()))?;
    }
    let text = fs::read_to_string(path).map_err(failed(path))?.trim().to_owned();
    if text.is_empty() {
        return Err(Failure::Internal(format!(
            "{} is empty; remove it and start again to get a new one",
            path.display()
        )));
    }
    Ok(text)
}
