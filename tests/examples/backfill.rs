//! A configuration that a program builds, and old history fetched by it, with progress.
//!
//! `cargo run --example backfill -- FOLDER` fetches the hours of a week of BTC-USDT into a folder.
//! With `OKX_REST_URL` it asks another exchange than OKX, such as the one of the tests.

use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use okx_local_store::{Bar, Config, Instrument, InstrumentConfig};
use okx_local_store::{OkxLocalStore, RealtimeMode, Remedy, Wanted};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "candles".to_owned());
    let url = std::env::var("OKX_REST_URL").ok();
    run(Path::new(&folder), url.as_deref(), &mut std::io::stdout())
}

/// All of it, for the tests as well.
pub fn run(folder: &Path, url: Option<&str>, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let (btc, hour): (Instrument, Bar) = ("BTC-USDT".parse()?, "1h".parse()?);
    let mut known = InstrumentConfig::new(btc.clone());
    known.timeframes = vec![hour, "1Dutc".parse()?];
    known.max_history_days = 30;
    let mut config = Config::builder(folder)
        .instrument(known)
        .realtime_mode(RealtimeMode::Polling)
        .rate_limit_per_minute(120)
        .max_concurrent_syncs(2);
    if let Some(url) = url {
        config = config.rest_url(url);
    }
    let store = OkxLocalStore::with_config(config.build()?)?;

    let fetched = store.backfill(&btc, hour, Wanted::Days(7), |progress| {
        // Who reads this may have seen enough.
        let told = writeln!(out, "{} of {} bars to go", progress.missing, progress.wanted);
        if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match fetched {
        Ok(fetched) => writeln!(out, "{}: {} bars stored", fetched.series, fetched.stored)?,
        Err(error) if error.remedy() == Remedy::Retry => {
            writeln!(out, "{error}; the next run goes on from there")?;
        }
        Err(error) => return Err(error.into()),
    }

    for gaps in store.detect_gaps(&btc)? {
        writeln!(out, "{}: {} of {} missing", gaps.series, gaps.missing, gaps.wanted.bars)?;
        for found in &gaps.missing_ranges {
            writeln!(out, "  {:?}: {}, {} bars", found.kind, found.range.span, found.range.bars)?;
        }
    }
    Ok(())
}
