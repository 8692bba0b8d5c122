//! The life of a daemon as a process: how it ends, what it outlives, and that there is one.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use okx_local_store::backoff::Random;

use crate::exchange::{Endpoint, Exchange, Fault, Script, StreamFault};
use crate::live::{Live, Truth, home, market};
use crate::process::{Home, Running};

/// What is left of a daemon that had time: neither logs nor a socket.
fn assert_tidy(home: &Home) {
    let names = fs::read_dir(home.data_dir()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> =
        names.filter(|name| name.ends_with("-wal") || name.ends_with(".sock")).collect();
    assert_eq!(left, Vec::<String>::new());
}

fn two(exchange: &Exchange) -> Home {
    home(exchange).instrument("BTC-USDT", "1m 3m 1H", 1).instrument("ETH-USDT", "1m 5m", 1)
}

/// The same with bars that close while the test looks.
fn quick(exchange: &Exchange) -> Home {
    home(exchange).instrument("BTC-USDT", "1s 1m 1H", 1).instrument("ETH-USDT", "1s 5m", 1)
}

#[test]
fn either_signal_ends_it_with_everything_on_disk() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = quick(&exchange);
    for signal in ["TERM", "INT"] {
        let mut live = Live::start(&home);
        live.streams("from the start");
        live.comes_to(&Truth::of(&exchange, &home), "while it runs");
        let truth = Truth::of(&exchange, &home);
        live.comes_to(&truth, "that were closed meanwhile");
        let stopped = live.stop(signal);
        assert!(stopped.err.ends_with("daemon stopped\n"), "{}", stopped.err);
        assert_tidy(&home);
        truth.assert_in(&home);
        exchange.wait_for(|stats| stats.open() == 0, Duration::from_secs(20), "its good-bye");
        let status = home.run("status --json").exits(0).json();
        assert_eq!(status["daemon"]["running"], false);
        assert_eq!(status["instruments"][0]["series"][0]["missing"], 0, "{status}");
    }
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_a_second_one_for_nothing() {
    // Who connects gets no answer, not even to the handshake.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = hole.local_addr().unwrap();
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let lost = two(&exchange)
        .key("rest_url", &format!("\"http://{address}\""))
        .key("ws_url", &format!("\"ws://{address}\""));
    let mut live = Live::start(&lost);
    live.wait("the attempt to connect", |seen| seen.stream.wanted == 5 && seen.rest.requests > 0);
    live.running.signal("TERM");
    live.running.wait_for("stopping");
    live.running.signal("TERM");
    // Without the second signal it would be more than ten.
    live.running.wait_within(Duration::from_secs(5)).exits(0);

    let home = two(&exchange);
    let mut live = Live::start(&home);
    live.streams("from the start");
    let truth = Truth::of(&exchange, &home);
    live.comes_to(&truth, "before anything stalls");
    exchange.set_faults(vec![Script::always(Fault::Stall(60_000))]);
    exchange.strike(StreamFault::HalfOpen);
    let asked = exchange.requests().len();
    live.wait("a poll that stalls", |_| exchange.requests().len() > asked);
    live.running.signal("INT");
    live.running.wait_for("stopping");
    live.running.signal("INT");
    live.running.wait_within(Duration::from_secs(5)).exits(0);
    truth.assert_in(&home);
    exchange.set_faults(Vec::new());
    exchange.heal();
    let mut live = Live::start(&home);
    live.streams("again");
    live.comes_to(&Truth::of(&exchange, &home), "after the next start");
    live.stop("TERM");
    assert_tidy(&home);
}

#[test]
fn it_outlives_its_terminal() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    for closed in [r#"exec "$0" "$@" <&- >&- 2>&-"#, r#"exec nohup "$0" "$@" </dev/null"#] {
        let home = two(&exchange);
        let daemon = Running::new(home.shell(closed, "daemon"), closed);
        let mut live = Live::of(&home, daemon);
        live.streams("without a terminal");
        live.running.signal("HUP");
        live.comes_to(&Truth::of(&exchange, &home), "without a terminal");
        live.stop("TERM");
        let log = fs::read_to_string(home.path("logs/okx-store.log")).unwrap();
        assert!(log.contains("config taken in, instruments: 2"), "{log}");
        assert!(log.ends_with("daemon stopped\n"), "{log}");
        assert!(fs::read_to_string(home.path("logs/websocket.log")).unwrap().contains("stands"));
    }
    // A terminal that goes away while it runs is a pipe that nobody reads any more.
    let home = two(&exchange);
    let mut command = home.command("daemon -v");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let truth = Truth::of(&exchange, &home);
    exchange.wait_until("the store of a daemon that nobody hears", || {
        assert_eq!(child.try_wait().unwrap(), None);
        truth.difference(&home.data_dir()).is_none()
    });
    let kill = |signal: &str| {
        let script = format!("kill -{signal} {}", child.id());
        std::process::Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
    };
    kill("HUP");
    kill("TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    truth.assert_in(&home);
}

/// The terminal of its session is closed while it runs, as by who logs out.
#[cfg(target_os = "linux")]
#[test]
fn it_outlives_the_end_of_its_session() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = two(&exchange);
    // A process that inherits it would keep it open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).unwrap();
    let end = || Stdio::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
    let mut command = home.shell(r#"exec setsid -c nohup "$0" "$@""#, "daemon");
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // What it holds of the terminal would keep that open.
    drop(command);
    let log = || fs::read_to_string(home.path("logs/okx-store.log")).unwrap_or_default();
    exchange.wait_until("a daemon with a terminal", || log().contains(" stands\n"));
    drop(terminal);
    exchange.wait_until("the hangup", || log().contains("config taken in"));
    let truth = Truth::of(&exchange, &home);
    exchange.wait_until("the store of a daemon without its terminal", || {
        assert_eq!(child.try_wait().unwrap(), None, "{}", log());
        truth.difference(&home.data_dir()).is_none()
    });
    let script = format!("kill -TERM {}", child.id());
    std::process::Command::new("/bin/sh").args(["-c", &script]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(log().ends_with("daemon stopped\n"), "{}", log());
    truth.assert_in(&home);
}

#[test]
fn a_second_one_is_refused_and_a_command_is_served() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = two(&exchange);
    let mut live = Live::start(&home);
    let pid = live.running.pid();
    let refused = home.start("daemon").wait_within(Duration::from_secs(8)).exits(1);
    refused.last_word(&format!("a daemon is running here already: process {pid}"));
    live.streams("from the start");
    let synced = home.run("sync --all").exits(0);
    assert_eq!(synced.row("ETH-USDT 5m")[2], "0", "{}", synced.out);
    home.run("backfill BTC-USDT 15m --days 1").exits(0);
    home.run("gaps --fill").exits(0);
    assert!(home.count("BTC-USDT", "candles_15m") >= 1);
    let status = home.run("status --json").exits(0).json();
    assert_eq!(status["daemon"]["pid"], pid);
    assert_eq!(status["websocket"]["connected"], true, "{status}");
    live.comes_to(&Truth::of(&exchange, &home), "beside commands");
    live.stop("TERM");
    home.run("sync --all").exits(0);
}

#[test]
fn a_daemon_killed_at_any_moment_is_followed_by_one_that_makes_it_good() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = quick(&exchange);
    let mut random = Random::new(5);
    for round in 0..6 {
        let mut live = Live::start(&home);
        let (pushes, pages) = (exchange.pushes(), exchange.count(Endpoint::History));
        let (more, other) = (random.below(40), random.below(4) as usize);
        // The exchange takes no more than three connections a second, from whatever process.
        let spared = exchange.now() + 400;
        live.wait(&format!("the moment of kill {round}"), |_| {
            let pages = exchange.count(Endpoint::History) - pages;
            exchange.now() > spared && (exchange.pushes() > pushes + more || pages > other)
        });
        live.running.kill();
        crate::crash::assert_sound(&home);
    }
    let mut live = Live::start(&home);
    live.streams("after the last kill");
    live.comes_to(&Truth::of(&exchange, &home), "after all kills");
    // The socket of those that were killed is in nobody's way.
    home.run("sync --all").exits(0);
    live.stop("TERM");
    crate::crash::assert_sound(&home);
    assert_tidy(&home);
}

#[test]
fn it_starts_and_stays_without_its_exchange() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = two(&exchange);
    home.run("sync --all").exits(0);
    exchange.stop();
    let mut live = Live::start(&home);
    let seen = live.wait("both errors", |seen| {
        seen.stream.last_error.is_some() && seen.rest.last_error.is_some()
    });
    assert!(!seen.stream.connected && seen.instruments.iter().all(|view| view.mode == "poll"));
    home.run("query BTC-USDT 1m").exits(0);
    home.run("status").exits(0);
    home.run("websocket status").exits(0);
    exchange.resume();
    live.streams("when the exchange is back");
    live.comes_to(&Truth::of(&exchange, &home), "when the exchange is back");
    exchange.stop();
    live.wait("the loss", |seen| !seen.stream.connected);
    live.stop("INT");
    assert_tidy(&home);
}

#[test]
fn a_process_that_was_frozen_catches_up() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = quick(&exchange);
    let mut live = Live::start(&home);
    live.streams("from the start");
    live.comes_to(&Truth::of(&exchange, &home), "before");
    live.running.signal("STOP");
    let end = exchange.now() + 6_000;
    exchange.wait_until("some seconds", || exchange.now() > end);
    let truth = Truth::of(&exchange, &home);
    live.running.signal("CONT");
    live.comes_to(&truth, "of the time in between");
    live.streams("when it is awake");
    live.stop("TERM");
}
