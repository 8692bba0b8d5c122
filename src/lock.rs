//! The lock on a data folder: one writing process at a time.
//!
//! The operating system holds it for as long as the process lives, so a killed one leaves nothing
//! behind; what is inside the file, the pid and whether it is a daemon's, is only there to be told.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

/// How long a command waits for another one to end.
pub const WAIT: Duration = Duration::from_secs(10);
/// How long whoever only looks may be in the way of somebody who takes the lock, at most.
const LOOK: Duration = Duration::from_millis(100);
/// The file, in the data folder.
const FILE: &str = ".lock";
/// What stands behind the pid of a daemon.
const DAEMON: &str = "daemon";

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Whether it is a daemon, which stays, or a command, which ends soon.
    pub is_daemon: bool,
}

/// The right to write in a folder. It ends with this value.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

/// Why the right was not given.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    Held {
        /// The folder.
        data_dir: PathBuf,
        /// The process, if its pid could be read.
        pid: Option<u32>,
    },
    /// The file cannot be made or locked.
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Whether somebody has it cannot be seen.
    Unseen {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held { data_dir, pid: Some(pid) } => {
                write!(f, "{}: process {pid} is writing here: wait for it", data_dir.display())
            }
            LockError::Held { data_dir, pid: None } => {
                write!(f, "{}: another process is writing here: wait for it", data_dir.display())
            }
            LockError::Io { path, source } => {
                let advice = match source.kind() {
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                        ": make the folder writable for this user, or choose another data_dir"
                    }
                    _ => "",
                };
                write!(f, "{}: cannot lock: {source}{advice}", path.display())
            }
            LockError::Unseen { path, source } => {
                write!(f, "{}: cannot see whether a daemon runs: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for LockError {}

/// Whether an error says that nothing is there, and not that nobody lets us look.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Refuses a link where a file of the program's own is to be written: it would be somebody
/// else's file that is written, wherever that may lie.
pub(crate) fn refuse_link(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            let name = path.file_name().unwrap_or_default().display();
            let told = format!("{name} is a link: remove it");
            Err(io::Error::new(ErrorKind::InvalidInput, told))
        }
        _ => Ok(()),
    }
}

impl Lock {
    /// Takes the lock of a folder, and makes the folder if there is none. Waits a while for
    /// another command to end.
    pub fn take(data_dir: &Path) -> Result<Lock, LockError> {
        Lock::take_within(data_dir, WAIT)
    }

    /// Who holds the lock of a folder at this moment, as the holder has written, or nothing where
    /// nobody holds it, or has not said yet who it is. Changes and makes nothing.
    pub fn holder(data_dir: &Path) -> Option<Holder> {
        Lock::look(data_dir).ok().flatten()
    }

    /// The same, for whoever does not take it for an answer that he may not look.
    ///
    /// # Errors
    ///
    /// The file of the lock cannot be read, so there may be a holder or none.
    pub fn look(data_dir: &Path) -> Result<Option<Holder>, LockError> {
        let path = data_dir.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if is_absence(&source) => return Ok(None),
            Err(source) => return Err(LockError::Unseen { path, source }),
        };
        // Two who look are not in each other's way. The file's end gives back what was got.
        Ok(match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read(&path),
            _ => None,
        })
    }

    fn take_within(data_dir: &Path, wait: Duration) -> Result<Lock, LockError> {
        let mut waiting = Waiting::new(data_dir)?;
        if let Some(lock) = waiting.take(Duration::ZERO)? {
            return Ok(lock);
        }
        waiting.tell(wait);
        waiting.take(wait)?.ok_or_else(|| waiting.held())
    }

    /// Says that a daemon holds it, so that others see one at work whatever else it can write.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn sign_as_daemon(&self) -> io::Result<()> {
        self.write(&format!("{} {DAEMON}\n", std::process::id()))
    }

    /// Says who has it.
    fn sign(file: File) -> io::Result<Lock> {
        let lock = Lock { file };
        lock.write(&format!("{}\n", std::process::id()))?;
        Ok(lock)
    }

    /// Overwrites what the last holder has left, which a full disk has room for.
    fn write(&self, text: &str) -> io::Result<()> {
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

/// A lock that is asked for, and may be held by somebody else for now. With this value the wait
/// for it ends.
#[derive(Debug)]
pub struct Waiting {
    data_dir: PathBuf,
    path: PathBuf,
    /// Until a thread waits with it.
    file: Option<File>,
    queue: Option<Receiver<io::Result<File>>>,
}

impl Waiting {
    /// Asks for the lock of a folder, and makes the folder if there is none.
    ///
    /// # Errors
    ///
    /// The file of the lock cannot be made.
    pub fn new(data_dir: &Path) -> Result<Waiting, LockError> {
        let path = data_dir.join(FILE);
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false);
        let ready = fs::create_dir_all(data_dir).and_then(|()| refuse_link(&path));
        match ready.and_then(|()| open.open(&path)) {
            Ok(file) => {
                let data_dir = data_dir.to_owned();
                Ok(Waiting { data_dir, path, file: Some(file), queue: None })
            }
            Err(source) => Err(LockError::Io { path, source }),
        }
    }

    /// Takes the lock if it is free, or becomes so in time. Not to be called again once it was
    /// given.
    ///
    /// # Errors
    ///
    /// The file cannot be locked or written; that it is held is none.
    pub fn take(&mut self, wait: Duration) -> Result<Option<Lock>, LockError> {
        let taken = self.wait(wait).and_then(|file| file.map(Lock::sign).transpose());
        taken.map_err(|source| LockError::Io { path: self.path.clone(), source })
    }

    /// Says in the log for whom we wait, and how long.
    pub fn tell(&self, wait: Duration) {
        let holder = read(&self.path).map(|holder| holder.pid);
        log::info!(
            target: "lock",
            "{} is writing in {}: waiting up to {} s for it",
            holder.map_or("another process".to_owned(), |pid| format!("process {pid}")),
            self.data_dir.display(),
            wait.as_secs()
        );
    }

    /// That somebody else has it.
    pub fn held(&self) -> LockError {
        let pid = read(&self.path).map(|holder| holder.pid);
        LockError::Held { data_dir: self.data_dir.clone(), pid }
    }

    fn wait(&mut self, mut wait: Duration) -> io::Result<Option<File>> {
        if let Some(file) = self.file.take() {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => return Err(error),
                // Nobody writes there: somebody looks, and will have done so in a moment.
                Err(TryLockError::WouldBlock) if file.try_lock_shared().is_ok() => {
                    wait = wait.max(LOOK);
                }
                Err(TryLockError::WouldBlock) if wait.is_zero() => {
                    self.file = Some(file);
                    return Ok(None);
                }
                Err(TryLockError::WouldBlock) => {}
            }
            self.queue = Some(queue(file)?);
        }
        let Some(queue) = &self.queue else { return Ok(None) };
        queue.recv_timeout(wait).map_or(Ok(None), |taken| taken.map(Some))
    }
}

/// Waits for the lock on a thread of its own, because a wait for a file lock knows no deadline. If
/// the lock comes too late nobody takes it, and it is given back at once.
fn queue(file: File) -> io::Result<Receiver<io::Result<File>>> {
    let (locked, taken) = bounded(0);
    let (exits, _) = bounded(1);
    crate::thread::spawn("lock", &exits, move || {
        let result = file.lock().map(|()| file);
        let _ = locked.send(result);
    })?;
    Ok(taken)
}

/// Who holds the lock, as far as the file tells.
fn read(path: &Path) -> Option<Holder> {
    let text = fs::read_to_string(path).ok()?;
    let mut words = text.lines().next()?.split(' ');
    Some(Holder { pid: words.next()?.parse().ok()?, is_daemon: words.next() == Some(DAEMON) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("new").join("data");
        let first = Lock::take(&data_dir).unwrap();
        let second = Lock::take_within(&data_dir, Duration::ZERO).unwrap_err();
        assert!(second.to_string().contains(&std::process::id().to_string()), "{second}");
        drop(first);
        Lock::take(&data_dir).unwrap();
    }

    #[test]
    fn a_look_tells_the_holder_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        assert_eq!(Lock::holder(&data_dir), None);
        assert!(!data_dir.exists(), "a look makes nothing");
        let lock = Lock::take(&data_dir).unwrap();
        let me = |is_daemon| Some(Holder { pid: std::process::id(), is_daemon });
        assert_eq!(Lock::holder(&data_dir), me(false));
        lock.sign_as_daemon().unwrap();
        assert_eq!(Lock::holder(&data_dir), me(true));
        drop(lock);
        assert_eq!(Lock::holder(&data_dir), None, "the pid in the file proves nothing");
        let lock = Lock::take(&data_dir).unwrap();
        assert_eq!(Lock::holder(&data_dir), me(false), "what a daemon has left is overwritten");
        drop(lock);
    }

    #[test]
    fn whoever_looks_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        drop(Lock::take(dir.path()).unwrap());
        let looking = File::open(dir.path().join(FILE)).unwrap();
        looking.try_lock_shared().unwrap();
        assert_eq!(Lock::holder(dir.path()), None);
        let path = dir.path().to_owned();
        let second = std::thread::spawn(move || Lock::take_within(&path, Duration::from_secs(60)));
        drop(looking);
        second.join().unwrap().unwrap();
    }

    #[test]
    fn a_lock_is_asked_for_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let mut waiting = Waiting::new(dir.path()).unwrap();
        for wait_ms in [0, 0, 1, 0, 1] {
            assert!(waiting.take(Duration::from_millis(wait_ms)).unwrap().is_none());
        }
        drop(first);
        let lock = waiting.take(Duration::from_secs(60)).unwrap();
        assert!(lock.is_some());
        drop(lock);
        drop(Lock::take(dir.path()).unwrap());
    }

    #[test]
    fn a_wait_that_is_given_up_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let mut waiting = Waiting::new(dir.path()).unwrap();
        assert!(waiting.take(Duration::from_millis(1)).unwrap().is_none());
        drop(waiting);
        drop(first);
        Lock::take_within(dir.path(), Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_lock_that_is_given_back_in_time_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let second = std::thread::spawn(move || Lock::take_within(&path, Duration::from_secs(60)));
        drop(first);
        second.join().unwrap().unwrap();
    }
}
