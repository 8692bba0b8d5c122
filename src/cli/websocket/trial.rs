//! `websocket test`: one connection of our own, step by step.
//!
//! It takes no lock and stores nothing, so it may run beside a daemon. It is led by the same
//! session as the daemon's connection, and so fails where that one would.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};

use crate::cli::outcome::{Exit, Failure, finish};
use crate::cli::paint::{Paint, Tone};
use crate::cli::table::write_wrapped;
use crate::config::{Config, InstrumentConfig, default_timeframes};
use crate::instrument::Series;
use crate::okx::Credentials;
use crate::okx::stream::{Request, STREAM_PATH};
use crate::page::Refused;
use crate::session::{Cause, Effect, Input, Session, Settings};
use crate::socket::{Frame, Socket, SocketError, SocketOptions};
use crate::time::{Clock, Deadline, Millis, format_length};
use crate::wire::{Plain, Policy};

/// Whoever says good-bye for no reason says this. Source: RFC 6455, section 7.4.1.
const NORMAL_CLOSE: u16 = 1000;
/// The columns of the names of steps.
const NAME: usize = 12;

/// Why a trial failed. Its text begins with the public name of its kind.
#[derive(Debug)]
pub enum TrialError {
    /// There is no connection, or none any more.
    Socket(SocketError),
    /// The exchange refuses, or says what makes no sense.
    Cause(Cause),
    /// A push that holds no candle.
    Push(Plain),
    /// The time was over.
    Late {
        /// The step that was waited for.
        step: &'static str,
        /// The time for all steps.
        timeout_ms: Millis,
    },
}

impl TrialError {
    /// Whether the configuration must be corrected before anything can be tried.
    pub fn is_usage(&self) -> bool {
        matches!(self, TrialError::Socket(error) if error.policy() == Policy::Permanent)
    }
}

impl fmt::Display for TrialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrialError::Socket(error) => write!(f, "{error:#}"),
            TrialError::Cause(cause) => write!(f, "{cause:#}"),
            TrialError::Push(why) => write!(
                f,
                "WebSocketDataError: the push holds no candle: {why} (if it lasts, look at the \
                 config key ws_url, or for a newer version of this program)"
            ),
            TrialError::Late { step, timeout_ms } => write!(
                f,
                "WebSocketTimeoutError: {step}: nothing came within {} (try a longer --timeout; \
                 if it lasts, look at the network)",
                format_length(*timeout_ms)
            ),
        }
    }
}

impl std::error::Error for TrialError {}

/// What is tried.
#[derive(Debug)]
pub struct Trial<'a> {
    /// Whose stream, and how it is led.
    pub config: &'a Config,
    /// Who logs in, where somebody does.
    pub credentials: Option<Credentials>,
    /// The exchange's time less the machine's, which a login is stamped with.
    pub clock_offset_ms: Millis,
    /// All steps together may take so long.
    pub timeout_ms: Millis,
}

/// Tries each step and tells its time as soon as it is done.
///
/// # Errors
///
/// The first step that failed; the steps after a refused login are tried all the same, as candles
/// need none.
pub fn test(trial: Trial<'_>, paint: Paint, out: &mut dyn Write) -> Result<Exit, Failure> {
    let url = format!("{}{STREAM_PATH}", trial.config.ws_url());
    let series = series(trial.config);
    writeln!(out, "{url}, {series}")?;
    let mut steps = Steps { out, paint };
    let done = run(trial, &url, &series, &mut steps);
    if done.is_ok() {
        writeln!(out, "The stream works.")?;
    }
    finish(done, out)
}

/// The first series of the configuration, or one that the exchange surely has.
pub fn series(config: &Config) -> Series {
    let all = config.instruments.iter().flat_map(InstrumentConfig::series);
    config.series().chain(all).next().unwrap_or_else(|| Series {
        instrument: "BTC-USDT".parse().expect("because the built-in name is sound"),
        bar: default_timeframes()[0],
    })
}

fn run(trial: Trial<'_>, url: &str, series: &Series, steps: &mut Steps<'_>) -> Result<(), Failure> {
    let socket = |error| Failure::Trial(TrialError::Socket(error));
    let until = Deadline::after(trial.timeout_ms);
    let ca_file = trial.config.ca_file.as_deref();
    let options = SocketOptions::new(url, ca_file, trial.timeout_ms).map_err(socket)?;
    let mut told = Ok(());
    let connected = Socket::connect(&options, &mut |step, ms| {
        let line = steps.done(&step.to_string(), ms);
        told = std::mem::replace(&mut told, Ok(())).and(line);
    });
    told?;
    if let Err(SocketError::Connect { step, .. }) = &connected {
        steps.failed(&step.to_string())?;
    }
    let mut talk = Talk::begin(trial, connected.map_err(socket)?, until);
    let done = talk.run(series, steps);
    if let Err(Failure::Trial(_)) = &done {
        steps.failed(talk.stage.name())?;
    }
    talk.socket.close(NORMAL_CLOSE);
    done?;
    talk.refused_login.map_or(Ok(()), |cause| Err(Failure::Trial(TrialError::Cause(cause))))
}

/// The lines of the steps.
struct Steps<'a> {
    out: &'a mut dyn Write,
    paint: Paint,
}

impl Steps<'_> {
    fn done(&mut self, name: &str, length_ms: Millis) -> io::Result<()> {
        let mark = self.paint.mark(Tone::Good);
        writeln!(self.out, "  {mark}{name:NAME$}{length_ms:>6} ms")?;
        self.out.flush()
    }

    fn failed(&mut self, name: &str) -> io::Result<()> {
        let mark = self.paint.mark(Tone::Bad);
        let failed = self.paint.word(Tone::Bad, "failed");
        writeln!(self.out, "  {mark}{name:NAME$}   {failed}")?;
        self.out.flush()
    }

    /// Words of the exchange in passing.
    fn said(&mut self, words: &str) -> io::Result<()> {
        write_wrapped(self.out, &format!("  {:NAME$}   ", "it says"), words)
    }
}

/// What is waited for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Login,
    Subscribe,
    Push,
    Ping,
    Over,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Login => "login",
            Stage::Subscribe => "subscribe",
            Stage::Push => "first push",
            Stage::Ping | Stage::Over => "ping",
        }
    }
}

/// A connection that stands.
struct Talk {
    socket: Socket,
    session: Session,
    clock: Clock,
    until: Deadline,
    timeout_ms: Millis,
    stage: Stage,
    /// When the stage began.
    begun: Deadline,
    pushed: bool,
    /// How long a ping took. It is sent first, and told last.
    rtt_ms: Option<Millis>,
    refused_login: Option<Cause>,
}

impl Talk {
    fn begin(trial: Trial<'_>, socket: Socket, until: Deadline) -> Talk {
        let stage = if trial.credentials.is_some() { Stage::Login } else { Stage::Subscribe };
        let session = Session::new(Settings {
            credentials: trial.credentials,
            ping_interval_ms: trial.config.websocket.ping_interval_ms,
            heartbeat_interval_ms: trial.config.websocket.heartbeat_interval_ms,
        });
        let clock = Clock::start(trial.clock_offset_ms);
        let mut talk = Talk {
            socket,
            session,
            clock,
            until,
            timeout_ms: trial.timeout_ms,
            stage,
            begun: Deadline::after(0),
            pushed: false,
            rtt_ms: None,
            refused_login: None,
        };
        talk.session.on(talk.clock.now(), Input::Opened);
        talk
    }

    /// Until the last stage is over.
    fn run(&mut self, series: &Series, steps: &mut Steps<'_>) -> Result<(), Failure> {
        let socket = |error| Failure::Trial(TrialError::Socket(error));
        // What is said first, unasked: the login and a ping.
        for effect in std::iter::from_fn(|| self.session.next()).collect::<Vec<Effect>>() {
            if let Effect::Send(request) = effect {
                self.socket.send(request.as_str()).map_err(socket)?;
            }
        }
        let wanted = BTreeSet::from([series.clone()]);
        self.session.on(self.clock.now(), Input::Subscribe(wanted));
        loop {
            while let Some(effect) = self.session.next() {
                self.take(effect, steps)?;
            }
            self.advance(steps)?;
            if self.stage == Stage::Over {
                return Ok(());
            }
            let frame = self.socket.read(self.wait()?).map_err(socket)?;
            let now = self.clock.now();
            self.session.on(
                now,
                match &frame {
                    None => Input::Tick,
                    Some(Frame::Text(text)) => Input::Text(text),
                    Some(Frame::Binary) => Input::Binary,
                    Some(Frame::Control) => Input::Control,
                    Some(Frame::Close { code, reason }) => {
                        Input::Closed { code: Some(*code), reason: reason.as_str() }
                    }
                },
            );
        }
    }

    /// Until the session has something to do, or the time is over.
    fn wait(&self) -> Result<Deadline, Failure> {
        let (step, timeout_ms) = (self.stage.name(), self.timeout_ms);
        let late = || Failure::Trial(TrialError::Late { step, timeout_ms });
        let left_ms = self.until.left().ok_or_else(late)?.as_millis() as Millis;
        let due_ms = self.session.deadline().map_or(left_ms, |at| at - self.clock.now().local);
        // A wait of a millisecond more does no harm; one of none would be a busy one.
        Ok(Deadline::after(due_ms.min(left_ms) + 1))
    }

    fn take(&mut self, effect: Effect, steps: &mut Steps<'_>) -> Result<(), Failure> {
        let failed = |error| Err(Failure::Trial(error));
        match effect {
            Effect::Send(request) => {
                let sent = self.socket.send(request.as_str());
                sent.map_err(|error| Failure::Trial(TrialError::Socket(error)))?;
                // Nothing but pings is sent before the answer to the login.
                if self.stage == Stage::Login && request != Request::ping() {
                    self.end_stage(Stage::Subscribe, steps)?;
                }
            }
            Effect::LoginRefused(cause) => {
                self.refused_login = Some(cause);
                self.end_stage(Stage::Subscribe, steps)?;
            }
            Effect::Acked(_) => self.end_stage(Stage::Push, steps)?,
            Effect::Rows { rows, refused, .. } => match refused.into_iter().next() {
                Some(Refused { why, .. }) if rows.is_empty() => {
                    return failed(TrialError::Push(Plain::of(why)));
                }
                _ => self.pushed = true,
            },
            Effect::Beat { rtt_ms } => self.rtt_ms = Some(rtt_ms),
            Effect::Replace(said) | Effect::Notice(said) => steps.said(&said.to_string())?,
            Effect::Refused { cause, .. } | Effect::Garbled(cause) | Effect::Close(cause) => {
                return failed(TrialError::Cause(cause));
            }
        }
        Ok(())
    }

    /// What has come before its turn is told now.
    fn advance(&mut self, steps: &mut Steps<'_>) -> Result<(), Failure> {
        if self.stage == Stage::Push && self.pushed {
            self.end_stage(Stage::Ping, steps)?;
        }
        if let (Stage::Ping, Some(rtt_ms)) = (self.stage, self.rtt_ms) {
            steps.done(self.stage.name(), rtt_ms)?;
            self.stage = Stage::Over;
        }
        Ok(())
    }

    fn end_stage(&mut self, next: Stage, steps: &mut Steps<'_>) -> Result<(), Failure> {
        let name = self.stage.name();
        if self.stage == Stage::Login && self.refused_login.is_some() {
            steps.failed(name)?;
        } else {
            steps.done(name, self.begun.elapsed_ms())?;
        }
        (self.stage, self.begun) = (next, Deadline::after(0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tungstenite::Message;

    use super::*;
    use crate::config::Config;
    use crate::time::SECOND;

    /// What comes of a trial with somebody who answers every message with this.
    fn try_with(answer: &'static str) -> (String, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
            while let Ok(Message::Text(_)) = socket.read() {
                let _ = socket.send(Message::text(answer));
            }
        });
        let mut config = Config::builtin("/nowhere/config.json".into());
        config.ws_url = Some(url);
        let trial = Trial {
            config: &config,
            credentials: None,
            clock_offset_ms: 0,
            timeout_ms: 60 * SECOND,
        };
        let mut out = Vec::new();
        let failure = test(trial, Paint::new(true), &mut out).unwrap_err();
        assert_eq!(failure.exit(), Exit::Failed);
        server.join().unwrap();
        (String::from_utf8(out).unwrap(), failure.to_string())
    }

    #[test]
    fn whoever_speaks_another_language_is_told_from_the_exchange() {
        for (answer, begins, advice) in [
            ("hello", "WebSocketDataError: a frame cannot be read: ", "proxy"),
            (
                r#"{"arg":{"channel":"candle1m","instId":"BTC-USDT"},"data":[["1","x"]]}"#,
                "WebSocketDataError: the push holds no candle: ",
                "ws_url",
            ),
            (
                r#"{"event":"error","code":"64001","msg":"wrong path"}"#,
                "WebSocketSubscriptionError: 64001: wrong path",
                "ws_url",
            ),
        ] {
            let (out, failure) = try_with(answer);
            assert!(failure.starts_with(begins) && failure.contains(advice), "{failure}");
            let painted = "\u{1b}[32m●\u{1b}[0m upgrade ";
            assert!(out.contains(painted), "{out}");
            assert!(out.ends_with("\u{1b}[31mfailed\u{1b}[0m\n"), "{out}");
        }
    }
}
