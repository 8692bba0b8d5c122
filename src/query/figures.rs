//! What candles say: returns, volatility, prices, days, and how much of them is stored.

use crate::analysis::{DailySummary, Return, Volatility, returns, volatility};
use crate::bar::Bar;
use crate::coverage::Coverage;
use crate::error::Error;
use crate::instrument::Instrument;
use crate::query::Query;
use crate::span::Span;
use crate::store::StoreError;
use crate::store::query::Selection;
use crate::time::{DAY, Millis};

/// A price, and since when it held: [`Query::price_at_time`] gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// In quote currency.
    pub price: f64,
    /// The end of the bar that closed at it, Unix ms. Long before the moment asked for, this price
    /// was perhaps not the last one: bars are missing, or the exchange had none.
    pub as_of: Millis,
}

/// How much of a series is stored: [`Query::data_coverage`] gives it. The numbers are bars inside
/// the wanted range, as the ledger has them: [`detect_gaps`](crate::OkxLocalStore::detect_gaps)
/// counts the rows themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DataCoverage {
    /// What should be stored: the configured history, or what lies between the ends of what is.
    pub wanted: Span,
    /// The open time of the oldest row of all, Unix ms.
    pub oldest: Option<Millis>,
    /// The open time of the newest closed bar, Unix ms.
    pub newest_closed: Option<Millis>,
    /// Bars that are stored.
    pub rows: i64,
    /// Bars that are not stored, though the exchange may have them.
    pub missing: i64,
    /// Bars that the exchange was seen once or twice not to have.
    pub suspected_empty: i64,
    /// Bars that the exchange was seen three times or more not to have.
    pub known_empty: i64,
    /// Bars older than the exchange's history.
    pub before_history: i64,
    /// `rows / (rows + missing)`, 0 to 1; 1 where nothing is to be had.
    pub share: f64,
}

impl Query {
    /// The simple returns of the selected closed bars, oldest first:
    /// `close / close of the bar before - 1`, a share. The first bar has none, nor has one whose
    /// neighbour before is not stored, because then it would be of more than one bar.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::Selection;
    ///
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// let returns = store.query().calculate_returns(&btc, minute, Selection::Days(1))?;
    /// assert_eq!(returns.len(), 179);
    /// assert_eq!(returns[0].value, 64_001.0 / 64_000.0 - 1.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn calculate_returns(
        &self,
        instrument: &Instrument,
        bar: Bar,
        selection: Selection,
    ) -> Result<Vec<Return>, Error> {
        self.ask(instrument, bar, |reader| {
            Ok(returns(reader.grid(bar)?, &reader.candles(bar, selection)?))
        })
    }

    /// The sample standard deviation of the simple returns of the newest `window` bars, which are
    /// those of their closes and of the close before them: `sqrt(sum((r - mean)^2) / (n - 1))`.
    /// It is of one bar; [`Volatility::annualised`] is of a year.
    ///
    /// Nothing where fewer than two returns can be had. Where bars are missing in the window there
    /// are fewer than `window` of them: [`Volatility::returns`] tells.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// let hour = store.query().calculate_volatility(&btc, minute, 60)?;
    /// let hour = hour.expect("because an hour is stored");
    /// assert_eq!(hour.returns, 60);
    /// println!("{:.4} % a minute, {:.1} % a year", 1e2 * hour.per_bar, 1e2 * hour.annualised());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn calculate_volatility(
        &self,
        instrument: &Instrument,
        bar: Bar,
        window: u32,
    ) -> Result<Option<Volatility>, Error> {
        self.ask(instrument, bar, |reader| {
            let closed = reader.closed_before(bar, Millis::MAX, window.saturating_add(1))?;
            Ok(volatility(bar, &returns(reader.grid(bar)?, &closed)))
        })
    }

    /// The price at a moment, Unix ms: the close of the newest closed bar that had ended by then.
    /// It is right to within one bar, so short bars answer best. Nothing where none had ended.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::parse_time;
    ///
    /// let at = parse_time("2024-05-01T01:30:30Z")?;
    /// let price = store.query().price_at_time(&"BTC-USDT".parse()?, "1m".parse()?, at)?;
    /// let price = price.expect("minutes are stored");
    /// assert_eq!((price.price, at - price.as_of), (64_089.0, 30_000));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn price_at_time(
        &self,
        instrument: &Instrument,
        bar: Bar,
        at: Millis,
    ) -> Result<Option<Price>, Error> {
        self.ask(instrument, bar, |reader| {
            let grid = reader.grid(bar)?;
            let last = reader.closed_before(bar, grid.floor(at), 1)?.pop();
            Ok(last.map(|last| Price { price: last.close, as_of: grid.bar_at(last.ts).end }))
        })
    }

    /// The day from 00:00 to 24:00 UTC in which a moment lies, Unix ms, summed up from the closed
    /// bars that open in it. Of a day that is not over it sums up what is. Nothing where none of
    /// its bars is stored.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`]; besides, [`Error::Unfit`] for bars that do not divide the
    /// day from midnight to midnight UTC.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::parse_time;
    ///
    /// let (btc, day) = ("BTC-USDT".parse()?, parse_time("2024-05-01")?);
    /// let summary = store.query().daily_summary(&btc, "1m".parse()?, day)?.expect("it is stored");
    /// assert_eq!((summary.bars, summary.high, summary.complete), (180, 64_179.5, false));
    /// assert!(store.query().daily_summary(&btc, "1D".parse()?, day).is_err(), "opens at 16:00");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn daily_summary(
        &self,
        instrument: &Instrument,
        bar: Bar,
        at: Millis,
    ) -> Result<Option<DailySummary>, Error> {
        let why = "bars do not divide a day of UTC: give 4H or less, 6Hutc, 12Hutc or 1Dutc";
        let grid = bar.grid();
        // What divides the first day of all divides every other.
        if !(grid.opens_at(0) && grid.next(DAY - 1) == DAY) {
            return Err(Error::Unfit { bar, why });
        }
        let start = at.div_euclid(DAY).saturating_mul(DAY);
        let day = Span::new(start, start.saturating_add(DAY));
        self.ask(instrument, bar, |reader| {
            let _snapshot = reader.snapshot()?;
            let complete = reader.coverage(bar)?.spans().covers(day);
            let mut summary: Option<DailySummary> = None;
            reader.for_each(bar, day, true, |candle| {
                match &mut summary {
                    Some(summary) => summary.add(candle),
                    None => summary = Some(DailySummary::begin(day, candle, complete)),
                }
                Ok::<_, StoreError>(())
            })?;
            Ok(summary)
        })
    }

    /// How much of a series is stored, at once however much that is.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let coverage = store.query().data_coverage(&"BTC-USDT".parse()?, "1m".parse()?)?;
    /// assert_eq!((coverage.rows, coverage.missing), (180, 24 * 60 - 180), "a day is configured");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn data_coverage(&self, instrument: &Instrument, bar: Bar) -> Result<DataCoverage, Error> {
        let found = self.ask(instrument, bar, |reader| {
            let _snapshot = reader.snapshot()?;
            let oldest = reader.first_open(bar, crate::store::query::EVERYTHING, false)?;
            let newest = reader.latest_closed(bar)?.map(|newest| newest.ts);
            Ok(Some((reader.grid(bar)?, reader.coverage(bar)?, oldest, newest)))
        })?;
        let nothing = || (bar.grid(), Coverage::default(), None, None);
        let (grid, coverage, oldest, newest_closed) = found.unwrap_or_else(nothing);
        let household = self.household();
        let wanted = household.house().wanted_span(instrument, bar, grid, &coverage, self.now());
        let tally = coverage.tally(grid, wanted);
        Ok(DataCoverage {
            wanted,
            oldest,
            newest_closed,
            rows: tally.rows(),
            missing: tally.missing,
            suspected_empty: tally.suspected_empty,
            known_empty: tally.known_empty,
            before_history: tally.before_history,
            share: tally.coverage(),
        })
    }
}
