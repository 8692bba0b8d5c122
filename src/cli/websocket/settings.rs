//! `websocket config`: the settings of the stream, shown or changed.

use std::io::Write;

use crate::cli::outcome::{Exit, Failure, NOTHING_CONFIGURED, finish};
use crate::cli::paint::{Paint, Tone};
use crate::cli::sight::Sight;
use crate::cli::table::{Align, Layout, write_wrapped};
use crate::config::{
    CircuitBreaker, Config, Edit, InstrumentConfig, StreamChange, WebsocketConfig, set_stream,
};
use crate::mode::{Loss, RealtimeMode, Rule};
use crate::time::{Millis, SECOND};

/// Shows what is set, what that means for each instrument, and what else there would be.
pub fn show(config: &Config, paint: Paint, out: &mut dyn Write) -> Result<Exit, Failure> {
    finish(write(config, paint, out), out)
}

/// Changes the file, and tells who takes notice of that.
///
/// # Errors
///
/// The file is refused as it is, or cannot be written.
pub fn change(config: &Config, change: StreamChange, out: &mut dyn Write) -> Result<Exit, Failure> {
    let edit = set_stream(&config.file, change).map_err(Failure::Config)?;
    let (key, value) = match change {
        StreamChange::Enabled(enabled) => ("enable_websocket", enabled.to_string()),
        StreamChange::Mode(mode) => ("realtime_mode", mode.to_string()),
    };
    let file = config.file.display();
    if edit == Edit::Unchanged {
        writeln!(out, "{key} is {value} in {file} already")?;
        return finish(Ok(()), out);
    }
    writeln!(out, "{key} is {value} now in {file}")?;
    match Sight::look(&config.data_dir) {
        Some(sight) => {
            let pid = sight.snapshot.pid;
            writeln!(out, "the running daemon, pid {pid}, takes it up within 5 s")?;
        }
        None => writeln!(out, "no daemon is running: it holds from the next start on")?,
    }
    let after = after(config, change);
    for known in after.instruments.iter().filter(|known| known.enabled) {
        if let Some(remark) = overrules(&after, known, change) {
            write_wrapped(out, &format!("{}: ", known.instrument), &remark)?;
        }
    }
    finish(Ok(()), out)
}

/// The configuration with a change.
fn after(config: &Config, change: StreamChange) -> Config {
    let mut after = config.clone();
    match change {
        StreamChange::Enabled(enabled) => after.enable_websocket = enabled,
        StreamChange::Mode(mode) => after.realtime_mode = mode,
    }
    after
}

/// Why an instrument does not follow a change.
fn overrules(config: &Config, known: &InstrumentConfig, change: StreamChange) -> Option<String> {
    let meant = match change {
        StreamChange::Enabled(enabled) => enabled,
        StreamChange::Mode(mode) => mode != RealtimeMode::Polling,
    };
    match known.rule(config) {
        Rule::Poll(why) if meant => Some(format!("still polled: {why}")),
        _ => None,
    }
}

fn write(config: &Config, paint: Paint, out: &mut dyn Write) -> Result<(), Failure> {
    let file = config.file.display();
    match config.is_builtin {
        true => writeln!(out, "config  built-in defaults: there is no {file} yet")?,
        false => writeln!(out, "config  {file}")?,
    }
    // Not in the table, which an address would make wider than a terminal.
    let whose = if config.ws_url.is_some() { "ws_url" } else { "region and sandbox" };
    writeln!(out, "stream  {}, by {whose}\n", config.ws_url())?;
    let default = Config::builtin(config.file.clone());
    let defaults = keys(&default);
    let row = |((key, value), (_, default)): ((String, String), (String, String))| {
        let remark = match value == default {
            true => paint.word(Tone::Faint, "default"),
            false => format!("default: {default}"),
        };
        vec![key, value, remark]
    };
    let rows: Vec<Vec<String>> = keys(config).into_iter().zip(defaults).map(row).collect();
    let columns = [("key", Align::Left), ("value", Align::Left), ("", Align::Left)];
    Layout::new("", &columns).write(out, &rows)?;
    writeln!(out, "\nThe exchange offers no compression, so none is used.\n")?;
    if config.instruments.is_empty() {
        return Ok(writeln!(out, "{NOTHING_CONFIGURED}")?);
    }
    let row = |known: &InstrumentConfig| {
        let rule = known.rule(config);
        vec![known.instrument.to_string(), known.realtime_source.to_string(), words(rule)]
    };
    let rows: Vec<Vec<String>> = config.instruments.iter().map(row).collect();
    let columns = [("instrument", Align::Left), ("source", Align::Left), ("mode", Align::Left)];
    Layout::new("", &columns).write(out, &rows)?;
    Ok(writeln!(out, "\nChange with --enable, --disable or --set-mode, or in the file.")?)
}

/// The keys that are about the stream as a whole, with their values.
fn keys(config: &Config) -> Vec<(String, String)> {
    let WebsocketConfig {
        max_reconnect_attempts,
        heartbeat_interval_ms,
        ping_interval_ms,
        connection_timeout_ms,
        max_connection_age_ms,
        reconnect_delay_base_ms,
        reconnect_delay_max_ms,
        enable_compression,
        buffer_size,
    } = config.websocket;
    let CircuitBreaker { failure_threshold, recovery_timeout_ms } = config.circuit_breaker;
    let outer = [
        ("realtime_mode", config.realtime_mode.to_string()),
        ("enable_websocket", config.enable_websocket.to_string()),
        ("websocket_fallback_enabled", config.websocket_fallback_enabled.to_string()),
    ];
    let inner = [
        ("max_reconnect_attempts", max_reconnect_attempts.to_string()),
        ("heartbeat_interval", seconds(heartbeat_interval_ms)),
        ("ping_interval", seconds(ping_interval_ms)),
        ("connection_timeout", seconds(connection_timeout_ms)),
        ("max_connection_age", seconds(max_connection_age_ms)),
        ("reconnect_delay_base", seconds(reconnect_delay_base_ms)),
        ("reconnect_delay_max", seconds(reconnect_delay_max_ms)),
        ("enable_compression", enable_compression.to_string()),
        ("buffer_size", format!("{buffer_size} rows")),
    ];
    let breaker = [
        ("failure_threshold", failure_threshold.to_string()),
        ("recovery_timeout", seconds(recovery_timeout_ms)),
    ];
    let outer = outer.map(|(key, value)| (key.to_owned(), value));
    let inner = inner.map(|(key, value)| (format!("websocket_config.{key}"), value));
    let breaker = breaker.map(|(key, value)| (format!("circuit_breaker.{key}"), value));
    outer.into_iter().chain(inner).chain(breaker).collect()
}

/// As the file has it, with its unit.
fn seconds(length_ms: Millis) -> String {
    format!("{} s", length_ms as f64 / SECOND as f64)
}

/// What the settings of an instrument amount to.
fn words(rule: Rule) -> String {
    match rule {
        Rule::Off => "off: disabled".to_owned(),
        Rule::Poll(why) => format!("poll: {why}"),
        Rule::Stream { loss, auto } => {
            let loss = match loss {
                Loss::Poll => "polls at once on a loss",
                Loss::PollLater => "polls once a loss lasts 30 s",
                Loss::Wait => "waits for it on a loss",
            };
            let auto = if auto { ", for longer after many" } else { "" };
            format!("stream; {loss}{auto}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    /// A configuration from this text, in a folder that goes with it.
    fn config(text: &str) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        let nowhere = Environment { folder: dir.path().into(), ..Environment::default() };
        let config = Config::load_in(&nowhere, Some(&file), None).unwrap();
        (dir, config)
    }

    const TEXT: &str = r#"{
  // mine
  "realtime_mode": "auto",
  "sandbox": true,
  "websocket_config": { "ping_interval": 12.5 },
  "instruments": [
    { "symbol": "BTC-USDT" },
    { "symbol": "ETH-USDT", "realtime_source": "polling" },
    { "symbol": "SOL-USDT", "realtime_source": "websocket", "fallback_to_polling": false }
  ]
}"#;

    #[test]
    fn every_setting_is_told_beside_its_default() {
        let (_dir, config) = config(TEXT);
        let mut out = Vec::new();
        show(&config, Paint::default(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "stream  wss://wspap.okx.com, by region and sandbox",
            "realtime_mode                            auto       default: hybrid",
            "websocket_config.ping_interval           12.5 s     default: 20 s",
            "circuit_breaker.recovery_timeout         60 s       default",
            "BTC-USDT    hybrid     stream; polls at once on a loss, for longer after many",
            "ETH-USDT    polling    poll: configured to poll",
            "SOL-USDT    websocket  stream; waits for it on a loss",
        ] {
            assert!(text.lines().any(|told| told == line), "{line:?} is not in:\n{text}");
        }
        let narrow = |line: &str| line.chars().count() <= 80 || line.contains('/');
        assert!(text.lines().all(narrow), "{text}");
    }

    #[test]
    fn a_change_says_who_follows_it() {
        let (_dir, config) = config(TEXT);
        let run = |wanted| {
            let mut out = Vec::new();
            change(&config, wanted, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let told = run(StreamChange::Mode(RealtimeMode::Websocket));
        let file = config.file.display();
        let expected = format!(
            "realtime_mode is websocket now in {file}\n\
             no daemon is running: it holds from the next start on\n\
             ETH-USDT: still polled: configured to poll\n"
        );
        assert_eq!(told, expected);
        let again = run(StreamChange::Mode(RealtimeMode::Websocket));
        assert_eq!(again, format!("realtime_mode is websocket in {file} already\n"));
        assert!(std::fs::read_to_string(&config.file).unwrap().contains("// mine"));
    }
}
