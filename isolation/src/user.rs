//! Who a program runs as: the image's own names turned into numbers.
//!
//! Not here: reading the files. The shim reads them without leaving the image's root.

/// The numbers of a user inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further groups, sorted, without the primary one.
    pub groups: Vec<u32>,
    /// Home folder by the image's `/etc/passwd`, `/` where it names none.
    pub home: String,
}

/// A user that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No such name.
    #[error("the image has no {kind} `{name}` (looked in {file}); use a number to run without a name")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name that was asked for.
        name: String,
        /// Where it was looked up.
        file: &'static str,
    },
    /// A number that no id can have.
    #[error("`{name}` is no {kind} id; ids go from 0 to 4294967294")]
    OutOfRange {
        /// `user` or `group`.
        kind: &'static str,
        /// The number that was asked for.
        name: String,
    },
    /// An empty part.
    #[error("`{given}` is no user; write `user`, `uid`, `user:group` or `uid:gid`")]
    Malformed {
        /// What was given.
        given: String,
    },
}

/// Most supplementary groups that are taken over; the kernel allows 65,536.
const GROUPS_MAX: usize = 1_024;

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// An id. The highest number is none: the kernel takes it as "leave it as it is", which is root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(Account { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// The id that `text` spells, `None` if it is a name.
fn number(kind: &'static str, text: &str) -> Result<Option<u32>, UserError> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let out_of_range = || UserError::OutOfRange {
        kind,
        name: text.to_owned(),
    };
    id(text).map(Some).ok_or_else(out_of_range)
}

/// Resolves `user` against the text of the image's `/etc/passwd` and `/etc/group`. Without a
/// `user` it is root. A group that is given explicitly replaces the primary one and drops the
/// supplementary ones.
///
/// # Errors
/// When a name is unknown or a number out of range.
pub fn resolve(user: Option<&str>, passwd: &str, group: &str) -> Result<ResolvedUser, UserError> {
    let given = user.unwrap_or("0");
    let (name, wanted_group) = match given.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (given, None),
    };
    if name.is_empty() || wanted_group.is_some_and(str::is_empty) {
        return Err(UserError::Malformed {
            given: given.to_owned(),
        });
    }
    let uid = number("user", name)?;
    let account = accounts(passwd).find(|account| match uid {
        Some(uid) => account.uid == uid,
        None => account.name == name,
    });
    let (uid, primary) = match (&account, uid) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => {
            return Err(UserError::Unknown {
                kind: "user",
                name: name.to_owned(),
                file: "/etc/passwd",
            });
        }
    };
    let (gid, supplementary) = match wanted_group {
        Some(wanted) => (group_id(wanted, group)?, Vec::new()),
        None => (primary, memberships(account.as_ref(), primary, group)),
    };
    let home = account.map_or("", |account| account.home);
    Ok(ResolvedUser {
        uid,
        gid,
        groups: supplementary,
        home: if home.starts_with('/') { home } else { "/" }.to_owned(),
    })
}

fn group_id(wanted: &str, group: &str) -> Result<u32, UserError> {
    if let Some(gid) = number("group", wanted)? {
        return Ok(gid);
    }
    groups(group)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| UserError::Unknown {
            kind: "group",
            name: wanted.to_owned(),
            file: "/etc/group",
        })
}

fn memberships(account: Option<&Account<'_>>, primary: u32, group: &str) -> Vec<u32> {
    let Some(account) = account else {
        return Vec::new();
    };
    let mut found: Vec<u32> = groups(group)
        .filter(|(_, gid, members)| *gid != primary && members.split(',').any(|member| member == account.name))
        .map(|(_, gid, _)| gid)
        .take(GROUPS_MAX)
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        broken:x:notanumber:1::/:\n\
        build:x:1000:1001:Builder:/home/build:/bin/sh\n\
        nohome:x:1002:1002::relative:/bin/sh\n\
        unchanged:x:4294967295:4294967295::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nbuild:x:1001:\ndocker:x:998:build,root\nwheel:x:10:root,build\nempty:x:11:\n\
        unchanged:x:4294967295:build\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<ResolvedUser, String> {
        Ok(ResolvedUser {
            uid,
            gid,
            groups: groups.to_vec(),
            home: home.to_owned(),
        })
    }

    #[test]
    fn names_and_numbers_resolve_against_the_image() {
        let refused = |text: &str| Err(text.to_owned());
        let cases = [
            (None, user(0, 0, &[10, 998], "/root")),
            (Some("build"), user(1000, 1001, &[10, 998], "/home/build")),
            (Some("1000"), user(1000, 1001, &[10, 998], "/home/build")),
            (Some("1000:0"), user(1000, 0, &[], "/home/build")),
            (Some("build:docker"), user(1000, 998, &[], "/home/build")),
            (Some("4242"), user(4242, 0, &[], "/")),
            (Some("4242:4243"), user(4242, 4243, &[], "/")),
            (Some("nohome"), user(1002, 1002, &[], "/")),
            (
                Some("nobody"),
                refused("the image has no user `nobody` (looked in /etc/passwd); use a number to run without a name"),
            ),
            (
                Some("unchanged"),
                refused(
                    "the image has no user `unchanged` (looked in /etc/passwd); use a number to run without a name",
                ),
            ),
            (
                Some("build:unchanged"),
                refused(
                    "the image has no group `unchanged` (looked in /etc/group); use a number to run without a name",
                ),
            ),
            (
                Some("build:nogroup"),
                refused("the image has no group `nogroup` (looked in /etc/group); use a number to run without a name"),
            ),
            (
                Some("broken"),
                refused("the image has no user `broken` (looked in /etc/passwd); use a number to run without a name"),
            ),
            (
                Some("4294967295"),
                refused("`4294967295` is no user id; ids go from 0 to 4294967294"),
            ),
            (
                Some("0:99999999999"),
                refused("`99999999999` is no group id; ids go from 0 to 4294967294"),
            ),
            (
                Some(""),
                refused("`` is no user; write `user`, `uid`, `user:group` or `uid:gid`"),
            ),
            (
                Some(":5"),
                refused("`:5` is no user; write `user`, `uid`, `user:group` or `uid:gid`"),
            ),
            (
                Some("5:"),
                refused("`5:` is no user; write `user`, `uid`, `user:group` or `uid:gid`"),
            ),
        ];
        for (given, expected) in cases {
            let found = resolve(given, PASSWD, GROUP).map_err(|error| error.to_string());
            assert_eq!(found, expected, "user {given:?}");
        }
    }

    #[test]
    fn an_image_without_account_files_has_root() {
        assert_eq!(resolve(None, "", "").map_err(|e| e.to_string()), user(0, 0, &[], "/"));
    }
}
