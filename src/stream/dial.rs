//! An attempt to connect, on a thread of its own.

use std::io;

use crossbeam_channel::{Receiver, bounded};
use log::debug;

use crate::socket::{Socket, SocketError, SocketOptions};
use crate::thread::{self, Exit};

/// The close code of who simply goes.
pub(super) const NORMAL: u16 = 1000;

/// An attempt that is under way. Who drops it does not want its connection any more: the attempt
/// goes on until its time is over, and a connection that comes of it is closed.
#[derive(Debug)]
pub(super) struct Dial {
    /// The number of the connection.
    pub(super) conn: u64,
    /// What comes of it.
    pub(super) done: Receiver<Result<Socket, SocketError>>,
    /// How its thread ended.
    pub(super) exits: Receiver<Exit>,
}

impl Dial {
    /// Begins one.
    pub(super) fn start(conn: u64, options: SocketOptions) -> io::Result<Dial> {
        // There is no room in it: a connection is handed over, or it is known that nobody wants it.
        let (found, done) = bounded(0);
        let (exits, ended) = bounded(1);
        thread::spawn("dial", &exits, move || {
            let result = Socket::connect(&options, &mut |step, length_ms| {
                debug!(target: "stream", "connection {conn}: {step}: {length_ms} ms");
            });
            if let Err(unwanted) = found.send(result)
                && let Ok(socket) = unwanted.into_inner()
            {
                socket.close(NORMAL);
            }
        })?;
        Ok(Dial { conn, done, exits: ended })
    }
}
