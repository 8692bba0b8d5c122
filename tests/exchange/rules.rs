//! The rules a client must keep, and the list of those it broke.
//!
//! Nothing here knows sockets or a clock: a request comes in as its path and query together with
//! the time of its arrival, so that another face of the exchange can be held to the same rules.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::grid::Bar;

/// The most rows that one page may ask for.
pub const LIMIT_MAX: i64 = 300;
/// What a page holds if nobody says.
pub const LIMIT_DEFAULT: i64 = 100;
/// A client that breaks rules without end must not fill the memory of the test.
const VIOLATIONS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    Candles,
    History,
    Time,
    Instruments,
    Status,
    /// A path that the exchange does not serve.
    Unknown,
}

impl Endpoint {
    fn of(path: &str) -> Self {
        match path {
            "/api/v5/market/candles" => Self::Candles,
            "/api/v5/market/history-candles" => Self::History,
            "/api/v5/public/time" => Self::Time,
            "/api/v5/public/instruments" => Self::Instruments,
            "/api/v5/system/status" => Self::Status,
            _ => Self::Unknown,
        }
    }

    pub fn has_pages(self) -> bool {
        matches!(self, Self::Candles | Self::History)
    }

    /// Requests that are answered in a window of so many ms.
    fn rate(self) -> (usize, u64) {
        match self {
            Self::Candles => (40, 2_000),
            Self::History | Self::Instruments => (20, 2_000),
            Self::Time => (10, 2_000),
            Self::Status => (1, 5_000),
            Self::Unknown => (usize::MAX, 0),
        }
    }

    fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Candles | Self::History => &["instId", "bar", "after", "before", "limit"],
            Self::Instruments => &["instType", "instId", "instFamily", "uly"],
            Self::Status => &["state"],
            Self::Time | Self::Unknown => &[],
        }
    }
}

/// What a client must not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Rate,
    Method,
    Host,
    Path,
    Sandbox,
    Parameter,
    Instrument,
    InstrumentType,
    Bar,
    SecondsOnCandles,
    Cursor,
    Limit,
    /// An upgrade request that is none.
    Upgrade,
    /// More new connections a second than an address may open.
    ConnectRate,
    /// More subscribes, unsubscribes and logins an hour than a connection may ask for.
    Operations,
    /// More arguments in a request of the stream than it may have.
    Arguments,
    /// A request of the stream that is too long.
    RequestSize,
    /// An `id` that is not of 1 to 32 letters and digits.
    RequestId,
    /// A message that is no request.
    Request,
    /// A channel that does not exist anywhere.
    Channel,
    /// A candle channel on a path that has none.
    ChannelPath,
}

/// An answer that is an error of the exchange: HTTP status, code and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub code: &'static str,
    pub text: &'static str,
}

const fn refusal(status: u16, code: &'static str, text: &'static str) -> Option<Refusal> {
    Some(Refusal { status, code, text })
}

impl Rule {
    /// How the exchange answers one who breaks the rule; it lets an unknown parameter pass.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Rate => refusal(429, "50011", "Too Many Requests"),
            Self::Method => refusal(405, "50115", "Invalid request method."),
            Self::Host => refusal(400, "50000", "Host header is missing"),
            Self::Path => refusal(404, "404", "Request path is unknown"),
            Self::Sandbox => refusal(200, "50038", "This feature is unavailable in demo trading"),
            Self::Parameter => None,
            Self::Instrument => refusal(400, "51000", "Parameter instId can not be empty"),
            Self::InstrumentType => refusal(400, "51000", "Parameter instType error"),
            Self::Bar | Self::SecondsOnCandles => refusal(400, "51000", "Parameter bar error"),
            Self::Cursor => refusal(400, "51000", "Parameter after or before error"),
            Self::Limit => refusal(400, "51000", "Parameter limit error"),
            Self::Upgrade => refusal(400, "50000", "Not a WebSocket request"),
            Self::ConnectRate => refusal(429, "50011", "Too Many Requests"),
            // What is wrong inside the stream is answered there.
            Self::Operations | Self::Arguments | Self::RequestSize | Self::RequestId => None,
            Self::Request | Self::Channel | Self::ChannelPath => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Violation {
    pub at_ms: u64,
    pub rule: Rule,
    pub target: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {} ms: {}", self.rule, self.at_ms, self.target)
    }
}

/// A request as the exchange understands it.
#[derive(Clone, Debug)]
pub struct Ask {
    pub endpoint: Endpoint,
    pub symbol: Option<String>,
    pub bar: Option<String>,
    pub after: Option<i64>,
    pub before: Option<i64>,
    pub limit: Option<i64>,
    pub inst_type: Option<String>,
    pub target: String,
    /// The rules which the text of the request breaks, the gravest first.
    pub slips: Vec<Rule>,
}

impl Ask {
    /// Understands `target`, a path with its query.
    pub fn parse(target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut ask = Self {
            endpoint: Endpoint::of(path),
            symbol: None,
            bar: None,
            after: None,
            before: None,
            limit: None,
            inst_type: None,
            target: target.to_owned(),
            slips: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            ask.take(name, value);
        }
        ask.look_for_slips();
        ask
    }

    /// The bar that is asked for; the exchange's own default is a minute.
    pub fn bar(&self) -> Option<Bar> {
        Bar::parse(self.bar.as_deref().unwrap_or("1m"))
    }

    fn take(&mut self, name: &str, value: &str) {
        if !self.endpoint.parameters().contains(&name) {
            self.slips.push(Rule::Parameter);
            return;
        }
        let mut slips = Vec::new();
        let mut number = |rule| value.parse().map_err(|_| slips.push(rule)).ok();
        match name {
            "instId" => self.symbol = Some(value.to_owned()),
            "instType" => self.inst_type = Some(value.to_owned()),
            "bar" => self.bar = Some(value.to_owned()),
            "after" => self.after = number(Rule::Cursor),
            "before" => self.before = number(Rule::Cursor),
            "limit" => self.limit = number(Rule::Limit),
            _ => {}
        }
        self.slips.extend(slips);
    }

    fn look_for_slips(&mut self) {
        let mut found = Vec::new();
        match self.endpoint {
            Endpoint::Unknown => found.push(Rule::Path),
            Endpoint::Instruments => {
                let types = ["SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION"];
                if !types.contains(&self.inst_type.as_deref().unwrap_or("")) {
                    found.push(Rule::InstrumentType);
                }
            }
            Endpoint::Candles | Endpoint::History => {
                if self.symbol.as_deref().unwrap_or("").is_empty() {
                    found.push(Rule::Instrument);
                }
                match self.bar() {
                    None => found.push(Rule::Bar),
                    Some(bar) if bar.name() == "1s" && self.endpoint == Endpoint::Candles => {
                        found.push(Rule::SecondsOnCandles);
                    }
                    Some(_) => {}
                }
                if !(1..=LIMIT_MAX).contains(&self.limit.unwrap_or(LIMIT_DEFAULT)) {
                    found.push(Rule::Limit);
                }
            }
            Endpoint::Time | Endpoint::Status => {}
        }
        self.slips.extend(found);
    }
}

/// Counts requests and remembers who broke what.
pub struct Rules {
    loud: bool,
    granted: BTreeMap<(Endpoint, Option<String>), VecDeque<u64>>,
    violations: Vec<Violation>,
}

impl Rules {
    /// `loud` prints each violation as it happens, for a program which nobody asks at its end.
    pub fn new(loud: bool) -> Self {
        Self { loud, granted: BTreeMap::new(), violations: Vec::new() }
    }

    /// Whether the endpoint still answers at `at_ms`. Refused requests do not fill the window.
    pub fn grant(&mut self, ask: &Ask, at_ms: u64) -> bool {
        let (count, window_ms) = ask.endpoint.rate();
        let granted = self.granted.entry((ask.endpoint, ask.inst_type.clone())).or_default();
        while granted.front().is_some_and(|&then| then + window_ms <= at_ms) {
            granted.pop_front();
        }
        let free = granted.len() < count;
        if free {
            granted.push_back(at_ms);
        }
        free
    }

    pub fn record(&mut self, at_ms: u64, rule: Rule, target: &str) {
        let violation = Violation { at_ms, rule, target: target.to_owned() };
        if self.loud {
            eprintln!("a rule is broken: {violation}");
        }
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}
