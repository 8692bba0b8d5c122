//! What the store knows of a series: the spans it covers, and the ledger of bars that the exchange
//! does not have.
//!
//! The writer keeps it on disk, a plan keeps it in memory; both change it by [`Coverage::absorb`]
//! with the same evidence, so they cannot drift apart.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::bar::Grid;
use crate::page::Evidence;
use crate::span::{Span, Spans};
use crate::time::{DAY, MINUTE, Millis};

/// An absence that was seen so often is taken for a fact.
pub const KNOWN_AFTER: u32 = 3;
/// How long after its first and its second sighting an absence is looked at again, Unix ms.
const SUSPECT_AGAIN: [Millis; 2] = [2 * MINUTE, 10 * MINUTE];
/// How long after that, for good.
const KNOWN_AGAIN: Millis = 7 * DAY;

/// Why the exchange has no rows in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// There are rows on both sides: a suspension, or a loss of the exchange's own.
    Absent,
    /// Nothing is older: the instrument was not listed yet.
    BeforeHistory,
}

impl Reason {
    /// The word in the table `empties`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Absent => "absent",
            Reason::BeforeHistory => "before_history",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// An entry of the ledger: a range in which the exchange was seen to have no rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Empty {
    /// The range.
    pub span: Span,
    /// Why.
    pub reason: Reason,
    /// How often it was seen.
    pub attempts: u32,
    /// When to look again, by the exchange's clock.
    pub next_ask: Millis,
}

impl Empty {
    /// Whether it was seen often enough to be believed.
    pub fn is_known(&self) -> bool {
        self.attempts >= KNOWN_AFTER
    }

    /// Grows by its neighbour if both are known equally well: they are looked at together.
    fn join(&mut self, next: &Empty) -> bool {
        let alike = (self.reason, self.attempts) == (next.reason, next.attempts);
        let joins = alike && self.span.end == next.span.start;
        if joins {
            self.span.end = next.span.end;
            self.next_ask = self.next_ask.max(next.next_ask);
        }
        joins
    }

    fn seen(span: Span, reason: Reason, attempts: u32, at: Millis) -> Empty {
        let again = SUSPECT_AGAIN.get(attempts as usize - 1).copied().unwrap_or(KNOWN_AGAIN);
        Empty { span, reason, attempts, next_ask: at + again }
    }
}

/// The spans of a series and its ledger of empties, which lie inside them.
///
/// ```
/// use okx_local_store::coverage::Coverage;
/// use okx_local_store::page::Evidence;
/// use okx_local_store::span::Span;
///
/// let mut coverage = Coverage::default();
/// let evidence = Evidence {
///     vouched: Span::new(0, 600_000).into(),
///     absent: Span::new(60_000, 120_000).into(),
///     ..Evidence::default()
/// };
/// coverage.absorb(&evidence, 600_000);
/// assert_eq!(coverage.missing(Span::new(0, 900_000)).to_string(), "[600000, 900000)");
/// assert_eq!(coverage.empties().next().unwrap().attempts, 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    spans: Spans,
    /// Disjoint, in order, all inside the spans.
    empties: Vec<Empty>,
}

impl Coverage {
    /// What was read from a file.
    pub fn new(spans: Spans, mut empties: Vec<Empty>) -> Coverage {
        empties.sort();
        Coverage { spans, empties }
    }

    /// The covered ranges.
    pub fn spans(&self) -> &Spans {
        &self.spans
    }

    /// The ledger, oldest first.
    pub fn empties(&self) -> impl DoubleEndedIterator<Item = &Empty> {
        self.empties.iter()
    }

    /// The part of a range that is not covered.
    pub fn missing(&self, wanted: Span) -> Spans {
        Spans::from(wanted).difference(&self.spans)
    }

    /// Where covered rows begin: the start of the oldest span, without what lies before history.
    pub fn history_start(&self) -> Option<Millis> {
        let first = self.spans.first()?;
        let before = self.empties.first().filter(|e| e.reason == Reason::BeforeHistory);
        let start = before.map_or(first.start, |empty| empty.span.end);
        if start < first.end { Some(start) } else { self.spans.iter().nth(1).map(|s| s.start) }
    }

    /// The covered ranges in which every bar has a row.
    pub fn with_rows(&self) -> Spans {
        let mut spans = self.spans.clone();
        for empty in &self.empties {
            spans.remove(empty.span);
        }
        spans
    }

    /// Takes in what a page proved at the time `at` of the exchange's clock.
    ///
    /// A second sighting counts only once it is due: pages that overlap within seconds are one
    /// sighting. A row below which nothing was thought to be reopens all that was thought so. The
    /// work grows with the page and with what it touches, not with the ledger.
    pub fn absorb(&mut self, evidence: &Evidence, at: Millis) {
        let Some(reach) = self.reach(evidence) else { return };
        self.reopen_history(evidence);
        let mut absent = evidence.absent.clone();
        if evidence.before_history {
            // What is stored did exist, whatever the exchange still has of it.
            absent = absent.difference(&self.with_rows());
        }
        self.spans.extend(evidence.vouched.iter());
        let touched = self.ledger_in(reach.empties);
        if absent.is_empty() && touched.is_empty() {
            return;
        }
        let reason = if evidence.before_history { Reason::BeforeHistory } else { Reason::Absent };
        let mut unseen = absent.clone();
        let mut ledger = Vec::with_capacity(touched.len() + absent.len());
        for empty in self.empties.drain(touched.clone()) {
            let outside = Spans::from(empty.span).difference(&evidence.vouched);
            ledger.extend(outside.iter().map(|span| Empty { span, ..empty }));
            let again = absent.intersection(empty.span);
            ledger.extend(again.iter().map(|span| {
                if at < empty.next_ask {
                    return Empty { span, ..empty };
                }
                Empty::seen(span, reason.max(empty.reason), empty.attempts + 1, at)
            }));
            unseen.remove(empty.span);
        }
        ledger.extend(unseen.iter().map(|span| Empty::seen(span, reason, 1, at)));
        ledger.sort();
        ledger.dedup_by(|next, known| known.join(next));
        self.empties.splice(touched.start..touched.start, ledger);
    }

    /// Where [`Coverage::absorb`] of this evidence can change something; nothing if it cannot.
    pub fn reach(&self, evidence: &Evidence) -> Option<Reach> {
        let ends = |spans: &Spans| [spans.first(), spans.last()];
        let proved = ends(&evidence.vouched).into_iter().chain(ends(&evidence.absent)).flatten();
        let reopened = self.disproved_history(evidence).map(|at| self.empties[at].span);
        let all = proved.chain(reopened).reduce(hull)?;
        // What ends where the evidence begins, or the other way round, grows together with it.
        let spans = [self.spans.around(all.start - 1), self.spans.around(all.end)];
        let empties = self.empties[self.ledger_in(all)].iter().map(|empty| empty.span);
        Some(Reach {
            spans: spans.into_iter().flatten().fold(all, hull),
            empties: empties.fold(all, hull),
        })
    }

    /// The spans and the part of the ledger which lie in that reach.
    pub fn within(&self, reach: Reach) -> (BTreeSet<Span>, BTreeSet<Empty>) {
        let empties = self.empties[self.ledger_in(reach.empties)].iter();
        (self.spans.touching(reach.spans).collect(), empties.copied().collect())
    }

    /// The part of the ledger that meets or overlaps a range.
    fn ledger_in(&self, span: Span) -> Range<usize> {
        let start = self.empties.partition_point(|empty| empty.span.end < span.start);
        let end = self.empties.partition_point(|empty| empty.span.start <= span.end);
        start..end.max(start)
    }

    /// A row inside the range before history proves that history begins earlier than thought:
    /// nothing is known any more about what lies below that row.
    fn reopen_history(&mut self, evidence: &Evidence) {
        if let Some(at) = self.disproved_history(evidence) {
            let before = self.empties.remove(at);
            self.spans.remove(before.span);
        }
    }

    /// The entry of the ledger before history in which the evidence has a row.
    fn disproved_history(&self, evidence: &Evidence) -> Option<usize> {
        let (oldest, _) = evidence.extent?;
        let at = self.empties.partition_point(|empty| empty.span.end <= oldest);
        let empty = self.empties.get(at)?;
        let disproved = empty.reason == Reason::BeforeHistory && empty.span.contains(oldest);
        disproved.then_some(at)
    }

    /// Takes out a range whose rows turned out not to be stored.
    pub fn uncover(&mut self, span: Span) {
        self.spans.remove(span);
        let cut = |empty: Empty| {
            let rest = Spans::from(empty.span).difference(&Spans::from(span));
            rest.iter().map(|span| Empty { span, ..empty }).collect::<Vec<_>>()
        };
        self.empties = std::mem::take(&mut self.empties).into_iter().flat_map(cut).collect();
    }

    /// Counts bars, inside `wanted`, by what is known of them.
    pub fn tally(&self, grid: Grid, wanted: Span) -> Tally {
        let count = |spans: &Spans| spans.iter().map(|span| grid.count(span)).sum();
        let mut tally = Tally {
            wanted: grid.count(wanted),
            missing: count(&self.missing(wanted)),
            ..Tally::default()
        };
        for empty in &self.empties {
            let bars = grid.count(empty.span.intersection(wanted));
            match (empty.reason, empty.is_known()) {
                (Reason::BeforeHistory, _) => tally.before_history += bars,
                (Reason::Absent, false) => tally.suspected_empty += bars,
                (Reason::Absent, true) => tally.known_empty += bars,
            }
        }
        tally
    }
}

/// The parts of a [`Coverage`] that a piece of evidence can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Spans outside of this range stay.
    spans: Span,
    /// And entries of the ledger outside of this one.
    empties: Span,
}

/// The range from the start of the one to the end of the other, whichever comes first.
fn hull(a: Span, b: Span) -> Span {
    Span::new(a.start.min(b.start), a.end.max(b.end))
}

/// Numbers of bars in a wanted range. What is neither missing nor empty has a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub wanted: i64,
    /// Not covered: to be fetched.
    pub missing: i64,
    /// Seen once or twice to have no row on the exchange.
    pub suspected_empty: i64,
    /// Seen often enough to have none.
    pub known_empty: i64,
    /// Older than the exchange's history.
    pub before_history: i64,
    /// Ended, and waiting for the exchange's confirm.
    pub unconfirmed: i64,
}

impl Tally {
    /// Bars that are stored.
    pub fn rows(&self) -> i64 {
        let empty = self.suspected_empty + self.known_empty + self.before_history;
        self.wanted - self.missing - self.unconfirmed - empty
    }

    /// The share of the bars that exist on the exchange, as far as is known, which is stored.
    pub fn coverage(&self) -> f64 {
        let existing = self.rows() + self.missing;
        if existing == 0 { 1.0 } else { self.rows() as f64 / existing as f64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bar::Bar;

    fn evidence(vouched: (i64, i64), absent: &[(i64, i64)], row: i64) -> Evidence {
        let span = |&(start, end): &(i64, i64)| Span::new(start * MINUTE, end * MINUTE);
        Evidence {
            vouched: span(&vouched).into(),
            absent: absent.iter().map(span).collect(),
            extent: Some((row * MINUTE, row * MINUTE)),
            ..Evidence::default()
        }
    }

    fn ledger(coverage: &Coverage) -> Vec<(i64, i64, u32)> {
        let entry = |e: &Empty| (e.span.start / MINUTE, e.span.end / MINUTE, e.attempts);
        coverage.empties().map(entry).collect()
    }

    #[test]
    fn an_absence_is_believed_after_three_sightings_at_their_times() {
        let mut coverage = Coverage::default();
        let seen = evidence((0, 10), &[(4, 6)], 0);
        let mut at = 0;
        for (later, attempts) in [(0, 1), (1, 1), (2, 2), (5, 2), (12, 3), (13, 3)] {
            at = at.max(later * MINUTE);
            coverage.absorb(&seen, at);
            assert_eq!(ledger(&coverage), [(4, 6, attempts)], "after {later} minutes");
        }
        assert!(coverage.empties().all(Empty::is_known));
        assert_eq!(coverage.empties().next().unwrap().next_ask, at - MINUTE + KNOWN_AGAIN);
    }

    #[test]
    fn a_row_ends_an_absence_where_it_lies() {
        let mut coverage = Coverage::default();
        coverage.absorb(&evidence((0, 10), &[(2, 8)], 0), 0);
        coverage.absorb(&evidence((4, 6), &[], 4), 1);
        assert_eq!(ledger(&coverage), [(2, 4, 1), (6, 8, 1)]);
        assert!(coverage.missing(Span::new(0, 10 * MINUTE)).is_empty());
    }

    #[test]
    fn a_row_before_history_reopens_it() {
        let mut coverage = Coverage::default();
        let none =
            Evidence { before_history: true, extent: None, ..evidence((0, 50), &[(0, 50)], 0) };
        coverage.absorb(&none, 0);
        coverage.absorb(&evidence((50, 60), &[], 50), 0);
        assert_eq!(coverage.history_start(), Some(50 * MINUTE));
        coverage.absorb(&evidence((40, 50), &[(41, 50)], 40), 1);
        assert_eq!(coverage.spans().to_string(), format!("[{}, {})", 40 * MINUTE, 60 * MINUTE));
        assert_eq!(ledger(&coverage), [(41, 50, 1)]);
    }

    #[test]
    fn what_is_stored_is_not_before_history() {
        // The exchange keeps some bars for weeks only: below a hole it may have nothing any more.
        let mut coverage = Coverage::default();
        coverage.absorb(&evidence((10, 20), &[], 10), 0);
        coverage.absorb(&evidence((30, 40), &[], 30), 0);
        let none =
            Evidence { before_history: true, extent: None, ..evidence((0, 30), &[(0, 30)], 0) };
        coverage.absorb(&none, 1);
        assert_eq!(ledger(&coverage), [(0, 10, 1), (20, 30, 1)]);
        assert_eq!(coverage.history_start(), Some(10 * MINUTE));
        coverage.absorb(&evidence((5, 10), &[(6, 10)], 5), 2);
        assert_eq!(coverage.spans().to_string(), format!("[{}, {})", 5 * MINUTE, 40 * MINUTE));
    }

    #[test]
    fn bars_are_counted_by_what_is_known_of_them() {
        let grid = "1m".parse::<Bar>().unwrap().grid();
        let mut coverage = Coverage::default();
        coverage.absorb(&evidence((10, 50), &[(20, 22)], 10), 0);
        coverage.uncover(Span::new(30 * MINUTE, 33 * MINUTE));
        let tally = coverage.tally(grid, Span::new(0, 60 * MINUTE));
        assert_eq!((tally.wanted, tally.missing, tally.suspected_empty), (60, 23, 2));
        assert_eq!(tally.rows(), 35);
    }

    fn minutes(max: i64) -> impl Strategy<Value = Span> {
        (0..60i64, 1..=max).prop_map(|(start, n)| Span::new(start * MINUTE, (start + n) * MINUTE))
    }

    /// Evidence as pages and pushes give it: what is absent was vouched for.
    fn any_evidence() -> impl Strategy<Value = Evidence> {
        let absent = prop::collection::vec(minutes(4), 0..3);
        let holes = prop::collection::vec(minutes(2), 0..2);
        let all = (minutes(12), holes, absent, any::<bool>(), 0..6u8);
        all.prop_map(|(range, holes, absent, with_row, kind)| {
            let mut vouched = Spans::from(range);
            holes.iter().for_each(|&hole| vouched.remove(hole));
            let mut of_those = Spans::new();
            absent.iter().for_each(|&span| of_those.extend(vouched.intersection(span).iter()));
            let absent = of_those;
            let extent = with_row.then_some((range.start, range.start));
            let below = Span::new(0, range.end);
            match kind {
                0 => Evidence { extent, ..Evidence::default() },
                1 => Evidence {
                    vouched: below.into(),
                    absent: below.into(),
                    before_history: true,
                    ..Evidence::default()
                },
                _ => Evidence { vouched, absent, extent, ..Evidence::default() },
            }
        })
    }

    proptest! {
        /// Two tables that are changed only where evidence reaches hold what the whole holds, and
        /// the ledger stays in order, apart, inside the spans and as short as it can be.
        #[test]
        fn nothing_changes_beyond_the_reach(
            steps in prop::collection::vec((any_evidence(), 0..15 * MINUTE), 0..25),
        ) {
            let (mut coverage, mut at) = (Coverage::default(), 0);
            let (mut spans, mut empties) = (BTreeSet::new(), BTreeSet::new());
            for (evidence, later) in steps {
                at += later;
                let reach = coverage.reach(&evidence);
                let old = reach.map(|reach| coverage.within(reach)).unwrap_or_default();
                coverage.absorb(&evidence, at);
                let new = reach.map(|reach| coverage.within(reach)).unwrap_or_default();
                spans.retain(|span| !old.0.contains(span));
                spans.extend(&new.0);
                empties.retain(|empty| !old.1.contains(empty));
                empties.extend(&new.1);
                prop_assert!(spans.iter().copied().eq(coverage.spans().iter()));
                prop_assert!(empties.iter().eq(coverage.empties()));
                prop_assert!(coverage.empties().all(|empty| coverage.spans.covers(empty.span)));
                let alone = |pair: &[Empty]| {
                    pair[0].span.end <= pair[1].span.start && !pair[0].clone().join(&pair[1])
                };
                prop_assert!(coverage.empties.windows(2).all(alone));
            }
        }
    }
}
