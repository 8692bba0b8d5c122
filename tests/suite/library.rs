//! The store in a program of one's own, which is this test, against the fixture exchange.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use okx_local_store::lock::Lock;
use okx_local_store::time::{HOUR, format_time};
use okx_local_store::{Config, Error, InstrumentConfig, OkxLocalStore, Remedy, Subscription};
use okx_local_store::{Span, SubscriptionError, Updates, Wanted};
use tempfile::TempDir;

use crate::exchange::{Exchange, Listed};
use crate::live::{LONG, Live, START, Truth, home, market};
use crate::mirror::{assert_equals, series};
use crate::process::{Home, T0};

/// How often something is looked at until it is there.
const LOOK: Duration = Duration::from_millis(20);

/// The program of the front page, line by line.
fn keep_fresh_and_print(
    file: &Path,
    out: &mut dyn Write,
) -> Result<(), Box<dyn std::error::Error>> {
    // begin
    let store = OkxLocalStore::open(file)?;
    let minutes = store.subscribe(&"BTC-USDT".parse()?, "1m".parse()?, Updates::Closed);
    store.start()?;
    for minute in minutes {
        writeln!(out, "{} {}", format_time(minute.ts), minute.close)?;
    }
    // end
    Ok(store.stop()?)
}

/// A reader who has seen enough after a line.
#[derive(Default)]
struct OneLine(String);

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.ends_with('\n') {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.0.push_str(std::str::from_utf8(bytes).expect("because text is written"));
        if self.0.ends_with('\n') { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_program_of_the_front_page_prints_each_closed_minute() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let mut out = OneLine::default();
    let ended = keep_fresh_and_print(&home.path("config.json"), &mut out).unwrap_err();
    assert!(ended.is::<io::Error>(), "{ended}");
    // History is no news: the first minute to be printed is the one that was running.
    let running = START - START.rem_euclid(60_000);
    let truth = exchange.truth("BTC-USDT", "1m", running, running + 60_000).remove(0);
    assert_eq!(out.0, format!("{} {}\n", format_time(truth.ts), truth.c));
    assert_eq!(Lock::holder(&home.data_dir()), None, "dropped, it has stopped");
}

#[test]
fn the_front_page_has_that_program() {
    let (page, program) = (include_str!("../../src/lib.rs"), include_str!("library.rs"));
    let readme = include_str!("../../README.md");
    let lines = program.lines().skip_while(|line| line.trim() != "// begin").skip(1);
    let lines: Vec<&str> = lines.take_while(|line| line.trim() != "// end").collect();
    assert_eq!(lines.len(), 6);
    for line in lines {
        let line = line.replace("open(file)", "open(\"config.json\")");
        // There the lines are a whole program, which writes to the screen.
        let line = match line.strip_suffix("?;").filter(|_| line.contains("writeln!")) {
            Some(written) => written.replace("writeln!(out, ", "println!(") + ";",
            None => line,
        };
        assert!(page.contains(&format!("//! {line}\n")), "src/lib.rs has no {line}");
        assert!(readme.contains(&line), "README.md has no {line}");
    }
    // Whoever copies it from the page copies all of it.
    let begins = page.find("```no_run").expect("the page has a program");
    let shown = page[begins..].lines().take_while(|line| !line.ends_with("//! ```"));
    assert!(shown.clone().any(|line| line.starts_with("//! fn main()")));
    assert!(shown.clone().count() < 14 && !shown.clone().any(|line| line.starts_with("//! #")));
}

/// A store for one instrument that a program has built, and that waits for nothing for long.
fn built(exchange: &Exchange, bars: &[&str]) -> (TempDir, OkxLocalStore) {
    let dir = tempfile::tempdir().unwrap();
    let mut btc = InstrumentConfig::new("BTC-USDT".parse().unwrap());
    btc.timeframes = bars.iter().map(|bar| bar.parse().unwrap()).collect();
    btc.max_history_days = 2;
    let config = Config::builder(dir.path())
        .instrument(btc)
        .rest_url(exchange.url())
        .ws_url(exchange.ws_url())
        .rate_limit_per_minute(0)
        .build()
        .unwrap();
    (dir, OkxLocalStore::with_config(config).unwrap())
}

fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !met() {
        assert!(Instant::now() < deadline, "waited {LONG:?} in vain for {what}");
        thread::park_timeout(LOOK);
    }
}

/// The next candle, which has to come.
fn next(subscription: &Subscription) -> okx_local_store::Candle {
    let candle = subscription.recv_within(LONG).expect("because the engine runs");
    candle.unwrap_or_else(|| panic!("waited {LONG:?} in vain for a candle"))
}

#[test]
fn seconds_come_as_they_close_each_once_and_are_what_is_stored() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let (dir, store) = built(&exchange, &["1s"]);
    let (btc, second) = ("BTC-USDT".parse().unwrap(), "1s".parse().unwrap());
    store.start().unwrap();
    assert!(matches!(store.start(), Err(Error::Started)));
    assert_eq!(store.status().daemon.pid, Some(std::process::id()));
    let (closed, all) = (
        store.subscribe(&btc, second, Updates::Closed),
        store.subscribe(&btc, second, Updates::All),
    );
    let seen: Vec<_> = (0..4).map(|_| next(&closed)).collect();
    assert!(seen.iter().all(|candle| candle.confirmed && candle.ts + 1_000 > START));
    assert!(seen.windows(2).all(|pair| pair[1].ts == pair[0].ts + 1_000), "{seen:?}");
    let stored = store.query().candles_since(&btc, second, seen[0].ts).unwrap();
    assert_eq!(stored[..4], seen[..]);
    wait_for("a state of a running bar", || !next(&all).confirmed);

    // What is added while it runs is taken up at once, and what is removed is let go.
    let eth = "ETH-USDT".parse().unwrap();
    let added = store.subscribe(&eth, second, Updates::Closed);
    store.add_symbol(&eth, &[second]).unwrap();
    next(&added);
    store.remove_symbol(&eth).unwrap();
    assert_eq!(store.config().instruments.len(), 1);

    let truth = Truth::new(&exchange, &[(series("BTC-USDT", "1s"), 1)]);
    store.sync_now(&btc).unwrap();
    assert_eq!(truth.difference(dir.path()), None);
    store.stop().unwrap();
    wait_for("the end of the subscription", || {
        closed.recv_within(LOOK) == Err(SubscriptionError::Stopped)
    });
    store.stop().unwrap();
    store.start().unwrap();
    drop(store);
    assert_eq!(Lock::holder(dir.path()), None);
}

#[test]
fn without_an_engine_history_is_fetched_by_whoever_asks() {
    let exchange =
        Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).clock(T0).speed(0.0).start();
    let (dir, store) = built(&exchange, &["1m", "1H"]);
    let (btc, minute) = ("BTC-USDT".parse().unwrap(), "1m".parse().unwrap());
    assert_eq!(store.query().latest_candle(&btc, minute).unwrap(), None, "never synced");
    assert_eq!(store.detect_gaps(&btc).unwrap()[0].missing, 2 * 24 * 60);

    let fetched = store.sync_now(&btc).unwrap();
    assert!(fetched.iter().all(|series| series.done && series.missing == 0), "{fetched:?}");
    assert_equals(dir.path(), &exchange, &series("BTC-USDT", "1m"), 2, T0);
    assert_eq!(store.detect_gaps(&btc).unwrap()[0].missing, 0);
    let (_, market) = store.market_overview().unwrap().remove(0);
    assert!(market.unwrap().complete);

    let mut last = None;
    let fetched = store
        .backfill(&btc, minute, Wanted::Days(10), |progress| {
            last = Some(progress.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((fetched.wanted, fetched.missing), (10 * 24 * 60, 0));
    assert_eq!(last.map(|last| last.missing), Some(0), "its end was shown");
    let stopped =
        store.backfill(&btc, minute, Wanted::Days(20), |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(stopped, Error::Stopped) && stopped.remedy() == Remedy::Retry);

    let nobody = "NO-BODY".parse().unwrap();
    assert!(matches!(store.sync_now(&nobody), Err(Error::NotConfigured { .. })));
    assert!(matches!(store.query().latest_candle(&nobody, minute), Err(Error::Unknown { .. })));
    assert!(matches!(store.add_symbol(&nobody, &[]), Err(Error::NotListed { .. })));
}

#[test]
fn history_may_be_wanted_however_far() {
    let exchange =
        Exchange::builder().synthetic("BTC-USDT", Listed::days(3)).clock(T0).speed(0.0).start();
    let (dir, store) = built(&exchange, &["1H"]);
    let (btc, hour) = ("BTC-USDT".parse().unwrap(), "1H".parse().unwrap());
    let range = |start, end| Wanted::Range(Span::new(start, end));
    for wanted in [
        Wanted::Days(0),
        range(i64::MAX, i64::MIN),
        range(T0 + 9 * HOUR, i64::MAX),
        range(i64::MIN, 0),
        range(i64::MIN, i64::MIN),
        range(T0 - HOUR, i64::MAX),
        range(i64::MIN, i64::MAX),
        Wanted::Days(u32::MAX),
    ] {
        let fetched = store.backfill(&btc, hour, wanted, |_| ControlFlow::Continue(()));
        let fetched = fetched.unwrap_or_else(|error| panic!("{wanted:?}: {error}"));
        assert!(fetched.done && fetched.missing == 0, "{wanted:?}: {fetched:?}");
    }
    assert_equals(dir.path(), &exchange, &series("BTC-USDT", "1H"), 3, T0);
}

#[test]
fn a_store_of_nothing_starts_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::builder(dir.path()).rest_url("http://127.0.0.1:1").build().unwrap();
    let store = OkxLocalStore::with_config(config).unwrap();
    store.start().unwrap();
    assert!(store.status().instruments.is_empty());
    assert!(store.market_overview().unwrap().is_empty());
    let btc = "BTC-USDT".parse().unwrap();
    assert!(matches!(store.detect_gaps(&btc), Err(Error::Unknown { .. })));
    assert!(matches!(store.remove_symbol(&btc), Err(Error::NotConfigured { .. })));
    store.stop().unwrap();
    for no_folder in ["", "\0"] {
        assert!(Config::builder(no_folder).build().is_err(), "{no_folder:?} is a folder");
    }
}

#[test]
fn a_running_engine_fetches_for_all_who_ask() {
    let exchange = market(&["BTC-USDT"]).start();
    let (_dir, store) = built(&exchange, &["1m"]);
    let btc = "BTC-USDT".parse().unwrap();
    store.start().unwrap();
    thread::scope(|scope| {
        let asked = ["1m", "5m", "1H"].map(|bar| {
            let (store, btc) = (&store, &btc);
            let bar = bar.parse().unwrap();
            scope.spawn(move || {
                store.backfill(btc, bar, Wanted::Days(1), |_| ControlFlow::Continue(())).unwrap()
            })
        });
        for fetched in asked.map(|thread| thread.join().unwrap()) {
            assert!(fetched.done && fetched.missing == 0, "{fetched:?}");
        }
    });
    store.stop().unwrap();
}

#[test]
fn changes_go_into_the_file_that_was_opened_and_come_from_it() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let mut home = home(&exchange).instrument("BTC-USDT", "1s", 1);
    let store = OkxLocalStore::open(home.path("config.json")).unwrap();
    let (eth, second) = ("ETH-USDT".parse().unwrap(), "1s".parse().unwrap());
    store.add_symbol(&eth, &[second]).unwrap();
    let text = std::fs::read_to_string(home.path("config.json")).unwrap();
    assert!(text.contains("\"ETH-USDT\"") && text.contains("A remark that every edit keeps"));
    store.start().unwrap();
    let added = store.subscribe(&eth, second, Updates::Closed);
    next(&added);
    // Whoever edits the file by hand is noticed, too, as by a daemon.
    home.unlist("ETH-USDT");
    wait_for("the file to be read", || store.config().instruments.len() == 1);
    store.stop().unwrap();
}

#[test]
fn beside_a_daemon_it_reads_and_says_who_writes() {
    let exchange = market(&["BTC-USDT"]).start();
    let home: Home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let store = OkxLocalStore::open(home.path("config.json")).unwrap();
    let btc = "BTC-USDT".parse().unwrap();
    let mut live = Live::start(&home);
    live.streams("at first");
    assert!(store.query().latest_candle(&btc, "1m".parse().unwrap()).unwrap().is_some());
    let pid = live.running.pid();
    for refused in [store.start(), store.sync_now(&btc).map(drop)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Held { is_daemon: true, .. }), "{error}");
        assert!(error.to_string().contains(&format!("process {pid} keeps this store")), "{error}");
        assert_eq!(error.remedy(), Remedy::Mend);
    }
    live.stop("TERM");
    store.start().unwrap();
    // And the other way round: to a command the engine of a program is a daemon.
    let synced = home.run("sync --all").exits(0);
    assert_eq!(synced.row("BTC-USDT 1m")[2], "0");
    let refused = home.run("daemon").exits(1);
    refused.last_word(&format!("process {}", std::process::id()));
    store.stop().unwrap();
}

#[test]
fn many_threads_ask_at_once_while_it_writes() {
    let exchange = market(&["BTC-USDT"]).start();
    let (_dir, store) = built(&exchange, &["1s"]);
    let (btc, second) = ("BTC-USDT".parse().unwrap(), "1s".parse().unwrap());
    store.start().unwrap();
    let stored = || store.query().latest_candle(&btc, second).unwrap().is_some();
    wait_for("the first second", stored);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut newest = 0;
                for _ in 0..200 {
                    let candles = store.query().recent_candles(&btc, second, 50).unwrap();
                    assert!(candles.is_sorted_by(|a, b| a.ts < b.ts));
                    let last = candles.last().expect("because some are stored").ts;
                    assert!(last >= newest && last > START - HOUR);
                    newest = last;
                }
            });
        }
    });
    store.stop().unwrap();
}

/// What an example has printed.
fn printed(run: impl FnOnce(&mut dyn Write) -> Result<(), Box<dyn std::error::Error>>) -> String {
    let mut out = Vec::new();
    run(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_example_of_set_up_and_questions() {
    let exchange =
        Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).clock(T0).speed(0.0).start();
    let home = Home::of(&exchange).instrument("BTC-USDT", "1H 1Dutc", 3);
    let out = printed(|out| crate::basic::run(&home.path("config.json"), out));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "BTC-USDT 1H: 73 new bars");
    assert!(lines[2].starts_with("newest: 2024-05-01T00:00:00Z ") && lines[2].ends_with(")"));
    assert!(lines[3].starts_with("of the last 23 bars "), "{out}");
    assert_eq!(lines[6], "coverage: 100.00 %, 0 missing");
    assert!(lines[7].starts_with("2024-05-01T00:00:00Z: "), "{out}");
    assert!(lines[8].starts_with("24 rows in "), "{out}");
    assert_eq!(std::fs::read_to_string(home.path("basic.csv")).unwrap().lines().count(), 25);
}

#[test]
fn the_example_of_configuration_and_back_fill() {
    let exchange =
        Exchange::builder().synthetic("BTC-USDT", Listed::days(20)).clock(T0).speed(0.0).start();
    let dir = tempfile::tempdir().unwrap();
    let url = exchange.url();
    let out = printed(|out| crate::backfill::run(dir.path(), Some(&url), out));
    assert!(out.contains("0 of 168 bars to go\nBTC-USDT 1H: "), "{out}");
    assert!(out.contains("\nBTC-USDT 1Dutc: 30 of 30 missing\n  History: ["), "{out}");
    assert_equals(dir.path(), &exchange, &series("BTC-USDT", "1H"), 7, T0);
}

#[test]
fn the_example_of_monitoring() {
    let exchange = market(&["BTC-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1s", 1);
    let out = printed(|out| crate::monitor::run(&home.path("config.json"), 3, out));
    let closed = |line: &&str| line.starts_with("BTC-USDT 1s 2024-");
    assert_eq!(out.lines().filter(closed).count(), 3, "{out}");
    assert!(out.contains("\nBTC-USDT: ") && out.contains(" missing\n"), "{out}");
}
