//! Tables and properties of the session, with the time passed in.

use proptest::prelude::*;

use super::subscriptions::{ACK_MS, DATA_GRACE_MS, PAUSE_MS, REQUESTS_MAX, TRIES_MAX};
use super::*;
use crate::time::HOUR;
use crate::wire::wild;

const START: Millis = 1_000_000;

/// A session, the time, and what it said.
struct Desk {
    session: Session,
    now: Millis,
}

impl Desk {
    /// A session that stands and has said hello.
    fn open() -> Desk {
        let mut desk = Desk::new(None);
        assert_eq!(desk.told(Input::Opened), ["ping"]);
        assert_eq!(desk.told(Input::Text("pong")), ["beat 0"]);
        desk
    }

    fn new(credentials: Option<Credentials>) -> Desk {
        let settings = Settings {
            credentials,
            ping_interval_ms: 20 * SECOND,
            heartbeat_interval_ms: 30 * SECOND,
        };
        Desk { session: Session::new(settings), now: START }
    }

    /// An open session that has asked for these series, by request 1.
    fn asked(names: &[&str]) -> Desk {
        let mut desk = Desk::open();
        assert_eq!(desk.want(names), [format!("subscribe 1 {}", names.join(" "))]);
        desk
    }

    fn told(&mut self, input: Input) -> Vec<String> {
        self.session.on(Now { local: self.now, exchange: self.now }, input);
        self.session.by_ref().map(|effect| shown(&effect)).collect()
    }

    fn want(&mut self, names: &[&str]) -> Vec<String> {
        self.told(Input::Subscribe(names.iter().map(|name| minute(name)).collect()))
    }

    fn leave(&mut self, names: &[&str]) -> Vec<String> {
        self.told(Input::Unsubscribe(names.iter().map(|name| minute(name)).collect()))
    }

    fn ack(&mut self, id: u64, name: &str) -> Vec<String> {
        let arg = arg(name);
        self.told(Input::Text(&format!(r#"{{"id":"{id}","event":"subscribe","arg":{arg}}}"#)))
    }

    fn refuse(&mut self, id: Option<u64>, code: u32, msg: &str) -> Vec<String> {
        let id = id.map(|id| format!(r#""id":"{id}","#)).unwrap_or_default();
        let text = format!(r#"{{{id}"event":"error","code":"{code}","msg":"{msg}"}}"#);
        self.told(Input::Text(&text))
    }

    fn push(&mut self, name: &str) -> Vec<String> {
        let arg = arg(name);
        let row = r#"["60000","2","3","1","2.5","9","9","9","1"]"#;
        self.told(Input::Text(&format!(r#"{{"arg":{arg},"data":[{row}]}}"#)))
    }

    /// Keeps the connection lively while time passes, and gathers what is said but pings.
    fn pass(&mut self, length_ms: Millis) -> Vec<String> {
        let (until, mut told) = (self.now + length_ms, Vec::new());
        while let Some(due) = self.session.deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            let said = self.told(Input::Tick);
            if said.iter().any(|said| said == "ping") {
                self.told(Input::Text("pong"));
            }
            told.extend(said.into_iter().filter(|said| said != "ping"));
        }
        self.now = until;
        told
    }
}

fn minute(name: &str) -> Series {
    Series { instrument: name.parse().unwrap(), bar: "1m".parse().unwrap() }
}

fn arg(name: &str) -> String {
    format!(r#"{{"channel":"candle1m","instId":"{name}"}}"#)
}

/// An effect in a few words.
fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Send(request) => sent(request),
        Effect::Rows { series, rows, refused } => {
            format!("rows {} {}+{}", series.instrument, rows.len(), refused.len())
        }
        Effect::Acked(series) => format!("acked {}", series.instrument),
        Effect::Refused { series, cause } => {
            format!("refused {}: {}", series.instrument, first_words(cause))
        }
        Effect::LoginRefused(cause) => format!("login refused: {}", first_words(cause)),
        Effect::Beat { rtt_ms } => format!("beat {rtt_ms}"),
        Effect::Garbled(cause) => format!("garbled: {}", first_words(cause)),
        Effect::Replace(said) => format!("replace {}", said.code),
        Effect::Notice(said) => format!("notice {}", said.code),
        Effect::Close(cause) => format!("close: {}", first_words(cause)),
    }
}

fn first_words(cause: &Cause) -> String {
    cause.to_string().split(" (").next().unwrap().to_owned()
}

/// A request as `operation id names`.
fn sent(request: &Request) -> String {
    let Ok(body) = serde_json::from_str::<serde_json::Value>(request.as_str()) else {
        return request.as_str().to_owned();
    };
    let mut words = vec![body["op"].as_str().unwrap()];
    words.extend(body["id"].as_str());
    words.extend(body["args"].as_array().unwrap().iter().filter_map(|arg| arg["instId"].as_str()));
    words.join(" ")
}

#[test]
fn a_series_is_asked_for_acknowledged_and_pushed() {
    let mut desk = Desk::asked(&["A-B", "C-D"]);
    assert_eq!(desk.push("A-B"), ["rows A-B 1+0"], "data may come before the acknowledgement");
    assert_eq!(desk.ack(1, "A-B"), ["acked A-B"]);
    assert_eq!(desk.ack(1, "A-B"), [""; 0], "and acknowledgements twice");
    assert_eq!(desk.ack(1, "C-D"), ["acked C-D"]);
    assert_eq!(desk.push("C-D"), ["rows C-D 1+0"]);
    assert_eq!(desk.push("X-Y"), [""; 0], "what nobody asked for is nobody's");
    assert_eq!(desk.session.acked().len(), 2);
    assert_eq!(desk.want(&["A-B"]), [""; 0], "what is there is not asked for again");
    assert_eq!(desk.pass(10 * MINUTE), [""; 0]);
}

#[test]
fn what_is_wanted_before_the_connection_stands_is_asked_for_then() {
    let mut desk = Desk::new(None);
    assert_eq!(desk.want(&["A-B"]), [""; 0]);
    assert_eq!(desk.session.deadline(), None);
    assert_eq!(desk.told(Input::Opened), ["subscribe 1 A-B", "ping"]);
}

#[test]
fn many_series_take_few_requests() {
    let mut desk = Desk::open();
    let names: Vec<String> = (0..150).map(|n| format!("C{n}-USDT")).collect();
    let told = desk.want(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let counts: Vec<usize> = told.iter().map(|said| said.matches("-USDT").count()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 150);
    assert_eq!(counts.len(), 2);
}

#[test]
fn a_lost_acknowledgement_is_asked_for_again_and_in_the_end_no_more() {
    let mut desk = Desk::asked(&["A-B", "C-D"]);
    desk.ack(1, "C-D");
    assert_eq!(desk.pass(ACK_MS - 1), [""; 0]);
    assert_eq!(desk.pass(1), ["subscribe 2 A-B"]);
    assert_eq!(desk.ack(1, "A-B"), ["acked A-B"], "the first was only late");
    let mut desk = Desk::asked(&["A-B"]);
    let told = desk.pass(10 * MINUTE);
    assert_eq!(told.len(), TRIES_MAX as usize);
    let refused = "refused A-B: WebSocketSubscriptionError: the requests for it were not answered";
    assert_eq!(told.last().unwrap(), refused);
    assert_eq!(desk.want(&["A-B"]), ["subscribe 7 A-B"], "whoever wants it anew may");
}

#[test]
fn data_stand_for_an_acknowledgement() {
    let mut desk = Desk::asked(&["A-B"]);
    desk.push("A-B");
    assert_eq!(desk.pass(DATA_GRACE_MS - 1), [""; 0]);
    assert_eq!(desk.pass(1), ["acked A-B"]);
    assert_eq!(desk.ack(1, "A-B"), [""; 0]);
}

#[test]
fn acknowledgements_of_an_earlier_subscription_mean_nothing() {
    let mut desk = Desk::asked(&["A-B"]);
    assert_eq!(desk.leave(&["A-B"]), ["unsubscribe 2 A-B"]);
    assert_eq!(desk.want(&["A-B"]), ["subscribe 3 A-B"]);
    assert_eq!(desk.ack(1, "A-B"), [""; 0]);
    let gone = format!(r#"{{"id":"2","event":"unsubscribe","arg":{}}}"#, arg("A-B"));
    assert_eq!(desk.told(Input::Text(&gone)), [""; 0]);
    assert_eq!(desk.ack(3, "A-B"), ["acked A-B"]);
    assert_eq!(desk.told(Input::Text(&gone)), ["subscribe 4 A-B"], "this is the exchange's doing");
}

#[test]
fn what_is_left_is_left() {
    let mut desk = Desk::asked(&["A-B", "C-D"]);
    desk.ack(1, "A-B");
    assert_eq!(desk.leave(&["A-B", "X-Y"]), ["unsubscribe 2 A-B"]);
    assert_eq!(desk.push("A-B"), [""; 0]);
    assert_eq!(desk.leave(&["C-D"]), ["unsubscribe 3 C-D"], "it may yet be acknowledged");
    assert_eq!(desk.ack(1, "C-D"), [""; 0]);
    assert_eq!(desk.pass(HOUR), [""; 0]);
}

#[test]
fn a_refused_series_goes_alone_when_the_text_names_it() {
    for id in [Some(1), None] {
        let mut desk = Desk::asked(&["A-B", "C-D"]);
        let told =
            desk.refuse(id, 60018, "Wrong URL or channel:candle1m,instId:C-D doesn't exist.");
        assert!(told[0].starts_with("refused C-D: WebSocketSubscriptionError: 60018: Wrong URL"));
        assert_eq!((told.len(), desk.ack(1, "A-B")), (1, vec!["acked A-B".to_owned()]));
        assert_eq!(desk.pass(HOUR), [""; 0], "it is never asked for again");
    }
}

#[test]
fn a_refused_series_is_found_by_asking_one_by_one() {
    let mut desk = Desk::asked(&["A-B", "C-D", "E-F"]);
    desk.ack(1, "E-F");
    assert_eq!(desk.refuse(Some(1), 60012, "Invalid request"), ["notice 60012"]);
    assert_eq!(desk.pass(DATA_GRACE_MS), ["subscribe 2 A-B", "subscribe 3 C-D"]);
    let refused = "refused A-B: WebSocketSubscriptionError: 60012: Invalid request";
    assert_eq!(desk.refuse(Some(2), 60012, "Invalid request"), [refused]);
    assert_eq!(desk.ack(3, "C-D"), ["acked C-D"]);
    assert_eq!(desk.pass(HOUR), [""; 0]);
}

#[test]
fn refusals_of_nothing_that_is_under_way_change_nothing() {
    let mut desk = Desk::asked(&["A-B"]);
    assert_eq!(desk.refuse(Some(7), 60018, "what?"), ["notice 60018"]);
    assert_eq!(desk.refuse(None, 60018, "channel:candle1m,instId:C-D"), ["notice 60018"]);
    assert_eq!(desk.ack(1, "A-B"), ["acked A-B"]);
    assert_eq!(desk.refuse(Some(1), 60018, "what?"), ["notice 60018"]);
    assert_eq!(desk.session.acked().len(), 1);
}

#[test]
fn what_may_pass_is_asked_for_again_later_each_time() {
    let mut desk = Desk::asked(&["A-B"]);
    let mut pauses = Vec::new();
    for id in 1..u64::from(TRIES_MAX) {
        assert_eq!(desk.refuse(Some(id), 63999, "Internal error"), ["notice 63999"]);
        let before = desk.now;
        while desk.pass(SECOND).is_empty() {}
        pauses.push((desk.now - before) / SECOND);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32]);
    let told = desk.refuse(Some(6), 63999, "Internal error");
    assert_eq!(told[1], "refused A-B: WebSocketSubscriptionError: 63999: Internal error");
}

#[test]
fn too_many_requests_pause_all_and_end_in_fewer() {
    let mut desk = Desk::asked(&["A-B"]);
    desk.want(&["C-D"]);
    assert_eq!(desk.refuse(Some(1), 60014, "Requests too frequent"), ["notice 60014"]);
    assert_eq!(desk.refuse(Some(2), 60014, "Requests too frequent"), ["notice 60014"]);
    assert_eq!(desk.want(&["E-F"]), [""; 0]);
    assert_eq!(desk.pass(2 * PAUSE_MS.0 - 1), [""; 0]);
    assert_eq!(desk.pass(1), ["subscribe 3 A-B C-D E-F"]);
}

#[test]
fn the_rate_is_kept_however_much_is_wanted() {
    let mut desk = Desk::open();
    let mut sent = 0;
    for n in 0..400 {
        let name = format!("C{n}-USDT");
        sent += desk.want(&[&name]).len() + desk.leave(&[&name]).len();
    }
    assert_eq!(sent, REQUESTS_MAX);
    assert_eq!(desk.want(&["A-B", "C-D"]), [""; 0]);
    assert_eq!(desk.pass(HOUR - 1), [""; 0]);
    let id = REQUESTS_MAX + 1;
    assert_eq!(desk.pass(1), [format!("subscribe {id} A-B C-D")]);
}

#[test]
fn the_wrong_path_ends_the_connection_for_good() {
    for code in [60008, 64001, 64002] {
        let mut desk = Desk::asked(&["A-B"]);
        let told = desk.refuse(None, code, "moved");
        assert_eq!(told, [format!("close: WebSocketSubscriptionError: {code}: moved")]);
        assert_eq!(desk.session.deadline(), None);
    }
}

#[test]
fn silence_is_broken_by_a_ping_and_then_deadly() {
    let mut desk = Desk::open();
    desk.now += 20 * SECOND;
    assert_eq!(desk.session.deadline(), Some(desk.now));
    assert_eq!(desk.told(Input::Tick), ["ping"]);
    desk.now += 30 * SECOND - 1;
    assert_eq!(desk.told(Input::Tick), [""; 0]);
    assert_eq!(desk.told(Input::Control), [""; 0], "a control frame is a sign of life as well");
    desk.now += 20 * SECOND;
    assert_eq!(desk.told(Input::Tick), ["ping"]);
    desk.now += 30 * SECOND;
    assert_eq!(desk.session.deadline(), Some(desk.now));
    let silent =
        "close: WebSocketTimeoutError: nothing came for 50s, not even the answer to a ping";
    assert_eq!(desk.told(Input::Tick), [silent]);
    assert_eq!(desk.told(Input::Text("pong")), [""; 0]);
    assert_eq!(desk.want(&["A-B"]), [""; 0]);
}

#[test]
fn a_round_trip_is_measured_even_while_data_flow() {
    let mut desk = Desk::asked(&["A-B"]);
    desk.ack(1, "A-B");
    let mut told = Vec::new();
    for _ in 0..62 {
        desk.now += SECOND;
        told.extend(desk.push("A-B"));
    }
    told.retain(|said| said != "rows A-B 1+0");
    assert_eq!(told, ["ping"]);
    assert_eq!(desk.told(Input::Text("pong")), ["beat 2000"]);
    assert_eq!(desk.told(Input::Text("pong")), [""; 0], "one answer to one question");
}

#[test]
fn garbage_is_counted_and_in_a_row_ends_it() {
    let mut desk = Desk::asked(&["A-B"]);
    desk.ack(1, "A-B");
    for _ in 0..3 {
        for input in [Input::Text("<html>"), Input::Binary, Input::Text("{}"), Input::Text("[")] {
            let told = desk.told(input);
            assert!(told[0].starts_with("garbled: WebSocketDataError: "), "{told:?}");
        }
        assert_eq!(desk.push("A-B"), ["rows A-B 1+0"]);
    }
    let told: Vec<String> = (0..5).flat_map(|_| desk.told(Input::Binary)).collect();
    assert_eq!(
        told[4],
        "close: WebSocketDataError: 5 in a row cannot be read, the last for it is binary"
    );
}

#[test]
fn a_notice_asks_for_the_next_connection() {
    let mut desk = Desk::asked(&["A-B"]);
    let notice = include_str!("../../fixtures/ws_notice.json");
    assert_eq!(desk.told(Input::Text(notice)), ["replace 64008"]);
    let other = r#"{"event":"notice","code":"64999","msg":"hello"}"#;
    assert_eq!(desk.told(Input::Text(other)), ["notice 64999"]);
    assert_eq!(desk.ack(1, "A-B"), ["acked A-B"], "it goes on until the next one stands");
}

#[test]
fn an_end_is_told_with_its_code() {
    for (code, reason, told) in [
        (Some(4004), "No data received in 30s.", "closed with code 4004: No data received in 30s."),
        (None, "connection reset by peer", "connection reset by peer"),
    ] {
        let mut desk = Desk::open();
        let closed = desk.told(Input::Closed { code, reason });
        assert_eq!(closed, [format!("close: WebSocketConnectionError: {told}")]);
    }
}

fn with_login() -> Desk {
    let credentials = Credentials::new("key", "secret", "phrase").unwrap();
    let mut desk = Desk::new(Some(credentials));
    desk.want(&["A-B"]);
    assert_eq!(desk.told(Input::Opened), ["login", "ping"]);
    desk
}

#[test]
fn a_login_comes_first_and_its_failure_is_no_end() {
    let ask = "subscribe 1 A-B".to_owned();
    let refused = |said: &str| format!("login refused: WebSocketAuthenticationError: {said}");
    let good = include_str!("../../fixtures/ws_login.json");
    assert_eq!(with_login().told(Input::Text(good)), ["subscribe 1 A-B"]);
    let bad = include_str!("../../fixtures/ws_login_refused.json");
    let said = refused("60009: Login failed.");
    assert_eq!(with_login().told(Input::Text(bad)), [said, ask.clone()]);
    assert_eq!(
        with_login().refuse(None, 63999, "busy"),
        [refused("63999: busy"), ask.clone()],
        "whatever is refused now is the login"
    );
    let mut desk = with_login();
    assert_eq!(desk.pass(LOGIN_MS), [refused("the login was not answered"), ask]);
    assert_eq!(desk.told(Input::Text(good)), [""; 0]);
    let mut desk = with_login();
    let told = desk.told(Input::Closed { code: Some(4001), reason: "no" });
    assert_eq!(told[0], refused("4001: no"));
    let mut desk = with_login();
    assert_eq!(desk.told(Input::Closed { code: None, reason: "reset" }).len(), 1);
}

/// What may happen, drawn at random.
#[derive(Clone, Debug)]
enum Chance {
    Want(Vec<u8>),
    Leave(Vec<u8>),
    Ack { id: u64, series: u8, known: bool },
    Gone(u8),
    Refuse { id: Option<u64>, code: u32, series: Option<u8> },
    Push(u8),
    Text(String),
    Login(bool),
    Binary,
    Pong,
    Wait(Millis),
    Due,
}

fn any_chance() -> impl Strategy<Value = Chance> {
    let some = || prop::collection::vec(0u8..8, 0..6);
    let id = || 0u64..60;
    let code = prop::sample::select(vec![
        60004, 60008, 60009, 60012, 60014, 60018, 63999, 64001, 64007, 64008, 50011, 1, 4008,
    ]);
    prop_oneof![
        6 => some().prop_map(Chance::Want),
        2 => some().prop_map(Chance::Leave),
        6 => (id(), 0u8..8, any::<bool>())
            .prop_map(|(id, series, known)| Chance::Ack { id, series, known }),
        1 => (0u8..8).prop_map(Chance::Gone),
        6 => (prop::option::of(id()), code, prop::option::of(0u8..8))
            .prop_map(|(id, code, series)| Chance::Refuse { id, code, series }),
        4 => (0u8..8).prop_map(Chance::Push),
        1 => any::<String>().prop_map(Chance::Text),
        2 => wild::json().prop_map(Chance::Text),
        1 => any::<bool>().prop_map(Chance::Login),
        1 => Just(Chance::Binary),
        4 => Just(Chance::Pong),
        4 => (0..40 * SECOND).prop_map(Chance::Wait),
        8 => Just(Chance::Due),
    ]
}

fn name(n: u8) -> String {
    format!("C{n}-USDT")
}

/// Lets one thing happen.
fn happen(desk: &mut Desk, chance: &Chance) -> Vec<String> {
    let names = |some: &[u8]| some.iter().map(|n| minute(&name(*n))).collect::<BTreeSet<_>>();
    match chance {
        Chance::Want(some) => desk.told(Input::Subscribe(names(some))),
        Chance::Leave(some) => desk.told(Input::Unsubscribe(names(some))),
        Chance::Ack { id, series, known: true } => desk.ack(*id, &name(*series)),
        Chance::Ack { series, .. } => {
            let arg = arg(&name(*series));
            desk.told(Input::Text(&format!(r#"{{"event":"subscribe","arg":{arg}}}"#)))
        }
        Chance::Gone(n) => {
            let arg = arg(&name(*n));
            desk.told(Input::Text(&format!(r#"{{"event":"unsubscribe","arg":{arg}}}"#)))
        }
        Chance::Refuse { id, code, series } => {
            let msg = series.map(|n| format!("channel:candle1m,instId:{} no", name(n)));
            desk.refuse(*id, *code, &msg.unwrap_or_default())
        }
        Chance::Push(n) => desk.push(&name(*n)),
        Chance::Text(text) => desk.told(Input::Text(text)),
        Chance::Login(true) => desk.told(Input::Text(r#"{"event":"login","code":"0"}"#)),
        Chance::Login(false) => desk.told(Input::Text(r#"{"event":"login","code":"60009"}"#)),
        Chance::Binary => desk.told(Input::Binary),
        Chance::Pong => desk.told(Input::Text("pong")),
        Chance::Wait(length_ms) => {
            desk.now += length_ms;
            desk.told(Input::Tick)
        }
        Chance::Due => {
            desk.now = desk.session.deadline().unwrap_or(desk.now).max(desk.now);
            desk.told(Input::Tick)
        }
    }
}

proptest! {
    /// Whatever happens in whatever order: the rate holds, time moves on, every series that is
    /// wanted is subscribed, was refused, or has a deadline, and in the end is settled.
    #[test]
    fn whatever_happens_it_stays_sound(
        login: bool,
        chances in prop::collection::vec(any_chance(), 1..120),
    ) {
        let mut desk = Desk::new(
            login.then(|| Credentials::new("key", "secret", "phrase").unwrap()),
        );
        let (mut sent, mut wanted) = (Vec::new(), BTreeSet::new());
        let mut take = |desk: &Desk, told: &[String], wanted: &mut BTreeSet<String>| {
            let spends = |said: &&String| {
                ["subscribe", "unsubscribe", "login"].iter().any(|op| said.starts_with(op))
                    && !said.starts_with("login refused")
            };
            sent.extend(told.iter().filter(spends).map(|_| desk.now));
            for said in told.iter().filter_map(|said| said.strip_prefix("refused ")) {
                wanted.remove(said.split(':').next().unwrap());
            }
            let first = sent.partition_point(|at| *at <= desk.now - HOUR);
            sent.len() - first
        };
        let told = desk.told(Input::Opened);
        take(&desk, &told, &mut wanted);
        for chance in &chances {
            if let Chance::Want(some) = chance {
                wanted.extend(some.iter().map(|n| name(*n)));
            }
            if let Chance::Leave(some) = chance {
                some.iter().for_each(|n| { wanted.remove(&name(*n)); });
            }
            let told = happen(&mut desk, chance);
            prop_assert!(take(&desk, &told, &mut wanted) <= REQUESTS_MAX);
            let Some(due) = desk.session.deadline() else {
                prop_assert!(desk.session.phase == Phase::Ended);
                return Ok(());
            };
            prop_assert!(due > desk.now, "{chance:?} leaves something due at once");
            let known = |name: &str| desk.session.subscriptions.knows(&minute(name));
            prop_assert!(wanted.iter().all(|name| known(name)), "{chance:?} forgets a series");
        }
        // A peer that answers nothing but pings: what is not settled by now is given up in time.
        desk.told(Input::Text("pong"));
        let told = desk.pass(2 * HOUR);
        prop_assert!(take(&desk, &told, &mut wanted) <= REQUESTS_MAX);
        prop_assert!(desk.session.subscriptions.are_settled());
        prop_assert!(desk.session.effects.is_empty());
        prop_assert_eq!(desk.session.acked().len(), wanted.len());
    }
}
