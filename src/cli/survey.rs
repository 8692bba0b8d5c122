//! What is missing of a series, and what the exchange does not have of it.

use serde::Serialize;

use crate::bar::{Bar, Grid};
use crate::cli::house::House;
use crate::coverage::{Coverage, Empty, KNOWN_AFTER, Reason};
use crate::instrument::Instrument;
use crate::span::{Span, Spans};
use crate::store::read::Reader;
use crate::store::{StoreError, file_path};
use crate::time::{Millis, format_time};

/// Where a missing range lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Before the oldest stored bar.
    History,
    /// Between stored bars.
    Inside,
    /// After the newest stored bar.
    Newest,
}

/// A half-open range, in ms and in words.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Range {
    pub(crate) start: Millis,
    pub(crate) start_datetime: String,
    pub(crate) end: Millis,
    pub(crate) end_datetime: String,
    pub(crate) bars: i64,
}

impl Range {
    pub(crate) fn new(grid: Grid, span: Span) -> Range {
        Range {
            start: span.start,
            start_datetime: format_time(span.start),
            end: span.end,
            end_datetime: format_time(span.end),
            bars: grid.count(span),
        }
    }
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct MissingRange {
    pub(crate) kind: Kind,
    #[serde(flatten)]
    pub(crate) range: Range,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct EmptyRange {
    #[serde(flatten)]
    pub(crate) range: Range,
    /// How often it was seen to be empty, at least.
    pub(crate) attempts: u32,
    /// When it is looked at again.
    pub(crate) next_ask: Millis,
    pub(crate) next_ask_datetime: String,
}

/// What is known of one series. The numbers are bars inside the wanted range.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SeriesGaps {
    pub(crate) symbol: String,
    pub(crate) timeframe: &'static str,
    /// Whether anything was ever stored.
    pub(crate) synced: bool,
    pub(crate) wanted: Range,
    pub(crate) rows: i64,
    pub(crate) missing: i64,
    pub(crate) suspected_empty: i64,
    pub(crate) known_empty: i64,
    pub(crate) before_history: i64,
    /// Where the exchange's history begins, as far as that is known.
    pub(crate) history_start: Option<Millis>,
    pub(crate) history_start_datetime: Option<String>,
    /// Bars among the missing whose rows had been stored and are gone.
    pub(crate) lost: i64,
    pub(crate) missing_ranges: Vec<MissingRange>,
    pub(crate) suspected_ranges: Vec<EmptyRange>,
    pub(crate) known_ranges: Vec<EmptyRange>,
}

/// Looks at the series of one instrument, or at one of them. Rows are counted against what is said
/// to be covered.
pub(crate) fn survey(
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
    if let Some(bar) = only.filter(|_| bars.is_empty()) {
        let path = file_path(house.data_dir, instrument);
        return Err(StoreError::NoBar { path, bar, stored });
    }
    let look = |bar: Bar| {
        let Some(reader) = reader.as_ref().filter(|_| stored.contains(&bar)) else {
            let coverage = Coverage::default();
            let wanted = house.wanted_span(instrument, bar, bar.grid(), &coverage, now);
            return Ok(series(instrument, bar, bar.grid(), &coverage, wanted, &Spans::new()));
        };
        let grid = reader.grid(bar)?;
        let mut coverage = reader.coverage(bar)?;
        let wanted = house.wanted_span(instrument, bar, grid, &coverage, now);
        let lost = reader.audit(bar, grid, &mut coverage)?;
        Ok(series(instrument, bar, grid, &coverage, wanted, &lost))
    };
    bars.into_iter().map(look).collect()
}

/// Puts together what is known of one series; `lost` is what an audit has found gone.
pub(crate) fn series(
    instrument: &Instrument,
    bar: Bar,
    grid: Grid,
    coverage: &Coverage,
    wanted: Span,
    lost: &Spans,
) -> SeriesGaps {
    let tally = coverage.tally(grid, wanted);
    let missing = coverage.missing(wanted);
    let missing = missing.iter().filter(|&span| grid.count(span) > 0);
    let before = coverage.empties().find(|empty| empty.reason == Reason::BeforeHistory);
    let history_start = before.map(|empty| empty.span.end);
    let (known, suspected): (Vec<Empty>, Vec<Empty>) =
        merge(coverage, wanted).into_iter().partition(Empty::is_known);
    let ranges = |empties: Vec<Empty>| empties.iter().map(|empty| ledger(grid, empty)).collect();
    SeriesGaps {
        symbol: instrument.to_string(),
        timeframe: bar.name(),
        synced: !coverage.spans().is_empty(),
        wanted: Range::new(grid, wanted),
        rows: tally.rows(),
        missing: tally.missing,
        suspected_empty: tally.suspected_empty,
        known_empty: tally.known_empty,
        before_history: tally.before_history,
        history_start,
        history_start_datetime: history_start.map(format_time),
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
        next_ask_datetime: format_time(empty.next_ask),
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
