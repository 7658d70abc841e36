//! The bytes of a file before YAML is read: size, encoding, characters that no editor shows.
//!
//! Not here: tabs. They are legal inside of texts; the parser knows where they are not.

use crate::limits::FILE_MAX;
use crate::report::Problem;

/// Text that YAML can be read from, or what is wrong with the bytes: the readable text up to
/// there, the byte offset in it, and the words.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, (&str, usize, Problem)> {
    if bytes.len() > FILE_MAX {
        let problem = Problem::new(format!("the file has {} bytes; the most is {FILE_MAX}", bytes.len()))
            .help("put long commands into scripts that the steps call");
        return Err(("", 0, problem));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let problem = Problem::new("the file is written in UTF-16").help("save it as UTF-8");
        return Err(("", 0, problem));
    }
    match std::str::from_utf8(bytes) {
        // A byte-order mark at the very beginning is harmless and some editors write it.
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let at = error.valid_up_to();
            let text = std::str::from_utf8(&bytes[..at]).unwrap_or_default();
            let problem =
                Problem::new(format!("the byte 0x{:02x} is not UTF-8", bytes[at])).help("save the file as UTF-8");
            Err((text, at, problem))
        }
    }
}

/// The byte offsets of characters that cannot stand in YAML, with their words.
pub(crate) fn unprintable(text: &str) -> impl Iterator<Item = (usize, char)> + '_ {
    text.char_indices().filter(|(_, c)| {
        let printable = matches!(c, '\t' | '\n' | '\r' | '\u{85}');
        c.is_control() && !printable
    })
}

/// What is said of such a character.
pub(crate) fn unprintable_problem(character: char) -> Problem {
    let code = u32::from(character);
    let name = if code == 0 {
        "NUL".to_owned()
    } else {
        format!("U+{code:04X}")
    };
    Problem::new(format!("the control character {name} stands here"))
        .help("remove it; inside of double quotes an escape such as `\\e` can be written")
}
