//! What the store's one writer is told: pages and pushes to keep, and notes to make.
//!
//! The pollers, the stream and the supervisor send it; none of them knows the writer itself.

use crate::candle::Candle;
use crate::instrument::{Instrument, Series};
use crate::page::Refused;
use crate::store::file::Entry;
use crate::time::Millis;

/// A page for the store.
#[derive(Debug)]
pub struct Batch {
    /// The ticket under which it was fetched.
    pub ticket: u64,
    /// Whose file it goes to.
    pub instrument: Instrument,
    /// The page.
    pub entry: Entry,
}

/// States of bars that the stream has pushed.
#[derive(Debug)]
pub struct Push {
    /// Which series.
    pub series: Series,
    /// The states, as they came.
    pub rows: Vec<Candle>,
    /// Rows that are no candles.
    pub refused: Vec<Refused>,
    /// When the frame was read, local time, Unix ms.
    pub arrived: Millis,
    /// The same by the exchange's clock.
    pub at: Millis,
}

/// What the writer hears.
#[derive(Debug)]
pub enum Order {
    /// Store a page.
    Store(Batch),
    /// Store what the stream has pushed.
    Push(Push),
    /// Note what went wrong with a series, for `status`.
    NoteError {
        /// Which series.
        series: Series,
        /// In words.
        error: String,
    },
    /// Delete an instrument's file. What was still under way of it is dropped, until a page comes
    /// that was asked for later.
    Purge {
        /// Whose file.
        instrument: Instrument,
        /// The last ticket that was given out before.
        ticket: u64,
    },
    /// Nothing more is to come: write files anew that have grown much.
    Compact,
    /// Commit what came before this and end, without moving logs into files.
    Stop,
}
