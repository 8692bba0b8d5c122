//! Whatever is asked, an answer comes: a value or an error, and never a panic.

use proptest::prelude::*;

use crate::bar::Bar;
use crate::config::Config;
use crate::error::Error;
use crate::house::Household;
use crate::instrument::Instrument;
use crate::query::Query;
use crate::span::Span;
use crate::store::query::Selection;
use crate::store::sample::Sample;
use crate::wire::wild;

/// A store in which an instrument that nobody configured has four bars of every length.
fn stored() -> (Sample, Query, Instrument) {
    let sample = Sample::new();
    for bar in Bar::all() {
        let closed = [(0, 1.0), (1, 1.5), (3, 2.0)];
        sample.store("BTC-USDT", bar.name(), &closed, Some((4, 2.5)));
    }
    let config = Config::builder(sample.data_dir()).build().unwrap();
    (sample, Query::new(Household::new(config)), "BTC-USDT".parse().unwrap())
}

fn selection() -> impl Strategy<Value = Selection> {
    prop_oneof![
        any::<u32>().prop_map(Selection::Newest),
        any::<u32>().prop_map(Selection::Days),
        (wild::number(), wild::number())
            .prop_map(|(start, end)| Selection::Range(Span::new(start, end))),
    ]
}

#[test]
fn no_question_is_without_an_answer() {
    let (sample, query, btc) = stored();
    let file = sample.data_dir().join("btc.csv");
    let bars: Vec<Bar> = Bar::all().collect();
    proptest!(|(
        bar in prop::sample::select(bars),
        at in wild::number(),
        other in wild::number(),
        count in any::<u32>(),
        selection in selection(),
    )| {
        let range = Span::new(at, other);
        let found = query.candles_by_date_range(&btc, bar, range).unwrap();
        prop_assert!(found.iter().all(|candle| range.contains(candle.ts)));
        let since = query.candles_since(&btc, bar, at).unwrap();
        prop_assert!(since.iter().all(|candle| candle.ts >= at));
        prop_assert!(query.recent_candles(&btc, bar, count).unwrap().len() <= count as usize);
        query.calculate_returns(&btc, bar, selection).unwrap();
        query.calculate_volatility(&btc, bar, count).unwrap();
        let price = query.price_at_time(&btc, bar, at).unwrap();
        prop_assert!(price.is_none_or(|price| price.as_of <= at));
        match query.daily_summary(&btc, bar, at) {
            Ok(summary) => prop_assert!(summary.is_none_or(|summary| summary.day.contains(at))),
            Err(error) => {
                prop_assert!(matches!(error, Error::Unfit { .. }), "{error}");
                let midnight = query.daily_summary(&btc, bar, 0);
                prop_assert!(matches!(midnight, Err(Error::Unfit { .. })), "{bar} fits some days");
            }
        }
        match query.export_to_csv(&btc, bar, &file, selection) {
            Ok(exported) => prop_assert!((1..=3).contains(&exported.rows)),
            Err(error) => prop_assert!(matches!(error, Error::Nothing { .. }), "{error}"),
        }
    });
}

#[test]
fn what_is_no_file_takes_no_rows() {
    let (sample, query, btc) = stored();
    let minute = "1m".parse().unwrap();
    let nowhere = sample.data_dir().join("nowhere").join("btc.csv");
    for path in ["", "/", ".", "..", "\0", "btc\0.csv", nowhere.to_str().unwrap()] {
        let refused = query.export_to_csv(&btc, minute, path.as_ref(), Selection::default());
        let refused = refused.unwrap_err();
        assert!(matches!(refused, Error::Target { .. } | Error::Io { .. }), "{path:?}: {refused}");
    }
}

#[test]
fn a_folder_is_read_by_whoever_names_nothing_in_it() {
    let (_sample, query, btc) = stored();
    for bar in Bar::all() {
        assert_eq!(query.recent_candles(&btc, bar, 9).unwrap().len(), 4, "{bar}");
        let coverage = query.data_coverage(&btc, bar).unwrap();
        assert_eq!((coverage.rows, coverage.suspected_empty, coverage.missing), (3, 1, 0), "{bar}");
    }
}
