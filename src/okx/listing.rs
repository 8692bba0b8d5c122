//! What the exchange trades: the list of instruments.
//!
//! Source: <https://www.okx.com/docs-v5/en/#public-data-rest-api-get-instruments>.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::instrument::Instrument;
use crate::okx::envelope::{Few, Scalar, open};
use crate::wire::{Answer, Plain, Trouble};

/// More instruments than any kind has; OKX lists some hundreds to some thousands.
const LISTINGS_MAX: usize = 20_000;

/// What sort of instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Currencies, at once.
    Spot,
    /// Perpetual contracts.
    Swap,
    /// Contracts that expire.
    Futures,
    /// Options.
    Option,
    /// Currencies, on credit.
    Margin,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Spot, Kind::Swap, Kind::Futures, Kind::Option, Kind::Margin];

    /// OKX's name of it, the value of the parameter `instType`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Spot => "SPOT",
            Kind::Swap => "SWAP",
            Kind::Futures => "FUTURES",
            Kind::Option => "OPTION",
            Kind::Margin => "MARGIN",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no kind of instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindError(String);

impl fmt::Display for KindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no kind of instrument: give one of", self.0)?;
        Kind::ALL.into_iter().try_for_each(|kind| write!(f, " {kind}"))
    }
}

impl std::error::Error for KindError {}

impl FromStr for Kind {
    type Err = KindError;

    /// Takes the name in either case.
    fn from_str(text: &str) -> Result<Kind, KindError> {
        let found = Kind::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| KindError(text.to_owned()))
    }
}

/// An instrument as the exchange lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub instrument: Instrument,
    /// What sort.
    pub kind: Kind,
    /// `live`, `suspend`, `preopen`, `test`, or what OKX will think of next.
    pub state: Plain,
    /// The currency that is traded; empty for derivatives.
    pub base: Plain,
    /// The currency that prices are in; empty for derivatives.
    pub quote: Plain,
    /// The currency that contracts are settled in; empty for spot and margin.
    pub settle: Plain,
    /// The smallest step of its price, as OKX writes it.
    pub tick_size: Plain,
}

/// The path and query of the list of one kind.
///
/// ```
/// use okx_local_store::okx::{Kind, instruments_path};
///
/// assert_eq!(instruments_path(Kind::Swap), "/api/v5/public/instruments?instType=SWAP");
/// ```
pub fn instruments_path(kind: Kind) -> String {
    format!("/api/v5/public/instruments?instType={kind}")
}

/// Reads a list of instruments. Those whose name is not sound, or whose kind is not known, cannot
/// be stored and are left out.
pub fn decode_instruments(answer: &Answer) -> Result<Vec<Listing>, Trouble> {
    let Few(listed) = open::<Few<Listed, LISTINGS_MAX>>(answer)?;
    Ok(listed.iter().filter_map(Listed::listing).collect())
}

/// The fields as they come, of which any can be empty or missing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    #[serde(borrow, default)]
    inst_id: Scalar<'a>,
    #[serde(borrow, default)]
    inst_type: Scalar<'a>,
    #[serde(borrow, default)]
    state: Scalar<'a>,
    #[serde(borrow, default)]
    base_ccy: Scalar<'a>,
    #[serde(borrow, default)]
    quote_ccy: Scalar<'a>,
    #[serde(borrow, default)]
    settle_ccy: Scalar<'a>,
    #[serde(borrow, default)]
    tick_sz: Scalar<'a>,
}

impl Listed<'_> {
    fn listing(&self) -> Option<Listing> {
        let instrument: Instrument = self.inst_id.text().parse().ok()?;
        // A name that is sound only in its normal form is another instrument's name.
        if instrument.as_str() != self.inst_id.text() {
            return None;
        }
        Some(Listing {
            instrument,
            kind: self.inst_type.text().parse().ok()?,
            state: Plain::of(&self.state),
            base: Plain::of(&self.base_ccy),
            quote: Plain::of(&self.quote_ccy),
            settle: Plain::of(&self.settle_ccy),
            tick_size: Plain::of(&self.tick_sz),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listings(body: &[u8]) -> Result<Vec<Listing>, Trouble> {
        let body = body.to_vec();
        decode_instruments(&Answer { host: "h".into(), status: 200, retry_after_ms: None, body })
    }

    #[test]
    fn kinds_read_back_in_either_case() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.to_string().to_lowercase().parse(), Ok(kind));
        }
        assert!("SPOT ".parse::<Kind>().is_err() && "".parse::<Kind>().is_err());
    }

    #[test]
    fn instruments_are_listed_with_what_people_ask_for() {
        let found = listings(include_bytes!("../../fixtures/rest_instruments_spot.json")).unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|l| format!("{} {} {} {} {}", l.instrument, l.kind, l.state, l.quote, l.tick_size))
            .collect();
        assert_eq!(
            shown,
            ["BTC-USDT SPOT live USDT 0.1", "PEPE-USDT SPOT suspend USDT 0.000000000001"]
        );
        let found = listings(include_bytes!("../../fixtures/rest_instruments_swap.json")).unwrap();
        assert_eq!((found[0].base.as_str(), found[0].settle.as_str()), ("", "USDT"));
    }

    #[test]
    fn names_that_are_not_sound_are_left_out() {
        let body = include_bytes!("../../fixtures/rest_instruments_unsound.json");
        let names: Vec<String> =
            listings(body).unwrap().iter().map(|l| l.instrument.to_string()).collect();
        assert_eq!(names, ["ETH-USDT"]);
    }

    #[test]
    fn endless_lists_are_refused() {
        let body = format!("{{\"code\":0,\"data\":[{}{{}}]}}", "{},".repeat(LISTINGS_MAX));
        assert!(listings(body.as_bytes()).unwrap_err().to_string().contains("more than 20000"));
    }
}
