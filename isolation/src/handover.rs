//! What launcher and shim tell each other: one order in memory, and small files in the bundle.
//!
//! Each file has one writer: the launcher writes `paths.json` and `stop`, the shim all others.
//! Files appear by rename, so a reader sees a whole file or none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::cgroup::Slice;
use crate::sandbox::SandboxSpec;

/// Largest file of a bundle that is read back; the largest of ours is far below.
const BUNDLE_FILE_BYTES_MAX: u64 = 256 << 10;
/// Largest order; argv and environment are bounded to 1 MiB, which JSON may blow up six-fold.
const ORDER_BYTES_MAX: u64 = 16 << 20;
/// What the shim writes to its stdout once it has taken over.
pub const READY: &[u8] = b"ready\n";

/// The files of one sandbox in its `run_dir`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The bundle's folder, on the tmpfs.
    pub dir: PathBuf,
}

impl Bundle {
    /// Where the log and the exit record lie ([`Paths`]).
    #[must_use]
    pub fn paths(&self) -> PathBuf {
        self.dir.join("paths.json")
    }

    /// What the shim had to say; locked for as long as a shim holds it open.
    #[must_use]
    pub fn errors(&self) -> PathBuf {
        self.dir.join("shim.err")
    }

    /// Which process the shim is ([`Identity`]).
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.dir.join("shim.json")
    }

    /// When the program was executed, Unix ms.
    #[must_use]
    pub fn started(&self) -> PathBuf {
        self.dir.join("started")
    }

    /// Why the sandbox shall stop.
    #[must_use]
    pub fn stop(&self) -> PathBuf {
        self.dir.join("stop")
    }

    /// The exit record, if the disk would not take it.
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// There once the exit record is written.
    #[must_use]
    pub fn ended(&self) -> PathBuf {
        self.dir.join("ended")
    }

    /// The runtime spec.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// Where the shim mounts the overlay, visible to it and the sandbox only.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }
}

/// Where a sandbox's lasting files lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// The log.
    pub log_path: PathBuf,
    /// The exit record.
    pub exit_path: PathBuf,
}

/// Which process a shim is: numbers of processes are used again, the pair is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub start_time: u64,
}

impl Identity {
    /// The identity of the living process `pid`; `None` if it is gone, a zombie included.
    #[must_use]
    pub fn of(pid: i32) -> Option<Identity> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        start_time(&stat).map(|start_time| Identity { pid, start_time })
    }
}

/// Start time in clock ticks, if the text of `/proc/<pid>/stat` tells of a living process.
fn start_time(stat: &str) -> Option<u64> {
    // The name in parentheses may contain anything, parentheses too.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Everything the shim needs, in memory only because it holds the environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimOrder {
    /// The sandbox.
    pub spec: SandboxSpec,
    /// Its bundle.
    pub bundle: Bundle,
    /// Where the runtime keeps its own state, on the tmpfs.
    pub state_dir: PathBuf,
    /// The slice in which to make its cgroups.
    pub slice: Slice,
    /// How long making the sandbox may take, ms.
    pub setup_patience_ms: u64,
    /// The seccomp programs; not part of the JSON.
    #[serde(skip)]
    pub filters: Vec<Vec<u8>>,
}

impl ShimOrder {
    /// The order as bytes: length and JSON, then length and content of each filter program.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let json = serde_json::to_vec(self)?;
        for part in std::iter::once(&json).chain(&self.filters) {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    /// Reads what [`ShimOrder::encode`] made.
    ///
    /// # Errors
    /// When it is cut short, too long, or no order.
    pub fn decode(from: impl Read) -> io::Result<ShimOrder> {
        let mut bytes = Vec::new();
        from.take(ORDER_BYTES_MAX).read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut parts = Vec::new();
        while !rest.is_empty() {
            let (part, after) =
                split_part(rest).ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "order is cut short"))?;
            parts.push(part);
            rest = after;
        }
        let mut parts = parts.into_iter();
        let json = parts.next().unwrap_or_default();
        let mut order: ShimOrder = serde_json::from_slice(json)?;
        order.filters = parts.map(<[u8]>::to_vec).collect();
        Ok(order)
    }
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

/// Writes a small file so that it appears whole. Not durable: bundles lie in memory.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}

/// Writes a small file so that it appears whole, and never without its content being on the disk.
/// After a crash of the whole node it may not have appeared.
///
/// # Errors
/// When the folder cannot be written; then nothing is left.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Reads a small text file; `None` if there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read_text(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(BUNDLE_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Reads a small JSON file; `None` if there is none.
///
/// # Errors
/// When it is there and cannot be read or understood.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match read_text(path)? {
        Some(text) => Ok(Some(serde_json::from_str(&text)?)),
        None => Ok(None),
    }
}

/// Unix time in ms.
#[must_use]
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name_and_zombies_are_dead() {
        let rest = "1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 777 9 9";
        let cases = [
            (format!("12 (sh) S {rest}"), Some(777)),
            (format!("12 (a) b) (c) R {rest}"), Some(777)),
            (format!("12 (sh) Z {rest}"), None),
            ("12 (sh) S 1 2".to_owned(), None),
            (String::new(), None),
        ];
        for (stat, expected) in cases {
            assert_eq!(start_time(&stat), expected, "{stat}");
        }
    }

    #[test]
    fn an_order_that_is_cut_short_is_refused() {
        for bytes in [
            &b""[..],
            b"\x05\0\0",
            b"\x05\0\0\0\0\0\0\0{}",
            b"\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(ShimOrder::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_durable_file_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit.json");
        write_durably(&path, b"one").unwrap();
        write_durably(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_durably(&folder.path().join("absent/exit.json"), b"x").is_err());
    }
}
