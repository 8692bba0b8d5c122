//! The face of the stream: upgrades, requests and their answers, rules, pings and the end.

use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tungstenite::{Error, Message};

use super::super::{Exchange, Listed, Party, Rule, Series};
use super::client::{DEADLINE, get, send};
use super::socket::{Client, args, connect, refused, subscribed, try_connect};

const BTC: (&str, &str) = ("BTC-USDT", "1m");
const ETH: (&str, &str) = ("ETH-USDT", "1Dutc");

fn exchange() -> Exchange {
    Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(2))
        .synthetic("ETH-USDT", Listed::days(2))
        .push_ms(100)
        .speed(0.0)
        .start()
}

/// The rules broken so far, after which the test may end.
fn broken(exchange: &Exchange) -> Vec<Rule> {
    exchange.expect_violations();
    exchange.violations().iter().map(|violation| violation.rule).collect()
}

fn event(client: &mut Client, name: &str) -> Value {
    client.until(|message| message["event"] == name)
}

#[test]
fn the_path_decides_what_is_upgraded() {
    let exchange = exchange();
    for path in ["/ws/v5/public", "/ws/v5/private", "/ws/v5/business"] {
        try_connect(&exchange, path).expect("because it is a path of the stream").leave();
    }
    exchange.wait_for(|stats| stats.open() == 0, DEADLINE, "the client's leaving");
    assert_eq!(exchange.stats().last_closed().unwrap().by, Party::Client);
    exchange.assert_rules_kept();
    let other = self::exchange();
    assert_eq!(refused(&other, "/ws/v5/candles"), Some(404));
    let half = "GET /ws/v5/public HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(send(&other, half).unwrap().status, 400);
    assert_eq!(broken(&other), [Rule::Path, Rule::Upgrade]);
    assert_eq!(get(&other, "/api/v5/public/time").status, 200, "beside REST");
}

#[test]
fn the_fourth_connection_in_a_second_is_refused() {
    let exchange = exchange();
    let (start, mut clients) = (Instant::now(), Vec::new());
    // However slow the machine is: some four of these fall into one second.
    let refusal = loop {
        assert!(start.elapsed() < DEADLINE, "nobody was refused");
        match try_connect(&exchange, "/ws/v5/business") {
            Ok(client) => clients.push(client),
            Err(refusal) => break refusal,
        }
    };
    assert!(clients.len() >= 3, "refused after {}", clients.len());
    assert!(matches!(refusal, Error::Http(answer) if answer.status() == 429));
    assert_eq!(broken(&exchange), [Rule::ConnectRate]);
    while try_connect(&exchange, "/ws/v5/business").is_err() {
        assert!(start.elapsed() < DEADLINE, "the window does not move on");
        thread::yield_now();
    }
    drop(clients);
}

#[test]
fn a_subscription_is_acknowledged_and_begins_with_a_snapshot() {
    let exchange = exchange();
    let mut client = connect(&exchange);
    client.subscribe("s1", &[BTC, ("NOPE-USDT", "1m"), ETH]);
    let ack = client.next();
    let conn_id = ack["connId"].as_str().unwrap().to_owned();
    let arg = json!({"channel": "candle1m", "instId": "BTC-USDT"});
    assert_eq!(ack, json!({"id": "s1", "event": "subscribe", "arg": arg, "connId": conn_id}));
    let snapshot = client.next();
    assert_eq!(snapshot["arg"], arg);
    assert_eq!(snapshot["data"][0][8], "0");
    let error = event(&mut client, "error");
    assert_eq!((&error["code"], &error["id"]), (&"60018".into(), &"s1".into()));
    assert!(error["msg"].as_str().unwrap().contains("candle1m,instId:NOPE-USDT doesn't exist"));
    assert_eq!(error.get("arg"), None);
    assert_eq!(event(&mut client, "subscribe")["arg"]["channel"], "candle1Dutc");
    let wanted = [BTC, ETH].map(|(symbol, bar)| Series::named(symbol, bar));
    assert_eq!(exchange.stats().subscriptions(), wanted.into());
    exchange.assert_rules_kept();
}

#[test]
fn a_repeated_subscription_is_acknowledged_again() {
    let exchange = exchange();
    let mut client = subscribed(&exchange, &[BTC]);
    client.subscribe("again", &[BTC]);
    assert_eq!(event(&mut client, "subscribe")["id"], "again");
    client.candle();
    let stats = exchange.stats();
    assert_eq!((stats.subscriptions().len(), stats.requests_with("again")), (1, 1));
}

#[test]
fn unsubscribing_ends_the_pushes() {
    let exchange = exchange();
    let mut client = subscribed(&exchange, &[BTC, ETH]);
    client.ask(&json!({"op": "unsubscribe", "args": args(&[BTC])}));
    let ack = event(&mut client, "unsubscribe");
    assert_eq!((&ack["arg"]["instId"], ack.get("id")), (&"BTC-USDT".into(), None));
    assert_eq!(exchange.stats().subscriptions(), [Series::named("ETH-USDT", "1Dutc")].into());
    // What was on its way before the acknowledgement came before it.
    for _ in 0..3 {
        let push = client.until(|message| message.get("data").is_some());
        assert_eq!(push["arg"]["instId"], "ETH-USDT");
    }
}

#[test]
fn candles_are_on_business_alone() {
    let exchange = exchange();
    let mut client = try_connect(&exchange, "/ws/v5/public").unwrap();
    client.subscribe("s1", &[BTC]);
    assert_eq!(event(&mut client, "error")["code"], "60018");
    assert_eq!(broken(&exchange), [Rule::ChannelPath]);
}

#[test]
fn bad_requests_are_answered_and_remembered() {
    let long = "x".repeat(33);
    let many = vec![BTC; 101];
    let cases = [
        ("no json", "hello".to_owned(), "60012", Rule::Request),
        ("no op", json!({"args": args(&[BTC])}).to_string(), "60012", Rule::Request),
        ("no args", json!({"op": "subscribe"}).to_string(), "60012", Rule::Request),
        ("empty", json!({"op": "subscribe", "args": []}).to_string(), "60012", Rule::Request),
        (
            "id",
            json!({"id": "a-b", "op": "subscribe", "args": args(&[BTC])}).to_string(),
            "60012",
            Rule::RequestId,
        ),
        (
            "long id",
            json!({"id": long, "op": "subscribe", "args": args(&[BTC])}).to_string(),
            "60012",
            Rule::RequestId,
        ),
        (
            "bar",
            json!({"op": "subscribe", "args": args(&[("BTC-USDT", "1h")])}).to_string(),
            "60018",
            Rule::Channel,
        ),
        (
            "channel",
            json!({"op": "subscribe", "args": [{"channel": "weather"}]}).to_string(),
            "60018",
            Rule::Channel,
        ),
    ];
    let exchange = exchange();
    let mut client = connect(&exchange);
    for (name, text, code, rule) in cases {
        client.send(text);
        assert_eq!(event(&mut client, "error")["code"], code, "{name}");
        assert_eq!(broken(&exchange).last(), Some(&rule), "{name}");
    }
    client.subscribe("many", &many);
    for _ in 0..many.len() {
        assert_eq!(event(&mut client, "subscribe")["id"], "many");
    }
    assert_eq!(broken(&exchange).last(), Some(&Rule::Arguments));
}

#[test]
fn a_request_that_is_too_long_ends_the_connection() {
    for builder in [Exchange::builder(), Exchange::builder().tls()] {
        let exchange = builder.start();
        let mut client = connect(&exchange);
        client.send("x".repeat(64 * 1024 + 1));
        assert_eq!(client.end(), Some(1009));
        assert_eq!(broken(&exchange), [Rule::RequestSize]);
    }
}

#[test]
fn pings_are_answered_in_kind() {
    let exchange = exchange();
    let mut client = connect(&exchange);
    client.ping();
    assert_eq!(client.text(), "pong");
    client.control_ping();
    assert_eq!(client.message().unwrap(), Message::Pong("?".into()));
    let stats = exchange.stats();
    let (_, connection) = stats.connections().next().unwrap();
    assert_eq!((connection.text_pings, connection.control_pings), (1, 1));
}

#[test]
fn an_idle_connection_is_closed() {
    let exchange = Exchange::builder().idle_close_ms(2_000).start();
    let mut client = connect(&exchange);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        client.ping();
        assert_eq!(client.text(), "pong", "text pings keep it alive");
    }
    // Control frames do not, however many there are.
    let code = loop {
        client.control_ping();
        if let Message::Close(frame) = client.message().unwrap() {
            break frame.map(|frame| frame.code.into());
        }
    };
    assert_eq!(code, Some(4004));
    drop(client);
    exchange.wait_for(|stats| stats.last_closed().is_some(), DEADLINE, "the end");
    let closed = exchange.stats().last_closed().unwrap();
    assert_eq!((closed.by, closed.code), (Party::Exchange, Some(4004)));
}

#[test]
fn a_login_proves_the_secret() {
    let exchange = Exchange::builder().credentials("k", "secret", "p").speed(0.0).start();
    let now_s = exchange.now() / 1_000;
    let login = |key: &str, secret: &str, passphrase: &str, timestamp: i64| {
        let key_of_sign = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let sign = hmac::sign(&key_of_sign, format!("{timestamp}GET/users/self/verify").as_bytes());
        let timestamp = timestamp.to_string();
        let sign = BASE64_STANDARD.encode(sign);
        let arg =
            json!({"apiKey": key, "passphrase": passphrase, "timestamp": timestamp, "sign": sign});
        json!({"op": "login", "args": [arg]})
    };
    let mut client = connect(&exchange);
    let mut answer = |request: &Value| {
        client.ask(request);
        let answer = client.next();
        (answer["event"].as_str().unwrap().to_owned(), answer["code"].as_str().unwrap().to_owned())
    };
    let error = |code: &str| ("error".to_owned(), code.to_owned());
    assert_eq!(answer(&login("k", "secret", "p", now_s)), ("login".to_owned(), "0".to_owned()));
    assert_eq!(answer(&login("k", "other", "p", now_s)), error("60007"));
    assert_eq!(answer(&login("other", "secret", "p", now_s)), error("60005"));
    assert_eq!(answer(&login("k", "secret", "other", now_s)), error("60024"));
    assert_eq!(answer(&login("k", "secret", "p", now_s - 31)), error("60006"));
    let nobody = self::exchange();
    let mut client = connect(&nobody);
    client.ask(&login("k", "secret", "p", now_s));
    assert_eq!(client.next()["code"], "60009");
}

#[test]
fn the_stream_works_under_tls() {
    let exchange =
        Exchange::builder().synthetic("BTC-USDT", Listed::days(1)).tls().push_ms(50).start();
    assert!(exchange.ws_url().starts_with("wss://localhost:"));
    let mut client = subscribed(&exchange, &[BTC]);
    for _ in 0..3 {
        client.candle();
    }
    client.ping();
    while client.text() != "pong" {}
    client.leave();
}

#[test]
fn the_end_of_the_exchange_ends_the_connections() {
    let exchange = exchange();
    let mut client = subscribed(&exchange, &[BTC]);
    exchange.stop();
    assert_eq!(client.end(), None);
    assert_eq!(exchange.stats().last_closed().unwrap().by, Party::Nobody);
    exchange.resume();
    subscribed(&exchange, &[BTC]).candle();
}

#[test]
fn what_clients_said_is_remembered() {
    let exchange = exchange();
    let client = subscribed(&exchange, &[BTC]);
    let stats = exchange.stats();
    let message = stats.messages().next().unwrap();
    assert_eq!((message.connection, message.exchange_ms), (1, exchange.now()));
    assert!(message.text.contains("subscribe") && stats.requests_with("candle1m") == 1);
    let (id, connection) = stats.connections().next().unwrap();
    assert_eq!((id, connection.status, connection.path.as_str()), (1, 101, "/ws/v5/business"));
    assert!(connection.is_open() && connection.at_ms <= message.at_ms);
    client.leave();
}
