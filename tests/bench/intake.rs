//! The stream at full speed: frames through socket, session, merge and writer, beside a loop that
//! reads the same frames off the same kind of socket and does nothing with them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use okx_local_store::backoff::Random;
use okx_local_store::candle::Candle;
use okx_local_store::instrument::Series;
use okx_local_store::link::{Link, Order, Settings};
use okx_local_store::okx::stream::STREAM_PATH;
use okx_local_store::socket::SocketOptions;
use okx_local_store::stream::Stream;
use okx_local_store::time::{Clock, MINUTE, wall_now};
use okx_local_store::writer::Receipt;
use okx_local_store::{breaker, session};
use tungstenite::{Message, WebSocket};

use crate::candles::minutes;
use crate::measure::{Pair, by_turns};
use crate::table::{Line, Target};
use crate::wire::push;
use crate::yard::{Yard, series, writer};

const FRAMES: usize = 200_000;
/// Frames of one write where they are sent in bulk, so that the sender holds nobody back: a remark,
/// as no exchange sends so, and to decode a push takes longer than the loop takes to read three.
/// One by one, as they come from an exchange, whoever reads faster than they come waits for each.
const BULK: usize = 200;
const INSTRUMENTS: usize = 20;
const BARS: [&str; 4] = ["1m", "5m", "1H", "1D"];

pub fn intake(yard: &Yard) -> Result<Vec<Line>, String> {
    let wanted: BTreeSet<Series> = (0..INSTRUMENTS)
        .flat_map(|n| BARS.map(|bar| series(&format!("C{n:02}-USDT"), bar)))
        .collect();
    let frames = frames(&wanted);
    let bulk: Vec<Vec<u8>> = frames.chunks(BULK).map(<[Vec<u8>]>::concat).collect();
    let [single, bulk] = [&frames, &bulk].map(|frames| {
        by_turns(7, || through_the_store(yard, &wanted, frames), || through_a_bare_loop(frames))
    });
    let rates = |pair: &Pair| {
        let (ours, bare) = (pair.subject.rate(FRAMES), pair.reference.rate(FRAMES));
        format!("{ours:.0} frames/s; the loop {bare:.0} frames/s")
    };
    let remark = format!(
        "{}\n{single}\nsent in bulk, {:.3}: {}",
        rates(&single),
        bulk.rate_ratio(),
        rates(&bulk)
    );
    let what = "stream intake, sent one by one: a bare tungstenite read loop";
    Ok(vec![Line::new(what, single.rate_ratio(), Target::AtLeast(0.6), remark)])
}

/// The frames as they stand on the wire: running bars of all series by turns, and as the very last
/// a closed one.
fn frames(wanted: &BTreeSet<Series>) -> Vec<Vec<u8>> {
    let now = wall_now();
    let last = FRAMES - 1;
    let series = wanted.iter().cycle();
    let frame = |(n, (candle, series)): (usize, (Candle, &Series))| {
        let ts = series.bar.grid().floor(now) - if n == last { MINUTE } else { 0 };
        let ts = series.bar.grid().floor(ts);
        let candle = Candle { ts, volume: n as f64, confirmed: n == last, ..candle };
        let text = push(series.instrument.as_str(), series.bar.name(), &candle);
        let length = u16::try_from(text.len()).expect("because a push is short").to_be_bytes();
        [&[0x81, 126, length[0], length[1]], text.as_bytes()].concat()
    };
    minutes(FRAMES).zip(series).enumerate().map(frame).collect()
}

/// Serves one client: acknowledges so many series, then sends all frames, a write for each piece.
/// Gives the moment at which it began with them, and the connection: who
/// closes it with something unread takes from the client what that has not read.
fn serve(
    listener: &TcpListener,
    series: usize,
    frames: &[Vec<u8>],
) -> (Instant, WebSocket<TcpStream>) {
    let (tcp, _) = listener.accept().unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut socket = tungstenite::accept(tcp).unwrap();
    let mut acked = 0;
    while acked < series {
        let heard = socket.read().unwrap();
        if heard.to_text().unwrap() == "ping" {
            socket.send(Message::text("pong")).unwrap();
            continue;
        }
        let request: serde_json::Value = serde_json::from_slice(&heard.into_data()).unwrap();
        for arg in request["args"].as_array().unwrap() {
            let id = &request["id"];
            let ack = serde_json::json!({ "id": id, "event": "subscribe", "arg": arg });
            socket.send(Message::text(ack.to_string())).unwrap();
            acked += 1;
        }
    }
    let begun = Instant::now();
    for frame in frames {
        socket.get_mut().write_all(frame).expect("because the client reads to the end");
    }
    (begun, socket)
}

/// From the first frame that is sent to the receipt of the last, which closes a bar.
fn through_the_store(yard: &Yard, wanted: &BTreeSet<Series>, frames: &[Vec<u8>]) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}{STREAM_PATH}", listener.local_addr().unwrap());
    let clock = Arc::new(Clock::start(0));
    let (orders, to_obey) = bounded(16);
    let (rows, to_write) = bounded(1_000);
    let (reports, reported) = bounded(256);
    let (receipts, stored) = bounded(256);
    let (exits, _ends) = bounded(1);
    let stream = Stream {
        options: SocketOptions::new(&url, None, 10_000).unwrap(),
        link: Link::new(settings(), Random::new(1)),
        clock: clock.clone(),
        orders: to_obey,
        rows,
        reports,
        exits,
    };
    let writer = writer(&yard.folder("intake"), clock, to_write, receipts);
    orders.send(Order::Want(wanted.clone())).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| stream.run());
        scope.spawn(|| writer.run());
        scope.spawn(move || reported.iter().for_each(drop));
        let served = scope.spawn(|| serve(&listener, wanted.len(), frames));
        let is_last = |receipt: &Receipt| match receipt {
            Receipt::Pushed(pushed) => pushed.stored.closed > 0,
            _ => false,
        };
        let mut receipts = stored.into_iter();
        let last = receipts.find(is_last).map(|_| Instant::now());
        let last = last.expect("because the last frame closes a bar");
        orders.send(Order::Stop).unwrap();
        receipts.for_each(drop);
        let (begun, _) = served.join().unwrap();
        last - begun
    })
}

fn through_a_bare_loop(frames: &[Vec<u8>]) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let served = scope.spawn(|| serve(&listener, 0, frames));
        let tcp = TcpStream::connect(address).unwrap();
        let url = format!("ws://{address}{STREAM_PATH}");
        let (mut socket, _) = tungstenite::client(url, tcp).unwrap();
        let mut bytes = 0;
        for _ in 0..FRAMES {
            let Message::Text(text) = socket.read().unwrap() else { panic!("no text") };
            bytes += text.len();
        }
        let done = Instant::now();
        assert!(bytes > FRAMES);
        let (begun, _) = served.join().unwrap();
        done - begun
    })
}

fn settings() -> Settings {
    Settings {
        session: session::Settings {
            credentials: None,
            ping_interval_ms: 20_000,
            heartbeat_interval_ms: 30_000,
        },
        breaker: breaker::Settings {
            failure_threshold: 5,
            max_reconnect_attempts: 5,
            recovery_timeout_ms: 60_000,
            reconnect_delay_base_ms: 1_000,
            reconnect_delay_max_ms: 60_000,
        },
        max_connection_age_ms: 3_600_000,
    }
}
