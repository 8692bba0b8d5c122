//! `export`: a series as CSV, streamed, whole or not at all.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::table::{count, short_time};
use crate::export;
use crate::house::House;
use crate::instrument::Series;
use crate::store::query::Selection;
use crate::time::{Millis, format_time};

/// Missing ranges that are named; the command `gaps` names all.
const RANGES_NAMED: usize = 3;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, which appears when it is whole.
    File(PathBuf),
}

impl From<&str> for Target {
    fn from(text: &str) -> Target {
        if text == "-" { Target::Stdout } else { Target::File(text.into()) }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// Of what.
    pub series: Series,
    /// Which candles; all where nothing is said.
    pub selection: Selection,
    /// Where to.
    pub target: Target,
    /// Whether bars that still run are among them, told apart in a column.
    pub unconfirmed: bool,
    /// Whether missing bars are a failure.
    pub complete: bool,
}

/// Writes the selected candles as CSV. `stop` ends it early, and then nothing is left behind.
pub fn export(
    house: &House<'_>,
    export: &Export,
    now: Millis,
    stop: &AtomicBool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    if let Target::File(path) = &export.target {
        export::check_target(house, path)?;
    }
    finish(write(house, export, now, stop, out, notes), out)
}

fn write(
    house: &House<'_>,
    export: &Export,
    now: Millis,
    stop: &AtomicBool,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    let Export { series, selection, unconfirmed, .. } = export;
    let reader = house.find(&series.instrument)?;
    let prepared = export::Export::prepare(&reader, series, *selection, *unconfirmed, now)?;
    let bars = prepared.missing_bars();
    if bars > 0 {
        note_missing(series, &prepared, bars, notes);
    }
    if bars > 0 && export.complete {
        return Err(Failure::Incomplete { bars });
    }
    let stopped = || stop.load(Ordering::Relaxed);
    match &export.target {
        Target::Stdout => Ok(prepared.write(out, &stopped).map(drop)?),
        Target::File(path) => {
            let rows = count(prepared.write_file(path, &stopped)?, "row");
            note(notes, format_args!("{series}: {rows} in {}", path.display()));
            Ok(())
        }
    }
}

fn note_missing(series: &Series, export: &export::Export<'_>, bars: i64, notes: &mut dyn Write) {
    let missing = &export.missing;
    let (start, end) = (missing[0].start, missing[missing.len() - 1].end);
    let (bars, ranges) = (count(bars, "bar"), count(missing.len() as i64, "range"));
    note(notes, format_args!("{series}: {bars} missing in {ranges}:"));
    for &span in missing.iter().take(RANGES_NAMED) {
        let bars = count(export.count(span), "bar");
        let (start, end) = (short_time(span.start), short_time(span.end));
        note(notes, format_args!("  {start} to {end} UTC, {bars}"));
    }
    if missing.len() > RANGES_NAMED {
        let more = missing.len() - RANGES_NAMED;
        note(notes, format_args!("  and {more} more"));
    }
    let (start, end) = (format_time(start), format_time(end));
    note(notes, format_args!("fetch: okx-store backfill {series} --start {start} --end {end}"));
}

#[cfg(test)]
mod tests {
    use std::{fs, io};

    use super::*;
    use crate::error::Error;
    use crate::house::tests::house;
    use crate::span::Span;
    use crate::store::sample::{BASE, Sample};
    use crate::time::{DAY, MINUTE};

    const HEADER: &str = "timestamp,datetime,open,high,low,close,volume,volume_ccy,volume_quote";

    /// Two pages with two missing bars between them, one empty bar in the second.
    fn sample() -> Sample {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1m", &[(0, 1.0), (1, 2.0)], None);
        sample.store("BTC-USDT", "1m", &[(4, 3.0), (6, 4.0)], Some((7, 5.0)));
        sample
    }

    fn everything(target: Target) -> Export {
        Export {
            series: Series { instrument: "BTC-USDT".parse().unwrap(), bar: "1m".parse().unwrap() },
            selection: Selection::default(),
            target,
            unconfirmed: false,
            complete: false,
        }
    }

    fn run(sample: &Sample, asked: &Export) -> (Result<Exit, Failure>, String, String) {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let exit = run_to(sample, asked, &mut out, &mut notes);
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    fn run_to(
        sample: &Sample,
        asked: &Export,
        out: &mut dyn Write,
        notes: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let house = house(sample, &[]);
        export(&house, asked, BASE + DAY, &AtomicBool::new(false), out, notes)
    }

    fn names(dir: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn closed_bars_alone_are_exported_and_missing_ones_are_counted() {
        let (exit, out, notes) = run(&sample(), &everything(Target::Stdout));
        assert_eq!(exit.unwrap(), Exit::Done);
        let expected = format!(
            "{HEADER}
1714521600000,2024-05-01T00:00:00Z,1,1.5,0,1,2.5,2.5,2.5
1714521660000,2024-05-01T00:01:00Z,2,2.5,1,2,2.5,5,5
1714521840000,2024-05-01T00:04:00Z,3,3.5,2,3,2.5,7.5,7.5
1714521960000,2024-05-01T00:06:00Z,4,4.5,3,4,2.5,10,10
"
        );
        assert_eq!(out, expected);
        let expected = "BTC-USDT 1m: 2 bars missing in 1 range:
  2024-05-01 00:02 to 2024-05-01 00:04 UTC, 2 bars
fetch: okx-store backfill BTC-USDT 1m --start 2024-05-01T00:02:00Z --end 2024-05-01T00:04:00Z
";
        assert_eq!(notes, expected);
    }

    #[test]
    fn the_running_bar_is_exported_on_demand() {
        let selection = Selection::Range(Span::new(BASE + 6 * MINUTE, Millis::MAX));
        let asked = Export { selection, unconfirmed: true, ..everything(Target::Stdout) };
        let (_, out, notes) = run(&sample(), &asked);
        let expected = format!(
            "{HEADER},confirmed
1714521960000,2024-05-01T00:06:00Z,4,4.5,3,4,2.5,10,10,1
1714522020000,2024-05-01T00:07:00Z,5,5.5,4,5,2.5,12.5,12.5,0
"
        );
        assert_eq!((out, notes.as_str()), (expected, ""));
    }

    #[test]
    fn only_what_lies_in_the_range_counts_as_missing() {
        for (name, selection, missing) in [
            ("before the hole", Selection::Range(Span::new(BASE, BASE + 2 * MINUTE)), ""),
            ("half of it", Selection::Range(Span::new(BASE + 3 * MINUTE, Millis::MAX)), "1 bar "),
            ("off the grid", Selection::Range(Span::new(BASE + 1, BASE + 2 * MINUTE)), ""),
            ("a day is 1440 bars", Selection::Days(1), "1435 bars "),
        ] {
            let asked = Export { selection, ..everything(Target::Stdout) };
            let (exit, _, notes) = run(&sample(), &asked);
            assert_eq!(exit.unwrap(), Exit::Done, "{name}");
            let said = notes.strip_prefix("BTC-USDT 1m: ").unwrap_or_default();
            assert_eq!(said.get(..missing.len()), Some(missing), "{name}: {notes}");
            assert_eq!(notes.is_empty(), missing.is_empty(), "{name}: {notes}");
        }
    }

    #[test]
    fn rows_deleted_by_other_hands_are_missing() {
        let sample = sample();
        let path = sample.data_dir().join("BTC-USDT.db");
        let punch = format!("DELETE FROM candles_1m WHERE ts = {}", BASE + 4 * MINUTE);
        rusqlite::Connection::open(path).unwrap().execute(&punch, []).unwrap();
        let (_, _, notes) = run(&sample, &everything(Target::Stdout));
        assert!(notes.starts_with("BTC-USDT 1m: 3 bars missing in 1 range"), "{notes}");
    }

    #[test]
    fn a_file_appears_whole_and_is_the_same_each_time() {
        let sample = sample();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        let (exit, out, notes) = run(&sample, &everything(Target::File(path.clone())));
        assert_eq!((exit.unwrap(), out.as_str()), (Exit::Done, ""));
        assert!(
            notes.ends_with(&format!("BTC-USDT 1m: 4 rows in {}\n", path.display())),
            "{notes}"
        );
        let first = fs::read(&path).unwrap();
        run(&sample, &everything(Target::File(path.clone()))).0.unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(run(&sample, &everything(Target::Stdout)).1.into_bytes(), first);
        assert_eq!(names(dir.path()), ["out.csv"]);
    }

    #[test]
    fn a_failed_export_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        let target = Target::File(path.clone());
        let sample = sample();
        let incomplete = Export { complete: true, ..everything(target.clone()) };
        let failure = run(&sample, &incomplete).0.unwrap_err();
        assert!(matches!(failure, Failure::Incomplete { bars: 2 }), "{failure}");

        let old = Selection::Range(Span::new(0, BASE - DAY));
        let failure = run(&sample, &Export { selection: old, ..everything(target.clone()) });
        assert!(matches!(failure.0, Err(Failure::Library(Error::Nothing { .. }))));

        let house = house(&sample, &[]);
        let (stop, asked) = (AtomicBool::new(true), everything(target.clone()));
        let stopped = export(&house, &asked, BASE, &stop, &mut io::sink(), &mut io::sink());
        assert!(matches!(stopped, Err(Failure::Stopped)));

        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_store_that_breaks_in_the_middle_leaves_the_old_file() {
        let sample = Sample::new();
        let rows: Vec<(i64, f64)> = (0..5_000).map(|n| (n, n as f64 + 0.1)).collect();
        sample.store("BTC-USDT", "1m", &rows, None);
        sample.file("BTC-USDT").finish().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.csv");
        let asked = everything(Target::File(path.clone()));
        run(&sample, &asked).0.unwrap();
        let whole = fs::read(&path).unwrap();

        // One price in the middle becomes text, which no honest table would let in.
        let db = rusqlite::Connection::open(sample.data_dir().join("BTC-USDT.db")).unwrap();
        db.execute_batch(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(replace(sql, ') STRICT', ')'), 'REAL', 'TEXT')
             WHERE name = 'candles_1m';",
        )
        .unwrap();
        drop(db);
        let db = rusqlite::Connection::open(sample.data_dir().join("BTC-USDT.db")).unwrap();
        let spoil = "UPDATE candles_1m SET close = 'spoilt' WHERE ts = ?1";
        assert_eq!(db.execute(spoil, [BASE + 4_000 * MINUTE]).unwrap(), 1);
        let failure = run(&sample, &asked).0.unwrap_err();
        assert!(matches!(failure, Failure::Store(_)), "{failure}");
        assert_eq!((names(dir.path()), fs::read(&path).unwrap()), (vec!["out.csv".into()], whole));
    }

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
        struct Failing(io::ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let asked = everything(Target::Stdout);
        let to = |kind| run_to(&sample(), &asked, &mut Failing(kind), &mut io::sink());
        assert_eq!(to(io::ErrorKind::BrokenPipe).unwrap(), Exit::Done);
        let failure = to(io::ErrorKind::StorageFull).unwrap_err();
        assert!(failure.to_string().starts_with("cannot write to standard output"), "{failure}");
    }

    #[test]
    fn what_can_be_no_target_is_refused_before_any_work() {
        let sample = sample();
        let dir = sample.data_dir();
        let link = |name: &str, to: &str| {
            std::os::unix::fs::symlink(dir.join(to), dir.join(name)).unwrap();
            dir.join(name)
        };
        for (path, why) in [
            (dir.to_owned(), "is a folder"),
            (dir.join("none/out.csv"), "its folder does not exist"),
            (dir.join("BTC-USDT.db"), "is a file of the store"),
            (PathBuf::from("/dev/null"), "is no regular file"),
            (PathBuf::new(), "names no file"),
            (link("file", "BTC-USDT.db"), "is a file of the store"),
            (link("new", "ETH-USDT.db"), "is a file of the store"),
            (link("far", "none/out.csv"), "its folder does not exist"),
            (link("circle", "circle"), "is a link that leads nowhere"),
        ] {
            let failure = run(&sample, &everything(Target::File(path.clone()))).0.unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{path:?}");
            assert!(failure.to_string().contains(why), "{failure}");
        }
        assert_eq!(Target::from("-"), Target::Stdout);
    }
}
