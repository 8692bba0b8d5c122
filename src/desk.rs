//! The desk: where one-shot commands ask a running daemon for what only it may do.
//!
//! A porter, the thread `desk`, hands whoever comes through its door, the thread `desk-door`, to
//! one of a few clerks, the threads `desk-1` and so on; when all are busy it says so. A clerk hears
//! one request, brings it to the supervisor as a [`Call`], and passes on the answers until the
//! last, or until the client has gone: then the call's `answers` are disconnected, and the request
//! is over. All of them end when the [`DeskHandle`] is dropped; then nobody can call any more.
//!
//! **Invariant:** whatever clients do, at most [`THREADS`] threads run, each keeps one line in
//! memory, and each comes back four times a second to see whether it is to end.

mod door;

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, never, select};
use log::{info, warn};

use crate::desk::door::Door;
use crate::lines::{LineError, Lines, socket_path};
use crate::request::{Answer, REQUEST_BYTES_MAX, Request};
use crate::thread::{self, Exit};
use crate::time::{Deadline, Millis, SECOND};

/// Threads that are started, each of which tells its end once.
pub const THREADS: usize = 2 + CLERKS;

/// Clients that are served at once. A person has one or two; a script that has more can wait.
const CLERKS: usize = 8;
/// Calls that wait for the supervisor: each clerk has one at most.
pub const CALLS_WAITING: usize = CLERKS;
/// Answers that wait for a client: the last one, and a few views of the way there. A slow client
/// misses some views, which the next one makes good.
pub const ANSWERS_WAITING: usize = 4;
/// How long a client may take to say what it wants, and to take an answer.
const PATIENCE_MS: Millis = 5 * SECOND;
/// How often a clerk looks whether its client is still there, and whether it is to end.
const LOOK_MS: Millis = 250;
/// How often the porter looks whether the socket is still there, while nobody comes.
const MEND: Duration = Duration::from_secs(2);
/// How long the end of all threads is waited for: some looks.
const LEAVE: Duration = Duration::from_secs(2);

/// What a client is told that cannot be served now.
const BUSY: &str = "the daemon is busy with other commands: try again when one is done";

/// What a client wants, for the supervisor.
#[derive(Debug)]
pub struct Call {
    /// The request.
    pub request: Request,
    /// Where the answers go, by `try_send` alone. While it is full a view is left out, and the
    /// last answer tried again. Disconnected: the client has gone, and its request with it.
    pub answers: Sender<Answer>,
}

/// Why there is no desk. A daemon works without one all the same.
#[derive(Debug)]
pub enum DeskError {
    /// The system has no room for the path of the socket.
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Where the socket would be there is something else.
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// The socket cannot be made.
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for DeskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeskError::TooLong { path } => write!(
                f,
                "{}: {} bytes are too long for the path of a socket: choose a shorter data_dir",
                path.display(),
                path.as_os_str().len()
            ),
            DeskError::Taken { path } => {
                write!(f, "{} is no socket: move it elsewhere", path.display())
            }
            DeskError::Io { path, source } => {
                write!(f, "{}: cannot listen: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for DeskError {}

/// The socket's file, which goes with this value.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that stays is refused by the system, and replaced by the next daemon.
        let _ = fs::remove_file(&self.0);
    }
}

/// A desk that takes calls, but is not manned yet: clients wait.
#[derive(Debug)]
pub struct Desk {
    listener: UnixListener,
    data_dir: PathBuf,
    file: SocketFile,
    patience_ms: Millis,
}

impl Desk {
    /// Makes the socket in a data folder, for the user alone. What an earlier daemon has left is
    /// replaced: the caller must hold the folder's lock, so nobody listens there.
    ///
    /// # Errors
    ///
    /// The path is too long, or taken by something else, or the system refuses.
    pub fn open(data_dir: &Path) -> Result<Desk, DeskError> {
        let listener = door::listen(data_dir)?;
        let (data_dir, file) = (data_dir.to_owned(), SocketFile(socket_path(data_dir)));
        Ok(Desk { listener, data_dir, file, patience_ms: PATIENCE_MS })
    }

    /// Starts the threads. Calls come to the receiver until the handle is dropped.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(self, exits: &Sender<Exit>, calls: &Sender<Call>) -> io::Result<DeskHandle> {
        // Nothing is ever sent by these two: the end of one side is the message.
        let ((stop, stopped), (present, gone)) = (bounded(0), bounded(0));
        // A connection for each clerk that is free, so it never waits there.
        let ((visitors, received), (free, idle)) = (bounded(CLERKS), bounded(CLERKS));
        for number in 1..=CLERKS {
            // All are free from the start, running or not.
            let _ = free.try_send(());
            let clerk = Clerk {
                visitors: received.clone(),
                free: free.clone(),
                calls: calls.clone(),
                stopped: stopped.clone(),
                patience_ms: self.patience_ms,
                _present: present.clone(),
            };
            thread::spawn(format!("desk-{number}"), exits, move || clerk.run())?;
        }
        let porter = Porter {
            data_dir: self.data_dir,
            door: Some(Door::open(self.listener, exits, &present)?),
            exits: exits.clone(),
            visitors,
            idle,
            stopped,
            present,
            failing: false,
        };
        thread::spawn("desk", exits, move || porter.run())?;
        Ok(DeskHandle { stop: Some(stop), gone, _file: self.file })
    }
}

/// The manned desk. With this value it ends: calls that are under way are dropped, after what has
/// been answered already is passed on. To be dropped before the lock is given back.
#[derive(Debug)]
pub struct DeskHandle {
    stop: Option<Sender<Infallible>>,
    gone: Receiver<Infallible>,
    _file: SocketFile,
}

impl Drop for DeskHandle {
    fn drop(&mut self) {
        self.stop = None;
        select! {
            recv(self.gone) -> _ => {}
            default(LEAVE) => warn!(target: "desk", "the desk does not end and is left behind"),
        }
    }
}

/// Gives connections to clerks, and keeps a door open through which they come.
struct Porter {
    data_dir: PathBuf,
    door: Option<Door>,
    exits: Sender<Exit>,
    visitors: Sender<UnixStream>,
    /// A token for each clerk that is free.
    idle: Receiver<()>,
    stopped: Receiver<Infallible>,
    present: Sender<Infallible>,
    /// Whether a door could not be made, which is told once.
    failing: bool,
}

impl Porter {
    fn run(mut self) {
        loop {
            let arrivals = self.door.as_ref().map_or_else(never, |door| door.arrivals.clone());
            select! {
                recv(self.stopped) -> _ => return,
                recv(arrivals) -> stream => match stream.map(|stream| self.receive(stream)) {
                    Ok(true) => {}
                    Ok(false) => return,
                    // Its thread has ended, which is told of as every end is.
                    Err(_) => self.door = None,
                },
                default(MEND) => self.look_after_door(),
            }
        }
    }

    /// Makes the socket again where somebody, a cleaner of folders perhaps, has removed it.
    fn look_after_door(&mut self) {
        let path = socket_path(&self.data_dir);
        let is_gone = fs::symlink_metadata(&path).is_err_and(|it| it.kind() == ErrorKind::NotFound);
        if self.door.is_some() && !is_gone {
            return;
        }
        let made = door::listen(&self.data_dir).and_then(|listener| {
            let opened = Door::open(listener, &self.exits, &self.present);
            opened.map_err(|source| DeskError::Io { path: path.clone(), source })
        });
        match made {
            Ok(door) => {
                info!(target: "desk", "{} was removed and is made again", path.display());
                (self.door, self.failing) = (Some(door), false);
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                warn!(target: "desk", "{error}; commands that write have to wait for the end");
            }
            Err(_) => {}
        }
    }

    /// Tells whether there is any clerk at all.
    fn receive(&self, stream: UnixStream) -> bool {
        match self.idle.try_recv() {
            Ok(()) => self.visitors.try_send(stream).is_ok(),
            Err(TryRecvError::Empty) => {
                // So short a line goes into the empty buffer of a new connection at once.
                let line = Answer::Refused(BUSY.to_owned()).encode();
                let _ = Lines::new(stream).write(line.as_bytes(), Deadline::after(LOOK_MS));
                true
            }
            Err(TryRecvError::Disconnected) => false,
        }
    }
}

fn is_over(stopped: &Receiver<Infallible>) -> bool {
    stopped.try_recv() == Err(TryRecvError::Disconnected)
}

/// Serves one client after the other.
struct Clerk {
    visitors: Receiver<UnixStream>,
    free: Sender<()>,
    calls: Sender<Call>,
    stopped: Receiver<Infallible>,
    patience_ms: Millis,
    _present: Sender<Infallible>,
}

impl Clerk {
    fn run(self) {
        while let Ok(stream) = self.visitors.recv() {
            // Whatever ends a conversation ends it for that client alone.
            let _ = self.serve(Lines::new(stream));
            let _ = self.free.try_send(());
        }
    }

    fn serve(&self, mut lines: Lines) -> Result<(), LineError> {
        let request = match self.hear(&mut lines) {
            Ok(line) => Request::decode(&line).map_err(|error| error.to_string()),
            Err(LineError::Closed) => return Ok(()),
            Err(error) => Err(error.to_string()),
        };
        match request.and_then(|request| self.call(request)) {
            Ok(answers) => self.attend(&mut lines, &answers),
            Err(refusal) => self.tell(&mut lines, &Answer::Refused(refusal)),
        }
    }

    /// The client's one line.
    fn hear(&self, lines: &mut Lines) -> Result<Vec<u8>, LineError> {
        let patience = Deadline::after(self.patience_ms);
        while patience.left().is_some() && !is_over(&self.stopped) {
            let look = Deadline::after(LOOK_MS.min(self.patience_ms));
            if let Some(line) = lines.read(REQUEST_BYTES_MAX, look)? {
                return Ok(line);
            }
        }
        Err(LineError::Closed)
    }

    /// Brings a request to the supervisor. If that hears no more calls, the answers are at their
    /// end: the client is hung up on, and knows that the daemon is ending.
    fn call(&self, request: Request) -> Result<Receiver<Answer>, String> {
        let (answers, heard) = bounded(ANSWERS_WAITING);
        select! {
            send(self.calls, Call { request, answers }) -> _ => Ok(heard),
            recv(self.stopped) -> _ => Ok(heard),
            default(Duration::from_millis(self.patience_ms.unsigned_abs())) => {
                Err(BUSY.to_owned())
            }
        }
    }

    /// Passes on what the supervisor answers, until the last of it.
    fn attend(&self, lines: &mut Lines, answers: &Receiver<Answer>) -> Result<(), LineError> {
        let mut look = Deadline::after(LOOK_MS);
        loop {
            let answer = select! {
                recv(answers) -> answer => answer.map(Some).map_err(|_| LineError::Closed)?,
                recv(self.stopped) -> _ => {
                    return answers.try_iter().try_for_each(|answer| self.tell(lines, &answer));
                }
                default(look.left().unwrap_or_default()) => None,
            };
            if let Some(answer) = answer {
                self.tell(lines, &answer)?;
                if answer.is_last() {
                    return Ok(());
                }
            }
            if look.left().is_none() {
                if !lines.is_quiet() {
                    return Err(LineError::Closed);
                }
                look = Deadline::after(LOOK_MS);
            }
        }
    }

    /// Sends an answer, as long as the client has patience and we are not to end.
    fn tell(&self, lines: &mut Lines, answer: &Answer) -> Result<(), LineError> {
        let (line, patience) = (answer.encode(), Deadline::after(self.patience_ms));
        let mut rest = line.as_bytes();
        loop {
            rest = lines.write(rest, Deadline::after(LOOK_MS.min(self.patience_ms)))?;
            if rest.is_empty() {
                return Ok(());
            }
            if patience.left().is_none() || is_over(&self.stopped) {
                return Err(LineError::Closed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
