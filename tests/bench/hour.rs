//! What an hour of streaming asks of REST, beside an hour of polling the same: the daemon's mind
//! before a model of the exchange, in time that passes as fast as it can be reckoned.

use std::collections::BTreeSet;

use okx_local_store::backoff::Random;
use okx_local_store::bar::Grid;
use okx_local_store::candle::Candle;
use okx_local_store::control::{self, Control, Job, Line as Plans};
use okx_local_store::coverage::Coverage;
use okx_local_store::instrument::Series;
use okx_local_store::keeper::{Action, Input, Keeper, Member};
use okx_local_store::limit::Budget;
use okx_local_store::link::{Order, Report};
use okx_local_store::mode::{Loss, Rule};
use okx_local_store::okx;
use okx_local_store::page::{Ask, Evidence, Page, Stored};
use okx_local_store::plan::{Plan, Wanted};
use okx_local_store::span::Spans;
use okx_local_store::time::{DAY, HOUR, MINUTE, Millis, Now, SECOND};

use crate::candles::candles;
use crate::table::{Line, Target};
use crate::yard::Yard;

/// 2024-05-01T00:00:00Z.
const T0: Millis = 1_714_521_600_000;
const STEP_MS: Millis = 100;
const INSTRUMENTS: usize = 20;
const BARS: [&str; 4] = ["1m", "5m", "15m", "1H"];

pub fn hour(_: &Yard) -> Result<Vec<Line>, String> {
    let streamed = requests(Rule::Stream { loss: Loss::Poll, auto: false });
    let polled = requests(Rule::Poll("configured to poll"));
    let remark = format!("{streamed} requests beside {polled}, 20 instruments × 4 bars, simulated");
    let ratio = streamed as f64 / polled as f64;
    let what = "REST requests of an hour, streaming: polling the same";
    Ok(vec![Line::new(what, ratio, Target::AtMost(0.05), remark)])
}

/// The requests of an hour, after ten minutes for the first pages and the history.
fn requests(rule: Rule) -> usize {
    let mut world = World::new(rule);
    world.run(10 * MINUTE);
    let before = world.requests;
    world.run(HOUR);
    world.requests - before
}

/// The mind, and the model of the exchange.
struct World {
    keeper: Keeper,
    at: Millis,
    acked: BTreeSet<Series>,
    under_way: Vec<control::Action>,
    requests: usize,
}

impl World {
    fn new(rule: Rule) -> World {
        let now = Now { local: 0, exchange: T0 };
        let budget = Budget::new(0, okx::rate);
        let control = Control::new(Vec::new(), 3, budget, Random::new(1), now).endless();
        let mut keeper = Keeper::new(control);
        let member = |n| Member {
            instrument: format!("C{n}-USDT").parse().unwrap(),
            bars: BARS.map(|name| name.parse().unwrap()).into(),
            rule,
            interval_ms: MINUTE,
            history_days: 1,
        };
        let members: Vec<Member> = (0..INSTRUMENTS).map(member).collect();
        let line = |series: &Series| {
            let (grid, days) = (series.bar.grid(), Wanted::Days(1));
            Plans::new(series.clone(), Plan::new(grid, days, false, Coverage::default(), &[]))
        };
        let lines = keeper.unknown(members.iter().flat_map(Member::series));
        keeper.configure(&members, lines.iter().map(line).collect(), now);
        World { keeper, at: 0, acked: BTreeSet::new(), under_way: Vec::new(), requests: 0 }
    }

    fn now(&self) -> Now {
        Now { local: self.at, exchange: T0 + self.at }
    }

    /// Lets time pass.
    fn run(&mut self, length_ms: Millis) {
        for _ in 0..length_ms / STEP_MS {
            self.at += STEP_MS;
            for action in std::mem::take(&mut self.under_way) {
                self.answer(action);
            }
            self.push_all();
            while let Some(action) = self.keeper.next(self.now()) {
                match action {
                    Action::Fetch(action) => {
                        self.requests += 1;
                        self.under_way.push(action);
                    }
                    Action::Stream(Order::Want(wanted)) => self.subscribe(wanted),
                    Action::Stream(other) => panic!("{other:?}"),
                }
            }
            self.keeper.take_changes();
        }
    }

    fn subscribe(&mut self, wanted: BTreeSet<Series>) {
        for series in wanted.difference(&self.acked) {
            self.keeper.on(self.now(), Input::Streamed(Report::Acked(series.clone())));
        }
        self.acked = wanted;
    }

    /// Answers what was asked a step ago.
    fn answer(&mut self, action: control::Action) {
        let (now, ticket) = (self.now(), action.ticket);
        let Job::Page { grid, ask, .. } = action.job else {
            return self.keeper.on(now, Input::Control(control::Input::Clock { ticket }));
        };
        let stored = receipt(page(grid, ask, now.exchange).evidence(grid), now.exchange, grid);
        let input = control::Input::Stored { ticket, stored: &stored };
        self.keeper.on(now, Input::Control(input));
    }

    /// Pushes each running bar once a second, and each bar that has just ended as closed.
    fn push_all(&mut self) {
        let now = self.now();
        for series in self.acked.clone() {
            let grid = series.bar.grid();
            let running = grid.floor(now.exchange);
            if running == now.exchange {
                self.push(&series, grid.step(running, -1), true);
            }
            if self.at % SECOND == 500 {
                self.push(&series, running, false);
            }
        }
    }

    fn push(&mut self, series: &Series, ts: Millis, confirmed: bool) {
        let (now, grid) = (self.now(), series.bar.grid());
        let mut evidence = Evidence { extent: Some((ts, ts)), ..Evidence::default() };
        if confirmed {
            evidence.vouched = Spans::from(grid.bar_at(ts));
        }
        let stored = receipt(evidence, now.exchange, grid);
        let stored = Stored { closed: u32::from(confirmed), ..stored };
        self.keeper.on(now, Input::Pushed { series, stored: &stored });
    }
}

/// What the exchange answers: it has two days of each series.
fn page(grid: Grid, ask: Ask, now: Millis) -> Page {
    let window = ask.window();
    let mut ts = grid.floor(now).min(grid.floor(window.end - 1));
    let mut rows = Vec::new();
    for row in candles(MINUTE).take(ask.limit() as usize) {
        if ts < window.start.max(T0 - 2 * DAY) {
            break;
        }
        rows.push(Candle { ts, confirmed: grid.bar_at(ts).end <= now, ..row });
        ts = grid.step(ts, -1);
    }
    Page::new(ask, rows, Vec::new())
}

fn receipt(evidence: Evidence, at: Millis, grid: Grid) -> Stored {
    Stored { evidence, closed: 0, revised: 0, at, grid, off_grid: None, refused: None }
}
