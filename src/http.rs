//! The HTTP edge: one GET, bounded in time and in size, becomes an [`Answer`] or a [`Trouble`].
//!
//! Nothing is decided here: no retry, no rate, no meaning of a body.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, http};

use crate::okx::Credentials;
use crate::proxy::{self, ProxyError};
use crate::roots::{Roots, RootsError, distrust};
use crate::time::{MINUTE, Millis, SECOND};
use crate::wire::{Answer, Endpoint, Plain, Trouble};

/// The longest body taken, after gunzip. The list of instruments has about one MiB, a page of
/// candles 40 KiB; each poller's heap keeps what its largest one took, so they are told apart.
const fn body_bytes_max(endpoint: Endpoint) -> u64 {
    match endpoint {
        Endpoint::Instruments => 4 << 20,
        Endpoint::Candles | Endpoint::History | Endpoint::Time => 512 << 10,
    }
}

/// The longest pause that an answer can ask for: a mistaken header must not silence us for days.
const RETRY_AFTER_MAX: Millis = 5 * MINUTE;

/// Connections that are kept open: one for each poller there can be.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// How the program names itself to the exchange.
pub const USER_AGENT: &str = concat!("okx-store/", env!("CARGO_PKG_VERSION"));

/// How the exchange is reached.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Scheme and host, with a port where it is not the scheme's own.
    pub base_url: String,
    /// PEM roots in place of the built-in ones.
    pub ca_file: Option<PathBuf>,
    /// Whether demo trading is meant.
    pub sandbox: bool,
    /// Keys to sign requests with.
    pub credentials: Option<Credentials>,
}

/// Why no request can be made at all.
#[derive(Debug)]
pub enum HttpError {
    /// The base URL is none.
    Url(Plain),
    /// The file with roots gives none.
    Roots(RootsError),
    /// The environment names a proxy that is not supported.
    Proxy(ProxyError),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Url(url) => {
                write!(f, "{url:?} is no base of requests: give https:// and a host, no more")
            }
            HttpError::Roots(error) => error.fmt(f),
            HttpError::Proxy(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            HttpError::Roots(error) => Some(error),
            HttpError::Proxy(error) => Some(error),
            HttpError::Url(_) => None,
        }
    }
}

/// How long each step of a request may take.
#[derive(Clone, Copy)]
struct Timeouts {
    resolve: Duration,
    /// TCP, the proxy's tunnel and TLS together.
    connect: Duration,
    send: Duration,
    /// Until the head of the answer has come.
    head: Duration,
    body: Duration,
    /// All steps together. Less than the 15 s that a stop waits, so that a page which is under
    /// way ends by itself.
    whole: Duration,
}

/// Each step has more than a bad mobile line needs, and none the whole.
const TIMEOUTS: Timeouts = Timeouts {
    resolve: Duration::from_secs(5),
    connect: Duration::from_secs(8),
    send: Duration::from_secs(5),
    head: Duration::from_secs(10),
    body: Duration::from_secs(10),
    whole: Duration::from_secs(12),
};

/// A client of one host. Clones share its open connections.
#[derive(Clone, Debug)]
pub struct Http {
    agent: Agent,
    base_url: Arc<str>,
    host: Arc<str>,
    sandbox: bool,
    credentials: Option<Credentials>,
}

impl Http {
    /// Prepares a client; nothing is connected yet.
    ///
    /// ```no_run
    /// use okx_local_store::http::{Http, HttpOptions};
    /// use okx_local_store::okx::{Region, TIME_PATH, decode_time};
    /// use okx_local_store::wire::Endpoint;
    ///
    /// let base_url = Region::Global.rest_url().to_owned();
    /// let options = HttpOptions { base_url, ca_file: None, sandbox: false, credentials: None };
    /// let http = Http::new(&options).unwrap();
    /// let exchange_now = decode_time(&http.get(Endpoint::Time, TIME_PATH, 0).unwrap()).unwrap();
    /// assert!(exchange_now > 0);
    /// ```
    pub fn new(options: &HttpOptions) -> Result<Http, HttpError> {
        Http::with_timeouts(options, TIMEOUTS)
    }

    fn with_timeouts(options: &HttpOptions, timeouts: Timeouts) -> Result<Http, HttpError> {
        let base = Base::read(&options.base_url)?;
        let mut config = Agent::config_builder()
            .user_agent(USER_AGENT)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .timeout_resolve(Some(timeouts.resolve))
            .timeout_connect(Some(timeouts.connect))
            .timeout_send_request(Some(timeouts.send))
            .timeout_recv_response(Some(timeouts.head))
            .timeout_recv_body(Some(timeouts.body))
            .timeout_global(Some(timeouts.whole))
            .proxy(proxy::find(&base.uri).map_err(HttpError::Proxy)?);
        if base.is_https {
            let roots = Roots::find(options.ca_file.as_deref()).map_err(HttpError::Roots)?;
            config = config.tls_config(tls(&roots));
        }
        Ok(Http {
            agent: config.build().new_agent(),
            base_url: base.url.into(),
            host: base.host.into(),
            sandbox: options.sandbox,
            credentials: options.credentials.clone(),
        })
    }

    /// Asks for `path` (and its query) and reads the answer to its end. With credentials the
    /// request is signed as of `exchange_now`, the exchange's time in Unix ms.
    ///
    /// Every status but a redirect is an answer: what it means is for the venue to say.
    pub fn get(
        &self,
        endpoint: Endpoint,
        path: &str,
        exchange_now: Millis,
    ) -> Result<Answer, Trouble> {
        let mut request = self.agent.get(format!("{}{path}", self.base_url));
        if self.sandbox {
            request = request.header("x-simulated-trading", "1");
        }
        // Who asks for the time does not know it: a signature would be refused for its age.
        if let Some(credentials) = self.credentials.as_ref().filter(|_| endpoint != Endpoint::Time)
        {
            for (name, value) in credentials.headers(path, exchange_now) {
                request = request.header(name, value);
            }
        }
        let mut response = request.call().map_err(|error| self.broken(error))?;
        if response.status().is_redirection() {
            return Err(self.redirected(&response));
        }
        let body = self.read(response.body_mut(), body_bytes_max(endpoint))?;
        Ok(Answer {
            host: self.host.clone(),
            status: response.status().as_u16(),
            retry_after_ms: retry_after_ms(&response),
            body,
        })
    }

    /// Reads a body. The bound counts what comes out of gunzip: a few KB on the wire can be
    /// gigabytes.
    fn read(&self, body: &mut Body, bytes_max: u64) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        let read = body.as_reader().take(bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.broken(error.into()))?;
        if bytes.len() as u64 > bytes_max {
            return Err(Trouble::TooLarge { host: self.host.clone(), bytes_max });
        }
        Ok(bytes)
    }

    fn redirected(&self, response: &http::Response<Body>) -> Trouble {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        let to = match location.map(str::parse::<Uri>) {
            Some(Ok(uri)) => Plain::from(uri.host().unwrap_or("itself")),
            _ => Plain::from("nowhere"),
        };
        let status = response.status().as_u16();
        Trouble::Redirect { host: self.host.clone(), status, to }
    }

    fn broken(&self, error: ureq::Error) -> Trouble {
        let why = match &error {
            ureq::Error::Timeout(step) => Plain::of(format_args!("it took too long ({step})")),
            ureq::Error::HostNotFound => "the name has no address".into(),
            ureq::Error::Io(error) => distrust(error).map_or_else(|| Plain::of(error), Plain::from),
            error => Plain::of(error),
        };
        Trouble::Transport { host: self.host.clone(), why }
    }
}

/// A base URL, taken apart.
struct Base {
    url: String,
    uri: Uri,
    /// With the port where one is given.
    host: String,
    is_https: bool,
}

impl Base {
    fn read(text: &str) -> Result<Base, HttpError> {
        // A user name, and a password with it, must not come back in the message.
        let bad = || HttpError::Url(text.rsplit('@').next().unwrap_or_default().into());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let Some(authority) = uri.authority().filter(|_| uri.host().is_some()) else {
            return Err(bad());
        };
        if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
            return Err(bad());
        }
        let url = text.trim_end_matches('/').to_owned();
        Ok(Base { url, host: authority.to_string(), is_https, uri })
    }
}

fn tls(roots: &Roots) -> TlsConfig {
    let certificate = |der: &CertificateDer| Certificate::from_der(der).to_owned();
    let roots = match roots.file() {
        Some(file) => RootCerts::from(file.iter().map(certificate)),
        None => RootCerts::WebPki,
    };
    TlsConfig::builder().root_certs(roots).build()
}

/// The pause that an answer asks for, where it gives it in seconds. A date is passed over: the
/// back-off rules then, as it does without the header.
fn retry_after_ms(response: &http::Response<Body>) -> Option<Millis> {
    let seconds = response.headers().get("retry-after")?.to_str().ok()?.trim();
    if seconds.is_empty() || !seconds.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // What does not even fit is long.
    let seconds: Millis = seconds.parse().unwrap_or(Millis::MAX);
    Some(seconds.saturating_mul(SECOND).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::wire::Policy;

    /// A server of one answer, which hands back the request it got.
    struct Server {
        base_url: String,
        request: JoinHandle<String>,
    }

    /// Starts a server. With `hold` it keeps the connection open until the client hangs up.
    fn serve(answer: Vec<u8>, hold: bool) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let request = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            // The client may hang up in the middle: that is what some tests are about.
            let _ = socket.write_all(&answer);
            if hold {
                while socket.read(&mut byte).is_ok_and(|count| count == 1) {}
            }
            String::from_utf8(request).unwrap()
        });
        Server { base_url, request }
    }

    fn options(base_url: &str) -> HttpOptions {
        let base_url = base_url.to_owned();
        HttpOptions { base_url, ca_file: None, sandbox: false, credentials: None }
    }

    fn answered(head: &str, body: &[u8]) -> Result<Answer, Trouble> {
        answered_to(Endpoint::Candles, head, body)
    }

    fn answered_to(endpoint: Endpoint, head: &str, body: &[u8]) -> Result<Answer, Trouble> {
        let length = body.len();
        let head = format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\n\r\n");
        let server = serve([head.as_bytes(), body].concat(), false);
        let answer = Http::new(&options(&server.base_url)).unwrap().get(endpoint, "/x", 0);
        server.request.join().unwrap();
        answer
    }

    fn why(trouble: Trouble) -> String {
        assert_eq!(trouble.policy(), Policy::Busy { retry_after_ms: None }, "{trouble}");
        trouble.to_string()
    }

    #[test]
    fn an_answer_is_status_pause_and_body() {
        for (head, status, retry_after_ms) in [
            ("200 OK", 200, None),
            ("429 Too Many Requests\r\nRetry-After: 3", 429, Some(3_000)),
            ("503 x\r\nretry-after: 0", 503, Some(0)),
            ("503 x\r\nRetry-After: 99999999999999999999", 503, Some(RETRY_AFTER_MAX)),
            ("503 x\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT", 503, None),
            ("503 x\r\nRetry-After: -5", 503, None),
        ] {
            let answer = answered(head, b"body").unwrap();
            assert_eq!((answer.status, answer.retry_after_ms), (status, retry_after_ms), "{head}");
            assert_eq!(answer.body, b"body");
            assert!(answer.host.starts_with("127.0.0.1:"));
        }
    }

    #[test]
    fn a_request_says_who_asks_and_no_more() {
        let server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), false);
        Http::new(&options(&server.base_url))
            .unwrap()
            .get(Endpoint::Candles, "/api?a=b&c=d", 0)
            .unwrap();
        let request = server.request.join().unwrap().to_lowercase();
        assert!(request.starts_with("get /api?a=b&c=d http/1.1\r\n"), "{request}");
        let agent = format!("user-agent: okx-store/{}\r\n", env!("CARGO_PKG_VERSION"));
        assert!(request.contains(&agent) && request.contains("accept-encoding: gzip\r\n"));
        assert!(!request.contains("x-simulated-trading") && !request.contains("ok-access"));
    }

    #[test]
    fn the_sandbox_and_credentials_show_in_headers() {
        for (endpoint, signed) in [(Endpoint::Candles, true), (Endpoint::Time, false)] {
            let path = "/api/v5/somewhere?a=b";
            let server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), false);
            let credentials = Credentials::new("key", "secret", "phrase").unwrap();
            let expected = credentials.headers(path, 1_714_521_600_000);
            let mut options = options(&server.base_url);
            options.sandbox = true;
            options.credentials = Some(credentials);
            let http = Http::new(&options).unwrap();
            assert!(!format!("{options:?} {http:?}").contains("secret"));
            http.get(endpoint, path, 1_714_521_600_000).unwrap();
            let request = server.request.join().unwrap();
            assert!(request.contains("x-simulated-trading: 1\r\n"));
            for (name, value) in expected {
                let line = format!("{}: {value}\r\n", name.to_lowercase());
                assert_eq!(request.contains(&line), signed, "{line} in {request}");
            }
        }
    }

    #[test]
    fn what_is_zipped_is_unzipped_and_bounded() {
        let bomb = include_bytes!("../fixtures/rest_gzip_bomb.gz");
        for endpoint in [Endpoint::Candles, Endpoint::Instruments] {
            let answered = |head: &str, body: &[u8]| answered_to(endpoint, head, body);
            let most = body_bytes_max(endpoint);
            let trouble = answered("200 OK\r\nContent-Encoding: gzip", bomb).unwrap_err();
            assert!(matches!(trouble, Trouble::TooLarge { bytes_max, .. } if bytes_max == most));
            let plain = vec![b' '; most as usize];
            assert_eq!(answered("200 OK", &plain).unwrap().body.len(), plain.len());
            let trouble = answered("200 OK", &[plain, vec![b' ']].concat()).unwrap_err();
            assert!(matches!(trouble, Trouble::TooLarge { .. }));
        }
        let why = why(answered("200 OK\r\nContent-Encoding: gzip", b"not zipped").unwrap_err());
        assert!(why.contains("gzip"), "{why}");
    }

    #[test]
    fn no_redirect_is_followed() {
        for (head, to) in [
            ("302 Found\r\nLocation: https://login.example/portal?x", "login.example"),
            ("301 Moved\r\nLocation: /elsewhere", "itself"),
            ("307 Moved", "nowhere"),
        ] {
            let trouble = answered(head, b"").unwrap_err();
            assert!(
                matches!(&trouble, Trouble::Redirect { to: found, .. } if found.as_str() == to)
            );
            assert!(why(trouble).contains(to));
        }
    }

    #[test]
    fn what_breaks_on_the_way_is_told() {
        let get = |server: &Server| {
            Http::new(&options(&server.base_url)).unwrap().get(Endpoint::Candles, "/x", 0)
        };
        for (name, wire) in [
            ("nothing", &b""[..]),
            ("half a head", b"HTTP/1.1 200 OK\r\nConte"),
            ("half a body", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            ("half a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"),
            ("no HTTP", b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
        ] {
            let server = serve(wire.to_vec(), false);
            let why = why(get(&server).expect_err(name));
            assert!(why.starts_with("no answer from 127.0.0.1:"), "{name}: {why}");
            server.request.join().unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let refused =
            Http::new(&options(&base_url)).unwrap().get(Endpoint::Candles, "/x", 0).unwrap_err();
        assert!(why(refused).contains("refused"));
    }

    #[test]
    fn who_stalls_is_left() {
        let soon = Timeouts { whole: Duration::from_millis(100), ..TIMEOUTS };
        for wire in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\nConte",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        ] {
            let server = serve(wire.to_vec(), true);
            let http = Http::with_timeouts(&options(&server.base_url), soon).unwrap();
            let why = why(http.get(Endpoint::Candles, "/x", 0).unwrap_err());
            assert!(why.contains("too long"), "{why}");
        }
    }

    #[test]
    fn whoever_goes_on_for_ever_is_left() {
        let soon = Timeouts { whole: Duration::from_millis(300), ..TIMEOUTS };
        const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let large = [b"10000\r\n", &vec![b' '; 1 << 16][..], b"\r\n"].concat();
        // What comes first, what comes again and again, how long after that, and what is told.
        let cases: [(&[u8], &[u8], u64, &str); 6] = [
            (CHUNKED, &large, 0, "longer than"),
            (b"HTTP/1.1 200 OK\r\n", &b"X: y\r\n".repeat(4_096), 0, "no answer from"),
            (b"HTTP/1.1 200 OK\r\nX: ", &[b'y'; 4_096], 0, "no answer from"),
            (b"HTTP/1.1 200 OK\r\nX: ", b"y", 5, "too long"),
            (CHUNKED, b"1\r\n \r\n", 5, "too long"),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 5, "no answer from"),
        ];
        for (first, again, pause_ms, told) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let base_url = format!("http://{}", listener.local_addr().unwrap());
            let (first, again) = (first.to_vec(), again.to_vec());
            let server = thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                let pause = Duration::from_millis(pause_ms.max(1));
                socket.set_read_timeout(Some(pause)).unwrap();
                let mut sent = socket.write_all(&first);
                while sent.is_ok() {
                    // The request is heard aside, as a pause without a sleep.
                    let _ = (pause_ms > 0).then(|| socket.read(&mut [0]));
                    sent = socket.write_all(&again);
                }
            });
            let http = Http::with_timeouts(&options(&base_url), soon).unwrap();
            let why = why(http.get(Endpoint::Candles, "/x", 0).unwrap_err());
            assert!(why.contains(told), "{told}: {why}");
            drop(http);
            server.join().unwrap();
        }
    }

    #[test]
    fn base_urls_are_a_scheme_and_a_host() {
        for (text, host) in [
            ("https://www.okx.com", "www.okx.com"),
            ("https://www.okx.com/", "www.okx.com"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:8080/", "[::1]:8080"),
        ] {
            let base = Base::read(text).unwrap();
            assert_eq!(base.host, host, "{text}");
            assert!(!base.url.ends_with('/'));
        }
        for text in [
            "",
            "www.okx.com",
            "ftp://x",
            "https://",
            "https://x/api",
            "https://x/?a",
            "https://a b",
        ] {
            assert!(Base::read(text).is_err(), "{text}");
        }
        let refused = Http::new(&options("https://me:secret@www.okx.com")).unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}
