//! Single questions to the exchange, outside of any plan: what is listed, whether a name is known,
//! whether a page is still the same. They take no lock, and keep to the same budget as a daemon or
//! command beside them, by the record in the data folder.

pub mod listed;

use std::fmt;
use std::io;
use std::time::Duration;

use crossbeam_channel::after;

use crate::backoff::{Backoff, Random};
use crate::control::Hold;
use crate::engine::Setup;
use crate::grants::Grants;
use crate::http::{Http, HttpError};
use crate::limit::Budget;
use crate::okx;
use crate::time::{Clock, Millis, Now, SECOND};
use crate::wire::{Answer, Endpoint, Policy, Trouble};

/// How often a question is put before its failure is told. Somebody is waiting at a terminal.
const TRIES: u32 = 3;
/// The same in the middle of long work, which takes about half a minute with the pauses between.
const TRIES_PATIENT: u32 = 6;
/// How often whoever watches is asked whether to go on.
const LOOK_MS: Millis = 100;

/// Why a question has no answer.
#[derive(Debug)]
pub enum InquiryError {
    /// The connection cannot be set up.
    Http(HttpError),
    /// The record of requests cannot be opened, or not be written.
    Record(io::Error),
    /// The exchange, or what lies before it, says no.
    Trouble(Trouble),
    /// Whoever asked has had enough.
    Stopped,
}

impl fmt::Display for InquiryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InquiryError::Http(error) => error.fmt(f),
            InquiryError::Record(error) => {
                write!(
                    f,
                    "cannot keep the record of requests, {error}: the folder must be writable"
                )
            }
            InquiryError::Trouble(trouble) => trouble.fmt(f),
            InquiryError::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for InquiryError {}

/// Is told now and then how long a question waits for its turn, ms, and why; says whether to go on.
pub type Watch<'a> = dyn FnMut(Now, Option<(Millis, Hold)>) -> bool + 'a;

/// Whoever asks.
pub struct Inquirer {
    http: Http,
    clock: Clock,
    grants: Grants,
    budget: Budget,
    random: Random,
    tries: u32,
}

impl Inquirer {
    /// Prepares to ask.
    pub fn new(setup: &Setup) -> Result<Inquirer, InquiryError> {
        let http = Http::new(&setup.http).map_err(InquiryError::Http)?;
        let clock = Clock::start(0);
        let now = clock.now().local;
        let (grants, recent) = Grants::open(&setup.data_dir, now).map_err(InquiryError::Record)?;
        let mut budget = Budget::beside(setup.rate_limit_per_minute, okx::rate);
        budget.restore(&recent, now);
        let random = Random::new(now as u64);
        Ok(Inquirer { http, clock, grants, budget, random, tries: TRIES })
    }

    /// Asks more often before it gives up: there is something to lose.
    pub fn be_patient(&mut self) {
        self.tries = TRIES_PATIENT;
    }

    /// The time, which is the exchange's own once its clock was read.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Requests to an endpoint that can go out in a minute at the most.
    pub fn per_minute(&self, endpoint: Endpoint) -> f64 {
        self.budget.per_minute(endpoint)
    }

    /// Sets the clock by the exchange's.
    pub fn read_clock(&mut self, watch: &mut Watch<'_>) -> Result<(), InquiryError> {
        let exchange = self.ask_watched(Endpoint::Time, okx::TIME_PATH, okx::decode_time, watch)?;
        self.clock.learn(exchange);
        Ok(())
    }

    /// Asks once the budget allows it, and again after a pause where the trouble may pass.
    pub fn ask<T>(
        &mut self,
        endpoint: Endpoint,
        path: &str,
        decode: impl Fn(&Answer) -> Result<T, Trouble>,
    ) -> Result<T, InquiryError> {
        self.ask_watched(endpoint, path, decode, &mut |_, _| true)
    }

    /// The same, and is watched at it.
    pub fn ask_watched<T>(
        &mut self,
        endpoint: Endpoint,
        path: &str,
        decode: impl Fn(&Answer) -> Result<T, Trouble>,
        watch: &mut Watch<'_>,
    ) -> Result<T, InquiryError> {
        let mut backoff = Backoff::default();
        loop {
            self.wait_for_turn(endpoint, &backoff, watch)?;
            let now = self.clock.now();
            self.budget.grant(endpoint, now.local);
            self.grants.record(endpoint, now.local).map_err(InquiryError::Record)?;
            let result =
                self.http.get(endpoint, path, now.exchange).and_then(|answer| decode(&answer));
            let now = self.clock.now().local;
            self.budget.answered(endpoint, now);
            let trouble = match result {
                Ok(found) => return Ok(found),
                Err(trouble) => trouble,
            };
            backoff.failed(trouble.policy(), now, &mut self.random);
            let hopeless = matches!(trouble.policy(), Policy::Permanent | Policy::Denied);
            if hopeless || backoff.failures() >= self.tries {
                return Err(InquiryError::Trouble(trouble));
            }
        }
    }

    fn wait_for_turn(
        &mut self,
        endpoint: Endpoint,
        backoff: &Backoff,
        watch: &mut Watch<'_>,
    ) -> Result<(), InquiryError> {
        loop {
            let times = self.clock.now();
            let now = times.local;
            let others = self.grants.others(now).map_err(InquiryError::Record)?;
            self.budget.restore(&others, now);
            let free_at = self.budget.free_at(endpoint, now).unwrap_or(now + SECOND);
            let hold = if backoff.free_at() > free_at { Hold::Pause } else { Hold::Budget };
            let wait_ms = free_at.max(backoff.free_at()) - now;
            if !watch(times, (wait_ms > 0).then_some((wait_ms, hold))) {
                return Err(InquiryError::Stopped);
            }
            if wait_ms <= 0 {
                return Ok(());
            }
            // A timer's only message is that its time has come.
            let _ = after(Duration::from_millis(wait_ms.min(LOOK_MS) as u64)).recv();
        }
    }
}
