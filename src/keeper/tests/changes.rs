//! What is wanted changes, and files turn out to be other than was thought.

use super::*;

#[test]
fn a_changed_configuration_is_taken_up_live() {
    let mut world = World::new(&[member(0, &["1m", "5m"], HYBRID), member(1, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    let members =
        [member(0, &["1m", "15m"], Rule::Poll("configured to poll")), member(2, &["1m"], HYBRID)];
    let now = world.now();
    let new = world.keeper.unknown(members.iter().flat_map(Member::series));
    assert_eq!(new, [series_of(0, "15m"), series_of(2, "1m")]);
    world.keeper.configure(&members, new.iter().map(line).collect(), now);
    world.run(2 * MINUTE);
    assert_eq!([world.mode(0), world.mode(2)], [Mode::Poll, Mode::Stream]);
    assert_eq!(world.wanted, [series_of(2, "1m")].into());
    let begin = world.at;
    world.run(2 * MINUTE);
    assert!(world.asked_since(begin).iter().all(|it| it.1.instrument.as_str() == "C0-USDT"));
    world.assert_whole();
}

#[test]
fn a_command_gets_what_it_wants_and_a_guest_leaves_with_it() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    let now = world.now();
    let wanted = [(series_of(0, "1m"), Wanted::Days(2)), (series_of(7, "5m"), Wanted::Days(2))];
    let new = world.keeper.unknown(wanted.iter().map(|it| it.0.clone()));
    assert_eq!(new, [series_of(7, "5m")]);
    world.keeper.demand(1, &wanted, new.iter().map(line).collect());
    world.run(MINUTE);
    let now = Now { local: now.local + MINUTE, exchange: now.exchange + MINUTE };
    for (line, ..) in world.keeper.demanded(1) {
        assert!(line.is_done(now), "{line:?}");
        assert_eq!(line.tally_for(1, now).missing, 0);
        assert!(line.tally_for(1, now).wanted > 570);
    }
    world.keeper.dismiss(1);
    assert!(world.keeper.line(&series_of(7, "5m")).is_none());
    let begin = world.at;
    world.run(5 * MINUTE);
    assert_eq!(world.asked_since(begin), []);
}

#[test]
fn a_damaged_file_silences_its_instrument_alone() {
    let members = [member(0, &["1m"], HYBRID), member(1, &["1m"], HYBRID)];
    let mut world = World::new(&members);
    world.run(2 * MINUTE);
    let (now, instrument) = (world.now(), series_of(0, "1m").instrument);
    let damage = Damage::File;
    let broken = Input::PushBroken { instrument: &instrument, error: "malformed", damage };
    world.keeper.on(now, broken);
    let begin = world.at;
    world.run(5 * MINUTE);
    assert_eq!(world.wanted, [series_of(1, "1m")].into());
    assert_eq!(world.asked_since(begin), []);
    assert_eq!(world.keeper.quarantine(&instrument), Some("malformed"));
    assert_eq!(world.keeper.take_damages(), [(instrument, "malformed".to_owned())]);
    assert_eq!(world.keeper.take_damages(), []);

    // The file was moved away: what was stored in it has to be fetched again.
    world.keeper.pardon();
    let now = world.now();
    let new = world.keeper.unknown(members.iter().flat_map(Member::series));
    assert_eq!(new, [series_of(0, "1m")]);
    world.keeper.configure(&members, new.iter().map(line).collect(), now);
    world.run(MINUTE);
    assert_eq!(world.mode(0), Mode::Stream);
    world.assert_whole();
    assert!(world.asked_since(begin).len() > 4, "all of history");
}

/// Its file could not be opened when the configuration was taken in.
#[test]
fn a_series_whose_plan_comes_later_is_kept_from_then_on() {
    let members = [member(0, &["1m"], HYBRID), member(1, &["1m"], HYBRID)];
    let mut world = World::new(&members[..1]);
    world.run(MINUTE);
    world.keeper.configure(&members, Vec::new(), world.now());
    world.run(2 * MINUTE);
    assert!(world.keeper.line(&series_of(1, "1m")).is_none());
    assert_eq!((world.mode(0), world.keeper.take_damages()), (Mode::Stream, Vec::new()));
    let new = world.keeper.unknown(members.iter().flat_map(Member::series));
    assert_eq!(new, [series_of(1, "1m")]);
    world.keeper.configure(&members, new.iter().map(line).collect(), world.now());
    world.run(2 * MINUTE);
    assert_eq!([world.mode(0), world.mode(1)], [Mode::Stream; 2]);
    world.assert_whole();
}

#[test]
fn a_damaged_file_that_a_page_has_found_is_left_at_once() {
    let mut world = World::new(&[member(0, &["1m", "5m"], HYBRID)]);
    world.run(2 * MINUTE + 30 * SECOND);
    world.faults.confirm_late_ms = 34 * SECOND;
    let now = world.break_next_page();
    let wanted =
        |action| matches!(action, Some(Action::Stream(Order::Want(all))) if all.is_empty());
    assert!(wanted(world.keeper.next(now)));
    for name in ["1m", "5m"] {
        let follow = world.keeper.line(&series_of(0, name)).unwrap().follows();
        assert!(matches!(follow, Follow::Poll(_)), "{name}: {follow:?}");
    }
}

#[test]
fn rows_that_were_deleted_behind_its_back_are_fetched_again() {
    let mut world = World::new(&[member(0, &["1m"], HYBRID)]);
    world.run(2 * MINUTE);
    let (begin, now) = (world.at, world.now());
    let series = series_of(0, "1m");
    let lost = crate::span::Spans::from(crate::span::Span::new(T0 - HOUR, T0 - HOUR + 5 * MINUTE));
    world.keeper.on(now, Input::Audited { series: &series, lost: &lost });
    world.run(5 * SECOND);
    assert_eq!(world.asked_since(begin).len(), 1);
    world.assert_whole();
}

/// The machine slept, and its calendar was set back by as much: only bars can tell.
#[test]
fn what_a_command_has_given_up_is_taken_up_when_it_is_configured() {
    let (kept, series) = (member(0, &["1m"], HYBRID), series_of(1, "1m"));
    let mut world = World::new(std::slice::from_ref(&kept));
    world.run(2 * MINUTE);
    let wanted = [(series.clone(), Wanted::Days(1))];
    world.keeper.demand(1, &wanted, vec![line(&series)]);
    let now = world.break_next_page();
    world.keeper.pardon();
    let members = [kept, member(1, &["1m"], HYBRID)];
    let unknown = world.keeper.unknown(members.iter().flat_map(Member::series));
    assert_eq!(unknown, std::slice::from_ref(&series));
    world.keeper.configure(&members, vec![line(&series)], now);
    world.run(2 * MINUTE);
    world.assert_whole();
}
