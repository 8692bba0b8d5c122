//! What the mind over requests is told, and what it says.

use std::fmt;

use crate::bar::Grid;
use crate::instrument::Series;
use crate::page::{Ask, Stored};
use crate::time::format_time;
use crate::wire::{Endpoint, Policy};

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// The exchange's clock.
    Time,
    /// A page of a series.
    Page {
        /// Of what.
        series: Series,
        /// Where its bars open.
        grid: Grid,
        /// Which table of the exchange to ask.
        endpoint: Endpoint,
        /// What to ask it.
        ask: Ask,
    },
}

impl Job {
    /// The endpoint whose budget it costs.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Job::Time => Endpoint::Time,
            Job::Page { endpoint, .. } => *endpoint,
        }
    }
}

impl fmt::Display for Job {
    /// The request in words, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Job::Time => f.write_str("the exchange's clock"),
            Job::Page { series, endpoint, ask, .. } => {
                write!(f, "{endpoint} of {series}, ")?;
                match ask {
                    Ask::Newest { limit, .. } => write!(f, "the newest {limit}"),
                    Ask::Window { span, limit } => write!(f, "{span}, at most {limit}"),
                    Ask::Below { end } => write!(f, "the one below {}", format_time(*end)),
                }
            }
        }
    }
}

/// One request that is to go out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its number, under which its end is to be told.
    pub ticket: u64,
    /// The request.
    pub job: Job,
}

/// How much is broken where an answer cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// This instrument's file is in use by somebody else.
    Busy,
    /// This instrument's file.
    File,
    /// No file can be written.
    Disk,
}

/// How a ticket ended, or that the user has had enough.
#[derive(Debug)]
pub enum Input<'a> {
    /// The exchange's clock was read.
    Clock {
        /// The ticket.
        ticket: u64,
    },
    /// The page has come, and is not on disk yet.
    Fetched {
        /// The ticket.
        ticket: u64,
    },
    /// The page is on disk.
    Stored {
        /// The ticket.
        ticket: u64,
        /// What is there now.
        stored: &'a Stored,
    },
    /// The request failed.
    Failed {
        /// The ticket.
        ticket: u64,
        /// What to do about it.
        policy: Policy,
        /// What happened, in words.
        error: String,
    },
    /// The answer could not be stored in its file.
    Broken {
        /// The ticket.
        ticket: u64,
        /// What happened, in words.
        error: String,
        /// How much is broken.
        damage: Damage,
    },
    /// No new work.
    Stop,
}

/// What a question that could go out waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The exchange's limits, or the user's own.
    Budget,
    /// The pause after a failure.
    Pause,
    /// The confirm of a bar that has ended.
    Confirm,
}
