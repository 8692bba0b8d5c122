//! One candle, and the rule by which a newer state of a bar may take the place of the stored one.

use crate::time::Millis;

/// The state of one bar: prices, volumes, and whether the exchange has closed it.
///
/// What the volumes count depends on the instrument: see the fields. These are all of the
/// exchange's columns, so a candle can be made and taken apart by anybody.
///
/// ```
/// # let (_folder, store) =
/// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
/// use okx_local_store::Candle;
///
/// let candles = store.query().recent_candles(&"BTC-USDT".parse()?, "1m".parse()?, 30)?;
/// let closed: Vec<Candle> = candles.into_iter().filter(|candle| candle.confirmed).collect();
/// let rising = closed.iter().filter(|candle| candle.close > candle.open).count();
/// assert_eq!((closed.len(), rising), (29, 29));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candle {
    /// The bar's open time, Unix ms.
    pub ts: Millis,
    /// The first price.
    pub open: f64,
    /// The highest price.
    pub high: f64,
    /// The lowest price.
    pub low: f64,
    /// The last price.
    pub close: f64,
    /// Traded volume: in base currency (spot), in contracts (derivatives). OKX calls it `vol`.
    pub volume: f64,
    /// Traded volume: in quote currency (spot), in base currency (derivatives). `volCcy`.
    pub volume_ccy: f64,
    /// Traded volume in quote currency. `volCcyQuote`.
    pub volume_quote: f64,
    /// Whether the exchange said that the bar is closed. The clock never says so.
    pub confirmed: bool,
}

impl Candle {
    /// The seven numbers, in the order of the table's columns.
    #[doc(hidden)]
    #[must_use]
    pub fn values(&self) -> [f64; 7] {
        let Candle { open, high, low, close, volume, volume_ccy, volume_quote, .. } = *self;
        [open, high, low, close, volume, volume_ccy, volume_quote]
    }

    /// Whether the numbers contradict each other: a high below a price, a low above one, a
    /// negative volume. The exchange has such rows; they are kept as given, and counted.
    ///
    /// ```
    /// # let (_folder, store) =
    /// #     include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/sample.in"));
    /// use okx_local_store::Candle;
    ///
    /// let newest = store.query().latest_candle(&"BTC-USDT".parse()?, "1m".parse()?)?;
    /// let newest = newest.expect("it was stored");
    /// assert!(!newest.is_odd());
    /// assert!(Candle { high: newest.low - 1.0, ..newest }.is_odd());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_odd(&self) -> bool {
        let highest = self.open.max(self.close).max(self.low);
        let lowest = self.open.min(self.close).min(self.high);
        let volumes = [self.volume, self.volume_ccy, self.volume_quote];
        self.high < highest || self.low > lowest || volumes.iter().any(|&volume| volume < 0.0)
    }
}

/// Who told of a candle's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A REST page.
    Rest = 0,
    /// A push of the stream.
    Stream = 1,
}

/// A candle's state together with who told of it and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// The numbers.
    pub candle: Candle,
    /// Who told of them.
    pub source: Source,
    /// When, by the exchange's clock, Unix ms.
    pub updated_at: Millis,
}

/// What to do with a newly heard state of a bar that is already stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stored state stays.
    Keep,
    /// The new state takes its place.
    Replace,
    /// The exchange has revised a closed bar: the new state takes its place, the old one is kept
    /// among the revisions.
    Revise,
}

impl State {
    /// The rule of finality: what becomes of this stored state when `heard` arrives.
    ///
    /// A closed bar never opens again. REST may revise a closed bar, the stream may not: a page is
    /// the exchange's record, a push only its announcement. Of two running states the one with
    /// more volume is the later one, whatever order they arrive in.
    pub fn hear(&self, heard: &State) -> Verdict {
        let same = self.candle.values() == heard.candle.values();
        match (self.candle.confirmed, heard.candle.confirmed) {
            (false, true) => Verdict::Replace,
            (true, false) => Verdict::Keep,
            (true, true) if same || heard.source == Source::Stream => Verdict::Keep,
            (true, true) => Verdict::Revise,
            (false, false) if same || heard.candle.volume < self.candle.volume => Verdict::Keep,
            (false, false) if heard.candle.volume > self.candle.volume => Verdict::Replace,
            (false, false) if heard.updated_at >= self.updated_at => Verdict::Replace,
            (false, false) => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(
        close: f64,
        volume: f64,
        confirmed: bool,
        source: Source,
        updated_at: Millis,
    ) -> State {
        let candle = Candle {
            ts: 0,
            open: 1.0,
            high: 9.0,
            low: 0.5,
            close,
            volume,
            volume_ccy: volume,
            volume_quote: volume,
            confirmed,
        };
        State { candle, source, updated_at }
    }

    #[test]
    fn the_rule_of_finality() {
        use Source::{Rest, Stream};
        use Verdict::{Keep, Replace, Revise};
        let cases = [
            ("a confirm closes", (1.0, 5.0, false, Rest, 9), (1.0, 5.0, true, Stream, 1), Replace),
            ("closed stays closed", (1.0, 5.0, true, Rest, 1), (2.0, 9.0, false, Rest, 9), Keep),
            (
                "an equal close is no news",
                (1.0, 5.0, true, Rest, 1),
                (1.0, 5.0, true, Rest, 9),
                Keep,
            ),
            ("REST revises", (1.0, 5.0, true, Stream, 1), (2.0, 5.0, true, Rest, 9), Revise),
            ("the stream does not", (1.0, 5.0, true, Rest, 1), (2.0, 5.0, true, Stream, 9), Keep),
            ("more volume wins", (1.0, 5.0, false, Rest, 9), (2.0, 6.0, false, Rest, 1), Replace),
            ("less volume loses", (1.0, 5.0, false, Rest, 1), (2.0, 4.0, false, Rest, 9), Keep),
            ("then the later", (1.0, 5.0, false, Rest, 1), (2.0, 5.0, false, Rest, 2), Replace),
            ("not the earlier", (1.0, 5.0, false, Rest, 2), (2.0, 5.0, false, Rest, 1), Keep),
        ];
        for (name, (c, v, f, s, at), (hc, hv, hf, hs, hat), verdict) in cases {
            let (stored, heard) = (state(c, v, f, s, at), state(hc, hv, hf, hs, hat));
            assert_eq!(stored.hear(&heard), verdict, "{name}");
        }
    }

    #[test]
    fn odd_rows_are_told_from_flat_ones() {
        let flat = Candle { open: 9.0, low: 9.0, ..state(9.0, 0.0, true, Source::Rest, 0).candle };
        assert!(!flat.is_odd());
        assert!(Candle { high: 8.0, ..flat }.is_odd());
        assert!(Candle { low: 9.5, ..flat }.is_odd());
        assert!(Candle { volume: -1.0, ..flat }.is_odd());
    }
}
