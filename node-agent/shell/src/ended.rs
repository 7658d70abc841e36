//! The allocations that ended here and are held no more, on disk: one id a line, the newest last.
//!
//! It outlives the agent, so that a restarted one does not begin what an old list still names. It
//! need not outlive the machine's power: a machine that starts anew has lost its lease.
//!
//! Not here: what follows from an id ([`node_agent::Node::remember`]).

use model::AllocId;
use node_agent::FENCES_MAX;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The longest file, bytes: twice as many ids as are remembered; then it is cut to those.
const FILE_MAX: u64 = 2 * FENCES_MAX as u64 * 64;

/// The file. Written by one agent, whose lock on the data folder keeps others away; its own tasks
/// take turns.
#[derive(Debug, Clone)]
pub(crate) struct Ended(Arc<Mutex<PathBuf>>);

impl Ended {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(path)))
    }

    fn turn(&self) -> MutexGuard<'_, PathBuf> {
        // A path is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest ids, and the file cut to them. One that cannot be read is begun anew. Blocking.
    pub(crate) fn take_up(&self) -> Vec<AllocId> {
        cut(&self.turn())
    }

    /// Adds an id. Blocking.
    ///
    /// # Errors
    /// What the disk says; a full one is no reason not to go on.
    pub(crate) fn add(&self, alloc: &AllocId) -> io::Result<()> {
        let path = self.turn();
        let mut file = File::options().append(true).create(true).open(&*path)?;
        file.write_all(format!("{alloc}\n").as_bytes())?;
        if file.metadata()?.len() > FILE_MAX {
            cut(&path);
        }
        Ok(())
    }
}

/// Leaves the newest ids in the file and answers them.
fn cut(path: &Path) -> Vec<AllocId> {
    let text = read_tail(path).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "list of ended allocations cannot be read");
        String::new()
    });
    let mut ids: Vec<AllocId> = text.lines().filter_map(|line| AllocId::new(line).ok()).collect();
    ids.drain(..ids.len().saturating_sub(FENCES_MAX));
    let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
    let temporary = path.with_extension("tmp");
    let written = std::fs::write(&temporary, lines).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "list of ended allocations cannot be written");
    }
    ids
}

fn read_tail(path: &Path) -> io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(FILE_MAX)))?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_order_and_damage_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let ended = Ended::new(folder.path().join("ended"));
        assert!(ended.take_up().is_empty());
        let id = |n: usize| AllocId::new(format!("01jd-{n}-1-1")).unwrap();
        for n in 0..FENCES_MAX + 2 {
            ended.add(&id(n)).unwrap();
        }
        let kept = ended.take_up();
        assert_eq!((kept.len(), &kept[0]), (FENCES_MAX, &id(2)));
        assert_eq!(kept.last(), Some(&id(FENCES_MAX + 1)));
        let long = format!("{}\n", id(1)).repeat(usize::try_from(FILE_MAX).unwrap() / 10);
        std::fs::write(folder.path().join("ended"), long).unwrap();
        ended.add(&id(3)).unwrap();
        let length = std::fs::metadata(folder.path().join("ended")).unwrap().len();
        assert!(length < FILE_MAX, "it is cut while it is written: {length}");
        assert_eq!(ended.take_up().last(), Some(&id(3)));
        std::fs::write(folder.path().join("ended"), b"\xff\n../../x\n01jd-1-1-1\n01jd-2").unwrap();
        let kept = ended.take_up();
        assert!(kept.contains(&id(1)), "{kept:?}");
    }
}
