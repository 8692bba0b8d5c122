//! One connection of the stream, or the attempt at one, and its share of what is wanted.

use std::collections::{BTreeMap, BTreeSet};

use crate::instrument::Series;
use crate::session::{self, Session};
use crate::time::{MINUTE, Millis};

/// A connection on trial asks for so many series until data prove that it works.
const TRIAL_SERIES: usize = 5;
/// A refused series is asked for again on the same connection after so long.
const REFUSED_MS: Millis = 10 * MINUTE;

/// Why a series is not asked for.
#[derive(Debug)]
struct Refusal {
    cause: String,
    until: Millis,
}

/// One connection. Times are local.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its number.
    pub(super) number: u64,
    /// Its mind.
    pub(super) session: Session,
    /// Since when it stands; before that it is being tried.
    pub(super) since: Option<Millis>,
    /// When it is to be replaced.
    pub(super) due: Millis,
    /// Since when it has what the one has that it is to replace.
    pub(super) ready: Option<Millis>,
    /// When a series was acked last.
    pub(super) acked_at: Option<Millis>,
    /// Whether data came.
    pub(super) has_data: bool,
    /// Whether it has few series until then.
    on_trial: bool,
    /// Whether it is to show that it holds more than is known to fit.
    pub(super) tries_all: bool,
    /// What its session was told to have.
    asked: BTreeSet<Series>,
    refused: BTreeMap<Series, Refusal>,
}

impl Connection {
    /// An attempt that begins now.
    pub(super) fn new(number: u64, settings: session::Settings) -> Connection {
        Connection {
            number,
            session: Session::new(settings),
            since: None,
            due: Millis::MAX,
            ready: None,
            acked_at: None,
            has_data: false,
            on_trial: false,
            tries_all: false,
            asked: BTreeSet::new(),
            refused: BTreeMap::new(),
        }
    }

    /// It stands, until it is replaced at `due`.
    pub(super) fn stand(&mut self, now: Millis, due: Millis, on_trial: bool) {
        (self.since, self.due, self.on_trial) = (Some(now), due, on_trial);
    }

    /// How many series its session was told to have.
    pub(super) fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Whether it has a series, as far as it can be had.
    pub(super) fn has(&self, series: &Series) -> bool {
        self.session.acked().contains(series) || self.refused.contains_key(series)
    }

    /// How much it lacks of what the other one has.
    pub(super) fn lacks(&self, other: &Connection) -> usize {
        other.session.acked().iter().filter(|series| !self.has(series)).count()
    }

    /// Whether everything that it asked for is acked.
    pub(super) fn is_settled(&self) -> bool {
        self.asked.len() <= self.session.acked().len()
    }

    /// Whether a refused series is to be asked for again by now.
    pub(super) fn asks_again(&self, now: Millis) -> bool {
        self.again_at().is_some_and(|at| at <= now)
    }

    /// The session has given a series up.
    pub(super) fn refuse(&mut self, now: Millis, series: &Series, cause: String) {
        self.asked.remove(series);
        self.refused.insert(series.clone(), Refusal { cause, until: now + REFUSED_MS });
    }

    /// Why a series is not asked for.
    pub(super) fn refusal(&self, series: &Series) -> Option<&str> {
        self.refused.get(series).map(|refusal| refusal.cause.as_str())
    }

    /// Forgets what it knows of series, so that they are asked for anew; gives those that must be
    /// unsubscribed before.
    pub(super) fn forget(&mut self, series: &BTreeSet<Series>) -> BTreeSet<Series> {
        self.refused.retain(|refused, _| !series.contains(refused));
        let asked = self.asked.intersection(series).cloned().collect();
        self.asked.retain(|asked| !series.contains(asked));
        asked
    }

    /// Makes what it is to have of the series that are wanted its share; gives the series to
    /// unsubscribe, and those to subscribe. With a `step` it takes only so many more at a time, and
    /// more only when the last were answered.
    pub(super) fn share(
        &mut self,
        now: Millis,
        wanted: &BTreeSet<Series>,
        step: Option<usize>,
    ) -> (BTreeSet<Series>, BTreeSet<Series>) {
        self.refused.retain(|series, it| it.until > now && wanted.contains(series));
        let stepped = step.map_or(usize::MAX, |step| {
            self.asked.len().saturating_add(if self.is_settled() { step } else { 0 })
        });
        let on_trial = self.on_trial && !self.has_data;
        let room = if on_trial { stepped.min(TRIAL_SERIES) } else { stepped };
        let mut share: Vec<&Series> =
            wanted.iter().filter(|series| !self.refused.contains_key(series)).collect();
        if share.len() > room {
            // What is there stays; then the shortest bars, as data of theirs come soonest.
            share.sort_by_key(|&series| (!self.asked.contains(series), series.bar, series));
            share.truncate(room);
        }
        let share: BTreeSet<Series> = share.into_iter().cloned().collect();
        let leave = self.asked.difference(&share).cloned().collect();
        let join = share.difference(&self.asked).cloned().collect();
        self.asked = share;
        (leave, join)
    }

    /// When time alone changes something.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.session.deadline().into_iter().chain(self.again_at()).min()
    }

    fn again_at(&self) -> Option<Millis> {
        self.refused.values().map(|refusal| refusal.until).min()
    }
}
