//! A daemon under way as a process, what it shows of itself, and what its store must come to.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use okx_local_store::instrument::Series;
use okx_local_store::snapshot::{InstrumentView, Snapshot};
use okx_local_store::time::{DAY, Millis, wall_now};

use crate::exchange::{Builder, Exchange, Listed, Row};
use crate::mirror::try_closed_rows;
use crate::process::{Finished, Home, Running, T0};

/// The longest that a test waits for what a daemon does: nothing takes a third of it.
pub const LONG: Duration = Duration::from_secs(90);
/// How often a daemon is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the log that are told when a wait was in vain.
const LINES: usize = 40;

/// The exchange's clock at the start: ten seconds before the end of a minute.
pub const START: i64 = T0 + 20_000;
/// Instruments are this old, so that all of their seconds are a few pages.
pub const LISTED: Listed = Listed::At(START - 10 * 60_000);

/// An exchange on a clock as fast as ours, which a daemon reads only once an hour.
pub fn market(symbols: &[&str]) -> Builder {
    let builder = Exchange::builder().clock(START).push_ms(200);
    symbols.iter().fold(builder, |builder, symbol| builder.synthetic(symbol, LISTED))
}

/// A folder whose daemon knows REST and stream of the exchange, and waits for nothing for long.
pub fn home(exchange: &Exchange) -> Home {
    let websocket = r#"{
        "ping_interval": 1, "heartbeat_interval": 2, "connection_timeout": 3,
        "reconnect_delay_base": 0.1, "reconnect_delay_max": 1, "max_reconnect_attempts": 5
    }"#;
    Home::of(exchange)
        .key("ws_url", &format!("{:?}", exchange.ws_url()))
        .key("websocket_config", websocket)
        .key("circuit_breaker", r#"{ "failure_threshold": 5, "recovery_timeout": 0.5 }"#)
}

/// A running daemon.
pub struct Live {
    pub running: Running,
    data_dir: PathBuf,
}

impl Live {
    /// Starts a daemon, and waits until it shows itself.
    pub fn start(home: &Home) -> Live {
        Live::of(home, home.start("daemon"))
    }

    /// A daemon that was started in another way.
    pub fn of(home: &Home, running: Running) -> Live {
        let mut live = Live { running, data_dir: home.data_dir() };
        live.wait("the first snapshot", |_| true);
        live
    }

    /// What it shows of itself, once it does.
    pub fn snapshot(&self) -> Option<Snapshot> {
        Snapshot::read(&self.data_dir).filter(|seen| seen.pid == self.running.pid())
    }

    /// The most memory that it has had so far, kB.
    pub fn peak_kb(&self) -> u64 {
        let status = format!("/proc/{}/status", self.running.pid());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until its snapshot meets what is wanted, and gives that.
    #[track_caller]
    pub fn wait(&mut self, what: &str, met: impl FnMut(&Snapshot) -> bool) -> Snapshot {
        self.wait_within(LONG, what, met)
    }

    /// The same with another deadline.
    #[track_caller]
    pub fn wait_within(
        &mut self,
        within: Duration,
        what: &str,
        mut met: impl FnMut(&Snapshot) -> bool,
    ) -> Snapshot {
        let mut found = None;
        self.wait_for(within, what, |live| {
            found = live.snapshot().filter(&mut met);
            found.is_none().then(|| format!("{:#?}", live.snapshot()))
        });
        found.expect("because it was waited for")
    }

    /// Waits until nothing is in the way any more: `why` says what is.
    #[track_caller]
    pub fn wait_for(
        &mut self,
        within: Duration,
        what: &str,
        mut why: impl FnMut(&Live) -> Option<String>,
    ) {
        let deadline = Instant::now() + within;
        while let Some(why) = why(self) {
            let over = self.running.ends_in(LOOK);
            if over || Instant::now() >= deadline {
                let ended = if over { ", and the daemon has ended" } else { "" };
                let log = self.running.log();
                let from = log.lines().count().saturating_sub(LINES);
                let log: Vec<&str> = log.lines().skip(from).collect();
                let log = log.join("\n");
                panic!("waited {within:?} in vain for {what}{ended}: {why}\n--- log\n{log}");
            }
        }
    }

    /// Waits until every instrument that is to be streamed is, with all of its series.
    #[track_caller]
    pub fn streams(&mut self, what: &str) -> Snapshot {
        self.streams_within(LONG, what)
    }

    /// The same with another deadline. What was shown before says nothing.
    #[track_caller]
    pub fn streams_within(&mut self, within: Duration, what: &str) -> Snapshot {
        let begin = wall_now();
        self.wait_within(within, &format!("everything to stream {what}"), |seen| {
            seen.written_at >= begin
                && !seen.instruments.is_empty()
                && seen.instruments.iter().all(is_streamed)
        })
    }

    /// Waits until the store has what the exchange had, see [`Truth`].
    #[track_caller]
    pub fn comes_to(&mut self, truth: &Truth, what: &str) {
        self.wait_for(LONG, &format!("the exchange's bars {what}"), |live| {
            truth.difference(&live.data_dir)
        });
    }

    /// Ends it by a signal as an operator does; it has to obey within 15 s.
    #[track_caller]
    pub fn stop(self, signal: &str) -> Finished {
        self.running.signal(signal);
        self.running.wait_within(Duration::from_secs(15)).exits(0)
    }
}

/// Whether an instrument and all of its series are streamed.
pub fn is_streamed(view: &InstrumentView) -> bool {
    view.mode == "stream" && view.series.iter().all(|series| series.via == "stream")
}

/// The mode of an instrument.
pub fn mode<'a>(seen: &'a Snapshot, symbol: &str) -> &'a str {
    let view = seen.instruments.iter().find(|view| view.symbol == symbol);
    view.map_or("", |view| &view.mode)
}

/// The closed bars that an exchange had at a moment.
pub struct Truth(Vec<(Series, Vec<Row>)>);

impl Truth {
    /// Those of all series that a folder is configured to have.
    pub fn of(exchange: &Exchange, home: &Home) -> Truth {
        Truth::new(exchange, &home.wanted)
    }

    /// Those of some series, each so many days back.
    pub fn new(exchange: &Exchange, wanted: &[(Series, u32)]) -> Truth {
        let now = exchange.now();
        let bars = |(series, days): &(Series, u32)| {
            let start = now - Millis::from(*days) * DAY;
            let (symbol, bar) = (series.instrument.as_str(), series.bar.name());
            (series.clone(), exchange.truth(symbol, bar, start, now))
        };
        Truth(wanted.iter().map(bars).collect())
    }

    /// Where a store differs from it first. What closed later is not looked at.
    pub fn difference(&self, data_dir: &std::path::Path) -> Option<String> {
        self.0.iter().find_map(|(series, truth)| {
            let (first, last) = (truth.first()?.ts, truth.last()?.ts);
            let stored = match try_closed_rows(data_dir, series) {
                Ok(stored) => stored,
                Err(error) => return Some(format!("{series}: {error}")),
            };
            let mut stored = stored.into_iter().filter(|row| (first..=last).contains(&row.ts));
            let wrong = truth.iter().find_map(|bar| {
                let found = stored.next();
                (found.as_ref() != Some(bar)).then(|| format!("{found:?} for {bar:?}"))
            });
            let wrong = wrong.or_else(|| stored.next().map(|row| format!("{row:?} for nothing")));
            wrong.map(|wrong| format!("{series} has {wrong}"))
        })
    }

    #[track_caller]
    pub fn assert_in(&self, home: &Home) {
        assert_eq!(self.difference(&home.data_dir()), None);
    }
}
