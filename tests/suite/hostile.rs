//! Files that somebody else has written to, or put in the data folder: whatever stands in them, no
//! command panics, hangs, leaves the folder or says what is not so to a terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use okx_local_store::lock::Lock;

use crate::exchange::{Builder, Exchange, Listed};
use crate::live::{self, Live, Truth};
use crate::process::{Home, T0};

/// Every command that only reads.
const READING: [&str; 9] = [
    "status",
    "status --json",
    "gaps",
    "gaps --json",
    "overview --json",
    "query BTC-USDT 1m --count 5",
    "query BTC-USDT 1m --days 1 --format json",
    "export BTC-USDT 1m -",
    "list",
];

fn market() -> Builder {
    Exchange::builder().clock(T0).speed(0.0).synthetic("BTC-USDT", Listed::days(20))
}

fn synced(exchange: &Exchange) -> Home {
    let home = Home::of(exchange).instrument("BTC-USDT", "1m", 1);
    home.run("sync --all").exits(0);
    home
}

/// What a command does that it should not, if anything: it may work or refuse in words.
fn fault_of(home: &Home, words: &str) -> Option<String> {
    let done = home.run(words);
    let text = format!("{}{}", done.out, done.err);
    let hostile = |c: char| c != '\n' && c.is_control();
    let sound = matches!(done.code, Some(0 | 1)) && !text.contains(hostile);
    (!sound).then(|| format!("{words}: {:?}: {:?}", done.code, done.err + &done.out))
}

/// Runs every reading command.
fn faults_of_all(home: &Home) -> Vec<String> {
    READING.iter().filter_map(|words| fault_of(home, words)).collect()
}

/// What may stand in a file that has our tables, and that this program would never write.
const WRITTEN: [(&str, &str); 16] = [
    (
        "a row at the end of numbers",
        "INSERT INTO candles_1m SELECT 9223372036854775807, open, high,
      low, close, volume, volume_ccy, volume_quote, 1, 0, 0 FROM candles_1m LIMIT 1",
    ),
    (
        "rows at the end of numbers",
        "INSERT INTO candles_1m SELECT 9223372036854770000 + ts % 7, 1,
      1, 1, 1, 1, 1, 1, 1, 0, 9223372036854775807 FROM candles_1m LIMIT 3",
    ),
    (
        "rows before time",
        "INSERT INTO candles_1m SELECT -ts * 5000000, open, high, low, close,
      volume, volume_ccy, volume_quote, confirmed, 0, -1 FROM candles_1m LIMIT 3",
    ),
    (
        "no number",
        "UPDATE candles_1m SET high = 9e999, low = -9e999, close = -9e999
      WHERE ts % 180000 = 0",
    ),
    (
        "neither open nor closed",
        "UPDATE candles_1m SET confirmed = 7, source = -9 WHERE ts % 2 = 0",
    ),
    (
        "a span over all time",
        "INSERT INTO spans VALUES ('1m', -9223372036854775808,
      9223372036854775807)",
    ),
    ("spans that end before they begin", "UPDATE spans SET first_ts = end_ts, end_ts = first_ts"),
    ("spans within spans", "INSERT INTO spans SELECT bar, first_ts + 1, end_ts + 77 FROM spans"),
    (
        "an absence over all time",
        "INSERT INTO empties VALUES ('1m', -9223372036854775808,
      9223372036854775807, 'absent', 4294967295, 9223372036854775807)",
    ),
    (
        "history that begins after its end",
        "INSERT INTO empties VALUES ('1m', 9223372036854775807, 0,
      'before_history', 0, -9223372036854775808)",
    ),
    ("attempts below zero", "INSERT INTO empties VALUES ('1m', 5, 6, 'absent', -1, 0)"),
    (
        "a reason nobody knows",
        "INSERT INTO empties VALUES ('1m', 60000, 120000,
      char(27) || '[2J', 1, 0)",
    ),
    (
        "a clock beyond all bounds",
        "UPDATE meta SET value = '9223372036854775807'
      WHERE key = 'clock_offset_ms'",
    ),
    (
        "a clock before all bounds",
        "UPDATE meta SET value = '-9223372036854775808'
      WHERE key = 'clock_offset_ms'",
    ),
    (
        "a sync in a time to come",
        "UPDATE meta SET value = '9223372036854775807'
      WHERE key LIKE 'synced_at%'; INSERT INTO meta VALUES ('odd_rows:1m', '-9223372036854775808')",
    ),
    (
        "words for a terminal",
        "INSERT INTO meta VALUES ('last_error:1m',
      char(27) || ']0;x' || char(7) || char(10) || 'done')",
    ),
];

#[test]
fn a_file_may_hold_anything() {
    let exchange = market().start();
    let home = synced(&exchange);
    let path = home.data_dir().join("BTC-USDT.db");
    let sound = fs::read(&path).unwrap();
    let mut found = Vec::new();
    for (what, sql) in WRITTEN {
        fs::write(&path, &sound).unwrap();
        home.open("BTC-USDT").execute_batch(sql).unwrap();
        let mut faults = faults_of_all(&home);
        faults.extend(fault_of(&home, "sync --all"));
        faults.extend(["status", "gaps --json"].iter().filter_map(|it| fault_of(&home, it)));
        // Rows are counted against whatever the ledger says.
        if !sql.contains("candles_1m") {
            home.assert_equals(&exchange);
        }
        found.extend(faults.iter().map(|fault| format!("{what}: {fault}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A snapshot that says so in each of its numbers and texts.
fn snapshot(number: &str, text: &str) -> String {
    let pid = std::process::id();
    let view = |parts: &[(&str, &str)]| {
        let part = |&(names, value): &(&str, &str)| {
            names.split(' ').map(|name| format!("{name:?}:{value}")).collect::<Vec<_>>().join(",")
        };
        parts.iter().map(part).collect::<Vec<_>>().join(",")
    };
    let series = view(&[("timeframe", "\"1m\""), ("via last_error", text), ("updated_at", number)]);
    let instrument = view(&[
        ("symbol", "\"BTC-USDT\""),
        ("mode reason error", text),
        ("since", number),
        ("fell_back", "true"),
    ]);
    let stream = view(&[
        ("enabled connected replacing", "true"),
        ("url breaker login last_error", text),
        ("age_ms max_age_ms retry_in_ms rtt_ms last_heard_ms last_error_ago_ms", number),
        ("updates_per_second", number),
        ("frames errors reconnects", "18446744073709551615"),
        ("subscriptions wanted failures", "4294967295"),
    ]);
    let latency = view(&[("p50_ms p99_ms confirmed_p50_ms confirmed_p99_ms", number)]);
    let rest = view(&[("saved_share", number), ("paused last_error", text)]);
    let head = view(&[
        ("version config_error stalled", text),
        ("started_at written_at uptime_ms now clock_offset_ms", number),
    ]);
    format!(
        "{{\"pid\":{pid},{head},\"stream\":{{{stream}}},\"latency\":{{{latency}}},
         \"rest\":{{{rest}}},\"instruments\":[{{{instrument},\"series\":[{{{series}}}]}}]}}"
    )
}

#[test]
fn a_snapshot_may_say_anything() {
    let exchange = market().start();
    let home = synced(&exchange);
    let file = home.data_dir().join(".daemon.json");
    let lock = Lock::take(&home.data_dir()).unwrap();
    lock.sign_as_daemon().unwrap();
    let numbers = ["9223372036854775807", "-9223372036854775808", "0", "-1", "253402300799999"];
    let texts = [r#""\u001b[2J\u009b31m\n\u0000""#, r#""""#, "\"half_open\""];
    let mut cases: Vec<String> =
        numbers.iter().enumerate().map(|(n, number)| snapshot(number, texts[n % 3])).collect();
    // Of another form it is none.
    cases.extend([snapshot("1e999", "0"), "[".repeat(100_000), "{}".into(), "{\"pid\":-1}".into()]);
    let mut found = Vec::new();
    for (n, case) in cases.iter().enumerate() {
        fs::write(&file, case).unwrap();
        let words = ["status", "status --json", "websocket status", "websocket status --json"];
        found.extend(words.iter().filter_map(|words| fault_of(&home, words)));
        let seen = home.run("status --json").json();
        assert_eq!(seen["daemon"]["running"], true, "{case}");
        let is_shown = !seen["daemon"]["snapshot_age_ms"].is_null();
        assert_eq!(is_shown, n < numbers.len(), "{case}");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn links_and_strangers_in_the_folder_lead_nowhere() {
    let exchange = market().start();
    let home = synced(&exchange);
    let outside = home.path("precious");
    fs::write(&outside, "precious").unwrap();
    let inside = |name: &str| home.data_dir().join(name);
    for name in ["..db", ".db", "x.db", "BTC-USDT;.db", "ETH-USDT-%2e.db", "eth-usdt.db", "-.db"] {
        fs::write(inside(name), "x").unwrap();
    }
    fs::create_dir(inside("ADA-USDT.db")).unwrap();
    symlink(&outside, inside("SOL-USDT.db")).unwrap();
    symlink(home.path("nowhere"), inside("XRP-USDT.db")).unwrap();
    assert_eq!(faults_of_all(&home), [""; 0]);
    for words in [
        "query SOL-USDT 1m",
        "query ADA-USDT 1m",
        "remove-symbol ../precious --purge",
        "remove-symbol .. --purge",
        "remove-symbol SOL-USDT/../../precious --purge",
    ] {
        assert!(matches!(home.run(words).code, Some(1 | 2)), "{words}");
    }
    // What the program writes beside the files is its own, and no way to those of others.
    for name in [".lock", ".requests"] {
        let kept = home.path("kept");
        fs::rename(inside(name), &kept).unwrap();
        symlink(&outside, inside(name)).unwrap();
        home.run("sync --all").exits(1).last_word(name);
        fs::rename(&kept, inside(name)).unwrap();
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    fs::write(inside(".lock"), "4294967296\n\u{1b}[2J").unwrap();
    fs::write(inside(".requests"), [b"\xff\xfe 9 candles\n".repeat(20_000), vec![0; 9]].concat())
        .unwrap();
    home.run("sync --all").exits(0);
    home.assert_equals(&exchange);
}

/// Says one line to a daemon and hears its first.
fn say(home: &Home, line: &[u8]) -> String {
    let mut socket = UnixStream::connect(home.data_dir().join("daemon.sock")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // It may hang up on us before it has heard us out.
    let _ = socket.write_all(line).and_then(|()| socket.write_all(b"\n"));
    let mut answer = String::new();
    let _ = BufReader::new(socket).read_line(&mut answer);
    answer
}

#[test]
fn a_daemon_takes_nothing_hostile_from_its_socket_or_its_folder() {
    let exchange = live::market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = live::home(&exchange).instrument("BTC-USDT", "1m", 1);
    let home = home.instrument("ETH-USDT", "1m", 1);
    fs::write(home.path("precious.db"), "precious").unwrap();
    fs::create_dir(home.data_dir()).unwrap();
    symlink(home.path("precious.db"), home.data_dir().join(".daemon.json.part")).unwrap();
    let mut live = Live::start(&home);
    live.streams("from the start");
    live.comes_to(&Truth::of(&exchange, &home), "at first");
    let request = |request: &str| format!("{{\"version\":1,\"request\":{request}}}").into_bytes();
    for line in [
        request(r#"{"purge":"../precious"}"#),
        request(r#"{"purge":"..\/precious"}"#),
        request(r#"{"purge":"\u002e\u002e/precious"}"#),
        request(r#"{"purge":"BTC-USDT"}"#),
        request(r#"{"fill":[{"series":"../precious 1m","days":1}]}"#),
        request(r#"{"fill":[{"series":"BTC-USDT 1m","start":-1,"end":9223372036854775807}]}"#),
        b"\xff\x00\x1b[2J".to_vec(),
        b"[".repeat(1 << 20),
        b"x".repeat(8 << 20),
    ] {
        let answer = say(&home, &line);
        let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
        assert!(answer.contains("\"refused\""), "{shown}: {answer:?}");
        assert!(!answer.trim_end().contains(char::is_control), "{shown}: {answer:?}");
    }
    assert_eq!(fs::read_to_string(home.path("precious.db")).unwrap(), "precious");

    // A file that is deleted while it streams is told of, and begun anew when that is wanted.
    fs::remove_file(home.data_dir().join("ETH-USDT.db")).unwrap();
    let seen = live.wait("a file that is missed", |seen| seen.instruments[1].error.is_some());
    let error = seen.instruments[1].error.as_deref().unwrap();
    assert!(error.contains("moved away or deleted"), "{error}");
    live.running.signal("HUP");
    live.streams("in a new file");
    live.comes_to(&Truth::of(&exchange, &home), "in a new file");
    live.stop("TERM");
}
