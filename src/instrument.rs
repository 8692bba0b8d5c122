//! Instruments and series: what candles are of.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::bar::Bar;

/// The longest name taken; the longest of OKX's own have about thirty characters.
const NAME_MAX: usize = 40;

/// An instrument in the exchange's spelling, such as `BTC-USDT` or `BTC-USDT-SWAP`.
///
/// **Invariant:** only capital letters, digits, `_` and one to four single `-` between them. A
/// name comes near a path, a URL or SQL in this form alone.
///
/// ```
/// use okx_local_store::Instrument;
///
/// let name = |text: &str| text.parse::<Instrument>().map(|found| found.to_string());
/// assert_eq!(name("btc/usdt").as_deref(), Ok("BTC-USDT"));
/// assert_eq!(name("BTC/USDT:USDT").as_deref(), Ok("BTC-USDT-SWAP"));
/// assert!(name("../../etc/passwd").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instrument(Arc<str>);

impl Instrument {
    /// Takes a name that is spelt as the exchange spells it, and no other.
    pub(crate) fn spelt(name: &str) -> Option<Instrument> {
        let is_letter = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let word = |part: &str| !part.is_empty() && part.bytes().all(is_letter);
        let parts = name.split('-').count();
        let sound = (2..=5).contains(&parts) && name.split('-').all(word);
        (sound && name.len() <= NAME_MAX).then(|| Instrument(name.into()))
    }

    /// The name.
    ///
    /// ```
    /// use okx_local_store::Instrument;
    ///
    /// let btc: Instrument = "btc/usdt".parse()?;
    /// assert_eq!(btc.as_str().split('-').next(), Some("BTC"));
    /// # Ok::<(), okx_local_store::InstrumentError>(())
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Instrument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Instrument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that can be no instrument's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstrumentError(String);

impl fmt::Display for InstrumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long garbage is not repeated in full: the message is for one line of a terminal.
        let shown: String = self.0.chars().take(NAME_MAX).collect();
        write!(f, "{shown:?} is no instrument: give a name such as BTC-USDT or BTC-USDT-SWAP")
    }
}

impl std::error::Error for InstrumentError {}

impl FromStr for Instrument {
    type Err = InstrumentError;

    fn from_str(text: &str) -> Result<Instrument, InstrumentError> {
        let bad = || InstrumentError(text.to_owned());
        let upper = text.to_ascii_uppercase();
        let name = match upper.split_once(':') {
            // The spelling of a perpetual swap that other clients use: BASE/QUOTE:SETTLE.
            Some((pair, settle)) => {
                let (base, quote) = pair.split_once('/').ok_or_else(bad)?;
                if settle != base && settle != quote {
                    return Err(bad());
                }
                format!("{base}-{quote}-SWAP")
            }
            None => upper.replace('/', "-"),
        };
        Instrument::spelt(&name).ok_or_else(bad)
    }
}

/// One instrument at one bar: the unit that is planned, fetched and queried.
///
/// ```
/// use okx_local_store::Series;
///
/// let series = Series { instrument: "BTC-USDT".parse()?, bar: "1h".parse()? };
/// assert_eq!(series.to_string(), "BTC-USDT 1H");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// What is traded.
    pub instrument: Instrument,
    /// At which length.
    pub bar: Bar,
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.instrument, self.bar))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::store::file_path;

    #[test]
    fn names_take_their_normal_form() {
        for (text, name) in [
            ("BTC-USDT", "BTC-USDT"),
            ("btc/usdt", "BTC-USDT"),
            ("eth-usdt-swap", "ETH-USDT-SWAP"),
            ("BTC/USDT:USDT", "BTC-USDT-SWAP"),
            ("BTC/USD:BTC", "BTC-USD-SWAP"),
            ("BTC-USD-261225-100000-C", "BTC-USD-261225-100000-C"),
            ("1INCH-USDT", "1INCH-USDT"),
        ] {
            assert_eq!(text.parse::<Instrument>().unwrap().as_str(), name);
        }
        assert_eq!(Instrument::spelt("BTC-USDT"), "btc/usdt".parse().ok());
        assert_eq!(Instrument::spelt("btc/usdt"), None, "the exchange does not spell it so");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            "BTC",
            "-USDT",
            "BTC-",
            "BTC--USDT",
            "../../etc/passwd",
            "BTC-USDT;DROP",
            "BTC-USDT\0",
            "BTC USDT",
            "BTC-USDT\n",
            "A-B-C-D-E-F",
            "BTC/USDT:EUR",
            "BTC:USDT",
            "ВТС-USDT",
            "%2e%2e-USDT",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-USDT",
        ] {
            assert!(text.parse::<Instrument>().is_err(), "{text:?}");
        }
    }

    proptest! {
        /// Whatever passes names a file of its own right in the folder, and itself in a URL.
        #[test]
        fn no_name_leads_anywhere(
            text in prop_oneof![
                any::<String>(),
                "[A-Za-z0-9_./:%\\\\~*?\u{0}\n-]{0,50}",
                "(\\.\\./|/|~/|%2e)?[A-Z]{1,5}[-/][A-Z]{1,5}(/\\.\\.|\u{0}|\\.db|:[A-Z]{1,5})?",
            ],
        ) {
            let Ok(instrument) = text.parse::<Instrument>() else { return Ok(()) };
            let folder = Path::new("/data");
            let path = file_path(folder, &instrument);
            prop_assert_eq!(path.parent(), Some(folder));
            prop_assert_eq!(path.components().count(), 3);
            prop_assert!(instrument.as_str().len() <= NAME_MAX);
            let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_".contains(&b);
            prop_assert!(instrument.as_str().bytes().all(plain), "{}", instrument);
            prop_assert_eq!(instrument.as_str().parse(), Ok(instrument.clone()));
        }
    }
}
