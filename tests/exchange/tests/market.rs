//! The market: made up, read from a file, folded into longer bars, running, halted, revised.

use std::fs;

use super::super::row::{Fold, seconds};
use super::super::synthetic::Synthetic;
use super::super::{
    BARS, DAY_MS, DEFAULT_START_MS, Exchange, HOUR_MS, Halt, Listed, MINUTE_MS, Row,
};
use super::client::{candles, get, history};

fn row(minute: i64, [o, h, l, c]: [f64; 4], vol: f64) -> Row {
    let ts = DEFAULT_START_MS / HOUR_MS * HOUR_MS + minute * MINUTE_MS;
    Row { ts, o, h, l, c, vol, vol_ccy: vol * c, vol_quote: vol * c }
}

fn fold(rows: &[Row]) -> Option<Row> {
    let mut fold = Fold::default();
    rows.iter().for_each(|row| fold.push(row));
    fold.finish(rows.first()?.ts)
}

/// Folds in another way than the exchange does: all traded rows at once.
fn plainly(rows: &[Row]) -> Row {
    let traded: Vec<&Row> = rows.iter().filter(|row| row.vol > 0.0).collect();
    let (first, last) = (traded[0], traded[traded.len() - 1]);
    let h = traded.iter().map(|row| row.h).fold(f64::MIN, f64::max);
    let l = traded.iter().map(|row| row.l).fold(f64::MAX, f64::min);
    let vol = traded.iter().map(|row| row.vol).sum();
    Row { ts: rows[0].ts, o: first.o, h, l, c: last.c, vol, ..*first }
}

fn prices(row: &Row) -> [f64; 4] {
    [row.o, row.h, row.l, row.c]
}

#[test]
fn flat_bars_do_not_shape_a_longer_one() {
    let rows = [
        row(0, [9.0; 4], 0.0),
        row(1, [5.0, 6.0, 4.0, 5.5], 2.0),
        row(2, [5.5; 4], 0.0),
        row(3, [5.2, 5.3, 5.1, 5.2], 1.0),
        row(4, [1.0; 4], 0.0),
    ];
    let folded = fold(&rows).unwrap();
    assert_eq!((prices(&folded), folded.vol), ([5.0, 6.0, 4.0, 5.2], 3.0));
    assert_eq!(prices(&fold(&rows[..1]).unwrap()), [9.0; 4], "all flat is flat");
    assert_eq!(fold(&[]), None);
}

#[test]
fn seconds_fold_back_into_their_minute() {
    for symbol in ["BTC-USDT", "PEPE-USDT", "DOGE-USDT-SWAP", "ETH-USD-SWAP"] {
        let market = Synthetic::new(symbol, 3, 0);
        for minute in 30_000_000..30_000_500 {
            let whole = market.row(minute * MINUTE_MS).unwrap();
            let before = market.row((minute - 1) * MINUTE_MS).unwrap();
            let parts = seconds(&whole, MINUTE_MS, before.c);
            assert_eq!(parts.len(), 60);
            assert_eq!(fold(&parts), Some(whole), "{symbol}");
            assert!(whole.vol == 0.0 || fold(&parts[..59]) != Some(whole), "the last counts");
        }
    }
}

#[test]
fn a_synthetic_market_is_plausible_and_repeats_itself() {
    let market = Synthetic::new("BTC-USDT", 1, 0);
    let minutes: Vec<Row> =
        (29_000_000..29_003_000).map(|minute| market.row(minute * MINUTE_MS).unwrap()).collect();
    let flat = minutes.iter().filter(|row| row.vol == 0.0).count();
    assert!((30..1_500).contains(&flat), "{flat} flat minutes");
    for (row, next) in minutes.iter().zip(&minutes[1..]) {
        assert!(row.l <= row.o.min(row.c) && row.h >= row.o.max(row.c) && row.l > 0.0);
        assert!(next.vol > 0.0 || prices(next) == [row.c; 4], "flat at the close before");
        assert!((next.o / row.c - 1.0).abs() < 0.01, "no jumps");
    }
    let again = Synthetic::new("BTC-USDT", 1, 0);
    assert_eq!(again.row(minutes[7].ts), Some(minutes[7]));
    assert_ne!(Synthetic::new("BTC-USDT", 2, 0).row(minutes[7].ts), Some(minutes[7]));
    assert_ne!(Synthetic::new("ETH-USDT", 1, 0).row(minutes[7].ts), Some(minutes[7]));
}

#[test]
fn longer_bars_are_made_of_their_minutes() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(200)).speed(0.0).start();
    let names = ["3m", "1H", "6H", "1D", "2D", "1W", "1M", "3M", "1Dutc", "1Wutc", "1Mutc"];
    for bar in BARS.iter().filter(|bar| names.contains(&bar.name())) {
        let now = exchange.now();
        let longer = exchange.truth("BTC-USDT", bar.name(), now - 190 * DAY_MS, now);
        for longer in longer.iter().rev().take(3) {
            let minutes = exchange.truth("BTC-USDT", "1m", longer.ts, bar.end(longer.ts));
            assert_eq!(prices(&plainly(&minutes)), prices(longer), "{}", bar.name());
            assert!((plainly(&minutes).vol - longer.vol).abs() < 1e-6, "{}", bar.name());
        }
    }
}

#[test]
fn the_first_bar_begins_before_the_listing() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(40)).speed(0.0).start();
    let months = exchange.truth("BTC-USDT", "1Mutc", 0, exchange.now());
    let minutes = exchange.truth("BTC-USDT", "1m", 0, exchange.now());
    assert_eq!(months[0].o, minutes[0].o);
    assert!(months[0].ts < minutes[0].ts);
}

#[test]
fn a_running_bar_grows_until_it_is_closed() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(2)).speed(0.0).start();
    // A minute and an hour that trade, seen from their first to their last ms.
    let all = exchange.truth("BTC-USDT", "1m", exchange.now() - DAY_MS, exchange.now());
    let ends = |row: &&Row| row.vol > 0.0 && (row.ts + MINUTE_MS) % HOUR_MS == 0;
    let hour = all.iter().rev().find(ends).unwrap().ts / HOUR_MS * HOUR_MS;
    let minutes = exchange.truth("BTC-USDT", "1m", hour, hour + HOUR_MS);
    let minute = minutes.iter().find(|minute| minute.vol > 0.0).unwrap();
    exchange.set_now(minute.ts);
    let newest = |bar: &str| candles(&exchange, &format!("&limit=1&bar={bar}")).rows().remove(0);
    assert_eq!((newest("1m")[5].as_str(), newest("1m")[8].as_str()), ("0", "0"));
    let mut seen = vec![0.0];
    for _ in 0..6 {
        exchange.advance(MINUTE_MS / 6 - 1);
        let row = newest("1m");
        assert_eq!((row[0].clone(), row[8].as_str()), (minute.ts.to_string(), "0"));
        seen.push(row[5].parse().unwrap());
    }
    assert!(seen.is_sorted() && seen[6] > 0.0 && seen[6] < minute.vol, "{seen:?}");
    exchange.set_now(minute.ts + MINUTE_MS);
    let closed = &candles(&exchange, "&limit=2").rows()[1];
    assert_eq!((closed[5].parse(), closed[8].as_str()), (Ok(minute.vol), "1"));
    exchange.set_now(hour + HOUR_MS - 1);
    let running: f64 = newest("1H")[5].parse().unwrap();
    exchange.advance(1);
    let closed = &candles(&exchange, "&limit=2&bar=1H").rows()[1];
    assert!(running < closed[5].parse().unwrap());
}

#[test]
fn a_file_keeps_its_digits_and_its_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let (minute, five) = (1_642_687_800_000i64, 5 * MINUTE_MS);
    let text = format!(
        "[[{minute},0.0000029125,0.00000293,0.000002909,0.0000029297,30470937384.0],\
         [{},0.0000029293,0.0000029313,0.0000029074,0.0000029087,21196690168.5],\
         [{},0.0000029317,0.000002939,0.0000029274,0.0000029319,9978168068.0]]",
        minute + five,
        minute + 4 * five,
    );
    fs::write(folder.path().join("BTC-USDT-5m.json"), text).unwrap();
    let exchange = Exchange::builder().folder(folder.path()).unwrap().speed(0.0).start();
    assert_eq!(exchange.now(), minute + 5 * five + five / 2, "half a bar after the end");
    let page = candles(&exchange, "&bar=5m");
    assert_eq!(page.times(), [minute + 4 * five, minute + five, minute]);
    let row = &page.rows()[2];
    assert_eq!(&row[1..5], ["0.0000029125", "0.00000293", "0.000002909", "0.0000029297"]);
    assert_eq!((row[5].as_str(), row[8].as_str()), ("30470937384", "1"));
    assert!(page.rows().iter().flatten().all(|text| !text.contains('e')), "no exponents");
    let longer = exchange.truth("BTC-USDT", "30m", 0, exchange.now());
    assert_eq!(longer.len(), 1, "the second half of an hour still runs");
    assert_eq!(prices(&longer[0]), [0.0000029125, 0.0000029313, 0.0000029074, 0.0000029087]);
}

#[test]
fn a_bad_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("candles.json");
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        let error = Exchange::builder().file("BTC-USDT", &path).err().expect("because it is bad");
        error.to_string()
    };
    assert!(refused("{}").ends_with("is not JSON"));
    assert!(refused("[[0,1,1,1,1]]").ends_with("row 0 is not six numbers"));
    assert!(refused("[[60000,1,1,1,1,1],[0,1,1,1,1,1]]").contains("row 1 is not newer"));
    assert!(refused("[[0,1,1,1,1,1],[120000,1,1,1,1,1]]").ends_with("want 1m or 5m"));
    assert!(Exchange::builder().file("BTC-USDT", folder.path().join("none")).is_err());
}

#[test]
fn holes_halts_and_revisions() {
    let exchange = Exchange::builder().synthetic("BTC-USDT", Listed::days(3)).speed(0.0).start();
    let hour = exchange.now() / HOUR_MS * HOUR_MS;
    exchange.hole("BTC-USDT", hour - 3 * HOUR_MS, hour - HOUR_MS);
    let hours = exchange.truth("BTC-USDT", "1H", hour - 5 * HOUR_MS, hour);
    let times: Vec<i64> = hours.iter().map(|row| (row.ts - hour) / HOUR_MS).collect();
    assert_eq!(times, [-5, -4, -1]);
    let below = history(&exchange, &format!("&limit=1&after={}", hour - HOUR_MS));
    assert_eq!(below.times(), [hour - 3 * HOUR_MS - MINUTE_MS]);

    let revised = Row { h: 1e6, ..hours[0] };
    exchange.revise("BTC-USDT", "1H", revised);
    assert_eq!(exchange.truth("BTC-USDT", "1H", revised.ts, revised.ts + 1), [revised]);

    exchange.halt("BTC-USDT", hour + 5 * MINUTE_MS, Halt::Suspended);
    exchange.set_now(hour + 3 * DAY_MS);
    let newest = candles(&exchange, "");
    assert_eq!(newest.times()[0], hour + 4 * MINUTE_MS);
    assert_eq!(newest.rows()[0][8], "1");
    let list = get(&exchange, "/api/v5/public/instruments?instType=SPOT").json();
    assert_eq!(list["data"][0]["state"], "suspend");
}

#[test]
fn a_delisted_instrument_is_gone() {
    let builder = Exchange::builder().synthetic("BTC-USDT", Listed::days(1));
    let exchange = builder.synthetic("ETH-USDT", Listed::days(1)).start();
    exchange.halt("BTC-USDT", exchange.now() + HOUR_MS, Halt::Delisted);
    assert_eq!(candles(&exchange, "").code(), "0");
    exchange.advance(HOUR_MS);
    assert_eq!(candles(&exchange, "").code(), "51001");
    let list = get(&exchange, "/api/v5/public/instruments?instType=SPOT").json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    exchange.halt("BTC-USDT", exchange.now(), Halt::Settled);
    assert_eq!(history(&exchange, "").code(), "50047");
}

#[test]
fn a_late_confirm_holds_back_the_history_too() {
    let exchange = Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(1))
        .clock(DEFAULT_START_MS / MINUTE_MS * MINUTE_MS + 2_000)
        .speed(0.0)
        .start();
    let minute = exchange.now() / MINUTE_MS * MINUTE_MS;
    exchange.set_late_confirm(4_000);
    let confirms = |exchange: &Exchange| {
        let rows = candles(exchange, "&limit=3").rows();
        rows.iter().map(|row| row[8].clone()).collect::<String>()
    };
    assert_eq!(confirms(&exchange), "001");
    assert_eq!(history(&exchange, "&limit=1").times(), [minute - 3 * MINUTE_MS]);
    exchange.advance(2_000);
    assert_eq!(confirms(&exchange), "011");
    assert_eq!(history(&exchange, "&limit=1").times(), [minute - 2 * MINUTE_MS]);
}
