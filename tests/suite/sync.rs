//! The engine against the fixture exchange: whatever happens on the way, the store is its equal.

use okx_local_store::instrument::Series;

use crate::exchange::{Ask, Endpoint, Exchange, Fault, Listed, Script};
use crate::mirror::{Mirror, assert_done, line, series};

/// A moment in 2024, half a minute into a bar.
const T0: i64 = 1_714_521_630_000;

fn market() -> crate::exchange::Builder {
    Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).clock(T0)
}

fn bars(names: &[&str], days: u32) -> Vec<(Series, u32)> {
    names.iter().map(|bar| (series("BTC-USDT", bar), days)).collect()
}

#[test]
fn a_first_sync_mirrors_the_exchange_and_a_second_asks_for_the_newest_pages_alone() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1m", "5m", "1H", "1D", "1Dutc", "1W", "1M"], 5);
    assert_done(&mirror.sync(&wanted));
    for (series, days) in &wanted {
        mirror.assert_equals(&exchange, series, *days, T0);
    }
    let before = exchange.requests().len();
    assert_done(&mirror.sync(&wanted));
    let again = &exchange.requests()[before..];
    let candles = again.iter().filter(|request| request.ask.bar.is_some());
    assert_eq!(candles.clone().count(), wanted.len());
    assert!(candles.clone().all(|request| request.ask.endpoint == Endpoint::Candles));
}

#[test]
fn pages_that_are_cut_short_cost_requests_and_no_rows() {
    for faults in [Vec::new(), vec![Script::chance(7, 0.6, vec![Fault::ShortPage])]] {
        let capped = faults.is_empty();
        let mut builder = market().faults(faults);
        if capped {
            builder = builder.page_cap(100);
        }
        let exchange = builder.start();
        let mirror = Mirror::of(&exchange);
        let wanted = bars(&["1m", "1H"], 3);
        assert_done(&mirror.sync(&wanted));
        for (series, days) in &wanted {
            mirror.assert_equals(&exchange, series, *days, T0);
        }
    }
}

#[test]
fn the_newest_page_of_every_series_is_stored_before_any_history_is_asked_for() {
    let names: Vec<String> = (0..20).map(|n| format!("C{n}-USDT")).collect();
    let mut builder = Exchange::builder().clock(T0).latency_ms(5);
    for name in &names {
        builder = builder.synthetic(name, Listed::days(3));
    }
    let exchange = builder.start();
    let mirror = Mirror::of(&exchange);
    let wanted: Vec<(Series, u32)> = names.iter().map(|name| (series(name, "1m"), 1)).collect();
    let mut stored_before_history = None;
    let outcome = mirror.sync_watched(&wanted, &mut |control, _| {
        if exchange.count(Endpoint::History) > 0 && stored_before_history.is_none() {
            let stored = control.lines().iter().filter(|line| line.closed >= 299).count();
            stored_before_history = Some(stored);
        }
    });
    assert_done(&outcome);
    assert_eq!(stored_before_history, Some(20));
    let asked: Vec<Ask> = exchange.requests().into_iter().map(|request| request.ask).collect();
    let newest = |ask: &Ask| ask.bar.is_some() && ask.after.is_none();
    let first_history = asked.iter().position(|ask| ask.bar.is_some() && !newest(ask)).unwrap();
    assert_eq!(asked[..first_history].iter().filter(|ask| newest(ask)).count(), 20);
}

#[test]
fn an_exchange_that_fails_again_and_again_is_mirrored_all_the_same() {
    let faults = [Fault::failures(), Fault::oddities()].concat();
    let faults: Vec<Fault> =
        faults.into_iter().filter(|fault| !matches!(fault, Fault::Stall(_))).collect();
    let exchange = market().faults(vec![Script::every(5, faults)]).start();
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1m", "15m", "1D"], 3);
    assert_done(&mirror.sync(&wanted));
    for (series, days) in &wanted {
        mirror.assert_equals(&exchange, series, *days, T0);
    }
}

#[test]
fn rows_that_other_hands_deleted_come_back() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1m"], 3);
    assert_done(&mirror.sync(&wanted));
    for (bars, requests) in [(1, 1), (1_000, 4)] {
        let start = T0 / 60_000 * 60_000 - 2_500 * 60_000;
        let deleted = mirror
            .open("BTC-USDT")
            .execute(
                "DELETE FROM candles_1m WHERE ts >= ?1 AND ts < ?2",
                [start, start + bars * 60_000],
            )
            .unwrap();
        assert_eq!(deleted as i64, bars);
        let before = exchange.count(Endpoint::History);
        assert_done(&mirror.sync(&wanted));
        mirror.assert_equals(&exchange, &wanted[0].0, 3, T0);
        assert_eq!(exchange.count(Endpoint::History) - before, requests);
    }
}

#[test]
fn what_the_exchange_does_not_have_is_suspected_and_not_missing() {
    let exchange = market().start();
    let minute = T0 / 60_000 * 60_000;
    exchange.hole("BTC-USDT", minute - 2_000 * 60_000, minute - 1_300 * 60_000);
    exchange.hole("BTC-USDT", minute - 100 * 60_000, minute - 99 * 60_000);
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1m"], 3);
    let outcome = mirror.sync(&wanted);
    assert_done(&outcome);
    mirror.assert_equals(&exchange, &wanted[0].0, 3, T0);
    assert_eq!(line(&outcome, &wanted[0].0).tally(outcome.now).suspected_empty, 701);
}

#[test]
fn an_instrument_younger_than_what_is_wanted_costs_a_dozen_requests_more() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["5m"], 365);
    assert_done(&mirror.sync(&wanted));
    mirror.assert_equals(&exchange, &wanted[0].0, 20, T0);
    let least = 1 + (20 * 288 - 299_usize).div_ceil(300);
    let asked = exchange.requests().iter().filter(|request| request.ask.bar.is_some()).count();
    assert!(asked <= least + 12, "{asked} requests for {least} pages");
}

#[test]
fn a_bar_whose_confirm_comes_late_is_waited_for() {
    let exchange = market().clock(T0 / 60_000 * 60_000 + 1_000).start();
    exchange.set_late_confirm(4_000);
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1m"], 1);
    let outcome = mirror.sync(&wanted);
    assert_done(&outcome);
    assert_eq!(line(&outcome, &wanted[0].0).unconfirmed(outcome.now), 0);
    mirror.assert_equals(&exchange, &wanted[0].0, 1, outcome.now.exchange);
}

#[test]
fn a_revised_bar_is_taken_over_and_its_old_values_are_kept() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1m"], 1);
    assert_done(&mirror.sync(&wanted));
    let minute = T0 / 60_000 * 60_000 - 60 * 60_000;
    let old = exchange.truth("BTC-USDT", "1m", minute, minute + 60_000).remove(0);
    let revised = crate::exchange::Row { c: old.c * 1.5, h: old.h * 1.5, ..old };
    exchange.revise("BTC-USDT", "1m", revised);
    let outcome = mirror.sync(&wanted);
    assert_eq!(line(&outcome, &wanted[0].0).revised, 1);
    mirror.assert_equals(&exchange, &wanted[0].0, 1, T0);
    let kept: f64 =
        mirror.open("BTC-USDT").query_row("SELECT close FROM revisions", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, old.c);
}

#[test]
fn an_unknown_instrument_fails_alone_and_leaves_no_file() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let wanted = vec![(series("NOPE-USDT", "1m"), 1), (series("BTC-USDT", "1H"), 2)];
    let outcome = mirror.sync(&wanted);
    let error = line(&outcome, &wanted[0].0).error.as_deref().unwrap();
    assert!(error.contains("51001"), "{error}");
    mirror.assert_equals(&exchange, &wanted[1].0, 2, T0);
    assert!(!mirror.setup.data_dir.join("NOPE-USDT.db").exists());
}

#[test]
fn seconds_come_from_history_alone() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let wanted = bars(&["1s"], 1);
    let outcome = mirror.sync(&wanted);
    assert_done(&outcome);
    assert_eq!(exchange.count(Endpoint::Candles), 0);
    assert!(mirror.rows(&wanted[0].0).len() > 86_000);
}

#[test]
fn every_bar_of_the_exchange_is_mirrored() {
    let exchange = market().start();
    let mirror = Mirror::of(&exchange);
    let all = "3m 30m 2H 4H 6H 12H 2D 3D 3M 6Hutc 12Hutc 2Dutc 3Dutc 1Wutc 1Mutc 3Mutc";
    let names: Vec<&str> = all.split(' ').collect();
    let wanted = bars(&names, 15);
    assert_done(&mirror.sync(&wanted));
    for (series, days) in &wanted {
        if series.bar.name().starts_with("3M") {
            continue; // No quarter has closed since the listing.
        }
        mirror.assert_equals(&exchange, series, *days, T0);
    }
}
