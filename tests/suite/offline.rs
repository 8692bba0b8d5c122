//! Without the exchange: what is stored is answered from the files, in a folder that cannot be
//! written too, and whoever needs the exchange waits for it, but not for ever.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::exchange::{Endpoint, Exchange, Fault, Listed, Script};
use crate::process::{Finished, Home, Running, T0};

/// Every command that reads, with a word of its answer.
const READS: [(&str, &str); 9] = [
    ("query BTC-USDT 1m", "running"),
    ("query BTC-USDT 1Dutc --days 3 --json", "\"confirmed\":true"),
    ("export BTC-USDT 1m - --days 1", "timestamp,"),
    ("gaps", "missing"),
    ("gaps BTC-USDT 1m --json", "\"totals\""),
    ("status", "BTC-USDT"),
    ("status --json", "\"running\": false"),
    ("overview", "BTC-USDT"),
    ("list", "BTC-USDT"),
];

fn exchange() -> Exchange {
    let builder = Exchange::builder().clock(T0).speed(0.0);
    builder.synthetic("BTC-USDT", Listed::days(20)).start()
}

fn synced(exchange: &Exchange) -> Home {
    let home = Home::of(exchange).instrument("BTC-USDT", "1m 1Dutc", 2);
    home.run("sync --all").exits(0);
    home
}

#[track_caller]
fn assert_answers(answer: Finished, word: &str) {
    let answer = answer.exits(0);
    assert!(answer.out.contains(word), "no {word:?} in:\n{}", answer.out);
    assert!(!answer.err.contains("WARN"), "{}", answer.err);
}

#[test]
fn reading_never_asks_the_exchange() {
    let exchange = exchange();
    let home = synced(&exchange);
    let asked = exchange.requests().len();
    let answers: Vec<String> = READS.map(|(words, _)| home.run(words).exits(0).out).into();
    assert_eq!(exchange.requests().len(), asked);

    exchange.stop();
    for ((words, word), before) in READS.into_iter().zip(answers) {
        let after = home.run(words).exits(0);
        // Ages and lags go on with the clock.
        if !["gaps", "status", "overview"].contains(&words.split(' ').next().unwrap()) {
            assert!(after.out == before, "{words} answers otherwise than before");
        }
        assert_answers(after, word);
    }
    home.run("export BTC-USDT 1m out.csv --complete").exits(0);
    assert!(fs::metadata(home.path("out.csv")).unwrap().len() > 100_000);
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Makes the store such that everybody can read it and nobody change it, its owner included.
fn lock_up(home: &Home) {
    for entry in fs::read_dir(home.data_dir()).unwrap() {
        allow(&entry.unwrap().path(), 0o444);
    }
    allow(&home.data_dir(), 0o555);
    allow(&home.path(""), 0o755);
}

/// The program as somebody who can read the folder and change nothing in it. No permission stops
/// root, so root sends nobody.
fn as_a_guest(home: &Home, words: &str) -> Finished {
    let mut command = home.command(words);
    if fs::metadata(home.path("data")).unwrap().uid() == 0 {
        // The program itself may lie where only root can reach it. Another process copies it: a
        // file that this one has open for writing is open in what other tests start meanwhile, and
        // a program that anybody writes to cannot be run.
        let program = home.path("okx-store");
        if !program.exists() {
            let mut copy = Command::new("cp");
            copy.args([Path::new(env!("CARGO_BIN_EXE_okx-store")), &program]);
            assert!(copy.status().unwrap().success(), "the program cannot be copied");
        }
        let mut guest = Command::new(program);
        guest.args(command.get_args()).current_dir(home.path("")).env_clear();
        guest.env("HOME", home.path("")).uid(65_534).gid(65_534);
        command = guest;
    }
    Running::new(command, words).wait()
}

#[test]
fn a_folder_that_cannot_be_written_can_be_read() {
    let exchange = exchange();
    let home = synced(&exchange);
    let log = home.data_dir().join("BTC-USDT.db-wal");
    for leftover in [false, true] {
        if leftover {
            // Whoever has read the file may have left an empty log behind.
            fs::write(&log, "").unwrap();
        }
        lock_up(&home);
        for (words, word) in READS {
            assert_answers(as_a_guest(&home, words), word);
        }
        let refused = as_a_guest(&home, "sync --all").exits(1);
        refused.last_word(".lock: cannot lock: ");
        allow(&home.data_dir(), 0o755);
    }
}

#[test]
fn the_log_of_a_killed_writer_can_be_read_by_a_guest() {
    let exchange = exchange();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1m", 5);
    let sync = home.start("sync --all");
    exchange.wait_until("history", || exchange.count(Endpoint::History) >= 5);
    sync.kill();
    assert!(fs::metadata(home.data_dir().join("BTC-USDT.db-wal")).unwrap().len() > 0);
    lock_up(&home);
    let guest = as_a_guest(&home, "query BTC-USDT 1m --count 299 --format csv");
    allow(&home.data_dir(), 0o755);
    assert_eq!(guest.exits(0).out.lines().count(), 300);
}

#[test]
fn without_a_configuration_nothing_is_made_and_nothing_asked() {
    let exchange = exchange();
    let home = Home::of(&exchange);
    fs::remove_file(home.path("config.json")).unwrap();
    let before = home.snapshot();
    assert!(home.run("status").exits(0).out.contains(".okx_local_store/data"));
    assert!(home.run("list").exits(0).out.contains("ETH-USDT"));
    assert!(home.run("overview").exits(0).out.contains("BTC-USDT"));
    assert!(home.run("gaps").exits(0).out.contains("BTC-USDT 1m: never synced"));
    home.run("query BTC-USDT 1m").exits(1).last_word("sync the instrument first");
    home.run("export BTC-USDT 1m out.csv").exits(1).last_word("sync the instrument first");
    home.assert_unchanged(&before, "a command that reads");
    assert!(!home.path(".okx_local_store").exists());
}

#[test]
fn patience_with_the_exchange_ends_and_says_why() {
    let unreachable = exchange();
    unreachable.stop();
    let broken = exchange();
    broken.set_faults(vec![Script::always(Fault::Html(502))]);
    let untrusted = Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).tls().start();
    let host = unreachable.address().to_string();
    let cases = [
        (&unreachable, host.as_str()),
        (&broken, "answered HTTP 502 without a word of the exchange's own"),
        (&untrusted, "its certificate is not trusted"),
    ];
    // They wait together, for this is the one test that takes half a minute.
    let homes = cases.map(|(exchange, _)| Home::of(exchange).instrument("BTC-USDT", "1H", 2));
    let syncs: Vec<Running> = homes.iter().map(|home| home.start("sync --all")).collect();
    for ((sync, home), (_, why)) in syncs.into_iter().zip(&homes).zip(cases) {
        let failed = sync.wait().exits(1);
        assert!(failed.last_word(why).starts_with("okx-store: gave up: "), "{}", failed.err);
        assert!(!home.data_dir().join("BTC-USDT.db").exists());
    }
    assert!(broken.requests().len() > 3, "it did not ask again");
    unreachable.resume();
    homes[0].run("sync --all").exits(0);
}
