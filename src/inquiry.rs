//! Single questions to the exchange, outside of any plan: what is listed, whether a name is known.
//! They keep to the same budget as everything else, by the record in the data folder.

use std::fmt;
use std::io;
use std::time::Duration;

use crossbeam_channel::after;

use crate::backoff::{Backoff, Random};
use crate::engine::Setup;
use crate::grants::Grants;
use crate::http::{Http, HttpError};
use crate::limit::Budget;
use crate::okx;
use crate::time::{Clock, SECOND};
use crate::wire::{Answer, Endpoint, Policy, Trouble};

/// How often a question is put before its failure is told. Somebody is waiting at a terminal.
const TRIES: u32 = 3;

/// Why a question has no answer.
#[derive(Debug)]
pub enum InquiryError {
    /// The connection cannot be set up.
    Http(HttpError),
    /// The record of requests cannot be opened.
    Record(io::Error),
    /// The exchange, or what lies before it, says no.
    Trouble(Trouble),
}

impl fmt::Display for InquiryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InquiryError::Http(error) => error.fmt(f),
            InquiryError::Record(error) => write!(f, "cannot open the record of requests: {error}"),
            InquiryError::Trouble(trouble) => trouble.fmt(f),
        }
    }
}

impl std::error::Error for InquiryError {}

/// Whoever asks.
pub struct Inquirer {
    http: Http,
    clock: Clock,
    grants: Grants,
    budget: Budget,
    random: Random,
}

impl Inquirer {
    /// Prepares to ask.
    pub fn new(setup: &Setup) -> Result<Inquirer, InquiryError> {
        let http = Http::new(&setup.http).map_err(InquiryError::Http)?;
        let clock = Clock::start(0);
        let now = clock.now().local;
        let (grants, recent) = Grants::open(&setup.data_dir, now).map_err(InquiryError::Record)?;
        let mut budget = Budget::new(setup.rate_limit_per_minute, okx::rate);
        budget.restore(&recent, now);
        Ok(Inquirer { http, clock, grants, budget, random: Random::new(now as u64) })
    }

    /// Asks once the budget allows it, and again after a pause where the trouble may pass.
    pub fn ask<T>(
        &mut self,
        endpoint: Endpoint,
        path: &str,
        decode: impl Fn(&Answer) -> Result<T, Trouble>,
    ) -> Result<T, InquiryError> {
        let mut backoff = Backoff::default();
        loop {
            self.wait_for_turn(endpoint, &backoff);
            let now = self.clock.now();
            self.budget.grant(endpoint, now.local);
            self.grants.record(endpoint, now.local).map_err(InquiryError::Record)?;
            let result = self.http.get(path, now.exchange).and_then(|answer| decode(&answer));
            let now = self.clock.now().local;
            self.budget.answered(endpoint, now);
            let trouble = match result {
                Ok(found) => return Ok(found),
                Err(trouble) => trouble,
            };
            backoff.failed(trouble.policy(), now, &mut self.random);
            let hopeless = matches!(trouble.policy(), Policy::Permanent | Policy::Denied);
            if hopeless || backoff.failures() >= TRIES {
                return Err(InquiryError::Trouble(trouble));
            }
        }
    }

    fn wait_for_turn(&mut self, endpoint: Endpoint, backoff: &Backoff) {
        loop {
            let now = self.clock.now().local;
            let free_at = self.budget.free_at(endpoint, now).unwrap_or(now + SECOND);
            let wait_ms = free_at.max(backoff.free_at()) - now;
            if wait_ms <= 0 {
                return;
            }
            // A timer's only message is that its time has come.
            let _ = after(Duration::from_millis(wait_ms as u64)).recv();
        }
    }
}
