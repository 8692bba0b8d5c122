//! One instrument: its base bars, what was done to them by the test, and every bar built of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::file::{Base, step_of};
use super::grid::{Bar, HOUR_MS, MINUTE_MS};
use super::row::{Fold, Kind, Row, seconds};
use super::synthetic::{Synthetic, kind_of};

/// How an instrument stopped trading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Still listed, with the state `suspend`; its candles stay.
    Suspended,
    /// Gone from the list, and its candles are answered with 51001.
    Delisted,
    /// Gone from the list, and its candles are answered with 50047.
    Settled,
}

enum Source {
    Endless(Synthetic),
    Rows(Base),
}

pub struct Listing {
    symbol: String,
    kind: Kind,
    steps: (f64, f64),
    source: Source,
    halt: Option<(i64, Halt)>,
    holes: Vec<(i64, i64)>,
    revisions: BTreeMap<(&'static str, i64), Row>,
    /// Whole hours, built once they are over. All bars above 1H consist of them on either grid,
    /// so that a page of months costs thousands of steps and not millions.
    hours: HashMap<i64, Option<Row>>,
    /// Of each bar the one that was asked for last while it ran: the stream asks each second.
    progress: HashMap<&'static str, Progress>,
    /// The seconds of the base bar that was cut last.
    cut: Option<Cut>,
}

/// How far the fold of a running bar has come: over whole hours, and from there over base bars.
struct Progress {
    start: i64,
    hours: (i64, Fold),
    slots: (i64, Fold),
}

/// A base bar in seconds, and the close that stands when it opens.
#[derive(Clone)]
struct Cut {
    slot: i64,
    close_before: f64,
    seconds: Arc<[Row]>,
}

impl Progress {
    fn new(start: i64, at: i64) -> Self {
        Self { start, hours: (at, Fold::default()), slots: (at, Fold::default()) }
    }
}

impl Listing {
    pub fn synthetic(symbol: &str, seed: u64, listed_ms: i64) -> Self {
        let market = Synthetic::new(symbol, seed, listed_ms);
        Self::new(symbol, market.kind(), market.steps(), Source::Endless(market))
    }

    pub fn rows(symbol: &str, base: Base) -> Self {
        // The digits of the first rows tell those of all, and a large file stays quick to load.
        let some = &base.rows[..base.rows.len().min(500)];
        let steps =
            (step_of(some.iter().map(|row| row.c)), step_of(some.iter().map(|row| row.vol)));
        let kind = kind_of(symbol, base.rows.first().map_or(1.0, |row| row.c));
        Self::new(symbol, kind, steps, Source::Rows(base))
    }

    fn new(symbol: &str, kind: Kind, steps: (f64, f64), source: Source) -> Self {
        let (symbol, halt) = (symbol.to_owned(), None);
        let (holes, revisions, hours) = (Vec::new(), BTreeMap::new(), HashMap::new());
        let (progress, cut) = (HashMap::new(), None);
        Self { symbol, kind, steps, source, halt, holes, revisions, hours, progress, cut }
    }

    pub fn symbol(&self) -> &str {
        &self.symbol
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The smallest steps of the price and of the volume.
    pub fn steps(&self) -> (f64, f64) {
        self.steps
    }

    /// The halt that is in force at `now`.
    pub fn halted(&self, now: i64) -> Option<Halt> {
        self.halt.filter(|&(from, _)| from <= now).map(|(_, halt)| halt)
    }

    /// No base bar opens from `from` on, or from the start of the one `from` falls into.
    pub fn set_halt(&mut self, from: i64, halt: Halt) {
        self.halt = Some((from, halt));
        self.forget();
    }

    /// The exchange never had the base bars in `[start, end)`.
    pub fn add_hole(&mut self, start: i64, end: i64) {
        self.holes.push((start, end));
        self.forget();
    }

    /// From now on the closed bar at `row.ts` is served like this; no other bar changes.
    pub fn revise(&mut self, bar: Bar, row: Row) {
        self.revisions.insert((bar.name(), row.ts), row);
    }

    /// The open time of the oldest base bar.
    pub fn first_ms(&self) -> i64 {
        match &self.source {
            Source::Endless(market) => market.listed_ms(),
            Source::Rows(base) => base.rows.first().map_or(i64::MAX, |row| row.ts),
        }
    }

    /// The end of the newest base bar of a market that is not endless.
    pub fn end_ms(&self) -> Option<i64> {
        match &self.source {
            Source::Endless(_) => None,
            Source::Rows(base) => base.rows.last().map(|row| row.ts + base.step_ms),
        }
    }

    /// The open time of the newest bar that is there at `now`, running or closed.
    pub fn newest(&mut self, bar: Bar, now: i64) -> Option<i64> {
        let end = self.end_ms().unwrap_or(i64::MAX).min(self.halt.map_or(i64::MAX, |halt| halt.0));
        let mut open = bar.open(now.min(end - 1));
        while bar.end(open) > self.first_ms() {
            if self.running(bar, open, now).is_some() {
                return Some(open);
            }
            open = bar.back(open, 1);
        }
        None
    }

    /// The final state of the bar that opens at `open`.
    pub fn closed(&mut self, bar: Bar, open: i64) -> Option<Row> {
        if let Some(revised) = self.revisions.get(&(bar.name(), open)) {
            return Some(*revised);
        }
        if bar.len_ms() == Some(self.step_ms()) {
            return self.base_row(open);
        }
        self.folded(open, bar.end(open))
    }

    /// The state that the bar opening at `open` had at `now`, even if it has ended since then.
    pub fn running(&mut self, bar: Bar, open: i64, now: i64) -> Option<Row> {
        let until = now.min(bar.end(open) - 1);
        let whole = bar.len_ms().is_none_or(|len_ms| len_ms % self.step_ms() == 0);
        if !whole || until <= open.max(self.first_ms()) {
            return self.folded(open, until);
        }
        self.progressed(bar.name(), open, until)
    }

    /// The same as `folded`, beginning where the last asking for this bar left off.
    fn progressed(&mut self, bar: &'static str, start: i64, until: i64) -> Option<Row> {
        let step = self.step_ms();
        let known = self.progress.remove(bar);
        let mut progress = known
            .filter(|progress| progress.start == start && progress.slots.0 <= until)
            .unwrap_or_else(|| Progress::new(start, start.max(self.first_ms())));
        let (at, fold) = &mut progress.hours;
        loop {
            let (len, row) = if *at % HOUR_MS != 0 && *at + step <= until {
                (step, self.base_row(*at))
            } else if *at % HOUR_MS == 0 && *at + HOUR_MS <= until {
                (HOUR_MS, self.hour(*at))
            } else {
                break;
            };
            row.iter().for_each(|row| fold.push(row));
            *at += len;
        }
        if progress.slots.0 < progress.hours.0 {
            progress.slots = progress.hours.clone();
        }
        let (at, fold) = &mut progress.slots;
        while *at + step <= until {
            self.base_row(*at).iter().for_each(|row| fold.push(row));
            *at += step;
        }
        let mut fold = fold.clone();
        if *at < until {
            self.push_seconds(*at, *at, until, &mut fold);
        }
        self.progress.insert(bar, progress);
        fold.finish(start)
    }

    /// What was worked out before the base bars changed is no longer true.
    fn forget(&mut self) {
        self.hours.clear();
        self.progress.clear();
        self.cut = None;
    }

    fn step_ms(&self) -> i64 {
        match &self.source {
            Source::Endless(_) => MINUTE_MS,
            Source::Rows(base) => base.step_ms,
        }
    }

    fn base_row(&self, ts: i64) -> Option<Row> {
        let halted = self.halt.is_some_and(|(from, _)| from < ts + self.step_ms());
        if halted || self.holes.iter().any(|&(start, end)| (start..end).contains(&ts)) {
            return None;
        }
        match &self.source {
            Source::Endless(market) => market.row(ts),
            Source::Rows(base) => {
                let index = base.rows.binary_search_by_key(&ts, |row| row.ts).ok()?;
                Some(base.rows[index])
            }
        }
    }

    /// The close that stands when `row` opens; the first bar has only its own open to show.
    fn close_before(&self, row: &Row) -> f64 {
        let before = match &self.source {
            Source::Endless(market) => market.row(row.ts - MINUTE_MS),
            Source::Rows(base) => {
                let index = base.rows.partition_point(|other| other.ts < row.ts);
                index.checked_sub(1).map(|index| base.rows[index])
            }
        };
        before.map_or(row.o, |before| before.c)
    }

    /// What was traded in `[start, until)`, as one bar.
    fn folded(&mut self, start: i64, until: i64) -> Option<Row> {
        let step = self.step_ms();
        let mut fold = Fold::default();
        let mut at = start.max(self.first_ms().min(until));
        loop {
            let slot = at - at.rem_euclid(step);
            if at % HOUR_MS == 0 && at + HOUR_MS <= until {
                if let Some(row) = self.hour(at) {
                    fold.push(&row);
                }
                at += HOUR_MS;
            } else if at == slot && slot + step <= until {
                if let Some(row) = self.base_row(slot) {
                    fold.push(&row);
                }
                at += step;
            } else {
                self.push_seconds(slot, at, until, &mut fold);
                at = slot + step;
            }
            if at >= until {
                return fold.finish(start);
            }
        }
    }

    /// Pushes that part of a base bar which lies in `[from, until)`; if not one whole second does,
    /// then the flat state with which a bar begins.
    fn push_seconds(&mut self, slot: i64, from: i64, until: i64, fold: &mut Fold) {
        let Some(cut) = self.cut(slot) else {
            return;
        };
        let mut close = cut.close_before;
        let mut pushed = false;
        for second in cut.seconds.iter().take_while(|second| second.ts + 1_000 <= until) {
            close = second.c;
            if second.ts >= from {
                fold.push(second);
                pushed = true;
            }
        }
        if !pushed {
            fold.push(&Row::flat(from, close));
        }
    }

    fn cut(&mut self, slot: i64) -> Option<Cut> {
        if self.cut.as_ref().is_none_or(|cut| cut.slot != slot) {
            let row = self.base_row(slot)?;
            let close_before = self.close_before(&row);
            let seconds = seconds(&row, self.step_ms(), close_before).into();
            self.cut = Some(Cut { slot, close_before, seconds });
        }
        self.cut.clone()
    }

    fn hour(&mut self, at: i64) -> Option<Row> {
        if let Some(known) = self.hours.get(&at) {
            return *known;
        }
        let mut fold = Fold::default();
        for slot in (at..at + HOUR_MS).step_by(self.step_ms() as usize) {
            if let Some(row) = self.base_row(slot) {
                fold.push(&row);
            }
        }
        let row = fold.finish(at);
        self.hours.insert(at, row);
        row
    }
}
