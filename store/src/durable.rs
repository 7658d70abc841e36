//! Folders that survive a crash: a new name is durable once the folder that holds it is.
//!
//! Not here: files.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Makes a folder and those above it where they are missing, for this user alone: state and logs
/// are nobody else's business.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    let missing = folder
        .ancestors()
        .take_while(|f| !f.as_os_str().is_empty() && !f.exists());
    let missing: Vec<&Path> = missing.collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for made in missing {
        let holder = made.parent().filter(|p| !p.as_os_str().is_empty());
        sync(holder.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Makes the names in a folder durable.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
