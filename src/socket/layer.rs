//! The byte stream under a WebSocket: TCP that keeps deadlines, and TLS around it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::time::Deadline;

/// TCP that neither reads nor writes past a deadline.
///
/// A time-out of the socket alone would not do: each byte that a trickling peer sends begins it
/// anew, and what waits for a whole frame would wait for ever. Past the deadline everything
/// answers `WouldBlock`, which those above take for "not yet" and come back after.
#[derive(Debug)]
pub(super) struct Timed {
    tcp: TcpStream,
    /// Reading waits until then.
    pub(super) read_until: Deadline,
    /// Writing waits until then.
    pub(super) write_until: Deadline,
}

impl Timed {
    /// TCP with one deadline for both ways, until others are set.
    pub(super) fn new(tcp: TcpStream, until: Deadline) -> Timed {
        Timed { tcp, read_until: until, write_until: until }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }
}

/// Repeats what a signal interrupts, and takes the end of a wait for what it is: systems name it
/// differently.
fn patient(
    until: Deadline,
    mut attempt: impl FnMut(std::time::Duration) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        let left = until.left().ok_or(io::ErrorKind::WouldBlock)?;
        match attempt(left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            done => return done,
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        patient(self.read_until, |left| {
            self.tcp.set_read_timeout(Some(left))?;
            self.tcp.read(buffer)
        })
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        patient(self.write_until, |left| {
            self.tcp.set_write_timeout(Some(left))?;
            self.tcp.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// TCP, with as many layers of TLS around it as the way has: one for the exchange, one more for a
/// proxy that is reached by TLS itself.
#[derive(Debug)]
pub(super) enum Layer {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Layer>>),
}

impl Layer {
    /// Puts TLS around a stream and lets the other side prove that it is `host`.
    pub(super) fn secure(self, config: &Arc<ClientConfig>, host: &str) -> io::Result<Layer> {
        let bad = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let name = ServerName::try_from(host.to_owned()).map_err(|e| bad(e.to_string()))?;
        let tls = ClientConnection::new(config.clone(), name).map_err(|e| bad(e.to_string()))?;
        let mut stream = StreamOwned::new(tls, self);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Layer::Tls(Box::new(stream)))
    }

    /// What keeps the deadlines, below all.
    pub(super) fn timed(&mut self) -> &mut Timed {
        match self {
            Layer::Plain(timed) => timed,
            Layer::Tls(stream) => stream.sock.timed(),
        }
    }

    /// Says good-bye on each layer. Whether it is heard does not matter any more.
    pub(super) fn shut(&mut self) {
        match self {
            Layer::Plain(timed) => {
                let _ = timed.tcp.shutdown(Shutdown::Write);
            }
            Layer::Tls(stream) => {
                stream.conn.send_close_notify();
                let _ = stream.flush();
                stream.sock.shut();
            }
        }
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Layer::Plain(timed) => timed.read(buffer),
            Layer::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Layer::Plain(timed) => timed.write(bytes),
            Layer::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Layer::Plain(timed) => timed.flush(),
            Layer::Tls(stream) => stream.flush(),
        }
    }
}
