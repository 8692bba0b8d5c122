//! Connecting, step by step, within one deadline for all steps.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{bounded, select};
use rustls::ClientConfig;
use tungstenite::WebSocket;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::http::HeaderValue;
use tungstenite::http::header::USER_AGENT as AGENT_HEADER;
use tungstenite::protocol::WebSocketConfig;
use ureq::ProxyProtocol;

use crate::http::USER_AGENT;
use crate::proxy::{bare, tunnel};
use crate::socket::error::{SocketError, Step, Why};
use crate::socket::layer::{Layer, Timed};
use crate::socket::{MESSAGE_BYTES_MAX, SocketOptions};
use crate::thread;
use crate::time::{Deadline, Millis};

/// More addresses of one name than there is time to try.
const ADDRESSES_MAX: usize = 8;

/// A part of the buffers, which a push of a candle fills by a hundredth.
const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The most that waits to be sent. The longest request has four KiB.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// One attempt to connect.
pub(super) struct Dial<'a> {
    options: &'a SocketOptions,
    until: Deadline,
    done: &'a mut dyn FnMut(Step, Millis),
}

impl<'a> Dial<'a> {
    /// An attempt that begins now, and tells each step with its length as it is done.
    pub(super) fn new(
        options: &'a SocketOptions,
        done: &'a mut dyn FnMut(Step, Millis),
    ) -> Dial<'a> {
        Dial { options, until: Deadline::after(options.timeout_ms), done }
    }

    /// All the steps.
    pub(super) fn run(mut self) -> Result<WebSocket<Layer>, SocketError> {
        let (options, until) = (self.options, self.until);
        let target: Arc<str> = format!("{}:{}", options.host, options.port).into();
        let (host, port) = match &options.proxy {
            Some(proxy) => (proxy.host(), proxy.port()),
            None => (&*options.host, options.port),
        };
        let next: Arc<str> = format!("{host}:{port}").into();
        let addresses = self.step(Step::Resolve, &next, || resolve(bare(host), port, until))?;
        let tcp = self.step(Step::Tcp, &next, || connect(&addresses, until))?;
        let mut layer = Layer::Plain(Timed::new(tcp, until));
        if let Some(proxy) = &options.proxy {
            layer = self.step(Step::Proxy, &next, || {
                if proxy.protocol() == ProxyProtocol::Https {
                    layer = layer.secure(tls(options)?, bare(host))?;
                }
                match tunnel(&mut layer, proxy, &target, USER_AGENT)? {
                    200 => Ok(layer),
                    status => Err(Why::Status(status)),
                }
            })?;
        }
        if options.is_secure {
            layer = self.step(Step::Tls, &target, || {
                Ok(layer.secure(tls(options)?, bare(&options.host))?)
            })?;
        }
        self.step(Step::Upgrade, &target, || upgrade(layer, options, until))
    }

    fn step<T>(
        &mut self,
        step: Step,
        host: &Arc<str>,
        work: impl FnOnce() -> Result<T, Why>,
    ) -> Result<T, SocketError> {
        let begun = Deadline::after(0);
        let done = work();
        let done = done.map_err(|why| SocketError::Connect { host: host.clone(), step, why })?;
        (self.done)(step, begun.elapsed_ms());
        Ok(done)
    }
}

fn tls(options: &SocketOptions) -> Result<&Arc<ClientConfig>, Why> {
    options.tls.as_ref().ok_or_else(|| Why::Said("there are no roots of trust".into()))
}

/// The addresses of a name. The system's resolver knows no deadline, so it has a thread of its
/// own, which is left behind when it takes too long, and ends when the system gives up.
fn resolve(host: &str, port: u16, until: Deadline) -> Result<Vec<SocketAddr>, Why> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let left = until.left().ok_or(Why::TimedOut)?;
    let (found, finds) = bounded(1);
    // Nobody waits for the end of that thread, only for what it finds.
    let (exits, _) = bounded(1);
    let name = host.to_owned();
    thread::spawn("resolve", &exits, move || {
        let addresses = (name.as_str(), port).to_socket_addrs();
        let _ = found.try_send(addresses.map(|all| all.take(ADDRESSES_MAX).collect::<Vec<_>>()));
    })?;
    select! {
        recv(finds) -> found => match found {
            Ok(Ok(addresses)) if addresses.is_empty() => {
                Err(Why::Said("the name has no address".into()))
            }
            Ok(found) => Ok(found?),
            Err(_) => Err(Why::Said("the resolver failed".into())),
        },
        default(left) => Err(Why::TimedOut),
    }
}

/// The first address that answers. Each has its share of the time that is left, so that one which
/// is dead does not use up that of the others.
pub(super) fn connect(addresses: &[SocketAddr], until: Deadline) -> Result<TcpStream, Why> {
    /// What is always given, however little is left.
    const LEAST: Duration = Duration::from_millis(1);
    let mut why = Why::TimedOut;
    for (tried, address) in addresses.iter().enumerate() {
        let Some(left) = until.left() else { break };
        let share = left / (addresses.len() - tried) as u32;
        match TcpStream::connect_timeout(address, share.max(LEAST)) {
            Ok(tcp) => {
                // A request is one small write, which is not to wait for more.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => why = error.into(),
        }
    }
    Err(why)
}

/// Makes a WebSocket of a stream. No compression is offered, as the exchange has none.
fn upgrade(
    layer: Layer,
    options: &SocketOptions,
    until: Deadline,
) -> Result<WebSocket<Layer>, Why> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut request = options.uri.clone().into_client_request()?;
    request.headers_mut().insert(AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
    let mut attempt = ClientHandshake::start(layer, request, Some(config))?.handshake();
    loop {
        attempt = match attempt {
            Ok((socket, _)) => return Ok(socket),
            Err(HandshakeError::Failure(error)) => return Err(error.into()),
            Err(HandshakeError::Interrupted(_)) if until.left().is_none() => {
                return Err(Why::TimedOut);
            }
            Err(HandshakeError::Interrupted(rest)) => rest.handshake(),
        };
    }
}
