//! What is always true, looked at in each step, and the oracle: what the store has in the end
//! against what the exchange has.

use std::collections::{BTreeMap, BTreeSet};

use okx_local_store::control::{Action as Fetch, Job};
use okx_local_store::coverage::Coverage;
use okx_local_store::instrument::{Instrument, Series};
use okx_local_store::keeper::Keeper;
use okx_local_store::mode::{Change, Mode};
use okx_local_store::page::{Ask, Stored};
use okx_local_store::span::{Span, Spans};
use okx_local_store::store::file::Entry;
use okx_local_store::time::{MINUTE, Millis, Now, SECOND, format_time};
use okx_local_store::wire::{Endpoint, Policy};

use crate::exchange::Exchange;
use crate::store::{Store, Table};

/// Pages of a series that may be in flight together.
const IN_FLIGHT_MAX: usize = 4;
/// The transitions that `src/mode.rs` draws.
pub const DRAWN: [(Mode, Mode); 9] = [
    (Mode::Poll, Mode::Joining),
    (Mode::Wait, Mode::Joining),
    (Mode::Joining, Mode::Stream),
    (Mode::Joining, Mode::Poll),
    (Mode::Joining, Mode::Wait),
    (Mode::Stream, Mode::Poll),
    (Mode::Stream, Mode::Wait),
    (Mode::Wait, Mode::Poll),
    // Refused, and not to poll: only the cause is another.
    (Mode::Wait, Mode::Wait),
];

#[derive(Default)]
pub struct Judge {
    modes: BTreeMap<Instrument, Mode>,
    flights: BTreeMap<u64, (Series, Ask)>,
    /// Until when an endpoint is to be left alone, by local time.
    pauses: BTreeMap<Endpoint, Millis>,
    endpoints: BTreeMap<u64, Endpoint>,
    /// Requests that have not ended.
    open: BTreeSet<u64>,
    /// The changes of modes that were seen.
    pub seen: Vec<(Mode, Mode)>,
    /// Bars that other hands have deleted.
    pub tampered: BTreeMap<Series, Spans>,
}

impl Judge {
    /// A process begins.
    pub fn begin(&mut self) {
        self.modes.clear();
        self.flights.clear();
        self.pauses.clear();
        self.endpoints.clear();
        self.open.clear();
    }

    /// An instrument is no longer kept: what is under way for it is nobody's.
    pub fn forget(&mut self, instrument: &Instrument) {
        self.modes.remove(instrument);
        self.flights.retain(|_, (series, _)| series.instrument != *instrument);
    }

    /// A mode has changed.
    pub fn changed(&mut self, instrument: &Instrument, change: &Change) {
        let (from, to) = (change.from, change.to);
        let known = self.modes.insert(instrument.clone(), to);
        assert!(
            known.is_none_or(|known| known == from),
            "{instrument}: {change:?} after {known:?}"
        );
        assert!(DRAWN.contains(&(from, to)), "{instrument}: {change:?} is not drawn");
        if !self.seen.contains(&(from, to)) {
            self.seen.push((from, to));
        }
    }

    /// A request goes out.
    pub fn asked(&mut self, fetch: &Fetch, now: Millis, store: &Store) {
        let endpoint = fetch.job.endpoint();
        let until = self.pauses.get(&endpoint).copied().unwrap_or(now);
        assert!(now >= until, "{endpoint} is asked in the pause after a failure");
        self.endpoints.insert(fetch.ticket, endpoint);
        self.open.insert(fetch.ticket);
        let Job::Page { series, ask, .. } = &fetch.job else { return };
        let others: Vec<Ask> =
            self.flights.values().filter(|(of, _)| of == series).map(|(_, ask)| *ask).collect();
        assert!(others.len() < IN_FLIGHT_MAX, "{series}: more than {IN_FLIGHT_MAX} in flight");
        let is_newest = |ask: &&Ask| matches!(ask, Ask::Newest { .. });
        // A bar that is looked for and a poll ask the same, while an answer waits for the disk.
        let same = others.iter().filter(|other| *other == ask).count();
        let allowed = usize::from(is_newest(&ask));
        assert!(same <= allowed, "{series}: {ask:?} is in flight more than once");
        let nothing = Coverage::default();
        let known = store.table(series).map_or(&nothing, |table| &table.coverage);
        for other in others {
            let (Ask::Window { span, .. }, Ask::Window { span: also, .. }) = (*ask, other) else {
                continue;
            };
            // Windows reach beyond what they are asked for, but only over what is stored.
            let twice = known.missing(span.intersection(also));
            let twice = if span.intersection(also).is_empty() { Spans::new() } else { twice };
            assert!(twice.is_empty(), "{series}: {twice} is asked for twice");
        }
        self.flights.insert(fetch.ticket, (series.clone(), *ask));
    }

    /// Whether a request is under way.
    pub fn waits(&self) -> bool {
        !self.open.is_empty()
    }

    /// A request has ended.
    pub fn landed(&mut self, ticket: u64) {
        self.open.remove(&ticket);
        self.flights.remove(&ticket);
    }

    /// A request has failed: its endpoint is left alone for a while.
    pub fn failed(&mut self, ticket: u64, policy: Policy, now: Millis) {
        let pause_ms = match policy {
            Policy::Permanent => return,
            Policy::Busy { retry_after_ms } => retry_after_ms.unwrap_or(0).max(SECOND),
            Policy::RateLimited { retry_after_ms } => retry_after_ms.unwrap_or(0).max(2 * SECOND),
            Policy::Denied => 2 * MINUTE,
        };
        let endpoint = self.endpoints[&ticket];
        let until = self.pauses.entry(endpoint).or_insert(now);
        *until = now + pause_ms.max(*until - now);
    }

    /// Something was committed.
    pub fn committed(
        &mut self,
        instrument: &Instrument,
        entries: &[&Entry],
        stored: &[Stored],
        store: &Store,
        exchange: &mut Exchange,
    ) {
        for (entry, stored) in entries.iter().zip(stored) {
            let series = Series { instrument: instrument.clone(), bar: entry.bar };
            let number = exchange.number(&series);
            let table = store.table(&series).expect("because it was committed to");
            for row in entry.page.rows.iter().filter(|row| row.confirmed) {
                let kept = &table.rows[&row.ts].candle;
                assert!(kept.confirmed, "{series}: a closed bar is not kept: {row:?}");
                assert!(exchange.is_true(number, kept), "{series}: {kept:?} was never served");
            }
            for span in stored.evidence.vouched.iter() {
                let mut holes = holes_in(table, span);
                if let Some(tampered) = self.tampered.get(&series) {
                    holes = holes.difference(tampered);
                }
                assert!(holes.is_empty(), "{series}: {holes} is covered and not stored");
            }
        }
    }

    /// Spans say nothing that is not stored.
    pub fn check_spans(&self, store: &Store) {
        for (series, table) in &store.tables {
            let mut holes = table.holes();
            if let Some(tampered) = self.tampered.get(series) {
                holes = holes.difference(tampered);
            }
            assert!(holes.is_empty(), "{series}: {holes} is covered and not stored");
            for empty in table.coverage.empties() {
                let inside = table.coverage.spans().covers(empty.span);
                assert!(inside, "{series}: {} is empty and not covered", empty.span);
            }
        }
    }
}

/// The bars of a range that are covered and have neither a closed row nor an entry in the ledger.
fn holes_in(table: &Table, span: Span) -> Spans {
    let mut open = table.coverage.spans().intersection(span);
    for empty in table.coverage.empties() {
        open.remove(empty.span);
    }
    for (&ts, state) in table.rows.range(span.start..span.end) {
        if state.candle.confirmed {
            open.remove(table.grid.bar_at(ts));
        }
    }
    // A range may begin or end within a bar, as history does.
    open.iter().filter(|gap| table.grid.count(*gap) > 0).collect()
}

/// What of a series is not as it should be, as far as it had ended at `end`.
pub fn compare(
    exchange: &mut Exchange,
    store: &Store,
    number: usize,
    (start, end): (Millis, Millis),
) -> Result<(), String> {
    let grid = exchange.series[number].series.bar.grid();
    let (start, end) = (grid.floor(start), grid.floor(end));
    let truth = exchange.truth(number, start, end);
    let Some(table) = store.table(&exchange.series[number].series) else {
        return if truth.is_empty() { Ok(()) } else { Err("nothing is stored".to_owned()) };
    };
    let mut stored = table.rows.range(start..end).map(|(_, state)| state.candle);
    for row in &truth {
        let kept = stored.next();
        if kept != Some(*row) {
            return Err(format!("{row:?} is stored as {kept:?}"));
        }
    }
    if let Some(row) = stored.next() {
        return Err(format!("{row:?} is foreign"));
    }
    let missing = table.coverage.missing(Span::new(start, end));
    if !missing.is_empty() && start < end {
        return Err(format!("{missing} is not covered"));
    }
    Ok(())
}

/// What a daemon's plan of a series does not know, or believes wrongly, of what is stored.
pub fn compare_plan(store: &Store, mind: &Keeper, series: &Series, now: Now) -> Result<(), String> {
    let line = mind.line(series).ok_or("it is not kept")?;
    if let Some(error) = &line.error {
        return Err(format!("it is given up: {error}"));
    }
    let Some(table) = store.table(series) else { return Ok(()) };
    let with_rows = table.coverage.with_rows();
    let bars: i64 = with_rows.iter().map(|span| table.grid.count(span)).sum();
    // It may know of fewer: what was on its way to the disk for a plan before it, and is too old to
    // be wanted by now.
    if line.stored() > bars {
        return Err(format!("the plan counts {} bars, the store {bars}", line.stored()));
    }
    match line.tally(now).missing {
        0 => Ok(()),
        missing => Err(format!("the plan misses {missing} bars")),
    }
}

/// What of an instrument is not as it should be: its stream is to be used where it may, and what is
/// left to the stream is to be subscribed.
pub fn compare_mode(
    exchange: &Exchange,
    mind: &Keeper,
    instrument: &Instrument,
) -> Result<(), String> {
    let feed = mind.feed(instrument).ok_or("it is not kept")?;
    let switch = feed.switch();
    for bar in feed.bars().filter(|&bar| feed.streams(bar)) {
        let series = Series { instrument: instrument.clone(), bar };
        if !exchange.pushes(&series) {
            return Err(format!("{series} is left to the stream, and nothing is pushed"));
        }
    }
    if !switch.wants_stream() || switch.mode() == Mode::Stream {
        return Ok(());
    }
    // What does not fit on a connection is tried again within an hour, and that is known of it.
    let overfull = |bar| feed.refusal(bar).is_some_and(|why| why.contains("no more series"));
    if feed.bars().all(overfull) {
        return Ok(());
    }
    let unheard = feed.bars().find(|&bar| feed.acked_at(bar).is_none() && !overfull(bar));
    let since = format_time(switch.since());
    let mode = switch.mode();
    Err(match unheard {
        Some(bar) => format!("nothing is heard of {instrument} {bar}, in {mode:?} since {since}"),
        None => format!("{instrument} is in {mode:?} since {since}: {}", switch.cause()),
    })
}
