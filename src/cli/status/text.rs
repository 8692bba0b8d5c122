//! `status` for people: a head about the daemon, and a table of the series.

use std::collections::BTreeSet;
use std::io::Write;

use crate::cli::outcome::{Failure, NOTHING_CONFIGURED};
use crate::cli::paint::{Paint, Tone, width};
use crate::cli::sight::{Sight, tone};
use crate::cli::status::Report;
use crate::cli::table::{
    Align, COLUMNS, Layout, count, format_bytes, format_share, short_length, short_time,
    unless_repeated, write_wrapped,
};
use crate::mode::Mode;
use crate::snapshot::StreamView;
use crate::status::{InstrumentStatus, SeriesStatus, UNKNOWN};
use crate::time::{Millis, SECOND};

/// Writes the report; what the daemon shows beyond it stands in `sight`.
pub(super) fn write(
    report: &Report,
    sight: Option<&Sight>,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    write_head(report, sight, paint, out)?;
    if report.state.instruments.is_empty() {
        return Ok(writeln!(out, "{NOTHING_CONFIGURED}")?);
    }
    let last = if sight.is_some_and(Sight::is_shown) { "via" } else { "synced" };
    let columns = [
        ("bar", Align::Left),
        ("newest closed", Align::Left),
        ("lag", Align::Right),
        ("rows", Align::Right),
        ("covered", Align::Right),
        ("missing", Align::Right),
        ("empty", Align::Right),
        (last, Align::Left),
    ];
    let mut layout = Layout::new("  ", &columns);
    let all = report.state.instruments.iter().flat_map(|instrument| &instrument.series);
    all.clone().for_each(|series| layout.fit(&cells(series, report.now)));
    layout.write_head(out)?;
    let mut above = "";
    for instrument in &report.state.instruments {
        write_title(instrument, above, paint, out)?;
        write_instrument(instrument, &layout, report.now, paint, out)?;
        above = &instrument.reason;
    }
    let remarks: BTreeSet<String> = all
        .clone()
        .filter_map(|series| Some(format!("{} {}", series.bar, series.bar.remark()?)))
        .collect();
    if !remarks.is_empty() {
        writeln!(out)?;
        write_wrapped(out, "", &format!("{}.", Vec::from_iter(remarks).join("; ")))?;
    }
    if all.clone().any(|series| series.suspected_empty > 0) {
        writeln!(out, "?: suspected to be empty, to be asked for again.")?;
    }
    Ok(())
}

fn write_head(
    report: &Report,
    sight: Option<&Sight>,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    const BELOW: &str = "        ";
    match sight {
        None => match &report.unseen {
            Some(unseen) => write_wrapped(out, "daemon  ", &format!("unknown: {unseen}"))?,
            None => writeln!(out, "daemon  not running")?,
        },
        Some(sight) => {
            writeln!(out, "daemon  {}", sight.headline())?;
            if let Some(obstacle) = sight.obstacle() {
                write_alert(out, BELOW, obstacle, paint)?;
            }
            let (tone, words) = sight.connection();
            let StreamView { connected, subscriptions, wanted, .. } = sight.snapshot.stream;
            let series = match connected {
                true => format!(", {subscriptions} of {wanted} series"),
                false => String::new(),
            };
            write_wrapped(out, "stream  ", &format!("{words}{series}"))?;
            let error = report.state.websocket.last_error.as_deref();
            if let Some(error) = error.filter(|_| matches!(tone, Tone::Bad | Tone::Fair)) {
                write_wrapped(out, BELOW, error)?;
            }
        }
    }
    writeln!(out, "config  {}", report.config)?;
    if let Some(error) = &report.state.daemon.config_error {
        let error = format!("changed, and refused; the one before holds: {error}");
        write_alert(out, BELOW, &error, paint)?;
    }
    let sizes = report.state.instruments.iter().map(size).collect::<Option<Vec<u64>>>();
    let sizes =
        sizes.map_or_else(String::new, |all| format!(", {}", format_bytes(all.iter().sum())));
    writeln!(out, "data    {}{sizes}", report.data_dir)?;
    if let Some(error) = &report.state.daemon.stalled {
        write_alert(out, BELOW, &format!("nothing can be stored: {error}"), paint)?;
    }
    // Whole seconds: a daemon's files are as fresh as that.
    let now = report.now - report.now.rem_euclid(SECOND);
    let whose = if report.knows_clock { "the exchange's" } else { "this machine's" };
    Ok(writeln!(out, "time    {} UTC by {whose} clock\n", short_time(now))?)
}

/// The size of an instrument's file and its log, bytes; nothing where it cannot be seen.
fn size(status: &InstrumentStatus) -> Option<u64> {
    (status.bytes > 0 || status.error.is_none()).then_some(status.bytes)
}

fn write_alert(out: &mut dyn Write, lead: &str, text: &str, paint: Paint) -> Result<(), Failure> {
    Ok(write_wrapped(out, &format!("{lead}{}", paint.mark(Tone::Bad)), text)?)
}

/// The line above the series of an instrument, whose mode has its reason perhaps as the instrument
/// before has.
fn write_title(
    status: &InstrumentStatus,
    above: &str,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let InstrumentStatus { instrument: symbol, mode, reason, fell_back, .. } = status;
    let mode = mode.map_or(UNKNOWN, Mode::as_str);
    let lead = format!("{}{symbol}  ", paint.mark(tone(mode, *fell_back)));
    let bytes = size(status).map_or_else(String::new, |bytes| format!(", {}", format_bytes(bytes)));
    let room = COLUMNS.saturating_sub(width(&lead) + mode.len() + bytes.len());
    let reason = unless_repeated(reason, above, room);
    Ok(write_wrapped(out, &lead, &format!("{mode}: {reason}{bytes}"))?)
}

fn write_instrument(
    instrument: &InstrumentStatus,
    layout: &Layout,
    now: Millis,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    for series in &instrument.series {
        layout.write_row(out, &cells(series, now))?;
    }
    for series in &instrument.series {
        let bar = series.bar;
        if series.odd_rows > 0 {
            let rows = count(series.odd_rows, "odd row");
            writeln!(out, "  {bar}: {rows}, kept as the exchange gave them")?;
        }
        if let Some(error) = &series.last_error {
            write_wrapped(out, &format!("  {bar}: "), &format!("last error: {error}"))?;
        }
    }
    if let Some(error) = &instrument.error {
        write_alert(out, "  ", error, paint)?;
    }
    Ok(())
}

fn cells(series: &SeriesStatus, now: Millis) -> Vec<String> {
    let ago = series.last_sync.map(|at| format!("{} ago", short_length(now - at)));
    let last = match (&series.via, ago) {
        (None, Some(ago)) => ago,
        (None, None) => "never".to_owned(),
        (Some(via), ago) => {
            format!("{} {}", via.as_str(), ago.unwrap_or_default()).trim_end().to_owned()
        }
    };
    let none = || "-".to_owned();
    let empty = match (series.known_empty, series.suspected_empty) {
        (known, 0) => known.to_string(),
        (0, suspected) => format!("{suspected}?"),
        (known, suspected) => format!("{known}+{suspected}?"),
    };
    vec![
        series.bar.to_string(),
        series.newest_closed.map_or_else(none, short_time),
        // What nobody has asked to keep fresh does not lag.
        series.lag_ms.filter(|_| series.is_configured).map_or_else(none, short_length),
        series.rows.to_string(),
        format_share(series.coverage),
        series.missing.to_string(),
        empty,
        last,
    ]
}
