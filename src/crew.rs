//! The threads of a run: started in one place, and joined in one place.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, never};

use crate::audience::Audience;
use crate::auditor::Auditor;
use crate::control::Action;
use crate::desk::{Call, Desk, DeskHandle};
use crate::engine::{EngineError, Setup, io_error};
use crate::http::Http;
use crate::instrument::Series;
use crate::link::Link;
use crate::poller::{self, Poller};
use crate::signal::{self, Signal, SignalHandle};
use crate::socket::SocketOptions;
use crate::store::files::Files;
use crate::store::order::Order;
use crate::stream::{self, Stream};
use crate::supervisor::{Ending, Ports};
use crate::thread::{self, Exit};
use crate::time::Clock;
use crate::writer::{self, Receipt, Writer};

/// Pages that wait for the writer: a few rounds of all pollers, so that a slow commit holds back
/// requests rather than filling memory.
const PAGES_WAITING: usize = 64;
/// Receipts that wait for the supervisor, which is never busy for long.
const RECEIPTS_WAITING: usize = 256;
/// Orders that wait for the stream, which takes them several times a second.
const ORDERS_WAITING: usize = 16;
/// Reports of the stream that wait: it reports each series of a subscription.
const STREAMED_WAITING: usize = 256;
/// Counted series that wait, each with its result.
const AUDITS_WAITING: usize = 16;
/// Series that wait to be counted: as many as a command may name.
pub const TO_AUDIT: usize = 10_000;
/// Ends of threads that wait: of those that last, and of those that come and go.
const EXITS_WAITING: usize = 64;

/// What a daemon has beside a command.
pub struct Live {
    /// How to connect to the stream.
    pub socket: SocketOptions,
    /// How it is led.
    pub link: Link,
    /// Rows that wait between the stream and the writer.
    pub rows_waiting: usize,
    /// The series that are counted in the background.
    pub to_audit: Vec<Series>,
    /// Series that somebody wants counted.
    pub audits: Receiver<Series>,
    /// Where commands come to.
    pub desk: Option<Desk>,
    /// What they and the program around this ask for.
    pub calls: (Sender<Call>, Receiver<Call>),
    /// Who else hears of what is on disk.
    pub audience: Arc<Audience>,
}

/// Where the wish to stop comes from.
pub enum Wishes {
    /// From the process's signals, which end the process no longer then.
    Signals,
    /// From the program around this, whose signals are its own.
    Program(Receiver<Signal>),
}

/// The threads.
pub struct Crew {
    exits: Sender<Exit>,
    writer: Option<JoinHandle<()>>,
    hands: Vec<JoinHandle<()>>,
    /// They end with this value.
    signals: Option<SignalHandle>,
    desk: Option<DeskHandle>,
}

impl Crew {
    /// Starts them; `live` for a daemon.
    pub fn start(
        setup: &Setup,
        http: &Http,
        clock: &Arc<Clock>,
        wishes: Wishes,
        live: Option<Live>,
    ) -> Result<(Crew, Ports), EngineError> {
        let (exits, ends) = bounded(EXITS_WAITING);
        let mut crew = Crew { exits, writer: None, hands: Vec::new(), signals: None, desk: None };
        let hurry = Arc::new(AtomicBool::new(false));
        let room = live.as_ref().map_or(PAGES_WAITING, |live| live.rows_waiting);
        let (notes, orders) = bounded(room);
        let audience = live.as_ref().map(|live| live.audience.clone());
        let receipts = crew.start_writer(setup, clock, orders, &hurry, audience)?;
        let (actions, reports) = crew.start_pollers(setup, http, clock, &notes)?;
        let signals = match wishes {
            Wishes::Signals => crew.listen(live.is_some()),
            Wishes::Program(wishes) => wishes,
        };
        let mut ports = Ports {
            actions: Some(actions),
            stream: None,
            notes: Some(notes),
            hurry,
            reports,
            streamed: never(),
            receipts,
            audits: never(),
            calls: never(),
            signals,
            exits: ends,
        };
        if let Some(live) = live {
            crew.start_live(setup, clock, live, &mut ports)?;
        }
        Ok((crew, ports))
    }
}

impl Crew {
    fn start_writer(
        &mut self,
        setup: &Setup,
        clock: &Arc<Clock>,
        orders: Receiver<Order>,
        hurry: &Arc<AtomicBool>,
        audience: Option<Arc<Audience>>,
    ) -> Result<Receiver<Receipt>, EngineError> {
        let (receipts, heard) = bounded(RECEIPTS_WAITING);
        let writer = Writer {
            files: Files::new(&setup.data_dir, setup.identity.clone()),
            clock: clock.clone(),
            orders,
            receipts,
            commit_interval_ms: setup.commit_interval_ms,
            patient: audience.is_some(),
            audience: audience.unwrap_or_default(),
            hurry: hurry.clone(),
        };
        self.writer = Some(self.spawn(writer::NAME, move || writer.run())?);
        Ok(heard)
    }

    fn start_pollers(
        &mut self,
        setup: &Setup,
        http: &Http,
        clock: &Arc<Clock>,
        pages: &Sender<Order>,
    ) -> Result<(Sender<Action>, Receiver<poller::Report>), EngineError> {
        // An order for each poller can wait: the supervisor never has more under way.
        let (actions, orders) = bounded(setup.workers);
        // Each poller can leave a report and go on to the next order.
        let (reports, heard) = bounded(2 * setup.workers);
        for number in 1..=setup.workers {
            let poller = Poller {
                http: http.clone(),
                clock: clock.clone(),
                orders: orders.clone(),
                pages: pages.clone(),
                reports: reports.clone(),
            };
            let hand = self.spawn(&format!("poll-{number}"), move || poller.run())?;
            self.hands.push(hand);
        }
        Ok((actions, heard))
    }

    /// Without signals a run is only harder to stop.
    fn listen(&mut self, reloads: bool) -> Receiver<Signal> {
        let exits = self.exits.clone();
        let listening =
            signal::listen(reloads, |work| thread::spawn("signal", &exits, work).map(drop));
        match listening {
            Ok((handle, signals)) => {
                self.signals = Some(handle);
                signals
            }
            Err(error) => {
                log::warn!(target: "signal", "signals are not heard: {error}");
                never()
            }
        }
    }

    fn start_live(
        &mut self,
        setup: &Setup,
        clock: &Arc<Clock>,
        live: Live,
        ports: &mut Ports,
    ) -> Result<(), EngineError> {
        let (orders, stream_orders) = bounded(ORDERS_WAITING);
        let (reports, streamed) = bounded(STREAMED_WAITING);
        let rows = ports.notes.clone().expect("because the run has not begun to end");
        let stream = Stream {
            options: live.socket,
            link: live.link,
            clock: clock.clone(),
            orders: stream_orders,
            rows,
            reports,
            exits: self.exits.clone(),
        };
        let hand = self.spawn(stream::NAME, move || stream.run())?;
        self.hands.push(hand);
        (ports.stream, ports.streamed) = (Some(orders), streamed);

        let (audits, heard) = bounded(AUDITS_WAITING);
        let auditor = Auditor {
            data_dir: setup.data_dir.clone(),
            identity: setup.identity.clone(),
            first: live.to_audit,
            orders: live.audits,
            audits,
        };
        // It only reads, and may be in the middle of a large table: nobody waits for its end.
        self.spawn("audit", move || auditor.run())?;
        ports.audits = heard;

        let (asked, calls) = live.calls;
        if let Some(desk) = live.desk {
            let handle = desk.start(&self.exits, &asked).map_err(io_error("start a thread"))?;
            self.desk = Some(handle);
        }
        ports.calls = calls;
        Ok(())
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, EngineError> {
        thread::spawn(name, &self.exits, work).map_err(io_error("start a thread"))
    }

    /// Waits for the threads, except for those that were left behind on purpose.
    pub fn join(self, ending: &Ending) {
        let hands = if ending.hurried { Vec::new() } else { self.hands };
        for handle in hands.into_iter().chain(self.writer) {
            // A panic was heard of as an exit already.
            let _ = handle.join();
        }
    }
}
