//! An old connection gives its place to a new one.

use super::*;

#[test]
fn an_old_connection_is_replaced_without_a_word() {
    let mut desk = Desk::replacing(&["A-B", "C-D"]);
    let health = desk.link.health(desk.now);
    assert!(health.connected && health.replacing);
    assert_eq!(desk.push(1, "A-B"), ["rows A-B"]);
    assert_eq!(desk.push(2, "A-B"), ["rows A-B"], "rows come from both");
    assert_eq!(desk.ack(2, &["A-B"]), NONE);
    assert_eq!(desk.pass(2 * SECOND), NONE);
    assert_eq!(desk.ack(2, &["C-D"]), NONE, "it has everything now");
    assert_eq!(desk.pass(SECOND - 1), NONE, "the old one's last pushes may be on their way");
    assert_eq!(desk.pass(1), ["hang up 1"]);
    assert_eq!(desk.push(1, "A-B"), NONE);
    assert_eq!(desk.push(2, "C-D"), ["rows C-D"]);
    let health = desk.link.health(desk.now);
    assert_eq!((health.subscriptions, health.replacing, health.errors_24h), (2, false, 0));
    assert_eq!(desk.pass(AGE_MS - 4 * SECOND), NONE, "its age counts from when it came to stand");
    assert_eq!(desk.pass(SECOND), ["dial 3"]);
}

#[test]
fn a_notice_replaces_the_connection_at_once() {
    let mut desk = Desk::streaming(&["A-B"]);
    assert_eq!(desk.notice(1), ["dial 2"]);
    assert_eq!(desk.notice(1), NONE);
    desk.stand(2);
    assert_eq!(desk.notice(2), NONE);
    assert_eq!(desk.ack(2, &["A-B"]), NONE);
    assert_eq!(desk.pass(SECOND), ["hang up 1", "dial 3"], "the next is to be replaced as well");
}

#[test]
fn what_the_replacement_does_not_have_in_time_is_lost() {
    let mut desk = Desk::replacing(&["A-B", "C-D", "E-F"]);
    assert_eq!(desk.push(2, "A-B"), ["rows A-B"]);
    assert_eq!(desk.ack(2, &["A-B"]), NONE);
    assert_eq!(desk.refuse(2, "C-D"), NONE, "the old one still has it");
    let told = desk.pass(10 * SECOND);
    assert_eq!(told, ["2: subscribe E-F", "hang up 1", "refused C-D", "lost E-F"]);
    assert_eq!(desk.ack(2, &["E-F"]), ["acked E-F"]);
    assert_eq!(desk.link.health(desk.now).subscriptions, 2);
}

#[test]
fn a_replacement_that_shows_nothing_is_given_up() {
    let mut desk = Desk::replacing(&["A-B"]);
    assert_eq!(desk.pass(10 * SECOND - 1), NONE);
    assert_eq!(desk.wait().last().unwrap(), "hang up 2");
    assert_eq!(desk.push(1, "A-B"), ["rows A-B"], "the old one goes on");
    assert_eq!(desk.link.health(desk.now).failures, 1);
    assert_eq!(desk.pass(30 * SECOND - 1), NONE);
    assert_eq!(desk.pass(1), ["dial 3"]);
}

#[test]
fn replacements_that_fail_open_the_breaker_and_leave_the_old_connection_alone() {
    let mut desk = Desk::streaming(&["A-B"]);
    desk.pass(AGE_MS);
    for conn in 2..=5 {
        assert_eq!(desk.fail(conn), [format!("hang up {conn}")]);
        assert_eq!(desk.pass(30 * SECOND), [format!("dial {}", conn + 1)]);
    }
    assert_eq!(desk.fail(6), ["hang up 6"]);
    assert_eq!(desk.link.health(desk.now).breaker, State::Open);
    assert_eq!(desk.push(1, "A-B"), ["rows A-B"]);
    assert_eq!(desk.pass(MINUTE - 1), NONE);
    assert_eq!(desk.pass(1), ["dial 7"]);
    desk.stand(7);
    assert_eq!(desk.push(7, "A-B"), ["rows A-B"]);
    assert_eq!(desk.link.health(desk.now).breaker, State::Closed);
    assert_eq!(desk.ack(7, &["A-B"]), NONE);
    assert_eq!(desk.pass(SECOND), ["hang up 1"]);
}

#[test]
fn four_thousand_series_are_acked_one_by_one_and_replaced_in_the_time_that_it_takes() {
    let names: Vec<String> = (0..4_000).map(|n| format!("C{n}-D")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut desk = Desk::new();
    desk.want(&names);
    desk.stand(1);
    let told = desk.ack(1, &names);
    let each =
        |verb: &str| -> Vec<String> { names.iter().map(|name| format!("{verb} {name}")).collect() };
    assert_eq!(told, each("acked"), "one report each, in the order in which they came");
    desk.push(1, names[0]);
    assert_eq!(desk.pass(AGE_MS), ["dial 2"]);
    desk.stand(2);
    assert_eq!(desk.ack(2, &names[..2_000]), NONE);
    for some in names[2_000..].chunks(100).take(17) {
        let told = desk.pass(SECOND);
        assert!(!told.contains(&"hang up 1".to_owned()), "acknowledgements still come");
        assert_eq!(desk.ack(2, some), NONE);
        desk.push(2, some[0]);
    }
    assert_eq!(desk.pass(SECOND), NONE);
    let told = desk.ack(2, &names[3_700..3_800]);
    assert_eq!(told[0], "hang up 1", "nineteen of twenty are enough");
    let lost = told.iter().filter(|told| told.starts_with("lost")).count();
    assert_eq!((lost, told.len()), (200, 201));
    assert_eq!(desk.ack(2, &names[3_800..]), each("acked")[3_800..]);
}

#[test]
fn a_replacement_is_not_waited_for_when_nothing_more_is_acked() {
    let names = ["A-B", "C-D", "E-F", "G-H", "I-J", "K-L"];
    for (name, every_s, until_s) in [("it stops", 8, 11), ("it goes on", 2, 30)] {
        let (mut desk, mut passed) = (Desk::replacing(&names), 0);
        desk.push(2, names[0]);
        let mut rest = names[1..5].iter();
        loop {
            let told = desk.pass(SECOND);
            passed += 1;
            if told.iter().any(|told| told == "hang up 1") {
                break;
            }
            if passed % every_s == 0 && passed <= 8 {
                desk.ack(2, &[rest.next().unwrap()]);
            } else if every_s == 2 && passed % 2 == 0 {
                // The exchange takes one back and gives it again.
                let gone = format!(r#"{{"event":"unsubscribe","arg":{}}}"#, arg(names[0]));
                desk.hear(2, &gone);
                desk.ack(2, &names[..1]);
            }
        }
        assert_eq!(passed, until_s, "{name}");
    }
}

#[test]
fn an_old_connection_that_dies_leaves_its_place_to_the_next() {
    let mut desk = Desk::replacing(&["A-B", "C-D"]);
    assert_eq!(desk.ack(2, &["A-B"]), NONE);
    assert_eq!(desk.close(1, 1001), ["hang up 1", CLOSED, "up", "acked A-B"]);
    assert_eq!(desk.ack(2, &["C-D"]), ["acked C-D"]);

    let mut desk = Desk::streaming(&["A-B"]);
    assert_eq!(desk.pass(AGE_MS), ["dial 2"]);
    assert_eq!(desk.close(1, 1001), ["hang up 1", CLOSED], "the next is only being tried");
    assert_eq!(desk.stand(2), ["up", "2: ping", "2: subscribe A-B"]);
}

#[test]
fn what_is_wanted_changes_during_a_replacement() {
    let mut desk = Desk::replacing(&["A-B", "C-D"]);
    let told = desk.want(&["C-D", "E-F"]);
    let each = |conn| [format!("{conn}: unsubscribe A-B"), format!("{conn}: subscribe E-F")];
    assert_eq!(told, [each(2), each(1)].concat());
    assert_eq!(desk.ack(1, &["E-F"]), ["acked E-F"]);
    assert_eq!(desk.ack(2, &["C-D", "E-F"]), NONE, "it has them already");
    assert_eq!(desk.pass(SECOND), ["hang up 1"]);
    let mut desk = Desk::replacing(&["A-B"]);
    assert_eq!(desk.want(&[]), ["hang up 2", "hang up 1", "down: nothing is to be streamed"]);
}
