//! One repository's mirror on disk: made whole or not at all, fetched into, mended when a process
//! was killed in the middle of it.

use crate::address::Address;
use crate::complaint::{self, Complaint};
use crate::error::GitError;
use crate::name;
use crate::process::{Ended, Git, Job};
use crate::reader::{ARGS, Found, Reader};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Mutex;

/// How many packs a mirror may gather before they are joined: each one slows every look-up.
const PACKS_MAX: usize = 40;
/// How many fetched refs are remembered to spare a second fetch to callers who waited meanwhile.
const RECENT_MAX: usize = 1_024;

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// One repository's mirror.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) address: Address,
    pub(crate) dir: PathBuf,
    trash: PathBuf,
    pub(crate) git: Arc<Git>,
    fetching: Mutex<Fetching>,
    /// Empty while somebody talks to it, so that a caller who goes away leaves none out of step.
    reader: std::sync::Mutex<Option<Reader>>,
}

/// What is known only while no other fetch of the same repository runs.
#[derive(Debug, Default)]
struct Fetching {
    opened: bool,
    /// When the last successful fetch of a refspec began.
    recent: HashMap<String, Instant>,
}

impl Mirror {
    pub(crate) fn new(address: Address, dir: PathBuf, trash: PathBuf, git: Arc<Git>) -> Self {
        Self {
            address,
            dir,
            trash,
            git,
            fetching: Mutex::default(),
            reader: std::sync::Mutex::default(),
        }
    }

    /// True when the commit is here; one question to a process that runs already, as a rule.
    pub(crate) async fn has(&self, commit: &str) -> Result<bool, GitError> {
        let found = self.info(commit).await?;
        Ok(matches!(found, Found::Object { kind, .. } if kind == "commit"))
    }

    pub(crate) async fn info(&self, name: &str) -> Result<Found, GitError> {
        // A mirror that was never made holds nothing; a reader would only fail to start.
        if !self.dir.join("HEAD").exists() {
            return Ok(Found::Missing);
        }
        let (mut reader, fresh) = self.take_reader()?;
        match reader.info(name).await {
            Ok(found) => Ok(self.put_back(reader, found)),
            Err(_) if !fresh => {
                let mut reader = self.start_reader()?;
                let found = reader.info(name).await.map_err(|e| self.unreadable(&e))?;
                Ok(self.put_back(reader, found))
            }
            Err(e) => Err(self.unreadable(&e)),
        }
    }

    /// The object's first `keep` bytes. Ask [`Mirror::info`] before, for its size.
    pub(crate) async fn contents(&self, name: &str, keep: u64) -> Result<(Found, Vec<u8>), GitError> {
        let (mut reader, fresh) = self.take_reader()?;
        match reader.contents(name, keep).await {
            Ok(found) => Ok(self.put_back(reader, found)),
            Err(_) if !fresh => {
                let mut reader = self.start_reader()?;
                let found = reader.contents(name, keep).await.map_err(|e| self.unreadable(&e))?;
                Ok(self.put_back(reader, found))
            }
            Err(e) => Err(self.unreadable(&e)),
        }
    }

    fn take_reader(&self) -> Result<(Reader, bool), GitError> {
        let idle = self.reader.lock().expect("no panic while it is held").take();
        match idle {
            Some(reader) => Ok((reader, false)),
            None => Ok((self.start_reader()?, true)),
        }
    }

    fn start_reader(&self) -> Result<Reader, GitError> {
        Reader::new(self.git.converse(&self.address, &self.dir, &ARGS)?)
    }

    fn put_back<T>(&self, reader: Reader, answer: T) -> T {
        *self.reader.lock().expect("no panic while it is held") = Some(reader);
        answer
    }

    /// Ends the process that waits for questions, if one does.
    pub(crate) fn close_reader(&self) {
        self.reader.lock().expect("no panic while it is held").take();
    }

    fn unreadable(&self, cause: &io::Error) -> GitError {
        GitError::Failed {
            doing: "reading",
            repository: self.address.shown().to_owned(),
            said: cause.to_string(),
        }
    }

    /// Makes the commit present: nothing if it is, else a fetch of the ref where it should be,
    /// then of the commit by its id. Returns whether anything was fetched, and how many bytes.
    pub(crate) async fn ensure(&self, git_ref: &str, commit: &str) -> Result<Option<u64>, GitError> {
        if self.has(commit).await? {
            return Ok(None);
        }
        let mut fetching = self.fetching.lock().await;
        if self.has(commit).await? {
            return Ok(None);
        }
        let mut bytes = 0;
        if !git_ref.is_empty() {
            match self.fetch(&mut fetching, &keep(git_ref)).await {
                Ok(grown) => bytes += grown,
                Err(GitError::NoSuchRef { .. }) => {}
                Err(error) => return Err(error),
            }
            if self.has(commit).await? {
                return Ok(Some(bytes));
            }
        }
        bytes += self.fetch_commit(&mut fetching, commit).await?;
        if !self.has(commit).await? {
            // Fetched and yet not readable: the mirror says it has what it has not.
            self.make_anew(&mut fetching).await?;
            bytes += self.fetch_commit(&mut fetching, commit).await?;
        }
        Ok(Some(bytes))
    }

    async fn fetch_commit(&self, fetching: &mut Fetching, commit: &str) -> Result<u64, GitError> {
        let no_such_commit = || GitError::NoSuchCommit {
            repository: self.address.shown().to_owned(),
            commit: commit.to_owned(),
        };
        match self
            .fetch(fetching, &format!("+{commit}:{}", name::kept_ref(commit)))
            .await
        {
            Err(GitError::NoSuchCommit { .. } | GitError::NoSuchRef { .. }) => {}
            other => return other,
        }
        // Servers that give out refs only: it may still be reachable from one of them.
        let bytes = self.fetch(fetching, "+refs/*:refs/every/*").await?;
        if self.has(commit).await? {
            Ok(bytes)
        } else {
            Err(no_such_commit())
        }
    }

    /// Fetches a ref as it is now, unless another caller's fetch of it began after this call.
    pub(crate) async fn refresh(&self, refspec: &str) -> Result<(), GitError> {
        let asked = Instant::now();
        let mut fetching = self.fetching.lock().await;
        if fetching.recent.get(refspec).is_some_and(|began| *began >= asked) {
            return Ok(());
        }
        self.fetch(&mut fetching, refspec).await?;
        Ok(())
    }

    /// One fetch, with one attempt to mend the mirror if that is what stands in its way.
    async fn fetch(&self, fetching: &mut Fetching, refspec: &str) -> Result<u64, GitError> {
        self.open(fetching).await?;
        let began = Instant::now();
        let before = packs(&self.dir).1;
        let mut ended = self.try_fetch(refspec).await?;
        if !ended.success {
            match complaint::classify(&ended.stderr) {
                Complaint::Locked => self.sweep(),
                Complaint::Broken => self.make_anew(fetching).await?,
                Complaint::OtherHash => self.make_with_sha256().await?,
                Complaint::NoSuchRef | Complaint::NoSuchCommit | Complaint::DiskFull | Complaint::Remote => {
                    return Err(self.refused(&ended, refspec));
                }
            }
            ended = self.try_fetch(refspec).await?;
        }
        if !ended.success {
            return Err(self.refused(&ended, refspec));
        }
        if fetching.recent.len() >= RECENT_MAX {
            fetching.recent.clear();
        }
        fetching.recent.insert(refspec.to_owned(), began);
        let (count, bytes) = packs(&self.dir);
        if count > PACKS_MAX {
            self.join_packs().await?;
        }
        tracing::debug!(
            repository = self.address.shown(),
            refspec,
            ms = began.elapsed().as_millis(),
            "repository fetched"
        );
        Ok(bytes.saturating_sub(before))
    }

    async fn try_fetch(&self, refspec: &str) -> Result<Ended, GitError> {
        let args = [
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--update-shallow",
            "origin",
            refspec,
        ];
        self.run("fetching", &args, Vec::new()).await
    }

    /// The names that the repository gives to its refs now.
    pub(crate) async fn ls_remote(&self, pattern: &str) -> Result<String, GitError> {
        self.open(&mut *self.fetching.lock().await).await?;
        let ended = self
            .run(
                "listing",
                &["ls-remote", "--symref", "--quiet", "origin", pattern],
                Vec::new(),
            )
            .await?;
        if !ended.success {
            return Err(complaint::error("listing", &ended.stderr, &self.address, &self.dir));
        }
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    pub(crate) async fn run(&self, doing: &'static str, args: &[&str], stdin: Vec<u8>) -> Result<Ended, GitError> {
        self.git.run(self.job(doing, args, stdin)).await
    }

    pub(crate) fn job(&self, doing: &'static str, args: &[&str], stdin: Vec<u8>) -> Job<'_> {
        Job {
            doing,
            address: &self.address,
            git_dir: &self.dir,
            work_tree: None,
            objects: None,
            args: args.iter().map(OsString::from).collect(),
            stdin,
            timeout: self.git.settings.fetch_timeout,
        }
    }

    fn refused(&self, ended: &Ended, refspec: &str) -> GitError {
        let wanted = refspec
            .trim_start_matches('+')
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        let repository = self.address.shown().to_owned();
        match complaint::classify(&ended.stderr) {
            Complaint::NoSuchRef => GitError::NoSuchRef {
                repository,
                git_ref: wanted,
            },
            Complaint::NoSuchCommit => GitError::NoSuchCommit {
                repository,
                commit: wanted,
            },
            _ => complaint::error("fetching", &ended.stderr, &self.address, &self.dir),
        }
    }

    /// Joins the newest packs; how many are left grows with the logarithm of the mirror's size.
    async fn join_packs(&self) -> Result<(), GitError> {
        let ended = self
            .run("tidying", &["repack", "--geometric=2", "-d", "--quiet"], Vec::new())
            .await?;
        if !ended.success {
            tracing::warn!(
                repository = self.address.shown(),
                error = complaint::last_useful_line(&ended.stderr, &self.address),
                "packs could not be joined"
            );
        }
        Ok(())
    }

    /// Once in the life of this process: makes the mirror if it is not there, and removes what a
    /// process that was killed has left in it.
    async fn open(&self, fetching: &mut Fetching) -> Result<(), GitError> {
        if fetching.opened {
            return Ok(());
        }
        if self.dir.join("HEAD").exists() {
            self.sweep();
        } else {
            self.make_anew(fetching).await?;
        }
        fetching.opened = true;
        Ok(())
    }

    /// Throws the mirror away and makes an empty one; readers of the old one keep what they opened.
    pub(crate) async fn heal(&self) -> Result<(), GitError> {
        self.make_anew(&mut *self.fetching.lock().await).await
    }

    async fn make_anew(&self, fetching: &mut Fetching) -> Result<(), GitError> {
        fetching.recent.clear();
        self.replace("sha1").await
    }

    async fn make_with_sha256(&self) -> Result<(), GitError> {
        self.replace("sha256").await
    }

    async fn replace(&self, hash: &'static str) -> Result<(), GitError> {
        self.close_reader();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let fresh = self.trash.join(format!("new-{}-{serial}", std::process::id()));
        let old = self.trash.join(format!("old-{}-{serial}", std::process::id()));
        let dir = self.dir.clone();
        let made = tokio::task::spawn_blocking(move || {
            skeleton(&fresh, hash)?;
            if dir.exists() {
                std::fs::rename(&dir, &old)?;
                tracing::warn!(mirror = %dir.display(), "broken mirror thrown away");
            }
            std::fs::rename(&fresh, &dir)?;
            if old.exists() {
                std::fs::remove_dir_all(&old)?;
            }
            Ok(())
        })
        .await;
        made.unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|e| GitError::io(&self.dir, e))
    }

    /// Removes locks and half-written packs. Only ever called while no git of ours writes here.
    fn sweep(&self) {
        let mut folders = vec![self.dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let left_over = name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with("incoming-");
                match (left_over, is_dir) {
                    (true, true) => drop(std::fs::remove_dir_all(entry.path())),
                    (true, false) => drop(std::fs::remove_file(entry.path())),
                    (false, true) => folders.push(entry.path()),
                    (false, false) => {}
                }
            }
        }
    }
}

/// The refspec that keeps a ref under a name of ours.
pub(crate) fn keep(git_ref: &str) -> String {
    format!("+{git_ref}:{}", name::kept_ref(git_ref))
}

/// A bare repository without a process: what `git init` makes, less its samples.
pub(crate) fn skeleton(dir: &Path, hash: &str) -> io::Result<()> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    let config = match hash {
        "sha1" => "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n",
        _ => {
            "[core]\n\trepositoryformatversion = 1\n\tfilemode = true\n\tbare = true\n\
             [extensions]\n\tobjectformat = sha256\n"
        }
    };
    std::fs::write(dir.join("config"), config)?;
    std::fs::write(dir.join("HEAD"), "ref: refs/heads/none\n")
}

/// How many packs there are and how many bytes they take.
fn packs(dir: &Path) -> (usize, u64) {
    let entries = std::fs::read_dir(dir.join("objects/pack"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| entry.path().extension().is_some_and(|ext| ext == "pack"))
        .fold((0, 0), |(count, bytes), entry| {
            (count + 1, bytes + entry.metadata().map_or(0, |meta| meta.len()))
        })
}
