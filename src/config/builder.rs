//! A configuration that is made by a program, and checked by the rules of a file.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::{
    CircuitBreaker, Config, ConfigError, InstrumentConfig, RealtimeMode, Refusal, Region,
    WebsocketConfig, check,
};
use crate::time::{Millis, SECOND};

/// Makes a [`Config`] without a file. What is not said takes the default of the file's key, but no
/// instrument is mirrored unless it is named.
///
/// ```
/// use okx_local_store::{Config, InstrumentConfig, RealtimeMode};
///
/// let mut btc = InstrumentConfig::new("BTC-USDT".parse()?);
/// btc.timeframes = vec!["1m".parse()?, "1Dutc".parse()?];
/// btc.max_history_days = 30;
/// let config = Config::builder("/var/lib/candles")
///     .instrument(btc)
///     .realtime_mode(RealtimeMode::Polling)
///     .max_concurrent_syncs(2)
///     .build()?;
/// assert_eq!(config.series().count(), 2);
///
/// let refused = Config::builder("/var/lib/candles").max_concurrent_syncs(99).build();
/// let words = refused.expect_err("16 are the most").to_string();
/// assert_eq!(words, "max_concurrent_syncs: 99 is refused: give a whole number from 1 to 16");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct ConfigBuilder {
    config: Config,
}

impl Config {
    /// Begins a configuration whose files lie in `data_dir`; a relative path starts from the
    /// current folder.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").build()?;
    /// assert!(config.data_dir.is_absolute() && config.instruments.is_empty());
    /// # Ok::<(), okx_local_store::Error>(())
    /// ```
    pub fn builder(data_dir: impl AsRef<Path>) -> ConfigBuilder {
        let data_dir = data_dir.as_ref();
        // It fails for the empty path alone, which `build` refuses.
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let config = Config::builtin(data_dir.join("config.json"));
        ConfigBuilder { config: Config { data_dir, instruments: Vec::new(), ..config } }
    }

    /// Checks it by the rules of a file, whoever has made or changed it.
    pub(crate) fn checked(&self) -> Result<(), ConfigError> {
        let text = self.to_json().to_string();
        let mut refusals = match check::config(&self.file, &text, None) {
            Err(ConfigError::Refused(_, refusals)) => refusals,
            checked => checked.map(|_| Vec::new())?,
        };
        refusals.extend(self.no_paths());
        if refusals.is_empty() { Ok(()) } else { Err(ConfigError::Built(refusals)) }
    }

    /// The paths that lead nowhere. An empty one would mean the current folder.
    fn no_paths(&self) -> impl Iterator<Item = Refusal> {
        let data_dir = ("data_dir", Some(&self.data_dir));
        let paths =
            [data_dir, ("ca_file", self.ca_file.as_ref()), ("log_file", self.log_file.as_ref())];
        let is_none = |path: &Path| {
            path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0)
        };
        paths.into_iter().filter_map(move |(key, path)| {
            let path = path.filter(|path| is_none(path))?;
            Some(Refusal { line: 1, problem: format!("{key}: {path:?} is refused: give a path") })
        })
    }

    /// What a file would say, but for the paths, which may be no text.
    fn to_json(&self) -> Value {
        let seconds = |length_ms: Millis| length_ms as f64 / SECOND as f64;
        let WebsocketConfig { enable_compression, buffer_size, .. } = self.websocket;
        json!({
            "region": self.region.to_string(),
            "rest_url": self.rest_url,
            "ws_url": self.ws_url,
            "sandbox": self.sandbox,
            "rate_limit_per_minute": self.rate_limit_per_minute,
            "enable_auto_sync": self.enable_auto_sync,
            "sync_on_startup": self.sync_on_startup,
            "max_concurrent_syncs": self.max_concurrent_syncs,
            "log_level": self.log_level.as_str(),
            "commit_interval_ms": self.commit_interval_ms,
            "realtime_mode": self.realtime_mode.as_str(),
            "enable_websocket": self.enable_websocket,
            "websocket_fallback_enabled": self.websocket_fallback_enabled,
            "websocket_config": {
                "max_reconnect_attempts": self.websocket.max_reconnect_attempts,
                "heartbeat_interval": seconds(self.websocket.heartbeat_interval_ms),
                "ping_interval": seconds(self.websocket.ping_interval_ms),
                "connection_timeout": seconds(self.websocket.connection_timeout_ms),
                "max_connection_age": seconds(self.websocket.max_connection_age_ms),
                "reconnect_delay_base": seconds(self.websocket.reconnect_delay_base_ms),
                "reconnect_delay_max": seconds(self.websocket.reconnect_delay_max_ms),
                "enable_compression": enable_compression,
                "buffer_size": buffer_size,
            },
            "circuit_breaker": {
                "failure_threshold": self.circuit_breaker.failure_threshold,
                "recovery_timeout": seconds(self.circuit_breaker.recovery_timeout_ms),
            },
            "instruments": self.instruments.iter().map(InstrumentConfig::to_json)
                .collect::<Vec<_>>(),
        })
    }
}

impl InstrumentConfig {
    fn to_json(&self) -> Value {
        let names: Vec<&str> = self.timeframes.iter().map(|bar| bar.name()).collect();
        let interval_ms = self.sync_interval_ms;
        // A part of a second is told as it is, to be refused as it would be in a file.
        let interval = match interval_ms % SECOND {
            0 => json!(interval_ms / SECOND),
            _ => json!(interval_ms as f64 / SECOND as f64),
        };
        json!({
            "symbol": self.instrument.as_str(),
            "timeframes": names,
            "sync_interval_seconds": interval,
            "max_history_days": self.max_history_days,
            "enabled": self.enabled,
            "realtime_source": self.realtime_source.as_str(),
            "fallback_to_polling": self.fallback_to_polling,
            "websocket_priority": self.websocket_priority,
        })
    }
}

/// Each method sets the key of its name; the fields of [`Config`] tell what it is.
impl ConfigBuilder {
    /// Adds an instrument to be mirrored.
    ///
    /// ```
    /// use okx_local_store::{Config, InstrumentConfig};
    ///
    /// let btc = InstrumentConfig::new("BTC-USDT".parse()?);
    /// let config = Config::builder("candles").instrument(btc.clone()).build()?;
    /// assert_eq!(config.instruments, [btc.clone()]);
    /// let twice = Config::builder("candles").instrument(btc.clone()).instrument(btc).build();
    /// assert!(twice.is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn instrument(mut self, instrument: InstrumentConfig) -> ConfigBuilder {
        self.config.instruments.push(instrument);
        self
    }

    /// Chooses the exchange's hosts.
    ///
    /// ```
    /// use okx_local_store::{Config, Region};
    ///
    /// let config = Config::builder("candles").region(Region::Eea).build()?;
    /// assert_eq!(config.rest_url(), "https://eea.okx.com");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn region(mut self, region: Region) -> ConfigBuilder {
        self.config.region = region;
        self
    }

    /// Another REST address, such as that of an exchange for tests: `http://127.0.0.1:8080`.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").rest_url("http://127.0.0.1:8080").build()?;
    /// assert_eq!(config.rest_url(), "http://127.0.0.1:8080");
    /// let open = Config::builder("candles").rest_url("http://example.com").build();
    /// assert!(open.is_err(), "without encryption only this machine may be asked");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rest_url(mut self, url: impl Into<String>) -> ConfigBuilder {
        self.config.rest_url = Some(url.into());
        self
    }

    /// Another address of the stream: `ws://127.0.0.1:8080`.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").ws_url("ws://127.0.0.1:8080").build()?;
    /// assert_eq!(config.ws_url(), "ws://127.0.0.1:8080");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ws_url(mut self, url: impl Into<String>) -> ConfigBuilder {
        self.config.ws_url = Some(url.into());
        self
    }

    /// Roots of trust in place of the built-in ones, in PEM form.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").ca_file("/etc/ssl/roots.pem").build()?;
    /// assert!(config.ca_file.is_some_and(|file| file.ends_with("roots.pem")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> ConfigBuilder {
        self.config.ca_file = Some(file.into());
        self
    }

    /// Whether to use demo trading.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").sandbox(true).build()?;
    /// assert_eq!(config.ws_url(), "wss://wspap.okx.com");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sandbox(mut self, sandbox: bool) -> ConfigBuilder {
        self.config.sandbox = sandbox;
        self
    }

    /// Requests in a minute over all endpoints; 0: only the exchange's own limits hold.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").rate_limit_per_minute(60).build()?;
    /// assert_eq!(config.rate_limit_per_minute, 60);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn rate_limit_per_minute(mut self, requests: u32) -> ConfigBuilder {
        self.config.rate_limit_per_minute = requests;
        self
    }

    /// The number of requests that are under way together, 1 to 16.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").max_concurrent_syncs(2).build()?;
    /// assert_eq!(config.max_concurrent_syncs, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_concurrent_syncs(mut self, pollers: usize) -> ConfigBuilder {
        self.config.max_concurrent_syncs = pollers;
        self
    }

    /// Whether old history is fetched at once, and not only after the first interval.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").sync_on_startup(false).build()?;
    /// assert!(!config.sync_on_startup);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sync_on_startup(mut self, all_history: bool) -> ConfigBuilder {
        self.config.sync_on_startup = all_history;
        self
    }

    /// The least time between two commits of running bars to one file, ms.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").commit_interval_ms(1_000).build()?;
    /// assert_eq!(config.commit_interval_ms, 1_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit_interval_ms(mut self, interval_ms: Millis) -> ConfigBuilder {
        self.config.commit_interval_ms = interval_ms;
        self
    }

    /// How fresh bars come, for instruments that do not say otherwise.
    ///
    /// ```
    /// use okx_local_store::{Config, RealtimeMode};
    ///
    /// let config = Config::builder("candles").realtime_mode(RealtimeMode::Polling).build()?;
    /// assert_eq!(config.realtime_mode, RealtimeMode::Polling);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn realtime_mode(mut self, mode: RealtimeMode) -> ConfigBuilder {
        self.config.realtime_mode = mode;
        self
    }

    /// Whether the stream may be used at all.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").enable_websocket(false).build()?;
    /// assert!(!config.enable_websocket);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enable_websocket(mut self, enabled: bool) -> ConfigBuilder {
        self.config.enable_websocket = enabled;
        self
    }

    /// Whether polling takes over while the stream is lost.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles").websocket_fallback_enabled(false).build()?;
    /// assert!(!config.websocket_fallback_enabled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn websocket_fallback_enabled(mut self, enabled: bool) -> ConfigBuilder {
        self.config.websocket_fallback_enabled = enabled;
        self
    }

    /// Changes what is to be otherwise of the stream's connection.
    ///
    /// ```
    /// use okx_local_store::{Config, WebsocketConfig};
    ///
    /// let patient = |stream: &mut WebsocketConfig| stream.connection_timeout_ms = 30_000;
    /// let config = Config::builder("candles").websocket(patient).build()?;
    /// assert_eq!(config.websocket.connection_timeout_ms, 30_000);
    /// assert_eq!(config.websocket.ping_interval_ms, 20_000, "the rest keeps its defaults");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn websocket(mut self, change: impl FnOnce(&mut WebsocketConfig)) -> ConfigBuilder {
        change(&mut self.config.websocket);
        self
    }

    /// Changes when to leave the stream alone for a while.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let config = Config::builder("candles")
    ///     .circuit_breaker(|breaker| breaker.failure_threshold = 10)
    ///     .build()?;
    /// assert_eq!(config.circuit_breaker.failure_threshold, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn circuit_breaker(mut self, change: impl FnOnce(&mut CircuitBreaker)) -> ConfigBuilder {
        change(&mut self.config.circuit_breaker);
        self
    }

    /// Checks it and gives it.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Built`] names every key that is out of its bounds.
    ///
    /// ```
    /// use okx_local_store::{Config, ConfigError, Error};
    ///
    /// let wrong = Config::builder("candles").commit_interval_ms(0).max_concurrent_syncs(0);
    /// match wrong.build() {
    ///     Err(Error::Config(ConfigError::Built(refusals))) => assert_eq!(refusals.len(), 2),
    ///     other => unreachable!("both are refused: {other:?}"),
    /// }
    /// ```
    pub fn build(self) -> Result<Config, crate::error::Error> {
        self.config.checked()?;
        Ok(self.config)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bar::Bar;
    use crate::config::{HISTORY_DAYS, SYNC_INTERVAL_SECONDS};
    use crate::wire::wild;

    #[test]
    fn what_is_built_says_what_a_file_says() {
        let mut config = Config::builtin("/home/config.json".into());
        config.websocket.reconnect_delay_base_ms = 1_234;
        config.rest_url = Some("http://127.0.0.1:1".into());
        let text = config.to_json().to_string();
        let read = check::config(&config.file, &text, None).unwrap();
        assert_eq!(read, Config { is_builtin: false, ..config });
    }

    proptest! {
        /// A program's numbers come from anywhere.
        #[test]
        fn no_number_is_beyond_a_verdict(
            numbers in prop::array::uniform8(wild::number()),
            counts in any::<(u32, u32, u32, usize, usize)>(),
            bars in prop::collection::vec(0..25_usize, 0..4),
        ) {
            let [interval, commit, heartbeat, ping, time_out, age, base, recovery] = numbers;
            let (rate, days, attempts, pollers, buffer) = counts;
            let mut btc = InstrumentConfig::new("BTC-USDT".parse().unwrap());
            btc.timeframes = bars.iter().filter_map(|&at| Bar::all().nth(at)).collect();
            (btc.sync_interval_ms, btc.max_history_days) = (interval, days);
            let built = Config::builder("candles")
                .instrument(btc)
                .rate_limit_per_minute(rate)
                .max_concurrent_syncs(pollers)
                .commit_interval_ms(commit)
                .websocket(|stream| {
                    stream.max_reconnect_attempts = attempts;
                    stream.heartbeat_interval_ms = heartbeat;
                    stream.ping_interval_ms = ping;
                    stream.connection_timeout_ms = time_out;
                    stream.max_connection_age_ms = age;
                    stream.reconnect_delay_base_ms = base;
                    stream.reconnect_delay_max_ms = base;
                    stream.buffer_size = buffer;
                })
                .circuit_breaker(|breaker| {
                    breaker.failure_threshold = attempts;
                    breaker.recovery_timeout_ms = recovery;
                })
                .build();
            if let Ok(config) = built {
                prop_assert!(SYNC_INTERVAL_SECONDS.contains(&(interval / SECOND)));
                prop_assert!(HISTORY_DAYS.contains(&i64::from(days)) && !bars.is_empty());
                prop_assert!((1..=60_000).contains(&config.commit_interval_ms));
            }
        }
    }

    #[test]
    fn what_a_file_may_not_say_nobody_builds() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 10] = [
            ("data_dir", |config| config.data_dir = PathBuf::new()),
            ("ca_file", |config| config.ca_file = Some("roots\0.pem".into())),
            ("rest_url", |config| config.rest_url = Some("http://example.com".into())),
            ("commit_interval_ms", |config| config.commit_interval_ms = 0),
            ("websocket_config.ping_interval", |c| c.websocket.ping_interval_ms = 30 * SECOND),
            ("websocket_config.buffer_size", |config| config.websocket.buffer_size = 0),
            ("circuit_breaker.failure_threshold", |c| c.circuit_breaker.failure_threshold = 0),
            ("instruments[0].timeframes", |config| config.instruments[0].timeframes.clear()),
            ("instruments[1].sync_interval_seconds", |config| {
                config.instruments[1].sync_interval_ms = 1_500;
            }),
            ("instruments[2].symbol", |config| {
                config.instruments.push(config.instruments[0].clone());
            }),
        ];
        for (key, change) in cases {
            let mut config = Config::builtin("/home/config.json".into());
            change(&mut config);
            let Err(ConfigError::Built(refusals)) = config.checked() else { unreachable!("{key}") };
            let [Refusal { problem, .. }] = &refusals[..] else { unreachable!("{refusals:?}") };
            assert!(problem.starts_with(&format!("{key}: ")), "{key}: {problem}");
        }
    }
}
