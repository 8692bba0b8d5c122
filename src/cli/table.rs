//! Aligned text tables, and numbers in a form for people.

use std::io::{self, Write};

use time::OffsetDateTime;

use crate::cli::paint::width;
use crate::time::{MINUTE, Millis, SECOND, format_length, format_time};

/// Columns of the narrowest terminal that is thought of.
pub const COLUMNS: usize = 80;

/// What stands between two columns.
const BETWEEN: &str = "  ";

/// How the cells of a column line up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// At their beginning: words.
    Left,
    /// At their end: counts.
    Right,
    /// At the decimal point: prices, which have as many digits as they have.
    Point,
}

#[derive(Clone, Debug)]
struct Column {
    head: &'static str,
    align: Align,
    /// The widest part before the point (or the widest cell), and from the point on.
    before: usize,
    after: usize,
}

impl Column {
    fn width(&self) -> usize {
        (self.before + self.after).max(self.head.len())
    }

    /// The widths of a cell before its point and from there on.
    fn parts(&self, cell: &str) -> (usize, usize) {
        let width = width(cell);
        let point = if self.align == Align::Point { cell.find('.') } else { None };
        point.map_or((width, 0), |before| (before, width - before))
    }

    /// The spaces before and after a cell.
    fn padding(&self, cell: &str) -> (usize, usize) {
        let (before, after) = self.parts(cell);
        let spare = self.width().saturating_sub(before + after);
        let right = match self.align {
            Align::Left => spare,
            Align::Right => 0,
            Align::Point => self.after.saturating_sub(after).min(spare),
        };
        (spare - right, right)
    }
}

/// The columns of a table. Rows are first fitted, then written: a long table need not be held.
#[derive(Clone, Debug)]
pub struct Layout {
    indent: &'static str,
    columns: Vec<Column>,
}

impl Layout {
    /// Columns by their heads, each line begun with `indent`.
    pub fn new(indent: &'static str, columns: &[(&'static str, Align)]) -> Layout {
        let column = |&(head, align)| Column { head, align, before: 0, after: 0 };
        Layout { indent, columns: columns.iter().map(column).collect() }
    }

    /// Makes the columns wide enough for a row.
    pub fn fit(&mut self, cells: &[String]) {
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            let (before, after) = column.parts(cell);
            column.before = column.before.max(before);
            column.after = column.after.max(after);
        }
    }

    /// The columns of a line without its last cell.
    pub fn width(&self) -> usize {
        let cells = self.columns.iter().rev().skip(1);
        self.indent.len() + cells.map(|column| column.width() + BETWEEN.len()).sum::<usize>()
    }

    /// Writes the heads.
    pub fn write_head(&self, out: &mut dyn Write) -> io::Result<()> {
        let heads: Vec<String> = self.columns.iter().map(|c| c.head.to_owned()).collect();
        self.write_line(out, &heads, |column, head| {
            let spare = column.width() - head.len();
            if column.align == Align::Left { (0, spare) } else { (spare, 0) }
        })
    }

    /// Writes a row.
    pub fn write_row(&self, out: &mut dyn Write, cells: &[String]) -> io::Result<()> {
        self.write_line(out, cells, Column::padding)
    }

    fn write_line(
        &self,
        out: &mut dyn Write,
        cells: &[String],
        padding: impl Fn(&Column, &str) -> (usize, usize),
    ) -> io::Result<()> {
        let mut line = String::from(self.indent);
        for (n, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            let (left, right) = padding(column, cell);
            line.push_str(if n == 0 { "" } else { BETWEEN });
            line.extend(std::iter::repeat_n(' ', left));
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', right));
        }
        writeln!(out, "{}", line.trim_end())
    }

    /// Fits and writes a short table whole.
    pub fn write(mut self, out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
        rows.iter().for_each(|cells| self.fit(cells));
        self.write_head(out)?;
        rows.iter().try_for_each(|cells| self.write_row(out, cells))
    }
}

/// A text that is longer than its room, and that the line above has as well, need not be told in
/// full again.
pub fn unless_repeated<'a>(text: &'a str, above: &str, room: usize) -> &'a str {
    if text == above && width(text) > room { "as above" } else { text }
}

/// A time, UTC, to the minute; to the second or finer where there is more: `2024-05-01 12:30`.
pub fn short_time(at: Millis) -> String {
    if at % MINUTE != 0 || OffsetDateTime::from_unix_timestamp(at.div_euclid(SECOND)).is_err() {
        return format_time(at).replace('T', " ").replace('Z', "");
    }
    let mut text = format_time(at).replace('T', " ");
    text.truncate(text.len() - ":00Z".len());
    text
}

/// A length of time in its largest unit alone: `3m`.
pub fn short_length(length_ms: Millis) -> String {
    let whole = if length_ms.abs() < SECOND { "0s".to_owned() } else { format_length(length_ms) };
    whole.split(' ').next().unwrap_or_default().to_owned()
}

/// How long ago something was, in tenths of a second while that makes a difference: `0.3s ago`.
pub fn format_age(age_ms: Millis) -> String {
    let age_ms = age_ms.max(0);
    if age_ms < 10 * SECOND {
        return format!("{}.{}s ago", age_ms / SECOND, age_ms % SECOND / 100);
    }
    format!("{} ago", short_length(age_ms))
}

/// Breaks a text into lines of so many columns at its spaces. A longer word, such as a path, stays
/// whole, so that it can be copied.
///
/// ```
/// use okx_local_store::cli::table::wrap;
///
/// assert_eq!(wrap("a text of words", 9), ["a text of", "words"]);
/// assert_eq!(wrap("an unbreakable one", 4), ["an", "unbreakable", "one"]);
/// ```
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("because there is a line from the start on");
        if line.is_empty() {
            line.push_str(word);
        } else if width(line) + 1 + width(word) <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// Writes a text after what leads to it, and goes on below its own beginning.
pub fn write_wrapped(out: &mut dyn Write, lead: &str, text: &str) -> io::Result<()> {
    let indent = width(lead);
    for (n, line) in wrap(text, COLUMNS.saturating_sub(indent)).iter().enumerate() {
        match n {
            0 => writeln!(out, "{lead}{line}")?,
            _ => writeln!(out, "{:indent$}{line}", "")?,
        }
    }
    Ok(())
}

/// A number of bytes: `12.3 MB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A share in per cent, which is 100 only where nothing is lacking: `99.99%`.
pub fn format_share(share: f64) -> String {
    let hundredths = (share * 10_000.0).floor() / 100.0;
    if share >= 1.0 { "100%".to_owned() } else { format!("{hundredths:.2}%") }
}

/// A count with its noun: `1 bar`, `2 bars`.
pub fn count(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{DAY, HOUR, TIME_MAX};

    #[test]
    fn columns_line_up_each_in_its_way() {
        let columns = [
            ("word", Align::Left),
            ("n", Align::Right),
            ("price", Align::Point),
            ("", Align::Left),
        ];
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let rows = [
            row(["a", "1", "10.5", ""]),
            row(["longer", "200", "9", "x"]),
            row(["", "", "0.125", ""]),
        ];
        let mut out = Vec::new();
        Layout::new("  ", &columns).write(&mut out, &rows).unwrap();
        let expected = "  word      n   price\n\
                        \x20 a         1  10.5\n\
                        \x20 longer  200   9      x\n\
                        \x20               0.125\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn long_texts_hang_below_their_beginning() {
        let mut out = Vec::new();
        write_wrapped(&mut out, "  1m: ", &"word ".repeat(20)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), COLUMNS, "{text}");
        assert!(lines.len() == 2 && lines[1].starts_with("      word word"), "{text}");
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(short_time(1_714_521_600_000), "2024-05-01 00:00");
        assert_eq!(short_time(1_714_521_601_000), "2024-05-01 00:00:01");
        assert_eq!(short_time(TIME_MAX), "9999-12-31 23:59:59.999");
        assert_eq!((short_length(0), short_length(3 * DAY + HOUR)), ("0s".into(), "3d".into()));
        let ages = [-5, 340, 9_999, 10_000, 3 * MINUTE].map(format_age);
        assert_eq!(ages, ["0.0s ago", "0.3s ago", "9.9s ago", "10s ago", "3m ago"]);
        assert_eq!((format_bytes(999), format_bytes(1_260_000)), ("999 B".into(), "1.3 MB".into()));
        assert_eq!(format_share(1.0), "100%");
        assert_eq!(format_share(0.999_999), "99.99%");
        assert_eq!((count(1, "bar"), count(0, "bar")), ("1 bar".into(), "0 bars".into()));
    }
}
