//! The command line: what people and scripts may say, and what it means.
//!
//! Words are sorted by the grammar, parsed to texts, and checked to typed values, so that a
//! command begins its work with nothing left to refuse but what only files and the exchange know.

use std::path::PathBuf;

use crate::cli::completions::Shell;
use crate::cli::export::Export;
use crate::cli::gaps::Gaps;
use crate::cli::query::Query;
use crate::cli::status::Status;
use crate::cli::verify::Verify;
use crate::cli::websocket::WebSocket;
use crate::cli::{argv, check};
use crate::config::Addition;
use crate::instrument::{Instrument, Series};
use crate::okx::Kind;
use crate::spelling::printable;
use crate::store::query::Selection;

/// What holds for every command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--verbose`
    pub verbose: bool,
}

/// A command with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `status`
    Status(Status),
    /// `sync`
    Sync(Which),
    /// `backfill`
    Backfill {
        /// Of what.
        series: Series,
        /// Which part; never [`Selection::Newest`]. Everything stands for what is configured.
        selection: Selection,
    },
    /// `gaps`
    Gaps {
        /// Of what, and in which form.
        asked: Gaps,
        /// Fetch what is missing.
        fill: bool,
    },
    /// `verify`
    Verify(Verify),
    /// `query`
    Query(Query),
    /// `export`
    Export(Export),
    /// `overview`
    Overview {
        /// As JSON.
        json: bool,
    },
    /// `add-symbol`
    AddSymbol(Addition),
    /// `remove-symbol`
    RemoveSymbol {
        /// What is no longer mirrored.
        instrument: Instrument,
        /// Delete its data.
        purge: bool,
    },
    /// `list`
    List {
        /// What the exchange offers of this kind, instead of what is configured.
        available: Option<Kind>,
        /// As JSON.
        json: bool,
    },
    /// `daemon`
    Daemon {
        /// Leave older history for the first interval, whatever is configured.
        no_sync_on_start: bool,
    },
    /// `websocket`
    WebSocket(WebSocket),
    /// `doctor`
    Doctor {
        /// As JSON.
        json: bool,
    },
    /// `service`
    Service,
    /// `completions`
    Completions(Shell),
}

/// Which instruments to sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every one that is enabled.
    All,
    /// These, none twice.
    These(Vec<Instrument>),
}

/// Why there is no command to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Help was asked for: this text, for standard output.
    Help(String),
    /// The version was asked for.
    Version,
    /// The command line is wrong: one line without an end, for standard error. The program ends
    /// with [`Exit::Usage`](crate::cli::outcome::Exit::Usage).
    Bad(String),
}

/// Parses the words after the program's name.
///
/// ```
/// use okx_local_store::cli::command::{Command, Usage, parse};
///
/// let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
/// let (globals, command) = parse(&words("sync --all --data-dir=/tmp/store")).unwrap();
/// assert_eq!(globals.data_dir, Some("/tmp/store".into()));
/// assert!(matches!(command, Command::Sync(_)));
/// let bad = parse(&words("query BTC-USDT 1h --count -3")).unwrap_err();
/// assert_eq!(bad, Usage::Bad("--count -3: give a whole number from 1 to 10000000".into()));
/// ```
///
/// # Errors
///
/// [`Usage`], when there is nothing to carry out.
pub fn parse(argv: &[String]) -> Result<(Globals, Command), Usage> {
    let bad = |problem: String| Usage::Bad(printable(&problem).into_owned());
    let args = argv::parse(argv).map_err(|usage| match usage {
        Usage::Bad(problem) => bad(problem),
        other => other,
    })?;
    let globals = Globals {
        config: args.config.map(PathBuf::from),
        data_dir: args.data_dir.map(PathBuf::from),
        verbose: args.verbose,
    };
    let command = check::command(args.command).map_err(bad)?;
    Ok((globals, command))
}
