//! Which series a connection has, which it is asked for, and when it is asked again.
//!
//! What the exchange does not promise is not relied on: an acknowledgement may be lost, come late,
//! or come after the data; an error names its series in words, or not at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::instrument::Series;
use crate::okx::StreamPolicy;
use crate::okx::stream::{REQUEST_RATE, Request, Said, batches};
use crate::session::{Cause, Effect};
use crate::time::{MINUTE, Millis, SECOND};

/// Nine tenths of what the exchange permits: other clients met its refusal right at the limit.
pub(super) const REQUESTS_MAX: usize = REQUEST_RATE.requests as usize * 9 / 10;
/// A request that was not answered by then is sent again.
pub(super) const ACK_MS: Millis = 10 * SECOND;
/// Data without an acknowledgement stand for one after so long.
pub(super) const DATA_GRACE_MS: Millis = 2 * SECOND;
/// A series is asked for so often before it is left alone.
pub(super) const TRIES_MAX: u32 = 6;
/// The first and the longest pause before a series is asked for again after a failure that passes.
const RETRY_MS: (Millis, Millis) = (2 * SECOND, MINUTE);
/// The same before anything is asked for after too many requests. OKX wants ten seconds at least.
pub(super) const PAUSE_MS: (Millis, Millis) = (12 * SECOND, 10 * MINUTE);

/// A series on its way to be subscribed.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// The request that is under way.
    id: Option<u64>,
    /// When it is given up, or, with none under way, when the next one is to go out.
    due: Millis,
    /// Acknowledgements of earlier requests mean an earlier subscription.
    first_id: u64,
    tries: u32,
    /// Whether it is to have a request of its own, so that an error can mean nothing else.
    alone: bool,
    /// Whether data came since it was asked for.
    heard: bool,
}

/// The subscriptions of one connection. Times are local; what is to be done is put to the end of
/// the queue that is handed in.
///
/// **Invariant:** a series is in at most one of `acked`, `asked` and `leaving`.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    acked: BTreeSet<Series>,
    asked: BTreeMap<Series, Asked>,
    /// Series to be unsubscribed.
    leaving: BTreeSet<Series>,
    /// The number of the last request.
    last_id: u64,
    /// When requests were sent within the last hour, oldest first.
    sent: VecDeque<Millis>,
    /// No request before this.
    paused_until: Option<Millis>,
    /// Pauses since the last acknowledgement.
    pauses: u32,
    /// Nothing is to be done before this, at the earliest: what is acknowledged meanwhile may make
    /// it later. None where it is to be found out.
    idle_until: Option<Millis>,
}

impl Subscriptions {
    /// The series that are subscribed.
    pub(super) fn acked(&self) -> &BTreeSet<Series> {
        &self.acked
    }

    /// Whether something is known of a series that was asked for.
    #[cfg(test)]
    pub(super) fn knows(&self, series: &Series) -> bool {
        self.acked.contains(series) || self.asked.contains_key(series)
    }

    /// Whether nothing is left to be sent or to be answered.
    #[cfg(test)]
    pub(super) fn are_settled(&self) -> bool {
        self.asked.is_empty() && self.leaving.is_empty()
    }

    /// These series are wanted.
    pub(super) fn want(&mut self, now: Millis, wanted: BTreeSet<Series>) {
        self.idle_until = None;
        for series in wanted {
            // The exchange was not told yet that it was to go: asking again does no harm.
            self.leaving.remove(&series);
            if !self.acked.contains(&series) {
                self.ask_from(now, series);
            }
        }
    }

    /// Puts a series among those to be asked for, unless it is there already.
    fn ask_from(&mut self, due: Millis, series: Series) {
        self.acked.remove(&series);
        let first_id = self.last_id + 1;
        let asked = Asked { id: None, due, first_id, tries: 0, alone: false, heard: false };
        self.asked.entry(series).or_insert(asked);
    }

    /// These series are no longer wanted.
    pub(super) fn leave(&mut self, unwanted: BTreeSet<Series>) {
        self.idle_until = None;
        for series in unwanted {
            let asked = self.asked.remove(&series).is_some_and(|asked| asked.tries > 0);
            if self.acked.remove(&series) || asked {
                self.leaving.insert(series);
            }
        }
    }

    /// A request that is none of ours was sent: it counts.
    pub(super) fn count(&mut self, now: Millis) {
        self.sent.push_back(now);
    }

    /// A series was acknowledged.
    pub(super) fn confirm(
        &mut self,
        series: Series,
        id: Option<u64>,
        effects: &mut VecDeque<Effect>,
    ) {
        let ours = |asked: &Asked| asked.tries > 0 && id.is_none_or(|id| id >= asked.first_id);
        if self.asked.get(&series).is_some_and(ours) {
            self.ack(series, effects);
        }
    }

    fn ack(&mut self, series: Series, effects: &mut VecDeque<Effect>) {
        self.asked.remove(&series);
        self.pauses = 0;
        self.acked.insert(series.clone());
        effects.push_back(Effect::Acked(series));
    }

    /// A series was unsubscribed. Where we wanted it so, that is told before the series is
    /// subscribed anew: if it is there, this was the exchange's own doing.
    pub(super) fn lose(&mut self, now: Millis, series: Series) {
        if self.acked.contains(&series) {
            self.idle_until = None;
            self.ask_from(now, series);
        }
    }

    /// Whether rows of a series are wanted.
    pub(super) fn hear(&mut self, now: Millis, series: &Series) -> bool {
        match self.asked.get_mut(series) {
            // Nothing has been asked yet: these are of an earlier subscription.
            Some(asked) if asked.tries == 0 => false,
            Some(asked) if asked.heard => true,
            Some(asked) => {
                asked.heard = true;
                asked.due = asked.due.min(now + DATA_GRACE_MS);
                self.idle_until = self.idle_until.map(|until| until.min(asked.due));
                true
            }
            None => self.acked.contains(series),
        }
    }

    /// An error event that is about series. It has no field that says about which.
    pub(super) fn refuse(
        &mut self,
        now: Millis,
        id: Option<u64>,
        said: Said,
        named: Option<Series>,
        effects: &mut VecDeque<Effect>,
    ) {
        self.idle_until = None;
        let policy = said.policy();
        let mut concerned = self.concerned(id, named);
        if policy == StreamPolicy::DropSeries && concerned.len() == 1 {
            let series = concerned.remove(0);
            return self.drop_series(series, Some(said), effects);
        }
        if policy == StreamPolicy::Pause {
            // What waits until then goes out together.
            self.paused_until = self.paused_until.max(Some(now + doubled(PAUSE_MS, self.pauses)));
            self.pauses += 1;
        }
        effects.push_back(Effect::Notice(said.clone()));
        for series in concerned {
            self.put_off(now, series, &said, effects);
        }
    }

    /// The series under way that an error can be about.
    fn concerned(&self, id: Option<u64>, named: Option<Series>) -> Vec<Series> {
        let concerned = self.asked.iter().filter(|(series, asked)| {
            asked.id.is_some()
                && (id.is_none() || asked.id == id)
                && named.as_ref().is_none_or(|named| named == *series)
        });
        concerned.map(|(series, _)| series.clone()).collect()
    }

    /// A series was refused for now, or is one of several of which one was refused.
    fn put_off(
        &mut self,
        now: Millis,
        series: Series,
        said: &Said,
        effects: &mut VecDeque<Effect>,
    ) {
        let Some(asked) = self.asked.get_mut(&series) else { return };
        match said.policy() {
            // What is not acknowledged soon has a request of its own then, and so its own answer.
            StreamPolicy::DropSeries => {
                asked.alone = true;
                asked.due = asked.due.min(now + DATA_GRACE_MS);
            }
            StreamPolicy::Pause => {
                (asked.id, asked.due) = (None, now);
                asked.tries -= 1;
            }
            _ if asked.tries >= TRIES_MAX => self.drop_series(series, Some(said.clone()), effects),
            _ => (asked.id, asked.due) = (None, now + doubled(RETRY_MS, asked.tries - 1)),
        }
    }

    fn drop_series(&mut self, series: Series, said: Option<Said>, effects: &mut VecDeque<Effect>) {
        self.asked.remove(&series);
        effects.push_back(Effect::Refused { series, cause: Cause::Refused(said) });
    }

    /// Gives up what was to be answered by now, and sends what is due. This walks all series that
    /// are under way, and so it does nothing while nothing can be due: it is called for each frame.
    pub(super) fn work(&mut self, now: Millis, effects: &mut VecDeque<Effect>) {
        while self.sent.front().is_some_and(|&at| at + REQUEST_RATE.window_ms <= now) {
            self.sent.pop_front();
        }
        if self.idle_until.is_some_and(|until| now < until) {
            return;
        }
        self.expire(now, effects);
        if self.free_at().is_none_or(|free_at| free_at <= now) {
            self.send(now, effects);
        }
        self.idle_until = Some(self.due_at().unwrap_or(Millis::MAX));
    }

    fn expire(&mut self, now: Millis, effects: &mut VecDeque<Effect>) {
        let late = self.asked.iter_mut().filter_map(|(series, asked)| {
            let late = asked.due <= now && (asked.heard || asked.id.take().is_some());
            late.then(|| (series.clone(), *asked))
        });
        for (series, asked) in late.collect::<Vec<(Series, Asked)>>() {
            if asked.heard {
                self.ack(series, effects);
            } else if asked.tries >= TRIES_MAX {
                self.drop_series(series, None, effects);
            }
        }
    }

    fn send(&mut self, now: Millis, effects: &mut VecDeque<Effect>) {
        for batch in batches(self.leaving.iter().cloned()) {
            let Some(id) = self.grant(now) else { return };
            for series in &batch {
                self.leaving.remove(series);
            }
            effects.push_back(Effect::Send(Request::unsubscribe(id, &batch)));
        }
        let due = |alone| {
            let due = self.asked.iter().filter(move |(_, asked)| {
                asked.id.is_none() && asked.due <= now && asked.alone == alone
            });
            due.map(|(series, _)| series.clone())
        };
        let each = due(true).map(|series| vec![series]);
        let requests: Vec<Vec<Series>> = batches(due(false)).into_iter().chain(each).collect();
        for batch in requests {
            let Some(id) = self.grant(now) else { return };
            for series in &batch {
                let Some(asked) = self.asked.get_mut(series) else { continue };
                (asked.id, asked.due, asked.heard) = (Some(id), now + ACK_MS, false);
                asked.tries += 1;
            }
            effects.push_back(Effect::Send(Request::subscribe(id, &batch)));
        }
    }

    /// The number of a request that goes out now, if one may.
    fn grant(&mut self, now: Millis) -> Option<u64> {
        self.free_at().is_none_or(|free_at| free_at <= now).then(|| {
            self.sent.push_back(now);
            self.last_id += 1;
            self.last_id
        })
    }

    /// When the next request may go out; `None` if nothing ever held one back.
    fn free_at(&self) -> Option<Millis> {
        let over = self.sent.len().checked_sub(REQUESTS_MAX);
        let oldest = over.and_then(|over| self.sent.get(over));
        oldest.map(|at| at + REQUEST_RATE.window_ms).max(self.paused_until)
    }

    /// When time alone changes something, at the earliest.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let is_idle = self.asked.is_empty() && self.leaving.is_empty();
        if is_idle { None } else { self.idle_until.or_else(|| self.due_at()) }
    }

    fn due_at(&self) -> Option<Millis> {
        let free_at = self.free_at().unwrap_or(Millis::MIN);
        let asked = self.asked.values().map(|asked| match asked.id {
            None if !asked.heard => asked.due.max(free_at),
            _ => asked.due,
        });
        asked.chain((!self.leaving.is_empty()).then_some(free_at)).min()
    }
}

/// A pause that doubles from the first to the longest with each time that it was taken before.
fn doubled((first, longest): (Millis, Millis), times: u32) -> Millis {
    (first << times.min(10)).min(longest)
}
