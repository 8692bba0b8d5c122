//! What a person and a script see of the stream and of the daemon.

use std::fs;

use okx_local_store::lock::Lock;
use okx_local_store::snapshot::{InstrumentView, SeriesView, Snapshot, StreamView};
use okx_local_store::time::wall_now;

use crate::exchange::{Builder, Exchange, Listed, Refuse, StreamFault};
use crate::process::{Finished, Home, T0};

fn market() -> Builder {
    Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).clock(T0).speed(0.0)
}

fn home(exchange: &Exchange) -> Home {
    let home = Home::of(exchange).instrument("BTC-USDT", "1m 1H", 1);
    home.key("ws_url", &format!("{:?}", exchange.ws_url()))
}

/// The first words of the lines between the first, which names the address, and the last.
fn steps(finished: &Finished) -> Vec<&str> {
    let lines = finished.out.lines().skip(1).filter_map(|line| line.strip_prefix("  "));
    lines.map(|line| line.split("  ").next().unwrap()).collect()
}

const PLAIN: [&str; 6] = ["resolve", "tcp", "upgrade", "subscribe", "first push", "ping"];

#[test]
fn a_trial_of_the_stream_tells_each_step_and_leaves_nothing_behind() {
    let exchange = market().start();
    let home = home(&exchange);
    let before = home.snapshot();
    let tried = home.run("websocket test").exits(0);
    let address = format!("{}/ws/v5/business, BTC-USDT 1m", exchange.ws_url());
    assert_eq!(tried.out.lines().next(), Some(address.as_str()));
    assert_eq!(steps(&tried), PLAIN);
    assert!(tried.out.lines().skip(1).take(PLAIN.len()).all(|line| line.ends_with(" ms")));
    assert!(tried.out.ends_with("\nThe stream works.\n") && tried.err.is_empty(), "{tried:?}");
    assert!(!tried.out.contains('\u{1b}'), "a pipe gets no colours");
    home.assert_unchanged(&before, "websocket test");
    // It takes no lock, so it runs beside a daemon.
    let _daemon = Lock::take(&home.data_dir()).unwrap();
    home.run("websocket test").exits(0);
}

#[test]
fn a_trial_goes_through_tls_where_the_authority_is_trusted() {
    let exchange = market().tls().start();
    let home = home(&exchange);
    let untrusted = home.run("websocket test").exits(1);
    assert_eq!(steps(&untrusted), ["resolve", "tcp", "tls"]);
    assert!(untrusted.out.ends_with("failed\n"), "{}", untrusted.out);
    let line = untrusted.last_word("WebSocketConnectionError: localhost:");
    assert!(line.contains(": tls: its certificate is not trusted: "), "{line}");

    let home = home.key("ca_file", "\"ca.pem\"");
    fs::write(home.path("ca.pem"), exchange.ca_pem()).unwrap();
    let tried = home.run("websocket test").exits(0);
    let expected = ["resolve", "tcp", "tls", "upgrade", "subscribe", "first push", "ping"];
    assert_eq!(steps(&tried), expected);
}

#[test]
fn a_trial_logs_in_where_credentials_are_set_and_goes_on_without() {
    let exchange = market().credentials("key", "s3cret", "phrase").start();
    let known = |passphrase: &str| {
        let home = home(&exchange).variable("OKX_API_KEY", "key");
        home.variable("OKX_API_SECRET", "s3cret").variable("OKX_PASSPHRASE", passphrase)
    };
    let expected = ["resolve", "tcp", "upgrade", "login", "subscribe", "first push", "ping"];
    let good = known("phrase");
    // The login is stamped with the exchange's time, which a sync has learnt.
    good.run("sync BTC-USDT").exits(0);
    let tried = good.run("websocket test").exits(0);
    assert_eq!(steps(&tried), expected);

    let refused = known("wrong").run("websocket test").exits(1);
    assert_eq!(steps(&refused), expected, "candles need no login");
    assert_eq!(refused.out.matches("failed").count(), 1, "{}", refused.out);
    let line = refused.last_word("WebSocketAuthenticationError: 60");
    assert!(line.contains("OKX_API_KEY") && !line.contains("s3cret"), "{line}");
}

#[test]
fn a_trial_that_fails_names_the_step_and_what_to_do() {
    let refused = StreamFault::Refuse(Refuse::Http(403));
    for (fault, step, said, advice) in [
        (StreamFault::HalfOpen, "subscribe", "WebSocketTimeoutError: subscribe: ", "--timeout"),
        (StreamFault::RefuseSeries, "subscribe", "WebSocketSubscriptionError: 60018: ", "symbol"),
        (refused, "upgrade", "WebSocketConnectionError: ", "look at the config key region"),
        (StreamFault::DeafToPings, "ping", "WebSocketTimeoutError: ping: ", "network"),
    ] {
        let exchange = market().start();
        exchange.strike(fault);
        let tried = home(&exchange).run("websocket test --timeout 3").exits(1);
        assert_eq!(steps(&tried).last(), Some(&step), "{fault:?}");
        let last = tried.out.lines().last().unwrap();
        assert!(last.ends_with("failed"), "{fault:?}: {last}");
        let line = tried.last_word(said);
        assert!(line.contains(advice) && !line.contains("anew"), "{line}");
    }
}

#[test]
fn a_trial_without_anybody_there_fails_at_once() {
    let exchange = market().start();
    let home = home(&exchange);
    exchange.stop();
    let tried = home.run("websocket test --timeout 60").exits(1);
    assert_eq!(steps(&tried), ["resolve", "tcp"]);
    let line = tried.last_word("WebSocketConnectionError: 127.0.0.1:");
    assert!(line.contains("look at the network"), "{line}");
    let home = home.key("ca_file", "\"roots.pem\"").key("ws_url", "\"wss://localhost:1\"");
    home.run("websocket test").exits(2).last_word("roots.pem");
}

/// What a daemon of this process would show of a store with one instrument.
fn shown() -> Snapshot {
    let series = SeriesView {
        timeframe: "1m".into(),
        via: "stream".into(),
        updated_at: Some(T0),
        last_error: None,
    };
    let instrument = InstrumentView {
        symbol: "BTC-USDT".into(),
        mode: "stream".into(),
        reason: "the stream has met what is stored".into(),
        since: T0,
        series: vec![series],
        ..InstrumentView::default()
    };
    Snapshot {
        pid: std::process::id(),
        version: "0.1.0".into(),
        written_at: wall_now(),
        uptime_ms: 11_100_000,
        now: T0,
        stream: StreamView { enabled: true, connected: true, wanted: 1, ..StreamView::default() },
        instruments: vec![instrument],
        ..Snapshot::default()
    }
}

#[test]
fn a_daemon_is_seen_while_it_holds_the_lock() {
    let exchange = market().start();
    let home = home(&exchange);
    home.run("sync BTC-USDT").exits(0);
    let asked = exchange.requests().len();
    shown().write(&home.data_dir()).unwrap();
    for words in ["status --json", "websocket status --json"] {
        let report = home.run(words).exits(0).json();
        assert_eq!(report["daemon"]["running"], false, "{words}: a snapshot proves nothing");
        assert_eq!(report["websocket"]["connected"], false, "{words}");
    }
    let lock = Lock::take(&home.data_dir()).unwrap();
    let told = home.run("status --json").exits(0).json();
    assert_eq!(told["daemon"]["running"], false, "a command that writes is no daemon");
    lock.sign_as_daemon().unwrap();
    for words in ["status --json", "websocket status --json"] {
        let report = home.run(words).exits(0).json();
        assert_eq!(report["daemon"]["running"], true, "{words}");
        assert_eq!(report["daemon"]["pid"], std::process::id(), "{words}");
        let instrument = &report["instruments"][0];
        assert_eq!(
            (&instrument["mode"], &instrument["symbol"]),
            (&"stream".into(), &"BTC-USDT".into())
        );
        assert_eq!(instrument["series"][0]["via"], "stream", "{words}");
        assert_eq!(report["websocket"]["breaker"], "closed", "{words}");
    }
    let told = home.run("websocket status").exits(0);
    assert!(told.out.starts_with("connection   connected"), "{}", told.out);
    assert!(!told.out.contains(['\u{1b}', '●']), "a pipe gets neither colours nor symbols");
    drop(lock);
    assert_eq!(exchange.requests().len(), asked, "nobody has touched the network");
}

#[test]
fn the_stream_is_configured_by_commands() {
    let exchange = market().start();
    let home = home(&exchange);
    let config = || fs::read_to_string(home.path("config.json")).unwrap();
    let shown = home.run("websocket config").exits(0);
    assert_eq!(shown.row("enable_websocket "), ["true", "default"]);
    home.run("websocket config --disable").exits(0);
    assert!(config().contains("\"enable_websocket\": false"), "{}", config());
    assert!(config().contains("// A remark that every edit keeps."), "{}", config());
    let shown = home.run("websocket config").exits(0);
    assert_eq!(shown.row("enable_websocket "), ["false", "default:", "true"]);
    assert_eq!(shown.row("BTC-USDT "), ["hybrid", "poll:", "enable_websocket", "is", "false"]);
    home.run("websocket config --enable").exits(0);
    let set = home.run("websocket config --set-mode polling").exits(0);
    assert!(set.out.contains("\nno daemon is running: "), "{}", set.out);
    assert!(home.run("websocket config").out.contains("poll: configured to poll\n"));
    let before = home.snapshot();
    for (words, said) in [
        ("websocket config --enable --disable", "--enable and --disable exclude each other"),
        ("websocket config --set-mode fast", "\"fast\" is no mode"),
        ("websocket status --enable", "has no option --enable"),
    ] {
        home.run(words).exits(2).last_word(said);
        home.assert_unchanged(&before, words);
    }
}
