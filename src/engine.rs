//! One run of the sync engine, from the lock to the last receipt: start and stop in one place.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backoff::Random;
use crate::bar::Grid;
use crate::config::Config;
use crate::control::{Control, Line};
use crate::coverage::Coverage;
use crate::crew::{Crew, Wishes};
use crate::grants::Grants;
use crate::http::{Http, HttpError, HttpOptions};
use crate::instrument::{Instrument, Series};
use crate::keeper::Keeper;
use crate::limit::Budget;
use crate::lock::{Lock, LockError};
use crate::okx::{self, Credentials};
use crate::plan::{Plan, Wanted};
use crate::span::Spans;
use crate::store::read::Reader;
use crate::store::{Identity, StoreError, file_path};
use crate::supervisor::{Chores, Ending, Supervisor};
use crate::time::{Clock, Millis, Now};

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
    /// The least time between two commits of running bars to one file.
    pub commit_interval_ms: Millis,
}

impl Setup {
    /// What the configuration says of it.
    pub fn new(config: &Config, credentials: Option<Credentials>) -> Setup {
        Setup {
            data_dir: config.data_dir.clone(),
            identity: config.identity(),
            http: HttpOptions {
                base_url: config.rest_url().to_owned(),
                ca_file: config.ca_file.clone(),
                sandbox: config.sandbox,
                credentials,
            },
            workers: config.max_concurrent_syncs,
            rate_limit_per_minute: config.rate_limit_per_minute,
            commit_interval_ms: config.commit_interval_ms,
        }
    }
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

pub(crate) fn io_error(doing: &'static str) -> impl Fn(io::Error) -> EngineError {
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
    run_under(lock, &http, setup, Wishes::Signals, wanted, watch)
}

/// The same for whoever has the lock of the folder already, and made the connection from
/// `setup.http` before that.
pub fn run_under(
    lock: Lock,
    http: &Http,
    setup: &Setup,
    wishes: Wishes,
    wanted: &[(Series, Wanted)],
    watch: &mut dyn FnMut(&Control, Now),
) -> Result<Outcome, EngineError> {
    let instruments = wanted.iter().map(|(series, _)| &series.instrument);
    let lines = |now| {
        let line = |(series, wanted): &_| line(setup, series, *wanted, now, Trust::Rows);
        wanted.iter().map(line).collect()
    };
    carry_out(lock, http, setup, wishes, instruments, lines, watch)
}

/// Fetches closed bars of a series once more, stored or not, and takes over what the exchange has.
pub fn recheck_under(
    lock: Lock,
    http: &Http,
    setup: &Setup,
    series: &Series,
    spans: &Spans,
    watch: &mut dyn FnMut(&Control, Now),
) -> Result<Outcome, EngineError> {
    let lines = |now| {
        let mut line = line(setup, series, Wanted::hull(spans), now, Trust::Rows);
        line.uncover(spans);
        vec![line]
    };
    let instruments = std::iter::once(&series.instrument);
    carry_out(lock, http, setup, Wishes::Signals, instruments, lines, watch)
}

fn carry_out<'a>(
    lock: Lock,
    http: &Http,
    setup: &Setup,
    wishes: Wishes,
    instruments: impl Iterator<Item = &'a Instrument>,
    lines: impl FnOnce(Now) -> Vec<Line>,
    watch: &mut dyn FnMut(&Control, Now),
) -> Result<Outcome, EngineError> {
    let ground = Ground::prepare(setup, instruments)?;
    let now = ground.clock.now();
    let lines = lines(now);
    let control = Control::new(lines, setup.workers, ground.budget, ground.random, now);
    let (crew, ports) = Crew::start(setup, http, &ground.clock, wishes, None)?;
    let (clock, grants) = (&ground.clock, ground.grants);
    let chores = &mut Watch(watch);
    let mut supervisor = Supervisor { mind: Keeper::new(control), ports, clock, grants, chores };
    let ending = supervisor.run();
    let control = supervisor.mind.into_control();
    crew.join(&ending);
    drop(lock);
    Ok(Outcome { control, now: clock.now(), ending })
}

/// The chores of a command: to show how far it is.
struct Watch<'a>(&'a mut dyn FnMut(&Control, Now));

impl Chores for Watch<'_> {
    fn turn(&mut self, mind: &mut Keeper, now: Now) {
        (self.0)(mind.control(), now);
    }
}

/// What everybody who fetches stands on.
pub struct Ground {
    /// The clocks.
    pub clock: Arc<Clock>,
    /// Where requests are recorded.
    pub grants: Grants,
    /// What is left to ask.
    pub budget: Budget,
    /// The seed of all pauses.
    pub random: Random,
}

impl Ground {
    /// Prepares it in a folder whose lock the caller has.
    pub fn prepare<'a>(
        setup: &Setup,
        instruments: impl Iterator<Item = &'a Instrument>,
    ) -> Result<Ground, EngineError> {
        let clock = Arc::new(Clock::start(stored_offset(setup, instruments)));
        let now = clock.now();
        let (grants, recent) = Grants::open(&setup.data_dir, now.local)
            .map_err(io_error("open the record of requests"))?;
        let mut budget = Budget::new(setup.rate_limit_per_minute, okx::rate);
        budget.restore(&recent, now.local);
        let seed = now.local as u64 ^ (u64::from(std::process::id()) << 40);
        Ok(Ground { clock, grants, budget, random: Random::new(seed) })
    }
}

/// What an earlier run knew of the exchange's clock.
fn stored_offset<'a>(setup: &Setup, mut instruments: impl Iterator<Item = &'a Instrument>) -> i64 {
    let offset = |instrument: &Instrument| {
        let path = file_path(&setup.data_dir, instrument);
        Reader::open(&path, &setup.identity).ok()?.clock_offset_ms().ok().flatten()
    };
    instruments.find_map(offset).unwrap_or(0)
}

/// What is believed of a file at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// What it says of itself: whoever asks has its rows counted later.
    Ledger,
    /// Its rows, which are counted now.
    Rows,
}

/// A series with its plan, made from what its file holds. A file that cannot be read ends its
/// series before it began; the others go on.
pub fn line(setup: &Setup, series: &Series, wanted: Wanted, now: Now, trust: Trust) -> Line {
    read_line(setup, series, wanted, now, trust)
        .unwrap_or_else(|error| unread_line(series, wanted, &error))
}

/// The same, for whoever can wait where the file cannot be read for a while.
pub fn read_line(
    setup: &Setup,
    series: &Series,
    wanted: Wanted,
    now: Now,
    trust: Trust,
) -> Result<Line, StoreError> {
    let nothing = || (series.bar.grid(), Coverage::default(), Vec::new());
    let found = resume(setup, series, now, trust)?;
    let (grid, coverage, unconfirmed) = found.unwrap_or_else(nothing);
    let history_only = !okx::candles_have(series.bar);
    let plan = Plan::new(grid, wanted, history_only, coverage, &unconfirmed);
    Ok(Line::new(series.clone(), plan))
}

/// A series whose file cannot be read, given up before it began.
pub fn unread_line(series: &Series, wanted: Wanted, error: &StoreError) -> Line {
    let history_only = !okx::candles_have(series.bar);
    let plan = Plan::new(series.bar.grid(), wanted, history_only, Coverage::default(), &[]);
    let mut line = Line::new(series.clone(), plan);
    line.error = Some(error.to_string());
    line
}

type Resumed = (Grid, Coverage, Vec<Millis>);

/// What a file holds of a series; nothing if there is no such file or table yet.
fn resume(
    setup: &Setup,
    series: &Series,
    now: Now,
    trust: Trust,
) -> Result<Option<Resumed>, StoreError> {
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
    let lost = match trust {
        Trust::Rows => reader.audit(series.bar, grid, &mut coverage)?,
        Trust::Ledger => Spans::new(),
    };
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
