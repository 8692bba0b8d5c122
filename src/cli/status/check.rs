//! `status --check`: the series that are late, for a script that calls somebody.

use std::io::Write;

use crate::cli::outcome::Failure;
use crate::cli::sight::whole_length;
use crate::cli::status::Report;
use crate::status::{InstrumentStatus, SeriesStatus};
use crate::time::{Millis, format_length};

/// The words on each series that is to be kept fresh, and lags by more or has nothing stored.
pub(super) fn late(report: &Report, max_lag_ms: Millis) -> Vec<String> {
    enabled(report).flat_map(|instrument| late_of(instrument, max_lag_ms)).collect()
}

/// Tells of them one a line, or in one line that there is none.
pub(super) fn write(
    report: &Report,
    late: &[String],
    max_lag_ms: Millis,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if late.is_empty() {
        let series = enabled(report).flat_map(configured).count();
        let max_lag = whole_length(max_lag_ms);
        return Ok(writeln!(out, "{series} series checked, none lags by more than {max_lag}")?);
    }
    late.iter().try_for_each(|line| Ok(writeln!(out, "{line}")?))
}

fn enabled(report: &Report) -> impl Iterator<Item = &InstrumentStatus> {
    report.state.instruments.iter().filter(|instrument| instrument.enabled)
}

fn configured(instrument: &InstrumentStatus) -> impl Iterator<Item = &SeriesStatus> {
    instrument.series.iter().filter(|series| series.is_configured)
}

fn late_of(instrument: &InstrumentStatus, max_lag_ms: Millis) -> Vec<String> {
    let symbol = &instrument.instrument;
    if let Some(error) = &instrument.error {
        return vec![format!("{symbol}: {error}")];
    }
    let line = |series: &SeriesStatus| {
        let bar = series.bar;
        match series.overdue_ms {
            None => Some(format!("{symbol} {bar}: nothing is stored")),
            Some(lag_ms) if lag_ms > max_lag_ms => {
                let why = match (&series.last_error, &instrument.reason) {
                    (Some(error), _) => error,
                    (None, reason) => reason,
                };
                Some(format!("{symbol} {bar}: lags by {}: {why}", format_length(lag_ms)))
            }
            Some(_) => None,
        }
    };
    configured(instrument).filter_map(line).collect()
}
