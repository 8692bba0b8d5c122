//! The lock on a data folder: one writing process at a time.
//!
//! The operating system holds it for as long as the process lives, so a killed one leaves nothing
//! behind; the pid inside the file is only there to be named.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;

/// How long a command waits for another one to end.
const WAIT: Duration = Duration::from_secs(10);

/// The right to write in a folder. It ends with this value.
#[derive(Debug)]
pub struct Lock {
    _file: File,
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
                write!(f, "{}: cannot lock: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for LockError {}

impl Lock {
    /// Takes the lock of a folder, and makes the folder if there is none. Waits a while for
    /// another command to end.
    pub fn take(data_dir: &Path) -> Result<Lock, LockError> {
        Lock::take_within(data_dir, WAIT)
    }

    fn take_within(data_dir: &Path, wait: Duration) -> Result<Lock, LockError> {
        let path = data_dir.join(".lock");
        let failed = |source| LockError::Io { path: path.clone(), source };
        fs::create_dir_all(data_dir).map_err(failed)?;
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = match Lock::acquire(file.map_err(failed)?, &path, wait) {
            Ok(Some(file)) => file,
            Ok(None) => {
                return Err(LockError::Held { data_dir: data_dir.to_owned(), pid: pid(&path) });
            }
            Err(source) => return Err(failed(source)),
        };
        let pid = std::process::id();
        file.set_len(0).and_then(|()| writeln!(file, "{pid}")).map_err(failed)?;
        Ok(Lock { _file: file })
    }

    /// Waits for the lock on a thread of its own, because a wait for a file lock knows no
    /// deadline. If the lock comes too late nobody takes it, and it is given back at once.
    fn acquire(file: File, path: &Path, wait: Duration) -> io::Result<Option<File>> {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => log::info!(
                target: "lock",
                "{} is writing in {}: waiting up to {} s for it",
                pid(path).map_or("another process".to_owned(), |pid| format!("process {pid}")),
                path.parent().unwrap_or(path).display(),
                wait.as_secs()
            ),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let (locked, taken) = bounded(1);
        let (exits, _) = bounded(1);
        crate::thread::spawn("lock", &exits, move || {
            let result = file.lock().map(|()| file);
            let _ = locked.send(result);
        })?;
        match taken.recv_timeout(wait) {
            Ok(result) => result.map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Who holds the lock, as far as the file tells.
fn pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok())
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
    fn a_lock_that_is_given_back_in_time_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let path = dir.path().to_owned();
        let second = std::thread::spawn(move || Lock::take_within(&path, Duration::from_secs(60)));
        drop(first);
        second.join().unwrap().unwrap();
    }
}
