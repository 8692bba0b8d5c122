//! What is asked of the exchange in one request, what came, asked for or not, and what that proves.

use std::collections::BTreeMap;

use crate::bar::Grid;
use crate::candle::{Candle, Source, State, Verdict};
use crate::span::{Span, Spans};
use crate::time::Millis;

/// One question about the candles of a series. All are answered by one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The newest rows, the running bar among them.
    Newest {
        /// At most so many.
        limit: u32,
        /// Every bar that opens before this has ended, so the exchange has its row, or has none.
        until: Millis,
    },
    /// The rows that open in a window; the newest of them where there are more than `limit`.
    Window {
        /// The window of open times.
        span: Span,
        /// At most so many.
        limit: u32,
    },
    /// The one newest row that opens before `end`: where history goes on below an empty page, or
    /// that it ends there.
    Below {
        /// The first moment that is not asked about.
        end: Millis,
    },
}

impl Ask {
    /// The open times that an honest answer can have.
    pub fn window(self) -> Span {
        match self {
            Ask::Newest { .. } => Span::new(0, Millis::MAX),
            Ask::Window { span, .. } => span,
            Ask::Below { end } => Span::new(0, end),
        }
    }

    /// The most rows that an honest answer can have.
    pub fn limit(self) -> u32 {
        match self {
            Ask::Newest { limit, .. } | Ask::Window { limit, .. } => limit,
            Ask::Below { .. } => 1,
        }
    }
}

/// Where a page comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is the answer to this question.
    Answer(Ask),
    /// The stream has pushed it.
    Push,
}

impl Origin {
    /// Who told of the rows.
    pub fn source(self) -> Source {
        match self {
            Origin::Answer(_) => Source::Rest,
            Origin::Push => Source::Stream,
        }
    }
}

/// What the exchange has told of a series: rows in ascending order of time, each bar once.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Where it comes from.
    pub origin: Origin,
    /// The rows, oldest first.
    pub rows: Vec<Candle>,
    /// Rows that are not among them; the rest of the page stands.
    pub refused: Vec<Refused>,
}

/// A row that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its open time, where that could be read.
    pub ts: Option<Millis>,
    /// What was wrong with it.
    pub why: String,
}

/// What a page proves about its series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Ranges of closed bars of which everything is now known: each has a row, or has none on the
    /// exchange either.
    pub vouched: Spans,
    /// The part of them in which the exchange has no row.
    pub absent: Spans,
    /// Whether nothing at all is older: the absent range is what lies before history.
    pub before_history: bool,
    /// The rows that are not closed yet, by open time.
    pub unconfirmed: Vec<Millis>,
    /// The open times of the oldest and the newest row.
    pub extent: Option<(Millis, Millis)>,
}

/// What the commit of one page changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What the page proved; the spans and the ledger on disk say the same.
    pub evidence: Evidence,
    /// Bars that are closed there now and were not before.
    pub closed: u32,
    /// Closed bars that had other values before.
    pub revised: u32,
    /// When the page was heard.
    pub at: Millis,
    /// The grid that the page's rows lie on.
    pub grid: Grid,
    /// A row that lies off that grid. It is stored all the same: the exchange is right.
    pub off_grid: Option<Millis>,
    /// The first row that was refused, and how many were.
    pub refused: Option<(String, usize)>,
}

impl Page {
    /// Puts rows into order. Of two states of one bar the closed one stays, else the later in the
    /// answer. Rows outside what was asked for are refused: they can only be a mistake of a proxy.
    pub fn new(ask: Ask, answered: Vec<Candle>, mut refused: Vec<Refused>) -> Page {
        let window = ask.window();
        let mut rows = answered;
        rows.retain(|row| {
            let is_inside = window.contains(row.ts);
            if !is_inside {
                let why = "it lies outside of what was asked for".to_owned();
                refused.push(Refused { ts: Some(row.ts), why });
            }
            is_inside
        });
        // The exchange answers newest first.
        if rows.is_sorted_by(|row, next| row.ts > next.ts) {
            rows.reverse();
        }
        let rows = in_order(rows, |known, row| known.confirmed && !row.confirmed);
        Page { origin: Origin::Answer(ask), rows, refused }
    }

    /// Puts pushed states into order, given as they came. Of two states of one bar the one stays
    /// that would stay in the store.
    pub fn pushed(states: Vec<Candle>, refused: Vec<Refused>) -> Page {
        let state = |candle| State { candle, source: Source::Stream, updated_at: 0 };
        let stays =
            |known: &Candle, row: &Candle| state(*known).hear(&state(*row)) == Verdict::Keep;
        Page { origin: Origin::Push, rows: in_order(states, stays), refused }
    }

    /// What this page proves.
    ///
    /// An answer vouches for the range from its oldest to its newest row, less the bars that are
    /// not closed; it says nothing about the rest of the window, so a server that cuts its pages
    /// short costs requests, not rows. The newest page vouches up to the bars that have ended, and
    /// a page of [`Ask::Below`] up to the end asked about: nothing lies above the first row of the
    /// one, and the row found by the other is the next one below. A bar whose row was refused is
    /// not vouched for, and a row without a readable time takes the whole page's word away: what
    /// could not be read must not pass for a bar that does not exist.
    ///
    /// A push vouches for the bars that it closes and for nothing between them: what the stream
    /// does not push may exist all the same. So a refused row takes no word away but its own.
    pub fn evidence(&self, grid: Grid) -> Evidence {
        let mut evidence = Evidence {
            unconfirmed: self.rows.iter().filter(|r| !r.confirmed).map(|r| r.ts).collect(),
            extent: self.rows.first().zip(self.rows.last()).map(|(a, b)| (a.ts, b.ts)),
            ..Evidence::default()
        };
        match self.origin {
            Origin::Answer(ask) => self.prove_answer(ask, grid, &mut evidence),
            Origin::Push => {
                let closed = self.rows.iter().filter(|row| row.confirmed && on(grid, row.ts));
                evidence.vouched.extend(closed.map(|row| grid.bar_at(row.ts)));
            }
        }
        evidence
    }

    fn prove_answer(&self, ask: Ask, grid: Grid, evidence: &mut Evidence) {
        if self.refused.iter().any(|row| row.ts.is_none()) {
            return;
        }
        let (start, end) = match (ask, evidence.extent) {
            (Ask::Below { end }, Some((oldest, _))) => (oldest, end),
            (Ask::Below { end }, None) if self.refused.is_empty() => {
                evidence.before_history = true;
                (0, end)
            }
            (Ask::Newest { until, .. }, Some((oldest, newest))) => {
                (oldest, until.max(grid.next(newest)))
            }
            (_, Some((oldest, newest))) => (oldest, grid.next(newest)),
            (_, None) => return,
        };
        evidence.vouched.insert(Span::new(start, end));
        let mut expected = start;
        for row in &self.rows {
            let bar = grid.bar_at(row.ts);
            // A row off the grid is nobody's: it must not hide that the bars around it are absent.
            if on(grid, row.ts) {
                evidence.absent.insert(Span::new(expected, bar.start));
                expected = bar.end;
            }
            if !row.confirmed {
                evidence.vouched.remove(bar);
            }
        }
        evidence.absent.insert(Span::new(expected, end));
        for ts in self.refused.iter().filter_map(|row| row.ts) {
            evidence.vouched.remove(grid.bar_at(ts));
            evidence.absent.remove(grid.bar_at(ts));
        }
    }
}

/// Rows by their time, each bar once: `stays` tells whether the known state of one does, or the one
/// that came later. Nearly all come in order, which costs nothing but a look.
fn in_order(rows: Vec<Candle>, stays: impl Fn(&Candle, &Candle) -> bool) -> Vec<Candle> {
    if rows.is_sorted_by(|row, next| row.ts < next.ts) {
        return rows;
    }
    let mut by_time: BTreeMap<Millis, Candle> = BTreeMap::new();
    for row in rows {
        if !by_time.get(&row.ts).is_some_and(|known| stays(known, &row)) {
            by_time.insert(row.ts, row);
        }
    }
    by_time.into_values().collect()
}

/// Whether a row stands for a bar of the grid. Months are kept where the calendar has them.
fn on(grid: Grid, ts: Millis) -> bool {
    grid.opens_at(ts) || grid.period().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MINUTE;

    fn row(minute: i64, confirmed: bool) -> Candle {
        let ts = minute * MINUTE;
        let price = 1.0;
        Candle {
            ts,
            open: price,
            high: price,
            low: price,
            close: price,
            volume: 1.0,
            volume_ccy: 1.0,
            volume_quote: 1.0,
            confirmed,
        }
    }

    fn minutes(spans: &Spans) -> Vec<(i64, i64)> {
        spans.iter().map(|span| (span.start / MINUTE, span.end / MINUTE)).collect()
    }

    fn window(start: i64, end: i64) -> Ask {
        let span = Span::new(start * MINUTE, end * MINUTE);
        Ask::Window { span, limit: (end - start) as u32 }
    }

    fn newest(until: i64) -> Ask {
        Ask::Newest { limit: 300, until: until * MINUTE }
    }

    fn evidence(ask: Ask, rows: &[(i64, bool)]) -> Evidence {
        let rows = rows.iter().map(|&(minute, confirmed)| row(minute, confirmed)).collect();
        Page::new(ask, rows, Vec::new()).evidence("1m".parse::<crate::bar::Bar>().unwrap().grid())
    }

    #[test]
    fn a_page_vouches_from_its_oldest_to_its_newest_row() {
        let found = evidence(window(0, 10), &[(7, true), (6, true), (3, true)]);
        assert_eq!(minutes(&found.vouched), [(3, 8)]);
        assert_eq!(minutes(&found.absent), [(4, 6)]);
        assert!(evidence(window(0, 10), &[]).vouched.is_empty());
    }

    #[test]
    fn what_is_not_closed_is_not_vouched_for() {
        let found = evidence(newest(9), &[(9, false), (6, false), (5, true)]);
        assert_eq!(minutes(&found.vouched), [(5, 6), (7, 9)]);
        assert_eq!(minutes(&found.absent), [(7, 9)]);
        assert_eq!(found.unconfirmed, [6 * MINUTE, 9 * MINUTE]);
    }

    #[test]
    fn the_newest_page_vouches_up_to_the_bars_that_have_ended() {
        let found = evidence(newest(20), &[(5, true), (4, true)]);
        assert_eq!(
            (minutes(&found.vouched), minutes(&found.absent)),
            (vec![(4, 20)], vec![(6, 20)])
        );
        assert!(evidence(newest(20), &[]).vouched.is_empty());
    }

    #[test]
    fn the_row_below_proves_the_range_above_it_empty() {
        let below = Ask::Below { end: 10 * MINUTE };
        let found = evidence(below, &[(4, true)]);
        assert_eq!(
            (minutes(&found.vouched), minutes(&found.absent)),
            (vec![(4, 10)], vec![(5, 10)])
        );
        let found = evidence(below, &[]);
        assert_eq!((minutes(&found.absent), found.before_history), (vec![(0, 10)], true));
    }

    #[test]
    fn rows_that_were_not_asked_for_or_not_understood_prove_nothing() {
        let grid = "1m".parse::<crate::bar::Bar>().unwrap().grid();
        let page = Page::new(window(0, 10), vec![row(3, true), row(12, true)], Vec::new());
        assert_eq!((page.rows.len(), page.refused.len()), (1, 1));
        let unread = |ts| Refused { ts, why: "NaN".into() };
        let rows = || vec![row(3, true), row(6, true)];
        let page = Page::new(window(0, 10), rows(), vec![unread(Some(5 * MINUTE))]);
        let found = page.evidence(grid);
        assert_eq!(
            (minutes(&found.vouched), minutes(&found.absent)),
            (vec![(3, 5), (6, 7)], vec![(4, 5)])
        );
        let page = Page::new(window(0, 10), rows(), vec![unread(None)]);
        assert!(page.evidence(grid).vouched.is_empty());
        let page = Page::new(Ask::Below { end: 9 }, Vec::new(), vec![unread(Some(5))]);
        assert!(!page.evidence(grid).before_history);
    }

    #[test]
    fn rows_off_the_grid_stand_for_no_bar_of_it() {
        let grid = "1m".parse::<crate::bar::Bar>().unwrap().grid();
        let off = |minute| Candle { ts: minute * MINUTE + MINUTE / 2, ..row(0, true) };
        let rows = vec![row(3, true), off(5), row(7, true), off(8)];
        let found = Page::new(window(0, 10), rows, Vec::new()).evidence(grid);
        assert_eq!(
            (minutes(&found.vouched), minutes(&found.absent)),
            (vec![(3, 9)], vec![(4, 7), (8, 9)])
        );
    }

    #[test]
    fn a_push_vouches_for_the_bars_that_it_closes_and_for_no_others() {
        let minutes_grid = "1m".parse::<crate::bar::Bar>().unwrap().grid();
        let off = Candle { ts: 7 * MINUTE + 1, ..row(7, true) };
        let refused = |ts| Refused { ts, why: "NaN".into() };
        let rows = vec![row(6, false), row(2, true), row(5, true), row(3, true), off];
        let page = Page::pushed(rows, vec![refused(None), refused(Some(2 * MINUTE))]);
        let found = page.evidence(minutes_grid);
        assert_eq!(minutes(&found.vouched), [(2, 4), (5, 6)]);
        assert!(found.absent.is_empty() && !found.before_history);
        assert_eq!(found.unconfirmed, [6 * MINUTE]);
        assert_eq!(found.extent, Some((2 * MINUTE, 7 * MINUTE + 1)));
    }

    #[test]
    fn of_pushed_states_of_a_bar_the_one_stays_that_stays_in_the_store() {
        let state = |close, volume, confirmed| Candle { close, volume, ..row(3, confirmed) };
        let cases = [
            ("more volume", state(1.0, 5.0, false), state(2.0, 4.0, false), 1.0),
            ("then the later", state(1.0, 5.0, false), state(2.0, 5.0, false), 2.0),
            ("closed", state(1.0, 4.0, true), state(2.0, 5.0, false), 1.0),
            ("closed late", state(1.0, 5.0, false), state(2.0, 4.0, true), 2.0),
            ("the first close", state(1.0, 5.0, true), state(2.0, 5.0, true), 1.0),
        ];
        for (name, first, second, close) in cases {
            let page = Page::pushed(vec![first, second], Vec::new());
            assert_eq!(
                page.rows.iter().map(|row| row.close).collect::<Vec<_>>(),
                [close],
                "{name}"
            );
        }
    }

    #[test]
    fn of_two_states_of_a_bar_the_closed_one_stays() {
        let rows = vec![row(3, true), row(3, false), row(4, false), row(4, true)];
        let page = Page::new(window(0, 10), rows, Vec::new());
        assert_eq!(page.rows, [row(3, true), row(4, true)]);
    }
}
