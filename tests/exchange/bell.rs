//! A bell that rings whenever a request arrives or is answered, so that a test can wait for what
//! a client does without guessing how long that takes.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use super::held;

/// How long a test waits at the most: nothing takes a tenth of it, unless it hangs.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often a wait looks by itself, for what happens outside of the exchange.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Default)]
pub struct Bell {
    rings: Mutex<u64>,
    heard: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *held(&self.rings) += 1;
        self.heard.notify_all();
    }

    /// # Panics
    /// When `met` is still false at the deadline; the message says that this was about `what`.
    pub fn wait_until(&self, what: &str, mut met: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let rings = *held(&self.rings);
            if met() {
                return;
            }
            assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for {what}");
            let waited =
                self.heard.wait_timeout_while(held(&self.rings), LOOK, |now| *now == rings);
            drop(waited.expect("because no holder of this lock panics"));
        }
    }
}
