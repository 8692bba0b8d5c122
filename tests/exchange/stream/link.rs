//! One connection from its upgrade to its end.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Data};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes};

use super::super::gate::Gate;
use super::super::held;
use super::super::rest::Core;
use super::super::rules::Rule;
use super::super::wire::Wire;
use super::deed::header;
use super::order::REQUEST_BYTES_MAX;
use super::post::{Parcel, Post};
use super::session::{Effect, Moment, Session, World};
use super::strike::StreamFault;
use super::tap::Tap;
use super::{Party, Series, stats};

/// For so long it listens before it looks at its post again.
const LISTEN: Duration = Duration::from_millis(10);
/// For so long it waits for the answer to a close frame.
const LEAVE_MS: u64 = 2_000;
/// Reads of 4 KB that are swallowed behind the end, so that the end arrives.
const LINGER_READS: usize = 256;

/// How a connection ended, and how the socket is to be left.
struct End {
    by: Party,
    code: Option<u16>,
    reset: bool,
}

impl End {
    fn new(by: Party, code: Option<u16>) -> Self {
        Self { by, code, reset: false }
    }
}

struct Link<'a> {
    core: &'a Arc<Core>,
    gate: &'a Gate,
    post: Arc<Post>,
    session: Session,
    socket: WebSocket<Tap<'a>>,
    /// Acknowledgements that a fault holds back, and when they go out.
    late: Vec<(u64, String)>,
    /// When something that keeps the connection alive went out or came in.
    alive_ms: u64,
    /// The close frame that was sent, and when its answer is waited for no longer.
    leaving: Option<(u16, u64)>,
    /// A frame was begun that never ends: whatever is sent would be a part of it.
    spent: bool,
}

/// Serves an upgraded connection until it ends.
pub fn serve(
    core: &Arc<Core>,
    post: Arc<Post>,
    path: &str,
    wire: Wire,
    pending: Vec<u8>,
    gate: &Gate,
) {
    let id = post.id();
    if wire.tcp().set_read_timeout(Some(LISTEN)).is_err() {
        return core.hub.close(id, Party::Nobody, None);
    }
    let hub = &core.hub;
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(REQUEST_BYTES_MAX))
        .max_frame_size(Some(REQUEST_BYTES_MAX));
    let tap = Tap::new(wire, Arc::clone(core), gate, id);
    let socket = WebSocket::from_partially_read(tap, pending, Role::Server, Some(config));
    let session = Session::new(post.conn_id(), path, hub.settings.credentials.clone());
    let alive_ms = hub.at_ms();
    let (late, leaving) = (Vec::new(), None);
    let mut link =
        Link { core, gate, post, session, socket, late, alive_ms, leaving, spent: false };
    let end = link.converse();
    let wire = link.socket.into_inner().wire;
    hub.close(id, end.by, end.code);
    if end.reset {
        wire.reset();
    } else {
        wire.linger(LINGER_READS);
    }
}

impl Link<'_> {
    fn converse(&mut self) -> End {
        loop {
            match self.turn() {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) => return self.end_of(&error),
            }
        }
    }

    /// One round of sending and listening.
    fn turn(&mut self) -> Result<Option<End>, Error> {
        let id = self.post.id();
        let strikes = held(&self.core.hub.strikes);
        let (half_open, silent) = (strikes.half_open(id), strikes.silent(id));
        drop(strikes);
        if half_open {
            self.gate.pause(LISTEN.as_millis() as u64)?;
            return Ok(None);
        }
        self.socket.get_mut().mute = silent || self.spent;
        if let Some(end) = self.send_all()? {
            return Ok(Some(end));
        }
        if let Some(end) = self.listen()? {
            return Ok(Some(end));
        }
        let now_ms = self.core.hub.at_ms();
        match self.leaving {
            Some((code, until_ms)) if now_ms >= until_ms => {
                Ok(Some(End::new(Party::Exchange, Some(code))))
            }
            Some(_) => Ok(None),
            None => {
                let idle_ms = now_ms.saturating_sub(self.alive_ms);
                if idle_ms >= self.core.hub.settings.idle_close_ms && !silent {
                    self.leave(4004)?;
                }
                Ok(None)
            }
        }
    }

    /// Empties the post.
    fn send_all(&mut self) -> Result<Option<End>, Error> {
        let now_ms = self.core.hub.at_ms();
        for (_, text) in self.late.extract_if(.., |(due_ms, _)| *due_ms <= now_ms) {
            self.post.say(text);
        }
        let parcels = self.post.take();
        if self.leaving.is_some() {
            return Ok(None);
        }
        for parcel in &parcels {
            match parcel {
                Parcel::Push { text, series, confirmed } => {
                    // Whoever has a push finds it in the books.
                    if !self.socket.get_ref().mute {
                        let id = self.post.id();
                        self.core.hub.note(|stats| stats.push(id, series, *confirmed));
                    }
                    self.say(text)?;
                }
                Parcel::Say(text) => self.say(text)?,
                Parcel::Drop => return Ok(Some(End::new(Party::Exchange, None))),
                Parcel::Reset => {
                    return Ok(Some(End { reset: true, ..End::new(Party::Exchange, None) }));
                }
                Parcel::Close(code) => {
                    self.leave(*code)?;
                    break;
                }
                Parcel::Raw(frame) => self.raw(frame)?,
                Parcel::Announced(bytes) => {
                    self.raw(&header(Data::Text, *bytes))?;
                    self.spent = true;
                    self.socket.get_mut().mute = true;
                }
                Parcel::Oversized(bytes) => self.oversized(*bytes)?,
            }
        }
        Ok(None)
    }

    fn say(&mut self, text: &Utf8Bytes) -> Result<(), Error> {
        if !self.socket.get_ref().mute {
            self.alive_ms = self.core.hub.at_ms();
        }
        self.socket.send(Message::Text(text.clone()))
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        let tap = self.socket.get_mut();
        tap.write_all(bytes)?;
        tap.flush()
    }

    /// A notice that goes on and on.
    fn oversized(&mut self, bytes: u64) -> io::Result<()> {
        let (start, end) = (br#"{"event":"notice","code":"0","msg":""#, br#""}"#);
        let filling = vec![b'x'; 64 * 1024];
        let mut left = bytes.saturating_sub((start.len() + end.len()) as u64);
        self.raw(&header(Data::Text, left + (start.len() + end.len()) as u64))?;
        self.raw(start)?;
        while left > 0 {
            let count = left.min(filling.len() as u64);
            self.raw(&filling[..count as usize])?;
            left -= count;
        }
        self.raw(end)
    }

    fn leave(&mut self, code: u16) -> Result<(), Error> {
        self.leaving = Some((code, self.core.hub.at_ms() + LEAVE_MS));
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason(code).into() };
        self.socket.close(Some(frame))
    }

    /// Waits a moment for the client.
    fn listen(&mut self) -> Result<Option<End>, Error> {
        let hub = &self.core.hub;
        let message = match self.socket.read() {
            Ok(message) => message,
            Err(Error::Io(error)) if is_pause(&error) => return Ok(None),
            Err(Error::Capacity(_)) => {
                let text = format!("a message of more than {REQUEST_BYTES_MAX} bytes");
                held(&self.core.rules).record(hub.at_ms(), Rule::RequestSize, &text);
                self.leave(1009)?;
                // The rest of that message cannot be told from what follows.
                return Ok(Some(End::new(Party::Exchange, Some(1009))));
            }
            Err(error) => return Err(error),
        };
        match message {
            Message::Text(text) => self.hear(&text)?,
            Message::Ping(_) => {
                hub.note(|stats| stats.change(self.post.id(), |link| link.control_pings += 1));
                if held(&hub.strikes).deaf(self.post.id()) {
                    // The pong waits to be sent with whatever comes next, so it is sent nowhere.
                    let mute = std::mem::replace(&mut self.socket.get_mut().mute, true);
                    self.socket.flush()?;
                    self.socket.get_mut().mute = mute;
                }
            }
            Message::Binary(_) => {
                held(&self.core.rules).record(hub.at_ms(), Rule::Request, "a binary message");
            }
            Message::Close(frame) if self.leaving.is_none() => {
                let code = frame.map(|frame| frame.code.into());
                // The answer is on its way; who has gone already does not need it.
                let _ = self.socket.flush();
                return Ok(Some(End::new(Party::Client, code)));
            }
            Message::Close(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(None)
    }

    fn hear(&mut self, text: &str) -> Result<(), Error> {
        let hub = &self.core.hub;
        let at = Moment { at_ms: hub.at_ms(), exchange_ms: self.core.clock.now() };
        let connection = self.post.id();
        hub.note(|stats| {
            let text = text.to_owned();
            let Moment { at_ms, exchange_ms } = at;
            stats.hear(stats::Message { connection, at_ms, exchange_ms, text });
        });
        for effect in self.session.on(text, at, self.core.as_ref()) {
            self.carry_out(effect, at.at_ms);
        }
        let limit = held(&hub.strikes).of_link(connection, |fault| match fault {
            StreamFault::ChannelLimit { most, code } => Some((*most, *code)),
            _ => None,
        });
        match limit {
            Some((most, code)) if self.session.subscriptions().len() > most => {
                // What was left at the post would go out in front of the end.
                self.post.take();
                self.leave(code)
            }
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, effect: Effect, at_ms: u64) {
        let (core, id) = (self.core, self.post.id());
        match effect {
            Effect::Pong => {
                core.hub.note(|stats| stats.change(id, |link| link.text_pings += 1));
                if !held(&core.hub.strikes).deaf(id) {
                    self.alive_ms = at_ms;
                    self.post.say("pong");
                }
            }
            Effect::Say(text) => self.post.say(text),
            Effect::Acknowledge(text) => self.acknowledge(text, at_ms),
            Effect::Join(series) => self.join(&series),
            Effect::Leave(series) => core.hub.leave(&series, id),
            Effect::Broke(rule, about) => held(&core.rules).record(at_ms, rule, &about),
        }
    }

    /// Sends an acknowledgement, as far as the faults in force let it.
    fn acknowledge(&mut self, text: String, at_ms: u64) {
        let hold = held(&self.core.hub.strikes).of_link(self.post.id(), |fault| match fault {
            StreamFault::LostAcks => Some(None),
            StreamFault::LateAcks(ms) => Some(Some(*ms)),
            StreamFault::DataFirst => Some(Some(0)),
            _ => None,
        });
        match hold {
            None => self.post.say(text),
            Some(Some(ms)) => self.late.push((at_ms + ms, text)),
            Some(None) => {}
        }
    }

    fn join(&mut self, series: &Series) {
        self.core.hub.join(series, &self.post, &self.core.clock, &self.core.market);
    }

    /// What an error says about the end.
    fn end_of(&self, error: &Error) -> End {
        match (self.leaving, error) {
            (Some((code, _)), _) => End::new(Party::Exchange, Some(code)),
            (None, _) if self.gate.is_closed() => End::new(Party::Nobody, None),
            // Including a break of the protocol, after which there is nothing to talk about.
            (None, _) => End::new(Party::Client, None),
        }
    }
}

impl World for Core {
    fn is_served(&self, symbol: &str) -> bool {
        held(&self.market).served(symbol, self.clock.now()).is_ok()
    }

    fn is_refused(&self, series: &Series) -> bool {
        held(&self.hub.strikes).spoils(series, StreamFault::RefuseSeries)
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// What the exchange says with a close code.
fn reason(code: u16) -> &'static str {
    match code {
        1001 => "going away",
        1009 => "message too big",
        4004 => "no data received in 30s",
        4005 => "buffer is full, cannot write data",
        4006 => "abnormal disconnection",
        4008 => "the number of subscribed channels exceeds the maximum limit of channels",
        4009 => "the number of subscription channels exceeds the limit",
        _ => "closed",
    }
}
