//! Commands beside a daemon: the real program, and a desk behind which the test stands.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use okx_local_store::control::Control;
use okx_local_store::coverage::Tally;
use okx_local_store::crew::Wishes;
use okx_local_store::desk::{CALLS_WAITING, Call, Desk, DeskHandle, THREADS};
use okx_local_store::engine::{self, Setup};
use okx_local_store::http::{Http, HttpOptions};
use okx_local_store::lock::Lock;
use okx_local_store::plan::Wanted;
use okx_local_store::request::{Answer, Request};
use okx_local_store::store::Identity;
use okx_local_store::thread::Exit;
use okx_local_store::time::Now;
use okx_local_store::view::{LineView, View};

use crate::exchange::{Builder, Exchange, Listed};
use crate::mirror::series;
use crate::process::{Home, Running, T0};

/// The longest that a test waits for a call.
const LATE: Duration = Duration::from_secs(120);

/// What of a daemon a command gets to see. It ends in this order.
struct Front {
    _handle: DeskHandle,
    lock: Lock,
    calls: Receiver<Call>,
    _ends: Receiver<Exit>,
}

impl Front {
    fn of(home: &Home) -> Front {
        let lock = Lock::take(&home.data_dir()).unwrap();
        let (exits, ends) = bounded(THREADS);
        let (asked, calls) = bounded(CALLS_WAITING);
        let handle = Desk::open(&home.data_dir()).unwrap().start(&exits, &asked).unwrap();
        Front { _handle: handle, lock, calls, _ends: ends }
    }

    fn call(&self) -> Call {
        self.calls.recv_timeout(LATE).expect("because a command calls")
    }

    /// Does what the first call wants, as a daemon would, and ends with it.
    fn serve(self, setup: Setup) -> JoinHandle<Vec<(String, Wanted)>> {
        thread::spawn(move || {
            let Call { request: Request::Fill { wanted }, answers } = self.call() else {
                panic!("the command wants something else")
            };
            let http = Http::new(&setup.http).unwrap();
            let watch = &mut |control: &Control, now: Now| {
                let _ = answers.try_send(Answer::Progress(View::of(control, now)));
            };
            let run = engine::run_under(self.lock, &http, &setup, Wishes::Signals, &wanted, watch)
                .unwrap();
            let view = View::of(&run.control, run.now);
            answers.send_timeout(Answer::Done(view), LATE).unwrap();
            wanted.into_iter().map(|(series, wanted)| (series.to_string(), wanted)).collect()
        })
    }
}

fn setup(home: &Home, exchange: &Exchange) -> Setup {
    Setup {
        data_dir: home.data_dir(),
        identity: Identity { venue: "okx", region: "global".into(), demo: false },
        http: HttpOptions {
            base_url: exchange.url(),
            ca_file: None,
            sandbox: false,
            credentials: None,
        },
        workers: 3,
        rate_limit_per_minute: 0,
        commit_interval_ms: 100,
    }
}

fn market() -> Builder {
    let builder = Exchange::builder().clock(T0).speed(0.0);
    builder.synthetic("BTC-USDT", Listed::days(20)).synthetic("ETH-USDT", Listed::days(20))
}

/// Two days of two instruments.
fn home(exchange: &Exchange) -> Home {
    Home::of(exchange).instrument("BTC-USDT", "1m 1H", 2).instrument("ETH-USDT", "5m", 2)
}

/// The lines in an order that does not depend on which series was done first.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort();
    lines
}

/// The lines that do not tell the time: it is not quite the same for both.
fn timeless(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.contains("\"now")).collect()
}

#[test]
fn a_command_beside_a_daemon_says_and_exits_as_one_alone() {
    for (words, code, expected) in [
        ("sync --all", 0, &["BTC-USDT 1m", "BTC-USDT 1H", "ETH-USDT 5m"][..]),
        ("sync ETH-USDT", 0, &["ETH-USDT 5m"]),
        ("backfill BTC-USDT 15m --days 3", 0, &["BTC-USDT 15m"]),
        ("backfill BTC-USDT 15m --start 2024-04-30", 0, &["BTC-USDT 15m"]),
        ("gaps BTC-USDT 1H --fill", 0, &["BTC-USDT 1H"]),
        ("gaps --fill --json", 0, &["BTC-USDT 1m", "BTC-USDT 1H", "ETH-USDT 5m"]),
        ("backfill NOPE-USDT 1H --days 1", 1, &["NOPE-USDT 1H"]),
    ] {
        let exchange = market().start();
        let alone = home(&exchange).run(words).exits(code);
        let exchange = market().start();
        let home = home(&exchange);
        let served = Front::of(&home).serve(setup(&home, &exchange));
        let beside = home.run(words).exits(code);
        let asked: Vec<String> = served.join().unwrap().into_iter().map(|(it, _)| it).collect();
        assert_eq!(asked, expected, "{words}");
        assert_eq!(sorted(&beside.err), sorted(&alone.err), "{words}");
        assert_eq!(timeless(&beside.out), timeless(&alone.out), "{words}");
    }
}

#[test]
fn a_command_that_is_interrupted_ends_and_is_forgotten() {
    let exchange = market().start();
    let home = home(&exchange);
    let front = Front::of(&home);
    let client = home.start("sync ETH-USDT");
    let call = front.call();
    let view = halfway();
    call.answers.send_timeout(Answer::Progress(view.clone()), LATE).unwrap();
    client.wait_for("ETH-USDT 5m            complete");
    client.signal("INT");
    while call.answers.send_timeout(Answer::Progress(view.clone()), LATE).is_ok() {}
    let client = client.wait().exits(1);
    client.last_word(
        "okx-store: stopped with 0 bars missing; the next sync, or a daemon, goes on from here",
    );
    assert!(client.out.contains("ETH-USDT 5m"), "{}", client.out);
}

#[test]
fn a_daemon_that_dies_fails_the_command() {
    let exchange = market().start();
    let home = home(&exchange);
    let front = Front::of(&home);
    let client = home.start("sync ETH-USDT");
    let call = front.call();
    call.answers.send_timeout(Answer::Progress(halfway()), LATE).unwrap();
    client.wait_for("ETH-USDT 5m            complete");
    drop((call, front));
    client.wait().exits(1).last_word("the daemon has ended before this was done");
}

#[test]
fn a_daemon_that_is_about_to_end_leaves_the_work_to_the_command() {
    let exchange = market().start();
    let home = home(&exchange);
    let front = Front::of(&home);
    let client = home.start("sync --all");
    drop(front.call());
    drop(front);
    client.wait().exits(0);
    home.assert_equals(&exchange);
}

/// A daemon that is to delete an instrument, the command that wants it, and its call.
fn purging(home: &Home) -> (Front, Running, Call) {
    home.run("sync --all").exits(0);
    let front = Front::of(home);
    let client = home.start("remove-symbol ETH-USDT --purge");
    let call = front.call();
    (front, client, call)
}

#[test]
fn a_daemon_deletes_what_is_purged() {
    let exchange = market().start();
    let home = home(&exchange);
    let (_front, client, call) = purging(&home);
    let instrument = "ETH-USDT".parse().unwrap();
    assert_eq!(call.request, Request::Purge { instrument });
    assert!(home.data_dir().join("ETH-USDT.db").exists());
    let config = std::fs::read_to_string(home.path("config.json")).unwrap();
    assert!(!config.contains("ETH-USDT"), "{config}");
    call.answers.send_timeout(Answer::Purged, LATE).unwrap();
    let client = client.wait().exits(0);
    assert!(client.out.ends_with("ETH-USDT.db deleted\n"), "{}", client.out);
}

#[test]
fn a_daemon_that_says_nothing_is_told_of_once_and_waited_for() {
    let exchange = market().start();
    let home = home(&exchange);
    let (_front, client, call) = purging(&home);
    let pid = std::process::id();
    let told = format!("the daemon, process {pid}, has not answered for 5 s: waiting up to 60 s");
    client.wait_for(&told);
    call.answers.send_timeout(Answer::Refused("not now".into()), LATE).unwrap();
    let client = client.wait().exits(1);
    assert_eq!(client.err.matches("has not answered").count(), 1, "{}", client.err);
    assert!(client.out.contains("ETH-USDT removed from"), "{}", client.out);
    let stays = "ETH-USDT.db is still there: the same command again deletes it\n";
    assert!(client.err.contains(stays), "{}", client.err);
}

/// One series that is done, of work that is not.
fn halfway() -> View {
    let line = LineView {
        series: series("ETH-USDT", "5m"),
        closed: 576,
        revised: 0,
        stored: 576,
        tally: Tally { wanted: 576, ..Tally::default() },
        unconfirmed: 0,
        done: true,
        error: None,
    };
    View { lines: vec![line], ..View::default() }
}
