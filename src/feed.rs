//! One instrument and how its newest bars come: its mode, and the way of each of its series from a
//! subscription that was acknowledged to one that has met what is stored.
//!
//! A series has *joined* when its pushes leave no hole after the stored bars: the bar that runs in
//! its pushes opens where the newest span ends, or before. Polling goes on until then.

use std::collections::BTreeMap;

use crate::bar::Bar;
use crate::control::{Follow, Line};
use crate::instrument::Instrument;
use crate::mode::{Change, Event, Mode, Rule, Switch};
use crate::time::{HOUR, Millis, Now, SECOND};

/// A subscription that brings no push for so long is taken for a quiet one.
const QUIET_MS: Millis = 5 * SECOND;
/// A series that cannot join for want of a page asks for one so often.
const PAGE_AGAIN_MS: Millis = 5 * SECOND;
/// A series is subscribed anew no sooner after the last time; the pause doubles.
const RENEW_AGAIN_MS: Millis = HOUR;
/// So many bars in a row that had to be looked up, and the stream is not what it says.
const LATE_MAX: u32 = 3;

/// What a feed has to know of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Where the stored bars end.
    pub head: Option<Millis>,
    /// Whether a newest page is on disk that was asked for after the subscription stood.
    pub is_fresh: bool,
}

/// One series of the instrument.
#[derive(Clone, Debug, Default)]
struct Leg {
    /// Since when it is subscribed.
    acked_at: Option<Now>,
    /// The open time of the newest bar that was pushed since.
    pushed: Option<Millis>,
    /// Why it is not.
    refused: Option<String>,
    joined: bool,
    /// Bars in a row whose confirm the stream has left out.
    late: u32,
    /// When it may be subscribed anew for that, local time, and the pause before that.
    renew_at: Millis,
    renew_pause_ms: Millis,
}

/// One instrument and how its newest bars come.
#[derive(Debug)]
pub struct Feed {
    /// Which.
    pub instrument: Instrument,
    switch: Switch,
    legs: BTreeMap<Bar, Leg>,
    changes: Vec<Change>,
}

impl Feed {
    /// An instrument without a stream yet.
    pub fn new(instrument: Instrument, rule: Rule, bars: &[Bar], now: Now) -> Feed {
        let legs = bars.iter().map(|&bar| (bar, Leg::default())).collect();
        let switch = Switch::new(rule, now.local);
        Feed { instrument, switch, legs, changes: Vec::new() }
    }

    /// Its mode, with cause and time.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Its series.
    pub fn bars(&self) -> impl Iterator<Item = Bar> + '_ {
        self.legs.keys().copied()
    }

    /// Why a series of it is not streamed although it could be.
    pub fn refusal(&self, bar: Bar) -> Option<&str> {
        self.legs.get(&bar)?.refused.as_deref()
    }

    /// Whether the stream brings the newest bars of a series.
    pub fn streams(&self, bar: Bar) -> bool {
        matches!(self.switch.mode(), Mode::Joining | Mode::Stream)
            && self.legs.get(&bar).is_some_and(|leg| leg.joined)
    }

    /// When a series was subscribed.
    pub fn acked_at(&self, bar: Bar) -> Option<Now> {
        self.legs.get(&bar)?.acked_at
    }

    /// Changes of the mode since the last call, for the log.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Other settings. What is subscribed stays so, until the stream says otherwise.
    pub fn configure(&mut self, rule: Rule, bars: &[Bar], now: Now) {
        self.legs.retain(|bar, _| bars.contains(bar));
        for &bar in bars {
            self.legs.entry(bar).or_default();
        }
        if let Some(change) = self.switch.configure(rule, now.local) {
            self.changes.push(change);
            self.go_on(now);
        }
    }

    /// The exchange has acknowledged the subscription of a series.
    pub fn acked(&mut self, bar: Bar, now: Now) {
        let Some(leg) = self.legs.get_mut(&bar) else { return };
        let Leg { renew_at, renew_pause_ms, .. } = *leg;
        *leg = Leg { acked_at: Some(now), renew_at, renew_pause_ms, ..Leg::default() };
        self.tell(Event::Acked, now);
    }

    /// The stream does not have a series, and its siblings go on.
    pub fn refused(&mut self, bar: Bar, cause: &str, now: Now) {
        let Some(leg) = self.legs.get_mut(&bar) else { return };
        *leg = Leg { refused: Some(cause.to_owned()), ..Leg::default() };
        if self.legs.values().all(|leg| leg.refused.is_some()) {
            self.tell(Event::Refused(cause.to_owned()), now);
        }
    }

    /// The stream has lost a series.
    pub fn lost_one(&mut self, bar: Bar, cause: &str, now: Now) {
        let Some(leg) = self.legs.get_mut(&bar) else { return };
        *leg = Leg::default();
        self.lose(cause, now);
    }

    /// The stream is lost.
    pub fn lost(&mut self, cause: &str, now: Now) {
        self.legs.values_mut().for_each(|leg| *leg = Leg::default());
        self.lose(cause, now);
    }

    /// Bars were pushed and are on disk, the newest of which opens at `newest`; the stream has
    /// `skipped` closed bars before them, or has `closed` one.
    pub fn pushed(&mut self, bar: Bar, newest: Millis, skipped: bool, closed: bool, now: Now) {
        let Some(leg) = self.legs.get_mut(&bar).filter(|leg| leg.acked_at.is_some()) else {
            return;
        };
        leg.pushed = leg.pushed.max(Some(newest));
        leg.late = if closed { 0 } else { leg.late };
        if skipped && leg.joined {
            leg.joined = false;
            self.lose(&format!("the stream has skipped bars of {bar}"), now);
        }
    }

    /// A bar of a series had to be looked up although it streams, and the stored bars end at `head`
    /// since; tells whether the series is to be subscribed anew.
    ///
    /// It is no loss: an idle series may have no pushes. Only where the stream has gone on to newer
    /// bars and left this one out, again and again, is another subscription worth a try, and less
    /// and less often. For an automatic instrument that is a bad stream.
    pub fn looked_up(&mut self, bar: Bar, head: Millis, now: Now) -> bool {
        let leaves_out = |leg: &&mut Leg| leg.joined && leg.pushed >= Some(head);
        let Some(leg) = self.legs.get_mut(&bar).filter(leaves_out) else { return false };
        leg.late += 1;
        if leg.late < LATE_MAX {
            return false;
        }
        leg.late = 0;
        let renews = now.local >= leg.renew_at;
        if renews {
            let pause_ms = leg.renew_pause_ms.max(RENEW_AGAIN_MS);
            let renew_at = now.local + pause_ms;
            *leg = Leg { renew_at, renew_pause_ms: 2 * pause_ms, ..Leg::default() };
        }
        if self.switch.is_automatic() {
            self.tell(Event::Stale, now);
            self.go_on(now);
        }
        renews
    }

    /// Time has passed, or something was stored: joins what has met. `known` tells what is stored
    /// of a series.
    pub fn check(&mut self, known: impl Fn(Bar, Now) -> Known, now: Now) {
        if let Some(change) = self.switch.tick(now.local) {
            self.changes.push(change);
        }
        if !self.switch.wants_stream() {
            // It is unsubscribed meanwhile, or about to be.
            self.legs.values_mut().for_each(|leg| *leg = Leg::default());
        }
        if !matches!(self.switch.mode(), Mode::Joining | Mode::Stream) {
            return;
        }
        for (&bar, leg) in &mut self.legs {
            if let (Some(acked_at), false) = (leg.acked_at, leg.joined) {
                let known = known(bar, acked_at);
                leg.joined = match leg.pushed {
                    Some(running) => known.head.is_some_and(|head| running <= head),
                    None => now.local >= acked_at.local + QUIET_MS && known.is_fresh,
                };
            }
        }
        let mut legs = self.legs.values().filter(|leg| leg.refused.is_none()).peekable();
        if self.switch.mode() == Mode::Joining
            && legs.peek().is_some()
            && legs.all(|leg| leg.joined)
        {
            self.tell(Event::Joined, now);
        }
    }

    /// How the newest bars of a series are to be fetched, now that its line does it in its way. A
    /// poll that is due already is for now.
    pub fn follow(&self, bar: Bar, line: &Line, now: Now) -> Follow {
        if self.streams(bar) {
            return Follow::Stream;
        }
        if matches!(self.switch.mode(), Mode::Wait | Mode::Off) {
            return Follow::Wait;
        }
        match line.follows() {
            Follow::Poll(_) if self.lacks_page(bar, line, now) => Follow::Poll(now.local),
            Follow::Poll(next) => Follow::Poll(next),
            _ => Follow::Poll(now.local),
        }
    }

    /// Whether a series that is subscribed cannot join before a page has come: the bars before its
    /// pushes are not stored, or there are no pushes to tell.
    fn lacks_page(&self, bar: Bar, line: &Line, now: Now) -> bool {
        let Some(leg) = self.legs.get(&bar) else { return false };
        let Some(acked_at) = leg.acked_at else { return false };
        let lacks = match leg.pushed {
            Some(running) => line.head().is_none_or(|head| running > head),
            None => {
                now.local >= acked_at.local + QUIET_MS && !line.is_fresh_since(acked_at.local, now)
            }
        };
        // The longer it lasts the less likely it is that the next page helps.
        let again_ms = PAGE_AGAIN_MS.max((now.local - acked_at.local) / 2);
        lacks && line.is_idle_since(now.local - again_ms, now)
    }

    fn lose(&mut self, cause: &str, now: Now) {
        self.tell(Event::Lost(cause.to_owned()), now);
        self.go_on(now);
    }

    /// Series that are still subscribed begin to join again at once.
    fn go_on(&mut self, now: Now) {
        if self.legs.values().any(|leg| leg.acked_at.is_some()) {
            self.tell(Event::Acked, now);
        }
    }

    fn tell(&mut self, event: Event, now: Now) {
        self.changes.extend(self.switch.on(event, now.local));
    }
}
