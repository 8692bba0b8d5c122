//! The WebSocket face: candles pushed from the same market and on the same clock as by REST.
//!
//! Each connection has a thread, which alone reads and writes its socket. One more thread works
//! out what is pushed and leaves it at the connections' posts.
//!
//! Locks are taken in this order, as far as one is held while another is taken: roll, feeds,
//! market, strikes, a post, stats.

mod deed;
pub mod feed;
mod handshake;
mod link;
mod order;
pub mod post;
mod pusher;
pub mod session;
mod stats;
pub mod strike;
mod tap;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::grid::Bar;
use super::held;
use super::market::Market;
use feed::{Feed, Scene};
use post::{Parcel, Post};
use strike::Strikes;

pub use handshake::serve;
pub use pusher::Pusher;
pub use session::{Credentials, Moment};
pub use stats::{Closed, Connection, Message, Party, Stats};
pub use strike::{Garbage, Refuse, StreamFault, Strike};

/// New connections that an address may open in a second.
const CONNECTS_MAX: usize = 3;
const CONNECTS_WINDOW_MS: u64 = 1_000;

/// An instrument with a bar, the exact name of which the channel has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    pub symbol: String,
    pub bar: &'static str,
}

impl Series {
    /// # Panics
    /// When there is no such bar.
    pub fn named(symbol: &str, bar: &str) -> Self {
        Self { symbol: symbol.to_owned(), bar: Bar::named(bar).name() }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.symbol, self.bar)
    }
}

/// What a builder decides about the stream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The running bar of a series is pushed once in so many real ms.
    pub push_ms: u64,
    /// A connection ends with 4004 when nothing was sent, and no text ping came, for so long.
    pub idle_close_ms: u64,
    pub credentials: Option<Credentials>,
}

/// What the connections and the pusher share.
pub struct Hub {
    pub settings: Settings,
    started: Instant,
    feeds: Mutex<BTreeMap<Series, Feed>>,
    strikes: Mutex<Strikes>,
    roll: Mutex<Roll>,
    stats: Mutex<Stats>,
    changed: Condvar,
}

/// Who is connected, and who was about to be.
#[derive(Default)]
struct Roll {
    newest: u64,
    posts: BTreeMap<u64, Arc<Post>>,
    connects: BTreeMap<IpAddr, VecDeque<u64>>,
}

impl Hub {
    pub fn new(started: Instant, settings: Settings, planned: Vec<Strike>) -> Self {
        let mut strikes = Strikes::default();
        for strike in planned {
            strikes.add(0, strike);
        }
        Self {
            settings,
            started,
            feeds: Mutex::default(),
            strikes: Mutex::new(strikes),
            roll: Mutex::default(),
            stats: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Ms since the exchange started.
    pub fn at_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Plans a strike, and carries it out if it is for now.
    pub fn strike(&self, strike: Strike) {
        held(&self.strikes).add(self.at_ms(), strike);
        self.strike_due();
    }

    pub fn heal(&self) {
        held(&self.strikes).heal();
    }

    /// Carries out what the plan has for now.
    fn strike_due(&self) {
        let at_ms = self.at_ms();
        // Both under the one lock: a connection is there before the strike or it is not.
        let roll = held(&self.roll);
        let due = held(&self.strikes).due(at_ms, roll.newest);
        let posts: Vec<Arc<Post>> = roll.posts.values().cloned().collect();
        drop(roll);
        for fault in due {
            self.note(|stats| stats.strike(at_ms, fault));
            for post in &posts {
                deed::post(fault, post);
            }
            if let StreamFault::Notice { close_after_ms } = fault {
                let last = posts.last().map_or(0, |post| post.id());
                held(&self.strikes).end_links(at_ms.saturating_add(close_after_ms), last);
            }
        }
        let ended = held(&self.strikes).ended_links(at_ms);
        for post in posts.iter().filter(|post| ended.is_some_and(|last| post.id() <= last)) {
            post.put(Parcel::Close(1001));
        }
    }

    /// Counts a connection that wants to be one, and gives it a number. False if its address has
    /// opened too many.
    fn arrive(&self, address: IpAddr, path: &str) -> (u64, bool) {
        let at_ms = self.at_ms();
        let mut roll = held(&self.roll);
        roll.newest += 1;
        let id = roll.newest;
        let connects = roll.connects.entry(address).or_default();
        while connects.front().is_some_and(|&then| then + CONNECTS_WINDOW_MS <= at_ms) {
            connects.pop_front();
        }
        let free = connects.len() < CONNECTS_MAX;
        if free {
            connects.push_back(at_ms);
        }
        drop(roll);
        self.note(|stats| stats.arrive(id, at_ms, path));
        (id, free)
    }

    fn open(&self, id: u64) -> Arc<Post> {
        let post = Arc::new(Post::new(id));
        held(&self.roll).posts.insert(id, Arc::clone(&post));
        self.note(|stats| stats.change(id, |connection| connection.status = 101));
        post
    }

    fn close(&self, id: u64, by: Party, code: Option<u16>) {
        held(&self.roll).posts.remove(&id);
        held(&self.feeds).retain(|_, feed| feed.leave(id));
        let closed = Closed { at_ms: self.at_ms(), by, code };
        self.note(|stats| stats.change(id, |connection| connection.closed = Some(closed)));
    }

    /// Subscribes a connection; what the series is now is at its post.
    fn join(&self, series: &Series, post: &Arc<Post>, clock: &Clock, market: &Mutex<Market>) {
        self.on_scene(clock, market, |feeds, scene| {
            let feed = feeds.entry(series.clone()).or_insert_with(|| Feed::new(series, scene));
            feed.join(post, scene);
        });
        self.note(|stats| {
            stats.change(post.id(), |connection| {
                connection.subscriptions.insert(series.clone());
            });
        });
    }

    fn leave(&self, series: &Series, id: u64) {
        let mut feeds = held(&self.feeds);
        if feeds.get_mut(series).is_some_and(|feed| !feed.leave(id)) {
            feeds.remove(series);
        }
        drop(feeds);
        self.note(|stats| {
            stats.change(id, |connection| {
                connection.subscriptions.remove(series);
            });
        });
    }

    /// Pushes what is due, for all connections.
    fn tick(&self, clock: &Clock, market: &Mutex<Market>) {
        self.strike_due();
        self.on_scene(clock, market, |feeds, scene| {
            feeds.values_mut().for_each(|feed| feed.tick(scene));
        });
    }

    fn on_scene(
        &self,
        clock: &Clock,
        market: &Mutex<Market>,
        act: impl FnOnce(&mut BTreeMap<Series, Feed>, &mut Scene),
    ) {
        let mut feeds = held(&self.feeds);
        let mut market = held(market);
        let strikes = held(&self.strikes);
        let mut scene = Scene {
            at_ms: self.at_ms(),
            exchange_ms: clock.now(),
            push_ms: self.settings.push_ms,
            market: &mut market,
            strikes: &strikes,
        };
        act(&mut feeds, &mut scene);
    }

    /// Changes the books, and wakes whoever waits for that.
    fn note(&self, act: impl FnOnce(&mut Stats)) {
        act(&mut held(&self.stats));
        self.changed.notify_all();
    }

    pub fn stats(&self) -> Stats {
        self.read(Stats::clone)
    }

    pub fn read<T>(&self, act: impl FnOnce(&Stats) -> T) -> T {
        act(&held(&self.stats))
    }

    /// Waits until `holds`. False when the time is over.
    pub fn wait(&self, within: Duration, mut holds: impl FnMut(&Stats) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut stats = held(&self.stats);
        while !holds(&stats) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.changed.wait_timeout(stats, left);
            stats = woken.expect("because no holder of this lock panics").0;
        }
        true
    }
}
