//! The smallest client of the stream: it says what it is told to, and looks at every message.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, HandshakeError, Message, WebSocket};

use super::super::{Exchange, Series};
use super::client::DEADLINE;

pub trait Channel: Read + Write {}

impl<T: Read + Write> Channel for T {}

pub struct Client {
    socket: WebSocket<Box<dyn Channel>>,
    since: Instant,
}

/// A connection to the exchange, under TLS if it has that.
fn dial(exchange: &Exchange) -> Box<dyn Channel> {
    let tcp = TcpStream::connect(exchange.address()).expect("because the exchange is open");
    tcp.set_read_timeout(Some(DEADLINE)).expect("because the time is not zero");
    if exchange.ws_url().starts_with("ws:") {
        return Box::new(tcp);
    }
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(exchange.ca_pem().as_bytes());
    roots.add(ca.expect("because it is PEM")).expect("because it is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("because ring knows TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("because it is a name");
    let tls = ClientConnection::new(Arc::new(config), name);
    Box::new(StreamOwned::new(tls.expect("because the name is known"), tcp))
}

/// Connects to that path; an error if there is no upgrade.
pub fn try_connect(exchange: &Exchange, path: &str) -> Result<Client, Error> {
    let url = format!("{}{path}", exchange.ws_url());
    let config = WebSocketConfig::default().max_message_size(Some(64 << 20));
    let shaken = tungstenite::client::client_with_config(url, dial(exchange), Some(config));
    match shaken {
        Ok((socket, _)) => Ok(Client { socket, since: Instant::now() }),
        Err(HandshakeError::Failure(error)) => Err(error),
        Err(HandshakeError::Interrupted(_)) => panic!("no answer within {DEADLINE:?}"),
    }
}

/// The HTTP status of an upgrade that is refused; nothing if there is no answer.
pub fn refused(exchange: &Exchange, path: &str) -> Option<u16> {
    match try_connect(exchange, path) {
        Ok(_) => panic!("{path} was upgraded"),
        Err(Error::Http(answer)) => Some(answer.status().as_u16()),
        Err(_) => None,
    }
}

pub fn connect(exchange: &Exchange) -> Client {
    try_connect(exchange, "/ws/v5/business").expect("because the exchange is well")
}

/// Connected and subscribed, up to the acknowledgement of the last one.
pub fn subscribed(exchange: &Exchange, series: &[(&str, &str)]) -> Client {
    let mut client = connect(exchange);
    client.subscribe("s1", series);
    let last = series.last().map(|(symbol, bar)| Series::named(symbol, bar));
    client.until(|message| {
        message["event"] == "subscribe" && last.as_ref().is_some_and(|last| is_of(message, last))
    });
    client
}

fn is_of(message: &Value, series: &Series) -> bool {
    let arg = &message["arg"];
    arg["instId"] == series.symbol.as_str() && arg["channel"] == format!("candle{}", series.bar)
}

pub fn args(series: &[(&str, &str)]) -> Value {
    let arg =
        |(symbol, bar): &(&str, &str)| json!({"channel": format!("candle{bar}"), "instId": symbol});
    series.iter().map(arg).collect()
}

impl Client {
    pub fn send(&mut self, message: impl Into<Message>) {
        self.socket.send(message.into()).expect("because the exchange listens");
    }

    pub fn ping(&mut self) {
        self.send("ping");
    }

    pub fn control_ping(&mut self) {
        self.send(Message::Ping(Bytes::from_static(b"?")));
    }

    pub fn ask(&mut self, request: &Value) {
        self.send(request.to_string());
    }

    pub fn subscribe(&mut self, id: &str, series: &[(&str, &str)]) {
        self.ask(&json!({"id": id, "op": "subscribe", "args": args(series)}));
    }

    /// Subscribes over a connection that may have ended.
    pub fn subscribe_or_fail(&mut self, series: &[(&str, &str)]) {
        let request = json!({"op": "subscribe", "args": args(series)}).to_string();
        // The next read tells whether it has.
        let _ = self.socket.send(request.into());
    }

    /// The next message of any kind, or how the connection ended.
    pub fn message(&mut self) -> Result<Message, Error> {
        assert!(self.since.elapsed() < 2 * DEADLINE, "what the test waits for does not come");
        let message = self.socket.read();
        if let Err(Error::Io(error)) = &message {
            let late = [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind());
            assert!(!late, "no message within {DEADLINE:?}");
        }
        message
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        loop {
            if let Message::Text(text) = self.message().expect("because the connection lives") {
                return text.as_str().to_owned();
            }
        }
    }

    /// The next JSON text.
    pub fn next(&mut self) -> Value {
        loop {
            let text = self.text();
            if text != "pong" {
                return serde_json::from_str(&text).expect("because it is JSON");
            }
        }
    }

    /// The next message for which `wanted` holds; those before it are lost.
    pub fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// The fields of the next candle.
    pub fn candle(&mut self) -> Vec<String> {
        let message = self.until(|message| message.get("data").is_some());
        serde_json::from_value(message["data"][0].clone()).expect("because all values are text")
    }

    /// The fields of the next closing push.
    pub fn confirmed(&mut self) -> Vec<String> {
        loop {
            let candle = self.candle();
            if candle[8] == "1" {
                return candle;
            }
        }
    }

    /// Reads to the end of the connection: the code of the close frame, if there is one.
    pub fn end(&mut self) -> Option<u16> {
        loop {
            match self.message() {
                Ok(Message::Close(frame)) => {
                    // The answer goes out with the next look at the socket.
                    let _ = self.message();
                    return frame.map(|frame| frame.code.into());
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// As `end`, for a connection that must break: the kind of error that it breaks with.
    pub fn broken(&mut self) -> Error {
        loop {
            if let Err(error) = self.message() {
                return error;
            }
        }
    }

    pub fn leave(mut self) {
        self.socket.close(None).expect("because the exchange listens");
        while self.socket.read().is_ok() {}
    }
}
