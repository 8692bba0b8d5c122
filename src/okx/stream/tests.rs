//! Frames of the stream, as seen on the wire and as nobody should send them.

use proptest::prelude::*;

use super::*;
use crate::okx::row;
use crate::time::{MINUTE, TIME_MAX};
use crate::wire::wild;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../fixtures/", $name))
    };
}

fn of(instrument: &str, bar: &str) -> Series {
    Series { instrument: instrument.parse().unwrap(), bar: bar.parse().unwrap() }
}

fn said(code: &str, msg: &str) -> Said {
    Said { code: code.into(), msg: msg.into() }
}

fn push(text: &str) -> (Series, Vec<Candle>, Vec<Refused>) {
    match decode(text).unwrap() {
        Event::Push { series, rows, refused } => (series, rows, refused),
        event => panic!("no push: {event:?}"),
    }
}

#[test]
fn requests_are_what_the_exchange_documents() {
    let series = [of("BTC-USDT", "1m"), of("BTC-USDT-SWAP", "1Dutc")];
    let args = concat!(
        r#""args":[{"channel":"candle1m","instId":"BTC-USDT"},"#,
        r#"{"channel":"candle1Dutc","instId":"BTC-USDT-SWAP"}]}"#
    );
    let subscribe = Request::subscribe(12, &series);
    assert_eq!(subscribe.as_str(), format!(r#"{{"id":"12","op":"subscribe",{args}"#));
    let unsubscribe = Request::unsubscribe(u64::MAX, &series);
    let id = "18446744073709551615";
    assert_eq!(unsubscribe.as_str(), format!(r#"{{"id":"{id}","op":"unsubscribe",{args}"#));
    assert!(id.len() <= 32, "ids have 32 characters at most");
    assert_eq!(Request::ping().as_str(), "ping");
}

#[test]
fn a_login_is_sent_but_never_shown() {
    let credentials = Credentials::new("kkkk", "ssss", "pp\"pp").unwrap();
    let login = Request::login(&credentials, 1_763_629_260_000);
    let text = login.as_str();
    assert!(text.starts_with(r#"{"op":"login","args":[{"apiKey":"kkkk","#), "{text}");
    assert!(text.contains(r#""passphrase":"pp\"pp","timestamp":"1763629260","sign":""#));
    let shown = format!("{login:?}");
    assert!(["kkkk", "ssss", "pp"].iter().all(|part| !shown.contains(part)), "{shown}");
}

#[test]
fn many_series_take_few_requests_of_bounded_length() {
    assert!(batches([]).is_empty());
    let long = "AAAAAAAAAAAAAAAAAAAA-AAAAAAAAAA-261225-X";
    for (name, requests) in [("A-B", 3), ("BTC-USDT-SWAP", 4), (long, 6)] {
        let series: Vec<Series> = (0..250).map(|_| of(name, "12Hutc")).collect();
        let batches = batches(series.clone());
        assert_eq!(batches.len(), requests, "{name}");
        assert!(batches.iter().all(|batch| batch.len() <= ARGS_MAX));
        for batch in &batches {
            let text = Request::unsubscribe(u64::MAX, batch);
            assert!(text.as_str().len() <= REQUEST_BYTES_MAX, "{}", text.as_str().len());
        }
        assert_eq!(batches.concat(), series, "none is lost");
    }
}

#[test]
fn channels_and_bars_name_each_other() {
    for bar in Bar::all() {
        let channel = Topic::new(&Series { bar, ..of("BTC-USDT", "1m") }).channel;
        assert_eq!(series(&channel, "BTC-USDT").map(|series| series.bar), Some(bar));
    }
    for (channel, instrument) in [
        ("candle1h", "BTC-USDT"),
        ("candle5D", "BTC-USDT"),
        ("candle", "BTC-USDT"),
        ("index-candle1m", "BTC-USDT"),
        ("candle1m", "btc-usdt"),
        ("candle1m", "BTC/USDT"),
        ("candle1m", "../../etc/passwd"),
        ("candle1m", ""),
    ] {
        assert_eq!(series(channel, instrument), None, "{channel} {instrument}");
    }
}

#[test]
fn a_push_is_rows_of_a_series() {
    let (series, rows, refused) = push(fixture!("ws_push_running.json"));
    assert_eq!((series, refused), (of("BTC-USDT", "1m"), vec![]));
    assert_eq!((rows[0].ts, rows[0].confirmed), (1_820_919_720_000, false));
    assert_eq!(
        rows[0].values(),
        [84791.7, 84825.6, 84791.6, 84825.6, 3.7968243, 353419.510228308, 353419.510228308]
    );
    let (series, rows, _) = push(fixture!("ws_push_swap.json"));
    assert_eq!(series, of("BTC-USDT-SWAP", "1m"));
    let volumes = [rows[0].volume, rows[0].volume_ccy, rows[0].volume_quote];
    assert_eq!(volumes, [3220.09, 32.2009, 661970.46738]);
    let (_, rows, _) = push(fixture!("ws_push_closed.json"));
    assert!(rows[0].confirmed && rows[0].volume == 0.0);
}

#[test]
fn what_the_exchange_sends_is_the_usual_form() {
    for text in [
        fixture!("ws_push_running.json"),
        fixture!("ws_push_swap.json"),
        fixture!("ws_push_closed.json"),
        fixture!("ws_push_rows.json"),
    ] {
        assert!(push::read(text).is_some(), "{text}");
    }
    for data in ["[]", "[[]]", &format!("[{}[]]", "[],".repeat(1_000))] {
        assert_eq!(push::read(&push_of(data)), None);
    }
}

#[test]
fn a_push_may_have_several_rows_and_more_than_is_documented() {
    let (_, rows, _) = push(fixture!("ws_push_rows.json"));
    let told: Vec<(Millis, bool)> = rows.iter().map(|row| (row.ts, row.confirmed)).collect();
    assert_eq!(told, [(1_763_629_260_000, true), (1_763_629_320_000, false)]);
    let (series, rows, refused) = push(fixture!("ws_push_bad_row.json"));
    assert_eq!((series, rows.len()), (of("BTC-USDT", "1m"), 1));
    assert_eq!(refused[0].ts, Some(1_763_629_260_000));
    assert_eq!(refused[0].why, "its c is \"NaN\"");
}

#[test]
fn events_are_told_apart() {
    let moved = "This channel has been migrated to the '/business' URL. Please subscribe using \
                 the new URL. More details can refer to: https://www.okx.com/help-center/\
                 changes-to-v5-api-websocket-subscription-parameter-and-url";
    let closing = "The connection will soon be closed for a service upgrade. Please reconnect.";
    let minute = of("BTC-USDT", "1m");
    for (text, event) in [
        (
            fixture!("ws_subscribed.json"),
            Event::Subscribed { series: of("BTC-USDT-SWAP", "1Dutc"), id: Some(7) },
        ),
        (
            fixture!("ws_subscribed_no_id.json"),
            Event::Subscribed { series: of("BTC-USD", "1m"), id: None },
        ),
        (fixture!("ws_unsubscribed.json"), Event::Unsubscribed { series: minute, id: Some(8) }),
        (
            fixture!("ws_refused_no_text.json"),
            Event::Refused {
                id: Some(9),
                said: said("60012", "Invalid request: {0}"),
                series: None,
            },
        ),
        (
            fixture!("ws_refused_old.json"),
            Event::Refused {
                id: None,
                said: said("60018", "channel:index-candle1m,instId:ETH-USDC-SWAP doesn't exist"),
                series: None,
            },
        ),
        (
            fixture!("ws_moved.json"),
            Event::Refused { id: None, said: said("64001", moved), series: None },
        ),
        (
            fixture!("ws_login_refused.json"),
            Event::Refused { id: None, said: said("60009", "Login failed."), series: None },
        ),
        (fixture!("ws_login.json"), Event::Login(Ok(()))),
        (
            r#"{"event":"login","code":"60009","msg":"Login failed."}"#,
            Event::Login(Err(said("60009", "Login failed."))),
        ),
        (fixture!("ws_notice.json"), Event::Notice(said("64008", closing))),
        ("pong", Event::Pong),
        (fixture!("ws_unknown_event.json"), Event::Ignored),
        (fixture!("ws_trades.json"), Event::Ignored),
        (fixture!("ws_push_index.json"), Event::Ignored),
        (fixture!("ws_subscribed_index.json"), Event::Ignored),
        (r#"{"event":"subscribe"}"#, Event::Ignored),
        (
            r#"{"msg":"Too Many Requests","code":"50011","data":{}}"#,
            Event::Refused { id: None, said: said("50011", "Too Many Requests"), series: None },
        ),
    ] {
        assert_eq!(decode(text), Ok(event), "{text}");
    }
}

#[test]
fn a_refusal_names_its_series_in_words() {
    for (text, series) in [
        (fixture!("ws_refused.json"), of("BTC-USDT", "1m")),
        (fixture!("ws_refused_seconds.json"), of("BTC-USDT-SWAP", "1s")),
        (
            r#"{"event":"error","code":60018,"arg":{"channel":"candle1H","instId":"A-B"}}"#,
            of("A-B", "1h"),
        ),
    ] {
        let Ok(Event::Refused { said, series: found, .. }) = decode(text) else {
            panic!("{text}");
        };
        assert_eq!((found, said.policy()), (Some(series), StreamPolicy::DropSeries));
    }
    assert_eq!(said("what?", "").policy(), StreamPolicy::Retry);
}

#[test]
fn what_is_no_frame_is_refused() {
    let many = format!(
        r#"{{"arg":{{"channel":"candle1m","instId":"A-B"}},"data":[{}[]]}}"#,
        "[],".repeat(1_000)
    );
    let deep = format!(r#"{{"arg":{}"#, "[".repeat(100_000));
    for text in [
        "",
        "ping",
        "PONG",
        "{}",
        "[]",
        "null",
        "<html>",
        r#"{"arg":{"channel":"candle1m","instId":"A-B"}}"#,
        r#"{"arg":{"channel":"candle1m","instId":"A-B"},"data":{}}"#,
        r#"{"arg":{"channel":"candle1m","instId":"A-B"},"data":[["1","2"]"#,
        r#"{"data":[]}"#,
        &many,
        &deep,
    ] {
        assert!(decode(text).is_err(), "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn hostile_text_is_tamed() {
    let text = r#"{"event":"error","code":"60018","msg":"\u001b[2J\n\u202egnp.exe"}"#;
    let Ok(Event::Refused { said, .. }) = decode(text) else { panic!("no refusal") };
    assert_eq!(said.to_string(), "60018: ?[2J ?gnp.exe");
}

/// A push of rows of BTC-USDT's minutes.
fn push_of(data: &str) -> String {
    format!(r#"{{"arg":{{"channel":"candle1m","instId":"BTC-USDT"}},"data":{data}}}"#)
}

proptest! {
    /// Of a push each row is judged alone, whatever stands beside it.
    #[test]
    fn bad_rows_are_refused_and_the_others_kept((minutes, rows) in wild::rows()) {
        let (_, taken, refused) = push(&push_of(&format!("[{}]", rows.join(","))));
        let kept: Vec<i64> = taken.iter().map(|row| row.ts / MINUTE).collect();
        prop_assert_eq!(&kept, &minutes);
        prop_assert_eq!(refused.len(), rows.len() - minutes.len());
    }

    /// A push in its usual form has a reader of its own, which sees what the other one sees or
    /// leaves the text to it.
    #[test]
    fn a_push_is_read_the_same_by_both_readers(
        text in prop_oneof![
            usual(),
            usual().prop_flat_map(damaged),
            usual().prop_map(|push| push.replacen(",\"", ", \"", 1)),
            wild::rows().prop_map(|(_, rows)| push_of(&format!("[{}]", rows.join(",")))),
        ],
    ) {
        prop_assert_eq!(decode(&text), decode_any(&text));
    }

    #[test]
    fn no_frame_makes_it_panic(
        text in prop_oneof![
            any::<String>(),
            wild::json(),
            wild::json().prop_map(|data| push_of(&data)),
            wild::json().prop_map(|data| push_of(&format!("[{data}]"))),
            wild::scalar().prop_map(|said| format!(r#"{{"event":{said},"code":{said}}}"#)),
            wild::json().prop_map(|arg| format!(r#"{{"event":"subscribe","arg":{arg}}}"#)),
            damaged(fixture!("ws_push_rows.json")),
            damaged(fixture!("ws_refused.json")),
            damaged(fixture!("ws_subscribed.json")),
        ],
    ) {
        match decode(&text) {
            Ok(Event::Push { rows, .. }) => {
                prop_assert!(rows.iter().all(|row| (0..=TIME_MAX).contains(&row.ts)));
                prop_assert!(rows.iter().all(|row| row.values().iter().all(|v| v.is_finite())));
            }
            Ok(Event::Refused { said, .. } | Event::Notice(said) | Event::Login(Err(said))) => {
                prop_assert!(!said.to_string().contains(char::is_control), "{said}");
            }
            Ok(_) => {}
            Err(why) => prop_assert!(!why.as_str().contains(char::is_control), "{why}"),
        }
    }

    #[test]
    fn no_message_names_what_is_no_series(msg: String) {
        let msg = format!("channel:candle1m,instId:{msg}");
        if let Some(series) = named(&msg) {
            prop_assert!(msg.contains(series.instrument.as_str()));
        }
    }
}

/// A push as the exchange writes it, of a few rows.
fn usual() -> impl Strategy<Value = String> {
    let number = prop_oneof!["[0-9]{1,9}([.][0-9]{1,9})?", "0[.]0{0,9}[0-9]{1,4}", "[0-9]e-?[0-9]"];
    let values = proptest::collection::vec(number, row::VALUES);
    let row = (0..TIME_MAX, values, 0..=1).prop_map(|(ts, values, confirm)| {
        format!(r#"["{ts}","{}","{confirm}"]"#, values.join(r#"",""#))
    });
    proptest::collection::vec(row, 1..4).prop_map(|rows| push_of(&format!("[{}]", rows.join(","))))
}

fn damaged(good: impl Into<Vec<u8>>) -> impl Strategy<Value = String> {
    wild::damaged(good).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
