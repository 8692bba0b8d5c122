//! What can be seen of the daemon, in words.

use crate::cli::paint::Tone;
use crate::cli::table::{count, short_length};
use crate::snapshot::{Snapshot, StreamView};
use crate::time::{Millis, SECOND, format_length};

pub use crate::sight::{DaemonStatus, Sight};

impl Sight {
    /// The daemon in a few words: `running, pid 1234, up 3h 5m`.
    pub fn headline(&self) -> String {
        let Snapshot { pid, uptime_ms, .. } = &self.snapshot;
        if !self.is_shown() {
            return format!("running, pid {pid}");
        }
        let stale =
            self.stale_ms().map(|age_ms| format!("; snapshot {} old", short_length(age_ms)));
        let up = whole_length(self.since(*uptime_ms));
        format!("running, pid {pid}, up {up}{}", stale.unwrap_or_default())
    }

    /// Why it is not seen as it is now, if it is not.
    pub fn obstacle(&self) -> Option<&'static str> {
        match (self.is_shown(), self.stale_ms()) {
            (false, _) => Some(
                "it shows nothing of itself: it has just started, or cannot write its snapshot, \
                 perhaps on a full disk; its log tells why",
            ),
            (true, Some(_)) => Some(
                "it shows nothing new: it is held up, or cannot write its snapshot, perhaps on a \
                 full disk; its log tells why",
            ),
            (true, None) => None,
        }
    }

    /// The stream's connection in a few words, and how good that is.
    pub fn connection(&self) -> (Tone, String) {
        let stream = &self.snapshot.stream;
        let StreamView { enabled, connected, replacing, failures, .. } = stream;
        let next = stream.retry_in_ms.map_or_else(String::new, |left_ms| {
            let left_ms = left_ms - self.age_ms.unwrap_or(0);
            format!(", next try in {}", whole_length(left_ms.max(0)))
        });
        if !self.is_shown() {
            return (Tone::Faint, "unknown".to_owned());
        }
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
            (false, _) if stream.frames == 0 && stream.last_error.is_none() => {
                (Tone::Fair, "connecting for the first time".to_owned())
            }
            (false, _) => (Tone::Bad, format!("not connected{next}")),
        }
    }
}

/// How good the mode of an instrument is.
pub fn tone(mode: &str, fell_back: bool) -> Tone {
    match mode {
        "off" | "unknown" => Tone::Faint,
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
    use crate::lock::Lock;
    use crate::snapshot::{InstrumentView, LatencyView, RestView, SeriesView};
    use crate::time::{HOUR, MINUTE, wall_now};

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
        assert!(Sight::look(dir.path()).is_none(), "a command holds the lock");
        lock.sign_as_daemon().unwrap();
        let sight = Sight::look(dir.path()).expect("because it holds the lock");
        assert!(sight.is_shown() && sight.snapshot.pid == me, "{sight:?}");
        assert_eq!(sight.obstacle(), None);
        drop(lock);
    }

    #[test]
    fn a_daemon_that_can_show_nothing_is_running_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let me = std::process::id();
        let lock = Lock::take(dir.path()).unwrap();
        lock.sign_as_daemon().unwrap();
        let before = Snapshot { pid: me + 1, ..Snapshot::default() };
        for left in [None, Some(before)] {
            left.iter().for_each(|left| left.write(dir.path()).unwrap());
            let sight = Sight::look(dir.path()).expect("because it holds the lock");
            assert_eq!(sight.headline(), format!("running, pid {me}"));
            assert!(sight.obstacle().unwrap().contains("full disk"));
            assert_eq!(sight.connection(), (Tone::Faint, "unknown".to_owned()));
            assert_eq!((sight.now(), sight.daemon().uptime_ms), (None, None));
        }
    }

    #[test]
    fn the_connection_is_told_in_words() {
        type Change = fn(&mut StreamView);
        let cases: [(&str, Change, Tone, &str); 10] = [
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
                "in its first moments",
                |stream| (stream.connected, stream.frames) = (false, 0),
                Tone::Fair,
                "connecting for the first time",
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
            sight.age_ms = Some(6 * SECOND);
            change(&mut sight.snapshot.stream);
            assert_eq!(sight.connection(), (tone, words.to_owned()), "{name}");
        }
    }

    #[test]
    fn an_old_snapshot_is_told_as_such() {
        let mut sight = sample(0);
        assert_eq!(sight.headline(), "running, pid 1234, up 3h 5m");
        assert_eq!(sight.obstacle(), None);
        sight.age_ms = Some(12_400);
        assert_eq!(sight.headline(), "running, pid 1234, up 3h 5m; snapshot 12s old");
        assert!(sight.obstacle().unwrap().contains("full disk"));
        assert_eq!((sight.now(), sight.seen_at()), (Some(12_400), 12_400));
        sight.age_ms = Some(900);
        assert_eq!((sight.now(), sight.seen_at()), (Some(900), 0), "the next one is on its way");
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
        Sight { snapshot, age_ms: Some(0) }
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
