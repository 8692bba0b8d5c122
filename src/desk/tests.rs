//! Real sockets, real threads, and a supervisor who is played by the test.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;

use crossbeam_channel::{SendTimeoutError, TrySendError};
use tempfile::TempDir;

use super::*;
use crate::request::ANSWER_BYTES_MAX;
use crate::thread::End;
use crate::view::View;
use crate::view::tests::sample;

/// Nothing is waited for longer; nothing takes a tenth of it.
const LATE_MS: Millis = 60_000;
const LATE: Duration = Duration::from_secs(60);

/// In the order in which its parts end: the desk needs its folder.
struct House {
    handle: Option<DeskHandle>,
    dir: TempDir,
    calls: Receiver<Call>,
    ends: Receiver<Exit>,
}

impl House {
    fn new() -> House {
        House::patient(PATIENCE_MS)
    }

    fn patient(patience_ms: Millis) -> House {
        let dir = tempfile::tempdir().unwrap();
        let (exits, ends) = bounded(THREADS);
        let desk = Desk { patience_ms, ..Desk::open(dir.path()).unwrap() };
        let (asked, calls) = bounded(CALLS_WAITING);
        let handle = desk.start(&exits, &asked).unwrap();
        House { handle: Some(handle), dir, calls, ends }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(socket_path(self.dir.path())).unwrap()
    }

    /// A client that has asked, and its call.
    fn ask(&self, name: &str) -> (Lines, Call) {
        // A desk with little patience may have sent it away before it has spoken.
        for _ in 0..LATE.as_secs() {
            let client = self.say(purge(name).encode().as_bytes());
            if let Ok(call) = self.calls.recv_timeout(Duration::from_secs(1)) {
                assert_eq!(call.request, purge(name));
                return (client, call);
            }
        }
        panic!("{name}: nobody calls");
    }

    fn say(&self, bytes: &[u8]) -> Lines {
        let mut stream = self.connect();
        // Whoever is refused at once hears no more.
        let _ = stream.write_all(bytes);
        Lines::new(stream)
    }

    /// Fails unless a client is served now or as soon as a clerk is free.
    fn assert_works(&self) {
        let patience = Deadline::after(LATE_MS);
        loop {
            let mut client = self.say(purge("SOL-USDT").encode().as_bytes());
            let answer = loop {
                // Either the desk brings it to us, now or later, or it sends it away.
                if let Ok(call) = self.calls.try_recv() {
                    call.answers.try_send(Answer::Purged).unwrap();
                }
                match client.read(ANSWER_BYTES_MAX, Deadline::after(20)) {
                    Ok(None) => assert!(patience.left().is_some(), "nobody answers"),
                    Ok(Some(line)) => break Some(Answer::decode(&line).unwrap()),
                    Err(LineError::Closed) => break None,
                    Err(error) => panic!("{error}"),
                }
            };
            match answer {
                Some(Answer::Purged) => return,
                // Sent away before it has spoken.
                None => {}
                answer => assert_eq!(answer, Some(Answer::Refused(BUSY.into()))),
            }
            assert!(patience.left().is_some(), "no clerk becomes free");
        }
    }
}

fn purge(name: &str) -> Request {
    Request::Purge { instrument: name.parse().unwrap() }
}

/// The next answer; nothing where the desk has hung up.
fn hear(client: &mut Lines) -> Option<Answer> {
    match client.read(ANSWER_BYTES_MAX, Deadline::after(LATE_MS)) {
        Ok(line) => Some(Answer::decode(&line.expect("because the desk answers")).unwrap()),
        Err(LineError::Closed) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until the desk has dropped a call, while it is told more and more.
fn assert_dropped(call: &Call, answer: &Answer) {
    loop {
        match call.answers.send_timeout(answer.clone(), LATE) {
            Ok(()) => {}
            Err(SendTimeoutError::Disconnected(_)) => return,
            Err(SendTimeoutError::Timeout(_)) => panic!("the call is not dropped"),
        }
    }
}

#[test]
fn two_clients_are_served_at_once() {
    let house = House::new();
    let (mut first, first_call) = house.ask("BTC-USDT");
    let (mut second, second_call) = house.ask("ETH-USDT");
    for pages in [1, 2] {
        for (client, call, pages) in
            [(&mut second, &second_call, pages), (&mut first, &first_call, pages + 10)]
        {
            let view = View { pages, ..sample() };
            call.answers.try_send(Answer::Progress(view.clone())).unwrap();
            assert_eq!(hear(client), Some(Answer::Progress(view)));
        }
    }
    first_call.answers.try_send(Answer::Done(sample())).unwrap();
    assert_eq!(hear(&mut first), Some(Answer::Done(sample())));
    assert_eq!(hear(&mut first), None, "after the last answer");
    second_call.answers.try_send(Answer::Refused("no".into())).unwrap();
    assert_eq!(hear(&mut second), Some(Answer::Refused("no".into())));
}

#[test]
fn the_supervisor_ends_a_call_by_dropping_it() {
    let house = House::new();
    let (mut client, call) = house.ask("BTC-USDT");
    drop(call);
    assert_eq!(hear(&mut client), None);
    house.assert_works();
}

#[test]
fn what_is_no_request_is_refused_and_harms_nobody() {
    let house = House::new();
    let endless = "x".repeat(REQUEST_BYTES_MAX + 1);
    for (name, line, expected) in [
        ("garbage", "\u{7f}\u{0}\n", "a line that nobody understands: "),
        ("another protocol", "GET / HTTP/1.1\r\n\r\n", "a line that nobody understands: "),
        ("another version", "{\"version\":9}\n", "version 9 is spoken on one side"),
        ("a line without end", endless.as_str(), "a line of more than 1048576 bytes"),
    ] {
        match hear(&mut house.say(line.as_bytes())) {
            Some(Answer::Refused(words)) => assert!(words.starts_with(expected), "{name}: {words}"),
            answer => panic!("{name}: {answer:?}"),
        }
    }
    drop(house.say(b"{\"version\":1,"));
    drop(house.connect());
    assert!(house.calls.is_empty());
    house.assert_works();
}

#[test]
fn whoever_says_nothing_is_sent_away() {
    let house = House::patient(20);
    for said in ["", "{\"version\":1"] {
        let mut client = house.say(said.as_bytes());
        assert_eq!(hear(&mut client), None, "{said:?}");
    }
    house.assert_works();
}

#[test]
fn a_hundred_connections_do_no_harm() {
    let house = House::patient(LATE_MS);
    let mut kept: Vec<UnixStream> = (0..100).map(|_| house.connect()).collect();
    let mut refused = 0;
    for stream in kept.drain(CLERKS..) {
        refused += usize::from(hear(&mut Lines::new(stream)) == Some(Answer::Refused(BUSY.into())));
    }
    assert_eq!(refused, 100 - CLERKS);
    drop(kept);
    house.assert_works();
}

#[test]
fn a_client_that_goes_away_ends_its_request() {
    let house = House::new();
    // With nothing to write: only a clerk who looks becomes free again.
    let served: Vec<(Lines, Call)> = (0..CLERKS).map(|_| house.ask("BTC-USDT")).collect();
    let (clients, calls): (Vec<Lines>, Vec<Call>) = served.into_iter().unzip();
    assert_eq!(hear(&mut house.say(b"")), Some(Answer::Refused(BUSY.into())));
    drop(clients);
    house.assert_works();
    for call in calls {
        assert_dropped(&call, &Answer::Progress(View::default()));
    }
}

#[test]
fn a_client_says_one_thing_only() {
    let house = House::new();
    let twice = purge("BTC-USDT").encode().repeat(2);
    let mut client = house.say(twice.as_bytes());
    let call = house.calls.recv_timeout(LATE).unwrap();
    assert_eq!(hear(&mut client), None);
    assert_dropped(&call, &Answer::Progress(View::default()));
    assert!(house.calls.is_empty());
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let house = House::patient(20);
    let (client, call) = house.ask("BTC-USDT");
    let line = sample().lines.remove(0);
    let long = View { lines: vec![line; 2_000], ..sample() };
    assert_dropped(&call, &Answer::Progress(long));
    drop(client);
    house.assert_works();
}

#[test]
fn all_ends_at_once_and_what_was_answered_is_heard() {
    let mut house = House::new();
    let (mut waiting, _unanswered) = house.ask("BTC-USDT");
    let (mut answered, call) = house.ask("ETH-USDT");
    let mut silent = Lines::new(house.connect());
    call.answers.try_send(Answer::Progress(sample())).unwrap();
    call.answers.try_send(Answer::Done(sample())).unwrap();
    house.handle = None;
    assert!(!socket_path(house.dir.path()).exists());
    assert_eq!(hear(&mut answered), Some(Answer::Progress(sample())));
    assert_eq!(hear(&mut answered), Some(Answer::Done(sample())));
    assert_eq!(hear(&mut waiting), None);
    assert_eq!(hear(&mut silent), None);
    assert!(house.calls.recv_timeout(LATE).is_err(), "nobody can call any more");
    let ends: Vec<Exit> =
        (0..THREADS).map(|_| house.ends.recv_timeout(LATE).expect("because it ends")).collect();
    assert!(ends.iter().all(|exit| exit.end == End::Done), "{ends:?}");
}

#[test]
fn a_socket_that_is_removed_is_made_again() {
    let house = House::new();
    let path = socket_path(house.dir.path());
    let (mut before, call) = house.ask("BTC-USDT");
    for _ in 0..2 {
        fs::remove_file(&path).unwrap();
        let patience = Deadline::after(LATE_MS);
        while UnixStream::connect(&path).is_err() {
            assert!(patience.left().is_some(), "the socket is not made again");
            std::thread::yield_now();
        }
        house.assert_works();
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    call.answers.try_send(Answer::Purged).unwrap();
    assert_eq!(hear(&mut before), Some(Answer::Purged), "who was served is served");
    let ends = house.ends.try_iter().map(|exit| exit.name);
    assert_eq!(ends.collect::<Vec<_>>(), ["desk-door"; 2], "the old doors are closed");
}

#[test]
fn a_socket_that_was_removed_keeps_nobody_waiting() {
    let mut house = House::new();
    fs::remove_file(socket_path(house.dir.path())).unwrap();
    let started = Deadline::after(LATE_MS);
    house.handle = None;
    assert!(started.left().is_some());
}

#[test]
fn the_socket_is_for_its_user_and_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(dir.path());
    // What a daemon that was killed leaves: a socket that refuses, and a folder.
    drop(UnixListener::bind(&path).unwrap());
    fs::create_dir(dir.path().join(".desk")).unwrap();
    drop(UnixListener::bind(dir.path().join(".desk").join("s")).unwrap());
    assert!(UnixStream::connect(&path).is_err());

    let desk = Desk::open(dir.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["daemon.sock"]);
    let mut early = UnixStream::connect(&path).unwrap();
    drop(desk);
    assert!(!path.exists());
    assert_eq!(early.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_desk_that_cannot_be_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(120));
    fs::create_dir(&deep).unwrap();
    let error = Desk::open(&deep).unwrap_err().to_string();
    assert!(
        error.ends_with("bytes are too long for the path of a socket: choose a shorter data_dir")
    );
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);

    let path = socket_path(dir.path());
    fs::write(&path, "mine").unwrap();
    let error = Desk::open(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("daemon.sock is no socket: move it elsewhere"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");

    let error = Desk::open(&dir.path().join("nowhere")).unwrap_err().to_string();
    assert!(error.contains("daemon.sock: cannot listen: "), "{error}");
}

#[test]
fn the_supervisor_never_waits() {
    let house = House::new();
    let (_client, call) = house.ask("BTC-USDT");
    // However fast it tells, it is told at once that there is no room, and can leave a view out.
    let line = sample().lines.remove(0);
    let long = Answer::Progress(View { lines: vec![line; 2_000], ..sample() });
    let full =
        (0..100).any(|_| matches!(call.answers.try_send(long.clone()), Err(TrySendError::Full(_))));
    assert!(full);
}
