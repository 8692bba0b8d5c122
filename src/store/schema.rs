//! The public form of a file: its version, its tables, and the words in its `meta`.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::bar::Bar;
use crate::store::{Identity, StoreError};

/// The statements that lead from each version to the next.
const MIGRATIONS: [&str; 1] = [include_str!("1.sql")];
/// The version that this program writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// The revisions that a file keeps at most; older ones make room.
pub const REVISIONS_MAX: i64 = 10_000;

/// The keys of `meta` that hold one value for the file.
pub mod key {
    /// What to add to the machine's time for the exchange's, ms.
    pub const CLOCK_OFFSET_MS: &str = "clock_offset_ms";
    /// When a page of the bar was last stored, exchange clock, Unix ms.
    pub const SYNCED_AT: &str = "synced_at";
    /// What last went wrong with the bar, in words; gone after the next success.
    pub const LAST_ERROR: &str = "last_error";
    /// How many stored rows of the bar have odd values.
    pub const ODD_ROWS: &str = "odd_rows";
}

/// How long a statement waits for another process's lock: only checkpoints and people's own writes
/// ever hold it. The other files wait along, so the writer returns to this one later instead.
pub const BUSY_TIMEOUT: Duration = Duration::from_millis(250);
/// Memory for pages per open file, as SQLite writes it: −KiB. Writing goes to the newest leaves
/// alone, so little is gained by more, and there is a file for each instrument.
const CACHE_SIZE: i64 = -64;
/// A log is cut down to this once it was checkpointed, bytes.
const JOURNAL_SIZE_LIMIT: i64 = 4 << 20;

/// The key of `meta` for one bar.
pub fn bar_key(key: &str, bar: Bar) -> String {
    format!("{key}:{bar}")
}

/// Makes a file fit for writing: pragmas, migrations, identity. A file that is not ours is left
/// exactly as it is.
pub fn prepare(conn: &mut Connection, path: &Path, identity: &Identity) -> Result<(), StoreError> {
    let failed = StoreError::sql(path, "open the file for writing");
    conn.busy_timeout(BUSY_TIMEOUT).map_err(&failed)?;
    let found = check_version(conn, path)?;
    match found {
        0 => check_empty(conn, path)?,
        _ => check_identity(conn, path, identity)?,
    }
    conn.pragma_update(None, "journal_mode", "wal").map_err(&failed)?;
    conn.pragma_update(None, "synchronous", "normal").map_err(&failed)?;
    conn.pragma_update(None, "cache_size", CACHE_SIZE).map_err(&failed)?;
    conn.pragma_update(None, "journal_size_limit", JOURNAL_SIZE_LIMIT).map_err(&failed)?;
    // Three statements for each table that is written, and a few for what is covered.
    conn.set_prepared_statement_cache_capacity(32);
    migrate(conn, path, identity, found)
}

/// Brings the schema up to date, version by version. A new file gets its identity in the same
/// transaction as its first tables: there is never one without the other.
fn migrate(
    conn: &mut Connection,
    path: &Path,
    identity: &Identity,
    found: i64,
) -> Result<(), StoreError> {
    let failed = StoreError::sql(path, "migrate the schema");
    for (version, statements) in (1..).zip(MIGRATIONS).skip(found as usize) {
        let txn = conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(&failed)?;
        txn.execute_batch(statements).map_err(&failed)?;
        if version == 1 {
            adopt(&txn, path, identity)?;
        }
        txn.pragma_update(None, "user_version", version).map_err(&failed)?;
        txn.commit().map_err(&failed)?;
    }
    Ok(())
}

/// Writes the identity into a new file.
fn adopt(conn: &Connection, path: &Path, identity: &Identity) -> Result<(), StoreError> {
    let words = [
        ("venue", identity.venue),
        ("region", identity.region.as_str()),
        ("environment", identity.environment()),
    ];
    for (key, value) in words {
        conn.execute("INSERT INTO meta VALUES (?1, ?2)", params![key, value])
            .map_err(StoreError::sql(path, "write the identity"))?;
    }
    Ok(())
}

/// Refuses a file that is newer than the program; gives the version otherwise.
pub fn check_version(conn: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: i64 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(StoreError::sql(path, "read the schema's version"))?;
    if (0..=VERSION).contains(&found) {
        Ok(found)
    } else {
        Err(StoreError::Newer { path: path.to_owned(), found })
    }
}

/// Refuses a file without a version that has tables: somebody else made it for something else.
fn check_empty(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(StoreError::sql(path, "read the schema"))?;
    if tables == 0 { Ok(()) } else { Err(StoreError::Stranger { path: path.to_owned() }) }
}

/// Refuses a file of another venue, region or environment.
pub fn check_identity(
    conn: &Connection,
    path: &Path,
    identity: &Identity,
) -> Result<(), StoreError> {
    let word = |key| Ok(meta(conn, path, key)?.unwrap_or_else(|| "?".to_owned()));
    let found = format!("{} {} {}", word("venue")?, word("region")?, word("environment")?);
    let wanted = identity.to_string();
    if found == wanted {
        Ok(())
    } else {
        Err(StoreError::Foreign { path: path.to_owned(), found, wanted })
    }
}

/// A value of `meta`.
pub fn meta(conn: &Connection, path: &Path, key: &str) -> Result<Option<String>, StoreError> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")
        .and_then(|mut query| query.query_row([key], |row| row.get(0)).optional())
        .map_err(StoreError::sql(path, "read the table meta"))
}

/// The statement that makes the table of a bar. `ts` is the rowid itself, so there is no index
/// beside the table.
pub fn create_candles(bar: Bar) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (
  ts           INTEGER PRIMARY KEY,  -- open time, Unix ms
  open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL,
  volume       REAL NOT NULL,        -- base quantity (spot), contracts (derivatives)
  volume_ccy   REAL NOT NULL,        -- quote quantity (spot), base quantity (derivatives)
  volume_quote REAL NOT NULL,        -- quote quantity
  confirmed    INTEGER NOT NULL,     -- 1 closed, 0 still running
  source       INTEGER NOT NULL,     -- 0 REST, 1 stream
  updated_at   INTEGER NOT NULL      -- exchange clock, Unix ms
) STRICT",
        bar.table()
    )
}
