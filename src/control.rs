//! Who asks what, when: the one mind over all plans, the budget and the back-offs.
//!
//! It is handed the time and what happened, and says what to do next; the supervisor's shell does
//! it. Each ticket ends in exactly one of stored, failed, broken or clock.

mod line;
mod message;
mod outage;

use std::collections::BTreeMap;

use crate::backoff::Random;
use crate::control::outage::Outages;
use crate::instrument::Instrument;
use crate::limit::Budget;
use crate::page::Stored;
use crate::plan::{CLASSES, Class, Progress, Question};
use crate::time::{HOUR, MINUTE, Millis, Now};
use crate::wire::{Endpoint, Policy};

pub use line::{Follow, Line};
pub use message::{Action, Damage, Hold, Input, Job};

/// A one-shot command gives up when an endpoint failed so often in a row, which takes about half a
/// minute with the pauses between.
const GIVE_UP_FAILURES: u32 = 6;
/// A series is given up when it alone failed so often in a row.
const SERIES_FAILURES: u32 = 8;
/// Who never gives up tries a series again after so long that the exchange does not know, or whose
/// answers contradict each other.
const REFUSED_AGAIN_MS: Millis = 10 * MINUTE;
/// The same for a series that failed too often.
const FAILED_AGAIN_MS: Millis = MINUTE;
/// The exchange's clock is read so often.
const CLOCK_AGAIN_MS: Millis = HOUR;
/// After a run longer than this the newest pages are read once more, so that it ends fresh.
const REFRESH_AFTER_MS: Millis = MINUTE;

/// What is under way.
#[derive(Debug)]
struct Flight {
    endpoint: Endpoint,
    /// The number of the series; none for the clock.
    line: Option<usize>,
    /// Whether it waits for the disk alone: then it keeps no poller busy.
    is_fetched: bool,
}

/// The mind.
#[derive(Debug)]
pub struct Control {
    workers: usize,
    /// Whether it goes on for ever, rather than being done or giving up.
    endless: bool,
    budget: Budget,
    outages: Outages,
    random: Random,
    lines: Vec<Line>,
    /// The places of lines that nobody wants any more.
    vacant: Vec<usize>,
    /// Which series is next in each class, so that all get their turn.
    turns: [usize; CLASSES.len()],
    flights: BTreeMap<u64, Flight>,
    tickets: u64,
    /// What [`Control::may_ask`] has said since [`Control::next`] was called.
    gates: BTreeMap<Endpoint, bool>,
    pages: u64,
    started: Millis,
    /// When the exchange's clock is to be read; it comes before everything else the first time.
    clock_due: Millis,
    clock_known: bool,
    refreshed: bool,
    stopped: bool,
    gave_up: Option<String>,
    /// Failures and oddities that nobody was told of yet.
    remarks: Vec<String>,
    /// Outages that are over, and of which nobody was told yet.
    recoveries: Vec<String>,
    /// When a bound that kept a question back falls, and which.
    held: Option<(Millis, Hold)>,
}

impl Control {
    /// A mind for these series; at most `workers` requests are under way together.
    pub fn new(
        lines: Vec<Line>,
        workers: usize,
        budget: Budget,
        random: Random,
        now: Now,
    ) -> Control {
        Control {
            workers,
            endless: false,
            budget,
            outages: Outages::default(),
            random,
            lines,
            vacant: Vec::new(),
            turns: [0; CLASSES.len()],
            flights: BTreeMap::new(),
            tickets: 0,
            gates: BTreeMap::new(),
            pages: 0,
            started: now.local,
            clock_due: now.local,
            clock_known: false,
            refreshed: false,
            stopped: false,
            gave_up: None,
            remarks: Vec::new(),
            recoveries: Vec::new(),
            held: None,
        }
    }

    /// The same without an end: what fails is tried again later, for ever.
    pub fn endless(mut self) -> Control {
        self.endless = true;
        self
    }

    /// The series.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// One of them, by its place among [`Control::lines`].
    pub fn line_mut(&mut self, line: usize) -> &mut Line {
        &mut self.lines[line]
    }

    /// Takes in another series, and gives its place.
    pub fn adopt(&mut self, line: Line) -> usize {
        // An answer that is under way must not meet a series that did not ask for it.
        let free = self
            .vacant
            .iter()
            .position(|&place| self.flights.values().all(|flight| flight.line != Some(place)));
        let place = match free {
            Some(at) => self.vacant.swap_remove(at),
            None => self.lines.len(),
        };
        if place == self.lines.len() {
            self.lines.push(line);
        } else {
            self.lines[place] = line;
        }
        self.lines[place].seat(place);
        place
    }

    /// Nobody wants the series in this place any more.
    pub fn retire(&mut self, place: usize) {
        self.lines[place].retire();
        self.vacant.push(place);
    }

    /// Other processes were granted requests, which the budget has to bear, too.
    pub fn spent(&mut self, grants: &[(Endpoint, Millis)], now: Now) {
        self.budget.restore(grants, now.local);
    }

    /// The place of the series that a request is for.
    pub fn place_of(&self, ticket: u64) -> Option<usize> {
        self.flights.get(&ticket)?.line
    }

    /// Whether a request for an instrument is under way, or its answer on the way to the disk.
    pub fn is_asking(&self, instrument: &Instrument) -> bool {
        let lines = self.flights.values().filter_map(|flight| flight.line);
        lines.into_iter().any(|place| self.lines[place].series.instrument == *instrument)
    }

    /// Requests that went out, so far: the last ticket.
    pub fn requests(&self) -> u64 {
        self.tickets
    }

    /// Whether the exchange's clock was read yet.
    pub fn knows_clock(&self) -> bool {
        self.clock_known
    }

    /// Reads the exchange's clock soon: time may have jumped.
    pub fn doubt_clock(&mut self, now: Now) {
        self.clock_due = now.local;
    }

    /// The stream's bars are on disk; tells whether bars before them were left out.
    pub fn pushed(&mut self, line: usize, stored: &Stored) -> bool {
        let line = &mut self.lines[line];
        self.remarks.extend(line.remarks(stored));
        line.pushed(stored)
    }

    /// Pages that were answered and stored, so far.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Why everything was given up.
    pub fn gave_up(&self) -> Option<&str> {
        self.gave_up.as_deref()
    }

    /// Whether the user stopped it.
    pub fn was_stopped(&self) -> bool {
        self.stopped
    }

    /// Pages of history that can be asked for in a minute.
    pub fn pages_per_minute(&self) -> f64 {
        self.budget.per_minute(Endpoint::History)
    }

    /// Failures and oddities of answers since the last call, for the log.
    pub fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// Outages that have ended since the last call, for the log.
    pub fn take_recoveries(&mut self) -> Vec<String> {
        std::mem::take(&mut self.recoveries)
    }

    /// Why requests fail at present, in words, if any do.
    pub fn trouble(&self, now: Now) -> Option<String> {
        self.outages.cause(now.local)
    }

    /// What everything waits for, and until when in local time; nothing while requests are under
    /// way.
    pub fn waits_for(&self, now: Now) -> Option<(Millis, Hold)> {
        let idle = self.flights.is_empty();
        let until = self.deadline(now).filter(|_| idle)?;
        Some((until, self.held.map_or(Hold::Confirm, |(_, hold)| hold)))
    }

    /// Takes in what happened.
    pub fn on(&mut self, now: Now, input: Input<'_>) {
        match input {
            Input::Stop => self.stopped = true,
            Input::Clock { ticket } => {
                if self.land(ticket, now).is_some() {
                    self.succeeded(Endpoint::Time, now);
                    self.clock_known = true;
                    self.clock_due = now.local + CLOCK_AGAIN_MS;
                }
            }
            Input::Fetched { ticket } => {
                // The receipt may have come first.
                if let Some(flight) = self.flights.get_mut(&ticket) {
                    flight.is_fetched = true;
                    self.budget.answered(flight.endpoint, now.local);
                }
            }
            Input::Stored { ticket, stored } => self.on_stored(ticket, stored, now),
            Input::Failed { ticket, policy, error } => self.on_failed(ticket, policy, error, now),
            Input::Broken { ticket, error, damage } => {
                let Some(flight) = self.land(ticket, now) else { return };
                if damage == Damage::Disk && !self.endless {
                    self.gave_up = Some(error.clone());
                }
                let Some(line) = flight.line else { return };
                self.lines[line].failed(ticket);
                let instrument = self.lines[line].series.instrument.clone();
                self.quarantine(&instrument, &error, damage, now);
            }
        }
    }

    /// The file of an instrument cannot be written: nothing is asked for it any more, or for a
    /// while where somebody else is at work in it.
    pub fn quarantine(&mut self, instrument: &Instrument, error: &str, damage: Damage, now: Now) {
        let until = match damage {
            _ if !self.endless => Millis::MIN,
            Damage::File => Millis::MAX,
            Damage::Busy | Damage::Disk => now.local + FAILED_AGAIN_MS,
        };
        for line in self.lines.iter_mut().filter(|line| line.series.instrument == *instrument) {
            line.mute(until, error.to_owned());
        }
    }

    /// The next request that is to go out now, if there is one.
    pub fn next(&mut self, now: Now) -> Option<Action> {
        self.held = None;
        self.gates.clear();
        if self.stopped || self.gave_up.is_some() || self.is_busy() {
            return None;
        }
        let clock_due = self.clock_due <= now.local && !self.clock_under_way();
        if clock_due && self.may_ask(Endpoint::Time, now) {
            let ticket = self.take_off(Endpoint::Time, None, now);
            return Some(Action { ticket, job: Job::Time });
        }
        if !self.clock_known {
            return None;
        }
        // History waits until the newest page of every series is on disk.
        let newest_first = self.lines.iter().any(|line| line.awaits_newest(now));
        for class in CLASSES {
            if class >= Class::Repair && newest_first {
                break;
            }
            while let Some(line) = self.next_line(class, now) {
                self.turns[class as usize] = line + 1;
                if let Some(question) = self.lines[line].question(class, now) {
                    return Some(self.ask(line, question, now));
                }
            }
        }
        self.refresh_at_the_end(now).then(|| self.next(now)).flatten()
    }

    /// When, in local time, [`Control::next`] may have something to do without anything having
    /// happened. `None`: only an event can give it work.
    pub fn deadline(&self, now: Now) -> Option<Millis> {
        if self.stopped || self.gave_up.is_some() || self.is_busy() {
            return None;
        }
        // What is due already waits for something else, and that is an event or a bound that falls.
        let wakes = self.lines.iter().filter_map(|line| line.wakes_at(now));
        let wakes = wakes.filter(|&at| at > now.local);
        let held = self.held.map(|(until, _)| until);
        let clock = (self.endless && self.clock_due > now.local).then_some(self.clock_due);
        wakes.chain(held).chain(clock).min()
    }

    /// Whether all is done, or nothing more will be.
    pub fn is_finished(&self, now: Now) -> bool {
        let over = self.stopped || self.gave_up.is_some();
        let done = || !self.endless && self.lines.iter().all(|line| line.is_done(now));
        self.flights.is_empty() && (over || done())
    }

    fn on_stored(&mut self, ticket: u64, stored: &Stored, now: Now) {
        let Some(flight) = self.land(ticket, now) else { return };
        self.succeeded(flight.endpoint, now);
        self.pages += 1;
        let Some(line) = flight.line.and_then(|line| self.lines.get_mut(line)) else { return };
        self.remarks.extend(line.remarks(stored));
        let progress = line.stored_page(ticket, stored);
        let why = || match &stored.refused {
            Some((row, _)) => format!("rows that cannot be read stay in the way: {row}"),
            None => "the exchange's answers contradict each other".to_owned(),
        };
        match progress {
            Progress::Moved => {}
            Progress::LeftOut => drop(line.left_out.get_or_insert_with(why)),
            Progress::Stuck if self.endless => line.mute(now.local + REFUSED_AGAIN_MS, why()),
            Progress::Stuck => line.error = Some(why()),
        }
        if line.left_out.is_some() && line.is_done(now) {
            let why = line.left_out.take();
            match why {
                Some(why) if self.endless => self.remarks.push(format!("{}: {why}", line.series)),
                why => line.error = line.error.take().or(why),
            }
        }
    }

    fn on_failed(&mut self, ticket: u64, policy: Policy, error: String, now: Now) {
        let Some(flight) = self.land(ticket, now) else { return };
        // What ends a series is told with it, unless there is no end.
        let series = flight.line.map(|line| &self.lines[line].series);
        match series {
            Some(series) if policy == Policy::Permanent && self.endless => {
                self.remarks.push(format!("{series}: {error}"));
            }
            _ if policy == Policy::Permanent && !self.endless => {}
            _ => self.remarks.push(format!("{}: {error}", flight.endpoint)),
        }
        let (endpoint, random) = (flight.endpoint, &mut self.random);
        let in_a_row = self.outages.failed(endpoint, policy, &error, now.local, random);
        // A clock that is known goes on well enough without being read again.
        let needed = flight.line.is_some() || !self.clock_known;
        let hopeless = needed && (in_a_row >= GIVE_UP_FAILURES || policy == Policy::Denied);
        let permanent = policy == Policy::Permanent;
        match flight.line.and_then(|line| self.lines.get_mut(line)) {
            Some(line) => {
                line.failed(ticket);
                let often = line.failures >= SERIES_FAILURES;
                // While everything fails the pauses of the endpoint are enough.
                let alone = often && in_a_row < line.failures;
                if self.endless && (permanent || alone) {
                    let pause_ms = if permanent { REFUSED_AGAIN_MS } else { FAILED_AGAIN_MS };
                    line.mute(now.local + pause_ms, error.clone());
                } else if !self.endless && (permanent || often) {
                    line.error = Some(error.clone());
                }
            }
            None if permanent && self.endless => self.clock_due = now.local + FAILED_AGAIN_MS,
            None if permanent && needed => self.gave_up = Some(error.clone()),
            None if permanent => self.clock_due = now.local + CLOCK_AGAIN_MS,
            None => {}
        }
        if hopeless && !self.endless {
            self.gave_up = Some(error);
        }
    }

    fn succeeded(&mut self, endpoint: Endpoint, now: Now) {
        self.recoveries.extend(self.outages.succeeded(endpoint, now.local));
    }

    /// Whether no poller is free. A page that waits for the disk keeps none busy: one file that
    /// cannot be written must not end all requests.
    fn is_busy(&self) -> bool {
        self.flights.values().filter(|flight| !flight.is_fetched).count() >= self.workers
    }

    fn clock_under_way(&self) -> bool {
        self.flights.values().any(|flight| flight.endpoint == Endpoint::Time)
    }

    /// Whose turn it is in a class, among the series that ask that first and may.
    fn next_line(&mut self, class: Class, now: Now) -> Option<usize> {
        let (count, turn) = (self.lines.len(), self.turns[class as usize]);
        (turn..count).chain(0..turn.min(count)).find(|&line| {
            let first = self.lines[line].first(now).filter(|&(first, _)| first == class);
            first.is_some_and(|(_, endpoint)| self.may_ask(endpoint, now))
        })
    }

    fn ask(&mut self, line: usize, question: Question, now: Now) -> Action {
        let ticket = self.take_off(question.endpoint, Some(line), now);
        let line = &mut self.lines[line];
        line.asked(ticket, question, now);
        let job = Job::Page {
            series: line.series.clone(),
            grid: line.grid(),
            endpoint: question.endpoint,
            ask: question.ask,
        };
        Action { ticket, job }
    }

    /// Whether the budget and the back-off let a request out now; if not, remembers until when.
    fn may_ask(&mut self, endpoint: Endpoint, now: Now) -> bool {
        if let Some(&open) = self.gates.get(&endpoint) {
            return open;
        }
        let open = self.is_open(endpoint, now);
        self.gates.insert(endpoint, open);
        open
    }

    fn is_open(&mut self, endpoint: Endpoint, now: Now) -> bool {
        let paused = self.outages.free_at(endpoint).unwrap_or(now.local);
        let Some(free_at) = self.budget.free_at(endpoint, now.local) else { return false };
        let at = free_at.max(paused);
        if at > now.local {
            let hold = if paused >= free_at { Hold::Pause } else { Hold::Budget };
            let sooner = self.held.is_none_or(|(until, _)| at < until);
            self.held = if sooner { Some((at, hold)) } else { self.held };
        }
        at <= now.local
    }

    fn take_off(&mut self, endpoint: Endpoint, line: Option<usize>, now: Now) -> u64 {
        self.tickets += 1;
        self.budget.grant(endpoint, now.local);
        self.flights.insert(self.tickets, Flight { endpoint, line, is_fetched: false });
        self.tickets
    }

    fn land(&mut self, ticket: u64, now: Now) -> Option<Flight> {
        let flight = self.flights.remove(&ticket)?;
        if !flight.is_fetched {
            self.budget.answered(flight.endpoint, now.local);
        }
        Some(flight)
    }

    /// Long runs end with one more look at what has closed meanwhile.
    fn refresh_at_the_end(&mut self, now: Now) -> bool {
        let long = now.local - self.started > REFRESH_AFTER_MS;
        if self.refreshed || !long || !self.is_finished(now) {
            return false;
        }
        self.refreshed = true;
        self.lines.iter_mut().for_each(Line::refresh);
        true
    }
}

#[cfg(test)]
mod tests;
