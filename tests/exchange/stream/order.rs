//! What a client of the stream says, understood and held to the rules that need no memory.

use serde_json::Value;

use super::super::rules::Rule;

/// More arguments than this the exchange takes, but a client is not to send.
pub const ARGS_MAX: usize = 100;
/// A request of more bytes ends the connection with 1009.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
const ID_CHARS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Subscribe,
    Unsubscribe,
    Login,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Login => "login",
        }
    }
}

/// An error event without its `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub code: &'static str,
    pub msg: String,
}

impl Complaint {
    pub fn new(code: &'static str, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into() }
    }
}

/// A message as the exchange understands it.
#[derive(Clone, Debug)]
pub enum Order {
    Ping,
    Request { id: Option<String>, verb: Verb, args: Vec<Value> },
    Bad { id: Option<String>, complaint: Complaint },
}

impl Order {
    /// Understands `text`; also the rules it breaks, whether they are enforced or not.
    pub fn parse(text: &str) -> (Self, Vec<Rule>) {
        if text == "ping" {
            return (Self::Ping, Vec::new());
        }
        let mut slips = Vec::new();
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            let complaint = Complaint::new("60012", format!("Illegal request: {}", short(text)));
            return (Self::Bad { id: None, complaint }, vec![Rule::Request]);
        };
        let id = fields.get("id").map(|id| id.as_str().unwrap_or("").to_owned());
        if id.as_deref().is_some_and(|id| !is_id(id)) {
            slips.push(Rule::RequestId);
            let complaint = Complaint::new("60012", format!("Illegal request: {}", short(text)));
            return (Self::Bad { id: None, complaint }, slips);
        }
        let verb = match fields.get("op").and_then(Value::as_str) {
            Some("subscribe") => Some(Verb::Subscribe),
            Some("unsubscribe") => Some(Verb::Unsubscribe),
            Some("login") => Some(Verb::Login),
            _ => None,
        };
        let args = fields.get("args").and_then(Value::as_array).filter(|args| !args.is_empty());
        let (Some(verb), Some(args)) = (verb, args) else {
            let complaint = Complaint::new("60012", format!("Illegal request: {}", short(text)));
            return (Self::Bad { id, complaint }, vec![Rule::Request]);
        };
        if args.len() > ARGS_MAX {
            slips.push(Rule::Arguments);
        }
        (Self::Request { id, verb, args: args.clone() }, slips)
    }
}

fn is_id(id: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// As much of a message as an error repeats.
pub fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
