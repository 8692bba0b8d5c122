//! The daemon beside a live stream: what it costs, and that nothing it was pushed is lost.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use okx_local_store::bar::Bar;
use okx_local_store::candle::Candle;
use okx_local_store::time::{DAY, HOUR, Millis, SECOND};
use rusqlite::{Connection, OpenFlags};

use crate::candles::candles;
use crate::daemon::{BARS, Daemon, configure, symbol, wait_until};
use crate::exchange::{Exchange, Listed};
use crate::table::{Line, Target};
use crate::yard::{Yard, series, store};

/// 2024-05-01T16:00:00Z, when a bar of each length ends.
const TURN: Millis = 1_714_579_200_000;
/// The daemon has so long to subscribe before all bars end.
const LEAD_MS: Millis = 50 * SECOND;
/// A pace of pushes at which there are none.
const NEVER_MS: u64 = DAY as u64;
/// For so long it is looked at the daemon of a hundred instruments.
const WATCH: Duration = Duration::from_secs(30);
/// Descriptors that a daemon may have, and the few that a shell gives it.
const DESCRIPTORS: u32 = 8_192;
const FEW_DESCRIPTORS: u32 = 1_024;

/// What was seen of a daemon.
struct Seen {
    /// Processor time for each second.
    share: f64,
    pushes: u64,
    /// Processor time for a thousand pushes, ms.
    cost_ms: f64,
    resident_mb: f64,
    peak_mb: f64,
    p99_ms: Millis,
    /// The write-ahead logs of all files together.
    logs_mb: f64,
    closed: usize,
    lost: usize,
}

/// 1,250 instruments for a minute in which all their bars end, with many descriptors and with few.
pub fn crowd(yard: &Yard) -> Result<Vec<Line>, String> {
    let lines = [(DESCRIPTORS, "8192"), (FEW_DESCRIPTORS, "1024")].map(|(descriptors, name)| {
        let length = Duration::from_secs(60);
        let seen = watch(yard, 1_250, 1_000, descriptors, length);
        let remark = format!(
            "{} of {} closed bars lost, {} pushes, {:.1} ms for 1,000\n\
             peak memory {:.1} MB, p99 {} ms, logs {:.1} MB",
            seen.lost,
            seen.closed,
            seen.pushes,
            seen.cost_ms,
            seen.peak_mb,
            seen.p99_ms,
            seen.logs_mb
        );
        let what = format!("1,250 instruments × 4 bars, a push a second: ulimit -n {name}");
        Line::known(&what, seen.lost == 0 && seen.closed > 0, remark)
    });
    Ok(lines.into())
}

/// A hundred instruments without pushes, then with 400 a second.
pub fn calm(yard: &Yard) -> Result<Vec<Line>, String> {
    let paces = [(NEVER_MS, "no pushes", 0.02), (1_000, "400 pushes a second", 0.08)];
    let lines = paces.map(|(push_ms, name, most)| {
        let seen = watch(yard, 100, push_ms, DESCRIPTORS, WATCH);
        let remark = format!(
            "{:.2} % of a core (aim: < {:.0} %), {:.1} MB resident (aim: < 40 MB)\n\
             logs {:.1} MB",
            seen.share * 100.0,
            most * 100.0,
            seen.resident_mb,
            seen.logs_mb
        );
        let what = format!("daemon, 100 instruments × 4 bars: {name}");
        Line::known(&what, seen.share < most && seen.resident_mb < 40.0, remark)
    });
    Ok(lines.into())
}

/// What each instrument adds to the daemon's load.
pub fn instruments(yard: &Yard) -> Result<Vec<Line>, String> {
    let counts = [10, 100, 1_000];
    let seen = counts.map(|count| watch(yard, count, 1_000, DESCRIPTORS, WATCH));
    let costs = seen.each_ref().map(|seen| format!("{:.1}", seen.cost_ms)).join(", ");
    let memory = seen.each_ref().map(|seen| format!("{:.1}", seen.resident_mb)).join(", ");
    let slope_kb = (seen[2].resident_mb - seen[0].resident_mb) * 1e3 / 990.0;
    let remark = format!(
        "10, 100, 1,000 instruments: {costs} ms for 1,000 pushes; {memory} MB resident\n\
         {slope_kb:.0} kB for each instrument"
    );
    let ratio = seen[2].cost_ms / seen[0].cost_ms;
    let what = "growth, a push at 1,000 instruments: at 10";
    Ok(vec![Line::new(what, ratio, Target::AtMost(1.3), remark)])
}

/// Has a daemon follow so many instruments, and watches it for a while.
fn watch(
    yard: &Yard,
    instruments: usize,
    push_ms: u64,
    descriptors: u32,
    length: Duration,
) -> Seen {
    let home = yard.folder("live");
    // Bars end in the middle of a crowd's minute, and never while nothing is to happen.
    let clock = if push_ms == NEVER_MS { TURN + 2 * SECOND } else { TURN - LEAD_MS };
    let mut builder = Exchange::builder().clock(clock).push_ms(push_ms).speed(0.0);
    for number in 0..instruments {
        builder = builder.synthetic(&symbol(number), Listed::days(2));
    }
    let exchange = builder.start();
    configure(&home, &exchange, instruments, &BARS, "\"rate_limit_per_minute\": 0,");
    for number in 0..instruments {
        fill(&home.join("data"), &symbol(number), clock);
    }
    exchange.set_speed(1.0);
    let daemon = Daemon::start(&home, descriptors);
    daemon.wait_for_series(instruments * BARS.len());
    settle(&exchange, push_ms, clock);
    let (pushes, time) = (exchange.pushes(), daemon.processor_time());
    thread::sleep(length);
    let (pushes, time) = (exchange.pushes() - pushes, daemon.processor_time() - time);
    let (resident_mb, peak_mb) = daemon.memory_mb();
    let p99_ms = daemon.snapshot().and_then(|shown| shown.latency.p99_ms).unwrap_or(0);
    let logs_mb = logs_mb(&home.join("data"));
    daemon.stop();
    let (closed, lost) = lost(&home.join("data"), &exchange, instruments);
    Seen {
        share: time.as_secs_f64() / length.as_secs_f64(),
        pushes,
        cost_ms: time.as_secs_f64() * 1e6 / pushes.max(1) as f64,
        resident_mb,
        peak_mb,
        p99_ms,
        logs_mb,
        closed,
        lost,
    }
}

/// Waits until the start is over: what it costs is not what is measured.
fn settle(exchange: &Exchange, push_ms: u64, clock: Millis) {
    let until = clock + if push_ms == NEVER_MS { 10 * SECOND } else { 15 * SECOND };
    wait_until("the daemon's start to be over", || exchange.now() >= until);
}

/// The size of all write-ahead logs in a folder, MB.
fn logs_mb(data_dir: &Path) -> f64 {
    let files = fs::read_dir(data_dir).unwrap().map(|file| file.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|it| it == "db-wal"));
    logs.map(|path| fs::metadata(path).map_or(0, |found| found.len())).sum::<u64>() as f64 / 1e6
}

/// A day of each bar, so that nothing has to be fetched.
fn fill(data_dir: &Path, symbol: &str, now: Millis) {
    for name in BARS {
        let bar: Bar = name.parse().unwrap();
        let grid = bar.grid();
        let length_ms = grid.period().map_or(DAY, |(length_ms, _)| length_ms);
        let (start, end) = (grid.floor(now - DAY - HOUR), grid.floor(now));
        let rows = candles(length_ms).zip(0..).map(|(row, n)| {
            let ts = start + n * length_ms;
            Candle { ts, ..row }
        });
        store(data_dir, &series(symbol, name), rows.take_while(|row| row.ts < end));
    }
}

/// How many bars the stream has closed, and how many of them are not closed in the store.
fn lost(data_dir: &Path, exchange: &Exchange, instruments: usize) -> (usize, usize) {
    let (mut closed, mut lost) = (0, 0);
    for number in 0..instruments {
        let symbol = symbol(number);
        let path = data_dir.join(format!("{symbol}.db"));
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        for bar in BARS {
            let table = bar.parse::<Bar>().unwrap().table();
            let sql = format!("SELECT ts FROM {table} WHERE ts >= ?1 AND confirmed = 1");
            let mut query = conn.prepare(&sql).unwrap();
            let stored = query.query_map([TURN - 2 * DAY], |row| row.get(0)).unwrap();
            let stored: BTreeSet<i64> = stored.collect::<Result<_, _>>().unwrap();
            let pushed = exchange.confirmed_pushed(&symbol, bar);
            closed += pushed.len();
            lost += pushed.iter().filter(|ts| !stored.contains(ts)).count();
        }
    }
    (closed, lost)
}
