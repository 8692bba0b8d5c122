//! The end of threads that wait: a wait which can be cut short for good.

use std::io::{self, ErrorKind};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::held;

/// Closed once and for all when the threads are to end; every wait of theirs ends with it.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    closing: Condvar,
}

impl Gate {
    pub fn close(&self) {
        *held(&self.closed) = true;
        self.closing.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        *held(&self.closed)
    }

    /// Lets `ms` pass; an error if the gate is closed meanwhile.
    pub fn pause(&self, ms: u64) -> io::Result<()> {
        let deadline = Instant::now() + Duration::from_millis(ms);
        let mut closed = held(&self.closed);
        while !*closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let woken = self.closing.wait_timeout(closed, left);
            closed = woken.expect("because no holder of this lock panics").0;
        }
        Err(ErrorKind::ConnectionAborted.into())
    }
}
