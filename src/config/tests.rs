//! The fixtures `config_*.json`, one by one.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;

use crate::config::*;
use crate::wire::wild;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Reads a fixture as `--config` would, with a home and no variables.
fn load(name: &str) -> Result<Config, ConfigError> {
    let home = Some(PathBuf::from("/home/me"));
    let environment = Environment { folder: fixtures(), home, ..Environment::default() };
    Config::load_in(&environment, Some(Path::new(&format!("config_{name}.json"))), None)
}

#[test]
fn the_sample_says_every_key_and_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Environment {
        folder: folder.path().into(),
        home: Some(folder.path().join("home")),
        ..Environment::default()
    };
    let builtin = Config::load_in(&nowhere, None, None).unwrap();
    assert!(builtin.is_builtin);
    assert_eq!(builtin.data_dir, folder.path().join("home/.okx_local_store/data"));
    let bars: Vec<String> = builtin.series().map(|series| series.to_string()).collect();
    assert_eq!(
        bars[..5],
        ["BTC-USDT 1m", "BTC-USDT 5m", "BTC-USDT 1H", "BTC-USDT 1D", "ETH-USDT 1m"]
    );

    fs::create_dir_all(builtin.file.parent().unwrap()).unwrap();
    fs::write(&builtin.file, SAMPLE).unwrap();
    let sample = Config::load_in(&nowhere, None, None).unwrap();
    assert_eq!(sample, Config { is_builtin: false, ..builtin });
    for key in check::known_keys() {
        assert!(SAMPLE.contains(&format!("\"{key}\": ")), "the sample lacks {key}");
    }
}

#[test]
fn every_key_is_read() {
    let config = load("good_full").unwrap();
    let builtin = Config::builtin(fixtures().join("config_good_full.json"));
    let websocket = WebsocketConfig {
        max_reconnect_attempts: 7,
        heartbeat_interval_ms: 15_500,
        ping_interval_ms: 29_900,
        connection_timeout_ms: 100,
        max_connection_age_ms: 86_400_000,
        reconnect_delay_base_ms: 250,
        reconnect_delay_max_ms: 8_000,
        enable_compression: false,
        buffer_size: 1,
    };
    let swap = InstrumentConfig {
        instrument: "BTC-USDT-SWAP".parse().unwrap(),
        timeframes: ["1m", "1M", "1Dutc"].map(|bar| bar.parse().unwrap()).into(),
        sync_interval_ms: 86_400_000,
        max_history_days: 10_000,
        enabled: true,
        realtime_source: RealtimeMode::Polling,
        fallback_to_polling: false,
        websocket_priority: false,
    };
    let eth = InstrumentConfig::new("ETH-USDT".parse().unwrap());
    let expected = Config {
        file: builtin.file,
        is_builtin: false,
        data_dir: "/var/lib/okx".into(),
        region: Region::Eea,
        rest_url: Some("http://127.0.0.1:8080".into()),
        ws_url: Some("wss://ws.example.com:443".into()),
        ca_file: Some(fixtures().join("roots.pem")),
        sandbox: true,
        rate_limit_per_minute: 0,
        enable_auto_sync: false,
        sync_on_startup: false,
        max_concurrent_syncs: 16,
        log_level: LevelFilter::Debug,
        log_file: Some("/home/me/okx.log".into()),
        commit_interval_ms: 1,
        realtime_mode: RealtimeMode::Auto,
        enable_websocket: false,
        websocket_fallback_enabled: false,
        websocket,
        circuit_breaker: CircuitBreaker { failure_threshold: 1, recovery_timeout_ms: 300_000 },
        instruments: vec![swap, InstrumentConfig { enabled: false, ..eth }],
    };
    assert_eq!(config, expected);
    assert_eq!(config.rest_url(), "http://127.0.0.1:8080");
    assert_eq!(config.series().count(), 3, "what is not enabled has no series");
}

#[test]
fn a_file_that_says_nothing_mirrors_nothing() {
    let config = load("good_empty").unwrap();
    let builtin = Config::builtin(fixtures().join("config_good_empty.json"));
    assert_eq!(config, Config { is_builtin: false, instruments: Vec::new(), ..builtin });
    assert_eq!(config.data_dir, fixtures().join("data"));
    assert_eq!(config.rest_url(), "https://openapi.okx.com");
}

#[test]
fn the_command_line_and_the_environment_have_their_say() {
    let environment = Environment {
        folder: fixtures(),
        ca_file: Some("/etc/roots.pem".into()),
        ..Environment::default()
    };
    let load = |name, data_dir: Option<&str>| {
        Config::load_in(&environment, Some(Path::new(name)), data_dir.map(Path::new)).unwrap()
    };
    let config = load("config_good_empty.json", Some("elsewhere"));
    assert_eq!(config.data_dir, fixtures().join("elsewhere"));
    assert_eq!(config.ca_file, Some("/etc/roots.pem".into()));
    assert_eq!(load("config_good_full.json", None).ca_file, Some(fixtures().join("roots.pem")));
}

/// What is refused, with the words that the message must have after `FILE:`.
const BAD: [(&str, &str); 41] = [
    ("comma", "2: column 18: expected comma"),
    ("days", "2: instruments[0].max_history_days: 0 is refused: give a whole number from 1 to"),
    ("element", "2: instruments[0]: \"BTC-USDT\" is refused: give an object"),
    ("flag", "2: sandbox: \"yes\" is refused: give true or false"),
    ("fraction", "2: commit_interval_ms: 2.5 is refused: give a whole number from 1 to 60000"),
    ("interval", "2: instruments[0].sync_interval_seconds: 86401 is refused: give a whole"),
    ("key_twice", "4: sandbox: given twice, first in line 2"),
    ("list", "2: instruments: an object is refused: give a list"),
    ("log_level", "2: log_level: \"LOUD\" is refused: give one of OFF, ERROR, WARN, INFO"),
    ("many", "2: sandbox: \"x\" is refused"),
    ("mark", "1: the text begins with a byte order mark: save it without"),
    ("mode", "2: realtime_mode: \"fast\" is no mode: give one of websocket, polling, hybrid"),
    ("no_object", "2: the file holds no object: give {"),
    ("nothing", "1: the file holds no object: give {"),
    ("null", "2: data_dir: null is refused: give a text in quotes"),
    ("number_in_quotes", "2: instruments[0].max_history_days: \"30\" is refused: give a whole"),
    ("object", "2: websocket_config: true is refused: give an object"),
    ("path", "2: log_file: \"\" is refused: give a path"),
    ("ping", "2: websocket_config.ping_interval: 30 is refused: give seconds from 0.1 to 29.9"),
    ("quotes", "2: column 3: single-quoted strings are not allowed"),
    ("range", "2: max_concurrent_syncs: 17 is refused: give a whole number from 1 to 16"),
    ("range_negative", "2: rate_limit_per_minute: -1 is refused: give a whole number from 0"),
    ("reconnect_order", "2: websocket_config: reconnect_delay_base is above reconnect_delay_max"),
    ("region", "2: region: \"mars\" is no region: give global, eea or us"),
    ("seconds", "2: circuit_breaker.recovery_timeout: 1e300 is refused: give seconds from 0.1"),
    ("secret", "2: api_key: secrets come from the environment alone: take it out and set OKX_"),
    ("source", "2: instruments[0].realtime_source: \"stream\" is no mode: give one of websocket"),
    ("symbol", "3: instruments[0].symbol: \"../../etc/passwd\" is no instrument: give a name"),
    ("symbol_long", "2: instruments[0].symbol: \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA… is"),
    ("symbol_missing", "3: instruments[0]: symbol is missing"),
    ("symbol_twice", "4: instruments[1].symbol: BTC-USDT is given twice, first in line 3"),
    ("text", "2: data_dir: 7 is refused: give a text in quotes"),
    ("timeframe", "5: instruments[2].timeframes[0]: \"7m\" is no bar: give one of 1s 1m"),
    ("timeframe_twice", "2: instruments[0].timeframes[2]: 1H is given twice"),
    ("timeframes_none", "2: instruments[0].timeframes: the list is empty"),
    ("unknown_key", "2: rate_limit_per_minut: unknown key, did you mean rate_limit_per_minute?"),
    ("unknown_key_far", "2: circuit_breaker.colour: unknown key: known are failure_threshold,"),
    ("unknown_key_nested", "3: instruments[0].timefames: unknown key, did you mean timeframes?"),
    ("url_password", "2: rest_url: a user name or password has no place in an address"),
    ("url_path", "2: ws_url: \"wss://ws.okx.com:8443/ws/v5/public\" is refused: give wss://HOST"),
    ("url_plain", "2: rest_url: \"http://127.0.0.1.evil.com\" is refused: http:// is for loopback"),
];

#[test]
fn each_refusal_names_file_line_key_value_and_rule() {
    for (name, words) in BAD {
        let text = load(&format!("bad_{name}")).unwrap_err().to_string();
        let file = fixtures().join(format!("config_bad_{name}.json"));
        let expected = format!("{}:{words}", file.display());
        assert!(text.starts_with(&expected), "{name}: {text}");
        assert!(!text.contains("must-not-be-shown"), "{name}: {text}");
        assert!(text.lines().all(|line| line.len() < 400), "{name}: {text}");
        assert!(name == "many" || text.lines().count() == 1, "{name}: {text}");
    }
}

#[test]
fn every_fixture_is_tried() {
    let bad = BAD.iter().map(|(name, _)| format!("config_bad_{name}.json"));
    let good = ["full", "empty"].map(|name| format!("config_good_{name}.json"));
    let tried: BTreeSet<String> = bad.chain(good).collect();
    let names = fs::read_dir(fixtures()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = names.filter(|name| name.starts_with("config_")).collect();
    assert_eq!(tried, there);
}

#[test]
fn all_that_is_wrong_is_told_at_once_up_to_a_screen() {
    let refused = load("bad_many").unwrap_err();
    let ConfigError::Refused(_, refusals) = &refused else { panic!("{refused}") };
    assert_eq!(refusals.len(), 12);
    let text = refused.to_string();
    assert_eq!(text.lines().count(), 11);
    assert!(text.ends_with("and 2 more"), "{text}");
}

#[test]
fn bytes_that_are_no_text_are_refused_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.json");
    let environment = Environment::default();
    let load = || Config::load_in(&environment, Some(&file), None).unwrap_err().to_string();
    fs::write(&file, b"{\n  // \xff\n}").unwrap();
    assert!(load().ends_with("c.json:2: the text is not UTF-8"), "{}", load());
    fs::write(&file, " ".repeat(5 << 20)).unwrap();
    assert!(load().contains("larger than"), "{}", load());
}

/// Checks a text as the content of a file.
fn check_text(text: &str) -> Result<Config, ConfigError> {
    check::config(Path::new("/etc/okx/config.json"), text, Some(Path::new("/home/me")))
}

#[test]
fn a_file_of_any_size_and_shape_is_answered_for() {
    let keys: String = (0..200_000).map(|n| format!("\"k{n}\":1,")).collect();
    let symbols: String = (0..40_000).map(|n| format!("{{\"symbol\":\"A{n}-B\"}},")).collect();
    let bad = "{\"symbol\":7,\n\"x\":[]},".repeat(100_000);
    for (what, text, words) in [
        ("a tower of lists", "[".repeat(1 << 20), "nesting"),
        ("a tower of objects", "{\"instruments\":".repeat(100_000), "nesting"),
        ("a tower in its place", format!("{{\"instruments\":{}", "[".repeat(1 << 20)), "nesting"),
        ("many keys", format!("{{{keys}}}"), "unknown key"),
        ("many symbols, twice", format!("{{\"instruments\":[{symbols}{symbols}]}}"), "twice"),
        ("many refusals", format!("{{\"instruments\":[{bad}]}}"), "unknown key"),
        ("an endless name", format!("{{\"{}\":1}}", "x".repeat(3 << 20)), "unknown key"),
        ("an endless number", format!("{{\"sandbox\":{}}}", "9".repeat(3 << 20)), "true or false"),
        ("an endless remark", format!("/*{}", "*".repeat(3 << 20)), "comment"),
    ] {
        let told = check_text(&text).unwrap_err().to_string();
        assert!(told.contains(words), "{what}: {}", &told[..told.len().min(500)]);
        assert!(told.lines().count() <= 12 && told.len() < 5_000, "{what}: {} bytes", told.len());
    }
    let symbols = format!("{{\"instruments\":[{symbols}]}}");
    assert_eq!(check_text(&symbols).unwrap().instruments.len(), 40_000);
}

proptest! {
    #[test]
    fn no_text_is_beyond_answer(
        text in prop_oneof![
            any::<String>(),
            wild::json(),
            wild::json().prop_map(|it| format!("{{\"instruments\":[{it}]}}")),
            (prop::sample::select(check::known_keys().collect::<Vec<_>>()), wild::json())
                .prop_map(|(key, it)| format!("{{\"{key}\": {it}}}")),
            (prop::sample::select(check::known_keys().collect::<Vec<_>>()), wild::json()).prop_map(
                |(key, it)| format!(
                    "{{\"instruments\": [{{\"symbol\": \"A-B\", \"{key}\": {it}}}],
                       \"websocket_config\": {{\"{key}\": {it}}}}}"
                )
            ),
            wild::damaged(SAMPLE).prop_map(|it| String::from_utf8_lossy(&it).into_owned()),
        ],
    ) {
        match check_text(&text) {
            Ok(config) => {
                prop_assert!(config.data_dir.is_absolute());
                prop_assert!((1..=16).contains(&config.max_concurrent_syncs));
                prop_assert!(config.websocket.ping_interval_ms < 30 * SECOND);
            }
            Err(error) => {
                let told = error.to_string();
                prop_assert!(!told.replace('\n', "").contains(char::is_control), "{told:?}");
                prop_assert!(told.lines().all(|line| line.chars().count() < 600), "{told}");
            }
        }
    }
}
