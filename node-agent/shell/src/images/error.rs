//! Why an image could not be made ready, each a sentence that says how to mend it.

use std::path::PathBuf;

/// Why an image could not be made ready. Cheap to clone: callers that waited for the same fetch
/// all get it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The reference is not one.
    #[error("`{reference}` is not an image: {why}")]
    IllegalReference {
        /// As it was given.
        reference: String,
        /// The rule that it breaks.
        why: String,
    },
    /// There is no such image.
    #[error("the image {image} does not exist: {why}; check its name and tag")]
    NotFound {
        /// As it was asked for.
        image: String,
        /// What the registry or the disk said.
        why: String,
    },
    /// The registry wants other credentials.
    #[error(
        "the registry {host} refuses access to {image}: {why}; set or mend its credentials in the agent's settings"
    )]
    Unauthorised {
        /// The registry.
        host: String,
        /// As it was asked for.
        image: String,
        /// What the registry said.
        why: String,
    },
    /// What came is not what its digest says.
    #[error(
        "{what} of {image} is damaged or was changed: its digest should be {expected} but is {found}; push the image again"
    )]
    DigestMismatch {
        /// As it was asked for.
        image: String,
        /// Which part.
        what: String,
        /// As the image says.
        expected: String,
        /// As it came.
        found: String,
    },
    /// A layer holds what no layer may hold.
    #[error("the image {image} is refused because of its entry `{entry}`: {why}")]
    Hostile {
        /// As it was asked for.
        image: String,
        /// The entry's name inside the layer.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A limit is passed.
    #[error("the image {image} is refused: {what} passes the limit of {limit}")]
    TooLarge {
        /// As it was asked for.
        image: String,
        /// What passes it.
        what: String,
        /// The limit, with its unit.
        limit: String,
    },
    /// The image's own documents make no sense.
    #[error("the image {image} is broken: {why}; build and push it again")]
    Malformed {
        /// As it was asked for.
        image: String,
        /// What and where.
        why: String,
    },
    /// Not for this kind of machine.
    #[error("the image {image} has nothing for {wanted}; it has {found}")]
    NoPlatform {
        /// As it was asked for.
        image: String,
        /// This node's platform.
        wanted: String,
        /// What the index lists.
        found: String,
    },
    /// The registry did not answer.
    #[error("the image {image} cannot be fetched: {why}; check the registry and the network")]
    Unreachable {
        /// As it was asked for.
        image: String,
        /// What happened, after all retries.
        why: String,
    },
    /// The node's disk is full.
    #[error("the node's disk is full at {} while unpacking {image}; free some space there", path.display())]
    DiskFull {
        /// As it was asked for.
        image: String,
        /// Where.
        path: PathBuf,
    },
    /// A file or folder of ours could not be read or written.
    #[error("{}: {why}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        why: String,
    },
}

impl ImageError {
    /// True when the same call may well succeed a little later without anybody changing anything.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(crate) fn io(image: &str, path: &std::path::Path, cause: &std::io::Error) -> Self {
        match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull {
                image: image.to_owned(),
                path: path.to_owned(),
            },
            _ => Self::Io {
                path: path.to_owned(),
                why: cause.to_string(),
            },
        }
    }
}
