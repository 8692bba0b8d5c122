//! The REST face: understands a request, judges it, answers from the market, and spoils the
//! answer if a script says so.

use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use super::bell::Bell;
use super::clock::Clock;
use super::faults::{Fault, Faults};
use super::held;
use super::http::{Answer, Delivery, Head};
use super::journal::{Journal, Request};
use super::listing::{Halt, Listing};
use super::market::{Cursor, Market};
use super::row::Kind;
use super::rules::{Ask, Endpoint, LIMIT_DEFAULT, Refusal, Rule, Rules};
use super::stream::Hub;

/// The exchange behind its faces.
pub struct Core {
    pub started: Instant,
    pub clock: Clock,
    pub market: Mutex<Market>,
    pub rules: Mutex<Rules>,
    pub faults: Mutex<Faults>,
    pub journal: Mutex<Journal>,
    pub bell: Bell,
    pub hub: Hub,
    pub sandbox: bool,
    pub page_cap: usize,
}

/// The envelope before it is text.
struct Reply {
    status: u16,
    code: Value,
    msg: String,
    data: Option<Vec<Value>>,
    headers: Vec<(String, String)>,
}

impl Reply {
    fn good(data: Vec<Value>) -> Self {
        Self::new(200, "0", "", Some(data))
    }

    fn error(status: u16, code: &str, msg: &str) -> Self {
        Self::new(status, code, msg, Some(Vec::new()))
    }

    fn new(status: u16, code: &str, msg: &str, data: Option<Vec<Value>>) -> Self {
        Self { status, code: code.into(), msg: msg.to_owned(), data, headers: Vec::new() }
    }

    /// The answer to too many requests has no `data`.
    fn too_many() -> Self {
        Self::new(429, "50011", "Too Many Requests", None)
    }

    fn rows(&self) -> usize {
        self.data.as_ref().map_or(0, Vec::len)
    }

    fn answer(self) -> Answer {
        let mut envelope = json!({"code": self.code, "msg": self.msg});
        if let Some(data) = self.data {
            envelope["data"] = data.into();
        }
        let body = envelope.to_string().into_bytes();
        answer(self.status, "application/json", body, self.headers)
    }
}

fn answer(status: u16, kind: &str, body: Vec<u8>, headers: Vec<(String, String)>) -> Answer {
    let mut all = vec![("content-type".to_owned(), kind.to_owned())];
    all.extend(headers);
    Answer { status, headers: all, body, delivery: Delivery::Whole }
}

impl Core {
    /// Answers one request and keeps the books about it.
    pub fn answer(&self, head: &Head) -> Answer {
        let ask = Ask::parse(&head.target);
        let (number, at_ms) = self.arrive(head, &ask);
        self.bell.ring();
        let refusal = self.judge(head, &ask, at_ms);
        let reply = match refusal {
            Some(Rule::Rate) => Reply::too_many(),
            Some(rule) => match rule.refusal() {
                Some(Refusal { status, code, text }) => Reply::error(status, code, text),
                None => self.reply(&ask),
            },
            None => self.reply(&ask),
        };
        let within_rate = refusal != Some(Rule::Rate);
        let fault = if within_rate { held(&self.faults).draw(&ask) } else { None };
        let rows = reply.rows();
        let (answer, rows) = match &fault {
            None => (reply.answer(), rows),
            Some(fault) => self.spoil(fault, reply),
        };
        let silent = matches!(answer.delivery, Delivery::Stall { .. } | Delivery::Close);
        let status = if silent { 0 } else { answer.status };
        held(&self.journal).answer(number, status, rows, fault);
        self.bell.ring();
        answer
    }

    fn arrive(&self, head: &Head, ask: &Ask) -> (usize, u64) {
        let mut journal = held(&self.journal);
        // The time is read under the lock, so that the order of the journal is that of arrival.
        let at_ms = self.started.elapsed().as_millis() as u64;
        let number = journal.arrive(Request {
            at_ms,
            exchange_ms: self.clock.now(),
            method: head.method.clone(),
            ask: ask.clone(),
            headers: head.headers.clone(),
            rows: 0,
            status: 0,
            fault: None,
        });
        (number, at_ms)
    }

    /// Records every rule that the request breaks, and gives the first that is not let pass.
    fn judge(&self, head: &Head, ask: &Ask, at_ms: u64) -> Option<Rule> {
        let mut rules = held(&self.rules);
        let mut broken = Vec::new();
        if head.header("host").is_none() {
            broken.push(Rule::Host);
        }
        if head.method != "GET" {
            broken.push(Rule::Method);
        }
        if !rules.grant(ask, at_ms) {
            broken.push(Rule::Rate);
        }
        // A live exchange that is asked for demo data would fill a store with the wrong prices.
        if (head.header("x-simulated-trading") == Some("1")) != self.sandbox {
            broken.push(Rule::Sandbox);
        }
        broken.extend(&ask.slips);
        for rule in &broken {
            rules.record(at_ms, *rule, &ask.target);
        }
        broken.into_iter().find(|rule| rule.refusal().is_some())
    }

    fn reply(&self, ask: &Ask) -> Reply {
        let now = self.clock.now();
        match ask.endpoint {
            Endpoint::Candles | Endpoint::History => self.page(ask, now),
            Endpoint::Time => Reply::good(vec![json!({"ts": now.to_string()})]),
            Endpoint::Instruments => {
                let market = held(&self.market);
                let listed = market.listings().filter_map(|listing| describe(listing, ask, now));
                Reply::good(listed.collect())
            }
            Endpoint::Status | Endpoint::Unknown => Reply::good(Vec::new()),
        }
    }

    fn page(&self, ask: &Ask, now: i64) -> Reply {
        let symbol = ask.symbol.as_deref().expect("because a request without it is refused");
        let bar = ask.bar().expect("because a request with a wrong one is refused");
        let mut market = held(&self.market);
        if let Err(halt) = market.served(symbol, now) {
            return match halt {
                Some(Halt::Settled) => Reply::error(200, "50047", "The contract has been settled."),
                _ => {
                    let text = "Instrument ID, Instrument ID code, or Spread ID doesn't exist.";
                    Reply::error(200, "51001", text)
                }
            };
        }
        let limit = ask.limit.unwrap_or(LIMIT_DEFAULT) as usize;
        let limit = limit.min(self.page_cap);
        let cursor = Cursor { after: ask.after, before: ask.before, limit };
        let rows = match ask.endpoint {
            Endpoint::Candles => market.candles(symbol, bar, cursor, now),
            _ => market.history(symbol, bar, cursor, now),
        };
        let texts = rows.iter().map(|served| served.row.fields(served.confirmed).into());
        Reply::good(texts.collect())
    }

    /// The answer that `fault` makes of `reply`, and how many rows it still has.
    fn spoil(&self, fault: &Fault, mut reply: Reply) -> (Answer, usize) {
        match fault {
            Fault::TooMany { retry_after_s } => {
                reply = Reply::too_many();
                let header = retry_after_s.map(|s| ("retry-after".to_owned(), s.to_string()));
                reply.headers.extend(header);
            }
            Fault::TooManyInside => reply = Reply::error(200, "50011", "Too Many Requests"),
            Fault::Unavailable => {
                reply = Reply::error(503, "50001", "Service temporarily unavailable");
            }
            Fault::SystemError => reply = Reply::error(500, "50026", "System error"),
            Fault::Redirect(to) => {
                reply = Reply::new(302, "0", "", None);
                reply.headers.push(("location".to_owned(), to.clone()));
            }
            Fault::IntegerCode => {
                let code = reply.code.as_str().and_then(|code| code.parse::<i64>().ok());
                reply.code = code.into();
            }
            Fault::MissingData => reply.data = None,
            Fault::Html(status) => return (html(*status), 0),
            Fault::InvalidJson => {
                let mut answer = reply.answer();
                answer.body.truncate(answer.body.len() / 2);
                return (answer, 0);
            }
            Fault::Raw { status, headers, body } => {
                return (answer(*status, "application/json", body.clone(), headers.clone()), 0);
            }
            shape => reply.data = reply.data.map(|rows| self.reshape(shape, rows)),
        }
        let rows = reply.rows();
        (Answer { delivery: delivery_of(fault), ..reply.answer() }, rows)
    }

    fn reshape(&self, fault: &Fault, mut rows: Vec<Value>) -> Vec<Value> {
        match fault {
            Fault::EmptyPage => Vec::new(),
            Fault::ShortPage => {
                rows.truncate(held(&self.faults).kept(rows.len()));
                rows
            }
            Fault::DuplicateRows => {
                let twice = |(index, row): (usize, &Value)| {
                    vec![row.clone(); if index % 3 == 0 { 2 } else { 1 }]
                };
                rows.iter().enumerate().flat_map(twice).collect()
            }
            Fault::ExtraFields => {
                for fields in rows.iter_mut().filter_map(Value::as_array_mut) {
                    fields.extend(["0".into(), "more".into()]);
                }
                rows
            }
            _ => rows,
        }
    }
}

/// The way in which an answer with `fault` is sent.
fn delivery_of(fault: &Fault) -> Delivery {
    match *fault {
        Fault::Truncated => Delivery::Truncated,
        Fault::Stall(ms) => Delivery::Stall { ms },
        Fault::Slow(ms) => Delivery::Late { ms },
        Fault::Drip { bytes, pause_ms } => Delivery::Drip { bytes, pause_ms },
        Fault::Close => Delivery::Close,
        Fault::Oversized(bytes) => Delivery::Padded { bytes },
        _ => Delivery::Whole,
    }
}

/// The answer to a request that breaks `rule`, where that has one.
pub fn refused(rule: Rule) -> Answer {
    let Refusal { status, code, text } =
        rule.refusal().expect("because the caller's rules are enforced by HTTP");
    Reply::error(status, code, text).answer()
}

/// What the edge proxy shows to a browser.
pub fn html(status: u16) -> Answer {
    let body = format!(
        "<!DOCTYPE html>\n<html><head><title>{status}</title></head>\
         <body><center><h1>{status}</h1></center><hr><center>edge</center></body></html>\n"
    );
    answer(status, "text/html; charset=UTF-8", body.into_bytes(), Vec::new())
}

/// The entry of `listing` in the list that `ask` wants, if it belongs there.
fn describe(listing: &Listing, ask: &Ask, now: i64) -> Option<Value> {
    let halt = listing.halted(now);
    if matches!(halt, Some(Halt::Delisted | Halt::Settled)) {
        return None;
    }
    let symbol = listing.symbol();
    let parts: Vec<&str> = symbol.split('-').collect();
    let (base, quote) = (parts[0], parts.get(1).copied().unwrap_or(""));
    let wanted = ask.inst_type.as_deref()?;
    let fits = match (listing.kind(), parts.last().copied()) {
        (Kind::Spot, _) => ["SPOT", "MARGIN"].contains(&wanted),
        (_, Some("SWAP")) => wanted == "SWAP",
        _ => wanted == "FUTURES",
    };
    if !fits || ask.symbol.as_deref().is_some_and(|only| only != symbol) {
        return None;
    }
    // Spot pairs name their currencies, contracts name what they settle in: the rest is empty.
    let (currencies, settle, contract) = match listing.kind() {
        Kind::Spot => ((base, quote), "", None),
        Kind::Linear { ct_val } => (("", ""), quote, Some(("linear", ct_val, base))),
        Kind::Inverse { ct_val } => (("", ""), base, Some(("inverse", ct_val, quote))),
    };
    let (ct_type, ct_val, ct_ccy) = contract
        .map_or(("", String::new(), ""), |(kind, value, ccy)| (kind, value.to_string(), ccy));
    let (tick, lot) = listing.steps();
    Some(json!({
        "instType": wanted, "instId": symbol,
        "baseCcy": currencies.0, "quoteCcy": currencies.1, "settleCcy": settle,
        "ctType": ct_type, "ctVal": ct_val, "ctValCcy": ct_ccy,
        "tickSz": tick.to_string(), "lotSz": lot.to_string(), "minSz": lot.to_string(),
        "listTime": listing.first_ms().to_string(), "expTime": "",
        "state": if halt.is_some() { "suspend" } else { "live" },
    }))
}
