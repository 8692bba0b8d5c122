//! What goes wrong, and when: scripts that draw a fault for a request.

use super::dice::Dice;
use super::rules::{Ask, Endpoint};

/// One way for an answer to be wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// HTTP 429 with code 50011 and no `data`, and a Retry-After in seconds if one is given.
    TooMany { retry_after_s: Option<u32> },
    /// Code 50011 in an answer that is otherwise fine.
    TooManyInside,
    /// HTTP 503 with code 50001.
    Unavailable,
    /// HTTP 500 with code 50026.
    SystemError,
    /// A page of HTML from the edge proxy with that status.
    Html(u16),
    /// Half of the body, then the end of the connection.
    Truncated,
    /// A whole body that is not JSON.
    InvalidJson,
    /// No answer until so many ms have passed, then the end of the connection.
    Stall(u64),
    /// The right answer, so many ms late.
    Slow(u64),
    /// The right answer in crumbs.
    Drip { bytes: usize, pause_ms: u64 },
    /// The end of the connection in place of an answer.
    Close,
    /// No rows where there are some.
    EmptyPage,
    /// A random number of the newest rows, at least one; the rest is missing.
    ShortPage,
    /// Every third row twice.
    DuplicateRows,
    /// Rows of eleven fields.
    ExtraFields,
    /// `code` as a number.
    IntegerCode,
    /// An envelope without `data`.
    MissingData,
    /// A redirect to that address.
    Redirect(String),
    /// The right answer followed by blanks up to so many bytes: valid JSON, but endless.
    Oversized(u64),
    /// Whatever a test wants, for instance a bomb with its `content-encoding`.
    Raw { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
}

impl Fault {
    /// The faults that say "not now": a client can tell each of them from an answer.
    pub fn failures() -> Vec<Fault> {
        vec![
            Fault::TooMany { retry_after_s: None },
            Fault::TooMany { retry_after_s: Some(1) },
            Fault::TooManyInside,
            Fault::Unavailable,
            Fault::SystemError,
            Fault::Html(502),
            Fault::Html(520),
            Fault::Truncated,
            Fault::InvalidJson,
            Fault::Slow(300),
            Fault::Drip { bytes: 512, pause_ms: 5 },
            Fault::Close,
            Fault::MissingData,
        ]
    }

    /// The faults that are answers all the same: what they carry is true, but shaped oddly.
    pub fn oddities() -> Vec<Fault> {
        vec![Fault::ShortPage, Fault::DuplicateRows, Fault::ExtraFields, Fault::IntegerCode]
    }

    /// Whether the fault concerns rows, and so is lost on an endpoint that has none.
    fn shapes_rows(&self) -> bool {
        matches!(
            self,
            Fault::EmptyPage | Fault::ShortPage | Fault::DuplicateRows | Fault::ExtraFields
        )
    }
}

type Filter = Box<dyn Fn(&Ask) -> bool + Send>;

enum When {
    Always,
    Every { nth: u64, seen: u64 },
    Next { left: u64 },
    Chance { rate: f64, dice: Dice },
}

/// When which faults strike. They are drawn in turn; by chance if the script itself is.
pub struct Script {
    when: When,
    faults: Vec<Fault>,
    drawn: usize,
    filters: Vec<Filter>,
}

impl Script {
    /// Every answer.
    pub fn always(fault: Fault) -> Self {
        Self::new(When::Always, vec![fault])
    }

    /// Every `nth` answer.
    pub fn every(nth: u64, faults: impl Into<Vec<Fault>>) -> Self {
        Self::new(When::Every { nth, seen: 0 }, faults.into())
    }

    /// The next `count` answers, after which the script is spent.
    pub fn next(count: u64, fault: Fault) -> Self {
        Self::new(When::Next { left: count }, vec![fault])
    }

    /// The next answers, one fault each.
    pub fn sequence(faults: impl Into<Vec<Fault>>) -> Self {
        let faults = faults.into();
        Self::new(When::Next { left: faults.len() as u64 }, faults)
    }

    /// That share of all answers, between 0 and 1.
    pub fn chance(seed: u64, rate: f64, faults: impl Into<Vec<Fault>>) -> Self {
        Self::new(When::Chance { rate, dice: Dice::new(seed) }, faults.into())
    }

    /// Only answers of that endpoint count.
    pub fn on(self, endpoint: Endpoint) -> Self {
        self.matching(move |ask| ask.endpoint == endpoint)
    }

    /// Only answers to such requests count.
    pub fn matching(mut self, filter: impl Fn(&Ask) -> bool + Send + 'static) -> Self {
        self.filters.push(Box::new(filter));
        self
    }

    fn new(when: When, faults: Vec<Fault>) -> Self {
        assert!(!faults.is_empty(), "a script needs faults to draw from");
        Self { when, faults, drawn: 0, filters: Vec::new() }
    }

    fn draw(&mut self, ask: &Ask) -> Option<Fault> {
        if !self.filters.iter().all(|filter| filter(ask)) {
            return None;
        }
        let mut index = self.drawn % self.faults.len();
        let strikes = match &mut self.when {
            When::Always => true,
            When::Every { nth, seen } => {
                *seen += 1;
                seen.is_multiple_of(*nth)
            }
            When::Next { left } => {
                let strikes = *left > 0;
                *left = left.saturating_sub(1);
                strikes
            }
            When::Chance { rate, dice } => {
                index = dice.below(self.faults.len());
                dice.chance(*rate)
            }
        };
        if !strikes {
            return None;
        }
        self.drawn += 1;
        Some(self.faults[index].clone())
    }
}

/// The scripts in force.
pub struct Faults {
    scripts: Vec<Script>,
    dice: Dice,
}

impl Faults {
    pub fn new(scripts: Vec<Script>) -> Self {
        Self { scripts, dice: Dice::new(1) }
    }

    pub fn add(&mut self, script: Script) {
        self.scripts.push(script);
    }

    /// The fault for this request: that of the first script which strikes.
    pub fn draw(&mut self, ask: &Ask) -> Option<Fault> {
        let fault = self.scripts.iter_mut().find_map(|script| script.draw(ask))?;
        (ask.endpoint.has_pages() || !fault.shapes_rows()).then_some(fault)
    }

    /// How many of `rows` a short page keeps.
    pub fn kept(&mut self, rows: usize) -> usize {
        if rows < 2 { rows } else { 1 + self.dice.below(rows - 1) }
    }
}
