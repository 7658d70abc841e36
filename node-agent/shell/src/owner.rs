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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn layer(root: &Path, passwd: &str, group: &str) -> PathBuf {
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.join("etc/group"), group).unwrap();
        root.to_owned()
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nnoise\nbuild:x:1000:1001::/home/build:/bin/sh\n";
        let image = layer(&folder.path().join("a"), passwd, "wheel:x:10:\nbuild:x:1001:build\n");
        let lowers = [folder.path().join("absent"), image];
        let cases = [
            ("", (0, 0)),
            ("root", (0, 0)),
            ("build", (1000, 1001)),
            ("1000", (1000, 1001)),
            ("77", (77, 0)),
            ("build:wheel", (1000, 10)),
            ("build:5", (1000, 5)),
            ("5:6", (5, 6)),
            ("nobody-here", (0, 0)),
        ];
        for (user, expected) in cases {
            assert_eq!(look_up(user, &lowers), expected, "{user}");
        }
    }

    #[test]
    fn the_topmost_layer_s_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let above = layer(&folder.path().join("a"), "app:x:5:5::/:/bin/sh\n", "");
        let below = layer(&folder.path().join("b"), "app:x:9:9::/:/bin/sh\n", "");
        assert_eq!(look_up("app", &[above, below]), (5, 5));
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let outside = layer(&folder.path().join("outside"), "app:x:666:666::/:/bin/sh\n", "");
        for target in [outside.join("etc/passwd"), PathBuf::from("../../outside/etc/passwd")] {
            let image = folder.path().join("image");
            std::fs::create_dir_all(image.join("etc")).unwrap();
            symlink(&target, image.join("etc/passwd")).unwrap();
            assert!(
                std::fs::read_to_string(image.join("etc/passwd")).is_ok(),
                "the trap works"
            );
            assert_eq!(look_up("app", std::slice::from_ref(&image)), (0, 0));
            std::fs::remove_file(image.join("etc/passwd")).unwrap();
        }
    }
}
