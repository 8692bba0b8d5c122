//! `gaps`: what is missing, and what the exchange does not have.

use std::io::Write;

use serde::Serialize;

use crate::bar::Bar;
use crate::cli::outcome::{Exit, Failure, NOTHING_CONFIGURED, finish, note, write_json};
use crate::cli::table::{Align, Layout, count, short_length, short_time};
use crate::house::House;
use crate::instrument::Instrument;
use crate::survey::{EmptyRange, Kind, Range, SeriesGaps, survey};
use crate::time::{Millis, SECOND, format_time};

/// Ranges that the table shows of one series.
const RANGES_SHOWN: usize = 20;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Of what; all enabled instruments where nothing is said.
    pub instrument: Option<Instrument>,
    /// At which length; all where nothing is said.
    pub bar: Option<Bar>,
    /// Whether the answer is for scripts.
    pub json: bool,
    /// Whether it is a failure that bars are missing.
    pub check: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Totals {
    series: usize,
    missing: i64,
    suspected_empty: i64,
    known_empty: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Sick {
    symbol: String,
    error: String,
}

#[derive(Clone, Debug, Serialize)]
struct Report {
    now: Millis,
    now_datetime: String,
    series: Vec<SeriesGaps>,
    totals: Totals,
    /// Files that could not be read.
    errors: Vec<Sick>,
}

/// Reports missing and empty ranges at the time `now` of the exchange's clock. Rows are counted
/// against what is said to be covered, so that deleted ones are noticed.
pub fn gaps(
    house: &House<'_>,
    asked: &Gaps,
    now: Millis,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let report = report(house, asked, now)?;
    for lost in report.series.iter().filter(|series| series.lost > 0) {
        let (series, bars) = (&lost.series, count(lost.lost, "bar"));
        note(notes, format_args!("{series}: {bars} of those stored are gone"));
    }
    for Sick { symbol, error } in &report.errors {
        note(notes, format_args!("{symbol}: {error}"));
    }
    let shown = match asked.json {
        true => write_json(&report, out),
        false if report.series.is_empty() && house.instruments.is_empty() => {
            writeln!(out, "{NOTHING_CONFIGURED}").map_err(Failure::from)
        }
        false => write_text(&report, out),
    };
    let exit = finish(shown, out)?;
    let short: Vec<&SeriesGaps> =
        report.series.iter().filter(|series| asked.check && series.overdue > 0).collect();
    for SeriesGaps { series, overdue, .. } in &short {
        note(notes, format_args!("okx-store: {series}: {} missing", count(*overdue, "bar")));
    }
    Ok(if report.errors.is_empty() && short.is_empty() { exit } else { Exit::Failed })
}

fn report(house: &House<'_>, asked: &Gaps, now: Millis) -> Result<Report, Failure> {
    let mut report = Report {
        now,
        now_datetime: format_time(now),
        series: Vec::new(),
        totals: Totals::default(),
        errors: Vec::new(),
    };
    let instruments = match &asked.instrument {
        Some(named) => vec![named],
        None => house.instruments.iter().filter(|w| w.enabled).map(|w| &w.instrument).collect(),
    };
    for instrument in instruments {
        if house.wanted(instrument).is_none() {
            house.find(instrument)?;
        }
        match survey(house, instrument, asked.bar, now) {
            Ok(series) => report.series.extend(series),
            // One sick file must not hide what is known of the others.
            Err(error) if asked.instrument.is_none() => {
                let (symbol, error) = (instrument.to_string(), error.to_string());
                report.errors.push(Sick { symbol, error });
            }
            Err(error) => return Err(error.into()),
        }
    }
    for series in &report.series {
        report.totals.series += 1;
        report.totals.missing += series.missing;
        report.totals.suspected_empty += series.suspected_empty;
        report.totals.known_empty += series.known_empty;
    }
    Ok(report)
}

fn write_text(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    for series in &report.series {
        write_series(series, report.now, out)?;
    }
    let Totals { series, missing, suspected_empty, known_empty } = report.totals;
    let bars = count(missing, "bar");
    writeln!(
        out,
        "In all: {bars} missing, {suspected_empty} suspected empty, {known_empty} known empty, \
         in {series} series."
    )?;
    // What is younger comes by itself.
    if report.series.iter().any(|series| series.overdue > 0) {
        writeln!(out, "Fetch what is missing: okx-store gaps --fill")?;
    }
    Ok(())
}

fn write_series(series: &SeriesGaps, now: Millis, out: &mut dyn Write) -> Result<(), Failure> {
    let SeriesGaps { series: name, wanted, missing, .. } = series;
    let since = short_time(wanted.span.start);
    let bars = count(wanted.bars, "bar");
    match (series.synced, missing) {
        (false, _) => writeln!(out, "{name}: never synced, {bars} wanted")?,
        (true, 0) => writeln!(out, "{name}: complete, {bars} since {since}")?,
        (true, _) => {
            writeln!(out, "{name}: {missing} missing of {bars} since {since}")?;
        }
    }
    if let Some(start) = series.history_start.filter(|_| series.before_history > 0) {
        let bars = count(series.before_history, "bar");
        writeln!(out, "  the exchange has nothing before {}: {bars}", short_time(start))?;
    }
    let rows = if series.synced { rows(series, now) } else { Vec::new() };
    if !rows.is_empty() {
        let columns = [
            ("range", Align::Left),
            ("from", Align::Left),
            ("to", Align::Left),
            ("bars", Align::Right),
            ("", Align::Left),
        ];
        let shown = &rows[..rows.len().min(RANGES_SHOWN)];
        Layout::new("  ", &columns).write(out, shown)?;
        if rows.len() > shown.len() {
            writeln!(out, "  … and {} more: --json shows all", rows.len() - shown.len())?;
        }
    }
    // What has no more than a line needs no space around it.
    if rows.is_empty() { Ok(()) } else { Ok(writeln!(out)?) }
}

/// The lines of a series: what is missing comes first, so that a long ledger does not hide it.
fn rows(series: &SeriesGaps, now: Millis) -> Vec<Vec<String>> {
    let row = |name: &str, range: &Range, remark: String| {
        let (start, end) = (short_time(range.span.start), short_time(range.span.end));
        vec![name.to_owned(), start, end, range.bars.to_string(), remark]
    };
    let missing = series.missing_ranges.iter().map(|found| {
        let name = match found.kind {
            Kind::History => "missing history",
            Kind::Inside => "missing inside",
            Kind::Newest => "missing newest",
        };
        row(name, &found.range, String::new())
    });
    let empty = |name: &'static str, ranges: &[EmptyRange]| {
        let line = |found: &EmptyRange| {
            let due = match found.next_ask - now {
                ..SECOND => "due".to_owned(),
                left_ms => format!("again in {}", short_length(left_ms)),
            };
            row(name, &found.range, format!("seen {}, {due}", found.attempts))
        };
        ranges.iter().map(line).collect::<Vec<_>>()
    };
    let suspected = empty("suspected empty", &series.suspected_ranges);
    let known = empty("known empty", &series.known_ranges);
    missing.chain(suspected).chain(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Coverage, Empty, Reason};
    use crate::house::tests::{house, wanted};
    use crate::span::{Span, Spans};
    use crate::store::sample::{BASE, Sample};
    use crate::survey::series;
    use crate::time::{HOUR, MINUTE};

    const NOW: Millis = BASE + 10 * HOUR + MINUTE;

    /// BTC has missing history, a hole, an absence and an old end; ETH was never synced.
    fn sample() -> Sample {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1H", &[(0, 1.0), (1, 2.0), (4, 2.0)], None);
        sample.store("BTC-USDT", "1H", &[(6, 3.0), (7, 4.0)], Some((8, 5.0)));
        sample
    }

    /// Three days of hours are wanted of all; SOL is not enabled.
    fn run(sample: &Sample, asked: &Gaps) -> (Result<Exit, Failure>, String, String) {
        let mut instruments =
            ["BTC-USDT", "ETH-USDT", "SOL-USDT"].map(|name| wanted(name, &["1H"]));
        instruments.iter_mut().for_each(|wanted| wanted.history_days = 3);
        instruments[2].enabled = false;
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let exit = gaps(&house(sample, &instruments), asked, NOW, &mut out, &mut notes);
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    fn named(name: &str, bar: Option<&str>) -> Gaps {
        let bar = bar.map(|bar| bar.parse().unwrap());
        Gaps { instrument: Some(name.parse().unwrap()), bar, ..Gaps::default() }
    }

    #[test]
    fn missing_and_empty_ranges_are_told_apart() {
        let (exit, out, notes) = run(&sample(), &Gaps::default());
        assert_eq!((exit.unwrap(), notes.as_str()), (Exit::Done, ""));
        let expected = "\
BTC-USDT 1H: 65 missing of 72 bars since 2024-04-28 10:00
  range            from              to                bars
  missing history  2024-04-28 10:00  2024-05-01 00:00    62
  missing inside   2024-05-01 05:00  2024-05-01 06:00     1
  missing newest   2024-05-01 08:00  2024-05-01 10:00     2
  suspected empty  2024-05-01 02:00  2024-05-01 04:00     2  seen 1, due

ETH-USDT 1H: never synced, 72 bars wanted
In all: 137 bars missing, 2 suspected empty, 0 known empty, in 2 series.
Fetch what is missing: okx-store gaps --fill
";
        assert_eq!(out, expected);
    }

    #[test]
    fn whoever_checks_hears_of_missing_bars_and_fails() {
        let (exit, _, notes) = run(&sample(), &Gaps { check: true, ..Gaps::default() });
        assert_eq!(exit.unwrap(), Exit::Failed);
        // One hour more has ended, a minute ago.
        let expected = "okx-store: BTC-USDT 1H: 64 bars missing\n\
                        okx-store: ETH-USDT 1H: 71 bars missing\n";
        assert_eq!(notes, expected);
        let sample = Sample::new();
        let rows: Vec<(i64, f64)> = (-62..=9).map(|n| (n, 1.0)).collect();
        sample.store("BTC-USDT", "1H", &rows, None);
        let asked = Gaps { check: true, ..named("BTC-USDT", None) };
        let (exit, out, notes) = run(&sample, &asked);
        assert_eq!((exit.unwrap(), notes.as_str()), (Exit::Done, ""), "{out}");
    }

    #[test]
    fn a_bar_that_comes_with_the_next_poll_is_not_called_missing() {
        let sample = Sample::new();
        let rows: Vec<(i64, f64)> = (-62..=8).map(|n| (n, 1.0)).collect();
        sample.store("BTC-USDT", "1H", &rows, None);
        let mut instruments = [wanted("BTC-USDT", &["1H"])];
        (instruments[0].history_days, instruments[0].sync_interval_ms) = (3, MINUTE);
        // The newest hour ended at NOW - MINUTE.
        for (waited, exit) in [(0, Exit::Done), (MINUTE - 1, Exit::Done), (MINUTE, Exit::Failed)] {
            let asked = Gaps { check: true, ..Gaps::default() };
            let (mut out, mut notes) = (Vec::new(), Vec::new());
            let house = house(&sample, &instruments);
            let told = gaps(&house, &asked, NOW + waited, &mut out, &mut notes).unwrap();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(told, exit, "{out}");
            assert!(out.contains("missing newest"), "it is shown all the same: {out}");
            assert_eq!(out.contains("gaps --fill"), exit == Exit::Failed, "{out}");
        }
    }

    #[test]
    fn rows_deleted_by_other_hands_are_noticed() {
        let sample = sample();
        let path = sample.data_dir().join("BTC-USDT.db");
        let punch = format!("DELETE FROM candles_1h WHERE ts < {}", BASE + 2 * HOUR);
        rusqlite::Connection::open(path).unwrap().execute(&punch, []).unwrap();
        let (_, out, notes) = run(&sample, &named("BTC-USDT", None));
        assert_eq!(notes, "BTC-USDT 1H: 2 bars of those stored are gone\n");
        assert!(out.starts_with("BTC-USDT 1H: 67 missing of 72 bars"), "{out}");
    }

    #[test]
    fn long_lists_are_cut_for_people_alone() {
        let sample = Sample::new();
        for n in 0..30 {
            sample.store("BTC-USDT", "1H", &[(-2 * n, 1.0)], None);
        }
        let asked = named("BTC-USDT", None);
        let (_, out, _) = run(&sample, &asked);
        assert_eq!(out.matches("missing inside").count(), RANGES_SHOWN - 1, "{out}");
        assert!(out.contains("\n  … and 11 more: --json shows all\n"), "{out}");
        let (_, out, _) = run(&sample, &Gaps { json: true, ..asked });
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        let series = &report["series"][0];
        assert_eq!(series["missing_ranges"].as_array().unwrap().len(), 31);
        assert_eq!(series["missing_ranges"][1]["kind"], "inside");
        assert_eq!(series["missing_ranges"][1]["end_datetime"], "2024-04-28T16:00:00Z");
        assert_eq!((&series["missing"], &report["totals"]["missing"]), (&42.into(), &42.into()));
    }

    #[test]
    fn neighbours_in_the_ledger_are_shown_as_one() {
        let hours = |start, end| Span::new(BASE + start * HOUR, BASE + end * HOUR);
        let empty = |span, attempts, reason| Empty { span, reason, attempts, next_ask: NOW + HOUR };
        let ledger = vec![
            empty(Span::new(0, BASE - 10 * HOUR), 1, Reason::BeforeHistory),
            empty(hours(0, 1), 3, Reason::Absent),
            empty(hours(1, 2), 4, Reason::Absent),
            empty(hours(2, 3), 1, Reason::Absent),
            empty(hours(4, 5), 1, Reason::Absent),
        ];
        let coverage = Coverage::new(Span::new(0, BASE + 10 * HOUR).into(), ledger);
        let bar: Bar = "1H".parse().unwrap();
        let wanted = Span::new(BASE - 20 * HOUR, BASE + 10 * HOUR);
        let name = "BTC-USDT".parse().unwrap();
        let found = series(&name, bar, bar.grid(), &coverage, wanted, NOW, &Spans::new());
        let mut out = Vec::new();
        write_series(&found, NOW, &mut out).unwrap();
        let expected = "\
BTC-USDT 1H: complete, 30 bars since 2024-04-30 04:00
  the exchange has nothing before 2024-04-30 14:00: 10 bars
  range            from              to                bars
  suspected empty  2024-05-01 02:00  2024-05-01 03:00     1  seen 1, again in 1h
  suspected empty  2024-05-01 04:00  2024-05-01 05:00     1  seen 1, again in 1h
  known empty      2024-05-01 00:00  2024-05-01 02:00     2  seen 3, again in 1h

";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn what_was_never_wanted_is_named() {
        let sample = sample();
        sample.store("BTC-USDT", "1D", &[(0, 1.0)], None);
        sample.store("BTC-USDT", "1D", &[(2, 1.0)], None);
        // A bar that is stored but not configured is wanted only between its ends.
        let (_, out, _) = run(&sample, &named("BTC-USDT", Some("1D")));
        assert!(
            out.starts_with("BTC-USDT 1D: 1 missing of 3 bars since 2024-04-30 16:00"),
            "{out}"
        );
        let error = |asked| run(&sample, &asked).0.unwrap_err().to_string();
        let text = error(named("BTC-USDT", Some("4H")));
        assert!(
            text.ends_with(
                "holds no 4H candles, only 1H 1D: okx-store backfill BTC-USDT 4H fetches them"
            ),
            "{text}"
        );
        let text = error(named("NO-BODY", None));
        assert!(text.contains("neither configured nor stored"), "{text}");
    }

    #[test]
    fn a_sick_file_does_not_hide_the_others() {
        let sample = sample();
        let path = sample.data_dir().join("ETH-USDT.db");
        let links_to_itself = || std::os::unix::fs::symlink(&path, &path).unwrap();
        let is_no_database = || std::fs::write(&path, "this is no database").unwrap();
        for fall_ill in [&links_to_itself as &dyn Fn(), &is_no_database] {
            fall_ill();
            let (exit, out, notes) = run(&sample, &Gaps::default());
            assert_eq!(exit.unwrap(), Exit::Failed);
            assert!(out.starts_with("BTC-USDT 1H: 65 missing"), "{out}");
            assert!(notes.starts_with("ETH-USDT: ") && notes.contains("ETH-USDT.db"), "{notes}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
