//! States of running bars that the writer had no room for.

use std::collections::BTreeMap;

use crate::instrument::Series;
use crate::store::order::Push;

/// More running bars than this a series never has: the last one, unclosed yet, and the next.
const ROWS_MAX: usize = 2;
/// Of rows that are no candles so many are kept; one is enough to be told of.
const REFUSED_MAX: usize = 1;

/// The newest states of what waits, one entry for each series.
///
/// **Invariant:** however long the writer is slow, it holds two rows of a series at the most.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: BTreeMap<Series, Push>,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps what had no room; a newer state takes the place of an older one of the same bar.
    pub fn keep(&mut self, push: Push) {
        let mut merged = self.join(push);
        let over = merged.rows.len().saturating_sub(ROWS_MAX);
        merged.rows.drain(..over);
        merged.refused.truncate(REFUSED_MAX);
        self.waiting.insert(merged.series.clone(), merged);
    }

    /// Puts what waits of the same series in front of a newer push.
    pub fn join(&mut self, push: Push) -> Push {
        let Some(older) = self.waiting.remove(&push.series) else { return push };
        let stale = |ts| push.rows.iter().any(|row| row.ts == ts);
        let mut rows = older.rows;
        rows.retain(|row| !stale(row.ts));
        rows.extend(push.rows);
        let refused = older.refused.into_iter().chain(push.refused).collect();
        Push { rows, refused, ..push }
    }

    /// Takes out one entry.
    pub fn pop(&mut self) -> Option<Push> {
        self.waiting.pop_first().map(|(_, push)| push)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candle::Candle;
    use crate::page::Refused;

    fn push(name: &str, rows: &[(i64, f64)], refused: usize, arrived: i64) -> Push {
        let row = |&(ts, price): &(i64, f64)| Candle {
            ts,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 1.0,
            volume_ccy: 1.0,
            volume_quote: 1.0,
            confirmed: false,
        };
        let series = Series { instrument: name.parse().unwrap(), bar: "1m".parse().unwrap() };
        let refused = vec![Refused { ts: None, why: "no number".to_owned() }; refused];
        Push { series, rows: rows.iter().map(row).collect(), refused, arrived, at: arrived }
    }

    fn shown(push: &Push) -> (Vec<(i64, f64)>, usize, i64) {
        let rows = push.rows.iter().map(|row| (row.ts, row.close)).collect();
        (rows, push.refused.len(), push.arrived)
    }

    #[test]
    fn the_newest_states_are_kept_one_entry_for_each_series() {
        let mut outbox = Outbox::default();
        for (n, ts) in [0, 0, 60, 60, 120, 120, 120].into_iter().enumerate() {
            outbox.keep(push("A-B", &[(ts, n as f64)], 1, n as i64));
            outbox.keep(push("C-D", &[(ts, 9.0)], 0, n as i64));
        }
        assert_eq!(shown(&outbox.pop().unwrap()), (vec![(60, 3.0), (120, 6.0)], 1, 6));
        assert_eq!(shown(&outbox.pop().unwrap()).0, [(60, 9.0), (120, 9.0)]);
        assert!(outbox.pop().is_none() && outbox.is_empty());
    }

    #[test]
    fn what_waits_goes_in_front_of_what_cannot() {
        let mut outbox = Outbox::default();
        outbox.keep(push("A-B", &[(0, 1.0), (60, 2.0)], 0, 1));
        let joined = outbox.join(push("A-B", &[(60, 3.0), (120, 4.0)], 0, 2));
        assert_eq!(shown(&joined).0, [(0, 1.0), (60, 3.0), (120, 4.0)]);
        assert!(outbox.is_empty());
        let other = outbox.join(push("C-D", &[(0, 1.0)], 0, 2));
        assert_eq!(shown(&other).0.len(), 1);
    }
}
