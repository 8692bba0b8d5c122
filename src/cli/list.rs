//! `list`: what is configured, and what lies in the folder besides.

use std::io::Write;

use serde::Serialize;

use crate::cli::outcome::{Exit, Failure, NOTHING_CONFIGURED, finish, write_json};
use crate::cli::table::{Align, Layout, format_bytes};
use crate::house::{House, Wanted};
use crate::instrument::Instrument;

#[derive(Debug, Serialize)]
struct Report {
    instruments: Vec<Configured>,
    /// Files of instruments that are not configured.
    unconfigured: Vec<Stranger>,
}

#[derive(Debug, Serialize)]
struct Configured {
    symbol: String,
    timeframes: Vec<&'static str>,
    history_days: u32,
    enabled: bool,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Stranger {
    symbol: String,
    bytes: u64,
}

/// Lists the configured instruments, and files in the folder that belong to none of them.
pub fn list(house: &House<'_>, json: bool, out: &mut dyn Write) -> Result<Exit, Failure> {
    let configured = |wanted: &Wanted| Configured {
        symbol: wanted.instrument.to_string(),
        timeframes: wanted.bars.iter().map(|bar| bar.name()).collect(),
        history_days: wanted.history_days,
        enabled: wanted.enabled,
        bytes: house.bytes(&wanted.instrument),
    };
    let stranger = |instrument: &Instrument| Stranger {
        symbol: instrument.to_string(),
        bytes: house.bytes(instrument),
    };
    let report = Report {
        instruments: house.instruments.iter().map(configured).collect(),
        unconfigured: house.strangers().iter().map(stranger).collect(),
    };
    finish(if json { write_json(&report, out) } else { write_text(&report, out) }, out)
}

fn write_text(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    let columns = [
        ("instrument", Align::Left),
        ("enabled", Align::Left),
        ("history", Align::Right),
        ("size", Align::Right),
        ("bars", Align::Left),
    ];
    let row = |found: &Configured| {
        vec![
            found.symbol.clone(),
            if found.enabled { "yes" } else { "no" }.to_owned(),
            format!("{}d", found.history_days),
            format_bytes(found.bytes),
            found.timeframes.join(" "),
        ]
    };
    let rows: Vec<Vec<String>> = report.instruments.iter().map(row).collect();
    match rows.is_empty() {
        true => writeln!(out, "{NOTHING_CONFIGURED}")?,
        false => Layout::new("", &columns).write(out, &rows)?,
    }
    if !report.unconfigured.is_empty() {
        writeln!(out, "\nIn the folder, but not configured:")?;
    }
    for Stranger { symbol, bytes } in &report.unconfigured {
        writeln!(out, "  {symbol}, {}", format_bytes(*bytes))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::tests::{house, wanted};
    use crate::store::sample::Sample;

    fn run(json: bool) -> String {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1m", &[(0, 1.0)], None);
        sample.file("BTC-USDT").finish().unwrap();
        let mut instruments =
            [wanted("SOL-USDT-SWAP", &["1m", "1Dutc"]), wanted("ETH-USDT", &["1H"])];
        instruments[1].enabled = false;
        let mut out = Vec::new();
        list(&house(&sample, &instruments), json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_configured_is_listed_and_what_is_not_is_named() {
        let expected = "\
instrument     enabled  history  size  bars
SOL-USDT-SWAP  yes         365d   0 B  1m 1Dutc
ETH-USDT       no          365d   0 B  1H

In the folder, but not configured:
  BTC-USDT, ";
        let out = run(false);
        assert!(out.starts_with(expected), "{out}");
        let report: serde_json::Value = serde_json::from_str(&run(true)).unwrap();
        let first = serde_json::json!({
            "symbol": "SOL-USDT-SWAP", "timeframes": ["1m", "1Dutc"], "history_days": 365,
            "enabled": true, "bytes": 0,
        });
        assert_eq!(report["instruments"][0], first);
        assert_eq!(report["unconfigured"][0]["symbol"], "BTC-USDT");
    }
}
