//! The daemon's mind against a model of the exchange, in virtual time: minutes pass in moments, and
//! what was stored is compared with what the exchange has.

use super::*;
use crate::backoff::Random;
use crate::bar::{Bar, Grid};
use crate::candle::Candle;
use crate::control::Job;
use crate::coverage::Coverage;
use crate::limit::Budget;
use crate::mode::{Loss, Rule};
use crate::okx;
use crate::page::{Ask, Evidence, Page};
use crate::plan::Plan;
use crate::time::{HOUR, MINUTE, SECOND};

mod changes;
mod confirms;

/// A moment in 2024 at which all bars up to an hour open.
const T0: Millis = 1_714_521_600_000;
/// One step of virtual time.
const STEP_MS: Millis = 100;
/// How long a request is under way.
const REST_MS: Millis = 100;
/// How long a subscription takes.
const ACK_MS: Millis = 300;

const HYBRID: Rule = Rule::Stream { loss: Loss::Poll, auto: false };

fn bar(name: &str) -> Bar {
    name.parse().unwrap()
}

fn series_of(n: usize, name: &str) -> Series {
    Series { instrument: format!("C{n}-USDT").parse().unwrap(), bar: bar(name) }
}

fn member(n: usize, bars: &[&str], rule: Rule) -> Member {
    Member {
        instrument: format!("C{n}-USDT").parse().unwrap(),
        bars: bars.iter().map(|name| bar(name)).collect(),
        rule,
        interval_ms: MINUTE,
        history_days: 1,
    }
}

fn line(series: &Series) -> Line {
    let plan = Plan::new(series.bar.grid(), Wanted::Days(1), false, Coverage::default(), &[]);
    Line::new(series.clone(), plan)
}

/// What the model does to the stream.
#[derive(Default)]
struct Faults {
    /// The stream cannot be had.
    down: bool,
    /// This series' confirms do not come.
    no_confirms: Option<Series>,
    /// Nothing of this series is pushed.
    idle: Option<Series>,
    /// This series' next confirm does not come.
    skip: Option<Series>,
    /// This series is refused.
    refuse: Option<Series>,
    /// REST answers nothing.
    rest_down: bool,
    /// A bar closes so long after its end, for REST too.
    confirm_late_ms: Millis,
}

/// The mind, the model of the exchange, and what is stored.
struct World {
    keeper: Keeper,
    at: Millis,
    faults: Faults,
    wanted: BTreeSet<Series>,
    acked: BTreeSet<Series>,
    acks: Vec<(Millis, Series)>,
    answers: Vec<(Millis, control::Action)>,
    /// The candle requests: when, of what.
    asked: Vec<(Millis, Series, Ask)>,
    closed: BTreeSet<(Series, Millis)>,
    renewals: u32,
    log: Vec<String>,
}

impl World {
    fn new(members: &[Member]) -> World {
        World::with(members, |keeper| keeper)
    }

    fn with(members: &[Member], make: impl Fn(Keeper) -> Keeper) -> World {
        let now = Now { local: 0, exchange: T0 };
        let budget = Budget::new(0, okx::rate);
        let control = Control::new(Vec::new(), 3, budget, Random::new(1), now).endless();
        let mut keeper = make(Keeper::new(control));
        let lines = keeper.unknown(members.iter().flat_map(Member::series));
        keeper.configure(members, lines.iter().map(line).collect(), now);
        World {
            keeper,
            at: 0,
            faults: Faults::default(),
            wanted: BTreeSet::new(),
            acked: BTreeSet::new(),
            acks: Vec::new(),
            answers: Vec::new(),
            asked: Vec::new(),
            closed: BTreeSet::new(),
            renewals: 0,
            log: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now { local: self.at, exchange: T0 + self.at }
    }

    fn candle(&self, grid: Grid, ts: Millis) -> Candle {
        let value = 1.0 + (ts / MINUTE % 977) as f64;
        Candle {
            ts,
            open: value,
            high: value,
            low: value,
            close: value,
            volume: value,
            volume_ccy: value,
            volume_quote: value,
            confirmed: grid.bar_at(ts).end + self.faults.confirm_late_ms <= self.now().exchange,
        }
    }

    /// Lets time pass.
    fn run(&mut self, length_ms: Millis) {
        let end = self.at + length_ms;
        while self.at < end {
            self.at += STEP_MS;
            self.answer();
            self.stream();
            let now = self.now();
            while let Some(action) = self.keeper.next(now) {
                self.act(action);
            }
            let told = self.keeper.take_changes();
            let words = |(name, it): (Instrument, Change)| {
                format!("{name} {}-{}: {}", it.from.as_str(), it.to.as_str(), it.cause)
            };
            self.log.extend(told.into_iter().map(words));
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fetch(action) => {
                if let Job::Page { series, ask, .. } = &action.job {
                    self.asked.push((self.at, series.clone(), *ask));
                }
                self.answers.push((self.at + REST_MS, action));
            }
            Action::Stream(Order::Want(wanted)) => {
                self.acked.retain(|series| wanted.contains(series));
                let new = wanted.difference(&self.wanted).cloned();
                self.acks.extend(new.map(|series| (self.at + ACK_MS, series)));
                self.wanted = wanted;
            }
            Action::Stream(Order::Renew(renewed)) => {
                self.renewals += 1;
                self.acked.retain(|series| !renewed.contains(series));
                self.acks.extend(renewed.into_iter().map(|series| (self.at + ACK_MS, series)));
            }
            Action::Stream(Order::Reconnect(cause)) => self.lose(&cause),
            Action::Stream(other) => panic!("{other:?}"),
        }
    }

    /// The connection is lost; it comes back when the fault is over.
    fn lose(&mut self, cause: &str) {
        self.acked.clear();
        self.acks.clear();
        let report = Report::Down { cause: cause.to_owned() };
        self.keeper.on(self.now(), Input::Streamed(report));
        let wanted = self.wanted.iter().cloned();
        self.acks = wanted.map(|series| (self.at + ACK_MS, series)).collect();
    }

    /// Answers requests that are due.
    fn answer(&mut self) {
        let at = self.at;
        let due = |(due, _): &(Millis, control::Action)| *due <= at;
        let due: Vec<_> = self.answers.extract_if(.., |it| due(it)).collect();
        for (_, action) in due {
            let (now, ticket) = (self.now(), action.ticket);
            let input = match action.job {
                _ if self.faults.rest_down => {
                    let policy = crate::wire::Policy::Busy { retry_after_ms: None };
                    control::Input::Failed { ticket, policy, error: "unreachable".into() }
                }
                Job::Time => control::Input::Clock { ticket },
                Job::Page { series, grid, ask, .. } => {
                    let stored = self.page(&series, grid, ask);
                    let input = control::Input::Stored { ticket, stored: &stored };
                    self.keeper.on(now, Input::Control(input));
                    continue;
                }
            };
            self.keeper.on(now, Input::Control(input));
        }
    }

    fn page(&mut self, series: &Series, grid: Grid, ask: Ask) -> Stored {
        let now = self.now().exchange;
        let window = ask.window();
        let (mut rows, mut ts) = (Vec::new(), grid.floor(now).min(grid.floor(window.end - 1)));
        while rows.len() < ask.limit() as usize && ts >= window.start.max(T0 - 3 * 24 * HOUR) {
            rows.push(self.candle(grid, ts));
            ts = grid.step(ts, -1);
        }
        let page = Page::new(ask, rows, Vec::new());
        let closed = page.rows.iter().filter(|row| row.confirmed);
        self.closed.extend(closed.map(|row| (series.clone(), row.ts)));
        receipt(page.evidence(grid), now, grid)
    }

    /// Acknowledges, and pushes what is due: once a second the running bar, at its end the closed
    /// one.
    fn stream(&mut self) {
        let (at, now) = (self.at, self.now());
        if self.faults.down {
            return;
        }
        let due: Vec<_> = self.acks.extract_if(.., |(due, _)| *due <= at).collect();
        for (_, series) in due {
            let refused = self.faults.refuse.as_ref() == Some(&series);
            let report = if refused {
                Report::Refused { series, cause: "60018".to_owned() }
            } else {
                self.acked.insert(series.clone());
                Report::Acked(series)
            };
            self.keeper.on(now, Input::Streamed(report));
        }
        for series in self.acked.clone() {
            let grid = series.bar.grid();
            let running = grid.floor(now.exchange);
            let late_ms = self.faults.confirm_late_ms;
            if running + late_ms == now.exchange {
                self.push(&series, grid.step(running, -1), true);
            }
            if self.at % SECOND == 500 {
                self.push(&series, running, false);
            }
        }
    }

    fn push(&mut self, series: &Series, ts: Millis, confirmed: bool) {
        if self.faults.idle.as_ref() == Some(series) {
            return;
        }
        if confirmed && self.faults.no_confirms.as_ref() == Some(series) {
            return;
        }
        if confirmed && self.faults.skip.as_ref() == Some(series) {
            self.faults.skip = None;
            return;
        }
        let grid = series.bar.grid();
        let mut evidence = Evidence { extent: Some((ts, ts)), ..Evidence::default() };
        if confirmed {
            evidence.vouched.insert(grid.bar_at(ts));
            self.closed.insert((series.clone(), ts));
        }
        let now = self.now();
        let mut stored = receipt(evidence, now.exchange, grid);
        stored.closed = u32::from(confirmed);
        self.keeper.on(now, Input::Pushed { series, stored: &stored });
    }

    fn mode(&self, n: usize) -> Mode {
        let name: Instrument = format!("C{n}-USDT").parse().unwrap();
        self.keeper.feeds().find(|feed| feed.instrument == name).unwrap().switch().mode()
    }

    /// Every closed bar of the last day that the exchange has is stored, and the mind knows it.
    fn assert_whole(&self) {
        let now = self.now();
        for series in self.keeper.kept() {
            let grid = series.bar.grid();
            let mut ts = grid.floor(now.exchange - 23 * HOUR);
            while grid.bar_at(ts).end <= now.exchange - 20 * SECOND {
                assert!(self.closed.contains(&(series.clone(), ts)), "{series} {ts} is missing");
                ts = grid.next(ts);
            }
            let tally = self.keeper.line(&series).unwrap().tally(now);
            assert_eq!(tally.missing, 0, "{series}");
        }
    }

    /// Goes on until a request is under way, whose answer is left to the test.
    fn next_answer(&mut self) -> control::Action {
        while self.answers.is_empty() {
            self.run(STEP_MS);
        }
        self.answers.remove(0).1
    }

    /// The answer to the next request finds its file damaged; tells when.
    fn break_next_page(&mut self) -> Now {
        let ticket = self.next_answer().ticket;
        let (error, damage) = ("malformed".to_owned(), Damage::File);
        let broken = control::Input::Broken { ticket, error, damage };
        self.keeper.on(self.now(), Input::Control(broken));
        self.now()
    }

    /// The candle requests since a moment.
    fn asked_since(&self, at: Millis) -> Vec<(Millis, Series, Ask)> {
        self.asked.iter().filter(|(asked_at, ..)| *asked_at >= at).cloned().collect()
    }
}

fn receipt(evidence: Evidence, at: Millis, grid: Grid) -> Stored {
    Stored { evidence, closed: 0, revised: 0, at, grid, off_grid: None, refused: None }
}

fn twenty() -> Vec<Member> {
    (0..20).map(|n| member(n, &["1m", "5m", "15m", "1H"], HYBRID)).collect()
}

#[test]
fn while_streaming_an_hour_passes_without_a_candle_request() {
    let mut world = World::new(&twenty());
    world.run(2 * MINUTE);
    assert!((0..20).all(|n| world.mode(n) == Mode::Stream), "{:?}", world.log);
    world.assert_whole();
    let (begin, saved) = (world.at, world.keeper.saved());
    world.run(HOUR);
    world.assert_whole();
    assert_eq!(world.asked_since(begin), []);
    let saved = world.keeper.saved() - saved;
    assert!((4_700..=4_800).contains(&saved), "80 series each minute: {saved}");
}

#[test]
fn polling_the_same_costs_a_request_per_series_and_interval_evenly_spread() {
    let poll = Rule::Poll("configured to poll");
    let members: Vec<Member> = (0..20).map(|n| member(n, &["1m", "1H"], poll)).collect();
    let mut world = World::new(&members);
    world.run(5 * MINUTE);
    let begin = world.at;
    world.run(10 * MINUTE);
    world.assert_whole();
    let asked = world.asked_since(begin);
    let polls: Vec<_> = asked.iter().filter(|it| matches!(it.2, Ask::Newest { .. })).collect();
    assert!((395..=405).contains(&polls.len()), "{}", polls.len());
    for second in 0..60 {
        let then = |it: &&&(Millis, Series, Ask)| it.0 / SECOND % 60 == second;
        assert!(polls.iter().filter(then).count() <= 30, "too many in second {second}");
    }
}

#[test]
fn a_loss_is_polled_for_at_once_and_repaired() {
    let mut world = World::new(&twenty());
    world.run(2 * MINUTE);
    let begin = world.at;
    world.faults.down = true;
    world.lose("connection down");
    world.run(SECOND);
    assert!((0..20).all(|n| world.mode(n) == Mode::Poll));
    assert!(!world.asked_since(begin).is_empty(), "it is polled at once");
    world.run(2 * MINUTE);
    world.assert_whole();
    world.faults.down = false;
    world.run(15 * SECOND);
    assert!((0..20).all(|n| world.mode(n) == Mode::Stream), "{:?}", world.log);
    world.run(2 * MINUTE);
    world.assert_whole();
    let polled = "C0-USDT stream-poll: connection down".to_owned();
    assert!(world.log.contains(&polled), "{:?}", world.log);
}

#[test]
fn a_blip_that_lost_no_bar_joins_by_the_first_push() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE + 20 * SECOND);
    world.lose("connection down");
    world.run(2 * SECOND);
    assert_eq!(world.mode(0), Mode::Stream);
    world.run(2 * MINUTE);
    world.assert_whole();
}

#[test]
fn a_refused_series_polls_while_its_siblings_stream() {
    let mut world = World::new(&[member(0, &["1m", "5m"], HYBRID)]);
    world.faults.refuse = Some(series_of(0, "5m"));
    world.run(5 * MINUTE);
    assert_eq!(world.mode(0), Mode::Stream);
    let begin = world.at;
    world.run(5 * MINUTE);
    let asked = world.asked_since(begin);
    assert!((4..=6).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().all(|(_, series, _)| *series == series_of(0, "5m")));
    world.assert_whole();
}

#[test]
fn an_instrument_that_was_refused_whole_polls() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.faults.refuse = Some(series_of(0, "1m"));
    world.run(5 * MINUTE);
    assert_eq!(world.mode(0), Mode::Poll);
    world.assert_whole();
}

#[test]
fn who_wants_the_stream_alone_waits_half_a_minute_before_polling() {
    let patient = Rule::Stream { loss: Loss::PollLater, auto: false };
    let never = Rule::Stream { loss: Loss::Wait, auto: false };
    let mut world = World::new(&[member(0, &["1m"], patient), member(1, &["1m"], never)]);
    world.run(2 * MINUTE);
    assert_eq!([world.mode(0), world.mode(1)], [Mode::Stream; 2]);
    let begin = world.at;
    world.faults.down = true;
    world.lose("connection down");
    world.run(29 * SECOND);
    assert_eq!([world.mode(0), world.mode(1)], [Mode::Wait; 2]);
    assert_eq!(world.asked_since(begin), []);
    world.run(2 * MINUTE);
    assert_eq!([world.mode(0), world.mode(1)], [Mode::Poll, Mode::Wait]);
    assert!(world.asked_since(begin).iter().all(|(_, series, _)| *series == series_of(0, "1m")));
    world.faults.down = false;
    world.run(30 * SECOND);
    assert_eq!([world.mode(0), world.mode(1)], [Mode::Stream; 2], "{:?}", world.log);
    world.assert_whole();
}

#[test]
fn an_automatic_one_cools_down_and_comes_back() {
    let auto = Rule::Stream { loss: Loss::Poll, auto: true };
    let mut world = World::new(&[member(0, &["1m"], auto)]);
    world.run(MINUTE);
    for _ in 0..3 {
        world.lose("connection down");
        world.run(10 * SECOND);
    }
    assert_eq!(world.mode(0), Mode::Poll);
    assert!(world.wanted.is_empty(), "it is not subscribed while it cools down");
    world.run(2 * MINUTE);
    assert_eq!(world.mode(0), Mode::Stream);
    world.assert_whole();
}

#[test]
fn a_machine_that_slept_reconnects_and_catches_up() {
    let mut world = World::new(&[member(0, &["1m", "1H"], HYBRID)]);
    world.run(2 * MINUTE);
    world.at += 3 * HOUR;
    world.keeper.on(world.now(), Input::Slept { length_ms: 3 * HOUR });
    world.run(20 * SECOND);
    assert_eq!(world.mode(0), Mode::Stream);
    assert!(world.log.iter().any(|line| line.ends_with("the machine slept for 3h")));
    world.run(MINUTE);
    world.assert_whole();
}

#[test]
fn the_exchange_may_be_unreachable_from_the_start_and_for_long() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.faults.rest_down = true;
    world.faults.down = true;
    world.run(30 * MINUTE);
    assert_eq!(world.mode(0), Mode::Poll);
    world.faults.rest_down = false;
    world.faults.down = false;
    world.run(MINUTE);
    assert_eq!(world.mode(0), Mode::Stream);
    world.assert_whole();
}

#[test]
fn without_old_history_the_newest_page_comes_and_the_rest_after_an_interval() {
    let member = Member { interval_ms: 10 * MINUTE, ..member(0, &["1m"], HYBRID) };
    let mut world = World::with(std::slice::from_ref(&member), Keeper::without_old_history);
    world.run(5 * MINUTE);
    assert_eq!(world.asked.len(), 1, "{:?}", world.asked);
    // A configuration that is read again does not begin the wait anew.
    world.keeper.configure(&[member], Vec::new(), world.now());
    world.run(6 * MINUTE);
    world.assert_whole();
}

#[test]
fn a_page_with_bars_that_have_not_opened_yet_has_the_clock_read() {
    let mut world = World::new(&[member(0, &["1m"], Rule::Poll("configured to poll"))]);
    world.run(2 * MINUTE);
    let control::Action { ticket, job } = world.next_answer();
    let Job::Page { series, grid, ask, .. } = job else { panic!("{job:?}") };
    let mut stored = world.page(&series, grid, ask);
    stored.at -= 10 * MINUTE;
    let (now, input) = (world.now(), control::Input::Stored { ticket, stored: &stored });
    world.keeper.on(now, Input::Control(input));
    let asked = world.keeper.next(now);
    assert!(matches!(&asked, Some(Action::Fetch(it)) if it.job == Job::Time), "{asked:?}");
}

/// Nobody kept the instrument when a command met its damaged file.
/// The stream may stand before the exchange's clock is known, which then steps back.
#[test]
fn a_quiet_series_joins_although_the_clock_was_far_ahead_when_it_was_acked() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.faults.down = true;
    let series = series_of(0, "1m");
    let ahead = Now { exchange: T0 + 2 * HOUR, ..world.now() };
    world.keeper.on(ahead, Input::Streamed(Report::Acked(series)));
    world.run(2 * MINUTE);
    assert_eq!(world.mode(0), Mode::Stream, "{:?}", world.log);
}
