//! The configuration: which instruments to mirror, how, and where to.
//!
//! A file is read in two steps: to a raw form, JSON with `//` comments, and from there, checked,
//! to a [`Config`], all of whose values are typed and within their bounds. What is wrong is
//! refused with its file, line, key, value and rule; secrets come from the environment alone.
//!
//! | key | bounds |
//! |---|---|
//! | `rest_url`, `ws_url` | scheme, host and port; `http` and `ws` for loopback addresses alone |
//! | `rate_limit_per_minute` | 0–10,000 |
//! | `max_concurrent_syncs` | 1–16 |
//! | `commit_interval_ms` | 1–60,000 |
//! | `websocket_config.max_reconnect_attempts` | 1–1,000 |
//! | `.heartbeat_interval`, `.connection_timeout` | 0.1–600 s, 0.1–120 s |
//! | `.ping_interval` | 0.1 s to below 30 s: the exchange closes a connection silent for so long |
//! | `.max_connection_age` | 1–86,400 s |
//! | `.reconnect_delay_base` ≤ `.reconnect_delay_max` | 0.01–3,600 s |
//! | `.buffer_size` | 1–100,000 rows |
//! | `circuit_breaker.failure_threshold`, `.recovery_timeout` | 1–1,000, 0.1–300 s |
//! | `instruments[].sync_interval_seconds`, `.max_history_days` | 1–86,400, 1–10,000 |

mod builder;
mod check;
mod edit;
mod environment;
mod error;
mod raw;
mod url;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use log::LevelFilter;

pub use crate::config::builder::ConfigBuilder;
pub use crate::config::edit::{
    Addition, Edit, StreamChange, add_instrument, remove_instrument, set_stream,
};
pub use crate::config::environment::Environment;
pub use crate::config::error::{ConfigError, Refusal};
pub use crate::mode::RealtimeMode;
pub use crate::okx::Region;

use crate::bar::Bar;
use crate::config::environment::Place;
use crate::instrument::{Instrument, Series};
use crate::mode::{Rule, Wishes};
use crate::store::Identity;
use crate::time::{MINUTE, Millis, SECOND};

/// The sample at the top of the repository: all keys with their defaults. It is what the first
/// edit writes where there is no file yet.
const SAMPLE: &str = include_str!("../config.json");
/// Bounds of an instrument's interval between two polls, seconds.
pub const SYNC_INTERVAL_SECONDS: RangeInclusive<i64> = 1..=86_400;
/// Bounds of a length of history, days. OKX's own goes back to 2017.
pub const HISTORY_DAYS: RangeInclusive<i64> = 1..=10_000;
/// The bars of an instrument that names none, and the instruments where there is no file.
const TIMEFRAMES: [&str; 4] = ["1m", "5m", "1H", "1D"];
const INSTRUMENTS: [&str; 2] = ["BTC-USDT", "ETH-USDT"];

/// A checked configuration: [`Config::load`] reads one, [`Config::builder`] makes one. Paths are
/// absolute. Whoever changes a field has it checked by
/// [`with_config`](crate::OkxLocalStore::with_config).
///
/// ```
/// use okx_local_store::{Config, OkxLocalStore};
///
/// let mut config = Config::builder("candles").build()?;
/// config.max_concurrent_syncs = 99;
/// let refused = OkxLocalStore::with_config(config).expect_err("16 are the most");
/// assert!(refused.to_string().starts_with("max_concurrent_syncs: 99 is refused"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The file it was read from; where there is none, the one that the first edit writes.
    pub file: PathBuf,
    /// Whether there is no file, and these are the built-in defaults.
    pub is_builtin: bool,
    /// The folder of the database files.
    pub data_dir: PathBuf,
    /// Chooses the exchange's hosts.
    pub region: Region,
    /// Takes the place of the region's REST address; without a final `/`.
    pub rest_url: Option<String>,
    /// Takes the place of the region's stream address; without a path.
    pub ws_url: Option<String>,
    /// Roots of trust instead of the built-in ones, in PEM form; without the key, the file that
    /// `SSL_CERT_FILE` names.
    pub ca_file: Option<PathBuf>,
    /// Whether to use the exchange's demo trading environment.
    pub sandbox: bool,
    /// Requests in a minute over all endpoints; 0: only the exchange's own limits hold.
    pub rate_limit_per_minute: u32,
    /// Whether the daemon may run.
    pub enable_auto_sync: bool,
    /// Whether the daemon fills old history at once, and not only after the first interval.
    pub sync_on_startup: bool,
    /// The number of pollers.
    pub max_concurrent_syncs: usize,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Where it is logged to, beside stderr, if the key is given.
    pub log_file: Option<PathBuf>,
    /// The least time between two commits of running bars to one file.
    pub commit_interval_ms: Millis,
    /// How fresh bars come, for instruments that do not say otherwise.
    pub realtime_mode: RealtimeMode,
    /// Whether the stream may be used at all.
    pub enable_websocket: bool,
    /// Whether polling takes over while the stream is lost.
    pub websocket_fallback_enabled: bool,
    /// The stream's connection.
    pub websocket: WebsocketConfig,
    /// When to leave the stream alone for a while.
    pub circuit_breaker: CircuitBreaker,
    /// What to mirror; no symbol comes twice.
    pub instruments: Vec<InstrumentConfig>,
}

/// The keys of `websocket_config`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WebsocketConfig {
    /// Failures in a row before the breaker opens.
    pub max_reconnect_attempts: u32,
    /// The connection is dead when nothing came for so long after a ping.
    pub heartbeat_interval_ms: Millis,
    /// After so much silence a ping is sent.
    pub ping_interval_ms: Millis,
    /// How long a connection may take to be made.
    pub connection_timeout_ms: Millis,
    /// The age at which a connection is replaced.
    pub max_connection_age_ms: Millis,
    /// The first wait before a reconnect, which doubles from there …
    pub reconnect_delay_base_ms: Millis,
    /// … up to this one.
    pub reconnect_delay_max_ms: Millis,
    /// Whether compression is used if the exchange offers it.
    pub enable_compression: bool,
    /// Rows between the stream and the writer.
    pub buffer_size: usize,
}

/// The keys of `circuit_breaker`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// Failures within a minute that open it.
    pub failure_threshold: u32,
    /// How long it stays open, at first.
    pub recovery_timeout_ms: Millis,
}

/// One element of `instruments`. [`InstrumentConfig::new`] has the defaults; fields may be changed.
///
/// ```
/// use okx_local_store::{InstrumentConfig, RealtimeMode};
///
/// let mut btc = InstrumentConfig::new("BTC-USDT".parse()?);
/// btc.timeframes = vec!["1m".parse()?, "1h".parse()?];
/// btc.realtime_source = RealtimeMode::Websocket;
/// assert_eq!(btc.series().count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InstrumentConfig {
    /// What is mirrored.
    pub instrument: Instrument,
    /// At which lengths: at least one, none twice.
    pub timeframes: Vec<Bar>,
    /// The time between two polls.
    pub sync_interval_ms: Millis,
    /// How far back to fetch. Nothing is ever deleted by it.
    pub max_history_days: u32,
    /// Whether it is mirrored at present.
    pub enabled: bool,
    /// How fresh bars come.
    pub realtime_source: RealtimeMode,
    /// Whether polling takes over while the stream is lost.
    pub fallback_to_polling: bool,
    /// Whether it is streamed if it may be.
    pub websocket_priority: bool,
}

impl Config {
    /// Finds, reads and checks the configuration of this process.
    ///
    /// `file` and `data_dir` are the command line's; relative ones start from the current folder,
    /// whereas paths in the file start from the file's own.
    ///
    /// # Errors
    ///
    /// A named file is absent, a file cannot be read, or something in it is refused.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// let absent = Config::load(Some("/nowhere/config.json".as_ref()), None);
    /// assert!(absent.expect_err("it is not there").to_string().contains("/nowhere/config.json"));
    /// ```
    pub fn load(file: Option<&Path>, data_dir: Option<&Path>) -> Result<Config, ConfigError> {
        Config::load_in(&Environment::read(), file, data_dir)
    }

    /// The same in given surroundings.
    pub(crate) fn load_in(
        environment: &Environment,
        file: Option<&Path>,
        data_dir: Option<&Path>,
    ) -> Result<Config, ConfigError> {
        let mut config = match environment.find(file)? {
            Place::File(file) => {
                let text = raw::read(&file)?;
                check::config(&file, &text, environment.home.as_deref())?
            }
            Place::Nowhere(file) => Config::builtin(file),
        };
        if let Some(data_dir) = data_dir {
            config.data_dir = environment.folder.join(data_dir);
        }
        config.ca_file = config.ca_file.or_else(|| environment.ca_file.clone());
        Ok(config)
    }

    /// What can be made out of a configuration that is refused, for whoever only looks: defaults
    /// stand in for what is wrong, and a file that cannot be parsed, or read, names no instrument.
    pub(crate) fn salvage_in(
        environment: &Environment,
        file: Option<&Path>,
        data_dir: Option<&Path>,
    ) -> Option<Config> {
        let file = match environment.find(file) {
            Ok(Place::File(file)) | Err(ConfigError::NoFile(file, _)) => file,
            Ok(Place::Nowhere(_)) | Err(_) => return None,
        };
        let text = raw::read(&file).unwrap_or_default();
        let (found, _) = check::read(&file, &text, environment.home.as_deref());
        let nothing = || Config {
            is_builtin: false,
            instruments: Vec::new(),
            ..Config::builtin(file.clone())
        };
        let mut config = found.unwrap_or_else(nothing);
        if let Some(data_dir) = data_dir {
            config.data_dir = environment.folder.join(data_dir);
        }
        Some(config)
    }

    /// What holds in these surroundings where there is no file at all.
    pub(crate) fn default_in(environment: &Environment) -> Result<Config, ConfigError> {
        let file = environment.last_resort()?;
        Ok(Config { ca_file: environment.ca_file.clone(), ..Config::builtin(file) })
    }

    /// What holds where no file says otherwise; `file` is the one that an edit would write.
    pub(crate) fn builtin(file: PathBuf) -> Config {
        Config {
            data_dir: file.with_file_name("data"),
            file,
            is_builtin: true,
            region: Region::Global,
            rest_url: None,
            ws_url: None,
            ca_file: None,
            sandbox: false,
            rate_limit_per_minute: 240,
            enable_auto_sync: true,
            sync_on_startup: true,
            max_concurrent_syncs: 3,
            log_level: LevelFilter::Info,
            log_file: None,
            commit_interval_ms: 100,
            realtime_mode: RealtimeMode::Hybrid,
            enable_websocket: true,
            websocket_fallback_enabled: true,
            websocket: WebsocketConfig {
                max_reconnect_attempts: 5,
                heartbeat_interval_ms: 30 * SECOND,
                ping_interval_ms: 20 * SECOND,
                connection_timeout_ms: 10 * SECOND,
                max_connection_age_ms: 60 * MINUTE,
                reconnect_delay_base_ms: SECOND,
                reconnect_delay_max_ms: MINUTE,
                enable_compression: true,
                buffer_size: 1_000,
            },
            circuit_breaker: CircuitBreaker { failure_threshold: 5, recovery_timeout_ms: MINUTE },
            instruments: INSTRUMENTS
                .map(|name| name.parse().expect("because the built-in names are sound"))
                .map(InstrumentConfig::new)
                .into(),
        }
    }

    /// Whose candles are kept by it.
    #[doc(hidden)]
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { venue: "okx", region: self.region.to_string(), demo: self.sandbox }
    }

    /// The base of all REST addresses, such as `https://openapi.okx.com`.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// assert!(Config::builder("candles").build()?.rest_url().starts_with("https://"));
    /// # Ok::<(), okx_local_store::Error>(())
    /// ```
    #[must_use]
    pub fn rest_url(&self) -> &str {
        self.rest_url.as_deref().unwrap_or(self.region.rest_url())
    }

    /// The host of the stream, without a path, such as `wss://ws.okx.com`.
    ///
    /// ```
    /// use okx_local_store::Config;
    ///
    /// assert!(Config::builder("candles").build()?.ws_url().starts_with("wss://"));
    /// # Ok::<(), okx_local_store::Error>(())
    /// ```
    #[must_use]
    pub fn ws_url(&self) -> &str {
        self.ws_url.as_deref().unwrap_or(self.region.ws_url(self.sandbox))
    }

    /// Where a daemon logs to: what is configured, else `logs/okx-store.log` beside the file.
    pub(crate) fn daemon_log_file(&self) -> PathBuf {
        let default = || self.file.with_file_name("logs").join("okx-store.log");
        self.log_file.clone().unwrap_or_else(default)
    }

    /// Every series of every enabled instrument, in the order of the file.
    ///
    /// ```
    /// use okx_local_store::{Config, InstrumentConfig};
    ///
    /// let btc = InstrumentConfig::new("BTC-USDT".parse()?);
    /// let config = Config::builder("candles").instrument(btc).build()?;
    /// assert_eq!(config.series().count(), 4, "1m, 5m, 1H and 1D");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn series(&self) -> impl Iterator<Item = Series> + '_ {
        self.instruments.iter().filter(|entry| entry.enabled).flat_map(InstrumentConfig::series)
    }

    /// What is configured for an instrument.
    ///
    /// ```
    /// use okx_local_store::{Config, InstrumentConfig};
    ///
    /// let btc = InstrumentConfig::new("BTC-USDT".parse()?);
    /// let config = Config::builder("candles").instrument(btc).build()?;
    /// assert!(config.instrument(&"BTC-USDT".parse()?).is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn instrument(&self, instrument: &Instrument) -> Option<&InstrumentConfig> {
        self.instruments.iter().find(|entry| entry.instrument == *instrument)
    }
}

impl InstrumentConfig {
    /// The defaults.
    ///
    /// ```
    /// use okx_local_store::InstrumentConfig;
    ///
    /// let btc = InstrumentConfig::new("BTC-USDT".parse()?);
    /// assert!(btc.enabled && btc.max_history_days == 365);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(instrument: Instrument) -> InstrumentConfig {
        InstrumentConfig {
            instrument,
            timeframes: default_timeframes(),
            sync_interval_ms: MINUTE,
            max_history_days: 365,
            enabled: true,
            realtime_source: RealtimeMode::Hybrid,
            fallback_to_polling: true,
            websocket_priority: true,
        }
    }

    /// One series for each of its bars.
    ///
    /// ```
    /// use okx_local_store::InstrumentConfig;
    ///
    /// let btc = InstrumentConfig::new("BTC-USDT".parse()?);
    /// assert_eq!(btc.series().next().expect("there are four").to_string(), "BTC-USDT 1m");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn series(&self) -> impl Iterator<Item = Series> + '_ {
        let instrument = &self.instrument;
        self.timeframes.iter().map(|&bar| Series { instrument: instrument.clone(), bar })
    }

    /// How the stream and polling share the work for this instrument.
    pub(crate) fn rule(&self, config: &Config) -> Rule {
        Rule::of(Wishes {
            enabled: self.enabled,
            stream: config.enable_websocket,
            mode: config.realtime_mode,
            source: self.realtime_source,
            priority: self.websocket_priority,
            fallback: config.websocket_fallback_enabled && self.fallback_to_polling,
        })
    }
}

/// The bars of an instrument that names none.
pub fn default_timeframes() -> Vec<Bar> {
    TIMEFRAMES.map(|name| name.parse().expect("because the built-in names are sound")).into()
}

#[cfg(test)]
mod tests;
