//! What happened on the stream, for tests to look at and to wait for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Series;
use super::strike::StreamFault;

/// The newest of each kind that are kept; a test that needs more looks more often.
const CONNECTIONS_MAX: usize = 10_000;
const MESSAGES_MAX: usize = 100_000;
const CONFIRMS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Client,
    Exchange,
    /// The connection broke, or the exchange was stopped.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    pub at_ms: u64,
    pub by: Party,
    /// The code of the close frame, if there was one.
    pub code: Option<u16>,
}

/// One upgrade request, and what became of it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Ms since the exchange started.
    pub at_ms: u64,
    pub path: String,
    /// 101, the status of a refusal, or 0 where there was no answer.
    pub status: u16,
    pub subscriptions: BTreeSet<Series>,
    pub pushes: u64,
    pub text_pings: u64,
    pub control_pings: u64,
    pub closed: Option<Closed>,
}

impl Connection {
    pub fn is_open(&self) -> bool {
        self.status == 101 && self.closed.is_none()
    }
}

/// A text that a client sent.
#[derive(Clone, Debug)]
pub struct Message {
    pub connection: u64,
    pub at_ms: u64,
    pub exchange_ms: i64,
    pub text: String,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    connections: BTreeMap<u64, Connection>,
    messages: VecDeque<Message>,
    pushes: u64,
    confirmed: BTreeMap<Series, VecDeque<i64>>,
    struck: Vec<(u64, StreamFault)>,
}

impl Stats {
    /// All upgrade requests, oldest first, by the number of their connection.
    pub fn connections(&self) -> impl DoubleEndedIterator<Item = (u64, &Connection)> {
        self.connections.iter().map(|(id, connection)| (*id, connection))
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.connections.values().filter(|connection| connection.is_open()).count()
    }

    /// How many upgrades succeeded so far.
    pub fn upgraded(&self) -> usize {
        self.connections.values().filter(|connection| connection.status == 101).count()
    }

    /// How the connection that ended last did so.
    pub fn last_closed(&self) -> Option<Closed> {
        let closed = self.connections.values().filter_map(|connection| connection.closed);
        closed.max_by_key(|closed| closed.at_ms)
    }

    /// The series that some open connection is subscribed to.
    pub fn subscriptions(&self) -> BTreeSet<Series> {
        let open = self.connections.values().filter(|connection| connection.is_open());
        open.flat_map(|connection| connection.subscriptions.iter().cloned()).collect()
    }

    /// What clients sent, oldest first.
    pub fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.messages.iter()
    }

    /// How many messages, pings left out, contain that text.
    pub fn requests_with(&self, part: &str) -> usize {
        self.messages.iter().filter(|message| message.text.contains(part)).count()
    }

    /// Candles that went out, over all connections.
    pub fn pushes(&self) -> u64 {
        self.pushes
    }

    /// The bars of a series whose closing pushes went out, by their open times in that order.
    pub fn confirmed_pushed(&self, symbol: &str, bar: &str) -> Vec<i64> {
        let found = self.confirmed.get(&Series::named(symbol, bar));
        found.map_or_else(Vec::new, |opens| opens.iter().copied().collect())
    }

    /// The faults that have struck, with the time.
    pub fn struck(&self) -> &[(u64, StreamFault)] {
        &self.struck
    }

    pub(super) fn arrive(&mut self, id: u64, at_ms: u64, path: &str) {
        if self.connections.len() == CONNECTIONS_MAX {
            self.connections.pop_first();
        }
        let connection = Connection {
            at_ms,
            path: path.to_owned(),
            status: 0,
            subscriptions: BTreeSet::new(),
            pushes: 0,
            text_pings: 0,
            control_pings: 0,
            closed: None,
        };
        self.connections.insert(id, connection);
    }

    pub(super) fn change(&mut self, id: u64, act: impl FnOnce(&mut Connection)) {
        if let Some(connection) = self.connections.get_mut(&id) {
            act(connection);
        }
    }

    pub(super) fn hear(&mut self, message: Message) {
        if self.messages.len() == MESSAGES_MAX {
            self.messages.pop_front();
        }
        self.messages.push_back(message);
    }

    pub(super) fn push(&mut self, id: u64, series: &Series, confirmed: Option<i64>) {
        self.pushes += 1;
        self.change(id, |connection| connection.pushes += 1);
        let Some(open) = confirmed else { return };
        let opens = match self.confirmed.get_mut(series) {
            Some(opens) => opens,
            None => self.confirmed.entry(series.clone()).or_default(),
        };
        if opens.len() == CONFIRMS_MAX {
            opens.pop_front();
        }
        opens.push_back(open);
    }

    pub(super) fn strike(&mut self, at_ms: u64, fault: StreamFault) {
        self.struck.push((at_ms, fault));
    }
}
