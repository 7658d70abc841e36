//! Images from hand-made layouts and from a real registry, good and hostile.

mod hostile;
mod layouts;
mod made;
mod remote;

use crate::images::{ImageSettings, Images, ReadyImage};
use std::path::{Path, PathBuf};

/// A node's store and a folder for layouts.
struct Node {
    home: tempfile::TempDir,
    images: Images,
}

impl Node {
    fn with(change: impl FnOnce(&mut ImageSettings)) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("layouts")).unwrap();
        let mut settings = ImageSettings::new(home.path().join("store"));
        settings.layout_dirs = vec![home.path().join("layouts")];
        change(&mut settings);
        let images = Images::open(settings).unwrap();
        Self { home, images }
    }

    fn layouts(&self) -> PathBuf {
        self.home.path().join("layouts")
    }

    /// Nothing but finished layers is in the store.
    fn assert_nothing_half(&self) {
        let temporary = self.images.root().join("temporary");
        let left: Vec<_> = std::fs::read_dir(temporary)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn layers(&self) -> usize {
        std::fs::read_dir(self.images.root().join("layers")).unwrap().count()
    }
}

/// The topmost layer that has `path`.
fn find(image: &ReadyImage, path: &str) -> Option<PathBuf> {
    image
        .lowers
        .iter()
        .map(|lower| lower.join(path))
        .find(|path| path.symlink_metadata().is_ok())
}

fn read(image: &ReadyImage, path: &str) -> String {
    std::fs::read_to_string(find(image, path).unwrap_or_else(|| panic!("{path} is in no layer"))).unwrap()
}

/// True when tests may make devices and set trusted attributes; says so loudly when not.
fn root_or_skip(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: layers can only be unpacked by root");
    }
    root
}

fn program(name: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|dir| Path::new(dir).join(name).exists())
}
