//! The stream's thread against the fixture exchange: what is pushed arrives, and whatever breaks
//! is whole again soon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use okx_local_store::backoff::Random;
use okx_local_store::breaker::{self, State};
use okx_local_store::candle::Candle;
use okx_local_store::instrument::Series;
use okx_local_store::link::{Link, Settings};
use okx_local_store::okx::Credentials;
use okx_local_store::okx::stream::STREAM_PATH;
use okx_local_store::session;
use okx_local_store::socket::SocketOptions;
use okx_local_store::store::order::Order as Storing;
use okx_local_store::stream::{Health, NAME, Order, Report, Stream};
use okx_local_store::thread::{self, End, Exit};
use okx_local_store::time::Clock;

use crate::exchange::{Builder, Exchange, Garbage, Listed, Party, Refuse, StreamFault, Strike};
use crate::mirror::series;

/// Longer than anything here takes, and short enough for a test that hangs to be told of.
const LONG: Duration = Duration::from_secs(60);
/// An exchange's minute is a second here.
const SPEED: f64 = 60.0;

fn market() -> Builder {
    Exchange::builder()
        .synthetic("BTC-USDT", Listed::days(3))
        .synthetic("ETH-USDT", Listed::days(3))
        .speed(SPEED)
        .push_ms(100)
}

/// Four series, of which two have a bar each second.
fn four() -> BTreeSet<Series> {
    let names = [("BTC-USDT", "1m"), ("BTC-USDT", "1H"), ("ETH-USDT", "1m"), ("ETH-USDT", "1H")];
    names.into_iter().map(|(instrument, bar)| series(instrument, bar)).collect()
}

/// Pauses short enough for a test.
fn settings() -> Settings {
    Settings {
        session: session::Settings {
            credentials: None,
            ping_interval_ms: 1_000,
            heartbeat_interval_ms: 3_000,
        },
        breaker: breaker::Settings {
            failure_threshold: 5,
            max_reconnect_attempts: 3,
            recovery_timeout_ms: 500,
            reconnect_delay_base_ms: 50,
            reconnect_delay_max_ms: 200,
        },
        max_connection_age_ms: 3_600_000,
    }
}

/// A running stream, and what it has told so far.
struct Desk {
    orders: Sender<Order>,
    rows: Receiver<Storing>,
    reports: Receiver<Report>,
    exits: Receiver<Exit>,
    /// The last state of each bar.
    bars: BTreeMap<(Series, i64), Candle>,
    pushes: usize,
    acked: BTreeSet<Series>,
    refused: BTreeMap<Series, String>,
    ups: usize,
    downs: Vec<String>,
    health: Health,
}

impl Desk {
    fn start(url: &str, ca_file: Option<&Path>, settings: Settings, room: usize) -> Desk {
        let options = SocketOptions::new(&format!("{url}{STREAM_PATH}"), ca_file, 20_000).unwrap();
        let (order, orders) = bounded(8);
        let (row, rows) = bounded(room);
        let (report, reports) = bounded(256);
        let (exit, exits) = bounded(2);
        let stream = Stream {
            options,
            link: Link::new(settings, Random::new(1)),
            clock: Arc::new(Clock::start(0)),
            orders,
            rows: row,
            reports: report,
            exits: exit.clone(),
        };
        thread::spawn(NAME, &exit, move || stream.run()).unwrap();
        Desk {
            orders: order,
            rows,
            reports,
            exits,
            bars: BTreeMap::new(),
            pushes: 0,
            acked: BTreeSet::new(),
            refused: BTreeMap::new(),
            ups: 0,
            downs: Vec::new(),
            health: Health::default(),
        }
    }

    fn of(exchange: &Exchange, settings: Settings) -> Desk {
        Desk::start(&exchange.ws_url(), None, settings, 64)
    }

    /// One that streams all four series.
    fn streaming(exchange: &Exchange, settings: Settings) -> Desk {
        let mut desk = Desk::of(exchange, settings);
        desk.order(Order::Want(four()));
        desk.wait("the first rows of all series", Desk::streams);
        desk
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
    }

    /// Whether all series are acked, and each has had rows.
    fn streams(&self) -> bool {
        let seen: BTreeSet<&Series> = self.bars.keys().map(|(series, _)| series).collect();
        self.acked == four() && seen.len() == 4
    }

    fn hear_row(&mut self, order: Storing) {
        let Storing::Push(push) = order else { panic!("the stream pushes, and nothing else") };
        self.pushes += 1;
        for row in push.rows {
            let state = self.bars.entry((push.series.clone(), row.ts)).or_insert(row);
            if !state.confirmed {
                *state = row;
            }
        }
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Up => self.ups += 1,
            Report::Acked(series) => {
                self.refused.remove(&series);
                assert!(self.acked.insert(series));
            }
            Report::Refused { series, cause } => {
                self.acked.remove(&series);
                self.refused.insert(series, cause);
            }
            Report::Lost { series, .. } => assert!(self.acked.remove(&series)),
            Report::Down { cause } => {
                self.acked.clear();
                self.downs.push(cause);
                assert_eq!(self.ups, self.downs.len());
            }
            Report::Health(health) => self.health = health,
        }
    }

    /// Hears until `holds`, and fails with `what` if that takes too long.
    fn wait(&mut self, what: &str, mut holds: impl FnMut(&Desk) -> bool) {
        let until = Instant::now() + LONG;
        while !holds(self) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited for {what}: acked {:?}, ups {}, downs {:?}, {:?}",
                self.acked,
                self.ups,
                self.downs,
                self.health,
            );
            // What is waited for may be the exchange's, of which no channel tells.
            let wait = left.min(Duration::from_millis(50));
            let (rows, reports) = (self.rows.clone(), self.reports.clone());
            select! {
                recv(rows) -> row => self.hear_row(row.unwrap()),
                recv(reports) -> report => self.hear(report.unwrap()),
                default(wait) => {}
            }
        }
    }

    fn confirmed(&self, series: &Series) -> BTreeSet<i64> {
        let bars = self.bars.iter().filter(|((of, _), row)| of == series && row.confirmed);
        bars.map(|((_, ts), _)| *ts).collect()
    }

    /// Waits until each bar that was closed over any connection has arrived, and compares.
    fn compare(&mut self, exchange: &Exchange, series: &Series) {
        let (instrument, bar) = (series.instrument.as_str(), series.bar.name());
        let pushed: BTreeSet<i64> =
            exchange.confirmed_pushed(instrument, bar).into_iter().collect();
        self.wait("each closed bar", |desk| pushed.is_subset(&desk.confirmed(series)));
        let (first, last) = (*pushed.first().unwrap(), *pushed.last().unwrap());
        let truth = exchange.truth(instrument, bar, first, last + 1);
        assert_eq!(truth.len(), pushed.len(), "{series}: no closed bar was left out");
        for row in truth {
            let bar = &self.bars[&(series.clone(), row.ts)];
            assert_eq!((bar.open, bar.close, bar.volume), (row.o, row.c, row.vol), "{series}");
        }
    }

    /// Waits for so many more connections, with everything streaming again.
    fn recovers(&mut self, name: &str, downs: usize) {
        self.wait(name, |desk| desk.downs.len() >= downs && desk.acked == four());
        let pushes = self.pushes;
        self.wait(name, |desk| desk.pushes > pushes);
    }

    /// Stops it and waits for its end; channels are not heard any more meanwhile.
    fn stop(self) -> Exit {
        self.order(Order::Stop);
        self.exits.recv_timeout(LONG / 4).expect("because it ends soon after it is told to")
    }
}

fn ended() -> Exit {
    Exit { name: NAME.to_owned(), end: End::Done }
}

#[test]
fn what_is_pushed_arrives_and_a_stop_says_good_bye() {
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, settings());
    desk.wait("three closed bars", |desk| {
        four().iter().filter(|of| of.bar.name() == "1m").all(|of| desk.confirmed(of).len() > 2)
    });
    for series in four().iter().filter(|series| series.bar.name() == "1m") {
        desk.compare(&exchange, series);
    }
    desk.wait("its health", |desk| desk.health.frames_24h > 20 && desk.health.rtt_ms.is_some());
    let health = &desk.health;
    assert!(health.connected && health.connected_since.is_some() && health.last_heard.is_some());
    assert_eq!((health.subscriptions, health.wanted, health.reconnects_24h), (4, 4, 0));
    assert_eq!((health.breaker, health.failures, health.errors_24h), (State::Closed, 0, 0));
    assert_eq!((desk.ups, desk.downs.len()), (1, 0));

    desk.order(Order::Want(BTreeSet::from([series("BTC-USDT", "1m")])));
    desk.wait("the others to be left", |_| exchange.stats().subscriptions().len() == 1);
    desk.order(Order::Want(BTreeSet::new()));
    desk.wait("the end of the connection", |desk| desk.downs.len() == 1);
    desk.wait("nobody to be connected", |_| exchange.stats().open() == 0);
    desk.order(Order::Want(four()));
    desk.wait("all series", |desk| desk.acked == four());
    assert_eq!(desk.stop(), ended());
    exchange.wait_for(|stats| stats.open() == 0, LONG, "the good-bye");
    let closed = exchange.stats().last_closed().unwrap();
    assert_eq!((closed.by, closed.code), (Party::Client, Some(1000)));
}

#[test]
fn a_connection_that_ends_in_any_way_is_soon_back() {
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, settings());
    let codes = [1001, 1006, 1009, 4004, 4005, 4006, 4321].map(StreamFault::Close);
    let faults = [StreamFault::Drop, StreamFault::Reset].into_iter().chain(codes);
    for (n, fault) in faults.enumerate() {
        exchange.strike(fault);
        desk.recovers(&format!("all series after {fault:?}"), n + 1);
        let cause = &desk.downs[n];
        assert!(cause.starts_with("WebSocketConnectionError: "), "{fault:?}: {cause}");
        if let StreamFault::Close(code) = fault
            && code != 1006
        {
            assert!(cause.contains(&format!("code {code}")), "{fault:?}: {cause}");
        }
    }
    assert_eq!(desk.stop(), ended());
}

#[test]
fn whoever_falls_silent_is_left() {
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, settings());
    for (n, fault) in [StreamFault::Silence, StreamFault::HalfOpen].into_iter().enumerate() {
        exchange.strike(Strike::new(fault).on_present());
        desk.recovers(&format!("all series after {fault:?}"), n + 1);
        let cause = &desk.downs[n];
        assert!(cause.starts_with("WebSocketTimeoutError: nothing came"), "{fault:?}: {cause}");
        exchange.heal();
    }
    assert_eq!(desk.stop(), ended());
}

#[test]
fn pings_that_nobody_answers_are_no_matter_while_data_come() {
    let exchange = market().start();
    exchange.strike(StreamFault::DeafToPings);
    let mut desk = Desk::streaming(&exchange, settings());
    let pushes = desk.pushes;
    desk.wait("many pushes", |desk| desk.pushes > pushes + 100);
    assert_eq!((desk.ups, desk.downs.len()), (1, 0));
    assert_eq!(desk.stop(), ended());
}

#[test]
fn no_row_is_lost_when_a_notice_or_old_age_replaces_the_connection() {
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, settings());
    for connections in 2..=3 {
        exchange.strike(StreamFault::Notice { close_after_ms: 20_000 });
        desk.wait("the next connection alone", |_| {
            let stats = exchange.stats();
            stats.upgraded() == connections && stats.open() == 1
        });
    }
    for series in four().iter().filter(|series| series.bar.name() == "1m") {
        desk.compare(&exchange, series);
    }
    assert_eq!((desk.ups, desk.downs.len(), desk.acked.len()), (1, 0, 4));
    assert_eq!(desk.stop(), ended());

    let young = Settings { max_connection_age_ms: 1_500, ..settings() };
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, young);
    desk.wait("three reconnects", |desk| desk.health.reconnects_24h >= 3);
    for series in four().iter().filter(|series| series.bar.name() == "1m") {
        desk.compare(&exchange, series);
    }
    assert_eq!((desk.ups, desk.downs.len(), desk.acked.len()), (1, 0, 4));
    assert_eq!(desk.stop(), ended());
}

#[test]
fn garbage_is_passed_over_or_ends_the_connection_but_never_the_stream() {
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, settings());
    let garbage = Garbage::ALL.map(StreamFault::Garbage);
    let large = [StreamFault::Oversized(8 << 20), StreamFault::Announced(1 << 30)];
    for fault in garbage.into_iter().chain(large) {
        let downs = desk.downs.len();
        exchange.strike(fault);
        let ends = match fault {
            StreamFault::Garbage(garbage) => garbage == Garbage::InvalidUtf8,
            _ => true,
        };
        desk.recovers(&format!("all series after {fault:?}"), downs + usize::from(ends));
        assert_eq!(desk.downs.len(), downs + usize::from(ends), "{fault:?}: {:?}", desk.downs);
        if ends {
            let cause = &desk.downs[downs];
            assert!(cause.starts_with("WebSocketDataError: "), "{fault:?}: {cause}");
        }
    }
    assert_eq!(desk.stop(), ended());
}

#[test]
fn a_refused_connection_opens_the_breaker_which_closes_with_the_first_data() {
    for refuse in [Refuse::Reset, Refuse::Http(403), Refuse::Http(429), Refuse::Http(503)] {
        let exchange = market().start();
        exchange.strike(StreamFault::Refuse(refuse));
        let mut desk = Desk::of(&exchange, settings());
        desk.order(Order::Want(four()));
        desk.wait("an open breaker", |desk| desk.health.breaker == State::Open);
        assert!(desk.health.failures >= 3 && desk.health.retry_at.is_some(), "{:?}", desk.health);
        let (_, error) = desk.health.last_error.clone().unwrap();
        assert!(error.starts_with("WebSocketConnectionError: "), "{refuse:?}: {error}");
        exchange.heal();
        desk.wait("all series", Desk::streams);
        desk.wait("a closed breaker", |desk| desk.health.breaker == State::Closed);
        assert_eq!((desk.ups, desk.downs.len()), (1, 0), "{refuse:?}");
        assert_eq!(desk.stop(), ended());
    }
}

#[test]
fn an_exchange_that_is_gone_and_comes_back_is_found_again() {
    let exchange = market().start();
    let mut desk = Desk::streaming(&exchange, settings());
    exchange.stop();
    desk.wait("an open breaker", |desk| desk.health.breaker == State::Open);
    assert_eq!(desk.downs.len(), 1);
    exchange.resume();
    desk.recovers("all series", 1);
    assert_eq!(desk.stop(), ended());
}

#[test]
fn what_does_not_fit_on_a_connection_is_refused_and_the_rest_streams() {
    for code in [4008, 4009] {
        let exchange = market().start();
        exchange.strike(StreamFault::ChannelLimit { most: 3, code });
        let mut desk = Desk::of(&exchange, settings());
        desk.order(Order::Want(four()));
        desk.wait("three series and a refusal", |desk| {
            desk.acked.len() == 3 && desk.refused.len() == 1 && desk.health.subscriptions == 3
        });
        let pushes = desk.pushes;
        desk.wait("rows", |desk| desk.pushes > pushes + 20);
        let cause = desk.refused.values().next().unwrap();
        assert!(cause.contains("no more series than 3"), "{cause}");
        assert_eq!(exchange.stats().upgraded(), 3, "it does not go on trying");
        assert_eq!(desk.stop(), ended());
    }
}

#[test]
fn a_refused_series_leaves_the_others_alone() {
    let exchange = market().start();
    exchange.strike(Strike::new(StreamFault::RefuseSeries).only("ETH-USDT", "1m"));
    let mut desk = Desk::of(&exchange, settings());
    desk.order(Order::Want(four()));
    desk.wait("three series and a refusal", |desk| {
        desk.acked.len() == 3 && desk.refused.len() == 1
    });
    let eth = series("ETH-USDT", "1m");
    assert!(desk.refused[&eth].starts_with("WebSocketSubscriptionError: 60018"));
    exchange.heal();
    desk.order(Order::Renew(BTreeSet::from([eth])));
    desk.wait("all series", |desk| desk.acked == four());
    assert_eq!((desk.ups, desk.downs.len()), (1, 0));
    assert_eq!(desk.stop(), ended());
}

#[test]
fn lost_late_and_overtaken_acknowledgements_do_no_harm() {
    for fault in [StreamFault::LostAcks, StreamFault::LateAcks(700), StreamFault::DataFirst] {
        let exchange = market().start();
        exchange.strike(fault);
        let mut desk = Desk::streaming(&exchange, settings());
        assert_eq!((desk.ups, desk.downs.len()), (1, 0), "{fault:?}");
        desk.order(Order::Reconnect("the machine slept".to_owned()));
        desk.recovers(&format!("all series after {fault:?}"), 1);
        assert_eq!(desk.downs, ["the machine slept"]);
        assert_eq!(desk.stop(), ended());
    }
}

#[test]
fn a_refused_login_is_told_and_does_not_keep_candles_away() {
    let exchange = market().credentials("key", "secret", "passphrase").start();
    for (passphrase, refused) in [("passphrase", false), ("another", true)] {
        let credentials = Credentials::new("key", "secret", passphrase).unwrap();
        let session = session::Settings { credentials: Some(credentials), ..settings().session };
        let mut desk = Desk::of(&exchange, Settings { session, ..settings() });
        // A login is signed with the exchange's time.
        exchange.set_now(okx_local_store::time::wall_now());
        desk.order(Order::Want(four()));
        desk.wait("all series", Desk::streams);
        desk.wait("its health", |desk| desk.health.subscriptions == 4);
        assert_eq!(desk.health.login.is_some(), refused, "{:?}", desk.health.login);
        assert!(desk.health.login.iter().all(|told| told.contains("OKX_PASSPHRASE")));
        assert_eq!(desk.stop(), ended());
    }
}

#[test]
fn tls_is_trusted_by_its_roots_alone() {
    let exchange = market().tls().start();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, exchange.ca_pem()).unwrap();
    let mut desk = Desk::start(&exchange.ws_url(), Some(&ca_file), settings(), 64);
    desk.order(Order::Want(four()));
    desk.wait("all series", Desk::streams);
    exchange.strike(StreamFault::Drop);
    desk.recovers("all series", 1);
    assert_eq!(desk.stop(), ended());

    let mut desk = Desk::start(&exchange.ws_url(), None, settings(), 64);
    desk.order(Order::Want(four()));
    desk.wait("an open breaker", |desk| desk.health.breaker == State::Open);
    let (_, error) = desk.health.last_error.clone().unwrap();
    assert!(error.contains("tls") && error.contains("certificate"), "{error}");
    assert_eq!(desk.ups, 0);
    assert_eq!(desk.stop(), ended());
}

#[test]
fn a_writer_without_room_loses_running_states_alone_and_delays_no_stop() {
    let exchange = market().start();
    let mut desk = Desk::start(&exchange.ws_url(), None, settings(), 1);
    desk.order(Order::Want(four()));
    let minutes = |stats: &crate::exchange::Stats| stats.confirmed_pushed("BTC-USDT", "1m").len();
    exchange.wait_for(|stats| minutes(stats) > 4, LONG, "some closed bars while nobody reads");
    let sent = exchange.pushes();
    for series in four().iter().filter(|series| series.bar.name() == "1m") {
        desk.compare(&exchange, series);
    }
    assert!((desk.pushes as u64) < sent + 200, "{} of {sent}", desk.pushes);
    exchange.wait_for(|stats| minutes(stats) > 8, LONG, "closed bars that nobody reads");
    assert_eq!(desk.stop(), ended());
}

#[test]
fn a_stop_is_obeyed_while_nobody_answers() {
    // Its queue takes the connection, and nobody ever reads from it.
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", hole.local_addr().unwrap());
    let mut desk = Desk::start(&url, None, settings(), 64);
    desk.order(Order::Want(four()));
    desk.wait("the attempt", |desk| desk.health.wanted == 4);
    assert_eq!(desk.stop(), ended());
}

#[test]
fn it_ends_when_nobody_orders_or_hears_any_more() {
    let exchange = market().start();
    let desk = Desk::streaming(&exchange, settings());
    let Desk { orders, exits, .. } = desk;
    drop(orders);
    assert_eq!(exits.recv_timeout(LONG).unwrap(), ended());
    let desk = Desk::streaming(&exchange, settings());
    let Desk { rows, reports, exits, orders, .. } = desk;
    drop((rows, reports));
    assert_eq!(exits.recv_timeout(LONG).unwrap(), ended());
    drop(orders);
    exchange.wait_for(|stats| stats.open() == 0, LONG, "nobody to be connected");
}

#[test]
fn after_any_storm_everything_streams_again_and_no_rule_was_broken() {
    let exchange = market().strikes(Strike::chaos(7, 500, 400, 40)).start();
    let mut desk = Desk::of(&exchange, settings());
    desk.order(Order::Want(four()));
    let struck = |exchange: &Exchange| exchange.stats().struck().len();
    desk.wait("the end of the storm", |_| struck(&exchange) == 40);
    exchange.heal();
    let downs = desk.downs.len();
    desk.recovers("all series", downs);
    desk.wait("a closed breaker", |desk| desk.health.breaker == State::Closed);
    assert_eq!(desk.stop(), ended());
}
