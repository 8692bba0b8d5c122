//! The plan of one series: what to ask next, so that in the end nothing that is wanted is missing.
//!
//! There is one mechanism for the first sync, catch-up, repair and back-fill: what is missing is
//! what is wanted less what is covered, and pages are asked for what is missing. Nothing else is
//! remembered, so a killed process resumes by itself. Only a receipt of the writer moves a plan.

mod question;
mod waiting;

use std::collections::BTreeMap;

use crate::bar::Grid;
use crate::coverage::{Coverage, Tally};
use crate::okx::PAGE_ROWS_MAX;
use crate::page::{Ask, Stored};
use crate::plan::waiting::Waiting;
use crate::span::{Span, Spans};
use crate::time::{DAY, MINUTE, Millis, Now, SECOND};
use crate::wire::Endpoint;

pub(crate) use question::endpoint_of;

/// Rows in a page at the most.
const PAGE_ROWS: i64 = PAGE_ROWS_MAX as i64;
/// Pages of a series that may be under way together: enough to use the permitted rate across the
/// distance to the exchange, few enough that a killed process repeats little.
pub const IN_FLIGHT_MAX: usize = 4;
/// `/history-candles` has a bar only when so many newer ones have opened.
const HISTORY_TRAIL: i64 = 3;
/// A bar that ended less than this ago may not have shown up yet.
const GRACE_MS: Millis = 10 * SECOND;
/// Bars that ended together without a confirm, beyond which the stream owes nothing any more: they
/// are simply missing.
const OWED_MAX: i64 = 10;
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

/// Which bars are to be made complete.
///
/// ```
/// use okx_local_store::{Span, Wanted, parse_time};
///
/// let may = Span::new(parse_time("2024-05-01")?, parse_time("2024-06-01")?);
/// assert_ne!(Wanted::Range(may), Wanted::Days(31), "days are counted back from now");
/// # Ok::<(), okx_local_store::TimeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// So many days back from now.
    Days(u32),
    /// A range of open times.
    Range(Span),
}

impl Wanted {
    /// The one range in which all of these lie.
    pub(crate) fn hull(spans: &Spans) -> Wanted {
        let ends = spans.first().zip(spans.last());
        Wanted::Range(ends.map_or(Span::new(0, 0), |(a, b)| Span::new(a.start, b.end)))
    }

    /// The range of bars, given where the newest closed bar ends.
    pub(crate) fn span(self, grid: Grid, now: Millis, closed_end: Millis) -> Span {
        match self {
            Wanted::Days(days) => {
                let start = grid.floor((now - Millis::from(days) * DAY).max(0));
                Span::new(start, closed_end)
            }
            // The exchange knows no time before the epoch.
            Wanted::Range(span) => {
                Span::new(grid.ceil(span.start.max(0)), span.end.min(closed_end))
            }
        }
    }
}

/// How the newest bars come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// By the newest page: bars are wanted up to where the last one ended.
    Poll,
    /// By the stream: bars are wanted as they end, and one whose confirm stays out is looked for.
    Stream,
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
    /// So many empty answers came before; asked under which ticket, and when.
    Asked {
        tries: u32,
        ticket: u64,
        at: Millis,
    },
    Heard,
}

/// The plan of one series.
#[derive(Debug)]
pub struct Plan {
    grid: Grid,
    wanted: Wanted,
    /// What commands want beside it, by their number.
    demands: BTreeMap<u64, Wanted>,
    pace: Pace,
    /// Older bars wait until they are released.
    held_below: Option<Millis>,
    /// Whether `/candles` has this bar at all.
    history_only: bool,
    coverage: Coverage,
    /// Where stored history began when the plan was made: gaps above it are repairs.
    stored_from: Option<Millis>,
    newest: Newest,
    /// When the newest page that was heard last had been asked for, local time: the exchange's may
    /// step back when it is learnt.
    newest_asked_at: Millis,
    /// Where the newest closed bar ends, as of the newest page or of the stream.
    closed_end: Millis,
    /// Bars that have ended without a confirm.
    waiting: Waiting,
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
        Plan {
            grid,
            wanted,
            demands: BTreeMap::new(),
            pace: Pace::Poll,
            held_below: None,
            history_only,
            stored_from: coverage.history_start(),
            coverage,
            newest: Newest::Due(0),
            newest_asked_at: Millis::MIN,
            closed_end: Millis::MIN,
            waiting: Waiting::new(grid, unconfirmed),
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

    /// How the newest bars come from now on.
    pub fn follow(&mut self, pace: Pace, now: Now) {
        self.pace = pace;
        let ended = self.grid.floor(now.exchange);
        let known = Span::new(self.closed_end, ended);
        let needless = matches!(self.newest, Newest::Due(_)) && self.closed_end > Millis::MIN;
        if pace == Pace::Stream && needless && self.coverage.missing(known).is_empty() {
            // The stream came back before a bar was lost: there is nothing to ask for.
            self.newest = Newest::Heard;
            self.closed_end = self.closed_end.max(ended);
        }
    }

    /// Leaves everything alone that is older than what is stored, until it is released.
    pub fn hold_history(&mut self) {
        let head = self.coverage.spans().last().map(|span| span.end);
        self.held_below = Some(head.unwrap_or(Millis::MAX));
    }

    /// Goes for old history, too.
    pub fn release_history(&mut self) {
        self.held_below = None;
    }

    /// A command wants these bars, until it is over. What was left for later is tried at once.
    pub fn demand(&mut self, number: u64, wanted: Wanted) {
        self.demands.insert(number, wanted);
        self.left_out = Spans::new();
        self.postponed.clear();
        self.fruitless = 0;
        self.refresh();
    }

    /// The command of this number is over.
    pub fn dismiss(&mut self, number: u64) {
        self.demands.remove(&number);
    }

    /// Another length of history is wanted.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// Where the stored bars end: the end of the newest span, or of the newest page where nothing
    /// has closed yet.
    pub fn head(&self) -> Option<Millis> {
        let heard = (self.newest == Newest::Heard).then_some(self.closed_end);
        self.coverage.spans().last().map(|span| span.end).or(heard)
    }

    /// When the newest page had been asked for that was heard last, in local time.
    pub fn newest_asked_at(&self) -> Millis {
        self.newest_asked_at
    }

    /// Bars that the stream has pushed are on disk; tells whether it left bars out before them.
    pub fn pushed(&mut self, stored: &Stored) -> bool {
        let Some(first) = stored.evidence.vouched.first() else { return false };
        let skipped = self.coverage.spans().last().is_some_and(|span| span.end < first.start);
        self.coverage.absorb(&stored.evidence, stored.at);
        self.waiting.forget(self.coverage.spans(), self.grid);
        for span in stored.evidence.vouched.iter() {
            if span.start <= self.closed_end {
                self.closed_end = self.closed_end.max(span.end);
            }
        }
        skipped
    }

    /// Rows turned out not to be stored: they are missing again.
    pub fn uncover(&mut self, lost: &Spans) {
        lost.iter().for_each(|span| self.coverage.uncover(span));
    }

    /// Time has passed: with the stream, bars have ended whose confirm it owes. To be called before
    /// questions are asked for.
    pub fn advance(&mut self, now: Now) {
        let ended = self.grid.floor(now.exchange - GRACE_MS);
        let owed = Span::new(self.closed_end, ended);
        if self.pace != Pace::Stream || self.closed_end == Millis::MIN || owed.is_empty() {
            return;
        }
        if self.grid.count(owed) <= OWED_MAX {
            for gap in self.coverage.missing(owed).iter() {
                let mut ts = gap.start;
                while ts < gap.end {
                    self.waiting.expect(ts, self.grid.bar_at(ts).end + GRACE_MS);
                    ts = self.grid.next(ts);
                }
            }
        }
        self.closed_end = ended;
    }

    /// The question is on its way under this ticket.
    pub fn asked(&mut self, ticket: u64, question: Question, now: Now) {
        if let (Ask::Newest { .. }, Newest::Due(tries)) = (question.ask, self.newest) {
            self.newest = Newest::Asked { tries, ticket, at: now.local };
        }
        self.in_flight.insert(ticket, question);
    }

    /// The question came to nothing: it is open again.
    pub fn failed(&mut self, ticket: u64) {
        self.in_flight.remove(&ticket);
        if let Newest::Asked { tries, ticket: asked, .. } = self.newest
            && asked == ticket
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
        self.waiting.note(
            self.coverage.spans(),
            self.grid,
            self.pace,
            stored.at,
            stored.evidence.unconfirmed.iter().copied(),
            |ts| question.target.contains(ts),
        );
        let looked_at = match (question.ask, stored.evidence.extent) {
            (Ask::Window { .. }, _) => question.target,
            // The newest page tells of all bars above its oldest row. Those below it do not wait
            // for a confirm, as far as is known: what they are is asked for by itself.
            (Ask::Newest { .. }, extent) => {
                let reach = extent.map_or(Millis::MAX, |(oldest, _)| oldest);
                question.target.intersection(Span::new(0, reach))
            }
            _ => Span::new(0, 0),
        };
        let rows = &stored.evidence.unconfirmed;
        self.waiting.give_up(self.grid, looked_at, rows, stored.at - GRACE_MS);
        if let Ask::Newest { until, .. } = question.ask {
            self.hear_newest(ticket, until, stored);
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
            _ => {
                self.fruitless = 0;
                Progress::Stuck
            }
        }
    }

    /// Whether nothing is left to ask, now or soon. Absences that fall due later are left to a
    /// later command, a confirm that stays out for long is too.
    pub fn is_done(&self, now: Now) -> bool {
        self.in_flight.is_empty()
            && self.deadline(now).is_none()
            && CLASSES[1..].iter().all(|&class| self.question(class, now).is_none())
    }

    /// When, by the exchange's clock, a bar without a confirm is to be looked at again.
    pub fn deadline(&self, now: Now) -> Option<Millis> {
        self.waiting.deadline(self.grid, Pace::Poll, Some(now))
    }

    /// When, by the exchange's clock, time alone may give it a question that it has not now.
    pub fn wakes_at(&self, now: Now) -> Option<Millis> {
        let waiting = self.waiting.deadline(self.grid, self.pace, None);
        let ended = self.grid.next(self.grid.floor(now.exchange - GRACE_MS)) + GRACE_MS;
        let ended = (self.pace == Pace::Stream).then_some(ended);
        let wanted = self.wanted(now);
        let empties = self.coverage.empties().filter(|empty| wanted.touches(empty.span));
        let again = empties.map(|empty| self.look_again_at(empty)).filter(|&at| at > now.exchange);
        let due = again.chain(waiting.filter(|&at| at > now.exchange)).chain(ended);
        due.min()
    }

    /// Counts the wanted bars by what is known of them.
    pub fn tally(&self, now: Now) -> Tally {
        self.tally_of(self.span_of(self.wanted, now))
    }

    /// The same for the bars that a command wants.
    pub fn tally_for(&self, number: u64, now: Now) -> Tally {
        let wanted = self.demands.get(&number).copied().unwrap_or(self.wanted);
        self.tally_of(self.span_of(wanted, now))
    }

    fn tally_of(&self, wanted: Span) -> Tally {
        let mut tally = self.coverage.tally(self.grid, wanted);
        let waiting = self.waiting.times().filter(|&ts| wanted.contains(ts));
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
        self.waiting.ended(self.grid, now)
    }

    fn span_of(&self, wanted: Wanted, now: Now) -> Span {
        let ended = self.grid.floor(now.exchange - GRACE_MS);
        let closed_end = if self.closed_end == Millis::MIN { ended } else { self.closed_end };
        wanted.span(self.grid, now.exchange, closed_end)
    }

    /// All that is wanted now, by the configuration and by commands.
    fn wanted(&self, now: Now) -> Spans {
        let mut wanted = Spans::from(self.span_of(self.wanted, now));
        if let Some(below) = self.held_below {
            wanted.remove(Span::new(0, below));
        }
        wanted.extend(self.demands.values().map(|&demand| self.span_of(demand, now)));
        wanted
    }

    /// What is wanted and not covered, apart from bars that only wait for their confirm, and from
    /// those that cannot be read.
    fn missing(&self, now: Now) -> Spans {
        let mut missing = self.wanted(now).difference(self.coverage.spans());
        self.waiting.times().for_each(|ts| missing.remove(self.grid.bar_at(ts)));
        missing.difference(&self.left_out)
    }

    /// The bars of a range of which nothing is known yet.
    fn open_bars(&self, span: Span) -> i64 {
        let mut open = self.coverage.missing(span);
        self.waiting.times().for_each(|ts| open.remove(self.grid.bar_at(ts)));
        open.iter().map(|gap| self.grid.count(gap)).sum()
    }

    fn hear_newest(&mut self, ticket: u64, until: Millis, stored: &Stored) {
        let Newest::Asked { tries, ticket: asked, at } = self.newest else { return };
        if asked != ticket {
            return;
        }
        let top = stored.evidence.vouched.last().map_or(until, |span| span.end.max(until));
        if stored.evidence.extent.is_none() && tries + 1 < NEWEST_TRIES {
            self.newest = Newest::Due(tries + 1);
        } else {
            self.newest = Newest::Heard;
            self.newest_asked_at = at;
            self.closed_end = self.closed_end.max(top);
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
