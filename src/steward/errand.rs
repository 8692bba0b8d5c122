//! What one command has asked of the daemon, until it is done.

use std::collections::BTreeSet;

use crossbeam_channel::{Sender, TrySendError};

use crate::instrument::Series;
use crate::keeper::Keeper;
use crate::request::Answer;
use crate::time::{MINUTE, Millis, Now};
use crate::view::{LineView, View};

/// How often a command is told how far its errand is.
const TELL_MS: Millis = 200;
/// An errand is given up when nothing at all was stored for so long and something failed.
const FRUITLESS_MS: Millis = MINUTE;

/// What one command wants.
pub(super) struct Errand {
    answers: Sender<Answer>,
    /// Series whose rows are still to be counted.
    audits: BTreeSet<Series>,
    /// Pages that had been stored when it began.
    pages_before: u64,
    /// The last page that was stored, and when.
    pages: u64,
    moved_at: Millis,
    told_at: Millis,
    /// What failed since.
    failure: Option<String>,
}

impl Errand {
    pub(super) fn new(
        answers: Sender<Answer>,
        audits: BTreeSet<Series>,
        pages: u64,
        now: Now,
    ) -> Errand {
        Errand {
            answers,
            audits,
            pages_before: pages,
            pages,
            moved_at: now.local,
            told_at: Millis::MIN,
            failure: None,
        }
    }

    /// The rows of a series were counted.
    pub(super) fn audited(&mut self, series: &Series) {
        self.audits.remove(series);
    }

    /// Something has failed.
    pub(super) fn remark(&mut self, words: &str) {
        self.failure = Some(words.to_owned());
    }

    /// Whether the command is to be told where it stands.
    pub(super) fn is_due(&self, now: Now) -> bool {
        now.local >= self.told_at.saturating_add(TELL_MS)
    }

    /// Where it stands, with what is in the way of everything.
    pub(super) fn view(
        &mut self,
        number: u64,
        mind: &Keeper,
        trouble: Option<String>,
        now: Now,
    ) -> View {
        let control = mind.control();
        let pages = control.pages();
        if pages != self.pages {
            (self.pages, self.moved_at, self.failure) = (pages, now.local, None);
        }
        let lines: Vec<LineView> = mind
            .demanded(number)
            .map(|(line, closed, revised)| {
                let view = LineView::of(line, now);
                LineView {
                    closed: view.closed - closed,
                    revised: view.revised - revised,
                    tally: line.tally_for(number, now),
                    done: view.done && !self.audits.contains(&view.series),
                    ..view
                }
            })
            .collect();
        let done = lines.iter().all(|line| line.done);
        let fruitless = !done && now.local >= self.moved_at + FRUITLESS_MS;
        let failure = self.failure.as_ref().or(trouble.as_ref());
        let gave_up = failure.cloned().filter(|_| fruitless);
        View {
            pages: pages - self.pages_before,
            pages_per_minute: control.pages_per_minute(),
            wait: control.waits_for(now).map(|(until, hold)| (until - now.local, hold)),
            stopped: false,
            finished: done || gave_up.is_some(),
            trouble,
            gave_up,
            lines,
        }
    }

    /// Tells the command that this is all. One that does not listen finds the daemon gone.
    pub(super) fn stop(&mut self, view: View) {
        let _ = self.answers.try_send(Answer::Done(view));
    }

    /// Tells the command; whether this was the end, for one reason or the other.
    pub(super) fn tell(&mut self, view: View, now: Now) -> bool {
        let finished = view.finished;
        self.told_at = now.local;
        let answer = if finished { Answer::Done(view) } else { Answer::Progress(view) };
        match self.answers.try_send(answer) {
            Ok(()) => finished,
            // What was skipped is told anew soon.
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => true,
        }
    }
}
