//! The sync engine inside a program, watched: what comes in, and how everything stands.
//!
//! `cargo run --example monitor -- config.json` keeps what the configuration names fresh, and
//! prints each closed bar of its first series, and the state of all whenever none came for a while.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use okx_local_store::{OkxLocalStore, SubscriptionError, Updates, format_time};

/// How long a bar is waited for before the state of things is told.
const QUIET: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "config.json".to_owned());
    run(Path::new(&file), usize::MAX, &mut std::io::stdout())
}

/// All of it up to so many bars, for the tests as well.
pub fn run(file: &Path, bars: usize, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let store = OkxLocalStore::open(file)?;
    let first = store.config().series().next().ok_or("the configuration names no series")?;
    let mut candles = store.subscribe(&first.instrument, first.bar, Updates::Closed);
    store.start()?;
    let mut seen = 0;
    while seen < bars {
        match candles.recv_within(QUIET) {
            Ok(Some(candle)) => {
                writeln!(out, "{first} {} {}", format_time(candle.ts), candle.close)?;
                seen += 1;
            }
            Ok(None) => tell(&store, out)?,
            Err(SubscriptionError::Slow) => {
                // What was missed is in the store; from here on it is heard again.
                candles = store.subscribe(&first.instrument, first.bar, Updates::Closed);
            }
            Err(error) => {
                writeln!(out, "{error}")?;
                break;
            }
        }
    }
    tell(&store, out)?;
    Ok(store.stop()?)
}

/// How everything stands.
fn tell(store: &OkxLocalStore, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let status = store.status();
    let stream = if status.websocket.connected { "connected" } else { "not connected" };
    writeln!(out, "stream {stream}, {} series subscribed", status.websocket.subscriptions)?;
    for instrument in &status.instruments {
        let mode = instrument.mode.map_or("unknown", |mode| mode.as_str());
        writeln!(out, "{}: {mode}: {}", instrument.instrument, instrument.reason)?;
        for series in &instrument.series {
            let lag_ms = series.lag_ms.map_or("-".to_owned(), |lag_ms| format!("{lag_ms} ms"));
            writeln!(out, "  {}: {lag_ms} behind, {} missing", series.bar, series.missing)?;
        }
    }
    for (instrument, market) in store.market_overview()? {
        if let Some(market) = market {
            let change = market.change_24h.map_or(0.0, |change| 100.0 * change);
            writeln!(out, "{instrument}: {}, {change:+.2} % in 24 h", market.last)?;
        }
    }
    Ok(())
}
