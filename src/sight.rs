//! What can be seen of the daemon from another process.
//!
//! **Invariant:** a daemon is running if the lock of the data folder is held, and signed as a
//! daemon's. A snapshot proves nothing: it may be left from before, and it is absent or old where
//! the disk takes none.

use std::path::Path;

use serde::Serialize;

use crate::config::{Config, InstrumentConfig};
use crate::instrument::Instrument;
use crate::lock::{Lock, LockError};
use crate::snapshot::{InstrumentView, Snapshot};
use crate::time::{Millis, SECOND, wall_now};

/// A daemon that is well has written its snapshot since.
const STALE_MS: Millis = 5 * SECOND;

/// A running daemon.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What it shows; its pid alone where it shows nothing.
    pub snapshot: Snapshot,
    /// How long ago it has written that, if it has written any.
    pub age_ms: Option<Millis>,
}

/// The sync engine: a daemon's, or a program's. The default is that there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DaemonStatus {
    /// Whether it runs.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// For how long it has been running, ms.
    pub uptime_ms: Option<Millis>,
    /// Its version.
    pub version: Option<String>,
    /// How old all that it shows is, ms.
    pub snapshot_age_ms: Option<Millis>,
    /// Why a changed configuration was refused, while the one before still holds.
    pub config_error: Option<String>,
    /// Why nothing can be stored at present.
    pub stalled: Option<String>,
}

impl Sight {
    /// Looks whether a daemon works in this folder, as far as one may look.
    pub fn look(data_dir: &Path) -> Option<Sight> {
        Sight::try_look(data_dir).ok().flatten()
    }

    /// The same, for whoever does not take it for an answer that he may not look.
    ///
    /// # Errors
    ///
    /// The lock cannot be read, so there may be a daemon or none.
    pub fn try_look(data_dir: &Path) -> Result<Option<Sight>, LockError> {
        let daemon = Lock::look(data_dir)?.filter(|holder| holder.is_daemon);
        Ok(daemon.map(|holder| Sight::of(data_dir, holder.pid)))
    }

    fn of(data_dir: &Path, pid: u32) -> Sight {
        let snapshot = Snapshot::read(data_dir).filter(|snapshot| snapshot.pid == pid);
        let age_ms = snapshot.as_ref().map(|snapshot| (wall_now() - snapshot.written_at).max(0));
        let nothing = Snapshot { pid, ..Snapshot::default() };
        Sight { snapshot: snapshot.unwrap_or(nothing), age_ms }
    }

    /// Whether it shows anything of itself.
    pub fn is_shown(&self) -> bool {
        self.age_ms.is_some()
    }

    /// The exchange's time at this moment, where it is shown.
    pub fn now(&self) -> Option<Millis> {
        Some(self.snapshot.now + self.age_ms?)
    }

    /// The exchange's time that ages count to: that of the snapshot, which is newer than what it
    /// tells of by far less than a second, while there will be a next one; else this moment's.
    pub fn seen_at(&self) -> Millis {
        self.since(self.snapshot.now)
    }

    /// An age of the snapshot's, by the same rule.
    pub fn since(&self, age_ms: Millis) -> Millis {
        age_ms + self.stale_ms().unwrap_or(0)
    }

    /// For how long it has shown nothing new, where it should have.
    pub(crate) fn stale_ms(&self) -> Option<Millis> {
        self.age_ms.filter(|&age_ms| age_ms >= STALE_MS)
    }

    /// The daemon as plain data.
    pub fn daemon(&self) -> DaemonStatus {
        DaemonStatus {
            running: true,
            pid: Some(self.snapshot.pid),
            uptime_ms: self.age_ms.map(|_| self.since(self.snapshot.uptime_ms)),
            version: self.age_ms.map(|_| self.snapshot.version.clone()),
            snapshot_age_ms: self.age_ms,
            config_error: self.snapshot.config_error.clone(),
            stalled: self.snapshot.stalled.clone(),
        }
    }

    /// The instruments that the daemon keeps, for whoever cannot read all of the configuration.
    /// Where it shows none those stand that can be read.
    pub fn kept(&self, config: &Config) -> Vec<InstrumentConfig> {
        if !self.is_shown() {
            return config.instruments.clone();
        }
        let kept = |view: &InstrumentView| {
            let instrument: Instrument = view.symbol.parse().ok()?;
            let bars = view.series.iter().filter_map(|series| series.timeframe.parse().ok());
            let known = config.instrument(&instrument).cloned();
            let known = known.unwrap_or_else(|| InstrumentConfig::new(instrument));
            Some(InstrumentConfig { timeframes: bars.collect(), ..known })
        };
        self.snapshot.instruments.iter().filter_map(kept).collect()
    }

    /// What the daemon shows of an instrument.
    pub fn instrument(&self, symbol: &str) -> Option<&InstrumentView> {
        self.snapshot.instruments.iter().find(|view| view.symbol == symbol)
    }
}
