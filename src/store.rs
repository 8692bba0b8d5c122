//! The store on disk: one SQLite file per instrument, and what can go wrong with it.
//!
//! **Invariant:** only the writer thread opens a file for writing ([`mod@file`]); everybody else
//! reads ([`read`], [`query`]).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::bar::Bar;
use crate::instrument::Instrument;

#[doc(hidden)]
pub mod file;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod order;
pub mod query;
pub mod read;
pub(crate) mod row;
#[cfg(test)]
pub(crate) mod sample;
#[doc(hidden)]
pub mod schema;

/// Where the file of an instrument lies.
pub fn file_path(data_dir: &Path, instrument: &Instrument) -> PathBuf {
    data_dir.join(format!("{instrument}.db"))
}

/// Deletes a file with what SQLite keeps beside it, the log last: without the file it means
/// nothing. What is not there is deleted already.
pub fn delete(path: &Path) -> Result<(), StoreError> {
    for path in [path.to_owned(), path.with_extension("db-shm"), path.with_extension("db-wal")] {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Io { path, doing: "delete it", source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whose candles a file holds. Books differ between regions, and demo prices from live ones, so
/// a file belongs to one of each.
///
/// ```
/// use okx_local_store::store::Identity;
///
/// let live = Identity { venue: "okx", region: "global".into(), demo: false };
/// assert_eq!(live.to_string(), "okx global live");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The exchange.
    pub venue: &'static str,
    /// Which of its sites.
    pub region: String,
    /// Whether it is demo trading.
    pub demo: bool,
}

impl Identity {
    /// The word for `demo` in the table `meta`.
    pub fn environment(&self) -> &'static str {
        if self.demo { "demo" } else { "live" }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.venue, self.region, self.environment())
    }
}

/// What a failure of the store concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This instrument's file alone; the others are sound.
    ThisFile,
    /// Every file in the folder: a full or failing disk.
    WholeDisk,
    /// This file, for a while: another program holds its lock, or the process has as many files
    /// open as it may.
    Busy,
}

/// A failure of the store, with the file it happened to.
#[derive(Debug)]
pub enum StoreError {
    /// There is no such file: the instrument was never synced.
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file was deleted after this was asked for.
    Purged {
        /// The file.
        path: PathBuf,
    },
    /// The same failure has come again and again, while the other files took commits.
    Alone {
        /// The last of them.
        error: Box<StoreError>,
    },
    /// The file was written by a later version of the program.
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
    },
    /// The file belongs to another venue, region or environment.
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The file has no candles of this bar.
    NoBar {
        /// The file.
        path: PathBuf,
        /// The bar.
        bar: Bar,
        /// The bars of which it has some.
        stored: Vec<Bar>,
    },
    /// The file holds something else.
    Stranger {
        /// The file.
        path: PathBuf,
    },
    /// The file was moved away or deleted while it was open for writing.
    Gone {
        /// Where it was.
        path: PathBuf,
    },
    /// The system says no.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as in "cannot …".
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// SQLite says no.
    Sql {
        /// The file.
        path: PathBuf,
        /// What was being done, as in "cannot …".
        doing: &'static str,
        /// SQLite's answer.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Whether the other instruments can go on.
    pub fn scope(&self) -> Scope {
        let source = match self {
            StoreError::Purged { .. } => return Scope::Busy,
            StoreError::Sql { source, .. } => source,
            _ => return Scope::ThisFile,
        };
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => Scope::WholeDisk,
            // SQLite does not say why it cannot open a file, and descriptors come back.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::CannotOpen) => {
                Scope::Busy
            }
            _ => Scope::ThisFile,
        }
    }

    /// Whether it may be the disk under this file alone that fails, and not a full one, which takes
    /// small commits longer than large ones.
    pub fn is_failing_disk(&self) -> bool {
        let StoreError::Sql { source, .. } = self else { return false };
        source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
    }

    /// Wraps SQLite's errors with the file and the deed.
    pub(crate) fn sql<'a>(
        path: &'a Path,
        doing: &'static str,
    ) -> impl Fn(rusqlite::Error) -> StoreError + use<'a> {
        move |source| StoreError::Sql { path: path.to_owned(), doing, source }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Missing { path } => {
                write!(f, "{}: no such file: sync the instrument first", path.display())
            }
            StoreError::Purged { path } => {
                write!(f, "{}: deleted meanwhile: ask for it again", path.display())
            }
            StoreError::Alone { error } => {
                write!(f, "{error}, again and again, while the other files take commits")
            }
            StoreError::Newer { path, found } => write!(
                f,
                "{}: schema {found} is newer than this program knows ({}): update okx-store",
                path.display(),
                schema::VERSION
            ),
            StoreError::Foreign { path, found, wanted } => write!(
                f,
                "{}: holds candles of {found}, not of {wanted}: use another data_dir for these",
                path.display()
            ),
            StoreError::NoBar { path, bar, stored } => {
                write!(f, "{}: holds no {bar} candles", path.display())?;
                let names: Vec<&str> = stored.iter().map(|bar| bar.name()).collect();
                match names.join(" ") {
                    none if none.is_empty() => f.write_str(" nor any others")?,
                    names => write!(f, ", only {names}")?,
                }
                let instrument = path.file_stem().unwrap_or_default().display();
                write!(f, ": okx-store backfill {instrument} {bar} fetches them")
            }
            StoreError::Stranger { path } => write!(
                f,
                "{}: is a database of something else: move it away, or use another data_dir",
                path.display()
            ),
            StoreError::Gone { path } => {
                write!(f, "{}: was moved away or deleted while it was in use", path.display())
            }
            StoreError::Io { path, doing, source } => {
                write!(f, "{}: cannot {doing}: {source}", path.display())
            }
            StoreError::Sql { path, doing, source } => {
                write!(f, "{}: cannot {doing}: {source}", path.display())?;
                match source.sqlite_error_code() {
                    // SQLite does not say why, and to look would cost a lock that is held.
                    Some(ErrorCode::CannotOpen) => f.write_str(
                        ": see whether this user may, and whether descriptors are left (ulimit -n)",
                    ),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io { source, .. } => Some(source),
            StoreError::Sql { source, .. } => Some(source),
            StoreError::Alone { error } => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_a_failure_concerns_follows_from_its_code() {
        let cases = [
            ("another program has it", ffi::SQLITE_BUSY, Scope::Busy),
            ("another connection has it", ffi::SQLITE_LOCKED, Scope::Busy),
            ("no descriptor is left", ffi::SQLITE_CANTOPEN, Scope::Busy),
            ("no room", ffi::SQLITE_FULL, Scope::WholeDisk),
            ("the disk fails", ffi::SQLITE_IOERR_WRITE, Scope::WholeDisk),
            ("not a database", ffi::SQLITE_NOTADB, Scope::ThisFile),
            ("malformed", ffi::SQLITE_CORRUPT, Scope::ThisFile),
        ];
        for (name, code, scope) in cases {
            let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let error = StoreError::sql(Path::new("A-USDT.db"), "commit")(source);
            assert_eq!(error.scope(), scope, "{name}");
        }
    }
}
