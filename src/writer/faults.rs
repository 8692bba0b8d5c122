//! Planned faults of the storage, by the write before which they strike and the step that they
//! spoil: open, begin, upsert, commit or checkpoint. SQLite and the file system bring each about.
//!
//! Two files are written in turn, and one is struck. Whatever happens: each page ends in one
//! receipt, what a receipt says is in the file, no span claims what is not, the other file goes
//! on, and once the fault is gone all can be stored.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use rusqlite::Connection;

use crate::instrument::Instrument;
use crate::store::file_path;
use crate::store::read::Reader;
use crate::time::MINUTE;
use crate::writer::tests::{Bench, bar, identity, series};
use crate::writer::*;

/// The file that is struck, and the one that never is.
const STRUCK: &str = "A-USDT";
const SOUND: &str = "B-USDT";
/// Writes to each file. The fault is gone before the last of them.
const WRITES: i64 = 6;
/// Rows of a page: they need more room than a page of the file has.
const ROWS: i64 = 60;
/// The first minute that is pushed.
const PUSHED: i64 = 10_000;
/// Rows that a struck file has from the start: more pages than a connection keeps in memory.
const OLD_ROWS: i64 = 5_000;

/// What becomes of the writes while a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// They wait until it is gone, and are stored.
    Late,
    /// They are given up, with these words.
    Refused(&'static str),
    /// They are stored all the same.
    Stored,
}

/// A connection that holds something, until the fault is over.
type Grip = Option<Connection>;

struct Fault {
    /// The step that fails, and how.
    name: &'static str,
    /// Brings it about.
    strike: fn(&Path) -> Grip,
    /// Ends it.
    heal: fn(&Path, Grip),
    fate: Fate,
}

const FAULTS: [Fault; 9] = [
    Fault {
        name: "open: a folder in its place",
        strike: |path| {
            away(path);
            fs::create_dir(path).unwrap();
            None
        },
        heal: |path, _| {
            fs::remove_dir(path).unwrap();
            back(path);
        },
        fate: Fate::Refused("A-USDT.db"),
    },
    Fault {
        name: "open: somebody else's file in its place",
        strike: |path| {
            away(path);
            fs::write(path, "this is no database, but it is longer than nothing").unwrap();
            None
        },
        heal: |path, _| back(path),
        fate: Fate::Refused("A-USDT.db"),
    },
    Fault {
        name: "begin: a second writer",
        strike: |path| grip(path, "BEGIN IMMEDIATE"),
        heal: |_, grip| drop(grip),
        fate: Fate::Late,
    },
    Fault {
        name: "begin: the file is deleted",
        strike: |path| {
            crate::store::delete(path).unwrap();
            None
        },
        heal: |_, _| (),
        fate: Fate::Refused("deleted"),
    },
    Fault {
        name: "upsert: no page is left",
        // Others may let the file grow to its bound and beyond.
        strike: |path| batch(path, "INSERT INTO filling VALUES (zeroblob(262144))"),
        heal: |path, _| drop(batch(path, "DELETE FROM filling")),
        fate: Fate::Late,
    },
    Fault {
        name: "upsert: damaged pages",
        strike: damage,
        heal: |path, _| crate::store::delete(path).unwrap(),
        fate: Fate::Refused("malformed"),
    },
    Fault {
        name: "upsert: a table is gone",
        strike: |path| batch(path, "ALTER TABLE spans RENAME TO elsewhere"),
        heal: |path, _| drop(batch(path, "ALTER TABLE elsewhere RENAME TO spans")),
        fate: Fate::Refused("spans"),
    },
    Fault {
        name: "commit: a debt that nobody pays",
        strike: |path| {
            batch(
                path,
                "CREATE TABLE debts (id INTEGER REFERENCES meta DEFERRABLE INITIALLY DEFERRED);
                 CREATE TRIGGER debt AFTER INSERT ON candles_1m
                 BEGIN INSERT INTO debts VALUES (NEW.ts); END",
            )
        },
        heal: |path, _| drop(batch(path, "DROP TRIGGER debt; DROP TABLE debts")),
        fate: Fate::Refused("cannot commit: FOREIGN KEY"),
    },
    Fault {
        name: "checkpoint: somebody reads on",
        strike: |path| grip(path, "BEGIN; SELECT count(*) FROM candles_1m"),
        heal: |_, grip| drop(grip),
        fate: Fate::Stored,
    },
];

fn connect(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.busy_timeout(Duration::from_secs(30)).unwrap();
    conn
}

fn batch(path: &Path, sql: &str) -> Grip {
    connect(path).execute_batch(sql).unwrap();
    None
}

fn grip(path: &Path, sql: &str) -> Grip {
    let conn = connect(path);
    conn.execute_batch(sql).unwrap();
    Some(conn)
}

/// Where a file is put that something else takes the place of.
fn away(path: &Path) {
    batch(path, "PRAGMA wal_checkpoint(TRUNCATE)");
    fs::rename(path, path.with_extension("away")).unwrap();
    crate::store::delete(path).unwrap();
}

fn back(path: &Path) {
    crate::store::delete(path).unwrap();
    fs::rename(path.with_extension("away"), path).unwrap();
}

/// Overwrites all pages but the first, which says what the file is.
fn damage(path: &Path) -> Grip {
    batch(path, "PRAGMA wal_checkpoint(TRUNCATE)");
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let rest = file.metadata().unwrap().len() - 4_096;
    file.seek(SeekFrom::Start(4_096)).unwrap();
    file.write_all(&vec![0xa5; rest as usize]).unwrap();
    None
}

/// A page that was sent: whose, its first minute, and what became of it.
struct Sent {
    name: &'static str,
    minute: i64,
    end: Option<Result<(), String>>,
}

/// What a writer was told to do, and what it said.
#[derive(Default)]
struct Book {
    /// Pages by their tickets.
    pages: BTreeMap<u64, Sent>,
    /// Pushed minutes that were neither stored nor refused yet, by name.
    pushed: BTreeMap<&'static str, Vec<i64>>,
    /// Minutes of which a receipt says that they are stored.
    stored: Vec<(&'static str, i64)>,
    /// How often the disk was said to be full, and to have room again.
    stalls: (u32, u32),
}

impl Book {
    /// Sends a page and a push to a file.
    fn write(&mut self, bench: &Bench, name: &'static str, n: i64) {
        let ticket = 2 * n as u64 + u64::from(name == SOUND);
        self.pages.insert(ticket, Sent { name, minute: n * ROWS, end: None });
        let rows = n * ROWS..(n + 1) * ROWS;
        bench.store(name, ticket, rows.map(|minute| bar(minute, 1.0, true)).collect());
        self.pushed.entry(name).or_default().push(PUSHED + n);
        bench.push(name, vec![bar(PUSHED + n, 1.0, true)]);
    }

    /// Hears until all that was sent to a file has an answer.
    fn settle(&mut self, bench: &Bench, name: &'static str) {
        while self.awaits(name) {
            self.hear(bench.told(name));
        }
    }

    fn awaits(&self, name: &str) -> bool {
        let open = |sent: &Sent| sent.name == name && sent.end.is_none();
        self.pages.values().any(open) || self.pushed.get(name).is_some_and(|rows| !rows.is_empty())
    }

    fn hear(&mut self, receipt: Receipt) {
        let known = |instrument: &Instrument| {
            [STRUCK, SOUND].into_iter().find(|name| *name == instrument.as_str()).unwrap()
        };
        let end = match receipt {
            Receipt::Stored { ticket, .. } => (ticket, Ok(())),
            Receipt::Broken { ticket, error } => (ticket, Err(error.to_string())),
            Receipt::Pushed(pushed) => {
                let name = known(&pushed.series.instrument);
                let waiting = self.pushed.get_mut(name).unwrap();
                let told = waiting.drain(..pushed.rows as usize).map(|minute| (name, minute));
                self.stored.extend(told);
                return;
            }
            Receipt::PushBroken { instrument, .. } => {
                self.pushed.get_mut(known(&instrument)).unwrap().clear();
                return;
            }
            Receipt::Stalled { .. } => return self.stalls.0 += 1,
            Receipt::Resumed => return self.stalls.1 += 1,
            Receipt::Purged { .. } => return,
        };
        let sent = self.pages.get_mut(&end.0).unwrap();
        assert!(sent.end.is_none(), "two receipts for minute {} of {}", sent.minute, sent.name);
        if end.1.is_ok() {
            self.stored.push((sent.name, sent.minute));
        }
        sent.end = Some(end.1);
    }

    fn refused(&self, name: &str) -> Vec<&str> {
        let ends = self.pages.values().filter(|sent| sent.name == name).map(|sent| &sent.end);
        ends.filter_map(|end| end.as_ref()?.as_ref().err().map(String::as_str)).collect()
    }
}

/// A folder in which the struck file has many rows; open, it has hardly a page to spare.
fn ground(is_open: bool) -> (tempfile::TempDir, Files) {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Files::new(dir.path(), identity());
    let Series { instrument, bar: length } = series(STRUCK);
    let rows: Vec<_> = (-OLD_ROWS..0).map(|minute| bar(minute, 1.0, true)).collect();
    let page = crate::store::sample::page(rows);
    let at = bar(0, 1.0, true).ts;
    let entry = Entry { bar: length, grid: Some(length.grid()), page, at };
    files.commit(&instrument, [&entry], 0).unwrap();
    let path = file_path(dir.path(), &instrument);
    batch(&path, "CREATE TABLE filling (bytes)");
    if !is_open {
        files.finish(&AtomicBool::new(false)).unwrap();
        let files = Files::new(dir.path(), identity());
        return (dir, files);
    }
    let conn = files.get(&instrument).unwrap().connection();
    let pages: i64 = conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    // The writes before the fault fit.
    conn.pragma_update(None, "max_page_count", pages + 32).unwrap();
    (dir, files)
}

fn minutes(path: &Path) -> Vec<i64> {
    let base = bar(0, 1.0, true).ts;
    let conn = connect(path);
    let mut query = conn.prepare("SELECT ts FROM candles_1m WHERE confirmed = 1").unwrap();
    let times = query.query_map([], |row| row.get::<_, i64>(0)).unwrap();
    times.map(|ts| (ts.unwrap() - base) / MINUTE).collect()
}

/// Fails if the ledger of a file claims a bar that has no row.
fn assert_honest(path: &Path, what: &str) {
    let reader = Reader::open(path, &identity()).unwrap();
    let Series { bar, .. } = series(STRUCK);
    let mut coverage = reader.coverage(bar).unwrap();
    let lost = reader.audit(bar, bar.grid(), &mut coverage).unwrap();
    assert!(lost.is_empty(), "{what}: claimed, and not stored: {lost}");
}

/// Strikes before one write and heals before a later one, then judges.
fn strike(fault: &Fault, first: i64, is_open: bool) {
    let what = format!("{} before write {first}", fault.name);
    let (dir, files) = ground(is_open);
    let mut bench = Bench::start_with(dir, files, true);
    let (path, mut book, mut grip) = (bench.path(STRUCK), Book::default(), None);
    for n in 0..WRITES {
        if n == first {
            grip = (fault.strike)(&path);
        }
        book.write(&bench, STRUCK, n);
        book.write(&bench, SOUND, n);
        let waits = fault.fate == Fate::Late && (first..WRITES - 2).contains(&n);
        let heals = n == WRITES - 2;
        if heals && fault.fate == Fate::Late {
            (fault.heal)(&path, grip.take());
        }
        if !waits {
            book.settle(&bench, STRUCK);
        }
        // A disk that is full is so for all; whatever else befalls a file concerns it alone.
        if !(waits && fault.name.contains("no page")) {
            book.settle(&bench, SOUND);
        }
        if heals && fault.fate != Fate::Late {
            (fault.heal)(&path, grip.take());
        }
    }
    bench.end();
    let told = book.refused(STRUCK);
    match fault.fate {
        Fate::Refused(words) => {
            assert!(told.iter().all(|told| told.contains(words)), "{what}: {told:?}");
            assert!(!told.is_empty(), "{what}");
        }
        Fate::Late | Fate::Stored => assert!(told.is_empty(), "{what}: {told:?}"),
    }
    assert_eq!(book.refused(SOUND), [""; 0], "{what}");
    let stalls = u32::from(fault.name.contains("no page"));
    assert_eq!(book.stalls, (stalls, stalls), "{what}");
    judge(&bench, &book, fault, &what);
    heal(bench, &path, &what);
}

/// What was acknowledged is there, of either file.
fn judge(bench: &Bench, book: &Book, fault: &Fault, what: &str) {
    for name in [STRUCK, SOUND] {
        let path = bench.path(name);
        let there = minutes(&path);
        // What was in a file that is gone, or had to be deleted, went with it.
        let is_new = !there.contains(&-1) && name == STRUCK;
        let gone = is_new && ["deleted", "damaged"].iter().any(|word| fault.name.contains(word));
        for (of, minute) in book.stored.iter().filter(|(of, _)| *of == name) {
            let is_there = there.contains(minute);
            assert!(
                is_there || gone && ![(WRITES - 1) * ROWS, PUSHED + WRITES - 1].contains(minute),
                "{what}: {of} {minute}"
            );
        }
        assert!(gone || there.contains(&-1) == (name == STRUCK), "{what}: old rows of {name}");
        assert_honest(&path, what);
    }
}

/// Another writer stores all that was ever sent.
fn heal(bench: Bench, path: &Path, what: &str) {
    let mut bench = Bench::start_in(bench.dir, true);
    let mut book = Book::default();
    for n in 0..WRITES {
        book.write(&bench, STRUCK, n);
        book.settle(&bench, STRUCK);
    }
    bench.end();
    assert_eq!(book.refused(STRUCK), [""; 0], "{what}, again");
    let there = minutes(path);
    let all: Vec<i64> = (0..WRITES * ROWS).chain(PUSHED..PUSHED + WRITES).collect();
    assert!(all.iter().all(|minute| there.contains(minute)), "{what}, again: {there:?}");
    assert_honest(path, what);
}

#[test]
fn a_file_that_is_open_is_struck() {
    // They mostly wait, so they may do so at the same time.
    std::thread::scope(|scope| {
        for first in 0..WRITES - 2 {
            scope.spawn(move || FAULTS.iter().for_each(|fault| strike(fault, first, true)));
        }
    });
}

#[test]
fn a_file_that_is_yet_to_be_opened_is_struck() {
    // The bound on pages is the connection's own, and that is yet to be made.
    for fault in FAULTS.iter().filter(|fault| !fault.name.contains("no page")) {
        let fate = match fault.fate {
            // Then there is none, and one is made.
            Fate::Refused("deleted") => Fate::Stored,
            fate => fate,
        };
        strike(&Fault { fate, ..*fault }, 0, false);
    }
}

#[test]
fn a_folder_in_which_nobody_may_write_stores_nothing_and_claims_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Not even root makes files there.
    let files = Files::new(Path::new("/proc/self/task"), identity());
    let (mut bench, mut book) = (Bench::start_with(dir, files, false), Book::default());
    // It may pass, so it is tried for as long as a command is patient.
    for name in [STRUCK, SOUND] {
        book.write(&bench, name, 0);
    }
    for name in [STRUCK, SOUND] {
        book.settle(&bench, name);
        assert!(book.refused(name)[0].contains("unable to open"), "{:?}", book.refused(name));
    }
    bench.end();
    assert!(book.stored.is_empty());
}
