//! Files that are not as the program left them: holes, damage, and files of others.

use std::fs;

use crate::exchange::{Builder, Endpoint, Exchange, Listed};
use crate::process::{Home, T0};

const MINUTE: i64 = 60_000;

fn market() -> Builder {
    let builder = Exchange::builder().clock(T0).speed(0.0);
    let builder = builder.synthetic("BTC-USDT", Listed::days(20));
    builder.synthetic("ETH-USDT", Listed::days(20))
}

/// A store of two instruments, complete.
fn synced(exchange: &Exchange) -> Home {
    let home = Home::of(exchange).instrument("BTC-USDT", "1m", 3).instrument("ETH-USDT", "1H", 3);
    home.run("sync --all").exits(0);
    home
}

#[test]
fn a_hole_of_any_size_is_seen_and_healed() {
    let exchange = market().start();
    let home = synced(&exchange);
    for (bars, cure) in [
        (1, "gaps --fill"),
        (1, "sync --all"),
        (1_000, "gaps BTC-USDT 1m --fill"),
        (1_000, "sync BTC-USDT"),
    ] {
        let start = T0 / MINUTE * MINUTE - 2_500 * MINUTE;
        let sql = "DELETE FROM candles_1m WHERE ts >= ?1 AND ts < ?2";
        let deleted = home.open("BTC-USDT").execute(sql, [start, start + bars * MINUTE]);
        assert_eq!(deleted.unwrap() as i64, bars);

        let seen = home.run("gaps BTC-USDT 1m --json").exits(0);
        assert!(seen.err.contains("of those stored are gone"), "{}", seen.err);
        let series = &seen.json()["series"][0];
        assert_eq!(series["lost"], bars);
        let inside = series["missing_ranges"].as_array().unwrap();
        let inside = inside.iter().find(|range| range["kind"] == "inside").unwrap();
        assert_eq!((&inside["start"], &inside["bars"]), (&start.into(), &bars.into()));

        home.run(cure).exits(0);
        let seen = home.run("gaps BTC-USDT 1m").exits(0);
        assert!(!seen.out.contains("missing inside"), "{cure}: {}", seen.out);
        home.assert_equals(&exchange);
    }
}

#[test]
fn an_export_can_demand_that_nothing_is_missing() {
    let exchange = market().start();
    let home = synced(&exchange);
    let start = T0 / MINUTE * MINUTE - 2_500 * MINUTE;
    home.open("BTC-USDT").execute("DELETE FROM candles_1m WHERE ts = ?1", [start]).unwrap();
    let before = home.snapshot();
    let refused = home.run("export BTC-USDT 1m out.csv --complete").exits(1);
    refused.last_word("for want of 1 bar:");
    home.assert_unchanged(&before, "an export that failed");
    let told = home.run("export BTC-USDT 1m out.csv").exits(0);
    assert!(told.err.starts_with("BTC-USDT 1m: 1 bar missing in 1 range:\n"), "{}", told.err);
    home.run("gaps --fill").exits(0);
    home.run("export BTC-USDT 1m out.csv --complete").exits(0);
}

#[test]
fn a_failed_export_leaves_the_folder_as_it_was() {
    let exchange = market().start();
    let home = synced(&exchange);
    fs::write(home.path("out.csv"), "what was there before").unwrap();
    let before = home.snapshot();
    let script = r#"ulimit -f 100; exec "$0" "$@""#;
    let words = "export BTC-USDT 1m out.csv";
    let full = crate::process::Running::new(home.shell(script, words), words).wait().exits(1);
    full.last_word("out.csv: cannot write it: ");
    home.assert_unchanged(&before, "an export that failed");
}

/// Syncs all with BTC-USDT's file unusable: it fails alone, is told why, and is left as it is.
fn assert_fails_alone(home: &Home, exchange: &Exchange, why: &str) {
    let path = home.data_dir().join("BTC-USDT.db");
    let before = fs::read(&path).unwrap();
    let asked = exchange.count(Endpoint::Candles);
    let failed = home.run("sync --all").exits(1);
    let line = failed.last_word("BTC-USDT.db");
    assert!(line.starts_with("okx-store: BTC-USDT 1m: ") && line.contains(why), "{line}");
    assert!(failed.row("BTC-USDT 1m").contains(&"failed"));
    assert_eq!(failed.row("ETH-USDT 1H"), ["0", "73", "0"]);
    assert_eq!(exchange.count(Endpoint::Candles), asked + 1, "the others go on");
    home.run("query BTC-USDT 1m").exits(1).last_word("BTC-USDT.db");
    home.run("query ETH-USDT 1H").exits(0);
    let status = home.run("status --json").exits(1).json();
    assert!(status["instruments"][0]["error"].as_str().unwrap().contains(why), "{status}");
    assert!(fs::read(&path).unwrap() == before, "the unusable file was changed");
}

#[test]
fn a_damaged_file_fails_alone_and_is_kept() {
    let exchange = market().start();
    let home = synced(&exchange);
    let path = home.data_dir().join("BTC-USDT.db");
    let sound = fs::read(&path).unwrap();
    let overwritten: Vec<u8> =
        sound[..4_096].iter().copied().chain(sound[4_096..].iter().map(|_| 0xa5)).collect();
    let cases: [(&[u8], &str); 3] = [
        (&overwritten, "malformed"),
        (b"this is no database, but it is longer than nothing", "not a database"),
        (&sound[..6_000], "malformed"),
    ];
    for (bytes, why) in cases {
        fs::write(&path, bytes).unwrap();
        assert_fails_alone(&home, &exchange, why);
    }
    fs::remove_file(&path).unwrap();
    home.run("sync --all").exits(0);
    home.assert_equals(&exchange);
}

#[test]
fn a_file_of_a_later_program_is_refused() {
    let exchange = market().start();
    let home = synced(&exchange);
    home.open("BTC-USDT").pragma_update(None, "user_version", 99).unwrap();
    assert_fails_alone(&home, &exchange, "schema 99 is newer");
}

#[test]
fn a_store_of_another_region_or_environment_is_refused() {
    let exchange = market().start();
    let demo = market().sandbox().start();
    let home = synced(&exchange);
    let url = format!("{:?}", demo.url());
    for (key, value, why) in [
        ("region", "\"eea\"", "holds candles of okx global live, not of okx eea live"),
        ("sandbox", "true", "holds candles of okx global live, not of okx global demo"),
    ] {
        let (file, config) = (home.path("config.json"), home.path("other.json"));
        let text = fs::read_to_string(file).unwrap();
        let text = text.replacen('{', &format!("{{ {key:?}: {value},"), 1);
        let text = match key {
            "sandbox" => text.replace(&format!("{:?}", exchange.url()), &url),
            _ => text,
        };
        fs::write(config, text).unwrap();
        let before = fs::read(home.data_dir().join("BTC-USDT.db")).unwrap();
        home.run("sync --all --config other.json").exits(1).last_word(why);
        home.run("query BTC-USDT 1m --config other.json").exits(1).last_word(why);
        home.run("sync ETH-USDT --config other.json --data-dir elsewhere").exits(0);
        fs::remove_dir_all(home.path("elsewhere")).unwrap();
        assert_eq!(fs::read(home.data_dir().join("BTC-USDT.db")).unwrap(), before);
    }
}
