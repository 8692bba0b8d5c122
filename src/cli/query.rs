//! `query`: candles of one series, for people and for scripts.

use std::io::Write;

use serde::Serialize;

use crate::bar::Bar;
use crate::candle::Candle;
use crate::cli::outcome::{Exit, Failure, finish, note};
use crate::cli::table::{Align, Layout, count, short_time};
use crate::csv::CsvWriter;
use crate::export::nothing;
use crate::house::House;
use crate::instrument::Series;
use crate::span::Span;
use crate::store::query::Selection;
use crate::store::read::Reader;
use crate::time::{Millis, format_time};

/// The rows that are shown unless told otherwise.
pub const ROWS: Selection = Selection::Newest(10);

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// An array of objects, one a line.
    Json,
    /// The form of `export`, with its column `confirmed`.
    Csv,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Of what.
    pub series: Series,
    /// Which candles.
    pub selection: Selection,
    /// In which form.
    pub format: Format,
}

/// A candle in JSON. These names are public.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    timestamp: Millis,
    datetime: String,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: f64,
    volume_ccy: f64,
    volume_quote: f64,
    confirmed: bool,
}

impl From<&Candle> for Row {
    fn from(candle: &Candle) -> Row {
        let Candle { ts, open, high, low, close, volume, volume_ccy, volume_quote, confirmed } =
            *candle;
        let datetime = format_time(ts);
        Row {
            timestamp: ts,
            datetime,
            open,
            high,
            low,
            close,
            volume,
            volume_ccy,
            volume_quote,
            confirmed,
        }
    }
}

/// Shows the selected candles, the newest last, the running bar marked as such.
pub fn query(
    house: &House<'_>,
    query: &Query,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    finish(show(house, query, out, notes), out)
}

fn show(
    house: &House<'_>,
    query: &Query,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    let Series { instrument, bar } = &query.series;
    let bar = *bar;
    let reader = house.find(instrument)?;
    let _snapshot = reader.snapshot()?;
    let span = reader.resolve(bar, query.selection)?;
    if reader.first_open(bar, span, false)?.is_none() {
        return Err(nothing(&reader, &query.series)?.into());
    }
    match query.format {
        Format::Json => show_json(&reader, bar, span, out),
        Format::Csv => {
            let mut csv = CsvWriter::new(out, true);
            reader.for_each(bar, span, false, |candle| Ok::<_, Failure>(csv.write(candle)?))?;
            Ok(csv.flush()?)
        }
        Format::Table => {
            let remark = bar.remark().map_or_else(String::new, |remark| format!(" {remark};"));
            note(notes, format_args!("{instrument} {bar}:{remark} times are UTC"));
            show_table(&reader, bar, span, out)?;
            note_missing(&reader, &query.series, span, notes)
        }
    }
}

/// Tells of bars that are missing between the rows that were shown, as far as is written down:
/// `gaps` counts the rows themselves.
fn note_missing(
    reader: &Reader,
    series: &Series,
    span: Span,
    notes: &mut dyn Write,
) -> Result<(), Failure> {
    let first = reader.first_open(series.bar, span, true)?;
    let newest = reader.latest_closed(series.bar)?.map(|newest| newest.ts);
    let Some((first, newest)) = first.zip(newest) else { return Ok(()) };
    let (grid, shown) = (reader.grid(series.bar)?, Span::new(first, newest.min(span.end)));
    let missing = reader.coverage(series.bar)?.missing(shown);
    let bars: i64 = missing.iter().map(|gap| grid.count(gap)).sum();
    if bars > 0 {
        let bars = count(bars, "bar");
        note(notes, format_args!("{bars} missing in this range: okx-store gaps {series}"));
    }
    Ok(())
}

fn show_json(reader: &Reader, bar: Bar, span: Span, out: &mut dyn Write) -> Result<(), Failure> {
    let mut before = "[\n";
    reader.for_each(bar, span, false, |candle| -> Result<(), Failure> {
        write!(out, "{before}  ")?;
        serde_json::to_writer(&mut *out, &Row::from(candle)).map_err(std::io::Error::from)?;
        before = ",\n";
        Ok(())
    })?;
    Ok(out.write_all(b"\n]\n")?)
}

/// Reads the candles twice, so that a table of millions of rows lines up without being held.
fn show_table(reader: &Reader, bar: Bar, span: Span, out: &mut dyn Write) -> Result<(), Failure> {
    let columns = [
        ("time", Align::Left),
        ("open", Align::Point),
        ("high", Align::Point),
        ("low", Align::Point),
        ("close", Align::Point),
        ("volume", Align::Point),
        ("", Align::Left),
    ];
    let mut layout = Layout::new("", &columns);
    reader.for_each(bar, span, false, |candle| -> Result<(), Failure> {
        layout.fit(&cells(candle));
        Ok(())
    })?;
    layout.write_head(out)?;
    reader.for_each(bar, span, false, |candle| {
        Ok::<_, Failure>(layout.write_row(out, &cells(candle))?)
    })
}

fn cells(candle: &Candle) -> [String; 7] {
    let Candle { open, high, low, close, volume, .. } = *candle;
    let [open, high, low, close, volume] = [open, high, low, close, volume].map(|n| n.to_string());
    let mark = if candle.confirmed { "" } else { "running" };
    [short_time(candle.ts), open, high, low, close, volume, mark.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::tests::house;
    use crate::store::sample::{BASE, Sample};

    fn ask(
        sample: &Sample,
        selection: Selection,
        format: Format,
    ) -> (Result<Exit, Failure>, String, String) {
        let house = house(sample, &[]);
        let (instrument, bar) = ("BTC-USDT".parse().unwrap(), "1D".parse().unwrap());
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let asked = Query { series: Series { instrument, bar }, selection, format };
        let exit = query(&house, &asked, &mut out, &mut notes);
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    fn sample() -> Sample {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1D", &[(0, 9_999.5), (1, 64_000.0)], Some((2, 64_100.25)));
        sample
    }

    #[test]
    fn a_table_lines_up_and_marks_the_running_bar() {
        let (exit, out, notes) = ask(&sample(), ROWS, Format::Table);
        assert_eq!(exit.unwrap(), Exit::Done);
        assert_eq!(notes, "BTC-USDT 1D: opens 16:00 UTC; times are UTC\n");
        let expected = "\
time                  open      high       low     close  volume
2024-04-30 16:00   9999.5   10000      9998.5    9999.5      2.5
2024-05-01 16:00  64000     64000.5   63999     64000        2.5
2024-05-02 16:00  64100.25  64100.75  64099.25  64100.25     2.5  running
";
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_missing_between_the_shown_rows_is_told() {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1D", &[(-1, 9.0)], None);
        sample.store("BTC-USDT", "1D", &[(3, 9.0)], None);
        let (_, out, notes) = ask(&sample, ROWS, Format::Table);
        assert_eq!(out.lines().count(), 3);
        let expected = "3 bars missing in this range: okx-store gaps BTC-USDT 1D\n";
        assert!(notes.ends_with(expected), "{notes}");
        sample.store("BTC-USDT", "1D", &[(4, 9.0)], Some((5, 9.0)));
        let (_, _, notes) = ask(&sample, Selection::Newest(1), Format::Table);
        assert!(!notes.contains("missing"), "the running bar alone leaves nothing out: {notes}");
    }

    #[test]
    fn json_and_csv_have_stable_names() {
        let (_, out, notes) = ask(&sample(), Selection::Newest(2), Format::Json);
        let expected = "[
  {\"timestamp\":1714579200000,\"datetime\":\"2024-05-01T16:00:00Z\",\"open\":64000.0,\
\"high\":64000.5,\"low\":63999.0,\"close\":64000.0,\"volume\":2.5,\"volume_ccy\":160000.0,\
\"volume_quote\":160000.0,\"confirmed\":true},
  {\"timestamp\":1714665600000,\"datetime\":\"2024-05-02T16:00:00Z\",\"open\":64100.25,\
\"high\":64100.75,\"low\":64099.25,\"close\":64100.25,\"volume\":2.5,\"volume_ccy\":160250.625,\
\"volume_quote\":160250.625,\"confirmed\":false}
]
";
        assert_eq!((out.as_str(), notes.as_str()), (expected, ""));
        let (_, out, _) = ask(&sample(), Selection::Newest(1), Format::Csv);
        let expected = "timestamp,datetime,open,high,low,close,volume,volume_ccy,volume_quote,\
confirmed
1714665600000,2024-05-02T16:00:00Z,64100.25,64100.75,64099.25,64100.25,2.5,160250.625,\
160250.625,0
";
        assert_eq!(out, expected);
    }

    #[test]
    fn nothing_found_says_what_there_is() {
        let range = Selection::Range(Span::new(0, BASE - 9 * crate::time::DAY));
        let (exit, out, _) = ask(&sample(), range, Format::Json);
        let failure = exit.unwrap_err();
        assert_eq!((failure.exit(), out.as_str()), (Exit::Failed, ""));
        assert_eq!(
            failure.to_string(),
            "BTC-USDT 1D: no such candle is stored, only those from 2024-04-30T16:00:00Z to \
             2024-05-02T16:00:00Z"
        );
        let failure = ask(&Sample::new(), ROWS, Format::Table).0.unwrap_err().to_string();
        assert!(failure.contains("neither configured nor stored"), "{failure}");
    }
}
