//! Measuring: two things by turns, so that whatever else the machine does falls on both alike.

use std::fmt;
use std::time::{Duration, Instant};

/// How long something took, each time.
#[derive(Clone, Debug)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Times {
        assert!(!times.is_empty(), "nothing was measured");
        times.sort();
        Times(times)
    }

    pub fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// How many of `things`, done each time, make a second.
    pub fn rate(&self, things: usize) -> f64 {
        things as f64 / self.median().as_secs_f64()
    }
}

impl fmt::Display for Times {
    /// The median, with the least and the most.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        write!(f, "{} ({}–{})", short(self.median()), short(least), short(most))
    }
}

/// A length of time in three digits.
pub fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s >= 1e-6 => (s * 1e6, "µs"),
        s => (s * 1e9, "ns"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

/// A subject and its reference, measured by turns.
pub struct Pair {
    pub subject: Times,
    pub reference: Times,
}

impl Pair {
    /// The subject's time over the reference's.
    pub fn time_ratio(&self) -> f64 {
        self.subject.median().as_secs_f64() / self.reference.median().as_secs_f64()
    }

    /// The subject's rate over the reference's, where both do the same.
    pub fn rate_ratio(&self) -> f64 {
        1.0 / self.time_ratio()
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; reference {}", self.subject, self.reference)
    }
}

/// The time that a piece of work takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let started = Instant::now();
    std::hint::black_box(work());
    started.elapsed()
}

/// Measures both by turns, each first as often as the other. A first turn of each is for warming
/// up and does not count.
pub fn by_turns(
    turns: usize,
    mut subject: impl FnMut() -> Duration,
    mut reference: impl FnMut() -> Duration,
) -> Pair {
    let (mut subjects, mut references) = (Vec::new(), Vec::new());
    subject();
    reference();
    for turn in 0..turns {
        if turn % 2 == 0 {
            subjects.push(subject());
            references.push(reference());
        } else {
            references.push(reference());
            subjects.push(subject());
        }
    }
    Pair { subject: Times::new(subjects), reference: Times::new(references) }
}

/// The time of one call, from so many in a row.
pub fn per_call(calls: usize, mut call: impl FnMut()) -> Duration {
    let started = Instant::now();
    (0..calls).for_each(|_| call());
    started.elapsed() / calls as u32
}
