//! The writer: the one thread that changes files.
//!
//! It hears pages from the pollers and notes from the supervisor, and tells the supervisor what is
//! on disk, after each commit and never before. It ends when nobody can send to it any more, or
//! when it is told to.
//!
//! **Invariant:** every read-write connection is opened, used and closed here.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use log::{debug, warn};

use crate::instrument::{Instrument, Series};
use crate::page::Stored;
use crate::store::file::Entry;
use crate::store::files::Files;
use crate::store::order::{Batch, Order};
use crate::store::{Scope, StoreError};
use crate::time::Clock;

/// Rows that ride along in one transaction at the most: more would keep a receipt waiting.
const ROWS_MAX: usize = 3_000;
/// The thread's name: the supervisor waits for its end.
pub const NAME: &str = "writer";

/// What the supervisor hears, in the order of the commits.
#[derive(Debug)]
pub enum Receipt {
    /// A page is on disk.
    Stored {
        /// The ticket under which it was fetched.
        ticket: u64,
        /// What is there now.
        stored: Stored,
    },
    /// A page could not be stored.
    Broken {
        /// The ticket under which it was fetched.
        ticket: u64,
        /// Why.
        error: Arc<StoreError>,
    },
}

/// What the writer works with.
pub struct Writer {
    /// The files.
    pub files: Files,
    /// The clock whose offset each commit keeps.
    pub clock: Arc<Clock>,
    /// Pages and notes.
    pub orders: Receiver<Order>,
    /// Receipts to the supervisor.
    pub receipts: Sender<Receipt>,
}

impl Writer {
    /// Works until the orders end, then leaves whole files without logs behind.
    pub fn run(mut self) {
        while let Ok(first) = self.orders.recv() {
            if !self.work(first) {
                break;
            }
        }
        if let Err(error) = self.files.finish() {
            // Nothing is lost: the next process to open the file finds everything in its log.
            warn!(target: "writer", "{error}; the log stays beside the file");
        }
    }

    /// Takes an order and what else is waiting, and commits it all; tells whether to go on.
    fn work(&mut self, first: Order) -> bool {
        let (mut batches, mut notes, mut rows) = (Vec::new(), Vec::new(), 0);
        let (mut compact, mut go_on) = (false, true);
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Store(batch) => {
                    rows += batch.entry.page.rows.len();
                    batches.push(batch);
                }
                // Nobody streams yet.
                Order::Push(_) => {}
                Order::NoteError { series, error } => notes.push((series, error)),
                Order::Compact => compact = true,
                Order::Stop => go_on = false,
            }
            let more = go_on && rows < ROWS_MAX;
            next = more.then(|| self.orders.try_recv().ok()).flatten();
        }
        let heard = self.store(batches);
        // After the pages: a page that is stored ends an earlier error, not a later one.
        notes.iter().for_each(|(series, error)| self.note_error(series, error));
        if compact && let Err(error) = self.files.compact() {
            // The file is as it was, only larger than it need be.
            warn!(target: "writer", "{error}");
        }
        heard && go_on
    }

    /// Commits pages, one transaction per file; tells whether anybody hears the receipts.
    fn store(&mut self, mut batches: Vec<Batch>) -> bool {
        // The sort is stable: pages of one file stay in the order in which they came.
        batches.sort_by(|a, b| a.instrument.cmp(&b.instrument));
        let mut rest = batches.into_iter().peekable();
        while let Some(first) = rest.next() {
            let instrument = first.instrument.clone();
            let mut group = vec![first];
            while let Some(batch) = rest.next_if(|batch| batch.instrument == instrument) {
                group.push(batch);
            }
            let (tickets, entries): (Vec<u64>, Vec<Entry>) =
                group.into_iter().map(|batch| (batch.ticket, batch.entry)).unzip();
            if !self.commit(&instrument, &tickets, &entries) {
                return false;
            }
        }
        true
    }

    fn commit(&mut self, instrument: &Instrument, tickets: &[u64], entries: &[Entry]) -> bool {
        let offset_ms = self.clock.offset_ms();
        let result = self.files.get(instrument).and_then(|file| file.commit(entries, offset_ms));
        let receipts: Vec<Receipt> = match result {
            Ok(stored) => {
                debug!(target: "writer", "{instrument}: on disk, pages: {}", entries.len());
                let receipt = |(&ticket, stored)| Receipt::Stored { ticket, stored };
                tickets.iter().zip(stored).map(receipt).collect()
            }
            Err(error) => {
                if error.scope() == Scope::ThisFile {
                    self.files.close(instrument);
                }
                let error = Arc::new(error);
                let receipt = |&ticket| Receipt::Broken { ticket, error: error.clone() };
                tickets.iter().map(receipt).collect()
            }
        };
        receipts.into_iter().all(|receipt| self.receipts.send(receipt).is_ok())
    }

    /// A note that cannot be written is only logged: what it is about was told already. It is no
    /// reason to make a file for an instrument that may not exist.
    fn note_error(&mut self, series: &Series, error: &str) {
        if !self.files.exists(&series.instrument) {
            return;
        }
        let noted = self.files.get(&series.instrument);
        if let Err(failed) = noted.and_then(|file| file.note_error(series.bar, error)) {
            warn!(target: "writer", "{series}: the last error is not noted: {failed}");
        }
    }
}
