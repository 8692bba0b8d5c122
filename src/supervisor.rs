//! The supervisor's shell: it hears everything, hands it to [`Control`], and does what that says.
//!
//! **Invariant:** it never blocks on a send, so it always comes back to hear; and it holds no
//! sender into a channel that it hears, so the drain at the end does end.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, never, select};
use log::{debug, warn};

use crate::control::{Action, Control, Damage, Input};
use crate::grants::Grants;
use crate::logging::Repeats;
use crate::poller::Report;
use crate::signal::Stop;
use crate::store::Scope;
use crate::store::order::Order;
use crate::thread::{End, Exit};
use crate::time::{Clock, Millis, Now, SECOND};
use crate::wire::Policy;
use crate::writer::{self, Receipt};

/// How long a stop waits for requests that are under way.
const STOP_WAIT_MS: Millis = 15 * SECOND;
/// How often whoever watches is shown where things stand.
const WATCH_MS: Millis = 100;
/// How soon a full queue is tried again.
const RETRY_MS: Millis = 20;

/// The supervisor's ends of all channels.
pub struct Ports {
    /// Orders to the pollers; dropped to end them.
    pub actions: Option<Sender<Action>>,
    /// Notes to the writer; dropped so that it can end.
    pub notes: Option<Sender<Order>>,
    /// From the pollers.
    pub reports: Receiver<Report>,
    /// From the writer.
    pub receipts: Receiver<Receipt>,
    /// From the signal thread.
    pub stops: Receiver<Stop>,
    /// From every thread, when it ends.
    pub exits: Receiver<Exit>,
}

/// Something was heard.
enum Event {
    Report(Report),
    PollersGone,
    Receipt(Receipt),
    WriterGone,
    Stop(Stop),
    SignalsGone,
    Exit(Exit),
    Tick,
}

/// The shell around one run of [`Control`].
pub struct Supervisor<'a> {
    /// The mind.
    pub control: Control,
    /// The channels.
    pub ports: Ports,
    /// The clocks.
    pub clock: &'a Clock,
    /// Where grants are recorded.
    pub grants: Grants,
    /// Who is shown where things stand, about ten times a second.
    pub watch: &'a mut dyn FnMut(&Control, Now),
}

/// How a run ended, apart from what [`Control`] knows.
#[derive(Debug, Default)]
pub struct Ending {
    /// The words of a thread that panicked.
    pub panic: Option<String>,
    /// Whether requests were left behind unanswered.
    pub hurried: bool,
}

#[derive(Default)]
struct State {
    ending: Ending,
    stop_by: Option<Millis>,
    pollers_gone: bool,
    /// No receipt will come any more.
    writer_gone: bool,
    /// The writer's thread has told how it ended, which it does after its last receipt.
    writer_ended: bool,
    stop_sent: bool,
    noted: usize,
    watched: Millis,
    repeats: Repeats,
}

impl State {
    fn complain(&mut self, complaint: &str, now: Now) {
        if let Some(line) = self.repeats.told(complaint, now.local) {
            warn!(target: "poll", "{line}");
        }
    }
}

impl Supervisor<'_> {
    /// Works until everything is done or given up and the writer has ended: then every receipt was
    /// heard.
    pub fn run(&mut self) -> Ending {
        let mut state = State::default();
        while !(state.writer_gone && state.writer_ended) {
            let now = self.clock.now();
            self.act(now);
            self.wind_down(&mut state, now);
            self.show(&mut state, now);
            let event = self.hear(self.wait(&state, now));
            self.on(event, &mut state);
        }
        (self.watch)(&self.control, self.clock.now());
        state.ending
    }

    /// Sends out what may go out now.
    fn act(&mut self, now: Now) {
        let Some(actions) = &self.ports.actions else { return };
        while let Some(action) = self.control.next(now) {
            let (ticket, endpoint) = (action.ticket, action.job.endpoint());
            debug!(target: "supervisor", "ticket {ticket}: {}", action.job);
            // On record before it goes out: a kill in between costs budget, the other way round it
            // would spend some twice.
            if let Err(error) = self.grants.record(endpoint, now.local) {
                warn!(target: "supervisor", "a granted request is not on record: {error}");
            }
            // The queue holds as many orders as there are pollers, and no more are under way.
            if let Err(TrySendError::Disconnected(_) | TrySendError::Full(_)) =
                actions.try_send(action)
            {
                let (policy, error) = (Policy::Permanent, "no poller left".into());
                self.control.on(now, Input::Failed { ticket, policy, error });
            }
        }
    }

    /// The end in its order: no more orders, so the pollers end; then no more notes, so the writer
    /// does. Whoever is in a hurry leaves the pollers behind, never the writer's commit.
    fn wind_down(&mut self, state: &mut State, now: Now) {
        if self.control.was_stopped() && state.stop_by.is_none() {
            state.stop_by = Some(now.local + STOP_WAIT_MS);
        }
        let hurry = state.stop_by.is_some_and(|by| now.local >= by);
        let finished = self.control.is_finished(now);
        self.note_errors(state);
        if finished || hurry {
            self.ports.actions = None;
        }
        if hurry && !finished && !state.stop_sent {
            let notes = self.ports.notes.as_ref();
            state.stop_sent = notes.is_none_or(|notes| notes.try_send(Order::Stop).is_ok());
            state.ending.hurried = true;
        }
        let all_noted = state.pollers_gone && state.noted == self.control.lines().len();
        if state.stop_sent || (all_noted && self.send_last_order()) {
            self.ports.notes = None;
        }
    }

    /// Has the files compacted, unless somebody waits for the end; false if it has to be tried
    /// again.
    fn send_last_order(&self) -> bool {
        let Some(notes) = &self.ports.notes else { return true };
        let waiting = self.control.was_stopped() || self.control.gave_up().is_some();
        waiting || !matches!(notes.try_send(Order::Compact), Err(TrySendError::Full(_)))
    }

    /// Leaves in the files why series were given up, once each at the end.
    fn note_errors(&self, state: &mut State) {
        let (Some(notes), true) = (&self.ports.notes, state.pollers_gone) else { return };
        let gave_up = self.control.gave_up();
        for line in &self.control.lines()[state.noted..] {
            let now = self.clock.now();
            let unfinished = gave_up.filter(|_| !line.is_done(now));
            if let Some(error) = line.error.as_deref().or(unfinished) {
                let (series, error) = (line.series.clone(), error.to_owned());
                if notes.try_send(Order::NoteError { series, error }).is_err() {
                    return;
                }
            }
            state.noted += 1;
        }
    }

    fn show(&mut self, state: &mut State, now: Now) {
        if now.local >= state.watched + WATCH_MS {
            state.watched = now.local;
            (self.watch)(&self.control, now);
        }
    }

    /// How long nothing can be due.
    fn wait(&self, state: &State, now: Now) -> Duration {
        let winding_down = self.ports.actions.is_none();
        let retry = (winding_down && self.ports.notes.is_some()).then_some(now.local + RETRY_MS);
        let due = [self.control.deadline(now), state.stop_by, retry];
        let due = due.into_iter().flatten().chain([state.watched + WATCH_MS]).min();
        let wait_ms = due.map_or(WATCH_MS, |due| due - now.local).clamp(1, WATCH_MS);
        Duration::from_millis(wait_ms as u64)
    }

    fn hear(&self, wait: Duration) -> Event {
        let ports = &self.ports;
        select! {
            recv(ports.receipts) -> heard => heard.map_or(Event::WriterGone, Event::Receipt),
            recv(ports.reports) -> heard => heard.map_or(Event::PollersGone, Event::Report),
            recv(ports.stops) -> heard => heard.map_or(Event::SignalsGone, Event::Stop),
            recv(ports.exits) -> heard => heard.map_or(Event::Tick, Event::Exit),
            default(wait) => Event::Tick,
        }
    }

    fn on(&mut self, event: Event, state: &mut State) {
        let now = self.clock.now();
        if let Event::Exit(Exit { name, .. }) = &event {
            state.writer_ended |= name == writer::NAME;
        }
        match event {
            Event::Tick => {}
            Event::Report(Report::Clock { ticket }) => {
                self.control.on(now, Input::Clock { ticket });
            }
            Event::Report(Report::Failed { ticket, trouble }) => {
                let (policy, error) = (trouble.policy(), trouble.to_string());
                self.control.on(now, Input::Failed { ticket, policy, error });
            }
            Event::Receipt(Receipt::Stored { ticket, stored }) => {
                self.control.on(now, Input::Stored { ticket, stored: &stored });
            }
            Event::Receipt(Receipt::Broken { ticket, error }) => {
                let damage = match error.scope() {
                    Scope::Busy => Damage::Busy,
                    Scope::ThisFile => Damage::File,
                    Scope::WholeDisk => Damage::Disk,
                };
                let error = error.to_string();
                self.control.on(now, Input::Broken { ticket, error, damage });
            }
            // Nothing else is told to a command, which waits for no disk and hears no stream.
            Event::Receipt(_) => {}
            // A channel without senders is always ready: it must not be heard again.
            Event::PollersGone => {
                self.ports.reports = never();
                state.pollers_gone = true;
            }
            Event::WriterGone => {
                self.ports.receipts = never();
                state.writer_gone = true;
                // Nothing more can be stored, so nothing more is asked: the pollers end.
                self.ports.actions = None;
                self.ports.notes = None;
            }
            Event::SignalsGone => self.ports.stops = never(),
            Event::Stop(Stop) if state.stop_by.is_some() => state.stop_by = Some(now.local),
            Event::Stop(Stop) => {
                self.control.on(now, Input::Stop);
            }
            Event::Exit(Exit { name, end: End::Panicked(words) }) => {
                // Its ticket will never come back, so nothing more is waited for.
                state.ending.panic.get_or_insert(format!("thread {name}: {words}"));
                state.stop_by = Some(now.local);
                self.control.on(now, Input::Stop);
            }
            Event::Exit(_) => {}
        }
        for remark in self.control.take_remarks() {
            state.complain(&remark, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::backoff::Random;
    use crate::bar::Bar;
    use crate::control::Line;
    use crate::coverage::Coverage;
    use crate::instrument::Series;
    use crate::limit::Budget;
    use crate::okx;
    use crate::plan::{Plan, Wanted};
    use crate::thread;

    /// The writer's receipts end before its panic is told of; nobody may be left waiting.
    #[test]
    fn a_writer_that_panics_is_heard_of_and_ends_the_pollers() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::start(0);
        let (grants, _) = Grants::open(dir.path(), 0).unwrap();
        let budget = Budget::new(0, okx::rate);
        let bar: Bar = "1m".parse().unwrap();
        let plan = Plan::new(bar.grid(), Wanted::Days(1), false, Coverage::default(), &[]);
        let line = Line::new(Series { instrument: "BTC-USDT".parse().unwrap(), bar }, plan);
        let control = Control::new(vec![line], 1, budget, Random::new(1), clock.now());
        let ((actions, orders), (exits, ends)) = (bounded(1), bounded(3));
        let ((_reports, heard), (receipts, stored)) = (bounded(1), bounded::<Receipt>(1));
        let writer = thread::spawn(writer::NAME, &exits, move || {
            drop(receipts);
            while orders.recv().is_ok() {}
            panic!("it broke");
        });
        let ports = Ports {
            actions: Some(actions),
            notes: None,
            reports: heard,
            receipts: stored,
            stops: never(),
            exits: ends,
        };
        let watch = &mut |_: &Control, _| {};
        let mut supervisor = Supervisor { control, ports, clock: &clock, grants, watch };
        let ending = supervisor.run();
        assert_eq!(ending.panic.as_deref(), Some("thread writer: it broke"));
        writer.unwrap().join().unwrap();
    }
}
