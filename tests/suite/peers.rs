//! Peers that are not who they should be, or send what nobody should take: through the real
//! program, which keeps its secrets, its memory and its patience.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::exchange::{Endpoint, Exchange, Fault, Listed, Script, StreamFault};
use crate::live::{self, Live, Truth};
use crate::process::{Home, T0};

const SECRETS: [(&str, &str); 3] = [
    ("OKX_API_KEY", "8a2f-the-key"),
    ("OKX_API_SECRET", "C0FFEE-the-secret"),
    ("OKX_PASSPHRASE", "correct-horse-the-phrase"),
];

fn market() -> Exchange {
    let builder = Exchange::builder().clock(T0).speed(0.0);
    builder.synthetic("BTC-USDT", Listed::days(20)).start()
}

fn with_secrets(home: Home) -> Home {
    SECRETS.into_iter().fold(home, |home, (name, value)| home.variable(name, value))
}

/// Another address that leads to the same server, until the test ends. All of 127/8 is this
/// machine; the exchange's certificate is for 127.0.0.1 alone.
fn detour(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(to)) else { return };
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    address
}

#[test]
fn no_redirect_is_followed_and_no_secret_goes_elsewhere() {
    let (exchange, elsewhere) = (market(), market());
    let home = with_secrets(Home::of(&exchange).instrument("BTC-USDT", "1H", 2));
    let away = Fault::Redirect(format!("{}/api/v5/market/candles", elsewhere.url()));
    exchange.set_faults(vec![Script::next(1, away.clone()).on(Endpoint::Candles)]);
    home.run("sync --all").exits(0);
    home.assert_equals(&exchange);
    assert!(exchange.requests().iter().any(|request| request.header("ok-access-key").is_some()));

    exchange.set_faults(vec![Script::always(away)]);
    let told = home.run("list --available").exits(1);
    told.last_word("and points to 127.0.0.1: not followed");
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.requests());
    for (name, secret) in SECRETS {
        assert!(!(told.err.clone() + &told.out).contains(secret), "{name} is told");
    }
}

#[test]
fn a_certificate_for_another_name_ends_it_before_anything_is_said() {
    let exchange = live::market(&["BTC-USDT"]).tls().start();
    let detour = detour(exchange.address());
    let home = with_secrets(live::home(&exchange)).instrument("BTC-USDT", "1m", 1);
    std::fs::write(home.path("ca.pem"), exchange.ca_pem()).unwrap();
    let home = home
        .key("ca_file", "\"ca.pem\"")
        .key("rest_url", &format!("\"https://{detour}\""))
        .key("ws_url", &format!("\"wss://{detour}\""));
    let told = "its certificate is another host's: look at the address";
    let tried = home.run("websocket test --timeout 5").exits(1);
    assert!(format!("{}{}", tried.out, tried.err).contains(told), "{tried:?}");
    let mut live = Live::start(&home);
    let seen = live.wait("both errors", |seen| {
        seen.stream.last_error.is_some() && seen.rest.last_error.is_some()
    });
    for error in [seen.stream.last_error, seen.rest.last_error] {
        assert!(error.as_ref().is_some_and(|error| error.contains(told)), "{error:?}");
    }
    assert!(exchange.requests().is_empty(), "{:?}", exchange.requests());
    assert_eq!(exchange.stats().upgraded(), 0);
    live.stop("TERM");
}

#[test]
fn what_has_no_end_is_let_go_and_asked_for_again() {
    let bomb = include_bytes!("../../fixtures/rest_gzip_bomb.gz").to_vec();
    let zipped = vec![("content-encoding".to_owned(), "gzip".to_owned())];
    let raw = |headers, body| Fault::Raw { status: 200, headers, body };
    let rows = |row: &str, count| {
        let rows = vec![row; count].join(",");
        raw(Vec::new(), format!("{{\"code\":\"0\",\"msg\":\"\",\"data\":[{rows}]}}").into_bytes())
    };
    for (what, fault) in [
        ("a bomb", raw(zipped, bomb)),
        ("an endless body", Fault::Oversized(1 << 30)),
        ("endless rows", rows("[\"1\",\"2\"]", 300_000)),
        ("a tower", raw(Vec::new(), b"[".repeat(2_000_000))),
        ("a page of nulls", rows("null", 300)),
        ("an endless field", raw(Vec::new(), [b"{\"code\":\"", &*b"9".repeat(3_000_000)].concat())),
    ] {
        let exchange = market();
        exchange.set_faults(vec![Script::next(1, fault).on(Endpoint::Candles)]);
        let home = Home::of(&exchange).instrument("BTC-USDT", "1H", 2);
        let done = home.run("sync --all -v").exits(0);
        assert!(done.err.lines().all(|line| line.chars().count() < 500), "{what}: {}", done.err);
        home.assert_equals(&exchange);
    }
}

#[test]
fn memory_does_not_grow_with_what_a_peer_sends() {
    let exchange = live::market(&["BTC-USDT"]).start();
    let home = live::home(&exchange).instrument("BTC-USDT", "1s", 1);
    let mut live = Live::start(&home);
    live.streams("from the start");
    live.comes_to(&Truth::of(&exchange, &home), "of history");
    let before = live.peak_kb();
    for fault in [StreamFault::Announced(1 << 30), StreamFault::Oversized(64 << 20)] {
        let errors = live.snapshot().map_or(0, |seen| seen.stream.errors);
        exchange.strike(fault);
        live.wait("an error of the stream", |seen| seen.stream.errors > errors);
        live.wait("the next connection", |seen| seen.stream.subscriptions == 1);
    }
    let grown = live.peak_kb().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} kB more than {before} kB");
    live.stop("TERM");
}
