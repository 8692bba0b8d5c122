//! What every REST answer of OKX is wrapped in, `{"code":"0","msg":"","data":[…]}`, and the
//! scalars inside it.
//!
//! Read straight from the bytes: texts stay borrowed, nothing is built that is not kept.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::okx::code;
use crate::time::{Millis, TIME_MAX};
use crate::wire::{Answer, Plain, Trouble};

/// The wrapping. `data` is missing from the answers of the gateway, `code` was seen as text and as
/// a number, and the order of the keys differs between hosts.
#[derive(Deserialize)]
struct Envelope<'a, T> {
    #[serde(borrow, default)]
    code: Scalar<'a>,
    #[serde(borrow, default)]
    msg: Scalar<'a>,
    #[serde(default = "Option::default")]
    data: Option<T>,
}

/// Takes the data out of a good answer, or says what is the trouble.
pub(super) fn open<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, Trouble> {
    let undecodable = |why: Plain| Err(Trouble::Undecodable { host: answer.host.clone(), why });
    let is_from_edge = || answer.status != 200 || is_markup(&answer.body);
    // Looked at as a whole, which is faster than one text after the other.
    let text = match str::from_utf8(&answer.body) {
        Ok(text) => text,
        Err(_) if is_from_edge() => return Err(code::edge(answer)),
        Err(error) => return undecodable(Plain::of(error)),
    };
    let error = match serde_json::from_str::<Envelope<'a, T>>(text) {
        Ok(envelope) => match (envelope.judge(answer), envelope.data) {
            (Some(trouble), _) => return Err(trouble),
            (None, Some(data)) => return Ok(data),
            (None, None) => return undecodable("it has no data".into()),
        },
        Err(error) => error,
    };
    // An error may bring data of any form along: the exchange's own words count for more.
    match serde_json::from_str::<Envelope<'a, IgnoredAny>>(text) {
        Ok(envelope) => match envelope.judge(answer) {
            Some(trouble) => Err(trouble),
            None => undecodable(Plain::of(error)),
        },
        Err(_) if is_from_edge() => Err(code::edge(answer)),
        Err(_) => undecodable(Plain::of(error)),
    }
}

impl<T> Envelope<'_, T> {
    fn judge(&self, answer: &Answer) -> Option<Trouble> {
        match (self.code.is_zero(), answer.status) {
            (true, 200) => None,
            (false, _) if self.code.is_text() => {
                Some(code::refused(answer, Plain::of(&self.code), Plain::of(&self.msg)))
            }
            (false, 200) => {
                let why = "it has no code".into();
                Some(Trouble::Undecodable { host: answer.host.clone(), why })
            }
            _ => Some(code::edge(answer)),
        }
    }
}

/// Whether a body is a web page, or XML: the mark of a proxy.
fn is_markup(body: &[u8]) -> bool {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    text.trim_ascii_start().starts_with(b"<")
}

/// One value of the wire. Documented are texts alone; numbers are taken as well.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Scalar<'a> {
    Text(Cow<'a, str>),
    Whole(i64),
    Float(f64),
    /// Nothing at all, or what is neither text nor number.
    #[default]
    Other,
}

impl Scalar<'_> {
    /// A finite number. Texts are read as Rust reads them, which is exact: the shortest print of
    /// the result has the digits that came.
    pub(super) fn number(&self) -> Option<f64> {
        let number = match self {
            Scalar::Text(text) => decimal(text).or_else(|| text.parse().ok())?,
            Scalar::Whole(whole) => *whole as f64,
            Scalar::Float(float) => *float,
            Scalar::Other => return None,
        };
        number.is_finite().then_some(number)
    }

    /// A point in time that arithmetic can be done with.
    pub(super) fn time(&self) -> Option<Millis> {
        let time = match self {
            Scalar::Text(text) => text.parse().ok()?,
            Scalar::Whole(whole) => *whole,
            Scalar::Float(_) | Scalar::Other => return None,
        };
        (0..=TIME_MAX).contains(&time).then_some(time)
    }

    /// `1` or `0`.
    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Scalar::Text(text) if text == "0" => Some(false),
            Scalar::Text(text) if text == "1" => Some(true),
            Scalar::Whole(0) => Some(false),
            Scalar::Whole(1) => Some(true),
            _ => None,
        }
    }

    /// The text, or nothing where there is none.
    pub(super) fn text(&self) -> &str {
        if let Scalar::Text(text) = self { text } else { "" }
    }

    /// Whether it is the code of no error.
    pub(super) fn is_zero(&self) -> bool {
        self.flag() == Some(false)
    }

    /// Whether it can be a code.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Scalar::Whole(_)) || !self.text().is_empty()
    }
}

/// Reads what nearly all prices and volumes are, a few digits with a point among them, in a third
/// of the time that any number takes. It is as exact: the digits as a whole number and the power of
/// ten are both an `f64` without loss, so to divide them is the only rounding.
fn decimal(text: &str) -> Option<f64> {
    /// Up to here each whole number is an `f64`.
    const WHOLE_MAX: u64 = 1 << 53;
    const POWERS: [f64; 17] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    ];
    if text.len() > POWERS.len() {
        return None;
    }
    let (mut whole, mut point) = (0, None);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => whole = 10 * whole + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let decimals = point.map_or(0, |at| text.len() - at - 1);
    let has_digits = text.len() > usize::from(point.is_some());
    (has_digits && whole <= WHOLE_MAX).then(|| whole as f64 / POWERS[decimals])
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Text(text) => f.write_str(text),
            Scalar::Whole(whole) => write!(f, "{whole}"),
            Scalar::Float(float) => write!(f, "{float}"),
            Scalar::Other => Ok(()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar<'a>, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, whole: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(whole))
    }

    fn visit_u64<E>(self, whole: u64) -> Result<Scalar<'de>, E> {
        Ok(i64::try_from(whole).map_or(Scalar::Float(whole as f64), Scalar::Whole))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(float))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}

/// A list of at most `MAX` items: a longer one is refused while it is read, before it costs memory.
pub(super) struct Few<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Few<T, MAX>, D::Error> {
        deserializer.deserialize_seq(FewVisitor(PhantomData))
    }
}

struct FewVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for FewVisitor<T, MAX> {
    type Value = Few<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T, MAX>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == MAX {
                return Err(A::Error::custom(format_args!("it lists more than {MAX}")));
            }
            items.push(item);
        }
        Ok(Few(items))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_finite_and_exact() {
        for (text, number) in [
            ("\"0.0000000001\"", 1e-10),
            ("\"1e5\"", 1e5),
            ("\"62000000000000.00\"", 6.2e13),
            ("\"-1.5\"", -1.5),
            ("\"\\u0031.5\"", 1.5),
            ("1.5", 1.5),
            ("-7", -7.0),
            // A number that serde_json's fast path would read one digit off.
            ("0.9990000000000001", 0.9990000000000001),
            ("18446744073709551615", 18446744073709551615.0),
        ] {
            let read: Scalar = serde_json::from_str(text).unwrap();
            assert_eq!(read.number(), Some(number), "{text}");
        }
        for text in [
            "\"\"",
            "\"NaN\"",
            "\"inf\"",
            "\"-infinity\"",
            "\"1e999\"",
            "\"1,5\"",
            "\" 1\"",
            "null",
            "true",
            "[1]",
            "{\"a\":1}",
        ] {
            let read: Scalar = serde_json::from_str(text).unwrap();
            assert_eq!(read.number(), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_reads_what_the_long_way_reads(
            text in prop_oneof!["[0-9]{0,17}", "[0-9]{0,9}[.][0-9]{0,9}", "[0-9.eE+-]{0,8}"],
        ) {
            if let Some(number) = decimal(&text) {
                prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(number.to_bits()));
            }
        }
    }

    #[test]
    fn times_are_whole_and_neither_negative_nor_far_away() {
        let time = |text: &str| serde_json::from_str::<Scalar>(text).unwrap().time();
        assert_eq!(time("\"1763629260000\""), Some(1_763_629_260_000));
        assert_eq!(time("1763629260000"), Some(1_763_629_260_000));
        assert_eq!(time(&TIME_MAX.to_string()), Some(TIME_MAX));
        for text in ["-1", "\"-1\"", "253402300800000", "\"9223372036854775808\"", "1.5", "\"\""] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn proxies_are_known_by_their_markup() {
        assert!(is_markup(b"\xef\xbb\xbf \r\n<!DOCTYPE html>"));
        assert!(!is_markup(b"{\"msg\":\"<html>\"}") && !is_markup(b""));
    }
}
