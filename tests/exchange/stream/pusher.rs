//! The thread that works out what is pushed, for all connections.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::super::gate::Gate;
use super::super::rest::Core;

/// How exactly pushes keep their time.
const TICK_MS: u64 = 10;

pub struct Pusher {
    gate: Arc<Gate>,
    thread: JoinHandle<()>,
}

impl Pusher {
    pub fn start(core: Arc<Core>) -> io::Result<Self> {
        let gate = Arc::new(Gate::default());
        let closing = Arc::clone(&gate);
        let thread = thread::Builder::new().name("exchange-pusher".to_owned());
        let thread = thread.spawn(move || {
            while closing.pause(TICK_MS).is_ok() {
                core.hub.tick(&core.clock, &core.market);
            }
        })?;
        Ok(Self { gate, thread })
    }

    /// False if the thread panicked.
    #[must_use]
    pub fn stop(self) -> bool {
        self.gate.close();
        self.thread.join().is_ok()
    }
}
