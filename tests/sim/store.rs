//! The model of the store: rows, spans and ledger of each series in memory, changed by whole
//! commits under the contract of `store::file::File::commit`.
//!
//! What can be shared with the real one is: the rule of finality, what a page proves, and what the
//! ledger makes of it. That the rest is the same is tested by doing the commits of a run again with
//! real files.

use std::collections::BTreeMap;

use okx_local_store::bar::{Bar, Grid};
use okx_local_store::candle::{State, Verdict};
use okx_local_store::coverage::Coverage;
use okx_local_store::instrument::{Instrument, Series};
use okx_local_store::page::{Evidence, Stored};
use okx_local_store::span::Spans;
use okx_local_store::store::file::{Entry, judge};
use okx_local_store::store::read::fit;
use okx_local_store::time::Millis;
use okx_local_store::wire::Endpoint;

/// What is stored of one series.
#[derive(Debug)]
pub struct Table {
    pub rows: BTreeMap<Millis, State>,
    pub coverage: Coverage,
    pub grid: Grid,
}

/// One commit, as it can be done again.
pub struct Commit {
    pub instrument: Instrument,
    pub entries: Vec<Entry>,
    pub stored: Vec<Stored>,
}

/// The folder of a store: what survives a process.
#[derive(Default)]
pub struct Store {
    pub tables: BTreeMap<Series, Table>,
    pub offset_ms: Option<Millis>,
    /// The record of granted requests, by local time.
    pub grants: Vec<(Endpoint, Millis)>,
    /// The commits so far, where somebody wants them.
    pub commits: Option<Vec<Commit>>,
}

impl Store {
    /// Stores pages of one instrument: all of them, or none.
    pub fn commit(
        &mut self,
        instrument: &Instrument,
        entries: &[&Entry],
        offset_ms: Millis,
    ) -> Vec<Stored> {
        self.offset_ms = Some(offset_ms);
        let stored: Vec<Stored> = entries.iter().map(|it| self.put(instrument, it)).collect();
        if let Some(commits) = &mut self.commits {
            let entries = entries.iter().map(|&entry| entry.clone()).collect();
            let (instrument, stored) = (instrument.clone(), stored.clone());
            commits.push(Commit { instrument, entries, stored });
        }
        stored
    }

    pub fn table(&self, series: &Series) -> Option<&Table> {
        self.tables.get(series)
    }

    fn put(&mut self, instrument: &Instrument, entry: &Entry) -> Stored {
        let series = Series { instrument: instrument.clone(), bar: entry.bar };
        let table = self.tables.entry(series).or_insert_with(|| Table::new(entry.bar));
        let mut stored = judge(entry, table.grid);
        for &candle in &entry.page.rows {
            let source = entry.page.origin.source();
            table.hear(State { candle, source, updated_at: entry.at }, &mut stored);
        }
        table.withdraw(stored.grid, &mut stored.evidence);
        table.coverage.absorb(&stored.evidence, stored.at);
        if entry.grid.is_some() && entry.page.rows.len() > 1 && stored.off_grid.is_none() {
            table.grid = stored.grid;
        }
        stored
    }
}

impl Table {
    fn new(bar: Bar) -> Table {
        Table { rows: BTreeMap::new(), coverage: Coverage::default(), grid: bar.grid() }
    }

    fn hear(&mut self, heard: State, stored: &mut Stored) {
        let ts = heard.candle.ts;
        let verdict = self.rows.get(&ts).map_or(Verdict::Replace, |known| known.hear(&heard));
        if verdict == Verdict::Keep {
            return;
        }
        let before = self.rows.insert(ts, heard);
        let was_closed = before.is_some_and(|before| before.candle.confirmed);
        assert!(
            heard.candle.confirmed || !was_closed,
            "a closed bar is replaced by an unclosed one: {ts}"
        );
        match verdict {
            Verdict::Revise => stored.revised += 1,
            _ => stored.closed += u32::from(heard.candle.confirmed),
        }
    }

    fn withdraw(&self, grid: Grid, evidence: &mut Evidence) {
        if evidence.before_history {
            return;
        }
        for span in evidence.absent.clone().iter() {
            for (&ts, state) in self.rows.range(span.start..span.end) {
                if state.candle.confirmed {
                    evidence.absent.remove(grid.bar_at(ts));
                }
            }
        }
    }

    /// What a plan is made from: the grid as the newest rows show it, and the rows outside of the
    /// spans which are not closed although they have ended by `now`.
    pub fn resume(&self, bar: Bar, now: Millis) -> (Grid, Coverage, Vec<Millis>) {
        let newest: Vec<Millis> = self.rows.keys().rev().take(3).copied().collect();
        let grid = fit(bar.grid(), &newest);
        let is_open = |&(ts, state): &(&Millis, &State)| {
            !state.candle.confirmed
                && self.coverage.spans().around(*ts).is_none()
                && grid.bar_at(*ts).end <= now
        };
        let open = self.rows.iter().filter(is_open).map(|(&ts, _)| ts).collect();
        (grid, self.coverage.clone(), open)
    }

    /// The bars that are said to be covered with rows, and have none that is closed.
    pub fn holes(&self) -> Spans {
        let mut holes = Spans::new();
        for span in self.coverage.with_rows().iter() {
            let mut expected = self.grid.ceil(span.start);
            for (&ts, state) in self.rows.range(span.start..span.end) {
                if state.candle.confirmed && self.grid.opens_at(ts) {
                    holes.insert(okx_local_store::span::Span::new(expected, ts));
                    expected = self.grid.next(ts);
                }
            }
            let end = self.grid.ceil(span.end);
            holes.insert(okx_local_store::span::Span::new(expected, end));
        }
        holes
    }
}
