//! How a test says what exchange it wants.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::Exchange;
use super::bell::Bell;
use super::clock::{Clock, DEFAULT_START_MS};
use super::faults::{Faults, Script};
use super::file::{self, Base, FileError};
use super::grid::{Bar, DAY_MS};
use super::journal::Journal;
use super::listing::Listing;
use super::market::Market;
use super::rest::Core;
use super::row::Row;
use super::rules::Rules;
use super::stream::{Credentials, Hub, Settings, Strike};
use super::tls::Authority;

/// Since when a synthetic instrument is traded.
#[derive(Clone, Copy, Debug)]
pub enum Listed {
    /// So many days before the start of the exchange's clock.
    Days(i64),
    /// Since that time, Unix ms.
    At(i64),
}

impl Listed {
    pub fn days(days: i64) -> Self {
        Self::Days(days)
    }
}

/// Puts an exchange together.
pub struct Builder {
    clock_ms: Option<i64>,
    file_clock_ms: Option<i64>,
    speed: f64,
    seed: u64,
    latency_ms: u64,
    sandbox: bool,
    tls: bool,
    loud: bool,
    listen: SocketAddr,
    page_cap: usize,
    scripts: Vec<Script>,
    synthetic: Vec<(String, Listed)>,
    market: Market,
    stream: Settings,
    strikes: Vec<Strike>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            clock_ms: None,
            file_clock_ms: None,
            speed: 1.0,
            seed: 1,
            latency_ms: 0,
            sandbox: false,
            tls: false,
            loud: false,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            page_cap: usize::MAX,
            scripts: Vec::new(),
            synthetic: Vec::new(),
            market: Market::new(),
            stream: Settings { push_ms: 1_000, idle_close_ms: 30_000, credentials: None },
            strikes: Vec::new(),
        }
    }

    /// An endless market which the seed decides.
    pub fn synthetic(mut self, symbol: &str, listed: Listed) -> Self {
        self.synthetic.push((symbol.to_owned(), listed));
        self
    }

    /// The seed of all synthetic markets.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// A market of the bars in a candle file, 1m or 5m; what it lacks the exchange lacks.
    pub fn file(self, symbol: &str, path: impl AsRef<Path>) -> Result<Self, FileError> {
        let base = file::read(symbol, path.as_ref())?;
        Ok(self.base(symbol, base))
    }

    /// A market for each candle file of a folder named like `BTC-USDT-1m.json`.
    pub fn folder(mut self, path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let unreadable = |error| FileError::Unreadable(path.to_owned(), error);
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let symbol = ["-1m.json", "-5m.json"].iter().find_map(|end| name.strip_suffix(end));
            if let Some(symbol) = symbol {
                self = self.file(symbol, entry.path())?;
            }
        }
        Ok(self)
    }

    /// A market of exactly these base bars, oldest first, 1m or 5m as `bar` says.
    pub fn rows(self, symbol: &str, bar: &str, rows: Vec<Row>) -> Self {
        let step_ms = Bar::named(bar).len_ms().expect("because base bars are even");
        assert!(rows.is_sorted_by(|a, b| a.ts < b.ts), "base bars must be oldest first");
        self.base(symbol, Base { step_ms, rows })
    }

    fn base(mut self, symbol: &str, base: Base) -> Self {
        if let Some(row) = base.rows.last() {
            let default_ms = row.ts + base.step_ms + base.step_ms / 2;
            self.file_clock_ms =
                Some(self.file_clock_ms.map_or(default_ms, |ms| ms.max(default_ms)));
        }
        self.market.add(Listing::rows(symbol, base));
        self
    }

    /// The exchange's time at its start. If it is not set: half a bar after the newest file ends,
    /// and without files `DEFAULT_START_MS`.
    pub fn clock(mut self, start_ms: i64) -> Self {
        self.clock_ms = Some(start_ms);
        self
    }

    /// How fast the exchange's time passes; 0 freezes it.
    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = speed;
        self
    }

    /// What every answer takes at least, on its way there and back.
    pub fn latency_ms(mut self, latency_ms: u64) -> Self {
        self.latency_ms = latency_ms;
        self
    }

    /// Scripts of faults, in the order in which they are asked.
    pub fn faults(mut self, scripts: Vec<Script>) -> Self {
        self.scripts = scripts;
        self
    }

    /// No page has more rows than this, whatever is asked for.
    pub fn page_cap(mut self, rows: usize) -> Self {
        self.page_cap = rows;
        self
    }

    /// How many closed bars the history trails behind; 1 unless told.
    pub fn history_lag_bars(mut self, bars: i32) -> Self {
        self.market.history_lag_bars = bars;
        self
    }

    /// Demo trading: a request without `x-simulated-trading: 1` breaks a rule.
    pub fn sandbox(mut self) -> Self {
        self.sandbox = true;
        self
    }

    /// How long the stream waits between two pushes of a running bar; 1,000 real ms unless told.
    pub fn push_ms(mut self, ms: u64) -> Self {
        self.stream.push_ms = ms;
        self
    }

    /// How long a connection of the stream may be without data sent to it, and without a text
    /// ping from it, before it is closed with 4004; 30,000 real ms unless told.
    pub fn idle_close_ms(mut self, ms: u64) -> Self {
        self.stream.idle_close_ms = ms;
        self
    }

    /// Who may log in to the stream; nobody unless told.
    pub fn credentials(mut self, key: &str, secret: &str, passphrase: &str) -> Self {
        let [key, secret, passphrase] = [key, secret, passphrase].map(str::to_owned);
        self.stream.credentials = Some(Credentials { key, secret, passphrase });
        self
    }

    /// Faults of the stream, their times counted from the start of the exchange.
    pub fn strikes(mut self, strikes: Vec<Strike>) -> Self {
        self.strikes = strikes;
        self
    }

    /// HTTPS under a certificate authority of its own.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Prints violations to stderr as they happen.
    pub fn loud(mut self) -> Self {
        self.loud = true;
        self
    }

    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Opens the exchange.
    ///
    /// # Panics
    /// When the address cannot be listened on.
    pub fn start(self) -> Exchange {
        self.try_start().expect("because loopback has a free port")
    }

    pub fn try_start(mut self) -> io::Result<Exchange> {
        let start_ms = self.clock_ms.or(self.file_clock_ms).unwrap_or(DEFAULT_START_MS);
        for (symbol, listed) in &self.synthetic {
            let listed_ms = match *listed {
                Listed::Days(days) => start_ms - days * DAY_MS,
                Listed::At(ms) => ms,
            };
            self.market.add(Listing::synthetic(symbol, self.seed, listed_ms));
        }
        let started = Instant::now();
        let core = Arc::new(Core {
            started,
            clock: Clock::new(start_ms, self.speed),
            market: Mutex::new(self.market),
            rules: Mutex::new(Rules::new(self.loud)),
            faults: Mutex::new(Faults::new(self.scripts)),
            journal: Mutex::new(Journal::default()),
            bell: Bell::default(),
            hub: Hub::new(started, self.stream, self.strikes),
            sandbox: self.sandbox,
            page_cap: self.page_cap,
        });
        let authority = self.tls.then(Authority::new);
        let listener = TcpListener::bind(self.listen)?;
        let address = listener.local_addr()?;
        let exchange = Exchange {
            core,
            address,
            authority,
            latency_ms: self.latency_ms,
            server: Mutex::new(None),
            pusher: Mutex::new(None),
            lenient: AtomicBool::new(false),
        };
        exchange.open(listener)?;
        Ok(exchange)
    }
}
