//! `status --format prometheus`: numbers for the textfile collector of Prometheus' node exporter.
//!
//! Names are public and stay. Times are in seconds, as Prometheus has them. Source: "Exposition
//! formats", text format 0.0.4.

use std::io::Write;

use crate::cli::outcome::Failure;
use crate::cli::sight::Sight;
use crate::cli::status::Report;
use crate::mode::Mode;
use crate::status::{InstrumentStatus, SeriesStatus, UNKNOWN};
use crate::time::Millis;

/// One number of each series.
type SeriesNumber = fn(&SeriesStatus) -> Option<f64>;

/// What is told of each series: name, meaning, number.
const SERIES: [(&str, &str, SeriesNumber); 8] = [
    ("newest_closed_timestamp_seconds", "Open time of the newest closed bar.", |series| {
        series.newest_closed.map(seconds)
    }),
    ("lag_seconds", "For how long the next bar has been closed without being stored.", |series| {
        series.lag_ms.filter(|_| series.is_configured).map(seconds)
    }),
    ("rows", "Closed bars that are stored.", |series| Some(series.rows as f64)),
    ("wanted_bars", "Bars of the configured history.", |series| Some(series.wanted as f64)),
    ("missing_bars", "Wanted bars that are not fetched yet.", |series| Some(series.missing as f64)),
    ("coverage_ratio", "Stored share of the wanted bars that there are.", |series| {
        Some(series.coverage)
    }),
    ("suspected_empty_bars", "Bars that the exchange seems not to have.", |series| {
        Some(series.suspected_empty as f64)
    }),
    ("known_empty_bars", "Bars that the exchange does not have.", |series| {
        Some(series.known_empty as f64)
    }),
];

pub(super) fn write(
    report: &Report,
    sight: Option<&Sight>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut page = Page { out };
    let daemon = &report.state.daemon;
    let up = report.unseen.is_none().then(|| flag(daemon.running));
    page.one("daemon_up", "Whether a daemon is running.", up)?;
    page.one("daemon_uptime_seconds", "For how long.", daemon.uptime_ms.map(seconds))?;
    // A daemon that shows nothing new may have come to anything since.
    let sight = sight.filter(|sight| sight.obstacle().is_none());
    let stalled = sight.map(|_| flag(daemon.stalled.is_some()));
    page.one("daemon_stalled", "Whether nothing can be stored at present.", stalled)?;
    if let Some(sight) = sight {
        write_daemon(&mut page, sight)?;
    }
    page.head("instrument_mode", "How fresh bars come: 1 for the mode that holds.", "gauge")?;
    for instrument in &report.state.instruments {
        let mode = instrument.mode.map_or(UNKNOWN, Mode::as_str);
        let labels = [("symbol", instrument.instrument.as_str()), ("mode", mode)];
        page.line("instrument_mode", &labels, 1.0)?;
    }
    page.head("instrument_bytes", "Size of the file and its log.", "gauge")?;
    for InstrumentStatus { instrument, bytes, .. } in &report.state.instruments {
        page.line("instrument_bytes", &[("symbol", instrument.as_str())], *bytes as f64)?;
    }
    page.head("instrument_failed", "Whether the file cannot be read or written.", "gauge")?;
    for InstrumentStatus { instrument, error, .. } in &report.state.instruments {
        page.line("instrument_failed", &[("symbol", instrument.as_str())], flag(error.is_some()))?;
    }
    for (name, help, number) in SERIES {
        let name = format!("series_{name}");
        page.head(&name, help, "gauge")?;
        for InstrumentStatus { instrument, series, .. } in &report.state.instruments {
            for one in series {
                if let Some(number) = number(one) {
                    let labels = [("symbol", instrument.as_str()), ("timeframe", one.bar.name())];
                    page.line(&name, &labels, number)?;
                }
            }
        }
    }
    Ok(())
}

/// What a daemon alone knows.
fn write_daemon(page: &mut Page<'_>, sight: &Sight) -> Result<(), Failure> {
    let (stream, rest) = (&sight.snapshot.stream, &sight.snapshot.rest);
    let latency = &sight.snapshot.latency;
    page.one("stream_connected", "Whether the stream stands.", Some(flag(stream.connected)))?;
    let subscriptions = f64::from(stream.subscriptions);
    page.one("stream_subscriptions", "Series that are subscribed.", Some(subscriptions))?;
    let wanted = f64::from(stream.wanted);
    page.one("stream_wanted", "Series that should be.", Some(wanted))?;
    let reconnects = stream.reconnects as f64;
    page.one("stream_reconnects_24h", "Connections that took another's place.", Some(reconnects))?;
    page.one("stream_errors_24h", "What went wrong.", Some(stream.errors as f64))?;
    let open = flag(stream.breaker != "closed");
    page.one("stream_breaker_open", "Whether the stream rests, or is on trial.", Some(open))?;
    let rate = stream.updates_per_second;
    page.one("stream_updates_per_second", "States of bars, lately.", Some(rate))?;
    page.head("commit_latency_seconds", "From the exchange to the file, 10 minutes.", "gauge")?;
    for (of, quantile, length_ms) in [
        ("all", "0.5", latency.p50_ms),
        ("all", "0.99", latency.p99_ms),
        ("closed", "0.5", latency.confirmed_p50_ms),
        ("closed", "0.99", latency.confirmed_p99_ms),
    ] {
        if let Some(length_ms) = length_ms {
            let labels = [("of", of), ("quantile", quantile)];
            page.line("commit_latency_seconds", &labels, seconds(length_ms))?;
        }
    }
    page.head("rest_requests_total", "Requests since the daemon's start.", "counter")?;
    page.line("rest_requests_total", &[], rest.requests as f64)?;
    page.head("rest_saved_total", "Polls that the stream made needless.", "counter")?;
    page.line("rest_saved_total", &[], rest.saved as f64)
}

struct Page<'a> {
    out: &'a mut dyn Write,
}

impl Page<'_> {
    /// A gauge without labels; nothing where it is not known.
    fn one(&mut self, name: &str, help: &str, number: Option<f64>) -> Result<(), Failure> {
        let Some(number) = number else { return Ok(()) };
        self.head(name, help, "gauge")?;
        self.line(name, &[], number)
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) -> Result<(), Failure> {
        writeln!(self.out, "# HELP okx_store_{name} {help}")?;
        Ok(writeln!(self.out, "# TYPE okx_store_{name} {kind}")?)
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], number: f64) -> Result<(), Failure> {
        // A symbol has no letter that would have to be escaped, and neither has any other label.
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        Ok(writeln!(self.out, "okx_store_{name}{labels} {number}")?)
    }
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn seconds(length_ms: Millis) -> f64 {
    length_ms as f64 / 1_000.0
}
