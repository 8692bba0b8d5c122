//! The wire as it is today: what `make record` took from the live exchange is understood. Where
//! nothing was recorded yet, an older capture stands in.

use std::fs;
use std::path::Path;

use okx_local_store::bar::Bar;
use okx_local_store::okx::{decode_instruments, decode_page, decode_time};
use okx_local_store::page::Ask;
use okx_local_store::wire::Answer;

fn answer(recorded: &str, stand_in: &str) -> Answer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let body = fs::read(folder.join(recorded)).or_else(|_| fs::read(folder.join(stand_in)));
    Answer { host: "recorded".into(), status: 200, retry_after_ms: None, body: body.unwrap() }
}

#[test]
fn pages_are_understood_row_for_row() {
    for (recorded, stand_in, bar, runs) in [
        ("rest_live_candles.json", "rest_candles_running.json", "1m", true),
        ("rest_live_history.json", "rest_history_flat.json", "1m", false),
        ("rest_live_day.json", "rest_candles_day.json", "1D", true),
        ("rest_live_swap.json", "rest_candles_swap.json", "15m", true),
    ] {
        let newest = Ask::Newest { limit: 300, until: 0 };
        let page = decode_page(newest, &answer(recorded, stand_in)).unwrap();
        let grid = bar.parse::<Bar>().unwrap().grid();
        assert!(!page.rows.is_empty() && page.refused.is_empty(), "{recorded}: {page:?}");
        assert!(page.rows.iter().all(|row| grid.opens_at(row.ts)), "{recorded}: {page:?}");
        assert!(runs || page.rows.iter().all(|row| row.confirmed), "{recorded}: {page:?}");
    }
}

#[test]
fn the_clock_and_the_list_are_understood() {
    decode_time(&answer("rest_live_time.json", "rest_time.json")).unwrap();
    let list = answer("rest_live_spot.json", "rest_instruments_spot.json");
    let listings = decode_instruments(&list).unwrap();
    assert!(listings.iter().any(|listing| listing.instrument.as_str() == "BTC-USDT"));
}
