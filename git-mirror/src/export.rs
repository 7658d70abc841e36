//! Lays out a commit's tree with a `.git` of its own: one process packs the history; at the same
//! time one counts the tree against its limits and the next writes the files, from the mirror.

use crate::commit;
use crate::complaint;
use crate::error::GitError;
use crate::mirror::{Mirror, skeleton};
use crate::name;
use crate::process::Job;
use crate::reader::Found;
use crate::{Export, Exported};
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// Commits that are read one by one to find where a shallow history ends. Beyond it the whole
/// history is given, which is never less than what was asked for.
const SHALLOW_COMMITS_MAX: usize = 20_000;
/// Parents stand in the first bytes of a commit.
const COMMIT_HEAD_MAX: u64 = 64 * 1024;

/// What goes into `.git` besides the tree.
struct History {
    /// Objects to start from: the commit, and tags.
    wants: Vec<String>,
    /// Commits whose parents are left out.
    boundary: BTreeSet<String>,
    /// Lines of `packed-refs`.
    refs: Vec<(String, String)>,
}

pub(crate) async fn export(mirror: &Mirror, order: &Export<'_>, commit: &str) -> Result<Exported, GitError> {
    let history = history(mirror, order, commit).await?;
    let git_dir = order.into.join(".git");
    prepare(order, commit, &history, mirror).map_err(|e| GitError::io(order.into, e))?;
    let tree = async {
        let size = measure(mirror, commit).await?;
        write_tree(mirror, commit, order.into, &git_dir).await?;
        Ok(size)
    };
    let (size, ()) = tokio::try_join!(tree, pack(mirror, &history, &git_dir))?;
    own(order).await?;
    Ok(size)
}

async fn history(mirror: &Mirror, order: &Export<'_>, commit: &str) -> Result<History, GitError> {
    let mut history = History {
        wants: vec![commit.to_owned()],
        boundary: BTreeSet::new(),
        refs: Vec::new(),
    };
    let grafted = std::fs::read_to_string(mirror.dir.join("shallow")).unwrap_or_default();
    let grafted: HashSet<&str> = grafted.lines().collect();
    match order.depth {
        Some(depth) => history.boundary = boundary(mirror, commit, depth.max(1), &grafted).await?,
        None => history.boundary = grafted.iter().map(|id| (*id).to_owned()).collect(),
    }
    if let Some(branch) = order.git_ref.strip_prefix("refs/heads/") {
        history.refs.push((commit.to_owned(), order.git_ref.to_owned()));
        history
            .refs
            .push((commit.to_owned(), format!("refs/remotes/origin/{branch}")));
    }
    if order.depth.is_none() {
        all_tags(mirror, &mut history).await?;
    } else if order.git_ref.starts_with("refs/tags/") {
        one_tag(mirror, order.git_ref, commit, &mut history).await?;
    }
    Ok(history)
}

/// Walks the history breadth first: the commits at `depth`, and those where the mirror's own
/// history ends, keep no parents.
async fn boundary(
    mirror: &Mirror,
    commit: &str,
    depth: u32,
    grafted: &HashSet<&str>,
) -> Result<BTreeSet<String>, GitError> {
    let (mut cut, mut seen) = (BTreeSet::new(), HashSet::from([commit.to_owned()]));
    let mut level = vec![commit.to_owned()];
    for at in 1..=depth {
        let mut next = Vec::new();
        for id in level {
            if at == depth && grafted.contains(id.as_str()) {
                cut.insert(id);
                continue;
            }
            let (_, head) = mirror.contents(&id, COMMIT_HEAD_MAX).await?;
            let parents = commit::parse(&head, 0, 0).parents;
            if grafted.contains(id.as_str()) || (at == depth && !parents.is_empty()) {
                cut.insert(id);
            } else {
                next.extend(parents.into_iter().filter(|parent| seen.insert(parent.clone())));
            }
        }
        if seen.len() > SHALLOW_COMMITS_MAX {
            return Ok(grafted.iter().map(|id| (*id).to_owned()).collect());
        }
        level = next;
    }
    Ok(cut)
}

/// The tag that led here, with its own object if it has one.
async fn one_tag(mirror: &Mirror, git_ref: &str, commit: &str, history: &mut History) -> Result<(), GitError> {
    let kept = name::kept_ref(git_ref);
    let target = mirror.info(&format!("{kept}^{{commit}}")).await?;
    let tag = mirror.info(&kept).await?;
    let id = match (target, tag) {
        (Found::Object { id: target, .. }, Found::Object { id, .. }) if target == commit => id,
        _ => commit.to_owned(),
    };
    history.wants.push(id.clone());
    history.refs.push((id, git_ref.to_owned()));
    Ok(())
}

async fn all_tags(mirror: &Mirror, history: &mut History) -> Result<(), GitError> {
    let listed = mirror
        .run(
            "reading",
            &["for-each-ref", "--format=%(objectname) %(refname)", "refs/tags"],
            Vec::new(),
        )
        .await?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        if let Some((id, tag)) = line.split_once(' ')
            && name::check_ref(tag).is_ok()
        {
            history.wants.push(id.to_owned());
            history.refs.push((id.to_owned(), tag.to_owned()));
        }
    }
    Ok(())
}

/// Everything of `.git` but its objects and index.
fn prepare(order: &Export<'_>, commit: &str, history: &History, mirror: &Mirror) -> io::Result<()> {
    let git_dir = order.into.join(".git");
    skeleton(&git_dir, if commit.len() == 64 { "sha256" } else { "sha1" })?;
    std::fs::write(git_dir.join("config"), config(order, commit, mirror.address.shown()))?;
    let head = match order.git_ref.strip_prefix("refs/heads/") {
        Some(_) => format!("ref: {}\n", order.git_ref),
        None => format!("{commit}\n"),
    };
    std::fs::write(git_dir.join("HEAD"), head)?;
    let mut refs = history.refs.clone();
    refs.sort_by(|a, b| a.1.cmp(&b.1));
    refs.dedup();
    let mut packed = String::new();
    for (id, name) in refs {
        let _ = writeln!(packed, "{id} {name}");
    }
    std::fs::write(git_dir.join("packed-refs"), packed)?;
    if !history.boundary.is_empty() {
        let mut shallow = history.boundary.iter().cloned().collect::<Vec<_>>().join("\n");
        shallow.push('\n');
        std::fs::write(git_dir.join("shallow"), shallow)?;
    }
    Ok(())
}

fn config(order: &Export<'_>, commit: &str, url: &str) -> String {
    let (version, extensions) = match commit.len() {
        64 => (1, "[extensions]\n\tobjectformat = sha256\n"),
        _ => (0, ""),
    };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    // The owner and inode of a file differ inside a container; its size and time do not.
    let mut config = format!(
        "[core]\n\trepositoryformatversion = {version}\n\tfilemode = true\n\tbare = false\n\
         \tlogallrefupdates = true\n\tcheckStat = minimal\n\ttrustctime = false\n{extensions}\
         [remote \"origin\"]\n\turl = {}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        quoted(url)
    );
    if let Some(branch) = order.git_ref.strip_prefix("refs/heads/") {
        let _ = write!(
            config,
            "[branch {}]\n\tremote = origin\n\tmerge = {}\n",
            quoted(branch),
            quoted(order.git_ref)
        );
    }
    config
}

async fn pack(mirror: &Mirror, history: &History, git_dir: &Path) -> Result<(), GitError> {
    let mut input = String::new();
    for id in &history.boundary {
        let _ = writeln!(input, "--shallow {id}");
    }
    for id in &history.wants {
        let _ = writeln!(input, "{id}");
    }
    // The work tree is not seen safe on the disk either; see `Mirrors::export`.
    let mut args: Vec<&str> = vec![
        "-c",
        "core.fsync=none",
        "pack-objects",
        "--revs",
        "--quiet",
        "--delta-base-offset",
    ];
    if !history.boundary.is_empty() {
        // As `git upload-pack` does it: only the boundary that is given counts.
        args.splice(0..0, ["--shallow-file", ""]);
        args.push("--shallow");
    }
    let mut job = mirror.job("packing", &args, input.into_bytes());
    job.args.push(git_dir.join("objects/pack/pack").into());
    job.timeout = mirror.git.settings.export_timeout;
    finish(mirror, job, git_dir).await
}

/// Counts the tree before a file of it is written.
async fn measure(mirror: &Mirror, commit: &str) -> Result<Exported, GitError> {
    let settings = &mirror.git.settings;
    let (mut size, mut line) = (Exported::default(), Vec::new());
    let mut job = mirror.job(
        "measuring",
        &["ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit],
        Vec::new(),
    );
    job.timeout = settings.export_timeout;
    let ended = mirror
        .git
        .stream(job, &mut |chunk| {
            for byte in chunk {
                if *byte != 0 {
                    line.push(*byte);
                    continue;
                }
                size.entries += 1;
                size.bytes += listed_size(&line);
                line.clear();
            }
            let too_large = |found, unit, limit| GitError::TooLarge {
                what: format!("the tree of commit {commit}"),
                found,
                unit,
                limit,
                mend: "make the repository smaller, or raise the agent's limit",
            };
            match () {
                () if size.entries > settings.tree_entries_max => {
                    Err(too_large(size.entries, "entries", settings.tree_entries_max))
                }
                () if size.bytes > settings.tree_bytes_max => {
                    Err(too_large(size.bytes, "bytes", settings.tree_bytes_max))
                }
                () => Ok(()),
            }
        })
        .await?;
    if ended.success {
        return Ok(size);
    }
    Err(complaint::error(
        "measuring",
        &ended.stderr,
        &mirror.address,
        &mirror.dir,
    ))
}

/// `mode kind id size<TAB>path`; a folder's size is `-`.
fn listed_size(line: &[u8]) -> u64 {
    let head = line.split(|byte| *byte == b'\t').next().unwrap_or_default();
    let head = String::from_utf8_lossy(head);
    head.split_whitespace()
        .nth(3)
        .and_then(|size| size.parse().ok())
        .unwrap_or(0)
}

async fn write_tree(mirror: &Mirror, commit: &str, into: &Path, git_dir: &Path) -> Result<(), GitError> {
    let args = ["read-tree", "--reset", "-u", commit];
    let job = Job {
        doing: "checking out",
        address: &mirror.address,
        git_dir,
        work_tree: Some(into),
        objects: Some(mirror.dir.join("objects")),
        args: args.iter().map(OsString::from).collect(),
        stdin: Vec::new(),
        timeout: mirror.git.settings.export_timeout,
    };
    finish(mirror, job, into).await
}

async fn finish(mirror: &Mirror, job: Job<'_>, place: &Path) -> Result<(), GitError> {
    let doing = job.doing;
    let ended = mirror.git.run(job).await?;
    if ended.success {
        return Ok(());
    }
    match complaint::error(doing, &ended.stderr, &mirror.address, place) {
        full @ GitError::DiskFull { .. } => Err(full),
        _ => Err(GitError::Failed {
            doing,
            repository: mirror.address.shown().to_owned(),
            said: complaint::last_useful_line(&ended.stderr, &mirror.address),
        }),
    }
}

async fn own(order: &Export<'_>) -> Result<(), GitError> {
    let (uid, gid) = order.owner;
    if nix::unistd::geteuid().as_raw() == uid && nix::unistd::getegid().as_raw() == gid {
        return Ok(());
    }
    let into = order.into.to_owned();
    let owned = tokio::task::spawn_blocking(move || {
        let mut folders = vec![into.clone()];
        std::os::unix::fs::lchown(&into, Some(uid), Some(gid))?;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                std::os::unix::fs::lchown(entry.path(), Some(uid), Some(gid))?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(())
    })
    .await;
    owned
        .unwrap_or_else(|e| Err(io::Error::other(e)))
        .map_err(|e| GitError::io(order.into, e))
}
