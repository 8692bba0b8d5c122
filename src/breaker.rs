//! The circuit breaker of the stream: when to connect again, and when to leave it for a while.
//!
//! While it is closed a lost connection is tried again after a pause that doubles. Too many
//! failures open it: then everything polls and the stream rests. After the recovery time it is
//! half open: one connection is tried with a few series, and only data that arrive close it.

use std::collections::VecDeque;

use crate::backoff::Random;
use crate::time::{MINUTE, Millis, SECOND};

/// Failures are counted over so long.
const WINDOW_MS: Millis = MINUTE;
/// A connection that lived less is a reason to hesitate before the next.
const BRIEF_MS: Millis = MINUTE;
/// The recovery time doubles up to this.
const RECOVERY_MAX_MS: Millis = 5 * MINUTE;
/// The exchange takes three connections a second from one address.
/// Source: <https://www.okx.com/docs-v5/en/#overview-websocket-connect>.
const CONNECTS: usize = 3;
/// A second, and a little more, because the exchange counts on its own clock.
const CONNECTS_WINDOW_MS: Millis = SECOND + 100;

/// What the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures within a minute that open it.
    pub failure_threshold: u32,
    /// Failures in a row that open it.
    pub max_reconnect_attempts: u32,
    /// How long it stays open the first time.
    pub recovery_timeout_ms: Millis,
    /// The first pause between two attempts.
    pub reconnect_delay_base_ms: Millis,
    /// The longest.
    pub reconnect_delay_max_ms: Millis,
}

/// Whether the stream is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It is.
    #[default]
    Closed,
    /// It rests.
    Open,
    /// It is being tried.
    HalfOpen,
}

impl State {
    /// The word in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }
}

/// The breaker. Times are local.
///
/// ```
/// use okx_local_store::backoff::Random;
/// use okx_local_store::breaker::{Breaker, Settings, State};
///
/// let settings = Settings {
///     failure_threshold: 5,
///     max_reconnect_attempts: 2,
///     recovery_timeout_ms: 60_000,
///     reconnect_delay_base_ms: 1_000,
///     reconnect_delay_max_ms: 60_000,
/// };
/// let (mut breaker, mut random) = (Breaker::new(settings), Random::new(1));
/// assert_eq!(breaker.connect_at(0), 0);
/// breaker.failed(0, &mut random);
/// breaker.failed(2_000, &mut random);
/// assert_eq!((breaker.state(2_000), breaker.connect_at(2_000)), (State::Open, 62_000));
/// assert_eq!(breaker.state(62_000), State::HalfOpen);
/// breaker.data();
/// assert_eq!(breaker.state(62_000), State::Closed);
/// ```
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: Settings,
    /// When it failed within the window.
    failures: VecDeque<Millis>,
    in_a_row: u32,
    /// Connections in a row that brought data and yet did not live long.
    brief: u32,
    /// Until when the next attempt waits while it is closed.
    pause_until: Millis,
    /// Until when it is open; afterwards it is half open until data or another failure come.
    open_until: Option<Millis>,
    recovery_ms: Millis,
    /// When connections were tried last.
    connects: VecDeque<Millis>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(settings: Settings) -> Breaker {
        Breaker {
            settings,
            failures: VecDeque::new(),
            in_a_row: 0,
            brief: 0,
            pause_until: Millis::MIN,
            open_until: None,
            recovery_ms: settings.recovery_timeout_ms,
            connects: VecDeque::new(),
        }
    }

    /// Other settings hold from the next failure on; what was counted stays.
    pub fn configure(&mut self, settings: Settings) {
        if self.recovery_ms == self.settings.recovery_timeout_ms {
            self.recovery_ms = settings.recovery_timeout_ms;
        }
        self.settings = settings;
    }

    /// Whether the stream is used now.
    pub fn state(&self, now: Millis) -> State {
        match self.open_until {
            None => State::Closed,
            Some(until) if now < until => State::Open,
            Some(_) => State::HalfOpen,
        }
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.in_a_row
    }

    /// When the next connection may be tried.
    pub fn connect_at(&self, now: Millis) -> Millis {
        let by_rate = match self.connects.len().checked_sub(CONNECTS) {
            Some(over) => self.connects[over] + CONNECTS_WINDOW_MS,
            None => now,
        };
        let by_pause = self.open_until.unwrap_or(self.pause_until);
        by_rate.max(by_pause).max(now)
    }

    /// A connection is being tried.
    pub fn connecting(&mut self, now: Millis) {
        if self.connects.len() >= CONNECTS {
            self.connects.pop_front();
        }
        self.connects.push_back(now);
    }

    /// An attempt or a connection ended before its first data, or fell silent; tells whether that
    /// opened the breaker.
    pub fn failed(&mut self, now: Millis, random: &mut Random) -> bool {
        self.in_a_row += 1;
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|&at| at <= now - WINDOW_MS) {
            self.failures.pop_front();
        }
        self.pause(now, random);
        let trial = self.state(now) == State::HalfOpen;
        if trial {
            self.recovery_ms = (self.recovery_ms * 2).min(self.recovery_max_ms());
        }
        let many = self.failures.len() >= self.settings.failure_threshold as usize
            || self.in_a_row >= self.settings.max_reconnect_attempts;
        let opens = trial || (many && self.open_until.is_none());
        if opens {
            self.open_until = Some(now + self.recovery_ms);
        }
        opens
    }

    /// A connection that had brought data is lost after it lived so long: no failure, but no haste
    /// either, and the less so the more of them in a row were brief.
    pub fn lost(&mut self, now: Millis, lived_ms: Millis, random: &mut Random) {
        self.in_a_row = 0;
        if lived_ms >= BRIEF_MS {
            self.brief = 0;
        }
        let longest = self.doubled(self.brief);
        self.brief += u32::from(lived_ms < BRIEF_MS);
        self.pause_until = now + random.below(longest.max(1) as u64) as Millis;
    }

    /// Somebody has mended something, perhaps: no pause and no rest keeps the next attempt back.
    pub fn hasten(&mut self, now: Millis) {
        self.pause_until = Millis::MIN;
        self.open_until = self.open_until.map(|until| until.min(now));
    }

    /// Data arrived, which alone proves that the stream works.
    pub fn data(&mut self) {
        self.failures.clear();
        self.in_a_row = 0;
        self.open_until = None;
        self.recovery_ms = self.settings.recovery_timeout_ms;
        self.pause_until = Millis::MIN;
    }

    /// The pause before the next attempt: doubling, and drawn from its upper half.
    fn pause(&mut self, now: Millis, random: &mut Random) {
        let doubled = self.doubled(self.in_a_row - 1);
        let half = doubled / 2;
        self.pause_until = now + half + random.below((doubled - half + 1) as u64) as Millis;
    }

    /// The first pause, doubled so many times.
    fn doubled(&self, times: u32) -> Millis {
        let (base, max) =
            (self.settings.reconnect_delay_base_ms, self.settings.reconnect_delay_max_ms);
        base.saturating_mul(1 << times.min(20)).clamp(base, max)
    }

    fn recovery_max_ms(&self) -> Millis {
        RECOVERY_MAX_MS.max(self.settings.recovery_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::HOUR;

    fn breaker() -> (Breaker, Random) {
        let settings = Settings {
            failure_threshold: 5,
            max_reconnect_attempts: 10,
            recovery_timeout_ms: 60 * SECOND,
            reconnect_delay_base_ms: SECOND,
            reconnect_delay_max_ms: 60 * SECOND,
        };
        (Breaker::new(settings), Random::new(3))
    }

    fn wait(breaker: &Breaker, now: Millis) -> Millis {
        breaker.connect_at(now) - now
    }

    #[test]
    fn pauses_double_within_their_bounds() {
        let (mut breaker, mut random) = breaker();
        let mut now = 0;
        for seconds in [1, 2, 4, 8] {
            breaker.failed(now, &mut random);
            let pause = wait(&breaker, now);
            assert!((seconds * SECOND / 2..=seconds * SECOND).contains(&pause), "{pause}");
            now += pause;
        }
        breaker.data();
        assert_eq!(wait(&breaker, now), 0);
    }

    #[test]
    fn it_opens_by_failures_within_a_minute_or_in_a_row() {
        let (mut breaker, mut random) = breaker();
        for n in 0..4 {
            assert!(!breaker.failed(n * SECOND, &mut random));
        }
        assert!(breaker.failed(4 * SECOND, &mut random));
        assert_eq!(breaker.state(63 * SECOND), State::Open);
        assert_eq!(breaker.state(64 * SECOND), State::HalfOpen);

        let (mut breaker, mut random) = super::tests::breaker();
        let mut opened = 0;
        for n in 1..=10 {
            opened += i32::from(breaker.failed(n * 61 * SECOND, &mut random));
            assert_eq!(opened, i32::from(n == 10), "failures far apart count in a row only");
        }
    }

    #[test]
    fn a_failed_trial_doubles_the_rest_up_to_five_minutes() {
        let (mut breaker, mut random) = breaker();
        let mut now = 0;
        while !breaker.failed(now, &mut random) {}
        for seconds in [60, 120, 240, 300, 300] {
            assert_eq!(wait(&breaker, now), seconds * SECOND);
            now += seconds * SECOND;
            assert_eq!(breaker.state(now), State::HalfOpen);
            assert!(breaker.failed(now, &mut random));
        }
        now = breaker.connect_at(now);
        breaker.data();
        assert_eq!((breaker.state(now), breaker.failures()), (State::Closed, 0));
    }

    #[test]
    fn a_rest_that_is_cut_short_leaves_the_trial() {
        let (mut breaker, mut random) = breaker();
        breaker.failed(0, &mut random);
        breaker.hasten(100);
        assert_eq!((breaker.state(100), wait(&breaker, 100)), (State::Closed, 0));
        while !breaker.failed(100, &mut random) {}
        breaker.hasten(200);
        assert_eq!((breaker.state(200), wait(&breaker, 200)), (State::HalfOpen, 0));
        assert!(breaker.failed(200, &mut random), "a trial that fails opens it again");
        for _ in 0..CONNECTS {
            breaker.connecting(300);
        }
        breaker.hasten(300);
        assert_eq!(wait(&breaker, 300), CONNECTS_WINDOW_MS, "the exchange counts all the same");
    }

    #[test]
    fn other_settings_hold_from_the_next_failure_on() {
        let (mut breaker, mut random) = breaker();
        breaker.failed(0, &mut random);
        let recovery_timeout_ms = 10 * SECOND;
        let changed = Settings { failure_threshold: 2, recovery_timeout_ms, ..breaker.settings };
        breaker.configure(changed);
        assert!(breaker.failed(0, &mut random));
        assert_eq!(wait(&breaker, 0), recovery_timeout_ms);
    }

    #[test]
    fn a_lost_connection_is_no_failure_and_is_soon_replaced() {
        let (mut breaker, mut random) = breaker();
        for n in 0..50 {
            let now = n * MINUTE;
            breaker.data();
            breaker.lost(now, MINUTE, &mut random);
            assert!(wait(&breaker, now) <= SECOND);
        }
        assert_eq!(breaker.state(50 * MINUTE), State::Closed);
    }

    #[test]
    fn brief_connections_in_a_row_come_ever_more_seldom_until_one_lives_longer() {
        let (mut breaker, mut random) = breaker();
        let (mut now, mut tried) = (0, 0);
        while now < HOUR {
            breaker.data();
            breaker.lost(now, SECOND, &mut random);
            now = breaker.connect_at(now) + SECOND;
            tried += 1;
            assert!(tried > 4 || now < 15 * SECOND, "the first ones cost little: {now}");
        }
        assert!((HOUR / MINUTE..HOUR / (20 * SECOND)).contains(&tried), "{tried} within an hour");
        assert_eq!((breaker.state(now), breaker.failures()), (State::Closed, 0));
        breaker.lost(now, MINUTE, &mut random);
        breaker.lost(now, SECOND, &mut random);
        assert!(wait(&breaker, now) <= SECOND);
    }

    #[test]
    fn no_second_sees_four_connections() {
        let (mut breaker, _) = breaker();
        let mut times = Vec::new();
        let mut now = 0;
        for _ in 0..10 {
            now = breaker.connect_at(now);
            breaker.connecting(now);
            times.push(now);
        }
        assert!(times.windows(4).all(|four| four[3] - four[0] > SECOND), "{times:?}");
    }
}
