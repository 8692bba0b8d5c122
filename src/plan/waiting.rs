//! The bars of a series that have ended without a confirm, and when to look for it again.

use std::collections::BTreeMap;

use crate::bar::Grid;
use crate::plan::Pace;
use crate::span::{Span, Spans};
use crate::time::{MINUTE, Millis, Now, SECOND};

/// When a bar that had ended without a confirm is looked at again, counted from the last look.
const AGAIN_MS: [Millis; 3] = [2 * SECOND, 5 * SECOND, 10 * SECOND];
/// The same where the stream owes the confirm: with the first look 10 s after the bar's end they
/// come 15 and 30 s after it, and then each minute.
const STREAM_AGAIN_MS: [Millis; 3] = [5 * SECOND, 15 * SECOND, MINUTE];

#[derive(Clone, Copy, Debug)]
struct Look {
    looks: usize,
    due: Millis,
}

/// The bars that wait, by open time. Times are the exchange's.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(BTreeMap<Millis, Look>);

impl Waiting {
    /// Bars that were found without a confirm in a file.
    pub(super) fn new(grid: Grid, times: &[Millis]) -> Waiting {
        let look = |&ts: &Millis| (ts, Look { looks: 0, due: grid.bar_at(ts).end });
        Waiting(times.iter().map(look).collect())
    }

    /// All that wait, those that still run among them.
    pub(super) fn times(&self) -> impl DoubleEndedIterator<Item = Millis> + '_ {
        self.0.keys().copied()
    }

    /// The stream owes the confirm of this bar: it is looked for from `due` on.
    pub(super) fn expect(&mut self, ts: Millis, due: Millis) {
        self.0.entry(ts).or_insert(Look { looks: 0, due });
    }

    /// How many have ended.
    pub(super) fn ended(&self, grid: Grid, now: Now) -> usize {
        self.0.keys().filter(|&&ts| grid.bar_at(ts).end <= now.exchange).count()
    }

    /// Those to look at now, oldest first.
    pub(super) fn due(&self, pace: Pace, now: Now) -> impl DoubleEndedIterator<Item = Millis> {
        let due = move |look: &Look| look.due <= now.exchange && look.is_worth_it(pace);
        self.0.iter().filter(move |(_, look)| due(look)).map(|(&ts, _)| ts)
    }

    /// When the next one of them is to be looked at. One that still runs, because a wrong clock
    /// took it for one that had ended, counts from its end.
    pub(super) fn deadline(
        &self,
        grid: Grid,
        pace: Pace,
        ended_only: Option<Now>,
    ) -> Option<Millis> {
        let worth = self.0.iter().filter(|(_, look)| look.is_worth_it(pace));
        let at = worth.map(|(&ts, look)| (grid.bar_at(ts).end, look.due));
        let at = at.filter(|(end, _)| ended_only.is_none_or(|now| *end <= now.exchange));
        at.map(|(end, due)| due.max(end)).min()
    }

    /// Forgets those that are covered now, and counts a look at each of the `seen` and of those
    /// that were looked for.
    pub(super) fn note(
        &mut self,
        covered: &Spans,
        grid: Grid,
        pace: Pace,
        at: Millis,
        seen: impl Iterator<Item = Millis>,
        looked_for: impl Fn(Millis) -> bool,
    ) {
        self.forget(covered, grid);
        let looked_for: Vec<Millis> = self.times().filter(|&ts| looked_for(ts)).collect();
        let seen = seen.filter(|&ts| grid.bar_at(ts).end <= at);
        for ts in seen.chain(looked_for) {
            let new = Look { looks: 0, due: at + AGAIN_MS[0] };
            let look = self.0.entry(ts).or_insert(new);
            if look.due <= at {
                look.looks += 1;
                look.due = at + look.pause_ms(pace);
            }
        }
    }

    /// A window that was looked at has no row for these, which ended long enough before `by`: they
    /// do not wait for a confirm, they are missing.
    pub(super) fn give_up(&mut self, grid: Grid, window: Span, with_rows: &[Millis], by: Millis) {
        self.0.retain(|&ts, _| {
            !window.contains(ts) || with_rows.contains(&ts) || grid.bar_at(ts).end > by
        });
    }

    /// Forgets those that are covered now.
    pub(super) fn forget(&mut self, covered: &Spans, grid: Grid) {
        self.0.retain(|&ts, _| !covered.covers(grid.bar_at(ts)));
    }
}

impl Look {
    /// Polling leaves the rest to the next newest page, the stream has none.
    fn is_worth_it(self, pace: Pace) -> bool {
        pace == Pace::Stream || self.looks < AGAIN_MS.len()
    }

    /// The pause after so many looks.
    fn pause_ms(self, pace: Pace) -> Millis {
        match pace {
            Pace::Stream => STREAM_AGAIN_MS[(self.looks - 1).min(STREAM_AGAIN_MS.len() - 1)],
            Pace::Poll => AGAIN_MS.get(self.looks).copied().unwrap_or(0),
        }
    }
}
