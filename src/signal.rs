//! The signal thread: SIGINT and SIGTERM, told to the supervisor as the wish to stop, and for a
//! daemon SIGHUP, as the wish to read the configuration again.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TrySendError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

/// Signals that wait to be heard; more of them say nothing new.
pub const WAITING_MAX: usize = 4;

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The program is to end. The second time, at once.
    Stop,
    /// The configuration is to be read again.
    Reload,
}

/// The running signal thread. It ends with this value.
pub struct SignalHandle {
    handle: Handle,
}

impl Drop for SignalHandle {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Has a file that may not grow any more, by `ulimit -f`, fail its writer as a full disk does,
/// instead of ending the process.
///
/// # Errors
///
/// The system refuses.
pub fn outlive_file_limit() -> io::Result<()> {
    // Nobody looks at the flag: what counts is that somebody takes the signal.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Starts to listen. From here on the signals no longer end the process by themselves: nor does
/// SIGHUP where somebody `reloads`, so that a daemon outlives its terminal.
pub fn listen(
    reloads: bool,
    spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
) -> io::Result<(SignalHandle, Receiver<Signal>)> {
    let heard: &[i32] = if reloads { &[SIGINT, SIGTERM, SIGHUP] } else { &[SIGINT, SIGTERM] };
    let mut signals = Signals::new(heard)?;
    let handle = signals.handle();
    let (told, heard) = bounded(WAITING_MAX);
    spawn(Box::new(move || {
        for signal in signals.forever() {
            let signal = if signal == SIGHUP { Signal::Reload } else { Signal::Stop };
            if let Err(TrySendError::Disconnected(_)) = told.try_send(signal) {
                break;
            }
        }
    }))?;
    Ok((SignalHandle { handle }, heard))
}
