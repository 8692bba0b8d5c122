//! The mind of the daemon: which instruments are kept, how the newest bars of each come, and what
//! is asked and subscribed for that.
//!
//! It stands over [`Control`], which asks for pages, and over one `Feed` for each instrument,
//! which knows its mode. A one-shot command has no feeds: then this adds nothing.
//!
//! **Invariant:** a series is left to the stream only while its feed has joined; in every other
//! mode but waiting it is polled. So nothing is ever waited for that nobody brings.

mod message;

use std::collections::{BTreeMap, BTreeSet};

use crate::control::{self, Control, Damage, Follow, Line};
use crate::feed::{Feed, Known};
use crate::instrument::{Instrument, Series};
use crate::link::{Order, Report};
use crate::mode::{Change, Mode};
use crate::page::Stored;
use crate::plan::Wanted;
use crate::time::{MINUTE, Millis, Now, SECOND, format_length};
use crate::wire::Endpoint;

pub use message::{Action, Input, Member};

/// How often time alone is looked at: modes change after seconds, not sooner.
const TICK_MS: Millis = 200;
/// Series are subscribed anew no more often: a connection has 480 requests an hour.
const RENEW_MS: Millis = MINUTE;
/// The exchange's clock is doubted no more often.
const DOUBT_AGAIN_MS: Millis = MINUTE;
/// A bar is seen no sooner before it opens, by two clocks that are nearly right.
const AHEAD_MS: Millis = 2 * SECOND;

/// What one command wants of a running daemon.
#[derive(Debug)]
struct Demand {
    /// The series, by their place, and what they had counted when it began: closed, revised.
    lines: Vec<(usize, u64, u64)>,
}

/// The mind of the daemon.
#[derive(Debug)]
pub struct Keeper {
    control: Control,
    feeds: BTreeMap<Instrument, Feed>,
    /// The place of each series among the lines of [`Control`].
    places: BTreeMap<Series, usize>,
    /// Series that a command alone wants.
    guests: BTreeSet<Series>,
    demands: BTreeMap<u64, Demand>,
    /// Whether all of old history is fetched from the start.
    all_history: bool,
    /// What the stream was told to bring last.
    streamed: BTreeSet<Series>,
    orders: Vec<Order>,
    changes: Vec<(Instrument, Change)>,
    /// Instruments whose files cannot be written, and why.
    quarantined: BTreeMap<Instrument, String>,
    /// Those of them of which nobody was told yet.
    damages: Vec<(Instrument, String)>,
    /// Series to subscribe anew, and when that was done last.
    renewals: BTreeSet<Series>,
    renewed_at: Millis,
    /// When the exchange's clock was doubted last.
    doubted_at: Millis,
    tick_at: Millis,
    ticked_at: Millis,
    /// Polls that streaming has made needless.
    saved: f64,
}

impl Keeper {
    /// A mind that keeps nothing fresh: one run of `control`.
    pub fn new(control: Control) -> Keeper {
        Keeper {
            control,
            feeds: BTreeMap::new(),
            places: BTreeMap::new(),
            guests: BTreeSet::new(),
            demands: BTreeMap::new(),
            all_history: true,
            streamed: BTreeSet::new(),
            orders: Vec::new(),
            changes: Vec::new(),
            quarantined: BTreeMap::new(),
            damages: Vec::new(),
            renewals: BTreeSet::new(),
            renewed_at: Millis::MIN,
            doubted_at: Millis::MIN,
            tick_at: Millis::MIN,
            ticked_at: Millis::MAX,
            saved: 0.0,
        }
    }

    /// The same, but what is older than the stored bars waits for the first interval.
    pub fn without_old_history(mut self) -> Keeper {
        self.all_history = false;
        self
    }

    /// The mind over requests.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The same, when nothing else is left to decide.
    pub fn into_control(self) -> Control {
        self.control
    }

    /// An instrument that is kept.
    pub fn feed(&self, instrument: &Instrument) -> Option<&Feed> {
        self.feeds.get(instrument)
    }

    /// Other processes were granted requests.
    pub fn spent(&mut self, grants: &[(Endpoint, Millis)], now: Now) {
        self.control.spent(grants, now);
    }

    /// The instruments that are kept.
    pub fn feeds(&self) -> impl Iterator<Item = &Feed> {
        self.feeds.values()
    }

    /// The lines of all series that are kept.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.kept().filter_map(|series| self.line(&series))
    }

    /// The line of a series.
    pub fn line(&self, series: &Series) -> Option<&Line> {
        self.places.get(series).map(|&place| &self.control.lines()[place])
    }

    /// Why the file of an instrument is not written.
    pub fn quarantine(&self, instrument: &Instrument) -> Option<&str> {
        self.quarantined.get(instrument).map(String::as_str)
    }

    /// Requests that polling would have made, and the stream has saved.
    pub fn saved(&self) -> u64 {
        self.saved as u64
    }

    /// Changes of modes since the last call, for the log.
    pub fn take_changes(&mut self) -> Vec<(Instrument, Change)> {
        std::mem::take(&mut self.changes)
    }

    /// Instruments whose file is left alone since the last call, and why, for the log.
    pub fn take_damages(&mut self) -> Vec<(Instrument, String)> {
        std::mem::take(&mut self.damages)
    }

    /// Failures and oddities since the last call, for the log.
    pub fn take_remarks(&mut self) -> Vec<String> {
        self.control.take_remarks()
    }

    /// Outages of the exchange that have ended since the last call, for the log.
    pub fn take_recoveries(&mut self) -> Vec<String> {
        self.control.take_recoveries()
    }

    /// Which of these series it has no line for, so that [`Keeper::configure`] or
    /// [`Keeper::demand`] has to be given one.
    pub fn unknown(&self, series: impl Iterator<Item = Series>) -> Vec<Series> {
        series.filter(|series| !self.places.contains_key(series)).collect()
    }

    /// Keeps these instruments from now on, and no others. `lines` has the plans of those series
    /// that were unknown.
    pub fn configure(&mut self, members: &[Member], lines: Vec<Line>, now: Now) {
        let wanted: BTreeSet<Series> = members.iter().flat_map(Member::series).collect();
        let gone: Vec<Series> = self.kept().filter(|series| !wanted.contains(series)).collect();
        gone.iter().for_each(|series| self.retire(series));
        self.feeds.retain(|name, _| members.iter().any(|member| member.instrument == *name));
        let new: Vec<Series> = lines.iter().map(|line| line.series.clone()).collect();
        let unread = lines
            .iter()
            .filter_map(|line| Some((line.series.instrument.clone(), line.error.clone()?)));
        let unread: Vec<_> = unread.collect();
        lines.into_iter().for_each(|line| self.adopt(line));
        for member in members {
            self.keep(member, now);
        }
        if !self.all_history {
            for place in new.iter().filter_map(|series| self.places.get(series)) {
                self.control.line_mut(*place).hold_history(now);
            }
        }
        for (instrument, error) in unread {
            self.note_damage(&instrument, &error, Damage::File, now);
        }
        self.settle(now);
    }

    /// Takes up again what was given up for a damaged file: somebody may have mended it, or moved
    /// it away. Nothing that was known of it holds any more, so all of its series are unknown until
    /// they are configured again.
    pub fn pardon(&mut self) {
        for instrument in std::mem::take(&mut self.quarantined).into_keys() {
            let series: Vec<Series> =
                self.kept().filter(|series| series.instrument == instrument).collect();
            series.iter().for_each(|series| self.retire(series));
        }
        // What a command alone wants has no feed to be quarantined.
        let given_up = |series: &&Series| self.line(series).is_some_and(Line::is_given_up);
        let guests: Vec<Series> = self.guests.iter().filter(given_up).cloned().collect();
        guests.iter().for_each(|series| self.retire(series));
    }

    /// A command wants these bars. `lines` has the plans of those series that were unknown.
    pub fn demand(&mut self, number: u64, wanted: &[(Series, Wanted)], lines: Vec<Line>) {
        for line in lines {
            self.guests.insert(line.series.clone());
            self.adopt(line);
        }
        let mut demand = Demand { lines: Vec::new() };
        for (series, wanted) in wanted {
            let Some(&place) = self.places.get(series) else { continue };
            let line = self.control.line_mut(place);
            if self.quarantined.contains_key(&series.instrument) {
                // Its error stands, and is the answer.
            } else {
                line.demand(number, *wanted);
            }
            demand.lines.push((place, line.closed, line.revised));
        }
        self.demands.insert(number, demand);
    }

    /// The command is over, done or not.
    pub fn dismiss(&mut self, number: u64) {
        let Some(demand) = self.demands.remove(&number) else { return };
        for (place, ..) in demand.lines {
            self.control.line_mut(place).dismiss(number);
            let series = self.control.lines()[place].series.clone();
            let wanted = self.demands.values().any(|d| d.lines.iter().any(|l| l.0 == place));
            if !wanted && self.guests.contains(&series) {
                self.retire(&series);
            }
        }
    }

    /// The lines that a command wants, with what each had counted when it began.
    pub fn demanded(&self, number: u64) -> impl Iterator<Item = (&Line, u64, u64)> {
        let lines = self.demands.get(&number).into_iter().flat_map(|demand| &demand.lines);
        lines.map(|&(place, closed, revised)| (&self.control.lines()[place], closed, revised))
    }

    /// Has the stream told something beside what the mind tells it.
    pub fn tell_stream(&mut self, order: Order) {
        self.orders.push(order);
    }

    /// Takes in what has happened.
    pub fn on(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Control(input) => return self.on_control(now, input),
            Input::Pushed { series, stored } => return self.on_pushed(series, stored, now),
            Input::Streamed(report) => return self.on_streamed(report, now),
            Input::PushBroken { instrument, error, damage } => {
                self.control.quarantine(instrument, error, damage, now);
                self.note_damage(instrument, error, damage, now);
            }
            Input::Slept { length_ms } => {
                let cause = format!("the machine slept for {}", format_length(length_ms));
                self.feeds.values_mut().for_each(|feed| feed.lost(&cause, now));
                self.orders.push(Order::Reconnect(cause));
                self.control.doubt_clock(now);
            }
            Input::Audited { series, lost } => {
                if let Some(&place) = self.places.get(series) {
                    self.control.line_mut(place).uncover(lost);
                }
                return;
            }
        }
        self.settle(now);
    }

    /// What is to be done next, now.
    pub fn next(&mut self, now: Now) -> Option<Action> {
        if now.local >= self.tick_at && !self.feeds.is_empty() {
            self.tick_at = now.local + TICK_MS;
            self.tick(now);
        }
        if !self.orders.is_empty() {
            return Some(Action::Stream(self.orders.remove(0)));
        }
        self.control.next(now).map(Action::Fetch)
    }

    /// When, in local time, [`Keeper::next`] may have something to do without anything having
    /// happened.
    pub fn deadline(&self, now: Now) -> Option<Millis> {
        let tick = (!self.feeds.is_empty() && !self.control.was_stopped()).then_some(self.tick_at);
        self.control.deadline(now).into_iter().chain(tick).min()
    }

    fn on_control(&mut self, now: Now, input: control::Input<'_>) {
        let stored = match &input {
            control::Input::Stored { ticket, stored } => {
                let place = self.control.place_of(*ticket);
                if is_ahead(stored) {
                    self.doubt_clock(now);
                }
                place
            }
            _ => None,
        };
        let broken = match &input {
            control::Input::Broken { ticket, error, damage } => {
                self.control.place_of(*ticket).map(|place| (place, error.clone(), *damage))
            }
            _ => None,
        };
        let head = stored.and_then(|place| self.control.lines()[place].head());
        self.control.on(now, input);
        if let Some(place) = stored {
            self.on_looked_up(place, head, now);
        }
        if let Some((place, error, damage)) = broken {
            let instrument = self.control.lines()[place].series.instrument.clone();
            self.note_damage(&instrument, &error, damage, now);
            self.settle(now);
        }
    }

    /// A page has closed a bar that the stream was to close.
    fn on_looked_up(&mut self, place: usize, head: Option<Millis>, now: Now) {
        let line = &self.control.lines()[place];
        let series = line.series.clone();
        let (Some(before), Some(after)) = (head, line.head()) else {
            return self.settle_one(&series.instrument, now);
        };
        let closed = after > before;
        let Some(feed) = self.feeds.get_mut(&series.instrument) else { return };
        if closed && feed.looked_up(series.bar, after, now) {
            self.renewals.insert(series.clone());
        }
        self.settle_one(&series.instrument, now);
    }

    fn on_streamed(&mut self, report: Report, now: Now) {
        let (series, cause) = match &report {
            Report::Up => return self.doubt_clock(now),
            Report::Health(_) => return,
            Report::Down { cause } => {
                self.feeds.values_mut().for_each(|feed| feed.lost(cause, now));
                return self.settle(now);
            }
            Report::Acked(series) => (series, None),
            Report::Refused { series, cause } | Report::Lost { series, cause } => {
                (series, Some(cause))
            }
        };
        let Some(feed) = self.feeds.get_mut(&series.instrument) else { return };
        match (&report, cause) {
            (Report::Refused { .. }, Some(cause)) => feed.refused(series.bar, cause, now),
            (_, Some(cause)) => feed.lost_one(series.bar, cause, now),
            (_, None) => feed.acked(series.bar, now),
        }
        self.settle_one(&series.instrument, now);
    }

    fn on_pushed(&mut self, series: &Series, stored: &Stored, now: Now) {
        let Some(&place) = self.places.get(series) else { return };
        let skipped = self.control.pushed(place, stored);
        let Some((_, newest)) = stored.evidence.extent else { return };
        if is_ahead(stored) {
            // It proves nothing of what is before it.
            self.doubt_clock(now);
            return;
        }
        if let Some(feed) = self.feeds.get_mut(&series.instrument) {
            let closed = !stored.evidence.vouched.is_empty();
            feed.pushed(series.bar, newest, skipped, closed, now);
        }
        self.settle_one(&series.instrument, now);
    }

    fn note_damage(&mut self, instrument: &Instrument, error: &str, damage: Damage, now: Now) {
        let Some(feed) = self.feeds.get_mut(instrument) else { return };
        if damage == Damage::File && !self.quarantined.contains_key(instrument) {
            // It is about to be unsubscribed, and has to join anew once it is taken up again.
            feed.lost("its file is left alone", now);
            self.quarantined.insert(instrument.clone(), error.to_owned());
            self.damages.push((instrument.clone(), error.to_owned()));
        }
    }

    /// Brings everything into line with the modes: who joins, who is polled, what is subscribed.
    fn settle(&mut self, now: Now) {
        let names: Vec<Instrument> = self.feeds.keys().cloned().collect();
        names.iter().for_each(|name| self.settle_one(name, now));
        let wants = |feed: &&Feed| {
            feed.switch().wants_stream() && !self.quarantined.contains_key(&feed.instrument)
        };
        let streamed: BTreeSet<Series> =
            self.feeds.values().filter(wants).flat_map(series).collect();
        if streamed != self.streamed {
            self.orders.push(Order::Want(streamed.clone()));
            self.streamed = streamed;
        }
    }

    /// The same for one instrument, apart from what is subscribed.
    fn settle_one(&mut self, instrument: &Instrument, now: Now) {
        let Some(feed) = self.feeds.get_mut(instrument) else { return };
        let (control, places) = (&self.control, &self.places);
        let line = |bar| {
            let series = Series { instrument: instrument.clone(), bar };
            places.get(&series).map(|&place| (place, &control.lines()[place]))
        };
        let known = |bar, acked_at: Now| {
            let line = line(bar).map(|(_, line)| line);
            Known {
                head: line.and_then(Line::head),
                is_fresh: line.is_some_and(|line| line.is_fresh_since(acked_at.local, now)),
            }
        };
        feed.check(known, now);
        let changed = feed.take_changes().into_iter().map(|change| (instrument.clone(), change));
        self.changes.extend(changed);
        let due: Vec<(usize, Follow)> = feed
            .bars()
            .filter_map(|bar| {
                let (place, line) = line(bar)?;
                let follow = feed.follow(bar, line, now);
                (follow != line.follows()).then_some((place, follow))
            })
            .collect();
        for (place, follow) in due {
            let line = self.control.line_mut(place);
            match follow {
                Follow::Stream => line.stream(now),
                Follow::Wait => line.wait(now),
                Follow::Poll(_) => line.poll(now),
            }
        }
    }

    /// Has the exchange's clock read, at most once in a while.
    fn doubt_clock(&mut self, now: Now) {
        if now.local >= self.doubted_at.saturating_add(DOUBT_AGAIN_MS) {
            self.doubted_at = now.local;
            self.control.doubt_clock(now);
        }
    }

    /// Subscribes anew, all at once, what the stream leaves bars out of: the exchange counts
    /// requests, however many series they name.
    fn renew(&mut self, now: Now) {
        if !self.renewals.is_empty() && now.local >= self.renewed_at.saturating_add(RENEW_MS) {
            self.renewed_at = now.local;
            self.orders.push(Order::Renew(std::mem::take(&mut self.renewals)));
        }
    }

    fn tick(&mut self, now: Now) {
        self.renew(now);
        let since_ms = (now.local - self.ticked_at).max(0) as f64;
        self.ticked_at = now.local;
        for feed in self.feeds.values().filter(|feed| feed.switch().mode() == Mode::Stream) {
            for series in series(feed).filter(|series| feed.streams(series.bar)) {
                if let Some(line) = self.line(&series) {
                    self.saved += since_ms / line.interval_ms() as f64;
                }
            }
        }
        self.settle(now);
    }

    fn kept(&self) -> impl Iterator<Item = Series> + '_ {
        self.feeds.values().flat_map(series)
    }

    fn keep(&mut self, member: &Member, now: Now) {
        let Member { instrument, bars, rule, interval_ms, history_days } = member;
        match self.feeds.get_mut(instrument) {
            Some(feed) => feed.configure(*rule, bars, now),
            None => {
                let feed = Feed::new(instrument.clone(), *rule, bars, now);
                self.feeds.insert(instrument.clone(), feed);
            }
        }
        for series in member.series() {
            self.guests.remove(&series);
            if let Some(&place) = self.places.get(&series) {
                let line = self.control.line_mut(place);
                line.configure(*interval_ms, Wanted::Days(*history_days), now);
            }
        }
    }

    fn adopt(&mut self, line: Line) {
        let series = line.series.clone();
        let place = self.control.adopt(line);
        self.places.insert(series, place);
    }

    fn retire(&mut self, series: &Series) {
        self.guests.remove(series);
        if let Some(place) = self.places.remove(series) {
            self.control.retire(place);
            self.demands.values_mut().for_each(|demand| demand.lines.retain(|it| it.0 != place));
        }
    }
}

/// Whether a bar has come before it opens: either the row is wrong, or our clock is.
fn is_ahead(stored: &Stored) -> bool {
    stored.evidence.extent.is_some_and(|(_, newest)| newest > stored.at + AHEAD_MS)
}

/// The series of a feed.
fn series(feed: &Feed) -> impl Iterator<Item = Series> + '_ {
    feed.bars().map(|bar| Series { instrument: feed.instrument.clone(), bar })
}

#[cfg(test)]
mod tests;
