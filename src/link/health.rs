//! How the stream is, for people to look at, and the books from which that is told.

use crate::breaker;
use crate::meter::Meter;
use crate::time::Millis;

/// How the stream is. Times are local, Unix ms; counts are those of the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Whether a connection stands.
    pub connected: bool,
    /// Since when it does.
    pub connected_since: Option<Millis>,
    /// Whether its replacement is under way.
    pub replacing: bool,
    /// Series that are subscribed.
    pub subscriptions: usize,
    /// Series that are wanted.
    pub wanted: usize,
    /// Connections that came to stand after the process's first.
    pub reconnects_24h: u64,
    /// Whether the stream is used at all.
    pub breaker: breaker::State,
    /// Failures in a row.
    pub failures: u32,
    /// When the next connection is tried, while there is none and none on its way.
    pub retry_at: Option<Millis>,
    /// How long the exchange took to answer the last ping.
    pub rtt_ms: Option<Millis>,
    /// When the last frame came.
    pub last_heard: Option<Millis>,
    /// Frames that came.
    pub frames_24h: u64,
    /// Connections lost, attempts that failed, frames that could not be read, refusals.
    pub errors_24h: u64,
    /// Why the login was refused, if it was: the stream goes on without.
    pub login: Option<String>,
    /// What went wrong last, and when.
    pub last_error: Option<(Millis, String)>,
}

/// What is written down on the way.
#[derive(Debug, Default)]
pub(super) struct Books {
    frames: Meter,
    errors: Meter,
    reconnects: Meter,
    has_connected: bool,
    last_heard: Option<Millis>,
    last_error: Option<(Millis, String)>,
    pub(super) rtt_ms: Option<Millis>,
    pub(super) login: Option<String>,
}

impl Books {
    /// A frame came.
    pub(super) fn heard(&mut self, now: Millis) {
        self.frames.add(now);
        self.last_heard = Some(now);
    }

    /// Something went wrong.
    pub(super) fn failed(&mut self, now: Millis, cause: String) {
        self.errors.add(now);
        self.last_error = Some((now, cause));
    }

    /// A connection came to stand.
    pub(super) fn connected(&mut self, now: Millis) {
        if std::mem::replace(&mut self.has_connected, true) {
            self.reconnects.add(now);
        }
    }

    /// What the books alone know.
    pub(super) fn health(&self, now: Millis) -> Health {
        Health {
            reconnects_24h: self.reconnects.total(now),
            rtt_ms: self.rtt_ms,
            last_heard: self.last_heard,
            frames_24h: self.frames.total(now),
            errors_24h: self.errors.total(now),
            login: self.login.clone(),
            last_error: self.last_error.clone(),
            ..Health::default()
        }
    }
}
