//! What a step leaves in the files that `BUILDFLOW_OUTPUT` and `BUILDFLOW_SUMMARY` name, read when its
//! container is gone.
//!
//! The step could do with these files, and with the folder that they lie in, whatever it liked: they are
//! opened below the step's own upper layer without following any link, only regular files are read,
//! and never more than is wanted. Not here: what the outputs are used for.

use crate::script;
use model::allocation::{OUTPUT_NAME_MAX, OUTPUTS_BYTES_MAX, OUTPUTS_MAX, SUMMARY_MAX};
use model::{Left, Outcome};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The files, in [`script::FOLDER`].
const OUTPUT: &str = "output";
const SUMMARY: &str = "summary";

/// What a summary that was cut ends with.
const CUT: &str = "\n\n*The rest was cut: a summary has at most 16 KiB.*\n";

/// The path of the outputs' file inside of the container.
pub(crate) fn output_path() -> String {
    format!("{}/{OUTPUT}", script::FOLDER)
}

/// The path of the summary's file inside of the container.
pub(crate) fn summary_path() -> String {
    format!("{}/{SUMMARY}", script::FOLDER)
}

/// Makes both files, empty, in the folder of the scripts: whoever the step runs as may write them.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    for name in [OUTPUT, SUMMARY] {
        let path = folder.join(name);
        let mut file = File::options().write(true).create_new(true).mode(0o666).open(&path)?;
        file.write_all(b"")?;
        crate::prepare::set_mode(&path, 0o666)?;
    }
    Ok(())
}

/// What the step has left, or why its outputs are refused.
pub(crate) fn read(upper: &Path) -> (Left, Option<String>) {
    let summary = read_below(upper, SUMMARY, SUMMARY_MAX).map(|bytes| summary_of(&bytes));
    let mut left = Left {
        outputs: BTreeMap::new(),
        summary: summary.unwrap_or_default(),
    };
    let outputs = read_below(upper, OUTPUT, OUTPUTS_BYTES_MAX).unwrap_or_default();
    match outputs_of(&outputs) {
        Ok(outputs) => {
            left.outputs = outputs;
            (left, None)
        }
        Err(why) => (left, Some(why)),
    }
}

/// The outcome of a step that ended well with outputs that nobody can use.
pub(crate) fn judged(outcome: Outcome, refused: Option<String>) -> Outcome {
    match refused {
        Some(message) if outcome.is_success() => Outcome::OutputRefused { message },
        _ => outcome,
    }
}

/// At most one byte more than `most` of a regular file in the folder of the scripts.
fn read_below(upper: &Path, name: &str, most: usize) -> Option<Vec<u8>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
    let root: OwnedFd = File::open(upper).ok()?.into();
    let path = PathBuf::from(script::FOLDER.trim_start_matches('/')).join(name);
    let file = File::from(openat2(root, &path, how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn summary_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= SUMMARY_MAX {
        return text.into_owned();
    }
    let kept = text.floor_char_boundary(SUMMARY_MAX - CUT.len());
    format!("{}{CUT}", &text[..kept])
}

/// The `key=value` lines; the last of the same key counts.
fn outputs_of(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    if bytes.len() > OUTPUTS_BYTES_MAX {
        return Err(format!("$BUILDFLOW_OUTPUT has more than {OUTPUTS_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "$BUILDFLOW_OUTPUT is not UTF-8".to_owned())?;
    let mut outputs = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if line.trim().is_empty() {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {number} of $BUILDFLOW_OUTPUT has no `=`: write `key=value`"))?;
        let head = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let word = key.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if !head || !word || key.len() > OUTPUT_NAME_MAX {
            return Err(format!(
                "line {number} of $BUILDFLOW_OUTPUT: a key has 1 to {OUTPUT_NAME_MAX} letters, digits, `_` and `-`, the first a letter or `_`"
            ));
        }
        if value.contains('\0') {
            return Err(format!("line {number} of $BUILDFLOW_OUTPUT holds a NUL character"));
        }
        outputs.insert(key.to_owned(), value.to_owned());
    }
    if outputs.len() > OUTPUTS_MAX {
        return Err(format!(
            "$BUILDFLOW_OUTPUT has {} keys; the most is {OUTPUTS_MAX}",
            outputs.len()
        ));
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn upper() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join(script::FOLDER.trim_start_matches('/'));
        std::fs::create_dir(&inner).unwrap();
        make(&inner).unwrap();
        (folder, inner)
    }

    #[test]
    fn lines_are_outputs_and_the_last_of_a_key_counts() {
        let (folder, inner) = upper();
        assert_eq!(read(folder.path()), (Left::default(), None));
        std::fs::write(inner.join(OUTPUT), "a=1\n\n_b-2= x = y \r\na=3\nempty=\n").unwrap();
        std::fs::write(inner.join(SUMMARY), "# Done\n").unwrap();
        let (left, refused) = read(folder.path());
        let expect = [("_b-2", " x = y "), ("a", "3"), ("empty", "")];
        assert!(left.outputs.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expect));
        assert_eq!((left.summary.as_str(), refused), ("# Done\n", None));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_line() {
        let (folder, inner) = upper();
        let many: String = (0..=OUTPUTS_MAX).map(|n| format!("k{n}=v\n")).collect();
        let cases: [(&[u8], &str); 7] = [
            (b"a=1\nnope", "line 2 of $BUILDFLOW_OUTPUT has no `=`"),
            (b"=1", "line 1 of $BUILDFLOW_OUTPUT: a key has"),
            (b"a b=1", "line 1 of $BUILDFLOW_OUTPUT: a key has"),
            (b"1a=1", "line 1 of $BUILDFLOW_OUTPUT: a key has"),
            (b"a=\0", "line 1 of $BUILDFLOW_OUTPUT holds a NUL"),
            (b"a=\xff", "$BUILDFLOW_OUTPUT is not UTF-8"),
            (many.as_bytes(), "$BUILDFLOW_OUTPUT has 65 keys"),
        ];
        for (bytes, expect) in cases {
            std::fs::write(inner.join(OUTPUT), bytes).unwrap();
            let (left, refused) = read(folder.path());
            let refused = refused.unwrap_or_default();
            assert!(left.outputs.is_empty() && refused.starts_with(expect), "{refused}");
        }
        std::fs::write(inner.join(OUTPUT), "a=".repeat(OUTPUTS_BYTES_MAX)).unwrap();
        assert!(read(folder.path()).1.unwrap().contains("bytes"));
        let failed = Outcome::Exited { code: 3 };
        assert_eq!(judged(failed.clone(), Some("x".to_owned())), failed);
        let refused = judged(Outcome::Exited { code: 0 }, Some("x".to_owned()));
        assert_eq!(
            refused,
            Outcome::OutputRefused {
                message: "x".to_owned()
            }
        );
    }

    #[test]
    fn a_long_summary_is_cut_between_characters() {
        let (folder, inner) = upper();
        std::fs::write(inner.join(SUMMARY), "ü".repeat(SUMMARY_MAX)).unwrap();
        let (left, _) = read(folder.path());
        assert!(left.summary.len() <= SUMMARY_MAX && left.summary.ends_with(CUT));
    }

    #[test]
    fn no_link_leads_out_and_nothing_but_a_file_is_read() {
        let (folder, inner) = upper();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "stolen=1\n").unwrap();
        std::fs::remove_file(inner.join(OUTPUT)).unwrap();
        std::fs::remove_file(inner.join(SUMMARY)).unwrap();
        for target in [
            secret.clone(),
            PathBuf::from("../secret"),
            PathBuf::from("/proc/self/environ"),
        ] {
            symlink(&target, inner.join(OUTPUT)).unwrap();
            symlink(&target, inner.join(SUMMARY)).unwrap();
            assert_eq!(read(folder.path()), (Left::default(), None), "{}", target.display());
            std::fs::remove_file(inner.join(OUTPUT)).unwrap();
            std::fs::remove_file(inner.join(SUMMARY)).unwrap();
        }
        nix::unistd::mkfifo(&inner.join(OUTPUT), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        std::fs::create_dir(inner.join(SUMMARY)).unwrap();
        assert_eq!(read(folder.path()), (Left::default(), None));
        // The folder itself may be a link, or gone.
        std::fs::rename(&inner, folder.path().join("aside")).unwrap();
        assert_eq!(read(folder.path()), (Left::default(), None));
        std::fs::write(folder.path().join("aside/elsewhere"), "x").unwrap();
        symlink(folder.path().join("aside"), &inner).unwrap();
        assert_eq!(read(folder.path()), (Left::default(), None));
    }
}
