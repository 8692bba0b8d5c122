//! The commit policy: which file is due when, and with what.
//!
//! Pages and closed bars are due at once, in the order in which they came. Running bars are due a
//! moment after the first of them came, then at most once in an interval for each file, so that
//! bursts merge and the disk is spared. Whatever waits for a file rides along with what is due.
//!
//! **Invariant:** a page or a closed bar that was put in comes out, once, unless its file is
//! removed. Of a running bar only the state that wins comes out, so no burst takes more room than
//! the bars it is about.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::bar::Bar;
use crate::candle::{Candle, Source, State, Verdict};
use crate::instrument::{Instrument, Series};
use crate::page::{Page, Refused};
use crate::time::{Millis, SECOND};

/// Rows of one transaction at the most: more would keep a receipt waiting.
const ROWS_MAX: usize = 3_000;
/// How long the first running bar waits for others: those of one instrument come together.
const SETTLE_MS: Millis = 5;
/// The pause after a commit that failed; it doubles with each further failure.
const PAUSE_MS: Millis = SECOND;

/// What waits for its commit, of all files.
///
/// A page comes as whatever the shell likes, `P`: the queue does not look into it. Times are local.
#[derive(Debug)]
pub struct Queue<P> {
    interval_ms: Millis,
    files: BTreeMap<Instrument, Waiting<P>>,
    /// What is due when, the most urgent first. Each file that has something waiting is here once.
    dues: BTreeSet<(Due, Instrument)>,
    /// Pages and pushes that came so far.
    orders: u64,
    rows: usize,
}

/// What waits for the commit of one file.
#[derive(Debug)]
struct Waiting<P> {
    pages: VecDeque<Paged<P>>,
    pushes: BTreeMap<Bar, Heard>,
    committed_at: Option<Millis>,
    failing: Option<Failing>,
    due: Option<Due>,
}

#[derive(Debug)]
struct Paged<P> {
    order: u64,
    rows: usize,
    page: P,
}

/// When a file is due. What is due at once goes before what has a time, however long that is past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Since the page or push with this number came.
    AtOnce(u64),
    /// From this time on.
    At(Millis),
}

/// Since when the commits of a file fail, how often they did, and until when it is left alone.
#[derive(Clone, Copy, Debug)]
struct Failing {
    since: Millis,
    /// The last time.
    at: Millis,
    /// Since when it was the only one.
    alone_since: Option<Millis>,
    times: u32,
    until: Millis,
}

/// What the stream has told of one series since the last commit.
#[derive(Debug)]
pub struct Heard {
    /// The bar of the series.
    pub bar: Bar,
    /// How many states of bars these were before they merged.
    pub states: u32,
    /// When the last of it was heard, by the exchange's clock.
    pub at: Millis,
    closed: Vec<Candle>,
    running: BTreeMap<Millis, State>,
    refused: Vec<Refused>,
    /// When the first of it arrived, and the first closed bar.
    arrived: Millis,
    closed_arrived: Option<Millis>,
    /// The number of the push with the first closed bar.
    order: Option<u64>,
}

/// What is to be committed to one file now.
#[derive(Debug)]
pub struct Work<P> {
    /// Whose file it is.
    pub instrument: Instrument,
    /// What was pushed, series by series.
    pub pushes: Vec<Heard>,
    pages: Vec<Paged<P>>,
    failing: Option<Failing>,
}

impl<P> Queue<P> {
    /// An empty queue. Running bars alone are due once in `interval_ms` for each file.
    pub fn new(interval_ms: Millis) -> Queue<P> {
        let (files, dues) = (BTreeMap::new(), BTreeSet::new());
        Queue { interval_ms, files, dues, orders: 0, rows: 0 }
    }

    /// The rows that wait. An empty page counts as one, and so does a refused row.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.dues.is_empty()
    }

    /// Puts in a page with that many rows.
    pub fn store(&mut self, instrument: &Instrument, rows: usize, page: P) {
        self.orders += 1;
        let paged = Paged { order: self.orders, rows: rows.max(1), page };
        self.rows += paged.rows;
        self.file(instrument).pages.push_back(paged);
        self.schedule(instrument);
    }

    /// Puts in states of bars that were pushed. They arrived at that local time, which was `at` by
    /// the exchange's clock.
    pub fn push(
        &mut self,
        series: &Series,
        rows: Vec<Candle>,
        refused: Vec<Refused>,
        arrived: Millis,
        at: Millis,
    ) {
        if rows.is_empty() && refused.is_empty() {
            return;
        }
        self.orders += 1;
        let order = self.orders;
        let pushes = &mut self.file(&series.instrument).pushes;
        let heard = pushes.entry(series.bar).or_insert_with(|| Heard::new(series.bar, arrived, at));
        let before = heard.rows();
        heard.hear(rows, refused, order, arrived, at);
        let after = heard.rows();
        self.rows += after - before;
        self.schedule(&series.instrument);
    }

    /// Takes out what is due the most, if anything is.
    pub fn next(&mut self, now: Millis) -> Option<Work<P>> {
        let (due, instrument) = self.dues.first()?;
        if matches!(due, Due::At(at) if *at > now) {
            return None;
        }
        let instrument = instrument.clone();
        self.take(&instrument, now)
    }

    /// Takes out what is due first, even if its time has not come.
    pub fn any(&mut self, now: Millis) -> Option<Work<P>> {
        let (_, instrument) = self.dues.first()?;
        let instrument = instrument.clone();
        self.take(&instrument, now)
    }

    /// When [`Queue::next`] has something, unless more comes: now, if that is in the past.
    pub fn deadline(&self) -> Option<Millis> {
        self.dues.first().map(|(due, _)| match due {
            Due::AtOnce(_) => Millis::MIN,
            Due::At(at) => *at,
        })
    }

    /// Takes out what waits for one file, due or not.
    pub fn take(&mut self, instrument: &Instrument, now: Millis) -> Option<Work<P>> {
        let waiting = self.files.get_mut(instrument)?;
        waiting.due?;
        let pushes: Vec<Heard> = std::mem::take(&mut waiting.pushes).into_values().collect();
        let mut rows: usize = pushes.iter().map(Heard::rows).sum();
        let mut pages = Vec::new();
        let fits = |page: &Paged<P>, rows| rows == 0 || rows + page.rows <= ROWS_MAX;
        while waiting.pages.front().is_some_and(|page| fits(page, rows)) {
            let page = waiting.pages.pop_front().expect("because there is a first one");
            rows += page.rows;
            pages.push(page);
        }
        let failing = waiting.failing.take();
        waiting.committed_at = Some(now);
        self.rows -= rows;
        self.schedule(instrument);
        Some(Work { instrument: instrument.clone(), pushes, pages, failing })
    }

    /// Puts back what could not be committed, before all that came since. The file is left alone
    /// for a second, the next time for two, up to `pause_max_ms`.
    pub fn put_back(&mut self, now: Millis, work: Work<P>, pause_max_ms: Millis) {
        self.rows += work.rows();
        let failing = work.failing;
        let (since, times) = failing.map_or((now, 0), |failing| (failing.since, failing.times));
        let alone_since = failing.and_then(|failing| failing.alone_since);
        let pause_ms = (PAUSE_MS << times.min(10)).min(pause_max_ms);
        let waiting = self.file(&work.instrument);
        work.pages.into_iter().rev().for_each(|page| waiting.pages.push_front(page));
        let mut merged = 0;
        for mut heard in work.pushes {
            if let Some(later) = waiting.pushes.remove(&heard.bar) {
                let apart = heard.rows() + later.rows();
                heard.append(later);
                merged += apart - heard.rows();
            }
            waiting.pushes.insert(heard.bar, heard);
        }
        let (times, until) = (times + 1, now + pause_ms);
        waiting.failing = Some(Failing { since, at: now, alone_since, times, until });
        self.rows -= merged;
        self.schedule(&work.instrument);
    }

    /// Takes out all that waits for a file that is to be no more, and forgets the file.
    pub fn remove(&mut self, instrument: &Instrument) -> Option<Work<P>> {
        let waiting = self.files.remove(instrument)?;
        self.dues.remove(&(waiting.due?, instrument.clone()));
        let work = Work {
            instrument: instrument.clone(),
            pushes: waiting.pushes.into_values().collect(),
            pages: waiting.pages.into(),
            failing: waiting.failing,
        };
        self.rows -= work.rows();
        Some(work)
    }

    fn file(&mut self, instrument: &Instrument) -> &mut Waiting<P> {
        // Cloned only for a new file: this is asked for every push.
        if !self.files.contains_key(instrument) {
            self.files.insert(instrument.clone(), Waiting::default());
        }
        self.files.get_mut(instrument).expect("because it was put there a line ago")
    }

    /// Brings the order of the files up to what waits for one of them now.
    fn schedule(&mut self, instrument: &Instrument) {
        let interval_ms = self.interval_ms;
        let waiting = self.file(instrument);
        let (old, new) = (waiting.due, waiting.due(interval_ms));
        if old == new {
            return;
        }
        waiting.due = new;
        if let Some(old) = old {
            self.dues.remove(&(old, instrument.clone()));
        }
        self.dues.extend(new.map(|new| (new, instrument.clone())));
    }
}

impl<P> Default for Waiting<P> {
    fn default() -> Waiting<P> {
        Waiting {
            pages: VecDeque::new(),
            pushes: BTreeMap::new(),
            committed_at: None,
            failing: None,
            due: None,
        }
    }
}

impl<P> Waiting<P> {
    /// When it is due, if anything waits.
    fn due(&self, interval_ms: Millis) -> Option<Due> {
        let pages = self.pages.front().map(|page| page.order);
        let closed = self.pushes.values().filter_map(|heard| heard.order);
        let first = pages.into_iter().chain(closed).min();
        let arrived = self.pushes.values().map(|heard| heard.arrived).min();
        match (self.failing, first, arrived) {
            (_, None, None) => None,
            (Some(failing), _, _) => Some(Due::At(failing.until)),
            (None, Some(order), _) => Some(Due::AtOnce(order)),
            (None, None, Some(arrived)) => {
                let again = self.committed_at.map_or(Millis::MIN, |at| at + interval_ms);
                Some(Due::At(again.max(arrived + SETTLE_MS)))
            }
        }
    }
}

impl Heard {
    fn new(bar: Bar, arrived: Millis, at: Millis) -> Heard {
        Heard {
            bar,
            states: 0,
            at,
            closed: Vec::new(),
            running: BTreeMap::new(),
            refused: Vec::new(),
            arrived,
            closed_arrived: None,
            order: None,
        }
    }

    fn hear(
        &mut self,
        rows: Vec<Candle>,
        refused: Vec<Refused>,
        order: u64,
        arrived: Millis,
        at: Millis,
    ) {
        self.at = self.at.max(at);
        self.arrived = self.arrived.min(arrived);
        self.states = self.states.saturating_add(rows.len() as u32);
        for candle in rows {
            if candle.confirmed {
                self.order.get_or_insert(order);
                self.closed_arrived.get_or_insert(arrived);
                self.closed.push(candle);
            } else {
                self.merge(State { candle, source: Source::Stream, updated_at: at });
            }
        }
        self.refused.extend(refused);
    }

    /// Takes in what came after it.
    fn append(&mut self, later: Heard) {
        self.at = self.at.max(later.at);
        self.arrived = self.arrived.min(later.arrived);
        self.states = self.states.saturating_add(later.states);
        self.order = self.order.or(later.order);
        self.closed_arrived = self.closed_arrived.or(later.closed_arrived);
        self.closed.extend(later.closed);
        later.running.into_values().for_each(|state| self.merge(state));
        self.refused.extend(later.refused);
    }

    fn merge(&mut self, state: State) {
        let stays = |known: &State| known.hear(&state) == Verdict::Keep;
        if !self.running.get(&state.candle.ts).is_some_and(stays) {
            self.running.insert(state.candle.ts, state);
        }
    }

    fn rows(&self) -> usize {
        self.closed.len() + self.running.len() + self.refused.len()
    }

    /// All of it as a page.
    pub fn page(&self) -> Page {
        let running = self.running.values().map(|state| state.candle);
        Page::pushed(running.chain(self.closed.iter().copied()).collect(), self.refused.clone())
    }

    /// How long the first of it has waited.
    pub fn wait_ms(&self, now: Millis) -> Millis {
        now - self.arrived
    }

    /// How long the first closed bar has waited, if there is one.
    pub fn closed_wait_ms(&self, now: Millis) -> Option<Millis> {
        self.closed_arrived.map(|arrived| now - arrived)
    }
}

impl<P> Work<P> {
    /// The pages, in the order in which they came.
    pub fn pages(&self) -> impl Iterator<Item = &P> {
        self.pages.iter().map(|paged| &paged.page)
    }

    /// How long the commits of this file have been failing.
    pub fn failing_ms(&self, now: Millis) -> Millis {
        self.failing.map_or(0, |failing| now - failing.since)
    }

    /// Notes that it has failed again. `others_at` is when another file took a commit last; tells
    /// for how long this one is known to fail alone, if others did since it failed before.
    pub fn fails_alone_ms(&mut self, now: Millis, others_at: Option<Millis>) -> Option<Millis> {
        let failing = self.failing.as_mut()?;
        if others_at.is_none_or(|at| at <= failing.at) {
            return None;
        }
        Some(now - *failing.alone_since.get_or_insert(now))
    }

    /// Whether it was ever known to be the only one that fails, since it does.
    pub fn has_failed_alone(&self) -> bool {
        self.failing.is_some_and(|failing| failing.alone_since.is_some())
    }

    fn rows(&self) -> usize {
        let pages = self.pages.iter().map(|page| page.rows);
        pages.chain(self.pushes.iter().map(Heard::rows)).sum()
    }
}

#[cfg(test)]
mod tests;
