//! A push exactly as the exchange writes it: no blank, no escape, no key but those documented.
//! Thousands of them come each minute, and to know their form beforehand saves most of the time
//! that reading any JSON takes.

use std::borrow::Cow;

use crate::candle::Candle;
use crate::okx::envelope::Scalar;
use crate::okx::row::{self, ROWS_MAX};

/// The channel, the instrument and the rows of such a push. `None` says nothing about a text but
/// that it has to be read as JSON.
///
/// What stands between two quotes is taken as it is, so whoever takes it must refuse a backslash
/// and a control character: a number has a place for neither, nor has a series' name.
pub(super) fn read(text: &str) -> Option<(&str, &str, Vec<Candle>)> {
    let (channel, text) = quoted(text.strip_prefix(r#"{"arg":{"channel":"#)?)?;
    let (instrument, text) = quoted(text.strip_prefix(r#","instId":"#)?)?;
    let mut text = text.strip_prefix(r#"},"data":["#)?;
    let mut rows = Vec::new();
    while rows.len() < ROWS_MAX {
        let (candle, rest) = row(text)?;
        rows.push(candle);
        if rest == "]}" {
            return Some((channel, instrument, rows));
        }
        text = rest.strip_prefix(',')?;
    }
    None
}

/// The candle of a row that has the documented fields, and what comes after it.
fn row(text: &str) -> Option<(Candle, &str)> {
    let (ts, mut text) = quoted(text.strip_prefix('[')?)?;
    let mut values = [0.0; row::VALUES];
    for value in &mut values {
        let (number, rest) = quoted(text.strip_prefix(',')?)?;
        (*value, text) = (scalar(number).number()?, rest);
    }
    let (confirm, text) = quoted(text.strip_prefix(',')?)?;
    let candle = row::candle(scalar(ts).time()?, values, scalar(confirm).flag()?);
    Some((candle, text.strip_prefix(']')?))
}

/// What stands in quotes, and what comes after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('"')?.split_once('"')
}

fn scalar(text: &str) -> Scalar<'_> {
    Scalar::Text(Cow::Borrowed(text))
}
