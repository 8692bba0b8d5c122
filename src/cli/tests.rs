//! The command line, good and bad.

use proptest::prelude::*;

use crate::cli::command::{Command, Globals, Usage, Which, parse};
use crate::cli::export::{Export, Target};
use crate::cli::gaps::Gaps;
use crate::cli::query::{self, Query};
use crate::cli::status::{Format, Status};
use crate::cli::verify::Verify;
use crate::cli::websocket::WebSocket;
use crate::config::{Addition, RealtimeMode, StreamChange};
use crate::instrument::{Instrument, Series};
use crate::okx::Kind;
use crate::span::Span;
use crate::store::query::{EVERYTHING, Selection};
use crate::verification::Share;

/// Parses a line as a shell without quotes would.
fn line(text: &str) -> Result<(Globals, Command), Usage> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    parse(&words)
}

fn command(text: &str) -> Command {
    line(text).unwrap_or_else(|usage| panic!("{text}: {usage:?}")).1
}

fn instrument(name: &str) -> Instrument {
    name.parse().unwrap()
}

fn series(name: &str, bar: &str) -> Series {
    Series { instrument: instrument(name), bar: bar.parse().unwrap() }
}

fn addition(name: &str, bars: &[&str]) -> Addition {
    Addition {
        instrument: instrument(name),
        timeframes: bars.iter().map(|bar| bar.parse().unwrap()).collect(),
        sync_interval_seconds: None,
        max_history_days: None,
        realtime_source: None,
    }
}

#[test]
fn every_command_is_understood() {
    let btc = || series("BTC-USDT", "1H");
    let query = |selection, format| Command::Query(Query { series: btc(), selection, format });
    let backfill = |selection| Command::Backfill { series: btc(), selection };
    let may = 1_714_521_600_000;
    let range = |end| Selection::Range(Span::new(may, end));
    let gaps = |instrument, bar| Command::Gaps {
        asked: Gaps { instrument, bar, ..Gaps::default() },
        fill: false,
    };
    let these = |names: &[&str]| Which::These(names.iter().map(|name| instrument(name)).collect());
    for (text, expected) in [
        ("sync --all", Command::Sync(Which::All)),
        ("sync btc/usdt ETH-USDT BTC-USDT", Command::Sync(these(&["BTC-USDT", "ETH-USDT"]))),
        ("backfill BTC-USDT 1h", backfill(Selection::Range(EVERYTHING))),
        ("backfill BTC-USDT 1h --days 30", backfill(Selection::Days(30))),
        ("backfill BTC-USDT 1h --start 2024-05-01", backfill(range(EVERYTHING.end))),
        (
            "backfill BTC-USDT 1h --end 2024-05-01",
            backfill(Selection::Range(Span::new(EVERYTHING.start, may))),
        ),
        ("gaps", gaps(None, None)),
        ("gaps BTC-USDT", gaps(Some(instrument("BTC-USDT")), None)),
        ("gaps BTC-USDT 1h", gaps(Some(instrument("BTC-USDT")), Some(btc().bar))),
        (
            "gaps --fill --json",
            Command::Gaps { asked: Gaps { json: true, ..Gaps::default() }, fill: true },
        ),
        ("query BTC-USDT 1h", query(Selection::Newest(10), query::Format::Table)),
        ("query BTC-USDT 1h --json", query(Selection::Newest(10), query::Format::Json)),
        (
            "query BTC-USDT 1h --format json --json",
            query(Selection::Newest(10), query::Format::Json),
        ),
        (
            "query BTC-USDT 1h --count 10000000 --format csv",
            query(Selection::Newest(10_000_000), query::Format::Csv),
        ),
        (
            "query BTC-USDT 1h --start 1714521600000 --end 2024-05-01T00:00:01Z",
            query(range(may + 1_000), query::Format::Table),
        ),
        ("overview", Command::Overview { json: false }),
        ("add-symbol SOL-USDT", Command::AddSymbol(addition("SOL-USDT", &[]))),
        (
            "remove-symbol SOL-USDT",
            Command::RemoveSymbol { instrument: instrument("SOL-USDT"), purge: false },
        ),
        (
            "remove-symbol --purge SOL-USDT",
            Command::RemoveSymbol { instrument: instrument("SOL-USDT"), purge: true },
        ),
        ("list", Command::List { available: None, json: false }),
        ("list --available", Command::List { available: Some(Kind::Spot), json: false }),
        (
            "list --available --type swap --json",
            Command::List { available: Some(Kind::Swap), json: true },
        ),
    ] {
        assert_eq!(command(text), expected, "{text}");
    }
}

#[test]
fn what_watches_is_understood() {
    let status = |format, max_lag_ms| Command::Status(Status { format, max_lag_ms });
    let btc = Some(instrument("BTC-USDT"));
    let asked = Gaps { instrument: btc, check: true, ..Gaps::default() };
    // The option takes a value in one command and none in the other.
    for (text, expected) in [
        ("status", status(Format::Table, None)),
        ("status --json", status(Format::Json, None)),
        ("status --format prometheus", status(Format::Prometheus, None)),
        ("status --check 90", status(Format::Table, Some(90_000))),
        ("--check 5m status --json", status(Format::Json, Some(300_000))),
        ("gaps --check BTC-USDT", Command::Gaps { asked, fill: false }),
    ] {
        assert_eq!(command(text), expected, "{text}");
    }
}

#[test]
fn verifications_are_understood() {
    let plain = || Verify {
        series: series("BTC-USDT", "1H"),
        days: None,
        sample: Share::ALL,
        repair: false,
        json: false,
    };
    let sample = "0.5".parse().unwrap();
    let full = Verify { days: Some(7), sample, repair: true, json: true, ..plain() };
    for (text, expected) in [
        ("verify BTC-USDT 1h", plain()),
        ("verify BTC-USDT --sample=100.0 1h", plain()),
        ("verify --repair --json BTC-USDT --days=7 1h --sample 0.5", full),
    ] {
        assert_eq!(command(text), Command::Verify(expected), "{text}");
    }
}

#[test]
fn the_daemon_and_the_stream_are_understood() {
    let websocket = Command::WebSocket;
    for (text, expected) in [
        ("daemon", Command::Daemon { no_sync_on_start: false }),
        ("daemon --no-sync-on-start", Command::Daemon { no_sync_on_start: true }),
        ("websocket status", websocket(WebSocket::Status { json: false })),
        ("--json websocket status", websocket(WebSocket::Status { json: true })),
        ("websocket test", websocket(WebSocket::Test { timeout_ms: 10_000 })),
        ("websocket --timeout=30 test", websocket(WebSocket::Test { timeout_ms: 30_000 })),
        ("websocket config", websocket(WebSocket::Config(None))),
        (
            "websocket config --enable",
            websocket(WebSocket::Config(Some(StreamChange::Enabled(true)))),
        ),
        (
            "websocket config --disable",
            websocket(WebSocket::Config(Some(StreamChange::Enabled(false)))),
        ),
        (
            "websocket config --set-mode polling",
            websocket(WebSocket::Config(Some(StreamChange::Mode(RealtimeMode::Polling)))),
        ),
    ] {
        assert_eq!(command(text), expected, "{text}");
    }
}

#[test]
fn exports_go_to_a_file_or_to_standard_output() {
    let plain = Export {
        series: series("BTC-USDT", "1m"),
        target: Target::Stdout,
        selection: Selection::default(),
        unconfirmed: false,
        complete: false,
    };
    assert_eq!(command("export BTC-USDT 1m -"), Command::Export(plain.clone()));
    let file = Export {
        target: Target::File("out.csv".into()),
        selection: Selection::Days(7),
        unconfirmed: true,
        complete: true,
        ..plain.clone()
    };
    let text = "export --complete BTC-USDT 1m --days=7 out.csv --unconfirmed";
    assert_eq!(command(text), Command::Export(file));
    let odd = Export { target: Target::File("--odd".into()), ..plain };
    assert_eq!(command("export -- BTC-USDT 1m --odd"), Command::Export(odd));
}

#[test]
fn options_stand_anywhere_and_in_both_forms() {
    let expected = line("--config c.json --data-dir d --verbose status --json").unwrap();
    assert_eq!(expected.0.config, Some("c.json".into()));
    assert_eq!(expected.0.data_dir, Some("d".into()));
    assert!(expected.0.verbose);
    for text in [
        "status --config c.json --data-dir d -v --json",
        "--json --config=c.json status -v --data-dir=d",
        "-v -v --data-dir d status --json --config c.json",
    ] {
        assert_eq!(line(text).as_ref(), Ok(&expected), "{text}");
    }
    assert_eq!(line("status --config=a=b").unwrap().0.config, Some("a=b".into()));
    assert_eq!(command("--days 3 query BTC-USDT 1h"), command("query BTC-USDT --days 3 1h"));
}

#[test]
fn timeframes_are_listed_in_every_way() {
    let expected = Command::AddSymbol(addition("SOL-USDT", &["1m", "1H", "1D"]));
    for text in [
        "add-symbol SOL-USDT --timeframes 1m 1h 1d",
        "add-symbol --timeframes 1m 1h 1d SOL-USDT",
        "add-symbol --timeframes 1m,1h,1d SOL-USDT",
        "add-symbol --timeframes=1m,1h 1d SOL/USDT",
        "add-symbol --timeframes 1m --timeframes 1h SOL-USDT --timeframes 1d",
        "--timeframes 1m 1h 1d add-symbol SOL-USDT",
        "add-symbol SOL-USDT --timeframes 1m 1h 1H 1d 1m",
    ] {
        assert_eq!(command(text), expected, "{text}");
    }
    let full = Addition {
        sync_interval_seconds: Some(30),
        max_history_days: Some(90),
        realtime_source: Some(RealtimeMode::Polling),
        ..addition("SOL-USDT", &["1M"])
    };
    assert_eq!(
        command(
            "add-symbol SOL-USDT --timeframes 1M --interval 30 --history-days=90 --source polling"
        ),
        Command::AddSymbol(full)
    );
}

#[test]
fn what_is_wrong_is_told_in_a_line() {
    for (text, expected) in [
        ("", "give a command: okx-store --help lists them"),
        ("--json", "give a command: okx-store --help lists them"),
        ("stauts", "unknown command \"stauts\", did you mean status?"),
        ("dæmonic", "unknown command \"dæmonic\": okx-store --help lists them"),
        ("demon", "unknown command \"demon\", did you mean daemon?"),
        ("daemon now", "daemon: \"now\" is one word too many"),
        ("--confg c.json status", "unknown option \"--confg\", did you mean --config?"),
        ("status --frobnicate", "unknown option \"--frobnicate\": okx-store status --help lists"),
        ("status -5", "unknown option \"-5\""),
        ("sync --all --count 3", "sync has no option --count: see okx-store sync --help"),
        ("sync --all --json", "sync has no option --json: see okx-store sync --help"),
        ("status --json=yes", "--json takes no value"),
        ("status --config", "--config: a value is missing"),
        ("status --config=", "--config: a value is missing"),
        ("--config --json status", "--config: a value is missing"),
        ("query BTC-USDT 1h --count -v", "--count: a value is missing"),
        ("add-symbol A-B --timeframes", "--timeframes: a value is missing"),
        ("add-symbol A-B --timeframes 1m,,1h", "--timeframes: a value is missing"),
        ("status --config a --config b", "--config is given twice"),
        ("query BTC-USDT 1h --count 1 --count=2", "--count is given twice"),
        ("query", "query: give SYMBOL, TIMEFRAME: see okx-store query --help"),
        ("export BTC-USDT 1h", "export: give OUTPUT: see okx-store export --help"),
        ("query BTC-USDT 1h 5", "query: \"5\" is one word too many"),
        ("status BTC-USDT", "status: \"BTC-USDT\" is one word too many"),
        ("gaps BTC-USDT 1h 5", "gaps: \"5\" is one word too many"),
        ("sync", "sync: give symbols, or --all for every configured instrument"),
        ("sync BTC-USDT --all", "sync: give either symbols or --all"),
        ("sync ../../etc/passwd", "\"../../etc/passwd\" is no instrument: give a name such as"),
        ("query BTC-USDT;DROP 1h", "\"BTC-USDT;DROP\" is no instrument"),
        ("query BTC-USDT 7m", "\"7m\" is no bar: give one of 1s 1m"),
        ("gaps BTC-USDT 1x", "\"1x\" is no bar"),
        ("query BTC-USDT 1h --count -3", "--count -3: give a whole number from 1 to 10000000"),
        ("query BTC-USDT 1h --count=-3", "--count -3: give a whole number from 1 to 10000000"),
        ("query BTC-USDT 1h --count 0", "--count 0: give a whole number"),
        ("query BTC-USDT 1h --count 10000001", "--count 10000001: give a whole number"),
        ("query BTC-USDT 1h --count +3", "--count +3: give a whole number"),
        ("query BTC-USDT 1h --count 1e3", "--count 1e3: give a whole number"),
        ("verify BTC-USDT", "verify: give TIMEFRAME: see okx-store verify --help"),
        ("verify BTC-USDT 1h --days 0", "--days 0: give a whole number from 1 to 10000"),
        ("verify BTC-USDT 1h --sample 0", "--sample 0: give a percentage above 0 and up to 100"),
        ("verify BTC-USDT 1h --sample 101", "--sample 101: give a percentage above 0"),
        ("verify BTC-USDT 1h --sample -5", "--sample -5: give a percentage above 0"),
        ("verify BTC-USDT 1h --count 3", "verify has no option --count"),
        ("query BTC-USDT 1h --days 0", "--days 0: give a whole number from 1 to 10000"),
        ("query BTC-USDT 1h --start yesterday", "--start: \"yesterday\" is no time: give a date"),
        ("query BTC-USDT 1h --start -5", "--start: \"-5\" is no time"),
        (
            "query BTC-USDT 1h --start 2024-05-01 --end 2024-05-01",
            "--end 2024-05-01: give a time after --start 2024-05-01",
        ),
        ("query BTC-USDT 1h --start 2024-05-01 --end soon", "--end: \"soon\" is no time"),
        ("query BTC-USDT 1h --days 3 --end 2024-05-01", "--days and --end exclude each other"),
        ("query BTC-USDT 1h --days 3 --start 2024-05-01", "--days and --start exclude each other"),
        ("query BTC-USDT 1h --count 3 --days 3", "--count and --days exclude each other"),
        ("query BTC-USDT 1h --format xml", "--format xml: give one of table, json, csv"),
        ("query BTC-USDT 1h --format csv --json", "--format and --json exclude each other"),
        ("add-symbol A-B --timeframes 1m 7m", "--timeframes: \"7m\" is no bar"),
        ("add-symbol A-B --interval 0", "--interval 0: give a whole number from 1 to 86400"),
        ("add-symbol A-B --history-days x", "--history-days x: give a whole number from 1 to"),
        ("add-symbol A-B --source fast", "--source: \"fast\" is no mode: give one of websocket"),
        ("list --type SWAP", "--type is for list --available alone"),
        ("list --available --type COIN", "--type COIN: give one of SPOT, SWAP, FUTURES, OPTION"),
    ] {
        assert_bad(text, expected);
    }
}

#[track_caller]
fn assert_bad(text: &str, expected: &str) {
    match line(text) {
        Err(Usage::Bad(told)) => {
            assert!(told.starts_with(expected), "{text}: {told}");
            assert!(!told.contains('\n'), "{text}: {told}");
        }
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_is_wrong_about_the_stream_is_told_in_a_line() {
    for (text, expected) in [
        ("websocket", "websocket: give ACTION: see okx-store websocket --help"),
        ("websocket stauts", "websocket: unknown action \"stauts\", did you mean status?"),
        ("websocket frobnicate", "websocket: \"frobnicate\" is unknown: give one of status, test"),
        ("websocket status --timeout 3", "websocket status has no option --timeout"),
        ("websocket config --json", "websocket config has no option --json"),
        ("websocket test --enable", "websocket test has no option --enable"),
        ("websocket test --timeout 0", "--timeout 0: give a whole number from 1 to 600"),
        ("websocket test --timeout", "--timeout: a value is missing"),
        ("websocket config --enable --disable", "--enable and --disable exclude each other"),
        (
            "websocket config --disable --set-mode auto",
            "--disable and --set-mode exclude each other",
        ),
        ("websocket config --set-mode fast", "--set-mode: \"fast\" is no mode: give one of"),
        ("websocket config hybrid", "websocket: \"hybrid\" is one word too many"),
    ] {
        assert_bad(text, expected);
    }
}

#[test]
fn help_and_version_come_first() {
    assert_eq!(line("sync --bogus --version"), Err(Usage::Version));
    let help = |text: &str| match line(text) {
        Err(Usage::Help(help)) => help,
        other => panic!("{text}: {other:?}"),
    };
    assert!(help("--help").starts_with("Usage: okx-store ["));
    for text in ["query --help", "--help query", "help query", "query BTC-USDT --bogus -h"] {
        assert!(help(text).starts_with("Usage: okx-store query SYMBOL TIMEFRAME\n"), "{text}");
    }
    assert!(matches!(line("export BTC-USDT 1m -- --help"), Ok((_, Command::Export(_)))));
}

#[test]
fn every_help_fits_a_terminal_and_has_an_example() {
    let top = match line("--help") {
        Err(Usage::Help(top)) => top,
        other => panic!("{other:?}"),
    };
    let listed = top.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(commands.len(), 16, "{commands:?}");
    let each = commands.iter().map(|command| match line(&format!("{command} --help")) {
        Err(Usage::Help(help)) => help,
        other => panic!("{other:?}"),
    });
    for help in each.chain([top.clone()]) {
        assert!(help.contains("Examples:\n  okx-store "), "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

proptest! {
    /// Whatever is said, the answer is a command or one line, and never a panic or a text of
    /// argh's own, which would mean that the sorting let something through.
    #[test]
    fn no_words_are_beyond_answer(
        words in prop::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "status", "sync", "query", "export", "gaps", "add-symbol", "list", "BTC-USDT",
                    "1m", "1h", "-", "--", "-v", "--json", "--all", "--count", "--days", "5", "-3",
                    "--timeframes", "--start", "2024-05-01", "--config", "--config=", "--=", "-=",
                    "--format=csv", "--type", "--available", "", "--interval=1", "1m,1h",
                    "websocket", "test", "config", "--enable", "--set-mode", "--timeout", "daemon",
                ]).prop_map(str::to_owned),
                any::<String>(),
            ],
            0..8,
        )
    ) {
        if let Err(Usage::Bad(told)) = parse(&words) {
            prop_assert!(!told.is_empty() && !told.contains(char::is_control), "{told:?}");
            let foreign = ["Unrecognized", "Required", "Error parsing", "One of the following"];
            prop_assert!(!foreign.iter().any(|words| told.contains(words)), "{told:?}");
        }
    }
}
