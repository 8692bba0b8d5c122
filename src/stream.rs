//! The stream: the one thread that holds the connections to it.
//!
//! It hears orders from the supervisor, hands the states of bars to the writer, and tells the
//! supervisor what is streamed. What to do is [`Link`]'s to say: here it is only done.
//!
//! **Invariant:** an order is obeyed within a fraction of a second, whatever the network does: what
//! can take long, to connect, is done on another thread. While the writer has no room, a stop is.
//!
//! **Invariant:** what the exchange closed reaches the writer, for which this thread waits. Of
//! running bars the newest state waits for room; nothing that waits grows with time.

mod dial;
mod outbox;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, never, select};
use log::log;

use crate::link::{Effect, Input, Link};
use crate::session;
use crate::socket::{Frame, Socket, SocketError, SocketOptions};
use crate::store::order::{Order as Storing, Push};
use crate::stream::dial::{Dial, NORMAL};
use crate::thread::{End, Exit};
use crate::time::{Clock, Deadline, Millis, Now, SECOND};

pub use crate::link::{Health, Order, Report};
pub use crate::stream::outbox::Outbox;

/// The thread's name.
pub const NAME: &str = "stream";

/// A connection is listened to so long before orders are looked at.
const LISTEN_MS: Millis = 100;
/// The same for each of two, or while another one is being made.
const LISTEN_BOTH_MS: Millis = 10;
/// So many frames are read from one connection before the other one has its turn.
const FRAMES_MAX: usize = 256;
/// How often the health is told where nothing of substance has changed.
const HEALTH_MS: Millis = SECOND;
/// Orders that are heard while the writer, or the supervisor, has no room.
const ORDERS_MAX: usize = 64;

/// What the stream works with.
pub struct Stream {
    /// Whom to connect to.
    pub options: SocketOptions,
    /// The mind.
    pub link: Link,
    /// The clocks.
    pub clock: Arc<Clock>,
    /// Orders from the supervisor.
    pub orders: Receiver<Order>,
    /// States of bars to the writer.
    pub rows: Sender<Storing>,
    /// What is streamed, to the supervisor.
    pub reports: Sender<Report>,
    /// To the supervisor, if the thread of an attempt to connect panics: room for one.
    pub exits: Sender<Exit>,
}

impl Stream {
    /// Works until it is told to stop, or nobody gives orders or takes the results any more.
    pub fn run(self) {
        let mut line = Line {
            stream: self,
            sockets: Vec::new(),
            dial: None,
            outbox: Outbox::default(),
            aside: VecDeque::new(),
            is_stopping: false,
            shown: Health::default(),
            health_at: Millis::MIN,
        };
        while line.turn().is_ok() {}
        line.close();
    }
}

/// The thread is to end.
struct Over;

/// The stream with its connections.
struct Line {
    stream: Stream,
    /// Those that stand, with their numbers.
    sockets: Vec<(u64, Socket)>,
    dial: Option<Dial>,
    outbox: Outbox,
    /// Orders that were heard while something else had to be done first.
    aside: VecDeque<Order>,
    is_stopping: bool,
    /// The health that was told last, and when it is to be told again.
    shown: Health,
    health_at: Millis,
}

impl Line {
    /// One round of hearing and doing.
    fn turn(&mut self) -> Result<(), Over> {
        self.obey()?;
        self.post()?;
        if self.sockets.is_empty() {
            self.wait()?;
        } else {
            self.listen()?;
            self.look_after_dial()?;
        }
        if self.stream.link.deadline().is_some_and(|due| due <= self.stream.clock.now().local) {
            self.on(Input::Tick)?;
        }
        self.show()
    }

    /// Obeys the orders that have come.
    fn obey(&mut self) -> Result<(), Over> {
        loop {
            let order = match self.aside.pop_front() {
                Some(order) => order,
                None => match self.stream.orders.try_recv() {
                    Ok(order) => order,
                    Err(TryRecvError::Empty) => return Ok(()),
                    Err(TryRecvError::Disconnected) => return Err(Over),
                },
            };
            self.order(order)?;
        }
    }

    fn order(&mut self, order: Order) -> Result<(), Over> {
        self.is_stopping |= matches!(order, Order::Stop);
        self.on(Input::Order(order))?;
        if self.is_stopping { Err(Over) } else { Ok(()) }
    }

    /// Tells the mind what has happened, and does what it says.
    fn on(&mut self, input: Input) -> Result<(), Over> {
        let now = self.stream.clock.now();
        self.stream.link.on(now, input);
        while let Some(effect) = self.stream.link.next() {
            self.act(now, effect)?;
        }
        Ok(())
    }

    fn act(&mut self, now: Now, effect: Effect) -> Result<(), Over> {
        match effect {
            Effect::Rows { series, rows, refused } => {
                let (arrived, at) = (now.local, now.exchange);
                return self.push(Push { series, rows, refused, arrived, at });
            }
            Effect::Send(conn, request) => {
                let Some((_, socket)) = self.sockets.iter_mut().find(|(it, _)| *it == conn) else {
                    return Ok(());
                };
                if let Err(error) = socket.send(request.as_str()) {
                    return self.on(Input::Ended { conn, cause: error.to_string() });
                }
                return Ok(());
            }
            Effect::Dial(conn) => match Dial::start(conn, self.stream.options.clone()) {
                Ok(dial) => self.dial = Some(dial),
                Err(error) => {
                    let cause = format!("WebSocketConnectionError: no thread to connect: {error}");
                    return self.on(Input::Ended { conn, cause });
                }
            },
            Effect::HangUp(conn) => {
                self.dial.take_if(|dial| dial.conn == conn);
                for (_, socket) in self.sockets.extract_if(.., |(it, _)| *it == conn) {
                    socket.close(NORMAL);
                }
            }
            Effect::Report(report) => self.send(|stream| &stream.reports, report)?,
            Effect::Log(level, text) => log!(target: NAME, level, "{text}"),
        }
        self.health_at = now.local;
        Ok(())
    }

    /// Hands states of bars to the writer.
    fn push(&mut self, push: Push) -> Result<(), Over> {
        let push = self.outbox.join(push);
        if push.rows.iter().any(|row| row.confirmed) {
            return self.send(|stream| &stream.rows, Storing::Push(push));
        }
        self.offer(push).map(drop)
    }

    /// Hands on what waits, as far as there is room.
    fn post(&mut self) -> Result<(), Over> {
        while let Some(push) = self.outbox.pop() {
            if !self.offer(push)? {
                break;
            }
        }
        Ok(())
    }

    /// Hands on states of running bars if there is room, or else keeps them; tells whether there
    /// was.
    fn offer(&mut self, push: Push) -> Result<bool, Over> {
        match self.stream.rows.try_send(Storing::Push(push)) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(Storing::Push(push))) => {
                self.outbox.keep(push);
                Ok(false)
            }
            Err(_) => Err(Over),
        }
    }

    /// Sends, however long there is no room, and puts aside what is ordered meanwhile; but a stop
    /// is not kept waiting.
    fn send<T>(&mut self, to: fn(&Stream) -> &Sender<T>, message: T) -> Result<(), Over> {
        let to = to(&self.stream);
        let message = match to.try_send(message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(message)) if !self.is_stopping => message,
            Err(_) => return Err(Over),
        };
        let none = never();
        loop {
            let has_room = self.aside.len() < ORDERS_MAX;
            select! {
                send(to, message) -> sent => return sent.map_err(|_| Over),
                recv(if has_room { &self.stream.orders } else { &none }) -> order => match order {
                    Ok(Order::Stop) | Err(_) => return Err(Over),
                    Ok(order) => self.aside.push_back(order),
                },
            }
        }
    }

    /// Reads what has come over the connections that stand.
    fn listen(&mut self) -> Result<(), Over> {
        let alone = self.sockets.len() == 1 && self.dial.is_none();
        let longest_ms = if alone { LISTEN_MS } else { LISTEN_BOTH_MS };
        let numbers: Vec<u64> = self.sockets.iter().map(|(conn, _)| *conn).collect();
        for conn in numbers {
            // Never less than a moment: a frame that came while this thread waited for something
            // else shows that the connection lives, before its silence is judged.
            self.read(conn, self.left_ms(longest_ms).max(1))?;
        }
        Ok(())
    }

    fn read(&mut self, conn: u64, wait_ms: Millis) -> Result<(), Over> {
        let mut until = Deadline::after(wait_ms);
        for _ in 0..FRAMES_MAX {
            let Some((_, socket)) = self.sockets.iter_mut().find(|(it, _)| *it == conn) else {
                break;
            };
            match socket.read(until) {
                Ok(Some(frame)) => self.hear(conn, frame)?,
                Ok(None) => break,
                Err(error) => return self.on(Input::Ended { conn, cause: error.to_string() }),
            }
            self.obey()?;
            // What has arrived already is taken along: a connection that is about to be left is
            // not to be left with rows unread.
            until = Deadline::after(1);
        }
        Ok(())
    }

    fn hear(&mut self, conn: u64, frame: Frame) -> Result<(), Over> {
        let what = match &frame {
            Frame::Text(text) => session::Input::Text(text),
            Frame::Binary => session::Input::Binary,
            Frame::Control => session::Input::Control,
            Frame::Close { code, reason } => {
                session::Input::Closed { code: Some(*code), reason: reason.as_str() }
            }
        };
        self.on(Input::Heard { conn, what })
    }

    /// Waits for an order or a connection, where there is none to listen to.
    fn wait(&mut self) -> Result<(), Over> {
        let longest_ms = if self.outbox.is_empty() { HEALTH_MS } else { LISTEN_MS };
        let wait = Duration::from_millis(self.left_ms(longest_ms).unsigned_abs());
        let orders = self.stream.orders.clone();
        let done = self.dial.as_ref().map_or_else(never, |dial| dial.done.clone());
        select! {
            recv(orders) -> order => self.order(order.map_err(|_| Over)?),
            recv(done) -> result => self.dialled(result.ok()),
            default(wait) => Ok(()),
        }
    }

    /// How long nothing is due, at most so long.
    fn left_ms(&self, longest_ms: Millis) -> Millis {
        let now = self.stream.clock.now().local;
        let due = self.stream.link.deadline();
        due.map_or(longest_ms, |due| due.saturating_sub(now).clamp(0, longest_ms))
    }

    /// Looks whether the attempt to connect is over.
    fn look_after_dial(&mut self) -> Result<(), Over> {
        let Some(dial) = &self.dial else { return Ok(()) };
        match dial.done.try_recv() {
            Ok(result) => self.dialled(Some(result)),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => self.dialled(None),
        }
    }

    /// The attempt to connect is over; without a result its thread has panicked.
    fn dialled(&mut self, result: Option<Result<Socket, SocketError>>) -> Result<(), Over> {
        let Some(Dial { conn, exits, .. }) = self.dial.take() else { return Ok(()) };
        match result {
            Some(Ok(socket)) => {
                self.sockets.push((conn, socket));
                self.on(Input::Dialled { conn })
            }
            Some(Err(error)) => self.on(Input::Ended { conn, cause: error.to_string() }),
            None => {
                let panic = exits.recv().ok().filter(|exit| exit.end != End::Done);
                // If nobody hears it, the process is ending anyway.
                let _ = panic.map(|exit| self.stream.exits.try_send(exit));
                Err(Over)
            }
        }
    }

    /// Tells how the stream is, if that is due and there is room.
    fn show(&mut self) -> Result<(), Over> {
        let now = self.stream.clock.now().local;
        if now < self.health_at {
            return Ok(());
        }
        let health = self.stream.link.health(now);
        if health != self.shown {
            match self.stream.reports.try_send(Report::Health(health.clone())) {
                Ok(()) => self.shown = health,
                Err(TrySendError::Full(_)) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(Over),
            }
        }
        self.health_at = now + HEALTH_MS;
        Ok(())
    }

    fn close(self) {
        for (_, socket) in self.sockets {
            socket.close(NORMAL);
        }
    }
}
