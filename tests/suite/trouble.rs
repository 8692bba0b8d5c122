//! A daemon in trouble, and what it says of that: to whoever asks, and in its log.

use std::fs;

use crate::live::{Live, Truth, home, market};
use crate::process::{Home, Running};

/// Starts a daemon none of whose files may grow beyond half a KiB, which is all but a full disk.
fn start_on_a_full_disk(home: &Home) -> Running {
    let script = r#"ulimit -f 1; exec "$0" "$@""#;
    Running::new(home.shell(script, "daemon"), "daemon on a full disk")
}

#[test]
fn a_daemon_on_a_full_disk_is_seen_and_says_why_it_shows_nothing() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let daemon = start_on_a_full_disk(&home);
    daemon.wait_for("status shows nothing new: no snapshot in ");
    daemon.wait_for("everything waits for room on the disk");
    let pid = daemon.pid();
    let told = home.run("status").exits(0);
    assert!(told.out.starts_with(&format!("daemon  running, pid {pid}\n")), "{}", told.out);
    assert!(told.out.contains("a full disk"), "{}", told.out);
    let told = home.run("websocket status").exits(0);
    assert!(told.out.contains(&format!("running, pid {pid}\n")), "{}", told.out);
    for words in ["status --json", "websocket status --json"] {
        let told = home.run(words).exits(0).json();
        assert_eq!(
            (&told["daemon"]["running"], &told["daemon"]["pid"]),
            (&true.into(), &pid.into())
        );
        assert!(told["daemon"]["snapshot_age_ms"].is_null(), "{told}");
    }
    home.run("daemon").exits(1).last_word(&format!("running here already: process {pid}"));
    assert_eq!(daemon.log().matches("status shows nothing new").count(), 1, "{}", daemon.log());
    daemon.signal("TERM");
    daemon.wait_within(std::time::Duration::from_secs(20)).exits(0);
}

#[test]
fn a_stream_that_rests_is_tried_at_once_on_sighup() {
    let exchange = market(&["BTC-USDT"]).start();
    let breaker = r#"{ "failure_threshold": 2, "recovery_timeout": 300 }"#;
    let home = home(&exchange).key("circuit_breaker", breaker).instrument("BTC-USDT", "1m", 1);
    exchange.stop();
    let mut live = Live::start(&home);
    live.wait("a long rest", |seen| {
        seen.stream.breaker == "open" && seen.stream.retry_in_ms > Some(200_000)
    });
    exchange.resume();
    live.running.signal("HUP");
    live.streams("though the rest is not over");
    live.comes_to(&Truth::of(&exchange, &home), "after the rest");
    live.stop("TERM");
}

#[test]
fn a_command_beside_a_daemon_in_trouble_says_what_it_waits_for() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let full = start_on_a_full_disk(&home);
    full.wait_for("everything waits for room on the disk");
    let waiting = home.start("sync --all");
    waiting.wait_for("waiting: nothing can be stored: ");
    waiting.signal("INT");
    waiting.wait().exits(1);
    full.signal("TERM");
    full.wait().exits(0);

    exchange.stop();
    let mut live = Live::start(&home);
    let waiting = home.start("sync --all");
    waiting.wait_for("waiting: requests to the exchange fail: time: ");
    live.wait("an outage, and no single failure", |seen| seen.rest.requests > 3);
    exchange.resume();
    let done = waiting.wait().exits(0);
    let mut told: Vec<&str> =
        done.err.lines().filter(|line| line.starts_with("waiting: ")).collect();
    let all = told.len();
    told.dedup();
    assert_eq!(told.len(), all, "once for each change: {}", done.err);
    live.running.wait_for("poll time: answered again after ");
    live.stop("TERM");
}

#[test]
fn a_folder_that_takes_no_file_ends_the_start() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    // The rights of a folder are nothing to root, as whom tests may run, but this is in its way.
    let blocked = home.data_dir().join(".daemon.json.part");
    fs::create_dir_all(&blocked).unwrap();
    let refused = home.run("daemon").exits(1);
    let line =
        refused.last_word(&format!("{}: no file can be made here: ", home.data_dir().display()));
    assert!(line.contains("make the folder writable"), "{line}");
    fs::remove_dir(&blocked).unwrap();
    let mut live = Live::start(&home);
    live.streams("in a folder that is writable");
    live.stop("TERM");
}

#[test]
fn what_cleaners_of_folders_remove_is_made_again() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    fs::remove_dir_all(home.path("logs")).unwrap();
    fs::remove_file(home.data_dir().join("daemon.sock")).unwrap();
    let log = || fs::read_to_string(home.path("logs/okx-store.log")).unwrap_or_default();
    live.wait("a log with the socket in it", |_| {
        log().contains("desk ") && log().contains("daemon.sock was removed and is made again\n")
    });
    assert!(log().contains("log a new file: "), "{}", log());
    home.run("sync --all").exits(0);
    live.stop("TERM");
    assert!(log().ends_with("daemon stopped\n"), "{}", log());
    assert!(!home.data_dir().join("daemon.sock").exists());
}
