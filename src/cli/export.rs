//! `export`: a series as CSV, streamed, whole or not at all.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bar::{Bar, Grid};
use crate::cli::csv::CsvWriter;
use crate::cli::draft::Draft;
use crate::cli::house::House;
use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::query::nothing;
use crate::cli::table::{count, short_time};
use crate::instrument::Series;
use crate::span::Span;
use crate::store::query::{EVERYTHING, Selection};
use crate::store::read::Reader;
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
        check_target(house, path)?;
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
    let bar = export.series.bar;
    let reader = house.find(&export.series.instrument)?;
    // The rows and what is said of them are of one moment, whatever is written meanwhile.
    let _snapshot = reader.snapshot()?;
    let span = reader.resolve(bar, export.selection)?;
    let Some(first) = reader.first_open(bar, span, !export.unconfirmed)? else {
        return Err(nothing(&reader, &export.series.instrument, bar)?);
    };
    let grid = reader.grid(bar)?;
    let missing = missing(&reader, bar, grid, span, first, now)?;
    let bars = missing.iter().map(|&span| grid.count(span)).sum();
    if bars > 0 {
        note_missing(export, grid, &missing, bars, notes);
    }
    if bars > 0 && export.complete {
        return Err(Failure::Incomplete { bars });
    }
    match &export.target {
        Target::Stdout => write_rows(&reader, export, span, stop, out).map(drop),
        Target::File(path) => {
            let mut draft = Draft::begin(path)?;
            let rows =
                write_rows(&reader, export, span, stop, &mut draft).map_err(
                    |failure| match failure {
                        Failure::Output(source) => draft.failure(source),
                        failure => failure,
                    },
                )?;
            draft.finish()?;
            let (instrument, rows) = (&export.series.instrument, count(rows, "row"));
            note(notes, format_args!("{instrument} {bar}: {rows} in {}", path.display()));
            Ok(())
        }
    }
}

/// Writes the lines; gives their number.
fn write_rows(
    reader: &Reader,
    export: &Export,
    span: Span,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> Result<i64, Failure> {
    let mut csv = CsvWriter::new(out, export.unconfirmed);
    let mut rows = 0;
    reader.for_each(export.series.bar, span, !export.unconfirmed, |candle| {
        rows += 1;
        if stop.load(Ordering::Relaxed) { Err(Failure::Stopped) } else { Ok(csv.write(candle)?) }
    })?;
    csv.flush()?;
    Ok(rows)
}

/// The ranges, each of some bars, that should be in the export but are not stored, though the
/// exchange may have them. Without a beginning of its own an export begins with the first row, and
/// without an end it ends with the newest closed bar.
fn missing(
    reader: &Reader,
    bar: Bar,
    grid: Grid,
    span: Span,
    first: Millis,
    now: Millis,
) -> Result<Vec<Span>, Failure> {
    let start = if span.start >= 0 { grid.ceil(span.start) } else { first };
    let newest = reader.latest_closed(bar)?.map_or(start, |newest| grid.bar_at(newest.ts).end);
    let end = if span.end == EVERYTHING.end { newest } else { span.end.min(grid.floor(now)) };
    let mut coverage = reader.coverage(bar)?;
    // Only what is exported needs counting.
    coverage.uncover(Span::new(EVERYTHING.start, start));
    coverage.uncover(Span::new(end, EVERYTHING.end));
    reader.audit(bar, grid, &mut coverage)?;
    let missing = coverage.missing(Span::new(start, end));
    Ok(missing.iter().filter(|&span| grid.count(span) > 0).collect())
}

fn note_missing(export: &Export, grid: Grid, missing: &[Span], bars: i64, notes: &mut dyn Write) {
    let Series { instrument, bar } = &export.series;
    let (start, end) = (missing[0].start, missing[missing.len() - 1].end);
    let (bars, ranges) = (count(bars, "bar"), count(missing.len() as i64, "range"));
    note(notes, format_args!("{instrument} {bar}: {bars} missing in {ranges}:"));
    for span in missing.iter().take(RANGES_NAMED) {
        let bars = count(grid.count(*span), "bar");
        let (start, end) = (short_time(span.start), short_time(span.end));
        note(notes, format_args!("  {start} to {end} UTC, {bars}"));
    }
    if missing.len() > RANGES_NAMED {
        let more = missing.len() - RANGES_NAMED;
        note(notes, format_args!("  and {more} more"));
    }
    let (start, end) = (format_time(start), format_time(end));
    note(
        notes,
        format_args!("fetch: okx-store backfill {instrument} {bar} --start {start} --end {end}"),
    );
}

/// Refuses, before any work, what can be no target.
fn check_target(house: &House<'_>, path: &Path) -> Result<(), Failure> {
    let refuse = |why| Err(Failure::Target { path: path.to_owned(), why });
    let found = fs::metadata(path);
    if found.as_ref().is_ok_and(fs::Metadata::is_dir) {
        return refuse("is a folder: name a file in it");
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return refuse("names no file");
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !folder.is_dir() {
        return refuse("its folder does not exist: make it first");
    }
    if found.is_ok_and(|found| !found.is_file()) {
        return refuse("is no regular file: give - for standard output");
    }
    // To rename a draft over a file of the store would lose the store.
    let same = |left: &Path, right: &Path| {
        fs::canonicalize(left).is_ok_and(|left| fs::canonicalize(right).is_ok_and(|r| r == left))
    };
    if same(path, house.config) {
        return refuse("is the configuration: export to another name");
    }
    let beside = fs::canonicalize(folder).ok() == fs::canonicalize(house.data_dir).ok();
    let name = name.to_string_lossy();
    let own = [".db", ".db-wal", ".db-shm", ".lock"].iter().any(|end| name.ends_with(end));
    if own && beside {
        return refuse("is a file of the store: export to another name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::cli::house::tests::house;
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

    fn names(dir: &Path) -> Vec<String> {
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
        assert!(matches!(failure.0, Err(Failure::Nothing { .. })));

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
        for (path, why) in [
            (dir.to_owned(), "is a folder"),
            (dir.join("none/out.csv"), "its folder does not exist"),
            (dir.join("BTC-USDT.db"), "is a file of the store"),
            (PathBuf::from("/dev/null"), "is no regular file"),
            (PathBuf::new(), "names no file"),
        ] {
            let failure = run(&sample, &everything(Target::File(path.clone()))).0.unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{path:?}");
            assert!(failure.to_string().contains(why), "{failure}");
        }
        assert_eq!(Target::from("-"), Target::Stdout);
    }
}
