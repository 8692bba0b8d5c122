//! What candles say beyond themselves: returns, volatility, a day. Pure: rows in, numbers out.

use crate::bar::{Bar, Grid};
use crate::candle::Candle;
use crate::span::Span;
use crate::time::Millis;

/// The simple return of one bar: how its close differs from the close of the bar before, as a share
/// of that. [`calculate_returns`](crate::Query::calculate_returns) gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Return {
    /// The open time of the bar, Unix ms.
    pub ts: Millis,
    /// `close / close of the bar before - 1`: 0.01 is one percent up.
    pub value: f64,
}

/// The returns of closed bars, oldest first. Between bars that are no neighbours on the grid there
/// is none, nor after a close that is not above zero.
pub(crate) fn returns(grid: Grid, candles: &[Candle]) -> Vec<Return> {
    let neighbours = candles.windows(2).filter_map(|pair| {
        let (before, bar) = (&pair[0], &pair[1]);
        let meet = grid.bar_at(before.ts).end == bar.ts && before.confirmed && bar.confirmed;
        (meet && before.close > 0.0)
            .then(|| Return { ts: bar.ts, value: bar.close / before.close - 1.0 })
    });
    neighbours.collect()
}

/// How much the returns of a series scatter:
/// [`calculate_volatility`](crate::Query::calculate_volatility) gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Volatility {
    /// The sample standard deviation of the simple returns of one bar each:
    /// `sqrt(sum((r - mean)^2) / (n - 1))`. 0.01 is one percent a bar.
    pub per_bar: f64,
    /// The number `n` of returns.
    pub returns: usize,
    bar: Bar,
}

impl Volatility {
    /// The same for a year: `per_bar * sqrt(bars in a year)`. A year has 365 days of 24 hours,
    /// because this market never closes, or 12 months.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// if let Some(volatility) = store.query().calculate_volatility(&btc, minute, 60)? {
    ///     let year = volatility.per_bar * (365.0 * 24.0 * 60.0_f64).sqrt();
    ///     assert_eq!(volatility.annualised(), year);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn annualised(&self) -> f64 {
        self.per_bar * self.bar.per_year().sqrt()
    }
}

/// The volatility over returns; nothing where there are fewer than two.
pub(crate) fn volatility(bar: Bar, returns: &[Return]) -> Option<Volatility> {
    let n = returns.len() as f64;
    let mean = returns.iter().map(|it| it.value).sum::<f64>() / n;
    let squares: f64 = returns.iter().map(|it| (it.value - mean).powi(2)).sum();
    let per_bar = (squares / (n - 1.0)).sqrt();
    (returns.len() >= 2).then_some(Volatility { per_bar, returns: returns.len(), bar })
}

/// One day, from 00:00 UTC to the next, summed up from its closed bars:
/// [`daily_summary`](crate::Query::daily_summary) gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DailySummary {
    /// The day, Unix ms.
    pub day: Span,
    /// The first price of the first bar.
    pub open: f64,
    /// The highest price.
    pub high: f64,
    /// The lowest price.
    pub low: f64,
    /// The last price of the last bar.
    pub close: f64,
    /// `close / open - 1`, as a share: 0.01 is one percent up. Not a number where `open` is zero.
    pub change: f64,
    /// Traded volume, in the units of [`Candle::volume`].
    pub volume: f64,
    /// Traded volume in quote currency.
    pub volume_quote: f64,
    /// The closed bars that it was read from.
    pub bars: i64,
    /// Whether all of the day is stored, or known to be empty on the exchange.
    pub complete: bool,
}

impl DailySummary {
    /// The summary of a day of one bar.
    pub(crate) fn begin(day: Span, first: &Candle, complete: bool) -> DailySummary {
        DailySummary {
            day,
            open: first.open,
            high: first.high,
            low: first.low,
            close: first.close,
            change: first.close / first.open - 1.0,
            volume: first.volume,
            volume_quote: first.volume_quote,
            bars: 1,
            complete,
        }
    }

    /// The same with the next bar.
    pub(crate) fn add(&mut self, candle: &Candle) {
        self.high = self.high.max(candle.high);
        self.low = self.low.min(candle.low);
        self.close = candle.close;
        self.change = candle.close / self.open - 1.0;
        self.volume += candle.volume;
        self.volume_quote += candle.volume_quote;
        self.bars += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::{BASE, candle};
    use crate::time::MINUTE;

    fn bar(name: &str) -> Bar {
        name.parse().unwrap()
    }

    fn closes(closes: &[(i64, f64)]) -> Vec<Candle> {
        closes.iter().map(|&(n, close)| candle(BASE + n * MINUTE, close, true)).collect()
    }

    #[test]
    fn returns_are_those_of_neighbours_alone() {
        let mut rows = closes(&[(0, 100.0), (1, 110.0), (3, 99.0), (4, 0.0), (5, 7.0), (6, 14.0)]);
        rows.push(candle(BASE + 7 * MINUTE, 28.0, false));
        let found = returns(bar("1m").grid(), &rows);
        let found: Vec<(i64, i64)> = found
            .iter()
            .map(|it| ((it.ts - BASE) / MINUTE, (it.value * 1_000.0).round() as i64))
            .collect();
        assert_eq!(found, [(1, 100), (4, -1_000), (6, 1_000)]);
        assert!(returns(bar("1m").grid(), &rows[..1]).is_empty());
    }

    #[test]
    fn volatility_is_the_sample_deviation() {
        let values = |values: &[f64]| -> Vec<Return> {
            values.iter().map(|&value| Return { ts: 0, value }).collect()
        };
        // The mean is 0.02, the squares sum up to 0.0002 over two degrees of freedom.
        let found = volatility(bar("1Dutc"), &values(&[0.01, 0.02, 0.03])).unwrap();
        assert!((found.per_bar - 0.01).abs() < 1e-15 && found.returns == 3, "{found:?}");
        assert!((found.annualised() - 0.01 * 365.0_f64.sqrt()).abs() < 1e-15);
        assert_eq!(volatility(bar("1m"), &values(&[0.01])), None);
        assert_eq!(volatility(bar("1m"), &[]), None);
    }

    #[test]
    fn a_year_has_so_many_bars() {
        for (name, bars) in [("1m", 525_600.0), ("1D", 365.0), ("1M", 12.0), ("3Mutc", 4.0)] {
            assert_eq!(bar(name).per_year(), bars, "{name}");
        }
    }
}
