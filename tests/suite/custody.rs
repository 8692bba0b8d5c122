//! What a daemon makes of its files and of its exchange's good name: calm, damage, locks and
//! certificates.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;

use crate::exchange::{Endpoint, Exchange};
use crate::live::{Live, START, Truth, home, market, mode};
use crate::mirror::series;

const LATE: Duration = Duration::from_secs(90);

fn pages(exchange: &Exchange) -> usize {
    exchange.count(Endpoint::Candles) + exchange.count(Endpoint::History)
}

#[test]
fn an_undisturbed_stream_needs_no_candles_by_rest() {
    // History is complete before the minute ends.
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).clock(START - 15_000).start();
    // Long intervals: a busy machine must not look like a silent exchange.
    let home = home(&exchange).key("websocket_config", "{}");
    let home = home.instrument("BTC-USDT", "1s 1m 1H", 1).instrument("ETH-USDT", "1s 1m 5m", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    let truth = Truth::of(&exchange, &home);
    live.comes_to(&truth, "of history");
    // The last page may be of a poll that was under way, and history ends with a question.
    let mut asked = (pages(&exchange), exchange.now());
    live.wait("a quiet exchange", |_| {
        if pages(&exchange) != asked.0 {
            asked = (pages(&exchange), exchange.now());
        }
        exchange.now() > asked.1 + 2_000
    });
    let seconds = |exchange: &Exchange| exchange.confirmed_pushed("BTC-USDT", "1s").len();
    let minutes = |exchange: &Exchange| exchange.confirmed_pushed("ETH-USDT", "1m").len();
    let (second, minute) = (seconds(&exchange), minutes(&exchange));
    // A minute ends, and what is looked for after ten seconds would be.
    live.wait("a minute to end", |_| minutes(&exchange) > minute);
    live.wait("many seconds to end", |_| seconds(&exchange) > second + 20);
    assert_eq!(pages(&exchange), asked.0, "{:?}", exchange.requests().last());
    let seen = live.wait("its own numbers", |seen| seen.latency.updates > 100);
    assert!(seen.rest.saved > 0 && seen.latency.p99_ms.is_some(), "{seen:?}");
    assert_eq!((seen.stream.reconnects, seen.stream.errors), (0, 0), "{seen:?}");
    live.comes_to(&Truth::of(&exchange, &home), "by the stream alone");
    assert_eq!(pages(&exchange), asked.0, "{:?}", exchange.requests().last());
    live.stop("TERM");
}

#[test]
fn tls_is_trusted_by_its_roots_and_else_told_of() {
    let exchange = market(&["BTC-USDT"]).tls().start();
    let mut home = home(&exchange).key("ca_file", "\"ca.pem\"").instrument("BTC-USDT", "1m 5m", 1);
    home.run("daemon").exits(2).last_word("ca.pem");
    fs::write(home.path("ca.pem"), exchange.ca_pem()).unwrap();
    let mut live = Live::start(&home);
    live.streams("through TLS");
    live.comes_to(&Truth::of(&exchange, &home), "through TLS");
    live.stop("TERM");

    // The authority of somebody else, of the same name.
    let other = market(&[]).tls().start();
    fs::write(home.path("ca.pem"), other.ca_pem()).unwrap();
    let mut live = Live::start(&home);
    let seen = live.wait("both errors", |seen| {
        seen.stream.last_error.is_some() && seen.rest.last_error.is_some()
    });
    for error in [seen.stream.last_error, seen.rest.last_error] {
        assert!(error.as_ref().unwrap().contains("certificate is not trusted"), "{error:?}");
    }
    let told = home.run("status --json").exits(0).json();
    let error = told["websocket"]["last_error"].as_str().unwrap();
    assert!(error.contains("certificate is not trusted"), "{error}");
    let query = home.run("query BTC-USDT 1m --format csv").exits(0);
    assert_eq!(query.out.lines().count(), 11, "{}", query.out);
    home.run("gaps --json").exits(0);
    let stopped = live.stop("TERM");
    assert!(stopped.err.matches("certificate is not trusted").count() >= 2, "{}", stopped.err);
    home.set("ca_file", "\"config.json\"");
    home.run("daemon").exits(2).last_word("config.json");
}

/// One that streams, and one that is polled: neither may need the other's way to be noticed.
const DAMAGED: [&str; 2] = ["ETH-USDT", "SOL-USDT"];

#[test]
fn a_damaged_file_is_left_alone_and_the_others_go_on() {
    let exchange = market(&["BTC-USDT", "ETH-USDT", "SOL-USDT"]).start();
    let mut home =
        home(&exchange).instrument("BTC-USDT", "1m 5m", 1).instrument("ETH-USDT", "1m", 1);
    let polled = r#""timeframes": ["1m"], "max_history_days": 1,
        "realtime_source": "polling", "sync_interval_seconds": 1"#;
    home.list("SOL-USDT", polled);
    home.wanted.push((series("SOL-USDT", "1m"), 1));
    home.run("sync --all").exits(0);
    let path = |symbol: &str| home.data_dir().join(format!("{symbol}.db"));
    let sound = fs::read(path("ETH-USDT")).unwrap();
    let spoilt: Vec<u8> =
        sound[..4_096].iter().copied().chain(sound[4_096..].iter().map(|_| 0xa5)).collect();
    for bytes in [&spoilt[..], b"this is no database, but it is longer than nothing"] {
        DAMAGED.iter().for_each(|symbol| fs::write(path(symbol), bytes).unwrap());
        let mut live = Live::start(&home);
        let seen = live.wait("files that are left alone", |seen| {
            mode(seen, "BTC-USDT") == "stream"
                && seen.instruments[1..].iter().all(|view| view.error.is_some())
        });
        for (view, symbol) in seen.instruments[1..].iter().zip(DAMAGED) {
            let error = view.error.as_deref().unwrap();
            assert!(error.contains(&format!("{symbol}.db")), "{error}");
            let words = (view.mode.as_str(), view.reason.as_str(), view.series[0].via.as_str());
            assert_eq!(words, ("off", "its file cannot be used: nothing is stored", "none"));
            live.running.wait_for(&format!("{symbol} is left alone, the others go on"));
        }
        let pushes = exchange.pushes();
        live.wait("some pushes", |_| exchange.pushes() > pushes + 20);
        let btc = [(series("BTC-USDT", "1m"), 1), (series("BTC-USDT", "5m"), 1)];
        live.comes_to(&Truth::new(&exchange, &btc), "of the others");
        home.run("sync ETH-USDT").exits(1);
        for symbol in DAMAGED {
            assert!(fs::read(path(symbol)).unwrap() == bytes, "{symbol}: the file was changed");
            // Moved away by somebody who follows the advice.
            fs::rename(path(symbol), home.path("damaged.db")).unwrap();
        }
        live.running.signal("HUP");
        live.wait("their return", |seen| {
            let modes = ["BTC-USDT", "ETH-USDT", "SOL-USDT"].map(|symbol| mode(seen, symbol));
            modes == ["stream", "stream", "poll"]
                && seen.instruments.iter().all(|view| view.error.is_none())
        });
        live.comes_to(&Truth::of(&exchange, &home), "in new files");
        live.stop("TERM");
    }
}

#[test]
fn a_file_damaged_under_a_daemon_is_made_anew() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1).instrument("ETH-USDT", "1m 5m", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    live.comes_to(&Truth::of(&exchange, &home), "before the damage");
    // Another process writes nonsense, and makes sure that it is looked at.
    let path = home.data_dir().join("ETH-USDT.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("DROP TABLE spans").unwrap();
    drop(conn);
    live.wait("a file that is left alone", |seen| seen.instruments[1].error.is_some());
    for name in ["ETH-USDT.db", "ETH-USDT.db-wal", "ETH-USDT.db-shm"] {
        // Of the logs there may be none any more.
        let _ = fs::rename(home.data_dir().join(name), home.path(name));
    }
    live.running.signal("HUP");
    live.streams("when the file is gone");
    live.comes_to(&Truth::of(&exchange, &home), "in a new file");
    live.stop("TERM");
}

#[test]
fn rows_deleted_behind_its_back_come_again() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1s 1m", 1);
    let mut live = Live::start(&home);
    live.comes_to(&Truth::of(&exchange, &home), "before");
    live.stop("TERM");
    let conn = home.open("BTC-USDT");
    let deleted = conn.execute("DELETE FROM candles_1s WHERE ts % 7000 = 0", []).unwrap();
    let minutes = "DELETE FROM candles_1m WHERE ts < ?1";
    let deleted = deleted + conn.execute(minutes, [START - 300_000]).unwrap();
    assert!(deleted > 50, "{deleted}");
    drop(conn);
    let truth = Truth::of(&exchange, &home);
    assert!(truth.difference(&home.data_dir()).is_some());
    let mut live = Live::start(&home);
    live.comes_to(&truth, "that were deleted");
    live.stop("TERM");
}

#[test]
fn a_file_in_use_by_others_delays_and_loses_nothing() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1s 1m", 1).instrument("ETH-USDT", "1s", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    live.comes_to(&Truth::of(&exchange, &home), "before");
    let conn = home.open("ETH-USDT");
    conn.execute_batch("BEGIN IMMEDIATE").unwrap();
    let bars = |stats: &crate::exchange::Stats| stats.confirmed_pushed("ETH-USDT", "1s").len();
    let before = bars(&exchange.stats());
    exchange.wait_for(|stats| bars(stats) >= before + 7, LATE, "bars that cannot be stored");
    let truth = Truth::of(&exchange, &home);
    let btc = Truth::new(&exchange, &[(series("BTC-USDT", "1s"), 1)]);
    live.comes_to(&btc, "of the other file");
    assert!(truth.difference(&home.data_dir()).is_some(), "it is locked");
    conn.execute_batch("ROLLBACK").unwrap();
    live.comes_to(&truth, "when the file is free");
    let seen = live.streams("after all");
    assert_eq!(seen.instruments[1].error, None);
    live.stop("TERM");
}
