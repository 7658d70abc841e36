//! Which cgroup hierarchies this machine has, read from the text of `/proc/self/mountinfo`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Slice, V1Slice, V2Slice, v1, v2};

/// The folder below the hierarchy's root in which all slices of ours lie.
const PARENT: &str = "buildflow";

/// The mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Controller of version 1 to its mount point.
    pub v1: BTreeMap<String, PathBuf>,
    /// Mount point of version 2.
    pub v2: Option<PathBuf>,
}

/// A machine whose cgroups do not suffice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cgroup controllers {} are needed together in version 1 or in version 2; found in version 1: {}; in version 2: {}",
    v2::NEEDED.join(", "),
    if found_v1.is_empty() { "none" } else { found_v1 },
    if found_v2.is_empty() { "none" } else { found_v2 }
)]
pub struct LayoutError {
    /// Controllers of version 1, comma-separated.
    pub found_v1: String,
    /// Controllers of version 2, as the kernel lists them.
    pub found_v2: String,
}

/// A path of mountinfo, in which blanks and backslashes are octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

impl Layout {
    /// Reads the hierarchies out of the text of `/proc/self/mountinfo`.
    #[must_use]
    pub fn from_mountinfo(text: &str) -> Layout {
        let mut layout = Layout::default();
        for line in text.lines() {
            let Some((mount, device)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = mount.split(' ').nth(4).map(unescape) else {
                continue;
            };
            let mut device = device.split(' ');
            match device.next() {
                Some("cgroup") => {
                    for controller in device.nth(1).unwrap_or("").split(',') {
                        layout
                            .v1
                            .entry(controller.to_owned())
                            .or_insert_with(|| point.clone().into());
                    }
                }
                Some("cgroup2") => {
                    layout.v2.get_or_insert_with(|| point.clone().into());
                }
                _ => {}
            }
        }
        let known = |controller: &str| v1::NEEDED.contains(&controller) || v1::WANTED.contains(&controller);
        layout.v1.retain(|controller, _| known(controller));
        layout
    }

    /// The slice called `unique`: in version 1 if it has all that is needed, else in version 2.
    ///
    /// # Errors
    /// When neither has all that is needed.
    pub fn slice(&self, unique: &str) -> Result<Slice, LayoutError> {
        let below = |point: &Path| point.join(PARENT).join(unique);
        if v1::NEEDED.iter().all(|needed| self.v1.contains_key(*needed)) {
            let dirs = self
                .v1
                .iter()
                .map(|(name, point)| (name.clone(), below(point)))
                .collect();
            return Ok(Slice::V1(V1Slice { dirs }));
        }
        let controllers = self
            .v2
            .as_ref()
            .map(|point| fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default());
        let found = controllers.unwrap_or_default();
        let has = |needed: &str| found.split_whitespace().any(|have| have == needed);
        match &self.v2 {
            Some(point) if v2::NEEDED.iter().all(|needed| has(needed)) => Ok(Slice::V2(V2Slice { dir: below(point) })),
            _ => Err(LayoutError {
                found_v1: self.v1.keys().cloned().collect::<Vec<_>>().join(", "),
                found_v2: found.trim().replace(' ', ", "),
            }),
        }
    }
}
