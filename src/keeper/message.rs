//! What the mind of the daemon is told, and what it says.

use crate::bar::Bar;
use crate::control::{self, Damage};
use crate::instrument::{Instrument, Series};
use crate::link::{Order, Report};
use crate::mode::Rule;
use crate::page::Stored;
use crate::span::Spans;
use crate::time::Millis;

/// What is configured for an instrument that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub instrument: Instrument,
    /// At which lengths.
    pub bars: Vec<Bar>,
    /// How the stream and polling share the work.
    pub rule: Rule,
    /// The time between two polls.
    pub interval_ms: Millis,
    /// How far back history is wanted.
    pub history_days: u32,
}

impl Member {
    /// One series for each of its bars.
    pub fn series(&self) -> impl Iterator<Item = Series> + '_ {
        let instrument = &self.instrument;
        self.bars.iter().map(|&bar| Series { instrument: instrument.clone(), bar })
    }
}

/// What has happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// To a request, or that no new work is wanted.
    Control(control::Input<'a>),
    /// To the stream.
    Streamed(Report),
    /// The stream's bars are on disk.
    Pushed {
        /// Of which series.
        series: &'a Series,
        /// What is there now.
        stored: &'a Stored,
    },
    /// The stream's bars cannot be stored.
    PushBroken {
        /// Of which instrument.
        instrument: &'a Instrument,
        /// Why, in words.
        error: &'a str,
        /// How much is broken.
        damage: Damage,
    },
    /// The machine has slept.
    Slept {
        /// For so long.
        length_ms: Millis,
    },
    /// Rows of a series turned out not to be stored.
    Audited {
        /// Which series.
        series: &'a Series,
        /// What is missing of it.
        lost: &'a Spans,
    },
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// This request is to go out.
    Fetch(control::Action),
    /// The stream is to be told this.
    Stream(Order),
}
