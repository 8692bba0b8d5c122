//! The mind of the stream: it keeps one healthy connection, with everything on it that is wanted.
//!
//! It is handed the time and what happened, and says what to do next; the stream's thread does it.
//! When to connect is the breaker's to say, how a connection is led its
//! [`Session`](crate::session::Session)'s. Connections have numbers, each attempt a new one, so
//! that what comes too late means nothing.
//!
//! A connection that is old, or that the exchange will close soon, is replaced without a gap: the
//! next one is opened beside it, rows come from both, and only when the next one has what the
//! current one has does it take over.
//!
//! **Invariant:** there are at most two connections, the current one and the next.
//!
//! **Invariant:** a series that was reported acked is acked on one of them, until it is reported
//! lost or refused, or the connection down, or until nobody wants it any more.
//!
//! **Invariant:** whoever drains the effects after each [`Link::on`] leaves nothing behind that
//! grows.

mod capacity;
mod connection;
mod health;
mod message;
mod sharing;
mod succession;

use std::collections::{BTreeSet, VecDeque};

use log::Level;

use crate::backoff::Random;
use crate::breaker::Breaker;
use crate::instrument::Series;
use crate::link::capacity::Capacity;
use crate::link::connection::Connection;
use crate::link::health::Books;
use crate::link::succession::Fate;
use crate::okx::StreamPolicy;
use crate::session::{self, Cause};
use crate::time::{Millis, Now};

pub use crate::link::health::Health;
pub use crate::link::message::{Effect, Input, Order, Report, Settings};

/// The mind of the stream, and the iterator of what it wants done next. Times are local.
///
/// ```
/// use std::collections::BTreeSet;
///
/// use okx_local_store::instrument::Series;
/// use okx_local_store::backoff::Random;
/// use okx_local_store::link::{Effect, Input, Link, Order, Report, Settings};
/// use okx_local_store::{breaker, session, time::Now};
///
/// let settings = Settings {
///     session: session::Settings {
///         credentials: None,
///         ping_interval_ms: 20_000,
///         heartbeat_interval_ms: 30_000,
///     },
///     breaker: breaker::Settings {
///         failure_threshold: 5,
///         max_reconnect_attempts: 5,
///         recovery_timeout_ms: 60_000,
///         reconnect_delay_base_ms: 1_000,
///         reconnect_delay_max_ms: 60_000,
///     },
///     max_connection_age_ms: 3_600_000,
/// };
/// let (mut link, now) = (Link::new(settings, Random::new(1)), Now { local: 0, exchange: 0 });
/// let series = Series { instrument: "BTC-USDT".parse()?, bar: "1m".parse()? };
/// link.on(now, Input::Order(Order::Want(BTreeSet::from([series]))));
/// assert_eq!(link.next(), Some(Effect::Dial(1)));
/// link.on(now, Input::Dialled { conn: 1 });
/// assert!(link.any(|effect| effect == Effect::Report(Report::Up)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    breaker: Breaker,
    random: Random,
    wanted: BTreeSet<Series>,
    capacity: Capacity,
    current: Option<Connection>,
    /// What is to replace the current one, or is being tried for it.
    next: Option<Connection>,
    /// The number of the last connection.
    last: u64,
    /// What was reported as acked.
    told: BTreeSet<Series>,
    /// Whether the connections' shares are to be made anew, and what was told compared with what is
    /// there. Both walk all series, which no frame alone may cause: they come by the thousands.
    stale: bool,
    /// How many series the next one lacks of those that the current one has.
    lacks: usize,
    books: Books,
    effects: VecDeque<Effect>,
}

impl Iterator for Link {
    type Item = Effect;

    /// What is to be done next. More comes after the next [`Link::on`].
    fn next(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

impl Link {
    /// A stream of which nothing is wanted yet.
    pub fn new(settings: Settings, random: Random) -> Link {
        Link {
            breaker: Breaker::new(settings.breaker),
            settings,
            random,
            wanted: BTreeSet::new(),
            capacity: Capacity::default(),
            current: None,
            next: None,
            last: 0,
            told: BTreeSet::new(),
            stale: false,
            lacks: 0,
            books: Books::default(),
            effects: VecDeque::new(),
        }
    }

    /// When time alone changes something: [`Input::Tick`] is due then.
    pub fn deadline(&self) -> Option<Millis> {
        let each = self.connections().filter_map(Connection::deadline);
        let capacity = self.capacity.deadline();
        each.chain(capacity).chain(self.dial_at(Millis::MIN)).chain(self.take_over_at()).min()
    }

    /// How the stream is at `now`.
    pub fn health(&self, now: Millis) -> Health {
        let waits = self.current.is_none() && !self.wanted.is_empty();
        let connected_since = self.current.as_ref().and_then(|current| current.since);
        Health {
            connected: connected_since.is_some(),
            connected_since,
            replacing: self.next.is_some(),
            subscriptions: self.told.len(),
            wanted: self.wanted.len(),
            breaker: self.breaker.state(now),
            failures: self.breaker.failures(),
            retry_at: waits.then(|| self.breaker.connect_at(now)),
            ..self.books.health(now)
        }
    }

    /// Takes in what has happened at `now`.
    pub fn on(&mut self, now: Now, input: Input) {
        match input {
            Input::Order(order) => self.obey(now, order),
            Input::Dialled { conn } => self.stand(now, conn),
            Input::Ended { conn, cause } => self.end(now.local, conn, cause, Fate::Broken),
            Input::Heard { conn, what } => {
                self.books.heard(now.local);
                // Most of what comes is rows, which change nothing here.
                if self.feed(now, conn, what) {
                    return;
                }
            }
            Input::Tick => {
                for conn in self.numbers() {
                    self.feed(now, conn, session::Input::Tick);
                }
            }
        }
        self.settle(now);
    }

    fn obey(&mut self, now: Now, order: Order) {
        self.stale = true;
        match order {
            Order::Want(wanted) => {
                self.capacity.want(now.local, &wanted);
                let fitted = self.capacity.fit(&self.wanted);
                let before = std::mem::replace(&mut self.wanted, wanted);
                // What is acked is reported once it is not any more.
                let refused = before.difference(&fitted);
                self.refuse_overflow(&refused.chain(&self.told).cloned().collect());
                // Who does not want a series any more needs no report that it is gone.
                self.told.retain(|series| self.wanted.contains(series));
                if self.wanted.is_empty() {
                    self.let_go("nothing is to be streamed");
                }
            }
            Order::Renew(series) => {
                self.told.retain(|told| !series.contains(told));
                for conn in self.numbers() {
                    let leave = self.find(conn).map(|it| it.forget(&series)).unwrap_or_default();
                    self.feed(now, conn, session::Input::Unsubscribe(leave));
                }
            }
            Order::Reconnect(cause) => {
                if self.is_up() {
                    self.books.failed(now.local, cause.clone());
                }
                self.let_go(&cause);
            }
            Order::Hasten => self.breaker.hasten(now.local),
            Order::Configure(settings) => {
                self.breaker.configure(settings.breaker);
                self.settings = *settings;
                // The credentials may be others now.
                self.books.login = None;
                self.renounce();
                for it in self.next.iter_mut().chain(&mut self.current) {
                    it.due = now.local;
                }
            }
            Order::Stop => {
                self.wanted.clear();
                self.let_go("stopped");
            }
        }
    }

    /// Hands something to a connection's session and does what that says; tells whether that was
    /// rows, and nothing else.
    fn feed(&mut self, now: Now, conn: u64, what: session::Input) -> bool {
        let Some(it) = self.find(conn) else { return true };
        let mut acked = it.session.acked().len();
        it.session.on(now, what);
        let (mut rows, mut others) = (false, false);
        while let Some(effect) = self.find(conn).and_then(|it| it.session.next()) {
            acked += usize::from(matches!(effect, session::Effect::Acked(_)));
            let first = self.take(now.local, conn, effect);
            rows |= first.is_some();
            others |= first != Some(false);
        }
        // What a session does not have any more, only its count tells.
        self.stale |= self.find(conn).is_none_or(|it| it.session.acked().len() != acked);
        rows && !others
    }

    /// Does what a session says; of rows it tells whether they were the first.
    fn take(&mut self, now: Millis, conn: u64, effect: session::Effect) -> Option<bool> {
        match effect {
            session::Effect::Rows { series, rows, refused } => {
                self.effects.push_back(Effect::Rows { series, rows, refused });
                return Some(self.prove(conn));
            }
            session::Effect::Send(request) => self.effects.push_back(Effect::Send(conn, request)),
            session::Effect::Acked(series) => self.acked(now, conn, series),
            session::Effect::Refused { series, cause } => self.refuse(now, conn, series, &cause),
            session::Effect::LoginRefused(cause) => {
                self.log(Level::Info, format!("connection {conn} goes on without login: {cause}"));
                self.books.failed(now, cause.to_string());
                self.books.login = Some(cause.to_string());
            }
            session::Effect::Beat { rtt_ms } => self.books.rtt_ms = Some(rtt_ms),
            session::Effect::Garbled(cause) => {
                self.log(Level::Debug, format!("connection {conn}: {cause}"));
                self.books.failed(now, cause.to_string());
            }
            session::Effect::Replace(said) => {
                self.log(Level::Info, format!("connection {conn} is to be replaced: {said}"));
                if let Some(it) = self.find(conn) {
                    it.due = it.due.min(now);
                }
            }
            session::Effect::Notice(said) => {
                self.log(Level::Debug, format!("connection {conn}: {said}"));
            }
            session::Effect::Close(cause) => {
                let fate = match cause {
                    Cause::Silent { .. } => Fate::Silent,
                    _ if cause.policy() == StreamPolicy::TooMany => Fate::TooMany,
                    _ => Fate::Broken,
                };
                self.end(now, conn, cause.to_string(), fate);
            }
        }
        None
    }

    /// Data came over a connection; tells whether for the first time.
    fn prove(&mut self, conn: u64) -> bool {
        let Some(it) = self.find(conn) else { return false };
        let first = !std::mem::replace(&mut it.has_data, true);
        if first {
            self.breaker.data();
            self.stale = true;
        }
        first
    }

    /// The next one first: if the current one ends, it is ready to take its place.
    fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.next.iter().chain(&self.current)
    }

    fn numbers(&self) -> Vec<u64> {
        self.connections().map(|it| it.number).collect()
    }

    fn find(&mut self, conn: u64) -> Option<&mut Connection> {
        let mut all = self.next.iter_mut().chain(&mut self.current);
        all.find(|it| it.number == conn)
    }

    fn is_current(&self, conn: u64) -> bool {
        self.current.as_ref().is_some_and(|it| it.number == conn)
    }

    fn is_up(&self) -> bool {
        self.current.as_ref().is_some_and(|it| it.since.is_some())
    }

    fn report(&mut self, report: Report) {
        self.effects.push_back(Effect::Report(report));
    }

    fn log(&mut self, level: Level, text: String) {
        self.effects.push_back(Effect::Log(level, text));
    }
}

#[cfg(test)]
mod tests;
