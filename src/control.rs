//! Who asks what, when: the one mind over all plans, the budget and the back-offs.
//!
//! It is handed the time and what happened, and says what to do next; the supervisor's shell does
//! it. Each ticket ends in exactly one of stored, failed, broken or clock.

use std::collections::BTreeMap;
use std::fmt;

use crate::backoff::{Backoff, Random};
use crate::bar::Grid;
use crate::coverage::Tally;
use crate::instrument::Series;
use crate::limit::Budget;
use crate::page::{Ask, Stored};
use crate::plan::{CLASSES, Class, Plan, Progress, Question};
use crate::time::{HOUR, MINUTE, Millis, Now, format_time};
use crate::wire::{Endpoint, Policy};

/// A one-shot command gives up when an endpoint failed so often in a row, which takes about half a
/// minute with the pauses between.
const GIVE_UP_FAILURES: u32 = 6;
/// A series is given up when it alone failed so often in a row.
const SERIES_FAILURES: u32 = 8;
/// A series that failed so often no longer keeps the others waiting for its newest page.
const PATIENCE_FAILURES: u32 = 2;
/// The exchange's clock is read so often.
const CLOCK_AGAIN_MS: Millis = HOUR;
/// After a run longer than this the newest pages are read once more, so that it ends fresh.
const REFRESH_AFTER_MS: Millis = MINUTE;

/// What is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// The exchange's clock.
    Time,
    /// A page of a series.
    Page {
        /// Of what.
        series: Series,
        /// Where its bars open.
        grid: Grid,
        /// Which table of the exchange to ask.
        endpoint: Endpoint,
        /// What to ask it.
        ask: Ask,
    },
}

impl Job {
    /// The endpoint whose budget it costs.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Job::Time => Endpoint::Time,
            Job::Page { endpoint, .. } => *endpoint,
        }
    }
}

impl fmt::Display for Job {
    /// The request in words, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Job::Time => f.write_str("the exchange's clock"),
            Job::Page { series, endpoint, ask, .. } => {
                write!(f, "{endpoint} of {series}, ")?;
                match ask {
                    Ask::Newest { limit, .. } => write!(f, "the newest {limit}"),
                    Ask::Window { span, limit } => write!(f, "{span}, at most {limit}"),
                    Ask::Below { end } => write!(f, "the one below {}", format_time(*end)),
                }
            }
        }
    }
}

/// One request that is to go out now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its number, under which its end is to be told.
    pub ticket: u64,
    /// The request.
    pub job: Job,
}

/// How a ticket ended, or that the user has had enough.
#[derive(Debug)]
pub enum Input<'a> {
    /// The exchange's clock was read.
    Clock {
        /// The ticket.
        ticket: u64,
    },
    /// The page is on disk.
    Stored {
        /// The ticket.
        ticket: u64,
        /// What is there now.
        stored: &'a Stored,
    },
    /// The request failed.
    Failed {
        /// The ticket.
        ticket: u64,
        /// What to do about it.
        policy: Policy,
        /// What happened, in words.
        error: String,
    },
    /// The answer could not be stored in its file.
    Broken {
        /// The ticket.
        ticket: u64,
        /// What happened, in words.
        error: String,
        /// Whether no other file can be written either.
        everything: bool,
    },
    /// No new work.
    Stop,
}

/// One series and how it fares.
#[derive(Debug)]
pub struct Line {
    /// Which.
    pub series: Series,
    /// Closed bars that were new, so far.
    pub closed: u64,
    /// Closed bars that the exchange has revised, so far.
    pub revised: u64,
    /// Why it was given up.
    pub error: Option<String>,
    plan: Plan,
    failures: u32,
    /// Whether a row off the grid was told of.
    off_grid: bool,
    /// Why a part of it is left out; what it was given up for once the rest is done.
    left_out: Option<String>,
}

impl Line {
    /// A series at its start.
    pub fn new(series: Series, plan: Plan) -> Line {
        Line {
            series,
            closed: 0,
            revised: 0,
            error: None,
            plan,
            failures: 0,
            off_grid: false,
            left_out: None,
        }
    }

    /// Counts its wanted bars by what is known of them.
    pub fn tally(&self, now: Now) -> Tally {
        self.plan.tally(now)
    }

    /// How many closed bars are stored, however old.
    pub fn stored(&self) -> i64 {
        self.plan.stored_bars()
    }

    /// Bars that have ended and wait for their confirm.
    pub fn unconfirmed(&self, now: Now) -> usize {
        self.plan.unconfirmed(now)
    }

    /// Whether nothing is left to do for it.
    pub fn is_done(&self, now: Now) -> bool {
        self.error.is_some() || self.plan.is_done(now)
    }

    /// What is odd about a page, for the log.
    fn remarks(&mut self, stored: &Stored) -> Vec<String> {
        let mut remarks = Vec::new();
        let series = &self.series;
        if let Some((row, count)) = &stored.refused {
            remarks.push(format!("{series}: {count} rows of a page refused, the first {row}"));
        }
        if let Some(ts) = stored.off_grid
            && !std::mem::replace(&mut self.off_grid, true)
        {
            let at = format_time(ts);
            remarks.push(format!("{series}: the bar of {at} lies off the grid and is kept so"));
        }
        remarks
    }

    fn awaits_newest(&self, now: Now) -> bool {
        let patient = self.failures <= PATIENCE_FAILURES;
        self.error.is_none() && patient && !self.plan.is_fresh(now)
    }
}

/// What is under way.
#[derive(Debug)]
struct Flight {
    endpoint: Endpoint,
    /// The number of the series; none for the clock.
    line: Option<usize>,
}

/// What a question that could go out waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The exchange's limits, or the user's own.
    Budget,
    /// The pause after a failure.
    Pause,
    /// The confirm of a bar that has ended.
    Confirm,
}

/// The mind.
#[derive(Debug)]
pub struct Control {
    workers: usize,
    budget: Budget,
    backoffs: BTreeMap<Endpoint, Backoff>,
    random: Random,
    lines: Vec<Line>,
    /// Which series is next in each class, so that all get their turn.
    turns: [usize; CLASSES.len()],
    flights: BTreeMap<u64, Flight>,
    tickets: u64,
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
            budget,
            backoffs: BTreeMap::new(),
            random,
            lines,
            turns: [0; CLASSES.len()],
            flights: BTreeMap::new(),
            tickets: 0,
            pages: 0,
            started: now.local,
            clock_due: now.local,
            clock_known: false,
            refreshed: false,
            stopped: false,
            gave_up: None,
            remarks: Vec::new(),
            held: None,
        }
    }

    /// The series.
    pub fn lines(&self) -> &[Line] {
        &self.lines
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
                    self.succeeded(Endpoint::Time);
                    self.clock_known = true;
                    self.clock_due = now.local + CLOCK_AGAIN_MS;
                }
            }
            Input::Stored { ticket, stored } => self.on_stored(ticket, stored, now),
            Input::Failed { ticket, policy, error } => self.on_failed(ticket, policy, error, now),
            Input::Broken { ticket, error, everything } => {
                let Some(flight) = self.land(ticket, now) else { return };
                if everything {
                    self.gave_up = Some(error.clone());
                }
                let Some(line) = flight.line else { return };
                let instrument = self.lines[line].series.instrument.clone();
                for line in self.lines.iter_mut().filter(|l| l.series.instrument == instrument) {
                    line.error.get_or_insert_with(|| error.clone());
                }
            }
        }
    }

    /// The next request that is to go out now, if there is one.
    pub fn next(&mut self, now: Now) -> Option<Action> {
        self.held = None;
        let busy = self.flights.len() >= self.workers;
        if self.stopped || self.gave_up.is_some() || busy {
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
            if let Some((line, question)) = self.next_question(class, now) {
                return Some(self.ask(line, question, now));
            }
        }
        self.refresh_at_the_end(now).then(|| self.next(now)).flatten()
    }

    /// When, in local time, [`Control::next`] may have something to do without anything having
    /// happened. `None`: only an event can give it work.
    pub fn deadline(&self, now: Now) -> Option<Millis> {
        if self.stopped || self.gave_up.is_some() || self.flights.len() >= self.workers {
            return None;
        }
        let looks = self.lines.iter().filter(|line| line.error.is_none());
        let looks = looks.filter_map(|line| line.plan.deadline(now));
        // What is due already waits for something else, and that is an event or a bound that falls.
        let looks = looks.filter(|&due| due > now.exchange);
        let held = self.held.map(|(until, _)| until);
        looks.map(|due| due - now.exchange + now.local).chain(held).min()
    }

    /// Whether all is done, or nothing more will be.
    pub fn is_finished(&self, now: Now) -> bool {
        let over = self.stopped || self.gave_up.is_some();
        self.flights.is_empty() && (over || self.lines.iter().all(|line| line.is_done(now)))
    }

    fn on_stored(&mut self, ticket: u64, stored: &Stored, now: Now) {
        let Some(flight) = self.land(ticket, now) else { return };
        self.succeeded(flight.endpoint);
        self.pages += 1;
        let Some(line) = flight.line.and_then(|line| self.lines.get_mut(line)) else { return };
        line.failures = 0;
        line.closed += u64::from(stored.closed);
        line.revised += u64::from(stored.revised);
        self.remarks.extend(line.remarks(stored));
        let progress = line.plan.stored(ticket, stored);
        let why = || match &stored.refused {
            Some((row, _)) => format!("rows that cannot be read stay in the way: {row}"),
            None => "the exchange's answers contradict each other".to_owned(),
        };
        match progress {
            Progress::Moved => {}
            Progress::LeftOut => drop(line.left_out.get_or_insert_with(why)),
            Progress::Stuck => line.error = Some(why()),
        }
        if line.error.is_none() && line.plan.is_done(now) {
            line.error = line.left_out.take();
        }
    }

    fn on_failed(&mut self, ticket: u64, policy: Policy, error: String, now: Now) {
        let Some(flight) = self.land(ticket, now) else { return };
        // What ends a series is told with it.
        if policy != Policy::Permanent {
            self.remarks.push(format!("{}: {error}", flight.endpoint));
        }
        let backoff = self.backoffs.entry(flight.endpoint).or_default();
        backoff.failed(policy, now.local, &mut self.random);
        // A clock that is known goes on well enough without being read again.
        let needed = flight.line.is_some() || !self.clock_known;
        let hopeless =
            needed && (backoff.failures() >= GIVE_UP_FAILURES || policy == Policy::Denied);
        let permanent = policy == Policy::Permanent;
        match flight.line.and_then(|line| self.lines.get_mut(line)) {
            Some(line) => {
                line.plan.failed(ticket);
                line.failures += 1;
                if permanent || line.failures >= SERIES_FAILURES {
                    line.error = Some(error.clone());
                }
            }
            None if permanent && needed => self.gave_up = Some(error.clone()),
            None if permanent => self.clock_due = now.local + CLOCK_AGAIN_MS,
            None => {}
        }
        if hopeless {
            self.gave_up = Some(error);
        }
    }

    fn succeeded(&mut self, endpoint: Endpoint) {
        if let Some(backoff) = self.backoffs.get_mut(&endpoint) {
            backoff.succeeded();
        }
    }

    fn clock_under_way(&self) -> bool {
        self.flights.values().any(|flight| flight.endpoint == Endpoint::Time)
    }

    /// The next question of a class, by turns over the series.
    fn next_question(&mut self, class: Class, now: Now) -> Option<(usize, Question)> {
        let (count, turn) = (self.lines.len(), self.turns[class as usize]);
        for line in (turn..count).chain(0..turn.min(count)) {
            if self.lines[line].error.is_some() {
                continue;
            }
            if let Some(question) = self.lines[line].plan.question(class, now)
                && self.may_ask(question.endpoint, now)
            {
                self.turns[class as usize] = line + 1;
                return Some((line, question));
            }
        }
        None
    }

    fn ask(&mut self, line: usize, question: Question, now: Now) -> Action {
        let ticket = self.take_off(question.endpoint, Some(line), now);
        let line = &mut self.lines[line];
        line.plan.asked(ticket, question);
        let job = Job::Page {
            series: line.series.clone(),
            grid: line.plan.grid(),
            endpoint: question.endpoint,
            ask: question.ask,
        };
        Action { ticket, job }
    }

    /// Whether the budget and the back-off let a request out now; if not, remembers until when.
    fn may_ask(&mut self, endpoint: Endpoint, now: Now) -> bool {
        let paused = self.backoffs.get(&endpoint).map_or(now.local, Backoff::free_at);
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
        self.flights.insert(self.tickets, Flight { endpoint, line });
        self.tickets
    }

    fn land(&mut self, ticket: u64, now: Now) -> Option<Flight> {
        let flight = self.flights.remove(&ticket)?;
        self.budget.answered(flight.endpoint, now.local);
        Some(flight)
    }

    /// Long runs end with one more look at what has closed meanwhile.
    fn refresh_at_the_end(&mut self, now: Now) -> bool {
        let long = now.local - self.started > REFRESH_AFTER_MS;
        if self.refreshed || !long || !self.is_finished(now) {
            return false;
        }
        self.refreshed = true;
        self.lines.iter_mut().for_each(|line| line.plan.refresh());
        true
    }
}

#[cfg(test)]
mod tests;
