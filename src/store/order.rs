//! What the store's one writer is told: pages to keep and notes to make.
//!
//! The pollers and the supervisor send it; none of them knows the writer itself.

use crate::instrument::{Instrument, Series};
use crate::store::file::Entry;

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

/// What the writer hears.
#[derive(Debug)]
pub enum Order {
    /// Store a page.
    Store(Batch),
    /// Note what went wrong with a series, for `status`.
    NoteError {
        /// Which series.
        series: Series,
        /// In words.
        error: String,
    },
    /// Nothing more is to come: write files anew that have grown much.
    Compact,
    /// Finish what came before this and end.
    Stop,
}
