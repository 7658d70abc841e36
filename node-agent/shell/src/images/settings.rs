//! What an operator may set about images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where images come from and where they are kept.
#[derive(Debug, Clone)]
pub struct ImageSettings {
    /// The store's folder, ours alone.
    pub root: PathBuf,
    /// Folders that `oci:PATH` may lie in; a relative path is looked up in the first one.
    pub layout_dirs: Vec<PathBuf>,
    /// Credentials by registry host (with its port if it has one).
    pub registries: BTreeMap<String, Credentials>,
    /// Registry hosts that are spoken to over plain http; loopback always is.
    pub insecure_registries: BTreeSet<String>,
    /// The platform that is picked from an image index.
    pub platform: Platform,
    /// Bytes that unpacked layers may take before the least recently used are removed.
    pub bytes_max: u64,
    /// The most bytes that one layer may unpack to.
    pub layer_bytes_max: u64,
}

/// A registry's user.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub user: String,
    /// Never shown.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// An operating system and a processor, in OCI's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl ImageSettings {
    /// Settings for a store in `root` with nothing else allowed: no layouts, no credentials.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            layout_dirs: Vec::new(),
            registries: BTreeMap::new(),
            insecure_registries: BTreeSet::new(),
            platform: Platform::here(),
            bytes_max: BYTES_MAX,
            layer_bytes_max: LAYER_BYTES_MAX,
        }
    }
}

/// What unpacked layers may take unless the operator says otherwise.
pub const BYTES_MAX: u64 = 50 << 30;

/// What one layer may unpack to unless the operator says otherwise: the largest toolchains take a
/// third of it.
pub const LAYER_BYTES_MAX: u64 = 32 << 30;
