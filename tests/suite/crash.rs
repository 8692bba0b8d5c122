//! Ends that come too early: signals and a full disk; of kills see `kills`. What was acknowledged
//! is on disk, what is claimed is there, and the next run ends in the same store.

use std::fs;

use okx_local_store::bar::Bar;
use okx_local_store::span::Span;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::exchange::{Endpoint, Exchange, Fault, Listed, Script};
use crate::process::{Home, Running, T0};

fn exchange(faults: Vec<Script>) -> Exchange {
    let builder = Exchange::builder().clock(T0).speed(0.0).faults(faults);
    let builder = builder.synthetic("BTC-USDT", Listed::days(20));
    builder.synthetic("ETH-USDT", Listed::days(4)).start()
}

/// Fails unless each file is a whole database in which every span is full: its rows and its known
/// absences are as many as its bars. Looks at copies, which it gives, so that the logs are left to
/// the program.
pub fn assert_sound(home: &Home) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["BTC-USDT", "ETH-USDT"] {
        for end in ["db", "db-wal"] {
            let file = format!("{name}.{end}");
            let _ = fs::copy(home.data_dir().join(&file), copy.path().join(&file));
        }
        let path = copy.path().join(format!("{name}.db"));
        if path.exists() {
            assert_file_sound(&Connection::open(path).unwrap());
        }
    }
    copy
}

pub fn assert_file_sound(conn: &Connection) {
    let verdict: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'spans'";
    if conn.query_row(tables, [], |row| row.get::<_, i64>(0)).unwrap() == 0 {
        return; // It was killed before the schema stood.
    }
    let ranges = |table: &str, bar: &str| -> Vec<Span> {
        let sql = format!("SELECT first_ts, end_ts FROM {table} WHERE bar = ?1");
        let mut query = conn.prepare(&sql).unwrap();
        let span = |row: &rusqlite::Row<'_>| Ok(Span::new(row.get(0)?, row.get(1)?));
        query.query_map([bar], span).unwrap().map(Result::unwrap).collect()
    };
    let mut bars = conn.prepare("SELECT DISTINCT bar FROM spans").unwrap();
    let bars: Vec<String> =
        bars.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in bars {
        let bar: Bar = name.parse().unwrap();
        for span in ranges("spans", &name) {
            let sql = format!(
                "SELECT count(*) FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed = 1",
                bar.table()
            );
            let rows: i64 = conn.query_row(&sql, [span.start, span.end], |row| row.get(0)).unwrap();
            let empties = ranges("empties", &name).into_iter();
            let absent: i64 = empties.map(|empty| bar.grid().count(empty.intersection(span))).sum();
            assert_eq!(rows + absent, bar.grid().count(span), "{name} in {span:?}");
        }
    }
}

/// A sync of five days of minutes, and that it was interrupted while history came.
fn sync_in_the_middle_of_history(home: &Home, exchange: &Exchange, pages: usize) -> Running {
    let sync = home.start("sync --all");
    exchange.wait_until("history", || exchange.count(Endpoint::History) >= pages);
    sync
}

/// The first six pages of history come as ever, the others with that fault.
fn late_fault(fault: Fault) -> Vec<Script> {
    vec![
        Script::next(6, Fault::Slow(0)).on(Endpoint::History),
        Script::always(fault).on(Endpoint::History),
    ]
}

fn names(home: &Home) -> Vec<String> {
    let names = fs::read_dir(home.data_dir()).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_signal_in_the_middle_stores_what_was_fetched_and_ends() {
    for signal in ["TERM", "INT"] {
        let exchange = exchange(late_fault(Fault::Slow(2_000)));
        let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 5);
        let sync = sync_in_the_middle_of_history(&home, &exchange, 8);
        sync.signal(signal);
        let stopped = sync.wait().exits(1);
        let line = stopped.last_word("okx-store: stopped with ");
        let row = stopped.row("BTC-USDT 1m");
        let (rows, missing) = (row[1].parse::<i64>().unwrap(), row[2].parse::<i64>().unwrap());
        assert!(missing > 0 && line.contains(&missing.to_string()), "{line}");
        assert!(rows >= 300 + 6 * 300 && rows == home.count("BTC-USDT", "candles_1m"), "{rows}");
        assert_eq!(names(&home), [".lock", ".requests", "BTC-USDT.db"]);
        assert_sound(&home);

        exchange.set_faults(Vec::new());
        home.run("sync --all").exits(0);
        home.assert_equals(&exchange);
    }
}

#[test]
fn a_second_signal_does_not_wait_for_answers() {
    let exchange = exchange(late_fault(Fault::Stall(60_000)));
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 5);
    let sync = sync_in_the_middle_of_history(&home, &exchange, 8);
    sync.signal("TERM");
    sync.wait_for("stopping");
    sync.signal("TERM");
    let stopped = sync.wait().exits(1);
    // Whoever had waited would have seen the requests time out, and said so.
    assert!(!stopped.err.contains("too long"), "{}", stopped.err);
    // A page that was on its way to us may be lost, but none of which we said that it is stored.
    let told: i64 = stopped.row("BTC-USDT 1m")[1].parse().unwrap();
    assert_eq!(told, home.count("BTC-USDT", "candles_1m"));
    assert!(told >= 299, "{told}");
    assert_sound(&home);
    // Nor for logs to be moved: the next one does that.
    exchange.set_faults(Vec::new());
    home.run("sync --all").exits(0);
    assert_eq!(names(&home), [".lock", ".requests", "BTC-USDT.db"]);
    home.assert_equals(&exchange);
}

#[test]
fn a_disk_that_fills_up_ends_the_sync_and_spoils_nothing() {
    let exchange = exchange(Vec::new());
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 5);
    // No file may grow beyond some hundred KiB, which is all but a full disk.
    let script = r#"ulimit -f 300; exec "$0" "$@""#;
    let full = Running::new(home.shell(script, "sync --all"), "sync on a full disk");
    let full = full.wait().exits(1);
    full.last_word("gave up: ");
    full.last_word("BTC-USDT.db: cannot ");
    assert_sound(&home);
    home.run("sync --all").exits(0);
    home.assert_equals(&exchange);
}
