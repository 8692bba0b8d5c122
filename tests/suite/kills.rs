//! Processes that are killed as nothing can prevent, at moments that a seed draws: `sync`, the
//! daemon and `export`. Whatever the moment: the files are whole databases that claim nothing that
//! they do not hold, what was reported as stored is there, an export is what it was before or all
//! that it should be, and the next run ends in the exchange's equal.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use okx_local_store::backoff::Random;
use okx_local_store::instrument::Series;
use okx_local_store::plan::Wanted;
use okx_local_store::request::{Answer, Request};
use okx_local_store::view::View;
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::crash::assert_sound;
use crate::exchange::{Endpoint, Exchange, Fault, Listed, Script};
use crate::faults::number;
use crate::live::{LISTED, LONG, START, Truth, home};
use crate::process::{Finished, Home, Running};

const INSTRUMENTS: [&str; 2] = ["BTC-USDT", "ETH-USDT"];
/// Kills of one store before it is completed, compared and begun anew, under a seed of its own.
const LIFE: u64 = 10;
/// What a process is let do before it is killed: pages and pushes, and then so many µs.
const EVENTS: u64 = 12;
const EVENTS_OF_A_DAEMON: u64 = 60;
const DELAY_US: u64 = 30_000;
/// How often a process is looked at until then.
const LOOK: Duration = Duration::from_millis(1);
/// What stands in the place of an export before it is made.
const BEFORE: &[u8] = b"what was there before";

/// Closed rows by instrument.
type Counts = BTreeMap<&'static str, i64>;

/// How often which process was killed, and what was found then.
#[derive(Debug, Default)]
struct Tally {
    syncs: u32,
    daemons: u32,
    exports: u32,
    /// Processes that had ended before they could be killed.
    too_late: u32,
    /// Rows that could be read, or were told to be stored, when the process was killed.
    told: i64,
    /// Exports that were there as a whole.
    whole: u32,
}

/// A store whose processes are killed.
struct Life {
    exchange: Exchange,
    home: Home,
    random: Random,
    /// What was found after the last kill.
    kept: Counts,
    tally: Tally,
}

/// Answers that are no lies: each is met by asking again.
const FAULTS: [Fault; 9] = [
    Fault::Html(502),
    Fault::ShortPage,
    Fault::Truncated,
    Fault::DuplicateRows,
    Fault::InvalidJson,
    Fault::Close,
    Fault::MissingData,
    Fault::ExtraFields,
    Fault::Unavailable,
];

impl Life {
    /// Of every second seed each fifth answer is a fault.
    fn new(seed: u64) -> Life {
        // A sync has the newest of all seconds only if the history has it at once.
        let builder = Exchange::builder().clock(START).push_ms(100).history_lag_bars(0).seed(seed);
        let builder = builder.synthetic("BTC-USDT", Listed::days(20));
        let faults = Script::every(5, FAULTS);
        let faults = if seed.is_multiple_of(2) { vec![faults] } else { Vec::new() };
        let exchange = builder.synthetic("ETH-USDT", LISTED).faults(faults).start();
        let home = home(&exchange).instrument("BTC-USDT", "1m 1H", 5);
        let home = home.instrument("ETH-USDT", "1s 5m", 1);
        let (random, kept, tally) = (Random::new(seed), Counts::new(), Tally::default());
        Life { exchange, home, random, kept, tally }
    }

    fn events(&self) -> u64 {
        let pages = [Endpoint::Candles, Endpoint::History].map(|it| self.exchange.count(it));
        pages.iter().sum::<usize>() as u64 + self.exchange.pushes()
    }

    /// Lets a process do so much, and a little more; `look` looks at it meanwhile.
    fn let_do(&mut self, running: &mut Running, events: u64, mut look: impl FnMut()) {
        let enough = self.events() + self.random.below(events);
        let deadline = Instant::now() + LONG;
        while self.events() < enough && !running.ends_in(LOOK) {
            look();
            let words = "pages and pushes did not come";
            assert!(Instant::now() < deadline, "{words}: {}", running.log());
        }
        running.ends_in(Duration::from_micros(self.random.below(DELAY_US)));
    }

    /// What anybody can read of the files, as long as somebody else has them open.
    fn visible(&self) -> Counts {
        counts(&self.home.data_dir(), &self.home.wanted)
    }

    /// The same, or what was there before with all that a process has said to have added.
    fn told(&self, visible: Counts, log: &str) -> Counts {
        let told = |instrument: &'static str| {
            let words = format!("{instrument}: on disk, newly closed bars: ");
            let added =
                log.lines().filter_map(|line| line.split_once(&words)?.1.parse::<i64>().ok());
            let told = self.kept.get(instrument).unwrap_or(&0) + added.sum::<i64>();
            (instrument, told.max(visible.get(instrument).copied().unwrap_or(0)))
        };
        INSTRUMENTS.map(told).into()
    }

    fn kill(&mut self, running: Running) -> Finished {
        let finished = running.kill();
        self.tally.too_late += u32::from(finished.code.is_some());
        finished
    }

    /// Fails unless the files are sound, and hold at least so much; gives copies of them.
    fn assert_kept(&mut self, what: &str, told: &Counts) -> TempDir {
        let copy = assert_sound(&self.home);
        let kept = counts(copy.path(), &self.home.wanted);
        for (instrument, rows) in told {
            let kept = kept.get(instrument).copied().unwrap_or(0);
            assert!(kept >= *rows, "{what}: of {rows} rows of {instrument} there are {kept}");
            self.tally.told += rows;
        }
        self.kept = kept;
        copy
    }

    /// A series of which a sync says that it is complete has all that there was when it began.
    fn sync(&mut self) {
        self.tally.syncs += 1;
        let now: Vec<(Series, Truth)> = self
            .home
            .wanted
            .iter()
            .map(|wanted| {
                (wanted.0.clone(), Truth::new(&self.exchange, std::slice::from_ref(wanted)))
            })
            .collect();
        let mut sync = self.home.start("sync --all -v");
        self.let_do(&mut sync, EVENTS, || ());
        let visible = self.visible();
        let finished = self.kill(sync);
        let told = self.told(visible, &finished.err);
        let copy = self.assert_kept("sync", &told);
        for (series, truth) in now {
            let complete = format!("{:<22} complete", series.to_string());
            if finished.err.contains(&complete) {
                assert_eq!(truth.difference(copy.path()), None, "told to be complete");
            }
        }
    }

    /// A daemon tells whoever has asked for it how many rows are stored.
    fn daemon(&mut self) {
        self.tally.daemons += 1;
        self.exchange.wait_until("a second without a new connection", || self.may_connect());
        let mut daemon = self.home.start("daemon -v");
        let (socket, request) = (self.home.data_dir().join("daemon.sock"), self.request());
        let mut answers = None;
        self.let_do(&mut daemon, EVENTS_OF_A_DAEMON, || {
            if answers.is_none() {
                answers = ask(&socket, &request);
            }
        });
        let visible = self.visible();
        let finished = self.kill(daemon);
        let mut told = self.told(visible, &finished.err);
        let view = answers.and_then(|answers| answers.join().unwrap());
        for (instrument, rows) in &mut told {
            let lines = view.iter().flat_map(|view| &view.lines);
            let lines = lines.filter(|line| line.series.instrument.as_str() == *instrument);
            *rows = lines.map(|line| line.stored).sum::<i64>().max(*rows);
        }
        self.assert_kept("daemon", &told);
        let status = self.home.run("status --json").exits(0).json();
        assert_eq!(status["daemon"]["running"], false, "{status}");
    }

    /// The exchange takes three connections a second. Each daemon keeps to that, but none knows of
    /// those before it, which nobody kills as fast as we do.
    fn may_connect(&self) -> bool {
        let now_ms = (self.exchange.now() - START) as u64;
        let stats = self.exchange.stats();
        stats.connections().all(|(_, connection)| connection.at_ms + 1_500 < now_ms)
    }

    fn request(&self) -> Request {
        let wanted = self.home.wanted.iter();
        let wanted = wanted.map(|(series, days)| (series.clone(), Wanted::Days(*days)));
        Request::Fill { wanted: wanted.collect() }
    }

    /// An export is killed at some moment of the time that one takes, or a little later.
    fn export(&mut self) {
        self.tally.exports += 1;
        let (target, begun) = (self.home.path("out.csv"), Instant::now());
        let is_there = self.random.below(2) == 0;
        let whole = self.home.run("export BTC-USDT 1m -");
        let took_us = begun.elapsed().as_micros() as u64;
        // The target is what was there before, or nothing.
        let _ = fs::remove_file(&target);
        if is_there {
            fs::write(&target, BEFORE).unwrap();
        }
        let mut export = self.home.start("export BTC-USDT 1m out.csv");
        export.ends_in(Duration::from_micros(self.random.below(took_us * 3 / 2)));
        self.kill(export);
        let found = fs::read(&target).ok();
        let is_whole = whole.code == Some(0) && found.as_deref() == Some(whole.out.as_bytes());
        let is_old = found.as_deref() == is_there.then_some(BEFORE);
        assert!(is_whole || is_old, "an export in parts: {:?}", found.map(|bytes| bytes.len()));
        self.tally.whole += u32::from(is_whole);
    }

    /// The store comes to what the exchange has, and an export to what the store has.
    fn end(mut self) -> Tally {
        let truth = Truth::of(&self.exchange, &self.home);
        self.home.run("sync --all").exits(0);
        truth.assert_in(&self.home);
        self.assert_kept("the end", &Counts::new());
        self.home.run("export BTC-USDT 1m out.csv --complete").exits(0);
        let whole = self.home.run("export BTC-USDT 1m -").exits(0).out;
        assert!(fs::read_to_string(self.home.path("out.csv")).unwrap() == whole);
        self.tally
    }
}

/// Asks a daemon, as soon as it listens; gives the last that it says of the work.
fn ask(socket: &PathBuf, request: &Request) -> Option<JoinHandle<Option<View>>> {
    let mut socket = UnixStream::connect(socket).ok()?;
    socket.write_all(request.encode().as_bytes()).ok()?;
    Some(thread::spawn(move || {
        // It may be killed in the middle of a line.
        let lines = BufReader::new(socket).split(b'\n').map_while(Result::ok);
        let answers = lines.filter_map(|line| Answer::decode(&line).ok());
        let views = answers.filter_map(|answer| match answer {
            Answer::Progress(view) | Answer::Done(view) => Some(view),
            Answer::Purged | Answer::Refused(_) => None,
        });
        views.last()
    }))
}

/// Closed rows as anybody may count them, of the series that are there.
fn counts(data_dir: &Path, wanted: &[(Series, u32)]) -> Counts {
    let count = |series: &Series| -> Option<i64> {
        let path = data_dir.join(format!("{}.db", series.instrument));
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
        let sql = format!("SELECT count(*) FROM {} WHERE confirmed = 1", series.bar.table());
        conn.query_row(&sql, [], |row| row.get(0)).ok()
    };
    let counted = |instrument: &'static str| {
        let series = wanted.iter().map(|(series, _)| series);
        let series = series.filter(|series| series.instrument.as_str() == instrument);
        (instrument, series.filter_map(count).sum())
    };
    INSTRUMENTS.map(counted).into()
}

#[test]
fn whatever_is_killed_loses_nothing_that_it_told() {
    let (kills, seed) = (number("OKX_STORE_KILLS", 2 * LIFE), number("OKX_STORE_SEED", 1));
    let mut tallies = Vec::new();
    for life in 0..kills.div_ceil(LIFE) {
        let (seed, kills) = (seed.wrapping_add(life), LIFE.min(kills - life * LIFE));
        eprintln!("killing; to repeat: make crash N={kills} SEED={seed}");
        let mut life = Life::new(seed);
        for _ in 0..kills {
            match life.random.below(5) {
                0 | 1 => life.sync(),
                2 | 3 => life.daemon(),
                _ => life.export(),
            }
        }
        tallies.push(life.end());
    }
    let sum = |part: fn(&Tally) -> u32| tallies.iter().map(part).sum::<u32>();
    let (syncs, daemons) = (sum(|it| it.syncs), sum(|it| it.daemons));
    let (exports, whole) = (sum(|it| it.exports), sum(|it| it.whole));
    let told: i64 = tallies.iter().map(|it| it.told).sum();
    eprintln!(
        "killed: sync {syncs}, daemon {daemons}, export {exports}; {} had ended before. Rows that \
         were stored and are: {told}. Exports that are whole: {whole}, the others are not there",
        sum(|it| it.too_late)
    );
}
