//! HTTP/1.1 on loopback: one thread listens, one serves each connection, all end with the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ServerConfig;

use super::gate::Gate;
use super::wire::Wire;

/// More connections at a time than any client of a test needs; the next one is hung up on.
const CONNECTIONS_MAX: usize = 512;
/// A request line with its headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// An idle connection is kept as long as common servers keep theirs.
const IDLE: Duration = Duration::from_secs(75);
/// A client that does not take its answer must not hold a thread for ever.
const WRITE: Duration = Duration::from_secs(30);
/// Blanks of an oversized answer are sent by this many.
const BLANKS: [u8; 16 * 1024] = [b' '; 16 * 1024];

/// A request without its body, which no endpoint has.
pub struct Head {
    pub method: String,
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    keep_alive: bool,
}

impl Head {
    fn parse(text: &str) -> Option<Head> {
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let mut headers = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut head = Head { method, target, headers, keep_alive: false };
        // A method that may bring a body ends the connection: nobody reads that body.
        let closes = head.header("connection").is_some_and(|how| how.eq_ignore_ascii_case("close"));
        head.keep_alive = version == "HTTP/1.1" && head.method == "GET" && !closes;
        Some(head)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How an answer goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delivery {
    Whole,
    Late { ms: u64 },
    Drip { bytes: usize, pause_ms: u64 },
    Padded { bytes: u64 },
    Truncated,
    Stall { ms: u64 },
    Close,
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub delivery: Delivery,
}

/// What the server is for; called from many threads.
pub trait Face: Send + Sync {
    /// Answers a request.
    fn answer(&self, head: &Head) -> Answer;

    /// Takes over a connection whose client asked for another protocol, to its end. `pending` is
    /// what has arrived behind the request.
    fn upgrade(&self, head: &Head, wire: Wire, pending: Vec<u8>, gate: &Gate);
}

/// What every connection needs.
struct Service {
    gate: Gate,
    tls: Option<Arc<ServerConfig>>,
    latency_ms: u64,
    face: Arc<dyn Face>,
}

pub struct Server {
    service: Arc<Service>,
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl Server {
    pub fn start(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        latency_ms: u64,
        face: Arc<dyn Face>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let service = Arc::new(Service { gate: Gate::default(), tls, latency_ms, face });
        let acceptor = {
            let service = Arc::clone(&service);
            let thread = thread::Builder::new().name("exchange".to_owned());
            thread.spawn(move || accept(&listener, &service))?
        };
        Ok(Self { service, address, acceptor })
    }

    /// Closes every connection and waits for the threads. False if one of them panicked.
    #[must_use]
    pub fn stop(self) -> bool {
        self.service.gate.close();
        let mut wake = self.address;
        if wake.ip().is_unspecified() {
            wake.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        // The listener waits for a connection and for nothing else, so it gets one.
        drop(TcpStream::connect(wake));
        self.acceptor.join().is_ok()
    }
}

fn accept(listener: &TcpListener, service: &Arc<Service>) {
    // Held weakly: a connection must be able to close its socket by letting go of it.
    let mut connections: Vec<(Weak<TcpStream>, JoinHandle<()>)> = Vec::new();
    while let Ok((socket, _)) = listener.accept() {
        if service.gate.is_closed() {
            break;
        }
        reap(&mut connections, |thread| thread.is_finished());
        if connections.len() == CONNECTIONS_MAX {
            continue;
        }
        let socket = Arc::new(socket);
        let handle = Arc::downgrade(&socket);
        let service = Arc::clone(service);
        let thread = thread::Builder::new().name("exchange-connection".to_owned());
        // An error is nearly always the client's leaving.
        if let Ok(thread) = thread.spawn(move || drop(serve(socket, &service))) {
            connections.push((handle, thread));
        }
    }
    for socket in connections.iter().filter_map(|(socket, _)| socket.upgrade()) {
        // It may be gone already, which is as well.
        let _ = socket.shutdown(Shutdown::Both);
    }
    reap(&mut connections, |_| true);
}

/// Joins the threads that `which` picks, and passes on their panic if they had one.
fn reap(
    connections: &mut Vec<(Weak<TcpStream>, JoinHandle<()>)>,
    which: impl Fn(&JoinHandle<()>) -> bool,
) {
    for (_, thread) in connections.extract_if(.., |(_, thread)| which(thread)) {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Serves one connection to its end, and hangs up by dropping the only handle there is.
fn serve(socket: Arc<TcpStream>, service: &Service) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(IDLE))?;
    socket.set_write_timeout(Some(WRITE))?;
    let mut wire = Wire::new(socket, service.tls.as_ref())?;
    let mut pending = Vec::new();
    while let Some(text) = read_head(&mut wire, &mut pending)? {
        // Half of the latency lies before the exchange's look at its clock and half behind it.
        service.gate.pause(service.latency_ms / 2)?;
        let Some(head) = Head::parse(&text) else {
            return Ok(());
        };
        if head.header("upgrade").is_some() {
            service.gate.pause(service.latency_ms - service.latency_ms / 2)?;
            service.face.upgrade(&head, wire, pending, &service.gate);
            return Ok(());
        }
        let answer = service.face.answer(&head);
        service.gate.pause(service.latency_ms - service.latency_ms / 2)?;
        deliver(&mut wire, &answer, &service.gate)?;
        if !head.keep_alive || answer.delivery == Delivery::Truncated {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request up to its empty line; nothing when the client is done. What came after it
/// stays in `pending`.
fn read_head(stream: &mut impl Read, pending: &mut Vec<u8>) -> io::Result<Option<String>> {
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = pending.drain(..end + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if pending.len() > HEAD_BYTES_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            count => pending.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Sends an answer in the way it asks for.
pub fn deliver(stream: &mut impl Write, answer: &Answer, gate: &Gate) -> io::Result<()> {
    let body = &answer.body;
    let mut length = body.len() as u64;
    match answer.delivery {
        Delivery::Whole | Delivery::Truncated | Delivery::Drip { .. } => {}
        Delivery::Late { ms } => gate.pause(ms)?,
        Delivery::Padded { bytes } => length = length.max(bytes),
        Delivery::Stall { ms } => {
            gate.pause(ms)?;
            return Err(ErrorKind::TimedOut.into());
        }
        Delivery::Close => return Err(ErrorKind::ConnectionAborted.into()),
    }
    let mut text = format!("HTTP/1.1 {} {}\r\n", answer.status, phrase(answer.status));
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {length}\r\n\r\n");
    let mut bytes = text.into_bytes();
    match answer.delivery {
        Delivery::Truncated => bytes.extend_from_slice(&body[..body.len() / 2]),
        Delivery::Drip { .. } => {}
        _ => bytes.extend_from_slice(body),
    }
    stream.write_all(&bytes)?;
    if let Delivery::Drip { bytes, pause_ms } = answer.delivery {
        for crumb in body.chunks(bytes.max(1)) {
            stream.write_all(crumb)?;
            stream.flush()?;
            gate.pause(pause_ms)?;
        }
    }
    let mut blanks = length - body.len() as u64;
    while blanks > 0 {
        let count = blanks.min(BLANKS.len() as u64);
        stream.write_all(&BLANKS[..count as usize])?;
        blanks -= count;
    }
    stream.flush()
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Unnamed",
    }
}
