//! Half-open ranges of time, and ordered sets of them.

use std::collections::BTreeMap;
use std::fmt;

use crate::time::{Millis, format_time};

/// A half-open range of time `[start, end)`, Unix ms. An empty one holds nothing.
///
/// Any two moments make one, in whatever order: what ends before it starts is empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first moment inside.
    pub start: Millis,
    /// The first moment after it.
    pub end: Millis,
}

impl Span {
    /// The range from `start` up to but without `end`.
    ///
    /// ```
    /// use okx_local_store::{Span, parse_time};
    ///
    /// let may = Span::new(parse_time("2024-05-01")?, parse_time("2024-06-01")?);
    /// assert_eq!(may.to_string(), "[2024-05-01T00:00:00Z, 2024-06-01T00:00:00Z)");
    /// # Ok::<(), okx_local_store::TimeError>(())
    /// ```
    #[must_use]
    pub const fn new(start: Millis, end: Millis) -> Span {
        Span { start, end }
    }

    /// Whether nothing is inside.
    ///
    /// ```
    /// use okx_local_store::Span;
    ///
    /// assert!(Span::new(60_000, 60_000).is_empty() && Span::new(60_000, 0).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// Whether `at` is inside.
    ///
    /// ```
    /// use okx_local_store::Span;
    ///
    /// let minute = Span::new(0, 60_000);
    /// assert!(minute.contains(0) && !minute.contains(60_000));
    /// ```
    #[must_use]
    pub fn contains(self, at: Millis) -> bool {
        self.start <= at && at < self.end
    }

    /// What both ranges hold; maybe empty.
    ///
    /// ```
    /// use okx_local_store::Span;
    ///
    /// let (this, that) = (Span::new(0, 60_000), Span::new(30_000, 90_000));
    /// assert_eq!(this.intersection(that), Span::new(30_000, 60_000));
    /// assert!(this.intersection(Span::new(60_000, 90_000)).is_empty());
    /// ```
    #[must_use]
    pub fn intersection(self, other: Span) -> Span {
        Span::new(self.start.max(other.start), self.end.min(other.end))
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", format_time(self.start), format_time(self.end))
    }
}

/// A set of moments, kept as the fewest disjoint half-open ranges, in order.
///
/// ```
/// use okx_local_store::span::{Span, Spans};
///
/// let mut covered = Spans::from(Span::new(0, 10));
/// covered.insert(Span::new(10, 20));
/// covered.remove(Span::new(5, 6));
/// assert_eq!(covered.to_string(), "[0, 5) [6, 20)");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<Millis, Millis>);

impl Spans {
    /// The set of nothing.
    pub const fn new() -> Spans {
        Spans(BTreeMap::new())
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of disjoint ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Span> + '_ {
        self.0.iter().map(|(&start, &end)| Span { start, end })
    }

    /// The oldest range.
    pub fn first(&self) -> Option<Span> {
        self.iter().next()
    }

    /// The newest range.
    pub fn last(&self) -> Option<Span> {
        self.iter().next_back()
    }

    /// The range that holds `at`.
    pub fn around(&self, at: Millis) -> Option<Span> {
        let (&start, &end) = self.0.range(..=at).next_back()?;
        Some(Span { start, end }).filter(|span| span.contains(at))
    }

    /// The ranges that share a moment with `span`, whole, oldest first.
    pub fn touching(&self, span: Span) -> impl Iterator<Item = Span> + '_ {
        let from = self.around(span.start).map_or(span.start, |first| first.start);
        self.0
            .range(from..span.end.max(from))
            .map(|(&start, &end)| Span { start, end })
            .filter(move |found| !found.intersection(span).is_empty())
    }

    /// Adds a range; what meets or overlaps grows together.
    pub fn insert(&mut self, span: Span) {
        if span.is_empty() {
            return;
        }
        let mut merged = span;
        // A range that ends exactly where this one starts is a neighbour to grow together with.
        if let Some((&start, &end)) = self.0.range(..=span.start).next_back()
            && end >= span.start
        {
            merged = Span::new(start, end.max(span.end));
        }
        while let Some((&start, &end)) = self.0.range(merged.start..=merged.end).next() {
            self.0.remove(&start);
            merged.end = merged.end.max(end);
        }
        self.0.insert(merged.start, merged.end);
    }

    /// Takes a range out.
    pub fn remove(&mut self, span: Span) {
        let hit: Vec<Span> = self.touching(span).collect();
        for found in hit {
            self.0.remove(&found.start);
            for rest in [Span::new(found.start, span.start), Span::new(span.end, found.end)] {
                if !rest.is_empty() {
                    self.0.insert(rest.start, rest.end);
                }
            }
        }
    }

    /// Whether every moment of `span` is inside.
    pub fn covers(&self, span: Span) -> bool {
        span.is_empty() || self.around(span.start).is_some_and(|found| found.end >= span.end)
    }

    /// Whether some moment of `span` is inside.
    pub fn touches(&self, span: Span) -> bool {
        self.touching(span).next().is_some()
    }

    /// What both hold.
    pub fn intersection(&self, span: Span) -> Spans {
        self.touching(span).map(|found| found.intersection(span)).collect()
    }

    /// What this set has and the other has not.
    pub fn difference(&self, other: &Spans) -> Spans {
        let mut rest = self.clone();
        for span in other.iter() {
            rest.remove(span);
        }
        rest
    }
}

impl From<Span> for Spans {
    fn from(span: Span) -> Spans {
        Spans::from_iter([span])
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Spans {
        let mut set = Spans::new();
        set.extend(spans);
        set
    }
}

impl Extend<Span> for Spans {
    fn extend<I: IntoIterator<Item = Span>>(&mut self, spans: I) {
        for span in spans {
            self.insert(span);
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, span) in self.iter().enumerate() {
            write!(f, "{}{span:?}", if n == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Span> {
        (0i64..40, 0i64..12).prop_map(|(start, length)| Span::new(start, start + length))
    }

    fn moments(spans: &Spans) -> BTreeSet<Millis> {
        spans.iter().flat_map(|span| span.start..span.end).collect()
    }

    proptest! {
        /// The model is the plain set of moments: whatever is put in and taken out, both agree,
        /// and the ranges stay disjoint, apart and in order.
        #[test]
        fn a_set_of_ranges_is_the_set_of_their_moments(
            steps in prop::collection::vec((any::<bool>(), span()), 0..30),
            probe in span(),
        ) {
            let (mut spans, mut model) = (Spans::new(), BTreeSet::new());
            for (add, span) in steps {
                if add {
                    spans.insert(span);
                    model.extend(span.start..span.end);
                } else {
                    spans.remove(span);
                    model.retain(|at| !span.contains(*at));
                }
            }
            prop_assert_eq!(moments(&spans), model.clone());
            let ranges: Vec<Span> = spans.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));

            let inside: BTreeSet<i64> =
                (probe.start..probe.end).filter(|at| model.contains(at)).collect();
            prop_assert_eq!(moments(&spans.intersection(probe)), inside.clone());
            prop_assert_eq!(spans.touches(probe), !inside.is_empty());
            let all = (probe.start..probe.end).all(|at| model.contains(&at));
            prop_assert_eq!(spans.covers(probe), all);
            let outside: BTreeSet<i64> =
                (probe.start..probe.end).filter(|at| !model.contains(at)).collect();
            prop_assert_eq!(moments(&Spans::from(probe).difference(&spans)), outside);
        }
    }

    #[test]
    fn the_range_around_a_moment_is_half_open() {
        let spans: Spans = [Span::new(0, 5), Span::new(7, 9)].into_iter().collect();
        assert_eq!(spans.around(4), Some(Span::new(0, 5)));
        assert_eq!(spans.around(5), None);
        assert_eq!(spans.around(7), Some(Span::new(7, 9)));
    }
}
