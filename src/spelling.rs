//! Words in messages: the nearest known one to a mistyped one, and texts from outside made safe
//! to print.

use std::borrow::Cow;

/// The candidate that is nearest to `word`, if one is near enough to have been meant: at most one
/// slip (a letter missing, added, wrong, or two swapped) for each three letters, case apart.
///
/// ```
/// use okx_local_store::spelling::nearest;
///
/// assert_eq!(nearest("timefames", ["symbol", "timeframes"]), Some("timeframes"));
/// assert_eq!(nearest("colour", ["symbol", "timeframes"]), None);
/// ```
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().count();
    // What is longer than any known word has no neighbour, and need not be compared.
    if letters > WORD_MAX {
        return None;
    }
    let slips_max = letters.div_ceil(3);
    let measured = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    measured.filter(|&(slips, _)| slips <= slips_max).min().map(|(_, candidate)| candidate)
}

/// The text with its control characters escaped: whoever wrote it, it begins no line of its own
/// and says nothing to the terminal.
///
/// ```
/// assert_eq!(okx_local_store::spelling::printable("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escaped = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// Longer words are not compared: the effort grows with the square of the length.
const WORD_MAX: usize = 64;

/// The number of slips between two words: the optimal alignment with neighbours swapped for one.
fn distance(left: &str, right: &str) -> usize {
    let fold = |word: &str| word.to_lowercase().chars().collect::<Vec<char>>();
    let (left, right) = (fold(left), fold(right));
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, &a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in right.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut least = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == right[j - 1] && left[i - 1] == b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (left, right, slips) in [
            ("", "", 0),
            ("", "abc", 3),
            ("sync", "sync", 0),
            ("sync", "SYNC", 0),
            ("snyc", "sync", 1),
            ("synk", "sync", 1),
            ("syn", "sync", 1),
            ("syncc", "sync", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(left, right), slips, "{left} {right}");
        }
    }

    #[test]
    fn only_what_is_near_is_named() {
        let words = ["status", "sync", "export"];
        assert_eq!(nearest("stauts", words), Some("status"));
        assert_eq!(nearest("Export", words), Some("export"));
        assert_eq!(nearest("frobnicate", words), None);
        assert_eq!(nearest(&"s".repeat(10_000), words), None);
    }
}
