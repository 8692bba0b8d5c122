//! Commands beside a daemon that is played by the test: a lock, a real desk, and a script.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::*;
use crate::cli::outcome::Exit;
use crate::cli::progress::Screen;
use crate::cli::symbols::remove;
use crate::cli::sync::sync;
use crate::config::{Config, Environment};
use crate::control::Hold;
use crate::coverage::Tally;
use crate::desk::{CALLS_WAITING, Call, Desk, DeskHandle, THREADS};
use crate::engine::Setup;
use crate::http::HttpOptions;
use crate::instrument::Series;
use crate::lines::socket_path;
use crate::plan::Wanted;
use crate::store::{Identity, file_path};
use crate::thread::Exit as End;
use crate::view::LineView;

/// Nothing is waited for longer; nothing takes a tenth of it.
const LATE: Duration = Duration::from_secs(60);

/// A daemon in a folder, which ends in this order.
struct House {
    handle: Option<DeskHandle>,
    lock: Option<Lock>,
    calls: Receiver<Call>,
    _ends: Receiver<End>,
    dir: TempDir,
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let (exits, ends) = bounded(THREADS);
        let (asked, calls) = bounded(CALLS_WAITING);
        let handle = Desk::open(dir.path()).unwrap().start(&exits, &asked).unwrap();
        House { handle: Some(handle), lock: Some(lock), calls, _ends: ends, dir }
    }

    fn setup(&self) -> Setup {
        Setup {
            data_dir: self.dir.path().to_owned(),
            identity: Identity { venue: "okx", region: "global".into(), demo: false },
            http: HttpOptions {
                base_url: "http://127.0.0.1:9".into(),
                ca_file: None,
                sandbox: false,
                credentials: None,
            },
            workers: 1,
            rate_limit_per_minute: 0,
            commit_interval_ms: 100,
        }
    }

    /// Answers the next call with these and drops it; gives its request.
    fn script(&self, answers: Vec<Answer>) -> JoinHandle<Request> {
        let calls = self.calls.clone();
        std::thread::spawn(move || {
            let call = calls.recv_timeout(LATE).expect("because a client calls");
            for answer in answers {
                call.answers.send_timeout(answer, LATE).expect("because the client listens");
            }
            call.request
        })
    }

    /// Runs `sync` for the series of these views; gives its exit or failure and what it wrote.
    fn sync(&self, view: &View) -> (Result<Exit, Failure>, String, String) {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let wanted = wanted(view);
        let result = sync(&self.setup(), &wanted, &Screen::default(), &mut out, &mut notes);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    fn daemon(&self) -> Daemon {
        match Gate::new(self.dir.path()).unwrap().pass().unwrap() {
            Writer::Daemon(daemon) => daemon,
            Writer::Here(_) => panic!("the daemon has the lock"),
        }
    }
}

fn wanted(view: &View) -> Vec<(Series, Wanted)> {
    view.lines.iter().map(|line| (line.series.clone(), Wanted::Days(7))).collect()
}

fn fill(view: &View) -> Request {
    Request::Fill { wanted: wanted(view) }
}

fn line(name: &str, closed: u64, missing: i64) -> LineView {
    let bar = "1H".parse().unwrap();
    LineView {
        series: Series { instrument: name.parse().unwrap(), bar },
        closed,
        revised: 0,
        stored: 168 - missing,
        tally: Tally { wanted: 168, missing, ..Tally::default() },
        unconfirmed: 0,
        done: missing == 0,
        error: None,
    }
}

/// A run of two series on its way, and at its end.
fn course() -> (View, View) {
    let view = View { pages_per_minute: 540.0, pages: 1, ..View::default() };
    let halfway = View {
        lines: vec![line("BTC-USDT", 168, 0), line("ETH-USDT", 0, 168)],
        wait: Some((2_000, Hold::Budget)),
        ..view.clone()
    };
    let lines = vec![line("BTC-USDT", 168, 0), line("ETH-USDT", 168, 0)];
    let end = View { lines, pages: 2, finished: true, ..view };
    (halfway, end)
}

const TABLE: &str = "\
series       new bars  stored  missing
BTC-USDT 1H       168     168        0
ETH-USDT 1H       168     168        0
";

#[test]
fn what_a_daemon_does_is_told_as_if_it_were_done_here() {
    let house = House::new();
    let (halfway, end) = course();
    let served = house.script(vec![Answer::Progress(halfway), Answer::Done(end.clone())]);
    let (result, out, notes) = house.sync(&end);
    assert_eq!(result.unwrap(), Exit::Done);
    assert_eq!((out.as_str(), notes.as_str()), (TABLE, ""));
    assert_eq!(served.join().unwrap(), Request::Fill { wanted: wanted(&end) });
}

#[test]
fn what_went_wrong_there_is_told_and_fails_here() {
    let (halfway, end) = course();
    let mut failed = end.clone();
    failed.lines[1].error = Some("51001: there is no such instrument".into());
    let gave_up = View { gave_up: Some("it is down".into()), ..halfway.clone() };
    let stopped = View { stopped: true, ..halfway };
    for (view, expected) in [
        (failed, "okx-store: ETH-USDT 1H: 51001: there is no such instrument\n"),
        (gave_up, "okx-store: gave up: it is down\n"),
        (
            stopped,
            "okx-store: stopped with 168 bars missing; the next sync, or a daemon, goes on \
             from here\n",
        ),
    ] {
        let house = House::new();
        let served = house.script(vec![Answer::Done(view.clone())]);
        let (result, out, notes) = house.sync(&view);
        assert_eq!((result.unwrap(), notes.as_str()), (Exit::Failed, expected));
        assert!(out.contains("BTC-USDT 1H       168     168        0\n"), "{out}");
        served.join().unwrap();
    }
}

#[test]
fn a_refusal_is_told_in_the_daemons_words() {
    let (halfway, end) = course();
    for answers in [vec![], vec![Answer::Progress(halfway)]] {
        let house = House::new();
        let refused = Answer::Refused("not now: the disk is full".into());
        let served = house.script([answers, vec![refused]].concat());
        let (result, out, _) = house.sync(&end);
        let failure = result.unwrap_err();
        assert_eq!(failure.to_string(), "not now: the disk is full");
        assert_eq!((failure.exit(), out.as_str()), (Exit::Failed, ""));
        served.join().unwrap();
    }
}

#[test]
fn a_daemon_that_dies_on_the_way_fails_the_command() {
    let house = House::new();
    let (halfway, end) = course();
    let served = house.script(vec![Answer::Progress(halfway)]);
    let failure = house.sync(&end).0.unwrap_err();
    assert!(failure.to_string().starts_with("the daemon has ended before"), "{failure}");
    assert_eq!(failure.exit(), Exit::Failed);
    served.join().unwrap();
}

/// One that was just about to end has not begun with it: then the lock is waited for as ever.
#[test]
fn a_daemon_that_ends_before_it_answers_leaves_the_work_to_the_command() {
    let mut house = House::new();
    let mut gate = Gate::new(house.dir.path()).unwrap();
    let Writer::Daemon(daemon) = gate.pass().unwrap() else { panic!("the daemon has the lock") };
    let served = house.script(Vec::new());
    assert!(daemon.fetch(&fill(&course().1), &mut |_| ()).unwrap().is_none());
    served.join().unwrap();

    let Writer::Daemon(daemon) = gate.pass().unwrap() else { panic!("the daemon has the lock") };
    house.handle = None;
    assert!(!daemon.purge(&"BTC-USDT".parse().unwrap()).unwrap());
    house.lock = None;
    assert!(matches!(gate.pass().unwrap(), Writer::Here(_)));
}

#[test]
fn a_daemon_that_is_beginning_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let _lock = Lock::take(dir.path()).unwrap();
    // What the last one left, when it was killed.
    drop(UnixListener::bind(socket_path(dir.path())).unwrap());
    let mut gate = Gate::new(dir.path()).unwrap();
    let waiting = std::thread::spawn(move || gate.pass().map(|it| matches!(it, Writer::Daemon(_))));
    let _desk = Desk::open(dir.path()).unwrap();
    assert!(waiting.join().unwrap().unwrap());
}

#[test]
fn without_a_daemon_it_is_the_lock_that_counts() {
    let dir = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(socket_path(dir.path())).unwrap());
    let lock = match Gate::new(dir.path()).unwrap().pass().unwrap() {
        Writer::Here(lock) => lock,
        Writer::Daemon(_) => panic!("there is none"),
    };
    let patience = Some(Deadline::after(1));
    let mut gate = Gate { patience, ..Gate::new(dir.path()).unwrap() };
    let error = gate.pass().unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    assert_eq!(error.exit(), Exit::Failed);
    drop(lock);
}

#[test]
fn whoever_has_had_enough_is_forgotten_by_the_daemon() {
    let house = House::new();
    let (halfway, _) = course();
    let mut daemon = house.daemon();
    let client = std::thread::spawn(move || {
        let request = Request::Fill { wanted: wanted(&course().1) };
        let first = daemon.ask(&request).unwrap().expect("because the daemon answers");
        let (stop, stops) = bounded(1);
        let mut seen = Vec::new();
        let end = daemon.follow(first, &stops, &mut |view| {
            seen.push(view.stopped);
            let _ = stop.try_send(Signal::Stop);
        });
        (end, seen)
    });
    let call = house.calls.recv_timeout(LATE).unwrap();
    while call.answers.send_timeout(Answer::Progress(halfway.clone()), LATE).is_ok() {}
    let (end, seen) = client.join().unwrap();
    assert_eq!(end.unwrap(), View { stopped: true, ..halfway });
    assert_eq!(seen, [false, true]);
}

#[test]
fn nothing_is_shown_that_comes_after_the_user_has_had_enough() {
    let house = House::new();
    let (halfway, _) = course();
    let mut daemon = house.daemon();
    let (stop, stops) = bounded(1);
    let client = std::thread::spawn(move || {
        let request = Request::Fill { wanted: wanted(&course().1) };
        let first = daemon.ask(&request).unwrap().expect("because the daemon answers");
        let mut seen = Vec::new();
        daemon.follow(first, &stops, &mut |view| seen.push(view.stopped)).unwrap();
        seen
    });
    let call = house.calls.recv_timeout(LATE).unwrap();
    call.answers.send_timeout(Answer::Progress(halfway.clone()), LATE).unwrap();
    stop.send(Signal::Stop).unwrap();
    while call.answers.send_timeout(Answer::Progress(halfway.clone()), LATE).is_ok() {}
    let seen = client.join().unwrap();
    assert_eq!(seen, [false, true]);
}

#[test]
fn what_is_no_daemon_is_told_of() {
    for (said, expected) in [
        ("SSH-2.0-OpenSSH_9.6\n", Some("the daemon's answer: a line that nobody understands")),
        ("{\"version\":2}\n", Some("the daemon's answer: version 2 is spoken on one side")),
        ("{\"version\":1,\"answer\":\"purged\"}\n", Some("the daemon's answer: a line that")),
        ("{\"version\":1,", None),
        ("", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_path(dir.path())).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 16]);
            stream.write_all(said.as_bytes()).unwrap();
        });
        let daemon = Daemon::new(Lines::connect(dir.path()).unwrap(), None);
        let result = daemon.fetch(&fill(&course().1), &mut |_| ());
        match expected {
            Some(words) => {
                let error = result.unwrap_err().to_string();
                assert!(error.starts_with(words), "{said}: {error}");
            }
            None => assert!(result.unwrap().is_none(), "{said}"),
        }
        served.join().unwrap();
    }
}

/// A configuration of two instruments in a folder, and the file of one.
fn configured(house: &House) -> Config {
    let folder = house.dir.path();
    let file = folder.join("config.json");
    let text = r#"{"data_dir": ".", "instruments": [{"symbol": "A-B"}, {"symbol": "C-D"}]}"#;
    fs::write(&file, text).unwrap();
    fs::write(file_path(folder, &"A-B".parse().unwrap()), "bars").unwrap();
    let environment = Environment { folder: folder.to_owned(), ..Environment::default() };
    Config::load_in(&environment, Some(&file), None).unwrap()
}

#[test]
fn a_purge_edits_first_and_leaves_the_file_to_the_daemon() {
    let house = House::new();
    let (config, instrument) = (configured(&house), "A-B".parse::<Instrument>().unwrap());
    let path = file_path(house.dir.path(), &instrument);
    let (calls, file, bars) = (house.calls.clone(), config.file.clone(), path.clone());
    let served = std::thread::spawn(move || {
        let call = calls.recv_timeout(LATE).expect("because a client calls");
        let edited = !fs::read_to_string(file).unwrap().contains("A-B");
        let kept = bars.exists();
        fs::remove_file(bars).unwrap();
        call.answers.send_timeout(Answer::Purged, LATE).unwrap();
        (call.request, edited, kept)
    });
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let exit = remove(&house.setup(), &config, &instrument, true, &mut out, &mut notes).unwrap();
    let told = format!("A-B removed from {}\n{} deleted\n", config.file.display(), path.display());
    assert_eq!((exit, String::from_utf8(out).unwrap(), notes.len()), (Exit::Done, told, 0));
    assert_eq!(served.join().unwrap(), (Request::Purge { instrument }, true, true));
}

#[test]
fn a_purge_that_is_refused_fails_and_can_be_asked_for_again() {
    let mut house = House::new();
    let (config, instrument) = (configured(&house), "A-B".parse::<Instrument>().unwrap());
    let path = file_path(house.dir.path(), &instrument);
    let served = house.script(vec![Answer::Refused("not now".into())]);
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let refused = remove(&house.setup(), &config, &instrument, true, &mut out, &mut notes);
    assert_eq!(refused.unwrap_err().to_string(), "not now");
    assert!(path.exists());
    served.join().unwrap();

    (house.handle, house.lock) = (None, None);
    let environment = Environment::default();
    let config = Config::load_in(&environment, Some(&config.file), None).unwrap();
    remove(&house.setup(), &config, &instrument, true, &mut out, &mut notes).unwrap();
    assert!(!path.exists());
}
