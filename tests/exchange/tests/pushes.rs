//! What is pushed and when: pace, closing pushes, and that they are what REST serves.

use std::sync::Arc;

use super::super::listing::Listing;
use super::super::market::Market;
use super::super::stream::feed::{Feed, Scene};
use super::super::stream::post::{Parcel, Post};
use super::super::stream::strike::Strikes;
use super::super::{BARS, Bar, DAY_MS, DEFAULT_START_MS, Exchange, HOUR_MS, Halt, Listed};
use super::super::{MINUTE_MS, SECOND_MS, Series};
use super::client::{DEADLINE, candles};
use super::socket::subscribed;

/// A minute begins here.
const START_MS: i64 = DEFAULT_START_MS - DEFAULT_START_MS % DAY_MS;

/// Of each push that is due at one of `times`, which count the ms of either clock: the time, the
/// bar's open and whether it is closed.
fn pushes(bar: &str, times: impl Iterator<Item = u64>) -> Vec<(u64, i64, bool)> {
    let mut market = Market::new();
    market.add(Listing::synthetic("BTC-USDT", 1, START_MS - DAY_MS));
    let (strikes, post) = (Strikes::default(), Arc::new(Post::new(1)));
    let mut feed = None;
    let mut found = Vec::new();
    for at_ms in times {
        let exchange_ms = START_MS + at_ms as i64;
        let mut scene =
            Scene { at_ms, exchange_ms, push_ms: 1_000, market: &mut market, strikes: &strikes };
        match &mut feed {
            None => {
                let new = feed.insert(Feed::new(&Series::named("BTC-USDT", bar), &scene));
                new.join(&post, &mut scene);
            }
            Some(feed) => feed.tick(&mut scene),
        }
        for parcel in post.take() {
            let Parcel::Push { text, confirmed, .. } = parcel else { panic!("no push") };
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let open = json["data"][0][0].as_str().unwrap().parse().unwrap();
            assert!(confirmed.is_none_or(|confirmed| confirmed == open));
            assert_eq!(json["data"][0][8], if confirmed.is_some() { "1" } else { "0" });
            found.push((at_ms, open, confirmed.is_some()));
        }
    }
    found
}

#[test]
fn a_running_bar_is_pushed_once_a_second() {
    let found = pushes("1m", (0..50_000).step_by(10));
    assert!(found.iter().all(|(_, open, closed)| *open == START_MS && !closed));
    // The first turn is up to two seconds after the snapshot, for series are spread.
    assert!((48..=50).contains(&found.len()), "{} pushes", found.len());
    let gaps: Vec<u64> = found.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps[1..].iter().all(|gap| (990..=1_010).contains(gap)), "{gaps:?}");
    assert!((1_000..=2_010).contains(&gaps[0]));
}

#[test]
fn a_bar_ends_with_a_closing_push_of_its_own() {
    let found = pushes("1m", (0..200_000).step_by(10));
    for end in [60_000, 120_000, 180_000] {
        let at_end: Vec<_> = found.iter().filter(|(at_ms, ..)| *at_ms == end).collect();
        let open = START_MS + end as i64;
        assert_eq!(at_end, [&(end, open - MINUTE_MS, true), &(end, open, false)]);
    }
    assert_eq!(found.iter().filter(|(_, _, closed)| *closed).count(), 3);
    // However late the exchange's own thread is, no bar is left out.
    let late = pushes("1s", [0, 50, 5_500].into_iter());
    let closed: Vec<i64> = late.iter().filter(|push| push.2).map(|push| push.1).collect();
    assert_eq!(closed, [0, 1, 2, 3, 4].map(|second| START_MS + second * SECOND_MS));
}

#[test]
fn a_leaping_clock_is_survived() {
    let found = pushes("1s", [0, 400 * DAY_MS as u64, 400 * DAY_MS as u64 + 10].into_iter());
    let closed = found.iter().filter(|push| push.2).count();
    assert!((1..3_000).contains(&closed), "{closed} closing pushes");
    let back = pushes("1m", [90_000, 30_000, 60_000].into_iter());
    assert_eq!(back.last(), Some(&(60_000, START_MS + MINUTE_MS, false)));
}

#[test]
fn closing_pushes_are_the_truth() {
    let bars = ["1s", "1m", "3m", "5m"];
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(2))
        .clock(START_MS + 1)
        .speed(120.0)
        .push_ms(50)
        .start();
    let mut client = subscribed(&exchange, &bars.map(|bar| ("BTC-USDT", bar)));
    let mut opens = bars.map(|_| Vec::new());
    while opens.iter().any(|opens| opens.len() < 3) {
        let push = client.until(|message| message["data"][0][8] == "1");
        let channel = push["arg"]["channel"].as_str().unwrap();
        let index = bars.iter().position(|bar| channel.strip_prefix("candle") == Some(bar));
        let bar = Bar::named(bars[index.unwrap()]);
        let fields: Vec<String> = serde_json::from_value(push["data"][0].clone()).unwrap();
        let open: i64 = fields[0].parse().unwrap();
        let truth = exchange.truth("BTC-USDT", bar.name(), open, bar.end(open));
        assert_eq!(fields, truth[0].fields(true), "{channel}");
        opens[index.unwrap()].push(open);
    }
    for (bar, opens) in bars.iter().zip(opens) {
        let whole = opens.windows(2).all(|pair| Bar::named(bar).end(pair[0]) == pair[1]);
        assert!(whole && exchange.confirmed_pushed("BTC-USDT", bar).starts_with(&opens), "{bar}");
    }
}

#[test]
fn the_stream_shows_what_rest_shows() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(2)).speed(0.0).start();
    let mut client = subscribed(&exchange, &[("BTC-USDT", "1m")]);
    assert_eq!(client.candle(), candles(&exchange, "&limit=1").rows()[0]);
    exchange.advance(MINUTE_MS);
    assert_eq!(client.confirmed(), candles(&exchange, "&limit=2").rows()[1]);
    assert_eq!(client.candle(), candles(&exchange, "&limit=1").rows()[0]);
}

#[test]
fn what_is_not_there_is_not_pushed() {
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(2))
        .synthetic("ETH-USDT", Listed::days(2))
        .clock(START_MS)
        .speed(0.0)
        .push_ms(20)
        .start();
    exchange.hole("BTC-USDT", START_MS + MINUTE_MS, START_MS + 2 * MINUTE_MS);
    let series = [("BTC-USDT", "1m"), ("ETH-USDT", "1m")];
    let mut client = subscribed(&exchange, &series);
    for _ in 0..3 {
        exchange.advance(MINUTE_MS);
        let now = exchange.now().to_string();
        client.until(|message| {
            message["arg"]["instId"] == "ETH-USDT" && message["data"][0][0] == now.as_str()
        });
    }
    let two = [0, 2].map(|minutes| START_MS + minutes * MINUTE_MS);
    exchange.wait_for(
        |stats| stats.confirmed_pushed("BTC-USDT", "1m") == two,
        DEADLINE,
        "the two bars that are there",
    );
    exchange.halt("ETH-USDT", exchange.now(), Halt::Delisted);
    client.subscribe("gone", &[("ETH-USDT", "5m")]);
    assert_eq!(client.until(|message| message["id"] == "gone")["code"], "60018");
}

#[test]
fn confirms_are_late_where_the_whole_exchange_is() {
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(2))
        .clock(START_MS)
        .speed(0.0)
        .push_ms(20)
        .start();
    exchange.set_late_confirm(3_000);
    let mut client = subscribed(&exchange, &[("BTC-USDT", "1m")]);
    exchange.advance(MINUTE_MS);
    let next = (START_MS + MINUTE_MS).to_string();
    while client.candle()[0] != next {}
    assert_eq!(exchange.confirmed_pushed("BTC-USDT", "1m").len(), 1, "the one before the start");
    exchange.advance(3_000);
    let closed = client.confirmed();
    assert_eq!(closed[0], START_MS.to_string());
}

/// The stream works the running bars out step by step, which must not show.
#[test]
fn a_running_bar_is_the_same_however_it_is_worked_out() {
    let listed_ms = START_MS - 3 * DAY_MS + 17 * MINUTE_MS;
    let new = || Listing::synthetic("BTC-USDT", 5, listed_ms);
    let mut listing = new();
    listing.add_hole(START_MS + HOUR_MS, START_MS + HOUR_MS + 9 * MINUTE_MS);
    let step_ms = 7 * MINUTE_MS + 13_700;
    for bar in BARS {
        for now in (0..40).map(|index| START_MS + index * step_ms) {
            let mut other = new();
            other.add_hole(START_MS + HOUR_MS, START_MS + HOUR_MS + 9 * MINUTE_MS);
            let open = bar.open(now);
            let (stepped, fresh) = (listing.running(bar, open, now), other.running(bar, open, now));
            assert_eq!(stepped, fresh, "{} at {now}", bar.name());
        }
    }
}
