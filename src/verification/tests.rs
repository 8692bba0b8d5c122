//! Verifications of small made-up stores against small made-up exchanges.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::backoff::Random;
use crate::bar::Bar;
use crate::okx::CANDLES_DEPTH;
use crate::page::Refused;
use crate::store::sample::candle;
use crate::time::{DAY, MINUTE};
use crate::wire::Endpoint;

/// The exchange's time: the bar of minute 100,000 runs.
const NOW: Millis = 100_000 * MINUTE + 30_000;

fn grid() -> Grid {
    "1m".parse::<Bar>().unwrap().grid()
}

fn minutes(start: i64, end: i64) -> Span {
    Span::new(start * MINUTE, end * MINUTE)
}

fn scope(spans: impl IntoIterator<Item = Span>) -> Scope {
    let spans = spans.into_iter().collect();
    Scope { grid: grid(), history_only: false, spans, share: Share::ALL, due: NOW }
}

/// Both sides, by the minute: the close of a closed bar, and of an unclosed one less than zero.
#[derive(Clone, Debug, Default)]
struct World {
    exchange: BTreeMap<i64, f64>,
    store: BTreeMap<i64, f64>,
    /// Rows that cannot be read.
    garbled: Vec<i64>,
    /// Answers that are cut to so many rows, in turn.
    caps: Vec<usize>,
    questions: Vec<Question>,
}

fn row(minute: i64, close: f64) -> Candle {
    candle(minute * MINUTE, close.abs(), close > 0.0)
}

impl World {
    /// Equal sides with all bars of these minutes.
    fn equal(range: std::ops::Range<i64>) -> World {
        let bars: BTreeMap<i64, f64> = range.map(|minute| (minute, minute as f64)).collect();
        World { exchange: bars.clone(), store: bars, ..World::default() }
    }

    fn answer(&mut self, question: Question) -> Page {
        self.questions.push(question);
        let Question { endpoint, ask, .. } = question;
        let running = NOW / MINUTE;
        let has = |minute: i64| match endpoint {
            Endpoint::Candles => minute > running - i64::from(CANDLES_DEPTH),
            _ => minute < running - 1,
        };
        let wanted = self.exchange.iter().rev();
        let wanted = wanted.filter(|(minute, _)| ask.window().contains(**minute * MINUTE));
        let cap = self.caps.get(self.questions.len() % self.caps.len().max(1)).copied();
        let most = cap.unwrap_or(300).min(ask.limit() as usize);
        let wanted = wanted.filter(|(minute, _)| has(**minute)).take(most);
        let (bad, good): (Vec<i64>, Vec<i64>) =
            wanted.map(|(minute, _)| *minute).partition(|minute| self.garbled.contains(minute));
        let refused = |minute| Refused { ts: Some(minute * MINUTE), why: "its o is \"\"".into() };
        let rows = good.into_iter().map(|minute| row(minute, self.exchange[&minute]));
        Page::new(ask, rows.collect(), bad.into_iter().map(refused).collect())
    }

    fn stored(&self, span: Span) -> Vec<Candle> {
        let rows = self.store.range(span.start / MINUTE..span.end / MINUTE);
        rows.map(|(&minute, &close)| row(minute, close)).collect()
    }

    fn verify(&mut self, scope: Scope) -> Verification {
        self.verify_with(scope, |_, _| {})
    }

    /// Verifies, and lets something happen before each answer is taken in.
    fn verify_with(
        &mut self,
        scope: Scope,
        mut happens: impl FnMut(&mut World, usize),
    ) -> Verification {
        let mut verification = Verification::new(scope);
        while let Some(question) = verification.next(Now { local: 0, exchange: NOW }) {
            let page = self.answer(question);
            happens(self, self.questions.len());
            for span in verification.hear(question, &page) {
                let stored = self.stored(span);
                verification.compare(span, &page.rows, &stored);
            }
            assert!(self.questions.len() < 10_000, "it does not end");
        }
        assert!(verification.doubted.is_empty());
        assert_eq!(verification.tally().settled(), verification.planned());
        verification
    }
}

fn ranges(spans: &Spans) -> Vec<(i64, i64)> {
    spans.iter().map(|span| (span.start / MINUTE, span.end / MINUTE)).collect()
}

#[test]
fn equal_sides_cost_one_question_a_page() {
    let mut world = World::equal(10_000..12_000);
    let found = world.verify(scope([minutes(10_100, 11_900)]));
    let expected = Tally { equal: 1_800, ..Tally::default() };
    assert_eq!((found.tally(), world.questions.len(), found.pages()), (expected, 6, (6, 6)));
    assert!(world.questions.is_sorted_by_key(|question| question.target.start));
    assert!(world.questions.iter().all(|question| question.endpoint == Endpoint::History));
}

#[test]
fn differences_are_told_apart() {
    let mut world = World::equal(10_000..10_600);
    world.store.remove(&10_005);
    world.store.remove(&10_006);
    world.store.insert(10_020, -1.0);
    world.store.insert(10_030, 7.5);
    world.exchange.remove(&10_400);
    world.exchange.remove(&10_500);
    world.store.remove(&10_500);
    world.exchange.remove(&10_501);
    world.store.insert(10_501, -1.0);
    let found = world.verify(scope([minutes(10_000, 10_600)]));
    let expected =
        Tally { equal: 593, missing: 3, different: 1, foreign: 1, absent: 2, ..Tally::default() };
    assert_eq!((found.tally(), world.questions.len()), (expected, 4));
    assert_eq!(ranges(found.missing()), [(10_005, 10_007), (10_020, 10_021)]);
    assert_eq!(ranges(found.foreign()), [(10_400, 10_401)]);
    let [Different { stored, exchange }] = found.different() else { panic!("one is different") };
    assert_eq!((stored.close, exchange.close), (7.5, 10_030.0));
    assert_eq!(ranges(&found.curable(9)), [(10_005, 10_031)]);
}

#[test]
fn what_changes_meanwhile_is_no_difference() {
    let revised = |store: f64| {
        let mut world = World::equal(10_000..10_300);
        world.exchange.insert(10_007, 5.0);
        let happens = |world: &mut World, answers: usize| {
            if answers == 2 {
                world.store.insert(10_007, store);
            }
        };
        world.verify_with(scope([minutes(10_000, 10_300)]), happens).tally()
    };
    assert_eq!(revised(5.0), Tally { equal: 300, ..Tally::default() });
    assert_eq!(revised(4.0), Tally { equal: 299, different: 1, ..Tally::default() });
}

#[test]
fn the_newest_bars_have_time_to_come() {
    let running = NOW / MINUTE;
    let mut world = World::equal(running - 400..running - 2);
    world.exchange.extend([(running - 2, 1.0), (running - 1, -1.0), (running, -1.0)]);
    let due = (running - 1) * MINUTE - 1;
    let scope = Scope { due, ..scope([minutes(running - 400, running)]) };
    let found = world.verify(scope.clone());
    let expected = Tally { equal: 398, fresh: 1, unconfirmed: 1, ..Tally::default() };
    assert_eq!((found.tally(), found.curable(9)), (expected, Spans::new()));
    let found = world.verify(Scope { due: due + 1, ..scope });
    assert_eq!(found.tally(), Tally { missing: 1, fresh: 0, ..expected });
    let end = |question: &Question| question.target.end == minutes(0, running).end;
    assert!(world.questions.iter().filter(|q| end(q)).all(|q| q.endpoint == Endpoint::Candles));
}

#[test]
fn where_history_begins_is_found_in_a_few_dozen_questions() {
    for (first, stored) in [(50_100, 50_100), (50_100, 80_000), (99_990, 99_990)] {
        let mut world = World::equal(first..NOW / MINUTE);
        world.store.retain(|minute, _| *minute >= stored);
        let found = world.verify(scope([minutes(0, 99_999)]));
        let (missing, equal) = (stored - first, 99_999 - stored);
        let expected = Tally { equal, missing, absent: first, ..Tally::default() };
        assert_eq!(found.tally(), expected, "{first}");
        let pages = (99_999 - first as usize) / 300;
        assert!(world.questions.len() < pages + 40, "{first}: {}", world.questions.len());
    }
    // Of an exchange that has nothing at all, the last page is asked for itself.
    let mut world = World::default();
    world.store.insert(70_000, 1.0);
    let found = world.verify(scope([minutes(0, 99_999)]));
    let expected = Tally { absent: 99_998, foreign: 1, ..Tally::default() };
    assert_eq!(found.tally(), expected);
    assert!(world.questions.len() < 60, "{}", world.questions.len());
}

#[test]
fn rows_that_cannot_be_read_are_left_out_and_counted() {
    let mut world = World::equal(10_000..10_300);
    world.garbled = vec![10_050, 10_299];
    let found = world.verify(scope([minutes(10_000, 10_300)]));
    let expected = Tally { equal: 298, unread: 2, ..Tally::default() };
    assert_eq!(found.tally(), expected);
}

#[test]
fn a_sample_is_spread_evenly() {
    for (share, bars, places) in [
        ("10", 30_000, vec![5, 15, 25, 35, 45, 55, 65, 75, 85, 95]),
        ("0.0001", 30_000, vec![50]),
        ("50", 1_500, vec![0, 2, 4]),
        ("100", 700, vec![0, 1, 2]),
        ("1", 20, vec![0]),
    ] {
        let mut world = World::equal(10_000..50_000);
        let share = share.parse().unwrap();
        let found = world.verify(Scope { share, ..scope([minutes(10_000, 10_000 + bars)]) });
        let starts: Vec<i64> =
            world.questions.iter().map(|q| (q.target.start / MINUTE - 10_000) / 300).collect();
        assert_eq!(starts, places);
        assert_eq!(found.pages(), (places.len() as u64, (bars as u64).div_ceil(300)));
        assert_eq!(found.tally().equal, found.planned());
    }
}

#[test]
fn shares_are_percentages() {
    for text in ["", "0", "0.0", "0.00001", "100.0001", "1000", "-1", "+1", "1e1", ".5", "5.", "ü"]
    {
        assert!(text.parse::<Share>().is_err(), "{text}");
    }
    for (text, shown) in [("7", "7"), ("007", "7"), ("0.0001", "0.0001"), ("99.90", "99.9")] {
        assert_eq!(text.parse::<Share>().unwrap().to_string(), shown);
    }
}

#[test]
fn several_ranges_are_read_and_nothing_between_them() {
    let mut world = World::equal(10_000..20_000);
    world.store.remove(&12_000);
    world.store.remove(&15_001);
    let found = world.verify(scope([minutes(11_000, 11_500), minutes(15_000, 15_002)]));
    let expected = Tally { equal: 501, missing: 1, ..Tally::default() };
    assert_eq!((found.tally(), world.questions.len()), (expected, 3));
}

#[test]
fn what_can_be_healed_is_told_in_few_ranges() {
    let mut world = World::equal(10_000..40_000);
    for minute in [10_000, 10_299, 10_700, 20_000, 39_999] {
        world.store.remove(&minute);
    }
    let found = world.verify(scope([minutes(10_000, 40_000)]));
    for (most, expected) in [
        (9, &[(10_000, 10_300), (10_700, 10_701), (20_000, 20_001), (39_999, 40_000)][..]),
        (3, &[(10_000, 10_701), (20_000, 20_001), (39_999, 40_000)]),
        (0, &[(10_000, 40_000)]),
    ] {
        assert_eq!(ranges(&found.curable(most)), expected, "{most}");
    }
}

#[test]
fn months_are_compared_as_the_calendar_has_them() {
    let grid = "1Mutc".parse::<Bar>().unwrap().grid();
    let now = Now { local: 0, exchange: 20 * 366 * DAY };
    let spans = Span::new(grid.step(now.exchange, -30), grid.floor(now.exchange)).into();
    let scope = Scope { grid, history_only: false, spans, share: Share::ALL, due: now.exchange };
    let mut verification = Verification::new(scope);
    let question = verification.next(now).unwrap();
    let rows: Vec<Candle> =
        (1..=30).map(|n| candle(grid.step(now.exchange, -n), 1.0, true)).collect();
    let page = Page::new(question.ask, rows, Vec::new());
    for span in verification.hear(question, &page) {
        verification.compare(span, &page.rows, &page.rows[1..]);
    }
    assert_eq!(verification.next(now), None);
    assert_eq!(verification.tally(), Tally { equal: 29, missing: 1, ..Tally::default() });
}

#[test]
fn rows_off_the_grid_are_compared_by_their_times() {
    let mut verification = Verification::new(scope([minutes(0, 5)]));
    let question = verification.next(Now { local: 0, exchange: NOW }).unwrap();
    let off = candle(2 * MINUTE + 7, 9.0, true);
    let on = |minutes: &[i64]| minutes.iter().map(|&m| row(m, 1.0)).collect::<Vec<_>>();
    let answered = [on(&[0, 1]), vec![off], on(&[3, 4])].concat();
    let page = Page::new(question.ask, answered, Vec::new());
    for span in verification.hear(question, &page) {
        verification.compare(span, &page.rows, &on(&[0, 1, 3, 4]));
    }
    let expected = Tally { equal: 4, missing: 1, absent: 1, ..Tally::default() };
    assert_eq!(verification.tally(), expected);
}

#[test]
fn of_what_only_the_store_has_rows_off_the_grid_alone_can_be_healed() {
    let grid_end = 5;
    for (minute, curable) in [(2, (2, 4)), (4, (4, grid_end))] {
        let mut verification = Verification::new(scope([minutes(0, grid_end)]));
        let question = verification.next(Now { local: 0, exchange: NOW }).unwrap();
        let on: Vec<Candle> = (0..grid_end).map(|m| row(m, 1.0)).collect();
        let page = Page::new(question.ask, on.clone(), Vec::new());
        let mut stored = on;
        stored.insert(minute as usize + 1, candle(minute * MINUTE + 7, 9.0, true));
        for span in verification.hear(question, &page) {
            verification.compare(span, &page.rows, &stored);
        }
        let expected = Tally { equal: 5, foreign: 1, off_grid: 1, ..Tally::default() };
        assert_eq!((verification.tally(), expected.curable()), (expected, 1));
        assert_eq!(ranges(&verification.curable(9)), [curable]);
    }
}

/// Sides of a few pages which differ here and there, and answers that are cut short.
fn worlds() -> impl Strategy<Value = World> {
    let caps = prop::collection::vec(1usize..300, 0..4);
    (any::<u64>(), 0i64..900, 0u64..40, caps).prop_map(|(seed, first, rate, caps)| {
        let mut random = Random::new(seed);
        let mut world = World { caps, ..World::equal(98_500 + first..100_000) };
        world.exchange.insert(100_000, -1.0);
        for minute in 98_500..100_000 {
            if random.below(400) >= rate {
                continue;
            }
            match random.below(5) {
                0 => drop(world.store.remove(&minute)),
                1 => drop(world.exchange.remove(&minute)),
                2 => {
                    world.store.remove(&minute);
                    world.exchange.remove(&minute);
                }
                3 => drop(world.store.insert(minute, -2.0)),
                _ => drop(world.store.insert(minute, 2.5)),
            }
        }
        world
    })
}

proptest! {
    /// Whatever the two sides have and however answers are cut, each bar ends up where it belongs.
    #[test]
    fn every_bar_is_told_right(mut world in worlds(), start in 98_000i64..99_500) {
        let found = world.verify(scope([minutes(start, 99_999)]));
        let mut expected = Tally::default();
        for minute in start..99_999 {
            let stored = world.store.get(&minute).filter(|close| **close > 0.0);
            match (world.exchange.get(&minute), stored) {
                (Some(exchange), Some(stored)) if exchange == stored => expected.equal += 1,
                (Some(_), Some(_)) => expected.different += 1,
                (Some(_), None) => expected.missing += 1,
                (None, Some(_)) => expected.foreign += 1,
                (None, None) => expected.absent += 1,
            }
        }
        prop_assert_eq!(found.tally(), expected);
        let bars = |spans: &Spans| spans.iter().map(|span| grid().count(span)).sum::<i64>();
        prop_assert_eq!(bars(found.missing()), expected.missing);
        prop_assert_eq!(bars(found.foreign()), expected.foreign);
        prop_assert_eq!(found.different().len() as i64, expected.different);
        for row in found.different() {
            prop_assert_eq!(row.stored.close, world.store[&(row.stored.ts / MINUTE)]);
            prop_assert_eq!(row.exchange.close, world.exchange[&(row.stored.ts / MINUTE)]);
        }
        for span in found.missing().iter() {
            prop_assert!(found.curable(9).covers(span));
        }
    }
}
