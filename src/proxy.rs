//! Proxies: one choice for REST and the stream alike, and the way through one.
//!
//! The choice is ureq's: the first of `ALL_PROXY`, `HTTPS_PROXY` and `HTTP_PROXY`, in capitals or
//! not, that is a URL, less `NO_PROXY`. Loopback addresses are excepted, since no proxy can reach
//! them.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Uri;
use ureq::{Proxy, ProxyProtocol};

/// The longest answer of a proxy that is taken.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// The environment names a proxy that is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyError(ProxyProtocol);

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the environment names a {:?} proxy: only HTTP and HTTPS ones are supported, look at \
             ALL_PROXY, HTTPS_PROXY and HTTP_PROXY",
            self.0
        )
    }
}

impl std::error::Error for ProxyError {}

/// The proxy to reach an address by, where the environment names one.
pub fn find(uri: &Uri) -> Result<Option<Proxy>, ProxyError> {
    choose(Proxy::try_from_env(), uri)
}

/// Lets pass the proxies that there is a way through. Without this a SOCKS proxy would be gone
/// round, or fail each request without a reason.
fn choose(proxy: Option<Proxy>, uri: &Uri) -> Result<Option<Proxy>, ProxyError> {
    let wanted = |proxy: &Proxy| !uri.host().is_some_and(is_loopback) && !proxy.is_no_proxy(uri);
    let proxy = proxy.filter(wanted);
    match proxy.as_ref().map(Proxy::protocol) {
        None | Some(ProxyProtocol::Http | ProxyProtocol::Https) => Ok(proxy),
        Some(protocol) => Err(ProxyError(protocol)),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || bare(host).parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A host without the brackets that a URL puts around an IPv6 address.
pub fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Asks a proxy for a way through to `target`, a host and a port, and returns the HTTP status of
/// its answer. After a 200 the stream leads to the target.
///
/// The answer is read byte by byte: what follows it is the target's.
pub fn tunnel(
    stream: &mut (impl Read + Write),
    proxy: &Proxy,
    target: &str,
    user_agent: &str,
) -> io::Result<u16> {
    let mut request = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {user_agent}\r\n\
         Proxy-Connection: Keep-Alive\r\n"
    );
    if proxy.username().is_some() || proxy.password().is_some() {
        let (name, word) = (proxy.username().unwrap_or(""), proxy.password().unwrap_or(""));
        let secret = STANDARD.encode(format!("{name}:{word}"));
        request += &format!("Proxy-Authorization: Basic {secret}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the proxy's answer is endless",
            ));
        }
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    status(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the proxy's answer is no HTTP"))
}

/// The status of an answer that begins with `HTTP/1.x NNN`.
fn status(answer: &[u8]) -> Option<u16> {
    let answer = answer.strip_prefix(b"HTTP/1.")?;
    let digits = std::str::from_utf8(answer.get(2..5)?).ok()?;
    digits.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Option<Proxy> {
        Some(Proxy::new(url).unwrap())
    }

    #[test]
    fn proxies_that_would_be_passed_by_are_refused() {
        let uri: Uri = "https://www.okx.com".parse().unwrap();
        assert!(choose(None, &uri).unwrap().is_none());
        assert!(choose(proxy("http://127.0.0.1:3128"), &uri).unwrap().is_some());
        let refused = choose(proxy("socks5://me:secret@127.0.0.1:1080"), &uri).unwrap_err();
        assert!(refused.to_string().contains("Socks5") && !refused.to_string().contains("secret"));
    }

    #[test]
    fn some_hosts_are_reached_without() {
        let proxy = Proxy::builder(ProxyProtocol::Http)
            .host("proxy.example")
            .no_proxy("okx.example")
            .build()
            .unwrap();
        for (url, through) in [
            ("wss://ws.okx.com", true),
            ("wss://okx.example", false),
            ("ws://localhost:1", false),
            ("ws://127.8.9.10", false),
            ("ws://[::1]:80", false),
            ("wss://127.0.0.1.example", true),
        ] {
            let found = choose(Some(proxy.clone()), &url.parse().unwrap()).unwrap();
            assert_eq!(found.is_some(), through, "{url}");
        }
    }

    /// A stream that answers what it was made with, and keeps what it is told.
    struct Script<'a>(&'a [u8], Vec<u8>);

    impl Read for Script<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Script<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_way_through_is_asked_for_and_nothing_behind_it_is_read() {
        let plain = proxy("http://p.example:3128").unwrap();
        let mut stream = Script(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nTLS", Vec::new());
        assert_eq!(tunnel(&mut stream, &plain, "ws.okx.com:443", "agent").unwrap(), 200);
        assert_eq!(stream.0, b"TLS");
        let told = String::from_utf8(stream.1).unwrap();
        assert!(told.starts_with("CONNECT ws.okx.com:443 HTTP/1.1\r\nHost: ws.okx.com:443\r\n"));
        assert!(told.ends_with("\r\n\r\n") && !told.contains("Authorization"), "{told}");
        let named = proxy("http://me:a%20b@p.example").unwrap();
        let mut stream = Script(b"HTTP/1.0 407 No\r\n\r\n", Vec::new());
        assert_eq!(tunnel(&mut stream, &named, "h:1", "agent").unwrap(), 407);
        let told = String::from_utf8(stream.1).unwrap();
        assert!(told.contains("\r\nProxy-Authorization: Basic bWU6YSBi\r\n"), "{told}");
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let proxy = proxy("http://p.example").unwrap();
        let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'x'; 10_000]].concat();
        for answer in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 2\r\n\r\n", b"HTTP/1.1 200", &endless] {
            let mut stream = Script(answer, Vec::new());
            assert!(tunnel(&mut stream, &proxy, "h:1", "agent").is_err());
        }
    }
}
