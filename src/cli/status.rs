//! `status` without a daemon: what the files tell.
//!
//! **Invariant:** it reads ledgers and newest rows alone, never a whole table, so it answers at
//! once however much is stored.

use std::collections::BTreeSet;
use std::io::Write;

use serde::Serialize;

use crate::bar::Bar;
use crate::cli::house::{House, Wanted};
use crate::cli::outcome::{Exit, Failure, finish, write_json};
use crate::cli::table::{
    Align, Layout, count, format_bytes, format_share, short_length, short_time,
};
use crate::coverage::Coverage;
use crate::instrument::Instrument;
use crate::store::StoreError;
use crate::store::read::Reader;
use crate::time::{Millis, format_time};

/// Everything that `status` knows. The names are public: scripts read them.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// The exchange's clock, Unix ms.
    now: Millis,
    now_datetime: String,
    config: String,
    data_dir: String,
    daemon: Daemon,
    websocket: WebSocket,
    instruments: Vec<InstrumentStatus>,
}

/// The daemon. The default is that there is none.
#[derive(Clone, Debug, Default, Serialize)]
struct Daemon {
    running: bool,
    pid: Option<u32>,
    uptime_ms: Option<Millis>,
}

/// The stream. The default is that there is none.
#[derive(Clone, Debug, Serialize)]
struct WebSocket {
    connected: bool,
    subscriptions: u32,
    reconnects: u32,
    breaker: &'static str,
}

impl Default for WebSocket {
    fn default() -> WebSocket {
        WebSocket { connected: false, subscriptions: 0, reconnects: 0, breaker: "closed" }
    }
}

#[derive(Clone, Debug, Serialize)]
struct InstrumentStatus {
    symbol: String,
    enabled: bool,
    mode: &'static str,
    reason: &'static str,
    /// The file and its log.
    bytes: u64,
    /// Why the file could not be read.
    error: Option<String>,
    series: Vec<SeriesStatus>,
}

/// One series. The counts from `wanted` to `before_history` are bars inside the wanted history.
#[derive(Clone, Debug, Serialize)]
struct SeriesStatus {
    timeframe: &'static str,
    /// When its bars open, where the name does not tell.
    remark: Option<&'static str>,
    /// The open time of the newest closed bar.
    newest_closed: Option<Millis>,
    newest_closed_datetime: Option<String>,
    /// For how long the next bar has been closed without being stored; 0 = fresh.
    lag_ms: Option<Millis>,
    /// Closed bars that are stored, whether still wanted or not.
    rows: i64,
    wanted: i64,
    missing: i64,
    /// The stored share of those wanted bars that the exchange has, 0 to 1.
    coverage: f64,
    suspected_empty: i64,
    known_empty: i64,
    before_history: i64,
    odd_rows: i64,
    /// How the newest rows come: known to a daemon alone.
    via: Option<&'static str>,
    last_sync: Option<Millis>,
    last_sync_datetime: Option<String>,
    last_error: Option<String>,
}

/// Tells the state of everything configured at the time `now` of the exchange's clock.
pub fn status(
    house: &House<'_>,
    json: bool,
    now: Millis,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let report = Report {
        now,
        now_datetime: format_time(now),
        config: house.config_text(),
        data_dir: house.data_dir.display().to_string(),
        daemon: Daemon::default(),
        websocket: WebSocket::default(),
        instruments: house.instruments.iter().map(|wanted| look(house, wanted, now)).collect(),
    };
    finish(if json { write_json(&report, out) } else { write_text(&report, out) }, out)
}

fn look(house: &House<'_>, wanted: &Wanted, now: Millis) -> InstrumentStatus {
    let instrument = &wanted.instrument;
    let (series, error) = match all_series(house, instrument, now) {
        Ok(series) => (series, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    InstrumentStatus {
        symbol: instrument.to_string(),
        enabled: wanted.enabled,
        mode: "off",
        reason: if wanted.enabled { "no daemon running" } else { "disabled" },
        bytes: house.bytes(instrument),
        error,
        series,
    }
}

fn all_series(
    house: &House<'_>,
    instrument: &Instrument,
    now: Millis,
) -> Result<Vec<SeriesStatus>, StoreError> {
    let reader = house.open(instrument)?;
    let _snapshot = reader.as_ref().map(Reader::snapshot).transpose()?;
    let stored = reader.as_ref().map_or_else(|| Ok(Vec::new()), Reader::bars)?;
    let one = |bar: Bar| {
        let reader = reader.as_ref().filter(|_| stored.contains(&bar));
        one_series(house, instrument, bar, reader, now)
    };
    house.bars(instrument, reader.as_ref())?.into_iter().map(one).collect()
}

fn one_series(
    house: &House<'_>,
    instrument: &Instrument,
    bar: Bar,
    reader: Option<&Reader>,
    now: Millis,
) -> Result<SeriesStatus, StoreError> {
    let ask = |question: &dyn Fn(&Reader) -> Result<Option<Millis>, StoreError>| {
        reader.map_or(Ok(None), question)
    };
    let grid = reader.map_or_else(|| Ok(bar.grid()), |reader| reader.grid(bar))?;
    let coverage = reader.map_or_else(|| Ok(Coverage::default()), |reader| reader.coverage(bar))?;
    let newest_closed = ask(&|reader| Ok(reader.latest_closed(bar)?.map(|candle| candle.ts)))?;
    let last_sync = ask(&|reader| reader.synced_at(bar))?;
    let odd_rows = ask(&|reader| reader.odd_rows(bar).map(Some))?.unwrap_or(0);
    let wanted = house.wanted_span(instrument, bar, grid, &coverage, now);
    let tally = coverage.tally(grid, wanted);
    Ok(SeriesStatus {
        timeframe: bar.name(),
        remark: bar.remark(),
        newest_closed,
        newest_closed_datetime: newest_closed.map(format_time),
        lag_ms: newest_closed.map(|ts| (now - grid.next(grid.bar_at(ts).end)).max(0)),
        rows: coverage.with_rows().iter().map(|span| grid.count(span)).sum(),
        wanted: tally.wanted,
        missing: tally.missing,
        coverage: tally.coverage(),
        suspected_empty: tally.suspected_empty,
        known_empty: tally.known_empty,
        before_history: tally.before_history,
        odd_rows,
        via: None,
        last_sync,
        last_sync_datetime: last_sync.map(format_time),
        last_error: reader.map_or(Ok(None), |reader| reader.last_error(bar))?,
    })
}

fn write_text(report: &Report, out: &mut dyn Write) -> Result<(), Failure> {
    let bytes = report.instruments.iter().map(|instrument| instrument.bytes).sum();
    writeln!(out, "daemon  not running")?;
    writeln!(out, "config  {}", report.config)?;
    writeln!(out, "data    {}, {}", report.data_dir, format_bytes(bytes))?;
    writeln!(out, "time    {} UTC by the exchange's clock\n", short_time(report.now))?;
    let columns = [
        ("bar", Align::Left),
        ("newest closed", Align::Left),
        ("lag", Align::Right),
        ("rows", Align::Right),
        ("covered", Align::Right),
        ("missing", Align::Right),
        ("empty", Align::Right),
        ("synced", Align::Left),
    ];
    let mut layout = Layout::new("  ", &columns);
    let all = report.instruments.iter().flat_map(|instrument| &instrument.series);
    all.clone().for_each(|series| layout.fit(&cells(series, report.now)));
    layout.write_head(out)?;
    for instrument in &report.instruments {
        write_instrument(instrument, &layout, report.now, out)?;
    }
    let remarks: BTreeSet<String> = all
        .clone()
        .filter_map(|series| Some(format!("{} {}", series.timeframe, series.remark?)))
        .collect();
    if !remarks.is_empty() {
        writeln!(out, "\n{}.", Vec::from_iter(remarks).join("; "))?;
    }
    if all.clone().any(|series| series.suspected_empty > 0) {
        writeln!(out, "?: suspected to be empty, to be asked for again.")?;
    }
    Ok(())
}

fn write_instrument(
    instrument: &InstrumentStatus,
    layout: &Layout,
    now: Millis,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let InstrumentStatus { symbol, mode, reason, .. } = instrument;
    writeln!(out, "{symbol}  {mode}: {reason}, {}", format_bytes(instrument.bytes))?;
    for series in &instrument.series {
        layout.write_row(out, &cells(series, now))?;
    }
    for series in &instrument.series {
        let bar = series.timeframe;
        if series.odd_rows > 0 {
            let rows = count(series.odd_rows, "odd row");
            writeln!(out, "  {bar}: {rows}, kept as the exchange gave them")?;
        }
        if let Some(error) = &series.last_error {
            writeln!(out, "  {bar}: last error: {error}")?;
        }
    }
    if let Some(error) = &instrument.error {
        writeln!(out, "  {error}")?;
    }
    Ok(())
}

fn cells(series: &SeriesStatus, now: Millis) -> Vec<String> {
    let never = || "never".to_owned();
    let none = || "-".to_owned();
    let empty = match (series.known_empty, series.suspected_empty) {
        (known, 0) => known.to_string(),
        (0, suspected) => format!("{suspected}?"),
        (known, suspected) => format!("{known}+{suspected}?"),
    };
    vec![
        series.timeframe.to_owned(),
        series.newest_closed.map_or_else(none, short_time),
        series.lag_ms.map_or_else(none, short_length),
        series.rows.to_string(),
        format_share(series.coverage),
        series.missing.to_string(),
        empty,
        series.last_sync.map_or_else(never, |at| format!("{} ago", short_length(now - at))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::house::tests::{house, wanted};
    use crate::store::sample::{BASE, Sample};
    use crate::time::SECOND;

    const NOW: Millis = BASE + 70 * SECOND;

    /// BTC has two days of its bars with every tenth absent; one bar of ETH failed; SOL's file is
    /// none; DOGE was never synced and is not enabled.
    fn run(json: bool) -> String {
        let sample = Sample::new();
        for (bar, count) in [("1m", 2_880), ("1H", 48), ("1D", 2)] {
            let rows: Vec<(i64, f64)> =
                (-count..0).filter(|n| n % 10 != -5).map(|n| (n, 1.0)).collect();
            sample.store("BTC-USDT-SWAP", bar, &rows, Some((0, 5.0)));
        }
        sample.store("ETH-USDT", "1m", &[(0, 1.0)], None);
        let mut failed = sample.file("ETH-USDT");
        failed.note_error("1m".parse().unwrap(), "50011: too many requests").unwrap();
        std::fs::write(sample.data_dir().join("SOL-USDT.db"), "this is no database").unwrap();
        let mut instruments = [
            wanted("BTC-USDT-SWAP", &["1m", "1H", "1D"]),
            wanted("ETH-USDT", &["1m", "1Dutc"]),
            wanted("SOL-USDT", &["1m"]),
            wanted("DOGE-USDT", &["1m"]),
        ];
        instruments.iter_mut().for_each(|wanted| wanted.history_days = 2);
        instruments[3].enabled = false;
        let mut out = Vec::new();
        let exit = status(&house(&sample, &instruments), json, NOW, &mut out).unwrap();
        assert_eq!(exit, Exit::Done);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_tells_the_state_of_every_series() {
        let out = run(false);
        // Where the files lie and how large they are differs from run to run.
        let from = out.find("  bar ").unwrap();
        let (head, table) = out.split_at(from);
        assert!(head.starts_with("daemon  not running\nconfig  config.json\ndata    /"), "{head}");
        assert!(head.ends_with("time    2024-05-01 00:01:10 UTC by the exchange's clock\n\n"));
        assert!(table.lines().all(|line| line.chars().count() <= 80 || line.contains(".db")));
        let rows: Vec<&str> = table.lines().filter(|line| !line.contains("USDT")).collect();
        let expected = "  bar    newest closed     lag  rows  covered  missing  empty  synced
  1m     2024-04-30 23:59  10s  2592   99.96%        1   288?  1m ago
  1H     2024-04-30 23:00   0s    43     100%        0     5?  1m ago
  1D     2024-04-29 16:00   0s     2     100%        0      0  8h ago
  1m     2024-05-01 00:00   0s     1    0.03%     2879      0  5s ago
  1Dutc  -                   -     0    0.00%        2      0  never
  1m: last error: 50011: too many requests
  1m     -                   -     0    0.00%     2880      0  never

1D opens 16:00 UTC.
?: suspected to be empty, to be asked for again.";
        assert_eq!(rows.join("\n"), expected);
        assert!(table.contains("\nSOL-USDT  off: no daemon running, 19 B\n  /"), "{table}");
        assert!(table.contains("\nDOGE-USDT  off: disabled, 0 B\n"), "{table}");
    }

    #[test]
    fn json_has_stable_names() {
        let report: serde_json::Value = serde_json::from_str(&run(true)).unwrap();
        assert_eq!(report["daemon"]["running"], false);
        assert!(report["daemon"]["pid"].is_null());
        let stream = r#"{"breaker":"closed","connected":false,"reconnects":0,"subscriptions":0}"#;
        assert_eq!(report["websocket"].to_string(), stream);
        let btc = &report["instruments"][0];
        let words = [&btc["symbol"], &btc["mode"], &btc["reason"]];
        assert_eq!(words, ["BTC-USDT-SWAP", "off", "no daemon running"]);
        let series = serde_json::json!({
            "timeframe": "1m", "remark": null, "newest_closed": BASE - 60_000,
            "newest_closed_datetime": "2024-04-30T23:59:00Z", "lag_ms": 10_000, "rows": 2_592,
            "wanted": 2_880, "missing": 1, "coverage": 2_591.0 / 2_592.0, "suspected_empty": 288,
            "known_empty": 0, "before_history": 0, "odd_rows": 0, "via": null,
            "last_sync": BASE + 5_000, "last_sync_datetime": "2024-05-01T00:00:05Z",
            "last_error": null,
        });
        assert_eq!(btc["series"][0], series);
        assert_eq!(report["instruments"][1]["series"][0]["last_error"], "50011: too many requests");
        assert!(report["instruments"][2]["error"].as_str().unwrap().contains("SOL-USDT.db"));
    }
}
