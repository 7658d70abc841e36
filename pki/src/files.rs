//! Certificates and keys on disk: small texts, replaced as a whole, keys for their user alone.

use crate::error::PkiError;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The longest file that is read, bytes: a chain and a key have a hundredth of it.
const FILE_MAX: u64 = 256 * 1024;

fn failed(path: &Path) -> impl Fn(std::io::Error) -> PkiError {
    let path = path.display().to_string();
    move |cause| PkiError::File {
        path: path.clone(),
        cause: cause.to_string(),
    }
}

/// A small text.
///
/// # Errors
/// [`PkiError::File`].
pub fn read_text(path: &Path) -> Result<String, PkiError> {
    let mut text = String::new();
    let file = File::open(path).map_err(failed(path))?;
    file.take(FILE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed(path))?;
    if text.len() as u64 > FILE_MAX {
        return Err(PkiError::File {
            path: path.display().to_string(),
            cause: format!("it has more than {FILE_MAX} bytes"),
        });
    }
    Ok(text)
}

/// Writes a file that only this user may read, durably, replacing what was there as a whole.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o600)
}

/// The same for what everybody may read.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    // One that a crash has left behind may have another mode.
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
            _ => Ok(()),
        });
    written.map_err(|cause| {
        let _ = fs::remove_file(&temporary);
        failed(path)(cause)
    })
}
