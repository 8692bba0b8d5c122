//! The WebSocket edge: one blocking connection, on which nothing waits longer than it may and
//! nothing grows larger than it may.
//!
//! Nothing is decided here: no retry, no meaning of a message. One thread reads and writes; another
//! can end the connection by its [`Killer`].
//!
//! **Invariant:** no call waits past its deadline, whatever the other side does: trickle, stall, or
//! say nothing at all. What has come by then in part is kept for the next call.

mod dial;
mod error;
mod layer;

use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use tungstenite::http::Uri;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};
use ureq::{Proxy, ProxyProtocol};

use crate::proxy;
use crate::roots::Roots;
use crate::socket::dial::Dial;
use crate::socket::layer::Layer;
use crate::time::{Deadline, Millis, SECOND};
use crate::wire::Plain;

pub use error::{SocketError, Step, Why};

/// The longest message taken. The longest honest one, a push of a few rows, has one KiB.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// How long a call waits for the other side to take what is sent. What it did not take by then
/// waits in our buffer and goes out with a later call.
const WRITE_MS: Millis = 250;
/// The same while reading, where more than a short wait would keep us from hearing.
const WRITE_ASIDE_MS: Millis = 20;
/// Who takes nothing for so long is gone.
const STALL_MS: Millis = 10 * SECOND;
/// The close code of a frame that has none.
const NO_CODE: u16 = 1005;

/// Whom to connect to, and how. Everything that can be refused is refused here, before anything is
/// connected.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    uri: Uri,
    host: Arc<str>,
    port: u16,
    is_secure: bool,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<Proxy>,
    timeout_ms: Millis,
}

impl SocketOptions {
    /// Options for `url`, a whole one with its path. `ca_file` has the roots of trust in place of
    /// the built-in ones; all steps of connecting together may take `timeout_ms`.
    ///
    /// # Errors
    ///
    /// The address is none, the file gives no roots, the environment's proxy is not supported.
    pub fn new(
        url: &str,
        ca_file: Option<&Path>,
        timeout_ms: Millis,
    ) -> Result<SocketOptions, SocketError> {
        let uri: Uri = url.parse().map_err(|_| bad_url(url))?;
        let proxy = proxy::find(&uri).map_err(SocketError::Proxy)?;
        SocketOptions::with_proxy(uri, proxy, ca_file, timeout_ms)
    }

    fn with_proxy(
        uri: Uri,
        proxy: Option<Proxy>,
        ca_file: Option<&Path>,
        timeout_ms: Millis,
    ) -> Result<SocketOptions, SocketError> {
        let bad = || bad_url(&uri.to_string());
        let is_secure = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(bad()),
        };
        let authority = uri.authority().filter(|whole| !whole.as_str().contains('@'));
        let host = authority.map(|whole| whole.host()).filter(|host| !host.is_empty());
        let host: Arc<str> = host.ok_or_else(bad)?.into();
        let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let by_tls = proxy.as_ref().is_some_and(|it| it.protocol() == ProxyProtocol::Https);
        let tls = if is_secure || by_tls {
            Some(Roots::find(ca_file).map_err(SocketError::Roots)?.client_config())
        } else {
            None
        };
        Ok(SocketOptions { uri, host, port, is_secure, tls, proxy, timeout_ms })
    }
}

/// A user name, and a password with it, must not come back in the message.
fn bad_url(url: &str) -> SocketError {
    SocketError::Url(url.rsplit('@').next().unwrap_or_default().into())
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(Utf8Bytes),
    /// A binary message. The exchange sends none, so nobody asks what it holds.
    Binary,
    /// A ping or a pong of the protocol; the former is answered already.
    Control,
    /// The other side closes.
    Close {
        /// Its code; 1005 where it gives none.
        code: u16,
        /// Its words.
        reason: Plain,
    },
}

/// A connection.
///
/// ```no_run
/// use okx_local_store::okx::{Region, stream::STREAM_PATH};
/// use okx_local_store::socket::{Frame, Socket, SocketOptions};
/// use okx_local_store::time::Deadline;
///
/// let url = format!("{}{STREAM_PATH}", Region::Global.ws_url(false));
/// let options = SocketOptions::new(&url, None, 10_000)?;
/// let mut socket = Socket::connect(&options, &mut |step, ms| println!("{step}: {ms} ms"))?;
/// socket.send("ping")?;
/// assert_eq!(socket.read(Deadline::after(5_000))?, Some(Frame::Text("pong".into())));
/// # Ok::<(), okx_local_store::socket::SocketError>(())
/// ```
#[derive(Debug)]
pub struct Socket {
    socket: WebSocket<Layer>,
    host: Arc<str>,
    /// Until when what waits in our buffer must have gone out.
    stalled: Option<Deadline>,
}

impl Socket {
    /// Connects, and tells each step with its length in ms as it is done.
    pub fn connect(
        options: &SocketOptions,
        step: &mut dyn FnMut(Step, Millis),
    ) -> Result<Socket, SocketError> {
        let socket = Dial::new(options, step).run()?;
        Ok(Socket { socket, host: options.host.clone(), stalled: None })
    }

    /// The next frame; `None` if none was whole by the deadline.
    pub fn read(&mut self, until: Deadline) -> Result<Option<Frame>, SocketError> {
        if self.stalled.is_some() {
            self.write(WRITE_ASIDE_MS, |socket| socket.flush())?;
        }
        let timed = self.socket.get_mut().timed();
        (timed.read_until, timed.write_until) = (until, Deadline::after(WRITE_ASIDE_MS));
        match self.socket.read() {
            Ok(Message::Text(text)) => Ok(Some(Frame::Text(text))),
            Ok(Message::Binary(_) | Message::Frame(_)) => Ok(Some(Frame::Binary)),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(Some(Frame::Control)),
            Ok(Message::Close(frame)) => {
                let code = frame.as_ref().map_or(NO_CODE, |frame| frame.code.into());
                let reason = frame.as_ref().map_or("", |frame| frame.reason.as_str());
                Ok(Some(Frame::Close { code, reason: Plain::from(reason) }))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(SocketError::broken(&self.host, error)),
        }
    }

    /// Sends a text, or keeps it to be sent first by a later call if the other side does not take
    /// it now: it is never to be sent again.
    ///
    /// # Errors
    ///
    /// The connection is broken, or took nothing for ten seconds.
    pub fn send(&mut self, text: &str) -> Result<(), SocketError> {
        self.write(WRITE_MS, |socket| socket.send(Message::text(text)))
    }

    /// Sends what an earlier call had to keep.
    pub fn flush(&mut self) -> Result<(), SocketError> {
        self.write(WRITE_MS, |socket| socket.flush())
    }

    /// Says good-bye and hangs up, whether or not that is heard.
    pub fn close(mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        let _ = self.write(WRITE_MS, |socket| socket.close(Some(frame)));
        self.socket.get_mut().shut();
    }

    /// The means to end the connection from another thread, at once.
    pub fn killer(&mut self) -> Result<Killer, SocketError> {
        let clone = self.socket.get_mut().timed().tcp().try_clone();
        clone.map(Killer).map_err(|error| SocketError::broken(&self.host, error.into()))
    }

    /// Writes within `length_ms`. What is not taken by then stays in the buffer.
    fn write(
        &mut self,
        length_ms: Millis,
        write: impl FnOnce(&mut WebSocket<Layer>) -> Result<(), Error>,
    ) -> Result<(), SocketError> {
        let timed = self.socket.get_mut().timed();
        timed.write_until = Deadline::after(length_ms);
        timed.read_until = timed.write_until;
        let stalled = || SocketError::Stalled { host: self.host.clone(), length_ms: STALL_MS };
        match write(&mut self.socket) {
            Ok(()) => self.stalled = None,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                let until = self.stalled.get_or_insert_with(|| Deadline::after(STALL_MS));
                return until.left().map(drop).ok_or_else(stalled);
            }
            Err(Error::WriteBufferFull(_)) => return Err(stalled()),
            Err(error) => return Err(SocketError::broken(&self.host, error)),
        }
        Ok(())
    }
}

/// Ends a connection from another thread: whoever reads or writes on it is woken.
#[derive(Debug)]
pub struct Killer(TcpStream);

impl Killer {
    /// Ends it.
    pub fn kill(&self) {
        // It fails only where the connection has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests;
