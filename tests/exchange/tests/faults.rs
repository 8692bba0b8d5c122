//! Each fault as a client sees it, and the scripts that draw them.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{Endpoint, Exchange, Fault, Listed, Script};
use super::client::{Response, candles, get, history, try_get};

const TIME: &str = "/api/v5/public/time";
const PAGE: &str = "/api/v5/market/candles?instId=BTC-USDT&limit=30";

fn exchange() -> Exchange {
    Exchange::builder().synthetic("BTC-USDT", Listed::days(2)).speed(0.0).start()
}

/// The next page with that fault, and what the journal says of it.
fn spoilt(exchange: &Exchange, fault: Fault) -> Option<Response> {
    exchange.set_faults(vec![Script::next(1, fault.clone())]);
    let answer = try_get(exchange, PAGE);
    let requests = exchange.requests();
    let last = requests.last().expect("because one was just sent");
    assert_eq!(last.fault, Some(fault));
    assert_eq!(last.status, answer.as_ref().map_or(0, |answer| answer.status));
    answer
}

#[test]
fn refusals_look_like_the_real_ones() {
    let exchange = exchange();
    let answer = |fault| spoilt(&exchange, fault).expect("because it is an answer");
    let plain = answer(Fault::TooMany { retry_after_s: None });
    assert_eq!((plain.status, plain.code().as_str()), (429, "50011"));
    assert_eq!(plain.json().get("data"), None);
    assert!(!plain.head.contains("retry-after"));
    let polite = answer(Fault::TooMany { retry_after_s: Some(3) });
    assert!(polite.head.contains("\r\nretry-after: 3"));
    let inside = answer(Fault::TooManyInside);
    assert_eq!((inside.status, inside.code().as_str()), (200, "50011"));
    let down = answer(Fault::Unavailable);
    assert_eq!((down.status, down.code().as_str()), (503, "50001"));
    let error = answer(Fault::SystemError);
    assert_eq!((error.status, error.code().as_str()), (500, "50026"));
    for status in [502, 403, 451, 520] {
        let html = answer(Fault::Html(status));
        assert_eq!(html.status, status);
        assert!(html.head.contains("text/html") && html.body.starts_with(b"<!DOCTYPE"));
    }
    let away = answer(Fault::Redirect("https://example.invalid/".to_owned()));
    assert!(away.status == 302 && away.head.contains("location: https://example.invalid/"));
    exchange.assert_rules_kept();
}

#[test]
fn bodies_break_in_every_way() {
    let exchange = exchange();
    let truncated = spoilt(&exchange, Fault::Truncated).unwrap();
    assert_eq!(truncated.body.len(), truncated.length / 2);
    let invalid = spoilt(&exchange, Fault::InvalidJson).unwrap();
    assert_eq!(invalid.body.len(), invalid.length);
    assert!(serde_json::from_slice::<Value>(&invalid.body).is_err());
    assert!(spoilt(&exchange, Fault::Close).is_none());
    let large = spoilt(&exchange, Fault::Oversized(3_000_000)).unwrap();
    assert_eq!((large.length, large.body.len(), large.rows().len()), (3_000_000, 3_000_000, 30));
    let headers = vec![("content-encoding".to_owned(), "gzip".to_owned())];
    let raw = Fault::Raw { status: 200, headers, body: vec![31, 139, 8] };
    let raw = spoilt(&exchange, raw).unwrap();
    assert!(raw.head.contains("content-encoding: gzip") && raw.body == [31, 139, 8]);
}

#[test]
fn answers_come_late_or_never() {
    let exchange = exchange();
    let start = Instant::now();
    assert_eq!(spoilt(&exchange, Fault::Slow(50)).unwrap().rows().len(), 30);
    assert!(start.elapsed() >= Duration::from_millis(50));
    let start = Instant::now();
    let drip = Fault::Drip { bytes: 500, pause_ms: 10 };
    assert_eq!(spoilt(&exchange, drip).unwrap().rows().len(), 30);
    assert!(start.elapsed() >= Duration::from_millis(40));
    let start = Instant::now();
    assert!(spoilt(&exchange, Fault::Stall(50)).is_none());
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn pages_are_misshapen() {
    let exchange = exchange();
    let good = candles(&exchange, "&limit=30").rows();
    let rows = |fault| spoilt(&exchange, fault).unwrap().rows();
    assert!(rows(Fault::EmptyPage).is_empty());
    let short = rows(Fault::ShortPage);
    assert!((1..30).contains(&short.len()) && short == good[..short.len()]);
    let double = rows(Fault::DuplicateRows);
    assert_eq!((double.len(), &double[0], &double[1]), (40, &good[0], &good[0]));
    let long = rows(Fault::ExtraFields);
    assert!(long.iter().zip(&good).all(|(row, good)| row.len() == 11 && row[..9] == good[..]));
    let integer = spoilt(&exchange, Fault::IntegerCode).unwrap().json();
    assert_eq!(
        (&integer["code"], integer["data"].as_array().unwrap().len()),
        (&Value::from(0), 30)
    );
    let missing = spoilt(&exchange, Fault::MissingData).unwrap().json();
    assert_eq!((&missing["code"], missing.get("data")), (&Value::from("0"), None));
}

#[test]
fn scripts_choose_their_moments() {
    let exchange = exchange();
    let statuses =
        |count| -> Vec<u16> { (0..count).map(|_| history(&exchange, "&limit=1").status).collect() };
    let two = [Fault::Unavailable, Fault::Html(502)];
    exchange.set_faults(vec![Script::every(3, two).on(Endpoint::History)]);
    assert_eq!(get(&exchange, TIME).status, 200, "another endpoint does not count");
    assert_eq!(statuses(6), [200, 200, 503, 200, 200, 502]);
    exchange.set_faults(vec![Script::sequence([Fault::SystemError, Fault::Html(403)])]);
    assert_eq!(statuses(3), [500, 403, 200]);
    exchange.set_faults(vec![]);
    let only = |limit| Script::next(1, Fault::Html(520)).matching(move |ask| ask.limit == limit);
    exchange.add_fault(only(Some(7)));
    exchange.add_fault(only(Some(1)));
    assert_eq!(statuses(2), [520, 200]);
    exchange.set_faults(vec![Script::always(Fault::EmptyPage)]);
    assert_eq!(get(&exchange, TIME).json()["data"].as_array().unwrap().len(), 1, "it has no rows");
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let draws = |seed| -> Vec<u16> {
        let exchange = exchange();
        let faults = [Fault::Unavailable, Fault::Html(502), Fault::SystemError];
        exchange.set_faults(vec![Script::chance(seed, 0.4, faults)]);
        (0..30).map(|_| candles(&exchange, "&limit=1").status).collect()
    };
    let one = draws(1);
    assert_eq!(one, draws(1));
    assert_ne!(one, draws(2));
    let struck = one.iter().filter(|status| **status != 200).count();
    assert!((4..22).contains(&struck), "{struck} of 30");
}
