//! From the raw form of a configuration to the checked one: every key, its type and its bounds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use log::LevelFilter;

use crate::bar::Bar;
use crate::config::raw::{self, Section, Slot};
use crate::config::{
    CircuitBreaker, Config, ConfigError, HISTORY_DAYS, InstrumentConfig, Refusal,
    SYNC_INTERVAL_SECONDS, WebsocketConfig, url,
};
use crate::instrument::Instrument;
use crate::time::{DAY, HOUR, MINUTE, Millis, SECOND};

/// The keys of the outermost object.
const KEYS: [&str; 19] = [
    "data_dir",
    "region",
    "rest_url",
    "ws_url",
    "ca_file",
    "sandbox",
    "rate_limit_per_minute",
    "enable_auto_sync",
    "sync_on_startup",
    "max_concurrent_syncs",
    "log_level",
    "log_file",
    "commit_interval_ms",
    "realtime_mode",
    "enable_websocket",
    "websocket_fallback_enabled",
    "websocket_config",
    "circuit_breaker",
    "instruments",
];

/// The keys of `websocket_config`.
const WEBSOCKET_KEYS: [&str; 9] = [
    "max_reconnect_attempts",
    "heartbeat_interval",
    "ping_interval",
    "connection_timeout",
    "max_connection_age",
    "reconnect_delay_base",
    "reconnect_delay_max",
    "enable_compression",
    "buffer_size",
];

/// The keys of `circuit_breaker`.
const BREAKER_KEYS: [&str; 2] = ["failure_threshold", "recovery_timeout"];

/// The keys of each element of `instruments`.
const INSTRUMENT_KEYS: [&str; 8] = [
    "symbol",
    "timeframes",
    "sync_interval_seconds",
    "max_history_days",
    "enabled",
    "realtime_source",
    "fallback_to_polling",
    "websocket_priority",
];

/// The shortest of the stream's times: shorter ones would only press the exchange.
const TIME_MIN: Millis = 100;
/// The exchange closes a connection on which nothing was said for 30 s, so a ping comes before.
/// Source: <https://www.okx.com/docs-v5/en/#overview-websocket-connect>.
const PING_MAX: Millis = 30 * SECOND - 1;

/// Checks the text of a file. Relative paths in it start from the folder of `file`, which is
/// absolute; `~/` stands for `home`.
pub(super) fn config(file: &Path, text: &str, home: Option<&Path>) -> Result<Config, ConfigError> {
    match read(file, text, home) {
        (Some(config), refusals) if refusals.is_empty() => Ok(config),
        (_, refusals) => Err(ConfigError::Refused(file.to_owned(), refusals)),
    }
}

/// What a text says, with defaults in the place of what is refused in it; nothing where it cannot
/// be parsed.
pub(super) fn read(file: &Path, text: &str, home: Option<&Path>) -> (Option<Config>, Vec<Refusal>) {
    raw::checked(text, |sheet, object| {
        let root = Section::new(sheet, "", object, &KEYS);
        let default = Config::builtin(file.to_owned());
        let path = |slot: &Slot| path(slot, file, home);
        let address = |key, secure, plain| root.get_unless_null(key)?.address(secure, plain);
        Config {
            is_builtin: false,
            data_dir: root.read("data_dir", default.data_dir, path),
            region: root.read("region", default.region, Slot::parsed),
            rest_url: address("rest_url", "https", "http"),
            ws_url: address("ws_url", "wss", "ws"),
            ca_file: root.get_unless_null("ca_file").and_then(|slot| path(&slot)),
            sandbox: root.read("sandbox", default.sandbox, Slot::flag),
            rate_limit_per_minute: root.read(
                "rate_limit_per_minute",
                default.rate_limit_per_minute,
                |slot| slot.whole(0..=10_000),
            ),
            enable_auto_sync: root.read("enable_auto_sync", default.enable_auto_sync, Slot::flag),
            sync_on_startup: root.read("sync_on_startup", default.sync_on_startup, Slot::flag),
            max_concurrent_syncs: root.read(
                "max_concurrent_syncs",
                default.max_concurrent_syncs,
                |slot| slot.whole(1..=16),
            ),
            log_level: root.read("log_level", default.log_level, log_level),
            log_file: root.get_unless_null("log_file").and_then(|slot| path(&slot)),
            commit_interval_ms: root.read(
                "commit_interval_ms",
                default.commit_interval_ms,
                |slot| slot.whole(1..=MINUTE),
            ),
            realtime_mode: root.read("realtime_mode", default.realtime_mode, Slot::parsed),
            enable_websocket: root.read("enable_websocket", default.enable_websocket, Slot::flag),
            websocket_fallback_enabled: root.read(
                "websocket_fallback_enabled",
                default.websocket_fallback_enabled,
                Slot::flag,
            ),
            websocket: websocket(&root, default.websocket),
            circuit_breaker: circuit_breaker(&root, default.circuit_breaker),
            instruments: root.get("instruments").map_or_else(Vec::new, |slot| instruments(&slot)),
            file: default.file,
        }
    })
}

fn websocket(root: &Section, default: WebsocketConfig) -> WebsocketConfig {
    let section = root.section("websocket_config", &WEBSOCKET_KEYS);
    let seconds = |key, default_ms, least_ms, most_ms| {
        section.read(key, default_ms, |slot| slot.seconds(least_ms..=most_ms))
    };
    let attempts = default.max_reconnect_attempts;
    let config = WebsocketConfig {
        max_reconnect_attempts: section
            .read("max_reconnect_attempts", attempts, |slot| slot.whole(1..=1_000)),
        heartbeat_interval_ms: seconds(
            "heartbeat_interval",
            default.heartbeat_interval_ms,
            TIME_MIN,
            10 * MINUTE,
        ),
        ping_interval_ms: seconds("ping_interval", default.ping_interval_ms, TIME_MIN, PING_MAX),
        connection_timeout_ms: seconds(
            "connection_timeout",
            default.connection_timeout_ms,
            TIME_MIN,
            2 * MINUTE,
        ),
        max_connection_age_ms: seconds(
            "max_connection_age",
            default.max_connection_age_ms,
            SECOND,
            DAY,
        ),
        reconnect_delay_base_ms: seconds(
            "reconnect_delay_base",
            default.reconnect_delay_base_ms,
            10,
            HOUR,
        ),
        reconnect_delay_max_ms: seconds(
            "reconnect_delay_max",
            default.reconnect_delay_max_ms,
            10,
            HOUR,
        ),
        enable_compression: section.read(
            "enable_compression",
            default.enable_compression,
            Slot::flag,
        ),
        buffer_size: section
            .read("buffer_size", default.buffer_size, |slot| slot.whole(1..=100_000)),
    };
    if config.reconnect_delay_base_ms > config.reconnect_delay_max_ms {
        section.refuse("reconnect_delay_base is above reconnect_delay_max");
    }
    config
}

fn circuit_breaker(root: &Section, default: CircuitBreaker) -> CircuitBreaker {
    let section = root.section("circuit_breaker", &BREAKER_KEYS);
    CircuitBreaker {
        failure_threshold: section
            .read("failure_threshold", default.failure_threshold, |slot| slot.whole(1..=1_000)),
        recovery_timeout_ms: section.read(
            "recovery_timeout",
            default.recovery_timeout_ms,
            |slot| slot.seconds(TIME_MIN..=5 * MINUTE),
        ),
    }
}

fn instruments(list: &Slot) -> Vec<InstrumentConfig> {
    let mut seen: BTreeMap<Instrument, usize> = BTreeMap::new();
    let mut configs = Vec::new();
    for element in list.list().unwrap_or_default() {
        let Some(section) = element.section(&INSTRUMENT_KEYS) else { continue };
        let Some(symbol) = section.get("symbol") else {
            section.refuse("symbol is missing: give a name such as BTC-USDT");
            continue;
        };
        let Some(instrument) = symbol.parsed::<Instrument>() else { continue };
        match seen.get(&instrument) {
            Some(line) => {
                symbol.refuse(&format!("{instrument} is given twice, first in line {line}"));
            }
            None => drop(seen.insert(instrument.clone(), symbol.line())),
        }
        configs.push(instrument_config(&section, InstrumentConfig::new(instrument)));
    }
    configs
}

fn instrument_config(section: &Section, default: InstrumentConfig) -> InstrumentConfig {
    let flag = |key, default| section.read(key, default, Slot::flag);
    let days = default.max_history_days;
    InstrumentConfig {
        timeframes: section.read("timeframes", default.timeframes, timeframes),
        sync_interval_ms: section.read("sync_interval_seconds", default.sync_interval_ms, |slot| {
            Some(slot.whole::<Millis>(SYNC_INTERVAL_SECONDS)? * SECOND)
        }),
        max_history_days: section.read("max_history_days", days, |slot| slot.whole(HISTORY_DAYS)),
        enabled: flag("enabled", default.enabled),
        realtime_source: section.read("realtime_source", default.realtime_source, Slot::parsed),
        fallback_to_polling: flag("fallback_to_polling", default.fallback_to_polling),
        websocket_priority: flag("websocket_priority", default.websocket_priority),
        instrument: default.instrument,
    }
}

fn timeframes(list: &Slot) -> Option<Vec<Bar>> {
    let mut bars = Vec::new();
    let elements = list.list()?;
    if elements.is_empty() {
        list.refuse("the list is empty: give at least one, or set enabled to false");
    }
    for element in elements {
        let Some(bar) = element.parsed::<Bar>() else { continue };
        if bars.contains(&bar) {
            element.refuse(&format!("{bar} is given twice"));
        } else {
            bars.push(bar);
        }
    }
    Some(bars)
}

fn path(slot: &Slot, file: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let text = slot.text()?;
    if text.is_empty() || text.contains('\0') {
        return slot.refuse_for("give a path");
    }
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => Some(home.join(rest)),
        _ => Some(file.with_file_name(text)),
    }
}

fn log_level(slot: &Slot) -> Option<LevelFilter> {
    let found = slot.text()?.parse().ok();
    found.or_else(|| slot.refuse_for("give one of OFF, ERROR, WARN, INFO, DEBUG, TRACE"))
}

impl Slot<'_> {
    /// The address of a host.
    fn address(&self, secure: &str, plain: &str) -> Option<String> {
        let text = self.text()?;
        match url::check(text, secure, plain) {
            Ok(address) => Some(address),
            // What may be a password is not repeated.
            Err(rule) if text.contains('@') => {
                self.refuse(&rule);
                None
            }
            Err(rule) => self.refuse_for(&rule),
        }
    }
}

/// Every key there is, of every section.
#[cfg(test)]
pub(super) fn known_keys() -> impl Iterator<Item = &'static str> {
    KEYS.iter().chain(&WEBSOCKET_KEYS).chain(&BREAKER_KEYS).chain(&INSTRUMENT_KEYS).copied()
}
