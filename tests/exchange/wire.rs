//! The bytes of one connection, plain or under TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A TCP stream which the listener can reach as well.
pub struct Tcp(Arc<TcpStream>);

impl Read for Tcp {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self.0).flush()
    }
}

pub enum Wire {
    Plain(Tcp),
    Tls(Box<StreamOwned<ServerConnection, Tcp>>),
}

impl Wire {
    /// The server's side of an accepted connection; TLS shakes hands with the first read.
    pub fn new(socket: Arc<TcpStream>, tls: Option<&Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else {
            return Ok(Self::Plain(Tcp(socket)));
        };
        let server = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(server, Tcp(socket)))))
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => &tcp.0,
            Self::Tls(stream) => &stream.sock.0,
        }
    }

    /// Hangs up with RST: the peer loses what it has not read yet.
    pub fn reset(self) {
        // Where the option is refused, the end comes as FIN, which is as good a fault.
        let _ = set_socket_linger(self.tcp(), Some(Duration::ZERO));
    }

    /// Says that nothing more comes, and swallows what the peer still sends: with bytes left
    /// unread the system would send RST, and the peer might lose the last words.
    pub fn linger(mut self, reads_max: usize) {
        let _ = self.tcp().shutdown(Shutdown::Write);
        let mut chunk = [0; 4096];
        for _ in 0..reads_max {
            if !matches!(self.read(&mut chunk), Ok(count) if count > 0) {
                return;
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
