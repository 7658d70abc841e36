//! "Did you mean": the known word that is nearest to what was written.

/// Longer words are not compared: nobody mistypes a key of ours into sixty characters.
const WORD_MAX: usize = 64;

/// The candidate that `word` was most likely meant to be: the fewest edits (insert, delete,
/// replace, swap neighbours) with case and `-` against `_` for free, at most a third of the word.
/// The first of several equal ones.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = plain(word)?;
    let bound = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = plain(candidate)?;
            (word.len().abs_diff(other.len()) <= bound).then_some(())?;
            let edits = distance(&word, &other);
            (edits <= bound && edits < other.len()).then_some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// The word without what does not count, if it is short enough to be compared.
fn plain(word: &str) -> Option<Vec<char>> {
    let chars: Vec<char> = word
        .chars()
        .take(WORD_MAX + 1)
        .map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() })
        .collect();
    (chars.len() <= WORD_MAX).then_some(chars)
}

/// Edits between two words, where a swap of neighbours is one edit.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["name", "needs", "run", "timeout", "working_directory", "env"];
        let cases = [
            ("nmae", Some("name")),
            ("need", Some("needs")),
            ("Run", Some("run")),
            ("runs", Some("run")),
            ("time-out", Some("timeout")),
            ("working-directory", Some("working_directory")),
            ("workingdirectory", Some("working_directory")),
            ("en", Some("env")),
            ("entirely_else", None),
            ("", None),
            ("x", None),
        ];
        for (word, expect) in cases {
            assert_eq!(nearest(word, known), expect, "{word}");
        }
        assert_eq!(nearest(&"n".repeat(100_000), known), None);
    }

    #[test]
    fn edits_are_counted_as_people_make_them() {
        let cases = [
            ("", "", 0),
            ("a", "", 1),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
        ];
        for (a, b, expect) in cases {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            assert_eq!(distance(&a, &b), expect, "{a:?} {b:?}");
            assert_eq!(distance(&b, &a), expect, "{b:?} {a:?}");
        }
    }
}
