//! The query side of a store: candles, and what they say, without the network and without a lock.

mod figures;
mod pool;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::bar::Bar;
use crate::candle::Candle;
use crate::config::Config;
use crate::error::Error;
use crate::export::{self, Export};
use crate::house::Household;
use crate::instrument::{Instrument, Series};
use crate::query::pool::Pool;
use crate::span::Span;
use crate::store::StoreError;
use crate::store::query::Selection;
use crate::store::read::Reader;
use crate::time::{Clock, Millis};

pub use figures::{DataCoverage, Price};

/// Asks the store: any number of threads at once, beside whoever writes, at microseconds a
/// question. A clone asks the same store.
///
/// What is configured but was never synced has no candles, which is no error; what nobody has
/// configured or stored is [`Error::Unknown`].
///
/// A folder is all that it takes to read what is stored there, whoever writes it:
///
/// ```
/// # let (folder, _store) =
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
/// # let folder = folder.path();
/// use okx_local_store::{Config, OkxLocalStore};
///
/// let store = OkxLocalStore::with_config(Config::builder(folder).build()?)?;
/// assert!(store.query().latest_candle(&"BTC-USDT".parse()?, "1m".parse()?)?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// All examples ask this store: BTC-USDT has minutes since 2024-05-01 00:00 UTC, and the one of
/// 03:00 still runs.
///
/// ```
/// # let (_folder, store) =
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
/// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
/// let asked = std::thread::scope(|scope| {
///     let ask = || store.query().latest_candle(&btc, minute);
///     [scope.spawn(ask), scope.spawn(ask)].map(|thread| thread.join().expect("no panic"))
/// });
/// for candle in asked {
///     assert!(!candle?.expect("it was stored").confirmed);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Query {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    household: RwLock<Arc<Household>>,
    pool: Pool,
}

/// What was written by [`Query::export_to_csv`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// The number of rows.
    pub rows: i64,
    /// Ranges whose bars should be among them but are not stored, though the exchange may have
    /// them; oldest first.
    pub missing: Vec<Span>,
    /// The number of bars in them.
    pub missing_bars: i64,
}

impl Query {
    pub(crate) fn new(household: Household) -> Query {
        let household = RwLock::new(Arc::new(household));
        Query { shared: Arc::new(Shared { household, pool: Pool::default() }) }
    }

    /// What is configured at this moment.
    pub(crate) fn household(&self) -> Arc<Household> {
        self.shared.household.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in another configuration. The folder and whose candles are in it stay.
    pub(crate) fn configure(&self, config: Config) {
        let (data_dir, region, sandbox) = {
            let household = self.household();
            let Config { data_dir, region, sandbox, .. } = &household.config;
            (data_dir.clone(), *region, *sandbox)
        };
        let household = Household::new(Config { data_dir, region, sandbox, ..config });
        *self.shared.household.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(household);
    }

    /// Closes what is open and not in use, so that whoever writes can leave whole files behind.
    pub(crate) fn close_files(&self) {
        self.shared.pool.clear();
    }

    /// The exchange's time, as far as the last contact with it tells.
    pub(crate) fn now(&self) -> Millis {
        Clock::start(self.household().house().clock_offset_ms()).now().exchange
    }

    /// The newest candle, which may still run: [`Candle::confirmed`] tells. Nothing where there is
    /// none yet.
    ///
    /// # Errors
    ///
    /// The instrument is unknown, or its file cannot be read.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let newest = store.query().latest_candle(&"BTC-USDT".parse()?, "1m".parse()?)?;
    /// println!("{:?}", newest.map(|candle| candle.close));
    /// # assert_eq!(newest.map(|candle| candle.close), Some(64_180.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn latest_candle(
        &self,
        instrument: &Instrument,
        bar: Bar,
    ) -> Result<Option<Candle>, Error> {
        self.ask(instrument, bar, |reader| Ok(reader.newest_row(bar)?.map(|newest| newest.candle)))
    }

    /// So many of the newest candles, oldest first, the running one among them.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// let candles = store.query().recent_candles(&"BTC-USDT".parse()?, "1m".parse()?, 30)?;
    /// assert_eq!(candles.len(), 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recent_candles(
        &self,
        instrument: &Instrument,
        bar: Bar,
        count: u32,
    ) -> Result<Vec<Candle>, Error> {
        self.select(instrument, bar, Selection::Newest(count))
    }

    /// The candles that open in a half-open range, oldest first, a running one among them.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::{Span, parse_time};
    ///
    /// let [one, two] = ["2024-05-01T01:00:00Z", "2024-05-01T02:00:00Z"].map(parse_time);
    /// let hour = Span::new(one?, two?);
    /// let query = store.query();
    /// let candles = query.candles_by_date_range(&"BTC-USDT".parse()?, "1m".parse()?, hour)?;
    /// assert_eq!(candles.len(), 60);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn candles_by_date_range(
        &self,
        instrument: &Instrument,
        bar: Bar,
        range: Span,
    ) -> Result<Vec<Candle>, Error> {
        self.select(instrument, bar, Selection::Range(range))
    }

    /// The candles that open at a moment or later, Unix ms, oldest first, the running one among
    /// them.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`].
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::parse_time;
    ///
    /// let since = parse_time("2024-05-01T02:59:00Z")?;
    /// let candles = store.query().candles_since(&"BTC-USDT".parse()?, "1m".parse()?, since)?;
    /// assert!(candles[0].confirmed && !candles[1].confirmed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn candles_since(
        &self,
        instrument: &Instrument,
        bar: Bar,
        since: Millis,
    ) -> Result<Vec<Candle>, Error> {
        self.select(instrument, bar, Selection::Range(Span::new(since, Millis::MAX)))
    }

    /// Writes closed candles as CSV, as the command `export` does: times as Unix ms and RFC 3339,
    /// numbers in the fewest digits that read back the same. The file appears when it is whole, or
    /// not at all, and a year of minutes takes no more memory than a day.
    ///
    /// # Errors
    ///
    /// As for [`Query::latest_candle`]; besides, no such candle is stored, or the file cannot be
    /// written. What stood there before still does then.
    ///
    /// ```
    /// # let (folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::Selection;
    ///
    /// let file = folder.path().join("btc.csv");
    /// let (btc, minute) = ("BTC-USDT".parse()?, "1m".parse()?);
    /// let exported = store.query().export_to_csv(&btc, minute, &file, Selection::default())?;
    /// assert_eq!((exported.rows, exported.missing_bars), (180, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn export_to_csv(
        &self,
        instrument: &Instrument,
        bar: Bar,
        path: &Path,
        selection: Selection,
    ) -> Result<Exported, Error> {
        export::check_target(&self.household().house(), path)?;
        let (series, now) = (Series { instrument: instrument.clone(), bar }, self.now());
        let exported = self.ask(instrument, bar, |reader| {
            let export = Export::prepare(reader, &series, selection, false, now)?;
            let rows = export.write_file(path, &|| false)?;
            let missing_bars = export.missing_bars();
            Ok(Some(Exported { rows, missing: export.missing, missing_bars }))
        })?;
        exported.ok_or(Error::Nothing { series, stored: None })
    }

    fn select(
        &self,
        instrument: &Instrument,
        bar: Bar,
        selection: Selection,
    ) -> Result<Vec<Candle>, Error> {
        self.ask(instrument, bar, |reader| Ok(reader.candles(bar, selection)?))
    }

    /// Asks the file of an instrument. Where a series is configured and not stored yet there is
    /// nothing.
    fn ask<T: Default>(
        &self,
        instrument: &Instrument,
        bar: Bar,
        question: impl FnOnce(&Reader) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let household = self.household();
        let house = household.house();
        let answer = match self.shared.pool.take(&house, instrument) {
            Ok(kept) => question(&kept.reader).inspect(|_| self.shared.pool.put(kept)),
            Err(error) => Err(Error::Store(error)),
        };
        let wanted = house.wanted(instrument);
        match answer {
            Err(Error::Store(StoreError::Missing { .. })) if wanted.is_none() => {
                Err(Error::Unknown { instrument: instrument.clone() })
            }
            Err(Error::Store(StoreError::Missing { .. } | StoreError::NoBar { .. }))
                if wanted.is_some_and(|wanted| wanted.has(bar)) =>
            {
                Ok(T::default())
            }
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests;
