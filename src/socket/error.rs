//! Why there is no connection, or none any more.

use std::sync::Arc;
use std::{fmt, io};

use tungstenite::Error;
use tungstenite::error::{CapacityError, ProtocolError};

use crate::proxy::ProxyError;
use crate::roots::{RootsError, distrust};
use crate::socket::MESSAGE_BYTES_MAX;
use crate::time::Millis;
use crate::wire::{Plain, Policy};

/// A part of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The name becomes addresses.
    Resolve,
    /// One of the addresses answers.
    Tcp,
    /// The proxy lets us through, where there is one.
    Proxy,
    /// The other side proves who it is.
    Tls,
    /// HTTP becomes WebSocket.
    Upgrade,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Step::Resolve => "resolve",
            Step::Tcp => "tcp",
            Step::Proxy => "proxy",
            Step::Tls => "tls",
            Step::Upgrade => "upgrade",
        })
    }
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The time for connecting was over.
    TimedOut,
    /// HTTP was answered with this status.
    Status(u16),
    /// Something else, in words.
    Said(Plain),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Why {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Why::TimedOut,
            io::ErrorKind::UnexpectedEof => Why::Said("it hung up".into()),
            _ => Why::Said(distrust(&error).map_or_else(|| Plain::of(&error), Plain::from)),
        }
    }
}

impl From<Error> for Why {
    fn from(error: Error) -> Why {
        match error {
            Error::Io(error) => error.into(),
            Error::Http(answer) => Why::Status(answer.status().as_u16()),
            Error::Protocol(ProtocolError::HandshakeIncomplete) => Why::Said("it hung up".into()),
            error => Why::Said(Plain::of(error)),
        }
    }
}

/// Why there is no connection, or none any more. All but the first three pass, or may.
#[derive(Debug)]
pub enum SocketError {
    /// The address is none.
    Url(Plain),
    /// The file with roots gives none.
    Roots(RootsError),
    /// The environment names a proxy that is not supported.
    Proxy(ProxyError),
    /// No connection came to stand.
    Connect {
        /// Who was spoken to: the exchange, or the proxy before it.
        host: Arc<str>,
        /// What was tried.
        step: Step,
        /// What came of it.
        why: Why,
    },
    /// The connection broke.
    Lost {
        /// Whose.
        host: Arc<str>,
        /// What happened.
        why: Plain,
    },
    /// The other side takes nothing of what it is sent.
    Stalled {
        /// Who.
        host: Arc<str>,
        /// For so long at least.
        length_ms: Millis,
    },
    /// A message is longer than any honest one.
    TooLarge {
        /// Whose.
        host: Arc<str>,
        /// The bound it broke.
        bytes_max: usize,
    },
    /// What came breaks the rules of WebSocket.
    Unsound {
        /// Whose.
        host: Arc<str>,
        /// How.
        why: Plain,
    },
}

impl SocketError {
    /// What a failure of a connection that stood means.
    pub(super) fn broken(host: &Arc<str>, error: Error) -> SocketError {
        let host = host.clone();
        match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                SocketError::TooLarge { host, bytes_max: MESSAGE_BYTES_MAX }
            }
            Error::Io(error) => match Why::from(error) {
                Why::Said(why) => SocketError::Lost { host, why },
                _ => SocketError::Lost { host, why: "it took too long".into() },
            },
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                SocketError::Lost { host, why: "it hung up".into() }
            }
            error => SocketError::Unsound { host, why: Plain::of(error) },
        }
    }

    /// What to do about it.
    pub fn policy(&self) -> Policy {
        match self {
            SocketError::Url(_) | SocketError::Roots(_) | SocketError::Proxy(_) => {
                Policy::Permanent
            }
            SocketError::Connect { step: Step::Upgrade, why: Why::Status(status), .. } => {
                match status {
                    403 | 451 => Policy::Denied,
                    429 => Policy::RateLimited { retry_after_ms: None },
                    _ => Policy::Busy { retry_after_ms: None },
                }
            }
            _ => Policy::Busy { retry_after_ms: None },
        }
    }
}

/// Its text begins with the public name of its kind, and ends with what is done, or can be done,
/// about it; in the form `{:#}` with the latter alone, for whoever does nothing about it.
impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let anew = if f.alternate() { "" } else { "connecting anew: " };
        match self {
            SocketError::Url(url) => write!(
                f,
                "WebSocketConnectionError: {url:?} is no address of a stream: give wss:// and a \
                 host"
            ),
            SocketError::Roots(error) => write!(f, "WebSocketConnectionError: {error}"),
            SocketError::Proxy(error) => write!(f, "WebSocketConnectionError: {error}"),
            SocketError::Connect { host, step, why } => failed(f, host, *step, why),
            SocketError::Lost { host, why } => write!(
                f,
                "WebSocketConnectionError: {host}: {why} ({anew}if it lasts, look at the network)"
            ),
            SocketError::Stalled { host, length_ms } => write!(
                f,
                "WebSocketTimeoutError: {host}: it took nothing of what was sent for {length_ms} \
                 ms ({anew}if it lasts, look at the network)"
            ),
            SocketError::TooLarge { host, bytes_max } => write!(
                f,
                "WebSocketDataError: {host}: a message is longer than {bytes_max} bytes \
                 ({anew}if it lasts, look at the address)"
            ),
            SocketError::Unsound { host, why } => write!(
                f,
                "WebSocketDataError: {host}: {why} ({anew}if it lasts, look for a proxy on the \
                 way)"
            ),
        }
    }
}

/// Tells of a failed step, and what can be done about it.
fn failed(f: &mut fmt::Formatter<'_>, host: &str, step: Step, why: &Why) -> fmt::Result {
    let name = match why {
        Why::TimedOut => "WebSocketTimeoutError",
        Why::Status(_) | Why::Said(_) => "WebSocketConnectionError",
    };
    write!(f, "{name}: {host}: {step}: ")?;
    match why {
        Why::TimedOut => f.write_str("it took too long")?,
        Why::Status(status) => write!(f, "it answered HTTP {status}")?,
        Why::Said(why) => write!(f, "{why}")?,
    }
    f.write_str(match (step, why) {
        (Step::Proxy, Why::Status(407)) => " (the proxy wants a name and a password in its URL)",
        (Step::Proxy, _) => " (look at ALL_PROXY, HTTPS_PROXY, HTTP_PROXY and NO_PROXY)",
        (Step::Upgrade, Why::Status(403 | 451)) => {
            " (access is denied from here: look at the config key region)"
        }
        (Step::Upgrade, Why::Status(404)) => " (look at the config key ws_url)",
        (Step::Upgrade, Why::Status(429)) if f.alternate() => {
            " (too many connections: try again later)"
        }
        (Step::Upgrade, Why::Status(429)) => " (too many connections: trying again later)",
        (Step::Tls, Why::Said(_)) => "",
        _ if f.alternate() => " (if it lasts, look at the network)",
        _ => " (trying again: if it lasts, look at the network)",
    })
}

impl std::error::Error for SocketError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SocketError::Roots(error) => Some(error),
            SocketError::Proxy(error) => Some(error),
            _ => None,
        }
    }
}
