//! How long things took of late: a small histogram over the last ten minutes.

use crate::time::{MINUTE, Millis};

/// The window slides by one slot a minute.
const SLOT_MS: Millis = MINUTE;
/// The running minute and the nine before it.
const SLOTS: usize = 10;
/// Each doubling is divided into so many parts, so a bucket is at most 1/32 as wide as its values.
const PARTS: u64 = 32;
/// Below this each ms has a bucket of its own.
const EXACT: u64 = 2 * PARTS;
/// What took longer than this, about an hour and ten minutes, is counted as this.
const LONGEST: u64 = (1 << 22) - 1;
/// The exact buckets, and those of sixteen doublings.
const BUCKETS: usize = (EXACT + 16 * PARTS) as usize;

/// Lengths of time of the last ten minutes, to be asked for their percentiles.
///
/// The window is the running minute and the nine before it, counted by the times that are handed
/// in, which must not step back by more than that. Lengths are exact below 64 ms and within 1.6 %
/// above; those beyond 70 minutes count as 70 minutes. It takes 23 KiB, however much is recorded.
///
/// ```
/// use okx_local_store::latency::Latency;
///
/// let mut latency = Latency::default();
/// (1..=100).for_each(|ms| latency.record(0, ms));
/// assert_eq!(latency.percentile(0, 0.5), Some(50));
/// assert_eq!(latency.percentile(600_000, 0.5), None);
/// ```
#[derive(Clone, Debug)]
pub struct Latency {
    slots: Vec<Slot>,
}

/// The lengths of one minute.
#[derive(Clone, Debug)]
struct Slot {
    /// Which minute, counted from the epoch.
    minute: i64,
    count: u64,
    buckets: Vec<u32>,
}

impl Default for Latency {
    fn default() -> Latency {
        let slot = Slot { minute: i64::MIN, count: 0, buckets: vec![0; BUCKETS] };
        Latency { slots: vec![slot; SLOTS] }
    }
}

impl Latency {
    /// Counts one length, in ms, at a time. One below zero counts as zero.
    pub fn record(&mut self, now: Millis, ms: Millis) {
        let minute = now.div_euclid(SLOT_MS);
        let slot = &mut self.slots[minute.rem_euclid(SLOTS as i64) as usize];
        if slot.minute != minute {
            slot.minute = minute;
            slot.count = 0;
            slot.buckets.fill(0);
        }
        slot.count += 1;
        let bucket = &mut slot.buckets[bucket(u64::try_from(ms).unwrap_or(0))];
        *bucket = bucket.saturating_add(1);
    }

    /// The length in ms that a share of the lengths in the window does not exceed: 0.5 gives the
    /// median, 0.99 what but one in a hundred keeps to. Nothing if there are none.
    pub fn percentile(&self, now: Millis, share: f64) -> Option<Millis> {
        let rank = ((self.count(now) as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        (0..BUCKETS)
            .find(|&bucket| {
                below += self.live(now).map(|slot| u64::from(slot.buckets[bucket])).sum::<u64>();
                below >= rank
            })
            .map(middle)
    }

    /// How many lengths are in the window.
    pub fn count(&self, now: Millis) -> u64 {
        self.live(now).map(|slot| slot.count).sum()
    }

    fn live(&self, now: Millis) -> impl Iterator<Item = &Slot> {
        let minute = now.div_euclid(SLOT_MS);
        self.slots.iter().filter(move |s| s.minute > minute - SLOTS as i64 && s.minute <= minute)
    }
}

/// The bucket of a length.
fn bucket(ms: u64) -> usize {
    let ms = ms.min(LONGEST);
    let doublings = (ms / PARTS).checked_ilog2().unwrap_or(0);
    let part = (ms >> doublings) - if doublings == 0 { 0 } else { PARTS };
    let before = if doublings == 0 { 0 } else { EXACT + u64::from(doublings - 1) * PARTS };
    (before + part) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Millis {
    let bucket = bucket as i64;
    let (exact, parts) = (EXACT as i64, PARTS as i64);
    if bucket < exact {
        return bucket;
    }
    let doublings = (bucket - exact) / parts + 1;
    let first = ((bucket - exact) % parts + parts) << doublings;
    first + (1 << doublings) / 2
}

const _: () = assert!(BUCKETS * SLOTS * 4 <= 23 << 10, "the doc of Latency tells its size");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_the_last_ten_minutes() {
        let mut latency = Latency::default();
        assert_eq!((latency.count(0), latency.percentile(0, 0.5)), (0, None));
        let start = 7 * MINUTE + 59_999;
        latency.record(start, 10);
        latency.record(start + 1, 20);
        latency.record(start + 1, 30);
        for (name, now, count, median) in [
            ("all", start + 1, 3, Some(20)),
            ("before the second minute", start, 1, Some(10)),
            ("nine minutes later", start + 9 * MINUTE, 3, Some(20)),
            ("the first minute is over", start + 1 + 9 * MINUTE, 2, Some(20)),
            ("all are over", start + 1 + 10 * MINUTE, 0, None),
        ] {
            let found = (latency.count(now), latency.percentile(now, 0.5));
            assert_eq!(found, (count, median), "{name}");
        }
        latency.record(start + 60 * MINUTE, 40);
        assert_eq!(latency.percentile(start + 60 * MINUTE, 0.0), Some(40));
    }

    #[test]
    fn what_cannot_be_is_counted_as_the_nearest_that_can() {
        let mut latency = Latency::default();
        latency.record(-1, -5);
        latency.record(-1, Millis::MAX);
        assert_eq!(latency.percentile(-1, 0.5), Some(0));
        let longest = latency.percentile(-1, 1.0).unwrap();
        assert!((4_100_000..4_200_000).contains(&longest), "{longest}");
    }

    proptest! {
        #[test]
        fn lengths_are_told_within_two_percent(ms in 0..LONGEST as i64) {
            let told = middle(bucket(ms as u64));
            let tolerance = if ms < 64 { 0 } else { ms / 60 };
            prop_assert!((told - ms).abs() <= tolerance, "{} told as {}", ms, told);
        }

        #[test]
        fn the_percentile_is_the_value_of_that_rank(
            mut lengths in prop::collection::vec(0..64i64, 1..200),
            share in 0.0..=1.0f64,
        ) {
            let mut latency = Latency::default();
            lengths.iter().for_each(|&ms| latency.record(0, ms));
            lengths.sort();
            let rank = ((lengths.len() as f64 * share).ceil() as usize).max(1);
            prop_assert_eq!(latency.percentile(0, share), Some(lengths[rank - 1]));
        }
    }
}
