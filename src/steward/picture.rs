//! The picture of itself that a daemon draws for other processes, about once a second.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use log::{info, warn};

use crate::config::{Config, InstrumentConfig};
use crate::control::{Follow, Hold};
use crate::instrument::Series;
use crate::keeper::Keeper;
use crate::latency::Latency;
use crate::link::Health;
use crate::mode::{Mode, Rule};
use crate::okx::stream::STREAM_PATH;
use crate::snapshot::{InstrumentView, LatencyView, RestView, SeriesView, Snapshot, StreamView};
use crate::time::{MINUTE, Millis, Now, SECOND, wall_now};
use crate::writer::Pushed;

/// How often it is drawn.
const DRAW_MS: Millis = SECOND;
/// Updates a second are counted over so long.
const RATE_MS: Millis = 10 * SECOND;

/// What is drawn from, beside what the mind knows.
pub(super) struct Picture {
    data_dir: PathBuf,
    /// Where the stream goes: another address waits for the next start.
    url: String,
    started_at: Millis,
    /// Local time of the start, once it is known.
    began: Option<Millis>,
    drawn_at: Millis,
    health: Option<Health>,
    all: Latency,
    confirmed: Latency,
    rows: u64,
    row_counts: Trend,
    request_counts: Trend,
    stalled: Option<String>,
    remark: Option<String>,
    /// Whether the last drawing failed, which is told once.
    failed: bool,
}

impl Picture {
    /// A picture of a daemon that starts with `config`, in a folder.
    pub(super) fn new(data_dir: &Path, config: &Config) -> Picture {
        Picture {
            data_dir: data_dir.to_owned(),
            url: format!("{}{STREAM_PATH}", config.ws_url()),
            started_at: wall_now(),
            began: None,
            drawn_at: Millis::MIN,
            health: None,
            all: Latency::default(),
            confirmed: Latency::default(),
            rows: 0,
            row_counts: Trend::new(RATE_MS),
            request_counts: Trend::new(MINUTE),
            stalled: None,
            remark: None,
            failed: false,
        }
    }

    pub(super) fn health(&mut self, health: Health) {
        self.health = Some(health);
    }

    pub(super) fn pushed(&mut self, pushed: &Pushed, now: Now) {
        self.rows += u64::from(pushed.rows);
        self.all.record(now.local, pushed.wait_ms);
        if let Some(wait_ms) = pushed.confirmed_wait_ms {
            self.confirmed.record(now.local, wait_ms);
        }
    }

    pub(super) fn stalled(&mut self, why: Option<String>) {
        self.stalled = why;
    }

    /// What is in the way of whoever waits for bars, if anything is.
    pub(super) fn trouble(&self, mind: &Keeper, now: Now) -> Option<String> {
        let stalled = self.stalled.as_ref().map(|why| format!("nothing can be stored: {why}"));
        let asked_in_vain = |why| format!("requests to the exchange fail: {why}");
        stalled.or_else(|| mind.control().trouble(now).map(asked_in_vain))
    }

    pub(super) fn remark(&mut self, words: &str) {
        self.remark = Some(words.to_owned());
    }

    /// Draws it, if it is time.
    pub(super) fn show(&mut self, mind: &Keeper, config: &Config, refusal: Option<&str>, now: Now) {
        if now.local < self.drawn_at.saturating_add(DRAW_MS) {
            return;
        }
        self.drawn_at = now.local;
        let began = *self.began.get_or_insert(now.local);
        self.row_counts.note(now.local, self.rows);
        self.request_counts.note(now.local, mind.control().requests());
        let offset_ms = now.exchange - now.local;
        let known = config.instruments.iter();
        let instruments = known.map(|known| instrument(mind, known, config, offset_ms)).collect();
        let snapshot = Snapshot {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            written_at: wall_now(),
            uptime_ms: now.local - began,
            now: now.exchange,
            clock_offset_ms: offset_ms,
            clock_known: mind.control().knows_clock(),
            config_error: refusal.map(str::to_owned),
            stream: self.stream(config, now),
            latency: self.latency(now),
            rest: self.rest(mind, now),
            stalled: self.stalled.clone(),
            instruments,
        };
        let drawn = snapshot.write(&self.data_dir);
        match &drawn {
            Err(error) if !self.failed => {
                let words = "status shows nothing new: no snapshot in";
                warn!(target: "daemon", "{words} {}: {error}", self.data_dir.display());
            }
            Ok(()) if self.failed => info!(target: "daemon", "status shows its state again"),
            _ => {}
        }
        self.failed = drawn.is_err();
    }

    fn stream(&self, config: &Config, now: Now) -> StreamView {
        // What the stream's thread counts once it has spoken.
        let streamed = config.instruments.iter().filter(|known| streams(known, config));
        let known = StreamView {
            wanted: streamed.map(|known| known.timeframes.len() as u32).sum(),
            url: self.url.clone(),
            enabled: config.enable_websocket,
            max_age_ms: config.websocket.max_connection_age_ms,
            updates_per_second: self.row_counts.grown() as f64 * SECOND as f64 / RATE_MS as f64,
            ..StreamView::default()
        };
        let Some(health) = &self.health else { return known };
        let ago = |at: Millis| (now.local - at).max(0);
        let last_error = health.last_error.as_ref();
        StreamView {
            connected: health.connected,
            age_ms: health.connected_since.map(ago),
            replacing: health.replacing,
            subscriptions: health.subscriptions as u32,
            wanted: health.wanted as u32,
            reconnects: health.reconnects_24h,
            breaker: health.breaker.as_str().to_owned(),
            failures: health.failures,
            retry_in_ms: health.retry_at.map(|at| (at - now.local).max(0)),
            rtt_ms: health.rtt_ms,
            last_heard_ms: health.last_heard.map(ago),
            frames: health.frames_24h,
            errors: health.errors_24h,
            login: health.login.clone(),
            last_error: last_error.map(|(_, words)| words.clone()),
            last_error_ago_ms: last_error.map(|(at, _)| ago(*at)),
            ..known
        }
    }

    fn latency(&self, now: Now) -> LatencyView {
        let share = |latency: &Latency, share| latency.percentile(now.local, share);
        LatencyView {
            p50_ms: share(&self.all, 0.5),
            p99_ms: share(&self.all, 0.99),
            confirmed_p50_ms: share(&self.confirmed, 0.5),
            confirmed_p99_ms: share(&self.confirmed, 0.99),
            updates: self.all.count(now.local),
        }
    }

    fn rest(&self, mind: &Keeper, now: Now) -> RestView {
        let (requests, saved) = (mind.control().requests(), mind.saved());
        let wait = mind.control().waits_for(now).filter(|(until, _)| until - now.local >= SECOND);
        let paused = wait.and_then(|(_, hold)| match hold {
            Hold::Pause => mind.control().trouble(now),
            _ => None,
        });
        RestView {
            requests,
            per_minute: u32::try_from(self.request_counts.grown()).unwrap_or(u32::MAX),
            saved,
            saved_share: (saved > 0).then(|| saved as f64 / (saved + requests) as f64),
            paused,
            last_error: self.remark.clone(),
        }
    }
}

fn instrument(
    mind: &Keeper,
    known: &InstrumentConfig,
    config: &Config,
    offset_ms: Millis,
) -> InstrumentView {
    let symbol = known.instrument.to_string();
    let Some(feed) = mind.feed(&known.instrument) else {
        let (mode, reason) = (Mode::Off.as_str().to_owned(), "disabled".to_owned());
        return InstrumentView { symbol, mode, reason, ..InstrumentView::default() };
    };
    let (switch, error) = (feed.switch(), mind.quarantine(&known.instrument));
    let (mode, cause) = match error {
        Some(_) => (Mode::Off, "its file cannot be used: nothing is stored"),
        None => (switch.mode(), switch.cause()),
    };
    let series = feed.bars().map(|bar| {
        let series = Series { instrument: known.instrument.clone(), bar };
        let line = mind.line(&series);
        let via = match line.map(|line| line.follows()) {
            _ if mode == Mode::Off => "none",
            Some(Follow::Stream) => "stream",
            Some(Follow::Poll(_)) => "poll",
            Some(Follow::Wait) | None => "none",
        };
        let error = line.and_then(|line| line.error.clone());
        let refusal = feed.refusal(bar).map(str::to_owned);
        SeriesView {
            timeframe: bar.name().to_owned(),
            via: via.to_owned(),
            updated_at: line.and_then(|line| line.updated_at()),
            last_error: error.or(refusal),
        }
    });
    InstrumentView {
        symbol,
        mode: mode.as_str().to_owned(),
        reason: cause.to_owned(),
        since: switch.since() + offset_ms,
        fell_back: streams(known, config) && matches!(mode, Mode::Poll | Mode::Wait),
        error: error.map(str::to_owned),
        series: series.collect(),
    }
}

/// Whether an instrument is to be streamed.
fn streams(known: &InstrumentConfig, config: &Config) -> bool {
    matches!(known.rule(config), Rule::Stream { .. })
}

/// How a count has grown over a while.
struct Trend {
    window_ms: Millis,
    points: VecDeque<(Millis, u64)>,
}

impl Trend {
    fn new(window_ms: Millis) -> Trend {
        Trend { window_ms, points: VecDeque::new() }
    }

    fn note(&mut self, now: Millis, count: u64) {
        self.points.push_back((now, count));
        while self.points.get(1).is_some_and(|(at, _)| *at <= now - self.window_ms) {
            self.points.pop_front();
        }
    }

    fn grown(&self) -> u64 {
        let ends = self.points.front().zip(self.points.back());
        ends.map_or(0, |((_, first), (_, last))| last - first)
    }
}
