//! A run: the loop that takes event after event, and what the weather does.

use std::collections::{BTreeSet, VecDeque};

use okx_local_store::instrument::Series;
use okx_local_store::keeper::{Input, Member};
use okx_local_store::mode::{Loss, Rule};
use okx_local_store::span::Spans;
use okx_local_store::time::{DAY, MINUTE, Millis, SECOND};

use crate::dice::{Dice, mix};
use crate::exchange::Exchange;
use crate::judge::{Judge, compare, compare_mode, compare_plan};
use crate::machine::Machine;
use crate::process::Process;
use crate::stage::{Event, Stage, ToClient, ToExchange, Trace, note};
use crate::store::Store;
use crate::weather::{Deed, Spell, Weather};
use crate::writer::Place;

/// How long a store has to become equal to the exchange once nothing is wrong any more.
const HEAL_MS: Millis = 25 * MINUTE;
/// How much longer if the exchange has denied requests, after which it is left alone for minutes;
const DENIED_MS: Millis = 20 * MINUTE;
/// if the machine slept unnoticed while the exchange has no bars that could tell what time it is,
/// which is asked for once an hour;
const UNCLEAR_MS: Millis = 65 * MINUTE;
/// and if it has closed a connection over too many series, of which more are tried within an hour.
const OVERFULL_MS: Millis = 65 * MINUTE;
/// So long after a bar's end, and two intervals, it is in the store where nothing is wrong.
const FRESH_MS: Millis = 45 * SECOND;
/// How often that is looked at.
const LOOK_MS: Millis = 15 * SECOND;
/// So often in a row it has to be right.
const LOOKS: u32 = 3;
/// More events than any run has.
const EVENTS_MAX: u64 = 3_000_000;

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub events: u64,
    pub requests: u64,
    pub healed_ms: Millis,
    pub hash: u64,
    /// The kinds of deeds, of answers that were spoilt, and of changes of modes.
    pub seen: BTreeSet<String>,
}

pub struct World {
    pub stage: Stage,
    pub exchange: Exchange,
    pub store: Store,
    weather: Weather,
    judge: Judge,
    process: Option<Process>,
    lives: u64,
    started_at: Millis,
    /// When that command was started, after everything was well, that has ended well last.
    done_at: Option<Millis>,
    revised: Vec<(usize, Millis)>,
    /// Commands that want something, and how many there were.
    commands: VecDeque<u64>,
    commanded: u64,
    healed_at: Option<Millis>,
    seen: BTreeSet<String>,
    looks: u32,
    wrong: Vec<String>,
    patience: Patience,
    is_over: bool,
}

impl World {
    pub fn new(seed: u64, trace: Trace) -> World {
        let weather = Weather::of(seed);
        let machine = Machine::new(weather.start, weather.wrong_ms, weather.drift);
        let stage = Stage::new(weather.start, Dice::new(mix(seed, 1)), machine, trace);
        World {
            stage,
            exchange: Exchange::new(seed, &weather),
            store: Store::default(),
            judge: Judge::default(),
            process: None,
            lives: 0,
            started_at: Millis::MIN,
            done_at: None,
            revised: Vec::new(),
            commands: VecDeque::new(),
            commanded: 1,
            healed_at: None,
            seen: BTreeSet::new(),
            looks: 0,
            wrong: Vec::new(),
            patience: Patience::of(&weather),
            is_over: false,
            weather,
        }
    }

    /// Runs until the store has become equal to the exchange after all faults, or fails.
    pub fn run(&mut self) -> Outcome {
        note!(self.stage, "{:#?}", self.weather);
        let deeds = std::mem::take(&mut self.weather.deeds);
        deeds.into_iter().for_each(|(at, deed)| self.stage.post(at, Event::Deed(deed)));
        self.stage.post(0, Event::Start);
        self.stage.post(0, Event::Exchange(ToExchange::Tick));
        self.stage.post(self.weather.length_ms, Event::Heal);
        let mut events = 0;
        while !self.is_over {
            let event = self.stage.next().expect("because the exchange's clock goes on");
            self.take(event);
            events += 1;
            assert!(events < EVENTS_MAX, "the run does not end");
        }
        self.judge.check_spans(&self.store);
        let healed_ms = self.stage.at - self.healed_at.unwrap_or(self.stage.at);
        let (requests, hash) = (self.exchange.requests, self.stage.trace.hash);
        let mut seen = std::mem::take(&mut self.seen);
        seen.extend(self.exchange.struck.iter().map(|fault| format!("{fault:?}")));
        seen.extend(self.judge.seen.iter().map(|change| format!("{change:?}")));
        Outcome { events, requests, healed_ms, hash, seen }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Client(life, what) => self.reach(life, what),
            Event::Exchange(what) => self.reach_exchange(what),
            Event::Deed(deed) => {
                if self.healed_at.is_none() {
                    note!(self.stage, "weather: {deed:?}");
                    self.seen.insert(deed.kind());
                    self.act(deed);
                }
            }
            Event::Start => self.start(),
            Event::Heal => self.heal(),
            Event::Look => self.look(),
        }
    }

    fn reach(&mut self, life: u64, what: ToClient) {
        let Some(process) = self.process.as_mut().filter(|process| process.life == life) else {
            return;
        };
        let stage = &mut self.stage;
        match what {
            ToClient::Supervisor(wait) => {
                process.supervise(stage, wait, &mut self.store, &mut self.judge);
                if let Some(is_well) = process.ending(stage) {
                    self.end(is_well);
                }
            }
            ToClient::Writer(wait) => {
                let place = &mut Place {
                    life,
                    now: process.now(stage),
                    offset_ms: process.clock.offset.ms(),
                    exchange: &mut self.exchange,
                    store: &mut self.store,
                    judge: &mut self.judge,
                };
                process.writer.work(stage, wait, place);
                process.go_on(stage);
            }
            ToClient::Order(fetch) => process.fetch(stage, fetch),
            ToClient::Answer(ticket, answer) => process.answered(stage, ticket, answer),
            ToClient::Heard(heard) => process.hear(stage, heard),
            what => {
                let now = process.now(stage);
                process.stream.on(stage, life, now, what, &mut process.writer);
            }
        }
    }

    fn reach_exchange(&mut self, what: ToExchange) {
        let stage = &mut self.stage;
        match what {
            ToExchange::Get { life, ticket, path } => match self.exchange.held_ms(stage.at) {
                0 => self.exchange.get(stage, life, ticket, &path),
                held_ms => {
                    let again = ToExchange::Get { life, ticket, path };
                    stage.post(held_ms, Event::Exchange(again));
                }
            },
            ToExchange::Connect { life, conn } => self.exchange.connect(stage, life, conn),
            ToExchange::Said { line, text } => self.exchange.hear(stage, line, &text),
            ToExchange::HungUp { line } => drop(self.exchange.lines.remove(&line)),
            ToExchange::Tick => self.exchange.tick(stage),
            ToExchange::End { line } => self.exchange.close(stage, line, Some(1001)),
        }
    }

    fn start(&mut self) {
        if self.process.is_some() || self.waits_for_the_machine(|| Event::Start) {
            return;
        }
        self.lives += 1;
        self.started_at = self.stage.at;
        let stage = &mut self.stage;
        note!(stage, "process {} starts", self.lives);
        let wall = stage.machine.wall(stage.at);
        // What the record has from the future counts as of now.
        self.store.grants.iter_mut().for_each(|(_, at)| *at = wall.min(*at));
        let process =
            Process::start(stage, self.lives, &self.weather, &self.store, &mut self.judge);
        self.process = Some(process);
    }

    /// A command has ended; the next one comes soon.
    fn end(&mut self, is_well: bool) {
        note!(self.stage, "process {} has ended well: {is_well}", self.lives);
        self.process = None;
        if is_well && self.healed_at.is_some_and(|at| at <= self.started_at) {
            self.done_at = Some(self.started_at);
        }
        let pause_ms = self.stage.draw(MINUTE);
        self.stage.post(pause_ms, Event::Start);
    }

    /// What happens to the machine waits while that sleeps.
    fn waits_for_the_machine(&mut self, event: impl Fn() -> Event) -> bool {
        let after_ms = self.stage.machine.awake_at() - self.stage.at;
        if after_ms > 0 {
            self.stage.post(after_ms, event());
        }
        after_ms > 0
    }

    fn kill(&mut self) {
        self.commands.clear();
        if let Some(process) = self.process.take() {
            self.exchange.forget(process.life);
        }
        self.judge.check_spans(&self.store);
    }

    fn act(&mut self, deed: Deed) {
        let is_machines = matches!(
            deed,
            Deed::Sleep(_) | Deed::Doze(_) | Deed::Step(_) | Deed::Kill(_) | Deed::Tamper(_)
        );
        if is_machines && self.waits_for_the_machine(|| Event::Deed(deed.clone())) {
            return;
        }
        let stage = &mut self.stage;
        match deed {
            Deed::Sleep(length_ms) => stage.machine.sleep(stage.at, length_ms),
            Deed::Step(by_ms) => stage.machine.step(by_ms),
            Deed::Doze(length_ms) => {
                stage.machine.sleep(stage.at, length_ms);
                stage.machine.step(-length_ms);
            }
            Deed::Kill(down_ms) => {
                self.kill();
                self.stage.post(down_ms, Event::Start);
            }
            Deed::Tamper(down_ms) => {
                self.kill();
                self.tamper();
                self.stage.post(down_ms, Event::Start);
            }
            Deed::Damage(member) => {
                let name = self.weather.members[member].instrument.clone();
                self.exchange.damaged.insert(name);
            }
            deed @ (Deed::Remove(_) | Deed::Restore | Deed::Command | Deed::Dismiss) => {
                self.order(&deed);
            }
            deed => self.strike(deed),
        }
    }

    /// Something happens to the exchange.
    fn strike(&mut self, deed: Deed) {
        let (stage, exchange) = (&mut self.stage, &mut self.exchange);
        match deed {
            Deed::Spell(spell, length_ms) => exchange.bewitch(stage.at, spell, length_ms),
            Deed::Drop | Deed::Close(1006) => exchange.close_all(stage, None),
            Deed::Close(code) => exchange.close_all(stage, Some(code)),
            Deed::Vanish => exchange.vanish(),
            Deed::Notice(after_ms) => exchange.announce_end(stage, after_ms),
            Deed::Garbage(garbage) => exchange.babble(stage, garbage),
            Deed::Unsubscribe(number) => exchange.unsubscribe(stage, number),
            Deed::Revise(number, back) => {
                let revised = exchange.revise(stage.at, number, back);
                self.revised.extend(revised.map(|ts| (number, ts)));
            }
            deed => panic!("{deed:?} is none of the exchange's"),
        }
    }

    /// Somebody wants something of the process.
    fn order(&mut self, deed: &Deed) {
        if self.weather.is_command {
            return;
        }
        let (stage, store, members) = (&mut self.stage, &self.store, &self.weather.members);
        let Some(process) = &mut self.process else { return };
        match *deed {
            Deed::Remove(member) => {
                let gone = &members[member].instrument;
                self.judge.forget(gone);
                let left = members.iter().filter(|member| member.instrument != *gone);
                process.configure(stage, &left.cloned().collect::<Vec<Member>>(), store);
            }
            Deed::Command => {
                self.commanded += 1;
                self.commands.push_back(self.commanded);
                let all = self.exchange.series.iter().map(|known| known.series.clone());
                process.demand(stage, self.commanded, &all.collect::<Vec<Series>>(), store);
            }
            Deed::Dismiss => {
                if let Some(number) = self.commands.pop_front() {
                    process.mind.dismiss(number);
                }
            }
            _ => process.configure(stage, members, store),
        }
    }

    /// Other hands delete rows.
    fn tamper(&mut self) {
        for (series, table) in &mut self.store.tables {
            let times: Vec<Millis> = table.rows.keys().copied().collect();
            if times.is_empty() {
                continue;
            }
            let tampered = self.judge.tampered.entry(series.clone()).or_default();
            let first = self.stage.dice.below(times.len());
            for ts in times.into_iter().skip(first).take(3) {
                table.rows.remove(&ts);
                tampered.insert(table.grid.bar_at(ts));
            }
        }
    }

    /// From now on nothing is wrong but the calendar, which may stay so for ever. Whoever is in
    /// charge has the files mended, and has those bars read again that were revised, as
    /// `verify --repair` does.
    fn heal(&mut self) {
        if self.waits_for_the_machine(|| Event::Heal) {
            return;
        }
        note!(self.stage, "everything is well from now on");
        self.healed_at = Some(self.stage.at);
        self.exchange.heal();
        self.stage.post(LOOK_MS, Event::Look);
        if self.weather.is_command {
            // The next one reads the revised bars again.
            for (number, ts) in std::mem::take(&mut self.revised) {
                let series = &self.exchange.series[number].series;
                let bar = series.bar.grid().bar_at(ts);
                if let Some(table) = self.store.tables.get_mut(series) {
                    table.coverage.uncover(bar);
                }
            }
            return;
        }
        self.start();
        let process = self.process.as_mut().expect("because it was started");
        process.mind.pardon();
        process.configure(&mut self.stage, &self.weather.members, &self.store);
        let now = process.now(&self.stage);
        for &(number, ts) in &self.revised {
            let series: &Series = &self.exchange.series[number].series;
            let lost = &Spans::from(series.bar.grid().bar_at(ts));
            process.mind.on(now, Input::Audited { series, lost });
        }
    }

    fn look(&mut self) {
        let since_ms = self.stage.at - self.healed_at.unwrap_or(self.stage.at);
        self.mend();
        let mut wrong = Vec::new();
        for number in 0..self.exchange.series.len() {
            let series = self.exchange.series[number].series.clone();
            if let Err(why) = self.look_at(number) {
                // Who may not poll has to wait for the stream.
                let waits = matches!(
                    self.weather.rule(&series.instrument),
                    Some(Rule::Stream { loss: Loss::Wait, .. })
                );
                let patience_ms = if waits { self.patience.stream } else { self.patience.bars };
                assert!(since_ms < patience_ms, "{series} does not heal: {why}");
                wrong.push(format!("{series}: {why}"));
            }
        }
        for member in &self.weather.members {
            let mind = self.process.as_ref().map(|process| &process.mind);
            let Some(mind) = mind.filter(|_| !self.weather.is_command) else { continue };
            if let Err(why) = compare_mode(&self.exchange, mind, &member.instrument) {
                let unheard = why.starts_with("nothing is heard");
                let patience_ms = if unheard { self.patience.bars } else { self.patience.stream };
                assert!(since_ms < patience_ms, "{why}");
                wrong.push(why);
            }
        }
        self.looks = if wrong.is_empty() { self.looks + 1 } else { 0 };
        self.is_over = self.looks == LOOKS;
        if self.wrong != wrong {
            note!(self.stage, "look: {wrong:?}");
            self.wrong = wrong;
        }
        self.stage.post(LOOK_MS, Event::Look);
    }

    /// Whoever is in charge has files taken up again that were given up before all was well.
    fn mend(&mut self) {
        let Some(process) = &mut self.process else { return };
        let mut members = self.weather.members.iter();
        if members.any(|member| process.mind.quarantine(&member.instrument).is_some()) {
            process.mind.pardon();
            process.configure(&mut self.stage, &self.weather.members, &self.store);
        }
    }

    /// What of a series is not as it should be.
    fn look_at(&mut self, number: usize) -> Result<(), String> {
        let (store, exchange) = (&self.store, &mut self.exchange);
        let wanted_ms = Millis::from(self.weather.days) * DAY;
        if self.weather.is_command {
            let at = self.done_at.ok_or("no command has ended well since")?;
            return compare(exchange, store, number, (at - wanted_ms, at - FRESH_MS));
        }
        let (at, series) = (self.stage.at, exchange.series[number].series.clone());
        let member = self.weather.members.iter().find(|it| it.instrument == series.instrument);
        let interval_ms = member.map_or(0, |member| member.interval_ms);
        let end = at - 2 * interval_ms - FRESH_MS;
        compare(exchange, store, number, (at - wanted_ms, end))?;
        let process = self.process.as_ref().ok_or("nobody is there")?;
        compare_plan(store, &process.mind, &series, process.now(&self.stage))
    }
}

/// How long bars, and the stream, may need to heal.
struct Patience {
    bars: Millis,
    stream: Millis,
}

impl Patience {
    /// Given what had happened.
    fn of(weather: &Weather) -> Patience {
        let has = |kind: fn(&Deed) -> bool| weather.deeds.iter().any(|(_, deed)| kind(deed));
        let denied = has(|deed| matches!(deed, Deed::Spell(Spell::RestDenied, _)));
        let overfull =
            has(|deed| matches!(deed, Deed::Spell(Spell::Limit(..), _) | Deed::Close(4008 | 4009)));
        let dozed = has(|deed| matches!(deed, Deed::Doze(_)));
        let end = weather.start + weather.length_ms;
        let unclear = dozed && weather.holes.iter().any(|hole| hole.2 > end);
        let extra_ms = if denied { DENIED_MS } else { 0 } + if unclear { UNCLEAR_MS } else { 0 };
        let bars = HEAL_MS + extra_ms;
        Patience { bars, stream: bars + if overfull { OVERFULL_MS } else { 0 } }
    }
}
