//! The mind of one connection of the stream: login, subscriptions, signs of life.
//!
//! It is handed the time and what happened on the socket, and says what to do next; the stream's
//! thread does it. A new connection is a new session.
//!
//! **Invariant:** whoever drains the session's effects after each [`Session::on`] leaves nothing
//! behind that grows: what is kept is one entry for each series, and one for each request of the
//! last hour, of which there are at most as many as the exchange permits.
//!
//! **Invariant:** a series that was asked for is subscribed, refused, or asked for again by
//! [`Session::deadline`], after a bounded number of which it is refused.

mod cause;
mod subscriptions;

use std::collections::{BTreeSet, VecDeque};

use crate::candle::Candle;
use crate::instrument::Series;
use crate::okx::stream::{Event, Request, Said, decode};
use crate::okx::{Credentials, StreamPolicy};
use crate::page::Refused;
use crate::session::subscriptions::Subscriptions;
use crate::time::{MINUTE, Millis, Now, SECOND};
use crate::wire::Plain;

pub use cause::Cause;

/// A login that was not answered by then is given up. Subscriptions wait for it.
const LOGIN_MS: Millis = 5 * SECOND;
/// A busy connection is pinged so often too, so that its round trip is known.
const BEAT_MS: Millis = MINUTE;
/// So many frames in a row that cannot be read end the connection.
const GARBLED_MAX: u32 = 5;

/// How a connection is to be led.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who logs in, where somebody does.
    pub credentials: Option<Credentials>,
    /// After so much silence a ping is sent: below the 30 s after which the exchange closes.
    pub ping_interval_ms: Millis,
    /// The connection is dead when nothing came for so long after a ping.
    pub heartbeat_interval_ms: Millis,
}

/// What has happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The connection stands.
    Opened,
    /// A text frame came.
    Text(&'a str),
    /// A binary frame came, which the exchange never sends.
    Binary,
    /// A control frame came: a sign of life, answered below us.
    Control,
    /// The connection is over.
    Closed {
        /// The close code; none if it just broke.
        code: Option<u16>,
        /// The other side's words, or the machine's.
        reason: &'a str,
    },
    /// These series are wanted, beside those that are already.
    Subscribe(BTreeSet<Series>),
    /// These series are no longer wanted.
    Unsubscribe(BTreeSet<Series>),
    /// Nothing but time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this.
    Send(Request),
    /// States of bars have come.
    Rows {
        /// Of which series.
        series: Series,
        /// The states, as they came.
        rows: Vec<Candle>,
        /// Rows that are no candles.
        refused: Vec<Refused>,
    },
    /// This series is subscribed; data may have come before.
    Acked(Series),
    /// This series is not, and is not asked for again until somebody wants it anew.
    Refused {
        /// Which.
        series: Series,
        /// Why.
        cause: Cause,
    },
    /// The stream goes on without login: the next connection may spare itself the attempt.
    LoginRefused(Cause),
    /// A ping was answered.
    Beat {
        /// After so long.
        rtt_ms: Millis,
    },
    /// A frame could not be read, and was passed over.
    Garbled(Cause),
    /// The exchange will close this connection soon: open the next one first.
    Replace(Said),
    /// Something the exchange said that changes nothing here.
    Notice(Said),
    /// Close the connection, if it still stands. Nothing comes after this.
    Close(Cause),
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    LoggingIn { until: Millis },
    Open,
    Ended,
}

/// The mind of one connection, and the iterator of what it wants done next.
///
/// ```
/// use okx_local_store::session::{Effect, Input, Session, Settings};
/// use okx_local_store::time::Now;
///
/// let settings =
///     Settings { credentials: None, ping_interval_ms: 20_000, heartbeat_interval_ms: 30_000 };
/// let (mut session, now) = (Session::new(settings), Now { local: 0, exchange: 0 });
/// session.on(now, Input::Opened);
/// let Some(Effect::Send(ping)) = session.next() else { panic!("it says hello") };
/// assert_eq!((ping.as_str(), session.next()), ("ping", None));
/// assert_eq!(session.deadline(), Some(30_000), "nothing came until then: dead");
/// ```
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    phase: Phase,
    subscriptions: Subscriptions,
    /// When something came last.
    heard_at: Millis,
    /// When the last ping was sent.
    pinged_at: Option<Millis>,
    /// Whether that ping waits for its pong.
    awaits_pong: bool,
    /// The ping since which nothing came.
    unheard_since: Option<Millis>,
    /// Frames in a row that could not be read.
    garbled: u32,
    effects: VecDeque<Effect>,
}

impl Iterator for Session {
    type Item = Effect;

    /// What is to be done next. More comes after the next [`Session::on`].
    fn next(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

impl Session {
    /// A session whose connection does not stand yet.
    pub fn new(settings: Settings) -> Session {
        Session {
            settings,
            phase: Phase::Opening,
            subscriptions: Subscriptions::default(),
            heard_at: Millis::MIN,
            pinged_at: None,
            awaits_pong: false,
            unheard_since: None,
            garbled: 0,
            effects: VecDeque::new(),
        }
    }

    /// The series that are subscribed.
    pub fn acked(&self) -> &BTreeSet<Series> {
        self.subscriptions.acked()
    }

    /// When time alone changes something, in local time: [`Input::Tick`] is due then. Nothing is
    /// before the connection stands and after it has ended.
    pub fn deadline(&self) -> Option<Millis> {
        let other = match self.phase {
            Phase::Opening | Phase::Ended => return None,
            Phase::LoggingIn { until } => Some(until),
            Phase::Open => self.subscriptions.deadline(),
        };
        let alive = match self.unheard_since {
            Some(since) => since + self.settings.heartbeat_interval_ms,
            None => self.ping_at(),
        };
        Some(other.map_or(alive, |other| other.min(alive)))
    }

    /// Takes in what has happened at `now`.
    pub fn on(&mut self, now: Now, input: Input) {
        if self.phase == Phase::Ended {
            return;
        }
        if matches!(input, Input::Text(_) | Input::Binary | Input::Control) {
            self.heard_at = now.local;
            self.unheard_since = None;
        }
        match input {
            Input::Opened => self.open(now),
            Input::Text(text) => match decode(text) {
                Ok(event) => {
                    self.garbled = 0;
                    self.hear(now.local, event);
                }
                Err(why) => self.garble(why),
            },
            Input::Binary => self.garble("it is binary".into()),
            Input::Closed { code, reason } => self.closed(code, reason.into()),
            Input::Subscribe(series) => self.subscriptions.want(now.local, series),
            Input::Unsubscribe(series) => self.subscriptions.leave(series),
            Input::Control | Input::Tick => {}
        }
        if matches!(self.phase, Phase::LoggingIn { until } if until <= now.local) {
            self.refuse_login(None);
        }
        if self.phase == Phase::Open {
            self.subscriptions.work(now.local, &mut self.effects);
        }
        if !matches!(self.phase, Phase::Opening | Phase::Ended) {
            self.live(now.local);
        }
    }

    fn open(&mut self, now: Now) {
        self.heard_at = now.local;
        self.phase = Phase::Open;
        if let Some(credentials) = &self.settings.credentials {
            self.subscriptions.count(now.local);
            self.effects.push_back(Effect::Send(Request::login(credentials, now.exchange)));
            self.phase = Phase::LoggingIn { until: now.local + LOGIN_MS };
        }
    }

    fn hear(&mut self, now: Millis, event: Event) {
        match event {
            Event::Push { series, rows, refused } => {
                if self.subscriptions.hear(now, &series) {
                    self.effects.push_back(Effect::Rows { series, rows, refused });
                }
            }
            Event::Subscribed { series, id } => {
                self.subscriptions.confirm(series, id, &mut self.effects);
            }
            Event::Unsubscribed { series, .. } => self.subscriptions.lose(now, series),
            Event::Refused { id, said, series } => self.refuse(now, id, said, series),
            Event::Login(Ok(())) => self.begin(),
            Event::Login(Err(said)) => self.refuse_login(Some(said)),
            Event::Notice(said) if said.policy() == StreamPolicy::Replace => {
                self.effects.push_back(Effect::Replace(said));
            }
            Event::Notice(said) => self.effects.push_back(Effect::Notice(said)),
            Event::Pong => {
                if let Some(at) = self.pinged_at
                    && std::mem::take(&mut self.awaits_pong)
                {
                    self.effects.push_back(Effect::Beat { rtt_ms: now - at });
                }
            }
            Event::Ignored => {}
        }
    }

    /// An error event, whatever it is about.
    fn refuse(&mut self, now: Millis, id: Option<u64>, said: Said, named: Option<Series>) {
        match said.policy() {
            StreamPolicy::WrongPath => self.end(Cause::WrongPath(said)),
            StreamPolicy::Replace => self.effects.push_back(Effect::Replace(said)),
            StreamPolicy::NoLogin => self.refuse_login(Some(said)),
            // Nothing else is under way then.
            _ if self.phase != Phase::Open => self.refuse_login(Some(said)),
            _ => self.subscriptions.refuse(now, id, said, named, &mut self.effects),
        }
    }

    fn refuse_login(&mut self, said: Option<Said>) {
        self.effects.push_back(Effect::LoginRefused(Cause::Login(said)));
        self.begin();
    }

    /// The login is behind us, one way or the other.
    fn begin(&mut self) {
        if matches!(self.phase, Phase::LoggingIn { .. }) {
            self.phase = Phase::Open;
        }
    }

    fn garble(&mut self, why: Plain) {
        self.garbled += 1;
        let cause = Cause::Garbled { frames: self.garbled, why };
        if self.garbled >= GARBLED_MAX {
            self.end(cause);
        } else {
            self.effects.push_back(Effect::Garbled(cause));
        }
    }

    fn closed(&mut self, code: Option<u16>, reason: Plain) {
        // Who closes in good form over a login has refused it.
        if let (Phase::LoggingIn { .. }, Some(code)) = (self.phase, code) {
            let said = Said { code: Plain::of(code), msg: reason.clone() };
            self.refuse_login(Some(said));
        }
        self.end(Cause::Closed { code, reason });
    }

    fn end(&mut self, cause: Cause) {
        self.phase = Phase::Ended;
        self.effects.push_back(Effect::Close(cause));
    }

    /// Pings, and notices who is dead.
    fn live(&mut self, now: Millis) {
        match self.unheard_since {
            Some(since) if now >= since + self.settings.heartbeat_interval_ms => {
                self.end(Cause::Silent { length_ms: now - self.heard_at });
            }
            None if now >= self.ping_at() => {
                self.pinged_at = Some(now);
                self.awaits_pong = true;
                self.unheard_since = Some(now);
                self.effects.push_back(Effect::Send(Request::ping()));
            }
            _ => {}
        }
    }

    /// When the next ping is due: at once on a new connection, then after silence, and now and then
    /// without any.
    fn ping_at(&self) -> Millis {
        let Some(at) = self.pinged_at else { return self.heard_at };
        (self.heard_at + self.settings.ping_interval_ms).min(at + BEAT_MS)
    }
}

#[cfg(test)]
mod tests;
