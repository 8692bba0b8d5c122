//! How often something happened within the last day.

use crate::time::{HOUR, Millis};

/// The hours that are remembered, the running one among them.
const HOURS: usize = 24;

/// A count for each of the last 24 hours, so that the sum is the same size after a year as after a
/// day. The oldest hour leaves as a whole: the sum reaches back between 23 and 24 hours.
///
/// ```
/// use okx_local_store::meter::Meter;
/// use okx_local_store::time::{DAY, HOUR};
///
/// let mut meter = Meter::default();
/// meter.add(0);
/// meter.add(HOUR);
/// assert_eq!((meter.total(2 * HOUR), meter.total(DAY), meter.total(2 * DAY)), (2, 1, 0));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// What happened in an hour is at the place of its number, modulo 24.
    counts: [u64; HOURS],
    /// The number of the newest hour counted.
    newest: Millis,
}

impl Meter {
    /// It happened once more, at `now`, which is not before an earlier one.
    pub fn add(&mut self, now: Millis) {
        let hour = now.div_euclid(HOUR);
        // Places that were passed over hold what happened a day before, or longer ago.
        for stale in (self.newest + 1).max(hour - HOURS as Millis + 1)..=hour {
            self.counts[place(stale)] = 0;
        }
        self.newest = self.newest.max(hour);
        self.counts[place(hour)] += 1;
    }

    /// How often it happened in the 24 hours up to `now`.
    pub fn total(&self, now: Millis) -> u64 {
        let first = now.div_euclid(HOUR) - HOURS as Millis + 1;
        let kept = first.max(self.newest - HOURS as Millis + 1)..=self.newest;
        kept.map(|hour| self.counts[place(hour)]).sum()
    }
}

fn place(hour: Millis) -> usize {
    hour.rem_euclid(HOURS as Millis) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::DAY;

    #[test]
    fn a_day_is_counted_and_what_is_older_is_forgotten() {
        let start = 500_000 * HOUR + 7;
        let mut meter = Meter::default();
        assert_eq!(meter.total(start), 0);
        for n in 0..1_000 {
            meter.add(start + n * HOUR / 2);
        }
        let last = start + 999 * HOUR / 2;
        assert_eq!(meter.total(last), 48);
        for (name, later, total) in [
            ("an hour on", HOUR, 46),
            ("most of a day on", 20 * HOUR, 8),
            ("a day on", DAY, 0),
            ("a year on", 365 * DAY, 0),
        ] {
            assert_eq!(meter.total(last + later), total, "{name}");
        }
        meter.add(last + 20 * HOUR);
        assert_eq!(meter.total(last + 20 * HOUR), 9, "a pause leaves nothing stale behind");
        meter.add(last + 30 * DAY);
        assert_eq!(meter.total(last + 30 * DAY), 1);
    }
}
