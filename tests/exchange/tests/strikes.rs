//! Each fault of the stream as a client sees it.

use std::io::ErrorKind;
use std::time::Instant;

use serde_json::Value;
use tungstenite::{Error, Message};

use super::super::{
    DEFAULT_START_MS, Exchange, Garbage, Listed, MINUTE_MS, Party, Refuse, StreamFault, Strike,
};
use super::client::{DEADLINE, get};
use super::socket::{Client, connect, refused, subscribed, try_connect};

const SERIES: (&str, &str) = ("BTC-USDT", "1m");
/// A minute in which both instruments trade.
const START_MS: i64 = DEFAULT_START_MS - DEFAULT_START_MS % MINUTE_MS + 3 * MINUTE_MS;

fn exchange() -> Exchange {
    Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(2))
        .synthetic("ETH-USDT", Listed::days(2))
        .clock(START_MS)
        .speed(0.0)
        .push_ms(20)
        .start()
}

/// Frames that are counted are on their way, but what is not sent never comes: a few pushes of
/// another connection prove that time has passed.
fn let_pushes_pass(exchange: &Exchange) {
    let before = exchange.pushes();
    exchange.wait_for(|stats| stats.pushes() > before + 5, DEADLINE, "pushes to others");
}

#[test]
fn connections_end_in_every_way() {
    let cases = [
        (StreamFault::Drop, None),
        (StreamFault::Close(1006), None),
        (StreamFault::Close(1001), Some(1001)),
        (StreamFault::Close(1009), Some(1009)),
        (StreamFault::Close(4004), Some(4004)),
        (StreamFault::Close(4005), Some(4005)),
        (StreamFault::Close(4006), Some(4006)),
        (StreamFault::Close(4008), Some(4008)),
        (StreamFault::Close(4009), Some(4009)),
    ];
    for (fault, code) in cases {
        let exchange = exchange();
        let mut client = subscribed(&exchange, &[SERIES]);
        exchange.strike(fault);
        assert_eq!(client.end(), code, "{fault:?}");
        exchange.wait_for(|stats| stats.open() == 0, DEADLINE, "the end");
        let closed = exchange.stats().last_closed().unwrap();
        assert_eq!((closed.by, closed.code), (Party::Exchange, code));
        assert_eq!(exchange.stats().struck()[0].1, fault);
        subscribed(&exchange, &[SERIES]).candle();
    }
}

#[test]
fn a_reset_is_none_of_the_polite_ends() {
    let exchange = exchange();
    let mut client = connect(&exchange);
    exchange.strike(StreamFault::Reset);
    let Error::Io(error) = client.broken() else { panic!("no reset") };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn connections_are_refused_until_healed() {
    let exchange = exchange();
    for status in [403, 429, 503] {
        exchange.strike(StreamFault::Refuse(Refuse::Http(status)));
        assert_eq!(refused(&exchange, "/ws/v5/business"), Some(status));
    }
    assert_eq!(get(&exchange, "/api/v5/public/time").status, 200, "REST is well");
    exchange.heal();
    let other = self::exchange();
    other.strike(StreamFault::Refuse(Refuse::Reset));
    assert_eq!(refused(&other, "/ws/v5/business"), None);
    other.heal();
    connect(&other);
}

#[test]
fn a_refusal_ends_by_itself() {
    let exchange = exchange();
    exchange.strike(Strike::new(StreamFault::Refuse(Refuse::Http(503))).lasting(50));
    let start = Instant::now();
    exchange.expect_violations();
    while try_connect(&exchange, "/ws/v5/business").is_err() {
        assert!(start.elapsed() < DEADLINE, "it does not end");
    }
}

#[test]
fn silence_swallows_all_that_is_sent() {
    let exchange = exchange();
    let mut client = subscribed(&exchange, &[SERIES]);
    exchange.strike(Strike::new(StreamFault::Silence).on_present());
    client.ping();
    client.control_ping();
    exchange.wait_for(
        |stats| stats.connections().any(|(_, it)| (it.text_pings, it.control_pings) == (1, 1)),
        DEADLINE,
        "pings to be read",
    );
    let mut later = subscribed(&exchange, &[SERIES]);
    let_pushes_pass(&exchange);
    later.ping();
    while later.text() != "pong" {}
    exchange.heal();
    client.send("ping");
    let mut pongs = 0;
    // The pongs of the silence are lost; the first one is that of the last ping.
    while pongs == 0 {
        match client.message().unwrap() {
            Message::Pong(_) => panic!("a pong out of the silence"),
            Message::Text(text) if text.as_str() == "pong" => pongs += 1,
            _ => {}
        }
    }
    assert_eq!(exchange.stats().open(), 2, "nothing was closed");
}

#[test]
fn the_deaf_go_on_talking() {
    let exchange = exchange();
    exchange.strike(StreamFault::DeafToPings);
    let mut client = subscribed(&exchange, &[SERIES]);
    client.ping();
    client.control_ping();
    exchange.wait_for(
        |stats| stats.connections().any(|(_, it)| (it.text_pings, it.control_pings) == (1, 1)),
        DEADLINE,
        "pings to be read",
    );
    for _ in 0..5 {
        let message = client.message().unwrap();
        assert!(message.is_text() && message.to_text().unwrap().contains("data"), "{message}");
    }
}

#[test]
fn a_half_open_connection_neither_reads_nor_writes() {
    let exchange = exchange();
    let mut client = subscribed(&exchange, &[SERIES]);
    exchange.strike(Strike::new(StreamFault::HalfOpen).on_present());
    let other = subscribed(&exchange, &[SERIES]);
    // What it was about to do when it was struck is done by now.
    let_pushes_pass(&exchange);
    client.ping();
    let before = exchange.stats();
    let_pushes_pass(&exchange);
    let (_, half) = before.connections().next().unwrap();
    let stats = exchange.stats();
    let (_, now) = stats.connections().next().unwrap();
    assert_eq!((now.pushes, now.text_pings, now.is_open()), (half.pushes, 0, true));
    exchange.heal();
    while client.text() != "pong" {}
    drop(other);
}

#[test]
fn a_drip_arrives_whole() {
    let exchange = exchange();
    exchange.strike(StreamFault::Drip { bytes: 7, pause_ms: 1 });
    let mut client = subscribed(&exchange, &[SERIES]);
    assert_eq!(client.candle().len(), 9);
    exchange.stop();
}

#[test]
fn acknowledgements_are_lost_late_or_second() {
    let exchange = exchange();
    exchange.strike(StreamFault::LostAcks);
    let mut client = connect(&exchange);
    client.subscribe("lost", &[SERIES]);
    for _ in 0..3 {
        assert!(client.next().get("data").is_some());
    }
    exchange.heal();
    exchange.strike(StreamFault::LateAcks(60));
    client.subscribe("late", &[("ETH-USDT", "1m")]);
    let eth = |message: &Value| message["arg"]["instId"] == "ETH-USDT";
    assert!(client.until(eth).get("data").is_some());
    assert_eq!(client.until(|message| message["event"] == "subscribe")["id"], "late");
    exchange.heal();
    exchange.strike(StreamFault::DataFirst);
    client.subscribe("second", &[("ETH-USDT", "5m")]);
    let five = |message: &Value| message["arg"]["channel"] == "candle5m";
    assert!(client.until(five).get("data").is_some());
    assert_eq!(client.until(|message| message["event"] == "subscribe")["id"], "second");
}

#[test]
fn one_series_is_refused_among_its_siblings() {
    let exchange = exchange();
    exchange.strike(Strike::new(StreamFault::RefuseSeries).only("BTC-USDT", "5m"));
    let mut client = connect(&exchange);
    client.subscribe("s1", &[("BTC-USDT", "5m"), SERIES]);
    let error = client.next();
    assert_eq!(
        (&error["code"], &error["id"], error.get("arg")),
        (&"60018".into(), &"s1".into(), None)
    );
    assert_eq!(client.next()["event"], "subscribe");
    exchange.heal();
    client.subscribe("s2", &[("BTC-USDT", "5m")]);
    assert_eq!(client.until(|message| message["id"] == "s2")["event"], "subscribe");
    exchange.assert_rules_kept();
}

#[test]
fn a_connection_holds_so_many_channels() {
    let exchange = exchange();
    exchange.strike(StreamFault::ChannelLimit { most: 2, code: 4009 });
    let mut client = subscribed(&exchange, &[SERIES, ("BTC-USDT", "5m")]);
    client.subscribe("more", &[("BTC-USDT", "1H")]);
    assert_eq!(client.end(), Some(4009));
}

#[test]
fn a_notice_comes_before_the_end() {
    let exchange = exchange();
    let mut old = subscribed(&exchange, &[SERIES]);
    exchange.strike(StreamFault::Notice { close_after_ms: 100 });
    let notice = old.until(|message| message["event"] == "notice");
    assert_eq!((&notice["code"], notice.get("connId").is_some()), (&"64008".into(), true));
    let mut new = subscribed(&exchange, &[SERIES]);
    assert_eq!(old.end(), Some(1001));
    new.candle();
    exchange.wait_for(|stats| stats.open() == 1, DEADLINE, "the end of the old one alone");
    new.candle();
}

#[test]
fn frames_are_garbage() {
    for garbage in Garbage::ALL {
        let exchange = exchange();
        let mut client = connect(&exchange);
        exchange.strike(StreamFault::Garbage(garbage));
        let message = client.message();
        match garbage {
            Garbage::InvalidUtf8 => assert!(matches!(message, Err(Error::Utf8(_)))),
            Garbage::Binary => assert!(message.unwrap().is_binary()),
            Garbage::InvalidJson => {
                let text = message.unwrap().into_text().unwrap();
                assert!(serde_json::from_str::<Value>(&text).is_err());
            }
            _ => {
                let text = message.unwrap().into_text().unwrap();
                let json: Value = serde_json::from_str(&text).unwrap();
                assert!(json.get("data").is_some() != (garbage == Garbage::UnknownEvent));
            }
        }
    }
}

#[test]
fn frames_are_too_large_or_say_so() {
    let exchange = exchange();
    let mut client = connect(&exchange);
    exchange.strike(StreamFault::Oversized(5 << 20));
    let message = client.message().unwrap();
    assert_eq!(message.len(), 5 << 20);
    assert!(serde_json::from_str::<Value>(message.to_text().unwrap()).is_ok());
    client.ping();
    assert_eq!(client.text(), "pong", "the connection is well");
    exchange.strike(StreamFault::Announced(1 << 30));
    assert!(matches!(client.broken(), Error::Capacity(_)));
}

/// The closing pushes and the running ones of the bar that was running, in their order.
fn until_next_bar(exchange: &Exchange, client: &mut Client) -> Vec<(String, String)> {
    exchange.advance(30_000);
    let open = (exchange.now() - 30_000).to_string();
    // A state of the middle of the bar, so that there is something to be stale.
    while client.candle()[5].parse::<f64>().unwrap() == 0.0 {}
    exchange.advance(30_000);
    let mut found = Vec::new();
    loop {
        let fields = client.candle();
        if fields[0] != open {
            return found;
        }
        found.push((fields[5].clone(), fields[8].clone()));
    }
}

#[test]
fn closing_pushes_fail_to_come() {
    let exchange = exchange();
    exchange.strike(Strike::new(StreamFault::NoConfirms).only("BTC-USDT", "1m"));
    let mut client = subscribed(&exchange, &[SERIES]);
    let found = until_next_bar(&exchange, &mut client);
    assert!(found.iter().all(|(_, confirm)| confirm == "0"));
    exchange.heal();
    exchange.advance(MINUTE_MS);
    assert_eq!(client.confirmed()[0], (START_MS + MINUTE_MS).to_string());
    // It is on the books a moment after it is on its way.
    exchange.wait_until("the closing push on the books", || {
        exchange.confirmed_pushed("BTC-USDT", "1m") == [START_MS + MINUTE_MS]
    });
}

#[test]
fn closing_pushes_come_late() {
    let exchange = exchange();
    exchange.strike(StreamFault::LateConfirms(12_000));
    let mut client = subscribed(&exchange, &[SERIES]);
    assert!(until_next_bar(&exchange, &mut client).iter().all(|(_, confirm)| confirm == "0"));
    exchange.advance(11_999);
    let_pushes_pass(&exchange);
    assert!(exchange.confirmed_pushed("BTC-USDT", "1m").is_empty());
    exchange.advance(1);
    assert_eq!(client.confirmed()[0], START_MS.to_string());
}

#[test]
fn pushes_come_twice() {
    let exchange = exchange();
    exchange.strike(StreamFault::Duplicates);
    let mut client = subscribed(&exchange, &[SERIES]);
    exchange.advance(MINUTE_MS);
    let closed = client.confirmed();
    assert_eq!(client.candle(), closed);
    let next = client.candle();
    assert_eq!(client.candle(), next);
}

#[test]
fn stale_states_come_after_newer_ones() {
    let exchange = exchange();
    exchange.strike(StreamFault::OutOfOrder);
    let mut client = subscribed(&exchange, &[SERIES]);
    let found = until_next_bar(&exchange, &mut client);
    let closed = found.iter().position(|(_, confirm)| confirm == "1").unwrap();
    let stale = &found[closed + 1];
    assert_eq!(stale.1, "0");
    let volume = |text: &str| text.parse::<f64>().unwrap();
    assert!(volume(&stale.0) < volume(&found[closed].0));
}
