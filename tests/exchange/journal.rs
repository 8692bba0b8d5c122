//! What was asked of the exchange and how it answered, in the order of arrival.

use std::collections::{BTreeMap, VecDeque};

use super::faults::Fault;
use super::rules::{Ask, Endpoint};

/// The newest requests which are kept; counts go on for ever.
const REQUESTS_MAX: usize = 200_000;

/// One request that reached the exchange.
#[derive(Clone, Debug)]
pub struct Request {
    /// Ms since the exchange started, by a clock that only goes forward.
    pub at_ms: u64,
    /// The exchange's own time on arrival.
    pub exchange_ms: i64,
    pub method: String,
    pub ask: Ask,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Rows in the answer; none before it is given.
    pub rows: usize,
    /// HTTP status of the answer, 0 before it is given and where none is.
    pub status: u16,
    pub fault: Option<Fault>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
pub struct Journal {
    requests: VecDeque<Request>,
    dropped: usize,
    counts: BTreeMap<Endpoint, usize>,
}

impl Journal {
    /// Notes an arrival and gives it a number.
    pub fn arrive(&mut self, request: Request) -> usize {
        *self.counts.entry(request.ask.endpoint).or_default() += 1;
        if self.requests.len() == REQUESTS_MAX {
            self.requests.pop_front();
            self.dropped += 1;
        }
        self.requests.push_back(request);
        self.dropped + self.requests.len() - 1
    }

    /// Notes how the request of that number was answered.
    pub fn answer(&mut self, number: usize, status: u16, rows: usize, fault: Option<Fault>) {
        let request = number.checked_sub(self.dropped).and_then(|at| self.requests.get_mut(at));
        if let Some(request) = request {
            (request.status, request.rows, request.fault) = (status, rows, fault);
        }
    }

    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter()
    }

    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.counts.get(&endpoint).copied().unwrap_or(0)
    }
}
