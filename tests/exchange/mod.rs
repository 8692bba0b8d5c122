//! The fixture exchange: OKX's REST interface and its stream on loopback, with their rules and
//! their faults.
//!
//! It has a market of its own, made of a seed or of a candle file, on a clock that the test sets.
//! It keeps a journal of what it was asked, and it is the oracle: `truth` gives the closed bars
//! it has, and dropping an exchange whose rules were broken fails the test.
//!
//! ```text
//! let exchange = Exchange::builder()
//!     .synthetic("BTC-USDT", Listed::days(3))
//!     .faults(vec![Script::every(5, Fault::failures()).on(Endpoint::History)])
//!     .start();
//! // … a client works against exchange.url() …
//! let truth = exchange.truth("BTC-USDT", "1H", 0, exchange.now());
//! ```
//!
//! The stream is on the same port, `exchange.ws_url()` with a path. Its faults strike at run time
//! or by a plan, and tests wait for what they want to see:
//!
//! ```text
//! exchange.wait_for(|stats| stats.pushes() > 0, Duration::from_secs(20), "the first push");
//! exchange.strike(StreamFault::Drop);
//! exchange.strike(Strike::new(StreamFault::Silence).lasting(10_000).on_present());
//! exchange.heal();
//! ```

// Each program that includes this module uses another part of it.
#![allow(dead_code, unused_imports)]

mod bell;
mod builder;
mod clock;
mod control;
mod dice;
mod faults;
mod file;
mod gate;
mod grid;
mod http;
mod journal;
mod listing;
mod market;
mod rest;
mod row;
mod rules;
mod stream;
mod synthetic;
#[cfg(test)]
mod tests;
mod tls;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use gate::Gate;
use http::{Answer, Face, Head, Server};
use rest::Core;
use stream::Pusher;
use tls::Authority;
use wire::Wire;

pub use builder::{Builder, Listed};
pub use clock::DEFAULT_START_MS;
pub use control::{COMMANDS, obey};
pub use faults::{Fault, Faults, Script};
pub use file::{Base, FileError};
pub use grid::{BARS, Bar, DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
pub use journal::Request;
pub use listing::{Halt, Listing};
pub use row::Row;
pub use rules::{Ask, Endpoint, Rule, Violation};
pub use stream::{
    Closed, Connection, Garbage, Message, Party, Refuse, Series, Stats, StreamFault, Strike,
};

/// The guard of a lock of this module, none of which is held where a panic can happen by design.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().expect("because no holder of this lock panics")
}

/// A running exchange. Dropping it ends its threads, and fails the test if a rule was broken.
pub struct Exchange {
    core: Arc<Core>,
    address: SocketAddr,
    authority: Option<Authority>,
    latency_ms: u64,
    server: Mutex<Option<Server>>,
    pusher: Mutex<Option<Pusher>>,
    lenient: AtomicBool,
}

/// Both faces of the exchange.
struct Faces(Arc<Core>);

impl Face for Faces {
    fn answer(&self, head: &Head) -> Answer {
        self.0.answer(head)
    }

    fn upgrade(&self, head: &Head, wire: Wire, pending: Vec<u8>, gate: &Gate) {
        stream::serve(&self.0, head, wire, pending, gate);
    }
}

impl Exchange {
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Where to reach it, without a slash at the end.
    pub fn url(&self) -> String {
        match self.authority {
            Some(_) => format!("https://localhost:{}", self.address.port()),
            None => format!("http://{}", self.address),
        }
    }

    /// Where its stream is, without the path.
    pub fn ws_url(&self) -> String {
        self.url().replacen("http", "ws", 1)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the authority, for a client to trust.
    ///
    /// # Panics
    /// When the exchange was started without TLS.
    pub fn ca_pem(&self) -> &str {
        &self.authority.as_ref().expect("because the test asked for TLS").ca_pem
    }

    /// The exchange's time, Unix ms.
    pub fn now(&self) -> i64 {
        self.core.clock.now()
    }

    pub fn set_now(&self, exchange_ms: i64) {
        self.core.clock.set(exchange_ms);
    }

    pub fn advance(&self, by_ms: i64) {
        self.core.clock.advance(by_ms);
    }

    pub fn set_speed(&self, speed: f64) {
        self.core.clock.set_speed(speed);
    }

    /// Replaces all scripts; an empty list heals the exchange.
    pub fn set_faults(&self, scripts: Vec<Script>) {
        *held(&self.core.faults) = Faults::new(scripts);
    }

    /// Adds a script behind those there are.
    pub fn add_fault(&self, script: Script) {
        held(&self.core.faults).add(script);
    }

    /// Lets a fault strike the stream, at once unless the strike says when.
    pub fn strike(&self, strike: impl Into<Strike>) {
        self.core.hub.strike(strike.into());
    }

    /// Ends all faults of the stream and cancels those to come; what is broken stays so.
    pub fn heal(&self) {
        self.core.hub.heal();
    }

    /// What has happened on the stream so far.
    pub fn stats(&self) -> Stats {
        self.core.hub.stats()
    }

    /// Candles that the stream has sent, over all connections.
    pub fn pushes(&self) -> u64 {
        self.core.hub.read(Stats::pushes)
    }

    /// The open times of the bars whose closing pushes were sent, in that order.
    pub fn confirmed_pushed(&self, symbol: &str, bar: &str) -> Vec<i64> {
        self.core.hub.read(|stats| stats.confirmed_pushed(symbol, bar))
    }

    /// Waits until `holds` for what happened on the stream; it is asked at each change, and must
    /// not panic.
    ///
    /// # Panics
    /// When that does not come about `within` that time; `what` says what was waited for.
    pub fn wait_for(&self, holds: impl FnMut(&Stats) -> bool, within: Duration, what: &str) {
        if self.core.hub.wait(within, holds) {
            return;
        }
        let stats = self.stats();
        let (open, series) = (stats.open(), stats.subscriptions().len());
        panic!(
            "waited {within:?} for {what}: {} connections so far, {open} open with {series} \
             series, {} pushes, the last end was {:?}",
            stats.upgraded(),
            stats.pushes(),
            stats.last_closed(),
        );
    }

    /// Ended bars stay unconfirmed, out of the history and without closing push, for so long.
    pub fn set_late_confirm(&self, ms: i64) {
        held(&self.core.market).late_confirm_ms = ms;
    }

    /// The exchange never had the base bars of `[start, end)`.
    pub fn hole(&self, symbol: &str, start: i64, end: i64) {
        self.listing(symbol, |listing| listing.add_hole(start, end));
    }

    /// The closed bar at `row.ts` has these values from now on.
    pub fn revise(&self, symbol: &str, bar: &str, row: Row) {
        self.listing(symbol, |listing| listing.revise(Bar::named(bar), row));
    }

    /// The instrument has no new bars from that time on.
    pub fn halt(&self, symbol: &str, from: i64, halt: Halt) {
        self.listing(symbol, |listing| listing.set_halt(from, halt));
    }

    /// The closed bars the exchange has in `[start, end)`, oldest first.
    pub fn truth(&self, symbol: &str, bar: &str, start: i64, end: i64) -> Vec<Row> {
        let now = self.now();
        held(&self.core.market).truth(symbol, Bar::named(bar), (start, end), now)
    }

    /// The requests so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        held(&self.core.journal).requests().cloned().collect()
    }

    pub fn count(&self, endpoint: Endpoint) -> usize {
        held(&self.core.journal).count(endpoint)
    }

    /// Waits for what a client does: `met` is tried at each arrival and each answer, and now and
    /// then between them.
    ///
    /// # Panics
    /// When it is still false after two minutes; `what` says what it was about.
    pub fn wait_until(&self, what: &str, met: impl FnMut() -> bool) {
        self.core.bell.wait_until(what, met);
    }

    pub fn violations(&self) -> Vec<Violation> {
        held(&self.core.rules).violations().to_vec()
    }

    /// # Panics
    /// When a client broke a rule.
    pub fn assert_rules_kept(&self) {
        let violations = self.violations();
        let lines: Vec<String> = violations.iter().take(20).map(Violation::to_string).collect();
        let count = violations.len();
        assert!(count == 0, "the client broke {count} rules:\n  {}", lines.join("\n  "));
    }

    /// Broken rules do not fail the test when the exchange is dropped.
    pub fn expect_violations(&self) {
        self.lenient.store(true, Ordering::Relaxed);
    }

    /// Closes all connections and the port: the exchange is unreachable until `resume`.
    pub fn stop(&self) {
        // Taken out first: the locks must be free when a panic is passed on.
        let (server, pusher) = (held(&self.server).take(), held(&self.pusher).take());
        let served = server.is_none_or(Server::stop);
        let pushed = pusher.is_none_or(Pusher::stop);
        assert!((served && pushed) || thread::panicking(), "a thread of the exchange panicked");
    }

    /// Opens the same port again after `stop`; market, clock and journal went on.
    ///
    /// # Panics
    /// When somebody else has taken the port meanwhile.
    pub fn resume(&self) {
        let listener = TcpListener::bind(self.address).expect("because the port was ours");
        self.open(listener).expect("because a thread can be started");
    }

    fn open(&self, listener: TcpListener) -> io::Result<()> {
        let tls = self.authority.as_ref().map(|authority| Arc::clone(&authority.server));
        let face = Arc::new(Faces(Arc::clone(&self.core)));
        let server = Server::start(listener, tls, self.latency_ms, face)?;
        *held(&self.server) = Some(server);
        *held(&self.pusher) = Some(Pusher::start(Arc::clone(&self.core))?);
        Ok(())
    }

    fn listing(&self, symbol: &str, act: impl FnOnce(&mut Listing)) {
        let mut market = held(&self.core.market);
        act(market.find(symbol).unwrap_or_else(|| panic!("{symbol} is not listed here")));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop();
        if !thread::panicking() && !self.lenient.load(Ordering::Relaxed) {
            self.assert_rules_kept();
        }
    }
}
