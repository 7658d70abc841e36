//! What git means by what it writes to its standard error. Pure.

use crate::address::Address;
use crate::error::GitError;
use std::path::Path;

/// The longest line that is quoted to a user.
const QUOTED_MAX: usize = 300;

/// Classes of failure that are acted on differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// The other side has no such ref.
    NoSuchRef,
    /// The other side does not give out that commit.
    NoSuchCommit,
    /// A lock of a process that was killed is in the way.
    Locked,
    /// Our own mirror is broken.
    Broken,
    /// The other side uses SHA-256 object names.
    OtherHash,
    /// No space left.
    DiskFull,
    /// Anything else: the other side is away, or refuses.
    Remote,
}

const SIGNS: [(Complaint, &[&str]); 6] = [
    (
        Complaint::DiskFull,
        &["No space left on device", "Disk quota exceeded", "File too large"],
    ),
    (Complaint::NoSuchRef, &["couldn't find remote ref"]),
    (
        Complaint::NoSuchCommit,
        &[
            "not our ref",
            "unadvertised object",
            "no such remote ref",
            "Server does not allow request",
        ],
    ),
    (Complaint::Locked, &[".lock': File exists"]),
    (
        Complaint::OtherHash,
        &[
            "mismatched algorithms",
            "the server uses sha256",
            "does not support object format",
        ],
    ),
    (
        Complaint::Broken,
        &[
            "not a git repository: '/",
            "is corrupt",
            "is empty",
            "bad object",
            "bad config",
            "bad tree",
            "does not point to a valid object",
            "unable to read tree",
            "unable to read sha1",
            "missing necessary objects",
            "Could not read ",
            "cannot lock ref",
            "packfile",
            "pack has bad",
            "invalid index-pack output",
            "expected to have object",
            "missing commit",
            "missing blob",
            "missing tree",
            "failed to traverse parents",
            "revision walk setup failed",
        ],
    ),
];

/// What a failed command complains about.
pub(crate) fn classify(stderr: &str) -> Complaint {
    // "fatal: Could not read from remote repository." is the remote's, "Could not read <id>" is ours.
    let text = stderr.replace("Could not read from remote", "");
    SIGNS
        .iter()
        .find(|(_, signs)| signs.iter().any(|sign| text.contains(sign)))
        .map_or(Complaint::Remote, |(complaint, _)| *complaint)
}

/// The last line that says something, without git's prefixes and without the address's secrets.
pub(crate) fn last_useful_line(stderr: &str, address: &Address) -> String {
    const BOILERPLATE: [&str; 5] = [
        "and the repository exists",
        "Please make sure you have the correct access rights",
        "Could not read from remote repository",
        "the remote end hung up unexpectedly",
        "early EOF",
    ];
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let telling = lines
        .iter()
        .rev()
        .find(|line| !BOILERPLATE.iter().any(|b| line.contains(b)));
    let line = telling.or(lines.last()).copied().unwrap_or("git said nothing");
    let line = ["fatal: ", "error: ", "remote: ", "ERROR: "]
        .iter()
        .fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    let plain: String = address.redact(line).chars().filter(|c| !c.is_control()).collect();
    match plain.char_indices().nth(QUOTED_MAX) {
        Some((at, _)) => format!("{}…", &plain[..at]),
        None => plain,
    }
}

/// The error for a failed command for which there is nothing better to do.
pub(crate) fn error(doing: &'static str, stderr: &str, address: &Address, place: &Path) -> GitError {
    let (repository, said) = (address.shown().to_owned(), last_useful_line(stderr, address));
    match classify(stderr) {
        Complaint::DiskFull => GitError::DiskFull { path: place.to_owned() },
        Complaint::Locked | Complaint::Broken => GitError::Failed {
            doing,
            repository,
            said,
        },
        Complaint::Remote | Complaint::NoSuchRef | Complaint::NoSuchCommit | Complaint::OtherHash => {
            GitError::Unreachable { repository, said }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        let cases = [
            ("fatal: couldn't find remote ref refs/heads/x", Complaint::NoSuchRef),
            (
                "fatal: remote error: upload-pack: not our ref 0123",
                Complaint::NoSuchCommit,
            ),
            (
                "error: Server does not allow request for unadvertised object 01",
                Complaint::NoSuchCommit,
            ),
            ("fatal: write error: No space left on device", Complaint::DiskFull),
            (
                "error: cannot lock ref 'r': Unable to create '/m/r.lock': File exists.",
                Complaint::Locked,
            ),
            ("fatal: not a git repository: '/m/abc'", Complaint::Broken),
            ("error: object file ./objects/aa/bb is empty", Complaint::Broken),
            (
                "fatal: '/x' does not appear to be a git repository\nfatal: Could not read from remote repository.",
                Complaint::Remote,
            ),
            (
                "fatal: unable to access 'http://h/': Connection refused",
                Complaint::Remote,
            ),
            (
                "fatal: mismatched algorithms: client sha1; server sha256",
                Complaint::OtherHash,
            ),
        ];
        for (stderr, complaint) in cases {
            assert_eq!(classify(stderr), complaint, "{stderr}");
        }
    }

    #[test]
    fn the_line_that_helps_is_quoted_without_secrets() {
        let address = Address::parse("https://me:s3cret@host/x.git", false).unwrap();
        let cases = [
            (
                "fatal: '/x' does not appear to be a git repository\nfatal: Could not read from remote repository.\n\n\
                 Please make sure you have the correct access rights\nand the repository exists.\n",
                "'/x' does not appear to be a git repository",
            ),
            (
                "fatal: unable to access 'https://me:s3cret@host/x.git/': no",
                "unable to access 'https://host/x.git/': no",
            ),
            ("fatal: token s3cret is stale", "token *** is stale"),
            ("", "git said nothing"),
        ];
        for (stderr, line) in cases {
            assert_eq!(last_useful_line(stderr, &address), line);
        }
    }
}
