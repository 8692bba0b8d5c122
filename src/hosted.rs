//! The daemon on threads of somebody else's program: started, asked and stopped from outside.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, select};

use crate::audience::Audience;
use crate::crew::Wishes;
use crate::daemon::{Daemon, DaemonError, Start};
use crate::desk::{ANSWERS_WAITING, Call};
use crate::engine::io_error;
use crate::error::Error;
use crate::request::{Answer, Request};
use crate::signal::{Signal, WAITING_MAX};
use crate::supervisor::Ending;
use crate::thread::{self, End, Exit};
use crate::time::{Clock, Millis};
use crate::view::View;

/// How long a stop waits. The engine gives the network half of that; the rest is for the disk.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// A running engine. Dropped, it is stopped.
#[derive(Debug)]
pub struct Hosted {
    caller: Caller,
    ending: Receiver<Ending>,
    exit: Receiver<Exit>,
    thread: Option<JoinHandle<()>>,
    clock: Arc<Clock>,
}

/// Who can ask an engine for something, as long as it runs.
#[derive(Clone, Debug)]
pub struct Caller {
    wishes: Sender<Signal>,
    calls: Sender<Call>,
}

/// Ends all subscriptions with the engine, however that ends.
struct Curtain(Arc<Audience>);

impl Drop for Curtain {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

impl Hosted {
    /// Starts it. `start` is made from where its wishes come from.
    pub fn start(start: impl FnOnce(Wishes) -> Start) -> Result<Hosted, DaemonError> {
        let (wishes, heard) = bounded(WAITING_MAX);
        let start = start(Wishes::Program(heard));
        let audience = start.audience.clone();
        let (daemon, calls) = Daemon::begin(start)?;
        // Before here nothing was started, so whoever listens may wait for the next try.
        let curtain = Curtain(audience);
        let clock = daemon.clock();
        let ((ended, ending), (exits, exit)) = (bounded(1), bounded(1));
        let work = move || {
            let _curtain = curtain;
            // Who has given up waiting does not hear it.
            let _ = ended.try_send(daemon.run());
        };
        let thread = thread::spawn("supervisor", &exits, work)
            .map_err(io_error("start a thread"))
            .map_err(DaemonError::Engine)?;
        let caller = Caller { wishes, calls };
        Ok(Hosted { caller, ending, exit, thread: Some(thread), clock })
    }

    /// Who can ask it from another thread.
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// The exchange's time, once it was learnt.
    pub fn now(&self) -> Option<Millis> {
        self.clock.is_learnt().then(|| self.clock.now().exchange)
    }

    /// Whether it still works; it ends by itself only for a bug.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops it and waits for its end: what has come by then is stored.
    ///
    /// # Errors
    ///
    /// It had ended by a bug, or does not end in time.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Reloads may have filled the channel, and are heard first.
        let told = self.caller.wishes.send_timeout(Signal::Stop, STOP_WAIT);
        if let Err(SendTimeoutError::Timeout(_)) = told {
            return Err(Error::Stopping);
        }
        let ending = select! {
            recv(self.ending) -> ending => ending,
            default(STOP_WAIT) => return Err(Error::Stopping),
        };
        let _ = thread.join();
        let panic = match (ending, self.exit.try_recv()) {
            (Ok(ending), _) => ending.panic,
            (Err(_), Ok(Exit { end: End::Panicked(words), .. })) => Some(words),
            (Err(_), _) => None,
        };
        panic.map_or(Ok(()), |words| Err(Error::Bug(words)))
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!(target: "daemon", "{error}");
        }
    }
}

impl Caller {
    /// Has the configuration read again.
    pub fn reload(&self) {
        // If the channel is full such a wish is in it already.
        let _ = self.wishes.try_send(Signal::Reload);
    }

    /// Has bars fetched, and gives where that ended. It is over when `watch` says so.
    ///
    /// # Errors
    ///
    /// The engine has ended before this was done, or does not want it.
    pub fn fetch(
        &self,
        request: Request,
        watch: &mut dyn FnMut(&View) -> ControlFlow<()>,
    ) -> Result<View, Error> {
        let (answers, heard) = bounded(ANSWERS_WAITING);
        self.calls.send(Call { request, answers }).map_err(|_| Error::Stopped)?;
        loop {
            match heard.recv() {
                Ok(Answer::Done(view)) if view.stopped => return Err(Error::Stopped),
                Ok(Answer::Done(view)) => {
                    let _ = watch(&view);
                    return Ok(view);
                }
                Ok(Answer::Progress(view)) => {
                    if watch(&view).is_break() {
                        return Err(Error::Stopped);
                    }
                }
                Ok(Answer::Refused(words)) => return Err(Error::Fetch(words)),
                Ok(Answer::Purged) | Err(_) => return Err(Error::Stopped),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine that is busy until `begin`, and then hears one wish after the other.
    fn engine(begin: Receiver<()>) -> Hosted {
        let ((wishes, heard), (calls, _)) = (bounded(WAITING_MAX), bounded(0));
        let ((ended, ending), (exits, exit)) = (bounded(1), bounded(1));
        let work = move || {
            let _ = begin.recv();
            if heard.iter().any(|signal| signal == Signal::Stop) {
                let _ = ended.try_send(Ending::default());
            }
        };
        let thread = thread::spawn("supervisor", &exits, work).unwrap();
        let caller = Caller { wishes, calls };
        let clock = Arc::new(Clock::start(0));
        Hosted { caller, ending, exit, thread: Some(thread), clock }
    }

    #[test]
    fn a_stop_is_heard_behind_any_number_of_reloads() {
        let (begin, begun) = bounded(1);
        let hosted = engine(begun);
        for _ in 0..2 * WAITING_MAX {
            hosted.caller().reload();
        }
        begin.send(()).unwrap();
        assert_eq!(hosted.stop().map_err(|error| error.to_string()), Ok(()));
    }
}
