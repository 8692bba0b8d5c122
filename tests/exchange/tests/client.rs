//! The smallest client that can ask the exchange something.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::super::Exchange;

/// No answer in these tests takes longer, unless the exchange is broken.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// What the head promised.
    pub length: usize,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("because the answer is JSON")
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().expect("because the code is text").to_owned()
    }

    /// The rows of a page, as texts.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let json = self.json();
        assert_eq!((&json["code"], self.status), (&Value::from("0"), 200), "a page was asked for");
        serde_json::from_value(json["data"].clone()).expect("because all values are text")
    }

    /// The open times of a page.
    pub fn times(&self) -> Vec<i64> {
        self.rows().iter().map(|row| row[0].parse().expect("because it is a time")).collect()
    }
}

/// Asks on a connection of its own; nothing if that ends without an answer.
pub fn try_get(exchange: &Exchange, target: &str) -> Option<Response> {
    let text = format!("GET {target} HTTP/1.1\r\nhost: loopback\r\nconnection: close\r\n\r\n");
    send(exchange, &text)
}

pub fn get(exchange: &Exchange, target: &str) -> Response {
    try_get(exchange, target).expect("because the exchange answers")
}

/// A page of one-minute bars of BTC-USDT from `/candles`.
pub fn candles(exchange: &Exchange, query: &str) -> Response {
    get(exchange, &format!("/api/v5/market/candles?instId=BTC-USDT{query}"))
}

/// The same from `/history-candles`.
pub fn history(exchange: &Exchange, query: &str) -> Response {
    get(exchange, &format!("/api/v5/market/history-candles?instId=BTC-USDT{query}"))
}

/// Sends `text` as it is, and reads until the connection ends.
pub fn send(exchange: &Exchange, text: &str) -> Option<Response> {
    let stream = TcpStream::connect(exchange.address()).expect("because the exchange is open");
    stream.set_read_timeout(Some(DEADLINE)).expect("because the time is not zero");
    exchange_over(stream, text)
}

/// Sends `text` over any stream.
pub fn exchange_over(mut stream: impl Read + Write, text: &str) -> Option<Response> {
    stream.write_all(text.as_bytes()).expect("because the exchange reads");
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        // A connection may end in any way it likes, but it must end.
        assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer within {DEADLINE:?}");
    }
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).expect("because heads are text");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    Some(Response {
        status: status.expect("because each head has a status"),
        length: length.and_then(|text| text.parse().ok()).expect("because each has a length"),
        head,
        body: bytes[end + 4..].to_vec(),
    })
}
