//! How a command ends: the exit codes, and the failures that are told in one line.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::remote::RemoteError;
use crate::cli::table::count;
use crate::cli::websocket::trial::TrialError;
use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::engine::EngineError;
use crate::error::Error;
use crate::export::WriteError;
use crate::inquiry::InquiryError;
use crate::instrument::{Instrument, Series};
use crate::lock::LockError;
use crate::logging::LogError;
use crate::okx::CredentialsError;
use crate::store::StoreError;

/// In the place of a table that would be empty.
pub const NOTHING_CONFIGURED: &str = "No instrument is configured: okx-store add-symbol SYMBOL";

/// The exit codes that scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Done = 0,
    /// Network, storage, or nothing found.
    Failed = 1,
    /// Bad usage or configuration: nothing was begun.
    Usage = 2,
    /// A bug.
    Bug = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a command came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// The store says no.
    Store(StoreError),
    /// Standard output cannot be written.
    Output(io::Error),
    /// What the library says.
    Library(Error),
    /// The instrument is neither in the configuration nor in the store.
    Unknown {
        /// The instrument.
        instrument: Instrument,
    },
    /// Bars are missing where all were demanded.
    Incomplete {
        /// How many.
        bars: i64,
    },
    /// The user has stopped it.
    Stopped,
    /// The configuration is wrong, or cannot be changed.
    Config(ConfigError),
    /// The credentials in the environment are none.
    Credentials(CredentialsError),
    /// The log file cannot be opened.
    Log(LogError),
    /// The engine could not start.
    Engine(EngineError),
    /// Another process writes there.
    Lock(LockError),
    /// The daemon has not done what it was asked.
    Remote(RemoteError),
    /// The exchange has not answered.
    Inquiry(InquiryError),
    /// A range has no closed bar.
    NoBars {
        /// Of which series.
        series: Series,
    },
    /// The configuration names nothing that is enabled.
    NothingWanted,
    /// The instrument is not in the configuration.
    NotConfigured {
        /// The instrument.
        instrument: Instrument,
    },
    /// The bar is not among those of the instrument in the configuration.
    BarNotConfigured {
        /// Of which series.
        series: Series,
    },
    /// What is to be removed from the configuration is not in it.
    NothingToRemove {
        /// The instrument.
        instrument: Instrument,
        /// Whether it has a file all the same.
        stored: bool,
    },
    /// The stream was tried in vain.
    Trial(TrialError),
    /// The daemon cannot run.
    Daemon(DaemonError),
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Library(Error::Target { .. })
            | Failure::Config(_)
            | Failure::Credentials(_)
            | Failure::NothingWanted
            | Failure::NotConfigured { .. }
            | Failure::BarNotConfigured { .. }
            | Failure::NothingToRemove { .. }
            | Failure::Daemon(
                DaemonError::Disabled
                | DaemonError::Stream(_)
                | DaemonError::Engine(EngineError::Http(_)),
            ) => Exit::Usage,
            Failure::Trial(error) if error.is_usage() => Exit::Usage,
            // A base URL, a file of roots or a proxy that is none is configuration too.
            Failure::Engine(EngineError::Http(_)) | Failure::Inquiry(InquiryError::Http(_)) => {
                Exit::Usage
            }
            _ => Exit::Failed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Store(error) => error.fmt(f),
            Failure::Output(source) => write!(f, "cannot write to standard output: {source}"),
            Failure::Library(error) => error.fmt(f),
            Failure::Unknown { instrument } => write!(
                f,
                "{instrument} is neither configured nor stored: okx-store add-symbol {instrument}"
            ),
            Failure::Incomplete { bars } => write!(
                f,
                "nothing was exported for want of {}: fetch them first, or leave out --complete",
                count(*bars, "bar")
            ),
            Failure::Stopped => f.write_str("stopped; nothing was left behind"),
            Failure::Config(error) => error.fmt(f),
            Failure::Credentials(error) => error.fmt(f),
            Failure::Log(error) => error.fmt(f),
            Failure::Engine(error) => error.fmt(f),
            Failure::Lock(error) => error.fmt(f),
            Failure::Remote(error) => error.fmt(f),
            Failure::Inquiry(error) => error.fmt(f),
            Failure::NoBars { series } => {
                write!(f, "{series}: no bar has opened and closed in this range: give more --days")
            }
            Failure::NothingWanted => {
                f.write_str("no instrument is configured and enabled: okx-store add-symbol SYMBOL")
            }
            Failure::NotConfigured { instrument } => {
                write!(f, "{instrument} is not configured: okx-store add-symbol {instrument}")
            }
            Failure::BarNotConfigured { series: Series { instrument, bar } } => write!(
                f,
                "{instrument} {bar} is not configured: okx-store backfill {instrument} {bar} \
                 fetches it once, okx-store add-symbol {instrument} --timeframes {bar} from now on"
            ),
            Failure::NothingToRemove { instrument, stored: false } => {
                write!(f, "{instrument} is not configured: okx-store list shows what is")
            }
            Failure::NothingToRemove { instrument, stored: true } => {
                write!(f, "{instrument} is not configured: --purge deletes its candles")
            }
            Failure::Trial(error) => error.fmt(f),
            Failure::Daemon(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Store(error) => Some(error),
            Failure::Output(source) => Some(source),
            Failure::Library(error) => error.source(),
            Failure::Trial(error) => Some(error),
            _ => None,
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Failure {
        Failure::Remote(error)
    }
}

/// What a command can say better than the library, it says itself.
impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Store(error) => Failure::Store(error),
            Error::Inquiry(error) => Failure::Inquiry(error),
            Error::Unknown { instrument } => Failure::Unknown { instrument },
            Error::NotConfigured { instrument } => Failure::NotConfigured { instrument },
            Error::Stopped => Failure::Stopped,
            error => Failure::Library(error),
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        match error {
            WriteError::Store(error) => Failure::Store(error),
            WriteError::Output(error) => Failure::Output(error),
            WriteError::Stopped => Failure::Stopped,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

/// An I/O error that names no file is one of standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

/// Ends a command: what is buffered goes out, and a reader who has seen enough, such as `head`, is
/// no failure.
pub fn finish(result: Result<(), Failure>, out: &mut dyn Write) -> Result<Exit, Failure> {
    match result.and_then(|()| Ok(out.flush()?)) {
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(failure) => Err(failure),
        Ok(()) => Ok(Exit::Done),
    }
}

/// Writes a report for scripts.
pub(crate) fn write_json(report: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, report).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Writes a remark for people. A command does not fail because nobody reads its remarks.
pub fn note(notes: &mut dyn Write, text: fmt::Arguments<'_>) {
    let _ = writeln!(notes, "{text}");
}

/// Tells what is wrong, with the program's name before each line: there may be several, and a
/// script keeps those of many programs together.
pub fn complain(notes: &mut dyn Write, error: &dyn fmt::Display) {
    error.to_string().lines().for_each(|line| note(notes, format_args!("okx-store: {line}")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_ends_quietly() {
        let broken = Failure::Output(ErrorKind::BrokenPipe.into());
        assert_eq!(finish(Err(broken), &mut io::sink()).unwrap(), Exit::Done);
        let full = Failure::Output(ErrorKind::StorageFull.into());
        assert_eq!(finish(Err(full), &mut io::sink()).unwrap_err().exit(), Exit::Failed);
        let target = Error::Target { path: "/".into(), why: "is a folder" };
        assert_eq!(finish(Err(target.into()), &mut io::sink()).unwrap_err().exit(), Exit::Usage);
    }
}
