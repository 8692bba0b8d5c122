//! `daemon`: keeps everything configured fresh until it is stopped.

use std::io::Write;

use crate::cli::command::Globals;
use crate::cli::outcome::{Exit, Failure, note};
use crate::config::Config;
use crate::daemon::{self, Start};
use crate::engine::Setup;

/// Runs until a signal or a bug ends it.
pub fn daemon(
    setup: Setup,
    config: &Config,
    globals: &Globals,
    no_sync_on_start: bool,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let named = globals.clone();
    let reload = move || Config::load(named.config.as_deref(), named.data_dir.as_deref());
    let start = Start {
        setup,
        all_history: config.sync_on_startup && !no_sync_on_start,
        config: config.clone(),
        reload: Box::new(reload),
    };
    let ending = daemon::run(start).map_err(Failure::Daemon)?;
    match ending.panic {
        Some(panic) => {
            note(notes, format_args!("okx-store: a bug: {panic}"));
            Ok(Exit::Bug)
        }
        None => Ok(Exit::Done),
    }
}
