//! Pages of a listing: the tree is walked in order of names, and what lies before the page is not entered.
//!
//! Not here: what a prefix may be.

use super::{Folder, MARK};
use crate::blob::{BlobEntry, BlobName, BlobPage};
use std::fs;
use std::io::{self, ErrorKind};

/// What a folder holds under one part of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blob,
    Folder,
}

/// Something to visit: the name of a blob, or of a folder with a `/` at its end. In this order of
/// texts the blobs are in order of names: a folder's text begins the name of everything in it and
/// of nothing else.
type Place = (String, Kind);

impl Folder {
    /// At most `limit` blobs below `below` (parts without a `/` at the end; empty: all) after `after`.
    pub(super) fn page(&self, below: &str, after: Option<&str>, limit: usize) -> io::Result<BlobPage> {
        let mut entries = Vec::new();
        let mut places = vec![self.places(below, after)?.into_iter()];
        while let Some(level) = places.last_mut() {
            match level.next() {
                None => drop(places.pop()),
                Some((folder, Kind::Folder)) => {
                    let parts = folder.trim_end_matches('/');
                    places.push(self.places(parts, after)?.into_iter());
                }
                Some((blob, Kind::Blob)) => {
                    let Some(entry) = self.entry(blob)? else { continue };
                    if entries.len() == limit {
                        let next = entries.last().map(|e: &BlobEntry| e.name.clone());
                        return Ok(BlobPage { entries, next });
                    }
                    entries.push(entry);
                }
            }
        }
        Ok(BlobPage { entries, next: None })
    }

    /// What lies in a folder, in order, as far as it may hold names after `after`.
    fn places(&self, parts: &str, after: Option<&str>) -> io::Result<Vec<Place>> {
        let entries = match fs::read_dir(self.root.join(parts)) {
            Ok(entries) => entries,
            // Removed meanwhile, or never there.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            let place = place(&entry?, parts)?;
            found.extend(place.filter(|place| may_be_after(place, after)));
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// A blob with its size; `None` if it was deleted meanwhile.
    fn entry(&self, blob: String) -> io::Result<Option<BlobEntry>> {
        let Ok(name) = BlobName::new(blob) else { return Ok(None) };
        match fs::metadata(self.file(&name)) {
            Ok(meta) => Ok(Some(BlobEntry { name, size: meta.len() })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn may_be_after((text, kind): &Place, after: Option<&str>) -> bool {
    let Some(after) = after else { return true };
    match kind {
        Kind::Blob => text.as_str() > after,
        Kind::Folder => text.as_str() > after || after.starts_with(text),
    }
}

/// Where an entry belongs; what is not ours is passed over.
fn place(entry: &fs::DirEntry, parts: &str) -> io::Result<Option<Place>> {
    let file_name = entry.file_name();
    let Some(part) = file_name.to_str() else {
        return Ok(None);
    };
    let named = |part: &str| {
        let full = if parts.is_empty() {
            part.to_owned()
        } else {
            format!("{parts}/{part}")
        };
        BlobName::new(full).ok().map(|name| name.as_str().to_owned())
    };
    if let Some(blob) = part.strip_suffix(MARK) {
        return Ok(named(blob).map(|name| (name, Kind::Blob)));
    }
    let Some(folder) = named(part) else { return Ok(None) };
    Ok(entry
        .file_type()?
        .is_dir()
        .then(|| (format!("{folder}/"), Kind::Folder)))
}
