//! The store in a program of one's own: everything begins with [`OkxLocalStore`].

mod engine;

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::audience::Audience;
use crate::config::{Config, Environment, InstrumentConfig};
use crate::error::Error;
use crate::hosted::Hosted;
use crate::house::Household;
use crate::instrument::Instrument;
use crate::market::{self, Market};
use crate::query::Query;
use crate::sight::Sight;
use crate::status::Status;
use crate::survey::{SeriesGaps, survey};

pub use engine::Progress;

/// A local copy of OKX candlesticks, one SQLite file for each instrument.
///
/// Opening one touches nothing: it reads the configuration, and no file is made before something is
/// fetched. Any number of threads may use it at once.
///
/// Beside a daemon or a command that writes in the same folder a store can be read; what would
/// write says who is in the way, and what to do.
///
/// ```no_run
/// use okx_local_store::{OkxLocalStore, Selection};
///
/// let store = OkxLocalStore::create_default_store(&["BTC-USDT"])?;
/// let (btc, hour) = ("BTC-USDT".parse()?, "1h".parse()?);
/// store.sync_now(&btc)?;
/// for change in store.query().calculate_returns(&btc, hour, Selection::Days(7))? {
///     println!("{} {:+.2} %", change.ts, 1e2 * change.value);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OkxLocalStore {
    query: Query,
    audience: Arc<Audience>,
    engine: Mutex<Option<Hosted>>,
    /// Whether changes go into the file of the configuration, and come from there.
    is_from_file: bool,
}

impl OkxLocalStore {
    /// Opens the store of a configuration file, as the program does with `--config`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or something in it is refused: the text names line, key, value and
    /// rule.
    ///
    /// ```
    /// use okx_local_store::OkxLocalStore;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("config.json");
    /// std::fs::write(&file, r#"{ "instruments": [{ "symbol": "BTC-USDT" }] }"#)?;
    /// let store = OkxLocalStore::open(&file)?;
    /// assert!(store.config().data_dir.ends_with("data"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(file: impl AsRef<Path>) -> Result<OkxLocalStore, Error> {
        let config = Config::load(Some(file.as_ref()), None)?;
        Ok(OkxLocalStore::new(config, true))
    }

    /// Opens the store of a configuration that was made by a program.
    ///
    /// # Errors
    ///
    /// It was changed since it was built, and something in it is out of its bounds.
    ///
    /// ```
    /// use okx_local_store::{Config, InstrumentConfig, OkxLocalStore};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// let btc = InstrumentConfig::new("BTC-USDT".parse()?);
    /// let config = Config::builder(folder.path()).instrument(btc).build()?;
    /// let store = OkxLocalStore::with_config(config)?;
    /// # assert_eq!(store.config().instruments.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_config(config: Config) -> Result<OkxLocalStore, Error> {
        config.checked()?;
        Ok(OkxLocalStore::new(config, false))
    }

    /// Opens a store that mirrors these instruments with the defaults of everything else: 1m, 5m,
    /// 1H and 1D, a year back, in `~/.okx_local_store/data`.
    ///
    /// # Errors
    ///
    /// A symbol is none, or given twice, or there is no home folder.
    ///
    /// ```no_run
    /// use okx_local_store::OkxLocalStore;
    ///
    /// let store = OkxLocalStore::create_default_store(&["BTC-USDT", "ETH-USDT"])?;
    /// # Ok::<(), okx_local_store::Error>(())
    /// ```
    pub fn create_default_store(symbols: &[&str]) -> Result<OkxLocalStore, Error> {
        let mut config = Config::default_in(&Environment::read())?;
        config.instruments = symbols
            .iter()
            .map(|symbol| symbol.parse().map(InstrumentConfig::new))
            .collect::<Result<_, _>>()
            .map_err(Error::Symbol)?;
        OkxLocalStore::with_config(config)
    }

    fn new(config: Config, is_from_file: bool) -> OkxLocalStore {
        OkxLocalStore {
            query: Query::new(Household::new(config)),
            audience: Arc::default(),
            engine: Mutex::default(),
            is_from_file,
        }
    }

    /// The configuration as it is at this moment.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// for series in store.config().series() {
    ///     println!("{series}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> Config {
        self.query.household().config.clone()
    }

    /// The query side. A clone of it asks the same store from another thread.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let query = store.query().clone();
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// std::thread::spawn(move || query.latest_candle(&btc, minute)).join().expect("no panic")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// What is missing of an instrument, one entry for each of its bars, shortest first. The rows
    /// are counted, so that deleted ones are noticed; that takes a moment for each million.
    ///
    /// # Errors
    ///
    /// The instrument is neither configured nor stored, or its file cannot be read.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// for gaps in store.detect_gaps(&"BTC-USDT".parse()?)? {
    ///     println!("{}: {} of {} bars missing", gaps.series, gaps.missing, gaps.wanted.bars);
    ///     for found in &gaps.missing_ranges {
    ///         println!("  {}", found.range.span);
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detect_gaps(&self, instrument: &Instrument) -> Result<Vec<SeriesGaps>, Error> {
        let household = self.query.household();
        let house = household.house();
        if house.wanted(instrument).is_none() {
            house.find(instrument)?;
        }
        Ok(survey(&house, instrument, None, self.query.now())?)
    }

    /// Where everything configured stands: the engine, wherever it runs, its stream, and of each
    /// series freshness, rows and holes. It answers at once however much is stored.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let status = store.status();
    /// for instrument in &status.instruments {
    ///     println!("{}: {}", instrument.instrument, instrument.reason);
    ///     for series in &instrument.series {
    ///         println!("  {}: {:?} ms behind", series.bar, series.lag_ms);
    ///     }
    /// }
    /// # assert!(!status.daemon.running);
    /// # assert_eq!(status.instruments[0].series[0].lag_ms, Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn status(&self) -> Status {
        let household = self.query.household();
        let seen = Sight::try_look(&household.config.data_dir);
        let seen = seen.as_ref().map(Option::as_ref);
        Status::of(&household.house(), seen, self.query.now())
    }

    /// Each configured instrument at a glance, in the order of the configuration: last price, and
    /// change, range and volume of 24 hours. Nothing where it has no candle yet.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// for (instrument, market) in store.market_overview()? {
    ///     println!("{instrument}: {:?}", market.map(|market| (market.last, market.change_24h)));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn market_overview(&self) -> Result<Vec<(Instrument, Option<Market>)>, Error> {
        let (household, now) = (self.query.household(), self.query.now());
        let house = household.house();
        let instruments = house.instruments.iter().map(|wanted| &wanted.instrument);
        let looked = instruments.map(|it| Ok((it.clone(), market::look(&house, it, now)?)));
        looked.collect()
    }
}
