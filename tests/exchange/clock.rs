//! The exchange's clock: real time scaled by a factor, from a start of the test's choosing.

use std::sync::Mutex;
use std::time::Instant;

use super::held;

/// The start of a clock nobody set: fixed, so that a failing run can be repeated.
pub const DEFAULT_START_MS: i64 = 1_790_000_000_000;

pub struct Clock {
    hand: Mutex<Hand>,
}

struct Hand {
    real: Instant,
    exchange_ms: i64,
    speed: f64,
}

impl Hand {
    fn now(&self) -> i64 {
        let passed_ms = self.real.elapsed().as_secs_f64() * 1_000.0 * self.speed;
        self.exchange_ms + passed_ms as i64
    }

    fn restart_at(&mut self, exchange_ms: i64) {
        self.real = Instant::now();
        self.exchange_ms = exchange_ms;
    }
}

impl Clock {
    /// A clock that shows `start_ms` now and gains `speed` ms in each real one; 0 freezes it.
    pub fn new(start_ms: i64, speed: f64) -> Self {
        let hand = Hand { real: Instant::now(), exchange_ms: start_ms, speed };
        Self { hand: Mutex::new(hand) }
    }

    pub fn now(&self) -> i64 {
        held(&self.hand).now()
    }

    pub fn set(&self, exchange_ms: i64) {
        held(&self.hand).restart_at(exchange_ms);
    }

    pub fn advance(&self, by_ms: i64) {
        held(&self.hand).exchange_ms += by_ms;
    }

    /// Changes the pace from now on; the time that has passed keeps the old one.
    pub fn set_speed(&self, speed: f64) {
        let mut hand = held(&self.hand);
        let now = hand.now();
        hand.restart_at(now);
        hand.speed = speed;
    }
}
