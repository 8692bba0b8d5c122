//! The pages that a verification reads again, oldest first, and of which bars it knows all then.
//!
//! It asks until each bar of a page is settled: a page vouches only for the range from its oldest
//! to its newest row, so an answer that is short or empty is asked on. What the store says of
//! itself is not looked at.

use crate::bar::Grid;
use crate::okx::PAGE_ROWS_MAX;
use crate::page::{Ask, Page};
use crate::plan::{Question, endpoint_of};
use crate::span::{Span, Spans};
use crate::time::Now;
use crate::verification::Share;
use crate::wire::Endpoint;

/// Bars of a page.
pub(super) const PAGE_BARS: i64 = PAGE_ROWS_MAX as i64;
/// After so many answers in a row that settle nothing the rest of a page is left as it is.
const FRUITLESS_MAX: u32 = 6;
/// That nothing is older is believed when it was said so often in a row: it is what an exchange in
/// trouble says, too.
const VOID_SIGHTINGS: u32 = 3;

/// Ranges cut into pages from their oldest bars, and which of these are read.
#[derive(Clone, Debug)]
struct Pages {
    grid: Grid,
    spans: Spans,
    all: u64,
    picked: u64,
}

impl Pages {
    fn new(grid: Grid, spans: Spans, share: Share) -> Pages {
        let all = spans.iter().map(|span| pages_of(grid, span)).sum();
        Pages { grid, spans, all, picked: share.of(all) }
    }

    /// One of those that are read, by its place among them. They lie evenly: each in the middle of
    /// an equal part of all.
    fn get(&self, place: u64) -> Option<Span> {
        if place >= self.picked {
            return None;
        }
        let mut number = (2 * place + 1) * self.all / (2 * self.picked);
        for span in self.spans.iter() {
            let pages = pages_of(self.grid, span);
            if number < pages {
                let first = self.grid.ceil(span.start);
                let start = self.grid.step(first, number as i64 * PAGE_BARS);
                return Some(Span::new(start, self.grid.step(start, PAGE_BARS).min(span.end)));
            }
            number -= pages;
        }
        None
    }

    fn bars(&self) -> i64 {
        let bars = |place| self.get(place).map_or(0, |page| self.grid.count(page));
        match self.picked == self.all {
            true => self.spans.iter().map(|span| self.grid.count(span)).sum(),
            false => (0..self.picked).map(bars).sum(),
        }
    }
}

fn pages_of(grid: Grid, span: Span) -> u64 {
    (grid.count(span) as u64).div_ceil(PAGE_BARS as u64)
}

/// What an answer has settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Bars of which all is known: they are in the page, or the exchange has none.
    pub settled: Spans,
    /// Bars that the exchange has not closed.
    pub unconfirmed: Spans,
    /// Bars of which nothing can be learnt: their rows cannot be read, or answers contradict each
    /// other.
    pub unread: Spans,
}

/// The way through the pages.
#[derive(Clone, Debug)]
pub(super) struct Tour {
    grid: Grid,
    history_only: bool,
    pages: Pages,
    /// The place of the page under way; none before the first.
    at: Option<u64>,
    /// The bars that are not settled of the pages so far.
    open: Spans,
    /// Answers in a row that have settled nothing.
    fruitless: u32,
    /// Answers in a row that there is nothing older.
    sightings: u32,
    /// While the page under way lies before all history: a later one that does not, as far as is
    /// known. Between them history begins.
    search: Option<u64>,
}

impl Tour {
    pub fn new(grid: Grid, history_only: bool, spans: Spans, share: Share) -> Tour {
        Tour {
            grid,
            history_only,
            pages: Pages::new(grid, spans, share),
            at: None,
            open: Spans::new(),
            fruitless: 0,
            sightings: 0,
            search: None,
        }
    }

    /// Bars of all pages that are read.
    pub fn bars(&self) -> i64 {
        self.pages.bars()
    }

    /// Pages that are read, and those that there are.
    pub fn pages(&self) -> (u64, u64) {
        (self.pages.picked, self.pages.all)
    }

    /// What is asked next; nothing at the end. Each question is to be followed by its answer.
    pub fn next(&mut self, now: Now) -> Option<Question> {
        if self.open.is_empty() && !self.is_searching() {
            self.search = None;
            let at = self.at.map_or(0, |at| at + 1);
            let page = self.pages.get(at)?;
            (self.at, self.open, self.fruitless, self.sightings) = (Some(at), page.into(), 0, 0);
        }
        if let Some(middle) = self.middle().filter(|_| self.open.is_empty()) {
            let ask = Ask::Below { end: middle.end };
            return Some(Question { endpoint: Endpoint::History, ask, target: middle });
        }
        let target = self.window()?;
        let endpoint = endpoint_of(self.grid, target.start, self.history_only, now.exchange);
        let below = Ask::Below { end: target.end };
        Some(match self.fruitless {
            0 => Question { endpoint, ask: self.ask_window(target), target },
            // The page showed nothing of what it was asked for: what lies below will tell why.
            1 => Question { endpoint, ask: below, target },
            // `/candles` reaches back only so far: that it has nothing there proves nothing.
            _ => Question { endpoint: Endpoint::History, ask: below, target },
        })
    }

    /// Takes in the answer to a question.
    pub fn hear(&mut self, question: Question, page: &Page) -> Found {
        let evidence = page.evidence(self.grid);
        if self.open.is_empty() {
            return self.hear_search(evidence.before_history, !page.rows.is_empty());
        }
        if evidence.before_history {
            return self.hear_void(question);
        }
        let mut found = Found::default();
        for span in evidence.vouched.iter() {
            found.settled.extend(self.open.intersection(span).iter());
        }
        for &ts in &evidence.unconfirmed {
            let bar = self.grid.bar_at(ts);
            found.unconfirmed.extend(self.open.intersection(bar).iter());
        }
        self.settle(&mut found);
        found
    }

    /// Has bars read again that were settled by the last answer.
    pub fn reopen(&mut self, bars: &Spans) {
        self.open.extend(bars.iter());
        (self.fruitless, self.sightings) = (0, 0);
    }

    /// The first of the open bars, as many as a page holds, with all that lies between them.
    fn window(&self) -> Option<Span> {
        let (first, last) = (self.open.first()?, self.open.last()?);
        let end = last.end.min(self.grid.step(first.start, PAGE_BARS));
        Some(Span::new(first.start, end))
    }

    /// Where there is room, the neighbours are asked for, too: a page with both of them shows by
    /// itself what is not there between them.
    fn ask_window(&self, target: Span) -> Ask {
        let bars = self.grid.count(target);
        let mut span = target;
        if bars <= PAGE_BARS - 2 {
            let (below, above) = (self.grid.step(target.start, -1), self.grid.next(target.end));
            span = Span::new(below.max(0), above);
        }
        Ask::Window { span, limit: self.grid.count(span).clamp(1, PAGE_BARS) as u32 }
    }

    fn settle(&mut self, found: &mut Found) {
        if found.settled.is_empty() && found.unconfirmed.is_empty() {
            self.fruitless += 1;
            if self.fruitless >= FRUITLESS_MAX {
                found.unread = std::mem::take(&mut self.open);
            }
            return;
        }
        (self.fruitless, self.sightings) = (0, 0);
        self.open = self.open.difference(&found.settled).difference(&found.unconfirmed);
    }

    /// The exchange says that nothing is older than the end of the window.
    fn hear_void(&mut self, question: Question) -> Found {
        let mut found = Found::default();
        if question.endpoint == Endpoint::History {
            self.sightings += 1;
        }
        if self.sightings >= VOID_SIGHTINGS {
            found.settled = self.open.intersection(Span::new(0, question.target.end));
            let page = self.at.and_then(|at| self.pages.get(at));
            if self.search.is_none() && page.is_some_and(|page| found.settled.covers(page)) {
                // The last page is asked for as it is: history may just have begun.
                self.search = Some(self.pages.picked.saturating_sub(1));
            }
        }
        self.settle(&mut found);
        found
    }

    fn is_searching(&self) -> bool {
        self.middle().is_some()
    }

    /// A page between the last that is known to lie before history and the first that is not.
    fn middle(&self) -> Option<Span> {
        let (at, hi) = (self.at?, self.search?);
        let middle = at.midpoint(hi);
        if middle > at { self.pages.get(middle) } else { None }
    }

    /// The exchange says whether there is anything before the end of the middle page.
    fn hear_search(&mut self, nothing: bool, something: bool) -> Found {
        let mut found = Found::default();
        let (Some(at), Some(hi)) = (self.at, self.search) else { return found };
        let middle = at.midpoint(hi);
        if nothing {
            self.sightings += 1;
            if self.sightings >= VOID_SIGHTINGS {
                let void = (at + 1..=middle).filter_map(|place| self.pages.get(place));
                found.settled.extend(void);
                (self.at, self.sightings, self.fruitless) = (Some(middle), 0, 0);
            }
        } else if something {
            (self.search, self.sightings, self.fruitless) = (Some(middle), 0, 0);
        } else {
            self.fruitless += 1;
            if self.fruitless >= FRUITLESS_MAX {
                self.search = None;
            }
        }
        found
    }
}
