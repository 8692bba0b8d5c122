//! What is refused, by the program before it begins, or by the exchange.

use std::fs;

use crate::exchange::{Endpoint, Exchange, Fault, Listed, Script};
use crate::process::{Home, T0};

fn exchange(faults: Vec<Script>) -> Exchange {
    let builder = Exchange::builder().clock(T0).speed(0.0).faults(faults);
    builder.synthetic("BTC-USDT", Listed::days(20)).start()
}

/// Fails unless the words are refused as bad usage in one line with these in it, and nothing was
/// asked, made or changed.
#[track_caller]
fn assert_refused(home: &Home, exchange: &Exchange, words: &str, said: &[&str]) {
    let (files, asked) = (home.snapshot(), exchange.requests().len());
    let refused = home.run(words).exits(2);
    assert_eq!((refused.out.as_str(), refused.err.lines().count()), ("", 1), "{}", refused.err);
    for part in said {
        refused.last_word(part);
    }
    home.assert_unchanged(&files, words);
    assert_eq!(exchange.requests().len(), asked, "{words}");
}

#[test]
fn bad_usage_is_refused_before_any_work() {
    let exchange = exchange(Vec::new());
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
    home.run("sync --all").exits(0);
    for (words, said) in [
        ("", "give a command"),
        ("snyc --all", "did you mean sync?"),
        ("sync", "--all"),
        ("sync --al", "did you mean --all?"),
        ("sync NOPE-USDT", "NOPE-USDT is not configured"),
        ("sync ../../etc/passwd", "\"../../etc/passwd\" is no instrument"),
        ("sync BTC-USDT;DROP", "\"BTC-USDT;DROP\" is no instrument"),
        ("add-symbol ../../etc/passwd", "is no instrument"),
        ("remove-symbol ../../etc/passwd --purge", "is no instrument"),
        ("remove-symbol NOPE-USDT", "NOPE-USDT is not configured: okx-store list shows what is"),
        ("gaps BTC-USDT 5m --fill", "BTC-USDT 5m is not configured: okx-store backfill BTC-USDT"),
        ("query ../../etc/passwd 1H", "is no instrument"),
        ("query BTC-USDT 7m", "\"7m\" is no bar"),
        ("query BTC-USDT 1H --count -3", "--count -3: give a whole number from 1"),
        ("query BTC-USDT 1H --count=0", "--count 0"),
        ("query BTC-USDT 1H --count 1e3", "--count 1e3"),
        ("query BTC-USDT 1H --start yesterday", "\"yesterday\" is no time"),
        ("query BTC-USDT 1H --start 2024-02-30", "\"2024-02-30\" is no time"),
        ("query BTC-USDT 1H --start 2024-05-02 --end 2024-05-01", "2024-05-0"),
        ("query BTC-USDT 1H --format xml", "xml"),
        ("backfill BTC-USDT 1H --days 0", "--days 0"),
        ("backfill BTC-USDT 1H --start 2024-05-0x", "\"2024-05-0x\" is no time"),
        ("gaps BTC-USDT 1Hutc --fill", "\"1Hutc\" is no bar"),
        ("export BTC-USDT 1H no/such/folder/out.csv", "its folder does not exist"),
        ("export BTC-USDT 1H data", "is a folder"),
        ("export BTC-USDT 1H data/BTC-USDT.db", "is a file of the store"),
        ("export BTC-USDT 1H /dev/full", "is no regular file"),
        ("list --available --type STOCKS", "STOCKS"),
        ("status --config nowhere.json", "nowhere.json: no such file, though --config names it"),
    ] {
        assert_refused(&home, &exchange, words, &[said]);
    }
}

#[test]
fn bad_configuration_is_refused_before_any_work() {
    let exchange = exchange(Vec::new());
    for (key, value, said) in [
        ("rate_limit_per_minut", "5", "unknown key, did you mean rate_limit_per_minute?"),
        ("sandbox", "\"yes\"", "sandbox: \"yes\" is refused"),
        ("data_dir", "7", "data_dir: 7 is refused"),
        ("max_concurrent_syncs", "17", "give a whole number from 1 to 16"),
        ("rate_limit_per_minute", "-1", "rate_limit_per_minute: -1 is refused"),
        ("rest_url", "\"http://example.com\"", "http:// is for loopback addresses alone"),
        ("rest_url", "\"ftp://127.0.0.1\"", "rest_url"),
        ("region", "\"mars\"", "\"mars\" is no region"),
        ("api_key", "\"k\"", "secrets come from the environment alone"),
        ("ca_file", "\"roots.pem\"", "roots.pem"),
        ("log_level", "\"LOUD\"", "log_level"),
    ] {
        // Roots count where there is TLS, so that case names a host which needs them.
        let url = if key == "ca_file" { "\"https://localhost:1\"" } else { "null" };
        let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
        let home = home.key("rest_url", url).key(key, value);
        fs::write(home.path("roots.pem"), "no certificate at all").unwrap();
        for words in ["sync --all", "gaps --fill", "backfill BTC-USDT 1H"] {
            assert_refused(&home, &exchange, words, &[said]);
        }
    }
    for (symbol, bar, said) in [
        ("../../etc/passwd", "1m", "instruments[0].symbol: \"../../etc/passwd\" is no instrument"),
        ("BTC-USDT", "7m", "instruments[0].timeframes[0]: \"7m\" is no bar"),
    ] {
        let entry = format!("{{ \"symbol\": {symbol:?}, \"timeframes\": [{bar:?}] }}");
        let home = Home::of(&exchange);
        fs::write(home.path("config.json"), format!("{{ \"instruments\": [{entry}] }}")).unwrap();
        assert_refused(&home, &exchange, "sync --all", &[said, "config.json:1: "]);
    }
}

#[test]
fn bad_surroundings_are_refused_before_any_work() {
    let exchange = exchange(Vec::new());
    let home = |name, value| {
        let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2).variable(name, value);
        // A proxy would be asked for any host but loopback; no name ends in `.invalid`.
        home.key("rest_url", "\"https://exchange.invalid\"")
    };
    for (name, value, said) in [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", "Socks5 proxy"),
        ("SSL_CERT_FILE", "/nowhere/roots.pem", "/nowhere/roots.pem"),
        ("OKX_API_KEY", "a-key-alone", "OKX_API_SECRET and OKX_PASSPHRASE are not set"),
        ("OKX_STORE_CONFIG", "nowhere.json", "OKX_STORE_CONFIG names it"),
    ] {
        let home = home(name, value);
        assert_refused(&home, &exchange, "sync --all", &[said]);
        let refused = home.run("add-symbol ETH-USDT").exits(2);
        assert!(!refused.err.contains("a-key-alone"), "{}", refused.err);
    }
}

#[test]
fn an_unknown_instrument_fails_alone_in_the_exchanges_words() {
    let exchange = exchange(Vec::new());
    let home = Home::of(&exchange).instrument("AAA-USDT", "1m", 1).instrument("BTC-USDT", "1H", 2);
    let failed = home.run("sync --all").exits(1);
    assert_eq!(
        failed.last_word("AAA-USDT"),
        "okx-store: AAA-USDT 1m: 51001: Instrument ID, Instrument ID code, or Spread ID doesn't \
         exist."
    );
    assert_eq!(failed.row("BTC-USDT 1H"), ["49", "49", "0"]);
    assert!(!home.data_dir().join("AAA-USDT.db").exists());
    assert_eq!(home.count("BTC-USDT", "candles_1h"), 49);
}

#[test]
fn whoever_is_not_wanted_does_not_insist() {
    let body = br#"{"code":"50121","msg":"You can't access our services.","data":[]}"#.to_vec();
    for (fault, said) in [
        (Fault::Html(403), "answered HTTP 403"),
        (Fault::Html(451), "answered HTTP 451"),
        (Fault::Raw { status: 200, headers: Vec::new(), body }, "50121: You can't access"),
    ] {
        let exchange = exchange(vec![Script::always(fault)]);
        let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
        let failed = home.run("sync --all").exits(1);
        assert!(failed.last_word(said).contains("look at the config key region"));
        assert_eq!(exchange.requests().len(), 1);
        assert!(!home.data_dir().join("BTC-USDT.db").exists());
    }
}

#[test]
fn a_pause_that_the_exchange_asks_for_is_kept() {
    let wait = Fault::TooMany { retry_after_s: Some(3) };
    for (fault, least_ms) in [(wait, 3_000), (Fault::TooManyInside, 2_000)] {
        let exchange = exchange(vec![Script::next(1, fault).on(Endpoint::Candles)]);
        let home = Home::of(&exchange).instrument("BTC-USDT", "1D", 5);
        home.run("sync --all").exits(0);
        let asked: Vec<u64> = exchange
            .requests()
            .iter()
            .filter(|request| request.ask.endpoint == Endpoint::Candles)
            .map(|request| request.at_ms)
            .collect();
        assert_eq!(asked.len(), 2);
        assert!(asked[1] - asked[0] >= least_ms, "asked again after {} ms", asked[1] - asked[0]);
    }
}
