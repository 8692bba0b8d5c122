//! One instrument's file, open for writing. **Invariant:** the writer thread owns every one.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::bar::{Bar, Grid};
use crate::candle::Candle;
use crate::coverage::{Coverage, Empty, Reach};
use crate::page::{Evidence, Origin, Page, Stored};
use crate::span::Span;
use crate::store::schema::{self, bar_key, key};
use crate::store::{Identity, StoreError, read, row};
use crate::time::{Millis, format_time};

/// Fewer rows than these, about 2 MB, are not worth writing a file anew.
const COMPACT_ROWS: u64 = 20_000;

/// A page to store, with what is needed to judge it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The bar of the series.
    pub bar: Bar,
    /// Where its bars open, as whoever asked knew it. Nobody asked for a push: the file knows.
    pub grid: Option<Grid>,
    /// The page itself.
    pub page: Page,
    /// When it was heard, exchange clock, Unix ms.
    pub at: Millis,
}

/// A file of candles, open for writing.
#[derive(Debug)]
pub struct File {
    conn: Connection,
    path: PathBuf,
    /// By what the system knows the file.
    inode: (u64, u64),
    /// The bars that were written since it was opened.
    books: BTreeMap<Bar, Book>,
    /// The offset of the clock that `meta` holds, once it was written.
    clock_offset_ms: Option<Millis>,
    /// Closed bars that came since it was opened or compacted.
    grown: u64,
    /// Commits since the log was last moved into the file.
    commits: u32,
    /// Of each page of the last commit the rows that it has changed.
    fresh: Vec<Vec<Candle>>,
}

/// What is remembered of a bar that has a table. Nobody else writes while the file is open.
#[derive(Debug)]
struct Book {
    /// What the tables `spans` and `empties` hold.
    coverage: Coverage,
    /// Where its rows lie.
    grid: Grid,
}

impl Book {
    /// Reads what the file holds of a bar; makes its table if there is none.
    fn open(txn: &Transaction<'_>, path: &Path, bar: Bar) -> Result<Book, StoreError> {
        txn.execute_batch(&schema::create_candles(bar))
            .map_err(StoreError::sql(path, "create a table of candles"))?;
        let coverage = read::coverage(txn, path, bar)?;
        Ok(Book { coverage, grid: read::grid(txn, path, bar)? })
    }
}

impl File {
    /// Opens a file, and makes or migrates it where needed.
    pub fn open(path: &Path, identity: &Identity) -> Result<File, StoreError> {
        let doing = "open the file for writing";
        if path.is_dir() {
            // SQLite would say what it says where descriptors are short, and that passes.
            let source = io::ErrorKind::IsADirectory.into();
            return Err(StoreError::Io { path: path.to_owned(), doing, source });
        }
        let failed = StoreError::sql(path, doing);
        let mut conn = Connection::open(path).map_err(&failed)?;
        schema::prepare(&mut conn, path, identity)?;
        // A file that makes room for another one closes at once; its log waits for a quiet moment.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(&failed)?;
        Ok(File {
            conn,
            path: path.to_owned(),
            inode: inode(path)?,
            books: BTreeMap::new(),
            clock_offset_ms: None,
            grown: 0,
            commits: 0,
            fresh: Vec::new(),
        })
    }

    /// Stores pages in one transaction: rows, spans, ledger and notes, or nothing at all.
    pub fn commit<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry>,
        clock_offset_ms: Millis,
    ) -> Result<Vec<Stored>, StoreError> {
        let result = self.try_commit(entries, clock_offset_ms);
        if result.is_err() {
            // The transaction is gone, so what was remembered of its outcome is wrong.
            self.books.clear();
            self.clock_offset_ms = None;
        }
        result
    }

    fn try_commit<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry>,
        clock_offset_ms: Millis,
    ) -> Result<Vec<Stored>, StoreError> {
        let path = self.path.as_path();
        // Else SQLite would go on writing where nobody reads, and what was told to be stored would
        // go with the last process that has the file open.
        if inode(path).ok() != Some(self.inode) {
            return Err(StoreError::Gone { path: path.to_owned() });
        }
        let txn = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::sql(path, "begin a transaction"))?;
        let (mut stored, mut fresh) = (Vec::new(), Vec::new());
        for entry in entries {
            let book = match self.books.entry(entry.bar) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(new) => new.insert(Book::open(&txn, path, entry.bar)?),
            };
            let (page, rows) = store_page(&txn, path, entry, book)?;
            stored.push(page);
            fresh.push(rows);
        }
        if self.clock_offset_ms != Some(clock_offset_ms) {
            write_meta(&txn, path, key::CLOCK_OFFSET_MS, &clock_offset_ms.to_string())?;
            self.clock_offset_ms = Some(clock_offset_ms);
        }
        txn.commit().map_err(StoreError::sql(path, "commit"))?;
        self.grown += stored.iter().map(|page| u64::from(page.closed)).sum::<u64>();
        self.commits += 1;
        self.fresh = fresh;
        Ok(stored)
    }

    /// Of each page of the last commit the rows that it has changed, once.
    pub fn take_fresh(&mut self) -> Vec<Vec<Candle>> {
        std::mem::take(&mut self.fresh)
    }

    /// Notes what went wrong with a bar, for `status`.
    pub fn note_error(&mut self, bar: Bar, error: &str) -> Result<(), StoreError> {
        write_meta(&self.conn, &self.path, &bar_key(key::LAST_ERROR, bar), error)
    }

    /// Writes the file anew in the order of its rows, if many came since it was opened.
    ///
    /// History arrives newest block first, and SQLite leaves every tenth byte free where rows are
    /// put before others (92 against 83 bytes a row, measured; the size of the blocks hardly
    /// matters). Readers go on reading meanwhile. All of it goes through the log, which would stay
    /// as large as the file until somebody writes again.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        if self.grown >= COMPACT_ROWS {
            self.grown = 0;
            self.conn.execute_batch("VACUUM").map_err(StoreError::sql(&self.path, "compact"))?;
            self.move_log("TRUNCATE")?;
        }
        Ok(())
    }

    /// The connection, to set bounds on it that no other one can.
    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }

    /// Commits since the log was last moved into the file.
    pub fn commits(&self) -> u32 {
        self.commits
    }

    /// Moves as much of the log into the file as can be without waiting for anybody.
    pub fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.commits = 0;
        self.move_log("PASSIVE")
    }

    /// Moves the log into the file and closes it: if nobody reads, one file is left. Busy readers
    /// only postpone that.
    pub fn finish(self) -> Result<(), StoreError> {
        self.move_log("TRUNCATE")?;
        self.conn
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .and_then(|_| self.conn.close().map_err(|(_, error)| error))
            .map_err(StoreError::sql(&self.path, "close the file"))
    }

    /// What readers keep in the log is no failure: it stays there.
    fn move_log(&self, mode: &str) -> Result<(), StoreError> {
        self.conn
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
            .map_err(StoreError::sql(&self.path, "checkpoint"))
    }
}

/// Device and number of the file that stands at a path, wherever links lead to.
fn inode(path: &Path) -> Result<(u64, u64), StoreError> {
    let found = fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let doing = "look at the file";
    found.map_err(|source| StoreError::Io { path: path.to_owned(), doing, source })
}

/// What there is to say of a page before it is written. `known` is the grid of the stored rows.
pub fn judge(entry: &Entry, known: Grid) -> Stored {
    let times: Vec<Millis> = entry.page.rows.iter().map(|row| row.ts).collect();
    let grid = entry.grid.map_or(known, |grid| read::fit(grid, &times));
    let refused = entry.page.refused.first().map(|row| {
        let ts = row.ts.map(|ts| format!("{}: ", format_time(ts))).unwrap_or_default();
        (format!("{ts}{}", row.why), entry.page.refused.len())
    });
    let mut evidence = entry.page.evidence(grid);
    // A row from the future would vouch for all that is still to come.
    let unopened = Span::new(grid.next(entry.at), Millis::MAX);
    evidence.vouched.remove(unopened);
    evidence.absent.remove(unopened);
    Stored {
        evidence,
        closed: 0,
        revised: 0,
        at: entry.at,
        grid,
        off_grid: times.into_iter().find(|&ts| !grid.opens_at(ts)),
        refused,
    }
}

/// Writes one page inside a transaction. Of a push that closes nothing only the rows: it comes many
/// times a second, and proves nothing that is worth a note.
fn store_page(
    txn: &Transaction<'_>,
    path: &Path,
    entry: &Entry,
    book: &mut Book,
) -> Result<(Stored, Vec<Candle>), StoreError> {
    let (bar, page) = (entry.bar, &entry.page);
    let mut stored = judge(entry, book.grid);
    let written = row::write(txn, bar, &page.rows, page.origin.source(), entry.at)
        .map_err(StoreError::sql(path, "write candles"))?;
    (stored.closed, stored.revised) = (written.closed, written.revised);
    withdraw(txn, bar, stored.grid, &mut stored.evidence)
        .map_err(StoreError::sql(path, "look for candles"))?;
    if let Some(reach) = book.coverage.reach(&stored.evidence) {
        cover(txn, bar, reach, &stored, &mut book.coverage)
            .map_err(StoreError::sql(path, "write what is covered"))?;
    }
    if written.odd != 0 {
        let odd_key = bar_key(key::ODD_ROWS, bar);
        let known = schema::meta(txn, path, &odd_key)?.and_then(|n| n.parse().ok());
        let odd_rows = (known.unwrap_or(0) + written.odd).max(0);
        write_meta(txn, path, &odd_key, &odd_rows.to_string())?;
    }
    if page.origin == Origin::Push && page.rows.iter().all(|row| !row.confirmed) {
        return Ok((stored, written.fresh));
    }
    // A single row does not show where the others lie.
    if entry.grid.is_some() && page.rows.len() > 1 && stored.off_grid.is_none() {
        book.grid = stored.grid;
    }
    write_meta(txn, path, &bar_key(key::SYNCED_AT, bar), &entry.at.to_string())?;
    txn.prepare_cached("DELETE FROM meta WHERE key = ?1")
        .and_then(|mut delete| delete.execute([bar_key(key::LAST_ERROR, bar)]))
        .map_err(StoreError::sql(path, "clear the last error"))?;
    Ok((stored, written.fresh))
}

/// Takes out of what a page found absent the bars that are stored: the stream may have closed them
/// a moment before the exchange's pages show them.
fn withdraw(
    txn: &Transaction<'_>,
    bar: Bar,
    grid: Grid,
    evidence: &mut Evidence,
) -> Result<(), rusqlite::Error> {
    if evidence.before_history || evidence.absent.is_empty() {
        return Ok(());
    }
    let mut find = txn.prepare_cached(&format!(
        "SELECT ts FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed = 1",
        bar.table()
    ))?;
    for span in evidence.absent.clone().iter() {
        let mut rows = find.query([span.start, span.end])?;
        while let Some(row) = rows.next()? {
            evidence.absent.remove(grid.bar_at(row.get(0)?));
        }
    }
    Ok(())
}

/// Takes in what a page proved, and brings the tables `spans` and `empties` up to it, touching only
/// what differs.
fn cover(
    txn: &Transaction<'_>,
    bar: Bar,
    reach: Reach,
    stored: &Stored,
    coverage: &mut Coverage,
) -> Result<(), rusqlite::Error> {
    let (old_spans, old_empties) = coverage.within(reach);
    coverage.absorb(&stored.evidence, stored.at);
    let (new_spans, new_empties) = coverage.within(reach);
    let name = bar.name();
    let mut delete = txn.prepare_cached("DELETE FROM spans WHERE bar = ?1 AND first_ts = ?2")?;
    for span in old_spans.difference(&new_spans) {
        delete.execute(params![name, span.start])?;
    }
    let mut insert = txn.prepare_cached("INSERT INTO spans VALUES (?1, ?2, ?3)")?;
    for span in new_spans.difference(&old_spans) {
        insert.execute(params![name, span.start, span.end])?;
    }
    let mut delete = txn.prepare_cached("DELETE FROM empties WHERE bar = ?1 AND first_ts = ?2")?;
    for empty in old_empties.difference(&new_empties) {
        delete.execute(params![name, empty.span.start])?;
    }
    let mut insert = txn.prepare_cached("INSERT INTO empties VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for empty in new_empties.difference(&old_empties) {
        let Empty { span, reason, attempts, next_ask } = *empty;
        insert.execute(params![name, span.start, span.end, reason.as_str(), attempts, next_ask])?;
    }
    Ok(())
}

fn write_meta(conn: &Connection, path: &Path, key: &str, value: &str) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = ?2 WHERE value != ?2",
    )
    .and_then(|mut upsert| upsert.execute([key, value]))
    .map(drop)
    .map_err(StoreError::sql(path, "write the table meta"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Ask;
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

    #[test]
    fn a_page_is_stored_with_its_span_and_its_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("BTC-USDT.db");
        let mut file = File::open(&path, &identity()).unwrap();
        let page = vec![candle(1, 1.0, true), candle(4, 2.0, true), candle(5, 3.0, false)];
        let stored = file.commit(&[entry(page, 5 * MINUTE + 77)], -5).unwrap();
        assert_eq!((stored[0].closed, stored[0].revised), (2, 0));
        assert_eq!(file.take_fresh()[0].len(), 3);
        drop(file);

        let reader = read::Reader::open(&path, &identity()).unwrap();
        let coverage = reader.coverage("1m".parse().unwrap()).unwrap();
        assert_eq!(coverage.spans().to_string(), format!("[{MINUTE}, {})", 5 * MINUTE));
        let empty = coverage.empties().next().unwrap();
        assert_eq!((empty.span, empty.attempts), (Span::new(2 * MINUTE, 4 * MINUTE), 1));
        assert_eq!(reader.clock_offset_ms().unwrap(), Some(-5));
    }

    #[test]
    fn nothing_is_known_of_bars_that_have_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = File::open(&dir.path().join("BTC-USDT.db"), &identity()).unwrap();
        let page = vec![candle(1, 1.0, true), candle(5_000_000, 2.0, true)];
        let stored = file.commit(&[entry(page, 3 * MINUTE)], 0).unwrap().remove(0);
        let last = stored.evidence.vouched.last().unwrap();
        assert_eq!((stored.closed, last), (2, Span::new(MINUTE, 4 * MINUTE)));
        assert_eq!(stored.evidence.absent, Span::new(2 * MINUTE, 4 * MINUTE).into());
    }

    #[test]
    fn a_revised_bar_leaves_its_old_values_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("BTC-USDT.db");
        let mut file = File::open(&path, &identity()).unwrap();
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
        let close: f64 =
            file.conn.query_row("SELECT close FROM candles_1m", [], |r| r.get(0)).unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("BTC-USDT.db");
        let mut file = File::open(&path, &identity()).unwrap();
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
}
