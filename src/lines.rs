//! The daemon's socket: lines in and out, for both of its ends.
//!
//! **Invariant:** no call waits past its deadline, and no line is kept that is longer than it may
//! be, whatever the other side does.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::time::Deadline;

/// The socket, in the data folder.
const FILE: &str = "daemon.sock";
/// What is read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Where the daemon of a data folder listens.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Why a conversation is over.
#[derive(Debug)]
pub enum LineError {
    /// The other side has hung up.
    Closed,
    /// It sends a line without end.
    TooLong {
        /// The longest that is taken, bytes.
        bytes_max: usize,
    },
    /// The connection is broken.
    Io(io::Error),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LineError::Closed => f.write_str("the other side has hung up"),
            LineError::TooLong { bytes_max } => {
                write!(f, "a line of more than {bytes_max} bytes")
            }
            LineError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LineError {}

impl From<io::Error> for LineError {
    fn from(error: io::Error) -> LineError {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => LineError::Closed,
            _ => LineError::Io(error),
        }
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Lines {
    stream: UnixStream,
    /// What came and was not taken yet.
    buffer: Vec<u8>,
    /// How much of that has no line feed in it.
    searched: usize,
}

impl Lines {
    /// A conversation on this connection.
    pub fn new(stream: UnixStream) -> Lines {
        Lines { stream, buffer: Vec::new(), searched: 0 }
    }

    /// Connects to the daemon of a data folder.
    ///
    /// # Errors
    ///
    /// There is none, or it has no socket.
    pub fn connect(data_dir: &Path) -> io::Result<Lines> {
        UnixStream::connect(socket_path(data_dir)).map(Lines::new)
    }

    /// The next line, without its line feed; `None` if none was whole by the deadline: what came
    /// of it is kept for the next call.
    pub fn read(
        &mut self,
        bytes_max: usize,
        until: Deadline,
    ) -> Result<Option<Vec<u8>>, LineError> {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let end = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n');
            let end = end.map(|end| self.searched + end);
            self.searched = self.buffer.len();
            if end.unwrap_or(self.buffer.len()) > bytes_max {
                return Err(LineError::TooLong { bytes_max });
            }
            if let Some(end) = end {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.truncate(end);
                self.searched = 0;
                return Ok(Some(line));
            }
            let Some(left) = until.left() else { return Ok(None) };
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(LineError::Closed),
                Ok(bytes) => self.buffer.extend_from_slice(&chunk[..bytes]),
                Err(error) if is_in_time(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends as much as the other side takes by the deadline, and gives what it did not.
    pub fn write<'a>(
        &mut self,
        mut bytes: &'a [u8],
        until: Deadline,
    ) -> Result<&'a [u8], LineError> {
        while !bytes.is_empty() {
            let Some(left) = until.left() else { break };
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(error) if is_in_time(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(bytes)
    }

    /// Whether the other side still listens and has said nothing more; does not wait.
    pub fn is_quiet(&mut self) -> bool {
        if !self.buffer.is_empty() || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let heard = self.stream.read(&mut [0]);
        let quiet = heard.is_err_and(|error| is_in_time(&error));
        quiet && self.stream.set_nonblocking(false).is_ok()
    }
}

/// Whether an error says only that the time of one call was up, or that a signal came.
fn is_in_time(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: i64 = 20;
    const LATE: i64 = 60_000;

    fn pair() -> (Lines, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Lines::new(ours), theirs)
    }

    fn read(lines: &mut Lines, wait_ms: i64) -> Result<Option<Vec<u8>>, LineError> {
        lines.read(8, Deadline::after(wait_ms))
    }

    #[test]
    fn lines_come_whole_however_they_were_cut() {
        let (mut lines, mut peer) = pair();
        peer.write_all(b"one\ntw").unwrap();
        assert_eq!(read(&mut lines, LATE).unwrap().unwrap(), b"one");
        assert!(!lines.is_quiet(), "there is more");
        assert_eq!(read(&mut lines, SOON).unwrap(), None);
        peer.write_all(b"o\n\n12345678\n").unwrap();
        for expected in ["two", "", "12345678"] {
            assert_eq!(read(&mut lines, LATE).unwrap().unwrap(), expected.as_bytes());
        }
        assert!(lines.is_quiet());
        peer.write_all(b"torn").unwrap();
        drop(peer);
        assert!(matches!(read(&mut lines, LATE), Err(LineError::Closed)));
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        for text in ["123456789", "123456789\n", "12345678901234567890"] {
            let (mut lines, mut peer) = pair();
            peer.write_all(text.as_bytes()).unwrap();
            let error = read(&mut lines, LATE).unwrap_err();
            assert!(matches!(error, LineError::TooLong { bytes_max: 8 }), "{text}: {error}");
        }
    }

    #[test]
    fn whoever_takes_nothing_is_not_waited_for() {
        let (mut lines, mut peer) = pair();
        let much = vec![b'x'; 8 << 20];
        let rest = lines.write(&much, Deadline::after(SOON)).unwrap();
        assert!(!rest.is_empty() && rest.len() < much.len());
        let sent = much.len() - rest.len();
        let mut taken = vec![0; sent];
        peer.read_exact(&mut taken).unwrap();
        assert!(lines.write(b"more\n", Deadline::after(LATE)).unwrap().is_empty());
        drop(peer);
        let error = lines.write(b"more\n", Deadline::after(LATE)).unwrap_err();
        assert!(matches!(error, LineError::Closed), "{error}");
    }

    #[test]
    fn a_peer_that_leaves_is_noticed() {
        let (mut lines, peer) = pair();
        assert!(lines.is_quiet());
        drop(peer);
        assert!(!lines.is_quiet());
    }
}
