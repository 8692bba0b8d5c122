//! Whatever happens to the connections, the reports agree with what is there.

use proptest::prelude::*;

use super::*;

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
