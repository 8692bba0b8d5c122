//! The commands as people and scripts use them, where nothing goes wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use okx_local_store::time::format_time;

use crate::exchange::{Builder, Endpoint, Exchange, Listed, Row};
use crate::mirror::closed_rows;
use crate::process::{Home, T0};

/// Two pairs and a swap, on a clock that stands still.
fn market() -> Builder {
    Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(20))
        .synthetic("ETH-USDT", Listed::days(20))
        .synthetic("BTC-USDT-SWAP", Listed::days(20))
        .clock(T0)
        .speed(0.0)
}

#[test]
fn a_sync_tells_what_it_did_and_a_second_asks_for_the_newest_pages_alone() {
    let exchange = market().start();
    let home = Home::of(&exchange)
        .instrument("BTC-USDT", "1m 1H 1Dutc", 2)
        .instrument("ETH-USDT", "5m", 3)
        .instrument("BTC-USDT-SWAP", "15m", 5);
    let first = home.run("sync --all").exits(0);
    home.assert_equals(&exchange);
    // Into a pipe goes a table on stdout and a plain line for each series on stderr.
    assert_eq!(first.row("series"), ["new", "bars", "stored", "missing"]);
    assert_eq!(first.row("BTC-USDT 1m")[1..], ["2880", "0"]);
    assert_eq!(first.row("ETH-USDT 5m")[1..], ["864", "0"]);
    assert_eq!(first.out.lines().count(), 1 + home.wanted.len());
    let complete = |line: &str| line.contains(" complete, ") && line.contains(" new bars");
    assert_eq!(first.err.lines().filter(|line| complete(line)).count(), home.wanted.len());
    assert!(!(first.out + &first.err).contains(['\u{1b}', '\r', '█']));

    let before = exchange.requests().len();
    let second = home.run("sync --all").exits(0);
    let again = &exchange.requests()[before..];
    let pages: Vec<_> = again.iter().filter(|request| request.ask.bar.is_some()).collect();
    assert_eq!(pages.len(), home.wanted.len());
    assert!(pages.iter().all(|page| page.ask.endpoint == Endpoint::Candles));
    assert_eq!(second.row("BTC-USDT 1m"), ["0", "2880", "0"]);
}

#[test]
fn a_sync_of_one_instrument_leaves_the_others_alone() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2).instrument("ETH-USDT", "1H", 2);
    home.run("sync eth/usdt").exits(0);
    assert!(home.data_dir().join("ETH-USDT.db").exists());
    assert!(!home.data_dir().join("BTC-USDT.db").exists());
}

#[test]
fn a_backfill_fetches_its_range_however_old() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 1);
    home.run("backfill BTC-USDT 1m --start 2024-04-20 --end 2024-04-21").exits(0);
    let day = |text| okx_local_store::time::parse_time(text).unwrap();
    let rows = closed_rows(&home.data_dir(), &crate::mirror::series("BTC-USDT", "1m"));
    let (start, end) = (day("2024-04-20"), day("2024-04-21"));
    let within: Vec<Row> = rows.into_iter().filter(|row| (start..end).contains(&row.ts)).collect();
    assert_eq!(within, exchange.truth("BTC-USDT", "1m", start, end));
}

/// The lines of an export of these rows, from the texts that the exchange sent.
fn csv(rows: &[Row]) -> String {
    let mut text =
        "timestamp,datetime,open,high,low,close,volume,volume_ccy,volume_quote\n".to_owned();
    for row in rows {
        text += &format!("{},{}", row.ts, format_time(row.ts));
        for field in &row.fields(true)[1..8] {
            let digits = match field.contains('.') {
                true => field.trim_end_matches('0').trim_end_matches('.'),
                false => field,
            };
            text += &format!(",{digits}");
        }
        text.push('\n');
    }
    text
}

#[test]
fn an_export_has_the_exchanges_digits_and_the_same_bytes_each_time() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 2).instrument("ETH-USDT", "1H", 9);
    home.run("sync --all").exits(0);
    for (series, days) in &home.wanted {
        let (name, bar) = (series.instrument.as_str(), series.bar.name());
        let start = T0 / 60_000 * 60_000 - i64::from(*days) * 86_400_000;
        let expected = csv(&exchange.truth(name, bar, start, T0));
        let done = home.run(&format!("export {name} {bar} out.csv --start {start}")).exits(0);
        assert_eq!(done.out, "");
        assert_eq!(fs::read_to_string(home.path("out.csv")).unwrap(), expected);
        home.run(&format!("export {name} {bar} out.csv --start {start}")).exits(0);
        assert_eq!(fs::read_to_string(home.path("out.csv")).unwrap(), expected);
        let piped = home.run(&format!("export {name} {bar} - --start={start}")).exits(0);
        assert!(piped.out == expected, "standard output has other bytes than the file");
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 3);
    home.run("sync --all").exits(0);
    for words in ["export BTC-USDT 1m -", "query BTC-USDT 1m --count 4000 --format csv"] {
        // No pipe holds so many rows, so the program still writes when its reader goes.
        let mut child =
            home.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("timestamp,"), "{words}: {line}");
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""), "{words}");
    }
}

#[test]
fn an_instrument_is_added_and_removed_and_remarks_stay() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
    let config = || fs::read_to_string(home.path("config.json")).unwrap();
    home.run("add-symbol eth/usdt --timeframes 1h 1Dutc --history-days 3 --interval=30").exits(0);
    for kept in ["// A remark that every edit keeps.", "// BTC-USDT"] {
        assert!(config().contains(kept), "{}", config());
    }
    let listed = home.run("list --json").exits(0).json();
    let added = serde_json::json!({
        "symbol": "ETH-USDT", "timeframes": ["1H", "1Dutc"], "history_days": 3, "enabled": true,
        "bytes": 0,
    });
    assert_eq!(listed["instruments"][1], added);
    home.run("sync --all").exits(0);

    let kept = home.run("remove-symbol ETH-USDT").exits(0);
    kept.last_word("--purge");
    assert!(kept.out.starts_with("ETH-USDT removed from "), "{}", kept.out);
    assert!(!config().contains("ETH-USDT") && config().contains("// A remark"), "{}", config());
    let file = home.data_dir().join("ETH-USDT.db");
    assert!(file.exists());
    assert!(home.run("list").exits(0).out.contains("not configured:\n  ETH-USDT, "));
    home.run("remove-symbol ETH-USDT --purge").exits(0);
    assert!(!file.exists());
    home.run("query ETH-USDT 1H").exits(1).last_word("neither configured nor stored");
}

#[test]
fn where_nothing_is_configured_it_says_how_to_begin() {
    let exchange = Exchange::builder().start();
    let home = Home::of(&exchange);
    for words in ["list", "overview", "gaps", "status"] {
        let out = home.run(words).exits(0).out;
        let said = "No instrument is configured: okx-store add-symbol SYMBOL\n";
        assert!(out.ends_with(said), "{words}: {out}");
    }
}

#[test]
fn a_mistyped_name_is_answered_with_the_one_that_was_meant() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
    let config = fs::read(home.path("config.json")).unwrap();
    let line = home.run("add-symbol ETH-USTD").exits(1);
    let line = line.last_word("51001");
    assert!(line.starts_with("okx-store: ETH-USTD: ") && line.ends_with("did you mean ETH-USDT?"));
    assert_eq!(fs::read(home.path("config.json")).unwrap(), config);
}

#[test]
fn what_the_exchange_offers_is_listed_by_kind() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
    let symbols = |words: &str| {
        let offered = home.run(words).exits(0).json();
        let symbol = |offer: &serde_json::Value| offer["symbol"].as_str().unwrap().to_owned();
        offered.as_array().unwrap().iter().map(symbol).collect::<Vec<_>>()
    };
    assert_eq!(symbols("list --available --json"), ["BTC-USDT", "ETH-USDT"]);
    assert_eq!(symbols("list --available --type SWAP --json"), ["BTC-USDT-SWAP"]);
    let table = home.run("list --available").exits(0);
    assert!(table.out.ends_with("2 instruments\n"), "{}", table.out);
}
