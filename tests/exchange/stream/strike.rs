//! What goes wrong with the stream, and when.
//!
//! Some faults are deeds: they happen once, to the connections there are. The others are states,
//! which last until their time is over or the stream is healed.

use super::super::dice::Dice;
use super::Series;

/// How connections are kept from coming about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refuse {
    /// RST where the answer to the upgrade should be.
    Reset,
    /// That HTTP status, with the edge proxy's page.
    Http(u16),
}

/// Something that no client of candles expects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Garbage {
    InvalidJson,
    Binary,
    /// A text frame that is not UTF-8.
    InvalidUtf8,
    /// A candle of numbers that no f64 and no i64 holds.
    HugeNumbers,
    /// A candle with a field that is no number.
    NoNumber,
    UnknownEvent,
    /// A candle of a series that nobody asked for.
    Stranger,
}

impl Garbage {
    pub const ALL: [Garbage; 7] = [
        Garbage::InvalidJson,
        Garbage::Binary,
        Garbage::InvalidUtf8,
        Garbage::HugeNumbers,
        Garbage::NoNumber,
        Garbage::UnknownEvent,
        Garbage::Stranger,
    ];
}

/// One way for the stream to be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamFault {
    // Deeds.
    /// FIN without a close frame.
    Drop,
    /// RST.
    Reset,
    /// A close frame with that code; 1006 has none and is a drop.
    Close(u16),
    /// Notice 64008, and the end of those connections so many ms later.
    Notice {
        close_after_ms: u64,
    },
    Garbage(Garbage),
    /// A text frame of so many bytes, all of them sent.
    Oversized(u64),
    /// A frame's header that announces so many bytes, after which nothing comes.
    Announced(u64),

    // States of new connections.
    Refuse(Refuse),

    // States of connections.
    /// Nothing is sent, not even a pong; what comes in is read.
    Silence,
    /// Pings of either kind are not answered; the rest goes on.
    DeafToPings,
    /// Nothing is sent, nothing is read.
    HalfOpen,
    /// Everything is sent in pieces.
    Drip {
        bytes: usize,
        pause_ms: u64,
    },
    LostAcks,
    LateAcks(u64),
    /// The snapshot comes before the acknowledgement.
    DataFirst,
    /// More subscriptions than `most` end the connection with `code`.
    ChannelLimit {
        most: usize,
        code: u16,
    },

    // States of series.
    /// Subscribing is answered as if the series did not exist.
    RefuseSeries,
    /// Bars end without their closing push.
    NoConfirms,
    /// The closing push comes so many ms of the exchange's time late; the next bar's do not wait.
    LateConfirms(u64),
    /// Each push comes twice.
    Duplicates,
    /// After each push comes the one before it; after a closing push, the bar's last running one.
    OutOfOrder,
}

impl StreamFault {
    /// Whether it happens once.
    pub fn is_deed(&self) -> bool {
        let ends = matches!(self, Self::Drop | Self::Reset | Self::Close(_) | Self::Notice { .. });
        ends || matches!(self, Self::Garbage(_) | Self::Oversized(_) | Self::Announced(_))
    }

    /// Each fault once, in a form that costs seconds at most.
    pub fn all() -> Vec<StreamFault> {
        let mut all = Self::passing();
        all.extend([Self::RefuseSeries, Self::ChannelLimit { most: 10, code: 4008 }]);
        all.extend([4008, 4009].map(Self::Close));
        all
    }

    /// The faults that pass without a trace: once they are over, a client can stream all that it
    /// streamed before. The others tell it that the exchange will not have it.
    pub fn passing() -> Vec<StreamFault> {
        let mut passing = vec![
            Self::Drop,
            Self::Reset,
            Self::Notice { close_after_ms: 2_000 },
            Self::Oversized(8 << 20),
            Self::Announced(1 << 30),
            Self::Refuse(Refuse::Reset),
            Self::Silence,
            Self::DeafToPings,
            Self::HalfOpen,
            Self::Drip { bytes: 64, pause_ms: 2 },
            Self::LostAcks,
            Self::LateAcks(700),
            Self::DataFirst,
            Self::NoConfirms,
            Self::LateConfirms(4_000),
            Self::Duplicates,
            Self::OutOfOrder,
        ];
        passing.extend([1001, 1006, 1009, 4004, 4005, 4006].map(Self::Close));
        passing.extend([403, 429, 503].map(|status| Self::Refuse(Refuse::Http(status))));
        passing.extend(Garbage::ALL.map(Self::Garbage));
        passing
    }
}

/// When a fault strikes, how long it lasts and whom it concerns.
#[derive(Clone, Debug)]
pub struct Strike {
    fault: StreamFault,
    after_ms: u64,
    lasting_ms: Option<u64>,
    only: Option<Series>,
    present: bool,
}

impl From<StreamFault> for Strike {
    fn from(fault: StreamFault) -> Self {
        Self::new(fault)
    }
}

impl Strike {
    /// At once, for all, and until it is healed.
    pub fn new(fault: StreamFault) -> Self {
        Self { fault, after_ms: 0, lasting_ms: None, only: None, present: false }
    }

    /// So many real ms later: than the call, or for a builder's than the start of the exchange.
    pub fn after(mut self, ms: u64) -> Self {
        self.after_ms = ms;
        self
    }

    /// For so many real ms.
    pub fn lasting(mut self, ms: u64) -> Self {
        self.lasting_ms = Some(ms);
        self
    }

    /// For that series alone; has no meaning for faults of connections.
    pub fn only(mut self, symbol: &str, bar: &str) -> Self {
        self.only = Some(Series::named(symbol, bar));
        self
    }

    /// For the connections that are open when it strikes: later ones are well.
    pub fn on_present(mut self) -> Self {
        self.present = true;
        self
    }

    /// All passing faults in an order that the seed decides, over and over: `count` of them, one
    /// every `every_ms` from `start_ms` on. States last half of that.
    pub fn chaos(seed: u64, start_ms: u64, every_ms: u64, count: usize) -> Vec<Strike> {
        let mut dice = Dice::new(seed);
        let mut deck = Vec::new();
        let draw = |index: usize| {
            if deck.is_empty() {
                deck = StreamFault::passing();
            }
            let fault = deck.swap_remove(dice.below(deck.len()));
            let after_ms = start_ms + index as u64 * every_ms;
            Strike::new(fault).after(after_ms).lasting(every_ms / 2)
        };
        (0..count).map(draw).collect()
    }
}

/// A state that is in force.
struct State {
    fault: StreamFault,
    until_ms: Option<u64>,
    only: Option<Series>,
    newest_link: Option<u64>,
}

/// The faults to come and those in force.
#[derive(Default)]
pub struct Strikes {
    coming: Vec<(u64, Strike)>,
    states: Vec<State>,
    /// When the connections up to a number end, for they were told so.
    ends: Vec<(u64, u64)>,
}

impl Strikes {
    pub fn add(&mut self, now_ms: u64, strike: Strike) {
        self.coming.push((now_ms.saturating_add(strike.after_ms), strike));
    }

    /// Ends all states, and cancels what is to come.
    pub fn heal(&mut self) {
        self.coming.clear();
        self.states.clear();
        self.ends.clear();
    }

    /// Forgets states whose time is over and gives the faults whose time has come. States among
    /// them are in force from now on; deeds are the caller's to do.
    pub fn due(&mut self, now_ms: u64, newest_link: u64) -> Vec<StreamFault> {
        self.states.retain(|state| state.until_ms.is_none_or(|until_ms| now_ms < until_ms));
        let mut due: Vec<_> = self.coming.extract_if(.., |(at_ms, _)| *at_ms <= now_ms).collect();
        due.sort_by_key(|(at_ms, _)| *at_ms);
        for (_, strike) in &due {
            if !strike.fault.is_deed() {
                self.states.push(State {
                    fault: strike.fault,
                    until_ms: strike.lasting_ms.map(|ms| now_ms.saturating_add(ms)),
                    only: strike.only.clone(),
                    newest_link: strike.present.then_some(newest_link),
                });
            }
        }
        due.into_iter().map(|(_, strike)| strike.fault).collect()
    }

    /// Plans the end of all connections up to that number.
    pub fn end_links(&mut self, at_ms: u64, newest: u64) {
        self.ends.push((at_ms, newest));
    }

    /// Up to which number connections end now.
    pub fn ended_links(&mut self, now_ms: u64) -> Option<u64> {
        let due = self.ends.extract_if(.., |(at_ms, _)| *at_ms <= now_ms);
        due.map(|(_, newest)| newest).max()
    }

    /// What `pick` finds in the newest state that concerns the connection of that number.
    pub fn of_link<T>(&self, link: u64, pick: impl Fn(&StreamFault) -> Option<T>) -> Option<T> {
        let concerned = |state: &&State| state.newest_link.is_none_or(|newest| link <= newest);
        self.states.iter().rev().filter(concerned).find_map(|state| pick(&state.fault))
    }

    /// What `pick` finds in the newest state that concerns the series.
    pub fn of_series<T>(
        &self,
        series: &Series,
        pick: impl Fn(&StreamFault) -> Option<T>,
    ) -> Option<T> {
        let concerned = |state: &&State| state.only.as_ref().is_none_or(|only| only == series);
        self.states.iter().rev().filter(concerned).find_map(|state| pick(&state.fault))
    }

    /// How a connection that would be the next one is refused.
    pub fn refusal(&self) -> Option<Refuse> {
        self.states.iter().rev().find_map(|state| match state.fault {
            StreamFault::Refuse(refuse) => Some(refuse),
            _ => None,
        })
    }

    pub fn silent(&self, link: u64) -> bool {
        self.of_link(link, |fault| (*fault == StreamFault::Silence).then_some(())).is_some()
    }

    pub fn deaf(&self, link: u64) -> bool {
        self.of_link(link, |fault| (*fault == StreamFault::DeafToPings).then_some(())).is_some()
    }

    pub fn half_open(&self, link: u64) -> bool {
        self.of_link(link, |fault| (*fault == StreamFault::HalfOpen).then_some(())).is_some()
    }

    /// Whether exactly that fault is in force for the series.
    pub fn spoils(&self, series: &Series, wanted: StreamFault) -> bool {
        self.of_series(series, |fault| (*fault == wanted).then_some(())).is_some()
    }

    /// By how much closing pushes of the series are late.
    pub fn confirm_delay_ms(&self, series: &Series) -> i64 {
        let late = self.of_series(series, |fault| match fault {
            StreamFault::LateConfirms(ms) => Some(*ms as i64),
            _ => None,
        });
        late.unwrap_or(0)
    }
}
