//! Small stores for tests: a folder that goes with its value, and candles as they are needed.

use std::path::Path;

use tempfile::TempDir;

use crate::bar::Bar;
use crate::candle::Candle;
use crate::page::{Ask, Page};
use crate::store::file::{Entry, File};
use crate::store::read::Reader;
use crate::store::{Identity, file_path};
use crate::time::{Millis, SECOND};

/// 2024-05-01T00:00:00Z: the bar that holds it is number 0 of each series.
pub(crate) const BASE: Millis = 1_714_521_600_000;

/// A folder of candle files.
pub(crate) struct Sample {
    dir: TempDir,
    identity: Identity,
}

impl Sample {
    pub(crate) fn new() -> Sample {
        let identity = Identity { venue: "okx", region: "global".into(), demo: false };
        Sample { dir: tempfile::tempdir().unwrap(), identity }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Stores one page of closed bars, by number and close, and maybe a running one. What lies
    /// between them is empty; what lies between two pages is missing. It was heard five seconds
    /// after the newest of them opened (running) or ended (closed).
    pub(crate) fn store(
        &self,
        name: &str,
        bar: &str,
        closed: &[(i64, f64)],
        running: Option<(i64, f64)>,
    ) {
        let bar: Bar = bar.parse().unwrap();
        let grid = bar.grid();
        let mut rows: Vec<Candle> =
            closed.iter().map(|&(n, close)| candle(grid.step(BASE, n), close, true)).collect();
        rows.extend(running.map(|(n, close)| candle(grid.step(BASE, n), close, false)));
        let newest = rows.iter().map(|row| (row.ts, row.confirmed)).max().unwrap();
        let at = if newest.1 { grid.next(newest.0) } else { newest.0 } + 5 * SECOND;
        self.commit(name, Entry { bar, grid: Some(grid), page: page(rows), at });
    }

    /// Stores one page as it is.
    pub(crate) fn commit(&self, name: &str, entry: Entry) {
        self.file(name).commit(&[entry], 0).unwrap();
    }

    /// The file, open for writing.
    pub(crate) fn file(&self, name: &str) -> File {
        File::open(&file_path(self.dir.path(), &name.parse().unwrap()), &self.identity).unwrap()
    }

    /// The file, open for reading.
    pub(crate) fn reader(&self, name: &str) -> Reader {
        Reader::open(&file_path(self.dir.path(), &name.parse().unwrap()), &self.identity).unwrap()
    }
}

/// A page of newest rows.
pub(crate) fn page(rows: Vec<Candle>) -> Page {
    Page::new(Ask::Newest { limit: 300, until: 0 }, rows, Vec::new())
}

/// A candle around a price: one below and half above it, of volume 2.5.
pub(crate) fn candle(ts: Millis, close: f64, confirmed: bool) -> Candle {
    Candle {
        ts,
        open: close,
        high: close + 0.5,
        low: close - 1.0,
        close,
        volume: 2.5,
        volume_ccy: 2.5 * close,
        volume_quote: 2.5 * close,
        confirmed,
    }
}
