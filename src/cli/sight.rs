//! What can be seen of the daemon from another process.
//!
//! **Invariant:** a daemon is running if the lock of the data folder is held by the process that
//! has written the snapshot there. A snapshot alone proves nothing, and neither does the lock: a
//! command that writes holds it, too.

use std::path::Path;

use serde::Serialize;

use crate::cli::paint::Tone;
use crate::cli::table::{count, short_length};
use crate::lock::Lock;
use crate::snapshot::{InstrumentView, Snapshot, StreamView};
use crate::time::{Millis, SECOND, format_length, wall_now};

/// A daemon that is well has written its snapshot since.
const STALE_MS: Millis = 5 * SECOND;

/// A running daemon.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What it shows.
    pub snapshot: Snapshot,
    /// How long ago it has written that.
    pub age_ms: Millis,
}

/// The daemon in JSON. The default is that there is none.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Daemon {
    pub(crate) running: bool,
    pub(crate) pid: Option<u32>,
    pub(crate) uptime_ms: Option<Millis>,
    pub(crate) version: Option<String>,
    pub(crate) snapshot_age_ms: Option<Millis>,
    pub(crate) config_error: Option<String>,
    pub(crate) stalled: Option<String>,
}

impl Sight {
    /// Looks whether a daemon works in this folder.
    pub fn look(data_dir: &Path) -> Option<Sight> {
        let holder = Lock::holder(data_dir)?;
        let snapshot = Snapshot::read(data_dir).filter(|snapshot| snapshot.pid == holder)?;
        let age_ms = (wall_now() - snapshot.written_at).max(0);
        Some(Sight { snapshot, age_ms })
    }

    /// The exchange's time at this moment.
    pub fn now(&self) -> Millis {
        self.snapshot.now + self.age_ms
    }

    /// The exchange's time that ages count to: that of the snapshot, which is newer than what it
    /// tells of by far less than a second, while there will be a next one; else this moment's.
    pub fn seen_at(&self) -> Millis {
        self.since(self.snapshot.now)
    }

    /// An age of the snapshot's, by the same rule.
    pub fn since(&self, age_ms: Millis) -> Millis {
        if self.is_stale() { age_ms + self.age_ms } else { age_ms }
    }

    fn is_stale(&self) -> bool {
        self.age_ms >= STALE_MS
    }

    /// The daemon in a few words: `running, pid 1234, up 3h 5m`.
    pub fn headline(&self) -> String {
        let Snapshot { pid, uptime_ms, .. } = &self.snapshot;
        let stale = match self.is_stale() {
            true => format!("; snapshot {} old", short_length(self.age_ms)),
            false => String::new(),
        };
        format!("running, pid {pid}, up {}{stale}", whole_length(self.since(*uptime_ms)))
    }

    /// The same for scripts.
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon {
            running: true,
            pid: Some(self.snapshot.pid),
            uptime_ms: Some(self.since(self.snapshot.uptime_ms)),
            version: Some(self.snapshot.version.clone()),
            snapshot_age_ms: Some(self.age_ms),
            config_error: self.snapshot.config_error.clone(),
            stalled: self.snapshot.stalled.clone(),
        }
    }

    /// The stream's connection in a few words, and how good that is.
    pub fn connection(&self) -> (Tone, String) {
        let stream = &self.snapshot.stream;
        let StreamView { enabled, connected, replacing, failures, .. } = stream;
        let next = stream.retry_in_ms.map_or_else(String::new, |left_ms| {
            format!(", next try in {}", whole_length((left_ms - self.age_ms).max(0)))
        });
        if !enabled {
            return (Tone::Faint, "off: enable_websocket is false".to_owned());
        }
        match (connected, stream.breaker.as_str()) {
            (true, _) => {
                let age = stream.age_ms.map(|age_ms| whole_length(self.since(age_ms)));
                let age = age.map_or_else(String::new, |age| format!(" for {age}"));
                let next = if *replacing { ", its replacement is on the way" } else { "" };
                (Tone::Good, format!("connected{age}{next}"))
            }
            (false, "open") => {
                let failures = count(i64::from(*failures), "failure");
                (Tone::Bad, format!("resting: the breaker is open after {failures}{next}"))
            }
            (false, "half_open") => (Tone::Fair, format!("on trial after a rest{next}")),
            (false, _) if stream.wanted == 0 => {
                (Tone::Faint, "not connected: no series is to be streamed".to_owned())
            }
            (false, _) => (Tone::Bad, format!("not connected{next}")),
        }
    }

    /// What the daemon shows of an instrument.
    pub fn instrument(&self, symbol: &str) -> Option<&InstrumentView> {
        self.snapshot.instruments.iter().find(|view| view.symbol == symbol)
    }
}

/// How good the mode of an instrument is.
pub fn tone(mode: &str, fell_back: bool) -> Tone {
    match mode {
        "off" => Tone::Faint,
        "wait" => Tone::Bad,
        "joining" => Tone::Fair,
        _ if fell_back => Tone::Fair,
        _ => Tone::Good,
    }
}

/// A length of time in seconds and what is larger: `3h 5m`, `0s`.
pub fn whole_length(length_ms: Millis) -> String {
    if length_ms.abs() < SECOND { "0s".to_owned() } else { format_length(length_ms) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::snapshot::{LatencyView, RestView, SeriesView};
    use crate::time::{HOUR, MINUTE};

    #[test]
    fn only_the_holder_of_the_lock_is_running() {
        let dir = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let write = |pid| {
            let snapshot = Snapshot { pid, written_at: wall_now(), ..Snapshot::default() };
            snapshot.write(dir.path()).unwrap();
        };
        write(me);
        assert!(Sight::look(dir.path()).is_none(), "nobody holds the lock");
        let lock = Lock::take(dir.path()).unwrap();
        let sight = Sight::look(dir.path()).expect("because it holds the lock");
        assert_eq!(sight.snapshot.pid, me);
        write(me + 1);
        assert!(Sight::look(dir.path()).is_none(), "a command holds the lock");
        drop(lock);
    }

    #[test]
    fn the_connection_is_told_in_words() {
        type Change = fn(&mut StreamView);
        let cases: [(&str, Change, Tone, &str); 9] = [
            ("good", |_| (), Tone::Good, "connected for 12m 10s"),
            (
                "replacing",
                |stream| stream.replacing = true,
                Tone::Good,
                "connected for 12m 10s, its replacement is on the way",
            ),
            ("age untold", |stream| stream.age_ms = None, Tone::Good, "connected"),
            ("down", |stream| stream.connected = false, Tone::Bad, "not connected"),
            (
                "to be tried",
                |stream| (stream.connected, stream.retry_in_ms) = (false, Some(9_000)),
                Tone::Bad,
                "not connected, next try in 3s",
            ),
            (
                "open",
                |stream| {
                    (stream.connected, stream.failures) = (false, 5);
                    stream.breaker = "open".into();
                },
                Tone::Bad,
                "resting: the breaker is open after 5 failures",
            ),
            (
                "half open",
                |stream| {
                    (stream.connected, stream.breaker) = (false, "half_open".into());
                },
                Tone::Fair,
                "on trial after a rest",
            ),
            (
                "unneeded",
                |stream| (stream.connected, stream.wanted) = (false, 0),
                Tone::Faint,
                "not connected: no series is to be streamed",
            ),
            ("off", |stream| stream.enabled = false, Tone::Faint, "off: enable_websocket is false"),
        ];
        for (name, change, tone, words) in cases {
            let mut sight = sample(0);
            sight.age_ms = 6 * SECOND;
            change(&mut sight.snapshot.stream);
            assert_eq!(sight.connection(), (tone, words.to_owned()), "{name}");
        }
    }

    #[test]
    fn an_old_snapshot_is_told_as_such() {
        let mut sight = sample(0);
        assert_eq!(sight.headline(), "running, pid 1234, up 3h 5m");
        sight.age_ms = 12_400;
        assert_eq!(sight.headline(), "running, pid 1234, up 3h 5m; snapshot 12s old");
        assert_eq!((sight.now(), sight.seen_at()), (12_400, 12_400));
        sight.age_ms = 900;
        assert_eq!((sight.now(), sight.seen_at()), (900, 0), "the next one is on its way");
    }

    /// A daemon at work since three hours and five minutes: BTC streams, of ETH one series was
    /// refused, SOL is lost, and the file of DOGE is damaged. `now` is the exchange's time.
    pub(crate) fn sample(now: Millis) -> Sight {
        let snapshot = Snapshot {
            pid: 1234,
            version: "0.1.0".into(),
            uptime_ms: 3 * HOUR + 5 * MINUTE,
            now,
            clock_known: true,
            stream: stream(),
            latency: LatencyView {
                p50_ms: Some(12),
                p99_ms: Some(84),
                confirmed_p50_ms: Some(4),
                confirmed_p99_ms: Some(9),
                updates: 22_950,
            },
            rest: RestView {
                requests: 412,
                per_minute: 3,
                saved: 31_204,
                saved_share: Some(0.987),
                ..RestView::default()
            },
            instruments: instruments(now),
            ..Snapshot::default()
        };
        Sight { snapshot, age_ms: 0 }
    }

    fn stream() -> StreamView {
        StreamView {
            url: "wss://ws.okx.com/ws/v5/business".into(),
            enabled: true,
            connected: true,
            age_ms: Some(12 * MINUTE + 4 * SECOND),
            max_age_ms: HOUR,
            subscriptions: 4,
            wanted: 5,
            reconnects: 2,
            rtt_ms: Some(23),
            last_heard_ms: Some(340),
            frames: 120_000,
            errors: 3,
            updates_per_second: 38.25,
            ..StreamView::default()
        }
    }

    fn instruments(now: Millis) -> Vec<InstrumentView> {
        let series = |bar: &str, via: &str, age_ms: Millis| SeriesView {
            timeframe: bar.into(),
            via: via.into(),
            updated_at: Some(now - age_ms),
            last_error: None,
        };
        let instrument = |symbol: &str, mode: &str, reason: &str, series| InstrumentView {
            symbol: symbol.into(),
            mode: mode.into(),
            reason: reason.into(),
            since: now - 12 * MINUTE,
            fell_back: mode == "poll" || mode == "wait",
            error: None,
            series,
        };
        let met = "the stream has met what is stored";
        let refused = "WebSocketSubscriptionError: 60018: wrong channel (it is polled: if that \
                       lasts, look at its symbol and timeframe)";
        let lost = "WebSocketTimeoutError: nothing came for 50s, not even the answer to a ping \
                    (connecting anew: if it lasts, look at the network)";
        let btc = [("1m", 340), ("1H", 800), ("1D", 900)];
        let btc = btc.map(|(bar, age_ms)| series(bar, "stream", age_ms)).into();
        let mut eth = vec![series("1m", "stream", 1_250), series("1Dutc", "poll", 45 * SECOND)];
        eth[1].last_error = Some(refused.into());
        let mut doge = instrument("DOGE-USDT", "off", "its file is damaged", Vec::new());
        doge.error = Some("DOGE-USDT.db: malformed".into());
        vec![
            instrument("BTC-USDT-SWAP", "stream", met, btc),
            instrument("ETH-USDT", "stream", met, eth),
            instrument("SOL-USDT", "poll", lost, vec![series("1m", "poll", 31 * SECOND)]),
            doge,
        ]
    }
}
