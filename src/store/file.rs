//! One instrument's file, open for writing. **Invariant:** the writer thread owns every one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::bar::{Bar, Grid};
use crate::candle::{Candle, Source, State, Verdict};
use crate::coverage::{Coverage, Empty};
use crate::page::{Page, Stored};
use crate::span::Span;
use crate::store::schema::{self, REVISIONS_MAX, bar_key, key};
use crate::store::{Identity, StoreError, read};
use crate::time::{Millis, format_time};

/// A page to store, with what is needed to judge it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The bar of the series.
    pub bar: Bar,
    /// Where its bars open.
    pub grid: Grid,
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
    tables: BTreeSet<Bar>,
    /// What the tables `spans` and `empties` hold: nobody else writes them while this is open.
    coverage: BTreeMap<Bar, Coverage>,
    /// Closed bars that came since it was opened or compacted.
    grown: u64,
}

/// Fewer rows than these, about 2 MB, are not worth writing a file anew.
const COMPACT_ROWS: u64 = 20_000;

impl File {
    /// Opens a file, and makes or migrates it where needed.
    pub fn open(path: &Path, identity: &Identity) -> Result<File, StoreError> {
        let failed = StoreError::sql(path, "open the file for writing");
        let mut conn = Connection::open(path).map_err(&failed)?;
        schema::prepare(&mut conn, path, identity)?;
        // A file that makes room for another one closes at once; its log waits for a quiet moment.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(&failed)?;
        let tables = read::bars(&conn, path)?.into_iter().collect();
        Ok(File { conn, path: path.to_owned(), tables, coverage: BTreeMap::new(), grown: 0 })
    }

    /// Stores pages in one transaction: rows, spans, ledger and notes, or nothing at all.
    pub fn commit(
        &mut self,
        entries: &[Entry],
        clock_offset_ms: Millis,
    ) -> Result<Vec<Stored>, StoreError> {
        let result = self.try_commit(entries, clock_offset_ms);
        if result.is_err() {
            // The transaction is gone, so what was remembered of its outcome is wrong.
            self.coverage.clear();
            self.tables.clear();
        }
        result
    }

    fn try_commit(
        &mut self,
        entries: &[Entry],
        clock_offset_ms: Millis,
    ) -> Result<Vec<Stored>, StoreError> {
        let path = self.path.as_path();
        let txn = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(StoreError::sql(path, "begin a transaction"))?;
        let mut stored = Vec::with_capacity(entries.len());
        for entry in entries {
            if self.tables.insert(entry.bar) {
                txn.execute_batch(&schema::create_candles(entry.bar))
                    .map_err(StoreError::sql(path, "create a table of candles"))?;
            }
            let coverage = match self.coverage.entry(entry.bar) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(new) => {
                    new.insert(read::coverage(&txn, path, entry.bar)?)
                }
            };
            stored.push(store_page(&txn, path, entry, coverage)?);
        }
        write_meta(&txn, path, key::CLOCK_OFFSET_MS, &clock_offset_ms.to_string())?;
        txn.commit().map_err(StoreError::sql(path, "commit"))?;
        self.grown += stored.iter().map(|page| u64::from(page.closed)).sum::<u64>();
        Ok(stored)
    }

    /// Notes what went wrong with a bar, for `status`.
    pub fn note_error(&mut self, bar: Bar, error: &str) -> Result<(), StoreError> {
        write_meta(&self.conn, &self.path, &bar_key(key::LAST_ERROR, bar), error)
    }

    /// Writes the file anew in the order of its rows, if many came since it was opened.
    ///
    /// History arrives newest block first, and SQLite leaves every tenth byte free where rows are
    /// put before others (92 against 83 bytes a row, measured; the size of the blocks hardly
    /// matters). Readers go on reading meanwhile.
    pub fn compact(&mut self) -> Result<(), StoreError> {
        if self.grown >= COMPACT_ROWS {
            self.grown = 0;
            self.conn.execute_batch("VACUUM").map_err(StoreError::sql(&self.path, "compact"))?;
        }
        Ok(())
    }

    /// Moves the log into the file and closes it: if nobody reads, one file is left. Busy readers
    /// only postpone that.
    pub fn finish(self) -> Result<(), StoreError> {
        let failed = StoreError::sql(&self.path, "checkpoint");
        self.conn
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .and_then(|()| {
                self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            })
            .and_then(|_| self.conn.close().map_err(|(_, error)| error))
            .map_err(failed)
    }
}

/// What there is to say of a page before it is written.
fn judge(entry: &Entry) -> Stored {
    let times: Vec<Millis> = entry.page.rows.iter().map(|row| row.ts).collect();
    let grid = read::fit(entry.grid, &times);
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

/// Writes one page inside a transaction.
fn store_page(
    txn: &Transaction<'_>,
    path: &Path,
    entry: &Entry,
    coverage: &mut Coverage,
) -> Result<Stored, StoreError> {
    let mut stored = judge(entry);
    let odd_rows =
        store_rows(txn, entry, &mut stored).map_err(StoreError::sql(path, "write candles"))?;
    let before = coverage.clone();
    coverage.absorb(&stored.evidence, entry.at);
    write_coverage(txn, entry.bar, &before, coverage)
        .map_err(StoreError::sql(path, "write what is covered"))?;
    write_meta(txn, path, &bar_key(key::SYNCED_AT, entry.bar), &entry.at.to_string())?;
    if odd_rows > 0 {
        let odd_key = bar_key(key::ODD_ROWS, entry.bar);
        let known = schema::meta(txn, path, &odd_key)?.and_then(|n| n.parse().ok());
        write_meta(txn, path, &odd_key, &(known.unwrap_or(0i64) + odd_rows).to_string())?;
    }
    txn.prepare_cached("DELETE FROM meta WHERE key = ?1")
        .and_then(|mut delete| delete.execute([bar_key(key::LAST_ERROR, entry.bar)]))
        .map_err(StoreError::sql(path, "clear the last error"))?;
    Ok(stored)
}

/// Upserts the rows by the rule of finality; gives how many of the new ones are odd.
fn store_rows(
    txn: &Transaction<'_>,
    entry: &Entry,
    stored: &mut Stored,
) -> Result<i64, rusqlite::Error> {
    let table = entry.bar.table();
    let mut insert = txn.prepare_cached(&format!(
        "INSERT INTO {table} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (ts) DO NOTHING"
    ))?;
    let mut odd_rows = 0;
    for &candle in &entry.page.rows {
        let heard = State { candle, source: Source::Rest, updated_at: entry.at };
        let [o, h, l, c, vol, ccy, quote] = candle.values();
        let (confirmed, source) = (candle.confirmed, heard.source as u8);
        let new = insert.execute(params![
            candle.ts, o, h, l, c, vol, ccy, quote, confirmed, source, entry.at
        ])?;
        let verdict = if new == 1 { Verdict::Replace } else { settle_row(txn, entry, &heard)? };
        match verdict {
            Verdict::Replace if confirmed => {
                stored.closed += 1;
                odd_rows += i64::from(candle.is_odd());
            }
            Verdict::Revise => stored.revised += 1,
            _ => {}
        }
    }
    if stored.revised > 0 {
        trim_revisions(txn)?;
    }
    Ok(odd_rows)
}

/// Settles a row whose bar is stored already.
fn settle_row(
    txn: &Transaction<'_>,
    entry: &Entry,
    heard: &State,
) -> Result<Verdict, rusqlite::Error> {
    let table = entry.bar.table();
    let mut find = txn.prepare_cached(&format!("SELECT * FROM {table} WHERE ts = ?1"))?;
    let known = find.query_row([heard.candle.ts], read_state)?;
    let verdict = known.hear(heard);
    if verdict == Verdict::Keep {
        return Ok(verdict);
    }
    if verdict == Verdict::Revise {
        let [o, h, l, c, vol, ccy, quote] = known.candle.values();
        let mut keep = txn.prepare_cached(
            "INSERT OR REPLACE INTO revisions
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        let (bar, source) = (entry.bar.name(), known.source as u8);
        keep.execute(params![bar, known.candle.ts, entry.at, source, o, h, l, c, vol, ccy, quote])?;
    }
    let [o, h, l, c, vol, ccy, quote] = heard.candle.values();
    let mut update = txn.prepare_cached(&format!(
        "UPDATE {table} SET open = ?2, high = ?3, low = ?4, close = ?5, volume = ?6,
         volume_ccy = ?7, volume_quote = ?8, confirmed = ?9, source = ?10, updated_at = ?11
         WHERE ts = ?1"
    ))?;
    let (ts, confirmed, source) = (heard.candle.ts, heard.candle.confirmed, heard.source as u8);
    update.execute(params![
        ts,
        o,
        h,
        l,
        c,
        vol,
        ccy,
        quote,
        confirmed,
        source,
        heard.updated_at
    ])?;
    Ok(verdict)
}

/// Reads a whole row of a table of candles.
pub(crate) fn read_state(row: &rusqlite::Row<'_>) -> rusqlite::Result<State> {
    let source = if row.get::<_, i64>(9)? == 0 { Source::Rest } else { Source::Stream };
    Ok(State { candle: read_candle(row)?, source, updated_at: row.get(10)? })
}

/// Reads the first nine columns of a table of candles.
pub(crate) fn read_candle(row: &rusqlite::Row<'_>) -> rusqlite::Result<Candle> {
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

fn trim_revisions(txn: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let mut oldest_kept =
        txn.prepare_cached("SELECT at FROM revisions ORDER BY at DESC LIMIT 1 OFFSET ?1")?;
    let cut: Option<Millis> =
        oldest_kept.query_row([REVISIONS_MAX], |row| row.get(0)).optional()?;
    if let Some(cut) = cut {
        txn.prepare_cached("DELETE FROM revisions WHERE at <= ?1")?.execute([cut])?;
    }
    Ok(())
}

/// Brings the tables `spans` and `empties` from one state to the next, touching only what differs.
fn write_coverage(
    txn: &Transaction<'_>,
    bar: Bar,
    before: &Coverage,
    after: &Coverage,
) -> Result<(), rusqlite::Error> {
    let name = bar.name();
    let (old, new): (BTreeSet<Span>, BTreeSet<Span>) =
        (before.spans().iter().collect(), after.spans().iter().collect());
    let mut delete = txn.prepare_cached("DELETE FROM spans WHERE bar = ?1 AND first_ts = ?2")?;
    for span in old.difference(&new) {
        delete.execute(params![name, span.start])?;
    }
    let mut insert = txn.prepare_cached("INSERT INTO spans VALUES (?1, ?2, ?3)")?;
    for span in new.difference(&old) {
        insert.execute(params![name, span.start, span.end])?;
    }

    let (old, new): (BTreeSet<&Empty>, BTreeSet<&Empty>) =
        (before.empties().collect(), after.empties().collect());
    let mut delete = txn.prepare_cached("DELETE FROM empties WHERE bar = ?1 AND first_ts = ?2")?;
    for empty in old.difference(&new) {
        delete.execute(params![name, empty.span.start])?;
    }
    let mut insert = txn.prepare_cached("INSERT INTO empties VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for empty in new.difference(&old) {
        let Empty { span, reason, attempts, next_ask } = **empty;
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
        Entry { bar, grid: bar.grid(), page, at }
    }

    #[test]
    fn a_page_is_stored_with_its_span_and_its_ledger() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("BTC-USDT.db");
        let mut file = File::open(&path, &identity()).unwrap();
        let page = vec![candle(1, 1.0, true), candle(4, 2.0, true), candle(5, 3.0, false)];
        let stored = file.commit(&[entry(page, 5 * MINUTE + 77)], -5).unwrap();
        assert_eq!((stored[0].closed, stored[0].revised), (2, 0));
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
        file.commit(&[entry(vec![candle(1, 9.0, false)], 3)], 0).unwrap();
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
}
