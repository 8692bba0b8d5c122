//! The writer as a thread, with real files: what it tells, and what it does when files fail.

use std::fs;
use std::path::PathBuf;

use crossbeam_channel::{SendTimeoutError, bounded};
use rusqlite::Connection;

use super::*;
use crate::candle::Candle;
use crate::store::read::Reader;
use crate::store::sample::{BASE, candle, page};
use crate::store::{Identity, file_path};
use crate::thread::{self, Exit};

/// A writer in a folder of its own.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    clock: Arc<Clock>,
    orders: Option<Sender<Order>>,
    receipts: Receiver<Receipt>,
    hurry: Arc<AtomicBool>,
    ends: Receiver<Exit>,
}

pub(super) fn identity() -> Identity {
    Identity { venue: "okx", region: "global".into(), demo: false }
}

pub(super) fn series(name: &str) -> Series {
    Series { instrument: name.parse().unwrap(), bar: "1m".parse().unwrap() }
}

pub(super) fn bar(minute: i64, close: f64, confirmed: bool) -> Candle {
    candle(BASE + minute * MINUTE, close, confirmed)
}

impl Bench {
    fn start(patient: bool) -> Bench {
        Bench::start_in(tempfile::tempdir().unwrap(), patient)
    }

    pub(super) fn start_in(dir: tempfile::TempDir, patient: bool) -> Bench {
        let files = Files::new(dir.path(), identity());
        Bench::start_with(dir, files, patient)
    }

    /// Starts it with files of which some may be open.
    pub(super) fn start_with(dir: tempfile::TempDir, files: Files, patient: bool) -> Bench {
        let (orders, heard) = bounded(4);
        let (receipts, told) = bounded(256);
        let (exits, ends) = bounded(1);
        let (clock, hurry) = (Arc::new(Clock::start(0)), Arc::<AtomicBool>::default());
        let writer = Writer {
            files,
            clock: clock.clone(),
            orders: heard,
            receipts,
            audience: Arc::default(),
            commit_interval_ms: 20,
            patient,
            hurry: hurry.clone(),
        };
        thread::spawn(NAME, &exits, move || writer.run()).unwrap();
        Bench { dir, clock, orders: Some(orders), receipts: told, hurry, ends }
    }

    pub(super) fn send(&self, order: Order) {
        let orders = self.orders.as_ref().unwrap();
        orders.send_timeout(order, Duration::from_secs(30)).expect("nobody hears the order");
    }

    fn order(&self, name: &str, ticket: u64, rows: Vec<Candle>) -> Order {
        let Series { instrument, bar } = series(name);
        let at = rows.iter().map(|row| row.ts).max().unwrap_or(BASE) + MINUTE;
        let entry = Entry { bar, grid: Some(bar.grid()), page: page(rows), at };
        Order::Store(Batch { ticket, instrument, entry })
    }

    pub(super) fn store(&self, name: &str, ticket: u64, rows: Vec<Candle>) {
        self.send(self.order(name, ticket, rows));
    }

    pub(super) fn push(&self, name: &str, rows: Vec<Candle>) {
        let at = rows.iter().map(|row| row.ts).max().unwrap();
        let arrived = self.clock.now().local - 70;
        let series = series(name);
        self.send(Order::Push(Push { series, rows, refused: Vec::new(), arrived, at }));
    }

    pub(super) fn told(&self, awaited: &str) -> Receipt {
        let told = self.receipts.recv_timeout(Duration::from_secs(30));
        told.unwrap_or_else(|error| panic!("{awaited}: {error}"))
    }

    /// The next receipt in a few words.
    fn hear(&self, awaited: &str) -> String {
        match self.told(awaited) {
            Receipt::Stored { ticket, stored } => format!("stored {ticket}: {}", stored.closed),
            Receipt::Broken { ticket, error } => format!("broken {ticket}: {error}"),
            Receipt::Pushed(pushed) => format!("pushed {}", pushed.series),
            Receipt::PushBroken { instrument, error } => format!("broken {instrument}: {error}"),
            Receipt::Stalled { error } => format!("stalled: {error}"),
            Receipt::Resumed => "resumed".to_owned(),
            Receipt::Purged { instrument, error: None } => format!("purged {instrument}"),
            Receipt::Purged { error: Some(error), .. } => format!("not purged: {error}"),
        }
    }

    /// Nothing more is sent; waits for the end and gives what was told until then.
    pub(super) fn end(&mut self) -> usize {
        self.orders = None;
        self.ends.recv_timeout(Duration::from_secs(30)).expect("the writer does not end");
        self.receipts.iter().count()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        file_path(self.dir.path(), &name.parse().unwrap())
    }

    /// Another program's connection to a file.
    pub(super) fn other(&self, name: &str) -> Connection {
        let conn = Connection::open(self.path(name)).unwrap();
        conn.busy_timeout(Duration::from_secs(30)).unwrap();
        conn
    }

    fn count(&self, name: &str) -> i64 {
        let count = "SELECT count(*) FROM candles_1m";
        self.other(name).query_row(count, [], |row| row.get(0)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Lets every insert of minutes into a file fail as on a full disk: there is no number left for
    /// the row that a trigger adds.
    fn fill_disk(&self, name: &str) {
        let sql = format!(
            "CREATE TABLE numbers (id INTEGER PRIMARY KEY AUTOINCREMENT);
             INSERT INTO numbers VALUES ({});
             CREATE TRIGGER disk_full BEFORE INSERT ON candles_1m
             BEGIN INSERT INTO numbers VALUES (NULL); END;",
            i64::MAX
        );
        self.other(name).execute_batch(&sql).unwrap();
    }

    fn free_disk(&self, name: &str) {
        self.other(name).execute_batch("DROP TRIGGER disk_full; DROP TABLE numbers").unwrap();
    }
}

#[test]
fn receipts_tell_what_is_on_disk_and_how_long_it_took() {
    let mut bench = Bench::start(true);
    bench.push("A-USDT", vec![bar(1, 1.0, false)]);
    let Receipt::Pushed(pushed) = bench.told("a running bar") else { panic!("another receipt") };
    assert_eq!((pushed.series, pushed.rows), (series("A-USDT"), 1));
    assert_eq!(pushed.stored.evidence.unconfirmed, [BASE + MINUTE]);
    assert!(pushed.wait_ms >= 70 && pushed.confirmed_wait_ms.is_none());
    assert_eq!(bench.count("A-USDT"), 1);

    bench.push("A-USDT", vec![bar(1, 1.0, true), bar(2, 1.0, false)]);
    let Receipt::Pushed(pushed) = bench.told("a closed bar") else { panic!("another receipt") };
    assert_eq!((pushed.rows, pushed.stored.closed), (2, 1));
    assert!(pushed.confirmed_wait_ms.is_some_and(|wait_ms| wait_ms >= 70));
    assert_eq!(bench.count("A-USDT"), 2);
    assert_eq!(bench.end(), 0);
    assert_eq!(bench.names(), ["A-USDT.db"]);
}

#[test]
fn everything_that_was_sent_is_stored_before_the_end() {
    let mut bench = Bench::start(true);
    for n in 0..20 {
        bench.store(["A-USDT", "B-USDT"][n % 2], n as u64, vec![bar(n as i64, 1.0, true)]);
        bench.push("C-USDT", vec![bar(n as i64, 1.0, n % 5 == 0)]);
    }
    bench.send(Order::Compact);
    bench.end();
    assert_eq!(["A-USDT", "B-USDT", "C-USDT"].map(|name| bench.count(name)), [10, 10, 20]);
}

#[test]
fn a_patient_writer_keeps_all_until_the_disk_has_room() {
    let mut bench = Bench::start(true);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("the first page"), "stored 1: 1");
    bench.fill_disk("A-USDT");
    bench.push("A-USDT", vec![bar(2, 1.0, true)]);
    let told = bench.hear("a full disk");
    assert!(told.starts_with("stalled: ") && told.contains("full"), "{told}");
    bench.store("A-USDT", 2, vec![bar(3, 1.0, true)]);
    bench.push("A-USDT", vec![bar(4, 1.0, true)]);
    bench.free_disk("A-USDT");
    assert_eq!(bench.hear("room"), "resumed");
    assert_eq!(bench.hear("the page"), "stored 2: 1");
    let Receipt::Pushed(pushed) = bench.told("the pushes") else { panic!("another receipt") };
    assert_eq!((pushed.rows, pushed.stored.closed), (2, 2));
    assert_eq!(bench.end(), 0);
    assert_eq!(bench.count("A-USDT"), 4);
}

#[test]
fn a_full_disk_holds_the_senders_back() {
    let mut bench = Bench::start(true);
    bench.store("A-USDT", 0, vec![bar(0, 1.0, true)]);
    assert_eq!(bench.hear("the first page"), "stored 0: 1");
    bench.fill_disk("A-USDT");
    let mut sent = 0;
    loop {
        let first = sent as i64 * 2_500;
        let rows = (first..first + 2_500).map(|minute| bar(minute, 1.0, true)).collect();
        let order = bench.order("A-USDT", sent + 1, rows);
        match bench.orders.as_ref().unwrap().send_timeout(order, Duration::from_millis(300)) {
            Ok(()) => sent += 1,
            Err(SendTimeoutError::Timeout(_)) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent <= 8, "10,000 rows are kept and four orders in the channel");
    }
    bench.free_disk("A-USDT");
    assert!(bench.hear("a full disk").starts_with("stalled"));
    assert_eq!(bench.hear("room"), "resumed");
    for ticket in 1..=sent {
        let told = bench.hear("a page that was held back");
        assert!(told.starts_with(&format!("stored {ticket}: ")), "{told}");
    }
    bench.end();
    assert_eq!(bench.count("A-USDT"), sent as i64 * 2_500);
}

#[test]
fn a_hurry_ends_the_wait_for_a_full_disk() {
    let bench = Bench::start(true);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("the first page"), "stored 1: 1");
    bench.fill_disk("A-USDT");
    bench.store("A-USDT", 2, vec![bar(2, 1.0, true)]);
    assert!(bench.hear("a full disk").starts_with("stalled"));
    bench.hurry.store(true, Ordering::Relaxed);
    let told = bench.hear("the last try");
    assert!(told.starts_with("broken 2: ") && told.contains("full"), "{told}");
    bench.ends.recv_timeout(Duration::from_secs(30)).expect("the writer does not end");
    let orders = bench.orders.as_ref().unwrap();
    assert!(orders.send(Order::Compact).is_err(), "whoever still sends is let go");
}

#[test]
fn one_that_is_not_patient_answers_with_the_error() {
    let mut bench = Bench::start(false);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("the first page"), "stored 1: 1");
    bench.fill_disk("A-USDT");
    bench.store("A-USDT", 2, vec![bar(2, 1.0, true)]);
    let Receipt::Broken { ticket: 2, error } = bench.told("a full disk") else {
        panic!("another receipt")
    };
    assert_eq!(error.scope(), Scope::WholeDisk);
    assert_eq!(bench.end(), 0);
}

#[test]
fn a_damaged_file_fails_alone_and_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = b"this is no database, but it is longer than nothing";
    fs::write(dir.path().join("A-USDT.db"), damaged).unwrap();
    let mut bench = Bench::start_in(dir, true);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    let told = bench.hear("the page of the damaged file");
    assert!(told.starts_with("broken 1: ") && told.contains("not a database"), "{told}");
    bench.push("A-USDT", vec![bar(1, 1.0, false)]);
    let told = bench.hear("the push of the damaged file");
    assert!(told.starts_with("broken A-USDT: "), "{told}");
    bench.push("B-USDT", vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("the push of the sound one"), "pushed B-USDT 1m");
    bench.end();
    assert_eq!(fs::read(bench.path("A-USDT")).unwrap(), damaged);
    assert_eq!(bench.names(), ["A-USDT.db", "B-USDT.db"]);
}

#[test]
fn a_folder_in_the_place_of_a_file_fails_at_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("A-USDT.db")).unwrap();
    let mut bench = Bench::start_in(dir, true);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    let told = bench.hear("the page");
    assert!(told.starts_with("broken 1: ") && told.contains("is a directory"), "{told}");
    assert_eq!(bench.end(), 0);
}

/// Its file is the memory of this process, of which the first page cannot be read.
#[test]
#[cfg(target_os = "linux")]
fn a_file_on_a_bad_place_of_the_disk_holds_the_others_up_only_once() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", dir.path().join("A-USDT.db")).unwrap();
    let mut bench = Bench::start_in(dir, true);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    let told = bench.hear("a failing disk");
    assert!(told.starts_with("stalled: ") && told.contains("I/O"), "{told}");
    bench.store("B-USDT", 2, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("another file"), "resumed");
    assert_eq!(bench.hear("its page"), "stored 2: 1");
    bench.store("B-USDT", 3, vec![bar(2, 1.0, true)]);
    assert_eq!(bench.hear("its next page"), "stored 3: 1");
    bench.orders = None;
    let told = bench.hear("the last try");
    assert!(told.starts_with("broken 1: ") && told.contains("I/O"), "{told}");
    assert_eq!(bench.end(), 0);
}

#[test]
fn a_file_that_somebody_has_locked_is_tried_again_while_others_go_on() {
    let mut bench = Bench::start(true);
    bench.push("A-USDT", vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("the first push"), "pushed A-USDT 1m");
    let shell = bench.other("A-USDT");
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.push("A-USDT", vec![bar(2, 1.0, true)]);
    bench.push("B-USDT", vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("the push of the free file"), "pushed B-USDT 1m");
    bench.push("A-USDT", vec![bar(3, 1.0, true)]);
    shell.execute_batch("COMMIT").unwrap();
    drop(shell);
    assert_eq!(bench.hear("the pushes of the locked file"), "pushed A-USDT 1m");
    bench.end();
    assert_eq!(bench.count("A-USDT"), 3);
}

#[test]
fn a_purged_file_stays_gone_until_it_is_asked_for() {
    let mut bench = Bench::start(true);
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("a page"), "stored 1: 1");
    bench.send(Order::Purge { instrument: "A-USDT".parse().unwrap(), ticket: 2 });
    bench.push("A-USDT", vec![bar(2, 1.0, true)]);
    assert_eq!(bench.hear("the end of the file"), "purged A-USDT");
    bench.store("A-USDT", 2, vec![bar(2, 1.0, true)]);
    let told = bench.hear("a page that was under way");
    assert!(told.starts_with("broken 2: ") && told.contains("deleted meanwhile"), "{told}");
    bench.push("A-USDT", vec![bar(2, 1.0, true)]);
    bench.store("B-USDT", 1, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("a page after it"), "stored 1: 1");
    assert!(!bench.path("A-USDT").exists());
    bench.store("A-USDT", 3, vec![bar(1, 1.0, true)]);
    assert_eq!(bench.hear("a page of it"), "stored 3: 1");
    bench.push("A-USDT", vec![bar(2, 1.0, true)]);
    assert_eq!(bench.hear("a push of it"), "pushed A-USDT 1m");

    fs::create_dir(bench.path("C-USDT")).unwrap();
    bench.send(Order::Purge { instrument: "C-USDT".parse().unwrap(), ticket: 4 });
    let told = bench.hear("a file that cannot be deleted");
    assert!(told.contains("C-USDT.db: cannot delete it"), "{told}");
    bench.end();
}

#[test]
fn whoever_is_in_a_hurry_gets_what_was_sent_but_leaves_the_logs() {
    for stop in [true, false] {
        let mut bench = Bench::start(true);
        bench.push("A-USDT", vec![bar(1, 1.0, false)]);
        bench.store("A-USDT", 1, vec![bar(2, 1.0, true)]);
        if stop {
            bench.send(Order::Stop);
            bench.ends.recv_timeout(Duration::from_secs(30)).expect("the writer does not end");
            assert!(bench.orders.as_ref().unwrap().send(Order::Compact).is_err());
        } else {
            bench.hurry.store(true, Ordering::Relaxed);
            bench.end();
        }
        assert!(bench.path("A-USDT").with_extension("db-wal").exists(), "stop: {stop}");
        assert_eq!(bench.count("A-USDT"), 2, "stop: {stop}");
    }
}

#[test]
fn an_error_is_noted_after_the_pages_that_came_before_it() {
    let mut bench = Bench::start(false);
    let note = |name| Order::NoteError { series: series(name), error: "it went wrong".to_owned() };
    bench.store("A-USDT", 1, vec![bar(1, 1.0, true)]);
    bench.send(note("A-USDT"));
    bench.send(note("B-USDT"));
    bench.end();
    let reader = Reader::open(&bench.path("A-USDT"), &identity()).unwrap();
    assert!(reader.last_error("1m".parse().unwrap()).unwrap().is_some());
    assert!(!bench.path("B-USDT").exists(), "a note makes no file");
}
