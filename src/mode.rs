//! The mode of one instrument: whether its newest bars come by the stream or by polling, and why.
//!
//! Settings give a [`Rule`]; events of the stream move a [`Switch`] along its drawn transitions:
//!
//! ```text
//!            acked              all joined
//!   Poll ───────────▶ Joining ────────────▶ Stream
//!    ▲ ▲                 │                     │
//!    │ └─────────────────┴──────── lost ───────┤
//!    │   30 s                                  │ lost, and not to poll at once
//!   Wait ◀─────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use crate::time::{HOUR, MINUTE, Millis, SECOND};

/// A patient rule polls only once a loss has lasted so long.
const PATIENCE_MS: Millis = 30 * SECOND;
/// Losses within this time are counted by the automatic rule.
const QUALITY_WINDOW_MS: Millis = 10 * MINUTE;
/// So many losses in it end in a cool-down.
const LOSSES_MAX: usize = 3;
/// The first cool-down; each further one is twice as long, up to an hour.
const COOL_DOWN_MS: Millis = MINUTE;
/// The longest cool-down.
const COOL_DOWN_MAX_MS: Millis = HOUR;

/// How fresh bars come.
///
/// ```
/// use okx_local_store::RealtimeMode;
///
/// assert_eq!("polling".parse(), Ok(RealtimeMode::Polling));
/// assert!("telegraph".parse::<RealtimeMode>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RealtimeMode {
    /// By the stream.
    Websocket,
    /// By asking at intervals.
    Polling,
    /// By the stream, and by asking as soon as it is lost.
    Hybrid,
    /// By the stream while it is good.
    Auto,
}

impl RealtimeMode {
    /// All of them.
    pub const ALL: [RealtimeMode; 4] =
        [RealtimeMode::Websocket, RealtimeMode::Polling, RealtimeMode::Hybrid, RealtimeMode::Auto];

    /// Its name in a configuration.
    ///
    /// ```
    /// use okx_local_store::RealtimeMode;
    ///
    /// let names = RealtimeMode::ALL.map(RealtimeMode::as_str);
    /// assert_eq!(names, ["websocket", "polling", "hybrid", "auto"]);
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RealtimeMode::Websocket => "websocket",
            RealtimeMode::Polling => "polling",
            RealtimeMode::Hybrid => "hybrid",
            RealtimeMode::Auto => "auto",
        }
    }
}

impl fmt::Display for RealtimeMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealtimeModeError(String);

impl fmt::Display for RealtimeModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no mode: give one of ", self.0)?;
        f.write_str(&RealtimeMode::ALL.map(RealtimeMode::as_str).join(", "))
    }
}

impl std::error::Error for RealtimeModeError {}

impl FromStr for RealtimeMode {
    type Err = RealtimeModeError;

    fn from_str(text: &str) -> Result<RealtimeMode, RealtimeModeError> {
        let found = RealtimeMode::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| RealtimeModeError(text.to_owned()))
    }
}

/// What is configured for an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// `instruments[].enabled`
    pub enabled: bool,
    /// `enable_websocket`
    pub stream: bool,
    /// `realtime_mode`
    pub mode: RealtimeMode,
    /// `instruments[].realtime_source`
    pub source: RealtimeMode,
    /// `instruments[].websocket_priority`
    pub priority: bool,
    /// `websocket_fallback_enabled` and `instruments[].fallback_to_polling`
    pub fallback: bool,
}

/// How an instrument is kept fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Not at all.
    Off,
    /// By polling.
    Poll,
    /// The stream has begun, its bars do not meet the stored ones yet. Polling goes on.
    Joining,
    /// By the stream.
    Stream,
    /// Neither: the stream is lost, and polling is not wanted, or not yet.
    Wait,
}

impl Mode {
    /// The mode of this word.
    pub(crate) fn named(name: &str) -> Option<Mode> {
        let modes = [Mode::Off, Mode::Poll, Mode::Joining, Mode::Stream, Mode::Wait];
        modes.into_iter().find(|mode| mode.as_str() == name)
    }

    /// The word in `status`.
    ///
    /// ```
    /// assert_eq!(okx_local_store::Mode::Joining.as_str(), "joining");
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Poll => "poll",
            Mode::Joining => "joining",
            Mode::Stream => "stream",
            Mode::Wait => "wait",
        }
    }
}

/// What the settings of an instrument amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Left alone, and why.
    Off,
    /// Polled for ever, and why.
    Poll(&'static str),
    /// Streamed.
    Stream {
        /// How a loss is met.
        loss: Loss,
        /// Whether too many losses lead to a cool-down.
        auto: bool,
    },
}

/// How the loss of the stream is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// By polling, at once.
    Poll,
    /// By polling, once it has lasted half a minute.
    PollLater,
    /// By waiting for the stream.
    Wait,
}

impl Rule {
    /// The first of the conditions that holds decides.
    pub fn of(wishes: Wishes) -> Rule {
        use RealtimeMode::{Auto, Hybrid, Polling, Websocket};
        let Wishes { mode, source, .. } = wishes;
        let meet = |loss| if wishes.fallback { loss } else { Loss::Wait };
        if !wishes.enabled {
            Rule::Off
        } else if !wishes.stream {
            Rule::Poll("enable_websocket is false")
        } else if mode == Polling || source == Polling {
            Rule::Poll("configured to poll")
        } else if !wishes.priority && source != Websocket {
            Rule::Poll("websocket_priority is false")
        } else if source == Websocket || (mode == Websocket && source == Hybrid) {
            Rule::Stream { loss: meet(Loss::PollLater), auto: false }
        } else {
            let auto = source == Auto || (mode == Auto && source == Hybrid);
            Rule::Stream { loss: meet(Loss::Poll), auto }
        }
    }
}

/// What happens to the stream of an instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The exchange has acknowledged a subscription.
    Acked,
    /// Every series that is not refused has met what is stored.
    Joined,
    /// The stream is lost, or has left something out.
    Lost(String),
    /// Every series was refused.
    Refused(String),
    /// What is stored lags although the stream seems to be there.
    Stale,
}

/// A change of mode, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: Mode,
    /// Now.
    pub to: Mode,
    /// Why.
    pub cause: String,
    /// Whether somebody has set it so, and nothing is wrong.
    pub chosen: bool,
}

/// The mode of one instrument and what led to it. Times are local.
#[derive(Clone, Debug)]
pub struct Switch {
    rule: Rule,
    mode: Mode,
    since: Millis,
    cause: String,
    losses: VecDeque<Millis>,
    cool_down_ms: Millis,
    cool_until: Option<Millis>,
    /// When the last cool-down ended.
    cooled_at: Option<Millis>,
}

impl Switch {
    /// An instrument at its start, when no stream is there yet.
    pub fn new(rule: Rule, now: Millis) -> Switch {
        let (mode, cause) = match rule {
            Rule::Off => (Mode::Off, "disabled"),
            Rule::Poll(why) => (Mode::Poll, why),
            Rule::Stream { loss: Loss::Poll, .. } => (Mode::Poll, "no stream yet"),
            Rule::Stream { .. } => (Mode::Wait, "no stream yet"),
        };
        Switch {
            rule,
            mode,
            since: now,
            cause: cause.to_owned(),
            losses: VecDeque::new(),
            cool_down_ms: COOL_DOWN_MS,
            cool_until: None,
            cooled_at: None,
        }
    }

    /// Other settings hold from now on. A stream that is there and still wanted goes on.
    pub fn configure(&mut self, rule: Rule, now: Millis) -> Option<Change> {
        let from = self.mode;
        let streams = matches!(self.mode, Mode::Joining | Mode::Stream);
        if let (Rule::Stream { .. }, true) = (rule, streams) {
            self.rule = rule;
        } else if rule != self.rule {
            *self = Switch::new(rule, now);
        }
        let (to, cause) = (self.mode, self.cause.clone());
        (from != to).then_some(Change { from, to, cause, chosen: true })
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Why it is in this mode.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Since when.
    pub fn since(&self) -> Millis {
        self.since
    }

    /// Whether too many losses lead to a cool-down.
    pub fn is_automatic(&self) -> bool {
        matches!(self.rule, Rule::Stream { auto: true, .. })
    }

    /// Whether it should be subscribed to now.
    pub fn wants_stream(&self) -> bool {
        matches!(self.rule, Rule::Stream { .. }) && self.cool_until.is_none()
    }

    /// Whether its newest bars are to be polled for.
    pub fn polls(&self) -> bool {
        matches!(self.mode, Mode::Poll | Mode::Joining)
    }

    /// When time alone may change the mode.
    pub fn deadline(&self) -> Option<Millis> {
        let patient = matches!(self.rule, Rule::Stream { loss: Loss::PollLater, .. });
        let poll_at = (self.mode == Mode::Wait && patient).then_some(self.since + PATIENCE_MS);
        poll_at.into_iter().chain(self.cool_until).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) -> Option<Change> {
        if self.cool_until.is_some_and(|until| now >= until) {
            self.cool_until = None;
            self.cooled_at = Some(now);
            self.cause = "the cool-down is over, no stream yet".to_owned();
        }
        let due = self.deadline().is_some_and(|at| now >= at);
        let waits = self.mode == Mode::Wait && due;
        waits.then(|| self.change(Mode::Poll, "the stream is lost for half a minute", now))
    }

    /// Something has happened to its stream.
    pub fn on(&mut self, event: Event, now: Millis) -> Option<Change> {
        let Rule::Stream { loss, auto } = self.rule else { return None };
        match (event, self.mode) {
            (Event::Acked, Mode::Poll | Mode::Wait) if self.cool_until.is_none() => {
                Some(self.change(Mode::Joining, "the stream has begun", now))
            }
            (Event::Joined, Mode::Joining) => {
                Some(self.change(Mode::Stream, "the stream has met what is stored", now))
            }
            (Event::Lost(cause), Mode::Joining | Mode::Stream) => {
                Some(self.lose(&cause, loss, auto, now))
            }
            (Event::Stale, Mode::Stream) => {
                Some(self.lose("the stream leaves bars out", loss, auto, now))
            }
            (Event::Refused(cause), Mode::Joining | Mode::Stream | Mode::Wait) => {
                let cause = format!("the stream was refused: {cause}");
                let to = if loss == Loss::Wait { Mode::Wait } else { Mode::Poll };
                Some(self.change(to, &cause, now))
            }
            (Event::Refused(cause), Mode::Poll) => {
                self.cause = format!("the stream was refused: {cause}");
                None
            }
            _ => None,
        }
    }

    fn lose(&mut self, cause: &str, loss: Loss, auto: bool, now: Millis) -> Change {
        self.losses.push_back(now);
        while self.losses.front().is_some_and(|&at| at <= now - QUALITY_WINDOW_MS) {
            self.losses.pop_front();
        }
        let tried_long = self.cooled_at.is_none_or(|at| at <= now - QUALITY_WINDOW_MS);
        if self.losses.len() == 1 && tried_long {
            // The last loss was long ago, and not for want of a stream: it is good again.
            self.cool_down_ms = COOL_DOWN_MS;
        }
        if auto && self.losses.len() >= LOSSES_MAX {
            self.cool_until = Some(now + self.cool_down_ms);
            let seconds = self.cool_down_ms / SECOND;
            self.cool_down_ms = (self.cool_down_ms * 2).min(COOL_DOWN_MAX_MS);
            // What was counted is paid for by the cool-down; one loss more starts the next.
            self.losses.drain(..1);
            let cause = format!("{cause}: lost too often, polled for {seconds} s");
            return self.change(Mode::Poll, &cause, now);
        }
        match loss {
            Loss::Poll => self.change(Mode::Poll, cause, now),
            Loss::PollLater | Loss::Wait => self.change(Mode::Wait, cause, now),
        }
    }

    fn change(&mut self, to: Mode, cause: &str, now: Millis) -> Change {
        let from = std::mem::replace(&mut self.mode, to);
        self.since = now;
        self.cause = cause.to_owned();
        Change { from, to, cause: cause.to_owned(), chosen: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Event {
        Event::Lost("connection down".to_owned())
    }

    fn streaming(loss: Loss, auto: bool) -> Switch {
        let mut switch = Switch::new(Rule::Stream { loss, auto }, 0);
        switch.on(Event::Acked, 0);
        switch.on(Event::Joined, 0);
        assert_eq!(switch.mode(), Mode::Stream);
        switch
    }

    #[test]
    fn each_row_of_the_table_of_modes() {
        use RealtimeMode::{Auto, Polling, Websocket};
        let stream = |loss, auto| Rule::Stream { loss, auto };
        let poll = Rule::Poll("configured to poll");
        let defaults = Wishes {
            enabled: true,
            stream: true,
            mode: RealtimeMode::Hybrid,
            source: RealtimeMode::Hybrid,
            priority: true,
            fallback: true,
        };
        let cases = [
            ("defaults", defaults, stream(Loss::Poll, false)),
            ("disabled", Wishes { enabled: false, ..defaults }, Rule::Off),
            (
                "no stream",
                Wishes { stream: false, ..defaults },
                Rule::Poll("enable_websocket is false"),
            ),
            ("mode polling", Wishes { mode: Polling, ..defaults }, poll),
            ("source polling", Wishes { source: Polling, ..defaults }, poll),
            (
                "no priority",
                Wishes { priority: false, ..defaults },
                Rule::Poll("websocket_priority is false"),
            ),
            (
                "no priority, but websocket",
                Wishes { priority: false, source: Websocket, ..defaults },
                stream(Loss::PollLater, false),
            ),
            ("source", Wishes { source: Websocket, ..defaults }, stream(Loss::PollLater, false)),
            ("mode", Wishes { mode: Websocket, ..defaults }, stream(Loss::PollLater, false)),
            (
                "no fallback",
                Wishes { source: Websocket, fallback: false, ..defaults },
                stream(Loss::Wait, false),
            ),
            ("hybrid, none", Wishes { fallback: false, ..defaults }, stream(Loss::Wait, false)),
            ("source auto", Wishes { source: Auto, ..defaults }, stream(Loss::Poll, true)),
            ("mode auto", Wishes { mode: Auto, ..defaults }, stream(Loss::Poll, true)),
        ];
        for (name, wishes, rule) in cases {
            assert_eq!(Rule::of(wishes), rule, "{name}");
        }
    }

    #[test]
    fn other_settings_leave_a_stream_alone_and_end_a_needless_wait() {
        let (hybrid, never) = (Loss::Poll, Loss::Wait);
        let rule = |loss| Rule::Stream { loss, auto: false };
        let mut switch = streaming(hybrid, false);
        assert_eq!(switch.configure(rule(never), 5), None);
        assert_eq!(switch.mode(), Mode::Stream);
        assert_eq!(switch.on(lost(), 6).unwrap().to, Mode::Wait, "the new settings hold");
        assert_eq!(switch.configure(rule(hybrid), 7).unwrap().to, Mode::Poll);
        let poll = Rule::Poll("configured to poll");
        let mut switch = streaming(hybrid, false);
        let change = switch.configure(poll, 8).unwrap();
        assert!(change.chosen, "nothing is wrong where somebody has set it so");
        assert_eq!((change.to, change.cause.as_str()), (Mode::Poll, "configured to poll"));
        assert_eq!(switch.configure(poll, 9), None);
    }

    #[test]
    fn a_hybrid_polls_at_once_and_joins_again() {
        let mut switch = streaming(Loss::Poll, false);
        let change = switch.on(lost(), 5).unwrap();
        assert_eq!((change.from, change.to), (Mode::Stream, Mode::Poll));
        assert_eq!((switch.cause(), switch.since()), ("connection down", 5));
        assert!(switch.polls() && switch.wants_stream());
        assert_eq!(switch.on(Event::Acked, 9).unwrap().to, Mode::Joining);
        assert!(switch.polls(), "polling goes on while it joins");
        assert_eq!(switch.on(Event::Joined, 9).unwrap().to, Mode::Stream);
        assert!(!switch.polls());
    }

    #[test]
    fn a_patient_one_polls_after_half_a_minute_and_one_without_fallback_never() {
        let mut switch = streaming(Loss::PollLater, false);
        assert_eq!(switch.on(lost(), 1_000).unwrap().to, Mode::Wait);
        assert_eq!(switch.deadline(), Some(31_000));
        assert_eq!(switch.tick(30_999), None);
        assert_eq!(switch.tick(31_000).unwrap().to, Mode::Poll);

        let mut switch = streaming(Loss::Wait, false);
        assert_eq!(switch.on(lost(), 1_000).unwrap().to, Mode::Wait);
        assert_eq!((switch.deadline(), switch.tick(HOUR)), (None, None));
        assert_eq!(switch.on(Event::Acked, HOUR).unwrap().to, Mode::Joining);
    }

    #[test]
    fn an_automatic_one_cools_down_longer_each_time_and_forgets() {
        let mut switch = streaming(Loss::Poll, true);
        let mut now = 0;
        let mut lose = |switch: &mut Switch| {
            now += SECOND;
            switch.on(lost(), now);
            let cool = switch.deadline().map(|until| until - now);
            now += cool.unwrap_or(0);
            switch.tick(now);
            switch.on(Event::Acked, now);
            switch.on(Event::Joined, now);
            assert_eq!(switch.mode(), Mode::Stream);
            cool
        };
        // From the fifth cool-down on the losses before it are long ago when it ends, so that three
        // new ones lead to the next. The stream was not good meanwhile, it was not there.
        let cools: Vec<_> = (0..16).filter_map(|_| lose(&mut switch)).collect();
        let minutes: Vec<_> = cools.iter().map(|cool| cool / MINUTE).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60]);
        now += 2 * HOUR;
        switch.on(lost(), now);
        assert_eq!(switch.deadline(), None, "after an hour without a loss it is good again");
    }

    #[test]
    fn a_refused_one_polls_and_a_disabled_one_does_nothing() {
        for (loss, mode) in
            [(Loss::Poll, Mode::Poll), (Loss::PollLater, Mode::Poll), (Loss::Wait, Mode::Wait)]
        {
            let mut switch = streaming(loss, false);
            let change = switch.on(Event::Refused("60018".into()), 1).unwrap();
            assert_eq!(change.to, mode, "who may not poll never does: {loss:?}");
        }
        let mut switch = Switch::new(Rule::Off, 0);
        for event in [Event::Acked, Event::Joined, lost(), Event::Stale] {
            assert_eq!(switch.on(event, 1), None);
        }
        assert!(!switch.polls() && !switch.wants_stream());
    }
}
