//! Who owns the workspace: the numbers behind the user that a step runs as, looked up in the
//! image's own files without following a link out of them.
//!
//! Not here: the switch to that user, which the sandbox does from the same files. A name that is
//! not found is left to it too: it refuses the step and says why.

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The most bytes of a `passwd` or `group` file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// User and group id.
pub(crate) type Owner = (u32, u32);

/// The owner when nothing has to be looked up: no user, or numbers.
pub(crate) fn numeric(user: &str) -> Option<Owner> {
    if user.is_empty() {
        return Some((0, 0));
    }
    let (user, group) = user.split_once(':')?;
    Some((user.parse().ok()?, group.parse().ok()?))
}

/// The owner by the files of an image whose layers, the topmost first, are `lowers`. Blocking.
pub(crate) fn look_up(user: &str, lowers: &[PathBuf]) -> Owner {
    if let Some(owner) = numeric(user) {
        return owner;
    }
    let (name, group) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
    let passwd = read_in(lowers, "etc/passwd");
    let (uid, primary) = ids_of_user(&passwd, name);
    let gid = match group {
        Some(group) => id_of_group(&read_in(lowers, "etc/group"), group),
        None => primary,
    };
    (uid, gid)
}

/// The user's id and group by `passwd`; root for a name that is not there.
fn ids_of_user(passwd: &str, name: &str) -> Owner {
    let number: Option<u32> = name.parse().ok();
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (login, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (login == name || number == Some(uid)).then_some((uid, gid))
    });
    found.or(number.map(|uid| (uid, 0))).unwrap_or((0, 0))
}

fn id_of_group(file: &str, name: &str) -> u32 {
    let listed = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (group, gid) = (fields.next()?, fields.nth(1)?);
        (group == name).then_some(gid)?.parse().ok()
    });
    name.parse().ok().or(listed).unwrap_or(0)
}

/// The file as the topmost layer that has it holds it; empty when none does.
fn read_in(lowers: &[PathBuf], path: &str) -> String {
    lowers
        .iter()
        .find_map(|lower| read_below(lower, path))
        .unwrap_or_default()
}

/// Reads a regular file below `root`; links lead nowhere but into `root` again.
fn read_below(root: &Path, path: &str) -> Option<String> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let root: OwnedFd = std::fs::File::open(root).ok()?.into();
    let file = std::fs::File::from(openat2(root, path, how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
