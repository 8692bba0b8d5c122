//! What a plan asks next, in each class.

use crate::bar::Grid;
use crate::coverage::{Empty, Reason};
use crate::okx::CANDLES_DEPTH;
use crate::page::Ask;
use crate::plan::{Class, GRACE_MS, IN_FLIGHT_MAX, Newest, PAGE_ROWS, Pace, Plan, Question};
use crate::span::Span;
use crate::time::{Millis, Now};
use crate::wire::Endpoint;

/// History is filled in blocks of so many bars: the newest block first, because it matters most;
/// within it the oldest page first, because rows that arrive in ascending order lie compactly.
const BLOCK_BARS: i64 = 10 * PAGE_ROWS;
/// Less a margin for bars that open while a request travels.
const CANDLES_REACH: i64 = CANDLES_DEPTH as i64 - 20;

/// Which table of the exchange has all bars that open at `start` or later, at `now` of its clock.
/// History trails, so the newest pages are `/candles`' alone, but for bars that it refuses.
pub(crate) fn endpoint_of(grid: Grid, start: Millis, history_only: bool, now: Millis) -> Endpoint {
    let newest = start >= grid.step(now, -CANDLES_REACH);
    if newest && !history_only { Endpoint::Candles } else { Endpoint::History }
}

impl Plan {
    /// What this plan would ask next in a class.
    pub fn question(&self, class: Class, now: Now) -> Option<Question> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        match class {
            Class::Unconfirmed => self.ask_unconfirmed(now),
            Class::Newest => self.ask_newest(now),
            Class::Repair | Class::Backfill if !self.is_fresh(now) => None,
            Class::Repair => {
                self.ask_missing(Class::Repair, now).or_else(|| self.ask_empties_again(now))
            }
            Class::Backfill => self.ask_missing(Class::Backfill, now),
        }
    }

    fn ask_unconfirmed(&self, now: Now) -> Option<Question> {
        // What the newest page is about to show anyway needs no question of its own.
        let newest_shows = match self.ask_newest(now) {
            Some(newest) => self.grid.step(now.exchange, 2 - i64::from(newest.ask.limit())),
            None if self.is_fresh(now) => Millis::MAX,
            None => Millis::MIN,
        };
        let mut due = self.waiting.due(self.pace, now).filter(|&ts| ts < newest_shows);
        let first = self.grid.bar_at(due.next()?);
        let last = due.next_back().map_or(first, |ts| self.grid.bar_at(ts));
        let end = last.end.min(self.grid.step(first.start, PAGE_ROWS));
        let target = Span::new(first.start, end);
        if self.in_flight.values().any(|q| !q.target.intersection(target).is_empty()) {
            return None;
        }
        // The newest page tells of a bar that has no row, too; a window without rows does not.
        let since = self.grid.count(Span::new(first.start, now.exchange)) + 2;
        if self.pace == Pace::Stream && self.newest == Newest::Heard && since <= PAGE_ROWS {
            return Some(Question { target, ..self.newest_page(since, now) });
        }
        Some(self.window(target, target, now))
    }

    fn ask_newest(&self, now: Now) -> Option<Question> {
        if !matches!(self.newest, Newest::Due(_)) || !self.wants_newest(now) {
            return None;
        }
        // No more than what is wanted and may have changed, the running bar with it, and one that
        // may open meanwhile.
        let mut wanted = self.wanted.span(self.grid, now.exchange, now.exchange);
        if self.closed_end > Millis::MIN {
            let first_waiting = self.waiting.times().next().unwrap_or(Millis::MAX);
            let changed = self.grid.step(self.closed_end.min(first_waiting), -1);
            wanted.start = wanted.start.max(changed);
        }
        Some(self.newest_page(self.grid.count(wanted) + 1, now))
    }

    fn newest_page(&self, bars: i64, now: Now) -> Question {
        let endpoint = if self.history_only { Endpoint::History } else { Endpoint::Candles };
        // History trails by about one bar, so it cannot tell that the last one is absent.
        let trail = if self.history_only { 2 * GRACE_MS } else { GRACE_MS };
        let until = self.grid.floor(now.exchange - trail);
        let ask = Ask::Newest { limit: bars.clamp(1, PAGE_ROWS) as u32, until };
        Question { endpoint, ask, target: Span::new(until, until) }
    }

    /// The oldest page of the newest block of what is missing.
    fn ask_missing(&self, class: Class, now: Now) -> Option<Question> {
        if let Some(doubt) = self.doubts.last() {
            // Pages under way may show where the void ends: only then is one question enough.
            let ask = Ask::Below { end: doubt.end };
            let idle = self.in_flight.is_empty() && self.class(doubt) == class;
            let question = Question { endpoint: Endpoint::History, ask, target: doubt };
            return idle.then_some(question);
        }
        let mut open = self.missing(now);
        self.in_flight.values().for_each(|question| open.remove(question.target));
        open.iter().rev().filter(|&gap| self.class(gap) == class).find_map(|gap| {
            let bars = self.grid.count(gap);
            if bars == 0 || (bars < PAGE_ROWS && self.borders_on_flight(gap)) {
                return None;
            }
            let start = gap.start.max(self.grid.step(gap.end, -BLOCK_BARS));
            let end = gap.end.min(self.grid.step(start, PAGE_ROWS));
            let target = Span::new(start, end);
            let room = PAGE_ROWS - 2;
            let window = if bars <= room { self.bracket(target) } else { target };
            Some(self.window(window, target, now))
        })
    }

    /// What is left beside a page under way may turn out to be one hole with what that page leaves.
    fn borders_on_flight(&self, gap: Span) -> bool {
        self.in_flight.values().any(|q| q.target.end == gap.start || q.target.start == gap.end)
    }

    pub(super) fn class(&self, gap: Span) -> Class {
        match self.stored_from {
            Some(from) if gap.start >= from => Class::Repair,
            _ => Class::Backfill,
        }
    }

    /// An absence that is due to be looked at again.
    fn ask_empties_again(&self, now: Now) -> Option<Question> {
        let wanted = self.wanted(now);
        let due = self.coverage.empties().rev().find(|empty| {
            self.look_again_at(empty) <= now.exchange
                && !wanted.intersection(empty.span).is_empty()
                && !self.in_flight.values().any(|q| q.target.start == empty.span.start)
        })?;
        let target = due.span;
        Some(match due.reason {
            Reason::Absent => self.window(self.bracket(target), target, now),
            Reason::BeforeHistory => {
                let ask = Ask::Below { end: target.end };
                Question { endpoint: Endpoint::History, ask, target }
            }
        })
    }

    pub(super) fn look_again_at(&self, empty: &Empty) -> Millis {
        let postponed = self.postponed.get(&empty.span.start).copied();
        empty.next_ask.max(postponed.unwrap_or(Millis::MIN))
    }

    fn window(&self, span: Span, target: Span, now: Now) -> Question {
        let endpoint = endpoint_of(self.grid, span.start, self.history_only, now.exchange);
        let limit = self.grid.count(span).clamp(1, PAGE_ROWS) as u32;
        Question { endpoint, ask: Ask::Window { span, limit }, target }
    }

    /// A range with the next stored row on either side of it. A page with both rows shows by
    /// itself whether there is anything between them.
    fn bracket(&self, span: Span) -> Span {
        let (mut start, mut end) = (span.start, span.end);
        for empty in self.coverage.empties().rev() {
            if empty.span.end == start && empty.reason == Reason::Absent {
                start = empty.span.start;
            }
        }
        for empty in self.coverage.empties() {
            if empty.span.start == end {
                end = empty.span.end;
            }
        }
        let below = Span::new(self.grid.step(start, -1), start);
        let above = Span::new(end, self.grid.next(end));
        let rows = self.coverage.with_rows();
        Span::new(
            if rows.covers(below) { below.start } else { span.start },
            if rows.covers(above) { above.end } else { span.end },
        )
    }
}
