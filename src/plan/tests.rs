//! Plans against a model exchange: one series, one thread, every answer by the exchange's rules.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::backoff::Random;
use crate::bar::Bar;
use crate::candle::Candle;
use crate::page::{Page, Refused};

/// A moment in 2024 at which a minute bar opens.
const T0: Millis = 1_714_521_600_000;

fn grid() -> Grid {
    "1m".parse::<Bar>().unwrap().grid()
}

/// The exchange: which minutes have a row, and how its pages go wrong.
struct Model {
    rows: BTreeSet<Millis>,
    /// Rows that cannot be read.
    unreadable: BTreeSet<Millis>,
    now: Millis,
    /// Rows in a page at the most.
    cap: usize,
    /// One page in so many is cut to a random length, one in so many comes back empty.
    short: u64,
    empty: u64,
    /// A bar closes so long after its end.
    confirm_late_ms: Millis,
    random: Random,
    asked: Vec<Question>,
}

impl Model {
    /// An exchange with the given minutes before `T0`; the bar at `T0` is running.
    fn new(rows: impl IntoIterator<Item = i64>) -> Model {
        let rows = rows.into_iter().map(|minute| T0 + minute * MINUTE);
        Model {
            rows: rows.chain([T0]).collect(),
            unreadable: BTreeSet::new(),
            now: T0 + 30 * SECOND,
            cap: 300,
            short: 0,
            empty: 0,
            confirm_late_ms: 0,
            random: Random::new(1),
            asked: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        Now { local: self.now, exchange: self.now }
    }

    fn answer(&mut self, question: Question) -> Page {
        let Question { endpoint, ask, .. } = question;
        self.asked.push(question);
        assert!((1..=300).contains(&ask.limit()), "{ask:?}");
        let window = ask.window();
        let floor = match endpoint {
            Endpoint::Candles => T0 - 1_440 * MINUTE,
            _ => Millis::MIN,
        };
        let ceiling = if endpoint == Endpoint::Candles { Millis::MAX } else { T0 };
        let all = self.rows.iter().rev().copied();
        let inside = |&ts: &Millis| window.contains(ts) && ts >= floor && ts < ceiling;
        let mut times: Vec<Millis> = all.filter(inside).take(ask.limit() as usize).collect();
        times.truncate(self.cap);
        let drawn = |random: &mut Random, one_in| one_in > 0 && random.below(one_in) == 0;
        if drawn(&mut self.random, self.short) {
            times.truncate(1 + self.random.below(299) as usize);
        }
        if drawn(&mut self.random, self.empty) {
            times.clear();
        }
        let (bad, good): (Vec<Millis>, Vec<Millis>) =
            times.into_iter().partition(|ts| self.unreadable.contains(ts));
        let rows = good.into_iter().map(|ts| self.candle(ts)).collect();
        let refused = bad.into_iter().map(|ts| Refused { ts: Some(ts), why: "NaN".into() });
        Page::new(ask, rows, refused.collect())
    }

    fn candle(&self, ts: Millis) -> Candle {
        let value = 1.0;
        Candle {
            ts,
            open: value,
            high: value,
            low: value,
            close: value,
            volume: value,
            volume_ccy: value,
            volume_quote: value,
            confirmed: ts + MINUTE + self.confirm_late_ms <= self.now,
        }
    }
}

/// Runs a plan to its end, answers in random order; gives the closed rows that were received.
fn run(plan: &mut Plan, model: &mut Model) -> BTreeSet<Millis> {
    let (mut received, mut waiting) = (BTreeSet::new(), Vec::new());
    for ticket in 0.. {
        assert!(ticket < 5_000, "the plan does not come to an end: {plan:?}");
        let now = model.now();
        if let Some(question) = CLASSES.iter().find_map(|&class| plan.question(class, now)) {
            plan.asked(ticket, question, model.now());
            waiting.push((ticket, question));
            assert!(waiting.len() <= IN_FLIGHT_MAX);
            if model.random.below(3) > 0 {
                continue;
            }
        }
        if waiting.is_empty() {
            match plan.deadline(model.now()) {
                Some(due) => model.now = due.max(model.now),
                None => break,
            }
            continue;
        }
        let (ticket, question) =
            waiting.swap_remove(model.random.below(waiting.len() as u64) as usize);
        let page = model.answer(question);
        received.extend(page.rows.iter().filter(|row| row.confirmed).map(|row| row.ts));
        let progress = plan.stored(ticket, &receipt(&page, model.now));
        assert!(progress == Progress::Moved || !model.unreadable.is_empty(), "{progress:?}");
    }
    assert!(plan.is_done(model.now()));
    received
}

fn receipt(page: &Page, at: Millis) -> Stored {
    let evidence = page.evidence(grid());
    let refused = page.refused.first().map(|row| (row.why.clone(), page.refused.len()));
    Stored { evidence, closed: 0, revised: 0, at, grid: grid(), off_grid: None, refused }
}

fn fresh(days: u32) -> Plan {
    Plan::new(grid(), Wanted::Days(days), false, Coverage::default(), &[])
}

fn closed(model: &Model, days: i64) -> BTreeSet<Millis> {
    let start = grid().floor(model.now - days * DAY);
    model.rows.iter().copied().filter(|&ts| ts >= start && ts + MINUTE <= model.now).collect()
}

#[test]
fn a_first_sync_asks_for_the_fewest_pages() {
    let mut model = Model::new(-60 * 1_440..0);
    let mut plan = fresh(30);
    let received = run(&mut plan, &mut model);
    assert!(received.is_superset(&closed(&model, 30)));
    assert_eq!(model.asked.len(), 1 + (30 * 1_440 - 299_usize).div_ceil(300));
    assert_eq!(plan.tally(model.now()).missing, 0);
    let newest = &model.asked[0];
    assert!(matches!(newest.ask, Ask::Newest { .. }) && newest.endpoint == Endpoint::Candles);

    let mut again = Plan::new(grid(), Wanted::Days(30), false, plan.coverage.clone(), &[]);
    model.asked.clear();
    run(&mut again, &mut model);
    assert_eq!(model.asked.len(), 1, "a second sync asks for the newest page alone");
}

#[test]
fn blocks_come_newest_first_and_each_oldest_first() {
    let mut model = Model::new(-60 * 1_440..0);
    let mut plan = fresh(10);
    let now = model.now();
    let newest = plan.question(Class::Newest, now).unwrap();
    plan.asked(0, newest, model.now());
    let page = model.answer(newest);
    plan.stored(0, &receipt(&page, model.now));
    let mut starts = Vec::new();
    for ticket in 1..=12 {
        let question = plan.question(Class::Backfill, now).unwrap();
        starts.push((T0 - question.target.start) / MINUTE);
        plan.asked(ticket, question, model.now());
        let page = model.answer(question);
        plan.stored(ticket, &receipt(&page, model.now));
    }
    let block = |top: i64| (0..10).map(move |page| top + 3_000 - 300 * page);
    let expected: Vec<i64> = block(299).chain(block(3_299)).take(12).collect();
    assert_eq!(starts, expected);
}

#[test]
fn a_young_instrument_costs_a_dozen_requests_more_than_its_history() {
    let mut model = Model::new(-30 * 1_440..0);
    let mut plan = fresh(365);
    run(&mut plan, &mut model);
    let least = 1 + (30 * 1_440 - 299_usize).div_ceil(300);
    assert!(model.asked.len() <= least + 12, "{} for {least}", model.asked.len());
    let tally = plan.tally(model.now());
    assert_eq!((tally.missing, tally.rows()), (0, 30 * 1_440));
    assert_eq!(tally.before_history, 335 * 1_440);
}

#[test]
fn a_hole_at_a_pages_edge_costs_one_request_for_each_of_its_edges() {
    // The holes of real data after a faulty recording: runs of 100 rows, holes of 200.
    let mut model = Model::new((-20 * 1_440..0i64).filter(|minute| minute.rem_euclid(300) < 100));
    let mut plan = fresh(20);
    let received = run(&mut plan, &mut model);
    assert!(received.is_superset(&closed(&model, 20)));
    let (least, holes) = (1 + (20 * 1_440 - 299_usize).div_ceil(300), 20 * 1_440 / 300);
    assert!(model.asked.len() <= least * 11 / 10 + 2 * holes, "{}", model.asked.len());
    let tally = plan.tally(model.now());
    assert_eq!((tally.missing, tally.suspected_empty), (0, 200 * holes as i64));
}

#[test]
fn an_absence_is_asked_for_again_when_it_is_due_and_by_one_request() {
    let mut model = Model::new((-3_000..0).filter(|minute| !(-2_000..-1_500).contains(minute)));
    let mut plan = fresh(2);
    run(&mut plan, &mut model);
    assert_eq!(plan.tally(model.now()).suspected_empty, 500);
    for (later, attempts) in [(MINUTE, 1), (2 * MINUTE, 2), (9 * MINUTE, 2), (2 * MINUTE, 3)] {
        model.now += later;
        model.asked.clear();
        let mut again = Plan::new(grid(), Wanted::Days(2), false, plan.coverage.clone(), &[]);
        run(&mut again, &mut model);
        let empty = *again.coverage.empties().next().unwrap();
        assert_eq!((empty.span.end - empty.span.start, empty.attempts), (500 * MINUTE, attempts));
        let due = usize::from(empty.attempts > plan.coverage.empties().next().unwrap().attempts);
        assert_eq!(model.asked.len(), 1 + due);
        plan = again;
    }
    // The exchange mends its hole: the next looking finds it.
    model.rows.extend((-2_000..-1_500).map(|minute| T0 + minute * MINUTE));
    model.now += 7 * DAY;
    let mut again = Plan::new(grid(), Wanted::Days(9), false, plan.coverage.clone(), &[]);
    let received = run(&mut again, &mut model);
    assert!(received.contains(&(T0 - 1_600 * MINUTE)));
}

#[test]
fn rows_that_vanished_from_the_file_are_a_repair() {
    let mut model = Model::new(-6_000..0);
    let mut plan = fresh(4);
    run(&mut plan, &mut model);
    for (start, end) in [(-2_500, -2_499), (-4_000, -3_000)] {
        let mut coverage = plan.coverage.clone();
        let hole = Span::new(T0 + start * MINUTE, T0 + end * MINUTE);
        coverage.uncover(hole);
        let mut again = Plan::new(grid(), Wanted::Days(4), false, coverage, &[]);
        model.asked.clear();
        let received = run(&mut again, &mut model);
        assert!((start..end).all(|minute| received.contains(&(T0 + minute * MINUTE))));
        assert_eq!(model.asked.len() as i64, 1 + (end - start + 299) / 300);
        assert_eq!(again.class(hole), Class::Repair);
    }
}

#[test]
fn a_range_of_the_past_leaves_everything_else_alone() {
    let mut model = Model::new(-9_000..0);
    let range = Span::new(T0 - 5_000 * MINUTE, T0 - 4_000 * MINUTE);
    let mut plan = Plan::new(grid(), Wanted::Range(range), false, Coverage::default(), &[]);
    let received = run(&mut plan, &mut model);
    assert!(received.iter().all(|&ts| range.contains(ts)));
    assert_eq!((received.len(), model.asked.len()), (1_000, 4));
}

#[test]
fn the_newest_page_has_no_more_than_is_wanted() {
    let hour: Bar = "1H".parse().unwrap();
    let plan = Plan::new(hour.grid(), Wanted::Days(3), false, Coverage::default(), &[]);
    let newest = plan.question(Class::Newest, Now { local: 0, exchange: T0 + SECOND }).unwrap();
    assert_eq!(newest.ask.limit(), 73 + 1);
}

#[test]
fn a_late_confirm_is_looked_for_three_times() {
    let mut model = Model::new(-1_440..0);
    model.now = T0 + SECOND;
    model.confirm_late_ms = 5 * SECOND;
    let mut plan = fresh(1);
    let received = run(&mut plan, &mut model);
    assert!(received.contains(&(T0 - MINUTE)), "the confirm came 5 s late and was seen");
    assert_eq!(plan.unconfirmed(model.now()), 0);

    model.confirm_late_ms = HOUR_LATE;
    model.asked.clear();
    let mut plan = Plan::new(grid(), Wanted::Days(1), false, Coverage::default(), &[]);
    let heard: Vec<Question> = {
        run(&mut plan, &mut model);
        model.asked.iter().copied().filter(|q| q.target.start == T0 - 60 * MINUTE).collect()
    };
    assert_eq!(heard.len(), 3);
    assert_eq!(plan.unconfirmed(model.now()), 60, "told as waiting, not as stored");
}

const HOUR_LATE: Millis = 60 * MINUTE;

#[test]
fn a_suspended_instrument_is_covered_up_to_now() {
    let mut model = Model::new(-6_000..-5_000);
    model.rows.remove(&T0);
    let mut plan = fresh(6);
    run(&mut plan, &mut model);
    let tally = plan.tally(model.now());
    assert_eq!((tally.missing, tally.rows(), tally.suspected_empty), (0, 1_000, 5_000));
}

#[test]
fn one_false_empty_page_costs_two_requests() {
    let mut model = Model::new(-60 * 1_440..0);
    let mut plan = fresh(3);
    let newest = plan.question(Class::Newest, model.now()).unwrap();
    plan.asked(9_000, newest, model.now());
    let page = model.answer(newest);
    plan.stored(9_000, &receipt(&page, model.now));
    let deceived = plan.question(Class::Backfill, model.now()).unwrap();
    plan.asked(9_001, deceived, model.now());
    plan.stored(9_001, &receipt(&Page::new(deceived.ask, Vec::new(), Vec::new()), model.now));
    model.asked.clear();
    run(&mut plan, &mut model);
    let least = (3 * 1_440 - 299_usize).div_ceil(300);
    assert!(model.asked.len() <= least + 1, "{} for {least}", model.asked.len());
    assert_eq!(plan.tally(model.now()).rows(), 3 * 1_440);
}

#[test]
fn a_row_that_cannot_be_read_keeps_nothing_but_itself_out() {
    let mut model = Model::new(-60 * 1_440..0);
    model.unreadable = [-100, -2_000, -2_001].map(|minute| T0 + minute * MINUTE).into();
    let mut plan = fresh(3);
    run(&mut plan, &mut model);
    let tally = plan.tally(model.now());
    assert_eq!((tally.missing, tally.rows(), tally.suspected_empty), (3, 3 * 1_440 - 3, 0));
    let least = 1 + (3 * 1_440 - 299_usize).div_ceil(300);
    assert!(model.asked.len() <= least + 6, "{} for {least}", model.asked.len());
}

#[test]
fn a_mended_hole_is_filled_at_once_however_long() {
    let mut model = Model::new((-6_000..0).filter(|minute| !(-5_000..-1_500).contains(minute)));
    let mut plan = fresh(4);
    run(&mut plan, &mut model);
    model.rows.extend((-5_000..-1_500).map(|minute| T0 + minute * MINUTE));
    model.now += 2 * MINUTE;
    let mut again = Plan::new(grid(), Wanted::Days(4), false, plan.coverage.clone(), &[]);
    run(&mut again, &mut model);
    assert_eq!(again.tally(model.now()).rows(), closed(&model, 4).len() as i64);
}

#[test]
fn a_bar_that_runs_is_not_waited_for_whatever_the_clock_said_before() {
    // An earlier process left the running bar; a wrong clock took it for one that had ended.
    let mut model = Model::new(-1_440..0);
    let mut plan = Plan::new(grid(), Wanted::Days(1), false, Coverage::default(), &[T0]);
    let start = model.now;
    run(&mut plan, &mut model);
    assert_eq!((model.now, plan.unconfirmed(model.now())), (start, 0));
}

#[test]
fn a_bar_without_a_row_is_settled_however_late_it_is_looked_for() {
    // The stream owed its confirm while REST was away for hours, and it never had a row.
    let mut model = Model::new(-1_440..-400);
    model.rows.remove(&T0);
    let mut plan = fresh(1);
    model.now -= 400 * MINUTE;
    run(&mut plan, &mut model);
    plan.follow(Pace::Stream, model.now());
    model.now += MINUTE + GRACE_MS;
    plan.advance(model.now());
    assert_eq!(plan.waiting.times().next(), Some(T0 - 400 * MINUTE));
    model.now += 399 * MINUTE;
    model.rows.extend((-399..0).map(|minute| T0 + minute * MINUTE));
    plan.advance(model.now());
    let mut asked = 0;
    while let Some(question) = CLASSES.iter().find_map(|&class| plan.question(class, model.now())) {
        asked += 1;
        assert!(asked < 12, "{question:?}");
        plan.asked(asked, question, model.now());
        let page = model.answer(question);
        plan.stored(asked, &receipt(&page, model.now));
    }
    assert_eq!((plan.waiting.times().count(), plan.tally(model.now()).missing), (0, 0));
}

#[test]
fn bars_before_the_first_that_ever_was_do_not_wait_for_a_confirm() {
    // The stream was there before the instrument was traded, which it is by now, or is not.
    for traded in [vec![4, 5, 6], vec![]] {
        let mut model = Model::new([]);
        model.rows.clear();
        let mut plan = fresh(1);
        run(&mut plan, &mut model);
        plan.follow(Pace::Stream, model.now());
        model.now += 6 * MINUTE;
        model.rows.extend(traded.into_iter().map(|minute: i64| T0 + minute * MINUTE));
        plan.advance(model.now());
        assert!(plan.waiting.times().next() < Some(T0 + 4 * MINUTE));
        let next = |plan: &Plan, now| CLASSES.iter().find_map(|&it| plan.question(it, now));
        let mut asked = 0;
        while let Some(question) = next(&plan, model.now()) {
            asked += 1;
            assert!(asked < 12, "{question:?}");
            plan.asked(asked, question, model.now());
            let page = model.answer(question);
            plan.stored(asked, &receipt(&page, model.now));
        }
        let waiting: Vec<Millis> = plan.waiting.times().collect();
        assert_eq!((waiting, plan.tally(model.now()).missing), (Vec::new(), 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the exchange lacks, and however it cuts its pages, in the end each closed bar was
    /// received, nothing is missing, and nothing that exists is taken for absent.
    #[test]
    fn every_plan_ends_with_everything(
        seed in any::<u64>(),
        holes in prop::collection::vec((-4_400i64..0, 1i64..700), 0..6),
        listed in 100i64..5_000,
        cap in prop::sample::select(vec![1_usize, 100, 300]),
        short in prop::sample::select(vec![0u64, 2, 5]),
    ) {
        let listed = if cap == 1 { listed.min(300) } else { listed };
        let absent =
            |minute: &i64| holes.iter().any(|&(at, bars)| (at..at + bars).contains(minute));
        let mut model = Model::new((-listed..0).filter(|minute| !absent(minute)));
        (model.random, model.cap, model.short) = (Random::new(seed), cap, short);
        let mut plan = fresh(3);
        let received = run(&mut plan, &mut model);
        let truth = closed(&model, 3);
        prop_assert!(received.is_superset(&truth), "{} of {}", received.len(), truth.len());
        let tally = plan.tally(model.now());
        prop_assert_eq!(tally.missing, 0);
        prop_assert_eq!(tally.rows(), truth.len() as i64);
    }

    /// Pages that come back empty for no reason are seen through.
    #[test]
    fn false_empties_are_not_believed(seed in any::<u64>()) {
        let mut model = Model::new(-3_000..0);
        (model.random, model.empty) = (Random::new(seed), 12);
        let mut plan = fresh(2);
        run(&mut plan, &mut model);
        // Only two false answers in a row, for the page and for what lies below it, deceive: and
        // what they leave is suspected, so that it is asked for again.
        let sightings = plan.coverage.empties().map(|empty| empty.attempts).max();
        prop_assert!(sightings.unwrap_or(0) <= 1);
        model.empty = 0;
        model.now += 2 * MINUTE;
        let mut again = Plan::new(grid(), Wanted::Days(2), false, plan.coverage.clone(), &[]);
        run(&mut again, &mut model);
        prop_assert_eq!(again.tally(model.now()).rows(), closed(&model, 2).len() as i64);
    }
}
