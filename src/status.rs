//! The state of everything configured: what the files tell, and what an engine shows of itself.
//!
//! **Invariant:** it reads ledgers and newest rows alone, never a whole table, so it answers at
//! once however much is stored.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::bar::Bar;
use crate::coverage::Coverage;
use crate::house::{House, Wanted};
use crate::instrument::Instrument;
use crate::lock::LockError;
use crate::mode::Mode;
use crate::sight::{DaemonStatus, Sight};
use crate::snapshot::{InstrumentView, SeriesView, StreamView};
use crate::store::StoreError;
use crate::store::read::Reader;
use crate::time::{Millis, format_time};

/// The word for the mode of an instrument that the engine does not show.
pub(crate) const UNKNOWN: &str = "unknown";

/// Where everything configured stands: [`status`](crate::OkxLocalStore::status) gives it. In JSON
/// it is a part of what `okx-store status` tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The exchange's clock, Unix ms.
    #[serde(skip)]
    pub now: Millis,
    /// The sync engine, in whatever process.
    pub daemon: DaemonStatus,
    /// Its stream.
    pub websocket: WebSocketStatus,
    /// The instruments, in the order of the configuration.
    pub instruments: Vec<InstrumentStatus>,
}

/// The stream. The default is that there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WebSocketStatus {
    /// Whether its connection stands.
    pub connected: bool,
    /// Series that are subscribed.
    pub subscriptions: u32,
    /// Connections that took the place of another, in the last 24 hours.
    pub reconnects: u64,
    /// `closed`, `open` or `half_open`.
    pub breaker: String,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// One instrument.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct InstrumentStatus {
    /// Which.
    #[serde(rename = "symbol", serialize_with = "symbol")]
    pub instrument: Instrument,
    /// Whether it is to be kept fresh.
    pub enabled: bool,
    /// How its newest bars come; nothing where the engine does not show it.
    #[serde(serialize_with = "mode")]
    pub mode: Option<Mode>,
    /// Why it is in that mode.
    pub reason: String,
    /// Whether it should be streamed, and is not.
    pub fell_back: bool,
    /// The size of its file and its log, bytes.
    pub bytes: u64,
    /// Why the file could not be read, or is left alone.
    pub error: Option<String>,
    /// Its series, shortest bar first.
    pub series: Vec<SeriesStatus>,
}

/// One series. The counts from `wanted` to `before_history` are bars inside the wanted history.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SeriesStatus {
    /// Its bar. In JSON its remark stands beside it: when it opens, where the name does not tell.
    #[serde(flatten, serialize_with = "timeframe")]
    pub bar: Bar,
    /// Whether it is configured. One that is not, which was filled back once perhaps, is not kept
    /// fresh, so it cannot be late.
    #[serde(skip)]
    pub is_configured: bool,
    /// The open time of the newest closed bar, Unix ms.
    #[serde(flatten, serialize_with = "newest_closed")]
    pub newest_closed: Option<Millis>,
    /// For how long the next bar has been closed without being stored, ms; 0 = fresh.
    pub lag_ms: Option<Millis>,
    /// The same, where bars that the exchange does not have count as stored.
    #[serde(skip)]
    pub overdue_ms: Option<Millis>,
    /// Closed bars that are stored, whether still wanted or not.
    pub rows: i64,
    /// All of them.
    pub wanted: i64,
    /// Bars that are not stored, though the exchange may have them.
    pub missing: i64,
    /// The stored share of those wanted bars that the exchange has, 0 to 1.
    pub coverage: f64,
    /// Bars that the exchange was seen once or twice not to have.
    pub suspected_empty: i64,
    /// Bars that the exchange was seen three times or more not to have.
    pub known_empty: i64,
    /// Bars older than the exchange's history.
    pub before_history: i64,
    /// Stored rows whose values contradict each other, kept as the exchange gave them.
    pub odd_rows: i64,
    /// How the newest rows come, as the engine shows it.
    #[serde(serialize_with = "via")]
    pub via: Option<Via>,
    /// When something of it was stored last, Unix ms by the exchange's clock.
    #[serde(flatten, serialize_with = "last_sync")]
    pub last_sync: Option<Millis>,
    /// What went wrong last, if nothing went well since.
    pub last_error: Option<String>,
}

/// How the newest rows of a series come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Via {
    /// By the stream.
    Stream,
    /// By polling.
    Poll,
    /// Not at present.
    None,
}

impl Via {
    /// The word in `status`.
    ///
    /// ```
    /// assert_eq!(okx_local_store::Via::Stream.as_str(), "stream");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Stream => "stream",
            Via::Poll => "poll",
            Via::None => "none",
        }
    }

    fn named(name: &str) -> Option<Via> {
        [Via::Stream, Via::Poll, Via::None].into_iter().find(|via| via.as_str() == name)
    }
}

fn symbol<S: Serializer>(instrument: &Instrument, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(instrument.as_str())
}

fn mode<S: Serializer>(mode: &Option<Mode>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(mode.map_or(UNKNOWN, Mode::as_str))
}

fn via<S: Serializer>(via: &Option<Via>, to: S) -> Result<S::Ok, S::Error> {
    via.map(Via::as_str).serialize(to)
}

fn timeframe<S: Serializer>(bar: &Bar, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("timeframe", bar.name())?;
    map.serialize_entry("remark", &bar.remark())?;
    map.end()
}

fn newest_closed<S: Serializer>(at: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("newest_closed", at)?;
    map.serialize_entry("newest_closed_datetime", &at.map(format_time))?;
    map.end()
}

fn last_sync<S: Serializer>(at: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    map.serialize_entry("last_sync", at)?;
    map.serialize_entry("last_sync_datetime", &at.map(format_time))?;
    map.end()
}

impl WebSocketStatus {
    fn new(stream: StreamView) -> WebSocketStatus {
        let StreamView { connected, subscriptions, reconnects, breaker, last_error, .. } = stream;
        WebSocketStatus { connected, subscriptions, reconnects, breaker, last_error }
    }
}

impl Status {
    /// The state of everything in a house at the time `now` of the exchange's clock, which a
    /// running engine knows better.
    pub(crate) fn of(
        house: &House<'_>,
        seen: Result<Option<&Sight>, &LockError>,
        now: Millis,
    ) -> Status {
        let sight = seen.ok().flatten();
        let now = sight.and_then(Sight::now).unwrap_or(now);
        let stream = sight.map_or_else(StreamView::default, |sight| sight.snapshot.stream.clone());
        let instruments = house.instruments.iter().map(|wanted| look(house, seen, wanted, now));
        Status {
            now,
            daemon: sight.map_or_else(DaemonStatus::default, Sight::daemon),
            websocket: WebSocketStatus::new(stream),
            instruments: instruments.collect(),
        }
    }
}

fn look(
    house: &House<'_>,
    seen: Result<Option<&Sight>, &LockError>,
    wanted: &Wanted,
    now: Millis,
) -> InstrumentStatus {
    let instrument = &wanted.instrument;
    let (series, error) = match all_series(house, instrument, now) {
        Ok(series) => (series, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let (mode, reason) = match (wanted.enabled, seen) {
        (false, _) => (Some(Mode::Off), "disabled"),
        (true, Err(_)) => (None, "whether a daemon runs cannot be seen"),
        (true, Ok(None)) => (Some(Mode::Off), "no daemon running"),
        (true, Ok(Some(sight))) if !sight.is_shown() => (None, "the daemon does not show it"),
        (true, Ok(Some(_))) => (Some(Mode::Off), "the daemon has not taken it up yet"),
    };
    let mut status = InstrumentStatus {
        instrument: instrument.clone(),
        enabled: wanted.enabled,
        mode,
        reason: reason.to_owned(),
        fell_back: false,
        bytes: house.bytes(instrument),
        error,
        series,
    };
    let sight = seen.ok().flatten();
    if let Some(view) = sight.and_then(|sight| sight.instrument(instrument.as_str())) {
        status.take(view);
    }
    status
}

impl InstrumentStatus {
    /// Adds what the daemon knows.
    fn take(&mut self, view: &InstrumentView) {
        (self.mode, self.reason) = (Mode::named(&view.mode), view.reason.clone());
        self.fell_back = view.fell_back;
        self.error = self.error.take().or_else(|| view.error.clone());
        for series in &mut self.series {
            let found = view.series.iter().find(|view| view.timeframe == series.bar.name());
            if let Some(view) = found {
                series.take(view);
            }
        }
    }
}

impl SeriesStatus {
    fn take(&mut self, view: &SeriesView) {
        self.via = Via::named(&view.via);
        self.last_sync = self.last_sync.max(view.updated_at);
        self.last_error = view.last_error.clone().or(self.last_error.take());
    }
}

fn all_series(
    house: &House<'_>,
    instrument: &Instrument,
    now: Millis,
) -> Result<Vec<SeriesStatus>, StoreError> {
    let reader = house.open(instrument)?;
    let _snapshot = reader.as_ref().map(Reader::snapshot).transpose()?;
    let stored = reader.as_ref().map_or_else(|| Ok(Vec::new()), Reader::bars)?;
    let one = |bar: Bar| {
        let reader = reader.as_ref().filter(|_| stored.contains(&bar));
        one_series(house, instrument, bar, reader, now)
    };
    house.bars(instrument, reader.as_ref())?.into_iter().map(one).collect()
}

fn one_series(
    house: &House<'_>,
    instrument: &Instrument,
    bar: Bar,
    reader: Option<&Reader>,
    now: Millis,
) -> Result<SeriesStatus, StoreError> {
    let ask = |question: &dyn Fn(&Reader) -> Result<Option<Millis>, StoreError>| {
        reader.map_or(Ok(None), question)
    };
    let grid = reader.map_or_else(|| Ok(bar.grid()), |reader| reader.grid(bar))?;
    let coverage = reader.map_or_else(|| Ok(Coverage::default()), |reader| reader.coverage(bar))?;
    let newest_closed = ask(&|reader| Ok(reader.latest_closed(bar)?.map(|candle| candle.ts)))?;
    let last_sync = ask(&|reader| reader.synced_at(bar))?;
    let odd_rows = ask(&|reader| reader.odd_rows(bar).map(Some))?.unwrap_or(0);
    let wanted = house.wanted_span(instrument, bar, grid, &coverage, now);
    let tally = coverage.tally(grid, wanted);
    let lag_ms = |end| (now - grid.next(end)).max(0);
    Ok(SeriesStatus {
        bar,
        is_configured: house.wanted(instrument).is_some_and(|wanted| wanted.has(bar)),
        newest_closed,
        lag_ms: newest_closed.map(|ts| lag_ms(grid.bar_at(ts).end)),
        overdue_ms: coverage.spans().last().map(|span| lag_ms(span.end)),
        rows: coverage.with_rows().iter().map(|span| grid.count(span)).sum(),
        wanted: tally.wanted,
        missing: tally.missing,
        coverage: tally.coverage(),
        suspected_empty: tally.suspected_empty,
        known_empty: tally.known_empty,
        before_history: tally.before_history,
        odd_rows,
        via: None,
        last_sync,
        last_error: reader.map_or(Ok(None), |reader| reader.last_error(bar))?,
    })
}
