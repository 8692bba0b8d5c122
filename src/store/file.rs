//! One instrument's file, open for writing. **Invariant:** the writer thread owns every one.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::bar::{Bar, Grid};
use crate::candle::Candle;
use crate::coverage::{Coverage, Empty, Reach};
use crate::page::{Ask, Evidence, Origin, Page, Stored};
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
    /// Whether the log was emptied since it was written to, as far as is known.
    is_settled: bool,
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
            is_settled: false,
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
        self.is_settled = false;
        self.fresh = fresh;
        Ok(stored)
    }

    /// Of each page of the last commit the rows that it has changed, once.
    pub fn take_fresh(&mut self) -> Vec<Vec<Candle>> {
        std::mem::take(&mut self.fresh)
    }

    /// Notes what went wrong with a bar, for `status`.
    pub fn note_error(&mut self, bar: Bar, error: &str) -> Result<(), StoreError> {
        self.is_settled = false;
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
        self.move_log("PASSIVE").map(drop)
    }

    /// Whether its log was emptied since it was written to.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Moves the whole log into the file and cuts it down to nothing, unless somebody reads just
    /// now: that is not waited for.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        let failed = StoreError::sql(&self.path, "set the time to wait for a lock");
        self.conn.busy_timeout(Duration::ZERO).map_err(&failed)?;
        let moved = self.move_log("TRUNCATE");
        self.conn.busy_timeout(schema::BUSY_TIMEOUT).map_err(&failed)?;
        self.is_settled = moved?;
        self.commits = 0;
        Ok(())
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

    /// Whether all of it was moved. What readers keep in the log is no failure: it stays there.
    fn move_log(&self, mode: &str) -> Result<bool, StoreError> {
        self.conn
            .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(0))
            .map(|is_blocked: bool| !is_blocked)
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
    let mut written = row::write(txn, bar, &page.rows, page.origin.source(), entry.at)
        .map_err(StoreError::sql(path, "write candles"))?;
    (stored.closed, stored.revised) = (written.closed, written.revised);
    // Where nothing was known before there is nothing to move, and history comes a page at a time.
    let known = |span: &Span| !book.coverage.spans().intersection(*span).is_empty();
    if let Some(span) = displaceable(page, &stored).filter(known) {
        written.odd -= row::displace(txn, bar, stored.grid, span, entry.at)
            .map_err(StoreError::sql(path, "move rows off the grid"))?;
    }
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

/// The range in which a page shows that a row off its grid is none of the exchange's: between two
/// of its rows, whatever the bars beyond them open at. None where the exchange itself has a row
/// off the grid, or one that could not be read.
fn displaceable(page: &Page, stored: &Stored) -> Option<Span> {
    let Origin::Answer(ask) = page.origin else { return None };
    let (oldest, newest) = stored.evidence.extent?;
    let end = if let Ask::Below { end } = ask { end } else { newest };
    let is_sure = stored.off_grid.is_none() && page.refused.is_empty();
    is_sure.then(|| Span::new(oldest, end.min(stored.grid.next(stored.at))))
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
mod tests;
