//! The auditor: a thread that counts stored rows against what the ledger says, so that rows which
//! other hands have deleted are noticed and fetched again.
//!
//! A daemon has all of its series counted once after its start, in the background, and those again
//! that a command asks for. It reads only, and ends when nobody asks any more.

use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender};
use log::warn;

use crate::instrument::Series;
use crate::span::Spans;
use crate::store::read::Reader;
use crate::store::{Identity, StoreError, file_path};

/// A series was counted.
#[derive(Debug)]
pub struct Audit {
    /// Which.
    pub series: Series,
    /// What is covered and has no rows.
    pub lost: Spans,
}

/// What the auditor works with.
pub struct Auditor {
    /// The folder of the files.
    pub data_dir: PathBuf,
    /// Whose candles they hold.
    pub identity: Identity,
    /// The series that are counted first, whose results are heard like the others'.
    pub first: Vec<Series>,
    /// Those that somebody asks for.
    pub orders: Receiver<Series>,
    /// Results to the supervisor.
    pub audits: Sender<Audit>,
}

impl Auditor {
    /// Works until the orders end, or nobody takes the results.
    pub fn run(mut self) {
        let first = std::mem::take(&mut self.first);
        for series in first.into_iter().chain(self.orders.iter()) {
            let lost = self.count(&series).unwrap_or_else(|error| {
                // Whoever writes the file meets the same failure, and acts on it.
                warn!(target: "audit", "{series}: not counted: {error}");
                Spans::new()
            });
            if !lost.is_empty() {
                let bars: i64 = lost.iter().map(|span| series.bar.grid().count(span)).sum();
                warn!(
                    target: "audit",
                    "{series}: {bars} stored bars are gone and are fetched again"
                );
            }
            if self.audits.send(Audit { series, lost }).is_err() {
                break;
            }
        }
    }

    fn count(&self, series: &Series) -> Result<Spans, StoreError> {
        let path = file_path(&self.data_dir, &series.instrument);
        let reader = match Reader::open(&path, &self.identity) {
            Ok(reader) => reader,
            Err(StoreError::Missing { .. }) => return Ok(Spans::new()),
            Err(error) => return Err(error),
        };
        // One snapshot for ledger and rows: the writer goes on meanwhile.
        let _snapshot = reader.snapshot()?;
        if !reader.bars()?.contains(&series.bar) {
            return Ok(Spans::new());
        }
        let grid = reader.grid(series.bar)?;
        let mut coverage = reader.coverage(series.bar)?;
        reader.audit(series.bar, grid, &mut coverage)
    }
}
