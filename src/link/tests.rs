//! Tables and properties of the link, with the time passed in.

use proptest::prelude::*;

use super::*;
use crate::breaker::{self, State};
use crate::okx::Credentials;
use crate::time::{HOUR, MINUTE, Millis, SECOND};

const START: Millis = 10_000_000;
const AGE_MS: Millis = HOUR;

/// A link, the time, and what it said.
struct Desk {
    link: Link,
    now: Millis,
}

fn settings() -> Settings {
    Settings {
        session: session::Settings {
            credentials: None,
            ping_interval_ms: 20 * SECOND,
            heartbeat_interval_ms: 30 * SECOND,
        },
        breaker: breaker::Settings {
            failure_threshold: 5,
            max_reconnect_attempts: 5,
            recovery_timeout_ms: MINUTE,
            reconnect_delay_base_ms: SECOND,
            reconnect_delay_max_ms: 60 * SECOND,
        },
        max_connection_age_ms: AGE_MS,
    }
}

impl Desk {
    fn new() -> Desk {
        Desk { link: Link::new(settings(), Random::new(5)), now: START }
    }

    /// A desk whose first connection stands, has these series and has brought data.
    fn streaming(names: &[&str]) -> Desk {
        let mut desk = Desk::new();
        assert_eq!(desk.want(names), ["dial 1"]);
        desk.stand(1);
        desk.ack(1, names);
        desk.push(1, names[0]);
        desk
    }

    /// One that wants two series, whose first connection has closed because it holds but one.
    fn overfull() -> Desk {
        let mut desk = Desk::new();
        desk.want(&["A-B", "C-D"]);
        desk.stand(1);
        desk.push(1, "A-B");
        desk.ack(1, &["A-B"]);
        desk.close(1, 4008);
        desk
    }

    /// One whose first connection was closed over two series, and whose second one has one of them.
    fn overfilled() -> Desk {
        let mut desk = Desk::new();
        desk.want(&["A-B", "C-D"]);
        for conn in [1, 2] {
            desk.stand(conn);
            desk.push(conn, "A-B");
            desk.ack(conn, &["A-B"]);
            if conn == 1 {
                desk.close(conn, 4008);
                desk.wait();
            }
        }
        desk
    }

    /// One whose connection is old, and whose next one stands and was asked for all series.
    fn replacing(names: &[&str]) -> Desk {
        let mut desk = Desk::streaming(names);
        assert_eq!(desk.pass(AGE_MS), ["dial 2"]);
        let told = desk.stand(2);
        assert_eq!(told, ["2: ping".to_owned(), format!("2: subscribe {}", names.join(" "))]);
        desk
    }

    fn told(&mut self, input: Input) -> Vec<String> {
        self.link.on(Now { local: self.now, exchange: self.now }, input);
        self.link.by_ref().filter_map(|effect| shown(&effect)).collect()
    }

    fn order(&mut self, order: Order) -> Vec<String> {
        self.told(Input::Order(order))
    }

    fn want(&mut self, names: &[&str]) -> Vec<String> {
        self.order(Order::Want(set(names)))
    }

    fn stand(&mut self, conn: u64) -> Vec<String> {
        self.told(Input::Dialled { conn })
    }

    fn fail(&mut self, conn: u64) -> Vec<String> {
        self.told(Input::Ended { conn, cause: "it broke".to_owned() })
    }

    fn hear(&mut self, conn: u64, text: &str) -> Vec<String> {
        self.told(Input::Heard { conn, what: session::Input::Text(text) })
    }

    fn ack(&mut self, conn: u64, names: &[&str]) -> Vec<String> {
        let event = |name: &&str| {
            self.hear(conn, &format!(r#"{{"event":"subscribe","arg":{}}}"#, arg(name)))
        };
        names.iter().flat_map(event).collect()
    }

    fn push(&mut self, conn: u64, name: &str) -> Vec<String> {
        let row = r#"["60000","2","3","1","2.5","9","9","9","1"]"#;
        self.hear(conn, &format!(r#"{{"arg":{},"data":[{row}]}}"#, arg(name)))
    }

    fn refuse(&mut self, conn: u64, name: &str) -> Vec<String> {
        let msg = format!("channel:candle1m,instId:{name} doesn't exist.");
        self.hear(conn, &format!(r#"{{"event":"error","code":"60018","msg":"{msg}"}}"#))
    }

    fn notice(&mut self, conn: u64) -> Vec<String> {
        self.hear(conn, r#"{"event":"notice","code":"64008","msg":"upgrade"}"#)
    }

    fn close(&mut self, conn: u64, code: u16) -> Vec<String> {
        let what = session::Input::Closed { code: Some(code), reason: "bye" };
        self.told(Input::Heard { conn, what })
    }

    /// Keeps the connections lively while time passes, and gathers what is said but pings.
    fn pass(&mut self, length_ms: Millis) -> Vec<String> {
        let (until, mut told) = (self.now + length_ms, Vec::new());
        while let Some(due) = self.link.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let mut said = self.told(Input::Tick);
            for conn in 1..=self.link.last {
                let ping = format!("{conn}: ping");
                if said.contains(&ping) {
                    said.retain(|said| *said != ping);
                    said.extend(self.hear(conn, "pong"));
                }
            }
            told.extend(said);
        }
        self.now = until;
        told
    }

    /// Lets the time pass until something is to be done, and does not answer pings.
    fn wait(&mut self) -> Vec<String> {
        self.now = self.link.deadline().expect("because it waits for something").max(self.now);
        self.told(Input::Tick)
    }

    /// Lets attempts fail from here on, until the breaker opens or closes.
    fn fail_until(&mut self, state: State) {
        for _ in 0..20 {
            if self.link.breaker.state(self.now) == state {
                return;
            }
            self.fail(self.link.last);
            if self.link.breaker.state(self.now) != state {
                self.wait();
            }
        }
        panic!("the breaker is never {state:?}");
    }
}

fn series(name: &str) -> Series {
    Series { instrument: name.parse().unwrap(), bar: "1m".parse().unwrap() }
}

fn set(names: &[&str]) -> BTreeSet<Series> {
    names.iter().map(|name| series(name)).collect()
}

fn arg(name: &str) -> String {
    format!(r#"{{"channel":"candle1m","instId":"{name}"}}"#)
}

/// An effect in a few words; log lines are left out.
fn shown(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Dial(conn) => format!("dial {conn}"),
        Effect::Send(conn, request) => format!("{conn}: {}", sent(request.as_str())),
        Effect::HangUp(conn) => format!("hang up {conn}"),
        Effect::Rows { series, .. } => format!("rows {}", series.instrument),
        Effect::Report(Report::Up) => "up".to_owned(),
        Effect::Report(Report::Acked(series)) => format!("acked {}", series.instrument),
        Effect::Report(Report::Refused { series, .. }) => format!("refused {}", series.instrument),
        Effect::Report(Report::Lost { series, .. }) => format!("lost {}", series.instrument),
        Effect::Report(Report::Down { cause }) => format!("down: {}", first_words(cause)),
        Effect::Report(Report::Health(_)) => "health".to_owned(),
        Effect::Log(..) => return None,
    })
}

fn first_words(cause: &str) -> &str {
    cause.split(" (").next().unwrap_or_default()
}

/// A request as `operation names`.
fn sent(text: &str) -> String {
    let Ok(body) = serde_json::from_str::<serde_json::Value>(text) else {
        return text.to_owned();
    };
    let mut words = vec![body["op"].as_str().unwrap()];
    words.extend(body["args"].as_array().unwrap().iter().filter_map(|arg| arg["instId"].as_str()));
    words.join(" ")
}

const NONE: [&str; 0] = [];
const CLOSED: &str = "down: WebSocketConnectionError: closed with code 1001: bye";

#[test]
fn it_connects_while_something_is_wanted_and_only_then() {
    let mut desk = Desk::new();
    assert_eq!(desk.link.deadline(), None);
    assert_eq!(desk.told(Input::Tick), NONE);
    assert_eq!(desk.want(&["A-B", "C-D"]), ["dial 1"]);
    assert_eq!(desk.link.health(desk.now), Health { wanted: 2, ..Health::default() });
    assert_eq!(desk.stand(1), ["up", "1: ping", "1: subscribe A-B C-D"]);
    assert_eq!(desk.ack(1, &["A-B", "A-B", "C-D"]), ["acked A-B", "acked C-D"]);
    assert_eq!(desk.push(1, "A-B"), ["rows A-B"]);
    assert_eq!(desk.want(&[]), ["hang up 1", "down: nothing is to be streamed"]);
    assert_eq!((desk.link.deadline(), desk.pass(HOUR)), (None, vec![]));
    assert_eq!(desk.want(&["A-B"]), ["dial 2"]);
    assert_eq!(desk.want(&[]), ["hang up 2"], "an attempt is no connection");
    assert_eq!(desk.stand(2), ["hang up 2"], "what nobody wants any more is closed");
}

#[test]
fn what_is_wanted_changes_while_it_streams() {
    let mut desk = Desk::streaming(&["A-B", "C-D"]);
    assert_eq!(desk.want(&["A-B", "C-D"]), NONE);
    assert_eq!(desk.want(&["C-D", "E-F"]), ["1: unsubscribe A-B", "1: subscribe E-F"]);
    assert_eq!(desk.ack(1, &["A-B", "E-F"]), ["acked E-F"]);
    assert_eq!(desk.want(&["A-B", "C-D", "E-F"]), ["1: subscribe A-B"]);
}

#[test]
fn a_lost_connection_is_down_once_and_comes_back_with_everything() {
    for (name, end, down) in [("a close", Some(1001), CLOSED), ("a reset", None, "down: it broke")]
    {
        let mut desk = Desk::streaming(&["A-B", "C-D"]);
        let told = if let Some(code) = end { desk.close(1, code) } else { desk.fail(1) };
        assert_eq!(told, ["hang up 1", down], "{name}");
        let (health, at) = (desk.link.health(desk.now), desk.now);
        assert!(!health.connected && health.retry_at.unwrap() <= at + SECOND, "{name}");
        assert_eq!((health.subscriptions, health.errors_24h, health.failures), (0, 1, 0), "{name}");
        assert_eq!(desk.fail(1), NONE, "{name}: it is over");
        assert_eq!(desk.push(1, "A-B"), NONE, "{name}: what comes late is nobody's");
        assert_eq!(desk.wait(), ["dial 2"], "{name}");
        assert_eq!(desk.stand(2), ["up", "2: ping", "2: subscribe A-B C-D"], "{name}");
        assert_eq!(desk.ack(2, &["C-D"]), ["acked C-D"], "{name}");
        assert_eq!(desk.link.health(desk.now).reconnects_24h, 1, "{name}");
    }
}

#[test]
fn failures_open_the_breaker_and_a_trial_with_few_series_closes_it() {
    let names: Vec<String> = (0..20).map(|n| format!("C{n}-D")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut desk = Desk::new();
    desk.want(&names);
    desk.fail_until(State::Open);
    let health = desk.link.health(desk.now);
    assert_eq!((health.breaker, health.failures, health.errors_24h), (State::Open, 5, 5));
    assert_eq!(health.retry_at, Some(desk.now + MINUTE));
    assert_eq!(desk.pass(MINUTE - 1), NONE);
    assert_eq!(desk.pass(1), ["dial 6"]);
    let told = desk.stand(6);
    assert_eq!(told[2], "6: subscribe C0-D C1-D C10-D C11-D C12-D");
    assert_eq!(desk.refuse(6, "C1-D"), ["refused C1-D", "6: subscribe C13-D"]);
    assert_eq!(desk.ack(6, &["C0-D", "C10-D"]), ["acked C0-D", "acked C10-D"]);
    assert_eq!(desk.link.health(desk.now).breaker, State::HalfOpen, "only data close it");
    let told = desk.push(6, "C0-D");
    assert_eq!(told[0], "rows C0-D");
    assert_eq!(told[1].matches("-D").count(), 14, "{told:?}");
    assert_eq!(desk.link.health(desk.now).breaker, State::Closed);
}

#[test]
fn a_trial_takes_the_shortest_bars_and_its_failure_opens_anew() {
    let mut desk = Desk::new();
    let wanted = |(name, bar): (&str, &str)| Series { bar: bar.parse().unwrap(), ..series(name) };
    let bars = ["1D", "1H", "5m"].into_iter().flat_map(|bar| [("A-B", bar), ("C-D", bar)]);
    desk.order(Order::Want(bars.map(wanted).collect()));
    desk.fail_until(State::Open);
    desk.pass(MINUTE);
    desk.link.on(Now { local: desk.now, exchange: desk.now }, Input::Dialled { conn: 6 });
    let requests = desk.link.by_ref().filter_map(|effect| match effect {
        Effect::Send(_, request) => Some(request.as_str().to_owned()),
        _ => None,
    });
    let asked = requests.last().unwrap();
    assert_eq!(["5m", "1H", "1D"].map(|bar| asked.matches(bar).count()), [2, 2, 1], "{asked}");
    assert_eq!(desk.close(6, 1001), ["hang up 6", CLOSED]);
    assert_eq!(desk.link.health(desk.now).breaker, State::Open);
    assert_eq!(desk.link.breaker.connect_at(desk.now), desk.now + 2 * MINUTE);
}

#[test]
fn whoever_is_in_haste_ends_the_rest() {
    let mut desk = Desk::new();
    desk.want(&["A-B"]);
    desk.fail_until(State::Open);
    assert_eq!(desk.pass(5 * SECOND), NONE);
    assert_eq!(desk.order(Order::Hasten), ["dial 6"]);
    assert_eq!(desk.order(Order::Hasten), NONE, "it is under way");
}

#[test]
fn silence_is_a_failure_whatever_came_before() {
    let mut desk = Desk::streaming(&["A-B"]);
    assert_eq!(desk.link.health(desk.now).failures, 0);
    assert_eq!(desk.wait(), ["1: ping"]);
    let told = desk.wait();
    assert_eq!(told[0], "hang up 1");
    assert!(told[1].starts_with("down: WebSocketTimeoutError: nothing came for 50s"), "{told:?}");
    assert_eq!(desk.link.health(desk.now).failures, 1);
}

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

#[test]
fn a_refused_login_is_spared_until_the_settings_change() {
    let credentials = Credentials::new("k", "s", "p").unwrap();
    let session = session::Settings { credentials: Some(credentials), ..settings().session };
    let settings = Settings { session, ..settings() };
    let mut desk = Desk { link: Link::new(settings.clone(), Random::new(1)), now: START };
    desk.want(&["A-B"]);
    assert_eq!(desk.stand(1), ["up", "1: login", "1: ping"]);
    let told = desk.hear(1, r#"{"event":"error","code":"60009","msg":"Login failed."}"#);
    assert_eq!(told, ["1: subscribe A-B"]);
    let login = desk.link.health(desk.now).login.unwrap();
    assert!(login.starts_with("WebSocketAuthenticationError: 60009: Login failed."), "{login}");
    desk.push(1, "A-B");
    desk.close(1, 1001);
    desk.wait();
    assert_eq!(desk.stand(2), ["up", "2: ping", "2: subscribe A-B"]);
    assert_eq!(desk.order(Order::Configure(Box::new(settings))), ["dial 3"]);
    assert_eq!(desk.link.health(desk.now).login, None);
    assert_eq!(desk.stand(3), ["3: login", "3: ping"]);
}

#[test]
fn a_wrong_path_is_a_failure_and_not_hammered() {
    let mut desk = Desk::new();
    desk.want(&["A-B"]);
    let begun = desk.now;
    for conn in 1..=5 {
        desk.stand(conn);
        let told = desk.hear(conn, r#"{"event":"error","code":"64001","msg":"wrong path"}"#);
        assert!(told[1].contains("64001"), "{told:?}");
        desk.wait();
    }
    assert!(desk.now - begun > MINUTE);
    let health = desk.link.health(desk.now);
    assert!(health.last_error.unwrap().1.contains("ws_url"));
}

#[test]
fn a_refused_series_is_asked_for_again_only_later_or_elsewhere() {
    let refused = || {
        let mut desk = Desk::streaming(&["A-B"]);
        assert_eq!(desk.want(&["A-B", "C-D"]), ["1: subscribe C-D"]);
        assert_eq!(desk.refuse(1, "C-D"), ["refused C-D"]);
        assert_eq!(desk.link.health(desk.now).errors_24h, 1);
        assert_eq!(desk.pass(MINUTE), NONE);
        desk
    };
    let mut desk = refused();
    assert_eq!(desk.want(&["A-B", "C-D"]), NONE);
    assert_eq!(desk.pass(9 * MINUTE - 1), NONE);
    assert_eq!(desk.pass(1), ["1: subscribe C-D"]);
    assert_eq!(desk.refuse(1, "C-D"), ["refused C-D"]);

    let mut desk = refused();
    assert_eq!(desk.order(Order::Renew(set(&["C-D"]))), ["1: subscribe C-D"]);

    let mut desk = refused();
    desk.close(1, 1001);
    desk.wait();
    assert_eq!(desk.stand(2).last().unwrap(), "2: subscribe A-B C-D");

    let mut desk = refused();
    desk.want(&["A-B"]);
    assert_eq!(desk.want(&["A-B", "C-D"]), ["1: subscribe C-D"]);
}

#[test]
fn a_renewed_series_is_unsubscribed_and_subscribed_and_acked_anew() {
    let mut desk = Desk::streaming(&["A-B", "C-D"]);
    let told = desk.order(Order::Renew(set(&["A-B", "X-Y"])));
    assert_eq!(told, ["1: unsubscribe A-B", "1: subscribe A-B"]);
    assert_eq!(desk.link.health(desk.now).subscriptions, 1);
    let gone = format!(r#"{{"event":"unsubscribe","arg":{}}}"#, arg("A-B"));
    assert_eq!(desk.hear(1, &gone), NONE);
    assert_eq!(desk.ack(1, &["A-B"]), ["acked A-B"]);

    let mut desk = Desk::replacing(&["A-B"]);
    let told = desk.order(Order::Renew(set(&["A-B"])));
    let each = |conn| [format!("{conn}: unsubscribe A-B"), format!("{conn}: subscribe A-B")];
    assert_eq!(told.len(), 4);
    assert!([each(1), each(2)].concat().iter().all(|said| told.contains(said)), "{told:?}");
}

#[test]
fn a_series_that_the_exchange_takes_away_is_lost_and_asked_for_anew() {
    let mut desk = Desk::streaming(&["A-B", "C-D"]);
    let gone = format!(r#"{{"event":"unsubscribe","arg":{}}}"#, arg("A-B"));
    assert_eq!(desk.hear(1, &gone), ["1: subscribe A-B", "lost A-B"]);
    assert_eq!(desk.ack(1, &["A-B"]), ["acked A-B"]);
}

#[test]
fn a_reconnect_drops_everything_and_begins_anew_at_once() {
    let reconnect = || Order::Reconnect("the machine slept".to_owned());
    let mut desk = Desk::replacing(&["A-B"]);
    let told = desk.order(reconnect());
    assert_eq!(told, ["hang up 2", "hang up 1", "down: the machine slept", "dial 3"]);
    assert_eq!(desk.order(reconnect()), ["hang up 3", "dial 4"]);
    assert_eq!(desk.order(reconnect()), ["hang up 4"], "four within a second are too many");
    assert_eq!(desk.pass(2 * SECOND), ["dial 5"]);
    assert_eq!(desk.link.health(desk.now).failures, 0);
    let mut desk = Desk::new();
    assert_eq!(desk.order(reconnect()), NONE, "nothing is wanted");
}

#[test]
fn other_settings_hold_from_the_next_connection_on_which_comes_at_once() {
    let mut desk = Desk::streaming(&["A-B"]);
    let changed = Settings { max_connection_age_ms: 2 * HOUR, ..settings() };
    assert_eq!(desk.order(Order::Configure(Box::new(changed.clone()))), ["dial 2"]);
    assert_eq!(desk.order(Order::Configure(Box::new(changed))), ["hang up 2", "dial 3"]);
    desk.stand(3);
    desk.ack(3, &["A-B"]);
    assert_eq!(desk.pass(2 * HOUR - 1), ["hang up 1"]);
    assert_eq!(desk.pass(1), ["dial 4"]);
}

#[test]
fn a_stop_lets_everything_go() {
    let mut desk = Desk::streaming(&["A-B"]);
    assert_eq!(desk.order(Order::Stop), ["hang up 1", "down: stopped"]);
    assert_eq!(desk.link.deadline(), None);
}

#[derive(Clone, Debug)]
enum Chance {
    Pass(Millis),
    Want(u8),
    Renew(u8),
    Reconnect,
    Configure,
    Hasten,
    Stand,
    Fail(bool),
    Ack(bool, u8),
    Push(bool, u8),
    Refuse(bool, u8),
    Gone(bool, u8),
    Notice(bool),
    Close(bool, u16),
    Pong(bool),
}

fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let old = any::<bool>;
    let one = prop_oneof![
        4 => (0..90_000i64).prop_map(Chance::Pass),
        1 => any::<u8>().prop_map(Chance::Want),
        1 => any::<u8>().prop_map(Chance::Renew),
        1 => Just(Chance::Reconnect),
        1 => Just(Chance::Configure),
        1 => Just(Chance::Hasten),
        6 => Just(Chance::Stand),
        2 => old().prop_map(Chance::Fail),
        6 => (old(), 0..6u8).prop_map(|(old, n)| Chance::Ack(old, n)),
        6 => (old(), 0..6u8).prop_map(|(old, n)| Chance::Push(old, n)),
        1 => (old(), 0..6u8).prop_map(|(old, n)| Chance::Refuse(old, n)),
        1 => (old(), 0..6u8).prop_map(|(old, n)| Chance::Gone(old, n)),
        1 => old().prop_map(Chance::Notice),
        1 => (old(), prop_oneof![Just(1001), Just(4004), Just(4008)])
            .prop_map(|(old, code)| Chance::Close(old, code)),
        4 => old().prop_map(Chance::Pong),
    ];
    proptest::collection::vec(one, 1..120)
}

const NAMES: [&str; 6] = ["A-B", "C-D", "E-F", "G-H", "I-J", "K-L"];

/// What a listener may believe, led by the reports alone.
#[derive(Default)]
struct Listener {
    up: bool,
    acked: BTreeSet<String>,
    open: BTreeSet<u64>,
    dials: Vec<Millis>,
}

impl Listener {
    fn hear(&mut self, now: Millis, said: &str) {
        let (verb, rest) = said.split_once(' ').unwrap_or((said, ""));
        match verb {
            "dial" => {
                assert!(self.open.insert(rest.parse().unwrap()), "a number comes twice");
                self.dials.push(now);
            }
            "hang" => {
                self.open.remove(&rest[3..].parse().unwrap());
            }
            "up" => assert!(!std::mem::replace(&mut self.up, true), "up twice"),
            "down:" => {
                assert!(std::mem::take(&mut self.up), "down twice");
                self.acked.clear();
            }
            "acked" => {
                assert!(self.up, "acked while down");
                assert!(self.acked.insert(rest.to_owned()), "{rest} is acked twice");
            }
            "lost" => assert!(self.acked.remove(rest), "{rest} is lost and was never there"),
            "refused" => {
                self.acked.remove(rest);
            }
            _ => {}
        }
        assert!(self.open.len() <= 2, "{:?}", self.open);
    }
}

impl Desk {
    fn chance(&mut self, chance: &Chance) -> Vec<String> {
        let some = |bits: u8| {
            let names = NAMES.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
            set(&names.map(|(_, name)| *name).collect::<Vec<_>>())
        };
        let of = |link: &Link, old: bool| {
            let it = if old { &link.current } else { &link.next };
            it.as_ref().map_or(0, |it| it.number)
        };
        match *chance {
            Chance::Pass(length_ms) => {
                self.now += length_ms;
                self.told(Input::Tick)
            }
            Chance::Want(bits) => self.order(Order::Want(some(bits))),
            Chance::Renew(bits) => self.order(Order::Renew(some(bits))),
            Chance::Reconnect => self.order(Order::Reconnect("why".to_owned())),
            Chance::Hasten => self.order(Order::Hasten),
            Chance::Configure => self.order(Order::Configure(Box::new(settings()))),
            Chance::Stand => {
                let tried = self.link.connections().find(|it| it.since.is_none());
                let Some(conn) = tried.map(|it| it.number) else { return Vec::new() };
                self.stand(conn)
            }
            Chance::Fail(old) => self.fail(of(&self.link, old)),
            Chance::Ack(old, n) => self.ack(of(&self.link, old), &[NAMES[usize::from(n)]]),
            Chance::Push(old, n) => self.push(of(&self.link, old), NAMES[usize::from(n)]),
            Chance::Refuse(old, n) => self.refuse(of(&self.link, old), NAMES[usize::from(n)]),
            Chance::Gone(old, n) => {
                let arg = arg(NAMES[usize::from(n)]);
                let text = format!(r#"{{"event":"unsubscribe","arg":{arg}}}"#);
                self.hear(of(&self.link, old), &text)
            }
            Chance::Notice(old) => self.notice(of(&self.link, old)),
            Chance::Close(old, code) => self.close(of(&self.link, old), code),
            Chance::Pong(old) => self.hear(of(&self.link, old), "pong"),
        }
    }
}

proptest! {
    #[test]
    fn reports_agree_with_what_is_there_whatever_happens(chances in chances()) {
        let (mut desk, mut listener) = (Desk::new(), Listener::default());
        desk.want(&NAMES[..4]).iter().for_each(|said| listener.hear(START, said));
        for chance in &chances {
            let said = desk.chance(chance);
            // Who renews a series, or does not want it any more, expects no report of it.
            let silent = |bits: u8, named: bool| {
                NAMES.iter().enumerate().filter(move |(n, _)| (bits & (1 << n) != 0) == named)
            };
            match *chance {
                Chance::Want(bits) => silent(bits, false).for_each(|(_, name)| {
                    listener.acked.remove(*name);
                }),
                Chance::Renew(bits) => silent(bits, true).for_each(|(_, name)| {
                    listener.acked.remove(*name);
                }),
                _ => {}
            }
            said.iter().for_each(|said| listener.hear(desk.now, said));
            let there = desk.link.connections().flat_map(|it| it.session.acked());
            let there: BTreeSet<String> = there.map(|it| it.instrument.to_string()).collect();
            prop_assert_eq!(&listener.acked, &there, "after {:?}", chance);
            prop_assert_eq!(listener.up, desk.link.health(desk.now).connected);
            if let Some(due) = desk.link.deadline() {
                let told = desk.told(Input::Tick);
                prop_assert!(due > desk.now || told.is_empty(), "{chance:?}: {told:?}");
                prop_assert!(desk.link.deadline() > Some(desk.now), "it would turn and turn");
            }
        }
        for four in listener.dials.windows(4) {
            prop_assert!(four[3] - four[0] > SECOND, "{:?}", four);
        }
    }
}
