//! Reading a file without ever changing it, and what a plan needs to know of it.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::bar::{Bar, Grid};
use crate::coverage::{Coverage, Empty, Reason};
use crate::lock::is_absence;
use crate::span::{Span, Spans};
use crate::spelling::printable;
use crate::store::schema::{self, bar_key, key};
use crate::store::{Identity, StoreError};
use crate::time::{Millis, TIME_MAX};

/// How long a read waits for a lock: a checkpoint that resets the log holds one for moments.
const BUSY_TIMEOUT_MS: u64 = 2_000;

/// A file of candles, open for reading.
#[derive(Debug)]
pub struct Reader {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
    /// Whether the file was taken for unchanging: what is written later is not seen.
    pub(crate) is_immutable: bool,
}

impl Reader {
    /// Opens a file for reading. It works in a folder that cannot be written, too.
    pub fn open(path: &Path, identity: &Identity) -> Result<Reader, StoreError> {
        match fs::metadata(path) {
            Ok(found) if found.is_file() => {}
            // What lies behind a door that is shut may well be there.
            Err(source) if !is_absence(&source) => {
                return Err(StoreError::Io { path: path.to_owned(), doing: "look at it", source });
            }
            _ => return Err(StoreError::Missing { path: path.to_owned() }),
        }
        let (conn, is_immutable) = connect(path)?;
        let reader = Reader { conn, path: path.to_owned(), is_immutable };
        let failed = StoreError::sql(path, "open the file for reading");
        let timeout = std::time::Duration::from_millis(BUSY_TIMEOUT_MS);
        reader.conn.busy_timeout(timeout).map_err(&failed)?;
        if schema::check_version(&reader.conn, path)? == 0 {
            // The file was made a moment ago, or its maker was killed before the schema stood.
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        schema::check_identity(&reader.conn, path, identity)?;
        Ok(reader)
    }

    /// The bars that have a table.
    pub fn bars(&self) -> Result<Vec<Bar>, StoreError> {
        bars(&self.conn, &self.path)
    }

    /// The spans and the ledger of a bar.
    pub fn coverage(&self, bar: Bar) -> Result<Coverage, StoreError> {
        coverage(&self.conn, &self.path, bar)
    }

    /// What to add to the machine's time for the exchange's, as the last commit left it, ms.
    pub fn clock_offset_ms(&self) -> Result<Option<Millis>, StoreError> {
        let text = schema::meta(&self.conn, &self.path, key::CLOCK_OFFSET_MS)?;
        Ok(text.and_then(|ms| ms.parse().ok()).filter(|ms| (-TIME_MAX..=TIME_MAX).contains(ms)))
    }

    /// When a page of the bar was last stored, exchange clock, Unix ms.
    pub fn synced_at(&self, bar: Bar) -> Result<Option<Millis>, StoreError> {
        let text = schema::meta(&self.conn, &self.path, &bar_key(key::SYNCED_AT, bar))?;
        Ok(text.and_then(|ms| ms.parse().ok()).filter(|ms| (0..=TIME_MAX).contains(ms)))
    }

    /// What last went wrong with the bar, if nothing went well since.
    pub fn last_error(&self, bar: Bar) -> Result<Option<String>, StoreError> {
        let text = schema::meta(&self.conn, &self.path, &bar_key(key::LAST_ERROR, bar))?;
        Ok(text.map(|text| printable(&text).into_owned()))
    }

    /// How many stored rows of the bar have odd values.
    pub fn odd_rows(&self, bar: Bar) -> Result<i64, StoreError> {
        let text = schema::meta(&self.conn, &self.path, &bar_key(key::ODD_ROWS, bar))?;
        Ok(text.and_then(|n| n.parse().ok()).unwrap_or(0))
    }

    /// The open times of stored rows that are not closed, oldest first.
    ///
    /// They lie outside of the spans, which is where this looks: the newest few rows, and bars
    /// whose confirm never came.
    pub fn unconfirmed(&self, bar: Bar, coverage: &Coverage) -> Result<Vec<Millis>, StoreError> {
        let everything = Span::new(0, Millis::MAX);
        let sql = format!(
            "SELECT ts FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed = 0 ORDER BY ts",
            bar.table()
        );
        let mut found = Vec::new();
        for gap in coverage.missing(everything).iter() {
            found.extend(self.times(&sql, gap)?);
        }
        Ok(found)
    }

    /// The grid of a series as its newest rows show it: the documented one, unless they all lie
    /// off it in the same way.
    pub fn grid(&self, bar: Bar) -> Result<Grid, StoreError> {
        grid(&self.conn, &self.path, bar)
    }

    /// Counts the rows in what is said to be covered, and takes out of `coverage` what turns out
    /// not to be stored, so that rows deleted by other hands are fetched again. Gives what was
    /// taken out.
    pub fn audit(
        &self,
        bar: Bar,
        grid: Grid,
        coverage: &mut Coverage,
    ) -> Result<Spans, StoreError> {
        let mut lost = Spans::new();
        for span in coverage.with_rows().iter() {
            if self.count_closed(bar, grid, span)? != grid.count(span) {
                lost.extend(self.holes(bar, grid, span)?.iter());
            }
        }
        lost.iter().for_each(|span| coverage.uncover(span));
        Ok(lost)
    }

    /// The number of closed rows on the grid in a range.
    fn count_closed(&self, bar: Bar, grid: Grid, span: Span) -> Result<i64, StoreError> {
        // Months are never off the grid: they are kept where the calendar has them.
        let (length_ms, origin) = grid.period().unwrap_or((1, 0));
        let sql = format!(
            "SELECT count(*) FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed = 1
             AND (ts - ?3) % ?4 = 0",
            bar.table()
        );
        self.conn
            .prepare_cached(&sql)
            .and_then(|mut query| {
                query.query_row(params![span.start, span.end, origin, length_ms], |row| row.get(0))
            })
            .map_err(StoreError::sql(&self.path, "count candles"))
    }

    /// The bars in a range that have no closed row.
    fn holes(&self, bar: Bar, grid: Grid, span: Span) -> Result<Spans, StoreError> {
        let sql = format!(
            "SELECT ts FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed = 1 ORDER BY ts",
            bar.table()
        );
        let failed = StoreError::sql(&self.path, "look for holes");
        let mut query = self.conn.prepare_cached(&sql).map_err(&failed)?;
        let mut rows = query.query([span.start, span.end]).map_err(&failed)?;
        let (mut holes, mut expected) = (Spans::new(), grid.ceil(span.start));
        while let Some(row) = rows.next().map_err(&failed)? {
            let ts: Millis = row.get(0).map_err(&failed)?;
            if grid.opens_at(ts) {
                holes.insert(Span::new(expected, ts));
                expected = grid.next(ts);
            }
        }
        holes.insert(Span::new(expected, grid.ceil(span.end)));
        Ok(holes)
    }

    fn times(&self, sql: &str, span: Span) -> Result<Vec<Millis>, StoreError> {
        times(&self.conn, &self.path, sql, span)
    }
}

fn times(conn: &Connection, path: &Path, sql: &str, span: Span) -> Result<Vec<Millis>, StoreError> {
    conn.prepare_cached(sql)
        .and_then(|mut query| query.query_map([span.start, span.end], |row| row.get(0))?.collect())
        .map_err(StoreError::sql(path, "read candles"))
}

/// The grid of a series as its newest rows show it.
pub(crate) fn grid(conn: &Connection, path: &Path, bar: Bar) -> Result<Grid, StoreError> {
    let sql = format!(
        "SELECT ts FROM {} WHERE ts >= ?1 AND ts < ?2 ORDER BY ts DESC LIMIT 3",
        bar.table()
    );
    Ok(fit(bar.grid(), &times(conn, path, &sql, Span::new(0, Millis::MAX))?))
}

/// The grid that rows lie on: `grid`, unless two rows or more agree that the bars open elsewhere.
pub fn fit(grid: Grid, times: &[Millis]) -> Grid {
    match times {
        [first, rest @ ..] if !rest.is_empty() && !grid.opens_at(*first) => {
            let shifted = grid.shifted_to(*first);
            if rest.iter().all(|&ts| shifted.opens_at(ts)) { shifted } else { grid }
        }
        _ => grid,
    }
}

/// Opens read-only. Where the folder cannot be written SQLite cannot share a log, and needs none
/// if there is nothing in it: then nobody writes, and the file may be taken for unchanging. A
/// reader may have left an empty log behind.
fn connect(path: &Path) -> Result<(Connection, bool), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags).and_then(|conn| {
        conn.query_row("SELECT 1 FROM sqlite_schema", [], |_| Ok(())).optional().map(|_| conn)
    });
    let log = std::fs::metadata(path.with_extension("db-wal"));
    let opened = match opened {
        // The first error names the file as people know it.
        Err(first) if log.map_or(true, |log| log.len() == 0) => {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            let unchanging = Connection::open_with_flags(immutable_uri(path), flags);
            unchanging.map(|conn| (conn, true)).map_err(|_| first)
        }
        other => other.map(|conn| (conn, false)),
    };
    opened.map_err(StoreError::sql(path, "open the file for reading"))
}

/// A path as a URI, with the bytes escaped that mean something there.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

/// The bars that have a table in a file.
pub(crate) fn bars(conn: &Connection, path: &Path) -> Result<Vec<Bar>, StoreError> {
    let tables: Vec<String> = conn
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
        .map_err(StoreError::sql(path, "read the schema"))?;
    Ok(Bar::all().filter(|bar| tables.iter().any(|table| table == bar.table())).collect())
}

/// The spans and the ledger of a bar.
pub(crate) fn coverage(conn: &Connection, path: &Path, bar: Bar) -> Result<Coverage, StoreError> {
    let failed = StoreError::sql(path, "read what is covered");
    let spans = conn
        .prepare_cached("SELECT first_ts, end_ts FROM spans WHERE bar = ?1")
        .and_then(|mut query| {
            query
                .query_map([bar.name()], |row| Ok(Span::new(row.get(0)?, row.get(1)?)))?
                .collect::<Result<Spans, _>>()
        })
        .map_err(&failed)?;
    let empties = conn
        .prepare_cached(
            "SELECT first_ts, end_ts, reason, attempts, next_ask FROM empties WHERE bar = ?1",
        )
        .and_then(|mut query| {
            query
                .query_map([bar.name()], |row| {
                    let before = row.get::<_, String>(2)? == Reason::BeforeHistory.as_str();
                    Ok(Empty {
                        span: Span::new(row.get(0)?, row.get(1)?),
                        reason: if before { Reason::BeforeHistory } else { Reason::Absent },
                        attempts: row.get(3)?,
                        next_ask: row.get(4)?,
                    })
                })?
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(&failed)?;
    Ok(Coverage::new(spans, empties))
}
