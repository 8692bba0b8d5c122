//! `overview`: the market at a glance, from what is stored.

use std::io::Write;

use serde::Serialize;

use crate::cli::outcome::{Exit, Failure, NOTHING_CONFIGURED, finish, note, write_json};
use crate::cli::table::{Align, Layout, short_length};
use crate::house::{House, Wanted};
use crate::instrument::Instrument;
use crate::market::{Market, look};
use crate::store::StoreError;
use crate::time::{Millis, format_time};

#[derive(Debug, Serialize)]
struct Report {
    now: Millis,
    now_datetime: String,
    instruments: Vec<Row>,
}

/// One instrument in JSON. These names are public.
#[derive(Debug, Serialize)]
struct Row {
    symbol: String,
    timeframe: Option<&'static str>,
    last: Option<f64>,
    last_at: Option<Millis>,
    last_at_datetime: Option<String>,
    age_ms: Option<Millis>,
    change_24h: Option<f64>,
    high_24h: Option<f64>,
    low_24h: Option<f64>,
    volume_24h: Option<f64>,
    volume_quote_24h: Option<f64>,
    complete: bool,
    /// Why the file could not be read.
    error: Option<String>,
}

impl Row {
    fn new(instrument: &Instrument, looked: Result<Option<Market>, StoreError>) -> Row {
        let (market, error) = match looked {
            Ok(market) => (market, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Row {
            symbol: instrument.to_string(),
            timeframe: market.map(|market| market.bar.name()),
            last: market.map(|market| market.last),
            last_at: market.map(|market| market.last_at),
            last_at_datetime: market.map(|market| format_time(market.last_at)),
            age_ms: market.map(|market| market.age_ms),
            change_24h: market.and_then(|market| market.change_24h),
            high_24h: market.map(|market| market.high_24h),
            low_24h: market.map(|market| market.low_24h),
            volume_24h: market.map(|market| summed(market.volume_24h)),
            volume_quote_24h: market.map(|market| summed(market.volume_quote_24h)),
            complete: market.is_some_and(|market| market.complete),
            error,
        }
    }
}

/// A sum without the noise that adding binary fractions leaves behind its twelfth digit.
fn summed(sum: f64) -> f64 {
    format!("{sum:.11e}").parse().unwrap_or(sum)
}

/// Shows price, change, range and volume of each configured instrument.
pub fn overview(
    house: &House<'_>,
    json: bool,
    now: Millis,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let row = |wanted: &Wanted| Row::new(&wanted.instrument, look(house, &wanted.instrument, now));
    let report = Report {
        now,
        now_datetime: format_time(now),
        instruments: house.instruments.iter().map(row).collect(),
    };
    for market in &report.instruments {
        if let Some(error) = &market.error {
            note(notes, format_args!("{}: {error}", market.symbol));
        }
    }
    let exit = finish(if json { write_json(&report, out) } else { write_text(&report, out) }, out)?;
    let is_sick = report.instruments.iter().any(|market| market.error.is_some());
    Ok(if is_sick { Exit::Failed } else { exit })
}

fn write_text(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    if report.instruments.is_empty() {
        return Ok(writeln!(out, "{NOTHING_CONFIGURED}")?);
    }
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

fn cells(market: &Row) -> Vec<String> {
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
    use crate::house::tests::{house, wanted};
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
    fn sums_have_no_more_digits_than_they_are_good_for() {
        assert_eq!(summed(682.690_672_810_000_1), 682.690_672_81);
        assert_eq!((summed(0.0), summed(15_409_801.25)), (0.0, 15_409_801.25));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_success() {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1m", &rows(-9..0), None);
        let sick = sample.data_dir().join("ETH-USDT.db");
        std::os::unix::fs::symlink(&sick, &sick).unwrap();
        let instruments = [wanted("BTC-USDT", &["1m"]), wanted("ETH-USDT", &["1m"])];
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let exit = overview(&house(&sample, &instruments), false, BASE, &mut out, &mut notes);
        assert_eq!(exit.unwrap(), Exit::Failed);
        let (out, notes) = (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap());
        assert!(out.contains("unreadable") && out.contains("BTC-USDT    4999"), "{out}");
        assert!(notes.contains("ETH-USDT.db: cannot look at it: "), "{notes}");
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
