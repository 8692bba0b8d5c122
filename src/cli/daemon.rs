//! `daemon`: keeps everything configured fresh until it is stopped.

use crate::cli::outcome::{Exit, Failure};
use crate::config::{Config, Environment};

/// Runs until a signal or a failure ends it.
pub fn daemon(
    _config: &Config,
    _environment: &Environment,
    _no_sync_on_start: bool,
) -> Result<Exit, Failure> {
    Err(Failure::Daemon("the daemon is not assembled".to_owned()))
}
