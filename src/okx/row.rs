//! Rows of candles, `[ts, o, h, l, c, vol, volCcy, volCcyQuote, confirm, …]`: one form and one
//! reader for REST and the stream.
//!
//! Source: <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-candlesticks>.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::candle::Candle;
use crate::okx::PAGE_ROWS_MAX;
use crate::okx::envelope::Scalar;
use crate::page::Refused;
use crate::time::Millis;

/// More rows than any list was ever seen with: what has more of them is no answer to us.
pub(super) const ROWS_MAX: usize = 1_000;
const _: () = assert!(PAGE_ROWS_MAX as usize <= ROWS_MAX);

/// The fields that a row must have. Six, as of mark prices, are no candle; more are ignored.
const FIELDS: usize = 9;

/// The fields of a row, as OKX names them: its time, seven numbers and its confirm.
const NAMES: [&str; FIELDS] = ["ts", "o", "h", "l", "c", "vol", "volCcy", "volCcyQuote", "confirm"];
const LAST: usize = FIELDS - 1;

/// The numbers of a row: its fields but the first and the last.
pub(super) const VALUES: usize = FIELDS - 2;

/// A list of rows, in the order they came. One that is no candle is refused and named, the others
/// are kept; a list of more than `ROWS_MAX` is refused while it is read.
pub(super) struct Rows {
    pub(super) taken: Vec<Candle>,
    pub(super) refused: Vec<Refused>,
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rows, D::Error> {
        deserializer.deserialize_seq(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {ROWS_MAX} rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
        let mut rows = Rows { taken: Vec::new(), refused: Vec::new() };
        while let Some(Row(row)) = seq.next_element()? {
            if rows.taken.len() + rows.refused.len() == ROWS_MAX {
                return Err(A::Error::custom(format_args!("it lists more than {ROWS_MAX}")));
            }
            match row {
                Ok(candle) => rows.taken.push(candle),
                Err(row) => rows.refused.push(row),
            }
        }
        Ok(rows)
    }
}

/// A foreign value, quoted.
pub(super) fn shown(value: &Scalar) -> String {
    /// Enough to recognise a value by.
    const VALUE_MAX: usize = 40;
    let text: String = value.to_string().chars().take(VALUE_MAX).collect();
    format!("{text:?}")
}

/// One row: a candle, or why it is none.
struct Row(Result<Candle, Refused>);

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_any(RowVisitor)
    }
}

/// What stands where a row should: it is refused like one that is too short, for its own sake.
fn no_row<E>() -> Result<Row, E> {
    Ok(Row(Err(Refused { ts: None, why: "it is no list of fields".to_owned() })))
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    /// Takes each field as it comes, and of those that cannot be read remembers the first.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Row, A::Error> {
        let (mut count, mut time, mut confirmed, mut bad) = (0, None, false, None);
        let mut values = [0.0; VALUES];
        while count < FIELDS {
            let Some(field) = seq.next_element::<Scalar>()? else { break };
            let read = match count {
                0 => field.time().map(|ts| time = Some(ts)),
                LAST => field.flag().map(|flag| confirmed = flag),
                _ => field.number().map(|number| values[count - 1] = number),
            };
            if read.is_none() {
                bad.get_or_insert_with(|| format!("its {} is {}", NAMES[count], shown(&field)));
            }
            count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        let short = || format!("it has {count} fields instead of {FIELDS}");
        let bad = if count < FIELDS { Some(short()) } else { bad };
        Ok(Row(match (time, bad) {
            (Some(ts), None) => Ok(candle(ts, values, confirmed)),
            (ts, why) => Err(Refused { ts, why: why.unwrap_or_default() }),
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        no_row()
    }

    fn visit_str<E>(self, _: &str) -> Result<Row, E> {
        no_row()
    }

    fn visit_i64<E>(self, _: i64) -> Result<Row, E> {
        no_row()
    }

    fn visit_u64<E>(self, _: u64) -> Result<Row, E> {
        no_row()
    }

    fn visit_f64<E>(self, _: f64) -> Result<Row, E> {
        no_row()
    }

    fn visit_bool<E>(self, _: bool) -> Result<Row, E> {
        no_row()
    }

    fn visit_unit<E>(self) -> Result<Row, E> {
        no_row()
    }
}

pub(super) fn candle(ts: Millis, values: [f64; VALUES], confirmed: bool) -> Candle {
    let [open, high, low, close, volume, volume_ccy, volume_quote] = values;
    Candle { ts, open, high, low, close, volume, volume_ccy, volume_quote, confirmed }
}
