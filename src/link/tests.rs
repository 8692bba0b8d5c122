//! Tables and properties of the link, with the time passed in.

use super::*;
use crate::breaker::{self, State};
use crate::okx::Credentials;
use crate::time::{HOUR, MINUTE, Millis, SECOND};

mod capacity;
mod chances;
mod replacement;

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

    /// The same with the second connection, which has that one.
    fn overfilled() -> Desk {
        let mut desk = Desk::overfull();
        desk.wait();
        desk.stand(2);
        desk.push(2, "A-B");
        desk.ack(2, &["A-B"]);
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
