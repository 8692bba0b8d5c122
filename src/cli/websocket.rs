//! `websocket`: the stream shown, tried and configured.

pub mod dashboard;
pub mod settings;
pub mod trial;

use crate::config::StreamChange;
use crate::time::Millis;

/// What is to be done with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocket {
    /// Show the daemon's connection.
    Status {
        /// As JSON.
        json: bool,
    },
    /// Connect and see.
    Test {
        /// All steps together may take so long.
        timeout_ms: Millis,
    },
    /// Show the settings, or change them.
    Config(Option<StreamChange>),
}
