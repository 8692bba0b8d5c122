//! Pages, ledgers and revisions in one file, as a reader finds them.

use super::*;
use crate::page::{Ask, Refused};
use crate::time::MINUTE;

fn identity() -> Identity {
    Identity { venue: "okx", region: "global".into(), demo: false }
}

fn candle(minute: i64, close: f64, confirmed: bool) -> Candle {
    Candle {
        ts: minute * MINUTE,
        open: 1.0,
        high: 9.0,
        low: 0.5,
        close,
        volume: 2.0,
        volume_ccy: 2.0,
        volume_quote: 2.0,
        confirmed,
    }
}

fn entry(rows: Vec<Candle>, at: Millis) -> Entry {
    let bar: Bar = "1m".parse().unwrap();
    let page = Page::new(Ask::Newest { limit: 300, until: 0 }, rows, Vec::new());
    Entry { bar, grid: Some(bar.grid()), page, at }
}

/// A file in a folder of its own, with what tests ask of it.
struct Bench {
    dir: tempfile::TempDir,
    file: File,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let file = File::open(&dir.path().join("BTC-USDT.db"), &identity()).unwrap();
        Bench { dir, file }
    }

    fn reopen(&mut self) {
        self.file = File::open(&self.dir.path().join("BTC-USDT.db"), &identity()).unwrap();
    }

    fn commit(&mut self, entry: Entry) -> Stored {
        self.file.commit([&entry], 7).unwrap().remove(0)
    }

    fn push(&mut self, rows: Vec<Candle>) -> Stored {
        let at = rows.iter().map(|row| row.ts).max().unwrap() + 999;
        let page = Page::pushed(rows, Vec::new());
        self.commit(Entry { bar: "1m".parse().unwrap(), grid: None, page, at })
    }

    fn read(&self) -> read::Reader {
        read::Reader::open(&self.dir.path().join("BTC-USDT.db"), &identity()).unwrap()
    }

    fn spans(&self) -> Vec<(i64, i64)> {
        let coverage = self.read().coverage("1m".parse().unwrap()).unwrap();
        let minutes = |span: Span| (span.start / MINUTE, span.end / MINUTE);
        coverage.spans().iter().map(minutes).collect()
    }

    /// Close, whether closed, and source of a row.
    fn row(&self, minute: i64) -> (f64, bool, i64) {
        let sql = "SELECT close, confirmed, source FROM candles_1m WHERE ts = ?1";
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        self.file.conn.query_row(sql, [minute * MINUTE], row).unwrap()
    }

    fn meta(&self) -> Vec<(String, String)> {
        let mut query = self.file.conn.prepare("SELECT * FROM meta").unwrap();
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        query.query_map([], pair).unwrap().map(Result::unwrap).collect()
    }
}

#[test]
fn a_page_is_stored_with_its_span_and_its_ledger() {
    let mut bench = Bench::new();
    let file = &mut bench.file;
    let page = vec![candle(1, 1.0, true), candle(4, 2.0, true), candle(5, 3.0, false)];
    let stored = file.commit(&[entry(page, 5 * MINUTE + 77)], -5).unwrap();
    assert_eq!((stored[0].closed, stored[0].revised), (2, 0));
    assert_eq!(file.take_fresh()[0].len(), 3);

    let reader = bench.read();
    let coverage = reader.coverage("1m".parse().unwrap()).unwrap();
    assert_eq!(coverage.spans().to_string(), format!("[{MINUTE}, {})", 5 * MINUTE));
    let empty = coverage.empties().next().unwrap();
    assert_eq!((empty.span, empty.attempts), (Span::new(2 * MINUTE, 4 * MINUTE), 1));
    assert_eq!(reader.clock_offset_ms().unwrap(), Some(-5));
}

#[test]
fn nothing_is_known_of_bars_that_have_not_opened() {
    let mut bench = Bench::new();
    let file = &mut bench.file;
    let page = vec![candle(1, 1.0, true), candle(5_000_000, 2.0, true)];
    let stored = file.commit(&[entry(page, 3 * MINUTE)], 0).unwrap().remove(0);
    let last = stored.evidence.vouched.last().unwrap();
    assert_eq!((stored.closed, last), (2, Span::new(MINUTE, 4 * MINUTE)));
    assert_eq!(stored.evidence.absent, Span::new(2 * MINUTE, 4 * MINUTE).into());
}

#[test]
fn a_revised_bar_leaves_its_old_values_behind() {
    let mut bench = Bench::new();
    let file = &mut bench.file;
    file.commit(&[entry(vec![candle(1, 1.0, true)], 1)], 0).unwrap();
    let stored = file.commit(&[entry(vec![candle(1, 1.5, true)], 2)], 0).unwrap();
    assert_eq!((stored[0].closed, stored[0].revised), (0, 1));
    assert_eq!(file.take_fresh(), [[candle(1, 1.5, true)]]);
    file.commit(&[entry(vec![candle(1, 9.0, false)], 3)], 0).unwrap();
    assert_eq!(file.take_fresh(), [[]], "a closed bar stays what it is");
    let kept = "SELECT at, source, close FROM revisions";
    let kept: (i64, i64, f64) =
        file.conn.query_row(kept, [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap();
    assert_eq!(kept, (2, 0, 1.0));
    let close: f64 = file.conn.query_row("SELECT close FROM candles_1m", [], |r| r.get(0)).unwrap();
    assert_eq!(close, 1.5);
}

#[test]
fn files_of_others_and_of_the_future_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("BTC-USDT.db");
    drop(File::open(&path, &identity()).unwrap());
    let demo = Identity { demo: true, ..identity() };
    let error = File::open(&path, &demo).unwrap_err().to_string();
    assert!(error.contains("okx global live, not of okx global demo"), "{error}");

    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = File::open(&path, &identity()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[test]
fn a_database_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("BTC-USDT.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE notes (text)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = File::open(&path, &identity()).unwrap_err();
    assert!(matches!(error, StoreError::Stranger { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_page_that_cannot_be_written_leaves_nothing() {
    let mut bench = Bench::new();
    let file = &mut bench.file;
    file.commit(&[entry(vec![candle(1, 1.0, true)], 1)], 0).unwrap();
    file.conn.execute_batch("ALTER TABLE empties RENAME TO elsewhere").unwrap();
    let rows = vec![candle(2, 1.0, true), candle(4, 1.0, true)];
    assert!(file.commit(&[entry(rows.clone(), 5 * MINUTE)], 0).is_err());
    file.conn.execute_batch("ALTER TABLE elsewhere RENAME TO empties").unwrap();
    let count: i64 =
        file.conn.query_row("SELECT count(*) FROM candles_1m", [], |r| r.get(0)).unwrap();
    assert_eq!(count, 1);
    assert_eq!(file.commit(&[entry(rows, 2)], 0).unwrap()[0].closed, 2);
}

#[test]
fn a_push_closes_a_bar_and_its_span_grows() {
    let mut bench = Bench::new();
    bench.commit(entry(vec![candle(1, 1.0, true), candle(2, 2.0, true)], 3 * MINUTE));
    bench.file.note_error("1m".parse().unwrap(), "it went wrong").unwrap();
    let before = bench.meta();
    let stored = bench.push(vec![candle(3, 3.0, false)]);
    assert_eq!((stored.closed, &stored.evidence.unconfirmed[..]), (0, &[3 * MINUTE][..]));
    assert_eq!((bench.spans(), bench.row(3)), (vec![(1, 3)], (3.0, false, 1)));
    assert_eq!(bench.meta(), before, "a running bar is worth no note");

    let stored = bench.push(vec![candle(3, 4.0, true), candle(4, 1.0, false)]);
    assert_eq!(stored.closed, 1);
    assert_eq!((bench.spans(), bench.row(3)), (vec![(1, 4)], (4.0, true, 1)));
    let (reader, bar) = (bench.read(), "1m".parse().unwrap());
    assert_eq!(reader.synced_at(bar).unwrap(), Some(4 * MINUTE + 999));
    assert_eq!(reader.last_error(bar).unwrap(), None);

    bench.push(vec![candle(6, 6.0, true), candle(8, 8.0, true)]);
    assert_eq!(bench.spans(), [(1, 4), (6, 7), (8, 9)], "nothing is vouched for in between");
    bench.push(vec![candle(7, 7.0, true)]);
    assert_eq!(bench.spans(), [(1, 4), (6, 9)]);
}

#[test]
fn a_push_never_opens_or_revises_a_closed_bar() {
    let mut bench = Bench::new();
    bench.push(vec![candle(1, 1.0, true)]);
    bench.push(vec![Candle { volume: 9.0, ..candle(1, 2.0, false) }]);
    let stored = bench.push(vec![candle(1, 3.0, true)]);
    assert_eq!((bench.row(1), stored.closed, stored.revised), ((1.0, true, 1), 0, 0));
    let stored = bench.commit(entry(vec![candle(1, 3.0, true)], 2 * MINUTE));
    assert_eq!((bench.row(1), stored.revised), ((3.0, true, 0), 1));
    bench.push(vec![candle(1, 1.0, true)]);
    assert_eq!(bench.row(1), (3.0, true, 0));
}

#[test]
fn a_push_from_the_future_vouches_for_nothing() {
    let mut bench = Bench::new();
    let page = Page::pushed(vec![candle(4, 1.0, true), candle(5, 1.0, true)], Vec::new());
    let at = 5 * MINUTE - 1;
    let stored = bench.commit(Entry { bar: "1m".parse().unwrap(), grid: None, page, at });
    assert_eq!((stored.closed, bench.spans()), (2, vec![(4, 5)]));
}

#[test]
fn pages_and_pushes_of_one_commit_merge() {
    let mut bench = Bench::new();
    let bar = "1m".parse().unwrap();
    let pages = [
        entry(vec![candle(1, 1.0, true), candle(2, 1.0, false)], 2 * MINUTE),
        Entry {
            bar,
            grid: None,
            page: Page::pushed(vec![candle(2, 2.0, true), candle(3, 2.0, false)], Vec::new()),
            at: 3 * MINUTE,
        },
    ];
    let stored = bench.file.commit(&pages, 0).unwrap();
    assert_eq!((stored[0].closed, stored[1].closed), (1, 1));
    assert_eq!((bench.spans(), bench.row(2)), (vec![(1, 3)], (2.0, true, 1)));
    assert_eq!(bench.row(3), (2.0, false, 1));
}

#[test]
fn a_push_is_judged_by_the_grid_that_pages_have_shown() {
    let mut bench = Bench::new();
    let half = |minute, confirmed| {
        let row = candle(minute, 1.0, confirmed);
        Candle { ts: row.ts + MINUTE / 2, ..row }
    };
    let stored = bench.push(vec![half(1, true)]);
    assert_eq!(stored.off_grid, Some(3 * MINUTE / 2));
    assert!(stored.evidence.vouched.is_empty(), "it stands for no bar as far as is known");

    bench.commit(entry(vec![half(1, true), half(2, true)], 4 * MINUTE));
    let stored = bench.push(vec![half(3, true)]);
    assert_eq!((stored.off_grid, stored.evidence.vouched.len()), (None, 1));
    bench.reopen();
    let stored = bench.push(vec![half(4, true)]);
    assert_eq!((stored.off_grid, stored.evidence.vouched.len()), (None, 1));
    let half_past = |minute| minute * MINUTE + MINUTE / 2;
    let coverage = bench.read().coverage("1m".parse().unwrap()).unwrap();
    let whole = Span::new(half_past(1), half_past(5));
    assert_eq!(coverage.spans().iter().collect::<Vec<_>>(), [whole]);
}

#[test]
fn a_row_off_the_grid_between_two_rows_of_a_page_is_moved_out_of_the_way() {
    let at = 9 * MINUTE;
    let off = |minute| Candle { ts: minute * MINUTE + 1, low: 5.0, ..candle(minute, 7.0, true) };
    let page = |minutes: &[i64]| minutes.iter().map(|&m| candle(m, 1.0, true)).collect::<Vec<_>>();
    let refused = Refused { ts: Some(2 * MINUTE + 1), why: "none".to_owned() };
    for (name, page, refused, moved) in [
        ("between two rows", page(&[1, 2, 3, 4]), vec![], 1),
        ("in a hole", page(&[1, 4]), vec![], 1),
        ("behind the last row", page(&[1, 2]), vec![], 0),
        ("the exchange has it", [page(&[1, 2]), vec![off(2)], page(&[3])].concat(), vec![], 0),
        ("a row could not be read", page(&[1, 2, 3, 4]), vec![refused], 0),
    ] {
        let mut bench = Bench::new();
        bench.push(vec![off(2)]);
        let page = Page { refused, ..entry(page, at).page };
        // The first of the two comes into the unknown, where nothing is looked for.
        for page in [page.clone(), page] {
            bench.commit(Entry { page, ..entry(Vec::new(), at) });
        }
        let count = |table| {
            let sql = format!("SELECT count(*) FROM {table} WHERE ts = {}", 2 * MINUTE + 1);
            bench.read().conn.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!((count("revisions"), count("candles_1m")), (moved, 1 - moved), "{name}");
        assert_eq!(bench.read().odd_rows("1m".parse().unwrap()).unwrap(), 1 - moved, "{name}");
    }
}

#[test]
fn bars_that_open_elsewhere_than_those_of_the_next_page_stay() {
    let mut bench = Bench::new();
    let bar: Bar = "2D".parse().unwrap();
    let days = |days: &[i64]| days.iter().map(|&d| candle(d * 1_440, 1.0, true)).collect();
    let page = |rows| Page::new(Ask::Newest { limit: 300, until: 0 }, rows, Vec::new());
    let at = 99 * 1_440 * MINUTE;
    for rows in [days(&[11, 13, 15]), days(&[16, 18, 20]), days(&[11, 13, 15])] {
        bench.commit(Entry { bar, grid: Some(bar.grid()), page: page(rows), at });
    }
    let count = "SELECT count(*) FROM candles_2d";
    assert_eq!(bench.read().conn.query_row(count, [], |row| row.get::<_, i64>(0)), Ok(6));
}

#[test]
fn what_the_stream_has_closed_is_not_absent_from_a_page_that_lags() {
    let mut bench = Bench::new();
    bench.push(vec![candle(4, 4.0, true)]);
    let bar: Bar = "1m".parse().unwrap();
    let ask = Ask::Newest { limit: 300, until: 6 * MINUTE };
    let page = Page::new(ask, vec![candle(2, 2.0, true)], Vec::new());
    let entry = Entry { bar, grid: Some(bar.grid()), page, at: 6 * MINUTE };
    let stored = bench.commit(entry);
    let absent: Vec<Span> = stored.evidence.absent.iter().collect();
    let minute = |at| Span::new(at * MINUTE, (at + 1) * MINUTE);
    assert_eq!(absent, [minute(3), minute(5)]);
    let coverage = bench.read().coverage(bar).unwrap();
    let empties: Vec<Span> = coverage.empties().map(|empty| empty.span).collect();
    assert_eq!((bench.spans(), empties), (vec![(2, 6)], absent));
}

#[test]
fn odd_rows_are_counted_as_they_stand() {
    let mut bench = Bench::new();
    let odd = |minute, close| Candle { high: 0.1, ..candle(minute, close, true) };
    let running = Candle { confirmed: false, ..odd(3, 1.0) };
    for (name, row, count) in [
        ("a new one", odd(1, 1.0), 1),
        ("another", odd(2, 1.0), 2),
        ("the same again", odd(2, 1.0), 2),
        ("still odd", odd(2, 1.5), 2),
        ("mended", candle(2, 1.5, true), 1),
        ("spoilt", odd(2, 1.0), 2),
        ("still running", running, 2),
        ("closed", odd(3, 1.0), 3),
        ("mended as well", candle(1, 1.0, true), 2),
    ] {
        bench.commit(entry(vec![row], 9 * MINUTE));
        assert_eq!(bench.read().odd_rows("1m".parse().unwrap()).unwrap(), count, "{name}");
    }
}

#[test]
fn a_file_that_was_written_anew_leaves_no_log_as_large_as_itself() {
    let mut bench = Bench::new();
    let many = COMPACT_ROWS as i64;
    let rows = |span: std::ops::Range<i64>| span.map(|minute| candle(minute, 1.0, true));
    bench.commit(entry(rows(many / 2..many).collect(), many * MINUTE));
    bench.commit(entry(rows(0..many / 2).collect(), many * MINUTE));
    bench.file.compact().unwrap();
    let log = fs::metadata(bench.dir.path().join("BTC-USDT.db-wal")).unwrap();
    assert_eq!(log.len(), 0);
    assert_eq!(bench.spans(), [(0, many)]);
}

#[test]
fn what_was_remembered_of_a_failed_commit_is_forgotten() {
    let mut bench = Bench::new();
    bench.push(vec![candle(1, 1.0, true)]);
    let fail = "CREATE TRIGGER full BEFORE INSERT ON spans BEGIN SELECT RAISE(ABORT, ''); END";
    bench.file.conn.execute_batch(fail).unwrap();
    let page = entry(vec![candle(2, 1.0, true), candle(4, 1.0, true)], 5 * MINUTE);
    assert!(bench.file.commit([&page], 0).is_err());
    bench.file.conn.execute_batch("DROP TRIGGER full").unwrap();
    bench.push(vec![candle(6, 1.0, true)]);
    assert_eq!(bench.spans(), [(1, 2), (6, 7)]);
    bench.commit(page);
    assert_eq!(bench.spans(), [(1, 5), (6, 7)]);
}
