//! Shares of a whole, in per cent.

use std::fmt;
use std::str::FromStr;

/// Which share of all pages is read.
///
/// ```
/// use okx_local_store::verification::Share;
///
/// assert_eq!("2.5".parse::<Share>().unwrap().to_string(), "2.5");
/// assert_eq!("100".parse::<Share>().unwrap(), Share::ALL);
/// assert!("0".parse::<Share>().is_err() && "101".parse::<Share>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// All of them.
    pub const ALL: Share = Share(1_000_000);
    /// Parts of one per cent.
    const PER_CENT: u64 = Share::ALL.0 / 100;

    /// So many of `all`, at least one where there are any.
    pub(super) fn of(self, all: u64) -> u64 {
        (all * self.0).div_ceil(Share::ALL.0)
    }

    /// The share, in per cent.
    pub fn per_cent(self) -> f64 {
        self.0 as f64 / Share::PER_CENT as f64
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.per_cent())
    }
}

impl FromStr for Share {
    type Err = ShareError;

    /// Reads a percentage: digits, with up to four after a point.
    fn from_str(text: &str) -> Result<Share, ShareError> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let fits = digits(whole) && digits(part) && whole.len() <= 3 && part.len() <= 4;
        let parts = fits.then(|| format!("{whole}{part:0<4}").parse().ok()).flatten();
        let parts = parts.filter(|parts| (1..=Share::ALL.0).contains(parts));
        parts.map(Share).ok_or(ShareError)
    }
}

/// Text that is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareError;

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("give a percentage above 0 and up to 100, such as 10 or 0.5")
    }
}

impl std::error::Error for ShareError {}
