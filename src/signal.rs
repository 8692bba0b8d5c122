//! The signal thread: SIGINT and SIGTERM, told to the supervisor as the wish to stop, and for a
//! daemon SIGHUP, as the wish to read the configuration again.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

/// Signals that wait to be heard; more reloads say nothing new.
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
            if !tell(&told, signal) {
                break;
            }
        }
    }))?;
    Ok((SignalHandle { handle }, heard))
}

/// Tells of a signal; false if nobody hears any more. A stop waits for room, because it says
/// something that the reloads before it do not.
fn tell(told: &Sender<Signal>, signal: Signal) -> bool {
    match signal {
        Signal::Stop => told.send(signal).is_ok(),
        Signal::Reload => !matches!(told.try_send(signal), Err(TrySendError::Disconnected(_))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_told_behind_any_number_of_reloads() {
        let (told, heard) = bounded(WAITING_MAX);
        assert!((0..2 * WAITING_MAX).all(|_| tell(&told, Signal::Reload)));
        let teller = std::thread::spawn(move || tell(&told, Signal::Stop));
        assert_eq!(heard.iter().last(), Some(Signal::Stop));
        assert!(teller.join().unwrap());
        let (told, heard) = bounded(WAITING_MAX);
        drop(heard);
        assert!(!tell(&told, Signal::Reload) && !tell(&told, Signal::Stop));
    }
}
