//! The sync engine inside a program: start and stop, what is mirrored, and what is fetched at once.

use std::ops::ControlFlow;
use std::sync::{MutexGuard, PoisonError};

use crossbeam_channel::bounded;

use crate::audience::{Begin, Subscription, Updates};
use crate::bar::Bar;
use crate::config::{
    Addition, Config, ConfigError, Edit, Environment, InstrumentConfig, add_instrument,
    default_timeframes, remove_instrument,
};
use crate::control::Control;
use crate::crew::Wishes;
use crate::daemon::{self, DaemonError, Start};
use crate::engine::{self, EngineError, Setup};
use crate::error::Error;
use crate::hosted::Hosted;
use crate::http::Http;
use crate::inquiry::listed::check_listed;
use crate::instrument::{Instrument, Series};
use crate::local::OkxLocalStore;
use crate::lock::Lock;
use crate::okx::Credentials;
use crate::plan::Wanted;
use crate::request::Request;
use crate::signal::{Signal, WAITING_MAX};
use crate::steward::Reload;
use crate::time::Now;
use crate::view::{LineView, View};

/// How far the fetching of one series is. [`OkxLocalStore::backfill`] tells of it on the way, and
/// gives what came of it, as [`OkxLocalStore::sync_now`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Which series.
    pub series: Series,
    /// Closed bars that were new.
    pub new_bars: u64,
    /// Closed bars that are stored, however old.
    pub stored: i64,
    /// Bars that are wanted.
    pub wanted: i64,
    /// Bars among them that are still missing.
    pub missing: i64,
    /// Whether nothing is left to do.
    pub done: bool,
    /// Why it was given up.
    pub error: Option<String>,
}

impl Progress {
    fn of(line: &LineView) -> Progress {
        Progress {
            series: line.series.clone(),
            new_bars: line.closed,
            stored: line.stored,
            wanted: line.tally.wanted,
            missing: line.tally.missing,
            done: line.done,
            error: line.error.clone(),
        }
    }
}

impl OkxLocalStore {
    /// Starts the sync engine on threads of its own: from here on everything configured is kept
    /// fresh, as by the daemon. It takes the lock of the data folder, leaves signals alone, and
    /// logs by the crate `log`. The exchange need not be reachable.
    ///
    /// # Errors
    ///
    /// It runs already; a daemon or a command writes in the folder ([`Error::Held`]); or the
    /// configuration does not let it. After a bug has ended it this tells of that, once.
    ///
    /// ```no_run
    /// # let store = okx_local_store::OkxLocalStore::open("config.json")?;
    /// store.start()?;
    /// // … candles come in, until
    /// store.stop()?;
    /// # Ok::<(), okx_local_store::Error>(())
    /// ```
    pub fn start(&self) -> Result<(), Error> {
        let mut engine = self.engine();
        if engine.as_ref().is_some_and(Hosted::is_running) {
            return Err(Error::Started);
        }
        if let Some(ended) = engine.take() {
            ended.stop()?;
        }
        let config = self.config();
        let setup = setup(&config)?;
        let data_dir = setup.data_dir.clone();
        let started = Hosted::start(|wishes| Start {
            setup,
            all_history: config.sync_on_startup,
            reload: self.reload(&config),
            config,
            wishes,
            audience: self.audience.clone(),
        });
        *engine = Some(started.map_err(|error| match error {
            DaemonError::Running { pid } => {
                Error::Held { data_dir, pid: Some(pid), is_daemon: true }
            }
            DaemonError::Engine(EngineError::Lock(error)) => Error::lock(error),
            DaemonError::Engine(error) => Error::Engine(error),
            error => Error::Daemon(error),
        })?);
        Ok(())
    }

    /// Stops the sync engine: requests under way are waited for, up to 15 s, and what has come is
    /// stored. Nothing happens where none runs. A store that is dropped does the same.
    ///
    /// # Errors
    ///
    /// A bug had ended it, or a commit hangs for 15 s more.
    ///
    /// ```no_run
    /// # let store = okx_local_store::OkxLocalStore::open("config.json")?;
    /// # store.start()?;
    /// store.stop()?;
    /// store.stop()?; // it has stopped already
    /// # Ok::<(), okx_local_store::Error>(())
    /// ```
    pub fn stop(&self) -> Result<(), Error> {
        let engine = self.engine().take();
        self.query.close_files();
        engine.map_or(Ok(()), Hosted::stop)
    }

    /// Mirrors an instrument at these lengths, beside those that it may have already; none stands
    /// for the default ones. The exchange is asked whether it has them. A store that was opened
    /// from a file writes it there, and keeps its comments; a running engine takes it up at once.
    ///
    /// # Errors
    ///
    /// The exchange does not know it ([`Error::NotListed`]) or does not answer, or the file cannot
    /// be changed.
    ///
    /// ```no_run
    /// # let store = okx_local_store::OkxLocalStore::open("config.json")?;
    /// store.add_symbol(&"ETH-USDT".parse()?, &["1h".parse()?, "1d".parse()?])?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_symbol(&self, instrument: &Instrument, timeframes: &[Bar]) -> Result<(), Error> {
        check_listed(&setup(&self.config())?, instrument, timeframes)?;
        let engine = self.engine();
        if self.is_from_file {
            let addition = Addition {
                instrument: instrument.clone(),
                timeframes: timeframes.to_vec(),
                sync_interval_seconds: None,
                max_history_days: None,
                realtime_source: None,
            };
            add_instrument(&self.config().file, &addition)?;
            self.read_file()?;
        } else {
            let mut config = self.config();
            add(&mut config, instrument, timeframes);
            config.checked()?;
            self.query.configure(config);
        }
        reload(&engine);
        Ok(())
    }

    /// Mirrors an instrument no longer. Its candles stay where they are.
    ///
    /// # Errors
    ///
    /// It is not configured, or the file cannot be changed.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let btc = "BTC-USDT".parse()?;
    /// store.remove_symbol(&btc)?;
    /// assert!(store.remove_symbol(&btc).is_err(), "it is not configured any more");
    /// assert!(store.query().latest_candle(&btc, "1m".parse()?)?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove_symbol(&self, instrument: &Instrument) -> Result<(), Error> {
        let engine = self.engine();
        let missing = || Error::NotConfigured { instrument: instrument.clone() };
        let mut config = self.config();
        config.instrument(instrument).ok_or_else(missing)?;
        if self.is_from_file {
            if remove_instrument(&config.file, instrument)? == Edit::Unchanged {
                return Err(missing());
            }
            self.read_file()?;
        } else {
            config.instruments.retain(|known| known.instrument != *instrument);
            self.query.configure(config);
        }
        reload(&engine);
        Ok(())
    }

    /// Fetches what is missing of all series of an instrument, and comes back when that is stored:
    /// by the running engine, or by this thread where none runs.
    ///
    /// # Errors
    ///
    /// It is not configured, somebody else writes in the folder ([`Error::Held`]), or not all of it
    /// could be fetched ([`Error::Fetch`]); what could stays stored.
    ///
    /// ```no_run
    /// # let store = okx_local_store::OkxLocalStore::open("config.json")?;
    /// for fetched in store.sync_now(&"BTC-USDT".parse()?)? {
    ///     println!("{}: {} new", fetched.series, fetched.new_bars);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_now(&self, instrument: &Instrument) -> Result<Vec<Progress>, Error> {
        let config = self.config();
        let known = config.instrument(instrument);
        let known = known.ok_or_else(|| Error::NotConfigured { instrument: instrument.clone() })?;
        let days = Wanted::Days(known.max_history_days);
        let wanted: Vec<(Series, Wanted)> = known.series().map(|series| (series, days)).collect();
        self.fetch(&config, &wanted, &mut |_| ControlFlow::Continue(()))
    }

    /// Fetches a part of the history of one series, however old, whether configured or not. `watch`
    /// is told several times a second how far that is, and ends it by [`ControlFlow::Break`]: the
    /// next back-fill goes on from there.
    ///
    /// # Errors
    ///
    /// As for [`OkxLocalStore::sync_now`]; besides [`Error::Stopped`] if `watch` has ended it.
    ///
    /// ```no_run
    /// use std::ops::ControlFlow;
    ///
    /// use okx_local_store::Wanted;
    ///
    /// # let store = okx_local_store::OkxLocalStore::open("config.json")?;
    /// let (btc, hour) = ("BTC-USDT".parse()?, "1h".parse()?);
    /// let fetched = store.backfill(&btc, hour, Wanted::Days(730), |progress| {
    ///     println!("{} of {} bars are missing", progress.missing, progress.wanted);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(fetched.missing, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backfill(
        &self,
        instrument: &Instrument,
        bar: Bar,
        wanted: Wanted,
        mut watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Progress, Error> {
        let series = Series { instrument: instrument.clone(), bar };
        let mut first =
            |lines: &[Progress]| lines.first().map_or(ControlFlow::Continue(()), &mut watch);
        let fetched = self.fetch(&self.config(), &[(series, wanted)], &mut first)?;
        fetched.into_iter().next().ok_or(Error::Stopped)
    }

    /// Listens to a series: each candle comes once it is on disk. Of those after the newest closed
    /// one that is stored now none is left out, so who subscribes and then asks
    /// [`OkxLocalStore::query`] misses nothing; of those that have ended already they are the
    /// newest 300, and with nothing stored none. One that had to be fetched later comes later. A
    /// reader who falls behind by 1,024 candles is dropped, and never waited for.
    ///
    /// It may begin before the engine is started, and ends when that stops.
    ///
    /// ```no_run
    /// use okx_local_store::{OkxLocalStore, Updates, format_time};
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let store = OkxLocalStore::create_default_store(&["BTC-USDT"])?;
    ///     let minutes = store.subscribe(&"BTC-USDT".parse()?, "1m".parse()?, Updates::Closed);
    ///     store.start()?;
    ///     for minute in minutes {
    ///         println!("{} {}", format_time(minute.ts), minute.close);
    ///     }
    ///     Ok(store.stop()?)
    /// }
    /// ```
    pub fn subscribe(&self, instrument: &Instrument, bar: Bar, updates: Updates) -> Subscription {
        let series = Series { instrument: instrument.clone(), bar };
        let now = self.engine().as_ref().and_then(Hosted::now);
        // Nothing comes of a file that cannot be read, before it is begun anew and so is empty.
        let newest = self.query.recent_candles(instrument, bar, 2).unwrap_or_default();
        let closed = newest.iter().rev().find(|candle| candle.confirmed);
        let stored = closed.map(|candle| bar.grid().bar_at(candle.ts).end);
        self.audience.subscribe(series, updates, Begin { now, stored })
    }

    fn engine(&self) -> MutexGuard<'_, Option<Hosted>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file anew that was opened.
    fn read_file(&self) -> Result<(), Error> {
        self.query.configure(Config::load(Some(&self.config().file), None)?);
        Ok(())
    }

    /// How a running engine comes to know of changes: from the file, or from this store.
    fn reload(&self, config: &Config) -> Reload {
        let (query, file, is_from_file) =
            (self.query.clone(), config.file.clone(), self.is_from_file);
        Box::new(move || -> Result<Config, ConfigError> {
            if is_from_file {
                query.configure(Config::load(Some(&file), None)?);
            }
            Ok(query.household().config.clone())
        })
    }

    fn fetch(
        &self,
        config: &Config,
        wanted: &[(Series, Wanted)],
        watch: &mut dyn FnMut(&[Progress]) -> ControlFlow<()>,
    ) -> Result<Vec<Progress>, Error> {
        let mut show = |view: &View| watch(&progress(view));
        let caller = self.engine().as_ref().map(Hosted::caller);
        let view = match caller {
            Some(caller) => caller.fetch(Request::Fill { wanted: wanted.to_vec() }, &mut show),
            None => fetch_here(&setup(config)?, wanted, &mut show),
        }?;
        let errors = view.lines.iter().filter_map(|line| {
            let error = line.error.as_ref()?;
            Some(format!("{}: {error}", line.series))
        });
        let errors: Vec<String> = errors.chain(view.gave_up.clone()).collect();
        if errors.is_empty() { Ok(progress(&view)) } else { Err(Error::Fetch(errors.join("; "))) }
    }
}

fn progress(view: &View) -> Vec<Progress> {
    view.lines.iter().map(Progress::of).collect()
}

fn setup(config: &Config) -> Result<Setup, Error> {
    let keys = Environment::read().credentials()?;
    let known = keys.map(|(key, secret, phrase)| Credentials::new(&key, &secret, &phrase));
    Ok(Setup::new(config, known.transpose().map_err(Error::Credentials)?))
}

fn reload(engine: &Option<Hosted>) {
    if let Some(engine) = engine {
        engine.caller().reload();
    }
}

/// What [`add_instrument`] does to a file.
fn add(config: &mut Config, instrument: &Instrument, timeframes: &[Bar]) {
    let known = config.instruments.iter_mut().find(|known| known.instrument == *instrument);
    match known {
        Some(known) => {
            known.enabled = true;
            let new = timeframes.iter().filter(|bar| !known.timeframes.contains(bar));
            let new: Vec<Bar> = new.copied().collect();
            known.timeframes.extend(new);
        }
        None => {
            let timeframes = match timeframes {
                [] => default_timeframes(),
                timeframes => timeframes.to_vec(),
            };
            let new = InstrumentConfig::new(instrument.clone());
            config.instruments.push(InstrumentConfig { timeframes, ..new });
        }
    }
}

/// One run of the engine on this thread, with the lock of the folder.
fn fetch_here(
    setup: &Setup,
    wanted: &[(Series, Wanted)],
    watch: &mut dyn FnMut(&View) -> ControlFlow<()>,
) -> Result<View, Error> {
    if let Some(pid) = daemon::running(setup) {
        let data_dir = setup.data_dir.clone();
        return Err(Error::Held { data_dir, pid: Some(pid), is_daemon: true });
    }
    let http = Http::new(&setup.http).map_err(EngineError::Http).map_err(Error::Engine)?;
    let lock = Lock::take(&setup.data_dir).map_err(Error::lock)?;
    let (wishes, heard) = bounded(WAITING_MAX);
    let mut is_over = false;
    let mut show = |control: &Control, now: Now| {
        if !is_over && watch(&View::of(control, now)).is_break() {
            is_over = true;
            let _ = wishes.try_send(Signal::Stop);
        }
    };
    let wishes = Wishes::Program(heard);
    let ended = engine::run_under(lock, &http, setup, wishes, wanted, &mut show);
    let engine::Outcome { control, now, ending } = ended.map_err(Error::Engine)?;
    match ending.panic {
        Some(words) => Err(Error::Bug(words)),
        None if control.was_stopped() => Err(Error::Stopped),
        None => Ok(View::of(&control, now)),
    }
}
