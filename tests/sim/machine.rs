//! The machine on which processes run: its calendar, which may be wrong and may step, and its
//! monotonic clock, which drifts and stands still while the machine sleeps.

use okx_local_store::time::{Millis, Now, Offset};

/// Parts of which a drift is counted.
const MILLION: i64 = 1_000_000;

/// The machine's two clocks, as functions of the true time.
#[derive(Debug)]
pub struct Machine {
    /// How wrong the calendar is.
    wrong_ms: Millis,
    /// By how many millionths the monotonic clock runs fast.
    drift: i64,
    /// What the monotonic clock showed at a moment, from which it goes on.
    anchor: (Millis, Millis),
}

impl Machine {
    pub fn new(at: Millis, wrong_ms: Millis, drift: i64) -> Machine {
        Machine { wrong_ms, drift, anchor: (at, 1_000_000) }
    }

    /// Until when the machine sleeps; in the past if it does not.
    pub fn awake_at(&self) -> Millis {
        self.anchor.0
    }

    /// The monotonic clock.
    pub fn monotonic(&self, at: Millis) -> Millis {
        let (since, shown) = self.anchor;
        shown + (at - since).max(0) * (MILLION + self.drift) / MILLION
    }

    /// The calendar.
    pub fn wall(&self, at: Millis) -> Millis {
        at + self.wrong_ms
    }

    /// The calendar is set forward, or back.
    pub fn step(&mut self, by_ms: Millis) {
        self.wrong_ms += by_ms;
    }

    /// The machine sleeps for so long.
    pub fn sleep(&mut self, at: Millis, length_ms: Millis) {
        self.anchor = (at.max(self.anchor.0) + length_ms, self.monotonic(at));
    }
}

/// The clocks of a process: what [`okx_local_store::time::Clock`] makes of the machine's.
#[derive(Debug)]
pub struct Clock {
    started: Millis,
    started_at: Millis,
    pub offset: Offset,
}

impl Clock {
    pub fn start(machine: &Machine, at: Millis, offset_ms: Millis) -> Clock {
        let (started, started_at) = (machine.monotonic(at), machine.wall(at));
        Clock { started, started_at, offset: Offset::new(offset_ms) }
    }

    pub fn now(&self, machine: &Machine, at: Millis) -> Now {
        self.offset.read(self.local(machine, at))
    }

    pub fn learn(&self, machine: &Machine, at: Millis, exchange: Millis) {
        self.offset.learn(self.local(machine, at), exchange);
    }

    fn local(&self, machine: &Machine, at: Millis) -> Millis {
        self.started_at + machine.monotonic(at) - self.started
    }
}
