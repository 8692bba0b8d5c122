//! How long a daemon takes until it knows every plan, and how that grows with what is stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use okx_local_store::bar::Bar;
use okx_local_store::time::HOUR;

use crate::candles::candles;
use crate::daemon::{Daemon, configure, symbol};
use crate::exchange::{Endpoint, Exchange, Listed};
use crate::measure::by_turns;
use crate::table::{Line, Target};
use crate::yard::{Yard, series, store};

const FILES: usize = 300;
const BARS: [&str; 4] = ["1m", "3m", "5m", "15m"];
const MANY: usize = 200_000;
const FEW: usize = 2_000;
/// 2024-05-01T00:00:30Z.
const NOW: i64 = 1_714_521_630_000;

pub fn start(yard: &Yard) -> Result<Vec<Line>, String> {
    let mut builder = Exchange::builder().clock(NOW);
    for number in 0..FILES {
        builder = builder.synthetic(&symbol(number), Listed::days(2));
    }
    let exchange = builder.start();
    exchange.expect_violations();
    let (large, small) = (fill(yard, &exchange, MANY), fill(yard, &exchange, FEW));
    let pair = by_turns(5, || until_asked(&large, &exchange), || until_asked(&small, &exchange));
    let bytes: u64 = sizes(&large.join("data")).sum();
    let remark = format!("{pair}\n{:.1} GB beside 2,000 rows a series", bytes as f64 / 1e9);
    fs::remove_dir_all(&large).and_then(|()| fs::remove_dir_all(&small)).unwrap();
    let what = "start, 300 files × 4 series × 200,000 rows: 2,000 rows";
    Ok(vec![Line::new(what, pair.time_ratio(), Target::AtMost(1.5), remark)])
}

/// A store of files that are all alike, up to an hour ago.
fn fill(yard: &Yard, exchange: &Exchange, rows: usize) -> PathBuf {
    let home = yard.folder(&format!("start-{rows}"));
    configure(&home, exchange, FILES, &BARS, "");
    let data_dir = home.join("data");
    for name in BARS {
        let grid = name.parse::<Bar>().unwrap().grid();
        let (length_ms, _) = grid.period().expect("because these bars are even");
        let first = grid.floor(NOW - HOUR) - rows as i64 * length_ms;
        let rows = candles(length_ms).take(rows).zip(0..).map(|(mut row, n)| {
            row.ts = first + n * length_ms;
            row
        });
        store(&data_dir, &series(&symbol(0), name), rows);
    }
    let template = data_dir.join(format!("{}.db", symbol(0)));
    for number in 1..FILES {
        fs::copy(&template, data_dir.join(format!("{}.db", symbol(number)))).unwrap();
    }
    home
}

/// From the start of a daemon to its first question about candles, which needs every plan.
fn until_asked(home: &Path, exchange: &Exchange) -> Duration {
    let asked = || exchange.count(Endpoint::Candles) + exchange.count(Endpoint::History);
    let before = asked();
    let begun = Instant::now();
    let daemon = Daemon::start(home, 8_192);
    exchange.wait_until("the first question about candles", || asked() > before);
    let length = begun.elapsed();
    drop(daemon);
    length
}

fn sizes(folder: &Path) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len())
}
