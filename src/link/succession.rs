//! Which connection is opened, how it ends, and when the next one takes its place.

use std::collections::BTreeSet;

use log::Level;

use crate::breaker::State;
use crate::link::connection::Connection;
use crate::link::{Effect, Link, Report};
use crate::session;
use crate::time::{HOUR, Millis, Now, SECOND, format_length};

/// A connection that is to take over has so long to get what the current one has.
const REPLACE_MS: Millis = 10 * SECOND;
/// It has more time while it lacks more than this part of it,
const LACKING_PART: usize = 20;
/// and something was acked within so long,
const PROGRESS_MS: Millis = 3 * SECOND;
/// but not more than this.
const REPLACE_MAX_MS: Millis = 30 * SECOND;
/// When it has, rows are taken from both for so long, since what the current one was sent before
/// may still be on its way.
const OVERLAP_MS: Millis = SECOND;
/// A replacement that failed is tried again after so long.
const REPLACE_RETRY_MS: Millis = 30 * SECOND;
/// The same after one that was to hold too much: what does not fit beside the current connection
/// will not fit in a moment either.
const FULL_RETRY_MS: Millis = HOUR;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It broke, or did not come about.
    Broken,
    /// It fell silent, which is a failure whatever came before.
    Silent,
    /// It was asked for more series than it holds.
    TooMany,
}

impl Link {
    /// When to connect, or to connect anew, if that is wanted.
    pub(super) fn dial_at(&self, now: Millis) -> Option<Millis> {
        let at = match (&self.current, &self.next) {
            _ if self.wanted.is_empty() => return None,
            (None, _) => now,
            (Some(current), None) => current.since.map(|_| current.due)?,
            (Some(_), Some(_)) => return None,
        };
        Some(at.max(self.breaker.connect_at(now)))
    }

    pub(super) fn dial(&mut self, now: Millis) {
        self.last += 1;
        let mut settings = self.settings.session.clone();
        if self.books.login.is_some() {
            settings.credentials = None;
        }
        self.breaker.connecting(now);
        let mut it = Connection::new(self.last, settings);
        if self.current.is_some() && self.capacity.is_untried() {
            it.tries_all = true;
            self.capacity.tried(now);
        }
        let slot = if self.current.is_none() { &mut self.current } else { &mut self.next };
        *slot = Some(it);
        self.effects.push_back(Effect::Dial(self.last));
        self.log(Level::Debug, format!("connection {} is tried", self.last));
    }

    /// Leaves all connections, which says nothing about their quality.
    pub(super) fn let_go(&mut self, cause: &str) {
        let was_up = self.is_up();
        for gone in [self.next.take(), self.current.take()].into_iter().flatten() {
            self.effects.push_back(Effect::HangUp(gone.number));
        }
        self.told.clear();
        self.stale = true;
        if was_up {
            self.log(Level::Info, format!("disconnected: {cause}"));
            self.report(Report::Down { cause: cause.to_owned() });
        }
        // Whoever hears of a loss, or knows of it already, knows nothing of the series any more.
        self.refuse_overflow(&BTreeSet::new());
    }

    /// Gives up an attempt that is under way.
    pub(super) fn renounce(&mut self) {
        for slot in [&mut self.next, &mut self.current] {
            if let Some(gone) = slot.take_if(|it| it.since.is_none()) {
                self.effects.push_back(Effect::HangUp(gone.number));
            }
        }
    }

    /// A connection came to stand.
    pub(super) fn stand(&mut self, now: Now, conn: u64) {
        let on_trial = self.breaker.state(now.local) != State::Closed;
        let mut due = now.local + self.settings.max_connection_age_ms;
        if self.is_current(conn) && self.capacity.is_untried() {
            due = now.local + REPLACE_RETRY_MS;
        }
        let Some(it) = self.find(conn) else {
            return self.effects.push_back(Effect::HangUp(conn));
        };
        it.stand(now.local, due, on_trial);
        self.stale = true;
        self.books.connected(now.local);
        if self.is_current(conn) {
            self.log(Level::Info, format!("connection {conn} stands"));
            self.report(Report::Up);
        } else {
            self.log(Level::Info, format!("connection {conn} stands beside the current one"));
        }
        self.feed(now, conn, session::Input::Opened);
    }

    /// A connection is over, or an attempt at one.
    pub(super) fn end(&mut self, now: Millis, conn: u64, cause: String, fate: Fate) {
        let (was_up, is_current) = (self.is_up(), self.is_current(conn));
        let slot = if is_current { &mut self.current } else { &mut self.next };
        let Some(gone) = slot.take_if(|it| it.number == conn) else { return };
        self.effects.push_back(Effect::HangUp(conn));
        self.stale = true;
        let end = if gone.since.is_some() { "is lost" } else { "failed" };
        self.log(Level::Warn, format!("connection {conn} {end}: {cause}"));
        self.books.failed(now, cause.clone());
        if gone.has_data && fate != Fate::Silent {
            let lived_ms = gone.since.map_or(0, |since| now - since);
            self.breaker.lost(now, lived_ms, &mut self.random);
        } else if self.breaker.failed(now, &mut self.random) {
            let rest_ms = self.breaker.connect_at(now) - now;
            let (failures, rest) = (self.breaker.failures(), format_length(rest_ms));
            let text = format!("the breaker is open for {rest}, failures in a row: {failures}");
            self.log(Level::Warn, text);
        }
        if !is_current {
            let pause_ms = match fate {
                Fate::TooMany if gone.tries_all => self.capacity.full(now),
                Fate::Broken | Fate::Silent if gone.tries_all => self.capacity.untold(now),
                Fate::TooMany => FULL_RETRY_MS,
                Fate::Broken | Fate::Silent => REPLACE_RETRY_MS,
            };
            if let Some(current) = &mut self.current {
                current.due = now + pause_ms;
            }
            return;
        }
        self.told.clear();
        if was_up {
            self.report(Report::Down { cause });
        }
        if fate == Fate::TooMany {
            self.overfill(now, &gone);
        } else if was_up {
            self.refuse_overflow(&BTreeSet::new());
        }
        self.current = self.next.take();
        if self.current.as_ref().is_some_and(|it| it.tries_all) {
            self.capacity.lift();
        }
        if self.is_up() {
            self.report(Report::Up);
        }
    }

    /// Lets the next connection take the current one's place, if it is time.
    pub(super) fn take_over(&mut self, now: Millis) {
        if let (Some(_), Some(next)) = (&self.current, &mut self.next) {
            let covers = next.since.is_some() && self.lacks == 0;
            next.ready = if covers { next.ready.or(Some(now)) } else { None };
        }
        if self.take_over_at().is_none_or(|at| now < at) {
            return;
        }
        let Some(next) = self.next.take_if(|next| next.ready.is_some() || next.has_data) else {
            let conn = self.next.as_ref().map_or(0, |next| next.number);
            let cause = "WebSocketTimeoutError: no data came over it in time (the current \
                         connection goes on)";
            return self.end(now, conn, cause.to_owned(), Fate::Broken);
        };
        self.log(Level::Info, format!("connection {} has taken over", next.number));
        if next.tries_all {
            self.capacity.lift();
        }
        if let Some(old) = self.current.replace(next) {
            self.effects.push_back(Effect::HangUp(old.number));
        }
        self.tell("the connection that took over does not have it yet (it is asked for)");
    }

    /// When the next connection takes over, or is given up.
    pub(super) fn take_over_at(&self) -> Option<Millis> {
        let (current, next) = (self.current.as_ref()?, self.next.as_ref()?);
        let since = next.since?;
        let mut late = since + REPLACE_MS;
        let has_most = self.lacks * LACKING_PART <= current.session.acked().len();
        if let Some(at) = next.acked_at.filter(|_| !has_most) {
            late = late.max(at + PROGRESS_MS).min(since + REPLACE_MAX_MS);
        }
        Some(next.ready.map_or(late, |ready| late.min(ready + OVERLAP_MS)))
    }
}
