//! Pages: order, cursors, depth and lag.

use super::super::{DAY_MS, Exchange, Listed, MINUTE_MS};
use super::client::{candles, get, history};

/// Three days of minutes; the clock stands 20 s into a minute.
fn exchange() -> Exchange {
    Exchange::builder().synthetic("BTC-USDT", Listed::days(3)).speed(0.0).start()
}

/// The open time of the running minute.
fn running(exchange: &Exchange) -> i64 {
    exchange.now() / MINUTE_MS * MINUTE_MS
}

#[test]
fn the_newest_rows_come_first_and_the_first_one_runs() {
    let exchange = exchange();
    let page = candles(&exchange, "");
    let top = running(&exchange);
    let expected: Vec<i64> = (0..100).map(|index| top - index * MINUTE_MS).collect();
    assert_eq!(page.times(), expected, "100 rows unless told");
    let rows = page.rows();
    assert!(rows.iter().all(|row| row.len() == 9));
    assert_eq!(rows[0][8], "0");
    assert!(rows[1..].iter().all(|row| row[8] == "1"));
    assert_eq!(candles(&exchange, "&limit=300").rows().len(), 300);
}

#[test]
fn both_cursors_are_exclusive() {
    let exchange = exchange();
    let at = running(&exchange) - 500 * MINUTE_MS;
    assert_eq!(candles(&exchange, &format!("&after={at}&limit=1")).times(), [at - MINUTE_MS]);
    let between = format!("&before={at}&after={}", at + 3 * MINUTE_MS);
    assert_eq!(candles(&exchange, &between).times(), [at + 2 * MINUTE_MS, at + MINUTE_MS]);
    // The page for [S, S + n·bar).
    let whole = format!("&before={}&after={}&limit=300", at - 1, at + 300 * MINUTE_MS);
    let times = history(&exchange, &whole).times();
    assert_eq!((times.len(), times[0], times[299]), (300, at + 299 * MINUTE_MS, at));
}

#[test]
fn before_alone_gives_the_newest_rows() {
    let exchange = exchange();
    let at = running(&exchange) - 500 * MINUTE_MS;
    let page = candles(&exchange, &format!("&before={at}&limit=2"));
    assert_eq!(page.times()[0], running(&exchange));
    let page = candles(&exchange, &format!("&before={}&limit=9", at + 498 * MINUTE_MS));
    assert_eq!(page.times().len(), 2, "but none at or below it");
}

#[test]
fn a_window_wider_than_the_limit_gives_its_newest_rows() {
    let exchange = exchange();
    let at = running(&exchange) - 900 * MINUTE_MS;
    let query = format!("&before={at}&after={}&limit=5", at + 400 * MINUTE_MS);
    let times = history(&exchange, &query).times();
    assert_eq!((times[0], times.len()), (at + 399 * MINUTE_MS, 5));
}

#[test]
fn candles_end_after_1440_bars_and_history_at_the_listing() {
    let exchange = exchange();
    let top = running(&exchange);
    let depth = |page: &dyn Fn(&str) -> Vec<i64>| {
        let mut seen = page("&limit=300");
        loop {
            let oldest = seen[seen.len() - 1];
            let more = page(&format!("&limit=300&after={oldest}"));
            if more.is_empty() {
                return seen;
            }
            seen.extend(more);
        }
    };
    let newest = depth(&|query| candles(&exchange, query).times());
    assert_eq!((newest.len(), newest[1439]), (1_440, top - 1_439 * MINUTE_MS));
    let all = depth(&|query| history(&exchange, query).times());
    assert_eq!(all.len(), 3 * 1_440 - 1, "without the running bar and the lag");
    assert_eq!(all[all.len() - 1], top - 3 * DAY_MS);
    assert!(all.is_sorted_by(|newer, older| newer - older == MINUTE_MS));
}

#[test]
fn history_has_closed_bars_alone_and_trails_by_one() {
    let exchange = exchange();
    let rows = history(&exchange, "").rows();
    assert_eq!(rows[0][0], (running(&exchange) - 2 * MINUTE_MS).to_string());
    assert!(rows.iter().all(|row| row[8] == "1"));
    assert_eq!(rows[0], candles(&exchange, "&limit=3").rows()[2], "what both have is the same");
    let seconds = history(&exchange, "&bar=1s&limit=300").times();
    assert_eq!((seconds.len(), seconds[0]), (300, exchange.now() - 2_000));
}

#[test]
fn cursors_out_of_all_range_are_only_empty_or_full() {
    let exchange = exchange();
    for bar in ["1m", "1W", "3M"] {
        for far in [i64::MIN, -1, 0, i64::MAX] {
            let below = history(&exchange, &format!("&bar={bar}&after={far}&limit=1"));
            let full = far == i64::MAX && bar == "1m"; // No longer bar is over yet.
            assert_eq!(below.rows().is_empty(), !full, "{bar} {far}");
            let above = candles(&exchange, &format!("&bar={bar}&before={far}&limit=1"));
            assert_eq!(above.rows().is_empty(), far == i64::MAX, "{bar} {far}");
        }
    }
}

#[test]
fn unknown_instruments_are_an_error_in_an_answer_that_is_not() {
    let exchange = exchange();
    let answer = get(&exchange, "/api/v5/market/candles?instId=NOPE-USDT&bar=1m");
    assert_eq!((answer.status, answer.code().as_str()), (200, "51001"));
    assert!(answer.json()["data"].as_array().unwrap().is_empty());
}

#[test]
fn a_capped_page_is_never_longer() {
    let builder = Exchange::builder().synthetic("BTC-USDT", Listed::days(3)).page_cap(100);
    assert_eq!(candles(&builder.start(), "&limit=300").rows().len(), 100);
}
