//! `status`: what the files tell, and what a daemon shows of itself.
//!
//! **Invariant:** it reads ledgers and newest rows alone, never a whole table, so it answers at
//! once however much is stored.

mod check;
mod prometheus;
mod text;

use std::io::Write;

use serde::Serialize;

use crate::cli::outcome::{Exit, Failure, finish, write_json};
use crate::cli::paint::Paint;
use crate::cli::sight::Sight;
use crate::house::House;
use crate::lock::LockError;
use crate::status;
use crate::time::{Millis, format_time};

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// In which form.
    pub format: Format,
    /// Whether a series that lags by more is a failure; nothing but those is told, unless the form
    /// is one for programs.
    pub max_lag_ms: Option<Millis>,
}

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For scripts.
    Json,
    /// For Prometheus.
    Prometheus,
}

/// Everything that `status` knows. The names are public: scripts read them.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// The exchange's clock, Unix ms.
    now: Millis,
    now_datetime: String,
    config: String,
    data_dir: String,
    /// Why it cannot be seen whether a daemon runs.
    #[serde(skip)]
    unseen: Option<String>,
    /// Whether the exchange has ever told its time.
    #[serde(skip)]
    knows_clock: bool,
    #[serde(flatten)]
    state: status::Status,
}

impl Report {
    /// Whether there is a file that says nothing.
    fn is_unreadable(&self) -> bool {
        self.unseen.is_some() || self.state.instruments.iter().any(|known| known.error.is_some())
    }
}

/// Tells the state of everything configured at the time `now` of the exchange's clock, which a
/// running daemon knows better.
pub fn status(
    house: &House<'_>,
    asked: Status,
    now: Millis,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let seen = Sight::try_look(house.data_dir);
    show(house, seen.as_ref().map(Option::as_ref), asked, now, paint, out)
}

fn show(
    house: &House<'_>,
    seen: Result<Option<&Sight>, &LockError>,
    asked: Status,
    now: Millis,
    paint: Paint,
    out: &mut dyn Write,
) -> Result<Exit, Failure> {
    let state = status::Status::of(house, seen, now);
    let sight = seen.ok().flatten();
    let knows_clock = sight.is_some_and(|sight| sight.snapshot.clock_known);
    let report = Report {
        now: state.now,
        now_datetime: format_time(state.now),
        config: house.config_text(),
        data_dir: house.data_dir.display().to_string(),
        unseen: seen.err().map(ToString::to_string),
        knows_clock: knows_clock || house.learnt_clock_offset_ms().is_some(),
        state,
    };
    let late = asked.max_lag_ms.map(|max_lag_ms| check::late(&report, max_lag_ms));
    let written = match (asked.format, asked.max_lag_ms.zip(late.as_ref())) {
        (Format::Json, _) => write_json(&report, out),
        (Format::Prometheus, _) => prometheus::write(&report, sight, out),
        (Format::Table, Some((max_lag_ms, late))) => check::write(&report, late, max_lag_ms, out),
        (Format::Table, None) => text::write(&report, sight, paint, out),
    };
    let exit = finish(written, out)?;
    let failed = match (&late, asked.format) {
        (Some(late), _) => !late.is_empty(),
        // The numbers tell of it, and have to get to whoever reads them.
        (None, Format::Prometheus) => false,
        (None, _) => report.is_unreadable(),
    };
    Ok(if failed { Exit::Failed } else { exit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sight::tests::sample;
    use crate::house::tests::{house, wanted};
    use crate::snapshot::Snapshot;
    use crate::store::sample::{BASE, Sample};
    use crate::time::{MINUTE, SECOND};

    const NOW: Millis = BASE + 70 * SECOND;

    /// BTC has two days of its bars with every tenth absent; one bar of ETH failed; SOL's file is
    /// none; DOGE was never synced and is not enabled.
    fn run(format: Format) -> String {
        run_beside(None, format)
    }

    /// The same beside a daemon.
    fn run_beside(sight: Option<&Sight>, format: Format) -> String {
        let (exit, out) = ask(sight, Status { format, max_lag_ms: None });
        // SOL's file cannot be read; of that the numbers for Prometheus tell.
        let expected = if format == Format::Prometheus { Exit::Done } else { Exit::Failed };
        assert_eq!(exit, expected);
        out
    }

    fn ask(sight: Option<&Sight>, asked: Status) -> (Exit, String) {
        let sample = Sample::new();
        for (bar, count) in [("1m", 2_880), ("1H", 48), ("1D", 2)] {
            let rows: Vec<(i64, f64)> =
                (-count..0).filter(|n| n % 10 != -5).map(|n| (n, 1.0)).collect();
            sample.store("BTC-USDT-SWAP", bar, &rows, Some((0, 5.0)));
        }
        sample.store("ETH-USDT", "1m", &[(0, 1.0)], None);
        let mut failed = sample.file("ETH-USDT");
        failed.note_error("1m".parse().unwrap(), "50011: too many requests").unwrap();
        std::fs::write(sample.data_dir().join("SOL-USDT.db"), "this is no database").unwrap();
        let mut instruments = [
            wanted("BTC-USDT-SWAP", &["1m", "1H", "1D"]),
            wanted("ETH-USDT", &["1m", "1Dutc"]),
            wanted("SOL-USDT", &["1m"]),
            wanted("DOGE-USDT", &["1m"]),
        ];
        instruments.iter_mut().for_each(|wanted| wanted.history_days = 2);
        instruments[3].enabled = false;
        let mut out = Vec::new();
        let house = house(&sample, &instruments);
        let exit = match sight {
            None => status(&house, asked, NOW, Paint::default(), &mut out),
            Some(_) => show(&house, Ok(sight), asked, 0, Paint::default(), &mut out),
        };
        (exit.unwrap(), String::from_utf8(out).unwrap())
    }

    #[test]
    fn late_series_are_named_and_fail() {
        let late =
            |max_lag_ms| ask(None, Status { max_lag_ms: Some(max_lag_ms), ..Status::default() });
        let (exit, out) = late(9 * SECOND);
        assert_eq!(exit, Exit::Failed);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "BTC-USDT-SWAP 1m: lags by 10s: no daemon running",
                "ETH-USDT 1Dutc: nothing is stored"
            ],
            "what is disabled is not late"
        );
        assert!(lines[2].starts_with("SOL-USDT: ") && lines.len() == 3, "{out}");
        assert!(!late(10 * SECOND).1.contains("BTC"));
        // A script that wants the numbers gets them, and the exit code.
        let format = Format::Json;
        let (exit, out) = ask(None, Status { format, max_lag_ms: Some(0) });
        assert_eq!(exit, Exit::Failed);
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok());
    }

    #[test]
    fn where_nothing_is_late_one_line_says_so() {
        let sample = Sample::new();
        sample.store("BTC-USDT", "1m", &[(0, 1.0)], None);
        // Filled back once and not configured: nobody keeps it fresh, so it is not late.
        sample.store("BTC-USDT", "5m", &[(-50, 1.0)], None);
        let instruments = [wanted("BTC-USDT", &["1m"])];
        let mut out = Vec::new();
        let asked = Status { max_lag_ms: Some(SECOND), ..Status::default() };
        let house = house(&sample, &instruments);
        let exit = show(&house, Ok(None), asked, NOW, Paint::default(), &mut out).unwrap();
        assert_eq!(exit, Exit::Done);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "1 series checked, none lags by more than 1s\n");
        let mut out = Vec::new();
        let asked = Status { format: Format::Prometheus, max_lag_ms: None };
        show(&house, Ok(None), asked, NOW, Paint::default(), &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("rows{symbol=\"BTC-USDT\",timeframe=\"5m\"} 1\n"), "{out}");
        assert!(!out.contains("lag_seconds{symbol=\"BTC-USDT\",timeframe=\"5m\"}"), "{out}");
    }

    #[test]
    fn numbers_for_prometheus_have_names_and_labels() {
        let out = run_beside(Some(&sample(NOW)), Format::Prometheus);
        for line in [
            "okx_store_daemon_up 1",
            "okx_store_stream_connected 1",
            "okx_store_stream_subscriptions 4",
            "okx_store_instrument_mode{symbol=\"ETH-USDT\",mode=\"stream\"} 1",
            "okx_store_instrument_failed{symbol=\"SOL-USDT\"} 1",
            "okx_store_series_rows{symbol=\"BTC-USDT-SWAP\",timeframe=\"1m\"} 2592",
            "okx_store_series_lag_seconds{symbol=\"BTC-USDT-SWAP\",timeframe=\"1m\"} 10",
        ] {
            assert!(out.lines().any(|found| found == line), "{line} is not in:\n{out}");
        }
        // Each name is told of before its numbers, once, and all of its numbers stand together.
        let mut told: Vec<&str> = Vec::new();
        for line in out.lines().filter(|line| !line.starts_with("# HELP")) {
            match line.strip_prefix("# TYPE ") {
                Some(kind) => {
                    let name = kind.split(' ').next().unwrap();
                    assert!(!told.contains(&name), "{name}");
                    told.push(name);
                }
                None => assert_eq!(line.split(['{', ' ']).next(), told.last().copied(), "{line}"),
            }
        }
        // What is left of it from before its disk was full may be wrong by now.
        let old = Sight { age_ms: Some(MINUTE), ..sample(NOW) };
        let out = run_beside(Some(&old), Format::Prometheus);
        assert!(out.contains("okx_store_daemon_up 1\n"), "{out}");
        assert!(!out.contains("daemon_stalled") && !out.contains("okx_store_stream"), "{out}");
        let alone = run(Format::Prometheus);
        assert!(alone.contains("okx_store_daemon_up 0\n") && !alone.contains("stream"), "{alone}");
    }

    #[test]
    fn a_table_tells_the_state_of_every_series() {
        let out = run(Format::Table);
        // Where the files lie and how large they are differs from run to run.
        let from = out.find("  bar ").unwrap();
        let (head, table) = out.split_at(from);
        assert!(head.starts_with("daemon  not running\nconfig  config.json\ndata    /"), "{head}");
        assert!(head.ends_with("time    2024-05-01 00:01:10 UTC by the exchange's clock\n\n"));
        assert!(table.lines().all(|line| line.chars().count() <= 80 || line.contains(".db")));
        let is_row = |line: &&str| !line.contains("USDT") && !line.ends_with("database");
        let rows: Vec<&str> = table.lines().filter(is_row).collect();
        let expected = "  bar    newest closed     lag  rows  covered  missing  empty  synced
  1m     2024-04-30 23:59  10s  2592   99.96%        1   288?  1m ago
  1H     2024-04-30 23:00   0s    43     100%        0     5?  1m ago
  1D     2024-04-29 16:00   0s     2     100%        0      0  8h ago
  1m     2024-05-01 00:00   0s     1    0.03%     2879      0  5s ago
  1Dutc  -                   -     0    0.00%        2      0  never
  1m: last error: 50011: too many requests
  1m     -                   -     0    0.00%     2880      0  never

1D opens 16:00 UTC.
?: suspected to be empty, to be asked for again.";
        assert_eq!(rows.join("\n"), expected);
        assert!(table.contains("\nSOL-USDT  off: no daemon running, 19 B\n  /"), "{table}");
        assert!(table.contains("\nDOGE-USDT  off: disabled, 0 B\n"), "{table}");
    }

    #[test]
    fn without_instruments_it_says_how_to_get_one() {
        let (sample, mut out) = (Sample::new(), Vec::new());
        show(&house(&sample, &[]), Ok(None), Status::default(), NOW, Paint::default(), &mut out)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\n\nNo instrument is configured: okx-store add-symbol SYMBOL\n"));
    }

    #[test]
    fn json_has_stable_names() {
        let report: serde_json::Value = serde_json::from_str(&run(Format::Json)).unwrap();
        assert_eq!(report["daemon"]["running"], false);
        assert!(report["daemon"]["pid"].is_null());
        let stream = serde_json::json!({
            "connected": false, "subscriptions": 0, "reconnects": 0, "breaker": "closed",
            "last_error": null,
        });
        assert_eq!(report["websocket"], stream);
        let btc = &report["instruments"][0];
        let words = [&btc["symbol"], &btc["mode"], &btc["reason"]];
        assert_eq!(words, ["BTC-USDT-SWAP", "off", "no daemon running"]);
        let series = serde_json::json!({
            "timeframe": "1m", "remark": null, "newest_closed": BASE - 60_000,
            "newest_closed_datetime": "2024-04-30T23:59:00Z", "lag_ms": 10_000, "rows": 2_592,
            "wanted": 2_880, "missing": 1, "coverage": 2_591.0 / 2_592.0, "suspected_empty": 288,
            "known_empty": 0, "before_history": 0, "odd_rows": 0, "via": null,
            "last_sync": BASE + 5_000, "last_sync_datetime": "2024-05-01T00:00:05Z",
            "last_error": null,
        });
        assert_eq!(btc["series"][0], series);
        assert_eq!(report["instruments"][1]["series"][0]["last_error"], "50011: too many requests");
        assert!(report["instruments"][2]["error"].as_str().unwrap().contains("SOL-USDT.db"));
    }
    #[test]
    fn a_daemon_tells_how_each_series_is_kept_fresh() {
        let mut sight = sample(NOW);
        sight.age_ms = Some(8_000);
        let out = run_beside(Some(&sight), Format::Table);
        assert!(out.lines().all(|line| line.chars().count() <= 80 || line.contains("/")), "{out}");
        let mine = |line: &&str| {
            let elsewhere = ["config", "data", "  /"].iter().any(|begins| line.starts_with(begins));
            !elsewhere && !line.ends_with("database")
        };
        let told: Vec<&str> = out.lines().filter(mine).collect();
        let expected = "\
daemon  running, pid 1234, up 3h 5m; snapshot 8s old
        it shows nothing new: it is held up, or cannot write its snapshot,
        perhaps on a full disk; its log tells why
stream  connected for 12m 12s, 4 of 5 series
time    2024-05-01 00:01:18 UTC by the exchange's clock

  bar    newest closed     lag  rows  covered  missing  empty  via
";
        assert!(told.join("\n").starts_with(expected), "{out}");
        let told = told[7..].join("\n");
        for part in [
            "BTC-USDT-SWAP  stream: the stream has met what is stored, ",
            "\n  1m     2024-04-30 23:59  18s  2592   99.96%        1   288?  stream 8s ago\n",
            "\nETH-USDT  stream: the stream has met what is stored, ",
            "\n  1Dutc  -                   -     0    0.00%        2      0  poll 53s ago\n",
            "\n  1m: last error: 50011: too many requests\n",
            "\n  1Dutc: last error: WebSocketSubscriptionError: 60018: wrong channel (it is\n",
            "\n         polled: if that lasts, look at its symbol and timeframe)\n",
            "\nSOL-USDT  poll: WebSocketTimeoutError: nothing came for 50s, not even the answer\n",
            "\nDOGE-USDT  off: its file is damaged\n",
            "\n  DOGE-USDT.db: malformed\n",
        ] {
            assert!(format!("{told}\n").contains(part), "{part:?} is not in:\n{out}");
        }
    }

    #[test]
    fn a_daemon_that_shows_nothing_is_told_of() {
        let snapshot = Snapshot { pid: 7, ..Snapshot::default() };
        let out = run_beside(Some(&Sight { snapshot, age_ms: None }), Format::Table);
        let expected = "\
daemon  running, pid 7
        it shows nothing of itself: it has just started, or cannot write its
        snapshot, perhaps on a full disk; its log tells why
stream  unknown
config ";
        assert!(out.starts_with(expected), "{out}");
        assert!(out.contains("\nBTC-USDT-SWAP  unknown: the daemon does not show it, "), "{out}");
    }

    #[test]
    fn what_is_wrong_with_a_daemon_stands_in_the_head() {
        let mut sight = sample(NOW);
        sight.snapshot.config_error = Some("config.json:3: sandbox: give true or false".into());
        sight.snapshot.stalled = Some("the disk is full: free some space".into());
        let stream = &mut sight.snapshot.stream;
        (stream.connected, stream.breaker, stream.failures) = (false, "open".into(), 5);
        stream.retry_in_ms = Some(42_000);
        stream.last_error = Some("WebSocketConnectionError: ws.okx.com:443: tcp: refused".into());
        let out = run_beside(Some(&sight), Format::Table);
        for part in [
            "\nstream  resting: the breaker is open after 5 failures, next try in 42s\n",
            "\n        WebSocketConnectionError: ws.okx.com:443: tcp: refused\n",
            "\n        changed, and refused; the one before holds: config.json:3: sandbox: give",
            "\n        nothing can be stored: the disk is full: free some space\n",
        ] {
            assert!(out.contains(part), "{part:?} is not in:\n{out}");
        }
    }

    #[test]
    fn json_tells_of_the_daemon_under_the_same_names() {
        let report: serde_json::Value =
            serde_json::from_str(&run_beside(Some(&sample(NOW)), Format::Json)).unwrap();
        let (daemon, stream) = (&report["daemon"], &report["websocket"]);
        assert_eq!(daemon["running"], true);
        assert_eq!((&daemon["pid"], &daemon["uptime_ms"]), (&1234.into(), &11_100_000.into()));
        assert_eq!((&stream["connected"], &stream["subscriptions"]), (&true.into(), &4.into()));
        assert_eq!((&stream["reconnects"], &stream["breaker"]), (&2.into(), &"closed".into()));
        let eth = &report["instruments"][1];
        let words = [&eth["mode"], &eth["reason"], &eth["series"][0]["via"]];
        assert_eq!(words, ["stream", "the stream has met what is stored", "stream"]);
        assert_eq!(eth["series"][1]["last_sync"], NOW - 45_000);
        let error = eth["series"][1]["last_error"].as_str().unwrap();
        assert!(error.starts_with("WebSocketSubscriptionError: 60018"), "{error}");
    }

    #[test]
    fn what_cannot_be_looked_into_is_not_told_as_empty() {
        let sample = Sample::new();
        // Nobody comes to the end of a link that leads to itself, not even who may read all.
        let shut = sample.data_dir().join("shut");
        std::os::unix::fs::symlink(&shut, &shut).unwrap();
        let instruments = [wanted("BTC-USDT", &["1m"])];
        let house = House { data_dir: &shut, ..house(&sample, &instruments) };
        let ask = |format, max_lag_ms| {
            let mut out = Vec::new();
            let asked = Status { format, max_lag_ms };
            let exit = status(&house, asked, NOW, Paint::default(), &mut out).unwrap();
            (exit, String::from_utf8(out).unwrap().replace("\n        ", " "))
        };
        let (exit, out) = ask(Format::Table, None);
        assert_eq!(exit, Exit::Failed, "{out}");
        for part in [
            "daemon  unknown: ",
            "/shut/.lock: cannot see whether a daemon runs: ",
            "/shut\ntime ",
            "\nBTC-USDT  unknown: whether a daemon runs cannot be seen\n",
            "/shut/BTC-USDT.db: cannot look at it: ",
        ] {
            assert!(out.contains(part), "{part:?} is not in:\n{out}");
        }
        assert_eq!(ask(Format::Json, None).0, Exit::Failed);
        let (exit, out) = ask(Format::Table, Some(MINUTE));
        assert!(exit == Exit::Failed && out.starts_with("BTC-USDT: /"), "{out}");
        let (exit, out) = ask(Format::Prometheus, None);
        assert!(out.contains("okx_store_instrument_failed{symbol=\"BTC-USDT\"} 1\n"), "{out}");
        assert!(exit == Exit::Done && !out.contains("daemon_up"), "{out}");
    }

    #[test]
    fn whose_clock_it_is_depends_on_whether_the_exchange_was_ever_reached() {
        let sample = Sample::new();
        let instruments = [wanted("BTC-USDT", &["1m"])];
        let head = || {
            let (house, mut out) = (house(&sample, &instruments), Vec::new());
            status(&house, Status::default(), NOW, Paint::default(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(head().contains("UTC by this machine's clock\n"), "{}", head());
        sample.store("BTC-USDT", "1m", &[(0, 1.0)], None);
        assert!(head().contains("UTC by the exchange's clock\n"), "{}", head());
    }

    #[test]
    fn colours_are_for_those_who_want_them() {
        let sample = Sample::new();
        let instruments = [wanted("BTC-USDT-SWAP", &["1m"]), wanted("SOL-USDT", &["1m"])];
        let sight = crate::cli::sight::tests::sample(NOW);
        let run = |paint| {
            let mut out = Vec::new();
            let house = house(&sample, &instruments);
            show(&house, Ok(Some(&sight)), Status::default(), NOW, paint, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let painted = run(Paint::new(true));
        assert!(painted.contains("\u{1b}[32m●\u{1b}[0m BTC-USDT-SWAP  stream"), "{painted}");
        assert!(painted.contains("\u{1b}[33m◐\u{1b}[0m SOL-USDT  poll"), "{painted}");
        assert!(run(Paint::new(false)).is_ascii());
    }
}
