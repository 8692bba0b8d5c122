//! What a daemon shows of itself, about once a second, to whoever asks from another process.
//!
//! It is a view and no record: nothing is decided by it, and what a process of another version
//! has left out or added does not keep it from being read. Texts are for people; where they hold
//! a peer's words these have been made plain.
//!
//! Times are Unix ms: *wall* by this machine's calendar, *exchange* by the exchange's clock.
//! Lengths are in ms. Numbers with a fraction are finite.
//!
//! **Invariant:** what was read can be reckoned with and printed, whoever has written it.

use serde::{Deserialize, Deserializer, Serialize};

use crate::spelling::printable;
use crate::time::{Millis, TIME_MAX};

/// Everything.
///
/// ```
/// use okx_local_store::snapshot::Snapshot;
///
/// let later = r#"{ "pid": 7, "stream": { "connected": true }, "unheard_of": 1 }"#;
/// let snapshot: Snapshot = serde_json::from_str(later).unwrap();
/// assert!(snapshot.pid == 7 && snapshot.stream.connected && snapshot.instruments.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// The daemon's process.
    pub pid: u32,
    /// The program's version.
    #[serde(deserialize_with = "tame")]
    pub version: String,
    /// When the daemon started; wall.
    #[serde(deserialize_with = "tame")]
    pub started_at: Millis,
    /// When this was written; wall.
    #[serde(deserialize_with = "tame")]
    pub written_at: Millis,
    /// For how long it has been running.
    #[serde(deserialize_with = "tame")]
    pub uptime_ms: Millis,
    /// When this was written; exchange.
    #[serde(deserialize_with = "tame")]
    pub now: Millis,
    /// What to add to the daemon's local time for the exchange's.
    #[serde(deserialize_with = "tame")]
    pub clock_offset_ms: Millis,
    /// Whether the exchange was asked for its time since the start.
    pub clock_known: bool,
    /// Why a changed configuration was refused, while the one before still holds.
    #[serde(deserialize_with = "tame")]
    pub config_error: Option<String>,
    /// The stream.
    pub stream: StreamView,
    /// How long rows take from the exchange into the files.
    pub latency: LatencyView,
    /// What is asked by REST.
    pub rest: RestView,
    /// Why nothing can be stored at present: the disk is full.
    #[serde(deserialize_with = "tame")]
    pub stalled: Option<String>,
    /// The configured instruments, in the order of the configuration.
    pub instruments: Vec<InstrumentView>,
}

/// The stream's connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamView {
    /// Where it goes.
    #[serde(deserialize_with = "tame")]
    pub url: String,
    /// Whether the configuration lets it be used.
    pub enabled: bool,
    /// Whether it stands.
    pub connected: bool,
    /// For how long it has been standing.
    #[serde(deserialize_with = "tame")]
    pub age_ms: Option<Millis>,
    /// The age at which it is replaced.
    #[serde(deserialize_with = "tame")]
    pub max_age_ms: Millis,
    /// Whether the next connection is being made while this one goes on.
    pub replacing: bool,
    /// Series that are subscribed.
    pub subscriptions: u32,
    /// Series that should be.
    pub wanted: u32,
    /// Connections that took the place of another, in the last 24 hours.
    pub reconnects: u64,
    /// `closed`, `open` or `half_open`.
    #[serde(deserialize_with = "tame")]
    pub breaker: String,
    /// Failures in a row.
    pub failures: u32,
    /// When the next attempt to connect is made, from the writing of this.
    #[serde(deserialize_with = "tame")]
    pub retry_in_ms: Option<Millis>,
    /// How long the last answered ping took.
    #[serde(deserialize_with = "tame")]
    pub rtt_ms: Option<Millis>,
    /// How long ago the last frame came.
    #[serde(deserialize_with = "tame")]
    pub last_heard_ms: Option<Millis>,
    /// Frames of the last 24 hours.
    pub frames: u64,
    /// What went wrong in the last 24 hours: connections, series, frames.
    pub errors: u64,
    /// States of bars, lately.
    #[serde(deserialize_with = "tame")]
    pub updates_per_second: f64,
    /// How the login stands, where credentials are set.
    #[serde(deserialize_with = "tame")]
    pub login: Option<String>,
    /// What went wrong last.
    #[serde(deserialize_with = "tame")]
    pub last_error: Option<String>,
    /// How long ago that was.
    #[serde(deserialize_with = "tame")]
    pub last_error_ago_ms: Option<Millis>,
}

impl Default for StreamView {
    /// No connection, and nothing against one.
    fn default() -> StreamView {
        StreamView {
            url: String::new(),
            enabled: false,
            connected: false,
            age_ms: None,
            max_age_ms: 0,
            replacing: false,
            subscriptions: 0,
            wanted: 0,
            reconnects: 0,
            breaker: "closed".to_owned(),
            failures: 0,
            retry_in_ms: None,
            rtt_ms: None,
            last_heard_ms: None,
            frames: 0,
            errors: 0,
            updates_per_second: 0.0,
            login: None,
            last_error: None,
            last_error_ago_ms: None,
        }
    }
}

/// How long rows of the last ten minutes took from the exchange's stamp, or from their arrival, to
/// their commit. `p50` is the half of them, `p99` ninety-nine in a hundred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LatencyView {
    /// Of all rows.
    #[serde(deserialize_with = "tame")]
    pub p50_ms: Option<Millis>,
    /// Of all rows.
    #[serde(deserialize_with = "tame")]
    pub p99_ms: Option<Millis>,
    /// Of closed bars.
    #[serde(deserialize_with = "tame")]
    pub confirmed_p50_ms: Option<Millis>,
    /// Of closed bars.
    #[serde(deserialize_with = "tame")]
    pub confirmed_p99_ms: Option<Millis>,
    /// How many rows these are.
    pub updates: u64,
}

/// What is asked by REST.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestView {
    /// Requests since the start.
    pub requests: u64,
    /// Requests of the last minute.
    pub per_minute: u32,
    /// Polls since the start that the stream made needless.
    pub saved: u64,
    /// Their share of all polls that there would have been, 0 to 1.
    #[serde(deserialize_with = "tame")]
    pub saved_share: Option<f64>,
    /// Why nothing is asked at present.
    #[serde(deserialize_with = "tame")]
    pub paused: Option<String>,
    /// What went wrong last.
    #[serde(deserialize_with = "tame")]
    pub last_error: Option<String>,
}

/// One instrument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstrumentView {
    /// Its name.
    #[serde(deserialize_with = "tame")]
    pub symbol: String,
    /// `stream`, `joining`, `poll`, `wait` or `off`.
    #[serde(deserialize_with = "tame")]
    pub mode: String,
    /// Why it is in that mode.
    #[serde(deserialize_with = "tame")]
    pub reason: String,
    /// Since when; exchange.
    #[serde(deserialize_with = "tame")]
    pub since: Millis,
    /// Whether it should be streamed, and is not.
    pub fell_back: bool,
    /// Why its file is left alone.
    #[serde(deserialize_with = "tame")]
    pub error: Option<String>,
    /// Its series, shortest bar first.
    pub series: Vec<SeriesView>,
}

/// One series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeriesView {
    /// Its bar.
    #[serde(deserialize_with = "tame")]
    pub timeframe: String,
    /// How its newest rows come: `stream`, `poll` or `none`.
    #[serde(deserialize_with = "tame")]
    pub via: String,
    /// When something of it was committed last; exchange.
    #[serde(deserialize_with = "tame")]
    pub updated_at: Option<Millis>,
    /// What went wrong last.
    #[serde(deserialize_with = "tame")]
    pub last_error: Option<String>,
}

/// Makes what was read harmless.
trait Tame {
    fn tame(self) -> Self;
}

impl Tame for String {
    fn tame(self) -> String {
        printable(&self).into_owned()
    }
}

impl Tame for Millis {
    fn tame(self) -> Millis {
        self.clamp(-TIME_MAX, TIME_MAX)
    }
}

impl Tame for f64 {
    fn tame(self) -> f64 {
        self.clamp(-TIME_MAX as f64, TIME_MAX as f64)
    }
}

impl<T: Tame> Tame for Option<T> {
    fn tame(self) -> Option<T> {
        self.map(T::tame)
    }
}

fn tame<'de, D: Deserializer<'de>, T: Deserialize<'de> + Tame>(from: D) -> Result<T, D::Error> {
    T::deserialize(from).map(T::tame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let series = SeriesView { timeframe: "1m".into(), via: "stream".into(), ..<_>::default() };
        let instrument =
            InstrumentView { symbol: "A-B".into(), series: vec![series], ..<_>::default() };
        let snapshot = Snapshot {
            pid: 7,
            stream: StreamView { updates_per_second: 12.25, rtt_ms: Some(4), ..<_>::default() },
            rest: RestView { saved_share: Some(0.987), ..<_>::default() },
            instruments: vec![instrument],
            ..Snapshot::default()
        };
        let text = serde_json::to_string(&snapshot).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }

    #[test]
    fn what_another_version_leaves_out_takes_its_default() {
        let text = r#"{ "stream": {}, "instruments": [{ "symbol": "A-B", "series": [{}] }] }"#;
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        assert_eq!(snapshot.stream, StreamView::default());
        assert_eq!(snapshot.stream.breaker, "closed");
        assert_eq!(snapshot.instruments[0].series, [SeriesView::default()]);
    }
}
