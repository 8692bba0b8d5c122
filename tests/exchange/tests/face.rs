//! The server itself: connections, latency, its end, TLS and the endpoints without candles.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::super::{Exchange, Fault, Listed, MINUTE_MS, Script};
use super::client::{DEADLINE, exchange_over, get, try_get};

const TIME: &str = "/api/v5/public/time";

#[test]
fn a_connection_serves_many_requests() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(1)).start();
    let mut stream = TcpStream::connect(exchange.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        write!(stream, "GET {TIME} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        assert!(body.starts_with(br#"{"code":"0""#));
    }
}

#[test]
fn the_clock_is_served_and_obeys() {
    let exchange = Exchange::builder().clock(1_700_000_000_000).speed(0.0).start();
    let served = || get(&exchange, TIME).json()["data"][0]["ts"].clone();
    assert_eq!(served(), "1700000000000");
    exchange.advance(MINUTE_MS);
    assert_eq!(served(), "1700000060000");
    exchange.set_speed(1e6);
    let start = Instant::now();
    while exchange.now() < 1_700_000_070_000 {
        assert!(start.elapsed() < DEADLINE, "the clock stands still");
        thread::yield_now();
    }
}

#[test]
fn instruments_are_listed_by_type() {
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(1))
        .synthetic("BTC-USDT-SWAP", Listed::days(1))
        .synthetic("BTC-USD-SWAP", Listed::days(1))
        .synthetic("BTC-USD-261225", Listed::days(1))
        .start();
    let list = |kind: &str| {
        let list = get(&exchange, &format!("/api/v5/public/instruments?instType={kind}")).json();
        list["data"].as_array().unwrap().clone()
    };
    let spot = list("SPOT");
    assert_eq!(spot.len(), 1);
    assert_eq!((&spot[0]["baseCcy"], &spot[0]["quoteCcy"]), (&"BTC".into(), &"USDT".into()));
    assert_eq!((&spot[0]["tickSz"], &spot[0]["state"]), (&"0.1".into(), &"live".into()));
    assert_eq!((&spot[0]["ctVal"], &spot[0]["settleCcy"]), (&"".into(), &"".into()));
    let swaps = list("SWAP");
    let kinds: Vec<_> = swaps.iter().map(|swap| (&swap["ctType"], &swap["ctVal"])).collect();
    let inverse = (&"inverse".into(), &"100".into());
    assert_eq!(kinds, [inverse, (&"linear".into(), &"0.01".into())]);
    assert_eq!((list("FUTURES").len(), list("OPTION").len()), (1, 0));
    assert!(get(&exchange, "/api/v5/system/status").json()["data"].is_array());
}

#[test]
fn latency_does_not_queue() {
    let exchange = Exchange::builder().latency_ms(400).start();
    let page = "/api/v5/market/candles?instId=NONE";
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(get(&exchange, page).status, 200));
        }
    });
    let passed = start.elapsed();
    assert!(passed >= Duration::from_millis(400) && passed < Duration::from_millis(20 * 400));
}

#[test]
fn a_stopped_exchange_is_unreachable_until_it_resumes() {
    let exchange = Exchange::builder().start();
    let mut idle = TcpStream::connect(exchange.address()).unwrap();
    idle.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(get(&exchange, TIME).status, 200);
    exchange.stop();
    assert!(matches!(idle.read(&mut [0]), Ok(0) | Err(_)), "open connections end");
    assert!(TcpStream::connect(exchange.address()).is_err());
    exchange.resume();
    assert_eq!(get(&exchange, TIME).status, 200);
    assert_eq!(exchange.requests().len(), 2);
}

#[test]
fn the_end_does_not_wait_for_a_stalled_answer() {
    let exchange = Exchange::builder().start();
    exchange.set_faults(vec![Script::always(Fault::Stall(3_600_000))]);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| try_get(&exchange, TIME).is_none());
        let start = Instant::now();
        while exchange.requests().is_empty() {
            assert!(start.elapsed() < DEADLINE, "the request does not arrive");
            thread::yield_now();
        }
        exchange.stop();
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn tls_is_trusted_under_both_names_by_its_own_authority_alone() {
    let exchange = Exchange::builder().tls().start();
    assert!(exchange.url().starts_with("https://localhost:"));
    let config = |roots| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(exchange.ca_pem().as_bytes()).unwrap()).unwrap();
    let roots = config(roots);
    let text = format!("GET {TIME} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    for name in ["localhost", "127.0.0.1"] {
        let name = ServerName::try_from(name).unwrap();
        let client = ClientConnection::new(Arc::clone(&roots), name).unwrap();
        let stream = TcpStream::connect(exchange.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let answer = exchange_over(StreamOwned::new(client, stream), &text).unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (200, "0"));
    }
    let other = Exchange::builder().tls().start();
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientConnection::new(roots, name).unwrap();
    let stream = TcpStream::connect(other.address()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(StreamOwned::new(client, stream).write_all(text.as_bytes()).is_err());
}
