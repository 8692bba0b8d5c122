//! The conversation of one connection: what it has subscribed to, and how it is answered.
//!
//! Nothing here knows a socket or a clock: a message comes in with its time, and effects go out
//! in the order in which they are to happen.

use std::collections::{BTreeSet, VecDeque};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde_json::Value;

use super::super::grid::{Bar, HOUR_MS};
use super::super::rules::Rule;
use super::Series;
use super::order::{Complaint, Order, Verb};

/// Subscribes, unsubscribes and logins that a connection may ask for in an hour.
pub const OPERATIONS_MAX: usize = 480;
/// A login is signed for so long.
const LOGIN_VALID_MS: i64 = 30_000;

/// Whom a login is to prove.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub key: String,
    pub secret: String,
    pub passphrase: String,
}

/// What the session asks the world.
pub trait World {
    /// Whether candles of the instrument are pushed.
    fn is_served(&self, symbol: &str) -> bool;
    /// Whether a fault refuses the series.
    fn is_refused(&self, series: &Series) -> bool;
}

/// When a message came: by the clock that only goes forward, and by the exchange's own.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub at_ms: u64,
    pub exchange_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Pong,
    /// An event that answers a request for a series, and may come late or not at all.
    Acknowledge(String),
    Say(String),
    Join(Series),
    Leave(Series),
    Broke(Rule, String),
}

pub struct Session {
    conn_id: String,
    path: String,
    credentials: Option<Credentials>,
    subscriptions: BTreeSet<Series>,
    operations: VecDeque<u64>,
}

impl Session {
    pub fn new(conn_id: String, path: &str, credentials: Option<Credentials>) -> Self {
        let (subscriptions, operations) = (BTreeSet::new(), VecDeque::new());
        Self { conn_id, path: path.to_owned(), credentials, subscriptions, operations }
    }

    pub fn conn_id(&self) -> &str {
        &self.conn_id
    }

    pub fn subscriptions(&self) -> &BTreeSet<Series> {
        &self.subscriptions
    }

    pub fn on(&mut self, text: &str, at: Moment, world: &dyn World) -> Vec<Effect> {
        let (order, slips) = Order::parse(text);
        let about = super::order::short(text);
        let mut effects: Vec<Effect> =
            slips.into_iter().map(|rule| Effect::Broke(rule, about.clone())).collect();
        match order {
            Order::Ping => effects.push(Effect::Pong),
            Order::Bad { id, complaint } => effects.push(self.complain(&id, &complaint)),
            Order::Request { id, .. } if !self.grant(at.at_ms) => {
                effects.push(Effect::Broke(Rule::Operations, about));
                let complaint = Complaint::new("60014", "Requests too frequent");
                effects.push(self.complain(&id, &complaint));
            }
            Order::Request { id, verb: Verb::Login, args } => {
                effects.push(match self.login(&args[0], at.exchange_ms) {
                    Ok(()) => Effect::Say(self.sign(r#""event":"login","msg":"","code":"0""#, &id)),
                    Err(refused) => self.complain(&id, &refused),
                });
            }
            Order::Request { id, verb, args } => {
                for arg in &args {
                    self.change(&id, verb, arg, world, &mut effects);
                }
            }
        }
        effects
    }

    /// Whether the connection may still ask for something. Refused requests do not count.
    fn grant(&mut self, at_ms: u64) -> bool {
        while self.operations.front().is_some_and(|&then| then + HOUR_MS as u64 <= at_ms) {
            self.operations.pop_front();
        }
        let free = self.operations.len() < OPERATIONS_MAX;
        if free {
            self.operations.push_back(at_ms);
        }
        free
    }

    fn change(
        &mut self,
        id: &Option<String>,
        verb: Verb,
        arg: &Value,
        world: &dyn World,
        effects: &mut Vec<Effect>,
    ) {
        let text = |name: &str| arg.get(name).and_then(Value::as_str).unwrap_or("");
        let (channel, symbol) = (text("channel"), text("instId"));
        let mut slip = |rule| effects.push(Effect::Broke(rule, format!("{channel} of {symbol}")));
        let bar = channel.strip_prefix("candle").and_then(Bar::parse);
        let Some(bar) = bar else {
            slip(Rule::Channel);
            effects.push(self.complain(id, &unknown(channel, symbol)));
            return;
        };
        if self.path != "/ws/v5/business" {
            slip(Rule::ChannelPath);
            effects.push(self.complain(id, &unknown(channel, symbol)));
            return;
        }
        let series = Series { symbol: symbol.to_owned(), bar: bar.name() };
        let subscribes = verb == Verb::Subscribe;
        if !world.is_served(symbol) || (subscribes && world.is_refused(&series)) {
            effects.push(self.complain(id, &unknown(channel, symbol)));
            return;
        }
        let event = format!(r#""event":"{}","arg":{arg}"#, verb.name());
        effects.push(Effect::Acknowledge(self.sign(&event, id)));
        if subscribes {
            self.subscriptions.insert(series.clone());
            effects.push(Effect::Join(series));
        } else if self.subscriptions.remove(&series) {
            effects.push(Effect::Leave(series));
        }
    }

    /// Source: "Login" of the WebSocket API; the signed path is fixed.
    fn login(&self, arg: &Value, exchange_ms: i64) -> Result<(), Complaint> {
        let text = |name: &str| arg.get(name).and_then(Value::as_str).unwrap_or("");
        let Some(known) = &self.credentials else {
            return Err(Complaint::new("60009", "Login failed."));
        };
        let timestamp = text("timestamp");
        let seconds: i64 =
            timestamp.parse().map_err(|_| Complaint::new("60004", "Invalid timestamp"))?;
        if (seconds.saturating_mul(1_000) - exchange_ms).abs() > LOGIN_VALID_MS {
            return Err(Complaint::new("60006", "Timestamp request expired"));
        }
        if text("apiKey") != known.key {
            return Err(Complaint::new("60005", "Invalid apiKey"));
        }
        if text("passphrase") != known.passphrase {
            return Err(Complaint::new("60024", "Wrong passphrase"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, known.secret.as_bytes());
        let signed = format!("{timestamp}GET/users/self/verify");
        let sign = BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
        if text("sign") != sign {
            return Err(Complaint::new("60007", "Invalid sign"));
        }
        Ok(())
    }

    fn complain(&self, id: &Option<String>, complaint: &Complaint) -> Effect {
        let msg = Value::from(complaint.msg.as_str());
        let event = format!(r#""event":"error","msg":{msg},"code":"{}""#, complaint.code);
        Effect::Say(self.sign(&event, id))
    }

    /// The fields of an event between the request's `id` and the connection's, in the order in
    /// which the exchange writes them.
    fn sign(&self, fields: &str, id: &Option<String>) -> String {
        let id = id.as_ref().map_or(String::new(), |id| format!(r#""id":"{id}","#));
        format!(r#"{{{id}{fields},"connId":"{}"}}"#, self.conn_id)
    }
}

fn unknown(channel: &str, symbol: &str) -> Complaint {
    let msg = format!(
        "Wrong URL or channel:{channel},instId:{symbol} doesn't exist. Please use the correct \
         URL, channel and parameters referring to API document."
    );
    Complaint::new("60018", msg)
}
