//! How what one thing costs grows with what is stored.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use okx_local_store::store::file::{Entry, File};
use okx_local_store::store::read::Reader;

use crate::candles::minutes;
use crate::measure::{by_turns, per_call, short};
use crate::process::{program, whole};
use crate::table::{Line, Target};
use crate::yard::{Yard, config, identity, pages, series, store};

/// Rows of the smallest store and of the largest.
const SIZES: [usize; 4] = [10_000, 100_000, 1_000_000, 10_000_000];
/// A tree of so many rows is twice as deep as the one of the fewest.
const DEEPER: f64 = 2.0;
/// Rows that are appended one by one.
const APPENDED: usize = 200;

pub fn rows(yard: &Yard) -> Result<Vec<Line>, String> {
    let homes = SIZES.map(|rows| home(yard, rows));
    let out = yard.folder("out").join("rows");
    let query = |home: &Path| whole(&mut program(home, "query BTC-USDT 1m --count 100"), &out);
    let lines = vec![
        line("query --count 100", 21, &homes, query),
        line("the latest candle", 11, &homes, latest),
        line("an append", 5, &homes, append),
    ];
    homes.iter().for_each(|home| fs::remove_dir_all(home).unwrap());
    Ok(lines)
}

fn home(yard: &Yard, rows: usize) -> PathBuf {
    let home = yard.folder(&format!("growth-{rows}"));
    fs::create_dir(home.join("data")).unwrap();
    fs::write(home.join("config.json"), config("\"BTC-USDT\"")).unwrap();
    store(&home.join("data"), &series("BTC-USDT", "1m"), minutes(rows));
    home
}

fn line(name: &str, turns: usize, homes: &[PathBuf; 4], cost: impl Fn(&Path) -> Duration) -> Line {
    let pair = by_turns(turns, || cost(&homes[3]), || cost(&homes[0]));
    let between = by_turns(turns, || cost(&homes[2]), || cost(&homes[1]));
    let medians = [&pair.reference, &between.reference, &between.subject, &pair.subject];
    let medians = medians.map(|times| short(times.median())).join(", ");
    let what = format!("growth, {name} at 10,000,000 rows: at 10,000");
    let remark = format!("10⁴ to 10⁷ rows: {medians}");
    Line::new(&what, pair.time_ratio(), Target::AtMost(DEEPER), remark)
}

fn latest(home: &Path) -> Duration {
    let reader = Reader::open(&home.join("data/BTC-USDT.db"), &identity()).unwrap();
    let bar = series("BTC-USDT", "1m").bar;
    per_call(2_000, || assert!(reader.latest_closed(bar).unwrap().is_some()))
}

/// Appends rows behind the newest, each by a commit of its own.
fn append(home: &Path) -> Duration {
    let bar = series("BTC-USDT", "1m").bar;
    let path = home.join("data/BTC-USDT.db");
    let newest = Reader::open(&path, &identity()).unwrap().latest_closed(bar).unwrap().unwrap();
    let mut file = File::open(&path, &identity()).unwrap();
    let rows = minutes(APPENDED + 1).zip(1..).map(|(mut row, n)| {
        row.ts = newest.ts + n * bar.grid().period().map_or(0, |(length_ms, _)| length_ms);
        row
    });
    let entries: Vec<Entry> =
        rows.flat_map(|row| pages(bar, std::iter::once(row)).collect::<Vec<_>>()).collect();
    let (first, rest) = entries.split_first().expect("because there are some");
    // The first one reads what is covered.
    file.commit([first], 0).unwrap();
    let mut entries = rest.iter();
    per_call(APPENDED, || {
        file.commit(entries.next(), 0).unwrap();
    })
}
