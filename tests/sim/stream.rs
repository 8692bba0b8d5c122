//! The shell of the stream: the real link, and what `src/stream.rs` does around it.

use std::collections::{BTreeSet, VecDeque};

use okx_local_store::link::{Effect, Input, Link, Order, Report};
use okx_local_store::session;
use okx_local_store::store::order::{Order as Storing, Push};
use okx_local_store::stream::Outbox;
use okx_local_store::time::{Millis, Now};

use crate::floor::line_of;
use crate::process::Heard;
use crate::stage::{Event, Lane, Stage, ToClient, ToExchange, note};
use crate::writer::Writer;

/// A message to the supervisor takes so long at the most.
const HOP_MS: Millis = 4;
/// A deadline that stays due for so many rounds at one moment makes a loop without a wait.
const SPINS_MAX: u32 = 50;

pub struct Stream {
    link: Link,
    sockets: BTreeSet<u64>,
    dial: Option<u64>,
    outbox: Outbox,
    /// Whether a closed bar waits for room.
    is_stuck: bool,
    /// What has come meanwhile.
    inbox: VecDeque<ToClient>,
    /// The number of its wait, and the end of that.
    wait: (u64, Millis),
    spins: (Millis, u32),
}

impl Stream {
    pub fn new(link: Link) -> Stream {
        Stream {
            link,
            sockets: BTreeSet::new(),
            dial: None,
            outbox: Outbox::default(),
            is_stuck: false,
            inbox: VecDeque::new(),
            wait: (0, Millis::MAX),
            spins: (Millis::MIN, 0),
        }
    }

    /// Something has come, or the wait is over.
    pub fn on(
        &mut self,
        stage: &mut Stage,
        life: u64,
        now: Now,
        what: ToClient,
        writer: &mut Writer,
    ) {
        if let ToClient::Stream(wait) = what {
            if wait != self.wait.0 {
                return;
            }
            self.wait.1 = Millis::MAX;
        }
        self.inbox.push_back(what);
        self.go_on(stage, life, now, writer);
    }

    /// Does what is left to do, unless a closed bar still waits for room.
    pub fn go_on(&mut self, stage: &mut Stage, life: u64, now: Now, writer: &mut Writer) {
        self.is_stuck &= writer.keeps_stream();
        self.drain(stage, life, now, writer);
        while !self.is_stuck
            && let Some(what) = self.inbox.pop_front()
        {
            self.take_in(stage, life, now, what);
            self.drain(stage, life, now, writer);
        }
        self.post(stage, life, now, writer);
        self.wait_on(stage, life, now);
    }

    fn take_in(&mut self, stage: &mut Stage, life: u64, now: Now, what: ToClient) {
        let heard = |conn, what| Input::Heard { conn, what };
        match what {
            ToClient::Wish(order) => {
                note!(stage, "stream: is told {}", shown(&order));
                self.link.on(now, Input::Order(order));
            }
            ToClient::Dialled(conn, result) if self.dial == Some(conn) => {
                self.dial = None;
                match result {
                    Ok(()) => {
                        self.sockets.insert(conn);
                        self.link.on(now, Input::Dialled { conn });
                    }
                    Err(why) => self.link.on(now, Input::Ended { conn, cause: why.to_owned() }),
                }
            }
            // Nobody wants it any more.
            ToClient::Dialled(conn, Ok(())) => self.hang_up(stage, life, conn),
            ToClient::Dialled(..) => {}
            ToClient::Text(conn, text) if self.sockets.contains(&conn) => {
                self.link.on(now, heard(conn, session::Input::Text(&text)));
            }
            ToClient::Binary(conn) if self.sockets.contains(&conn) => {
                self.link.on(now, heard(conn, session::Input::Binary));
            }
            ToClient::Closed(conn, code) if self.sockets.contains(&conn) => {
                let closed = session::Input::Closed { code: Some(code), reason: "model" };
                self.link.on(now, heard(conn, closed));
            }
            ToClient::Broke(conn) if self.sockets.contains(&conn) => {
                self.link.on(now, Input::Ended { conn, cause: "it broke".to_owned() });
            }
            ToClient::Stream(_) if self.link.deadline().is_some_and(|due| due <= now.local) => {
                self.link.on(now, Input::Tick);
            }
            _ => {}
        }
    }

    fn drain(&mut self, stage: &mut Stage, life: u64, now: Now, writer: &mut Writer) {
        while !self.is_stuck
            && let Some(effect) = self.link.next()
        {
            self.act(stage, life, now, effect, writer);
        }
    }

    fn act(&mut self, stage: &mut Stage, life: u64, now: Now, effect: Effect, writer: &mut Writer) {
        match effect {
            Effect::Rows { series, rows, refused } => {
                let (arrived, at) = (now.local, now.exchange);
                let push = self.outbox.join(Push { series, rows, refused, arrived, at });
                if push.rows.iter().any(|row| row.confirmed) {
                    writer.take(stage, life, now, Storing::Push(push));
                    self.is_stuck = writer.keeps_stream();
                } else {
                    self.offer(stage, life, now, push, writer);
                }
            }
            Effect::Send(conn, request) => {
                if self.sockets.contains(&conn) {
                    let (line, text) = (line_of(life, conn), request.as_str().to_owned());
                    let travel_ms = 1 + stage.draw(30);
                    let said = Event::Exchange(ToExchange::Said { line, text });
                    stage.post_in(Lane::Up(line), travel_ms, said);
                }
            }
            Effect::Dial(conn) => {
                note!(stage, "stream: dials {conn}");
                self.dial = Some(conn);
                let travel_ms = 1 + stage.draw(30);
                stage.post(travel_ms, Event::Exchange(ToExchange::Connect { life, conn }));
            }
            Effect::HangUp(conn) => {
                self.dial.take_if(|dial| *dial == conn);
                if self.sockets.remove(&conn) {
                    self.hang_up(stage, life, conn);
                }
            }
            Effect::Report(report) => {
                if !matches!(report, Report::Health(_)) {
                    let after_ms = stage.draw(HOP_MS);
                    let heard = ToClient::Heard(Heard::Streamed(report));
                    stage.post_in(Lane::Streamed, after_ms, Event::Client(life, heard));
                }
            }
            Effect::Log(_, text) => note!(stage, "stream: {text}"),
        }
    }

    fn hang_up(&mut self, stage: &mut Stage, life: u64, conn: u64) {
        let line = line_of(life, conn);
        stage.post_in(Lane::Up(line), 1, Event::Exchange(ToExchange::HungUp { line }));
    }

    fn offer(
        &mut self,
        stage: &mut Stage,
        life: u64,
        now: Now,
        push: Push,
        writer: &mut Writer,
    ) -> bool {
        match writer.offer(stage, life, now, Storing::Push(push)) {
            Some(Storing::Push(push)) => {
                self.outbox.keep(push);
                false
            }
            _ => true,
        }
    }

    /// Hands on what waits, as far as there is room.
    fn post(&mut self, stage: &mut Stage, life: u64, now: Now, writer: &mut Writer) {
        while !self.is_stuck
            && let Some(push) = self.outbox.pop()
        {
            if !self.offer(stage, life, now, push, writer) {
                break;
            }
        }
    }

    fn wait_on(&mut self, stage: &mut Stage, life: u64, now: Now) {
        let Some(due) = self.link.deadline() else { return };
        if due <= now.local {
            let (at, spins) = self.spins;
            self.spins = (now.local, if at == now.local { spins + 1 } else { 1 });
            assert!(self.spins.1 < SPINS_MAX, "the stream would spin");
        }
        let after_ms = due.saturating_sub(now.local).max(0);
        let at = stage.at.saturating_add(after_ms);
        if at < self.wait.1 && !self.is_stuck {
            self.wait = (self.wait.0 + 1, at);
            stage.post(after_ms, Event::Client(life, ToClient::Stream(self.wait.0)));
        }
    }
}

fn shown(order: &Order) -> String {
    match order {
        Order::Want(series) => format!("to want {} series", series.len()),
        Order::Renew(series) => format!("to renew {} series", series.len()),
        Order::Reconnect(cause) => format!("to reconnect: {cause}"),
        Order::Configure(_) => "other settings".to_owned(),
        Order::Hasten => "to try at once".to_owned(),
        Order::Stop => "to stop".to_owned(),
    }
}
