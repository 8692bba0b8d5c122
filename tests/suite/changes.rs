//! A configuration that changes under a running daemon, and the modes it asks for.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use okx_local_store::snapshot::Snapshot;
use okx_local_store::time::wall_now;

use crate::exchange::{Endpoint, Exchange, Refuse, StreamFault, Strike};
use crate::live::{Live, Truth, home, is_streamed, market, mode};
use crate::mirror::series;
use crate::process::Home;

/// A change is to be taken up within 5 s; a busy machine has three times as long.
const TAKEN_UP: Duration = Duration::from_secs(15);

const MINUTES: &str = r#""timeframes": ["1m"], "max_history_days": 1"#;

/// The names of the series that are subscribed.
fn subscribed(exchange: &Exchange) -> BTreeSet<String> {
    exchange.stats().subscriptions().iter().map(ToString::to_string).collect()
}

fn reason<'a>(seen: &'a Snapshot, symbol: &str) -> &'a str {
    let view = seen.instruments.iter().find(|view| view.symbol == symbol);
    view.map_or("", |view| &view.reason)
}

#[test]
fn a_file_that_is_edited_is_taken_up() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let mut home = home(&exchange);
    home.list("BTC-USDT", r#""timeframes": ["1m", "1H"], "max_history_days": 1"#);
    let mut live = Live::start(&home);
    live.streams("from the start");

    home.list("ETH-USDT", MINUTES);
    live.wait_within(TAKEN_UP, "an added instrument", |seen| seen.instruments.len() == 2);
    live.streams("when it was added");
    let eth = [(series("ETH-USDT", "1m"), 1), (series("BTC-USDT", "1H"), 1)];
    live.comes_to(&Truth::new(&exchange, &eth), "of an added instrument");

    home.list("BTC-USDT", r#""timeframes": ["1m", "5m"], "max_history_days": 1"#);
    let wanted = ["BTC-USDT 1m", "BTC-USDT 5m", "ETH-USDT 1m"].map(str::to_owned).into();
    live.wait_within(TAKEN_UP, "other bars", |_| subscribed(&exchange) == wanted);
    live.streams("with other bars");
    let five = [(series("BTC-USDT", "5m"), 1)];
    live.comes_to(&Truth::new(&exchange, &five), "of an added bar");
    assert!(home.count("BTC-USDT", "candles_1h") > 0, "nothing is deleted");

    let polled = r#", "realtime_source": "polling", "sync_interval_seconds": 1"#;
    home.list("ETH-USDT", &format!("{MINUTES}{polled}"));
    let seen = live.wait_within(TAKEN_UP, "a polled instrument", |seen| {
        mode(seen, "ETH-USDT") == "poll" && subscribed(&exchange).len() == 2
    });
    assert_eq!(reason(&seen, "ETH-USDT"), "configured to poll");
    let asked = exchange.count(Endpoint::Candles);
    live.wait("its polls", |_| exchange.count(Endpoint::Candles) > asked + 3);

    home.list("ETH-USDT", &format!("{MINUTES}, \"enabled\": false"));
    live.wait_within(TAKEN_UP, "a disabled one", |seen| mode(seen, "ETH-USDT") == "off");
    let asked = exchange.count(Endpoint::Candles);
    home.set("max_concurrent_syncs", "2");
    home.set("log_level", "\"DEBUG\"");
    live.running.wait_for("at the next start: max_concurrent_syncs, log_level\n");
    let address = format!("\n             {}/ws/v5/business\n", exchange.ws_url());
    home.set("ws_url", "\"ws://127.0.0.1:9\"");
    live.running.wait_for("at the next start: ws_url\n");
    let next = wall_now();
    live.wait("another look", |seen| seen.written_at > next);
    let told = home.run("websocket status").exits(0);
    assert!(told.out.contains(&address), "the one in use: {}", told.out);
    assert_eq!(exchange.count(Endpoint::Candles), asked, "a disabled one is left alone");

    home.list("ETH-USDT", MINUTES);
    live.wait_within(TAKEN_UP, "it is back", |seen| mode(seen, "ETH-USDT") != "off");
    live.streams("when it is back");
    home.unlist("ETH-USDT");
    live.wait_within(TAKEN_UP, "its end", |seen| {
        seen.instruments.len() == 1 && subscribed(&exchange).len() == 2
    });
    assert!(home.data_dir().join("ETH-USDT.db").exists());
    live.stop("TERM");
}

#[test]
fn what_commands_change_is_taken_up() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    home.run("add-symbol ETH-USDT --timeframes 1m 5m --history-days 1").exits(0);
    live.wait_within(TAKEN_UP, "an added instrument", |seen| seen.instruments.len() == 2);
    live.streams("when it was added");
    assert_eq!(subscribed(&exchange).len(), 3);

    home.run("websocket config --disable").exits(0);
    let seen = live.wait_within(TAKEN_UP, "polling alone", |seen| {
        seen.instruments.iter().all(|view| view.mode == "poll") && !seen.stream.connected
    });
    assert_eq!(reason(&seen, "BTC-USDT"), "enable_websocket is false");
    exchange.wait_for(|stats| stats.open() == 0, TAKEN_UP, "its good-bye");
    home.run("websocket config --enable").exits(0);
    live.wait_within(TAKEN_UP, "the stream", |seen| mode(seen, "BTC-USDT") == "stream");
    home.run("websocket config --set-mode polling").exits(0);
    let seen = live.wait_within(TAKEN_UP, "polling", |seen| mode(seen, "BTC-USDT") == "poll");
    assert_eq!(reason(&seen, "BTC-USDT"), "configured to poll");
    home.run("websocket config --set-mode hybrid").exits(0);
    live.streams("after all");

    let purged = home.run("remove-symbol ETH-USDT --purge").exits(0);
    assert!(purged.out.ends_with("ETH-USDT.db deleted\n"), "{}", purged.out);
    let seen = live.wait_within(TAKEN_UP, "one less", |seen| seen.instruments.len() == 1);
    assert_eq!(mode(&seen, "BTC-USDT"), "stream");
    assert!(!home.data_dir().join("ETH-USDT.db").exists());
    home.run("add-symbol ETH-USDT --timeframes 1m --history-days 1").exits(0);
    let eth = [(series("ETH-USDT", "1m"), 1)];
    live.comes_to(&Truth::new(&exchange, &eth), "of one that was purged");
    live.streams("when it is back");
    live.comes_to(&Truth::of(&exchange, &home), "of the other");
    live.stop("TERM");
}

/// Fails unless a refusal is shown wherever one looks, and the daemon goes on as before.
fn assert_refused(live: &mut Live, home: &Home, name: &str) {
    let what = format!("the refusal of a file that is {name}");
    let seen = live.wait_within(TAKEN_UP, &what, |seen| seen.config_error.is_some());
    assert_eq!(seen.instruments.len(), 2, "{name}: {seen:?}");
    assert!(seen.instruments.iter().all(is_streamed), "{name}: {seen:?}");
    let sound = home.path("sound.json");
    for words in ["status", "websocket status"] {
        let words = format!("{words} --json --config {}", sound.display());
        let told = home.run(&words).exits(0).json();
        assert_eq!(told["daemon"]["config_error"], seen.config_error.clone().unwrap(), "{name}");
    }
    // Without a sound file there is the daemon to go by, and the mistake is told beside it.
    for words in ["status --config config.json", "websocket status --config config.json"] {
        let told = home.run(words).exits(0);
        assert!(told.out.contains("running, pid "), "{name}: {}", told.out);
        assert!(told.out.contains("BTC-USDT") && told.out.contains("ETH-USDT"), "{name}: {told:?}");
        told.last_word("config.json");
    }
    let words = format!("status --config {}", sound.display());
    assert!(home.run(&words).exits(0).out.contains("changed, and refused"), "{name}");
}

#[test]
fn a_broken_file_is_refused_and_told_of_until_it_is_mended() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1).instrument("ETH-USDT", "1m", 1);
    let file = home.path("config.json");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(home.path("sound.json"), &sound).unwrap();
    let mut live = Live::start(&home);
    live.streams("from the start");
    // An editor that saves in place empties the file first.
    let cases = [
        ("no JSON", sound.replace('}', "")),
        ("of unknown keys", sound.replacen('{', "{ \"data_dri\": \"data\",", 1)),
        ("out of bounds", sound.replacen('{', "{ \"max_concurrent_syncs\": 99,", 1)),
        ("half written", sound[..30].to_owned()),
        ("empty", String::new()),
    ];
    for (name, text) in cases {
        fs::write(&file, text).unwrap();
        live.running.signal("HUP");
        assert_refused(&mut live, &home, name);
        fs::write(&file, &sound).unwrap();
        if name != "empty" {
            live.running.signal("HUP");
        }
        let what = format!("a mended file that was {name}");
        live.wait_within(TAKEN_UP, &what, |seen| seen.config_error.is_none());
        live.streams("with the mended file");
    }
    let refusals = |live: &Live| live.running.log().matches("what held before").count();
    let before = refusals(&live);
    fs::remove_file(&file).unwrap();
    assert_refused(&mut live, &home, "gone");
    // It is looked at again and again, and told of once.
    let later = wall_now() + 5_000;
    live.wait("more looks", |seen| seen.written_at > later);
    assert_eq!(refusals(&live), before + 1, "{}", live.running.log());
    home.run("status --config nowhere/config.json").exits(2).last_word("nowhere/config.json");
    fs::write(&file, &sound).unwrap();
    live.wait_within(TAKEN_UP, "the file again", |seen| seen.config_error.is_none());
    assert_eq!(exchange.stats().upgraded(), 1, "nothing of that is the stream's business");
    let stopped = live.stop("TERM");
    assert!(stopped.err.contains("; what held before still holds"), "{}", stopped.err);
}

/// One instrument for each row of the table of modes, and what becomes of it: its mode while it
/// can be streamed, and when the stream is lost.
const ROWS: [(&str, &str, &str, &str); 8] = [
    ("BTC-USDT", "", "stream", "poll"),
    ("ETH-USDT", r#", "enabled": false"#, "off", "off"),
    ("SOL-USDT", r#", "realtime_source": "polling""#, "poll", "poll"),
    ("XRP-USDT", r#", "websocket_priority": false"#, "poll", "poll"),
    (
        "DOGE-USDT",
        r#", "websocket_priority": false, "realtime_source": "websocket""#,
        "stream",
        "wait",
    ),
    ("SHIB-USDT", r#", "realtime_source": "websocket""#, "stream", "wait"),
    ("PEPE-USDT", r#", "fallback_to_polling": false"#, "stream", "wait"),
    ("LTC-USDT", r#", "realtime_source": "auto""#, "stream", "poll"),
];

fn modes(seen: &Snapshot) -> Vec<String> {
    ROWS.iter().map(|(symbol, ..)| mode(seen, symbol).to_owned()).collect()
}

#[test]
fn each_row_of_the_table_of_modes_is_lived_and_shown() {
    let exchange = market(&ROWS.map(|(symbol, ..)| symbol)).start();
    let mut home = home(&exchange);
    ROWS.iter().for_each(|(symbol, rest, ..)| home.list(symbol, &format!("{MINUTES}{rest}")));
    let whole: Vec<&str> = ROWS.iter().map(|row| row.2).collect();
    let lost: Vec<&str> = ROWS.iter().map(|row| row.3).collect();
    let mut live = Live::start(&home);
    live.wait("each mode", |seen| modes(seen) == whole);
    let status = home.run("status --json").exits(0).json();
    for instrument in status["instruments"].as_array().unwrap() {
        let expected = match instrument["symbol"].as_str().unwrap() {
            "ETH-USDT" => "disabled",
            "SOL-USDT" => "configured to poll",
            "XRP-USDT" => "websocket_priority is false",
            _ => "the stream has met what is stored",
        };
        assert_eq!(instrument["reason"], expected, "{instrument}");
    }

    let refused = StreamFault::Refuse(Refuse::Http(503));
    exchange.strike(refused);
    exchange.strike(StreamFault::Drop);
    let seen = live.wait("each mode without the stream", |seen| modes(seen) == lost);
    assert!(reason(&seen, "BTC-USDT").contains("WebSocketConnectionError"), "{seen:?}");
    let status = home.run("status --json").exits(0).json();
    assert_eq!(status["instruments"][0]["fell_back"], true, "{status}");
    // Those who are patient poll after half a minute, and who may not poll never does.
    let patient = ["poll", "off", "poll", "poll", "poll", "poll", "wait", "poll"];
    live.wait("the end of patience", |seen| modes(seen) == patient);
    exchange.heal();
    live.wait("each mode again", |seen| modes(seen) == whole);
    for _ in 0..2 {
        let ups = exchange.stats().upgraded();
        exchange.strike(StreamFault::Drop);
        live.wait("another connection", |seen| {
            exchange.stats().upgraded() > ups && mode(seen, "BTC-USDT") == "stream"
        });
    }
    let seen = live.wait("a cool-down", |seen| mode(seen, "LTC-USDT") == "poll");
    assert!(reason(&seen, "LTC-USDT").contains("lost too often, polled for 60 s"), "{seen:?}");

    for (key, value, expected) in [
        ("websocket_fallback_enabled", "false", "stream"),
        ("realtime_mode", "\"websocket\"", "stream"),
        ("realtime_mode", "\"auto\"", "stream"),
        ("realtime_mode", "\"polling\"", "poll"),
        ("enable_websocket", "false", "poll"),
    ] {
        home.set(key, value);
        let settled = "config taken in, instruments: 7";
        let before = live.running.log().matches(settled).count();
        live.wait_within(TAKEN_UP, &format!("{key} {value}"), |seen| {
            let polls = seen.instruments.iter().all(|view| ["poll", "off"].contains(&&*view.mode));
            mode(seen, "BTC-USDT") == expected && (expected == "stream" || polls)
        });
        live.wait_for(TAKEN_UP, "it to be taken in", |live| {
            (live.running.log().matches(settled).count() <= before).then(|| key.to_owned())
        });
        if value == "\"websocket\"" {
            exchange.strike(Strike::new(refused).lasting(3_000));
            exchange.strike(StreamFault::Drop);
            live.wait("one that waits", |seen| mode(seen, "BTC-USDT") == "wait");
            live.wait("the stream", |seen| mode(seen, "BTC-USDT") == "stream");
        }
    }
    live.stop("TERM");
}

#[test]
fn a_refused_series_polls_while_the_others_stream() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    exchange.strike(Strike::new(StreamFault::RefuseSeries).only("ETH-USDT", "1m"));
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1).instrument("ETH-USDT", "1m 5m", 1);
    let mut live = Live::start(&home);
    let seen = live.wait("one series on its own", |seen| {
        let via = |n: usize| seen.instruments[1].series[n].via.as_str();
        is_streamed(&seen.instruments[0]) && via(0) == "poll" && via(1) == "stream"
    });
    let error = seen.instruments[1].series[0].last_error.as_deref().unwrap_or_default();
    assert!(error.starts_with("WebSocketSubscriptionError: 60018"), "{seen:?}");
    exchange.strike(Strike::new(StreamFault::RefuseSeries).only("ETH-USDT", "5m"));
    exchange.strike(StreamFault::Drop);
    let seen = live.wait("a poll of both", |seen| {
        mode(seen, "ETH-USDT") == "poll" && is_streamed(&seen.instruments[0])
    });
    assert!(reason(&seen, "ETH-USDT").starts_with("the stream was refused: "), "{seen:?}");
    exchange.heal();
    exchange.strike(StreamFault::Drop);
    live.streams("when nothing is refused any more");
    live.comes_to(&Truth::of(&exchange, &home), "through all that");
    live.stop("TERM");
}
