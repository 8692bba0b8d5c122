//! What can go wrong for a program that embeds the store, and what to do then.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::bar::Bar;
use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::engine::EngineError;
use crate::inquiry::InquiryError;
use crate::instrument::{Instrument, InstrumentError, Series};
use crate::lock::LockError;
use crate::okx::CredentialsError;
use crate::store::{Scope, StoreError};
use crate::time::{Millis, format_time};
use crate::wire::Policy;

/// What to do about an [`Error`]. There is nothing else that could be done, so a program may match
/// these three and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It may pass by itself: try again later.
    Retry,
    /// It stays until something is changed: an argument, the configuration, a file. The error's
    /// text says what.
    Mend,
    /// It is a bug of this crate.
    Report,
}

/// A failure of the library. Its text names what, where, and what to do; [`Error::remedy`] says
/// the latter to a program. What is not shown of a variant is told by the text alone.
///
/// ```
/// use okx_local_store::{Error, Remedy};
///
/// fn again(error: &Error) -> bool {
///     error.remedy() == Remedy::Retry
/// }
/// # let error = Error::Unknown { instrument: "NO-BODY".parse()? };
/// # assert!(!again(&error) && error.to_string().starts_with("NO-BODY is neither"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong, or cannot be read or changed.
    Config(ConfigError),
    /// The credentials in the environment are none.
    Credentials(#[doc(hidden)] CredentialsError),
    /// The store says no.
    Store(#[doc(hidden)] StoreError),
    /// Text that can be no symbol.
    Symbol(InstrumentError),
    /// The instrument is neither in the configuration nor in the store.
    Unknown {
        /// The instrument.
        instrument: Instrument,
    },
    /// The instrument is not in the configuration.
    NotConfigured {
        /// The instrument.
        instrument: Instrument,
    },
    /// No candle is stored where some were asked for.
    Nothing {
        /// Of which series.
        series: Series,
        /// The open times of the oldest and the newest row, if there is any.
        stored: Option<(Millis, Millis)>,
    },
    /// Bars of this length do not fit the question.
    Unfit {
        /// The bar.
        bar: Bar,
        /// Why, and what to give instead.
        why: &'static str,
    },
    /// The target of an export can be none.
    Target {
        /// The target.
        path: PathBuf,
        /// Why, and what to do.
        why: &'static str,
    },
    /// A file cannot be written.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as in "cannot …".
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process writes in the data folder.
    Held {
        /// The folder.
        data_dir: PathBuf,
        /// The process, if it is known.
        pid: Option<u32>,
        /// Whether that is a daemon, which stays, or a command, which ends soon.
        is_daemon: bool,
    },
    /// The sync engine runs already.
    Started,
    /// The sync engine cannot start.
    Daemon(#[doc(hidden)] DaemonError),
    /// What fetches cannot start.
    Engine(#[doc(hidden)] EngineError),
    /// The exchange has not answered.
    Inquiry(#[doc(hidden)] InquiryError),
    /// The exchange does not know an instrument.
    NotListed {
        /// The instrument.
        instrument: Instrument,
        /// The exchange's words.
        refusal: String,
        /// A name that may have been meant.
        near: Option<String>,
    },
    /// Bars could not be fetched; what was stored before that stays.
    Fetch(String),
    /// It was stopped, by whoever watches it or by the end of the engine.
    Stopped,
    /// The engine was told to stop and has not ended yet: a commit hangs. It ends by itself.
    Stopping,
    /// A thread has panicked; these were its words.
    Bug(String),
}

impl Error {
    /// What to do about it.
    ///
    /// ```
    /// use okx_local_store::{Error, Remedy};
    ///
    /// assert_eq!(Error::Stopped.remedy(), Remedy::Retry);
    /// assert_eq!(Error::Started.remedy(), Remedy::Mend);
    /// ```
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        let retry = match self {
            Error::Bug(_) => return Remedy::Report,
            Error::Store(error) => error.scope() != Scope::ThisFile,
            Error::Held { is_daemon, .. } => !is_daemon,
            Error::Engine(EngineError::Http(_)) => false,
            Error::Inquiry(InquiryError::Trouble(trouble)) => trouble.policy() != Policy::Permanent,
            Error::Inquiry(InquiryError::Http(_)) => false,
            Error::Io { .. } | Error::Engine(_) | Error::Inquiry(_) => true,
            Error::Fetch(_) | Error::Stopped | Error::Stopping => true,
            _ => false,
        };
        if retry { Remedy::Retry } else { Remedy::Mend }
    }

    /// The folder is held by somebody, as the lock tells.
    pub(crate) fn lock(error: LockError) -> Error {
        match error {
            LockError::Held { data_dir, pid } => Error::Held { data_dir, pid, is_daemon: false },
            error => Error::Engine(EngineError::Lock(error)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => error.fmt(f),
            Error::Credentials(error) => error.fmt(f),
            Error::Store(error) => error.fmt(f),
            Error::Symbol(error) => error.fmt(f),
            Error::Unknown { instrument } => {
                write!(f, "{instrument} is neither configured nor stored: add it first")
            }
            Error::NotConfigured { instrument } => {
                write!(f, "{instrument} is not configured: add it first")
            }
            Error::Nothing { series, stored: None } => {
                write!(f, "{series}: no candle is stored: sync the instrument first")
            }
            Error::Nothing { series, stored: Some((oldest, newest)) } => write!(
                f,
                "{series}: no such candle is stored, only those from {} to {}",
                format_time(*oldest),
                format_time(*newest)
            ),
            Error::Unfit { bar, why } => write!(f, "{bar} {why}"),
            Error::Target { path, why } => write!(f, "{}: {why}", path.display()),
            Error::Io { path, doing, source } => {
                write!(f, "{}: cannot {doing}: {source}", path.display())
            }
            Error::Held { data_dir, pid, is_daemon } => held(f, data_dir, *pid, *is_daemon),
            Error::Started => f.write_str("the sync engine runs already: stop it first"),
            Error::Daemon(error) => error.fmt(f),
            Error::Engine(error) => error.fmt(f),
            Error::Inquiry(error) => error.fmt(f),
            Error::NotListed { instrument, refusal, near } => {
                write!(f, "{instrument}: {}: ", refusal.trim_end_matches('.'))?;
                match near {
                    Some(near) => write!(f, "did you mean {near}?"),
                    None => f.write_str("okx-store list --available shows what there is"),
                }
            }
            Error::Fetch(words) => f.write_str(words),
            Error::Stopped => f.write_str("stopped; what was stored before that stays"),
            Error::Stopping => f.write_str(
                "the sync engine has not stopped yet, because a commit hangs; it ends by itself",
            ),
            Error::Bug(words) => write!(f, "a bug: {words}"),
        }
    }
}

fn held(
    f: &mut fmt::Formatter<'_>,
    data_dir: &std::path::Path,
    pid: Option<u32>,
    is_daemon: bool,
) -> fmt::Result {
    let pid = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let data_dir = data_dir.display();
    match is_daemon {
        true => write!(
            f,
            "{data_dir}: {pid} keeps this store: read it from here, and have it written by \
             okx-store sync, backfill and add-symbol, which hand their work over, or stop it first"
        ),
        false => write!(f, "{data_dir}: {pid} is writing here: try again when it is done"),
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(error) => error.source(),
            Error::Store(error) => error.source(),
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error::Store(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Error {
        Error::Config(error)
    }
}
