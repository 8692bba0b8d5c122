//! What whoever only reads needs to know: where the files are, whose they are, and what is wanted
//! in them.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::bar::{Bar, Grid};
use crate::config::{Config, InstrumentConfig};
use crate::coverage::Coverage;
use crate::error::Error;
use crate::instrument::Instrument;
use crate::span::Span;
use crate::store::read::Reader;
use crate::store::{Identity, StoreError, file_path};
use crate::time::{DAY, Millis};

/// An instrument as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is traded.
    pub instrument: Instrument,
    /// The lengths of candle to keep.
    pub bars: Vec<Bar>,
    /// How far back, days of 24 hours.
    pub history_days: u32,
    /// The time between two polls.
    pub sync_interval_ms: Millis,
    /// Whether it is kept fresh.
    pub enabled: bool,
}

impl Wanted {
    /// What the configuration says of one.
    pub fn of(known: &InstrumentConfig) -> Wanted {
        Wanted {
            instrument: known.instrument.clone(),
            bars: known.timeframes.clone(),
            history_days: known.max_history_days,
            sync_interval_ms: known.sync_interval_ms,
            enabled: known.enabled,
        }
    }

    /// Whether this length of candle is kept.
    pub fn has(&self, bar: Bar) -> bool {
        self.bars.contains(&bar)
    }
}

/// The folder of files and what is configured for it.
#[derive(Clone, Copy, Debug)]
pub struct House<'a> {
    /// The file of the configuration.
    pub config: &'a Path,
    /// Whether that file does not exist, so that defaults stand in.
    pub is_builtin: bool,
    /// The folder.
    pub data_dir: &'a Path,
    /// Whose candles are in it.
    pub identity: &'a Identity,
    /// The configured instruments.
    pub instruments: &'a [Wanted],
}

impl House<'_> {
    /// The configuration of an instrument.
    pub fn wanted(&self, instrument: &Instrument) -> Option<&Wanted> {
        self.instruments.iter().find(|wanted| wanted.instrument == *instrument)
    }

    /// The configuration in words: its file, or that there is none.
    pub fn config_text(&self) -> String {
        match self.is_builtin {
            true => format!("built-in defaults: there is no {} yet", self.config.display()),
            false => self.config.display().to_string(),
        }
    }

    /// The file of an instrument, for reading. Nothing where it was never synced.
    pub fn open(&self, instrument: &Instrument) -> Result<Option<Reader>, StoreError> {
        match Reader::open(&file_path(self.data_dir, instrument), self.identity) {
            Err(StoreError::Missing { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The file of an instrument that is asked for by name; one that nobody has heard of is told
    /// from one that waits for its first sync.
    pub fn find(&self, instrument: &Instrument) -> Result<Reader, Error> {
        let path = file_path(self.data_dir, instrument);
        match Reader::open(&path, self.identity) {
            Err(StoreError::Missing { .. }) if self.wanted(instrument).is_none() => {
                Err(Error::Unknown { instrument: instrument.clone() })
            }
            opened => Ok(opened?),
        }
    }

    /// The size of an instrument's file and its log, bytes.
    pub fn bytes(&self, instrument: &Instrument) -> u64 {
        let path = file_path(self.data_dir, instrument);
        let size = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        size(&path) + size(&path.with_extension("db-wal"))
    }

    /// Instruments that have a file but are not configured, by name.
    pub fn strangers(&self) -> Vec<Instrument> {
        let entries = fs::read_dir(self.data_dir).into_iter().flatten().flatten();
        let named = entries.filter_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str()?.strip_suffix(".db")?;
            // A name that is not in its normal form is not one that the store would open.
            name.parse::<Instrument>().ok().filter(|instrument| instrument.as_str() == name)
        });
        let mut found: Vec<Instrument> = named.filter(|name| self.wanted(name).is_none()).collect();
        found.sort();
        found
    }

    /// What to add to the machine's time for the exchange's, ms, as far as anything is known.
    pub fn clock_offset_ms(&self) -> Millis {
        self.learnt_clock_offset_ms().unwrap_or(0)
    }

    /// What the last commit to any of the configured files has left of that; nothing where the
    /// exchange was never reached.
    pub fn learnt_clock_offset_ms(&self) -> Option<Millis> {
        let changed = |wanted: &Wanted| {
            let path = file_path(self.data_dir, &wanted.instrument);
            let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
            time(&path).max(time(&path.with_extension("db-wal")))
        };
        let mut files: Vec<(SystemTime, &Instrument)> = self
            .instruments
            .iter()
            .filter_map(|wanted| Some((changed(wanted)?, &wanted.instrument)))
            .collect();
        files.sort();
        let offset = |instrument| self.open(instrument).ok()??.clock_offset_ms().ok()?;
        files.into_iter().rev().find_map(|(_, instrument)| offset(instrument))
    }

    /// The bars of an instrument, shortest first: those configured, and those stored besides.
    pub fn bars(
        &self,
        instrument: &Instrument,
        reader: Option<&Reader>,
    ) -> Result<Vec<Bar>, StoreError> {
        let mut bars = self.wanted(instrument).map_or_else(Vec::new, |wanted| wanted.bars.clone());
        bars.extend(reader.map_or_else(|| Ok(Vec::new()), Reader::bars)?);
        bars.sort();
        bars.dedup();
        Ok(bars)
    }

    /// The range of closed bars that should be stored at `now`, exchange clock: the configured
    /// history. Of what is stored but not configured, only what lies between its ends is wanted.
    pub fn wanted_span(
        &self,
        instrument: &Instrument,
        bar: Bar,
        grid: Grid,
        coverage: &Coverage,
        now: Millis,
    ) -> Span {
        if let Some(wanted) = self.wanted(instrument).filter(|wanted| wanted.has(bar)) {
            let oldest = now - Millis::from(wanted.history_days) * DAY;
            return Span::new(grid.floor(oldest).max(0), grid.floor(now));
        }
        let ends = coverage.history_start().zip(coverage.spans().last());
        ends.map_or(Span::new(0, 0), |(start, last)| Span::new(start, last.end))
    }
}

/// A configuration, and what a [`House`] is made of, for whoever keeps it.
#[derive(Clone, Debug)]
pub struct Household {
    /// The configuration.
    pub config: Config,
    identity: Identity,
    wanted: Vec<Wanted>,
}

impl Household {
    /// What the configuration says.
    pub fn new(config: Config) -> Household {
        let wanted = config.instruments.iter().map(Wanted::of).collect();
        Household { identity: config.identity(), wanted, config }
    }

    /// The folder and what is configured for it.
    pub fn house(&self) -> House<'_> {
        House {
            config: &self.config.file,
            is_builtin: self.config.is_builtin,
            data_dir: &self.config.data_dir,
            identity: &self.identity,
            instruments: &self.wanted,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::sample::{BASE, Sample};
    use crate::time::MINUTE;

    #[test]
    fn files_that_nobody_configured_are_named() {
        let sample = Sample::new();
        for name in ["BTC-USDT", "ETH-USDT", "SOL-USDT"] {
            sample.store(name, "1m", &[(0, 1.0)], None);
        }
        fs::write(sample.data_dir().join("notes.db"), "").unwrap();
        fs::write(sample.data_dir().join("eth-usdt.db"), "").unwrap();
        let wanted = [wanted("BTC-USDT", &["1m"])];
        let house = house(&sample, &wanted);
        let names: Vec<String> = house.strangers().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["ETH-USDT", "SOL-USDT"]);
        let nobody: Instrument = "NO-BODY".parse().unwrap();
        assert!(matches!(house.find(&nobody), Err(Error::Unknown { .. })));
        assert!(house.open(&nobody).unwrap().is_none());
    }

    #[test]
    fn the_clock_is_the_one_of_the_last_contact() {
        let sample = Sample::new();
        let bar: Bar = "1m".parse().unwrap();
        let candle = crate::store::sample::candle(BASE, 1.0, true);
        let page = crate::store::sample::page(vec![candle]);
        let entry = crate::store::file::Entry { bar, grid: Some(bar.grid()), page, at: BASE };
        sample.file("BTC-USDT").commit(&[entry], -4_000).unwrap();
        let wanted = [wanted("ETH-USDT", &["1m"]), wanted("BTC-USDT", &["1m"])];
        assert_eq!(house(&sample, &wanted).clock_offset_ms(), -4_000);
        assert_eq!(house(&sample, &wanted[..1]).clock_offset_ms(), 0);
    }

    pub(crate) fn wanted(name: &str, bars: &[&str]) -> Wanted {
        let bars = bars.iter().map(|bar| bar.parse().unwrap()).collect();
        let instrument = name.parse().unwrap();
        Wanted { instrument, bars, history_days: 365, sync_interval_ms: MINUTE, enabled: true }
    }

    pub(crate) fn house<'a>(sample: &'a Sample, instruments: &'a [Wanted]) -> House<'a> {
        House {
            config: Path::new("config.json"),
            is_builtin: false,
            data_dir: sample.data_dir(),
            identity: sample.identity(),
            instruments,
        }
    }
}
