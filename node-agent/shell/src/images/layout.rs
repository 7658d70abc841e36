//! An OCI image layout on this machine: a folder, or a tar of one.

use crate::images::document::DOCUMENT_MAX;
use crate::images::error::ImageError;
use crate::images::tarball::{Kind, TarError, Tarball};
use crate::images::unpack::Source;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Take};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The most files that a tar of a layout may hold.
const FILES_MAX: usize = 100_000;

/// Changes whenever the layout does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

/// Where a layout's files are.
#[derive(Debug)]
pub(crate) enum Layout {
    Folder(PathBuf),
    /// Offset and size of each file in it.
    Tar(PathBuf, HashMap<String, (u64, u64)>),
}

/// Finds the layout that `text` names: a path below one of the allowed folders, perhaps with `:tag`.
pub(crate) fn find(text: &str, allowed: &[PathBuf]) -> Result<(PathBuf, Option<String>), ImageError> {
    let image = format!("oci:{text}");
    let candidates = [(text, None)]
        .into_iter()
        .chain(text.rsplit_once(':').map(|(path, tag)| (path, Some(tag))));
    for (path, tag) in candidates {
        let path = match (path.starts_with('/'), allowed.first()) {
            (true, _) => PathBuf::from(path),
            (false, Some(first)) => first.join(path),
            (false, None) => continue,
        };
        let Ok(real) = path.canonicalize() else { continue };
        let inside = allowed
            .iter()
            .filter_map(|dir| dir.canonicalize().ok())
            .any(|dir| real.starts_with(dir));
        if !inside {
            return Err(ImageError::IllegalReference {
                reference: image,
                why: format!("image layouts of this node lie in {}", shown(allowed)),
            });
        }
        return Ok((real, tag.map(str::to_owned)));
    }
    Err(ImageError::NotFound {
        image,
        why: format!(
            "no such file or folder on the node; image layouts lie in {}",
            shown(allowed)
        ),
    })
}

fn shown(allowed: &[PathBuf]) -> String {
    match allowed {
        [] => "no folder: none is set in the agent's settings".to_owned(),
        dirs => dirs
            .iter()
            .map(|dir| dir.display().to_string())
            .collect::<Vec<_>>()
            .join(" or "),
    }
}

/// What tells one state of the layout from another.
pub(crate) fn stamp(path: &Path) -> io::Result<Stamp> {
    let meta = path.metadata()?;
    let meta = if meta.is_dir() {
        path.join("index.json").metadata()?
    } else {
        meta
    };
    Ok(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        size: meta.size(),
        changed: (meta.ctime(), meta.ctime_nsec()),
        modified: (meta.mtime(), meta.mtime_nsec()),
    })
}

impl Layout {
    pub(crate) fn open(image: &str, path: &Path) -> Result<Self, ImageError> {
        let meta = path.metadata().map_err(|e| ImageError::io(image, path, &e))?;
        if meta.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let file = open_file(path).map_err(|e| ImageError::io(image, path, &e))?;
        match list(file) {
            Ok(files) => Ok(Self::Tar(path.to_owned(), files)),
            Err(TarError::Io(e)) => Err(ImageError::io(image, path, &e)),
            Err(TarError::Broken(why)) => Err(ImageError::Malformed {
                image: image.to_owned(),
                why: format!(
                    "{} is not an uncompressed tar of an OCI image layout: {why}",
                    path.display()
                ),
            }),
        }
    }

    /// The index.
    pub(crate) fn index(&self, image: &str) -> Result<Vec<u8>, ImageError> {
        self.document(image, "index.json")
    }

    /// A small blob, not verified.
    pub(crate) fn small_blob(&self, image: &str, hex: &str) -> Result<Vec<u8>, ImageError> {
        self.document(image, &format!("blobs/sha256/{hex}"))
    }

    /// A blob to be streamed, not verified.
    pub(crate) fn blob(&self, image: &str, hex: &str) -> Result<FileSource, ImageError> {
        let name = format!("blobs/sha256/{hex}");
        match self.file(&name) {
            Ok(file) => Ok(FileSource {
                file,
                path: self.path().join(&name),
                image: image.to_owned(),
                failure: None,
            }),
            Err(e) => Err(self.missing(image, &name, &e)),
        }
    }

    fn document(&self, image: &str, name: &str) -> Result<Vec<u8>, ImageError> {
        let file = self.file(name).map_err(|e| self.missing(image, name, &e))?;
        let mut bytes = Vec::new();
        file.take(DOCUMENT_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| ImageError::io(image, &self.path().join(name), &e))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            return Err(ImageError::TooLarge {
                image: image.to_owned(),
                what: format!("its file {name}"),
                limit: format!("{DOCUMENT_MAX} bytes"),
            });
        }
        Ok(bytes)
    }

    fn file(&self, name: &str) -> io::Result<Take<File>> {
        match self {
            Self::Folder(path) => Ok(open_file(&path.join(name))?.take(u64::MAX)),
            Self::Tar(path, files) => {
                let (offset, size) = files.get(name).ok_or(io::ErrorKind::NotFound)?;
                let mut file = open_file(path)?;
                file.seek(SeekFrom::Start(*offset))?;
                Ok(file.take(*size))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Tar(path, _) => path,
        }
    }

    fn missing(&self, image: &str, name: &str, cause: &io::Error) -> ImageError {
        if cause.kind() != io::ErrorKind::NotFound {
            return ImageError::io(image, &self.path().join(name), cause);
        }
        ImageError::Malformed {
            image: image.to_owned(),
            why: format!("{} has no file {name}", self.path().display()),
        }
    }
}

/// A blob of a layout.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: Take<File>,
    path: PathBuf,
    image: String,
    failure: Option<ImageError>,
}

impl Read for FileSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file
            .read(buffer)
            .inspect_err(|e| self.failure = Some(ImageError::io(&self.image, &self.path, e)))
    }
}

impl Source for FileSource {
    fn failure(&mut self) -> Option<ImageError> {
        self.failure.take()
    }
}

/// Opens a regular file; never waits for the other end of a pipe.
fn open_file(path: &Path) -> io::Result<File> {
    let nonblock = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(nonblock).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

/// Where each file of an uncompressed tar begins.
fn list(file: File) -> Result<HashMap<String, (u64, u64)>, TarError> {
    let mut files = HashMap::new();
    let length = file.metadata()?.len();
    let mut tarball = Tarball::new(file);
    while let Some(entry) = tarball.next()? {
        if entry.kind == Kind::File {
            let name = String::from_utf8_lossy(&entry.name).trim_start_matches("./").to_owned();
            if files.len() >= FILES_MAX {
                return Err(TarError::Broken("it holds more than 100000 files".to_owned()));
            }
            files.insert(name, (tarball.position(), entry.size));
        }
        let data_end = tarball.position().saturating_add(entry.size);
        if data_end > length {
            return Err(TarError::Broken("it ends in the middle of an entry".to_owned()));
        }
        let (file, rest) = tarball.passed_over();
        file.seek_relative(i64::try_from(rest).unwrap_or(i64::MAX))?;
    }
    if files.contains_key("index.json") {
        return Ok(files);
    }
    Err(TarError::Broken("it has no file index.json".to_owned()))
}
