//! The signal thread: SIGINT and SIGTERM, told to the supervisor as the wish to stop.

use std::io;

use crossbeam_channel::{Receiver, TrySendError, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Signals that wait to be heard; more of them say nothing new.
const WAITING_MAX: usize = 4;

/// The user wants the program to end. The second time, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop;

/// The running signal thread. It ends with this value.
pub struct SignalHandle {
    handle: Handle,
}

impl Drop for SignalHandle {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Starts to listen. From here on the signals no longer end the process by themselves.
pub fn listen(
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> io::Result<(SignalHandle, Receiver<Stop>)> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = signals.handle();
    let (stops, heard) = bounded(WAITING_MAX);
    spawn(Box::new(move || {
        for _ in signals.forever() {
            if let Err(TrySendError::Disconnected(_)) = stops.try_send(Stop) {
                break;
            }
        }
    }))?;
    Ok((SignalHandle { handle }, heard))
}
