//! The desk's door: its socket, and a thread that takes connections there.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::warn;

use crate::desk::{DeskError, is_over};
use crate::lines::socket_path;
use crate::thread::{self, Exit};

/// How long it rests when no connection can be taken, for want of files for example.
const REST: Duration = Duration::from_secs(1);
/// The folder in which the socket is made, so that nobody else can connect before it is closed to
/// them.
const DRAFT_FOLDER: &str = ".desk";

/// Makes the socket in a data folder, for the user alone. What an earlier daemon has left is
/// replaced.
pub(super) fn listen(data_dir: &Path) -> Result<UnixListener, DeskError> {
    let path = socket_path(data_dir);
    if SocketAddr::from_pathname(&path).is_err() {
        return Err(DeskError::TooLong { path });
    }
    if fs::symlink_metadata(&path).is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(DeskError::Taken { path });
    }
    bind(data_dir, &path).map_err(|source| DeskError::Io { path, source })
}

/// Binds in a folder that nobody else enters, and moves the socket out once it is closed to them.
/// The move also replaces what was there.
fn bind(data_dir: &Path, path: &Path) -> io::Result<UnixListener> {
    let folder = data_dir.join(DRAFT_FOLDER);
    let draft = folder.join("s");
    let absent = |error: &io::Error| error.kind() == ErrorKind::NotFound;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(&folder, Permissions::from_mode(0o700))?,
    }
    fs::remove_file(&draft).or_else(|error| if absent(&error) { Ok(()) } else { Err(error) })?;
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
    fs::rename(&draft, path)?;
    // An empty folder that stays is in nobody's way.
    let _ = fs::remove_dir(&folder);
    Ok(listener)
}

/// An open door, which is closed with this value.
#[derive(Debug)]
pub(super) struct Door {
    /// Who has come in.
    pub(super) arrivals: Receiver<UnixStream>,
    /// The end of this side is the message that it closes.
    stop: Option<Sender<Infallible>>,
    /// The listener, as something that can be shut.
    lock: UnixStream,
}

impl Door {
    /// Starts the thread. It keeps `present` for as long as it runs.
    pub(super) fn open(
        listener: UnixListener,
        exits: &Sender<Exit>,
        present: &Sender<Infallible>,
    ) -> io::Result<Door> {
        let lock = UnixStream::from(OwnedFd::from(listener.try_clone()?));
        // Who has come waits in the system for the next turn.
        let ((told, arrivals), (stop, stopped)) = (bounded(0), bounded(0));
        let present = present.clone();
        thread::spawn("desk-door", exits, move || {
            let _present = present;
            take(&listener, &told, &stopped);
        })?;
        Ok(Door { arrivals, stop: Some(stop), lock })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop = None;
        // The thread waits in the system, where only this wakes it, or somebody who comes.
        let _ = self.lock.shutdown(Shutdown::Both);
    }
}

fn take(listener: &UnixListener, told: &Sender<UnixStream>, stopped: &Receiver<Infallible>) {
    let mut failing = false;
    loop {
        let accepted = listener.accept();
        if is_over(stopped) {
            return;
        }
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                select! {
                    send(told, stream) -> sent => if sent.is_err() { return },
                    recv(stopped) -> _ => return,
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(target: "desk", "no connection can be taken: {error}");
                }
                select! {
                    recv(stopped) -> _ => return,
                    default(REST) => {}
                }
            }
        }
    }
}
