//! What the exchange has at a moment: the instruments, their pages, and the truth to compare with.
//!
//! The market knows no HTTP and no clock. It is handed the exchange's time and serves every face
//! the same rows.

use std::collections::BTreeMap;

use super::grid::{Bar, DAY_MS};
use super::listing::{Halt, Listing};
use super::row::Row;

/// `/candles` knows no more than so many of the newest bars.
pub const CANDLES_DEPTH: i32 = 1_440;
/// One-second bars are promised for three months, but users see about twenty days of them.
pub const SECONDS_DEPTH_MS: i64 = 20 * DAY_MS;

/// Both bounds are exclusive, as on the wire.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    pub after: Option<i64>,
    pub before: Option<i64>,
    pub limit: usize,
}

/// A row as a page has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    pub row: Row,
    pub confirmed: bool,
}

pub struct Market {
    listings: BTreeMap<String, Listing>,
    /// An ended bar is not confirmed, nor in the history, until so long after its end.
    pub late_confirm_ms: i64,
    /// So many closed bars are not yet in the history.
    pub history_lag_bars: i32,
}

impl Market {
    /// No instruments yet, and a history that trails by one bar.
    pub fn new() -> Self {
        Self { listings: BTreeMap::new(), late_confirm_ms: 0, history_lag_bars: 1 }
    }

    pub fn add(&mut self, listing: Listing) {
        self.listings.insert(listing.symbol().to_owned(), listing);
    }

    pub fn listings(&self) -> impl Iterator<Item = &Listing> {
        self.listings.values()
    }

    pub fn find(&mut self, symbol: &str) -> Option<&mut Listing> {
        self.listings.get_mut(symbol)
    }

    /// The instrument, if its candles are served at `now`; else why not.
    pub fn served(&mut self, symbol: &str, now: i64) -> Result<&mut Listing, Option<Halt>> {
        let listing = self.listings.get_mut(symbol).ok_or(None)?;
        match listing.halted(now) {
            Some(halt @ (Halt::Delisted | Halt::Settled)) => Err(Some(halt)),
            Some(Halt::Suspended) | None => Ok(listing),
        }
    }

    /// A page of `/candles`: the newest bars, first of all the running one.
    ///
    /// The depth counts from the newest bar that is there, so a suspended instrument keeps its.
    pub fn candles(&mut self, symbol: &str, bar: Bar, cursor: Cursor, now: i64) -> Vec<Served> {
        let late_ms = self.late_confirm_ms;
        let Some(listing) = self.listings.get_mut(symbol) else {
            return Vec::new();
        };
        let Some(newest) = listing.newest(bar, now) else {
            return Vec::new();
        };
        let oldest = bar.back(newest, CANDLES_DEPTH - 1);
        let view = View { bar, now, late_ms, newest, oldest };
        view.page(listing, cursor)
    }

    /// A page of `/history-candles`: closed bars alone, and not the very newest.
    pub fn history(&mut self, symbol: &str, bar: Bar, cursor: Cursor, now: i64) -> Vec<Served> {
        let (late_ms, lag) = (self.late_confirm_ms, self.history_lag_bars);
        let Some(listing) = self.listings.get_mut(symbol) else {
            return Vec::new();
        };
        let newest = bar.back(bar.open(now - late_ms), 1 + lag);
        let oldest = if bar.name() == "1s" { now - SECONDS_DEPTH_MS } else { i64::MIN };
        let view = View { bar, now, late_ms, newest, oldest };
        view.page(listing, cursor)
    }

    /// All closed bars in `[start, end)` by their open time, oldest first.
    pub fn truth(&mut self, symbol: &str, bar: Bar, range: (i64, i64), now: i64) -> Vec<Row> {
        let late_ms = self.late_confirm_ms;
        let Some(listing) = self.listings.get_mut(symbol) else {
            return Vec::new();
        };
        let newest = bar.back(bar.open(now - late_ms), 1);
        let view = View { bar, now, late_ms, newest, oldest: range.0 };
        let cursor = Cursor { after: Some(range.1), before: None, limit: usize::MAX };
        let mut rows: Vec<Row> =
            view.page(listing, cursor).into_iter().map(|served| served.row).collect();
        rows.reverse();
        rows
    }
}

/// What an endpoint shows of a listing: the open times from `oldest` to `newest`, both included.
struct View {
    bar: Bar,
    now: i64,
    late_ms: i64,
    newest: i64,
    oldest: i64,
}

impl View {
    /// The newest rows between the cursor's bounds, newest first.
    fn page(&self, listing: &mut Listing, cursor: Cursor) -> Vec<Served> {
        let above = cursor.before.map_or(i64::MIN, |before| before.saturating_add(1));
        let last = listing.end_ms().map_or(i64::MAX, |end| end - 1);
        let top = cursor.after.map_or(i64::MAX, |after| after.saturating_sub(1));
        let top = top.min(self.newest).min(last);
        let mut rows = Vec::new();
        // No bar is longer than a quarter: far enough below the first there is none, and no
        // calendar either.
        let first = listing.first_ms();
        if top < above.max(self.oldest) || top < first.saturating_sub(93 * DAY_MS) {
            return rows;
        }
        let mut open = self.bar.open(top);
        while rows.len() < cursor.limit
            && open >= above.max(self.oldest)
            && self.bar.end(open) > first
        {
            rows.extend(self.serve(listing, open));
            open = self.bar.back(open, 1);
        }
        rows
    }

    fn serve(&self, listing: &mut Listing, open: i64) -> Option<Served> {
        let confirmed = self.bar.end(open) + self.late_ms <= self.now;
        let row = if confirmed {
            listing.closed(self.bar, open)
        } else {
            listing.running(self.bar, open, self.now)
        };
        row.map(|row| Served { row, confirmed })
    }
}
