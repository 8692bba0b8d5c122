//! The supervisor's shell: it hears everything, hands it to the [`Keeper`], and does what that
//! says.
//!
//! **Invariant:** it never blocks on a send, so it always comes back to hear; and it holds no
//! sender into a channel that it hears, so the drain at the end does end.

mod ports;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{TrySendError, never, select};
use log::{debug, error, info, warn};

use crate::auditor::Audit;
use crate::control::{self, Damage};
use crate::desk::Call;
use crate::grants::Grants;
use crate::keeper::{Action, Input, Keeper};
use crate::link;
use crate::logging::Repeats;
use crate::mode::Mode;
use crate::poller;
use crate::signal::Signal;
use crate::store::Scope;
use crate::store::StoreError;
use crate::store::order::Order;
use crate::thread::{End, Exit};
use crate::time::{Clock, Millis, Now, SECOND, wall_now};
use crate::wire::Policy;
use crate::writer::{self, Receipt};

pub use ports::{Chores, News, Ports};

/// How long a stop waits for requests that are under way.
const STOP_WAIT_MS: Millis = 15 * SECOND;
/// How often whoever watches is shown where things stand.
const TURN_MS: Millis = 100;
/// How soon a full queue is tried again.
const RETRY_MS: Millis = 20;
/// Events that are taken in before the mind is asked again what to do.
const EVENTS_MAX: usize = 256;
/// By how much the calendar must run ahead of the machine's monotonic clock, which stands still
/// while the machine sleeps, to tell of it.
const SLEPT_MS: Millis = 5 * SECOND;

/// Something was heard.
enum Event {
    Report(poller::Report),
    PollersGone,
    Streamed(link::Report),
    StreamGone,
    Receipt(Receipt),
    WriterGone,
    Audit(Audit),
    AuditorGone,
    Call(Call),
    DeskGone,
    Signal(Signal),
    SignalsGone,
    Exit(Exit),
    Tick,
}

/// The shell around one [`Keeper`].
pub struct Supervisor<'a> {
    /// The mind.
    pub mind: Keeper,
    /// The channels.
    pub ports: Ports,
    /// The clocks.
    pub clock: &'a Clock,
    /// Where grants are recorded.
    pub grants: Grants,
    /// What else is to be done.
    pub chores: &'a mut dyn Chores,
}

/// How a run ended, apart from what the mind knows.
#[derive(Debug, Default)]
pub struct Ending {
    /// The words of a thread that panicked.
    pub panic: Option<String>,
    /// Whether requests were left behind unanswered.
    pub hurried: bool,
}

struct State {
    ending: Ending,
    stop_by: Option<Millis>,
    pollers_gone: bool,
    stream_gone: bool,
    /// No receipt will come any more.
    writer_gone: bool,
    /// The writer's thread has told how it ended, which it does after its last receipt.
    writer_ended: bool,
    stop_sent: bool,
    noted: usize,
    turned: Millis,
    /// How far the calendar is ahead of the local clock.
    ahead_ms: Millis,
    /// Orders to the stream, and a note to the writer, that found a full queue.
    orders: VecDeque<link::Order>,
    note: Option<Order>,
    repeats: Repeats,
}

impl State {
    fn new(stream_gone: bool, now: Now) -> State {
        State {
            ending: Ending::default(),
            stop_by: None,
            pollers_gone: false,
            stream_gone,
            writer_gone: false,
            writer_ended: false,
            stop_sent: false,
            noted: 0,
            turned: 0,
            ahead_ms: wall_now() - now.local,
            orders: VecDeque::new(),
            note: None,
            repeats: Repeats::default(),
        }
    }

    /// For how long the machine has slept since the last call, if it has. A calendar that was set
    /// forward looks the same, and costs a needless look at everything.
    fn slept_ms(&mut self, now: Now) -> Option<Millis> {
        let ahead_ms = wall_now() - now.local;
        let slept_ms = ahead_ms - std::mem::replace(&mut self.ahead_ms, ahead_ms);
        (slept_ms > SLEPT_MS).then_some(slept_ms)
    }
}

impl Supervisor<'_> {
    /// Works until everything is done or given up and the writer has ended: then every receipt was
    /// heard.
    pub fn run(&mut self) -> Ending {
        let mut state = State::new(self.ports.stream.is_none(), self.clock.now());
        while !(state.writer_gone && state.writer_ended) {
            let now = self.clock.now();
            if let Some(length_ms) = state.slept_ms(now) {
                self.mind.on(now, Input::Slept { length_ms });
            }
            self.act(&mut state, now);
            self.wind_down(&mut state, now);
            self.turn(&mut state, now);
            let mut event = self.hear(self.wait(&state, now));
            for _ in 0..EVENTS_MAX {
                if matches!(event, Event::Tick) {
                    break;
                }
                self.on(event, &mut state);
                event = self.hear(Duration::ZERO);
            }
            self.on(event, &mut state);
        }
        self.chores.turn(&mut self.mind, self.clock.now());
        state.ending
    }

    /// Sends out what may go out now.
    fn act(&mut self, state: &mut State, now: Now) {
        while let Some(action) = self.ports.actions.is_some().then(|| self.mind.next(now)).flatten()
        {
            match action {
                Action::Fetch(action) => self.fetch(action, now),
                Action::Stream(order) => state.orders.push_back(order),
            }
        }
        while let (Some(orders), Some(order)) = (&self.ports.stream, state.orders.pop_front()) {
            if let Err(TrySendError::Full(order)) = orders.try_send(order) {
                state.orders.push_front(order);
                break;
            }
        }
        while let (Some(notes), Some(note)) =
            (&self.ports.notes, state.note.take().or_else(|| self.chores.note()))
        {
            if let Err(TrySendError::Full(note)) = notes.try_send(note) {
                state.note = Some(note);
                break;
            }
        }
    }

    fn fetch(&mut self, action: control::Action, now: Now) {
        let Some(actions) = &self.ports.actions else { return };
        let (ticket, endpoint) = (action.ticket, action.job.endpoint());
        debug!(target: "supervisor", "ticket {ticket}: {}", action.job);
        // On record before it goes out: a kill in between costs budget, the other way round it
        // would spend some twice.
        if let Err(error) = self.grants.record(endpoint, now.local) {
            warn!(target: "supervisor", "a granted request is not on record: {error}");
        }
        // The queue holds as many orders as there are pollers, and no more are under way.
        if actions.try_send(action).is_err() {
            let (policy, error) = (Policy::Permanent, "no poller left".into());
            let failed = control::Input::Failed { ticket, policy, error };
            self.mind.on(now, Input::Control(failed));
        }
    }

    /// The end in its order: no more orders, so the pollers and the stream end; then no more notes,
    /// so the writer does. Whoever is in a hurry leaves them behind, never the writer's commit.
    fn wind_down(&mut self, state: &mut State, now: Now) {
        let stopped = self.mind.control().was_stopped();
        if stopped && state.stop_by.is_none() {
            state.stop_by = Some(now.local + STOP_WAIT_MS);
        }
        let hurry = state.stop_by.is_some_and(|by| now.local >= by);
        let finished = self.mind.control().is_finished(now);
        self.note_errors(state);
        if stopped || finished {
            self.ports.stream = None;
        }
        if finished || hurry {
            self.ports.actions = None;
        }
        if hurry {
            self.ports.hurry.store(true, Ordering::Relaxed);
        }
        if hurry && !(finished && state.stream_gone) && !state.stop_sent {
            let notes = self.ports.notes.as_ref();
            state.stop_sent = notes.is_none_or(|notes| notes.try_send(Order::Stop).is_ok());
            state.ending.hurried = true;
        }
        let all_noted = state.pollers_gone
            && state.stream_gone
            && state.noted == self.mind.control().lines().len();
        if state.stop_sent || (all_noted && self.send_last_order()) {
            self.ports.notes = None;
        }
    }

    /// Has the files compacted, unless somebody waits for the end; false if it has to be tried
    /// again.
    fn send_last_order(&self) -> bool {
        let Some(notes) = &self.ports.notes else { return true };
        let control = self.mind.control();
        let waiting = control.was_stopped() || control.gave_up().is_some();
        waiting || !matches!(notes.try_send(Order::Compact), Err(TrySendError::Full(_)))
    }

    /// Leaves in the files why series were given up, once each at the end.
    fn note_errors(&self, state: &mut State) {
        let (Some(notes), true) = (&self.ports.notes, state.pollers_gone) else { return };
        let control = self.mind.control();
        let gave_up = control.gave_up();
        for line in &control.lines()[state.noted..] {
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

    fn turn(&mut self, state: &mut State, now: Now) {
        if now.local >= state.turned + TURN_MS {
            state.turned = now.local;
            self.look_at_others(state, now);
            self.chores.turn(&mut self.mind, now);
        }
    }

    /// Counts what other processes ask the exchange, as they count what is asked here.
    fn look_at_others(&mut self, state: &mut State, now: Now) {
        match self.grants.others(now.local) {
            Ok(grants) => self.mind.spent(&grants, now),
            Err(error) => {
                let words = format!("the record of requests cannot be read: {error}");
                if let Some(line) = state.repeats.told(&words, now.local) {
                    warn!(target: "supervisor", "{line}");
                }
            }
        }
    }

    /// How long nothing can be due.
    fn wait(&self, state: &State, now: Now) -> Duration {
        let winding_down = self.ports.actions.is_none() && self.ports.notes.is_some();
        let full = !state.orders.is_empty() || state.note.is_some();
        let retry = (winding_down || full).then_some(now.local + RETRY_MS);
        let due = [self.mind.deadline(now), state.stop_by, retry];
        let due = due.into_iter().flatten().chain([state.turned + TURN_MS]).min();
        let wait_ms = due.map_or(TURN_MS, |due| due - now.local).clamp(1, TURN_MS);
        Duration::from_millis(wait_ms as u64)
    }

    fn hear(&self, wait: Duration) -> Event {
        let ports = &self.ports;
        select! {
            recv(ports.receipts) -> heard => heard.map_or(Event::WriterGone, Event::Receipt),
            recv(ports.reports) -> heard => heard.map_or(Event::PollersGone, Event::Report),
            recv(ports.streamed) -> heard => heard.map_or(Event::StreamGone, Event::Streamed),
            recv(ports.audits) -> heard => heard.map_or(Event::AuditorGone, Event::Audit),
            recv(ports.calls) -> heard => heard.map_or(Event::DeskGone, Event::Call),
            recv(ports.signals) -> heard => heard.map_or(Event::SignalsGone, Event::Signal),
            recv(ports.exits) -> heard => heard.map_or(Event::Tick, Event::Exit),
            default(wait) => Event::Tick,
        }
    }

    fn on(&mut self, event: Event, state: &mut State) {
        let now = self.clock.now();
        match event {
            Event::Tick => {}
            Event::Report(report) => self.on_report(report, now),
            Event::Receipt(receipt) => self.on_receipt(receipt, now),
            Event::Streamed(link::Report::Health(health)) => self.tell(News::Health(health), now),
            Event::Streamed(report) => self.mind.on(now, Input::Streamed(report)),
            Event::Audit(audit) => {
                let (series, lost) = (&audit.series, &audit.lost);
                self.mind.on(now, Input::Audited { series, lost });
                self.tell(News::Audited(&audit), now);
            }
            Event::Call(call) => self.tell(News::Call(call), now),
            Event::Signal(Signal::Reload) => self.tell(News::Reload, now),
            Event::Signal(Signal::Stop) if state.stop_by.is_some() => {
                state.stop_by = Some(now.local);
            }
            Event::Signal(Signal::Stop) => {
                self.mind.on(now, Input::Control(control::Input::Stop));
            }
            Event::Exit(exit) => self.on_exit(exit, state, now),
            // A channel without senders is always ready: it must not be heard again.
            Event::AuditorGone => self.ports.audits = never(),
            Event::DeskGone => self.ports.calls = never(),
            Event::SignalsGone => self.ports.signals = never(),
            Event::PollersGone => {
                self.ports.reports = never();
                state.pollers_gone = true;
            }
            Event::StreamGone => {
                self.ports.streamed = never();
                state.stream_gone = true;
            }
            Event::WriterGone => {
                self.ports.receipts = never();
                state.writer_gone = true;
                // Nothing more can be stored, so nothing more is asked: the pollers end.
                self.ports.actions = None;
                self.ports.stream = None;
                self.ports.notes = None;
            }
        }
        self.tell_all(state, now);
    }

    fn on_report(&mut self, report: poller::Report, now: Now) {
        let input = match report {
            poller::Report::Clock { ticket } => control::Input::Clock { ticket },
            poller::Report::Fetched { ticket } => control::Input::Fetched { ticket },
            poller::Report::Failed { ticket, trouble } => {
                let (policy, error) = (trouble.policy(), trouble.to_string());
                control::Input::Failed { ticket, policy, error }
            }
        };
        self.mind.on(now, Input::Control(input));
    }

    fn on_receipt(&mut self, receipt: Receipt, now: Now) {
        match receipt {
            Receipt::Stored { ticket, stored } => {
                let stored = control::Input::Stored { ticket, stored: &stored };
                self.mind.on(now, Input::Control(stored));
            }
            Receipt::Broken { ticket, error } => {
                let (damage, error) = (damage(&error), error.to_string());
                let broken = control::Input::Broken { ticket, error, damage };
                self.mind.on(now, Input::Control(broken));
            }
            Receipt::Pushed(pushed) => {
                let (series, stored) = (&pushed.series, &pushed.stored);
                self.mind.on(now, Input::Pushed { series, stored });
                self.tell(News::Pushed(&pushed), now);
            }
            Receipt::PushBroken { instrument, error } => {
                let (damage, error) = (damage(&error), error.to_string());
                let instrument = &instrument;
                self.mind.on(now, Input::PushBroken { instrument, error: &error, damage });
            }
            Receipt::Stalled { error } => {
                error!(target: "store", "{error}; everything waits for room on the disk");
                self.tell(News::Stalled(Some(error.to_string())), now);
            }
            Receipt::Resumed => {
                info!(target: "store", "the disk takes commits again");
                self.tell(News::Stalled(None), now);
            }
            Receipt::Purged { instrument, error } => {
                let error = error.map(|error| error.to_string());
                self.tell(News::Purged(instrument, error), now);
            }
        }
    }

    fn on_exit(&mut self, exit: Exit, state: &mut State, now: Now) {
        let Exit { name, end } = exit;
        state.writer_ended |= name == writer::NAME;
        if let End::Panicked(words) = end {
            error!(target: "supervisor", "a bug: thread {name} panicked: {words}");
            // Its ticket will never come back, so nothing more is waited for.
            state.ending.panic.get_or_insert(format!("thread {name}: {words}"));
            state.stop_by = Some(now.local);
            self.mind.on(now, Input::Control(control::Input::Stop));
        }
    }

    fn tell(&mut self, news: News<'_>, now: Now) {
        self.chores.hear(news, &mut self.mind, now);
    }

    /// Logs what the mind has to say.
    fn tell_all(&mut self, state: &mut State, now: Now) {
        for remark in self.mind.take_remarks() {
            if let Some(line) = state.repeats.told(&remark, now.local) {
                warn!(target: "poll", "{line}");
            }
            self.tell(News::Remark(&remark), now);
        }
        for recovery in self.mind.take_recoveries() {
            info!(target: "poll", "{recovery}");
        }
        for (instrument, error) in self.mind.take_damages() {
            error!(
                target: "store",
                "{error}; {instrument} is left alone, the others go on: mend the file or move it \
                 away, then send SIGHUP"
            );
        }
        for (instrument, change) in self.mind.take_changes() {
            let (from, to, cause) = (change.from.as_str(), change.to.as_str(), change.cause);
            match change.to {
                Mode::Joining => debug!(target: "mode", "{instrument}: {from} to {to}: {cause}"),
                _ if change.chosen => {
                    info!(target: "mode", "{instrument}: {from} to {to}: {cause}")
                }
                Mode::Stream => info!(target: "mode", "{instrument}: {from} to {to}: {cause}"),
                _ => warn!(target: "mode", "{instrument}: {from} to {to}: {cause}"),
            }
        }
    }
}

fn damage(error: &StoreError) -> Damage {
    match error.scope() {
        Scope::Busy => Damage::Busy,
        Scope::ThisFile => Damage::File,
        Scope::WholeDisk => Damage::Disk,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::backoff::Random;
    use crate::bar::Bar;
    use crate::control::{Control, Line};
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
            stream: None,
            notes: None,
            hurry: Arc::new(AtomicBool::new(false)),
            reports: heard,
            streamed: never(),
            receipts: stored,
            audits: never(),
            calls: never(),
            signals: never(),
            exits: ends,
        };
        let (mind, chores) = (Keeper::new(control), &mut Nothing);
        let ending = Supervisor { mind, ports, clock: &clock, grants, chores }.run();
        assert_eq!(ending.panic.as_deref(), Some("thread writer: it broke"));
        writer.unwrap().join().unwrap();
    }

    struct Nothing;

    impl Chores for Nothing {
        fn turn(&mut self, _: &mut Keeper, _: Now) {}
    }
}
