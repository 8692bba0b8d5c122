//! The market at a glance, from what is stored.

use crate::bar::Bar;
use crate::candle::{Candle, State};
use crate::house::House;
use crate::instrument::Instrument;
use crate::span::Span;
use crate::store::StoreError;
use crate::store::read::Reader;
use crate::time::{DAY, Millis};

/// One instrument at a glance: [`market_overview`](crate::OkxLocalStore::market_overview) gives it.
/// What is of 24 hours ends with the newest stored row, whatever the
/// clock says, and is right to within one bar of the length that it was read from.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Market {
    /// The bar that all of it was read from: the finest that is fresh and whole.
    pub bar: Bar,
    /// The last price, in quote currency.
    pub last: f64,
    /// When the last price was one, Unix ms by the exchange's clock.
    pub last_at: Millis,
    /// How long ago that was, ms.
    pub age_ms: Millis,
    /// The change since the first price of the 24 hours, as a share of that price: 0.01 is one
    /// percent up. Nothing where that price is not above zero.
    pub change_24h: Option<f64>,
    /// The highest price of the 24 hours.
    pub high_24h: f64,
    /// The lowest price of the 24 hours.
    pub low_24h: f64,
    /// Traded volume of the 24 hours, in the units of [`Candle::volume`].
    pub volume_24h: f64,
    /// Traded volume of the 24 hours in quote currency.
    pub volume_quote_24h: f64,
    /// Whether all of the 24 hours are stored, or known to be empty.
    pub complete: bool,
}

/// A bar from which 24 hours could be read.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    bar: Bar,
    newest: State,
    /// The end of the newest row's bar.
    end: Millis,
    /// Whether the 24 hours before that end are all stored, or known to be empty.
    complete: bool,
}

/// Sums up an instrument at the time `now` of the exchange's clock; nothing where it has no candle
/// of a bar that divides a day.
pub fn look(
    house: &House<'_>,
    instrument: &Instrument,
    now: Millis,
) -> Result<Option<Market>, StoreError> {
    let Some(reader) = house.open(instrument)? else { return Ok(None) };
    let _snapshot = reader.snapshot()?;
    let Some(chosen) = choose(&candidates(&reader)?) else { return Ok(None) };
    let day = Span::new(chosen.end - DAY, chosen.end);
    let mut rows = Rows::default();
    reader.for_each(chosen.bar, day, false, |candle| {
        rows.add(candle);
        Ok::<_, StoreError>(())
    })?;
    let last = chosen.newest.candle;
    // A closed bar's price is that of its end, a running one's of the moment it was heard.
    let last_at = chosen.newest.updated_at.min(chosen.end);
    let first = rows.first_price.filter(|&first| first > 0.0);
    Ok(Some(Market {
        bar: chosen.bar,
        last: last.close,
        last_at,
        age_ms: (now - last_at).max(0),
        change_24h: first.map(|first| last.close / first - 1.0),
        high_24h: rows.high,
        low_24h: rows.low,
        volume_24h: rows.volume,
        volume_quote_24h: rows.volume_quote,
        complete: chosen.complete,
    }))
}

/// What 24 hours of candles add up to.
#[derive(Clone, Copy, Debug)]
struct Rows {
    first_price: Option<f64>,
    high: f64,
    low: f64,
    volume: f64,
    volume_quote: f64,
}

impl Default for Rows {
    fn default() -> Rows {
        let (high, low) = (f64::NEG_INFINITY, f64::INFINITY);
        Rows { first_price: None, high, low, volume: 0.0, volume_quote: 0.0 }
    }
}

impl Rows {
    fn add(&mut self, candle: &Candle) {
        self.first_price.get_or_insert(candle.open);
        self.high = self.high.max(candle.high);
        self.low = self.low.min(candle.low);
        self.volume += candle.volume;
        self.volume_quote += candle.volume_quote;
    }
}

/// The stored bars that divide a day.
fn candidates(reader: &Reader) -> Result<Vec<Candidate>, StoreError> {
    let mut found = Vec::new();
    for bar in reader.bars()? {
        let grid = reader.grid(bar)?;
        let divides = grid.period().is_some_and(|(length_ms, _)| DAY % length_ms == 0);
        let Some(newest) = reader.newest_row(bar)?.filter(|_| divides) else { continue };
        let span = grid.bar_at(newest.candle.ts);
        let closed_end = if newest.candle.confirmed { span.end } else { span.start };
        let complete = reader.coverage(bar)?.spans().covers(Span::new(span.end - DAY, closed_end));
        found.push(Candidate { bar, newest, end: span.end, complete });
    }
    Ok(found)
}

/// Chooses the finest bar, because its 24 hours begin and end nearest to the true ones. One that is
/// no longer kept fresh is passed over: it had ended when another's newest bar opened. One of which
/// all 24 hours are stored goes before one with holes.
fn choose(candidates: &[Candidate]) -> Option<Candidate> {
    let newest_open = candidates.iter().map(|candidate| candidate.newest.candle.ts).max()?;
    let fresh = || candidates.iter().filter(|candidate| candidate.end > newest_open);
    // Candidates come finest first.
    fresh().find(|candidate| candidate.complete).or_else(|| fresh().next()).copied()
}
