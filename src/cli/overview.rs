//! `overview`: the market at a glance, from what is stored.

use std::io::Write;

use serde::Serialize;

use crate::bar::Bar;
use crate::candle::{Candle, State};
use crate::cli::house::House;
use crate::cli::outcome::{Exit, Failure, finish, note, write_json};
use crate::cli::table::{Align, Layout, short_length};
use crate::instrument::Instrument;
use crate::span::Span;
use crate::store::StoreError;
use crate::store::read::Reader;
use crate::time::{DAY, Millis, format_time};

#[derive(Debug, Serialize)]
struct Report {
    now: Millis,
    now_datetime: String,
    instruments: Vec<Market>,
}

/// One instrument. What is of 24 hours ends with the newest stored row, whatever the clock says,
/// and is right to within one bar of `timeframe`.
#[derive(Debug, Serialize)]
struct Market {
    symbol: String,
    /// The bar that all of it was read from: the finest that suits, see [`choose`].
    timeframe: Option<&'static str>,
    last: Option<f64>,
    /// When the last price was one, Unix ms.
    last_at: Option<Millis>,
    last_at_datetime: Option<String>,
    age_ms: Option<Millis>,
    /// Since the first price of the 24 hours, as a share of it.
    change_24h: Option<f64>,
    high_24h: Option<f64>,
    low_24h: Option<f64>,
    volume_24h: Option<f64>,
    volume_quote_24h: Option<f64>,
    /// Whether all of the 24 hours are stored.
    complete: bool,
    /// Why the file could not be read.
    error: Option<String>,
}

impl Market {
    fn unknown(instrument: &Instrument) -> Market {
        Market {
            symbol: instrument.to_string(),
            timeframe: None,
            last: None,
            last_at: None,
            last_at_datetime: None,
            age_ms: None,
            change_24h: None,
            high_24h: None,
            low_24h: None,
            volume_24h: None,
            volume_quote_24h: None,
            complete: false,
            error: None,
        }
    }
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

/// Shows price, change, range and volume of each configured instrument.
pub fn overview(
    house: &House<'_>,
    json: bool,
    now: Millis,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let market = |instrument: &Instrument| {
        look(house, instrument, now).unwrap_or_else(|error| Market {
            error: Some(error.to_string()),
            ..Market::unknown(instrument)
        })
    };
    let report = Report {
        now,
        now_datetime: format_time(now),
        instruments: house.instruments.iter().map(|wanted| market(&wanted.instrument)).collect(),
    };
    for market in &report.instruments {
        if let Some(error) = &market.error {
            note(notes, format_args!("{}: {error}", market.symbol));
        }
    }
    finish(if json { write_json(&report, out) } else { write_text(&report, out) }, out)
}

fn look(house: &House<'_>, instrument: &Instrument, now: Millis) -> Result<Market, StoreError> {
    let unknown = Market::unknown(instrument);
    let Some(reader) = house.open(instrument)? else { return Ok(unknown) };
    let _snapshot = reader.snapshot()?;
    let Some(chosen) = choose(&candidates(&reader)?) else { return Ok(unknown) };
    let day = Span::new(chosen.end - DAY, chosen.end);
    let mut rows = Rows::default();
    reader.for_each(chosen.bar, day, false, |candle| {
        rows.add(candle);
        Ok::<_, StoreError>(())
    })?;
    let last = chosen.newest.candle;
    // A closed bar's price is that of its end, a running one's of the moment it was heard.
    let last_at = chosen.newest.updated_at.min(chosen.end);
    let change =
        rows.first_price.filter(|&first| first > 0.0).map(|first| last.close / first - 1.0);
    Ok(Market {
        timeframe: Some(chosen.bar.name()),
        last: Some(last.close),
        last_at: Some(last_at),
        last_at_datetime: Some(format_time(last_at)),
        age_ms: Some((now - last_at).max(0)),
        change_24h: change,
        high_24h: Some(rows.high),
        low_24h: Some(rows.low),
        volume_24h: Some(rows.volume),
        volume_quote_24h: Some(rows.volume_quote),
        complete: chosen.complete,
        ..unknown
    })
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

fn write_text(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    let columns = [
        ("instrument", Align::Left),
        ("last", Align::Point),
        ("24h", Align::Right),
        ("high", Align::Point),
        ("low", Align::Point),
        ("volume (quote)", Align::Right),
        ("age", Align::Right),
        ("from", Align::Left),
    ];
    let rows: Vec<Vec<String>> = report.instruments.iter().map(cells).collect();
    Layout::new("", &columns).write(out, &rows)?;
    if report.instruments.iter().any(|market| market.last.is_some() && !market.complete) {
        writeln!(out, "\n*: not all of the 24 hours are stored")?;
    }
    Ok(())
}

fn cells(market: &Market) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let change = |share: f64| format!("{:+.2}%", share * 100.0);
    let from = match market.timeframe {
        Some(bar) => format!("{bar}{}", if market.complete { "" } else { "*" }),
        None if market.error.is_some() => "unreadable".to_owned(),
        None => "never synced".to_owned(),
    };
    vec![
        market.symbol.clone(),
        number(market.last),
        market.change_24h.map_or_else(|| "-".to_owned(), change),
        number(market.high_24h),
        number(market.low_24h),
        number(market.volume_quote_24h.map(f64::round)),
        market.age_ms.map_or_else(|| "-".to_owned(), short_length),
        from,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::house::tests::{house, wanted};
    use crate::store::sample::{BASE, Sample};
    use crate::time::MINUTE;

    fn run(sample: &Sample, json: bool) -> String {
        let instruments = [wanted("BTC-USDT", &["1m"]), wanted("ETH-USDT", &["1m"])];
        let (mut out, now) = (Vec::new(), BASE + 3 * MINUTE);
        let notes = &mut std::io::sink();
        overview(&house(sample, &instruments), json, now, &mut out, notes).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn rows(numbers: std::ops::Range<i64>) -> Vec<(i64, f64)> {
        numbers.map(|n| (n, 5_000.0 + n as f64)).collect()
    }

    #[test]
    fn a_day_is_summed_up() {
        let sample = Sample::new();
        // The newest bar runs since 00:00, so the 24 hours begin with the open of 00:01.
        sample.store("BTC-USDT", "1m", &rows(-1_440..0), Some((0, 5_000.5)));
        let expected = "\
instrument    last      24h  high   low  volume (quote)  age  from
BTC-USDT    5000.5  +40.42%  5001  3560        15409801   2m  1m
ETH-USDT       -          -     -     -               -    -  never synced
";
        assert_eq!(run(&sample, false), expected);
        let report: serde_json::Value = serde_json::from_str(&run(&sample, true)).unwrap();
        let btc = serde_json::json!({
            "symbol": "BTC-USDT", "timeframe": "1m", "last": 5_000.5, "last_at": BASE + 5_000,
            "last_at_datetime": "2024-05-01T00:00:05Z", "age_ms": 175_000,
            "change_24h": 5_000.5 / 3_561.0 - 1.0, "high_24h": 5_001.0, "low_24h": 3_560.0,
            "volume_24h": 3_600.0, "volume_quote_24h": 15_409_801.25, "complete": true,
            "error": null,
        });
        assert_eq!(report["instruments"][0], btc);
        assert!(report["instruments"][1]["last"].is_null());
    }

    #[test]
    fn the_finest_fresh_and_whole_bar_is_chosen() {
        let bars = |stores: &[(&str, std::ops::Range<i64>, Option<i64>)]| {
            let sample = Sample::new();
            for (bar, closed, running) in stores {
                sample.store("BTC-USDT", bar, &rows(closed.clone()), running.map(|n| (n, 1.0)));
            }
            let report: serde_json::Value = serde_json::from_str(&run(&sample, true)).unwrap();
            let btc = &report["instruments"][0];
            (btc["timeframe"].as_str().unwrap().to_owned(), btc["complete"].as_bool().unwrap())
        };
        let hours = ("1H", -24..0, Some(0));
        for (name, stores, expected) in [
            ("both whole", vec![("1m", -1_440..0, Some(0)), hours.clone()], ("1m", true)),
            ("minutes too few", vec![("1m", -100..0, Some(0)), hours.clone()], ("1H", true)),
            ("minutes stale", vec![("1m", -3_000..-60, None), hours.clone()], ("1H", true)),
            ("a little of each", vec![("1m", -9..0, None), ("1H", -3..0, None)], ("1m", false)),
            ("weeks are no part of a day", vec![("1W", -9..0, None), hours], ("1H", true)),
        ] {
            let (bar, complete) = bars(&stores);
            assert_eq!((bar.as_str(), complete), expected, "{name}");
        }
    }
}
