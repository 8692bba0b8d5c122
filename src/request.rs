//! What a command asks of a running daemon, and what that answers: the lines of their
//! conversation.
//!
//! Each line is JSON and ends with a line feed. A connection carries one request, then answers up
//! to a last one. Nothing in a line is trusted, whoever sent it: what passes is within its bounds.
//!
//! ```
//! use okx_local_store::request::Request;
//!
//! let line = br#"{"version":1,"request":{"fill":[{"series":"BTC-USDT 1m","days":7}]}}"#;
//! let request = Request::decode(line).unwrap();
//! assert_eq!(request.encode().as_bytes().strip_suffix(b"\n"), Some(line.as_slice()));
//! assert!(Request::decode(br#"{"version":1,"request":{"purge":"../../etc"}}"#).is_err());
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::instrument::{Instrument, Series};
use crate::plan::Wanted;
use crate::span::{Span, Spans};
use crate::spelling::printable;
use crate::time::{Millis, TIME_MAX};
use crate::view::{View, spell, spelt};

/// The longest request: that for as many series as there may be, with the longest names.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;
/// The longest answer: where as many series stand, each with an error that was cut short.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The most series of one request.
pub const SERIES_MAX: usize = 10_000;
/// The most ranges of one request.
pub const RANGES_MAX: usize = 10_000;

/// The version of this language. Who speaks another one is refused rather than misunderstood.
const VERSION: u32 = 1;
/// The days of history that may be asked for, those of the configuration.
const DAYS: RangeInclusive<u32> = 1..=10_000;
/// What is kept of the reader's words about a line: they may repeat much of it.
const WORDS_MAX: usize = 200;

/// What a command wants of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// To make series complete.
    #[serde(serialize_with = "write_fill", deserialize_with = "read_fill")]
    Fill {
        /// Which, each once, and how far back.
        wanted: Vec<(Series, Wanted)>,
    },
    /// To fetch closed bars of a series once more, stored or not, and take over what the exchange
    /// has.
    #[serde(serialize_with = "write_recheck", deserialize_with = "read_recheck")]
    Recheck {
        /// Which series.
        series: Series,
        /// The ranges of open times, at least one.
        spans: Spans,
    },
    /// To delete the file of an instrument that is no longer configured.
    #[serde(serialize_with = "write_purge", deserialize_with = "read_purge")]
    Purge {
        /// Which.
        instrument: Instrument,
    },
}

/// What the daemon says to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Where the work stands.
    Progress(View),
    /// Where it ended. The last answer to [`Request::Fill`] and [`Request::Recheck`].
    Done(View),
    /// The file is gone. The last answer to [`Request::Purge`].
    Purged,
    /// Why nothing is done, or nothing more. The last answer.
    Refused(String),
}

/// A line that is no request, or no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// It is of another version.
    Version(u64),
    /// It is none, and why.
    Garbled(String),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Version(version) => write!(
                f,
                "version {version} is spoken on one side of the daemon's socket and {VERSION} on \
                 the other: restart the daemon with the program that is installed now"
            ),
            RequestError::Garbled(why) => write!(f, "a line that nobody understands: {why}"),
        }
    }
}

impl std::error::Error for RequestError {}

impl Request {
    /// The request as a line.
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            version: u32,
            request: &'a Request,
        }
        line(&Line { version: VERSION, request: self })
    }

    /// Reads a line.
    ///
    /// # Errors
    ///
    /// The line is no request of this version, or something in it is beyond its bounds.
    pub fn decode(line: &[u8]) -> Result<Request, RequestError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            version: u64,
            request: Request,
        }
        read(line, |line: Line| (line.version, line.request))
    }
}

impl Answer {
    /// The answer as a line. Where it would be too long, the errors in it are cut short.
    pub fn encode(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            version: u32,
            answer: &'a Answer,
        }
        let whole = line(&Line { version: VERSION, answer: self });
        if whole.len() <= ANSWER_BYTES_MAX {
            return whole;
        }
        let answer = match self {
            Answer::Progress(view) => Answer::Progress(view.shortened()),
            Answer::Done(view) => Answer::Done(view.shortened()),
            Answer::Purged => Answer::Purged,
            Answer::Refused(words) => Answer::Refused(words.chars().take(WORDS_MAX).collect()),
        };
        line(&Line { version: VERSION, answer: &answer })
    }

    /// Reads a line.
    ///
    /// # Errors
    ///
    /// The line is no answer of this version, or something in it is beyond its bounds.
    pub fn decode(line: &[u8]) -> Result<Answer, RequestError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Line {
            version: u64,
            answer: Answer,
        }
        match read(line, |line: Line| (line.version, line.answer))? {
            Answer::Refused(words) => Ok(Answer::Refused(printable(&words).into_owned())),
            answer => Ok(answer),
        }
    }

    /// Whether no other answer follows.
    pub fn is_last(&self) -> bool {
        !matches!(self, Answer::Progress(_))
    }
}

fn line(message: &impl Serialize) -> String {
    let text = serde_json::to_string(message);
    text.expect("because structs of texts and finite numbers have a JSON") + "\n"
}

/// Reads a line by its form. Of one that does not fit, the version alone is looked at: what has
/// changed since need not be understood.
fn read<L: DeserializeOwned, T>(
    line: &[u8],
    parts: impl FnOnce(L) -> (u64, T),
) -> Result<T, RequestError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let error = match serde_json::from_slice::<L>(line).map(parts) {
        Ok((version, message)) if version == u64::from(VERSION) => return Ok(message),
        Ok((version, _)) => return Err(RequestError::Version(version)),
        Err(error) => error,
    };
    match serde_json::from_slice::<Versioned>(line) {
        Ok(Versioned { version }) if version != u64::from(VERSION) => {
            Err(RequestError::Version(version))
        }
        _ => {
            let why: String = error.to_string().chars().take(WORDS_MAX).collect();
            Err(RequestError::Garbled(printable(&why).into_owned()))
        }
    }
}

/// One series of a request: `days` back, or from `start` up to `end`, Unix ms.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Want {
    #[serde(serialize_with = "spell", deserialize_with = "spelt")]
    series: Series,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    days: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<Millis>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<Millis>,
}

impl Want {
    fn new(series: &Series, wanted: Wanted) -> Want {
        let mut want = Want { series: series.clone(), days: None, start: None, end: None };
        match wanted {
            Wanted::Days(days) => want.days = Some(days),
            Wanted::Range(span) => {
                // No bar lies outside: a range without an end ends there.
                want.start = Some(span.start.clamp(0, TIME_MAX));
                want.end = Some(span.end.clamp(0, TIME_MAX));
            }
        }
        want
    }

    fn check(self) -> Result<(Series, Wanted), String> {
        let wanted = match (self.days, self.start, self.end) {
            (Some(days), None, None) if DAYS.contains(&days) => Wanted::Days(days),
            (None, Some(start), Some(end)) if 0 <= start && start < end && end <= TIME_MAX => {
                Wanted::Range(Span::new(start, end))
            }
            _ => return Err(format!("{}: give days or a range within their bounds", self.series)),
        };
        Ok((self.series, wanted))
    }
}

fn write_fill<S: Serializer>(wanted: &[(Series, Wanted)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(wanted.iter().map(|(series, wanted)| Want::new(series, *wanted)))
}

fn read_fill<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(Series, Wanted)>, D::Error> {
    let wants = Vec::<Want>::deserialize(from)?;
    if wants.is_empty() || wants.len() > SERIES_MAX {
        let counted = wants.len();
        return Err(D::Error::custom(format!("{counted} series: give 1 to {SERIES_MAX}")));
    }
    let mut named = BTreeSet::new();
    let checked = wants.into_iter().map(|want| {
        let (series, wanted) = want.check().map_err(D::Error::custom)?;
        match named.insert(series.clone()) {
            true => Ok((series, wanted)),
            false => Err(D::Error::custom(format!("{series} is named twice"))),
        }
    });
    checked.collect()
}

/// A series and its ranges, each from a start up to an end, Unix ms.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranges {
    #[serde(serialize_with = "spell", deserialize_with = "spelt")]
    series: Series,
    ranges: Vec<(Millis, Millis)>,
}

fn write_recheck<S: Serializer>(series: &Series, spans: &Spans, to: S) -> Result<S::Ok, S::Error> {
    let ranges = spans.iter().map(|span| (span.start, span.end)).collect();
    Ranges { series: series.clone(), ranges }.serialize(to)
}

fn read_recheck<'de, D: Deserializer<'de>>(from: D) -> Result<(Series, Spans), D::Error> {
    let Ranges { series, ranges } = Ranges::deserialize(from)?;
    if ranges.is_empty() || ranges.len() > RANGES_MAX {
        let counted = ranges.len();
        return Err(D::Error::custom(format!("{counted} ranges: give 1 to {RANGES_MAX}")));
    }
    let sound = |&(start, end): &(Millis, Millis)| 0 <= start && start < end && end <= TIME_MAX;
    if !ranges.iter().all(sound) {
        return Err(D::Error::custom(format!("{series}: give ranges within their bounds")));
    }
    Ok((series, ranges.into_iter().map(|(start, end)| Span::new(start, end)).collect()))
}

fn write_purge<S: Serializer>(instrument: &Instrument, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(instrument.as_str())
}

fn read_purge<'de, D: Deserializer<'de>>(from: D) -> Result<Instrument, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::HISTORY_DAYS;
    use crate::store::query::EVERYTHING;
    use crate::view::LineView;
    use crate::view::tests::sample;
    use crate::wire::wild;

    fn series(name: &str) -> Series {
        Series { instrument: name.parse().unwrap(), bar: "12Hutc".parse().unwrap() }
    }

    fn fill(wanted: &[(Series, Wanted)]) -> Request {
        Request::Fill { wanted: wanted.to_vec() }
    }

    #[test]
    fn requests_come_back_as_they_went() {
        let (btc, eth) = (series("BTC-USDT"), series("ETH-USDT"));
        for request in [
            fill(&[(btc.clone(), Wanted::Days(1)), (eth.clone(), Wanted::Days(10_000))]),
            fill(&[(btc, Wanted::Range(Span::new(0, TIME_MAX)))]),
            Request::Recheck {
                series: eth.clone(),
                spans: [Span::new(0, 5), Span::new(7, TIME_MAX)].into_iter().collect(),
            },
            Request::Purge { instrument: eth.instrument },
        ] {
            let line = request.encode();
            assert!(line.ends_with('\n') && !line.trim_end().contains('\n'), "{line}");
            assert_eq!(Request::decode(line.as_bytes()).unwrap(), request);
        }
    }

    #[test]
    fn answers_come_back_as_they_went() {
        for answer in [
            Answer::Progress(sample()),
            Answer::Done(View::default()),
            Answer::Purged,
            Answer::Refused("busy".into()),
        ] {
            let line = answer.encode();
            assert!(line.ends_with('\n') && !line.trim_end().contains('\n'), "{line}");
            assert_eq!(Answer::decode(line.as_bytes()).unwrap(), answer);
            assert_eq!(answer.is_last(), !matches!(answer, Answer::Progress(_)));
        }
    }

    /// `backfill --start` without an end wants all that follows.
    #[test]
    fn a_range_without_an_end_ends_where_time_does() {
        let open = Span::new(1_714_521_600_000, EVERYTHING.end);
        let line = fill(&[(series("BTC-USDT"), Wanted::Range(open))]).encode();
        let read = Request::decode(line.as_bytes()).unwrap();
        let span = Span::new(open.start, TIME_MAX);
        assert_eq!(read, fill(&[(series("BTC-USDT"), Wanted::Range(span))]));
    }

    #[test]
    fn hostile_lines_are_refused() {
        let one = |rest: &str| {
            format!(r#"{{"version":1,"request":{{"fill":[{{"series":"BTC-USDT 1m"{rest}}}]}}}}"#)
        };
        let other = |request: &str| format!(r#"{{"version":1,"request":{request}}}"#);
        let twice = r#"{"series":"BTC-USDT 1m","days":1}"#;
        for (name, line) in [
            ("nothing", String::new()),
            ("no JSON", "GET / HTTP/1.1\r".into()),
            ("not UTF-8", "\u{0}".into()),
            ("a torn line", one(",\"days\":1")[..40].into()),
            ("two values", one(",\"days\":1") + "{}"),
            ("deep", "[".repeat(100_000)),
            ("no days", one("")),
            ("no days at all", one(",\"days\":0")),
            ("too many days", one(",\"days\":10001")),
            ("days below zero", one(",\"days\":-1")),
            ("days beyond numbers", one(",\"days\":4294967297")),
            ("half a day", one(",\"days\":0.5")),
            ("no end", one(",\"start\":5")),
            ("no start", one(",\"end\":5")),
            ("nothing between", one(",\"start\":5,\"end\":5")),
            ("backwards", one(",\"start\":6,\"end\":5")),
            ("before all time", one(",\"start\":-1,\"end\":5")),
            ("after all time", one(",\"start\":0,\"end\":253402300800000")),
            ("beyond numbers", one(",\"start\":0,\"end\":9223372036854775808")),
            ("both", one(",\"days\":1,\"start\":0,\"end\":5")),
            ("more", one(",\"days\":1,\"force\":true")),
            ("no series", other(r#"{"fill":[]}"#)),
            ("twice the same", other(&format!(r#"{{"fill":[{twice},{twice}]}}"#))),
            ("no ranges", other(r#"{"recheck":{"series":"BTC-USDT 1m","ranges":[]}}"#)),
            ("an empty range", other(r#"{"recheck":{"series":"BTC-USDT 1m","ranges":[[5,5]]}}"#)),
            ("half a range", other(r#"{"recheck":{"series":"BTC-USDT 1m","ranges":[[5]]}}"#)),
            ("a range too early", other(r#"{"recheck":{"series":"A-B 1m","ranges":[[-1,5]]}}"#)),
            ("ranges of nothing", other(r#"{"recheck":{"ranges":[[1,5]]}}"#)),
            ("a path", other(r#"{"purge":"../../etc/passwd"}"#)),
            ("an empty name", other(r#"{"purge":""}"#)),
            ("two requests", other(r#"{"purge":"A-B","fill":[]}"#)),
            ("another request", other(r#"{"format":"disk"}"#)),
            ("an answer", Answer::Purged.encode()),
            ("no version", r#"{"request":{"purge":"A-B"}}"#.into()),
        ] {
            let error = Request::decode(line.as_bytes()).unwrap_err();
            assert!(matches!(error, RequestError::Garbled(_)), "{name}: {error}");
            assert!(error.to_string().len() < 400, "{name}: {error}");
        }
        assert!(Request::decode(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn another_version_is_named() {
        for line in [
            r#"{"version":2,"request":{"purge":"A-B"}}"#,
            r#"{"version":2,"wish":{"verify":[]},"priority":9}"#,
        ] {
            assert_eq!(Request::decode(line.as_bytes()), Err(RequestError::Version(2)), "{line}");
            assert_eq!(Answer::decode(line.as_bytes()), Err(RequestError::Version(2)), "{line}");
        }
    }

    #[test]
    fn words_of_a_refusal_are_safe_to_print() {
        let line = Answer::Refused("a\n\u{1b}[2J".into()).encode();
        assert_eq!(Answer::decode(line.as_bytes()), Ok(Answer::Refused("a\\n\\u{1b}[2J".into())));
    }

    /// As many series as there may be, with names as long as they may be.
    fn crowd() -> Vec<Series> {
        let name = |n: usize| format!("{}-{n:05}-ABCDEFGHIJ-ABCDEFGHIJ", "A".repeat(12));
        (0..SERIES_MAX).map(|n| series(&name(n))).collect()
    }

    #[test]
    fn the_longest_messages_fit_into_their_lines() {
        let wanted: Vec<_> = crowd().into_iter().map(|s| (s, Wanted::Days(10_000))).collect();
        let line = fill(&wanted).encode();
        assert!(line.len() <= REQUEST_BYTES_MAX, "{}", line.len());
        assert!(Request::decode(line.as_bytes()).is_ok());
        let more = Request::Fill {
            wanted: [wanted, vec![(series("ONE-MORE"), Wanted::Days(1))]].concat(),
        };
        assert!(Request::decode(more.encode().as_bytes()).is_err(), "one too many");

        let model = sample().lines.remove(1);
        let error = Some("\"".repeat(1_000));
        let lines = crowd().into_iter().map(|series| LineView {
            series,
            error: error.clone(),
            ..model.clone()
        });
        let answer = Answer::Done(View { lines: lines.collect(), ..sample() });
        let line = answer.encode();
        assert!(line.len() <= ANSWER_BYTES_MAX, "{}", line.len());
        let Ok(Answer::Done(view)) = Answer::decode(line.as_bytes()) else { unreachable!() };
        assert_eq!(view.lines.len(), SERIES_MAX);
    }

    #[test]
    fn the_bounds_are_those_of_the_configuration() {
        let days = i64::from(*DAYS.start())..=i64::from(*DAYS.end());
        assert_eq!(days, HISTORY_DAYS);
    }

    proptest! {
        #[test]
        fn no_line_is_beyond_answer(
            line in prop_oneof![
                any::<Vec<u8>>(),
                wild::json().prop_map(String::into_bytes),
                wild::json().prop_map(|it| format!(r#"{{"version":1,"request":{it}}}"#).into()),
                wild::json().prop_map(|it| format!(r#"{{"version":1,"answer":{it}}}"#).into()),
                wild::scalar()
                    .prop_map(|it| format!(r#"{{"version":1,"request":{{"purge":{it}}}}}"#).into()),
                wild::damaged(fill(&[(series("BTC-USDT"), Wanted::Days(5))]).encode()),
                wild::damaged(Answer::Progress(sample()).encode()),
            ],
        ) {
            match Request::decode(&line) {
                Ok(Request::Fill { wanted }) => {
                    prop_assert!(!wanted.is_empty() && wanted.len() <= SERIES_MAX);
                }
                Ok(Request::Recheck { spans, .. }) => prop_assert!(!spans.is_empty()),
                Ok(Request::Purge { instrument }) => {
                    prop_assert_eq!(instrument.as_str().parse(), Ok(instrument.clone()));
                }
                Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
            }
            if let Ok(answer) = Answer::decode(&line) {
                let words = match &answer {
                    Answer::Progress(view) | Answer::Done(view) => {
                        let _ = view.missing();
                        let errors = view.lines.iter().filter_map(|line| line.error.as_deref());
                        errors.chain(view.gave_up.as_deref()).collect::<Vec<_>>().concat()
                    }
                    Answer::Refused(words) => words.clone(),
                    Answer::Purged => String::new(),
                };
                prop_assert!(!words.contains(char::is_control), "{words:?}");
                prop_assert!(answer.encode().len() <= ANSWER_BYTES_MAX + 1);
            }
        }
    }
}
