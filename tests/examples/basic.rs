//! A store in a program: opened, filled, and asked.
//!
//! `cargo run --example basic -- config.json` fetches what is missing of the first instrument that
//! the configuration names, once, and prints what its candles say.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use okx_local_store::{OkxLocalStore, Return, Selection, format_time, parse_time};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "config.json".to_owned());
    run(Path::new(&file), &mut std::io::stdout())
}

/// All of it, for the tests as well.
pub fn run(file: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let store = OkxLocalStore::open(file)?;
    let config = store.config();
    let known = config.instruments.first().ok_or("the configuration names no instrument")?;
    let (instrument, bar) = (&known.instrument, *known.timeframes.first().ok_or("no timeframe")?);

    for fetched in store.sync_now(instrument)? {
        writeln!(out, "{}: {} new bars", fetched.series, fetched.new_bars)?;
    }

    let query = store.query();
    if let Some(newest) = query.latest_candle(instrument, bar)? {
        let state = if newest.confirmed { "closed" } else { "running" };
        writeln!(out, "newest: {} {} ({state})", format_time(newest.ts), newest.close)?;
    }
    let returns: Vec<Return> = query.calculate_returns(instrument, bar, Selection::Newest(25))?;
    let up = returns.iter().filter(|bar| bar.value > 0.0).count();
    writeln!(out, "of the last {} bars {up} went up", returns.len())?;
    if let Some(volatility) = query.calculate_volatility(instrument, bar, 24)? {
        writeln!(out, "volatility: {:.4} a bar", volatility.per_bar)?;
        writeln!(out, "volatility: {:.4} a year", volatility.annualised())?;
    }
    let coverage = query.data_coverage(instrument, bar)?;
    writeln!(out, "coverage: {:.2} %, {} missing", 100.0 * coverage.share, coverage.missing)?;

    // Times may be written as people write them; ranges are half-open.
    let day = parse_time("2024-05-01")?;
    match query.price_at_time(instrument, bar, day)? {
        Some(found) => writeln!(out, "{}: {}", format_time(found.as_of), found.price)?,
        None => writeln!(out, "nothing had closed by {}", format_time(day))?,
    }
    let csv = file.with_file_name("basic.csv");
    let exported = query.export_to_csv(instrument, bar, &csv, Selection::Days(1))?;
    writeln!(out, "{} rows in {}", exported.rows, csv.display())?;
    Ok(())
}
