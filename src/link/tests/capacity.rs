//! A connection that does not hold all series that it is asked for.

use super::*;

#[test]
fn what_does_not_fit_is_refused_and_tried_again() {
    for code in [4008, 4009] {
        let mut desk = Desk::new();
        desk.want(&["A-B", "C-D", "E-F"]);
        desk.stand(1);
        desk.push(1, "A-B");
        desk.ack(1, &["A-B", "C-D"]);
        let told = desk.close(1, code);
        assert_eq!(told[0], "hang up 1");
        assert!(told[1].starts_with("down: WebSocketConnectionError"), "{told:?}");
        assert_eq!(told[2..], ["refused E-F"]);
        desk.wait();
        assert_eq!(desk.stand(2), ["up", "2: ping", "2: subscribe A-B C-D"]);
        desk.ack(2, &["A-B", "C-D"]);
        desk.push(2, "A-B");
        assert_eq!(desk.want(&["A-B", "E-F"]), ["2: unsubscribe C-D", "2: subscribe E-F"]);
        assert_eq!(desk.want(&["A-B"]), ["2: unsubscribe E-F"]);
        let told = desk.want(&["A-B", "C-D", "E-F"]);
        assert_eq!(told, ["refused E-F", "2: subscribe C-D"], "nothing new: it stays as it is");
        assert_eq!(desk.ack(2, &["C-D"]), ["acked C-D"]);
        let told = desk.want(&["A-B", "C-D", "E-F", "G-H"]);
        assert_eq!(told, ["refused G-H", "dial 3"], "more is tried beside what there is");
        assert_eq!(desk.stand(3), ["3: ping", "3: subscribe A-B C-D E-F G-H"]);
        assert_eq!(desk.ack(3, &["A-B", "C-D", "E-F"]), ["acked E-F"]);
        let told = desk.close(3, code);
        assert_eq!(told, ["hang up 3", "refused E-F"], "the rest goes on");
        assert_eq!(desk.pass(10 * MINUTE - 1), NONE, "twice as long as after the first time");
        assert_eq!(desk.pass(1), ["dial 4"]);
        desk.stand(4);
        desk.push(4, "A-B");
        let told = desk.ack(4, &["A-B", "C-D", "E-F", "G-H"]);
        assert_eq!(told, ["acked E-F", "acked G-H"]);
        assert_eq!(desk.pass(SECOND), ["hang up 2"]);
        let told = desk.want(&["A-B", "C-D", "E-F", "G-H", "I-J"]);
        assert_eq!(told, ["4: subscribe I-J"], "it holds more than was known");
    }
}

#[test]
fn what_does_not_fit_again_and_again_is_tried_once_an_hour() {
    let mut desk = Desk::overfilled();
    // The first wait has begun with the close.
    let ready = desk.pass(5 * MINUTE);
    assert_eq!(ready, ["dial 3"]);
    for (number, minutes) in (3..).zip([10, 20, 40, 60, 60]) {
        desk.stand(number);
        desk.ack(number, &["A-B"]);
        assert_eq!(desk.close(number, 4008), [format!("hang up {number}")]);
        assert_eq!(desk.pass(minutes * MINUTE - 1), NONE, "{minutes}");
        assert_eq!(desk.pass(1), [format!("dial {}", number + 1)]);
    }
}

#[test]
fn a_try_to_hold_more_that_breaks_for_another_reason_is_made_again_soon() {
    let mut desk = Desk::overfilled();
    assert_eq!(desk.want(&["A-B", "C-D", "E-F"]), ["refused E-F", "dial 3"]);
    for number in 3..7 {
        desk.stand(number);
        assert_eq!(desk.fail(number), [format!("hang up {number}")]);
        assert_eq!(desk.pass(30 * SECOND - 1), NONE);
        assert_eq!(desk.pass(1), [format!("dial {}", number + 1)]);
    }
    assert_eq!(desk.stand(7), ["7: ping", "7: subscribe A-B C-D E-F"]);
    desk.ack(7, &["A-B", "C-D", "E-F"]);
    desk.push(7, "A-B");
    assert_eq!(desk.pass(SECOND), ["hang up 2"]);
}

/// Else the series would be waited for on the next connection, which never asks for it.
#[test]
fn what_does_not_fit_is_refused_anew_after_each_loss() {
    let mut desk = Desk::overfull();
    desk.wait();
    desk.stand(2);
    desk.push(2, "A-B");
    let told = desk.close(2, 1001);
    assert!(told[1].starts_with("down: "), "{told:?}");
    assert_eq!(told[2..], ["refused C-D"]);
    let told = desk.order(Order::Reconnect("the machine slept".to_owned()));
    assert_eq!(told[..1], ["refused C-D"], "whether a connection stood or not");
}

#[test]
fn what_another_series_takes_the_place_of_while_nothing_stands_is_refused() {
    let mut desk = Desk::overfull();
    assert_eq!(desk.want(&["C-D"]), NONE, "it fits alone");
    assert_eq!(desk.want(&["A-B", "C-D"]), ["refused C-D"]);
}

#[test]
fn a_close_that_overtakes_the_acknowledgements_is_answered_by_small_steps() {
    let names: Vec<String> = (10..90).map(|n| format!("C{n}-D")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut desk = Desk::new();
    desk.want(&names);
    desk.stand(1);
    assert_eq!(desk.close(1, 4008).len(), 2, "nothing is refused before it is known what fits");
    desk.wait();
    desk.stand(2);
    desk.push(2, names[0]);
    let told = desk.ack(2, &names[..8]);
    assert!(told.iter().any(|told| told.starts_with("2: subscribe C18-D C19-D")), "{told:?}");
    let told = desk.close(2, 4008);
    assert_eq!(told.iter().filter(|told| told.starts_with("refused")).count(), 72);
    desk.wait();
    let told = desk.stand(3);
    assert_eq!(told[2].matches("-D").count(), 8, "{told:?}");
    assert_eq!(desk.ack(3, &names[..8]).len(), 8, "and no more is asked for");
    desk.push(3, names[0]);
    assert_eq!(desk.close(3, 4008).iter().filter(|told| told.starts_with("ref")).count(), 76);
}

#[test]
fn a_replacement_that_does_not_fit_beside_the_old_one_changes_nothing_for_long() {
    let mut desk = Desk::replacing(&["A-B", "C-D"]);
    desk.ack(2, &["A-B"]);
    assert_eq!(desk.close(2, 4008), ["hang up 2"]);
    assert_eq!(desk.link.health(desk.now).subscriptions, 2);
    assert_eq!(desk.pass(HOUR - 1), NONE);
    assert_eq!(desk.pass(1), ["dial 3"]);
}
