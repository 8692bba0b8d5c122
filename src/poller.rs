//! The pollers: threads that fetch one page at a time.
//!
//! They hear orders from the supervisor, hand every answered page to the writer, an empty one too,
//! and tell the supervisor of everything else. They know no retry, no rate and no cursor: one order
//! is one request. They end when the orders do.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::control::{Action, Job};
use crate::http::Http;
use crate::okx;
use crate::store::file::Entry;
use crate::store::order::{Batch, Order};
use crate::time::{Clock, Millis};
use crate::wire::{Endpoint, Trouble};

/// What the supervisor hears.
#[derive(Debug)]
pub enum Report {
    /// The exchange's clock was read, and the process's clock set by it.
    Clock {
        /// The order's ticket.
        ticket: u64,
    },
    /// The page has come, and is on its way to the writer.
    Fetched {
        /// The order's ticket.
        ticket: u64,
    },
    /// No page came.
    Failed {
        /// The order's ticket.
        ticket: u64,
        /// Why.
        trouble: Trouble,
    },
}

/// What a poller works with.
pub struct Poller {
    /// The connection to the exchange.
    pub http: Http,
    /// The clocks that it keeps right.
    pub clock: Arc<Clock>,
    /// Orders from the supervisor; all pollers share one queue.
    pub orders: Receiver<Action>,
    /// Pages to the writer.
    pub pages: Sender<Order>,
    /// Everything else to the supervisor.
    pub reports: Sender<Report>,
}

impl Poller {
    /// Works until the orders end, or nobody takes the results any more.
    pub fn run(self) {
        while let Ok(Action { ticket, job }) = self.orders.recv() {
            let heard = match self.fetch(ticket, job) {
                Ok(Some(batch)) => {
                    let sent = self.pages.send(Order::Store(batch)).is_ok();
                    sent && self.reports.send(Report::Fetched { ticket }).is_ok()
                }
                Ok(None) => self.reports.send(Report::Clock { ticket }).is_ok(),
                Err(trouble) => self.reports.send(Report::Failed { ticket, trouble }).is_ok(),
            };
            if !heard {
                break;
            }
        }
    }

    fn fetch(&self, ticket: u64, job: Job) -> Result<Option<Batch>, Trouble> {
        match job {
            Job::Time => self.read_clock().map(|()| None),
            Job::Page { series, grid, endpoint, ask } => {
                let path = okx::page_path(&series, endpoint, ask);
                let answer = self.http.get(endpoint, &path, self.clock.now().exchange)?;
                let page = okx::decode_page(ask, &answer)?;
                let at = self.clock.now().exchange;
                let entry = Entry { bar: series.bar, grid: Some(grid), page, at };
                Ok(Some(Batch { ticket, instrument: series.instrument, entry }))
            }
        }
    }

    /// Takes the exchange's time for that of the middle of the journey.
    fn read_clock(&self) -> Result<(), Trouble> {
        let left = self.clock.now();
        let answer = self.http.get(Endpoint::Time, okx::TIME_PATH, left.exchange)?;
        let exchange: Millis = okx::decode_time(&answer)?;
        let journey_ms = self.clock.now().local - left.local;
        self.clock.learn(exchange + journey_ms / 2);
        Ok(())
    }
}
