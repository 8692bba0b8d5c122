//! A year of minutes fetched from an exchange that answers late: how much of the permitted rate is
//! used, how many requests it takes, and how large the file is.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use okx_local_store::okx;
use okx_local_store::store::read::Reader;
use okx_local_store::time::{DAY, MINUTE};
use okx_local_store::wire::Endpoint as Page;

use crate::daemon::wait_until;
use crate::exchange::{Endpoint, Exchange, Listed};
use crate::process::program;
use crate::store::insert_bare;
use crate::table::{Line, Target};
use crate::yard::{Yard, identity};

/// How late the exchange answers.
const LATENCY_MS: u64 = 100;
const DAYS: i64 = 365;
/// What a series may take beyond the fewest requests that can do.
const MORE_REQUESTS: usize = 3;
/// Part of what the exchange documents that is used: the rest is for jitter.
const USED: f64 = 0.9;
const LOG_BYTES_MAX: u64 = 8 << 20;
/// 2024-05-01T00:00:30Z.
const NOW: i64 = 1_714_521_630_000;

pub fn backfill(yard: &Yard) -> Result<Vec<Line>, String> {
    let home = yard.folder("backfill");
    let listed = Listed::days(DAYS + 30);
    let exchange = Exchange::builder().clock(NOW).latency_ms(LATENCY_MS);
    let exchange = exchange.synthetic("BTC-USDT", listed).start();
    let config = format!(
        "{{ \"rest_url\": {:?}, \"rate_limit_per_minute\": 0, \"instruments\": [] }}",
        exchange.url()
    );
    fs::write(home.join("config.json"), config).unwrap();
    let (length, log) = fetch(&home, &exchange);
    let rows = DAYS * DAY / MINUTE;
    let (pages, all) = (exchange.count(Endpoint::History), exchange.requests().len());
    let least = (rows as usize).div_ceil(okx::PAGE_ROWS_MAX as usize);
    // A request counts from its start until two seconds after its answer.
    let rate = okx::rate(Page::History);
    let held_ms = rate.window_ms as f64 + LATENCY_MS as f64;
    let permitted = (f64::from(rate.requests) * USED).floor() / held_ms * 1e3;
    let used = pages as f64 / length.as_secs_f64();
    let remark = format!(
        "{pages} pages in {:.0} s, {used:.2} a second of {permitted:.2} permitted\n\
         {all} requests, {least} pages at least",
        length.as_secs_f64()
    );
    let what = "back-fill of a year of 1m, answers 100 ms late: the permitted rate";
    let line = Line::new(what, used / permitted, Target::AtLeast(0.95), remark);
    let holds = all <= least + MORE_REQUESTS + 1;
    Ok(vec![Line { holds, ..line }, disk(yard, &home, log)])
}

/// Runs the back-fill; gives its length, and the size of the largest log while pages came: the file
/// is written anew at the end, all of it through the log.
fn fetch(home: &Path, exchange: &Exchange) -> (Duration, u64) {
    let mut command = program(home, &format!("backfill BTC-USDT 1m --days {DAYS}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let wal = home.join("data/BTC-USDT.db-wal");
    let (mut length, mut logs) = (None, Vec::new());
    wait_until("the end of the back-fill", || {
        let size = fs::metadata(&wal).map_or(0, |found| found.len());
        logs.push((exchange.count(Endpoint::History), size));
        length = child.try_wait().unwrap().map(|status| (status, begun.elapsed()));
        length.is_some()
    });
    let (status, length) = length.expect("because it has ended");
    assert!(status.success(), "the back-fill ended with {status}");
    let pages = exchange.count(Endpoint::History);
    let log = logs.into_iter().filter(|(asked, _)| *asked < pages).map(|(_, size)| size).max();
    (length, log.unwrap_or(0))
}

/// The size of the file beside that of the same rows written once, oldest first.
fn disk(yard: &Yard, home: &Path, log_bytes: u64) -> Line {
    let path = home.join("data/BTC-USDT.db");
    let reader = Reader::open(&path, &identity()).unwrap();
    let rows = reader.candles("1m".parse().unwrap(), Default::default()).unwrap();
    let bare = yard.folder("disk").join("bare.db");
    insert_bare(&bare, &rows, 3_000);
    let size = |path: &Path| fs::metadata(path).unwrap().len() as f64;
    let (ours, least) = (size(&path), size(&bare));
    let remark = format!(
        "{:.1} MB, {:.1} bytes a row; the largest log meanwhile {:.1} MB",
        ours / 1e6,
        ours / rows.len() as f64,
        log_bytes as f64 / 1e6
    );
    let what = "disk after that: the same rows written once in order";
    let line = Line::new(what, ours / least, Target::AtMost(1.06), remark);
    Line { holds: log_bytes <= LOG_BYTES_MAX, ..line }
}
