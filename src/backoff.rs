//! Back-off: how long an endpoint is left alone after a failure.

use crate::time::{MINUTE, Millis, SECOND};
use crate::wire::Policy;

/// The first and the longest pause after a failure that passes by itself.
const BUSY: (Millis, Millis) = (SECOND, 8 * SECOND);
/// The same after a rate limit. OKX counts in windows of two seconds.
const RATE_LIMITED: (Millis, Millis) = (2 * SECOND, 8 * SECOND);
/// The same after a refusal of this address or region, which no haste mends.
const DENIED: (Millis, Millis) = (2 * MINUTE, 16 * MINUTE);
/// The longest `Retry-After` that is obeyed.
const RETRY_AFTER_MAX: Millis = 15 * MINUTE;

/// A small generator of random numbers (splitmix64), seeded from outside so that everything that
/// is drawn can be drawn again. Source: <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that always draws the same numbers for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number from 0 up to but without `bound`; 0 if that leaves nothing.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

/// The pause of one endpoint. Times are local.
///
/// ```
/// use okx_local_store::backoff::{Backoff, Random};
/// use okx_local_store::wire::Policy;
///
/// let (mut backoff, mut random) = (Backoff::default(), Random::new(1));
/// backoff.failed(Policy::Busy { retry_after_ms: None }, 0, &mut random);
/// assert!((1_000..1_250).contains(&backoff.free_at()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    free_at: Millis,
}

impl Backoff {
    /// When the endpoint may be asked again.
    pub fn free_at(&self) -> Millis {
        self.free_at
    }

    /// How often it failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Lengthens the pause after a failure: doubled each time, plus up to a quarter so that many
    /// clients do not return together. Failures of requests that were under way when the pause
    /// began are the same failure.
    pub fn failed(&mut self, policy: Policy, now: Millis, random: &mut Random) {
        let ((first, longest), retry_after_ms) = match policy {
            Policy::Permanent => return,
            Policy::Denied => (DENIED, None),
            Policy::Busy { retry_after_ms } => (BUSY, retry_after_ms),
            Policy::RateLimited { retry_after_ms } => (RATE_LIMITED, retry_after_ms),
        };
        if now >= self.free_at {
            self.failures += 1;
        }
        let doubled = first << (self.failures.saturating_sub(1)).min(10);
        let pause = doubled.clamp(first, longest);
        let jitter = random.below(pause as u64 / 4) as Millis;
        let asked = retry_after_ms.unwrap_or(0).clamp(0, RETRY_AFTER_MAX);
        self.free_at = self.free_at.max(now + (pause + jitter).max(asked));
    }

    /// A good answer: the next failure starts from the shortest pause again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Policy = Policy::Busy { retry_after_ms: None };

    fn pauses(policy: Policy, count: usize) -> Vec<Millis> {
        let (mut backoff, mut random, mut now) = (Backoff::default(), Random::new(7), 0);
        let mut pause = || {
            backoff.failed(policy, now, &mut random);
            let pause = backoff.free_at() - now;
            now = backoff.free_at();
            pause
        };
        (0..count).map(|_| pause()).collect()
    }

    #[test]
    fn pauses_double_to_their_bound_with_a_little_chance() {
        let limited = Policy::RateLimited { retry_after_ms: None };
        let cases = [
            (BUSY, [1, 2, 4, 8, 8]),
            (limited, [2, 4, 8, 8, 8]),
            (Policy::Denied, [120, 240, 480, 960, 960]),
        ];
        for (policy, seconds) in cases {
            for (pause, seconds) in pauses(policy, 5).into_iter().zip(seconds) {
                let range = seconds * SECOND..seconds * SECOND * 5 / 4;
                assert!(range.contains(&pause), "{policy:?}: {pause} ms is not in {range:?}");
            }
        }
    }

    #[test]
    fn the_exchange_may_ask_for_a_longer_pause_within_reason() {
        let ask = |ms| Policy::RateLimited { retry_after_ms: Some(ms) };
        assert_eq!(pauses(ask(30_000), 1), [30_000]);
        assert_eq!(pauses(ask(i64::MAX), 1), [RETRY_AFTER_MAX]);
        assert!(pauses(ask(-5), 1)[0] >= 2_000);
    }

    #[test]
    fn failures_under_way_together_count_once_and_success_forgives() {
        let (mut backoff, mut random) = (Backoff::default(), Random::new(7));
        for now in 0..4 {
            backoff.failed(BUSY, now, &mut random);
        }
        assert!(backoff.free_at() < 1_300);
        backoff.succeeded();
        backoff.failed(BUSY, 10_000, &mut random);
        assert!(backoff.free_at() < 11_250);
    }
}
