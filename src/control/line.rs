//! One series and how it fares.

use crate::coverage::Tally;
use crate::instrument::Series;
use crate::page::Stored;
use crate::plan::{CLASSES, Class, Pace, Plan, Progress, Question, Wanted};
use crate::span::Spans;
use crate::time::{Millis, Now, format_time};
use crate::wire::Endpoint;

/// A series that failed so often no longer keeps the others waiting for its newest page.
const PATIENCE_FAILURES: u32 = 2;

/// How the newest bars of a series are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// By the newest page at intervals, the next time at this moment of local time.
    Poll(Millis),
    /// Not at all: the stream brings them.
    Stream,
    /// Not at all.
    Wait,
}

/// What a series would ask first, which holds until something happens to it, or until then.
#[derive(Clone, Copy, Debug)]
struct Look {
    first: Option<(Class, Endpoint)>,
    until_exchange: Millis,
    until_local: Millis,
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
    pub(super) failures: u32,
    /// Whether a row off the grid was told of.
    off_grid: bool,
    /// Why a part of it is left out; what it was given up for once the rest is done.
    pub(super) left_out: Option<String>,
    interval_ms: Millis,
    /// Where in each interval its polls lie, 0 to 1.
    phase: f64,
    follow: Follow,
    /// When old history is no longer held back, local time.
    release_at: Option<Millis>,
    /// Until when nothing is asked, local time.
    muted_until: Millis,
    /// When something of it was stored last, exchange clock.
    updated_at: Option<Millis>,
    is_retired: bool,
    look: Option<Look>,
}

impl Line {
    /// A series at its start. Its newest page is asked for once.
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
            interval_ms: Millis::MAX,
            phase: 0.0,
            follow: Follow::Wait,
            release_at: None,
            muted_until: Millis::MIN,
            updated_at: None,
            is_retired: false,
            look: None,
        }
    }

    /// Counts its wanted bars by what is known of them.
    pub fn tally(&self, now: Now) -> Tally {
        self.plan.tally(now)
    }

    /// The same for the bars that a command wants.
    pub fn tally_for(&self, number: u64, now: Now) -> Tally {
        self.plan.tally_for(number, now)
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
        self.error.is_some() || self.is_retired || self.plan.is_done(now)
    }

    /// Whether nothing is asked for it any more, for a damaged file.
    pub fn is_given_up(&self) -> bool {
        self.muted_until == Millis::MAX
    }

    /// Where the stored bars end.
    pub fn head(&self) -> Option<Millis> {
        self.plan.head()
    }

    /// Whether a newest page is on disk that was asked for at `at` of local time or later.
    pub fn is_fresh_since(&self, at: Millis, now: Now) -> bool {
        self.plan.is_fresh(now) && self.plan.newest_asked_at() >= at
    }

    /// Whether no newest page is due or under way, nor was asked for since `at` of local time.
    pub fn is_idle_since(&self, at: Millis, now: Now) -> bool {
        self.plan.is_fresh(now) && self.plan.newest_asked_at() < at
    }

    /// When something of it was stored last, by the exchange's clock.
    pub fn updated_at(&self) -> Option<Millis> {
        self.updated_at
    }

    /// How its newest bars are fetched.
    pub fn follows(&self) -> Follow {
        self.follow
    }

    /// The time between two polls.
    pub fn interval_ms(&self) -> Millis {
        self.interval_ms
    }

    /// The stream brings its newest bars from now on.
    pub fn stream(&mut self, now: Now) {
        self.follow = Follow::Stream;
        self.plan().follow(Pace::Stream, now);
    }

    /// Nobody brings its newest bars from now on.
    pub fn wait(&mut self, now: Now) {
        self.follow = Follow::Wait;
        self.plan().follow(Pace::Poll, now);
    }

    /// Its newest bars are asked for now, and then at intervals.
    pub fn poll(&mut self, now: Now) {
        self.follow = Follow::Poll(now.local);
        self.plan().follow(Pace::Poll, now);
    }

    /// Sets the time between two polls and the length of history.
    pub fn configure(&mut self, interval_ms: Millis, wanted: Wanted, now: Now) {
        self.interval_ms = interval_ms;
        if let Follow::Poll(next) = self.follow {
            self.follow = Follow::Poll(next.min(self.next_poll(now.local)));
        }
        self.plan().want(wanted);
    }

    /// What is older than the stored bars waits for the first interval.
    pub fn hold_history(&mut self, now: Now) {
        self.release_at = Some(now.local.saturating_add(self.interval_ms));
        self.plan().hold_history();
    }

    /// Nobody wants it any more.
    pub(super) fn retire(&mut self) {
        (self.is_retired, self.error, self.look) = (true, None, None);
    }

    /// Its place among all, by which polls are spread evenly over the interval however many there
    /// are: steps of the golden ratio never meet.
    pub(super) fn seat(&mut self, place: usize) {
        self.phase = (place as f64 * 0.618_033_988_749_895).fract();
    }

    fn next_poll(&self, now: Millis) -> Millis {
        let phase_ms = (self.phase * self.interval_ms as f64) as Millis;
        let since_ms = (now - phase_ms).rem_euclid(self.interval_ms);
        now.saturating_add(self.interval_ms - since_ms)
    }

    /// What it was given up for is forgotten.
    pub(super) fn pardon(&mut self) {
        (self.muted_until, self.error, self.look) = (Millis::MIN, None, None);
    }

    /// A command wants these bars.
    pub fn demand(&mut self, number: u64, wanted: Wanted) {
        self.pardon();
        self.plan().demand(number, wanted);
    }

    /// The command is over.
    pub fn dismiss(&mut self, number: u64) {
        self.plan().dismiss(number);
    }

    /// Rows turned out not to be stored.
    pub fn uncover(&mut self, lost: &Spans) {
        self.plan().uncover(lost);
    }

    /// Asks nothing before a moment of local time, and says why.
    pub fn mute(&mut self, until: Millis, error: String) {
        self.muted_until = until;
        self.error = Some(error);
        self.look = None;
    }

    /// The stream's bars are on disk; tells whether bars before them were left out.
    pub(super) fn pushed(&mut self, stored: &Stored) -> bool {
        if self.muted_until > Millis::MIN && self.muted_until < Millis::MAX {
            // Its file takes rows again, or the exchange has it again.
            self.pardon();
        }
        self.count(stored);
        self.plan().pushed(stored)
    }

    /// An answered page is on disk.
    pub(super) fn stored_page(&mut self, ticket: u64, stored: &Stored) -> Progress {
        self.failures = 0;
        if self.muted_until > Millis::MIN {
            self.muted_until = Millis::MIN;
            self.error = None;
        }
        self.count(stored);
        self.plan().stored(ticket, stored)
    }

    pub(super) fn failed(&mut self, ticket: u64) {
        self.failures += 1;
        self.plan().failed(ticket);
    }

    pub(super) fn refresh(&mut self) {
        self.plan().refresh();
    }

    /// What it asks in a class, under a ticket that is used if there is a question.
    pub(super) fn question(&mut self, class: Class, now: Now) -> Option<Question> {
        let question = self.plan.question(class, now);
        self.look = None;
        question
    }

    pub(super) fn asked(&mut self, ticket: u64, question: Question, now: Now) {
        self.plan().asked(ticket, question, now);
    }

    pub(super) fn grid(&self) -> crate::bar::Grid {
        self.plan.grid()
    }

    /// What it would ask first.
    pub(super) fn first(&mut self, now: Now) -> Option<(Class, Endpoint)> {
        if let Some(look) = self.look
            && now.exchange < look.until_exchange
            && now.local < look.until_local
        {
            return look.first;
        }
        let look = self.look_now(now);
        self.look = Some(look);
        look.first
    }

    /// When, in local time, it may have something to ask that it has not now.
    pub(super) fn wakes_at(&self, now: Now) -> Option<Millis> {
        let look = self.look?;
        let by_exchange = look.until_exchange.checked_sub(now.exchange - now.local);
        let at = look.until_local.min(by_exchange.unwrap_or(Millis::MAX));
        (at < Millis::MAX - Millis::MAX / 4).then_some(at)
    }

    pub(super) fn awaits_newest(&self, now: Now) -> bool {
        let patient = self.failures <= PATIENCE_FAILURES;
        self.error.is_none() && !self.is_retired && patient && !self.plan.is_fresh(now)
    }

    /// What is odd about a page, for the log.
    pub(super) fn remarks(&mut self, stored: &Stored) -> Vec<String> {
        let mut remarks = Vec::new();
        let series = &self.series;
        if let Some((row, count)) = &stored.refused {
            remarks.push(format!("{series}: {count} rows refused, the first {row}"));
        }
        if let Some(ts) = stored.off_grid
            && !std::mem::replace(&mut self.off_grid, true)
        {
            let at = format_time(ts);
            remarks.push(format!("{series}: the bar of {at} lies off the grid and is kept so"));
        }
        remarks
    }

    fn look_now(&mut self, now: Now) -> Look {
        let nothing = |until_local| Look { first: None, until_exchange: Millis::MAX, until_local };
        // What was given up for good has no end of its pause.
        let given_up = self.error.is_some() && self.muted_until == Millis::MIN;
        if given_up || self.is_retired {
            return nothing(Millis::MAX);
        }
        if now.local < self.muted_until {
            return nothing(self.muted_until);
        }
        if matches!(self.follow, Follow::Poll(next) if next <= now.local) {
            self.follow = Follow::Poll(self.next_poll(now.local));
            self.plan.refresh();
        }
        if self.release_at.is_some_and(|at| at <= now.local) {
            self.release_at = None;
            self.plan.release_history();
        }
        self.plan.advance(now);
        let question = |&class: &Class| Some((class, self.plan.question(class, now)?.endpoint));
        let next_poll = match self.follow {
            Follow::Poll(next) => next,
            _ => Millis::MAX,
        };
        Look {
            first: CLASSES.iter().find_map(question),
            until_exchange: self.plan.wakes_at(now).unwrap_or(Millis::MAX),
            until_local: next_poll.min(self.release_at.unwrap_or(Millis::MAX)),
        }
    }

    fn count(&mut self, stored: &Stored) {
        self.closed += u64::from(stored.closed);
        self.revised += u64::from(stored.revised);
        self.updated_at = Some(stored.at);
    }

    /// The plan, about to change.
    fn plan(&mut self) -> &mut Plan {
        self.look = None;
        &mut self.plan
    }
}
