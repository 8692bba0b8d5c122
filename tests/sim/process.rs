//! A process: the real minds, and thin shells around them that do what the threads of the program
//! do, see `src/supervisor.rs` and `src/poller.rs`. What dies with a process is all in here.

use std::collections::{BTreeMap, VecDeque};

use okx_local_store::backoff::Random;
use okx_local_store::control::{self, Action as Fetch, Control, Damage, Job, Line};
use okx_local_store::instrument::Series;
use okx_local_store::keeper::{Action, Input, Keeper, Member};
use okx_local_store::limit::Budget;
use okx_local_store::link;
use okx_local_store::okx;
use okx_local_store::page::{Page as Proof, Stored};
use okx_local_store::plan::{Plan, Wanted};
use okx_local_store::span::Spans;
use okx_local_store::store::file::Entry;
use okx_local_store::store::order::{Batch, Order};
use okx_local_store::time::{Millis, Now, SECOND};
use okx_local_store::wire::Trouble;

use crate::judge::Judge;
use crate::machine::Clock;
use crate::rules::Ask;
use crate::stage::{Event, Lane, Page, Stage, ToClient, ToExchange, note};
use crate::store::Store;
use crate::stream::Stream;
use crate::weather::Weather;
use crate::writer::Writer;

/// How long a request waits for its answer, as in `src/http.rs`.
const TIMEOUT_MS: Millis = 12 * SECOND;
/// By how much the calendar must run ahead of the monotonic clock to tell of a sleep.
const SLEPT_MS: Millis = 5 * SECOND;
/// A request takes so long to the exchange at the most, whatever its answer does: the record of
/// grants counts on half a second.
const JOURNEY_MS: Millis = 390;
/// A message between two threads takes so long at the most.
const HOP_MS: Millis = 4;
/// A wait that is shorter ends in time: what is due so soon is a request, and those are to come as
/// fast as they may.
const PROMPT_MS: Millis = 150;
/// So many reports of the stream wait for the supervisor.
const STREAMED_MAX: usize = 256;

/// What the supervisor hears.
#[derive(Debug)]
pub enum Heard {
    Clock(u64),
    Fetched(u64),
    Failed(u64, Trouble),
    Stored(u64, Stored),
    Broken(u64, Damage),
    Pushed(Series, Stored),
    PushBroken(okx_local_store::instrument::Instrument, Damage),
    Streamed(link::Report),
    Audited(Series, Spans),
}

/// One process.
pub struct Process {
    pub life: u64,
    pub clock: Clock,
    pub mind: Keeper,
    pub writer: Writer,
    pub stream: Stream,
    /// What the supervisor has not heard yet.
    inbox: VecDeque<Heard>,
    /// Requests under way, and when each left.
    flights: BTreeMap<u64, Flight>,
    /// How far the calendar is ahead of the local clock.
    ahead_ms: Millis,
    /// The number of the wait that the supervisor is in, and its end.
    wait: (u64, Millis),
    lazy_ms: Millis,
    latency_ms: Millis,
    per_minute: u32,
    wanted: Wanted,
}

struct Flight {
    job: Job,
    left: Now,
}

impl Process {
    /// Starts a process on what the store holds.
    pub fn start(
        stage: &mut Stage,
        life: u64,
        weather: &Weather,
        store: &Store,
        judge: &mut Judge,
    ) -> Process {
        let clock = Clock::start(&stage.machine, stage.at, store.offset_ms.unwrap_or(0));
        let now = clock.now(&stage.machine, stage.at);
        let mut budget = Budget::new(weather.per_minute, okx::rate);
        budget.restore(&store.grants, now.local);
        let mut random = Random::new(stage.dice.next());
        let link = link::Link::new(weather.link.clone(), Random::new(random.below(u64::MAX)));
        let lines =
            if weather.is_command { counted_lines(weather, store, now) } else { Vec::new() };
        let control = Control::new(lines, weather.workers, budget, random, now);
        let mind = match (weather.is_command, weather.all_history) {
            (true, _) => Keeper::new(control),
            (false, true) => Keeper::new(control.endless()),
            (false, false) => Keeper::new(control.endless()).without_old_history(),
        };
        judge.begin();
        let mut process = Process {
            life,
            ahead_ms: stage.machine.wall(stage.at) - now.local,
            clock,
            mind,
            writer: Writer::new(weather),
            stream: Stream::new(link),
            inbox: VecDeque::new(),
            flights: BTreeMap::new(),
            wait: (0, Millis::MAX),
            lazy_ms: weather.lazy_ms,
            latency_ms: weather.latency_ms,
            per_minute: weather.per_minute,
            wanted: Wanted::Days(weather.days),
        };
        if weather.is_command {
            process.wake_after(stage, 0);
        } else {
            process.configure(stage, &weather.members, store);
        }
        process
    }

    /// Whether it is a command that has ended: well, or with something given up.
    pub fn ending(&self, stage: &Stage) -> Option<bool> {
        let control = self.mind.control();
        let is_over = control.is_finished(self.now(stage));
        let fails =
            control.gave_up().is_some() || control.lines().iter().any(|it| it.error.is_some());
        is_over.then_some(!fails)
    }

    pub fn now(&self, stage: &Stage) -> Now {
        self.clock.now(&stage.machine, stage.at)
    }

    /// Has the mind keep these, from what the store holds; then rows are counted.
    pub fn configure(&mut self, stage: &mut Stage, members: &[Member], store: &Store) {
        let now = self.now(stage);
        let unknown = self.mind.unknown(members.iter().flat_map(|member| member.series()));
        let lines = unknown.iter().map(|series| line(series, self.wanted, store, now)).collect();
        self.mind.configure(members, lines, now);
        unknown.iter().for_each(|series| self.audit(stage, series, store));
        self.wake_after(stage, 0);
    }

    /// A command wants all of these series complete.
    pub fn demand(&mut self, stage: &mut Stage, number: u64, all: &[Series], store: &Store) {
        let now = self.now(stage);
        let unknown = self.mind.unknown(all.iter().cloned());
        let lines = unknown.iter().map(|series| line(series, self.wanted, store, now)).collect();
        let wanted: Vec<(Series, Wanted)> =
            all.iter().map(|series| (series.clone(), self.wanted)).collect();
        self.mind.demand(number, &wanted, lines);
        all.iter().for_each(|series| self.audit(stage, series, store));
        self.wake_after(stage, 0);
    }

    fn audit(&mut self, stage: &mut Stage, series: &Series, store: &Store) {
        let lost = store.table(series).map(|table| table.holes()).unwrap_or_default();
        let after_ms = 1 + stage.draw(SECOND);
        let heard = ToClient::Heard(Heard::Audited(series.clone(), lost));
        stage.post(after_ms, Event::Client(self.life, heard));
    }

    /// The supervisor hears something soon.
    pub fn hear(&mut self, stage: &mut Stage, heard: Heard) {
        self.inbox.push_back(heard);
        assert!(self.inbox.len() <= 2 * STREAMED_MAX, "the supervisor does not come to hear");
        let after_ms = stage.draw(HOP_MS);
        self.wake_after(stage, after_ms);
    }

    /// Lets the supervisor's wait end by then.
    fn wake_after(&mut self, stage: &mut Stage, after_ms: Millis) {
        let at = stage.at + after_ms;
        if at < self.wait.1 {
            self.wait = (self.wait.0 + 1, at);
            let event = ToClient::Supervisor(self.wait.0);
            stage.post(after_ms, Event::Client(self.life, event));
        }
    }

    /// The supervisor's loop, once.
    pub fn supervise(
        &mut self,
        stage: &mut Stage,
        wait: u64,
        store: &mut Store,
        judge: &mut Judge,
    ) {
        if wait != self.wait.0 {
            return;
        }
        self.wait.1 = Millis::MAX;
        for heard in std::mem::take(&mut self.inbox) {
            self.take_in(stage, heard, judge);
        }
        let now = self.now(stage);
        let ahead_ms = stage.machine.wall(stage.at) - now.local;
        let slept_ms = ahead_ms - std::mem::replace(&mut self.ahead_ms, ahead_ms);
        if slept_ms > SLEPT_MS {
            note!(stage, "supervisor: slept for {slept_ms} ms");
            self.mind.on(now, Input::Slept { length_ms: slept_ms });
        }
        while let Some(action) = self.mind.next(now) {
            match action {
                Action::Fetch(fetch) => self.send_out(stage, fetch, now, store, judge),
                Action::Stream(order) => {
                    let after_ms = stage.draw(HOP_MS);
                    let wish = Event::Client(self.life, ToClient::Wish(order));
                    stage.post_in(Lane::Wishes, after_ms, wish);
                }
            }
        }
        self.tell(stage, judge);
        let Some(due) = self.mind.deadline(now) else {
            let is_idle =
                self.mind.feeds().next().is_none() && self.mind.control().lines().is_empty();
            let waits = judge.waits() || self.ending(stage).is_some() || is_idle;
            assert!(waits, "the supervisor waits for nothing");
            return;
        };
        assert!(due > now.local, "the supervisor would spin: {due} is past at {}", now.local);
        let wait_ms = due - now.local;
        let late_ms = if wait_ms < PROMPT_MS { 0 } else { stage.draw(self.lazy_ms) };
        self.wake_after(stage, wait_ms + late_ms);
    }

    fn tell(&mut self, stage: &mut Stage, judge: &mut Judge) {
        for remark in self.mind.take_remarks() {
            note!(stage, "supervisor: {remark}");
        }
        for (instrument, error) in self.mind.take_damages() {
            note!(stage, "supervisor: {instrument} is left alone: {error}");
        }
        for (instrument, change) in self.mind.take_changes() {
            note!(
                stage,
                "supervisor: {instrument} from {} to {}: {}",
                change.from.as_str(),
                change.to.as_str(),
                change.cause
            );
            judge.changed(&instrument, &change);
        }
    }

    fn take_in(&mut self, stage: &mut Stage, heard: Heard, judge: &mut Judge) {
        let now = self.now(stage);
        let input = match heard {
            Heard::Clock(ticket) => {
                judge.landed(ticket);
                Input::Control(control::Input::Clock { ticket })
            }
            Heard::Fetched(ticket) => Input::Control(control::Input::Fetched { ticket }),
            Heard::Failed(ticket, trouble) => {
                judge.landed(ticket);
                let (policy, error) = (trouble.policy(), trouble.to_string());
                judge.failed(ticket, policy, now.local);
                Input::Control(control::Input::Failed { ticket, policy, error })
            }
            Heard::Stored(ticket, stored) => {
                judge.landed(ticket);
                let stored = control::Input::Stored { ticket, stored: &stored };
                return self.mind.on(now, Input::Control(stored));
            }
            Heard::Broken(ticket, damage) => {
                judge.landed(ticket);
                let error = format!("the model breaks: {damage:?}");
                Input::Control(control::Input::Broken { ticket, error, damage })
            }
            Heard::Pushed(series, stored) => {
                return self.mind.on(now, Input::Pushed { series: &series, stored: &stored });
            }
            Heard::PushBroken(instrument, damage) => {
                let (instrument, error) = (&instrument, "the model breaks");
                return self.mind.on(now, Input::PushBroken { instrument, error, damage });
            }
            Heard::Streamed(report) => {
                note!(stage, "supervisor: the stream reports {report:?}");
                Input::Streamed(report)
            }
            Heard::Audited(series, lost) => {
                return self.mind.on(now, Input::Audited { series: &series, lost: &lost });
            }
        };
        self.mind.on(now, input);
    }

    fn send_out(
        &mut self,
        stage: &mut Stage,
        fetch: Fetch,
        now: Now,
        store: &mut Store,
        judge: &mut Judge,
    ) {
        note!(stage, "supervisor: ticket {}: {}", fetch.ticket, fetch.job);
        store.grants.retain(|&(_, at)| at > now.local - 60 * SECOND);
        store.grants.push((fetch.job.endpoint(), now.local));
        let granted = store.grants.len();
        assert!(
            self.per_minute == 0 || granted <= self.per_minute as usize,
            "{granted} requests in a minute"
        );
        judge.asked(&fetch, now.local, store);
        let after_ms = stage.draw(HOP_MS);
        stage.post_in(Lane::Orders, after_ms, Event::Client(self.life, ToClient::Order(fetch)));
    }

    /// A poller makes a request.
    pub fn fetch(&mut self, stage: &mut Stage, fetch: Fetch) {
        let Fetch { ticket, job } = fetch;
        let path = match &job {
            Job::Time => okx::TIME_PATH.to_owned(),
            Job::Page { series, endpoint, ask, .. } => okx::page_path(series, *endpoint, *ask),
        };
        check_path(&job, &path);
        let left = self.now(stage);
        self.flights.insert(ticket, Flight { job, left });
        let life = self.life;
        let travel_ms = 1 + stage.draw(self.latency_ms.min(JOURNEY_MS));
        stage.post(travel_ms, Event::Exchange(ToExchange::Get { life, ticket, path }));
        let late = ToClient::Answer(ticket, Err("no answer in time"));
        stage.post(TIMEOUT_MS, Event::Client(life, late));
    }

    /// A poller hears the answer to its request.
    pub fn answered(&mut self, stage: &mut Stage, ticket: u64, answer: Result<Page, &'static str>) {
        let Some(Flight { job, left }) = self.flights.remove(&ticket) else { return };
        match self.read(stage, ticket, job, left, answer) {
            Ok(Some(batch)) => {
                let order = Order::Store(batch);
                let life = self.life;
                let now = self.now(stage);
                self.writer.take(stage, life, now, order);
            }
            Ok(None) => self.report(stage, Heard::Clock(ticket)),
            Err(trouble) => self.report(stage, Heard::Failed(ticket, trouble)),
        }
        self.go_on(stage);
    }

    fn report(&mut self, stage: &mut Stage, heard: Heard) {
        let after_ms = stage.draw(HOP_MS);
        let event = Event::Client(self.life, ToClient::Heard(heard));
        stage.post_in(Lane::Reports, after_ms, event);
    }

    fn read(
        &mut self,
        stage: &mut Stage,
        ticket: u64,
        job: Job,
        left: Now,
        answer: Result<Page, &'static str>,
    ) -> Result<Option<Batch>, Trouble> {
        let lost = |why: &str| Trouble::Transport { host: "model".into(), why: why.into() };
        let answer = answer.map_err(lost)?;
        let now = self.now(stage);
        let Job::Page { series, grid, ask, .. } = job else {
            let Page::Bytes(answer) = answer else { panic!("the clock has no rows") };
            let exchange = okx::decode_time(&answer)?;
            let journey_ms = now.local - left.local;
            let exchange = exchange + journey_ms / 2;
            self.clock.learn(&stage.machine, stage.at, exchange);
            return Ok(None);
        };
        let page = match answer {
            Page::Bytes(answer) => okx::decode_page(ask, &answer)?,
            Page::Rows(rows) => Proof::new(ask, rows, Vec::new()),
        };
        let entry = Entry { bar: series.bar, grid: Some(grid), page, at: now.exchange };
        Ok(Some(Batch { ticket, instrument: series.instrument, entry }))
    }

    /// Whoever waits for room in the writer's channel takes it; pollers tell that their page is on
    /// its way.
    pub fn go_on(&mut self, stage: &mut Stage) {
        for ticket in self.writer.accepted() {
            self.report(stage, Heard::Fetched(ticket));
        }
        let now = self.now(stage);
        self.stream.go_on(stage, self.life, now, &mut self.writer);
    }
}

/// A series with its plan, made from what the store holds.
fn line(series: &Series, wanted: Wanted, store: &Store, now: Now) -> Line {
    let found = store.table(series).map(|table| table.resume(series.bar, now.exchange));
    let (grid, coverage, open) =
        found.unwrap_or_else(|| (series.bar.grid(), Default::default(), Vec::new()));
    let history_only = !okx::candles_have(series.bar);
    let plan = Plan::new(grid, wanted, history_only, coverage, &open);
    Line::new(series.clone(), plan)
}

/// The series of a command, which counts the rows first.
fn counted_lines(weather: &Weather, store: &Store, now: Now) -> Vec<Line> {
    let series = weather.members.iter().flat_map(|member| member.series());
    let counted = |series: Series| {
        let mut line = line(&series, Wanted::Days(weather.days), store, now);
        line.uncover(&store.table(&series).map(|table| table.holes()).unwrap_or_default());
        line
    };
    series.map(counted).collect()
}

/// Fails unless a path asks for what is meant: of the bars that it names, exclusive on either side,
/// the first and the last are those of the window.
fn check_path(job: &Job, path: &str) {
    let Job::Page { grid, ask, .. } = job else { return };
    let meant = ask.window();
    let asked = Ask::parse(path);
    let names = |ts| {
        asked.before.is_none_or(|before| ts > before) && asked.after.is_none_or(|after| ts < after)
    };
    let first = grid.ceil(meant.start);
    assert!(names(first), "{path} leaves out the first bar of {meant}");
    let below = grid.step(first, -1);
    assert!(meant.start == 0 || !names(below), "{path} asks for more than {meant}");
    if asked.after.is_some() {
        let last = grid.floor(meant.end - 1);
        assert!(names(last) && !names(grid.next(last)), "{path} ends elsewhere than {meant}");
    }
}
