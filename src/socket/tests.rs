//! The socket against small servers on loopback, each with a manner of its own.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;

use super::*;
use crate::wire::Policy;

/// Longer than anything here takes, and short enough for a test that hangs to be told of.
const LONG_MS: Millis = 20 * SECOND;
const SHORT_MS: Millis = 30;

/// A server of one connection, with the address it is at.
struct Server {
    address: String,
    done: JoinHandle<()>,
}

fn serve(work: impl FnOnce(TcpStream) + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = thread::spawn(move || work(listener.accept().unwrap().0));
    Server { address, done }
}

/// A server that takes the upgrade and then does as it is told.
fn serve_socket(work: impl FnOnce(WebSocket<TcpStream>) + Send + 'static) -> Server {
    serve(move |tcp| work(tungstenite::accept(tcp).unwrap()))
}

fn options(url: &str) -> SocketOptions {
    SocketOptions::new(url, None, LONG_MS).unwrap()
}

fn connect(server: &Server) -> Socket {
    let options = options(&format!("ws://{}/ws/v5/business", server.address));
    Socket::connect(&options, &mut |_, _| ()).unwrap()
}

fn refused(options: &SocketOptions) -> SocketError {
    Socket::connect(options, &mut |_, _| ()).unwrap_err()
}

fn next(socket: &mut Socket) -> Frame {
    socket.read(Deadline::after(LONG_MS)).unwrap().expect("because it was sent")
}

fn text(text: &str) -> Frame {
    Frame::Text(text.into())
}

/// Reads until the other side hangs up.
fn drain(mut tcp: impl Read) {
    let mut buffer = [0; 65_536];
    while tcp.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

#[test]
fn frames_come_and_go() {
    let server = serve(|mut tcp| {
        let request = head(&mut tcp);
        assert!(request.starts_with("GET /ws/v5/business HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("user-agent: {}\r\n", crate::http::USER_AGENT)));
        assert!(!request.to_lowercase().contains("extensions"), "no compression is offered");
        let key = request.split_once("Sec-WebSocket-Key: ").unwrap().1.lines().next().unwrap();
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        tcp.write_all(answer.as_bytes()).unwrap();
        let mut socket = WebSocket::from_raw_socket(tcp, Role::Server, None);
        assert_eq!(socket.read().unwrap(), Message::text("ping"));
        socket.send(Message::text("pong")).unwrap();
        socket.send(Message::binary(vec![1, 2])).unwrap();
        socket.send(Message::Ping("sign".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("sign".into()));
        socket.send(Message::text("ü")).unwrap();
        let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("no close") };
        assert_eq!(u16::from(frame.code), 1000);
    });
    let mut steps = Vec::new();
    let url = format!("ws://{}/ws/v5/business", server.address);
    let mut socket =
        Socket::connect(&options(&url), &mut |step, ms| steps.push((step, ms))).unwrap();
    let told: Vec<Step> = steps.iter().map(|(step, _)| *step).collect();
    assert_eq!(told, [Step::Resolve, Step::Tcp, Step::Upgrade]);
    assert!(steps.iter().all(|(_, ms)| (0..LONG_MS).contains(ms)));
    socket.send("ping").unwrap();
    assert_eq!(next(&mut socket), text("pong"));
    assert_eq!(next(&mut socket), Frame::Binary);
    assert_eq!(next(&mut socket), Frame::Control);
    assert_eq!(next(&mut socket), text("ü"));
    socket.close(1000);
    server.done.join().unwrap();
}

#[test]
fn a_close_is_told_with_its_code() {
    for (sent, code, reason) in [
        (Some((4004, "No data received in 30s.")), 4004, "No data received in 30s."),
        (Some((4009, "two\nlines")), 4009, "two lines"),
        (Some((1001, "")), 1001, ""),
        (None, NO_CODE, ""),
    ] {
        let server = serve_socket(move |mut socket| {
            let frame = sent.map(|(code, reason): (u16, &str)| CloseFrame {
                code: code.into(),
                reason: reason.into(),
            });
            socket.close(frame).unwrap();
            drain(socket.get_mut());
        });
        let mut socket = connect(&server);
        let closed = Frame::Close { code, reason: reason.into() };
        assert_eq!(next(&mut socket), closed);
        drop(socket);
        server.done.join().unwrap();
    }
}

#[test]
fn who_hangs_up_is_lost() {
    let server = serve_socket(drop);
    let mut socket = connect(&server);
    server.done.join().unwrap();
    let lost = socket.read(Deadline::after(LONG_MS)).unwrap_err();
    assert!(matches!(lost, SocketError::Lost { .. }), "{lost}");
    assert!(lost.to_string().starts_with("WebSocketConnectionError: 127.0.0.1"), "{lost}");
}

#[test]
fn silence_ends_at_the_deadline() {
    let server = serve_socket(|mut socket| drain(socket.get_mut()));
    let mut socket = connect(&server);
    assert_eq!(socket.read(Deadline::after(SHORT_MS)).unwrap(), None);
    assert_eq!(socket.read(Deadline::after(0)).unwrap(), None);
    drop(socket);
    server.done.join().unwrap();
}

#[test]
fn a_frame_in_pieces_comes_whole() {
    let (go, goes) = channel();
    let frames = [&[0x81, 5][..], b"whole", &[0x01, 3], b"not", &[0x80, 4], b" yet"].concat();
    let count = frames.len();
    let server = serve_socket(move |mut socket| {
        for byte in frames {
            goes.recv().unwrap();
            socket.get_mut().write_all(&[byte]).unwrap();
        }
        drain(socket.get_mut());
    });
    let mut socket = connect(&server);
    let mut came = Vec::new();
    for _ in 0..count {
        came.extend(socket.read(Deadline::after(1)).unwrap());
        go.send(()).unwrap();
    }
    while came.len() < 2 {
        came.push(next(&mut socket));
    }
    assert_eq!(came, [text("whole"), text("not yet")]);
    drop(socket);
    server.done.join().unwrap();
}

#[test]
fn a_peer_that_always_sends_a_little_does_not_hold_us_past_the_deadline() {
    let server = serve_socket(|mut socket| {
        let begun = socket.get_mut().write_all(&[0x01, 0]);
        // Empty parts of a message that never ends.
        while begun.is_ok() && socket.get_mut().write_all(&[0x00, 0]).is_ok() {}
    });
    let mut socket = connect(&server);
    assert_eq!(socket.read(Deadline::after(SHORT_MS)).unwrap(), None);
    drop(socket);
    server.done.join().unwrap();
}

#[test]
fn what_is_too_long_is_not_taken() {
    let gigabyte = [&[0x81, 127][..], &(1_u64 << 30).to_be_bytes()].concat();
    let mut parts = [&[0x01, 127][..], &(1_u64 << 19).to_be_bytes(), &[b'x'; 1 << 19]].concat();
    for _ in 0..2 {
        parts.extend([&[0x00, 127][..], &(1_u64 << 19).to_be_bytes(), &[b'x'; 1 << 19]].concat());
    }
    for bytes in [gigabyte, parts] {
        let server = serve_socket(move |mut socket| {
            // The client may hang up before it has all.
            let _ = socket.get_mut().write_all(&bytes);
        });
        let mut socket = connect(&server);
        let error = socket.read(Deadline::after(LONG_MS)).unwrap_err();
        assert!(matches!(error, SocketError::TooLarge { bytes_max: MESSAGE_BYTES_MAX, .. }));
        assert!(error.to_string().starts_with("WebSocketDataError: 127.0.0.1"), "{error}");
        drop(socket);
        server.done.join().unwrap();
    }
}

#[test]
fn what_breaks_the_rules_is_told() {
    for (name, bytes) in [
        ("a masked frame", &[0x81, 0x81, 0, 0, 0, 0, b'x'][..]),
        ("an unknown kind", &[0x83, 0]),
        ("a compressed frame", &[0xc1, 1, b'x']),
        ("no UTF-8", &[0x81, 1, 0xff]),
    ] {
        let server = serve_socket(move |mut socket| socket.get_mut().write_all(bytes).unwrap());
        let mut socket = connect(&server);
        let error = socket.read(Deadline::after(LONG_MS)).unwrap_err();
        assert!(matches!(error, SocketError::Unsound { .. }), "{name}: {error}");
        server.done.join().unwrap();
    }
}

#[test]
fn what_is_not_taken_at_once_waits_and_goes_out_once() {
    let (go, goes) = channel::<()>();
    let server = serve_socket(move |mut socket| {
        goes.recv().unwrap();
        for n in 0.. {
            let message = socket.read().unwrap();
            if message == Message::text("end") {
                break;
            }
            assert!(message.to_text().unwrap().starts_with(&format!("{n} ")), "{n} is next");
        }
    });
    let mut socket = connect(&server);
    let filling = "x".repeat(100_000);
    let mut count = 0;
    while socket.stalled.is_none() {
        socket.send(&format!("{count} {filling}")).unwrap();
        count += 1;
    }
    assert_eq!(socket.read(Deadline::after(1)).unwrap(), None, "reading goes on");
    go.send(()).unwrap();
    while socket.stalled.is_some() {
        socket.flush().unwrap();
    }
    socket.send("end").unwrap();
    server.done.join().unwrap();
}

#[test]
fn who_takes_nothing_for_long_is_left() {
    let (done, waits) = channel::<()>();
    let server = serve_socket(move |_socket| {
        let _ = waits.recv();
    });
    let mut socket = connect(&server);
    let filling = "x".repeat(100_000);
    // The machine's own buffers grow at first, and may yet take what they have refused.
    let stalled = (0..1_000).find_map(|_| {
        socket.stalled = socket.stalled.map(|_| Deadline::after(0));
        socket.send(&filling).err()
    });
    let stalled = stalled.unwrap();
    assert!(matches!(stalled, SocketError::Stalled { .. }), "{stalled}");
    assert!(stalled.to_string().starts_with("WebSocketTimeoutError: 127.0.0.1"), "{stalled}");
    // Nor does the buffer grow for ever.
    socket.stalled = None;
    let full = (0..10).find_map(|_| socket.send(&filling).err()).unwrap();
    assert!(matches!(full, SocketError::Stalled { .. }), "{full}");
    drop(done);
    server.done.join().unwrap();
}

#[test]
fn another_thread_can_end_it() {
    let server = serve_socket(|mut socket| drain(socket.get_mut()));
    let mut socket = connect(&server);
    let killer = socket.killer().unwrap();
    let reader = thread::spawn(move || socket.read(Deadline::after(LONG_MS)));
    killer.kill();
    assert!(matches!(reader.join().unwrap(), Err(SocketError::Lost { .. })));
    server.done.join().unwrap();
}

/// Reads the head of a request.
fn head(tcp: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && tcp.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn an_upgrade_that_fails_says_why() {
    let busy = Policy::Busy { retry_after_ms: None };
    let limited = Policy::RateLimited { retry_after_ms: None };
    for (answer, says, policy) in [
        ("HTTP/1.1 403 No\r\n\r\n", "HTTP 403 (access is denied", Policy::Denied),
        ("HTTP/1.1 404 No\r\n\r\n", "HTTP 404 (look at the config key ws_url)", busy),
        ("HTTP/1.1 429 No\r\n\r\n", "HTTP 429 (too many", limited),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "HTTP 302 (trying", busy),
        ("HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP 200 (trying", busy),
        ("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "Accept", busy),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "trying again", busy),
        ("HTTP/1.1 101", "it hung up", busy),
        ("", "it hung up", busy),
    ] {
        let server = serve(move |mut tcp| {
            head(&mut tcp);
            tcp.write_all(answer.as_bytes()).unwrap();
        });
        let error = refused(&options(&format!("ws://{}/x", server.address)));
        let told = error.to_string();
        let begins = format!("WebSocketConnectionError: {}: upgrade: ", server.address);
        assert!(told.starts_with(&begins) && told.contains(says), "{answer:?}: {told}");
        assert_eq!(error.policy(), policy, "{answer:?}");
        // Whoever tries once does not promise to try again.
        assert!(!format!("{error:#}").contains("trying again"), "{answer:?}: {error:#}");
        server.done.join().unwrap();
    }
}

#[test]
fn a_step_that_takes_too_long_is_named() {
    for (answer, scheme, step) in [
        ("", "ws", "upgrade"),
        ("HTTP/1.1 101 Switching Protocols\r\nX: y", "ws", "upgrade"),
        ("", "wss", "tls"),
        ("\x16\x03\x03", "wss", "tls"),
    ] {
        let server = serve(move |mut tcp| {
            tcp.write_all(answer.as_bytes()).unwrap();
            drain(tcp);
        });
        let url = format!("{scheme}://{}/x", server.address);
        let error = refused(&SocketOptions::new(&url, None, 10 * SHORT_MS).unwrap());
        let told = format!("WebSocketTimeoutError: {}: {step}: it took too long", server.address);
        assert!(error.to_string().starts_with(&told), "{error}");
        server.done.join().unwrap();
    }
}

#[test]
fn a_dead_address_gives_way_to_the_next() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = listener.local_addr().unwrap();
    let until = Deadline::after(LONG_MS);
    let tcp = dial::connect(&[gone, alive], until).unwrap();
    assert_eq!(tcp.peer_addr().unwrap(), alive);
    let error = refused(&options(&format!("ws://{gone}/x"))).to_string();
    assert!(error.starts_with(&format!("WebSocketConnectionError: {gone}: tcp: ")), "{error}");
    assert_eq!(dial::connect(&[alive], Deadline::after(0)).unwrap_err(), Why::TimedOut);
}

#[test]
fn what_is_no_address_is_refused_before_anything_is_tried() {
    for url in ["", "https://ws.okx.com", "ws.okx.com", "ws://", "wss:///x", "ws://a b"] {
        let error = SocketOptions::new(url, None, LONG_MS).unwrap_err();
        assert!(matches!(error, SocketError::Url(_)), "{url}: {error}");
        assert_eq!(error.policy(), Policy::Permanent);
    }
    let error = SocketOptions::new("wss://me:secret@ws.okx.com", None, LONG_MS).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    let nowhere = PathBuf::from("/nowhere/ca.pem");
    let error = SocketOptions::new("wss://ws.okx.com", Some(&nowhere), LONG_MS).unwrap_err();
    assert!(matches!(error, SocketError::Roots(_)) && error.to_string().contains("ca.pem"));
    let options = options("wss://ws.okx.com/ws/v5/business");
    assert_eq!((&*options.host, options.port, options.is_secure), ("ws.okx.com", 443, true));
}

/// A throw-away authority: its file of roots, and a server's configuration for a name.
struct Authority {
    _folder: tempfile::TempDir,
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { _folder: folder, file, issuer: Issuer::new(params, key) }
    }

    fn server(&self, name: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        Arc::new(config)
    }
}

/// Takes TLS and the upgrade, and answers pings until the other side leaves.
fn pong(tcp: TcpStream, config: Arc<ServerConfig>) {
    let stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    while let Ok(Message::Text(_)) = socket.read() {
        socket.send(Message::text("pong")).unwrap();
    }
}

#[test]
fn tls_is_spoken_with_whom_the_roots_vouch_for() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    for (name, roots, says) in [
        ("127.0.0.1", &authority, None),
        ("127.0.0.1", &other, Some("not trusted")),
        ("ws.okx.com", &authority, Some("another host's")),
    ] {
        let config = authority.server(name);
        let server = serve(move |tcp| pong(tcp, config));
        let url = format!("wss://{}/x", server.address);
        let options = SocketOptions::new(&url, Some(&roots.file), LONG_MS).unwrap();
        let mut steps = Vec::new();
        match (Socket::connect(&options, &mut |step, _| steps.push(step)), says) {
            (Ok(mut socket), None) => {
                assert_eq!(steps, [Step::Resolve, Step::Tcp, Step::Tls, Step::Upgrade]);
                assert_eq!(socket.read(Deadline::after(1)).unwrap(), None);
                socket.send("ping").unwrap();
                assert_eq!(next(&mut socket), text("pong"));
                socket.close(1000);
            }
            (Err(error), Some(says)) => {
                let begins = format!("WebSocketConnectionError: {}: tls: ", server.address);
                let told = error.to_string();
                assert!(told.starts_with(&begins) && told.contains(says), "{told}");
            }
            (done, _) => panic!("{name}: {done:?}"),
        }
        server.done.join().unwrap();
    }
}

#[test]
fn a_frame_in_pieces_comes_whole_through_tls() {
    let authority = Authority::new("ours");
    let config = authority.server("127.0.0.1");
    let server = serve(move |tcp| pong(tcp, config));
    let address = server.address.clone();
    // What comes back goes on byte by byte.
    let relay = serve(move |mut client| {
        client.set_nodelay(true).unwrap();
        let mut from = client.try_clone().unwrap();
        let mut upstream = TcpStream::connect(address).unwrap();
        let mut to = upstream.try_clone().unwrap();
        let forth = thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut byte = [0];
        while upstream.read(&mut byte).is_ok_and(|count| count == 1) {
            let _ = client.write_all(&byte);
        }
        let _ = client.shutdown(Shutdown::Both);
        forth.join().unwrap();
    });
    let url = format!("wss://{}/x", relay.address);
    let options = SocketOptions::new(&url, Some(&authority.file), LONG_MS).unwrap();
    let mut socket = Socket::connect(&options, &mut |_, _| ()).unwrap();
    for _ in 0..5 {
        socket.send("ping").unwrap();
        let whole = (0..LONG_MS).find_map(|_| socket.read(Deadline::after(1)).unwrap());
        assert_eq!(whole, Some(text("pong")));
    }
    socket.close(1000);
    relay.done.join().unwrap();
    server.done.join().unwrap();
}

/// A proxy that answers a CONNECT and then is itself what lies behind, which saves a connection.
fn proxy(
    answer: &'static str,
    behind: impl FnOnce(TcpStream) + Send + 'static,
) -> (Proxy, Server, Receiver<String>) {
    let (tell, told) = channel();
    let server = serve(move |mut tcp| {
        tell.send(head(&mut tcp)).unwrap();
        tcp.write_all(answer.as_bytes()).unwrap();
        behind(tcp);
    });
    (Proxy::new(&format!("http://me:word@{}", server.address)).unwrap(), server, told)
}

fn through(proxy: Proxy, url: &str, ca_file: Option<&Path>) -> SocketOptions {
    SocketOptions::with_proxy(url.parse().unwrap(), Some(proxy), ca_file, LONG_MS).unwrap()
}

#[test]
fn a_proxy_is_asked_for_the_way_and_never_sees_inside() {
    let authority = Authority::new("ours");
    let config = authority.server("ws.okx.example");
    let (proxy, server, told) = proxy("HTTP/1.1 200 OK\r\n\r\n", move |tcp| pong(tcp, config));
    let options = through(proxy, "wss://ws.okx.example/x", Some(&authority.file));
    let mut steps = Vec::new();
    let mut socket = Socket::connect(&options, &mut |step, _| steps.push(step)).unwrap();
    let all = [Step::Resolve, Step::Tcp, Step::Proxy, Step::Tls, Step::Upgrade];
    assert_eq!(steps, all);
    socket.send("ping").unwrap();
    assert_eq!(next(&mut socket), text("pong"));
    socket.close(1000);
    server.done.join().unwrap();
    let told = told.recv().unwrap();
    assert!(told.starts_with("CONNECT ws.okx.example:443 HTTP/1.1\r\n"), "{told}");
    assert!(told.contains("Proxy-Authorization: Basic bWU6d29yZA==\r\n"), "{told}");
}

#[test]
fn a_proxy_that_refuses_is_named() {
    for (answer, says) in [
        ("HTTP/1.1 407 No\r\n\r\n", "proxy: it answered HTTP 407 (the proxy wants a name"),
        ("HTTP/1.1 502 Bad\r\n\r\n", "proxy: it answered HTTP 502 (look at ALL_PROXY"),
        ("SSH-2.0\r\n\r\n", "proxy: the proxy's answer is no HTTP (look"),
        ("", "proxy: it hung up (look"),
    ] {
        let (proxy, server, _told) = proxy(answer, drop);
        let error = refused(&through(proxy, "ws://ws.okx.example/x", None)).to_string();
        let begins = format!("WebSocketConnectionError: {}: {says}", server.address);
        assert!(error.starts_with(&begins) && !error.contains("word@"), "{error}");
        server.done.join().unwrap();
    }
}
