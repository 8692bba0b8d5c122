//! What everything in a run stands on: virtual time, the heap of what is to happen, and chance.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use okx_local_store::control::Action;
use okx_local_store::link;
use okx_local_store::time::{Millis, format_stamp};
use okx_local_store::wire::Answer;

use crate::dice::{Dice, mix_text};
use crate::machine::Machine;
use crate::process::Heard;
use crate::weather::Deed;

/// What is to happen. Who it concerns decides what becomes of it: what a process was to hear is
/// gone with it, and waits while the machine sleeps.
#[derive(Debug)]
pub enum Event {
    /// Something reaches the process with this number.
    Client(u64, ToClient),
    /// Something reaches the exchange.
    Exchange(ToExchange),
    /// The weather changes.
    Deed(Deed),
    /// A process is started.
    Start,
    /// All faults end.
    Heal,
    /// Store and truth are compared.
    Look,
}

/// What reaches a process.
#[derive(Debug)]
pub enum ToClient {
    /// The supervisor's wait is over, if nothing has changed since.
    Supervisor(u64),
    /// The writer's.
    Writer(u64),
    /// The stream's.
    Stream(u64),
    /// A poller has a request to make.
    Order(Action),
    /// A poller hears the answer to its request, or that none comes.
    Answer(u64, Result<Page, &'static str>),
    /// The supervisor hears something.
    Heard(Heard),
    /// The stream is told something.
    Wish(link::Order),
    /// An attempt to connect is over.
    Dialled(u64, Result<(), &'static str>),
    /// A text frame came over a connection.
    Text(u64, String),
    /// A binary frame came.
    Binary(u64),
    /// A connection was closed with this code.
    Closed(u64, u16),
    /// A connection broke.
    Broke(u64),
}

/// What an exchange answers: bytes, or the rows of a good answer that is too long to be written
/// out and read back in a simulation.
#[derive(Debug)]
pub enum Page {
    Bytes(Answer),
    Rows(Vec<okx_local_store::candle::Candle>),
}

/// What reaches the exchange.
#[derive(Debug)]
pub enum ToExchange {
    /// A request for a path, with the process and the ticket to answer to.
    Get { life: u64, ticket: u64, path: String },
    /// Somebody connects to the stream.
    Connect { life: u64, conn: u64 },
    /// A text came over a connection.
    Said { line: u64, text: String },
    /// A connection was left.
    HungUp { line: u64 },
    /// A second has passed.
    Tick,
    /// A connection whose end was announced ends.
    End { line: u64 },
}

/// What travels in one of these keeps its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    Orders,
    Wishes,
    Reports,
    Receipts,
    Streamed,
    /// From the exchange over one connection.
    Down(u64),
    /// To the exchange.
    Up(u64),
}

struct Due {
    at: Millis,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Virtual time, what is to happen in it, and chance. Times are the exchange's own, which are the
/// true ones.
pub struct Stage {
    pub at: Millis,
    pub dice: Dice,
    pub machine: Machine,
    pub trace: Trace,
    heap: BinaryHeap<Reverse<Due>>,
    number: u64,
    lanes: BTreeMap<Lane, Millis>,
}

impl Stage {
    pub fn new(at: Millis, dice: Dice, machine: Machine, trace: Trace) -> Stage {
        let (heap, lanes) = (BinaryHeap::new(), BTreeMap::new());
        Stage { at, dice, machine, trace, heap, number: 0, lanes }
    }

    /// Has something happen after so long.
    pub fn post(&mut self, after_ms: Millis, event: Event) {
        self.number += 1;
        let (at, number) = (self.at + after_ms.max(0), self.number);
        self.heap.push(Reverse(Due { at, number, event }));
    }

    /// The same, but not before what was sent the same way earlier.
    pub fn post_in(&mut self, lane: Lane, after_ms: Millis, event: Event) {
        let at = self.at + after_ms.max(0);
        let last = self.lanes.entry(lane).or_insert(at);
        *last = at.max(*last);
        let after_ms = *last - self.at;
        self.post(after_ms, event);
    }

    /// The next event, whose time it is then. What reaches a machine that sleeps reaches it when it
    /// wakes up, in the same order.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let Reverse(due) = self.heap.pop()?;
            let awake_at = self.machine.awake_at();
            if matches!(due.event, Event::Client(..)) && due.at < awake_at {
                self.heap.push(Reverse(Due { at: awake_at, ..due }));
                continue;
            }
            self.at = due.at;
            return Some(due.event);
        }
    }

    /// A number of milliseconds up to but without that.
    pub fn draw(&mut self, below_ms: Millis) -> Millis {
        if below_ms <= 0 { 0 } else { self.dice.below(below_ms as usize) as Millis }
    }
}

/// Writes a line of the trace; what it would say is worked out only where somebody listens.
macro_rules! note {
    ($stage:expr, $($what:tt)*) => {
        if $stage.trace.is_on() {
            let at = $stage.at;
            $stage.trace.add(at, format_args!($($what)*));
        }
    };
}
pub(crate) use note;

/// What has happened, one line each: counted in a hash, and shown.
#[derive(Default)]
pub struct Trace {
    pub shown: bool,
    pub hashed: bool,
    pub hash: u64,
}

impl Trace {
    pub fn is_on(&self) -> bool {
        self.shown || self.hashed
    }

    pub fn add(&mut self, at: Millis, what: fmt::Arguments<'_>) {
        let line = format!("{} {what}", format_stamp(at));
        self.hash = mix_text(self.hash, &line);
        if self.shown {
            println!("{line}");
        }
    }
}
