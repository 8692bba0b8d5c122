//! Faults of the stream that strike by a plan, by hand or by a seed.

use std::time::Instant;

use super::super::{Exchange, Listed, StreamFault, Strike};
use super::client::DEADLINE;
use super::socket::{connect, try_connect};

const SERIES: (&str, &str) = ("BTC-USDT", "1m");

#[test]
fn strikes_are_planned() {
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(1))
        .strikes(vec![
            Strike::new(StreamFault::Drop).after(1),
            Strike::new(StreamFault::Close(4005)).after(200),
            Strike::new(StreamFault::Silence).after(3_600_000),
        ])
        .start();
    exchange.wait_for(|stats| stats.struck().len() == 1, DEADLINE, "the first");
    assert_eq!(connect(&exchange).end(), Some(4005));
    exchange.heal();
    assert_eq!(exchange.stats().struck().len(), 2);
}

#[test]
fn a_seed_plans_every_passing_fault() {
    let faults = StreamFault::passing();
    let count = faults.len();
    let plan = |seed| format!("{:?}", Strike::chaos(seed, 100, 50, count));
    assert_eq!(plan(1), plan(1));
    assert_ne!(plan(1), plan(2));
    for fault in faults {
        assert!(plan(3).contains(&format!("fault: {fault:?}")), "{fault:?}");
    }
    assert!(StreamFault::all().len() > count);
}

#[test]
fn the_exchange_outlives_its_own_faults() {
    let count = StreamFault::passing().len();
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(2))
        .speed(60.0)
        .push_ms(20)
        .strikes(Strike::chaos(7, 100, 100, count))
        .start();
    // This client connects as often as it likes.
    exchange.expect_violations();
    let mut struck = 0;
    while struck < count {
        if let Ok(mut client) = try_connect(&exchange, "/ws/v5/business") {
            client.subscribe_or_fail(&[SERIES]);
            while exchange.stats().struck().len() < count && client.message().is_ok() {}
        }
        exchange.wait_for(|stats| stats.struck().len() > struck, DEADLINE, "the next fault");
        struck = exchange.stats().struck().len();
    }
    exchange.heal();
    let start = Instant::now();
    let mut client = loop {
        match try_connect(&exchange, "/ws/v5/business") {
            Ok(client) => break client,
            Err(_) => assert!(start.elapsed() < DEADLINE, "nobody is let in"),
        }
    };
    client.subscribe_or_fail(&[SERIES]);
    client.confirmed();
}
