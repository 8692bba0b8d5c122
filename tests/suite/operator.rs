//! What whoever runs the program uses beside it: the doctor, the unit, the shells' completions.

use std::path::Path;
use std::process::Command;

use crate::exchange::{Builder, Exchange, Listed, StreamFault};
use crate::process::{Finished, Home, Running, T0};

fn market() -> Builder {
    Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).clock(T0).speed(0.0)
}

fn home(exchange: &Exchange) -> Home {
    let home = Home::of(exchange).instrument("BTC-USDT", "1m 1H", 1);
    home.key("ws_url", &format!("{:?}", exchange.ws_url()))
}

/// What the doctor says of each thing: its name and the verdict.
fn verdicts(finished: &Finished) -> Vec<(&str, &str)> {
    let lines = finished.out.lines().filter(|line| !line.starts_with(' '));
    let mut words = lines.map(|line| line.split_whitespace());
    std::iter::from_fn(|| {
        let mut line = words.next()?;
        Some((line.next().unwrap(), line.next().unwrap()))
    })
    .collect()
}

fn verdict<'a>(finished: &'a Finished, name: &str) -> &'a str {
    let found = verdicts(finished).into_iter().find(|(of, _)| *of == name);
    found.unwrap_or_else(|| panic!("no {name} in:\n{}", finished.out)).1
}

#[test]
fn a_doctor_finds_a_sound_store_sound() {
    let exchange = market().start();
    let home = home(&exchange);
    let new = home.run("doctor --json").exits(0);
    let new: serde_json::Value = serde_json::from_str(&new.out).unwrap();
    assert_eq!(new[2]["text"], "0 of 1 can be read, 1 not synced yet");
    assert_eq!((&new[7]["name"], &new[7]["verdict"]), (&"stream".into(), &"ok".into()));
    home.run("sync --all").exits(0);
    let daemon = home.start("daemon");
    daemon.wait_for("joining to stream");
    let sound = home.run("doctor").exits(0);
    let names = ["config", "folder", "files", "disk", "daemon", "rest", "clock", "stream"];
    let found = verdicts(&sound);
    assert_eq!(found.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    // The exchange of the tests lives in another year.
    for (name, verdict) in found.into_iter().filter(|(name, _)| *name != "clock") {
        assert_eq!(verdict, "ok", "{name}: {}", sound.out);
    }
    assert_eq!(verdict(&sound, "clock"), "look");
}

#[test]
fn a_doctor_names_what_is_broken_and_what_to_do() {
    let exchange = market().start();
    let home = home(&exchange);
    home.run("sync --all").exits(0);
    let idle = home.run("doctor").exits(0);
    assert_eq!(verdict(&idle, "daemon"), "look");
    assert!(idle.out.contains("nohup okx-store daemon &"), "{}", idle.out);

    std::fs::write(home.data_dir().join("BTC-USDT.db"), "no database at all").unwrap();
    exchange.strike(StreamFault::RefuseSeries);
    let broken = home.run("doctor").exits(1);
    assert_eq!((verdict(&broken, "files"), verdict(&broken, "stream")), ("failed", "failed"));
    assert!(broken.out.contains("BTC-USDT.db"), "{}", broken.out);
    assert!(broken.out.contains("WebSocketSubscriptionError"), "{}", broken.out);
    assert_eq!(verdict(&broken, "rest"), "ok", "one thing that is broken hides no other");

    exchange.stop();
    let alone = home.run("doctor").exits(1);
    assert_eq!((verdict(&alone, "rest"), verdict(&alone, "config")), ("failed", "ok"));
}

#[test]
fn a_unit_names_program_and_configuration_by_their_full_paths() {
    let exchange = market().start();
    let home = home(&exchange);
    let unit = home.run("service --data-dir elsewhere").exits(0);
    let place = |name: &str| home.path(name).display().to_string();
    let (config, data) = (place("config.json"), place("elsewhere"));
    let line = format!("okx-store --config {config} --data-dir {data} daemon");
    let start = unit.out.lines().find(|line| line.starts_with("ExecStart=/")).unwrap();
    assert!(start.ends_with(&line), "{start}");
}

/// What bash would offer after these words, the last of which is being typed.
fn offered(home: &Home, words: &[&str]) -> Vec<String> {
    let script = r#"source <(okx-store completions bash)
        COMP_WORDS=(okx-store "$@"); COMP_CWORD=$#; _okx_store; printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]).args(words).current_dir(home.path("")).env_clear();
    let folder = Path::new(env!("CARGO_BIN_EXE_okx-store")).parent().unwrap();
    bash.env("PATH", format!("{}:/usr/bin:/bin", folder.display())).env("HOME", home.path(""));
    let finished = Running::new(bash, "bash").wait().exits(0);
    assert_eq!(finished.err, "");
    // One that has nothing to offer prints an empty line.
    finished.out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_options_symbols_and_bars() {
    let exchange = market().start();
    let home = home(&exchange).instrument("ETH-USDT", "1m", 1);
    for (words, expected) in [
        (&["qu"][..], &["query"][..]),
        (&["query", ""], &["BTC-USDT", "ETH-USDT"]),
        (&["query", "BTC-USDT", "1H"], &["1H"]),
        (&["--config", "x", "query", "BTC-USDT", "1h", "--co"], &["--config", "--count"]),
        (&["query", "--format", "j"], &["json"]),
        (&["sync", "BTC-USDT", "E"], &["ETH-USDT"]),
        (&["websocket", "st"], &["status"]),
        (&["websocket", "status", "--j"], &["--json"]),
        (&["websocket", "status", "--en"], &[]),
        (&["websocket", "config", "--en"], &["--enable"]),
        (&["query", "--format", ""], &["table", "json", "csv"]),
        (&["query", "btc"], &["BTC-USDT"]),
        (&["query", "BTC-USDT", "12h"], &["12H", "12Hutc"]),
        (&["add-symbol", "BTC-USDT", "--timeframes", "1m", "5m", "30"], &["30m"]),
        (&["sync", "BTC-USDT", "--config", "x", "e"], &["ETH-USDT"]),
        (&["completions", ""], &["bash", "zsh", "fish"]),
    ] {
        assert_eq!(offered(&home, words), expected, "{words:?}");
    }
}
