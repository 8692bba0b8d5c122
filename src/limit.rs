//! The budget: how many requests may go out, so that the exchange never has to refuse one.
//!
//! Two bounds hold at once. Per endpoint, the requests that are outstanding or were answered within
//! the exchange's window stay below nine tenths of what it allows: a request counts until it can no
//! longer share a window with the next, however long it was on its way. Over all endpoints, the
//! user's own `rate_limit_per_minute` holds for any 60 seconds.
//!
//! A back-fill would take the whole of the user's minute for hours, and whoever asks for a single
//! answer beside it would find no room. So history leaves a tenth of it, and those who ask beside
//! have to themselves what is above that, but for a last twentieth: they hear of the grants of
//! others a moment late.
//!
//! Requests to an endpoint are also spread evenly over its window. That costs nothing, since the
//! window is the bound, and it keeps answers in the order of their questions: pages that are stored
//! in order lie compactly (86 against 93 bytes a row, measured).

use std::collections::{BTreeMap, VecDeque};

use crate::time::{MINUTE, Millis};
use crate::wire::{Endpoint, Rate};

/// How long a request of an earlier process may have been on its way: its grant is on record, its
/// answer is not.
const ON_ITS_WAY_MS: Millis = 500;

/// What may be asked when. Times are local.
///
/// ```
/// use okx_local_store::limit::Budget;
/// use okx_local_store::wire::{Endpoint, Rate};
///
/// let mut budget = Budget::new(0, |_| Rate { requests: 10, window_ms: 2_000 });
/// for n in 0..9 {
///     assert_eq!(budget.free_at(Endpoint::Time, n * 222), Some(n * 222));
///     budget.grant(Endpoint::Time, n * 222);
/// }
/// assert_eq!(budget.free_at(Endpoint::Time, 1_998), None, "only an answer makes room");
/// budget.answered(Endpoint::Time, 2_000);
/// assert_eq!(budget.free_at(Endpoint::Time, 2_000), Some(4_000));
/// ```
#[derive(Debug)]
pub struct Budget {
    per_minute: usize,
    /// What history may take of it.
    history_per_minute: usize,
    rate: fn(Endpoint) -> Rate,
    gauges: BTreeMap<Endpoint, Gauge>,
    /// When requests were granted in the last minute, oldest first.
    minute: VecDeque<Millis>,
}

#[derive(Debug, Default)]
struct Gauge {
    outstanding: usize,
    /// When the last request was granted.
    granted: Option<Millis>,
    /// When requests were answered within the window, oldest first.
    answered: VecDeque<Millis>,
}

impl Budget {
    /// A fresh budget. `per_minute` 0 leaves only the exchange's own limits.
    pub fn new(per_minute: u32, rate: fn(Endpoint) -> Rate) -> Budget {
        let least = per_minute.min(1);
        Budget {
            per_minute: per_minute as usize,
            history_per_minute: (per_minute - per_minute.div_ceil(10)).max(least) as usize,
            rate,
            gauges: BTreeMap::new(),
            minute: VecDeque::new(),
        }
    }

    /// The budget of whoever asks beside those who keep the store, and has no history to fetch.
    pub fn beside(per_minute: u32, rate: fn(Endpoint) -> Rate) -> Budget {
        let own = (per_minute - per_minute / 20) as usize;
        Budget { per_minute: own, history_per_minute: own, ..Budget::new(per_minute, rate) }
    }

    /// Takes over what other processes were granted, earlier ones or those beside this one, so
    /// that they do not double the budget. A grant from the future is a clock's mistake, and
    /// counts as of now.
    pub fn restore(&mut self, grants: &[(Endpoint, Millis)], now: Millis) {
        for &(endpoint, at) in grants {
            let at = at.min(now);
            insert(&mut self.minute, at);
            let gauge = self.gauges.entry(endpoint).or_default();
            gauge.granted = gauge.granted.max(Some(at));
            insert(&mut gauge.answered, at + ON_ITS_WAY_MS);
        }
    }

    /// When the next request to an endpoint may go out; `None` if only an answer can tell.
    pub fn free_at(&mut self, endpoint: Endpoint, now: Millis) -> Option<Millis> {
        let (rate, per_minute) = ((self.rate)(endpoint), self.by_user(endpoint));
        let gauge = self.gauges.entry(endpoint).or_default();
        drop_until(&mut gauge.answered, now - rate.window_ms);
        drop_until(&mut self.minute, now - MINUTE);

        let allowed = allowed(rate);
        let taken = gauge.outstanding + gauge.answered.len();
        let by_exchange = match taken.checked_sub(allowed) {
            None => now,
            Some(over) => gauge.answered.get(over)? + rate.window_ms,
        };
        let pace_ms = rate.window_ms / allowed as Millis;
        // History is spread over the user's minute, too; the newest pages may come at once.
        let pace_ms = match per_minute {
            1.. if endpoint == Endpoint::History => pace_ms.max(MINUTE / per_minute as Millis),
            _ => pace_ms,
        };
        let by_pace = gauge.granted.map_or(now, |at| at + pace_ms);
        let by_user = match self.minute.len().checked_sub(per_minute) {
            Some(over) if per_minute > 0 => self.minute.get(over).map_or(now, |at| at + MINUTE),
            _ => now,
        };
        Some(by_exchange.max(by_pace).max(by_user))
    }

    /// Spends one request, which goes out now.
    pub fn grant(&mut self, endpoint: Endpoint, now: Millis) {
        let gauge = self.gauges.entry(endpoint).or_default();
        gauge.outstanding += 1;
        gauge.granted = Some(now);
        insert(&mut self.minute, now);
    }

    /// A request has ended, with an answer or without.
    pub fn answered(&mut self, endpoint: Endpoint, now: Millis) {
        let gauge = self.gauges.entry(endpoint).or_default();
        gauge.outstanding = gauge.outstanding.saturating_sub(1);
        insert(&mut gauge.answered, now);
    }

    /// Requests that can go out in a minute at the most to one endpoint.
    pub fn per_minute(&self, endpoint: Endpoint) -> f64 {
        let rate = (self.rate)(endpoint);
        let by_exchange = allowed(rate) as f64 * MINUTE as f64 / rate.window_ms as f64;
        let by_user = self.by_user(endpoint);
        if by_user > 0 { by_exchange.min(by_user as f64) } else { by_exchange }
    }

    /// What the user lets an endpoint have of a minute; 0 for no bound.
    fn by_user(&self, endpoint: Endpoint) -> usize {
        match endpoint {
            Endpoint::History => self.history_per_minute,
            Endpoint::Candles | Endpoint::Time | Endpoint::Instruments => self.per_minute,
        }
    }
}

/// Nine tenths of the documented limit: clients that ran right at it were refused all the same.
fn allowed(rate: Rate) -> usize {
    (rate.requests as usize * 9 / 10).max(1)
}

/// Adds a time in its place, which is the last but for what was heard of late.
fn insert(times: &mut VecDeque<Millis>, at: Millis) {
    let place = times.partition_point(|&known| known <= at);
    times.insert(place, at);
}

fn drop_until(times: &mut VecDeque<Millis>, until: Millis) {
    while times.front().is_some_and(|&at| at <= until) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(endpoint: Endpoint) -> Rate {
        match endpoint {
            Endpoint::History => Rate { requests: 20, window_ms: 2_000 },
            _ => Rate { requests: 40, window_ms: 2_000 },
        }
    }

    #[test]
    fn requests_are_spread_over_the_window() {
        let mut budget = Budget::new(0, rate);
        budget.grant(Endpoint::History, 1_000);
        budget.answered(Endpoint::History, 1_010);
        assert_eq!(budget.free_at(Endpoint::History, 1_010), Some(1_000 + 2_000 / 18));
        assert_eq!(budget.free_at(Endpoint::Candles, 1_010), Some(1_010));
    }

    #[test]
    fn the_users_limit_spans_all_endpoints() {
        let mut budget = Budget::new(3, rate);
        for (endpoint, at) in
            [(Endpoint::History, 0), (Endpoint::Candles, 10), (Endpoint::Time, 20)]
        {
            assert_eq!(budget.free_at(endpoint, at), Some(at));
            budget.grant(endpoint, at);
            budget.answered(endpoint, at);
        }
        assert_eq!(budget.free_at(Endpoint::Candles, 30), Some(MINUTE));
        assert_eq!(budget.free_at(Endpoint::Candles, MINUTE), Some(MINUTE));
    }

    /// One that back-fills for ever, and one beside it that has a question each ten seconds: they
    /// look at each other's grants as two processes do.
    #[test]
    fn a_back_fill_leaves_room_for_those_who_ask_beside_it() {
        for (per_minute, longest_ms) in [(240, 6_000), (60, 21_000)] {
            let mut fetcher = Budget::new(per_minute, rate);
            let mut asker = Budget::beside(per_minute, rate);
            let (mut all, mut asked_at, mut longest) = (Vec::new(), None, 0);
            for now in (0..10 * MINUTE).step_by(50) {
                for endpoint in [Endpoint::History, Endpoint::Candles] {
                    let is_asker = endpoint == Endpoint::Candles;
                    asked_at = asked_at.or((now % 10_000 == 0).then_some(now));
                    let budget = if is_asker { &mut asker } else { &mut fetcher };
                    let is_free = budget.free_at(endpoint, now).is_some_and(|at| at <= now);
                    if !is_free || is_asker && asked_at.is_none() {
                        continue;
                    }
                    budget.grant(endpoint, now);
                    budget.answered(endpoint, now);
                    all.push(now);
                    let other = if is_asker { &mut fetcher } else { &mut asker };
                    other.restore(&[(endpoint, now)], now);
                    if is_asker {
                        longest = longest.max(now - asked_at.take().unwrap());
                    }
                }
            }
            assert!(longest < longest_ms, "{longest} ms at {per_minute}");
            let most = all
                .iter()
                .map(|&from| all.iter().filter(|&&at| at >= from && at < from + MINUTE).count());
            let most = most.max().unwrap();
            assert!(most <= per_minute as usize, "{most} of {per_minute}");
        }
    }

    #[test]
    fn a_restart_does_not_double_the_budget() {
        let mut budget = Budget::new(0, rate);
        let grants: Vec<_> = (0..18).map(|n| (Endpoint::History, 1_000 + n)).collect();
        budget.restore(&grants, 1_500);
        assert_eq!(budget.free_at(Endpoint::History, 1_500), Some(1_000 + ON_ITS_WAY_MS + 2_000));
        assert_eq!(budget.free_at(Endpoint::Candles, 1_500), Some(1_500));
        let mut budget = Budget::new(0, rate);
        budget.restore(&[(Endpoint::History, 99_999_999)], 1_500);
        assert_eq!(budget.minute, [1_500], "a grant from the future counts as of now");
    }

    #[test]
    fn requests_of_others_count_from_when_they_are_heard_of() {
        let mut budget = Budget::new(0, rate);
        for n in 0..9 {
            budget.grant(Endpoint::History, n * 111);
            budget.answered(Endpoint::History, n * 111 + 10);
        }
        let others: Vec<_> = (0..9).map(|n| (Endpoint::History, n * 111)).collect();
        budget.restore(&others, 1_000);
        assert_eq!(budget.free_at(Endpoint::History, 1_000), Some(2_010));
        assert_eq!(budget.minute.len(), 18);
        assert!(budget.minute.iter().is_sorted());
    }

    proptest! {
        /// Whatever the delays on the way there and back, no window of the exchange ever sees more
        /// than nine tenths of its limit.
        #[test]
        fn no_window_of_the_exchange_overflows(
            trips in prop::collection::vec((0i64..900, 0i64..900, 0i64..300), 1..200),
        ) {
            let mut budget = Budget::new(0, rate);
            let (mut now, mut arrivals, mut returns) = (0, Vec::new(), Vec::<Millis>::new());
            for (there, back, idle) in trips {
                now += idle;
                loop {
                    returns.sort();
                    while returns.first().is_some_and(|&at| at <= now) {
                        budget.answered(Endpoint::History, returns.remove(0));
                    }
                    match budget.free_at(Endpoint::History, now) {
                        Some(at) if at <= now => break,
                        Some(at) => now = at.min(returns.first().copied().unwrap_or(at)),
                        None => now = returns[0],
                    }
                }
                budget.grant(Endpoint::History, now);
                arrivals.push(now + there);
                returns.push(now + there + back);
            }
            arrivals.sort();
            for (n, &first) in arrivals.iter().enumerate() {
                let seen = arrivals[n..].iter().take_while(|&&at| at < first + 2_000).count();
                prop_assert!(seen <= 18, "{seen} requests within one window");
            }
        }
    }
}
