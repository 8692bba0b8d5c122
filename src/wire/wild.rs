//! What nobody should send: generators of hostile JSON and of damaged bytes, for the properties of
//! every decoder.

use proptest::prelude::*;
use proptest::sample::select;

use crate::time::{MINUTE, TIME_MAX};

/// Values that were once somebody's undoing, as JSON.
const SCALARS: [&str; 40] = [
    "null",
    "true",
    "false",
    "\"\"",
    "0",
    "-0",
    "-1",
    "1e999",
    "-1e999",
    "1e-999",
    "0.1e1",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "4294967296",
    "253402300799999",
    "253402300800000",
    "99999999999999999999999999999999999999999999999999",
    "\"NaN\"",
    "\"-inf\"",
    "\"infinity\"",
    "\"1e999\"",
    "\"0x10\"",
    "\" 1\"",
    "\"-1\"",
    "\"1.5\"",
    "\"-60000\"",
    "\"9223372036854775808\"",
    "\"253402300800000\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\u001b[2J\\n\\u202e\"",
    "\"../../etc/passwd\"",
    "\"BTC-USDT\"",
    "\"candle1m\"",
    "\"60000\"",
    "[]",
    "{}",
];

/// Keys that some decoder looks for.
const KEYS: [&str; 24] = [
    "code",
    "msg",
    "data",
    "arg",
    "event",
    "id",
    "channel",
    "instId",
    "ts",
    "instType",
    "version",
    "request",
    "answer",
    "fill",
    "purge",
    "progress",
    "series",
    "days",
    "start",
    "pid",
    "stream",
    "instruments",
    "symbol",
    "timeframes",
];

/// Any number, often one near a bound.
pub(crate) fn number() -> impl Strategy<Value = i64> {
    const BOUNDS: [i64; 8] =
        [i64::MIN, -TIME_MAX, -1, 0, TIME_MAX, i64::MAX - TIME_MAX, i64::MAX / 2, i64::MAX];
    prop_oneof![
        1 => any::<i64>(),
        1 => -TIME_MAX..=TIME_MAX,
        2 => (select(&BOUNDS[..]), -2i64..3).prop_map(|(bound, off)| bound.saturating_add(off)),
    ]
}

/// A value without parts.
pub(crate) fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(&SCALARS[..]).prop_map(str::to_owned),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<f64>().prop_map(|number| serde_json::json!(number).to_string()),
        1 => any::<f64>().prop_map(|number| format!("\"{number}\"")),
        1 => any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
    ]
}

/// A key: one that is looked for, or anything; now and then the same twice in an object.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(&KEYS[..]).prop_map(|key| format!("{key:?}")),
        1 => any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
    ]
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}

fn object(members: impl IntoIterator<Item = (String, String)>) -> String {
    let members = members.into_iter().map(|(key, value)| format!("{key}:{value}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

/// Any JSON: lists and objects within each other, and at times a tower of them.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let value = scalar().prop_recursive(5, 60, 10, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..11).prop_map(list),
            prop::collection::vec((key(), inner), 0..7).prop_map(object),
        ]
    });
    prop_oneof![
        20 => value,
        1 => (1usize..3_000).prop_map(|floors| "[".repeat(floors) + &"]".repeat(floors)),
        1 => (1usize..3_000).prop_map(|floors| "{\"data\":".repeat(floors) + &"}".repeat(floors)),
    ]
}

/// One way to damage bytes. Places are shares of the whole, in ten-thousandths.
#[derive(Clone, Debug)]
enum Blow {
    Change(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
    Cut(usize),
}

fn blow() -> impl Strategy<Value = Blow> {
    let place = || 0usize..10_000;
    prop_oneof![
        3 => (place(), any::<u8>()).prop_map(|(at, byte)| Blow::Change(at, byte)),
        2 => (place(), 1usize..30).prop_map(|(at, length)| Blow::Remove(at, length)),
        3 => (place(), scalar()).prop_map(|(at, text)| Blow::Insert(at, text.into_bytes())),
        1 => (place(), any::<Vec<u8>>()).prop_map(|(at, bytes)| Blow::Insert(at, bytes)),
        2 => (place(), 1usize..60).prop_map(|(at, length)| Blow::Repeat(at, length)),
        1 => place().prop_map(Blow::Cut),
    ]
}

/// Good bytes that were struck a few times.
pub(crate) fn damaged(good: impl Into<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let good = good.into();
    prop::collection::vec(blow(), 1..5).prop_map(move |blows| {
        let mut bytes = good.clone();
        for blow in blows {
            let at = |place: usize| place * bytes.len() / 10_000;
            match blow {
                Blow::Change(place, with) => {
                    let at = at(place);
                    bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = with);
                }
                Blow::Remove(place, length) => {
                    let at = at(place);
                    bytes.drain(at..(at + length).min(bytes.len()));
                }
                Blow::Insert(place, more) => {
                    let at = at(place);
                    bytes.splice(at..at, more);
                }
                Blow::Repeat(place, length) => {
                    let at = at(place);
                    let part = bytes[at..(at + length).min(bytes.len())].to_vec();
                    bytes.splice(at..at, part);
                }
                Blow::Cut(place) => bytes.truncate(at(place)),
            }
        }
        bytes
    })
}

/// A row of a candle of that minute, as OKX writes it.
pub(crate) fn good_row(minute: i64) -> String {
    let ts = minute * MINUTE;
    format!(r#"["{ts}","2","3","1","2.5","9","9","9","1"]"#)
}

/// What stands where a row should, and is none: too short, of another kind, or with one field that
/// is no number.
pub(crate) fn bad_row() -> impl Strategy<Value = String> {
    const BAD: [&str; 9] =
        ["\"NaN\"", "\"inf\"", "\"\"", "null", "[1]", "{}", "true", "\"1,5\"", "\"1e999\""];
    let fields = || good_row(7).trim_matches(['[', ']']).split(',').map(str::to_owned).collect();
    let short = (0usize..9).prop_map(move |count| {
        let fields: Vec<String> = fields();
        list(fields.into_iter().take(count))
    });
    let spoilt = (0usize..9, select(&BAD[..])).prop_map(move |(at, bad)| {
        let mut fields: Vec<String> = fields();
        fields[at] = bad.to_owned();
        list(fields)
    });
    let far =
        select(&["\"-1\"", "-60000", "\"253402300800000\"", "1e300"][..]).prop_map(move |ts| {
            let mut fields: Vec<String> = fields();
            fields[0] = ts.to_owned();
            list(fields)
        });
    let other = prop_oneof![
        select(&["null", "{}", "7", "\"row\"", "true", "{\"ts\":\"60000\"}", "1.5"][..])
            .prop_map(str::to_owned),
        (1usize..100).prop_map(|floors| "[".repeat(floors) + &"]".repeat(floors)),
    ];
    prop_oneof![short, spoilt, far, other]
}

/// Rows of which some are none, with the minutes of the good ones, each once.
pub(crate) fn rows() -> impl Strategy<Value = (Vec<i64>, Vec<String>)> {
    prop::collection::vec(prop::option::weighted(0.5, bad_row()), 0..40).prop_map(|rows| {
        let good = |(n, row): (usize, &Option<String>)| row.is_none().then_some(n as i64);
        let minutes = rows.iter().enumerate().filter_map(good).collect();
        let texts = rows.into_iter().enumerate();
        let texts = texts.map(|(n, row)| row.unwrap_or_else(|| good_row(n as i64)));
        (minutes, texts.collect())
    })
}
