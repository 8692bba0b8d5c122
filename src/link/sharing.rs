//! Which connection asks for which series, and what is reported of them.
//!
//! **Invariant:** an acknowledgement costs the same however many series there are. What walks all
//! of them is done when something else has changed.

use std::collections::BTreeSet;

use crate::instrument::Series;
use crate::link::connection::Connection;
use crate::link::{Effect, Link, Report};
use crate::session::{self, Cause};
use crate::time::{Millis, Now};

impl Link {
    /// Brings about what follows from all that is known.
    pub(super) fn settle(&mut self, now: Now) {
        if self.capacity.expire(now.local)
            && let Some(current) = self.current.as_mut().filter(|it| it.since.is_some())
        {
            // More is tried beside it: if that fails, it costs nothing.
            current.due = current.due.min(now.local);
        }
        let asks_again = self.connections().any(|it| it.asks_again(now.local));
        self.stale |= asks_again;
        let mut has_changed = false;
        while std::mem::take(&mut self.stale) {
            self.share(now);
            has_changed = true;
        }
        if let (true, Some(current), Some(next)) = (has_changed, &self.current, &self.next) {
            self.lacks = next.lacks(current);
        }
        self.take_over(now.local);
        if std::mem::take(&mut self.stale) || has_changed {
            self.tell("its subscription has ended (it is asked for anew)");
        }
        if self.dial_at(now.local).is_some_and(|at| at <= now.local) {
            self.dial(now.local);
        }
    }

    /// Has each connection ask for its share.
    fn share(&mut self, now: Now) {
        let (fits, step) = (self.capacity.fit(&self.wanted), self.capacity.step());
        for conn in self.numbers() {
            let all = self.wanted.clone();
            let Some(it) = self.find(conn).filter(|it| it.since.is_some()) else { continue };
            let wanted = if it.tries_all { &all } else { &fits };
            let (leave, join) = it.share(now.local, wanted, step);
            if !leave.is_empty() {
                self.feed(now, conn, session::Input::Unsubscribe(leave));
            }
            if !join.is_empty() {
                self.feed(now, conn, session::Input::Subscribe(join));
            }
        }
    }

    /// A connection has one more series.
    pub(super) fn acked(&mut self, now: Millis, conn: u64, series: Series) {
        let has_step = self.capacity.step().is_some();
        if let Some(it) = self.find(conn) {
            it.acked_at = Some(now);
            // The last of a step asks for the next.
            let is_step = has_step && it.is_settled();
            self.stale |= is_step;
        }
        if let (Some(current), Some(next)) = (&self.current, &self.next) {
            if next.number != conn {
                self.lacks += usize::from(!next.has(&series));
            } else if current.session.acked().contains(&series) {
                self.lacks = self.lacks.saturating_sub(1);
            }
        }
        if !self.told.contains(&series) {
            self.told.insert(series.clone());
            self.report(Report::Acked(series));
        }
    }

    /// A connection does not get a series.
    pub(super) fn refuse(&mut self, now: Millis, conn: u64, series: Series, cause: &Cause) {
        self.stale = true;
        let cause = cause.to_string();
        self.books.failed(now, cause.clone());
        if let Some(it) = self.find(conn) {
            it.refuse(now, &series, cause.clone());
        }
        if !self.connections().any(|it| it.session.acked().contains(&series)) {
            self.told.remove(&series);
            self.report(Report::Refused { series, cause });
        }
    }

    /// A connection was closed because it held too many series.
    pub(super) fn overfill(&mut self, now: Millis, gone: &Connection) {
        let (acked, asked) = (gone.session.acked(), gone.asked());
        self.capacity.overfilled(now, acked, asked, &self.wanted);
        self.refuse_overflow(&BTreeSet::new());
    }

    /// Refuses what does not fit, apart from that of which it is known.
    pub(super) fn refuse_overflow(&mut self, known: &BTreeSet<Series>) {
        let fits = self.capacity.fit(&self.wanted);
        for series in self.wanted.difference(&fits).filter(|series| !known.contains(series)) {
            let report = Report::Refused { series: series.clone(), cause: overflow(fits.len()) };
            self.effects.push_back(Effect::Report(report));
        }
    }

    /// Reports what has changed about the series; `why` for those that are gone.
    pub(super) fn tell(&mut self, why: &str) {
        let acked = self.connections().flat_map(|it| it.session.acked());
        let acked: BTreeSet<Series> = acked.cloned().collect();
        let told = std::mem::replace(&mut self.told, acked);
        let fits = self.capacity.fit(&self.wanted);
        for series in told.difference(&self.told) {
            let series = series.clone();
            let refusal = self.current.as_ref().and_then(|it| it.refusal(&series));
            self.effects.push_back(Effect::Report(match refusal {
                Some(cause) => Report::Refused { cause: cause.to_owned(), series },
                None if !fits.contains(&series) => {
                    Report::Refused { cause: overflow(fits.len()), series }
                }
                None => Report::Lost { series, cause: why.to_owned() },
            }));
        }
        for series in self.told.difference(&told) {
            self.effects.push_back(Effect::Report(Report::Acked(series.clone())));
        }
    }
}

/// Why a series is not asked for where no more than so many fit.
fn overflow(count: usize) -> String {
    format!(
        "WebSocketSubscriptionError: the connection holds no more series than {count} (it is \
         polled: the stream is tried again within an hour)"
    )
}
