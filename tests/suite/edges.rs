//! Where the program meets others: TLS, signatures, the budget over several processes, and two
//! commands at once.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::exchange::{Builder, Endpoint, Exchange, Fault, Listed, Script};
use crate::process::{Home, T0};

const SECRETS: [(&str, &str); 3] = [
    ("OKX_API_KEY", "8a2f-the-key"),
    ("OKX_API_SECRET", "C0FFEE-the-secret"),
    ("OKX_PASSPHRASE", "correct-horse-the-phrase"),
];

fn market() -> Builder {
    let builder = Exchange::builder().clock(T0).speed(0.0);
    builder.synthetic("BTC-USDT", Listed::days(20)).synthetic("ETH-USDT", Listed::days(20))
}

#[test]
fn roots_come_from_the_configuration_or_the_environment() {
    let exchange = market().tls().start();
    let home = |keys: &[&str]| {
        let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
        std::fs::write(home.path("roots.pem"), exchange.ca_pem()).unwrap();
        let pem = home.path("roots.pem").display().to_string();
        keys.iter().fold(home, |home, &key| match key {
            "ca_file" => home.key("ca_file", "\"roots.pem\""),
            name => home.variable("SSL_CERT_FILE", name.strip_prefix('=').unwrap_or(&pem)),
        })
    };
    // A key in the file comes before the variable.
    for keys in [&["ca_file"][..], &["SSL_CERT_FILE"], &["ca_file", "=/nowhere.pem"]] {
        let home = home(keys);
        home.run("sync --all").exits(0);
        home.assert_equals(&exchange);
    }
}

#[test]
fn requests_are_signed_and_no_secret_is_told() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
    let log = "\"logs/all.log\"";
    let home = home.key("log_level", "\"TRACE\"").key("log_file", log);
    let home = SECRETS.into_iter().fold(home, |home, (name, value)| home.variable(name, value));
    let done = home.run("sync --all -v").exits(0);
    assert!(done.err.contains("DEBUG"), "{}", done.err);
    let listed = home.run("list --available -v").exits(0);

    for request in exchange.requests() {
        let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
        if request.ask.endpoint == Endpoint::Time {
            assert_eq!(header("ok-access-sign"), "", "who asks for the time does not know it");
            continue;
        }
        assert_eq!(header("ok-access-key"), SECRETS[0].1);
        assert_eq!(header("ok-access-passphrase"), SECRETS[2].1);
        let signed = format!("{}GET{}", header("ok-access-timestamp"), request.ask.target);
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRETS[1].1.as_bytes());
        let signature = BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
        assert_eq!(header("ok-access-sign"), signature);
    }
    let mut texts = vec![done.out, done.err, listed.out, listed.err];
    texts.extend(home.snapshot().values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    assert!(home.path("logs/all.log").exists());
    for (name, secret) in SECRETS {
        assert!(!texts.iter().any(|text| text.contains(secret)), "{name} is told");
    }
}

#[test]
fn commands_in_a_row_share_the_exchanges_budget() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1D", 5);
    // Each asks for the time, of which the exchange answers ten in two seconds: it fails this test
    // if it has to refuse one.
    for _ in 0..11 {
        home.run("sync --all").exits(0);
    }
    assert_eq!(exchange.count(Endpoint::Time), 11);
    // So it does with history: a killed process had its share.
    let home = home.instrument("ETH-USDT", "1m", 4);
    for _ in 0..2 {
        let before = exchange.count(Endpoint::History);
        let sync = home.start("sync ETH-USDT");
        exchange.wait_until("history", || exchange.count(Endpoint::History) >= before + 5);
        sync.kill();
    }
    home.run("sync --all").exits(0);
    home.assert_equals(&exchange);
}

#[test]
fn the_users_own_rate_holds_over_all_commands_of_a_minute() {
    let exchange = market().start();
    let home =
        Home::of(&exchange).instrument("BTC-USDT", "1D", 5).key("rate_limit_per_minute", "3");
    home.run("sync --all").exits(0);
    assert_eq!(exchange.requests().len(), 2);
    let second = home.start("sync --all");
    // The line that a pipe gets after ten seconds: by then it would have asked long ago.
    second.wait_for("bars missing");
    assert_eq!(exchange.requests().len(), 3);
    second.signal("TERM");
    second.wait().exits(1).last_word("stopped");
}

#[test]
fn of_two_writing_commands_the_second_waits_and_reading_goes_on() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 2);
    home.run("sync --all").exits(0);
    let stalls = || exchange.requests().iter().filter(|ask| ask.fault.is_some()).count();
    let stalled = || {
        exchange.set_faults(vec![Script::always(Fault::Stall(120_000))]);
        let asked = stalls();
        let sync = home.start("sync --all");
        exchange.wait_until("a sync that stalls", || stalls() > asked);
        sync
    };
    let hurry = |sync: crate::process::Running| {
        sync.signal("TERM");
        sync.wait_for("stopping");
        sync.signal("TERM");
        sync.wait().exits(1);
    };

    let first = stalled();
    for words in ["query BTC-USDT 1m", "status", "gaps", "export BTC-USDT 1m out.csv", "list"] {
        home.run(words).exits(0);
    }
    exchange.set_faults(Vec::new());
    let second = home.start("sync --all");
    hurry(first);
    second.wait().exits(0);

    let first = stalled();
    let refused = home.run("sync --all").exits(1);
    refused.last_word(&format!("process {} is writing here", first.pid()));
    assert!(home.data_dir().join("BTC-USDT.db").exists());
    hurry(first);
}

#[test]
fn whoever_reads_on_in_a_file_does_not_hinder_a_sync() {
    let exchange = market().start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 1);
    home.run("sync --all").exits(0);
    let home = home.instrument("BTC-USDT", "1m", 2);
    let reader = home.open("BTC-USDT");
    let count = || -> i64 {
        reader.query_row("SELECT count(*) FROM candles_1m", [], |row| row.get(0)).unwrap()
    };
    reader.execute_batch("BEGIN").unwrap();
    let before = count();
    home.run("sync --all").exits(0);
    assert_eq!(count(), before, "a reader sees one moment");
    reader.execute_batch("COMMIT").unwrap();
    assert!(count() > before);
    home.assert_equals(&exchange);
}
