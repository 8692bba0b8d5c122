//! Bars that the stream does not close as it should.

use super::*;

#[test]
fn a_skipped_confirm_is_a_loss_and_is_repaired() {
    let mut world = World::new(&[member(0, &["1m", "5m"], HYBRID), member(1, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    world.faults.skip = Some(series_of(0, "1m"));
    // REST is away, so that the bar cannot be looked up before the next one closes.
    world.faults.rest_down = true;
    world.run(2 * MINUTE);
    world.faults.rest_down = false;
    world.run(30 * SECOND);
    let lost = "C0-USDT stream-poll: the stream has skipped bars of 1m".to_owned();
    assert!(world.log.contains(&lost), "{:?}", world.log);
    assert_eq!([world.mode(0), world.mode(1)], [Mode::Stream; 2]);
    assert!(!world.log.iter().any(|line| line.starts_with("C1-USDT stream-")));
    world.assert_whole();
}

#[test]
fn a_confirm_that_stays_out_is_looked_up_and_is_no_loss() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE + 30 * SECOND);
    world.faults.confirm_late_ms = 34 * SECOND;
    world.run(30 * SECOND);
    let begin = world.at;
    world.run(MINUTE);
    let after_end: Vec<Millis> =
        world.asked_since(begin).iter().map(|(at, ..)| (at - begin) / SECOND).collect();
    assert_eq!(after_end, [10, 15, 30]);
    assert_eq!(world.mode(0), Mode::Stream);
    world.faults.confirm_late_ms = 0;
    world.run(2 * MINUTE);
    world.assert_whole();
}

#[test]
fn a_stream_that_never_confirms_is_renewed_now_and_then_and_loses_nothing() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    world.faults.no_confirms = Some(series_of(0, "1m"));
    world.run(50 * MINUTE);
    assert_eq!(world.mode(0), Mode::Stream);
    assert!(!world.log.iter().any(|line| line.starts_with("C0-USDT stream-")), "{:?}", world.log);
    assert_eq!(world.renewals, 1, "a connection has few requests an hour");
    world.run(2 * HOUR);
    assert_eq!(world.renewals, 2, "and the pause doubles");
    world.assert_whole();
}

#[test]
fn an_automatic_one_takes_a_stream_that_never_confirms_for_a_bad_one() {
    let auto = Rule::Stream { loss: Loss::Poll, auto: true };
    let mut world = World::new(&[member(0, &["1m"], auto)]);
    world.run(2 * MINUTE);
    world.faults.no_confirms = Some(series_of(0, "1m"));
    world.run(5 * MINUTE);
    let stale = "C0-USDT stream-poll: the stream leaves bars out".to_owned();
    assert!(world.log.contains(&stale), "{:?}", world.log);
    world.run(10 * MINUTE);
    world.assert_whole();
}

#[test]
fn an_idle_series_is_looked_up_and_never_renewed() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    world.faults.idle = Some(series_of(0, "1m"));
    let begin = world.at;
    world.run(HOUR);
    assert_eq!((world.mode(0), world.renewals), (Mode::Stream, 0));
    assert!(world.asked_since(begin).len() <= 61, "no more than polling would ask");
    world.assert_whole();
}

#[test]
fn a_push_from_the_future_keeps_nothing_from_joining() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    world.lose("connection down");
    let series = series_of(0, "1m");
    world.run(500);
    world.push(&series, T0 + 9_000 * HOUR, false);
    world.run(10 * SECOND);
    assert_eq!(world.mode(0), Mode::Stream);
    let begin = world.at;
    world.run(10 * MINUTE);
    assert_eq!(world.asked_since(begin), []);
    world.assert_whole();
}
