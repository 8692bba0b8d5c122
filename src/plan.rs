//! The plan of one series: what to ask next, so that in the end nothing that is wanted is missing.
//!
//! There is one mechanism for the first sync, catch-up, repair and back-fill: what is missing is
//! what is wanted less what is covered, and pages are asked for what is missing. Nothing else is
//! remembered, so a killed process resumes by itself. Only a receipt of the writer moves a plan.

use std::collections::BTreeMap;

use crate::bar::Grid;
use crate::coverage::{Coverage, Reason, Tally};
use crate::okx::{CANDLES_DEPTH, PAGE_ROWS_MAX};
use crate::page::{Ask, Stored};
use crate::span::{Span, Spans};
use crate::time::{DAY, MINUTE, Millis, Now, SECOND};
use crate::wire::Endpoint;

/// Rows in a page at the most.
const PAGE_ROWS: i64 = PAGE_ROWS_MAX as i64;
/// Pages of a series that may be under way together: enough to use the permitted rate across the
/// distance to the exchange, few enough that a killed process repeats little.
pub const IN_FLIGHT_MAX: usize = 4;
/// History is filled in blocks of so many bars: the newest block first, because it matters most;
/// within it the oldest page first, because rows that arrive in ascending order lie compactly.
const BLOCK_BARS: i64 = 10 * PAGE_ROWS;
/// Less a margin for bars that open while a request travels.
const CANDLES_REACH: i64 = CANDLES_DEPTH as i64 - 20;
/// `/history-candles` has a bar only when so many newer ones have opened.
const HISTORY_TRAIL: i64 = 3;
/// A bar that ended less than this ago may not have shown up yet.
const GRACE_MS: Millis = 10 * SECOND;
/// When a bar that had ended without a confirm is looked at again, counted from the last look.
const CONFIRM_AGAIN_MS: [Millis; 3] = [2 * SECOND, 5 * SECOND, 10 * SECOND];
/// When an absence is looked at again whose page did not reach it.
const POSTPONE_MS: Millis = 2 * MINUTE;
/// An empty newest page is believed when it came so often.
const NEWEST_TRIES: u32 = 3;
/// So many answers in a row that prove nothing end a plan: the exchange contradicts itself.
const FRUITLESS_MAX: u32 = 12;

/// What is asked for first. All series have their newest page before any gets older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Bars that have ended without a confirm.
    Unconfirmed,
    /// The newest page.
    Newest,
    /// Holes in what was stored once, the catch-up after a pause among them.
    Repair,
    /// History that was never stored.
    Backfill,
}

/// All classes in their order.
pub const CLASSES: [Class; 4] = [Class::Unconfirmed, Class::Newest, Class::Repair, Class::Backfill];

/// Which bars a plan is to make complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// So many days back from now.
    Days(u32),
    /// A range of open times.
    Range(Span),
}

impl Wanted {
    /// The range of bars, given where the newest closed bar ends.
    pub fn span(self, grid: Grid, now: Millis, closed_end: Millis) -> Span {
        match self {
            Wanted::Days(days) => {
                let start = grid.floor((now - Millis::from(days) * DAY).max(0));
                Span::new(start, closed_end)
            }
            Wanted::Range(span) => Span::new(grid.ceil(span.start), span.end.min(closed_end)),
        }
    }
}

/// A question that a plan has, and where to put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which table of the exchange knows.
    pub endpoint: Endpoint,
    /// What to ask it.
    pub ask: Ask,
    /// The missing bars it is asked for; the window may reach beyond them.
    pub target: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newest {
    /// To be asked; so many empty answers came.
    Due(u32),
    Asked(u32),
    Heard,
}

#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    looks: usize,
    due: Millis,
}

/// The plan of one series.
#[derive(Debug)]
pub struct Plan {
    grid: Grid,
    wanted: Wanted,
    /// Whether `/candles` has this bar at all.
    history_only: bool,
    coverage: Coverage,
    /// Where stored history began when the plan was made: gaps above it are repairs.
    stored_from: Option<Millis>,
    newest: Newest,
    /// Where the newest closed bar ends, as of the newest page.
    closed_end: Millis,
    /// Bars that have ended without a confirm.
    unconfirmed: BTreeMap<Millis, Unconfirmed>,
    /// Missing ranges whose page came back empty.
    doubts: Spans,
    /// Missing ranges that end in a row which cannot be read: a later command tries them again.
    left_out: Spans,
    /// Absences that are due, but whose last page did not reach them.
    postponed: BTreeMap<Millis, Millis>,
    in_flight: BTreeMap<u64, Question>,
    fruitless: u32,
}

/// What a receipt did to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Moved,
    /// It goes on, but leaves a range out: a row in it cannot be read.
    LeftOut,
    /// The answers prove nothing, again and again.
    Stuck,
}

impl Plan {
    /// A plan from what the file holds. `history_only` marks bars that `/candles` refuses.
    pub fn new(
        grid: Grid,
        wanted: Wanted,
        history_only: bool,
        coverage: Coverage,
        unconfirmed: &[Millis],
    ) -> Plan {
        let look = |&ts: &Millis| (ts, Unconfirmed { looks: 0, due: grid.bar_at(ts).end });
        Plan {
            grid,
            wanted,
            history_only,
            stored_from: coverage.history_start(),
            coverage,
            newest: Newest::Due(0),
            closed_end: Millis::MIN,
            unconfirmed: unconfirmed.iter().map(look).collect(),
            doubts: Spans::new(),
            left_out: Spans::new(),
            postponed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            fruitless: 0,
        }
    }

    /// The grid, as the rows have shown it so far.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Whether the newest page is on disk, or none is wanted.
    pub fn is_fresh(&self, now: Now) -> bool {
        self.newest == Newest::Heard || !self.wants_newest(now)
    }

    /// A range that ends well before now leaves the newest bars alone.
    fn wants_newest(&self, now: Now) -> bool {
        match self.wanted {
            Wanted::Days(_) => true,
            Wanted::Range(span) => span.end > self.grid.step(now.exchange, -HISTORY_TRAIL),
        }
    }

    /// Asks for the newest page again: time has passed.
    pub fn refresh(&mut self) {
        if self.newest == Newest::Heard {
            self.newest = Newest::Due(0);
        }
    }

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

    /// The question is on its way under this ticket.
    pub fn asked(&mut self, ticket: u64, question: Question) {
        if let (Ask::Newest { .. }, Newest::Due(tries)) = (question.ask, self.newest) {
            self.newest = Newest::Asked(tries);
        }
        self.in_flight.insert(ticket, question);
    }

    /// The question came to nothing: it is open again.
    pub fn failed(&mut self, ticket: u64) {
        self.in_flight.remove(&ticket);
        if let Newest::Asked(tries) = self.newest
            && !self.in_flight.values().any(|q| matches!(q.ask, Ask::Newest { .. }))
        {
            self.newest = Newest::Due(tries);
        }
    }

    /// The answer is on disk.
    pub fn stored(&mut self, ticket: u64, stored: &Stored) -> Progress {
        let Some(question) = self.in_flight.remove(&ticket) else { return Progress::Moved };
        // A single row shows no grid.
        if stored.evidence.extent.is_some_and(|(oldest, newest)| oldest < newest) {
            self.grid = stored.grid;
        }
        let open_before = self.open_bars(question.target);
        let due_before = self.due_bars(question.target, stored.at);
        self.coverage.absorb(&stored.evidence, stored.at);
        self.note_unconfirmed(question.target, stored);
        if let Ask::Newest { until, .. } = question.ask {
            self.hear_newest(until, stored);
        }
        let below = matches!(question.ask, Ask::Below { .. });
        let unread = below && stored.evidence.extent.is_none() && stored.refused.is_some();
        let fruitful = open_before == 0 || self.open_bars(question.target) < open_before;
        if open_before == 0 {
            self.postpone(question.target, due_before, stored.at);
        } else if unread {
            self.doubts.remove(question.target);
            self.left_out.insert(question.target);
        } else if fruitful && below {
            // Rows begin again below: what is left of the range is asked for by whole pages.
            self.doubts.remove(question.target);
        } else if !fruitful && matches!(question.ask, Ask::Window { .. }) {
            // The page showed nothing of what it was asked for: what lies below will tell why.
            self.doubts.insert(question.target);
        }
        self.doubts = self.doubts.difference(self.coverage.spans());
        self.fruitless = if fruitful { 0 } else { self.fruitless + 1 };
        match self.fruitless {
            ..=FRUITLESS_MAX if unread => Progress::LeftOut,
            ..=FRUITLESS_MAX => Progress::Moved,
            _ => Progress::Stuck,
        }
    }

    /// Whether nothing is left to ask, now or soon.
    pub fn is_done(&self, now: Now) -> bool {
        self.in_flight.is_empty()
            && self.deadline(now).is_none()
            && CLASSES.iter().all(|&class| self.question(class, now).is_none())
    }

    /// When, by the exchange's clock, a bar without a confirm is to be looked at again. Absences
    /// that fall due later are left to a later command.
    pub fn deadline(&self, now: Now) -> Option<Millis> {
        let waiting = self.ended(now).filter(|bar| bar.looks < CONFIRM_AGAIN_MS.len());
        waiting.map(|bar| bar.due).min()
    }

    /// Counts the wanted bars by what is known of them.
    pub fn tally(&self, now: Now) -> Tally {
        let wanted = self.wanted_span(now);
        let mut tally = self.coverage.tally(self.grid, wanted);
        let waiting = self.unconfirmed.keys().filter(|&&ts| wanted.contains(ts));
        tally.unconfirmed = waiting.count() as i64;
        tally.missing -= tally.unconfirmed;
        tally
    }

    /// How many closed bars are stored, wanted or not.
    pub fn stored_bars(&self) -> i64 {
        self.coverage.with_rows().iter().map(|span| self.grid.count(span)).sum()
    }

    /// How many bars have ended and still wait for their confirm.
    pub fn unconfirmed(&self, now: Now) -> usize {
        self.ended(now).count()
    }

    /// The bars without a confirm, apart from one that still runs: a wrong clock may have taken it
    /// for one that had ended when the plan was made.
    fn ended(&self, now: Now) -> impl Iterator<Item = &Unconfirmed> {
        let bars = self.unconfirmed.iter();
        bars.filter(move |&(&ts, _)| self.grid.bar_at(ts).end <= now.exchange).map(|(_, bar)| bar)
    }

    fn wanted_span(&self, now: Now) -> Span {
        let ended = self.grid.floor(now.exchange - GRACE_MS);
        let closed_end = if self.closed_end == Millis::MIN { ended } else { self.closed_end };
        self.wanted.span(self.grid, now.exchange, closed_end)
    }

    fn ask_unconfirmed(&self, now: Now) -> Option<Question> {
        // What the newest page is about to show anyway needs no question of its own.
        let newest_shows = match self.ask_newest(now) {
            Some(newest) => self.grid.step(now.exchange, 2 - i64::from(newest.ask.limit())),
            None if self.is_fresh(now) => Millis::MAX,
            None => Millis::MIN,
        };
        let mut due = self.unconfirmed.iter().filter(|&(&ts, bar)| {
            bar.looks < CONFIRM_AGAIN_MS.len() && bar.due <= now.exchange && ts < newest_shows
        });
        let first = self.grid.bar_at(*due.next()?.0);
        let last = due.next_back().map_or(first, |(&ts, _)| self.grid.bar_at(ts));
        let end = last.end.min(self.grid.step(first.start, PAGE_ROWS));
        let target = Span::new(first.start, end);
        let under_way = self.in_flight.values().any(|q| !q.target.intersection(target).is_empty());
        (!under_way).then(|| self.window(target, target, now))
    }

    fn ask_newest(&self, now: Now) -> Option<Question> {
        if !matches!(self.newest, Newest::Due(_)) || !self.wants_newest(now) {
            return None;
        }
        let endpoint = if self.history_only { Endpoint::History } else { Endpoint::Candles };
        // History trails by about one bar, so it cannot tell that the last one is absent.
        let trail = if self.history_only { 2 * GRACE_MS } else { GRACE_MS };
        let until = self.grid.floor(now.exchange - trail);
        // No more than what is wanted, the running bar with it, and one that may open meanwhile.
        let wanted = self.wanted.span(self.grid, now.exchange, now.exchange);
        let limit = (self.grid.count(wanted) + 1).clamp(1, PAGE_ROWS) as u32;
        let ask = Ask::Newest { limit, until };
        Some(Question { endpoint, ask, target: Span::new(until, until) })
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

    fn class(&self, gap: Span) -> Class {
        match self.stored_from {
            Some(from) if gap.start >= from => Class::Repair,
            _ => Class::Backfill,
        }
    }

    /// An absence that is due to be looked at again.
    fn ask_empties_again(&self, now: Now) -> Option<Question> {
        let wanted = self.wanted_span(now);
        let due = self.coverage.empties().rev().find(|empty| {
            let postponed = self.postponed.get(&empty.span.start).copied();
            empty.next_ask.max(postponed.unwrap_or(Millis::MIN)) <= now.exchange
                && !empty.span.intersection(wanted).is_empty()
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

    fn window(&self, span: Span, target: Span, now: Now) -> Question {
        let newest = span.start >= self.grid.step(now.exchange, -CANDLES_REACH);
        let endpoint =
            if newest && !self.history_only { Endpoint::Candles } else { Endpoint::History };
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

    /// What is wanted and not covered, apart from bars that only wait for their confirm, and from
    /// those that cannot be read.
    fn missing(&self, now: Now) -> Spans {
        let mut missing = self.coverage.missing(self.wanted_span(now));
        for &ts in self.unconfirmed.keys() {
            missing.remove(self.grid.bar_at(ts));
        }
        missing.difference(&self.left_out)
    }

    /// The bars of a range of which nothing is known yet.
    fn open_bars(&self, span: Span) -> i64 {
        let mut open = self.coverage.missing(span);
        self.unconfirmed.keys().for_each(|&ts| open.remove(self.grid.bar_at(ts)));
        open.iter().map(|gap| self.grid.count(gap)).sum()
    }

    fn hear_newest(&mut self, until: Millis, stored: &Stored) {
        let Newest::Asked(tries) = self.newest else { return };
        let top = stored.evidence.vouched.last().map_or(until, |span| span.end.max(until));
        if stored.evidence.extent.is_none() && tries + 1 < NEWEST_TRIES {
            self.newest = Newest::Due(tries + 1);
        } else {
            self.newest = Newest::Heard;
            self.closed_end = self.closed_end.max(top);
        }
    }

    /// Remembers which ended bars still lack a confirm, and forgets those that have it.
    fn note_unconfirmed(&mut self, target: Span, stored: &Stored) {
        let (spans, grid, at) = (self.coverage.spans(), self.grid, stored.at);
        self.unconfirmed.retain(|&ts, _| !spans.covers(grid.bar_at(ts)));
        let seen = stored.evidence.unconfirmed.iter().copied();
        let seen = seen.filter(|&ts| grid.bar_at(ts).end <= at);
        let looked_for: Vec<Millis> =
            self.unconfirmed.keys().copied().filter(|&ts| target.contains(ts)).collect();
        for ts in seen.chain(looked_for) {
            let new = Unconfirmed { looks: 0, due: at + CONFIRM_AGAIN_MS[0] };
            let bar = self.unconfirmed.entry(ts).or_insert(new);
            if bar.due <= at {
                bar.looks += 1;
                bar.due = at + CONFIRM_AGAIN_MS.get(bar.looks).copied().unwrap_or(0);
            }
        }
    }

    /// An absence that was looked at and is due as before was not reached by its page. It waits, so
    /// that nothing is asked in circles.
    fn postpone(&mut self, target: Span, due_before: i64, at: Millis) {
        let due = self.due_bars(target, at);
        if due > 0 && due == due_before {
            self.postponed.insert(target.start, at + POSTPONE_MS);
        }
    }

    /// The bars of a range whose absence is due to be looked at again.
    fn due_bars(&self, span: Span, at: Millis) -> i64 {
        let due = self.coverage.empties().filter(|empty| empty.next_ask <= at);
        due.map(|empty| self.grid.count(empty.span.intersection(span))).sum()
    }
}

#[cfg(test)]
mod tests;
