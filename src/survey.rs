//! What is missing of a series, and what the exchange does not have of it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::bar::{Bar, Grid};
use crate::coverage::{Coverage, Empty, KNOWN_AFTER, Reason};
use crate::house::House;
use crate::instrument::{Instrument, Series};
use crate::span::{Span, Spans};
use crate::store::read::Reader;
use crate::store::{StoreError, file_path};
use crate::time::{Millis, format_time};

/// Where a missing range lies. There is no fourth place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Before the oldest stored bar.
    History,
    /// Between stored bars.
    Inside,
    /// After the newest stored bar.
    Newest,
}

/// A half-open range of open times and how many bars open in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Range {
    /// The range.
    pub span: Span,
    /// The bars.
    pub bars: i64,
}

impl Range {
    pub(crate) fn new(grid: Grid, span: Span) -> Range {
        Range { span, bars: grid.count(span) }
    }
}

/// A range whose bars are not stored, though the exchange may have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MissingRange {
    /// Where it lies.
    pub kind: Kind,
    /// The range.
    #[serde(flatten)]
    pub range: Range,
}

/// A range in which the exchange was seen to have no bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct EmptyRange {
    /// The range.
    #[serde(flatten)]
    pub range: Range,
    /// How often it was seen to be empty, at least.
    pub attempts: u32,
    /// When it is looked at again, Unix ms by the exchange's clock.
    #[serde(flatten, serialize_with = "next_ask")]
    pub next_ask: Millis,
}

/// What is stored of one series and what is not: [`detect_gaps`](crate::OkxLocalStore::detect_gaps)
/// gives it. The numbers are bars inside the wanted range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SeriesGaps {
    /// Which series.
    #[serde(flatten, serialize_with = "named")]
    pub series: Series,
    /// Whether anything was ever stored.
    pub synced: bool,
    /// What should be stored: the configured history, or what lies between the ends of what is.
    pub wanted: Range,
    /// Bars that are stored.
    pub rows: i64,
    /// Bars that are not stored, though the exchange may have them.
    pub missing: i64,
    /// Bars among the missing that two polls have passed by: younger ones are on their way.
    pub overdue: i64,
    /// Bars that the exchange was seen once or twice not to have.
    pub suspected_empty: i64,
    /// Bars that the exchange was seen three times or more not to have.
    pub known_empty: i64,
    /// Bars older than the exchange's history.
    pub before_history: i64,
    /// Where the exchange's history begins, as far as that is known, Unix ms.
    #[serde(flatten, serialize_with = "history_start")]
    pub history_start: Option<Millis>,
    /// Bars among the missing whose rows had been stored and are gone.
    pub lost: i64,
    /// What is missing, oldest first.
    pub missing_ranges: Vec<MissingRange>,
    /// What is suspected to be empty, oldest first.
    pub suspected_ranges: Vec<EmptyRange>,
    /// What is known to be empty, oldest first.
    pub known_ranges: Vec<EmptyRange>,
}

/// In JSON each time has its words beside it.
impl Serialize for Range {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Range { span: Span { start, end }, bars } = self;
        let mut map = to.serialize_map(Some(5))?;
        map.serialize_entry("start", start)?;
        map.serialize_entry("start_datetime", &format_time(*start))?;
        map.serialize_entry("end", end)?;
        map.serialize_entry("end_datetime", &format_time(*end))?;
        map.serialize_entry("bars", bars)?;
        map.end()
    }
}

fn named<S: Serializer>(series: &Series, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("symbol", series.instrument.as_str())?;
    map.serialize_entry("timeframe", series.bar.name())?;
    map.end()
}

fn next_ask<S: Serializer>(at: &Millis, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("next_ask", at)?;
    map.serialize_entry("next_ask_datetime", &format_time(*at))?;
    map.end()
}

fn history_start<S: Serializer>(at: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("history_start", at)?;
    map.serialize_entry("history_start_datetime", &at.map(format_time))?;
    map.end()
}

/// Looks at the series of one instrument, or at one of them. Rows are counted against what is said
/// to be covered.
pub fn survey(
    house: &House<'_>,
    instrument: &Instrument,
    only: Option<Bar>,
    now: Millis,
) -> Result<Vec<SeriesGaps>, StoreError> {
    let reader = house.open(instrument)?;
    let _snapshot = reader.as_ref().map(Reader::snapshot).transpose()?;
    let mut bars = house.bars(instrument, reader.as_ref())?;
    if let Some(only) = only {
        bars.retain(|&bar| bar == only);
    }
    let stored = reader.as_ref().map_or_else(|| Ok(Vec::new()), Reader::bars)?;
    let due = now - house.wanted(instrument).map_or(0, |known| 2 * known.sync_interval_ms);
    if let Some(bar) = only.filter(|_| bars.is_empty()) {
        let path = file_path(house.data_dir, instrument);
        return Err(StoreError::NoBar { path, bar, stored });
    }
    let look = |bar: Bar| {
        let Some(reader) = reader.as_ref().filter(|_| stored.contains(&bar)) else {
            let coverage = Coverage::default();
            let wanted = house.wanted_span(instrument, bar, bar.grid(), &coverage, now);
            return Ok(series(instrument, bar, bar.grid(), &coverage, wanted, due, &Spans::new()));
        };
        let grid = reader.grid(bar)?;
        let mut coverage = reader.coverage(bar)?;
        let wanted = house.wanted_span(instrument, bar, grid, &coverage, now);
        let lost = reader.audit(bar, grid, &mut coverage)?;
        Ok(series(instrument, bar, grid, &coverage, wanted, due, &lost))
    };
    bars.into_iter().map(look).collect()
}

/// Puts together what is known of one series. What had ended by `due` should be there by now, and
/// `lost` is what an audit has found gone.
pub(crate) fn series(
    instrument: &Instrument,
    bar: Bar,
    grid: Grid,
    coverage: &Coverage,
    wanted: Span,
    due: Millis,
    lost: &Spans,
) -> SeriesGaps {
    let tally = coverage.tally(grid, wanted);
    let overdue = Span::new(wanted.start, wanted.end.min(grid.floor(due)));
    let missing = coverage.missing(wanted);
    let missing = missing.iter().filter(|&span| grid.count(span) > 0);
    let before = coverage.empties().find(|empty| empty.reason == Reason::BeforeHistory);
    let history_start = before.map(|empty| empty.span.end);
    let (known, suspected): (Vec<Empty>, Vec<Empty>) =
        merge(coverage, wanted).into_iter().partition(Empty::is_known);
    let ranges = |empties: Vec<Empty>| empties.iter().map(|empty| ledger(grid, empty)).collect();
    SeriesGaps {
        series: Series { instrument: instrument.clone(), bar },
        synced: !coverage.spans().is_empty(),
        wanted: Range::new(grid, wanted),
        rows: tally.rows(),
        missing: tally.missing,
        overdue: coverage.tally(grid, overdue).missing,
        suspected_empty: tally.suspected_empty,
        known_empty: tally.known_empty,
        before_history: tally.before_history,
        history_start,
        lost: lost.iter().map(|span| grid.count(span.intersection(wanted))).sum(),
        missing_ranges: missing
            .map(|span| MissingRange { kind: kind(coverage, span), range: Range::new(grid, span) })
            .collect(),
        suspected_ranges: ranges(suspected),
        known_ranges: ranges(known),
    }
}

fn kind(coverage: &Coverage, missing: Span) -> Kind {
    match (coverage.history_start(), coverage.spans().last()) {
        (Some(oldest), _) if missing.end <= oldest => Kind::History,
        (Some(_), Some(newest)) if missing.start >= newest.end => Kind::Newest,
        (Some(_), Some(_)) => Kind::Inside,
        _ => Kind::History,
    }
}

fn ledger(grid: Grid, empty: &Empty) -> EmptyRange {
    EmptyRange {
        range: Range::new(grid, empty.span),
        attempts: empty.attempts,
        next_ask: empty.next_ask,
    }
}

/// The absences of the ledger, those that meet and are equally sure taken together: that they were
/// found by different pages is nothing that a reader can use.
fn merge(coverage: &Coverage, wanted: Span) -> Vec<Empty> {
    let mut merged: Vec<Empty> = Vec::new();
    for empty in coverage.empties().filter(|empty| empty.reason == Reason::Absent) {
        let span = empty.span.intersection(wanted);
        if span.is_empty() {
            continue;
        }
        let sure = |empty: &Empty| empty.attempts.min(KNOWN_AFTER);
        match merged.last_mut() {
            Some(last) if last.span.end == span.start && sure(last) == sure(empty) => {
                last.span.end = span.end;
                last.attempts = last.attempts.min(empty.attempts);
                last.next_ask = last.next_ask.min(empty.next_ask);
            }
            _ => merged.push(Empty { span, ..*empty }),
        }
    }
    merged
}
