//! Everything that goes wrong between the exchange and a running daemon.

use std::env;
use std::time::Duration;

use okx_local_store::backoff::Random;

use crate::exchange::{Endpoint, Exchange, Fault, Listed, Script, StreamFault, Strike};
use crate::live::{Live, START, Truth, home, is_streamed, market};
use crate::process::Home;

/// After a fault everything streams again so soon.
const RECOVERY: Duration = Duration::from_secs(15);
/// How long a fault lasts that does not end by itself.
const LASTING_MS: u64 = 700;

/// Lets each fault strike a daemon that streams, one after the other.
fn survive(faults: &[StreamFault]) {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1m 5m", 1).instrument("ETH-USDT", "1m", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    for fault in faults {
        let (struck, end) = (exchange.stats().struck().len(), exchange.now() + LASTING_MS as i64);
        exchange.strike(Strike::new(*fault).lasting(LASTING_MS));
        live.wait(&format!("{fault:?} to end"), |_| {
            exchange.stats().struck().len() > struck && exchange.now() > end
        });
        live.wait_within(RECOVERY, &format!("pushes after {fault:?}"), {
            let pushes = exchange.pushes();
            let exchange = &exchange;
            move |_| exchange.pushes() > pushes
        });
        live.streams_within(RECOVERY, &format!("after {fault:?}"));
    }
    live.comes_to(&Truth::of(&exchange, &home), "after all faults");
    live.stop("TERM");
}

#[test]
fn one_half_of_the_faults_of_the_stream_are_survived() {
    let all = StreamFault::passing();
    survive(&all[..all.len() / 2]);
}

#[test]
fn so_are_the_others() {
    let all = StreamFault::passing();
    survive(&all[all.len() / 2..]);
}

#[test]
fn bars_whose_closing_pushes_are_spoilt_are_whole_all_the_same() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let home = home(&exchange).instrument("BTC-USDT", "1s 1m", 1).instrument("ETH-USDT", "1s", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    for fault in [
        StreamFault::Duplicates,
        StreamFault::OutOfOrder,
        StreamFault::LateConfirms(2_500),
        StreamFault::NoConfirms,
    ] {
        let end = exchange.now() + 3_000;
        exchange.strike(Strike::new(fault).lasting(3_000));
        live.wait(&format!("{fault:?} to end"), |_| exchange.now() > end);
    }
    live.comes_to(&Truth::of(&exchange, &home), "after all of them");
    live.streams("after all");
    live.stop("TERM");
}

/// Each fault of REST that does not tell a lie.
fn rest_faults() -> Vec<Fault> {
    let mut faults = Fault::failures();
    faults.extend(Fault::oddities());
    faults.extend([
        Fault::Stall(1_500),
        Fault::Oversized(64 << 20),
        Fault::Redirect("https://example.com/".to_owned()),
        Fault::Html(429),
        Fault::Raw {
            status: 200,
            headers: vec![("content-encoding".to_owned(), "gzip".to_owned())],
            body: b"this is no gzip".to_vec(),
        },
    ]);
    faults
}

#[test]
fn every_fault_of_rest_is_survived_by_polled_and_streamed_alike() {
    let exchange = market(&["BTC-USDT", "ETH-USDT"]).start();
    let mut home = home(&exchange).instrument("BTC-USDT", "1m", 1);
    let polled = r#""timeframes": ["1m", "5m"], "max_history_days": 1,
        "realtime_source": "polling", "sync_interval_seconds": 1"#;
    home.list("ETH-USDT", polled);
    home.wanted.push((crate::mirror::series("ETH-USDT", "1m"), 1));
    let mut live = Live::start(&home);
    live.wait("both", |seen| {
        let modes: Vec<&str> = seen.instruments.iter().map(|view| view.mode.as_str()).collect();
        modes == ["stream", "poll"]
    });
    for fault in rest_faults() {
        let before = exchange.requests().len();
        exchange.set_faults(vec![Script::next(1, fault.clone())]);
        live.wait(&format!("a good answer after {fault:?}"), |_| {
            let requests = exchange.requests();
            let mut since = requests[before..].iter().skip_while(|it| it.fault.is_none());
            since.any(|it| it.fault.is_none() && it.status == 200)
        });
    }
    let seen = live.wait("no more trouble", |seen| is_streamed(&seen.instruments[0]));
    assert_eq!((seen.stream.reconnects, seen.stream.errors), (0, 0), "{seen:?}");
    live.comes_to(&Truth::of(&exchange, &home), "after all faults");
    live.stop("TERM");
}

/// The longest part of a storm, after which it is judged.
const PART_S: u64 = 300;
/// What a daemon may need of memory, however long it blows. In ten minutes it was 62 MB: answers
/// and frames are as long as they may be, and the allocator keeps what each thread has let go.
const MEMORY_KB: u64 = 128 << 10;

/// The instruments of the storm; the first one comes while it blows.
const SYMBOLS: [&str; 20] = [
    "BTC-USDT",
    "ETH-USDT",
    "SOL-USDT",
    "XRP-USDT",
    "DOGE-USDT",
    "SHIB-USDT",
    "PEPE-USDT",
    "LTC-USDT",
    "ADA-USDT",
    "DOT-USDT",
    "UNI-USDT",
    "BCH-USDT",
    "TRX-USDT",
    "TON-USDT",
    "AVAX-USDT",
    "LINK-USDT",
    "BTC-USDT-SWAP",
    "ETH-USDT-SWAP",
    "BTC-USD-SWAP",
    "NEAR-USDT",
];

/// Every fourth has bars of a second, and is so young that they are a few pages.
fn bars_of(n: usize) -> (&'static str, Listed) {
    if n.is_multiple_of(4) {
        ("1s 1m 3m 1H", Listed::At(START - 5 * 60_000))
    } else {
        ("1m 3m 5m 1H", Listed::days(3))
    }
}

/// A number from the environment, by which `make` asks for more than `make test` does.
pub fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Puts a list in an order that chance decides.
fn shuffle<T>(list: &mut [T], random: &mut Random) {
    for n in (1..list.len()).rev() {
        list.swap(n, random.below(n as u64 + 1) as usize);
    }
}

/// What strikes the stream in so many ms, and until when: every fault at least once. Those first
/// after which the exchange will not have all series for long, which the next connections and a
/// changed configuration end.
fn strikes(length_ms: u64, random: &mut Random) -> Vec<Strike> {
    let passing = StreamFault::passing();
    let mut all = StreamFault::all();
    all.retain(|fault| !passing.contains(fault));
    shuffle(&mut all, random);
    let count = (all.len() + passing.len()).max((length_ms / 2_500) as usize);
    while all.len() < count {
        let mut more = passing.clone();
        shuffle(&mut more, random);
        all.extend(more);
    }
    all.truncate(count);
    let every_ms = length_ms / count as u64;
    let strike = |(n, fault): (usize, StreamFault)| {
        let lasting_ms = every_ms / 2 + random.below(every_ms);
        Strike::new(fault).after(n as u64 * every_ms).lasting(lasting_ms)
    };
    all.into_iter().enumerate().map(strike).collect()
}

/// Twenty instruments of four bars, each fault at least once, and nothing is missing in the end. A
/// long storm has several parts, each of which is judged.
#[test]
fn the_storm() {
    let (seconds, seed) = (number("OKX_STORE_STORM_S", 60), number("OKX_STORE_SEED", 1));
    eprintln!("the storm; to repeat: make soak SOAK_S={seconds} SEED={seed}");
    let mut random = Random::new(seed);
    let builder = Exchange::builder().clock(START).push_ms(500).seed(seed);
    let exchange = (0..SYMBOLS.len())
        .fold(builder, |builder, n| builder.synthetic(SYMBOLS[n], bars_of(n).1))
        .start();
    let mut home = (1..SYMBOLS.len())
        .fold(home(&exchange), |home, n| home.instrument(SYMBOLS[n], bars_of(n).0, 1));
    let mut live = Live::start(&home);
    let parts = seconds.div_ceil(PART_S);
    for part in 1..=parts {
        home = blow(&exchange, home, &mut live, seconds * 1_000 / parts, &mut random);
        calm_down(&exchange, &home, &mut live);
        let peak_kb = live.peak_kb();
        eprintln!("part {part} of {parts} is survived, with {peak_kb} kB of memory at most");
        assert!(peak_kb < MEMORY_KB, "{peak_kb} kB");
    }
    live.stop("TERM");
    for symbol in SYMBOLS {
        crate::crash::assert_file_sound(&home.open(symbol));
    }
}

/// Ends a storm. Then everything streams again, and the store has what the exchange has.
fn calm_down(exchange: &Exchange, home: &Home, live: &mut Live) {
    let ended = exchange.now();
    exchange.set_faults(Vec::new());
    exchange.heal();
    let seen = live.streams_within(RECOVERY, "after the storm");
    assert_eq!(seen.instruments.len(), SYMBOLS.len());
    eprintln!("everything streams again after {} ms", exchange.now() - ended);
    live.comes_to(&Truth::of(exchange, home), "after the storm");
    assert_each_struck(exchange);
}

/// Lets a storm blow, in the midst of which the first instrument comes, or comes again.
fn blow(
    exchange: &Exchange,
    mut home: Home,
    live: &mut Live,
    length_ms: u64,
    random: &mut Random,
) -> Home {
    home.unlist(SYMBOLS[0]);
    home.wanted.retain(|(series, _)| series.instrument.as_str() != SYMBOLS[0]);
    live.wait("the others alone", |seen| seen.instruments.len() == SYMBOLS.len() - 1);
    let mut faults = rest_faults();
    shuffle(&mut faults, random);
    let newest = Script::next(1, Fault::EmptyPage).on(Endpoint::Candles);
    let newest = newest.matching(|ask| ask.after.is_none() && ask.before.is_none());
    exchange.set_faults(vec![newest, Script::every(4, faults)]);
    let start = exchange.now();
    let half_time = start + length_ms as i64 / 2;
    for strike in strikes(length_ms, random) {
        exchange.strike(strike);
    }
    let within = Duration::from_millis(length_ms) + Duration::from_secs(60);
    live.wait_within(within, "half of the storm", |_| exchange.now() > half_time);
    let home = home.instrument(SYMBOLS[0], bars_of(0).0, 1);
    let end = start + length_ms as i64;
    live.wait_within(within, "the end of the storm", |_| exchange.now() > end);
    home
}

/// Fails unless the storm had everything in it.
fn assert_each_struck(exchange: &Exchange) {
    let struck: Vec<StreamFault> =
        exchange.stats().struck().iter().map(|(_, fault)| *fault).collect();
    for fault in StreamFault::all() {
        assert!(struck.contains(&fault), "{fault:?} is not among the strikes");
    }
    let requests = exchange.requests();
    for fault in rest_faults() {
        let found = requests.iter().any(|request| request.fault.as_ref() == Some(&fault));
        assert!(found, "{fault:?} has struck no request of {}", requests.len());
    }
}
