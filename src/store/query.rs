//! Reading candles: the newest, a range, or one after the other without holding them.

use rusqlite::{CachedStatement, OptionalExtension, Transaction, params};

use crate::bar::Bar;
use crate::candle::{Candle, State};
use crate::span::Span;
use crate::store::StoreError;
use crate::store::read::Reader;
use crate::store::row::{read_candle, read_state};
use crate::time::{DAY, Millis};

/// All time: the range of a question that names none.
/// It begins before the epoch, so that nobody who names the epoch is taken to name nothing.
pub const EVERYTHING: Span = Span::new(-1, Millis::MAX);

/// The columns of a table of candles, in the order in which rows are taken apart.
const COLUMNS: &str =
    "ts, open, high, low, close, volume, volume_ccy, volume_quote, confirmed, source, updated_at";

/// Which candles of a series are asked for. The default is all that are stored.
///
/// ```
/// # let (_folder, store) =
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
/// use okx_local_store::Selection;
///
/// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
/// let returns = |wanted| store.query().calculate_returns(&btc, minute, wanted);
/// assert_eq!(returns(Selection::default())?, returns(Selection::Days(1))?);
/// assert_eq!(returns(Selection::Newest(3))?.len(), 1, "of three rows one runs, one is first");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// So many of the newest rows, the running bar among them.
    Newest(u32),
    /// The rows since so many times 24 hours before the end of the newest closed bar. Data that
    /// are old are counted back from their own end, so there is an answer whatever the clock says.
    Days(u32),
    /// The rows that open in a range.
    Range(Span),
}

impl Default for Selection {
    /// All that is stored.
    fn default() -> Selection {
        Selection::Range(EVERYTHING)
    }
}

/// Holds a file's state still: while it lives, all that its reader reads is of one moment.
#[derive(Debug)]
pub struct Snapshot<'a> {
    _txn: Transaction<'a>,
}

impl Reader {
    /// Begins a snapshot, for questions that belong together.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, StoreError> {
        let begun = self.conn.unchecked_transaction();
        begun.map(|_txn| Snapshot { _txn }).map_err(StoreError::sql(&self.path, "begin to read"))
    }

    /// The newest closed bar.
    pub fn latest_closed(&self, bar: Bar) -> Result<Option<Candle>, StoreError> {
        Ok(self.newest_where(bar, "confirmed = 1")?.map(|state| state.candle))
    }

    /// The newest row, closed or running, with who told of it and when.
    pub fn newest_row(&self, bar: Bar) -> Result<Option<State>, StoreError> {
        self.newest_where(bar, "1")
    }

    /// So many of the newest closed bars that open before a moment, oldest first.
    pub fn closed_before(
        &self,
        bar: Bar,
        before: Millis,
        bars: u32,
    ) -> Result<Vec<Candle>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM {} WHERE ts < ?1 AND confirmed = 1 ORDER BY ts DESC LIMIT ?2",
            bar.table()
        );
        let mut statement = self.statement(bar, &sql)?;
        let found = statement
            .query_map(params![before, bars], read_candle)
            .and_then(|rows| rows.collect::<Result<Vec<Candle>, _>>());
        let mut found = found.map_err(StoreError::sql(&self.path, "read candles"))?;
        found.reverse();
        Ok(found)
    }

    /// When the oldest row of a range opens.
    pub fn first_open(
        &self,
        bar: Bar,
        span: Span,
        closed_only: bool,
    ) -> Result<Option<Millis>, StoreError> {
        let sql = format!(
            "SELECT ts FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed >= ?3 ORDER BY ts LIMIT 1",
            bar.table()
        );
        self.statement(bar, &sql)?
            .query_row(params![span.start, span.end, closed_only], |row| row.get(0))
            .optional()
            .map_err(StoreError::sql(&self.path, "read candles"))
    }

    /// The range of open times that a selection means in this file. It has no end where the
    /// selection has none.
    pub fn resolve(&self, bar: Bar, selection: Selection) -> Result<Span, StoreError> {
        let start = match selection {
            Selection::Range(span) => return Ok(span),
            Selection::Newest(0) => Millis::MAX,
            Selection::Newest(rows) => self.nth_newest(bar, rows)?.unwrap_or(0),
            Selection::Days(days) => {
                let end = match (self.latest_closed(bar)?, self.newest_row(bar)?) {
                    (Some(closed), _) => self.grid(bar)?.bar_at(closed.ts).end,
                    (None, Some(running)) => running.candle.ts,
                    (None, None) => 0,
                };
                (end - Millis::from(days) * DAY).max(0)
            }
        };
        Ok(Span::new(start, EVERYTHING.end))
    }

    /// The selected candles, oldest first.
    pub fn candles(&self, bar: Bar, selection: Selection) -> Result<Vec<Candle>, StoreError> {
        let _snapshot = self.snapshot()?;
        let span = self.resolve(bar, selection)?;
        let mut found = Vec::new();
        self.for_each(bar, span, false, |candle| -> Result<(), StoreError> {
            found.push(*candle);
            Ok(())
        })?;
        Ok(found)
    }

    /// Hands over the rows that open in a range, oldest first, one at a time: memory does not grow
    /// with the range. It ends with the first error, its own or the visitor's.
    pub fn for_each<E: From<StoreError>>(
        &self,
        bar: Bar,
        span: Span,
        closed_only: bool,
        mut visit: impl FnMut(&Candle) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = StoreError::sql(&self.path, "read candles");
        let sql = format!(
            "SELECT {COLUMNS} FROM {} WHERE ts >= ?1 AND ts < ?2 AND confirmed >= ?3 ORDER BY ts",
            bar.table()
        );
        let mut statement = self.statement(bar, &sql)?;
        let mut rows =
            statement.query(params![span.start, span.end, closed_only]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            visit(&read_candle(row).map_err(&failed)?)?;
        }
        Ok(())
    }

    fn newest_where(&self, bar: Bar, condition: &str) -> Result<Option<State>, StoreError> {
        let table = bar.table();
        let sql =
            format!("SELECT {COLUMNS} FROM {table} WHERE {condition} ORDER BY ts DESC LIMIT 1");
        self.statement(bar, &sql)?
            .query_row([], read_state)
            .optional()
            .map_err(StoreError::sql(&self.path, "read the newest candle"))
    }

    fn nth_newest(&self, bar: Bar, n: u32) -> Result<Option<Millis>, StoreError> {
        let sql = format!("SELECT ts FROM {} ORDER BY ts DESC LIMIT 1 OFFSET ?1", bar.table());
        self.statement(bar, &sql)?
            .query_row([n - 1], |row| row.get(0))
            .optional()
            .map_err(StoreError::sql(&self.path, "read the newest candles"))
    }

    /// A statement about the candles of a bar, prepared once. That the table is there is only
    /// looked into when SQLite could not prepare it.
    fn statement(&self, bar: Bar, sql: &str) -> Result<CachedStatement<'_>, StoreError> {
        let error = match self.conn.prepare_cached(sql) {
            Ok(statement) => return Ok(statement),
            Err(error) => StoreError::sql(&self.path, "read candles")(error),
        };
        let stored = self.bars()?;
        if stored.contains(&bar) {
            return Err(error);
        }
        Err(StoreError::NoBar { path: self.path.clone(), bar, stored })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sample::{BASE, Sample};
    use crate::time::MINUTE;

    /// The opens, in minutes since the sample's first.
    fn minutes(candles: &[Candle]) -> Vec<i64> {
        candles.iter().map(|candle| (candle.ts - BASE) / MINUTE).collect()
    }

    #[test]
    fn selections_mean_ranges_of_what_is_stored() {
        let sample = Sample::new();
        let day = DAY / MINUTE;
        let all = [0, 1, day, day + 1, 2 * day];
        sample.store("BTC-USDT", "1m", &all.map(|minute| (minute, 1.0)), Some((2 * day + 1, 2.0)));
        let reader = sample.reader("BTC-USDT");
        let bar = "1m".parse().unwrap();
        let range =
            |start, end| Selection::Range(Span::new(BASE + start * MINUTE, BASE + end * MINUTE));
        let everything = [&all[..], &[2 * day + 1]].concat();
        for (name, selection, expected) in [
            ("two newest", Selection::Newest(2), vec![2 * day, 2 * day + 1]),
            ("more than there are", Selection::Newest(99), everything),
            ("none", Selection::Newest(0), vec![]),
            // The newest closed bar ends at 2 d 1 min: that is what a day counts back from.
            ("a day", Selection::Days(1), vec![day + 1, 2 * day, 2 * day + 1]),
            ("half-open", range(1, day), vec![1]),
            ("backwards", range(day, 1), vec![]),
        ] {
            assert_eq!(minutes(&reader.candles(bar, selection).unwrap()), expected, "{name}");
        }
        assert_eq!(reader.latest_closed(bar).unwrap().unwrap().ts, BASE + 2 * DAY);
        assert!(!reader.newest_row(bar).unwrap().unwrap().candle.confirmed);
        let two = reader.closed_before(bar, BASE + 2 * DAY, 2).unwrap();
        assert_eq!(minutes(&two), [day, day + 1]);
        let later = Span::new(BASE + 1, BASE + DAY);
        assert_eq!(reader.first_open(bar, later, true).unwrap(), Some(BASE + MINUTE));
    }

    #[test]
    fn only_closed_bars_are_handed_over_where_only_they_are_wanted() {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1m", &[(0, 1.0), (1, 1.0)], Some((2, 1.0)));
        let reader = sample.reader("BTC-USDT");
        for (closed_only, expected) in [(true, 2), (false, 3)] {
            let mut seen = 0;
            let visit = |_: &Candle| -> Result<(), StoreError> {
                seen += 1;
                Ok(())
            };
            reader.for_each("1m".parse().unwrap(), EVERYTHING, closed_only, visit).unwrap();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_bar_that_was_never_stored_is_named_with_those_that_were() {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1m", &[(0, 1.0)], None);
        sample.store("BTC-USDT", "1H", &[(0, 1.0)], None);
        let reader = sample.reader("BTC-USDT");
        let error = reader.candles("1D".parse().unwrap(), Selection::Newest(1)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with(
                "holds no 1D candles, only 1m 1H: okx-store backfill BTC-USDT 1D fetches them"
            ),
            "{text}"
        );
    }
}
