//! The stream's wire: requests to text, and one text frame to words.
//!
//! A frame is read in one pass straight from its text, a push in its usual form by a reader of its
//! own. Nothing in it is trusted: a row that is no candle is refused alone, foreign words are made
//! plain, what nobody asked for is ignored.
//!
//! Sources: <https://www.okx.com/docs-v5/en/#overview-websocket> and
//! <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-candlesticks-channel>.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::bar::Bar;
use crate::candle::Candle;
use crate::instrument::{Instrument, Series};
use crate::okx::code::{StreamPolicy, code_policy};
use crate::okx::envelope::Scalar;
use crate::okx::push;
use crate::okx::row::Rows;
use crate::okx::sign::Credentials;
use crate::page::Refused;
use crate::time::{HOUR, Millis};
use crate::wire::{Plain, Rate};

/// Where candles are pushed. No other path has them.
pub const STREAM_PATH: &str = "/ws/v5/business";

/// How often one connection may subscribe, unsubscribe and log in, taken together. A request counts
/// once however many series it names.
pub const REQUEST_RATE: Rate = Rate { requests: 480, window_ms: HOUR };

/// The most series that one request names.
pub const ARGS_MAX: usize = 100;

/// The longest request. The documentation has said 4,096 bytes and 64 KB; a server that holds on
/// to the former closes the connection (1009) over a longer one.
const REQUEST_BYTES_MAX: usize = 4_096;

/// What a request has besides its series: `{"id":"…","op":"unsubscribe","args":[]}`.
const FRAME_BYTES: usize = 64;

const PING: &str = "ping";
const PONG: &str = "pong";
const CHANNEL: &str = "candle";

/// A text to be sent.
///
/// **Invariant:** `Debug` shows no login, so that a log of what is sent never holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    text: String,
    is_secret: bool,
}

impl Request {
    /// The text, which is for the wire alone.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The sign of life that asks for one. A control frame would not do: the exchange wants text.
    pub fn ping() -> Request {
        Request { text: PING.to_owned(), is_secret: false }
    }

    /// Asks for the pushes of some series: at most as many as [`batches`] puts together.
    ///
    /// ```
    /// use okx_local_store::instrument::Series;
    /// use okx_local_store::okx::stream::Request;
    ///
    /// let series = Series { instrument: "BTC-USDT".parse()?, bar: "1m".parse()? };
    /// assert_eq!(
    ///     Request::subscribe(7, &[series]).as_str(),
    ///     r#"{"id":"7","op":"subscribe","args":[{"channel":"candle1m","instId":"BTC-USDT"}]}"#,
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn subscribe(id: u64, series: &[Series]) -> Request {
        Request::encode(Some(id), "subscribe", series.iter().map(Topic::new))
    }

    /// Asks for no more pushes of some series, as many as for [`Request::subscribe`].
    pub fn unsubscribe(id: u64, series: &[Series]) -> Request {
        Request::encode(Some(id), "unsubscribe", series.iter().map(Topic::new))
    }

    /// Says who we are, at `now` by the exchange's clock.
    pub fn login(credentials: &Credentials, now: Millis) -> Request {
        let login = Request::encode(None, "login", [credentials.login(now)]);
        Request { is_secret: true, ..login }
    }

    fn encode<T: Serialize>(
        id: Option<u64>,
        op: &'static str,
        args: impl IntoIterator<Item = T>,
    ) -> Request {
        #[derive(Serialize)]
        struct Body<T> {
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<String>,
            op: &'static str,
            args: Vec<T>,
        }
        let body = Body { id: id.map(|id| id.to_string()), op, args: args.into_iter().collect() };
        let text = serde_json::to_string(&body).expect("because texts in a struct have a JSON");
        Request { text, is_secret: false }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secret { "login (hidden)" } else { &self.text })
    }
}

/// One series as a request names it.
#[derive(Serialize)]
struct Topic<'a> {
    channel: String,
    #[serde(rename = "instId")]
    instrument: &'a str,
}

impl Topic<'_> {
    fn new(series: &Series) -> Topic<'_> {
        let channel = format!("{CHANNEL}{}", series.bar);
        Topic { channel, instrument: series.instrument.as_str() }
    }

    /// The bytes that a series adds to a request: `{"channel":"candle","instId":""},` and names.
    fn bytes(series: &Series) -> usize {
        const PUNCTUATION: usize = 35;
        PUNCTUATION + series.bar.name().len() + series.instrument.as_str().len()
    }
}

/// Puts series together into as few requests as take them all.
pub fn batches(series: impl IntoIterator<Item = Series>) -> Vec<Vec<Series>> {
    let (mut batches, mut bytes) = (Vec::<Vec<Series>>::new(), 0);
    for series in series {
        let more = Topic::bytes(&series);
        match batches.last_mut() {
            Some(batch) if batch.len() < ARGS_MAX && bytes + more <= REQUEST_BYTES_MAX => {
                bytes += more;
                batch.push(series);
            }
            _ => {
                bytes = FRAME_BYTES + more;
                batches.push(vec![series]);
            }
        }
    }
    batches
}

/// A code and its message, in the exchange's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The code.
    pub code: Plain,
    /// The message.
    pub msg: Plain,
}

impl Said {
    /// What to do about it. A code that is no number is not known.
    pub fn policy(&self) -> StreamPolicy {
        self.code.as_str().parse().map_or(StreamPolicy::Retry, code_policy)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.msg)
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// States of a series' bars, in the order they came.
    Push {
        /// Whose.
        series: Series,
        /// The states.
        rows: Vec<Candle>,
        /// Rows that are no candles.
        refused: Vec<Refused>,
    },
    /// A series is subscribed.
    Subscribed {
        /// Which.
        series: Series,
        /// By which request, where that is said.
        id: Option<u64>,
    },
    /// A series is no longer subscribed.
    Unsubscribed {
        /// Which.
        series: Series,
        /// By which request, where that is said.
        id: Option<u64>,
    },
    /// Something in a request was refused.
    Refused {
        /// In which, where that is said.
        id: Option<u64>,
        /// Why.
        said: Said,
        /// The series, where the message names one: there is no field for it.
        series: Option<Series>,
    },
    /// The answer to a login.
    Login(Result<(), Said>),
    /// News about the connection, such as its end in a minute (64008).
    Notice(Said),
    /// The answer to a ping.
    Pong,
    /// What nobody asked for: another channel, an event that is not known.
    Ignored,
}

/// Reads one text frame, or says why it is none of the exchange's.
///
/// ```
/// use okx_local_store::okx::stream::{Event, decode};
///
/// let text = r#"{"arg":{"channel":"candle1m","instId":"BTC-USDT"},
///     "data":[["60000","2","3","1","2.5","9","9","9","1"]]}"#;
/// let Ok(Event::Push { series, rows, .. }) = decode(text) else { panic!("no push") };
/// assert_eq!((series.to_string().as_str(), rows[0].close), ("BTC-USDT 1m", 2.5));
/// ```
pub fn decode(text: &str) -> Result<Event, Plain> {
    if text == PONG {
        return Ok(Event::Pong);
    }
    if let Some((channel, instrument, rows)) = push::read(text)
        && let Some(series) = series(channel, instrument)
    {
        return Ok(Event::Push { series, rows, refused: Vec::new() });
    }
    decode_any(text)
}

/// Reads a frame of whatever form.
fn decode_any(text: &str) -> Result<Event, Plain> {
    let error = match serde_json::from_str::<Frame<Rows>>(text) {
        Ok(frame) => return frame.read(),
        Err(error) => error,
    };
    // What is no row may be another channel's, or come along with an event: then it is no trouble.
    match serde_json::from_str::<Frame<IgnoredAny>>(text) {
        Ok(frame) if frame.is_event() => Ok(frame.event()),
        Ok(Frame { arg: Some(arg), .. }) if arg.series().is_none() => Ok(Event::Ignored),
        _ => Err(Plain::of(error)),
    }
}

/// Every form of a frame.
#[derive(Deserialize)]
struct Frame<'a, T> {
    #[serde(borrow, default)]
    event: Scalar<'a>,
    #[serde(borrow, default)]
    id: Scalar<'a>,
    #[serde(borrow, default)]
    code: Scalar<'a>,
    #[serde(borrow, default)]
    msg: Scalar<'a>,
    #[serde(borrow, default)]
    arg: Option<Arg<'a>>,
    #[serde(default = "Option::default")]
    data: Option<T>,
}

/// What a frame is about.
#[derive(Deserialize)]
struct Arg<'a> {
    #[serde(borrow, default)]
    channel: Scalar<'a>,
    #[serde(borrow, default, rename = "instId")]
    instrument: Scalar<'a>,
}

impl Arg<'_> {
    fn series(&self) -> Option<Series> {
        series(self.channel.text(), self.instrument.text())
    }
}

impl Frame<'_, Rows> {
    fn read(self) -> Result<Event, Plain> {
        if self.is_event() {
            return Ok(self.event());
        }
        let Some(arg) = self.arg else { return Err("it has neither event nor arg".into()) };
        let Some(series) = arg.series() else { return Ok(Event::Ignored) };
        let Some(Rows { taken, refused }) = self.data else {
            return Err("it has neither event nor data".into());
        };
        Ok(Event::Push { series, rows: taken, refused })
    }
}

impl<T> Frame<'_, T> {
    /// Whether it is none of the pushes. The gateway's own errors have a code and no event.
    fn is_event(&self) -> bool {
        self.event.is_text() || self.code.is_text()
    }

    fn event(&self) -> Event {
        let series = || self.arg.as_ref().and_then(Arg::series);
        let id = match &self.id {
            Scalar::Whole(id) => u64::try_from(*id).ok(),
            id => id.text().parse().ok(),
        };
        let said = || Said { code: Plain::of(&self.code), msg: Plain::of(&self.msg) };
        let or_ignored = |event: Option<Event>| event.unwrap_or(Event::Ignored);
        match self.event.text() {
            "subscribe" => or_ignored(series().map(|series| Event::Subscribed { series, id })),
            "unsubscribe" => or_ignored(series().map(|series| Event::Unsubscribed { series, id })),
            "login" if self.code.is_zero() => Event::Login(Ok(())),
            "login" => Event::Login(Err(said())),
            "notice" => Event::Notice(said()),
            "error" | "" => {
                let series = series().or_else(|| named(self.msg.text()));
                Event::Refused { id, said: said(), series }
            }
            _ => Event::Ignored,
        }
    }
}

/// The series of a channel and an instrument, each spelt exactly as we ask for it: what merely
/// looks like it is another's.
fn series(channel: &str, instrument: &str) -> Option<Series> {
    let name = channel.strip_prefix(CHANNEL)?;
    let bar = Bar::all().find(|bar| bar.name() == name)?;
    Some(Series { instrument: Instrument::spelt(instrument)?, bar })
}

/// The series that an error names in its message: `… channel:candle1m,instId:NOPE-USDT doesn't …`.
fn named(msg: &str) -> Option<Series> {
    let after = |key: &str| {
        let (_, rest) = msg.split_once(key)?;
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next()
    };
    series(after("channel:")?, after("instId:")?)
}

#[cfg(test)]
mod tests;
