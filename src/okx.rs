//! OKX API v5: hosts, limits, and both wires, REST and the stream, as pure functions from words to
//! requests and from answers to words.
//!
//! Source of every rule here: <https://www.okx.com/docs-v5/en/>. Where the documentation is silent
//! or was seen to be wrong, the code takes either answer.

mod code;
mod envelope;
mod listing;
mod push;
mod rest;
mod row;
mod sign;
pub mod stream;

use std::fmt;
use std::str::FromStr;

use crate::bar::Bar;
use crate::time::{Millis, SECOND};
use crate::wire::{Endpoint, Rate};

pub use code::{StreamPolicy, code_policy};
pub use listing::{Kind, KindError, Listing, decode_instruments, instruments_path};
pub use rest::{TIME_PATH, decode_page, decode_time, page_path};
pub use sign::{Credentials, CredentialsError};

/// The most rows that one page has. A larger `limit` has no documented answer and is never sent.
pub const PAGE_ROWS_MAX: u32 = 300;

/// How many of the newest bars `/candles` reaches back; what is older is `/history-candles`' alone.
pub const CANDLES_DEPTH: u32 = 1_440;

/// The newest page is always within the reach of `/candles`.
const _: () = assert!(PAGE_ROWS_MAX <= CANDLES_DEPTH);

/// How often an endpoint may be asked, per IP address.
///
/// Sources, in order:
/// <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-candlesticks>,
/// <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-candlesticks-history>,
/// <https://www.okx.com/docs-v5/en/#public-data-rest-api-get-system-time>,
/// <https://www.okx.com/docs-v5/en/#public-data-rest-api-get-instruments>.
pub const fn rate(endpoint: Endpoint) -> Rate {
    const WINDOW_MS: Millis = 2 * SECOND;
    let requests = match endpoint {
        Endpoint::Candles => 40,
        Endpoint::History => 20,
        Endpoint::Time => 10,
        Endpoint::Instruments => 20,
    };
    Rate { requests, window_ms: WINDOW_MS }
}

/// Whether `/candles` knows a bar. It refuses seconds (51000); only history has them.
pub fn candles_have(bar: Bar) -> bool {
    bar.name() != "1s"
}

/// Where the account, or its owner, is at home. Regions can have different books for one
/// instrument, so a store belongs to one of them.
///
/// ```
/// use okx_local_store::Region;
///
/// assert_eq!("eea".parse(), Ok(Region::Eea));
/// assert!("mars".parse::<Region>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Region {
    /// Everywhere else.
    #[default]
    Global,
    /// The European Economic Area.
    Eea,
    /// The United States.
    Us,
}

impl Region {
    /// All of them.
    pub const ALL: [Region; 3] = [Region::Global, Region::Eea, Region::Us];

    /// Its name in a configuration.
    ///
    /// ```
    /// use okx_local_store::Region;
    ///
    /// assert_eq!(Region::ALL.map(Region::as_str), ["global", "eea", "us"]);
    /// ```
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Region::Global => "global",
            Region::Eea => "eea",
            Region::Us => "us",
        }
    }

    /// Its REST host. Live and demo trading share it.
    /// Source: <https://www.okx.com/docs-v5/en/#overview-production-trading-services>.
    ///
    /// ```
    /// use okx_local_store::Region;
    ///
    /// assert_eq!(Region::Eea.rest_url(), "https://eea.okx.com");
    /// ```
    #[must_use]
    pub fn rest_url(self) -> &'static str {
        match self {
            Region::Global => "https://openapi.okx.com",
            Region::Eea => "https://eea.okx.com",
            Region::Us => "https://us.okx.com",
        }
    }

    /// Its host of the stream, which demo trading does not share. Port 8443, which many guides
    /// still name, was switched off in October 2026.
    /// Source: <https://www.okx.com/docs-v5/en/#overview-demo-trading-services>.
    ///
    /// ```
    /// use okx_local_store::Region;
    ///
    /// assert_eq!(Region::Us.ws_url(false), "wss://wsus.okx.com");
    /// assert_eq!(Region::Us.ws_url(true), "wss://wsuspap.okx.com");
    /// ```
    #[must_use]
    pub fn ws_url(self, demo: bool) -> &'static str {
        match (self, demo) {
            (Region::Global, false) => "wss://ws.okx.com",
            (Region::Global, true) => "wss://wspap.okx.com",
            (Region::Eea, false) => "wss://wseea.okx.com",
            (Region::Eea, true) => "wss://wseeapap.okx.com",
            (Region::Us, false) => "wss://wsus.okx.com",
            (Region::Us, true) => "wss://wsuspap.okx.com",
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that names no region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionError(String);

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no region: give global, eea or us", self.0)
    }
}

impl std::error::Error for RegionError {}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Region, RegionError> {
        let found = Region::ALL.into_iter().find(|region| region.as_str() == text);
        found.ok_or_else(|| RegionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_read_back_and_have_hosts_of_their_own() {
        let mut hosts = std::collections::BTreeSet::new();
        for region in Region::ALL {
            assert_eq!(region.to_string().parse(), Ok(region));
            hosts.extend([region.rest_url(), region.ws_url(false), region.ws_url(true)]);
        }
        assert_eq!(hosts.len(), 3 * Region::ALL.len());
        for text in ["", "Global", "europe", "us "] {
            assert!(text.parse::<Region>().is_err(), "{text:?}");
        }
    }
}
