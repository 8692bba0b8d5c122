//! Every rule: how one who breaks it is answered, and that it is remembered.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::rules::Rules;
use super::super::{Ask, Endpoint, Exchange, Listed, Rule};
use super::client::{Response, candles, get, history, send};

fn exchange() -> Exchange {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(2)).start();
    exchange.expect_violations();
    exchange
}

/// The rules broken so far, in order.
fn broken(exchange: &Exchange) -> Vec<Rule> {
    exchange.violations().iter().map(|violation| violation.rule).collect()
}

fn refused(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code));
    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(0));
}

#[test]
fn bad_parameters_are_refused_and_remembered() {
    let cases = [
        ("&limit=301", Rule::Limit),
        ("&limit=0", Rule::Limit),
        ("&limit=many", Rule::Limit),
        ("&bar=1h", Rule::Bar),
        ("&bar=", Rule::Bar),
        ("&bar=1s", Rule::SecondsOnCandles),
        ("&after=now", Rule::Cursor),
        ("&before=1.5", Rule::Cursor),
    ];
    let exchange = exchange();
    for (query, rule) in cases {
        refused(&candles(&exchange, query), 400, "51000");
        assert_eq!(broken(&exchange).last(), Some(&rule), "{query}");
    }
    refused(&get(&exchange, "/api/v5/market/history-candles?bar=1m"), 400, "51000");
    refused(&get(&exchange, "/api/v5/public/instruments?instType=spot"), 400, "51000");
    assert_eq!(broken(&exchange)[cases.len()..], [Rule::Instrument, Rule::InstrumentType]);
}

#[test]
fn an_unknown_parameter_is_let_pass_but_remembered() {
    let exchange = exchange();
    assert_eq!(candles(&exchange, "&adjust=forward&limit=1").rows().len(), 1);
    assert_eq!(broken(&exchange), [Rule::Parameter]);
}

#[test]
fn the_request_itself_has_rules() {
    let exchange = exchange();
    let time = "/api/v5/public/time HTTP/1.1\r\nconnection: close\r\n";
    refused(&send(&exchange, &format!("GET {time}\r\n")).unwrap(), 400, "50000");
    refused(&send(&exchange, &format!("POST {time}host: a\r\n\r\n")).unwrap(), 405, "50115");
    refused(&get(&exchange, "/api/v5/market/ticker?instId=BTC-USDT"), 404, "404");
    let simulated = format!("GET {time}host: a\r\nx-simulated-trading: 1\r\n\r\n");
    refused(&send(&exchange, &simulated).unwrap(), 200, "50038");
    // An unknown path takes no parameters either.
    let expected = [Rule::Host, Rule::Method, Rule::Parameter, Rule::Path, Rule::Sandbox];
    assert_eq!(broken(&exchange), expected);
}

#[test]
fn demo_trading_wants_its_header() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(1)).sandbox().start();
    let text = "GET /api/v5/public/time HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let answer = send(&exchange, &format!("{text}X-Simulated-Trading: 1\r\n\r\n")).unwrap();
    assert_eq!(answer.code(), "0");
    exchange.assert_rules_kept();
    refused(&candles(&exchange, ""), 200, "50038");
    assert_eq!(broken(&exchange), [Rule::Sandbox]);
    exchange.expect_violations();
}

#[test]
fn each_endpoint_has_its_own_rate() {
    let windows = [
        ("/api/v5/system/status", 1, 5_000),
        ("/api/v5/public/time", 10, 2_000),
        ("/api/v5/public/instruments?instType=SPOT", 20, 2_000),
        ("/api/v5/public/instruments?instType=SWAP", 20, 2_000),
        ("/api/v5/market/history-candles?instId=BTC-USDT&limit=1", 20, 2_000),
        ("/api/v5/market/candles?instId=BTC-USDT&limit=1", 40, 2_000),
    ];
    let mut rules = Rules::new(false);
    for (target, count, window_ms) in windows {
        let ask = Ask::parse(target);
        let granted = (0..100).filter(|index| rules.grant(&ask, 7_000 + index)).count();
        assert_eq!(granted, count, "{target}");
        assert!(!rules.grant(&ask, 7_000 + window_ms - 1), "{target}");
        assert!(rules.grant(&ask, 7_000 + window_ms), "{target}: the first one has left");
    }
}

#[test]
fn one_request_too_many_is_refused_and_remembered() {
    let exchange = exchange();
    let target = "/api/v5/system/status";
    assert_eq!(get(&exchange, target).status, 200);
    let answer = get(&exchange, target);
    assert_eq!(answer.status, 429);
    assert_eq!(answer.body, br#"{"code":"50011","msg":"Too Many Requests"}"#);
    assert_eq!(broken(&exchange), [Rule::Rate]);
}

#[test]
fn a_broken_rule_fails_the_test_at_the_end() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(1)).start();
    history(&exchange, "&limit=300");
    exchange.assert_rules_kept();
    candles(&exchange, "&limit=1000");
    let panic = catch_unwind(AssertUnwindSafe(|| exchange.assert_rules_kept())).unwrap_err();
    let text = panic.downcast_ref::<String>().expect("because it is a formatted text");
    assert!(text.contains("Limit after") && text.contains("limit=1000"), "{text}");
    assert!(catch_unwind(AssertUnwindSafe(|| drop(exchange))).is_err(), "by itself as well");
}

#[test]
fn every_request_is_in_the_journal() {
    let exchange = exchange();
    history(&exchange, "&bar=5m&after=99&before=7&limit=3");
    candles(&exchange, "&limit=2");
    let requests = exchange.requests();
    let [first, second] = requests.as_slice() else { panic!("{} requests", requests.len()) };
    assert_eq!(first.ask.endpoint, Endpoint::History);
    assert_eq!(first.ask.symbol.as_deref(), Some("BTC-USDT"));
    assert_eq!(first.ask.bar.as_deref(), Some("5m"));
    assert_eq!((first.ask.after, first.ask.before, first.ask.limit), (Some(99), Some(7), Some(3)));
    assert_eq!((first.rows, first.status, first.header("host")), (0, 200, Some("loopback")));
    assert_eq!((second.rows, second.ask.endpoint), (2, Endpoint::Candles));
    assert!(first.at_ms <= second.at_ms && first.exchange_ms <= second.exchange_ms);
    assert_eq!((exchange.count(Endpoint::Candles), exchange.count(Endpoint::Time)), (1, 0));
}
