//! The store beside bare SQLite: writing through the writer's thread, and reading in the process.

use std::path::Path;

use okx_local_store::bar::Bar;
use okx_local_store::candle::Candle;
use okx_local_store::span::Span;
use okx_local_store::store::file::Entry;
use okx_local_store::store::query::Selection;
use okx_local_store::store::read::Reader;
use okx_local_store::store::schema::create_candles;
use okx_local_store::time::MINUTE;
use rusqlite::{CachedStatement, Connection, OpenFlags, Row, params};

use crate::candles::{FIRST, minutes};
use crate::measure::{by_turns, per_call, timed};
use crate::table::{Line, Target};
use crate::yard::{MILLION, Yard, identity, pages, send_through_writer, series};

/// Rows of a commit of the bare loop: as many as the writer takes together at most.
const COMMIT_ROWS: usize = 3_000;
/// Rows that are written one by one.
const SINGLE_ROWS: usize = 20_000;

const COLUMNS: &str =
    "ts, open, high, low, close, volume, volume_ccy, volume_quote, confirmed, source, updated_at";

/// A million candles through the writer's thread, until the last receipt and the closed file.
pub fn upsert(yard: &Yard) -> Result<Vec<Line>, String> {
    let series = series("BTC-USDT", "1m");
    let candles: Vec<Candle> = minutes(MILLION).collect();
    let pages: Vec<Entry> = pages(series.bar, candles.iter().copied()).collect();
    let (ours, bare) = (yard.folder("upsert"), yard.folder("bare"));
    let subject = || {
        let (dir, pages) = (yard.folder("upsert"), pages.clone());
        timed(|| send_through_writer(&dir, &series.instrument, pages))
    };
    let reference = || {
        let dir = yard.folder("bare");
        timed(|| insert_bare(&dir.join("bare.db"), &candles, COMMIT_ROWS))
    };
    let pair = by_turns(5, subject, reference);
    let remark = format!(
        "{:.0} rows/s; the loop {:.0} rows/s\n{pair}",
        pair.subject.rate(MILLION),
        pair.reference.rate(MILLION)
    );
    std::fs::remove_dir_all(ours).and_then(|()| std::fs::remove_dir_all(bare)).unwrap();
    let what = "upsert of 1,000,000 candles: a bare rusqlite loop";
    Ok(vec![Line::new(what, pair.rate_ratio(), Target::AtLeast(0.85), remark)])
}

/// The same beside one commit for each row.
pub fn one_row_per_commit(yard: &Yard) -> Result<Vec<Line>, String> {
    let series = series("BTC-USDT", "1m");
    let candles: Vec<Candle> = minutes(MILLION).collect();
    let pages: Vec<Entry> = pages(series.bar, candles.iter().copied()).collect();
    let subject = || {
        let (dir, pages) = (yard.folder("upsert"), pages.clone());
        timed(|| send_through_writer(&dir, &series.instrument, pages))
    };
    let reference = || {
        let dir = yard.folder("bare");
        timed(|| insert_bare(&dir.join("bare.db"), &candles[..SINGLE_ROWS], 1))
    };
    let pair = by_turns(3, subject, reference);
    let (ours, single) = (pair.subject.rate(MILLION), pair.reference.rate(SINGLE_ROWS));
    let remark = format!("{ours:.0} rows/s; one by one {single:.0} rows/s");
    let what = "the same: one row per commit";
    Ok(vec![Line::new(what, ours / single, Target::AtLeast(10.0), remark)])
}

/// What anybody would write with rusqlite: one prepared upsert, in transactions of so many rows.
pub fn insert_bare(path: &Path, candles: &[Candle], commit_rows: usize) {
    let mut conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "wal").unwrap();
    conn.pragma_update(None, "synchronous", "normal").unwrap();
    let bar: Bar = "1m".parse().unwrap();
    conn.execute_batch(&create_candles(bar)).unwrap();
    let sql = format!(
        "INSERT INTO {} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (ts) DO UPDATE SET open = ?2, high = ?3, low = ?4, close = ?5, volume = ?6,
         volume_ccy = ?7, volume_quote = ?8, confirmed = ?9, source = ?10, updated_at = ?11",
        bar.table()
    );
    for candles in candles.chunks(commit_rows) {
        let txn = conn.transaction().unwrap();
        let mut upsert = txn.prepare_cached(&sql).unwrap();
        for candle in candles {
            let [o, h, l, c, vol, ccy, quote] = candle.values();
            let (ts, confirmed) = (candle.ts, candle.confirmed);
            let row = params![ts, o, h, l, c, vol, ccy, quote, confirmed, 0, ts];
            upsert.execute(row).unwrap();
        }
        drop(upsert);
        txn.commit().unwrap();
    }
    conn.close().unwrap();
}

/// The library's reads beside the same statement, prepared once and stepped by hand.
pub fn reads(yard: &Yard) -> Result<Vec<Line>, String> {
    let path = yard.million().join("data/BTC-USDT.db");
    let bar: Bar = "1m".parse().unwrap();
    let reader = Reader::open(&path, &identity()).unwrap();
    let bare = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let latest =
        format!("SELECT {COLUMNS} FROM candles_1m WHERE confirmed = 1 ORDER BY ts DESC LIMIT 1");
    let recent = format!("SELECT {COLUMNS} FROM candles_1m ORDER BY ts DESC LIMIT 100");
    let range = format!("SELECT {COLUMNS} FROM candles_1m WHERE ts >= ?1 AND ts < ?2 ORDER BY ts");
    let (mut latest, mut recent, mut range) =
        (prepared(&bare, &latest), prepared(&bare, &recent), prepared(&bare, &range));
    let start = FIRST + 500_000 * MINUTE;
    let span = Span::new(start, start + 10_000 * MINUTE);
    Ok(vec![
        compare(
            "the latest candle: the bare prepared statement",
            5_000,
            || assert!(reader.latest_closed(bar).unwrap().is_some()),
            || assert!(latest.query_row([], candle).is_ok()),
        ),
        compare(
            "100 recent candles: the bare prepared statement",
            1_000,
            || assert_eq!(reader.candles(bar, Selection::Newest(100)).unwrap().len(), 100),
            || {
                let mut rows = collect(&mut recent, &[]);
                rows.reverse();
                assert_eq!(rows.len(), 100);
            },
        ),
        compare(
            "a range of 10,000: the bare prepared statement",
            20,
            || assert_eq!(reader.candles(bar, Selection::Range(span)).unwrap().len(), 10_000),
            || assert_eq!(collect(&mut range, &[span.start, span.end]).len(), 10_000),
        ),
    ])
}

fn compare(
    what: &str,
    calls: usize,
    mut subject: impl FnMut(),
    mut reference: impl FnMut(),
) -> Line {
    let pair = by_turns(21, || per_call(calls, &mut subject), || per_call(calls, &mut reference));
    Line::new(what, pair.time_ratio(), Target::AtMost(1.3), pair.to_string())
}

fn prepared<'a>(conn: &'a Connection, sql: &str) -> CachedStatement<'a> {
    conn.prepare_cached(sql).unwrap()
}

/// Steps through a statement by hand, which is faster than to collect what it maps to.
fn collect(statement: &mut CachedStatement<'_>, span: &[i64]) -> Vec<Candle> {
    let mut rows = statement.query(rusqlite::params_from_iter(span)).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        found.push(candle(row).unwrap());
    }
    found
}

fn candle(row: &Row<'_>) -> rusqlite::Result<Candle> {
    Ok(Candle {
        ts: row.get(0)?,
        open: row.get(1)?,
        high: row.get(2)?,
        low: row.get(3)?,
        close: row.get(4)?,
        volume: row.get(5)?,
        volume_ccy: row.get(6)?,
        volume_quote: row.get(7)?,
        confirmed: row.get(8)?,
    })
}
