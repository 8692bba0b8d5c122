//! Reading the exchange's texts, beside serde_json's own generic value of the same bytes.

use okx_local_store::candle::Candle;
use okx_local_store::okx::{PAGE_ROWS_MAX, decode_page, stream};
use okx_local_store::page::Ask;
use okx_local_store::wire::Answer;

use crate::candles::minutes;
use crate::measure::{Pair, by_turns, per_call};
use crate::table::{Line, Target};
use crate::yard::Yard;

/// A row as OKX writes it.
pub fn row(candle: &Candle) -> String {
    let values = candle.values().map(|value| value.to_string()).join("\",\"");
    format!("[\"{}\",\"{values}\",\"{}\"]", candle.ts, u8::from(candle.confirmed))
}

/// A push as OKX writes it.
pub fn push(symbol: &str, bar: &str, candle: &Candle) -> String {
    let arg = format!("{{\"channel\":\"candle{bar}\",\"instId\":\"{symbol}\"}}");
    format!("{{\"arg\":{arg},\"data\":[{}]}}", row(candle))
}

pub fn decode(_: &Yard) -> Result<Vec<Line>, String> {
    let mut rows: Vec<String> =
        minutes(PAGE_ROWS_MAX as usize).map(|candle| row(&candle)).collect();
    rows.reverse();
    let body =
        format!("{{\"code\":\"0\",\"msg\":\"\",\"data\":[{}]}}", rows.join(",")).into_bytes();
    let answer = Answer { host: "h".into(), status: 200, retry_after_ms: None, body };
    let ask = Ask::Newest { limit: PAGE_ROWS_MAX, until: 0 };
    let generic = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let page = by_turns(
        21,
        || per_call(200, || drop(decode_page(ask, &answer).unwrap())),
        || per_call(200, || drop(generic(&answer.body))),
    );
    let text = push("BTC-USDT", "1m", &minutes(1).next().unwrap());
    let push = by_turns(
        21,
        || per_call(20_000, || drop(stream::decode(&text).unwrap())),
        || per_call(20_000, || drop(generic(text.as_bytes()))),
    );
    let line = |what, pair: Pair| {
        Line::new(what, pair.time_ratio(), Target::AtMost(0.5), pair.to_string())
    };
    Ok(vec![
        line("decoding a page of 300 rows: serde_json's generic value", page),
        line("decoding a push: serde_json's generic value", push),
    ])
}
