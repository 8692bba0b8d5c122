//! `daemon`: keeps everything configured fresh until it is stopped.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use crate::cli::command::Globals;
use crate::cli::outcome::{Exit, Failure, note};
use crate::config::{Config, ConfigError};
use crate::crew::Wishes;
use crate::daemon::{self, Start};
use crate::engine::Setup;
use crate::steward::Reload;

/// Runs until a signal or a bug ends it.
pub fn daemon(
    setup: Setup,
    config: &Config,
    globals: &Globals,
    no_sync_on_start: bool,
    notes: &mut dyn Write,
) -> Result<Exit, Failure> {
    let start = Start {
        setup,
        all_history: config.sync_on_startup && !no_sync_on_start,
        config: config.clone(),
        reload: reload(config, globals),
        wishes: Wishes::Signals,
        audience: Arc::default(),
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

/// Reads the file anew that was found at the start. It is not looked for again: a slip in it must
/// not have another file, or the built-in defaults, taken in its place.
fn reload(config: &Config, globals: &Globals) -> Reload {
    let (first, data_dir) = (config.clone(), globals.data_dir.clone());
    Box::new(move || {
        match fs::metadata(&first.file) {
            Err(_) if first.is_builtin => return Ok(first.clone()),
            Err(cause) => return Err(ConfigError::Unreadable(first.file.clone(), cause)),
            Ok(_) => {}
        }
        Config::load(Some(&first.file), data_dir.as_deref())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_start_is_read_again_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let first = Config::builtin(file.clone());
        let reload = reload(&first, &Globals::default());
        assert_eq!(reload().unwrap(), first, "there is none yet");
        for (name, text, kept) in [
            ("one instrument", r#"{ "instruments": [{ "symbol": "SOL-USDT" }] }"#, Some(1)),
            ("a slip", r#"{ "instrumnts": [] }"#, None),
            ("none", "{}", Some(0)),
        ] {
            fs::write(&file, text).unwrap();
            let kept_now = reload().ok().map(|config| config.instruments.len());
            assert_eq!(kept_now, kept, "{name}");
        }
        fs::remove_file(&file).unwrap();
        let found = super::reload(&Config { is_builtin: false, ..first }, &Globals::default());
        let refused = found().unwrap_err().to_string();
        assert!(refused.contains("config.json cannot be read: "), "{refused}");
    }
}
