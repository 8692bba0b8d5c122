//! A series as CSV: streamed, so that memory does not grow with it, and whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::bar::Grid;
use crate::csv::CsvWriter;
use crate::draft::{self, Draft};
use crate::error::Error;
use crate::house::House;
use crate::instrument::Series;
use crate::span::Span;
use crate::store::StoreError;
use crate::store::query::{EVERYTHING, Selection, Snapshot};
use crate::store::read::Reader;
use crate::time::Millis;

/// Why the lines did not all go out.
#[derive(Debug)]
pub enum WriteError {
    /// The store says no.
    Store(StoreError),
    /// Whoever takes the lines does not.
    Output(io::Error),
    /// Somebody has had enough.
    Stopped,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> WriteError {
        WriteError::Store(error)
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> WriteError {
        WriteError::Output(error)
    }
}

/// The candles to be written, as they were when this was made: the rows, and what is said of them,
/// are of one moment, whatever is written meanwhile.
#[derive(Debug)]
pub struct Export<'a> {
    reader: &'a Reader,
    _snapshot: Snapshot<'a>,
    series: &'a Series,
    span: Span,
    unconfirmed: bool,
    grid: Grid,
    /// The ranges, each of some bars, that should be there but are not stored, though the exchange
    /// may have them.
    pub missing: Vec<Span>,
}

impl<'a> Export<'a> {
    /// Looks at what is selected, the running bar among it if `unconfirmed`, at the time `now` of
    /// the exchange's clock.
    ///
    /// # Errors
    ///
    /// [`Error::Nothing`] if there is no such candle.
    pub fn prepare(
        reader: &'a Reader,
        series: &'a Series,
        selection: Selection,
        unconfirmed: bool,
        now: Millis,
    ) -> Result<Export<'a>, Error> {
        let _snapshot = reader.snapshot()?;
        let span = reader.resolve(series.bar, selection)?;
        let Some(first) = reader.first_open(series.bar, span, !unconfirmed)? else {
            return Err(nothing(reader, series)?);
        };
        let grid = reader.grid(series.bar)?;
        let missing = missing(reader, series, grid, span, first, now)?;
        Ok(Export { reader, _snapshot, series, span, unconfirmed, grid, missing })
    }

    /// How many bars open in a range.
    pub fn count(&self, span: Span) -> i64 {
        self.grid.count(span)
    }

    /// How many bars are missing.
    pub fn missing_bars(&self) -> i64 {
        self.missing.iter().map(|&span| self.count(span)).sum()
    }

    /// Writes the lines, unless `stopped` says that it is enough; gives the number of rows.
    ///
    /// # Errors
    ///
    /// What has gone out by then stays out.
    pub fn write(
        &self,
        out: &mut dyn Write,
        stopped: &dyn Fn() -> bool,
    ) -> Result<i64, WriteError> {
        let mut csv = CsvWriter::new(out, self.unconfirmed);
        let mut rows = 0;
        self.reader.for_each(self.series.bar, self.span, !self.unconfirmed, |candle| {
            rows += 1;
            if stopped() { Err(WriteError::Stopped) } else { Ok(csv.write(candle)?) }
        })?;
        csv.flush()?;
        Ok(rows)
    }

    /// Writes the lines to a file, which appears when it is whole or not at all.
    ///
    /// # Errors
    ///
    /// Whatever stood there before still does.
    pub fn write_file(&self, path: &Path, stopped: &dyn Fn() -> bool) -> Result<i64, Error> {
        let mut draft = Draft::begin(path)?;
        let rows = self.write(&mut draft, stopped).map_err(|error| match error {
            WriteError::Store(error) => Error::Store(error),
            WriteError::Output(source) => draft.failure(source),
            WriteError::Stopped => Error::Stopped,
        })?;
        draft.finish()?;
        Ok(rows)
    }
}

/// The failure of finding no candles, with what there is instead.
pub fn nothing(reader: &Reader, series: &Series) -> Result<Error, StoreError> {
    let oldest = reader.first_open(series.bar, EVERYTHING, false)?;
    let stored = oldest.zip(reader.newest_row(series.bar)?.map(|newest| newest.candle.ts));
    Ok(Error::Nothing { series: series.clone(), stored })
}

/// Without a beginning of its own an export begins with the first row, and without an end it ends
/// with the newest closed bar.
fn missing(
    reader: &Reader,
    series: &Series,
    grid: Grid,
    span: Span,
    first: Millis,
    now: Millis,
) -> Result<Vec<Span>, StoreError> {
    let bar = series.bar;
    let start = if span.start >= 0 { grid.ceil(span.start) } else { first };
    let newest = reader.latest_closed(bar)?.map_or(start, |newest| grid.bar_at(newest.ts).end);
    let end = if span.end == EVERYTHING.end { newest } else { span.end.min(grid.floor(now)) };
    let mut coverage = reader.coverage(bar)?;
    // Only what is exported needs counting.
    coverage.uncover(Span::new(EVERYTHING.start, start));
    coverage.uncover(Span::new(end, EVERYTHING.end));
    reader.audit(bar, grid, &mut coverage)?;
    let missing = coverage.missing(Span::new(start, end));
    Ok(missing.iter().filter(|&span| grid.count(span) > 0).collect())
}

/// Refuses, before any work, what can be no target. A link counts as what it leads to.
pub fn check_target(house: &House<'_>, path: &Path) -> Result<(), Error> {
    let refuse = |why| Err(Error::Target { path: path.to_owned(), why });
    let Ok(end) = draft::destination(path) else {
        return refuse("is a link that leads nowhere: give another name");
    };
    let found = fs::metadata(&end);
    if found.as_ref().is_ok_and(fs::Metadata::is_dir) {
        return refuse("is a folder: name a file in it");
    }
    let (Some(folder), Some(name)) = (end.parent(), end.file_name()) else {
        return refuse("names no file");
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    if !folder.is_dir() {
        return refuse("its folder does not exist: make it first");
    }
    if found.is_ok_and(|found| !found.is_file()) {
        return refuse("is no regular file: give - for standard output");
    }
    // To rename a draft over a file of the store would lose the store.
    let same = |left: &Path, right: &Path| {
        fs::canonicalize(left).is_ok_and(|left| fs::canonicalize(right).is_ok_and(|r| r == left))
    };
    if same(&end, house.config) {
        return refuse("is the configuration: export to another name");
    }
    let beside = same(folder, house.data_dir);
    let name = name.to_string_lossy();
    let own = [".db", ".db-wal", ".db-shm", ".lock"].iter().any(|end| name.ends_with(end));
    if own && beside {
        return refuse("is a file of the store: export to another name");
    }
    Ok(())
}
