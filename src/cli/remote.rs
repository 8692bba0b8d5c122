//! The way of a command to whoever may write in the data folder: itself with the lock, or a
//! running daemon that has it, through its socket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, never};

use crate::cli::outcome::Failure;
use crate::instrument::Instrument;
use crate::lines::{LineError, Lines};
use crate::lock::{self, Lock, Waiting};
use crate::request::{ANSWER_BYTES_MAX, Answer, Request, RequestError};
use crate::signal::{self, Signal};
use crate::thread;
use crate::time::{Deadline, Millis, SECOND};
use crate::view::View;

/// How long lock and socket are tried by turns.
const WAIT_MS: Millis = lock::WAIT.as_millis() as Millis;
/// How long the lock is waited for before the socket is tried again.
const TURN: Duration = Duration::from_millis(100);
/// A daemon that says nothing for so long hangs.
const SILENCE_MS: Millis = 60 * SECOND;
/// After so long without a word the user is told what is waited for.
const MUTE_MS: Millis = 5 * SECOND;
/// How soon a signal is heeded.
const LOOK_MS: Millis = 100;

/// Why a daemon did not do what it was asked.
#[derive(Debug)]
pub enum RemoteError {
    /// It does not want to, in its own words.
    Refused(String),
    /// It ended, or hung up, before the work was done.
    Ended,
    /// It says nothing.
    Silent,
    /// It says what cannot be understood.
    Garbled(RequestError),
    /// The connection is broken.
    Broken(LineError),
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteError::Refused(words) => f.write_str(words),
            RemoteError::Ended => f.write_str(
                "the daemon has ended before this was done: its log tells why; the next sync \
                 goes on from there",
            ),
            RemoteError::Silent => write!(
                f,
                "the daemon has not answered for {} s: okx-store status shows what it does",
                SILENCE_MS / SECOND
            ),
            RemoteError::Garbled(error) => write!(f, "the daemon's answer: {error}"),
            RemoteError::Broken(error) => write!(f, "the daemon's socket: {error}"),
        }
    }
}

impl std::error::Error for RemoteError {}

/// Who may write.
#[derive(Debug)]
pub enum Writer {
    /// This process.
    Here(Lock),
    /// A daemon, which listens.
    Daemon(Daemon),
}

/// The gate of a data folder. It is passed with the lock, or with a connection to the daemon that
/// has it; and once more if that daemon was just about to end.
#[derive(Debug)]
pub struct Gate {
    data_dir: PathBuf,
    waiting: Waiting,
    patience: Option<Deadline>,
}

impl Gate {
    /// Stands before the folder, which is made if there is none.
    ///
    /// # Errors
    ///
    /// The file of the lock cannot be made.
    pub fn new(data_dir: &Path) -> Result<Gate, Failure> {
        let waiting = Waiting::new(data_dir).map_err(Failure::Lock)?;
        Ok(Gate { data_dir: data_dir.to_owned(), waiting, patience: None })
    }

    /// Waits for the lock or the daemon's socket, whichever comes first. A daemon that is ending
    /// has no socket any more, and soon no lock; one that is beginning has the lock first.
    ///
    /// # Errors
    ///
    /// Another command has the lock and keeps it. However often this is called, it is waited for
    /// no longer than by [`Lock::take`].
    pub fn pass(&mut self) -> Result<Writer, Failure> {
        loop {
            let turn = if self.patience.is_some() { TURN } else { Duration::ZERO };
            if let Some(lock) = self.waiting.take(turn).map_err(Failure::Lock)? {
                return Ok(Writer::Here(lock));
            }
            if self.patience.is_some_and(|patience| patience.left().is_none()) {
                return Err(Failure::Lock(self.waiting.held()));
            }
            let met = Lines::connect(&self.data_dir);
            if self.patience.is_none() {
                self.patience = Some(Deadline::after(WAIT_MS));
                if met.is_err() {
                    self.waiting.tell(lock::WAIT);
                }
            }
            if let Ok(lines) = met {
                let pid = Lock::holder(&self.data_dir).map(|holder| holder.pid);
                return Ok(Writer::Daemon(Daemon::new(lines, pid)));
            }
        }
    }
}

/// A daemon that has been reached and not been asked yet.
#[derive(Debug)]
pub struct Daemon {
    lines: Lines,
    /// Its process, where that is known.
    pid: Option<u32>,
    /// Whether the user was told that it says nothing.
    is_told_mute: bool,
}

/// What comes of waiting for an answer.
enum Heard {
    Answer(Answer),
    /// The user has had enough.
    Stop,
    /// The daemon has hung up.
    Gone,
}

impl Daemon {
    fn new(lines: Lines, pid: Option<u32>) -> Daemon {
        Daemon { lines, pid, is_told_mute: false }
    }

    /// Has bars fetched, and gives where that ended; nothing where the daemon hung up before it
    /// answered, because it was ending.
    ///
    /// From the first answer on, SIGINT and SIGTERM end this as they end a run of our own: the
    /// connection closes, and the daemon forgets the request. Before that they end the process.
    pub fn fetch(
        mut self,
        request: &Request,
        watch: &mut dyn FnMut(&View),
    ) -> Result<Option<View>, RemoteError> {
        let Some(first) = self.ask(request)? else { return Ok(None) };
        let (exits, _) = bounded(1);
        let listening =
            signal::listen(false, |work| thread::spawn("signal", &exits, work).map(drop));
        let (_signals, stops) = match listening {
            Ok((handle, stops)) => (Some(handle), stops),
            Err(_) => (None, never()),
        };
        self.follow(first, &stops, watch).map(Some)
    }

    /// Has the file of an instrument deleted that is no longer configured; false where the daemon
    /// hung up before it answered, because it was ending.
    pub fn purge(mut self, instrument: &Instrument) -> Result<bool, RemoteError> {
        match self.ask(&Request::Purge { instrument: instrument.clone() })? {
            Some(Answer::Purged) => Ok(true),
            Some(Answer::Refused(words)) => Err(RemoteError::Refused(words)),
            Some(Answer::Progress(_) | Answer::Done(_)) => Err(astray()),
            None => Ok(false),
        }
    }

    /// Sends a request and gives the first answer; nothing if the daemon hangs up instead.
    fn ask(&mut self, request: &Request) -> Result<Option<Answer>, RemoteError> {
        let line = request.encode();
        match self.lines.write(line.as_bytes(), Deadline::after(SILENCE_MS)) {
            Ok([]) => {}
            Ok(_) => return Err(RemoteError::Silent),
            // It may have said why before it hung up.
            Err(LineError::Closed) => {}
            Err(error) => return Err(RemoteError::Broken(error)),
        }
        match self.hear(&never())? {
            Heard::Answer(answer) => Ok(Some(answer)),
            Heard::Stop | Heard::Gone => Ok(None),
        }
    }

    /// Shows all answers up to the last, or until the user has had enough.
    fn follow(
        &mut self,
        first: Answer,
        stops: &Receiver<Signal>,
        watch: &mut dyn FnMut(&View),
    ) -> Result<View, RemoteError> {
        let mut answer = first;
        loop {
            let is_last = answer.is_last();
            let view = match answer {
                Answer::Progress(view) | Answer::Done(view) => view,
                Answer::Refused(words) => return Err(RemoteError::Refused(words)),
                Answer::Purged => return Err(astray()),
            };
            watch(&view);
            if is_last {
                return Ok(view);
            }
            answer = match self.hear(stops)? {
                Heard::Answer(answer) => answer,
                Heard::Gone => return Err(RemoteError::Ended),
                Heard::Stop => {
                    let view = View { stopped: true, ..view };
                    watch(&view);
                    return Ok(view);
                }
            };
        }
    }

    fn hear(&mut self, stops: &Receiver<Signal>) -> Result<Heard, RemoteError> {
        let (silence, mute) = (Deadline::after(SILENCE_MS), Deadline::after(MUTE_MS));
        while silence.left().is_some() {
            if mute.left().is_none() && !std::mem::replace(&mut self.is_told_mute, true) {
                self.tell_mute();
            }
            if stops.try_recv().is_ok() {
                return Ok(Heard::Stop);
            }
            match self.lines.read(ANSWER_BYTES_MAX, Deadline::after(LOOK_MS)) {
                // What came with the signal is not shown: `^C` has moved the lines.
                Ok(Some(_)) if stops.try_recv().is_ok() => return Ok(Heard::Stop),
                Ok(Some(line)) => {
                    return Answer::decode(&line).map(Heard::Answer).map_err(RemoteError::Garbled);
                }
                Ok(None) => {}
                Err(LineError::Closed) => return Ok(Heard::Gone),
                Err(error) => return Err(RemoteError::Broken(error)),
            }
        }
        Err(RemoteError::Silent)
    }

    /// Says in the log, which keeps clear of the moving lines, what is waited for.
    fn tell_mute(&self) {
        let pid = self.pid.map(|pid| format!(", process {pid},")).unwrap_or_default();
        log::warn!(
            target: "daemon",
            "the daemon{pid} has not answered for {} s: waiting up to {} s for it",
            MUTE_MS / SECOND,
            SILENCE_MS / SECOND
        );
    }
}

/// An answer to a request that was not made.
fn astray() -> RemoteError {
    RemoteError::Garbled(RequestError::Garbled("the answer to another request".to_owned()))
}

#[cfg(test)]
mod tests;
