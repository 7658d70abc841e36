//! What stands in a commit object. Pure.

/// The parts of a commit that are used here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Commit {
    pub(crate) parents: Vec<String>,
    pub(crate) author: String,
    pub(crate) message: String,
}

/// Reads a commit's first bytes; `author` and `message` are cut to their bounds.
pub(crate) fn parse(bytes: &[u8], author_max: usize, message_max: usize) -> Commit {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut commit = Commit::default();
    for line in head.lines() {
        match line.split_once(' ') {
            Some(("parent", id)) => commit.parents.push(id.to_owned()),
            // `Name <mail> seconds zone`: the time is not the author's.
            Some(("author", who)) if commit.author.is_empty() => {
                let end = who.rfind('>').map_or(who.len(), |at| at + 1);
                commit.author = cut(&who[..end], author_max);
            }
            _ => {}
        }
    }
    let first = body.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    commit.message = cut(first.trim(), message_max);
    commit
}

fn cut(text: &str, max: usize) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=max.min(plain.len()))
        .rev()
        .find(|at| plain.is_char_boundary(*at))
        .unwrap_or(0);
    plain[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_read_within_bounds() {
        let text = "tree 00\nparent aa\nparent bb\nauthor A B <a@b> 1 +0000\ncommitter C <c> 2 +0000\n\n\n first ü line \nmore";
        let commit = parse(text.as_bytes(), 256, 512);
        assert_eq!(commit.parents, ["aa", "bb"]);
        assert_eq!(commit.author, "A B <a@b>");
        assert_eq!(commit.message, "first ü line");
        assert_eq!(parse(text.as_bytes(), 3, 7).message, "first ");
        assert_eq!(parse(text.as_bytes(), 3, 7).author, "A B");
        assert_eq!(parse(b"", 3, 7), Commit::default());
        assert_eq!(parse(b"author \xff\xfe", 100, 7).author, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_message_cannot_write_to_a_terminal() {
        assert_eq!(parse(b"tree x\n\n\x1b[31mred\x07", 9, 99).message, "[31mred");
    }
}
