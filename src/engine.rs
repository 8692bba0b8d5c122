//! One run of the sync engine, from the lock to the last receipt: start and stop in one place.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded, never};

use crate::backoff::Random;
use crate::bar::Grid;
use crate::control::{Control, Line};
use crate::coverage::Coverage;
use crate::grants::Grants;
use crate::http::{Http, HttpError, HttpOptions};
use crate::instrument::Series;
use crate::limit::Budget;
use crate::lock::{Lock, LockError};
use crate::okx;
use crate::plan::{Plan, Wanted};
use crate::poller::Poller;
use crate::signal;
use crate::store::files::Files;
use crate::store::read::Reader;
use crate::store::{Identity, StoreError, file_path};
use crate::supervisor::{Ending, Ports, Supervisor};
use crate::thread::{self, Exit};
use crate::time::{Clock, Millis, Now};
use crate::writer::{self, Writer};

/// Pages that wait for the writer: a few rounds of all pollers, so that a slow commit holds back
/// requests rather than filling memory.
const PAGES_WAITING: usize = 64;
/// Receipts that wait for the supervisor, which is never busy for long.
const RECEIPTS_WAITING: usize = 256;

/// Where and how to work.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The folder of the files.
    pub data_dir: PathBuf,
    /// Whose candles they hold.
    pub identity: Identity,
    /// How to reach the exchange.
    pub http: HttpOptions,
    /// Pollers.
    pub workers: usize,
    /// The user's own limit; 0 leaves only the exchange's.
    pub rate_limit_per_minute: u32,
}

/// Why a run could not begin.
#[derive(Debug)]
pub enum EngineError {
    /// Another process writes there.
    Lock(LockError),
    /// The connection cannot be set up.
    Http(HttpError),
    /// A thread cannot be started, or the record of requests not be opened.
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineError::Lock(error) => error.fmt(f),
            EngineError::Http(error) => error.fmt(f),
            EngineError::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
        }
    }
}

impl std::error::Error for EngineError {}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> EngineError {
    move |source| EngineError::Io { doing, source }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Everything there is to know of the series.
    pub control: Control,
    /// The time of the end.
    pub now: Now,
    /// How the threads ended.
    pub ending: Ending,
}

/// Makes series complete: fetches what is wanted and not stored, and returns when that is done,
/// given up, or stopped by SIGINT or SIGTERM. Whatever it reports as stored is on disk.
///
/// `watch` is shown where things stand, about ten times a second and once at the end.
pub fn run(
    setup: &Setup,
    wanted: &[(Series, Wanted)],
    watch: &mut dyn FnMut(&Control, Now),
) -> Result<Outcome, EngineError> {
    // First what only the configuration can mend: it is refused before a folder is made or a lock
    // waited for.
    let http = Http::new(&setup.http).map_err(EngineError::Http)?;
    let lock = Lock::take(&setup.data_dir).map_err(EngineError::Lock)?;
    run_under(lock, &http, setup, wanted, watch)
}

/// The same for whoever has the lock of the folder already, and made the connection from
/// `setup.http` before that.
pub fn run_under(
    lock: Lock,
    http: &Http,
    setup: &Setup,
    wanted: &[(Series, Wanted)],
    watch: &mut dyn FnMut(&Control, Now),
) -> Result<Outcome, EngineError> {
    let clock = Arc::new(Clock::start(stored_offset(setup, wanted)));
    let now = clock.now();
    let (grants, recent) = Grants::open(&setup.data_dir, now.local)
        .map_err(io_error("open the record of requests"))?;
    let mut budget = Budget::new(setup.rate_limit_per_minute, okx::rate);
    budget.restore(&recent, now.local);
    let lines = wanted.iter().map(|(series, wanted)| line(setup, series, *wanted, now)).collect();
    let seed = now.local as u64 ^ (u64::from(std::process::id()) << 40);
    let control = Control::new(lines, setup.workers, budget, Random::new(seed), now);

    let (exits, ends) = bounded(setup.workers + 2);
    let mut crew = Crew { exits, writer: None, pollers: Vec::new() };
    let (ports, _signals) = crew.start(setup, http, &clock, ends)?;
    let mut supervisor = Supervisor { control, ports, clock: &clock, grants, watch };
    let ending = supervisor.run();
    let Supervisor { control, .. } = supervisor;
    crew.join(&ending);
    drop(lock);
    Ok(Outcome { control, now: clock.now(), ending })
}

/// What an earlier run knew of the exchange's clock.
fn stored_offset(setup: &Setup, wanted: &[(Series, Wanted)]) -> i64 {
    let offset = |(series, _): &(Series, Wanted)| {
        let path = file_path(&setup.data_dir, &series.instrument);
        Reader::open(&path, &setup.identity).ok()?.clock_offset_ms().ok().flatten()
    };
    wanted.iter().find_map(offset).unwrap_or(0)
}

/// A series with its plan, made from what its file holds. A file that cannot be read ends its
/// series before it began; the others go on.
fn line(setup: &Setup, series: &Series, wanted: Wanted, now: Now) -> Line {
    let nothing = (series.bar.grid(), Coverage::default(), Vec::new());
    let ((grid, coverage, unconfirmed), error) = match resume(setup, series, now) {
        Ok(found) => (found.unwrap_or(nothing), None),
        Err(error) => (nothing, Some(error.to_string())),
    };
    let history_only = !okx::candles_have(series.bar);
    let plan = Plan::new(grid, wanted, history_only, coverage, &unconfirmed);
    let mut line = Line::new(series.clone(), plan);
    line.error = error;
    line
}

type Resumed = (Grid, Coverage, Vec<Millis>);

/// What a file holds of a series, with its rows counted against its spans; nothing if there is no
/// such file or table yet.
fn resume(setup: &Setup, series: &Series, now: Now) -> Result<Option<Resumed>, StoreError> {
    let path = file_path(&setup.data_dir, &series.instrument);
    let reader = match Reader::open(&path, &setup.identity) {
        Ok(reader) => reader,
        Err(StoreError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if !reader.bars()?.contains(&series.bar) {
        return Ok(None);
    }
    let grid = reader.grid(series.bar)?;
    let mut coverage = reader.coverage(series.bar)?;
    let lost = reader.audit(series.bar, grid, &mut coverage)?;
    if !lost.is_empty() {
        let bars: i64 = lost.iter().map(|span| grid.count(span)).sum();
        log::warn!(
            target: "engine",
            "{series}: {bars} stored bars are gone and are fetched again"
        );
    }
    let mut unconfirmed = reader.unconfirmed(series.bar, &coverage)?;
    unconfirmed.retain(|&ts| grid.bar_at(ts).end <= now.exchange);
    Ok(Some((grid, coverage, unconfirmed)))
}

/// The threads.
struct Crew {
    exits: Sender<Exit>,
    writer: Option<JoinHandle<()>>,
    pollers: Vec<JoinHandle<()>>,
}

impl Crew {
    fn start(
        &mut self,
        setup: &Setup,
        http: &Http,
        clock: &Arc<Clock>,
        ends: crossbeam_channel::Receiver<Exit>,
    ) -> Result<(Ports, Option<signal::SignalHandle>), EngineError> {
        let failed = io_error("start a thread");
        let (pages, orders) = bounded(PAGES_WAITING);
        let (receipts, heard_receipts) = bounded(RECEIPTS_WAITING);
        let files = Files::new(&setup.data_dir, setup.identity.clone());
        let writer = Writer {
            files,
            clock: clock.clone(),
            orders,
            receipts,
            // Pages are committed at once.
            commit_interval_ms: 0,
            patient: false,
            hurry: Arc::default(),
        };
        self.writer =
            Some(thread::spawn(writer::NAME, &self.exits, move || writer.run()).map_err(&failed)?);

        // An order for each poller can wait: the supervisor never has more under way.
        let (actions, orders) = bounded(setup.workers);
        // Each poller can leave a report and go on to the next order.
        let (reports, heard_reports) = bounded(2 * setup.workers);
        for number in 1..=setup.workers {
            let poller = Poller {
                http: http.clone(),
                clock: clock.clone(),
                orders: orders.clone(),
                pages: pages.clone(),
                reports: reports.clone(),
            };
            let name = format!("poll-{number}");
            let handle = thread::spawn(name, &self.exits, move || poller.run());
            self.pollers.push(handle.map_err(&failed)?);
        }
        let exits = self.exits.clone();
        let (signals, stops) =
            signal::listen(|work| thread::spawn("signal", &exits, work).map(drop))
                .map(|(handle, stops)| (Some(handle), stops))
                .unwrap_or_else(|_| (None, never()));
        let ports = Ports {
            actions: Some(actions),
            notes: Some(pages),
            reports: heard_reports,
            receipts: heard_receipts,
            stops,
            exits: ends,
        };
        Ok((ports, signals))
    }

    /// Waits for the threads, except for pollers that were left behind on purpose.
    fn join(self, ending: &Ending) {
        let pollers = if ending.hurried { Vec::new() } else { self.pollers };
        for handle in pollers.into_iter().chain(self.writer) {
            // A panic was heard of as an exit already.
            let _ = handle.join();
        }
    }
}
