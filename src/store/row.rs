//! The rows of a table of candles: written by the rule of finality, and read.

use rusqlite::{OptionalExtension, Transaction, params};

use crate::bar::{Bar, Grid};
use crate::candle::{Candle, Source, State, Verdict};
use crate::span::Span;
use crate::store::schema::REVISIONS_MAX;
use crate::time::Millis;

/// What became of the rows of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Written {
    /// The rows that are there now and were not before, or had other values.
    pub fresh: Vec<Candle>,
    /// Bars that are closed now and were not before.
    pub closed: u32,
    /// Closed bars that had other values before.
    pub revised: u32,
    /// How many closed bars with odd values there are more than before.
    pub odd: i64,
}

/// Upserts rows of a bar by the rule of finality, inside a transaction. They were heard at `at`,
/// exchange clock, Unix ms.
pub(crate) fn write(
    txn: &Transaction<'_>,
    bar: Bar,
    rows: &[Candle],
    source: Source,
    at: Millis,
) -> Result<Written, rusqlite::Error> {
    let mut insert = txn.prepare_cached(&format!(
        "INSERT INTO {} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (ts) DO NOTHING",
        bar.table()
    ))?;
    let mut written = Written::default();
    for &candle in rows {
        let heard = State { candle, source, updated_at: at };
        let [o, h, l, c, vol, ccy, quote] = candle.values();
        let (confirmed, source) = (candle.confirmed, source as u8);
        let row = params![candle.ts, o, h, l, c, vol, ccy, quote, confirmed, source, at];
        if insert.execute(row)? == 1 {
            written.count(Verdict::Replace, None, &candle);
        } else {
            let (verdict, known) = settle(txn, bar, &heard)?;
            written.count(verdict, Some(&known), &candle);
        }
    }
    if written.revised > 0 {
        trim_revisions(txn)?;
    }
    Ok(written)
}

impl Written {
    fn count(&mut self, verdict: Verdict, before: Option<&Candle>, after: &Candle) {
        let odd = |candle: &Candle| i64::from(candle.confirmed && candle.is_odd());
        match verdict {
            Verdict::Keep => return,
            Verdict::Replace => self.closed += u32::from(after.confirmed),
            Verdict::Revise => self.revised += 1,
        }
        self.odd += odd(after) - before.map_or(0, odd);
        self.fresh.push(*after);
    }
}

/// Moves closed rows into the table of revisions that lie off the grid in a range in which the
/// exchange has shown all that it has: they are none of its candles. Gives how many with odd values
/// are gone.
pub(crate) fn displace(
    txn: &Transaction<'_>,
    bar: Bar,
    grid: Grid,
    span: Span,
    at: Millis,
) -> Result<i64, rusqlite::Error> {
    let table = bar.table();
    // Not kept: it would take more memory in each open file than it saves time, now and then.
    let mut find = txn
        .prepare(&format!("SELECT * FROM {table} WHERE ts >= ?1 AND ts < ?2 AND confirmed = 1"))?;
    let mut rows = find.query([span.start, span.end])?;
    let mut strays = Vec::new();
    while let Some(row) = rows.next()? {
        if !grid.opens_at(row.get(0)?) {
            strays.push(read_state(row)?);
        }
    }
    for stray in &strays {
        keep(txn, bar, stray, at)?;
        txn.prepare_cached(&format!("DELETE FROM {table} WHERE ts = ?1"))?
            .execute([stray.candle.ts])?;
    }
    if !strays.is_empty() {
        trim_revisions(txn)?;
    }
    Ok(strays.iter().filter(|stray| stray.candle.is_odd()).count() as i64)
}

/// Keeps a closed row that is about to be replaced.
fn keep(txn: &Transaction<'_>, bar: Bar, known: &State, at: Millis) -> Result<(), rusqlite::Error> {
    let [o, h, l, c, vol, ccy, quote] = known.candle.values();
    let mut keep = txn.prepare_cached(
        "INSERT OR REPLACE INTO revisions
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    let (name, ts, source) = (bar.name(), known.candle.ts, known.source as u8);
    keep.execute(params![name, ts, at, source, o, h, l, c, vol, ccy, quote]).map(drop)
}

/// Settles a row whose bar is stored already; gives what was stored, too.
fn settle(
    txn: &Transaction<'_>,
    bar: Bar,
    heard: &State,
) -> Result<(Verdict, Candle), rusqlite::Error> {
    let table = bar.table();
    let mut find = txn.prepare_cached(&format!("SELECT * FROM {table} WHERE ts = ?1"))?;
    let known = find.query_row([heard.candle.ts], read_state)?;
    let verdict = known.hear(heard);
    if verdict == Verdict::Keep {
        return Ok((verdict, known.candle));
    }
    if verdict == Verdict::Revise {
        keep(txn, bar, &known, heard.updated_at)?;
    }
    let [o, h, l, c, vol, ccy, quote] = heard.candle.values();
    let mut update = txn.prepare_cached(&format!(
        "UPDATE {table} SET open = ?2, high = ?3, low = ?4, close = ?5, volume = ?6,
         volume_ccy = ?7, volume_quote = ?8, confirmed = ?9, source = ?10, updated_at = ?11
         WHERE ts = ?1"
    ))?;
    let (ts, confirmed) = (heard.candle.ts, heard.candle.confirmed);
    let (source, at) = (heard.source as u8, heard.updated_at);
    update.execute(params![ts, o, h, l, c, vol, ccy, quote, confirmed, source, at])?;
    Ok((verdict, known.candle))
}

/// Keeps the newest revisions alone.
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
