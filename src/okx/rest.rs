//! Candle pages and the exchange's clock: their paths, and their answers read into words.
//!
//! Rows come newest first. Sources:
//! <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-candlesticks> and, for the
//! clock, <https://www.okx.com/docs-v5/en/#public-data-rest-api-get-system-time>.

use serde::Deserialize;

use crate::instrument::Series;
use crate::okx::PAGE_ROWS_MAX;
use crate::okx::envelope::{Scalar, open};
use crate::okx::row::{Rows, shown};
use crate::page::{Ask, Page};
use crate::time::Millis;
use crate::wire::{Answer, Endpoint, Plain, Trouble};

/// Where the exchange tells its time.
pub const TIME_PATH: &str = "/api/v5/public/time";

/// The path and query of a page of candles. `endpoint` is one of the two that have pages.
///
/// `after` and `before` are both exclusive, and `before` without `after` gives the newest rows
/// rather than the next ones: a window needs both.
///
/// ```
/// use okx_local_store::instrument::Series;
/// use okx_local_store::okx::page_path;
/// use okx_local_store::page::Ask;
/// use okx_local_store::span::Span;
/// use okx_local_store::wire::Endpoint;
///
/// let series = Series { instrument: "BTC-USDT".parse().unwrap(), bar: "1m".parse().unwrap() };
/// let ask = Ask::Window { span: Span::new(60_000, 180_000), limit: 2 };
/// assert_eq!(
///     page_path(&series, Endpoint::History, ask),
///     "/api/v5/market/history-candles?instId=BTC-USDT&bar=1m&before=59999&after=180000&limit=2",
/// );
/// ```
pub fn page_path(series: &Series, endpoint: Endpoint, ask: Ask) -> String {
    let page = match endpoint {
        Endpoint::Candles => "candles",
        Endpoint::History => "history-candles",
        Endpoint::Time | Endpoint::Instruments => {
            unreachable!("{endpoint} has no pages of candles")
        }
    };
    let Series { instrument, bar } = series;
    let window = match ask {
        Ask::Newest { .. } => String::new(),
        // Nothing opens before the epoch, so a window from there needs no lower bound.
        Ask::Window { span, .. } if span.start > 0 => {
            format!("&before={}&after={}", span.start - 1, span.end)
        }
        Ask::Window { span, .. } => format!("&after={}", span.end),
        Ask::Below { end } => format!("&after={end}"),
    };
    let limit = ask.limit().clamp(1, PAGE_ROWS_MAX);
    format!("/api/v5/market/{page}?instId={instrument}&bar={bar}{window}&limit={limit}")
}

/// Reads a page of candles. A row that is none is refused and named, the others are kept.
///
/// ```
/// use okx_local_store::okx::decode_page;
/// use okx_local_store::page::Ask;
/// use okx_local_store::wire::Answer;
///
/// let body = br#"{"code":"0","msg":"","data":[["60000","2","3","1","2.5","9","9","9","1"]]}"#;
/// let answer =
///     Answer { host: "h".into(), status: 200, retry_after_ms: None, body: body.to_vec() };
/// let page = decode_page(Ask::Newest { limit: 300, until: 0 }, &answer).unwrap();
/// assert_eq!((page.rows[0].ts, page.rows[0].close, page.rows[0].confirmed), (60_000, 2.5, true));
/// ```
pub fn decode_page(ask: Ask, answer: &Answer) -> Result<Page, Trouble> {
    let Rows { taken, refused } = open(answer)?;
    Ok(Page::new(ask, taken, refused))
}

/// Reads the exchange's time, Unix ms.
pub fn decode_time(answer: &Answer) -> Result<Millis, Trouble> {
    #[derive(Deserialize)]
    struct Clock<'a> {
        #[serde(borrow)]
        ts: Scalar<'a>,
    }
    let [Clock { ts }] = open::<[Clock; 1]>(answer)?;
    ts.time().ok_or_else(|| Trouble::Undecodable {
        host: answer.host.clone(),
        why: Plain::of(format_args!("ts is {}", shown(&ts))),
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::candle::Candle;
    use crate::okx::decode_instruments;
    use crate::okx::row::ROWS_MAX;
    use crate::span::Span;
    use crate::time::{MINUTE, TIME_MAX};
    use crate::wire::{Policy, wild};

    const NEWEST: Ask = Ask::Newest { limit: PAGE_ROWS_MAX, until: 0 };

    fn answer(status: u16, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref().to_vec();
        Answer { host: "www.okx.com".into(), status, retry_after_ms: None, body }
    }

    fn page(body: impl AsRef<[u8]>) -> Page {
        decode_page(NEWEST, &answer(200, body)).unwrap()
    }

    fn trouble(status: u16, body: impl AsRef<[u8]>) -> String {
        decode_page(NEWEST, &answer(status, body)).unwrap_err().to_string()
    }

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../fixtures/", $name))
        };
    }

    #[test]
    fn paths_ask_what_was_meant() {
        let series =
            Series { instrument: "BTC-USDT-SWAP".parse().unwrap(), bar: "1dutc".parse().unwrap() };
        let window = |start, end, limit| Ask::Window { span: Span::new(start, end), limit };
        for (endpoint, ask, rest) in [
            (Endpoint::Candles, NEWEST, "candles?*&limit=300"),
            (Endpoint::History, window(5, 9, 4), "history-candles?*&before=4&after=9&limit=4"),
            (Endpoint::Candles, window(0, 9, 301), "candles?*&after=9&limit=300"),
            (Endpoint::History, Ask::Below { end: 7 }, "history-candles?*&after=7&limit=1"),
        ] {
            let rest = rest.replace('*', "instId=BTC-USDT-SWAP&bar=1Dutc");
            assert_eq!(page_path(&series, endpoint, ask), format!("/api/v5/market/{rest}"));
        }
    }

    #[test]
    fn a_page_begins_with_the_running_bar_and_is_turned_round() {
        let page = page(fixture!("rest_candles_running.json"));
        assert_eq!(page.rows.len(), 2);
        assert!(page.rows[0].confirmed && !page.rows[1].confirmed);
        let closed = &page.rows[0];
        assert_eq!(closed.ts, 1_822_587_060_000);
        assert_eq!(
            closed.values(),
            [93851.5, 93851.6, 93851.5, 93851.5, 0.04613581, 7691.791508091, 7691.791508091]
        );
    }

    #[test]
    fn volumes_of_derivatives_keep_their_columns() {
        let page = page(fixture!("rest_candles_swap.json"));
        let row = page.rows.last().unwrap();
        assert_eq!((row.volume, row.volume_ccy, row.volume_quote), (21170.0, 2117.0, 232474.202));
    }

    #[test]
    fn days_open_when_the_exchange_opens_them() {
        let grid = "1D".parse::<crate::bar::Bar>().unwrap().grid();
        let page = page(fixture!("rest_candles_day.json"));
        assert!(page.rows.iter().all(|row| grid.opens_at(row.ts)));
    }

    #[test]
    fn minutes_without_a_trade_are_rows() {
        let page = page(fixture!("rest_history_flat.json"));
        assert_eq!((page.rows.len(), page.refused.len()), (4, 0));
        let flat = &page.rows[1];
        assert!(flat.confirmed && flat.volume == 0.0);
        assert_eq!([flat.open, flat.high, flat.low], [flat.close; 3]);
    }

    #[test]
    fn prices_come_back_digit_for_digit() {
        let body = fixture!("rest_history_ten_decimals.json");
        let text = std::str::from_utf8(body).unwrap();
        for row in page(body).rows {
            for price in &row.values()[..4] {
                assert!(text.contains(&format!("\"{price}\"")), "{price}");
            }
        }
        assert_eq!(page(body).rows[0].volume, 62_000_000_000_000.0);
    }

    #[test]
    fn an_empty_page_is_no_trouble() {
        assert_eq!(page(fixture!("rest_history_empty.json")).rows, []);
    }

    #[test]
    fn whatever_else_is_said_is_not_heard() {
        let page = page(fixture!("rest_candles_more_fields.json"));
        assert_eq!((page.rows.len(), page.refused.len()), (2, 0));
    }

    #[test]
    fn code_and_values_may_be_numbers() {
        let page = page(fixture!("rest_candles_numbers.json"));
        assert_eq!((page.rows.len(), page.refused.len()), (1, 0));
        assert_eq!((page.rows[0].ts, page.rows[0].close), (1_822_587_060_000, 93851.5));
    }

    #[test]
    fn odd_rows_are_kept_as_given() {
        let page = page(fixture!("rest_history_odd.json"));
        assert!(page.refused.is_empty() && page.rows.iter().all(Candle::is_odd));
    }

    #[test]
    fn rows_that_are_no_candles_are_named_and_the_others_kept() {
        let six = page(fixture!("rest_candles_six_fields.json"));
        assert_eq!((six.rows.len(), six.refused.len()), (0, 2));
        assert_eq!(six.refused[0].ts, Some(1_822_587_120_000));
        assert_eq!(six.refused[0].why, "it has 6 fields instead of 9");
        let page = page(fixture!("rest_history_bad_rows.json"));
        assert_eq!(page.rows.len(), 1);
        let refused: Vec<(Option<Millis>, &str)> =
            page.refused.iter().map(|row| (row.ts, row.why.as_str())).collect();
        assert_eq!(
            refused,
            [
                (Some(1_822_587_060_000), "its o is \"NaN\""),
                (Some(1_791_137_400_000), "its h is \"inf\""),
                (Some(1_791_137_340_000), "its vol is \"\""),
                (Some(1_791_137_280_000), "its confirm is \"2\""),
                (None, "its ts is \"-60000\""),
                (None, "its ts is \"253402300800000\""),
                (Some(1_791_137_100_000), "its c is \"\""),
                (None, "it has 0 fields instead of 9"),
            ]
        );
    }

    #[test]
    fn refusals_keep_the_exchange_s_own_words() {
        for (status, body, text) in [
            (429, &fixture!("rest_rate_limited.json")[..], "50011: Too Many Requests"),
            (
                200,
                fixture!("rest_no_instrument.json"),
                "51001: Instrument ID, Instrument ID code, or Spread ID doesn't exist.",
            ),
            (400, fixture!("rest_bad_parameter.json"), "51000: Parameter instId can not be empty"),
            (503, fixture!("rest_unavailable_odd_data.json"), "50001: Service temporarily un…"),
        ] {
            let found = trouble(status, body);
            assert!(found.starts_with(text.trim_end_matches('…')), "{found}");
        }
    }

    #[test]
    fn what_proxies_say_is_told_from_what_the_exchange_says() {
        let html = fixture!("rest_proxy.html");
        let edge = |status| {
            format!("www.okx.com answered HTTP {status} without a word of the exchange's own")
        };
        assert_eq!(trouble(502, html), edge(502));
        assert_eq!(trouble(200, html), edge(200));
        assert_eq!(trouble(500, r#"{"code":"0","msg":"","data":[]}"#), edge(500));
        let denied = decode_page(NEWEST, &answer(451, fixture!("rest_region.html"))).unwrap_err();
        assert_eq!(denied.policy(), Policy::Denied);
        assert!(denied.to_string().contains("config key region"));
    }

    #[test]
    fn what_is_no_answer_is_asked_again() {
        let deep = format!("{{\"code\":\"0\",\"data\":{}", "[".repeat(500_000));
        let many = format!("{{\"code\":\"0\",\"data\":[{}[]]}}", "[],".repeat(ROWS_MAX));
        let cases: [(&str, &[u8]); 8] = [
            ("an empty body", b""),
            ("a truncated body", br#"{"code":"0","data":[["1822587060000","1"#),
            ("no data", br#"{"code":"0","msg":""}"#),
            ("data of another form", br#"{"code":"0","msg":"","data":{"a":1}}"#),
            ("no code", br#"{"data":[]}"#),
            ("text that is no UTF-8", b"{\"code\":\"0\",\"data\":[[\"\xff\"]]}"),
            ("deep nesting", deep.as_bytes()),
            ("too many rows", many.as_bytes()),
        ];
        for (name, body) in cases {
            let trouble = decode_page(NEWEST, &answer(200, body)).unwrap_err();
            assert!(matches!(trouble, Trouble::Undecodable { .. }), "{name}: {trouble}");
        }
        assert!(trouble(200, many).contains("it lists more than 1000"));
    }

    #[test]
    fn hostile_text_is_tamed_before_it_is_shown() {
        let body = r#"{"code":"51000","msg":"\u001b[2J\n\u202egnp.exe"}"#;
        assert_eq!(trouble(400, body), "51000: ?[2J ?gnp.exe");
        let body = r#"{"code":"0","data":[["\u001b[2J"]]}"#;
        assert_eq!(page(body).refused[0].why, "it has 1 fields instead of 9");
        let body = r#"{"code":"0","data":[["\u001b[2J",1,1,1,1,1,1,1,1]]}"#;
        assert_eq!(page(body).refused[0].why, r#"its ts is "\u{1b}[2J""#);
    }

    #[test]
    fn the_clock_is_read() {
        let clock = decode_time(&answer(200, fixture!("rest_time.json")));
        assert_eq!(clock, Ok(1_791_137_525_123));
        for body in [
            r#"{"code":"0","msg":"","data":[]}"#,
            r#"{"code":"0","msg":"","data":[{"ts":"never"}]}"#,
            r#"{"code":"0","msg":"","data":[{"ts":"253402300800000"}]}"#,
            r#"{"code":"0","msg":"","data":[{}]}"#,
        ] {
            assert!(decode_time(&answer(200, body)).is_err(), "{body}");
        }
    }

    /// Rows as the exchange would write them.
    fn encoded(rows: &[Candle]) -> String {
        let mut body = String::from(r#"{"code":"0","msg":"","data":["#);
        for (at, row) in rows.iter().rev().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(body, "{comma}[\"{}\"", row.ts).unwrap();
            row.values().iter().for_each(|value| write!(body, ",\"{value}\"").unwrap());
            write!(body, ",\"{}\"]", u8::from(row.confirmed)).unwrap();
        }
        body + "]}"
    }

    prop_compose! {
        fn any_candle()(
            ts in 0..=TIME_MAX - 1,
            values in prop::array::uniform7(any::<f64>().prop_filter("finite", |v| v.is_finite())),
            confirmed: bool,
        ) -> Candle {
            let [open, high, low, close, volume, volume_ccy, volume_quote] = values;
            Candle { ts, open, high, low, close, volume, volume_ccy, volume_quote, confirmed }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            rows in prop::collection::btree_map(0..=TIME_MAX - 1, any_candle(), 0..300)
        ) {
            let rows: Vec<Candle> =
                rows.into_iter().map(|(ts, row)| Candle { ts, ..row }).collect();
            let page = page(encoded(&rows));
            prop_assert!(page.refused.is_empty());
            prop_assert_eq!(page.rows, rows);
        }

        /// Of a page each row is judged alone, whatever stands beside it.
        #[test]
        fn bad_rows_are_refused_and_the_others_kept((minutes, rows) in wild::rows()) {
            let page = page(format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, rows.join(",")));
            let kept: Vec<i64> = page.rows.iter().map(|row| row.ts / MINUTE).collect();
            prop_assert_eq!(&kept, &minutes);
            prop_assert_eq!(page.refused.len(), rows.len() - minutes.len());
            prop_assert!(page.refused.iter().all(|row| row.why.len() < 300));
        }

        #[test]
        fn no_body_makes_it_panic(
            status in 100u16..1000,
            body in prop_oneof![
                any::<Vec<u8>>(),
                wild::json().prop_map(String::into_bytes),
                wild::json().prop_map(|data| format!(r#"{{"code":"0","data":{data}}}"#).into()),
                wild::json().prop_map(|data| format!(r#"{{"code":"0","data":[{data}]}}"#).into()),
                wild::damaged(fixture!("rest_candles_running.json").to_vec()),
                wild::damaged(fixture!("rest_time.json").to_vec()),
                wild::damaged(fixture!("rest_instruments_spot.json").to_vec()),
            ],
        ) {
            let answer = answer(status, body);
            if let Ok(page) = decode_page(NEWEST, &answer) {
                let times = page.rows.iter().map(|row| row.ts);
                prop_assert!(times.clone().all(|ts| (0..=TIME_MAX).contains(&ts)));
                let mut values = page.rows.iter().flat_map(|row| row.values());
                prop_assert!(values.all(f64::is_finite));
                page.evidence("1m".parse::<crate::bar::Bar>().unwrap().grid());
            }
            if let Ok(time) = decode_time(&answer) {
                prop_assert!((0..=TIME_MAX).contains(&time));
            }
            for trouble in [
                decode_page(NEWEST, &answer).err(),
                decode_time(&answer).err(),
                decode_instruments(&answer).err(),
            ].into_iter().flatten() {
                let told = trouble.to_string();
                prop_assert!(!told.contains(char::is_control) && told.len() < 2_000, "{told:?}");
            }
        }
    }
}
