//! Reading closed bars once more from the exchange and comparing them with what is stored.
//!
//! A [`Verification`] says which page to ask for next and which stored bars to read, and compares
//! the two. It knows nothing of spans and ledger: whatever the store says of itself, each bar of
//! the range is asked for and looked at. A difference counts only when it was seen twice, so that a
//! bar which a daemon revises in that moment is no false alarm; what is missing needs no second
//! page, because the row that was served is its own witness.

mod share;
mod tour;

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::bar::Grid;
use crate::candle::Candle;
use crate::page::Page;
use crate::plan::Question;
use crate::span::{Span, Spans};
use crate::time::{Millis, Now};
use crate::verification::tour::{PAGE_BARS, Tour};

pub use share::{Share, ShareError};

/// Differences of one kind that are kept with their values or ranges. All are counted.
pub const DETAILS_MAX: usize = 10_000;

/// What is verified.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Where the bars of the series open.
    pub grid: Grid,
    /// Whether `/candles` refuses this bar.
    pub history_only: bool,
    /// The ranges of open times; all of their bars have ended.
    pub spans: Spans,
    /// How much of them.
    pub share: Share,
    /// A bar that ended later than this may be on its way into the store still.
    pub due: Millis,
}

/// Numbers of bars, by what came of them. Together they are the bars of all pages that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Closed on both sides, with the same values.
    pub equal: i64,
    /// The exchange has it, the store has not, or not closed.
    pub missing: i64,
    /// Closed on both sides, with other values.
    pub different: i64,
    /// The store has it, the exchange has not.
    pub foreign: i64,
    /// Those of them that lie off the grid.
    pub off_grid: i64,
    /// Closed on neither side: there is no such bar.
    pub absent: i64,
    /// Not closed by the exchange yet.
    pub unconfirmed: i64,
    /// Not in the store, and not due there yet.
    pub fresh: i64,
    /// The exchange's answers cannot be read, or contradict each other.
    pub unread: i64,
}

impl Tally {
    /// Bars that were compared: one side has them at least, and it is known what the other has.
    pub fn compared(&self) -> i64 {
        self.equal + self.differing()
    }

    /// Bars that differ.
    pub fn differing(&self) -> i64 {
        self.missing + self.different + self.foreign
    }

    /// Bars that fetching can heal. What only the store has, where a bar opens, the exchange may
    /// have had.
    pub fn curable(&self) -> i64 {
        self.missing + self.different + self.off_grid
    }

    /// Bars of which it is known what came of them.
    pub fn settled(&self) -> i64 {
        self.compared() + self.absent + self.unconfirmed + self.fresh + self.unread
    }
}

/// A closed bar that has other values in the store than on the exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Different {
    /// What is stored.
    pub stored: Candle,
    /// What the exchange serves.
    pub exchange: Candle,
}

/// A verification under way.
#[derive(Clone, Debug)]
pub struct Verification {
    grid: Grid,
    due: Millis,
    /// Where the ranges end.
    end: Millis,
    tour: Tour,
    planned: i64,
    tally: Tally,
    missing: Spans,
    foreign: Spans,
    different: Vec<Different>,
    /// Bars whose difference was seen once.
    doubted: Spans,
    /// Ranges whose bars could be fetched again with profit; those less than a page apart are one.
    sick: Spans,
}

impl Verification {
    /// The beginning.
    pub fn new(scope: Scope) -> Verification {
        let Scope { grid, history_only, spans, share, due } = scope;
        let end = spans.last().map_or(0, |last| last.end);
        let tour = Tour::new(grid, history_only, spans, share);
        Verification {
            grid,
            due,
            end,
            planned: tour.bars(),
            tour,
            tally: Tally::default(),
            missing: Spans::new(),
            foreign: Spans::new(),
            different: Vec::new(),
            doubted: Spans::new(),
            sick: Spans::new(),
        }
    }

    /// What is asked next; nothing at the end. Each question is to be followed by its answer, and
    /// by the comparison of all that the answer settles.
    pub fn next(&mut self, now: Now) -> Option<Question> {
        self.tour.next(now)
    }

    /// Takes in the answer to a question. Gives the ranges, none longer than a page, whose stored
    /// bars are to be compared with it.
    pub fn hear(&mut self, question: Question, page: &Page) -> Vec<Span> {
        let found = self.tour.hear(question, page);
        self.tally.unconfirmed += self.count(&found.unconfirmed);
        self.tally.unread += self.count(&found.unread);
        // Whatever was doubted of these bars: nothing can be said about them.
        self.doubted = self.doubted.difference(&found.unconfirmed).difference(&found.unread);
        let mut pieces = Vec::new();
        for span in found.settled.iter() {
            let mut start = span.start;
            while start < span.end {
                let end = self.grid.step(self.grid.ceil(start), PAGE_BARS).min(span.end);
                pieces.push(Span::new(start, end));
                start = end;
            }
        }
        pieces
    }

    /// Compares the rows of an answer with the stored ones, closed or not, both oldest first, in a
    /// range that the answer has settled.
    pub fn compare(&mut self, span: Span, answered: &[Candle], stored: &[Candle]) {
        // What is not closed makes no claim.
        let closed = |row: &&Candle| row.confirmed && span.contains(row.ts);
        let answered = answered.iter().filter(closed).peekable();
        let stored = stored.iter().filter(closed).peekable();
        let (mut existing, mut doubtful) = (0, Spans::new());
        for pair in (Pairs { answered, stored }) {
            let ts = pair.ts();
            let bar = self.grid.bar_at(ts);
            let on_grid = self.grid.opens_at(ts);
            existing += i64::from(on_grid);
            // Two looks at a bar off the grid would be two at its neighbours as well.
            let was_doubted = !on_grid || self.doubted.around(ts).is_some();
            match pair {
                Pair::Both(exchange, stored) if exchange.values() == stored.values() => {
                    self.tally.equal += 1;
                }
                Pair::Answered(_) => self.miss(bar),
                _ if !was_doubted => doubtful.insert(bar),
                Pair::Both(&exchange, &stored) => self.differ(bar, Different { stored, exchange }),
                Pair::Stored(_) => self.find_foreign(bar),
            }
        }
        self.tally.absent += self.grid.count(span) - existing;
        self.doubted.remove(span);
        self.doubted.extend(doubtful.iter());
        self.tour.reopen(&doubtful);
    }

    /// Bars of all pages that are read.
    pub fn planned(&self) -> i64 {
        self.planned
    }

    /// Pages that are read, and those that the ranges have.
    pub fn pages(&self) -> (u64, u64) {
        self.tour.pages()
    }

    /// What came of the bars so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The ranges that are missing in the store, the first [`DETAILS_MAX`] of them.
    pub fn missing(&self) -> &Spans {
        &self.missing
    }

    /// The ranges that only the store has, the first [`DETAILS_MAX`] of them.
    pub fn foreign(&self) -> &Spans {
        &self.foreign
    }

    /// The bars with other values, the first [`DETAILS_MAX`] of them.
    pub fn different(&self) -> &[Different] {
        &self.different
    }

    /// The ranges that hold all bars which fetching can heal, at most so many.
    pub fn curable(&self, ranges_max: usize) -> Spans {
        let (mut ranges, mut apart) = (self.sick.clone(), PAGE_BARS);
        while ranges.len() > ranges_max.max(1) {
            apart *= 2;
            let mut joined = Spans::new();
            ranges.iter().for_each(|range| join(&mut joined, range, self.grid, apart));
            ranges = joined;
        }
        ranges
    }

    fn miss(&mut self, bar: Span) {
        if bar.end > self.due {
            self.tally.fresh += 1;
            return;
        }
        self.tally.missing += 1;
        keep(&mut self.missing, bar);
        join(&mut self.sick, bar, self.grid, PAGE_BARS);
    }

    fn differ(&mut self, bar: Span, different: Different) {
        self.tally.different += 1;
        if self.different.len() < DETAILS_MAX {
            self.different.push(different);
        }
        join(&mut self.sick, bar, self.grid, PAGE_BARS);
    }

    /// What lies on the grid may have existed once, so there is nothing to heal. What does not is
    /// moved away by whoever stores the page that has its neighbours.
    fn find_foreign(&mut self, bar: Span) {
        self.tally.foreign += 1;
        keep(&mut self.foreign, bar);
        if !self.grid.opens_at(bar.start) {
            self.tally.off_grid += 1;
            // A page with the bars before and after it shows that there is nothing between them.
            let start = self.grid.floor(bar.start);
            let around = Span::new(start, self.grid.step(start, 2).min(self.end));
            join(&mut self.sick, around, self.grid, PAGE_BARS);
        }
    }

    fn count(&self, spans: &Spans) -> i64 {
        spans.iter().map(|span| self.grid.count(span)).sum()
    }
}

/// Adds a bar to ranges of which only so many are kept.
fn keep(ranges: &mut Spans, bar: Span) {
    let grows = ranges.last().is_some_and(|last| last.end == bar.start);
    if grows || ranges.len() < DETAILS_MAX {
        ranges.insert(bar);
    }
}

/// Adds a range, and what lies between it and the last one if that is less than so many bars.
fn join(ranges: &mut Spans, range: Span, grid: Grid, apart: i64) {
    let near = |last: &Span| grid.count(Span::new(last.end, range.start)) < apart;
    let start = ranges.last().filter(near).map_or(range.start, |last| last.end.min(range.start));
    ranges.insert(Span::new(start, range.end));
}

/// What the two sides have of a bar.
#[derive(Clone, Copy, Debug)]
enum Pair<'a> {
    Both(&'a Candle, &'a Candle),
    Answered(&'a Candle),
    Stored(&'a Candle),
}

impl Pair<'_> {
    fn ts(&self) -> Millis {
        match self {
            Pair::Both(row, _) | Pair::Answered(row) | Pair::Stored(row) => row.ts,
        }
    }
}

/// The rows of both sides, oldest first, those of one bar together.
struct Pairs<A: Iterator, S: Iterator> {
    answered: Peekable<A>,
    stored: Peekable<S>,
}

impl<'a, A, S> Iterator for Pairs<A, S>
where
    A: Iterator<Item = &'a Candle>,
    S: Iterator<Item = &'a Candle>,
{
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        let answered = self.answered.peek().map_or(Millis::MAX, |row| row.ts);
        let stored = self.stored.peek().map_or(Millis::MAX, |row| row.ts);
        match answered.cmp(&stored) {
            Ordering::Less => self.answered.next().map(Pair::Answered),
            Ordering::Greater => self.stored.next().map(Pair::Stored),
            Ordering::Equal => {
                let (answered, stored) = (self.answered.next()?, self.stored.next()?);
                Some(Pair::Both(answered, stored))
            }
        }
    }
}

#[cfg(test)]
mod tests;
