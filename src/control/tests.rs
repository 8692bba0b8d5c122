//! The mind over all plans, led through answers, failures and stops.

use super::*;
use crate::bar::{Bar, Grid};
use crate::candle::Candle;
use crate::coverage::Coverage;
use crate::instrument::Series;
use crate::page::{Ask, Page, Refused};
use crate::plan::{Plan, Wanted};
use crate::wire::Rate;

const T0: Millis = 1_714_521_600_000;
const BUSY: Policy = Policy::Busy { retry_after_ms: None };

/// A row that the exchange garbles, farther back than the other tests look.
const UNREADABLE: Millis = T0 - 15 * 1_440 * MINUTE;

fn now(ms: Millis) -> Now {
    Now { local: ms, exchange: T0 + 30_000 + ms }
}

fn control(series: usize, days: u32, workers: usize) -> Control {
    let bar: Bar = "1m".parse().unwrap();
    let line = |n: usize| {
        let instrument = format!("C{n}-USDT").parse().unwrap();
        let plan = Plan::new(bar.grid(), Wanted::Days(days), false, Coverage::default(), &[]);
        Line::new(Series { instrument, bar }, plan)
    };
    let rate = |_| Rate { requests: 10_000, window_ms: 2_000 };
    let budget = Budget::new(0, rate);
    Control::new((0..series).map(line).collect(), workers, budget, Random::new(1), now(0))
}

/// The exchange's full answer, and its receipt.
fn receipt(ask: Ask, grid: Grid) -> Stored {
    let window = match ask {
        Ask::Newest { limit, .. } => {
            crate::span::Span::new(T0 - (i64::from(limit) - 1) * MINUTE, T0 + MINUTE)
        }
        Ask::Below { end } => crate::span::Span::new(end - MINUTE, end),
        other => other.window(),
    };
    let row = |ts| Candle {
        ts,
        open: 1.0,
        high: 1.0,
        low: 1.0,
        close: 1.0,
        volume: 1.0,
        volume_ccy: 1.0,
        volume_quote: 1.0,
        confirmed: ts < T0,
    };
    let times = (0..).map(|n| window.start + n * MINUTE).take_while(|&ts| ts < window.end);
    let (bad, good): (Vec<Millis>, Vec<Millis>) = times.partition(|&ts| ts == UNREADABLE);
    let refused: Vec<Refused> =
        bad.iter().map(|&ts| Refused { ts: Some(ts), why: "NaN".into() }).collect();
    let refused_row = refused.first().map(|row| (row.why.clone(), 1));
    let page = Page::new(ask, good.into_iter().map(row).collect(), refused);
    let closed = page.rows.len() as u32;
    let evidence = page.evidence(grid);
    Stored {
        evidence,
        closed,
        revised: 0,
        at: T0 + 30_000,
        grid,
        off_grid: None,
        refused: refused_row,
    }
}

fn read_clock(control: &mut Control) {
    let action = control.next(now(0)).unwrap();
    assert_eq!(action.job, Job::Time);
    assert!(control.next(now(0)).is_none(), "nothing goes out before the clock is known");
    control.on(now(0), Input::Clock { ticket: action.ticket });
}

fn answer(control: &mut Control, action: &Action) {
    let Job::Page { ask, grid, .. } = action.job else { panic!("{action:?}") };
    let stored = receipt(ask, grid);
    control.on(now(0), Input::Stored { ticket: action.ticket, stored: &stored });
}

fn asked(action: &Action) -> (String, bool) {
    let Job::Page { series, ask, .. } = &action.job else { panic!("{action:?}") };
    (series.instrument.to_string(), matches!(ask, Ask::Newest { .. }))
}

#[test]
fn history_waits_until_every_newest_page_is_on_disk() {
    let mut control = control(20, 1, 30);
    read_clock(&mut control);
    let newest: Vec<Action> = std::iter::from_fn(|| control.next(now(0))).collect();
    assert_eq!(newest.len(), 20);
    assert!(newest.iter().all(|action| asked(action).1));
    for action in &newest[1..] {
        answer(&mut control, action);
    }
    assert!(control.next(now(0)).is_none(), "one newest page is still under way");
    answer(&mut control, &newest[0]);
    assert!(!asked(&control.next(now(0)).unwrap()).1);
}

#[test]
fn an_instrument_is_asked_for_until_its_answer_is_on_disk() {
    let mut control = control(2, 1, 1);
    read_clock(&mut control);
    let action = control.next(now(0)).unwrap();
    let name = asked(&action).0;
    let is_asking = |control: &Control| {
        ["C0-USDT", "C1-USDT"].map(|name| control.is_asking(&name.parse().unwrap()))
    };
    assert_eq!(is_asking(&control), ["C0-USDT", "C1-USDT"].map(|other| other == name));
    // Nobody wants it any more, but its page is under way all the same.
    let place = control.place_of(action.ticket).unwrap();
    control.retire(place);
    assert_eq!(is_asking(&control), ["C0-USDT", "C1-USDT"].map(|other| other == name));
    answer(&mut control, &action);
    assert_eq!(is_asking(&control), [false; 2]);
}

#[test]
fn series_take_turns_and_few_requests_are_under_way() {
    let mut control = control(3, 10, 3);
    read_clock(&mut control);
    let mut order = Vec::new();
    for _ in 0..5 {
        let actions: Vec<Action> = std::iter::from_fn(|| control.next(now(0))).collect();
        assert_eq!(actions.len(), 3);
        order.extend(actions.iter().map(|action| asked(action).0));
        actions.iter().for_each(|action| answer(&mut control, action));
    }
    let turns: Vec<String> = (0..15).map(|n| format!("C{}-USDT", n % 3)).collect();
    assert_eq!(order, turns);
}

#[test]
fn what_is_due_but_held_back_is_no_deadline() {
    let bar: Bar = "1m".parse().unwrap();
    let unconfirmed = [T0 - MINUTE];
    let plan = Plan::new(bar.grid(), Wanted::Days(1), false, Coverage::default(), &unconfirmed);
    let line = Line::new(Series { instrument: "C-USDT".parse().unwrap(), bar }, plan);
    let budget = Budget::new(0, |_| Rate { requests: 1_000, window_ms: 2_000 });
    let mut control = Control::new(vec![line], 2, budget, Random::new(1), now(0));
    read_clock(&mut control);
    assert!(asked(&control.next(now(0)).unwrap()).1);
    assert!(control.next(now(0)).is_none(), "the newest page will show the bar");
    assert_eq!(control.deadline(now(0)), None, "only that page gives it work");
}

#[test]
fn pages_that_wait_for_the_disk_keep_no_poller_busy() {
    let mut control = control(3, 1, 2);
    read_clock(&mut control);
    let first = [control.next(now(0)).unwrap(), control.next(now(0)).unwrap()];
    assert!(control.next(now(0)).is_none(), "both pollers are busy");
    let fetched = |action: &Action| Input::Fetched { ticket: action.ticket };
    first.iter().for_each(|action| control.on(now(0), fetched(action)));
    let third = control.next(now(0)).unwrap();
    assert_eq!(asked(&third).0, "C2-USDT");
    assert!(!control.is_finished(now(0)), "they are not on disk");
    first.iter().for_each(|action| answer(&mut control, action));
    control.on(now(0), fetched(&first[0]));
    answer(&mut control, &third);
    assert_eq!(control.pages(), 3);
}

#[test]
fn it_runs_to_its_end_and_counts() {
    let mut control = control(2, 3, 4);
    read_clock(&mut control);
    while let Some(action) = control.next(now(0)) {
        answer(&mut control, &action);
    }
    assert!(control.is_finished(now(0)));
    assert_eq!(control.pages(), 2 * (1 + (3 * 1_440 - 299_u64).div_ceil(300)));
    assert!(control.lines().iter().all(|line| line.tally(now(0)).missing == 0));
}

#[test]
fn a_row_that_cannot_be_read_is_told_when_the_rest_is_done() {
    let mut control = control(1, 16, 4);
    read_clock(&mut control);
    while let Some(action) = control.next(now(0)) {
        assert_eq!(control.lines()[0].error, None);
        answer(&mut control, &action);
    }
    assert!(control.is_finished(now(0)));
    let line = &control.lines()[0];
    assert_eq!(line.tally(now(0)).missing, 1);
    let error = line.error.as_deref();
    assert_eq!(error, Some("rows that cannot be read stay in the way: NaN"));
}

#[test]
fn a_long_run_ends_with_the_newest_pages_again() {
    let mut control = control(2, 1, 4);
    read_clock(&mut control);
    while let Some(action) = control.next(now(0)) {
        answer(&mut control, &action);
    }
    let late = now(REFRESH_AFTER_MS + 1);
    assert!(asked(&control.next(late).unwrap()).1);
}

#[test]
fn a_failed_page_is_asked_again_after_the_pause() {
    let mut control = control(1, 1, 1);
    read_clock(&mut control);
    let action = control.next(now(0)).unwrap();
    let failed = Input::Failed { ticket: action.ticket, policy: BUSY, error: "502".into() };
    control.on(now(0), failed);
    assert!(control.next(now(0)).is_none());
    let due = control.deadline(now(0)).unwrap();
    assert!((1_000..1_250).contains(&due));
    let again = control.next(now(due)).unwrap();
    assert_eq!(again.job, action.job);
    assert_ne!(again.ticket, action.ticket);
}

#[test]
fn an_outage_is_known_while_it_lasts_and_its_end_is_told_once() {
    for (failures, is_told) in [(1, false), (2, false), (3, true)] {
        let mut control = control(1, 1, 1).endless();
        read_clock(&mut control);
        let mut at = 0;
        for _ in 0..failures {
            let ticket = control.next(now(at)).unwrap().ticket;
            let error = "connection refused".into();
            control.on(now(at), Input::Failed { ticket, policy: BUSY, error });
            let trouble = control.trouble(now(at)).unwrap();
            assert_eq!(trouble, "candles: connection refused");
            assert!(control.next(now(at)).is_none(), "it is left alone for a while");
            assert_eq!(control.trouble(now(at + 60_000)), None, "nobody has asked for long");
            at = control.deadline(now(at)).unwrap();
        }
        let Action { ticket, job: Job::Page { ask, grid, .. } } = control.next(now(at)).unwrap()
        else {
            panic!("the clock is known")
        };
        assert!(control.trouble(now(at)).is_some(), "the next attempt is under way");
        control.on(now(at), Input::Stored { ticket, stored: &receipt(ask, grid) });
        assert_eq!(control.trouble(now(at)), None);
        let recoveries = control.take_recoveries();
        assert_eq!(recoveries.len(), usize::from(is_told), "{recoveries:?}");
        for line in recoveries {
            assert!(line.starts_with("candles: answered again after "), "{line}");
            assert!(line.ends_with("failures in a row: 3, the last: connection refused"), "{line}");
        }
        assert_eq!(control.take_recoveries(), Vec::<String>::new());
    }
}

#[test]
fn a_refused_series_ends_alone_and_an_unreachable_exchange_ends_all() {
    let mut control = control(2, 1, 2);
    read_clock(&mut control);
    let action = control.next(now(0)).unwrap();
    let error = "51001: no such instrument".to_owned();
    let (ticket, policy) = (action.ticket, Policy::Permanent);
    control.on(now(0), Input::Failed { ticket, policy, error: error.clone() });
    assert_eq!(control.lines()[0].error, Some(error));
    let mut at = 0;
    while !control.is_finished(now(at)) {
        let Some(action) = control.next(now(at)) else {
            at = control.deadline(now(at)).unwrap();
            continue;
        };
        let error = "connection refused".into();
        control.on(now(at), Input::Failed { ticket: action.ticket, policy: BUSY, error });
    }
    assert_eq!(control.gave_up(), Some("connection refused"));
    assert!(control.is_finished(now(at)));
    assert!((20_000..60_000).contains(&at), "gave up after {at} ms");
}

#[test]
fn a_stop_takes_no_new_work_and_waits_for_what_is_under_way() {
    let mut control = control(2, 1, 2);
    read_clock(&mut control);
    let action = control.next(now(0)).unwrap();
    control.on(now(0), Input::Stop);
    assert!(control.next(now(0)).is_none());
    assert!(!control.is_finished(now(0)));
    answer(&mut control, &action);
    assert!(control.is_finished(now(0)));
}

#[test]
fn a_broken_file_ends_its_instrument_and_a_full_disk_everything() {
    let mut control = control(2, 1, 2);
    read_clock(&mut control);
    let action = control.next(now(0)).unwrap();
    let error = "malformed".to_owned();
    control.on(now(0), Input::Broken { ticket: action.ticket, error, damage: Damage::File });
    let action = control.next(now(0)).unwrap();
    assert_eq!(asked(&action).0, "C1-USDT");
    let error = "disk full".to_owned();
    control.on(now(0), Input::Broken { ticket: action.ticket, error, damage: Damage::Disk });
    assert_eq!(control.gave_up(), Some("disk full"));
}
