//! A store that mirrors a fixture exchange, and the comparison of the two.

use std::path::Path;

use okx_local_store::control::{Control, Line};
use okx_local_store::engine::{self, Outcome, Setup};
use okx_local_store::http::HttpOptions;
use okx_local_store::instrument::Series;
use okx_local_store::plan::Wanted;
use okx_local_store::store::Identity;
use okx_local_store::time::{DAY, Millis, Now};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::exchange::{Exchange, Row};

/// A folder with a store in it.
pub struct Mirror {
    _dir: TempDir,
    pub setup: Setup,
}

pub fn series(instrument: &str, bar: &str) -> Series {
    Series { instrument: instrument.parse().unwrap(), bar: bar.parse().unwrap() }
}

impl Mirror {
    /// An empty store that will mirror this exchange.
    pub fn of(exchange: &Exchange) -> Mirror {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            data_dir: dir.path().join("data"),
            identity: Identity { venue: "okx", region: "global".into(), demo: false },
            http: HttpOptions {
                base_url: exchange.url(),
                ca_file: None,
                sandbox: false,
                credentials: None,
            },
            workers: 3,
            rate_limit_per_minute: 0,
            commit_interval_ms: 100,
        };
        Mirror { _dir: dir, setup }
    }

    /// One run for these series, each so many days back.
    pub fn sync(&self, wanted: &[(Series, u32)]) -> Outcome {
        self.sync_watched(wanted, &mut |_, _| {})
    }

    pub fn sync_watched(
        &self,
        wanted: &[(Series, u32)],
        watch: &mut dyn FnMut(&Control, Now),
    ) -> Outcome {
        let wanted: Vec<(Series, Wanted)> =
            wanted.iter().map(|(series, days)| (series.clone(), Wanted::Days(*days))).collect();
        engine::run(&self.setup, &wanted, watch).unwrap()
    }

    /// The file of an instrument, as anybody may open it.
    pub fn open(&self, instrument: &str) -> Connection {
        Connection::open(self.setup.data_dir.join(format!("{instrument}.db"))).unwrap()
    }

    /// The closed rows of a series, oldest first.
    pub fn rows(&self, series: &Series) -> Vec<Row> {
        closed_rows(&self.setup.data_dir, series)
    }

    /// Fails unless the store is the exchange's equal, see [`assert_equals`].
    pub fn assert_equals(&self, exchange: &Exchange, series: &Series, days: u32, now: Millis) {
        assert_equals(&self.setup.data_dir, exchange, series, days, now);
    }
}

/// Fails unless the store has exactly the closed bars that the exchange has, from `days` back up to
/// the newest stored one, which must be the newest there is when `now` was.
pub fn assert_equals(
    data_dir: &Path,
    exchange: &Exchange,
    series: &Series,
    days: u32,
    now: Millis,
) {
    let start = now - Millis::from(days) * DAY;
    let stored = closed_rows(data_dir, series);
    let truth = exchange.truth(series.instrument.as_str(), series.bar.name(), 0, now);
    let first = stored.first().expect("because something was stored").ts;
    assert!(
        first <= start.max(truth[0].ts),
        "{series}: the store begins at {first}, after {start}"
    );
    let truth: Vec<Row> = truth.into_iter().filter(|row| row.ts >= first).collect();
    for (stored, truth) in stored.iter().zip(&truth) {
        assert_eq!(stored, truth, "{series}");
    }
    assert_eq!(stored.len(), truth.len(), "{series}");
}

pub fn closed_rows(data_dir: &Path, series: &Series) -> Vec<Row> {
    try_closed_rows(data_dir, series).unwrap()
}

/// The same of a store that may not have the series yet.
pub fn try_closed_rows(data_dir: &Path, series: &Series) -> rusqlite::Result<Vec<Row>> {
    let path = data_dir.join(format!("{}.db", series.instrument));
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sql = format!("SELECT * FROM {} WHERE confirmed = 1 ORDER BY ts", series.bar.table());
    let mut query = conn.prepare(&sql)?;
    let rows = query.query_map([], |row| {
        Ok(Row {
            ts: row.get(0)?,
            o: row.get(1)?,
            h: row.get(2)?,
            l: row.get(3)?,
            c: row.get(4)?,
            vol: row.get(5)?,
            vol_ccy: row.get(6)?,
            vol_quote: row.get(7)?,
        })
    });
    rows?.collect()
}

/// The line of a series in an outcome.
pub fn line<'a>(outcome: &'a Outcome, series: &Series) -> &'a Line {
    outcome.control.lines().iter().find(|line| line.series == *series).unwrap()
}

/// Fails unless everything went well.
pub fn assert_done(outcome: &Outcome) {
    assert_eq!(outcome.control.gave_up(), None);
    assert_eq!(outcome.ending.panic, None);
    for line in outcome.control.lines() {
        assert_eq!(line.error, None, "{}", line.series);
        assert_eq!(line.tally(outcome.now).missing, 0, "{}", line.series);
    }
}
